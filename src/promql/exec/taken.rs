//! Leaves, and aggregations over them, that the store has evaluated: its rows become ours.
//!
//! What the store cannot do is done here: names are dropped, empty rows left out, remarks made, and the
//! values counted, against the budget and as the samples that were read.

use super::{
    context::{Context, Findings, weight},
    data::SelectedSeries,
    names::without_name,
    rows::{Row, SeriesRow, is_absent},
};
use crate::{
    model::{Labels, METRIC_NAME, Matcher},
    promql::{
        QueryError,
        annotations::Annotations,
        functions::range::{RangeFunction, note_possible_non_counter},
        parse::Span,
        plan::{Counted, Operation},
    },
};

/// What the store has evaluated.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// The range function, with its range vector's place in the text; none is the newest sample.
    function: Option<(RangeFunction, Span)>,
    /// Which statistics the values go to.
    pub(super) counted: Counted,
    /// Places of a row.
    steps: usize,
}

impl Taken {
    /// Of a leaf that was offered.
    pub fn of(operation: &Operation, steps: usize) -> Option<Self> {
        match operation {
            Operation::Instant { counted, .. } => Some(Self { function: None, counted: *counted, steps }),
            Operation::Range { function, span, counted, .. } => {
                Some(Self { function: Some((*function, *span)), counted: *counted, steps })
            }
            _ => None,
        }
    }

    fn keeps_name(&self) -> bool {
        self.function.is_none_or(|(function, _)| function.keeps_name())
    }

    /// Notes what the function would have noted about a series that has values.
    fn note(&self, context: &Context, name: &str, described: Option<&Labels>, notes: &mut Annotations) {
        if let Some((RangeFunction::Rate | RangeFunction::Increase, span)) = self.function {
            let type_label = context
                .settings
                .type_and_unit_labels
                .then(|| described.and_then(|labels| labels.get("__type__")).unwrap_or_default());
            note_possible_non_counter(name, type_label, span, notes);
        }
    }
}

/// The rows of a chunk of series.
pub fn chunk(
    context: &Context,
    series: &SelectedSeries,
    ordinals: std::ops::Range<usize>,
    taken: &Taken,
    findings: &mut Findings,
) -> Result<Vec<SeriesRow>, QueryError> {
    let mut rows = Vec::with_capacity(ordinals.len());
    let delayed = context.settings.delayed_names;
    for ordinal in ordinals {
        let Some(row) = row(context, series, ordinal, taken, findings)? else { continue };
        let labels = &series.labels[ordinal];
        taken.note(context, labels.metric_name().unwrap_or_default(), Some(labels), &mut findings.notes);
        let keeps_name = taken.keeps_name();
        rows.push(SeriesRow {
            labels: if keeps_name || delayed { labels.clone() } else { without_name(labels) },
            drop_name: delayed && !keeps_name,
            row,
        });
    }
    Ok(rows)
}

/// The rows of all groups; the series they are of have the name that `matchers` allow.
pub fn groups(
    context: &Context,
    groups: &SelectedSeries,
    matchers: &[Matcher],
    taken: &Taken,
    findings: &mut Findings,
) -> Result<Vec<SeriesRow>, QueryError> {
    let mut rows = Vec::with_capacity(groups.labels.len());
    for (ordinal, labels) in groups.labels.iter().enumerate() {
        if let Some(row) = row(context, groups, ordinal, taken, findings)? {
            rows.push(SeriesRow { labels: labels.clone(), drop_name: false, row });
        }
    }
    if !rows.is_empty() {
        let name = matchers.iter().find(|matcher| matcher.name() == METRIC_NAME).map(Matcher::value);
        taken.note(context, name.unwrap_or_default(), None, &mut findings.notes);
    }
    Ok(rows)
}

/// One row, if it has a value.
fn row(
    context: &Context,
    series: &SelectedSeries,
    ordinal: usize,
    taken: &Taken,
    findings: &mut Findings,
) -> Result<Option<Row>, QueryError> {
    context.check()?;
    let Some(floats) = series.take_row(ordinal, &context.budget) else { return Ok(None) };
    let row = Row { floats, histograms: Vec::new() };
    if taken.counted != Counted::Nowhere {
        findings.queryable.resize(taken.steps, 0);
    }
    for (step, _) in row.floats.iter().enumerate().filter(|(_, value)| !is_absent(**value)) {
        findings.samples_read += 1;
        if let Some(count) = findings.queryable.get_mut(step) {
            *count += 1;
        }
    }
    if row.is_empty() {
        return Ok(None);
    }
    let held = weight(&row);
    context.budget.hold(held)?;
    findings.held += held;
    Ok(Some(row))
}
