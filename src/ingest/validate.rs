//! What a series and a histogram must be to be written.
//!
//! What is refused is refused alone: a bad series takes its own samples with it and nothing else, a
//! bad histogram only itself.

use super::{IngestLimits, outcome::Reason};
use crate::model::{
    Histogram, Labels, LabelsError, METRIC_NAME,
    histogram::{CUSTOM_BUCKETS_SCHEMA, Counts, Span},
};

/// Whether labels have to come sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// They are sorted here.
    Any,
    /// They must be.
    Sorted,
}

/// Checks one label and takes it; one without a value is as good as not there.
pub(crate) fn take_pair<'a>(
    pairs: &mut Vec<(&'a str, &'a str)>,
    name: &'a [u8],
    value: &'a [u8],
    limits: &IngestLimits,
) -> Result<(), Reason> {
    if name.is_empty() {
        return Err(Reason::EmptyLabelName);
    }
    if value.is_empty() {
        return Ok(());
    }
    if pairs.len() >= limits.max_labels {
        return Err(Reason::TooManyLabels);
    }
    if name.len() > limits.max_label_name_bytes {
        return Err(Reason::LongLabelName);
    }
    if value.len() > limits.max_label_value_bytes {
        return Err(Reason::LongLabelValue);
    }
    match (str::from_utf8(name), str::from_utf8(value)) {
        (Ok(name), Ok(value)) => pairs.push((name, value)),
        _ => return Err(Reason::NotUtf8),
    }
    Ok(())
}

/// Makes labels of pairs that have been taken.
pub(crate) fn labels(pairs: &mut [(&str, &str)], order: Order) -> Result<Labels, Reason> {
    match order {
        Order::Any => pairs.sort_unstable(),
        Order::Sorted if !pairs.is_sorted_by(|a, b| a.0 <= b.0) => return Err(Reason::UnsortedLabels),
        Order::Sorted => {}
    }
    Labels::from_pairs(pairs.iter().copied()).map_err(|error| match error {
        LabelsError::Duplicate(_) => Reason::DuplicateLabel,
        LabelsError::EmptyName => Reason::EmptyLabelName,
        LabelsError::NotCanonical => Reason::BadLabels,
    })
}

/// Makes the labels of a series, which has to have a name.
pub(crate) fn series_labels(pairs: &mut [(&str, &str)], order: Order) -> Result<Labels, Reason> {
    let labels = labels(pairs, order)?;
    if labels.get(METRIC_NAME).is_none() {
        return Err(Reason::NoMetricName);
    }
    Ok(labels)
}

/// What is wrong with a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadHistogram {
    /// No such resolution.
    #[error("unknown schema")]
    Schema,
    /// The spans speak of more or fewer buckets than there are.
    #[error("spans and buckets differ in number")]
    SpansMismatch,
    /// A span goes back, or out of the range of bucket numbers.
    #[error("a span's offset is out of range")]
    SpanOffset,
    /// Fewer than no observations.
    #[error("a count is negative")]
    NegativeCount,
    /// The buckets hold more or fewer observations than the histogram.
    #[error("the count is not the sum of the buckets")]
    CountMismatch,
    /// A number that does not fit.
    #[error("a count is too large")]
    Overflow,
    /// Bounds where there are no custom buckets.
    #[error("custom bounds on exponential buckets")]
    UnexpectedBounds,
    /// Bounds that do not rise, or an infinite or NaN one.
    #[error("custom bounds are not finite and rising")]
    Bounds,
    /// More buckets than the bounds make.
    #[error("more buckets than custom bounds make")]
    TooFewBounds,
    /// A zero bucket or negative buckets with custom bounds.
    #[error("zero or negative buckets with custom bounds")]
    NotCustom,
}

/// The finest resolution that is stored; finer ones are brought down to it.
const MAX_SCHEMA: i32 = 8;
/// The finest resolution there is.
const MAX_WIRE_SCHEMA: i32 = 52;

/// Checks a histogram, and brings one of higher resolution than is stored down.
pub(crate) fn histogram(mut histogram: Histogram) -> Result<Histogram, BadHistogram> {
    match histogram.schema {
        CUSTOM_BUCKETS_SCHEMA => check_custom(&histogram)?,
        -4..=MAX_WIRE_SCHEMA if !histogram.custom_values.is_empty() => {
            return Err(BadHistogram::UnexpectedBounds);
        }
        -4..=MAX_WIRE_SCHEMA => {}
        _ => return Err(BadHistogram::Schema),
    }
    check_counts(&histogram)?;
    if (MAX_SCHEMA + 1..=MAX_WIRE_SCHEMA).contains(&histogram.schema) {
        reduce(&mut histogram)?;
    }
    Ok(histogram)
}

fn check_custom(histogram: &Histogram) -> Result<(), BadHistogram> {
    let no_negatives = match &histogram.counts {
        Counts::Integer { zero_count, negative, .. } => *zero_count == 0 && negative.is_empty(),
        Counts::Float { zero_count, negative, .. } => *zero_count == 0.0 && negative.is_empty(),
    };
    if !no_negatives || histogram.zero_threshold != 0.0 || !histogram.negative_spans.is_empty() {
        return Err(BadHistogram::NotCustom);
    }
    let bounds = &histogram.custom_values;
    if !bounds.iter().all(|bound| bound.is_finite()) || !bounds.is_sorted_by(|a, b| a < b) {
        return Err(BadHistogram::Bounds);
    }
    if histogram.positive_spans.first().is_some_and(|span| span.offset < 0) {
        return Err(BadHistogram::SpanOffset);
    }
    let mut reach = 0_u64;
    for span in &histogram.positive_spans {
        reach += u64::from(span.offset.unsigned_abs()) + u64::from(span.length);
    }
    if reach > bounds.len() as u64 + 1 {
        return Err(BadHistogram::TooFewBounds);
    }
    Ok(())
}

fn check_counts(histogram: &Histogram) -> Result<(), BadHistogram> {
    let (positive_spans, negative_spans) = (&histogram.positive_spans, &histogram.negative_spans);
    match &histogram.counts {
        Counts::Integer { count, zero_count, positive, negative } => {
            check_spans(positive_spans, positive.len())?;
            check_spans(negative_spans, negative.len())?;
            let mut sum = *zero_count;
            for deltas in [positive, negative] {
                sum = sum.checked_add(sum_of_deltas(deltas)?).ok_or(BadHistogram::Overflow)?;
            }
            // NaN observations are in the count and in no bucket.
            let fits = if histogram.sum.is_nan() { sum <= *count } else { sum == *count };
            if !fits {
                return Err(BadHistogram::CountMismatch);
            }
        }
        Counts::Float { count, zero_count, positive, negative } => {
            check_spans(positive_spans, positive.len())?;
            check_spans(negative_spans, negative.len())?;
            // The sum is not compared: it is not exact.
            let mut counts = positive.iter().chain(negative).chain([count, zero_count]);
            if counts.any(|count| *count < 0.0) {
                return Err(BadHistogram::NegativeCount);
            }
        }
    }
    Ok(())
}

/// Checks that the spans speak of `buckets` buckets and stay within the numbers a bucket can have.
fn check_spans(spans: &[Span], buckets: usize) -> Result<(), BadHistogram> {
    let mut total = 0_u64;
    let mut end = 0_i64;
    for (i, span) in spans.iter().enumerate() {
        if i > 0 && span.offset < 0 {
            return Err(BadHistogram::SpanOffset);
        }
        total += u64::from(span.length);
        end = end.saturating_add(i64::from(span.offset)).saturating_add(i64::from(span.length));
    }
    if total != buckets as u64 {
        return Err(BadHistogram::SpansMismatch);
    }
    if i32::try_from(end).is_err() {
        return Err(BadHistogram::SpanOffset);
    }
    Ok(())
}

/// The sum of buckets that are given as differences, none of which may be negative.
fn sum_of_deltas(deltas: &[i64]) -> Result<u64, BadHistogram> {
    let mut bucket = 0_i64;
    let mut sum = 0_u64;
    for delta in deltas {
        bucket = bucket.checked_add(*delta).ok_or(BadHistogram::Overflow)?;
        let count = u64::try_from(bucket).map_err(|_| BadHistogram::NegativeCount)?;
        sum = sum.checked_add(count).ok_or(BadHistogram::Overflow)?;
    }
    Ok(sum)
}

/// Brings a histogram down to [`MAX_SCHEMA`]: each step of resolution merges buckets by two.
fn reduce(histogram: &mut Histogram) -> Result<(), BadHistogram> {
    let steps = histogram.schema - MAX_SCHEMA;
    match &mut histogram.counts {
        Counts::Integer { positive, negative, .. } => {
            for (spans, deltas) in
                [(&mut histogram.positive_spans, positive), (&mut histogram.negative_spans, negative)]
            {
                let counts = deltas.iter().scan(0, |bucket, delta| {
                    *bucket += delta;
                    Some(*bucket)
                });
                let (merged_spans, merged) = merge(spans, counts, steps, |a: i64, b| a.checked_add(b))?;
                let before = std::iter::once(0).chain(merged.iter().copied());
                *deltas = merged.iter().zip(before).map(|(count, before)| count - before).collect();
                *spans = merged_spans;
            }
        }
        Counts::Float { positive, negative, .. } => {
            for (spans, counts) in
                [(&mut histogram.positive_spans, positive), (&mut histogram.negative_spans, negative)]
            {
                let (merged_spans, merged) =
                    merge(spans, counts.iter().copied(), steps, |a: f64, b| Some(a + b))?;
                *counts = merged;
                *spans = merged_spans;
            }
        }
    }
    histogram.schema = MAX_SCHEMA;
    Ok(())
}

/// Merges buckets that become one `steps` resolutions lower. Spans and counts have been checked.
fn merge<N: Copy>(
    spans: &[Span],
    mut counts: impl Iterator<Item = N>,
    steps: i32,
    add: impl Fn(N, N) -> Option<N>,
) -> Result<(Vec<Span>, Vec<N>), BadHistogram> {
    let mut merged_spans: Vec<Span> = Vec::new();
    let mut merged: Vec<N> = Vec::new();
    // The number of the last merged bucket.
    let mut last: Option<i64> = None;
    let mut number = 0_i64;
    for span in spans {
        number += i64::from(span.offset);
        for count in counts.by_ref().take(span.length as usize) {
            // Bucket n ends at base^n, and belongs to what ends there or next above.
            let target = ((number - 1) >> steps.min(63)) + 1;
            number += 1;
            match (last, merged.last_mut(), merged_spans.last_mut()) {
                (Some(before), Some(sum), _) if before == target => {
                    *sum = add(*sum, count).ok_or(BadHistogram::Overflow)?;
                    continue;
                }
                (Some(before), _, Some(span)) if before + 1 == target => span.length += 1,
                (before, _, _) => {
                    let gap = target - before.map_or(0, |before| before + 1);
                    let offset = i32::try_from(gap).map_err(|_| BadHistogram::SpanOffset)?;
                    merged_spans.push(Span { offset, length: 1 });
                }
            }
            merged.push(count);
            last = Some(target);
        }
    }
    Ok((merged_spans, merged))
}

#[cfg(test)]
mod tests;
