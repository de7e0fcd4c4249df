//! What a tenant may use: every limit there is, by name.
//!
//! A limit is a number in its [`Unit`] or none, which is without bound; a smaller number is stricter. The table is all
//! there is to a limit's outside: configuration, overrides, tokens, `/api/v1/user_limits` and the text of
//! a refusal know limits by it. Who enforces one reads it from the [`TenantLimits`] of the request.

use std::{fmt, ops::RangeInclusive, time::Duration};

use super::{
    feature::FeatureSwitches,
    quantity::{ByteSize, format_duration, parse_duration},
};

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

    /// For what may be had at once, the rate it is of.
    pub fn rate(self) -> Option<Self> {
        Self::ALL.into_iter().find(|rate| rate.burst() == Some(self))
    }

    /// The numbers it may have.
    pub fn range(self) -> RangeInclusive<u64> {
        match (self, self.unit()) {
            (Self::LabelNames, _) => 1..=10_000,
            (Self::LabelNameBytes | Self::LabelValueBytes, _) => 1..=1 << 20,
            // A query of no time, or of no step, is none.
            (Self::QueryTimeout | Self::QueryPoints, _) => 1..=i64::MAX.unsigned_abs(),
            (_, Unit::Count | Unit::PerSecond | Unit::Bytes | Unit::BytesPerSecond | Unit::Millis) => {
                0..=i64::MAX.unsigned_abs()
            }
        }
    }

    /// Whether it may be without bound. What a series is called may not: it is kept in memory.
    pub fn may_be_unlimited(self) -> bool {
        !matches!(self, Self::LabelNames | Self::LabelNameBytes | Self::LabelValueBytes)
    }

    /// Whether it may have this number, or none.
    pub fn check(self, value: Option<u64>) -> Result<(), String> {
        match value {
            None if self.may_be_unlimited() => Ok(()),
            None => Err("cannot be unlimited".to_owned()),
            Some(number) if self.range().contains(&number) => Ok(()),
            Some(number) => {
                let (least, most) = self.range().into_inner();
                let show = |number| self.show(Some(number));
                Err(format!("{} is not from {} to {}", show(number), show(least), show(most)))
            }
        }
    }

    /// Reads what a person writes: a number, with its unit where it has one, or `unlimited`.
    pub fn parse(self, text: &str) -> Result<Option<u64>, String> {
        let value = match (text, self.unit()) {
            ("unlimited", _) => None,
            (_, Unit::Count | Unit::PerSecond) => {
                let number = text.parse().map_err(|_| format!("{text:?} is not a whole number"));
                Some(number.map_err(|why| self.or_unlimited(why))?)
            }
            (_, Unit::Bytes | Unit::BytesPerSecond) => {
                Some(ByteSize::parse(text).map_err(|why| self.or_unlimited(why))?.0)
            }
            (_, Unit::Millis) => {
                let time = parse_duration(text).map_err(|why| self.or_unlimited(why))?;
                Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
            }
        };
        self.check(value)?;
        Ok(value)
    }

    /// Writes a value the way [`parse`](Self::parse) reads it.
    pub fn show(self, value: Option<u64>) -> String {
        match (value, self.unit()) {
            (None, _) => "unlimited".to_owned(),
            (Some(number), Unit::Count | Unit::PerSecond) => number.to_string(),
            (Some(number), Unit::Bytes | Unit::BytesPerSecond) => ByteSize(number).to_string(),
            (Some(number), Unit::Millis) => format_duration(Duration::from_millis(number)),
        }
    }

    fn or_unlimited(self, why: String) -> String {
        if self.may_be_unlimited() { format!("{why}, or unlimited") } else { why }
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

impl OnConflict {
    /// Both there are.
    pub const ALL: [Self; 2] = [Self::Last, Self::Reject];

    /// The name it has in configuration and overrides.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Reject => "reject",
        }
    }

    /// The one of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }
}

/// The limits of one tenant, or of one token of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TenantLimits {
    values: [Option<u64>; Limit::ALL.len()],
    /// What is refused for good (400) instead of for now (429) when it is used up.
    for_good: u64,
    /// Other bits at a time that has a sample already.
    pub on_conflict: OnConflict,
    /// Features of queries that the tenant has otherwise than the server.
    pub features: FeatureSwitches,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            values: Limit::ALL.map(Limit::default),
            for_good: 0,
            on_conflict: OnConflict::default(),
            features: FeatureSwitches::default(),
        }
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
        // Rates stand before their bursts.
        for (limit, cap) in other.iter() {
            let Some(cap) = cap else { continue };
            let is_less = |rate| self.get(rate).is_none_or(|rate| rate <= cap);
            let value = match self.get(limit) {
                Some(value) => Some(value.min(cap)),
                // A second's worth, which may be less.
                None if limit.rate().is_some_and(is_less) => None,
                None => Some(cap),
            };
            self.set(limit, value);
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
        let show = |number: &u64| limit.show(Some(*number));
        write!(f, "over the limit {} of {}: {}", limit.name(), show(allowed), show(asked))
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
            assert!(limit.rate().is_none_or(|rate| rate < limit && rate.burst() == Some(limit)));
        }
        assert!(Limit::ALL.len() <= 64);
        assert_eq!(Limit::of_name("max_label_nam"), None);
    }

    #[test]
    fn a_value_is_written_as_it_is_read() {
        let read = |limit: Limit, text: &str| limit.parse(text).map(|value| limit.show(value));
        for (limit, text) in [
            (Limit::Samples, "1000"),
            (Limit::Samples, "0"),
            (Limit::Samples, "unlimited"),
            (Limit::Bytes, "10MiB"),
            (Limit::QueryRange, "30d"),
            (Limit::QueryTimeout, "1m30s"),
            (Limit::LabelValueBytes, "1MiB"),
        ] {
            assert_eq!(read(limit, text), Ok(text.to_owned()), "{}", limit.name());
        }
        for (limit, text, why) in [
            (Limit::Samples, "-1", "\"-1\" is not a whole number, or unlimited"),
            (Limit::Samples, "1k", "\"1k\" is not a whole number, or unlimited"),
            (Limit::Samples, "99999999999999999999", "is not a whole number"),
            (Limit::Samples, "18446744073709551615", "is not from 0 to 9223372036854775807"),
            (Limit::Bytes, "10", "has no unit"),
            (Limit::QueryRange, "30", "has no unit"),
            (Limit::QueryTimeout, "0", "0 is not from 1ms to"),
            (Limit::LabelNames, "0", "0 is not from 1 to 10000"),
            (Limit::LabelNames, "unlimited", "cannot be unlimited"),
            (Limit::LabelNameBytes, "2MiB", "2MiB is not from 1B to 1MiB"),
        ] {
            let refused = limit.parse(text).unwrap_err();
            assert!(refused.contains(why), "{} {text}: {refused}", limit.name());
        }
    }

    #[test]
    fn every_default_is_one_that_may_be_written() {
        for limit in Limit::ALL {
            assert_eq!(limit.parse(&limit.show(limit.default())), Ok(limit.default()), "{}", limit.name());
        }
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
        // A burst that is not said is a second's worth, and no cap makes more of it.
        for (rate, burst, expected) in [
            (Some(10), None, None),
            (Some(500), None, Some(100)),
            (Some(10), Some(500), Some(100)),
            (None, None, Some(100)),
        ] {
            let mut limits = TenantLimits::unlimited();
            limits.set(Limit::Bytes, rate);
            limits.set(Limit::BytesBurst, burst);
            limits.cap(&TenantLimits::unlimited().with(Limit::Bytes, 400).with(Limit::BytesBurst, 100));
            assert_eq!(limits.get(Limit::BytesBurst), expected, "{rate:?} {burst:?}");
        }
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
