//! A segment that is read back: at a start, and when somebody asks whether it reads back.
//!
//! What its successor says of where it ends decides what is damage and what was never acknowledged, so whoever reads one
//! has the one after it at hand.

use std::{io, path::Path, sync::Arc};

use super::{
    frame::{Found, MAX_PAYLOAD, SEGMENT_START, Scan, SegmentHeader, frame_size, length_at},
    segment_path,
};
use crate::storage::embedded::disk::{Disk, ReadFile};

/// What is read of a segment at a time.
const PIECE: usize = 64 << 10;
/// What of a segment is in memory as long as it reads back.
const WINDOW: usize = 1 << 20;

/// A segment, open.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) seq: u64,
    pub(crate) length: u64,
    /// What it says about itself; none before it was read, or if it does not read back.
    pub(crate) header: Option<SegmentHeader>,
    file: Arc<dyn ReadFile>,
}

impl Segment {
    /// Opens segment `seq` of the log in `dir`.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path, seq: u64) -> io::Result<Self> {
        let file = disk.open(&segment_path(dir, seq))?;
        let length = file.len()?;
        Ok(Self { seq, length, header: None, file })
    }

    /// Reads what it says about itself.
    pub(crate) fn read_header(&mut self) -> io::Result<()> {
        let mut head = [0; SEGMENT_START];
        let there = usize::try_from(self.length).unwrap_or(SEGMENT_START).min(SEGMENT_START);
        self.file.read_exact_at(&mut head[..there], 0)?;
        self.header = SegmentHeader::decode(&head).filter(|header| header.seq == self.seq);
        Ok(())
    }

    /// Where it ends, as its successor `next` says: everything below was acknowledged, and nothing above.
    pub(crate) fn must_reach(&self, next: Option<&Self>) -> Option<usize> {
        let header = next.filter(|next| next.seq == self.seq + 1)?.header?;
        usize::try_from(header.previous_end).ok()
    }

    /// Whether something is lost with its header: the last segment may have been torn while it was begun, and then nothing
    /// was in it.
    pub(crate) fn had_something(&self, next: Option<&Self>) -> io::Result<bool> {
        let must_reach = self.must_reach(next);
        let bytes = self.read(0, must_reach)?;
        let written = bytes.get(SEGMENT_START..).is_some_and(|rest| rest.iter().any(|b| *b != 0));
        Ok(written || next.is_some() && must_reach != Some(SEGMENT_START))
    }

    /// Shows everything behind its header, in order, and says where it ends.
    pub(crate) fn walk(
        &self,
        header: SegmentHeader,
        next: Option<&Self>,
        mut each: impl FnMut(Found<'_>),
    ) -> io::Result<usize> {
        let must_reach = self.must_reach(next);
        // As long as everything reads back a window of it is in memory, and behind that all that is left.
        let from = self.walk_frames(header.salt, must_reach, &mut each)?;
        let bytes = self.read(from, must_reach)?;
        let mut scan = Scan::new(&bytes, header.salt, from, must_reach);
        scan.by_ref().for_each(each);
        Ok(must_reach.unwrap_or(scan.end()))
    }

    /// Shows frames from the first as long as they read back, and says where that ends.
    fn walk_frames(
        &self,
        salt: u64,
        must_reach: Option<usize>,
        mut each: impl FnMut(Found<'_>),
    ) -> io::Result<usize> {
        let (mut at, mut wanted) = (SEGMENT_START, WINDOW);
        loop {
            let left = self.end(must_reach).saturating_sub(at);
            let mut window = vec![0; wanted.min(left)];
            self.file.read_exact_at(&mut window, at as u64)?;
            let scan = Scan::new(&window, salt, 0, None);
            let mut good = 0;
            while let Some((kind, payload)) = scan.frame(good) {
                each(Found::Frame { at: at + good, kind, payload });
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

    /// Up to where it is read: where its successor says it ends, or all of it.
    fn end(&self, must_reach: Option<usize>) -> usize {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        must_reach.unwrap_or(length).min(length)
    }

    /// Reads it, but for what is before `from`.
    ///
    /// The last one is as long as it may become, and mostly zeros, which take no memory until they are written to:
    /// only pieces that hold something are copied.
    fn read(&self, from: usize, must_reach: Option<usize>) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.end(must_reach)];
        let mut scratch = vec![0; PIECE];
        for (i, place) in bytes.chunks_mut(PIECE).enumerate().skip(from / PIECE) {
            let piece = &mut scratch[..place.len()];
            self.file.read_exact_at(piece, (i * PIECE) as u64)?;
            if piece.iter().any(|byte| *byte != 0) {
                place.copy_from_slice(piece);
            }
        }
        Ok(bytes)
    }
}
