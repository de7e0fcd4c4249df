//! `extra_label` and `extra_filters[]`: a request that wants to see less than its caller may.
//!
//! | parameter | what is left |
//! |---|---|
//! | `extra_label=name=value` | series that have the label; of several, all of them |
//! | `extra_filters[]=selector` | series that match; of several, one of them |
//!
//! [`narrow`] stands before every route that reads or deletes a tenant's data, and a
//! [`Reader`](crate::query::Reader) cannot be made without what it found: so no endpoint can forget it. What is
//! asked for is put together with what the caller may see, and never takes anything of that away.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State as Extract},
    http::request::Parts,
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{State, error::ApiError, form::Form};
use crate::{
    model::Matcher,
    promql::parse::parse_selector,
    storage::{MatcherSets, View},
};

/// Selectors and labels of one request together: every series is held against all of them.
const MOST: usize = 1_000;

const LABEL: &str = "extra_label";
const FILTERS: &str = "extra_filters[]";
/// The same, as some write it.
const FILTERS_PLAIN: &str = "extra_filters";

/// What is left of what the caller may see: one of the sets must match, or there are none and all is left. In the
/// extensions of a request that has come past [`narrow`].
#[derive(Clone, Debug)]
pub struct Narrowed(MatcherSets);

impl Narrowed {
    /// What of a view is left.
    pub fn apply(&self, view: &View) -> Result<View, ApiError> {
        view.narrowed(&self.0).map_err(|error| ApiError::parameter(FILTERS, error))
    }

    fn read(form: &Form, max_bytes: usize) -> Result<Self, ApiError> {
        let labels = form.all(LABEL);
        let selectors = [form.all(FILTERS), form.all(FILTERS_PLAIN)].concat();
        for (name, all) in [(LABEL, &labels), (FILTERS, &selectors)] {
            if all.len() > MOST {
                let reason = format!("is given {} times, at most {MOST} are taken", all.len());
                return Err(ApiError::parameter(name, reason));
            }
            if let Some(long) = all.iter().find(|text| text.len() > max_bytes) {
                let reason = format!("it is {} bytes long, the limit is {max_bytes}", long.len());
                return Err(ApiError::parameter(name, reason));
            }
        }
        let labels: Vec<Matcher> = labels.iter().map(|text| label(text)).collect::<Result<_, _>>()?;
        let mut sets: MatcherSets = selectors.iter().map(|text| selector(text)).collect::<Result<_, _>>()?;
        if sets.is_empty() && !labels.is_empty() {
            sets.push(Vec::new());
        }
        for set in &mut sets {
            set.extend(labels.iter().cloned());
        }
        Ok(Self(sets))
    }
}

fn label(text: &str) -> Result<Matcher, ApiError> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(Matcher::equal(name, value)),
        Some(_) | None => Err(ApiError::parameter(LABEL, format!("{text:?} is not name=value"))),
    }
}

fn selector(text: &str) -> Result<Vec<Matcher>, ApiError> {
    match parse_selector(text) {
        Ok(matchers) if matchers.is_empty() => {
            Err(ApiError::parameter(FILTERS, format!("{text:?} has no matcher")))
        }
        Ok(matchers) => Ok(matchers),
        Err(error) => Err(ApiError::parameter(FILTERS, error)),
    }
}

/// Finds out what a request wants to see of what its caller may.
///
/// Its form is read here and left in its extensions.
pub async fn narrow(Extract(state): Extract<Arc<State>>, request: Request, next: Next) -> Response {
    match read(&state, request).await {
        Ok(request) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// The same by the URL alone, where the body is no form: it goes on as it comes.
pub async fn narrow_by_url(Extract(state): Extract<Arc<State>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let narrowed = Form::of_url(&parts).and_then(|form| insert(&state, parts, form));
    match narrowed {
        Ok(parts) => next.run(Request::from_parts(parts, body)).await,
        Err(error) => error.into_response(),
    }
}

async fn read(state: &State, request: Request) -> Result<Request, ApiError> {
    let (parts, body) = request.into_parts();
    let form = Form::take(&parts, body, state.config.form_body).await?;
    Ok(Request::from_parts(insert(state, parts, form)?, Body::empty()))
}

fn insert(state: &State, mut parts: Parts, form: Form) -> Result<Parts, ApiError> {
    let narrowed = Narrowed::read(&form, state.query.limits().max_query_bytes)?;
    parts.extensions.insert(narrowed);
    parts.extensions.insert(form);
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<String, String> {
        let narrowed = Narrowed::read(&Form::parse(query, b"").unwrap(), 40);
        narrowed.map(|narrowed| format!("{:?}", narrowed.0)).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn labels_are_all_meant_and_one_filter_is_enough() {
        for (query, sets) in [
            ("query=a", "[]"),
            ("extra_label=team=a", r#"[[team="a"]]"#),
            ("extra_label=team=a&extra_label=env==x", r#"[[team="a", env="=x"]]"#),
            ("extra_label=team=", r#"[[team=""]]"#),
            ("extra_filters[]={a=\"1\"}&extra_filters={b!=\"2\"}", r#"[[a="1"], [b!="2"]]"#),
            (
                "extra_filters[]={a=\"1\"}&extra_filters[]=up&extra_label=team=a",
                r#"[[a="1", team="a"], [__name__="up", team="a"]]"#,
            ),
        ] {
            assert_eq!(read(query).as_deref(), Ok(sets), "{query}");
        }
    }

    #[test]
    fn what_does_not_read_is_refused() {
        for (query, why) in [
            ("extra_label=team", r#"invalid parameter "extra_label": "team" is not name=value"#),
            ("extra_label==a", r#"invalid parameter "extra_label": "=a" is not name=value"#),
            ("extra_label=", r#"invalid parameter "extra_label": "" is not name=value"#),
            ("extra_filters[]={}", r#"invalid parameter "extra_filters[]": "{}" has no matcher"#),
        ] {
            assert_eq!(read(query), Err(why.to_owned()), "{query}");
        }
        for query in
            ["extra_filters[]={a=", "extra_filters[]=", "extra_filters=a b", "extra_filters[]={a=~\"(\"}"]
        {
            let why = read(query).unwrap_err();
            assert!(why.starts_with(r#"invalid parameter "extra_filters[]": "#), "{query}: {why}");
        }
        let long = format!("extra_label=a={}", "x".repeat(40));
        assert!(read(&long).unwrap_err().contains("42 bytes long"));
        let many = vec!["extra_filters[]=up"; MOST + 1].join("&");
        assert!(read(&many).unwrap_err().contains("is given 1001 times"));
    }
}
