//! Windows of samples, each reduced to what range functions need of it.
//!
//! ```text
//!  (end - resolution ·first ─── … ─── last· end]   count, sum, min, max, resets, before_resets
//! ```
//!
//! Windows next to each other make a longer one: counts and sums add up, and between the last sample of
//! one and the first of the next there may be a reset that neither saw. So a function over any number of
//! whole windows is what it is over their samples: to the bit, but for sums, whose terms are added in
//! another order.
//!
//! `rate` and its like extrapolate as the query engine does; the formula stands here again, because a
//! store names nothing above it. The tests hold both against each other.

use crate::storage::WindowFunction;

/// The samples of one series in one window; there is at least one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Window {
    /// Where it ends, that instant included.
    pub(super) end: i64,
    pub(super) count: u64,
    pub(super) sum: Sum,
    /// Not a number only if none is.
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) first: f64,
    pub(super) last: f64,
    pub(super) first_ts: i64,
    pub(super) last_ts: i64,
    /// How often a value was below the one before it.
    pub(super) resets: u64,
    /// The values before those, added up.
    pub(super) before_resets: f64,
}

/// A sum that remembers what rounding takes from it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    pub(super) fn of(sum: f64) -> Self {
        Self { sum, lost: 0.0 }
    }

    fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        if sum.is_finite() {
            self.lost += if self.sum.abs() >= value.abs() {
                (self.sum - sum) + value
            } else {
                (value - sum) + self.sum
            };
        } else {
            self.lost = 0.0;
        }
        self.sum = sum;
    }

    fn value(self) -> f64 {
        self.sum + self.lost
    }
}

/// The end of the window that a time is in.
pub(super) fn end_of(at: i64, resolution: i64) -> i64 {
    let begun = at.rem_euclid(resolution);
    if begun == 0 { at } else { at.saturating_add(resolution - begun) }
}

/// Adds a sample that is later than all of `windows`.
pub(super) fn add(windows: &mut Vec<Window>, resolution: i64, at: i64, value: f64) {
    let end = end_of(at, resolution);
    match windows.last_mut() {
        Some(window) if window.end == end => window.add(at, value),
        Some(_) | None => windows.push(Window::of(end, at, value)),
    }
}

impl Window {
    /// A window with one sample.
    fn of(end: i64, at: i64, value: f64) -> Self {
        Self {
            end,
            count: 1,
            sum: Sum::of(value),
            min: value,
            max: value,
            first: value,
            last: value,
            first_ts: at,
            last_ts: at,
            resets: 0,
            before_resets: 0.0,
        }
    }

    fn add(&mut self, at: i64, value: f64) {
        self.follow(&Self::of(self.end, at, value));
    }

    /// Makes this window and the next one that has samples one.
    fn follow(&mut self, next: &Self) {
        if next.first < self.last {
            self.resets += 1;
            self.before_resets += self.last;
        }
        self.resets += next.resets;
        self.before_resets += next.before_resets;
        self.count += next.count;
        self.sum.add(next.sum.value());
        if next.min < self.min || self.min.is_nan() {
            self.min = next.min;
        }
        if next.max > self.max || self.max.is_nan() {
            self.max = next.max;
        }
        (self.end, self.last, self.last_ts) = (next.end, next.last, next.last_ts);
    }
}

/// Whether [`evaluate`] knows a function.
pub(super) fn can(function: WindowFunction) -> bool {
    use WindowFunction as F;
    match function {
        F::Rate
        | F::Increase
        | F::Delta
        | F::Resets
        | F::Avg
        | F::Sum
        | F::Min
        | F::Max
        | F::Count
        | F::Last
        | F::Present => true,
        F::Irate | F::Idelta | F::Deriv | F::Changes => false,
    }
}

/// A function of the samples in `(after, end]`, which are those of `windows`, in time order.
pub(super) fn evaluate(function: WindowFunction, windows: &[Window], after: i64, end: i64) -> Option<f64> {
    use WindowFunction as F;
    let (first, others) = windows.split_first()?;
    let mut all = *first;
    others.iter().for_each(|window| all.follow(window));
    match function {
        F::Rate => Some(grown(&all, true, after, end)? / seconds(end - after)),
        F::Increase => grown(&all, true, after, end),
        F::Delta => grown(&all, false, after, end),
        F::Resets => Some(float(all.resets)),
        F::Avg => Some(all.sum.value() / float(all.count)),
        F::Sum => Some(all.sum.value()),
        F::Min => Some(all.min),
        F::Max => Some(all.max),
        F::Count => Some(float(all.count)),
        F::Last => Some(all.last),
        F::Present => Some(1.0),
        F::Irate | F::Idelta | F::Deriv | F::Changes => None,
    }
}

/// What a series grew by between the first and the last sample, stretched to the edges `after` and `end`.
///
/// An edge that is nearer than 1.1 average distances is reached, else half a distance is added; and a
/// counter is not followed back beyond where it would have been zero.
fn grown(all: &Window, counter: bool, after: i64, end: i64) -> Option<f64> {
    if all.count < 2 {
        return None;
    }
    let growth = all.last - all.first + if counter { all.before_resets } else { 0.0 };
    let sampled = seconds(all.last_ts - all.first_ts);
    let average = sampled / float(all.count - 1);
    let near = average * 1.1;
    let (mut to_start, mut to_end) = (seconds(all.first_ts - after), seconds(end - all.last_ts));
    if to_start >= near {
        to_start = average / 2.0;
    }
    if counter && growth > 0.0 && all.first >= 0.0 {
        let to_zero = sampled * (all.first / growth);
        if to_zero < to_start {
            to_start = to_zero;
        }
    }
    if to_end >= near {
        to_end = average / 2.0;
    }
    Some(growth * ((sampled + to_start + to_end) / sampled))
}

#[expect(clippy::cast_precision_loss, reason = "times are divided as floats, as the query engine does")]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "nobody has 2^53 samples of a series")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn windows(samples: &[(i64, f64)]) -> Vec<Window> {
        let mut windows = Vec::new();
        samples.iter().for_each(|(at, value)| add(&mut windows, 5 * MINUTE, *at, *value));
        windows
    }

    #[test]
    fn a_window_has_its_end_and_not_its_start() {
        let five = 5 * MINUTE;
        for (at, end) in [(0, 0), (1, five), (five, five), (five + 1, 2 * five), (-1, 0), (-five, -five)] {
            assert_eq!(end_of(at, five), end, "{at}");
        }
        assert_eq!(end_of(i64::MAX, 5 * MINUTE), i64::MAX);
    }

    #[test]
    fn a_reset_between_two_windows_counts() {
        let windows = windows(&[(MINUTE, 5.0), (4 * MINUTE, 3.0), (6 * MINUTE, 1.0), (9 * MINUTE, 7.0)]);
        assert_eq!(windows.len(), 2);
        let of = |function| evaluate(function, &windows, 0, 10 * MINUTE).unwrap();
        assert_eq!(of(WindowFunction::Resets), 2.0);
        // From 5 down to 3 (5 is added), down to 1 (3 is added), up to 7: it grew by 10 in 8 of 10 minutes.
        // The average distance is 2:40, so both edges are near.
        assert_eq!(of(WindowFunction::Increase), 10.0 * (480.0 + 60.0 + 60.0) / 480.0);
        assert_eq!(of(WindowFunction::Delta), 2.0 * (480.0 + 60.0 + 60.0) / 480.0);
        assert_eq!(of(WindowFunction::Count), 4.0);
        assert_eq!(of(WindowFunction::Last), 7.0);
    }

    #[test]
    fn what_is_no_number_is_neither_least_nor_greatest() {
        let windows = windows(&[(1, f64::NAN), (2, 4.0), (3, f64::NAN), (6 * MINUTE, -2.0)]);
        let of = |function| evaluate(function, &windows, 0, 10 * MINUTE).unwrap();
        assert_eq!((of(WindowFunction::Min), of(WindowFunction::Max)), (-2.0, 4.0));
        assert!(of(WindowFunction::Sum).is_nan() && of(WindowFunction::Avg).is_nan());
        assert!(evaluate(WindowFunction::Max, &[Window::of(1, 1, f64::NAN)], 0, 1).unwrap().is_nan());
    }

    #[test]
    fn one_sample_has_no_rate_and_no_samples_have_nothing() {
        let one = windows(&[(1, 1.0)]);
        for function in WindowFunction::ALL.into_iter().filter(|function| can(*function)) {
            let two =
                matches!(function, WindowFunction::Rate | WindowFunction::Increase | WindowFunction::Delta);
            assert_eq!(evaluate(function, &one, 0, 5 * MINUTE).is_none(), two, "{function:?}");
            assert_eq!(evaluate(function, &[], 0, 5 * MINUTE), None);
        }
    }

    #[test]
    fn a_sum_remembers_what_it_loses_and_keeps_what_is_infinite() {
        let of = |values: &[f64]| {
            let mut sum = Sum::default();
            values.iter().for_each(|value| sum.add(*value));
            sum.value()
        };
        assert_eq!(of(&[1e100, 1.0, -1e100]), 1.0);
        assert_eq!(of(&[1.0, f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(of(&[f64::NEG_INFINITY, f64::INFINITY, 1.0]).is_nan());
    }
}
