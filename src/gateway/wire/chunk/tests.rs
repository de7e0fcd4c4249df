use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{
    Histogram,
    histogram::{CUSTOM_BUCKETS_SCHEMA, ResetHint, Span},
    stale_nan,
};

/// What chunks give back.
fn decoded(chunks: &[Chunk]) -> SeriesSamples {
    let mut samples = SeriesSamples::default();
    for chunk in chunks {
        let before = samples.len();
        decode(chunk.encoding, &chunk.bytes, &mut samples).unwrap();
        assert!((1..=MAX_SAMPLES).contains(&(samples.len() - before)), "{chunk:?}");
        let (first, last) = match chunk.encoding {
            Encoding::Xor => {
                (samples.timestamps[before - samples.histograms.len()], samples.timestamps.last())
            }
            Encoding::Histogram | Encoding::FloatHistogram => {
                let times = &samples.histograms;
                (times[before - samples.timestamps.len()].timestamp, times.last().map(|h| &h.timestamp))
            }
        };
        assert_eq!((chunk.min_time, Some(&chunk.max_time)), (first, last));
    }
    assert!(chunks.windows(2).all(|pair| pair[0].max_time < pair[1].min_time), "chunks overlap");
    samples
}

/// A histogram without what chunks do not hold.
fn kept(histogram: &Histogram) -> Histogram {
    let mut kept = histogram.clone();
    if histogram.is_stale() {
        (kept.schema, kept.zero_threshold) = (0, 0.0);
        (kept.positive_spans, kept.negative_spans, kept.custom_values) = (vec![], vec![], vec![]);
        kept.counts = match kept.counts {
            Counts::Integer { .. } => {
                Counts::Integer { count: 0, zero_count: 0, positive: vec![], negative: vec![] }
            }
            Counts::Float { .. } => {
                Counts::Float { count: 0.0, zero_count: 0.0, positive: vec![], negative: vec![] }
            }
        };
        kept.reset_hint = ResetHint::Unknown;
    } else if kept.reset_hint != ResetHint::Gauge {
        kept.reset_hint = ResetHint::Unknown;
    }
    kept
}

#[track_caller]
fn check(samples: &SeriesSamples) {
    let back = decoded(&encode(samples));
    let bits = |samples: &SeriesSamples| samples.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!((&back.timestamps, bits(&back)), (&samples.timestamps, bits(samples)));
    assert_eq!(back.histograms.len(), samples.histograms.len());
    for (back, sample) in back.histograms.iter().zip(&samples.histograms) {
        assert_eq!(back.timestamp, sample.timestamp);
        let (back, sample) = (kept(&back.histogram), kept(&sample.histogram));
        assert!(back.same_bits(&sample), "{back:?} is not {sample:?}");
    }
}

fn histogram(count: u64, positive: Vec<i64>, reset_hint: ResetHint) -> Histogram {
    let length = u32::try_from(positive.len()).unwrap();
    Histogram {
        schema: 3,
        zero_threshold: 2_f64.powi(-128),
        sum: 0.25,
        reset_hint,
        positive_spans: vec![Span { offset: -4, length }],
        negative_spans: vec![],
        counts: Counts::Integer { count, zero_count: 1, positive, negative: vec![] },
        custom_values: vec![],
    }
}

fn of_histograms(histograms: Vec<Histogram>) -> SeriesSamples {
    let sample = |(i, histogram): (i64, Histogram)| HistogramSample {
        timestamp: i * 15_000,
        start: 0,
        histogram: Arc::new(histogram),
    };
    SeriesSamples { histograms: (0..).zip(histograms).map(sample).collect(), ..SeriesSamples::default() }
}

/// Of each chunk, how many histograms it holds, and the hint of its first.
fn cuts(histograms: Vec<Histogram>) -> Vec<(usize, ResetHint)> {
    let samples = of_histograms(histograms);
    check(&samples);
    let of_chunk = |chunk: &Chunk| {
        let histograms = decoded(std::slice::from_ref(chunk)).histograms;
        let hints: Vec<ResetHint> = histograms.iter().map(|h| h.histogram.reset_hint).collect();
        let gauge = hints[0] == ResetHint::Gauge;
        let later = if gauge { ResetHint::Gauge } else { ResetHint::No };
        assert!(
            histograms[1..].iter().all(|h| h.histogram.reset_hint == later || h.histogram.is_stale()),
            "{hints:?}"
        );
        (histograms.len(), hints[0])
    };
    encode(&samples).iter().map(of_chunk).collect()
}

#[test]
fn a_chunk_has_the_bits_that_others_read() {
    let mut samples = SeriesSamples::default();
    samples.push(1000, 1.0, 0);
    samples.push(16_000, 1.0, 0);
    samples.push(31_000, 3.0, 0);
    let chunks = encode(&samples);
    let mut expected = vec![0, 3, 0xd0, 0x0f, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0];
    // 15000 further, the same value.
    expected.extend([0x98, 0x75]);
    // `0`; then `0` for the same distance, and `1`, `1`, 1 zero before, 12 bits: 0x3ff0… ^ 0x4008… is 0x7ff8….
    expected.extend([0b0011_0000, 0b1001_1001, 0b1111_1111, 0b1110_0000]);
    assert_eq!(chunks[0].bytes, expected, "{:02x?}", chunks[0].bytes);
    check(&samples);
}

#[test]
fn a_chunk_ends_when_it_is_full_and_where_the_kind_changes() {
    let mut samples = of_histograms(vec![histogram(1, vec![1], ResetHint::Unknown)]);
    samples.histograms[0].timestamp = 150 * 1000 + 500;
    for i in 0..300 {
        samples.push(i * 1000, 1.0, 0);
    }
    check(&samples);
    let chunks = encode(&samples);
    let kinds: Vec<(Encoding, i64)> = chunks.iter().map(|chunk| (chunk.encoding, chunk.max_time)).collect();
    assert_eq!(
        kinds,
        [
            (Encoding::Xor, 119_000),
            (Encoding::Xor, 150_000),
            (Encoding::Histogram, 150_500),
            (Encoding::Xor, 270_000),
            (Encoding::Xor, 299_000),
        ]
    );
    assert_eq!(encode(&SeriesSamples::default()), []);
}

#[test]
fn a_histogram_that_was_reset_begins_a_chunk_and_says_so() {
    use ResetHint::{Gauge, No, Unknown, Yes};
    let of = |count, buckets: [i64; 2], hint| histogram(count, buckets.to_vec(), hint);
    assert_eq!(cuts(vec![of(3, [1, 0], Unknown), of(4, [1, 1], Unknown)]), [(2, Unknown)]);
    // Fewer observations, or fewer in one bucket.
    assert_eq!(cuts(vec![of(3, [1, 0], No), of(2, [1, 0], Unknown)]), [(1, Unknown), (1, Yes)]);
    assert_eq!(cuts(vec![of(3, [2, 0], Unknown), of(9, [1, 7], No)]), [(1, Unknown), (1, Yes)]);
    // Said by whoever wrote it.
    assert_eq!(cuts(vec![of(3, [1, 0], Yes), of(4, [1, 1], Yes)]), [(1, Yes), (1, Yes)]);
    assert_eq!(
        cuts(vec![of(3, [1, 0], Gauge), of(2, [1, 0], Gauge), of(3, [1, 0], No)]),
        [(2, Gauge), (1, Unknown)]
    );
    // Other buckets may hide a reset.
    let other = histogram(9, vec![1, 1, 1], Unknown);
    assert_eq!(cuts(vec![of(3, [1, 0], Unknown), other]), [(1, Unknown), (1, Unknown)]);
    // Nothing follows a stale marker but another.
    let stale = Histogram { sum: stale_nan(), ..of(0, [0, 0], Unknown) };
    assert_eq!(
        cuts(vec![of(3, [1, 0], Unknown), stale.clone(), stale, of(4, [1, 0], Unknown)]),
        [(3, Unknown), (1, Unknown)]
    );
    let many = (0..130).map(|i| of(10 + i, [1, 0], Unknown)).collect();
    assert_eq!(cuts(many), [(120, Unknown), (10, Unknown)]);
    let gauges = (0..130).map(|i| of(10 + i, [1, 0], Gauge)).collect();
    assert_eq!(cuts(gauges), [(120, Gauge), (10, Gauge)]);
}

#[test]
fn thresholds_and_bounds_come_back() {
    let powers = [-1022, -243, -242, -128, -1, 0, 10, 11, 1023].map(|power| 2_f64.powi(power));
    for threshold in powers.into_iter().chain([0.0, 0.3, f64::MIN_POSITIVE / 8.0, 1e-128]) {
        check(&of_histograms(vec![Histogram {
            zero_threshold: threshold,
            ..histogram(1, vec![1], ResetHint::Unknown)
        }]));
    }
    let bounds = vec![-1.5, -0.0, 0.0, 0.001, 0.0015, 0.1, 5.0, 33_554.43, 33_554.431, 1e300, f64::INFINITY];
    check(&of_histograms(vec![Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        zero_threshold: 0.0,
        custom_values: bounds,
        ..histogram(1, vec![1], ResetHint::Unknown)
    }]));
}

#[test]
fn bytes_that_claim_more_than_they_hold_are_refused() {
    let mut into = SeriesSamples::default();
    for encoding in [Encoding::Xor, Encoding::Histogram, Encoding::FloatHistogram] {
        for bytes in [&[][..], &[0], &[0, 9], &[0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]] {
            assert!(decode(encoding, bytes, &mut into).is_err(), "{encoding:?} {bytes:?}");
        }
        decode(encoding, &[0, 0, 0], &mut into).unwrap();
    }
}

fn any_float() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (-100..100_i32).prop_map(|tenths| f64::from(tenths) / 10.0),
        Just(stale_nan()),
        Just(1.0),
    ]
}

fn any_histogram() -> impl Strategy<Value = Histogram> {
    let numbers = || proptest::collection::vec(prop_oneof![-3..9_i64, any::<i64>()], 3);
    let floats = || proptest::collection::vec(any_float(), 3);
    let counts = prop_oneof![
        (any::<u64>(), 0..9_u64, numbers(), numbers()).prop_map(|(count, zero_count, positive, negative)| {
            Counts::Integer { count, zero_count, positive, negative }
        }),
        (any_float(), any_float(), floats(), floats()).prop_map(|(count, zero_count, positive, negative)| {
            Counts::Float { count, zero_count, positive, negative }
        }),
    ];
    let hint = (0..4_u64).prop_map(|number| ResetHint::of_number(number).unwrap());
    (counts, any_float(), hint, 0..3_i32).prop_map(|(counts, sum, reset_hint, offset)| Histogram {
        schema: offset,
        zero_threshold: 0.001,
        sum,
        reset_hint,
        positive_spans: vec![Span { offset, length: 1 }, Span { offset: 5, length: 2 }],
        negative_spans: vec![Span { offset: i32::MIN, length: 3 }],
        counts,
        custom_values: vec![],
    })
}

proptest! {
    #[test]
    fn floats_come_back_to_the_bit(
        times in proptest::collection::btree_set(any::<i64>(), 0..300),
        steps in proptest::collection::vec(0..100_000_i64, 300),
        regular in any::<bool>(),
        values in proptest::collection::vec(any_float(), 300),
    ) {
        let mut samples = SeriesSamples::default();
        if regular {
            let mut at = 1_700_000_000_000;
            for (step, value) in steps.iter().zip(values) {
                at += 1 + step;
                samples.push(at, value, 0);
            }
        } else {
            times.iter().zip(values).for_each(|(at, value)| samples.push(*at, value, 0));
        }
        check(&samples);
    }

    #[test]
    fn histograms_come_back_to_the_bit(
        histograms in proptest::collection::vec((any_histogram(), 1..4_usize), 0..40),
        floats in proptest::collection::btree_set(0..120_i64, 0..9),
    ) {
        // Each several times, so that chunks have more than one.
        let all = histograms.into_iter().flat_map(|(histogram, times)| vec![histogram; times]);
        let mut samples = of_histograms(all.collect());
        floats.iter().for_each(|at| samples.push(at * 15_000 + 7, 1.5, 0));
        check(&samples);
    }

    #[test]
    fn any_bytes_are_a_chunk_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), count in 0..200_u8) {
        let mut bytes = bytes;
        bytes.splice(0..0, [0, count]);
        for encoding in [Encoding::Xor, Encoding::Histogram, Encoding::FloatHistogram] {
            let _ = decode(encoding, &bytes, &mut SeriesSamples::default());
        }
    }
}
