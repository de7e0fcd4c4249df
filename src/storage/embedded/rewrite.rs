//! Parts from parts: merging those of a day, and taking out what is hidden.
//!
//! A rewrite reads series from its inputs in order, lays newer samples over older ones, leaves out what tombstones and
//! the retention hide, puts together what is old enough (`downsample`), and writes one part that names its inputs as
//! replaced. It goes on beside flushes and queries, for minutes if it must; only to put the new part in the place of its
//! inputs does it keep others from changing the parts:
//!
//! ```text
//! one rewrite at a time ├─ choose ─ write ─ fsync ─ rename ─┤ put in place │ remove inputs ├─
//! upkeep: flush, retention, snapshot     may happen         └── nobody else ───────────────┘
//! ```
//!
//! If the process ends after the rename, the next start finds the new part, and removes its inputs. If an input has gone
//! in the meantime, or samples came among those that it puts together, the new part is removed: its inputs, what is left
//! of them, serve on. A rewrite that is interrupted leaves a `.tmp` file at most.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    counters::add,
    downsample::{Due, thin},
    engine::Engine,
    merge::{hide, settle_gaps},
    pace::{Haste, Pace},
    part::{PartFacts, PartId, PartWriter},
    tidy::{Known, hidden_or_too_old},
    tiers::{self, Piece, REST, Run},
    view::{Sealed, View},
    wal::record::Tombstone,
    weave::{Weave, bytes_to_merge},
};
use crate::{
    model::{TenantId, TimeRange, Timestamp},
    storage::{HistogramSample, Result, SeriesSamples, StorageError},
};

/// After a merge that failed none is tried for so long.
const RETRY: Duration = Duration::from_secs(60);
/// So long a merge waits for room in memory.
const PATIENCE: Duration = Duration::from_secs(60);

/// What whoever rewrites parts remembers; held while they do.
#[derive(Debug, Default)]
pub(crate) struct Rewrites {
    /// When parts of a day were last made one.
    days: BTreeMap<i64, Duration>,
    failed: Option<Duration>,
    /// Since when there has been no room in memory.
    short_since: Option<Duration>,
    /// Whether it was told that some parts cannot be downsampled.
    pub(crate) told_of_long_parts: bool,
    /// Which parts have something that a tombstone hides.
    pub(crate) known: Known,
}

impl Engine {
    /// Merges the parts of days that have too many, one run after the other.
    pub(crate) fn merge_days(&self, haste: Haste) {
        let rewrites = &mut *self.rewrites.lock();
        let now = self.clock.elapsed();
        if haste == Haste::Paced && rewrites.failed.is_some_and(|at| now.saturating_sub(at) < RETRY) {
            return;
        }
        while !self.leaving.load(Relaxed) {
            let view = self.view.load_full();
            let Some(run) = self.next_run(rewrites, &view) else { break };
            let inputs: Vec<Arc<Sealed>> = run.places.iter().map(|at| Arc::clone(&view.parts[*at])).collect();
            let Some(inputs) = self.that_fit(rewrites, &inputs) else { break };
            let whole = inputs.len() == run.places.len();
            if !self.has_room(&inputs) {
                tracing::warn!(parts = inputs.len(), "there is no room on the disk to merge parts");
                rewrites.failed = Some(now);
                break;
            }
            match self.rewrite(rewrites, &inputs, haste) {
                Ok(true) => {
                    rewrites.failed = None;
                    // What there was no room for does not wait until the day has rested.
                    if whole {
                        rewrites.days.insert(run.day, self.clock.elapsed());
                    }
                    add(&self.counters.merges, 1);
                }
                // An input has gone, or something came: there is something else to do, if anything.
                Ok(false) => {}
                Err(error) => {
                    // Nothing is lost by not merging; a full disk or a bad page are told where they matter.
                    if !self.leaving.load(Relaxed) {
                        add(&self.counters.merge_failures, 1);
                    }
                    rewrites.failed = Some(now);
                    tracing::warn!(%error, "parts could not be merged");
                    break;
                }
            }
        }
    }

    fn next_run(&self, rewrites: &mut Rewrites, view: &View) -> Option<Run> {
        let now = self.clock.elapsed();
        rewrites.days.retain(|_, at| now.saturating_sub(*at) < REST);
        let piece = |sealed: &Arc<Sealed>| Piece {
            range: sealed.range(),
            samples: sealed.samples(),
            damaged: sealed.damage().is_some(),
        };
        let pieces: Vec<Piece> = view.parts.iter().map(piece).collect();
        let rested = |day| !rewrites.days.contains_key(&day);
        tiers::choose(&pieces, self.config.merge_at, self.clock.now(), rested)
    }

    /// As many neighbours of the inputs as memory has room for; none if it is better to wait. Of those that do not all fit
    /// some are merged each [`PATIENCE`], be it the two that take least: the more parts there are, the more each query
    /// takes, and the oftener some are merged beside a large one, the oftener the same samples are written.
    fn that_fit(&self, rewrites: &mut Rewrites, inputs: &[Arc<Sealed>]) -> Option<Vec<Arc<Sealed>>> {
        let heads: u64 = self.view.load().heads.iter().map(|head| head.bytes()).sum();
        let fit = |inputs: &[Arc<Sealed>]| self.budget.has_room_for(bytes_to_merge(inputs), heads);
        if fit(inputs) {
            rewrites.short_since = None;
            return Some(inputs.to_vec());
        }
        let now = self.clock.elapsed();
        let waited = rewrites.short_since.map(|since| now.saturating_sub(since) >= PATIENCE);
        if waited == Some(false) {
            return None;
        }
        if waited.is_none() {
            tracing::info!(parts = inputs.len(), "memory is short, not all parts are merged");
        }
        rewrites.short_since = Some(now);
        // A large part among them must not keep the small ones beside it from being merged.
        let least = |length| inputs.windows(length).min_by_key(|inputs| bytes_to_merge(inputs));
        let most = (2..inputs.len()).rev().filter_map(least).find(|inputs| fit(inputs));
        most.or_else(|| least(2).filter(|_| waited == Some(true))).map(<[_]>::to_vec)
    }

    /// Whether there is room on the disk for what a rewrite of these parts may take, and for some log besides.
    pub(crate) fn has_room(&self, inputs: &[Arc<Sealed>]) -> bool {
        let bytes: u64 = inputs.iter().map(|input| input.part.meta().bytes).sum();
        let besides = self.config.segment_bytes.saturating_mul(2);
        self.disk.free_bytes(&self.parts_dir()).is_ok_and(|free| free >= bytes.saturating_add(besides))
    }

    /// Whether a part is among those that queries see.
    pub(crate) fn serves(&self, sealed: &Arc<Sealed>) -> bool {
        self.view.load().parts.iter().any(|p| Arc::ptr_eq(p, sealed))
    }

    /// Puts one part, or none if nothing is left, in the place of several; not if one of them has gone by then, nor if
    /// samples were put together and others of their time came meanwhile.
    pub(crate) fn rewrite(&self, _: &mut Rewrites, inputs: &[Arc<Sealed>], haste: Haste) -> Result<bool> {
        let inputs = &self.with_equals(inputs)[..];
        let _share = self.budget.hold(bytes_to_merge(inputs));
        let start = inputs.iter().filter_map(|p| p.range()).map(TimeRange::start).min();
        let at = start.unwrap_or(Timestamp(0));
        let id = {
            let upkeep = &mut *self.upkeep.lock();
            // What an input stands for goes before it does: nobody else knows that it must not come back.
            self.remove_waste(upkeep)?;
            upkeep.next_part += 1;
            PartId(upkeep.next_part - 1)
        };
        let path = id.path(&self.parts_dir(), at);
        let due = self.due(inputs);
        // What was done to all of them was done to what they become.
        let done = || {
            let marks = || inputs.iter().map(|input| input.part.meta().downsampled);
            marks().next().filter(|mark| marks().all(|other| other == *mark)).unwrap_or(0)
        };
        let downsampled = due.as_ref().map_or_else(done, Due::mark);
        let (rewritten, put_together) = match self.write_rewritten(&path, inputs, due.as_ref(), haste) {
            // Its file may be gone, too.
            Err(_) if !inputs.iter().all(|input| self.serves(input)) => return Ok(false),
            rewritten => rewritten?,
        };
        let new = match rewritten {
            Some(writer) => {
                let covers_wal = inputs.iter().map(|p| p.age().0).max().unwrap_or(0);
                let replaces = inputs.iter().map(|p| p.part.id()).collect();
                let opened = writer
                    .finish(PartFacts { id, covers_wal, replaces, downsampled })
                    .and_then(|meta| {
                        add(&self.counters.merge_bytes, meta.bytes);
                        self.sync_parts_dir()
                    })
                    .and_then(|()| self.open_part(id, at));
                // What does not serve must not be found by the next start, in place of what does.
                Some(opened.inspect_err(|_| self.discard(&mut self.upkeep.lock(), [path.clone()]))?)
            }
            None => None,
        };
        let upkeep = &mut *self.upkeep.lock();
        // What came meanwhile may be the same samples again: put together they could not be told apart.
        let came = put_together > 0 && self.due_now(upkeep, inputs).is_none();
        if came || !inputs.iter().all(|input| self.serves(input)) {
            if new.is_some() {
                self.discard(upkeep, [path]);
            }
            return Ok(false);
        }
        new.iter().for_each(|new| self.downsampling.note(new.part.meta()));
        let view = self.view.load();
        let replaced = |p: &&Arc<Sealed>| inputs.iter().any(|input| Arc::ptr_eq(p, input));
        let kept = view.parts.iter().filter(|p| !replaced(p)).map(Arc::clone).chain(new).collect();
        let view = view.with_parts(kept);
        upkeep.books.settle(&self.disk, &view.parts, None, upkeep.covers);
        self.view.store(Arc::new(view));
        if put_together > 0 {
            add(&self.counters.samples_downsampled, put_together);
            // What was computed of them before may come out otherwise.
            for input in inputs {
                for of in &input.part.meta().tenants {
                    of.range.iter().for_each(|range| self.changes.changed(&of.tenant, *range));
                }
            }
        }
        upkeep.waste.extend(inputs.iter().map(|input| input.path().to_owned()));
        self.sweep(upkeep)?;
        Ok(true)
    }

    /// Parts, and those behind them that would otherwise come before what is made of them: parts of the same segment
    /// of the log are in the order of their numbers, and there are two of a day only if the log could not be written.
    pub(crate) fn with_equals(&self, inputs: &[Arc<Sealed>]) -> Vec<Arc<Sealed>> {
        let mut all = inputs.to_vec();
        let Some(last) = inputs.iter().map(|p| p.age()).max() else { return all };
        let view = self.view.load();
        // Those behind one that comes along come along, too: they are met in the order of age.
        for sealed in view.parts.iter().filter(|p| p.age().0 == last.0 && p.age() > last) {
            let overlaps =
                |p: &Arc<Sealed>| p.range().zip(sealed.range()).is_some_and(|(a, b)| a.overlaps(b));
            if all.iter().any(overlaps) {
                all.push(Arc::clone(sealed));
            }
        }
        all
    }

    /// Writes what is left of parts, none if that is nothing; and how many samples were put together by downsampling.
    fn write_rewritten(
        &self,
        path: &Path,
        inputs: &[Arc<Sealed>],
        due: Option<&Due<'_>>,
        haste: Haste,
    ) -> Result<(Option<PartWriter>, u64)> {
        let mut writer = PartWriter::create(&self.disk, path)?;
        let (mut written, mut put_together) = (false, 0);
        let mut weave = Weave::over(&self.disk, inputs)?;
        let mut pace = Pace::new(self.clock.as_ref(), haste);
        let mut of: Option<(TenantId, Vec<Tombstone>)> = None;
        let horizon = self.horizon();
        while let Some((series, mut samples)) = weave.next()? {
            if self.leaving.load(Relaxed) {
                return Err(StorageError::Unavailable {
                    detail: "the store is closing".to_owned(),
                    retry_after: None,
                });
            }
            pace.step();
            if of.as_ref().is_none_or(|(tenant, _)| *tenant != series.tenant) {
                of = Some((series.tenant.clone(), self.register.tombstones(&series.tenant)));
            }
            let tombstones = of.as_ref().map_or(&[][..], |(_, tombstones)| tombstones);
            let kept = self.retention.at(&series.tenant, horizon);
            settle_gaps(&mut samples);
            let hidden = range_of(&samples)
                .map(|range| hidden_or_too_old(tombstones, &kept, range, &series.labels))
                .unwrap_or_default();
            if !hidden.is_empty() {
                hide(&mut samples, &hidden);
            }
            if let Some(resolution) = due.and_then(|due| due.resolution(&series.tenant, &series.labels)) {
                put_together += thin(&mut samples, resolution, &hidden);
            }
            written |= !samples.is_empty();
            writer.add(&series.tenant, &series.labels, &samples)?;
        }
        if weave.gaps_gone() > 0 {
            tracing::warn!(
                gaps = weave.gaps_gone(),
                part = %path.display(),
                "samples beside others that had been put together were written again with other values, which took those"
            );
        }
        Ok((written.then_some(writer), put_together))
    }
}

/// From the first sample of either kind to the last.
fn range_of(samples: &SeriesSamples) -> Option<TimeRange> {
    let (floats, histograms) = (&samples.timestamps, &samples.histograms);
    let ends = |of: Option<&i64>, or: Option<&HistogramSample>| {
        of.copied().into_iter().chain(or.map(|h| h.timestamp))
    };
    let first = ends(floats.first(), histograms.first()).min()?;
    let last = ends(floats.last(), histograms.last()).max()?;
    TimeRange::new(Timestamp(first), Timestamp(last))
}
