use super::{quantile::NanEffect, *};
use crate::model::{Histogram, stale_nan};

/// Positive buckets from index `from` on; the sum is given, the count is what they add up to.
fn exponential(schema: i32, sum: f64, from: i32, buckets: &[f64]) -> FloatHistogram {
    FloatHistogram {
        schema,
        sum,
        count: buckets.iter().sum(),
        positive_spans: vec![Span { offset: from, length: u32::try_from(buckets.len()).unwrap() }],
        positive_buckets: buckets.to_vec(),
        ..FloatHistogram::default()
    }
}

fn custom(bounds: &[f64], buckets: &[f64]) -> FloatHistogram {
    FloatHistogram { custom_values: Arc::from(bounds), ..exponential(CUSTOM_BUCKETS_SCHEMA, 1.0, 0, buckets) }
}

#[test]
fn stored_differences_become_counts() {
    let stored = Histogram {
        schema: 1,
        zero_threshold: 0.001,
        sum: 18.4,
        reset_hint: ResetHint::No,
        positive_spans: vec![Span { offset: 0, length: 2 }, Span { offset: 1, length: 2 }],
        negative_spans: vec![Span { offset: 0, length: 1 }],
        counts: Counts::Integer { count: 9, zero_count: 2, positive: vec![1, 1, -1, 1], negative: vec![1] },
        custom_values: Vec::new(),
    };
    let histogram = FloatHistogram::from_histogram(&stored);
    assert_eq!(histogram.positive_buckets, [1.0, 2.0, 1.0, 2.0]);
    assert_eq!(histogram.positive().collect::<Vec<_>>(), [(0, 1.0), (1, 2.0), (3, 1.0), (4, 2.0)]);
    assert_eq!((histogram.count, histogram.zero_count, histogram.reset_hint), (9.0, 2.0, ResetHint::No));
    assert!(!histogram.is_stale());
    let stale = Histogram { sum: stale_nan(), ..stored };
    assert!(FloatHistogram::from_histogram(&stale).is_stale());
}

#[test]
fn spans_that_promise_more_than_there_is_do_no_harm() {
    let histogram = FloatHistogram {
        positive_spans: vec![
            Span { offset: i32::MAX, length: u32::MAX },
            Span { offset: i32::MAX, length: 3 },
            Span { offset: i32::MIN, length: 0 },
        ],
        positive_buckets: vec![1.0, 2.0],
        ..exponential(8, 1.0, 0, &[])
    };
    assert!(histogram.positive().count() <= 2);
    let _ = (
        histogram.to_string(),
        histogram.quantile(0.5),
        histogram.fraction(0.0, 1.0),
        histogram.at_schema(-4),
    );
    let _ = histogram.detect_reset(&exponential(8, 1.0, i32::MIN, &[1.0]));
}

#[test]
fn bounds_are_powers_of_two() {
    for (schema, index, bound) in [
        (0, 0, 1.0),
        (0, 1, 2.0),
        (0, -3, 0.125),
        (2, 1, 1.189_207_115_002_721),
        (2, 4, 2.0),
        (2, -2, std::f64::consts::FRAC_1_SQRT_2),
        (-1, 2, 16.0),
        (-4, 1, 65536.0),
        (0, 1023, 2_f64.powi(1023)),
        (0, 1024, f64::MAX),
        (-4, 64, f64::MAX),
        (8, 1024 * 256, f64::MAX),
        (0, 1025, f64::INFINITY),
        (0, -1074, 5e-324),
        (0, -2000, 0.0),
        (-4, i32::MAX, f64::INFINITY),
        (8, i32::MIN, 0.0),
    ] {
        assert_eq!(exponential_bound(index, schema), bound, "schema {schema}, index {index}");
    }
}

#[test]
fn buckets_come_from_low_to_high_with_their_rules() {
    let histogram = FloatHistogram {
        zero_threshold: 0.5,
        zero_count: 4.0,
        count: 10.0,
        negative_spans: vec![Span { offset: 0, length: 2 }],
        negative_buckets: vec![1.0, 2.0],
        ..exponential(0, 7.5, 1, &[3.0, 0.0])
    };
    let buckets: Vec<_> =
        histogram.all_buckets().map(|b| (b.boundary_rule(), b.lower, b.upper, b.count)).collect();
    assert_eq!(
        buckets,
        [
            (1, -2.0, -1.0, 2.0),
            (1, -1.0, -0.5, 1.0),
            (3, -0.5, 0.5, 4.0),
            (0, 1.0, 2.0, 3.0),
            (0, 2.0, 4.0, 0.0)
        ]
    );
    assert_eq!(histogram.to_string(), "{count:10, sum:7.5, [-2,-1):2, [-1,-0.5):1, [-0.5,0.5]:4, (1,2]:3}");
    assert_eq!(
        custom(&[0.5, 2.0], &[1.0, 2.0, 1_000_000.0]).to_string(),
        "{count:1.000003e+06, sum:1, [-Inf,0.5]:1, (0.5,2]:2, (2,+Inf]:1e+06}"
    );
    assert_eq!(FloatHistogram::default().to_string(), "{count:0, sum:0}");
}

#[test]
fn equality_is_about_what_is_in_the_buckets() {
    let a = exponential(0, 3.0, 1, &[1.0, 0.0, 2.0]);
    let b = FloatHistogram {
        positive_spans: vec![
            Span { offset: 1, length: 1 },
            Span { offset: 0, length: 0 },
            Span { offset: 1, length: 1 },
        ],
        positive_buckets: vec![1.0, 2.0],
        reset_hint: ResetHint::Gauge,
        ..a.clone()
    };
    assert!(a.equals(&b) && b.equals(&a));
    assert!(!a.equals(&FloatHistogram { sum: 4.0, ..a.clone() }));
    assert!(!a.equals(&exponential(0, 3.0, 2, &[1.0, 0.0, 2.0])));
    assert!(!custom(&[1.0], &[1.0]).equals(&custom(&[2.0], &[1.0])));
    let nan = FloatHistogram { sum: f64::NAN, ..a.clone() };
    assert!(nan.equals(&nan.clone()) && !nan.equals(&a));
}

#[test]
fn sums_bring_schemas_together() {
    // At schema 1, index 1 and 2 are what index 1 is at schema 0.
    let mut sum = exponential(1, 5.0, 1, &[1.0, 2.0, 4.0]);
    let joined = sum.add(&exponential(0, 2.0, 1, &[10.0])).unwrap();
    assert_eq!(joined, Joined::default());
    assert_eq!((sum.schema, sum.count, sum.sum), (0, 17.0, 7.0));
    assert_eq!(sum.positive().collect::<Vec<_>>(), [(1, 13.0), (2, 4.0)]);
    let mut difference = sum.clone();
    difference.sub(&exponential(0, 2.0, 1, &[13.0])).unwrap();
    assert_eq!(difference.positive().collect::<Vec<_>>(), [(2, 4.0)]);
    assert_eq!((difference.count, difference.sum), (4.0, 5.0));
}

#[test]
fn the_wider_zero_bucket_swallows_what_lies_in_it() {
    let mut sum = FloatHistogram {
        zero_threshold: 0.001,
        zero_count: 1.0,
        ..exponential(0, 1.0, -1, &[2.0, 4.0, 8.0])
    };
    // 0.7 lies across the bucket from 0.5 to 1, which is filled: so the zero bucket reaches to 1.
    let other = FloatHistogram { zero_threshold: 0.7, zero_count: 10.0, ..exponential(0, 1.0, 2, &[1.0]) };
    sum.add(&other).unwrap();
    assert_eq!((sum.zero_threshold, sum.zero_count), (1.0, 17.0));
    assert_eq!(sum.positive().collect::<Vec<_>>(), [(1, 8.0), (2, 1.0)]);
    // The same the other way round.
    let mut sum = other;
    sum.add(&FloatHistogram {
        zero_threshold: 0.001,
        zero_count: 1.0,
        ..exponential(0, 1.0, -1, &[2.0, 4.0, 8.0])
    })
    .unwrap();
    assert_eq!((sum.zero_threshold, sum.zero_count), (1.0, 17.0));
    assert_eq!(sum.positive().collect::<Vec<_>>(), [(1, 8.0), (2, 1.0)]);
}

#[test]
fn a_threshold_that_is_no_number_does_no_harm() {
    let odd = |zero_threshold: f64| FloatHistogram { zero_threshold, ..exponential(0, 1.0, 1, &[1.0]) };
    for (a, b) in [(f64::NAN, f64::NAN), (f64::NAN, 1.5), (1.5, f64::NAN), (f64::INFINITY, 0.0), (-1.0, 0.0)]
    {
        let mut sum = odd(a);
        sum.add(&odd(b)).unwrap();
        assert_eq!(sum.count, 2.0);
        let _ = odd(a).detect_reset(&odd(b));
    }
}

#[test]
fn custom_buckets_meet_at_the_bounds_they_share() {
    let mut sum = custom(&[1.0, 2.0, 4.0], &[1.0, 2.0, 3.0, 4.0]);
    let joined = sum.add(&custom(&[1.0, 3.0, 4.0], &[10.0, 20.0, 30.0, 40.0])).unwrap();
    assert!(joined.bounds_reconciled);
    assert_eq!(*sum.custom_values, [1.0, 4.0]);
    assert_eq!(sum.positive_buckets, [11.0, 55.0, 44.0]);
    assert_eq!(sum.add(&exponential(0, 1.0, 0, &[1.0])), Err(Mismatch::Schemas));
}

#[test]
fn hints_of_a_sum_follow_both() {
    use ResetHint::{Gauge, No, Unknown, Yes};
    for (a, b, result, collision) in [
        (Yes, Yes, Yes, false),
        (Yes, No, Unknown, true),
        (No, Yes, Unknown, true),
        (Gauge, Yes, Gauge, false),
        (No, Gauge, Gauge, false),
        (Unknown, No, Unknown, false),
        (Yes, Unknown, Unknown, false),
    ] {
        let mut sum = FloatHistogram { reset_hint: a, ..FloatHistogram::default() };
        let joined = sum.add(&FloatHistogram { reset_hint: b, ..FloatHistogram::default() }).unwrap();
        assert_eq!((sum.reset_hint, joined.reset_collision), (result, collision), "{a:?} + {b:?}");
    }
}

#[test]
fn factors_reach_every_number() {
    let mut histogram = FloatHistogram { zero_count: 1.0, ..exponential(0, 4.0, 1, &[2.0]) };
    histogram.mul(3.0);
    assert_eq!((histogram.zero_count, histogram.sum, histogram.positive_buckets[0]), (3.0, 12.0, 6.0));
    assert_eq!(histogram.reset_hint, ResetHint::Unknown);
    histogram.mul(-1.0);
    assert_eq!(histogram.reset_hint, ResetHint::Gauge);
    histogram.div(0.0);
    assert!(histogram.positive_buckets.is_empty() && histogram.positive_spans.is_empty());
    assert_eq!(histogram.sum, f64::NEG_INFINITY);
}

#[test]
fn sums_and_means_of_many_do_not_lose_small_ones() {
    let parts = [1.0, 1e100, 1.0, -1e100].map(|n| exponential(0, n, 1, &[n]));
    let mut sum = HistogramSum::new(&parts[0]);
    let mut mean = HistogramMean::new(&parts[0]);
    for part in &parts[1..] {
        sum.add(part).unwrap();
        mean.add(part).unwrap();
    }
    assert_eq!(sum.corrected().positive_buckets, [2.0]);
    assert_eq!((mean.corrected().sum, mean.corrected().count), (0.5, 0.5));
    let large = exponential(0, f64::MAX, 1, &[1.0]);
    let mut mean = HistogramMean::new(&large);
    mean.add(&large).unwrap();
    mean.add(&large).unwrap();
    let mean = mean.corrected();
    assert!((mean.sum / f64::MAX - 1.0).abs() < 1e-15 && mean.count == 1.0);
}

#[test]
fn a_counter_that_lost_something_started_again() {
    let before =
        FloatHistogram { zero_threshold: 0.001, zero_count: 2.0, ..exponential(1, 9.0, 1, &[3.0, 3.0]) };
    let grown = FloatHistogram { count: 20.0, ..before.clone() };
    let case = |change: &dyn Fn(&mut FloatHistogram)| {
        let mut now = grown.clone();
        change(&mut now);
        now.detect_reset(&before)
    };
    assert!(!case(&|_| {}));
    assert!(case(&|h| h.count = 1.0));
    assert!(case(&|h| h.zero_count = 1.0));
    assert!(case(&|h| h.positive_buckets[1] = 2.0));
    assert!(case(&|h| h.positive_buckets.truncate(1)));
    assert!(case(&|h| h.schema = 2));
    assert!(case(&|h| h.zero_threshold = 0.0001));
    assert!(case(&|h| h.reset_hint = ResetHint::Yes));
    assert!(!case(&|h| {
        h.reset_hint = ResetHint::No;
        h.count = 0.0;
    }));
    // Coarser is what a running counter may become.
    let coarse = FloatHistogram {
        zero_threshold: 0.001,
        zero_count: 2.0,
        count: 20.0,
        ..exponential(0, 9.0, 1, &[6.0])
    };
    assert!(!coarse.detect_reset(&before));
    let lost = FloatHistogram { positive_buckets: vec![5.0], ..coarse };
    assert!(lost.detect_reset(&before));
    // Custom bounds may change too.
    let old = custom(&[1.0, 2.0], &[1.0, 2.0, 3.0]);
    assert!(!custom(&[2.0, 3.0], &[3.0, 3.0, 0.0]).detect_reset(&old));
    assert!(custom(&[2.0, 3.0], &[2.0, 3.0, 1.0]).detect_reset(&old));
}

#[test]
fn quantiles_grow_evenly_over_the_logarithm() {
    // One bucket from 1 to 2, one from 2 to 4.
    let histogram = exponential(0, 9.0, 1, &[4.0, 4.0]);
    let q = |q| histogram.quantile(q).value;
    assert_eq!(q(0.25), 2_f64.sqrt());
    assert!((q(0.5) - 2.0).abs() < 1e-15);
    assert!((q(0.75) - 2.0 * 2_f64.sqrt()).abs() < 1e-15);
    assert_eq!((q(0.0), q(1.0)), (1.0, 4.0));
    assert_eq!((q(-0.1), q(1.1)), (f64::NEG_INFINITY, f64::INFINITY));
    assert!(q(f64::NAN).is_nan() && FloatHistogram::default().quantile(0.5).value.is_nan());
}

#[test]
fn negative_buckets_mirror_positive_ones() {
    let mut histogram = exponential(0, -9.0, 1, &[4.0, 4.0]);
    std::mem::swap(&mut histogram.positive_spans, &mut histogram.negative_spans);
    std::mem::swap(&mut histogram.positive_buckets, &mut histogram.negative_buckets);
    assert!((histogram.quantile(0.75).value + 2_f64.sqrt()).abs() < 1e-15);
    assert_eq!(histogram.quantile(0.0).value, -4.0);
    assert!((histogram.fraction(-2.0, 0.0).value - 0.5).abs() < 1e-15);
}

#[test]
fn the_zero_bucket_is_linear_and_cut_at_zero() {
    let both =
        FloatHistogram { zero_threshold: 1.0, zero_count: 4.0, count: 4.0, ..FloatHistogram::default() };
    assert_eq!(both.quantile(0.25).value, -0.5);
    let positive =
        FloatHistogram { zero_count: 4.0, count: 8.0, zero_threshold: 1.0, ..exponential(0, 9.0, 1, &[4.0]) };
    assert_eq!(positive.quantile(0.25).value, 0.5);
    assert_eq!(positive.fraction(0.0, 0.5).value, 0.25);
}

#[test]
fn custom_buckets_are_linear_with_open_ends() {
    let histogram = custom(&[1.0, 3.0], &[2.0, 4.0, 2.0]);
    assert_eq!(histogram.quantile(0.125).value, 0.5);
    assert_eq!(histogram.quantile(0.5).value, 2.0);
    assert_eq!(histogram.quantile(0.9).value, 3.0);
    assert_eq!(custom(&[-1.0, 3.0], &[2.0, 4.0, 2.0]).quantile(0.1).value, -1.0);
    assert_eq!(histogram.fraction(0.0, 2.0).value, 0.5);
    assert_eq!(histogram.fraction(f64::NEG_INFINITY, f64::INFINITY).value, 1.0);
    assert_eq!(histogram.fraction(2.0, 2.0).value, 0.0);
    assert!(histogram.fraction(f64::NAN, 1.0).value.is_nan());
}

#[test]
fn nan_observations_count_as_the_highest() {
    let histogram = FloatHistogram { count: 10.0, sum: f64::NAN, ..exponential(0, 0.0, 1, &[4.0, 4.0]) };
    let half = histogram.quantile(0.4);
    assert_eq!(half.nan, NanEffect::Skewed);
    assert!((half.value - 2.0).abs() < 1e-15);
    assert_eq!(histogram.quantile(0.9).nan, NanEffect::Result);
    assert!(histogram.quantile(0.9).value.is_nan());
    let all = histogram.fraction(f64::NEG_INFINITY, f64::INFINITY);
    assert_eq!((all.value, all.has_nan), (0.8, true));
    let only = FloatHistogram { count: 1.0, sum: f64::NAN, ..FloatHistogram::default() };
    assert_eq!(only.quantile(0.5).nan, NanEffect::Result);
}

#[test]
fn variance_takes_the_middle_of_each_bucket() {
    // Middles 2 and 4 (custom), mean 3: variance 1.
    let histogram = FloatHistogram { sum: 12.0, ..custom(&[1.0, 3.0, 5.0], &[0.0, 2.0, 2.0]) };
    assert_eq!((histogram.mean(), histogram.variance()), (3.0, 1.0));
    // The geometric middle of 1 and 4 is 2.
    let histogram = exponential(-1, 8.0, 1, &[4.0]);
    assert_eq!(histogram.variance(), 0.0);
}

#[test]
fn size_grows_with_the_buckets() {
    assert_eq!(FloatHistogram::default().size_in_samples(), 10);
    assert_eq!(exponential(0, 1.0, 0, &[1.0; 100]).size_in_samples(), (160 + 8 + 800 + 8) / 16);
}
