//! Range queries in pieces: what may be cut, and what a piece comes to.
//!
//! [`Engine::study`] says of a query whether each of its steps stands for itself ([`Footing`]);
//! [`Engine::piece`] evaluates some of the steps and leaves the result open: what it has to say is not yet worded,
//! and how much each step has read is still there. Pieces laid side by side are what the whole would have been.

use super::{Asked, Engine, Kind, QueryOptions, Ran, SMALL_ANSWER, answer_bytes, matrix};
use crate::{
    model::{Labels, Millis, Timestamp},
    promql::{
        MatrixSeries, QueryError, QueryStats, Value,
        annotations::Annotations,
        exec::data::SelectedSeries,
        parse::{self, ValueType},
        plan::footing::{Footing, footing},
    },
    storage::View,
};

/// What can be said of a range query before it is evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Study {
    /// The query as we would write it: the same for all that mean the same.
    pub canonical: String,
    /// What else than the text decides about its steps: switches, lookback, the step of subqueries.
    pub settings: String,
    /// What its steps stand on.
    pub footing: Footing,
    /// The most samples it may hold, those of its answer included.
    pub max_samples: u64,
}

/// Some steps of a range query.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// Series sorted by labels.
    pub series: Vec<MatrixSeries>,
    /// What the user should know.
    pub notes: Annotations,
    /// What the store had to say.
    pub remarks: Vec<String>,
    /// Samples in the windows, per step.
    pub queryable: Vec<u64>,
    /// What it was made of.
    pub made_of: MadeOf,
    /// What it cost.
    pub stats: QueryStats,
}

/// What an evaluation was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MadeOf {
    /// Which rows came to be aggregated, and in which order: the same for the same only.
    pub order: u128,
    /// Whether some have `__type__` or `__unit__`, which go with the name: then two of one metric may become the same.
    pub described: bool,
    /// Whether that is known: not of what the store has made groups of.
    pub told: bool,
}

impl MadeOf {
    pub(super) fn of(data: &[SelectedSeries], order: u128) -> Self {
        let described =
            |labels: &Labels| labels.get("__type__").is_some() || labels.get("__unit__").is_some();
        Self {
            order,
            described: data.iter().any(|selected| selected.labels.iter().any(described)),
            told: data.iter().all(|selected| selected.taken < 2),
        }
    }
}

impl Engine {
    /// Looks at a range query with that step; none if it cannot be cut, or not be evaluated at all.
    pub fn study(&self, text: &str, step: Millis, options: &QueryOptions) -> Option<Study> {
        let features = options.features.unwrap_or(self.options.features);
        // Whether a group keeps its name depends on all of its series.
        if features.delayed_name_removal || step.0 <= 0 {
            return None;
        }
        let expr = parse::parse(text, &features.parser()).ok()?;
        if !matches!(expr.value_type(), ValueType::Scalar | ValueType::InstantVector) {
            return None;
        }
        let plan_options = self.plan_options(options, features);
        let footing = footing(&expr, text, step.0, &plan_options)?;
        let settings = format!("{features:?} {plan_options:?} {:?}", options.max_range);
        Some(Study { canonical: expr.to_string(), settings, footing, max_samples: self.max_samples(options) })
    }

    /// Evaluates the steps `start`, `start + step`, … up to `end` of a query that may be cut.
    ///
    /// Dropping the future stops the evaluation soon.
    pub async fn piece(
        &self,
        view: &View,
        text: &str,
        start: Timestamp,
        end: Timestamp,
        step: Millis,
        options: &QueryOptions,
    ) -> Result<Piece, QueryError> {
        let steps = self.steps(start, end, step, options)?;
        let asked = Asked { text, kind: Kind::Range, steps, end: end.0 };
        let evaluation = self.query(view, &asked, options, move |context, evaluated, mut stats, data| {
            stats.samples_read = evaluated.samples_read;
            stats.total_queryable_samples = evaluated.queryable.iter().sum();
            let made_of = MadeOf::of(data, evaluated.order);
            let series = matrix(context, evaluated.output, &steps)?;
            Ok((series, evaluated.notes, evaluated.queryable, made_of, stats))
        });
        let Ran { done, remarks, evaluate_seconds } = self.within_time(options, evaluation).await?;
        let (series, notes, queryable, made_of, mut stats) = done;
        stats.evaluate_seconds = evaluate_seconds;
        Ok(Piece { series, notes, remarks, queryable, made_of, stats })
    }

    /// Counts memory that a query takes until it is over.
    pub fn hold(&self, view: &View, options: &QueryOptions, bytes: u64) -> Result<(), QueryError> {
        if let Some(ticket) = options.ticket.as_ref().filter(|_| bytes > 0) {
            ticket.keep(Box::new(self.memory.reserve(&view.tenants()[0], bytes)?));
        }
        Ok(())
    }

    /// Counts the memory of an answer, which stays until it is written.
    pub fn hold_answer(&self, view: &View, options: &QueryOptions, value: &Value) -> Result<(), QueryError> {
        let bytes = answer_bytes(value);
        self.hold(view, options, if bytes > SMALL_ANSWER { bytes } else { 0 })
    }
}
