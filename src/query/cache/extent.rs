//! A stretch of an answer: what some steps of a range query came to, in dense rows.
//!
//! Steps have numbers, so that stretches of the same grid can be laid side by side: step `i` is at `phase + i · step`.

use std::{ops::Range, sync::Arc};

use crate::{
    model::Labels,
    promql::{
        Answer, MadeOf, MatrixSeries, Piece, QueryStats, Value,
        annotations::Annotations,
        exec::rows::{ABSENT, is_absent},
        histogram::FloatHistogram,
    },
    storage::AsOf,
};

/// The steps that all queries of one kind are evaluated at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// The first step at or after the epoch, in milliseconds; less than `step`.
    pub phase: i64,
    /// The distance between steps, at least a millisecond.
    pub step: i64,
}

impl Grid {
    /// The grid that a step is on, and its number there.
    pub fn of(at: i64, step: i64) -> (Self, i64) {
        (Self { phase: at.rem_euclid(step), step }, at.div_euclid(step))
    }

    /// When a step is.
    pub fn at(self, number: i64) -> i64 {
        self.phase.saturating_add(number.saturating_mul(self.step))
    }

    /// The numbers of the steps from one moment to another, both included.
    pub fn within(self, from: i64, to: i64) -> Range<i64> {
        let from = i128::from(from) - i128::from(self.phase);
        let to = i128::from(to) - i128::from(self.phase);
        let step = i128::from(self.step);
        let clamp =
            |number: i128| i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX });
        clamp((from + step - 1).div_euclid(step))..clamp(to.div_euclid(step) + 1)
    }
}

/// What some steps came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Extent {
    /// Their numbers.
    pub steps: Range<i64>,
    /// Sorted by labels.
    pub(super) rows: Vec<Row>,
    /// Samples in the windows, per step.
    pub(super) queryable: Vec<u64>,
    /// What the user should know; that is about all steps together.
    pub notes: Annotations,
    /// What it was made of.
    pub made_of: MadeOf,
    /// The last change that is surely in it.
    pub as_of: AsOf,
}

/// One series of it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) labels: Labels,
    /// A place per step, or none at all if all are without.
    pub(super) floats: Vec<f64>,
    /// By place, sorted.
    pub(super) histograms: Vec<(u32, Arc<FloatHistogram>)>,
}

/// Bits decide.
impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.labels == other.labels
            && self.histograms == other.histograms
            && self.floats.len() == other.floats.len()
            && self.floats.iter().zip(&other.floats).all(|(a, b)| a.to_bits() == b.to_bits())
    }
}

/// Steps of an extent that are used.
#[derive(Clone, Debug)]
pub struct Slice {
    /// Of which.
    pub extent: Arc<Extent>,
    /// Which; at least one.
    pub steps: Range<i64>,
}

impl Slice {
    /// All of an extent.
    pub fn whole(extent: Arc<Extent>) -> Self {
        Self { steps: extent.steps.clone(), extent }
    }

    /// Whether it is all of its extent.
    pub fn is_whole(&self) -> bool {
        self.steps == self.extent.steps
    }
}

/// How many steps there are.
pub fn count(steps: &Range<i64>) -> usize {
    usize::try_from(steps.end.saturating_sub(steps.start)).unwrap_or(0)
}

/// How far one step is behind another.
fn offset(from: i64, to: i64) -> usize {
    usize::try_from(to.saturating_sub(from)).unwrap_or(0)
}

impl Extent {
    /// What a piece came to that was evaluated at these steps.
    pub fn of(piece: &Piece, grid: Grid, steps: Range<i64>, as_of: AsOf) -> Self {
        let places = count(&steps);
        let place = |at: i64| offset(steps.start, at.saturating_sub(grid.phase).div_euclid(grid.step));
        let rows = piece.series.iter().map(|series| {
            let mut floats = Vec::new();
            if !series.floats.is_empty() {
                floats.resize(places, ABSENT);
                for (at, value) in &series.floats {
                    if let Some(there) = floats.get_mut(place(*at)) {
                        *there = *value;
                    }
                }
            }
            let place = |at: i64| u32::try_from(place(at)).unwrap_or(u32::MAX);
            let histograms = series.histograms.iter().map(|(at, h)| (place(*at), Arc::clone(h))).collect();
            Row { labels: series.labels.clone(), floats, histograms }
        });
        let rows = rows.collect();
        let (notes, queryable) = (piece.notes.clone(), piece.queryable.clone());
        Self { steps, rows, queryable, notes, made_of: piece.made_of, as_of }
    }

    /// Lays slices side by side, each of which begins where the one before ends; none if there is none.
    pub fn laid(mut slices: Vec<Slice>, as_of: AsOf) -> Option<Self> {
        if let [only] = &slices[..]
            && only.is_whole()
            && let Some(only) = slices.pop()
        {
            return Some(Self { as_of, ..Arc::unwrap_or_clone(only.extent) });
        }
        Self::joined(&slices, as_of)
    }

    fn joined(slices: &[Slice], as_of: AsOf) -> Option<Self> {
        let (first, last) = (slices.first()?, slices.last()?);
        let steps = first.steps.start..last.steps.end;
        let places = count(&steps);
        let mut parts: Vec<(&Row, &Slice)> = Vec::new();
        let mut queryable = Vec::with_capacity(places);
        let mut notes = Annotations::default();
        for slice in slices {
            let from = offset(slice.extent.steps.start, slice.steps.start);
            let taken = from..from + count(&slice.steps);
            queryable.extend(slice.extent.queryable.get(taken).unwrap_or_default());
            notes.merge(slice.extent.notes.clone());
            parts.extend(slice.extent.rows.iter().map(|row| (row, slice)));
        }
        // Stable, so that of one series the parts stay in the order of time.
        parts.sort_by(|a, b| a.0.labels.cmp(&b.0.labels));
        let mut rows: Vec<Row> = Vec::new();
        for same in parts.chunk_by(|a, b| a.0.labels == b.0.labels) {
            let mut row =
                Row { labels: same[0].0.labels.clone(), floats: Vec::new(), histograms: Vec::new() };
            for (part, slice) in same {
                row.take(part, slice, &steps, places);
            }
            if !row.histograms.is_empty() || row.floats.iter().any(|value| !is_absent(*value)) {
                rows.push(row);
            }
        }
        let made_of = last.extent.made_of;
        Some(Self { steps, rows, queryable, notes, made_of, as_of })
    }

    /// The answer to a query for all of its steps.
    pub fn answer(&self, grid: Grid, text: &str, mut stats: QueryStats) -> Answer {
        let (warnings, infos) = self.notes.render(text);
        stats.total_queryable_samples = self.queryable.iter().sum();
        let number = |place: usize| self.steps.start.saturating_add(i64::try_from(place).unwrap_or(i64::MAX));
        let series = self.rows.iter().map(|row| MatrixSeries {
            labels: row.labels.clone(),
            floats: row
                .floats
                .iter()
                .enumerate()
                .filter(|(_, value)| !is_absent(**value))
                .map(|(place, value)| (grid.at(number(place)), *value))
                .collect(),
            histograms: row
                .histograms
                .iter()
                .map(|(place, h)| {
                    (grid.at(number(usize::try_from(*place).unwrap_or(usize::MAX))), Arc::clone(h))
                })
                .collect(),
        });
        Answer { value: Value::Matrix(series.collect()), warnings, infos, stats }
    }

    /// How many values it holds; a histogram counts as many as its buckets weigh.
    pub fn points(&self) -> u64 {
        let floats = |row: &Row| row.floats.iter().filter(|value| !is_absent(**value)).count() as u64;
        let histograms = |row: &Row| row.histograms.iter().map(|(_, h)| h.size_in_samples()).sum::<u64>();
        self.rows.iter().map(|row| floats(row) + histograms(row)).sum()
    }

    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        let of_histogram = |h: &FloatHistogram| {
            usize::try_from(h.size_in_samples()).unwrap_or(usize::MAX).saturating_mul(16)
        };
        let of_row = |row: &Row| {
            // Labels may be shared with the store's index, which would let go of them one day.
            let histograms: usize = row.histograms.iter().map(|(_, h)| 64 + of_histogram(h)).sum();
            size_of::<Row>() + row.labels.as_canonical().len() + 8 * row.floats.len() + histograms
        };
        let rows: usize = self.rows.iter().map(of_row).sum();
        size_of::<Self>() + rows + 8 * self.queryable.len() + self.notes.size()
    }
}

impl Row {
    /// Takes over a slice's part of a row.
    fn take(&mut self, part: &Self, slice: &Slice, steps: &Range<i64>, places: usize) {
        let from = offset(slice.extent.steps.start, slice.steps.start);
        let taken = from..from + count(&slice.steps);
        let to = offset(steps.start, slice.steps.start);
        if let Some(values) = part.floats.get(taken.clone()).filter(|v| !v.is_empty()) {
            self.floats.resize(places, ABSENT);
            if let Some(there) = self.floats.get_mut(to..to + values.len()) {
                there.copy_from_slice(values);
            }
        }
        let within = part.histograms.iter().filter_map(|(place, h)| {
            let place = usize::try_from(*place).ok().filter(|place| taken.contains(place))?;
            Some((u32::try_from(place - from + to).ok()?, Arc::clone(h)))
        });
        self.histograms.extend(within);
    }
}
