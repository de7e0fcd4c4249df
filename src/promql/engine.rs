//! The engine: a query's way from text to answer.

mod evaluation;
pub mod reads;
mod select;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future};
use tokio::sync::Semaphore;

use evaluation::{Done, Evaluation};
use select::Here;

use crate::{
    clock::Clock,
    model::{Feature, FeatureSwitches, Labels, Limit, Millis, TimeRange, Timestamp},
    promql::{
        Answer, MatrixSeries, Point, QueryError, QueryStats, Value, VectorElement,
        exec::{
            Evaluated, Output,
            context::{Budget, Context, Costs, Settings, over},
            data::{LateSelect, LateSelects, SelectedSeries},
            names::refuse_same,
            order,
            rows::{SeriesRow, Steps, is_absent},
        },
        memory::Memory,
        parse::{self, ParserFeatures, ValueType},
        plan::{self, Plan, PlanOptions, offers::OfferRules},
        ticket::Ticket,
        turns::Turns,
    },
    storage::{Storage, View},
};

/// The memory of answers that are no larger is not counted.
const SMALL_ANSWER: u64 = 64 * 1024;

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
    /// About the bytes of memory that all queries may have together.
    pub max_memory: u64,
    /// Threads that evaluate at a time; 0 is one per core.
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
            max_memory: u64::MAX,
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
    /// The same with what somebody switches.
    #[must_use]
    pub fn with(mut self, switches: FeatureSwitches) -> Self {
        for feature in Feature::ALL {
            if let Some(on) = switches.of(feature) {
                *self.switch(feature) = on;
            }
        }
        self
    }

    fn switch(&mut self, feature: Feature) -> &mut bool {
        match feature {
            Feature::DelayedNameRemoval => &mut self.delayed_name_removal,
            Feature::UseStartTimestamps => &mut self.use_start_timestamps,
            Feature::TypeAndUnitLabels => &mut self.type_and_unit_labels,
            Feature::ExperimentalFunctions => &mut self.experimental_functions,
            Feature::ExtendedRangeSelectors => &mut self.extended_range_selectors,
            Feature::FillModifiers => &mut self.fill_modifiers,
        }
    }

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
#[derive(Clone, Debug, Default)]
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
    /// By which whoever asks can stop the query and see what it costs; none is nobody.
    pub ticket: Option<Arc<Ticket>>,
}

/// Answers queries over a store.
#[derive(Clone, Debug)]
pub struct Engine {
    storage: Arc<dyn Storage>,
    options: Arc<EngineOptions>,
    clock: Arc<dyn Clock>,
    turns: Turns,
    memory: Arc<Memory>,
    /// Places for asking the store on behalf of tenants who have computed much of late.
    heavy_selects: Arc<Semaphore>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Instant,
    Range,
}

/// What is asked, at which steps.
#[derive(Clone, Copy, Debug)]
struct Asked<'a> {
    text: &'a str,
    kind: Kind,
    steps: Steps,
    end: i64,
}

/// What an evaluation came to.
#[derive(Debug)]
struct Ran<T> {
    done: T,
    /// What the store had to say.
    remarks: Vec<String>,
    evaluate_seconds: f64,
}

impl Engine {
    /// An engine over a store. Fails if its threads cannot be started.
    pub fn new(
        storage: Arc<dyn Storage>,
        options: EngineOptions,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let places = if options.threads == 0 { cores() } else { options.threads };
        Ok(Self {
            storage,
            turns: Turns::new(places, Arc::clone(&clock))?,
            memory: Memory::new(options.max_memory),
            heavy_selects: Arc::new(Semaphore::new(places.div_ceil(2))),
            options: Arc::new(options),
            clock,
        })
    }

    /// The server's values.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// The memory that queries share.
    pub fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.memory)
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
        self.within_time(options, self.answered(view, text, Kind::Instant, steps, at.0, options)).await
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
        let steps = self.steps(start, end, step, options)?;
        self.within_time(options, self.answered(view, text, Kind::Range, steps, end.0, options)).await
    }

    /// The steps of a range query, if they make sense and there are not too many.
    fn steps(
        &self,
        start: Timestamp,
        end: Timestamp,
        step: Millis,
        options: &QueryOptions,
    ) -> Result<Steps, QueryError> {
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
        Ok(Steps { start: start.0, step: step.0, count })
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
    async fn within_time<T>(
        &self,
        options: &QueryOptions,
        query: impl Future<Output = Result<T, QueryError>>,
    ) -> Result<T, QueryError> {
        let timeout = options.timeout.map_or(self.options.timeout, |t| t.min(self.options.timeout));
        match tokio::time::timeout(timeout, query).await {
            Ok(answer) => answer,
            Err(_) => Err(QueryError::Timeout("expression evaluation")),
        }
    }

    async fn answered(
        &self,
        view: &View,
        text: &str,
        kind: Kind,
        steps: Steps,
        end: i64,
        options: &QueryOptions,
    ) -> Result<Answer, QueryError> {
        let (own, given) = (text.to_owned(), options.clone());
        let finish = move |context: &Context, evaluated, stats, _: &[SelectedSeries]| {
            answer(context, &own, kind, steps, &given, evaluated, stats)
        };
        let ran = self.query(view, &Asked { text, kind, steps, end }, options, finish).await?;
        let mut answer = ran.done;
        for remark in ran.remarks {
            if !answer.warnings.contains(&remark) {
                answer.warnings.push(remark);
            }
        }
        answer.stats.evaluate_seconds = ran.evaluate_seconds;
        self.hold_answer(view, options, &answer.value)?;
        Ok(answer)
    }

    /// Evaluates a query; `finish` makes of the result what is wanted of it, on the thread that evaluates.
    async fn query<T: Send + 'static>(
        &self,
        view: &View,
        asked: &Asked<'_>,
        options: &QueryOptions,
        finish: impl FnOnce(&Context, Evaluated, QueryStats, &[SelectedSeries]) -> Result<T, QueryError>
        + Send
        + 'static,
    ) -> Result<Ran<T>, QueryError> {
        let Asked { text, kind, steps, end } = *asked;
        let mut watch = Watch { clock: &*self.clock, last: self.clock.elapsed() };
        let mut stats = QueryStats::default();
        let features = options.features.unwrap_or(self.options.features);
        let settings = Settings {
            delayed_names: features.delayed_name_removal,
            use_start_timestamps: features.use_start_timestamps,
            type_and_unit_labels: features.type_and_unit_labels,
            max_samples: self.max_samples(options),
            count_reads: options.per_step_stats.then_some(steps),
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

        let ticket = options.ticket.clone().unwrap_or_default();
        let tenant = &view.tenants()[0];
        let canceled = CancelOnDrop(Arc::new(AtomicBool::new(false)));
        let context = Arc::new(Context {
            settings,
            budget: Budget::with(self.options.max_samples, costs, Some(self.memory.share(tenant, &ticket)))
                .until(&canceled.0, &ticket),
            turn: self.turns.of(tenant),
            ticket: Arc::clone(&ticket),
        });
        let evaluation = Evaluation { context: Arc::clone(&context), plan, stats, finish };
        let here = view.is_here(&*self.storage);
        let here = here.then(|| Here { engine: self.clone(), view: view.clone(), reach });
        let (late, mut asked) = LateSelects::channel();
        let threads = context.turn.threads();
        let mut evaluated = match here {
            Some(here) => match evaluation.at_once(&here, &late) {
                Ok(done) => future::ready(Ok(done)).boxed(),
                Err(evaluation) => {
                    threads.run(move || evaluation.run(|plan, context| here.select(plan, context), &late))
                }
            },
            None => {
                let mut evaluation = evaluation;
                let mut chosen = self.select(view, &evaluation.plan, reach, &context).await?;
                evaluation.stats.select_seconds = std::mem::take(&mut chosen.took).as_secs_f64();
                watch.lap();
                threads.run(move || evaluation.run(|_, _| Ok(chosen), &late))
            }
        };
        let (mut late_remarks, mut late_readers) = (Vec::new(), Vec::new());
        let evaluated = loop {
            tokio::select! {
                done = &mut evaluated => break done,
                Some(LateSelect { request, answer }) = asked.recv() => {
                    let selected = self.select_one(view, request, reach, &context).await;
                    let series = selected.map(|(series, more)| {
                        late_remarks.extend(more);
                        late_readers.extend(series.reader());
                        series
                    });
                    // Who does not wait any more does not need it.
                    drop(answer.send(series));
                }
            }
        };
        match evaluated {
            Ok(done) => {
                let Done { done, mut remarks, selecting } = done?;
                remarks.append(&mut late_remarks);
                remarks.extend(late_readers.iter().flat_map(|reader| reader.warnings()));
                let evaluate_seconds = (watch.lap() - selecting.as_secs_f64()).max(0.0);
                ticket.leave(self.turns.of(tenant));
                Ok(Ran { done, remarks, evaluate_seconds })
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
        let plan_options = self.plan_options(options, features);
        let max_samples = self.max_samples(options);
        let mut plan = plan::plan(&expr, text, steps, end, &plan_options, max_samples)?;
        // Statistics of samples need the samples.
        if !options.per_step_stats {
            let delayed_names = features.delayed_name_removal;
            plan.offer(&OfferRules { delayed_names, max_places: max_samples });
        }
        Ok(plan)
    }

    fn plan_options(&self, options: &QueryOptions, features: Features) -> PlanOptions {
        PlanOptions {
            lookback: options.lookback.unwrap_or(self.options.lookback),
            default_subquery_step: self.options.default_subquery_step,
            start_timestamps: features.use_start_timestamps,
        }
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
    context: &Context,
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
        let per_step = evaluated.read.iter().enumerate().map(|(step, count)| (steps.at(step), *count));
        stats.samples_read_per_step = per_step.collect();
    }
    let mut value = match kind {
        Kind::Instant => instant_value(&context.budget, evaluated.output, steps.start)?,
        Kind::Range => Value::Matrix(matrix(context, evaluated.output, &steps)?),
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

/// About what an answer and its text take.
fn answer_bytes(value: &Value) -> u64 {
    const POINT: usize = 16 + 28;
    const HISTOGRAM: usize = 1024;
    let labels = |labels: &Labels| labels.as_canonical().len() * 3 + 96;
    let bytes = match value {
        Value::Scalar { .. } => 0,
        Value::String { value, .. } => value.len(),
        Value::Vector(elements) => elements.iter().map(|element| labels(&element.labels) + POINT).sum(),
        Value::Matrix(series) => {
            let points = |s: &MatrixSeries| s.floats.len() * POINT + s.histograms.len() * HISTOGRAM;
            series.iter().map(|series| labels(&series.labels) + points(series)).sum()
        }
    };
    u64::try_from(bytes).unwrap_or(u64::MAX)
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
fn matrix(context: &Context, output: Output, steps: &Steps) -> Result<Vec<MatrixSeries>, QueryError> {
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
    refuse_same(&context.budget, &rows)?;
    let mut series = Vec::with_capacity(rows.len());
    for row in rows {
        context.check()?;
        let SeriesRow { labels, row, .. } = row;
        let at = |(step, histogram): (u32, _)| Some((steps.at(usize::try_from(step).ok()?), histogram));
        let histograms: Vec<_> = row.histograms.into_iter().filter_map(at).collect();
        let floats = points(row.floats);
        if !floats.is_empty() || !histograms.is_empty() {
            series.push(MatrixSeries { labels, floats, histograms });
        }
    }
    order::sort_by(&context.budget, series, |a, b| a.labels.cmp(&b.labels))
}

mod pieces;
#[cfg(test)]
mod tests;

pub use pieces::{MadeOf, Piece, Study};
