//! API keys, and what is asked of all credentials.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use super::{
    parse::{at_least, count, duration, file, number, positive, text},
    reader::Reader,
};

/// Where API keys are, and how long we go by what we found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The file of keys, if they are in one.
    pub file: Option<PathBuf>,
    /// How often it is looked at for changes.
    pub reload_interval: Duration,
    /// Good keys that are remembered.
    pub cache_size: NonZeroUsize,
    /// How long before they are looked up again.
    pub cache_ttl: Duration,
    /// How long they are good while they cannot be looked up.
    pub stale_ttl: Duration,
}

pub(super) fn keys(keys: &mut Reader<'_>) -> Keys {
    let cache_size = keys.get("auth.api_keys.cache_size", "1000", count(1, 1_000_000));
    Keys {
        file: keys.get("auth.api_keys.file", "\"\"", file),
        reload_interval: keys.get("auth.api_keys.reload_interval", "5s", at_least(Duration::from_secs(1))),
        cache_size: NonZeroUsize::new(cache_size).expect("it was checked to be at least 1"),
        cache_ttl: keys.get("auth.api_keys.cache_ttl", "5m", positive),
        stale_ttl: keys.get("auth.api_keys.stale_ttl", "15m", duration),
    }
}

/// Another header than `Authorization` that carries credentials.
pub(super) fn header(keys: &mut Reader<'_>) -> Option<String> {
    keys.get("auth.header", "\"\"", |value| match text(value)?.to_ascii_lowercase() {
        none if none.is_empty() => Ok(None),
        name if !is_header_name(&name) => Err(format!("{name:?} is not the name of a header")),
        name if TAKEN.contains(&name.as_str()) => {
            Err(format!("{name} means something else; write for example X-Api-Key"))
        }
        name => Ok(Some(name)),
    })
}

/// Failures of an address in a minute; 0 is without bound.
pub(super) fn max_failures(keys: &mut Reader<'_>) -> u32 {
    let failures = keys.get("auth.max_failures_per_minute", "60", number(0, 1_000_000));
    u32::try_from(failures).unwrap_or(u32::MAX)
}

/// Headers that are read for something else; the credential they would carry could end up in logs.
const TAKEN: [&str; 17] = [
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "forwarded",
    "host",
    "origin",
    "thanos-tenant",
    "transfer-encoding",
    "user-agent",
    "x-forwarded-for",
    "x-request-id",
    "x-scope-orgid",
];

fn is_header_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
