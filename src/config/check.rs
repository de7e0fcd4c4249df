//! The table of keys: path, default, check.
//!
//! A default is written exactly as a person would write it, and passes the same check.

use std::{borrow::Cow, path::PathBuf, time::Duration};

use serde_yaml::Value;
use tracing_subscriber::EnvFilter;

use super::{
    Auth, AuthMode, Backend, Batch, ByteSize, ClickHouse, ClickHouseTls, Config, ConfigErrors, Embedded,
    Feature, Limits, Log, LogFormat, OnConflict, Password, Pushdown, Query, SelfScrape, Server, ServerLimits,
    Settings, Shutdown, Sources, Storage, TenantLimits, WalSync, address,
    reader::Reader,
    value::{parse_duration, parse_listen},
};
use crate::model::{Millis, TenantId};

impl Config {
    /// Checks what was written, and fills in the defaults; or tells all that is wrong.
    pub fn check(sources: &Sources) -> Result<(Self, Settings), ConfigErrors> {
        let mut keys =
            Reader::new(&sources.file.name, &sources.file.tree, &sources.environment, &sources.flags);
        let mut config = Self {
            server: server(&mut keys),
            auth: auth(&mut keys),
            limits: Limits { defaults: tenant_limits(&mut keys) },
            storage: storage(&mut keys),
            query: query(&mut keys),
            features: keys.get("features", "[]", features),
            self_scrape: SelfScrape {
                enabled: keys.get("self_scrape.enabled", "true", boolean),
                interval: keys.get("self_scrape.interval", "15s", at_least(Duration::from_secs(1))),
                tenant: keys.get("self_scrape.tenant", "anonymous", tenant),
            },
            log: Log {
                level: keys.get("log.level", "info", log_level),
                format: keys.get(
                    "log.format",
                    "auto",
                    one_of(&[
                        ("auto", LogFormat::Auto),
                        ("json", LogFormat::Json),
                        ("console", LogFormat::Console),
                    ]),
                ),
            },
        };
        refuse_open_door(&config, &mut keys);
        refuse_narrow_budget(&config, &mut keys);
        match config.storage.backend {
            Backend::Embedded => refuse_tenant_retention(&config, &mut keys),
            Backend::ClickHouse => {
                refuse_what_takes_state(&config, &mut keys);
                refuse_lame_clickhouse(&config.storage.clickhouse, &mut keys);
                scrape_for_a_named_tenant(&mut config.self_scrape, &mut keys);
            }
        }
        let settings = keys.finish(absent)?;
        Ok((config, Settings(settings)))
    }
}

fn server(keys: &mut Reader<'_>) -> Server {
    let size = |bytes| sized(ByteSize(1), ByteSize(bytes));
    Server {
        listen: keys.get("server.listen", "127.0.0.1:8080", |v| parse_listen(text(v)?)),
        cors_origins: keys.get("server.cors_origins", "[]", |v| list(v)?.into_iter().map(origin).collect()),
        allowed_hosts: keys.get("server.allowed_hosts", "[]", |v| list(v)?.into_iter().map(host).collect()),
        limits: ServerLimits {
            max_connections: keys.get("server.limits.max_connections", "4096", count(1, 1_000_000)),
            max_body_bytes: keys.get("server.limits.max_body_bytes", "32MiB", size(1 << 30)),
            max_decompressed_bytes: keys.get("server.limits.max_decompressed_bytes", "32MiB", size(1 << 30)),
            max_header_bytes: keys.get(
                "server.limits.max_header_bytes",
                "64KiB",
                // hyper's own buffer holds no less.
                sized(ByteSize(8 << 10), ByteSize(16 << 20)),
            ),
            header_timeout: keys.get("server.limits.header_timeout", "10s", positive),
            body_timeout: keys.get("server.limits.body_timeout", "30s", positive),
            idle_timeout: keys.get("server.limits.idle_timeout", "2m", positive),
            max_in_flight_bytes: keys.get("server.limits.max_in_flight_bytes", "256MiB", size(1 << 40)),
        },
        shutdown: Shutdown {
            grace: keys.get("server.shutdown.grace", "30s", positive),
            delay: keys.get("server.shutdown.delay", "0s", duration),
        },
    }
}

fn auth(keys: &mut Reader<'_>) -> Auth {
    Auth {
        mode: keys.get("auth.mode", "none", |v| match text(v)? {
            "none" => Ok(AuthMode::None),
            "token" => Err("token is not in this release, only none".to_owned()),
            other => Err(format!("{other:?} is not a mode, only none")),
        }),
        force_unauthenticated: keys.get("auth.force_unauthenticated", "false", boolean),
    }
}

fn tenant_limits(keys: &mut Reader<'_>) -> TenantLimits {
    TenantLimits {
        on_conflict: keys.get(
            "limits.defaults.on_conflict",
            "last",
            one_of(&[("last", OnConflict::Last), ("reject", OnConflict::Reject)]),
        ),
        out_of_order_window: keys.get("limits.defaults.out_of_order_window", "unlimited", unless_unlimited),
        creation_grace: keys.get("limits.defaults.creation_grace", "10m", unless_unlimited),
        max_label_names: keys.get("limits.defaults.max_label_names", "64", count(1, 10_000)),
        max_label_name_bytes: keys.get(
            "limits.defaults.max_label_name_bytes",
            "1KiB",
            sized(ByteSize(1), ByteSize(1 << 20)),
        ),
        max_label_value_bytes: keys.get(
            "limits.defaults.max_label_value_bytes",
            "4KiB",
            sized(ByteSize(1), ByteSize(1 << 20)),
        ),
    }
}

fn storage(keys: &mut Reader<'_>) -> Storage {
    Storage {
        backend: keys.get(
            "storage.backend",
            "embedded",
            one_of(&[("embedded", Backend::Embedded), ("clickhouse", Backend::ClickHouse)]),
        ),
        retention: keys.get("storage.retention.default", "30d", retention),
        tenant_retention: keys.get("storage.retention.tenants", "[]", |v| tenant_retention(&list(v)?)),
        embedded: Embedded {
            data_dir: keys.get("storage.embedded.data_dir", "./luminate-data", |v| match text(v)? {
                "" => Err("must name a directory".to_owned()),
                path => Ok(PathBuf::from(path)),
            }),
            wal_sync: keys.get(
                "storage.embedded.wal.sync",
                "commit",
                one_of(&[("commit", WalSync::Commit), ("interval", WalSync::Interval), ("os", WalSync::Os)]),
            ),
            wal_sync_interval: keys.get(
                "storage.embedded.wal.sync_interval",
                "100ms",
                at_least(Duration::from_millis(1)),
            ),
            ballast: keys.get("storage.embedded.ballast", "64MiB", sized(ByteSize(0), ByteSize(1 << 40))),
        },
        clickhouse: clickhouse(keys),
    }
}

fn clickhouse(keys: &mut Reader<'_>) -> ClickHouse {
    ClickHouse {
        addresses: keys.get("storage.clickhouse.addresses", "[]", |v| address::servers(&list(v)?)),
        database: keys.get("storage.clickhouse.database", "luminate", |v| database(text(v)?)),
        cluster: keys.get("storage.clickhouse.cluster", "\"\"", |v| cluster(text(v)?)),
        username: keys.get("storage.clickhouse.username", "default", |v| match text(v)? {
            "" => Err("must name a user".to_owned()),
            name => Ok(name.to_owned()),
        }),
        password: password(keys),
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

/// A password that is written, or where it is written; not both.
fn password(keys: &mut Reader<'_>) -> Option<Password> {
    let inline = keys.get_secret("storage.clickhouse.password");
    let elsewhere = keys.get("storage.clickhouse.password_file", "\"\"", file);
    match (inline, elsewhere) {
        (Some(_), Some(_)) => {
            let message = "is set, and storage.clickhouse.password too; only one of them can be the password";
            keys.refuse("storage.clickhouse.password_file", message);
            None
        }
        (Some(secret), None) => Some(Password::Inline(secret)),
        (None, path) => path.map(Password::File),
    }
}

fn query(keys: &mut Reader<'_>) -> Query {
    Query {
        lookback_delta: keys.get("query.lookback_delta", "5m", |v| positive(v).map(millis)),
        timeout: keys.get("query.timeout", "2m", positive),
        max_samples: keys.get("query.max_samples", "50000000", number(1, u64::MAX)),
        max_concurrency: keys.get("query.max_concurrency", "20", count(1, 10_000)),
        default_evaluation_interval: keys
            .get("query.default_evaluation_interval", "1m", |v| positive(v).map(millis)),
        max_points: keys.get("query.max_points", "11000", number(1, 10_000_000)),
    }
}

/// Without authentication only loopback is a door nobody else can open.
fn refuse_open_door(config: &Config, keys: &mut Reader<'_>) {
    match config.auth.mode {
        AuthMode::None if config.server.listen.ip().is_loopback() || config.auth.force_unauthenticated => {}
        AuthMode::None => keys.refuse(
            "server.listen",
            format!(
                "{} can be reached from the network, and nobody is asked who they are; \
                 listen on 127.0.0.1, or set auth.force_unauthenticated: true",
                config.server.listen
            ),
        ),
    }
}

/// A body that may be larger than all bodies together could never be taken.
fn refuse_narrow_budget(config: &Config, keys: &mut Reader<'_>) {
    let limits = config.server.limits;
    if limits.max_in_flight_bytes < limits.max_decompressed_bytes {
        keys.refuse(
            "server.limits.max_in_flight_bytes",
            format!(
                "{} is less than the {} that one request may have (server.limits.max_decompressed_bytes)",
                limits.max_in_flight_bytes, limits.max_decompressed_bytes
            ),
        );
    }
}

/// Our own engine keeps whole days, of all tenants together.
fn refuse_tenant_retention(config: &Config, keys: &mut Reader<'_>) {
    if !config.storage.tenant_retention.is_empty() {
        let message = "with the embedded backend is not in this release; one retention holds for all tenants";
        keys.refuse("storage.retention.tenants", message);
    }
}

/// Which of two samples came first only who keeps both can tell; here nobody does.
fn refuse_what_takes_state(config: &Config, keys: &mut Reader<'_>) {
    if config.limits.defaults.on_conflict != OnConflict::Last {
        let message = "on ClickHouse the greatest of two values at a time wins, whichever came first; \
                       leave it at last";
        keys.refuse("limits.defaults.on_conflict", message);
    }
}

fn refuse_lame_clickhouse(config: &ClickHouse, keys: &mut Reader<'_>) {
    if config.addresses.is_empty() && !keys.is_refused("storage.clickhouse.addresses") {
        let message = "names no server; write for example [http://clickhouse:8123]";
        keys.refuse("storage.clickhouse.addresses", message);
    }
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

/// In a store that others share, our own metrics are kept only as the data of a tenant somebody named.
fn scrape_for_a_named_tenant(scrape: &mut SelfScrape, keys: &mut Reader<'_>) {
    if !scrape.enabled || keys.is_written("self_scrape.tenant") {
        return;
    }
    if keys.is_written("self_scrape.enabled") {
        let message = "must be set: with ClickHouse, say whose data our own metrics are";
        keys.refuse("self_scrape.tenant", message);
    } else {
        scrape.enabled = false;
        keys.put("self_scrape.enabled", Value::Bool(false));
    }
}

/// Explains a key that this release does not have and a later one will.
fn absent(path: &str) -> Option<String> {
    const LATER: &[&str] = &[
        "auth.api_keys",
        "auth.jwt",
        "auth.trusted_proxies",
        "limits.hard",
        "limits.overrides_file",
        "memory",
        "redis",
        "rules",
        "server.admin_listen",
        "server.tls",
        "storage.retention.rules",
    ];
    LATER
        .iter()
        .find(|later| path.strip_prefix(**later).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
        .map(|later| format!("{later} is not in this release"))
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("takes text, not {}", kind(value)))
}

/// A quantity as it stands; a bare number is read as its digits, so that `0` can be told from `30`.
fn quantity(value: &Value) -> Result<Cow<'_, str>, String> {
    match value {
        Value::Number(number) => Ok(Cow::Owned(number.to_string())),
        Value::Null
        | Value::Bool(_)
        | Value::String(_)
        | Value::Sequence(_)
        | Value::Mapping(_)
        | Value::Tagged(_) => text(value).map(Cow::Borrowed),
    }
}

fn duration(value: &Value) -> Result<Duration, String> {
    parse_duration(&quantity(value)?)
}

/// How long to keep; none is forever.
fn retention(value: &Value) -> Result<Option<Duration>, String> {
    let kept = duration(value).map_err(|e| e.replace("30s", "30d"))?;
    if kept.is_zero() {
        Ok(None)
    } else if kept < Duration::from_secs(60) {
        Err("must be at least 1m, or 0 to keep samples forever".to_owned())
    } else {
        Ok(Some(kept))
    }
}

/// `tenant=duration` each, no tenant twice.
fn tenant_retention(items: &[String]) -> Result<Vec<(TenantId, Option<Duration>)>, String> {
    let mut all: Vec<(TenantId, Option<Duration>)> = Vec::new();
    for item in items {
        let (name, kept) = item
            .rsplit_once('=')
            .ok_or_else(|| format!("{item:?} is not tenant=duration, write for example team-a=90d"))?;
        let tenant = TenantId::new(name.trim()).map_err(|e| e.to_string())?;
        if all.iter().any(|(other, _)| *other == tenant) {
            return Err(format!("names {tenant} twice"));
        }
        all.push((tenant, retention(&Value::String(kept.trim().to_owned()))?));
    }
    Ok(all)
}

fn positive(value: &Value) -> Result<Duration, String> {
    at_least(Duration::from_millis(1))(value)
}

fn at_least(least: Duration) -> impl Fn(&Value) -> Result<Duration, String> {
    move |value| match duration(value)? {
        short if short < least && least > Duration::from_millis(1) => {
            Err(format!("must be at least {}", super::value::format_duration(least)))
        }
        zero if zero.is_zero() => Err("must be more than 0".to_owned()),
        long => Ok(long),
    }
}

/// A duration, or `unlimited` for none.
fn unless_unlimited(value: &Value) -> Result<Option<Millis>, String> {
    if value.as_str() == Some("unlimited") {
        return Ok(None);
    }
    duration(value).map(millis).map(Some).map_err(|e| format!("{e}, or unlimited"))
}

fn millis(duration: Duration) -> Millis {
    Millis(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

fn sized(least: ByteSize, most: ByteSize) -> impl Fn(&Value) -> Result<ByteSize, String> {
    move |value| {
        let size = ByteSize::parse(&quantity(value)?)?;
        if least <= size && size <= most {
            Ok(size)
        } else {
            Err(format!("{size} is not from {least} to {most}"))
        }
    }
}

fn number(least: u64, most: u64) -> impl Fn(&Value) -> Result<u64, String> {
    move |value| {
        let number = match value {
            Value::Number(number) => number.as_u64(),
            Value::String(digits) => digits.parse().ok(),
            Value::Null | Value::Bool(_) | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
        };
        match number {
            Some(number) if least <= number && number <= most => Ok(number),
            Some(_) | None if most == u64::MAX => Err(format!("takes a whole number from {least}")),
            Some(_) | None => Err(format!("takes a whole number from {least} to {most}")),
        }
    }
}

fn count(least: u32, most: u32) -> impl Fn(&Value) -> Result<usize, String> {
    let number = number(u64::from(least), u64::from(most));
    move |value| number(value).map(|n| usize::try_from(n).unwrap_or(usize::MAX))
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

fn boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(yes) => Ok(*yes),
        Value::String(word) if word == "true" => Ok(true),
        Value::String(word) if word == "false" => Ok(false),
        Value::Null
        | Value::Number(_)
        | Value::String(_)
        | Value::Sequence(_)
        | Value::Mapping(_)
        | Value::Tagged(_) => Err("takes true or false".to_owned()),
    }
}

fn one_of<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let word = text(value)?;
        words.iter().find(|(name, _)| *name == word).map(|(_, meaning)| *meaning).ok_or_else(|| {
            let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
            format!("{word:?} is not one of {}", names.join(", "))
        })
    }
}

/// A list of texts; from a flag or a variable, one text with commas.
fn list(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Sequence(items) => items.iter().map(|item| text(item).map(str::to_owned)).collect(),
        Value::String(items) => {
            Ok(items.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Mapping(_) | Value::Tagged(_) => {
            Err(format!("takes a list, not {}", kind(value)))
        }
    }
}

fn features(value: &Value) -> Result<Vec<Feature>, String> {
    let named = |name: String| {
        Feature::ALL.into_iter().find(|f| f.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Feature::ALL.iter().map(|f| f.name()).collect();
            format!("{name:?} is not a feature of this release; there are {}", names.join(", "))
        })
    };
    list(value)?.into_iter().map(named).collect()
}

/// `scheme://host` with an optional port, or `*`.
fn origin(text: String) -> Result<String, String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', ' ']) => Ok(text),
        Some(_) | None if text == "*" => Ok(text),
        Some(_) | None => {
            Err(format!("{text:?} is not an origin, write for example https://grafana.example.com"))
        }
    }
}

/// A host name without scheme, port or path.
fn host(text: String) -> Result<String, String> {
    let bracketed = text.starts_with('[') && text.ends_with(']');
    if text.is_empty() || text.contains(['/', ' ', '@']) || (text.contains(':') && !bracketed) {
        return Err(format!("{text:?} is not a host name, write for example metrics.example.com"));
    }
    Ok(text.to_ascii_lowercase())
}

/// The name of a file, or nothing.
fn file(value: &Value) -> Result<Option<PathBuf>, String> {
    Ok(Some(text(value)?).filter(|path| !path.is_empty()).map(PathBuf::from))
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

fn tenant(value: &Value) -> Result<TenantId, String> {
    TenantId::new(text(value)?).map_err(|e| e.to_string())
}

fn log_level(value: &Value) -> Result<String, String> {
    let level = text(value)?;
    if level.is_empty() {
        return Err("must be error, warn, info, debug or trace".to_owned());
    }
    // A bare word that is no level would be taken as a module's name and silence everything else.
    let words = || level.split(',').filter(|d| !d.contains(['=', '[']));
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    if let Some(word) = words().find(|w| !levels.contains(&w.to_ascii_lowercase().as_str())) {
        return Err(format!("{word:?} is not one of error, warn, info, debug, trace"));
    }
    EnvFilter::builder().parse(level).map_err(|e| e.to_string())?;
    Ok(level.to_owned())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a section",
        Value::Tagged(_) => "a tagged value",
    }
}
