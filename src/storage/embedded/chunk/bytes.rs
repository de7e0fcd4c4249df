//! Reads and writes the small numbers that the formats are made of.
//!
//! A [`Reader`] never reads past its end and never panics: whatever the bytes are, it answers a number
//! or [`Damaged`].

use super::Damaged;

/// Walks over bytes from front to back.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the front.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes are left.
    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        rest
    }

    /// The next `length` bytes.
    #[inline]
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let end = self.at.checked_add(length).ok_or(Damaged("length overflows"))?;
        let taken = self.bytes.get(self.at..end).ok_or(Damaged("ends early"))?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("as many bytes were taken"))
    }

    /// The next byte.
    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, Damaged> {
        let byte = *self.bytes.get(self.at).ok_or(Damaged("ends early"))?;
        self.at += 1;
        Ok(byte)
    }

    /// Four bytes as a number.
    pub(crate) fn u32(&mut self) -> Result<u32, Damaged> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes as a number.
    pub(crate) fn u64(&mut self) -> Result<u64, Damaged> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Eight bytes as a signed number.
    pub(crate) fn i64(&mut self) -> Result<i64, Damaged> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// Eight bytes as a float.
    pub(crate) fn f64(&mut self) -> Result<f64, Damaged> {
        Ok(f64::from_bits(self.u64()?))
    }

    /// A LEB128 number.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Damaged> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Damaged("varint is wider than 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Damaged("varint is longer than 10 bytes"))
    }

    /// A LEB128 number that must fit 32 bits.
    pub(crate) fn varint_u32(&mut self) -> Result<u32, Damaged> {
        u32::try_from(self.varint()?).map_err(|_| Damaged("number is wider than 32 bits"))
    }

    /// A LEB128 number that counts or measures something in memory.
    pub(crate) fn varint_usize(&mut self) -> Result<usize, Damaged> {
        usize::try_from(self.varint()?).map_err(|_| Damaged("number is wider than memory"))
    }

    /// The number of things that follow, each at least `least` bytes, so it cannot be more than fit.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, Damaged> {
        let count = self.varint_usize()?;
        if count > self.remaining() / least {
            return Err(Damaged("count is more than there are bytes for"));
        }
        Ok(count)
    }

    /// A zigzag number.
    #[inline]
    pub(crate) fn zigzag(&mut self) -> Result<i64, Damaged> {
        Ok(from_zigzag(self.varint()?))
    }

    /// A text with its length before it.
    pub(crate) fn text(&mut self) -> Result<&'a str, Damaged> {
        let length = self.varint_usize()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Damaged("text is not UTF-8"))
    }
}

/// Maps signed to unsigned so that small stays small.
#[inline]
pub(crate) fn to_zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Takes [`to_zigzag`] back.
#[inline]
pub(crate) fn from_zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Writes a LEB128 number.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// Writes a length or count as LEB128.
pub(crate) fn put_length(out: &mut Vec<u8>, value: usize) {
    put_varint(out, value as u64);
}

/// Writes a zigzag number.
pub(crate) fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, to_zigzag(value));
}

/// Writes a text with its length before it.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// How many bytes [`put_varint`] takes.
pub(crate) fn varint_size(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_size(value));
            assert_eq!(Reader::new(&out).varint(), Ok(value));
            assert_eq!(to_zigzag(from_zigzag(value)), value);
        }
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(from_zigzag(to_zigzag(value)), value);
        }
    }

    #[test]
    fn what_is_too_long_or_too_short_is_refused() {
        assert!(Reader::new(&[0x80]).varint().is_err());
        assert!(Reader::new(&[0xff; 11]).varint().is_err());
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).varint().is_err());
        assert!(Reader::new(&[200, 1, 0]).count(1).is_err());
        assert!(Reader::new(&[1, 0xff]).text().is_err());
        assert!(Reader::new(&[1, 2]).take(usize::MAX).is_err());
    }
}
