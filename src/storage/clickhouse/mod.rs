//! The store over ClickHouse: no state of its own that cannot be lost.
//!
//! ```text
//! append ─ registry (series new today?) ─ batcher ─▶ samples, histograms, exemplars, series, metadata
//! select ─ series (matchers in SQL) ─┬─ samples, histograms in key order ─▶ runs
//!                                    └─ pushed down: rows of the grid
//! ```
//!
//! `schema/clickhouse` has the tables and why they are as they are.

pub mod backup;
mod census;
mod changes;
pub mod client;
pub mod config;
mod deletes;
mod documents;
mod histogram;
pub mod migrate;
pub mod pushdown;
mod read;
mod rollup;
pub mod rowbinary;
mod store;
mod tables;
mod watch;
mod write;

pub use config::ClickHouseConfig;
pub use read::counters::ReadCounters;
pub use rollup::RollupCounters;
pub use store::ClickHouseStore;
pub use watch::FullestPartition;
pub use write::WriteCounters;
