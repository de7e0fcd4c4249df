//! Windows over samples with gaps that look beyond their edges: `anchored` and `smoothed`.
//!
//! ```text
//! kept     ●──────────●  ●──────────●  ●──────────●
//! window        (                        ]
//!               └ left                   └ right      each on the way from a sample to the next
//! ```
//!
//! An anchored window begins and ends with the last samples at or before its edges, which are kept where the edges are
//! multiples of the resolution; a smoothed one on the lines to the next samples. Where an edge lies in a gap it is both times a
//! point on the line across it: that is an estimate.

use super::{RangeInput, rate::Kind, started_again, window::float};
use crate::{promql::functions::range::Edges, storage::Gap};

/// A place on the way from one sample to the next.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The number of the sample at or before it.
    sample: usize,
    /// How much of the way to the next has passed; that is none if there is no next.
    part: f64,
}

/// One step's window, of which something can be said.
#[derive(Debug)]
pub(super) struct Edged<'a> {
    input: &'a RangeInput<'a>,
    gaps: &'a [Gap],
    left: Place,
    right: Place,
    /// Whether one of them lies in a gap.
    is_estimate: bool,
    /// Nothing is later than where the window begins.
    is_over: bool,
    /// Whether the sample before the last is near enough, too.
    has_two: bool,
}

impl<'a> Edged<'a> {
    /// The window of a step; none if there is nothing in it and before it.
    pub(super) fn of(input: &'a RangeInput<'a>, gaps: &'a [Gap], step: usize) -> Option<Self> {
        let times = input.timestamps;
        let end = input.windows.end(input.steps, step);
        let after = end.saturating_sub(input.range_ms);
        let is_smoothed = matches!(input.edges, Edges::Smoothed(_));
        let latest = end.saturating_add(input.edges.after());
        let in_gap = |next: usize, at: i64| {
            gaps.get(next).is_some_and(|gap| gap.count > 0) && next > 0 && times[next - 1] < at
        };
        // The first samples after either edge.
        let (begin, stop) = (times.partition_point(|t| *t <= after), times.partition_point(|t| *t <= end));
        let oldest = after.saturating_sub(input.edges.before());
        let before = begin.checked_sub(1).filter(|i| times[*i] > oldest || in_gap(begin, after));
        let is_cut = [in_gap(begin, after), in_gap(stop, end)];
        let part_of = |sample: usize, at: i64, is_cut: bool| {
            let next = times.get(sample + 1).copied().filter(|next| is_cut || is_smoothed && *next <= latest);
            match next {
                Some(next) if times[sample] < at => millis(at - times[sample]) / millis(next - times[sample]),
                Some(_) | None => 0.0,
            }
        };
        let left = match before {
            Some(sample) => Place { sample, part: part_of(sample, after, is_cut[0]) },
            None if begin < stop => Place { sample: begin, part: 0.0 },
            None => return None,
        };
        let sample = stop.checked_sub(1)?;
        let right = Place { sample, part: part_of(sample, end, is_cut[1]) };
        let is_over = begin == stop && right.part == 0.0;
        let has_two = sample > 0 && (times[sample - 1] > oldest || gaps[sample].count > 0);
        Some(Self { input, gaps, left, right, is_estimate: is_cut[0] || is_cut[1], is_over, has_two })
    }

    /// How much the series grew.
    pub(super) fn growth(&self, kind: Kind) -> Option<(f64, bool)> {
        if self.is_over {
            return None;
        }
        let mut grown = self.value(self.right) - self.value(self.left);
        if kind.is_counter() {
            grown += self.total(|_, way| way.lost);
        }
        if kind == Kind::Rate {
            grown /= millis(self.input.range_ms) / 1000.0;
        }
        Some((grown, self.is_estimate))
    }

    /// How often the value changed.
    pub(super) fn changes(&self) -> (f64, bool) {
        self.events(|_, way| float(way.changes))
    }

    /// How often a counter started again.
    pub(super) fn resets(&self) -> (f64, bool) {
        self.events(|i, way| match way.count {
            0 => float(way.resets.max(u64::from(started_again(self.input, i)))),
            _ => float(way.resets),
        })
    }

    /// As of samples that are all kept: where nothing comes after the beginning, what was between the last two counts.
    fn events(&self, of_way: impl Fn(usize, &Gap) -> f64) -> (f64, bool) {
        if !self.is_over {
            return (self.total(of_way), self.is_estimate);
        }
        let last = self.right.sample;
        if !self.has_two {
            return (0.0, false);
        }
        let way = self.way(last);
        (of_way(last, &way) / float(way.count + 1), way.count > 0)
    }

    /// The way to sample number `i`.
    fn way(&self, i: usize) -> Gap {
        self.gaps[i].way(self.input.values[i - 1], self.input.values[i])
    }

    fn value(&self, at: Place) -> f64 {
        let from = self.input.values[at.sample];
        if at.part == 0.0 {
            return from;
        }
        from + (self.input.values[at.sample + 1] - from) * at.part
    }

    /// What the ways between the two places come to, those that are cut in part.
    fn total(&self, of_way: impl Fn(usize, &Gap) -> f64) -> f64 {
        let (left, right) = (self.left, self.right);
        let share = |next: usize, part: f64| match part {
            0.0 => 0.0,
            part => of_way(next, &self.way(next)) * part,
        };
        if left.sample >= right.sample {
            return share(left.sample + 1, right.part - left.part);
        }
        let whole = (left.sample + 2..=right.sample).map(|i| of_way(i, &self.way(i)));
        let first = share(left.sample + 1, 1.0 - left.part);
        whole.fold(first, |sum, way| sum + way) + share(right.sample + 1, right.part)
    }
}

#[expect(clippy::cast_precision_loss, reason = "times are divided as floats, as in Prometheus")]
fn millis(millis: i64) -> f64 {
    millis as f64
}
