//! What a plan reads, asked of the store.
//!
//! A store that answers on the thread that asks ([`Here`]) is asked on the query's own thread, in its turn; another is
//! waited for before there is a thread.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::sync::SemaphorePermit;

use super::{Engine, Reach};
use crate::{
    model::{MatchOp, Matcher},
    promql::{
        QueryError,
        exec::{
            context::{Budget, Context},
            data::{Expected, SelectedSeries},
        },
        plan::{Operation, Plan},
    },
    storage::{Runs, SelectRequest, Selected, StorageError, View},
};

/// Selections of one query that the store is asked for at a time.
const SELECTS: usize = 8;

/// So many series are evaluated before a thread is awake.
const FEW: usize = 16;

/// Operations that are done before a thread is awake.
const SHORT: usize = 16;

/// Samples of a series that its windows see in all before a thread is awake, with one a second.
const LITTLE: i64 = 250_000;

/// What was selected for a plan.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) data: Vec<SelectedSeries>,
    /// What the store had to say.
    pub(super) remarks: Vec<String>,
    /// How long that took.
    pub(super) took: Duration,
}

impl Chosen {
    fn of(selected: Vec<(SelectedSeries, Vec<String>)>, took: Duration) -> Self {
        let (data, remarks): (Vec<_>, Vec<Vec<String>>) = selected.into_iter().unzip();
        Self { data, remarks: remarks.into_iter().flatten().collect(), took }
    }
}

impl Engine {
    /// Asks the store for everything the plan reads, a few selections at a time: a query may have hundreds of them.
    pub(super) async fn select(
        &self,
        view: &View,
        plan: &Plan,
        reach: Reach,
        context: &Context,
    ) -> Result<Chosen, QueryError> {
        let began = self.clock.elapsed();
        let selections = plan.selections.iter();
        let selects: Vec<_> = selections
            .map(|selection| self.select_one(view, selection.request.clone(), reach, context))
            .collect();
        let selected: Vec<_> = stream::iter(selects).buffered(SELECTS).try_collect().await?;
        Ok(Chosen::of(selected, self.clock.elapsed().saturating_sub(began)))
    }

    pub(super) async fn select_one(
        &self,
        view: &View,
        request: SelectRequest,
        reach: Reach,
        context: &Context,
    ) -> Result<(SelectedSeries, Vec<String>), QueryError> {
        let request = bounded(request, reach, &context.budget)?;
        let expected = Expected::of(&request);
        let selected = noted(self.in_turn(view, request).await, context)?;
        SelectedSeries::receive(selected, expected, &context.budget).await
    }

    /// Asks the store. Tenants who have computed much of late do so a few at a time, for it takes processors, too.
    async fn in_turn(&self, view: &View, request: SelectRequest) -> Result<Selected, StorageError> {
        let tenant = &view.tenants()[0];
        let _place: Option<SemaphorePermit<'_>> = match self.turns.is_heavy(tenant) {
            true => self.heavy_selects.acquire().await.ok(),
            false => None,
        };
        let began = self.clock.elapsed();
        let selected = view.select(&*self.storage, request).await;
        // Waiting for a server costs us nothing.
        let is_ours =
            selected.as_ref().map_or(true, |selected| matches!(selected.runs, Runs::SeriesMajor(_)));
        if is_ours {
            self.turns.note(tenant, self.clock.elapsed().saturating_sub(began));
        }
        selected
    }
}

/// Whether a plan may be over sooner than a thread is awake, if it finds few series: they are looked up by values.
pub(super) fn is_small(plan: &Plan) -> bool {
    let looks_up = |matcher: &Matcher| matcher.op() == MatchOp::Equal && !matcher.value().is_empty();
    let steps = plan.nodes.iter().map(|node| node.steps.count).max().unwrap_or(0);
    let steps = i64::try_from(steps).unwrap_or(i64::MAX);
    plan.nodes.len() <= SHORT
        && !plan.nodes.iter().any(|node| matches!(node.operation, Operation::Info(_)))
        && plan.selections.iter().all(|selection| {
            let SelectRequest { matchers, filters, range, grid, .. } = &selection.request;
            let span = range.end().0.saturating_sub(range.start().0);
            let window = span.saturating_sub(grid.map_or(0, |grid| grid.end.0.saturating_sub(grid.start.0)));
            window.saturating_mul(steps).saturating_add(span) / 1_000 <= LITTLE
                && matchers.iter().chain(filters.iter().flatten()).all(looks_up)
        })
}

/// Asks a store that selects on the thread that asks.
pub(super) struct Here {
    pub(super) engine: Engine,
    pub(super) view: View,
    pub(super) reach: Reach,
}

/// The answer to one selection.
struct Found {
    selected: Result<Selected, StorageError>,
    expected: Expected,
    /// Whether fewer series were asked for than the query may have.
    fewer: bool,
}

impl Here {
    /// Everything the plan reads.
    pub(super) fn select(&self, plan: &Plan, context: &Context) -> Result<Chosen, QueryError> {
        let began = self.engine.clock.elapsed();
        let requests = plan.selections.iter().map(|selection| selection.request.clone());
        let take = |request| self.find(request, context, usize::MAX)?.take(context);
        let selected = context.together(requests, take).into_iter().collect::<Result<_, _>>()?;
        Ok(Chosen::of(selected, self.engine.clock.elapsed().saturating_sub(began)))
    }

    /// Everything the plan reads if those are few series; none, and nothing is counted, if they are not.
    pub(super) fn few(&self, plan: &Plan, context: &Context) -> Option<Result<Chosen, QueryError>> {
        let began = self.engine.clock.elapsed();
        let mut found = Vec::with_capacity(plan.selections.len());
        for selection in &plan.selections {
            match self.find(selection.request.clone(), context, FEW) {
                Ok(one) if one.is_too_much() => return None,
                Ok(one) => found.push(one),
                Err(error) => return Some(Err(error)),
            }
        }
        let selected = found.into_iter().map(|one| one.take(context)).collect::<Result<_, _>>();
        Some(selected.map(|all| Chosen::of(all, self.engine.clock.elapsed().saturating_sub(began))))
    }

    fn find(&self, request: SelectRequest, context: &Context, most: usize) -> Result<Found, QueryError> {
        let mut request = bounded(request, self.reach, &context.budget)?;
        let fewer = most < usize::MAX && request.max_series.is_none_or(|bound| most < bound);
        if fewer {
            request.max_series = Some(most);
        }
        let expected = Expected::of(&request);
        let is_over = || context.check().is_err();
        let selected = self.view.select_here(&*self.engine.storage, request, &is_over).ok_or_else(waits)?;
        Ok(Found { selected, expected, fewer })
    }
}

impl Found {
    /// Whether there are more series than were asked for, and the query may have more.
    fn is_too_much(&self) -> bool {
        self.fewer && matches!(self.selected, Err(StorageError::TooManySeries { .. }))
    }

    fn take(self, context: &Context) -> Result<(SelectedSeries, Vec<String>), QueryError> {
        let selected = noted(self.selected, context)?;
        // There is nothing to wait for in what lies in the store.
        SelectedSeries::receive(selected, self.expected, &context.budget).now_or_never().ok_or_else(waits)?
    }
}

/// What the store said of itself was not so.
fn waits() -> QueryError {
    QueryError::Execution("unexpected error: the store has to be waited for".to_owned())
}

/// The request within what the query may yet hold, if it does not reach too far.
fn bounded(mut request: SelectRequest, reach: Reach, budget: &Budget) -> Result<SelectRequest, QueryError> {
    reach.check(request.range)?;
    request.max_series = budget.series_left().map(|left| usize::try_from(left).unwrap_or(usize::MAX));
    request.max_label_bytes = budget.bytes_left();
    Ok(request)
}

/// Notes what was selected, or says what was in the way.
fn noted(selected: Result<Selected, StorageError>, context: &Context) -> Result<Selected, QueryError> {
    let selected = selected.map_err(|error| {
        let over = match &error {
            StorageError::TooManySeries { .. } => context.budget.too_many_series(),
            StorageError::TooManyLabelBytes { .. } => context.budget.too_many_bytes(),
            StorageError::Stopped => Some(QueryError::Canceled("expression evaluation")),
            _ => None,
        };
        over.unwrap_or(QueryError::Storage(error))
    })?;
    context.ticket.selected(u64::try_from(selected.series.len()).unwrap_or(u64::MAX));
    Ok(selected)
}
