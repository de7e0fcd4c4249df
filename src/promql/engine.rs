//! The engine: a query's way from text to answer.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::try_join_all;
use tokio::sync::Semaphore;

use crate::{
    clock::Clock,
    model::{Labels, Limit, Millis, TimeRange, Timestamp},
    promql::{
        Answer, MatrixSeries, Point, QueryError, QueryStats, Value, VectorElement,
        exec::{
            self, Evaluated, Output,
            context::{Budget, Context, Costs, Settings, over},
            data::{Expected, LateSelect, LateSelects, SelectedSeries},
            names::refuse_same,
            rows::{SeriesRow, Steps, is_absent},
        },
        parse::{self, ParserFeatures, STACK_BYTES, ValueType},
        plan::{self, Plan, PlanOptions, offers::OfferRules},
    },
    storage::{SelectRequest, Storage, StorageError, View},
};

/// What the server sets for all queries.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How far back an instant selector looks.
    pub lookback: Millis,
    /// How long a query may take, waiting included.
    pub timeout: Duration,
    /// The most samples a query may hold at a time.
    pub max_samples: u64,
    /// How often a subquery without a step of its own is evaluated.
    pub default_subquery_step: Millis,
    /// Queries evaluated at the same time; the others wait.
    pub max_concurrency: usize,
    /// Threads that evaluate chunks of series; 0 is one per core.
    pub threads: usize,
    /// Whether selectors are narrowed by what they are matched with, which changes no answer.
    pub narrow: bool,
    /// Switches, named as in Prometheus.
    pub features: Features,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            lookback: Millis(5 * Millis::MINUTE.0),
            timeout: Duration::from_secs(120),
            max_samples: 50_000_000,
            default_subquery_step: Millis::MINUTE,
            max_concurrency: 20,
            threads: 0,
            narrow: true,
            features: Features::default(),
        }
    }
}

/// Feature switches. What only adds syntax is on, what changes the answers of ordinary queries is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `promql-experimental-functions`
    pub experimental_functions: bool,
    /// `promql-extended-range-selectors`
    pub extended_range_selectors: bool,
    /// `promql-binop-fill-modifiers`
    pub fill_modifiers: bool,
    /// `promql-delayed-name-removal`
    pub delayed_name_removal: bool,
    /// `use-start-timestamps`
    pub use_start_timestamps: bool,
    /// `type-and-unit-labels`
    pub type_and_unit_labels: bool,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            experimental_functions: true,
            extended_range_selectors: true,
            fill_modifiers: true,
            delayed_name_removal: false,
            use_start_timestamps: false,
            type_and_unit_labels: false,
        }
    }
}

impl Features {
    /// What the parser wants to know of them.
    pub fn parser(&self) -> ParserFeatures {
        ParserFeatures {
            experimental_functions: self.experimental_functions,
            extended_range_selectors: self.extended_range_selectors,
            fill_modifiers: self.fill_modifiers,
        }
    }
}

/// What a request sets for one query; none is the server's value.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueryOptions {
    /// How far back an instant selector looks.
    pub lookback: Option<Millis>,
    /// How long the query may take; the server's timeout is the most.
    pub timeout: Option<Duration>,
    /// The most samples the query may hold; the server's number is the most.
    pub max_samples: Option<u64>,
    /// The most series that its selections may have, together.
    pub max_series: Option<u64>,
    /// The most bytes of samples and labels it may hold.
    pub max_bytes: Option<u64>,
    /// The longest that it may reach: from its first to its last step, and again as far for each selector.
    pub max_range: Option<Millis>,
    /// The most series of the answer; more are cut off with a warning.
    pub limit: Option<usize>,
    /// Whether the statistics are wanted per step too.
    pub per_step_stats: bool,
    /// Other switches than the server's.
    pub features: Option<Features>,
}

/// Answers queries over a store.
#[derive(Clone, Debug)]
pub struct Engine {
    storage: Arc<dyn Storage>,
    options: Arc<EngineOptions>,
    clock: Arc<dyn Clock>,
    places: Arc<Semaphore>,
    pool: Arc<rayon::ThreadPool>,
}

/// What is asked, at which steps.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Instant,
    Range,
}

impl Engine {
    /// An engine over a store. Fails if its threads cannot be started.
    pub fn new(
        storage: Arc<dyn Storage>,
        options: EngineOptions,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|i| format!("promql-{i}"))
            .stack_size(STACK_BYTES)
            .build()
            .map_err(std::io::Error::other)?;
        Ok(Self {
            storage,
            places: Arc::new(Semaphore::new(options.max_concurrency.max(1))),
            options: Arc::new(options),
            clock,
            pool: Arc::new(pool),
        })
    }

    /// The server's values.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Evaluates `text` at one instant. Dropping the future stops the evaluation soon.
    pub async fn instant(
        &self,
        view: &View,
        text: &str,
        at: Timestamp,
        options: &QueryOptions,
    ) -> Result<Answer, QueryError> {
        let steps = Steps { start: at.0, step: 0, count: 1 };
        self.within_time(options, self.query(view, text, Kind::Instant, steps, at.0, options)).await
    }

    /// Evaluates `text` at `start`, `start + step`, … up to `end`. Dropping the future stops the evaluation soon.
    pub async fn range(
        &self,
        view: &View,
        text: &str,
        start: Timestamp,
        end: Timestamp,
        step: Millis,
        options: &QueryOptions,
    ) -> Result<Answer, QueryError> {
        if step.0 <= 0 {
            return Err(QueryError::BadData(
                "zero or negative query resolution step widths are not accepted. Try a positive integer"
                    .to_owned(),
            ));
        }
        if end < start {
            return Err(QueryError::BadData("end timestamp must not be before start time".to_owned()));
        }
        let count = (i128::from(end.0) - i128::from(start.0)) / i128::from(step.0) + 1;
        let most = self.max_samples(options);
        let count = match usize::try_from(count) {
            Ok(count) if u64::try_from(count).unwrap_or(u64::MAX) <= most => count,
            Ok(count) => return Err(self.too_many_samples(options, u64::try_from(count).unwrap_or(u64::MAX))),
            Err(_) => return Err(self.too_many_samples(options, u64::MAX)),
        };
        let steps = Steps { start: start.0, step: step.0, count };
        self.within_time(options, self.query(view, text, Kind::Range, steps, end.0, options)).await
    }

    fn max_samples(&self, options: &QueryOptions) -> u64 {
        options.max_samples.map_or(self.options.max_samples, |most| most.min(self.options.max_samples))
    }

    /// Says which bound on the samples is in the way: the server's, or the caller's.
    fn too_many_samples(&self, options: &QueryOptions, asked: u64) -> QueryError {
        match options.max_samples.filter(|most| *most <= self.options.max_samples) {
            Some(most) => over(Limit::QuerySamples, most, asked),
            None => QueryError::TooManySamples,
        }
    }

    /// Gives a query its time and no more.
    async fn within_time(
        &self,
        options: &QueryOptions,
        query: impl Future<Output = Result<Answer, QueryError>>,
    ) -> Result<Answer, QueryError> {
        let timeout = options.timeout.map_or(self.options.timeout, |t| t.min(self.options.timeout));
        match tokio::time::timeout(timeout, query).await {
            Ok(answer) => answer,
            Err(_) => Err(QueryError::Timeout("expression evaluation")),
        }
    }

    async fn query(
        &self,
        view: &View,
        text: &str,
        kind: Kind,
        steps: Steps,
        end: i64,
        options: &QueryOptions,
    ) -> Result<Answer, QueryError> {
        let mut watch = Watch { clock: &*self.clock, last: self.clock.elapsed() };
        let mut stats = QueryStats::default();
        let features = options.features.unwrap_or(self.options.features);
        let settings = Settings {
            delayed_names: features.delayed_name_removal,
            use_start_timestamps: features.use_start_timestamps,
            type_and_unit_labels: features.type_and_unit_labels,
            max_samples: self.max_samples(options),
        };
        let costs =
            Costs { samples: options.max_samples, bytes: options.max_bytes, series: options.max_series };
        let reach = Reach::of(steps.start, end, options, self.options.lookback)?;
        let plan = match self.prepare(text, kind, steps, end, options, features) {
            Err(QueryError::TooManySamples) => {
                return Err(self.too_many_samples(options, settings.max_samples.saturating_add(1)));
            }
            prepared => prepared?,
        };
        stats.prepare_seconds = watch.lap();

        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
            return Err(QueryError::Canceled("query queue"));
        };
        stats.queue_seconds = watch.lap();

        let canceled = CancelOnDrop(Arc::new(AtomicBool::new(false)));
        let context = Arc::new(Context {
            settings,
            budget: Budget::with(self.options.max_samples, costs).until(Arc::clone(&canceled.0)),
            pool: Arc::clone(&self.pool),
        });
        let (data, mut remarks) = self.select(view, &plan, reach, &context.budget).await?;
        stats.select_seconds = watch.lap();

        let (late, mut asked) = LateSelects::channel();
        let (text, options) = (text.to_owned(), *options);
        let shared = Arc::clone(&context);
        let mut evaluation = tokio::task::spawn_blocking(move || {
            let evaluated = exec::evaluate(&shared, &plan, &data, &late);
            stats.peak_samples = shared.budget.peak();
            let answer = evaluated.and_then(|done| answer(&shared.budget, &text, kind, steps, &options, done, stats));
            // The place is taken until the samples are gone.
            drop((data, plan));
            drop(place);
            answer
        });
        let evaluated = loop {
            tokio::select! {
                done = &mut evaluation => break done,
                Some(LateSelect { request, answer }) = asked.recv() => {
                    let selected = self.select_one(view, request, reach, &context.budget).await;
                    let series = selected.map(|(series, more)| {
                        remarks.extend(more);
                        series
                    });
                    // Who does not wait any more does not need it.
                    drop(answer.send(series));
                }
            }
        };
        match evaluated {
            Ok(answer) => {
                let mut answer = answer?;
                for remark in remarks {
                    if !answer.warnings.contains(&remark) {
                        answer.warnings.push(remark);
                    }
                }
                answer.stats.evaluate_seconds = watch.lap();
                Ok(answer)
            }
            Err(failed) => Err(QueryError::Execution(format!("unexpected error: {failed}"))),
        }
    }

    /// Parses, checks and plans.
    fn prepare(
        &self,
        text: &str,
        kind: Kind,
        steps: Steps,
        end: i64,
        options: &QueryOptions,
        features: Features,
    ) -> Result<Plan, QueryError> {
        let mut expr = parse::parse(text, &features.parser())?;
        if self.options.narrow {
            plan::narrow::narrow(&mut expr);
        }
        if let Kind::Range = kind {
            let output = expr.value_type();
            if !matches!(output, ValueType::Scalar | ValueType::InstantVector) {
                return Err(QueryError::BadData(format!(
                    "invalid expression type {:?} for range query, must be Scalar or instant Vector",
                    output.documented()
                )));
            }
        }
        let plan_options = PlanOptions {
            lookback: options.lookback.unwrap_or(self.options.lookback),
            default_subquery_step: self.options.default_subquery_step,
            start_timestamps: features.use_start_timestamps,
        };
        let max_samples = self.max_samples(options);
        let mut plan = plan::plan(&expr, text, steps, end, &plan_options, max_samples)?;
        // Statistics of samples need the samples.
        if !options.per_step_stats {
            let delayed_names = features.delayed_name_removal;
            plan.offer(&OfferRules { delayed_names, max_places: max_samples });
        }
        Ok(plan)
    }

    /// Asks the store for everything the plan reads, all at once.
    async fn select(
        &self,
        view: &View,
        plan: &Plan,
        reach: Reach,
        budget: &Budget,
    ) -> Result<(Vec<SelectedSeries>, Vec<String>), QueryError> {
        let selections = plan.selections.iter();
        let selects =
            selections.map(|selection| self.select_one(view, selection.request.clone(), reach, budget));
        let (data, remarks): (Vec<_>, Vec<Vec<String>>) = try_join_all(selects).await?.into_iter().unzip();
        Ok((data, remarks.into_iter().flatten().collect()))
    }

    async fn select_one(
        &self,
        view: &View,
        mut request: SelectRequest,
        reach: Reach,
        budget: &Budget,
    ) -> Result<(SelectedSeries, Vec<String>), QueryError> {
        reach.check(request.range)?;
        request.max_series = budget.series_left().map(|left| usize::try_from(left).unwrap_or(usize::MAX));
        request.max_label_bytes = budget.bytes_left();
        let expected = Expected::of(&request);
        let selected = view.select(&*self.storage, request).await.map_err(|error| {
            let over = match &error {
                StorageError::TooManySeries { .. } => budget.too_many_series(),
                StorageError::TooManyLabelBytes { .. } => budget.too_many_bytes(),
                _ => None,
            };
            over.unwrap_or(QueryError::Storage(error))
        })?;
        SelectedSeries::receive(selected, expected, budget).await
    }
}

/// How far a query may reach; none is as far as it likes.
#[derive(Clone, Copy, Debug)]
struct Reach {
    limit: Option<Millis>,
    /// What its steps and the lookback make of it anyway.
    steps: i128,
}

impl Reach {
    /// The reach of a query whose steps are no longer than that.
    fn of(start: i64, end: i64, options: &QueryOptions, lookback: Millis) -> Result<Self, QueryError> {
        let steps = i128::from(end) - i128::from(start);
        let lookback = options.lookback.unwrap_or(lookback);
        let reach = Self { limit: options.max_range, steps: steps + i128::from(lookback.0) };
        reach.within(steps)?;
        Ok(reach)
    }

    /// Fails if a selector that reads a range reaches too far beyond the steps.
    fn check(self, range: TimeRange) -> Result<(), QueryError> {
        self.within(i128::from(range.end().0) - i128::from(range.start().0) - self.steps)
    }

    fn within(self, millis: i128) -> Result<(), QueryError> {
        let Some(limit) = self.limit.filter(|limit| millis > i128::from(limit.0)) else { return Ok(()) };
        let number = |millis: i128| u64::try_from(millis).unwrap_or(u64::MAX);
        Err(over(Limit::QueryRange, number(i128::from(limit.0)), number(millis)))
    }
}

/// Tells the evaluation when nobody waits for it any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Measures the parts of a query's time.
struct Watch<'a> {
    clock: &'a dyn Clock,
    last: Duration,
}

impl Watch<'_> {
    fn lap(&mut self) -> f64 {
        let now = self.clock.elapsed();
        now.saturating_sub(std::mem::replace(&mut self.last, now)).as_secs_f64()
    }
}

/// Makes the answer of what was evaluated.
fn answer(
    budget: &Budget,
    text: &str,
    kind: Kind,
    steps: Steps,
    options: &QueryOptions,
    evaluated: Evaluated,
    mut stats: QueryStats,
) -> Result<Answer, QueryError> {
    let (mut warnings, infos) = evaluated.notes.render(text);
    stats.samples_read = evaluated.samples_read;
    stats.total_queryable_samples = evaluated.queryable.iter().sum();
    if options.per_step_stats {
        let per_step = evaluated.queryable.iter().enumerate().map(|(step, count)| (steps.at(step), *count));
        stats.total_queryable_samples_per_step = per_step.collect();
    }
    let mut value = match kind {
        Kind::Instant => instant_value(budget, evaluated.output, steps.start)?,
        Kind::Range => Value::Matrix(matrix(budget, evaluated.output, &steps)?),
    };
    if let Some(limit) = options.limit.filter(|limit| *limit > 0) {
        let cut = match &mut value {
            Value::Vector(elements) => cut_off(elements, limit),
            Value::Matrix(series) => cut_off(series, limit),
            Value::Scalar { .. } | Value::String { .. } => false,
        };
        if cut {
            warnings.push("results truncated due to limit".to_owned());
        }
    }
    Ok(Answer { value, warnings, infos, stats })
}

fn cut_off<T>(all: &mut Vec<T>, limit: usize) -> bool {
    let more = all.len() > limit;
    all.truncate(limit);
    more
}

fn instant_value(budget: &Budget, output: Output, timestamp: i64) -> Result<Value, QueryError> {
    Ok(match output {
        Output::Scalar(values) => {
            Value::Scalar { timestamp, value: values.first().copied().unwrap_or(f64::NAN) }
        }
        Output::Text(value) => Value::String { timestamp, value },
        Output::Vector(rows) => {
            refuse_same(budget, &rows)?;
            let element = |row: SeriesRow| {
                let value = match row.row.histograms.into_iter().next() {
                    Some((_, histogram)) => Point::Histogram(histogram),
                    None => Point::Float(row.row.floats.first().copied().filter(|v| !is_absent(*v))?),
                };
                Some(VectorElement { labels: row.labels, timestamp, value })
            };
            Value::Vector(rows.into_iter().filter_map(element).collect())
        }
        Output::Samples(series) => Value::Matrix(series),
    })
}

/// The result of a range query: series sorted by labels; a scalar is a series without labels.
fn matrix(budget: &Budget, output: Output, steps: &Steps) -> Result<Vec<MatrixSeries>, QueryError> {
    let points = |floats: Vec<f64>| -> Vec<(i64, f64)> {
        let present = floats.into_iter().enumerate().filter(|(_, value)| !is_absent(*value));
        present.map(|(step, value)| (steps.at(step), value)).collect()
    };
    let rows = match output {
        Output::Scalar(values) => {
            return Ok(vec![MatrixSeries {
                labels: Labels::empty(),
                floats: points(values),
                histograms: Vec::new(),
            }]);
        }
        other => other.vector()?,
    };
    refuse_same(budget, &rows)?;
    let mut series: Vec<MatrixSeries> = rows
        .into_iter()
        .map(|row| MatrixSeries {
            labels: row.labels,
            floats: points(row.row.floats),
            histograms: row
                .row
                .histograms
                .into_iter()
                .filter_map(|(step, histogram)| Some((steps.at(usize::try_from(step).ok()?), histogram)))
                .collect(),
        })
        .filter(|series| !series.floats.is_empty() || !series.histograms.is_empty())
        .collect();
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(series)
}

#[cfg(test)]
mod tests;
