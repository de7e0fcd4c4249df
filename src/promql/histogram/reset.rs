//! Whether a counter started again between two histograms.

use super::FloatHistogram;
use crate::model::histogram::ResetHint;

impl FloatHistogram {
    /// Whether this histogram counts from a later start than `previous` did.
    ///
    /// The writer's hint decides if it says yes or no. Otherwise: anything that became less means a
    /// reset, and so does a finer layout, because a running counter only ever gets coarser.
    pub fn detect_reset(&self, previous: &Self) -> bool {
        match self.reset_hint {
            ResetHint::Yes => return true,
            ResetHint::No => return false,
            ResetHint::Unknown | ResetHint::Gauge => {}
        }
        if self.count < previous.count || self.uses_custom_buckets() != previous.uses_custom_buckets() {
            return true;
        }
        if self.uses_custom_buckets() {
            return self.custom_buckets_shrank(previous);
        }
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let (zero_count, threshold) = previous.zero_count_within(self.zero_threshold);
        if threshold != self.zero_threshold || self.zero_count < zero_count {
            return true;
        }
        let coarse = previous.at_schema(self.schema);
        let outside = |(index, _): &(i32, f64)| coarse.bound(index.saturating_sub(1)) >= self.zero_threshold;
        shrank(self.positive(), coarse.positive().filter(outside))
            || shrank(self.negative(), coarse.negative().filter(outside))
    }

    fn custom_buckets_shrank(&self, previous: &Self) -> bool {
        if self.custom_values == previous.custom_values {
            return shrank(self.positive(), previous.positive());
        }
        let common = self.common_bounds(previous);
        shrank(self.rebucketed(&common).into_iter(), previous.rebucketed(&common).into_iter())
    }
}

/// Which hints that may contradict each other were seen among histograms that are added up.
///
/// The hint of the sum does not tell: one without a hint makes the sum one without.
#[derive(Clone, Copy, Debug, Default)]
pub struct SeenHints {
    reset: bool,
    no_reset: bool,
}

impl SeenHints {
    /// Takes notice of a hint.
    pub fn see(&mut self, hint: ResetHint) {
        match hint {
            ResetHint::Yes => self.reset = true,
            ResetHint::No => self.no_reset = true,
            ResetHint::Unknown | ResetHint::Gauge => {}
        }
    }

    /// Whether one said that there was a reset, and another that there was none.
    pub fn collide(self) -> bool {
        self.reset && self.no_reset
    }
}

/// Whether any bucket holds less than it did; a bucket that is not there holds nothing.
fn shrank(now: impl Iterator<Item = (i32, f64)>, before: impl Iterator<Item = (i32, f64)>) -> bool {
    let mut now = now.peekable();
    for (index, count) in before {
        while now.next_if(|(i, _)| *i < index).is_some() {}
        let left = now.next_if(|(i, _)| *i == index).map_or(0.0, |(_, count)| count);
        if left < count {
            return true;
        }
    }
    false
}
