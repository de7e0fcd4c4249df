//! Luminate: a multi-tenant metrics database.

pub mod clock;
pub mod gateway;
pub mod ingest;
pub mod model;
pub mod promql;
pub mod query;
pub mod storage;
pub mod task;
