//! What is kept, for how long, and what is removed for good.

use super::*;
use crate::{
    model::{Exemplar, Matcher},
    storage::{
        BatchExemplar, LabelsRequest, RejectReason,
        embedded::{KeepRule, pace::Haste},
    },
};

const DAY: i64 = 86_400_000;

fn named(name: &str) -> Labels {
    labels(&[("__name__", name)])
}

fn days(n: u32) -> Duration {
    Duration::from_secs(86_400) * n
}

/// `debug` is kept for two days, `audit` for 300, of the tenant `short` all else for five, and of the others for 30.
fn ruled(dir: &Path) -> EmbeddedConfig {
    let rule = |name: &str, keep: u32| KeepRule {
        tenant: None,
        matchers: vec![Matcher::equal("__name__", name)],
        keep: Some(days(keep)),
    };
    EmbeddedConfig {
        tenant_retention: vec![(short(), Some(days(5)))],
        retention_rules: vec![rule("debug", 2), rule("audit", 300)],
        ..small(dir)
    }
}

fn short() -> TenantId {
    TenantId::new("short").unwrap()
}

fn open_ruled(dir: &Path, hand: &Arc<HandClock>) -> Engine {
    let clock: Arc<dyn Clock> = Arc::<HandClock>::clone(hand);
    Engine::open_at(ruled(dir), Arc::new(SystemDisk), clock).unwrap()
}

/// A sample of each series of a tenant at a time; how many were taken.
fn put(engine: &Engine, tenant: &TenantId, names: &[&str], at: i64) -> u64 {
    let all: Vec<Labels> = names.iter().map(|name| named(name)).collect();
    let samples: Vec<(u32, i64, f64)> = (0..).zip(names).map(|(i, _)| (i, at, 1.0)).collect();
    let (appended, ticket, _) = engine.append(tenant, batch(&all, &samples), Begin::All).unwrap();
    ticket.block().unwrap();
    assert!(appended.rejected.iter().all(|r| r.reason == RejectReason::TooOld));
    appended.samples
}

/// The names of a tenant's series, and how many days ago each has samples.
fn seen(engine: &Engine, tenant: &TenantId) -> Vec<(String, Vec<i64>)> {
    let selected = engine.select(tenant, &SelectRequest::new(vec![], TimeRange::ALL), &|| false).unwrap();
    let crate::storage::Runs::SeriesMajor(reader) = selected.runs else { panic!("series major") };
    let mut all = Vec::new();
    for (i, labels) in selected.series.iter().enumerate() {
        let mut samples = crate::storage::SeriesSamples::default();
        reader.read(i, &mut samples).unwrap();
        let ago = samples.timestamps.iter().map(|t| (engine.clock.now().0 - t) / DAY).collect();
        all.push((labels.get("__name__").unwrap().to_owned(), ago));
    }
    all
}

fn part_samples(engine: &Engine) -> u64 {
    engine.view.load().parts.iter().map(|p| p.samples()).sum()
}

fn one(name: &str, ago: &[i64]) -> (String, Vec<i64>) {
    (name.to_owned(), ago.to_vec())
}

#[test]
fn each_series_is_kept_for_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = open_ruled(dir.path(), &hand);
    for tenant in [tenant(), short()] {
        for (ago, taken) in [(1, 3), (3, 2), (100, 1), (400, 0)] {
            assert_eq!(put(&engine, &tenant, &["audit", "debug", "m"], NOW.0 - ago * DAY), taken, "{ago}");
        }
    }
    let fresh = [one("audit", &[100, 3, 1]), one("debug", &[1]), one("m", &[3, 1])];
    for flushed in [false, true] {
        if flushed {
            engine.flush().unwrap();
        }
        assert_eq!(seen(&engine, &tenant()), fresh);
        assert_eq!(seen(&engine, &short()), fresh);
    }
    let samples = part_samples(&engine);
    assert_eq!(samples, 12);

    // Time passes: nothing goes before it is said, then it is hidden at once, in memory too.
    put(&engine, &tenant(), &["debug", "m"], NOW.0);
    hand.advance(days(4));
    let before = seen(&engine, &tenant());
    assert_eq!(before[1], one("debug", &[5, 4]));
    let noted = engine.changes.of(&tenant(), TimeRange::ALL).now;
    engine.enforce_retention().unwrap();
    let changes = engine.changes.of(&tenant(), TimeRange::ALL);
    let told = |t: i64| changes.changed.iter().any(|c| c.at > noted && c.range.contains(Timestamp(t)));
    assert!(told(NOW.0 - DAY) && told(NOW.0), "who keeps answers is told");
    assert!(!told(NOW.0 - 20 * DAY), "and of nothing else");
    let later = [one("audit", &[104, 7, 5]), one("m", &[7, 5, 4])];
    let left = |all: Vec<(String, Vec<i64>)>| -> Vec<(String, Vec<i64>)> {
        all.into_iter().filter(|(_, ago)| !ago.is_empty()).collect()
    };
    assert_eq!(left(seen(&engine, &tenant())), later);
    assert_eq!(left(seen(&engine, &short())), [one("audit", &[104, 7, 5]), one("m", &[5])]);
    let everything = LabelsRequest { matchers: vec![], range: TimeRange::ALL, limit: 0 };
    let names = engine.label_values(&tenant(), "__name__", &everything).unwrap();
    assert_eq!(names, ["audit", "m"], "nor has a hidden series a name");
    assert_eq!(engine.series(&tenant(), &everything).unwrap().len(), 2);

    // What is hidden of a day is taken out of its part, where it is worth it.
    engine.flush().unwrap();
    engine.tidy(Haste::Now).unwrap();
    assert_eq!(left(seen(&engine, &tenant())), later);
    let kept: usize =
        [tenant(), short()].iter().flat_map(|t| seen(&engine, t)).map(|(_, ago)| ago.len()).sum();
    assert_eq!(part_samples(&engine), kept as u64, "nothing else is on the disk");
    drop(engine);
    let again = open_ruled(dir.path(), &hand);
    assert_eq!(left(seen(&again, &tenant())), later);
    // A year on everything is gone, as files.
    hand.advance(days(365));
    again.enforce_retention().unwrap();
    assert_eq!(again.view.load().parts.len(), 0);
    assert_eq!(walk(&dir.path().join("parts")), Vec::<std::path::PathBuf>::new());
    again.close().unwrap();
}

#[test]
fn exemplars_go_with_their_series() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = open_ruled(dir.path(), &hand);
    let all = [named("debug"), named("m")];
    let mut batch = batch(&all, &[]);
    for (series, ago) in [(0, 3), (0, 1), (1, 3)] {
        let timestamp = Timestamp(NOW.0 - ago * DAY);
        let exemplar = Exemplar { labels: labels(&[]), value: 1.0, timestamp };
        batch.exemplars.push(BatchExemplar { series, exemplar });
    }
    let (appended, ticket, _) = engine.append(&tenant(), batch, Begin::All).unwrap();
    ticket.block().unwrap();
    assert_eq!((appended.exemplars, appended.rejected.len()), (2, 1));
    let count = || engine.exemplars(&tenant(), &vec![], TimeRange::ALL).unwrap().len();
    assert_eq!(count(), 2);
    hand.advance(days(2));
    engine.enforce_retention().unwrap();
    assert_eq!(count(), 1);
    engine.close().unwrap();
}

#[test]
fn a_little_that_is_hidden_waits_for_a_merge() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = open_ruled(dir.path(), &hand);
    let ago = NOW.0 - DAY;
    for i in 0..20 {
        put(&engine, &tenant(), &["m"], ago + i);
    }
    put(&engine, &tenant(), &["debug"], ago);
    engine.flush().unwrap();
    hand.advance(days(4));
    engine.enforce_retention().unwrap();
    engine.tidy(Haste::Now).unwrap();
    assert_eq!(part_samples(&engine), 21);
    put(&engine, &tenant(), &["m"], ago + 100);
    engine.flush().unwrap();
    assert_eq!(part_samples(&engine), 21, "the day was merged: one has come, and one has gone");
    engine.close().unwrap();
}

fn open_plain(dir: &Path) -> Engine {
    Engine::open_at(small(dir), Arc::new(SystemDisk), clock()).unwrap()
}

fn delete(engine: &Engine, name: &str, range: TimeRange) {
    let sets = vec![vec![Matcher::equal("__name__", name)]];
    engine.delete(&tenant(), sets, range).unwrap().block().unwrap();
}

fn deletes(engine: &Engine) -> usize {
    engine.register.tombstones(&tenant()).len()
}

#[test]
fn a_delete_ends_when_nothing_is_left_that_it_hides() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_plain(dir.path());
    let then = NOW.0 - 10 * DAY;
    let of_then = TimeRange::new(Timestamp(then - 5), Timestamp(then + 5)).unwrap();
    put(&engine, &tenant(), &["a", "b", "c"], then);
    put(&engine, &tenant(), &["a"], NOW.0);
    delete(&engine, "a", of_then);
    delete(&engine, "none", TimeRange::ALL);
    engine.tidy(Haste::Now).unwrap();
    assert_eq!(deletes(&engine), 1, "one hides what is in memory, the other nothing");
    engine.flush().unwrap();
    engine.tidy(Haste::Now).unwrap();
    assert_eq!(deletes(&engine), 0);
    assert_eq!(part_samples(&engine), 3);
    assert_eq!(seen(&engine, &tenant()), [one("a", &[0]), one("b", &[10]), one("c", &[10])]);
    // What comes again is seen, also after a crash: the log has the end of the delete before it.
    put(&engine, &tenant(), &["a"], then);
    let whole = [one("a", &[10, 0]), one("b", &[10]), one("c", &[10])];
    assert_eq!(seen(&engine, &tenant()), whole);
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    let again = open_plain(copy.path());
    assert_eq!(seen(&again, &tenant()), whole);
    assert_eq!(deletes(&again), 0);
    engine.flush().unwrap();
    assert_eq!(seen(&engine, &tenant()), whole);
    engine.close().unwrap();
}

#[test]
fn exemplars_that_were_deleted_stay_gone_when_the_delete_ends() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_plain(dir.path());
    let then = NOW.0 - 10 * DAY;
    let mut batch = batch(&[named("a"), named("b")], &[]);
    for series in [0, 1] {
        let exemplar = Exemplar { labels: labels(&[]), value: 1.0, timestamp: Timestamp(then) };
        batch.exemplars.push(BatchExemplar { series, exemplar });
    }
    engine.append(&tenant(), batch, Begin::All).unwrap().1.block().unwrap();
    delete(&engine, "a", TimeRange::ALL);
    engine.flush().unwrap();
    engine.tidy(Haste::Now).unwrap();
    assert_eq!(deletes(&engine), 0, "no sample is hidden");
    let left = |engine: &Engine| -> Vec<Labels> {
        let found = engine.exemplars(&tenant(), &vec![], TimeRange::ALL).unwrap();
        found.into_iter().map(|of| of.series).collect()
    };
    assert_eq!(left(&engine), [named("b")]);
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    assert_eq!(left(&open_plain(copy.path())), [named("b")]);
    engine.close().unwrap();
}

#[test]
fn deletes_that_still_hide_something_stay_when_others_end() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_plain(dir.path());
    let then = NOW.0 - 10 * DAY;
    for i in 0..50 {
        put(&engine, &tenant(), &["a"], then + i);
    }
    put(&engine, &tenant(), &["b"], then);
    engine.flush().unwrap();
    delete(&engine, "b", TimeRange::ALL);
    delete(&engine, "gone", TimeRange::ALL);
    engine.tidy(Haste::Now).unwrap();
    assert_eq!((deletes(&engine), part_samples(&engine)), (1, 51), "one sample of 51 is not worth it");
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    for engine in [&engine, &open_plain(copy.path())] {
        assert_eq!(deletes(engine), 1);
        assert!(seen(engine, &tenant()).iter().all(|(name, ago)| name == "a" || ago.is_empty()));
    }
    engine.clean_tombstones(&tenant()).unwrap();
    assert_eq!((deletes(&engine), part_samples(&engine)), (0, 50));
    engine.close().unwrap();
}

#[test]
fn a_delete_lasts_as_long_as_another_tenant_keeps_the_part() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = open_ruled(dir.path(), &hand);
    for of in [tenant(), short()] {
        put(&engine, &of, &["m", "n"], NOW.0);
    }
    let sets = vec![vec![Matcher::equal("__name__", "m")]];
    engine.delete(&short(), sets, TimeRange::ALL).unwrap().block().unwrap();
    engine.flush_head().unwrap();
    hand.advance(days(6));
    engine.enforce_retention().unwrap();
    assert!(seen(&engine, &short()).iter().all(|(_, ago)| ago.is_empty()), "all of it is too old");
    put(&engine, &tenant(), &["m"], NOW.0 + 1);
    engine.close().unwrap();
    drop(engine);
    // Somebody wants it back, but not what was deleted.
    let config = EmbeddedConfig { retention: None, ..small(dir.path()) };
    let clock: Arc<dyn Clock> = Arc::<HandClock>::clone(&hand);
    let engine = Engine::open_at(config, Arc::new(SystemDisk), clock).unwrap();
    let back: Vec<_> = seen(&engine, &short()).into_iter().filter(|(_, ago)| !ago.is_empty()).collect();
    assert_eq!(back, [one("n", &[6])]);
    engine.close().unwrap();
}

#[test]
fn deletes_stay_where_something_is_damaged_and_cleaning_says_so() {
    use super::mending::{change, parts};
    for does_not_open in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let engine = open_plain(dir.path());
        for ago in [4, 8] {
            put(&engine, &tenant(), &["a", "b"], NOW.0 - ago * DAY);
        }
        engine.close().unwrap();
        drop(engine);
        let damaged = parts(dir.path()).remove(0);
        let length = usize::try_from(std::fs::metadata(&damaged).unwrap().len()).unwrap();
        // Two bits, so that nobody can set them right: in the only page, or in the footer.
        change(&damaged, if does_not_open { length - 60 } else { 24 }, |byte| byte ^ 3, 1);
        let engine = open_plain(dir.path());
        delete(&engine, "a", TimeRange::ALL);
        let error = engine.clean_tombstones(&tenant()).unwrap_err().to_string();
        assert!(error.contains(if does_not_open { "was set aside" } else { "is damaged" }), "{error}");
        assert_eq!(deletes(&engine), 1);
        let whole = engine.view.load().parts.iter().find(|p| p.damage().is_none()).map(|p| p.samples());
        assert_eq!(whole, Some(1), "what can be cleaned is");
        assert!(seen(&engine, &tenant()).iter().all(|(name, ago)| name == "b" || ago.is_empty()));
        engine.tidy(Haste::Now).unwrap();
        assert_eq!(deletes(&engine), 1);
        engine.close().unwrap();
    }
}
