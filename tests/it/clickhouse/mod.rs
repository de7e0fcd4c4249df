//! The ClickHouse backend against the engine.

mod front;
mod schema;
mod write;
