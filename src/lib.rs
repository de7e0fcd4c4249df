//! Luminate: a multi-tenant metrics database.

pub mod clock;
pub mod config;
pub mod model;
pub mod promql;
pub mod self_scrape;
pub mod storage;
pub mod task;
pub mod telemetry;
