//! Exemplars: the newest of each tenant, in memory.
//!
//! Their log is the write-ahead log; at a flush all of them are written to the ledger, which they do not make
//! large because their number is bounded. Exemplars are few, so one lock holds them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::model::{Exemplar, Labels, TenantId, Timestamp};

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
    series: BTreeMap<Labels, BTreeSet<Entry>>,
    /// Whose exemplar came when, oldest first.
    order: VecDeque<(Labels, Entry)>,
}

/// An exemplar in order of time; two with the same bits are the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Timestamp,
    bits: u64,
    labels: Labels,
}

impl Entry {
    fn of(exemplar: Exemplar) -> Self {
        let Exemplar { labels, value, timestamp } = exemplar;
        Self { at: timestamp, bits: value.to_bits(), labels }
    }

    fn exemplar(&self) -> Exemplar {
        Exemplar { labels: self.labels.clone(), value: f64::from_bits(self.bits), timestamp: self.at }
    }
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
        let entry = Entry::of(exemplar);
        if !ring.series.entry(series.clone()).or_default().insert(entry.clone()) {
            return;
        }
        ring.order.push_back((series.clone(), entry));
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
            .map(|(labels, all)| {
                let all = all.iter().map(Entry::exemplar).filter(|e| keep(labels, e)).collect();
                (labels.clone(), all)
            })
            .filter(|(_, all): &(Labels, Vec<Exemplar>)| !all.is_empty())
            .collect()
    }

    /// Removes those that `gone` says, of one tenant or of all.
    pub(crate) fn remove(
        &self,
        tenant: Option<&TenantId>,
        gone: impl Fn(&TenantId, &Labels, &Exemplar) -> bool,
    ) {
        let all = &mut *self.all.lock();
        for (id, ring) in &mut all.tenants {
            if tenant.is_some_and(|t| t != id) {
                continue;
            }
            let before = ring.order.len();
            ring.order.retain(|(labels, e)| !gone(id, labels, &e.exemplar()));
            if ring.order.len() != before {
                all.changed = true;
                ring.series.retain(|labels, all| {
                    all.retain(|e| !gone(id, labels, &e.exemplar()));
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
            .flat_map(|(t, ring)| {
                let series = ring.series.iter();
                series.map(|(l, all)| (t.clone(), l.clone(), all.iter().map(Entry::exemplar).collect()))
            })
            .collect();
        all.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        all
    }
}

impl Ring {
    fn drop_oldest(&mut self) {
        let Some((labels, oldest)) = self.order.pop_front() else { return };
        if let Some(all) = self.series.get_mut(&labels) {
            all.remove(&oldest);
            if all.is_empty() {
                self.series.remove(&labels);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn many_of_one_series_and_time_take_no_longer_each() {
        let tenant = TenantId::anonymous();
        let series = Labels::from_pairs([("a", "b")]).unwrap();
        let exemplars = Exemplars::new(20_000);
        // Comparing each with all before it would take minutes.
        for i in 0..60_000_u32 {
            let exemplar = Exemplar { value: f64::from(i), ..exemplar(7) };
            exemplars.insert(&tenant, &series, exemplar);
        }
        let all = exemplars.of(&tenant, |_| true, |_, _| true);
        assert_eq!(all[0].1.len(), 20_000);
        assert!(all[0].1.iter().all(|e| e.value >= 40_000.0));
    }
}
