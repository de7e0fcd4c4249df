//! Numbers of variable length, the alphabet of the log's records.
//!
//! Small numbers take one byte (LEB128); signed ones are folded first so that small negative ones are
//! small too (zigzag). Reading never trusts a length: [`Reader`] gives nothing rather than pass the end.

/// Folds a signed number so that those near zero are small.
pub(crate) const fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)).cast_unsigned()
}

/// Unfolds what [`zigzag`] folded.
pub(crate) const fn unzigzag(n: u64) -> i64 {
    (n >> 1).cast_signed() ^ -((n & 1).cast_signed())
}

/// Appends an unsigned number.
#[expect(clippy::cast_possible_truncation, reason = "seven bits are taken at a time")]
pub(crate) fn put_u64(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a signed number.
pub(crate) fn put_i64(out: &mut Vec<u8>, n: i64) {
    put_u64(out, zigzag(n));
}

/// Appends a length or count.
pub(crate) fn put_len(out: &mut Vec<u8>, n: usize) {
    put_u64(out, n as u64);
}

/// Appends text with its length.
pub(crate) fn put_str(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Appends a float's bits.
pub(crate) fn put_f64(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// The whole number that `value` is, if it is one that a float holds exactly; −0 is none.
#[expect(clippy::cast_possible_truncation, reason = "the round trip is checked")]
pub(crate) fn whole(value: f64) -> Option<i64> {
    let n = value as i64;
    (-(1 << 53)..=1 << 53).contains(&n).then_some(n).filter(|n| (*n as f64).to_bits() == value.to_bits())
}

/// Reads from the front of some bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the front.
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// What was not read yet.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// The next `n` bytes.
    pub(crate) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.bytes.split_at_checked(n)?;
        self.bytes = tail;
        Some(head)
    }

    /// An unsigned number.
    pub(crate) fn u64(&mut self) -> Option<u64> {
        let mut n = 0_u64;
        for (i, byte) in self.bytes.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if i == 9 && bits > 1 {
                return None;
            }
            n |= bits << (7 * i);
            if byte & 0x80 == 0 {
                self.bytes = &self.bytes[i + 1..];
                return Some(n);
            }
        }
        None
    }

    /// A signed number.
    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.u64().map(unzigzag)
    }

    /// A count of items of at least `least` bytes each: more than could be there is none.
    pub(crate) fn count(&mut self, least: usize) -> Option<usize> {
        let n = usize::try_from(self.u64()?).ok()?;
        (n.checked_mul(least)? <= self.bytes.len()).then_some(n)
    }

    /// Bytes with their length.
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = usize::try_from(self.u64()?).ok()?;
        self.take(n)
    }

    /// Text with its length.
    pub(crate) fn str(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// A float's bits.
    pub(crate) fn f64(&mut self) -> Option<f64> {
        let bytes = self.take(8)?;
        Some(f64::from_bits(u64::from_le_bytes(bytes.try_into().ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for n in [0, 1, -1, 63, 64, -64, -65, 1 << 40, i64::MIN, i64::MAX] {
            let mut out = Vec::new();
            put_i64(&mut out, n);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.i64(), Some(n));
            assert!(reader.rest().is_empty());
        }
    }

    #[test]
    fn what_is_cut_or_too_long_is_none() {
        assert_eq!(Reader::new(&[0x80]).u64(), None);
        assert_eq!(Reader::new(&[0xff; 11]).u64(), None);
        assert_eq!(Reader::new(&[5, 1, 2]).bytes(), None);
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0x7f]).count(1), None);
    }

    #[test]
    fn only_exact_whole_numbers_are_whole() {
        for value in [0.0, 1.0, -5.0, 9_007_199_254_740_992.0] {
            assert_eq!(whole(value).map(|n| n as f64), Some(value));
        }
        for value in [-0.0, 0.5, f64::NAN, f64::INFINITY, 1e300, -1e17] {
            assert_eq!(whole(value), None);
        }
    }
}
