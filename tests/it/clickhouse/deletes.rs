//! Deletes: seen by every pod at once, applied in the background, cleaned for good.

use luminate::{
    model::{Labels, Matcher, TimeRange, Timestamp},
    storage::{LabelsRequest, SelectRequest, Storage, conformance::read_all},
};

use super::read::{Subject, labels, open, range};

const NOW: i64 = 1_768_003_200_000;
const DAY: i64 = 86_400_000;

impl Subject {
    /// Rows that are there, hidden or not.
    fn rows(&self, table: &str) -> usize {
        let count = self.front.sql(&format!("SELECT count() FROM {}.{table} FINAL", self.front.database));
        count.trim().parse().unwrap()
    }

    fn delete(&self, matchers: &[Matcher], range: TimeRange) {
        let sets = vec![matchers.to_vec()];
        self.runtime.block_on(self.store.delete(&self.tenant, sets, range)).unwrap();
    }

    fn values(&self, name: &str, range: TimeRange) -> Vec<String> {
        let request = LabelsRequest { matchers: vec![], range, limit: 0 };
        self.runtime.block_on(self.store.label_values(&self.tenant, name, request)).unwrap()
    }

    fn ten(&self) -> (Vec<Labels>, Vec<(u32, i64, f64)>) {
        let series: Vec<Labels> =
            (0..10).map(|i| labels(&[("__name__", ["a", "b"][i % 2]), ("i", &i.to_string())])).collect();
        let samples =
            (0..10).flat_map(|i| (0..4).map(move |day| (i, NOW - day * DAY - 1000, f64::from(i)))).collect();
        (series, samples)
    }
}

#[test]
fn what_is_deleted_is_hidden_from_all_pods_and_then_removed() {
    let Some(s) = Subject::start() else { return };
    let (series, samples) = s.ten();
    s.write(&series, &samples);
    let other = open(&s.runtime, &s.config);
    let all = || SelectRequest::new(vec![], TimeRange::ALL);
    let by_other = || s.runtime.block_on(read_all(other.as_ref(), &s.tenant, all()));
    assert_eq!((by_other().len(), s.rows("samples")), (10, 40));
    // A metric as a whole, and one series of the other for two days.
    s.delete(&[Matcher::equal("__name__", "a")], TimeRange::ALL);
    s.delete(&[Matcher::equal("i", "1")], range(NOW - 2 * DAY, NOW));
    let found = by_other();
    assert_eq!(found.len(), 5);
    assert_eq!(found[0].1.timestamps, [NOW - 3 * DAY - 1000, NOW - 2 * DAY - 1000]);
    assert_eq!(found[1].1.len(), 4);
    s.until("the removal", |s| s.rows("samples") == 18 && s.count("tombstones_applied") == 2);
    // Applied tombstones hide what is written again.
    s.write(&series, &samples);
    assert_eq!(by_other().iter().map(|(_, samples)| samples.len()).sum::<usize>(), 18);
    assert_eq!(s.values("__name__", TimeRange::ALL), ["b"]);
    s.runtime.block_on(other.clean_tombstones(&s.tenant)).unwrap();
    assert_eq!(s.rows("samples"), 18);
    s.write(&series, &samples);
    assert_eq!(by_other().iter().map(|(_, samples)| samples.len()).sum::<usize>(), 40);
    // There is nothing left to clean, and cleaning again removes nothing.
    s.runtime.block_on(s.store.clean_tombstones(&s.tenant)).unwrap();
    assert_eq!(s.rows("samples"), 40);
}

#[test]
fn labels_of_days_that_are_hidden_do_not_show() {
    let Some(s) = Subject::start() else { return };
    let series = [labels(&[("__name__", "m"), ("x", "early")]), labels(&[("__name__", "m"), ("x", "both")])];
    let day = NOW / DAY * DAY - 10 * DAY;
    s.write(&series, &[(0, day + 5, 1.0), (1, day + 5, 1.0), (1, day + DAY + 5, 1.0)]);
    // Half a day does not hide the day.
    s.delete(&[], range(day, day + DAY / 2));
    assert_eq!(s.values("x", TimeRange::ALL), ["both", "early"]);
    // The rest does, and to those who ask for the hidden half it was hidden before.
    assert_eq!(s.values("x", range(day, day + 10)), Vec::<String>::new());
    s.delete(&[], range(day + DAY / 2 + 1, day + DAY - 1));
    assert_eq!(s.values("x", TimeRange::ALL), ["both"]);
    let found = s.read(&[], TimeRange::ALL);
    assert_eq!(found.iter().map(|(_, samples)| samples.len()).sum::<usize>(), 1);
}

#[test]
fn a_removal_that_fails_is_done_again() {
    let Some(s) = Subject::start() else { return };
    if !s.front.is_ours() {
        return;
    }
    let (series, samples) = s.ten();
    s.write(&series, &samples);
    s.front.fault("fail=241&match=DELETE%20FROM&times=1000");
    s.delete(&[Matcher::equal("i", "3")], TimeRange::ALL);
    assert_eq!(s.read(&[], TimeRange::ALL).len(), 9);
    assert!(s.runtime.block_on(s.store.clean_tombstones(&s.tenant)).is_err());
    assert_eq!((s.rows("samples"), s.read(&[], TimeRange::ALL).len()), (40, 9));
    s.front.heal();
    // Removed, but what says so is not written: it hides on.
    s.front.fault("fail=241&match=INSERT%20INTO%20tombstones&times=1000");
    assert!(s.runtime.block_on(s.store.clean_tombstones(&s.tenant)).is_err());
    assert_eq!(s.rows("samples"), 36);
    s.write(&series, &[(3, NOW - 1000, 7.0)]);
    assert_eq!(s.read(&[], TimeRange::ALL).len(), 9);
    s.front.heal();
    s.runtime.block_on(s.store.clean_tombstones(&s.tenant)).unwrap();
    s.write(&series, &[(3, NOW - 1000, 7.0)]);
    assert_eq!(s.read(&[], TimeRange::ALL).len(), 10);
}

#[test]
fn series_of_days_with_nothing_left_are_forgotten() {
    let Some(s) = Subject::start() else { return };
    let (old, late) = (NOW - 9 * DAY, NOW - 2 * DAY);
    let series = [
        labels(&[("__name__", "m"), ("x", "gone"), ("all", "y")]),
        labels(&[("__name__", "m"), ("x", "stays"), ("all", "y")]),
        labels(&[("__name__", "n"), ("x", "other")]),
    ];
    let batch: Vec<_> = (0..3).flat_map(|i| [(i, old + 5, 1.0), (i, late + 5, 1.0)]).collect();
    s.write(&series, &batch);
    let shown = |from| s.values("x", range(from, from + DAY - 1));
    s.delete(&[Matcher::equal("x", "gone")], TimeRange::ALL);
    s.runtime.block_on(s.store.clean_tombstones(&s.tenant)).unwrap();
    // What was written a moment ago may have samples on their way.
    assert_eq!(shown(old), ["gone", "other", "stays"]);
    // As if all of it had been written an hour ago.
    for table in ["series", "label_values"] {
        let table = format!("{}.{table}", s.front.database);
        let hour_ago = "written DateTime('UTC') DEFAULT now() - 3600";
        s.front.sql(&format!("ALTER TABLE {table} MODIFY COLUMN {hour_ago}"));
        s.front.sql(&format!("TRUNCATE TABLE {table}"));
    }
    let again = open(&s.runtime, &s.config);
    let mut rows = luminate::storage::WriteBatch::over(series.to_vec());
    rows.samples = batch
        .iter()
        .map(|(series, at, value)| luminate::storage::BatchSample {
            series: *series,
            timestamp: Timestamp(*at),
            value: *value,
            start: 0,
        })
        .collect();
    s.runtime.block_on(again.append(&s.tenant, rows)).unwrap();
    s.delete(&[Matcher::equal("x", "gone")], range(old - DAY, NOW));
    s.runtime.block_on(s.store.clean_tombstones(&s.tenant)).unwrap();
    assert_eq!(shown(old), ["other", "stays"]);
    assert_eq!(s.values("all", range(old, old + DAY - 1)), ["y"]);
    // Pods know the rows of the last days, and would not write them again.
    assert_eq!(shown(late), ["gone", "other", "stays"]);
    s.write(&series, &[(0, old + 5, 2.0)]);
    assert_eq!(shown(old), ["gone", "other", "stays"]);
    assert_eq!(s.read(&[Matcher::equal("x", "gone")], TimeRange::ALL)[0].1.values, [2.0]);
}

#[test]
fn a_delete_that_is_not_written_is_an_error() {
    let Some(s) = Subject::start() else { return };
    if !s.front.is_ours() {
        return;
    }
    let (series, samples) = s.ten();
    s.write(&series, &samples);
    s.front.fault("fail=241&match=INSERT%20INTO%20tombstones&times=1000");
    let deleted = s.store.delete(&s.tenant, vec![], TimeRange::new(Timestamp(0), Timestamp(NOW)).unwrap());
    assert!(s.runtime.block_on(deleted).is_err());
    s.front.heal();
    assert_eq!(s.read(&[], TimeRange::ALL).len(), 10);
}

#[test]
fn a_tombstone_that_cannot_be_applied_holds_up_no_other() {
    let Some(s) = Subject::start() else { return };
    s.front.sql(&format!(
        "INSERT INTO {}.tombstones (tenant, id, matchers, min_ts, max_ts, created, state, version) \
         VALUES ('other', generateUUIDv4(), [('a', '=~', '(')], 1, 2, 0, 'active', 0)",
        s.front.database
    ));
    let (series, samples) = s.ten();
    s.write(&series, &samples);
    s.delete(&[Matcher::equal("__name__", "a")], TimeRange::ALL);
    s.until("the removal", |s| s.rows("samples") == 20 && s.count("tombstones_applied") == 1);
    assert_eq!(s.values("__name__", TimeRange::ALL), ["b"]);
}
