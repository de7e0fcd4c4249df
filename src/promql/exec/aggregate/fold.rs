//! `sum`, `avg`, `count`, `min`, `max`, `group`: one value per step takes in one series after another.
//!
//! Sums are Neumaier's. An average divides the sum, unless the sum would leave the range of floats at
//! some step: from there on that step keeps a running mean instead, in a table of its own, so that the
//! loop over ordinary steps stays as it is.

use std::collections::BTreeMap;

use crate::promql::{
    annotations::{self, Annotations},
    exec::rows::{ABSENT, Row, is_absent},
    functions::neumaier::Neumaier,
    histogram::{
        FloatHistogram,
        arithmetic::{HistogramMean, HistogramSum, Joined, Mismatch},
        reset::SeenHints,
    },
    parse::AggregateOp,
    plan::Aggregation,
};

/// A value per step in the making.
#[derive(Debug)]
pub struct Fold {
    op: AggregateOp,
    /// The sum, extreme or 1; absent where there was no float yet.
    values: Vec<f64>,
    /// What the sums owe; of `sum` and `avg`.
    owed: Vec<f64>,
    /// How many; of `avg` (floats) and `count` (both kinds).
    counts: Vec<u32>,
    /// Steps of `avg` whose sum would be infinite, with their running mean.
    means: BTreeMap<usize, Neumaier>,
    /// Steps of `sum` and `avg` that have histograms.
    histograms: BTreeMap<u32, (Histograms, SeenHints)>,
}

/// The histograms of one step.
#[derive(Debug)]
enum Histograms {
    Sum(HistogramSum),
    Mean(HistogramMean),
    /// They cannot be joined.
    Mismatched,
}

impl Fold {
    /// Starts with nothing at any step.
    pub fn new(op: AggregateOp, steps: usize) -> Self {
        let only = |ops: &[AggregateOp]| if ops.contains(&op) { steps } else { 0 };
        Self {
            op,
            values: vec![ABSENT; steps],
            owed: vec![0.0; only(&[AggregateOp::Sum, AggregateOp::Avg])],
            counts: vec![0; only(&[AggregateOp::Avg, AggregateOp::Count])],
            means: BTreeMap::new(),
            histograms: BTreeMap::new(),
        }
    }

    /// Takes a series in.
    pub fn add(&mut self, row: &Row, aggregation: &Aggregation, notes: &mut Annotations) {
        match self.op {
            AggregateOp::Sum => self.add_sum(row),
            AggregateOp::Avg => self.add_avg(row),
            AggregateOp::Count => {
                for (count, value) in self.counts.iter_mut().zip(&row.floats) {
                    *count += u32::from(!is_absent(*value));
                }
            }
            AggregateOp::Min => self.add_extreme(row, |best, value| value < best),
            AggregateOp::Max => self.add_extreme(row, |best, value| value > best),
            AggregateOp::Group => {
                for (one, value) in self.values.iter_mut().zip(&row.floats) {
                    if !is_absent(*value) {
                        *one = 1.0;
                    }
                }
            }
            AggregateOp::Stddev
            | AggregateOp::Stdvar
            | AggregateOp::Topk
            | AggregateOp::Bottomk
            | AggregateOp::CountValues
            | AggregateOp::Quantile
            | AggregateOp::Limitk
            | AggregateOp::LimitRatio => unreachable!("only what adds up is folded"),
        }
        for (step, histogram) in &row.histograms {
            self.add_histogram(*step, histogram, aggregation, notes);
        }
    }

    fn add_sum(&mut self, row: &Row) {
        for ((sum, owed), value) in self.values.iter_mut().zip(&mut self.owed).zip(&row.floats) {
            if is_absent(*value) {
                continue;
            }
            if is_absent(*sum) {
                *sum = *value;
                continue;
            }
            let mut total = Neumaier { sum: *sum, compensation: *owed };
            total.add(*value);
            (*sum, *owed) = (total.sum, total.compensation);
        }
    }

    fn add_avg(&mut self, row: &Row) {
        for (step, value) in row.floats.iter().enumerate() {
            if is_absent(*value) {
                continue;
            }
            self.counts[step] += 1;
            if is_absent(self.values[step]) {
                self.values[step] = *value;
                continue;
            }
            let count = f64::from(self.counts[step]);
            if self.means.is_empty() || !self.means.contains_key(&step) {
                let mut total = Neumaier { sum: self.values[step], compensation: self.owed[step] };
                total.add(*value);
                if total.sum.is_finite() || total.sum.is_nan() {
                    (self.values[step], self.owed[step]) = (total.sum, total.compensation);
                    continue;
                }
                let before = count - 1.0;
                let mean =
                    Neumaier { sum: self.values[step] / before, compensation: self.owed[step] / before };
                self.means.insert(step, mean);
            }
            if let Some(mean) = self.means.get_mut(&step) {
                mean.scale((count - 1.0) / count);
                mean.add(*value / count);
            }
        }
    }

    fn add_extreme(&mut self, row: &Row, beats: impl Fn(f64, f64) -> bool) {
        for (best, value) in self.values.iter_mut().zip(&row.floats) {
            if !is_absent(*value) && (best.is_nan() || beats(*best, *value)) {
                // The empty place is a NaN too, so that the first value always comes in.
                *best = *value;
            }
        }
    }

    fn add_histogram(
        &mut self,
        step: u32,
        histogram: &FloatHistogram,
        aggregation: &Aggregation,
        notes: &mut Annotations,
    ) {
        match self.op {
            AggregateOp::Sum | AggregateOp::Avg => {
                let joined = match self.histograms.get_mut(&step) {
                    None => {
                        let first = if self.op == AggregateOp::Sum {
                            Histograms::Sum(HistogramSum::new(histogram))
                        } else {
                            Histograms::Mean(HistogramMean::new(histogram))
                        };
                        let mut hints = SeenHints::default();
                        hints.see(histogram.reset_hint);
                        self.histograms.insert(step, (first, hints));
                        return;
                    }
                    Some((joint, hints)) => {
                        hints.see(histogram.reset_hint);
                        match joint {
                            Histograms::Sum(sum) => sum.add(histogram),
                            Histograms::Mean(mean) => mean.add(histogram),
                            Histograms::Mismatched => return,
                        }
                    }
                };
                if !note(joined, aggregation, notes) {
                    self.histograms.insert(step, (Histograms::Mismatched, SeenHints::default()));
                }
            }
            AggregateOp::Count => {
                if let Some(count) = usize::try_from(step).ok().and_then(|at| self.counts.get_mut(at)) {
                    *count += 1;
                }
            }
            AggregateOp::Group => {
                if let Some(one) = usize::try_from(step).ok().and_then(|at| self.values.get_mut(at)) {
                    *one = 1.0;
                }
            }
            AggregateOp::Min
            | AggregateOp::Max
            | AggregateOp::Stddev
            | AggregateOp::Stdvar
            | AggregateOp::Topk
            | AggregateOp::Bottomk
            | AggregateOp::CountValues
            | AggregateOp::Quantile
            | AggregateOp::Limitk
            | AggregateOp::LimitRatio => super::histogram_ignored(aggregation, notes),
        }
    }

    /// The result.
    pub fn finish(mut self, aggregation: &Aggregation, notes: &mut Annotations) -> Row {
        match self.op {
            AggregateOp::Sum => {
                for (sum, owed) in self.values.iter_mut().zip(&self.owed) {
                    if !is_absent(*sum) {
                        *sum += owed;
                    }
                }
            }
            AggregateOp::Avg => {
                for step in 0..self.values.len() {
                    if is_absent(self.values[step]) {
                        continue;
                    }
                    let count = f64::from(self.counts[step]);
                    self.values[step] = match self.means.get(&step) {
                        Some(mean) => mean.corrected(),
                        None => self.values[step] / count + self.owed[step] / count,
                    };
                }
            }
            AggregateOp::Count => {
                for (value, count) in self.values.iter_mut().zip(&self.counts) {
                    if *count > 0 {
                        *value = f64::from(*count);
                    }
                }
            }
            AggregateOp::Min
            | AggregateOp::Max
            | AggregateOp::Group
            | AggregateOp::Stddev
            | AggregateOp::Stdvar
            | AggregateOp::Topk
            | AggregateOp::Bottomk
            | AggregateOp::CountValues
            | AggregateOp::Quantile
            | AggregateOp::Limitk
            | AggregateOp::LimitRatio => {}
        }
        let mut row = Row { floats: self.values, histograms: Vec::new() };
        for (step, (histograms, hints)) in self.histograms {
            let place = usize::try_from(step).ok().and_then(|at| row.floats.get_mut(at));
            if let Some(place) = place.filter(|place| !is_absent(**place)) {
                *place = ABSENT;
                notes.warn(annotations::mixed_floats_histograms_in_aggregation(), aggregation.span);
                continue;
            }
            let mut histogram = match histograms {
                Histograms::Sum(sum) => sum.corrected(),
                Histograms::Mean(mean) => mean.corrected(),
                Histograms::Mismatched => continue,
            };
            if hints.collide() {
                notes.warn(annotations::counter_reset_collision("aggregation"), aggregation.span);
            }
            histogram.compact();
            row.histograms.push((step, std::sync::Arc::new(histogram)));
        }
        row
    }
}

/// Notes what joining two histograms brought up; whether they could be joined.
fn note(joined: Result<Joined, Mismatch>, aggregation: &Aggregation, notes: &mut Annotations) -> bool {
    match joined {
        Ok(joined) => {
            if joined.bounds_reconciled {
                notes.info(annotations::mismatched_custom_buckets("aggregation"), aggregation.span);
            }
            true
        }
        Err(Mismatch::Schemas) => {
            notes.warn(annotations::mixed_exponential_custom(""), aggregation.whole);
            false
        }
    }
}
