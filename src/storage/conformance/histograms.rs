//! Native histograms come back to the bit, and share a series with floats.

use std::sync::Arc;

use super::{Settles, Subject, ago, bits, labels, pairs};
use crate::{
    model::{
        Histogram, Labels, Timestamp,
        histogram::{CUSTOM_BUCKETS_SCHEMA, Counts, ResetHint, Span},
        stale_nan,
    },
    storage::{BatchHistogram, HistogramSample, WriteBatch},
};

pub(super) fn histogram_examples() -> Vec<Histogram> {
    let span = |offset, length| Span { offset, length };
    let integer = Histogram {
        schema: 3,
        zero_threshold: 1e-128,
        sum: 18.4,
        reset_hint: ResetHint::Unknown,
        positive_spans: vec![span(0, 2), span(1, 2)],
        negative_spans: vec![span(-3, 1)],
        counts: Counts::Integer { count: 21, zero_count: 2, positive: vec![1, 1, -1, 7], negative: vec![3] },
        custom_values: vec![],
    };
    let float = Histogram {
        schema: -4,
        reset_hint: ResetHint::Gauge,
        sum: f64::NAN,
        negative_spans: vec![],
        positive_spans: vec![span(i32::MAX, 1)],
        counts: Counts::Float { count: 0.5, zero_count: -0.0, positive: vec![0.5], negative: vec![] },
        ..integer.clone()
    };
    let custom = Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        zero_threshold: 0.0,
        sum: -3.0,
        reset_hint: ResetHint::Yes,
        positive_spans: vec![span(0, 3)],
        negative_spans: vec![],
        counts: Counts::Integer { count: 6, zero_count: 0, positive: vec![1, 1, 1], negative: vec![] },
        custom_values: vec![0.1, 0.5],
    };
    let stale = Histogram {
        schema: 0,
        zero_threshold: 0.0,
        sum: stale_nan(),
        reset_hint: ResetHint::No,
        positive_spans: vec![],
        negative_spans: vec![],
        counts: Counts::Integer { count: 0, zero_count: 0, positive: vec![], negative: vec![] },
        custom_values: vec![],
    };
    vec![integer, float, custom, stale]
}

pub(super) fn histograms(labels: &Labels, samples: &[(i64, Histogram)]) -> WriteBatch {
    let mut batch = WriteBatch::over(vec![labels.clone()]);
    let sample = |(at, histogram): &(i64, Histogram)| BatchHistogram {
        series: 0,
        timestamp: Timestamp(*at),
        histogram: Arc::new(histogram.clone()),
        start: at - 500,
    };
    batch.histograms = samples.iter().map(sample).collect();
    batch
}

fn assert_same_histograms(found: &[HistogramSample], expect: &[(i64, Histogram)]) {
    assert_eq!(found.len(), expect.len());
    for (found, (at, histogram)) in found.iter().zip(expect) {
        assert_eq!((found.timestamp, found.start), (*at, at - 500));
        assert!(found.histogram.same_bits(histogram), "{:?} is not {histogram:?}", found.histogram);
    }
}

pub(super) async fn histograms_come_back_to_the_bit(s: &mut Subject<'_>) {
    let series = labels(&[("__name__", "native")]);
    let samples: Vec<(i64, Histogram)> =
        (0..).zip(histogram_examples()).map(|(i, h)| (ago(600) + i * 15_000, h)).collect();
    let (early, late) = samples.split_at(2);
    assert_eq!(s.append(histograms(&series, late)).await.histograms, 2);
    s.settle().await;
    assert_eq!(s.append(histograms(&series, early)).await.histograms, 2);
    assert_eq!(s.append(histograms(&series, early)).await.histograms, 2);
    s.settle().await;
    let all = s.everything().await;
    assert_eq!(all.len(), 1);
    assert_same_histograms(&all[0].1.histograms, &samples);
}

pub(super) async fn a_series_has_one_sample_at_a_time(s: &mut Subject<'_>) {
    if s.backend.settles() == Settles::Greatest {
        return;
    }
    let series = labels(&[("__name__", "mixed")]);
    let example = histogram_examples().remove(0);
    s.write(&series, &[(ago(60), 1.0), (ago(45), 2.0)]).await;
    s.append(histograms(&series, &[(ago(60), example.clone()), (ago(30), example.clone())])).await;
    s.settle().await;
    s.write(&series, &[(ago(30), 3.0)]).await;
    s.settle().await;
    let all = s.everything().await;
    assert_eq!(pairs(&all[0].1), bits(&[(ago(45), 2.0), (ago(30), 3.0)]));
    assert_same_histograms(&all[0].1.histograms, &[(ago(60), example)]);
}
