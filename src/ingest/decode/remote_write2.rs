//! Remote write 2.0: `io.prometheus.write.v2.Request` (`schema/proto/remote_write2.proto`).
//!
//! Strings stand once in a table of symbols, and labels are numbers into it. Each symbol is hashed
//! once per request; the key of a series is made of its symbols' hashes, so it is the same in
//! every request, whatever numbers the symbols have there.
//!
//! A 2.0 sender repeats a metric's metadata with every series. It is taken once per request, and only
//! when it was not written before.

use std::collections::HashSet;

use bytes::Bytes;
use foldhash::fast::FixedState;

use super::{
    Draft, DraftMetadata, bound,
    histogram::histogram,
    parts::{Collected, exemplar_point, sample},
    wire::{DecodeError, Message, low32},
};
use crate::{
    ingest::{
        IngestError, IngestLimits,
        known::{Keyer, KnownSeries},
        labels::{Place, Protocol, SeriesLabels, Symbols, each_ref},
        outcome::Reason,
        validate::{self, Order},
    },
    model::{Exemplar, METRIC_NAME, Metadata, MetricType, Timestamp},
};

/// What a key is multiplied by from symbol to symbol, so that their order counts. Odd, so that nothing
/// is lost; the symbols' hashes are secret, so nobody can make two series meet.
const STEP: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

/// Reads a request. `known` tells which metadata was written before.
pub(crate) fn decode(
    buffer: Bytes,
    keyer: &Keyer<'_>,
    known: &KnownSeries,
    limits: &IngestLimits,
    latest: Timestamp,
) -> Result<Draft, IngestError> {
    let (symbols, series_count) = symbols(&buffer, limits)?;
    let mut decoder = Decoder {
        buffer: &buffer,
        hashes: symbols.iter(&buffer).map(|text| keyer.key(text)).collect(),
        symbols: &symbols,
        keyer,
        known,
        limits,
        collected: Collected::new(limits, latest),
        metadata: MetadataSeen::default(),
        bad_series: Vec::new(),
    };
    decoder.collected.samples.reserve(series_count);
    let mut places = Vec::with_capacity(series_count);
    let mut keys = Vec::with_capacity(series_count);
    let mut request = Message::new(&buffer, 0);
    while let Some(field) = request.next()? {
        if field.number == 5 {
            let number = u32::try_from(places.len()).unwrap_or(u32::MAX);
            let (place, key) = decoder.series(field.message()?, number)?;
            places.push(place);
            keys.push(key);
        }
    }
    decoder.collected.finish()?;
    let Decoder { collected, metadata, bad_series, .. } = decoder;
    let Collected { samples, histograms, exemplars, bad, .. } = collected;
    Ok(Draft {
        keys,
        samples,
        histograms,
        exemplars,
        metadata: metadata.fresh,
        bad_series,
        bad_samples: bad,
        bad_metadata: metadata.bad,
        labels: SeriesLabels::new(buffer.clone(), places, Protocol::RemoteWrite2(symbols)),
    })
}

/// Collects the symbols, and counts the series on the way; the two may come in any order.
fn symbols(buffer: &Bytes, limits: &IngestLimits) -> Result<(Symbols, usize), IngestError> {
    let mut symbols = Symbols::default();
    let mut series = 0;
    let mut request = Message::new(buffer, 0);
    while let Some(field) = request.next()? {
        match field.number {
            4 => {
                let text = field.message()?;
                if symbols.is_empty() && !text.bytes().is_empty() {
                    return Err(DecodeError::FirstSymbol.into());
                }
                bound("symbols", symbols.len() + 1, limits.max_symbols)?;
                let place = Place::new(text.offset(), text.offset() + text.bytes().len());
                symbols.push(place, text.bytes() == METRIC_NAME.as_bytes());
            }
            5 => {
                series += 1;
                bound("series", series, limits.max_series)?;
            }
            _ => {}
        }
    }
    Ok((symbols, series))
}

/// What is needed to read a series.
struct Decoder<'a> {
    buffer: &'a Bytes,
    symbols: &'a Symbols,
    hashes: Vec<u128>,
    keyer: &'a Keyer<'a>,
    known: &'a KnownSeries,
    limits: &'a IngestLimits,
    collected: Collected<'a>,
    metadata: MetadataSeen,
    bad_series: Vec<(u32, Reason)>,
}

/// The metadata of a request.
#[derive(Debug, Default)]
struct MetadataSeen {
    last: Option<[u32; 4]>,
    seen: HashSet<[u32; 4], FixedState>,
    fresh: Vec<DraftMetadata>,
    bad: u64,
}

/// The metadata message of a series: numbers into the symbols.
#[derive(Clone, Copy, Debug, Default)]
struct MetadataRefs {
    kind: u32,
    help: u32,
    unit: u32,
}

impl Decoder<'_> {
    fn series(&mut self, mut message: Message<'_>, number: u32) -> Result<(Place, u128), IngestError> {
        let whole = message;
        let before = self.collected.mark();
        let mut refs: Option<Place> = None;
        let mut metadata: Option<MetadataRefs> = None;
        let mut start = 0;
        while let Some(field) = message.next()? {
            match field.number {
                1 => {
                    refs = match (refs, field.message()) {
                        (None, Ok(packed)) => {
                            Some(Place::new(packed.offset(), packed.offset() + packed.bytes().len()))
                        }
                        // In pieces, or not packed.
                        _ => Some(Place::whole(whole.offset(), whole.offset() + whole.bytes().len())),
                    }
                }
                2 => self.collected.sample(number, sample(field.message()?)?)?,
                3 => self.collected.histogram(number, histogram(field.message()?)?)?,
                4 => {
                    let (timestamp, exemplar) = self.exemplar(field.message()?)?;
                    self.collected.exemplar(number, timestamp, exemplar)?;
                }
                5 => metadata_refs(field.message()?, metadata.get_or_insert_default())?,
                6 => start = field.int64()?,
                _ => {}
            }
        }
        if start != 0 {
            self.collected.start_at(before, start);
        }
        let place = refs.unwrap_or(Place::new(whole.offset(), whole.offset()));
        let key = match self.key(place)? {
            Ok((key, name)) => {
                if let (Some(metadata), Some(name)) = (metadata, name) {
                    self.metadata(name, metadata);
                }
                key
            }
            Err(reason) => {
                self.bad_series.push((number, reason));
                0
            }
        };
        match self.collected.since(before) {
            (true, true) => self.bad_series.push((number, Reason::MixedSamples)),
            (false, false) => self.bad_series.push((number, Reason::NoSamples)),
            (true, false) | (false, true) => {}
        }
        Ok((place, key))
    }

    /// The key of a series and the symbol that is its metric's name.
    fn key(&self, place: Place) -> Result<Result<(u128, Option<u32>), Reason>, DecodeError> {
        let mut sum = 0_u128;
        let mut count = 0_u32;
        let mut in_range = true;
        let mut name = None;
        let mut value_is_name = false;
        let metric_name = self.symbols.metric_name();
        each_ref(self.buffer, place, |symbol| {
            match self.hashes.get(symbol as usize) {
                Some(hash) => sum = sum.wrapping_mul(STEP).wrapping_add(*hash),
                None => in_range = false,
            }
            if count & 1 == 0 {
                value_is_name = Some(symbol) == metric_name;
            } else if value_is_name {
                name = Some(symbol);
            }
            count += 1;
        })?;
        if !in_range || count & 1 == 1 {
            return Ok(Err(Reason::BadRefs));
        }
        Ok(Ok((self.keyer.key(&sum.to_le_bytes()), name)))
    }

    fn exemplar(&self, message: Message<'_>) -> Result<(Timestamp, Result<Exemplar, Reason>), IngestError> {
        let (value, timestamp) = exemplar_point(message)?;
        let place = Place::whole(message.offset(), message.offset() + message.bytes().len());
        let mut pairs = Vec::new();
        let taken = self.symbols.pairs(self.buffer, place, &mut |name, value| {
            validate::take_pair(&mut pairs, name, value, self.limits)
        })?;
        // The order of an exemplar's labels tells nobody anything.
        let labels = taken.and_then(|()| validate::labels(&mut pairs, Order::Any));
        Ok((timestamp, labels.map(|labels| Exemplar { labels, value, timestamp })))
    }

    /// Takes metadata that this request did not have and that was not written before.
    fn metadata(&mut self, name: u32, refs: MetadataRefs) {
        let tuple = [name, refs.kind, refs.help, refs.unit];
        if self.metadata.last == Some(tuple) || !self.metadata.seen.insert(tuple) {
            return;
        }
        self.metadata.last = Some(tuple);
        if refs.kind == 0 && refs.help == 0 && refs.unit == 0 {
            return;
        }
        let hash = |symbol: u32| self.hashes.get(symbol as usize).copied();
        let (Some(name_hash), Some(help), Some(unit)) = (hash(name), hash(refs.help), hash(refs.unit)) else {
            self.metadata.bad += 1;
            return;
        };
        let mut bytes = Vec::with_capacity(56);
        bytes.extend_from_slice(b"metadata");
        bytes.extend_from_slice(&refs.kind.to_le_bytes());
        for hash in [name_hash, help, unit] {
            bytes.extend_from_slice(&hash.to_le_bytes());
        }
        let key = self.keyer.key(&bytes);
        if self.known.contains(key) {
            return;
        }
        let text = |symbol| self.symbols.text(self.buffer, symbol).and_then(|text| str::from_utf8(text).ok());
        let kind = MetricType::from_wire(refs.kind.cast_signed());
        match (text(name), text(refs.help), text(refs.unit)) {
            (Some(name), Some(help), Some(unit)) if !name.is_empty() => {
                let metadata = Metadata {
                    metric: family(name, kind).to_owned(),
                    kind,
                    help: help.to_owned(),
                    unit: unit.to_owned(),
                };
                self.metadata.fresh.push(DraftMetadata { key, metadata });
            }
            _ => self.metadata.bad += 1,
        }
    }
}

/// The family a series of this name belongs to: `x` for the buckets, sum and count of `x`.
fn family(name: &str, kind: MetricType) -> &str {
    let suffixes: &[&str] = match kind {
        MetricType::Histogram => &["_bucket", "_sum", "_count"],
        MetricType::GaugeHistogram => &["_bucket", "_gsum", "_gcount"],
        MetricType::Summary => &["_sum", "_count"],
        MetricType::Unknown
        | MetricType::Counter
        | MetricType::Gauge
        | MetricType::Info
        | MetricType::StateSet => &[],
    };
    suffixes
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .filter(|family| !family.is_empty())
        .unwrap_or(name)
}

/// Reads a metadata message; one that comes twice is read into the same, as protobuf says.
fn metadata_refs(mut message: Message<'_>, refs: &mut MetadataRefs) -> Result<(), DecodeError> {
    while let Some(field) = message.next()? {
        match field.number {
            1 => refs.kind = field.uint32()?,
            3 => refs.help = low32(field.varint()?),
            4 => refs.unit = low32(field.varint()?),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_what_its_parts_share() {
        assert_eq!(family("x_bucket", MetricType::Histogram), "x");
        assert_eq!(family("x_count", MetricType::Summary), "x");
        assert_eq!(family("x_bucket", MetricType::Summary), "x_bucket");
        assert_eq!(family("x_gsum", MetricType::GaugeHistogram), "x");
        assert_eq!(family("x_sum", MetricType::Counter), "x_sum");
        assert_eq!(family("_sum", MetricType::Summary), "_sum");
    }
}
