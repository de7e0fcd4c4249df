//! A column of floats, back to the bit.
//!
//! Most metrics are short decimals: counts, bytes, seconds with a few digits. Such a column is written
//! as whole numbers and one power of ten, and the few values that are no such decimals (a stale marker,
//! an infinity) are patched in. What is left goes as xor stream or as the floats' bits in numeric order,
//! whichever is smaller, and if nothing helps, as it is.
//!
//! ```text
//! 12.5  12.75  13.0  NaN   →   exponent 2, patch {3: NaN}, integers 1250 1275 1300 1300
//! ```
//!
//! A decimal counts as exact when dividing the integer by the power of ten gives the same 64 bits, which
//! is what the reader will do.
//!
//! Where they are [`Whole`] numbers they can be written as what they are off the numbers of another column, as the buckets
//! of a histogram are: each counts what the one below it counts, too. Such a column can only be read with those numbers.

use super::{
    Damaged,
    bytes::{Reader, put_length, put_varint},
    ints::{self, Shape},
    xor,
};

const CONSTANT: u8 = 0;
const DECIMAL: u8 = 1;
const XOR: u8 = 2;
const BITS: u8 = 3;
const RAW: u8 = 4;
const DIFFERENCE: u8 = 5;

/// The greatest power of ten tried: a float holds no more than 15 digits of any decimal.
const MAX_EXPONENT: usize = 15;

/// Powers of ten, all of them exact.
const POWERS: [f64; MAX_EXPONENT + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// Integers beyond this are not all floats, so dividing them is not exact.
const MAX_DIGITS: f64 = 9_007_199_254_740_992.0;

/// Writes the values in the smallest form.
pub(crate) fn encode(values: &[f64], out: &mut Vec<u8>) {
    let Some(first) = values.first() else { return };
    let start = out.len();
    if values.iter().all(|value| value.to_bits() == first.to_bits()) {
        let mut short = Vec::new();
        if encode_decimal(values, &mut short) && short.len() < 9 {
            out.extend_from_slice(&short);
        } else {
            out.push(CONSTANT);
            out.extend_from_slice(&first.to_bits().to_le_bytes());
        }
        return;
    }
    let decimal = encode_decimal(values, out);
    // A decimal column of up to four bytes a value is not beaten by the others.
    if decimal && (out.len() - start) <= values.len() * 4 {
        return;
    }
    let mut other = vec![XOR];
    xor::encode(values, &mut other);
    let mut bits = vec![BITS];
    let ordered: Vec<i64> = values.iter().map(|value| ordered_bits(*value)).collect();
    ints::encode(&ordered, &[Shape::Flat, Shape::Delta], &mut bits);
    if bits.len() < other.len() {
        other = bits;
    }
    if 1 + values.len() * 8 < other.len() {
        other.clear();
        other.push(RAW);
        other.extend(values.iter().flat_map(|value| value.to_bits().to_le_bytes()));
    }
    if !decimal || other.len() < out.len() - start {
        out.truncate(start);
        out.extend_from_slice(&other);
    }
}

/// Reads `count` values from the column that fills `bytes` and adds them to `into`.
///
/// The caller has bounded `count`. After an error `into` may hold more than before.
pub(crate) fn decode(bytes: &[u8], count: usize, into: &mut Vec<f64>) -> Result<(), Damaged> {
    if count == 0 {
        return Ok(());
    }
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        CONSTANT => {
            let value = reader.f64()?;
            into.resize(into.len() + count, value);
            Ok(())
        }
        DECIMAL => decode_decimal(&mut reader, count, into),
        XOR => xor::decode(reader.rest(), count, into),
        BITS => {
            let mut ordered = Vec::new();
            ints::decode(&mut reader, count, &mut ordered)?;
            into.extend(ordered.into_iter().map(from_ordered_bits));
            Ok(())
        }
        RAW => {
            let bytes = reader.take(count.checked_mul(8).ok_or(Damaged("ends early"))?)?;
            let words = bytes.chunks_exact(8).map(|word| word.try_into().expect("eight bytes"));
            into.extend(words.map(|word| f64::from_bits(u64::from_le_bytes(word))));
            Ok(())
        }
        DIFFERENCE => Err(Damaged("value column stands on another one")),
        _ => Err(Damaged("value column has an unknown codec")),
    }
}

/// Values that are whole numbers but for a few.
#[derive(Debug)]
pub(crate) struct Whole {
    /// The numbers. In the place of a value that is none stands the one before it, and at the front the first there is.
    pub(crate) numbers: Vec<i64>,
    /// Where the values are that are none.
    patched: Vec<usize>,
}

/// The values as whole numbers, if they are.
pub(crate) fn whole(values: &[f64]) -> Option<Whole> {
    decimals(values, 0)
}

/// Writes values as what they are off `base`, the numbers of a column as long.
pub(crate) fn encode_difference(values: &[f64], whole: &Whole, base: &[i64], out: &mut Vec<u8>) {
    out.push(DIFFERENCE);
    put_patches(values, &whole.patched, out);
    let off: Vec<i64> = whole.numbers.iter().zip(base).map(|(own, base)| own.wrapping_sub(*base)).collect();
    ints::encode(&off, &[Shape::Flat, Shape::Delta, Shape::Delta2], out);
}

/// Reads the column of differences that fills `bytes`: adds its numbers to those of `base`, which become its own, and
/// the values to `into`. After an error both may be anything.
pub(crate) fn decode_difference(bytes: &[u8], base: &mut [i64], into: &mut Vec<f64>) -> Result<(), Damaged> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != DIFFERENCE {
        return Err(Damaged("value column stands on no other one"));
    }
    let mut patches = Patches::skip(&mut reader)?;
    let mut off = Vec::new();
    ints::decode(&mut reader, base.len(), &mut off)?;
    for (number, off) in base.iter_mut().zip(off) {
        *number = number.wrapping_add(off);
    }
    let start = into.len();
    into.extend(base.iter().map(|whole| *whole as f64));
    patches.apply(&mut into[start..])
}

/// Reads `count` numbers of the column that fills `bytes` and adds them to `into`: those of [`Whole`], or what they
/// are off another column's, which is what the answer says. The caller has bounded `count`.
pub(crate) fn decode_numbers(bytes: &[u8], count: usize, into: &mut Vec<i64>) -> Result<bool, Damaged> {
    const NOT_WHOLE: Damaged = Damaged("value column does not hold whole numbers");
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        CONSTANT => {
            let number = digits(reader.f64()?, 0).ok_or(NOT_WHOLE)?;
            into.resize(into.len() + count, number);
            Ok(false)
        }
        DECIMAL if reader.u8()? == 0 => {
            Patches::skip(&mut reader)?;
            ints::decode(&mut reader, count, into)?;
            Ok(false)
        }
        DIFFERENCE => {
            Patches::skip(&mut reader)?;
            ints::decode(&mut reader, count, into)?;
            Ok(true)
        }
        _ => Err(NOT_WHOLE),
    }
}

/// The float's bits as an integer that is ordered like the floats are.
fn ordered_bits(value: f64) -> i64 {
    let bits = value.to_bits().cast_signed();
    if bits < 0 { bits ^ i64::MAX } else { bits }
}

fn from_ordered_bits(bits: i64) -> f64 {
    let bits = if bits < 0 { bits ^ i64::MAX } else { bits };
    f64::from_bits(bits.cast_unsigned())
}

/// The integer that gives `value` when divided by ten to the `exponent`, if there is one.
#[inline]
pub(crate) fn digits(value: f64, exponent: usize) -> Option<i64> {
    let power = POWERS[exponent];
    let scaled = (value * power).round_ties_even();
    // NaN and the infinities are not below it.
    let within = if exponent == 0 { scaled.abs() < 9.2e18 } else { scaled.abs() <= MAX_DIGITS };
    #[expect(clippy::cast_possible_truncation, reason = "the range was just checked")]
    let whole = scaled as i64;
    (within && undigits(whole, exponent).to_bits() == value.to_bits()).then_some(whole)
}

/// Takes [`digits`] back.
#[inline]
pub(crate) fn undigits(digits: i64, exponent: usize) -> f64 {
    if exponent == 0 { digits as f64 } else { digits as f64 / POWERS[exponent] }
}

/// Finds the smallest exponent that leaves few enough values to patch.
fn exponent_of(values: &[f64], patches: usize) -> Option<usize> {
    let mut exponent = 0;
    // How many of the values so far need which exponent above the present one, or none at all (last).
    let mut misses = [0_usize; MAX_EXPONENT + 2];
    let mut missed = 0;
    for value in values {
        if digits(*value, exponent).is_some() {
            continue;
        }
        let need = if value.is_finite() {
            (exponent + 1..=MAX_EXPONENT).find(|e| digits(*value, *e).is_some())
        } else {
            None
        };
        misses[need.unwrap_or(MAX_EXPONENT + 1)] += 1;
        missed += 1;
        while missed > patches {
            let next = (exponent + 1..=MAX_EXPONENT).find(|e| misses[*e] > 0)?;
            missed -= misses[next];
            misses[next] = 0;
            exponent = next;
        }
    }
    Some(exponent)
}

/// The values as integers over ten to the `exponent`, unless too many are none.
fn decimals(values: &[f64], exponent: usize) -> Option<Whole> {
    // A patched value stands as the integer before it, and at the front as the first there is.
    let mut standing = values.iter().find_map(|value| digits(*value, exponent))?;
    let mut numbers = Vec::with_capacity(values.len());
    let mut patched = Vec::new();
    for (i, value) in values.iter().enumerate() {
        match digits(*value, exponent) {
            Some(whole) => standing = whole,
            None => patched.push(i),
        }
        numbers.push(standing);
    }
    (patched.len() <= patches_allowed(values.len())).then_some(Whole { numbers, patched })
}

/// Two in a hundred, and a few in a short column: a series has its stale marker, a counter its reset.
fn patches_allowed(values: usize) -> usize {
    (values / 50).max(2)
}

/// Adds the column in decimal form, or leaves `out` as it is when the values are not decimals.
fn encode_decimal(values: &[f64], out: &mut Vec<u8>) -> bool {
    let Some(exponent) = exponent_of(values, patches_allowed(values.len())) else { return false };
    // The exponent that suits the short values can push long ones past 53 bits.
    let Some(decimals) = decimals(values, exponent) else { return false };
    out.push(DECIMAL);
    out.push(u8::try_from(exponent).expect("an exponent is at most 15"));
    put_patches(values, &decimals.patched, out);
    ints::encode(&decimals.numbers, &[Shape::Flat, Shape::Delta, Shape::Delta2], out);
    true
}

fn decode_decimal(reader: &mut Reader<'_>, count: usize, into: &mut Vec<f64>) -> Result<(), Damaged> {
    let exponent = usize::from(reader.u8()?);
    if exponent > MAX_EXPONENT {
        return Err(Damaged("decimal exponent is above 15"));
    }
    let mut patches = Patches::skip(reader)?;
    let mut integers = Vec::new();
    ints::decode(reader, count, &mut integers)?;
    let start = into.len();
    if exponent == 0 {
        into.extend(integers.iter().map(|whole| *whole as f64));
    } else {
        let power = POWERS[exponent];
        into.extend(integers.iter().map(|whole| *whole as f64 / power));
    }
    patches.apply(&mut into[start..])
}

fn put_patches(values: &[f64], patched: &[usize], out: &mut Vec<u8>) {
    put_length(out, patched.len());
    let mut last = 0;
    for i in patched {
        put_varint(out, (i - last) as u64);
        out.extend_from_slice(&values[*i].to_bits().to_le_bytes());
        last = *i;
    }
}

/// Values that take the place of what the numbers before them say.
struct Patches<'a> {
    count: usize,
    reader: Reader<'a>,
}

impl<'a> Patches<'a> {
    /// Finds them, and where what follows starts.
    fn skip(reader: &mut Reader<'a>) -> Result<Self, Damaged> {
        let count = reader.count(9)?;
        let patches = Self { count, reader: reader.clone() };
        for _ in 0..count {
            reader.varint()?;
            reader.f64()?;
        }
        Ok(patches)
    }

    fn apply(&mut self, values: &mut [f64]) -> Result<(), Damaged> {
        let mut at = 0_usize;
        for _ in 0..self.count {
            at = at
                .checked_add(self.reader.varint_usize()?)
                .ok_or(Damaged("patch lies outside its column"))?;
            *values.get_mut(at).ok_or(Damaged("patch lies outside its column"))? = self.reader.f64()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::stale_nan;

    fn check(values: &[f64]) -> (u8, usize) {
        let mut out = Vec::new();
        encode(values, &mut out);
        let mut back = Vec::new();
        decode(&out, values.len(), &mut back).unwrap();
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(values));
        (out.first().copied().unwrap_or(0), out.len())
    }

    #[test]
    fn every_odd_float_comes_back() {
        let odd = [
            0.0,
            -0.0,
            f64::NAN,
            -f64::NAN,
            stale_nan(),
            f64::from_bits(0x7ff0_0000_0000_0001),
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MIN_POSITIVE,
            5e-324,
            -5e-324,
            f64::MAX,
            f64::MIN,
            f64::EPSILON,
            0.1 + 0.2,
            9_007_199_254_740_993.0,
            1e18,
            -1e18,
            9.3e18,
            1e300,
        ];
        check(&odd);
        for value in odd {
            check(&[value]);
            check(&[value; 200]);
            let mut among: Vec<f64> = (0..200).map(f64::from).collect();
            among[0] = value;
            check(&among);
            among[199] = value;
            check(&among);
        }
    }

    #[test]
    fn short_decimals_are_packed() {
        let seconds: Vec<f64> = (0..240).map(|i| f64::from(100_000 + i * 137 % 1000) / 100.0).collect();
        let (codec, size) = check(&seconds);
        assert_eq!(codec, DECIMAL);
        assert!(size < 240 * 14 / 8 + 32, "{size}");
        assert!(check(&[1.0; 240]).1 <= 6);
        assert!(check(&[0.25; 240]).1 <= 8);
    }

    #[test]
    fn a_stale_marker_does_not_spoil_a_counter() {
        let mut values: Vec<f64> = (0..240).map(|i| f64::from(i * 3)).collect();
        values[0] = stale_nan();
        values[239] = stale_nan();
        let (codec, size) = check(&values);
        assert_eq!(codec, DECIMAL);
        assert!(size < 60, "{size}");
    }

    #[test]
    fn one_long_fraction_does_not_lengthen_the_others() {
        let mut values: Vec<f64> = (0..240).map(|i| f64::from(i % 10)).collect();
        values[100] = 0.123_456_789_012;
        assert!(check(&values).1 < 240 / 2 + 32);
    }

    #[test]
    fn true_floats_take_no_more_than_their_bytes() {
        let mut x = 0.37_f64;
        let chaos: Vec<f64> = (0..500)
            .map(|_| {
                x = 3.99 * x * (1.0 - x);
                x
            })
            .collect();
        assert!(check(&chaos).1 <= 1 + 500 * 8);
    }

    fn any_float() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            (-100_000_i64..100_000, 0_usize..6).prop_map(|(n, e)| undigits(n, e)),
            any::<i32>().prop_map(f64::from),
            Just(stale_nan()),
            Just(-0.0),
        ]
    }

    proptest! {
        #[test]
        fn any_floats_come_back(values in prop::collection::vec(any_float(), 0..300)) {
            check(&values);
        }

        #[test]
        fn decimals_with_outliers_come_back(
            mut values in prop::collection::vec((-100_000_i64..100_000).prop_map(|n| undigits(n, 2)), 1..300),
            outliers in prop::collection::vec((any::<prop::sample::Index>(), any_float()), 0..4),
        ) {
            for (i, outlier) in outliers {
                let i = i.index(values.len());
                values[i] = outlier;
            }
            check(&values);
        }

        #[test]
        fn differences_come_back(
            pairs in prop::collection::vec((any::<i32>(), any::<i32>()), 1..300),
            outliers in prop::collection::vec((any::<prop::sample::Index>(), any_float()), 0..3),
        ) {
            let mut values: Vec<f64> = pairs.iter().map(|(own, _)| f64::from(*own)).collect();
            for (i, outlier) in outliers {
                let i = i.index(values.len());
                values[i] = outlier;
            }
            let mut numbers: Vec<i64> = pairs.iter().map(|(_, base)| i64::from(*base) << 30).collect();
            if let Some(whole) = whole(&values) {
                let mut out = Vec::new();
                encode_difference(&values, &whole, &numbers, &mut out);
                let mut off = Vec::new();
                prop_assert_eq!(decode_numbers(&out, values.len(), &mut off), Ok(true));
                let sums: Vec<i64> = off.iter().zip(&numbers).map(|(off, base)| base.wrapping_add(*off)).collect();
                prop_assert_eq!(&sums, &whole.numbers);
                let mut back = Vec::new();
                decode_difference(&out, &mut numbers, &mut back).unwrap();
                let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(&back), bits(&values));
                prop_assert_eq!(&numbers, &whole.numbers);
            }
        }

        /// What others may stand on reads the same with its values and without.
        #[test]
        fn numbers_are_those_of_the_values(values in prop::collection::vec(any_float(), 1..300)) {
            let mut out = Vec::new();
            encode(&values, &mut out);
            let mut numbers = Vec::new();
            if decode_numbers(&out, values.len(), &mut numbers) == Ok(false) {
                prop_assert_eq!(Some(numbers), whole(&values).map(|whole| whole.numbers));
            }
        }

        #[test]
        fn any_difference_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), count in 0_usize..2000) {
            let bytes = [&[DIFFERENCE], bytes.as_slice()].concat();
            let _ = decode_difference(&bytes, &mut vec![3; count], &mut Vec::new());
            let _ = decode_numbers(&bytes, count, &mut Vec::new());
        }

        #[test]
        fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 1..300), codec in 0_u8..6, count in 0_usize..2000) {
            bytes[0] = codec;
            let _ = decode(&bytes, count, &mut Vec::new());
        }
    }
}
