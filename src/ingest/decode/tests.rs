use proptest::prelude::*;

use super::{
    encode::{Encoder, Series, compress, label, write_histogram, write_request, write_request2},
    wire::Message,
    *,
};
use crate::{
    ingest::known::KnownSeries,
    model::{
        Histogram, MetricType, STALE_NAN_BITS, TenantId,
        histogram::{Counts, ResetHint, Span},
    },
    storage::BatchLabels,
};

const FOREVER: Timestamp = Timestamp::MAX;

fn decode1(plain: &[u8]) -> Result<Draft, IngestError> {
    decode1_within(plain, &IngestLimits::default(), FOREVER)
}

fn decode1_within(plain: &[u8], limits: &IngestLimits, latest: Timestamp) -> Result<Draft, IngestError> {
    let known = KnownSeries::new(64, (1, 2));
    let keyer = known.keyer(&TenantId::anonymous(), 0, 1);
    remote_write::decode(Bytes::copy_from_slice(plain), &keyer, limits, latest)
}

fn decode2(plain: &[u8]) -> Result<Draft, IngestError> {
    let known = KnownSeries::new(64, (1, 2));
    let keyer = known.keyer(&TenantId::anonymous(), 0, 2);
    remote_write2::decode(Bytes::copy_from_slice(plain), &keyer, &known, &IngestLimits::default(), FOREVER)
}

fn labels(draft: &Draft, series: usize) -> String {
    draft.labels.read(series, &IngestLimits::default()).map_or_else(|r| r.to_string(), |l| l.to_string())
}

fn histogram() -> Histogram {
    Histogram {
        schema: 3,
        zero_threshold: 0.001,
        sum: 18.4,
        reset_hint: ResetHint::No,
        positive_spans: vec![Span { offset: -2, length: 2 }, Span { offset: 3, length: 1 }],
        negative_spans: vec![Span { offset: 0, length: 1 }],
        counts: Counts::Integer { count: 12, zero_count: 2, positive: vec![1, 2, -1], negative: vec![4] },
        custom_values: vec![],
    }
}

fn float_histogram() -> Histogram {
    Histogram {
        schema: -53,
        zero_threshold: 0.0,
        sum: f64::NAN,
        reset_hint: ResetHint::Gauge,
        positive_spans: vec![Span { offset: 1, length: 2 }],
        negative_spans: vec![],
        counts: Counts::Float { count: 1.5, zero_count: 0.0, positive: vec![0.5, 1.0], negative: vec![] },
        custom_values: vec![0.1, 0.5],
    }
}

#[test]
fn everything_of_a_request_is_read() {
    let metadata = Metadata {
        metric: "up".to_owned(),
        kind: MetricType::Gauge,
        help: "Is it up?".to_owned(),
        unit: "s".to_owned(),
    };
    let series = [
        Series::new(&[("__name__", "up"), ("job", "api")])
            .sample(i64::MIN, f64::from_bits(STALE_NAN_BITS))
            .sample(i64::MAX, f64::from_bits(0x7ff8_0000_0000_0abc))
            .exemplar(&[("trace_id", "x")], 1.5, -7),
        Series::new(&[("__name__", "h")]).histogram(5, histogram()).histogram(6, float_histogram()),
    ];
    for draft in [
        decode1(&write_request(&series, std::slice::from_ref(&metadata))).unwrap(),
        decode2(&write_request2(&[
            Series { metadata: Some(metadata.clone()), ..series[0].clone() },
            series[1].clone(),
        ]))
        .unwrap(),
    ] {
        assert_eq!(labels(&draft, 0), r#"{__name__="up", job="api"}"#);
        assert_eq!(labels(&draft, 1), r#"{__name__="h"}"#);
        let samples: Vec<_> =
            draft.samples.iter().map(|s| (s.series, s.timestamp.0, s.value.to_bits(), s.start)).collect();
        assert_eq!(samples, [(0, i64::MIN, STALE_NAN_BITS, 0), (0, i64::MAX, 0x7ff8_0000_0000_0abc, 0)]);
        assert!(draft.histograms[0].histogram.same_bits(&histogram()));
        assert!(draft.histograms[1].histogram.same_bits(&float_histogram()));
        assert_eq!((draft.histograms[1].series, draft.histograms[1].timestamp), (1, Timestamp(6)));
        assert_eq!(draft.exemplars[0].exemplar.labels.to_string(), r#"{trace_id="x"}"#);
        assert_eq!(draft.exemplars[0].exemplar.timestamp, Timestamp(-7));
        assert_eq!(draft.metadata[0].metadata, metadata);
        assert!(draft.bad_samples.is_empty() && draft.bad_series.is_empty());
    }
}

#[test]
fn a_key_is_of_the_labels_and_nothing_else() {
    let a = |value| Series::new(&[("__name__", "up"), ("job", value)]);
    for decode in [(|s: &[Series]| decode1(&write_request(s, &[])).unwrap()) as fn(&[Series]) -> Draft, |s| {
        decode2(&write_request2(s)).unwrap()
    }] {
        let first = decode(&[a("x").sample(1, 1.0), a("y").sample(1, 1.0)]);
        let second = decode(&[a("y").sample(2, 3.0).sample(3, 4.0), a("x").sample(2, 7.0)]);
        assert_eq!(first.keys, [second.keys[1], second.keys[0]]);
        assert_ne!(first.keys[0], first.keys[1]);
    }
    // `ab`+`c` is not `a`+`bc`.
    let keys = decode2(&write_request2(&[
        Series::new(&[("ab", "c")]).sample(1, 1.0),
        Series::new(&[("a", "bc")]).sample(1, 1.0),
        Series::new(&[("c", "ab")]).sample(1, 1.0),
    ]))
    .unwrap()
    .keys;
    assert!(keys[0] != keys[1] && keys[0] != keys[2]);
}

#[test]
fn labels_in_pieces_are_read_and_not_keyed() {
    let mut request = Encoder::default();
    request.message(1, |m| {
        label(m, "b", "2");
        m.message(2, |m| {
            m.double(1, 1.0);
        });
        label(m, "__name__", "up");
    });
    let draft = decode1(&request.0).unwrap();
    assert_eq!(draft.keys, [0]);
    assert_eq!(labels(&draft, 0), r#"{__name__="up", b="2"}"#);
    assert_eq!(draft.labels.labels(0).to_string(), r#"{__name__="up", b="2"}"#);
}

#[test]
fn references_need_not_be_packed_and_symbols_may_come_last() {
    let mut request = Encoder::default();
    request.message(5, |m| {
        m.varint(1, 1).message(2, |m| {
            m.double(1, 1.0);
        });
        m.varint(1, 2);
    });
    request.message(5, |m| {
        m.packed(1, [1, 2]).message(2, |m| {
            m.double(1, 1.0);
        });
    });
    request.bytes(4, b"").bytes(4, b"__name__").bytes(4, b"up");
    let draft = decode2(&request.0).unwrap();
    assert_eq!(labels(&draft, 0), r#"{__name__="up"}"#);
    assert_eq!(draft.keys[0], draft.keys[1]);
}

#[test]
fn numbers_may_be_packed_or_not_and_unknown_fields_are_skipped() {
    let mut message = Encoder::default();
    message.message(99, |m| {
        m.bytes(1, b"what");
    });
    message.varint(1, 3).varint(12, 2).packed(12, [1, 0]).message(11, |m| {
        m.varint(2, 3).varint(7, 1).double(8, 1.0);
    });
    message.number(100 << 3 | 3).varint(1, 1).number(5 << 3 | 3).number(5 << 3 | 4).number(100 << 3 | 4);
    message.number(101 << 3 | 5).0.extend_from_slice(&[0; 4]);
    let decoded = super::histogram::histogram(Message::new(&message.0, 0)).unwrap().histogram;
    assert_eq!(
        decoded.counts,
        Counts::Integer { count: 3, zero_count: 0, positive: vec![1, -1, 0], negative: vec![] }
    );
    assert_eq!(decoded.positive_spans, [Span { offset: 0, length: 3 }]);
}

#[test]
fn a_start_is_the_samples_own_or_the_series() {
    let mut series = Series::new(&[("__name__", "c")]).sample(10, 1.0).sample(20, 2.0);
    series.samples[1].2 = 15;
    series.created = 5;
    let other = Series::new(&[("__name__", "d")]).sample(10, 1.0);
    let mut native = Series::new(&[("__name__", "h")]).histogram(10, histogram());
    native.histograms[0].2 = -3;
    let draft = decode2(&write_request2(&[series, other, native])).unwrap();
    assert_eq!(draft.samples.iter().map(|s| s.start).collect::<Vec<_>>(), [5, 15, 0]);
    assert_eq!(draft.histograms[0].start, -3);
}

#[test]
fn malformed_requests_are_refused() {
    let decode = |bytes: &[u8]| match decode1(bytes) {
        Err(IngestError::Decode(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(decode(&[0x0a]), "protobuf: unexpected end at byte 1");
    assert_eq!(decode(&[0x0a, 5, 0]), "protobuf: unexpected end at byte 2");
    assert_eq!(
        decode(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        "protobuf: unexpected end at byte 11"
    );
    assert_eq!(decode(&[0x80; 11]), "protobuf: number too long at byte 0");
    assert_eq!(decode(&[0x00]), "protobuf: illegal field number at byte 0");
    assert_eq!(decode(&[0x0f]), "protobuf: illegal wire type at byte 0");
    assert_eq!(decode(&[0x08, 1]), "protobuf: wrong wire type at byte 0");
    assert_eq!(decode(&[0x0a, 2, 0x10, 1]), "protobuf: wrong wire type at byte 2");
    assert_eq!(decode(&[0x0c]), "protobuf: illegal wire type at byte 0");
    assert_eq!(decode(&[0x33, 0x3c]), "protobuf: illegal group at byte 1");
    assert_eq!(decode(&[0x33; 100]), "protobuf: illegal group at byte 64");
    let mut request = Encoder::default();
    request.bytes(4, b"x");
    assert!(matches!(decode2(&request.0), Err(IngestError::Decode(DecodeError::FirstSymbol))));
}

#[test]
fn wrong_references_refuse_their_series_only() {
    let mut request = Encoder::default();
    request.bytes(4, b"").bytes(4, b"__name__").bytes(4, b"up");
    for refs in [vec![1, 2], vec![1], vec![1, 2, 3, 4], vec![1, 1 << 40], vec![u64::MAX, 2], vec![]] {
        request.message(5, |m| {
            m.packed(1, refs).message(2, |m| {
                m.double(1, 1.0);
            });
        });
    }
    let draft = decode2(&request.0).unwrap();
    let bad: Vec<_> = draft.bad_series.iter().map(|(series, reason)| (*series, reason.id())).collect();
    let refs = "label_refs_invalid";
    // The fourth is cut to 32 bits as protobuf says, which makes it the empty symbol.
    assert_eq!(bad, [(1, refs), (2, refs), (4, refs)]);
    assert_eq!(labels(&draft, 3), "the series has no metric name");
    assert_eq!(labels(&draft, 5), "the series has no metric name");
}

#[test]
fn a_2_0_series_has_floats_or_histograms() {
    let up = || Series::new(&[("__name__", "up")]);
    let draft = decode2(&write_request2(&[
        up().sample(1, 1.0).histogram(1, histogram()),
        up(),
        up().exemplar(&[("t", "1")], 1.0, 1),
        up().histogram(1, histogram()),
    ]))
    .unwrap();
    let bad: Vec<_> = draft.bad_series.iter().map(|(series, reason)| (*series, *reason)).collect();
    assert_eq!(bad, [(0, Reason::MixedSamples), (1, Reason::NoSamples), (2, Reason::NoSamples)]);
}

#[test]
fn the_declared_size_is_checked_before_anything_else() {
    let limits = IngestLimits { max_decompressed_bytes: 1000, ..IngestLimits::default() };
    let body = compress(&vec![7; 1001]);
    assert!(matches!(declared_size(&body, &limits), Err(IngestError::TooLarge { limit: 1000, .. })));
    assert_eq!(declared_size(&compress(&vec![7; 1000]), &limits).unwrap(), 1000);
    // Says it holds 16 MiB.
    let lie = [0x80, 0x80, 0x80, 0x08, 0, 0];
    let refused = declared_size(&lie, &IngestLimits::default());
    assert!(matches!(refused, Err(IngestError::Decode(DecodeError::Lying { .. }))), "{refused:?}");
    assert!(matches!(declared_size(&[0xff; 12], &limits), Err(IngestError::Decode(DecodeError::Snappy(_)))));
    // Within what is possible, but not true.
    assert!(matches!(decompress(&[0x10, 0, 0]), Err(DecodeError::Snappy(_))));
    assert!(matches!(declared_size(&[], &limits), Err(IngestError::Decode(DecodeError::Snappy(_)))));
    let nothing = compress(&[]);
    assert_eq!(declared_size(&nothing, &limits).unwrap(), 0);
    assert!(decompress(&nothing).unwrap().is_empty());
    // Zeros are as dense as it gets, and are believed.
    let dense = compress(&vec![0; 32 << 20]);
    assert_eq!(declared_size(&dense, &IngestLimits::default()).unwrap(), 32 << 20);
}

#[test]
fn counts_are_bounded() {
    let limits = IngestLimits { max_samples: 10, max_series: 3, ..IngestLimits::default() };
    let up = || Series::new(&[("__name__", "up")]);
    let too_large = |result| match result {
        Err(IngestError::TooLarge { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let many = vec![up().sample(1, 1.0); 4];
    assert_eq!(too_large(decode1_within(&write_request(&many, &[]), &limits, FOREVER)), "series");
    let many = (0..11).fold(up(), |s, i| s.sample(i, 1.0));
    let many = write_request(&[many], &[]);
    assert_eq!(too_large(decode1_within(&many, &limits, FOREVER)), "samples");
    assert_eq!(too_large(decode1_within(&many, &limits, Timestamp(0))), "samples");
    // A request of nothing but empty samples, two bytes each.
    let mut request = Encoder::default();
    request.message(1, |m| m.0 = [0x12, 0].repeat(3_000_000));
    assert_eq!(too_large(decode1(&request.0)), "samples");
    assert_eq!(too_large(decode2(&[0x22, 0].repeat(3_000_000))), "symbols");
    assert_eq!(too_large(decode2(&[0x2a, 0].repeat(3_000_000))), "series");
}

#[test]
fn a_million_labels_are_too_many_for_a_series_and_no_trouble() {
    let mut request = Encoder::default();
    request.message(1, |m| {
        for i in 0..1_000_000_u32 {
            label(m, &format!("l{i}"), "v");
        }
        m.message(2, |m| {
            m.double(1, 1.0);
        });
    });
    let draft = decode1(&request.0).unwrap();
    assert_eq!(labels(&draft, 0), "the series has too many labels");
    assert!(draft.labels.describe(0).len() < 400);
}

#[test]
fn what_is_in_the_future_is_refused_alone() {
    let series = Series::new(&[("__name__", "up")])
        .sample(100, 1.0)
        .sample(101, 2.0)
        .exemplar(&[("t", "1")], 1.0, 101)
        .histogram(101, histogram());
    let draft =
        decode1_within(&write_request(&[series], &[]), &IngestLimits::default(), Timestamp(100)).unwrap();
    assert_eq!(draft.samples.len(), 1);
    assert!(draft.exemplars.is_empty() && draft.histograms.is_empty());
    let kinds: Vec<_> = draft.bad_samples.iter().map(|bad| (bad.kind, bad.reason)).collect();
    assert_eq!(
        kinds,
        [
            (SampleKind::Float, Reason::InFuture),
            (SampleKind::Exemplar, Reason::InFuture),
            (SampleKind::Histogram, Reason::InFuture)
        ]
    );
}

#[test]
fn metadata_is_told_once() {
    let metadata = Metadata {
        metric: String::new(),
        kind: MetricType::Histogram,
        help: "How long.".to_owned(),
        unit: String::new(),
    };
    let series = |name: &str, le: &str| Series {
        metadata: Some(metadata.clone()),
        ..Series::new(&[("__name__", name), ("le", le)]).sample(1, 1.0)
    };
    let request = write_request2(&[
        series("x_bucket", "1"),
        series("x_bucket", "2"),
        series("x_count", ""),
        series("x_bucket", "3"),
    ]);
    let draft = decode2(&request).unwrap();
    let metrics: Vec<_> = draft.metadata.iter().map(|m| m.metadata.metric.as_str()).collect();
    assert_eq!(metrics, ["x", "x"]);

    let known = KnownSeries::new(1 << 10, (1, 2));
    let keyer = known.keyer(&TenantId::anonymous(), 0, 2);
    let decode = || {
        remote_write2::decode(
            Bytes::copy_from_slice(&request),
            &keyer,
            &known,
            &IngestLimits::default(),
            FOREVER,
        )
    };
    for entry in decode().unwrap().metadata {
        known.remember(entry.key, crate::model::SeriesId(0));
    }
    assert!(decode().unwrap().metadata.is_empty());
}

#[test]
fn a_request_cut_anywhere_does_no_harm() {
    let series = [
        Series::new(&[("__name__", "up"), ("job", "api")]).sample(1, 1.0).exemplar(&[("t", "é")], 1.0, 2),
        Series { created: 7, ..Series::new(&[("__name__", "h")]).histogram(5, histogram()) },
        Series::new(&[("__name__", "g")]).histogram(5, float_histogram()),
    ];
    let requests = [write_request(&series, &[]), write_request2(&series)];
    for request in &requests {
        for end in 0..request.len() {
            for draft in [decode1(&request[..end]), decode2(&request[..end])].into_iter().flatten() {
                read_all(&draft);
            }
        }
        let body = compress(request);
        for end in 0..body.len() {
            if declared_size(&body[..end], &IngestLimits::default()).is_ok() {
                let _ = decompress(&body[..end]);
            }
        }
    }
    // And with each byte changed.
    for request in &requests {
        for at in 0..request.len() {
            for bit in [1, 0x10, 0x80] {
                let mut request = request.clone();
                request[at] ^= bit;
                for draft in [decode1(&request), decode2(&request)].into_iter().flatten() {
                    read_all(&draft);
                }
            }
        }
    }
}

fn read_all(draft: &Draft) {
    for series in 0..draft.keys.len() {
        let _ = draft.labels.read(series, &IngestLimits::default());
        draft.labels.describe(series);
    }
}

fn any_series() -> impl Strategy<Value = Series> {
    let labels = prop::collection::btree_map("[a-c_é]{1,3}", "[a-b\n\"é]{0,3}", 0..4);
    let samples = prop::collection::vec((any::<i64>(), any::<u64>(), any::<i64>()), 1..4);
    (labels, samples, any::<u32>()).prop_map(|(mut labels, samples, buckets)| {
        labels.insert("__name__".to_owned(), "m".to_owned());
        let float = |bits| f64::from_bits(bits);
        let samples: Vec<_> = samples.into_iter().map(|(t, bits, start)| (t, float(bits), start)).collect();
        let histogram = Histogram {
            counts: Counts::Integer {
                count: u64::from(buckets) * 2,
                zero_count: 0,
                positive: vec![i64::from(buckets), 0],
                negative: vec![],
            },
            positive_spans: vec![Span { offset: -5, length: 2 }],
            negative_spans: vec![],
            ..histogram()
        };
        let (samples, histograms) = if buckets % 2 == 0 {
            (samples, vec![])
        } else {
            (vec![], samples.into_iter().map(|(t, _, start)| (t, histogram.clone(), start)).collect())
        };
        Series { labels: labels.into_iter().collect(), samples, histograms, ..Series::default() }
    })
}

proptest! {
    /// What is written is read, to the bit.
    #[test]
    fn requests_come_back(series in prop::collection::vec(any_series(), 0..5)) {
        for (draft, starts) in [
            (decode1(&write_request(&series, &[])).unwrap(), false),
            (decode2(&write_request2(&series)).unwrap(), true),
        ] {
            let start = |start: i64| if starts { start } else { 0 };
            let expected: Vec<_> = (0_u32..)
                .zip(&series)
                .flat_map(|(i, s)| {
                    s.samples.iter().map(move |(t, v, begin)| (i, *t, v.to_bits(), start(*begin)))
                })
                .collect();
            let samples: Vec<_> =
                draft.samples.iter().map(|s| (s.series, s.timestamp.0, s.value.to_bits(), s.start)).collect();
            prop_assert_eq!(samples, expected);
            let histograms: Vec<_> = series.iter().flat_map(|s| &s.histograms).collect();
            prop_assert_eq!(histograms.len(), draft.histograms.len());
            for ((timestamp, histogram, begin), decoded) in histograms.into_iter().zip(&draft.histograms) {
                prop_assert_eq!((*timestamp, start(*begin)), (decoded.timestamp.0, decoded.start));
                prop_assert!(decoded.histogram.same_bits(histogram));
            }
            for (i, one) in series.iter().enumerate() {
                let expected = crate::model::Labels::from_pairs(one.labels.iter().cloned()).unwrap();
                prop_assert_eq!(draft.labels.labels(i), expected);
            }
        }
    }

    /// No bytes do harm.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for draft in [decode1(&bytes), decode2(&bytes)].into_iter().flatten() {
            read_all(&draft);
        }
        if declared_size(&bytes, &IngestLimits::default()).is_ok() {
            let _ = decompress(&bytes);
        }
    }

    #[test]
    fn histograms_come_back(sum in any::<u64>(), timestamp in any::<i64>(), start in any::<i64>()) {
        let sent = Histogram { sum: f64::from_bits(sum), ..histogram() };
        let mut message = Encoder::default();
        write_histogram(&mut message, &sent, timestamp, start);
        let read = super::histogram::histogram(Message::new(&message.0, 0)).unwrap();
        prop_assert!(read.histogram.same_bits(&sent));
        prop_assert_eq!((read.timestamp.0, read.start), (timestamp, start));
    }
}
