//! What is too old: refused, hidden to the millisecond, and dropped by the servers with whole parts.

use std::{sync::Arc, time::Duration};

use luminate::{
    clock::HandClock,
    model::{Exemplar, Labels, METRIC_NAME, Matcher, TenantId, TimeRange, Timestamp},
    storage::{
        BatchExemplar, BatchSample, LabelsRequest, RejectReason, SelectRequest, Storage, WriteBatch,
        clickhouse::{ClickHouseConfig, ClickHouseStore},
        conformance::read_all,
    },
};
use tokio::runtime::Runtime;

use super::{before_the_last_hour, front::Front};

const DAY: i64 = 86_400_000;

/// Tenants, how many days they keep what they have, and the class of that.
const TENANTS: [(&str, Option<i64>, u16); 4] =
    [("one", Some(1), 1), ("two", Some(2), 7), ("usual", Some(30), 30), ("ever", None, 65_535)];

/// A database, and a store over it at a time of the test's choosing.
struct Case {
    front: Front,
    runtime: Runtime,
}

impl Case {
    fn start() -> Option<Self> {
        let case = Self { front: Front::start()?, runtime: Runtime::new().unwrap() };
        let store = case.store_at(before_the_last_hour()).0;
        case.runtime.block_on(store.apply_schema()).unwrap();
        Some(case)
    }

    fn store_at(&self, now: i64) -> (Arc<ClickHouseStore>, Arc<HandClock>) {
        let _inside = self.runtime.enter();
        let days = |days: i64| Duration::from_millis(u64::try_from(days * DAY).unwrap());
        let own = TENANTS.iter().filter(|(name, ..)| *name != "usual");
        let config = ClickHouseConfig {
            database: self.front.database.clone(),
            retention: Some(days(30)),
            tenant_retention: own.map(|(name, keep, _)| (tenant(name), keep.map(days))).collect(),
            rollups: true,
            ..ClickHouseConfig::new(&self.front.url)
        };
        let clock = HandClock::at(Timestamp(now));
        (ClickHouseStore::open(config, Arc::clone(&clock) as _).unwrap(), clock)
    }

    /// Appends a sample at each of the times, with an exemplar; those that were refused.
    fn append(&self, store: &dyn Storage, name: &str, times: &[i64]) -> Vec<i64> {
        let mut batch = WriteBatch::over(times.iter().map(|at| series(*at)).collect());
        let each = || (0..).zip(times.iter().map(|at| Timestamp(*at)));
        batch.samples = each()
            .map(|(series, timestamp)| BatchSample { series, timestamp, value: 1.0, start: 0 })
            .collect();
        batch.exemplars = each()
            .map(|(series, timestamp)| BatchExemplar {
                series,
                exemplar: Exemplar { labels: Labels::empty(), value: 1.0, timestamp },
            })
            .collect();
        let appended = self.runtime.block_on(store.append(&tenant(name), batch)).unwrap();
        assert!(appended.rejected.iter().all(|rejected| rejected.reason == RejectReason::TooOld));
        let samples =
            appended.rejected.iter().filter(|rejected| rejected.kind == luminate::storage::SampleKind::Float);
        samples.map(|rejected| rejected.timestamp.0).collect()
    }

    /// The times of the samples that a tenant sees.
    fn seen(&self, store: &dyn Storage, name: &str) -> Vec<i64> {
        let request = SelectRequest::new(vec![Matcher::equal(METRIC_NAME, "x")], TimeRange::ALL);
        let all = self.runtime.block_on(read_all(store, &tenant(name), request));
        let mut times: Vec<i64> = all.iter().flat_map(|(_, samples)| samples.timestamps.clone()).collect();
        times.sort_unstable();
        times
    }

    /// How many rows of a tenant there are in a table.
    fn rows(&self, table: &str, name: &str) -> u64 {
        let from = format!("{}.{table} WHERE tenant = '{name}'", self.front.database);
        self.front.sql(&format!("SELECT count() FROM {from}")).trim().parse().unwrap()
    }
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// A series for each time, so that a series can be out of sight too.
fn series(at: i64) -> Labels {
    Labels::from_pairs([(METRIC_NAME, "x"), ("at", at.to_string().as_str())]).unwrap()
}

#[test]
fn each_tenant_sees_what_its_retention_keeps_to_the_millisecond() {
    let Some(case) = Case::start() else { return };
    let now = before_the_last_hour();
    let (store, clock) = case.store_at(now);
    for (name, keep, class) in TENANTS {
        let edge = now - keep.unwrap_or(60) * DAY;
        let refused = case.append(&*store, name, &[edge - 1, edge, edge + 1, now]);
        let expect = if keep.is_some() { vec![edge - 1] } else { Vec::new() };
        assert_eq!(refused, expect, "{name}");
        let database = &case.front.database;
        for table in ["samples", "series", "label_values"] {
            let classes = format!("SELECT DISTINCT ret FROM {database}.{table} WHERE tenant = '{name}'");
            assert_eq!(case.front.sql(&classes).trim(), class.to_string(), "{name} in {table}");
        }
        let classes = format!("SELECT DISTINCT ret FROM {database}.exemplars WHERE tenant = '{name}'");
        assert_eq!(case.front.sql(&classes).trim(), class.min(7).to_string(), "{name}");
    }
    let see = |passed: usize| {
        for (name, keep, _) in TENANTS {
            let edge = now - keep.unwrap_or(60) * DAY;
            let expect = [edge, edge + 1, now];
            let from = if keep.is_some() { passed } else { 0 };
            let all = if keep.is_some() { Vec::new() } else { vec![edge - 1] };
            let expect: Vec<i64> = all.into_iter().chain(expect[from..].iter().copied()).collect();
            assert_eq!(case.seen(&*store, name), expect, "{name} after {passed} ms");
        }
    };
    // Each millisecond takes one sample out of sight.
    for passed in 0..3 {
        see(passed);
        clock.advance(Duration::from_millis(1));
    }
    // All that is asked with a range is asked within what is kept.
    clock.advance(Duration::from_secs(3 * 86_400));
    let request = || LabelsRequest { matchers: Vec::new(), range: TimeRange::ALL, limit: 0 };
    let series_of = |name| case.runtime.block_on(store.series(&tenant(name), request())).unwrap().len();
    let values_of =
        |name| case.runtime.block_on(store.label_values(&tenant(name), "at", request())).unwrap().len();
    assert_eq!((series_of("one"), series_of("two"), values_of("one"), values_of("two")), (0, 0, 0, 0));
    assert_eq!((series_of("ever"), values_of("ever")), (4, 4));
    assert!(case.rows("samples", "two") > 0, "hidden and still there, in a class of seven days");
}

#[test]
fn the_servers_drop_the_parts_of_classes_that_have_passed() {
    let Some(case) = Case::start() else { return };
    let now = before_the_last_hour();
    // Four days ago all of them had samples, and windows of them.
    let then = now - 4 * DAY;
    let (store, clock) = case.store_at(then);
    for (name, ..) in TENANTS {
        assert!(case.append(&*store, name, &[then - 60_000, then]).is_empty());
    }
    clock.advance(Duration::from_secs(2 * 3_600));
    case.runtime.block_on(store.roll_up()).unwrap();
    let tables = ["samples", "series", "label_values", "exemplars", "rollup_5m", "rollup_1h"];
    let dropped = || tables.iter().all(|table| case.rows(table, "one") == 0);
    // The servers do it when they merge, at the latest when they are told to.
    for _ in 0..60 {
        for table in tables {
            case.front.sql(&format!("OPTIMIZE TABLE {}.{table} FINAL", case.front.database));
        }
        if dropped() {
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    for table in tables {
        assert_eq!(case.rows(table, "one"), 0, "{table}");
        for name in ["two", "usual", "ever"] {
            assert!(case.rows(table, name) > 0, "{table} of {name}");
        }
    }
    // Two days are over; the class has seven, which nobody gets to see.
    let (store, _) = case.store_at(now);
    for (name, expect) in [("one", 0), ("two", 0), ("usual", 2), ("ever", 2)] {
        assert_eq!(case.seen(&*store, name).len(), expect, "{name}");
    }
}
