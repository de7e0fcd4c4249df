//! Which rows may share an insert.
//!
//! ClickHouse cuts an insert into a part for each retention and day in it, and every part costs it as much
//! as a small insert. What is written now is of two days at most and goes together; older days go by a few
//! at a time, however long the history that somebody sends.

use std::collections::BTreeMap;

use super::rows::Body;
use crate::model::{Millis, Timestamp};

/// Days of history that go together.
const DAYS_TOGETHER: i64 = 8;

const DAY: i64 = Millis::DAY.0;

/// Rows that may share an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Lot {
    /// Their class of retention.
    pub(super) ret: u16,
    /// Their days.
    pub(super) days: Days,
}

/// Days that go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Days {
    /// Yesterday, today and tomorrow, or no day at all.
    Now,
    /// Others.
    Other(i64),
}

/// Tells which days go together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calendar {
    from: i64,
    until: i64,
}

impl Calendar {
    /// As it is at `now`.
    pub(super) fn at(now: Timestamp) -> Self {
        let start = now.day().saturating_sub(1).saturating_mul(DAY);
        Self { from: start, until: start.saturating_add(3 * DAY) }
    }

    /// The days that something at `ts` goes with.
    #[inline]
    pub(super) fn days(self, ts: i64) -> Days {
        if self.from <= ts && ts < self.until {
            Days::Now
        } else {
            Days::Other(ts.div_euclid(DAY * DAYS_TOGETHER))
        }
    }
}

/// Encoded rows by lot, in bodies of bounded size.
#[derive(Debug)]
pub(super) struct Bodies {
    /// When a body is full.
    bytes: usize,
    lots: BTreeMap<Lot, Vec<Body>>,
}

impl Bodies {
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes, lots: BTreeMap::new() }
    }

    /// Adds a row.
    pub(super) fn put(&mut self, lot: Lot, row: impl FnOnce(&mut Vec<u8>)) {
        let bodies = self.lots.entry(lot).or_default();
        if bodies.last().is_none_or(|body| body.bytes.len() >= self.bytes) {
            bodies.push(Body::default());
        }
        if let Some(body) = bodies.last_mut() {
            row(&mut body.bytes);
            body.end_row();
        }
    }

    /// All of them.
    pub(super) fn into_bodies(self) -> impl Iterator<Item = (Lot, Body)> {
        self.lots.into_iter().flat_map(|(lot, bodies)| bodies.into_iter().map(move |body| (lot, body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_is_three_days_and_the_rest_goes_by_eights() {
        let calendar = Calendar::at(Timestamp(20_000 * DAY + 5));
        assert_eq!(calendar.days(20_000 * DAY), Days::Now);
        assert_eq!(calendar.days(19_999 * DAY), Days::Now);
        assert_eq!(calendar.days(20_002 * DAY - 1), Days::Now);
        assert_eq!(calendar.days(20_002 * DAY), Days::Other(2_500));
        assert_eq!(calendar.days(19_999 * DAY - 1), Days::Other(2_499));
        assert_eq!(calendar.days(19_992 * DAY), Days::Other(2_499));
        assert_eq!(calendar.days(-1), Days::Other(-1));
        let far = Calendar::at(Timestamp::MAX);
        assert_eq!(far.days(i64::MIN), Days::Other(i64::MIN.div_euclid(8 * DAY)));
    }

    #[test]
    fn bodies_are_bounded() {
        let mut bodies = Bodies::new(10);
        let lot = Lot { ret: 1, days: Days::Now };
        for _ in 0..5 {
            bodies.put(lot, |bytes| bytes.extend_from_slice(b"abcdef"));
        }
        let rows: Vec<usize> = bodies.into_bodies().map(|(_, body)| body.rows).collect();
        assert_eq!(rows, [2, 2, 1]);
    }
}
