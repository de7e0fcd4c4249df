//! Whether ledger, documents, superblock and catalog read back.
//!
//! The catalog is opened as a copy, because sled writes where it opens. It lies in the directory for temporary files
//! while it is looked at.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Lost, Report, Rows, relative};
use crate::storage::{
    Result,
    embedded::{
        catalog::{
            CATALOG, Catalog, CatalogConfig, CatalogState, PartRow, SUPERBLOCK,
            ledger::{self, LEDGER},
            superblock::Superblock,
        },
        disk::{Disk, SystemDisk, contents, size_of_dir},
        documents::{self, DOCUMENTS},
    },
};

/// Looks at the ledger and the documents in `dir`; whether the ledger is damaged.
pub(super) fn look(disk: &Arc<dyn Disk>, data_dir: &Path, dir: &Path, report: &mut Report) -> Result<bool> {
    let path = dir.join(LEDGER);
    let file = relative(data_dir, &path);
    count(disk, &path, report);
    let damage = ledger::read(disk, &path)?.map_or_else(Vec::new, |read| read.damage);
    for error in &damage {
        // What the catalog has of it is taken from there.
        report.find(&file, None, error.to_string(), Lost::unknown());
    }
    let path = dir.join(DOCUMENTS);
    let file = relative(data_dir, &path);
    count(disk, &path, report);
    for what in documents::damage(disk.as_ref(), &path)? {
        report.find(&file, None, what, Lost::unknown());
    }
    Ok(!damage.is_empty())
}

/// Looks at the superblock. A slot that does not read back costs nothing: the catalog is made anew.
pub(super) fn superblock(disk: &Arc<dyn Disk>, data_dir: &Path, report: &mut Report) -> Result<()> {
    let path = data_dir.join(SUPERBLOCK);
    count(disk, &path, report);
    for at in Superblock::damaged_slots(disk, &path)? {
        report.find(SUPERBLOCK, Some(at), "a slot does not read back".to_owned(), Lost::default());
    }
    Ok(())
}

/// Looks at the catalog: the parts that must be there.
pub(super) fn catalog(
    disk: &Arc<dyn Disk>,
    data_dir: &Path,
    live: bool,
    report: &mut Report,
) -> Result<Rows> {
    if live {
        report
            .notes
            .push("the catalog is in use and was left out; it is made anew if it is damaged".to_owned());
        return Ok(Rows::new());
    }
    report.bytes += size_of_dir(disk.as_ref(), &data_dir.join(CATALOG)).unwrap_or(0);
    let copy = match Copy::of(disk, data_dir) {
        Ok(copy) => copy,
        Err(error) => {
            report.notes.push(format!("the catalog could not be copied to look at it: {error}"));
            return Ok(Rows::new());
        }
    };
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    let config = CatalogConfig { data_dir: copy.0.clone(), min_free_bytes: 0 };
    let rows = match Catalog::open(&disk, &config)? {
        CatalogState::Absent => return Ok(Rows::new()),
        CatalogState::Rebuild { reason } => Err(reason),
        CatalogState::Ready { catalog, .. } => catalog.rows::<PartRow>().map_err(|error| error.to_string()),
    };
    match rows {
        Ok(rows) => Ok(rows.into_iter().map(|row| (row.id, row)).collect()),
        Err(reason) => {
            report.find(CATALOG, None, reason, Lost::default());
            Ok(Rows::new())
        }
    }
}

fn count(disk: &Arc<dyn Disk>, path: &Path, report: &mut Report) {
    if let Ok(length) = disk.open(path).and_then(|file| file.len()) {
        report.files += 1;
        report.bytes += length;
    }
}

/// A copy of the catalog and its superblock, which goes when it is dropped.
struct Copy(PathBuf);

impl Copy {
    fn of(disk: &Arc<dyn Disk>, data_dir: &Path) -> io::Result<Self> {
        let all = std::env::temp_dir();
        let names = (0_u32..).map(|n| all.join(format!("luminate-verify-{}-{n}", std::process::id())));
        for path in names {
            let mut builder = fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            match builder.create(&path) {
                Ok(()) => {
                    let copy = Self(path);
                    copy_dir(&data_dir.join(CATALOG), &copy.0.join(CATALOG))?;
                    if let Some(superblock) = contents(disk.as_ref(), &data_dir.join(SUPERBLOCK))? {
                        fs::write(copy.0.join(SUPERBLOCK), superblock)?;
                    }
                    return Ok(copy);
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What stays is a copy in a directory for such things.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(from) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    fs::create_dir_all(to)?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
