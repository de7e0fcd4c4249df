//! The ClickHouse backend against the engine.

#![allow(dead_code, reason = "the faults that use the proxy need the whole write path")]

mod conformance;
pub(crate) mod front;
mod proxy;
mod pushdown;
mod schema;
mod write;
