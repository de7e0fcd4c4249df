//! What the listener tells of a connection, and how long a request may take.

use super::*;
use crate::gateway::{
    auth::{Checks, guard::Guard},
    listener::Unhurried,
    peer::Peer,
};

async fn get_from(app: &TestApp, door: Option<Door>, path: &str) -> u16 {
    let mut request = Request::get(path).body(Body::empty()).unwrap();
    if let Some(door) = door {
        request.extensions_mut().insert(Peer::at("192.0.2.1:9".parse().unwrap(), door));
    }
    app.send(request).await.status.as_u16()
}

#[tokio::test]
async fn what_operates_the_server_is_behind_its_own_door() {
    let app = TestApp::start().await;
    for (door, metrics, query) in [(Door::Both, 200, 200), (Door::Public, 404, 200), (Door::Admin, 200, 404)]
    {
        let app = TestApp { router: router(Arc::clone(&app.state), door), state: Arc::clone(&app.state) };
        for prefix in ["", "/prometheus"] {
            assert_eq!(get_from(&app, Some(door), &format!("{prefix}/api/v1/query?query=up")).await, query);
            let storage = format!("{prefix}/api/v1/status/storage");
            assert_eq!(get_from(&app, Some(door), &storage).await, metrics, "{door:?}");
        }
        assert_eq!(get_from(&app, Some(door), "/metrics").await, metrics, "{door:?}");
        assert_eq!(get_from(&app, Some(door), "/-/ready").await, 200);
    }
}

#[tokio::test]
async fn what_is_not_answered_in_time_is_told_so_and_is_not_to_blame_on_the_caller() {
    let app = TestApp::with(GatewayConfig {
        request_timeout: Duration::from_millis(20),
        ..GatewayConfig::default()
    })
    .await;
    let reply = app.get("/api/v1/query?query=slow").await;
    reply.is_error(503, "timeout", "not answered within 0.02 s");
}

#[tokio::test]
async fn streams_and_orders_may_take_their_time() {
    let app = TestApp::start().await;
    for (method, path, unhurried) in [
        ("GET", "/api/v1/export?match[]=up", true),
        ("POST", "/api/v1/import", true),
        ("POST", "/api/v1/admin/tsdb/flush", true),
        ("GET", "/api/v1/query?query=up", false),
        ("POST", "/api/v1/write", false),
        ("GET", "/metrics", false),
    ] {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = app.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.extensions().get::<Unhurried>().is_some(), unhurried, "{path}");
    }
}

#[tokio::test]
async fn a_page_that_asks_whether_it_may_ask_is_not_counted_as_a_query() {
    let app = TestApp::start().await;
    let counted = |endpoint| app.state.counters.latency(endpoint).counts.iter().sum::<u64>();
    let reply = app.call("OPTIONS", "/api/v1/query", &[("origin", "http://localhost:3000")], "").await;
    assert_eq!(reply.status, 403);
    app.call("OPTIONS", "/api/v1/query", &[], "").await;
    assert_eq!((counted(Endpoint::Query), counted(Endpoint::Other)), (0, 2));
    app.get("/api/v1/query?query=up").await;
    assert_eq!((counted(Endpoint::Query), counted(Endpoint::Other)), (1, 2));
}

/// The same, but everybody is asked who they are, and nobody is known.
fn asking(app: TestApp) -> TestApp {
    let TestApp { router: old, state } = app;
    drop(old);
    let mut state = Arc::into_inner(state).unwrap();
    let clock = Arc::clone(&state.clock);
    state.auth = Arc::new(Auth::Closed(Box::new(Checks {
        tokens: None,
        keys: None,
        header: None,
        certificates: None,
        proxies: None,
        guard: Arc::new(Guard::new(0, Arc::clone(&clock))),
        clock,
        failures: Arc::default(),
    })));
    let state = Arc::new(state);
    TestApp { router: router(Arc::clone(&state), Door::Both), state }
}

#[tokio::test]
async fn figures_are_open_behind_the_admin_door_only_if_that_is_wanted() {
    for open_to_scrapers in [false, true] {
        let config = GatewayConfig { open_to_scrapers, ..GatewayConfig::default() };
        let app = asking(TestApp::with(config).await);
        let expect = |open: bool| if open { 200 } else { 401 };
        for path in ["/metrics", "/health/deep"] {
            assert_eq!(get_from(&app, Some(Door::Admin), path).await, expect(open_to_scrapers), "{path}");
            // By the one door there is, by the public one, by no connection at all.
            for door in [Some(Door::Both), Some(Door::Public), None] {
                assert_eq!(get_from(&app, door, path).await, 401, "{path} {door:?}");
            }
        }
        assert_eq!(get_from(&app, Some(Door::Admin), "/api/v1/status/storage").await, 401);
    }
}
