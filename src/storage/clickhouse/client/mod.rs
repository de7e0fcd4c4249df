//! The way to the servers: statements out, rows in.
//!
//! Each address is an [`endpoint`] with a [`breaker`]; a statement goes to the one that has least to do among
//! those that answer. What reads goes on to the next when nothing has come of it yet, an [`insert`] until its
//! time is over, and whatever else changes something only if the server can know nothing of it.
//!
//! Every failure is classed by what to do about it ([`failure`]) and written into the log here, with the
//! server and the id of the statement; callers are told neither.

mod breaker;
mod connect;
mod counters;
mod dice;
mod endpoint;
pub mod failure;
mod insert;
pub mod rows;
pub mod statement;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use clickhouse::Compression;
use hyper_util::{client::legacy::Client as HttpClient, rt::TokioExecutor};

use super::{
    config::{ClickHouseConfig, ServerLimits},
    tables,
};
use crate::{clock::Clock, storage::StorageError};
pub use breaker::BreakerState;
pub use counters::ClientCounters;
use counters::add;
use dice::Dice;
use endpoint::{Endpoint, Flight, Kind, Patience, Shared};
pub use endpoint::{EndpointState, LastFailure};
pub use failure::{Class, Failure};
pub use insert::{Insert, MEMORY_LIMIT};
use rows::Pace;
pub use rows::Rows;
pub use statement::{MAX_FIELD_BYTES, Param, Statement};

/// How long a connection may lie idle: less than a server keeps it (3 s by default), so that no statement is
/// sent into one that is just being closed.
const IDLE: Duration = Duration::from_secs(2);
/// How long a read that failed waits before it goes on to the next server.
const READ_AGAIN: Duration = Duration::from_millis(50);
/// How long what is neither a read nor an insert may take.
const RUN: Duration = Duration::from_secs(600);
/// When those whom no server answers are told to come again.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

/// The servers of one ClickHouse, any of which can answer.
#[derive(Debug)]
pub struct Servers {
    endpoints: Vec<Arc<Endpoint>>,
    shared: Arc<Shared>,
    turn: AtomicUsize,
    query_timeout: Duration,
    insert_timeout: Duration,
    limits: ServerLimits,
}

impl Servers {
    /// Gets ready to speak to the servers; none is asked anything yet.
    pub fn new(config: &ClickHouseConfig, clock: Arc<dyn Clock>) -> crate::storage::Result<Self> {
        Self::with_patience(config, clock, Patience::default())
    }

    /// The same for who looks whether the servers are well, and gives up sooner one that hangs if there is
    /// another to ask.
    pub fn for_looks(config: &ClickHouseConfig, clock: Arc<dyn Clock>) -> crate::storage::Result<Self> {
        let alone = config.addresses.len() == 1;
        Self::with_patience(config, clock, if alone { Patience::default() } else { Patience::of_looks() })
    }

    fn with_patience(
        config: &ClickHouseConfig,
        clock: Arc<dyn Clock>,
        patience: Patience,
    ) -> crate::storage::Result<Self> {
        if config.addresses.is_empty() {
            return Err(StorageError::Remote {
                detail: "no address of a ClickHouse server is given".to_owned(),
            });
        }
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(config.max_idle_connections)
            .build(connect::connector(config)?);
        let dice = Dice::new(config.seed, &*clock);
        let shared = Arc::new(Shared { clock, counters: ClientCounters::default(), dice, patience });
        let endpoint = |address: &String| {
            let name = connect::check(address)?;
            let client = clickhouse::Client::with_http_client(http.clone())
                .with_url(address)
                .with_database(&config.database)
                .with_user(&config.username)
                .with_product_info("luminate", env!("CARGO_PKG_VERSION"))
                .with_compression(Compression::Lz4)
                .with_validation(false);
            let client = tables::SETTINGS
                .iter()
                .fold(client, |client, (name, value)| client.with_setting(*name, *value));
            let writes = match &config.password {
                Some(password) => client.with_password(&password.0),
                None => client,
            };
            let reads = if config.compression {
                // Older servers compress answers only if they are told to.
                writes.clone().with_setting("enable_http_compression", "1")
            } else {
                writes.clone().with_compression(Compression::None)
            };
            let writes = match config.insert_quorum.as_str() {
                "1" => writes,
                quorum => writes.with_setting("insert_quorum", quorum),
            };
            Ok(Endpoint::new(name, reads, writes, Arc::clone(&shared)))
        };
        Ok(Self {
            endpoints: config.addresses.iter().map(endpoint).collect::<crate::storage::Result<_>>()?,
            shared,
            turn: AtomicUsize::new(0),
            query_timeout: config.query_timeout,
            insert_timeout: config.insert_timeout,
            limits: config.server_limits,
        })
    }

    /// Asks for rows.
    ///
    /// Goes on to another server as long as nothing has come in. Dropping the future or the rows ends the
    /// statement on the server.
    pub async fn rows(&self, statement: &Statement) -> Result<Rows, Failure> {
        statement.check()?;
        let limit = statement.timeout.unwrap_or(self.query_timeout);
        let deadline = self.shared.clock.elapsed().saturating_add(limit);
        let mut tried = Vec::new();
        loop {
            let Some((place, endpoint)) = self.pick(&tried) else { return Err(self.refuse()) };
            let failure = match self.ask(endpoint, statement, deadline, limit).await {
                Ok(rows) => return Ok(rows),
                Err(failure) => failure,
            };
            tried.push(place);
            // A connection can break just as it is used, so a single server is asked twice.
            let again = failure.class.may_pass()
                && !failure.timed_out
                && tried.len() < self.endpoints.len().max(2)
                && self.shared.clock.elapsed() < deadline;
            if !again || self.reachable() == 0 {
                return Err(self.with_retry_after(failure));
            }
            // The one that broke may be the only one, and just coming back.
            tokio::time::sleep(self.shared.dice.about(READ_AGAIN)).await;
            add(&self.shared.counters.retries, 1);
        }
    }

    /// Runs a statement that answers nothing.
    ///
    /// Once it has been sent it is not sent again: whether it was done is not known after an error.
    pub async fn run(&self, statement: &Statement) -> Result<(), Failure> {
        statement.check()?;
        let limit = statement.timeout.unwrap_or(RUN);
        let mut tried = Vec::new();
        loop {
            let Some((place, endpoint)) = self.pick(&tried) else { return Err(self.refuse()) };
            let mut flight = endpoint.take_off(Kind::Change, effective(Vec::new(), statement));
            let running = query(endpoint, statement, &flight).execute();
            let failure = match tokio::time::timeout(limit, running).await {
                Ok(Ok(())) => {
                    flight.landed();
                    return Ok(());
                }
                Ok(Err(error)) => flight.failed(Failure::of(error)),
                Err(_) => flight.failed(Failure::timed_out("the statement was not done", limit)),
            };
            tried.push(place);
            if !failure.unsent || tried.len() >= self.endpoints.len() || self.reachable() == 0 {
                return Err(self.with_retry_after(failure));
            }
            add(&self.shared.counters.retries, 1);
        }
    }

    /// How each server stands, in the order of the configuration.
    pub fn endpoints(&self) -> Vec<EndpointState> {
        self.endpoints.iter().map(|endpoint| endpoint.state()).collect()
    }

    /// What was counted.
    pub fn counters(&self) -> &ClientCounters {
        &self.shared.counters
    }

    /// Sends a question and waits for the first of the answer.
    async fn ask(
        &self,
        endpoint: &Arc<Endpoint>,
        statement: &Statement,
        deadline: Duration,
        limit: Duration,
    ) -> Result<Rows, Failure> {
        let left = deadline.saturating_sub(self.shared.clock.elapsed());
        let mut flight = endpoint.take_off(Kind::Read, effective(self.read_settings(left), statement));
        let mut cursor = match query(endpoint, statement, &flight).fetch_bytes("RowBinary") {
            Ok(cursor) => cursor,
            Err(error) => return Err(flight.failed(Failure::of(error))),
        };
        let first = match tokio::time::timeout(left.min(limit), endpoint.unless_hung(cursor.next())).await {
            Ok(Ok(first)) => first,
            Ok(Err(hung)) => return Err(flight.failed(hung)),
            Err(_) => return Err(flight.failed(Failure::timed_out("no answer came", limit))),
        };
        match first {
            Ok(first) => {
                let pace = Pace { deadline, between: self.shared.patience.between.min(limit) };
                Rows::new(cursor, first, flight, pace, Arc::clone(&self.shared))
            }
            Err(error) => Err(flight.failed(Failure::of(error))),
        }
    }

    /// What every read is bounded by on the server. Its time ends before ours, so that it can say so.
    fn read_settings(&self, left: Duration) -> Vec<(&'static str, String)> {
        vec![
            ("max_execution_time", (left * 9 / 10).as_secs().max(1).to_string()),
            ("max_memory_usage", self.limits.memory_bytes.to_string()),
            ("max_threads", self.limits.threads.to_string()),
            ("cancel_http_readonly_queries_on_client_close", "1".to_owned()),
        ]
    }

    /// The server to send to: of those that answer the least tried, then the one with least to do.
    fn pick(&self, tried: &[usize]) -> Option<(usize, &Arc<Endpoint>)> {
        let (all, turn) = (self.endpoints.len(), self.turn.fetch_add(1, Relaxed));
        let places = (0..all).map(|n| turn.wrapping_add(n) % all);
        let answering = places.map(|n| (n, &self.endpoints[n])).filter(|(_, e)| e.is_open_for_us());
        answering.min_by_key(|(place, endpoint)| {
            (tried.iter().filter(|before| *before == place).count(), endpoint.in_flight())
        })
    }

    /// How many servers are known to answer.
    fn reachable(&self) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.is_open_for_us()).count()
    }

    /// No server is known to answer.
    fn refuse(&self) -> Failure {
        add(&self.shared.counters.refused, 1);
        self.with_retry_after(Failure::new(Class::Unreachable, "no server answers, and each is being probed"))
    }

    /// Says when to come again of what may pass, spread so that not all come at once.
    fn with_retry_after(&self, failure: Failure) -> Failure {
        if !failure.class.may_pass() {
            return failure;
        }
        let retry_after = failure.retry_after.unwrap_or_else(|| {
            let (low, high) = RETRY_AFTER;
            self.shared.dice.between(low, high)
        });
        Failure { retry_after: Some(retry_after), ..failure }
    }
}

/// The settings of a statement, where its own count over `defaults`.
fn effective(
    mut defaults: Vec<(&'static str, String)>,
    statement: &Statement,
) -> Vec<(&'static str, String)> {
    defaults.retain(|(name, _)| statement.settings.iter().all(|(own, _)| own != name));
    let by_size =
        statement.size_settings().filter(|(name, _)| statement.settings.iter().all(|(own, _)| own != name));
    defaults.extend(by_size);
    defaults.extend(statement.settings.iter().cloned());
    defaults
}

/// A statement for the client crate.
fn query(endpoint: &Endpoint, statement: &Statement, flight: &Flight) -> clickhouse::query::Query {
    let comment = match statement.tenant() {
        Some(tenant) => format!("luminate tenant={tenant}"),
        None => "luminate".to_owned(),
    };
    let mut query = endpoint
        .reads
        .query_raw(&statement.sql)
        .with_setting("query_id", &flight.query_id)
        .with_setting("log_comment", comment);
    for (name, value) in &statement.params {
        query = query.param(name, value);
    }
    for (name, value) in &flight.settings {
        query = query.with_setting(*name, value);
    }
    query
}
