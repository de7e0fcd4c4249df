//! Functions that see all series of a vector: labels, order, presence.

use std::{
    cmp::Ordering,
    collections::{HashMap, hash_map::Entry},
};

use crate::{
    model::{Labels, LabelsBuilder, METRIC_NAME, MatchOp, Matcher, regex::Regex},
    promql::{
        QueryError,
        annotations::{self, Annotations},
        exec::{
            context::Budget,
            names::merge_into,
            order,
            rows::{ABSENT, Row, SeriesRow, Steps, is_absent},
        },
        parse::{Expr, Span},
    },
};

/// Whether a label is part of the metric's name: it goes when the name goes.
pub fn is_metadata_label(name: &str) -> bool {
    matches!(name, METRIC_NAME | "__type__" | "__unit__")
}

/// Labels without the metric's name, type and unit.
pub fn drop_metadata(labels: &Labels) -> Labels {
    labels.without(is_metadata_label)
}

/// The longest value a label can be given; calls within calls could double it each time.
const MOST_BYTES: usize = 1 << 20;

/// Bytes of a label that weigh as much as a sample.
const BYTES_PER_SAMPLE: usize = 16;

/// `label_replace(rows, dst, replacement, src, regex)`: if the whole of label `src` matches, sets `dst`.
pub fn label_replace(
    budget: &Budget,
    mut rows: Vec<SeriesRow>,
    dst: &str,
    replacement: &str,
    src: &str,
    regex: &str,
) -> Result<Vec<SeriesRow>, QueryError> {
    let refused =
        |_| QueryError::Execution(format!("invalid regular expression in label_replace(): {regex}"));
    // Other than for matchers, Prometheus reads the pattern only between parentheses of its own, the second of which
    // a `\Q` without `\E` takes for a letter.
    if regex.contains(r"\Q") {
        Regex::new(&format!("(?s:{regex})")).map_err(refused)?;
    }
    let regex = Regex::new(regex).map_err(refused)?;
    check_label_name(dst, "label_replace", "destination")?;
    let references = replacement.bytes().filter(|byte| *byte == b'$').count();
    let mut grown = Grown { budget, held: 0 };
    for series in &mut rows {
        budget.check()?;
        let value = series.labels.get(src).unwrap_or_default();
        // Nothing a group holds is longer than the value.
        check_length(value.len().saturating_mul(references) / 16, dst, "label_replace")?;
        if let Some(new) = regex.expand(value, replacement) {
            check_length(new.len(), dst, "label_replace")?;
            grown.by(new.len())?;
            set_label(series, dst, &new);
        }
    }
    merge_equal(budget, rows)
}

/// `label_join(rows, dst, separator, src…)`: sets `dst` to the values of other labels.
pub fn label_join(
    budget: &Budget,
    mut rows: Vec<SeriesRow>,
    dst: &str,
    separator: &str,
    sources: &[&str],
) -> Result<Vec<SeriesRow>, QueryError> {
    for source in sources {
        check_label_name(source, "label_join", "source")?;
    }
    check_label_name(dst, "label_join", "destination")?;
    let mut grown = Grown { budget, held: 0 };
    for series in &mut rows {
        budget.check()?;
        let values: Vec<&str> =
            sources.iter().map(|source| series.labels.get(source).unwrap_or_default()).collect();
        let separators = separator.len().saturating_mul(values.len().saturating_sub(1));
        let length = values.iter().fold(separators, |sum, value| sum.saturating_add(value.len()));
        check_length(length, dst, "label_join")?;
        grown.by(length)?;
        let joined = values.join(separator);
        set_label(series, dst, &joined);
    }
    merge_equal(budget, rows)
}

fn check_length(bytes: usize, label: &str, function: &str) -> Result<(), QueryError> {
    if bytes > MOST_BYTES {
        return Err(QueryError::Execution(format!(
            "label value too long in {function}(): {label} would have more than {MOST_BYTES} bytes"
        )));
    }
    Ok(())
}

/// What labels given to series weigh, as long as they are being given.
struct Grown<'a> {
    budget: &'a Budget,
    held: u64,
}

impl Grown<'_> {
    fn by(&mut self, bytes: usize) -> Result<(), QueryError> {
        let weight = u64::try_from(bytes / BYTES_PER_SAMPLE).unwrap_or(u64::MAX);
        self.held += weight;
        self.budget.hold(weight)
    }
}

impl Drop for Grown<'_> {
    fn drop(&mut self) {
        self.budget.release(self.held);
    }
}

/// Sets a label; a name that was to be dropped and is set anew stays.
fn set_label(series: &mut SeriesRow, name: &str, value: &str) {
    series.labels = series.labels.edit().set(name, value).build();
    if name == METRIC_NAME {
        series.drop_name = false;
    }
}

/// Refuses a label name that cannot be one.
///
/// Any text is a label name except the empty one; bytes that were not text come out of the parser as
/// U+FFFD.
pub(super) fn check_label_name(name: &str, function: &str, role: &str) -> Result<(), QueryError> {
    if name.is_empty() || name.contains('\u{fffd}') {
        return Err(QueryError::Execution(format!("invalid {role} label name in {function}(): {name}")));
    }
    Ok(())
}

/// Joins the rows of series that have the same labels; fails if they have values at the same step.
///
/// The first of them keeps its place.
pub fn merge_equal(budget: &Budget, rows: Vec<SeriesRow>) -> Result<Vec<SeriesRow>, QueryError> {
    let mut known: HashMap<Labels, usize> = HashMap::with_capacity(rows.len());
    let mut merged: Vec<SeriesRow> = Vec::with_capacity(rows.len());
    for series in rows {
        budget.check()?;
        match known.entry(series.labels.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(merged.len());
                merged.push(series);
            }
            Entry::Occupied(entry) => {
                let into = &mut merged[*entry.get()];
                merge_into(&mut into.row, series.row)?;
                into.drop_name &= series.drop_name;
            }
        }
    }
    Ok(merged)
}

/// The labels of `absent(expr)` and `absent_over_time(expr)`: what a selector's `=` matchers say there
/// would have been, in parentheses or not. The first `=` of a label says it, and any matcher after that takes it
/// back.
pub fn absent_labels(expr: &Expr) -> Labels {
    let matchers: &[Matcher] = match expr {
        Expr::Vector(selector) => &selector.matchers,
        Expr::Matrix(matrix) => &matrix.selector.matchers,
        Expr::Paren(paren) => return absent_labels(&paren.expr),
        Expr::Number(_)
        | Expr::String(_)
        | Expr::Subquery(_)
        | Expr::Call(_)
        | Expr::Aggregate(_)
        | Expr::Binary(_)
        | Expr::Unary(_) => return Labels::empty(),
    };
    let mut labels = LabelsBuilder::new();
    let mut told: Vec<&str> = Vec::new();
    for matcher in matchers.iter().filter(|matcher| matcher.name() != METRIC_NAME) {
        if matcher.op() == MatchOp::Equal && !told.contains(&matcher.name()) {
            labels.set(matcher.name(), matcher.value());
            told.push(matcher.name());
        } else {
            labels.remove(matcher.name());
        }
    }
    labels.build()
}

/// `absent(rows)`: 1 wherever no series has a value.
pub fn absent(budget: &Budget, rows: &[SeriesRow], steps: Steps) -> Result<Row, QueryError> {
    let mut present = vec![false; steps.count];
    for series in rows {
        budget.check()?;
        for (place, value) in present.iter_mut().zip(&series.row.floats) {
            *place |= !is_absent(*value);
        }
        for (step, _) in &series.row.histograms {
            if let Some(place) = usize::try_from(*step).ok().and_then(|step| present.get_mut(step)) {
                *place = true;
            }
        }
    }
    let floats = present.into_iter().map(|present| if present { ABSENT } else { 1.0 }).collect();
    Ok(Row { floats, histograms: Vec::new() })
}

/// `scalar(rows)`: the value of the only series that has one, else NaN.
pub fn scalar(budget: &Budget, rows: &[SeriesRow], steps: Steps) -> Result<Vec<f64>, QueryError> {
    let mut found = vec![ABSENT; steps.count];
    let mut several = vec![false; steps.count];
    for series in rows {
        budget.check()?;
        for ((found, several), value) in found.iter_mut().zip(&mut several).zip(&series.row.floats) {
            if !is_absent(*value) {
                *several |= !is_absent(*found);
                *found = *value;
            }
        }
    }
    let only = |(value, several)| if several || is_absent(value) { f64::NAN } else { value };
    Ok(found.into_iter().zip(several).map(only).collect())
}

/// `vector(s)`: a scalar as a series without labels.
pub fn vector(scalar: Vec<f64>) -> SeriesRow {
    let row = Row { floats: scalar, histograms: Vec::new() };
    SeriesRow { labels: Labels::empty(), drop_name: false, row }
}

/// `sort(rows)` and `sort_desc(rows)`: by value, NaN last either way; histograms have no order and go.
///
/// Over several steps there is no order to give, and the user is told so.
pub fn sort(
    budget: &Budget,
    mut rows: Vec<SeriesRow>,
    descending: bool,
    steps: Steps,
    notes: &mut Annotations,
    span: Span,
) -> Result<Vec<SeriesRow>, QueryError> {
    for series in &mut rows {
        series.row.histograms.clear();
    }
    rows.retain(|series| !series.row.is_empty());
    if steps.count > 1 {
        notes.warn(annotations::sort_in_range_query(), span);
        return Ok(rows);
    }
    let value = |series: &SeriesRow| series.row.floats.first().copied().unwrap_or(f64::NAN);
    order::sort_by(budget, rows, |a, b| {
        let (a, b) = (value(a), value(b));
        a.is_nan().cmp(&b.is_nan()).then_with(|| {
            let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
            if descending { order.reverse() } else { order }
        })
    })
}

/// `sort_by_label(rows, labels…)` and `sort_by_label_desc`: by these labels as people count
/// (`a2` before `a10`), then by all labels.
pub fn sort_by_label(
    budget: &Budget,
    rows: Vec<SeriesRow>,
    labels: &[&str],
    descending: bool,
    steps: Steps,
    notes: &mut Annotations,
    span: Span,
) -> Result<Vec<SeriesRow>, QueryError> {
    if steps.count > 1 {
        notes.warn(annotations::sort_in_range_query(), span);
        return Ok(rows);
    }
    order::sort_by(budget, rows, |a, b| {
        let by_label = |name: &&str| {
            let [a, b] = [a, b].map(|series| series.labels.get(name).unwrap_or_default());
            natural_order(a, b)
        };
        let order = labels
            .iter()
            .map(by_label)
            .find(|order| order.is_ne())
            .unwrap_or_else(|| a.labels.cmp(&b.labels));
        if descending { order.reverse() } else { order }
    })
}

/// Compares texts part by part: runs of digits as numbers, what is between them bytewise.
fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut rest_a, mut rest_b) = (a, b);
    loop {
        let (part_a, after_a) = split_part(rest_a);
        let (part_b, after_b) = split_part(rest_b);
        if part_a.is_empty() || part_b.is_empty() {
            // One has ended; what differs only in leading zeros still needs an order.
            return part_a.len().cmp(&part_b.len()).then_with(|| a.cmp(b));
        }
        let number = |part: &str| part.starts_with(|c: char| c.is_ascii_digit());
        let order = if number(part_a) && number(part_b) {
            let (x, y) = (part_a.trim_start_matches('0'), part_b.trim_start_matches('0'));
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        } else {
            part_a.cmp(part_b)
        };
        if order.is_ne() {
            return order;
        }
        (rest_a, rest_b) = (after_a, after_b);
    }
}

/// The run of digits or of other characters that a text begins with, and the rest.
fn split_part(text: &str) -> (&str, &str) {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests;
