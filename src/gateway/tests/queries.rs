//! Queries: parameters, answers, notes, and failures.

use super::*;

const TWO_SERIES: &str = concat!(
    r#"{"status":"success","data":{"resultType":"vector","result":["#,
    r#"{"metric":{"__name__":"up","job":"a"},"value":[4,"1"]},"#,
    r#"{"metric":{"__name__":"up","job":"b"},"value":[4,"0"]}]}}"#
);

#[tokio::test]
async fn an_instant_query_is_answered_by_get_and_post_and_under_both_prefixes() {
    let app = TestApp::start().await;
    for prefix in ["/api/v1", "/prometheus/api/v1"] {
        let got = app.get(&format!("{prefix}/query?query=up&time=4")).await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, TWO_SERIES));
        assert_eq!(got.headers[header::CONTENT_TYPE], "application/json");
        let posted = app.post(&format!("{prefix}/query"), "query=up&time=4").await;
        assert_eq!(posted.text(), TWO_SERIES);
    }
}

#[tokio::test]
async fn grafanas_first_question_has_a_scalar_for_an_answer() {
    let app = TestApp::start().await;
    let reply = app.post("/api/v1/query", "query=1%2B1&time=4").await;
    assert_eq!(reply.text(), r#"{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}"#);
}

#[tokio::test]
async fn parameters_of_body_and_url_are_merged_and_the_body_wins() {
    let app = TestApp::start().await;
    let reply = app.post("/api/v1/query?query=nonsense&time=4", "query=up").await;
    assert_eq!(reply.text(), TWO_SERIES);
    // vmalert posts an empty body that it calls JSON.
    let vmalert =
        app.call("POST", "/api/v1/query?query=up&time=4", &[("content-type", "application/json")], "").await;
    assert_eq!(vmalert.text(), TWO_SERIES);
    let untyped = app.call("POST", "/api/v1/query", &[], "query=up&time=4").await;
    assert_eq!(untyped.text(), TWO_SERIES);
}

#[tokio::test]
async fn without_a_time_it_is_now() {
    let app = TestApp::start().await;
    let reply = app.get("/api/v1/query?query=1%2B1").await;
    assert_eq!(reply.json()["data"]["result"][0], json!(10));
}

#[tokio::test]
async fn a_range_query_is_answered() {
    let app = TestApp::start().await;
    let reply = app.post("/api/v1/query_range", "query=up&start=0&end=60&step=15s&limit=1").await;
    assert_eq!(
        reply.text(),
        concat!(
            r#"{"status":"success","data":{"resultType":"matrix","result":["#,
            r#"{"metric":{"job":"a"},"values":[[0,"1"],[60,"2.5"]]}]},"#,
            r#""warnings":["results truncated due to limit"]}"#
        )
    );
}

#[tokio::test]
async fn bad_query_parameters_are_named() {
    let app = TestApp::start().await;
    for (path, message) in [
        ("query?query=up(", r#"invalid parameter "query": 1:3: parse error: unexpected end of input"#),
        ("query", r#"invalid parameter "query": 1:3: parse error: unexpected end of input"#),
        (
            "query?query=up&time=x",
            r#"invalid parameter "time": Invalid time value for 'time': cannot parse "x" to a valid timestamp"#,
        ),
        ("query?query=up&timeout=x", r#"invalid parameter "timeout": cannot parse "x" to a valid duration"#),
        (
            "query?query=up&lookback_delta=x",
            r#"error parsing lookback delta duration: cannot parse "x" to a valid duration"#,
        ),
        ("query?query=up&limit=-1", r#"invalid parameter "limit": limit must be non-negative"#),
        ("query?query=%zz", r#"error parsing form values: invalid URL escape "%zz""#),
        (
            "query_range?query=up&end=1&step=1",
            r#"invalid parameter "start": cannot parse "" to a valid timestamp"#,
        ),
        (
            "query_range?query=up&start=0&end=1",
            r#"invalid parameter "step": cannot parse "" to a valid duration"#,
        ),
        (
            "query_range?query=up&start=2&end=1&step=1",
            r#"invalid parameter "end": end timestamp must not be before start time"#,
        ),
        (
            "query_range?query=up&start=0&end=1&step=0",
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. \
             Try a positive integer",
        ),
        (
            "query_range?query=up&start=0&end=11001&step=1",
            "exceeded maximum resolution of 11,000 points per timeseries. \
             Try decreasing the query resolution (?step=XX)",
        ),
        (
            "query_range?query=up%5B5m%5D&start=0&end=1&step=1",
            "invalid parameter \"query\": invalid expression type \"range vector\" for range query, \
             must be Scalar or instant Vector",
        ),
    ] {
        app.get(&format!("/api/v1/{path}")).await.is_error(400, "bad_data", message);
    }
}

#[tokio::test]
async fn failures_of_the_evaluation_have_their_statuses() {
    let app = TestApp::start().await;
    let ask = async |query: &str| app.get(&format!("/api/v1/query?query={query}")).await;
    ask("m:n").await.is_error(422, "execution", "many-to-many matching not allowed");
    ask("slow").await.is_error(503, "timeout", "query timed out in expression evaluation");
    ask("slow&timeout=0.01").await.is_error(503, "timeout", "query timed out in expression evaluation");
    for query in ["damaged", "panic"] {
        let reply = ask(query).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["errorType"]), (500, &json!("internal")));
        for hidden in ["secret", "fell over"] {
            assert!(!reply.text().contains(hidden), "{}", reply.text());
        }
    }
}

#[tokio::test]
async fn notes_stats_and_lookback_go_through() {
    let app = TestApp::start().await;
    let noted = app.get("/api/v1/query?query=noted&time=0").await;
    assert!(
        noted
            .text()
            .ends_with(r#""warnings":["PromQL warning: a\u003cb (1:1)"],"infos":["PromQL info: c (1:1)"]}"#),
        "{}",
        noted.text()
    );
    let stats = app.get("/api/v1/query?query=1%2B1&stats=all").await.json();
    assert_eq!(stats["data"]["stats"]["samples"]["totalQueryableSamplesPerStep"], json!([]));
    assert!(stats.get("warnings").is_none());
    let odd = app.get("/api/v1/query?query=1%2B1&stats=1").await.json();
    assert!(odd["data"]["stats"]["samples"].is_object(), "{odd}");
    assert_eq!(
        odd["warnings"],
        json!([concat!(
            "value \"1\" for parameter \"stats\" is deprecated and will be rejected in the next major ",
            "release, use \"true\" or \"all\""
        )])
    );
    let lookback = app.get("/api/v1/query?query=lookback&time=0&lookback_delta=1m").await.json();
    assert_eq!(lookback["data"]["result"], json!([0, "Some(60000)"]));
}

#[tokio::test]
async fn what_is_stored_is_computed_with() {
    let app = TestApp::computing().await;
    let data = async |path: &str| app.get(&format!("/api/v1/{path}")).await.json()["data"].clone();
    assert_eq!(
        data("query?query=sum%20by%20(job)%20(up)&time=6").await["result"],
        json!([{"metric": {"job": "b"}, "value": [6, "1"]}, {"metric": {"job": "a"}, "value": [6, "1"]}])
    );
    assert_eq!(
        data("query_range?query=count(up)&start=0&end=10&step=5").await,
        json!({"resultType": "matrix", "result": [{"metric": {}, "values": [[5, "2"], [10, "2"]]}]})
    );
    assert_eq!(data("query?query=up%5B10s%5D&time=6&limit=1").await["result"].as_array().unwrap().len(), 1);
    app.get("/api/v1/query").await.is_error(
        400,
        "bad_data",
        r#"invalid parameter "query": unknown position: parse error: no expression found in input"#,
    );
    app.get("/api/v1/query_range?query=up%5B5m%5D&start=0&end=1&step=1").await.is_error(
        400,
        "bad_data",
        "invalid parameter \"query\": invalid expression type \"range vector\" for range query, \
         must be Scalar or instant Vector",
    );
}
