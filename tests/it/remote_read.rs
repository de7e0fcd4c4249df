//! Debian's Prometheus reads from Luminate by remote read, and Luminate's chunks are those that Prometheus sends itself.

use std::io::Read;

use luminate::{
    gateway::wire::{
        chunk::{self, Encoding},
        remote_read::{
            ChunkedReadResponse, Label, LabelMatcher, Query, ReadRequest, ReadResponse, Sample, TimeSeries,
            read_frames,
        },
    },
    ingest::HistogramMessage,
    model::{
        Histogram,
        histogram::{Counts, ResetHint, Span},
        stale_nan,
    },
    storage::SeriesSamples,
};
use prost::Message as _;
use serde_json::Value;

use crate::{
    prometheus::Prometheus,
    server::{Options, api, api_as, have},
    token,
};

/// When the data begin: a day that does not move.
const START: i64 = 1_772_325_000_000;

/// How far samples are apart.
const STEP: i64 = 10_000;

/// Samples of a series: more than two chunks of them.
const COUNT: i64 = 250;

/// When they end.
const END: i64 = START + COUNT * STEP;

/// Who reads and writes.
const TENANT: &str = "a";

/// `prometheus.WriteRequest`, whose series are those of remote read.
#[derive(Clone, PartialEq, prost::Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

fn labels(name: &str, number: usize) -> Vec<Label> {
    let pairs = [("__name__", name.to_owned()), ("job", "remote".to_owned()), ("n", format!("{number:02}"))];
    pairs.map(|(name, value)| Label { name: name.to_owned(), value }).to_vec()
}

/// Values that a chunk writes in different ways.
fn value(number: usize, i: i64) -> f64 {
    let x = i as f64;
    match number % 8 {
        0 => x,
        1 => 1.0,
        2 => x * 0.1,
        3 => (x * 12.9898).sin() * 43758.5453,
        4 => [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -0.0, f64::MAX, 5e-324]
            [(i % 6).unsigned_abs() as usize],
        5 if i % 50 == 49 => stale_nan(),
        5 => x,
        6 => (i % 7) as f64 * 1e18,
        _ => 1e6 + (i * i % 1013) as f64,
    }
}

/// When: regular, late by some milliseconds, with gaps.
fn time(number: usize, i: i64) -> i64 {
    let late = match number % 4 {
        0 => 0,
        1 => i * 7919 % 997,
        2 => (i / 10) % 2 * 9_000,
        _ => i * i % 3_001,
    };
    START + 1 + i * STEP + late
}

fn floats() -> Vec<TimeSeries> {
    let series = |number| TimeSeries {
        labels: labels("floats", number),
        samples: (0..COUNT).map(|i| Sample { value: value(number, i), timestamp: time(number, i) }).collect(),
        histograms: vec![],
    };
    (0..32).map(series).collect()
}

fn histogram(number: usize, i: i64) -> Histogram {
    // Counters, half of which begin again. Gauges are not among them: where they go down, a stream of 2.42 breaks off
    // with `detected unexpected counter reset in histogram`.
    let grown = if number % 2 == 1 { i } else { i % (COUNT / 2) };
    let counts = if number < 2 {
        Counts::Integer {
            count: (grown * 5 + 2).cast_unsigned(),
            zero_count: 2,
            positive: vec![grown, grown, -grown],
            negative: vec![grown],
        }
    } else {
        let x = grown as f64 * 0.3;
        Counts::Float {
            count: x * 5.0 + 0.5,
            zero_count: 0.5,
            positive: vec![x, x, x],
            negative: vec![x * 2.0],
        }
    };
    Histogram {
        schema: 2,
        zero_threshold: 2_f64.powi(-128),
        sum: grown as f64 * 1.1,
        reset_hint: ResetHint::Unknown,
        positive_spans: vec![Span { offset: -1, length: 1 }, Span { offset: 3, length: 2 }],
        negative_spans: vec![Span { offset: 4, length: 1 }],
        counts,
        custom_values: vec![],
    }
}

fn histograms() -> Vec<TimeSeries> {
    let series = |number| TimeSeries {
        labels: labels("histograms", number),
        samples: vec![],
        histograms: (0..COUNT)
            .map(|i| HistogramMessage::new(&histogram(number, i), time(number, i), 0))
            .collect(),
    };
    (0..4).map(series).collect()
}

/// Sends a body, and gives the answer's.
fn post(base: &str, path: &str, token: Option<&str>, plain: &[u8]) -> Vec<u8> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut request = agent
        .post(format!("{base}{path}"))
        .header("Content-Type", "application/x-protobuf")
        .header("Content-Encoding", "snappy");
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}")).header("X-Scope-OrgID", TENANT);
    }
    let mut answer = request.send(snap::raw::Encoder::new().compress_vec(plain).unwrap()).unwrap();
    let mut body = Vec::new();
    answer.body_mut().as_reader().read_to_end(&mut body).unwrap();
    assert!(answer.status().is_success(), "{path}: {}: {}", answer.status(), String::from_utf8_lossy(&body));
    body
}

fn write(base: &str, token: Option<&str>, series: Vec<TimeSeries>) {
    // In slices of time, as it is written where somebody watches.
    for slice in 0..5_i64 {
        let part =
            (slice * COUNT / 5).unsigned_abs() as usize..((slice + 1) * COUNT / 5).unsigned_abs() as usize;
        let of_slice = series.iter().map(|one| TimeSeries {
            labels: one.labels.clone(),
            samples: one.samples.get(part.clone()).map(<[_]>::to_vec).unwrap_or_default(),
            histograms: one.histograms.get(part.clone()).map(<[_]>::to_vec).unwrap_or_default(),
        });
        post(base, "/api/v1/write", token, &WriteRequest { timeseries: of_slice.collect() }.encode_to_vec());
    }
}

fn request(name: &str, chunks: bool) -> Vec<u8> {
    let matcher =
        |kind, name: &str, value: &str| LabelMatcher { kind, name: name.to_owned(), value: value.to_owned() };
    let matchers = vec![matcher(2, "__name__", name), matcher(0, "job", "remote"), matcher(3, "n", "9.*")];
    let query = Query { start_timestamp_ms: START, end_timestamp_ms: END, matchers, hints: None };
    let accepted = if chunks { vec![1, 0] } else { vec![] };
    ReadRequest { queries: vec![query], accepted_response_types: accepted }.encode_to_vec()
}

fn read_samples(base: &str, token: Option<&str>, name: &str) -> Vec<TimeSeries> {
    let body = post(base, "/api/v1/read", token, &request(name, false));
    ReadResponse::read(&body).unwrap().results.remove(0).timeseries
}

fn read_chunks(base: &str, token: Option<&str>, name: &str) -> Vec<ChunkedReadResponse> {
    let body = post(base, "/api/v1/read", token, &request(name, true));
    read_frames(&body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&body)))
}

/// The bits of a stream's samples, series by series.
fn bits(frames: &[ChunkedReadResponse]) -> Vec<(Vec<Label>, Vec<String>)> {
    let mut all: Vec<(Vec<Label>, Vec<String>)> = Vec::new();
    for series in frames.iter().flat_map(|frame| &frame.chunked_series) {
        let samples = series.samples().unwrap();
        let floats = samples.timestamps.iter().zip(&samples.values);
        let floats = floats.map(|(at, value)| format!("{at} {:016x}", value.to_bits()));
        let histograms = samples.histograms.iter().map(|sample| {
            // Of a reset each tells what it knows.
            let gauge = sample.histogram.reset_hint == ResetHint::Gauge;
            let hint = if gauge { ResetHint::Gauge } else { ResetHint::Unknown };
            format!(
                "{} {:?}",
                sample.timestamp,
                Histogram { reset_hint: hint, ..(*sample.histogram).clone() }
            )
        });
        let lines: Vec<String> = floats.chain(histograms).collect();
        match all.last_mut() {
            Some((labels, before)) if *labels == series.labels => before.extend(lines),
            _ => all.push((series.labels.clone(), lines)),
        }
    }
    all
}

/// A Prometheus that takes writes.
fn receiver(dir: &std::path::Path) -> Prometheus {
    Prometheus::with_arguments(
        dir,
        0,
        &[
            "--web.enable-remote-write-receiver",
            "--storage.tsdb.retention.time=100y",
            "--enable-feature=native-histograms",
        ],
        |_| "global: {}\n".to_owned(),
    )
}

/// Encodes each chunk of Prometheus' again, which gives the same bytes.
fn encode_again(frames: &[ChunkedReadResponse]) -> usize {
    let mut count = 0;
    for message in frames.iter().flat_map(|frame| &frame.chunked_series).flat_map(|series| &series.chunks) {
        let encoding = Encoding::of_number(message.encoding).unwrap();
        let mut samples = SeriesSamples::default();
        chunk::decode(encoding, &message.data, &mut samples).unwrap();
        let ours = chunk::encode(&samples);
        // That there was no reset before a chunk is not told by its samples.
        let header = if encoding == Encoding::Xor { 2 } else { 3 };
        let (bytes, data) = (&ours[0].bytes, &message.data);
        match &ours[..] {
            [chunk] => {
                assert_eq!((chunk.min_time, chunk.max_time), (message.min_time_ms, message.max_time_ms));
                assert_eq!(bytes[..2], data[..2]);
                // 2.42 begins a byte when the last is full.
                let of_2_42 = if data.len() > bytes.len() { data.strip_suffix(&[0]).unwrap() } else { data };
                assert_eq!(bytes[header..], of_2_42[header..], "of {samples:?}");
            }
            // A head takes more than 120 where many come at once; they begin alike, up to the last byte's bits.
            _ => assert_eq!(bytes[header..bytes.len() - 1], data[header..bytes.len() - 1], "of {samples:?}"),
        }
        count += 1;
    }
    count
}

#[test]
fn both_send_the_same_chunks() {
    if !have("prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = token::start(&dir.path().join("data"));
    let (write_token, read_token) = (token::token(TENANT, "write"), token::token(TENANT, "read"));
    let (base, theirs) = (server.url(""), receiver(dir.path()));
    for series in [floats(), histograms()] {
        write(&base, Some(&write_token), series.clone());
        write(&theirs.base, None, series);
    }
    for (name, series) in [("floats", 32), ("histograms", 4), ("floats|histograms", 36)] {
        let (ours, of_prometheus) =
            (read_chunks(&base, Some(&read_token), name), read_chunks(&theirs.base, None, name));
        let chunks = encode_again(&of_prometheus);
        let (ours, of_prometheus) = (bits(&ours), bits(&of_prometheus));
        assert_eq!(ours.len(), series);
        let samples: usize = ours.iter().map(|(_, lines)| lines.len()).sum();
        assert_eq!(samples, series * COUNT as usize);
        for (ours, theirs) in ours.iter().zip(&of_prometheus) {
            assert_eq!(ours, theirs);
        }
        assert_eq!(ours.len(), of_prometheus.len());
        eprintln!("{name}: {series} series, {samples} samples, {chunks} chunks of Prometheus' encoded again");
    }
    // What is whole has no histograms in 2.42.
    let (ours, of_prometheus) =
        (read_samples(&base, Some(&read_token), "floats"), read_samples(&theirs.base, None, "floats"));
    let lines = |series: Vec<TimeSeries>| {
        let mut lines: Vec<String> = series.iter().map(bits_of).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(ours), lines(of_prometheus));
    let ours = read_samples(&base, Some(&read_token), "histograms");
    assert_eq!((ours.len(), ours[3].histograms.len()), (4, COUNT as usize));
    for (i, message) in (0..).zip(&ours[3].histograms) {
        assert_eq!(message.clone().into_histogram(), histogram(3, i));
    }
}

fn bits_of(series: &TimeSeries) -> String {
    let floats: Vec<(i64, u64)> =
        series.samples.iter().map(|sample| (sample.timestamp, sample.value.to_bits())).collect();
    format!("{:?} {floats:?}", series.labels)
}

#[test]
fn prometheus_answers_from_what_it_reads_here() {
    if !have("prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = token::start(&dir.path().join("data"));
    let token = token::token(TENANT, "read write");
    let base = server.url("");
    // 2.42 drops histograms that it reads.
    write(&base, Some(&token), floats());
    let reader = Prometheus::with_config(dir.path(), 0, |_| {
        format!(
            "remote_read:\n- url: {base}/api/v1/read\n  read_recent: true\n  \
             authorization: {{credentials: '{token}'}}\n  headers: {{X-Scope-OrgID: {TENANT}}}\n"
        )
    });
    let mut asked = 0;
    // Half a second off every sample: 2.42 counts the first instant of a range, we do not.
    let at = |back: i64| format!("{}.500", (END - back) / 1000);
    for expression in [
        r#"floats{job="remote"}"#,
        r#"floats{n=~"0[0-3]|1."}[40m]"#,
        r#"floats{n!~"0.*",n!="12"}[20m]"#,
        r#"sum by (job) (rate(floats{n=~".[07]"}[5m]))"#,
        r#"max_over_time(floats{n="03"}[10m])"#,
        r#"count({__name__=~"floats|nothing"})"#,
        r#"quantile by (job) (0.3, floats{n=~".7"} offset 10m)"#,
        "nothing",
    ] {
        for back in [100_000, 700_000, 1_600_000] {
            let time = at(back);
            let params = [("query", expression), ("time", &time)];
            let ours = api_as(Some(&token), &base, "/api/v1/query", &params);
            let theirs = api(&reader.base, "/api/v1/query", &params);
            assert_eq!(points(&theirs), points(&ours), "{expression} at {time}");
            assert!(!points(&ours).is_empty() || expression == "nothing", "{expression} at {time}");
            asked += 1;
        }
        if !expression.contains("m]") || expression.contains("rate") || expression.contains("_over_time") {
            let (start, end) = (at(1_600_000), at(60_000));
            let params = [("query", expression), ("start", &start), ("end", &end), ("step", "15")];
            let ours = api_as(Some(&token), &base, "/api/v1/query_range", &params);
            let theirs = api(&reader.base, "/api/v1/query_range", &params);
            assert_eq!(points(&theirs), points(&ours), "{expression} over a range");
            asked += 1;
        }
    }
    for what in ["failed_requests", "requests_failed"] {
        let metrics = crate::server::text(&reader.base, "/metrics").unwrap();
        assert!(
            !metrics
                .lines()
                .any(|line| line.contains("remote_read") && line.contains(what) && !line.ends_with(" 0"))
        );
    }
    eprintln!("{asked} questions, the same answers");
    // Who has no token reads nothing.
    drop(server);
    let open = api(&reader.base, "/api/v1/query", &[("query", "floats"), ("time", &at(100_000))]);
    assert!(points(&open).is_empty(), "{open}");
}

/// What an answer says, in an order of its own; `rate` differs in its last digits.
fn points(answer: &Value) -> Vec<String> {
    let number = |value: &Value| match value.as_str().map(str::parse::<f64>) {
        Some(Ok(value)) => format!("{value:.9e}"),
        _ => value.to_string(),
    };
    let pair = |pair: &Value| format!("{} {}", pair[0].as_f64().unwrap(), number(&pair[1]));
    let Some(series) = answer["result"].as_array() else { return vec![answer.to_string()] };
    let line = |series: &Value| {
        let values = series["values"].as_array().cloned().unwrap_or_else(|| vec![series["value"].clone()]);
        format!("{} {:?}", series["metric"], values.iter().map(pair).collect::<Vec<_>>())
    };
    let mut lines: Vec<String> = series.iter().map(line).collect();
    lines.sort();
    lines
}

#[test]
fn a_reader_sees_its_own_tenant_and_no_more_than_its_filters_let() {
    let dir = tempfile::tempdir().unwrap();
    let server = token::start(&dir.path().join("data"));
    let base = server.url("");
    write(&base, Some(&token::token(TENANT, "write")), floats());
    let read = |claims: Value| {
        let token = token::sign(&claims);
        let chunks = bits(&read_chunks(&base, Some(&token), "floats"));
        let samples = read_samples(&base, Some(&token), "floats");
        assert_eq!(
            samples.iter().map(|series| &series.labels).collect::<Vec<_>>(),
            chunks.iter().map(|(labels, _)| labels).collect::<Vec<_>>()
        );
        samples.len()
    };
    let all = token::claims(TENANT, "read");
    assert_eq!(read(all.clone()), 32);
    assert_eq!(read(token::with(all, serde_json::json!({"luminate": {"filters": ["{n=~\"0.\"}"]}}))), 10);
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    for (token, tenant, status) in [
        (None, None, 401),
        (Some(token::token("b", "read")), Some(TENANT), 403),
        (Some(token::token(TENANT, "write")), None, 403),
    ] {
        let mut asked = agent.post(server.url("/api/v1/read"));
        if let Some(token) = token {
            asked = asked.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(tenant) = tenant {
            asked = asked.header("X-Scope-OrgID", tenant);
        }
        let body = snap::raw::Encoder::new().compress_vec(&request("floats", true)).unwrap();
        assert_eq!(asked.send(body).unwrap().status(), status);
    }
}

#[test]
fn who_leaves_in_the_middle_of_a_stream_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let server = crate::server::Server::start(
        &dir.path().join("data"),
        &Options::default().env("LUMINATE_STORAGE__RETENTION__DEFAULT", "0"),
    );
    let base = server.url("");
    // 12 MB that do not compress, which no buffer on the way holds.
    let mut random = 1_u64;
    for number in 0..150 {
        let samples = (0..10_000).map(|i| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Sample { value: f64::from_bits(random >> 2), timestamp: START + i * 7 }
        });
        let series =
            TimeSeries { labels: labels("wide", number), samples: samples.collect(), histograms: vec![] };
        post(&base, "/api/v1/write", None, &WriteRequest { timeseries: vec![series] }.encode_to_vec());
    }
    let agent: ureq::Agent = ureq::Agent::config_builder().max_idle_connections(0).build().into();
    let wide = {
        let matchers = vec![LabelMatcher { kind: 0, name: "__name__".to_owned(), value: "wide".to_owned() }];
        let query = Query { start_timestamp_ms: START, end_timestamp_ms: END, matchers, hints: None };
        ReadRequest { queries: vec![query], accepted_response_types: vec![1] }.encode_to_vec()
    };
    let body = snap::raw::Encoder::new().compress_vec(&wide).unwrap();
    // More than there are places, one after another, and each leaves.
    for _ in 0..25 {
        let mut answer = agent.post(server.url("/api/v1/read")).send(&body[..]).unwrap();
        let mut first = [0; 1024];
        answer.body_mut().as_reader().read_exact(&mut first).unwrap();
    }
    let whole = read_frames(&post(&base, "/api/v1/read", None, &wide)).unwrap();
    let count: usize = bits(&whole).iter().map(|(_, lines)| lines.len()).sum();
    assert_eq!(count, 1_500_000);
    assert!(server.peak_rss_mb() < 400, "{} MB", server.peak_rss_mb());
}
