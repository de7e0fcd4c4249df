//! Deletes for good: what tombstones and the retention hide is taken out of parts, and tombstones end.
//!
//! ```text
//! delete ─▶ tombstone: hidden ─▶ a merge, or a rewrite that is worth it: gone ─▶ hides nothing ─▶ let go
//!                              └ clean_tombstones: gone at once, and let go
//! ```
//!
//! Every rewrite leaves out what is hidden at that moment. Parts of days long gone are not merged any more, so
//! [`Engine::tidy`] looks at all of them once in a while, and rewrites those of which a good share is hidden.
//!
//! A tombstone may go when no file and no log has a sample that it hides: no part that serves, none that was replaced and
//! is still to be removed, no head. Of what is damaged nobody knows, so tombstones stay while anything is. They
//! end by a record in the log, which comes before whatever is written to their ranges and seen again.
//!
//! Parts never change. So a part in which something was found that a tombstone hides answers for it as long as it serves, and
//! only what is new is looked at: [so much](MOST_LOOKED_AT) at a time, on from where the last look ended.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use hashbrown::{HashMap, HashSet};

use super::{
    counters::add,
    engine::Engine,
    pace::{Haste, Pace},
    part::PartId,
    register::hidden,
    rewrite::Rewrites,
    select::find_in_head,
    view::{Sealed, View},
    wal::record::{Tombstone, put_cleaned, put_tombstone},
};
use crate::{
    model::{TenantId, TimeRange, Timestamp},
    storage::{Result, StorageError},
};

/// A part is rewritten when one in so many of its samples is hidden.
const WORTH: u64 = 10;

/// So many series are looked at, to find deletes that have ended, before the rest waits for the next time.
const MOST_LOOKED_AT: u64 = 1 << 20;

/// How often a search makes way for others.
const STEPS: u64 = 64;

/// What is known of tombstones from the last look.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Parts that have something which they hide.
    held: HashMap<u64, PartId>,
    /// The one that was looked at last.
    last: u64,
}

/// Where something is that a tombstone hides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Nobody,
    Head,
    Part(PartId),
}

impl Engine {
    /// Takes a tenant's deleted samples out for good.
    ///
    /// Where that cannot be done because something is damaged, what was deleted stays hidden, and it is an error.
    pub(crate) fn clean_tombstones(&self, tenant: &TenantId) -> Result<()> {
        let rewrites = &mut *self.rewrites.lock();
        self.is_open()?;
        let tombstones = self.register.tombstones(tenant);
        let Some(up_to) = tombstones.iter().map(|t| t.id).max() else { return Ok(()) };
        self.flush_with(&mut self.upkeep.lock())?;
        let mut search = Search::new(self, Haste::Now);
        let mut damaged = None;
        for sealed in &self.view.load_full().parts {
            match self.clean_part(rewrites, sealed, tenant, &tombstones, &mut search) {
                Err(error @ StorageError::Corrupt { .. }) => damaged = damaged.or(Some(error)),
                cleaned => cleaned?,
            }
        }
        self.exemplars.remove(Some(tenant), |_, labels, e| {
            hidden(&tombstones, labels).iter().any(|r| r.contains(e.timestamp))
        });
        if let Some(error) = damaged {
            return Err(error);
        }
        if let Some(absent) = self.absent.first() {
            return Err(StorageError::Unavailable {
                detail: format!(
                    "what was deleted is gone from all that serves, and the deletes stay for what does not, until that is \
                     repaired or removed: {absent}"
                ),
                retry_after: None,
            });
        }
        let upkeep = &mut *self.upkeep.lock();
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

    /// Takes what a tenant has deleted out of a part.
    fn clean_part(
        &self,
        rewrites: &mut Rewrites,
        sealed: &Arc<Sealed>,
        tenant: &TenantId,
        tombstones: &[Tombstone],
        search: &mut Search<'_>,
    ) -> Result<()> {
        if search.hidden(sealed, tenant, tombstones, 1)? == 0 {
            return Ok(());
        }
        // Another part may have gone in the middle of it.
        while self.serves(sealed) {
            self.rewrite(rewrites, std::slice::from_ref(sealed), Haste::Now)?;
        }
        Ok(())
    }

    /// Takes out of parts what is hidden, where that is worth it, and lets go of tombstones that hide nothing.
    pub(crate) fn tidy(&self, haste: Haste) -> Result<()> {
        let rewrites = &mut *self.rewrites.lock();
        self.is_open()?;
        let mut search = Search::new(self, haste);
        for sealed in &self.view.load_full().parts {
            if self.leaving.load(Relaxed) {
                return Ok(());
            }
            search.pace.step();
            if sealed.damage().is_some() || !self.serves(sealed) {
                continue;
            }
            let most = sealed.samples();
            // What does not read back is noted, and somebody else's work.
            let Ok(hidden) = self.hidden_in(sealed, most / WORTH, &mut search) else { continue };
            if hidden > 0 && hidden >= most / WORTH && self.has_room(std::slice::from_ref(sealed)) {
                self.rewrite(rewrites, std::slice::from_ref(sealed), haste)?;
                add(&self.counters.parts_cleaned, 1);
            }
        }
        match self.end_deletes(rewrites, &mut Search::new(self, haste)) {
            // Another time.
            Err(StorageError::Stopped) => Ok(()),
            ended => ended,
        }
    }

    /// How many of a part's samples are hidden; nobody asks for more than `enough`.
    fn hidden_in(&self, sealed: &Sealed, enough: u64, search: &mut Search<'_>) -> Result<u64> {
        let mut hidden = sealed.noting(self.outlived(&sealed.part, || search.step()))?;
        for of in &sealed.part.meta().tenants {
            if hidden > enough {
                break;
            }
            let tombstones = self.register.tombstones(&of.tenant);
            hidden += search.hidden(sealed, &of.tenant, &tombstones, enough - hidden + 1)?;
        }
        Ok(hidden)
    }

    /// Ends tombstones that hide nothing any more, of all tenants.
    fn end_deletes(&self, rewrites: &mut Rewrites, search: &mut Search<'_>) -> Result<()> {
        let known = &mut rewrites.known;
        let mut all: Vec<(TenantId, Tombstone)> = Vec::new();
        for tenant in self.register.tenants_with_tombstones() {
            let of_tenant = self.register.tombstones(&tenant);
            all.extend(of_tenant.into_iter().map(|tombstone| (tenant.clone(), tombstone)));
        }
        let ids: HashSet<u64> = all.iter().map(|(_, tombstone)| tombstone.id).collect();
        known.held.retain(|id, _| ids.contains(id));
        if all.is_empty() || self.is_damaged(&self.view.load()) {
            return Ok(());
        }
        all.sort_by_key(|(_, tombstone)| (tombstone.id <= known.last, tombstone.id));
        // Heads and parts as they were at one moment after all of these: whatever had been written before any of them is
        // there, or was written anew without what they hide.
        let view = self.view.load_full();
        let serves: HashSet<PartId> = view.parts.iter().map(|sealed| sealed.part.id()).collect();
        let mut idle: BTreeMap<TenantId, Vec<Tombstone>> = BTreeMap::new();
        for (tenant, tombstone) in all {
            if known.held.get(&tombstone.id).is_some_and(|part| serves.contains(part)) {
                continue;
            }
            if search.looked >= MOST_LOOKED_AT {
                break;
            }
            known.last = tombstone.id;
            match search.holder(&view, &tenant, &tombstone)? {
                Holder::Nobody => idle.entry(tenant).or_default().push(tombstone),
                Holder::Head => {}
                Holder::Part(part) => {
                    known.held.insert(tombstone.id, part);
                }
            }
        }
        idle.iter().try_for_each(|(tenant, idle)| self.let_go(known, tenant, idle))
    }

    /// Whether there is something of which nobody knows what it holds.
    fn is_damaged(&self, view: &View) -> bool {
        !self.damage.lock().is_empty() || view.parts.iter().any(|sealed| sealed.damage().is_some())
    }

    /// Ends tombstones of a tenant that hide nothing any more, unless something is on its way.
    fn let_go(&self, known: &mut Known, tenant: &TenantId, idle: &[Tombstone]) -> Result<()> {
        let Some(up_to) = idle.iter().map(|tombstone| tombstone.id).max() else { return Ok(()) };
        let upkeep = self.upkeep.lock();
        let removed = upkeep.waste.is_empty() && upkeep.replaced.is_done();
        let on_its_way = upkeep.frozen.is_some() || upkeep.spent.is_some() || !removed;
        if on_its_way || self.is_damaged(&self.view.load()) {
            return Ok(());
        }
        // Who deletes tells the log while the gate is open: what is in the register is in the log's queue, too.
        let gate = self.gate.write();
        self.exemplars.remove(Some(tenant), |_, labels, exemplar| {
            hidden(idle, labels).iter().any(|range| range.contains(exemplar.timestamp))
        });
        // What was written since they were looked at shows from now on.
        let shows = |of: &Tombstone| self.downsampling.changed_with(of.range);
        idle.iter().for_each(|tombstone| self.changes.changed(tenant, shows(tombstone)));
        // Whatever else there is up to that number gets another.
        let mut frames = Vec::new();
        for (was, stays) in self.register.let_go(tenant, up_to, idle) {
            put_tombstone(&mut frames, tenant, &stays);
            if let Some(part) = known.held.remove(&was) {
                known.held.insert(stays.id, part);
            }
        }
        put_cleaned(&mut frames, tenant, up_to);
        let ticket = self.wal.push(frames);
        drop(gate);
        ticket.block()?;
        add(&self.counters.tombstones_ended, idle.len() as u64);
        tracing::info!(%tenant, deletes = idle.len(), "removed for good what was deleted");
        Ok(())
    }
}

/// Looks for samples that tombstones hide, until the store is closing.
struct Search<'a> {
    leaving: &'a AtomicBool,
    pace: Pace<'a>,
    /// So many series were looked at.
    looked: u64,
}

impl<'a> Search<'a> {
    fn new(engine: &'a Engine, haste: Haste) -> Self {
        Self { leaving: &engine.leaving, pace: Pace::new(engine.clock.as_ref(), haste), looked: 0 }
    }

    /// Looks at one more series.
    fn step(&mut self) -> Result<()> {
        self.looked += 1;
        if self.looked.is_multiple_of(STEPS) {
            self.pace.step();
            if self.leaving.load(Relaxed) {
                return Err(StorageError::Stopped);
            }
        }
        Ok(())
    }

    /// How many samples of a tenant tombstones hide in a part; counts no further than `enough`.
    ///
    /// What several of them hide counts several times.
    fn hidden(
        &mut self,
        sealed: &Sealed,
        tenant: &TenantId,
        tombstones: &[Tombstone],
        enough: u64,
    ) -> Result<u64> {
        let every = [Vec::new()];
        let mut hidden = 0;
        for tombstone in tombstones.iter().filter(|t| sealed.touches(tenant, t.range)) {
            let mut counted = HashMap::new();
            for set in if tombstone.sets.is_empty() { &every[..] } else { &tombstone.sets } {
                self.step()?;
                for ordinal in sealed.noting(sealed.part.find(tenant, set))? {
                    self.step()?;
                    hidden += sealed.noting(sealed.part.hidden(ordinal, tombstone.range, &mut counted))?;
                    if hidden >= enough {
                        return Ok(hidden);
                    }
                }
            }
        }
        Ok(hidden)
    }

    /// Who may have a sample that a tombstone hides.
    fn holder(&mut self, view: &View, tenant: &TenantId, tombstone: &Tombstone) -> Result<Holder> {
        for head in &view.heads {
            self.step()?;
            let touched =
                |number| head.look(number, |s| s.range().is_some_and(|r| r.overlaps(tombstone.range)));
            for number in find_in_head(head, tenant, &tombstone.sets) {
                self.step()?;
                if touched(number) == Some(true) {
                    return Ok(Holder::Head);
                }
            }
        }
        for sealed in &view.parts {
            if self.hidden(sealed, tenant, std::slice::from_ref(tombstone), 1)? > 0 {
                return Ok(Holder::Part(sealed.part.id()));
            }
        }
        Ok(Holder::Nobody)
    }
}

/// When a series' samples are hidden by tombstones, or too old.
pub(crate) fn hidden_or_too_old(
    tombstones: &[Tombstone],
    kept: &super::retention::Kept<'_>,
    range: TimeRange,
    labels: &crate::model::Labels,
) -> Vec<TimeRange> {
    let mut all = hidden(tombstones, labels);
    if kept.all_since > range.start() {
        let since = kept.since(labels);
        if let Some(old) =
            since.0.checked_sub(1).and_then(|end| TimeRange::new(Timestamp::MIN, Timestamp(end)))
        {
            all.push(old);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::HandClock,
        model::Labels,
        storage::{
            BatchSample, WriteBatch,
            embedded::{EmbeddedConfig, disk::SystemDisk, head::append::Begin},
        },
    };

    const SERIES: u32 = 1000;

    /// A store with a part of many series, which have nothing in the middle of it, and deletes of that.
    fn with_idle_deletes(dir: &std::path::Path, deletes: usize) -> Engine {
        let clock = HandClock::at(Timestamp(1_000_000));
        let config = EmbeddedConfig { ballast_bytes: 0, ..EmbeddedConfig::new(dir) };
        let engine = Engine::open_at(config, Arc::new(SystemDisk), clock).unwrap();
        let labels = |i: u32| Labels::from_pairs([("i", i.to_string().as_str())]).unwrap();
        let mut batch = WriteBatch::over((0..SERIES).map(labels).collect());
        let sample = |series, at| BatchSample { series, timestamp: Timestamp(at), value: 1.0, start: 0 };
        batch.samples = (0..SERIES).flat_map(|series| [sample(series, 0), sample(series, 1000)]).collect();
        let tenant = TenantId::anonymous();
        engine.append(&tenant, batch, Begin::All).unwrap().1.block().unwrap();
        engine.flush_head().unwrap();
        for _ in 0..deletes {
            let middle = TimeRange::new(Timestamp(400), Timestamp(600)).unwrap();
            engine.delete(&tenant, vec![], middle).unwrap().block().unwrap();
        }
        engine
    }

    #[test]
    fn a_search_ends_soon_when_the_store_closes() {
        let dir = tempfile::tempdir().unwrap();
        let engine = with_idle_deletes(dir.path(), 3);
        engine.leaving.store(true, Relaxed);
        let rewrites = &mut *engine.rewrites.lock();
        let mut search = Search::new(&engine, Haste::Now);
        let ended = engine.end_deletes(rewrites, &mut search);
        assert!(matches!(ended, Err(StorageError::Stopped)), "{ended:?}");
        assert!(search.looked <= STEPS, "{}", search.looked);
        let mut search = Search::new(&engine, Haste::Now);
        let part = Arc::clone(&engine.view.load().parts[0]);
        assert!(engine.hidden_in(&part, 1, &mut search).is_err());
        assert!(search.looked <= STEPS, "{}", search.looked);
        engine.leaving.store(false, Relaxed);
    }

    #[test]
    fn what_was_looked_at_is_not_looked_at_again_and_a_look_ends_where_it_has_to() {
        let dir = tempfile::tempdir().unwrap();
        let engine = with_idle_deletes(dir.path(), 0);
        let tenant = TenantId::anonymous();
        let of = |i: u32| vec![vec![crate::model::Matcher::equal("i", &i.to_string())]];
        let everything = TimeRange::ALL;
        for i in 0..3 {
            engine.delete(&tenant, of(i), everything).unwrap().block().unwrap();
        }
        let deletes = || engine.register.tombstones(&tenant).len();
        let rewrites = &mut *engine.rewrites.lock();
        let mut look = |looked| {
            let mut search = Search::new(&engine, Haste::Now);
            search.looked = looked;
            engine.end_deletes(rewrites, &mut search).unwrap();
            search.looked - looked
        };
        assert_eq!(look(MOST_LOOKED_AT), 0, "it is another one's turn");
        assert!(look(0) > 0);
        assert_eq!(look(0), 0, "what hides something is known");
        // Those that end are found beside them, a few at a time.
        for _ in 0..3 {
            engine.delete(&tenant, of(SERIES + 7), everything).unwrap().block().unwrap();
        }
        assert_eq!(deletes(), 6);
        look(MOST_LOOKED_AT - 1);
        assert_eq!(deletes(), 5);
        look(0);
        assert_eq!(deletes(), 3);
        assert_eq!(look(0), 0, "under their new numbers, too");
    }
}
