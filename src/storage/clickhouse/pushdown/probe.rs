//! Which functions a server knows, and whether they give what ours do.
//!
//! Functions come and change with versions, so each is tried on samples that we made up, and its values are
//! compared with what our own functions give for them (`expected.txt`; a test holds the two together). What
//! fails, or is far off, is not used. The samples stand on the windows' edges, start again, are stale, are
//! there twice, and reach the ends of the floats, whatever has been seen to go wrong somewhere.

use std::{collections::BTreeMap, time::Duration};

use super::sql;
use crate::{
    model::{Millis, STALE_NAN_BITS, Timestamp},
    storage::{
        Grid, Operation, WindowFunction,
        clickhouse::{
            client::{Failure, Servers, Statement},
            pushdown::Plan,
        },
        offer::ABSENT,
    },
};

/// The first version whose windows are open on the left.
const FIRST_VERSION: (u32, u32) = (25, 9);
/// How long what was found out is believed; servers are replaced while we run.
const BELIEVED: Duration = Duration::from_secs(600);
/// How long it is believed that nothing could be found out.
const DESPAIRED: Duration = Duration::from_secs(30);
/// How far off a value may be, as a part of it, to be close.
const CLOSE: f64 = 1e-9;
/// The setting that allows the functions, and its name in older versions.
const SETTINGS: [&str; 2] =
    ["enable_time_series_aggregate_functions", "allow_experimental_time_series_aggregate_functions"];

/// What our functions give for the cases: a line per case and function, the values' bits, `-` for none.
pub const EXPECTED: &str = include_str!("expected.txt");

/// How near a function comes to ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exactness {
    /// The same to the bit.
    Bits,
    /// Near enough to be used by those who ask for it.
    Close,
}

/// What a server has shown to know.
#[derive(Clone, Debug)]
pub struct Proven {
    /// The server's version.
    pub version: String,
    /// The setting that allows the functions.
    pub setting: &'static str,
    functions: BTreeMap<&'static str, Exactness>,
    since: Duration,
}

impl Proven {
    /// How near a server comes to ours; none if it is not to be used.
    pub fn of(&self, operation: &Operation) -> Option<Exactness> {
        self.functions.get(name_of(operation)?).copied()
    }

    /// The functions that come that near, by their names in PromQL.
    pub fn names(&self, exactness: Exactness) -> Vec<&'static str> {
        self.functions.iter().filter(|(_, e)| **e == exactness).map(|(name, _)| *name).collect()
    }

    pub(super) fn is_fresh(&self, now: Duration) -> bool {
        let age = now.saturating_sub(self.since);
        age < if self.version.is_empty() { DESPAIRED } else { BELIEVED }
    }

    /// Nothing is known, and nothing is used.
    pub(super) fn nothing(now: Duration) -> Self {
        Self { version: String::new(), setting: SETTINGS[0], functions: BTreeMap::new(), since: now }
    }
}

/// Samples and the grid over which functions are tried on them.
#[derive(Clone, Debug)]
pub struct Case {
    /// Times and values, in no order, some times twice.
    pub samples: Vec<(i64, f64)>,
    /// The grid.
    pub grid: Grid,
    /// How far back from an instant samples count.
    pub window: Millis,
    /// Whether the values leave room for sums to be near each other.
    pub is_tame: bool,
}

/// All cases.
pub fn cases() -> Vec<Case> {
    const START: i64 = 1_700_000_000_000;
    let stale = f64::from_bits(STALE_NAN_BITS);
    let grid = |from: i64, to: i64, step: i64| Grid {
        start: Timestamp(START + from),
        end: Timestamp(START + to),
        step: Millis(step),
    };
    // A counter by the quarter of a minute, at times a little late, that starts again twice.
    let mut counter = Vec::new();
    let mut value = 0.1_f64;
    for i in 0_i64..40 {
        if i == 13 || i == 27 {
            value = 0.7;
        }
        if !(18..=21).contains(&i) {
            counter.push((START + i * 15_000 + (i % 4) * 371, value));
        }
        value = value * 1.01 + 3.3;
    }
    // A gauge that stands still, is NaN, ends and comes back; later samples come first.
    let mut gauge = Vec::new();
    for i in (0_i64..60).rev() {
        let value = match i {
            5..=9 => 2.5,
            14 | 30 => f64::NAN,
            20 | 41 => stale,
            _ => f64::from(i32::try_from((i * i * 7919) % 1000).unwrap_or(0)) / 7.0 - 50.0,
        };
        gauge.push((START + i * 10_000, value));
    }
    // The ends of the floats, and more than one value at a time: the greatest counts.
    let odd = [
        (0, 1e308),
        (10, -1e308),
        (20, f64::INFINITY),
        (30, f64::NEG_INFINITY),
        (40, 5e-324),
        (50, -0.0),
        (60, 0.0),
        (70, 3.0),
        (70, f64::NAN),
        (70, 4.0),
        (80, stale),
        (90, 9.0),
        (90, stale),
        (100, f64::NEG_INFINITY),
        (100, -7.0),
        (110, 1.0),
        (110, 1.0),
        (120, stale),
        (170, 2.0),
    ];
    let odd = odd.iter().map(|(seconds, value)| (START + seconds * 1000, *value)).collect();
    vec![
        Case { samples: counter, grid: grid(0, 600_000, 20_000), window: Millis(60_000), is_tame: true },
        Case { samples: gauge, grid: grid(30_000, 630_000, 47_001), window: Millis(30_000), is_tame: true },
        Case { samples: odd, grid: grid(0, 200_000, 10_000), window: Millis(50_000), is_tame: false },
    ]
}

/// Everything that is tried, over a case's window.
pub fn operations(window: Millis) -> Vec<Operation> {
    let mut all = vec![Operation::Newest { lookback: window }];
    all.extend(WindowFunction::ALL.map(|function| Operation::Window { function, range: window }));
    all
}

/// What an operation on samples is called.
pub fn name_of(operation: &Operation) -> Option<&'static str> {
    match operation {
        Operation::Newest { .. } => Some("newest"),
        Operation::Window { function, .. } => Some(function.as_str()),
        Operation::Aggregate { .. } => None,
    }
}

/// The line of [`EXPECTED`] for an operation on a case.
pub fn line(case: usize, operation: &Operation, row: &[f64]) -> String {
    let bits = |value: &f64| match value.to_bits() {
        STALE_NAN_BITS => " -".to_owned(),
        _ if value.is_nan() => " nan".to_owned(),
        bits => format!(" {bits:x}"),
    };
    let values: String = row.iter().map(bits).collect();
    format!("{case} {}:{values}", name_of(operation).unwrap_or_default())
}

/// The values of a line.
fn values(line: &str) -> Option<Vec<f64>> {
    line.split(' ')
        .filter(|text| !text.is_empty())
        .map(|text| match text {
            "-" => Some(ABSENT),
            "nan" => Some(f64::NAN),
            bits => u64::from_str_radix(bits, 16).ok().map(f64::from_bits),
        })
        .collect()
}

/// Asks a server.
pub(super) async fn probe(servers: &Servers, now: Duration) -> Result<Proven, Failure> {
    let sql =
        "SELECT version(), countIf(name = {new:String}), countIf(name = {old:String}) FROM system.settings";
    let statement = Statement::new(sql).param("new", SETTINGS[0]).param("old", SETTINGS[1]);
    let rows = servers.rows(&statement).await?.all(|row| Ok((row.string()?, row.u64()?, row.u64()?))).await?;
    let mut proven = Proven::nothing(now);
    let Some((version, new, old)) = rows.into_iter().next() else { return Ok(proven) };
    proven.setting = if new > 0 { SETTINGS[0] } else { SETTINGS[1] };
    let fits = is_new_enough(&version) && new + old > 0;
    proven.version = version;
    if !fits {
        return Ok(proven);
    }
    let expected: BTreeMap<&str, &str> = EXPECTED.lines().filter_map(|line| line.split_once(':')).collect();
    for (number, case) in cases().into_iter().enumerate() {
        for operation in operations(case.window) {
            let Some(name) = name_of(&operation) else { continue };
            let Some(wanted) = expected.get(format!("{number} {name}").as_str()).copied().and_then(values)
            else {
                continue;
            };
            let got = attempt(servers, &case, &operation, proven.setting).await?;
            let near = got
                .and_then(|got| compare(&got, &wanted, case.is_tame))
                .map(|near| near.max(measured(&operation)));
            let before =
                if number == 0 { Some(Exactness::Bits) } else { proven.functions.get(name).copied() };
            match near.zip(before) {
                Some((near, before)) => proven.functions.insert(name, near.max(before)),
                None => proven.functions.remove(name),
            };
        }
    }
    Ok(proven)
}

/// A function's values for a case; none if the server does not give any.
async fn attempt(
    servers: &Servers,
    case: &Case,
    operation: &Operation,
    setting: &'static str,
) -> Result<Option<Vec<f64>>, Failure> {
    let Some(sql) = sql::trial(operation) else { return Ok(None) };
    let times = case.samples.iter().map(|(at, _)| u64::try_from(*at).unwrap_or(0)).collect::<Vec<_>>();
    let bits = case.samples.iter().map(|(_, value)| value.to_bits()).collect::<Vec<_>>();
    let plan = Plan { first: operation.clone(), combine: None, grid: case.grid, setting };
    let statement = sql::bind_grid(Statement::new(sql), &plan).param("times", times).param("bits", bits);
    let rows = match servers.rows(&statement).await {
        Ok(rows) => rows.all(super::decode::floats).await,
        Err(failure) => Err(failure),
    };
    match rows {
        Ok(rows) => Ok(rows.into_iter().next()),
        // The server is there, it only does not do this.
        Err(failure) if failure.code.is_some() => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// How near a function comes in the long run, however it does on the few cases that are tried.
fn measured(operation: &Operation) -> Exactness {
    use WindowFunction as F;
    match operation {
        Operation::Newest { .. } | Operation::Aggregate { .. } => Exactness::Bits,
        Operation::Window { function, .. } => match function {
            F::Idelta | F::Changes | F::Resets | F::Min | F::Max | F::Count | F::Last | F::Present => {
                Exactness::Bits
            }
            F::Rate | F::Increase | F::Delta | F::Irate | F::Deriv | F::Avg | F::Sum => Exactness::Close,
        },
    }
}

/// How near values are; none if they are far off, or not all there. NaN is NaN, whatever its bits, and
/// zero is zero: where its sign is left to chance, it is looked for in the samples.
fn compare(got: &[f64], wanted: &[f64], is_tame: bool) -> Option<Exactness> {
    let is_absent = |value: f64| value.to_bits() == ABSENT.to_bits();
    let mut nearest = Exactness::Bits;
    if got.len() != wanted.len() {
        return None;
    }
    for (got, wanted) in got.iter().copied().zip(wanted.iter().copied()) {
        let same = got.to_bits() == wanted.to_bits()
            || got == wanted
            || (got.is_nan() && wanted.is_nan() && !is_absent(got) && !is_absent(wanted));
        if same {
            continue;
        }
        let near = (got - wanted).abs() <= CLOSE * wanted.abs().max(1e-3);
        if is_absent(got) || is_absent(wanted) || (is_tame && !near) {
            return None;
        }
        nearest = Exactness::Close;
    }
    Some(nearest)
}

/// Whether a version, `26.9.2.1`, is one to begin with.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) >= FIRST_VERSION,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for (version, fits) in [
            ("26.9.2.1", true),
            ("25.9.1", true),
            ("25.10", true),
            ("25.8.16", false),
            ("9.9", false),
            ("", false),
        ] {
            assert_eq!(is_new_enough(version), fits, "{version}");
        }
    }

    #[test]
    fn presence_must_match_and_values_be_near() {
        assert_eq!(compare(&[1.0, ABSENT], &[1.0, ABSENT], true), Some(Exactness::Bits));
        assert_eq!(compare(&[f64::NAN], &[-f64::NAN], true), Some(Exactness::Bits));
        assert_eq!(compare(&[1.0 + 1e-15], &[1.0], true), Some(Exactness::Close));
        assert_eq!(compare(&[1.1], &[1.0], true), None);
        assert_eq!(compare(&[1.1], &[1.0], false), Some(Exactness::Close));
        assert_eq!(compare(&[ABSENT], &[f64::NAN], false), None);
        assert_eq!(compare(&[1.0], &[ABSENT], false), None);
        assert_eq!(compare(&[0.0], &[-0.0], true), Some(Exactness::Bits));
        assert_eq!(compare(&[], &[1.0], true), None);
    }

    #[test]
    fn every_operation_is_expected_for_every_case() {
        for (number, case) in cases().iter().enumerate() {
            for operation in operations(case.window) {
                let start = format!("{number} {}:", name_of(&operation).unwrap());
                let line = EXPECTED.lines().find(|line| line.starts_with(&start)).expect(&start);
                let values = values(&line[start.len()..]).expect("bits");
                assert_eq!(values.len(), case.grid.count(), "{start}");
                assert_eq!(super::line(number, &operation, &values), line);
            }
        }
    }
}
