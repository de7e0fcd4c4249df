//! Opening: from whatever a process left behind to a store that serves.
//!
//! The files are the truth. Every part that opens serves, unless another that is there replaces it; the log is
//! replayed on top, also where a part may have it already, since the same sample twice is one sample. The
//! catalog only helps: to notice that a part is missing. What does not read back is set aside and told, and never
//! keeps the store from opening.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64},
    },
};

use arc_swap::ArcSwap;
use hashbrown::HashSet;
use parking_lot::{Mutex, RwLock};

use super::{
    admission::Recalled,
    backup::refuse_unfinished,
    ballast::Ballast,
    books::{Books, Told},
    budget::Budget,
    config::EmbeddedConfig,
    counters::{EmbeddedCounters, add, add_micros},
    disk::Disk,
    documents::Documents,
    engine::{Engine, Upkeep},
    exemplars::Exemplars,
    head::Head,
    lock::Lock,
    part::{PageCache, Part, PartId, TEMPORARY_SUFFIX},
    register::Register,
    restore::restore,
    retention::Retention,
    view::{Sealed, View},
    wal::{Wal, WalConfig, WalGround, replay::replay},
};
use crate::{
    clock::Clock,
    storage::{ChangeLog, Replay, Result, StorageError},
};

/// What the parts on disk are.
#[derive(Debug, Default)]
struct Shelf {
    parts: Vec<Arc<Sealed>>,
    /// Every id that has been used.
    seen: HashSet<PartId>,
    damage: Vec<String>,
}

impl Engine {
    /// Opens a store, or begins one.
    pub(crate) fn open_at(
        config: EmbeddedConfig,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let before = clock.elapsed();
        let dir = config.data_dir.clone();
        refuse_unfinished(disk.as_ref(), &dir)?;
        for sub in ["", "wal", "parts"] {
            let path = dir.join(sub);
            disk.create_dir_all(&path)
                .map_err(|e| StorageError::io(format!("creating {}", path.display()), e))?;
        }
        // A file is only as durable as the directories above it.
        disk.sync_dir(&dir).map_err(|e| StorageError::io(format!("syncing {}", dir.display()), e))?;
        let above = dir.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
        if let Some(Err(error)) = above.map(|above| disk.sync_dir(above)) {
            // It may belong to somebody else, who made this directory for us.
            tracing::debug!(%error, "the directory above the data directory could not be synced");
        }
        let lock = Lock::take(&dir)?;
        super::snapshot::remove_unfinished(&disk, &dir)?;
        let counters = Arc::new(EmbeddedCounters::default());
        add(&counters.unclean_start, u64::from(lock.was_left()));
        let cache = PageCache::new(config.page_cache_bytes);
        let ballast = Arc::new(Ballast::new(Arc::clone(&disk), &dir, config.ballast_bytes));
        let (books, told) = Books::open(&disk, &dir)?;
        let (documents, mut damage_of_documents) = Documents::open(&disk, &dir)?;
        let shelf = shelve(&disk, &dir, &cache, &told)?;
        let register = Register::new(config.metadata_bytes_per_tenant);
        let exemplars = Exemplars::new(config.exemplars_per_tenant);
        let Told { ledger, damage: mut damage_of_books, .. } = told;
        register.restore_all(&ledger);
        exemplars.restore(ledger.exemplars.into_iter().map(|r| (r.tenant, r.series, r.exemplars)).collect());
        let head = Head::new();
        let wal_dir = dir.join("wal");
        super::wal::settle(disk.as_ref(), &wal_dir)?;
        let flushed = shelf.parts.iter().map(|p| p.age().0).max().unwrap_or(0);
        let oldest = super::wal::segments(disk.as_ref(), &wal_dir)?.first().copied();
        let is_tail = oldest.is_some_and(|oldest| oldest <= flushed);
        let (replayed, restored) = restore(&head, &register, &exemplars, is_tail, |each| {
            replay(disk.as_ref(), &wal_dir, &dir.join("quarantine"), each)
        })?;
        head.count_active();
        add(&counters.replay_samples, restored.samples);
        add(&counters.replay_lost, restored.lost);
        let replay = Replay {
            first: replayed.first.unwrap_or(0),
            last: replayed.last.unwrap_or(0),
            damaged: u64::try_from(replayed.damage.len()).unwrap_or(u64::MAX),
        };
        let mut damage = shelf.damage;
        damage.append(&mut damage_of_books);
        damage.append(&mut damage_of_documents);
        damage.extend(replayed.damage);
        if restored.lost > 0 {
            let lost = restored.lost;
            damage.push(format!("{lost} samples of the log belong to series that do not read back"));
        }
        for what in &damage {
            tracing::error!(what, "found damage, going on without");
        }
        let covered = flushed.max(told.covers_wal);
        let last = replayed.last.unwrap_or(0);
        let next = last.max(covered) + 1;
        let ground = WalGround {
            disk: Arc::clone(&disk),
            clock: Arc::clone(&clock),
            ballast: Arc::clone(&ballast),
            counters: Arc::clone(&counters),
        };
        let wal_config = WalConfig {
            dir: wal_dir,
            sync: config.wal_sync,
            segment_bytes: config.segment_bytes,
            queue_bytes: config.queue_bytes,
            next,
            epoch: replayed.epoch + 1,
            previous_end: if next == last + 1 { replayed.end } else { 0 },
        };
        let wal = Wal::start(wal_config, ground)?;
        wal.count_replayed(replayed.bytes);
        ballast.restore(config.segment_bytes.saturating_mul(2));
        let next_part = shelf.seen.iter().map(|id| id.0).max().unwrap_or(0) + 1;
        let view = View { heads: vec![Arc::clone(&head)], parts: Vec::new() }.with_parts(shelf.parts);
        add_micros(&counters.open_micros, clock.elapsed().saturating_sub(before));
        let (retention, clock_now) = (Retention::new(&config), clock.now());
        let engine = Self {
            upkeep: Mutex::new(Upkeep {
                frozen: None,
                next_part,
                last_flush: clock.elapsed(),
                flush_failed: false,
                books,
                ledger: None,
                covers: covered,
                spent: None,
                waste: BTreeSet::new(),
            }),
            budget: Budget::new(config.memory_bytes, config.page_cache_bytes),
            config,
            disk,
            clock,
            counters,
            ballast,
            cache,
            wal,
            gate: RwLock::new(head),
            view: ArcSwap::from_pointee(view),
            register,
            recalled: Recalled::default(),
            crowded: AtomicBool::new(false),
            exemplars,
            changes: ChangeLog::default(),
            documents,
            replay,
            damage: Mutex::new(damage),
            rewrites: Mutex::default(),
            horizon: AtomicI64::new(clock_now.0),
            retention,
            closed: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
        };
        engine.gauge(&engine.view.load());
        Ok(engine)
    }
}

/// Opens all parts, sets aside those that do not open, and removes waste.
fn shelve(disk: &Arc<dyn Disk>, dir: &Path, cache: &Arc<PageCache>, told: &Told) -> Result<Shelf> {
    let parts_dir = dir.join("parts");
    let list =
        |path: &Path| disk.list(path).map_err(|e| StorageError::io(format!("listing {}", path.display()), e));
    let mut shelf = Shelf::default();
    remove_waste(disk.as_ref(), dir)?;
    for day in list(&parts_dir)?.into_iter().filter(|e| e.is_dir) {
        let day_dir = parts_dir.join(&day.name);
        remove_waste(disk.as_ref(), &day_dir)?;
        for entry in list(&day_dir)? {
            let Some(id) = PartId::from_file_name(&entry.name) else { continue };
            let path = day_dir.join(&entry.name);
            shelf.seen.insert(id);
            match Part::open_with_cache(disk, &path, cache) {
                Ok(part) => shelf.parts.push(Sealed::new(part)),
                Err(error @ StorageError::Corrupt { .. }) => {
                    shelf.damage.push(format!("part {id} was set aside: {error}"));
                    set_aside(disk.as_ref(), dir, &path, &entry.name);
                }
                // Whoever wrote it can read it: without it this would be another store.
                Err(error @ StorageError::Unsupported(_)) => return Err(error),
                // Perhaps only today: it stays where it is.
                Err(error) => shelf.damage.push(format!("part {id} could not be opened: {error}")),
            }
        }
    }
    // A part's replacement has all that it had, or all of it that could be read.
    let replaced: HashSet<PartId> =
        shelf.parts.iter().flat_map(|p| p.part.meta().replaces.iter().copied()).collect();
    for entry in list(&dir.join("quarantine"))? {
        if let Some(id) = PartId::from_file_name(&entry.name)
            && shelf.seen.insert(id)
            && !replaced.contains(&id)
        {
            shelf.damage.push(format!("part {id} is in quarantine"));
        }
    }
    let (gone, kept): (Vec<_>, Vec<_>) =
        shelf.parts.into_iter().partition(|p| replaced.contains(&p.part.id()));
    shelf.parts = kept;
    super::flush::remove_files(disk.as_ref(), gone.iter().map(|part| part.path()))?;
    let missing = told.parts.iter().filter(|id| !shelf.seen.contains(*id) && !replaced.contains(*id));
    shelf.damage.extend(missing.map(|id| format!("part {id} is missing")));
    shelf.seen.extend(replaced);
    shelf.seen.extend(&told.parts);
    Ok(shelf)
}

fn remove_waste(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let entries = disk.list(dir).map_err(|e| StorageError::io(format!("listing {}", dir.display()), e))?;
    for entry in entries.iter().filter(|e| !e.is_dir && e.name.ends_with(TEMPORARY_SUFFIX)) {
        if let Err(error) = disk.remove_file(&dir.join(&entry.name)) {
            tracing::warn!(%error, name = entry.name, "an unfinished file could not be removed");
        }
    }
    Ok(())
}

fn set_aside(disk: &dyn Disk, dir: &Path, path: &Path, name: &str) {
    let quarantine = dir.join("quarantine");
    let moved = disk
        .create_dir_all(&quarantine)
        .and_then(|()| disk.rename(path, &quarantine.join(name)))
        .and_then(|()| disk.sync_dir(&quarantine));
    if let Err(error) = moved {
        tracing::error!(%error, name, "a damaged part could not be set aside");
    }
}
