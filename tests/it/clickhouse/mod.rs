//! The ClickHouse backend against the engine.

mod conformance;
<<<<<<< HEAD
pub mod front;
=======
mod faults;
pub(crate) mod front;
mod gateways;
>>>>>>> main
mod proxy;
mod schema;
mod witness;
mod write;
