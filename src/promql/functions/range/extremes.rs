//! The smallest and the largest value of a window, and when it was.
//!
//! A queue holds those samples that can still become the extreme of a later window: each new sample
//! throws out all before it that it beats. NaN is never an extreme unless there is nothing else.

use std::collections::VecDeque;

use super::{RangeInput, Remarks, pick::seconds, window};
use crate::promql::exec::rows::Row;

/// Which extreme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Min,
    Max,
}

impl Kind {
    fn beats(self, new: f64, old: f64) -> bool {
        match self {
            Self::Min => new < old,
            Self::Max => new > old,
        }
    }
}

/// `min_over_time`, `max_over_time`: of equal values the first.
pub(super) fn value(kind: Kind, input: &RangeInput<'_>, out: &mut Row, remarks: &mut Remarks) {
    let keep_older = |new: f64, old: f64| !kind.beats(new, old);
    for_each_extreme(input, keep_older, remarks, |step, at| out.floats[step] = input.values[at]);
}

/// `ts_of_min_over_time`, `ts_of_max_over_time`: of equal values the last.
pub(super) fn time(kind: Kind, input: &RangeInput<'_>, out: &mut Row, remarks: &mut Remarks) {
    let keep_older = |new: f64, old: f64| kind.beats(old, new);
    for_each_extreme(input, keep_older, remarks, |step, at| out.floats[step] = seconds(input.timestamps[at]));
}

/// Hands `each` the number of a step and that of the sample which is its window's extreme.
fn for_each_extreme(
    input: &RangeInput<'_>,
    keep_older: impl Fn(f64, f64) -> bool,
    remarks: &mut Remarks,
    mut each: impl FnMut(usize, usize),
) {
    let mut candidates: VecDeque<usize> = VecDeque::new();
    let mut seen = 0;
    window::for_each(input, |step, window| {
        if !remarks.floats_of(&window, 1) {
            return;
        }
        let last = window.first + window.values.len();
        for i in seen.max(window.first)..last {
            let value = input.values[i];
            if value.is_nan() {
                continue;
            }
            while candidates.back().is_some_and(|older| !keep_older(value, input.values[*older])) {
                candidates.pop_back();
            }
            candidates.push_back(i);
        }
        seen = last;
        while candidates.front().is_some_and(|i| *i < window.first) {
            candidates.pop_front();
        }
        // Nothing but NaN: the last of them.
        each(step, candidates.front().copied().unwrap_or(last - 1));
    });
}
