//! Looking whether everything in a data directory reads back, and mending what does not.
//!
//! ```text
//! look:    parts ─ log ─ LEDGER, DOCUMENTS, SUPERBLOCK ─ catalog ─ snapshots ──▶ Report
//! mend:    a damaged part ──▶ second name in quarantine/, what of it reads back in a new part that replaces it
//!          the rest       ──▶ opened, flushed into parts, books written anew, closed ──▶ looked at again
//! ```
//!
//! 1. [`look`] reads every byte and changes none. A [`Finding`] says where, what, and which samples went with it.
//! 2. [`mend`] does what a start and a flush do, and for parts what those do not: they serve a part around its damage,
//!    and this writes what of it still reads back to a part without any. Each step leaves a store that opens and that has
//!    everything which could be read before, so it may be cut off anywhere and done again.
//! 3. A bit that is turned is set right where a checksum names it; that loses nothing.
//! 4. Only what was read and is wrong is damage. What the system does not let us read today ([`Unread`]) may be whole, and
//!    while there is any, nothing is mended.
//!
//! What is damaged stays in `quarantine/` until a person removes it.

mod books;
mod log;
mod parts;
mod repair;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use hashbrown::HashMap;

use super::{
    catalog::PartRow,
    disk::Disk,
    lock::Lock,
    part::{Damage, PartId},
    quarantine::QUARANTINE,
};
use crate::{
    model::TimeRange,
    storage::{Result, StorageError},
};

pub use repair::{Repair, mend};

/// How a data directory is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nobody else has it.
    Alone,
    /// A server may be writing to it: what is being written is left out.
    Live,
}

/// What was looked at, and what of it does not read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Parts among them.
    pub parts: u64,
    /// Samples that read back, those that are there twice counted twice.
    pub samples: u64,
    /// What does not read back.
    pub findings: Vec<Finding>,
    /// What could not be read: nobody knows whether it would read back.
    pub unread: Vec<Unread>,
    /// What is good to know and is no damage.
    pub notes: Vec<String>,
}

/// A file that could not be read, now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// The file, as seen from the data directory.
    pub file: String,
    /// What the operating system said.
    pub why: String,
}

/// Something that does not read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// The file, as seen from the data directory.
    pub file: String,
    /// Where in it, if that is known.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// What went with it.
    pub lost: Lost,
}

/// What went with something that does not read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Whether nobody can say how much it is; then it is more than these.
    pub unknown: bool,
    /// So many series lost something.
    pub series: u64,
    /// So many samples.
    pub samples: u64,
    /// Between which times.
    pub range: Option<TimeRange>,
    /// Some of the series, with their tenants.
    pub examples: Vec<String>,
}

impl Lost {
    /// Nobody can say what.
    fn unknown() -> Self {
        Self { unknown: true, ..Self::default() }
    }

    /// Whether everything is still there.
    pub fn is_nothing(&self) -> bool {
        !self.unknown && self.series == 0 && self.samples == 0
    }
}

impl From<Damage> for Lost {
    fn from(damage: Damage) -> Self {
        let Damage { series, samples, range, examples, .. } = damage;
        Self { unknown: series > 0 && samples == 0, series, samples, range, examples }
    }
}

impl Report {
    fn find(&mut self, file: &str, offset: Option<u64>, what: String, lost: Lost) {
        self.findings.push(Finding { file: file.to_owned(), offset, what, lost });
    }

    /// What was read of a file; nothing if it could not be, which is noted.
    fn of<T>(&mut self, file: &str, read: Result<T>) -> Result<Option<T>> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(StorageError::Io { source, .. }) => {
                self.not_read(file, &source);
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    fn not_read(&mut self, file: &str, error: &std::io::Error) {
        self.unread.push(Unread { file: file.to_owned(), why: error.to_string() });
    }
}

/// What repair has to know beside the report.
#[derive(Debug, Default)]
struct Looked {
    report: Report,
    parts: Vec<Broken>,
    /// The greatest id that was ever used.
    last_part: u64,
    ledger_is_damaged: bool,
}

/// A part that does not serve all that it had.
#[derive(Debug)]
struct Broken {
    path: PathBuf,
    /// Whether anything of it reads back.
    opens: bool,
    /// Whether it lies in the quarantine.
    aside: bool,
}

/// Reads everything in a data directory.
pub fn look(disk: &Arc<dyn Disk>, data_dir: &Path, access: Access) -> Result<Report> {
    let _held = match access {
        Access::Alone => Lock::hold(data_dir)?,
        Access::Live => None,
    };
    look_closely(disk, data_dir, access).map(|looked| looked.report)
}

fn look_closely(disk: &Arc<dyn Disk>, data_dir: &Path, access: Access) -> Result<Looked> {
    let live = access == Access::Live;
    let entries = list(disk, data_dir)?;
    let ours = ["parts", "wal"].iter().any(|name| entries.iter().any(|e| e.is_dir && e.name == *name));
    if !ours {
        return Err(StorageError::Unavailable {
            detail: format!(
                "{} is no data directory: there are no parts and no log in it",
                data_dir.display()
            ),
            retry_after: None,
        });
    }
    let mut looked = Looked::default();
    let rows = books::catalog(disk, data_dir, live, &mut looked.report)?;
    let covered = parts::look(disk, data_dir, live, &rows, &mut looked)?;
    looked.ledger_is_damaged = books::look(disk, data_dir, data_dir, &mut looked.report)?;
    if !live {
        books::superblock(disk, data_dir, &mut looked.report)?;
    }
    log::look(disk, data_dir, covered, live, &mut looked.report)?;
    let snapshots = data_dir.join("snapshots");
    for snapshot in list(disk, &snapshots)?.into_iter().filter(|e| e.is_dir && !e.name.ends_with(".tmp")) {
        let inside = snapshots.join(&snapshot.name);
        parts::look_at_copies(disk, data_dir, &inside, &mut looked.report)?;
        books::look(disk, data_dir, &inside, &mut looked.report)?;
    }
    let aside = list(disk, &data_dir.join(QUARANTINE))?.len();
    if aside > 0 {
        looked
            .report
            .notes
            .push(format!("{aside} files are in quarantine/, for a person to look at and remove"));
    }
    Ok(looked)
}

/// The catalog's rows of parts, by part.
type Rows = HashMap<PartId, PartRow>;

fn list(disk: &Arc<dyn Disk>, path: &Path) -> Result<Vec<super::disk::Entry>> {
    disk.list(path).map_err(|e| StorageError::io(format!("listing {}", path.display()), e))
}

/// A file as seen from the data directory.
fn relative(data_dir: &Path, path: &Path) -> String {
    path.strip_prefix(data_dir).unwrap_or(path).display().to_string()
}
