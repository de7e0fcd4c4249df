//! Every key there is, its default and its check.
//!
//! What is written has another type than what was checked: a [`ConfigFile`] is a tree somebody typed,
//! a [`Config`] can be built from. Between them stands [`Config::check`], which looks up each key in the
//! flags, the environment, the file and the defaults, in that order (`reader`), reads quantities with
//! their units ([`value`]), and reports everything that is wrong at once.
//!
//! A key is here only if it does something. Keys of later releases are refused by name, so that nobody
//! believes in a limit that is not enforced. `deployments/luminate.yaml` explains every key; a
//! test holds it against the defaults.

mod address;
mod check;
mod reader;
pub mod value;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_yaml::{Mapping, Value};

use crate::model::{Millis, Secret, TenantId};

pub use reader::{ConfigError, ConfigErrors, FlagValue, Origin, Setting};
pub use value::ByteSize;

/// A configuration that was checked: the parts can be built from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The listener and what it puts up with.
    pub server: Server,
    /// Who may come in.
    pub auth: Auth,
    /// What a tenant may send.
    pub limits: Limits,
    /// Where samples are kept, and for how long.
    pub storage: Storage,
    /// How queries are answered.
    pub query: Query,
    /// Features that are switched on by name.
    pub features: Vec<Feature>,
    /// Whether our own metrics are kept, too.
    pub self_scrape: SelfScrape,
    /// What is logged, and how.
    pub log: Log,
}

/// The listener and what it puts up with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// Origins whose pages may read our answers.
    pub cors_origins: Vec<String>,
    /// Names we answer to, beside loopback.
    pub allowed_hosts: Vec<String>,
    /// Bounds on connections and requests.
    pub limits: ServerLimits,
    /// How the server goes down.
    pub shutdown: Shutdown,
}

/// Bounds on connections and requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections open at a time.
    pub max_connections: usize,
    /// The longest body, as sent.
    pub max_body_bytes: ByteSize,
    /// The longest body of a write, decompressed.
    pub max_decompressed_bytes: ByteSize,
    /// The longest request head.
    pub max_header_bytes: ByteSize,
    /// How long the head may take to arrive.
    pub header_timeout: Duration,
    /// How long the body may take to arrive.
    pub body_timeout: Duration,
    /// How long a connection may lie idle.
    pub idle_timeout: Duration,
    /// Bytes of bodies being read, and of writes being worked on, at a time.
    pub max_in_flight_bytes: ByteSize,
}

/// How the server goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long requests may take to finish, and the store to close.
    pub grace: Duration,
    /// How long to go on serving, not ready, before the listener closes.
    pub delay: Duration,
}

/// Who may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth {
    /// How callers are told apart.
    pub mode: AuthMode,
    /// Listen on a network without authentication all the same.
    pub force_unauthenticated: bool,
}

/// How callers are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// They are not: whoever reaches the listener may do everything.
    None,
}

/// What a tenant may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of tenants without limits of their own.
    pub defaults: TenantLimits,
}

/// What one tenant may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantLimits {
    /// Other bits at a time that has a sample already.
    pub on_conflict: OnConflict,
    /// How far behind its series' newest sample one may be; none is as far as the retention.
    pub out_of_order_window: Option<Millis>,
    /// How far in the future a sample may lie; none is without bound.
    pub creation_grace: Option<Millis>,
    /// Labels of a series.
    pub max_label_names: usize,
    /// Bytes of a label's name.
    pub max_label_name_bytes: ByteSize,
    /// Bytes of a label's value.
    pub max_label_value_bytes: ByteSize,
}

/// Which of two different values at the same series and time stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// The one written last.
    Last,
    /// The one written first; the other is rejected.
    Reject,
}

/// Where samples are kept, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Which store.
    pub backend: Backend,
    /// How long samples are kept; none is forever.
    pub retention: Option<Duration>,
    /// Tenants whose samples are kept for another time; only with ClickHouse.
    pub tenant_retention: Vec<(TenantId, Option<Duration>)>,
    /// Our own engine.
    pub embedded: Embedded,
    /// A ClickHouse.
    pub clickhouse: ClickHouse,
}

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Our own engine, in this process.
    Embedded,
    /// A ClickHouse that many processes share.
    ClickHouse,
}

impl Backend {
    /// The name it goes by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::ClickHouse => "clickhouse",
        }
    }
}

/// Our own engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// The directory that holds everything.
    pub data_dir: PathBuf,
    /// When a write is on the disk.
    pub wal_sync: WalSync,
    /// How often the log is synced when writers do not wait for it.
    pub wal_sync_interval: Duration,
    /// Room kept aside, so that retention can work on a full disk.
    pub ballast: ByteSize,
}

/// When a write is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalSync {
    /// Before it is acknowledged.
    Commit,
    /// Within an interval; a power cut loses what came after the last one.
    Interval,
    /// When the operating system pleases.
    Os,
}

/// Where the servers of a ClickHouse are, and how we use them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClickHouse {
    /// `http://host:port` or `https://host:port` of each; none only with another backend.
    pub addresses: Vec<String>,
    /// The database that holds our tables.
    pub database: String,
    /// The cluster's name, if the tables are replicated or sharded.
    pub cluster: Option<String>,
    /// Who we are to the servers.
    pub username: String,
    /// Where the password is.
    pub password: Option<Password>,
    /// How the servers' certificates are checked, and what we show them.
    pub tls: ClickHouseTls,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long a read may take.
    pub query_timeout: Duration,
    /// How long an insert may take, retries included.
    pub insert_timeout: Duration,
    /// On how many replicas an insert is before it is acknowledged: a number, or `auto`.
    pub insert_quorum: String,
    /// Idle connections kept to each server.
    pub max_idle_connections: usize,
    /// Whether what is sent and received is compressed.
    pub compression: bool,
    /// What the servers may compute for us.
    pub pushdown: Pushdown,
    /// How rows become inserts.
    pub batch: Batch,
    /// Bytes of memory that one query may take on a server.
    pub server_memory: ByteSize,
    /// Threads that one query may take on a server.
    pub server_threads: usize,
    /// Bytes that the labels which one look-up of series keeps may take.
    pub lookup_memory: ByteSize,
    /// Whether long ranges are read from closed windows that were rolled up.
    pub rollups: bool,
}

/// Where a password is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// Here.
    Inline(Secret),
    /// In this file, up to a newline at its end.
    File(PathBuf),
}

/// How the servers' certificates are checked, and what we show them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClickHouseTls {
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
    /// Nothing.
    Off,
    /// What is proven to give the same answer, where it pays.
    Auto,
    /// What is proven to give the same answer, always.
    Exact,
    /// Everything that can be.
    Force,
}

/// How rows become inserts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Rows of an insert, at most.
    pub rows: usize,
    /// Bytes of an insert, at most.
    pub bytes: ByteSize,
    /// How long rows may wait for others.
    pub linger: Duration,
    /// Inserts into one table at a time.
    pub in_flight: usize,
    /// Bytes that may wait to be inserted.
    pub queue_bytes: ByteSize,
}

/// How queries are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// How far back a sample counts.
    pub lookback_delta: Millis,
    /// How long a query may take, waiting included.
    pub timeout: Duration,
    /// Samples a query may hold.
    pub max_samples: u64,
    /// Queries evaluated at a time.
    pub max_concurrency: usize,
    /// The step of a subquery that names none.
    pub default_evaluation_interval: Millis,
    /// Steps of a range query.
    pub max_points: u64,
}

/// A feature that is switched on by name; the names are Prometheus'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// A metric's name is dropped at the end of a query instead of at each function.
    DelayedNameRemoval,
    /// Start timestamps make `rate` and its kin see resets.
    UseStartTimestamps,
    /// Type and unit are labels of the series.
    TypeAndUnitLabels,
    /// Functions that may yet change.
    ExperimentalFunctions,
    /// `anchored` and `smoothed`.
    ExtendedRangeSelectors,
    /// `fill`, `fill_left` and `fill_right`.
    FillModifiers,
}

impl Feature {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::DelayedNameRemoval,
        Self::UseStartTimestamps,
        Self::TypeAndUnitLabels,
        Self::ExperimentalFunctions,
        Self::ExtendedRangeSelectors,
        Self::FillModifiers,
    ];

    /// The name it is switched on by.
    pub fn name(self) -> &'static str {
        match self {
            Self::DelayedNameRemoval => "promql-delayed-name-removal",
            Self::UseStartTimestamps => "use-start-timestamps",
            Self::TypeAndUnitLabels => "type-and-unit-labels",
            Self::ExperimentalFunctions => "promql-experimental-functions",
            Self::ExtendedRangeSelectors => "promql-extended-range-selectors",
            Self::FillModifiers => "promql-binop-fill-modifiers",
        }
    }
}

/// Whether our own metrics are kept, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfScrape {
    /// Whether they are.
    pub enabled: bool,
    /// How often.
    pub interval: Duration,
    /// As whose data.
    pub tenant: TenantId,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `error` to `trace`, or directives like `info,luminate::ingest=debug`.
    pub level: String,
    /// For whom.
    pub format: LogFormat,
}

/// For whom a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For a person if standard error is a terminal, else for a machine.
    Auto,
    /// For a machine: one JSON object a line.
    Json,
    /// For a person.
    Console,
}

/// A configuration file as it was written; nothing but its YAML was looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigFile {
    name: String,
    tree: Value,
}

impl ConfigFile {
    /// More than this is not a configuration file.
    const MAX_BYTES: u64 = 1 << 20;

    /// No file.
    pub fn none() -> Self {
        Self { name: String::new(), tree: Value::Null }
    }

    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigErrors> {
        let name = path.display().to_string();
        let size = std::fs::metadata(path).map_err(|e| about_file(&name, &e))?.len();
        if size > Self::MAX_BYTES {
            return Err(about_file(&name, &"is larger than 1MiB"));
        }
        let text = std::fs::read_to_string(path).map_err(|e| about_file(&name, &e))?;
        Self::parse(&name, &text)
    }

    /// Reads `text`, to be called `name` in messages.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigErrors> {
        let tree: Value = serde_yaml::from_str(text).map_err(|e| about_file(name, &e))?;
        match tree {
            Value::Null | Value::Mapping(_) => Ok(Self { name: name.to_owned(), tree }),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Sequence(_) | Value::Tagged(_) => {
                Err(about_file(name, &"must be a mapping of keys to values"))
            }
        }
    }
}

fn about_file(name: &str, message: &dyn fmt::Display) -> ConfigErrors {
    let origin = Origin::File(name.to_owned());
    ConfigErrors(vec![ConfigError { path: String::new(), origin, message: message.to_string() }])
}

/// All that was written, wherever.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The file.
    pub file: ConfigFile,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// The flags.
    pub flags: Vec<FlagValue>,
}

impl Sources {
    /// Nothing was written.
    pub fn none() -> Self {
        Self { file: ConfigFile::none(), environment: Vec::new(), flags: Vec::new() }
    }
}

/// The keys in effect, in the order of the file we ship.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings(Vec<Setting>);

impl Settings {
    /// Each key with its value and where that comes from.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter()
    }

    /// The settings as a configuration file that says the same.
    pub fn to_yaml(&self) -> String {
        let mut root = Mapping::new();
        for setting in &self.0 {
            let (sections, name) = setting.path.rsplit_once('.').unwrap_or(("", setting.path));
            let mut section = &mut root;
            for part in sections.split('.').filter(|part| !part.is_empty()) {
                let inner = section.entry(part.into()).or_insert_with(|| Value::Mapping(Mapping::new()));
                section = inner.as_mapping_mut().expect("no key is a section and a value at once");
            }
            section.insert(name.into(), setting.value.clone());
        }
        serde_yaml::to_string(&root).expect("text, numbers, booleans and lists are YAML")
    }
}

#[cfg(test)]
mod tests;
