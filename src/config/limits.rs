//! What a tenant may use.

use super::{
    ByteSize,
    parse::{number, one_of, sized, unless_unlimited},
    reader::Reader,
};
use crate::model::{Limit, Millis, OnConflict, TenantLimits};

/// What a tenant may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of tenants without limits of their own.
    pub defaults: TenantLimits,
}

/// Reads the section.
pub(super) fn limits(keys: &mut Reader<'_>) -> Limits {
    Limits { defaults: tenant_limits(keys) }
}

fn tenant_limits(keys: &mut Reader<'_>) -> TenantLimits {
    let mut limits = TenantLimits::default();
    limits.on_conflict = keys.get(
        "limits.defaults.on_conflict",
        "last",
        one_of(&[("last", OnConflict::Last), ("reject", OnConflict::Reject)]),
    );
    let millis = |window: Option<Millis>| window.map(|window| window.0.unsigned_abs());
    let window = keys.get("limits.defaults.out_of_order_window", "unlimited", unless_unlimited);
    limits.set(Limit::OutOfOrderWindow, millis(window));
    let grace = keys.get("limits.defaults.creation_grace", "10m", unless_unlimited);
    limits.set(Limit::CreationGrace, millis(grace));
    let names = keys.get("limits.defaults.max_label_names", "64", number(1, 10_000));
    limits.set(Limit::LabelNames, Some(names));
    let length = sized(ByteSize(1), ByteSize(1 << 20));
    let name = keys.get("limits.defaults.max_label_name_bytes", "1KiB", &length);
    limits.set(Limit::LabelNameBytes, Some(name.0));
    let value = keys.get("limits.defaults.max_label_value_bytes", "4KiB", &length);
    limits.set(Limit::LabelValueBytes, Some(value.0));
    limits
}
