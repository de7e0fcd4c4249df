//! What was refused lately, tenant by tenant: why, how often, since when, and of which series.
//!
//! Each reason has one entry, so that a flood of one does not wash the others away; of many reasons the ones not met for
//! longest go. Tenants are bounded in number, too.

use std::{collections::VecDeque, num::NonZeroUsize};

use foldhash::fast::RandomState;
use lru::LruCache;
use parking_lot::Mutex;

use crate::{
    ingest::Rejections,
    model::{OverLimit, TenantId, Timestamp},
};

/// For how many tenants it is remembered.
const TENANTS: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not zero");

/// How many reasons are remembered of a tenant.
const REASONS: usize = 32;

/// How much of a series is shown.
const EXAMPLE_BYTES: usize = 512;

/// A reason for which something of a tenant was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The name of a limit, or of what is wrong with samples.
    pub reason: &'static str,
    /// What the limit allows.
    pub limit: Option<u64>,
    /// What was asked for last, or used already.
    pub current: Option<u64>,
    /// A series of which it was.
    pub example: Option<String>,
    /// When it was met first.
    pub first_seen: Timestamp,
    /// When it was met last.
    pub last_seen: Timestamp,
    /// How many samples, or for limits requests.
    pub count: u64,
}

/// What was refused lately.
#[derive(Debug)]
pub struct RejectionLog(Mutex<LruCache<TenantId, VecDeque<Rejected>, RandomState>>);

impl Default for RejectionLog {
    fn default() -> Self {
        Self(Mutex::new(LruCache::with_hasher(TENANTS, RandomState::default())))
    }
}

impl RejectionLog {
    /// Remembers that a request was over a limit.
    pub fn over_limit(&self, tenant: &TenantId, over: &OverLimit, now: Timestamp) {
        self.add(tenant, over.limit.name(), 1, now, |entry| {
            entry.limit = Some(over.allowed);
            entry.current = Some(over.asked);
        });
    }

    /// Remembers what was refused of a request.
    pub fn samples(&self, tenant: &TenantId, rejections: &Rejections, now: Timestamp) {
        for &(reason, count) in &rejections.by_reason {
            let example = rejections.examples.iter().find(|example| example.reason.id() == reason);
            self.add(tenant, reason, count, now, |entry| {
                if let Some(over) = rejections.over.iter().find(|over| over.limit.name() == reason) {
                    entry.limit = Some(over.allowed);
                    entry.current = Some(over.asked);
                }
                if let Some(example) = example {
                    let series = &example.series;
                    entry.example = Some(series[..series.floor_char_boundary(EXAMPLE_BYTES)].to_owned());
                }
            });
        }
    }

    /// What was refused of a tenant, what was met last first.
    pub fn of(&self, tenant: &TenantId) -> Vec<Rejected> {
        self.0.lock().peek(tenant).map(|entries| entries.iter().cloned().collect()).unwrap_or_default()
    }

    fn add(
        &self,
        tenant: &TenantId,
        reason: &'static str,
        count: u64,
        now: Timestamp,
        tell: impl FnOnce(&mut Rejected),
    ) {
        let mut tenants = self.0.lock();
        if tenants.get(tenant).is_none() {
            tenants.put(tenant.clone(), VecDeque::new());
        }
        let Some(entries) = tenants.get_mut(tenant) else { return };
        let known = entries.iter().position(|entry| entry.reason == reason);
        let mut entry = known.and_then(|at| entries.remove(at)).unwrap_or(Rejected {
            reason,
            limit: None,
            current: None,
            example: None,
            first_seen: now,
            last_seen: now,
            count: 0,
        });
        entry.last_seen = now;
        entry.count = entry.count.saturating_add(count);
        tell(&mut entry);
        entries.push_front(entry);
        entries.truncate(REASONS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ingest::{Example, Reason},
        model::Limit,
    };

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn over(asked: u64) -> OverLimit {
        OverLimit { limit: Limit::Samples, allowed: 10, asked, retry_after: None, for_good: false }
    }

    #[test]
    fn a_reason_has_one_entry_that_counts() {
        let log = RejectionLog::default();
        let series = format!("{{a=\"{}\"}}", "é".repeat(600));
        let rejections = Rejections {
            total: 5,
            by_reason: vec![(Reason::InFuture.id(), 3), (Reason::NoSamples.id(), 2)],
            over: vec![],
            examples: vec![Example { series, timestamp: None, reason: Reason::InFuture }],
        };
        log.over_limit(&tenant("a"), &over(20), Timestamp(1));
        log.samples(&tenant("a"), &rejections, Timestamp(2));
        log.over_limit(&tenant("a"), &over(30), Timestamp(3));
        let entries = log.of(&tenant("a"));
        assert_eq!(
            entries.iter().map(|e| (e.reason, e.count, e.first_seen.0, e.last_seen.0)).collect::<Vec<_>>(),
            [("samples_per_second", 2, 1, 3), ("no_samples", 2, 2, 2), ("too_far_in_future", 3, 2, 2)]
        );
        assert_eq!((entries[0].limit, entries[0].current), (Some(10), Some(30)));
        assert_eq!((&entries[1].example, entries[1].limit), (&None, None));
        assert!(entries[2].example.as_ref().is_some_and(|text| (500..=512).contains(&text.len())));
        assert!(log.of(&tenant("b")).is_empty());
    }

    #[test]
    fn neither_tenants_nor_reasons_are_without_bound() {
        let log = RejectionLog::default();
        for n in 0..3000 {
            log.over_limit(&tenant(&format!("t{n}")), &over(1), Timestamp(n));
        }
        assert_eq!(log.0.lock().len(), TENANTS.get());
        assert_eq!((log.of(&tenant("t0")).len(), log.of(&tenant("t2999")).len()), (0, 1));
        for limit in Limit::ALL {
            log.over_limit(&tenant("a"), &OverLimit { limit, ..over(1) }, Timestamp(1));
        }
        for n in 0..100 {
            log.add(&tenant("a"), Box::leak(format!("r{n}").into_boxed_str()), 1, Timestamp(2), |_| {});
        }
        let entries = log.of(&tenant("a"));
        assert_eq!((entries.len(), entries[0].reason), (REASONS, "r99"));
    }
}
