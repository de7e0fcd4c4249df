//! Who waits for what: the rows of one request may be in several inserts, and an insert has the rows of
//! many requests.
//!
//! A [`Slip`] stands for what waits, a [`Part`] of it goes with each insert's worth of rows. When all
//! parts are settled the slip is, once: with the first failure if there was one.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::storage::clickhouse::client::{Class, Failure};

/// What became of an insert.
pub(super) type Outcome = Result<(), Failure>;

/// What is done once the outcome is known.
type Then = Box<dyn FnOnce(Outcome) + Send>;

/// Something that waits until its rows are written.
pub(super) struct Slip {
    unsettled: AtomicUsize,
    failure: OnceLock<Failure>,
    then: Mutex<Option<Then>>,
    /// Whether nobody waits any more.
    gone: Option<Arc<Gone>>,
}

/// Set when the one who waits gives up.
type Gone = std::sync::atomic::AtomicBool;

/// The share in a slip that one lot of rows has. Lost unsettled, it settles as a failure.
#[derive(Debug)]
pub(super) struct Part(Option<Arc<Slip>>);

/// The end at which somebody waits. Dropping it says that nobody does.
#[derive(Debug)]
pub(super) struct Waiting {
    outcome: oneshot::Receiver<Outcome>,
    gone: Arc<Gone>,
}

impl Slip {
    /// A slip for one who waits, and its first part.
    pub(super) fn awaited() -> (Part, Waiting) {
        let (send, outcome) = oneshot::channel();
        let gone = Arc::new(Gone::new(false));
        // Who waits may have gone.
        let then = move |outcome| drop(send.send(outcome));
        let part = Self::with(Box::new(then), Some(Arc::clone(&gone)));
        (part, Waiting { outcome, gone })
    }

    /// A slip for which something is done at the end, and its first part.
    pub(super) fn then(then: impl FnOnce(Outcome) + Send + 'static) -> Part {
        Self::with(Box::new(then), None)
    }

    fn with(then: Then, gone: Option<Arc<Gone>>) -> Part {
        let (unsettled, failure) = (AtomicUsize::new(1), OnceLock::new());
        Part(Some(Arc::new(Self { unsettled, failure, then: Mutex::new(Some(then)), gone })))
    }

    fn settle_one(&self, outcome: &Outcome) {
        if let Err(failure) = outcome {
            // The first failure stays.
            let _ = self.failure.set(failure.clone());
        }
        if self.unsettled.fetch_sub(1, Ordering::AcqRel) == 1 {
            let outcome = self.failure.get().map_or(Ok(()), |failure| Err(failure.clone()));
            if let Some(then) = self.then.lock().take() {
                then(outcome);
            }
        }
    }
}

impl Part {
    /// One more part of the same slip.
    pub(super) fn another(&self) -> Self {
        if let Some(slip) = &self.0 {
            slip.unsettled.fetch_add(1, Ordering::AcqRel);
        }
        Self(self.0.as_ref().map(Arc::clone))
    }

    /// Says what became of these rows.
    pub(super) fn settle(mut self, outcome: &Outcome) {
        if let Some(slip) = self.0.take() {
            slip.settle_one(outcome);
        }
    }

    /// Whether nobody waits for these rows any more.
    pub(super) fn is_abandoned(&self) -> bool {
        let gone = self.0.as_ref().and_then(|slip| slip.gone.as_ref());
        gone.is_some_and(|gone| gone.load(Ordering::Acquire))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(slip) = self.0.take() {
            slip.settle_one(&Err(lost()));
        }
    }
}

impl Waiting {
    /// Waits for the outcome.
    pub(super) async fn outcome(&mut self) -> Outcome {
        (&mut self.outcome).await.unwrap_or_else(|_| Err(lost()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Release);
    }
}

impl fmt::Debug for Slip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slip").field("unsettled", &self.unsettled).field("failure", &self.failure).finish()
    }
}

/// What those learn whose rows were dropped on the way: the store is closing, or nobody waited.
pub(super) fn lost() -> Failure {
    Failure::new(Class::Unreachable, "the rows were not written")
}

/// What those learn who have waited long enough.
pub(super) fn late(timeout: Duration) -> Failure {
    let message = format!("ClickHouse has not acknowledged within {} seconds", timeout.as_secs());
    Failure::new(Class::Unreachable, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(message: &str) -> Failure {
        Failure::new(Class::Overloaded, message).with_code(Some(252))
    }

    #[test]
    fn a_slip_is_settled_when_all_its_parts_are() {
        let (part, mut waiting) = Slip::awaited();
        let (second, third) = (part.another(), part.another());
        part.settle(&Ok(()));
        third.settle(&Ok(()));
        assert!(waiting.outcome.try_recv().is_err());
        second.settle(&Ok(()));
        assert!(waiting.outcome.try_recv().unwrap().is_ok());
    }

    #[test]
    fn the_first_failure_is_what_is_heard() {
        let (part, mut waiting) = Slip::awaited();
        let (second, third) = (part.another(), part.another());
        second.settle(&Err(failure("first")));
        third.settle(&Err(failure("second")));
        part.settle(&Ok(()));
        assert_eq!(waiting.outcome.try_recv().unwrap().unwrap_err().message, "first");
    }

    #[test]
    fn a_lost_part_is_a_failure_and_a_lost_wait_is_seen() {
        let (part, mut waiting) = Slip::awaited();
        let second = part.another();
        part.settle(&Ok(()));
        drop(second);
        assert!(waiting.outcome.try_recv().unwrap().is_err());
        let (part, waiting) = Slip::awaited();
        assert!(!part.is_abandoned());
        drop(waiting);
        assert!(part.is_abandoned());
        part.settle(&Ok(()));
    }
}
