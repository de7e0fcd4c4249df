//! Where the servers of a ClickHouse are, and how we use them.

use std::{path::PathBuf, time::Duration};

use serde_yaml::Value;

use super::{
    ByteSize, address,
    parse::{boolean, count, duration, file, list, one_of, positive, quantity, sized, text},
    reader::Reader,
};
use crate::model::{
    Secret,
    secret::{is_placeholder, weakness_of_password},
};

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

pub(super) fn clickhouse(keys: &mut Reader<'_>) -> ClickHouse {
    ClickHouse {
        addresses: keys.get("storage.clickhouse.addresses", "[]", |v| address::servers(&list(v)?)),
        database: keys.get("storage.clickhouse.database", "luminate", |v| database(text(v)?)),
        cluster: keys.get("storage.clickhouse.cluster", "\"\"", |v| cluster(text(v)?)),
        username: keys.get("storage.clickhouse.username", "default", |v| match text(v)? {
            "" => Err("must name a user".to_owned()),
            name => Ok(name.to_owned()),
        }),
        password: keys.get_password("storage.clickhouse.password", "storage.clickhouse.password_file"),
        tls: ClickHouseTls {
            ca_file: keys.get("storage.clickhouse.tls.ca_file", "\"\"", file),
            cert_file: keys.get("storage.clickhouse.tls.cert_file", "\"\"", file),
            key_file: keys.get("storage.clickhouse.tls.key_file", "\"\"", file),
        },
        connect_timeout: keys.get("storage.clickhouse.connect_timeout", "2s", positive),
        query_timeout: keys.get("storage.clickhouse.query_timeout", "2m", positive),
        insert_timeout: keys.get("storage.clickhouse.insert_timeout", "25s", positive),
        insert_quorum: keys.get("storage.clickhouse.insert_quorum", "1", quorum),
        max_idle_connections: keys.get("storage.clickhouse.max_idle_connections", "32", count(1, 10_000)),
        compression: keys.get("storage.clickhouse.compression", "true", boolean),
        pushdown: keys.get(
            "storage.clickhouse.pushdown",
            "auto",
            one_of(&[
                ("off", Pushdown::Off),
                ("auto", Pushdown::Auto),
                ("exact", Pushdown::Exact),
                ("force", Pushdown::Force),
            ]),
        ),
        batch: Batch {
            // ClickHouse makes several blocks of more rows, which could be kept one by one.
            rows: keys.get("storage.clickhouse.batch.rows", "200000", count(1, 1_000_000)),
            bytes: keys.get(
                "storage.clickhouse.batch.bytes",
                "16MiB",
                sized(ByteSize(64 << 10), ByteSize(256 << 20)),
            ),
            linger: keys.get("storage.clickhouse.batch.linger", "50ms", duration),
            in_flight: keys.get("storage.clickhouse.batch.in_flight", "2", count(1, 64)),
            queue_bytes: keys.get(
                "storage.clickhouse.batch.queue_bytes",
                "128MiB",
                sized(ByteSize(64 << 10), ByteSize(1 << 40)),
            ),
        },
        server_memory: keys.get(
            "storage.clickhouse.server_limits.memory",
            "4GiB",
            sized(ByteSize(64 << 20), ByteSize(1 << 50)),
        ),
        server_threads: keys.get("storage.clickhouse.server_limits.threads", "8", count(1, 1024)),
        lookup_memory: keys.get(
            "storage.clickhouse.lookup_memory",
            "512MiB",
            sized(ByteSize(1 << 20), ByteSize(1 << 40)),
        ),
        rollups: keys.get("storage.clickhouse.rollups", "false", boolean),
    }
}

/// A number of replicas, or `auto` for most of them; in ClickHouse's words.
fn quorum(value: &Value) -> Result<String, String> {
    let replicas = quantity(value)?;
    if replicas == "auto" || matches!(replicas.parse(), Ok(1_u8..=16)) {
        Ok(replicas.into_owned())
    } else {
        Err("takes a number of replicas from 1 to 16, or auto for most of them".to_owned())
    }
}

/// A database's name, which stands in statements as it is.
fn database(name: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(format!("{name:?} is not a name of letters, digits and underscores"));
    }
    if ["system", "information_schema"].contains(&name.to_ascii_lowercase().as_str()) {
        return Err(format!("{name} is ClickHouse's own"));
    }
    Ok(name.to_owned())
}

/// A cluster's name, which stands in statements as it is; `{macro}` is one that each server knows.
fn cluster(name: &str) -> Result<Option<String>, String> {
    let bare = name.strip_prefix('{').and_then(|name| name.strip_suffix('}')).unwrap_or(name);
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.is_empty() {
        Ok(None)
    } else if bare.is_empty() || bare.len() > 64 || !bare.chars().all(plain) {
        Err(format!("{name:?} is not a name of letters, digits, '_', '-' and '.'"))
    } else {
        Ok(Some(name.to_owned()))
    }
}

/// What a guide leaves to be filled in, and has not been.
fn refuse_placeholders(config: &ClickHouse, keys: &mut Reader<'_>) {
    let host = |address: &str| {
        let (_, rest) = address.split_once("://").unwrap_or(("", address));
        rest.split([':', '.']).next().unwrap_or_default().to_owned()
    };
    if let Some(address) = config.addresses.iter().find(|address| is_placeholder(&host(address))) {
        let message = format!("{address:?} is a placeholder; write where your ClickHouse is");
        keys.refuse("storage.clickhouse.addresses", message);
    }
    if is_placeholder(&config.username) {
        let message = format!("{:?} is a placeholder; write who we are to ClickHouse", config.username);
        keys.refuse("storage.clickhouse.username", message);
    }
    if let Some(Password::Inline(password)) = &config.password
        && let Some(message) = weakness_of_password(&config.username, password)
    {
        keys.refuse("storage.clickhouse.password", message);
    }
}

pub(super) fn refuse_lame_clickhouse(config: &ClickHouse, keys: &mut Reader<'_>) {
    if config.addresses.is_empty() && !keys.is_refused("storage.clickhouse.addresses") {
        let message = "names no server; write for example [http://clickhouse:8123]";
        keys.refuse("storage.clickhouse.addresses", message);
    }
    refuse_placeholders(config, keys);
    let tls = &config.tls;
    let encrypted = config.addresses.iter().any(|address| address.starts_with("https://"));
    let given = [
        ("storage.clickhouse.tls.ca_file", &tls.ca_file),
        ("storage.clickhouse.tls.cert_file", &tls.cert_file),
        ("storage.clickhouse.tls.key_file", &tls.key_file),
    ];
    if !encrypted && !config.addresses.is_empty() {
        for (path, _) in given.iter().filter(|(_, file)| file.is_some()) {
            keys.refuse(path, "is set, but no address begins with https://");
        }
    }
    match (&tls.cert_file, &tls.key_file) {
        (Some(_), None) => keys.refuse("storage.clickhouse.tls.cert_file", "needs tls.key_file beside it"),
        (None, Some(_)) => keys.refuse("storage.clickhouse.tls.key_file", "needs tls.cert_file beside it"),
        (Some(_), Some(_)) | (None, None) => {}
    }
    if config.batch.queue_bytes < config.batch.bytes {
        keys.refuse(
            "storage.clickhouse.batch.queue_bytes",
            format!(
                "{} is less than the {} of one insert (storage.clickhouse.batch.bytes)",
                config.batch.queue_bytes, config.batch.bytes
            ),
        );
    }
}
