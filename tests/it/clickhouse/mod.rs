//! The ClickHouse backend against the engine.

#![allow(dead_code, reason = "the faults that use the proxy need the whole write path")]

mod conformance;
mod deletes;
pub(crate) mod front;
mod proxy;
mod read;
mod schema;
mod write;
