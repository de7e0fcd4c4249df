//! Floats as the bits in which each differs from the one before, after Facebook's Gorilla.
//!
//! The fallback for values that are no short decimals but repeat or move little. The stream is read
//! and written most significant bit first.

use super::Damaged;

/// Writes the values as one bit stream.
pub(super) fn encode(values: &[f64], out: &mut Vec<u8>) {
    let Some((first, rest)) = values.split_first() else { return };
    let mut stream = Writer { out, pending: 0, have: 0 };
    stream.put(first.to_bits(), 64);
    let mut previous = first.to_bits();
    // No window yet: nothing fits in one that starts after the last bit.
    let (mut leading, mut width) = (64_u32, 0_u32);
    for value in rest {
        let bits = value.to_bits();
        let changed = bits ^ previous;
        previous = bits;
        if changed == 0 {
            stream.put(0, 1);
            continue;
        }
        let (lead, trail) = (changed.leading_zeros().min(31), changed.trailing_zeros());
        let trailing = 64 - leading.min(64 - width) - width;
        if width > 0 && lead >= leading && trail >= trailing && width <= 64 - lead - trail + 11 {
            stream.put(0b10, 2);
        } else {
            (leading, width) = (lead, 64 - lead - trail);
            stream.put(0b11, 2);
            stream.put(u64::from(leading), 5);
            stream.put(u64::from(width - 1), 6);
        }
        stream.put(changed >> (64 - leading - width), width);
    }
    stream.finish();
}

/// Reads `count` values from the stream that fills `bytes`.
pub(super) fn decode(bytes: &[u8], count: usize, into: &mut Vec<f64>) -> Result<(), Damaged> {
    if count == 0 {
        return Ok(());
    }
    // The first takes 64 bits, every other at least one.
    if bytes.len() < 8 || (bytes.len() - 8).saturating_mul(8) < count - 1 {
        return Err(Damaged("xor stream ends early"));
    }
    let mut stream = BitReader { bytes, at: 0, pending: 0, have: 0 };
    let mut bits = stream.take(32)? << 32 | stream.take(32)?;
    into.reserve(count);
    into.push(f64::from_bits(bits));
    let (mut leading, mut width) = (0_u32, 0_u32);
    for _ in 1..count {
        if stream.take(1)? == 1 {
            if stream.take(1)? == 1 {
                let window = stream.take(11)?;
                leading = u32::try_from(window >> 6).expect("five bits");
                width = u32::try_from(window & 0x3f).expect("six bits") + 1;
                if leading + width > 64 {
                    return Err(Damaged("xor window lies outside 64 bits"));
                }
            } else if width == 0 {
                return Err(Damaged("xor window is used before it is set"));
            }
            let changed = if width > 32 {
                stream.take(width - 32)? << 32 | stream.take(32)?
            } else {
                stream.take(width)?
            };
            bits ^= changed << (64 - leading - width);
        }
        into.push(f64::from_bits(bits));
    }
    Ok(())
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    pending: u128,
    have: u32,
}

impl Writer<'_> {
    fn put(&mut self, bits: u64, width: u32) {
        self.pending = self.pending << width | u128::from(bits);
        self.have += width;
        while self.have >= 8 {
            self.have -= 8;
            let byte = (self.pending >> self.have) & 0xff;
            self.out.push(u8::try_from(byte).expect("eight bits"));
        }
        self.pending &= (1 << self.have) - 1;
    }

    fn finish(mut self) {
        if self.have > 0 {
            self.put(0, 8 - self.have);
        }
    }
}

struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
    pending: u64,
    have: u32,
}

impl BitReader<'_> {
    /// The next `width` bits, at most 32.
    #[inline]
    fn take(&mut self, width: u32) -> Result<u64, Damaged> {
        while self.have < width {
            if let Some(four) = self.bytes.get(self.at..self.at + 4) {
                let word = u32::from_be_bytes(four.try_into().expect("four bytes"));
                self.pending = self.pending << 32 | u64::from(word);
                (self.have, self.at) = (self.have + 32, self.at + 4);
            } else {
                let byte = *self.bytes.get(self.at).ok_or(Damaged("xor stream ends early"))?;
                self.pending = self.pending << 8 | u64::from(byte);
                (self.have, self.at) = (self.have + 8, self.at + 1);
            }
        }
        self.have -= width;
        let bits = (self.pending >> self.have) & ((1 << width) - 1);
        Ok(bits)
    }
}
