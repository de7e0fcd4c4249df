//! Searches, estimates, snapshots, and requests that want to see less.

use super::*;
use crate::model::Limit;

/// Lines of an answer.
async fn lines(app: &TestApp, path: &str) -> Vec<String> {
    let reply = app.get(path).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    assert_eq!(reply.headers[header::CONTENT_TYPE], "application/x-ndjson; charset=utf-8");
    reply.text().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn names_are_searched_and_come_in_lines() {
    let app = TestApp::start().await;
    let all = r#"{"status":"success","has_more":false}"#;
    let more = r#"{"status":"success","has_more":true}"#;
    for (path, expect) in [
        ("metric_names", vec![r#"{"results":[{"name":"down"},{"name":"up"}]}"#, all]),
        (
            "metric_names?sort_by=alpha&sort_dir=dsc",
            vec![r#"{"results":[{"name":"up"},{"name":"down"}]}"#, all],
        ),
        ("metric_names?limit=1", vec![r#"{"results":[{"name":"down"}]}"#, more]),
        (
            "metric_names?limit=2&batch_size=1",
            vec![r#"{"results":[{"name":"down"}]}"#, r#"{"results":[{"name":"up"}]}"#, all],
        ),
        (
            "metric_names?search[]=P&case_sensitive=false&include_score=true",
            vec![r#"{"results":[{"name":"up","score":0.5}]}"#, all],
        ),
        ("metric_names?search[]=P", vec![r#"{"results":[]}"#, all]),
        (
            "metric_names?search[]=up&include_metadata=true&include_score=1",
            vec![r#"{"results":[{"name":"up","score":1,"type":"gauge","help":"Is it up?"}]}"#, all],
        ),
        (
            "metric_names?search[]=dowm&fuzz_alg=jarowinkler&fuzz_threshold=80&sort_by=score",
            vec![r#"{"results":[{"name":"down"}]}"#, all],
        ),
        ("metric_names?match[]={job=\"a\"}", vec![r#"{"results":[{"name":"up"}]}"#, all]),
        ("metric_names?start=0&end=1", vec![r#"{"results":[]}"#, all]),
        (
            "label_names",
            vec![r#"{"results":[{"name":"__name__"},{"name":"http.status"},{"name":"job"}]}"#, all],
        ),
        ("label_names?search[]=stat&limit=1", vec![r#"{"results":[{"name":"http.status"}]}"#, all]),
        (
            "label_values?label=job&search[]=b&search[]=c",
            vec![r#"{"results":[{"name":"b"},{"name":"c"}]}"#, all],
        ),
        ("label_values?label=nothing", vec![r#"{"results":[]}"#, all]),
    ] {
        assert_eq!(
            lines(&app, &format!("/api/v1/search/{}", path.replace('"', "%22"))).await,
            expect,
            "{path}"
        );
    }
    let posted = app.post("/api/v1/search/label_values", "label=job&limit=1").await;
    assert_eq!(posted.text(), format!("{{\"results\":[{{\"name\":\"a\"}}]}}\n{more}\n"));
}

#[tokio::test]
async fn a_search_that_cannot_be_is_refused_as_json() {
    let app = TestApp::start().await;
    for (path, why) in [
        ("label_values", "missing required parameter \"label\""),
        ("label_names?sort_by=score", "sort_by=score requires search[] to be set"),
        ("label_names?include_score=x", "invalid include_score \"x\": must be boolean"),
        ("metric_names?include_metadata=x", "invalid include_metadata \"x\": must be boolean"),
        ("metric_names?batch_size=-1", "invalid batch_size \"-1\": must be non-negative integer"),
        ("metric_names?start=2&end=1", "end timestamp must not be before start timestamp"),
        ("metric_names?match[]={}", "match[] must contain at least one non-empty matcher"),
    ] {
        app.get(&format!("/api/v1/search/{path}")).await.is_error(400, "bad_data", why);
    }
    let rules = Rules::of(TenantLimits::unlimited().with(Limit::QueryBytes, 3));
    let app = TestApp::under(rules).await;
    let reply = app.get("/api/v1/search/metric_names").await;
    assert_eq!(reply.status, 422, "{}", reply.text());
}

#[tokio::test]
async fn every_endpoint_that_reads_can_be_asked_to_show_less() {
    let app = TestApp::computing().await;
    let get =
        async |path: &str| app.get(&path.replace('"', "%22").replace('{', "%7B").replace('}', "%7D")).await;
    let jobs = |reply: &Reply| -> Vec<char> {
        let text = reply.text();
        ['a', 'b', 'c'].into_iter().filter(|job| text.contains(&format!("\"{job}\""))).collect()
    };
    for path in [
        "query?query={job!=\"\"}&time=6",
        "query_range?query={job!=\"\"}&start=5&end=6&step=1",
        "series?match[]={job!=\"\"}",
        "label/job/values?start=0",
        "export?match[]={job!=\"\"}",
        "search/label_values?label=job",
    ] {
        for (asked, shown) in [
            ("", vec!['a', 'b', 'c']),
            ("extra_label=job=b", vec!['b']),
            ("extra_label=job=b&extra_label=__name__=down", vec![]),
            ("extra_filters[]={job=~\"a|b\"}", vec!['a', 'b']),
            ("extra_filters[]={job=\"a\"}&extra_filters[]=down", vec!['a', 'c']),
            ("extra_filters[]={job=\"a\"}&extra_filters=down&extra_label=job=c", vec!['c']),
            ("extra_filters[]={job!~\".*\"}", vec![]),
        ] {
            let separator = if path.contains('?') { '&' } else { '?' };
            let reply = get(&format!("/api/v1/{path}{separator}{asked}")).await;
            assert_eq!(
                (reply.status.as_u16(), jobs(&reply)),
                (200, shown),
                "{path} {asked}: {}",
                reply.text()
            );
        }
        for asked in ["extra_label=job", "extra_filters[]={", "extra_filters[]={}"] {
            let separator = if path.contains('?') { '&' } else { '?' };
            let reply = get(&format!("/api/v1/{path}{separator}{asked}")).await;
            assert_eq!(reply.status, 400, "{path} {asked}: {}", reply.text());
            assert!(reply.text().contains("extra_"), "{path} {asked}: {}", reply.text());
        }
    }
    // In a form, too.
    let posted = app.post("/api/v1/series", "match[]=%7Bjob!=%22%22%7D&extra_label=job%3Dc").await;
    assert_eq!(jobs(&posted), ['c'], "{}", posted.text());
    let metadata = get("/api/v1/metadata?extra_label=job=c").await;
    assert!(metadata.text().contains("down") && !metadata.text().contains("up?"), "{}", metadata.text());
    let exemplars = get("/api/v1/query_exemplars?query=up&start=0&end=9&extra_label=job=b").await;
    exemplars.is_success(&json!([]));
    let names = get("/api/v1/labels?extra_label=job=a").await;
    names.is_success(&json!(["__name__", "job"]));
    let counted = get("/api/v1/status/tsdb?extra_label=job=a").await;
    assert_eq!(counted.json()["data"]["headStats"]["numSeries"], 1, "{}", counted.text());
    let estimate = get("/api/v1/query/estimate?query=up&time=6&extra_label=job=a").await;
    assert_eq!(estimate.json()["data"]["series"], 1, "{}", estimate.text());
}

#[tokio::test]
async fn deletes_narrow_too() {
    let app = TestApp::start().await;
    let path = "/api/v1/admin/tsdb/delete_series?match[]=up&extra_label=job%3Da";
    assert_eq!(app.post(path, "").await.status, 204);
    let left = app.get("/api/v1/label/job/values").await;
    left.is_success(&json!(["b", "c"]));
    let refused = app.post("/api/v1/admin/tsdb/clean_tombstones?extra_label=job%3Da", "").await;
    assert_eq!(refused.status, 403, "{}", refused.text());
}

#[tokio::test]
async fn a_query_is_estimated_by_its_selectors() {
    let app = TestApp::computing().await;
    let reply = app.get("/api/v1/query/estimate?query=sum(up)%2Bdown%20offset%201s&time=6").await;
    let data = reply.json()["data"].clone();
    assert_eq!(
        (&data["series"], &data["samples"], &data["points"]),
        (&json!(3), &json!(3), &json!(1)),
        "{data}"
    );
    assert_eq!(data["limits"], json!([]));
    let bytes = data["bytes"].as_u64().unwrap();
    assert!((3 * 16..1000).contains(&bytes), "{bytes}");
    let selectors = data["selectors"].as_array().unwrap();
    let told: Vec<_> = selectors.iter().map(|s| (&s["selector"], &s["series"], &s["end"])).collect();
    assert_eq!(
        told,
        [
            (&json!("{__name__=\"up\"}"), &json!(2), &json!(6.0)),
            (&json!("{__name__=\"down\"}"), &json!(1), &json!(5.0))
        ]
    );
    let reply = app.post("/api/v1/query/estimate", "query=up&start=0&end=10&step=1").await;
    assert_eq!(reply.json()["data"]["points"], 11, "{}", reply.text());
    let nothing = app.get("/api/v1/query/estimate?query=1%2B1").await;
    let data = nothing.json()["data"].clone();
    assert_eq!((&data["samples"], &data["selectors"]), (&json!(0), &json!([])), "{data}");
    for (path, why) in [
        ("query=up&start=1&step=1", "invalid parameter \"end\": cannot parse \"\" to a valid timestamp"),
        (
            "query=up&start=2&end=1&step=1",
            "invalid parameter \"end\": end timestamp must not be before start time",
        ),
        (
            "query=up&time=x",
            r#"invalid parameter "time": Invalid time value for 'time': cannot parse "x" to a valid timestamp"#,
        ),
    ] {
        app.get(&format!("/api/v1/query/estimate?{path}")).await.is_error(400, "bad_data", why);
    }
    for path in ["query=sum(", "query=", "query=up[5m]&start=0&end=1&step=1"] {
        let reply = app.get(&format!("/api/v1/query/estimate?{path}")).await;
        assert_eq!(reply.status, 400, "{path}: {}", reply.text());
    }
}

#[tokio::test]
async fn an_estimate_tells_which_limits_a_query_would_meet() {
    let limits = TenantLimits::unlimited()
        .with(Limit::QuerySeries, 1)
        .with(Limit::QuerySamples, 1)
        .with(Limit::QueryBytes, 10)
        .with(Limit::QueryPoints, 5)
        .with(Limit::QueryRange, 5_000);
    let app = TestApp::built(GatewayConfig::default(), Rules::of(limits), |storage, clock| {
        Arc::new(Engine::new(storage, EngineOptions::default(), clock).unwrap())
    })
    .await;
    let reply = app.get("/api/v1/query/estimate?query=up&start=0&end=10&step=1").await;
    let data = reply.json()["data"].clone();
    let limits: Vec<_> =
        data["limits"].as_array().unwrap().iter().map(|l| (&l["name"], &l["asked"])).collect();
    let bytes = &data["bytes"];
    assert_eq!(
        limits,
        [
            (&json!("max_query_points"), &json!(11)),
            (&json!("max_query_series"), &json!(2)),
            (&json!("max_query_samples"), &json!(2)),
            (&json!("max_query_bytes"), bytes),
            (&json!("max_query_range"), &json!("10s")),
        ],
        "{data}"
    );
}

#[tokio::test]
async fn a_snapshot_is_refused_where_there_is_none_to_make() {
    let app = TestApp::start().await;
    let reply = app.post("/api/v1/admin/tsdb/snapshot", "").await;
    reply.is_error(503, "unavailable", "what is in memory alone has no snapshots");
    let reply = app.call("PUT", "/api/v1/admin/tsdb/snapshot?skip_head=x", &[], "").await;
    reply.is_error(
        400,
        "bad_data",
        "invalid parameter \"skip_head\": unable to parse boolean: strconv.ParseBool: parsing \"x\": invalid syntax",
    );
    assert_eq!(app.get("/api/v1/admin/tsdb/snapshot").await.status, 405);
}
