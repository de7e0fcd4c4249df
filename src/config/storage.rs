//! Where samples are kept, and for how long.

use std::{path::PathBuf, time::Duration};

use serde_yaml::Value;

mod downsampling;

use super::{
    ByteSize,
    parse::{at_least, duration, kind, list, one_of, sized, text},
    reader::Reader,
    remote::{ClickHouse, clickhouse},
};
use crate::model::TenantId;

/// Where samples are kept, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Which store.
    pub backend: Backend,
    /// How long samples are kept; none is forever.
    pub retention: Option<Duration>,
    /// Tenants whose samples are kept for another time.
    pub tenant_retention: Vec<(TenantId, Option<Duration>)>,
    /// Series that are kept for another time; only with our own engine.
    pub retention_rules: Vec<RetentionRule>,
    /// Series of which old samples are put together; only with our own engine.
    pub downsampling: Vec<Downsampling>,
    /// Our own engine.
    pub embedded: Embedded,
    /// A ClickHouse.
    pub clickhouse: ClickHouse,
}

/// How long some series are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionRule {
    /// Whose they are; none is everybody's.
    pub tenant: Option<TenantId>,
    /// Which they are, as a query would select them.
    pub selector: String,
    /// So long they are kept; none is forever.
    pub keep: Option<Duration>,
}

/// How fine some series are kept when they are old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downsampling {
    /// Whose they are; none is everybody's.
    pub tenant: Option<TenantId>,
    /// Which they are, as a query would select them; none is all.
    pub selector: Option<String>,
    /// A day's samples are put together so long after its end.
    pub after: Duration,
    /// The windows of which they are.
    pub resolution: Duration,
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

pub(super) fn storage(keys: &mut Reader<'_>) -> Storage {
    Storage {
        backend: keys.get(
            "storage.backend",
            "embedded",
            one_of(&[("embedded", Backend::Embedded), ("clickhouse", Backend::ClickHouse)]),
        ),
        retention: keys.get("storage.retention.default", "30d", retention),
        tenant_retention: keys.get("storage.retention.tenants", "[]", |v| tenant_retention(&list(v)?)),
        retention_rules: keys.get("storage.retention.rules", "[]", retention_rules),
        downsampling: keys.get("storage.downsampling", "[]", downsampling::rules),
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

/// A list of rules; from a variable, the same in YAML's short form.
fn retention_rules(value: &Value) -> Result<Vec<RetentionRule>, String> {
    each_rule(value, "[{selector: '{__name__=~\"debug_.+\"}', keep: 3d}]", retention_rule)
}

/// A list of mappings; from a variable, the same in YAML's short form.
fn each_rule<T>(
    value: &Value,
    example: &str,
    read: impl Fn(&Value) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    const MOST: usize = 64;
    let parsed: Value;
    let items = match value {
        Value::Sequence(items) => items,
        Value::String(text) => {
            let wrong = || format!("takes a list, write for example {example}");
            parsed = serde_yaml::from_str(text).map_err(|_| wrong())?;
            parsed.as_sequence().ok_or_else(wrong)?
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Mapping(_) | Value::Tagged(_) => {
            return Err(format!("takes a list, not {}", kind(value)));
        }
    };
    if items.len() > MOST {
        return Err(format!("has more than {MOST} rules, each of which every series is held against"));
    }
    let rule = |(i, item)| read(item).map_err(|wrong| format!("rule {} {wrong}", i + 1));
    items.iter().enumerate().map(rule).collect()
}

fn retention_rule(value: &Value) -> Result<RetentionRule, String> {
    let entry = value.as_mapping().ok_or_else(|| format!("is {}, not a mapping", kind(value)))?;
    let (mut tenant, mut selector, mut keep) = (None, None, None);
    for (name, value) in entry {
        let about = |wrong: String| format!("has a {} that {wrong}", name.as_str().unwrap_or_default());
        match name.as_str() {
            Some("tenant") => {
                let name = text(value).map_err(about)?;
                tenant = Some(TenantId::new(name).map_err(|e| format!("has a tenant that is none: {e}"))?);
            }
            Some("selector") => {
                let trimmed = text(value).map_err(about)?.trim();
                selector = Some(trimmed.to_owned()).filter(|text| !text.is_empty());
            }
            Some("keep") => {
                keep = Some(retention(value).map_err(|e| format!("has a keep that is none: {e}"))?)
            }
            Some(_) | None => return Err("has something else than tenant, selector and keep".to_owned()),
        }
    }
    let selector =
        selector.ok_or("has no selector; storage.retention.tenants is for all that a tenant has")?;
    let keep = keep.ok_or("does not say how long to keep")?;
    Ok(RetentionRule { tenant, selector, keep })
}
