use proptest::prelude::*;

use super::*;
use crate::model::{
    histogram::{CUSTOM_BUCKETS_SCHEMA, Counts, ResetHint, Span},
    stale_nan,
};

fn same(a: &SeriesSamples, b: &SeriesSamples) -> bool {
    let bits = |s: &SeriesSamples| s.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    a.timestamps == b.timestamps
        && bits(a) == bits(b)
        && (0..a.timestamps.len()).all(|i| a.start(i) == b.start(i))
        && a.histograms.len() == b.histograms.len()
        && a.histograms.iter().zip(&b.histograms).all(|(a, b)| {
            (a.timestamp, a.start) == (b.timestamp, b.start) && a.histogram.same_bits(&b.histogram)
        })
}

/// A chunk as a part keeps it: the count in the index, times and body apart.
#[derive(Clone, Debug)]
struct Chunk {
    count: usize,
    times: Vec<u8>,
    body: Vec<u8>,
}

impl Chunk {
    fn of_floats(timestamps: &[i64], values: &[f64], starts: &[i64]) -> Self {
        let (mut times, mut body) = (Vec::new(), Vec::new());
        encode_times(timestamps, &mut times);
        encode_float_body(values, starts, &mut body);
        Self { count: timestamps.len(), times, body }
    }

    fn of_histograms(samples: &[HistogramSample]) -> Self {
        let (mut times, mut body) = (Vec::new(), Vec::new());
        let timestamps: Vec<i64> = samples.iter().map(|sample| sample.timestamp).collect();
        encode_times(&timestamps, &mut times);
        encode_histogram_body(samples, &mut body);
        Self { count: samples.len(), times, body }
    }

    fn floats(&self, into: &mut SeriesSamples) -> Result<(), Damaged> {
        let before = into.timestamps.len();
        decode_times(&self.times, self.count, &mut into.timestamps)?;
        decode_float_body(&self.body, before, into)
    }

    fn histograms(&self, into: &mut SeriesSamples) -> Result<(), Damaged> {
        let mut timestamps = Vec::new();
        decode_times(&self.times, self.count, &mut timestamps)?;
        decode_histogram_body(&self.body, &timestamps, into)
    }

    fn size(&self) -> usize {
        self.times.len() + self.body.len()
    }
}

fn check(samples: &SeriesSamples) -> usize {
    let floats = Chunk::of_floats(&samples.timestamps, &samples.values, &samples.starts);
    let histograms = Chunk::of_histograms(&samples.histograms);
    let mut back = SeriesSamples::default();
    floats.floats(&mut back).unwrap();
    histograms.histograms(&mut back).unwrap();
    assert!(same(&back, samples), "{back:?} is not {samples:?}");

    // Twice in a row, the second behind the first.
    floats.floats(&mut back).unwrap();
    assert_eq!(back.timestamps.len(), 2 * samples.timestamps.len());
    assert_eq!(back.values.len(), back.timestamps.len());
    assert!(back.starts.is_empty() || back.starts.len() == back.timestamps.len());
    floats.size() + histograms.size()
}

fn histogram(count: u64, positive: Vec<i64>) -> Histogram {
    let length = u32::try_from(positive.len()).unwrap();
    Histogram {
        schema: 3,
        zero_threshold: 1e-128,
        sum: f64::from(u32::try_from(count).unwrap()) * 0.1,
        reset_hint: ResetHint::No,
        positive_spans: vec![Span { offset: -4, length }],
        negative_spans: Vec::new(),
        counts: Counts::Integer { count, zero_count: 1, positive, negative: Vec::new() },
        custom_values: Vec::new(),
    }
}

fn sample(i: i64, histogram: Histogram) -> HistogramSample {
    HistogramSample { timestamp: i * 15_000, start: 7, histogram: Arc::new(histogram) }
}

#[test]
fn a_counter_scraped_with_jitter_is_small() {
    let mut samples = SeriesSamples::default();
    let (mut random, mut value) = (1_u64, 1e6);
    for i in 0..240 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        value += 100.0 + f64::from(u32::try_from(random >> 59).unwrap());
        samples.push(1_700_000_000_000 + i * 15_000, value, 0);
    }
    let size = check(&samples);
    assert!(size < 240 * 8 / 10, "{size}");
}

#[test]
fn start_timestamps_come_back_and_cost_nothing_when_absent() {
    let mut samples = SeriesSamples::default();
    for i in 0..100 {
        samples.push(i * 1000, 1.0, 0);
    }
    let without = check(&samples);
    samples.push(100_000, 1.0, 99_000);
    assert!(check(&samples) > without);
    samples.starts = vec![0; samples.timestamps.len()];
    assert!(check(&samples) <= without + 1);
}

#[test]
fn histograms_of_every_kind_come_back() {
    let mut samples = SeriesSamples::default();
    samples.histograms.push(sample(0, histogram(10, vec![1, 2, -1])));
    samples.histograms.push(sample(1, histogram(12, vec![1, 3, -1])));
    samples.histograms.push(sample(2, histogram(12, vec![1, 3, -1])));
    samples.histograms.push(sample(3, histogram(20, vec![1, 3, -1, 8, i64::MIN])));
    let mut stale = histogram(0, Vec::new());
    stale.sum = stale_nan();
    samples.histograms.push(sample(4, stale));
    samples.histograms.push(sample(
        5,
        Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            zero_threshold: -0.0,
            sum: f64::NEG_INFINITY,
            reset_hint: ResetHint::Gauge,
            positive_spans: vec![Span { offset: i32::MIN, length: 0 }, Span { offset: 1, length: 2 }],
            negative_spans: vec![Span { offset: i32::MAX, length: u32::MAX }],
            counts: Counts::Float {
                count: f64::NAN,
                zero_count: 0.1,
                positive: vec![1.5, 2.25],
                negative: vec![stale_nan()],
            },
            custom_values: vec![0.1, 0.5, f64::INFINITY],
        },
    ));
    check(&samples);
}

#[test]
fn a_repeated_histogram_takes_a_byte() {
    let mut samples = SeriesSamples::default();
    for i in 0..100 {
        samples.histograms.push(sample(i, histogram(12, vec![1, 3, -1])));
    }
    assert!(check(&samples) < 100 + 70);
}

#[test]
fn an_empty_chunk_is_a_chunk() {
    check(&SeriesSamples::default());
}

/// Flips every bit and cuts at every byte: an error or other samples, never a panic.
#[test]
fn damaged_bytes_are_survived() {
    let mut samples = SeriesSamples::default();
    for i in 0..200_i32 {
        let value = if i % 50 == 3 { stale_nan() } else { f64::from(i * i) / 100.0 };
        samples.push(i64::from(i) * 15_000 + i64::from(i % 3), value, i64::from(i / 100));
        samples.histograms.push(sample(i64::from(i), histogram(10, vec![i64::from(i), 2, -1])));
    }
    let roots: Vec<f64> = (0..200_i32).map(|i| f64::from(i / 7).sqrt()).collect();
    let chunks = [
        Chunk::of_floats(&samples.timestamps, &samples.values, &samples.starts),
        Chunk::of_histograms(&samples.histograms),
        Chunk::of_floats(&samples.timestamps, &roots, &[]),
    ];
    for chunk in chunks {
        survives(&Chunk { count: chunk.count + 1, ..chunk.clone() });
        survives(&Chunk { count: chunk.count - 1, ..chunk.clone() });
        damaged(&chunk.times, |times| survives(&Chunk { times, ..chunk.clone() }));
        damaged(&chunk.body, |body| survives(&Chunk { body, ..chunk.clone() }));
    }
}

/// Every beginning of `bytes`, and `bytes` with any one bit flipped.
fn damaged(bytes: &[u8], mut survives: impl FnMut(Vec<u8>)) {
    for at in 0..bytes.len() {
        survives(bytes[..at].to_vec());
        for bit in 0..8 {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1 << bit;
            survives(flipped);
        }
    }
}

/// What does not decode leaves nothing but times, whose number is known from outside.
fn survives(chunk: &Chunk) {
    let mut into = SeriesSamples::default();
    if chunk.floats(&mut into).is_err() {
        assert!(into.values.is_empty() && into.starts.is_empty());
    }
    into.clear();
    if chunk.histograms(&mut into).is_err() {
        assert!(into.is_empty());
    }
}

#[test]
fn a_huge_count_takes_no_memory() {
    let chunk = Chunk { count: usize::MAX, times: vec![0x40, 0, 0], body: vec![VERSION << 4, 0] };
    let mut into = SeriesSamples::default();
    assert!(chunk.floats(&mut into).is_err());
    assert!(chunk.histograms(&mut into).is_err());
}

fn any_histogram() -> impl Strategy<Value = Histogram> {
    let float = || any::<u64>().prop_map(f64::from_bits);
    let spans = || prop::collection::vec((any::<i32>(), any::<u32>()), 0..4);
    let counts = prop_oneof![
        (
            any::<u64>(),
            any::<u64>(),
            prop::collection::vec(any::<i64>(), 0..6),
            prop::collection::vec(any::<i64>(), 0..6)
        )
            .prop_map(|(count, zero_count, positive, negative)| Counts::Integer {
                count,
                zero_count,
                positive,
                negative
            }),
        (float(), float(), prop::collection::vec(float(), 0..6), prop::collection::vec(float(), 0..6))
            .prop_map(|(count, zero_count, positive, negative)| Counts::Float {
                count,
                zero_count,
                positive,
                negative
            }),
    ];
    let hint = prop_oneof![
        Just(ResetHint::Unknown),
        Just(ResetHint::Yes),
        Just(ResetHint::No),
        Just(ResetHint::Gauge)
    ];
    (any::<i32>(), float(), float(), hint, spans(), spans(), counts, prop::collection::vec(float(), 0..4))
        .prop_map(|(schema, zero_threshold, sum, reset_hint, positive, negative, counts, custom_values)| {
            let spans = |of: Vec<(i32, u32)>| {
                of.into_iter().map(|(offset, length)| Span { offset, length }).collect()
            };
            Histogram {
                schema,
                zero_threshold,
                sum,
                reset_hint,
                positive_spans: spans(positive),
                negative_spans: spans(negative),
                counts,
                custom_values,
            }
        })
}

proptest! {
    #[test]
    fn any_samples_come_back(
        floats in prop::collection::vec((any::<i64>(), any::<u64>(), prop_oneof![Just(0), any::<i64>()]), 0..200),
        histograms in prop::collection::vec((any::<i64>(), any::<i64>(), any_histogram(), 1_usize..3), 0..20),
    ) {
        let mut samples = SeriesSamples::default();
        for (timestamp, bits, start) in floats {
            samples.push(timestamp, f64::from_bits(bits), start);
        }
        for (timestamp, start, histogram, times) in histograms {
            for _ in 0..times {
                let histogram = Arc::new(histogram.clone());
                samples.histograms.push(HistogramSample { timestamp, start, histogram });
            }
        }
        check(&samples);
    }

    #[test]
    fn any_bytes_are_survived(
        count in 0_usize..300,
        times in prop::collection::vec(any::<u8>(), 0..100),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        survives(&Chunk { count, times, body });
    }
}
