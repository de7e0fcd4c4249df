//! The ClickHouse backend against the engine.

mod conformance;
mod faults;
mod deletes;
pub(crate) mod front;
mod gateways;
mod life;
mod proxy;
mod read;
mod schema;
mod witness;
mod write;
