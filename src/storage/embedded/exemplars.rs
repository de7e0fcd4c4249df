//! Exemplars: the newest of each tenant, in memory.
//!
//! Their log is the write-ahead log; at a flush all of them are written to the ledger, which they do not make
//! large because their number is bounded. Exemplars are few, so one lock holds them.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::model::{Exemplar, Labels, TenantId};

/// A tenant's series and its exemplars, in time order.
pub(crate) type Kept = (TenantId, Labels, Vec<Exemplar>);

/// Every tenant's exemplars.
#[derive(Debug)]
pub(crate) struct Exemplars {
    limit: usize,
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    tenants: HashMap<TenantId, Ring>,
    changed: bool,
}

#[derive(Debug, Default)]
struct Ring {
    series: BTreeMap<Labels, Vec<Exemplar>>,
    /// Whose exemplar came when, oldest first.
    order: VecDeque<(Labels, Exemplar)>,
}

impl Exemplars {
    /// Keeps up to `limit` for each tenant.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, all: Mutex::default() }
    }

    /// Adds one, if it is not there.
    pub(crate) fn insert(&self, tenant: &TenantId, series: &Labels, exemplar: Exemplar) {
        let all = &mut *self.all.lock();
        let ring = all.tenants.entry(tenant.clone()).or_default();
        let there = ring.series.entry(series.clone()).or_default();
        if there.iter().any(|e| same(e, &exemplar)) {
            return;
        }
        let place = there.partition_point(|e| e.timestamp <= exemplar.timestamp);
        there.insert(place, exemplar.clone());
        ring.order.push_back((series.clone(), exemplar));
        while ring.order.len() > self.limit {
            ring.drop_oldest();
        }
        all.changed = true;
    }

    /// Those of a tenant's series, series in label order.
    pub(crate) fn of(
        &self,
        tenant: &TenantId,
        wanted: impl Fn(&Labels) -> bool,
        keep: impl Fn(&Labels, &Exemplar) -> bool,
    ) -> Vec<(Labels, Vec<Exemplar>)> {
        let all = self.all.lock();
        let series = all.tenants.get(tenant).into_iter().flat_map(|ring| &ring.series);
        series
            .filter(|(labels, _)| wanted(labels))
            .map(|(labels, all)| (labels.clone(), all.iter().filter(|e| keep(labels, e)).cloned().collect()))
            .filter(|(_, all): &(Labels, Vec<Exemplar>)| !all.is_empty())
            .collect()
    }

    /// Removes those that `gone` says, of one tenant or of all.
    pub(crate) fn remove(&self, tenant: Option<&TenantId>, gone: impl Fn(&Labels, &Exemplar) -> bool) {
        let all = &mut *self.all.lock();
        for (id, ring) in &mut all.tenants {
            if tenant.is_some_and(|t| t != id) {
                continue;
            }
            let before = ring.order.len();
            ring.order.retain(|(labels, e)| !gone(labels, e));
            if ring.order.len() != before {
                all.changed = true;
                ring.series.retain(|labels, all| {
                    all.retain(|e| !gone(labels, e));
                    !all.is_empty()
                });
            }
        }
    }

    /// All of them, series by series, if they changed since the last time.
    pub(crate) fn changes(&self) -> Option<Vec<Kept>> {
        let all = &mut *self.all.lock();
        if !std::mem::take(&mut all.changed) {
            return None;
        }
        Some(all.everything())
    }

    /// All of them, series by series.
    pub(crate) fn everything(&self) -> Vec<Kept> {
        self.all.lock().everything()
    }

    /// Says whether what was last taken from [`changes`](Self::changes) is durable.
    pub(crate) fn settled(&self, durable: bool) {
        if !durable {
            self.all.lock().changed = true;
        }
    }

    /// Puts back what [`changes`](Self::changes) gave; the oldest will go first again.
    pub(crate) fn restore(&self, kept: Vec<Kept>) {
        let mut all: Vec<(TenantId, Labels, Exemplar)> = kept
            .into_iter()
            .flat_map(|(t, l, all)| all.into_iter().map(move |e| (t.clone(), l.clone(), e)))
            .collect();
        all.sort_by_key(|(_, _, e)| e.timestamp);
        for (tenant, series, exemplar) in all {
            self.insert(&tenant, &series, exemplar);
        }
        self.all.lock().changed = false;
    }
}

impl All {
    fn everything(&self) -> Vec<Kept> {
        let mut all: Vec<Kept> = self
            .tenants
            .iter()
            .flat_map(|(t, ring)| ring.series.iter().map(|(l, all)| (t.clone(), l.clone(), all.clone())))
            .collect();
        all.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        all
    }
}

impl Ring {
    fn drop_oldest(&mut self) {
        let Some((labels, exemplar)) = self.order.pop_front() else { return };
        if let Some(all) = self.series.get_mut(&labels) {
            all.retain(|e| !same(e, &exemplar));
            if all.is_empty() {
                self.series.remove(&labels);
            }
        }
    }
}

fn same(a: &Exemplar, b: &Exemplar) -> bool {
    a.timestamp == b.timestamp && a.value.to_bits() == b.value.to_bits() && a.labels == b.labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn exemplar(at: i64) -> Exemplar {
        Exemplar { labels: Labels::empty(), value: 1.0, timestamp: Timestamp(at) }
    }

    #[test]
    fn the_oldest_go_and_the_rest_can_be_put_back() {
        let tenant = TenantId::anonymous();
        let series = Labels::from_pairs([("a", "b")]).unwrap();
        let exemplars = Exemplars::new(3);
        for at in [5, 1, 9, 9, 3] {
            exemplars.insert(&tenant, &series, exemplar(at));
        }
        let again = Exemplars::new(3);
        again.restore(exemplars.changes().unwrap());
        assert!(exemplars.changes().is_none() && again.changes().is_none());
        for e in [&exemplars, &again] {
            let all = e.of(&tenant, |_| true, |_, _| true);
            assert_eq!(all[0].1.iter().map(|e| e.timestamp.0).collect::<Vec<_>>(), [1, 3, 9]);
        }
    }
}
