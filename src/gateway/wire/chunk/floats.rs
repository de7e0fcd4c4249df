//! Chunks of floats: `XOR`.
//!
//! ```text
//! ┌───────────┬────────────────┬─────────┬────────────┬─────────┬──────────────┬─────────┬ ┄
//! │ count u16 │ time, zigzag   │ value   │ distance   │ change  │ change of    │ change  │
//! │ high first│ LEB            │ 64 bits │ LEB        │ of value│ the distance │ of value│
//! └───────────┴────────────────┴─────────┴────────────┴─────────┴──────────────┴─────────┴ ┄
//! ```
//!
//! The change of a distance is `0`, or a number of 14, 17, 20 or 64 bits after `10`, `110`, `1110`, `1111`.

use super::{
    Damaged,
    bits::{BitReader, BitWriter, fits, signed_of},
};
use crate::storage::SeriesSamples;

/// How many bits the change of a distance has whose prefix is one bit longer each.
const WIDTHS: [u32; 3] = [14, 17, 20];

/// A value that is written as its difference to the one before: the bits in which the two differ, where these lie in
/// the window of the difference before, or with a window of their own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Xor {
    value: f64,
    /// The zeros before and behind the window; none before the first.
    window: Option<(u32, u32)>,
}

impl Xor {
    /// Begins with a value that has been written as it is.
    pub(super) fn new(value: f64) -> Self {
        Self { value, window: None }
    }

    pub(super) fn value(&self) -> f64 {
        self.value
    }

    pub(super) fn write(&mut self, value: f64, bits: &mut BitWriter) {
        let difference = value.to_bits() ^ self.value.to_bits();
        self.value = value;
        if difference == 0 {
            return bits.bit(false);
        }
        bits.bit(true);
        // There are five bits for the zeros before it.
        let (before, behind) = (difference.leading_zeros().min(31), difference.trailing_zeros());
        match self.window {
            Some((b, t)) if b <= before && t <= behind => {
                bits.bit(false);
                bits.bits(difference >> t, 64 - b - t);
            }
            _ => {
                self.window = Some((before, behind));
                bits.bit(true);
                bits.bits(u64::from(before), 5);
                let width = 64 - before - behind;
                // 64 does not fit, and 0 cannot be.
                bits.bits(u64::from(width & 63), 6);
                bits.bits(difference >> behind, width);
            }
        }
    }

    pub(super) fn read(&mut self, bits: &mut BitReader<'_>) -> Result<f64, Damaged> {
        if !bits.bit()? {
            return Ok(self.value);
        }
        let (before, behind) = if bits.bit()? {
            let before = narrow(bits.bits(5)?);
            let width = match narrow(bits.bits(6)?) {
                0 => 64,
                width => width,
            };
            let behind = 64_u32.checked_sub(before + width).ok_or(Damaged("a difference is too wide"))?;
            self.window = Some((before, behind));
            (before, behind)
        } else {
            self.window.ok_or(Damaged("a difference lies in no window"))?
        };
        let difference = bits.bits(64 - before - behind)? << behind;
        self.value = f64::from_bits(self.value.to_bits() ^ difference);
        Ok(self.value)
    }
}

/// A number of few bits.
fn narrow(bits: u64) -> u32 {
    u32::try_from(bits).unwrap_or(u32::MAX)
}

/// Writes a chunk.
pub(super) fn encode(timestamps: &[i64], values: &[f64]) -> Vec<u8> {
    let count = u16::try_from(timestamps.len()).expect("a chunk has at most 120 samples");
    let mut bits = BitWriter::after(&count.to_be_bytes());
    let mut samples = timestamps.iter().copied().zip(values.iter().copied());
    let Some((mut time, value)) = samples.next() else { return bits.into_bytes() };
    bits.zigzag_leb(time);
    bits.float(value);
    let mut xor = Xor::new(value);
    let mut distance: Option<i64> = None;
    for (next, value) in samples {
        let step = next.wrapping_sub(time);
        match distance {
            None => bits.leb(step.cast_unsigned()),
            Some(before) => write_change(step.wrapping_sub(before), &mut bits),
        }
        xor.write(value, &mut bits);
        (time, distance) = (next, Some(step));
    }
    bits.into_bytes()
}

fn write_change(change: i64, bits: &mut BitWriter) {
    if change == 0 {
        return bits.bit(false);
    }
    for width in WIDTHS {
        bits.bit(true);
        if fits(change, width) {
            bits.bit(false);
            return bits.bits(change.cast_unsigned(), width);
        }
    }
    bits.bit(true);
    bits.bits(change.cast_unsigned(), 64);
}

/// Reads a chunk.
pub(super) fn decode(bytes: &[u8], into: &mut SeriesSamples) -> Result<(), Damaged> {
    let (count, rest) = bytes.split_first_chunk::<2>().ok_or(Damaged("it ends too early"))?;
    let mut bits = BitReader::new(rest);
    let count = u16::from_be_bytes(*count);
    if count == 0 {
        return Ok(());
    }
    let mut time = bits.zigzag_leb()?;
    let mut xor = Xor::new(bits.float()?);
    into.push(time, xor.value(), 0);
    let mut distance: i64 = 0;
    for number in 1..count {
        distance = match number {
            1 => bits.leb()?.cast_signed(),
            _ => distance.wrapping_add(read_change(&mut bits)?),
        };
        time = time.wrapping_add(distance);
        into.push(time, xor.read(&mut bits)?, 0);
    }
    Ok(())
}

fn read_change(bits: &mut BitReader<'_>) -> Result<i64, Damaged> {
    if !bits.bit()? {
        return Ok(0);
    }
    for width in WIDTHS {
        if !bits.bit()? {
            return Ok(signed_of(bits.bits(width)?, width));
        }
    }
    Ok(bits.bits(64)?.cast_signed())
}
