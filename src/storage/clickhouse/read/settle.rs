//! Which of several samples at one time counts.
//!
//! The tables keep whatever was written; which row counts is decided here, when they are read, alike on
//! every pod and however the rows came in. Of two samples of a series at the same time the greater counts:
//!
//! ```text
//! stale marker  <  other NaN  <  −Inf  <  …  <  −0  <  +0  <  …  <  +Inf  <  histogram
//! ```
//!
//! * Among stale markers and other NaN the one with the greater bits counts.
//! * Equal bits are one sample; its start timestamp is the greatest of those written.
//! * A histogram that is a stale marker loses against any other, and against a float that is a number.
//! * Of two histograms the one with the greater count counts, then the greater sum by the order of
//!   floats above, then whatever is greater in the order of the columns, so that there is always one.

use std::{cmp::Ordering, sync::Arc};

use crate::{
    model::{
        Histogram, STALE_NAN_BITS,
        histogram::{Counts, Span},
    },
    storage::{HistogramSample, SeriesSamples},
};

/// Orders values by what counts when they meet at one time.
pub(in crate::storage::clickhouse) fn by_weight(a: f64, b: f64) -> Ordering {
    class(a)
        .cmp(&class(b))
        .then_with(|| if a.is_nan() { a.to_bits().cmp(&b.to_bits()) } else { a.total_cmp(&b) })
}

fn class(value: f64) -> u8 {
    if value.to_bits() == STALE_NAN_BITS { 0 } else { 1 + u8::from(!value.is_nan()) }
}

/// Brings the floats of a series into time order, and leaves of each time the one that counts.
pub(super) fn settle_floats(samples: &mut SeriesSamples) {
    if samples.timestamps.is_sorted_by(|a, b| a < b) {
        return;
    }
    let mut rows: Vec<(i64, f64, i64)> = (0..samples.timestamps.len())
        .map(|i| (samples.timestamps[i], samples.values[i], samples.start(i)))
        .collect();
    // The greatest of each time last.
    rows.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| by_weight(a.1, b.1)).then_with(|| a.2.cmp(&b.2)));
    samples.timestamps.clear();
    samples.values.clear();
    samples.starts.clear();
    for (i, (at, value, start)) in rows.iter().enumerate() {
        if rows.get(i + 1).is_none_or(|next| next.0 != *at) {
            samples.push(*at, *value, *start);
        }
    }
}

/// The same for histograms.
pub(super) fn settle_histograms(samples: &mut Vec<HistogramSample>) {
    if samples.is_sorted_by(|a, b| a.timestamp < b.timestamp) {
        return;
    }
    samples.sort_by(|a, b| {
        a.timestamp
            .cmp(&b.timestamp)
            .then_with(|| histograms_by_weight(&a.histogram, &b.histogram))
            .then_with(|| a.start.cmp(&b.start))
    });
    let mut settled: Vec<HistogramSample> = Vec::with_capacity(samples.len());
    for sample in samples.drain(..) {
        match settled.last_mut() {
            Some(last) if last.timestamp == sample.timestamp => *last = sample,
            Some(_) | None => settled.push(sample),
        }
    }
    *samples = settled;
}

/// Leaves of each time the float or the histogram; both are settled.
pub(super) fn settle_kinds(samples: &mut SeriesSamples) {
    if samples.histograms.is_empty() || samples.timestamps.is_empty() {
        return;
    }
    let floats = std::mem::take(samples);
    let mut histograms = floats.histograms.iter().peekable();
    for (i, at) in floats.timestamps.iter().enumerate() {
        while let Some(histogram) = histograms.next_if(|h| h.timestamp < *at) {
            samples.histograms.push(histogram.clone());
        }
        match histograms.next_if(|h| h.timestamp == *at) {
            Some(histogram) if !histogram.histogram.is_stale() || floats.values[i].is_nan() => {
                samples.histograms.push(histogram.clone());
            }
            Some(_) | None => samples.push(*at, floats.values[i], floats.start(i)),
        }
    }
    samples.histograms.extend(histograms.cloned());
}

/// Orders histograms by what counts when they meet at one time.
fn histograms_by_weight(a: &Arc<Histogram>, b: &Arc<Histogram>) -> Ordering {
    let (x, y) = (heads(a), heads(b));
    let spans = |a: &[Span], b: &[Span]| {
        a.iter().map(|s| (s.offset, s.length)).cmp(b.iter().map(|s| (s.offset, s.length)))
    };
    (!a.is_stale())
        .cmp(&!b.is_stale())
        .then_with(|| by_weight(x.0, y.0))
        .then_with(|| by_weight(a.sum, b.sum))
        .then_with(|| by_weight(x.1, y.1))
        .then_with(|| x.2.cmp(&y.2))
        .then_with(|| (a.reset_hint as u8).cmp(&(b.reset_hint as u8)))
        .then_with(|| a.schema.cmp(&b.schema))
        .then_with(|| by_weight(a.zero_threshold, b.zero_threshold))
        .then_with(|| spans(&a.positive_spans, &b.positive_spans))
        .then_with(|| spans(&a.negative_spans, &b.negative_spans))
        .then_with(|| buckets(a, b))
        .then_with(|| floats(&a.custom_values, &b.custom_values))
}

/// A histogram's count, count of zeroes and kind.
fn heads(histogram: &Histogram) -> (f64, f64, u8) {
    match &histogram.counts {
        Counts::Integer { count, zero_count, .. } => (approximate(*count), approximate(*zero_count), 0),
        Counts::Float { count, zero_count, .. } => (*count, *zero_count, 1),
    }
}

#[expect(clippy::cast_precision_loss, reason = "whole counts are compared exactly afterwards")]
fn approximate(count: u64) -> f64 {
    count as f64
}

fn buckets(a: &Histogram, b: &Histogram) -> Ordering {
    match (&a.counts, &b.counts) {
        (
            Counts::Integer { count, zero_count, positive, negative },
            Counts::Integer { count: c, zero_count: z, positive: p, negative: n },
        ) => (count, zero_count, positive, negative).cmp(&(c, z, p, n)),
        (Counts::Float { positive, negative, .. }, Counts::Float { positive: p, negative: n, .. }) => {
            floats(positive, p).then_with(|| floats(negative, n))
        }
        (Counts::Integer { .. }, Counts::Float { .. }) | (Counts::Float { .. }, Counts::Integer { .. }) => {
            Ordering::Equal
        }
    }
}

fn floats(a: &[f64], b: &[f64]) -> Ordering {
    let different = a.iter().zip(b).map(|(a, b)| by_weight(*a, *b)).find(|order| order.is_ne());
    different.unwrap_or_else(|| a.len().cmp(&b.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{histogram::ResetHint, stale_nan};

    fn floats_of(rows: &[(i64, f64, i64)]) -> SeriesSamples {
        let mut samples = SeriesSamples::default();
        rows.iter().for_each(|(at, value, start)| samples.push(*at, *value, *start));
        samples
    }

    fn histogram(count: u64, sum: f64) -> Arc<Histogram> {
        Arc::new(Histogram {
            schema: 0,
            zero_threshold: 0.0,
            sum,
            reset_hint: ResetHint::Unknown,
            positive_spans: Vec::new(),
            negative_spans: Vec::new(),
            counts: Counts::Integer { count, zero_count: count, positive: Vec::new(), negative: Vec::new() },
            custom_values: Vec::new(),
        })
    }

    #[test]
    fn the_greatest_counts_in_whatever_order_they_came() {
        let order = [
            stale_nan(),
            f64::from_bits(STALE_NAN_BITS + 1),
            f64::NAN,
            f64::from_bits(0xfff0_0000_0000_0001),
            f64::NEG_INFINITY,
            -1.0,
            -0.0,
            0.0,
            1.0,
            f64::INFINITY,
        ];
        for (i, low) in order.iter().enumerate() {
            for high in &order[i + 1..] {
                assert_eq!(by_weight(*low, *high), Ordering::Less, "{low} {high}");
                for pair in [[*low, *high], [*high, *low]] {
                    let mut samples = floats_of(&[(5, pair[0], 0), (5, pair[1], 0), (1, 2.0, 0)]);
                    settle_floats(&mut samples);
                    assert_eq!(samples.timestamps, [1, 5]);
                    assert_eq!(samples.values[1].to_bits(), high.to_bits());
                }
            }
        }
    }

    #[test]
    fn equal_values_are_one_sample_with_the_latest_start() {
        let mut samples = floats_of(&[(1, 2.0, 0), (1, 2.0, 7), (1, 2.0, 3), (2, 1.0, 0)]);
        settle_floats(&mut samples);
        assert_eq!(samples, floats_of(&[(1, 2.0, 7), (2, 1.0, 0)]));
    }

    #[test]
    fn a_histogram_counts_more_than_a_float_unless_it_is_stale() {
        let at = |timestamp, histogram| HistogramSample { timestamp, start: 0, histogram };
        let (some, stale) = (histogram(3, 1.0), histogram(0, stale_nan()));
        let mut samples = floats_of(&[(1, 1.0, 4), (2, 2.0, 0), (3, stale_nan(), 0), (9, 9.0, 0)]);
        samples.histograms = vec![
            at(0, Arc::clone(&some)),
            at(1, Arc::clone(&some)),
            at(2, Arc::clone(&stale)),
            at(3, stale),
            at(10, some),
        ];
        settle_kinds(&mut samples);
        assert_eq!(samples.timestamps, [2, 9]);
        assert_eq!(samples.starts, Vec::<i64>::new());
        assert_eq!(samples.histograms.iter().map(|h| h.timestamp).collect::<Vec<_>>(), [0, 1, 3, 10]);
    }

    #[test]
    fn histograms_in_conflict_are_settled_alike_both_ways() {
        let at = |timestamp, histogram: &Arc<Histogram>| HistogramSample {
            timestamp,
            start: 0,
            histogram: Arc::clone(histogram),
        };
        let order = [
            histogram(0, stale_nan()),
            histogram(1, f64::NAN),
            histogram(1, 0.5),
            histogram(u64::MAX - 1, 0.5),
            histogram(u64::MAX, 0.5),
        ];
        for (i, low) in order.iter().enumerate() {
            for high in &order[i + 1..] {
                for pair in [[low, high], [high, low]] {
                    let mut samples = vec![at(3, pair[0]), at(3, pair[1]), at(2, low)];
                    settle_histograms(&mut samples);
                    assert_eq!(samples.len(), 2);
                    assert!(samples[1].histogram.same_bits(high));
                }
            }
        }
    }
}
