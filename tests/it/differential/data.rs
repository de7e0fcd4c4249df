//! What both servers are given: three hours of samples around the turn of a month.
//!
//! Three things hold for all of it, so that a difference in an answer is one of meaning:
//!
//! * No sample lies on a whole second, a quarter or three quarters of one, except those of `clock_seconds`.
//!   The grids that a question is asked over lie there.
//! * Values are multiples of 1/1024 and small enough for sums to be exact in any order; those of `odd` are not.
//! * A counter begins, and begins again, far above what it ever grows by in one scrape, so that the place where
//!   it would have been zero never decides how far `rate` reaches back.

use super::random::Random;
use crate::server::Series;

/// 2026-03-01 00:30:00 UTC: where the data end.
pub(super) const END_MS: i64 = 1_772_325_000_000;

/// How long they last.
pub(super) const SPAN_MS: i64 = 3 * 3_600_000;

const STALE: u64 = 0x7ff0_0000_0000_0002;

/// What may be asked of a family of series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    /// Values are few, and the same in many series.
    Flag,
    /// Values may be NaN, infinite or huge.
    Odd,
    /// A classic histogram's buckets.
    Buckets,
}

/// Series of one name.
#[derive(Debug)]
pub(super) struct Family {
    pub name: &'static str,
    pub kind: Kind,
    /// Whether every series is there at every scrape.
    pub whole: bool,
    /// Whether its samples lie on whole seconds.
    pub aligned: bool,
    /// About the largest amount a value has.
    pub scale: f64,
    /// Labels besides the name, each with the values it has.
    pub labels: Vec<(&'static str, Vec<&'static str>)>,
    pub series: Vec<Series>,
}

/// Where and how often an instance is scraped.
struct Target {
    job: &'static str,
    instance: &'static str,
    phase: i64,
    interval: i64,
}

const TARGETS: &[Target] = &[
    Target { job: "api", instance: "a:1", phase: 3_317, interval: 15_000 },
    Target { job: "api", instance: "b:1", phase: 7_481, interval: 15_000 },
    Target { job: "api", instance: "c:1", phase: 11_903, interval: 30_000 },
    Target { job: "db", instance: "a:2", phase: 1_538, interval: 30_000 },
    Target { job: "db", instance: "d:2", phase: 22_664, interval: 30_000 },
    Target { job: "batch-job", instance: "e:3", phase: 40_127, interval: 60_000 },
];

impl Target {
    /// When it is scraped, late by some milliseconds each time.
    fn times(&self, random: &mut Random) -> Vec<i64> {
        let (start, step) = (END_MS - SPAN_MS + self.phase, self.interval);
        let count = (SPAN_MS - self.phase) / step;
        (0..count).map(|n| start + n * step + random.between(0, 40)).collect()
    }
}

type Values = Vec<(i64, f64)>;

/// All families.
pub(super) fn generate(seed: u64) -> Vec<Family> {
    let mut random = Random::new(seed, u64::MAX);
    let random = &mut random;
    let gaps = |random: &mut Random, values: Values| with_gaps(random, values);
    vec![
        family("http_requests_total", Kind::Counter, true, 1e6, random, |random, times, n| {
            counter(random, times, n, false)
        })
        .cross(random, "code", &["200", "404", "500"], |random, times, n| counter(random, times, n, false)),
        family("errors_total", Kind::Counter, false, 1e6, random, |random, times, n| {
            let values = counter(random, times, n, true);
            gaps(random, values)
        }),
        family("temperature", Kind::Gauge, true, 1e3, random, gauge).cross(
            random,
            "zone",
            &["north", "South"],
            gauge,
        ),
        family("memory_bytes", Kind::Gauge, false, 1e3, random, |random, times, n| {
            let values = gauge(random, times, n);
            gaps(random, values)
        }),
        family("up", Kind::Flag, true, 1.0, random, |random, times, _| {
            times.iter().map(|t| (*t, if random.one_in(8) { 0.0 } else { 1.0 })).collect()
        }),
        family("build_info", Kind::Flag, true, 1.0, random, |_, times, _| {
            times.iter().map(|t| (*t, 1.0)).collect()
        })
        .cross(random, "version", &["1.0"], |_, times, _| times.iter().map(|t| (*t, 1.0)).collect()),
        family("odd", Kind::Odd, true, 1e300, random, odd),
        texts(random),
        brief(random),
        clock(random),
        buckets(random),
        bad_buckets(random),
        family("latency_seconds_count", Kind::Counter, true, 1e6, random, |random, times, n| {
            counter(random, times, n, false)
        }),
    ]
}

/// A series of the name for each target.
fn family(
    name: &'static str,
    kind: Kind,
    whole: bool,
    scale: f64,
    random: &mut Random,
    mut values: impl FnMut(&mut Random, &[i64], i64) -> Values,
) -> Family {
    let mut family =
        Family { name, kind, whole, aligned: false, scale, labels: Vec::new(), series: Vec::new() };
    for (target, n) in TARGETS.iter().zip(0..) {
        let times = target.times(random);
        let values = values(random, &times, n);
        family.add(&[("instance", target.instance), ("job", target.job)], values);
    }
    family
}

impl Family {
    /// None yet, whose series are all there at every scrape, a little after whole seconds.
    fn new(name: &'static str, kind: Kind, scale: f64) -> Self {
        Self { name, kind, whole: true, aligned: false, scale, labels: Vec::new(), series: Vec::new() }
    }

    fn add(&mut self, labels: &[(&'static str, &'static str)], values: Values) {
        let mut all = vec![("__name__".to_owned(), self.name.to_owned())];
        for (name, value) in labels {
            all.push(((*name).to_owned(), (*value).to_owned()));
            match self.labels.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) if known.contains(value) => {}
                Some((_, known)) => known.push(value),
                None => self.labels.push((name, vec![value])),
            }
        }
        all.sort();
        self.series.push((all, values));
    }

    /// Instead a series for each target and value of another label.
    fn cross(
        mut self,
        random: &mut Random,
        label: &'static str,
        values: &[&'static str],
        mut samples: impl FnMut(&mut Random, &[i64], i64) -> Values,
    ) -> Self {
        self.series.clear();
        let mut n = 0;
        for target in TARGETS {
            for value in values {
                n += 1;
                let times = target.times(random);
                let samples = samples(random, &times, n);
                self.add(&[("instance", target.instance), ("job", target.job), (label, value)], samples);
            }
        }
        self
    }
}

/// What no other series of the family has: no two are ever equal.
fn mark(n: i64) -> f64 {
    float(n) / 1024.0
}

fn float(n: i64) -> f64 {
    f64::from(i32::try_from(n).unwrap())
}

fn gauge(random: &mut Random, times: &[i64], n: i64) -> Values {
    let mut value = random.between(50, 500);
    let mut next = |t: &i64| {
        value = (value + random.between(-9, 9)).clamp(20, 900);
        (*t, float(value) + mark(n))
    };
    times.iter().map(&mut next).collect()
}

/// One that resets does so only from three times what it begins again with.
fn counter(random: &mut Random, times: &[i64], n: i64, resets: bool) -> Values {
    let again = random.between(2_000, 3_000);
    let mut value = again * 4;
    let mut values = Vec::new();
    for t in times {
        if resets && value > again * 3 && random.one_in(30) {
            value = again;
        } else if !random.one_in(4) {
            value += random.between(0, 50);
        }
        values.push((*t, float(value) + mark(n)));
    }
    values
}

/// Takes out stretches; some of them begin with a stale marker.
fn with_gaps(random: &mut Random, values: Values) -> Values {
    let mut kept = Vec::new();
    let mut out = 0;
    for (t, value) in values {
        if out > 0 {
            out -= 1;
        } else if random.one_in(25) {
            out = random.between(0, 30);
            if random.one_in(2) {
                kept.push((t, f64::from_bits(STALE)));
            }
        } else {
            kept.push((t, value));
        }
    }
    kept
}

fn odd(random: &mut Random, times: &[i64], n: i64) -> Values {
    let strange = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1e300, 5e-324, 1e-7, 1e21];
    let mut next = |t: &i64| {
        let plain = float(random.between(-100, 100)) + mark(n);
        (*t, if random.one_in(3) { strange[random.below(strange.len())] } else { plain })
    };
    times.iter().map(&mut next).collect()
}

/// Values of labels that have to be quoted, escaped or compared bytewise.
pub(super) const TEXTS: &[&str] = &[
    "plain",
    "with space",
    "quo\"te",
    "back\\slash",
    "line\nbreak",
    "été",
    "日本",
    "a.b",
    "a|b",
    "$1",
    "{}",
    "-",
];

fn texts(random: &mut Random) -> Family {
    let mut family = Family::new("texts", Kind::Gauge, 1e3);
    for (text, n) in TEXTS.iter().zip(0..) {
        let target = &TARGETS[random.below(TARGETS.len())];
        let times = target.times(random);
        let values = gauge(random, &times, n);
        family.add(&[("job", target.job), ("text", text)], values);
    }
    family
}

/// Series that are there for some minutes, once, or only to be gone.
fn brief(random: &mut Random) -> Family {
    let mut family = Family { whole: false, ..Family::new("brief", Kind::Gauge, 1e3) };
    for (job, n) in ["j0", "j1", "j2", "j3", "j4", "j5", "j6", "j7"].into_iter().zip(0..) {
        let times = TARGETS[0].times(random);
        let from = times.len() - 1 - random.below(250);
        let mut values = gauge(random, &times[from..], n);
        match n {
            0 => values.truncate(1),
            1 => values = vec![(values[0].0, f64::from_bits(STALE))],
            _ => {
                values.truncate(2 + random.below(60));
                if n % 2 == 0 {
                    let (last, _) = values[values.len() - 1];
                    values.push((last + 15_000, f64::from_bits(STALE)));
                }
            }
        }
        family.add(&[("job", job), ("kind", if n < 4 { "few" } else { "more" })], values);
    }
    family
}

/// Samples on whole quarters of a minute.
fn clock(random: &mut Random) -> Family {
    let mut family = Family { aligned: true, ..Family::new("clock_seconds", Kind::Gauge, 1e3) };
    for (job, n) in ["api", "db", "batch-job"].into_iter().zip(0..) {
        let times: Vec<i64> = (0..=SPAN_MS / 15_000).map(|i| END_MS - SPAN_MS + i * 15_000).collect();
        let values = gauge(random, &times, n);
        family.add(&[("job", job)], values);
    }
    family
}

fn buckets(random: &mut Random) -> Family {
    let mut family = Family::new("latency_seconds_bucket", Kind::Buckets, 1e6);
    for target in TARGETS {
        let times = target.times(random);
        let mut totals = vec![0.0; times.len()];
        for le in ["-1", "0.1", "0.5", "1", "5e0", "+Inf"] {
            // Each bucket holds all that the smaller ones hold.
            for (total, (_, more)) in totals.iter_mut().zip(counter(random, &times, 0, false)) {
                *total += more;
            }
            let values = times.iter().copied().zip(totals.iter().copied()).collect();
            family.add(&[("instance", target.instance), ("job", target.job), ("le", le)], values);
        }
    }
    family
}

/// Histograms with a bucket that is missing, doubled, misnamed, empty or too small.
fn bad_buckets(random: &mut Random) -> Family {
    let mut family = Family::new("bad_seconds_bucket", Kind::Buckets, 1e6);
    let bad: &[(&str, &[&str])] = &[
        ("no-inf", &["0.1", "1", "10"]),
        ("doubled", &["0.50", "0.5", "1", "+Inf"]),
        ("misnamed", &["0.1", "abc", "1", "+Inf"]),
        ("only-inf", &["+Inf"]),
        ("shrinking", &["0.1", "1", "10", "+Inf"]),
        ("empty", &["0.1", "1", "+Inf"]),
        ("negative", &["-10", "-1", "0", "+Inf"]),
        ("infinite", &["-Inf", "0", "1", "+Inf"]),
    ];
    let times = TARGETS[1].times(random);
    for (job, bounds) in bad {
        let base = float(random.between(20_000, 30_000));
        for (le, n) in bounds.iter().zip(1..) {
            let level = match *job {
                "shrinking" => base / float(n),
                "empty" => 0.0,
                _ => base * float(n),
            };
            // No two grow alike, so that no quantile falls on a bound.
            let mut value = level.floor();
            let mut next = |t: &i64| {
                value += if level > 0.0 { float(random.between(1, 9 * n)) } else { 0.0 };
                (*t, value)
            };
            let values = times.iter().map(&mut next).collect();
            family.add(&[("job", job), ("le", le)], values);
        }
    }
    family
}

/// The samples of twenty minutes at a time, in the order they are written: a head takes none that are much
/// older than its newest.
pub(super) fn slices(families: &[Family]) -> Vec<Vec<Series>> {
    const SLICE_MS: i64 = 20 * 60_000;
    let start = END_MS - SPAN_MS;
    let mut slices = Vec::new();
    for n in 0..=SPAN_MS / SLICE_MS {
        let (from, to) = (start + n * SLICE_MS, start + (n + 1) * SLICE_MS);
        let mut slice = Vec::new();
        for (labels, values) in families.iter().flat_map(|family| &family.series) {
            let values: Values = values.iter().copied().filter(|(t, _)| from <= *t && *t < to).collect();
            if !values.is_empty() {
                slice.push((labels.clone(), values));
            }
        }
        slices.push(slice);
    }
    slices
}
