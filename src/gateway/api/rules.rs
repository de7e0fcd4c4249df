//! Rules, alerts and who is told of them. There are none; clients that ask when they start are told so, and whoever
//! asks wrongly hears that, too.

use std::num::IntErrorKind;

use axum::{extract::State, response::Response};
use serde_json::json as value;

use super::{Shared, respond};
use crate::gateway::{error::ApiError, form::Form, wire::json};

/// The groups of rules: none.
pub async fn groups(State(state): Shared, form: Form) -> Result<Response, ApiError> {
    state.query.check_selectors(&form.all("match[]"))?;
    let kind = form.get("type").unwrap_or_default().to_ascii_lowercase();
    if !["", "alert", "record"].contains(&kind.as_str()) {
        return Err(ApiError::parameter("type", format!("not supported value {kind:?}")));
    }
    form.flag("exclude_alerts").map_err(|text| {
        // In the words of what Prometheus reads it with.
        let why = format!("strconv.ParseBool: parsing {:?}: invalid syntax", text.to_ascii_lowercase());
        ApiError::parameter("exclude_alerts", format!("error converting exclude_alerts: {why}"))
    })?;
    check_page(&form)?;
    Ok(respond(json::document(&value!({ "groups": [] }))))
}

/// The active alerts: none.
pub async fn alerts() -> Response {
    respond(json::document(&value!({ "alerts": [] })))
}

/// Who is told of them: nobody.
pub async fn alertmanagers() -> Response {
    respond(json::document(&value!({ "activeAlertmanagers": [], "droppedAlertmanagers": [] })))
}

/// Checks which page of the groups is wanted. Without groups no page has a next one, so that no token is good.
fn check_page(form: &Form) -> Result<(), ApiError> {
    let token = form.get("group_next_token");
    let Some(limit) = form.get("group_limit") else {
        return match token {
            Some(_) => Err(ApiError::parameter(
                "group_next_token",
                "group_limit needs to be present in order to paginate over the groups",
            )),
            None => Ok(()),
        };
    };
    let limit: i32 = limit.parse().map_err(|error: std::num::ParseIntError| {
        let why = match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        // In the words of what Prometheus reads it with.
        let why =
            format!("group_limit needs to be a valid number: strconv.ParseInt: parsing {limit:?}: {why}");
        ApiError::parameter("group_limit", why)
    })?;
    if limit <= 0 {
        return Err(ApiError::parameter("group_limit", "group_limit needs to be greater than 0"));
    }
    match token {
        Some(token) => Err(ApiError::parameter(
            "group_next_token",
            format!("invalid group_next_token '{token}'. were rule groups changed?"),
        )),
        None => Ok(()),
    }
}
