//! What has changed of a tenant's samples, and when: by stretches of time, counted since the store was opened.
//!
//! ```text
//! samples' time   │ 10:00 │ 10:01 │ 10:02 │ 10:03 │ …
//! last change     │   7   │       │  12   │  31   │        now 31
//! ```
//!
//! Who keeps something made of samples notes [`Changes::now`] before reading them. It is still what would be made today
//! as long as no stretch that it was made of has a later change. A sample that comes late, or one deleted, so costs
//! exactly what was made of its minute.
//!
//! A change is noted after it can be seen and before it is acknowledged. So who sees only half of it, or none, has noted
//! a `now` before it, and who finds it not yet noted answers as if they had asked a moment earlier.
//!
//! Memory is bounded: where there is too much, changes are joined or forgotten, and more counts as changed than has.

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::WriteBatch;
use crate::model::{TenantId, TimeRange, Timestamp};

/// Changes of a minute's samples are one.
const STRETCH: i64 = 60_000;

/// Stretches kept apart per tenant; the older ones of more are joined.
const MOST_STRETCHES: usize = 1_024;

/// Wide changes kept apart; of more, all are one.
const MOST_WIDE: usize = 64;

/// Changes kept of all tenants. Of more, those whose last change is the oldest are forgotten.
const MOST_OF_ALL: usize = 1 << 18;

/// What has changed of a tenant's samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Which counting this is: numbers of another one say nothing, and whatever was noted of it is over.
    pub epoch: u64,
    /// Whether all processes over the store are told the same numbers.
    pub shared: bool,
    /// All up to the change of this number can surely be seen.
    pub now: u64,
    /// Stretches that have changed since the store was opened.
    pub changed: Vec<Changed>,
    /// Stretches of which something may go at any moment, and nobody is told: nothing is to be made of them that is
    /// kept.
    pub moving: Vec<TimeRange>,
}

/// Up to where something surely has all changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsOf {
    /// In which counting.
    pub epoch: u64,
    /// The number of the last one.
    pub number: u64,
}

impl Changes {
    /// What is made of samples that are read from now on is as of this.
    pub fn as_of(&self) -> AsOf {
        AsOf { epoch: self.epoch, number: self.now }
    }
}

/// A stretch of time whose samples have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Which.
    pub range: TimeRange,
    /// The number of its last change.
    pub at: u64,
}

/// Notes changes, of all tenants, in memory.
#[derive(Debug, Default)]
pub struct ChangeLog(Mutex<Log>);

#[derive(Debug, Default)]
struct Log {
    last: u64,
    tenants: HashMap<TenantId, Stretches, RandomState>,
    /// What concerns every tenant.
    all: Vec<Changed>,
    /// What is kept of tenants: each counts for one, and each of its changes.
    held: usize,
    /// The last change of those that were forgotten: whoever is not there may have changed up to it, at any time.
    forgotten: u64,
}

#[derive(Debug, Default)]
struct Stretches {
    /// The first moment of each, its last, and the number of its last change; they do not overlap.
    fine: BTreeMap<i64, (i64, u64)>,
    wide: Vec<Changed>,
    /// The number of the last change of all.
    last: u64,
}

/// The minutes that a batch's samples are of.
#[derive(Debug, PartialEq, Eq)]
pub struct Touched(Vec<i64>);

impl Touched {
    /// Looks at the times of a batch's samples.
    pub fn by(batch: &WriteBatch) -> Self {
        let mut starts = Vec::new();
        // Next to nothing per sample: most are of the minute of the one before.
        let mut last = None;
        let samples = batch.samples.iter().map(|s| s.timestamp);
        for at in samples.chain(batch.histograms.iter().map(|h| h.timestamp)) {
            if last.as_ref().is_none_or(|minute: &RangeInclusive<i64>| !minute.contains(&at.0)) {
                let start = at.0.div_euclid(STRETCH).saturating_mul(STRETCH);
                last = Some(start..=end_of(start));
                starts.push(start);
            }
        }
        starts.sort_unstable();
        starts.dedup();
        Self(starts)
    }

    /// From the first of them to the last that begins no later than a time.
    pub fn until(&self, at: Timestamp) -> Option<TimeRange> {
        let last = *self.0[..self.0.partition_point(|start| *start <= at.0)].last()?;
        TimeRange::new(Timestamp(*self.0.first()?), Timestamp(end_of(last)))
    }
}

impl ChangeLog {
    /// Notes that samples of these minutes can be seen now.
    pub fn wrote(&self, tenant: &TenantId, touched: &Touched) {
        if touched.0.is_empty() {
            return;
        }
        // The number is given and the change is there for others in one moment: who is told the number sees it.
        let log = &mut *self.0.lock();
        log.last += 1;
        let at = log.last;
        log.note(tenant, |stretches| stretches.touch(touched, at));
    }

    /// Notes that any of a tenant's samples in a range may have gone or come.
    pub fn changed(&self, tenant: &TenantId, range: TimeRange) {
        let log = &mut *self.0.lock();
        log.last += 1;
        let change = Changed { range, at: log.last };
        log.note(tenant, |stretches| push_wide(&mut stretches.wide, change));
    }

    /// Notes that any sample of any tenant in a range may have gone or come.
    pub fn changed_for_all(&self, range: TimeRange) {
        let log = &mut *self.0.lock();
        log.last += 1;
        let change = Changed { range, at: log.last };
        push_wide(&mut log.all, change);
    }

    /// What has changed of a tenant's samples in a range.
    pub fn of(&self, tenant: &TenantId, range: TimeRange) -> Changes {
        let log = self.0.lock();
        let touches = |change: &&Changed| change.range.overlaps(range);
        let mut changed: Vec<Changed> = log.all.iter().filter(touches).copied().collect();
        if let Some(stretches) = log.tenants.get(tenant) {
            changed.extend(stretches.wide.iter().filter(touches));
            changed.extend(stretches.within(range));
        } else {
            changed.extend(log.of_the_forgotten());
        }
        Changes { now: log.last, changed, ..Changes::default() }
    }
}

impl Log {
    /// Notes a change of a tenant.
    fn note(&mut self, tenant: &TenantId, change: impl FnOnce(&mut Stretches)) {
        let stretches = match self.tenants.get_mut(tenant) {
            Some(stretches) => stretches,
            None => {
                let wide = self.of_the_forgotten().into_iter().collect();
                let new = Stretches { wide, ..Stretches::default() };
                self.held += new.held();
                self.tenants.entry(tenant.clone()).or_insert(new)
            }
        };
        let before = stretches.held();
        change(stretches);
        stretches.last = self.last;
        self.held = self.held - before + stretches.held();
        if self.held > MOST_OF_ALL {
            self.forget();
        }
    }

    /// Forgets tenants whose last change is the oldest, until half of what may be held is left; but not the last one.
    fn forget(&mut self) {
        let mut all: Vec<(u64, TenantId)> =
            self.tenants.iter().map(|(tenant, stretches)| (stretches.last, tenant.clone())).collect();
        all.sort_unstable_by_key(|(last, _)| *last);
        all.pop();
        for (last, tenant) in all {
            if self.held <= MOST_OF_ALL / 2 {
                break;
            }
            self.held -= self.tenants.remove(&tenant).map_or(0, |stretches| stretches.held());
            self.forgotten = last;
        }
    }

    /// What has to be said of a tenant that is not there.
    fn of_the_forgotten(&self) -> Option<Changed> {
        (self.forgotten > 0).then_some(Changed { range: TimeRange::ALL, at: self.forgotten })
    }
}

impl Stretches {
    /// What it counts for.
    fn held(&self) -> usize {
        1 + self.fine.len() + self.wide.len()
    }

    fn touch(&mut self, touched: &Touched, at: u64) {
        for start in &touched.0 {
            let there = self.fine.range_mut(..=*start).next_back();
            match there.filter(|(_, (end, _))| *end >= *start) {
                Some((_, (_, last))) => *last = at,
                None => {
                    self.fine.insert(*start, (end_of(*start), at));
                }
            }
        }
        if self.fine.len() > MOST_STRETCHES {
            self.join_older();
        }
    }

    /// Makes one of every two of the older three quarters; what lies between them counts as changed, too.
    fn join_older(&mut self) {
        let newer = self.fine.len() / 4;
        let older: Vec<(i64, (i64, u64))> =
            self.fine.iter().take(self.fine.len() - newer).map(|(start, rest)| (*start, *rest)).collect();
        for pair in older.chunks_exact(2) {
            let [(start, (_, a)), (second, (end, b))] = *pair else { continue };
            self.fine.remove(&second);
            self.fine.insert(start, (end, a.max(b)));
        }
    }

    fn within(&self, range: TimeRange) -> impl Iterator<Item = Changed> + '_ {
        let (from, to) = (range.start().0, range.end().0);
        let before = self.fine.range(..from).next_back().filter(move |(_, (end, _))| *end >= from);
        before.into_iter().chain(self.fine.range(from..=to)).filter_map(|(start, (end, at))| {
            let range = TimeRange::new(Timestamp(*start), Timestamp(*end))?;
            Some(Changed { range, at: *at })
        })
    }
}

/// The last moment of the minute that starts there.
fn end_of(start: i64) -> i64 {
    start.saturating_add(STRETCH - 1)
}

fn push_wide(wide: &mut Vec<Changed>, change: Changed) {
    // A later change of as much or more says it all.
    wide.retain(|old| old.range.start() < change.range.start() || old.range.end() > change.range.end());
    wide.push(change);
    if wide.len() > MOST_WIDE {
        let range = wide.iter().map(|c| c.range).reduce(TimeRange::union);
        *wide = range.map(|range| Changed { range, at: change.at }).into_iter().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: i64, end: i64) -> TimeRange {
        TimeRange::new(Timestamp(start), Timestamp(end)).unwrap()
    }

    fn a() -> TenantId {
        TenantId::new("a").unwrap()
    }

    /// What has changed after `since`, as text: `0-59999`.
    fn since(log: &ChangeLog, looked: TimeRange, since: u64) -> Vec<String> {
        let mut changed = log.of(&a(), looked).changed;
        changed.retain(|change| change.at > since);
        changed.iter().map(|c| format!("{}-{}", c.range.start().0, c.range.end().0)).collect()
    }

    #[test]
    fn a_late_sample_changes_its_minute_and_no_other() {
        let log = ChangeLog::default();
        log.wrote(&a(), &Touched(vec![0, 60_000, 120_000]));
        let now = log.of(&a(), TimeRange::ALL).now;
        assert_eq!(since(&log, TimeRange::ALL, now), Vec::<String>::new());
        log.wrote(&a(), &Touched(vec![60_000]));
        assert_eq!(since(&log, TimeRange::ALL, now), ["60000-119999"]);
        assert_eq!(since(&log, range(119_999, 500_000), now), ["60000-119999"]);
        assert_eq!(since(&log, range(120_000, 500_000), now), Vec::<String>::new());
        assert_eq!(since(&log, range(0, 59_999), now), Vec::<String>::new());
    }

    #[test]
    fn tenants_do_not_change_each_other() {
        let log = ChangeLog::default();
        log.wrote(&TenantId::new("b").unwrap(), &Touched(vec![0]));
        let changes = log.of(&a(), TimeRange::ALL);
        assert_eq!((changes.now, changes.changed), (1, vec![]));
        log.changed_for_all(range(0, 5));
        assert_eq!(since(&log, TimeRange::ALL, 1), ["0-5"]);
    }

    #[test]
    fn however_many_minutes_change_none_is_forgotten() {
        let log = ChangeLog::default();
        for minute in 0..10_000_i64 {
            // Back and forth, and negative ones too.
            let minute = if minute % 3 == 0 { -minute } else { minute };
            log.wrote(&a(), &Touched(vec![minute * STRETCH]));
            let at = log.of(&a(), TimeRange::ALL).now;
            let here = range(minute * STRETCH + 5, minute * STRETCH + 5);
            assert_eq!(since(&log, here, at - 1).len(), 1, "minute {minute}");
        }
        let stretches = log.of(&a(), TimeRange::ALL).changed;
        assert!(stretches.len() <= MOST_STRETCHES, "{}", stretches.len());
        assert!(stretches.is_sorted_by_key(|c| c.range.start()));
        assert!(stretches.windows(2).all(|w| w[0].range.end() < w[1].range.start()));
    }

    #[test]
    fn of_tenants_that_are_forgotten_all_has_changed() {
        let log = ChangeLog::default();
        let name = |i: usize| TenantId::new(&format!("t{i}")).unwrap();
        let minutes = Touched((0..1000).map(|minute| minute * STRETCH).collect());
        let count = 4 * MOST_OF_ALL / 1000;
        for i in 0..count {
            log.wrote(&name(i), &minutes);
            let inner = log.0.lock();
            let held: usize = inner.tenants.values().map(Stretches::held).sum();
            assert!(inner.held == held && held <= MOST_OF_ALL, "{held}");
        }
        let now = log.of(&a(), TimeRange::ALL).now;
        let changed_since = |i: usize, since: u64| {
            let changes = log.of(&name(i), range(5, 5));
            changes.changed.iter().filter(|change| change.at > since).count()
        };
        for i in 0..count {
            // Each was written once, by the change of its number and one.
            assert!(changed_since(i, i as u64) > 0, "{i}");
            assert_eq!(changed_since(i, now), 0, "{i}");
        }
        let forgotten = log.0.lock().forgotten;
        assert!(forgotten > 0 && changed_since(count - 1, forgotten) == 1);
        // Whoever comes back has not changed less.
        log.wrote(&name(0), &Touched(vec![50 * STRETCH]));
        assert_eq!(changed_since(0, forgotten - 1), 1);
        assert_eq!(changed_since(0, now), 0, "its other minutes stay as they are");
    }

    #[test]
    fn deletes_add_up_to_all_of_them() {
        let log = ChangeLog::default();
        for i in 0..1_000 {
            log.changed(&a(), range(i * 10, i * 10 + 5));
        }
        let changes = log.of(&a(), TimeRange::ALL);
        assert!(changes.changed.len() <= MOST_WIDE);
        for i in 0..1_000 {
            let touched = changes.changed.iter().any(|c| c.range.contains(Timestamp(i * 10 + 3)));
            assert!(touched, "{i}");
        }
        log.changed(&a(), TimeRange::ALL);
        assert_eq!(log.of(&a(), TimeRange::ALL).changed.len(), 1);
    }

    #[test]
    fn a_batch_touches_the_minutes_of_its_samples() {
        let mut batch = WriteBatch::over(vec![]);
        for at in [59_999, 60_000, 60_001, 0, -1, i64::MIN, i64::MAX] {
            batch.samples.push(crate::storage::BatchSample {
                series: 0,
                timestamp: Timestamp(at),
                value: 0.0,
                start: 0,
            });
        }
        let touched = Touched::by(&batch);
        assert_eq!(touched.0.len(), 5);
        let log = ChangeLog::default();
        log.wrote(&a(), &touched);
        for at in [59_999, 60_000, 0, -1, i64::MIN, i64::MAX] {
            assert_eq!(since(&log, range(at, at), 0).len(), 1, "{at}");
        }
    }
}
