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

use std::sync::{Arc, atomic::Ordering::Relaxed};

use hashbrown::HashMap;

use super::{
    counters::add,
    engine::Engine,
    head::Head,
    pace::{Haste, Pace},
    register::hidden,
    rewrite::Rewrites,
    select::find_in_head,
    view::Sealed,
    wal::record::{Tombstone, put_cleaned, put_tombstone},
};
use crate::{
    model::{TenantId, TimeRange, Timestamp},
    storage::{Result, StorageError},
};

/// A part is rewritten when one in so many of its samples is hidden.
const WORTH: u64 = 10;

impl Engine {
    /// Takes a tenant's deleted samples out for good.
    pub(crate) fn clean_tombstones(&self, tenant: &TenantId) -> Result<()> {
        let rewrites = &mut *self.rewrites.lock();
        self.is_open()?;
        let tombstones = self.register.tombstones(tenant);
        let Some(up_to) = tombstones.iter().map(|t| t.id).max() else { return Ok(()) };
        self.flush_with(&mut self.upkeep.lock())?;
        for sealed in &self.view.load_full().parts {
            if hidden_samples(sealed, tenant, &tombstones, 1)? == 0 {
                continue;
            }
            // Another part may have gone in the middle of it.
            while self.serves(sealed) {
                self.rewrite(rewrites, std::slice::from_ref(sealed), Haste::Now)?;
            }
        }
        self.exemplars.remove(Some(tenant), |_, labels, e| {
            hidden(&tombstones, labels).iter().any(|r| r.contains(e.timestamp))
        });
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

    /// Takes out of parts what is hidden, where that is worth it, puts together what is to be downsampled, and lets go of
    /// tombstones that hide nothing.
    pub(crate) fn tidy(&self, haste: Haste) -> Result<()> {
        let rewrites = &mut *self.rewrites.lock();
        self.is_open()?;
        let mut pace = Pace::new(self.clock.as_ref(), haste);
        for sealed in &self.view.load_full().parts {
            if self.leaving.load(Relaxed) {
                return Ok(());
            }
            pace.step();
            if sealed.damage().is_some() || !self.serves(sealed) {
                continue;
            }
            let most = sealed.samples();
            // What does not read back is noted, and somebody else's work.
            let Ok(hidden) = self.hidden_in(sealed, most / WORTH) else { continue };
            let worth_it = hidden > 0 && hidden >= most / WORTH;
            let is_due = self.is_due(sealed);
            if (worth_it || is_due) && self.has_room(std::slice::from_ref(sealed)) {
                self.rewrite(rewrites, std::slice::from_ref(sealed), haste)?;
                add(&self.counters.parts_cleaned, u64::from(worth_it));
                add(&self.counters.parts_downsampled, u64::from(is_due));
            }
        }
        for tenant in self.register.tenants_with_tombstones() {
            self.let_go(rewrites, &tenant, &mut pace)?;
        }
        Ok(())
    }

    /// How many of a part's samples are hidden; nobody asks for more than `enough`.
    fn hidden_in(&self, sealed: &Sealed, enough: u64) -> Result<u64> {
        let mut hidden = sealed.noting(self.outlived(&sealed.part))?;
        for of in &sealed.part.meta().tenants {
            if hidden > enough {
                break;
            }
            let tombstones = self.register.tombstones(&of.tenant);
            hidden += hidden_samples(sealed, &of.tenant, &tombstones, enough - hidden + 1)?;
        }
        Ok(hidden)
    }

    /// Ends those of a tenant's tombstones that hide nothing any more.
    fn let_go(&self, _nobody_rewrites: &mut Rewrites, tenant: &TenantId, pace: &mut Pace<'_>) -> Result<()> {
        let mut idle = self.register.tombstones(tenant);
        let Some(up_to) = idle.iter().map(|t| t.id).max() else { return Ok(()) };
        let view = self.view.load_full();
        let keep_idle = |idle: &mut Vec<Tombstone>, sealed: &Sealed, pace: &mut Pace<'_>| {
            let mut failed = None;
            idle.retain(|tombstone| {
                pace.step();
                failed.is_none()
                    && match hidden_samples(sealed, tenant, std::slice::from_ref(tombstone), 1) {
                        Ok(hidden) => hidden == 0,
                        Err(error) => {
                            failed = Some(error);
                            false
                        }
                    }
            });
            failed.map_or(Ok(()), Err::<(), StorageError>)
        };
        // Parts never change, so what was looked at needs no second look.
        for sealed in &view.parts {
            keep_idle(&mut idle, sealed, pace)?;
        }
        if idle.is_empty() || self.leaving.load(Relaxed) {
            return Ok(());
        }
        let upkeep = self.upkeep.lock();
        let now = self.view.load_full();
        let damaged = !self.damage.lock().is_empty() || now.parts.iter().any(|p| p.damage().is_some());
        if damaged || upkeep.frozen.is_some() || upkeep.spent.is_some() || !upkeep.waste.is_empty() {
            return Ok(());
        }
        let looked_at = |sealed: &Arc<Sealed>| view.parts.iter().any(|p| Arc::ptr_eq(p, sealed));
        for sealed in now.parts.iter().filter(|sealed| !looked_at(sealed)) {
            keep_idle(&mut idle, sealed, &mut Pace::new(self.clock.as_ref(), Haste::Now))?;
        }
        idle.retain(|tombstone| now.heads.iter().all(|head| !hides_in_head(head, tenant, tombstone)));
        if idle.is_empty() {
            return Ok(());
        }
        // Who deletes tells the log while the gate is open: what is in the register is in the log's queue, too.
        let gate = self.gate.write();
        self.exemplars.remove(Some(tenant), |_, labels, exemplar| {
            hidden(&idle, labels).iter().any(|range| range.contains(exemplar.timestamp))
        });
        // What was written since they were looked at shows from now on.
        idle.iter().for_each(|tombstone| self.changes.changed(tenant, tombstone.range));
        // Whatever else there is up to that number gets another.
        let mut frames = Vec::new();
        for stays in self.register.let_go(tenant, up_to, &idle) {
            put_tombstone(&mut frames, tenant, &stays);
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

/// How many samples of a tenant tombstones hide in a part; counts no further than `enough`.
///
/// What several of them hide counts several times.
fn hidden_samples(sealed: &Sealed, tenant: &TenantId, tombstones: &[Tombstone], enough: u64) -> Result<u64> {
    let every = [Vec::new()];
    let mut hidden = 0;
    for tombstone in tombstones.iter().filter(|t| sealed.touches(tenant, t.range)) {
        let mut counted = HashMap::new();
        for set in if tombstone.sets.is_empty() { &every[..] } else { &tombstone.sets } {
            for ordinal in sealed.noting(sealed.part.find(tenant, set))? {
                let of_series =
                    sealed.noting(sealed.part.estimate(ordinal, tombstone.range, &mut counted))?;
                hidden += of_series.floats + of_series.histograms;
                if hidden >= enough {
                    return Ok(hidden);
                }
            }
        }
    }
    Ok(hidden)
}

/// Whether a tombstone may hide a sample in a head.
fn hides_in_head(head: &Head, tenant: &TenantId, tombstone: &Tombstone) -> bool {
    let touched = |number| head.look(number, |s| s.range().is_some_and(|r| r.overlaps(tombstone.range)));
    find_in_head(head, tenant, &tombstone.sets).into_iter().any(|number| touched(number) == Some(true))
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
