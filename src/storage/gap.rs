//! What is left of samples that were put together.
//!
//! A store that downsamples keeps some of a series' samples as they are, and says of those that lay between two that it
//! has kept what a query can use:
//!
//! ```text
//! raw    ●  ·  ·  ·  ·  ●  ●  ·  ·  ·  ·  ●
//! kept   ●──── gap ─────●  ●──── gap ─────●      a gap knows the times of the samples at its ends
//! ```
//!
//! Nothing here depends on how far apart the kept ones are: gaps that follow each other join to one, when the sample
//! between them goes as well. What was written later may lie within a gap, as a sample of its own: the gap does not
//! know of it.

use crate::model::TimeRange;

/// A gap, and the times of the samples that it lies between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Between {
    /// The time of the sample before it.
    pub from: i64,
    /// The time of the sample after it, which is later.
    pub to: i64,
    /// What lay there.
    pub gap: Gap,
}

impl Between {
    /// Whether it is of a time: later than the one sample and earlier than the other.
    pub fn spans(&self, at: i64) -> bool {
        self.from < at && at < self.to
    }

    /// Whether it, or a sample at its ends, is of a range.
    pub fn touches(&self, range: TimeRange) -> bool {
        self.from <= range.end().0 && range.start().0 <= self.to
    }

    /// The one of several, which are in order, that is of a time.
    pub fn of(all: &[Self], at: i64) -> Option<&Self> {
        all.get(all.partition_point(|between| between.to <= at)).filter(|between| between.spans(at))
    }
}

/// What lay between two samples that are kept, and was put together.
///
/// `min`, `max`, `lost`, `resets` and `changes` are about the whole way from the one to the other, both of them included;
/// `count` and `sum` are of what lay between them alone.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gap {
    /// So many samples lay there. If none did there is no gap, and nothing else here means anything.
    pub count: u64,
    /// What they add up to.
    pub sum: f64,
    /// The least, NaN left out; NaN if there is nothing else.
    pub min: f64,
    /// The greatest, NaN left out; NaN if there is nothing else.
    pub max: f64,
    /// What a counter lost in resets: the sum of the values right before it fell.
    pub lost: f64,
    /// How often the value fell.
    pub resets: u64,
    /// How often it changed; from NaN to NaN is no change.
    pub changes: u64,
}

impl Gap {
    /// The way from one sample to the next: nothing lay between them.
    pub fn step(from: f64, to: f64) -> Self {
        let fell = to < from;
        Self {
            count: 0,
            sum: 0.0,
            min: least(from, to),
            max: greatest(from, to),
            lost: if fell { from } else { 0.0 },
            resets: u64::from(fell),
            changes: u64::from(from != to && !(from.is_nan() && to.is_nan())),
        }
    }

    /// The way from one sample to the next that is kept, with what lay between them.
    #[must_use]
    pub fn way(self, from: f64, to: f64) -> Self {
        if self.count == 0 { Self::step(from, to) } else { self }
    }

    /// This way and then the next one, of which the sample between them is put together with the others; the sum is
    /// left to who has all of them.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        Self {
            count: self.count + 1 + next.count,
            sum: 0.0,
            min: least(self.min, next.min),
            max: greatest(self.max, next.max),
            lost: self.lost + next.lost,
            resets: self.resets + next.resets,
            changes: self.changes + next.changes,
        }
    }

    /// The gap with one more sample, of which nobody knows what came before it and after it there.
    #[must_use]
    pub fn with(self, value: f64) -> Self {
        Self {
            count: self.count + 1,
            sum: self.sum + value,
            min: least(self.min, value),
            max: greatest(self.max, value),
            ..self
        }
    }

    /// How much a counter grew on the way.
    pub fn growth(&self, from: f64, to: f64) -> f64 {
        to - from + self.lost
    }
}

/// The lesser of two, the first of equals; NaN only if both are.
pub fn least(a: f64, b: f64) -> f64 {
    if b < a || a.is_nan() { b } else { a }
}

/// The greater of two, the first of equals; NaN only if both are.
pub fn greatest(a: f64, b: f64) -> f64 {
    if b > a || a.is_nan() { b } else { a }
}
