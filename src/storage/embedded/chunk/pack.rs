//! Packs numbers into as few bits as most of them need.
//!
//! Numbers go in blocks of [`BLOCK`]. Each block has one width, and all its numbers have so many low bits in place.
//! What a number has above them is in a patch behind the block, so that one outlier does not widen 127 others; or, where
//! numbers of many lengths are mixed, as steps do, it is *counted out*: as many zeros and a one.
//!
//! ```text
//! 1 0 5 2 12  →  width 2, low bits 01 00 01 10 00, above them 0 0 1 0 3 as 1 1 01 1 0001
//! ```
//!
//! The writer takes what makes block and patches smallest together.

use smallvec::SmallVec;

use super::{
    Damaged,
    bytes::{Reader, put_varint, varint_size},
};

/// Numbers per block.
pub(crate) const BLOCK: usize = 128;

/// Set in a block's first byte when patches follow.
const PATCHED: u8 = 0x80;

/// A block's first byte when what is above the low bits is counted out: this and the width.
const COUNTED: u8 = 65;

/// The greatest width of a block that is counted out.
const MAX_COUNTED_WIDTH: u32 = 62;

/// What is more above the low bits than this goes into a patch, which then is shorter.
const MAX_COUNT: u64 = 20;

/// How numbers are packed, and how many bytes it takes.
#[derive(Debug, Default)]
pub(crate) struct Packing {
    blocks: SmallVec<[Plan; 8]>,
    /// How many bytes [`pack`] writes.
    pub(crate) size: usize,
}

impl Packing {
    /// Finds out how the numbers are packed best.
    pub(crate) fn of(numbers: &[u64]) -> Self {
        let blocks: SmallVec<_> = numbers.chunks(BLOCK).map(plan).collect();
        let size = blocks.iter().map(|block: &Plan| block.size).sum();
        Self { blocks, size }
    }
}

/// Packs all numbers, for which the packing was found.
pub(crate) fn pack(numbers: &[u64], packing: &Packing, out: &mut Vec<u8>) {
    for (block, plan) in numbers.chunks(BLOCK).zip(&packing.blocks) {
        pack_block(block, *plan, out);
    }
}

/// Unpacks one block of `into.len()` numbers, which is [`BLOCK`] for all but the last.
pub(crate) fn unpack_block(reader: &mut Reader<'_>, into: &mut [u64]) -> Result<(), Damaged> {
    let head = reader.u8()?;
    let code = head & !PATCHED;
    let counted = code >= COUNTED;
    let width = u32::from(if counted { code - COUNTED } else { code });
    let patches = if head & PATCHED == 0 { 0 } else { usize::from(reader.u8()?) };
    // What follows is not needed, but to load numbers near the end in one piece.
    let packed = reader.clone().rest();
    reader.take((into.len() * width as usize).div_ceil(8))?;
    unpack(packed, width, into);
    if counted {
        let length = count_in(reader.clone().rest(), width, into)?;
        reader.take(length)?;
    }
    let positions = reader.take(patches)?;
    for position in positions {
        let number = into.get_mut(usize::from(*position)).ok_or(Damaged("patch lies outside its block"))?;
        let high = reader.varint()?;
        if width >= 64 || high.leading_zeros() < width {
            return Err(Damaged("patch is wider than 64 bits"));
        }
        *number |= high << width;
    }
    Ok(())
}

/// How a block is written, and what it takes.
#[derive(Clone, Copy, Debug)]
struct Plan {
    counted: bool,
    width: u32,
    patches: usize,
    size: usize,
}

impl Plan {
    /// Whether what a number has above the low bits goes into a patch.
    fn patches(self, number: u64) -> bool {
        let high = number & !low_bits(self.width);
        if self.counted { high >> self.width > MAX_COUNT } else { high != 0 }
    }
}

fn bits(number: u64) -> u32 {
    64 - number.leading_zeros()
}

/// Finds what makes the block smallest.
fn plan(block: &[u64]) -> Plan {
    let mut counts = [0_u16; 65];
    for number in block {
        counts[bits(*number) as usize] += 1;
    }
    let packed = plan_packed(block.len(), &counts);
    let Some(width) = width_to_count(block.len(), &counts, packed.size) else { return packed };
    let counted = plan_counted(block, width);
    // What is counted out takes a little longer to read, so it has to be worth it.
    if counted.size + counted.size / 32 < packed.size { counted } else { packed }
}

fn plan_packed(length: usize, counts: &[u16; 65]) -> Plan {
    let mut best = Plan { counted: false, width: 64, patches: 0, size: usize::MAX };
    // The widths seen so far, which are above the one being looked at: (width, numbers of that width).
    let mut above: [(u32, usize); 65] = [(0, 0); 65];
    let mut above_len = 0;
    let mut patches = 0;
    for width in (0..=64_u32).rev() {
        let here = usize::from(counts[width as usize]);
        // Only a width that some number has can be best; 0 stands for all numbers patched.
        if here == 0 && width != 0 {
            continue;
        }
        let patch_bytes: usize = above[..above_len]
            .iter()
            .map(|(wide, count)| count * (1 + (wide - width).div_ceil(7) as usize))
            .sum();
        let size = 1 + usize::from(patches > 0) + (length * width as usize).div_ceil(8) + patch_bytes;
        if size <= best.size {
            best = Plan { counted: false, width, patches, size };
        }
        above[above_len] = (width, here);
        above_len += 1;
        patches += here;
    }
    best
}

/// The width at which counting out may take less than `most` bytes, and least.
fn width_to_count(length: usize, counts: &[u16; 65], most: usize) -> Option<u32> {
    // Half of the numbers are shorter: where lengths are mixed, as steps are, the best width is about that.
    let mut seen = 0;
    let middle = counts.iter().position(|count| {
        seen += usize::from(*count);
        seen * 2 > length
    });
    let middle = u32::try_from(middle.unwrap_or(0)).unwrap_or(0);
    let longest = counts.iter().rposition(|count| *count > 0).unwrap_or(0);
    // In halves of bits, as if numbers of as many bits were spread evenly.
    let guess = |width: u32| {
        let low = (width as usize).min(longest);
        let within: usize = counts[..=low].iter().map(|count| usize::from(*count)).sum();
        let above = counts[low + 1..=longest.max(low)].iter().zip(1_u32..);
        let above: usize = above
            .map(|(count, bits)| usize::from(*count) * if bits > 4 { 50 } else { 2 + (3 << bits >> 1) })
            .sum();
        length * width as usize * 2 + within * 2 + above
    };
    let near = middle.saturating_sub(1)..=(middle + 1).min(MAX_COUNTED_WIDTH);
    let (least, width) = near.map(|width| (guess(width), width)).min()?;
    (least / 16 < most).then_some(width)
}

fn plan_counted(block: &[u64], width: u32) -> Plan {
    let (mut stream, mut patches) = (block.len() as u64, 0);
    for number in block {
        let above = number >> width;
        stream += if above > MAX_COUNT { 0 } else { above };
        patches += usize::from(above > MAX_COUNT);
    }
    let mut size = 1 + (block.len() * width as usize).div_ceil(8);
    size += usize::try_from(stream.div_ceil(8)).unwrap_or(usize::MAX / 2);
    if patches > 0 {
        let patched = block.iter().map(|number| number >> width).filter(|above| *above > MAX_COUNT);
        size += 1 + patched.map(|above| 1 + varint_size(above)).sum::<usize>();
    }
    Plan { counted: true, width, patches, size }
}

fn low_bits(width: u32) -> u64 {
    if width == 0 { 0 } else { u64::MAX >> (64 - width) }
}

fn pack_block(block: &[u64], plan: Plan, out: &mut Vec<u8>) {
    let mask = low_bits(plan.width);
    let width = u8::try_from(plan.width).expect("a width is at most 64");
    let code = if plan.counted { COUNTED + width } else { width };
    out.push(if plan.patches > 0 { code | PATCHED } else { code });
    if plan.patches > 0 {
        out.push(u8::try_from(plan.patches).expect("a block has at most 128 numbers"));
    }
    let (mut pending, mut have) = (0_u128, 0_u32);
    for number in block {
        pending |= u128::from(number & mask) << have;
        have += plan.width;
        if have >= 64 {
            out.extend_from_slice(&pending.to_le_bytes()[..8]);
            pending >>= 64;
            have -= 64;
        }
    }
    out.extend_from_slice(&pending.to_le_bytes()[..have.div_ceil(8) as usize]);
    if plan.counted {
        count_out(block, plan, out);
    }
    if plan.patches > 0 {
        for (position, _) in block.iter().enumerate().filter(|(_, number)| plan.patches(**number)) {
            out.push(u8::try_from(position).expect("a block has at most 128 numbers"));
        }
        for number in block.iter().filter(|number| plan.patches(**number)) {
            put_varint(out, number >> plan.width);
        }
    }
}

/// Writes what is above the low bits as zeros and a one, from the least significant bit on.
fn count_out(block: &[u64], plan: Plan, out: &mut Vec<u8>) {
    let (mut pending, mut have) = (0_u64, 0_u32);
    for number in block {
        let above = number >> plan.width;
        have += if above > MAX_COUNT { 0 } else { u32::try_from(above).unwrap_or(0) };
        pending |= 1 << have;
        have += 1;
        if have >= 32 {
            out.extend_from_slice(&pending.to_le_bytes()[..4]);
            pending >>= 32;
            have -= 32;
        }
    }
    out.extend_from_slice(&pending.to_le_bytes()[..have.div_ceil(8) as usize]);
}

/// Reads what [`count_out`] wrote at the front of `bytes`, adds it above the low bits, and answers how long it was.
fn count_in(bytes: &[u8], width: u32, into: &mut [u64]) -> Result<usize, Damaged> {
    const SHORT: Damaged = Damaged("counts end early");
    let (mut word_at, mut next) = (0_usize, 0_usize);
    let mut numbers = into.iter_mut();
    let mut number = numbers.next();
    while number.is_some() {
        let here = bytes.get(word_at..).unwrap_or_default();
        let mut word = match here.first_chunk::<8>() {
            Some(eight) => u64::from_le_bytes(*eight),
            None if here.is_empty() => return Err(SHORT),
            None => {
                let mut eight = [0; 8];
                eight[..here.len()].copy_from_slice(here);
                u64::from_le_bytes(eight)
            }
        };
        let first = word_at * 8;
        // Each one in the word ends a number.
        while word != 0 {
            let Some(ended) = number else { break };
            let end = first + word.trailing_zeros() as usize;
            *ended |= ((end - next) as u64) << width;
            next = end + 1;
            word &= word - 1;
            number = numbers.next();
        }
        word_at += 8;
    }
    Ok(next.div_ceil(8))
}

/// Unpacks numbers of a width that is known when this is compiled, so that where each lies is, too. `packed` is at least
/// as long as they need.
type Unpacker = fn(packed: &[u8], into: &mut [u64]);

macro_rules! unpackers {
    ($($width:literal)*) => { [$(unpack_as::<$width>),*] };
}

/// For each width an unpacker.
const UNPACKERS: [Unpacker; 58] = unpackers!(
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39
    40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57
);

/// Unpacks `into.len()` numbers of `width` bits from the front of `packed`, which is at least as long as they need.
fn unpack(packed: &[u8], width: u32, into: &mut [u64]) {
    match UNPACKERS.get(width as usize) {
        Some(unpack) => unpack(packed, into),
        None => unpack_wide(packed, width, into),
    }
}

/// A number that starts anywhere in a byte and is at most 57 bits wide lies within eight bytes.
fn unpack_as<const WIDTH: usize>(packed: &[u8], into: &mut [u64]) {
    const { assert!(WIDTH <= 57, "a number has to lie within eight bytes") };
    if WIDTH == 0 {
        into.fill(0);
        return;
    }
    let mask = u64::MAX >> (64 - WIDTH);
    let (mut left, mut into) = (packed, into);
    // Eight numbers fill whole bytes.
    while into.len() >= 8 && left.len() >= WIDTH + 8 {
        let (eight, rest) = std::mem::take(&mut into).split_at_mut(8);
        let bytes = &left[..WIDTH + 8];
        for (i, number) in eight.iter_mut().enumerate() {
            let at = i * WIDTH;
            let word = u64::from_le_bytes(bytes[at / 8..at / 8 + 8].try_into().expect("eight bytes"));
            *number = (word >> (at % 8)) & mask;
        }
        (left, into) = (&left[WIDTH..], rest);
    }
    // What is left is too near the end to be loaded in one piece.
    let mut end = [0_u8; 57 + 2 * 8];
    let length = left.len().min(WIDTH + 8);
    end[..length].copy_from_slice(&left[..length]);
    for (i, number) in into.iter_mut().enumerate() {
        let at = i * WIDTH;
        let word = u64::from_le_bytes(end[at / 8..at / 8 + 8].try_into().expect("eight bytes"));
        *number = (word >> (at % 8)) & mask;
    }
}

/// Unpacks numbers of up to 64 bits, which may lie in nine bytes.
fn unpack_wide(packed: &[u8], width: u32, into: &mut [u64]) {
    let mask = low_bits(width);
    let mut at = 0_usize;
    for number in into {
        let here = &packed[at >> 3..];
        let mut bytes = [0; 16];
        let length = here.len().min(16);
        bytes[..length].copy_from_slice(&here[..length]);
        #[expect(clippy::cast_possible_truncation, reason = "the low 64 bits are what is asked for")]
        let low = (u128::from_le_bytes(bytes) >> (at & 7)) as u64;
        *number = low & mask;
        at += width as usize;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(numbers: &[u64]) -> usize {
        let mut out = Vec::new();
        let packing = Packing::of(numbers);
        pack(numbers, &packing, &mut out);
        assert_eq!(out.len(), packing.size);
        let mut reader = Reader::new(&out);
        let mut back = vec![7; numbers.len()];
        for block in back.chunks_mut(BLOCK) {
            unpack_block(&mut reader, block).unwrap();
        }
        assert_eq!(back, numbers);
        assert_eq!(reader.remaining(), 0);
        out.len()
    }

    #[test]
    fn every_width_comes_back() {
        for width in 0..=64 {
            let top = low_bits(width);
            check(&(0..300_u64).map(|i| top.wrapping_sub(i * 7) & top).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_outlier_does_not_widen_its_block() {
        let mut numbers = vec![5; 128];
        let plain = check(&numbers);
        numbers[77] = u64::MAX;
        assert!(check(&numbers) <= plain + 12);
    }

    #[test]
    fn numbers_of_many_lengths_are_counted_out() {
        // Mostly 0, the others up to 5: one and a half bits each, where packing takes three.
        let few: Vec<u64> = (0..128_u64).map(|i| (i * 7919 % 18).saturating_sub(12)).collect();
        assert!(check(&few) <= 128 * 2 / 8 + 4);
        let steps: Vec<u64> = (0..1280_u64).map(|i| (1 << (i * 7919 % 9)) | (i % 3)).collect();
        check(&steps);
        for width in 0..40 {
            check(&steps.iter().map(|step| step << width | 1).collect::<Vec<_>>());
        }
    }

    #[test]
    fn counts_that_do_not_end_are_refused() {
        let mut into = [0; 3];
        for bytes in [&[COUNTED][..], &[COUNTED, 0b11], &[COUNTED, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[127, 0, 1]] {
            assert!(unpack_block(&mut Reader::new(bytes), &mut into).is_err());
        }
        assert!(unpack_block(&mut Reader::new(&[COUNTED, 0b10110]), &mut into).is_ok());
        assert_eq!(into, [1, 0, 1]);
    }

    #[test]
    fn a_patch_that_does_not_fit_is_refused() {
        let mut into = [0; 2];
        assert!(unpack_block(&mut Reader::new(&[65, 0, 0]), &mut into).is_err());
        // One patch at position 2 of a block of two.
        assert!(unpack_block(&mut Reader::new(&[0x80, 1, 2, 1]), &mut into).is_err());
        // High bits that are shifted out.
        assert!(
            unpack_block(
                &mut Reader::new(&[
                    0x80 | 8,
                    1,
                    0,
                    0,
                    0,
                    0xff,
                    0xff,
                    0xff,
                    0xff,
                    0xff,
                    0xff,
                    0xff,
                    0xff,
                    0xff,
                    1
                ]),
                &mut into
            )
            .is_err()
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), code in 0_u8..=255, count in 1_usize..=BLOCK) {
            let bytes = [&[code], bytes.as_slice()].concat();
            let _ = unpack_block(&mut Reader::new(&bytes), &mut [0; BLOCK][..count]);
        }

        #[test]
        fn steps_come_back(numbers in prop::collection::vec((any::<u64>(), 40_u32..64).prop_map(|(n, s)| n >> s), 0..400)) {
            check(&numbers);
        }

        #[test]
        fn any_numbers_come_back(numbers in prop::collection::vec((any::<u64>(), 0_u32..64).prop_map(|(n, s)| n >> s), 0..400)) {
            check(&numbers);
        }
    }
}
