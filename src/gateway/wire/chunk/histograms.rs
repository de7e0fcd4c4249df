//! Chunks of native histograms: `HISTOGRAM` with whole counts, `FLOAT_HISTOGRAM` with others.
//!
//! ```text
//! ┌───────────┬───────┬────────┬──────────────────┬──────────────────┬ ┄
//! │ count u16 │ flags │ layout │ first histogram  │ second histogram │
//! └───────────┴───────┴────────┴──────────────────┴──────────────────┴ ┄
//!
//! layout      zero threshold, schema, positive spans, negative spans, and with custom buckets their bounds
//! histogram   time, count, zero count, sum, positive buckets, negative buckets
//! ```
//!
//! All histograms of a chunk have its layout; only stale markers have none, and write no buckets. The two highest bits
//! of the flags say what is known of a reset before the first histogram. Behind the first there is none: one that was
//! reset begins a chunk.
//!
//! Of whole numbers the change of the change is written, of floats the difference in bits. The buckets of a whole
//! histogram are the differences that they are in the model, too.

use std::sync::Arc;

use super::{
    Damaged,
    bits::{BitReader, BitWriter},
    floats::Xor,
};
use crate::{
    model::{
        Histogram,
        histogram::{CUSTOM_BUCKETS_SCHEMA, Counts, ResetHint, Span},
    },
    storage::HistogramSample,
};

/// Bytes before the layout.
const HEADER: usize = 3;

/// What is known of a reset before the first histogram of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Before {
    /// Nothing.
    Unknown = 0,
    /// There was none.
    NoReset = 0b0100_0000,
    /// There was one.
    Reset = 0b1000_0000,
    /// They are gauges.
    Gauge = 0b1100_0000,
}

impl Before {
    /// What a histogram says of itself.
    pub(super) fn said_by(histogram: &Histogram) -> Self {
        match histogram.reset_hint {
            ResetHint::Unknown => Self::Unknown,
            ResetHint::Yes => Self::Reset,
            ResetHint::No => Self::NoReset,
            ResetHint::Gauge => Self::Gauge,
        }
    }

    fn of_flags(flags: u8) -> Self {
        match flags >> 6 {
            0 => Self::Unknown,
            1 => Self::NoReset,
            2 => Self::Reset,
            _ => Self::Gauge,
        }
    }

    /// The hint of a histogram, the first of its chunk or a later one.
    ///
    /// That there was no reset before the first one is not passed on: what came before it may be gone.
    fn hint(self, first: bool) -> ResetHint {
        match (self, first) {
            (Self::Gauge, _) => ResetHint::Gauge,
            (_, false) => ResetHint::No,
            (Self::Reset, true) => ResetHint::Yes,
            (Self::Unknown | Self::NoReset, true) => ResetHint::Unknown,
        }
    }
}

/// What a histogram is to the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    /// It goes on: both may be in one chunk.
    On,
    /// It begins a chunk.
    Anew(Before),
}

/// How `next` follows `last`; both have whole counts, or neither.
pub(super) fn follows(last: &Histogram, next: &Histogram) -> Follows {
    let gauges = (last.reset_hint == ResetHint::Gauge, next.reset_hint == ResetHint::Gauge);
    if gauges.0 != gauges.1 || next.reset_hint == ResetHint::Yes {
        return Follows::Anew(Before::said_by(next));
    }
    if next.is_stale() {
        return Follows::On;
    }
    if last.is_stale() || !same_layout(last, next) {
        return Follows::Anew(if gauges.1 { Before::Gauge } else { Before::Unknown });
    }
    if !gauges.1 && fell(&last.counts, &next.counts) {
        return Follows::Anew(Before::Reset);
    }
    Follows::On
}

fn same_layout(a: &Histogram, b: &Histogram) -> bool {
    let bounds = |h: &Histogram| h.custom_values.iter().map(|bound| bound.to_bits()).collect::<Vec<_>>();
    let sizes = |h: &Histogram| match &h.counts {
        Counts::Integer { positive, negative, .. } => (positive.len(), negative.len()),
        Counts::Float { positive, negative, .. } => (positive.len(), negative.len()),
    };
    a.schema == b.schema
        && a.zero_threshold.to_bits() == b.zero_threshold.to_bits()
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && sizes(a) == sizes(b)
        && bounds(a) == bounds(b)
}

/// Whether anything that is counted went down, in histograms of one layout.
fn fell(last: &Counts, next: &Counts) -> bool {
    fn any_fell(last: &[i64], next: &[i64]) -> bool {
        let (mut before, mut after) = (0_i64, 0_i64);
        last.iter().zip(next).any(|(a, b)| {
            (before, after) = (before.wrapping_add(*a), after.wrapping_add(*b));
            after < before
        })
    }
    match (last, next) {
        (
            Counts::Integer { count, zero_count, positive, negative },
            Counts::Integer { count: c, zero_count: z, positive: p, negative: n },
        ) => c < count || z < zero_count || any_fell(positive, p) || any_fell(negative, n),
        (
            Counts::Float { count, zero_count, positive, negative },
            Counts::Float { count: c, zero_count: z, positive: p, negative: n },
        ) => {
            let floats = |last: &[f64], next: &[f64]| last.iter().zip(next).any(|(a, b)| b < a);
            c < count || z < zero_count || floats(positive, p) || floats(negative, n)
        }
        (Counts::Integer { .. }, Counts::Float { .. }) | (Counts::Float { .. }, Counts::Integer { .. }) => {
            true
        }
    }
}

/// What is left of a stale marker in a chunk.
fn marker(sum: f64, whole: bool) -> Histogram {
    let counts = if whole {
        Counts::Integer { count: 0, zero_count: 0, positive: Vec::new(), negative: Vec::new() }
    } else {
        Counts::Float { count: 0.0, zero_count: 0.0, positive: Vec::new(), negative: Vec::new() }
    };
    Histogram {
        schema: 0,
        zero_threshold: 0.0,
        sum,
        reset_hint: ResetHint::Unknown,
        positive_spans: Vec::new(),
        negative_spans: Vec::new(),
        counts,
        custom_values: Vec::new(),
    }
}

/// A number of which the change of the change is written.
#[derive(Clone, Copy, Debug, Default)]
struct Steady {
    value: i64,
    change: i64,
}

impl Steady {
    fn new(value: i64) -> Self {
        Self { value, change: 0 }
    }

    fn write(&mut self, value: i64, bits: &mut BitWriter) {
        let change = value.wrapping_sub(self.value);
        bits.signed(change.wrapping_sub(self.change));
        *self = Self { value, change };
    }

    fn read(&mut self, bits: &mut BitReader<'_>) -> Result<i64, Damaged> {
        self.change = self.change.wrapping_add(bits.signed()?);
        self.value = self.value.wrapping_add(self.change);
        Ok(self.value)
    }
}

/// Writes a chunk of histograms of one kind that go on from each other, at least one.
pub(super) fn encode(samples: &[HistogramSample], before: Before) -> Vec<u8> {
    let count = u16::try_from(samples.len()).expect("a chunk has at most 120 samples").to_be_bytes();
    let mut bits = BitWriter::after(&[count[0], count[1], before as u8]);
    let Some((first, rest)) = samples.split_first() else { return bits.into_bytes() };
    let whole = matches!(first.histogram.counts, Counts::Integer { .. });
    let empty = first.histogram.is_stale().then(|| marker(first.histogram.sum, whole));
    let head = empty.as_ref().unwrap_or(&*first.histogram);
    write_layout(head, &mut bits);
    bits.signed(first.timestamp);
    let mut time = Steady::new(first.timestamp);
    let mut sum = Xor::new(head.sum);
    match &head.counts {
        Counts::Integer { count, zero_count, positive, negative } => {
            bits.unsigned(*count);
            bits.unsigned(*zero_count);
            bits.float(head.sum);
            let buckets = positive.iter().chain(negative);
            buckets.clone().for_each(|bucket| bits.signed(*bucket));
            let mut buckets: Vec<Steady> = buckets.map(|bucket| Steady::new(*bucket)).collect();
            let (mut count, mut zero) =
                (Steady::new(count.cast_signed()), Steady::new(zero_count.cast_signed()));
            for HistogramSample { timestamp, histogram, .. } in rest {
                time.write(*timestamp, &mut bits);
                match &histogram.counts {
                    Counts::Integer { count: c, zero_count: z, positive, negative }
                        if !histogram.is_stale() =>
                    {
                        count.write(c.cast_signed(), &mut bits);
                        zero.write(z.cast_signed(), &mut bits);
                        sum.write(histogram.sum, &mut bits);
                        let values = positive.iter().chain(negative);
                        buckets.iter_mut().zip(values).for_each(|(of, value)| of.write(*value, &mut bits));
                    }
                    // Only more of its kind can follow a stale marker, so that what they count does not matter.
                    Counts::Integer { .. } | Counts::Float { .. } => {
                        bits.signed(0);
                        bits.signed(0);
                        sum.write(histogram.sum, &mut bits);
                    }
                }
            }
        }
        Counts::Float { count, zero_count, positive, negative } => {
            let buckets = positive.iter().chain(negative);
            let firsts = [count, zero_count, &head.sum].into_iter().chain(buckets.clone());
            firsts.for_each(|value| bits.float(*value));
            let mut buckets: Vec<Xor> = buckets.map(|bucket| Xor::new(*bucket)).collect();
            let (mut count, mut zero) = (Xor::new(*count), Xor::new(*zero_count));
            for HistogramSample { timestamp, histogram, .. } in rest {
                time.write(*timestamp, &mut bits);
                match &histogram.counts {
                    Counts::Float { count: c, zero_count: z, positive, negative }
                        if !histogram.is_stale() =>
                    {
                        count.write(*c, &mut bits);
                        zero.write(*z, &mut bits);
                        sum.write(histogram.sum, &mut bits);
                        let values = positive.iter().chain(negative);
                        buckets.iter_mut().zip(values).for_each(|(of, value)| of.write(*value, &mut bits));
                    }
                    Counts::Integer { .. } | Counts::Float { .. } => {
                        count.write(0.0, &mut bits);
                        zero.write(0.0, &mut bits);
                        sum.write(histogram.sum, &mut bits);
                    }
                }
            }
        }
    }
    bits.into_bytes()
}

/// Reads a chunk of whole or of other histograms.
pub(super) fn decode(bytes: &[u8], whole: bool, into: &mut Vec<HistogramSample>) -> Result<(), Damaged> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or(Damaged("it ends too early"))?;
    let [high, low, flags] = *header;
    let (count, before) = (u16::from_be_bytes([high, low]), Before::of_flags(flags));
    if count == 0 {
        return Ok(());
    }
    let mut bits = BitReader::new(rest);
    let layout = read_layout(&mut bits)?;
    let (positives, negatives) = (buckets(&layout.positive_spans), buckets(&layout.negative_spans));
    // Each takes a bit at least.
    if positives.saturating_add(negatives) > bits.left() {
        return Err(Damaged("it has more buckets than bits"));
    }
    let mut time = Steady::default();
    let (mut counts, mut zeros, mut sum) = (Number::new(whole), Number::new(whole), Xor::new(0.0));
    let mut numbers = vec![Number::new(whole); positives + negatives];
    for number in 0..count {
        let first = number == 0;
        let timestamp = if first {
            time = Steady::new(bits.signed()?);
            time.value
        } else {
            time.read(&mut bits)?
        };
        counts.read_count(first, &mut bits)?;
        zeros.read_count(first, &mut bits)?;
        if first {
            sum = Xor::new(bits.float()?);
        } else {
            sum.read(&mut bits)?;
        }
        let stale = crate::model::is_stale(sum.value());
        let histogram = if stale {
            marker(sum.value(), whole)
        } else {
            for bucket in &mut numbers {
                bucket.read(first, &mut bits)?;
            }
            let (positive, negative) = numbers.split_at(positives);
            Histogram {
                sum: sum.value(),
                reset_hint: before.hint(first),
                counts: if whole {
                    Counts::Integer {
                        count: counts.whole().cast_unsigned(),
                        zero_count: zeros.whole().cast_unsigned(),
                        positive: positive.iter().map(Number::whole).collect(),
                        negative: negative.iter().map(Number::whole).collect(),
                    }
                } else {
                    Counts::Float {
                        count: counts.float(),
                        zero_count: zeros.float(),
                        positive: positive.iter().map(Number::float).collect(),
                        negative: negative.iter().map(Number::float).collect(),
                    }
                },
                ..layout.clone()
            }
        };
        into.push(HistogramSample { timestamp, start: 0, histogram: Arc::new(histogram) });
    }
    Ok(())
}

/// A count as it is read.
#[derive(Clone, Copy, Debug)]
enum Number {
    Whole(Steady),
    Float(Xor),
}

impl Number {
    fn new(whole: bool) -> Self {
        if whole { Self::Whole(Steady::default()) } else { Self::Float(Xor::new(0.0)) }
    }

    /// Reads a bucket, the first of its place or a later one.
    fn read(&mut self, first: bool, bits: &mut BitReader<'_>) -> Result<(), Damaged> {
        match self {
            Self::Whole(steady) if first => *steady = Steady::new(bits.signed()?),
            Self::Float(xor) if first => *xor = Xor::new(bits.float()?),
            Self::Whole(steady) => drop(steady.read(bits)?),
            Self::Float(xor) => drop(xor.read(bits)?),
        }
        Ok(())
    }

    /// The same of all observations or those near zero, of which the first has no sign.
    fn read_count(&mut self, first: bool, bits: &mut BitReader<'_>) -> Result<(), Damaged> {
        match self {
            Self::Whole(steady) if first => {
                *steady = Steady::new(bits.unsigned()?.cast_signed());
                Ok(())
            }
            Self::Whole(_) | Self::Float(_) => self.read(first, bits),
        }
    }

    fn whole(&self) -> i64 {
        match self {
            Self::Whole(steady) => steady.value,
            Self::Float(_) => 0,
        }
    }

    fn float(&self) -> f64 {
        match self {
            Self::Whole(_) => 0.0,
            Self::Float(xor) => xor.value(),
        }
    }
}

fn buckets(spans: &[Span]) -> usize {
    spans.iter().fold(0, |sum, span| sum.saturating_add(usize::try_from(span.length).unwrap_or(usize::MAX)))
}

fn write_layout(histogram: &Histogram, bits: &mut BitWriter) {
    write_zero_threshold(histogram.zero_threshold, bits);
    bits.signed(i64::from(histogram.schema));
    for spans in [&histogram.positive_spans, &histogram.negative_spans] {
        bits.unsigned(spans.len() as u64);
        for span in spans {
            bits.unsigned(u64::from(span.length));
            bits.signed(i64::from(span.offset));
        }
    }
    if histogram.schema == CUSTOM_BUCKETS_SCHEMA {
        bits.unsigned(histogram.custom_values.len() as u64);
        histogram.custom_values.iter().for_each(|bound| write_bound(*bound, bits));
    }
}

fn read_layout(bits: &mut BitReader<'_>) -> Result<Histogram, Damaged> {
    let zero_threshold = read_zero_threshold(bits)?;
    let schema = i32::try_from(bits.signed()?).map_err(|_| Damaged("its schema is no schema"))?;
    let (positive_spans, negative_spans) = (read_spans(bits)?, read_spans(bits)?);
    let mut custom_values = Vec::new();
    if schema == CUSTOM_BUCKETS_SCHEMA {
        for _ in 0..bounded(bits.unsigned()?, bits)? {
            custom_values.push(read_bound(bits)?);
        }
    }
    let mut layout = marker(0.0, true);
    layout.schema = schema;
    Ok(Histogram { zero_threshold, positive_spans, negative_spans, custom_values, ..layout })
}

fn read_spans(bits: &mut BitReader<'_>) -> Result<Vec<Span>, Damaged> {
    let mut spans = Vec::new();
    for _ in 0..bounded(bits.unsigned()?, bits)? {
        let length = u32::try_from(bits.unsigned()?).map_err(|_| Damaged("a span is too long"))?;
        let offset = i32::try_from(bits.signed()?).map_err(|_| Damaged("a span is too far away"))?;
        spans.push(Span { offset, length });
    }
    Ok(spans)
}

/// A number of things that follow, each of a bit at least.
fn bounded(number: u64, bits: &BitReader<'_>) -> Result<u64, Damaged> {
    if number > bits.left() as u64 { Err(Damaged("it ends too early")) } else { Ok(number) }
}

/// The byte of a zero threshold that follows as a float.
const ANY_THRESHOLD: u8 = 255;

/// What is subtracted from the byte of a zero threshold, and it is a power of two. Bytes 1 to 254 are `2^-243` up to
/// `2^10`.
const THRESHOLD_BIAS: i32 = 244;

fn write_zero_threshold(threshold: f64, bits: &mut BitWriter) {
    if threshold == 0.0 {
        return bits.byte(0);
    }
    // A power of two has no fraction bits, and its exponent is all that is left.
    let exponent = i32::try_from(threshold.to_bits() >> 52).unwrap_or(0) - 1023;
    let is_power = threshold.to_bits().trailing_zeros() >= 52 && exponent > -1023;
    match u8::try_from(exponent + THRESHOLD_BIAS) {
        Ok(byte @ 1..=254) if is_power => bits.byte(byte),
        _ => {
            bits.byte(ANY_THRESHOLD);
            bits.float(threshold);
        }
    }
}

fn read_zero_threshold(bits: &mut BitReader<'_>) -> Result<f64, Damaged> {
    match bits.byte()? {
        0 => Ok(0.0),
        ANY_THRESHOLD => bits.float(),
        byte => Ok(2_f64.powi(i32::from(byte) - THRESHOLD_BIAS)),
    }
}

/// The most thousandths of a bound that is written as a number of them.
const MOST_THOUSANDTHS: f64 = 33_554_430.0;

fn write_bound(bound: f64, bits: &mut BitWriter) {
    let thousandths = bound * 1000.0;
    let whole = thousandths.round();
    let exact = (0.0..=MOST_THOUSANDTHS).contains(&thousandths)
        && whole / 1000.0 == bound
        && !bound.is_sign_negative();
    if exact {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is whole and in range"
        )]
        let number = whole as u64;
        return bits.unsigned(number + 1);
    }
    bits.bit(false);
    bits.float(bound);
}

fn read_bound(bits: &mut BitReader<'_>) -> Result<f64, Damaged> {
    match bits.unsigned()? {
        0 => bits.float(),
        #[expect(clippy::cast_precision_loss, reason = "what we write is below 2^26")]
        number => Ok((number - 1) as f64 / 1000.0),
    }
}
