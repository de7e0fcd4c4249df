//! API keys.
//!
//! * [`key`]: a key as its holder has it, `lum_<id>_<secret>`.
//! * [`record`]: what is kept of it.
//! * [`store`]: where that is kept.

pub mod key;
pub mod record;
pub mod store;

pub use key::{Key, KeyId, Sha256};
pub use record::KeyRecord;
pub use store::{KeyStore, KeyStoreError};
