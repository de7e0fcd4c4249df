//! Which metadata ClickHouse has been told lately.

use std::{collections::HashMap, time::Duration};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3;

use crate::{
    clock::Clock,
    model::{Metadata, TenantId},
};

/// When it is told again: another pod may have been told otherwise in the meantime.
const AGAIN_AFTER: Duration = Duration::from_secs(3_600);

/// Families kept in each of two generations.
const GENERATION: usize = 100_000;

/// What was last written of each metric family.
#[derive(Debug, Default)]
pub(super) struct KnownMetadata {
    families: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<u128, Told, RandomState>,
    old: HashMap<u128, Told, RandomState>,
}

/// What was said, and when.
#[derive(Clone, Copy, Debug)]
struct Told {
    what: u128,
    when: Duration,
}

impl KnownMetadata {
    /// Whether this is what was said last, and not long ago.
    pub(super) fn has(&self, tenant: &TenantId, metadata: &Metadata, clock: &dyn Clock) -> bool {
        let (family, what) = digests(tenant, metadata);
        let families = self.families.lock();
        let told = families.young.get(&family).or_else(|| families.old.get(&family));
        told.is_some_and(|told| told.what == what && clock.elapsed() < told.when + AGAIN_AFTER)
    }

    /// Notes that this has been written.
    pub(super) fn told(&self, tenant: &TenantId, metadata: &Metadata, clock: &dyn Clock) {
        let (family, what) = digests(tenant, metadata);
        let mut families = self.families.lock();
        if families.young.len() >= GENERATION {
            families.old = std::mem::take(&mut families.young);
        }
        families.young.insert(family, Told { what, when: clock.elapsed() });
    }
}

/// Digests of whose metadata it is, and of what it says.
fn digests(tenant: &TenantId, metadata: &Metadata) -> (u128, u128) {
    let digest = |parts: &[&str]| {
        let mut hash = Xxh3::new();
        for part in parts {
            hash.update(&part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.digest128()
    };
    let family = digest(&[tenant.as_str(), &metadata.metric]);
    (family, digest(&[metadata.kind.as_str(), &metadata.unit, &metadata.help]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::HandClock,
        model::{MetricType, Timestamp},
    };

    #[test]
    fn what_was_said_is_not_said_again_for_a_while() {
        let (known, clock) = (KnownMetadata::default(), HandClock::at(Timestamp(0)));
        let [a, b] = ["a", "b"].map(|name| TenantId::new(name).unwrap());
        let [one, other] = ["one", "other"].map(|help| Metadata {
            metric: "up".to_owned(),
            kind: MetricType::Gauge,
            help: help.to_owned(),
            unit: String::new(),
        });
        assert!(!known.has(&a, &one, clock.as_ref()));
        known.told(&a, &one, clock.as_ref());
        assert!(known.has(&a, &one, clock.as_ref()));
        assert!(!known.has(&b, &one, clock.as_ref()));
        known.told(&a, &other, clock.as_ref());
        assert!(!known.has(&a, &one, clock.as_ref()), "it was taken back since");
        clock.advance(AGAIN_AFTER);
        assert!(!known.has(&a, &other, clock.as_ref()));
    }
}
