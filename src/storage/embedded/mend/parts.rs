//! Whether parts read back, and whether all are there.

use std::{io, path::Path, sync::Arc};

use hashbrown::HashSet;

use super::{Broken, Looked, Lost, Report, Rows, list, relative};
use crate::storage::{
    Result, StorageError,
    embedded::{
        catalog::PartRow,
        disk::Disk,
        part::{Mended, PartId, PartMeta, mended},
        quarantine::{self, QUARANTINE},
    },
};

/// Looks at all parts: the last segment of the log that is in them.
pub(super) fn look(
    disk: &Arc<dyn Disk>,
    data_dir: &Path,
    live: bool,
    rows: &Rows,
    looked: &mut Looked,
) -> Result<u64> {
    let dir = data_dir.join("parts");
    let (mut seen, mut replaced, mut covered) = (HashSet::new(), HashSet::new(), 0);
    for day in list(disk, &dir)?.into_iter().filter(|entry| entry.is_dir) {
        let day_dir = dir.join(&day.name);
        for entry in list(disk, &day_dir)? {
            let Some(id) = PartId::from_file_name(&entry.name) else { continue };
            let path = day_dir.join(&entry.name);
            let before = looked.report.findings.len();
            let Some(meta) = part(disk, data_dir, &path, live, rows.get(&id), &mut looked.report)? else {
                // A merge has put another in its place.
                continue;
            };
            seen.insert(id);
            if looked.report.findings.len() > before {
                looked.parts.push(Broken { path, opens: meta.is_some(), aside: false });
            }
            if let Some(meta) = meta {
                replaced.extend(meta.replaces);
                covered = covered.max(meta.covers_wal);
            }
        }
    }
    // The next start removes these.
    let waste = |path: &Path| {
        path.file_name()
            .and_then(|name| PartId::from_file_name(&name.to_string_lossy()))
            .is_some_and(|id| replaced.contains(&id))
    };
    looked.parts.retain(|broken| !waste(&broken.path));
    looked.report.findings.retain(|finding| !waste(Path::new(&finding.file)));
    looked.report.unread.retain(|unread| !waste(Path::new(&unread.file)));
    let aside = quarantine::parts(disk.as_ref(), data_dir)
        .map_err(|e| StorageError::io(format!("listing {QUARANTINE}/"), e))?;
    let aside: HashSet<PartId> = aside.into_iter().collect();
    for (id, row) in rows.iter().filter(|(id, _)| !seen.contains(*id) && !replaced.contains(*id)) {
        let path = format!("parts/{id}.part");
        let what = if aside.contains(id) { "the part is in quarantine" } else { "the part is missing" };
        looked.report.find(&path, None, what.to_owned(), all_of(row));
    }
    for id in aside.iter().filter(|id| !seen.contains(*id) && !replaced.contains(*id)) {
        look_aside(disk, data_dir, *id, looked)?;
    }
    let ids = seen.iter().chain(&replaced).chain(&aside).chain(rows.keys());
    looked.last_part = ids.map(|id| id.0).max().unwrap_or(0);
    Ok(covered)
}

/// Looks whether a part in quarantine could serve.
fn look_aside(disk: &Arc<dyn Disk>, data_dir: &Path, id: PartId, looked: &mut Looked) -> Result<()> {
    let path = data_dir.join(QUARANTINE).join(id.file_name());
    let Mended { part, damage, samples: left, .. } = match mended(disk, &path) {
        Ok(mended) => mended,
        Err(StorageError::Io { source, .. }) => {
            looked.report.not_read(&relative(data_dir, &path), &source);
            return Ok(());
        }
        // Nothing of it is worth more than a look.
        Err(_) => return Ok(()),
    };
    let meta = part.meta();
    let lost: u64 = damage.iter().map(|damage| damage.samples).sum();
    if left > 0 {
        let file = relative(data_dir, &path);
        let what = format!("it was set aside, and {left} samples of it read back");
        looked.report.find(&file, None, what, Lost { samples: lost, range: meta.range, ..Lost::default() });
        looked.parts.push(Broken { path, opens: true, aside: true });
    }
    Ok(())
}

/// Looks at the parts of a snapshot that are not also among the parts of the store.
pub(super) fn look_at_copies(
    disk: &Arc<dyn Disk>,
    data_dir: &Path,
    snapshot: &Path,
    report: &mut Report,
) -> Result<()> {
    for day in list(disk, &snapshot.join("parts"))?.into_iter().filter(|entry| entry.is_dir) {
        let day_dir = snapshot.join("parts").join(&day.name);
        let known: HashSet<String> =
            list(disk, &data_dir.join("parts").join(&day.name))?.into_iter().map(|e| e.name).collect();
        for entry in list(disk, &day_dir)? {
            if PartId::from_file_name(&entry.name).is_some() && !known.contains(&entry.name) {
                part(disk, data_dir, &day_dir.join(&entry.name), true, None, report)?;
            }
        }
    }
    Ok(())
}

/// Looks at one part: what it says of itself if it can be opened; nothing if it has gone, and that may be.
#[expect(clippy::option_option, reason = "a part that has gone is another thing than one that does not open")]
fn part(
    disk: &Arc<dyn Disk>,
    data_dir: &Path,
    path: &Path,
    may_go: bool,
    row: Option<&PartRow>,
    report: &mut Report,
) -> Result<Option<Option<PartMeta>>> {
    let file = relative(data_dir, path);
    let length = match disk.open(path).and_then(|file| file.len()) {
        Ok(length) => length,
        Err(e) if may_go && e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => {
            report.not_read(&file, &e);
            return Ok(Some(None));
        }
    };
    report.files += 1;
    report.bytes += length;
    report.parts += 1;
    let opened = mended(disk, path);
    let (offset, what) = match opened {
        Ok(Mended { part, bits, damage, samples, .. }) => {
            for bit in bits {
                let what = "a bit is turned; it can be set right".to_owned();
                report.find(&file, Some(bit.offset), what, Lost::default());
            }
            let meta = part.meta().clone();
            report.samples += samples;
            for damage in damage {
                report.find(&file, Some(damage.offset), damage.what.clone(), damage.into());
            }
            return Ok(Some(Some(meta)));
        }
        Err(StorageError::Corrupt { offset, detail, .. }) => (offset, detail),
        Err(StorageError::Io { source, .. }) if may_go && source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(StorageError::Io { source, .. }) => {
            report.not_read(&file, &source);
            return Ok(Some(None));
        }
        Err(other) => return Err(other),
    };
    report.find(&file, Some(offset), what, row.map_or_else(Lost::unknown, all_of));
    Ok(Some(None))
}

/// All that the catalog says a part had.
fn all_of(row: &PartRow) -> Lost {
    Lost {
        unknown: false,
        series: u64::from(row.series),
        samples: row.samples + row.histograms,
        range: row.range,
        examples: Vec::new(),
    }
}
