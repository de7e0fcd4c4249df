//! What is over a tenant's limit: what is said, and what is not done.

use std::{
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
};

use futures_util::FutureExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::*;
use crate::{
    gateway::{auth::Principal, limit::local::LocalBuckets},
    ingest::decode::encode::{Series, compress, write_request2},
    model::Limit,
};

const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

struct Limited {
    app: TestApp,
    clock: Arc<HandClock>,
}

impl Limited {
    async fn to(limits: TenantLimits) -> Self {
        Self::for_caller(limits, Principal::anyone()).await
    }

    async fn for_caller(limits: TenantLimits, caller: Principal) -> Self {
        let TestApp { router: old, state } = TestApp::start().await;
        drop(old);
        let mut state = Arc::into_inner(state).expect("the router is gone");
        let clock = HandClock::at(Timestamp(0));
        let buckets = Arc::new(LocalBuckets::new(Arc::clone(&clock) as _, 100));
        state.limiter = Arc::new(Limiter::new(Arc::new(LimitTable::of(limits)), buckets));
        state.auth = Arc::new(Auth::Open(Arc::new(caller)));
        let state = Arc::new(state);
        Self { app: TestApp { router: router(Arc::clone(&state), Door::Both), state }, clock }
    }

    async fn write_as(&self, tenant: &str, body: impl Into<Body>) -> Reply {
        let request = Request::builder()
            .method("POST")
            .uri("/api/v1/write")
            .header("content-type", V2)
            .header("X-Scope-OrgID", tenant);
        self.app.send(request.body(body.into()).unwrap()).await
    }

    async fn write(&self, body: impl Into<Body>) -> Reply {
        self.write_as("a", body).await
    }

    fn wait(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }

    fn exceeded(&self, limit: Limit) -> u64 {
        self.app.state.limiter.counters().exceeded(limit)
    }

    async fn rejections(&self, tenant: &str) -> Json {
        let reply = self.app.call("GET", "/api/v1/status/rejections", &[("X-Scope-OrgID", tenant)], "").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["data"].clone()
    }
}

fn limits() -> TenantLimits {
    TenantLimits::default()
}

fn samples(count: i64) -> Bytes {
    let series = (0..count).fold(Series::new(&[("__name__", "up")]), |series, n| series.sample(n + 1, 1.0));
    compress(&write_request2(&[series]))
}

fn header<'r>(reply: &'r Reply, name: &str) -> &'r str {
    reply.headers.get(name).map_or("-", |value| value.to_str().unwrap())
}

/// A body of a size, which notices when it is read.
struct Watched {
    bytes: Option<Bytes>,
    announced: bool,
    read: Arc<AtomicBool>,
}

fn watched(bytes: Bytes, announced: bool) -> (Body, Arc<AtomicBool>) {
    let read = Arc::new(AtomicBool::new(false));
    (Body::new(Watched { bytes: Some(bytes), announced, read: Arc::clone(&read) }), read)
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.read.store(true, Ordering::SeqCst);
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.bytes {
            Some(bytes) if self.announced => SizeHint::with_exact(bytes.len() as u64),
            Some(_) | None => SizeHint::default(),
        }
    }
}

#[tokio::test]
async fn samples_above_the_rate_are_to_come_again_and_those_who_do_succeed() {
    let gateway = Limited::to(limits().with(Limit::Samples, 10).with(Limit::SamplesBurst, 30)).await;
    let reply = gateway.write(samples(30)).await;
    assert_eq!(reply.status, 204, "{}", reply.text());
    assert_eq!(header(&reply, "ratelimit"), "\"samples_per_second\";r=0;t=3");
    gateway.wait(500);
    let reply = gateway.write(samples(20)).await;
    assert_eq!(reply.status, 429);
    assert_eq!(reply.text(), "over the limit samples_per_second of 10: 20");
    assert_eq!(header(&reply, "content-type"), "text/plain; charset=utf-8");
    for (name, value) in [
        ("retry-after", "2"),
        ("x-prometheus-remote-write-samples-written", "0"),
        ("x-prometheus-remote-write-histograms-written", "0"),
        ("x-prometheus-remote-write-exemplars-written", "0"),
        ("ratelimit-policy", "\"samples_per_second\";q=30;w=3;qu=\"samples\""),
        ("ratelimit", "\"samples_per_second\";r=5;t=2"),
        ("ratelimit-limit", "30"),
        ("ratelimit-remaining", "5"),
        ("ratelimit-reset", "2"),
    ] {
        assert_eq!(header(&reply, name), value, "{name}");
    }
    gateway.wait(2000);
    assert_eq!(gateway.write(samples(20)).await.status, 204);
    assert_eq!(gateway.exceeded(Limit::Samples), 1);
    // Another tenant has samples of its own.
    assert_eq!(gateway.write_as("b", samples(30)).await.status, 204);
}

#[tokio::test]
async fn what_never_fits_and_what_is_refused_for_good_is_400() {
    let mut allowed = limits().with(Limit::Samples, 10).with(Limit::SamplesBurst, 30).with(Limit::Queries, 1);
    allowed.refuse_for_good(Limit::Queries, true);
    let gateway = Limited::to(allowed).await;
    let reply = gateway.write(samples(31)).await;
    assert_eq!((reply.status.as_u16(), header(&reply, "retry-after")), (400, "-"));
    assert_eq!(reply.text(), "over the limit samples_burst of 30: 31");
    assert_eq!(header(&reply, "x-prometheus-remote-write-samples-written"), "0");
    assert_eq!(gateway.app.get("/api/v1/query?query=up").await.status, 200);
    let reply = gateway.app.get("/api/v1/query?query=up").await;
    reply.is_error(400, "bad_data", "over the limit queries_per_second of 1: 1");
    assert_eq!(header(&reply, "retry-after"), "-");
    assert_eq!((gateway.exceeded(Limit::SamplesBurst), gateway.exceeded(Limit::Queries)), (1, 1));
}

#[tokio::test]
async fn requests_and_bytes_above_the_rate_are_refused_unread() {
    let gateway = Limited::to(limits().with(Limit::WriteRequests, 1).with(Limit::Bytes, 200_000)).await;
    assert_eq!(gateway.write(samples(1)).await.status, 204);
    let large = || watched(Bytes::from(vec![0; 100_000]), true);
    let (body, read) = large();
    let reply = gateway.write(body).await;
    assert_eq!(reply.text(), "over the limit write_requests_per_second of 1: 1");
    assert_eq!((reply.status.as_u16(), header(&reply, "connection")), (429, "close"));
    assert_eq!(header(&reply, "x-prometheus-remote-write-samples-written"), "0");
    gateway.wait(1000);
    let (body, _) = watched(Bytes::from(vec![0; 190_000]), true);
    // It is let in, and does not decode.
    assert_eq!(gateway.write(body).await.status, 400);
    gateway.wait(500);
    let (body, _) = large();
    let reply = gateway.write(body).await;
    // Both are short, and the request is what takes longer.
    assert_eq!((reply.status.as_u16(), header(&reply, "retry-after")), (429, "1"));
    gateway.wait(500);
    let (body, _) = watched(Bytes::from(vec![0; 200_001]), true);
    let reply = gateway.write(body).await;
    assert_eq!(reply.text(), "over the limit bytes_per_second of 200KB: 200001B");
    assert_eq!(reply.status, 400);
    assert_eq!(gateway.app.state.limiter.counters().unread.load(Ordering::Relaxed), 3);
    // The body was only read on behalf of the connection, by somebody else, if at all.
    drop(read);
}

#[tokio::test]
async fn a_small_body_is_read_for_the_connections_sake_and_a_large_one_ends_it() {
    let gateway = Limited::to(limits().with(Limit::WriteRequests, 0)).await;
    for (size, announced, connection) in [
        (1000, true, "-"),
        (65_536, true, "-"),
        (65_537, true, "close"),
        (10, false, "close"),
        (0, true, "-"),
    ] {
        let (body, read) = watched(Bytes::from(vec![0; size]), announced);
        let reply = gateway.write(body).await;
        assert_eq!((reply.status.as_u16(), header(&reply, "connection")), (400, connection), "{size}");
        if connection == "-" {
            assert!(read.load(Ordering::SeqCst), "{size}");
        }
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_pays_when_it_has_come() {
    let gateway = Limited::to(limits().with(Limit::Bytes, 200)).await;
    let body = || watched(samples(20), false).0;
    let size = samples(20).len() as u64;
    assert!((120..200).contains(&size), "{size}");
    // There is a little left after the first, so that the others are read; however many come, no byte is let in
    // that is not there.
    assert_eq!(gateway.write(body()).await.status, 204);
    for _ in 0..3 {
        let reply = gateway.write(body()).await;
        assert_eq!(reply.text(), format!("over the limit bytes_per_second of 200B: {size}B"));
        assert_eq!((reply.status.as_u16(), header(&reply, "retry-after")), (429, "1"));
    }
    gateway.wait(1000);
    assert_eq!(gateway.write(body()).await.status, 204);
    gateway.wait(1000);
    let reply = gateway.write(watched(Bytes::from(vec![0; 201]), false).0).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (400, "over the limit bytes_per_second of 200B: 201B"));
    assert_eq!(gateway.exceeded(Limit::Bytes), 4);
}

#[tokio::test]
async fn one_who_is_out_of_samples_is_refused_before_the_body_is_read() {
    let gateway = Limited::to(limits().with(Limit::Samples, 100)).await;
    assert_eq!(gateway.write(samples(90)).await.status, 204);
    // There are ten left, and nobody knows yet how many this has.
    assert_eq!(gateway.write(samples(60)).await.status, 429);
    assert_eq!(gateway.app.state.limiter.counters().unread.load(Ordering::Relaxed), 0);
    let reply = gateway.write(samples(60)).await;
    assert_eq!((reply.status.as_u16(), header(&reply, "retry-after")), (429, "1"));
    assert_eq!(gateway.app.state.limiter.counters().unread.load(Ordering::Relaxed), 1);
    gateway.wait(500);
    assert_eq!(gateway.write(samples(60)).await.status, 204);
}

#[tokio::test]
async fn nothing_is_refused_for_good_on_a_guess() {
    let mut allowed = limits().with(Limit::Samples, 100);
    allowed.refuse_for_good(Limit::Samples, true);
    let gateway = Limited::to(allowed).await;
    assert_eq!(gateway.write(samples(90)).await.status, 204);
    assert_eq!(gateway.write(samples(60)).await.status, 400);
    // As large as the one before, and with fewer samples than that lets one think.
    let long: String = (1..1000_u64).map(|n| (n * n * 2_654_435_761 % 1000).to_string()).collect();
    assert!(samples(60).len() < 1500);
    let one = compress(&write_request2(&[Series::new(&[("__name__", "up"), ("a", &long)]).sample(1, 1.0)]));
    assert_eq!(gateway.write(one).await.status, 204);
}

#[tokio::test]
async fn queries_of_all_kinds_are_counted_in_number_and_at_a_time() {
    let gateway = Limited::to(limits().with(Limit::Queries, 5).with(Limit::ConcurrentQueries, 1)).await;
    let mut slow = Box::pin(gateway.app.get("/api/v1/query?query=slow"));
    assert!((&mut slow).now_or_never().is_none());
    let reply = gateway.app.get("/api/v1/labels").await;
    reply.is_error(429, "too_many_requests", "over the limit max_concurrent_queries of 1: 2");
    assert_eq!(
        (header(&reply, "retry-after"), header(&reply, "ratelimit-policy")),
        ("1", "\"max_concurrent_queries\";q=1;qu=\"concurrent-requests\"")
    );
    // Others are not concerned, nor is asking what was refused.
    let other = [("X-Scope-OrgID", "b")];
    assert_eq!(gateway.app.call("GET", "/api/v1/labels", &other, "").await.status, 200);
    assert_eq!(gateway.app.get("/api/v1/status/rejections").await.status, 200);
    slow.await;
    for path in ["labels", "series?match[]=up", "metadata", "label/job/values"] {
        let reply = gateway.app.get(&format!("/api/v1/{path}")).await;
        assert_eq!(reply.status, 200, "{path}");
        assert!(header(&reply, "ratelimit").starts_with("\"queries_per_second\""), "{path}");
    }
    let reply = gateway.app.get("/api/v1/export?match[]=up").await;
    reply.is_error(429, "too_many_requests", "over the limit queries_per_second of 5: 1");
    assert_eq!(header(&reply, "ratelimit-remaining"), "0");
    gateway.wait(200);
    // An export holds its place until all of it is sent.
    let request = Request::get("/api/v1/export?match[]=up").body(Body::empty()).unwrap();
    let export = gateway.app.router.clone().oneshot(request).await.unwrap();
    assert_eq!(export.status(), 200);
    gateway.wait(200);
    assert_eq!(gateway.app.get("/api/v1/labels").await.status, 429);
    to_bytes(export.into_body(), usize::MAX).await.unwrap();
    assert_eq!(gateway.app.get("/api/v1/labels").await.status, 200);
}

#[tokio::test]
async fn no_spelling_of_a_request_has_a_rate_of_its_own() {
    let gateway = Limited::to(limits().with(Limit::Queries, 1).with(Limit::WriteRequests, 1)).await;
    let ask = async |method: &str, path: &str, header: &str| {
        let headers = [(header, "a"), ("content-type", "application/x-www-form-urlencoded")];
        gateway.app.call(method, path, &headers, "").await.status.as_u16()
    };
    assert_eq!(ask("GET", "/api/v1/labels", "X-Scope-OrgID").await, 200);
    assert_eq!(ask("POST", "/api/v1/write", "X-Scope-OrgID").await, 415);
    for (method, path, header) in [
        ("GET", "/api/v1/labels", "X-Scope-OrgID"),
        ("HEAD", "/api/v1/labels", "x-scope-orgid"),
        ("POST", "/api/v1/labels", "THANOS-TENANT"),
        ("GET", "/api/v1/labels?x=1", "thanos-tenant"),
        ("GET", "/prometheus/api/v1/labels", "X-Scope-OrgID"),
        ("GET", "/api/v1/label/%6aob/values", "X-Scope-OrgID"),
        ("POST", "/api/v1/query", "X-Scope-OrgID"),
        ("GET", "/api/v1/export?match[]=up", "X-Scope-OrgID"),
        ("POST", "/api/v1/write", "thanos-tenant"),
        ("POST", "/prometheus/api/v1/write", "X-Scope-OrgID"),
        ("POST", "/api/v1/push", "X-Scope-OrgID"),
        ("POST", "/api/v1/receive", "X-Scope-OrgID"),
        ("POST", "/api/v1/import", "X-Scope-OrgID"),
    ] {
        assert_eq!(ask(method, path, header).await, 429, "{method} {path} {header}");
    }
    for path in
        ["/api/v1/%6cabels", "/api/v1//labels", "/api/v1/./labels", "/API/v1/labels", "/api/v1/labels/"]
    {
        assert_eq!(ask("GET", path, "X-Scope-OrgID").await, 404, "{path}");
    }
}

#[tokio::test]
async fn who_has_no_limits_is_told_of_none() {
    let gateway = Limited::to(limits()).await;
    for reply in [gateway.write(samples(5)).await, gateway.app.get("/api/v1/labels").await] {
        assert!(reply.status.is_success());
        assert!(reply.headers.keys().all(|name| !name.as_str().starts_with("ratelimit")));
    }
}

#[tokio::test]
async fn tenants_see_what_was_refused_of_them() {
    let gateway = Limited::to(limits().with(Limit::Samples, 10)).await;
    assert_eq!(gateway.rejections("a").await, json!([]));
    let bad = Series::new(&[("job", "x")]).sample(1, 1.0);
    let good = Series::new(&[("__name__", "up")]).sample(1, 1.0);
    assert_eq!(gateway.write(compress(&write_request2(&[bad, good]))).await.status, 400);
    for _ in 0..2 {
        assert_eq!(gateway.write(samples(11)).await.status, 400);
    }
    assert_eq!(
        gateway.rejections("a").await,
        json!([
            {"tenant": "a", "reason": "samples_per_second", "limit": 10, "current": 11, "example": null,
             "firstSeen": 10_000, "lastSeen": 10_000, "count": 2},
            {"tenant": "a", "reason": "missing_metric_name", "limit": null, "current": null,
             "example": "{job=\"x\"}", "firstSeen": 10_000, "lastSeen": 10_000, "count": 1},
        ])
    );
    assert_eq!(gateway.rejections("b").await, json!([]));
}

#[tokio::test]
async fn who_may_see_only_some_series_sees_no_examples() {
    let matcher = crate::model::Matcher::equal("job", "mine");
    let caller = Principal { filters: vec![vec![matcher]], ..Principal::anyone() };
    let gateway = Limited::for_caller(limits().with(Limit::Samples, 10), caller).await;
    let bad = Series::new(&[("job", "theirs")]).sample(1, 1.0);
    assert_eq!(gateway.write(compress(&write_request2(&[bad]))).await.status, 400);
    let told = gateway.rejections("a").await;
    assert_eq!((&told[0]["reason"], &told[0]["example"]), (&json!("missing_metric_name"), &Json::Null));
    // Nor how much others use.
    assert_eq!(gateway.write(samples(11)).await.status, 400);
    let told = gateway.rejections("a").await;
    assert_eq!((&told[0]["limit"], &told[0]["current"]), (&json!(10), &Json::Null));
}

#[tokio::test]
async fn an_import_waits_for_its_bytes_and_samples() {
    let allowed = limits().with(Limit::Samples, 1000).with(Limit::Bytes, 1_000_000);
    let gateway = Limited::to(allowed.with(Limit::WriteRequests, 1)).await;
    let line = "{\"metric\":{\"__name__\":\"up\"},\"values\":[1,2],\"timestamps\":[1,2]}\n";
    let import = async |body: String| {
        let request = Request::post("/api/v1/import").body(Body::from(body)).unwrap();
        gateway.app.send(request).await
    };
    assert_eq!(import(line.repeat(500)).await.status, 204);
    let reply = import(line.to_owned()).await;
    assert_eq!((reply.status.as_u16(), header(&reply, "retry-after")), (429, "1"));
    gateway.wait(1000);
    // More than there is at once: the half that is not there comes while it waits.
    let mut importing = Box::pin(import(line.repeat(1000)));
    let reply = loop {
        match tokio::time::timeout(Duration::from_millis(20), &mut importing).await {
            Ok(reply) => break reply,
            Err(_) => gateway.wait(20),
        }
    };
    assert_eq!((reply.status.as_u16(), header(&reply, "x-luminate-import-samples")), (204, "2000"));
    assert!(gateway.app.state.limiter.counters().waits.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn an_import_is_told_of_the_limit_that_ended_it() {
    let import = async |limits: TenantLimits, encoding: &str, body: Vec<u8>| {
        let gateway = Limited::to(limits).await;
        let request =
            Request::post("/api/v1/import").header("content-encoding", encoding).header("X-Scope-OrgID", "a");
        let reply = gateway.app.send(request.body(Body::from(body)).unwrap()).await;
        let exceeded = [Limit::Bytes, Limit::ActiveSeries].map(|limit| gateway.exceeded(limit));
        (reply.status.as_u16(), header(&reply, "retry-after").to_owned(), reply.text().to_owned(), exceeded)
    };
    let line = |name: &str| {
        format!("{{\"metric\":{{\"__name__\":\"{name}\"}},\"values\":[1],\"timestamps\":[1]}}\n")
    };
    for encoding in ["identity", "gzip", "zstd"] {
        let told = import(limits().with(Limit::Bytes, 0), encoding, line("a").into_bytes()).await;
        let text = "over the limit bytes_per_second of 0B: 1B".to_owned();
        assert_eq!(told, (400, "-".to_owned(), text, [1, 0]), "{encoding}");
    }
    let few = || limits().with(Limit::ActiveSeries, 1);
    let two = line("a") + &line("b");
    let (status, again, text, exceeded) = import(few(), "identity", two.clone().into_bytes()).await;
    assert_eq!((status, &*again, exceeded), (429, "60", [0, 1]), "{text}");
    assert!(text.contains("over the limit max_active_series of 1: 2"), "{text}");
    // A line that cannot be read would be refused again.
    let (status, again, text, _) = import(few(), "identity", (two + "{\n").into_bytes()).await;
    assert_eq!((status, &*again), (400, "-"), "{text}");
}

#[tokio::test]
async fn one_tenant_does_not_take_all_the_room_in_flight() {
    let TestApp { router: old, state } =
        TestApp::with(GatewayConfig { max_in_flight: 8, ..GatewayConfig::default() }).await;
    let app = TestApp { router: old, state };
    let ask = |tenant: &'static str| {
        let app = &app;
        Box::pin(async move {
            app.call("GET", "/api/v1/query?query=slow", &[("X-Scope-OrgID", tenant)], "").await
        })
    };
    // Two are known.
    app.call("GET", "/api/v1/labels", &[("X-Scope-OrgID", "b")], "").await;
    let mut held = Vec::new();
    let refused = loop {
        let mut asking = ask("a");
        match (&mut asking).now_or_never() {
            Some(reply) => break reply,
            None => held.push(asking),
        }
        assert!(held.len() < 8, "one tenant has all of it");
    };
    refused.is_error(503, "unavailable", "too many requests of this tenant are being answered already");
    assert!(held.len() >= 3, "{}", held.len());
    assert_eq!(app.call("GET", "/api/v1/labels", &[("X-Scope-OrgID", "b")], "").await.status, 200);
}
