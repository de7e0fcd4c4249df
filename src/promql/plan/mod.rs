//! From a tree to a plan: everything that can be known before a sample is read.
//!
//! Before anything, selectors are narrowed by what they will be matched with ([`narrow`]).
//! A [`Plan`] is a list of [`Node`]s, each after those it reads, so that evaluating it is a walk from
//! the first to the last and needs no recursion. Planning settles, in this order:
//!
//! 1. `start()`, `end()`, `range()` and `step()` become numbers, durations become milliseconds and
//!    `@` and `offset` become a [`Reference`] ([`duration`]).
//! 2. What is the same at every step is found ([`invariant`]); such a subtree is planned for one step
//!    and an [`Operation::Invariant`] node spreads it over all of them.
//! 3. Every node gets the [`Steps`] it is evaluated at. A subquery has its own, aligned to the epoch,
//!    so that the time range of every selector is known before anything is asked of the store.
//! 4. Equal nodes become one node, equal selections one [`Selection`] ([`build`]).
//! 5. An aggregation that is the only reader of a selector or range function takes it over
//!    ([`Node::streamed`]): it is handed the series chunk by chunk, and they are never all held.
//! 6. Selections whose values nobody looks at ask for none ([`presence`]).
//! 7. Selections say what of this the store may do instead ([`offers`]).

pub mod build;
pub mod duration;
pub mod footing;
pub mod invariant;
pub mod narrow;
pub mod offers;
pub mod presence;

use std::sync::Arc;

use crate::{
    model::{Labels, Matcher, Millis},
    promql::{
        exec::rows::Steps,
        functions::{
            instant::InstantFunction,
            range::{Edges, RangeFunction},
        },
        parse::{AggregateOp, BinaryOp, Span, ValueType, VectorMatching},
    },
    storage::SelectRequest,
};

pub use build::plan;

/// A place in a plan's list of nodes.
pub type NodeId = usize;

/// A query, ready to be evaluated.
#[derive(Debug)]
pub struct Plan {
    /// Each after those it reads; the last is the result.
    pub nodes: Vec<Node>,
    /// What is read from the store.
    pub selections: Vec<Selection>,
    /// The steps of the answer.
    pub steps: Steps,
}

/// One operation of a plan and the steps it is evaluated at.
#[derive(Debug)]
pub struct Node {
    /// What it does.
    pub operation: Operation,
    /// When it is evaluated.
    pub steps: Steps,
    /// What it gives.
    pub output: ValueType,
    /// How many nodes read it.
    pub readers: usize,
    /// Whether its one reader is an aggregation that takes it chunk by chunk.
    pub streamed: bool,
}

/// How the plan is made; comes from the request and the server's options.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// How far back an instant selector looks.
    pub lookback: Millis,
    /// How often a subquery without a step of its own is evaluated.
    pub default_subquery_step: Millis,
    /// Whether start timestamps are wanted from the store.
    pub start_timestamps: bool,
}

/// What is asked of the store; several nodes may read one.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The request.
    pub request: SelectRequest,
    /// Whether the matchers allow one metric name only, so that dropping the name cannot make two
    /// series the same unless they carry `__type__` or `__unit__`.
    pub one_name: bool,
}

/// Which instant a step looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `@`: the same for every step.
    pub at: Option<i64>,
    /// `offset`: that much earlier.
    pub offset: i64,
}

impl Reference {
    /// The instant that step `i` looks at; the ends of time hold.
    #[inline]
    pub fn of(&self, steps: &Steps, i: usize) -> i64 {
        self.at.unwrap_or_else(|| steps.at(i)).saturating_sub(self.offset)
    }
}

/// What an instant selector takes of the sample it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Its value.
    Value,
    /// The value on the line between it and the next.
    Smoothed,
    /// Its time, in seconds.
    Timestamp,
    /// When counting started, in seconds.
    Start,
}

impl Take {
    /// Whether that is something else than the metric measured.
    pub fn changes_meaning(self) -> bool {
        match self {
            Self::Value | Self::Smoothed => false,
            Self::Timestamp | Self::Start => true,
        }
    }
}

/// Where a range function's samples come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// The store.
    Selection(usize),
    /// The values of another node, at that node's steps.
    Subquery(NodeId),
}

/// Samples over a range per step: `(reference - range, reference]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Windows {
    /// Where the samples come from.
    pub source: Source,
    /// Where each window ends.
    pub reference: Reference,
    /// How long each is, in milliseconds.
    pub range: i64,
    /// Where samples beyond them are looked for.
    pub edges: Edges,
}

/// For which steps of the query a leaf's samples count in the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Each step's samples for that step.
    PerStep,
    /// The one step's samples for every step.
    ForAll,
    /// Not at all: they are counted where the subquery's windows are.
    Nowhere,
}

/// What a node does.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// A constant.
    Number(f64),
    /// A text.
    Text(String),
    /// The time of each step, in seconds.
    Time,
    /// The newest sample per series and step.
    Instant {
        /// Of which series.
        selection: usize,
        /// Seen from when.
        reference: Reference,
        /// How far back.
        lookback: i64,
        /// What of it.
        take: Take,
        /// Which statistics it goes to.
        counted: Counted,
    },
    /// The samples themselves; the whole of an instant query that asks for a range vector.
    Samples(Windows),
    /// A function of the samples in each step's window.
    Range {
        /// Which.
        function: RangeFunction,
        /// Of what.
        windows: Windows,
        /// Its scalar arguments.
        params: Vec<NodeId>,
        /// The range vector's place in the text.
        span: Span,
        /// The first scalar argument's place in the text.
        param_span: Span,
        /// Which statistics it goes to.
        counted: Counted,
    },
    /// 1 at the steps where no series has a sample in the window.
    AbsentOverTime {
        /// Of what.
        windows: Windows,
        /// Whose name the result has.
        labels: Labels,
        /// Which statistics it goes to.
        counted: Counted,
    },
    /// A function of each value on its own.
    Map {
        /// Which.
        function: InstantFunction,
        /// Of what.
        input: NodeId,
        /// Its scalar arguments.
        params: Vec<NodeId>,
    },
    /// A function that sees all series of its arguments.
    Call {
        /// Which.
        function: VectorFunction,
        /// Of what, in the order of the text, constant texts left out.
        args: Vec<NodeId>,
        /// The arguments' places in the text; of what sorts, its own.
        spans: Vec<Span>,
    },
    /// `info`: a vector with the labels of the series that describe its targets.
    Info(Box<Info>),
    /// An aggregation.
    Aggregate(Aggregation),
    /// An operator between two expressions, at least one of them a vector, or two scalars.
    Binary {
        /// Which.
        op: BinaryOp,
        /// Left.
        lhs: NodeId,
        /// Right.
        rhs: NodeId,
        /// Compare to 0 or 1 instead of filtering.
        return_bool: bool,
        /// How vectors find their partners; there if both are vectors.
        matching: Option<VectorMatching>,
        /// The whole expression's place in the text.
        span: Span,
    },
    /// A minus sign.
    Negate(NodeId),
    /// One step's result at every step.
    Invariant(NodeId),
}

/// The functions that see all series of their arguments.
#[derive(Clone, Debug, PartialEq)]
pub enum VectorFunction {
    /// `timestamp` of something other than a selector: the time of the step.
    Timestamp,
    /// `start_timestamp` of something other than a selector: nothing is known.
    StartTimestamp,
    /// `scalar`
    Scalar,
    /// `vector`
    Vector,
    /// `max_of`
    MaxOf,
    /// `min_of`
    MinOf,
    /// `absent`, with the labels its result has
    Absent(Labels),
    /// `label_replace`
    LabelReplace {
        /// The label to set.
        dst: String,
        /// What to.
        replacement: String,
        /// The label to look at.
        src: String,
        /// What it must match.
        regex: String,
    },
    /// `label_join`
    LabelJoin {
        /// The label to set.
        dst: String,
        /// What stands between the values.
        separator: String,
        /// The labels to look at.
        src: Vec<String>,
    },
    /// `sort`, `sort_desc`
    Sort {
        /// Greatest first.
        descending: bool,
    },
    /// `sort_by_label`, `sort_by_label_desc`
    SortByLabel {
        /// Last first.
        descending: bool,
        /// The labels to look at.
        labels: Vec<String>,
    },
    /// `histogram_quantile`
    HistogramQuantile,
    /// `histogram_fraction`
    HistogramFraction,
    /// `histogram_quantiles`, with the label that tells them apart
    HistogramQuantiles(String),
    /// `histogram_avg`, `histogram_count`, `histogram_sum`, `histogram_stddev`, `histogram_stdvar`
    HistogramStat(crate::promql::functions::instant::HistogramStat),
}

/// What `info` describes, and by what. The series that describe are asked for when it is evaluated.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    /// Of what.
    pub input: NodeId,
    /// What to ask of the store; that they describe the targets seen is still to be added.
    pub request: SelectRequest,
    /// Series whose name all of these match describe others, and stay as they are; without any, none do.
    pub untouched: Vec<Matcher>,
    /// What the labels to be added must be like; without any, all are added.
    pub labels: Vec<Matcher>,
    /// Seen from when.
    pub reference: Reference,
    /// How far back.
    pub lookback: i64,
}

/// An aggregation, its labels sorted.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregation {
    /// Which.
    pub op: AggregateOp,
    /// Of what.
    pub input: NodeId,
    /// The `k` of topk and limitk, the `q` of quantile, the `r` of limit_ratio.
    pub param: Option<NodeId>,
    /// The label of count_values.
    pub label: Option<String>,
    /// The labels of `by` or `without`, sorted, each once.
    pub grouping: Vec<String>,
    /// Whether it said `without`.
    pub without: bool,
    /// The whole aggregation's place in the text.
    pub whole: Span,
    /// The aggregated expression's place in the text.
    pub span: Span,
    /// The parameter's place in the text.
    pub param_span: Span,
}

impl Operation {
    /// The nodes it reads, in order.
    pub fn inputs(&self) -> Vec<NodeId> {
        fn of_windows(windows: &Windows) -> Option<NodeId> {
            match windows.source {
                Source::Selection(_) => None,
                Source::Subquery(input) => Some(input),
            }
        }
        match self {
            Self::Number(_) | Self::Text(_) | Self::Time | Self::Instant { .. } => Vec::new(),
            Self::Samples(windows) | Self::AbsentOverTime { windows, .. } => {
                of_windows(windows).into_iter().collect()
            }
            Self::Range { windows, params, .. } => {
                of_windows(windows).into_iter().chain(params.iter().copied()).collect()
            }
            Self::Map { input, params, .. } => {
                std::iter::once(*input).chain(params.iter().copied()).collect()
            }
            Self::Call { args, .. } => args.clone(),
            Self::Info(info) => vec![info.input],
            Self::Aggregate(aggregation) => {
                std::iter::once(aggregation.input).chain(aggregation.param).collect()
            }
            Self::Binary { lhs, rhs, .. } => vec![*lhs, *rhs],
            Self::Negate(input) | Self::Invariant(input) => vec![*input],
        }
    }
}

/// Whether the matchers allow only one value of the metric's name.
pub(crate) fn names_one_metric(matchers: &Arc<[Matcher]>) -> bool {
    matchers.iter().any(|m| {
        m.name() == crate::model::METRIC_NAME
            && m.op() == crate::model::MatchOp::Equal
            && !m.value().is_empty()
    })
}
