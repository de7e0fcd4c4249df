//! Bits, the highest of a byte first, and numbers of as many bits as they need.
//!
//! A number is written after a prefix that tells how many bits it has:
//!
//! ```text
//! 0          it is 0
//! 10         3 bits
//! 110        6            and so on: 9, 12, 18, 25, 56
//! 11111111   64
//! ```
//!
//! A signed number of `n` bits lies between `-(2^(n-1) - 1)` and `2^(n-1)`: one off from two's complement.

use super::Damaged;

/// How many bits a number has whose prefix is one bit longer each.
const WIDTHS: [u32; 7] = [3, 6, 9, 12, 18, 25, 56];

/// The prefix of what has all 64 bits.
const LONGEST_PREFIX: u32 = 8;

/// Writes bits.
#[derive(Clone, Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits of the last byte that are not written yet.
    free: u32,
}

impl BitWriter {
    /// Starts behind `header`.
    pub(super) fn after(header: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(header);
        Self { bytes, free: 0 }
    }

    /// What was written, the last byte filled up with zeros.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn bit(&mut self, bit: bool) {
        self.bits(u64::from(bit), 1);
    }

    /// Writes the low `count` bits of `value`.
    pub(super) fn bits(&mut self, value: u64, mut count: u32) {
        while count > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let taken = count.min(self.free);
            let part = (value >> (count - taken)) & ((1 << taken) - 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= low_byte(part << (self.free - taken));
            }
            self.free -= taken;
            count -= taken;
        }
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.bits(u64::from(byte), 8);
    }

    pub(super) fn float(&mut self, value: f64) {
        self.bits(value.to_bits(), 64);
    }

    /// Writes a number as bytes of seven bits, the lowest first.
    pub(super) fn leb(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(low_byte(value) | 0x80);
            value >>= 7;
        }
        self.byte(low_byte(value));
    }

    /// The same of a signed number, folded so that those near zero are short.
    pub(super) fn zigzag_leb(&mut self, value: i64) {
        self.leb(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    /// Writes a signed number after its prefix.
    pub(super) fn signed(&mut self, value: i64) {
        if value == 0 {
            return self.bit(false);
        }
        for (ones, width) in (1..).zip(WIDTHS) {
            if fits(value, width) {
                self.prefix(ones);
                return self.bits(value.cast_unsigned(), width);
            }
        }
        self.bits(0xff, LONGEST_PREFIX);
        self.bits(value.cast_unsigned(), 64);
    }

    /// Writes a number that is not negative after its prefix.
    pub(super) fn unsigned(&mut self, value: u64) {
        if value == 0 {
            return self.bit(false);
        }
        for (ones, width) in (1..).zip(WIDTHS) {
            if value >> width == 0 {
                self.prefix(ones);
                return self.bits(value, width);
            }
        }
        self.bits(0xff, LONGEST_PREFIX);
        self.bits(value, 64);
    }

    /// So many ones, and a zero.
    fn prefix(&mut self, ones: u32) {
        self.bits((1 << (ones + 1)) - 2, ones + 1);
    }
}

/// Whether a signed number can be written in so many bits.
pub(super) fn fits(value: i64, width: u32) -> bool {
    let half = 1_i64 << (width - 1);
    -(half - 1) <= value && value <= half
}

/// The number that so many bits stand for.
pub(super) fn signed_of(bits: u64, width: u32) -> i64 {
    if bits > 1 << (width - 1) { bits.wrapping_sub(1 << width).cast_signed() } else { bits.cast_signed() }
}

/// Reads bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// The next bit.
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bits are left.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() * 8 - self.at
    }

    pub(super) fn bit(&mut self) -> Result<bool, Damaged> {
        Ok(self.bits(1)? == 1)
    }

    pub(super) fn bits(&mut self, mut count: u32) -> Result<u64, Damaged> {
        let mut value = 0;
        while count > 0 {
            let byte = *self.bytes.get(self.at / 8).ok_or(Damaged("it ends too early"))?;
            let used = u32::try_from(self.at % 8).unwrap_or(0);
            let taken = count.min(8 - used);
            let part = (u32::from(byte) >> (8 - used - taken)) & ((1 << taken) - 1);
            value = (value << taken) | u64::from(part);
            self.at += taken as usize;
            count -= taken;
        }
        Ok(value)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Damaged> {
        Ok(low_byte(self.bits(8)?))
    }

    pub(super) fn float(&mut self) -> Result<f64, Damaged> {
        Ok(f64::from_bits(self.bits(64)?))
    }

    pub(super) fn leb(&mut self) -> Result<u64, Damaged> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Damaged("a number is too long"))
    }

    pub(super) fn zigzag_leb(&mut self) -> Result<i64, Damaged> {
        let folded = self.leb()?;
        Ok((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
    }

    pub(super) fn signed(&mut self) -> Result<i64, Damaged> {
        Ok(match self.width()? {
            0 => 0,
            64 => self.bits(64)?.cast_signed(),
            width => signed_of(self.bits(width)?, width),
        })
    }

    pub(super) fn unsigned(&mut self) -> Result<u64, Damaged> {
        let width = self.width()?;
        self.bits(width)
    }

    /// Reads a prefix.
    fn width(&mut self) -> Result<u32, Damaged> {
        if !self.bit()? {
            return Ok(0);
        }
        for width in WIDTHS {
            if !self.bit()? {
                return Ok(width);
            }
        }
        Ok(64)
    }
}

fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_at_the_edges_of_their_widths() {
        let mut edges = vec![0, 1, -1, i64::MIN, i64::MAX];
        for width in WIDTHS {
            let half = 1_i64 << (width - 1);
            edges.extend([half - 1, half, half + 1, -half - 1, -half, 1 - half]);
        }
        let mut writer = BitWriter::default();
        // Off the bytes' edges.
        writer.bit(true);
        for edge in &edges {
            writer.signed(*edge);
            writer.unsigned(edge.cast_unsigned());
            writer.zigzag_leb(*edge);
            writer.leb(edge.cast_unsigned());
        }
        let bytes = writer.into_bytes();
        let mut reader = BitReader::new(&bytes);
        assert!(reader.bit().unwrap());
        for edge in edges {
            assert_eq!(reader.signed().unwrap(), edge);
            assert_eq!(reader.unsigned().unwrap(), edge.cast_unsigned());
            assert_eq!(reader.zigzag_leb().unwrap(), edge);
            assert_eq!(reader.leb().unwrap(), edge.cast_unsigned());
        }
        assert!(reader.left() < 8);
        assert!(BitReader::new(&[0xff]).signed().is_err());
    }

    #[test]
    fn numbers_have_the_bits_that_others_give_them() {
        let written = |write: fn(&mut BitWriter)| {
            let mut writer = BitWriter::default();
            write(&mut writer);
            writer.into_bytes()
        };
        assert_eq!(written(|w| w.signed(4)), [0b1010_0000]);
        assert_eq!(written(|w| w.signed(-3)), [0b1010_1000]);
        assert_eq!(written(|w| w.signed(32)), [0b1101_0000, 0]);
        assert_eq!(written(|w| w.unsigned(7)), [0b1011_1000]);
        assert_eq!(written(|w| w.unsigned(8)), [0b1100_0100, 0]);
    }
}
