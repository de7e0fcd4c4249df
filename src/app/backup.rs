//! Backups, for the command line.

use std::sync::Arc;

use anyhow::{Context, bail};

use super::clickhouse;
use crate::{
    clock::Clock,
    config::{Backend, Storage},
    storage::clickhouse::{
        backup::{self, BackupError},
        client::Class,
    },
};

pub use backup::{BackupName, CheckedTable, Operation, Place};

/// Backups of the configured store.
#[derive(Debug)]
pub struct Backups {
    backups: backup::Backups,
    addresses: String,
}

impl Backups {
    /// Gets ready to speak to the configured servers.
    pub fn new(storage: &Storage, seed: u64, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        match storage.backend {
            Backend::ClickHouse => {}
            Backend::Embedded => bail!(
                "the store is the embedded one, whose backups are in a directory or a bucket: name it (--at \
                 file:///DIRECTORY or --at s3://BUCKET/PREFIX); for those of ClickHouse name its servers (--address)"
            ),
        }
        let config = clickhouse::config(storage, seed)?;
        let addresses = config.addresses.join(", ");
        let backups =
            backup::Backups::new(&config, clock).context("cannot set up the connections to ClickHouse")?;
        Ok(Self { backups, addresses })
    }

    /// The database that is backed up.
    pub fn database(&self) -> &str {
        self.backups.database()
    }

    /// Makes a backup.
    pub async fn create(
        &self,
        name: &BackupName,
        place: &Place,
        base: Option<&BackupName>,
        told: impl FnMut(&Operation),
    ) -> anyhow::Result<Operation> {
        self.backups.create(name, place, base, told).await.map_err(|error| self.explained(error))
    }

    /// Tries a backup out.
    pub async fn verify(
        &self,
        name: &BackupName,
        place: &Place,
        told: impl FnMut(&Operation),
    ) -> anyhow::Result<Vec<CheckedTable>> {
        self.backups.verify(name, place, told).await.map_err(|error| self.explained(error))
    }

    /// Restores a backup; gives the name of the database that was set aside for it.
    pub async fn restore(
        &self,
        name: &BackupName,
        place: &Place,
        into: &str,
        replace: bool,
        told: impl FnMut(&Operation),
    ) -> anyhow::Result<Option<String>> {
        self.backups.restore(name, place, into, replace, told).await.map_err(|error| self.explained(error))
    }

    /// What the server remembers.
    pub async fn list(&self) -> anyhow::Result<Vec<Operation>> {
        self.backups.list().await.map_err(|error| self.explained(error))
    }

    fn explained(&self, error: BackupError) -> anyhow::Error {
        let addresses = &self.addresses;
        match error {
            BackupError::Failed(failure) => match failure.class {
                Class::Unreachable => anyhow::anyhow!("cannot reach ClickHouse at {addresses}: {failure}"),
                Class::Overloaded
                | Class::ReadOnly
                | Class::Exhausted
                | Class::Schema
                | Class::Denied
                | Class::Broken => anyhow::anyhow!("ClickHouse at {addresses} refused: {failure}"),
            },
            error @ (BackupError::Refused(_) | BackupError::Broken { .. }) => anyhow::anyhow!("{error}"),
        }
    }
}
