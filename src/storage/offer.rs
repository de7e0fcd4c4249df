//! What a caller would like a store to compute, so that rows travel instead of samples.
//!
//! A [`SelectRequest`](super::SelectRequest) carries an [`Offer`]: operations from the innermost outwards,
//! each on what the one before gives. The store does some of them from the front, none being fine, and
//! says how many ([`Selected::taken`](super::Selected::taken)). If it did any, it answers
//! [`Runs::Rows`](super::Runs::Rows): a row for each series, or for each group once an [`Operation::Aggregate`]
//! is among them, with a place for each instant of the request's grid.
//!
//! # Contract
//!
//! * **The same answer.** What is taken changes the cost and never the answer: not its values, to the bit,
//!   and not which series have one. A store that can only come close takes nothing unless it was told to.
//! * **Floats only.** Nothing is taken if a series of the selection has a histogram where it is looked at:
//!   a row cannot hold one, and the remarks about a mix are the caller's.
//! * **Names are the caller's.** Series keep all labels they have. An aggregation is taken only if none of
//!   them carries `__type__` or `__unit__`: those go with the name, and whether two series become the
//!   same by it is for the caller to see.

use crate::model::{Millis, STALE_NAN_BITS};

/// What stands in a row where there is no value: the stale marker, which no result can be.
pub const ABSENT: f64 = f64::from_bits(STALE_NAN_BITS);

/// Operations that the store may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The innermost first; empty offers nothing. The first is no aggregation.
    pub operations: Vec<Operation>,
    /// Nothing is to be taken if the rows would have more places than this together.
    pub max_places: u64,
}

/// An operation on samples, or on the rows of the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The newest sample in `(t - lookback, t]`; if that is a stale marker there is no value.
    Newest {
        /// How far back.
        lookback: Millis,
    },
    /// A function of the samples in `(t - range, t]`, as if stale markers had never been written.
    Window {
        /// Which.
        function: WindowFunction,
        /// How long the window is.
        range: Millis,
    },
    /// One row for each group of rows, instant by instant.
    Aggregate {
        /// How values become one.
        combine: Combine,
        /// The labels that rows of a group have in common, sorted, each once, never the name, `__type__`
        /// or `__unit__`. A group has those that its series have.
        by: Vec<String>,
    },
}

/// Functions of the samples in a window, as PromQL defines them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WindowFunction {
    /// `rate`
    Rate,
    /// `increase`
    Increase,
    /// `delta`
    Delta,
    /// `irate`
    Irate,
    /// `idelta`
    Idelta,
    /// `deriv`
    Deriv,
    /// `changes`
    Changes,
    /// `resets`
    Resets,
    /// `avg_over_time`
    Avg,
    /// `sum_over_time`
    Sum,
    /// `min_over_time`
    Min,
    /// `max_over_time`
    Max,
    /// `count_over_time`
    Count,
    /// `last_over_time`
    Last,
    /// `present_over_time`
    Present,
}

impl WindowFunction {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Rate,
        Self::Increase,
        Self::Delta,
        Self::Irate,
        Self::Idelta,
        Self::Deriv,
        Self::Changes,
        Self::Resets,
        Self::Avg,
        Self::Sum,
        Self::Min,
        Self::Max,
        Self::Count,
        Self::Last,
        Self::Present,
    ];

    /// Its name in PromQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Increase => "increase",
            Self::Delta => "delta",
            Self::Irate => "irate",
            Self::Idelta => "idelta",
            Self::Deriv => "deriv",
            Self::Changes => "changes",
            Self::Resets => "resets",
            Self::Avg => "avg_over_time",
            Self::Sum => "sum_over_time",
            Self::Min => "min_over_time",
            Self::Max => "max_over_time",
            Self::Count => "count_over_time",
            Self::Last => "last_over_time",
            Self::Present => "present_over_time",
        }
    }
}

/// How values of a group become one, as PromQL defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Combine {
    /// `sum`
    Sum,
    /// `avg`
    Avg,
    /// `min`
    Min,
    /// `max`
    Max,
    /// `count`
    Count,
    /// `group`
    Group,
}

/// The values of a series or group over the request's grid.
#[derive(Clone, Debug, PartialEq)]
pub struct GridRow {
    /// Which of the answer's series.
    pub ordinal: u32,
    /// A value for each instant of the grid, [`ABSENT`] where there is none.
    pub values: Vec<f64>,
}

impl Offer {
    /// Whether there is nothing to take.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }
}
