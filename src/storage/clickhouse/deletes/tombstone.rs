//! A tombstone, and how it is a row.

use crate::{
    model::{Labels, MatchOp, Matcher, Millis, TenantId, TimeRange, Timestamp},
    storage::{
        Result, StorageError,
        clickhouse::rowbinary::{Incomplete, Reader, Write},
    },
};

/// The columns of [`Row`], in its order.
pub(super) const COLUMNS: &str = "tenant, id, matchers, min_ts, max_ts, created, state";

/// Hides the samples of the series that all of `matchers` match.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::storage::clickhouse) struct Tombstone {
    pub(in crate::storage::clickhouse) matchers: Vec<Matcher>,
    pub(in crate::storage::clickhouse) range: TimeRange,
}

impl Tombstone {
    /// Whether it hides something of a series.
    pub(in crate::storage::clickhouse) fn covers(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or("")))
    }
}

/// What the tombstones hide of a series within a range: ranges in order, none touching another.
pub(in crate::storage::clickhouse) fn hidden(
    tombstones: &[Tombstone],
    labels: &Labels,
    within: TimeRange,
) -> Vec<TimeRange> {
    let covering = tombstones.iter().filter(|tombstone| tombstone.covers(labels));
    let mut ranges: Vec<TimeRange> =
        covering.filter_map(|tombstone| tombstone.range.intersection(within)).collect();
    ranges.sort_unstable_by_key(|range| range.start());
    let mut joined: Vec<TimeRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start() <= last.end().plus(Millis(1)) => *last = last.union(range),
            Some(_) | None => joined.push(range),
        }
    }
    joined
}

/// How far a tombstone has come; a later state replaces an earlier one in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// It hides, and what it hides is still there.
    Active = 0,
    /// It hides what is written again; what was there when it came is removed.
    Applied = 1,
    /// It hides nothing any more.
    Cleaned = 2,
}

/// A row of the table of tombstones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) tenant: String,
    pub(super) id: u128,
    /// Name, operator and value, as written.
    pub(super) matchers: Vec<(String, i8, String)>,
    pub(super) min: i64,
    pub(super) max: i64,
    pub(super) created: i64,
    pub(super) state: State,
}

impl Row {
    pub(super) fn new(
        tenant: &TenantId,
        id: u128,
        matchers: &[Matcher],
        range: TimeRange,
        now: Timestamp,
    ) -> Self {
        let matcher = |m: &Matcher| (m.name().to_owned(), number(m.op()), m.value().to_owned());
        Self {
            tenant: tenant.as_str().to_owned(),
            id,
            matchers: matchers.iter().map(matcher).collect(),
            min: range.start().0,
            max: range.end().0,
            created: now.0,
            state: State::Active,
        }
    }

    /// Writes the row, and the version that lets the latest state win.
    pub(super) fn put(&self, rows: &mut Vec<u8>) {
        rows.string(&self.tenant);
        rows.u64(high(self.id));
        rows.u64(low(self.id));
        rows.length(self.matchers.len());
        for (name, op, value) in &self.matchers {
            rows.string(name);
            rows.i8(*op);
            rows.string(value);
        }
        rows.i64(self.min);
        rows.i64(self.max);
        rows.i64(self.created);
        rows.i8(self.state as i8);
        rows.u64(self.state as u64);
    }

    /// Reads a row back.
    pub(super) fn take(row: &mut Reader<'_>) -> Result<Self, Incomplete> {
        let tenant = row.string()?;
        let id = u128::from(row.u64()?) << 64 | u128::from(row.u64()?);
        let matchers = row.array(|row| Ok((row.string()?, row.i8()?, row.string()?)))?;
        let (min, max, created) = (row.i64()?, row.i64()?, row.i64()?);
        let state = match row.i8()? {
            0 => State::Active,
            1 => State::Applied,
            _ => State::Cleaned,
        };
        Ok(Self { tenant, id, matchers, min, max, created, state })
    }

    /// What it hides. A tombstone that cannot be understood is an error: ignoring it would show what was deleted.
    pub(super) fn tombstone(&self) -> Result<Tombstone> {
        let damaged = |what: String| StorageError::Remote { detail: format!("a tombstone {what}") };
        let matcher = |(name, op, value): &(String, i8, String)| {
            let known = OPS.iter().find(|known| number(**known) == *op);
            let op = known.ok_or_else(|| damaged(format!("compares by {op}")))?;
            Matcher::new(*op, name, value).map_err(|error| damaged(format!("has a pattern: {error}")))
        };
        let matchers = self.matchers.iter().map(matcher).collect::<Result<_>>()?;
        let range = TimeRange::new(Timestamp(self.min), Timestamp(self.max));
        Ok(Tombstone { matchers, range: range.ok_or_else(|| damaged("ends before it begins".to_owned()))? })
    }
}

const OPS: [MatchOp; 4] = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Matches, MatchOp::NotMatches];

/// An operator's number in the table.
fn number(op: MatchOp) -> i8 {
    match op {
        MatchOp::Equal => 0,
        MatchOp::NotEqual => 1,
        MatchOp::Matches => 2,
        MatchOp::NotMatches => 3,
    }
}

fn high(id: u128) -> u64 {
    (id >> 64) as u64
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
fn low(id: u128) -> u64 {
    id as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: i64, end: i64) -> TimeRange {
        TimeRange::new(Timestamp(start), Timestamp(end)).unwrap()
    }

    #[test]
    fn a_row_comes_back() {
        let tenant = TenantId::new("t").unwrap();
        let matchers: Vec<Matcher> = OPS.iter().map(|op| Matcher::new(*op, "ü", "a'|\n").unwrap()).collect();
        let id = 3 << 64 | 5;
        let mut row = Row::new(&tenant, id, &matchers, range(i64::MIN, i64::MAX), Timestamp(-7));
        row.state = State::Applied;
        let mut bytes = Vec::new();
        row.put(&mut bytes);
        let mut reader = Reader::new(&bytes);
        let back = Row::take(&mut reader).unwrap();
        assert_eq!((&back, reader.u64()), (&row, Ok(1)));
        assert_eq!(back.tombstone().unwrap(), Tombstone { matchers, range: TimeRange::ALL });
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let tenant = TenantId::new("t").unwrap();
        let good = Row::new(&tenant, 1, &[Matcher::equal("a", "b")], range(1, 2), Timestamp(0));
        assert!(good.tombstone().is_ok());
        let pattern = vec![("a".to_owned(), 2, "(".to_owned())];
        for bad in [
            Row { matchers: pattern, ..good.clone() },
            Row { matchers: vec![("a".to_owned(), 9, String::new())], ..good.clone() },
            Row { min: 3, ..good },
        ] {
            assert!(bad.tombstone().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_hidden_is_joined_and_cut() {
        let tombstone = |start, end| Tombstone { matchers: Vec::new(), range: range(start, end) };
        let other = Tombstone { matchers: vec![Matcher::equal("a", "b")], range: TimeRange::ALL };
        let all = [tombstone(8, 20), tombstone(1, 3), tombstone(4, 5), tombstone(9, 9), other];
        let labels = Labels::empty();
        assert_eq!(hidden(&all, &labels, range(2, 15)), [range(2, 5), range(8, 15)]);
        assert_eq!(hidden(&all, &labels, range(6, 7)), []);
        assert_eq!(hidden(&[tombstone(i64::MIN, i64::MAX)], &labels, TimeRange::ALL), [TimeRange::ALL]);
    }
}
