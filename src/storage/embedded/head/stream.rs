//! Float samples of one series as they arrive, packed.
//!
//! A sample takes the change of the distance between timestamps and of the value:
//!
//! ```text
//! varint: zigzag(distance − previous distance) × 4 + tag │ value
//!
//! tag 0  the same bits as before          nothing
//! tag 1  a whole number after another     varint: zigzag(difference)
//! tag 2  any other                        one byte: zero bytes above × 16 + below; the bytes between of the XOR
//! tag 3  the first, or too far a jump     8 bytes of time, 8 bytes of value
//! ```
//!
//! A scraped counter takes three to four bytes. Whole bytes rather than bits: appending costs a few
//! nanoseconds, and a flush packs everything again and better.

use crate::storage::embedded::varint::{Reader, put_i64, put_u64, unzigzag, whole, zigzag};

/// Packed samples with rising times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    bytes: Vec<u8>,
    last: i64,
    bits: u64,
    count: u32,
    /// Between the last two; what does not fit begins anew. There is one of these for each series.
    distance: i32,
}

/// More than a sample ever takes.
const ROOM: usize = 20;

const SAME: u64 = 0;
const WHOLE: u64 = 1;
const XOR: u64 = 2;
const FULL: u64 = 3;

impl Stream {
    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    /// The time of the first sample: it stands behind the tag with which each stream begins.
    pub(crate) fn first(&self) -> i64 {
        self.bytes.get(1..9).and_then(|time| time.try_into().ok()).map_or(0, i64::from_le_bytes)
    }

    pub(crate) const fn last(&self) -> i64 {
        self.last
    }

    pub(crate) const fn last_bits(&self) -> u64 {
        self.bits
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends a sample later than all there are.
    pub(crate) fn push(&mut self, timestamp: i64, bits: u64) {
        if self.bytes.capacity() - self.bytes.len() < ROOM {
            // Twice as much, as a vector takes by itself, is too much for all series together.
            self.bytes.reserve_exact(ROOM.max(self.bytes.len() / 4));
        }
        match i32::try_from(timestamp.wrapping_sub(self.last)) {
            Ok(distance) if self.count > 0 => {
                let jump = zigzag(i64::from(distance) - i64::from(self.distance));
                self.distance = distance;
                self.push_value(jump << 2, bits);
            }
            Ok(_) | Err(_) => {
                put_u64(&mut self.bytes, FULL);
                self.bytes.extend_from_slice(&timestamp.to_le_bytes());
                self.bytes.extend_from_slice(&bits.to_le_bytes());
                self.distance = 0;
            }
        }
        self.last = timestamp;
        self.bits = bits;
        self.count += 1;
    }

    #[expect(clippy::cast_possible_truncation, reason = "counts of zero bytes are at most 7")]
    fn push_value(&mut self, head: u64, bits: u64) {
        if bits == self.bits {
            put_u64(&mut self.bytes, head | SAME);
        } else if let Some((n, before)) = whole(f64::from_bits(bits)).zip(whole(f64::from_bits(self.bits))) {
            put_u64(&mut self.bytes, head | WHOLE);
            put_i64(&mut self.bytes, n - before);
        } else {
            put_u64(&mut self.bytes, head | XOR);
            let xor = bits ^ self.bits;
            let (above, below) = (xor.leading_zeros() / 8, xor.trailing_zeros() / 8);
            self.bytes.push((above << 4 | below) as u8);
            let between = (8 - above - below) as usize;
            self.bytes.extend_from_slice(&(xor >> (8 * below)).to_le_bytes()[..between]);
        }
    }

    /// Ends the stream and gives its bytes; the next sample begins another.
    pub(crate) fn take(&mut self) -> Box<[u8]> {
        let bytes = self.bytes.as_slice().into();
        self.bytes.clear();
        self.count = 0;
        bytes
    }
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
                prop_oneof![any::<u64>(), (0..1000_u32).prop_map(|n| f64::from(n).to_bits()), Just(f64::NAN.to_bits())],
                0..300,
            )
        ) {
            let mut stream = Stream::default();
            for (t, b) in &all {
                stream.push(*t, *b);
            }
            let mut back = Vec::new();
            unpack(stream.bytes(), |t, b| { back.push((t, b)); true });
            prop_assert_eq!(all.first_key_value().map(|(t, _)| *t), (stream.count() > 0).then(|| stream.first()));
            prop_assert_eq!(back, all.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn a_sample_takes_no_more_than_its_room(pairs in prop::collection::vec((1..i64::MAX / 8, any::<u64>()), 1..50)) {
            let (mut stream, mut at) = (Stream::default(), i64::MIN / 2);
            for (step, bits) in pairs {
                let before = stream.bytes().len();
                at = at.saturating_add(step);
                stream.push(at, bits);
                prop_assert!(stream.bytes().len() - before <= ROOM);
            }
        }
    }

    #[test]
    fn a_scraped_counter_takes_few_bytes() {
        let mut stream = Stream::default();
        for i in 0..240_i64 {
            stream.push(1_700_000_000_000 + i * 15_000 + i % 7, ((i * 1234) as f64).to_bits());
        }
        assert!(stream.bytes().len() < 240 * 4, "{}", stream.bytes().len());
    }
}
