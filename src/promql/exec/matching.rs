//! Operators between two vectors: who meets whom.
//!
//! Every series has a signature, the labels it is matched by; series with equal signatures meet. Which
//! signature a series has is settled once. Whether too many meet is settled step by step, because only
//! series that have a value at a step count there: two that take turns are no conflict.
//!
//! One side is called "many" (either side may be, as `group_left` and `group_right` say), and each of
//! its rows is combined with the rows of the "one" side that have its signature.

use foldhash::{HashMap, HashMapExt};

use super::{
    context::{Context, Findings, weight},
    element::{Operator, Side, is_name},
    names::{merge_into, same_labels, without_name},
    rows::{ABSENT, Row, SeriesRow, Steps},
};
use crate::{
    model::Labels,
    promql::{
        QueryError,
        annotations::Annotations,
        parse::{Cardinality, VectorMatching},
    },
};

/// The labels a series is matched by.
pub fn signature(labels: &Labels, matching: &VectorMatching) -> Labels {
    let listed = |name: &str| matching.labels.iter().any(|label| label == name);
    if matching.on { labels.only(listed) } else { labels.without(|name| is_name(name) || listed(name)) }
}

/// The series of both sides that have one signature.
#[derive(Debug, Default)]
struct Meeting {
    labels: Option<Labels>,
    many: Vec<usize>,
    one: Vec<usize>,
}

/// Evaluates an operator that is not a set operator between two vectors.
pub fn vectors(
    context: &Context,
    operator: &Operator,
    lhs: &[SeriesRow],
    rhs: &[SeriesRow],
    matching: &VectorMatching,
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Vec<SeriesRow>, QueryError> {
    let swapped = matching.card == Cardinality::OneToMany;
    let join = Join {
        context,
        operator,
        matching,
        steps,
        many: if swapped { rhs } else { lhs },
        one: if swapped { lhs } else { rhs },
        side: Side { is_left: !swapped, is_kept: !swapped },
        fill_many: if swapped { matching.fill_right } else { matching.fill_left },
        fill_one: if swapped { matching.fill_left } else { matching.fill_right },
    };
    let (meetings, of_many) = join.meetings()?;
    join.refuse_ambiguous_one(&meetings)?;
    join.refuse_ambiguous_many(&meetings)?;

    let mut results = Results { rows: Vec::new(), places: HashMap::new(), matching };
    let work = |rows: std::ops::Range<usize>, findings: &mut Findings| {
        let mut combined = Vec::with_capacity(rows.len());
        for (row, meeting) in join.many[rows.clone()].iter().zip(&of_many[rows]) {
            context.check()?;
            let found = join.combine(row, &meetings[*meeting], findings)?;
            combined.extend(found.into_iter().map(|result| (result, *meeting)));
        }
        Ok(combined)
    };
    let findings = context.over_chunks(join.many.len(), work, |combined| {
        combined.into_iter().try_for_each(|(row, meeting)| results.put(row, meeting))?;
        context.budget.within(results.rows.len(), steps.count)
    })?;
    // What the rows weigh is counted where they go.
    context.budget.release(findings.held);
    notes.merge(findings.notes);
    if let Some(fill) = join.fill_many {
        for (number, meeting) in meetings.iter().enumerate().filter(|(_, meeting)| !meeting.one.is_empty()) {
            context.check()?;
            for row in join.fill_in(fill, meeting, notes)? {
                results.put(row, number)?;
            }
        }
    }
    Ok(results.rows)
}

struct Join<'a> {
    context: &'a Context,
    operator: &'a Operator,
    matching: &'a VectorMatching,
    steps: &'a Steps,
    many: &'a [SeriesRow],
    one: &'a [SeriesRow],
    /// How the many side takes part.
    side: Side,
    fill_many: Option<f64>,
    fill_one: Option<f64>,
}

impl Join<'_> {
    /// All meetings, and which of them each row of the many side is in.
    fn meetings(&self) -> Result<(Vec<Meeting>, Vec<usize>), QueryError> {
        let mut numbers: HashMap<Labels, usize> = HashMap::with_capacity(self.many.len());
        let mut meetings: Vec<Meeting> = Vec::new();
        let mut number = |row: &SeriesRow, meetings: &mut Vec<Meeting>| {
            let labels = signature(&row.labels, self.matching);
            *numbers.entry(labels).or_insert_with_key(|labels| {
                meetings.push(Meeting { labels: Some(labels.clone()), ..Meeting::default() });
                meetings.len() - 1
            })
        };
        let mut of_many = Vec::with_capacity(self.many.len());
        for (i, row) in self.many.iter().enumerate() {
            self.context.check()?;
            let at = number(row, &mut meetings);
            meetings[at].many.push(i);
            of_many.push(at);
        }
        for (i, row) in self.one.iter().enumerate() {
            self.context.check()?;
            let at = number(row, &mut meetings);
            meetings[at].one.push(i);
        }
        Ok((meetings, of_many))
    }

    /// Fails if at some step two series of the "one" side have the same signature.
    fn refuse_ambiguous_one(&self, meetings: &[Meeting]) -> Result<(), QueryError> {
        // The first conflict in time is the one that is reported.
        let mut first: Option<(usize, &Meeting, [usize; 2])> = None;
        // Where there is nothing on the other side and nothing to fill in, nobody looks.
        let mut others: Option<Vec<bool>> = None;
        for meeting in meetings.iter().filter(|meeting| meeting.one.len() > 1) {
            self.context.check()?;
            let others = match &mut others {
                Some(others) => others,
                None if self.fill_many.is_some() => others.insert(vec![true; self.steps.count]),
                None => others.insert(presence(self.context, self.many, self.steps)?),
            };
            let until = first.as_ref().map_or(self.steps.count, |(step, ..)| *step);
            for step in (0..until).filter(|step| others[*step]) {
                self.context.check()?;
                let mut present = meeting.one.iter().copied().filter(|i| self.one[*i].row.has(step));
                if let (Some(a), Some(b)) = (present.next(), present.next()) {
                    first = Some((step, meeting, [a, b]));
                    break;
                }
            }
        }
        let Some((_, meeting, pair)) = first else { return Ok(()) };
        let group = meeting.labels.clone().unwrap_or_else(Labels::empty);
        let side = if self.side.is_left { "right" } else { "left" };
        let mut pair = pair.map(|i| self.one[i].labels.to_string());
        pair.sort();
        Err(QueryError::Execution(format!(
            "found duplicate series for the match group {group} on the {side} hand-side of the operation: \
             [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
            pair[0], pair[1]
        )))
    }

    /// Fails if in a one-to-one match two series of the left side meet one of the right at some step.
    fn refuse_ambiguous_many(&self, meetings: &[Meeting]) -> Result<(), QueryError> {
        if self.matching.card != Cardinality::OneToOne {
            return Ok(());
        }
        for meeting in meetings.iter().filter(|meeting| meeting.many.len() > 1) {
            self.context.check()?;
            for step in 0..self.steps.count {
                self.context.check()?;
                let matched =
                    self.fill_one.is_some() || meeting.one.iter().any(|i| self.one[*i].row.has(step));
                if matched && meeting.many.iter().filter(|i| self.many[**i].row.has(step)).nth(1).is_some() {
                    return Err(QueryError::Execution(
                        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
                            .to_owned(),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Combines a row of the many side with those it meets.
    ///
    /// Many that take turns on the one side make a row of each, which is why they are held as they come.
    fn combine(
        &self,
        row: &SeriesRow,
        meeting: &Meeting,
        findings: &mut Findings,
    ) -> Result<Vec<SeriesRow>, QueryError> {
        let notes = &mut findings.notes;
        let mut combined = Vec::with_capacity(1);
        let many = (&row.labels, row.drop_name);
        for one in meeting.one.iter().map(|i| &self.one[*i]) {
            self.context.check()?;
            let mut result = row.row.clone();
            self.operator.apply(&mut result, self.side, &one.row, notes);
            if let Some(result) = self.result(result, many, &one.labels) {
                let held = weight(&result.row);
                self.context.budget.hold(held)?;
                findings.held += held;
                combined.push(result);
            }
        }
        if let Some(fill) = self.fill_one {
            let other = self.stand_in(fill, &meeting.one, self.one)?;
            let mut result = row.row.clone();
            self.operator.apply(&mut result, self.side, &other, notes);
            combined.extend(self.result(result, many, &signature(&row.labels, self.matching)));
        }
        Ok(combined)
    }

    /// Combines the rows of the one side with what stands in for missing ones of the many side.
    fn fill_in(
        &self,
        fill: f64,
        meeting: &Meeting,
        notes: &mut Annotations,
    ) -> Result<Vec<SeriesRow>, QueryError> {
        let stand_in = self.stand_in(fill, &meeting.many, self.many)?;
        let mut combined = Vec::with_capacity(meeting.one.len());
        for one in meeting.one.iter().map(|i| &self.one[*i]) {
            self.context.check()?;
            let mut result = stand_in.clone();
            self.operator.apply(&mut result, self.side, &one.row, notes);
            let labels = signature(&one.labels, self.matching);
            combined.extend(self.result(result, (&labels, false), &one.labels));
        }
        Ok(combined)
    }

    /// A row of `fill` where none of the members has a value.
    fn stand_in(&self, fill: f64, members: &[usize], rows: &[SeriesRow]) -> Result<Row, QueryError> {
        let mut floats = Vec::with_capacity(self.steps.count);
        for step in 0..self.steps.count {
            // There may be many who have nothing at it.
            self.context.check()?;
            let has = members.iter().any(|i| rows[*i].row.has(step));
            floats.push(if has { ABSENT } else { fill });
        }
        Ok(Row { floats, histograms: Vec::new() })
    }

    /// A result under the labels it has by its many side and its one side, if it has any value.
    fn result(&self, row: Row, (many, many_drops): (&Labels, bool), one: &Labels) -> Option<SeriesRow> {
        if row.is_empty() {
            return None;
        }
        let delayed = self.context.settings.delayed_names;
        let drops = !self.operator.changes_meaning() && many_drops || self.operator.return_bool;
        let mut labels = self.result_labels(many, one);
        if self.operator.return_bool && !delayed {
            labels = without_name(&labels);
        }
        Some(SeriesRow { labels, drop_name: delayed && drops, row })
    }

    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let matching = self.matching;
        let mut labels = if self.operator.changes_meaning() { without_name(many) } else { many.clone() };
        if matching.card == Cardinality::OneToOne {
            let listed = |name: &str| matching.labels.iter().any(|label| label == name);
            labels = if matching.on { labels.only(listed) } else { labels.without(listed) };
        }
        if !matching.include.is_empty() {
            let mut edit = labels.edit();
            for name in &matching.include {
                edit.set(name, one.get(name).unwrap_or_default());
            }
            labels = edit.build();
        }
        labels
    }
}

/// Result rows by their labels.
struct Results<'a> {
    rows: Vec<SeriesRow>,
    /// Place and the last meeting that put something there.
    places: HashMap<(Labels, bool), (usize, usize)>,
    matching: &'a VectorMatching,
}

impl Results<'_> {
    fn put(&mut self, row: SeriesRow, meeting: usize) -> Result<(), QueryError> {
        let key = (row.labels.clone(), row.drop_name);
        let Some((place, last)) = self.places.get_mut(&key) else {
            self.places.insert(key, (self.rows.len(), meeting));
            self.rows.push(row);
            return Ok(());
        };
        let within_meeting = std::mem::replace(last, meeting) == meeting;
        let grouped = self.matching.card != Cardinality::OneToOne;
        merge_into(&mut self.rows[*place].row, row.row).map_err(|_| {
            if within_meeting && grouped {
                QueryError::Execution(
                    "multiple matches for labels: grouping labels must ensure unique matches".to_owned(),
                )
            } else {
                same_labels()
            }
        })
    }
}

/// At which steps any of the rows has a value.
pub fn presence(context: &Context, rows: &[SeriesRow], steps: &Steps) -> Result<Vec<bool>, QueryError> {
    let mut present = vec![false; steps.count];
    for row in rows {
        context.check()?;
        mark_presence(&row.row, &mut present);
    }
    Ok(present)
}

/// Marks the steps where a row has a value.
pub fn mark_presence(row: &Row, present: &mut [bool]) {
    for (place, value) in present.iter_mut().zip(&row.floats) {
        *place |= !super::rows::is_absent(*value);
    }
    for (step, _) in &row.histograms {
        if let Some(place) = usize::try_from(*step).ok().and_then(|at| present.get_mut(at)) {
            *place = true;
        }
    }
}
