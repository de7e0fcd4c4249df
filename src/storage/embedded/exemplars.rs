//! Exemplars: the newest of each tenant, in memory.
//!
//! Their log is the write-ahead log; at a flush all of them are written to the file `EXEMPLARS`, which
//! is small because their number is bounded. Exemplars are few, so one lock holds them.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
};

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::{
    disk::{Disk, read_file, replace_file},
    wal::{
        frame::{Found, Scan, seal},
        record::{Record, decode, put_exemplars},
    },
};
use crate::{
    model::{Exemplar, Labels, TenantId},
    storage::{Result, StorageError},
};

const FILE: &str = "EXEMPLARS";
const MAGIC: [u8; 8] = *b"LUMIEXM1";

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

    /// Writes all of them to their file, if they changed since the last time.
    pub(crate) fn write(&self, disk: &dyn Disk, data_dir: &Path) -> Result<()> {
        let mut bytes = MAGIC.to_vec();
        {
            let all = &mut *self.all.lock();
            if !all.changed {
                return Ok(());
            }
            for (tenant, ring) in &all.tenants {
                // In the order they came, so that the oldest go first after a restart too.
                let (front, back) = ring.order.as_slices();
                put_exemplars(&mut bytes, tenant, front);
                put_exemplars(&mut bytes, tenant, back);
            }
            all.changed = false;
        }
        seal(&mut bytes[MAGIC.len()..], 0);
        let written = replace_file(disk, data_dir, FILE, &bytes)
            .map_err(|e| StorageError::io(format!("writing {FILE} in {}", data_dir.display()), e));
        if written.is_err() {
            self.all.lock().changed = true;
        }
        written
    }

    /// Reads the file back; what is damaged in it is told.
    pub(crate) fn read(&self, disk: &dyn Disk, data_dir: &Path) -> Result<Vec<String>> {
        let path = data_dir.join(FILE);
        let context = |e| StorageError::io(format!("reading {}", path.display()), e);
        let bytes = match read_file(disk, &path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(context(e)),
        };
        let mut damage = Vec::new();
        for found in Scan::new(&bytes, 0, MAGIC.len().min(bytes.len()), Some(bytes.len())) {
            match found {
                Found::Frame { kind, payload, .. } => {
                    if let Some(Record::Exemplars { tenant, exemplars }) = decode(kind, payload) {
                        for (series, exemplar) in exemplars {
                            self.insert(&tenant, &series, exemplar);
                        }
                    }
                }
                Found::Hole { from, to } => damage.push(format!("{FILE}: bytes {from} to {to} are damaged")),
            }
        }
        self.all.lock().changed = false;
        Ok(damage)
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
    use crate::{model::Timestamp, storage::embedded::disk::SystemDisk};

    fn exemplar(at: i64) -> Exemplar {
        Exemplar { labels: Labels::empty(), value: 1.0, timestamp: Timestamp(at) }
    }

    #[test]
    fn the_oldest_go_and_the_rest_survives_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let tenant = TenantId::anonymous();
        let series = Labels::from_pairs([("a", "b")]).unwrap();
        let exemplars = Exemplars::new(3);
        for at in [5, 1, 9, 9, 3] {
            exemplars.insert(&tenant, &series, exemplar(at));
        }
        exemplars.write(&SystemDisk, dir.path()).unwrap();
        let again = Exemplars::new(3);
        assert_eq!(again.read(&SystemDisk, dir.path()).unwrap(), Vec::<String>::new());
        for e in [&exemplars, &again] {
            let all = e.of(&tenant, |_| true, |_, _| true);
            assert_eq!(all[0].1.iter().map(|e| e.timestamp.0).collect::<Vec<_>>(), [1, 3, 9]);
        }
    }
}
