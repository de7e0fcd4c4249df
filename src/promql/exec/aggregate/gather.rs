//! `stddev`, `stdvar`, `quantile`, `count_values`: what looks at all values of a group at a step.

use foldhash::{HashMap, HashMapExt};

use super::{
    floats_at,
    group::{Groups, key},
    histogram_ignored,
};
use crate::{
    model::Labels,
    promql::{
        QueryError,
        annotations::Annotations,
        exec::{
            context::Context,
            rows::{ABSENT, Row, SeriesRow, Steps, is_absent},
        },
        functions::range::quantile as quantile_of,
        go_float::format_f,
        parse::AggregateOp,
        plan::Aggregation,
    },
};

/// The spread around the mean, by Welford's method without compensation.
pub fn deviation(
    context: &Context,
    aggregation: &Aggregation,
    groups: &Groups,
    rows: &[SeriesRow],
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Vec<SeriesRow>, QueryError> {
    per_step(context, aggregation, groups, rows, steps, notes, |members, step| {
        let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
        for value in floats_at(rows, members, step) {
            count += 1.0;
            if count == 1.0 {
                mean = value;
                squares = if value.is_finite() { 0.0 } else { f64::NAN };
                continue;
            }
            let delta = value - mean;
            mean += delta / count;
            squares += delta * (value - mean);
        }
        match (count > 0.0, aggregation.op) {
            (false, _) => ABSENT,
            (true, AggregateOp::Stddev) => f64::sqrt(squares / count),
            (true, _) => squares / count,
        }
    })
}

/// The value at part `q` of the sorted values.
pub fn quantile(
    context: &Context,
    aggregation: &Aggregation,
    groups: &Groups,
    rows: &[SeriesRow],
    q: &[f64],
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Vec<SeriesRow>, QueryError> {
    let mut values = Vec::new();
    per_step(context, aggregation, groups, rows, steps, notes, |members, step| {
        values.clear();
        values.extend(floats_at(rows, members, step));
        if values.is_empty() {
            ABSENT
        } else {
            quantile_of(q.get(step).copied().unwrap_or(f64::NAN), &mut values)
        }
    })
}

fn per_step(
    context: &Context,
    aggregation: &Aggregation,
    groups: &Groups,
    rows: &[SeriesRow],
    steps: &Steps,
    notes: &mut Annotations,
    mut value: impl FnMut(&[usize], usize) -> f64,
) -> Result<Vec<SeriesRow>, QueryError> {
    let mut done = Vec::with_capacity(groups.all.len());
    for group in &groups.all {
        context.check()?;
        if group.members.iter().any(|member| !rows[*member].row.histograms.is_empty()) {
            histogram_ignored(aggregation, notes);
        }
        let mut floats = Vec::with_capacity(steps.count);
        for step in 0..steps.count {
            // A group of many series takes its time at each step.
            context.check()?;
            floats.push(value(&group.members, step));
        }
        done.extend(group.row(Row { floats, histograms: Vec::new() }));
    }
    Ok(done)
}

/// How often each value is there, the value as a label.
pub fn count_values(
    context: &Context,
    aggregation: &Aggregation,
    rows: &[SeriesRow],
    steps: &Steps,
) -> Result<Vec<SeriesRow>, QueryError> {
    let label = aggregation.label.as_deref().unwrap_or_default();
    // The parser puts U+FFFD for bytes that are not UTF-8; no label has such a name.
    if label.is_empty() || label.contains('\u{fffd}') {
        let quoted = crate::model::labels::Quoted(label);
        return Err(QueryError::Execution(format!("invalid label name {quoted}")));
    }
    let mut by = aggregation.clone();
    if !by.without {
        by.grouping.push(label.to_owned());
        by.grouping.sort();
        by.grouping.dedup();
    }
    let mut counted: Vec<SeriesRow> = Vec::new();
    let mut places: HashMap<Labels, usize> = HashMap::new();
    let mut count = |row: &SeriesRow, text: &str, step: usize| -> Result<(), QueryError> {
        // Labels are made at each step.
        context.check()?;
        let labels = key(&row.labels.edit().set(label, text).build(), &by);
        let place = match places.get(&labels) {
            Some(place) => *place,
            None => {
                // Values that never come twice make a row of each.
                context.budget.within(counted.len() + 1, steps.count)?;
                let row = Row::absent(steps.count);
                counted.push(SeriesRow { labels: labels.clone(), drop_name: false, row });
                places.insert(labels, counted.len() - 1);
                counted.len() - 1
            }
        };
        increment(&mut counted[place].row.floats[step]);
        Ok(())
    };
    for row in rows {
        // A value that stays the same is written as text once.
        let mut last: Option<(u64, String)> = None;
        for (step, value) in row.row.floats.iter().enumerate() {
            if is_absent(*value) {
                continue;
            }
            let text = match last.take() {
                Some((bits, text)) if bits == value.to_bits() => text,
                _ => format_f(*value),
            };
            count(row, &text, step)?;
            last = Some((value.to_bits(), text));
        }
        for (step, histogram) in &row.row.histograms {
            if let Ok(step) = usize::try_from(*step) {
                count(row, &histogram.to_string(), step)?;
            }
        }
    }
    Ok(counted)
}

fn increment(place: &mut f64) {
    *place = if is_absent(*place) { 1.0 } else { *place + 1.0 };
}
