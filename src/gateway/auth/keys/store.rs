//! Where the records of keys are kept.

use std::fmt;

use async_trait::async_trait;

use super::{key::KeyId, record::KeyRecord};
use crate::model::Timestamp;

/// Keeps the records of keys, and finds them again.
///
/// # Contract
///
/// * **Absent is not silent.** `Ok(None)` is certain: there is no such key. A store that cannot be asked says
///   [`KeyStoreError::Unavailable`], and one that holds something it cannot read says [`KeyStoreError::Broken`]; the
///   caller lets nobody in for either.
/// * **Bounded.** No call waits longer than a moment; a store that is far away gives up and is unavailable.
/// * **Durable.** What `Ok` was said to survives a crash, and every process that shares the store finds it.
/// * **For good.** A record is never overwritten and a revoked key never comes back.
#[async_trait]
pub trait KeyStore: fmt::Debug + Send + Sync + 'static {
    /// The record of a key.
    async fn find(&self, id: &KeyId) -> Result<Option<KeyRecord>, KeyStoreError>;

    /// All records, by id.
    async fn list(&self) -> Result<Vec<KeyRecord>, KeyStoreError>;

    /// Keeps the record of a new key.
    async fn put(&self, record: KeyRecord) -> Result<(), KeyStoreError>;

    /// Takes a key out of use for ever; its record stays. Whether there is such a key.
    async fn revoke(&self, id: &KeyId, now: Timestamp) -> Result<bool, KeyStoreError>;

    /// A number that is another one after records changed, as far as the store hears of that: what was found before
    /// is then looked up again at once. A store that hears of nothing always says the same.
    fn generation(&self) -> u64;
}

/// Why a store did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyStoreError {
    /// It cannot be asked now.
    #[error("the keys cannot be asked for: {0}")]
    Unavailable(String),
    /// What it holds cannot be read.
    #[error("the keys cannot be read: {0}")]
    Broken(String),
    /// There is such a key already.
    #[error("there is a key {0} already")]
    Exists(KeyId),
}
