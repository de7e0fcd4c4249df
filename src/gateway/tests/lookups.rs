//! What is listed beside the answers of queries: series, labels, metadata, exemplars, ourselves.

use super::*;

#[tokio::test]
async fn series_labels_and_values_are_listed() {
    let app = TestApp::start().await;
    let up_a = json!({"__name__": "up", "job": "a"});
    app.get("/api/v1/series?match[]=up%7Bjob=%22a%22%7D").await.is_success(&json!([up_a]));
    app.post("/api/v1/series?match[]=down", "match%5B%5D=up%7Bjob=%22a%22%7D")
        .await
        .is_success(&json!([{"__name__": "down", "job": "c"}, up_a]));
    app.get("/api/v1/labels").await.is_success(&json!(["__name__", "http.status", "job"]));
    app.post("/api/v1/labels", "match[]=down").await.is_success(&json!(["__name__", "job"]));
    app.get("/api/v1/label/job/values").await.is_success(&json!(["a", "b", "c"]));
    app.get("/api/v1/label/job/values?match[]=up").await.is_success(&json!(["a", "b"]));
    app.get("/api/v1/label/U__http_2e_status/values").await.is_success(&json!(["200"]));
    app.get("/api/v1/label/http.status/values").await.is_success(&json!(["200"]));
    app.get("/api/v1/label/none/values").await.is_success(&json!([]));
    app.get("/api/v1/label/job/values?start=100&end=200").await.is_success(&json!([]));
    let all_time = "start=-292273086-05-16T16:47:06Z&end=292277025-08-18T07:12:54.999999999Z";
    app.get(&format!("/api/v1/label/job/values?{all_time}")).await.is_success(&json!(["a", "b", "c"]));
}

#[tokio::test]
async fn a_list_above_the_limit_is_cut_and_says_so() {
    let app = TestApp::start().await;
    for path in ["label/job/values?limit=1", "labels?limit=1", "series?match[]=up&limit=1"] {
        let body = app.get(&format!("/api/v1/{path}")).await.json();
        assert_eq!(body["data"].as_array().unwrap().len(), 1, "{path}");
        assert_eq!(body["warnings"], json!(["results truncated due to limit"]), "{path}");
    }
    let whole = app.get("/api/v1/label/job/values?limit=3").await.json();
    assert_eq!(whole.get("warnings"), None);
}

#[tokio::test]
async fn bad_selectors_are_named() {
    let app = TestApp::start().await;
    app.get("/api/v1/series").await.is_error(400, "bad_data", "no match[] parameter provided");
    // Where selectors may be left out, Prometheus leaves out the parameter's name.
    for (path, name) in
        [("series", r#"invalid parameter "match[]": "#), ("labels", ""), ("label/job/values", "")]
    {
        app.get(&format!("/api/v1/{path}?match[]=%7B%7D")).await.is_error(
            400,
            "bad_data",
            &format!("{name}match[] must contain at least one non-empty matcher"),
        );
        app.get(&format!("/api/v1/{path}?match[]=%7Ba%7D%7D")).await.is_error(
            400,
            "bad_data",
            &format!("{name}1:3: parse error: unexpected \"}}\" in label matching, expected label matching operator"),
        );
        app.get(&format!("/api/v1/{path}?match[]=up&start=x")).await.is_error(
            400,
            "bad_data",
            r#"invalid parameter "start": Invalid time value for 'start': cannot parse "x" to a valid timestamp"#,
        );
        app.get(&format!("/api/v1/{path}?match[]=up&start=2&end=1")).await.is_error(
            400,
            "bad_data",
            r#"invalid parameter "end": end timestamp must not be before start time"#,
        );
    }
}

#[tokio::test]
async fn metadata_is_listed_by_metric() {
    let app = TestApp::start().await;
    let entry = |help: &str| json!([{"type": "gauge", "help": help, "unit": ""}]);
    let both = json!({"up": entry("Is it up?"), "down": entry("Is it down?")});
    app.get("/api/v1/metadata").await.is_success(&both);
    app.get("/api/v1/metadata?metric=up&limit=40000").await.is_success(&json!({"up": entry("Is it up?")}));
    app.get("/api/v1/metadata?limit=1").await.is_success(&json!({"down": entry("Is it down?")}));
    app.get("/api/v1/metadata?metric=none").await.is_success(&json!({}));
    app.get("/api/v1/metadata?limit=x").await.is_error(400, "bad_data", "limit must be a number");
}

#[tokio::test]
async fn deleted_series_are_gone() {
    let app = TestApp::start().await;
    app.post("/api/v1/admin/tsdb/delete_series", "").await.is_error(
        400,
        "bad_data",
        "no match[] parameter provided",
    );
    let reply = app.post("/api/v1/admin/tsdb/delete_series", "match[]=down").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (204, ""));
    app.get("/api/v1/label/job/values").await.is_success(&json!(["a", "b"]));
    let reply = app.call("PUT", "/api/v1/admin/tsdb/delete_series?match[]=up", &[], "").await;
    assert_eq!(reply.status, 204);
    for path in ["clean_tombstones", "flush"] {
        assert_eq!(app.post(&format!("/api/v1/admin/tsdb/{path}"), "").await.status, 204, "{path}");
    }
    app.get("/api/v1/label/job/values").await.is_success(&json!([]));
}

#[tokio::test]
async fn status_says_what_we_are_and_hold() {
    let app = TestApp::start().await;
    let build = app.get("/api/v1/status/buildinfo").await.json();
    assert_eq!(build["data"]["version"], "3.14.0");
    assert_eq!(build["data"]["application"], "luminate");
    assert_eq!(build["data"].get("features"), None);
    let storage = app.get("/api/v1/status/storage").await.json();
    assert_eq!(storage["status"], "success");
    assert!(storage["data"]["diskBytes"].is_object());
    let tsdb = app.get("/api/v1/status/tsdb?limit=1").await.json();
    assert_eq!(tsdb["data"]["headStats"]["numSeries"], 3);
    assert_eq!(tsdb["data"]["seriesCountByMetricName"], json!([{"name": "up", "value": 2}]));
    for (limit, message) in [
        ("0", "limit must be a positive number"),
        ("ten", "limit must be a positive number"),
        ("10001", "limit must not exceed 10000"),
    ] {
        let path = format!("/api/v1/status/tsdb?limit={limit}");
        app.get(&path).await.is_error(400, "bad_data", message);
    }
}

#[tokio::test]
async fn exemplars_are_found_by_what_a_query_looks_at() {
    let app = TestApp::start().await;
    let found = json!([{
        "seriesLabels": {"__name__": "up", "job": "a"},
        "exemplars": [{"labels": {"trace_id": "t1"}, "value": "0.5", "timestamp": 5.5}],
    }]);
    app.get("/api/v1/query_exemplars?query=rate(up%5B5m%5D)&start=0&end=10").await.is_success(&found);
    app.get("/api/v1/query_exemplars?query=down%2B1&start=0&end=10").await.is_success(&json!([]));
    // Grafana asks so when it starts, and its times are milliseconds.
    app.post("/api/v1/query_exemplars", "query=test&start=1795229823766&end=1795229823767")
        .await
        .is_success(&json!([]));
    app.get("/api/v1/query_exemplars?query=up").await.is_success(&found);
    app.get("/api/v1/query_exemplars?query=1&start=1&end=0").await.is_error(
        400,
        "bad_data",
        "end timestamp must not be before start timestamp",
    );
    app.get("/api/v1/query_exemplars?query=up%28").await.is_error(
        400,
        "bad_data",
        "1:4: parse error: unclosed left parenthesis",
    );
}

#[tokio::test]
async fn what_grafana_asks_when_it_starts_is_answered() {
    let app = TestApp::start().await;
    app.get("/api/v1/rules").await.is_success(&json!({"groups": []}));
    app.get("/api/v1/alerts").await.is_success(&json!({"alerts": []}));
    app.post("/api/v1/format_query", "query=sum(++up)%2B1").await.is_success(&json!("sum(up) + 1"));
    let flags = app.get("/api/v1/status/flags").await;
    assert_eq!(flags.status, 404);
}
