//! How a ClickHouse store is set up.

use std::{path::PathBuf, time::Duration};

pub use crate::model::Secret;
use crate::model::TenantId;

/// How a ClickHouse store is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClickHouseConfig {
    /// Where the servers are: `http://host:8123` or `https://host:8443`.
    pub addresses: Vec<String>,
    /// The database that holds the tables.
    pub database: String,
    /// The name of the cluster, if the tables are replicated or sharded.
    pub cluster: Option<String>,
    /// Who we are to the servers.
    pub username: String,
    /// The password, if there is one.
    pub password: Option<Secret>,
    /// How the servers' certificates are checked, and what we show them.
    pub tls: TlsConfig,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long a read may take.
    pub query_timeout: Duration,
    /// How long an append may take, with its waiting, its inserts and their retries.
    pub insert_timeout: Duration,
    /// On how many replicas an insert is before it is acknowledged (`insert_quorum`): a number, or `auto`.
    pub insert_quorum: String,
    /// Idle connections kept to each server.
    pub max_idle_connections: usize,
    /// Whether what is sent and received is compressed.
    pub compression: bool,
    /// What the servers may compute for us.
    pub pushdown: Pushdown,
    /// How rows become inserts.
    pub batch: BatchConfig,
    /// Bounds on what one query may take on a server.
    pub server_limits: ServerLimits,
    /// Bytes that the labels which one look-up keeps here may take; more is refused.
    pub lookup_memory: usize,
    /// Samples older than this are refused and hidden; none keeps them for ever.
    pub retention: Option<Duration>,
    /// Tenants with a retention of their own.
    pub tenant_retention: Vec<(TenantId, Option<Duration>)>,
    /// Whether closed windows are rolled up, and long ranges read from them.
    pub rollups: bool,
    /// Where the ids of statements and their delays start; another one in each process.
    pub seed: u64,
}

/// How the servers' certificates are checked, and what we show them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Our certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

/// What the servers may compute for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushdown {
    /// Nothing: samples are read and computed with here.
    Off,
    /// What is proven to give the same answer, where it pays.
    Auto,
    /// What is proven to give the same answer, whether it pays or not.
    Exact,
    /// Everything that can be.
    Force,
}

/// How rows become inserts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// Rows of an insert, at most.
    pub rows: usize,
    /// Bytes of an insert, at most, before compression.
    pub bytes: usize,
    /// How long rows may wait for others.
    pub linger: Duration,
    /// Inserts into one table at a time.
    pub in_flight: usize,
    /// Bytes that may wait to be inserted; more is refused.
    pub queue_bytes: usize,
}

/// Bounds on what one query may take on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Bytes of memory (`max_memory_usage`).
    pub memory_bytes: u64,
    /// Threads (`max_threads`).
    pub threads: usize,
}

impl ClickHouseConfig {
    /// The defaults, at an address.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            addresses: vec![address.into()],
            database: "luminate".to_owned(),
            cluster: None,
            username: "default".to_owned(),
            password: None,
            tls: TlsConfig::default(),
            connect_timeout: Duration::from_secs(2),
            query_timeout: Duration::from_secs(120),
            insert_timeout: Duration::from_secs(25),
            insert_quorum: "1".to_owned(),
            max_idle_connections: 32,
            compression: true,
            pushdown: Pushdown::Auto,
            batch: BatchConfig {
                rows: 200_000,
                bytes: 16 << 20,
                linger: Duration::from_millis(50),
                in_flight: 2,
                queue_bytes: 128 << 20,
            },
            server_limits: ServerLimits { memory_bytes: 4 << 30, threads: 8 },
            lookup_memory: 512 << 20,
            retention: Some(Duration::from_secs(30 * 86_400)),
            tenant_retention: Vec::new(),
            rollups: false,
            seed: 0,
        }
    }
}
