//! How queries are answered.

use std::time::Duration;

use serde_yaml::Value;

use super::{
    parse::{at_least, count, list, millis, number, positive, sized},
    reader::Reader,
};
use crate::model::{ByteSize, FeatureSwitches, Millis};

/// How queries are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// How far back a sample counts.
    pub lookback_delta: Millis,
    /// How long a query may take, waiting included.
    pub timeout: Duration,
    /// Samples a query may hold.
    pub max_samples: u64,
    /// About the bytes of memory that all queries may have together; none is a part of what the process may have.
    pub max_memory: Option<ByteSize>,
    /// Queries evaluated at a time.
    pub max_concurrency: usize,
    /// The step of a subquery that names none.
    pub default_evaluation_interval: Millis,
    /// Steps of a range query.
    pub max_points: u64,
    /// A query that takes longer is logged; none logs nothing.
    pub slow_query: Option<Duration>,
    /// Bytes of answers to range queries that are kept; 0 keeps none.
    pub cache_bytes: ByteSize,
    /// Longer ranges are evaluated in pieces between multiples of this; none evaluates each as a whole.
    pub split: Option<Millis>,
}

pub(super) fn query(keys: &mut Reader<'_>) -> Query {
    Query {
        lookback_delta: keys.get("query.lookback_delta", "5m", |v| positive(v).map(millis)),
        timeout: keys.get("query.timeout", "2m", positive),
        max_samples: keys.get("query.max_samples", "50000000", number(1, u64::MAX)),
        max_memory: keys.get("query.max_memory", "auto", |v| match v.as_str() {
            Some("auto") => Ok(None),
            _ => sized(ByteSize(16 << 20), ByteSize(u64::MAX >> 1))(v).map(Some),
        }),
        max_concurrency: keys.get("query.max_concurrency", "20", count(1, 10_000)),
        default_evaluation_interval: keys
            .get("query.default_evaluation_interval", "1m", |v| positive(v).map(millis)),
        max_points: keys.get("query.max_points", "11000", number(1, 10_000_000)),
        slow_query: keys.get("query.slow_query", "10s", |v| match v.as_str() {
            Some("off") => Ok(None),
            _ => positive(v).map(Some),
        }),
        cache_bytes: keys.get("query.cache.max_bytes", "64MiB", sized(ByteSize(0), ByteSize(1 << 40))),
        split: keys.get("query.split", "1d", |v| match v.as_str() {
            Some("off") => Ok(None),
            _ => at_least(Duration::from_secs(60))(v).map(millis).map(Some),
        }),
    }
}

pub(super) fn features(value: &Value) -> Result<FeatureSwitches, String> {
    FeatureSwitches::read(list(value)?.iter().map(String::as_str))
}
