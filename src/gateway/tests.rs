//! The router as a client sees it, over a store in memory and an engine that knows a few answers.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode, header},
};
use bytes::Bytes;
use serde_json::{Value as Json, json};
use tower::ServiceExt;

use super::{
    Door, GatewayConfig, MetricsRenderer, State,
    audit::Audit,
    auth::Auth,
    body::BodyLimits,
    health::{Readiness, Stage},
    host_guard::HostGuard,
    limit::{
        Limiter,
        buckets::NoBuckets,
        table::{LimitTable, Rules},
        user::UserOverrides,
    },
    reload::Reloads,
    request::{Endpoint, RequestCounters},
    router,
    running::Running,
};
use crate::{
    clock::{Clock, HandClock},
    ingest::{Ingest, IngestLimits},
    model::{Exemplar, Labels, Metadata, MetricType, Millis, TenantId, TenantLimits, Timestamp},
    promql::{
        Answer, Engine, EngineOptions, MatrixSeries, ParseError, Point, QueryError, QueryOptions, QueryStats,
        Reads, Value, VectorElement, When, parse::Span,
    },
    query::{Evaluate, QueryLimits, QueryService},
    storage::{BatchExemplar, BatchSample, Storage, StorageError, View, WriteBatch, memory::MemoryStore},
};

mod active;
mod audit;
mod limits;
mod listening;
mod moving;
mod openapi;
mod overrides;
mod remote_read;
mod search;
mod status;

/// An engine that answers by heart.
#[derive(Debug)]
struct ByHeart;

fn answer(value: Value) -> Answer {
    Answer { value, warnings: vec![], infos: vec![], stats: QueryStats::default() }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

#[async_trait]
impl Evaluate for ByHeart {
    async fn instant(
        &self,
        view: &View,
        text: &str,
        at: Timestamp,
        options: &QueryOptions,
    ) -> Result<Answer, QueryError> {
        let timestamp = at.millis();
        let element = |name: &str, value| VectorElement {
            labels: labels(&[("__name__", "up"), ("job", name)]),
            timestamp,
            value: Point::Float(value),
        };
        match text {
            "1+1" => Ok(answer(Value::Scalar { timestamp, value: 2.0 })),
            "tenant" => Ok(answer(Value::String { timestamp, value: view.tenants()[0].to_string() })),
            "lookback" => {
                let value = format!("{:?}", options.lookback.map(Millis::millis));
                Ok(answer(Value::String { timestamp, value }))
            }
            "up" => Ok(answer(Value::Vector(vec![element("a", 1.0), element("b", 0.0)]))),
            "many" => Ok(answer(Value::Vector(vec![element("a", 1.0); 30_000]))),
            "noted" => Ok(Answer {
                warnings: vec!["PromQL warning: a<b (1:1)".to_owned()],
                infos: vec!["PromQL info: c (1:1)".to_owned()],
                ..answer(Value::Vector(vec![]))
            }),
            "m:n" => Err(QueryError::Execution("many-to-many matching not allowed".to_owned())),
            "slow" => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok(answer(Value::Vector(vec![])))
            }
            "damaged" => Err(QueryError::Storage(StorageError::Corrupt {
                path: "/secret".into(),
                offset: 1,
                detail: "checksum".to_owned(),
            })),
            "panic" => panic!("the engine fell over"),
            _ => Err(QueryError::Parse(ParseError {
                message: "unexpected end of input".to_owned(),
                span: Span::default(),
                line: 1,
                column: 3,
            })),
        }
    }

    async fn range(
        &self,
        _: &View,
        text: &str,
        start: Timestamp,
        end: Timestamp,
        _: Millis,
        _: &QueryOptions,
    ) -> Result<Answer, QueryError> {
        let series = |job: &str| MatrixSeries {
            labels: labels(&[("job", job)]),
            floats: vec![(start.millis(), 1.0), (end.millis(), 2.5)],
            histograms: vec![],
        };
        match text {
            "up" => Ok(answer(Value::Matrix(vec![series("a"), series("b")]))),
            _ => Err(QueryError::BadData(
                "invalid expression type \"range vector\" for range query, must be Scalar or instant Vector"
                    .to_owned(),
            )),
        }
    }

    fn reads(&self, _: &str, _: When, _: &QueryOptions) -> Result<Reads, QueryError> {
        Ok(Reads { requests: vec![], too_far: None, max_samples: u64::MAX })
    }
}

struct TestApp {
    router: Router,
    state: Arc<State>,
}

#[derive(Debug)]
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    fn is_error(&self, status: u16, kind: &str, message: &str) {
        let body = self.json();
        assert_eq!(
            (self.status.as_u16(), body["errorType"].as_str(), body["error"].as_str()),
            (status, Some(kind), Some(message))
        );
        assert_eq!(body["status"], "error");
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json");
    }

    #[track_caller]
    fn is_success(&self, data: &Json) {
        assert_eq!(self.status, 200, "{}", self.text());
        let body = self.json();
        assert_eq!((&body["status"], &body["data"]), (&json!("success"), data));
    }
}

impl TestApp {
    async fn start() -> Self {
        Self::with(GatewayConfig::default()).await
    }

    async fn with(config: GatewayConfig) -> Self {
        Self::over(config, |_, _| Arc::new(ByHeart)).await
    }

    /// With the engine itself.
    async fn computing() -> Self {
        Self::over(GatewayConfig::default(), |storage, clock| {
            Arc::new(Engine::new(storage, EngineOptions::default(), clock).unwrap())
        })
        .await
    }

    async fn over(
        config: GatewayConfig,
        engine: impl FnOnce(Arc<dyn Storage>, Arc<dyn Clock>) -> Arc<dyn Evaluate>,
    ) -> Self {
        Self::built(config, Rules::of(TenantLimits::default()), engine).await
    }

    /// With all the time there is, however busy the machine.
    fn unhurried(self) -> Self {
        let Self { router: old, state } = self;
        drop(old);
        let mut state = Arc::into_inner(state).expect("only the router had it, too");
        let (storage, clock) = (Arc::clone(&state.storage), Arc::clone(&state.clock));
        let limits = QueryLimits::default();
        state.query = Arc::new(QueryService::new(Arc::new(ByHeart), storage, clock, limits));
        let state = Arc::new(state);
        Self { router: router(Arc::clone(&state), Door::Both), state }
    }

    /// With rules of limits.
    async fn under(rules: Rules) -> Self {
        Self::built(GatewayConfig::default(), rules, |_, _| Arc::new(ByHeart)).await
    }

    async fn built(
        config: GatewayConfig,
        rules: Rules,
        engine: impl FnOnce(Arc<dyn Storage>, Arc<dyn Clock>) -> Arc<dyn Evaluate>,
    ) -> Self {
        let clock = HandClock::at(Timestamp(10_000));
        let storage: Arc<dyn Storage> = MemoryStore::new(Arc::<HandClock>::clone(&clock), None);
        let mut batch = WriteBatch::over(vec![
            labels(&[("__name__", "up"), ("job", "a")]),
            labels(&[("__name__", "up"), ("http.status", "200"), ("job", "b")]),
            labels(&[("__name__", "down"), ("job", "c")]),
        ]);
        batch.samples = (0..3)
            .map(|series| BatchSample { series, timestamp: Timestamp(5_000), value: 1.0, start: 0 })
            .collect();
        batch.exemplars = vec![BatchExemplar {
            series: 0,
            exemplar: Exemplar {
                labels: labels(&[("trace_id", "t1")]),
                value: 0.5,
                timestamp: Timestamp(5_500),
            },
        }];
        batch.metadata = ["up", "down"]
            .map(|metric| Metadata {
                metric: metric.to_owned(),
                kind: MetricType::Gauge,
                help: format!("Is it {metric}?"),
                unit: String::new(),
            })
            .to_vec();
        storage.append(&TenantId::anonymous(), batch).await.unwrap();

        let limits = QueryLimits { timeout: Duration::from_millis(200), ..QueryLimits::default() };
        let clock: Arc<dyn Clock> = clock;
        let engine = engine(Arc::clone(&storage), Arc::clone(&clock));
        let query = QueryService::new(engine, Arc::clone(&storage), Arc::clone(&clock), limits);
        let readiness = Arc::new(Readiness::default());
        readiness.enter(Stage::Serving);
        let table = Arc::new(LimitTable::new(rules));
        let users = Arc::new(UserOverrides::new(Arc::clone(&storage), Arc::clone(&table)));
        let audit = Arc::new(Audit::to_log(Arc::clone(&clock)));
        let state = Arc::new(State {
            ingest: Arc::new(ingest(&storage, &clock)),
            query: Arc::new(query),
            storage,
            clock: Arc::clone(&clock),
            render_metrics: MetricsRenderer(Arc::new(|format| format!("# {format:?}\n"))),
            config,
            running: Running {
                config: "query:\n  timeout: 2m\n".to_owned(),
                started: Timestamp(1_500),
                directory: "/srv".to_owned(),
                host: "here".to_owned(),
                retention: "30d".to_owned(),
                memory_limit: None,
            },
            audit: Arc::clone(&audit),
            auth: Arc::new(Auth::open()),
            limiter: Arc::new(Limiter::new(Arc::clone(&table), Arc::new(NoBuckets))),
            reloads: Arc::new(Reloads::new(vec![(Arc::clone(&users) as _, None)], audit, Arc::clone(&clock))),
            user_overrides: users,
            redis: None,
            readiness,
            counters: Arc::new(RequestCounters::default()),
        });
        Self { router: router(Arc::clone(&state), Door::Both), state }
    }

    async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, &[], "").await
    }

    async fn post(&self, path: &str, form: &str) -> Reply {
        self.call("POST", path, &[("content-type", "application/x-www-form-urlencoded")], form).await
    }
}

fn ingest(storage: &Arc<dyn Storage>, clock: &Arc<dyn Clock>) -> Ingest {
    let (storage, clock) = (Arc::clone(storage), Arc::clone(clock));
    Ingest::new(storage, clock, IngestLimits::default(), (1, 2))
}

const TWO_SERIES: &str = concat!(
    r#"{"status":"success","data":{"resultType":"vector","result":["#,
    r#"{"metric":{"__name__":"up","job":"a"},"value":[4,"1"]},"#,
    r#"{"metric":{"__name__":"up","job":"b"},"value":[4,"0"]}]}}"#
);

#[tokio::test]
async fn an_instant_query_is_answered_by_get_and_post_and_under_both_prefixes() {
    let app = TestApp::start().await;
    for prefix in ["/api/v1", "/prometheus/api/v1"] {
        let got = app.get(&format!("{prefix}/query?query=up&time=4")).await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, TWO_SERIES));
        assert_eq!(got.headers[header::CONTENT_TYPE], "application/json");
        let posted = app.post(&format!("{prefix}/query"), "query=up&time=4").await;
        assert_eq!(posted.text(), TWO_SERIES);
    }
}

#[tokio::test]
async fn grafanas_first_question_has_a_scalar_for_an_answer() {
    let app = TestApp::start().await;
    let reply = app.post("/api/v1/query", "query=1%2B1&time=4").await;
    assert_eq!(reply.text(), r#"{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}"#);
}

#[tokio::test]
async fn parameters_of_body_and_url_are_merged_and_the_body_wins() {
    let app = TestApp::start().await;
    let reply = app.post("/api/v1/query?query=nonsense&time=4", "query=up").await;
    assert_eq!(reply.text(), TWO_SERIES);
    // vmalert posts an empty body that it calls JSON.
    let vmalert =
        app.call("POST", "/api/v1/query?query=up&time=4", &[("content-type", "application/json")], "").await;
    assert_eq!(vmalert.text(), TWO_SERIES);
    let untyped = app.call("POST", "/api/v1/query", &[], "query=up&time=4").await;
    assert_eq!(untyped.text(), TWO_SERIES);
}

#[tokio::test]
async fn without_a_time_it_is_now() {
    let app = TestApp::start().await;
    let reply = app.get("/api/v1/query?query=1%2B1").await;
    assert_eq!(reply.json()["data"]["result"][0], json!(10));
}

#[tokio::test]
async fn a_range_query_is_answered() {
    let app = TestApp::start().await;
    let reply = app.post("/api/v1/query_range", "query=up&start=0&end=60&step=15s&limit=1").await;
    assert_eq!(
        reply.text(),
        concat!(
            r#"{"status":"success","data":{"resultType":"matrix","result":["#,
            r#"{"metric":{"job":"a"},"values":[[0,"1"],[60,"2.5"]]}]},"#,
            r#""warnings":["results truncated due to limit"]}"#
        )
    );
}

#[tokio::test]
async fn bad_query_parameters_are_named() {
    let app = TestApp::start().await;
    for (path, message) in [
        ("query?query=up(", r#"invalid parameter "query": 1:3: parse error: unexpected end of input"#),
        ("query", r#"invalid parameter "query": 1:3: parse error: unexpected end of input"#),
        (
            "query?query=up&time=x",
            r#"invalid parameter "time": Invalid time value for 'time': cannot parse "x" to a valid timestamp"#,
        ),
        ("query?query=up&timeout=x", r#"invalid parameter "timeout": cannot parse "x" to a valid duration"#),
        (
            "query?query=up&lookback_delta=x",
            r#"error parsing lookback delta duration: cannot parse "x" to a valid duration"#,
        ),
        ("query?query=up&limit=-1", r#"invalid parameter "limit": limit must be non-negative"#),
        ("query?query=%zz", r#"error parsing form values: invalid URL escape "%zz""#),
        (
            "query_range?query=up&end=1&step=1",
            r#"invalid parameter "start": cannot parse "" to a valid timestamp"#,
        ),
        (
            "query_range?query=up&start=0&end=1",
            r#"invalid parameter "step": cannot parse "" to a valid duration"#,
        ),
        (
            "query_range?query=up&start=2&end=1&step=1",
            r#"invalid parameter "end": end timestamp must not be before start time"#,
        ),
        (
            "query_range?query=up&start=0&end=1&step=0",
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. \
             Try a positive integer",
        ),
        (
            "query_range?query=up&start=0&end=11001&step=1",
            "exceeded maximum resolution of 11,000 points per timeseries. \
             Try decreasing the query resolution (?step=XX)",
        ),
        (
            "query_range?query=up%5B5m%5D&start=0&end=1&step=1",
            "invalid parameter \"query\": invalid expression type \"range vector\" for range query, \
             must be Scalar or instant Vector",
        ),
    ] {
        app.get(&format!("/api/v1/{path}")).await.is_error(400, "bad_data", message);
    }
}

#[tokio::test]
async fn failures_of_the_evaluation_have_their_statuses() {
    let app = TestApp::start().await;
    let ask = async |query: &str| app.get(&format!("/api/v1/query?query={query}")).await;
    ask("m:n").await.is_error(422, "execution", "many-to-many matching not allowed");
    ask("slow").await.is_error(503, "timeout", "query timed out in expression evaluation");
    ask("slow&timeout=0.01").await.is_error(503, "timeout", "query timed out in expression evaluation");
    for query in ["damaged", "panic"] {
        let reply = ask(query).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["errorType"]), (500, &json!("internal")));
        for hidden in ["secret", "fell over"] {
            assert!(!reply.text().contains(hidden), "{}", reply.text());
        }
    }
}

#[tokio::test]
async fn notes_stats_and_lookback_go_through() {
    let app = TestApp::start().await;
    let noted = app.get("/api/v1/query?query=noted&time=0").await;
    assert!(
        noted
            .text()
            .ends_with(r#""warnings":["PromQL warning: a\u003cb (1:1)"],"infos":["PromQL info: c (1:1)"]}"#),
        "{}",
        noted.text()
    );
    let stats = app.get("/api/v1/query?query=1%2B1&stats=all").await.json();
    assert_eq!(stats["data"]["stats"]["samples"]["totalQueryableSamplesPerStep"], json!([]));
    assert!(stats.get("warnings").is_none());
    let odd = app.get("/api/v1/query?query=1%2B1&stats=1").await.json();
    assert!(odd["data"]["stats"]["samples"].is_object(), "{odd}");
    assert_eq!(
        odd["warnings"],
        json!([concat!(
            "value \"1\" for parameter \"stats\" is deprecated and will be rejected in the next major ",
            "release, use \"true\" or \"all\""
        )])
    );
    let lookback = app.get("/api/v1/query?query=lookback&time=0&lookback_delta=1m").await.json();
    assert_eq!(lookback["data"]["result"], json!([0, "Some(60000)"]));
}

#[tokio::test]
async fn series_labels_and_values_are_listed() {
    let app = TestApp::start().await;
    let up_a = json!({"__name__": "up", "job": "a"});
    app.get("/api/v1/series?match[]=up%7Bjob=%22a%22%7D").await.is_success(&json!([up_a]));
    app.post("/api/v1/series?match[]=down", "match%5B%5D=up%7Bjob=%22a%22%7D")
        .await
        .is_success(&json!([{"__name__": "down", "job": "c"}, up_a]));
    app.get("/api/v1/labels").await.is_success(&json!(["__name__", "http.status", "job"]));
    app.post("/api/v1/labels", "match[]=down").await.is_success(&json!(["__name__", "job"]));
    app.get("/api/v1/label/job/values").await.is_success(&json!(["a", "b", "c"]));
    app.get("/api/v1/label/job/values?match[]=up").await.is_success(&json!(["a", "b"]));
    app.get("/api/v1/label/U__http_2e_status/values").await.is_success(&json!(["200"]));
    app.get("/api/v1/label/http.status/values").await.is_success(&json!(["200"]));
    app.get("/api/v1/label/none/values").await.is_success(&json!([]));
    app.get("/api/v1/label/job/values?start=100&end=200").await.is_success(&json!([]));
    let all_time = "start=-292273086-05-16T16:47:06Z&end=292277025-08-18T07:12:54.999999999Z";
    app.get(&format!("/api/v1/label/job/values?{all_time}")).await.is_success(&json!(["a", "b", "c"]));
}

#[tokio::test]
async fn a_list_above_the_limit_is_cut_and_says_so() {
    let app = TestApp::start().await;
    for path in ["label/job/values?limit=1", "labels?limit=1", "series?match[]=up&limit=1"] {
        let body = app.get(&format!("/api/v1/{path}")).await.json();
        assert_eq!(body["data"].as_array().unwrap().len(), 1, "{path}");
        assert_eq!(body["warnings"], json!(["results truncated due to limit"]), "{path}");
    }
    let whole = app.get("/api/v1/label/job/values?limit=3").await.json();
    assert_eq!(whole.get("warnings"), None);
}

#[tokio::test]
async fn bad_selectors_are_named() {
    let app = TestApp::start().await;
    app.get("/api/v1/series").await.is_error(400, "bad_data", "no match[] parameter provided");
    // Where selectors may be left out, Prometheus leaves out the parameter's name.
    for (path, name) in
        [("series", r#"invalid parameter "match[]": "#), ("labels", ""), ("label/job/values", "")]
    {
        app.get(&format!("/api/v1/{path}?match[]=%7B%7D")).await.is_error(
            400,
            "bad_data",
            &format!("{name}match[] must contain at least one non-empty matcher"),
        );
        app.get(&format!("/api/v1/{path}?match[]=%7Ba%7D%7D")).await.is_error(
            400,
            "bad_data",
            &format!("{name}1:3: parse error: unexpected \"}}\" in label matching, expected label matching operator"),
        );
        app.get(&format!("/api/v1/{path}?match[]=up&start=x")).await.is_error(
            400,
            "bad_data",
            r#"invalid parameter "start": Invalid time value for 'start': cannot parse "x" to a valid timestamp"#,
        );
        app.get(&format!("/api/v1/{path}?match[]=up&start=2&end=1")).await.is_error(
            400,
            "bad_data",
            r#"invalid parameter "end": end timestamp must not be before start time"#,
        );
    }
}

#[tokio::test]
async fn metadata_is_listed_by_metric() {
    let app = TestApp::start().await;
    let entry = |help: &str| json!([{"type": "gauge", "help": help, "unit": ""}]);
    let both = json!({"up": entry("Is it up?"), "down": entry("Is it down?")});
    app.get("/api/v1/metadata").await.is_success(&both);
    app.get("/api/v1/metadata?metric=up&limit=40000").await.is_success(&json!({"up": entry("Is it up?")}));
    app.get("/api/v1/metadata?limit=1").await.is_success(&json!({"down": entry("Is it down?")}));
    app.get("/api/v1/metadata?metric=none").await.is_success(&json!({}));
    app.get("/api/v1/metadata?limit=x").await.is_error(400, "bad_data", "limit must be a number");
}

#[tokio::test]
async fn tenants_are_told_apart_and_bad_names_refused() {
    let app = TestApp::start().await;
    let named = |tenant| [("x-scope-orgid", tenant)];
    let values = async |headers: &[(&str, &str)]| {
        app.call("GET", "/api/v1/label/job/values", headers, "").await.json()["data"].clone()
    };
    assert_eq!(values(&[]).await, json!(["a", "b", "c"]));
    assert_eq!(values(&named("anonymous")).await, json!(["a", "b", "c"]));
    assert_eq!(values(&named("other")).await, json!([]));
    let told = app.call("GET", "/api/v1/query?query=tenant", &named("team-a"), "").await;
    assert_eq!(told.json()["data"]["result"][1], "team-a");
    app.call("GET", "/api/v1/labels", &named("a/b"), "").await.is_error(
        400,
        "bad_data",
        "invalid X-Scope-OrgID: tenant id contains the unsupported character '/'",
    );
    // What is about no tenant does not ask for one.
    assert_eq!(app.call("GET", "/-/healthy", &named("a/b"), "").await.status, 200);
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused_everywhere() {
    let app = TestApp::start().await;
    for path in ["/", "/api/v1/query?query=up", "/api/v1/write", "/metrics", "/nowhere"] {
        for headers in [
            &[("host", "evil.example")][..],
            &[("host", "localhost"), ("origin", "http://evil.example")],
            &[("host", "localhost"), ("sec-fetch-site", "cross-site")],
        ] {
            let reply = app.call("GET", path, headers, "").await;
            assert_eq!((reply.status.as_u16(), &reply.json()["errorType"]), (403, &json!("forbidden")));
            assert_eq!(reply.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN), None);
        }
    }
    let ours = app.call("GET", "/", &[("host", "127.0.0.1:8080")], "").await;
    assert_eq!(ours.status, 200);
}

#[tokio::test]
async fn pages_of_configured_origins_may_read() {
    let origins = vec!["https://grafana.example".to_owned()];
    let guard = HostGuard { cors_origins: origins.clone(), ..HostGuard::default() };
    let config = GatewayConfig { host_guard: Some(guard), cors_origins: origins, ..GatewayConfig::default() };
    let app = TestApp::with(config).await;
    let from = [("host", "localhost"), ("origin", "https://grafana.example")];
    let reply = app.call("GET", "/api/v1/labels", &from, "").await;
    assert_eq!(reply.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://grafana.example");
    let preflight = app.call("OPTIONS", "/api/v1/query", &from, "").await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://grafana.example");

    let closed = TestApp::start().await.call("GET", "/api/v1/labels", &[("host", "localhost")], "").await;
    assert_eq!(closed.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN), None);
}

#[tokio::test]
async fn what_is_not_there_and_what_takes_another_method_is_said() {
    let app = TestApp::start().await;
    for path in ["/nowhere", "/api/v1/nowhere", "/api/v1", "/api/v1/rules/test/test"] {
        let message = format!("page not found: there is nothing at {path}");
        app.get(path).await.is_error(404, "not_found", &message);
    }
    for (method, path, allowed) in [
        ("GET", "/api/v1/write", "POST"),
        ("PUT", "/prometheus/api/v1/push", "POST"),
        ("POST", "/api/v1/label/job/values", "GET,HEAD"),
        ("DELETE", "/api/v1/query", "GET,HEAD,POST"),
        ("GET", "/api/v1/admin/tsdb/delete_series", "POST,PUT"),
        ("GET", "/api/v1/admin/tsdb/flush", "POST"),
        ("POST", "/metrics", "GET,HEAD"),
    ] {
        let reply = app.call(method, path, &[], "").await;
        reply.is_error(405, "method_not_allowed", &format!("{path} does not take {method}"));
        assert_eq!(reply.headers[header::ALLOW], allowed, "{path}");
    }
}

#[tokio::test]
async fn bodies_above_the_limit_are_refused() {
    let small = BodyLimits { max_bytes: 16, timeout: Duration::from_secs(1) };
    let config = GatewayConfig { write_body: small, form_body: small, ..GatewayConfig::default() };
    let app = TestApp::with(config).await;
    let message = "the request body is larger than 16 bytes";
    app.post("/api/v1/query", "query=up&time=400").await.is_error(413, "too_large_entry", message);
    app.post("/api/v1/write", "12345678901234567").await.is_error(413, "too_large_entry", message);
    assert_eq!(app.post("/api/v1/query", "query=up&time=4").await.status, 200);
}

#[tokio::test]
async fn deleted_series_are_gone() {
    let app = TestApp::start().await;
    app.post("/api/v1/admin/tsdb/delete_series", "").await.is_error(
        400,
        "bad_data",
        "no match[] parameter provided",
    );
    let reply = app.post("/api/v1/admin/tsdb/delete_series", "match[]=down").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (204, ""));
    app.get("/api/v1/label/job/values").await.is_success(&json!(["a", "b"]));
    let reply = app.call("PUT", "/api/v1/admin/tsdb/delete_series?match[]=up", &[], "").await;
    assert_eq!(reply.status, 204);
    for path in ["clean_tombstones", "flush"] {
        assert_eq!(app.post(&format!("/api/v1/admin/tsdb/{path}"), "").await.status, 204, "{path}");
    }
    app.get("/api/v1/label/job/values").await.is_success(&json!([]));
}

#[tokio::test]
async fn health_follows_the_stages() {
    let app = TestApp::start().await;
    let check = async |path: &str| {
        let get = app.get(path).await;
        assert_eq!(app.call("HEAD", path, &[], "").await.status, get.status);
        get.status.as_u16()
    };
    for path in ["/-/healthy", "/-/ready", "/health/live", "/health/ready", "/api/v1/health"] {
        assert_eq!(check(path).await, 200, "{path}");
    }
    assert_eq!(app.get("/api/v1/health").await.json()["data"]["storage"]["status"], "ready");
    app.state.readiness.enter(Stage::Draining);
    for (path, status) in [
        ("/-/healthy", 200),
        ("/-/ready", 503),
        ("/health/live", 200),
        ("/health/ready", 503),
        ("/api/v1/health", 503),
    ] {
        assert_eq!(check(path).await, status, "{path}");
    }
}

#[tokio::test]
async fn on_our_way_out_each_answer_is_the_last_of_its_connection() {
    let app = TestApp::start().await;
    let closes = async |path: &str| {
        let reply = app.get(path).await;
        reply.headers.get("connection").map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(closes("/api/v1/query?query=up").await, None);
    app.state.readiness.enter(Stage::Draining);
    for path in ["/api/v1/query?query=up", "/health/live", "/health/ready", "/nowhere"] {
        assert_eq!(closes(path).await.as_deref(), Some("close"), "{path}");
    }
}

#[tokio::test]
async fn status_says_what_we_are_and_hold() {
    let app = TestApp::start().await;
    let build = app.get("/api/v1/status/buildinfo").await.json();
    assert_eq!(build["data"]["version"], "3.14.0");
    assert_eq!(build["data"]["application"], "luminate");
    assert_eq!(build["data"].get("features"), None);
    let storage = app.get("/api/v1/status/storage").await.json();
    assert_eq!(storage["status"], "success");
    assert!(storage["data"]["diskBytes"].is_object());
    let tsdb = app.get("/api/v1/status/tsdb?limit=1").await.json();
    assert_eq!(tsdb["data"]["headStats"]["numSeries"], 3);
    assert_eq!(tsdb["data"]["seriesCountByMetricName"], json!([{"name": "up", "value": 2}]));
    for (limit, message) in [
        ("0", "limit must be a positive number"),
        ("ten", "limit must be a positive number"),
        ("10001", "limit must not exceed 10000"),
    ] {
        let path = format!("/api/v1/status/tsdb?limit={limit}");
        app.get(&path).await.is_error(400, "bad_data", message);
    }
}

#[tokio::test]
async fn the_page_and_our_metrics_are_served() {
    let app = TestApp::start().await;
    let page = app.get("/").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    let metrics = app.get("/metrics").await;
    assert_eq!(metrics.text(), "# Prometheus\n");
    assert_eq!(metrics.headers[header::CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    let accept = [("accept", "application/openmetrics-text;version=1.0.0,*/*;q=0.1")];
    let metrics = app.call("GET", "/metrics", &accept, "").await;
    assert_eq!(metrics.text(), "# OpenMetrics\n");
    assert_eq!(
        metrics.headers[header::CONTENT_TYPE],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_can_read_that() {
    let app = TestApp::start().await;
    for (accepted, encoding) in [("gzip", Some("gzip")), ("zstd", Some("zstd")), ("br", None)] {
        let reply = app.call("GET", "/api/v1/query?query=many", &[("accept-encoding", accepted)], "").await;
        let answered = reply.headers.get(header::CONTENT_ENCODING).map(|e| e.to_str().unwrap());
        assert_eq!(answered, encoding);
    }
    let small = app.call("GET", "/api/v1/query?query=up", &[("accept-encoding", "gzip")], "").await;
    assert_eq!(small.headers.get(header::CONTENT_ENCODING), None);
    let plain = app.get("/api/v1/query?query=many").await.json();
    assert_eq!(plain["data"]["result"].as_array().unwrap().len(), 30_000);
}

#[tokio::test]
async fn above_the_limit_requests_are_told_to_come_back_and_health_is_not() {
    let app = TestApp::with(GatewayConfig { max_in_flight: 1, ..GatewayConfig::default() }).await;
    let slow = app.get("/api/v1/query?query=slow");
    let others = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let refused = app.get("/api/v1/labels").await;
        refused.is_error(503, "unavailable", "too many requests are being answered already");
        assert_eq!(refused.headers[header::RETRY_AFTER], "1");
        assert_eq!(app.state.counters.in_flight(Endpoint::Query), 1);
        for path in ["/-/ready", "/api/v1/health", "/metrics"] {
            assert_eq!(app.get(path).await.status, 200, "{path}");
        }
    };
    let ((), slow) = futures_util::future::join(others, slow).await;
    assert_eq!(slow.status, 503);
}

#[tokio::test]
async fn every_request_has_an_id_and_is_counted_even_if_its_caller_leaves() {
    let app = TestApp::start().await;
    let given = app.call("GET", "/-/healthy", &[("x-request-id", "mine-1")], "").await;
    assert_eq!(given.headers["x-request-id"], "mine-1");
    let (first, second) = (app.get("/nowhere").await, app.get("/nowhere").await);
    assert_ne!(first.headers["x-request-id"], second.headers["x-request-id"]);
    let left = tokio::time::timeout(Duration::from_millis(10), app.get("/api/v1/query?query=slow")).await;
    assert!(left.is_err());
    assert_eq!(
        app.state.counters.ended(),
        [(Endpoint::Query, 499, 1), (Endpoint::Health, 200, 1), (Endpoint::Other, 404, 2)]
    );
}

/// A remote write request of one sample of `written` at one second.
fn write_request() -> Vec<u8> {
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }
    let label = [field(1, b"__name__"), field(2, b"written")].concat();
    // value = 1 (a double), timestamp = 1000 (a varint of two bytes)
    let sample = [&[0x09][..], &1.0_f64.to_le_bytes(), &[0x10, 0xe8, 0x07]].concat();
    let series = [field(1, &label), field(2, &sample)].concat();
    snap::raw::Encoder::new().compress_vec(&field(1, &series)).unwrap()
}

#[tokio::test]
async fn samples_are_taken_in_under_every_alias_and_for_their_tenant() {
    let app = TestApp::start().await;
    let paths = ["/write", "/push", "/receive"];
    let prefixes = ["/api/v1", "/prometheus/api/v1"];
    for (i, (prefix, path)) in
        prefixes.iter().flat_map(|prefix| paths.iter().map(move |path| (prefix, path))).enumerate()
    {
        let tenant = format!("tenant-{i}");
        let request = Request::post(format!("{prefix}{path}"))
            .header("content-type", "application/x-protobuf")
            .header("content-encoding", "snappy")
            .header("x-scope-orgid", &tenant)
            .body(Body::from(write_request()))
            .unwrap();
        let reply = app.send(request).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (204, ""), "{prefix}{path}");
        let names =
            app.call("GET", "/api/v1/label/__name__/values", &[("x-scope-orgid", tenant.as_str())], "").await;
        names.is_success(&json!(["written"]));
    }
    app.get("/api/v1/label/__name__/values").await.is_success(&json!(["down", "up"]));
}

#[tokio::test]
async fn a_write_that_is_not_one_is_refused() {
    let app = TestApp::start().await;
    let send = async |content_type: &str, body: &str| {
        app.call("POST", "/api/v1/write", &[("content-type", content_type)], body).await.status.as_u16()
    };
    assert_eq!(send("application/json", "{}").await, 415);
    assert_eq!(send("application/x-protobuf", "nonsense").await, 400);
    let unnamed = app
        .call(
            "POST",
            "/api/v1/write",
            &[("x-scope-orgid", "a b"), ("content-type", "application/x-protobuf")],
            "",
        )
        .await;
    assert_eq!(unnamed.status, 400);
}

#[tokio::test]
async fn what_is_stored_is_computed_with() {
    let app = TestApp::computing().await;
    let data = async |path: &str| app.get(&format!("/api/v1/{path}")).await.json()["data"].clone();
    assert_eq!(
        data("query?query=sum%20by%20(job)%20(up)&time=6").await["result"],
        json!([{"metric": {"job": "b"}, "value": [6, "1"]}, {"metric": {"job": "a"}, "value": [6, "1"]}])
    );
    assert_eq!(
        data("query_range?query=count(up)&start=0&end=10&step=5").await,
        json!({"resultType": "matrix", "result": [{"metric": {}, "values": [[5, "2"], [10, "2"]]}]})
    );
    assert_eq!(data("query?query=up%5B10s%5D&time=6&limit=1").await["result"].as_array().unwrap().len(), 1);
    app.get("/api/v1/query").await.is_error(
        400,
        "bad_data",
        r#"invalid parameter "query": unknown position: parse error: no expression found in input"#,
    );
    app.get("/api/v1/query_range?query=up%5B5m%5D&start=0&end=1&step=1").await.is_error(
        400,
        "bad_data",
        "invalid parameter \"query\": invalid expression type \"range vector\" for range query, \
         must be Scalar or instant Vector",
    );
}

#[tokio::test]
async fn exemplars_are_found_by_what_a_query_looks_at() {
    let app = TestApp::start().await;
    let found = json!([{
        "seriesLabels": {"__name__": "up", "job": "a"},
        "exemplars": [{"labels": {"trace_id": "t1"}, "value": "0.5", "timestamp": 5.5}],
    }]);
    app.get("/api/v1/query_exemplars?query=rate(up%5B5m%5D)&start=0&end=10").await.is_success(&found);
    app.get("/api/v1/query_exemplars?query=down%2B1&start=0&end=10").await.is_success(&json!([]));
    // Grafana asks so when it starts, and its times are milliseconds.
    app.post("/api/v1/query_exemplars", "query=test&start=1795229823766&end=1795229823767")
        .await
        .is_success(&json!([]));
    app.get("/api/v1/query_exemplars?query=up").await.is_success(&found);
    app.get("/api/v1/query_exemplars?query=1&start=1&end=0").await.is_error(
        400,
        "bad_data",
        "end timestamp must not be before start timestamp",
    );
    app.get("/api/v1/query_exemplars?query=up%28").await.is_error(
        400,
        "bad_data",
        "1:4: parse error: unclosed left parenthesis",
    );
}

#[tokio::test]
async fn what_grafana_asks_when_it_starts_is_answered() {
    let app = TestApp::start().await;
    app.get("/api/v1/rules").await.is_success(&json!({"groups": []}));
    app.get("/api/v1/alerts").await.is_success(&json!({"alerts": []}));
    app.post("/api/v1/format_query", "query=sum(++up)%2B1").await.is_success(&json!("sum(up) + 1"));
    let flags = app.get("/api/v1/status/flags").await;
    assert_eq!(flags.status, 404);
}
