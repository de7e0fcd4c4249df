//! Every route with every kind of caller: what each is answered, word for word.
//!
//! The rows are the routes of the server itself, so a route that nobody thought about here fails the test.
//! The answers are in `tests/golden/roles.txt`.

use luminate::gateway::{
    ROUTES,
    wire::remote_read::{LabelMatcher, Query, ReadRequest, ReadResponse, TimeSeries},
};
use prost::Message as _;
use serde_json::json;

use crate::{
    golden,
    server::{Series, Server, remote_write},
    token::{self, claims, sign, with},
};

/// When the samples are, in milliseconds.
const AT: i64 = 1_700_000_000_000;

/// A way to ask a route something it can answer.
struct Row {
    /// The route, as the table has it.
    path: &'static str,
    /// Methods that it takes.
    methods: &'static [&'static str],
    /// What is really asked for, with its parameters.
    ask: &'static str,
    /// What is sent along.
    body: Body,
    /// What of the answer is always the same.
    steady: Steady,
}

#[derive(Clone, Copy)]
enum Body {
    None,
    Samples,
    Lines,
    Overrides,
    Read,
}

#[derive(Clone, Copy)]
enum Steady {
    /// All of it.
    Body,
    /// Only the status: the rest are figures.
    Status,
}

const fn row(
    path: &'static str,
    methods: &'static [&'static str],
    ask: &'static str,
    body: Body,
    steady: Steady,
) -> Row {
    Row { path, methods, ask, body, steady }
}

const BOTH: &[&str] = &["GET", "POST"];
const GET: &[&str] = &["GET"];
const POST: &[&str] = &["POST"];
const DELETE: &[&str] = &["DELETE"];
const ANY: &[&str] = &["GET", "POST", "DELETE"];
const PUT: &[&str] = &["POST", "PUT"];

const ROWS: &[Row] = &[
    row("/api/v1/write", POST, "/api/v1/write", Body::Samples, Steady::Body),
    row("/api/v1/push", POST, "/api/v1/push", Body::Samples, Steady::Body),
    row("/api/v1/receive", POST, "/api/v1/receive", Body::Samples, Steady::Body),
    row("/api/v1/import", POST, "/api/v1/import", Body::Lines, Steady::Body),
    row("/api/v1/query", BOTH, "/api/v1/query?query=up&time=1700000000", Body::None, Steady::Body),
    row(
        "/api/v1/query_range",
        BOTH,
        "/api/v1/query_range?query=up&start=1700000000&end=1700000001&step=1",
        Body::None,
        Steady::Body,
    ),
    row(
        "/api/v1/query/estimate",
        BOTH,
        "/api/v1/query/estimate?query=up&time=1700000000",
        Body::None,
        Steady::Body,
    ),
    row(
        "/api/v1/search/metric_names",
        BOTH,
        "/api/v1/search/metric_names?start=1699999999&end=1700000001",
        Body::None,
        Steady::Body,
    ),
    row(
        "/api/v1/search/label_names",
        BOTH,
        "/api/v1/search/label_names?start=1699999999&end=1700000001",
        Body::None,
        Steady::Body,
    ),
    row(
        "/api/v1/search/label_values",
        BOTH,
        "/api/v1/search/label_values?label=job&start=1699999999&end=1700000001",
        Body::None,
        Steady::Body,
    ),
    row(
        "/api/v1/query_exemplars",
        BOTH,
        "/api/v1/query_exemplars?query=up&start=1699999999&end=1700000001",
        Body::None,
        Steady::Body,
    ),
    row("/api/v1/series", BOTH, "/api/v1/series?match[]=up", Body::None, Steady::Body),
    row("/api/v1/labels", BOTH, "/api/v1/labels", Body::None, Steady::Body),
    row("/api/v1/label/{name}/values", GET, "/api/v1/label/job/values", Body::None, Steady::Body),
    row("/api/v1/metadata", GET, "/api/v1/metadata", Body::None, Steady::Body),
    row("/api/v1/export", BOTH, "/api/v1/export?match[]=up", Body::None, Steady::Body),
    row("/api/v1/export/plan", BOTH, "/api/v1/export/plan?match[]=up", Body::None, Steady::Body),
    row("/api/v1/read", POST, "/api/v1/read", Body::Read, Steady::Body),
    row("/federate", GET, "/federate?match[]=up", Body::None, Steady::Body),
    row("/api/v1/status/rejections", GET, "/api/v1/status/rejections", Body::None, Steady::Status),
    row("/api/v1/status/active_queries", GET, "/api/v1/status/active_queries", Body::None, Steady::Status),
    row(
        "/api/v1/status/active_queries/{id}",
        DELETE,
        "/api/v1/status/active_queries/0123456789abcdef",
        Body::None,
        Steady::Body,
    ),
    row("/api/v1/status/top_queries", GET, "/api/v1/status/top_queries", Body::None, Steady::Status),
    row("/api/v1/admin/active_queries", GET, "/api/v1/admin/active_queries", Body::None, Steady::Status),
    row(
        "/api/v1/admin/active_queries/{id}",
        DELETE,
        "/api/v1/admin/active_queries/0123456789abcdef",
        Body::None,
        Steady::Body,
    ),
    row("/api/v1/user_limits", GET, "/api/v1/user_limits", Body::None, Steady::Body),
    row(
        "/api/v1/user-overrides",
        ANY,
        "/api/v1/user-overrides?tenant=overridden",
        Body::Overrides,
        Steady::Body,
    ),
    row("/-/reload", PUT, "/-/reload", Body::None, Steady::Body),
    row("/api/v1/status/tsdb", GET, "/api/v1/status/tsdb", Body::None, Steady::Body),
    row("/api/v1/format_query", BOTH, "/api/v1/format_query?query=a%2Bb", Body::None, Steady::Body),
    row("/api/v1/parse_query", BOTH, "/api/v1/parse_query?query=-1", Body::None, Steady::Body),
    row("/api/v1/rules", GET, "/api/v1/rules", Body::None, Steady::Body),
    row("/api/v1/alerts", GET, "/api/v1/alerts", Body::None, Steady::Body),
    row("/api/v1/alertmanagers", GET, "/api/v1/alertmanagers", Body::None, Steady::Body),
    row("/api/v1/targets", GET, "/api/v1/targets", Body::None, Steady::Body),
    row("/api/v1/targets/metadata", GET, "/api/v1/targets/metadata", Body::None, Steady::Body),
    row("/api/v1/scrape_pools", GET, "/api/v1/scrape_pools", Body::None, Steady::Body),
    row("/api/v1/notifications", GET, "/api/v1/notifications", Body::None, Steady::Body),
    row("/api/v1/notifications/live", GET, "/api/v1/notifications/live", Body::None, Steady::Body),
    row("/api/v1/features", GET, "/api/v1/features", Body::None, Steady::Status),
    row("/api/v1/openapi.yaml", GET, "/api/v1/openapi.yaml", Body::None, Steady::Status),
    row("/api/v1/status/config", GET, "/api/v1/status/config", Body::None, Steady::Status),
    row("/api/v1/status/runtimeinfo", GET, "/api/v1/status/runtimeinfo", Body::None, Steady::Status),
    row("/api/v1/status/walreplay", GET, "/api/v1/status/walreplay", Body::None, Steady::Status),
    row("/api/v1/status/buildinfo", GET, "/api/v1/status/buildinfo", Body::None, Steady::Body),
    row(
        "/api/v1/admin/tsdb/delete_series",
        PUT,
        "/api/v1/admin/tsdb/delete_series?match[]=absent",
        Body::None,
        Steady::Body,
    ),
    row(
        "/api/v1/admin/tsdb/clean_tombstones",
        PUT,
        "/api/v1/admin/tsdb/clean_tombstones",
        Body::None,
        Steady::Body,
    ),
    row("/api/v1/admin/tsdb/snapshot", PUT, "/api/v1/admin/tsdb/snapshot", Body::None, Steady::Status),
    row("/api/v1/admin/tsdb/flush", POST, "/api/v1/admin/tsdb/flush", Body::None, Steady::Body),
    row("/api/v1/status/storage", GET, "/api/v1/status/storage", Body::None, Steady::Status),
    row("/health/deep", GET, "/health/deep", Body::None, Steady::Status),
    row("/metrics", GET, "/metrics", Body::None, Steady::Status),
    row("/api/v1/health", GET, "/api/v1/health", Body::None, Steady::Status),
    row("/-/healthy", GET, "/-/healthy", Body::None, Steady::Body),
    row("/-/ready", GET, "/-/ready", Body::None, Steady::Body),
    row("/health/live", GET, "/health/live", Body::None, Steady::Body),
    row("/health/ready", GET, "/health/ready", Body::None, Steady::Status),
    row("/health/startup", GET, "/health/startup", Body::None, Steady::Status),
    row("/", GET, "/", Body::None, Steady::Status),
];

/// A kind of caller: a name, its token if it has one, and the tenant it names if it does.
type Caller = (&'static str, Option<String>, Option<&'static str>);

fn callers() -> Vec<Caller> {
    let now = crate::server::now_ms() / 1000;
    let all = "read write delete";
    vec![
        ("no token", None, None),
        ("no token, names a tenant", None, Some("a")),
        ("expired", Some(sign(&with(claims("a", all), json!({"exp": now - 3600})))), None),
        ("wrong audience", Some(sign(&with(claims("a", all), json!({"aud": "others"})))), None),
        ("other tenant", Some(token::token("b", all)), None),
        ("other tenant, names ours", Some(token::token("b", all)), Some("a")),
        ("read-only", Some(token::token("a", "read")), None),
        ("write-only", Some(token::token("a", "write")), None),
        ("admin", Some(token::token("a", "admin")), None),
        ("admin of all", Some(sign(&with(claims("a", "admin"), json!({"tenant": ["a", "*"]})))), None),
        (
            "label-restricted",
            Some(sign(&with(
                claims("a", all),
                json!({"luminate": {"filters": ["{job=\"x\"}"], "labels": {"job": "x"}}}),
            ))),
            None,
        ),
        (
            "several tenants",
            Some(sign(&with(claims("a", "read"), json!({"tenant": ["a", "b"]})))),
            Some("a|b"),
        ),
    ]
}

fn write_what_all_start_from(server: &Server) {
    for (tenant, jobs) in [("a", ["x", "y"]), ("b", ["b-only", "b-too"])] {
        let series: Vec<Series> = jobs
            .iter()
            .map(|job| {
                let labels = [("__name__", "up"), ("job", job)].map(|(n, v)| (n.to_owned(), v.to_owned()));
                (labels.to_vec(), vec![(AT, 1.0)])
            })
            .collect();
        let token = token::token(tenant, "write");
        let (status, body) = ask(server, "POST", "/api/v1/write", Some(&token), None, &remote_write(&series));
        assert_eq!(status, 204, "{body}");
    }
}

/// Asks for all samples of `up`.
fn remote_read() -> Vec<u8> {
    let matcher = LabelMatcher { kind: 0, name: "__name__".to_owned(), value: "up".to_owned() };
    let query = Query { start_timestamp_ms: 0, end_timestamp_ms: AT, matchers: vec![matcher], hints: None };
    let request = ReadRequest { queries: vec![query], accepted_response_types: vec![] };
    snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap()
}

/// What of a body is text: an answer of remote read as what it says.
fn told(body: Vec<u8>) -> String {
    String::from_utf8(body).unwrap_or_else(|error| {
        let series = ReadResponse::read(error.as_bytes()).unwrap().results.remove(0).timeseries;
        let of = |series: &TimeSeries| {
            let labels: Vec<String> =
                series.labels.iter().map(|label| format!("{}={:?}", label.name, label.value)).collect();
            format!("{{{}}} {} samples", labels.join(","), series.samples.len())
        };
        series.iter().map(of).collect::<Vec<_>>().join(", ")
    })
}

fn ask(
    server: &Server,
    method: &str,
    path: &str,
    token: Option<&str>,
    tenant: Option<&str>,
    body: &[u8],
) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut request = ureq::http::Request::builder().method(method).uri(server.url(path));
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    if let Some(tenant) = tenant {
        request = request.header("X-Scope-OrgID", tenant);
    }
    let mut answer = if method == "GET" {
        agent.run(request.body(()).unwrap()).unwrap()
    } else {
        agent.run(request.body(body).unwrap()).unwrap()
    };
    (answer.status().as_u16(), told(answer.body_mut().read_to_vec().unwrap()))
}

#[test]
fn every_route_answers_every_kind_of_caller_as_written() {
    for route in ROUTES {
        assert!(
            ROWS.iter().any(|row| row.path == route.path),
            "{} has no row here: say how it is asked, and read what each caller is answered",
            route.path
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let server = token::start(folder.path());
    write_what_all_start_from(&server);

    let mut text = String::new();
    for row in ROWS {
        for method in row.methods {
            text.push_str(&format!("{method} {}\n", row.ask));
            for (name, token, tenant) in callers() {
                // What it writes is new for each, and looked at by no other row.
                let lines =
                    format!(r#"{{"metric":{{"__name__":"imported"}},"values":[1],"timestamps":[{AT}]}}"#);
                let samples = vec![(vec![("__name__".to_owned(), "written".to_owned())], vec![(AT, 1.0)])];
                let body = match row.body {
                    Body::None => Vec::new(),
                    Body::Samples => remote_write(&samples),
                    Body::Lines => lines.into_bytes(),
                    Body::Overrides => br#"{"max_label_names": 7}"#.to_vec(),
                    Body::Read => remote_read(),
                };
                let (status, body) = ask(&server, method, row.ask, token.as_deref(), tenant, &body);
                let body = match row.steady {
                    _ if status >= 400 => body,
                    Steady::Body => body,
                    Steady::Status => "…".to_owned(),
                };
                text.push_str(&format!("  {name}: {status} {}\n", body.trim_end().replace('\n', "\n    ")));
            }
            text.push('\n');
        }
    }
    golden::check("roles.txt", &text);
}

#[test]
fn head_and_options_and_other_methods_do_not_slip_past() {
    let folder = tempfile::tempdir().unwrap();
    let server = token::start(folder.path());
    for row in ROWS.iter().filter(|row| !row.path.starts_with("/health") && !row.path.starts_with("/-/")) {
        for method in ["HEAD", "OPTIONS", "DELETE", "PATCH", "PUT", "TRACE"] {
            let agent: ureq::Agent = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .allow_non_standard_methods(true)
                .build()
                .into();
            let request = ureq::http::Request::builder()
                .method(method)
                .uri(server.url(row.ask))
                .header("X-HTTP-Method-Override", row.methods[0]);
            let status = agent.run(request.body(()).unwrap()).unwrap().status().as_u16();
            let open = ["/", "/api/v1/health"].contains(&row.path);
            let harmless = status == 401 || status == 405 || method == "OPTIONS" && status == 204;
            assert!(harmless || open && status == 200, "{method} {}: {status}", row.ask);
        }
    }
}
