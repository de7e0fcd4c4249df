//! What queries have cost: figures, the log of slow ones, and the most expensive of late.

use std::{
    cmp::Reverse,
    collections::HashMap,
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::{QueryFailure, active::ActiveQuery};
use crate::{
    model::{Timestamp, time::Millis},
    promql::QueryError,
    storage::{View, latency::Latencies},
};

/// How much of a slow query's text is logged, and of an expensive one's kept.
const KEPT_TEXT: usize = 1024;

/// Expensive queries kept of those who may see the same.
const KEPT_QUERIES: usize = 64;

/// Views whose expensive queries are kept.
const KEPT_VIEWS: usize = 512;

/// What became of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has an answer.
    Answered,
    /// It is wrong, or cannot be evaluated.
    Failed,
    /// A limit was in the way.
    Limited,
    /// There was no place for it.
    Refused,
    /// Its time was over.
    TimedOut,
    /// Somebody ended it.
    Canceled,
    /// Its caller left.
    Abandoned,
}

impl Outcome {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::Answered,
        Self::Failed,
        Self::Limited,
        Self::Refused,
        Self::TimedOut,
        Self::Canceled,
        Self::Abandoned,
    ];

    /// The name in logs and figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Limited => "limited",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Canceled => "canceled",
            Self::Abandoned => "abandoned",
        }
    }

    pub(super) fn of(failure: &QueryFailure) -> Self {
        match failure {
            QueryFailure::Overloaded { .. } | QueryFailure::Exporting { .. } => Self::Refused,
            QueryFailure::OverLimit(_)
            | QueryFailure::Query(
                QueryError::OverLimit(_) | QueryError::TooManySamples | QueryError::Memory { .. },
            ) => Self::Limited,
            QueryFailure::Query(QueryError::Timeout(_)) => Self::TimedOut,
            QueryFailure::Query(QueryError::Canceled(_)) => Self::Canceled,
            QueryFailure::Parameter { .. }
            | QueryFailure::Request(_)
            | QueryFailure::Storage(_)
            | QueryFailure::Query(
                QueryError::Parse(_)
                | QueryError::BadData(_)
                | QueryError::Execution(_)
                | QueryError::Storage(_),
            ) => Self::Failed,
        }
    }
}

/// Figures of all queries.
#[derive(Debug, Default)]
pub struct QueryCounters {
    /// How long they took, waiting included.
    pub durations: Latencies,
    /// How long they waited for a place.
    pub waits: Latencies,
    /// Samples read.
    pub samples_read: AtomicU64,
    /// Series selected.
    pub series: AtomicU64,
    /// Those that took longer than is normal.
    pub slow: AtomicU64,
    outcomes: [AtomicU64; Outcome::ALL.len()],
}

impl QueryCounters {
    /// How many ended in some way.
    pub fn ended(&self, outcome: Outcome) -> &AtomicU64 {
        &self.outcomes[outcome as usize]
    }
}

/// What a text has cost of late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expensive {
    /// The PromQL, as much of it as is kept.
    pub text: String,
    /// Times it was asked.
    pub count: u64,
    /// How long that took, together.
    pub total: Duration,
    /// How long it took at most.
    pub longest: Duration,
    /// Samples read, together.
    pub samples: u64,
    /// The most bytes held.
    pub peak_bytes: u64,
    /// When it was asked the last time.
    pub last: Timestamp,
}

/// What to order expensive queries by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// How long they took, together.
    #[default]
    Duration,
    /// Samples read, together.
    Samples,
    /// Times asked.
    Count,
}

/// Writes down what queries cost.
pub struct Journal {
    slow: Option<Duration>,
    /// The figures.
    pub counters: QueryCounters,
    expensive: Mutex<HashMap<u128, Vec<Expensive>, RandomState>>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("slow", &self.slow).finish_non_exhaustive()
    }
}

impl Journal {
    /// Logs what takes longer than `slow`, if that is wanted.
    pub fn new(slow: Option<Duration>) -> Self {
        Self { slow, counters: QueryCounters::default(), expensive: Mutex::default() }
    }

    /// The most expensive queries that were asked with a view.
    pub fn expensive(&self, view: &View, by: By, most: usize) -> Vec<Expensive> {
        let mut found = self.expensive.lock().get(&view.as_granted().digest()).cloned().unwrap_or_default();
        match by {
            By::Duration => found.sort_by_key(|query| Reverse(query.total)),
            By::Samples => found.sort_by_key(|query| Reverse(query.samples)),
            By::Count => found.sort_by_key(|query| Reverse(query.count)),
        }
        found.truncate(most);
        found
    }

    pub(super) fn queued(&self, waited: Duration) {
        self.counters.waits.record(waited);
    }

    pub(super) fn record(
        &self,
        query: &ActiveQuery,
        took: Duration,
        queued: Duration,
        cache: Option<&'static str>,
        outcome: Outcome,
    ) {
        let ticket = query.ticket();
        let c = &self.counters;
        c.durations.record(took);
        c.samples_read.fetch_add(ticket.samples_read(), Relaxed);
        c.series.fetch_add(ticket.series(), Relaxed);
        c.ended(outcome).fetch_add(1, Relaxed);
        self.keep(query, took);
        if self.slow.is_none_or(|bound| took < bound) {
            return;
        }
        c.slow.fetch_add(1, Relaxed);
        let Millis(step) = query.asked.step;
        tracing::warn!(
            event = "slow_query",
            tenant = %Tenants(&query.view),
            query = kept(&query.text),
            start = query.asked.start.0,
            end = query.asked.end.0,
            step_ms = step,
            duration_ms = millis(took),
            queued_ms = millis(queued),
            samples_read = ticket.samples_read(),
            series = ticket.series(),
            peak_samples = ticket.peak_samples(),
            peak_bytes = ticket.peak_bytes(),
            cache,
            who = query.origin.who,
            dashboard = query.origin.dashboard,
            panel = query.origin.panel,
            request_id = query.origin.request_id,
            outcome = outcome.as_str(),
        );
    }

    /// Keeps what is expensive: where there is no room, the cheapest goes, and who comes has at least what it had, so that
    /// many that are cheap do not drive out one that is dear.
    fn keep(&self, query: &ActiveQuery, took: Duration) {
        let ticket = query.ticket();
        let text = kept(&query.text);
        let mut views = self.expensive.lock();
        let view = query.view.as_granted().digest();
        if views.len() >= KEPT_VIEWS && !views.contains_key(&view) {
            let newest = |kept: &Vec<Expensive>| kept.iter().map(|query| query.last).max();
            let oldest = views.iter().min_by_key(|(_, kept)| newest(kept)).map(|(view, _)| *view);
            oldest.and_then(|oldest| views.remove(&oldest));
        }
        let kept = views.entry(view).or_default();
        let at = kept.iter().position(|query| query.text == text);
        let at = at.unwrap_or_else(|| {
            let mut new = Expensive {
                text: text.to_owned(),
                count: 0,
                total: Duration::ZERO,
                longest: Duration::ZERO,
                samples: 0,
                peak_bytes: 0,
                last: query.since,
            };
            if kept.len() >= KEPT_QUERIES {
                let cheapest = kept.iter().enumerate().min_by_key(|(_, query)| query.total);
                let cheapest = cheapest.map_or(0, |(at, _)| at);
                new.total = kept[cheapest].total;
                kept[cheapest] = new;
                return cheapest;
            }
            kept.push(new);
            kept.len() - 1
        });
        let of = &mut kept[at];
        of.count += 1;
        of.total += took;
        of.longest = of.longest.max(took);
        of.samples += ticket.samples_read();
        of.peak_bytes = of.peak_bytes.max(ticket.peak_bytes());
        of.last = of.last.max(query.since);
    }
}

/// The tenants' names, for logs.
pub(super) struct Tenants<'v>(pub(super) &'v View);

impl fmt::Display for Tenants<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, tenant) in self.0.tenants().iter().enumerate() {
            write!(f, "{}{tenant}", if i == 0 { "" } else { "|" })?;
        }
        Ok(())
    }
}

fn kept(text: &str) -> &str {
    &text[..text.floor_char_boundary(KEPT_TEXT)]
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        clock::{Clock, HandClock},
        model::TenantId,
        query::{Asked, Origin, Reader, Running, active::ActiveQueries},
    };

    #[test]
    fn what_is_dear_stays_however_much_that_is_cheap_comes() {
        let clock = HandClock::at(Timestamp(0));
        let journal = Arc::new(Journal::new(Some(Duration::from_secs(10))));
        let queries = Arc::new(ActiveQueries::new(Arc::<HandClock>::clone(&clock) as Arc<dyn Clock>));
        let asked = Asked { start: Timestamp(0), end: Timestamp(0), step: Millis(0) };
        let ask = |tenant: &str, text: &str, took: u64| {
            let reader = Reader::of(TenantId::new(tenant).unwrap());
            let running = Running::begin(&queries, &journal, &reader, text, asked, &Origin::default());
            clock.advance(Duration::from_millis(took));
            drop(running);
        };
        ask("a", "dear", 20_000);
        ask("b", "another's", 30_000);
        (0..200).for_each(|i| ask("a", &format!("cheap{i}"), 10));
        ask("a", "dear", 5_000);
        let of = |name: &str, by: By| {
            let view = View::of(TenantId::new(name).unwrap());
            journal.expensive(&view, by, 1).into_iter().map(|q| (q.text, q.count)).collect::<Vec<_>>()
        };
        assert_eq!(of("a", By::Duration), [("dear".to_owned(), 2)]);
        assert_eq!(of("a", By::Count), [("dear".to_owned(), 2)]);
        assert_eq!(of("b", By::Samples), [("another's".to_owned(), 1)]);
        assert_eq!(of("c", By::Duration), []);
        let view = View::of(TenantId::new("a").unwrap());
        assert_eq!(journal.expensive(&view, By::Duration, 1_000).len(), KEPT_QUERIES);
        // Two took longer than ten seconds.
        assert_eq!(journal.counters.slow.load(Relaxed), 2);
        assert_eq!(journal.counters.ended(Outcome::Abandoned).load(Relaxed), 203);
    }
}
