//! The router as a client sees it, over a store in memory and an engine that knows a few answers.

mod active;
mod audit;
mod by_heart;
mod limits;
mod listening;
mod lookups;
mod manners;
mod moving;
mod openapi;
mod overrides;
mod queries;
mod remote_read;
mod search;
mod status;
mod writes;

use std::{sync::Arc, time::Duration};

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
    model::{Exemplar, Labels, Metadata, MetricType, TenantId, TenantLimits, Timestamp},
    promql::{Engine, EngineOptions},
    query::{Evaluate, QueryLimits, QueryService},
    storage::{BatchExemplar, BatchSample, Storage, WriteBatch, memory::MemoryStore},
};
use by_heart::ByHeart;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
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
