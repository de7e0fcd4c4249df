//! Many samples of one series in few bytes, back to the bit.
//!
//! A chunk holds its samples in columns: times, start timestamps if any, and values. Each
//! column is written in the codec that makes it smallest; the format, and how to add a codec, is drawn in
//! `schema/disk/chunk.md`.
//!
//! ```text
//! time column │ body: flags, [starts], values
//! ```
//!
//! A time column ([`encode_times`], [`decode_times`]) lies apart from its body ([`encode_float_body`],
//! [`encode_histogram_body`]), because the series of one scrape share it. How many samples there are is
//! known from outside. Samples that were downsampled have another body with the same times ([`encode_gaps`]): what lay
//! between them.
//!
//! A chunk has no checksum: what it lies in has one. Still no bytes at all make a decoder panic, or take
//! much more memory than a chunk can hold.

pub(crate) mod bytes;
mod floats;
mod gaps;
mod histograms;
mod ints;
mod pack;
mod stats;
mod xor;

use std::sync::Arc;

use self::{
    bytes::{Reader, put_length},
    ints::Shape,
};
use crate::{
    model::Histogram,
    storage::selection::{HistogramSample, SeriesSamples},
};

pub(crate) use floats::{Whole, digits, undigits};
pub(crate) use gaps::{decode_gap_ends, decode_gaps, encode_gaps};
pub use stats::ValueStats;

/// The most samples a chunk can have; a decoder refuses more.
pub const MAX_SAMPLES: usize = 1 << 20;

const VERSION: u8 = 1;
const HISTOGRAMS: u8 = 0x1;
const STARTS: u8 = 0x2;
const GAPS: u8 = 0x4;

/// Why bytes are not a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damaged(pub &'static str);

/// Writes times, which are mostly an even grid, as a column.
pub fn encode_times(timestamps: &[i64], out: &mut Vec<u8>) {
    ints::encode(timestamps, &[Shape::Delta, Shape::Grid, Shape::Delta2], out);
}

/// Reads a column of `count` times and adds them to `into`; after an error `into` is as before.
pub fn decode_times(column: &[u8], count: usize, into: &mut Vec<i64>) -> Result<(), Damaged> {
    if count > MAX_SAMPLES {
        return Err(Damaged("chunk has too many samples"));
    }
    let before = into.len();
    let mut reader = Reader::new(column);
    let decoded = ints::decode(&mut reader, count, into).and_then(|()| ended(&reader));
    if decoded.is_err() {
        into.truncate(before);
    }
    decoded
}

/// Writes float values and their start timestamps (empty, or as many) as a body.
pub fn encode_float_body(values: &[f64], starts: &[i64], out: &mut Vec<u8>) {
    assert!(starts.is_empty() || starts.len() == values.len(), "every sample has a start or none has");
    put_head(0, starts, out);
    floats::encode(values, out);
}

/// Reads the body that belongs to the times from number `before` on, and adds what it holds.
///
/// After an error the times are still there, and values and starts as they were.
pub fn decode_float_body(body: &[u8], before: usize, into: &mut SeriesSamples) -> Result<(), Damaged> {
    let count = into.timestamps.len().saturating_sub(before);
    let starts_before = into.starts.len();
    let decoded = decode_float_columns(body, before, count, into);
    if decoded.is_err() {
        into.values.truncate(before);
        into.starts.truncate(starts_before);
    }
    decoded
}

fn decode_float_columns(
    body: &[u8],
    before: usize,
    count: usize,
    into: &mut SeriesSamples,
) -> Result<(), Damaged> {
    let mut reader = Reader::new(body);
    decode_starts(&mut reader, before, count, into)?;
    floats::decode(reader.rest(), count, &mut into.values)
}

/// Reads what stands before the values.
fn decode_starts(
    reader: &mut Reader<'_>,
    before: usize,
    count: usize,
    into: &mut SeriesSamples,
) -> Result<(), Damaged> {
    let head = head(reader)?;
    if head & (HISTOGRAMS | GAPS) != 0 {
        return Err(Damaged("chunk holds something else where floats are expected"));
    }
    if head & STARTS != 0 {
        let length = reader.varint_usize()?;
        let mut column = Reader::new(reader.take(length)?);
        into.starts.resize(before, 0);
        ints::decode(&mut column, count, &mut into.starts)?;
        ended(&column)?;
    } else if !into.starts.is_empty() {
        into.starts.resize(before + count, 0);
    }
    Ok(())
}

/// The values as whole numbers, if they are such but for a few: what can stand on another chunk, or another on it.
pub(crate) fn whole(values: &[f64]) -> Option<Whole> {
    floats::whole(values)
}

/// Writes values as what they are off the numbers of another chunk, which has as many.
pub(crate) fn encode_difference_body(
    values: &[f64],
    starts: &[i64],
    whole: &Whole,
    base: &[i64],
    out: &mut Vec<u8>,
) {
    assert_eq!(values.len(), base.len(), "a chunk stands on one with the same times");
    put_head(0, starts, out);
    floats::encode_difference(values, whole, base, out);
}

/// Reads the body that belongs to the times from number `before` on and stands on the numbers `base`, which become
/// its own.
///
/// After an error the times are still there, values and starts as they were, and `base` is anything.
pub(crate) fn decode_difference_body(
    body: &[u8],
    before: usize,
    base: &mut [i64],
    into: &mut SeriesSamples,
) -> Result<(), Damaged> {
    let count = into.timestamps.len().saturating_sub(before);
    if base.len() != count {
        return Err(Damaged("chunk stands on one of another length"));
    }
    let starts_before = into.starts.len();
    let mut reader = Reader::new(body);
    let decoded = decode_starts(&mut reader, before, count, into)
        .and_then(|()| floats::decode_difference(reader.rest(), base, &mut into.values));
    if decoded.is_err() {
        into.values.truncate(before);
        into.starts.truncate(starts_before);
    }
    decoded
}

/// Reads the `count` numbers of a body of floats; true if they are only what they are off another chunk's.
pub(crate) fn decode_numbers(body: &[u8], count: usize, into: &mut Vec<i64>) -> Result<bool, Damaged> {
    if count > MAX_SAMPLES {
        return Err(Damaged("chunk has too many samples"));
    }
    let mut reader = Reader::new(body);
    let head = head(&mut reader)?;
    if head & (HISTOGRAMS | GAPS) != 0 {
        return Err(Damaged("chunk holds something else where floats are expected"));
    }
    if head & STARTS != 0 {
        let length = reader.varint_usize()?;
        reader.take(length)?;
    }
    floats::decode_numbers(reader.rest(), count, into)
}

/// Writes histograms and their start timestamps as a body.
pub fn encode_histogram_body(samples: &[HistogramSample], out: &mut Vec<u8>) {
    let starts: Vec<i64> = samples.iter().map(|sample| sample.start).collect();
    put_head(HISTOGRAMS, &starts, out);
    histograms::encode(samples.iter().map(|sample| &*sample.histogram), out);
}

/// Reads a body of as many histograms as there are times; after an error `into` is as before.
pub fn decode_histogram_body(
    body: &[u8],
    timestamps: &[i64],
    into: &mut SeriesSamples,
) -> Result<(), Damaged> {
    let before = into.histograms.len();
    let decoded = decode_histogram_columns(body, timestamps, &mut into.histograms);
    if decoded.is_err() {
        into.histograms.truncate(before);
    }
    decoded
}

fn decode_histogram_columns(
    body: &[u8],
    timestamps: &[i64],
    into: &mut Vec<HistogramSample>,
) -> Result<(), Damaged> {
    let mut reader = Reader::new(body);
    let head = head(&mut reader)?;
    if head & HISTOGRAMS == 0 {
        return Err(Damaged("chunk holds floats where histograms are expected"));
    }
    let mut starts = Vec::new();
    if head & STARTS != 0 {
        let length = reader.varint_usize()?;
        let mut column = Reader::new(reader.take(length)?);
        ints::decode(&mut column, timestamps.len(), &mut starts)?;
        ended(&column)?;
    }
    let mut samples = timestamps.iter().enumerate();
    histograms::decode(&mut reader, timestamps.len(), |histogram: Arc<Histogram>| {
        if let Some((i, timestamp)) = samples.next() {
            let start = starts.get(i).copied().unwrap_or(0);
            into.push(HistogramSample { timestamp: *timestamp, start, histogram });
        }
    })?;
    ended(&reader)
}

fn put_head(kind: u8, starts: &[i64], out: &mut Vec<u8>) {
    let has_starts = starts.iter().any(|start| *start != 0);
    out.push(VERSION << 4 | kind | if has_starts { STARTS } else { 0 });
    if has_starts {
        let mut column = Vec::new();
        ints::encode(starts, &[Shape::Flat, Shape::Delta], &mut column);
        put_length(out, column.len());
        out.extend_from_slice(&column);
    }
}

fn head(reader: &mut Reader<'_>) -> Result<u8, Damaged> {
    let head = reader.u8()?;
    if head >> 4 != VERSION {
        return Err(Damaged("chunk is of an unknown version"));
    }
    let flags = head & 0x0f;
    if flags & !(HISTOGRAMS | STARTS) != 0 && flags != GAPS {
        return Err(Damaged("chunk has an unknown flag"));
    }
    Ok(flags)
}

fn ended(reader: &Reader<'_>) -> Result<(), Damaged> {
    if reader.remaining() == 0 { Ok(()) } else { Err(Damaged("column is longer than its samples")) }
}

#[cfg(test)]
mod tests;
