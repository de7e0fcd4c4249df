//! The API as it is on the wire: every endpoint once as it is meant, and what is asked of it amiss.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    patience::wait_for,
    server::{Options, Series, Server, field, now_ms, remote_write, varint},
};

const STALE: u64 = 0x7ff0_0000_0000_0002;
const V1: &str = "application/x-protobuf";
const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// What came back, to the byte.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| *n == name);
        line.map(|(_, value)| value)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Samples, histograms and exemplars written, as the headers say.
    fn written(&self) -> [Option<&str>; 3] {
        ["samples", "histograms", "exemplars"]
            .map(|kind| self.header(&format!("x-prometheus-remote-write-{kind}-written")))
    }
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Reads what comes until the server hangs up.
fn receive(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let split = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer has a head") + 4;
    let head = String::from_utf8(bytes[..split].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let chunked = head.contains("transfer-encoding: chunked");
    let body = if chunked { join_chunks(&bytes[split..]) } else { bytes[split..].to_vec() };
    Answer { status, head, body }
}

fn join_chunks(mut rest: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 2 + size + 2..];
    }
}

fn head(method: &str, path: &str, headers: &[(&str, &str)], length: usize) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        head.push_str("Host: localhost\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if length > 0 || method == "POST" {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    head + "\r\n"
}

fn send(server: &Server, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = connect(server);
    stream.write_all(head(method, path, headers, body.len()).as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    receive(stream)
}

fn get(server: &Server, path: &str) -> Answer {
    send(server, "GET", path, &[], b"")
}

fn write(server: &Server, content_type: &str, encoding: &str, body: &[u8]) -> Answer {
    let headers = [("Content-Type", content_type), ("Content-Encoding", encoding)];
    send(server, "POST", "/api/v1/write", &headers, body)
}

fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Series {
    let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    (labels, samples.to_vec())
}

/// A remote write 2.0 request of one series per metric name, each with one sample.
fn remote_write2(metrics: &[(&str, i64, f64)]) -> Vec<u8> {
    let mut request = Vec::new();
    for symbol in ["", "__name__"].into_iter().chain(metrics.iter().map(|(name, ..)| *name)) {
        field(&mut request, 4, symbol.as_bytes());
    }
    for (i, (name, timestamp, value)) in metrics.iter().enumerate() {
        let mut message = Vec::new();
        let mut refs = Vec::new();
        if !name.is_empty() {
            varint(&mut refs, 1);
            varint(&mut refs, i as u64 + 2);
        }
        field(&mut message, 1, &refs);
        let mut sample = vec![1 << 3 | 1];
        sample.extend(value.to_le_bytes());
        sample.push(2 << 3);
        varint(&mut sample, timestamp.cast_unsigned());
        field(&mut message, 2, &sample);
        field(&mut request, 5, &message);
    }
    snap::raw::Encoder::new().compress_vec(&request).unwrap()
}

/// A server that holds `up{job="a"}` 1 and `up{job="b"}` 0, both at the returned second.
fn server_with_up() -> (tempfile::TempDir, Server, i64) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &Options::default());
    let at = now_ms() / 1000 - 10;
    let body = remote_write(&[
        series(&[("__name__", "up"), ("job", "a")], &[(at * 1000, 1.0)]),
        series(&[("__name__", "up"), ("job", "b")], &[(at * 1000, 0.0)]),
    ]);
    assert_eq!(write(&server, V1, "snappy", &body).status, 204);
    (dir, server, at)
}

#[test]
fn every_endpoint_answers() {
    let (_dir, server, at) = server_with_up();
    let vector = json!({"resultType": "vector", "result": [
        {"metric": {"__name__": "up", "job": "a"}, "value": [at, "1"]},
        {"metric": {"__name__": "up", "job": "b"}, "value": [at, "0"]},
    ]});
    let matrix = json!({"resultType": "matrix", "result": [
        {"metric": {}, "values": [[at, "1"], [at + 1, "1"]]},
    ]});
    let a = json!({"__name__": "up", "job": "a"});
    for (path, data) in [
        (format!("/api/v1/query?query=up&time={at}"), vector.clone()),
        (format!("/prometheus/api/v1/query?query=up&time={at}"), vector),
        (format!("/api/v1/query_range?query=sum(up)&start={at}&end={}&step=1", at + 1), matrix),
        (format!("/api/v1/query_exemplars?query=up&start={at}&end={at}"), json!([])),
        ("/api/v1/format_query?query=a%2Bb".to_owned(), json!("a + b")),
        ("/api/v1/series?match[]=up%7Bjob=%22a%22%7D&match[]=none".to_owned(), json!([a])),
        ("/api/v1/labels".to_owned(), json!(["__name__", "job"])),
        ("/api/v1/label/job/values".to_owned(), json!(["a", "b"])),
        ("/api/v1/label/U__job/values?match[]=up%7Bjob!=%22a%22%7D".to_owned(), json!(["b"])),
        ("/api/v1/metadata".to_owned(), json!({})),
        ("/api/v1/rules".to_owned(), json!({"groups": []})),
        ("/api/v1/alerts".to_owned(), json!({"alerts": []})),
    ] {
        let answer = get(&server, &path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{path}");
        assert_eq!(answer.json(), json!({"status": "success", "data": data}), "{path}");
        let head = send(&server, "HEAD", &path, &[], b"");
        assert_eq!((head.status, head.text().as_str()), (200, ""), "{path}");
    }
    for path in ["/", "/-/healthy", "/-/ready", "/health/live", "/health/ready", "/api/v1/health", "/metrics"]
    {
        for method in ["GET", "HEAD"] {
            let answer = send(&server, method, path, &[], b"");
            assert_eq!((answer.status, answer.body.is_empty()), (200, method == "HEAD"), "{method} {path}");
        }
    }
    let built = get(&server, "/api/v1/status/buildinfo").json();
    assert_eq!(built["data"]["version"], "3.14.0");
    assert!(built["data"].get("features").is_none(), "with features Grafana takes us for Mimir: {built}");
    assert_eq!(get(&server, "/api/v1/status/storage").json()["data"]["activeSeries"], 2);
    assert_eq!(get(&server, "/api/v1/status/tsdb").json()["data"]["headStats"]["numSeries"], 2);
    for path in ["/flush", "/delete_series?match[]=up%7Bjob=%22b%22%7D", "/clean_tombstones"] {
        let answer = send(&server, "POST", &format!("/api/v1/admin/tsdb{path}"), &[], b"");
        assert_eq!((answer.status, answer.text().as_str()), (204, ""), "{path}");
    }
    assert_eq!(get(&server, "/api/v1/label/job/values").json()["data"], json!(["a"]));
    assert!(server.terminate().success());
}

#[test]
fn a_form_may_come_in_the_body_and_in_the_address() {
    let (_dir, server, at) = server_with_up();
    let expected = get(&server, &format!("/api/v1/query?query=up%20%3E%200&time={at}")).json();
    assert_eq!(expected["data"]["result"][0]["metric"]["job"], "a");
    let path = format!("/api/v1/query?time={at}&query=down");
    for (content_type, body) in [
        ("application/x-www-form-urlencoded", "query=up+%3E+0"),
        ("application/x-www-form-urlencoded; charset=utf-8", "query=up%20>%200"),
        ("", "query=up+>+0"),
        ("", "query=up > 0"),
    ] {
        let headers = [("Content-Type", content_type)];
        let headers = if content_type.is_empty() { &[][..] } else { &headers[..] };
        let answer = send(&server, "POST", &path, headers, body.as_bytes());
        assert_eq!(answer.json(), expected, "{content_type} {body}");
    }
}

#[test]
fn bad_requests_are_told_in_prometheus_words() {
    let (_dir, server, _) = server_with_up();
    for (path, error) in [
        ("query?query=1%2B", r#"invalid parameter "query": 1:3: parse error: unexpected end of input"#),
        (
            "query?query=up%7B",
            r#"invalid parameter "query": 1:4: parse error: unexpected end of input inside braces"#,
        ),
        (
            "query",
            r#"invalid parameter "query": unknown position: parse error: no expression found in input"#,
        ),
        (
            "query?query=up&time=x",
            r#"invalid parameter "time": Invalid time value for 'time': cannot parse "x" to a valid timestamp"#,
        ),
        ("query?query=up&timeout=x", r#"invalid parameter "timeout": cannot parse "x" to a valid duration"#),
        ("query?query=up&limit=x", r#"invalid parameter "limit": strconv.Atoi: parsing "x": invalid syntax"#),
        ("labels?limit=-1", r#"invalid parameter "limit": limit must be non-negative"#),
        (
            "query?query=up&lookback_delta=x",
            r#"error parsing lookback delta duration: cannot parse "x" to a valid duration"#,
        ),
        (
            "query_range?query=up&start=0&end=11001&step=1",
            "exceeded maximum resolution of 11,000 points per timeseries. \
             Try decreasing the query resolution (?step=XX)",
        ),
        (
            "query_range?query=up&start=2&end=1&step=1",
            r#"invalid parameter "end": end timestamp must not be before start time"#,
        ),
        (
            "query_range?query=up&start=1&end=2&step=0",
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. \
             Try a positive integer",
        ),
        ("series", "no match[] parameter provided"),
        (
            "series?match[]=%7B%7D",
            r#"invalid parameter "match[]": match[] must contain at least one non-empty matcher"#,
        ),
        ("label//values", r#"invalid label name: """#),
        ("query?query=%zz", r#"error parsing form values: invalid URL escape "%zz""#),
    ] {
        let answer = get(&server, &format!("/api/v1/{path}"));
        let expected = json!({"status": "error", "errorType": "bad_data", "error": error});
        assert_eq!((answer.status, answer.json()), (400, expected), "{path}");
    }
    for (method, path, status, kind) in [
        ("GET", "/api/v1/query?query=up%20*%20on()%20up", 422, "execution"),
        ("GET", "/api/v1/query?query=up&timeout=0", 503, "timeout"),
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("DELETE", "/api/v1/query", 405, "method_not_allowed"),
        ("POST", "/api/v1/label/job/values", 405, "method_not_allowed"),
        ("GET", "/api/v1/write", 405, "method_not_allowed"),
    ] {
        let answer = send(&server, method, path, &[], b"");
        assert_eq!((answer.status, &answer.json()["errorType"]), (status, &json!(kind)), "{method} {path}");
    }
    let cut = get(&server, "/api/v1/query_range?query=up&start=0&end=11000&step=1");
    assert_eq!(cut.status, 200, "{}", cut.text());
}

#[test]
fn remote_write_answers_as_its_table_says() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &Options::default());
    let now = now_ms();
    let v1 = remote_write(&[series(&[("__name__", "one")], &[(now, 1.0)])]);
    let v2 = remote_write2(&[("two", now, 2.0)]);
    let all = [Some("1"), Some("0"), Some("0")];
    let none = [Some("0"), Some("0"), Some("0")];

    for path in ["/api/v1/write", "/api/v1/push", "/api/v1/receive", "/prometheus/api/v1/write"] {
        for (content_type, body) in [(V1, &v1), (V2, &v2)] {
            let headers = [("Content-Type", content_type), ("Content-Encoding", "snappy")];
            let answer = send(&server, "POST", path, &headers, body);
            assert_eq!((answer.status, answer.written(), answer.text().as_str()), (204, all, ""), "{path}");
        }
    }

    let partial = [
        (
            V1,
            remote_write(&[
                series(&[("job", "a")], &[(now, 1.0)]),
                series(&[("__name__", "x")], &[(now, 1.0)]),
            ]),
            "{job=\"a\"}: the series has no metric name",
        ),
        (V2, remote_write2(&[("", now, 1.0), ("y", now, 1.0)]), "{}: the series has no metric name"),
    ];
    for (content_type, body, why) in partial {
        let answer = write(&server, content_type, "snappy", &body);
        assert_eq!((answer.status, answer.written()), (400, all), "{content_type}");
        assert!(answer.text().contains(why), "{}", answer.text());
        assert!(answer.header("content-type").unwrap().starts_with("text/plain"), "{}", answer.head);
    }
    for kept in ["one", "two", "x", "y"] {
        let found = get(&server, &format!("/api/v1/series?match[]={kept}")).json();
        assert_eq!(found["data"], json!([{"__name__": kept}]));
    }

    for (content_type, encoding) in [
        ("application/json", "snappy"),
        ("image/png", "snappy"),
        ("application/x-protobuf;proto=x", "snappy"),
        (V1, "gzip"),
        (V2, "zstd"),
    ] {
        let answer = write(&server, content_type, encoding, &v1);
        assert_eq!((answer.status, answer.written()), (415, [None; 3]), "{content_type} {encoding}");
    }
    for content_type in [V1, V2] {
        for body in
            [&b""[..], b"\xff\xff\xff\xff\xff\xff", b"\x05hello", &v2[..v2.len() - 3], &v1[..v1.len() - 3]]
        {
            let answer = write(&server, content_type, "snappy", body);
            assert_eq!((answer.status, answer.written()), (400, none), "{content_type} {body:?}");
        }
        // Says that it holds 64 MiB.
        let answer = write(&server, content_type, "snappy", &[0x80, 0x80, 0x80, 0x20, 0, 0]);
        assert_eq!((answer.status, answer.written()), (413, none), "{content_type}");
    }
    let mut announced = connect(&server);
    announced.write_all(head("POST", "/api/v1/write", &[], 1 << 40).as_bytes()).unwrap();
    assert_eq!(receive(announced).status, 413);
}

#[test]
fn stale_markers_are_kept_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &Options::default());
    let at = now_ms() / 1000 - 10;
    let (first, second) = (at * 1000, at * 1000 + 1000);
    let stale = f64::from_bits(STALE);
    let body = remote_write(&[series(&[("__name__", "one")], &[(first, 1.0), (second, stale)])]);
    assert_eq!(write(&server, V1, "snappy", &body).status, 204);
    for (timestamp, value) in [(first, 1.0), (second, stale)] {
        let body = remote_write2(&[("two", timestamp, value)]);
        assert_eq!(write(&server, V2, "snappy", &body).status, 204);
    }
    // Another NaN is a value like any other.
    let body = remote_write(&[series(&[("__name__", "odd")], &[(first, 1.0), (second, f64::NAN)])]);
    assert_eq!(write(&server, V1, "snappy", &body).status, 204);

    let check = |server: &Server| {
        for (name, raw, last) in [
            ("one", json!([[at, "1"]]), json!([])),
            ("two", json!([[at, "1"]]), json!([])),
            (
                "odd",
                json!([[at, "1"], [at + 1, "NaN"]]),
                json!([{"metric": {"__name__": "odd"}, "value": [at + 2, "NaN"]}]),
            ),
        ] {
            let found = get(server, &format!("/api/v1/query?query={name}%5B1m%5D&time={}", at + 2)).json();
            assert_eq!(found["data"]["result"][0]["values"], raw, "{name}");
            let found = get(server, &format!("/api/v1/query?query={name}&time={}", at + 2)).json();
            assert_eq!(found["data"]["result"], last, "{name}");
        }
    };
    check(&server);
    assert_eq!(send(&server, "POST", "/api/v1/admin/tsdb/flush", &[], b"").status, 204);
    check(&server);
    assert!(server.terminate().success());
    check(&Server::start(dir.path(), &Options::default()));
}

#[test]
fn web_pages_and_strangers_names_are_kept_out() {
    let (_dir, server, _) = server_with_up();
    let path = "/api/v1/query?query=up";
    for headers in [
        [("Origin", "http://evil.example")],
        [("Origin", "null")],
        [("Host", "evil.example")],
        [("Sec-Fetch-Site", "cross-site")],
    ] {
        for (method, path) in [("GET", path), ("POST", "/api/v1/admin/tsdb/delete_series?match[]=up")] {
            let answer = send(&server, method, path, &headers, b"");
            assert_eq!(
                (answer.status, &answer.json()["errorType"]),
                (403, &json!("forbidden")),
                "{headers:?}"
            );
            assert!(!answer.head.contains("access-control"), "{}", answer.head);
        }
    }
    let own = format!("127.0.0.1:{}", server.port);
    let answer = send(&server, "GET", path, &[("Host", &own), ("Origin", &format!("http://{own}"))], b"");
    assert_eq!(answer.status, 200);
    assert!(!answer.head.contains("access-control"), "{}", answer.head);
}

#[test]
fn tenants_are_told_apart_by_their_header() {
    let (_dir, server, at) = server_with_up();
    let labels = |tenant: &str| send(&server, "GET", "/api/v1/labels", &[("X-Scope-OrgID", tenant)], b"");
    assert_eq!(labels("team-a").json()["data"], json!([]));
    assert_eq!(labels("anonymous").json()["data"], json!(["__name__", "job"]));
    let body = remote_write(&[series(&[("__name__", "mine")], &[(at * 1000, 1.0)])]);
    assert_eq!(server.try_write(&body, Some("team-a")).unwrap().0, 204);
    assert_eq!(labels("team-a").json()["data"], json!(["__name__"]));
    assert_eq!(get(&server, "/api/v1/query?query=mine").json()["data"]["result"], json!([]));
    for bad in ["a/b", "..", "", "a b"] {
        assert_eq!(labels(bad).status, 400, "{bad:?}");
    }
}

#[test]
fn large_answers_are_compressed_for_who_can_read_that() {
    let (_dir, server, _) = server_with_up();
    let plain = get(&server, "/metrics");
    assert_eq!(plain.header("content-encoding"), None);
    let gzip = send(&server, "GET", "/metrics", &[("Accept-Encoding", "gzip")], b"");
    assert_eq!(gzip.header("content-encoding"), Some("gzip"));
    assert!(gzip.body.starts_with(b"\x1f\x8b") && gzip.body.len() * 2 < plain.body.len());
    let zstd = send(&server, "GET", "/metrics", &[("Accept-Encoding", "zstd")], b"");
    assert_eq!(zstd.header("content-encoding"), Some("zstd"));
    assert!(zstd.body.starts_with(b"\x28\xb5\x2f\xfd") && zstd.body.len() * 2 < plain.body.len());
    assert!(plain.text().contains("luminate_write_requests_total{status=\"204\"} 1"), "{}", plain.text());
}

#[test]
fn a_write_that_has_begun_when_the_server_is_told_to_stop_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &Options::default());
    let at = now_ms() - 1000;
    let body = remote_write(&[series(&[("__name__", "late")], &[(at, 1.0)])]);
    let mut stream = connect(&server);
    let headers = [("Content-Type", V1), ("Content-Encoding", "snappy")];
    stream.write_all(head("POST", "/api/v1/write", &headers, body.len()).as_bytes()).unwrap();
    stream.write_all(&body[..3]).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    server.ask_to_stop();
    // Who asks is told that no more is wanted, as long as there is something left to do.
    wait_for("not to be ready", || server.get("/-/ready").0 == 503);
    wait_for("to turn queries away", || server.get("/api/v1/query?query=1").0 == 503);
    stream.write_all(&body[3..]).unwrap();
    assert_eq!(receive(stream).status, 204);
    assert!(server.wait().success());
    let server = Server::start(dir.path(), &Options::default());
    let found = get(&server, "/api/v1/series?match[]=late").json();
    assert_eq!(found["data"], json!([{"__name__": "late"}]));
}

#[test]
fn a_crowd_of_connections_leaves_the_store_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &Options { open_files: Some(256), ..Options::default() });
    let body = remote_write(&[series(&[("__name__", "up")], &[(now_ms(), 1.0)])]);
    let headers = [("Content-Type", V1), ("Content-Encoding", "snappy")];
    // Two who come before the crowd, and say what they want after it.
    let (mut writes, mut flushes) = (connect(&server), connect(&server));
    writes.write_all(b"POST").unwrap();
    flushes.write_all(b"POST").unwrap();
    let _crowd: Vec<_> = (0..200).map(|_| connect(&server)).collect();
    std::thread::sleep(Duration::from_millis(200));
    writes.write_all(&head("POST", "/api/v1/write", &headers, body.len()).as_bytes()[4..]).unwrap();
    writes.write_all(&body).unwrap();
    assert_eq!(receive(writes).status, 204);
    flushes.write_all(&head("POST", "/api/v1/admin/tsdb/flush", &[], 0).as_bytes()[4..]).unwrap();
    assert_eq!(receive(flushes).status, 204);
}
