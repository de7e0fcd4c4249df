//! Parts from parts: merging those of a day, and taking out what was deleted.
//!
//! A rewrite reads series from its inputs in order, lays newer samples over older ones, leaves out what tombstones
//! hide, and writes one part that names its inputs as replaced. If the process ends before the inputs are removed, the next
//! start removes them.

use std::{
    cmp::Ordering,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{
    counters::add,
    engine::{Engine, Upkeep},
    merge::{overlay, retain},
    part::{PartFacts, PartId, PartSeries, PartWriter},
    register::hidden,
    view::Sealed,
    wal::record::{Tombstone, put_cleaned},
};
use crate::{
    model::{TenantId, TimeRange, Timestamp},
    storage::{Result, SeriesSamples, StorageError},
};

/// Parts above this are not merged any more.
const LARGE_SAMPLES: u64 = 400_000_000;

impl Engine {
    /// Merges the parts of days that have too many.
    pub(crate) fn merge_days(&self, upkeep: &mut Upkeep) -> Result<()> {
        loop {
            let view = self.view.load_full();
            let Some(run) = mergeable(&view.parts, self.config.merge_at.max(2)) else { return Ok(()) };
            match self.rewrite(upkeep, &run) {
                Ok(()) => add(&self.counters.merges, 1),
                Err(error) => {
                    // Nothing is lost by not merging; a full disk or a bad page are told where they matter.
                    if !self.leaving.load(Relaxed) {
                        add(&self.counters.merge_failures, 1);
                    }
                    tracing::warn!(%error, "parts could not be merged");
                    return Ok(());
                }
            }
        }
    }

    /// Takes a tenant's deleted samples out for good.
    pub(crate) fn clean_tombstones(&self, tenant: &TenantId) -> Result<()> {
        let upkeep = &mut *self.upkeep.lock();
        let tombstones = self.register.tombstones(tenant);
        let Some(up_to) = tombstones.iter().map(|t| t.id).max() else { return Ok(()) };
        self.flush_with(upkeep)?;
        let view = self.view.load_full();
        for sealed in &view.parts {
            if hides(sealed, tenant, &tombstones)? {
                self.rewrite(upkeep, &[Arc::clone(sealed)])?;
            }
        }
        self.exemplars.remove(Some(tenant), |labels, e| {
            hidden(&tombstones, labels).iter().any(|r| r.contains(e.timestamp))
        });
        let mut frames = Vec::new();
        put_cleaned(&mut frames, tenant, up_to);
        let gate = self.gate.read();
        self.register.cleaned(tenant, up_to);
        self.changes.changed(tenant, TimeRange::ALL);
        let ticket = self.wal.push(frames);
        drop(gate);
        ticket.block()?;
        let covers = upkeep.covers;
        self.write_ledger(upkeep, covers)?;
        let parts = self.view.load().parts.clone();
        upkeep.books.settle(&self.disk, &parts, upkeep.ledger.take(), covers);
        Ok(())
    }

    /// Puts one part, or none if nothing is left, in the place of several.
    fn rewrite(&self, upkeep: &mut Upkeep, inputs: &[Arc<Sealed>]) -> Result<()> {
        let start = inputs.iter().filter_map(|p| p.range()).map(TimeRange::start).min();
        let at = start.unwrap_or(Timestamp(0));
        let id = PartId(upkeep.next_part);
        upkeep.next_part += 1;
        let path = id.path(&self.parts_dir(), at);
        let mut writer = PartWriter::create(&self.disk, &path)?;
        let mut written = false;
        let mut merge = Merge::over(inputs)?;
        let mut tombstones: Option<(TenantId, Vec<Tombstone>)> = None;
        while let Some((series, mut samples)) = merge.next()? {
            if self.leaving.load(Relaxed) {
                return Err(StorageError::Unavailable {
                    detail: "the store is closing".to_owned(),
                    retry_after: None,
                });
            }
            if tombstones.as_ref().is_none_or(|(tenant, _)| *tenant != series.tenant) {
                tombstones = Some((series.tenant.clone(), self.register.tombstones(&series.tenant)));
            }
            let hidden = hidden(tombstones.as_ref().map_or(&[], |(_, t)| t), &series.labels);
            if !hidden.is_empty() {
                retain(&mut samples, |at| !hidden.iter().any(|r| r.contains(Timestamp(at))));
            }
            written |= !samples.is_empty();
            writer.add(&series.tenant, &series.labels, &samples)?;
        }
        let new = if written {
            let covers_wal = inputs.iter().map(|p| p.age().0).max().unwrap_or(0);
            let replaces = inputs.iter().map(|p| p.part.id()).collect();
            let opened = writer
                .finish(PartFacts { id, covers_wal, replaces })
                .and_then(|_| self.sync_parts_dir())
                .and_then(|()| self.open_part(id, at));
            // What does not serve must not be found by the next start, in place of what does.
            Some(opened.inspect_err(|_| self.discard(upkeep, [path]))?)
        } else {
            drop(writer);
            None
        };
        let view = self.view.load();
        let replaced = |p: &&Arc<Sealed>| inputs.iter().any(|input| Arc::ptr_eq(p, input));
        let kept = view.parts.iter().filter(|p| !replaced(p)).map(Arc::clone).chain(new).collect();
        let view = view.with_parts(kept);
        upkeep.books.settle(&self.disk, &view.parts, None, upkeep.covers);
        self.view.store(Arc::new(view));
        upkeep.waste.extend(inputs.iter().map(|input| input.path().to_owned()));
        self.sweep(upkeep)
    }
}

/// Whether tombstones hide anything in a part.
fn hides(sealed: &Sealed, tenant: &TenantId, tombstones: &[Tombstone]) -> Result<bool> {
    let every = [Vec::new()];
    for tombstone in tombstones.iter().filter(|t| sealed.touches(tenant, t.range)) {
        for set in if tombstone.sets.is_empty() { &every[..] } else { &tombstone.sets } {
            if !sealed.noting(sealed.part.find(tenant, set))?.is_empty() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// So many parts of one day, next to each other in age, that are worth merging.
fn mergeable(parts: &[Arc<Sealed>], merge_at: usize) -> Option<Vec<Arc<Sealed>>> {
    let day = |p: &Sealed| {
        let range = p.range()?;
        (range.start().day() == range.end().day()).then(|| range.start().day())
    };
    let mut days: Vec<i64> = parts.iter().filter_map(|p| day(p)).collect();
    days.sort_unstable();
    days.dedup();
    for at in days {
        // From the newest back: the run ends at a part that is much larger than all before it together, so that
        // each sample is rewritten few times.
        let mut run: Vec<Arc<Sealed>> = Vec::new();
        let mut total = 0_u64;
        let overlaps = |p: &Sealed| p.range().is_some_and(|r| r.start().day() <= at && at <= r.end().day());
        for sealed in parts.iter().rev().filter(|p| overlaps(p)) {
            let samples = sealed.samples();
            let large = samples > LARGE_SAMPLES || (run.len() >= merge_at && samples / 2 > total);
            if day(sealed) != Some(at) || large || sealed.damage().is_some() {
                if run.len() >= merge_at {
                    break;
                }
                run.clear();
                total = 0;
                continue;
            }
            total += samples;
            run.push(Arc::clone(sealed));
        }
        if run.len() >= merge_at {
            run.reverse();
            return Some(run);
        }
    }
    None
}

/// Walks over the series of several parts, in order, with their samples as one.
struct Merge<'a> {
    /// From the oldest to the newest.
    inputs: Vec<Input<'a>>,
}

struct Input<'a> {
    sealed: &'a Sealed,
    series: Box<dyn Iterator<Item = Result<PartSeries>> + 'a>,
    next: Option<PartSeries>,
}

impl<'a> Merge<'a> {
    fn over(parts: &'a [Arc<Sealed>]) -> Result<Self> {
        let mut inputs = Vec::with_capacity(parts.len());
        for sealed in parts {
            let mut input = Input { sealed, series: Box::new(sealed.part.iter()), next: None };
            input.advance()?;
            inputs.push(input);
        }
        Ok(Self { inputs })
    }

    fn next(&mut self) -> Result<Option<(PartSeries, SeriesSamples)>> {
        let order = |a: &PartSeries, b: &PartSeries| (&a.tenant, &a.labels).cmp(&(&b.tenant, &b.labels));
        let least = self.inputs.iter().filter_map(|i| i.next.as_ref()).min_by(|a, b| order(a, b)).cloned();
        let Some(least) = least else { return Ok(None) };
        let (mut all, mut one) = (SeriesSamples::default(), SeriesSamples::default());
        for input in &mut self.inputs {
            let Some(series) = &input.next else { continue };
            if order(series, &least) == Ordering::Equal {
                one.clear();
                input.sealed.noting(input.sealed.part.read(series.ordinal, TimeRange::ALL, &mut one))?;
                overlay(&mut all, &mut one);
                input.advance()?;
            }
        }
        Ok(Some((least, all)))
    }
}

impl Input<'_> {
    fn advance(&mut self) -> Result<()> {
        self.next = self.sealed.noting(self.series.next().transpose())?;
        Ok(())
    }
}
