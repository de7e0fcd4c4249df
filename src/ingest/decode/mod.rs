//! From a compressed body to a [`Draft`]: samples that point at series, and series that point at bytes.
//!
//! Nothing of a label is copied. A series is the place of its label bytes in the decompressed request
//! ([`SeriesLabels`] can read them again) and a 128-bit key made of them, by which
//! [`known`](super::known) recognises it.
//!
//! ```text
//! body ─▶ decompress ─▶ buffer ─▶ remote_write  ─┐
//!                               ─▶ remote_write2 ─┼▶ Draft { series: (key, place), samples, … }
//!                  lines of text ─▶ json_lines ───┘
//! ```
//!
//! Bounds come before work: the declared size before the decompression, counts of series, samples and
//! symbols while they are read.

mod histogram;
pub(crate) mod json;
pub(crate) mod json_lines;
mod parts;
pub(crate) mod remote_write;
pub(crate) mod remote_write2;
pub(crate) mod wire;

#[cfg(test)]
pub(crate) mod encode;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use super::{IngestError, IngestLimits, labels::SeriesLabels, outcome::Reason};
use crate::{
    model::{Metadata, Timestamp},
    storage::{BatchExemplar, BatchHistogram, BatchSample, SampleKind},
};

use parts::DecodedSample;

pub use histogram::HistogramMessage;
pub use wire::DecodeError;

/// A request that has been read but whose series are not known yet.
///
/// `series` in the samples counts the series of the request.
#[derive(Debug)]
pub(crate) struct Draft {
    /// Where the labels are.
    pub(crate) labels: SeriesLabels,
    /// Recognises each series; 0 where it cannot be.
    pub(crate) keys: Vec<u128>,
    pub(crate) samples: Vec<BatchSample>,
    pub(crate) histograms: Vec<BatchHistogram>,
    pub(crate) exemplars: Vec<BatchExemplar>,
    pub(crate) metadata: Vec<DraftMetadata>,
    /// Series that are wrong as a whole, whatever their labels.
    pub(crate) bad_series: Vec<(u32, Reason)>,
    /// Single samples that are wrong; they are not in the lists above.
    pub(crate) bad_samples: Vec<BadSample>,
    /// Metadata entries that are wrong.
    pub(crate) bad_metadata: u64,
}

/// Metadata, and the key that tells whether it has been written before; 0 where that is not asked.
#[derive(Debug)]
pub(crate) struct DraftMetadata {
    pub(crate) key: u128,
    pub(crate) metadata: Metadata,
}

/// A sample that was refused before the store saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BadSample {
    pub(crate) series: u32,
    pub(crate) kind: SampleKind,
    pub(crate) timestamp: Timestamp,
    pub(crate) reason: Reason,
}

/// The size a body says it decompresses to, if it can be true and is within the limit.
pub(crate) fn declared_size(body: &[u8], limits: &IngestLimits) -> Result<usize, IngestError> {
    if body.is_empty() {
        // Even nothing compresses to a byte that says so: this was cut off.
        return Err(DecodeError::Snappy("the body is empty".to_owned()).into());
    }
    let declared = snap::raw::decompress_len(body).map_err(|error| DecodeError::Snappy(error.to_string()))?;
    if declared > limits.max_decompressed_bytes {
        return Err(IngestError::TooLarge {
            what: "decompressed bytes",
            limit: limits.max_decompressed_bytes,
        });
    }
    // Snappy's densest element makes 64 bytes of 3.
    if declared / 32 > body.len() {
        return Err(DecodeError::Lying { compressed: body.len(), declared }.into());
    }
    Ok(declared)
}

/// Decompresses a body whose declared size has been checked.
pub(crate) fn decompress(body: &[u8]) -> Result<Bytes, DecodeError> {
    let plain = snap::raw::Decoder::new()
        .decompress_vec(body)
        .map_err(|error| DecodeError::Snappy(error.to_string()))?;
    Ok(Bytes::from(plain))
}

/// Refuses a request that has more of something than one may have.
pub(crate) fn bound(what: &'static str, count: usize, limit: usize) -> Result<(), IngestError> {
    if count > limit {
        return Err(IngestError::TooLarge { what, limit });
    }
    Ok(())
}
