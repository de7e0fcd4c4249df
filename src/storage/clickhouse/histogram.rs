//! Native histograms as columns, to the bit.
//!
//! ClickHouse has one table for both kinds, whose numbers are Float64. Those of float histograms are what
//! they say. Whole numbers do not all fit a float, so theirs are the float with the same 64 bits, which
//! costs nothing to write or read and packs as well; `kind` tells which it is. Bucket counts are absolute:
//! whole ones are summed up, wrapping, on the way in and taken apart again on the way out.

use super::rowbinary::{Incomplete, Reader, Write};
use crate::model::{
    Histogram,
    histogram::{Counts, ResetHint, Span},
};

/// The columns that [`put`] writes and [`take`] reads, in their order.
pub(super) const COLUMNS: &str = "kind, reset_hint, schema, zero_threshold, zero_count, count, sum, \
                                  pos_spans, pos_counts, neg_spans, neg_counts, custom_values";

const INTEGER: i8 = 0;
const FLOAT: i8 = 1;

/// Writes a histogram's columns.
pub(super) fn put(row: &mut Vec<u8>, histogram: &Histogram) {
    let spans = |row: &mut Vec<u8>, spans: &[Span]| {
        row.length(spans.len());
        for span in spans {
            row.i32(span.offset);
            row.u32(span.length);
        }
    };
    row.i8(match histogram.counts {
        Counts::Integer { .. } => INTEGER,
        Counts::Float { .. } => FLOAT,
    });
    row.u8(histogram.reset_hint as u8);
    row.i32(histogram.schema);
    row.f64(histogram.zero_threshold);
    match &histogram.counts {
        Counts::Integer { count, zero_count, positive, negative } => {
            row.u64(*zero_count);
            row.u64(*count);
            row.f64(histogram.sum);
            spans(row, &histogram.positive_spans);
            put_summed(row, positive);
            spans(row, &histogram.negative_spans);
            put_summed(row, negative);
        }
        Counts::Float { count, zero_count, positive, negative } => {
            row.f64(*zero_count);
            row.f64(*count);
            row.f64(histogram.sum);
            spans(row, &histogram.positive_spans);
            put_floats(row, positive);
            spans(row, &histogram.negative_spans);
            put_floats(row, negative);
        }
    }
    put_floats(row, &histogram.custom_values);
}

/// Reads them back.
pub(super) fn take(row: &mut Reader<'_>) -> Result<Histogram, Incomplete> {
    let span = |row: &mut Reader<'_>| Ok(Span { offset: row.i32()?, length: row.u32()? });
    let kind = row.i8()?;
    let reset_hint = ResetHint::of_number(row.u8()?.into()).unwrap_or_default();
    let (schema, zero_threshold) = (row.i32()?, row.f64()?);
    let (zero_count, count, sum) = (row.f64()?, row.f64()?, row.f64()?);
    let (positive_spans, positive) = (row.array(span)?, row.array(Reader::f64)?);
    let (negative_spans, negative) = (row.array(span)?, row.array(Reader::f64)?);
    let custom_values = row.array(Reader::f64)?;
    let counts = if kind == INTEGER {
        Counts::Integer {
            count: count.to_bits(),
            zero_count: zero_count.to_bits(),
            positive: differences(&positive),
            negative: differences(&negative),
        }
    } else {
        Counts::Float { count, zero_count, positive, negative }
    };
    Ok(Histogram {
        schema,
        zero_threshold,
        sum,
        reset_hint,
        positive_spans,
        negative_spans,
        counts,
        custom_values,
    })
}

fn put_floats(row: &mut Vec<u8>, floats: &[f64]) {
    row.length(floats.len());
    floats.iter().for_each(|float| row.f64(*float));
}

fn put_summed(row: &mut Vec<u8>, differences: &[i64]) {
    row.length(differences.len());
    let mut sum = 0_i64;
    for difference in differences {
        sum = sum.wrapping_add(*difference);
        row.i64(sum);
    }
}

fn differences(sums: &[f64]) -> Vec<i64> {
    let mut before = 0;
    let difference = |sum: &f64| {
        let sum = sum.to_bits().cast_signed();
        let difference = sum.wrapping_sub(before);
        before = sum;
        difference
    };
    sums.iter().map(difference).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::histogram::CUSTOM_BUCKETS_SCHEMA;

    fn any_float() -> impl Strategy<Value = f64> {
        any::<u64>().prop_map(f64::from_bits)
    }

    fn any_counts() -> impl Strategy<Value = Counts> {
        let floats = || prop::collection::vec(any_float(), 0..9);
        let whole = || prop::collection::vec(any::<i64>(), 0..9);
        prop_oneof![
            (any::<u64>(), any::<u64>(), whole(), whole()).prop_map(
                |(count, zero_count, positive, negative)| {
                    Counts::Integer { count, zero_count, positive, negative }
                }
            ),
            (any_float(), any_float(), floats(), floats()).prop_map(
                |(count, zero_count, positive, negative)| {
                    Counts::Float { count, zero_count, positive, negative }
                }
            ),
        ]
    }

    fn any_histogram() -> impl Strategy<Value = Histogram> {
        let spans = || {
            let span = (any::<i32>(), any::<u32>()).prop_map(|(offset, length)| Span { offset, length });
            prop::collection::vec(span, 0..4)
        };
        let hint = prop_oneof![
            Just(ResetHint::Unknown),
            Just(ResetHint::Yes),
            Just(ResetHint::No),
            Just(ResetHint::Gauge)
        ];
        let schema = prop_oneof![-4..=8, Just(CUSTOM_BUCKETS_SCHEMA), any::<i32>()];
        let floats = (any_float(), any_float(), prop::collection::vec(any_float(), 0..4));
        (schema, hint, spans(), spans(), any_counts(), floats).prop_map(
            |(
                schema,
                reset_hint,
                positive_spans,
                negative_spans,
                counts,
                (zero_threshold, sum, custom_values),
            )| {
                Histogram {
                    schema,
                    zero_threshold,
                    sum,
                    reset_hint,
                    positive_spans,
                    negative_spans,
                    counts,
                    custom_values,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_histogram_comes_back_to_the_bit(histogram in any_histogram()) {
            let mut row = Vec::new();
            put(&mut row, &histogram);
            let mut reader = Reader::new(&row);
            let back = take(&mut reader).unwrap();
            prop_assert!(back.same_bits(&histogram), "{back:?}");
            prop_assert_eq!(reader.taken(), row.len());
            for end in 0..row.len() {
                prop_assert!(take(&mut Reader::new(&row[..end])).is_err());
            }
        }
    }
}
