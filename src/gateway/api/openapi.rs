//! The description of the API, for whoever makes clients of it.

use std::borrow::Cow;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};

use crate::gateway::form::Form;

/// The description itself, which is written by hand; a test holds it against the routes.
const TEXT: &str = include_str!("../../../schema/openapi.yaml");

/// The version of OpenAPI that the file is written in.
const WRITTEN_IN: &str = "openapi: 3.1.0\n";

/// The description in the version that is wanted; as Prometheus, in 3.1 where that is none we know.
pub async fn description(form: Form) -> Response {
    let head = [(header::CONTENT_TYPE, "application/yaml; charset=utf-8")];
    (head, text(form.get("openapi_version").unwrap_or_default())).into_response()
}

/// What is legal in 3.1 and used here is so in 3.2.
fn text(version: &str) -> Cow<'static, str> {
    match version {
        "3.2" | "3.2.0" => Cow::Owned(TEXT.replacen(WRITTEN_IN, "openapi: 3.2.0\n", 1)),
        _ => Cow::Borrowed(TEXT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_was_asked_for() {
        for (asked, told) in
            [("", "3.1.0"), ("3.1", "3.1.0"), ("3.2", "3.2.0"), ("3.2.0", "3.2.0"), ("2", "3.1.0")]
        {
            let text = text(asked);
            assert!(text.lines().any(|line| line == format!("openapi: {told}")), "{asked}");
            assert_eq!(text.matches("\nopenapi: ").count() + usize::from(text.starts_with("openapi: ")), 1);
        }
    }
}
