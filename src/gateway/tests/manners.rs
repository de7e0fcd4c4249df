//! What holds for every request, whatever it asks for: tenants, hosts, origins, limits, health, ids, compression.

use super::*;

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
    let config = GatewayConfig { max_in_flight: 1, ..GatewayConfig::default() };
    let app = TestApp::with(config).await.unhurried();
    let slow = app.get("/api/v1/query?query=slow");
    let others = async {
        while app.state.counters.in_flight(Endpoint::Query) == 0 {
            tokio::task::yield_now().await;
        }
        let refused = app.get("/api/v1/labels").await;
        refused.is_error(503, "unavailable", "too many requests are being answered already");
        assert_eq!(refused.headers[header::RETRY_AFTER], "1");
        assert_eq!(app.state.counters.in_flight(Endpoint::Query), 1);
        for path in ["/-/ready", "/api/v1/health", "/metrics"] {
            assert_eq!(app.get(path).await.status, 200, "{path}");
        }
    };
    tokio::select! {
        slow = slow => panic!("{slow:?}"),
        () = others => {}
    }
}

#[tokio::test]
async fn every_request_has_an_id_and_is_counted_even_if_its_caller_leaves() {
    let app = TestApp::start().await.unhurried();
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
