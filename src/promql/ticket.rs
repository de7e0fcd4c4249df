//! What a query carries with it while it runs: whether anybody still waits for it, and what it has cost so far.
//!
//! Whoever asks keeps one end, the evaluation the other. The place that a query was let in to lies in its ticket, so
//! that it is free again when the last who works for the query has let go, and not before.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{QueryError, turns::Turn};

/// A query's ticket.
#[derive(Default)]
pub struct Ticket {
    canceled: AtomicBool,
    told: Notify,
    samples: AtomicU64,
    bytes: AtomicU64,
    peak_bytes: AtomicU64,
    series: AtomicU64,
    peak_samples: AtomicU64,
    kept: Mutex<Vec<Box<dyn Any + Send>>>,
    turn: Mutex<Option<Turn>>,
}

impl Ticket {
    /// Stops the query.
    pub fn cancel(&self) {
        self.canceled.store(true, Relaxed);
        self.told.notify_waiters();
    }

    /// Whether somebody stopped it.
    pub fn is_canceled(&self) -> bool {
        self.canceled.load(Relaxed)
    }

    /// Fails if somebody stopped it.
    pub fn check(&self, part: &'static str) -> Result<(), QueryError> {
        if self.is_canceled() { Err(QueryError::Canceled(part)) } else { Ok(()) }
    }

    /// Waits until somebody stops it.
    pub async fn canceled(&self) {
        loop {
            let told = self.told.notified();
            if self.is_canceled() {
                return;
            }
            told.await;
        }
    }

    /// Keeps what the query takes up, its place above all, until the last who holds the ticket lets go.
    pub fn keep(&self, place: Box<dyn Any + Send>) {
        self.kept.lock().push(place);
    }

    /// Does what is left to do for the query when it has its answer, in turn with other queries; `work` is given what tells
    /// whether somebody stopped it.
    ///
    /// It is done whether anybody waits for it or not; an error is why it could not be done.
    pub async fn in_turn<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
    ) -> Result<T, String> {
        let (ticket, turn) = (Arc::clone(self), self.turn.lock().take());
        let Some(turn) = turn else {
            let alone = tokio::task::spawn_blocking(move || work(&|| ticket.is_canceled()));
            return alone.await.map_err(|lost| lost.to_string());
        };
        let done = turn.threads().run(move || {
            turn.begin(|| ticket.is_canceled());
            work(&|| {
                turn.check(|| ticket.is_canceled());
                ticket.is_canceled()
            })
        });
        done.await
    }

    /// Gives the query's turns to whoever works for it next.
    pub(super) fn leave(&self, turn: Turn) {
        *self.turn.lock() = Some(turn);
    }

    /// Samples read so far.
    pub fn samples_read(&self) -> u64 {
        self.samples.load(Relaxed)
    }

    /// About the bytes it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// About the most bytes it held.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Relaxed)
    }

    /// Series selected so far.
    pub fn series(&self) -> u64 {
        self.series.load(Relaxed)
    }

    /// The most samples it held.
    pub fn peak_samples(&self) -> u64 {
        self.peak_samples.load(Relaxed)
    }

    /// Counts samples that were read.
    pub fn read(&self, samples: u64) {
        self.samples.fetch_add(samples, Relaxed);
    }

    /// Counts series that were selected.
    pub fn selected(&self, series: u64) {
        self.series.fetch_add(series, Relaxed);
    }

    pub(super) fn held_at_most(&self, samples: u64) {
        self.peak_samples.fetch_max(samples, Relaxed);
    }

    pub(super) fn grew(&self, bytes: u64) {
        let bytes = self.bytes.fetch_add(bytes, Relaxed).saturating_add(bytes);
        self.peak_bytes.fetch_max(bytes, Relaxed);
    }

    pub(super) fn shrank(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Relaxed);
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Ticket");
        text.field("canceled", &self.canceled).field("samples", &self.samples).field("bytes", &self.bytes);
        text.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn who_waits_for_the_end_is_told_of_it() {
        let ticket = Ticket::default();
        assert!(ticket.canceled().now_or_never().is_none());
        let mut waiting = Box::pin(ticket.canceled());
        assert!((&mut waiting).now_or_never().is_none());
        ticket.cancel();
        assert!(waiting.now_or_never().is_some() && ticket.canceled().now_or_never().is_some());
        assert_eq!(ticket.check("here").unwrap_err().to_string(), "query was canceled in here");
    }

    #[test]
    fn a_place_is_free_when_the_last_lets_go() {
        let place = Arc::new(());
        let ticket = Arc::new(Ticket::default());
        ticket.keep(Box::new(Arc::clone(&place)));
        let evaluation = Arc::clone(&ticket);
        drop(ticket);
        assert_eq!(Arc::strong_count(&place), 2);
        drop(evaluation);
        assert_eq!(Arc::strong_count(&place), 1);
    }
}
