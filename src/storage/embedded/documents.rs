//! Small texts of tenants, in a file that is replaced whole; drawn in `schema/disk/documents.md`.
//!
//! They are few and seldom change: all are in memory, and a change is durable before it is seen.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    chunk::{
        Damaged,
        bytes::{Reader, put_length},
    },
    disk::{Disk, contents, replace},
};
use crate::{
    model::TenantId,
    storage::{DocumentKind, Result, StorageError},
};

/// The file's name in the data directory.
pub(super) const DOCUMENTS: &str = "DOCUMENTS";

const MAGIC: &[u8; 8] = b"LUMIDOCS";
const FORMAT: u32 = 1;
const HEADER: usize = 20;
const ROW_HEADER: usize = 8;

/// Texts by kind and tenant; of kinds that other versions know, too.
pub(super) type Texts = BTreeMap<(String, TenantId), String>;

/// The texts, and the file they are in.
#[derive(Debug)]
pub(super) struct Documents {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Held while the file is replaced, so that it only ever goes from one state to the next.
    texts: Mutex<Texts>,
}

impl Documents {
    /// Reads what there is, and tells what of it does not read back.
    pub(super) fn open(disk: &Arc<dyn Disk>, data_dir: &Path) -> Result<(Self, Vec<String>)> {
        let path = data_dir.join(DOCUMENTS);
        let (texts, damage) = read(disk.as_ref(), &path)?;
        if !damage.is_empty() {
            keep_damaged(disk.as_ref(), data_dir, &path);
        }
        Ok((Self { disk: Arc::clone(disk), path, texts: Mutex::new(texts) }, damage))
    }

    /// Keeps a text in place of the one before, or removes it; durable when it returns.
    pub(super) fn put(&self, tenant: &TenantId, kind: DocumentKind, text: Option<String>) -> Result<()> {
        let mut texts = self.texts.lock();
        let mut changed = texts.clone();
        let key = (kind.as_str().to_owned(), tenant.clone());
        match text {
            Some(text) => changed.insert(key, text),
            None => changed.remove(&key),
        };
        if *texts != changed {
            replace(&self.disk, &self.path, &encode(&changed)?)
                .map_err(|e| StorageError::io("writing the documents", e))?;
            *texts = changed;
        }
        Ok(())
    }

    /// Writes what was read, if there is a file.
    pub(super) fn write_anew(&self) -> Result<()> {
        let texts = self.texts.lock();
        match self.disk.open(&self.path) {
            Ok(_) => replace(&self.disk, &self.path, &encode(&texts)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
        .map_err(|e| StorageError::io("writing the documents", e))
    }

    /// All texts of a kind, by tenant.
    pub(super) fn all(&self, kind: DocumentKind) -> Vec<(TenantId, String)> {
        let texts = self.texts.lock();
        let of_kind = texts.iter().filter(|((k, _), _)| k == kind.as_str());
        of_kind.map(|((_, tenant), text)| (tenant.clone(), text.clone())).collect()
    }
}

/// What of a file of documents does not read back.
pub(super) fn damage(disk: &dyn Disk, path: &Path) -> Result<Vec<String>> {
    read(disk, path).map(|(_, damage)| damage)
}

/// Reads what there is of a file, and tells what of it does not read back.
pub(super) fn read(disk: &dyn Disk, path: &Path) -> Result<(Texts, Vec<String>)> {
    let bytes = contents(disk, path).map_err(|e| StorageError::io("reading the documents", e))?;
    let Some(bytes) = bytes else { return Ok(Default::default()) };
    let (texts, damage) = decode(&bytes);
    let told = |(offset, what): (usize, &str)| format!("{DOCUMENTS} is damaged at byte {offset}: {what}");
    Ok((texts, damage.into_iter().map(told).collect()))
}

/// Lets a person look at what the next change replaces.
fn keep_damaged(disk: &dyn Disk, data_dir: &Path, path: &Path) {
    let quarantine = data_dir.join("quarantine");
    let kept = disk
        .create_dir_all(&quarantine)
        .and_then(|()| disk.hard_link(path, &quarantine.join(DOCUMENTS)))
        .and_then(|()| disk.sync_dir(&quarantine));
    match kept {
        Ok(()) => {}
        // One that was damaged before says more than one that was made of what was left.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => tracing::error!(%error, "the damaged documents could not be kept aside"),
    }
}

fn encode(texts: &Texts) -> Result<Vec<u8>> {
    let too_large = || StorageError::io("writing the documents", io::ErrorKind::FileTooLarge.into());
    let mut out = vec![0; HEADER];
    for ((kind, tenant), text) in texts {
        let mut row = Vec::with_capacity(text.len() + 64);
        put_length(&mut row, kind.len());
        row.extend_from_slice(kind.as_bytes());
        put_length(&mut row, tenant.as_str().len());
        row.extend_from_slice(tenant.as_str().as_bytes());
        row.extend_from_slice(text.as_bytes());
        let length = u32::try_from(row.len()).map_err(|_| too_large())?.to_le_bytes();
        out.extend_from_slice(&length);
        out.extend_from_slice(&row_crc(length, &row).to_le_bytes());
        out.extend_from_slice(&row);
    }
    let rows = u32::try_from(texts.len()).map_err(|_| too_large())?;
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    out[12..16].copy_from_slice(&rows.to_le_bytes());
    let crc = crc32c::crc32c(&out[..16]);
    out[16..20].copy_from_slice(&crc.to_le_bytes());
    Ok(out)
}

fn row_crc(length: [u8; 4], row: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), row)
}

/// All rows that read back, and what does not, by where it begins.
fn decode(bytes: &[u8]) -> (Texts, Vec<(usize, &'static str)>) {
    let mut texts = Texts::new();
    let mut damage = Vec::new();
    // Without its header the rows can still be read; only their number is not known.
    let rows = header(bytes).map_err(|damaged| damage.push((0, damaged.0))).ok();
    let (mut at, mut seen) = (HEADER, 0_u32);
    while at + ROW_HEADER < bytes.len() && rows.is_none_or(|rows| seen < rows) {
        let mut reader = Reader::new(&bytes[at..]);
        let Ok((length, crc)) = reader.u32().and_then(|length| Ok((length, reader.u32()?))) else { break };
        let Ok(row) = reader.take(length as usize) else {
            damage.push((at, "a row is longer than the file"));
            break;
        };
        if crc != row_crc(length.to_le_bytes(), row) {
            damage.push((at, "a row's checksum is wrong"));
        } else {
            match take_row(row) {
                Ok((key, text)) => drop(texts.insert(key, text)),
                Err(damaged) => damage.push((at, damaged.0)),
            }
        }
        at += ROW_HEADER + row.len();
        seen = seen.saturating_add(1);
    }
    if rows.is_some_and(|rows| seen < rows) && damage.is_empty() {
        damage.push((at, "it ends early"));
    }
    (texts, damage)
}

fn header(bytes: &[u8]) -> Result<u32, Damaged> {
    let bytes = bytes.get(..HEADER).ok_or(Damaged("it is shorter than its header"))?;
    let mut reader = Reader::new(&bytes[8..]);
    let (format, rows, crc) = (reader.u32()?, reader.u32()?, reader.u32()?);
    if &bytes[..8] != MAGIC || crc != crc32c::crc32c(&bytes[..16]) {
        return Err(Damaged("its header is wrong"));
    }
    if format != FORMAT {
        return Err(Damaged("it is of a format this version does not know"));
    }
    Ok(rows)
}

fn take_row(row: &[u8]) -> Result<((String, TenantId), String), Damaged> {
    fn text(bytes: &[u8]) -> Result<&str, Damaged> {
        std::str::from_utf8(bytes).map_err(|_| Damaged("a row is not text"))
    }
    let mut reader = Reader::new(row);
    let length = reader.varint_usize()?;
    let kind = text(reader.take(length)?)?.to_owned();
    let length = reader.varint_usize()?;
    let tenant = TenantId::new(text(reader.take(length)?)?);
    let tenant = tenant.map_err(|_| Damaged("a row is of no tenant"))?;
    Ok(((kind, tenant), text(reader.rest())?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::embedded::{disk::SystemDisk, memory_disk::MemoryDisk};

    const KIND: DocumentKind = DocumentKind::Limits;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn texts() -> Texts {
        let row = |kind: &str, name: &str, text: &str| ((kind.to_owned(), tenant(name)), text.to_owned());
        Texts::from([row("limits", "a", "{}"), row("limits", "b", "é"), row("later", "a", "")])
    }

    #[test]
    fn what_was_put_comes_back_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let open = || {
            let (documents, damage) = Documents::open(&disk, dir.path()).unwrap();
            assert_eq!(damage, [""; 0]);
            documents
        };
        open().put(&tenant("nobody"), KIND, None).unwrap();
        assert!(!dir.path().join(DOCUMENTS).exists(), "nothing changed");
        open().put(&tenant("b"), KIND, Some("1".to_owned())).unwrap();
        open().put(&tenant("a"), KIND, Some("2".to_owned())).unwrap();
        open().put(&tenant("b"), KIND, Some("3".to_owned())).unwrap();
        let all = |pairs: &[(&str, &str)]| -> Vec<(TenantId, String)> {
            pairs.iter().map(|(name, text)| (tenant(name), (*text).to_owned())).collect()
        };
        assert_eq!(open().all(KIND), all(&[("a", "2"), ("b", "3")]));
        open().put(&tenant("a"), KIND, None).unwrap();
        assert_eq!(open().all(KIND), all(&[("b", "3")]));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_put_survives_a_power_cut() {
        let dir = tempfile::tempdir().unwrap();
        let memory = MemoryDisk::new(dir.path(), "kv");
        let disk: Arc<dyn Disk> = Arc::clone(&memory) as Arc<dyn Disk>;
        for i in 0..3 {
            let (documents, _) = Documents::open(&disk, dir.path()).unwrap();
            documents.put(&tenant("a"), KIND, Some(i.to_string())).unwrap();
            memory.lose_power();
            let (documents, damage) = Documents::open(&disk, dir.path()).unwrap();
            assert_eq!((documents.all(KIND), damage), (vec![(tenant("a"), i.to_string())], vec![]));
        }
    }

    #[test]
    fn damage_is_told_and_costs_only_its_row() {
        let good = encode(&texts()).unwrap();
        assert_eq!(decode(&good), (texts(), vec![]));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            let (left, damage) = decode(&bad);
            assert!(!damage.is_empty(), "byte {at}");
            assert!(left.iter().all(|(key, text)| texts().get(key) == Some(text)), "byte {at}");
            if at < HEADER {
                assert_eq!(left, texts());
            }
            assert!(!decode(&good[..at]).1.is_empty(), "cut at {at}");
        }
        let mut bad = good.clone();
        bad[HEADER + ROW_HEADER + 1] ^= 1;
        assert_eq!(decode(&bad).0.len(), 2);
    }

    #[test]
    fn a_damaged_file_is_kept_aside_and_the_rest_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let mut bad = encode(&texts()).unwrap();
        let last = bad.len() - 1;
        bad[last] ^= 1;
        std::fs::write(dir.path().join(DOCUMENTS), &bad).unwrap();
        for _ in 0..2 {
            let (_, damage) = Documents::open(&disk, dir.path()).unwrap();
            assert!(damage[0].contains("DOCUMENTS is damaged at byte"), "{damage:?}");
        }
        let (documents, _) = Documents::open(&disk, dir.path()).unwrap();
        documents.put(&tenant("c"), KIND, Some("new".to_owned())).unwrap();
        assert_eq!(std::fs::read(dir.path().join("quarantine").join(DOCUMENTS)).unwrap(), bad);
        let (documents, damage) = Documents::open(&disk, dir.path()).unwrap();
        assert_eq!(damage, [""; 0]);
        let names: Vec<TenantId> = documents.all(KIND).into_iter().map(|(tenant, _)| tenant).collect();
        assert_eq!(names, [tenant("a"), tenant("c")]);
        let whole = std::fs::read(dir.path().join(DOCUMENTS)).unwrap();
        assert!(decode(&whole).0.contains_key(&("later".to_owned(), tenant("a"))), "other versions' stay");
    }
}
