//! `/api/v1/search/{metric_names,label_names,label_values}`: names that are like what somebody is typing, as lines of
//! JSON.
//!
//! | parameter | meaning |
//! |---|---|
//! | `search[]` | what names are to be like; without it all are |
//! | `match[]` | selectors: of series that match one of them |
//! | `label` | the label whose values are searched; needed for `label_values` |
//! | `fuzz_alg`, `fuzz_threshold` | `subsequence` (default) or `jarowinkler`, and from how many percent on |
//! | `case_sensitive` | `true` unless said otherwise |
//! | `sort_by`, `sort_dir` | `alpha` (default) and `asc` or `dsc`; or `score`, the most alike first |
//! | `include_score`, `include_metadata` | say how alike, and what is known of a metric |
//! | `start`, `end` | of series with samples then; the last hour if not said |
//! | `limit`, `batch_size` | the most names, and how many in a line; 100 and 100 |
//!
//! An answer is lines of `{"results":[…]}`, of which there is one even if there is no name, and a last line
//! `{"status":"success","has_more":…}`. What fails, fails before the first line.

use axum::http::header;
use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;

use super::Shared;
use crate::{
    gateway::{error::ApiError, form::Form, wire::search},
    query::{
        Hit, Reader, SearchQuery, Searched,
        search::{Algorithm, Order, Terms},
    },
};

/// Names in an answer, and in a line of it, if nothing is said.
const DEFAULT: usize = 100;
/// The most names in an answer.
const MOST: usize = 10_000;
/// The most texts that are looked for: every name is held against all of them.
const MOST_TERMS: usize = 32;
/// The longest of them, in bytes.
const LONGEST_TERM: usize = 4096;

/// Searches the names of metrics.
pub async fn metric_names(state: Shared, reader: Reader, form: Form) -> Result<Response, ApiError> {
    answer(state, reader, &form, Searched::Metrics, "metric_names").await
}

/// Searches the names of labels.
pub async fn label_names(state: Shared, reader: Reader, form: Form) -> Result<Response, ApiError> {
    answer(state, reader, &form, Searched::Labels, "label_names").await
}

/// Searches the values of a label.
pub async fn label_values(state: Shared, reader: Reader, form: Form) -> Result<Response, ApiError> {
    let what = Searched::Values(form.get("label").unwrap_or_default().to_owned());
    answer(state, reader, &form, what, "label_values").await
}

async fn answer(
    State(state): Shared,
    reader: Reader,
    form: &Form,
    what: Searched,
    route: &str,
) -> Result<Response, ApiError> {
    let metadata = flag(form, "include_metadata", false)?;
    let include_score = flag(form, "include_score", false)?;
    let batch = size(form, "batch_size")?.unwrap_or(DEFAULT);
    let query = query(form, what, route, metadata)?;
    let found = state.query.search(&reader, query).await?;
    let has_more = found.has_more;
    let mut batches: Vec<Vec<Hit>> = Vec::new();
    let mut hits = found.hits.into_iter();
    loop {
        let next: Vec<Hit> = hits.by_ref().take(batch).collect();
        if next.is_empty() && !batches.is_empty() {
            break;
        }
        batches.push(next);
    }
    let lines = batches.into_iter().map(move |hits| search::batch(&hits, include_score));
    let lines = lines.chain(std::iter::once_with(move || search::trailer(has_more)));
    let body = Body::from_stream(stream::iter(lines.map(|line| Ok::<_, std::io::Error>(Bytes::from(line)))));
    Ok(([(header::CONTENT_TYPE, search::CONTENT_TYPE)], body).into_response())
}

/// Reads a search; what is wrong is told in Prometheus' words and order.
fn query(form: &Form, what: Searched, route: &str, metadata: bool) -> Result<SearchQuery, ApiError> {
    let bad = |message: String| Err(ApiError::bad_data(message));
    let (start, end) = (form.time("start")?, form.time("end")?);
    let texts = form.all("search[]");
    if texts.len() > MOST_TERMS {
        return bad(format!("too many search[] terms: got {}, maximum is {MOST_TERMS}", texts.len()));
    }
    if let Some(long) = texts.iter().find(|text| text.len() > LONGEST_TERM) {
        return bad(format!("a search[] term is {} bytes long, the limit is {LONGEST_TERM}", long.len()));
    }
    let searches = !texts.is_empty();
    let percent = match form.get("fuzz_threshold") {
        None => 0,
        Some(text) => match text.parse::<u8>() {
            Ok(percent @ 0..=100) => percent,
            Ok(_) | Err(_) => return bad(format!("invalid fuzz_threshold {text:?}: must be 0-100")),
        },
    };
    let algorithm = match form.get("fuzz_alg") {
        None | Some("subsequence") => Algorithm::Subsequence,
        Some("jarowinkler") => Algorithm::JaroWinkler,
        Some(other) => {
            return bad(format!("unsupported fuzz_alg {other:?}: must be one of [subsequence jarowinkler]"));
        }
    };
    let case_sensitive = flag(form, "case_sensitive", true)?;
    let order = match (form.get("sort_by"), form.get("sort_dir")) {
        (None, Some(_)) => return bad("sort_dir is only valid when sort_by is set".to_owned()),
        (Some("score"), Some(_)) => {
            return bad("sort_dir is not supported for sort_by=score".to_owned());
        }
        (_, Some(other)) if !matches!(other, "asc" | "dsc") => {
            return bad(format!("invalid sort_dir {other:?}: must be \"asc\" or \"dsc\""));
        }
        (Some("score"), None) if !searches => {
            return bad("sort_by=score requires search[] to be set".to_owned());
        }
        (Some("score"), None) => Order::Score,
        (Some("alpha"), Some("dsc")) => Order::Descending,
        (None | Some("alpha"), _) => Order::Ascending,
        (Some(other), _) => {
            return bad(format!("invalid sort_by {other:?} for {route}: must be \"alpha\" or \"score\""));
        }
    };
    let limit = match size(form, "limit")? {
        Some(limit) if limit > MOST => {
            return bad(format!("limit {limit} exceeds the configured maximum ({MOST})"));
        }
        limit => limit.unwrap_or(DEFAULT),
    };
    if what == Searched::Values(String::new()) {
        return bad("missing required parameter \"label\"".to_owned());
    }
    let terms = Terms::new(texts, algorithm, percent, case_sensitive);
    Ok(SearchQuery { what, selectors: form.all("match[]"), terms, order, start, end, limit, metadata })
}

/// A number above 0; none if it is not given, or 0.
fn size(form: &Form, name: &str) -> Result<Option<usize>, ApiError> {
    let Some(text) = form.get(name) else { return Ok(None) };
    match text.parse::<usize>() {
        Ok(size) => Ok(Some(size).filter(|size| *size > 0)),
        Err(_) => Err(ApiError::bad_data(format!("invalid {name} {text:?}: must be non-negative integer"))),
    }
}

fn flag(form: &Form, name: &str, default: bool) -> Result<bool, ApiError> {
    match form.flag(name) {
        Ok(flag) => Ok(flag.unwrap_or(default)),
        Err(text) => Err(ApiError::bad_data(format!("invalid {name} {text:?}: must be boolean"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SearchQuery, String> {
        let form = Form::parse(text, b"").unwrap();
        query(&form, Searched::Metrics, "metric_names", false).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn what_is_not_said_is_as_prometheus_has_it() {
        let query = read("").unwrap();
        assert_eq!((query.limit, query.order, query.start, query.end), (100, Order::Ascending, None, None));
        assert_eq!(query.terms, Terms::new(vec![], Algorithm::Subsequence, 0, true));
        let query = read(
            "search[]=a&search[]=b&fuzz_alg=jarowinkler&fuzz_threshold=80&case_sensitive=f&sort_by=score&limit=7",
        );
        let query = query.unwrap();
        assert_eq!((query.limit, query.order), (7, Order::Score));
        let texts = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(query.terms, Terms::new(texts, Algorithm::JaroWinkler, 80, false));
        assert_eq!(read("limit=0").unwrap().limit, 100);
        assert_eq!(read("sort_by=alpha&sort_dir=dsc").unwrap().order, Order::Descending);
    }

    #[test]
    fn what_does_not_read_is_told_in_prometheus_words() {
        for (text, why) in [
            ("fuzz_threshold=101", r#"invalid fuzz_threshold "101": must be 0-100"#),
            ("fuzz_threshold=x", r#"invalid fuzz_threshold "x": must be 0-100"#),
            ("fuzz_alg=x", r#"unsupported fuzz_alg "x": must be one of [subsequence jarowinkler]"#),
            ("case_sensitive=x", r#"invalid case_sensitive "x": must be boolean"#),
            ("sort_dir=asc", "sort_dir is only valid when sort_by is set"),
            ("sort_by=score&sort_dir=asc", "sort_dir is not supported for sort_by=score"),
            ("sort_by=alpha&sort_dir=x", r#"invalid sort_dir "x": must be "asc" or "dsc""#),
            ("sort_by=score", "sort_by=score requires search[] to be set"),
            ("sort_by=x", r#"invalid sort_by "x" for metric_names: must be "alpha" or "score""#),
            ("limit=-1", r#"invalid limit "-1": must be non-negative integer"#),
            ("limit=10001", "limit 10001 exceeds the configured maximum (10000)"),
        ] {
            assert_eq!(read(text).unwrap_err(), why, "{text}");
        }
        let many = vec!["search[]=a"; 33].join("&");
        assert_eq!(read(&many).unwrap_err(), "too many search[] terms: got 33, maximum is 32");
        assert!(read(&format!("search[]={}", "a".repeat(4097))).unwrap_err().contains("4097 bytes long"));
    }
}
