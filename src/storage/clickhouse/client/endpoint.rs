//! One server: what is under way on it, and whether it answers.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::{
    breaker::{Breaker, BreakerState},
    counters::{ClientCounters, add},
    dice::Dice,
    failure::{Class, Failure, bound},
};
use crate::{clock::Clock, model::Timestamp, task};

/// How often an open breaker is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Statements that are being ended at a time; more are left to the closed connection.
const KILLS: usize = 8;

/// What all servers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) counters: ClientCounters,
    pub(super) dice: Dice,
    pub(super) patience: Patience,
}

/// How long we wait for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the next piece of an answer.
    pub(super) between: Duration,
    /// For an answer, before looking up.
    pub(super) look_up: Duration,
    /// For an answer, before the server is asked whether it is there.
    pub(super) suspect: Duration,
    /// For the answer to a probe.
    pub(super) probe: Duration,
}

impl Patience {
    /// Of those who look whether the servers are well, several times in a few seconds: one that hangs is
    /// given up soon enough for another to be asked.
    pub(super) fn of_looks() -> Self {
        Self {
            look_up: Duration::from_millis(250),
            suspect: Duration::from_secs(1),
            probe: Duration::from_millis(1500),
            ..Self::default()
        }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            between: Duration::from_secs(60),
            look_up: Duration::from_secs(1),
            suspect: Duration::from_secs(5),
            probe: Duration::from_secs(2),
        }
    }
}

/// One server.
pub(super) struct Endpoint {
    /// Its host and port.
    pub(super) name: String,
    /// Asks it.
    pub(super) reads: clickhouse::Client,
    /// Inserts into it: always compressed, because only a frame with a checksum is taken whole or not at all.
    pub(super) writes: clickhouse::Client,
    pub(super) shared: Arc<Shared>,
    breaker: Mutex<Breaker>,
    watcher: Mutex<Option<JoinHandle<()>>>,
    hung: AtomicBool,
    suspected: AtomicBool,
    in_flight: AtomicUsize,
    kills: AtomicUsize,
    last_failure: Mutex<Option<LastFailure>>,
}

/// How a server stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointState {
    /// Its host and port.
    pub address: String,
    /// Whether statements are sent to it.
    pub breaker: BreakerState,
    /// Statements under way on it.
    pub in_flight: usize,
    /// The last that failed.
    pub last_failure: Option<LastFailure>,
}

/// A failure that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastFailure {
    /// What kind it was.
    pub class: Class,
    /// ClickHouse's number for it.
    pub code: Option<u32>,
    /// When.
    pub at: Timestamp,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Endpoint {
    pub(super) fn new(
        name: String,
        reads: clickhouse::Client,
        writes: clickhouse::Client,
        shared: Arc<Shared>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            reads,
            writes,
            shared,
            breaker: Mutex::new(Breaker::new()),
            watcher: Mutex::new(None),
            hung: AtomicBool::new(false),
            suspected: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            kills: AtomicUsize::new(0),
            last_failure: Mutex::new(None),
        })
    }

    pub(super) fn state(&self) -> EndpointState {
        EndpointState {
            address: self.name.clone(),
            breaker: self.breaker.lock().state(),
            in_flight: self.in_flight(),
            last_failure: *self.last_failure.lock(),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Whether statements may be sent to it; if not, sees to it that somebody looks for its return.
    pub(super) fn is_open_for_us(self: &Arc<Self>) -> bool {
        let closed = self.breaker.lock().state() == BreakerState::Closed;
        if !closed {
            self.keep_watch();
        }
        closed
    }

    /// Waits for what it was asked, as long as it is not found to take connections and answer nobody.
    pub(super) async fn unless_hung<T>(
        self: &Arc<Self>,
        asked: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let Patience { look_up, suspect, .. } = self.shared.patience;
        let mut asked = std::pin::pin!(asked);
        let mut waited = Duration::ZERO;
        loop {
            if let Ok(answer) = tokio::time::timeout(look_up, &mut asked).await {
                return Ok(answer);
            }
            waited += look_up;
            if self.hung.load(Relaxed) {
                let silent = format!("no answer came within {} s, nor to a probe", waited.as_secs_f64());
                return Err(Failure::new(Class::Unreachable, silent));
            }
            if waited >= suspect {
                self.suspect();
            }
        }
    }

    /// Begins a statement.
    pub(super) fn take_off(self: &Arc<Self>, kind: Kind, settings: Vec<(&'static str, String)>) -> Flight {
        self.in_flight.fetch_add(1, Relaxed);
        add(&self.shared.counters.requests, 1);
        let query_id = self.shared.dice.query_id();
        Flight { endpoint: Arc::clone(self), kind, query_id, settings, settled: false }
    }

    fn now(&self) -> Duration {
        self.shared.clock.elapsed()
    }

    fn record(self: &Arc<Self>, answered: bool) {
        let now = self.now();
        if answered {
            self.breaker.lock().answered(now);
        } else if self.breaker.lock().failed(now) {
            self.opened();
        }
    }

    fn opened(self: &Arc<Self>) {
        add(&self.shared.counters.breaker_opens, 1);
        tracing::warn!(
            event = "clickhouse_away",
            endpoint = self.name,
            "a ClickHouse server does not answer and is left alone until it does"
        );
        self.keep_watch();
    }

    /// Probes it until it answers, if nobody does.
    fn keep_watch(self: &Arc<Self>) {
        let mut watcher = self.watcher.lock();
        if watcher.as_ref().is_none_or(JoinHandle::is_finished) {
            *watcher = Some(task::spawn("clickhouse_probe", watch(Arc::downgrade(self))));
        }
    }

    /// Asks whether it answers at all, in the background, and gives it up if it does not.
    fn suspect(self: &Arc<Self>) {
        if self.suspected.swap(true, Relaxed) {
            return;
        }
        let endpoint = Arc::clone(self);
        task::spawn("clickhouse_suspect", async move {
            let silent = !endpoint.probe().await && !endpoint.probe().await;
            if silent {
                // One after the other with who closes the breaker: a closed one is not left hung.
                let opened = {
                    let mut breaker = endpoint.breaker.lock();
                    endpoint.hung.store(true, Relaxed);
                    breaker.open(endpoint.now())
                };
                if opened {
                    endpoint.opened();
                }
            }
            endpoint.suspected.store(false, Relaxed);
        });
    }

    /// Whether it answers; saying no is an answer.
    async fn probe(&self) -> bool {
        add(&self.shared.counters.probes, 1);
        let asking = self
            .reads
            .query_raw("SELECT 1")
            .with_setting("query_id", self.shared.dice.query_id())
            .with_setting("log_comment", "luminate probe")
            .execute();
        let answered = match tokio::time::timeout(self.shared.patience.probe, asking).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => Failure::of(error).is_answer(),
            Err(_) => false,
        };
        if !answered {
            add(&self.shared.counters.probe_failures, 1);
        }
        answered
    }

    /// Ends a statement that nobody waits for. Closing its connection does that as well, but only when the
    /// server has something to send, and not through a proxy.
    fn kill(self: &Arc<Self>, query_id: String) {
        // Also called while a runtime ends, when there is nobody left to do it.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        if self.kills.fetch_add(1, Relaxed) >= KILLS {
            self.kills.fetch_sub(1, Relaxed);
            return;
        }
        add(&self.shared.counters.kills, 1);
        let endpoint = Arc::clone(self);
        task::spawn("clickhouse_kill", async move {
            let ending = endpoint
                .reads
                .query_raw("KILL QUERY WHERE query_id = {id:String} ASYNC")
                .param("id", &query_id)
                .with_setting("log_comment", "luminate kill")
                .execute();
            match tokio::time::timeout(endpoint.shared.patience.probe, ending).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let cause = Failure::of(error).message;
                    tracing::debug!(event = "clickhouse_kill", endpoint = endpoint.name, query_id, cause);
                }
                Err(_) => tracing::debug!(event = "clickhouse_kill", endpoint = endpoint.name, query_id),
            }
            endpoint.kills.fetch_sub(1, Relaxed);
        });
    }
}

/// Probes a server whose breaker is open until it answers, or is not needed any more.
async fn watch(endpoint: Weak<Endpoint>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(endpoint) = endpoint.upgrade() else { return };
        if endpoint.breaker.lock().begin_probe(endpoint.now()) {
            let answered = endpoint.probe().await;
            if answered {
                tracing::info!(
                    event = "clickhouse_back",
                    endpoint = endpoint.name,
                    "a ClickHouse server answers again"
                );
            }
            let mut breaker = endpoint.breaker.lock();
            if answered {
                endpoint.hung.store(false, Relaxed);
            }
            breaker.probed(answered, endpoint.now());
        }
        // Who opens it again looks for a watcher under this lock after it has done so.
        let mut watcher = endpoint.watcher.lock();
        if endpoint.breaker.lock().state() == BreakerState::Closed {
            *watcher = None;
            return;
        }
    }
}

/// What a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Reads; it is ended when nobody waits for it.
    Read,
    /// Changes something; once begun it is left to end.
    Change,
}

/// A statement under way. Dropping it unsettled means that nobody waits for it any more.
#[derive(Debug)]
pub(super) struct Flight {
    endpoint: Arc<Endpoint>,
    kind: Kind,
    pub(super) query_id: String,
    pub(super) settings: Vec<(&'static str, String)>,
    settled: bool,
}

impl Flight {
    /// It was answered to the end.
    pub(super) fn landed(&mut self) {
        self.settled = true;
        self.endpoint.record(true);
    }

    /// It failed: counts that, writes it into the log, and gives back what to tell the caller.
    pub(super) fn failed(&mut self, failure: Failure) -> Failure {
        self.settled = true;
        let (endpoint, shared) = (&self.endpoint, &self.endpoint.shared);
        shared.counters.failed(failure.class, failure.code);
        endpoint.record(failure.is_answer());
        *endpoint.last_failure.lock() =
            Some(LastFailure { class: failure.class, code: failure.code, at: shared.clock.now() });
        if failure.timed_out && self.kind == Kind::Read {
            endpoint.kill(self.query_id.clone());
        }
        let class = failure.class.as_str();
        let (name, query_id, code) = (&endpoint.name, &self.query_id, failure.code);
        if failure.class == Class::Exhausted {
            let cause = &failure.message;
            tracing::info!(event = "clickhouse_exhausted", endpoint = name, query_id, code, class, cause);
            return self.with_bound(failure);
        }
        let cause = &failure.message;
        tracing::warn!(event = "clickhouse_failed", endpoint = name, query_id, code, class, cause);
        failure
    }

    /// Names the bound that was hit, and how high it is.
    fn with_bound(&self, failure: Failure) -> Failure {
        let (setting, text) = bound(failure.code);
        let value = self.settings.iter().rev().find(|(name, _)| Some(*name) == setting);
        let text = match value {
            Some((name, value)) => format!("{text} ({name} = {value})"),
            None => text.to_owned(),
        };
        Failure { bound: Some(text), ..failure }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Relaxed);
        if !self.settled && self.kind == Kind::Read {
            self.endpoint.kill(std::mem::take(&mut self.query_id));
        }
    }
}
