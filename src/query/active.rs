//! Queries that run or wait, for whoever wants to know what goes on, or to end it.
//!
//! ```text
//! begin ─ in line ─ admitted ─ answered ─ written ─ dropped
//!         ╰─────────── in the list ──────────────╯
//! ```
//!
//! A query is in the list of the process that answers it, from when it is asked until its answer is written. A reader
//! sees the queries of the tenants they may read; one who may only see some series, those that were asked with the same
//! filters.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    QueryFailure, Reader,
    admission::Admission,
    journal::{Journal, Outcome},
};
use crate::{
    clock::Clock,
    model::{Millis, Timestamp},
    promql::{QueryError, Ticket},
    storage::View,
};

/// How much of a query's text is kept.
const KEPT_TEXT: usize = 4096;

/// How much of what a caller says of themselves is kept.
const KEPT_NAME: usize = 128;

/// Where a query comes from, as its caller says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Who asks, as they are called.
    pub who: String,
    /// The request's id.
    pub request_id: String,
    /// The dashboard that asks.
    pub dashboard: String,
    /// Its panel.
    pub panel: String,
}

/// The steps that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The first.
    pub start: Timestamp,
    /// What none lies after.
    pub end: Timestamp,
    /// The distance between them; 0 for a query of one step.
    pub step: Millis,
}

/// A query that runs or waits.
#[derive(Debug)]
pub struct ActiveQuery {
    /// What it is called; no two of a process are called alike.
    pub id: u64,
    /// What its reader may see.
    pub view: View,
    /// The PromQL, as much of it as is kept.
    pub text: String,
    /// When it is evaluated.
    pub asked: Asked,
    /// Where it comes from.
    pub origin: Origin,
    /// Since when it is here.
    pub since: Timestamp,
    began: Duration,
    runs: AtomicBool,
    ticket: Arc<Ticket>,
}

impl ActiveQuery {
    /// Whether it was let in.
    pub fn is_running(&self) -> bool {
        self.runs.load(Relaxed)
    }

    /// Ends it.
    pub fn cancel(&self) {
        self.ticket.cancel();
    }

    /// What it has cost so far.
    pub fn ticket(&self) -> &Arc<Ticket> {
        &self.ticket
    }

    /// Whether a reader may know of it.
    fn is_seen_by(&self, view: &View) -> bool {
        let may_read = self.view.tenants().iter().all(|tenant| view.tenants().contains(tenant));
        may_read && (view.granted().is_empty() || view.granted() == self.view.granted())
    }
}

/// All of them.
#[derive(Debug)]
pub struct ActiveQueries {
    clock: Arc<dyn Clock>,
    seed: u64,
    next: AtomicU64,
    all: Mutex<BTreeMap<u64, Arc<ActiveQuery>>>,
}

impl ActiveQueries {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let seed = clock.now().0.cast_unsigned();
        Self { clock, seed, next: AtomicU64::new(0), all: Mutex::default() }
    }

    /// Those that a reader may know of, or all; the one that is here longest first.
    pub fn list(&self, view: Option<&View>) -> Vec<Arc<ActiveQuery>> {
        let all = self.all.lock();
        let seen = all.values().filter(|query| view.is_none_or(|view| query.is_seen_by(view)));
        let mut seen: Vec<_> = seen.map(Arc::clone).collect();
        drop(all);
        seen.sort_by_key(|query| (query.began, query.id));
        seen
    }

    /// One of those that a reader may know of, or of all.
    pub fn find(&self, view: Option<&View>, id: u64) -> Option<Arc<ActiveQuery>> {
        let query = self.all.lock().get(&id).map(Arc::clone)?;
        view.is_none_or(|view| query.is_seen_by(view)).then_some(query)
    }

    /// How long a query is here.
    pub fn age(&self, query: &ActiveQuery) -> Duration {
        self.clock.elapsed().saturating_sub(query.began)
    }
}

/// What the cache had of a query.
#[derive(Clone, Debug, Default)]
pub(super) struct CacheNote(Arc<OnceLock<&'static str>>);

impl CacheNote {
    /// Notes it; what was noted first stays.
    pub(super) fn note(&self, state: &'static str) {
        let _ = self.0.set(state);
    }
}

/// A query on its way. When it is dropped the query ends, wherever it is.
#[derive(Debug)]
pub struct Running {
    query: Arc<ActiveQuery>,
    queries: Arc<ActiveQueries>,
    journal: Arc<Journal>,
    queued: Duration,
    cache: CacheNote,
    is_settled: bool,
}

impl Running {
    pub(super) fn begin(
        queries: &Arc<ActiveQueries>,
        journal: &Arc<Journal>,
        reader: &Reader,
        text: &str,
        asked: Asked,
        origin: &Origin,
    ) -> Self {
        let kept = |text: &str, most: usize| text[..text.floor_char_boundary(most)].to_owned();
        // Not in a row, so that nobody learns from their own how many others ask.
        let id = xxh3_64_with_seed(&queries.next.fetch_add(1, Relaxed).to_le_bytes(), queries.seed);
        let query = Arc::new(ActiveQuery {
            id,
            view: reader.view.clone(),
            text: kept(text, KEPT_TEXT),
            asked,
            origin: Origin {
                who: kept(&origin.who, KEPT_NAME),
                request_id: kept(&origin.request_id, KEPT_NAME),
                dashboard: kept(&origin.dashboard, KEPT_NAME),
                panel: kept(&origin.panel, KEPT_NAME),
            },
            since: queries.clock.now(),
            began: queries.clock.elapsed(),
            runs: AtomicBool::new(false),
            ticket: Arc::default(),
        });
        queries.all.lock().insert(id, Arc::clone(&query));
        Self {
            query,
            queries: Arc::clone(queries),
            journal: Arc::clone(journal),
            queued: Duration::ZERO,
            cache: CacheNote::default(),
            is_settled: false,
        }
    }

    /// The ticket, by which it is ended.
    pub fn ticket(&self) -> &Arc<Ticket> {
        &self.query.ticket
    }

    /// Where to note what the cache had.
    pub(super) fn cache(&self) -> CacheNote {
        self.cache.clone()
    }

    /// Waits for a place, at most so long. It is free again when nobody works for the query any more, which may be a
    /// moment after its caller left.
    pub(super) async fn enter(&mut self, admission: &Admission, most: Duration) -> Result<(), QueryFailure> {
        let ticket = Arc::clone(self.ticket());
        let in_line = tokio::time::timeout(most, admission.enter(&self.query.view.tenants()[0]));
        let place = tokio::select! {
            entered = in_line => entered.map_err(|_| QueryError::Timeout("query queue"))??,
            () = ticket.canceled() => return Err(QueryError::Canceled("query queue").into()),
        };
        ticket.keep(Box::new(place));
        self.queued = self.queries.age(&self.query);
        self.query.runs.store(true, Relaxed);
        self.journal.queued(self.queued);
        Ok(())
    }

    /// Writes down what became of it; what is said first holds.
    pub(super) fn settle(&mut self, failure: Option<&QueryFailure>) {
        if !self.is_settled {
            self.write_down(failure.map_or(Outcome::Answered, Outcome::of));
        }
    }

    fn write_down(&mut self, outcome: Outcome) {
        self.is_settled = true;
        let took = self.queries.age(&self.query);
        self.journal.record(&self.query, took, self.queued, self.cache.0.get().copied(), outcome);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_settled {
            self.write_down(Outcome::Abandoned);
        }
        self.queries.all.lock().remove(&self.query.id);
        // What still works on it may stop; an answer that was written is not touched by it.
        self.query.ticket.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::HandClock,
        model::{MatchOp, Matcher, TenantId},
    };

    fn view(tenants: &[&str], filters: &[&str]) -> View {
        let tenants = tenants.iter().map(|name| TenantId::new(name).unwrap()).collect();
        let filter = |value: &&str| vec![Matcher::new(MatchOp::Equal, "team", value).unwrap()];
        View::new(tenants, filters.iter().map(filter).collect()).unwrap()
    }

    #[test]
    fn a_reader_sees_and_ends_what_they_may_read() {
        let clock = HandClock::at(Timestamp(1_000));
        let journal = Arc::new(Journal::new(None));
        let queries = Arc::new(ActiveQueries::new(clock));
        let asked = Asked { start: Timestamp(0), end: Timestamp(0), step: Millis(0) };
        let begin = |view: View| {
            let reader = Reader { view, ..Reader::of(TenantId::anonymous()) };
            Running::begin(&queries, &journal, &reader, "up", asked, &Origin::default())
        };
        let [a, both, restricted] =
            [view(&["a"], &[]), view(&["a", "b"], &[]), view(&["a"], &["x"])].map(begin);
        let ids = |view: &View| -> Vec<u64> {
            let mut ids: Vec<u64> = queries.list(Some(view)).iter().map(|query| query.id).collect();
            ids.sort_unstable();
            ids
        };
        let of = |running: &[&Running]| -> Vec<u64> {
            let mut ids: Vec<u64> = running.iter().map(|running| running.query.id).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(ids(&view(&["a"], &[])), of(&[&a, &restricted]));
        assert_eq!(ids(&view(&["a", "b"], &[])), of(&[&a, &both, &restricted]));
        assert_eq!(ids(&view(&["a"], &["x"])), of(&[&restricted]));
        assert_eq!(ids(&view(&["a"], &["y"])), of(&[]));
        assert_eq!(ids(&view(&["b"], &[])), of(&[]));
        assert_eq!(queries.list(None).len(), 3);

        assert!(queries.find(Some(&view(&["b"], &[])), a.query.id).is_none());
        queries.find(Some(&view(&["a"], &[])), a.query.id).unwrap().cancel();
        assert!(a.ticket().is_canceled() && !both.ticket().is_canceled());
        assert!(queries.find(None, 0).is_none());
        drop((a, both, restricted));
        assert!(queries.list(None).is_empty());
    }
}
