//! What a request's head says of a query: where it comes from, which features it switches, and whether what was kept
//! will do.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::CACHE_CONTROL, request::Parts},
};

use crate::{
    gateway::{State, access::Caller, error::ApiError, request::REQUEST_ID},
    model::FeatureSwitches,
    query::Origin,
};

/// The header that switches features: names with commas between them, one with a minus before it is switched off.
pub const FEATURES: &str = "Luminate-Features";

/// What Grafana says of the dashboard and the panel that ask.
const DASHBOARD: &str = "X-Dashboard-Uid";
const PANEL: &str = "X-Panel-Id";

/// More of a header is not read.
const MAX_BYTES: usize = 1024;

/// What a request's head says of a query.
#[derive(Clone, Debug, Default)]
pub struct Asker {
    /// Where it comes from.
    pub origin: Origin,
    /// Features that it switches.
    pub features: FeatureSwitches,
    /// Whether it wants an answer of which nothing was kept, and nothing is.
    pub no_cache: bool,
}

impl Asker {
    fn read(headers: &HeaderMap, who: &str) -> Result<Self, ApiError> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let origin = Origin {
            who: who.to_owned(),
            request_id: text(REQUEST_ID.as_str()).to_owned(),
            dashboard: text(DASHBOARD).to_owned(),
            panel: text(PANEL).to_owned(),
        };
        Ok(Self { origin, features: features(headers)?, no_cache: no_cache(headers) })
    }
}

fn no_cache(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CACHE_CONTROL).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|text| text.split(',')).any(|word| word.trim().eq_ignore_ascii_case("no-store"))
}

fn features(headers: &HeaderMap) -> Result<FeatureSwitches, ApiError> {
    let wrong = |why: &str| ApiError::bad_data(format!("invalid {FEATURES}: {why}"));
    let mut names = Vec::new();
    for value in headers.get_all(FEATURES) {
        let text = value.to_str().ok().filter(|text| text.len() <= MAX_BYTES);
        let text = text.ok_or_else(|| wrong("it is too long, or no text"))?;
        names.extend(text.split(',').map(str::trim).filter(|name| !name.is_empty()));
    }
    FeatureSwitches::read(names).map_err(|why| wrong(&why))
}

impl FromRequestParts<Arc<State>> for Asker {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<State>) -> Result<Self, ApiError> {
        let who = parts.extensions.get::<Caller>().map_or("", |caller| caller.principal.name.as_str());
        Self::read(&parts.headers, who)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(values: &[&str]) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(FEATURES, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let names = |asker: Asker| asker.features.names().collect::<Vec<_>>().join(" ");
        Asker::read(&headers, "me").map(names).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn features_are_named_one_after_another_in_one_header_or_in_several() {
        let both = Ok("promql-delayed-name-removal -use-start-timestamps".to_owned());
        assert_eq!(read(&["promql-delayed-name-removal, -use-start-timestamps"]), both);
        assert_eq!(read(&["-use-start-timestamps", " delayed-name-removal,,"]), both);
        assert_eq!(read(&[]), Ok(String::new()));
    }

    #[test]
    fn what_is_no_feature_is_refused() {
        let unknown = "invalid Luminate-Features: unknown feature \"use-start-timestamp\", did you mean use-start-timestamps?";
        assert_eq!(read(&["use-start-timestamp"]), Err(unknown.to_owned()));
        let long = "invalid Luminate-Features: it is too long, or no text";
        assert_eq!(read(&[&"x".repeat(2000)]), Err(long.to_owned()));
        assert_eq!(read(&["é"]), Err(long.to_owned()));
    }

    #[test]
    fn who_wants_nothing_kept_says_so_as_anywhere() {
        let read = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(value));
            Asker::read(&headers, "me").unwrap().no_cache
        };
        assert!(read("no-store"));
        assert!(read("max-age=0, No-Store"));
        // Browsers say this on every reload of a page; what is kept is never out of date.
        assert!(!read("no-cache"));
        assert!(!Asker::read(&HeaderMap::new(), "me").unwrap().no_cache);
    }
}
