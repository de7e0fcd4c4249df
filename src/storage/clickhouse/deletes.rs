//! What was deleted: hidden at once, removed in the background.

use std::sync::Arc;

use super::client::Servers;
use crate::{
    clock::Clock,
    model::{Labels, Matcher, Millis, TenantId, TimeRange},
    storage::{MatcherSets, Result, StorageError},
};

/// The tombstones, known and new.
#[derive(Debug)]
pub(super) struct Deletes {
    servers: Arc<Servers>,
    clock: Arc<dyn Clock>,
}

/// Hides the samples of the series that all of `matchers` match.
#[derive(Clone, Debug)]
pub(super) struct Tombstone {
    pub(super) matchers: Vec<Matcher>,
    pub(super) range: TimeRange,
}

impl Tombstone {
    /// Whether it hides something of a series.
    pub(super) fn covers(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or("")))
    }
}

impl Deletes {
    pub(super) fn new(servers: Arc<Servers>, clock: Arc<dyn Clock>) -> Self {
        Self { servers, clock }
    }

    /// The tombstones of a tenant that hide something in a range, as of now on every pod.
    pub(super) async fn hiding(&self, _tenant: &TenantId, _range: TimeRange) -> Result<Arc<[Tombstone]>> {
        Ok(Arc::from([]))
    }

    pub(super) async fn delete(
        &self,
        _tenant: &TenantId,
        _matchers: MatcherSets,
        _range: TimeRange,
    ) -> Result<()> {
        Err(StorageError::Unsupported("delete".to_owned()))
    }

    pub(super) async fn clean(&self, _tenant: &TenantId) -> Result<()> {
        Err(StorageError::Unsupported("clean_tombstones".to_owned()))
    }
}

/// What the tombstones hide of a series within a range: ranges in order, none touching another.
pub(super) fn hidden(tombstones: &[Tombstone], labels: &Labels, within: TimeRange) -> Vec<TimeRange> {
    let covering =
        tombstones.iter().filter(|tombstone| tombstone.range.overlaps(within) && tombstone.covers(labels));
    let mut ranges: Vec<TimeRange> =
        covering.filter_map(|tombstone| tombstone.range.intersection(within)).collect();
    ranges.sort_unstable_by_key(|range| range.start());
    let mut joined: Vec<TimeRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start() <= last.end().plus(Millis(1)) => *last = last.union(range),
            Some(_) | None => joined.push(range),
        }
    }
    joined
}
