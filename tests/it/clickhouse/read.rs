//! What is read back, where the tables alone would not give it.

use std::{sync::Arc, time::Duration};

use luminate::{
    clock::HandClock,
    model::{Labels, MatchOp, Matcher, TenantId, TimeRange, Timestamp, stale_nan},
    storage::{
        BatchSample, LabelsRequest, Runs, SelectRequest, SeriesSamples, Storage, StorageError, WriteBatch,
        clickhouse::{ClickHouseConfig, ClickHouseStore},
        conformance::read_all,
    },
};
use tokio::runtime::Runtime;

use super::front::Front;
use crate::patience::wait_for;

/// 2026-01-10 00:00:00 UTC.
const NOW: i64 = 1_768_003_200_000;
const DAY: i64 = 86_400_000;

/// A store on an empty database of its own, by a clock that shows [`NOW`].
pub(super) struct Subject {
    pub(super) front: Front,
    pub(super) runtime: Runtime,
    pub(super) config: ClickHouseConfig,
    pub(super) store: Arc<ClickHouseStore>,
    pub(super) tenant: TenantId,
}

impl Subject {
    pub(super) fn start() -> Option<Self> {
        let front = Front::start()?;
        let runtime = Runtime::new().unwrap();
        let config = ClickHouseConfig {
            database: front.database.clone(),
            retention: None,
            ..ClickHouseConfig::new(&front.url)
        };
        let store = open(&runtime, &config);
        runtime.block_on(store.apply_schema()).unwrap();
        Some(Self { front, runtime, config, store, tenant: TenantId::new("t").unwrap() })
    }

    pub(super) fn write(&self, series: &[Labels], samples: &[(u32, i64, f64)]) {
        let mut batch = WriteBatch::over(series.to_vec());
        let sample = |(series, at, value): &(u32, i64, f64)| BatchSample {
            series: *series,
            timestamp: Timestamp(*at),
            value: *value,
            start: 0,
        };
        batch.samples = samples.iter().map(sample).collect();
        let appended = self.runtime.block_on(self.store.append(&self.tenant, batch)).unwrap();
        assert_eq!(appended.samples as usize, samples.len());
    }

    pub(super) fn read(&self, matchers: &[Matcher], range: TimeRange) -> Vec<(Labels, SeriesSamples)> {
        let request = SelectRequest::new(matchers.to_vec(), range);
        self.runtime.block_on(read_all(self.store.as_ref(), &self.tenant, request))
    }

    pub(super) fn series(&self, matchers: &[Matcher]) -> Vec<Labels> {
        let request = LabelsRequest { matchers: vec![matchers.to_vec()], range: TimeRange::ALL, limit: 0 };
        self.runtime.block_on(self.store.series(&self.tenant, request)).unwrap()
    }

    pub(super) fn count(&self, what: &str) -> u64 {
        let all = self.store.read_counters().all();
        all.iter().find(|(name, _)| *name == what).expect("there is such a count").1
    }

    /// Waits for something that happens in the background.
    pub(super) fn until(&self, what: &str, happened: impl Fn(&Self) -> bool) {
        wait_for(what, || happened(self));
    }
}

pub(super) fn open(runtime: &Runtime, config: &ClickHouseConfig) -> Arc<ClickHouseStore> {
    let _inside = runtime.enter();
    ClickHouseStore::open(config.clone(), HandClock::at(Timestamp(NOW))).unwrap()
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

pub(super) fn range(start: i64, end: i64) -> TimeRange {
    TimeRange::new(Timestamp(start), Timestamp(end)).unwrap()
}

fn matcher(op: MatchOp, name: &str, value: &str) -> Matcher {
    Matcher::new(op, name, value).unwrap()
}

fn bits(samples: &SeriesSamples) -> Vec<(i64, u64)> {
    samples.timestamps.iter().zip(&samples.values).map(|(at, value)| (*at, value.to_bits())).collect()
}

#[test]
fn more_series_and_metrics_than_a_statement_names_come_back() {
    let Some(s) = Subject::start() else { return };
    // 2,600 series of one metric, and 600 metrics of one series.
    let mut all: Vec<Labels> = (0..2_600)
        .map(|i| {
            let few = if i % 50 == 0 { "yes" } else { "no" };
            labels(&[("__name__", "big"), ("i", &i.to_string()), ("few", few)])
        })
        .collect();
    all.extend((0..600).map(|i| labels(&[("__name__", &format!("m{i}")), ("i", &i.to_string())])));
    let times = [NOW - 3 * 3_600_000, NOW - 60_000, NOW - 30_000];
    let samples: Vec<(u32, i64, f64)> =
        (0..3_200).flat_map(|series| times.map(|at| (series, at, f64::from(series)))).collect();
    s.write(&all, &samples);
    let long = TimeRange::ALL;
    let short = range(NOW - 4 * 3_600_000, NOW - 45_000);
    let name = |name| Matcher::equal("__name__", name);
    let cases: [(Vec<Matcher>, usize); 5] = [
        (vec![name("big")], 2_600),
        (vec![name("big"), Matcher::equal("few", "no")], 2_548),
        (vec![name("big"), Matcher::equal("few", "yes")], 52),
        (vec![matcher(MatchOp::Matches, "__name__", "m.+")], 600),
        (vec![], 3_200),
    ];
    for (matchers, series) in cases {
        for (range, samples) in [(long, 3), (short, 2)] {
            let found = s.read(&matchers, range);
            assert_eq!(found.len(), series, "{matchers:?}");
            for (labels, found) in found {
                let value = all.iter().position(|l| *l == labels).unwrap() as f64;
                let expect: Vec<(i64, u64)> =
                    times[..samples].iter().map(|at| (*at, value.to_bits())).collect();
                assert_eq!(bits(&found), expect, "{labels} {range:?}");
            }
        }
    }
}

#[test]
fn conflicts_are_settled_alike_in_whatever_order_they_are_written() {
    let Some(s) = Subject::start() else { return };
    // From what loses against all others to what wins.
    let order = [stale_nan(), f64::NAN, f64::NEG_INFINITY, -0.0, 0.0, 3.5, f64::INFINITY];
    let pairs: Vec<(f64, f64)> = order.iter().flat_map(|a| order.map(|b| (*a, b))).collect();
    let series: Vec<Labels> =
        (10..10 + pairs.len()).map(|i| labels(&[("__name__", "c"), ("i", &i.to_string())])).collect();
    let numbered = || (0..).zip(&pairs);
    // Neighbours on both sides in the same part, and a batch of its own for each value.
    let first: Vec<_> = numbered()
        .flat_map(|(i, (a, _))| [(i, NOW - 2000, 1.0), (i, NOW - 1000, *a), (i, NOW, 2.0)])
        .collect();
    s.write(&series, &first);
    s.write(&series, &numbered().map(|(i, (_, b))| (i, NOW - 1000, *b)).collect::<Vec<_>>());
    for merged in [false, true] {
        if merged {
            s.front.sql(&format!("OPTIMIZE TABLE {}.samples FINAL", s.front.database));
        }
        let found = s.read(&[], TimeRange::ALL);
        assert_eq!(found.len(), pairs.len());
        for ((_, samples), (a, b)) in found.iter().zip(&pairs) {
            let rank = |v: &f64| order.iter().position(|o| o.to_bits() == v.to_bits()).unwrap();
            let winner = if rank(a) > rank(b) { a } else { b };
            let expect = [(NOW - 2000, 1.0_f64), (NOW - 1000, *winner), (NOW, 2.0)];
            assert_eq!(bits(samples), expect.map(|(at, value)| (at, value.to_bits())), "{a} {b}");
        }
    }
}

#[test]
fn matchers_mean_there_what_they_mean_here() {
    let Some(s) = Subject::start() else { return };
    let values = [
        "",
        "a",
        "A",
        "ab",
        "a\nb",
        "a\tb",
        "a\\b",
        "a'b",
        "a\"b",
        "a`b",
        "é",
        "日本",
        "a=b",
        "=",
        "a|b",
        "1",
        "12",
        "٣",
        " ",
        "_",
        "a\r\nb",
        "\u{0}",
        "-",
        "{}",
        "$",
        "^",
        "\u{1f600}",
        "a?b",
        "?",
        "--",
        "/* x */",
        "{x:String}",
    ];
    let series: Vec<Labels> = (0..)
        .zip(values)
        .map(|(i, v)| labels(&[("__name__", "m"), ("i", &format!("{i:02}")), ("x", v)]))
        .collect();
    s.write(&series, &(0..).zip(values).map(|(i, _)| (i, NOW, 1.0)).collect::<Vec<_>>());
    let patterns = [
        "a",
        "a.b",
        "a.*",
        ".+",
        ".*",
        "",
        "[^a]*",
        "(?i)A",
        "(?i:É)",
        r"\d+",
        r"\w*",
        r"a\sb",
        r"\pL+",
        r"\p{Greek}",
        "a|é|",
        "a|b",
        "(a|b)=.",
        r"[[:alpha:]]{1,2}",
        r"\S\s\S",
        r"a\\b",
        "a'b",
        r"\x{65e5}.",
        ".",
        "..",
        r"\$",
        r"a\?b",
        r"(a{1,50}){1,15}b?",
        r"^a$",
        r"\Aa\z",
        r"a\b.*",
        r"\Qa|b\E",
        "(?s).",
        "(?-s).",
        "(?m)^a$",
        "(?m)a$.^b",
        r"[\x00-\x{10FFFF}]",
        "{}|=",
        "(?U)a+b",
    ];
    let texts = values.iter().flat_map(|v| [MatchOp::Equal, MatchOp::NotEqual].map(|op| (op, *v)));
    let patterns = patterns.iter().flat_map(|p| [MatchOp::Matches, MatchOp::NotMatches].map(|op| (op, *p)));
    for (op, value) in texts.chain(patterns) {
        let matcher = matcher(op, "x", value);
        let expect: Vec<Labels> =
            series.iter().filter(|l| matcher.matches(l.get("x").unwrap_or(""))).cloned().collect();
        assert_eq!(s.series(std::slice::from_ref(&matcher)), expect, "{matcher}");
        let found: Vec<Labels> =
            s.read(std::slice::from_ref(&matcher), TimeRange::ALL).into_iter().map(|(l, _)| l).collect();
        assert_eq!(found, expect, "{matcher}");
        let request =
            LabelsRequest { matchers: vec![vec![matcher.clone()]], range: TimeRange::ALL, limit: 0 };
        let mut got = s.runtime.block_on(s.store.label_values(&s.tenant, "x", request)).unwrap();
        let mut expect: Vec<&str> = expect.iter().filter_map(|l| l.get("x")).collect();
        expect.sort_unstable();
        assert!(got.is_sorted());
        got.sort_unstable();
        assert_eq!(got, expect, "{matcher}");
    }
}

#[test]
fn a_pattern_that_the_servers_refuse_is_asked_here() {
    let Some(s) = Subject::start() else { return };
    let series = [labels(&[("__name__", "m"), ("x", "abc")]), labels(&[("__name__", "m"), ("x", "xyz")])];
    s.write(&series, &[(0, NOW, 1.0), (1, NOW, 1.0)]);
    if s.front.is_ours() {
        s.front.fault("fail=427&match=match%5C(&times=3");
        assert_eq!(s.read(&[matcher(MatchOp::Matches, "x", "a.+")], TimeRange::ALL).len(), 1);
        assert_eq!(s.series(&[matcher(MatchOp::NotMatches, "x", "a.+")]), series[1..]);
        assert_eq!(s.count("patterns_refused"), 2);
        s.front.heal();
    }
    // Longer than a server takes, as a text and as a list of texts.
    let long = "y".repeat(200_000);
    assert_eq!(s.series(&[Matcher::equal("x", &long)]), []);
    assert_eq!(s.series(&[matcher(MatchOp::NotEqual, "x", &long)]), series);
    let list = format!("abc|{}", (0..20_000).map(|i| format!("t{i}")).collect::<Vec<_>>().join("|"));
    assert_eq!(s.series(&[matcher(MatchOp::Matches, "x", &list)]), series[..1]);
}

#[test]
fn an_answer_that_breaks_off_is_an_error() {
    let Some(s) = Subject::start() else { return };
    if !s.front.is_ours() {
        return;
    }
    let series: Vec<Labels> = (0..50).map(|i| labels(&[("__name__", "m"), ("i", &i.to_string())])).collect();
    let samples: Vec<_> = (0..50).flat_map(|i| (0..100).map(move |t| (i, NOW - t * 15_000, 1.0))).collect();
    s.write(&series, &samples);
    let select = || {
        s.runtime.block_on(async {
            let request = SelectRequest::new(vec![], TimeRange::ALL);
            let Runs::TimeMajor(mut runs) = s.store.select(&s.tenant, request).await?.runs else {
                panic!("samples come in time order");
            };
            let mut read = 0;
            while let Some(batch) = runs.recv().await {
                read += batch?.iter().map(|run| run.samples.len()).sum::<usize>();
            }
            Ok::<usize, luminate::storage::StorageError>(read)
        })
    };
    assert_eq!(select().unwrap(), 5000);
    for fault in ["drop=mid", "fail_mid=241", "fail=241"] {
        for what in
            ["FROM samples", "FROM histograms", "SELECT mid, sid, labels FROM series", "FROM tombstones"]
        {
            if what != "FROM samples" && what != "SELECT mid, sid, labels FROM series" && fault == "drop=mid"
            {
                // There is nothing in these, so nothing to break off.
                continue;
            }
            s.front.fault(&format!("{fault}&match={}&times=50", what.replace(' ', "%20")));
            let answer = select();
            s.front.heal();
            assert!(answer.is_err(), "{fault} {what}: {answer:?}");
        }
    }
    assert_eq!(select().unwrap(), 5000);
}

#[test]
fn a_query_that_is_gone_stops_reading() {
    let Some(s) = Subject::start() else { return };
    let series: Vec<Labels> = (0..100).map(|i| labels(&[("__name__", "m"), ("i", &i.to_string())])).collect();
    for hour in 0..4 {
        let samples: Vec<_> = (0..100)
            .flat_map(|i| (0..1000).map(move |t| (i, NOW - hour * 3_600_000 - t * 3_000, 1.0)))
            .collect();
        s.write(&series, &samples);
    }
    let request = SelectRequest::new(vec![], TimeRange::ALL);
    let selected = s.runtime.block_on(s.store.select(&s.tenant, request)).unwrap();
    let Runs::TimeMajor(mut runs) = selected.runs else { panic!("samples come in time order") };
    assert!(s.runtime.block_on(runs.recv()).is_some());
    drop(runs);
    s.until("the end of the reading", |s| s.count("selects_cancelled") == 1);
}

#[test]
fn long_ranges_and_the_ends_of_time_come_back_in_order() {
    let Some(s) = Subject::start() else { return };
    let series = [labels(&[("__name__", "long"), ("i", "1")]), labels(&[("__name__", "long"), ("i", "2")])];
    let times: Vec<i64> = [-5, 0, 7]
        .into_iter()
        .chain((0..60).map(|day| NOW - day * DAY - day * 1001))
        .chain([NOW + 400 * DAY, 4_000_000_000_000])
        .collect();
    for at in &times {
        s.write(&series, &[(0, *at, 1.0), (1, *at, 2.0)]);
    }
    let mut sorted = times;
    sorted.sort_unstable();
    for (from, to) in
        [(i64::MIN, i64::MAX), (NOW - 40 * DAY, NOW), (NOW - 30 * DAY, NOW - 9 * DAY), (-5, 8 * DAY)]
    {
        let found = s.read(&[Matcher::equal("__name__", "long")], range(from, to));
        let expect: Vec<i64> = sorted.iter().copied().filter(|at| (from..=to).contains(at)).collect();
        assert_eq!(found.len(), 2);
        for (_, samples) in found {
            assert_eq!(samples.timestamps, expect, "{from} to {to}");
        }
    }
}

#[test]
fn what_is_older_than_a_tenants_retention_is_not_read() {
    let Some(s) = Subject::start() else { return };
    let series = [labels(&[("__name__", "old")]), labels(&[("__name__", "older"), ("x", "1")])];
    s.write(&series, &[(0, NOW - 3 * DAY, 1.0), (0, NOW - DAY, 2.0), (1, NOW - 3 * DAY, 1.0)]);
    let keep = Some(Duration::from_secs(2 * 86_400));
    let config = ClickHouseConfig {
        retention: Some(Duration::from_secs(100 * 86_400)),
        tenant_retention: vec![(s.tenant.clone(), keep)],
        ..s.config.clone()
    };
    let store = open(&s.runtime, &config);
    let request = SelectRequest::new(vec![], TimeRange::ALL);
    let found = s.runtime.block_on(read_all(store.as_ref(), &s.tenant, request));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].1.timestamps, [NOW - DAY]);
    let request = LabelsRequest { matchers: vec![], range: TimeRange::ALL, limit: 0 };
    assert_eq!(s.runtime.block_on(store.label_names(&s.tenant, request)).unwrap(), ["__name__"]);
    let request = SelectRequest::new(vec![], range(0, NOW - 3 * DAY));
    assert_eq!(s.runtime.block_on(read_all(store.as_ref(), &s.tenant, request)), []);
}

#[test]
fn what_one_look_up_keeps_has_a_bound() {
    let Some(s) = Subject::start() else { return };
    let all: Vec<Labels> = (0..40).map(|n| labels(&[("__name__", "m"), ("n", &format!("{n:02}"))])).collect();
    s.write(&all, &(0..40).map(|n| (n, NOW - 1000, 1.0)).collect::<Vec<_>>());
    let small = open(&s.runtime, &ClickHouseConfig { lookup_memory: 2_000, ..s.config.clone() });
    let exhausted = |error: &StorageError| matches!(error, StorageError::Exhausted { .. });
    let select = |max_series| {
        let request = SelectRequest { max_series, ..SelectRequest::new(vec![], TimeRange::ALL) };
        s.runtime.block_on(small.select(&s.tenant, request)).map(|selected| selected.series.len())
    };
    let request = |limit| LabelsRequest { matchers: vec![], range: TimeRange::ALL, limit };
    let series = |limit| s.runtime.block_on(small.series(&s.tenant, request(limit)));
    let values = |limit| s.runtime.block_on(small.label_values(&s.tenant, "n", request(limit)));
    assert!(exhausted(&select(None).unwrap_err()));
    assert!(exhausted(&series(0).unwrap_err()) && exhausted(&values(0).unwrap_err()));
    assert_eq!(series(3).unwrap(), all[..3]);
    assert_eq!(values(3).unwrap(), ["00", "01", "02"]);
    assert_eq!(s.runtime.block_on(small.label_names(&s.tenant, request(0))).unwrap(), ["__name__", "n"]);

    // What is hidden takes no room, and is not counted.
    let sets = vec![vec![matcher(MatchOp::NotMatches, "n", "1.")]];
    s.runtime.block_on(s.store.delete(&s.tenant, sets, TimeRange::ALL)).unwrap();
    assert_eq!((select(None).unwrap(), select(Some(10)).unwrap()), (10, 10));
    assert!(matches!(select(Some(9)), Err(StorageError::TooManySeries { limit: 9 })));
    assert_eq!(series(0).unwrap(), all[10..20]);
    assert_eq!(series(2).unwrap(), all[10..12]);
    assert_eq!(values(2).unwrap(), ["10", "11"]);
}
