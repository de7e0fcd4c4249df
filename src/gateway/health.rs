//! Whether we want requests.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::storage::Health;

/// Where the process is in its life; turned by `app`, read by health checks.
#[derive(Debug, Default)]
pub struct Readiness {
    stage: AtomicU8,
    requires_storage: bool,
}

/// The stages of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not everything is there yet.
    Starting,
    /// All is there.
    Serving,
    /// On the way out; what is at hand is finished.
    Draining,
}

impl Readiness {
    /// At the start. With `requires_storage`, nothing is wanted while the store is out of reach.
    pub fn new(requires_storage: bool) -> Self {
        Self { stage: AtomicU8::default(), requires_storage }
    }

    /// Moves on to another stage.
    pub fn enter(&self, stage: Stage) {
        let number = match stage {
            Stage::Starting => 0,
            Stage::Serving => 1,
            Stage::Draining => 2,
        };
        self.stage.store(number, Ordering::Release);
    }

    /// Where we are.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Starting,
            1 => Stage::Serving,
            _ => Stage::Draining,
        }
    }

    /// Whether requests are wanted, given the store's health; if not, why.
    ///
    /// A store that only reads is ready: turning queries away would not help the writes. So is one that was
    /// there and is lost, unless the configuration has it otherwise: all gateways lose it at once, and if none were
    /// ready, nobody were left to tell senders when to come back. Before the store was first there, others may be
    /// ready in our place.
    pub fn check(&self, store: &Health) -> Result<(), String> {
        match (self.stage(), store) {
            (Stage::Starting, _) => Err("starting".to_owned()),
            (Stage::Draining, _) => Err("shutting down".to_owned()),
            (Stage::Serving, Health::Starting { progress }) => Err(format!("store is starting: {progress}")),
            (Stage::Serving, Health::Unavailable { reason }) if self.requires_storage => {
                Err(format!("store is unavailable: {reason}"))
            }
            (Stage::Serving, Health::Ready | Health::ReadOnly { .. } | Health::Unavailable { .. }) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_ready_while_serving_over_a_store_that_at_least_reads() {
        let readiness = Readiness::default();
        let read_only = Health::ReadOnly { reason: "disk is full".to_owned() };
        assert_eq!(readiness.check(&Health::Ready), Err("starting".to_owned()));
        readiness.enter(Stage::Serving);
        assert_eq!(readiness.check(&Health::Ready), Ok(()));
        assert_eq!(readiness.check(&read_only), Ok(()));
        let opening = Health::Starting { progress: "replaying".to_owned() };
        assert_eq!(readiness.check(&opening), Err("store is starting: replaying".to_owned()));
        let lost = Health::Unavailable { reason: "out of reach".to_owned() };
        assert_eq!(readiness.check(&lost), Ok(()));
        readiness.enter(Stage::Draining);
        for store in [&Health::Ready, &lost] {
            assert_eq!(readiness.check(store), Err("shutting down".to_owned()));
        }
    }

    #[test]
    fn a_store_that_is_lost_may_be_required() {
        let strict = Readiness::new(true);
        strict.enter(Stage::Serving);
        let lost = Health::Unavailable { reason: "out of reach".to_owned() };
        assert_eq!(strict.check(&lost), Err("store is unavailable: out of reach".to_owned()));
        assert_eq!(strict.check(&Health::ReadOnly { reason: "disk is full".to_owned() }), Ok(()));
        assert_eq!(strict.check(&Health::Ready), Ok(()));
    }
}
