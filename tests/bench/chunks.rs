//! What chunks of many kinds of series take, and how long it takes to write and read them.
//!
//! For each kind and length: bytes per sample without times, and nanoseconds per sample. Reading is what queries do for every
//! sample they touch; the bound is three nanoseconds. The last lines are times, of which all series of a
//! scrape share one column.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a measuring program"
)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use luminate::storage::{
    SeriesSamples,
    embedded::chunk::{decode_float_body, decode_times, encode_float_body, encode_times},
};

/// Samples per kind and length.
const SAMPLES: usize = 1 << 20;

const LENGTHS: [usize; 3] = [120, 240, 1024];

struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, sides: u64) -> u64 {
        self.next() % sides
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// What is below `mean` mostly, and sometimes far above.
    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

/// A kind of series: the value after the one before.
type Step = fn(&mut Dice, f64) -> f64;

const KINDS: [(&str, Step); 10] = [
    ("constant", |_, value| value),
    ("requests, some", |dice, value| value + if dice.below(3) == 0 { dice.below(6) as f64 } else { 0.0 }),
    ("requests, many", |dice, value| value + dice.exponential(300.0).floor()),
    ("bytes sent", |dice, value| value + dice.exponential(90_000.0).floor()),
    ("queue length", |dice, value| (value + dice.below(11) as f64 - 5.0).abs()),
    ("load, two digits", |dice, value| ((value + dice.unit() - 0.5).abs() * 100.0).round() / 100.0),
    ("seconds, two digits", |dice, value| ((value + dice.unit() * 15.0) * 100.0).round() / 100.0),
    ("memory, by pages", |dice, value| (value + (dice.below(4096) as f64 - 2048.0) * 4096.0).abs()),
    ("seconds, summed up", |dice, value| value + dice.exponential(0.3)),
    ("temperature", |dice, value| value + dice.unit() - 0.5),
];

fn main() {
    println!("| series | samples | bytes per sample | write (ns) | read (ns) |\n|---|---:|---:|---:|---:|");
    for (name, step) in KINDS {
        for length in LENGTHS {
            values(name, step, length);
        }
    }
    for (name, jitter) in [("times, exact", 1), ("times, ± 3 ms", 7), ("times, ± 20 ms", 41)] {
        for length in LENGTHS {
            times(name, jitter, length);
        }
    }
}

fn values(name: &str, step: Step, length: usize) {
    let mut dice = Dice(42);
    let chunks: Vec<Vec<f64>> = (0..SAMPLES / length)
        .map(|_| {
            let mut value = dice.below(100_000) as f64;
            (0..length)
                .map(|_| {
                    value = step(&mut dice, value);
                    value
                })
                .collect()
        })
        .collect();
    let mut bodies = vec![Vec::new(); chunks.len()];
    let wrote = best(|| {
        for (values, body) in chunks.iter().zip(&mut bodies) {
            body.clear();
            encode_float_body(values, &[], body);
        }
    });
    let mut into = SeriesSamples::default();
    into.timestamps.resize(length, 0);
    let read = best(|| {
        for body in &bodies {
            into.values.clear();
            decode_float_body(body, 0, &mut into).unwrap();
            black_box(&into.values);
        }
    });
    line(name, length, &bodies, wrote, read);
}

fn times(name: &str, jitter: u64, length: usize) {
    let mut dice = Dice(42);
    let chunks: Vec<Vec<i64>> = (0..SAMPLES / length)
        .map(|_| {
            let grid = (0..length as i64).map(|i| 1_760_000_000_000 + i * 15_000);
            grid.map(|at| at + dice.below(jitter) as i64).collect()
        })
        .collect();
    let mut columns = vec![Vec::new(); chunks.len()];
    let wrote = best(|| {
        for (timestamps, column) in chunks.iter().zip(&mut columns) {
            column.clear();
            encode_times(timestamps, column);
        }
    });
    let mut into = Vec::new();
    let read = best(|| {
        for column in &columns {
            into.clear();
            decode_times(column, length, &mut into).unwrap();
            black_box(&into);
        }
    });
    line(name, length, &columns, wrote, read);
}

/// The shortest of a few: the machine does other things, too.
fn best(mut run: impl FnMut()) -> Duration {
    let times = (0..5).map(|_| {
        let began = Instant::now();
        run();
        began.elapsed()
    });
    times.min().unwrap()
}

fn line(name: &str, length: usize, encoded: &[Vec<u8>], wrote: Duration, read: Duration) {
    let samples = (encoded.len() * length) as f64;
    let bytes: usize = encoded.iter().map(Vec::len).sum();
    let per_sample = |took: Duration| took.as_secs_f64() * 1e9 / samples;
    println!(
        "| {name} | {length} | {:.3} | {:.1} | {:.2} |",
        bytes as f64 / samples,
        per_sample(wrote),
        per_sample(read)
    );
}
