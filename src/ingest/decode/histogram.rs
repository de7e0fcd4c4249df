//! A native histogram on the wire.
//!
//! Histograms are few beside floats and own what they hold anyway, so prost reads and writes them; the message is
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

/// `Histogram` of remote write 1.0 and 2.0 and of remote read, which share its numbers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HistogramMessage {
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

impl HistogramMessage {
    /// The message of a histogram at a time; 0 is a start that is not known.
    pub fn new(histogram: &Histogram, timestamp: i64, start_timestamp: i64) -> Self {
        let spans = |spans: &[Span]| {
            spans
                .iter()
                .map(|Span { offset, length }| BucketSpan { offset: *offset, length: *length })
                .collect()
        };
        let mut message = Self {
            sum: histogram.sum,
            schema: histogram.schema,
            zero_threshold: histogram.zero_threshold,
            positive_spans: spans(&histogram.positive_spans),
            negative_spans: spans(&histogram.negative_spans),
            reset_hint: histogram.reset_hint as i32,
            timestamp,
            custom_values: histogram.custom_values.clone(),
            start_timestamp,
            ..Self::default()
        };
        match &histogram.counts {
            Counts::Integer { count, zero_count, positive, negative } => {
                message.count = Some(Count::Integer(*count));
                message.zero_count = *zero_count;
                message.positive_deltas.clone_from(positive);
                message.negative_deltas.clone_from(negative);
            }
            Counts::Float { count, zero_count, positive, negative } => {
                message.count = Some(Count::Float(*count));
                message.zero_count_float = *zero_count;
                message.positive_counts.clone_from(positive);
                message.negative_counts.clone_from(negative);
            }
        }
        message
    }

    /// Its time, in milliseconds.
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }

    /// The histogram it carries.
    pub fn into_histogram(self) -> Histogram {
        let spans = |spans: Vec<BucketSpan>| {
            spans.into_iter().map(|BucketSpan { offset, length }| Span { offset, length }).collect()
        };
        // Of the two kinds of count the one set last decides what it is.
        let counts = match self.count.unwrap_or(Count::Integer(0)) {
            Count::Float(count) => Counts::Float {
                count,
                zero_count: self.zero_count_float,
                positive: self.positive_counts,
                negative: self.negative_counts,
            },
            Count::Integer(count) => Counts::Integer {
                count,
                zero_count: self.zero_count,
                positive: self.positive_deltas,
                negative: self.negative_deltas,
            },
        };
        Histogram {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            sum: self.sum,
            reset_hint: u64::try_from(self.reset_hint)
                .ok()
                .and_then(ResetHint::of_number)
                .unwrap_or_default(),
            positive_spans: spans(self.positive_spans),
            negative_spans: spans(self.negative_spans),
            counts,
            custom_values: self.custom_values,
        }
    }
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

/// Reads a histogram.
pub(super) fn histogram(message: Message<'_>) -> Result<DecodedHistogram, DecodeError> {
    let malformed =
        |_| DecodeError::Malformed { what: "histogram that does not decode", offset: message.offset() };
    let read = HistogramMessage::decode(message.bytes()).map_err(malformed)?;
    let (timestamp, start) = (Timestamp(read.timestamp), read.start_timestamp);
    Ok(DecodedHistogram { histogram: read.into_histogram(), timestamp, start })
}
