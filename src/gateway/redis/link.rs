//! The connection that all calls share, and the keeper that renews it.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinHandle,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    breaker::{Breaker, LinkState},
    connect::{Connection, Connector, RedisConfig, RedisConfigError},
    memory::RedisMemory,
};
use crate::{
    clock::Clock,
    storage::{Check, CheckState},
    task,
};

/// Calls that wait for Redis at a time. One more does without it: a queue would only make all of them late.
const MAX_CALLS: usize = 4096;

/// How often Redis is asked for its memory, and how long it may take to tell.
const LOOK_EVERY: Duration = Duration::from_secs(15);
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// Why a call was not answered.
#[derive(Debug, thiserror::Error)]
pub enum RedisFailure {
    /// Redis is left alone now.
    #[error("redis is away")]
    Away,
    /// Too many calls wait already.
    #[error("too many calls wait for redis")]
    Busy,
    /// There was no answer in time.
    #[error("redis did not answer within {0:?}")]
    Late(Duration),
    /// Redis has not got the script.
    #[error("redis has not got the script")]
    NoScript,
    /// Redis, or the way to it, said no.
    #[error("redis failed: {0}")]
    Failed(#[source] RedisError),
    /// It answered something that we do not understand.
    #[error("redis gave an answer that is not understood")]
    Garbled,
}

/// What a link counts of itself.
#[derive(Debug, Default)]
pub struct RedisCounters {
    /// Calls made.
    pub calls: AtomicU64,
    /// Of these, how many failed, being late included.
    pub errors: AtomicU64,
    /// Of these, how many were late.
    pub late: AtomicU64,
    /// Calls not made, because Redis was away or too many were waiting.
    pub skipped: AtomicU64,
    /// How long calls took, altogether.
    pub micros: AtomicU64,
    /// Connections made.
    pub connections: AtomicU64,
    /// How often Redis went away.
    pub lost: AtomicU64,
}

/// The link to a Redis.
#[derive(Debug)]
pub struct RedisLink {
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    connector: Connector,
    clock: Arc<dyn Clock>,
    prefix: String,
    is_cluster: bool,
    breaker: Mutex<Breaker>,
    /// There is one exactly while the breaker is closed.
    connection: ArcSwapOption<Connection>,
    /// Rung when it is closed no more.
    opened: Notify,
    /// Whether it was said that Redis is away.
    away: AtomicBool,
    /// Why Redis is away, or was last.
    reason: Mutex<String>,
    /// What Redis last said of its memory; none if it is away, or will not say.
    memory: Mutex<Option<RedisMemory>>,
    places: Semaphore,
    counters: RedisCounters,
    seed: u64,
}

impl RedisLink {
    /// Begins to connect, in the background.
    pub fn start(config: &RedisConfig, clock: Arc<dyn Clock>) -> Result<Arc<Self>, RedisConfigError> {
        let shared = Arc::new(Shared {
            connector: Connector::new(config)?,
            clock,
            prefix: config.prefix.clone(),
            is_cluster: config.cluster,
            breaker: Mutex::new(Breaker::new(config.breaker)),
            connection: ArcSwapOption::empty(),
            opened: Notify::new(),
            away: AtomicBool::new(false),
            reason: Mutex::new("not connected yet".to_owned()),
            memory: Mutex::new(None),
            places: Semaphore::new(MAX_CALLS),
            counters: RedisCounters::default(),
            seed: config.seed,
        });
        let keeper = task::spawn("redis", Arc::clone(&shared).keep());
        Ok(Arc::new(Self { shared, keeper }))
    }

    /// What the names of our keys begin with.
    pub fn prefix(&self) -> &str {
        &self.shared.prefix
    }

    /// Whether it is to a cluster, of which a part may be away.
    pub fn is_cluster(&self) -> bool {
        self.shared.is_cluster
    }

    /// Whether Redis is asked.
    pub fn state(&self) -> LinkState {
        self.shared.breaker.lock().state()
    }

    /// What Redis last said of its memory; none if it is away, or will not say. Of the nodes of a cluster nothing is
    /// known.
    pub fn memory(&self) -> Option<RedisMemory> {
        *self.shared.memory.lock()
    }

    /// Waits until the first attempt to connect is over; if that failed, why.
    pub async fn tried(&self) -> Result<(), String> {
        loop {
            match self.state() {
                LinkState::Closed => return Ok(()),
                LinkState::Open => return Err(self.shared.reason.lock().clone()),
                LinkState::Connecting => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// What the link counts.
    pub fn counters(&self) -> &RedisCounters {
        &self.shared.counters
    }

    /// How the link is.
    pub fn check(&self) -> Check {
        let state = self.state();
        let (how, detail) = match state {
            LinkState::Closed => (CheckState::Ok, "connected, breaker closed".to_owned()),
            LinkState::Open | LinkState::Connecting => {
                let reason = self.shared.reason.lock();
                (CheckState::Degraded, format!("breaker {}: {reason}", state.as_str()))
            }
        };
        Check { name: "redis".to_owned(), state: how, detail }
    }

    /// Sends a command, and waits for the answer no longer than `patience`.
    pub async fn call(&self, command: &Cmd, patience: Duration) -> Result<Value, RedisFailure> {
        let shared = &*self.shared;
        let skipped = |failure| {
            shared.counters.skipped.fetch_add(1, Relaxed);
            Err(failure)
        };
        let Some(connection) = shared.connection.load_full() else {
            return skipped(RedisFailure::Away);
        };
        let Ok(_place) = shared.places.try_acquire() else {
            return skipped(RedisFailure::Busy);
        };
        shared.counters.calls.fetch_add(1, Relaxed);
        let began = shared.clock.elapsed();
        let answer = tokio::time::timeout(patience, connection.run(command)).await;
        let took = shared.clock.elapsed().saturating_sub(began);
        shared.counters.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        let failure = match answer {
            Ok(Ok(value)) => {
                shared.breaker.lock().answered();
                return Ok(value);
            }
            Ok(Err(error)) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                shared.breaker.lock().answered();
                return Err(RedisFailure::NoScript);
            }
            Ok(Err(error)) => RedisFailure::Failed(error),
            Err(_) => {
                shared.counters.late.fetch_add(1, Relaxed);
                RedisFailure::Late(patience)
            }
        };
        shared.counters.errors.fetch_add(1, Relaxed);
        shared.failed(&connection, &failure);
        Err(failure)
    }
}

fn info_memory() -> Cmd {
    let mut ask = redis::cmd("INFO");
    ask.arg("memory");
    ask
}

impl Drop for RedisLink {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Shared {
    /// Makes a connection whenever there is none, but not more often than the breaker allows.
    async fn keep(self: Arc<Self>) {
        loop {
            match self.connector.connect().await {
                Ok(connection) => {
                    self.counters.connections.fetch_add(1, Relaxed);
                    {
                        let mut breaker = self.breaker.lock();
                        self.connection.store(Some(Arc::new(connection)));
                        breaker.connected(self.clock.elapsed());
                    }
                    self.away.store(false, Relaxed);
                    tracing::info!(event = "redis_connected");
                    tokio::select! {
                        () = self.opened.notified() => {}
                        never = self.watch_memory() => match never {},
                    }
                    *self.memory.lock() = None;
                }
                Err(error) => {
                    self.went_away(&error);
                    self.breaker.lock().not_connected(self.clock.elapsed(), self.chance());
                }
            }
            loop {
                let wait = self.breaker.lock().wait(self.clock.elapsed());
                if wait.is_zero() {
                    break;
                }
                tokio::time::sleep(wait).await;
            }
        }
    }

    /// Asks for Redis' memory as long as it is there. That it does not tell is nobody's failure.
    async fn watch_memory(&self) -> Infallible {
        let ask = info_memory();
        loop {
            let connection = self.connection.load_full().filter(|_| !self.is_cluster);
            let said = match connection {
                Some(connection) => tokio::time::timeout(LOOK_PATIENCE, connection.run(&ask)).await.ok(),
                None => None,
            };
            *self.memory.lock() = said.and_then(Result::ok).as_ref().and_then(RedisMemory::of_info);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A call over `connection` failed; one that has been given up since does not count.
    fn failed(&self, connection: &Arc<Connection>, failure: &RedisFailure) {
        let lost = matches!(failure, RedisFailure::Failed(error) if error.is_unrecoverable_error());
        let now = self.clock.elapsed();
        let mut breaker = self.breaker.lock();
        let is_current = self.connection.load().as_ref().is_some_and(|now| Arc::ptr_eq(now, connection));
        if !is_current {
            return;
        }
        let opened = if lost { breaker.lost(now, self.chance()) } else { breaker.failed(now, self.chance()) };
        if opened {
            // What still waits on it waits for itself alone, and the last of them closes it.
            self.connection.store(None);
            self.counters.lost.fetch_add(1, Relaxed);
            drop(breaker);
            self.went_away(failure);
            self.opened.notify_one();
        }
    }

    /// Remembers why Redis is away, and says so once.
    fn went_away(&self, reason: &dyn std::fmt::Display) {
        *self.reason.lock() = reason.to_string();
        if !self.away.swap(true, Relaxed) {
            let message = "until redis is back, limits hold per gateway and only remembered keys are taken";
            tracing::warn!(event = "redis_away", %reason, message);
        }
    }

    fn chance(&self) -> u64 {
        let begun =
            self.counters.calls.load(Relaxed) ^ self.counters.connections.load(Relaxed).rotate_left(32);
        xxh3_64_with_seed(&begun.to_le_bytes(), self.seed)
    }
}
