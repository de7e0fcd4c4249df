//! What the log's frames hold: one encoder per kind of record, and one decoder for all.
//!
//! Drawn in `schema/disk/wal.md`. Encoders append whole frames to a buffer, with room for the
//! checksum, which [`super::frame::seal`] fills in when the segment, and with it the salt, is known.

use parking_lot::Mutex;
use zstd::bulk::Compressor;

use crate::{
    model::{
        Exemplar, Histogram, Labels, MatchOp, Matcher, Metadata, MetricType, TenantId, TimeRange, Timestamp,
        histogram::{Counts, ResetHint, Span},
    },
    storage::{
        MatcherSets,
        embedded::varint::{Reader, put_f64, put_i64, put_len, put_str, put_u64, unzigzag, whole, zigzag},
    },
};

#[cfg(test)]
use super::frame::FRAME_HEAD;
use super::frame::{begin, end, frame_size, payload};

/// The kinds of record; the discriminants are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Series = 1,
    Samples = 2,
    Histograms = 3,
    Exemplars = 4,
    Metadata = 5,
    Tombstone = 6,
    Cleaned = 7,
    PackedSeries = 8,
}

impl Kind {
    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Series,
            2 => Self::Samples,
            3 => Self::Histograms,
            4 => Self::Exemplars,
            5 => Self::Metadata,
            6 => Self::Tombstone,
            7 => Self::Cleaned,
            8 => Self::PackedSeries,
            _ => return None,
        })
    }
}

/// A record's payload has this many bytes before it is split, if what it holds can be.
const SPLIT_BYTES: usize = 1 << 20;

/// Series are packed from so many bytes on: fewer have little in common.
const PACK_FROM: usize = 512;
/// More is not packed, and does not unpack.
const MOST_UNPACKED: usize = 16 << 20;
/// The fastest: what series of one scrape have in common is found at any level.
const PACK_LEVEL: i32 = 1;
/// So many packers are kept when nobody uses them.
const KEPT_PACKERS: usize = 4;

/// Making a packer costs more than using it. Those who write at the same time each have their own.
static PACKERS: Mutex<Vec<Compressor<'static>>> = Mutex::new(Vec::new());

/// A delete, as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Tombstone {
    /// Its number, rising within the store.
    pub(crate) id: u64,
    /// Whose series it hides: those that match one of the sets.
    pub(crate) sets: MatcherSets,
    /// When it hides them.
    pub(crate) range: TimeRange,
}

/// A sample as the log keeps it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LoggedSample {
    pub(crate) number: u32,
    pub(crate) timestamp: i64,
    pub(crate) value: f64,
    pub(crate) start: i64,
}

/// A record read back.
#[derive(Debug)]
pub(crate) enum Record<'a> {
    Series { tenant: TenantId, series: Vec<(u32, Labels)> },
    Samples(Vec<LoggedSample>),
    Histograms(Vec<LoggedHistogram<'a>>),
    Exemplars { tenant: TenantId, exemplars: Vec<(Labels, Exemplar)> },
    Metadata { tenant: TenantId, metadata: Vec<Metadata> },
    Tombstone { tenant: TenantId, tombstone: Tombstone },
    Cleaned { tenant: TenantId, up_to: u64 },
}

/// A histogram as the log keeps it: still in bytes, but known to decode.
#[derive(Debug)]
pub(crate) struct LoggedHistogram<'a> {
    pub(crate) number: u32,
    pub(crate) timestamp: i64,
    pub(crate) start: i64,
    pub(crate) bytes: &'a [u8],
}

/// Appends frames that make series known under numbers.
///
/// Each flush makes the log forget all series, so those of a large head are told often, and would fill the log if
/// they were not packed.
pub(crate) fn put_series(out: &mut Vec<u8>, tenant: &TenantId, series: &[(u32, Labels)]) {
    let mut plain = Vec::new();
    split(
        &mut plain,
        Kind::Series,
        Some(tenant),
        series,
        |(_, labels)| labels.as_canonical().len() + 8,
        |out, (number, labels)| {
            put_u64(out, u64::from(*number));
            put_str(out, labels.as_canonical());
        },
    );
    let mut rest = plain.as_slice();
    while let Some(payload) = payload(rest) {
        let (frame, after) = rest.split_at(frame_size(payload.len()));
        match pack(payload) {
            Some(packed) => {
                let at = begin(out, Kind::PackedSeries);
                put_len(out, payload.len());
                out.extend_from_slice(&packed);
                end(out, at);
            }
            None => out.extend_from_slice(frame),
        }
        rest = after;
    }
}

/// Packs a payload, if that is worth it.
fn pack(payload: &[u8]) -> Option<Vec<u8>> {
    if !(PACK_FROM..=MOST_UNPACKED).contains(&payload.len()) {
        return None;
    }
    let idle = PACKERS.lock().pop();
    let mut packer = idle.map_or_else(|| Compressor::new(PACK_LEVEL), Ok).ok()?;
    let packed = packer.compress(payload).ok();
    let mut idle = PACKERS.lock();
    if idle.len() < KEPT_PACKERS {
        idle.push(packer);
    }
    packed.filter(|packed| packed.len() + payload.len() / 8 < payload.len())
}

/// Unpacks a payload to the length it had.
fn unpack(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    if length > MOST_UNPACKED {
        return None;
    }
    zstd::bulk::decompress(packed, length).ok().filter(|bytes| bytes.len() == length)
}

/// Appends frames of samples.
pub(crate) fn put_samples(out: &mut Vec<u8>, samples: impl ExactSizeIterator<Item = LoggedSample>) {
    const MOST: usize = 1 << 16;
    let mut samples = samples;
    while samples.len() > 0 {
        let count = samples.len().min(MOST);
        out.reserve(count * 8 + 16);
        let at = begin(out, Kind::Samples);
        put_len(out, count);
        let (mut number, mut timestamp) = (0_i64, 0_i64);
        for sample in samples.by_ref().take(count) {
            let n = whole(sample.value);
            let step = zigzag(i64::from(sample.number) - number);
            put_u64(out, step << 2 | u64::from(sample.start != 0) << 1 | u64::from(n.is_some()));
            put_i64(out, sample.timestamp.wrapping_sub(timestamp));
            match n {
                Some(n) => put_i64(out, n),
                None => put_f64(out, sample.value),
            }
            if sample.start != 0 {
                put_i64(out, sample.timestamp.wrapping_sub(sample.start));
            }
            (number, timestamp) = (i64::from(sample.number), sample.timestamp);
        }
        end(out, at);
    }
}

/// Appends frames of histograms, encoded by [`put_histogram`] before.
pub(crate) fn put_histograms(out: &mut Vec<u8>, histograms: &[LoggedHistogram<'_>]) {
    split(
        out,
        Kind::Histograms,
        None,
        histograms,
        |h| h.bytes.len() + 24,
        |out, h| {
            put_u64(out, u64::from(h.number));
            put_i64(out, h.timestamp);
            put_i64(out, h.start);
            put_len(out, h.bytes.len());
            out.extend_from_slice(h.bytes);
        },
    );
}

/// Appends frames of exemplars.
pub(crate) fn put_exemplars(out: &mut Vec<u8>, tenant: &TenantId, exemplars: &[(Labels, Exemplar)]) {
    split(
        out,
        Kind::Exemplars,
        Some(tenant),
        exemplars,
        |(series, e)| series.as_canonical().len() + e.labels.as_canonical().len() + 24,
        |out, (series, e)| {
            put_str(out, series.as_canonical());
            put_i64(out, e.timestamp.0);
            put_f64(out, e.value);
            put_str(out, e.labels.as_canonical());
        },
    );
}

/// Appends frames of metadata.
pub(crate) fn put_metadata(out: &mut Vec<u8>, tenant: &TenantId, metadata: &[Metadata]) {
    split(
        out,
        Kind::Metadata,
        Some(tenant),
        metadata,
        |m| m.metric.len() + m.help.len() + m.unit.len() + 8,
        |out, m| {
            put_str(out, &m.metric);
            put_u64(out, m.kind as u64);
            put_str(out, &m.help);
            put_str(out, &m.unit);
        },
    );
}

/// Appends a frame that hides series.
pub(crate) fn put_tombstone(out: &mut Vec<u8>, tenant: &TenantId, tombstone: &Tombstone) {
    let at = begin(out, Kind::Tombstone);
    put_str(out, tenant.as_str());
    put_u64(out, tombstone.id);
    put_i64(out, tombstone.range.start().0);
    put_i64(out, tombstone.range.end().0);
    put_len(out, tombstone.sets.len());
    for set in &tombstone.sets {
        put_len(out, set.len());
        for matcher in set {
            let op = match matcher.op() {
                MatchOp::Equal => 0,
                MatchOp::NotEqual => 1,
                MatchOp::Matches => 2,
                MatchOp::NotMatches => 3,
            };
            put_u64(out, op);
            put_str(out, matcher.name());
            put_str(out, matcher.value());
        }
    }
    end(out, at);
}

/// Appends a frame that says which tombstones are gone.
pub(crate) fn put_cleaned(out: &mut Vec<u8>, tenant: &TenantId, up_to: u64) {
    let at = begin(out, Kind::Cleaned);
    put_str(out, tenant.as_str());
    put_u64(out, up_to);
    end(out, at);
}

/// Appends as many frames of one kind as it takes to keep each of them of moderate size.
fn split<T>(
    out: &mut Vec<u8>,
    kind: Kind,
    tenant: Option<&TenantId>,
    mut items: &[T],
    size: impl Fn(&T) -> usize,
    put: impl Fn(&mut Vec<u8>, &T),
) {
    while !items.is_empty() {
        let mut bytes = 0;
        let fitting = items.iter().take_while(|item| {
            bytes += size(item);
            bytes <= SPLIT_BYTES
        });
        let (now, later) = items.split_at(fitting.count().max(1));
        let at = begin(out, kind);
        if let Some(tenant) = tenant {
            put_str(out, tenant.as_str());
        }
        put_len(out, now.len());
        for item in now {
            put(out, item);
        }
        end(out, at);
        items = later;
    }
}

/// Appends a histogram, without a frame. Equal histograms give equal bytes.
pub(crate) fn put_histogram(out: &mut Vec<u8>, h: &Histogram) {
    put_i64(out, i64::from(h.schema));
    put_f64(out, h.zero_threshold);
    put_f64(out, h.sum);
    put_u64(out, h.reset_hint as u64);
    let spans = |out: &mut Vec<u8>| {
        for spans in [&h.positive_spans, &h.negative_spans] {
            put_len(out, spans.len());
            for span in spans {
                put_i64(out, i64::from(span.offset));
                put_u64(out, u64::from(span.length));
            }
        }
    };
    let floats = |out: &mut Vec<u8>, all: &[f64]| {
        put_len(out, all.len());
        all.iter().for_each(|v| put_f64(out, *v));
    };
    match &h.counts {
        Counts::Integer { count, zero_count, positive, negative } => {
            put_u64(out, 0);
            put_u64(out, *count);
            put_u64(out, *zero_count);
            spans(out);
            for buckets in [positive, negative] {
                put_len(out, buckets.len());
                buckets.iter().for_each(|n| put_i64(out, *n));
            }
        }
        Counts::Float { count, zero_count, positive, negative } => {
            put_u64(out, 1);
            put_f64(out, *count);
            put_f64(out, *zero_count);
            spans(out);
            floats(out, positive);
            floats(out, negative);
        }
    }
    floats(out, &h.custom_values);
}

/// Reads a histogram back.
pub(crate) fn histogram(bytes: &[u8]) -> Option<Histogram> {
    let r = &mut Reader::new(bytes);
    let schema = i32::try_from(r.i64()?).ok()?;
    let zero_threshold = r.f64()?;
    let sum = r.f64()?;
    let reset_hint = ResetHint::of_number(r.u64()?)?;
    fn spans(r: &mut Reader<'_>) -> Option<Vec<Span>> {
        (0..r.count(2)?)
            .map(|_| {
                Some(Span { offset: i32::try_from(r.i64()?).ok()?, length: u32::try_from(r.u64()?).ok()? })
            })
            .collect()
    }
    fn floats(r: &mut Reader<'_>) -> Option<Vec<f64>> {
        (0..r.count(8)?).map(|_| r.f64()).collect()
    }
    fn integers(r: &mut Reader<'_>) -> Option<Vec<i64>> {
        (0..r.count(1)?).map(|_| r.i64()).collect()
    }
    let (positive_spans, negative_spans, counts);
    match r.u64()? {
        0 => {
            let (count, zero_count) = (r.u64()?, r.u64()?);
            (positive_spans, negative_spans) = (spans(r)?, spans(r)?);
            counts = Counts::Integer { count, zero_count, positive: integers(r)?, negative: integers(r)? };
        }
        1 => {
            let (count, zero_count) = (r.f64()?, r.f64()?);
            (positive_spans, negative_spans) = (spans(r)?, spans(r)?);
            counts = Counts::Float { count, zero_count, positive: floats(r)?, negative: floats(r)? };
        }
        _ => return None,
    }
    let custom_values = floats(r)?;
    r.rest().is_empty().then_some(Histogram {
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

/// Reads a record back; none if it is not what its checksum said it would be.
pub(crate) fn decode(kind: Kind, payload: &[u8]) -> Option<Record<'_>> {
    let r = &mut Reader::new(payload);
    let record = match kind {
        Kind::Series => series(r)?,
        Kind::PackedSeries => {
            let length = usize::try_from(r.u64()?).ok()?;
            let unpacked = unpack(r.rest(), length)?;
            let r = &mut Reader::new(&unpacked);
            let record = series(r)?;
            return r.rest().is_empty().then_some(record);
        }
        Kind::Samples => Record::Samples(samples(r)?),
        Kind::Histograms => Record::Histograms((0..r.count(4)?).map(|_| logged(r)).collect::<Option<_>>()?),
        Kind::Exemplars => {
            let tenant = tenant(r)?;
            let exemplars = (0..r.count(11)?).map(|_| exemplar(r)).collect::<Option<_>>()?;
            Record::Exemplars { tenant, exemplars }
        }
        Kind::Metadata => {
            let tenant = tenant(r)?;
            let metadata = (0..r.count(4)?).map(|_| metadata(r)).collect::<Option<_>>()?;
            Record::Metadata { tenant, metadata }
        }
        Kind::Tombstone => {
            let tenant = tenant(r)?;
            let id = r.u64()?;
            let range = TimeRange::new(Timestamp(r.i64()?), Timestamp(r.i64()?))?;
            let sets = (0..r.count(1)?)
                .map(|_| (0..r.count(3)?).map(|_| matcher(r)).collect::<Option<Vec<_>>>())
                .collect::<Option<_>>()?;
            Record::Tombstone { tenant, tombstone: Tombstone { id, sets, range } }
        }
        Kind::Cleaned => Record::Cleaned { tenant: tenant(r)?, up_to: r.u64()? },
    };
    r.rest().is_empty().then_some(record)
}

fn series<'r>(r: &mut Reader<'_>) -> Option<Record<'r>> {
    let tenant = tenant(r)?;
    let series = (0..r.count(2)?).map(|_| Some((number(r)?, labels(r)?))).collect::<Option<_>>()?;
    Some(Record::Series { tenant, series })
}

fn samples(r: &mut Reader<'_>) -> Option<Vec<LoggedSample>> {
    let count = r.count(3)?;
    let mut samples = Vec::with_capacity(count);
    let (mut number, mut timestamp) = (0_i64, 0_i64);
    for _ in 0..count {
        let head = r.u64()?;
        number = number.checked_add(unzigzag(head >> 2))?;
        timestamp = timestamp.wrapping_add(r.i64()?);
        let value = if head & 1 == 1 { r.i64()? as f64 } else { r.f64()? };
        let start = if head & 2 == 2 { timestamp.wrapping_sub(r.i64()?) } else { 0 };
        samples.push(LoggedSample { number: u32::try_from(number).ok()?, timestamp, value, start });
    }
    Some(samples)
}

fn logged<'a>(r: &mut Reader<'a>) -> Option<LoggedHistogram<'a>> {
    let logged =
        LoggedHistogram { number: number(r)?, timestamp: r.i64()?, start: r.i64()?, bytes: r.bytes()? };
    histogram(logged.bytes).map(|_| logged)
}

fn exemplar(r: &mut Reader<'_>) -> Option<(Labels, Exemplar)> {
    let series = labels(r)?;
    let (timestamp, value) = (Timestamp(r.i64()?), r.f64()?);
    Some((series, Exemplar { labels: labels(r)?, value, timestamp }))
}

fn metadata(r: &mut Reader<'_>) -> Option<Metadata> {
    let metric = r.str()?.to_owned();
    let kind = MetricType::from_wire(i32::try_from(r.u64()?).ok()?);
    Some(Metadata { metric, kind, help: r.str()?.to_owned(), unit: r.str()?.to_owned() })
}

fn matcher(r: &mut Reader<'_>) -> Option<Matcher> {
    let op = match r.u64()? {
        0 => MatchOp::Equal,
        1 => MatchOp::NotEqual,
        2 => MatchOp::Matches,
        3 => MatchOp::NotMatches,
        _ => return None,
    };
    Matcher::new(op, r.str()?, r.str()?).ok()
}

fn tenant(r: &mut Reader<'_>) -> Option<TenantId> {
    TenantId::new(r.str()?).ok()
}

fn labels(r: &mut Reader<'_>) -> Option<Labels> {
    Labels::from_canonical(r.str()?).ok()
}

fn number(r: &mut Reader<'_>) -> Option<u32> {
    u32::try_from(r.u64()?).ok()
}

/// The frames in a buffer that [`begin`] and [`end`] made: kind and payload of each.
#[cfg(test)]
pub(crate) fn frames(mut buffer: &[u8]) -> Vec<(Kind, &[u8])> {
    let mut all = Vec::new();
    while buffer.len() >= FRAME_HEAD {
        let length = u32::from_le_bytes(buffer[..4].try_into().unwrap()) as usize;
        all.push((Kind::from_byte(buffer[8]).unwrap(), &buffer[FRAME_HEAD..FRAME_HEAD + length]));
        buffer = &buffer[frame_size(length)..];
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> impl Strategy<Value = LoggedSample> {
        let time = prop_oneof![0..2_000_000_i64, any::<i64>()];
        let value = prop_oneof![any::<u64>(), (0..1000_u32).prop_map(|n| f64::from(n).to_bits())];
        (any::<u32>(), time, value, prop_oneof![Just(0), any::<i64>()]).prop_map(
            |(number, timestamp, bits, start)| LoggedSample {
                number,
                timestamp,
                value: f64::from_bits(bits),
                start,
            },
        )
    }

    proptest! {
        #[test]
        fn samples_come_back_to_the_bit(all in prop::collection::vec(sample(), 0..200)) {
            let mut out = Vec::new();
            put_samples(&mut out, all.iter().copied());
            let mut back = Vec::new();
            for (kind, payload) in frames(&out) {
                match decode(kind, payload) {
                    Some(Record::Samples(samples)) => back.extend(samples),
                    other => panic!("{other:?}"),
                }
            }
            let bits = |all: &[LoggedSample]| -> Vec<(u32, i64, u64, i64)> {
                all.iter().map(|s| (s.number, s.timestamp, s.value.to_bits(), s.start)).collect()
            };
            prop_assert_eq!(bits(&back), bits(&all));
        }

        #[test]
        fn arbitrary_bytes_are_a_record_or_none(kind in 1..=8_u8, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(Kind::from_byte(kind).unwrap(), &bytes);
            let _ = histogram(&bytes);
        }
    }

    #[test]
    fn a_tombstone_comes_back() {
        let tenant = TenantId::new("t").unwrap();
        let sets =
            vec![vec![Matcher::equal("a", "b"), Matcher::new(MatchOp::NotMatches, "c", "d.*").unwrap()]];
        let tombstone = Tombstone { id: 7, sets, range: TimeRange::ALL };
        let mut out = Vec::new();
        put_tombstone(&mut out, &tenant, &tombstone);
        put_cleaned(&mut out, &tenant, 9);
        let frames = frames(&out);
        match decode(frames[0].0, frames[0].1) {
            Some(Record::Tombstone { tenant: t, tombstone: back }) => {
                assert_eq!((t, back.id, back.sets, back.range), (tenant, 7, tombstone.sets, TimeRange::ALL));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(decode(frames[1].0, frames[1].1), Some(Record::Cleaned { up_to: 9, .. })));
    }

    fn all_series(buffer: &[u8]) -> Vec<(u32, Labels)> {
        let record = |(kind, payload): &(Kind, &[u8])| match decode(*kind, payload) {
            Some(Record::Series { series, .. }) => series,
            other => panic!("{other:?}"),
        };
        frames(buffer).iter().flat_map(record).collect()
    }

    #[test]
    fn series_that_are_alike_are_packed_and_come_back() {
        let tenant = TenantId::new("t").unwrap();
        let series = |count: u32| -> Vec<(u32, Labels)> {
            let of = |i: u32| {
                let (pod, path) = (format!("api-{i:08x}"), format!("/v1/{}", i % 7));
                Labels::from_pairs([("__name__", "http_requests_total"), ("pod", &pod), ("path", &path)])
                    .unwrap()
            };
            (0..count).map(|i| (i * 3, of(i))).collect()
        };
        for count in [1, 2, 10, 2000, 30_000] {
            let series = series(count);
            let mut out = Vec::new();
            put_series(&mut out, &tenant, &series);
            assert_eq!(all_series(&out), series);
            let text: usize = series.iter().map(|(_, labels)| labels.as_canonical().len()).sum();
            let packed = frames(&out).iter().all(|(kind, _)| *kind == Kind::PackedSeries);
            assert_eq!(packed, count >= 10, "{count}");
            assert!(count < 2000 || out.len() * 3 < text, "{} bytes of {text}", out.len());
        }
    }

    #[test]
    fn a_packed_record_that_is_cut_or_says_another_length_is_none() {
        let labels = |i: u32| Labels::from_pairs([("name", "x".repeat(100)), ("i", i.to_string())]).unwrap();
        let series: Vec<(u32, Labels)> = (0..20).map(|i| (i, labels(i))).collect();
        let mut out = Vec::new();
        put_series(&mut out, &TenantId::anonymous(), &series);
        let (kind, payload) = frames(&out)[0];
        assert!(decode(kind, payload).is_some());
        for cut in 0..payload.len() {
            assert!(decode(kind, &payload[..cut]).is_none(), "{cut}");
        }
        let mut other = payload.to_vec();
        other[0] ^= 1;
        assert!(decode(kind, &other).is_none());
    }

    #[test]
    fn many_series_are_split_over_frames() {
        let tenant = TenantId::anonymous();
        let long = "x".repeat(100_000);
        let series: Vec<(u32, Labels)> = (0..30)
            .map(|i| (i, Labels::from_pairs([("l", long.as_str()), ("i", &i.to_string())]).unwrap()))
            .collect();
        let mut out = Vec::new();
        put_series(&mut out, &tenant, &series);
        assert!(frames(&out).len() > 1);
        assert_eq!(all_series(&out), series);
    }
}
