//! Random samples: floats of all kinds, staleness, histograms, starts of counting, gaps, and times off any grid.

use std::sync::Arc;

use libfuzzer_sys::arbitrary::Unstructured;
use luminate::{
    model::{
        Histogram, Labels, Timestamp,
        histogram::{CUSTOM_BUCKETS_SCHEMA, Counts, ResetHint, Span},
        stale_nan,
    },
    storage::{BatchHistogram, BatchSample, WriteBatch},
};

use crate::{below, one_of};

/// Time between samples, in milliseconds.
const INTERVALS: &[i64] = &[15_000, 15_000, 10_000, 60_000, 1_000, 7_003, 1];
const VALUES: &[f64] = &[
    0.0,
    1.0,
    -1.0,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    -0.0,
    f64::MAX,
    f64::MIN,
    5e-324,
    1e100,
    1.0e-100,
    0.1,
    1e15,
    4_503_599_627_370_497.5,
];

/// More series than one thread evaluates in one go.
const MANY: u32 = 600;

/// All series of one run.
pub fn batch(bytes: &mut Unstructured<'_>) -> WriteBatch {
    let mut series: Vec<Labels> = Vec::new();
    let mut labels = |pairs: &[(&str, &str)]| {
        series.push(Labels::from_pairs(pairs.iter().copied()).expect("no name is there twice"));
        u32::try_from(series.len() - 1).expect("there are few series")
    };
    let (mut samples, mut histograms) = (Vec::new(), Vec::new());
    for _ in 0..=below(bytes, 7) {
        let (a, b) = (*one_of(bytes, &["x", "y", ""]), *one_of(bytes, &["", "z", "a\"é"]));
        match below(bytes, 8) {
            0 | 1 => {
                let name = *one_of(bytes, &["m", "x", "c_total", "h"]);
                let drawn = floats(bytes, 24);
                let first = labels(&[("__name__", name), ("a", a), ("b", b)]);
                put(&mut samples, first, &drawn, 1.0);
            }
            2 | 3 => {
                let name = *one_of(bytes, &["h", "n", "m"]);
                let number = labels(&[("__name__", name), ("a", a), ("b", b)]);
                let (mut at, step) = (i64::from(below(bytes, 60_000)), *one_of(bytes, INTERVALS));
                for _ in 0..below(bytes, 10) {
                    let histogram = Arc::new(histogram(bytes));
                    let start = start(bytes, at);
                    histograms.push(BatchHistogram {
                        series: number,
                        timestamp: Timestamp(at),
                        histogram,
                        start,
                    });
                    at += step * (1 + i64::from(below(bytes, 3)));
                }
            }
            4 => {
                for le in ["0.1", "1", "2.5", "+Inf"] {
                    let drawn = floats(bytes, 4);
                    let number = labels(&[("__name__", "h_bucket"), ("a", a), ("le", le)]);
                    put(&mut samples, number, &drawn, 1.0);
                }
            }
            5 => {
                let job = *one_of(bytes, &["1", "2"]);
                let info =
                    labels(&[("__name__", "target_info"), ("job", job), ("instance", "i"), ("data", b)]);
                put(&mut samples, info, &floats(bytes, 4), 1.0);
                let of = labels(&[("__name__", "m"), ("job", job), ("instance", "i")]);
                put(&mut samples, of, &floats(bytes, 8), 1.0);
            }
            6 => {
                let typed =
                    labels(&[("__name__", "c_total"), ("__type__", "counter"), ("__unit__", "s"), ("a", a)]);
                put(&mut samples, typed, &floats(bytes, 12), 1.0);
            }
            _ => {
                let drawn = floats(bytes, 5);
                for i in 0..MANY {
                    let number = labels(&[("__name__", "m"), ("a", a), ("b", b), ("i", &i.to_string())]);
                    put(&mut samples, number, &drawn, 1.0 + f64::from(i) / 7.0);
                }
            }
        }
    }
    WriteBatch { samples, histograms, ..WriteBatch::over(series) }
}

/// A time, a value and a start of counting each.
fn floats(bytes: &mut Unstructured<'_>, most: u32) -> Vec<(i64, f64, i64)> {
    let (mut at, step) = (i64::from(below(bytes, 60_000)), *one_of(bytes, INTERVALS));
    let mut value = f64::from(below(bytes, 100));
    let mut drawn = Vec::new();
    for _ in 0..below(bytes, most + 1) {
        let sample = match below(bytes, 10) {
            0 => stale_nan(),
            1 => *one_of(bytes, VALUES),
            2 => f64::from_bits(bytes.arbitrary().unwrap_or(0)),
            3 => {
                // It starts again.
                value = 0.0;
                value
            }
            _ => {
                value += f64::from(below(bytes, 50)) / 4.0;
                value
            }
        };
        drawn.push((at, sample, start(bytes, at)));
        at += step + i64::from(below(bytes, 4)) * 1_003;
    }
    drawn
}

fn start(bytes: &mut Unstructured<'_>, at: i64) -> i64 {
    if below(bytes, 8) == 7 { (at - i64::from(below(bytes, 40_000))).max(1) } else { 0 }
}

fn put(samples: &mut Vec<BatchSample>, series: u32, drawn: &[(i64, f64, i64)], factor: f64) {
    for (at, value, start) in drawn {
        // A marker times something is no marker.
        let value = if factor == 1.0 || value.is_nan() { *value } else { value * factor };
        samples.push(BatchSample { series, timestamp: Timestamp(*at), value, start: *start });
    }
}

/// A histogram as one may be written.
pub fn histogram(bytes: &mut Unstructured<'_>) -> Histogram {
    let is_custom = below(bytes, 4) == 3;
    let custom_values: Vec<f64> = if is_custom {
        let all: [&[f64]; 4] = [&[0.1, 1.0, 2.5], &[1.0], &[0.1, 2.5, 5.0], &[-1.0, 0.0, 1.0]];
        one_of(bytes, &all).to_vec()
    } else {
        Vec::new()
    };
    let (positive_spans, positive) = if is_custom {
        let length = u32::try_from(custom_values.len() + 1).expect("there are few");
        (vec![Span { offset: 0, length }], counts(bytes, length))
    } else {
        buckets(bytes)
    };
    let (negative_spans, negative) = if is_custom { (Vec::new(), Vec::new()) } else { buckets(bytes) };
    let zero_count = if is_custom { 0 } else { u64::from(below(bytes, 4)) };
    let beyond = if below(bytes, 6) == 5 { 2 } else { 0 };
    let count = positive.iter().chain(&negative).sum::<u64>() + zero_count + beyond;
    let sum = match below(bytes, 8) {
        6 => *one_of(bytes, VALUES),
        7 => stale_nan(),
        of => f64::from(of) * 1.5,
    };
    let factor = *one_of(bytes, &[1.0, 0.5, 1e300, 0.1]);
    let numbers = if below(bytes, 2) == 0 {
        Counts::Integer {
            count,
            zero_count,
            positive: differences(&positive),
            negative: differences(&negative),
        }
    } else {
        let floats = |counts: &[u64]| counts.iter().map(|c| to_f64(*c) * factor).collect();
        Counts::Float {
            count: to_f64(count) * factor,
            zero_count: to_f64(zero_count) * factor,
            positive: floats(&positive),
            negative: floats(&negative),
        }
    };
    Histogram {
        schema: if is_custom { CUSTOM_BUCKETS_SCHEMA } else { *one_of(bytes, &[0, 1, 3, 8, -1, -4]) },
        zero_threshold: if is_custom {
            0.0
        } else {
            *one_of(bytes, &[0.0, 0.001, 0.5, 2.938_735_877_055_718_8e-39])
        },
        sum,
        reset_hint: *one_of(bytes, &[ResetHint::Unknown, ResetHint::Yes, ResetHint::No, ResetHint::Gauge]),
        positive_spans,
        negative_spans,
        counts: numbers,
        custom_values,
    }
}

fn buckets(bytes: &mut Unstructured<'_>) -> (Vec<Span>, Vec<u64>) {
    let (mut spans, mut all) = (Vec::new(), Vec::new());
    for i in 0..below(bytes, 4) {
        let offset = i32::try_from(below(bytes, 7)).expect("it is small");
        let length = below(bytes, 4);
        spans.push(Span { offset: if i == 0 { offset - 3 } else { offset }, length });
        all.extend(counts(bytes, length));
    }
    (spans, all)
}

fn counts(bytes: &mut Unstructured<'_>, length: u32) -> Vec<u64> {
    (0..length).map(|_| u64::from(below(bytes, 9))).collect()
}

fn differences(counts: &[u64]) -> Vec<i64> {
    let mut before = 0;
    let of = |count: &u64| {
        let count = i64::try_from(*count).expect("it is small");
        count - std::mem::replace(&mut before, count)
    };
    counts.iter().map(of).collect()
}

fn to_f64(count: u64) -> f64 {
    f64::from(u32::try_from(count).expect("it is small"))
}
