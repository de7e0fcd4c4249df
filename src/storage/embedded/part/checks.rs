//! Checksums of small pieces of the index, for when a section is wrong: then they say where.
//!
//! ```text
//! pages ▏times ▏series ▏labels ▏names ▏postings │ checks
//! └1 KiB┴1 KiB┴1 KiB┴ ⋯                  ┴ rest ┘ u32 each
//! ```
//!
//! Nobody reads them as long as the sections' own checksums are right.

use std::ops::Range;

use super::super::chunk::Damaged;

/// Bytes of the index for each checksum: damage costs this much of it.
pub(super) const PIECE: usize = 1024;

/// What is said of what a checksum does not fit.
pub(super) const WRONG: Damaged = Damaged("section's checksum is wrong");

/// Gathers the checksums of what is written.
#[derive(Debug, Default)]
pub(super) struct ChecksWriter {
    crc: u32,
    /// Bytes of the piece that has begun.
    filled: usize,
    done: Vec<u8>,
}

impl ChecksWriter {
    /// Takes note of the next bytes of the index.
    pub(super) fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.filled));
            self.crc = crc32c::crc32c_append(self.crc, now);
            self.filled += now.len();
            if self.filled == PIECE {
                self.end_piece();
            }
            bytes = later;
        }
    }

    fn end_piece(&mut self) {
        self.done.extend_from_slice(&self.crc.to_le_bytes());
        (self.crc, self.filled) = (0, 0);
    }

    /// The section.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.end_piece();
        }
        self.done
    }
}

/// The checksum of each piece of an index of this length; none if that is not how many there are.
pub(super) fn sums(checks: &[u8], length: usize) -> Option<impl Iterator<Item = u32>> {
    let (each, rest) = checks.as_chunks::<4>();
    let fits = rest.is_empty() && each.len() == length.div_ceil(PIECE);
    fits.then(|| each.iter().map(|sum| u32::from_le_bytes(*sum)))
}

/// What of a stretch of the index does not read back, by its place in that stretch. If the checksums do not say, all of it.
pub(super) fn bad_pieces(index: &[u8], checks: Option<&[u8]>, of: &Range<usize>) -> Vec<Range<usize>> {
    let mut bad: Vec<Range<usize>> = Vec::new();
    let sums = checks.and_then(|checks| sums(checks, index.len()));
    let skipped = of.start / PIECE;
    for (number, sum) in sums.into_iter().flatten().enumerate().skip(skipped) {
        let piece = number * PIECE..((number + 1) * PIECE).min(index.len());
        if piece.start >= of.end {
            break;
        }
        if crc32c::crc32c(&index[piece.clone()]) != sum {
            let (start, end) = (piece.start.max(of.start) - of.start, piece.end.min(of.end) - of.start);
            match bad.last_mut() {
                Some(last) if last.end == start => last.end = end,
                Some(_) | None => bad.push(start..end),
            }
        }
    }
    if bad.is_empty() {
        bad.push(0..of.len());
    }
    bad
}

/// Whether one of these lies in a stretch.
pub(super) fn touches(bad: &[Range<usize>], stretch: &Range<usize>) -> bool {
    bad.iter().any(|bad| bad.start < stretch.end && stretch.start < bad.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The one stretch that does not read back.
    fn bad_piece(index: &[u8], checks: Option<&[u8]>, of: &Range<usize>) -> Range<usize> {
        let bad = bad_pieces(index, checks, of);
        assert_eq!(bad.len(), 1, "{bad:?}");
        bad[0].clone()
    }

    #[test]
    fn what_is_wrong_is_found_to_the_piece() {
        for length in [1, PIECE - 1, PIECE, 5 * PIECE, 5 * PIECE + 77] {
            let good: Vec<u8> = (0..length).map(|i| (i * 7 % 251).to_le_bytes()[0]).collect();
            let mut writer = ChecksWriter::default();
            good.chunks(700).for_each(|some| writer.add(some));
            let checks = writer.finish();
            for at in [0, length / 3, length - 1] {
                let mut bad = good.clone();
                bad[at] ^= 3;
                let piece = at / PIECE * PIECE;
                let expect = piece..(piece + PIECE).min(length);
                assert_eq!(bad_piece(&bad, Some(&checks), &(0..length)), expect);
                // A section that begins or ends within the piece.
                let of = at..length.min(at + 10);
                assert_eq!(bad_piece(&bad, Some(&checks), &of), 0..of.end.min(expect.end) - at, "{at}");
                assert_eq!(bad_piece(&bad, None, &of), 0..of.len());
                assert_eq!(bad_piece(&bad, Some(&checks[1..]), &of), 0..of.len());
            }
        }
    }
}
