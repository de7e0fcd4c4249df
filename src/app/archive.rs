//! Backups of the embedded store, for the command line.

mod http;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};

use super::secret;
use crate::{
    clock::Clock,
    storage::embedded::{
        backup::{self, Bucket, CreateOptions, Directory, RestoreOptions, S3Key, S3Settings, Target, Told},
        disk::{Disk, SystemDisk},
    },
};

use http::Http;

pub use backup::{
    Address, BackedFile, BackupName, Drilled, Finding, Listed, Made, Progress, Pruned, Restored, Verified,
};

/// How a bucket is reached; what is not said here the environment says (`AWS_…`).
#[derive(Clone, Debug, Default)]
pub struct S3 {
    /// Its URL, if it is not at AWS.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: Option<String>,
    /// The file that holds the id of the access key.
    pub access_key_file: Option<PathBuf>,
    /// The file that holds the secret of that key.
    pub secret_key_file: Option<PathBuf>,
    /// The file that holds the token of the session that the key is for.
    pub session_token_file: Option<PathBuf>,
}

impl S3 {
    fn settings(&self) -> anyhow::Result<S3Settings> {
        let key = match (&self.access_key_file, &self.secret_key_file) {
            (Some(id), Some(secret)) => {
                let read = |file: &Path, flag| secret::read_file(file, flag).map(|secret| secret.0);
                let token = self.session_token_file.as_deref();
                Some(S3Key {
                    id: read(id, "--s3.access-key-file")?,
                    secret: read(secret, "--s3.secret-key-file")?,
                    token: token.map(|token| read(token, "--s3.session-token-file")).transpose()?,
                })
            }
            (None, None) if self.session_token_file.is_some() => bail!("a token belongs to a key"),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => bail!("a key is two files: its id and its secret"),
        };
        Ok(S3Settings { endpoint: self.endpoint.clone(), region: self.region.clone(), key })
    }
}

/// A place that keeps backups.
#[derive(Debug)]
pub struct Archive {
    target: Arc<dyn Target>,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    seed: u64,
}

impl Archive {
    /// Uses a place. `connector` makes connections to a bucket; `seed` is unlike that of any other process.
    ///
    /// A bucket blocks: nothing of this may be called within an asynchronous runtime.
    pub fn open(
        address: &Address,
        s3: &S3,
        connector: http::Connector,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let target: Arc<dyn Target> = match address {
            Address::Directory(path) => Arc::new(Directory::new(Arc::clone(&disk), path, seed)),
            Address::Bucket { bucket, prefix } => {
                Arc::new(Bucket::new(bucket, prefix, &s3.settings()?, Http(connector))?)
            }
        };
        Ok(Self { target, disk, clock, seed })
    }

    /// Makes a backup of the store in a directory; a server that has it is asked for a snapshot by `ask`.
    pub fn create(
        &self,
        data_dir: &Path,
        name: Option<BackupName>,
        full: bool,
        ask: impl Fn() -> anyhow::Result<String>,
        told: &mut Told<'_>,
    ) -> anyhow::Result<Made> {
        let options = CreateOptions { name, data_dir: data_dir.to_owned(), full, seed: self.seed };
        let mut ask = || ask().map_err(|error| backup::BackupError::Refused(format!("{error:#}")));
        Ok(backup::create(self.target.as_ref(), &self.disk, &self.clock, &options, &mut ask, told)?)
    }

    /// Reads a backup back, the newest unless one is named.
    pub fn verify(&self, name: Option<&BackupName>, told: &mut Told<'_>) -> anyhow::Result<Verified> {
        Ok(backup::verify(&self.target, name, told)?)
    }

    /// Restores a backup into a directory of its own within `scratch`, opens the store, and removes it.
    pub fn drill(
        &self,
        name: Option<BackupName>,
        scratch: &Path,
        told: &mut Told<'_>,
    ) -> anyhow::Result<Drilled> {
        let (target, disk, clock) = (self.target.as_ref(), &self.disk, &self.clock);
        backup::drill(target, disk, clock, name, scratch, self.seed, told)
            .with_context(|| format!("the drill in {} failed", scratch.display()))
    }

    /// Restores a backup into an empty directory, the newest unless one is named.
    pub fn restore(
        &self,
        name: Option<BackupName>,
        into: &Path,
        skip_damaged: bool,
        told: &mut Told<'_>,
    ) -> anyhow::Result<Restored> {
        let options = RestoreOptions { name, into: into.to_owned(), skip_damaged };
        Ok(backup::restore(self.target.as_ref(), &self.disk, &options, told)?)
    }

    /// All backups, oldest first.
    pub fn list(&self) -> anyhow::Result<Vec<Listed>> {
        Ok(backup::list(self.target.as_ref())?)
    }

    /// Removes all backups but the newest, and what only they had.
    pub fn prune(&self, keep: usize) -> anyhow::Result<Pruned> {
        Ok(backup::prune(self.target.as_ref(), &self.clock, keep, self.seed)?)
    }
}
