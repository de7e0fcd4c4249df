//! The ClickHouse backend against the engine.

mod active;
mod backup;
mod client;
mod conformance;
mod deletes;
mod faults;
pub(crate) mod front;
mod gateways;
mod life;
mod proxy;
mod pushdown;
mod pushdown_limits;
mod read;
mod retention;
mod rollup;
pub(crate) mod schema;
mod witness;
mod write;
