//! Windows rolled up, against the samples they are made of.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use luminate::{
    clock::HandClock,
    model::{
        Histogram, Labels, METRIC_NAME, Matcher, Millis, STALE_NAN_BITS, TenantId, TimeRange, Timestamp,
        histogram::{Counts, ResetHint},
        is_stale,
    },
    storage::{
        BatchHistogram, BatchSample, Grid, Offer, Operation, Runs, SelectRequest, Storage, WindowFunction,
        WriteBatch,
        clickhouse::{ClickHouseConfig, ClickHouseStore},
        conformance::read_all,
    },
};
use tokio::runtime::Runtime;

use super::front::Front;
use crate::taker::row_of;

const MINUTE: i64 = Millis::MINUTE.0;
const HOUR: i64 = Millis::HOUR.0;
const DAY: i64 = Millis::DAY.0;
/// A midnight, long enough ago that nobody's clock is behind it.
const START: i64 = 20_000 * DAY;

/// A database, and stores over it whose clock is turned by hand.
struct Case {
    front: Front,
    clock: Arc<HandClock>,
    runtime: Runtime,
}

impl Case {
    fn start(now: i64) -> Option<Self> {
        let case = Self {
            front: Front::start()?,
            clock: HandClock::at(Timestamp(now)),
            runtime: Runtime::new().unwrap(),
        };
        let store = case.store();
        case.run(store.apply_schema()).unwrap();
        Some(case)
    }

    fn store(&self) -> Arc<ClickHouseStore> {
        self.store_with(|_| ())
    }

    /// Nothing is kept for ever but what the test says.
    fn store_with(&self, change: impl FnOnce(&mut ClickHouseConfig)) -> Arc<ClickHouseStore> {
        let _inside = self.runtime.enter();
        let mut config = ClickHouseConfig {
            database: self.front.database.clone(),
            retention: None,
            rollups: true,
            ..ClickHouseConfig::new(&self.front.url)
        };
        change(&mut config);
        ClickHouseStore::open(config, Arc::clone(&self.clock) as _).unwrap()
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn advance(&self, millis: i64) {
        self.clock.advance(Duration::from_millis(u64::try_from(millis).unwrap()));
    }

    fn sql(&self, statement: &str) -> String {
        self.front.sql(&statement.replace("{db}", &self.front.database))
    }

    fn append(&self, store: &dyn Storage, tenant: &TenantId, samples: &[(Labels, i64, f64)]) {
        let mut batch = WriteBatch::over(samples.iter().map(|(labels, ..)| labels.clone()).collect());
        batch.samples = (0..)
            .zip(samples)
            .map(|(series, (_, at, value))| BatchSample {
                series,
                timestamp: Timestamp(*at),
                value: *value,
                start: 0,
            })
            .collect();
        let appended = self.run(store.append(tenant, batch)).unwrap();
        assert_eq!(appended.rejected, []);
    }

    /// Asks for a function, and holds the answer against what the samples give. Whether it came from windows.
    fn check(&self, store: &dyn Storage, tenant: &TenantId, ask: &Ask) -> bool {
        let (grid, range) = (ask.grid(), ask.within());
        let operation = Operation::Window { function: ask.function, range: Millis(ask.range) };
        let request = SelectRequest {
            grid: Some(grid),
            offer: Offer { operations: vec![operation.clone()], max_places: 1 << 20 },
            start_timestamps: false,
            ..SelectRequest::new(vec![metric()], range)
        };
        let selected = self.run(store.select(tenant, request)).unwrap();
        assert!(selected.taken <= 1, "{ask:?}");
        let Runs::Rows(mut rows) = selected.runs else { return false };
        let mut given: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
        while let Some(batch) = self.run(rows.recv()) {
            for row in batch.unwrap() {
                let labels = selected.series[row.ordinal as usize].clone();
                assert!(given.insert(labels, row.values).is_none(), "twice in {ask:?}");
            }
        }
        let samples = self.run(read_all(store, tenant, SelectRequest::new(vec![metric()], range)));
        let absent = |row: &[f64]| row.iter().all(|value| is_stale(*value));
        let mut wanted: BTreeMap<Labels, Vec<f64>> = samples
            .iter()
            .map(|(labels, samples)| (labels.clone(), row_of(&operation, samples, &grid)))
            .collect();
        wanted.retain(|_, row| !absent(row));
        given.retain(|_, row| !absent(row));
        assert_eq!(given.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{ask:?}");
        for (labels, wanted) in wanted {
            for (step, (wanted, given)) in wanted.iter().zip(&given[&labels]).enumerate() {
                assert!(
                    is_stale(*wanted) == is_stale(*given) && ask.is_near(*wanted, *given),
                    "{labels:?} step {step}: {given} instead of {wanted} in {ask:?}"
                );
            }
        }
        true
    }
}

/// A range function over some steps.
#[derive(Clone, Copy, Debug)]
struct Ask {
    function: WindowFunction,
    start: i64,
    end: i64,
    step: i64,
    range: i64,
}

impl Ask {
    fn grid(&self) -> Grid {
        Grid { start: Timestamp(self.start), end: Timestamp(self.end), step: Millis(self.step) }
    }

    fn within(&self) -> TimeRange {
        TimeRange::new(Timestamp(self.start - self.range + 1), Timestamp(self.end)).unwrap()
    }

    fn is_near(&self, a: f64, b: f64) -> bool {
        use WindowFunction as F;
        let exact = matches!(self.function, F::Count | F::Min | F::Max | F::Last | F::Present | F::Resets);
        a == b
            || (a.is_nan() && b.is_nan())
            || (!exact && (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-6))
    }
}

fn metric() -> Matcher {
    Matcher::equal(METRIC_NAME, "x_total")
}

fn series(number: u64) -> Labels {
    let number = number.to_string();
    Labels::from_pairs([(METRIC_NAME, "x_total"), ("n", number.as_str())]).unwrap()
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        // Knuth's multiplier; the upper bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn in_range(&mut self, from: i64, to: i64) -> i64 {
        from + i64::try_from(self.below(u64::try_from(to - from).unwrap())).unwrap()
    }
}

/// Samples as they come in practice and as they should not.
fn samples(dice: &mut Dice, series_count: u64, from: i64, to: i64, every: i64) -> Vec<(Labels, i64, f64)> {
    let mut all = Vec::new();
    for number in 0..series_count {
        let (mut at, mut value) = (from + dice.in_range(0, every), 1000.0);
        while at <= to {
            value += dice.below(1_000) as f64 / 7.0;
            if dice.below(60) == 0 {
                value = dice.below(10) as f64;
            }
            let mut say = |value: f64| all.push((series(number), at, value));
            match dice.below(80) {
                0 => say(f64::NAN),
                1 => say(f64::from_bits(STALE_NAN_BITS)),
                2 => say(-value),
                3 if number % 4 == 3 => say(f64::INFINITY),
                // In conflict: the greatest counts.
                4 => [value, value + 0.5, f64::NAN].into_iter().for_each(say),
                5 => [f64::from_bits(STALE_NAN_BITS), value].into_iter().for_each(say),
                6 => at = (at / HOUR + 1) * HOUR,
                7 => at += dice.in_range(0, 3 * HOUR),
                _ => say(value),
            }
            at += every + if dice.below(3) == 0 { dice.in_range(-2_000, 2_000) } else { 0 };
        }
    }
    all
}

const FUNCTIONS: [WindowFunction; 11] = [
    WindowFunction::Rate,
    WindowFunction::Increase,
    WindowFunction::Delta,
    WindowFunction::Resets,
    WindowFunction::Avg,
    WindowFunction::Sum,
    WindowFunction::Min,
    WindowFunction::Max,
    WindowFunction::Count,
    WindowFunction::Last,
    WindowFunction::Present,
];

/// Steps and ranges that fall together with windows, over the last days before `now`.
fn ask(dice: &mut Dice, now: i64) -> Ask {
    let unit = if dice.below(2) == 0 { HOUR } else { 5 * MINUTE };
    let function = FUNCTIONS[usize::try_from(dice.below(11)).unwrap()];
    let most = if unit == HOUR { 6 } else { 30 };
    let (step, range) = (unit * dice.in_range(1, most), unit * dice.in_range(1, most));
    let start = START / unit * unit + unit * dice.in_range(-2, 6 * HOUR / unit) + range;
    // Some end before now, some after it, and not on a step.
    let end = now - dice.in_range(-2 * HOUR, 12 * HOUR);
    Ask { function, start, end, step, range }
}

#[test]
fn windows_give_what_their_samples_give() {
    let Some(case) = Case::start(START + 2 * DAY + 17 * MINUTE) else { return };
    let (store, a, b) = (case.store(), tenant("a"), tenant("b"));
    let mut dice = Dice(7);
    let now = START + 2 * DAY + 17 * MINUTE;
    for (tenant, count) in [(&a, 6), (&b, 2)] {
        let all = samples(&mut dice, count, START - HOUR, now, 30_000);
        all.chunks(20_000).for_each(|some| case.append(&*store, tenant, some));
    }
    // Nothing is rolled up: nothing is taken.
    let plain =
        Ask { function: WindowFunction::Rate, start: START + HOUR, end: now, step: HOUR, range: HOUR };
    assert!(!case.check(&*store, &a, &plain));
    case.run(store.roll_up()).unwrap();
    // It was all marked, coming late, and is rolled up again; but not what is young.
    assert!(case.check(&*store, &a, &plain));
    let mut taken = 0;
    for _ in 0..150 {
        let ask = ask(&mut dice, now);
        taken += usize::from(case.check(&*store, if dice.below(4) == 0 { &b } else { &a }, &ask));
    }
    assert!(taken > 75, "only {taken} of 150 were read from windows");
    // A series' windows are its own and its tenant's.
    let rows = case.sql("SELECT count() > 0 FROM {db}.rollup_5m WHERE tenant = 'b'");
    assert_eq!(rows.trim(), "1");
    // One step that looks back over all.
    let end = START + 2 * DAY;
    for function in FUNCTIONS {
        assert!(
            case.check(&*store, &a, &Ask { function, start: end, end, step: 1, range: DAY }),
            "{function:?}"
        );
    }
}

#[test]
fn late_samples_and_deletions_are_seen_at_once_and_rolled_up_again() {
    let Some(case) = Case::start(START + DAY + 10 * MINUTE) else { return };
    let (store, other, a) = (case.store(), case.store(), tenant("a"));
    let mut dice = Dice(11);
    let all = samples(&mut dice, 3, START, START + DAY, 60_000);
    case.append(&*store, &a, &all);
    case.advance(2 * HOUR);
    // Two at once, and one more in vain.
    case.run(async { tokio::try_join!(store.roll_up(), other.roll_up()) }).unwrap();
    case.advance(3 * MINUTE);
    case.run(other.roll_up()).unwrap();
    assert_eq!(pending(&case), "0");
    let asks: Vec<Ask> = (FUNCTIONS.into_iter())
        .map(|function| Ask {
            function,
            start: START + HOUR,
            end: START + DAY + 2 * HOUR,
            step: HOUR,
            range: HOUR,
        })
        .collect();
    let check = |taken: bool| {
        for ask in &asks {
            assert_eq!(case.check(&*store, &a, ask), taken, "{ask:?}");
        }
    };
    check(true);

    // Late: told to the other, seen from here, before and after it is rolled up again.
    case.append(
        &*other,
        &a,
        &[(series(0), START + 5 * HOUR + 1, 1e6), (series(9), START + 5 * HOUR + 1, 1.0)],
    );
    assert_ne!(pending(&case), "0");
    check(true);
    case.advance(3 * MINUTE);
    case.run(store.roll_up()).unwrap();
    assert_eq!(pending(&case), "0");
    check(true);

    // Deleted: hidden, gone, and a series whose windows are empty then.
    let range =
        TimeRange::new(Timestamp(START + 8 * HOUR + 1), Timestamp(START + 9 * HOUR + 30 * MINUTE)).unwrap();
    case.run(store.delete(&a, vec![vec![metric()]], range)).unwrap();
    check(true);
    let nine = Matcher::equal("n", "9");
    case.run(store.delete(&a, vec![vec![nine]], TimeRange::ALL)).unwrap();
    check(true);
    case.run(other.clean_tombstones(&a)).unwrap();
    // All of time is marked; what is not closed yet is worked off once it is.
    check(false);
    case.run(store.roll_up()).unwrap();
    assert_eq!(pending(&case), "1");
    check(true);
    case.advance(3 * HOUR);
    case.run(other.roll_up()).unwrap();
    assert_eq!(pending(&case), "0");
    check(true);
    let emptied = START + 9 * HOUR;
    let left =
        case.sql(&format!("SELECT count() FROM {{db}}.rollup_1h FINAL WHERE cnt > 0 AND ts = {emptied}"));
    assert_eq!(left.trim(), "0");
    // And written there again.
    case.append(&*store, &a, &[(series(9), START + 8 * HOUR + 5 * MINUTE, 3.0)]);
    check(true);
    case.advance(3 * MINUTE);
    case.run(store.roll_up()).unwrap();
    assert_eq!(pending(&case), "0");
    check(true);
}

fn pending(case: &Case) -> String {
    case.sql("SELECT count() FROM {db}.rollup_late FINAL WHERE done = 0").trim().to_owned()
}

#[test]
fn what_broke_off_goes_on_elsewhere() {
    let Some(case) = Case::start(START + DAY + 10 * MINUTE) else { return };
    let (store, a) = (case.store(), tenant("a"));
    let mut dice = Dice(13);
    let all = samples(&mut dice, 3, START, START + DAY, 60_000);
    case.append(&*store, &a, &all);
    case.advance(2 * HOUR);
    if case.front.is_ours() {
        // The third slice fails.
        for after in
            ["fail=241&match=INSERT INTO rollup_5m&times=1", "drop=after&match=INSERT INTO rollup_5m&times=1"]
        {
            case.front.fault(&after.replace(' ', "%20"));
            case.run(store.roll_up()).unwrap_err();
        }
        case.front.heal();
    }
    drop(store);
    let store = case.store();
    // What claimed it is gone.
    case.advance(3 * MINUTE);
    case.run(store.roll_up()).unwrap();
    for function in FUNCTIONS {
        let ask = Ask { function, start: START + HOUR, end: START + DAY, step: HOUR, range: 5 * MINUTE };
        assert!(case.check(&*store, &a, &ask), "{function:?}");
    }
    let counters: BTreeMap<_, _> = store.rollup_counters().all().into_iter().collect();
    assert_eq!(counters["passes"], 1);
    assert!(counters["reads"] >= 11 && counters["rows_read"] > 0, "{counters:?}");
    // Two hours and three minutes after midnight, windows up to one o'clock are closed.
    assert!(counters["lag_seconds"] < 5_400, "{counters:?}");
}

#[test]
fn histograms_and_retention_are_heeded() {
    let Some(case) = Case::start(START + 2 * DAY) else { return };
    let (store, a, short) = (case.store(), tenant("a"), tenant("short"));
    let keeps = |config: &mut ClickHouseConfig| {
        config.tenant_retention = vec![(tenant("short"), Some(Duration::from_secs(86_400 + 700)))];
    };
    let mut dice = Dice(17);
    let all = samples(&mut dice, 3, START, START + 2 * DAY, 60_000);
    case.append(&*store, &a, &all);
    case.append(&*store, &short, &all);
    case.advance(3 * HOUR);
    case.run(store.roll_up()).unwrap();
    // The retention begins within a window.
    let store = case.store_with(keeps);
    for function in FUNCTIONS {
        let ask = Ask { function, start: START + DAY, end: START + 2 * DAY, step: HOUR, range: 2 * HOUR };
        assert!(case.check(&*store, &short, &ask), "{function:?}");
        assert!(case.check(&*store, &a, &ask), "{function:?}");
    }
    // A histogram in between: left to who knows what they mean.
    let mut batch = WriteBatch::over(vec![series(0)]);
    batch.histograms = vec![BatchHistogram {
        series: 0,
        timestamp: Timestamp(START + DAY),
        histogram: Arc::new(histogram()),
        start: 0,
    }];
    case.run(store.append(&a, batch)).unwrap();
    let ask = Ask {
        function: WindowFunction::Count,
        start: START + DAY,
        end: START + 2 * DAY,
        step: HOUR,
        range: HOUR,
    };
    assert!(!case.check(&*store, &a, &ask));
    assert!(case.check(&*store, &short, &ask));
}

fn histogram() -> Histogram {
    Histogram {
        reset_hint: ResetHint::Unknown,
        schema: 0,
        zero_threshold: 0.0,
        sum: 1.0,
        counts: Counts::Integer { count: 0, zero_count: 0, positive: Vec::new(), negative: Vec::new() },
        positive_spans: Vec::new(),
        negative_spans: Vec::new(),
        custom_values: Vec::new(),
    }
}
