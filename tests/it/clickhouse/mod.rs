//! The ClickHouse backend against the engine.

mod active;
mod backup;
pub(crate) mod cache;
mod client;
mod conformance;
mod deletes;
pub(crate) mod faults;
pub(crate) mod front;
mod gateways;
mod life;
pub(crate) mod proxy;
mod pushdown;
mod pushdown_limits;
mod read;
mod retention;
mod rollup;
pub(crate) mod schema;
pub(crate) mod witness;
mod write;
