//! Luminate: a multi-tenant metrics database.

pub mod clock;
pub mod config;
pub mod model;
pub mod promql;
pub mod storage;
pub mod task;
