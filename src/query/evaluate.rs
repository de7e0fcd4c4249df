//! Instant and range queries, from the check of their parameters to the cut of their answer.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    Asked, Origin, QueryFailure, QueryService, Reader, Running, TRUNCATED, active::CacheNote, cache::Ask,
};
use crate::{
    model::{FeatureSwitches, Limit, Millis, Timestamp},
    promql::{Answer, Engine, QueryError, QueryOptions, Reads, Value, When},
    storage::View,
};

/// The furthest from the epoch that a query may be evaluated, either way: half of what there is, so
/// that offsets and ranges taken from it stay within what there is.
const FURTHEST: i64 = i64::MAX / 2;

/// Evaluates PromQL.
///
/// Dropping a call stops the work behind it.
#[async_trait]
pub trait Evaluate: fmt::Debug + Send + Sync + 'static {
    /// Evaluates `text` at one instant.
    async fn instant(
        &self,
        view: &View,
        text: &str,
        at: Timestamp,
        options: &QueryOptions,
    ) -> Result<Answer, QueryError>;

    /// Evaluates `text` at `start`, `start + step`, … up to `end`.
    async fn range(
        &self,
        view: &View,
        text: &str,
        start: Timestamp,
        end: Timestamp,
        step: Millis,
        options: &QueryOptions,
    ) -> Result<Answer, QueryError>;

    /// What `text` would read.
    fn reads(&self, text: &str, when: When, options: &QueryOptions) -> Result<Reads, QueryError>;
}

#[async_trait]
impl Evaluate for Engine {
    async fn instant(
        &self,
        view: &View,
        text: &str,
        at: Timestamp,
        options: &QueryOptions,
    ) -> Result<Answer, QueryError> {
        Self::instant(self, view, text, at, options).await
    }

    async fn range(
        &self,
        view: &View,
        text: &str,
        start: Timestamp,
        end: Timestamp,
        step: Millis,
        options: &QueryOptions,
    ) -> Result<Answer, QueryError> {
        Self::range(self, view, text, start, end, step, options).await
    }

    fn reads(&self, text: &str, when: When, options: &QueryOptions) -> Result<Reads, QueryError> {
        Self::reads(self, text, when, options)
    }
}

/// The parameters every query has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryControls {
    /// How long it may take, at most as long as the service allows.
    pub timeout: Option<Duration>,
    /// The most series wanted; 0 is all.
    pub limit: usize,
    /// How far back a sample counts.
    pub lookback: Option<Millis>,
    /// Whether samples are counted per step, too.
    pub per_step_stats: bool,
    /// Whether everything is to be evaluated, whatever is kept.
    pub no_cache: bool,
    /// Features that this request switches.
    pub features: FeatureSwitches,
    /// Where it comes from.
    pub origin: Origin,
}

/// An answer, and the query it is of, which is over when this is dropped.
#[derive(Debug)]
pub struct Answered {
    /// The answer.
    pub answer: Answer,
    /// The query.
    pub running: Running,
}

/// A query at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstantQuery {
    /// The PromQL.
    pub text: String,
    /// When; none is now.
    pub at: Option<Timestamp>,
    /// The rest.
    pub controls: QueryControls,
}

/// A query over a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    /// The PromQL.
    pub text: String,
    /// The first step.
    pub start: Timestamp,
    /// What no step lies after.
    pub end: Timestamp,
    /// The distance between steps.
    pub step: Millis,
    /// The rest.
    pub controls: QueryControls,
}

impl RangeQuery {
    /// Checks the grid before anything else is read, in the order Prometheus does.
    pub fn check_grid(
        start: Timestamp,
        end: Timestamp,
        step: Millis,
        max_steps: i64,
    ) -> Result<(), QueryFailure> {
        if end < start {
            return Err(QueryFailure::parameter("end", "end timestamp must not be before start time"));
        }
        if step.millis() <= 0 {
            return Err(QueryFailure::parameter(
                "step",
                "zero or negative query resolution step widths are not accepted. Try a positive integer",
            ));
        }
        if end.millis().saturating_sub(start.millis()) / step.millis() > max_steps {
            return Err(QueryFailure::Request(format!(
                "exceeded maximum resolution of {} points per timeseries. \
                 Try decreasing the query resolution (?step=XX)",
                Thousands(max_steps)
            )));
        }
        Ok(())
    }
}

impl QueryService {
    /// Evaluates at one instant.
    pub async fn instant(&self, reader: &Reader, query: InstantQuery) -> Result<Answered, QueryFailure> {
        self.check_text(&query.text)?;
        let at = query.at.unwrap_or_else(|| self.clock.now());
        check_reach("time", at)?;
        let InstantQuery { text, controls, .. } = query;
        let asked = Asked { start: at, end: at, step: Millis(0) };
        self.admitted(reader, &text, asked, &controls, |options, _| {
            let text = &text;
            async move { self.engine.instant(&reader.view, text, at, &options).await }
        })
        .await
    }

    /// Evaluates over a range.
    pub async fn range(&self, reader: &Reader, query: RangeQuery) -> Result<Answered, QueryFailure> {
        let RangeQuery { text, start, end, step, controls } = query;
        RangeQuery::check_grid(start, end, step, self.limits.max_steps)?;
        check_reach("start", start)?;
        check_reach("end", end)?;
        check_points(reader, start, end, step)?;
        self.check_text(&text)?;
        self.admitted(reader, &text, Asked { start, end, step }, &controls, |options, note| {
            let (text, fresh) = (&text, controls.no_cache);
            async move {
                let ask = Ask { view: &reader.view, text, start, end, step, options: &options };
                let kept = match &self.cache {
                    Some(cache) => cache.answer(&ask, fresh).await,
                    None => None,
                };
                match kept {
                    Some(answer) => {
                        let has_read =
                            options.ticket.as_ref().is_some_and(|ticket| ticket.samples_read() > 0);
                        note.note(if has_read { "filled" } else { "hit" });
                        answer
                    }
                    None => self.engine.range(&reader.view, text, start, end, step, &options).await,
                }
            }
        })
        .await
    }

    pub(super) fn check_text(&self, text: &str) -> Result<(), QueryFailure> {
        let limit = self.limits.max_query_bytes;
        if text.len() > limit {
            let reason = format!("the query is {} bytes long, the limit is {limit}", text.len());
            return Err(QueryFailure::parameter("query", reason));
        }
        Ok(())
    }

    /// Waits for a place, evaluates within what is left of the time, cuts the answer, and writes down what it cost.
    async fn admitted<E, F>(
        &self,
        reader: &Reader,
        text: &str,
        asked: Asked,
        controls: &QueryControls,
        evaluate: E,
    ) -> Result<Answered, QueryFailure>
    where
        E: FnOnce(QueryOptions, CacheNote) -> F,
        F: Future<Output = Result<Answer, QueryError>>,
    {
        let mut running = Running::begin(&self.active, &self.journal, reader, text, asked, &controls.origin);
        let answer = self.attempt(&mut running, reader, controls, evaluate).await;
        running.settle(answer.as_ref().err());
        Ok(Answered { answer: answer?, running })
    }

    async fn attempt<E, F>(
        &self,
        running: &mut Running,
        reader: &Reader,
        controls: &QueryControls,
        evaluate: E,
    ) -> Result<Answer, QueryFailure>
    where
        E: FnOnce(QueryOptions, CacheNote) -> F,
        F: Future<Output = Result<Answer, QueryError>>,
    {
        let began = self.clock.elapsed();
        let most = self.timeout(reader);
        let timeout = controls.timeout.unwrap_or(most).min(most);
        let ticket = Arc::clone(running.ticket());

        running.enter(&self.admission, timeout).await?;
        let waited = self.clock.elapsed().saturating_sub(began);
        let left = timeout.saturating_sub(waited);

        if left.is_zero() {
            return Err(QueryError::Timeout("expression evaluation").into());
        }
        let limits = &reader.limits;
        let options = QueryOptions {
            max_samples: limits.get(Limit::QuerySamples),
            max_series: limits.get(Limit::QuerySeries),
            max_bytes: limits.get(Limit::QueryBytes),
            max_range: limits.get(Limit::QueryRange).map(|ms| Millis(i64::try_from(ms).unwrap_or(i64::MAX))),
            lookback: controls.lookback,
            timeout: Some(left),
            per_step_stats: controls.per_step_stats,
            features: Some(self.features(Some(reader), controls.features)),
            ticket: Some(Arc::clone(&ticket)),
            ..QueryOptions::default()
        };
        let mut answer = tokio::select! {
            evaluated = tokio::time::timeout(left, evaluate(options, running.cache())) => {
                evaluated.unwrap_or(Err(QueryError::Timeout("expression evaluation")))?
            }
            () = ticket.canceled() => return Err(QueryError::Canceled("expression evaluation").into()),
        };
        answer.stats.queue_seconds += waited.as_secs_f64();
        cut(&mut answer, controls.limit);
        Ok(answer)
    }
}

fn check_points(reader: &Reader, start: Timestamp, end: Timestamp, step: Millis) -> Result<(), QueryFailure> {
    let points = (i128::from(end.0) - i128::from(start.0)) / i128::from(step.0.max(1)) + 1;
    reader.within(Limit::QueryPoints, u64::try_from(points).unwrap_or(u64::MAX))
}

pub(super) fn check_reach(name: &'static str, at: Timestamp) -> Result<(), QueryFailure> {
    if (-FURTHEST..=FURTHEST).contains(&at.millis()) {
        return Ok(());
    }
    Err(QueryFailure::parameter(name, "the timestamp is too far from the present to evaluate at"))
}

fn cut(answer: &mut Answer, limit: usize) {
    fn truncate<T>(rows: &mut Vec<T>, limit: usize) -> bool {
        let over = rows.len() > limit;
        rows.truncate(limit);
        over
    }
    if limit == 0 {
        return;
    }
    let was_cut = match &mut answer.value {
        Value::Vector(rows) => truncate(rows, limit),
        Value::Matrix(rows) => truncate(rows, limit),
        Value::Scalar { .. } | Value::String { .. } => false,
    };
    if was_cut {
        answer.warnings.push(TRUNCATED.to_owned());
    }
}

/// Prints a number with a comma before every third digit: `11,000`.
struct Thousands(i64);

impl fmt::Display for Thousands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TenantId;
    use crate::{
        clock::HandClock,
        model::Labels,
        model::TenantLimits,
        promql::{Point, QueryStats, VectorElement},
        query::{CatalogQuery, QueryLimits},
        storage::{BatchSample, Storage, WriteBatch, memory::MemoryStore},
    };

    #[derive(Debug)]
    struct Slow(Duration);

    fn answer(value: Value) -> Answer {
        Answer { value, warnings: vec![], infos: vec![], stats: QueryStats::default() }
    }

    #[async_trait]
    impl Evaluate for Slow {
        async fn instant(
            &self,
            _: &View,
            _: &str,
            at: Timestamp,
            _: &QueryOptions,
        ) -> Result<Answer, QueryError> {
            tokio::time::sleep(self.0).await;
            Ok(answer(Value::Scalar { timestamp: at.0, value: 1.0 }))
        }

        async fn range(
            &self,
            _: &View,
            _: &str,
            _: Timestamp,
            _: Timestamp,
            _: Millis,
            _: &QueryOptions,
        ) -> Result<Answer, QueryError> {
            Ok(answer(Value::Matrix(vec![])))
        }

        fn reads(&self, _: &str, _: When, _: &QueryOptions) -> Result<Reads, QueryError> {
            Ok(Reads { requests: vec![], too_far: None, max_samples: u64::MAX })
        }
    }

    fn service(slow: Duration, limits: QueryLimits) -> QueryService {
        let clock = HandClock::at(Timestamp(1_000));
        let store = MemoryStore::new(Arc::<HandClock>::clone(&clock), None);
        QueryService::new(Arc::new(Slow(slow)), store, clock, limits)
    }

    fn instant(text: &str) -> InstantQuery {
        InstantQuery { text: text.to_owned(), at: None, controls: QueryControls::default() }
    }

    #[tokio::test]
    async fn no_time_given_means_now() {
        let service = service(Duration::ZERO, QueryLimits::default());
        let answer = service.instant(&Reader::of(TenantId::anonymous()), instant("1")).await.unwrap();
        assert_eq!(answer.answer.value, Value::Scalar { timestamp: 1_000, value: 1.0 });
    }

    #[tokio::test]
    async fn a_request_may_ask_for_less_time_and_not_for_more() {
        let limits = QueryLimits { timeout: Duration::from_millis(20), ..QueryLimits::default() };
        for (asked, slow) in [(Duration::from_millis(5), 15), (Duration::from_secs(60), 60)] {
            let service = service(Duration::from_millis(slow), limits.clone());
            let mut query = instant("1");
            query.controls.timeout = Some(asked);
            let error = service.instant(&Reader::of(TenantId::anonymous()), query).await.unwrap_err();
            assert_eq!(error.to_string(), "query timed out in expression evaluation");
        }
    }

    #[tokio::test]
    async fn no_time_at_all_is_not_enough_for_a_quick_answer_either() {
        let mut query = instant("1");
        query.controls.timeout = Some(Duration::ZERO);
        let service = service(Duration::ZERO, QueryLimits::default());
        let error = service.instant(&Reader::of(TenantId::anonymous()), query).await.unwrap_err();
        assert_eq!(error.to_string(), "query timed out in expression evaluation");
    }

    #[tokio::test]
    async fn waiting_in_line_counts_against_the_timeout() {
        let limits =
            QueryLimits { timeout: Duration::from_millis(30), max_concurrency: 1, ..QueryLimits::default() };
        let service = service(Duration::ZERO, limits);
        let _taken = service.admission.enter(&TenantId::anonymous()).await.unwrap();
        let error = service.instant(&Reader::of(TenantId::anonymous()), instant("1")).await.unwrap_err();
        assert_eq!(error.to_string(), "query timed out in query queue");
    }

    #[tokio::test]
    async fn a_text_beyond_the_limit_is_refused_before_it_is_parsed() {
        let limits = QueryLimits { max_query_bytes: 8, ..QueryLimits::default() };
        let error = service(Duration::ZERO, limits)
            .instant(&Reader::of(TenantId::anonymous()), instant("123456789"))
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"invalid parameter "query": the query is 9 bytes long, the limit is 8"#
        );
    }

    #[tokio::test]
    async fn the_ends_of_time_are_refused() {
        let service = service(Duration::ZERO, QueryLimits::default());
        for at in [Timestamp::MIN, Timestamp::MAX] {
            let query = InstantQuery { at: Some(at), ..instant("1") };
            let error = service.instant(&Reader::of(TenantId::anonymous()), query).await.unwrap_err();
            assert!(error.to_string().starts_with(r#"invalid parameter "time""#), "{error}");
        }
    }

    #[test]
    fn a_grid_is_checked_in_prometheus_words() {
        fn check(start: i64, end: i64, step: i64) -> String {
            let (start, end) = (Timestamp(start), Timestamp(end));
            match RangeQuery::check_grid(start, end, Millis(step), 11_000) {
                Ok(()) => String::new(),
                Err(error) => error.to_string(),
            }
        }
        assert_eq!(check(0, 11_000, 1), "");
        assert_eq!(
            check(0, 11_001, 1),
            "exceeded maximum resolution of 11,000 points per timeseries. \
             Try decreasing the query resolution (?step=XX)"
        );
        assert_eq!(check(1, 0, 1), r#"invalid parameter "end": end timestamp must not be before start time"#);
        assert_eq!(
            check(0, 1, 0),
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. \
             Try a positive integer"
        );
        assert!(check(i64::MIN, i64::MAX, 1).starts_with("exceeded maximum resolution"));
    }

    #[test]
    fn a_limit_cuts_series_and_says_so() {
        let element = VectorElement { labels: Labels::empty(), timestamp: 0, value: Point::Float(1.0) };
        let mut two = answer(Value::Vector(vec![element.clone(), element.clone()]));
        cut(&mut two, 0);
        cut(&mut two, 2);
        assert_eq!(two.warnings, Vec::<String>::new());
        cut(&mut two, 1);
        assert_eq!(two.value, Value::Vector(vec![element]));
        assert_eq!(two.warnings, [TRUNCATED]);
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let print = |n| Thousands(n).to_string();
        assert_eq!(
            [print(1), print(999), print(11_000), print(1_234_567)],
            ["1", "999", "11,000", "1,234,567"]
        );
    }

    fn reader(limits: TenantLimits) -> Reader {
        Reader { limits: Arc::new(limits), ..Reader::of(TenantId::anonymous()) }
    }

    #[tokio::test]
    async fn a_tenant_may_have_fewer_points_than_the_service_gives() {
        let service = service(Duration::ZERO, QueryLimits::default());
        let reader = reader(TenantLimits::unlimited().with(Limit::QueryPoints, 11));
        let ask = |end| RangeQuery {
            text: "1".to_owned(),
            start: Timestamp(0),
            end: Timestamp(end),
            step: Millis(10),
            controls: QueryControls::default(),
        };
        service.range(&reader, ask(109)).await.unwrap();
        let error = service.range(&reader, ask(110)).await.unwrap_err();
        assert_eq!(error.to_string(), "over the limit max_query_points of 11: 12");
        assert_eq!(error.over_limit().map(|over| over.limit), Some(Limit::QueryPoints));
        let error = service.range(&reader, ask(1_000_000)).await.unwrap_err();
        assert!(error.to_string().starts_with("exceeded maximum resolution"), "{error}");
    }

    #[tokio::test]
    async fn a_tenant_may_have_less_time_than_the_service_gives_and_not_more() {
        // Were the longer of the two to count, this would take an hour.
        const HOUR: u64 = 3_600_000;
        for (own, service_gives) in [(5, HOUR), (HOUR, 20)] {
            let limits =
                QueryLimits { timeout: Duration::from_millis(service_gives), ..QueryLimits::default() };
            let service = service(Duration::from_millis(2 * HOUR), limits);
            let reader = reader(TenantLimits::unlimited().with(Limit::QueryTimeout, own));
            let error = service.instant(&reader, instant("1")).await.unwrap_err();
            assert_eq!(error.to_string(), "query timed out in expression evaluation");
        }
    }

    #[tokio::test]
    async fn lists_of_series_are_bounded_too() {
        let clock = HandClock::at(Timestamp(1_000));
        let store = MemoryStore::new(Arc::<HandClock>::clone(&clock), None);
        let labels = |i: usize| Labels::from_pairs([("__name__", "a"), ("i", &i.to_string())]).unwrap();
        let mut batch = WriteBatch::over((0..5).map(labels).collect());
        let sample = |series| BatchSample { series, timestamp: Timestamp(1), value: 1.0, start: 0 };
        batch.samples = (0..5).map(sample).collect();
        store.append(&TenantId::anonymous(), batch).await.unwrap();
        let service = QueryService::new(Arc::new(Slow(Duration::ZERO)), store, clock, QueryLimits::default());
        let list = async |limits: TenantLimits, limit: usize| {
            let query = CatalogQuery { selectors: vec!["a".to_owned()], limit, ..CatalogQuery::default() };
            service.series(&reader(limits), query).await.map(|l| l.items.len()).map_err(|e| e.to_string())
        };
        let series = |most| TenantLimits::unlimited().with(Limit::QuerySeries, most);
        assert_eq!(list(series(5), 0).await, Ok(5));
        assert_eq!(list(series(4), 0).await, Err("over the limit max_query_series of 4: 5".to_owned()));
        assert_eq!(list(series(4), 4).await, Ok(4), "no more are wanted");
        assert!(list(series(4), 5).await.is_err());
        let bytes = TenantLimits::unlimited().with(Limit::QueryBytes, 100);
        assert!(list(bytes, 0).await.unwrap_err().starts_with("over the limit max_query_bytes of 100B: "));
    }
}
