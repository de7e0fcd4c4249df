//! A column of whole numbers: times, start timestamps, the digits of decimal values.
//!
//! A [`Shape`] turns the numbers into a rest that is hopefully small: themselves, their differences, the
//! differences of those, or what they are off an even grid. The rest is made smaller by taking away its
//! minimum (or its median, where it spreads to both sides) and the greatest common divisor, and packed.
//! The writer tries the shapes it is told to and takes the smallest; the reader only adds up.

use super::{
    Damaged,
    bytes::{Reader, from_zigzag, put_varint, put_zigzag, to_zigzag, varint_size},
    pack::{self, BLOCK, Packing},
};

/// How numbers are turned into a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The numbers themselves.
    Flat = 0,
    /// What each is off the one before.
    Delta = 1,
    /// The differences of the differences.
    Delta2 = 2,
    /// What each is off an even grid through the first.
    Grid = 3,
}

/// The packed numbers are zigzag.
const SIGNED: u8 = 0x10;
/// A factor is there.
const FACTOR: u8 = 0x20;
/// Every rest is the base.
const EVEN: u8 = 0x40;

impl Shape {
    fn heads(self) -> usize {
        match self {
            Self::Flat => 0,
            Self::Delta => 1,
            Self::Delta2 | Self::Grid => 2,
        }
    }
}

/// One way to write the column, and what it costs.
struct Draft {
    shape: Shape,
    signed: bool,
    even: bool,
    heads: [i64; 2],
    base: i64,
    factor: i64,
    numbers: Vec<u64>,
    packing: Packing,
    size: usize,
}

/// Writes the numbers in the smallest of the shapes.
pub(crate) fn encode(values: &[i64], shapes: &[Shape], out: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    let mut best: Option<Draft> = None;
    for shape in shapes {
        // A shape whose heads are all there is wins nothing over the plain one.
        if shape.heads() > values.len() {
            continue;
        }
        let (heads, rest) = rest_of(values, *shape);
        for signed in [false, true] {
            let below = best.as_ref().map_or(usize::MAX, |best| best.size);
            let Some(draft) = draft(*shape, heads, &rest, signed, below) else { continue };
            let done = draft.even;
            best = Some(draft);
            if done {
                break;
            }
        }
    }
    let best = best.or_else(|| {
        let (heads, rest) = rest_of(values, Shape::Flat);
        draft(Shape::Flat, heads, &rest, false, usize::MAX)
    });
    write(&best.expect("a draft without a bound is always made"), out);
}

fn rest_of(values: &[i64], shape: Shape) -> ([i64; 2], Vec<i64>) {
    let delta = |pair: &[i64]| pair[1].wrapping_sub(pair[0]);
    match shape {
        Shape::Flat => ([0; 2], values.to_vec()),
        Shape::Delta => ([values[0], 0], values.windows(2).map(delta).collect()),
        Shape::Delta2 => {
            let second = |three: &[i64]| delta(&three[1..]).wrapping_sub(delta(&three[..2]));
            ([values[0], delta(&values[..2])], values.windows(3).map(second).collect())
        }
        Shape::Grid => {
            let mut deltas: Vec<i64> = values.windows(2).map(delta).collect();
            let step = median(&mut deltas);
            let mut at = values[0];
            let rest = values[1..].iter().map(|value| {
                at = at.wrapping_add(step);
                value.wrapping_sub(at)
            });
            ([values[0], step], rest.collect())
        }
    }
}

fn median(values: &mut [i64]) -> i64 {
    let middle = values.len() / 2;
    if values.is_empty() { 0 } else { *values.select_nth_unstable(middle).1 }
}

/// Drafts the column, unless that is not smaller than `below` bytes.
fn draft(shape: Shape, heads: [i64; 2], rest: &[i64], signed: bool, below: usize) -> Option<Draft> {
    let base = if signed { median(&mut rest.to_vec()) } else { rest.iter().copied().min().unwrap_or(0) };
    let mut factor = 0_u64;
    for value in rest {
        factor = gcd(value.wrapping_sub(base), signed, factor);
        if factor == 1 {
            break;
        }
    }
    let even = factor == 0;
    let factor = i64::try_from(factor).unwrap_or(1).max(1);
    let mut numbers: Vec<u64> = Vec::new();
    if !even {
        // Dividing is dear, and there is mostly nothing to divide by.
        let off = rest.iter().map(|value| value.wrapping_sub(base));
        let divisor = factor.cast_unsigned();
        match (signed, factor) {
            (true, 1) => numbers.extend(off.map(to_zigzag)),
            (true, _) => numbers.extend(off.map(|off| to_zigzag(off / factor))),
            (false, 1) => numbers.extend(off.map(i64::cast_unsigned)),
            (false, _) => numbers.extend(off.map(|off| off.cast_unsigned() / divisor)),
        }
    }
    let mut size = 1 + varint_size(to_zigzag(base));
    size += heads[..shape.heads()].iter().map(|head| varint_size(to_zigzag(*head))).sum::<usize>();
    if factor > 1 {
        size += varint_size(factor.cast_unsigned());
    }
    // However they are packed and patched, no bit below a number's highest can be left out.
    let bits: usize = numbers.iter().map(|number| 64 - number.leading_zeros() as usize).sum();
    if size + bits / 8 >= below {
        return None;
    }
    let packing = Packing::of(&numbers);
    size += packing.size;
    (size < below).then_some(Draft { shape, signed, even, heads, base, factor, numbers, packing, size })
}

fn gcd(value: i64, signed: bool, with: u64) -> u64 {
    let (mut a, mut b) = (if signed { value.unsigned_abs() } else { value.cast_unsigned() }, with);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn write(draft: &Draft, out: &mut Vec<u8>) {
    let mut tag = draft.shape as u8;
    if draft.signed {
        tag |= SIGNED;
    }
    if draft.factor > 1 {
        tag |= FACTOR;
    }
    if draft.even {
        tag |= EVEN;
    }
    out.push(tag);
    for head in &draft.heads[..draft.shape.heads()] {
        put_zigzag(out, *head);
    }
    put_zigzag(out, draft.base);
    if draft.factor > 1 {
        put_varint(out, draft.factor.cast_unsigned());
    }
    pack::pack(&draft.numbers, &draft.packing, out);
}

/// Reads `count` numbers and adds them to `into`. The caller has bounded `count`.
pub(crate) fn decode(reader: &mut Reader<'_>, count: usize, into: &mut Vec<i64>) -> Result<(), Damaged> {
    if count == 0 {
        return Ok(());
    }
    let tag = reader.u8()?;
    let shape = match tag & 0x0f {
        0 => Shape::Flat,
        1 => Shape::Delta,
        2 => Shape::Delta2,
        3 => Shape::Grid,
        _ => return Err(Damaged("integer column has an unknown shape")),
    };
    if tag & 0x80 != 0 {
        return Err(Damaged("integer column has an unknown flag"));
    }
    let mut heads = [0_i64; 2];
    for head in &mut heads[..shape.heads()] {
        *head = reader.zigzag()?;
    }
    let base = reader.zigzag()?;
    let factor = if tag & FACTOR == 0 { 1 } else { reader.varint()?.cast_signed() };
    let mut sum = Sum::new(shape, heads);
    into.reserve(count);
    let mut left = count;
    match shape {
        Shape::Flat => {}
        Shape::Delta | Shape::Grid => {
            into.push(heads[0]);
            left -= 1;
        }
        Shape::Delta2 => {
            if count < 2 {
                return Err(Damaged("integer column is shorter than its heads"));
            }
            into.extend([heads[0], heads[0].wrapping_add(heads[1])]);
            left -= 2;
        }
    }
    let mut block = [0_u64; BLOCK];
    while left > 0 {
        let block = &mut block[..left.min(BLOCK)];
        if tag & EVEN == 0 {
            pack::unpack_block(reader, block)?;
        }
        if tag & SIGNED == 0 {
            sum.add(block, |n| base.wrapping_add(n.cast_signed().wrapping_mul(factor)), into);
        } else {
            sum.add(block, |n| base.wrapping_add(from_zigzag(n).wrapping_mul(factor)), into);
        }
        left -= block.len();
    }
    Ok(())
}

/// Turns a rest back into numbers, block by block.
struct Sum {
    shape: Shape,
    at: i64,
    step: i64,
}

impl Sum {
    fn new(shape: Shape, heads: [i64; 2]) -> Self {
        match shape {
            Shape::Flat => Self { shape, at: 0, step: 0 },
            Shape::Delta | Shape::Grid => Self { shape, at: heads[0], step: heads[1] },
            Shape::Delta2 => Self { shape, at: heads[0].wrapping_add(heads[1]), step: heads[1] },
        }
    }

    #[inline]
    fn add(&mut self, block: &[u64], rest: impl Fn(u64) -> i64, into: &mut Vec<i64>) {
        let (mut at, mut step) = (self.at, self.step);
        match self.shape {
            Shape::Flat => into.extend(block.iter().map(|n| rest(*n))),
            Shape::Delta => into.extend(block.iter().map(|n| {
                at = at.wrapping_add(rest(*n));
                at
            })),
            Shape::Delta2 => into.extend(block.iter().map(|n| {
                step = step.wrapping_add(rest(*n));
                at = at.wrapping_add(step);
                at
            })),
            Shape::Grid => into.extend(block.iter().map(|n| {
                at = at.wrapping_add(step);
                at.wrapping_add(rest(*n))
            })),
        }
        (self.at, self.step) = (at, step);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Shape; 4] = [Shape::Flat, Shape::Delta, Shape::Delta2, Shape::Grid];

    fn check(values: &[i64], shapes: &[Shape]) -> usize {
        let mut out = Vec::new();
        encode(values, shapes, &mut out);
        let mut reader = Reader::new(&out);
        let mut back = Vec::new();
        decode(&mut reader, values.len(), &mut back).unwrap();
        assert_eq!(back, values);
        assert_eq!(reader.remaining(), 0);
        out.len()
    }

    #[test]
    fn even_columns_take_a_few_bytes() {
        assert!(check(&[1_700_000_000_000; 1000], &ALL) <= 8);
        assert!(check(&(0..1000).map(|i| 1_700_000_000_000 + i * 15_000).collect::<Vec<_>>(), &ALL) <= 12);
    }

    #[test]
    fn a_common_factor_is_taken_out() {
        let pages: Vec<i64> = (0..256).map(|i| (i * 37 % 100) * 4096).collect();
        assert!(check(&pages, &ALL) <= 256 * 7 / 8 + 16);
    }

    #[test]
    fn the_ends_of_the_range_come_back() {
        for shape in ALL {
            check(&[i64::MIN, i64::MAX, i64::MIN, 0, -1, 1, i64::MAX], &[shape]);
            check(&[i64::MIN], &[shape]);
            check(&[i64::MAX, i64::MIN], &[shape]);
            check(&[], &[shape]);
        }
    }

    proptest! {
        #[test]
        fn any_numbers_come_back(values in prop::collection::vec((any::<i64>(), 0_u32..64).prop_map(|(n, s)| n >> s), 0..300)) {
            for shape in ALL {
                check(&values, &[shape]);
            }
            check(&values, &ALL);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), count in 0_usize..2000) {
            let _ = decode(&mut Reader::new(&bytes), count, &mut Vec::new());
        }
    }
}
