//! Entries of uneven size that are found by number.
//!
//! Entries are written in groups of a fixed count, and the section ends with the offset of each group. So
//! an entry costs a fraction of an offset, and finding it walks at most one group.

use std::ops::Range;

use super::{
    super::chunk::{Damaged, bytes::Reader},
    checks::{WRONG, touches},
};

/// Writes a grouped section.
///
/// A section of a large part is tens of megabytes, so it is gathered in pieces: to grow copies none of them.
#[derive(Debug)]
pub(super) struct GroupWriter {
    per_group: u32,
    entries: u32,
    full: Vec<Vec<u8>>,
    /// Bytes of those.
    full_bytes: u64,
    bytes: Vec<u8>,
    offsets: Vec<u64>,
}

/// A piece is full from this length on.
const PIECE: usize = 256 << 10;

impl GroupWriter {
    /// Starts a section with this many entries in each group.
    pub(super) fn new(per_group: u32) -> Self {
        Self {
            per_group,
            entries: 0,
            full: Vec::new(),
            full_bytes: 0,
            bytes: Vec::new(),
            offsets: Vec::new(),
        }
    }

    /// Starts an entry; true if it is the first of its group, where differences start anew.
    pub(super) fn start_entry(&mut self) -> bool {
        let first = self.entries.is_multiple_of(self.per_group);
        if first {
            if self.bytes.len() >= PIECE {
                self.full_bytes += self.bytes.len() as u64;
                self.full.push(std::mem::replace(&mut self.bytes, Vec::with_capacity(PIECE + PIECE / 16)));
            }
            self.offsets.push(self.full_bytes + self.bytes.len() as u64);
        }
        self.entries += 1;
        first
    }

    /// Where the entry's bytes go.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// How many entries were started.
    pub(super) fn entries(&self) -> u32 {
        self.entries
    }

    /// The section, in pieces.
    pub(super) fn finish(mut self) -> Vec<Vec<u8>> {
        let mut table = Vec::with_capacity(self.offsets.len() * 8 + 4);
        for offset in &self.offsets {
            table.extend_from_slice(&offset.to_le_bytes());
        }
        let groups = u32::try_from(self.offsets.len()).expect("groups are no more than entries");
        table.extend_from_slice(&groups.to_le_bytes());
        self.full.push(self.bytes);
        self.full.push(table);
        self.full
    }
}

/// Reads a grouped section, around what of it does not read back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups<'a> {
    pub(super) bytes: &'a [u8],
    /// What does not read back, by its place.
    pub(super) bad: &'a [Range<usize>],
    /// How many groups there are, if that is known from elsewhere.
    pub(super) count: Option<u32>,
}

impl<'a> Groups<'a> {
    /// The bytes of group number `group`.
    pub(super) fn group(&self, group: u32) -> Result<&'a [u8], Damaged> {
        const MISSING: Damaged = Damaged("group lies outside its section");
        let at_count = self.bytes.len().checked_sub(4).ok_or(MISSING)?;
        let groups = match (self.sound(at_count..self.bytes.len()), self.count) {
            (Ok(count), _) => Reader::new(count).u32()?,
            (Err(_), Some(count)) => count,
            (Err(damaged), None) => return Err(damaged),
        };
        let table = usize::try_from(groups).ok().and_then(|n| n.checked_mul(8)).ok_or(MISSING)?;
        let table = at_count.checked_sub(table).ok_or(MISSING)?;
        if group >= groups {
            return Err(MISSING);
        }
        let offset = |group: u32| -> Result<usize, Damaged> {
            if group == groups {
                return Ok(table);
            }
            let at = table + group as usize * 8;
            usize::try_from(Reader::new(self.sound(at..at + 8)?).u64()?).map_err(|_| MISSING)
        };
        let (start, end) = (offset(group)?, offset(group + 1)?);
        if start > end || end > table {
            return Err(MISSING);
        }
        self.sound(start..end)
    }

    /// A piece of the section, if it reads back.
    fn sound(&self, at: Range<usize>) -> Result<&'a [u8], Damaged> {
        if touches(self.bad, &at) { Err(WRONG) } else { Ok(&self.bytes[at]) }
    }
}
