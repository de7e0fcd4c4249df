//! What a tenant may use.
//!
//! There is a key for each [`Limit`] in `limits.defaults` and one in `limits.hard`, and what else there is to know of
//! it stands in the table of limits.

use std::{path::PathBuf, sync::LazyLock, time::Duration};

use serde_yaml::Value;

use super::{
    parse::{at_least, file, list, one_of, quantity},
    reader::Reader,
};
use crate::model::{Limit, OnConflict, TenantLimits};

/// What a tenant may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of tenants without limits of their own.
    pub defaults: TenantLimits,
    /// What nobody has more than, whatever an override or a token says.
    pub hard: TenantLimits,
    /// Says which tenants have limits of their own.
    pub overrides_file: Option<PathBuf>,
    /// How often that file is looked at, and what else may change while we run.
    pub reload_interval: Duration,
}

/// The keys of a limit.
struct Keys {
    limit: Limit,
    default: String,
    hard: String,
}

static KEYS: LazyLock<Vec<Keys>> = LazyLock::new(|| {
    let keys = |limit: Limit| Keys {
        limit,
        default: format!("limits.defaults.{}", limit.name()),
        hard: format!("limits.hard.{}", limit.name()),
    };
    Limit::ALL.into_iter().map(keys).collect()
});

/// Reads the section.
pub(super) fn limits(keys: &mut Reader<'_>) -> Limits {
    Limits {
        defaults: defaults(keys),
        hard: hard(keys),
        overrides_file: keys.get("limits.overrides_file", "\"\"", file),
        reload_interval: keys.get("limits.reload_interval", "10s", at_least(Duration::from_secs(1))),
    }
}

fn defaults(keys: &mut Reader<'_>) -> TenantLimits {
    let mut limits = TenantLimits::default();
    limits.on_conflict = keys.get(
        "limits.defaults.on_conflict",
        "last",
        one_of(&[("last", OnConflict::Last), ("reject", OnConflict::Reject)]),
    );
    for limit in keys.get("limits.defaults.answer_400", "[]", limits_named) {
        limits.refuse_for_good(limit, true);
    }
    for Keys { limit, default: path, .. } in KEYS.iter() {
        limits.set(*limit, keys.get(path, &limit.show(limit.default()), |v| limit.parse(&quantity(v)?)));
    }
    limits
}

fn hard(keys: &mut Reader<'_>) -> TenantLimits {
    let mut limits = TenantLimits::unlimited();
    for Keys { limit, hard: path, .. } in KEYS.iter() {
        // To cap nothing is right also where nothing may be without bound.
        let cap = |v: &Value| match &*quantity(v)? {
            "unlimited" => Ok(None),
            written => limit.parse(written),
        };
        limits.set(*limit, keys.get(path, "unlimited", cap));
    }
    limits
}

fn limits_named(value: &Value) -> Result<Vec<Limit>, String> {
    let named = |name: String| Limit::of_name(&name).ok_or_else(|| format!("{name:?} is not a limit"));
    list(value)?.into_iter().map(named).collect()
}

/// A body that may be larger than what its sender may have at once could never be taken.
pub(super) fn refuse_small_bursts(limits: &Limits, max_body_bytes: u64, keys: &mut Reader<'_>) {
    let mut effective = limits.defaults.clone();
    effective.cap(&limits.hard);
    let Some(rate) = effective.get(Limit::Bytes) else { return };
    let burst = effective.get(Limit::BytesBurst).unwrap_or(rate);
    // Who may send nothing at all is meant to.
    if rate == 0 || burst >= max_body_bytes {
        return;
    }
    let show = |bytes| Limit::BytesBurst.show(Some(bytes));
    let message = format!(
        "{} at once is less than the {} that one request may have (server.limits.max_body_bytes), \
         which could never be sent; set one or the other",
        show(burst),
        show(max_body_bytes)
    );
    let hard = limits.hard.get(Limit::BytesBurst).is_some_and(|hard| hard <= burst);
    keys.refuse(if hard { "limits.hard.bytes_burst" } else { "limits.defaults.bytes_burst" }, message);
}
