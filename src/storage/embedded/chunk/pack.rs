//! Packs numbers into as few bits as most of them need.
//!
//! Numbers go in blocks of [`BLOCK`]. Each block has one width; a number that needs more bits keeps its
//! low bits in place and has the rest in a patch behind the block, so that one outlier does not widen
//! 127 others. The width is the one that makes block and patches smallest together.

use super::{
    Damaged,
    bytes::{Reader, put_varint},
};

/// Numbers per block.
pub(crate) const BLOCK: usize = 128;

/// Set in a block's first byte when patches follow.
const PATCHED: u8 = 0x80;

/// A block's packed bytes at the greatest width, and room to load 16 bytes from any of them.
const PADDED: usize = BLOCK * 8 + 16;

/// How many bytes [`pack`] takes.
pub(crate) fn packed_size(numbers: &[u64]) -> usize {
    numbers.chunks(BLOCK).map(|block| plan(block).size).sum()
}

/// Packs all numbers.
pub(crate) fn pack(numbers: &[u64], out: &mut Vec<u8>) {
    for block in numbers.chunks(BLOCK) {
        pack_block(block, out);
    }
}

/// Unpacks one block of `into.len()` numbers, which is [`BLOCK`] for all but the last.
pub(crate) fn unpack_block(reader: &mut Reader<'_>, into: &mut [u64]) -> Result<(), Damaged> {
    let head = reader.u8()?;
    let width = u32::from(head & !PATCHED);
    if width > 64 {
        return Err(Damaged("packed numbers are wider than 64 bits"));
    }
    let patches = if head & PATCHED == 0 { 0 } else { usize::from(reader.u8()?) };
    let packed = reader.take((into.len() * width as usize).div_ceil(8))?;
    unpack(packed, width, into);
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

struct Plan {
    width: u32,
    patches: usize,
    size: usize,
}

fn bits(number: u64) -> u32 {
    64 - number.leading_zeros()
}

/// Finds the width that makes the block smallest.
fn plan(block: &[u64]) -> Plan {
    let mut counts = [0_u16; 65];
    for number in block {
        counts[bits(*number) as usize] += 1;
    }
    let mut best = Plan { width: 64, patches: 0, size: usize::MAX };
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
        let size = 1 + usize::from(patches > 0) + (block.len() * width as usize).div_ceil(8) + patch_bytes;
        if size <= best.size {
            best = Plan { width, patches, size };
        }
        above[above_len] = (width, here);
        above_len += 1;
        patches += here;
    }
    best
}

fn low_bits(width: u32) -> u64 {
    if width == 0 { 0 } else { u64::MAX >> (64 - width) }
}

fn pack_block(block: &[u64], out: &mut Vec<u8>) {
    let plan = plan(block);
    let mask = low_bits(plan.width);
    let width = u8::try_from(plan.width).expect("a width is at most 64");
    out.push(if plan.patches > 0 { width | PATCHED } else { width });
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
    if plan.patches > 0 {
        for (position, _) in block.iter().enumerate().filter(|(_, number)| *number & !mask != 0) {
            out.push(u8::try_from(position).expect("a block has at most 128 numbers"));
        }
        for number in block.iter().filter(|number| *number & !mask != 0) {
            put_varint(out, number >> plan.width);
        }
    }
}

/// Unpacks `into.len()` numbers of `width` bits; `packed` is exactly as long as they need.
fn unpack(packed: &[u8], width: u32, into: &mut [u64]) {
    if width == 0 {
        into.fill(0);
        return;
    }
    let mut padded = [0_u8; PADDED];
    padded[..packed.len()].copy_from_slice(packed);
    let mask = low_bits(width);
    let mut at = 0_usize;
    // A number that starts anywhere in a byte and is at most 57 bits wide lies within eight bytes.
    if width <= 57 {
        for number in into {
            let word = u64::from_le_bytes(padded[at >> 3..(at >> 3) + 8].try_into().expect("eight bytes"));
            *number = (word >> (at & 7)) & mask;
            at += width as usize;
        }
    } else {
        for number in into {
            let word = u128::from_le_bytes(padded[at >> 3..(at >> 3) + 16].try_into().expect("16 bytes"));
            #[expect(clippy::cast_possible_truncation, reason = "the low 64 bits are what is asked for")]
            let low = (word >> (at & 7)) as u64;
            *number = low & mask;
            at += width as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(numbers: &[u64]) -> usize {
        let mut out = Vec::new();
        pack(numbers, &mut out);
        assert_eq!(out.len(), packed_size(numbers));
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
        fn any_numbers_come_back(numbers in prop::collection::vec((any::<u64>(), 0_u32..64).prop_map(|(n, s)| n >> s), 0..400)) {
            check(&numbers);
        }
    }
}
