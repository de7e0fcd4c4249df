//! The ClickHouse backend against the engine.

mod conformance;
mod deletes;
mod faults;
pub(crate) mod front;
mod gateways;
mod life;
mod proxy;
mod pushdown;
mod read;
mod schema;
mod witness;
mod write;
