//! What is wrong with a configuration as a whole.
//!
//! Each section's file has its keys: path, default, check. A default is written exactly as a person would write it,
//! and passes the same check.

use serde_yaml::Value;

use super::{
    AuthMode, Backend, ClientAuth, Config, ConfigErrors, ProxyProtocol, SelfScrape, Server, Settings,
    Sources, auth, limits, memory, observe, query, reader::Reader, redis, remote::refuse_lame_clickhouse,
    server, storage,
};
use crate::model::OnConflict;

impl Config {
    /// Checks what was written, and fills in the defaults; or tells all that is wrong.
    pub fn check(sources: &Sources) -> Result<(Self, Settings), ConfigErrors> {
        let mut keys =
            Reader::new(&sources.file.name, &sources.file.tree, &sources.environment, &sources.flags);
        let mut config = Self {
            server: server::server(&mut keys),
            health: observe::health(&mut keys),
            auth: auth::auth(&mut keys),
            limits: limits::limits(&mut keys),
            redis: redis::redis(&mut keys),
            memory: memory::memory(&mut keys),
            storage: storage::storage(&mut keys),
            query: query::query(&mut keys),
            features: keys.get("features", "[]", query::features),
            self_scrape: observe::self_scrape(&mut keys),
            audit: observe::audit(&mut keys),
            log: observe::log(&mut keys),
        };
        refuse_open_door(&config, &mut keys);
        refuse_admin_door(&config.server, &mut keys);
        refuse_idle_keys(&config, &mut keys);
        refuse_proxies_nobody_names(&config, &mut keys);
        refuse_certificates_nobody_asks_for(&config, &mut keys);
        refuse_short_requests(&config, &mut keys);
        refuse_narrow_budget(&config, &mut keys);
        limits::refuse_small_bursts(&config.limits, config.server.limits.max_body_bytes.0, &mut keys);
        redis::refuse_lame_redis(&config.redis, &mut keys);
        match config.storage.backend {
            Backend::Embedded => {
                if config.redis.cache.is_some() {
                    let message = "with the embedded backend is of no use: nobody else has its samples; answers are \
                                   shared over storage.backend clickhouse";
                    keys.refuse("redis.cache.enabled", message);
                }
            }
            Backend::ClickHouse => {
                refuse_what_takes_state(&config, &mut keys);
                refuse_rules_for_servers(&config, &mut keys);
                refuse_lame_clickhouse(&config.storage.clickhouse, &mut keys);
                scrape_for_a_named_tenant(&mut config.self_scrape, &mut keys);
            }
        }
        let settings = keys.finish(absent)?;
        Ok((config, Settings(settings)))
    }
}

/// Without authentication only loopback is a door nobody else can open.
fn refuse_open_door(config: &Config, keys: &mut Reader<'_>) {
    let open = config.auth.force_unauthenticated || config.server.admin_open;
    match (config.auth.mode, config.server.admin_listen) {
        (AuthMode::None, Some(address)) if !address.ip().is_loopback() && !open => keys.refuse(
            "server.admin_listen",
            format!(
                "{address} can be reached from the network, and nobody is asked who they are; \
                 listen on 127.0.0.1, or set server.admin_open: true"
            ),
        ),
        (AuthMode::None | AuthMode::Token, Some(_) | None) => {}
    }
    match config.auth.mode {
        AuthMode::Token => {}
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

/// Two listeners have two addresses, and what is about the second needs it.
fn refuse_admin_door(server: &Server, keys: &mut Reader<'_>) {
    match server.admin_listen {
        Some(address) if address == server.listen && address.port() != 0 => {
            keys.refuse("server.admin_listen", format!("{address} is server.listen; it takes another port"));
        }
        Some(_) => {}
        None if server.admin_open => {
            keys.refuse("server.admin_open", "is about server.admin_listen, which is not set");
        }
        None => {}
    }
}

/// The PROXY protocol is read from trusted proxies, and from nobody else.
fn refuse_proxies_nobody_names(config: &Config, keys: &mut Reader<'_>) {
    if config.server.proxy_protocol != ProxyProtocol::Off && config.auth.trusted_proxies.is_empty() {
        keys.refuse("server.proxy_protocol", "takes auth.trusted_proxies: whose word is to be taken");
    }
}

/// A certificate is a credential where clients are asked for one, and for who they are.
fn refuse_certificates_nobody_asks_for(config: &Config, keys: &mut Reader<'_>) {
    if !config.auth.client_certificates.enabled {
        return;
    }
    let asked = config.server.tls.as_ref().is_some_and(|tls| tls.client_auth != ClientAuth::Off);
    if !asked {
        let message = "takes server.tls with client_auth: optional or required";
        keys.refuse("auth.client_certificates.enabled", message);
    }
    match config.auth.mode {
        AuthMode::None => {
            keys.refuse("auth.client_certificates.enabled", "is not looked at with auth.mode: none");
        }
        AuthMode::Token => {}
    }
}

/// A query that may take longer than a request would be cut by the wrong bound.
fn refuse_short_requests(config: &Config, keys: &mut Reader<'_>) {
    if config.server.limits.request_timeout < config.query.timeout {
        let message = "is less than query.timeout, so that queries would be cut short";
        keys.refuse("server.limits.request_timeout", message);
    }
}

/// Who configures keys believes that they are asked for.
fn refuse_idle_keys(config: &Config, keys: &mut Reader<'_>) {
    match config.auth.mode {
        AuthMode::None if config.auth.jwt.has_keys() => {
            let message =
                "is none, so that nobody is asked for the tokens that auth.jwt has keys for; set it to token";
            keys.refuse("auth.mode", message);
        }
        AuthMode::None if config.auth.api_keys.file.is_some() => {
            let message =
                "is none, so that nobody is asked for the keys in auth.api_keys.file; set it to token";
            keys.refuse("auth.mode", message);
        }
        AuthMode::None if config.redis.key_store.enabled => {
            let message = "is none, so that nobody is asked for the keys in Redis; set it to token";
            keys.refuse("auth.mode", message);
        }
        AuthMode::Token if config.redis.key_store.enabled && config.auth.api_keys.file.is_some() => {
            let message = "is set, and keys are in Redis (redis.key_store.enabled); they can be in one place";
            keys.refuse("auth.api_keys.file", message);
        }
        AuthMode::None | AuthMode::Token => {}
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

/// The servers drop rows by the retention that was written with them, which a tenant's is.
fn refuse_rules_for_servers(config: &Config, keys: &mut Reader<'_>) {
    if !config.storage.retention_rules.is_empty() {
        let message = "is only with storage.backend embedded; on ClickHouse a tenant's samples are all kept for the \
                       same time, see storage.retention.tenants";
        keys.refuse("storage.retention.rules", message);
    }
    if !config.storage.downsampling.is_empty() {
        let message = "is only with storage.backend embedded; ClickHouse keeps all samples as they are";
        keys.refuse("storage.downsampling", message);
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
    const LATER: &[&str] = &["rules"];
    LATER
        .iter()
        .find(|later| path.strip_prefix(**later).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
        .map(|later| format!("{later} is not in this release"))
}
