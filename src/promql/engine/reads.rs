//! What a query would ask of the store, known from its text and its times alone.

use super::{Engine, Kind, QueryOptions, Reach};
use crate::{
    model::{OverLimit, Timestamp},
    promql::{QueryError, exec::rows::Steps, plan::Operation},
    storage::{Grid, SelectRequest},
};

/// When a query is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At one instant.
    At(Timestamp),
    /// At every step.
    Over(Grid),
}

/// What a query would ask of the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Reads {
    /// The selections, each once. What `info()` looks for depends on what else is found: here it is all that it could.
    pub requests: Vec<SelectRequest>,
    /// The limit on how far it may reach, if it reaches further.
    pub too_far: Option<OverLimit>,
    /// The most samples it may hold at a time, whoever asks.
    pub max_samples: u64,
}

impl Engine {
    /// What `text` would read. Nothing is read for it.
    pub fn reads(&self, text: &str, when: When, options: &QueryOptions) -> Result<Reads, QueryError> {
        let (kind, steps, end) = match when {
            When::At(at) => (Kind::Instant, Steps { start: at.0, step: 0, count: 1 }, at.0),
            When::Over(grid) => {
                let steps = Steps { start: grid.start.0, step: grid.step.0, count: grid.count() };
                (Kind::Range, steps, grid.end.0)
            }
        };
        let features = options.features.unwrap_or(self.options.features);
        let plan = self.prepare(text, kind, steps, end, options, features)?;
        let late = plan.nodes.iter().filter_map(|node| match &node.operation {
            Operation::Info(info) => Some(info.request.clone()),
            _ => None,
        });
        let requests: Vec<SelectRequest> =
            plan.selections.iter().map(|selection| selection.request.clone()).chain(late).collect();
        let reach = Reach::of(steps.start, end, options, self.options.lookback);
        let reach =
            reach.and_then(|reach| requests.iter().try_for_each(|request| reach.check(request.range)));
        let too_far = match reach {
            Err(QueryError::OverLimit(over)) => Some(over),
            other => other.map(|()| None)?,
        };
        Ok(Reads { requests, too_far, max_samples: self.options.max_samples })
    }
}
