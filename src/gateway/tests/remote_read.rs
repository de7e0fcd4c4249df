//! Remote read and federation, over HTTP.

use prost::Message as _;

use super::*;
use crate::{
    gateway::wire::{
        chunk::Encoding,
        remote_read::{
            ChunkedSeries, Label, LabelMatcher, Query, ReadRequest, ReadResponse, TimeSeries, read_frames,
        },
    },
    ingest::HistogramMessage,
    model::{
        Histogram, Limit,
        histogram::{Counts, ResetHint, Span as Buckets},
        stale_nan,
    },
    storage::BatchHistogram,
};

const SAMPLES: i32 = 0;
const CHUNKS: i32 = 1;

fn matcher(kind: i32, name: &str, value: &str) -> LabelMatcher {
    LabelMatcher { kind, name: name.to_owned(), value: value.to_owned() }
}

fn query(range: (i64, i64), matchers: &[LabelMatcher]) -> Query {
    Query { start_timestamp_ms: range.0, end_timestamp_ms: range.1, matchers: matchers.to_vec(), hints: None }
}

fn compressed(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(plain).unwrap()
}

fn body(queries: &[Query], accepted: &[i32]) -> Vec<u8> {
    let request = ReadRequest { queries: queries.to_vec(), accepted_response_types: accepted.to_vec() };
    compressed(&request.encode_to_vec())
}

fn texts(labels: &[Label]) -> Vec<String> {
    labels.iter().map(|Label { name, value }| format!("{name}={value}")).collect()
}

impl TestApp {
    async fn read_as(&self, tenant: &str, body: Vec<u8>) -> Reply {
        let request = Request::builder().method("POST").uri("/api/v1/read").header("X-Scope-OrgID", tenant);
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    async fn read(&self, queries: &[Query], accepted: &[i32]) -> Reply {
        self.read_as("anonymous", body(queries, accepted)).await
    }

    /// The series of each query, by samples.
    async fn samples_of(&self, queries: &[Query]) -> Vec<Vec<TimeSeries>> {
        let reply = self.read(queries, &[]).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.headers[header::CONTENT_TYPE], "application/x-protobuf");
        assert_eq!(reply.headers[header::CONTENT_ENCODING], "snappy");
        let answer = ReadResponse::read(&reply.body).unwrap();
        answer.results.into_iter().map(|result| result.timeseries).collect()
    }

    /// The series by chunks, and of which query they are.
    async fn chunks_of(&self, queries: &[Query]) -> Vec<(i64, ChunkedSeries)> {
        let reply = self.read(queries, &[7, CHUNKS, SAMPLES]).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(
            reply.headers[header::CONTENT_TYPE],
            "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"
        );
        assert!(!reply.headers.contains_key(header::CONTENT_ENCODING));
        let frames = read_frames(&reply.body).unwrap().into_iter();
        frames
            .flat_map(|frame| frame.chunked_series.into_iter().map(move |series| (frame.query_index, series)))
            .collect()
    }
}

/// A tenant with floats, stale markers, and histograms of both kinds.
async fn with_series(app: &TestApp, tenant: &str) {
    let mut batch = WriteBatch::over(vec![
        labels(&[("__name__", "f"), ("job", "a")]),
        labels(&[("__name__", "h"), ("job", "a")]),
    ]);
    batch.samples = (0..250)
        .map(|i| BatchSample {
            series: 0,
            timestamp: Timestamp(i * 10),
            value: if i == 249 { stale_nan() } else { f64::from(i32::try_from(i).unwrap()) / 3.0 },
            start: 0,
        })
        .collect();
    let whole = Histogram {
        schema: 1,
        zero_threshold: 0.001,
        sum: 4.5,
        reset_hint: ResetHint::Unknown,
        positive_spans: vec![Buckets { offset: 0, length: 2 }],
        negative_spans: vec![],
        counts: Counts::Integer { count: 5, zero_count: 2, positive: vec![1, 1], negative: vec![] },
        custom_values: vec![],
    };
    let float = Histogram {
        reset_hint: ResetHint::Gauge,
        counts: Counts::Float { count: 5.5, zero_count: 2.5, positive: vec![1.0, 2.0], negative: vec![] },
        ..whole.clone()
    };
    batch.histograms = [whole, float]
        .into_iter()
        .zip(1..)
        .map(|(histogram, i)| BatchHistogram {
            series: 1,
            timestamp: Timestamp(i * 10),
            histogram: Arc::new(histogram),
            start: 0,
        })
        .collect();
    app.state.storage.append(&TenantId::new(tenant).unwrap(), batch).await.unwrap();
}

#[tokio::test]
async fn samples_are_answered_query_by_query_sorted_and_within_the_range() {
    let app = TestApp::start().await.unhurried();
    with_series(&app, "anonymous").await;
    let name = |name: &str| matcher(0, "__name__", name);
    let answers = app
        .samples_of(&[
            query((100, 140), &[name("f")]),
            query((0, 9_000), &[matcher(2, "__name__", "up|down"), matcher(1, "job", "c")]),
            query((0, 9_000), &[matcher(3, "job", "a|b|c")]),
            query((140, 100), &[name("f")]),
            query((0, 9_000), &[name("h")]),
            query((2_490, 2_490), &[name("f")]),
        ])
        .await;
    let times: Vec<i64> = answers[0][0].samples.iter().map(|sample| sample.timestamp).collect();
    assert_eq!((answers[0].len(), times), (1, vec![100, 110, 120, 130, 140]));
    assert_eq!(texts(&answers[0][0].labels), ["__name__=f", "job=a"]);
    let jobs: Vec<Vec<String>> = answers[1].iter().map(|series| texts(&series.labels)).collect();
    assert_eq!(jobs, [vec!["__name__=up", "http.status=200", "job=b"], vec!["__name__=up", "job=a"]]);
    assert!(answers[2].is_empty() && answers[3].is_empty());
    let histograms: Vec<(i64, Histogram)> = answers[4][0]
        .histograms
        .iter()
        .map(|message: &HistogramMessage| (message.timestamp(), message.clone().into_histogram()))
        .collect();
    assert!(matches!(histograms[0], (10, Histogram { reset_hint: ResetHint::Unknown, .. })));
    assert!(matches!(&histograms[1].1.counts, Counts::Float { count: 5.5, zero_count: 2.5, .. }));
    // A stale marker is passed on as it is.
    assert_eq!(answers[5][0].samples[0].value.to_bits(), stale_nan().to_bits());
}

#[tokio::test]
async fn chunks_hold_the_same_as_samples() {
    let app = TestApp::start().await.unhurried();
    with_series(&app, "anonymous").await;
    let queries =
        [query((0, 9_000), &[matcher(2, "__name__", "f|h")]), query((0, 9_000), &[matcher(2, "job", ".+")])];
    let (whole, chunked) = (app.samples_of(&queries).await, app.chunks_of(&queries).await);
    assert_eq!(chunked.iter().map(|(query, _)| *query).collect::<Vec<_>>(), [0, 0, 1, 1, 1, 1, 1]);
    let whole = whole.into_iter().flatten();
    for ((_, chunks), series) in chunked.iter().zip(whole) {
        assert_eq!(chunks.labels, series.labels);
        let samples = chunks.samples().unwrap();
        let floats: Vec<(i64, u64)> =
            samples.timestamps.iter().copied().zip(samples.values.iter().map(|v| v.to_bits())).collect();
        let expected: Vec<(i64, u64)> =
            series.samples.iter().map(|sample| (sample.timestamp, sample.value.to_bits())).collect();
        assert_eq!(floats, expected);
        let expected: Vec<Histogram> =
            series.histograms.iter().map(|message| message.clone().into_histogram()).collect();
        let histograms: Vec<Histogram> = samples.histograms.iter().map(|h| (*h.histogram).clone()).collect();
        assert_eq!(histograms, expected);
    }
    let kinds: Vec<i32> = chunked[1].1.chunks.iter().map(|chunk| chunk.encoding).collect();
    assert_eq!(kinds, [Encoding::Histogram as i32, Encoding::FloatHistogram as i32]);
    assert_eq!(chunked[0].1.chunks.len(), 3);
}

#[tokio::test]
async fn a_series_larger_than_a_frame_comes_in_several() {
    let app = TestApp::start().await.unhurried();
    let mut batch = WriteBatch::over(vec![labels(&[("__name__", "large")])]);
    // Values that do not compress: 9 bytes each.
    let mut random = 1_u64;
    batch.samples = (0..300_000)
        .map(|i| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            BatchSample { series: 0, timestamp: Timestamp(i), value: f64::from_bits(random >> 2), start: 0 }
        })
        .collect();
    app.state.storage.append(&TenantId::anonymous(), batch).await.unwrap();
    let chunked = app.chunks_of(&[query((0, 300_000), &[matcher(0, "__name__", "large")])]).await;
    assert!(chunked.len() > 2, "{}", chunked.len());
    let mut count = 0;
    for (_, series) in &chunked {
        assert!(series.encoded_len() < 1024 * 1024);
        let samples = series.samples().unwrap();
        assert!(samples.timestamps.iter().copied().eq(count..count + samples.timestamps.len() as i64));
        count += samples.timestamps.len() as i64;
    }
    assert_eq!(count, 300_000);
}

#[tokio::test]
async fn a_body_that_is_no_read_request_is_refused() {
    let app = TestApp::start().await.unhurried();
    let refused = async |body: Vec<u8>, status: u16, kind: &str, text: &str| {
        let reply = app.read_as("anonymous", body).await;
        let json = reply.json();
        assert_eq!((reply.status.as_u16(), json["errorType"].as_str()), (status, Some(kind)), "{json}");
        assert!(json["error"].as_str().unwrap().contains(text), "{json}");
    };
    refused(vec![], 400, "bad_data", "snappy").await;
    refused(b"no snappy".to_vec(), 400, "bad_data", "snappy").await;
    refused(compressed(b"no protobuf"), 400, "bad_data", "protobuf").await;
    // Declares 64 MiB, and 32 MiB that a few bytes cannot hold.
    refused(vec![0x80, 0x80, 0x80, 0x20, 0], 413, "too_large_entry", "33554432 bytes").await;
    refused(vec![0x80, 0x80, 0x80, 0x10, 0], 400, "bad_data", "cannot hold").await;
    let many = vec![query((0, 1), &[]); 10_001];
    refused(body(&many, &[]), 413, "too_large_entry", "10000 fields").await;
    refused(body(&[], &[0; 20_000]), 413, "too_large_entry", "10000 fields").await;
    refused(body(&[query((0, 1), &[matcher(4, "a", "b")])], &[]), 400, "bad_data", "invalid matcher type")
        .await;
    refused(body(&[query((0, 1), &[matcher(2, "a", "(")])], &[]), 400, "bad_data", "error parsing regexp")
        .await;
    let long = "x".repeat(200_000);
    refused(body(&[query((0, 1), &[matcher(0, "a", &long)])], &[]), 400, "bad_data", "131072").await;
    refused(
        body(&[query((0, 1), &[])], &[5, 9]),
        400,
        "bad_data",
        "server does not support any of the requested response types: [5, 9]",
    )
    .await;
    assert_eq!(app.get("/api/v1/read").await.status, 405);
}

#[tokio::test]
async fn a_body_is_taken_for_what_it_is_whatever_it_is_called_and_up_to_its_own_size() {
    let app = TestApp::start().await.unhurried();
    with_series(&app, "anonymous").await;
    let asked = query((0, 9_000), &[matcher(2, "__name__", "f|up")]);
    let send = async |path: &str, body: Vec<u8>| {
        let request = Request::builder().method("POST").uri(path);
        // As `curl --data-binary` calls it.
        let request = request.header("Content-Type", "application/x-www-form-urlencoded");
        let reply = app.send(request.body(Body::from(body)).unwrap()).await;
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
        ReadResponse::read(&reply.body).unwrap().results[0].timeseries.len()
    };
    assert_eq!(send("/api/v1/read", body(std::slice::from_ref(&asked), &[])).await, 3);
    // The URL narrows what is read.
    assert_eq!(send("/api/v1/read?extra_label=job%3Da", body(std::slice::from_ref(&asked), &[])).await, 2);
    // More than a form may have, which does not compress.
    let mut random = 1_u64;
    let mut digit = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b' ' + u8::try_from((random >> 40) % 90).unwrap())
    };
    let func = (0..11 << 20).map(|_| digit()).collect();
    let hints = crate::gateway::wire::remote_read::ReadHints { func, ..Default::default() };
    let large = body(&[Query { hints: Some(hints), ..asked }], &[]);
    assert!(large.len() > app.state.config.form_body.max_bytes);
    assert_eq!(send("/api/v1/read", large).await, 3);
}

#[tokio::test]
async fn what_a_tenant_may_ask_holds_for_both_kinds_of_answers() {
    for (limit, most, text) in [
        (Limit::QuerySamples, 100, "max_query_samples"),
        (Limit::QuerySeries, 1, "max_query_series"),
        (Limit::QueryBytes, 300, "max_query_bytes"),
        (Limit::QueryRange, 1_000, "max_query_range"),
    ] {
        let mut limits = TenantLimits::default();
        limits.set(limit, Some(most));
        let app = TestApp::under(Rules::of(limits)).await.unhurried();
        with_series(&app, "anonymous").await;
        let all = [query((0, 9_000_000), &[matcher(2, "__name__", "f|h")])];
        for accepted in [SAMPLES, CHUNKS] {
            let reply = app.read(&all, &[accepted]).await;
            assert_eq!(reply.status, 422, "{text}: {}", String::from_utf8_lossy(&reply.body));
            assert!(reply.text().contains(text), "{}", reply.text());
        }
    }
}

#[tokio::test]
async fn more_samples_than_may_be_held_are_refused_in_the_words_of_prometheus() {
    let app = TestApp::start().await.unhurried();
    with_series(&app, "anonymous").await;
    let limits = QueryLimits { max_samples: 200, ..QueryLimits::default() };
    let state = &app.state;
    let engine = Arc::new(ByHeart);
    let service = QueryService::new(engine, Arc::clone(&state.storage), Arc::clone(&state.clock), limits);
    let reader = crate::query::Reader::of(TenantId::anonymous());
    let matchers = query((0, 0), &[matcher(0, "__name__", "f")]).matchers().unwrap();
    let range = crate::model::TimeRange::new(Timestamp(0), Timestamp(9_000));
    let read = crate::query::ReadQuery { matchers, range };
    let mut parts =
        Arc::new(service).remote_read(&reader, vec![read], &crate::query::Origin::default()).await.unwrap();
    let failure = parts.recv().await.unwrap().unwrap_err();
    assert_eq!(failure.to_string(), "exceeded sample limit (200)");
    assert_eq!(crate::gateway::error::ApiError::from(failure).status(), 400);
}

#[tokio::test]
async fn the_newest_sample_of_each_series_is_exposed() {
    let app = TestApp::start().await.unhurried();
    let mut batch = WriteBatch::over(vec![
        labels(&[("__name__", "a"), ("instance", "i"), ("v", "\"\\\n")]),
        labels(&[("__name__", "a.b"), ("le.x", "1")]),
        labels(&[("__name__", "gone")]),
        labels(&[("__name__", "b"), ("aa", "1")]),
        labels(&[("nameless", "1")]),
    ]);
    let sample =
        |series, timestamp, value| BatchSample { series, timestamp: Timestamp(timestamp), value, start: 0 };
    batch.samples = vec![
        sample(0, 8_000, 1.0),
        sample(0, 9_001, 1e21),
        // Not yet.
        sample(0, 10_001, 3.0),
        sample(1, 9_000, f64::INFINITY),
        sample(2, 8_000, 1.0),
        sample(2, 9_000, stale_nan()),
        sample(3, 9_000, -0.5),
        sample(4, 9_000, 1.0),
    ];
    app.state.storage.append(&TenantId::anonymous(), batch).await.unwrap();
    // Series of several selectors come once.
    let all = "/federate?match[]=%7B__name__=~%22a%7Cb%7Cgone%7Cdown%22%7D&match[]=a&match[]=%7Bnameless=%221%22%7D";
    let reply = app.get(all).await;
    assert_eq!(
        reply.headers[header::CONTENT_TYPE],
        "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
    );
    assert_eq!(
        reply.text(),
        "# TYPE a untyped\n\
         a{instance=\"i\",v=\"\\\"\\\\\\n\"} 1e+21 9001\n\
         # TYPE b untyped\n\
         b{aa=\"1\",instance=\"\"} -0.5 9000\n\
         # TYPE down untyped\n\
         down{job=\"c\",instance=\"\"} 1 5000\n"
    );
    let utf8 = async |escaping: &str| {
        let accept = format!("text/plain;version=0.0.4;escaping={escaping}");
        let path = "/federate?match[]=%7B%22a.b%22%7D";
        app.call("GET", path, &[("accept", &accept)], "").await.text().to_owned()
    };
    assert_eq!(
        utf8("allow-utf-8").await,
        "# TYPE \"a.b\" untyped\n{\"a.b\",\"le.x\"=\"1\",instance=\"\"} +Inf 9000\n"
    );
    assert_eq!(utf8("underscores").await, "# TYPE a_b untyped\na_b{le_x=\"1\",instance=\"\"} +Inf 9000\n");
    assert_eq!(
        utf8("dots").await,
        "# TYPE a_dot_b untyped\na_dot_b{le_dot_x=\"1\",instance=\"\"} +Inf 9000\n"
    );
    assert_eq!(
        utf8("values").await,
        "# TYPE U__a_2e_b untyped\nU__a_2e_b{U__le_2e_x=\"1\",instance=\"\"} +Inf 9000\n"
    );
    let open_metrics = app
        .call("GET", "/federate?match[]=b", &[("accept", "application/openmetrics-text;version=1.0.0")], "")
        .await;
    assert_eq!(open_metrics.text(), "# TYPE b unknown\nb{aa=\"1\",instance=\"\"} -0.5 9\n# EOF\n");
    // As Prometheus asks.
    let scraper = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                   text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let scraped = app.call("GET", "/federate?match[]=b", &[("accept", scraper)], "").await;
    assert!(scraped.text().ends_with("-0.5 9000\n"), "{}", scraped.text());
    app.get("/federate").await.is_error(400, "bad_data", "no match[] parameter provided");
    assert_eq!(app.get("/federate?match[]=%7B").await.status, 400);
    assert_eq!(app.get("/federate?match[]=nothing").await.text(), "");
    // Who wants all of it may have it, as in Prometheus.
    let all = app.get("/federate?match[]=%7B%7D").await;
    assert!(all.text().contains("\nb{aa=") && all.text().contains("\ndown{job="), "{}", all.text());
}

#[tokio::test]
async fn native_histograms_are_exposed_as_protobuf_only() {
    let app = TestApp::start().await.unhurried();
    with_series(&app, "anonymous").await;
    let accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    let path = "/federate?match[]=%7B__name__=~%22h%7Cdown%22%7D";
    let reply = app.call("GET", path, &[("accept", accept)], "").await;
    let kind = reply.headers[header::CONTENT_TYPE].to_str().unwrap();
    assert!(
        kind.starts_with("application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily"),
        "{kind}"
    );
    let contains = |needle: &[u8]| reply.body.windows(needle.len()).any(|window| window == needle);
    assert!(contains(b"down") && contains(b"\x01h\x18\x05"), "{:?}", reply.body);
    assert!(!app.get(path).await.text().contains("h{"));
}
