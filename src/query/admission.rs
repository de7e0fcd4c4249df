//! Places for queries: a bounded number run, a bounded number wait, the rest are told to come back.
//!
//! Tenants take turns: each has a line of its own, and a place that becomes free goes to the first in the line of the
//! tenant whose turn it is.
//!
//! ```text
//! lines    a: q1 q2 q3 …     b: q7          turn: a, b
//! places   q1, then q7, then q2, q3, …
//! ```
//!
//! However many queries a tenant has waiting, another's next query comes after one of theirs. Nor does anybody fill the
//! room for waiting: a tenant has at most as many in line as there is room left. As soon as there are several tenants, the
//! last few places are only for those of whom nothing runs, so that a short query need not wait for long ones of others.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::QueryFailure;
use crate::model::TenantId;

/// When a refused query should try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// One of so many places is kept for tenants of whom nothing runs.
const RESERVED: usize = 8;

/// Gives out places, to tenants in turn.
#[derive(Debug)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max_running: usize,
    max_waiting: usize,
    /// Places that a tenant leaves to others once it has one.
    reserved: Reserved,
    lines: Mutex<Lines>,
}

#[derive(Clone, Copy, Debug)]
enum Reserved {
    /// So many.
    Few(usize),
    /// As many as it has itself.
    Half,
}

#[derive(Debug, Default)]
struct Lines {
    running: usize,
    waiting: usize,
    tenants: HashMap<TenantId, Line, RandomState>,
    /// Tenants that wait, the one whose turn it is in front.
    turns: VecDeque<TenantId>,
    /// The first tenant there was, and whether there was another.
    first: Option<TenantId>,
    several: bool,
    next_number: u64,
}

/// What one tenant has.
#[derive(Debug, Default)]
struct Line {
    running: usize,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    tell: oneshot::Sender<Place>,
}

/// A place; dropping it lets the next query in.
#[derive(Debug)]
pub struct Place {
    inner: Arc<Inner>,
    tenant: TenantId,
}

impl Admission {
    /// At least one query runs, whatever `max_running` says.
    pub fn new(max_running: usize, max_waiting: usize) -> Self {
        let max_running = max_running.max(1);
        Self::with(max_running, max_waiting, Reserved::Few(max_running / RESERVED))
    }

    /// Places for which nobody waits: where there are several tenants, each has at most as many as it leaves free.
    pub fn shared_out(max_running: usize) -> Self {
        Self::with(max_running.max(1), 0, Reserved::Half)
    }

    fn with(max_running: usize, max_waiting: usize, reserved: Reserved) -> Self {
        Self(Arc::new(Inner { max_running, max_waiting, reserved, lines: Mutex::default() }))
    }

    /// Waits for a place. Refuses at once when there is no room to wait; dropping the call leaves the line.
    pub async fn enter(&self, tenant: &TenantId) -> Result<Place, QueryFailure> {
        let (mut told, _in_line) = {
            let mut lines = self.0.lines.lock();
            lines.meet(tenant);
            // Nobody passes those of their own tenant who wait already.
            let first = lines.tenants.get(tenant).is_none_or(|line| line.waiting.is_empty());
            if first && self.0.may_run(&lines, tenant) {
                return Ok(self.0.seat(&mut lines, tenant.clone()));
            }
            self.0.queue(&mut lines, tenant)?
        };
        let place = (&mut told).await;
        Ok(place.expect("a line is only left by one who stops waiting"))
    }

    /// Places taken.
    pub fn running(&self) -> usize {
        self.0.lines.lock().running
    }

    /// Queries in line.
    pub fn waiting(&self) -> usize {
        self.0.lines.lock().waiting
    }
}

impl Inner {
    /// Whether a tenant may have one more of the places that are free.
    fn may_run(&self, lines: &Lines, tenant: &TenantId) -> bool {
        let free = self.max_running - lines.running;
        let own = lines.tenants.get(tenant).map_or(0, |line| line.running);
        let left = match self.reserved {
            _ if !lines.several || own == 0 => 0,
            Reserved::Few(few) => few,
            // With this one it has `own + 1`, and leaves `free - 1`.
            Reserved::Half => own + 1,
        };
        free > left
    }

    fn seat(self: &Arc<Self>, lines: &mut Lines, tenant: TenantId) -> Place {
        lines.running += 1;
        lines.tenants.entry(tenant.clone()).or_default().running += 1;
        Place { inner: Arc::clone(self), tenant }
    }

    fn queue(
        self: &Arc<Self>,
        lines: &mut Lines,
        tenant: &TenantId,
    ) -> Result<(oneshot::Receiver<Place>, InLine), QueryFailure> {
        let (waiting, limit) = (lines.waiting, self.max_waiting);
        let full = QueryFailure::Overloaded { waiting, limit, retry_after: RETRY_AFTER };
        let room = limit.saturating_sub(waiting);
        let own = lines.tenants.get(tenant).map_or(0, |line| line.waiting.len());
        if room == 0 || lines.several && own > 0 && own >= room {
            return Err(full);
        }
        lines.next_number += 1;
        lines.waiting += 1;
        let number = lines.next_number;
        let (tell, told) = oneshot::channel();
        let line = lines.tenants.entry(tenant.clone()).or_default();
        if line.waiting.is_empty() {
            lines.turns.push_back(tenant.clone());
        }
        line.waiting.push_back(Waiting { number, tell });
        Ok((told, InLine { inner: Arc::clone(self), tenant: tenant.clone(), number }))
    }

    /// Gives the places that are free to those whose turn it is.
    fn call_next(self: &Arc<Self>) {
        loop {
            let (place, tell) = {
                let mut lines = self.lines.lock();
                let next = lines.turns.iter().position(|tenant| self.may_run(&lines, tenant));
                let Some(tenant) = next.and_then(|at| lines.turns.remove(at)) else { return };
                let line = lines.tenants.entry(tenant.clone()).or_default();
                let first = line.waiting.pop_front();
                if !line.waiting.is_empty() {
                    lines.turns.push_back(tenant.clone());
                }
                let Some(first) = first else { continue };
                lines.waiting -= 1;
                (self.seat(&mut lines, tenant), first.tell)
            };
            // One who has just stopped waiting gives it back: the place is dropped, here or with the channel, which calls
            // the next; so no lock is held.
            if tell.send(place).is_err() {
                return;
            }
        }
    }
}

impl Lines {
    fn meet(&mut self, tenant: &TenantId) {
        match &self.first {
            Some(first) => self.several |= first != tenant,
            None => self.first = Some(tenant.clone()),
        }
    }

    /// Forgets a tenant that has nothing any more.
    fn tidy(&mut self, tenant: &TenantId) {
        if self.tenants.get(tenant).is_some_and(|line| line.running == 0 && line.waiting.is_empty()) {
            self.tenants.remove(tenant);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        {
            let mut lines = self.inner.lines.lock();
            lines.running -= 1;
            if let Some(line) = lines.tenants.get_mut(&self.tenant) {
                line.running -= 1;
            }
            lines.tidy(&self.tenant);
        }
        self.inner.call_next();
    }
}

/// A place in a line, given up when dropped.
#[derive(Debug)]
struct InLine {
    inner: Arc<Inner>,
    tenant: TenantId,
    number: u64,
}

impl Drop for InLine {
    fn drop(&mut self) {
        let mut lines = self.inner.lines.lock();
        let Some(line) = lines.tenants.get_mut(&self.tenant) else { return };
        // Who was called is in line no more.
        let Some(at) = line.waiting.iter().position(|waiting| waiting.number == self.number) else { return };
        line.waiting.remove(at);
        let was_last = line.waiting.is_empty();
        lines.waiting -= 1;
        if was_last {
            lines.turns.retain(|tenant| *tenant != self.tenant);
        }
        lines.tidy(&self.tenant);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::Pin};

    use futures_util::FutureExt;

    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    type Entering<'a> = Pin<Box<dyn Future<Output = Result<Place, QueryFailure>> + 'a>>;

    /// One who wants in, and has been asked once.
    fn wait<'a>(admission: &'a Admission, tenant: &'a TenantId) -> Entering<'a> {
        let mut entering: Entering<'a> = Box::pin(admission.enter(tenant));
        assert!((&mut entering).now_or_never().is_none(), "{tenant} does not have to wait");
        entering
    }

    fn enter(admission: &Admission, tenant: &TenantId) -> Place {
        admission.enter(tenant).now_or_never().expect("there is a place").unwrap()
    }

    fn is_in(entering: &mut Entering<'_>) -> Option<Place> {
        entering.now_or_never().map(Result::unwrap)
    }

    #[test]
    fn one_runs_one_waits_and_the_next_is_refused() {
        let (admission, a) = (Admission::new(1, 1), tenant("a"));
        let first = enter(&admission, &a);
        assert_eq!((admission.running(), admission.waiting()), (1, 0));
        let mut second = wait(&admission, &a);
        assert_eq!(admission.waiting(), 1);
        let refused = admission.enter(&a).now_or_never().unwrap().unwrap_err();
        assert!(matches!(refused, QueryFailure::Overloaded { waiting: 1, limit: 1, .. }), "{refused}");
        drop(first);
        let _second = is_in(&mut second).unwrap();
        assert_eq!((admission.running(), admission.waiting()), (1, 0));
    }

    #[test]
    fn who_leaves_the_line_makes_room_in_it() {
        let (admission, a) = (Admission::new(1, 1), tenant("a"));
        let first = enter(&admission, &a);
        drop(wait(&admission, &a));
        assert_eq!(admission.waiting(), 0);
        drop(first);
        assert_eq!(admission.running(), 0);
        assert!(admission.0.lines.lock().tenants.is_empty() && admission.0.lines.lock().turns.is_empty());
    }

    #[test]
    fn who_leaves_after_being_called_passes_the_place_on() {
        let (admission, a) = (Admission::new(1, 10), tenant("a"));
        let first = enter(&admission, &a);
        let called = wait(&admission, &a);
        let mut next = wait(&admission, &a);
        drop(first);
        // The place is on its way to one who never looks.
        drop(called);
        let place = is_in(&mut next).unwrap();
        assert_eq!((admission.running(), admission.waiting()), (1, 0));
        drop(place);
        assert_eq!(admission.running(), 0);
    }

    #[test]
    fn a_service_without_places_would_answer_nothing_so_it_has_one() {
        assert_eq!(Admission::new(0, 0).0.max_running, 1);
    }

    #[test]
    fn tenants_take_turns_however_long_their_lines_are() {
        let admission = Admission::new(2, 1000);
        let (a, b, c) = (tenant("a"), tenant("b"), tenant("c"));
        let mut running = vec![enter(&admission, &a), enter(&admission, &a)];
        let mut waiting: Vec<(&str, Entering<'_>)> = Vec::new();
        for _ in 0..100 {
            waiting.push(("a", wait(&admission, &a)));
        }
        for _ in 0..2 {
            waiting.push(("b", wait(&admission, &b)));
        }
        waiting.push(("c", wait(&admission, &c)));
        let mut order = String::new();
        for _ in 0..8 {
            running.remove(0);
            let (at, place) = (0..waiting.len())
                .find_map(|at| Some((at, is_in(&mut waiting[at].1)?)))
                .expect("a free place is given to somebody");
            order.push_str(waiting.remove(at).0);
            running.push(place);
        }
        assert_eq!(order, "abcabaaa");
    }

    #[test]
    fn nobody_fills_the_room_for_waiting() {
        let admission = Admission::new(1, 16);
        let (a, b, c) = (tenant("a"), tenant("b"), tenant("c"));
        drop(enter(&admission, &b));
        let _running = enter(&admission, &a);
        let mut lines = Vec::new();
        for (tenant, expected) in [(&a, 8), (&b, 4), (&c, 2)] {
            let before = admission.waiting();
            while admission.waiting() < before + expected {
                lines.push(wait(&admission, tenant));
            }
            let refused = admission.enter(tenant).now_or_never().unwrap();
            assert!(matches!(refused, Err(QueryFailure::Overloaded { .. })), "{tenant}");
        }
    }

    #[test]
    fn the_last_places_are_for_those_of_whom_nothing_runs() {
        let admission = Admission::new(16, 100);
        let (a, b, c) = (tenant("a"), tenant("b"), tenant("c"));
        let alone: Vec<_> = (0..16).map(|_| enter(&admission, &a)).collect();
        drop(alone);
        drop(enter(&admission, &b));
        let mut running: Vec<_> = (0..14).map(|_| enter(&admission, &a)).collect();
        let mut more = wait(&admission, &a);
        let of_b = enter(&admission, &b);
        let mut another = wait(&admission, &b);
        let of_c = enter(&admission, &c);
        drop((of_b, of_c));
        // b has none running now, so that its turn comes; a's comes with its own place.
        let place = is_in(&mut another).unwrap();
        assert!(is_in(&mut more).is_none());
        running.pop();
        assert!(is_in(&mut more).is_none());
        drop(place);
        assert!(is_in(&mut more).is_some());
    }

    #[test]
    fn places_without_a_line_are_shared_out() {
        let admission = Admission::shared_out(8);
        let (a, b) = (tenant("a"), tenant("b"));
        let all: Vec<_> = (0..8).map(|_| enter(&admission, &a)).collect();
        assert!(admission.enter(&b).now_or_never().unwrap().is_err());
        drop(all);
        let some: Vec<_> = (0..4).map(|_| enter(&admission, &a)).collect();
        assert!(admission.enter(&a).now_or_never().unwrap().is_err());
        let others: Vec<_> = (0..2).map(|_| enter(&admission, &b)).collect();
        assert!(admission.enter(&b).now_or_never().unwrap().is_err());
        drop((some, others));
        assert_eq!(admission.running(), 0);
    }

    #[test]
    fn entering_and_leaving_from_many_threads_loses_no_place() {
        let admission = Admission::new(3, 1000);
        let tenants = ["a", "b", "c", "d"].map(tenant);
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (admission, tenant) = (&admission, &tenants[n % 4]);
                scope.spawn(move || {
                    for turn in 0..500 {
                        let mut entering: Entering<'_> = Box::pin(admission.enter(tenant));
                        // Some look once and go, the others wait until they are called.
                        if turn % 3 == 0 {
                            drop((&mut entering).now_or_never());
                        } else {
                            drop(futures_util::FutureExt::now_or_never(&mut entering).unwrap_or_else(|| {
                                tokio::runtime::Builder::new_current_thread()
                                    .build()
                                    .unwrap()
                                    .block_on(entering)
                            }));
                        }
                    }
                });
            }
        });
        assert_eq!((admission.running(), admission.waiting()), (0, 0));
        assert!(admission.0.lines.lock().tenants.is_empty() && admission.0.lines.lock().turns.is_empty());
    }
}
