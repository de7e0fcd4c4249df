//! Reading the log back at the start.
//!
//! Segments are read in order. In one that has a successor everything up to the end that the successor names must
//! read back; the last one may be torn. What is damaged is kept in `quarantine/` and stepped over, and
//! everything else is handed on.

use std::{path::Path, sync::Arc};

use super::{
    frame::{Found, MAX_PAYLOAD, SEGMENT_START, Scan, SegmentHeader, frame_size, length_at},
    record::{Kind, Record, decode},
    segment_path, segments,
};
use crate::storage::{
    Result, StorageError,
    embedded::{
        disk::{Disk, ReadFile},
        quarantine,
    },
};

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

struct Segment {
    seq: u64,
    file: Arc<dyn ReadFile>,
    length: u64,
    header: Option<SegmentHeader>,
}

/// Reads all segments in `dir` above `covered` and hands on their records, in order, with their epoch.
pub(crate) fn replay(
    disk: &dyn Disk,
    dir: &Path,
    data_dir: &Path,
    covered: u64,
    mut each: impl FnMut(u64, Record<'_>),
) -> Result<Replayed> {
    let mut replayed = Replayed::default();
    let numbers: Vec<u64> = segments(disk, dir)?.into_iter().filter(|n| *n > covered).collect();
    let all: Vec<Segment> = numbers.iter().map(|seq| open(disk, dir, *seq)).collect::<Result<_>>()?;
    for (i, segment) in all.iter().enumerate() {
        let next = all.get(i + 1);
        replayed.first = replayed.first.or(Some(segment.seq));
        replayed.last = Some(segment.seq);
        replayed.end = SEGMENT_START as u64;
        let must_reach = next.and_then(|next| {
            let header = next.header.filter(|_| next.seq == segment.seq + 1)?;
            usize::try_from(header.previous_end).ok()
        });
        let Some(header) = segment.header else {
            // The last segment may have been torn while it was begun; then nothing was in it.
            if next.is_some_and(|_| must_reach != Some(SEGMENT_START)) || segment.has_content()? {
                replayed.damage.push(format!("log segment {:016x} has no readable header", segment.seq));
                copy_aside(disk, dir, data_dir, segment);
            }
            continue;
        };
        replayed.epoch = replayed.epoch.max(header.epoch);
        let mut damage = Vec::new();
        let mut hand_on = |at: usize, kind, payload: &[u8]| match decode(kind, payload) {
            Some(record) => each(header.epoch, record),
            None => damage.push(format!("log segment {:016x}: record at {at} is not readable", segment.seq)),
        };
        // As long as everything reads back a window of it is in memory, and behind that all that is left.
        let from = segment.read_frames(header.salt, must_reach, &mut hand_on)?;
        let bytes = segment.read(from, must_reach)?;
        let mut scan = Scan::new(&bytes, header.salt, from, must_reach);
        let mut holes = Vec::new();
        for found in scan.by_ref() {
            match found {
                Found::Frame { at, kind, payload } => hand_on(at, kind, payload),
                Found::Hole { from, to } => holes.push((from, to)),
            }
        }
        damage.extend(
            holes.into_iter().map(|(from, to)| {
                format!("log segment {:016x}: bytes {from} to {to} are damaged", segment.seq)
            }),
        );
        let damaged = !damage.is_empty();
        replayed.damage.append(&mut damage);
        let end = must_reach.unwrap_or(scan.end());
        replayed.end = end as u64;
        replayed.bytes += (end - SEGMENT_START.min(end)) as u64;
        if damaged {
            copy_aside(disk, dir, data_dir, segment);
        }
        if next.is_none() && !damaged {
            cut_torn_tail(disk, dir, segment, end as u64);
        }
    }
    Ok(replayed)
}

/// What is read of a segment at a time.
const PIECE: usize = 64 << 10;
/// What of a segment is in memory as long as it reads back.
const WINDOW: usize = 1 << 20;

impl Segment {
    /// Up to where it is read: where its successor says it ends, or all of it.
    fn end(&self, must_reach: Option<usize>) -> usize {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        must_reach.unwrap_or(length).min(length)
    }

    fn read_at(&self, place: &mut [u8], at: usize) -> Result<()> {
        self.file
            .read_exact_at(place, at as u64)
            .map_err(|e| StorageError::io(format!("reading log segment {:016x}", self.seq), e))
    }

    /// Hands on frames from the first as long as they read back, and says where that ends.
    fn read_frames(
        &self,
        salt: u64,
        must_reach: Option<usize>,
        mut each: impl FnMut(usize, Kind, &[u8]),
    ) -> Result<usize> {
        let (mut at, mut wanted) = (SEGMENT_START, WINDOW);
        loop {
            let left = self.end(must_reach).saturating_sub(at);
            let mut window = vec![0; wanted.min(left)];
            self.read_at(&mut window, at)?;
            let scan = Scan::new(&window, salt, 0, None);
            let mut good = 0;
            while let Some((kind, payload)) = scan.frame(good) {
                each(at + good, kind, payload);
                good += frame_size(payload.len());
            }
            at += good;
            wanted = WINDOW;
            if good == 0 {
                // One that is longer than the window is read whole.
                let length = length_at(&window, 0).filter(|length| *length <= MAX_PAYLOAD);
                match length.map(frame_size).filter(|size| window.len() < *size && *size <= left) {
                    Some(size) => wanted = size,
                    None => return Ok(at),
                }
            }
        }
    }

    /// Reads it, but for what is before `from`.
    ///
    /// The last one is as long as it may become, and mostly zeros, which take no memory until they are written to:
    /// only pieces that hold something are copied.
    fn read(&self, from: usize, must_reach: Option<usize>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.end(must_reach)];
        let mut scratch = vec![0; PIECE];
        for (i, place) in bytes.chunks_mut(PIECE).enumerate().skip(from / PIECE) {
            let piece = &mut scratch[..place.len()];
            self.read_at(piece, i * PIECE)?;
            if piece.iter().any(|byte| *byte != 0) {
                place.copy_from_slice(piece);
            }
        }
        Ok(bytes)
    }

    fn has_content(&self) -> Result<bool> {
        Ok(self.read(0, None)?.get(SEGMENT_START..).is_some_and(|rest| rest.iter().any(|b| *b != 0)))
    }
}

fn open(disk: &dyn Disk, dir: &Path, seq: u64) -> Result<Segment> {
    let path = segment_path(dir, seq);
    let context = |e| StorageError::io(format!("opening {}", path.display()), e);
    let file = disk.open(&path).map_err(context)?;
    let length = file.len().map_err(context)?;
    let mut head = [0; SEGMENT_START];
    let there = usize::try_from(length).unwrap_or(SEGMENT_START).min(SEGMENT_START);
    file.read_exact_at(&mut head[..there], 0).map_err(context)?;
    Ok(Segment { seq, file, length, header: SegmentHeader::decode(&head).filter(|h| h.seq == seq) })
}

/// Keeps a copy of a damaged segment; the segment itself goes its way.
fn copy_aside(disk: &dyn Disk, dir: &Path, data_dir: &Path, segment: &Segment) {
    let path = segment_path(dir, segment.seq);
    if let Err(error) = quarantine::keep(disk, data_dir, &path) {
        tracing::error!(%error, path = %path.display(), "a damaged log segment could not be kept aside");
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
