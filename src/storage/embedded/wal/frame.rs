//! Segments and frames as bytes: headers, checksums, and reading what may be torn or damaged.
//!
//! Drawn in `schema/disk/wal.md`. [`Scan`] walks over a segment's frames. Where one does not read
//! back it looks for the next that does: if there is one, a hole has been found, and what follows it is
//! still good. If not, the log ends there, and what is left is either a write that was cut off or a frame that
//! was whole and is damaged: a cut leaves zeros, a whole sector of them or at least where the frame's
//! end mark should be.

use super::record::Kind;

/// Bytes before a frame's payload.
pub(crate) const FRAME_HEAD: usize = 9;
/// What follows a frame's payload. It is no zero, and so says that the frame was written to its end.
const END_MARK: u8 = 0xe5;
/// The bytes that a disk writes all or none of.
const SECTOR: usize = 512;
/// Where a segment's first frame begins.
pub(crate) const SEGMENT_START: usize = 2 * HEADER;
/// The longest payload a frame may have.
pub(crate) const MAX_PAYLOAD: usize = 256 << 20;

const HEADER: usize = 64;
const MAGIC: [u8; 8] = *b"LUMIWAL1";
const VERSION: u32 = 1;

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) seq: u64,
    pub(crate) salt: u64,
    pub(crate) epoch: u64,
    pub(crate) previous_end: u64,
}

impl SegmentHeader {
    /// The two copies as they stand at the front of the file.
    pub(crate) fn encode(&self) -> [u8; SEGMENT_START] {
        let mut bytes = [0; SEGMENT_START];
        bytes[..8].copy_from_slice(&MAGIC);
        for (i, n) in [self.seq, self.salt, self.epoch, self.previous_end].into_iter().enumerate() {
            bytes[8 + i * 8..16 + i * 8].copy_from_slice(&n.to_le_bytes());
        }
        bytes[40..44].copy_from_slice(&VERSION.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..44]);
        bytes[44..48].copy_from_slice(&crc.to_le_bytes());
        bytes.copy_within(..HEADER, HEADER);
        bytes
    }

    /// Reads the first copy that is whole.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.chunks_exact(HEADER).take(2).find_map(|copy| {
            let n = |at: usize| copy[at..at + 8].try_into().map(u64::from_le_bytes).ok();
            let m = |at: usize| copy[at..at + 4].try_into().map(u32::from_le_bytes).ok();
            let whole = copy[..8] == MAGIC && m(40)? == VERSION && m(44)? == crc32c::crc32c(&copy[..44]);
            whole.then_some(Self { seq: n(8)?, salt: n(16)?, epoch: n(24)?, previous_end: n(32)? })
        })
    }
}

/// Starts a frame at the end of `out`; the result goes to [`end`].
pub(crate) fn begin(out: &mut Vec<u8>, kind: Kind) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0; 8]);
    out.push(kind as u8);
    at
}

/// Ends the frame that began at `at`.
pub(crate) fn end(out: &mut Vec<u8>, at: usize) {
    // What is longer is refused before it is written, so the length that does not fit is never read.
    let length = u32::try_from(out.len() - at - FRAME_HEAD).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    out.push(END_MARK);
}

/// Fills in the checksums of all frames in a buffer for the segment with this salt.
pub(crate) fn seal(frames: &mut [u8], salt: u64) {
    let seed = crc32c::crc32c(&salt.to_le_bytes());
    let mut at = 0;
    while let Some(length) = length_at(frames, at) {
        let Some(body) = frames.get(at + 8..at + FRAME_HEAD + length) else { break };
        let crc = crc32c::crc32c_append(seed, body);
        frames[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        at += frame_size(length);
    }
}

/// Whether every frame of a buffer is short enough to be read back.
pub(crate) fn fits(frames: &[u8]) -> bool {
    let mut at = 0;
    while let Some(length) = length_at(frames, at) {
        if length > MAX_PAYLOAD {
            return false;
        }
        at += frame_size(length);
    }
    at == frames.len()
}

/// The bytes of a frame with a payload of this length.
pub(crate) const fn frame_size(length: usize) -> usize {
    FRAME_HEAD + length + 1
}

/// The payload of the frame that a buffer begins with, as it was put there.
pub(crate) fn payload(frames: &[u8]) -> Option<&[u8]> {
    frames.get(FRAME_HEAD..FRAME_HEAD.checked_add(length_at(frames, 0)?)?)
}

/// The length of the payload that the frame at `at` says it has.
pub(crate) fn length_at(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()
}

/// What a [`Scan`] finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// A frame that reads back.
    Frame { at: usize, kind: Kind, payload: &'a [u8] },
    /// Bytes that do not, followed by some that do, or cut off before the place where the log must reach.
    Hole { from: usize, to: usize },
}

/// Walks over the frames of a segment.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    bytes: &'a [u8],
    seed: u32,
    at: usize,
    /// Everything below must read back, if this is known.
    must_reach: Option<usize>,
    waiting: Option<usize>,
}

impl<'a> Scan<'a> {
    /// Starts at `from`, the first frame.
    pub(crate) fn new(bytes: &'a [u8], salt: u64, from: usize, must_reach: Option<usize>) -> Self {
        // Above the acknowledged end there may be frames, but they were written again elsewhere.
        let bytes = &bytes[..must_reach.unwrap_or(usize::MAX).min(bytes.len())];
        Self { bytes, seed: crc32c::crc32c(&salt.to_le_bytes()), at: from, must_reach, waiting: None }
    }

    /// Where the last frame that was found ends.
    pub(crate) const fn end(&self) -> usize {
        self.at
    }

    /// The frame at `at`, if it reads back.
    pub(crate) fn frame(&self, at: usize) -> Option<(Kind, &'a [u8])> {
        let length = length_at(self.bytes, at)?;
        let body = self.bytes.get(at.checked_add(8)?..at.checked_add(FRAME_HEAD)?.checked_add(length)?)?;
        let kind = Kind::from_byte(body[0])?;
        let crc = self.bytes.get(at + 4..at + 8)?.try_into().map(u32::from_le_bytes).ok()?;
        if self.bytes.get(at.checked_add(frame_size(length))? - 1) != Some(&END_MARK) {
            return None;
        }
        (crc == crc32c::crc32c_append(self.seed, body)).then_some((kind, &body[1..]))
    }

    /// Where the frame at `from` ends if it was written whole; none if its write may have been cut off.
    fn damaged_to(&self, from: usize) -> Option<usize> {
        let to = from.checked_add(frame_size(length_at(self.bytes, from)?))?;
        let frame = self.bytes.get(from..to)?;
        let first = SECTOR - from % SECTOR;
        let sectors = frame.get(first..).unwrap_or_default().chunks_exact(SECTOR);
        let cut = frame.last() != Some(&END_MARK) || sectors.into_iter().any(|s| s.iter().all(|b| *b == 0));
        (!cut).then_some(to)
    }

    /// The next place after `from` where a frame reads back.
    fn resume(&self, from: usize) -> Option<usize> {
        let mut at = from;
        while at + FRAME_HEAD <= self.bytes.len() {
            // A frame's type is never zero, so long runs of zeros are stepped over.
            match self.bytes[at + 8..].iter().position(|b| *b != 0) {
                None => return None,
                Some(zeros) => at += zeros,
            }
            if self.frame(at).is_some() {
                return Some(at);
            }
            at += 1;
        }
        None
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        if let Some(to) = self.waiting.take() {
            self.at = to;
        }
        if let Some((kind, payload)) = self.frame(self.at) {
            let at = self.at;
            self.at += frame_size(payload.len());
            return Some(Found::Frame { at, kind, payload });
        }
        let from = self.at;
        if self.must_reach == Some(from) || from > self.bytes.len() {
            return None;
        }
        if let Some(to) = self.resume(from + 1) {
            self.waiting = Some(to);
            return Some(Found::Hole { from, to });
        }
        let to = match self.must_reach {
            Some(end) => Some(end).filter(|end| from < *end),
            None => self.damaged_to(from),
        }?;
        if self.must_reach.is_none() {
            // The segment goes on behind it, and ends there.
            self.waiting = Some(to);
            return Some(Found::Hole { from, to });
        }
        // Nothing can be found after this.
        self.at = usize::MAX;
        self.must_reach = Some(usize::MAX);
        Some(Found::Hole { from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(payloads: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
        let header = SegmentHeader { seq: 1, salt: 77, epoch: 1, previous_end: 0 };
        let mut frames = Vec::new();
        let mut starts = Vec::new();
        for payload in payloads {
            starts.push(SEGMENT_START + frames.len());
            let at = begin(&mut frames, Kind::Samples);
            frames.extend_from_slice(payload);
            end(&mut frames, at);
        }
        seal(&mut frames, 77);
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(&frames);
        (bytes, starts)
    }

    fn payloads(bytes: &[u8], must_reach: Option<usize>) -> (Vec<&[u8]>, Vec<(usize, usize)>) {
        let (mut good, mut holes) = (Vec::new(), Vec::new());
        for found in Scan::new(bytes, 77, SEGMENT_START, must_reach) {
            match found {
                Found::Frame { payload, .. } => good.push(payload),
                Found::Hole { from, to } => holes.push((from, to)),
            }
        }
        (good, holes)
    }

    #[test]
    fn a_header_survives_any_one_bad_byte() {
        let header = SegmentHeader { seq: 9, salt: 8, epoch: 7, previous_end: 6 };
        let bytes = header.encode();
        for i in 0..bytes.len() {
            let mut damaged = bytes;
            damaged[i] ^= 0x10;
            assert_eq!(SegmentHeader::decode(&damaged), Some(header));
        }
        assert_eq!(SegmentHeader::decode(&bytes[..63]), None);
        assert_eq!(SegmentHeader::decode(&[]), None);
    }

    #[test]
    fn a_log_cut_anywhere_gives_what_is_whole() {
        let (mut bytes, starts) = segment(&[b"one", b"two", b"three"]);
        for cut in SEGMENT_START..bytes.len() {
            let whole = starts.iter().skip(1).filter(|s| **s <= cut).count();
            let (good, holes) = payloads(&bytes[..cut], None);
            assert_eq!((good.len(), holes.len()), (whole, 0), "{cut}");
        }
        bytes.extend_from_slice(&[0; 1000]);
        assert_eq!(payloads(&bytes, None).0.len(), 3);
    }

    #[test]
    fn a_bad_byte_costs_one_frame_and_is_told() {
        let (bytes, starts) = segment(&[b"one", b"two", b"three"]);
        let whole = bytes.len();
        for i in starts[1]..starts[2] {
            let mut damaged = bytes.clone();
            damaged[i] ^= 1;
            let (good, holes) = payloads(&damaged, Some(whole));
            assert_eq!(good, [&b"one"[..], b"three"]);
            assert_eq!(holes, [(starts[1], starts[2])]);
        }
        for i in starts[2]..whole {
            let mut damaged = bytes.clone();
            damaged[i] ^= 1;
            assert_eq!(payloads(&damaged, Some(whole)).1, [(starts[2], whole)]);
        }
    }

    #[test]
    fn a_bad_byte_in_the_last_frame_is_told_from_a_write_that_was_cut_off() {
        let long = vec![7; 3000];
        let (mut bytes, starts) = segment(&[b"one", &long]);
        let whole = bytes.len();
        bytes.resize(whole + 5000, 0);
        // A length that is damaged leads nowhere, and an end mark that is damaged is an end that is missing.
        for i in starts[1] + 4..whole - 1 {
            let mut damaged = bytes.clone();
            damaged[i] ^= 1;
            assert_eq!(payloads(&damaged, None), (vec![&b"one"[..]], vec![(starts[1], whole)]), "{i}");
        }
        for cut in starts[1]..whole {
            let mut torn = bytes.clone();
            torn[cut..whole].fill(0);
            assert_eq!(payloads(&torn, None), (vec![&b"one"[..]], vec![]), "{cut}");
        }
        for sector in (starts[1].next_multiple_of(SECTOR)..whole - SECTOR).step_by(SECTOR) {
            let mut torn = bytes.clone();
            torn[sector..sector + SECTOR].fill(0);
            assert_eq!(payloads(&torn, None), (vec![&b"one"[..]], vec![]), "{sector}");
        }
    }

    #[test]
    fn frames_above_the_acknowledged_end_are_not_read() {
        let (bytes, starts) = segment(&[b"one", b"two", b"three"]);
        assert_eq!(payloads(&bytes, Some(starts[2])).0, [&b"one"[..], b"two"]);
    }

    #[test]
    fn a_frame_of_another_segment_is_not_taken() {
        let (bytes, _) = segment(&[b"one"]);
        assert_eq!(Scan::new(&bytes, 77, SEGMENT_START, None).count(), 1);
        let mut found = Scan::new(&bytes, 78, SEGMENT_START, None);
        assert!(found.all(|found| matches!(found, Found::Hole { .. })));
    }
}
