//! Our own engine, for one node: a write-ahead log, a head in memory, immutable parts, a sled catalog.
//!
//! ```text
//!            ┌─ head ──────────────┐   flush   ┌─ parts ─────────────┐
//! append ───▶│ stripes, index      │──────────▶│ a file per UTC day  │──▶ merged, cleaned, dropped
//!        └──▶│ log (wal), fsynced  │◀── let go │ + ledger, catalog   │
//!            └─────────────────────┘           └─────────────────────┘
//!                 └──────────── view: what a query sees ───────────┘
//! ```
//!
//! 1. [`EmbeddedStore`] is the [`Storage`](super::Storage): it hands blocking work to threads that may block.
//! 2. A write goes into the head (`head`) and the queue of the log (`wal`); it is answered when the log is durable.
//! 3. A flush (`flush`) freezes the head and writes [parts](part), then the [catalog], and lets the log go. A rewrite
//!    (`rewrite`) makes one part of many, without what was deleted: of which, `tiers` says. What is too old is hidden and
//!    removed (`retention`), and what was deleted is in the end (`tidy`). What is old may be kept in fewer samples
//!    (`downsample`).
//! 4. A query takes the view (`view`) of the moment, finds series in heads and parts, and merges them (`select`).
//! 5. Small texts of tenants (`documents`) have a file of their own.
//! 6. A snapshot (`snapshot`) is a copy of the parts that can be opened on its own.
//! 7. A [backup] is a snapshot that is kept where this disk is not.
//! 8. Opening (`recover`) takes all parts, and the log on top.
//! 9. [`mend`] looks whether all of it reads back, and mends what does not.
//!
//! Files are drawn in `schema/disk/`; `layout.md` there says which of them are the truth.

mod admission;
pub mod backup;
mod ballast;
mod books;
mod budget;
pub mod catalog;
pub mod chunk;
pub mod config;
pub mod counters;
pub mod disk;
mod documents;
mod downsample;
mod engine;
mod exemplars;
#[cfg(test)]
mod faults;
mod flush;
mod head;
mod lock;
#[cfg(test)]
mod memory_disk;
pub mod mend;
mod merge;
mod pace;
pub mod part;
mod quarantine;
mod recover;
mod register;
mod replaced;
mod restore;
mod retention;
mod rewrite;
mod select;
mod snapshot;
pub mod store;
#[cfg(test)]
mod tests;
mod tidy;
mod tiers;
mod varint;
mod view;
pub mod wal;
mod weave;

pub use config::{DownsampleRule, EmbeddedConfig, KeepRule, WalSync};
pub use counters::EmbeddedCounters;
pub use store::EmbeddedStore;
