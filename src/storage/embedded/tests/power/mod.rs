//! The power goes at every change of the disk, and anything may be left of what was not durable.
//!
//! A [`Life`](life::Life) runs a store through everything it can do, on a disk that notes each step, and keeps a
//! [`Book`](book::Book) of what was asked for and acknowledged after how many steps. Then, for every step, the disk is put
//! together as a power cut may leave it there, the store is opened on it, and held against the book: what was
//! acknowledged is there, and nothing that was never asked for. Some of these go on living for a while and lose
//! their power again.
//!
//! Snapshots and backups of that life are looked at in the same way: each of them is whole or not there, and what was being
//! restored says that it is not whole, or is ([`vault`]).
//!
//! sled's files are not on that disk. They are as they were at the last commit, at the one before, or gone.

mod book;
mod life;
mod vault;
mod writes;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use self::{
    book::{Book, Moment},
    life::{Life, oldest, shown},
};
use super::*;
use crate::{
    clock::SystemClock,
    storage::embedded::{
        catalog::CATALOG,
        memory_disk::{
            History, MemoryDisk,
            tree::{Cut, Place, Random, Stays, Step, Tree},
        },
    },
};

/// The seed of a workload that is cut in every way at every step; without it there is a shorter one, of which
/// some steps are cut in one way each.
const SEED: &str = "LUMINATE_TEST_POWER_SEED";
/// sled that was opened on files that are not the newest is never closed, which takes files and memory: so only
/// two steps in so many are tried that way.
const OLD_ONCE_IN: usize = 64;
/// Without a seed, one step in so many is cut; all kinds are among them, since they take turns by a number that has no
/// divisor in common with this one.
const SAMPLE: usize = 5;

/// What sled's files are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kv {
    Newest,
    OneBefore,
    Absent,
}

const KINDS: [(Stays, Kv); 8] = [
    (Stays::Nothing, Kv::Absent),
    (Stays::Some, Kv::Newest),
    (Stays::Names, Kv::Absent),
    (Stays::Some, Kv::Absent),
    (Stays::Nothing, Kv::OneBefore),
    (Stays::Bytes, Kv::Absent),
    (Stays::Some, Kv::OneBefore),
    (Stays::Everything, Kv::Newest),
];

/// A power cut.
#[derive(Clone, Copy, Debug)]
struct PowerCut {
    step: usize,
    stays: Stays,
    kv: Kv,
    seed: u64,
}

/// What happened to a disk, and what was asked for meanwhile.
struct Past<'a> {
    runtime: &'a Runtime,
    history: &'a History,
    book: &'a Book,
    /// Whether it began with a log that was torn in its middle, which is told of for as long as that log is there.
    torn: bool,
}

#[derive(Debug, Default)]
struct Tally {
    points: AtomicUsize,
    /// What sled's files were like.
    kvs: Mutex<BTreeMap<Kv, usize>>,
    /// Lives that went on after a cut.
    lives: AtomicUsize,
    /// How often damage was told where nothing is missing, as of a write to the log that was torn in its middle.
    told: AtomicUsize,
    lost: Mutex<Vec<String>>,
    failed: Mutex<Vec<String>>,
}

/// A directory that is fast, for what has to be on a real disk.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn the_power_may_go_at_any_step_and_leave_anything_that_was_not_durable() {
    let seed: Option<u64> = std::env::var(SEED).ok().and_then(|n| n.parse().ok());
    let clock = SystemClock::start();
    let tally = Tally::default();
    let runtime = runtime();
    let (dir, copies) = (directory(), directory());
    let book = Book { clock: vec![(0, NOW)], ..Book::default() };
    let beginning = (dir.path(), Some(copies.path()));
    let mut life = Life::begin(&runtime, beginning, Tree::default(), book, (seed.unwrap_or(1), 1)).unwrap();
    life.live(if seed.is_some() { 60 } else { 0 });
    let (history, book) = life.end();
    // Each of them waits for threads of its own most of the time.
    let threads = 2 * std::thread::available_parallelism().map_or(2, usize::from);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (history, book, tally, next) = (&history, &book, &tally, &next);
            scope.spawn(move || {
                let runtime = self::runtime();
                let past = Past { runtime: &runtime, history, book, torn: false };
                past.cut_everywhere(next, seed, tally);
            });
        }
    });
    let (lost, failed) = (tally.lost.into_inner(), tally.failed.into_inner());
    tell("power cuts", tally.points.into_inner(), lost.len(), failed.len(), clock.elapsed());
    say(&format!(
        "torture-note\tpower cuts: {} steps; {} times life went on after a cut; the catalog was {:?}; damage told of what was never whole: {}",
        history.steps.len(),
        tally.lives.into_inner(),
        tally.kvs.into_inner(),
        tally.told.into_inner()
    ));
    failed.iter().chain(&lost).take(40).for_each(|fault| say(fault));
    assert!(lost.is_empty() && failed.is_empty(), "{} lost, {} failed to open", lost.len(), failed.len());
}

#[expect(clippy::print_stdout, reason = "what to look at when it fails, and what tests/torture reads")]
fn say(text: &str) {
    println!("{text}");
}

#[test]
fn everything_happens_in_a_life_that_loses_its_power() {
    let (runtime, dir) = (runtime(), directory());
    let book = Book { clock: vec![(0, NOW)], ..Book::default() };
    let mut life = Life::begin(&runtime, (dir.path(), None), Tree::default(), book, (1, 1)).unwrap();
    life.live(0);
    let done = life.done();
    for what in ["flushes", "merges", "parts_cleaned", "tombstones_ended", "parts_outlived"] {
        assert!(done[what] > 0, "{what}: {done:?}");
    }
    let (_, book) = life.end();
    assert!(book.backups.len() > 1 && book.backups[0].may_go.is_some() && !book.restored.is_empty());
}

#[test]
fn what_a_killed_process_has_written_is_durable_once_it_is_served() {
    let (runtime, dir) = (runtime(), directory());
    let book = Book { clock: vec![(0, NOW)], ..Book::default() };
    let mut life = Life::begin(&runtime, (dir.path(), None), Tree::default(), book, (1, 1)).unwrap();
    life.write();
    let (history, book) = life.end();
    // It was killed between the last write and its sync.
    let last = history.steps.iter().rposition(|step| matches!(step, Step::Write { .. })).unwrap();
    // Not every file system can reserve space; where one can, the end of the log is cut, which makes it durable, too.
    for reserves in [true, false] {
        let mut tree = history.before.clone();
        let steps = history.steps[..=last].iter();
        let steps = steps.filter(|step| reserves || !matches!(step, Step::Resize { .. }));
        steps.for_each(|step| tree.take(step));
        let dir = directory();
        let disk = MemoryDisk::holding(tree, dir.path(), CATALOG, None);
        let look = || runtime.block_on(shown(&life::open(dir.path(), &disk, &HandClock::at(NOW)).unwrap()));
        let served = look();
        assert_eq!(served.samples.len(), book.samples.len(), "reserves: {reserves}");
        disk.lose_power();
        assert_eq!(look(), served, "reserves: {reserves}");
    }
}

#[test]
fn the_log_is_let_go_from_its_beginning_one_segment_after_the_other() {
    let (runtime, dir) = (runtime(), directory());
    let book = Book { clock: vec![(0, NOW)], ..Book::default() };
    let mut life = Life::begin(&runtime, (dir.path(), None), Tree::default(), book, (1, 1)).unwrap();
    (0..30).for_each(|_| life.write());
    life.flush();
    let (history, _) = life.end();
    let removed = |step: &Step| match step {
        Step::Remove(place) if place.name.ends_with(".seg") => Some(place.clone()),
        _ => None,
    };
    let steps = &history.steps;
    let all: Vec<(usize, Place)> =
        steps.iter().enumerate().filter_map(|(i, s)| Some((i, removed(s)?))).collect();
    assert!(all.len() > 2, "{all:?}");
    assert!(all.is_sorted_by(|a, b| a.1.name < b.1.name), "{all:?}");
    for (at, place) in all {
        assert!(matches!(steps[at + 1], Step::SyncDir(dir) if dir == place.dir), "{place:?}");
    }
}

#[test]
fn a_snapshot_that_is_removed_loses_its_name_before_anything_in_it() {
    let (runtime, dir) = (runtime(), directory());
    let book = Book { clock: vec![(0, NOW)], ..Book::default() };
    let mut life = Life::begin(&runtime, (dir.path(), None), Tree::default(), book, (1, 1)).unwrap();
    life.write();
    life.back_up();
    let (history, book) = life.end();
    let (steps, name) = (&history.steps, &book.snapshots[0].name);
    let unnamed = |step: &Step| match step {
        Step::Move { from, to } if from.name == *name => Some(to.clone()),
        _ => None,
    };
    let (at, left) = steps.iter().enumerate().find_map(|(i, s)| Some((i, unnamed(s)?))).unwrap();
    assert_eq!(left.name, format!("{name}.tmp"));
    assert!(matches!(steps[at + 1], Step::SyncDir(dir) if dir == left.dir));
    let removes = |step: &Step| match step {
        Step::Remove(place) => place.name.ends_with(".part") || *place == left,
        _ => false,
    };
    assert!(!steps[..at].iter().any(removes), "parts go first");
    assert!(steps[at..].iter().filter(|step| removes(step)).count() > 1, "the parts and the snapshot go");
}

impl Past<'_> {
    /// Cuts the power at every step that no other thread has taken.
    fn cut_everywhere(&self, next: &AtomicUsize, all: Option<u64>, tally: &Tally) {
        let (mut tree, mut at) = (self.history.before.clone(), 0);
        loop {
            let step = next.fetch_add(1, SeqCst);
            let Some(passed) = self.history.steps.get(at..step) else { return };
            passed.iter().for_each(|step| tree.take(step));
            at = step;
            if all.is_none() && !step.is_multiple_of(SAMPLE) {
                continue;
            }
            let kinds = if all.is_some() { &KINDS[..] } else { &KINDS[step % KINDS.len()..][..1] };
            for (number, (stays, kv)) in kinds.iter().enumerate() {
                let seed = all.unwrap_or(1) << 32 | (step * KINDS.len() + number) as u64;
                let seldom = *kv == Kv::OneBefore && !matches!(step % OLD_ONCE_IN, 4 | 6);
                let kv = if seldom { Kv::Absent } else { *kv };
                let cut = PowerCut { step, stays: *stays, kv, seed };
                self.cut(&tree, cut, tally);
                if (step + number).is_multiple_of(7) {
                    self.cut_twice(&tree, cut, tally);
                }
            }
        }
    }

    /// What is left on disk, and in a directory that has sled's files.
    fn left(&self, tree: &Tree, cut: PowerCut) -> (Tree, TempDir) {
        let dir = directory();
        let copies: Vec<&Option<PathBuf>> = self
            .history
            .copies
            .iter()
            .filter(|(after, _)| *after <= cut.step)
            .map(|(_, copy)| copy)
            .collect();
        let which = match cut.kv {
            Kv::Newest => copies.last(),
            Kv::OneBefore => copies.iter().rev().nth(1),
            Kv::Absent => None,
        };
        if let Some(Some(copy)) = which {
            copy_dir(copy, &dir.path().join(CATALOG));
        }
        (tree.cut(&mut Cut::new(cut.stays, cut.seed)), dir)
    }

    fn cut(&self, tree: &Tree, cut: PowerCut, tally: &Tally) {
        tally.points.fetch_add(1, SeqCst);
        let (left, dir) = self.left(tree, cut);
        let kv = if dir.path().join(CATALOG).is_dir() { cut.kv } else { Kv::Absent };
        *tally.kvs.lock().entry(kv).or_default() += 1;
        let disk = MemoryDisk::holding(left, dir.path(), CATALOG, None);
        let moment = Moment::at(cut.step);
        let told = self.open_and_compare("", &disk, dir.path(), cut, moment, tally);
        if let Some(told) = told.filter(|told| !told.is_empty()) {
            tally.told.fetch_add(1, SeqCst);
            if cut.stays != Stays::Some && !self.torn {
                tally.lost.lock().push(format!("{cut:?}: tells of damage where there is none: {told:?}"));
            }
        }
        self.compare_snapshots(&disk, cut, tally);
        self.compare_backups(&disk, dir.path(), cut, tally);
    }

    /// Opens what is on a disk and compares it with what it must show: what it tells of damage.
    fn open_and_compare(
        &self,
        what: &str,
        disk: &Arc<MemoryDisk>,
        dir: &Path,
        cut: PowerCut,
        moment: Moment,
        tally: &Tally,
    ) -> Option<Vec<String>> {
        let now = self.book.now(cut.step);
        let compared = catch_unwind(AssertUnwindSafe(|| {
            let store = life::open(dir, disk, &HandClock::at(now)).map_err(|e| e.to_string())?;
            let shown = self.runtime.block_on(shown(&store));
            let told = self.runtime.block_on(store.status()).map_err(|e| e.to_string())?.quarantined;
            let oldest = |tenant: &TenantId, labels: &Labels| oldest(now, tenant, labels);
            Ok::<_, String>((self.book.faults(&shown, moment, &oldest), told))
        }));
        let (faults, told) = match compared {
            Ok(Ok(compared)) => compared,
            Ok(Err(error)) => {
                tally.failed.lock().push(format!("{cut:?}: {what} {error}"));
                return None;
            }
            Err(_) => {
                tally.failed.lock().push(format!("{cut:?}: {what} it panicked"));
                return None;
            }
        };
        tally.lost.lock().extend(faults.into_iter().map(|fault| format!("{cut:?}: {what} {fault}")));
        Some(told)
    }

    /// Goes on living after a power cut, or after the process alone was killed, so that what it has written may still
    /// be lost; and cuts the power at some steps of that life.
    fn cut_twice(&self, tree: &Tree, cut: PowerCut, tally: &Tally) {
        let (mut left, dir) = self.left(tree, cut);
        if cut.stays == Stays::Everything {
            left = tree.clone();
        }
        let copies = directory();
        let beginning = (dir.path(), Some(copies.path()));
        let lived = catch_unwind(AssertUnwindSafe(|| {
            let mut life =
                Life::begin(self.runtime, beginning, left, self.book.as_of(cut.step), (cut.seed, 2))
                    .map_err(|e| e.to_string())?;
            life.live_shortly();
            Ok::<_, String>(life.end())
        }));
        let (history, book) = match lived {
            Ok(Ok(lived)) => lived,
            other => {
                let error = other.map_or("it panicked".to_owned(), |e| e.err().unwrap_or_default());
                tally.failed.lock().push(format!("after {cut:?}: {error}"));
                return;
            }
        };
        tally.lives.fetch_add(1, SeqCst);
        let torn = cut.stays == Stays::Some;
        let past = Past { runtime: self.runtime, history: &history, book: &book, torn };
        let mut random = Random::new(cut.seed);
        for kind in [0, 3] {
            let step = random.below(u32::try_from(history.steps.len()).unwrap() + 1) as usize;
            let mut tree = history.before.clone();
            history.steps[..step].iter().for_each(|step| tree.take(step));
            let again = PowerCut { step, stays: KINDS[kind].0, kv: KINDS[kind].1, seed: random.next() };
            past.cut(&tree, again, tally);
        }
    }
}
