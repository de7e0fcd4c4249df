//! The ClickHouse backend against the engine.

mod conformance;
mod faults;
pub(crate) mod front;
mod gateways;
mod proxy;
mod rollup;
mod schema;
mod witness;
mod write;
