//! The one thread that touches sled.

use std::{
    collections::BTreeMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use xxhash_rust::xxh3::Xxh3;

use super::{CATALOG, CatalogConfig, REOPEN_AFTER, SUPERBLOCK, rows::Table, superblock::Superblock};
use crate::storage::{
    Result, StorageError,
    embedded::{chunk::bytes::Reader, disk::Disk},
};

/// Small enough that a leaf of our rows stays below the sizes where sled wastes space.
const LEAF_FANOUT: usize = 128;

/// The catalog is small; what is written stays in memory anyway.
const CACHE_BYTES: usize = 16 << 20;

/// The data directory is ours, so if the database is locked it is by a child process that is just being started,
/// which has our files until it is another program; sled starts one whenever it is opened.
const LOCK_TRIES: usize = 100;
const LOCK_WAIT: Duration = Duration::from_millis(10);

type Db = sled::Db<LEAF_FANOUT>;
type Rows = BTreeMap<Vec<u8>, Option<Vec<u8>>>;
type Reply<T> = mpsc::SyncSender<Result<T>>;

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Job {
    /// Apply, flush, answer the generation.
    Commit { rows: Rows, reply: Reply<u64> },
    /// All rows of a table, with whole keys.
    Rows { table: Table, reply: Reply<Vec<(Vec<u8>, Vec<u8>)>> },
    /// The newest durable generation.
    Generation { reply: Reply<u64> },
    /// Mark the store as closed in order and end.
    Close { reply: Reply<()> },
}

/// What the generation's row says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    generation: u64,
    rows: u64,
    fingerprint: u64,
}

impl Sum {
    fn encode(self) -> Vec<u8> {
        [self.generation, self.rows, self.fingerprint].map(u64::to_le_bytes).concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let sum = Self {
            generation: reader.u64().ok()?,
            rows: reader.u64().ok()?,
            fingerprint: reader.u64().ok()?,
        };
        (reader.remaining() == 0).then_some(sum)
    }

    /// Takes a row in, or out again.
    fn toggle(&mut self, key: &[u8], value: &[u8]) {
        let mut hash = Xxh3::new();
        hash.update(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
        hash.update(key);
        hash.update(value);
        self.fingerprint ^= hash.digest();
    }
}

/// Owns the database.
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    config: CatalogConfig,
    /// None once it is dead: then it was forgotten, since dropping it can hang.
    db: Option<Db>,
    /// Why it is dead.
    cause: String,
    sum: Sum,
    written: u64,
}

impl Writer {
    /// Opens what is there; the error says why it cannot be trusted.
    pub(super) fn open(
        disk: &Arc<dyn Disk>,
        config: &CatalogConfig,
        promised: u64,
    ) -> std::result::Result<Self, String> {
        let mut writer = Self::new(disk, config);
        let db = open_db(config)?;
        match guarded(|| check(&db, promised)) {
            Ok(sum) => {
                writer.sum = sum;
                writer.db = Some(db);
                Ok(writer)
            }
            Err(reason) => {
                std::mem::forget(db);
                Err(reason)
            }
        }
    }

    /// Starts an empty database, whose generations go on after `before`.
    pub(super) fn create(
        disk: &Arc<dyn Disk>,
        config: &CatalogConfig,
        before: u64,
    ) -> std::result::Result<Self, String> {
        let mut writer = Self::new(disk, config);
        writer.db = Some(open_db(config)?);
        writer.sum.generation = before;
        Ok(writer)
    }

    fn new(disk: &Arc<dyn Disk>, config: &CatalogConfig) -> Self {
        Self {
            disk: Arc::clone(disk),
            config: config.clone(),
            db: None,
            cause: "it was never opened".into(),
            sum: Sum::default(),
            written: 0,
        }
    }

    /// Works until all senders are gone, or one closes.
    pub(super) fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        let mut next = jobs.recv().ok();
        while let Some(job) = next.take() {
            match job {
                Job::Commit { rows, reply } => {
                    let mut together = rows;
                    let mut replies = vec![reply];
                    // Whoever waits already shares this flush.
                    while let Ok(waiting) = jobs.try_recv() {
                        match waiting {
                            Job::Commit { rows, reply } => {
                                together.extend(rows);
                                replies.push(reply);
                            }
                            job @ (Job::Rows { .. } | Job::Generation { .. } | Job::Close { .. }) => {
                                next = Some(job);
                                break;
                            }
                        }
                    }
                    self.commit(together, &replies);
                }
                Job::Rows { table, reply } => {
                    let rows = self.with_db(|db| walk(db, Some(table)));
                    let _ = reply.send(rows);
                }
                Job::Generation { reply } => {
                    let _ = reply.send(self.alive().map(|_| self.sum.generation));
                }
                Job::Close { reply } => {
                    let _ = reply.send(self.close());
                    return;
                }
            }
            if next.is_none() {
                next = jobs.recv().ok();
            }
        }
        self.let_go();
    }

    /// Answers all with the same outcome; who is no longer there has lost nothing.
    fn commit(&mut self, rows: Rows, replies: &[Reply<u64>]) {
        let outcome = self.commit_rows(rows);
        for (i, reply) in replies.iter().enumerate() {
            let answer = match &outcome {
                Ok(generation) => Ok(*generation),
                Err(e) if i > 0 => Err(again(e)),
                Err(_) => continue,
            };
            let _ = reply.send(answer);
        }
        if let (Err(e), Some(first)) = (outcome, replies.first()) {
            let _ = first.send(Err(e));
        }
    }

    fn commit_rows(&mut self, rows: Rows) -> Result<u64> {
        self.alive()?;
        let free = self.disk.free_bytes(&self.config.data_dir);
        let free = free.map_err(|e| StorageError::io("looking for free space", e))?;
        let size: u64 = rows.iter().map(|(k, v)| (k.len() + v.as_ref().map_or(0, Vec::len)) as u64).sum();
        if free < self.config.min_free_bytes.saturating_add(size) {
            let least = self.config.min_free_bytes;
            let detail = format!("catalog needs {least} bytes beyond its {size}, {free} are free");
            return Err(StorageError::DiskFull { detail });
        }
        let before = self.sum;
        let sum = self.with_db(|db| apply(db, before, &rows))?;
        Superblock { generation: sum.generation, clean: false }
            .write(&self.disk, &self.superblock())
            .inspect_err(|e| self.die(&e.to_string()))?;
        self.sum = sum;
        self.written += size;
        if self.written >= REOPEN_AFTER {
            self.reopen();
        }
        Ok(sum.generation)
    }

    fn superblock(&self) -> PathBuf {
        self.config.data_dir.join(SUPERBLOCK)
    }

    fn alive(&self) -> Result<&Db> {
        let dead = || StorageError::Unavailable {
            detail: format!("catalog has stopped: {}", self.cause),
            retry_after: None,
        };
        self.db.as_ref().ok_or_else(dead)
    }

    /// Does something with the database; after an error it is dead.
    fn with_db<T>(&mut self, work: impl FnOnce(&Db) -> io::Result<T>) -> Result<T> {
        let db = self.alive()?;
        let outcome = catch_unwind(AssertUnwindSafe(|| work(db)))
            .unwrap_or_else(|panic| Err(io::Error::other(message(&*panic))));
        outcome.map_err(|e| {
            self.die(&e.to_string());
            StorageError::io("writing the catalog", e)
        })
    }

    fn die(&mut self, cause: &str) {
        tracing::error!(cause, "catalog has stopped");
        self.cause = cause.to_owned();
        if let Some(db) = self.db.take() {
            std::mem::forget(db);
        }
    }

    /// Gives back the memory of all that was written.
    fn reopen(&mut self) {
        self.let_go();
        self.written = 0;
        match open_db(&self.config) {
            Ok(db) => self.db = Some(db),
            Err(cause) => self.die(&cause),
        }
    }

    fn close(&mut self) -> Result<()> {
        self.alive()?;
        // The clean mark needs a slot of its own: the newest one must not be torn.
        let rows = Rows::new();
        let before = self.sum;
        let sum = self.with_db(|db| apply(db, before, &rows))?;
        Superblock { generation: sum.generation, clean: true }.write(&self.disk, &self.superblock())?;
        self.let_go();
        Ok(())
    }

    /// Closes the database; all of it is flushed already.
    fn let_go(&mut self) {
        if let Some(db) = self.db.take() {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
            self.cause = "it is closed".into();
        }
    }
}

fn open_db(config: &CatalogConfig) -> std::result::Result<Db, String> {
    let config = sled::Config::new()
        .path(config.data_dir.join(CATALOG))
        .cache_capacity_bytes(CACHE_BYTES)
        .zstd_compression_level(1)
        .flush_every_ms(None);
    guarded(|| {
        for _ in 0..LOCK_TRIES {
            match config.open::<LEAF_FANOUT>() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => thread::sleep(LOCK_WAIT),
                other => return other.map_err(|e| e.to_string()),
            }
        }
        config.open::<LEAF_FANOUT>().map_err(|e| e.to_string())
    })
}

/// A panic of sled's is one more way to say that its files do not read back.
fn guarded<T>(work: impl FnOnce() -> std::result::Result<T, String>) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(message(&*panic)))
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("sled panicked: {}", text.unwrap_or("no message"))
}

fn generation_key() -> [u8; 1] {
    [Table::Generation.prefix()]
}

/// Reads all rows, so that a leaf that is damaged shows now, and holds them against the sum.
fn check(db: &Db, promised: u64) -> std::result::Result<Sum, String> {
    let key = generation_key();
    let value = db.get(key).map_err(|e| e.to_string())?.ok_or("the catalog has no generation")?;
    let said = Sum::decode(&value).ok_or("the catalog's generation does not read back")?;
    if said.generation < promised {
        return Err(format!("the catalog is of generation {}, {promised} was promised", said.generation));
    }
    let mut found = Sum { generation: said.generation, ..Sum::default() };
    for (key, value) in walk(db, None).map_err(|e| e.to_string())? {
        if key != generation_key() {
            found.rows += 1;
            found.toggle(&key, &value);
        }
    }
    if found == said { Ok(said) } else { Err("the catalog's rows are not those that were written".into()) }
}

/// All rows, or those of a table.
fn walk(db: &Db, table: Option<Table>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut rows = Vec::new();
    let start: &[u8] = &table.map(|table| vec![table.prefix()]).unwrap_or_default();
    for row in db.range(start..) {
        let (key, value) = row?;
        if table.is_some_and(|table| key.first() != Some(&table.prefix())) {
            break;
        }
        rows.push((key.to_vec(), value.to_vec()));
    }
    Ok(rows)
}

/// Puts the rows and the next generation in as one batch, and makes it durable.
fn apply(db: &Db, before: Sum, rows: &Rows) -> io::Result<Sum> {
    let mut sum = Sum { generation: before.generation + 1, ..before };
    let mut batch = sled::Batch::default();
    for (key, value) in rows {
        if let Some(old) = db.get(key)? {
            sum.toggle(key, &old);
            sum.rows -= 1;
            if value.is_none() {
                batch.remove(key.as_slice());
            }
        }
        if let Some(value) = value {
            sum.toggle(key, value);
            sum.rows += 1;
            batch.insert(key.as_slice(), value.as_slice());
        }
    }
    batch.insert(generation_key().as_slice(), sum.encode());
    db.apply_batch(batch)?;
    db.flush()?;
    Ok(sum)
}

/// The same error for one more caller.
fn again(e: &StorageError) -> StorageError {
    match e {
        StorageError::DiskFull { detail } => StorageError::DiskFull { detail: detail.clone() },
        other => StorageError::Unavailable { detail: other.to_string(), retry_after: None },
    }
}
