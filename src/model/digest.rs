//! What a set of samples is, in one number that does not depend on their order.
//!
//! Each sample has a 128-bit hash of its series, its time and its bits; the digest is their sum. So the
//! digests of parts add up to the digest of the whole, in whatever order and batches the parts were
//! read, and a sample that is missing, changed or there twice makes another number.

use std::fmt;

use xxhash_rust::xxh3::xxh3_128;

use super::{Exemplar, Histogram, SeriesId, histogram::Counts};

/// How many samples there are of each kind, and what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Float samples.
    pub samples: u64,
    /// Histograms.
    pub histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
    sum: u128,
}

/// The sum of the samples' hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum(pub u128);

impl Digest {
    /// Adds a float sample.
    pub fn sample(&mut self, series: SeriesId, timestamp: i64, value: f64, start: i64) {
        let mut bytes = [0; 41];
        bytes[..16].copy_from_slice(&series.0.to_le_bytes());
        bytes[16] = b's';
        bytes[17..25].copy_from_slice(&timestamp.to_le_bytes());
        bytes[25..33].copy_from_slice(&value.to_bits().to_le_bytes());
        bytes[33..].copy_from_slice(&start.to_le_bytes());
        self.samples += 1;
        self.add(&bytes);
    }

    /// Adds a histogram.
    pub fn histogram(&mut self, series: SeriesId, timestamp: i64, histogram: &Histogram, start: i64) {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&series.0.to_le_bytes());
        bytes.push(b'h');
        bytes.extend_from_slice(&timestamp.to_le_bytes());
        bytes.extend_from_slice(&start.to_le_bytes());
        push_histogram(&mut bytes, histogram);
        self.histograms += 1;
        self.add(&bytes);
    }

    /// Adds an exemplar.
    pub fn exemplar(&mut self, series: SeriesId, exemplar: &Exemplar) {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&series.0.to_le_bytes());
        bytes.push(b'e');
        bytes.extend_from_slice(&exemplar.timestamp.millis().to_le_bytes());
        bytes.extend_from_slice(&exemplar.value.to_bits().to_le_bytes());
        bytes.extend_from_slice(exemplar.labels.as_canonical().as_bytes());
        self.exemplars += 1;
        self.add(&bytes);
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        self.samples += other.samples;
        self.histograms += other.histograms;
        self.exemplars += other.exemplars;
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// What was added since the digest was `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            samples: self.samples - before.samples,
            histograms: self.histograms - before.histograms,
            exemplars: self.exemplars - before.exemplars,
            sum: self.sum.wrapping_sub(before.sum),
        }
    }

    /// What the samples are.
    pub fn checksum(&self) -> Checksum {
        Checksum(self.sum)
    }

    fn add(&mut self, bytes: &[u8]) {
        self.sum = self.sum.wrapping_add(xxh3_128(bytes));
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Checksum {
    /// Reads what [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(Self)
    }

    /// The checksum of both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

/// Writes a histogram so that no two are alike.
fn push_histogram(bytes: &mut Vec<u8>, histogram: &Histogram) {
    bytes.extend_from_slice(&histogram.schema.to_le_bytes());
    bytes.extend_from_slice(&histogram.zero_threshold.to_bits().to_le_bytes());
    bytes.extend_from_slice(&histogram.sum.to_bits().to_le_bytes());
    bytes.push(histogram.reset_hint as u8);
    for spans in [&histogram.positive_spans, &histogram.negative_spans] {
        push_length(bytes, spans.len());
        for span in spans {
            bytes.extend_from_slice(&span.offset.to_le_bytes());
            bytes.extend_from_slice(&span.length.to_le_bytes());
        }
    }
    match &histogram.counts {
        Counts::Integer { count, zero_count, positive, negative } => {
            bytes.push(0);
            bytes.extend_from_slice(&count.to_le_bytes());
            bytes.extend_from_slice(&zero_count.to_le_bytes());
            for deltas in [positive, negative] {
                push_length(bytes, deltas.len());
                deltas.iter().for_each(|delta| bytes.extend_from_slice(&delta.to_le_bytes()));
            }
        }
        Counts::Float { count, zero_count, positive, negative } => {
            bytes.push(1);
            bytes.extend_from_slice(&count.to_bits().to_le_bytes());
            bytes.extend_from_slice(&zero_count.to_bits().to_le_bytes());
            for counts in [positive, negative] {
                push_length(bytes, counts.len());
                counts.iter().for_each(|count| bytes.extend_from_slice(&count.to_bits().to_le_bytes()));
            }
        }
    }
    push_length(bytes, histogram.custom_values.len());
    histogram.custom_values.iter().for_each(|bound| bytes.extend_from_slice(&bound.to_bits().to_le_bytes()));
}

fn push_length(bytes: &mut Vec<u8>, length: usize) {
    bytes.extend_from_slice(&(length as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::stale_nan;

    #[test]
    fn parts_in_any_order_add_up_to_the_whole() {
        let (a, b) = (SeriesId(1), SeriesId(2));
        let mut whole = Digest::default();
        whole.sample(a, 1, 1.0, 0);
        whole.sample(b, 1, f64::NAN, 0);
        whole.sample(a, 2, stale_nan(), 7);
        let (mut first, mut second) = (Digest::default(), Digest::default());
        second.sample(a, 1, 1.0, 0);
        first.sample(a, 2, stale_nan(), 7);
        first.sample(b, 1, f64::NAN, 0);
        first.merge(&second);
        assert_eq!(first, whole);
        assert_eq!(whole.samples, 3);
    }

    #[test]
    fn another_bit_series_time_or_start_is_another_number() {
        let of = |series, timestamp, value, start| {
            let mut digest = Digest::default();
            digest.sample(SeriesId(series), timestamp, value, start);
            digest.checksum()
        };
        let one = of(1, 1, 0.0, 0);
        for other in [of(2, 1, 0.0, 0), of(1, 2, 0.0, 0), of(1, 1, -0.0, 0), of(1, 1, 0.0, 1)] {
            assert_ne!(one, other);
        }
        assert_ne!(of(1, 1, f64::NAN, 0), of(1, 1, stale_nan(), 0));
        let mut twice = Digest::default();
        twice.sample(SeriesId(1), 1, 0.0, 0);
        twice.sample(SeriesId(1), 1, 0.0, 0);
        assert_ne!(twice.checksum(), one);
    }

    #[test]
    fn a_checksum_reads_as_it_is_written() {
        let checksum = Checksum(0x0123_4567_89ab_cdef);
        assert_eq!(checksum.to_string(), "00000000000000000123456789abcdef");
        assert_eq!(Checksum::parse(&checksum.to_string()), Some(checksum));
        for wrong in ["", "1", "+0000000000000000123456789abcdef", "0000000000000000123456789abcdefg0"] {
            assert_eq!(Checksum::parse(wrong), None, "{wrong:?}");
        }
    }
}
