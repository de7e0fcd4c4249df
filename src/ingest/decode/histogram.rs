//! Reads a native histogram.
//!
//! Histograms are few beside floats and own what they hold anyway, so prost reads them; the message is
//! drawn in `schema/proto`.

use prost::Message as _;

use super::wire::{DecodeError, Message};
use crate::model::{
    Histogram, Timestamp,
    histogram::{Counts, ResetHint, Span},
};

/// A histogram with its time.
#[derive(Debug)]
pub(super) struct DecodedHistogram {
    pub(super) histogram: Histogram,
    pub(super) timestamp: Timestamp,
    pub(super) start: i64,
}

/// `Histogram` of remote write 1.0 and 2.0, which share its numbers.
#[derive(Clone, PartialEq, prost::Message)]
struct HistogramMessage {
    #[prost(oneof = "Count", tags = "1, 2")]
    count: Option<Count>,
    #[prost(double, tag = "3")]
    sum: f64,
    #[prost(sint32, tag = "4")]
    schema: i32,
    #[prost(double, tag = "5")]
    zero_threshold: f64,
    // The zero counts are a oneof too; which of them counts is settled by `count`.
    #[prost(uint64, tag = "6")]
    zero_count: u64,
    #[prost(double, tag = "7")]
    zero_count_float: f64,
    #[prost(message, repeated, tag = "8")]
    negative_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "9")]
    negative_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "10")]
    negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    positive_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "12")]
    positive_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "13")]
    positive_counts: Vec<f64>,
    #[prost(int32, tag = "14")]
    reset_hint: i32,
    #[prost(int64, tag = "15")]
    timestamp: i64,
    #[prost(double, repeated, tag = "16")]
    custom_values: Vec<f64>,
    #[prost(int64, tag = "17")]
    start_timestamp: i64,
}

#[derive(Clone, Copy, PartialEq, prost::Oneof)]
enum Count {
    #[prost(uint64, tag = "1")]
    Integer(u64),
    #[prost(double, tag = "2")]
    Float(f64),
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

/// Reads a histogram. Of the two kinds of count the one set last decides what it is.
pub(super) fn histogram(message: Message<'_>) -> Result<DecodedHistogram, DecodeError> {
    let malformed =
        |_| DecodeError::Malformed { what: "histogram that does not decode", offset: message.offset() };
    let read = HistogramMessage::decode(message.bytes()).map_err(malformed)?;
    let spans = |spans: Vec<BucketSpan>| {
        spans.into_iter().map(|BucketSpan { offset, length }| Span { offset, length }).collect()
    };
    let counts = match read.count.unwrap_or(Count::Integer(0)) {
        Count::Float(count) => Counts::Float {
            count,
            zero_count: read.zero_count_float,
            positive: read.positive_counts,
            negative: read.negative_counts,
        },
        Count::Integer(count) => Counts::Integer {
            count,
            zero_count: read.zero_count,
            positive: read.positive_deltas,
            negative: read.negative_deltas,
        },
    };
    let histogram = Histogram {
        schema: read.schema,
        zero_threshold: read.zero_threshold,
        sum: read.sum,
        reset_hint: u64::try_from(read.reset_hint).ok().and_then(ResetHint::of_number).unwrap_or_default(),
        positive_spans: spans(read.positive_spans),
        negative_spans: spans(read.negative_spans),
        counts,
        custom_values: read.custom_values,
    };
    Ok(DecodedHistogram { histogram, timestamp: Timestamp(read.timestamp), start: read.start_timestamp })
}
