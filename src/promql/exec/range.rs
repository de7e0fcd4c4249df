//! Range functions over what the store holds: one series' samples in, one row out.
//!
//! A series is read once for all steps. Stale markers are taken out before the function sees the
//! samples. A long series of large windows is evaluated in slices of steps, so that a query nobody
//! waits for any more ends soon.

use std::{ops::Range, sync::Arc};

use super::{
    context::{Context, Findings, weight},
    data::SelectedSeries,
    names::{Names, without_name},
    rows::{Row, SeriesRow, Steps, is_absent},
};
use crate::{
    model::Labels,
    promql::{
        MatrixSeries, QueryError, annotations,
        functions::range::{self, Edges, Frame, RangeFunction, RangeInput},
        histogram::FloatHistogram,
        parse::Span,
        plan::{Counted, Reference},
    },
    storage::{Gap, SeriesSamples},
};

/// Samples in windows that are evaluated between two looks at whether anybody still waits.
const SLICE: u64 = 1 << 20;

/// The same where windows share what is computed of their samples, which slices would do anew.
const SHARED_SLICE: usize = 1 << 16;

/// A gap takes the memory of so many samples.
const GAP_SAMPLES: usize = 4;

/// A range function's parameters.
#[derive(Clone, Copy, Debug)]
pub struct Windowed<'a> {
    /// Which function.
    pub function: RangeFunction,
    /// Where each window ends.
    pub reference: Reference,
    /// How long each is, in milliseconds.
    pub range: i64,
    /// Where samples beyond them are looked for.
    pub edges: Edges,
    /// The scalar arguments, a value per step.
    pub params: &'a [&'a [f64]],
    /// The steps.
    pub steps: Steps,
    /// Where the range vector stands in the text.
    pub span: Span,
    /// Where the first scalar argument stands in the text.
    pub param_span: Span,
    /// Which statistics it goes to.
    pub counted: Counted,
    /// What becomes of the series' names.
    pub names: Names,
}

/// Samples of one series as functions see them: histograms converted, stale markers gone.
#[derive(Debug, Default)]
pub struct Samples {
    /// Times of the floats.
    pub timestamps: Vec<i64>,
    /// The floats.
    pub values: Vec<f64>,
    /// Their start timestamps, or none.
    pub starts: Vec<i64>,
    /// What was put together before each of them, or none.
    pub gaps: Vec<Gap>,
    /// Whether samples were written into a gap later, so that nobody knows what they came after.
    pub late: bool,
    /// Times and histograms.
    pub histograms: Vec<(i64, Arc<FloatHistogram>)>,
    /// Their start timestamps, or none.
    pub histogram_starts: Vec<i64>,
}

impl Samples {
    /// Takes over what the store read.
    pub fn load(&mut self, from: &SeriesSamples, starts: bool) {
        self.clear();
        if !from.gaps.is_empty() {
            self.load_with_gaps(from, starts);
        } else if from.values.iter().any(|v| is_absent(*v)) {
            for i in (0..from.values.len()).filter(|i| !is_absent(from.values[*i])) {
                self.push(from, i, starts);
            }
        } else {
            self.timestamps.extend_from_slice(&from.timestamps);
            self.values.extend_from_slice(&from.values);
            if starts {
                self.starts.extend_from_slice(&from.starts);
            }
        }
        for sample in from.histograms.iter().filter(|h| !h.histogram.is_stale()) {
            self.histograms
                .push((sample.timestamp, Arc::new(FloatHistogram::from_histogram(&sample.histogram))));
            if starts {
                self.histogram_starts.push(sample.start);
            }
        }
    }

    fn push(&mut self, from: &SeriesSamples, i: usize, starts: bool) {
        self.timestamps.push(from.timestamps[i]);
        self.values.push(from.values[i]);
        if starts && !from.starts.is_empty() {
            self.starts.push(from.start(i));
        }
    }

    /// The same of floats with gaps: a gap goes with the sample after it, and has what was written into it later.
    fn load_with_gaps(&mut self, from: &SeriesSamples, starts: bool) {
        // A stale marker may have come in place of a sample that is kept: then the gap lies between no two samples.
        let has = |at: i64| from.timestamps.binary_search(&at).is_ok_and(|i| !is_absent(from.values[i]));
        let mut gaps = from.gaps.iter().filter(|gap| has(gap.from) && has(gap.to)).peekable();
        let mut into: Option<Gap> = None;
        for (i, (at, value)) in from.timestamps.iter().zip(&from.values).enumerate() {
            if is_absent(*value) {
                continue;
            }
            let gap = match gaps.peek() {
                Some(between) if between.spans(*at) => {
                    into = Some(into.unwrap_or(between.gap).with(*value));
                    self.late = true;
                    continue;
                }
                Some(between) if between.to == *at => Some(into.take().unwrap_or(between.gap)),
                Some(_) | None => None,
            };
            if gap.is_some() {
                gaps.next();
            }
            self.push(from, i, starts);
            self.gaps.push(gap.unwrap_or_default());
        }
        if self.gaps.iter().all(|gap| gap.count == 0) {
            self.gaps.clear();
        }
    }

    /// Forgets the samples and keeps the memory.
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
        self.starts.clear();
        self.gaps.clear();
        self.late = false;
        self.histograms.clear();
        self.histogram_starts.clear();
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty() && self.histograms.is_empty()
    }

    /// What they count as against the budget.
    pub fn weight(&self) -> u64 {
        let histograms: u64 = self.histograms.iter().map(|(_, h)| h.size_in_samples()).sum();
        let floats = self.values.len() + GAP_SAMPLES * self.gaps.len();
        u64::try_from(floats).unwrap_or(u64::MAX).saturating_add(histograms)
    }
}

/// Evaluates a chunk of series.
pub fn chunk(
    context: &Context,
    series: &SelectedSeries,
    ordinals: Range<usize>,
    windowed: &Windowed<'_>,
    findings: &mut Findings,
) -> Result<Vec<SeriesRow>, QueryError> {
    let mut rows = Vec::with_capacity(ordinals.len());
    let (mut scratch, mut samples) = (SeriesSamples::default(), Samples::default());
    let mut frame = Frame::default();
    let delayed = context.settings.delayed_names;
    for ordinal in ordinals {
        context.check()?;
        let read = series.samples(ordinal, &mut scratch)?;
        let count = u64::try_from(read.len() + GAP_SAMPLES * read.gaps.len()).unwrap_or(u64::MAX);
        findings.count(read, windowed.reference, &context.settings);
        let loaded = series.weight(count);
        context.budget.hold(loaded)?;
        samples.load(read, context.settings.use_start_timestamps);
        let labels = &series.labels[ordinal];
        let row = evaluate(context, labels, &samples, windowed, &mut frame, findings)?;
        context.budget.release(loaded);
        let Some(row) = row else { continue };
        let held = weight(&row);
        context.budget.hold(held)?;
        findings.held += held;
        let keeps_name = windowed.function.keeps_name();
        rows.push(SeriesRow {
            labels: if keeps_name || delayed || windowed.names == Names::Kept {
                labels.clone()
            } else {
                without_name(labels)
            },
            drop_name: delayed && !keeps_name,
            row,
        });
    }
    Ok(rows)
}

/// Evaluates one series over all steps; none if there is no value at any.
///
/// `frame` is kept from series to series, because most have the same times.
pub fn evaluate(
    context: &Context,
    labels: &Labels,
    samples: &Samples,
    windowed: &Windowed<'_>,
    frame: &mut Frame,
    findings: &mut Findings,
) -> Result<Option<Row>, QueryError> {
    if samples.is_empty() {
        return Ok(None);
    }
    let steps = windowed.steps;
    let windows = windows_of(windowed.reference);
    let mut row = Row::absent(steps.count);
    if !samples.gaps.is_empty() {
        if samples.histograms.is_empty() {
            frame.fit(&samples.timestamps, steps, windows, windowed.range, windowed.edges);
            count(frame, windowed, &mut findings.queryable);
            range::gapped::evaluate(
                windowed.function,
                &input_of(context, labels, samples, windowed, frame),
                range::gapped::Gaps { before: &samples.gaps, late: samples.late },
                &mut || context.check(),
                &mut row,
                &mut findings.notes,
            )?;
            return Ok((!row.is_empty()).then_some(row));
        }
        // Histograms have come to a series that had none when it was downsampled.
        let name = labels.metric_name().unwrap_or_default();
        findings.notes.info(annotations::downsampled_kept(name), windowed.span);
    }
    if samples.histograms.is_empty() {
        frame.fit(&samples.timestamps, steps, windows, windowed.range, windowed.edges);
        let shared = samples.values.len() <= SHARED_SLICE
            && windowed.function.is_shared(&samples.values, windowed.edges);
        if frame.samples() <= SLICE || shared {
            count(frame, windowed, &mut findings.queryable);
            range::evaluate(
                windowed.function,
                &input_of(context, labels, samples, windowed, frame),
                &mut row,
                &mut findings.notes,
            )?;
            return Ok((!row.is_empty()).then_some(row));
        }
    }
    for slice in slices(samples, windowed, &mut findings.queryable) {
        context.check()?;
        let params: Vec<&[f64]> = windowed.params.iter().map(|p| &p[slice.steps.clone()]).collect();
        let part = Steps { start: steps.at(slice.steps.start), step: steps.step, count: slice.steps.len() };
        let cut = |starts: &'_ Vec<i64>, to: &Range<usize>| if starts.is_empty() { 0..0 } else { to.clone() };
        let timestamps = &samples.timestamps[slice.floats.clone()];
        frame.fit(timestamps, part, windows, windowed.range, windowed.edges);
        let input = RangeInput {
            timestamps,
            values: &samples.values[slice.floats.clone()],
            starts: &samples.starts[cut(&samples.starts, &slice.floats)],
            histograms: &samples.histograms[slice.histograms.clone()],
            histogram_starts: &samples.histogram_starts[cut(&samples.histogram_starts, &slice.histograms)],
            steps: part,
            params: &params,
            ..input_of(context, labels, samples, windowed, frame)
        };
        let mut out = Row::absent(part.count);
        range::evaluate(windowed.function, &input, &mut out, &mut findings.notes)?;
        row.floats[slice.steps.clone()].copy_from_slice(&out.floats);
        let first = u32::try_from(slice.steps.start).unwrap_or(u32::MAX);
        row.histograms.extend(out.histograms.into_iter().map(|(step, h)| (first + step, h)));
    }
    Ok((!row.is_empty()).then_some(row))
}

/// All samples at all steps, as functions see them.
fn input_of<'a>(
    context: &Context,
    labels: &'a Labels,
    samples: &'a Samples,
    windowed: &'a Windowed<'a>,
    frame: &'a Frame,
) -> RangeInput<'a> {
    RangeInput {
        timestamps: &samples.timestamps,
        values: &samples.values,
        starts: &samples.starts,
        histograms: &samples.histograms,
        histogram_starts: &samples.histogram_starts,
        steps: windowed.steps,
        windows: windows_of(windowed.reference),
        range_ms: windowed.range,
        edges: windowed.edges,
        frame,
        params: windowed.params,
        metric_name: labels.metric_name().unwrap_or_default(),
        type_label: context.settings.type_and_unit_labels.then(|| labels.get("__type__").unwrap_or_default()),
        span: windowed.span,
        param_span: windowed.param_span,
    }
}

/// Counts the samples of a frame's windows.
fn count(frame: &Frame, windowed: &Windowed<'_>, queryable: &mut Vec<u64>) {
    if windowed.counted == Counted::Nowhere {
        return;
    }
    if queryable.len() < windowed.steps.count {
        queryable.resize(windowed.steps.count, 0);
    }
    queryable.iter_mut().zip(frame.counts()).for_each(|(sum, count)| *sum += count);
}

fn windows_of(reference: Reference) -> range::Windows {
    match reference.at {
        Some(at) => range::Windows::Fixed { end: at.saturating_sub(reference.offset) },
        None => range::Windows::Moving { offset_ms: reference.offset },
    }
}

/// Steps evaluated together and the samples that their windows hold.
#[derive(Debug, PartialEq)]
struct Slice {
    steps: Range<usize>,
    floats: Range<usize>,
    histograms: Range<usize>,
}

/// Cuts the steps so that no slice has much more than [`SLICE`] samples in its windows, and counts them.
fn slices(samples: &Samples, windowed: &Windowed<'_>, queryable: &mut Vec<u64>) -> Vec<Slice> {
    let steps = &windowed.steps;
    if windowed.counted != Counted::Nowhere && queryable.len() < steps.count {
        queryable.resize(steps.count, 0);
    }
    // The first sample in the window and the first after it, of floats and of histograms.
    let (mut floats, mut histograms) = (0..0, 0..0);
    let mut slices = Vec::new();
    let mut slice = Slice { steps: 0..0, floats: 0..0, histograms: 0..0 };
    let (mut in_slice, mut in_histograms) = (0, 0);
    let size =
        |range: Range<usize>| samples.histograms[range].iter().map(|(_, h)| h.size_in_samples()).sum::<u64>();
    for step in 0..steps.count {
        let end = windowed.reference.of(steps, step);
        let start = end.saturating_sub(windowed.range).saturating_sub(windowed.edges.before());
        let end = end.saturating_add(windowed.edges.after());
        advance(&mut floats, samples.timestamps.len(), start, end, |i| samples.timestamps[i]);
        let before = histograms.clone();
        advance(&mut histograms, samples.histograms.len(), start, end, |i| samples.histograms[i].0);
        in_histograms += size(before.end..histograms.end);
        in_histograms -= size(before.start..histograms.start);
        let count = u64::try_from(floats.len()).unwrap_or(u64::MAX).saturating_add(in_histograms);
        if let Some(sum) = queryable.get_mut(step) {
            *sum += count;
        }
        if slice.steps.is_empty() {
            slice = Slice { steps: step..step, floats: floats.clone(), histograms: histograms.clone() };
            in_slice = 0;
        }
        slice.steps.end = step + 1;
        slice.floats.end = floats.end;
        slice.histograms.end = histograms.end;
        in_slice += count;
        if in_slice > SLICE {
            slices.push(std::mem::replace(&mut slice, Slice { steps: 0..0, floats: 0..0, histograms: 0..0 }));
        }
    }
    if !slice.steps.is_empty() {
        slices.push(slice);
    }
    slices
}

/// Moves a window forward to `(start, end]`.
#[inline]
fn advance(window: &mut Range<usize>, len: usize, start: i64, end: i64, time: impl Fn(usize) -> i64) {
    while window.end < len && time(window.end) <= end {
        window.end += 1;
    }
    while window.start < window.end && time(window.start) <= start {
        window.start += 1;
    }
}

/// The samples of each window of a range vector that is not given to any function, series by series.
pub fn raw(labels: &Labels, samples: &Samples, end: i64, range: i64) -> Option<MatrixSeries> {
    let within = |t: i64| end.saturating_sub(range) < t && t <= end;
    let floats: Vec<(i64, f64)> = samples
        .timestamps
        .iter()
        .copied()
        .zip(samples.values.iter().copied())
        .filter(|(t, _)| within(*t))
        .collect();
    let histograms: Vec<_> = samples.histograms.iter().filter(|(t, _)| within(*t)).cloned().collect();
    if floats.is_empty() && histograms.is_empty() {
        return None;
    }
    Some(MatrixSeries { labels: labels.clone(), floats, histograms })
}

#[cfg(test)]
mod tests;
