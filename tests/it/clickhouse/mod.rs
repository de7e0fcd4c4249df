//! The ClickHouse backend against the engine.

mod conformance;
mod front;
mod schema;
