//! Which store a backup is of, so that two never share a place by mistake: the older one's backups would be pruned for the
//! newer one's, and a restore of the newest would bring back the wrong one.
//!
//! A store gets its number with its first backup, as a file in its directory. What is restored gets that of the store
//! that it came from: it goes on where that one ended, at the same place.

use std::{fmt, io, path::Path, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    super::{disk::Disk, part::TEMPORARY_SUFFIX},
    BackupError, Result,
};

/// The file in a data directory that says which store it is.
pub const STORE_ID: &str = "STOREID";

/// A store's number, unlike that of any other: 16 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StoreId(String);

impl FromStr for StoreId {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 16 && text.bytes().all(digit) {
            return Ok(Self(text.to_owned()));
        }
        Err("a store's number has 16 hexadecimal digits".to_owned())
    }
}

impl TryFrom<String> for StoreId {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl From<StoreId> for String {
    fn from(id: StoreId) -> Self {
        id.0
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StoreId {
    /// The number of the store in a directory. One that has none gets it made of `seed`, durably.
    pub(super) fn of(disk: &Arc<dyn Disk>, data_dir: &Path, seed: u64) -> Result<Self> {
        if let Some(id) = Self::read(disk.as_ref(), data_dir)? {
            return Ok(id);
        }
        Self(format!("{seed:016x}")).give(disk, data_dir, seed)
    }

    /// Gives this number to the store in a directory, durably, unless it has one: its number.
    pub(super) fn give(self, disk: &Arc<dyn Disk>, data_dir: &Path, seed: u64) -> Result<Self> {
        let failed = || BackupError::local(format!("writing {} to {}", STORE_ID, data_dir.display()));
        let path = data_dir.join(STORE_ID);
        let temporary = data_dir.join(format!("{STORE_ID}.{seed:016x}{TEMPORARY_SUFFIX}"));
        let write = || {
            let mut file = disk.create(&temporary)?;
            file.write_all_at(format!("{self}\n").as_bytes(), 0)?;
            file.sync_all()
        };
        write().map_err(failed())?;
        // Of two who come at the same time, the first says which it is.
        let first = match disk.hard_link(&temporary, &path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            linked => linked.map(|()| true),
        };
        let named = disk.remove_file(&temporary).and_then(|()| disk.sync_dir(data_dir));
        let first = first.and_then(|first| named.map(|()| first)).map_err(failed())?;
        if first {
            return Ok(self);
        }
        Self::read(disk.as_ref(), data_dir)?.ok_or_else(|| failed()(io::ErrorKind::NotFound.into()))
    }

    fn read(disk: &dyn Disk, data_dir: &Path) -> Result<Option<Self>> {
        let path = data_dir.join(STORE_ID);
        let failed = || BackupError::local(format!("reading {}", path.display()));
        let file = match disk.open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed()(e)),
        };
        let mut bytes = vec![0; usize::try_from(file.len().map_err(failed())?.min(100)).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0).map_err(failed())?;
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        text.trim_end().parse().map(Some).map_err(|why| BackupError::Damaged {
            place: data_dir.display().to_string(),
            name: STORE_ID.to_owned(),
            why,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::embedded::{disk::SystemDisk, memory_disk::MemoryDisk};

    #[test]
    fn a_store_gets_its_number_once() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let id = StoreId::of(&disk, dir.path(), 7).unwrap();
        assert_eq!(id.to_string(), "0000000000000007");
        assert_eq!(StoreId::of(&disk, dir.path(), 8).unwrap(), id);
        let late: StoreId = "00000000000000ff".parse().unwrap();
        assert_eq!(late.give(&disk, dir.path(), 9).unwrap(), id, "whoever comes late learns it");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::write(dir.path().join(STORE_ID), "x").unwrap();
        assert!(matches!(StoreId::of(&disk, dir.path(), 8), Err(BackupError::Damaged { .. })));
        for bad in ["", "0123456789abcde", "0123456789ABCDEF", "0123456789abcdef0"] {
            assert!(bad.parse::<StoreId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_number_survives_a_power_cut() {
        let dir = tempfile::tempdir().unwrap();
        let memory = MemoryDisk::new(dir.path(), "nothing");
        let disk: Arc<dyn Disk> = Arc::<MemoryDisk>::clone(&memory);
        let id = StoreId::of(&disk, dir.path(), 7).unwrap();
        memory.lose_power();
        assert_eq!(StoreId::of(&disk, dir.path(), 8).unwrap(), id);
    }
}
