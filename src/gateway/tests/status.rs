//! What is told to those who look at us rather than at samples, and what Prometheus has that we have not.

use serde_json::json;

use super::TestApp;

#[tokio::test]
async fn what_is_not_there_is_empty_and_well_formed() {
    let app = TestApp::start().await;
    for (path, data) in [
        ("rules", json!({"groups": []})),
        ("alerts", json!({"alerts": []})),
        ("alertmanagers", json!({"activeAlertmanagers": [], "droppedAlertmanagers": []})),
        ("targets", json!({"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {}})),
        ("targets?state=ANY", json!({"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {}})),
        (
            "targets?state=active",
            json!({"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": null}),
        ),
        ("targets/metadata", json!([])),
        ("targets/metadata?match_target=%7Bjob%3D%22a%22%7D&limit=1&metric=up", json!([])),
        ("scrape_pools", json!({"scrapePools": []})),
        ("notifications", json!([])),
    ] {
        app.get(&format!("/api/v1/{path}")).await.is_success(&data);
        app.get(&format!("/prometheus/api/v1/{path}")).await.is_success(&data);
        let post = app.post(&format!("/api/v1/{path}"), "").await;
        assert_eq!((post.status.as_u16(), &post.json()["errorType"]), (405, &json!("method_not_allowed")));
    }
    let live = app.get("/api/v1/notifications/live").await;
    assert_eq!((live.status.as_u16(), live.text()), (204, ""));
}

#[tokio::test]
async fn what_rules_are_asked_for_is_checked_even_where_there_are_none() {
    let app = TestApp::start().await;
    for fine in [
        "type=alert",
        "type=Record",
        "exclude_alerts=TRUE",
        "exclude_alerts=f",
        "group_limit=1",
        "rule_name[]=a&rule_name[]=b&rule_group[]=c&file[]=d",
        "match[]=%7Bseverity%3D%22page%22%7D&match[]=up",
    ] {
        app.get(&format!("/api/v1/rules?{fine}")).await.is_success(&json!({"groups": []}));
    }
    for (wrong, message) in [
        ("type=both", r#"invalid parameter "type": not supported value "both""#),
        (
            "exclude_alerts=yes",
            r#"invalid parameter "exclude_alerts": error converting exclude_alerts: strconv.ParseBool: parsing "yes": invalid syntax"#,
        ),
        (
            "group_limit=1.5",
            r#"invalid parameter "group_limit": group_limit needs to be a valid number: strconv.ParseInt: parsing "1.5": invalid syntax"#,
        ),
        (
            "group_limit=2147483648",
            r#"invalid parameter "group_limit": group_limit needs to be a valid number: strconv.ParseInt: parsing "2147483648": value out of range"#,
        ),
        ("group_limit=0", r#"invalid parameter "group_limit": group_limit needs to be greater than 0"#),
        (
            "group_next_token=abc",
            r#"invalid parameter "group_next_token": group_limit needs to be present in order to paginate over the groups"#,
        ),
        (
            "group_limit=1&group_next_token=abc",
            r#"invalid parameter "group_next_token": invalid group_next_token 'abc'. were rule groups changed?"#,
        ),
        ("match[]=%7B%7D", "match[] must contain at least one non-empty matcher"),
    ] {
        app.get(&format!("/api/v1/rules?{wrong}")).await.is_error(400, "bad_data", message);
    }
    app.get("/api/v1/targets/metadata?limit=x").await.is_error(400, "bad_data", "limit must be a number");
    let wrong = app.get("/api/v1/targets/metadata?match_target=%7B").await;
    let told = wrong.json();
    assert_eq!(wrong.status, 400);
    assert!(
        told["error"].as_str().unwrap().starts_with(r#"invalid parameter "match_target": 1:2: parse error"#)
    );
}

#[tokio::test]
async fn a_query_is_told_as_a_tree() {
    let app = TestApp::start().await;
    let tree = json!({"type": "parenExpr", "expr": {"type": "numberLiteral", "val": "-1"}});
    app.get("/api/v1/parse_query?query=(-1)").await.is_success(&tree);
    app.post("/prometheus/api/v1/parse_query", "query=(-1)").await.is_success(&tree);
    for query in ["", "sum%28", "up%5B5m%5D%2B1"] {
        let reply = app.get(&format!("/api/v1/parse_query?query={query}")).await;
        let message = reply.json()["error"].as_str().unwrap().to_owned();
        assert_eq!(reply.status, 400, "{message}");
        assert!(message.starts_with(r#"invalid parameter "query": "#), "{message}");
    }
    let reply = app.post("/api/v1/parse_query", &format!("query={}", "1".repeat(200_000))).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("the query is 200000 bytes long"));
}

#[tokio::test]
async fn features_are_those_that_are_switched_on() {
    let app = TestApp::start().await;
    let features = app.get("/api/v1/features").await.json();
    let features = &features["data"];
    for (category, name, is_on) in [
        ("api", "remote_write_receiver", true),
        ("api", "otlp_write_receiver", false),
        ("api", "openapi_3.1", true),
        ("promql", "anchored", true),
        ("promql", "delayed_name_removal", false),
        ("promql_functions", "rate", true),
        ("promql_functions", "info", true),
        ("promql_operators", "limitk", true),
        ("promql_operators", "=~", true),
        ("promql_operators", ">/", true),
    ] {
        assert_eq!(features[category][name], is_on, "{category} {name}");
    }
    let mine = [
        ("host", "localhost"),
        ("luminate-features", "promql-delayed-name-removal,-promql-experimental-functions"),
    ];
    let switched = app.call("GET", "/api/v1/features", &mine, "").await.json();
    assert_eq!(switched["data"]["promql"]["delayed_name_removal"], true);
    assert_eq!(switched["data"]["promql_functions"]["info"], false);
    let all = features.as_object().unwrap().values().flat_map(|of| of.as_object().unwrap().values());
    assert!(all.into_iter().all(serde_json::Value::is_boolean));
}

#[tokio::test]
async fn whoever_operates_the_process_sees_what_it_runs_with() {
    let app = TestApp::start().await;
    app.get("/api/v1/status/config").await.is_success(&json!({"yaml": "query:\n  timeout: 2m\n"}));
    app.get("/api/v1/status/walreplay").await.is_success(&json!({"min": 0, "max": 0, "current": 0}));
    let told = app.get("/api/v1/status/runtimeinfo").await.json();
    let data = &told["data"];
    assert_eq!(
        (&data["startTime"], &data["serverTime"]),
        (&json!("1970-01-01T00:00:01.5Z"), &json!("1970-01-01T00:00:10Z"))
    );
    assert_eq!(
        (&data["CWD"], &data["hostname"], &data["storageRetention"]),
        (&json!("/srv"), &json!("here"), &json!("30d"))
    );
    assert_eq!((&data["corruptionCount"], &data["GOMEMLIMIT"]), (&json!(0), &json!(i64::MAX)));
    assert!(data["goroutineCount"].is_u64() && data["GOMAXPROCS"].is_u64());
    assert_eq!(data.as_object().unwrap().len(), 13);
}

#[tokio::test]
async fn what_clients_take_for_another_server_is_not_here() {
    let app = TestApp::start().await;
    // A flags page is Thanos to Grafana, rules to configure are Mimir.
    for path in
        ["/api/v1/status/flags", "/config/v1/rules", "/api/v1/rules/test/test", "/api/v1/scrape_pools/config"]
    {
        let message = format!("page not found: there is nothing at {path}");
        app.get(path).await.is_error(404, "not_found", &message);
    }
}

#[tokio::test]
async fn who_accepts_no_json_is_answered_in_json_all_the_same() {
    let app = TestApp::start().await;
    for accept in
        ["application/json", "*/*", "text/html", "image/png;q=1", "", "application/json;q=0", "nonsense"]
    {
        let reply = app.call("GET", "/api/v1/labels", &[("host", "localhost"), ("accept", accept)], "").await;
        assert_eq!(reply.status, 200, "{accept}");
        assert_eq!(reply.headers["content-type"], "application/json", "{accept}");
    }
}
