//! Native histograms, each as what it differs from the one before.
//!
//! A series keeps its layout (schema, spans, custom bounds) for long stretches, so a sample is mostly one
//! flag byte and small differences of counts. All numbers come back to the bit. A sample that is the
//! same as the one before takes one byte and, decoded, shares its memory.

use std::sync::Arc;

use super::{
    Damaged,
    bytes::{Reader, put_length, put_varint, put_zigzag},
};
use crate::model::{
    Histogram,
    histogram::{Counts, ResetHint, Span},
};

const FLOAT: u8 = 0x01;
const SAME_LAYOUT: u8 = 0x02;
const SAME: u8 = 0x04;
const HINT_SHIFT: u32 = 4;
const KNOWN: u8 = FLOAT | SAME_LAYOUT | SAME | 0x30;

/// Spans, bounds and buckets that one chunk may unfold to beyond its own bytes; a writer stays far below.
const MAX_UNFOLDED: usize = 1 << 24;

/// Writes the histograms one after the other.
pub(super) fn encode<'a>(histograms: impl Iterator<Item = &'a Histogram>, out: &mut Vec<u8>) {
    let mut previous: Option<&Histogram> = None;
    for histogram in histograms {
        match previous {
            Some(previous) if previous.same_bits(histogram) => out.push(SAME),
            Some(previous) if same_layout(previous, histogram) => {
                out.push(flags(histogram) | SAME_LAYOUT);
                encode_numbers(Some(previous), histogram, out);
            }
            Some(_) | None => {
                out.push(flags(histogram));
                encode_layout(histogram, out);
                encode_numbers(None, histogram, out);
            }
        }
        previous = Some(histogram);
    }
}

/// Reads `count` histograms from the bytes that are left.
pub(super) fn decode(
    reader: &mut Reader<'_>,
    count: usize,
    mut each: impl FnMut(Arc<Histogram>),
) -> Result<(), Damaged> {
    // Every histogram has at least its flags.
    if count > reader.remaining() {
        return Err(Damaged("histograms end early"));
    }
    let mut previous: Option<Arc<Histogram>> = None;
    let mut unfolded = 0_usize;
    for _ in 0..count {
        let flags = reader.u8()?;
        if flags & !KNOWN != 0 {
            return Err(Damaged("histogram has an unknown flag"));
        }
        let histogram = if flags & SAME != 0 {
            Arc::clone(previous.as_ref().ok_or(Damaged("first histogram repeats another"))?)
        } else if flags & SAME_LAYOUT != 0 {
            let previous = previous.as_ref().ok_or(Damaged("first histogram repeats a layout"))?;
            unfolded += 1
                + previous.positive_spans.len()
                + previous.negative_spans.len()
                + previous.custom_values.len();
            if unfolded > MAX_UNFOLDED {
                return Err(Damaged("histograms unfold to too much memory"));
            }
            let layout = Histogram { counts: no_counts(), ..shell(previous) };
            Arc::new(decode_numbers(reader, flags, layout, Some(previous), bucket_counts(previous))?)
        } else {
            let (layout, buckets) = decode_layout(reader)?;
            Arc::new(decode_numbers(reader, flags, layout, None, buckets)?)
        };
        previous = Some(Arc::clone(&histogram));
        each(histogram);
    }
    Ok(())
}

fn no_counts() -> Counts {
    Counts::Integer { count: 0, zero_count: 0, positive: Vec::new(), negative: Vec::new() }
}

/// The same layout with no numbers in it.
fn shell(of: &Histogram) -> Histogram {
    Histogram {
        schema: of.schema,
        zero_threshold: of.zero_threshold,
        sum: 0.0,
        reset_hint: ResetHint::Unknown,
        positive_spans: of.positive_spans.clone(),
        negative_spans: of.negative_spans.clone(),
        counts: no_counts(),
        custom_values: of.custom_values.clone(),
    }
}

fn flags(histogram: &Histogram) -> u8 {
    let float = match histogram.counts {
        Counts::Integer { .. } => 0,
        Counts::Float { .. } => FLOAT,
    };
    float | (histogram.reset_hint as u8) << HINT_SHIFT
}

fn bucket_counts(histogram: &Histogram) -> (usize, usize) {
    match &histogram.counts {
        Counts::Integer { positive, negative, .. } => (positive.len(), negative.len()),
        Counts::Float { positive, negative, .. } => (positive.len(), negative.len()),
    }
}

fn same_layout(a: &Histogram, b: &Histogram) -> bool {
    let same_kind = matches!(
        (&a.counts, &b.counts),
        (Counts::Integer { .. }, Counts::Integer { .. }) | (Counts::Float { .. }, Counts::Float { .. })
    );
    let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    same_kind
        && a.schema == b.schema
        && a.zero_threshold.to_bits() == b.zero_threshold.to_bits()
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && bucket_counts(a) == bucket_counts(b)
        && bits(&a.custom_values) == bits(&b.custom_values)
}

fn encode_layout(histogram: &Histogram, out: &mut Vec<u8>) {
    put_zigzag(out, i64::from(histogram.schema));
    put_xfloat(out, histogram.zero_threshold.to_bits());
    for spans in [&histogram.positive_spans, &histogram.negative_spans] {
        put_length(out, spans.len());
        for span in spans {
            put_zigzag(out, i64::from(span.offset));
            put_varint(out, u64::from(span.length));
        }
    }
    put_length(out, histogram.custom_values.len());
    for bound in &histogram.custom_values {
        out.extend_from_slice(&bound.to_bits().to_le_bytes());
    }
    let (positive, negative) = bucket_counts(histogram);
    put_length(out, positive);
    put_length(out, negative);
}

fn decode_layout(reader: &mut Reader<'_>) -> Result<(Histogram, (usize, usize)), Damaged> {
    let narrow = |n: i64| i32::try_from(n).map_err(|_| Damaged("number is wider than 32 bits"));
    let schema = narrow(reader.zigzag()?)?;
    let zero_threshold = f64::from_bits(xfloat(reader)?);
    let mut sides = [Vec::new(), Vec::new()];
    for spans in &mut sides {
        for _ in 0..reader.count(2)? {
            spans.push(Span { offset: narrow(reader.zigzag()?)?, length: reader.varint_u32()? });
        }
    }
    let [positive_spans, negative_spans] = sides;
    let mut custom_values = Vec::new();
    for _ in 0..reader.count(8)? {
        custom_values.push(reader.f64()?);
    }
    let buckets = (reader.count(1)?, reader.count(1)?);
    let reset_hint = ResetHint::Unknown;
    let layout = Histogram {
        schema,
        zero_threshold,
        sum: 0.0,
        reset_hint,
        positive_spans,
        negative_spans,
        counts: no_counts(),
        custom_values,
    };
    Ok((layout, buckets))
}

/// The number at `i` of the histogram before, 0 if there is none.
fn at<T: Copy + Default>(previous: &[T], i: usize) -> T {
    previous.get(i).copied().unwrap_or_default()
}

fn encode_numbers(previous: Option<&Histogram>, histogram: &Histogram, out: &mut Vec<u8>) {
    let sum = previous.map_or(0, |previous| previous.sum.to_bits());
    put_xfloat(out, histogram.sum.to_bits() ^ sum);
    match &histogram.counts {
        Counts::Integer { count, zero_count, positive, negative } => {
            let before = Integers::of(previous);
            put_zigzag(out, count.wrapping_sub(before.count).cast_signed());
            put_zigzag(out, zero_count.wrapping_sub(before.zero_count).cast_signed());
            for (buckets, before) in [(positive, before.positive), (negative, before.negative)] {
                for (i, bucket) in buckets.iter().enumerate() {
                    put_zigzag(out, bucket.wrapping_sub(at(before, i)));
                }
            }
        }
        Counts::Float { count, zero_count, positive, negative } => {
            let before = Floats::of(previous);
            put_xfloat(out, count.to_bits() ^ before.count.to_bits());
            put_xfloat(out, zero_count.to_bits() ^ before.zero_count.to_bits());
            for (buckets, before) in [(positive, before.positive), (negative, before.negative)] {
                for (i, bucket) in buckets.iter().enumerate() {
                    put_xfloat(out, bucket.to_bits() ^ at(before, i).to_bits());
                }
            }
        }
    }
}

fn decode_numbers(
    reader: &mut Reader<'_>,
    flags: u8,
    layout: Histogram,
    previous: Option<&Arc<Histogram>>,
    buckets: (usize, usize),
) -> Result<Histogram, Damaged> {
    let previous = previous.map(|previous| &**previous);
    let sum = f64::from_bits(xfloat(reader)? ^ previous.map_or(0, |previous| previous.sum.to_bits()));
    let reset_hint = match flags >> HINT_SHIFT & 3 {
        0 => ResetHint::Unknown,
        1 => ResetHint::Yes,
        2 => ResetHint::No,
        _ => ResetHint::Gauge,
    };
    // Every bucket takes at least a byte, so more than these cannot come.
    if buckets.0.saturating_add(buckets.1) > reader.remaining() {
        return Err(Damaged("buckets end early"));
    }
    let counts = if flags & FLOAT == 0 {
        let before = Integers::of(previous);
        let count = before.count.wrapping_add(reader.zigzag()?.cast_unsigned());
        let zero_count = before.zero_count.wrapping_add(reader.zigzag()?.cast_unsigned());
        let mut read = |length: usize, before: &[i64]| -> Result<Vec<i64>, Damaged> {
            (0..length).map(|i| Ok(at(before, i).wrapping_add(reader.zigzag()?))).collect()
        };
        let positive = read(buckets.0, before.positive)?;
        let negative = read(buckets.1, before.negative)?;
        Counts::Integer { count, zero_count, positive, negative }
    } else {
        let before = Floats::of(previous);
        let count = f64::from_bits(before.count.to_bits() ^ xfloat(reader)?);
        let zero_count = f64::from_bits(before.zero_count.to_bits() ^ xfloat(reader)?);
        let mut read = |length: usize, before: &[f64]| -> Result<Vec<f64>, Damaged> {
            (0..length).map(|i| Ok(f64::from_bits(at(before, i).to_bits() ^ xfloat(reader)?))).collect()
        };
        let positive = read(buckets.0, before.positive)?;
        let negative = read(buckets.1, before.negative)?;
        Counts::Float { count, zero_count, positive, negative }
    };
    Ok(Histogram { sum, reset_hint, counts, ..layout })
}

/// The numbers of an integer histogram, zeros if there is none.
#[derive(Default)]
struct Integers<'a> {
    count: u64,
    zero_count: u64,
    positive: &'a [i64],
    negative: &'a [i64],
}

impl<'a> Integers<'a> {
    fn of(histogram: Option<&'a Histogram>) -> Self {
        match histogram.map(|histogram| &histogram.counts) {
            Some(Counts::Integer { count, zero_count, positive, negative }) => {
                Self { count: *count, zero_count: *zero_count, positive, negative }
            }
            Some(Counts::Float { .. }) | None => Self::default(),
        }
    }
}

/// The numbers of a float histogram, zeros if there is none.
#[derive(Default)]
struct Floats<'a> {
    count: f64,
    zero_count: f64,
    positive: &'a [f64],
    negative: &'a [f64],
}

impl<'a> Floats<'a> {
    fn of(histogram: Option<&'a Histogram>) -> Self {
        match histogram.map(|histogram| &histogram.counts) {
            Some(Counts::Float { count, zero_count, positive, negative }) => {
                Self { count: *count, zero_count: *zero_count, positive, negative }
            }
            Some(Counts::Integer { .. }) | None => Self::default(),
        }
    }
}

/// Stands for a word of zeros.
const ZERO: u8 = 0x80;

/// Writes a word without the zero bytes at its ends.
fn put_xfloat(out: &mut Vec<u8>, word: u64) {
    if word == 0 {
        out.push(ZERO);
        return;
    }
    let (leading, trailing) = (word.leading_zeros() / 8, word.trailing_zeros() / 8);
    out.push(u8::try_from(leading << 4 | trailing).expect("both are below eight"));
    out.extend_from_slice(&word.to_be_bytes()[leading as usize..8 - trailing as usize]);
}

fn xfloat(reader: &mut Reader<'_>) -> Result<u64, Damaged> {
    let head = reader.u8()?;
    if head == ZERO {
        return Ok(0);
    }
    let (leading, trailing) = (usize::from(head >> 4), usize::from(head & 0x0f));
    if leading + trailing >= 8 {
        return Err(Damaged("float has no bytes"));
    }
    let mut word = [0_u8; 8];
    word[leading..8 - trailing].copy_from_slice(reader.take(8 - leading - trailing)?);
    Ok(u64::from_be_bytes(word))
}
