//! Who computes when: as many threads as there are processors, tenants in turn.
//!
//! A query's evaluation is one thread, its own, and helpers, which take chunks of series off it. Each needs a turn.
//!
//! * **Own threads** wait for a turn, and leave it where they look whether anybody still waits ([`Turn::check`]) if it
//!   is somebody else's. It then goes to the query whose tenant has computed least of late, and of one tenant's queries
//!   to that which has computed least.
//! * **Helpers** take turns that nobody wants, for a chunk at a time, and never wait: a query that has none is slower and
//!   not stuck.
//! * **A light tenant**, one who has hardly computed of late, does not wait: it begins at once, though there be no free
//!   turn, and others leave theirs until no more compute than may.
//!
//! ```text
//! 2 turns       a: q1 ████████│····│██   a's two stop, for b is light
//!               a: q2 ████████│····│██
//!               b: q3          ████
//! ```
//!
//! * **The heavy leave one turn free** for as long as somebody is light who has computed of late: who comes often finds a
//!   processor that computes for nobody, and need not wait until another is taken from it.
//!
//! What has been computed is what processors have spent on it, for waiting is no fault of who waits; it is forgotten by half
//! each [`HALF`]. Looking costs an atomic load as long as nobody wants in.
//! The threads of who has computed much have a [lower priority](super::threads) as soon as another tenant has computed
//! something of late: turns are left every few milliseconds at best, and other work than queries has none.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, ThreadId},
    time::Duration,
};

use foldhash::fast::RandomState;
use futures_util::future::BoxFuture;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::threads::{self, Priority, Threads};
use crate::{clock::Clock, model::TenantId};

/// After so long, half of what a tenant has computed is forgotten.
const HALF: Duration = Duration::from_secs(1);

/// How much a tenant may have computed of late and still be light, for each turn there is.
const LIGHT: f64 = 0.1;

/// Seconds that a tenant has computed of late if others make room for it.
const NOTABLE: f64 = 0.000_5;

/// How long a turn is, if others of the same weight wait for one.
const SLICE: Duration = Duration::from_millis(5);

/// How often one who waits looks whether their query is still wanted.
const LOOK: Duration = Duration::from_millis(20);

/// Tenants whose past is remembered before those are forgotten who have none to speak of.
const TENANTS: usize = 1024;

/// All turns.
#[derive(Clone)]
pub struct Turns(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    threads: Threads,
    places: usize,
    /// Whether somebody may have to leave.
    wanted: AtomicBool,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    light: usize,
    heavy: usize,
    tenants: HashMap<TenantId, Past, RandomState>,
    waiting: Vec<Waiting>,
    next: u64,
}

/// What a tenant has computed of late.
#[derive(Clone, Copy, Default)]
struct Past {
    seconds: f64,
    /// When that was so.
    at: Duration,
}

struct Waiting {
    tenant: TenantId,
    computed: Duration,
    number: u64,
    bell: Arc<Bell>,
}

#[derive(Default)]
struct Bell {
    /// With which weight one who waits was called.
    called: Mutex<Option<Weight>>,
    rung: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    Light,
    Heavy,
}

/// A query's turns.
#[derive(Debug)]
pub struct Turn {
    turns: Turns,
    tenant: TenantId,
    mine: Mutex<Mine>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mine {
    /// The turn its own thread has.
    has: Option<Has>,
    computed: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Has {
    weight: Weight,
    /// Since when.
    since: Duration,
    /// The thread, and what it had computed when that was last put into the books.
    thread: ThreadId,
    counted: Duration,
}

/// Threads with the priority that a tenant has at the moment.
#[derive(Debug)]
pub struct TenantThreads {
    turns: Turns,
    priority: Priority,
}

/// The turn of a helper, given back when dropped.
#[derive(Debug)]
pub struct Helper<'t> {
    turn: &'t Turn,
    weight: Weight,
    priority: Priority,
    /// What its thread had computed when it began.
    since: Option<Duration>,
}

impl Turns {
    /// So many. Fails if their threads cannot be started.
    pub fn new(places: usize, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let (wanted, books, places) = (AtomicBool::new(false), Mutex::default(), places.max(1));
        let threads = Threads::new(places)?;
        Ok(Self(Arc::new(Inner { clock, threads, places, wanted, books })))
    }

    /// How many there are.
    pub fn places(&self) -> usize {
        self.0.places
    }

    /// The turns of a query, which has none yet.
    pub fn of(&self, tenant: &TenantId) -> Turn {
        Turn { turns: self.clone(), tenant: tenant.clone(), mine: Mutex::default() }
    }

    /// Whether a tenant has computed more of late than one who does not wait.
    pub fn is_heavy(&self, tenant: &TenantId) -> bool {
        self.0.weight(&self.0.books.lock(), tenant) == Weight::Heavy
    }

    /// Notes what was computed for a tenant without a turn.
    pub fn note(&self, tenant: &TenantId, computed: Duration) {
        self.0.charge(&mut self.0.books.lock(), tenant, computed);
    }
}

impl TenantThreads {
    /// Does something that may wait for a turn. An error is why it could not be done.
    ///
    /// It is done whether anybody waits for it or not.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> BoxFuture<'static, Result<T, String>> {
        self.turns.0.threads.run(self.priority, work)
    }
}

impl Inner {
    fn weight(&self, books: &Books, tenant: &TenantId) -> Weight {
        if self.past(books, tenant) < self.light() { Weight::Light } else { Weight::Heavy }
    }

    /// The seconds from which on a tenant is heavy who has computed so much of late.
    fn light(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "there are few processors")]
        let places = self.places as f64;
        LIGHT * places
    }

    fn past(&self, books: &Books, tenant: &TenantId) -> f64 {
        books.tenants.get(tenant).map_or(0.0, |past| past.seen_at(self.clock.elapsed()))
    }

    /// How the threads of a tenant who has turns of a weight stand to those of others.
    fn priority(&self, books: &Books, tenant: &TenantId, weight: Weight) -> Priority {
        let now = self.clock.elapsed();
        let mut others = books.tenants.iter().filter(|(other, _)| *other != tenant);
        match weight {
            Weight::Heavy if others.any(|(_, past)| past.seen_at(now) > NOTABLE) => Priority::Low,
            Weight::Heavy | Weight::Light => Priority::Normal,
        }
    }

    /// How many turns the heavy may have.
    fn room(&self, books: &Books) -> usize {
        let now = self.clock.elapsed();
        let is_light_and_comes = |past: &Past| (NOTABLE..self.light()).contains(&past.seen_at(now));
        let is_kept = self.places > 1 && books.tenants.values().any(is_light_and_comes);
        self.places - usize::from(is_kept)
    }

    /// Whether there is a turn for one more who is heavy.
    fn has_room(&self, books: &Books) -> bool {
        books.light + books.heavy < self.places && books.heavy < self.room(books)
    }

    fn charge(&self, books: &mut Books, tenant: &TenantId, computed: Duration) {
        if computed.is_zero() {
            return;
        }
        let now = self.clock.elapsed();
        if books.tenants.len() >= TENANTS && !books.tenants.contains_key(tenant) {
            books.tenants.retain(|_, past| past.seen_at(now) > LIGHT / 10.0);
        }
        let past = books.tenants.entry(tenant.clone()).or_default();
        *past = Past { seconds: past.seen_at(now) + computed.as_secs_f64(), at: now };
    }

    /// Gives turns that are free to those who wait, who has computed least first; and who has waited long enough to be
    /// light again has one though none is free, like all who are light.
    fn call(&self, books: &mut Books) {
        loop {
            let has_room = self.has_room(books);
            if !has_room && books.light >= self.places {
                break;
            }
            let next = (0..books.waiting.len()).min_by(|a, b| {
                let [a, b] = [a, b].map(|at| &books.waiting[*at]);
                let past = self.past(books, &a.tenant).total_cmp(&self.past(books, &b.tenant));
                past.then(a.computed.cmp(&b.computed)).then(a.number.cmp(&b.number))
            });
            let Some(next) = next else { break };
            let weight = self.weight(books, &books.waiting[next].tenant);
            if !has_room && weight == Weight::Heavy {
                break;
            }
            *books.of(weight) += 1;
            let waiting = books.waiting.swap_remove(next);
            *waiting.bell.called.lock() = Some(weight);
            waiting.bell.rung.notify_one();
        }
        let crowded = books.heavy > 0 && books.light + books.heavy > self.places
            || books.heavy > 1 && books.heavy > self.room(books);
        self.wanted.store(crowded || !books.waiting.is_empty(), Relaxed);
    }
}

impl Books {
    fn of(&mut self, weight: Weight) -> &mut usize {
        match weight {
            Weight::Light => &mut self.light,
            Weight::Heavy => &mut self.heavy,
        }
    }
}

impl Past {
    fn seen_at(self, now: Duration) -> f64 {
        let halves = now.saturating_sub(self.at).as_secs_f64() / HALF.as_secs_f64();
        self.seconds * (-halves).exp2()
    }
}

impl Turn {
    /// How many turns there are in all.
    pub fn places(&self) -> usize {
        self.turns.places()
    }

    /// The threads for what is done for the query's tenant now.
    pub fn threads(&self) -> TenantThreads {
        let inner = &*self.turns.0;
        let books = inner.books.lock();
        let priority = inner.priority(&books, &self.tenant, inner.weight(&books, &self.tenant));
        TenantThreads { turns: self.turns.clone(), priority }
    }

    /// Where helpers work.
    pub fn helpers(&self, helper: &Helper<'_>) -> &rayon::ThreadPool {
        self.turns.0.threads.helpers(helper.priority)
    }

    /// Waits for a turn; gives up when `is_over` says that nobody needs it.
    pub fn begin(&self, is_over: impl Fn() -> bool) {
        let inner = &*self.turns.0;
        let bell = {
            let mut books = inner.books.lock();
            let computed = self.mine.lock().computed;
            if self.has_begun(&mut books) {
                return;
            }
            books.next += 1;
            let bell = Arc::new(Bell::default());
            let (number, tenant) = (books.next, self.tenant.clone());
            books.waiting.push(Waiting { tenant, computed, number, bell: Arc::clone(&bell) });
            inner.call(&mut books);
            bell
        };
        let mut called = bell.called.lock();
        while called.is_none() && !is_over() {
            if bell.rung.wait_for(&mut called, LOOK).timed_out() {
                // Nobody calls when the turn that was kept is not kept any more.
                MutexGuard::unlocked(&mut called, || inner.call(&mut inner.books.lock()));
            }
        }
        let mut weight = *called;
        drop(called);
        if weight.is_none() {
            let mut books = inner.books.lock();
            books.waiting.retain(|waiting| !Arc::ptr_eq(&waiting.bell, &bell));
            inner.call(&mut books);
            // Called in the meantime, perhaps.
            weight = *bell.called.lock();
        }
        if let Some(weight) = weight {
            self.has(&inner.books.lock(), weight);
        }
    }

    /// Begins if there is nothing to wait for.
    pub fn begin_now(&self) -> bool {
        self.has_begun(&mut self.turns.0.books.lock())
    }

    fn has_begun(&self, books: &mut Books) -> bool {
        let inner = &*self.turns.0;
        let weight = inner.weight(books, &self.tenant);
        let may = match weight {
            Weight::Light => books.light < inner.places,
            Weight::Heavy => inner.has_room(books),
        };
        if may {
            *books.of(weight) += 1;
            inner.call(books);
            self.has(books, weight);
        }
        may
    }

    /// Ends it.
    pub fn end(&self) {
        let Some(has) = self.mine.lock().has.take() else { return };
        let inner = &*self.turns.0;
        let mut books = inner.books.lock();
        self.count(&mut books, has);
        *books.of(has.weight) -= 1;
        inner.call(&mut books);
    }

    /// Lets others compute whose turn it is. A query's own thread leaves its turn for that, and waits for the next one.
    #[inline]
    pub fn check(&self, is_over: impl Fn() -> bool) {
        threads::give_way();
        if self.turns.0.wanted.load(Relaxed) && rayon::current_thread_index().is_none() && self.must_leave() {
            self.end();
            self.begin(is_over);
        }
    }

    /// Leaves the turn for as long as something else is waited for; does not wait for the next if nobody needs it.
    pub fn away<T>(&self, wait: impl FnOnce() -> T, is_over: impl Fn() -> bool) -> T {
        self.end();
        let waited = wait();
        self.begin(is_over);
        waited
    }

    /// A turn for a helper, if nobody else wants it.
    pub fn helper(&self) -> Option<Helper<'_>> {
        let weight = self.mine.lock().has?.weight;
        let inner = &*self.turns.0;
        let mut books = inner.books.lock();
        let may = match weight {
            // The heavy will leave theirs.
            Weight::Light => books.light < inner.places,
            Weight::Heavy => inner.has_room(&books) && books.waiting.is_empty(),
        };
        if !may {
            return None;
        }
        *books.of(weight) += 1;
        inner.call(&mut books);
        let priority = inner.priority(&books, &self.tenant, weight);
        Some(Helper { turn: self, weight, priority, since: None })
    }

    fn has(&self, books: &Books, weight: Weight) {
        let inner = &*self.turns.0;
        if inner.priority(books, &self.tenant, weight) == Priority::Low {
            threads::lower();
        }
        let (since, counted) = (inner.clock.elapsed(), inner.clock.computed());
        self.mine.lock().has = Some(Has { weight, since, thread: thread::current().id(), counted });
    }

    /// Puts into the books what was computed since the last time.
    fn count(&self, books: &mut Books, has: Has) -> Has {
        let inner = &*self.turns.0;
        if has.thread != thread::current().id() {
            // Who gives up somebody else's turn cannot tell what that thread has computed since.
            return has;
        }
        let counted = inner.clock.computed();
        let computed = counted.saturating_sub(has.counted);
        inner.charge(books, &self.tenant, computed);
        self.mine.lock().computed += computed;
        Has { counted, ..has }
    }

    fn must_leave(&self) -> bool {
        let Some(has) = self.mine.lock().has else { return false };
        let inner = &*self.turns.0;
        let mut books = inner.books.lock();
        let mut has = self.count(&mut books, has);
        let weight = inner.weight(&books, &self.tenant);
        if weight != has.weight && (weight == Weight::Heavy || books.light < inner.places) {
            *books.of(has.weight) -= 1;
            *books.of(weight) += 1;
            has.weight = weight;
        }
        let mut mine = self.mine.lock();
        mine.has = Some(has);
        if has.weight == Weight::Light {
            return false;
        }
        if inner.priority(&books, &self.tenant, has.weight) == Priority::Low {
            threads::lower();
        }
        if books.light + books.heavy > inner.places || books.heavy > inner.room(&books) {
            return true;
        }
        if inner.clock.elapsed().saturating_sub(has.since) < SLICE {
            return false;
        }
        let own = inner.past(&books, &self.tenant);
        books.waiting.iter().any(|waiting| {
            let past = inner.past(&books, &waiting.tenant);
            if waiting.tenant == self.tenant { waiting.computed < mine.computed } else { past < own }
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.end();
    }
}

impl Helper<'_> {
    /// To be called by the thread that helps, as it begins.
    pub fn begin(&mut self) {
        self.since = Some(self.turn.turns.0.clock.computed());
    }

    /// Whether somebody else wants the turn.
    pub fn is_wanted(&self) -> bool {
        self.turn.turns.0.wanted.load(Relaxed)
    }
}

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        let inner = &*self.turn.turns.0;
        let mut books = inner.books.lock();
        if let Some(since) = self.since {
            inner.charge(&mut books, &self.turn.tenant, inner.clock.computed().saturating_sub(since));
        }
        *books.of(self.weight) -= 1;
        inner.call(&mut books);
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let books = self.0.books.lock();
        let mut text = f.debug_struct("Turns");
        text.field("places", &self.0.places).field("light", &books.light).field("heavy", &books.heavy);
        text.field("waiting", &books.waiting.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::HandClock, model::Timestamp};

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn turns(places: usize) -> (Turns, Arc<HandClock>) {
        let clock = HandClock::at(Timestamp(0));
        (Turns::new(places, Arc::<HandClock>::clone(&clock)).unwrap(), clock)
    }

    fn counts(turns: &Turns) -> (usize, usize, usize) {
        let books = turns.0.books.lock();
        (books.light, books.heavy, books.waiting.len())
    }

    /// Begins, or finds that one would have to wait.
    fn begins(turn: &Turn) -> bool {
        turn.begin(|| true);
        turn.mine.lock().has.is_some()
    }

    #[test]
    fn there_are_as_many_as_there_are_places() {
        let (turns, _clock) = turns(2);
        let all = [(); 3].map(|()| turns.of(&tenant("a")));
        assert!(begins(&all[0]) && begins(&all[1]) && !begins(&all[2]));
        all[0].end();
        assert!(begins(&all[2]));
        drop(all);
        assert_eq!(counts(&turns), (0, 0, 0));
    }

    #[test]
    fn one_who_has_hardly_computed_begins_at_once_and_others_leave() {
        let (turns, clock) = turns(1);
        let (heavy, light) = (turns.of(&tenant("a")), turns.of(&tenant("b")));
        heavy.begin(|| false);
        clock.advance(Duration::from_secs(1));
        assert!(!heavy.must_leave(), "nobody else is there");
        assert!(begins(&light));
        assert_eq!(counts(&turns), (1, 1, 0));
        assert!(heavy.must_leave() && !light.must_leave());
        heavy.end();
        assert!(!begins(&heavy), "it waits as long as the light one computes");
        drop(light);
        assert!(begins(&heavy));
    }

    #[test]
    fn one_turn_is_kept_for_who_is_light_and_comes_often() {
        let (turns, clock) = turns(2);
        turns.note(&tenant("h"), Duration::from_secs(100));
        let [first, second] = [(); 2].map(|()| turns.of(&tenant("h")));
        assert!(begins(&first) && begins(&second));
        assert!(!first.must_leave());
        turns.note(&tenant("b"), Duration::from_millis(5));
        assert!(second.must_leave());
        second.end();
        assert!(!first.must_leave() && !begins(&second) && first.helper().is_none());
        let light = turns.of(&tenant("b"));
        assert!(begins(&light));
        drop(light);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| second.begin(|| false));
            while counts(&turns).2 < 1 {
                std::thread::yield_now();
            }
            clock.advance(Duration::from_secs(4));
            waiting.join().unwrap();
        });
        assert_eq!(counts(&turns), (0, 2, 0));
    }

    #[test]
    fn what_was_computed_long_ago_does_not_count() {
        let (turns, clock) = turns(1);
        turns.note(&tenant("a"), Duration::from_millis(400));
        assert!(turns.is_heavy(&tenant("a")) && !turns.is_heavy(&tenant("b")));
        clock.advance(Duration::from_secs(3));
        assert!(!turns.is_heavy(&tenant("a")));
    }

    #[test]
    fn helpers_take_what_nobody_wants() {
        let (turns, clock) = turns(2);
        let (a, b) = (turns.of(&tenant("a")), turns.of(&tenant("b")));
        assert!(a.helper().is_none(), "one who has no turn has no helpers");
        a.begin(|| false);
        let first = a.helper().unwrap();
        assert!(a.helper().is_none());
        drop(first);
        clock.advance(Duration::from_secs(1));
        a.end();
        a.begin(|| false);
        let helper = a.helper().unwrap();
        b.begin(|| false);
        assert!(helper.is_wanted() && a.helper().is_none());
        // The light one has its own, which the others will have left.
        assert!(b.helper().is_some());
    }

    #[test]
    fn of_those_who_wait_the_one_who_has_computed_least_is_called() {
        let (turns, clock) = turns(1);
        for (name, millis) in [("a", 900), ("b", 700), ("c", 800)] {
            turns.note(&tenant(name), Duration::from_millis(millis));
        }
        let first = turns.of(&tenant("a"));
        first.begin(|| false);
        let order = &Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for name in ["c", "b"] {
                let turn = turns.of(&tenant(name));
                scope.spawn(move || {
                    turn.begin(|| false);
                    order.lock().push(name);
                });
            }
            while counts(&turns).2 < 2 {
                std::thread::yield_now();
            }
            clock.advance(SLICE);
            assert!(first.must_leave());
            first.end();
            while order.lock().len() < 2 {
                std::thread::yield_now();
            }
            assert_eq!(*order.lock(), ["b", "c"]);
        });
    }

    #[test]
    fn one_who_has_waited_long_enough_waits_for_nobody_who_is_heavy() {
        let (turns, clock) = turns(2);
        for (name, millis) in [("a", 900), ("h", 100_000)] {
            turns.note(&tenant(name), Duration::from_millis(millis));
        }
        let heavy = [(); 2].map(|()| turns.of(&tenant("h")));
        heavy.iter().for_each(|turn| turn.begin(|| false));
        let (light, waits) = (turns.of(&tenant("b")), turns.of(&tenant("a")));
        light.begin(|| false);
        assert_eq!(counts(&turns), (1, 2, 0));
        std::thread::scope(|scope| {
            let waits = &waits;
            let waiting = scope.spawn(move || waits.begin(|| false));
            while counts(&turns).2 < 1 {
                std::thread::yield_now();
            }
            clock.advance(Duration::from_secs(5));
            light.end();
            waiting.join().unwrap();
        });
        assert_eq!(counts(&turns), (1, 2, 0));
        assert!(!waits.must_leave() && heavy[0].must_leave());
    }

    #[test]
    fn one_whose_query_is_over_leaves_the_line() {
        let (turns, _clock) = turns(1);
        let (first, second) = (turns.of(&tenant("a")), turns.of(&tenant("a")));
        first.begin(|| false);
        assert!(!begins(&second));
        assert_eq!(counts(&turns).2, 0);
        second.end();
        assert_eq!(counts(&turns), (1, 0, 0));
    }
}
