//! What is known of a tenant besides samples: metadata and tombstones.
//!
//! All of it is in memory, in the log until the next flush, and then in the ledger.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use parking_lot::RwLock;

use super::{
    catalog::{self, Cursor, MetadataRow, ledger::Ledger},
    wal::record::Tombstone,
};
use crate::{
    model::{Labels, Matcher, Metadata, TenantId, TimeRange},
    storage::MatcherSets,
};

/// The cursor that counts tombstones.
const TOMBSTONES: &str = "tombstones";

/// A tenant's deletes that wait to be cleaned: every query holds its series against all of them.
pub(crate) const MOST_TOMBSTONES: usize = 10_000;

/// Every tenant's metadata and tombstones.
#[derive(Debug)]
pub(crate) struct Register {
    /// Memory that the metadata of a tenant may take.
    metadata_bytes: usize,
    all: RwLock<All>,
}

#[derive(Debug, Default)]
struct All {
    tenants: BTreeMap<TenantId, Entries>,
    last_tombstone: u64,
    changed: bool,
}

#[derive(Clone, Debug, Default)]
struct Entries {
    metadata: HashMap<String, Metadata>,
    metadata_bytes: usize,
    tombstones: Vec<Tombstone>,
}

/// About the memory an entry takes.
fn size(m: &Metadata) -> usize {
    2 * m.metric.len() + m.help.len() + m.unit.len() + 200
}

impl Register {
    /// Nothing yet, with so much memory for the metadata of each tenant.
    pub(crate) fn new(metadata_bytes: usize) -> Self {
        Self { metadata_bytes, all: RwLock::default() }
    }

    /// Takes metadata, and says which of it is news and how much of it there is no room for.
    pub(crate) fn describe(&self, tenant: &TenantId, metadata: Vec<Metadata>) -> (Vec<Metadata>, u64) {
        let all = &mut *self.all.write();
        let entries = all.tenants.entry(tenant.clone()).or_default();
        let (mut news, mut refused) = (Vec::new(), 0);
        for m in metadata {
            let there = entries.metadata.get(&m.metric);
            if there == Some(&m) {
                continue;
            }
            let bytes = entries.metadata_bytes - there.map_or(0, size) + size(&m);
            if bytes > self.metadata_bytes {
                refused += 1;
                continue;
            }
            entries.metadata_bytes = bytes;
            entries.metadata.insert(m.metric.clone(), m.clone());
            news.push(m);
        }
        all.changed |= !news.is_empty();
        (news, refused)
    }

    /// A tenant's metadata of one metric or of all, sorted.
    pub(crate) fn metadata(&self, tenant: &TenantId, metric: Option<&str>) -> Vec<Metadata> {
        let all = self.all.read();
        let Some(entries) = all.tenants.get(tenant) else { return Vec::new() };
        match metric {
            Some(metric) => entries.metadata.get(metric).cloned().into_iter().collect(),
            None => {
                let mut found: Vec<Metadata> = entries.metadata.values().cloned().collect();
                found.sort_by(|a, b| a.metric.cmp(&b.metric));
                found
            }
        }
    }

    /// Hides series under a new number; none if the tenant has hidden too much already.
    pub(crate) fn hide(&self, tenant: &TenantId, sets: MatcherSets, range: TimeRange) -> Option<Tombstone> {
        let all = &mut *self.all.write();
        let there = &mut all.tenants.entry(tenant.clone()).or_default().tombstones;
        if there.len() >= MOST_TOMBSTONES {
            return None;
        }
        // Under one lock: whoever takes out all up to a number has seen all up to it.
        all.last_tombstone += 1;
        let tombstone = Tombstone { id: all.last_tombstone, sets, range };
        there.push(tombstone.clone());
        all.changed = true;
        Some(tombstone)
    }

    /// Puts a tombstone back under its number.
    pub(crate) fn restore(&self, tenant: &TenantId, tombstone: Tombstone) {
        let all = &mut *self.all.write();
        all.last_tombstone = all.last_tombstone.max(tombstone.id);
        let there = &mut all.tenants.entry(tenant.clone()).or_default().tombstones;
        if there.iter().all(|t| t.id != tombstone.id) {
            there.push(tombstone);
            all.changed = true;
        }
    }

    /// Forgets a tenant's tombstones up to a number.
    pub(crate) fn cleaned(&self, tenant: &TenantId, up_to: u64) {
        let all = &mut *self.all.write();
        all.last_tombstone = all.last_tombstone.max(up_to);
        if let Some(entries) = all.tenants.get_mut(tenant) {
            entries.tombstones.retain(|t| t.id > up_to);
            all.changed = true;
        }
    }

    /// Forgets `gone` of a tenant's tombstones; the others up to a number get new ones, and come back with the old.
    pub(crate) fn let_go(&self, tenant: &TenantId, up_to: u64, gone: &[Tombstone]) -> Vec<(u64, Tombstone)> {
        let all = &mut *self.all.write();
        let Some(entries) = all.tenants.get_mut(tenant) else { return Vec::new() };
        let gone: HashSet<u64> = gone.iter().map(|t| t.id).collect();
        let there = std::mem::take(&mut entries.tombstones);
        let (before, mut after): (Vec<_>, Vec<_>) = there.into_iter().partition(|t| t.id <= up_to);
        let mut stay = Vec::new();
        for tombstone in before.into_iter().filter(|t| !gone.contains(&t.id)) {
            all.last_tombstone += 1;
            stay.push((tombstone.id, Tombstone { id: all.last_tombstone, ..tombstone }));
        }
        after.extend(stay.iter().map(|(_, tombstone)| tombstone.clone()));
        entries.tombstones = after;
        all.changed = true;
        stay
    }

    /// Who has tombstones.
    pub(crate) fn tenants_with_tombstones(&self) -> Vec<TenantId> {
        let all = self.all.read();
        let some = all.tenants.iter().filter(|(_, entries)| !entries.tombstones.is_empty());
        some.map(|(tenant, _)| tenant.clone()).collect()
    }

    /// A tenant's tombstones.
    pub(crate) fn tombstones(&self, tenant: &TenantId) -> Vec<Tombstone> {
        self.all.read().tenants.get(tenant).map(|e| e.tombstones.clone()).unwrap_or_default()
    }

    /// Whether anything changed since it was last asked.
    pub(crate) fn take_changed(&self) -> bool {
        std::mem::take(&mut self.all.write().changed)
    }

    /// Says whether what had changed is durable.
    pub(crate) fn settled(&self, durable: bool) {
        if !durable {
            self.all.write().changed = true;
        }
    }

    /// Adds everything to a ledger.
    pub(crate) fn enter(&self, ledger: &mut Ledger) {
        let all = self.all.read();
        ledger.cursors.push(Cursor { name: TOMBSTONES.to_owned(), value: all.last_tombstone });
        for (tenant, entries) in &all.tenants {
            let mut metadata: Vec<&Metadata> = entries.metadata.values().collect();
            metadata.sort_by(|a, b| a.metric.cmp(&b.metric));
            let row = |m: &Metadata| MetadataRow { tenant: tenant.clone(), metadata: m.clone() };
            ledger.metadata.extend(metadata.into_iter().map(row));
            ledger.tombstones.extend(entries.tombstones.iter().map(|t| catalog::Tombstone {
                tenant: tenant.clone(),
                sequence: t.id,
                matchers: t.sets.clone(),
                range: t.range,
            }));
        }
    }

    /// Takes what a ledger has.
    pub(crate) fn restore_all(&self, ledger: &Ledger) {
        for row in &ledger.metadata {
            self.describe(&row.tenant, vec![row.metadata.clone()]);
        }
        for row in &ledger.tombstones {
            let tombstone = Tombstone { id: row.sequence, sets: row.matchers.clone(), range: row.range };
            self.restore(&row.tenant, tombstone);
        }
        if let Some(cursor) = ledger.cursors.iter().find(|c| c.name == TOMBSTONES) {
            let all = &mut *self.all.write();
            all.last_tombstone = all.last_tombstone.max(cursor.value);
        }
        self.all.write().changed = false;
    }
}

/// When `tombstones` hide the series with these labels.
pub(crate) fn hidden(tombstones: &[Tombstone], labels: &Labels) -> Vec<TimeRange> {
    tombstones.iter().filter(|t| matches_any(&t.sets, labels)).map(|t| t.range).collect()
}

/// Whether one of the sets lets a series pass; none at all lets every series pass.
pub(crate) fn matches_any(sets: &MatcherSets, labels: &Labels) -> bool {
    sets.is_empty() || sets.iter().any(|set| matches_all(set, labels))
}

fn matches_all(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|m| m.matches(labels.get(m.name()).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MetricType;

    fn metadata(metric: usize, help: &str) -> Metadata {
        Metadata {
            metric: format!("m{metric:05}"),
            kind: MetricType::Gauge,
            help: help.into(),
            unit: String::new(),
        }
    }

    #[test]
    fn a_flood_of_metadata_is_bounded_and_what_is_known_can_still_change() {
        let register = Register::new(100_000);
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let (news, refused) = register.describe(&a, (0..10_000).map(|i| metadata(i, "x")).collect());
        assert!(news.len() > 400 && news.len() + usize::try_from(refused).unwrap() == 10_000, "{refused}");
        assert_eq!(register.describe(&a, vec![metadata(0, "y"), metadata(0, "y")]).0, [metadata(0, "y")]);
        assert_eq!(register.describe(&a, vec![metadata(0, &"z".repeat(100_000))]), (vec![], 1));
        assert_eq!(register.metadata(&a, Some("m00000")), [metadata(0, "y")]);
        assert_eq!(register.describe(&b, vec![metadata(1, "")]).1, 0, "another tenant has its own room");
    }

    #[test]
    fn deletes_are_bounded_until_they_are_cleaned() {
        let register = Register::new(0);
        let tenant = TenantId::anonymous();
        let hide = || register.hide(&tenant, vec![], TimeRange::ALL);
        let hidden: Vec<_> = (0..MOST_TOMBSTONES).filter_map(|_| hide()).collect();
        let last = hidden.last().unwrap();
        assert!(hide().is_none());
        register.cleaned(&tenant, last.id);
        assert_eq!(hide().map(|t| t.id), Some(last.id + 1));
    }

    #[test]
    fn what_stays_gets_numbers_beyond_what_is_let_go() {
        let register = Register::new(0);
        let tenant = TenantId::anonymous();
        let all: Vec<Tombstone> =
            (0..4).filter_map(|_| register.hide(&tenant, vec![], TimeRange::ALL)).collect();
        let stay = register.let_go(&tenant, 3, &[all[0].clone(), all[2].clone()]);
        assert_eq!(stay.iter().map(|(was, t)| (*was, t.id)).collect::<Vec<_>>(), [(2, 5)]);
        let there: Vec<u64> = register.tombstones(&tenant).iter().map(|t| t.id).collect();
        assert_eq!(there, [4, 5], "one that came meanwhile is left alone");
        assert!(register.take_changed());
    }
}
