//! A query cut into what is kept of it and what is to be evaluated.

use std::{ops::Range, sync::Arc};

use super::{
    Ask,
    extent::{Extent, Grid, Slice, count},
    shelf::{Entry, Key, Rest},
};
use crate::{
    model::{Millis, TimeRange, Timestamp},
    promql::plan::footing::{Footing, Joins},
    storage::{Changed, Changes},
};

/// Gaps between what is kept that are evaluated one by one; of more, all between the first and the last is.
const MOST_GAPS: usize = 8;

/// A query that can be made of pieces.
#[derive(Debug)]
pub(super) struct Query<'a> {
    pub(super) ask: Ask<'a>,
    pub(super) key: Key,
    pub(super) footing: Footing,
    /// The most samples that it may hold.
    pub(super) max_samples: u64,
    pub(super) grid: Grid,
    pub(super) steps: Range<i64>,
}

impl Query<'_> {
    /// All that these steps see of the samples' time.
    pub(super) fn seen_from(&self, steps: &Range<i64>) -> Option<TimeRange> {
        let from = self.grid.at(steps.start).saturating_sub(self.footing.before);
        let to = self.grid.at(steps.end.saturating_sub(1)).saturating_add(self.footing.after);
        let seen = TimeRange::new(Timestamp(from), Timestamp(to))?;
        Some(self.footing.pinned.iter().fold(seen, |seen, pinned| seen.union(*pinned)))
    }

    /// Whether an extent has steps of the query, or such as are next to them.
    pub(super) fn meets(&self, extent: &Extent) -> bool {
        extent.steps.start <= self.steps.end && self.steps.start <= extent.steps.end
    }

    /// What is kept, with an extent from elsewhere, which has nothing to say.
    pub(super) fn joined_by(&self, entry: Option<&Entry>, extent: Extent) -> Entry {
        let mut entry = entry.cloned().unwrap_or_else(|| Entry {
            view: self.ask.view.clone(),
            text: self.ask.text.into(),
            extents: Vec::new(),
            rest: Rest::default(),
        });
        // They stay apart from each other.
        entry.extents.retain(|old| old.steps.end < extent.steps.start || extent.steps.end < old.steps.start);
        entry.extents.push(Arc::new(extent));
        entry
    }

    /// The steps of an extent that nothing has changed since.
    fn still_true(&self, extent: &Extent, changes: &Changes) -> Vec<Range<i64>> {
        if extent.as_of.epoch != changes.epoch {
            return Vec::new();
        }
        let later: Vec<&Changed> =
            changes.changed.iter().filter(|change| change.at > extent.as_of.number).collect();
        let pins =
            |change: &&&Changed| self.footing.pinned.iter().any(|pinned| pinned.overlaps(change.range));
        if later.iter().any(|change| pins(&change)) {
            return Vec::new();
        }
        without(&extent.steps, &self.seeing(later.iter().map(|change| change.range)))
    }

    /// The steps that see something of these ranges, in order of their starts.
    fn seeing(&self, ranges: impl Iterator<Item = TimeRange>) -> Vec<Range<i64>> {
        let steps = ranges.map(|range| {
            let from = range.start().0.saturating_sub(self.footing.after);
            let to = range.end().0.saturating_add(self.footing.before);
            self.grid.within(from, to)
        });
        let mut steps: Vec<Range<i64>> = steps.collect();
        steps.sort_by_key(|steps| steps.start);
        steps
    }

    /// What of an extent can be kept: its last steps that see nothing which may go unnoticed.
    pub(super) fn lasting(&self, extent: Extent, changes: &Changes) -> Option<Extent> {
        if changes.moving.is_empty() {
            return Some(extent);
        }
        let last = without(&extent.steps, &self.seeing(changes.moving.iter().copied())).pop();
        let pinned = self.footing.pinned.iter();
        let pins = pinned.flat_map(|pinned| changes.moving.iter().map(|moving| pinned.overlaps(*moving)));
        if pins.into_iter().any(|moves| moves) {
            return None;
        }
        if last.as_ref() == Some(&extent.steps) {
            return Some(extent);
        }
        // What it was made of, and what it has to say, is of all of it.
        if self.footing.joins != Joins::Always || !extent.notes.is_empty() {
            return None;
        }
        let as_of = extent.as_of;
        Extent::laid(vec![Slice { extent: Arc::new(extent), steps: last? }], as_of)
    }

    /// What of an entry answers the query, in order.
    pub(super) fn usable(&self, entry: &Entry, changes: &Changes) -> Vec<Slice> {
        let mut usable = Vec::new();
        for extent in &entry.extents {
            let mut still_true = self.still_true(extent, changes);
            if !extent.notes.is_empty() {
                // What it has to say is about all of its steps, and names places in the text.
                let whole = still_true.first() == Some(&extent.steps)
                    && self.steps.start <= extent.steps.start
                    && extent.steps.end <= self.steps.end;
                still_true.retain(|_| whole && *entry.text == *self.ask.text);
            }
            for steps in still_true {
                let steps = steps.start.max(self.steps.start)..steps.end.min(self.steps.end);
                if !steps.is_empty() {
                    usable.push(Slice { extent: Arc::clone(extent), steps });
                }
            }
        }
        usable.sort_by_key(|slice| slice.steps.start);
        usable
    }

    /// The steps to be evaluated, in pieces.
    pub(super) fn pieces(&self, usable: &[Slice], split: Millis) -> Vec<Range<i64>> {
        let there: Vec<Range<i64>> = usable.iter().map(|slice| slice.steps.clone()).collect();
        let mut gaps = without(&self.steps, &there);
        if gaps.len() > MOST_GAPS {
            let end = gaps.last().map(|gap| gap.end);
            gaps.truncate(1);
            gaps.iter_mut().for_each(|all| all.end = end.unwrap_or(all.end));
        }
        if split.0 <= 0 || !self.footing.is_worth_splitting(self.key.step, split.0) {
            return gaps;
        }
        let mut pieces = Vec::with_capacity(gaps.len());
        for gap in gaps {
            let wide = self.grid.at(gap.end).saturating_sub(self.grid.at(gap.start));
            // Twice a piece and less is not worth it.
            if wide / 2 <= split.0 {
                pieces.push(gap);
                continue;
            }
            let mut from = gap.start;
            while from < gap.end {
                let bound = self.grid.at(from).div_euclid(split.0).saturating_add(1).saturating_mul(split.0);
                let next = self.grid.within(bound, i64::MAX).start.clamp(from + 1, gap.end);
                pieces.push(from..next);
                from = next;
            }
        }
        pieces
    }

    /// Whether these slices, side by side, are what the whole would be.
    pub(super) fn fit(&self, slices: &[Slice]) -> bool {
        let [first, rest @ ..] = slices else { return false };
        if rest.is_empty() && first.is_whole() {
            return true;
        }
        match self.footing.joins {
            Joins::Always => {}
            Joins::InSameOrder => {
                // The whole has all rows of whatever is whole, and no others than these, which leaves one order.
                let same = |slice: &Slice| slice.extent.made_of == first.extent.made_of;
                let told = first.extent.made_of.told && slices.iter().any(Slice::is_whole);
                if !told || !rest.iter().all(same) {
                    return false;
                }
            }
        }
        slices.windows(2).all(|pair| !pair[0].extent.notes.disagrees(&pair[1].extent.notes))
            && (slices.len() < 3 || all_agree(slices))
    }

    /// Adds what an older extent has before and after the new one and is still true.
    ///
    /// It does not grow beyond the longer of the two: the range asked for moves on.
    pub(super) fn with_ends_of(&self, made: Slice, old: &Arc<Extent>, changes: &Changes) -> Slice {
        let new = &made.extent;
        if !new.notes.is_empty() || !old.notes.is_empty() || old.made_of.described {
            return made;
        }
        let most = i64::try_from(count(&new.steps).max(count(&old.steps))).unwrap_or(i64::MAX);
        let still_true = self.still_true(old, changes);
        let end = |steps: Range<i64>| Slice { extent: Arc::clone(old), steps };
        let after = still_true.iter().find(|s| s.start <= new.steps.end && new.steps.end < s.end);
        let after = after.map(|steps| end(new.steps.end..steps.end));
        let until = after.as_ref().map_or(new.steps.end, |slice| slice.steps.end);
        let oldest = until.saturating_sub(most);
        let before = still_true.iter().find(|s| s.start < new.steps.start && new.steps.start <= s.end);
        let before = before.map(|steps| steps.start.max(oldest)..new.steps.start);
        let before = before.filter(|steps| !steps.is_empty()).map(end);
        if before.is_none() && after.is_none() {
            return made;
        }
        let as_of = made.extent.as_of;
        let slices: Vec<Slice> = before.into_iter().chain([made.clone()]).chain(after).collect();
        match Extent::laid(slices, as_of) {
            Some(extent) => Slice::whole(Arc::new(extent)),
            None => made,
        }
    }
}

/// Whether no two of them say the same of different places.
fn all_agree(slices: &[Slice]) -> bool {
    let mut said = crate::promql::annotations::Annotations::default();
    slices.iter().all(|slice| {
        let agrees = !said.disagrees(&slice.extent.notes);
        said.merge(slice.extent.notes.clone());
        agrees
    })
}

/// What is left of `all` without `taken`, which are in order of their starts.
fn without(all: &Range<i64>, taken: &[Range<i64>]) -> Vec<Range<i64>> {
    let mut left = Vec::new();
    let mut from = all.start;
    for taken in taken.iter().filter(|taken| !taken.is_empty()) {
        if from < taken.start.min(all.end) {
            left.push(from..taken.start.min(all.end));
        }
        from = from.max(taken.end);
    }
    if from < all.end {
        left.push(from..all.end);
    }
    left
}
