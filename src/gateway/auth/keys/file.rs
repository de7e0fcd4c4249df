//! Keys in a YAML file.
//!
//! ```yaml
//! keys:
//! - id: 4fQzR81bXk2C
//!   sha256: 9f86d0…
//!   tenant: team-a
//!   scopes: [write]
//! ```
//!
//! The file is read whole, checked whole, and looked at again every few seconds; a change counts from then on. One that
//! cannot be read changes nothing: the keys from before stay in force, and the log and the metrics say so.
//!
//! It is written whole, too, beside the old one, and put in its place when it is on the disk ([`replace`]); who is
//! interrupted leaves the old file. Writers take turns by a lock on the file. Comments do not survive.

mod replace;

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{
    key::{KeyId, PREFIX},
    record::KeyRecord,
    store::{KeyStore, KeyStoreError},
};
use crate::model::Timestamp;

/// More than this is not a file of keys.
const MAX_BYTES: u64 = 16 << 20;

/// What the file begins with when we write it.
const TITLE: &str =
    "# Luminate's API keys, without their secrets. Change it with `luminate key`, or by hand.\n";

/// Keys in a file.
#[derive(Debug)]
pub struct FileKeyStore {
    path: PathBuf,
    keys: ArcSwap<HashMap<KeyId, KeyRecord>>,
    /// The file as it was when it was last read, well or not; held while it is read.
    seen: Mutex<Option<Signature>>,
    generation: AtomicU64,
    state: FileState,
}

/// How reading the file goes.
#[derive(Debug, Default)]
pub struct FileState {
    /// Times it was read because it had changed.
    pub reloads: AtomicU64,
    /// Times it could not be.
    pub failures: AtomicU64,
    /// Whether the last time was such a one.
    pub is_broken: AtomicBool,
}

/// Why a file of keys is of no use. Nothing of what is in it is told but ids and names of fields.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It cannot be understood.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is such a key already.
    #[error("there is a key {0} already")]
    Exists(KeyId),
}

impl From<KeyFileError> for KeyStoreError {
    fn from(error: KeyFileError) -> Self {
        match error {
            KeyFileError::Exists(id) => Self::Exists(id),
            error @ KeyFileError::Content { .. } => Self::Broken(error.to_string()),
            error @ (KeyFileError::Read { .. } | KeyFileError::Write { .. }) => {
                Self::Unavailable(error.to_string())
            }
        }
    }
}

/// What came of looking at the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// It is as it was.
    Unchanged,
    /// It was read, and has so many keys.
    Read(usize),
}

impl FileKeyStore {
    /// Reads a file, which has to be there.
    pub fn open(path: &Path) -> Result<Arc<Self>, KeyFileError> {
        let store = Self {
            path: path.to_owned(),
            keys: ArcSwap::default(),
            seen: Mutex::new(None),
            generation: AtomicU64::new(0),
            state: FileState::default(),
        };
        store.look()?;
        Ok(Arc::new(store))
    }

    /// Reads a file, and makes it first if it is not there.
    pub fn open_or_new(path: &Path) -> Result<Arc<Self>, KeyFileError> {
        replace::make_if_missing(path)?;
        Self::open(path)
    }

    /// Checks a file; gives what is no mistake but should be known, if anything.
    pub fn check(path: &Path) -> Result<Option<String>, KeyFileError> {
        let (_, keys) = read(path)?;
        index(path, keys)?;
        let metadata = fs::metadata(path).map_err(|source| cannot_read(path, source))?;
        Ok(warning(path, &metadata))
    }

    /// Reads the file again if it is another one than the last time; a bad one is not read again until it changes.
    pub fn look(&self) -> Result<Looked, KeyFileError> {
        let mut seen = self.seen.lock();
        let changed = match fs::metadata(&self.path) {
            Ok(metadata) => *seen != Some(Signature::of(&metadata)),
            Err(_) => true,
        };
        if !changed {
            return Ok(Looked::Unchanged);
        }
        self.state.reloads.fetch_add(1, Ordering::Relaxed);
        let looked = self.reload(&mut seen);
        self.state.is_broken.store(looked.is_err(), Ordering::Relaxed);
        if looked.is_err() {
            self.state.failures.fetch_add(1, Ordering::Relaxed);
        }
        looked
    }

    fn reload(&self, seen: &mut Option<Signature>) -> Result<Looked, KeyFileError> {
        // A file that is being written while it is read is read again the next time.
        *seen = None;
        let metadata = fs::metadata(&self.path).map_err(|source| cannot_read(&self.path, source))?;
        let before = Signature::of(&metadata);
        let read = read(&self.path);
        let after = fs::metadata(&self.path).map(|metadata| Signature::of(&metadata));
        if after.is_ok_and(|after| after == before) {
            *seen = Some(before);
        }
        let (_, records) = read?;
        let keys = index(&self.path, records)?;
        if let Some(warning) = warning(&self.path, &metadata) {
            tracing::warn!(event = "key_file_open_to_others", "{warning}");
        }
        let count = keys.len();
        if **self.keys.load() != keys {
            self.keys.store(Arc::new(keys));
            // After the keys: who sees the new number finds the new keys.
            self.generation.fetch_add(1, Ordering::SeqCst);
        }
        Ok(Looked::Read(count))
    }

    /// Reads the file again, whether it is another one or not.
    pub fn read_again(&self) -> Result<Looked, KeyFileError> {
        *self.seen.lock() = None;
        self.look()
    }

    /// [Looks](Self::look) at the file, on a thread that may wait for disks.
    pub async fn look_aside(self: &Arc<Self>) -> Result<Looked, KeyFileError> {
        self.aside(Self::look).await
    }

    /// [Reads](Self::read_again) the file, on a thread that may wait for disks.
    pub async fn read_aside(self: &Arc<Self>) -> Result<Looked, KeyFileError> {
        self.aside(Self::read_again).await
    }

    async fn aside(
        self: &Arc<Self>,
        work: fn(&Self) -> Result<Looked, KeyFileError>,
    ) -> Result<Looked, KeyFileError> {
        let store = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.unwrap_or_else(|stopped| Err(cannot_read(&self.path, io::Error::other(stopped))))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.load().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How reading the file goes.
    pub fn state(&self) -> &FileState {
        &self.state
    }

    /// Changes the file, on a thread that may wait, and reads it again.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Vec<KeyRecord>) -> Result<T, KeyFileError> + Send + 'static,
    ) -> Result<T, KeyStoreError> {
        let path = self.path.clone();
        let changed = tokio::task::spawn_blocking(move || replace::change(&path, change)).await;
        let changed = changed.map_err(|stopped| KeyStoreError::Unavailable(stopped.to_string()))??;
        self.look()?;
        Ok(changed)
    }
}

#[async_trait]
impl KeyStore for FileKeyStore {
    async fn find(&self, id: &KeyId) -> Result<Option<KeyRecord>, KeyStoreError> {
        Ok(self.keys.load().get(id).cloned())
    }

    async fn list(&self) -> Result<Vec<KeyRecord>, KeyStoreError> {
        let mut records: Vec<KeyRecord> = self.keys.load().values().cloned().collect();
        records.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(records)
    }

    async fn put(&self, record: KeyRecord) -> Result<(), KeyStoreError> {
        record.principal().map_err(|e| KeyStoreError::Broken(e.to_string()))?;
        self.change(move |records| {
            if records.iter().any(|other| other.id == record.id) {
                return Err(KeyFileError::Exists(record.id));
            }
            records.push(record);
            Ok(())
        })
        .await
    }

    async fn revoke(&self, id: &KeyId, now: Timestamp) -> Result<bool, KeyStoreError> {
        let id = id.clone();
        self.change(move |records| {
            let record = records.iter_mut().find(|record| record.id == id);
            Ok(record.map(|record| record.revoked = record.revoked.or(Some(now))).is_some())
        })
        .await
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }
}

/// What the file holds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    keys: Vec<KeyRecord>,
}

/// Which state of which file: whatever changes it changes this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signature {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Signature {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// Opens and reads a file of keys.
fn read(path: &Path) -> Result<(File, Vec<KeyRecord>), KeyFileError> {
    let metadata = fs::metadata(path).map_err(|source| cannot_read(path, source))?;
    if !metadata.is_file() {
        // Opening a pipe would wait for its writer.
        return Err(content(path, "is not a file"));
    }
    let mut file = File::open(path).map_err(|source| cannot_read(path, source))?;
    let records = read_open(path, &mut file)?;
    let Some(records) = records else {
        return Err(content(path, "is empty; without keys it says `keys: []`"));
    };
    Ok((file, records))
}

/// Reads a file of keys; none if there is nothing in it.
fn read_open(path: &Path, file: &mut File) -> Result<Option<Vec<KeyRecord>>, KeyFileError> {
    let mut text = String::new();
    let mut limited = file.take(MAX_BYTES + 1);
    limited.read_to_string(&mut text).map_err(|source| cannot_read(path, source))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(content(path, format!("is larger than {} MiB", MAX_BYTES >> 20)));
    }
    if text.trim().is_empty() {
        return Ok(None);
    }
    let read: Content =
        serde_yaml::from_str(&text).map_err(|e| content(path, without_keys(&e.to_string())))?;
    Ok(Some(read.keys))
}

/// Records by their ids, each of which makes sense.
fn index(path: &Path, records: Vec<KeyRecord>) -> Result<HashMap<KeyId, KeyRecord>, KeyFileError> {
    let mut keys = HashMap::with_capacity(records.len());
    for record in records {
        let id = record.id.clone();
        record
            .principal()
            .map_err(|e| content(path, format!("key {id}: {}", without_keys(&e.to_string()))))?;
        if keys.insert(id.clone(), record).is_some() {
            return Err(content(path, format!("key {id} is there twice")));
        }
    }
    Ok(keys)
}

fn warning(path: &Path, file: &Metadata) -> Option<String> {
    (file.mode() & 0o007 != 0).then(|| {
        let mode = file.mode() & 0o777;
        format!("{} is open to everybody on this machine (mode {mode:o}); chmod o= closes it", path.display())
    })
}

/// A message about a file without what looks like keys: somebody may have put them there.
fn without_keys(message: &str) -> String {
    let mut shown = String::new();
    let mut rest = message;
    while let Some(at) = rest.find(PREFIX) {
        let (before, key) = rest.split_at(at);
        shown.push_str(before);
        shown.push_str("lum_…");
        rest = key.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
    }
    shown + rest
}

fn cannot_read(path: &Path, source: io::Error) -> KeyFileError {
    KeyFileError::Read { path: path.to_owned(), source }
}

fn content(path: &Path, why: impl Into<String>) -> KeyFileError {
    KeyFileError::Content { path: path.to_owned(), why: why.into() }
}
