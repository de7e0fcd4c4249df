//! Instant selectors: per series and step the newest sample that is not too old.
//!
//! A sample counts at an instant if it is not after it and not `lookback` or more before it. The newest
//! such sample decides: if it is the stale marker the series is gone, and no older one stands in. Between two samples that
//! are kept of more which were downsampled the older one stands for those, however long ago it is.

use std::sync::Arc;

use super::{
    context::{Context, Findings, weight},
    data::SelectedSeries,
    names::{Names, without_name},
    rows::{ABSENT, Row, SeriesRow, Steps, is_absent},
};
use crate::{
    promql::{
        QueryError, annotations,
        histogram::FloatHistogram,
        parse::Span,
        plan::{Counted, Reference, Take},
    },
    storage::{Between, SeriesSamples},
};

/// An instant selector's parameters.
#[derive(Clone, Copy, Debug)]
pub struct Instant {
    /// Seen from when.
    pub reference: Reference,
    /// How far back.
    pub lookback: i64,
    /// What of the sample.
    pub take: Take,
    /// Which statistics it goes to.
    pub counted: Counted,
    /// What becomes of the series' names.
    pub names: Names,
}

/// Evaluates a chunk of series.
pub fn chunk(
    context: &Context,
    series: &SelectedSeries,
    ordinals: std::ops::Range<usize>,
    instant: &Instant,
    steps: &Steps,
    findings: &mut Findings,
) -> Result<Vec<SeriesRow>, QueryError> {
    let mut rows = Vec::with_capacity(ordinals.len());
    let mut scratch = SeriesSamples::default();
    if instant.counted != Counted::Nowhere {
        findings.queryable.resize(steps.count, 0);
    }
    // A time is not what the metric measured.
    let renamed = instant.take.changes_meaning();
    let named = !renamed || context.settings.delayed_names || instant.names == Names::Kept;
    let delayed = context.settings.delayed_names;
    let mut newest = Newest::default();
    for ordinal in ordinals {
        context.check()?;
        let samples = series.samples(ordinal, &mut scratch)?;
        let read = u64::try_from(samples.len()).unwrap_or(u64::MAX);
        findings.count(samples, instant.reference, &context.settings);
        let loaded = series.weight(read);
        context.budget.hold(loaded)?;
        let row = if instant.take == Take::Smoothed {
            smoothed(samples, instant, steps, &mut findings.queryable)?
        } else if samples.histograms.is_empty() && samples.gaps.is_empty() {
            newest.fit(&samples.timestamps, instant, steps);
            newest.row(samples, instant.take, &mut findings.queryable)
        } else {
            row(samples, instant, steps, &mut findings.queryable)
        };
        context.budget.release(loaded);
        if looks_into_gaps(samples, instant, steps) {
            let name = series.labels[ordinal].metric_name().unwrap_or_default();
            findings.notes.info(annotations::downsampled_estimate(name), Span::default());
        }
        if let Some(row) = row {
            let held = weight(&row);
            context.budget.hold(held)?;
            findings.held += held;
            let labels = &series.labels[ordinal];
            rows.push(SeriesRow {
                labels: if named { labels.clone() } else { without_name(labels) },
                drop_name: renamed && delayed,
                row,
            });
        }
    }
    Ok(rows)
}

/// Per step the newest float sample that is not too old.
///
/// Series that are scraped together have the same times, so it is kept from one series to the next.
#[derive(Debug, Default)]
struct Newest {
    timestamps: Vec<i64>,
    /// Numbers of samples; none is [`usize::MAX`], which no sample has.
    samples: Vec<usize>,
}

impl Newest {
    /// Makes it that of samples at these times.
    fn fit(&mut self, timestamps: &[i64], instant: &Instant, steps: &Steps) {
        if self.samples.len() == steps.count && self.timestamps == timestamps {
            return;
        }
        self.timestamps.clear();
        self.timestamps.extend_from_slice(timestamps);
        self.samples.clear();
        let mut after = 0;
        for step in 0..steps.count {
            let at = instant.reference.of(steps, step);
            while timestamps.get(after).is_some_and(|t| *t <= at) {
                after += 1;
            }
            let newest =
                after.checked_sub(1).filter(|i| timestamps[*i] > at.saturating_sub(instant.lookback));
            self.samples.push(newest.unwrap_or(usize::MAX));
        }
    }

    /// One series' values over the steps, if it has any.
    fn row(&self, samples: &SeriesSamples, take: Take, queryable: &mut [u64]) -> Option<Row> {
        let mut floats = Vec::with_capacity(self.samples.len());
        let value = |i: &usize| samples.values.get(*i).copied().unwrap_or(ABSENT);
        floats.extend(self.samples.iter().map(value));
        if floats.iter().all(|value| is_absent(*value)) {
            return None;
        }
        for (count, value) in queryable.iter_mut().zip(&floats) {
            *count += u64::from(!is_absent(*value));
        }
        let places = floats.iter_mut().zip(&self.samples).filter(|(value, _)| !is_absent(**value));
        match take {
            Take::Value | Take::Smoothed => {}
            Take::Timestamp => places.for_each(|(value, i)| *value = seconds(samples.timestamps[*i])),
            Take::Start => places.for_each(|(value, i)| *value = seconds(samples.start(*i))),
        }
        Some(Row { floats, histograms: Vec::new() })
    }
}

/// One series' values over the steps, if it has any.
pub(super) fn row(
    samples: &SeriesSamples,
    instant: &Instant,
    steps: &Steps,
    queryable: &mut [u64],
) -> Option<Row> {
    if samples.is_empty() {
        return None;
    }
    let mut row = Row::absent(steps.count);
    let mut any = false;
    // The first float and histogram after the instant looked at.
    let (mut float, mut histogram) = (0, 0);
    for step in 0..steps.count {
        let at = instant.reference.of(steps, step);
        while samples.timestamps.get(float).is_some_and(|t| *t <= at) {
            float += 1;
        }
        while samples.histograms.get(histogram).is_some_and(|h| h.timestamp <= at) {
            histogram += 1;
        }
        let newest_float = float.checked_sub(1).map(|i| (samples.timestamps[i], i));
        let newest_histogram = histogram.checked_sub(1).map(|i| (samples.histograms[i].timestamp, i));
        let is_histogram = newest_histogram.map(|(t, _)| t) > newest_float.map(|(t, _)| t);
        let Some((timestamp, i)) = (if is_histogram { newest_histogram } else { newest_float }) else {
            continue;
        };
        // Within a gap there were samples, none of them longer ago than queries look back: the one before it stands for them.
        let stands = !is_histogram && Between::of(&samples.gaps, at).is_some();
        if timestamp <= at.saturating_sub(instant.lookback) && !stands {
            continue;
        }
        let start;
        let mut counts = 1;
        if is_histogram {
            let sample = &samples.histograms[i];
            if sample.histogram.is_stale() {
                continue;
            }
            start = sample.start;
            if instant.take == Take::Value {
                let value = match row.histograms.last() {
                    // The same sample as at the step before.
                    Some((_, last)) if step > 0 && same_as_before(&row, step, timestamp, steps, instant) => {
                        Arc::clone(last)
                    }
                    _ => Arc::new(FloatHistogram::from_histogram(&sample.histogram)),
                };
                counts = value.size_in_samples();
                row.histograms.push((u32::try_from(step).unwrap_or(u32::MAX), value));
            }
        } else if is_absent(samples.values[i]) {
            continue;
        } else {
            start = samples.start(i);
            row.floats[step] = samples.values[i];
        }
        match instant.take {
            Take::Value | Take::Smoothed => {}
            Take::Timestamp => row.floats[step] = seconds(timestamp),
            Take::Start => row.floats[step] = seconds(start),
        }
        any = true;
        if let Some(count) = queryable.get_mut(step) {
            *count += counts;
        }
    }
    any.then_some(row)
}

/// Whether a step looks between two samples where there were others, which were downsampled.
fn looks_into_gaps(samples: &SeriesSamples, instant: &Instant, steps: &Steps) -> bool {
    !samples.gaps.is_empty()
        && (0..steps.count)
            .any(|step| Between::of(&samples.gaps, instant.reference.of(steps, step)).is_some())
}

/// One float series' values on the lines between its samples; stale markers are no samples.
///
/// After the newest sample its value holds as long as it is not too old; before the oldest there is none.
fn smoothed(
    samples: &SeriesSamples,
    instant: &Instant,
    steps: &Steps,
    queryable: &mut [u64],
) -> Result<Option<Row>, QueryError> {
    let points: Vec<(i64, f64)> =
        samples.timestamps.iter().copied().zip(samples.values.iter().copied()).collect();
    let points: Vec<(i64, f64)> = points.into_iter().filter(|(_, value)| !is_absent(*value)).collect();
    let mut row = Row::absent(steps.count);
    let (mut next, mut next_histogram) = (0, 0);
    for step in 0..steps.count {
        let at = instant.reference.of(steps, step);
        let (oldest, latest) = (at.saturating_sub(instant.lookback), at.saturating_add(instant.lookback));
        while samples.histograms.get(next_histogram).is_some_and(|h| h.timestamp <= oldest) {
            next_histogram += 1;
        }
        let near = samples.histograms[next_histogram..].iter().take_while(|h| h.timestamp <= latest);
        if near.into_iter().any(|h| !h.histogram.is_stale()) {
            let text = "smoothed and anchored modifiers do not work with native histograms";
            return Err(QueryError::Execution(text.to_owned()));
        }
        while points.get(next).is_some_and(|(t, _)| *t <= at) {
            next += 1;
        }
        // Within a gap there were samples as near as in what is kept, on about that line.
        let in_gap = Between::of(&samples.gaps, at).is_some();
        let before = next.checked_sub(1).map(|i| points[i]);
        let Some((from_time, from)) = before.filter(|(t, _)| *t > oldest || in_gap) else {
            continue;
        };
        let after = points.get(next).filter(|(t, _)| (*t <= latest || in_gap) && from_time < at);
        row.floats[step] = match after {
            Some((to_time, to)) => from + (to - from) * millis(at - from_time) / millis(to_time - from_time),
            None => from,
        };
        if let Some(count) = queryable.get_mut(step) {
            *count += 1;
        }
    }
    Ok((!row.is_empty()).then_some(row))
}

/// Whether the step before took the histogram of this time.
fn same_as_before(row: &Row, step: usize, timestamp: i64, steps: &Steps, instant: &Instant) -> bool {
    let before = step - 1;
    let taken = row.histograms.last().is_some_and(|(s, _)| usize::try_from(*s) == Ok(before));
    taken && timestamp <= instant.reference.of(steps, before)
}

#[expect(clippy::cast_precision_loss, reason = "PromQL's times are floats")]
fn millis(millis: i64) -> f64 {
    millis as f64
}

/// Milliseconds as PromQL's seconds.
pub fn seconds(time: i64) -> f64 {
    millis(time) / 1000.0
}
