use super::*;
use crate::model::{histogram::ResetHint, stale_nan};

fn integer(schema: i32, spans: &[(i32, u32)], deltas: &[i64], count: u64) -> Histogram {
    Histogram {
        schema,
        zero_threshold: 0.0,
        sum: 1.0,
        reset_hint: ResetHint::Unknown,
        positive_spans: spans.iter().map(|&(offset, length)| Span { offset, length }).collect(),
        negative_spans: vec![],
        counts: Counts::Integer { count, zero_count: 0, positive: deltas.to_vec(), negative: vec![] },
        custom_values: vec![],
    }
}

fn float(spans: &[(i32, u32)], buckets: &[f64]) -> Histogram {
    Histogram {
        counts: Counts::Float { count: 1.0, zero_count: 0.0, positive: buckets.to_vec(), negative: vec![] },
        ..integer(0, spans, &[], 0)
    }
}

fn custom(spans: &[(i32, u32)], buckets: &[f64], bounds: &[f64]) -> Histogram {
    Histogram { schema: CUSTOM_BUCKETS_SCHEMA, custom_values: bounds.to_vec(), ..float(spans, buckets) }
}

#[track_caller]
fn refuse(bad: Histogram, why: BadHistogram) {
    assert_eq!(histogram(bad), Err(why));
}

#[test]
fn good_histograms_pass_as_they_are() {
    for good in [
        integer(0, &[], &[], 0),
        integer(-4, &[(i32::MIN, 1)], &[3], 3),
        integer(8, &[(0, 2), (5, 1)], &[1, 1, -2], 3),
        Histogram { sum: f64::NAN, ..integer(3, &[(0, 1)], &[3], 5) },
        Histogram { sum: stale_nan(), ..integer(3, &[], &[], 0) },
        float(&[(0, 2)], &[0.5, 7.0]),
        float(&[(0, 1)], &[f64::NAN]),
        custom(&[(0, 3)], &[1.0, 2.0, 3.0], &[0.5, 1.0]),
        custom(&[(2, 1)], &[1.0], &[-0.5, 1.0]),
        custom(&[], &[], &[]),
    ] {
        assert!(histogram(good.clone()).unwrap().same_bits(&good), "{good:?}");
    }
}

#[test]
fn histograms_that_contradict_themselves_are_refused() {
    for schema in [-54, -52, -5, 53, i32::MAX, i32::MIN] {
        refuse(integer(schema, &[], &[], 0), BadHistogram::Schema);
    }
    refuse(integer(0, &[(0, 2)], &[1], 1), BadHistogram::SpansMismatch);
    refuse(integer(0, &[(0, u32::MAX), (0, u32::MAX)], &[1], 1), BadHistogram::SpansMismatch);
    refuse(float(&[], &[1.0]), BadHistogram::SpansMismatch);
    refuse(integer(0, &[(0, 1), (-1, 1)], &[1, 0], 2), BadHistogram::SpanOffset);
    refuse(integer(0, &[(i32::MAX, 1)], &[1], 1), BadHistogram::SpanOffset);
    refuse(integer(0, &[(0, 2)], &[1, -2], 0), BadHistogram::NegativeCount);
    refuse(float(&[(0, 1)], &[-0.5]), BadHistogram::NegativeCount);
    refuse(integer(0, &[(0, 1)], &[3], 2), BadHistogram::CountMismatch);
    refuse(integer(0, &[(0, 1)], &[3], 4), BadHistogram::CountMismatch);
    refuse(Histogram { sum: f64::NAN, ..integer(0, &[(0, 1)], &[3], 2) }, BadHistogram::CountMismatch);
    refuse(integer(0, &[(0, 2)], &[i64::MAX, 1], 4), BadHistogram::Overflow);
    refuse(integer(0, &[(0, 3)], &[i64::MAX, 0, 0], 4), BadHistogram::Overflow);
    refuse(Histogram { custom_values: vec![1.0], ..integer(0, &[], &[], 0) }, BadHistogram::UnexpectedBounds);
    refuse(custom(&[(0, 3)], &[1.0; 3], &[1.0]), BadHistogram::TooFewBounds);
    refuse(custom(&[(0, 1)], &[1.0], &[1.0, 1.0]), BadHistogram::Bounds);
    refuse(custom(&[(0, 1)], &[1.0], &[1.0, f64::INFINITY]), BadHistogram::Bounds);
    refuse(custom(&[(0, 1)], &[1.0], &[f64::NAN]), BadHistogram::Bounds);
    refuse(custom(&[(-1, 1)], &[1.0], &[1.0]), BadHistogram::SpanOffset);
    refuse(Histogram { zero_threshold: 0.1, ..custom(&[(0, 1)], &[1.0], &[1.0]) }, BadHistogram::NotCustom);
}

#[test]
fn too_fine_a_resolution_is_brought_down() {
    // Buckets 1 and 2 become 1, 3 and 4 become 2; 0 stays 0, -1 too.
    let fine = integer(9, &[(-1, 4), (0, 2), (7, 1)], &[1, 1, 1, 1, 1, 1, 1], 28);
    let reduced = histogram(fine).unwrap();
    assert_eq!(reduced.schema, 8);
    // Numbers -1, 0, 1, 2, 3, 4, 12 hold 1, 2, 3, 4, 5, 6, 7.
    assert_eq!(reduced.positive_spans, [Span { offset: 0, length: 3 }, Span { offset: 3, length: 1 }]);
    assert_eq!(
        reduced.counts,
        Counts::Integer { count: 28, zero_count: 0, positive: vec![3, 4, 4, -4], negative: vec![] }
    );
    let finest = Histogram { schema: 52, ..float(&[(i32::MIN, 1), (i32::MAX, 1)], &[1.0, 2.0]) };
    let reduced = histogram(finest).unwrap();
    assert_eq!(reduced.positive_spans, [Span { offset: 0, length: 1 }]);
    assert_eq!(
        reduced.counts,
        Counts::Float { count: 1.0, zero_count: 0.0, positive: vec![3.0], negative: vec![] }
    );
}

#[test]
fn labels_are_checked() {
    let limits = IngestLimits {
        max_labels: 3,
        max_label_name_bytes: 8,
        max_label_value_bytes: 4,
        ..IngestLimits::default()
    };
    let read = |order, given: &[(&[u8], &[u8])]| {
        let mut pairs = Vec::new();
        for (name, value) in given {
            take_pair(&mut pairs, name, value, &limits)?;
        }
        series_labels(&mut pairs, order).map(|labels| labels.to_string())
    };
    let name: (&[u8], &[u8]) = (b"__name__", b"up");
    let ok = |text: &str| Ok(text.to_owned());
    assert_eq!(read(Order::Any, &[(b"b", b"1"), name, (b"a", b"")]), ok(r#"{__name__="up", b="1"}"#));
    assert_eq!(read(Order::Sorted, &[(b"A", b"1"), name]), ok(r#"{A="1", __name__="up"}"#));
    assert_eq!(read(Order::Sorted, &[(b"b", b"1"), name]), Err(Reason::UnsortedLabels));
    assert_eq!(read(Order::Sorted, &[name, name]), Err(Reason::DuplicateLabel));
    assert_eq!(read(Order::Any, &[(b"b", b"1"), name, (b"b", b"2")]), Err(Reason::DuplicateLabel));
    assert_eq!(read(Order::Any, &[(b"b", b"1")]), Err(Reason::NoMetricName));
    assert_eq!(read(Order::Any, &[(b"__name__", b"")]), Err(Reason::NoMetricName));
    assert_eq!(read(Order::Any, &[]), Err(Reason::NoMetricName));
    assert_eq!(read(Order::Any, &[name, (b"", b"1")]), Err(Reason::EmptyLabelName));
    assert_eq!(read(Order::Any, &[name, (b"\xff", b"1")]), Err(Reason::NotUtf8));
    assert_eq!(read(Order::Any, &[name, (b"a", b"\xc3\x28")]), Err(Reason::NotUtf8));
    assert_eq!(read(Order::Any, &[name, (b"a", b"12345")]), Err(Reason::LongLabelValue));
    assert_eq!(read(Order::Any, &[name, (b"123456789", b"1")]), Err(Reason::LongLabelName));
    let four: [(&[u8], &[u8]); 4] = [name, (b"a", b"1"), (b"b", b"1"), (b"c", b"1")];
    assert_eq!(read(Order::Any, &four), Err(Reason::TooManyLabels));
}
