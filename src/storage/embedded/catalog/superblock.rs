//! Which generation of the catalog is the newest that was promised.
//!
//! Two slots are written in turn, each synced before the commit is answered. A torn write spoils the
//! slot being written, and the other still tells the generation before. The format is drawn in
//! `schema/disk/superblock.md`.

use std::{io, path::Path, sync::Arc};

use super::super::disk::Disk;
use crate::storage::{Result, StorageError};

const SLOT: usize = 4096;
const MAGIC: &[u8; 8] = b"LUMISUPR";
const FORMAT: u32 = 1;
const CHECKED: usize = 28;

/// What a slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The newest generation of the catalog that was made durable.
    pub generation: u64,
    /// Whether the store was closed in order.
    pub clean: bool,
}

/// What a look at the file finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A slot that reads back.
    Valid(Superblock),
    /// No file.
    Missing,
    /// A file, but no slot that reads back.
    Damaged,
}

impl Superblock {
    /// Reads the newest slot.
    pub fn read(disk: &Arc<dyn Disk>, path: &Path) -> Result<Found> {
        let file = match disk.open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
            Err(e) => return Err(StorageError::io("opening the superblock", e)),
        };
        let mut newest: Option<Self> = None;
        for slot in 0..2 {
            let mut bytes = [0; SLOT];
            match file.read_exact_at(&mut bytes, slot * SLOT as u64) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(e) => return Err(StorageError::io("reading the superblock", e)),
            }
            if let Some(found) = Self::decode(&bytes)
                && newest.is_none_or(|newest| newest.generation < found.generation)
            {
                newest = Some(found);
            }
        }
        Ok(newest.map_or(Found::Damaged, Found::Valid))
    }

    /// Where the slots begin that were written and do not read back.
    pub fn damaged_slots(disk: &Arc<dyn Disk>, path: &Path) -> Result<Vec<u64>> {
        let context = |e| StorageError::io("reading the superblock", e);
        let file = match disk.open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(context(e)),
        };
        let mut damaged = Vec::new();
        for at in [0, SLOT as u64] {
            let mut bytes = [0; SLOT];
            match file.read_exact_at(&mut bytes, at) {
                // A slot is zeros until its first generation.
                Ok(()) if bytes == [0; SLOT] || Self::decode(&bytes).is_some() => {}
                Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(context(e)),
                Ok(()) | Err(_) => damaged.push(at),
            }
        }
        Ok(damaged)
    }

    /// Makes this the newest slot, durably.
    pub fn write(&self, disk: &Arc<dyn Disk>, path: &Path) -> Result<()> {
        self.write_slot(disk, path).map_err(|e| StorageError::io("writing the superblock", e))
    }

    fn write_slot(&self, disk: &Arc<dyn Disk>, path: &Path) -> io::Result<()> {
        let (mut file, new) = match disk.open_write(path) {
            Ok(file) => (file, false),
            Err(e) if e.kind() == io::ErrorKind::NotFound => (disk.create(path)?, true),
            Err(e) => return Err(e),
        };
        if file.len()? < 2 * SLOT as u64 {
            file.write_all_at(&[0; 2 * SLOT], 0)?;
        }
        file.write_all_at(&self.encode(), self.generation % 2 * SLOT as u64)?;
        file.sync_all()?;
        match path.parent() {
            Some(directory) if new => disk.sync_dir(directory),
            Some(_) | None => Ok(()),
        }
    }

    fn encode(&self) -> [u8; SLOT] {
        let mut out = [0; SLOT];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[12..20].copy_from_slice(&self.generation.to_le_bytes());
        out[20] = u8::from(self.clean);
        let crc = crc32c::crc32c(&out[..CHECKED]);
        out[CHECKED..CHECKED + 4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8; SLOT]) -> Option<Self> {
        let generation = u64::from_le_bytes(bytes[12..20].try_into().expect("eight bytes"));
        let read = Self { generation, clean: bytes[20] == 1 };
        // All bytes are known from these two, so one that differs is damage.
        (read.encode() == *bytes).then_some(read)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::storage::embedded::disk::SystemDisk;

    #[test]
    fn the_newest_slot_that_reads_back_counts() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let path = dir.path().join("SUPERBLOCK");
        assert_eq!(Superblock::read(&disk, &path).unwrap(), Found::Missing);
        for generation in 1..=5 {
            let block = Superblock { generation, clean: generation == 5 };
            block.write(&disk, &path).unwrap();
            assert_eq!(Superblock::read(&disk, &path).unwrap(), Found::Valid(block));
        }
        let good = fs::read(&path).unwrap();
        for at in SLOT..2 * SLOT {
            let mut torn = good.clone();
            torn[at] ^= 0x10;
            fs::write(&path, torn).unwrap();
            let before = Superblock { generation: 4, clean: false };
            assert_eq!(Superblock::read(&disk, &path).unwrap(), Found::Valid(before), "byte {at}");
        }
        for length in [0, 1, 100, SLOT - 1] {
            fs::write(&path, &good[..length]).unwrap();
            assert_eq!(Superblock::read(&disk, &path).unwrap(), Found::Damaged);
        }
        // A file that is too short is mended by the next write.
        Superblock { generation: 6, clean: false }.write(&disk, &path).unwrap();
        let Found::Valid(read) = Superblock::read(&disk, &path).unwrap() else { panic!("mended") };
        assert_eq!(read.generation, 6);
    }
}
