//! What is written down beside samples: the ledger, and the catalog.
//!
//! The ledger is the truth about tombstones, metadata and exemplars up to a flush; the catalog has most of it too, and
//! names the parts that must be there. A catalog that fails is done without: the next flush makes a new one, and
//! until then the files tell everything.

use std::{path::Path, sync::Arc};

use hashbrown::HashMap;

use super::{
    catalog::{
        Catalog, CatalogConfig, CatalogState, Change, Cursor, MetadataRow, PartRow, SUPERBLOCK, Tombstone,
        ledger::{self, LEDGER, Ledger},
    },
    disk::Disk,
    part::PartId,
    quarantine,
    view::Sealed,
};
use crate::storage::Result;

/// The cursor that says up to which segment the log has been flushed.
const WAL: &str = "wal";

/// The books, open.
#[derive(Debug)]
pub(crate) struct Books {
    config: CatalogConfig,
    catalog: Option<Catalog>,
    /// What the catalog has.
    parts: HashMap<PartId, PartRow>,
    ledger: Ledger,
}

/// What the books say at the start.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) ledger: Ledger,
    /// The parts that must be there.
    pub(crate) parts: Vec<PartId>,
    /// Up to which segment the log has been flushed.
    pub(crate) covers_wal: u64,
    pub(crate) damage: Vec<String>,
}

impl Books {
    /// Opens what there is; nothing there is no error.
    pub(crate) fn open(disk: &Arc<dyn Disk>, data_dir: &Path) -> Result<(Self, Told)> {
        let config = CatalogConfig { data_dir: data_dir.to_owned(), min_free_bytes: 16 << 20 };
        let mut told = Told::default();
        let catalog = match Catalog::open(disk, &config)? {
            CatalogState::Ready { catalog, .. } => Some(catalog),
            CatalogState::Absent => None,
            CatalogState::Rebuild { reason } => {
                tracing::warn!(reason, "the catalog is made anew");
                None
            }
        };
        let mut books = Self { config, catalog, parts: HashMap::new(), ledger: Ledger::default() };
        if let Err(error) = books.read_catalog() {
            tracing::warn!(%error, "the catalog is made anew");
            books.abandon(disk.as_ref());
        }
        told.parts = books.parts.keys().copied().collect();
        let whole = match ledger::read(disk, &data_dir.join(LEDGER))? {
            Some(read) => {
                if !read.damage.is_empty()
                    && let Err(error) = quarantine::keep(disk.as_ref(), data_dir, &data_dir.join(LEDGER))
                {
                    // The next flush writes it anew.
                    tracing::error!(%error, "the damaged ledger could not be kept aside");
                }
                told.damage.extend(read.damage.iter().map(ToString::to_string));
                told.ledger = read.ledger;
                read.damage.is_empty()
            }
            None => books.catalog.is_none() && told.parts.is_empty(),
        };
        if !whole {
            told.ledger.metadata.extend(books.ledger.metadata.iter().cloned());
            told.ledger.tombstones.extend(books.ledger.tombstones.iter().cloned());
            if told.ledger.cursors.is_empty() {
                told.ledger.cursors.clone_from(&books.ledger.cursors);
            }
        }
        let cursors = books.ledger.cursors.iter().chain(&told.ledger.cursors);
        let flushed = cursors.filter(|c| c.name == WAL).map(|c| c.value).max().unwrap_or(0);
        told.covers_wal = flushed.max(told.ledger.covers_wal);
        Ok((books, told))
    }

    fn read_catalog(&mut self) -> Result<()> {
        if let Some(catalog) = &self.catalog {
            self.parts = catalog.rows::<PartRow>()?.into_iter().map(|row| (row.id, row)).collect();
            self.ledger.metadata = catalog.rows::<MetadataRow>()?;
            self.ledger.tombstones = catalog.rows::<Tombstone>()?;
            self.ledger.cursors = catalog.rows::<Cursor>()?;
        }
        Ok(())
    }

    /// Writes the ledger, durably.
    pub(crate) fn write_ledger(&self, disk: &Arc<dyn Disk>, ledger: &Ledger) -> Result<()> {
        ledger::write(disk, &self.config.data_dir.join(LEDGER), ledger).map(|_| ())
    }

    /// Brings the catalog up to date: these are the parts, and this is the ledger if it changed.
    pub(crate) fn settle(
        &mut self,
        disk: &Arc<dyn Disk>,
        sealed: &[Arc<Sealed>],
        ledger: Option<Ledger>,
        covers_wal: u64,
    ) {
        let row = |p: &Arc<Sealed>| {
            let day = p.range().map_or(0, |r| r.start().day());
            (p.part.id(), PartRow::of(day, p.part.meta()))
        };
        let parts: HashMap<PartId, PartRow> = sealed.iter().map(row).collect();
        let mut ledger = ledger.unwrap_or_else(|| self.ledger.clone());
        ledger.exemplars.clear();
        ledger.cursors.retain(|c| c.name != WAL);
        ledger.cursors.push(Cursor { name: WAL.to_owned(), value: covers_wal });
        let settled = match &self.catalog {
            Some(catalog) => catalog.commit(self.difference(&parts, &ledger)).map(|_| None),
            None => {
                let mut all = Change::new();
                all.put_ledger(&ledger);
                for row in parts.values() {
                    all.put(row);
                }
                Catalog::create(disk, &self.config, all).map(Some)
            }
        };
        match settled {
            Ok(new) => {
                self.catalog = new.or_else(|| self.catalog.take());
                (self.parts, self.ledger) = (parts, ledger);
            }
            Err(error) => {
                tracing::warn!(%error, "the catalog could not be brought up to date, going on without");
                self.abandon(disk.as_ref());
            }
        }
    }

    fn difference(&self, parts: &HashMap<PartId, PartRow>, ledger: &Ledger) -> Change {
        let mut change = Change::new();
        self.parts.values().filter(|row| !parts.contains_key(&row.id)).for_each(|row| {
            change.remove(row);
        });
        parts.values().filter(|row| self.parts.get(&row.id) != Some(*row)).for_each(|row| {
            change.put(row);
        });
        let key = |t: &Tombstone| (t.tenant.clone(), t.sequence);
        let now: hashbrown::HashSet<_> = ledger.tombstones.iter().map(key).collect();
        let before: hashbrown::HashSet<_> = self.ledger.tombstones.iter().map(key).collect();
        self.ledger.tombstones.iter().filter(|t| !now.contains(&key(t))).for_each(|t| {
            change.remove(t);
        });
        ledger.tombstones.iter().filter(|t| !before.contains(&key(t))).for_each(|t| {
            change.put(t);
        });
        let known: HashMap<_, _> =
            self.ledger.metadata.iter().map(|m| ((&m.tenant, &m.metadata.metric), &m.metadata)).collect();
        let news = ledger.metadata.iter().filter(|m| {
            known.get(&(&m.tenant, &m.metadata.metric)).is_none_or(|there| **there != m.metadata)
        });
        news.for_each(|m| {
            change.put(m);
        });
        ledger.cursors.iter().filter(|c| !self.ledger.cursors.contains(c)).for_each(|c| {
            change.put(c);
        });
        change
    }

    /// Does without the catalog, and makes sure that the next start does too.
    pub(crate) fn abandon(&mut self, disk: &dyn Disk) {
        self.catalog = None;
        self.parts.clear();
        self.ledger = Ledger::default();
        match disk.remove_file(&self.config.data_dir.join(SUPERBLOCK)) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "the superblock could not be removed"),
        }
    }

    /// Closes the catalog in order.
    pub(crate) fn close(&mut self) {
        if let Some(catalog) = self.catalog.take()
            && let Err(error) = catalog.close()
        {
            tracing::warn!(%error, "the catalog could not be closed in order");
        }
    }
}
