//! From the head to parts.
//!
//! A flush freezes the head, begins a new epoch of the log, and writes all that the frozen head has to a part
//! per UTC day, while writes go to the new head and queries see both. Only when everything is durable does the log let go of its
//! segments. If something fails the frozen head stays in the view and the next flush tries again.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    budget::Pressure,
    catalog::ledger::Ledger,
    counters::{add, add_micros},
    disk::Disk,
    engine::{Engine, Upkeep},
    head::{Head, seen::Seen},
    pace::Haste,
    part::{Part, PartFacts, PartId, PartWriter},
    view::{Sealed, View},
    wal::Refusal,
};
use crate::{
    model::{Labels, Millis, TenantId, TimeRange, Timestamp},
    storage::{Result, SeriesSamples, StorageError},
};

/// A flush writes no more parts than this at once; if there are more days, several share one.
const MOST_PARTS: usize = 64;
/// Series with a sample in this time before the head's end stay known after a flush.
pub(crate) const ACTIVE: Millis = Millis(15 * 60_000);
/// Where somebody has no room for more series a flush comes after this time: as long as it takes to be silent.
const CROWDED: Duration = Duration::from_secs(15 * 60);
/// A flush that failed is tried again by itself after this time, and one that made too little room comes again.
const RETRY: Duration = Duration::from_secs(5);

impl Engine {
    /// Makes everything in memory durable outside the log, and merges what is to be merged.
    pub(crate) fn flush(&self) -> Result<()> {
        self.flush_head()?;
        self.merge_days(Haste::Now);
        Ok(())
    }

    /// Makes everything in memory durable outside the log.
    pub(crate) fn flush_head(&self) -> Result<()> {
        self.flush_with(&mut self.upkeep.lock())
    }

    /// Whether it is time for a flush.
    pub(crate) fn flush_is_due(&self) -> bool {
        let head = Arc::clone(&self.gate.read());
        // Series that stay known fill a head from the start: a flush is worth it when there is more to free, or
        // when the head is so full that it takes no more.
        let most = self.config.head_bytes;
        let full =
            head.bytes() >= most && (head.grown() >= most / 4 || head.bytes() >= most.saturating_mul(2));
        let big = self.wal.grown() >= self.config.flush_wal_bytes || full;
        // A flush that is going on will do.
        let Some(upkeep) = self.upkeep.try_lock() else { return false };
        let since = self.clock.elapsed().saturating_sub(upkeep.last_flush);
        if upkeep.flush_failed && since < RETRY {
            return false;
        }
        let late = since >= self.config.flush_interval;
        // Parts take less space than the log that goes for them, and there is a reserve to write them.
        let disk_is_full = matches!(self.wal.refusal(), Some(Refusal::DiskFull(_)));
        // What is read, or frozen, is no reason to write few samples to a file of their own.
        let pressure = self.pressure();
        let short = pressure >= Pressure::Flush && head.grown() >= self.budget.limit() / 32;
        // Where nothing is taken any more, all that can be given back is worth it, and there is nothing else to wait for.
        let stuck = pressure == Pressure::Samples && head.samples() > 0 && since >= RETRY;
        // Series that are silent give way to others.
        let crowded = self.crowded.load(Relaxed) && since >= CROWDED;
        big || short
            || stuck
            || upkeep.frozen.is_some()
            || crowded
            || ((late || disk_is_full) && head.samples() > 0)
    }

    pub(crate) fn flush_with(&self, upkeep: &mut Upkeep) -> Result<()> {
        let before = self.clock.elapsed();
        let flushed = self.flush_frozen(upkeep).and_then(|()| {
            self.freeze(upkeep)?;
            self.flush_frozen(upkeep)?;
            self.sweep(upkeep)
        });
        upkeep.last_flush = self.clock.elapsed();
        upkeep.flush_failed = flushed.is_err();
        match &flushed {
            Ok(()) => add(&self.counters.flushes, 1),
            Err(_) => add(&self.counters.flush_failures, 1),
        }
        add_micros(&self.counters.flush_micros, upkeep.last_flush.saturating_sub(before));
        flushed
    }

    /// Puts a new head in place of the one that takes writes, if that has anything to write or takes nothing more.
    fn freeze(&self, upkeep: &mut Upkeep) -> Result<()> {
        let mut gate = self.gate.write();
        let full = gate.bytes() >= self.config.head_bytes.saturating_mul(2);
        let crowded = self.crowded.swap(false, Relaxed);
        if gate.samples() == 0 && self.wal.grown() == 0 && !full && !crowded {
            return Ok(());
        }
        let ticket = self.wal.rotate();
        let new = gate.successor();
        let old = std::mem::replace(&mut *gate, new);
        let view = self.view.load();
        let heads = vec![Arc::clone(&old), Arc::clone(&gate)];
        self.view.store(Arc::new(View { heads, parts: view.parts.clone() }));
        drop(gate);
        // What the log could not make durable is in the frozen head, and will be in its parts.
        let covers = ticket.block().unwrap_or_else(|error| {
            tracing::warn!(%error, "the log stopped before a flush");
            upkeep.covers
        });
        upkeep.frozen = Some((old, covers));
        Ok(())
    }

    fn flush_frozen(&self, upkeep: &mut Upkeep) -> Result<()> {
        let Some((head, covers)) = upkeep.frozen.clone() else { return Ok(()) };
        let write = |upkeep: &mut Upkeep| {
            self.write_ledger(upkeep, covers)?;
            self.write_head(upkeep, &head, covers)
        };
        let mut written = write(upkeep);
        if matches!(written, Err(StorageError::DiskFull { .. })) {
            // This is what the reserve is for.
            self.ballast.release();
            written = write(upkeep);
        }
        let new = written?;
        let view = self.view.load();
        let mut parts = view.parts.clone();
        parts.extend(new);
        let parts = View { heads: Vec::new(), parts: Vec::new() }.with_parts(parts).parts;
        upkeep.books.settle(&self.disk, &parts, upkeep.ledger.take(), covers);
        self.keep_active(&head, view.active(), self.clock.elapsed().saturating_sub(upkeep.last_flush));
        let gate = self.gate.write();
        self.view.store(Arc::new(View { heads: vec![Arc::clone(view.active())], parts }));
        gate.count_active();
        drop(gate);
        upkeep.frozen = None;
        upkeep.covers = covers;
        upkeep.spent = Some(covers);
        self.sweep(upkeep)
    }

    /// Removes what no longer counts; what cannot be removed now is tried again by whoever sweeps next.
    pub(crate) fn sweep(&self, upkeep: &mut Upkeep) -> Result<()> {
        let removed = self.remove_waste(upkeep);
        // The log goes whatever becomes of the rest, or it would fill the disk.
        if let Some(seq) = upkeep.spent {
            self.wal.release(seq)?;
            upkeep.spent = None;
        }
        removed
    }

    /// Removes the files that no longer count.
    pub(crate) fn remove_waste(&self, upkeep: &mut Upkeep) -> Result<()> {
        upkeep.replaced.remove(self.disk.as_ref(), &self.config.data_dir)?;
        remove_files(self.disk.as_ref(), upkeep.waste.iter().map(PathBuf::as_path))?;
        upkeep.waste.clear();
        Ok(())
    }

    /// Takes back files of an attempt that failed.
    pub(crate) fn discard(&self, upkeep: &mut Upkeep, files: impl IntoIterator<Item = PathBuf>) {
        upkeep.waste.extend(files);
        if let Err(error) = self.sweep(upkeep) {
            tracing::warn!(%error, "an unfinished part could not be removed yet");
        }
    }

    /// Writes tombstones, metadata and exemplars down, if they changed.
    pub(crate) fn write_ledger(&self, upkeep: &mut Upkeep, covers: u64) -> Result<()> {
        let exemplars = self.exemplars.changes();
        if !self.register.take_changed() && exemplars.is_none() {
            return Ok(());
        }
        let mut ledger = Ledger { covers_wal: covers, ..Ledger::default() };
        self.register.enter(&mut ledger);
        let exemplars = exemplars.unwrap_or_else(|| self.exemplars.everything());
        ledger.exemplars = exemplars
            .into_iter()
            .map(|(tenant, series, exemplars)| super::catalog::ExemplarRow { tenant, series, exemplars })
            .collect();
        let written = upkeep.books.write_ledger(&self.disk, &ledger);
        self.register.settled(written.is_ok());
        self.exemplars.settled(written.is_ok());
        upkeep.ledger = Some(ledger);
        written
    }

    /// Lets series that are still written to stay known, so that their next sample finds them.
    ///
    /// A head may be flushed before all that are written to have been heard of, or when nobody has been: what counts
    /// is how long one has been silent. Where series alone fill all memory there is, only those with a sample stay.
    fn keep_active(&self, old: &Head, new: &Head, since_last: Duration) {
        let passed = Millis(i64::try_from(since_last.as_millis()).unwrap_or(i64::MAX));
        let before = Some(old.carried()).filter(|end| *end > Timestamp::MIN).map(|end| end.plus(passed));
        let bytes = old.bytes();
        let pressed = bytes >= self.config.head_bytes.saturating_mul(2)
            || self.budget.pressure(bytes) == Pressure::Samples;
        let Some(end) = old.range().map(|range| range.end()).max(before) else { return };
        // One sample far in the future does not count for long.
        new.carry(end.min(self.clock.now()));
        let since = end.minus(ACTIVE).0;
        let last = |s: &Seen<'_>| if pressed { s.newest() } else { Some(s.last_active()) };
        for tenant in old.tenants() {
            new.adopt_all(old, &tenant, |s| last(s).filter(|last| *last >= since));
        }
    }

    /// Writes a head's samples to a part per day; on an error none of them stays.
    fn write_head(&self, upkeep: &mut Upkeep, head: &Head, covers: u64) -> Result<Vec<Arc<Sealed>>> {
        let Some(range) = head.range() else { return Ok(Vec::new()) };
        let mut days = DayWriters {
            engine: self,
            next: &mut upkeep.next_part,
            buckets: buckets(head, range),
            open: Vec::new(),
        };
        let mut samples = SeriesSamples::default();
        for tenant in head.tenants() {
            head.each_in_order(&tenant, |number| {
                samples.clear();
                let labels = head.look(number, |series| {
                    series.read(TimeRange::ALL, &mut samples);
                    series.labels()
                });
                labels.map_or(Ok(()), |labels| days.add(&tenant, &labels, &mut samples))
            })?;
        }
        let mut finished = Vec::new();
        let sealed = days.finish(covers, &mut finished);
        if sealed.is_err() {
            // The head still has everything; what was finished would only be there twice.
            self.discard(upkeep, finished.iter().map(|(id, at)| id.path(&self.parts_dir(), *at)));
        }
        sealed
    }

    /// Opens a part that was just written, after its directory is durable.
    pub(crate) fn open_part(&self, id: PartId, at: Timestamp) -> Result<Arc<Sealed>> {
        let path = id.path(&self.parts_dir(), at);
        Ok(Sealed::new(Part::open_with_cache(&self.disk, &path, &self.cache)?))
    }

    /// Makes the directories of days durable.
    pub(crate) fn sync_parts_dir(&self) -> Result<()> {
        for dir in [self.parts_dir(), self.config.data_dir.clone()] {
            self.disk
                .sync_dir(&dir)
                .map_err(|e| StorageError::io(format!("syncing {}", dir.display()), e))?;
        }
        Ok(())
    }
}

/// The first days of the spans of time that get a part each, rising.
fn buckets(head: &Head, range: TimeRange) -> Vec<i64> {
    let (first, last) = (range.start().day(), range.end().day());
    if last - first < MOST_PARTS as i64 {
        return (first..=last).collect();
    }
    // Samples may lie anywhere in time, and a part for each of millions of days would help nobody.
    let mut days = BTreeSet::new();
    let mut samples = SeriesSamples::default();
    for tenant in head.tenants() {
        for number in head.all(&tenant) {
            samples.clear();
            head.read(number, TimeRange::ALL, &mut samples);
            days.extend(samples.timestamps.iter().map(|at| Timestamp(*at).day()));
            days.extend(samples.histograms.iter().map(|h| Timestamp(h.timestamp).day()));
        }
    }
    let days: Vec<i64> = days.into_iter().collect();
    days.chunks(days.len().div_ceil(MOST_PARTS).max(1)).map(|span| span[0]).collect()
}

/// A part being written for each span of days that has samples.
struct DayWriters<'a> {
    engine: &'a Engine,
    next: &'a mut u64,
    buckets: Vec<i64>,
    open: Vec<OpenPart>,
}

struct OpenPart {
    bucket: usize,
    id: PartId,
    /// A time in the day whose directory the part lies in.
    at: Timestamp,
    writer: PartWriter,
}

impl DayWriters<'_> {
    fn bucket(&self, at: i64) -> usize {
        self.buckets.partition_point(|first| *first <= Timestamp(at).day()).saturating_sub(1)
    }

    fn add(&mut self, tenant: &TenantId, labels: &Labels, samples: &mut SeriesSamples) -> Result<()> {
        loop {
            let first = samples.timestamps.first().copied();
            let first_histogram = samples.histograms.first().map(|h| h.timestamp);
            let Some(first) = first.into_iter().chain(first_histogram).min() else { return Ok(()) };
            let bucket = self.bucket(first);
            let end = self.buckets.get(bucket + 1).copied();
            let inside = |at: i64| end.is_none_or(|end| Timestamp(at).day() < end);
            let floats = samples.timestamps.partition_point(|at| inside(*at));
            let histograms = samples.histograms.partition_point(|h| inside(h.timestamp));
            let writer = self.writer(bucket, Timestamp(first))?;
            if floats == samples.timestamps.len() && histograms == samples.histograms.len() {
                return writer.add(tenant, labels, samples);
            }
            let now = SeriesSamples {
                timestamps: samples.timestamps.drain(..floats).collect(),
                values: samples.values.drain(..floats).collect(),
                starts: samples.starts.drain(..floats.min(samples.starts.len())).collect(),
                // What is in memory was never put together.
                gaps: Vec::new(),
                histograms: samples.histograms.drain(..histograms).collect(),
            };
            writer.add(tenant, labels, &now)?;
        }
    }

    fn writer(&mut self, bucket: usize, at: Timestamp) -> Result<&mut PartWriter> {
        let place = match self.open.iter().position(|open| open.bucket == bucket) {
            Some(place) => place,
            None => {
                let id = PartId(*self.next);
                *self.next += 1;
                let path = id.path(&self.engine.parts_dir(), at);
                let writer = PartWriter::create(&self.engine.disk, &path)?;
                self.open.push(OpenPart { bucket, id, at, writer });
                self.open.len() - 1
            }
        };
        Ok(&mut self.open[place].writer)
    }

    /// Makes the parts durable, and notes those that have got their name.
    fn finish(self, covers: u64, finished: &mut Vec<(PartId, Timestamp)>) -> Result<Vec<Arc<Sealed>>> {
        for open in self.open {
            finished.push((open.id, open.at));
            let facts = PartFacts { id: open.id, covers_wal: covers, replaces: Vec::new(), downsampled: 0 };
            let meta = open.writer.finish(facts)?;
            add(&self.engine.counters.flush_bytes, meta.bytes);
        }
        self.engine.sync_parts_dir()?;
        finished.iter().map(|(id, at)| self.engine.open_part(*id, *at)).collect()
    }
}

/// Removes files, durably in the directories they are in.
pub(crate) fn remove_files<'a>(disk: &dyn Disk, files: impl Iterator<Item = &'a Path>) -> Result<()> {
    let mut dirs = BTreeSet::new();
    for path in files {
        match disk.remove_file(path) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(StorageError::io(format!("removing {}", path.display()), e)),
        }
        dirs.extend(path.parent());
    }
    for dir in dirs {
        disk.sync_dir(dir).map_err(|e| StorageError::io(format!("syncing {}", dir.display()), e))?;
    }
    Ok(())
}
