//! Queries that run: looked at, ended, and with features of their own.

use super::*;
use crate::{
    gateway::auth::{Principal, Scope},
    query::{InstantQuery, Origin, QueryControls, Reader},
};

/// Asks in the background, and waits until that is in the list.
async fn asked(app: &TestApp) -> tokio::task::JoinHandle<Reply> {
    let (router, state) = (app.router.clone(), Arc::clone(&app.state));
    let asking = crate::task::spawn("test", async move {
        let app = TestApp { router, state };
        let headers = [("x-dashboard-uid", "d1"), ("x-panel-id", "7"), ("x-request-id", "r1")];
        app.call("GET", "/api/v1/query?query=slow&time=3", &headers, "").await
    });
    while !app.state.query.active().list(None).iter().any(|query| query.is_running()) {
        tokio::task::yield_now().await;
    }
    asking
}

#[tokio::test]
async fn a_query_can_be_looked_at_and_ended_by_its_tenant_and_nobody_else() {
    let (app, lines) = audit::audited(TestApp::start().await.unhurried());
    let asking = asked(&app).await;
    let listed = app.get("/api/v1/status/active_queries").await.json()["data"].clone();
    let told = listed[0].as_object().unwrap();
    let id = told["id"].as_str().unwrap().to_owned();
    assert_eq!(
        listed,
        json!([{
            "id": id, "tenant": "anonymous", "query": "slow", "startMs": 3000, "endMs": 3000, "stepMs": 0,
            "sinceMs": 10_000, "ageMs": 0, "state": "running", "series": 0, "samplesRead": 0, "bytes": 0,
            "who": "anyone", "requestId": "r1", "dashboard": "d1", "panel": "7",
        }])
    );
    let other = [("x-scope-orgid", "other")];
    let theirs = app.call("GET", "/api/v1/status/active_queries", &other, "").await;
    assert_eq!(theirs.json()["data"], json!([]));
    let path = format!("/api/v1/status/active_queries/{id}");
    let unknown = format!("no query {id} runs here, or it has ended");
    app.call("DELETE", &path, &other, "").await.is_error(404, "not_found", &unknown);
    for wrong in ["1", "x", "+123456789abcdef", "00000000000000000"] {
        let path = format!("/api/v1/status/active_queries/{wrong}");
        let why = "invalid id: it is 16 hexadecimal digits";
        app.call("DELETE", &path, &[], "").await.is_error(400, "bad_data", why);
    }

    assert_eq!(app.call("DELETE", &path, &[], "").await.status, 204);
    let ended = asking.await.unwrap();
    ended.is_error(499, "canceled", "query was canceled in expression evaluation");
    app.call("DELETE", &path, &[], "").await.is_error(404, "not_found", &unknown);
    assert_eq!(app.get("/api/v1/status/active_queries").await.json()["data"], json!([]));
    assert_eq!((app.state.query.running(), app.state.query.waiting()), (0, 0));
    let lines = lines();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["action"], format!("DELETE {path}"));
    assert_eq!(lines[0]["detail"], format!("{id} of anyone: slow"));

    let top = app.get("/api/v1/status/top_queries?by=count&limit=1").await.json()["data"].clone();
    assert_eq!((&top[0]["query"], &top[0]["count"]), (&json!("slow"), &json!(1)));
    let wrong = app.get("/api/v1/status/top_queries?by=x").await;
    wrong.is_error(400, "bad_data", "invalid parameter \"by\": it is duration, samples or count");
}

#[tokio::test]
async fn somebody_else_s_query_is_ended_by_who_may_do_more_than_read() {
    let cases: [(&str, &[Scope], u16); 4] = [
        ("me", &[Scope::Read], 403),
        ("somebody", &[Scope::Read], 204),
        ("me", &[Scope::Read, Scope::Write], 204),
        ("me", &[Scope::Admin], 204),
    ];
    for (name, scopes, status) in cases {
        let TestApp { router: old, state } = TestApp::start().await.unhurried();
        drop(old);
        let mut state = Arc::into_inner(state).unwrap();
        let scopes = scopes.iter().copied().collect();
        let caller = Principal { name: name.to_owned(), scopes, ..Principal::anyone() };
        state.auth = Arc::new(Auth::Open(Arc::new(caller)));
        let state = Arc::new(state);
        let app = TestApp { router: router(Arc::clone(&state), Door::Both), state };
        let query = Arc::clone(&app.state.query);
        let asking = crate::task::spawn("test", async move {
            let origin = Origin { who: "somebody".to_owned(), ..Origin::default() };
            let controls = QueryControls { origin, ..QueryControls::default() };
            let slow = InstantQuery { text: "slow".to_owned(), at: None, controls };
            query.instant(&Reader::of(TenantId::anonymous()), slow).await.map(drop)
        });
        while app.state.query.running() == 0 {
            tokio::task::yield_now().await;
        }
        let listed = app.get("/api/v1/status/active_queries").await.json()["data"].clone();
        let path = format!("/api/v1/status/active_queries/{}", listed[0]["id"].as_str().unwrap());
        assert_eq!(app.call("DELETE", &path, &[], "").await.status, status, "{name}");
        if status == 204 {
            assert!(asking.await.unwrap().is_err());
        } else {
            assert_eq!(app.state.query.running(), 1);
            asking.abort();
        }
    }
}

#[tokio::test]
async fn who_operates_the_server_sees_and_ends_all() {
    let app = TestApp::start().await.unhurried();
    let asking = asked(&app).await;
    let listed = app.call("GET", "/api/v1/admin/active_queries", &[("x-scope-orgid", "other")], "").await;
    let id = listed.json()["data"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(app.call("DELETE", &format!("/api/v1/admin/active_queries/{id}"), &[], "").await.status, 204);
    assert_eq!(asking.await.unwrap().status, 499);
}

#[tokio::test]
async fn a_query_whose_caller_left_is_over() {
    let app = TestApp::start().await.unhurried();
    let asking = asked(&app).await;
    asking.abort();
    assert!(asking.await.is_err());
    assert!(app.state.query.active().list(None).is_empty());
    assert_eq!(app.state.query.running(), 0);
    let ended = app.state.query.journal().counters.ended(crate::query::journal::Outcome::Abandoned);
    assert_eq!(ended.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_request_and_a_tenant_switch_features() {
    let app = TestApp::computing().await;
    let name = async |tenant: &str, features: &str| {
        let mut headers = vec![("x-scope-orgid", tenant)];
        if !features.is_empty() {
            headers.push(("luminate-features", features));
        }
        let path = "/api/v1/query?query=label_replace(abs(up{job%3D%22a%22}),%22n%22,%22$1%22,%22__name__%22,%22(.*)%22)&time=5";
        let reply = app.call("GET", path, &headers, "").await.json();
        reply["data"]["result"][0]["metric"]["n"].clone()
    };
    assert_eq!(name("anonymous", "").await, Json::Null);
    assert_eq!(name("anonymous", "promql-delayed-name-removal").await, json!("up"));
    let set =
        app.call("POST", "/api/v1/user-overrides", &[], r#"{"features": ["delayed-name-removal"]}"#).await;
    assert_eq!(set.status, 200, "{:?}", set.json());
    assert_eq!(name("anonymous", "").await, json!("up"));
    assert_eq!(name("anonymous", "-promql-delayed-name-removal").await, Json::Null);

    let off = [("luminate-features", "-promql-experimental-functions")];
    let path = "/api/v1/format_query?query=mad_over_time(a[5m])";
    assert_eq!(app.get(path).await.status, 200);
    assert_eq!(app.call("GET", path, &off, "").await.status, 400);
    let unknown = [("luminate-features", "promql-delayed-name-removals")];
    for path in [path, "/api/v1/query?query=1", "/api/v1/query_range?query=1&start=0&end=1&step=1"] {
        app.call("GET", path, &unknown, "").await.is_error(
            400,
            "bad_data",
            "invalid Luminate-Features: unknown feature \"promql-delayed-name-removals\", \
             did you mean promql-delayed-name-removal?",
        );
    }
    let wrong = app.call("POST", "/api/v1/user-overrides", &[], r#"{"features": ["x"]}"#).await;
    assert!(wrong.json()["error"].as_str().unwrap().contains("features: unknown feature \"x\"; there are"));
}
