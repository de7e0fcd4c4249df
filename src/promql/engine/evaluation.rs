//! The evaluation of a plan, on a thread of its own or where it is asked for.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use tokio::runtime::{Handle, RuntimeFlavor};

use super::select::{Chosen, Here, is_small};
use crate::promql::{
    QueryError, QueryStats,
    exec::{
        self, Evaluated,
        context::Context,
        data::{LateSelects, SelectedSeries},
    },
    plan::Plan,
    threads::said,
};

/// What is left to do of a query when it is planned.
pub(super) struct Evaluation<F> {
    pub(super) context: Arc<Context>,
    pub(super) plan: Plan,
    pub(super) stats: QueryStats,
    /// Makes of the result what is wanted of it.
    pub(super) finish: F,
}

/// What an evaluation came to.
#[derive(Debug)]
pub(super) struct Done<T> {
    pub(super) done: T,
    /// What the store had to say.
    pub(super) remarks: Vec<String>,
    /// How long it took to select, if that was part of it.
    pub(super) selecting: Duration,
}

impl<T, F> Evaluation<F>
where
    F: FnOnce(&Context, Evaluated, QueryStats, &[SelectedSeries]) -> Result<T, QueryError>,
{
    /// Evaluates on this thread, in turn with other queries.
    pub(super) fn run(
        self,
        select: impl FnOnce(&Plan, &Context) -> Result<Chosen, QueryError>,
        late: &LateSelects,
    ) -> Result<Done<T>, QueryError> {
        self.context.turn.begin(|| self.context.is_over());
        let chosen = select(&self.plan, &self.context);
        self.of(chosen, late)
    }

    /// Evaluates here and now if that takes less time than it takes a thread to wake; none if it does not, or if there is a
    /// turn to wait for.
    pub(super) fn at_once(
        self,
        here: &Here,
        late: &LateSelects,
    ) -> Result<Result<Done<T>, QueryError>, Box<Self>> {
        // Others must be able to go on with what waits for this thread.
        let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
        let may_block = matches!(flavor, Ok(RuntimeFlavor::MultiThread));
        if !may_block || !is_small(&self.plan) || !self.context.turn.begin_now() {
            return Err(Box::new(self));
        }
        let evaluate = || match here.few(&self.plan, &self.context) {
            Some(chosen) => Ok(self.of(chosen, late)),
            None => {
                self.context.turn.end();
                Err(Box::new(self))
            }
        };
        // As on a thread, a panic is the query's end and not the caller's.
        let done = tokio::task::block_in_place(|| catch_unwind(AssertUnwindSafe(evaluate)));
        done.unwrap_or_else(|panic| {
            Ok(Err(QueryError::Execution(format!("unexpected error: {}", said(&*panic)))))
        })
    }

    fn of(self, chosen: Result<Chosen, QueryError>, late: &LateSelects) -> Result<Done<T>, QueryError> {
        let Self { context, plan, mut stats, finish } = self;
        let done = chosen.and_then(|Chosen { data, mut remarks, took }| {
            stats.select_seconds += took.as_secs_f64();
            let evaluated = exec::evaluate(&context, &plan, &data, late);
            stats.peak_samples = context.budget.peak();
            context.ticket.held_at_most(stats.peak_samples);
            let done = finish(&context, evaluated?, stats, &data)?;
            // What is damaged may be met only where it is read.
            let readers = data.iter().filter_map(SelectedSeries::reader);
            remarks.extend(readers.flat_map(|reader| reader.warnings()));
            Ok(Done { done, remarks, selecting: took })
        });
        // The ticket, and with it the query's place, is held until the samples are gone.
        drop(plan);
        context.turn.end();
        done
    }
}
