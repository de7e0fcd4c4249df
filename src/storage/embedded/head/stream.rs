//! Float samples of one series as they arrive, packed.
//!
//! A sample takes the change of the distance between timestamps and of the value:
//!
//! ```text
//! varint: zigzag(distance − previous distance) × 4 + tag │ value
//!
//! tag 0  the same bits as before          nothing
//! tag 1  a whole number after another     varint: zigzag(difference)
//! tag 2  a number of few decimals after   one byte: 0xf0 + decimals; varint: zigzag(difference of the last decimals)
//!        another
//! tag 2  any other                        one byte: zero bytes above × 16 + below; the bytes between of the XOR
//! tag 3  the first, or too far a jump     8 bytes of time, 8 bytes of value
//! ```
//!
//! A scraped counter takes three to four bytes. Whole bytes rather than bits: appending costs a few
//! nanoseconds, and a flush packs everything again and better.

use smallvec::SmallVec;

use super::pieces::{Chain, Pieces};
use crate::storage::embedded::varint::{Reader, unzigzag, whole, zigzag};

/// Packed samples with rising times; the bytes are in the stripe's pieces. There is one of these for each series.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    last: i64,
    bits: u64,
    chain: Chain,
    /// Between the last two; what does not fit begins anew.
    distance: i32,
}

/// More samples than this do not fit.
pub(crate) const MOST_SAMPLES: u32 = u16::MAX as u32;

/// The bytes of a stream in a row; most fit without memory of their own.
pub(crate) type Row = SmallVec<[u8; 1024]>;

/// More than a sample ever takes.
const ROOM: usize = 20;

/// A sample's bytes.
#[derive(Debug, Default)]
struct Packed {
    bytes: [u8; ROOM],
    length: usize,
}

impl Packed {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    #[expect(clippy::cast_possible_truncation, reason = "seven bits are taken at a time")]
    fn put_u64(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.put(&[n as u8 | 0x80]);
            n >>= 7;
        }
        self.put(&[n as u8]);
    }
}

const SAME: u64 = 0;
const WHOLE: u64 = 1;
const XOR: u64 = 2;
const FULL: u64 = 3;

impl Stream {
    pub(crate) fn count(&self) -> u32 {
        u32::from(self.chain.pushes())
    }

    /// The time of the first sample: it stands behind the tag with which each stream begins.
    pub(crate) fn first(&self, pieces: &Pieces) -> i64 {
        let time = self.chain.front(pieces).get(1..9);
        time.and_then(|time| time.try_into().ok()).map_or(0, i64::from_le_bytes)
    }

    pub(crate) const fn last(&self) -> i64 {
        self.last
    }

    pub(crate) const fn last_bits(&self) -> u64 {
        self.bits
    }

    /// The packed samples.
    pub(crate) fn row(&self, pieces: &Pieces) -> Row {
        let mut row = Row::new();
        self.chain.each(pieces, |piece| row.extend_from_slice(piece));
        row
    }

    /// Appends a sample later than all there are, which are fewer than [`MOST_SAMPLES`].
    pub(crate) fn push(&mut self, pieces: &mut Pieces, timestamp: i64, bits: u64) {
        let mut packed = Packed::default();
        match i32::try_from(timestamp.wrapping_sub(self.last)) {
            Ok(distance) if self.count() > 0 => {
                let jump = zigzag(i64::from(distance) - i64::from(self.distance));
                self.distance = distance;
                self.pack_value(&mut packed, jump << 2, bits);
            }
            Ok(_) | Err(_) => {
                packed.put_u64(FULL);
                packed.put(&timestamp.to_le_bytes());
                packed.put(&bits.to_le_bytes());
                self.distance = 0;
            }
        }
        self.chain.push(pieces, &packed.bytes[..packed.length]);
        self.last = timestamp;
        self.bits = bits;
    }

    #[expect(clippy::cast_possible_truncation, reason = "counts of zero bytes are at most 7")]
    fn pack_value(&self, packed: &mut Packed, head: u64, bits: u64) {
        if bits == self.bits {
            packed.put_u64(head | SAME);
        } else if let Some((n, before)) = whole(f64::from_bits(bits)).zip(whole(f64::from_bits(self.bits))) {
            packed.put_u64(head | WHOLE);
            packed.put_u64(zigzag(n - before));
        } else if let Some((decimals, difference)) = decimals(f64::from_bits(self.bits), f64::from_bits(bits))
        {
            packed.put_u64(head | XOR);
            packed.put(&[DECIMALS + decimals]);
            packed.put_u64(zigzag(difference));
        } else {
            packed.put_u64(head | XOR);
            let xor = bits ^ self.bits;
            let (above, below) = (xor.leading_zeros() / 8, xor.trailing_zeros() / 8);
            packed.put(&[(above << 4 | below) as u8]);
            let between = (8 - above - below) as usize;
            packed.put(&(xor >> (8 * below)).to_le_bytes()[..between]);
        }
    }

    /// Ends the stream and gives its bytes; the next sample begins another.
    pub(crate) fn take(&mut self, pieces: &mut Pieces) -> Box<[u8]> {
        let bytes = self.row(pieces).as_slice().into();
        self.chain.clear(pieces);
        bytes
    }
}

/// What stands in the place of zero bytes that there cannot be, before the number of decimals.
const DECIMALS: u8 = 0xf0;
/// What numbers with so many decimals are multiplied with, from one on.
const SCALES: [f64; 3] = [10.0, 100.0, 1000.0];

/// The number without its point, as far as a float holds it.
#[expect(clippy::cast_possible_truncation, reason = "beyond its bounds it is none")]
fn scaled(value: f64, scale: f64) -> Option<i64> {
    let near = value * scale;
    let n = (near + 0.5_f64.copysign(near)) as i64;
    (-(1 << 53)..=1 << 53).contains(&n).then_some(n)
}

/// With how many decimals both numbers can be told, to the bit, and what then is between them.
fn decimals(before: f64, value: f64) -> Option<(u8, i64)> {
    let exact = |value: f64, scale: f64| {
        scaled(value, scale).filter(|n| (*n as f64 / scale).to_bits() == value.to_bits())
    };
    (1_u8..).zip(SCALES).find_map(|(decimals, scale)| {
        let n = exact(value, scale)?;
        Some((decimals, n - scaled(before, scale)?))
    })
}

/// Unpacks samples in order until `each` says stop by returning false.
pub(crate) fn unpack(bytes: &[u8], mut each: impl FnMut(i64, u64) -> bool) {
    let mut reader = Reader::new(bytes);
    let (mut last, mut distance, mut bits) = (0_i64, 0_i64, 0_u64);
    while let Some((t, d, b)) = step(&mut reader, last, distance, bits) {
        (last, distance, bits) = (t, d, b);
        if !each(t, b) {
            return;
        }
    }
}

fn step(r: &mut Reader<'_>, last: i64, distance: i64, bits: u64) -> Option<(i64, i64, u64)> {
    let head = r.u64()?;
    if head & 3 == FULL {
        let timestamp = i64::from_le_bytes(r.take(8)?.try_into().ok()?);
        return Some((timestamp, 0, r.f64()?.to_bits()));
    }
    let distance = distance.wrapping_add(unzigzag(head >> 2));
    let timestamp = last.wrapping_add(distance);
    let bits = match head & 3 {
        SAME => bits,
        WHOLE => {
            let before = whole(f64::from_bits(bits))?;
            (before.wrapping_add(r.i64()?) as f64).to_bits()
        }
        _ => {
            let zeros = r.take(1)?[0];
            if let Some(decimals) = zeros.checked_sub(DECIMALS) {
                let scale = *SCALES.get(usize::from(decimals).checked_sub(1)?)?;
                let before = scaled(f64::from_bits(bits), scale)?;
                let n = before.wrapping_add(r.i64()?);
                return Some((timestamp, distance, (n as f64 / scale).to_bits()));
            }
            let (above, below) = (usize::from(zeros >> 4), u32::from(zeros & 15));
            let between = 8_usize.checked_sub(above + below as usize)?;
            let mut xor = [0; 8];
            xor[..between].copy_from_slice(r.take(between)?);
            bits ^ u64::from_le_bytes(xor) << (8 * below)
        }
    };
    Some((timestamp, distance, bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn samples_come_back_to_the_bit(
            all in prop::collection::btree_map(
                prop_oneof![0..100_000_i64, any::<i64>()],
                prop_oneof![
                    any::<u64>(),
                    (0..1000_u32).prop_map(|n| f64::from(n).to_bits()),
                    (-100_000..100_000_i32, 1..=4_i32)
                        .prop_map(|(n, decimals)| (f64::from(n) / 10_f64.powi(decimals)).to_bits()),
                    (any::<i64>(), 1..=3_i32).prop_map(|(n, decimals)| (n as f64 / 10_f64.powi(decimals)).to_bits()),
                    prop::sample::select(vec![f64::NAN, -0.0, f64::INFINITY, f64::MIN_POSITIVE]).prop_map(f64::to_bits),
                ],
                0..300,
            )
        ) {
            let (mut stream, mut pieces) = (Stream::default(), Pieces::default());
            for (t, b) in &all {
                stream.push(&mut pieces, *t, *b);
            }
            let mut back = Vec::new();
            unpack(&stream.row(&pieces), |t, b| { back.push((t, b)); true });
            prop_assert_eq!(all.first_key_value().map(|(t, _)| *t), (stream.count() > 0).then(|| stream.first(&pieces)));
            prop_assert_eq!(back, all.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn a_sample_takes_no_more_than_its_room(pairs in prop::collection::vec((1..i64::MAX / 8, any::<u64>()), 1..50)) {
            let (mut stream, mut pieces, mut at) = (Stream::default(), Pieces::default(), i64::MIN / 2);
            let mut before = 0;
            for (step, bits) in pairs {
                at = at.saturating_add(step);
                stream.push(&mut pieces, at, bits);
                let length = stream.row(&pieces).len();
                prop_assert!(length - before <= ROOM);
                before = length;
            }
        }
    }

    #[test]
    fn decimals_take_few_bytes() {
        let (mut stream, mut pieces) = (Stream::default(), Pieces::default());
        for i in 0..240_i64 {
            let value = (i * 7919 % 10_000) as f64 / 100.0;
            stream.push(&mut pieces, 1_700_000_000_000 + i * 15_000, value.to_bits());
        }
        let length = stream.row(&pieces).len();
        assert!(length < 240 * 6, "{length}");
    }

    #[test]
    fn a_scraped_counter_takes_few_bytes() {
        let (mut stream, mut pieces) = (Stream::default(), Pieces::default());
        for i in 0..240_i64 {
            stream.push(&mut pieces, 1_700_000_000_000 + i * 15_000 + i % 7, ((i * 1234) as f64).to_bits());
        }
        let length = stream.row(&pieces).len();
        assert!(length < 240 * 4, "{length}");
    }
}
