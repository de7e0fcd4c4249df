//! `and`, `or`, `unless`: which elements stay depends on whether the other side has one with their signature.

use foldhash::{HashMap, HashMapExt};

use super::{
    context::Context,
    matching::{mark_presence, signature},
    names::merge_into,
    rows::{ABSENT, SeriesRow, Steps},
};
use crate::{
    model::Labels,
    promql::{
        QueryError,
        parse::{BinaryOp, VectorMatching},
    },
};

/// Evaluates a set operator; values and labels are those of the side an element comes from.
pub fn evaluate(
    context: &Context,
    op: BinaryOp,
    lhs: Vec<SeriesRow>,
    rhs: Vec<SeriesRow>,
    matching: &VectorMatching,
    steps: &Steps,
) -> Result<Vec<SeriesRow>, QueryError> {
    match op {
        BinaryOp::And => {
            let there = Presence::of(context, &rhs, matching, steps)?;
            mask(context, lhs, matching, &there, true)
        }
        BinaryOp::Unless => {
            let there = Presence::of(context, &rhs, matching, steps)?;
            mask(context, lhs, matching, &there, false)
        }
        _ => {
            let there = Presence::of(context, &lhs, matching, steps)?;
            let rhs = mask(context, rhs, matching, &there, false)?;
            unite(context, lhs, rhs)
        }
    }
}

/// At which steps there is an element with a signature.
struct Presence(HashMap<Labels, Vec<bool>>);

impl Presence {
    fn of(
        context: &Context,
        rows: &[SeriesRow],
        matching: &VectorMatching,
        steps: &Steps,
    ) -> Result<Self, QueryError> {
        let mut there = HashMap::with_capacity(rows.len());
        for row in rows {
            context.check()?;
            let present =
                there.entry(signature(&row.labels, matching)).or_insert_with(|| vec![false; steps.count]);
            mark_presence(&row.row, present);
        }
        Ok(Self(there))
    }
}

/// Keeps the elements whose signature is there (`wanted`), or those whose is not.
fn mask(
    context: &Context,
    rows: Vec<SeriesRow>,
    matching: &VectorMatching,
    there: &Presence,
    wanted: bool,
) -> Result<Vec<SeriesRow>, QueryError> {
    let mut kept = Vec::with_capacity(rows.len());
    for mut row in rows {
        context.check()?;
        match there.0.get(&signature(&row.labels, matching)) {
            None if wanted => continue,
            None => {}
            Some(present) => {
                for (place, present) in row.row.floats.iter_mut().zip(present) {
                    if *present != wanted {
                        *place = ABSENT;
                    }
                }
                row.row.histograms.retain(|(step, _)| {
                    usize::try_from(*step).ok().and_then(|at| present.get(at)).is_some_and(|p| *p == wanted)
                });
            }
        }
        if !row.row.is_empty() {
            kept.push(row);
        }
    }
    Ok(kept)
}

/// Puts the elements of both sides together; a series may come from one side at some steps and from the other at others.
fn unite(context: &Context, lhs: Vec<SeriesRow>, rhs: Vec<SeriesRow>) -> Result<Vec<SeriesRow>, QueryError> {
    let mut all = lhs;
    if all.is_empty() || rhs.is_empty() {
        all.extend(rhs);
        return Ok(all);
    }
    let mut places: HashMap<(Labels, bool), usize> = HashMap::with_capacity(all.len());
    for (place, row) in all.iter().enumerate() {
        context.check()?;
        places.insert((row.labels.clone(), row.drop_name), place);
    }
    for row in rhs {
        context.check()?;
        match places.get(&(row.labels.clone(), row.drop_name)) {
            Some(place) => merge_into(&mut all[*place].row, row.row)?,
            None => all.push(row),
        }
    }
    Ok(all)
}
