//! When a series loses its metric's name, and what happens when two become the same by it.
//!
//! A result that is no longer what the metric measured gives up `__name__`, and with it `__type__` and
//! `__unit__`. By default that happens where the value changes its meaning; with delayed name removal
//! the row is only marked, and the name goes when the query is done. Rows that end up with the same
//! labels become one if they never have a value at the same step, and are an error if they do.

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};

use super::{
    context::Budget,
    rows::{Row, SeriesRow, is_absent},
};
use crate::{model::Labels, promql::QueryError};

pub use crate::promql::functions::vector::drop_metadata as without_name;

/// What a leaf does with the names of series whose values are not what the metric measured any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Takes them, or marks the rows.
    AsMeant,
    /// Leaves them to whoever is handed the rows, and looks at some of the labels only.
    Kept,
}

/// Takes the names of rows whose values have changed their meaning, or marks them.
pub fn drop_names(
    budget: &Budget,
    rows: Vec<SeriesRow>,
    delayed: bool,
) -> Result<Vec<SeriesRow>, QueryError> {
    let mut rows = rows;
    let mut changed = false;
    for row in &mut rows {
        budget.check()?;
        if delayed {
            row.drop_name = true;
        } else {
            let labels = without_name(&row.labels);
            changed |= labels.as_canonical().len() != row.labels.as_canonical().len();
            row.labels = labels;
        }
    }
    if changed { merge_same(budget, rows) } else { Ok(rows) }
}

/// Takes the names that are still to be taken, at the end of a query.
pub fn settle(budget: &Budget, rows: Vec<SeriesRow>) -> Result<Vec<SeriesRow>, QueryError> {
    let mut rows = rows;
    for row in rows.iter_mut().filter(|row| row.drop_name) {
        budget.check()?;
        row.labels = without_name(&row.labels);
        row.drop_name = false;
    }
    merge_same(budget, rows)
}

/// Makes rows with the same labels one.
pub fn merge_same(budget: &Budget, rows: Vec<SeriesRow>) -> Result<Vec<SeriesRow>, QueryError> {
    if !has_same(budget, &rows)? {
        return Ok(rows);
    }
    let mut merged: Vec<SeriesRow> = Vec::with_capacity(rows.len());
    let mut places: HashMap<(Labels, bool), usize> = HashMap::with_capacity(rows.len());
    for row in rows {
        budget.check()?;
        match places.get(&(row.labels.clone(), row.drop_name)) {
            Some(place) => merge_into(&mut merged[*place].row, row.row)?,
            None => {
                places.insert((row.labels.clone(), row.drop_name), merged.len());
                merged.push(row);
            }
        }
    }
    Ok(merged)
}

/// Fails if two rows have the same labels, overlapping or not.
pub fn refuse_same(budget: &Budget, rows: &[SeriesRow]) -> Result<(), QueryError> {
    if has_same(budget, rows)? { Err(same_labels()) } else { Ok(()) }
}

fn has_same(budget: &Budget, rows: &[SeriesRow]) -> Result<bool, QueryError> {
    if rows.len() < 2 {
        return Ok(false);
    }
    let mut seen = HashSet::with_capacity(rows.len());
    for row in rows {
        budget.check()?;
        if !seen.insert((row.labels.as_canonical(), row.drop_name)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Fills the empty places of a row with another's values.
pub fn merge_into(into: &mut Row, from: Row) -> Result<(), QueryError> {
    if from.histograms.is_empty() && into.histograms.is_empty() {
        for (place, value) in into.floats.iter_mut().zip(&from.floats) {
            if !is_absent(*value) {
                if !is_absent(*place) {
                    return Err(same_labels());
                }
                *place = *value;
            }
        }
        return Ok(());
    }
    if (0..into.floats.len()).any(|i| into.has(i) && from.has(i)) {
        return Err(same_labels());
    }
    for (place, value) in into.floats.iter_mut().zip(&from.floats) {
        if !is_absent(*value) {
            *place = *value;
        }
    }
    into.histograms.extend(from.histograms);
    into.histograms.sort_by_key(|(step, _)| *step);
    Ok(())
}

/// Two series cannot be told apart any more.
pub fn same_labels() -> QueryError {
    QueryError::Execution("vector cannot contain metrics with the same labelset".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::exec::rows::ABSENT;

    fn row(name: &str, values: &[f64]) -> SeriesRow {
        let labels = Labels::from_pairs([("__name__", name), ("job", "a"), ("__unit__", "s")]).unwrap();
        SeriesRow { labels, drop_name: false, row: Row { floats: values.to_vec(), histograms: Vec::new() } }
    }

    #[test]
    fn rows_that_never_meet_become_one() {
        let rows =
            drop_names(&Budget::new(100), vec![row("a", &[1.0, ABSENT]), row("b", &[ABSENT, 2.0])], false)
                .unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].labels.to_string(), r#"{job="a"}"#);
        assert_eq!(rows[0].row.floats, [1.0, 2.0]);
    }

    #[test]
    fn rows_that_meet_are_an_error() {
        let met = drop_names(&Budget::new(100), vec![row("a", &[1.0, 5.0]), row("b", &[ABSENT, 2.0])], false)
            .unwrap_err();
        assert_eq!(met.to_string(), "vector cannot contain metrics with the same labelset");
    }

    #[test]
    fn delayed_names_go_at_the_end() {
        let rows = drop_names(&Budget::new(100), vec![row("a", &[1.0]), row("b", &[ABSENT])], true).unwrap();
        assert_eq!(rows[0].labels.metric_name(), Some("a"));
        let rows = settle(&Budget::new(100), rows).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].labels.len(), 1);
    }
}
