//! Our own engine, for one node: a write-ahead log, a head in memory, immutable parts, a sled catalog.

pub mod catalog;
pub mod chunk;
pub mod disk;
pub mod part;
