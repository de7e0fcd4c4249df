//! API keys.
//!
//! ```text
//! lum_<id>_<secret> ─▶ verify: known to be good? known to be bad? else ─▶ store: the id's record
//!                                                                       └▶ is the secret's hash the same? in use?
//! ```
//!
//! * [`key`]: a key as its holder has it.
//! * [`record`]: what is kept of it.
//! * [`store`]: where that is kept; [`file`](mod@file) is one such place, and [`redis`](mod@redis)
//!   another.
//! * [`verify`]: from a key to who holds it, with caches.

pub mod file;
pub mod key;
pub mod record;
pub mod redis;
pub mod store;
pub mod verify;

pub use file::FileKeyStore;
pub use key::{Key, KeyId, Sha256};
pub use record::KeyRecord;
pub use redis::RedisKeyStore;
pub use store::{KeyStore, KeyStoreError};
pub use verify::{ApiKeys, CacheRules};

#[cfg(test)]
pub(crate) mod conformance;
#[cfg(test)]
mod tests;
