//! What the catalog alone would know, once more as a plain file.
//!
//! Tombstones, metadata, tenants, cursors and exemplars reach the log first and the catalog later. Before
//! the log lets them go they are written here, so that a lost catalog can be rebuilt from the ledger, the
//! part footers and what is left of the log. The file is replaced whole; each row has its own checksum, so
//! that damage costs the rows it lies on. The format is drawn in `schema/disk/catalog.md`.

use std::{io, path::Path, sync::Arc};

use super::{
    super::{
        chunk::{
            Damaged,
            bytes::{Reader, put_length},
        },
        disk::{Disk, contents, replace},
    },
    rows::{Cursor, ExemplarRow, MetadataRow, Row, TenantRow, Tombstone},
};
use crate::storage::{Result, StorageError};

/// The ledger's name in the data directory.
pub const LEDGER: &str = "LEDGER";

const MAGIC: &[u8; 8] = b"LUMILEDG";
const FORMAT: u32 = 1;
const HEADER: usize = 28;
const FRAME_HEADER: usize = 8;

/// What the catalog alone would know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// The log position up to which it is complete.
    pub covers_wal: u64,
    /// The tenants.
    pub tenants: Vec<TenantRow>,
    /// What is known of their metrics.
    pub metadata: Vec<MetadataRow>,
    /// What they deleted.
    pub tombstones: Vec<Tombstone>,
    /// Numbers by name.
    pub cursors: Vec<Cursor>,
    /// Exemplars, series by series.
    pub exemplars: Vec<ExemplarRow>,
}

/// A ledger, and what of it does not read back.
#[derive(Debug, Default)]
pub struct LedgerRead {
    /// All rows that read back.
    pub ledger: Ledger,
    /// What does not.
    pub damage: Vec<StorageError>,
}

/// Replaces the ledger, durably: its size.
pub fn write(disk: &Arc<dyn Disk>, path: &Path, ledger: &Ledger) -> Result<u64> {
    let bytes = encode(ledger)?;
    replace(disk, path, &bytes).map_err(|e| StorageError::io("writing the ledger", e))?;
    Ok(bytes.len() as u64)
}

/// Reads the ledger; none if there is no file.
pub fn read(disk: &Arc<dyn Disk>, path: &Path) -> Result<Option<LedgerRead>> {
    let bytes = contents(disk.as_ref(), path).map_err(|e| StorageError::io("reading the ledger", e))?;
    Ok(bytes.map(|bytes| decode(path, &bytes)))
}

fn encode(ledger: &Ledger) -> Result<Vec<u8>> {
    let mut out = vec![0; HEADER];
    let mut frames = 0;
    put_all(&ledger.tenants, &mut out, &mut frames)?;
    put_all(&ledger.metadata, &mut out, &mut frames)?;
    put_all(&ledger.tombstones, &mut out, &mut frames)?;
    put_all(&ledger.cursors, &mut out, &mut frames)?;
    put_all(&ledger.exemplars, &mut out, &mut frames)?;
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    out[12..20].copy_from_slice(&ledger.covers_wal.to_le_bytes());
    out[20..24].copy_from_slice(&frames.to_le_bytes());
    let crc = crc32c::crc32c(&out[..24]);
    out[24..28].copy_from_slice(&crc.to_le_bytes());
    Ok(out)
}

fn put_all<R: Row>(rows: &[R], out: &mut Vec<u8>, frames: &mut u32) -> Result<()> {
    for row in rows {
        let (key, value) = (row.key(), row.value());
        let mut payload = vec![R::TABLE.prefix()];
        put_length(&mut payload, key.len());
        payload.extend_from_slice(&key);
        payload.extend_from_slice(&value);
        let too_large = || StorageError::io("writing the ledger", io::ErrorKind::FileTooLarge.into());
        let length = u32::try_from(payload.len()).map_err(|_| too_large())?.to_le_bytes();
        out.extend_from_slice(&length);
        out.extend_from_slice(&frame_crc(length, &payload).to_le_bytes());
        out.extend_from_slice(&payload);
        *frames = frames.checked_add(1).ok_or_else(too_large)?;
    }
    Ok(())
}

fn frame_crc(length: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), payload)
}

fn decode(path: &Path, bytes: &[u8]) -> LedgerRead {
    let mut read = LedgerRead::default();
    let corrupt = |offset: usize, detail: &str| StorageError::Corrupt {
        path: path.to_owned(),
        offset: offset as u64,
        detail: detail.to_owned(),
    };
    // Without its header the rows can still be read; only their number is not known.
    let frames = match header(bytes) {
        Ok((covers_wal, frames)) => {
            read.ledger.covers_wal = covers_wal;
            Some(frames)
        }
        Err(damaged) => {
            read.damage.push(corrupt(0, damaged.0));
            None
        }
    };
    let (mut at, mut seen) = (HEADER, 0_u32);
    while at + FRAME_HEADER < bytes.len() && frames.is_none_or(|frames| seen < frames) {
        let mut reader = Reader::new(&bytes[at..]);
        let Ok((length, crc)) = reader.u32().and_then(|length| Ok((length, reader.u32()?))) else { break };
        let Ok(payload) = reader.take(length as usize) else {
            read.damage.push(corrupt(at, "row is longer than the file"));
            break;
        };
        if crc != frame_crc(length.to_le_bytes(), payload) {
            read.damage.push(corrupt(at, "row's checksum is wrong"));
        } else if let Err(damaged) = take_row(payload, &mut read.ledger) {
            read.damage.push(corrupt(at, damaged.0));
        }
        at += FRAME_HEADER + payload.len();
        seen = seen.saturating_add(1);
    }
    if frames.is_some_and(|frames| seen < frames) && read.damage.is_empty() {
        read.damage.push(corrupt(at, "ledger ends early"));
    }
    read
}

fn header(bytes: &[u8]) -> Result<(u64, u32), Damaged> {
    let bytes = bytes.get(..HEADER).ok_or(Damaged("ledger is shorter than its header"))?;
    let mut reader = Reader::new(&bytes[8..]);
    let (format, covers_wal, frames, crc) = (reader.u32()?, reader.u64()?, reader.u32()?, reader.u32()?);
    if &bytes[..8] != MAGIC || crc != crc32c::crc32c(&bytes[..24]) {
        return Err(Damaged("ledger's header is wrong"));
    }
    if format != FORMAT {
        return Err(Damaged("ledger is of a format this version does not know"));
    }
    Ok((covers_wal, frames))
}

fn take_row(payload: &[u8], ledger: &mut Ledger) -> Result<(), Damaged> {
    let mut reader = Reader::new(payload);
    let table = reader.u8()?;
    let length = reader.varint_usize()?;
    let key = reader.take(length)?;
    let value = reader.rest();
    if table == TenantRow::TABLE.prefix() {
        ledger.tenants.push(TenantRow::decode(key, value)?);
    } else if table == MetadataRow::TABLE.prefix() {
        ledger.metadata.push(MetadataRow::decode(key, value)?);
    } else if table == Tombstone::TABLE.prefix() {
        ledger.tombstones.push(Tombstone::decode(key, value)?);
    } else if table == Cursor::TABLE.prefix() {
        ledger.cursors.push(Cursor::decode(key, value)?);
    } else if table == ExemplarRow::TABLE.prefix() {
        ledger.exemplars.push(ExemplarRow::decode(key, value)?);
    } else {
        return Err(Damaged("row is of an unknown table"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        model::{Exemplar, Labels, Matcher, Metadata, MetricType, TenantId, TimeRange, Timestamp},
        storage::embedded::disk::SystemDisk,
    };

    fn ledger() -> Ledger {
        let tenant = TenantId::new("a").unwrap();
        let metadata = |metric: &str| Metadata {
            metric: metric.into(),
            kind: MetricType::Counter,
            help: "help".into(),
            unit: String::new(),
        };
        Ledger {
            covers_wal: 99,
            tenants: vec![TenantRow { tenant: tenant.clone(), created: Timestamp(3) }],
            metadata: ["up", "down"]
                .map(|metric| MetadataRow { tenant: tenant.clone(), metadata: metadata(metric) })
                .to_vec(),
            tombstones: vec![Tombstone {
                tenant: tenant.clone(),
                sequence: 1,
                matchers: vec![vec![Matcher::equal("a", "b")]],
                range: TimeRange::ALL,
            }],
            cursors: vec![Cursor { name: "next part".into(), value: 5 }],
            exemplars: vec![ExemplarRow {
                tenant,
                series: Labels::from_pairs([("__name__", "up")]).unwrap(),
                exemplars: vec![Exemplar { labels: Labels::empty(), value: 1.0, timestamp: Timestamp(4) }],
            }],
        }
    }

    #[test]
    fn what_was_written_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let path = dir.path().join(LEDGER);
        assert!(read(&disk, &path).unwrap().is_none());
        for ledger in [Ledger::default(), ledger()] {
            let size = write(&disk, &path, &ledger).unwrap();
            assert_eq!(size, fs::metadata(&path).unwrap().len());
            let back = read(&disk, &path).unwrap().unwrap();
            assert_eq!(back.ledger, ledger);
            assert!(back.damage.is_empty());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn damage_is_reported_and_costs_only_its_row() {
        let good = encode(&ledger()).unwrap();
        let rows = |read: &LedgerRead| {
            let ledger = &read.ledger;
            ledger.tenants.len()
                + ledger.metadata.len()
                + ledger.tombstones.len()
                + ledger.cursors.len()
                + ledger.exemplars.len()
        };
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            let read = decode(Path::new("x"), &bad);
            assert!(!read.damage.is_empty(), "byte {at}");
            if at < HEADER {
                assert_eq!(rows(&read), 6);
            }
            let cut = decode(Path::new("x"), &good[..at]);
            assert!(!cut.damage.is_empty(), "cut at {at}");
        }
        // In the payload of the first row.
        let mut bad = good.clone();
        bad[HEADER + FRAME_HEADER + 1] ^= 1;
        assert_eq!(rows(&decode(Path::new("x"), &bad)), 5);
    }
}
