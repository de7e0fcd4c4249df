//! What a tenant may use: every limit there is, by name.
//!
//! A limit is a number in its [`Unit`] or none, which is without bound; a smaller number is stricter. The table is all
//! there is to a limit's outside: configuration, overrides, tokens, `/api/v1/user_limits` and the text of
//! a refusal know limits by it. Who enforces one reads it from the [`TenantLimits`] of the request.

use std::{fmt, time::Duration};

/// What a limit's number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Things in a second.
    PerSecond,
    /// Bytes.
    Bytes,
    /// Bytes in a second.
    BytesPerSecond,
    /// Milliseconds.
    Millis,
}

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $limit:ident = $name:literal, $unit:ident, $default:expr;)+) => {
        /// What can be limited, per tenant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Limit { $($(#[doc = $doc])+ $limit,)+ }

        impl Limit {
            /// All there are.
            pub const ALL: [Self; [$(Self::$limit),+].len()] = [$(Self::$limit),+];

            /// The name it has in configuration, overrides, tokens and answers.
            pub fn name(self) -> &'static str {
                match self { $(Self::$limit => $name,)+ }
            }

            /// What its number counts.
            pub fn unit(self) -> Unit {
                match self { $(Self::$limit => Unit::$unit,)+ }
            }

            /// What holds if nobody says anything; none is without bound.
            pub fn default(self) -> Option<u64> {
                match self { $(Self::$limit => $default,)+ }
            }
        }
    };
}

limits! {
    /// Write requests in a second.
    WriteRequests = "write_requests_per_second", PerSecond, None;
    /// Write requests at once, after a rest; none is a second's worth.
    WriteRequestsBurst = "write_requests_burst", Count, None;
    /// Samples, histograms and exemplars in a second.
    Samples = "samples_per_second", PerSecond, None;
    /// Samples, histograms and exemplars at once, after a rest; none is a second's worth.
    SamplesBurst = "samples_burst", Count, None;
    /// Bytes of write requests in a second, as they come over the wire.
    Bytes = "bytes_per_second", BytesPerSecond, None;
    /// Bytes of write requests at once, after a rest; none is a second's worth.
    BytesBurst = "bytes_burst", Bytes, None;
    /// Queries, and questions about series and labels, in a second.
    Queries = "queries_per_second", PerSecond, None;
    /// Queries at once, after a rest; none is a second's worth.
    QueriesBurst = "queries_burst", Count, None;
    /// Series that begin, in a second.
    NewSeries = "new_series_per_second", PerSecond, None;
    /// Series that begin at once, after a rest; none is a second's worth.
    NewSeriesBurst = "new_series_burst", Count, None;
    /// Write requests that are worked on at a time.
    ConcurrentWrites = "max_concurrent_writes", Count, None;
    /// Queries that run or wait at a time.
    ConcurrentQueries = "max_concurrent_queries", Count, None;
    /// Series that take samples.
    ActiveSeries = "max_active_series", Count, None;
    /// Labels of a series.
    LabelNames = "max_label_names", Count, Some(64);
    /// Bytes of a label's name.
    LabelNameBytes = "max_label_name_bytes", Bytes, Some(1 << 10);
    /// Bytes of a label's value.
    LabelValueBytes = "max_label_value_bytes", Bytes, Some(4 << 10);
    /// How far behind its series' newest sample one may be; none is as far as the retention.
    OutOfOrderWindow = "out_of_order_window", Millis, None;
    /// How far in the future a sample may lie.
    CreationGrace = "creation_grace", Millis, Some(600_000);
    /// From a query's first to its last step, and again how far beyond its steps each of its selectors reads: with
    /// its range and those of the subqueries around it. Offsets and the lookback do not count.
    QueryRange = "max_query_range", Millis, None;
    /// Steps of a range query.
    QueryPoints = "max_query_points", Count, None;
    /// Samples a query may hold.
    QuerySamples = "max_query_samples", Count, None;
    /// Series a query may select.
    QuerySeries = "max_query_series", Count, None;
    /// Bytes of samples and labels a query may hold.
    QueryBytes = "max_query_bytes", Bytes, None;
    /// How long a query may take, waiting included.
    QueryTimeout = "query_timeout", Millis, None;
}

impl Limit {
    /// The limit of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|limit| limit.name() == name)
    }

    /// For a rate, how much of it may be had at once.
    pub fn burst(self) -> Option<Self> {
        match self {
            Self::WriteRequests => Some(Self::WriteRequestsBurst),
            Self::Samples => Some(Self::SamplesBurst),
            Self::Bytes => Some(Self::BytesBurst),
            Self::Queries => Some(Self::QueriesBurst),
            Self::NewSeries => Some(Self::NewSeriesBurst),
            _ => None,
        }
    }
}

/// Which of two different values at the same series and time stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnConflict {
    /// The one written last.
    #[default]
    Last,
    /// The one written first; the other is rejected.
    Reject,
}

/// The limits of one tenant, or of one token of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TenantLimits {
    values: [Option<u64>; Limit::ALL.len()],
    /// What is refused for good (400) instead of for now (429) when it is used up.
    for_good: u64,
    /// Other bits at a time that has a sample already.
    pub on_conflict: OnConflict,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self { values: Limit::ALL.map(Limit::default), for_good: 0, on_conflict: OnConflict::default() }
    }
}

impl TenantLimits {
    /// No limits at all.
    pub fn unlimited() -> Self {
        Self { values: [None; Limit::ALL.len()], ..Self::default() }
    }

    /// A limit's number; none is without bound.
    pub fn get(&self, limit: Limit) -> Option<u64> {
        self.values[limit as usize]
    }

    /// A limit's number as a size in memory; without bound it is the largest there is.
    pub fn size(&self, limit: Limit) -> usize {
        self.get(limit).map_or(usize::MAX, |size| usize::try_from(size).unwrap_or(usize::MAX))
    }

    /// A limit's number as a time.
    pub fn duration(&self, limit: Limit) -> Option<Duration> {
        self.get(limit).map(Duration::from_millis)
    }

    /// Sets a limit.
    pub fn set(&mut self, limit: Limit, value: Option<u64>) {
        self.values[limit as usize] = value;
    }

    /// The same with one limit set.
    #[must_use]
    pub fn with(mut self, limit: Limit, value: u64) -> Self {
        self.set(limit, Some(value));
        self
    }

    /// Whether what is over this limit is refused for good, so that a sender drops it, or to come again.
    pub fn refuses_for_good(&self, limit: Limit) -> bool {
        self.for_good & (1 << limit as u32) != 0
    }

    /// Chooses that.
    pub fn refuse_for_good(&mut self, limit: Limit, yes: bool) {
        if yes {
            self.for_good |= 1 << limit as u32;
        } else {
            self.for_good &= !(1 << limit as u32);
        }
    }

    /// Makes every limit at least as strict as `other`'s.
    pub fn cap(&mut self, other: &Self) {
        for (value, cap) in self.values.iter_mut().zip(other.values) {
            *value = match (*value, cap) {
                (Some(value), Some(cap)) => Some(value.min(cap)),
                (value, cap) => value.or(cap),
            };
        }
    }

    /// Each limit and its number.
    pub fn iter(&self) -> impl Iterator<Item = (Limit, Option<u64>)> {
        Limit::ALL.into_iter().zip(self.values)
    }
}

/// Something that a tenant's limit does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverLimit {
    /// Which limit.
    pub limit: Limit,
    /// What it allows.
    pub allowed: u64,
    /// What was asked for, or is used already.
    pub asked: u64,
    /// When the same may be asked again; none is never.
    pub retry_after: Option<Duration>,
    /// Whether the tenant wants it refused for good all the same.
    pub for_good: bool,
}

impl fmt::Display for OverLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, allowed, asked, .. } = self;
        write!(f, "over the limit {} of {allowed}: {asked}", limit.name())
    }
}

impl std::error::Error for OverLimit {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_names_of_their_own_and_fit_the_set() {
        for limit in Limit::ALL {
            assert_eq!(Limit::of_name(limit.name()), Some(limit));
        }
        assert!(Limit::ALL.len() <= 64);
        assert_eq!(Limit::of_name("max_label_nam"), None);
    }

    #[test]
    fn a_cap_only_makes_stricter() {
        let mut limits = TenantLimits::unlimited().with(Limit::Samples, 10).with(Limit::Bytes, 5);
        limits.cap(
            &TenantLimits::unlimited().with(Limit::Samples, 7).with(Limit::Bytes, 9).with(Limit::Queries, 1),
        );
        assert_eq!(limits.get(Limit::Samples), Some(7));
        assert_eq!(limits.get(Limit::Bytes), Some(5));
        assert_eq!(limits.get(Limit::Queries), Some(1));
        assert_eq!(limits.get(Limit::ActiveSeries), None);
    }

    #[test]
    fn each_limit_is_refused_for_good_on_its_own() {
        let mut limits = TenantLimits::default();
        limits.refuse_for_good(Limit::Samples, true);
        assert!(limits.refuses_for_good(Limit::Samples) && !limits.refuses_for_good(Limit::Bytes));
        limits.refuse_for_good(Limit::Samples, false);
        assert!(!limits.refuses_for_good(Limit::Samples));
    }
}
