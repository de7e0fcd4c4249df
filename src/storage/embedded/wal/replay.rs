//! Reading the log back at the start.
//!
//! Segments are read in order. In one that has a successor everything up to the end that the successor names must
//! read back; the last one may be torn. What is damaged is copied to `quarantine/` and stepped over, and
//! everything else is handed on.

use std::path::Path;

use super::{
    frame::{Found, SEGMENT_START},
    record::{Record, decode},
    segment::Segment,
    segment_path, segments,
};
use crate::storage::{Result, StorageError, embedded::disk::Disk};

/// What the log held.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// The first segment's number.
    pub(crate) first: Option<u64>,
    /// The last segment's number.
    pub(crate) last: Option<u64>,
    /// Where it ends.
    pub(crate) end: u64,
    /// The highest epoch.
    pub(crate) epoch: u64,
    /// Bytes of records.
    pub(crate) bytes: u64,
    /// What did not read back, for a person.
    pub(crate) damage: Vec<String>,
}

/// Reads all segments and hands on their records, in order, with their epoch.
pub(crate) fn replay(
    disk: &dyn Disk,
    dir: &Path,
    quarantine: &Path,
    mut each: impl FnMut(u64, Record<'_>),
) -> Result<Replayed> {
    let mut replayed = Replayed::default();
    let all = segments(disk, dir)?;
    let all: Vec<Segment> = all.into_iter().map(|seq| open(disk, dir, seq)).collect::<Result<_>>()?;
    for (i, segment) in all.iter().enumerate() {
        let next = all.get(i + 1);
        let seq = segment.seq;
        let reading = |e| StorageError::io(format!("reading log segment {seq:016x}"), e);
        replayed.first = replayed.first.or(Some(seq));
        replayed.last = Some(seq);
        replayed.end = SEGMENT_START as u64;
        let Some(header) = segment.header else {
            if segment.had_something(next).map_err(reading)? {
                replayed.damage.push(format!("log segment {seq:016x} has no readable header"));
                copy_aside(disk, dir, quarantine, segment);
            }
            continue;
        };
        replayed.epoch = replayed.epoch.max(header.epoch);
        let mut damage = Vec::new();
        let end = segment.walk(header, next, |found| match found {
            Found::Frame { at, kind, payload } => match decode(kind, payload) {
                Some(record) => each(header.epoch, record),
                None => damage.push(format!("log segment {seq:016x}: record at {at} is not readable")),
            },
            Found::Hole { from, to } => {
                damage.push(format!("log segment {seq:016x}: bytes {from} to {to} are damaged"));
            }
        });
        let end = end.map_err(reading)?;
        let damaged = !damage.is_empty();
        replayed.damage.append(&mut damage);
        replayed.end = end as u64;
        replayed.bytes += (end - SEGMENT_START.min(end)) as u64;
        if damaged {
            copy_aside(disk, dir, quarantine, segment);
        }
        if next.is_none() && !damaged {
            cut_torn_tail(disk, dir, segment, end as u64);
        }
    }
    Ok(replayed)
}

fn open(disk: &dyn Disk, dir: &Path, seq: u64) -> Result<Segment> {
    let context = |e| StorageError::io(format!("opening {}", segment_path(dir, seq).display()), e);
    let mut segment = Segment::open(disk, dir, seq).map_err(context)?;
    segment.read_header().map_err(context)?;
    Ok(segment)
}

/// Keeps a copy of a damaged segment; the segment itself goes its way.
fn copy_aside(disk: &dyn Disk, dir: &Path, quarantine: &Path, segment: &Segment) {
    let name = format!("{:016x}.seg", segment.seq);
    let copied = disk.create_dir_all(quarantine).and_then(|()| {
        disk.hard_link(&segment_path(dir, segment.seq), &quarantine.join(&name))?;
        disk.sync_dir(quarantine)
    });
    match copied {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => tracing::error!(%error, name, "a damaged log segment could not be set aside"),
    }
}

/// Cuts what was never acknowledged off the last segment.
fn cut_torn_tail(disk: &dyn Disk, dir: &Path, segment: &Segment, end: u64) {
    if end < segment.length {
        let cut = disk.open_write(&segment_path(dir, segment.seq)).and_then(|mut file| {
            file.truncate(end)?;
            file.sync_all()
        });
        if let Err(error) = cut {
            // The next segment's header says where this one ends, so nothing depends on it.
            tracing::warn!(%error, "the end of the log could not be cut");
        }
    }
}
