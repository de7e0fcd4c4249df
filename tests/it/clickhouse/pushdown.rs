//! What is pushed down gives what is computed here.

use std::{path::Path, sync::Arc};

use luminate::{
    clock::HandClock,
    model::{Labels, Millis, TenantId, Timestamp, is_stale, stale_nan},
    promql::{Answer, Engine, EngineOptions, Point, QueryOptions, Value},
    storage::{
        BatchSample, SeriesSamples, Storage, View, WriteBatch,
        clickhouse::{
            ClickHouseConfig, ClickHouseStore,
            config::Pushdown,
            pushdown::probe::{self, Exactness},
        },
    },
};
use tokio::runtime::Runtime;

use super::front::Front;
use crate::taker::row_of;

/// When the samples begin and how long they go on.
const FROM: i64 = 1_700_000_000_000;
const TO: i64 = FROM + 4 * 3_600_000;

/// Numbers that look random and are the same in every run.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `n`.
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// In `[0, 1)`.
    fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A series as it may come: a counter, a gauge, or, if wild, odd values; with gaps, jitter and stale markers.
fn series(dice: &mut Dice, from: i64, to: i64, wild: bool) -> SeriesSamples {
    let kind = dice.below(if wild { 6 } else { 5 });
    let interval: i64 = [1_000, 5_000, 15_000, 15_000, 30_000, 60_000][dice.below(6) as usize];
    let jitter = if dice.chance(50) { interval / 3 } else { 0 };
    let mut samples = SeriesSamples::default();
    let mut value = if dice.chance(30) { 0.0 } else { dice.part() * 1e6 };
    let mut at = from + dice.below(interval.cast_unsigned()) as i64;
    while at <= to {
        if dice.chance(3) {
            at += interval * (1 + dice.below(40) as i64);
            continue;
        }
        value = match kind {
            0 => value.round() + dice.below(100) as f64,
            1 => value + dice.part() * 10.0,
            2 => dice.part() * 2e3 - 1e3,
            3 => (dice.below(5) as f64) - 2.0,
            4 => value + dice.part() * 1e-3,
            _ => match dice.below(12) {
                0 => f64::NAN,
                1 => f64::INFINITY,
                2 => f64::NEG_INFINITY,
                3 => 1e308,
                4 => -1e308,
                5 => 5e-324,
                _ => dice.part() * 1e3,
            },
        };
        if kind < 2 && dice.chance(2) {
            value = dice.below(3) as f64;
        }
        let written = if dice.chance(1) { stale_nan() } else { value };
        let shift = if jitter > 0 { dice.below(jitter.cast_unsigned()) as i64 } else { 0 };
        let time = at + shift;
        if samples.timestamps.last().is_none_or(|last| *last < time) {
            samples.push(time, written, 0);
        }
        at += interval;
    }
    samples
}

#[test]
fn the_probe_expects_what_our_functions_give() {
    let mut lines = String::new();
    for (number, case) in probe::cases().iter().enumerate() {
        let samples = settled(&case.samples);
        for operation in probe::operations(case.window) {
            lines += &probe::line(number, &operation, &row_of(&operation, &samples, &case.grid));
            lines.push('\n');
        }
    }
    if std::env::var_os("LUMINATE_TEST_GOLDEN").is_some_and(|v| v == "rewrite") {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/storage/clickhouse/pushdown/expected.txt");
        std::fs::write(path, &lines).unwrap();
    } else {
        assert!(lines == probe::EXPECTED, "LUMINATE_TEST_GOLDEN=rewrite brings it up to date");
    }
}

/// Of the samples at one time the greatest; NaN loses to numbers and the stale marker to all.
fn settled(samples: &[(i64, f64)]) -> SeriesSamples {
    let class = |value: f64| if is_stale(value) { 0 } else { 1 + u8::from(!value.is_nan()) };
    let mut samples = samples.to_vec();
    samples.sort_by(|a, b| {
        a.0.cmp(&b.0).then(
            class(a.1).cmp(&class(b.1)).then(a.1.partial_cmp(&b.1).unwrap_or(std::cmp::Ordering::Equal)),
        )
    });
    let mut settled = SeriesSamples::default();
    for (i, (at, value)) in samples.iter().enumerate() {
        if samples.get(i + 1).is_none_or(|next| next.0 != *at) {
            settled.push(*at, *value, 0);
        }
    }
    settled
}

/// A database with samples, and a store over it for each way to push down.
pub(super) struct Databases {
    pub(super) runtime: Runtime,
    pub(super) front: Front,
    pub(super) stores: Vec<Arc<ClickHouseStore>>,
}

const MODES: [Pushdown; 4] = [Pushdown::Off, Pushdown::Auto, Pushdown::Exact, Pushdown::Force];

impl Databases {
    fn start() -> Option<Self> {
        Front::start().map(Self::over)
    }

    pub(super) fn over(front: Front) -> Self {
        let runtime = Runtime::new().unwrap();
        let inside = runtime.enter();
        let stores = MODES.map(|pushdown| {
            let database = front.database.clone();
            let config =
                ClickHouseConfig { database, pushdown, retention: None, ..ClickHouseConfig::new(&front.url) };
            ClickHouseStore::open(config, HandClock::at(Timestamp(TO))).unwrap()
        });
        drop(inside);
        runtime.block_on(stores[0].apply_schema()).unwrap();
        Self { runtime, front, stores: stores.into() }
    }

    pub(super) fn append(&self, series: &[(Labels, SeriesSamples)]) {
        let mut batch = WriteBatch::over(series.iter().map(|(labels, _)| labels.clone()).collect());
        for (number, (_, samples)) in (0..).zip(series) {
            for i in 0..samples.len() {
                batch.samples.push(BatchSample {
                    series: number,
                    timestamp: Timestamp(samples.timestamps[i]),
                    value: samples.values[i],
                    start: 0,
                });
            }
        }
        let appended = self.runtime.block_on(self.stores[0].append(&TenantId::anonymous(), batch)).unwrap();
        assert!(appended.rejected.is_empty());
    }

    pub(super) fn engines(&self) -> Vec<Engine> {
        let engine = |store: &Arc<ClickHouseStore>| {
            let store = Arc::clone(store) as Arc<dyn Storage>;
            let options = EngineOptions { threads: 1, ..EngineOptions::default() };
            Engine::new(store, options, HandClock::at(Timestamp(TO))).unwrap()
        };
        self.stores.iter().map(engine).collect()
    }

    pub(super) fn taken(&self, mode: Pushdown) -> u64 {
        let place = MODES.iter().position(|m| *m == mode).unwrap();
        self.stores[place].pushdown_counters().taken.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// Series of three metrics, in two batches that overlap and contradict each other.
fn fill(databases: &Databases, dice: &mut Dice) {
    let mut first = Vec::new();
    let mut second = Vec::new();
    for (name, wild) in [("tame_total", false), ("tame", false), ("wild", true)] {
        for number in 0..12 {
            let mut pairs = vec![
                ("__name__".to_owned(), name.to_owned()),
                ("a".to_owned(), format!("a{}", number % 3)),
                ("n".to_owned(), number.to_string()),
            ];
            if number % 4 != 0 {
                pairs.push(("b".to_owned(), format!("b'{}\\", number % 2)));
            }
            let labels = Labels::from_pairs(pairs).unwrap();
            let samples = series(dice, FROM, TO, wild);
            let (mut here, mut there) = (SeriesSamples::default(), SeriesSamples::default());
            for (at, value) in samples.timestamps.iter().zip(&samples.values) {
                let late = dice.chance(20);
                if !late {
                    here.push(*at, *value, 0);
                }
                match dice.below(30) {
                    0 => there.push(*at, *value, 0),
                    // A number wins over what is none, and the greater over the lesser.
                    1 if value.is_finite() && !late => {
                        let other = [stale_nan(), f64::NAN, value + 1.0, value - 1.0][dice.below(4) as usize];
                        there.push(*at, other, 0);
                    }
                    _ if late => there.push(*at, *value, 0),
                    _ => {}
                }
            }
            first.push((labels.clone(), here));
            second.push((labels, there));
        }
    }
    databases.append(&first);
    databases.append(&second);
}

const FUNCTIONS: [&str; 18] = [
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "deriv",
    "changes",
    "resets",
    "avg_over_time",
    "sum_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "last_over_time",
    "present_over_time",
    "first_over_time",
    "stddev_over_time",
    "absent_over_time",
];

/// An expression; some may be pushed down, some in part and some not at all.
fn expression(dice: &mut Dice) -> String {
    let pick = |dice: &mut Dice, from: &[&str]| from[dice.below(from.len() as u64) as usize].to_owned();
    let metric = pick(
        dice,
        &[
            "tame_total",
            "tame",
            "wild",
            r#"tame_total{a="a1"}"#,
            r#"tame{b=~"b.*"}"#,
            r#"tame{b=""}"#,
            r#"wild{n!="3"}"#,
            r#"{__name__=~"tame.*", a="a0"}"#,
            r#"none{a="a0"}"#,
        ],
    );
    let range = pick(dice, &["15s", "45s", "1m", "5m", "17m", "1h", "999ms"]);
    let shift = match dice.below(10) {
        0 => " offset 7m".to_owned(),
        1 => " offset -90s".to_owned(),
        2 => format!(" @ {}", (FROM / 1000) + dice.below(14_400) as i64),
        3 => " @ end() offset 1m".to_owned(),
        _ => String::new(),
    };
    let leaf = if dice.chance(25) {
        format!("{metric}{shift}")
    } else {
        format!("{}({metric}[{range}]{shift})", pick(dice, &FUNCTIONS))
    };
    let by = pick(dice, &["", "by (a)", "by (a, b)", "by (b, zzz)", "without (n)", "by (__name__, a)"]);
    let agg = pick(dice, &["sum", "avg", "min", "max", "count", "group", "min", "max", "count"]);
    match dice.below(12) {
        0..=2 => leaf,
        3..=6 => format!("{agg} {by} ({leaf})"),
        7 => format!("topk(3, {leaf})"),
        8 => format!("max_over_time({leaf}[10m:1m])").replace(" @ end() offset 1m", ""),
        9 => format!("{agg} by (a) ({leaf}) + on(a) group_left() count by (a) (tame)"),
        10 => format!("sum by (a) ({agg} by (a, b) ({leaf}))"),
        _ => format!("abs({leaf})"),
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct When {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) step: i64,
}

pub(super) fn ask(databases: &Databases, engine: &Engine, text: &str, when: When) -> Result<Answer, String> {
    let (tenant, options) = (View::of(TenantId::anonymous()), QueryOptions::default());
    let (start, end) = (Timestamp(when.start), Timestamp(when.end));
    if when.step == 0 {
        databases.runtime.block_on(engine.instant(&tenant, text, start, &options))
    } else {
        databases.runtime.block_on(engine.range(&tenant, text, start, end, Millis(when.step), &options))
    }
    .map_err(|error| error.to_string())
}

/// Labels, and times with values.
type Rows = Vec<(String, Vec<(i64, f64)>)>;

fn rows_of(answer: &Answer) -> Rows {
    match &answer.value {
        Value::Vector(elements) => elements
            .iter()
            .map(|element| {
                let Point::Float(value) = element.value else { panic!("a histogram") };
                (element.labels.to_string(), vec![(element.timestamp, value)])
            })
            .collect(),
        Value::Matrix(series) => series.iter().map(|s| (s.labels.to_string(), s.floats.clone())).collect(),
        other => panic!("{other:?}"),
    }
}

/// The same to the bit; a NaN is a NaN.
pub(super) fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

pub(super) fn assert_alike(seen: &Answer, wanted: &Answer, alike: impl Fn(f64, f64) -> bool, case: &str) {
    let (seen_rows, wanted_rows) = (rows_of(seen), rows_of(wanted));
    let shape = |rows: &Rows| -> Vec<(String, Vec<i64>)> {
        rows.iter().map(|(labels, floats)| (labels.clone(), floats.iter().map(|f| f.0).collect())).collect()
    };
    assert_eq!(shape(&seen_rows), shape(&wanted_rows), "{case}");
    for ((labels, seen), (_, wanted)) in seen_rows.iter().zip(&wanted_rows) {
        for ((at, seen), (_, wanted)) in seen.iter().zip(wanted) {
            assert!(alike(*seen, *wanted), "{case}\n{labels} at {at}: {seen:e} for {wanted:e}");
        }
    }
    assert_eq!((&seen.warnings, &seen.infos), (&wanted.warnings, &wanted.infos), "{case}");
}

#[test]
fn pushed_down_or_not_the_answer_is_the_same() {
    const CASES: u64 = 320;
    let Some(databases) = Databases::start() else { return };
    let seed = std::env::var("LUMINATE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(11);
    let mut dice = Dice::new(seed);
    fill(&databases, &mut dice);
    let engines = databases.engines();
    for number in 0..CASES {
        let text = expression(&mut dice);
        let start = FROM + dice.below(3 * 3_600_000) as i64;
        let step = [0, 1_000, 15_000, 60_000, 61_007, 300_000, 1_800_000][dice.below(7) as usize];
        let end = start + (step * dice.below(120) as i64).min(3_600_000 * 2);
        let when = When { start, end, step };
        let case = format!("seed {seed}, case {number}: {text} {when:?}");
        let [off, auto, exact, force] = [0, 1, 2, 3].map(|mode| ask(&databases, &engines[mode], &text, when));
        let wanted = match off {
            Ok(wanted) => wanted,
            Err(error) => {
                assert_eq!(
                    [auto, exact, force].map(|answer| answer.unwrap_err()),
                    [(); 3].map(|()| error.clone())
                );
                continue;
            }
        };
        assert_alike(&auto.unwrap(), &wanted, same, &case);
        assert_alike(&exact.unwrap(), &wanted, same, &case);
        let force = force.unwrap();
        if text.contains("topk") {
            // A little less may be another series.
            continue;
        }
        let is_tame = !text.contains("wild");
        let near = |a: f64, b: f64| same(a, b) || !is_tame || (a - b).abs() <= 1e-9 * b.abs() + 1e-6;
        assert_alike(&force, &wanted, near, &case);
    }
    assert_eq!(databases.taken(Pushdown::Off), 0);
    for mode in [Pushdown::Exact, Pushdown::Force] {
        assert!(databases.taken(mode) > CASES / 4, "{mode:?}: only {} were taken", databases.taken(mode));
    }
}

#[test]
fn the_engine_of_the_tests_proves_what_is_measured() {
    let Some(databases) = Databases::start() else { return };
    fill(&databases, &mut Dice::new(1));
    let engines = databases.engines();
    ask(&databases, &engines[3], "rate(tame[1m])", When { start: TO, end: TO, step: 0 }).unwrap();
    let proven = databases.stores[3].pushdown_proven().unwrap();
    assert_eq!(
        (proven.names(Exactness::Bits), proven.names(Exactness::Close)),
        (
            vec![
                "changes",
                "count_over_time",
                "idelta",
                "last_over_time",
                "max_over_time",
                "min_over_time",
                "newest",
                "present_over_time",
                "resets"
            ],
            vec!["avg_over_time", "delta", "deriv", "increase", "irate", "rate", "sum_over_time"]
        ),
        "on {}",
        databases.front.sql("SELECT version()")
    );
}
