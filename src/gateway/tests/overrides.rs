//! Which limits hold, and giving tenants limits of their own.

use super::*;
use crate::model::Limit;

const OVERRIDES: &str = "/api/v1/user-overrides";

/// An app whose server lets nobody have more than 1000 samples a second.
async fn app() -> TestApp {
    let rules = Rules {
        hard: TenantLimits::unlimited().with(Limit::Samples, 1000),
        queries: TenantLimits::unlimited().with(Limit::QueryPoints, 11_000),
        settles_itself: true,
        ..Rules::of(TenantLimits::default().with(Limit::Queries, 5))
    };
    TestApp::under(rules).await
}

impl TestApp {
    async fn give(&self, tenant: &str, body: &str) -> Reply {
        self.call("POST", OVERRIDES, &[("X-Scope-OrgID", tenant)], body).await
    }

    async fn given(&self, tenant: &str) -> Json {
        let reply = self.call("GET", OVERRIDES, &[("X-Scope-OrgID", tenant)], "").await;
        assert_eq!(reply.status, 200);
        reply.json()["data"].clone()
    }
}

#[tokio::test]
async fn what_a_tenant_is_given_holds_for_it_alone_until_it_is_taken_back() {
    let app = app().await;
    assert_eq!(app.given("a").await, json!({"tenant": "a", "limits": {}}));
    let written =
        r#"{"samples_per_second": 500, "max_query_range": "30d", "answer_400": ["samples_per_second"]}"#;
    let reply = app.give("a", written).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let given = json!({"tenant": "a", "limits": serde_json::from_str::<Json>(written).unwrap()});
    assert_eq!(reply.json()["data"], given);
    assert_eq!(app.given("a").await, given);
    assert_eq!(app.given("b").await["limits"], json!({}));
    let limits = app.get("/api/v1/user_limits?tenant=a").await.json()["data"].clone();
    assert_eq!(limits["tenant"], "a");
    assert_eq!(limits["limits"]["samples_per_second"], json!({"value": 500, "source": "user"}));
    assert_eq!(limits["limits"]["samples_burst"], json!({"value": "unlimited", "source": "default"}));
    assert_eq!(limits["answer_400"], json!(["samples_per_second"]));
    // What is given replaces all that was given before.
    app.give("a", r#"{"queries_per_second": 2}"#).await;
    assert_eq!(app.given("a").await["limits"], json!({"queries_per_second": 2}));
    for _ in 0..2 {
        let reply = app.call("DELETE", &format!("{OVERRIDES}?tenant=a"), &[], "").await;
        assert_eq!((reply.status.as_u16(), reply.text()), (204, ""));
        assert_eq!(app.given("a").await["limits"], json!({}));
    }
}

#[tokio::test]
async fn every_limit_is_told_with_where_it_comes_from() {
    let app = app().await;
    let reply = app.get("/api/v1/user_limits").await.json();
    let (status, data) = (&reply["status"], &reply["data"]);
    assert_eq!((status, &data["tenant"]), (&json!("success"), &json!("anonymous")));
    let limits = data["limits"].as_object().unwrap();
    assert_eq!(limits.len(), Limit::ALL.len());
    assert_eq!(limits["samples_per_second"], json!({"value": 1000, "source": "hard"}));
    assert_eq!(limits["queries_per_second"]["source"], "default");
    assert_eq!(limits["max_query_points"], json!({"value": 11_000, "source": "server"}));
    assert_eq!(limits["creation_grace"], json!({"value": "10m", "source": "default"}));
    assert_eq!(limits["max_active_series"]["used"], 3);
    assert_eq!(data["on_conflict"], json!({"value": "last", "source": "default"}));
}

#[tokio::test]
async fn what_cannot_be_given_is_refused_and_changes_nothing() {
    let app = app().await;
    app.give("a", r#"{"samples_per_second": 5}"#).await;
    for (body, why) in [
        ("", "the body is not JSON"),
        ("{", "the body is not JSON"),
        ("samples_per_second: 5", "the body is not JSON"),
        ("null", "the body is no object"),
        ("[]", "the body is no object"),
        (r#"{"samples_per_secnd": 5}"#, "did you mean samples_per_second?"),
        (r#"{"samples_per_second": -5}"#, "-5 is not a whole number"),
        (r#"{"samples_per_second": 1001}"#, "samples_per_second: 1001 is more than anybody may have"),
        (r#"{"samples_per_second": null}"#, "samples_per_second: unlimited is more than anybody may have"),
        (r#"{"max_query_points": 11001}"#, "max_query_points: 11001 is more than anybody may have"),
        (r#"{"on_conflict": "reject"}"#, "on_conflict: the store settles conflicts"),
        (
            r#"{"query_timeout": 5, "x": 1, "max_label_names": 0}"#,
            "max_label_names: 0 is not from 1 to 10000; \
          query_timeout: \"5\" has no unit",
        ),
        (r#"{"samples_per_second": 5} {}"#, "the body is not JSON"),
    ] {
        let reply = app.give("a", body).await;
        let told = reply.json();
        let error = told["error"].as_str().unwrap();
        assert!(reply.status == 400 && error.contains(why), "{body}: {} {error}", reply.status);
        assert_eq!(told["errorType"], "bad_data");
    }
    let deep = format!("{}{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    assert_eq!(app.give("a", &deep).await.status, 400);
    let long = format!("{{\"samples_per_second\": 5{}}}", " ".repeat(64 << 10));
    assert_eq!(app.give("a", &long).await.status, 413);
    assert_eq!(app.given("a").await["limits"], json!({"samples_per_second": 5}));
}

#[tokio::test]
async fn the_tenant_is_named_once_and_well() {
    let app = app().await;
    for (path, tenant, why) in [
        ("?tenant=a/b", None, "unsupported character"),
        ("?tenant=", None, "tenant id is empty"),
        ("?tenant=a&tenant=b", None, "given more than once"),
        ("?tenant=a", Some("b"), "the header names another one"),
        ("?tenant=%ff", None, "UTF-8"),
        ("", Some("a|b"), "only reads are for several tenants"),
        ("", Some("a/b"), "unsupported character"),
    ] {
        let headers: Vec<(&str, &str)> = tenant.iter().map(|tenant| ("X-Scope-OrgID", *tenant)).collect();
        for (method, route) in
            [("GET", OVERRIDES), ("POST", OVERRIDES), ("DELETE", OVERRIDES), ("GET", "/api/v1/user_limits")]
        {
            let reply = app.call(method, &format!("{route}{path}"), &headers, "{}").await;
            assert!(reply.status == 400 && reply.text().contains(why), "{method} {path}: {}", reply.text());
        }
    }
    let both = app.call("GET", &format!("{OVERRIDES}?tenant=a"), &[("X-Scope-OrgID", "a")], "").await;
    assert_eq!(both.json()["data"]["tenant"], "a");
}

#[tokio::test]
async fn what_is_read_while_we_run_is_read_again_when_somebody_asks() {
    let app = app().await;
    let a = TenantId::new("a").unwrap();
    let text = Some(r#"{"samples_per_second": 7}"#.to_owned());
    app.state.storage.put_document(&a, crate::storage::DocumentKind::Limits, text).await.unwrap();
    assert_eq!(app.given("a").await["limits"], json!({}), "another process wrote it");
    let reply = app.post("/-/reload", "").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, ""));
    assert_eq!(app.given("a").await["limits"], json!({"samples_per_second": 7}));
    assert_eq!(app.get("/-/reload").await.status, 405);
}
