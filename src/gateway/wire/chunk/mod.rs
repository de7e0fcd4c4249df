//! Samples in the chunks that Prometheus keeps and sends: remote read streams them.
//!
//! A chunk is up to 120 samples of one kind, compressed bit by bit; [`floats`] and [`histograms`] say how. They hold no
//! start timestamps. Of the samples of a series, in order of time, a chunk ends when it is full, when a sample is of
//! another kind, and before a histogram that does not go on from the last ([`histograms::follows`]).

mod bits;
mod floats;
mod histograms;
#[cfg(test)]
mod tests;

use histograms::{Before, Follows, follows};

use crate::{
    model::histogram::Counts,
    storage::{HistogramSample, SeriesSamples},
};

/// The most samples of a chunk.
const MAX_SAMPLES: usize = 120;

/// What a chunk holds; the discriminants are remote read's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Floats.
    Xor = 1,
    /// Histograms with whole counts.
    Histogram = 2,
    /// Histograms with other counts.
    FloatHistogram = 3,
}

impl Encoding {
    /// The encoding with this number.
    pub fn of_number(number: i32) -> Option<Self> {
        match number {
            1 => Some(Self::Xor),
            2 => Some(Self::Histogram),
            3 => Some(Self::FloatHistogram),
            _ => None,
        }
    }
}

/// Some samples of a series, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// How.
    pub encoding: Encoding,
    /// The time of the first, in milliseconds.
    pub min_time: i64,
    /// The time of the last.
    pub max_time: i64,
    /// Their bits.
    pub bytes: Vec<u8>,
}

/// Bytes that are no chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunk does not decode: {0}")]
pub struct Damaged(&'static str);

/// The chunks of a series' samples, in order of time.
pub fn encode(samples: &SeriesSamples) -> Vec<Chunk> {
    let mut chunks = Vec::with_capacity(samples.len().div_ceil(MAX_SAMPLES));
    let (mut float, mut histogram) = (0, 0);
    let mut before = None;
    loop {
        let next_float = samples.timestamps.get(float).copied();
        let next_histogram = samples.histograms.get(histogram);
        match (next_float, next_histogram) {
            (None, None) => return chunks,
            (Some(at), other) if other.is_none_or(|other| at < other.timestamp) => {
                let until = other.map_or(i64::MAX, |other| other.timestamp.saturating_sub(1));
                let end = samples.timestamps.len().min(float + MAX_SAMPLES);
                let count = samples.timestamps[float..end].partition_point(|time| *time <= until).max(1);
                chunks.push(float_chunk(samples, float..float + count));
                float += count;
                before = None;
            }
            (until, _) => {
                let rest = &samples.histograms[histogram..];
                let (count, next) = run(rest, until);
                let first = before.unwrap_or_else(|| Before::said_by(&rest[0].histogram));
                chunks.push(histogram_chunk(&rest[..count], first));
                histogram += count;
                before = next;
            }
        }
    }
}

/// Reads a chunk; its samples come behind those that are there.
pub fn decode(encoding: Encoding, bytes: &[u8], into: &mut SeriesSamples) -> Result<(), Damaged> {
    match encoding {
        Encoding::Xor => floats::decode(bytes, into),
        Encoding::Histogram => histograms::decode(bytes, true, &mut into.histograms),
        Encoding::FloatHistogram => histograms::decode(bytes, false, &mut into.histograms),
    }
}

/// How many of the histograms are before `until` and in one chunk, and what is known of a reset before the one behind
/// them; at least one.
fn run(histograms: &[HistogramSample], until: Option<i64>) -> (usize, Option<Before>) {
    for (i, pair) in histograms.windows(2).enumerate() {
        let (last, next) = (&pair[0].histogram, &pair[1].histogram);
        if kind(&last.counts) != kind(&next.counts) || until.is_some_and(|until| pair[1].timestamp >= until) {
            return (i + 1, None);
        }
        match follows(last, next) {
            Follows::On if i + 1 < MAX_SAMPLES => {}
            // A gauge stays one, and of others it is known that they go on.
            Follows::On => {
                let before = Before::said_by(next);
                return (i + 1, Some(if before == Before::Unknown { Before::NoReset } else { before }));
            }
            Follows::Anew(before) => return (i + 1, Some(before)),
        }
    }
    (histograms.len(), None)
}

fn kind(counts: &Counts) -> Encoding {
    match counts {
        Counts::Integer { .. } => Encoding::Histogram,
        Counts::Float { .. } => Encoding::FloatHistogram,
    }
}

fn float_chunk(samples: &SeriesSamples, range: std::ops::Range<usize>) -> Chunk {
    let timestamps = &samples.timestamps[range.clone()];
    Chunk {
        encoding: Encoding::Xor,
        min_time: timestamps.first().copied().unwrap_or_default(),
        max_time: timestamps.last().copied().unwrap_or_default(),
        bytes: floats::encode(timestamps, &samples.values[range]),
    }
}

fn histogram_chunk(samples: &[HistogramSample], before: Before) -> Chunk {
    let time = |sample: Option<&HistogramSample>| sample.map_or(0, |sample| sample.timestamp);
    Chunk {
        encoding: samples.first().map_or(Encoding::Histogram, |first| kind(&first.histogram.counts)),
        min_time: time(samples.first()),
        max_time: time(samples.last()),
        bytes: histograms::encode(samples, before),
    }
}
