//! Each request: its id, its one log line, and its place in the counters.

use std::{
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::{Request, State as Extract},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use tracing::Instrument;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    State,
    access::{Caller, CallerSlot},
    audit::{Audit, Entry, Outcome},
    error::{ApiError, Cause},
    peer::Peer,
};
use crate::clock::Clock;

/// The header that carries a request's id, both ways.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What every answer tells browsers, so that text of somebody's data never becomes a page or a script, and is not
/// put into another's; and caches, which would not ask whose it is.
const GUARDS: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// The longest id taken over from a caller.
const MAX_ID_BYTES: usize = 64;

/// How much of a path is logged.
const LOGGED_PATH: usize = 200;

/// The status that stands for a caller who left.
const CALLER_LEFT: u16 = 499;

/// Wraps a request: outermost in the stack, so that nothing goes unseen.
pub async fn observe(Extract(state): Extract<Arc<State>>, mut request: Request, next: Next) -> Response {
    let id = state.counters.request_id(request.headers(), state.config.request_id_seed);
    let mut seen = Seen::begin(&state, &id, &request);
    request.headers_mut().insert(REQUEST_ID, id.clone());
    request.extensions_mut().insert(seen.caller.clone());

    let span = tracing::info_span!("request", request_id = id.to_str().unwrap_or_default());
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span).await;
    let mut response =
        answered.unwrap_or_else(|panic| ApiError::internal(panic_text(&*panic)).into_response());

    seen.finish(&response);
    response.headers_mut().insert(REQUEST_ID, id);
    for (name, value) in GUARDS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("without a text"))
}

/// What the audit log should know of an order, in the extensions of its answer.
#[derive(Clone, Debug)]
pub struct Detail(pub String);

/// A request that has begun. If it is dropped unfinished, the caller left.
#[derive(Debug)]
struct Seen {
    clock: Arc<dyn Clock>,
    counters: Arc<RequestCounters>,
    endpoint: Endpoint,
    id: String,
    method: Method,
    path: String,
    audit: Arc<Audit>,
    client: Option<IpAddr>,
    caller: CallerSlot,
    began: Duration,
    finished: bool,
}

impl Seen {
    fn begin(state: &State, id: &HeaderValue, request: &Request) -> Self {
        let path = request.uri().path();
        let endpoint = match request.method() {
            // A page that asks whether it may ask.
            &Method::OPTIONS => Endpoint::Other,
            _ => Endpoint::of(path),
        };
        state.counters.begin(endpoint);
        Self {
            clock: Arc::clone(&state.clock),
            counters: Arc::clone(&state.counters),
            endpoint,
            id: id.to_str().unwrap_or_default().to_owned(),
            method: request.method().clone(),
            path: path.get(..path.floor_char_boundary(LOGGED_PATH)).unwrap_or_default().to_owned(),
            audit: Arc::clone(&state.audit),
            client: request.extensions().get::<Peer>().map(|peer| peer.client),
            caller: CallerSlot::default(),
            began: state.clock.elapsed(),
            finished: false,
        }
    }

    fn finish(&mut self, response: &Response) {
        let detail = response.extensions().get::<Detail>().map(|detail| detail.0.as_str());
        let cause = response.extensions().get::<Cause>().map(|cause| cause.0.as_str());
        self.end(response.status().as_u16(), detail, cause);
    }

    /// Keeps what was denied, and what changed something or was about to when its caller left.
    fn audit(&self, status: u16, tenant: &str, detail: &str, is_order: bool) {
        let caller = self.caller.caller();
        let denied = [401, 403].contains(&status);
        let is_administrative = caller.is_some_and(|caller| caller.access.is_administrative());
        let changes = !self.method.is_safe() && (is_administrative || is_order);
        if !denied && !changes {
            return;
        }
        let result = match status {
            _ if denied => Outcome::Denied,
            200..300 => Outcome::Done,
            _ => Outcome::Failed,
        };
        self.audit.record(&Entry {
            action: &format!("{} {}", self.method, self.path),
            result,
            status,
            who: caller.map_or("", |caller| caller.principal.name.as_str()),
            known: caller.map_or("", |caller| caller.principal.known.as_str()),
            tenant,
            client: &self.client.map(|client| client.to_string()).unwrap_or_default(),
            request_id: &self.id,
            detail,
        });
    }

    fn end(&mut self, status: u16, detail: Option<&str>, cause: Option<&str>) {
        self.finished = true;
        let took = self.clock.elapsed().saturating_sub(self.began);
        self.counters.end(self.endpoint, status, took);
        let caller = self.caller.caller();
        let tenant = caller.map(Caller::tenant_names).unwrap_or_default();
        self.audit(status, &tenant, detail.or(cause).unwrap_or_default(), detail.is_some());
        // The level has to be known when compiling, so the line stands here once for each.
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    event = "request",
                    request_id = self.id,
                    tenant = tenant.as_str(),
                    client = self.client.map(tracing::field::display),
                    method = self.method.as_str(),
                    path = self.path,
                    status,
                    who = caller.map(|caller| caller.principal.name.as_str()),
                    duration_ms = took.as_secs_f64() * 1000.0,
                    cause,
                )
            };
        }
        match (status, self.endpoint.is_routine()) {
            (500.., _) => line!(warn),
            (..400, true) => line!(debug),
            (_, _) => line!(info),
        }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        if !self.finished {
            self.end(CALLER_LEFT, None, Some("the caller left"));
        }
    }
}

/// What is asked, as far as counters tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Samples come in.
    Write,
    /// An instant query.
    Query,
    /// A range query.
    QueryRange,
    /// Series, labels, values, metadata, exemplars.
    Catalog,
    /// Samples go out for good.
    Export,
    /// Samples come in from elsewhere.
    Import,
    /// About ourselves.
    Status,
    /// Deleting, flushing.
    Admin,
    /// Health checks.
    Health,
    /// Our own metrics.
    Metrics,
    /// Pages, and what is not there.
    Other,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Write,
        Self::Query,
        Self::QueryRange,
        Self::Catalog,
        Self::Export,
        Self::Import,
        Self::Status,
        Self::Admin,
        Self::Health,
        Self::Metrics,
        Self::Other,
    ];

    /// The name in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Query => "query",
            Self::QueryRange => "query_range",
            Self::Catalog => "catalog",
            Self::Export => "export",
            Self::Import => "import",
            Self::Status => "status",
            Self::Admin => "admin",
            Self::Health => "health",
            Self::Metrics => "metrics",
            Self::Other => "other",
        }
    }

    /// What a path is about, the API's prefixes aside.
    pub fn of(path: &str) -> Self {
        let path = path.strip_prefix("/prometheus").unwrap_or(path);
        let Some(api) = path.strip_prefix("/api/v1/") else {
            return match path {
                "/metrics" => Self::Metrics,
                "/-/healthy" | "/-/ready" => Self::Health,
                _ if path.starts_with("/health/") => Self::Health,
                _ => Self::Other,
            };
        };
        match api.split('/').next().unwrap_or_default() {
            "write" | "push" | "receive" => Self::Write,
            "query" => Self::Query,
            "query_range" => Self::QueryRange,
            "series" | "labels" | "label" | "metadata" | "query_exemplars" | "search" => Self::Catalog,
            "export" => Self::Export,
            "import" => Self::Import,
            "status" | "rules" | "alerts" | "alertmanagers" | "targets" | "scrape_pools"
            | "notifications" | "features" => Self::Status,
            "admin" => Self::Admin,
            "health" => Self::Health,
            _ => Self::Other,
        }
    }

    /// Whether it comes so often that only failures are worth a line.
    fn is_routine(self) -> bool {
        match self {
            Self::Write | Self::Health | Self::Metrics => true,
            Self::Query
            | Self::QueryRange
            | Self::Catalog
            | Self::Export
            | Self::Import
            | Self::Status
            | Self::Admin
            | Self::Other => false,
        }
    }
}

/// The statuses that are counted apart; others are counted with their hundred.
const STATUSES: [u16; 20] =
    [200, 204, 300, 400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 499, 500, 501, 503, 504, 507, 100];

/// Upper bounds of the latency buckets, in seconds; above the last is one more.
pub const LATENCY_BOUNDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0];

/// How many requests there were, how they went, and how long they took.
#[derive(Debug, Default)]
pub struct RequestCounters {
    endpoints: [EndpointCounters; Endpoint::ALL.len()],
    ids: AtomicU64,
}

#[derive(Debug, Default)]
struct EndpointCounters {
    begun: AtomicU64,
    ended: AtomicU64,
    by_status: [AtomicU64; STATUSES.len()],
    by_latency: [AtomicU64; LATENCY_BOUNDS.len() + 1],
    nanos: AtomicU64,
}

/// How long requests of one kind took.
#[derive(Clone, Debug, PartialEq)]
pub struct Latency {
    /// Requests by bucket of [`LATENCY_BOUNDS`], not summed up; the last is above all bounds.
    pub counts: Vec<u64>,
    /// All of them, in seconds.
    pub sum_seconds: f64,
}

impl RequestCounters {
    /// Requests that ended, by endpoint and status; those that never happened are left out.
    pub fn ended(&self) -> Vec<(Endpoint, u16, u64)> {
        let mut ended = Vec::new();
        for (endpoint, counters) in Endpoint::ALL.into_iter().zip(&self.endpoints) {
            for (status, count) in STATUSES.into_iter().zip(&counters.by_status) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    ended.push((endpoint, status, count));
                }
            }
        }
        ended
    }

    /// Requests that have begun and not ended.
    pub fn in_flight(&self, endpoint: Endpoint) -> u64 {
        let counters = self.of(endpoint);
        let ended = counters.ended.load(Ordering::Relaxed);
        counters.begun.load(Ordering::Relaxed).saturating_sub(ended)
    }

    /// How long requests took.
    pub fn latency(&self, endpoint: Endpoint) -> Latency {
        let counters = self.of(endpoint);
        let counts = counters.by_latency.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let sum = Duration::from_nanos(counters.nanos.load(Ordering::Relaxed));
        Latency { counts, sum_seconds: sum.as_secs_f64() }
    }

    fn of(&self, endpoint: Endpoint) -> &EndpointCounters {
        let at = Endpoint::ALL.iter().position(|e| *e == endpoint).expect("ALL has every endpoint");
        &self.endpoints[at]
    }

    fn begin(&self, endpoint: Endpoint) {
        self.of(endpoint).begun.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self, endpoint: Endpoint, status: u16, took: Duration) {
        let counters = self.of(endpoint);
        counters.ended.fetch_add(1, Ordering::Relaxed);
        counters.by_status[status_place(status)].fetch_add(1, Ordering::Relaxed);
        let bucket = LATENCY_BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound);
        counters.by_latency[bucket.unwrap_or(LATENCY_BOUNDS.len())].fetch_add(1, Ordering::Relaxed);
        counters.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The caller's id if it has a sound one, else one of our own.
    fn request_id(&self, headers: &HeaderMap, seed: u64) -> HeaderValue {
        let sound = |id: &&HeaderValue| {
            (1..=MAX_ID_BYTES).contains(&id.len())
                && id.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(b))
        };
        headers.get(REQUEST_ID).filter(sound).cloned().unwrap_or_else(|| {
            let number = self.ids.fetch_add(1, Ordering::Relaxed);
            let id = xxh3_64_with_seed(&number.to_le_bytes(), seed);
            HeaderValue::from_str(&format!("{id:016x}")).expect("digits are a legal header value")
        })
    }
}

fn status_place(status: u16) -> usize {
    let place = |status: u16| STATUSES.iter().position(|s| *s == status);
    place(status).or_else(|| place(status / 100 * 100)).unwrap_or(STATUSES.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_their_endpoint_whatever_the_prefix() {
        for (path, endpoint) in [
            ("/api/v1/write", Endpoint::Write),
            ("/prometheus/api/v1/push", Endpoint::Write),
            ("/api/v1/query", Endpoint::Query),
            ("/prometheus/api/v1/query_range", Endpoint::QueryRange),
            ("/api/v1/label/job/values", Endpoint::Catalog),
            ("/api/v1/admin/tsdb/flush", Endpoint::Admin),
            ("/api/v1/status/buildinfo", Endpoint::Status),
            ("/api/v1/health", Endpoint::Health),
            ("/health/live", Endpoint::Health),
            ("/-/ready", Endpoint::Health),
            ("/metrics", Endpoint::Metrics),
            ("/", Endpoint::Other),
            ("/api/v1/queryx", Endpoint::Other),
        ] {
            assert_eq!(Endpoint::of(path), endpoint, "{path}");
        }
    }

    #[test]
    fn requests_are_counted_by_endpoint_status_and_time() {
        let counters = RequestCounters::default();
        for status in [200, 200, 503, 418, 502] {
            counters.begin(Endpoint::Query);
            counters.end(Endpoint::Query, status, Duration::from_millis(20));
        }
        counters.begin(Endpoint::Query);
        assert_eq!(
            counters.ended(),
            [
                (Endpoint::Query, 200, 2),
                (Endpoint::Query, 400, 1),
                (Endpoint::Query, 500, 1),
                (Endpoint::Query, 503, 1)
            ]
        );
        assert_eq!(counters.in_flight(Endpoint::Query), 1);
        let latency = counters.latency(Endpoint::Query);
        assert_eq!(latency.counts.iter().sum::<u64>(), 5);
        assert_eq!(latency.counts[5], 5);
        assert!((latency.sum_seconds - 0.1).abs() < 1e-9);
    }

    #[test]
    fn an_id_is_taken_over_if_it_is_sound() {
        let counters = RequestCounters::default();
        let given = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(id).unwrap());
            counters.request_id(&headers, 7)
        };
        assert_eq!(given("abc-1.2:3_4"), "abc-1.2:3_4");
        let ours = given("has space");
        assert_eq!(ours.len(), 16);
        assert_ne!(given(&"x".repeat(65)), ours);
        assert_eq!(given("").len(), 16);
    }
}
