//! What can be known of a chunk without decoding it.

use super::{
    Damaged,
    bytes::{Reader, put_varint, to_zigzag},
    floats,
};
use crate::model::is_stale;

/// What can be known of float values, stale markers left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueStats {
    /// The least, NaN left out; NaN if there is nothing else.
    pub min: f64,
    /// The greatest, NaN left out; NaN if there is nothing else.
    pub max: f64,
    /// The first.
    pub first: f64,
    /// The last.
    pub last: f64,
    /// What a counter lost in resets: the sum of the values right before it fell.
    pub resets: f64,
    /// How many stale markers were left out.
    pub stale: u32,
}

const MIN_IS_FIRST: u64 = 1;
const MAX_IS_LAST: u64 = 2;
const LAST_IS_FIRST: u64 = 4;
const NO_RESETS: u64 = 8;
const NO_STALE: u64 = 16;
const FLAG_BITS: u32 = 5;

impl ValueStats {
    /// Looks at values; none if there is no value but stale markers.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut stats: Option<Self> = None;
        let mut stale = 0_u32;
        for value in values.iter().copied() {
            if is_stale(value) {
                stale = stale.saturating_add(1);
                continue;
            }
            match &mut stats {
                None => {
                    stats = Some(Self {
                        min: value,
                        max: value,
                        first: value,
                        last: value,
                        resets: 0.0,
                        stale: 0,
                    });
                }
                Some(stats) => {
                    if value < stats.last {
                        stats.resets += stats.last;
                    }
                    if value < stats.min || stats.min.is_nan() {
                        stats.min = value;
                    }
                    if value > stats.max || stats.max.is_nan() {
                        stats.max = value;
                    }
                    stats.last = value;
                }
            }
        }
        stats.map(|stats| Self { stale, ..stats })
    }

    /// Writes the numbers; those that follow from others are left out.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits();
        let mut flags = 0;
        for (flag, holds) in [
            (MIN_IS_FIRST, same(self.min, self.first)),
            (MAX_IS_LAST, same(self.max, self.last)),
            (LAST_IS_FIRST, same(self.last, self.first)),
            (NO_RESETS, same(self.resets, 0.0)),
            (NO_STALE, self.stale == 0),
        ] {
            if holds {
                flags |= flag;
            }
        }
        put_varint(out, flags);
        put_float(out, self.first);
        if flags & LAST_IS_FIRST == 0 {
            put_float(out, self.last);
        }
        if flags & MIN_IS_FIRST == 0 {
            put_float(out, self.min);
        }
        if flags & MAX_IS_LAST == 0 {
            put_float(out, self.max);
        }
        if flags & NO_RESETS == 0 {
            put_float(out, self.resets);
        }
        if flags & NO_STALE == 0 {
            put_varint(out, u64::from(self.stale));
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Damaged> {
        let flags = reader.varint()?;
        if flags >> FLAG_BITS != 0 {
            return Err(Damaged("statistics have an unknown flag"));
        }
        let first = float(reader)?;
        let last = if flags & LAST_IS_FIRST == 0 { float(reader)? } else { first };
        let min = if flags & MIN_IS_FIRST == 0 { float(reader)? } else { first };
        let max = if flags & MAX_IS_LAST == 0 { float(reader)? } else { last };
        let resets = if flags & NO_RESETS == 0 { float(reader)? } else { 0.0 };
        let stale = if flags & NO_STALE == 0 { reader.varint_u32()? } else { 0 };
        Ok(Self { min, max, first, last, resets, stale })
    }
}

/// Marks a float that is no short decimal.
const WHOLE: u64 = 7;

fn put_float(out: &mut Vec<u8>, value: f64) {
    for exponent in 0..WHOLE {
        let whole = floats::digits(value, usize::try_from(exponent).expect("below seven"));
        if let Some(zigzag) = whole.map(to_zigzag).filter(|zigzag| zigzag.leading_zeros() >= 8) {
            put_varint(out, zigzag << 3 | exponent);
            return;
        }
    }
    put_varint(out, WHOLE);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn float(reader: &mut Reader<'_>) -> Result<f64, Damaged> {
    let code = reader.varint()?;
    let exponent = code & 7;
    if exponent == WHOLE {
        return reader.f64();
    }
    let exponent = usize::try_from(exponent).expect("below seven");
    Ok(floats::undigits(super::bytes::from_zigzag(code >> 3), exponent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::stale_nan;

    fn check(values: &[f64]) -> Option<ValueStats> {
        let stats = ValueStats::of(values)?;
        let mut out = Vec::new();
        stats.encode(&mut out);
        let back = ValueStats::decode(&mut Reader::new(&out)).unwrap();
        let bits = |s: &ValueStats| [s.min, s.max, s.first, s.last, s.resets].map(f64::to_bits);
        assert_eq!((bits(&back), back.stale), (bits(&stats), stats.stale));
        Some(stats)
    }

    #[test]
    fn a_counters_resets_are_added_up() {
        let stats = check(&[1.0, 5.5, stale_nan(), 2.0, 3.0, 0.0]).unwrap();
        assert_eq!(stats, ValueStats { min: 0.0, max: 5.5, first: 1.0, last: 0.0, resets: 8.5, stale: 1 });
    }

    #[test]
    fn nan_hides_nothing() {
        let stats = check(&[f64::NAN, 1.0, f64::NAN, f64::INFINITY, -0.0]).unwrap();
        assert_eq!((stats.min, stats.max), (0.0, f64::INFINITY));
        assert!(check(&[f64::NAN]).unwrap().min.is_nan());
        assert_eq!(check(&[stale_nan()]), None);
        assert_eq!(check(&[]), None);
    }
}
