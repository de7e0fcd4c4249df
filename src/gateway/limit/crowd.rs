//! Tenants with a bound on their active series, for whoever wonders how many are near it.
//!
//! A tenant is known from its first write on. How many series it has is asked of the store when somebody looks, so that
//! a write costs one look-up here, and nothing where nobody has such a bound.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use parking_lot::RwLock;

use super::local::TENANTS;
use crate::model::{Limit, TenantId, TenantLimits};

/// From which share of its bound on a tenant is near it.
const NEAR: f64 = 0.8;

/// The bounds of tenants that write.
#[derive(Debug, Default)]
pub struct Crowd(RwLock<HashMap<TenantId, u64, RandomState>>);

/// How many tenants have how much of what they may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crowded {
    /// Four fifths of it and more.
    pub near: u64,
    /// All of it.
    pub full: u64,
}

impl Crowd {
    /// Remembers what a tenant that writes may have.
    pub(super) fn note(&self, tenant: &TenantId, limits: &TenantLimits) {
        let allowed = limits.get(Limit::ActiveSeries);
        {
            let bounds = self.0.read();
            let known = bounds.get(tenant).copied();
            // Of so many only those that came first are told of.
            if known == allowed || (known.is_none() && bounds.len() >= TENANTS) {
                return;
            }
        }
        let mut bounds = self.0.write();
        match allowed {
            Some(allowed) => bounds.insert(tenant.clone(), allowed),
            None => bounds.remove(tenant),
        };
    }

    /// Counts the tenants that are near their bounds, given how many series each has.
    pub fn crowded(&self, active_series: impl Fn(&TenantId) -> Option<u64>) -> Crowded {
        // The store is not asked while writes wait.
        let bounds: Vec<_> =
            self.0.read().iter().map(|(tenant, allowed)| (tenant.clone(), *allowed)).collect();
        let mut crowded = Crowded::default();
        for (tenant, allowed) in bounds {
            let Some(active) = active_series(&tenant) else { continue };
            crowded.full += u64::from(active >= allowed);
            crowded.near += u64::from(share(active, allowed) >= NEAR);
        }
        crowded
    }
}

/// How much of what is allowed is used; all of it where nothing is.
fn share(active: u64, allowed: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a share is near enough")]
    let share = active as f64 / allowed as f64;
    if allowed == 0 { 1.0 } else { share }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    #[test]
    fn tenants_are_near_from_four_fifths_on_and_full_at_their_bound() {
        let crowd = Crowd::default();
        let bounded = |most| TenantLimits::unlimited().with(Limit::ActiveSeries, most);
        for (name, most) in [("a", 100), ("b", 100), ("c", 100), ("none", 0), ("unknown", 1)] {
            crowd.note(&tenant(name), &bounded(most));
        }
        crowd.note(&tenant("free"), &TenantLimits::unlimited());
        let active = |tenant: &TenantId| match tenant.as_str() {
            "a" => Some(79),
            "b" => Some(80),
            "c" => Some(100),
            "none" => Some(0),
            _ => None,
        };
        assert_eq!(crowd.crowded(active), Crowded { near: 3, full: 2 });
        crowd.note(&tenant("c"), &bounded(1000));
        crowd.note(&tenant("none"), &TenantLimits::unlimited());
        assert_eq!(crowd.crowded(active), Crowded { near: 1, full: 0 });
    }
}
