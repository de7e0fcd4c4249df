//! What is asked: a server over HTTP, or the router in this process.

use std::{io::Read, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::Request,
};
use luminate::{
    clock::{Clock, SystemClock},
    gateway::{
        Door, GatewayConfig, MetricsRenderer, State,
        audit::Audit,
        auth::{
            Auth, Checks,
            guard::Guard,
            jwt::{JwtConfig, JwtVerifier, StandardRules},
        },
        health::{Readiness, Stage},
        limit::{Limiter, buckets::NoBuckets, table::LimitTable, user::UserOverrides},
        reload::Reloads,
        request::RequestCounters,
        router,
        running::Running,
    },
    ingest::{Ingest, IngestLimits},
    model::{Secret, TenantLimits},
    promql::{Engine, EngineOptions},
    query::{QueryLimits, QueryService},
    storage::Storage,
};
use tokio::runtime::Runtime;
use tower::ServiceExt;

use crate::{
    server::Server,
    token::{AUDIENCE, SECRET},
};

/// A request.
#[derive(Clone, Debug)]
pub struct Ask {
    pub method: &'static str,
    /// The path and the query.
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// What came back: the head's fields as lines.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        let plain = if self.head.contains("content-encoding: \"snappy\"") {
            &snap::raw::Decoder::new().decompress_vec(&self.body).unwrap()
        } else {
            &self.body
        };
        String::from_utf8_lossy(plain).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// What is asked.
pub enum Target {
    Server { base: String, agent: ureq::Agent },
    Router { runtime: Runtime, router: Router },
}

impl Target {
    pub fn server(server: &Server) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        Self::Server { base: server.url(""), agent }
    }

    /// A router over a store, that takes the tokens that servers of tests take.
    pub fn router(open: impl FnOnce(Arc<dyn Clock>) -> Arc<dyn Storage>) -> Self {
        let runtime = Runtime::new().unwrap();
        let _entered = runtime.enter();
        let clock: Arc<dyn Clock> = SystemClock::start();
        let state = state(open(Arc::clone(&clock)), clock);
        let router = router(Arc::new(state), Door::Both);
        Self::Router { router, runtime }
    }

    pub fn send(&self, ask: &Ask) -> Answer {
        match self {
            Self::Server { base, agent } => {
                let mut request =
                    axum::http::Request::builder().method(ask.method).uri(format!("{base}{}", ask.path));
                for (name, value) in &ask.headers {
                    request = request.header(*name, value);
                }
                let mut answer = agent.run(request.body(ask.body.clone()).unwrap()).unwrap();
                let head =
                    answer.headers().iter().map(|(name, value)| format!("{name}: {value:?}\n")).collect();
                let mut body = Vec::new();
                // What breaks off says so by that, and what came until then counts.
                let _ = answer.body_mut().as_reader().read_to_end(&mut body);
                Answer { status: answer.status().as_u16(), head, body }
            }
            Self::Router { runtime, router } => {
                let mut request = Request::builder().method(ask.method).uri(&ask.path);
                for (name, value) in &ask.headers {
                    request = request.header(*name, value);
                }
                let request = request.body(Body::from(ask.body.clone())).unwrap();
                runtime.block_on(async {
                    let answer = router.clone().oneshot(request).await.unwrap();
                    let (parts, body) = answer.into_parts();
                    let head =
                        parts.headers.iter().map(|(name, value)| format!("{name}: {value:?}\n")).collect();
                    let body = to_bytes(body, usize::MAX).await.map(|body| body.to_vec()).unwrap_or_default();
                    Answer { status: parts.status.as_u16(), head, body }
                })
            }
        }
    }
}

fn state(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>) -> State {
    let engine = Engine::new(Arc::clone(&storage), EngineOptions::default(), Arc::clone(&clock)).unwrap();
    let query =
        QueryService::new(Arc::new(engine), Arc::clone(&storage), Arc::clone(&clock), QueryLimits::default());
    let readiness = Arc::new(Readiness::default());
    readiness.enter(Stage::Serving);
    let config = JwtConfig {
        secret: Some(Secret(SECRET.to_owned())),
        standard: StandardRules { audience: vec![AUDIENCE.to_owned()], ..StandardRules::default() },
        ..JwtConfig::default()
    };
    let checks = Checks {
        tokens: Some(JwtVerifier::open(&config, Arc::clone(&clock)).unwrap()),
        keys: None,
        header: None,
        certificates: None,
        proxies: None,
        guard: Arc::new(Guard::new(0, Arc::clone(&clock))),
        clock: Arc::clone(&clock),
        failures: Arc::default(),
    };
    let table = Arc::new(LimitTable::of(TenantLimits::default()));
    let users = Arc::new(UserOverrides::new(Arc::clone(&storage), Arc::clone(&table)));
    let audit = Arc::new(Audit::to_log(Arc::clone(&clock)));
    State {
        ingest: Arc::new(Ingest::new(
            Arc::clone(&storage),
            Arc::clone(&clock),
            IngestLimits::default(),
            (1, 2),
        )),
        query: Arc::new(query),
        storage,
        clock: Arc::clone(&clock),
        render_metrics: MetricsRenderer(Arc::new(|_| "# EOF\n".to_owned())),
        config: GatewayConfig { host_guard: None, ..GatewayConfig::default() },
        running: Running::default(),
        audit: Arc::clone(&audit),
        auth: Arc::new(Auth::Closed(Box::new(checks))),
        limiter: Arc::new(Limiter::new(table, Arc::new(NoBuckets))),
        reloads: Arc::new(Reloads::new(Vec::new(), audit, Arc::clone(&clock))),
        user_overrides: users,
        redis: None,
        readiness,
        counters: Arc::new(RequestCounters::default()),
    }
}
