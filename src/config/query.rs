//! How queries are answered.

use std::time::Duration;

use serde_yaml::Value;

use super::{
    parse::{count, list, millis, number, positive},
    reader::Reader,
};
use crate::model::Millis;

/// How queries are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// How far back a sample counts.
    pub lookback_delta: Millis,
    /// How long a query may take, waiting included.
    pub timeout: Duration,
    /// Samples a query may hold.
    pub max_samples: u64,
    /// Queries evaluated at a time.
    pub max_concurrency: usize,
    /// The step of a subquery that names none.
    pub default_evaluation_interval: Millis,
    /// Steps of a range query.
    pub max_points: u64,
}

/// A feature that is switched on by name; the names are Prometheus'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// A metric's name is dropped at the end of a query instead of at each function.
    DelayedNameRemoval,
    /// Start timestamps make `rate` and its kin see resets.
    UseStartTimestamps,
    /// Type and unit are labels of the series.
    TypeAndUnitLabels,
    /// Functions that may yet change.
    ExperimentalFunctions,
    /// `anchored` and `smoothed`.
    ExtendedRangeSelectors,
    /// `fill`, `fill_left` and `fill_right`.
    FillModifiers,
}

impl Feature {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::DelayedNameRemoval,
        Self::UseStartTimestamps,
        Self::TypeAndUnitLabels,
        Self::ExperimentalFunctions,
        Self::ExtendedRangeSelectors,
        Self::FillModifiers,
    ];

    /// The name it is switched on by.
    pub fn name(self) -> &'static str {
        match self {
            Self::DelayedNameRemoval => "promql-delayed-name-removal",
            Self::UseStartTimestamps => "use-start-timestamps",
            Self::TypeAndUnitLabels => "type-and-unit-labels",
            Self::ExperimentalFunctions => "promql-experimental-functions",
            Self::ExtendedRangeSelectors => "promql-extended-range-selectors",
            Self::FillModifiers => "promql-binop-fill-modifiers",
        }
    }
}

pub(super) fn query(keys: &mut Reader<'_>) -> Query {
    Query {
        lookback_delta: keys.get("query.lookback_delta", "5m", |v| positive(v).map(millis)),
        timeout: keys.get("query.timeout", "2m", positive),
        max_samples: keys.get("query.max_samples", "50000000", number(1, u64::MAX)),
        max_concurrency: keys.get("query.max_concurrency", "20", count(1, 10_000)),
        default_evaluation_interval: keys
            .get("query.default_evaluation_interval", "1m", |v| positive(v).map(millis)),
        max_points: keys.get("query.max_points", "11000", number(1, 10_000_000)),
    }
}

pub(super) fn features(value: &Value) -> Result<Vec<Feature>, String> {
    let named = |name: String| {
        Feature::ALL.into_iter().find(|f| f.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Feature::ALL.iter().map(|f| f.name()).collect();
            format!("{name:?} is not a feature of this release; there are {}", names.join(", "))
        })
    };
    list(value)?.into_iter().map(named).collect()
}
