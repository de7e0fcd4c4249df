//! Functions that take a sample as it is, or only ask whether and how many there are.

use std::{cmp::Ordering, sync::Arc};

use super::{
    RangeInput, put_histogram,
    window::{self, Window},
};
use crate::promql::{exec::rows::Row, histogram::FloatHistogram};

/// A sample of either kind, and when it was.
enum Picked<'a> {
    Float(i64, f64),
    Histogram(i64, &'a Arc<FloatHistogram>),
}

/// `last_over_time`
pub(super) fn last(input: &RangeInput<'_>, out: &mut Row) {
    window::for_each(input, |step, window| put(newest(&window), step, out));
}

/// `first_over_time`
pub(super) fn first(input: &RangeInput<'_>, out: &mut Row) {
    window::for_each(input, |step, window| put(oldest(&window), step, out));
}

/// `ts_of_last_over_time`
pub(super) fn time_of_last(input: &RangeInput<'_>, out: &mut Row) {
    window::for_each(input, |step, window| put_time(newest(&window), step, out));
}

/// `ts_of_first_over_time`
pub(super) fn time_of_first(input: &RangeInput<'_>, out: &mut Row) {
    window::for_each(input, |step, window| put_time(oldest(&window), step, out));
}

/// `count_over_time`
pub(super) fn count(input: &RangeInput<'_>, out: &mut Row) {
    #[expect(clippy::cast_precision_loss, reason = "windows hold fewer than 2^53 samples")]
    window::for_each(input, |step, window| {
        out.floats[step] = (window.values.len() + window.histograms.len()) as f64;
    });
}

/// `present_over_time`
pub(super) fn present(input: &RangeInput<'_>, out: &mut Row) {
    window::for_each(input, |step, _| out.floats[step] = 1.0);
}

fn newest<'a>(window: &Window<'a>) -> Option<Picked<'a>> {
    pick(window.times.last(), window.values.last(), window.histograms.last(), Ordering::Greater)
}

fn oldest<'a>(window: &Window<'a>) -> Option<Picked<'a>> {
    pick(window.times.first(), window.values.first(), window.histograms.first(), Ordering::Less)
}

/// Of a float and a histogram the one whose time is on the `preferred` side of the other's.
fn pick<'a>(
    time: Option<&i64>,
    value: Option<&f64>,
    histogram: Option<&'a (i64, Arc<FloatHistogram>)>,
    preferred: Ordering,
) -> Option<Picked<'a>> {
    match (time.zip(value), histogram) {
        (Some((t, _)), Some((at, histogram))) if at.cmp(t) == preferred => {
            Some(Picked::Histogram(*at, histogram))
        }
        (Some((t, value)), Some(_) | None) => Some(Picked::Float(*t, *value)),
        (None, Some((at, histogram))) => Some(Picked::Histogram(*at, histogram)),
        (None, None) => None,
    }
}

fn put(picked: Option<Picked<'_>>, step: usize, out: &mut Row) {
    match picked {
        Some(Picked::Float(_, value)) => out.floats[step] = value,
        Some(Picked::Histogram(_, histogram)) => put_histogram(out, step, Arc::clone(histogram)),
        None => {}
    }
}

fn put_time(picked: Option<Picked<'_>>, step: usize, out: &mut Row) {
    if let Some(Picked::Float(t, _) | Picked::Histogram(t, _)) = picked {
        out.floats[step] = seconds(t);
    }
}

/// A time as PromQL shows it.
#[expect(clippy::cast_precision_loss, reason = "times are shown as floats, as in Prometheus")]
pub(super) fn seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}
