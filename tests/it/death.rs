//! Queries of death: each kind is refused by a limit with a name, or stays within what it may have.

use std::{sync::Arc, time::Duration};

use luminate::{
    app::STACK_BYTES,
    clock::{Clock, HandClock},
    model::{FeatureSwitches, Labels, Limit, Millis, TenantId, TenantLimits, Timestamp},
    promql::{Engine, EngineOptions, QueryError},
    query::{
        Answered, InstantQuery, QueryControls, QueryFailure, QueryLimits, QueryService, RangeQuery, Reader,
    },
    storage::{BatchSample, Storage, WriteBatch, memory::MemoryStore},
};

/// Runs on threads with the stack that those of the server have.
fn run(test: impl Future<Output = ()> + Send + 'static) {
    let run = move || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(2).enable_all().thread_stack_size(STACK_BYTES).build().unwrap().block_on(test);
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run).unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Milliseconds between two samples of a series.
const SCRAPE: i64 = 15_000;

/// A service over a store, with little of everything.
struct Case {
    service: QueryService,
    memory: Arc<luminate::promql::memory::Memory>,
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

impl Case {
    /// Two thousand series of 40 samples, and a thousand of one sample each, one after the other.
    async fn start(options: EngineOptions, limits: QueryLimits) -> Self {
        let clock: Arc<dyn Clock> = HandClock::at(Timestamp(40 * SCRAPE));
        let storage: Arc<dyn Storage> = MemoryStore::new(Arc::clone(&clock), None);
        let number = |i: usize| format!("{i}");
        let many =
            (0..2_000).map(|i| labels(&[("__name__", "m"), ("i", &number(i)), ("half", &number(i % 2))]));
        let churned = (0..1_000).map(|i| labels(&[("__name__", "churned"), ("i", &number(i))]));
        let mut batch = WriteBatch::over(many.chain(churned).collect());
        for series in 0..2_000_u32 {
            batch.samples.extend((0..40).map(|scrape| BatchSample {
                series,
                timestamp: Timestamp(scrape * SCRAPE),
                value: f64::from(series) + 0.001 * f64::from(i32::try_from(scrape).unwrap()),
                start: 0,
            }));
        }
        batch.samples.extend((0..1_000_u32).map(|i| BatchSample {
            series: 2_000 + i,
            timestamp: Timestamp(i64::from(i) * 600),
            value: 1.0,
            start: 0,
        }));
        storage.append(&TenantId::anonymous(), batch).await.unwrap();
        let engine = Engine::new(Arc::clone(&storage), options, Arc::clone(&clock)).unwrap();
        let memory = engine.memory();
        Self { service: QueryService::new(Arc::new(engine), storage, clock, limits), memory }
    }

    async fn range(&self, limits: &TenantLimits, text: &str, step: i64) -> Result<Answered, QueryFailure> {
        let reader = Reader { limits: Arc::new(limits.clone()), ..Reader::of(TenantId::anonymous()) };
        let query = RangeQuery {
            text: text.to_owned(),
            start: Timestamp(0),
            end: Timestamp(40 * SCRAPE),
            step: Millis(step),
            controls: QueryControls { features: FeatureSwitches::default(), ..QueryControls::default() },
        };
        self.service.range(&reader, query).await
    }

    /// Asks, and expects to be told of a limit; nothing is held any more when that is told.
    async fn refuses(&self, limits: &TenantLimits, text: &str, step: i64, limit: &str) {
        let shown = &text[..text.floor_char_boundary(100)];
        let error = match self.range(limits, text, step).await {
            Ok(_) => panic!("{shown} is answered"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(limit), "{shown}: {error}");
        let freed = async {
            while self.memory.held() > 0 || self.service.running() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let freed = tokio::time::timeout(Duration::from_secs(60), freed).await;
        assert!(freed.is_ok(), "{shown} still holds {} bytes", self.memory.held());
    }
}

const TOO_MANY: &str = "too many samples";

#[test]
fn each_kind_is_refused_by_a_limit_with_a_name() {
    run(async {
        let options = EngineOptions { max_samples: 400_000, ..EngineOptions::default() };
        let case = Case::start(options, QueryLimits::default()).await;
        let none = TenantLimits::unlimited();
        let refused = async |text: &str, step: i64, limit: &str| case.refuses(&none, text, step, limit).await;

        // Deep.
        let deep = |open: &str, close: &str| format!("{}m{}", open.repeat(2_000), close.repeat(2_000));
        for text in [deep("(", ")"), deep("abs(", ")"), deep("-", ""), deep("sum(", ")"), deep("", "[1m:1m]")]
        {
            let error = case.range(&none, &text, SCRAPE).await.unwrap_err().to_string();
            assert!(error.contains("parse error"), "{error}");
        }
        refused(&deep("abs(", ")"), SCRAPE, "nested more than").await;
        // Long.
        refused(&format!("m{{i=\"{}\"}}", "x".repeat(200_000)), SCRAPE, "the limit is 131072").await;
        refused(&format!("m{{i=~\"{}\"}}", "(a|b){900}".repeat(900)), SCRAPE, "expression too large").await;
        let patterns = vec![r#"i=~"(\\pL{30}|x)+""#; 1_000].join(",");
        refused(&format!("m{{{patterns}}}"), SCRAPE, "regular expressions take more than 32 MiB").await;
        // Many points, many samples.
        refused("m", 10, "exceeded maximum resolution of 11,000 points per timeseries").await;
        refused(r#"{__name__=~".+"}"#, 100, TOO_MANY).await;
        refused("m + on(i, half) m", 1_000, TOO_MANY).await;
        // Exploding.
        refused("sum_over_time((sum_over_time(m[10m:1ms]))[10m:1ms])", SCRAPE, TOO_MANY).await;
        refused("max_over_time(vector(time())[100y:1ms])", SCRAPE, TOO_MANY).await;
        refused(r#"count_values("v", rate(m[1m]) + m)"#, 1_000, TOO_MANY).await;
        refused("churned * on() group_left() m{i=\"1\"}", 600, TOO_MANY).await;
        refused("m{half=\"1\"} * on() group_left() churned", 600, TOO_MANY).await;
        refused("sort(m @ 60)", 500, TOO_MANY).await;
        refused("m or (m + 1) or (m + 2) or (m + 3) or (m + 4)", 2_000, TOO_MANY).await;
        let mut chain = "m".to_owned();
        for _ in 0..40 {
            chain = format!(r#"label_replace({chain}, "i", "$1$1", "i", "(.*)")"#);
        }
        refused(&chain, SCRAPE, TOO_MANY).await;
    });
}

#[test]
fn what_is_just_not_too_deep_is_answered() {
    run(async {
        let case = Case::start(EngineOptions::default(), QueryLimits::default()).await;
        let none = TenantLimits::unlimited();
        let around = |open: &str, close: &str, times: usize| {
            format!("{}m{{i=\"1\"}}{}", open.repeat(times), close.repeat(times))
        };
        let replaced = r#", "a", "b", "c", "d")"#;
        for text in [
            around("(", ")", 498),
            around("(", " + 1)", 498),
            around("1 + (", ")", 248),
            around("abs(", ")", 498),
            around("-", "", 498),
            around("sum(", ")", 498),
            around("topk(1, ", ")", 498),
            around("clamp_min(", ", 1)", 498),
            around("label_replace(", replaced, 498),
            around("max_over_time(", "[1m:1m])", 498),
            vec![r#"m{i="1"}"#; 1_000].join(" or "),
            vec!["1"; 1_000].join(" - "),
            vec!["2"; 490].join(" ^ "),
        ] {
            let shown = &text[..text.floor_char_boundary(40)];
            let answered = case.range(&none, &text, SCRAPE).await;
            assert!(answered.is_ok(), "{shown}: {}", answered.unwrap_err());
        }
    });
}

#[test]
fn a_tenant_s_own_limits_are_named() {
    run(async {
        let case = Case::start(EngineOptions::default(), QueryLimits::default()).await;
        for (limit, most, text) in [
            (Limit::QuerySamples, 10_000, "m"),
            (Limit::QuerySeries, 100, r#"{__name__=~".+"}"#),
            (Limit::QuerySeries, 2_500, "m + on(i) m"),
            (Limit::QueryBytes, 100_000, "m"),
            (Limit::QueryRange, 700_000, "rate(m[1d])"),
            (Limit::QueryPoints, 10, "m"),
        ] {
            let limits = TenantLimits::unlimited().with(limit, most);
            let text = if limit == Limit::QuerySeries && most > 2_000 {
                r#"m + on(i) {__name__=~"m|churned"}"#
            } else {
                text
            };
            case.refuses(&limits, text, SCRAPE, &format!("over the limit {}", limit.name())).await;
        }
    });
}

#[test]
fn what_all_queries_hold_is_bounded() {
    run(async {
        let options = EngineOptions { max_memory: 4 << 20, ..EngineOptions::default() };
        let case = Case::start(options, QueryLimits::default()).await;
        let none = TenantLimits::unlimited();
        for text in
            ["m", "m + 1", r#"{__name__=~".+"}"#, r#"count_values("v", m)"#, "m * on() group_left() churned"]
        {
            case.refuses(&none, text, 100, "over the limit query.max_memory of 4MiB").await;
        }
        let error = case.range(&none, "m", 100).await.unwrap_err();
        assert!(matches!(error, QueryFailure::Query(QueryError::Memory { for_good: true, .. })), "{error}");
        // What fits is answered.
        let answered = case.range(&none, r#"sum(m{i="1"})"#, 100).await.unwrap();
        assert!(answered.running.ticket().peak_bytes() > 0);
    });
}

#[test]
fn what_is_ended_is_gone_wherever_it_is() {
    run(async {
        let case = Case::start(EngineOptions::default(), QueryLimits::default()).await;
        let reader = Reader::of(TenantId::anonymous());
        for text in [
            "sum_over_time((quantile_over_time(0.5, (m)[10m:10ms]))[10m:1s])",
            r#"quantile(0.5, max_over_time(m[10m:100ms]))"#,
            "max_over_time((m * on(i, half) m)[10m:100ms])",
            "topk(5, avg_over_time((m)[10m:100ms]))",
            r#"count_values("v", max_over_time(rate(m[1m])[10m:100ms]))"#,
        ] {
            let query = InstantQuery {
                text: text.to_owned(),
                at: Some(Timestamp(40 * SCRAPE)),
                controls: QueryControls::default(),
            };
            let asking = case.service.instant(&reader, query);
            let ending = async {
                // It has begun to read.
                loop {
                    let active = case.service.active().list(None);
                    if active.first().is_some_and(|query| query.ticket().bytes() > 0) {
                        break active[0].cancel();
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let (asked, ()) = tokio::join!(asking, ending);
            let error = asked.unwrap_err();
            assert!(
                matches!(error, QueryFailure::Query(QueryError::Canceled("expression evaluation"))),
                "{error}"
            );
            let freed = async {
                while case.memory.held() > 0 || case.service.running() > 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            assert!(
                tokio::time::timeout(Duration::from_secs(60), freed).await.is_ok(),
                "{text} does not end"
            );
        }
    });
}
