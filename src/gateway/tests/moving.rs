//! Export and import: what goes out comes in again, to the bit.

use std::io::Write;

use super::*;
use crate::{
    model::{
        Histogram, TimeRange,
        histogram::{Counts, ResetHint, Span as Buckets},
        stale_nan,
    },
    storage::{BatchHistogram, Runs, SelectRequest},
};

const ALL: &str = "match[]=%7B__name__!=%22%22%7D";

impl TestApp {
    async fn import(&self, query: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
        let mut request = Request::builder().method("POST").uri(format!("/api/v1/import{query}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    /// All samples of a tenant, with their bits and starts.
    async fn samples(&self, tenant: &str) -> Vec<String> {
        let request = SelectRequest::new(vec![], TimeRange::ALL);
        let selected = self.state.storage.select(&TenantId::new(tenant).unwrap(), request).await.unwrap();
        let Runs::TimeMajor(mut runs) = selected.runs else { panic!("the store in memory has an order") };
        let mut lines = Vec::new();
        while let Some(batch) = runs.recv().await {
            for run in batch.unwrap() {
                let (labels, samples) = (&selected.series[run.ordinal as usize], run.samples);
                for (i, at) in samples.timestamps.iter().enumerate() {
                    lines.push(format!(
                        "{labels} {at:4} {:016x} {}",
                        samples.values[i].to_bits(),
                        samples.start(i)
                    ));
                }
                for sample in &samples.histograms {
                    lines.push(format!(
                        "{labels} {} {:?} {}",
                        sample.timestamp, sample.histogram, sample.start
                    ));
                }
            }
        }
        lines.sort();
        lines
    }
}

fn count(reply: &Reply, what: &str) -> String {
    reply.headers[&format!("x-luminate-import-{what}")].to_str().unwrap().to_owned()
}

fn histograms() -> Vec<Histogram> {
    let integer = Histogram {
        schema: 3,
        zero_threshold: 1e-128,
        sum: stale_nan(),
        reset_hint: ResetHint::Yes,
        positive_spans: vec![Buckets { offset: -2, length: 1 }, Buckets { offset: 3, length: 2 }],
        negative_spans: vec![Buckets { offset: 0, length: 1 }],
        counts: Counts::Integer { count: 9, zero_count: 1, positive: vec![2, -1, 0], negative: vec![3] },
        custom_values: vec![],
    };
    let custom = Histogram {
        schema: -53,
        zero_threshold: 0.0,
        sum: -0.0,
        reset_hint: ResetHint::Gauge,
        positive_spans: vec![Buckets { offset: 0, length: 2 }],
        negative_spans: vec![],
        counts: Counts::Float { count: 3.5, zero_count: 0.0, positive: vec![1.25, 2.25], negative: vec![] },
        custom_values: vec![0.1, 5.0],
    };
    vec![integer, custom]
}

/// A tenant with everything that is hard to carry.
async fn with_everything(app: &TestApp) {
    let mut batch = WriteBatch::over(vec![
        labels(&[("__name__", "hard"), ("é\"\\", "\n\u{1}\u{2028}")]),
        labels(&[("__name__", "hists")]),
    ]);
    let values = [
        0.0,
        -0.0,
        0.1,
        f64::MIN_POSITIVE / 3.0,
        f64::MAX,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        -f64::NAN,
        f64::from_bits(0x7ff8_dead_beef_0001),
        stale_nan(),
        9_007_199_254_740_993.0,
    ];
    batch.samples = (0_i64..)
        .zip(values)
        .map(|(i, value)| BatchSample { series: 0, timestamp: Timestamp(i - 3), value, start: i % 2 * 77 })
        .collect();
    batch.histograms = (1..)
        .zip(histograms())
        .map(|(i, histogram)| BatchHistogram {
            series: 1,
            timestamp: Timestamp(i),
            histogram: Arc::new(histogram),
            start: i - 1,
        })
        .collect();
    batch.exemplars = vec![BatchExemplar {
        series: 1,
        exemplar: Exemplar {
            labels: labels(&[("trace_id", "<x>")]),
            value: f64::from_bits(0x7ff8_0000_0000_00ff),
            timestamp: Timestamp(2),
        },
    }];
    batch.metadata = vec![Metadata {
        metric: "hard".to_owned(),
        kind: MetricType::StateSet,
        help: "a \"help\"\n".to_owned(),
        unit: "s".to_owned(),
    }];
    app.state.storage.append(&TenantId::new("source").unwrap(), batch).await.unwrap();
}

#[tokio::test]
async fn what_is_exported_exactly_is_imported_to_the_bit() {
    let app = TestApp::start().await;
    with_everything(&app).await;
    let (source, target) = ([("x-scope-orgid", "source")], [("x-scope-orgid", "target")]);
    let exported = app.call("GET", &format!("/api/v1/export?exact=1&{ALL}"), &source, "").await;
    assert_eq!(exported.status, 200, "{}", exported.text());
    assert_eq!(exported.headers[header::CONTENT_TYPE], "application/stream+json; charset=utf-8");
    let last: Json = serde_json::from_str(exported.text().lines().last().unwrap()).unwrap();
    let end = &last["end"];
    assert_eq!(
        [&end["samples"], &end["histograms"], &end["exemplars"], &end["metadata"]],
        [&json!(12), &json!(2), &json!(1), &json!(1)]
    );

    let imported = app.import("", &target, exported.body.clone()).await;
    assert_eq!(imported.status, 204, "{}", imported.text());
    assert_eq!(count(&imported, "checksum"), end["checksum"].as_str().unwrap());
    assert_eq!(
        (count(&imported, "samples"), count(&imported, "exemplars")),
        ("12".to_owned(), "1".to_owned())
    );
    assert_eq!(app.samples("target").await, app.samples("source").await);
    let again = app.call("GET", &format!("/api/v1/export?exact=1&{ALL}"), &target, "").await;
    assert_eq!(again.body, exported.body);
    let summary = app.call("GET", &format!("/api/v1/export?summary=1&{ALL}"), &target, "").await;
    assert_eq!(summary.text().trim_end(), exported.text().lines().last().unwrap());
    // The same once more is a success and changes nothing.
    assert_eq!(app.import("", &target, exported.body).await.status, 204);
    assert_eq!(app.samples("target").await, app.samples("source").await);
}

#[tokio::test]
async fn the_plain_form_is_read_by_everybody() {
    let app = TestApp::start().await;
    let exported = app.post("/api/v1/export", "match[]=up&start=0&end=10&reduce_mem_usage=1").await;
    assert_eq!(
        exported.text(),
        concat!(
            r#"{"metric":{"__name__":"up","http.status":"200","job":"b"},"values":[1],"timestamps":[5000]}"#,
            "\n",
            r#"{"metric":{"__name__":"up","job":"a"},"values":[1],"timestamps":[5000]}"#,
            "\n"
        )
    );
    // A series that two selectors select comes once.
    let twice = app.get("/api/v1/export?match[]=up&match[]=%7Bjob=~%22.%2B%22%7D").await;
    assert_eq!(twice.text().lines().count(), 3);
    let shards: usize = {
        let mut lines = 0;
        for shard in 1..=3 {
            lines += app.get(&format!("/api/v1/export?{ALL}&shard={shard}/3")).await.text().lines().count();
        }
        lines
    };
    assert_eq!(shards, 3);
    let nothing = app.get("/api/v1/export?match[]=nothing").await;
    assert_eq!((nothing.status.as_u16(), nothing.text()), (200, ""));
    let rows = app.get("/api/v1/export?match[]=up&max_rows_per_line=1").await;
    assert_eq!(rows.text().lines().count(), 2);
    let before = app.get("/api/v1/export?match[]=up&end=4").await;
    assert_eq!(before.text(), "");
}

#[tokio::test]
async fn an_export_that_cannot_be_understood_is_refused() {
    let app = TestApp::start().await;
    app.get("/api/v1/export").await.is_error(400, "bad_data", "no match[] parameter provided");
    for (parameters, name) in [
        ("match[]=up%7B", "match[]"),
        ("match[]=up&shard=4/3", "shard"),
        ("match[]=up&exact=maybe", "exact"),
        ("match[]=up&start=2&end=1", "end"),
        ("match[]=up&start=noon", "start"),
        ("match[]=up&max_rows_per_line=-1", "max_rows_per_line"),
        ("match[]=up&exact=1&bare=1", "bare"),
    ] {
        let reply = app.get(&format!("/api/v1/export?{parameters}")).await;
        assert_eq!(reply.status, 400, "{parameters}");
        let told = reply.json()["error"].as_str().unwrap().to_owned();
        assert!(told.starts_with(&format!("invalid parameter \"{name}\"")), "{told}");
    }
}

#[tokio::test]
async fn a_plan_has_the_slices_that_hold_samples() {
    let app = TestApp::start().await;
    let tenant = TenantId::new("planned").unwrap();
    let mut batch = WriteBatch::over(vec![labels(&[("__name__", "up")])]);
    batch.samples = [7_200_000, 18_000_000]
        .map(|at| BatchSample { series: 0, timestamp: Timestamp(at), value: 1.0, start: 0 })
        .to_vec();
    app.state.storage.append(&tenant, batch).await.unwrap();
    let planned = [("x-scope-orgid", "planned")];
    let plan =
        app.call("GET", "/api/v1/export/plan?match[]=up&slice=1h&start=0&end=86400", &planned, "").await;
    let slices = plan.json()["data"]["slices"].as_array().unwrap().clone();
    let (first, last) = (&slices[0], slices.last().unwrap());
    assert_eq!((&first[0], &last[1]), (&json!(0), &json!(86_400_000)));
    assert!((3..=5).contains(&slices.len()), "{slices:?}");
    for pair in slices.windows(2) {
        assert_eq!(pair[0][1].as_i64().unwrap() + 1, pair[1][0].as_i64().unwrap());
        assert_eq!(pair[1][0].as_i64().unwrap() % 3_600_000, 0);
    }
    let nothing = app.get("/api/v1/export/plan?match[]=nothing").await;
    nothing.is_success(&json!({"slices": []}));
    assert_eq!(app.get("/api/v1/export/plan?match[]=up&slice=0").await.status, 400);
}

#[tokio::test]
async fn what_victoriametrics_exports_is_taken_as_it_is() {
    let app = TestApp::start().await;
    // As 1.79 writes infinities, and as later versions do.
    let body = concat!(
        r#"{"metric":{"__name__":"ti"},"values":[+Inf,-Inf,NaN],"timestamps":[1000,2000,3000]}"#,
        "\r\n\n",
        r#"{"metric":{"__name__":"tn","job":"x"},"values":["Infinity",null,1.5e3],"timestamps":[1000,2000,3000],"new":{"a":[1]}}"#,
    );
    let reply = app.import("?extra_label=job=y&extra_label=dc=1", &[("x-scope-orgid", "vm")], body).await;
    assert_eq!(reply.status, 204, "{}", reply.text());
    assert_eq!(
        app.samples("vm").await,
        [
            r#"{__name__="ti", dc="1", job="y"} 1000 7ff0000000000000 0"#,
            r#"{__name__="ti", dc="1", job="y"} 2000 fff0000000000000 0"#,
            r#"{__name__="ti", dc="1", job="y"} 3000 7ff8000000000001 0"#,
            r#"{__name__="tn", dc="1", job="y"} 1000 7ff0000000000000 0"#,
            r#"{__name__="tn", dc="1", job="y"} 2000 7ff8000000000001 0"#,
            r#"{__name__="tn", dc="1", job="y"} 3000 4097700000000000 0"#,
        ]
    );
    assert_eq!(app.import("?extra_label=nameless", &[], "").await.status, 400);
}

#[tokio::test]
async fn bad_lines_are_counted_and_the_good_ones_kept() {
    let app = TestApp::start().await;
    let good = |name: &str| format!(r#"{{"metric":{{"__name__":"{name}"}},"values":[1],"timestamps":[1]}}"#);
    let lines = [
        good("a"),
        "nonsense".to_owned(),
        r#"{"metric":{"__name__":"x"},"values":[1,2],"timestamps":[1]}"#.to_owned(),
        r#"{"metric":{"job":"nameless"},"values":[1],"timestamps":[1]}"#.to_owned(),
        r#"{"metric":{"__name__":"x"},"values":[],"timestamps":[]}"#.to_owned(),
        r#"{"values":[1],"timestamps":[1]}"#.to_owned(),
        r#"{"metric":{"__name__":"x"},"values":[1],"timestamps":[1.5]}"#.to_owned(),
        r#"{"metric":{"__name__":"x"},"values":[1],"timestamps":[1],"bits":[[1,"7ff0000000000002"]]}"#
            .to_owned(),
        r#"{"metric":{"__name__":"x","__name__":"y"},"values":[1],"timestamps":[1]}"#.to_owned(),
        format!("{} {{}}", good("x")),
        r#"{"metric":{"__name__":"x"},"values":[1],"timestamps":[99999999999999]}"#.to_owned(),
        good("b"),
    ];
    let reply = app.import("", &[("x-scope-orgid", "bad")], lines.join("\n")).await;
    assert_eq!(reply.status, 400);
    assert_eq!(
        reply.json()["error"],
        "7 of 12 lines cannot be read:\n\
         line 2: an object is expected at byte 0\n\
         line 3: it does not have as many values as timestamps\n\
         line 5: it has no samples\n\
         line 6: it has no \"metric\"\n\
         line 7: a whole number within range is expected at byte 54\n\
         line 8: its bits are of values it does not have\n\
         line 10: the line goes on after its object at byte 58\n\
         3 rejected: 1 too_far_in_future, 1 missing_metric_name, 1 duplicate_label_name\n\
         {__name__=\"x\"} at 99999999999999: the timestamp is too far in the future\n\
         {job=\"nameless\"}: the series has no metric name\n\
         {__name__=\"x\", __name__=\"y\"}: two labels have the same name"
    );
    assert_eq!((count(&reply, "samples"), count(&reply, "bad-lines")), ("2".to_owned(), "7".to_owned()));
    assert_eq!(count(&reply, "rejected"), "3");
    assert_eq!(app.samples("bad").await.len(), 2);
}

#[tokio::test]
async fn an_export_that_lost_a_line_on_the_way_is_noticed() {
    let app = TestApp::start().await;
    let exported = app.get(&format!("/api/v1/export?exact=1&{ALL}")).await;
    let cut: Vec<&str> = exported.text().lines().skip(1).collect();
    let reply = app.import("", &[("x-scope-orgid", "cut")], cut.join("\n")).await;
    assert_eq!(reply.status, 400);
    let told = reply.json()["error"].as_str().unwrap().to_owned();
    assert!(
        told.contains("the export says that it has 3 samples") && told.contains("but 2, 0 and 1"),
        "{told}"
    );
    // A piece that begins again counts from there.
    let again = format!("{}\n{{\"begin\":{{}}}}\n{}", cut[0], exported.text());
    assert_eq!(app.import("", &[("x-scope-orgid", "cut")], again).await.status, 204);
}

#[tokio::test]
async fn a_body_may_be_compressed_and_must_be_what_it_says() {
    let app = TestApp::start().await;
    let line = r#"{"metric":{"__name__":"z"},"values":[1],"timestamps":[1]}"#;
    let zstd = zstd::bulk::compress(line.as_bytes(), 1).unwrap();
    let gzip = {
        let mut gzip = Vec::new();
        // A stored block: no compressor is needed to write one.
        gzip.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1]).unwrap();
        let length = u16::try_from(line.len()).unwrap();
        gzip.write_all(&length.to_le_bytes()).unwrap();
        gzip.write_all(&(!length).to_le_bytes()).unwrap();
        gzip.write_all(line.as_bytes()).unwrap();
        gzip.write_all(&crc32(line.as_bytes()).to_le_bytes()).unwrap();
        gzip.write_all(&u32::from(length).to_le_bytes()).unwrap();
        gzip
    };
    for (encoding, body) in [("zstd", zstd.clone()), ("gzip", gzip), ("identity", line.as_bytes().to_vec())] {
        let reply =
            app.import("", &[("content-encoding", encoding), ("x-scope-orgid", encoding)], body).await;
        assert_eq!(reply.status, 204, "{encoding}: {}", reply.text());
        assert_eq!(app.samples(encoding).await.len(), 1);
    }
    let cut = zstd[..zstd.len() - 3].to_vec();
    for (encoding, body) in [("zstd", cut), ("gzip", line.as_bytes().to_vec())] {
        let reply = app.import("", &[("content-encoding", encoding)], body).await;
        assert_eq!(reply.status, 400, "{encoding}");
        assert!(reply.text().contains("does not decompress"), "{}", reply.text());
    }
    let reply = app.import("", &[("content-encoding", "br")], "x").await;
    assert_eq!(reply.status, 415);
}

/// The checksum of gzip, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[tokio::test]
async fn a_line_without_end_takes_no_more_than_its_limit() {
    let app = TestApp::start().await;
    let endless = std::iter::repeat_n(Bytes::from(vec![b'x'; 1 << 20]), 14)
        .chain([Bytes::from("\n{\"metric\":{\"__name__\":\"a\"},\"values\":[1],\"timestamps\":[1]}")])
        .map(Ok::<_, std::io::Error>);
    let body = Body::from_stream(futures_util::stream::iter(endless));
    let reply = app.import("", &[("x-scope-orgid", "long")], body).await;
    assert_eq!(
        reply.json()["error"],
        "1 of 2 lines cannot be read:\nline 1: it is longer than 10485760 bytes"
    );
    assert_eq!(app.samples("long").await.len(), 1);
}

#[tokio::test]
async fn a_body_that_breaks_off_keeps_what_came_whole() {
    let app = TestApp::start().await;
    let pieces = [
        Ok(Bytes::from("{\"metric\":{\"__name__\":\"a\"},\"values\":[1],\"timestamps\":[1]}\n{\"metric\"")),
        Err(std::io::Error::other("gone")),
    ];
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    let reply = app.import("", &[("x-scope-orgid", "broken")], body).await;
    assert_eq!((reply.status.as_u16(), count(&reply, "samples")), (400, "1".to_owned()));
    // Half a line is no bad line: the sender sees that it did not come.
    assert_eq!((count(&reply, "lines"), count(&reply, "bad-lines")), ("1".to_owned(), "0".to_owned()));
    let silent = TestApp::with(GatewayConfig {
        write_body: BodyLimits { max_bytes: 1 << 20, timeout: Duration::from_millis(20) },
        ..GatewayConfig::default()
    })
    .await;
    let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    assert_eq!(silent.import("", &[], never).await.status, 408);
}

#[tokio::test]
async fn many_lines_are_many_batches() {
    let app = TestApp::start().await;
    let mut body = String::new();
    for series in 0..20_000 {
        body += &format!(
            "{{\"metric\":{{\"__name__\":\"m\",\"n\":\"{series}\"}},\"values\":[{series},1],\"timestamps\":[1,2]}}\n"
        );
    }
    let reply = app.import("", &[("x-scope-orgid", "many")], body).await;
    assert_eq!((reply.status.as_u16(), count(&reply, "samples")), (204, "40000".to_owned()));
    let many = [("x-scope-orgid", "many")];
    let summary = app.call("GET", &format!("/api/v1/export?summary=1&{ALL}"), &many, "").await;
    let end: Json = serde_json::from_str(summary.text()).unwrap();
    assert_eq!(end["end"]["checksum"], count(&reply, "checksum"));
}

#[tokio::test]
async fn a_compressed_export_ends() {
    let app = TestApp::start().await;
    for selector in ["up", "nothing"] {
        let path = format!("/api/v1/export?match[]={selector}&exact=1");
        let reply = app.call("GET", &path, &[("host", "localhost"), ("accept-encoding", "gzip")], "").await;
        assert_eq!(
            (reply.status.as_u16(), &reply.headers["content-encoding"]),
            (200, &"gzip".parse().unwrap())
        );
        let mut text = String::new();
        let mut plain = async_compression::tokio::bufread::GzipDecoder::new(&*reply.body);
        tokio::io::AsyncReadExt::read_to_string(&mut plain, &mut text).await.unwrap();
        assert!(text.lines().last().unwrap().starts_with(r#"{"end":"#), "{text}");
    }
}
