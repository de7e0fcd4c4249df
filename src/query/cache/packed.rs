//! A stretch of an answer in bytes, for a cache outside of the process.
//!
//! ```text
//! "LUMA" │ xxh3 of all that follows, 8 │ snappy: key, as of, steps, made of, samples per step, rows
//! ```
//!
//! Numbers are little-endian, floats are their bits, and before every list and text is how long it is. The key stands in
//! it whole, so that what lies in a wrong place is found out. What comes from outside is believed in nothing: whatever
//! is wrong with it, it is none.

use std::{ops::Range, sync::Arc};

use xxhash_rust::xxh3::xxh3_64;

use super::{
    extent::{Extent, Row, count},
    shelf::Key,
};
use crate::{
    model::{
        Labels,
        histogram::{ResetHint, Span},
    },
    promql::{MadeOf, annotations::Annotations, histogram::FloatHistogram},
    storage::AsOf,
};

/// Bytes of an extent that is packed, at most, before it is compressed and when it is unpacked.
pub const LARGEST: usize = 8 << 20;
/// Bytes that are kept outside under one key, at most.
pub const LARGEST_PACKED: usize = 1 << 20;

/// What all begin with.
const MAGIC: &[u8; 4] = b"LUMA";
/// Changes when what follows, or what a query means, does.
const FORMAT: u8 = 1;

/// A name for a key, the same in every process of this version.
pub fn name(key: &Key) -> u128 {
    let mut bytes = Vec::new();
    put_key(&mut bytes, key);
    xxhash_rust::xxh3::xxh3_128(&bytes)
}

/// Packs an extent; none if it is too large, or has something to say that is of one text only.
pub fn pack(key: &Key, extent: &Extent) -> Option<Vec<u8>> {
    if !extent.notes.is_empty() || extent.size() > LARGEST {
        return None;
    }
    let mut bytes = Vec::with_capacity(extent.size());
    put_key(&mut bytes, key);
    put(&mut bytes, extent.as_of.epoch);
    put(&mut bytes, extent.as_of.number);
    put_i64(&mut bytes, extent.steps.start);
    put_i64(&mut bytes, extent.steps.end);
    bytes.extend_from_slice(&extent.made_of.order.to_le_bytes());
    bytes.extend([u8::from(extent.made_of.described), u8::from(extent.made_of.told)]);
    put_all(&mut bytes, &extent.queryable, |bytes, samples| put(bytes, *samples));
    put_all(&mut bytes, &extent.rows, |bytes, row| {
        put_text(bytes, row.labels.as_canonical());
        put_all(bytes, &row.floats, |bytes, value| put(bytes, value.to_bits()));
        put_all(bytes, &row.histograms, |bytes, (place, histogram)| {
            put(bytes, u64::from(*place));
            put_histogram(bytes, histogram);
        });
    });
    if bytes.len() > LARGEST {
        return None;
    }
    let compressed = snap::raw::Encoder::new().compress_vec(&bytes).ok()?;
    let mut packed = MAGIC.to_vec();
    put(&mut packed, xxh3_64(&compressed));
    packed.extend(compressed);
    (packed.len() <= LARGEST_PACKED).then_some(packed)
}

/// Unpacks what was packed under the same key; none if it is anything else.
pub fn unpack(key: &Key, packed: &[u8]) -> Option<Extent> {
    let (sum, compressed) = packed.strip_prefix(MAGIC)?.split_first_chunk()?;
    if packed.len() > LARGEST_PACKED || xxh3_64(compressed) != u64::from_le_bytes(*sum) {
        return None;
    }
    if snap::raw::decompress_len(compressed).ok()? > LARGEST {
        return None;
    }
    let bytes = snap::raw::Decoder::new().decompress_vec(compressed).ok()?;
    let mut expected = Vec::new();
    put_key(&mut expected, key);
    let mut reader = Reader(bytes.strip_prefix(&expected[..])?);
    let extent = reader.extent()?;
    reader.0.is_empty().then_some(extent)
}

fn put(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend_from_slice(&number.to_le_bytes());
}

fn put_i64(bytes: &mut Vec<u8>, number: i64) {
    bytes.extend_from_slice(&number.to_le_bytes());
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

fn put_all<T>(bytes: &mut Vec<u8>, all: &[T], each: impl Fn(&mut Vec<u8>, &T)) {
    put(bytes, all.len() as u64);
    all.iter().for_each(|one| each(bytes, one));
}

fn put_key(bytes: &mut Vec<u8>, key: &Key) {
    bytes.push(FORMAT);
    // Another version may answer otherwise.
    put_text(bytes, env!("CARGO_PKG_VERSION"));
    bytes.extend_from_slice(&key.view.to_le_bytes());
    put_text(bytes, &key.canonical);
    put_text(bytes, &key.settings);
    put_i64(bytes, key.step);
    put_i64(bytes, key.phase);
}

fn put_histogram(bytes: &mut Vec<u8>, histogram: &FloatHistogram) {
    put_i64(bytes, i64::from(histogram.schema));
    for number in [histogram.zero_threshold, histogram.zero_count, histogram.count, histogram.sum] {
        put(bytes, number.to_bits());
    }
    for spans in [&histogram.positive_spans, &histogram.negative_spans] {
        put_all(bytes, spans, |bytes, span| {
            put_i64(bytes, i64::from(span.offset));
            put(bytes, u64::from(span.length));
        });
    }
    let floats = [&histogram.positive_buckets[..], &histogram.negative_buckets, &histogram.custom_values];
    for numbers in floats {
        put_all(bytes, numbers, |bytes, number| put(bytes, number.to_bits()));
    }
    bytes.push(histogram.reset_hint as u8);
}

/// Bytes that are left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.chunk().map(u8::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }

    fn signed(&mut self) -> Option<i64> {
        self.chunk().map(i64::from_le_bytes)
    }

    fn float(&mut self) -> Option<f64> {
        self.number().map(f64::from_bits)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()?).ok()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    /// A list; none of its members takes less than 8 bytes.
    fn all<T>(&mut self, mut each: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = usize::try_from(self.number()?).ok().filter(|length| *length <= self.0.len() / 8)?;
        (0..length).map(|_| each(self)).collect()
    }

    fn extent(&mut self) -> Option<Extent> {
        let as_of = AsOf { epoch: self.number()?, number: self.number()? };
        let steps = self.signed()?..self.signed()?;
        let places = count(&steps);
        let order = self.chunk().map(u128::from_le_bytes)?;
        let made_of = MadeOf { order, described: self.flag()?, told: self.flag()? };
        let queryable = self.all(Self::number)?;
        let rows = self.all(|reader| reader.row(places))?;
        let in_order = rows.windows(2).all(|pair| pair[0].labels < pair[1].labels);
        let sound = places > 0 && queryable.len() == places && in_order && is_near(&steps);
        sound.then_some(Extent { steps, rows, queryable, notes: Annotations::default(), made_of, as_of })
    }

    fn row(&mut self, places: usize) -> Option<Row> {
        let labels = Labels::from_canonical(self.text()?).ok()?;
        let floats = self.all(Self::float)?;
        let histograms = self.all(|reader| {
            let place = u32::try_from(reader.number()?).ok()?;
            Some((place, Arc::new(reader.histogram()?)))
        })?;
        let within = |(place, _): &(u32, _)| usize::try_from(*place).is_ok_and(|place| place < places);
        let in_order = histograms.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let sound = (floats.is_empty() || floats.len() == places) && histograms.iter().all(within);
        (sound && in_order).then_some(Row { labels, floats, histograms })
    }

    fn histogram(&mut self) -> Option<FloatHistogram> {
        let schema = i32::try_from(self.signed()?).ok()?;
        let (zero_threshold, zero_count) = (self.float()?, self.float()?);
        let (count, sum) = (self.float()?, self.float()?);
        let (positive_spans, negative_spans) = (self.all(Self::span)?, self.all(Self::span)?);
        let (positive_buckets, negative_buckets) = (self.all(Self::float)?, self.all(Self::float)?);
        let custom_values = self.all(Self::float)?.into();
        let reset_hint = ResetHint::of_number(u64::from(self.byte()?))?;
        let buckets = |spans: &[Span]| spans.iter().map(|span| u64::from(span.length)).sum::<u64>();
        let sound = buckets(&positive_spans) == positive_buckets.len() as u64
            && buckets(&negative_spans) == negative_buckets.len() as u64;
        sound.then_some(FloatHistogram {
            schema,
            zero_threshold,
            zero_count,
            count,
            sum,
            positive_spans,
            negative_spans,
            positive_buckets,
            negative_buckets,
            custom_values,
            reset_hint,
        })
    }

    fn span(&mut self) -> Option<Span> {
        let offset = i32::try_from(self.signed()?).ok()?;
        Some(Span { offset, length: u32::try_from(self.number()?).ok()? })
    }
}

/// Whether the numbers of steps are such that nothing overflows.
fn is_near(steps: &Range<i64>) -> bool {
    steps.start > i64::MIN / 2 && steps.end < i64::MAX / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key { view: 7, canonical: "rate(m[5m])".to_owned(), settings: "s".to_owned(), step: 1_000, phase: 5 }
    }

    fn extent() -> Extent {
        let labels = |value: &str| Labels::from_pairs([("__name__", "m"), ("x", value)]).unwrap();
        let span = Span { offset: -3, length: 2 };
        let histogram = FloatHistogram {
            schema: -4,
            zero_threshold: 0.5,
            positive_spans: vec![span],
            positive_buckets: vec![1.5, -0.0],
            custom_values: Arc::from([1.0]),
            reset_hint: ResetHint::Gauge,
            ..FloatHistogram::default()
        };
        let row = |value, floats: &[f64], histograms| Row {
            labels: labels(value),
            floats: floats.to_vec(),
            histograms,
        };
        Extent {
            steps: -1..2,
            rows: vec![
                row("", &[1.0, f64::NAN, -0.0], vec![]),
                row("ü", &[], vec![(0, Arc::new(histogram.clone())), (2, Arc::new(histogram))]),
            ],
            queryable: vec![1, 2, u64::MAX],
            notes: Annotations::default(),
            made_of: MadeOf { order: u128::MAX - 1, described: false, told: true },
            as_of: AsOf { epoch: 9, number: 8 },
        }
    }

    /// The same with the checksum of what is in it.
    fn sealed(mut body: Vec<u8>) -> Vec<u8> {
        body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
        let mut packed = MAGIC.to_vec();
        put(&mut packed, xxh3_64(&body));
        packed.extend(body);
        packed
    }

    #[test]
    fn what_is_packed_comes_back() {
        let packed = pack(&key(), &extent()).unwrap();
        assert_eq!(unpack(&key(), &packed), Some(extent()));
    }

    #[test]
    fn nothing_else_is_taken_for_it() {
        let packed = pack(&key(), &extent()).unwrap();
        let others = [
            Key { view: 8, ..key() },
            Key { canonical: "rate(m[6m])".to_owned(), ..key() },
            Key { settings: String::new(), ..key() },
            Key { step: 2_000, ..key() },
            Key { phase: 6, ..key() },
        ];
        for other in others {
            assert_eq!(unpack(&other, &packed), None, "{other:?}");
            assert_ne!(name(&other), name(&key()));
        }
        for length in 0..packed.len() {
            assert_eq!(unpack(&key(), &packed[..length]), None, "{length} bytes");
        }
        for place in 0..packed.len() {
            let mut bad = packed.clone();
            bad[place] ^= 1;
            assert_eq!(unpack(&key(), &bad), None, "byte {place}");
        }
    }

    #[test]
    fn a_body_that_is_wrong_within_a_right_sum_breaks_nothing() {
        let packed = pack(&key(), &extent()).unwrap();
        let body = snap::raw::Decoder::new().decompress_vec(&packed[12..]).unwrap();
        assert_eq!(unpack(&key(), &sealed(body.clone())), Some(extent()));
        for place in 0..body.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = body.clone();
                bad[place] = value;
                // Whatever it is, it is laid out as every extent is.
                if let Some(extent) = unpack(&key(), &sealed(bad)) {
                    assert_eq!(extent.queryable.len(), count(&extent.steps));
                }
            }
            assert_eq!(unpack(&key(), &sealed(body[..place].to_vec())), None);
        }
        let mut more = body;
        more.push(0);
        assert_eq!(unpack(&key(), &sealed(more)), None);
    }

    #[test]
    fn what_is_too_large_stays_here() {
        let large = Extent { steps: 0..2_000_000, queryable: vec![0; 2_000_000], ..extent() };
        assert_eq!(pack(&key(), &large), None);
    }
}
