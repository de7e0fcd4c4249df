//! The handlers, a file per family of endpoints: each parses, asks a lower layer, and answers.

pub mod active;
pub mod admin;
pub mod asker;
pub mod catalog;
pub mod estimate;
pub mod export;
pub mod features;
pub mod federate;
pub mod health;
pub mod import;
pub mod limits;
pub mod metrics;
pub mod openapi;
pub mod page;
pub mod query;
pub mod receive;
pub mod remote_read;
pub mod rules;
pub mod search;
pub mod status;
pub mod targets;
pub mod user_limits;
pub mod write;

use std::sync::Arc;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};

use super::{State, wire};

/// The gateway's state, as handlers take it.
type Shared = axum::extract::State<Arc<State>>;

fn respond(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, wire::json::CONTENT_TYPE)], body).into_response()
}
