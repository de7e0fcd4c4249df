//! Whether we want requests.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::storage::Health;

/// Where the process is in its life; turned by `app`, read by health checks.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

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
    /// Moves on to another stage.
    pub fn enter(&self, stage: Stage) {
        let number = match stage {
            Stage::Starting => 0,
            Stage::Serving => 1,
            Stage::Draining => 2,
        };
        self.0.store(number, Ordering::Release);
    }

    /// Where we are.
    pub fn stage(&self) -> Stage {
        match self.0.load(Ordering::Acquire) {
            0 => Stage::Starting,
            1 => Stage::Serving,
            _ => Stage::Draining,
        }
    }

    /// Whether requests are wanted, given the store's health; if not, why.
    ///
    /// A store that only reads is ready: turning queries away would not help the writes.
    pub fn check(&self, store: &Health) -> Result<(), String> {
        match (self.stage(), store) {
            (Stage::Starting, _) => Err("starting".to_owned()),
            (Stage::Draining, _) => Err("shutting down".to_owned()),
            (Stage::Serving, Health::Starting { progress }) => Err(format!("store is starting: {progress}")),
            (Stage::Serving, Health::Unavailable { reason }) => {
                Err(format!("store is unavailable: {reason}"))
            }
            (Stage::Serving, Health::Ready | Health::ReadOnly { .. }) => Ok(()),
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
        readiness.enter(Stage::Draining);
        assert_eq!(readiness.check(&Health::Ready), Err("shutting down".to_owned()));
    }
}
