//! Our own engine, for one node: a write-ahead log, a head in memory, immutable parts, a sled catalog.

mod ballast;
pub mod chunk;
pub mod config;
pub mod counters;
pub mod disk;
mod exemplars;
#[cfg(test)]
mod faults;
mod head;
mod merge;
pub mod part;
mod varint;
mod wal;

pub use config::{EmbeddedConfig, WalSync};
pub use counters::EmbeddedCounters;
