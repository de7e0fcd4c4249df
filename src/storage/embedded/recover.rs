//! Opening: from whatever a process left behind to a store that serves.
//!
//! The files are the truth. Every part that opens serves, unless another that is there replaces it; the log is
//! replayed on top, also where a part may have it already, since the same sample twice is one sample. The
//! catalog only helps: to notice that a part is missing. What does not read back is set aside and told, and never
//! keeps the store from opening; of a part, that is its end, for its index is checked when it is used.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
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
    downsample::Downsampling,
    engine::{Engine, Upkeep},
    exemplars::Exemplars,
    head::Head,
    lock::Lock,
    part::{PageCache, Part, PartId, TEMPORARY_SUFFIX},
    quarantine::{self, QUARANTINE},
    register::Register,
    replaced::Replaced,
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
    /// Parts that do not serve and might again, and why.
    damage: Vec<String>,
    /// What could not be removed yet.
    replaced: Replaced,
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
        // Somebody may have begun since, and died.
        refuse_unfinished(disk.as_ref(), &dir)?;
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
            replay(disk.as_ref(), &wal_dir, &dir, each)
        })?;
        head.count_active();
        add(&counters.replay_samples, restored.samples);
        add(&counters.replay_lost, restored.lost);
        let replay = Replay {
            first: replayed.first.unwrap_or(0),
            last: replayed.last.unwrap_or(0),
            damaged: u64::try_from(replayed.damage.len()).unwrap_or(u64::MAX),
        };
        let absent = shelf.damage.clone();
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
        let downsampling = Downsampling::new(&config.downsampling);
        view.parts.iter().for_each(|sealed| downsampling.note(sealed.part.meta()));
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
                replaced: shelf.replaced,
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
            absent,
            rewrites: Mutex::default(),
            horizon: AtomicI64::new(clock_now.0),
            retention,
            downsampling,
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
    let mut closed = Vec::new();
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
                // Whoever wrote it can read it: without it this would be another store.
                Err(error @ StorageError::Unsupported(_)) => return Err(error),
                Err(error) => closed.push(Closed { id, path, error }),
            }
        }
    }
    let replaced = replaced(&mut shelf);
    shelf.replaced = take_replaced(&mut shelf, &mut closed, &replaced);
    if let Err(error) = shelf.replaced.remove(disk.as_ref(), dir) {
        tracing::warn!(%error, "parts that others stand for are removed later");
    }
    for Closed { id, path, error } in closed {
        if matches!(error, StorageError::Corrupt { .. }) {
            shelf.damage.push(format!("part {id} was set aside: {error}"));
            if let Err(error) = quarantine::set_aside(disk.as_ref(), dir, &path) {
                tracing::error!(%error, %id, "a damaged part could not be set aside");
            }
        } else {
            // Perhaps only today: it stays where it is.
            shelf.damage.push(format!("part {id} could not be opened: {error}"));
        }
    }
    let aside = quarantine::parts(disk.as_ref(), dir)
        .map_err(|e| StorageError::io(format!("listing {}", dir.join(QUARANTINE).display()), e))?;
    // What could not be marked is no damage.
    let aside = aside.into_iter().filter(|id| !replaced.contains(id));
    for id in aside.filter(|id| shelf.seen.insert(*id)) {
        shelf.damage.push(format!("part {id} is in quarantine"));
    }
    let missing = told.parts.iter().filter(|id| !shelf.seen.contains(*id) && !replaced.contains(*id));
    shelf.damage.extend(missing.map(|id| format!("part {id} is missing")));
    shelf.seen.extend(replaced);
    shelf.seen.extend(&told.parts);
    Ok(shelf)
}

/// What parts stand for. Where something of that is left, whoever wrote the part had no time to remove it: then it stands
/// for nothing unless its index reads back, too.
fn replaced(shelf: &mut Shelf) -> HashSet<PartId> {
    let mut replaced = HashSet::new();
    for part in shelf.parts.iter().map(|sealed| &sealed.part) {
        let replaces = &part.meta().replaces;
        if replaces.iter().any(|id| shelf.seen.contains(id))
            && let Err(error) = part.check_index()
        {
            shelf.damage.push(format!("part {} does not stand for others: {error}", part.id()));
            continue;
        }
        replaced.extend(replaces);
    }
    replaced
}

/// A part that does not open.
#[derive(Debug)]
struct Closed {
    id: PartId,
    path: PathBuf,
    error: StorageError,
}

/// Takes out of the shelf the parts that others stand for, whether they open or not: those have all of them, or all that
/// could be read.
fn take_replaced(shelf: &mut Shelf, closed: &mut Vec<Closed>, ids: &HashSet<PartId>) -> Replaced {
    // Whoever wrote what stands for them may have ended before its name was durable.
    let standing = shelf.parts.iter().filter(|p| !p.part.meta().replaces.is_empty());
    let days = standing.filter_map(|p| p.path().parent().map(Path::to_owned)).collect();
    let (gone, kept): (Vec<_>, Vec<_>) =
        std::mem::take(&mut shelf.parts).into_iter().partition(|p| ids.contains(&p.part.id()));
    shelf.parts = kept;
    let of_closed = |c: &mut Closed| ids.contains(&c.id);
    let files = gone
        .iter()
        .map(|part| part.path().to_owned())
        .chain(closed.extract_if(.., of_closed).map(|c| c.path))
        .collect();
    Replaced { days, files, ids: ids.clone() }
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
