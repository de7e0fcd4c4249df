//! Reads a native histogram.

use super::wire::{DecodeError, Message, zigzag, zigzag32};
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

/// The numbers as they stand in the message: one kind is used, the other is to be empty.
#[derive(Debug, Default)]
struct Numbers {
    count: u64,
    zero_count: u64,
    positive: Vec<i64>,
    negative: Vec<i64>,
    count_float: f64,
    zero_count_float: f64,
    positive_float: Vec<f64>,
    negative_float: Vec<f64>,
}

/// Reads a histogram. Of the two kinds of count the one set last decides what it is.
pub(super) fn histogram(mut message: Message<'_>) -> Result<DecodedHistogram, DecodeError> {
    let mut numbers = Numbers::default();
    let mut float = false;
    let mut timestamp = 0;
    let mut start = 0;
    let mut histogram = Histogram {
        schema: 0,
        zero_threshold: 0.0,
        sum: 0.0,
        reset_hint: ResetHint::Unknown,
        positive_spans: Vec::new(),
        negative_spans: Vec::new(),
        counts: Counts::Integer { count: 0, zero_count: 0, positive: Vec::new(), negative: Vec::new() },
        custom_values: Vec::new(),
    };
    while let Some(field) = message.next()? {
        match field.number {
            1 => {
                numbers.count = field.varint()?;
                float = false;
            }
            2 => {
                numbers.count_float = field.double()?;
                float = true;
            }
            3 => histogram.sum = field.double()?,
            4 => histogram.schema = zigzag32(field.varint()?),
            5 => histogram.zero_threshold = field.double()?,
            6 => numbers.zero_count = field.varint()?,
            7 => numbers.zero_count_float = field.double()?,
            8 => histogram.negative_spans.push(span(field.message()?)?),
            9 => field.each_varint(|n| numbers.negative.push(zigzag(n)))?,
            10 => field.each_double(|n| numbers.negative_float.push(n))?,
            11 => histogram.positive_spans.push(span(field.message()?)?),
            12 => field.each_varint(|n| numbers.positive.push(zigzag(n)))?,
            13 => field.each_double(|n| numbers.positive_float.push(n))?,
            14 => {
                histogram.reset_hint = match field.varint()? {
                    1 => ResetHint::Yes,
                    2 => ResetHint::No,
                    3 => ResetHint::Gauge,
                    _ => ResetHint::Unknown,
                }
            }
            15 => timestamp = field.int64()?,
            16 => field.each_double(|n| histogram.custom_values.push(n))?,
            17 => start = field.int64()?,
            _ => {}
        }
    }
    histogram.counts = if float {
        Counts::Float {
            count: numbers.count_float,
            zero_count: numbers.zero_count_float,
            positive: numbers.positive_float,
            negative: numbers.negative_float,
        }
    } else {
        Counts::Integer {
            count: numbers.count,
            zero_count: numbers.zero_count,
            positive: numbers.positive,
            negative: numbers.negative,
        }
    };
    Ok(DecodedHistogram { histogram, timestamp: Timestamp(timestamp), start })
}

fn span(mut message: Message<'_>) -> Result<Span, DecodeError> {
    let mut span = Span { offset: 0, length: 0 };
    while let Some(field) = message.next()? {
        match field.number {
            1 => span.offset = zigzag32(field.varint()?),
            2 => span.length = field.uint32()?,
            _ => {}
        }
    }
    Ok(span)
}
