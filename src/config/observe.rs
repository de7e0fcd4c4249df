//! What is logged, what health checks say, and whether our own metrics are kept.

use std::{path::PathBuf, time::Duration};

use serde_yaml::Value;
use tracing_subscriber::EnvFilter;

use super::{
    ByteSize,
    parse::{at_least, boolean, file, one_of, sized, tenant, text},
    reader::Reader,
};
use crate::model::TenantId;

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

/// What health checks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether we are not ready while a store that was there is lost.
    pub ready_requires_storage: bool,
}

/// Where the audit log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// The file it is appended to; none is among the log lines.
    pub file: Option<PathBuf>,
    /// When the file is put aside and a new one begun.
    pub max_bytes: ByteSize,
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

/// Reads the section `self_scrape`.
pub(super) fn self_scrape(keys: &mut Reader<'_>) -> SelfScrape {
    SelfScrape {
        enabled: keys.get("self_scrape.enabled", "true", boolean),
        interval: keys.get("self_scrape.interval", "15s", at_least(Duration::from_secs(1))),
        tenant: keys.get("self_scrape.tenant", "anonymous", tenant),
    }
}

/// Reads the section `health`.
pub(super) fn health(keys: &mut Reader<'_>) -> Health {
    Health { ready_requires_storage: keys.get("health.ready_requires_storage", "false", boolean) }
}

/// Reads the section `audit`.
pub(super) fn audit(keys: &mut Reader<'_>) -> Audit {
    Audit {
        file: keys.get("audit.file", "\"\"", file),
        max_bytes: keys.get("audit.max_bytes", "100MiB", sized(ByteSize(64 << 10), ByteSize(1 << 40))),
    }
}

/// Reads the section `log`.
pub(super) fn log(keys: &mut Reader<'_>) -> Log {
    Log {
        level: keys.get("log.level", "info", log_level),
        format: keys.get(
            "log.format",
            "auto",
            one_of(&[("auto", LogFormat::Auto), ("json", LogFormat::Json), ("console", LogFormat::Console)]),
        ),
    }
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
