//! What the audit log keeps, and tenants that are closed.

use std::fs;

use futures_util::stream;

use super::*;

/// The same with an audit log in a file; gives its lines.
pub(super) fn audited(app: TestApp) -> (TestApp, impl Fn() -> Vec<Json>) {
    let TestApp { router: old, state } = app;
    drop(old);
    let mut state = Arc::into_inner(state).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    state.audit = Arc::new(Audit::to_file(&path, 1 << 20, Arc::clone(&state.clock)).unwrap());
    let state = Arc::new(state);
    let lines = move || {
        let _kept = &folder;
        let text = fs::read_to_string(&path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    (TestApp { router: router(Arc::clone(&state), Door::Both), state }, lines)
}

fn told(line: &Json) -> (&str, &str, u64, &str) {
    let text = |name: &str| line[name].as_str().unwrap_or_default();
    (text("action"), text("result"), line["status"].as_u64().unwrap(), text("tenant"))
}

#[tokio::test]
async fn a_disabled_tenant_is_refused_on_every_route_and_nobody_else_is() {
    let closed = TenantId::new("closed").unwrap();
    let config = GatewayConfig { disabled_tenants: vec![closed], ..GatewayConfig::default() };
    let (app, lines) = audited(TestApp::with(config).await);
    let about_tenants = [
        ("POST", "/api/v1/write"),
        ("POST", "/api/v1/push"),
        ("POST", "/api/v1/receive"),
        ("POST", "/api/v1/import"),
        ("GET", "/api/v1/query?query=up"),
        ("POST", "/api/v1/query_range?query=up&start=0&end=1&step=1"),
        ("GET", "/api/v1/query_exemplars?query=up&start=0&end=1"),
        ("GET", "/api/v1/series?match[]=up"),
        ("GET", "/api/v1/labels"),
        ("GET", "/prometheus/api/v1/label/job/values"),
        ("GET", "/api/v1/metadata"),
        ("GET", "/api/v1/query/estimate?query=up"),
        ("GET", "/api/v1/search/metric_names"),
        ("GET", "/api/v1/search/label_names"),
        ("POST", "/api/v1/search/label_values?label=job"),
        ("GET", "/api/v1/export?match[]=up"),
        ("GET", "/api/v1/export/plan?match[]=up"),
        ("POST", "/api/v1/read"),
        ("GET", "/federate?match[]=up"),
        ("GET", "/api/v1/features"),
        ("GET", "/api/v1/status/tsdb"),
        ("GET", "/api/v1/status/rejections"),
        ("GET", "/api/v1/status/active_queries"),
        ("DELETE", "/api/v1/status/active_queries/0123456789abcdef"),
        ("GET", "/api/v1/status/top_queries"),
        ("GET", "/api/v1/user_limits"),
        ("POST", "/api/v1/admin/tsdb/delete_series?match[]=up"),
        ("POST", "/api/v1/admin/tsdb/clean_tombstones"),
    ];
    for route in super::super::ROUTES.iter().filter(|route| route.access.is_about_tenants()) {
        let path = route.path.replace("{name}", "job").replace("{id}", "0123456789abcdef");
        assert!(about_tenants.iter().any(|(_, asked)| asked.contains(&path)), "{path} is not asked here");
    }
    for (method, path) in about_tenants {
        let reply = app.call(method, path, &[("x-scope-orgid", "closed")], "").await;
        reply.is_error(403, "forbidden", "tenant closed is disabled");
    }
    let among = [("x-scope-orgid", "anonymous|closed")];
    app.call("GET", "/api/v1/query?query=up", &among, "").await.is_error(
        403,
        "forbidden",
        "tenant closed is disabled",
    );
    assert_eq!(app.get("/api/v1/query?query=up").await.status, 200);
    assert_eq!(app.call("GET", "/api/v1/labels", &[("x-scope-orgid", "other")], "").await.status, 200);
    // Who operates the server may say what is to hold for it once it is open again.
    let overrides = app.call("GET", "/api/v1/user-overrides?tenant=closed", &[], "").await;
    assert_eq!(overrides.status, 200);
    let lines = lines();
    assert_eq!(lines.len(), about_tenants.len() + 1);
    assert_eq!(told(&lines[0]), ("POST /api/v1/write", "denied", 403, "closed"));
    assert_eq!(told(&lines[about_tenants.len()]).3, "anonymous|closed");
}

#[tokio::test]
async fn an_order_is_kept_even_if_its_caller_leaves() {
    let (app, lines) = audited(TestApp::start().await.unhurried());
    let ordered = [("x-scope-orgid", "a"), ("x-request-id", "order-1")];
    assert_eq!(
        app.call("POST", "/api/v1/admin/tsdb/delete_series?match[]=up", &ordered, "").await.status,
        204
    );
    // Half of what it says has come when its caller hangs up.
    let half = stream::iter([Ok::<_, std::io::Error>(Bytes::from("{"))]);
    let body = Body::from_stream(futures_util::StreamExt::chain(half, stream::pending()));
    let order = Request::post("/api/v1/user-overrides?tenant=a").body(body).unwrap();
    let left = tokio::time::timeout(Duration::from_millis(10), app.send(order)).await;
    assert!(left.is_err());
    // A question is none.
    let asked = app.get("/api/v1/query?query=slow");
    assert!(tokio::time::timeout(Duration::from_millis(10), asked).await.is_err());
    let lines = lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(told(&lines[0]), ("POST /api/v1/admin/tsdb/delete_series", "done", 204, "a"));
    assert_eq!((&lines[0]["request_id"], &lines[0]["detail"]), (&json!("order-1"), &json!("up")));
    assert_eq!(told(&lines[1]), ("POST /api/v1/user-overrides", "failed", 499, ""));
    assert_eq!((&lines[1]["who"], &lines[1]["detail"]), (&json!("anyone"), &json!("the caller left")));
}

#[tokio::test]
async fn every_answer_tells_browsers_and_caches_to_keep_out() {
    let app = TestApp::start().await;
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/metrics"),
        ("GET", "/nowhere/<script>"),
        ("PATCH", "/api/v1/query"),
        ("GET", "/api/v1/query?query=up"),
        ("GET", "/api/v1/query?query=<script>alert(1)</script>"),
        ("OPTIONS", "/api/v1/query"),
    ] {
        let reply = app.call(method, &path.replace('<', "%3C").replace('>', "%3E"), &[], "").await;
        assert_eq!(reply.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        assert_eq!(reply.headers[header::CACHE_CONTROL], "no-store", "{path}");
        let policy = reply.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("script-src"), "{policy}");
        // Nobody is ever sent elsewhere.
        assert!(!reply.status.is_redirection() && !reply.headers.contains_key(header::LOCATION), "{path}");
        let html = reply
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
        assert_eq!(html, path == "/", "{path}");
    }
}
