//! Places for queries: a bounded number run, a bounded number wait, the rest are told to come back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::QueryFailure;

/// When a refused query should try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Gives out places, first come first served.
#[derive(Debug)]
pub struct Admission {
    places: Arc<Semaphore>,
    max_running: usize,
    waiting: AtomicUsize,
    max_waiting: usize,
}

/// A place; dropping it lets the next query in.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Admission {
    /// At least one query runs, whatever `max_running` says.
    pub fn new(max_running: usize, max_waiting: usize) -> Self {
        let max_running = max_running.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(max_running)),
            max_running,
            waiting: AtomicUsize::new(0),
            max_waiting,
        }
    }

    /// Waits for a place. Refuses at once when the line is full; dropping the call leaves the line.
    pub async fn enter(&self) -> Result<Place, QueryFailure> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(Place(place));
        }
        let _in_line = InLine::join(self)?;
        let place = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .expect("the semaphore lives as long as the service and is never closed");
        Ok(Place(place))
    }

    /// Places taken.
    pub fn running(&self) -> usize {
        self.max_running.saturating_sub(self.places.available_permits())
    }

    /// Queries in line.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// A place in the line, given up when dropped.
#[derive(Debug)]
struct InLine<'a>(&'a AtomicUsize);

impl<'a> InLine<'a> {
    fn join(admission: &'a Admission) -> Result<Self, QueryFailure> {
        let limit = admission.max_waiting;
        let joined = admission.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
            (waiting < limit).then_some(waiting + 1)
        });
        match joined {
            Ok(_) => Ok(Self(&admission.waiting)),
            Err(waiting) => Err(QueryFailure::Overloaded { waiting, limit, retry_after: RETRY_AFTER }),
        }
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_runs_one_waits_and_the_next_is_refused() {
        let admission = Admission::new(1, 1);
        let first = admission.enter().await.unwrap();
        assert_eq!((admission.running(), admission.waiting()), (1, 0));

        let mut second = Box::pin(admission.enter());
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(admission.waiting(), 1);

        let refused = admission.enter().await.unwrap_err();
        assert!(matches!(refused, QueryFailure::Overloaded { waiting: 1, limit: 1, .. }), "{refused}");

        drop(first);
        let _second = second.await.unwrap();
        assert_eq!((admission.running(), admission.waiting()), (1, 0));
    }

    #[tokio::test]
    async fn who_leaves_the_line_makes_room_in_it() {
        let admission = Admission::new(1, 1);
        let _first = admission.enter().await.unwrap();
        {
            let mut gone = Box::pin(admission.enter());
            assert!((&mut gone).now_or_never().is_none());
        }
        assert_eq!(admission.waiting(), 0);
    }

    #[test]
    fn a_service_without_places_would_answer_nothing_so_it_has_one() {
        assert_eq!(Admission::new(0, 0).max_running, 1);
    }
}
