//! API keys: for the server, and for the command line that makes them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::{figures, redis};
use crate::{
    clock::Clock,
    config::{self, Config},
    gateway::{
        auth::keys::{ApiKeys, CacheRules, FileKeyStore, Key, KeyStore, Sha256, file::Looked},
        reload::Reload,
    },
    model::{Secret, Timestamp},
    telemetry,
};

pub use crate::gateway::auth::keys::{KeyId, KeyRecord, record::OutOfUse};

/// Where keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// In a YAML file.
    File(PathBuf),
    /// In a Redis.
    Redis(Box<config::Redis>),
}

impl KeyPlace {
    /// Where the configuration says they are; none if it does not.
    pub fn of(config: &Config) -> Option<Self> {
        if config.redis.key_store.enabled {
            return Some(Self::Redis(Box::new(config.redis.clone())));
        }
        config.auth.api_keys.file.clone().map(Self::File)
    }

    /// The store there; a file that is not there is made.
    async fn store(&self) -> anyhow::Result<Arc<dyn KeyStore>> {
        match self {
            Self::File(path) => Ok(FileKeyStore::open_or_new(path)?),
            Self::Redis(redis) => redis::connected_key_store(redis).await,
        }
    }
}

/// What a new key is to be.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// What it is for.
    pub name: String,
    /// For whom: if the first is no pattern, it is for whom if a request names nobody.
    pub tenants: Vec<String>,
    /// What it may.
    pub scopes: Vec<String>,
    /// Labels of what is written with it.
    pub labels: BTreeMap<String, String>,
    /// What of the data is read with it.
    pub filters: Vec<String>,
    /// Limits by name.
    pub limits: Map<String, Value>,
    /// When it ends, if it does.
    pub expires: Option<Timestamp>,
}

impl NewKey {
    fn record(mut self, key: &Key, now: Timestamp) -> KeyRecord {
        let has_default = self.tenants.first().is_some_and(|tenant| !tenant.ends_with('*'));
        KeyRecord {
            id: key.id.clone(),
            sha256: Sha256::of(&key.secret.0),
            name: self.name,
            tenant: has_default.then(|| self.tenants.remove(0)),
            tenants: self.tenants,
            scopes: self.scopes,
            labels: self.labels,
            filters: self.filters,
            limits: self.limits,
            created: Some(now),
            expires: self.expires,
            disabled: false,
            revoked: None,
        }
    }
}

/// The keys of a place, for whoever looks after them.
#[derive(Debug)]
pub struct Keys {
    store: Arc<dyn KeyStore>,
}

impl Keys {
    /// Opens a place.
    pub async fn open(place: &KeyPlace) -> anyhow::Result<Self> {
        Ok(Self { store: place.store().await? })
    }

    /// Makes a key; what is given here is the only time it is known.
    pub async fn create(&self, new: NewKey, now: Timestamp) -> anyhow::Result<(Secret, KeyRecord)> {
        let key = Key::draw()?;
        let record = new.record(&key, now);
        record.principal()?;
        self.store.put(record.clone()).await?;
        Ok((key.reveal(), record))
    }

    /// All of them.
    pub async fn list(&self) -> anyhow::Result<Vec<KeyRecord>> {
        Ok(self.store.list().await?)
    }

    /// Takes a key out of use for ever; it is named by its id, or by all of it.
    pub async fn revoke(&self, named: &str, now: Timestamp) -> anyhow::Result<KeyId> {
        let id = Key::parse(named).map(|key| key.id).or_else(|| KeyId::new(named));
        // What is not an id may be a secret: it is not repeated.
        let Some(id) = id else { bail!("a key is named by the 12 letters and digits after lum_") };
        if !self.store.revoke(&id, now).await? {
            bail!("there is no key {id}");
        }
        Ok(id)
    }
}

/// Checks the file of keys that a configuration names; gives what is no mistake but should be known.
pub fn check(config: &Config) -> anyhow::Result<Option<String>> {
    match &config.auth.api_keys.file {
        None => Ok(None),
        Some(path) => FileKeyStore::check(path).context("auth.api_keys.file"),
    }
}

/// Keys in a file, for the server.
#[derive(Debug)]
pub(super) struct FileKeys {
    store: Arc<FileKeyStore>,
    reload_interval: Duration,
}

impl FileKeys {
    /// Reads the configured file; none if there is none.
    pub(super) fn open(config: &config::Keys) -> anyhow::Result<Option<Self>> {
        let Some(path) = &config.file else { return Ok(None) };
        let store = open_file(path)?;
        Ok(Some(Self { store, reload_interval: config.reload_interval }))
    }

    /// The store they are in.
    pub(super) fn store(&self) -> Arc<dyn KeyStore> {
        Arc::clone(&self.store) as Arc<dyn KeyStore>
    }

    /// Gives the figures of the file.
    pub(super) fn figures(&self) -> telemetry::Source {
        figures::auth::key_file(Arc::clone(&self.store))
    }

    /// The file as something that is read again while we run.
    pub(super) fn reload(&self) -> Arc<dyn Reload> {
        let Self { store, reload_interval } = self;
        Arc::new(KeyFile { store: Arc::clone(store), every: *reload_interval, told: Mutex::default() })
    }
}

/// A file of keys that is read again while we run.
#[derive(Debug)]
struct KeyFile {
    store: Arc<FileKeyStore>,
    every: Duration,
    /// What was told last about it, so that it is told once.
    told: Mutex<Option<String>>,
}

#[async_trait]
impl Reload for KeyFile {
    fn name(&self) -> &'static str {
        "api_keys"
    }

    fn every(&self) -> Duration {
        self.every
    }

    async fn reload(self: Arc<Self>) -> Result<(), String> {
        self.store.read_aside().await.map(|_| ()).map_err(|error| error.to_string())
    }

    async fn look(self: Arc<Self>) -> Option<Result<(), String>> {
        let looked = self.store.look_aside().await;
        let mut told = self.told.lock();
        match looked {
            Ok(Looked::Unchanged) => None,
            Ok(Looked::Read(_)) => {
                *told = None;
                Some(Ok(()))
            }
            Err(error) => {
                let error = error.to_string();
                let is_new = told.replace(error.clone()).as_ref() != Some(&error);
                is_new.then_some(Err(error))
            }
        }
    }
}

fn open_file(path: &Path) -> anyhow::Result<Arc<FileKeyStore>> {
    FileKeyStore::open(path).context("cannot use auth.api_keys.file; `luminate key create` makes one")
}

/// What is remembered of keys, as configured for the place they are in.
pub(super) fn rules(config: &Config) -> CacheRules {
    let keys = &config.auth.api_keys;
    let redis = config.redis.key_store;
    if redis.enabled {
        CacheRules { size: redis.cache_size, ttl: redis.cache_ttl, stale_ttl: keys.stale_ttl }
    } else {
        CacheRules { size: keys.cache_size, ttl: keys.cache_ttl, stale_ttl: keys.stale_ttl }
    }
}

/// What verifies the keys of a store.
pub(super) fn verifier(store: Arc<dyn KeyStore>, rules: CacheRules, clock: Arc<dyn Clock>) -> Arc<ApiKeys> {
    Arc::new(ApiKeys::new(store, rules, clock))
}
