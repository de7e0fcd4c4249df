//! Instants and spans, in milliseconds.

use std::fmt;

/// An instant: milliseconds since the Unix epoch. Any `i64` is legal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The earliest instant there is.
    pub const MIN: Self = Self(i64::MIN);
    /// The last instant there is.
    pub const MAX: Self = Self(i64::MAX);

    /// This instant as milliseconds since the Unix epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// The time in UTC as RFC 3339, with milliseconds; what that cannot say is the number.
    pub fn rfc3339(self) -> String {
        jiff::Timestamp::from_millisecond(self.0).map_or_else(|_| self.to_string(), |at| format!("{at:.3}"))
    }

    /// The instant `span` later; the ends of time hold.
    #[must_use]
    pub const fn plus(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// The instant `span` earlier; the ends of time hold.
    #[must_use]
    pub const fn minus(self, span: Millis) -> Self {
        Self(self.0.saturating_sub(span.0))
    }

    /// The UTC day this instant lies in, counted from the epoch.
    pub const fn day(self) -> i64 {
        self.0.div_euclid(Millis::DAY.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A span of time in milliseconds; may be negative (an offset).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub i64);

impl Millis {
    /// One second.
    pub const SECOND: Self = Self(1_000);
    /// One minute.
    pub const MINUTE: Self = Self(60_000);
    /// One hour.
    pub const HOUR: Self = Self(3_600_000);
    /// One day of 24 hours.
    pub const DAY: Self = Self(86_400_000);

    /// The span as a plain number of milliseconds.
    pub const fn millis(self) -> i64 {
        self.0
    }
}

/// The instants from `start` to `end`, both included.
///
/// Invariant: `start <= end`. A range is never empty, so nothing that holds one has to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    start: Timestamp,
    end: Timestamp,
}

impl TimeRange {
    /// All of time.
    pub const ALL: Self = Self { start: Timestamp::MIN, end: Timestamp::MAX };

    /// The range from `start` to `end`, or none if it would be empty.
    pub fn new(start: Timestamp, end: Timestamp) -> Option<Self> {
        (start <= end).then_some(Self { start, end })
    }

    /// The first instant of the range.
    pub const fn start(self) -> Timestamp {
        self.start
    }

    /// The last instant of the range.
    pub const fn end(self) -> Timestamp {
        self.end
    }

    /// Whether the range holds `at`.
    pub fn contains(self, at: Timestamp) -> bool {
        self.start <= at && at <= self.end
    }

    /// Whether the two ranges share an instant.
    pub fn overlaps(self, other: Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// The smallest range that holds both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// This range and so many milliseconds more on both sides of it.
    #[must_use]
    pub fn widened(self, by: u64) -> Self {
        let (start, end) = (self.start.0.saturating_sub_unsigned(by), self.end.0.saturating_add_unsigned(by));
        Self { start: Timestamp(start), end: Timestamp(end) }
    }

    /// What both ranges hold.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }
}
