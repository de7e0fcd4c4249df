//! A window over samples with gaps: which are in it, and what of a gap that an edge of it cuts.

use crate::{promql::functions::range::RangeInput, storage::Gap};

/// A sample, or where one would be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) time: i64,
    pub(super) value: f64,
}

/// A gap that an edge of a window lies in, with the samples beside it.
///
/// What lies in it is taken as evenly apart and on a line, and numbered from 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) gap: Gap,
    pub(super) from: Point,
    pub(super) to: Point,
    /// The first number that is in the window.
    first: u64,
    /// The last one, which is not less.
    last: u64,
}

/// One step's window.
#[derive(Debug)]
pub(super) struct View<'a> {
    /// All of the series.
    pub(super) times: &'a [i64],
    pub(super) values: &'a [f64],
    pub(super) gaps: &'a [Gap],
    /// The first kept sample in the window and the first after it.
    pub(super) low: usize,
    pub(super) high: usize,
    /// What the window begins in, if something of it is in the window and a kept sample comes after it.
    pub(super) begin: Option<Cut>,
    /// What the window ends in, if something of it is in the window and a kept sample comes before it.
    pub(super) end: Option<Cut>,
    /// What all of the window is in.
    pub(super) within: Option<Cut>,
    /// The window is later than this …
    pub(super) after: i64,
    /// … up to and including this.
    pub(super) until: i64,
}

impl Cut {
    /// What of the gap before sample number `i` is in a window; none if that is nothing.
    fn of(input: &RangeInput<'_>, gaps: &[Gap], i: usize, after: i64, until: i64) -> Option<Self> {
        let gap = gaps.get(i).copied().filter(|gap| gap.count > 0)?;
        let point = |i: usize| Point { time: input.timestamps[i], value: input.values[i] };
        let (from, to) = (point(i.checked_sub(1)?), point(i));
        let way = i128::from(to.time) - i128::from(from.time);
        // How many there are up to a time.
        let up_to = |time: i64| {
            let passed = (i128::from(time) - i128::from(from.time)) * i128::from(gap.count + 1);
            u64::try_from(passed.div_euclid(way.max(1))).unwrap_or(0).min(gap.count)
        };
        let (first, last) = (up_to(after) + 1, up_to(until));
        (first <= last).then_some(Self { gap, from, to, first, last })
    }

    /// How many there are in the window.
    fn inside(&self) -> u64 {
        self.last + 1 - self.first
    }

    /// What they add up to.
    pub(super) fn sum(&self) -> f64 {
        self.gap.sum / float(self.gap.count) * float(self.inside())
    }

    /// Where one of them would be.
    fn point(&self, number: u64) -> Point {
        let part = float(number) / float(self.gap.count + 1);
        let (way, passed) = (self.to.time - self.from.time, i128::from(number));
        let time = i128::from(way) * passed / i128::from(self.gap.count + 1);
        Point {
            time: self.from.time.saturating_add(i64::try_from(time).unwrap_or(way)),
            value: self.from.value + (self.to.value - self.from.value) * part,
        }
    }
}

impl<'a> View<'a> {
    /// The window of a step, with the bounds that its frame has for it.
    pub(super) fn of(
        input: &RangeInput<'a>,
        gaps: &'a [Gap],
        step: usize,
        (low, high): (usize, usize),
    ) -> Self {
        let until = input.windows.end(input.steps, step);
        let after = until.saturating_sub(input.range_ms);
        let cut = |i: usize| Cut::of(input, gaps, i, after, until);
        let is_empty = low == high;
        Self {
            times: input.timestamps,
            values: input.values,
            gaps,
            low,
            high,
            begin: if is_empty { None } else { cut(low) },
            end: if is_empty { None } else { cut(high) },
            within: if is_empty { cut(low) } else { None },
            after,
            until,
        }
    }

    /// The gaps that are cut, of which something is in the window.
    pub(super) fn cuts(&self) -> impl Iterator<Item = &Cut> {
        self.begin.iter().chain(&self.within).chain(&self.end)
    }

    /// Whether there are such.
    pub(super) fn is_cut(&self) -> bool {
        self.cuts().next().is_some()
    }

    /// Those with the part of their way, from the one kept sample to the other, that lies in the window.
    pub(super) fn shares(&self) -> impl Iterator<Item = (&Cut, f64)> {
        let share = |ways: u64, cut: &Cut| float(ways) / float(cut.gap.count + 1);
        let at_edge = self.begin.iter().chain(&self.end);
        let at_edge = at_edge.map(move |cut| (cut, share(cut.inside(), cut)));
        at_edge.chain(self.within.iter().map(move |cut| (cut, share(cut.inside() - 1, cut))))
    }

    /// The ways between the kept samples in the window, each with the number of the one at its end.
    pub(super) fn ways(&self) -> impl Iterator<Item = (usize, Gap)> {
        (self.low + 1..self.high).map(|i| (i, self.gaps[i].way(self.values[i - 1], self.values[i])))
    }

    /// How many samples there are, kept or not.
    pub(super) fn count(&self) -> u64 {
        let whole: u64 = (self.low + 1..self.high).map(|i| self.gaps[i].count).sum();
        (self.high - self.low) as u64 + whole + self.cuts().map(Cut::inside).sum::<u64>()
    }

    /// Whether the first sample of the window is a kept one.
    pub(super) fn begins_with_kept(&self) -> bool {
        self.begin.is_none() && self.within.is_none()
    }

    /// Whether the last one is.
    pub(super) fn ends_with_kept(&self) -> bool {
        self.end.is_none() && self.within.is_none()
    }

    /// The first sample of a window that is not empty.
    pub(super) fn first(&self) -> Point {
        match self.begin.as_ref().or(self.within.as_ref()) {
            Some(cut) => cut.point(cut.first),
            None => self.kept(self.low),
        }
    }

    /// The last one.
    pub(super) fn last(&self) -> Point {
        match self.end.as_ref().or(self.within.as_ref()) {
            Some(cut) => cut.point(cut.last),
            None => self.kept(self.high - 1),
        }
    }

    fn kept(&self, i: usize) -> Point {
        Point { time: self.times[i], value: self.values[i] }
    }

    /// The first kept sample of a window that is not empty, or the one before the gap that it is within.
    pub(super) fn oldest(&self) -> usize {
        if self.low == self.high { self.low - 1 } else { self.low }
    }

    /// The last one.
    pub(super) fn newest(&self) -> usize {
        self.high - 1
    }

    /// The gap in which the last of the window's samples lies, or which that comes right after.
    pub(super) fn latest_gap(&self) -> Option<Cut> {
        let last = self.high.checked_sub(1)?;
        if let Some(cut) = self.end.or(self.within) {
            return Some(cut);
        }
        if last > self.low {
            let gap = self.gaps[last];
            return (gap.count > 0).then(|| Cut {
                gap,
                from: self.kept(last - 1),
                to: self.kept(last),
                first: 1,
                last: gap.count,
            });
        }
        self.begin
    }
}

/// A count as a float.
#[expect(clippy::cast_precision_loss, reason = "series have fewer than 2^53 samples")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}
