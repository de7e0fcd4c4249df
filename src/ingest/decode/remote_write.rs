//! Remote write 1.0: `prometheus.WriteRequest` (`schema/proto/remote_write.proto`).
//!
//! The key of a series is made of the bytes of its label fields as they stand, tags and lengths
//! included. Senders write a series' labels in one run; where other fields stand between them the
//! series has no key and is read in full each time.

use bytes::Bytes;

use super::{
    Draft, DraftMetadata, bound,
    histogram::histogram,
    parts::{Collected, exemplar_point, sample},
    wire::Message,
};
use crate::{
    ingest::{
        IngestError, IngestLimits,
        known::Keyer,
        labels::{Place, Protocol, SeriesLabels, raw_pairs},
        outcome::Reason,
        validate::{self, Order},
    },
    model::{Exemplar, Metadata, MetricType, Timestamp},
};

/// The tag of a label in a series.
const LABEL_TAG: u8 = 1 << 3 | 2;

/// Reads a request.
pub(crate) fn decode(
    buffer: Bytes,
    keyer: &Keyer<'_>,
    limits: &IngestLimits,
    latest: Timestamp,
) -> Result<Draft, IngestError> {
    let mut request = Message::new(&buffer, 0);
    let mut collected = Collected::new(limits, latest);
    let mut places: Vec<Place> = Vec::new();
    let mut keys = Vec::new();
    let mut found_metadata = Vec::new();
    let mut bad_metadata = 0;
    while let Some(field) = request.next()? {
        match field.number {
            1 => {
                let message = field.message()?;
                if places.is_empty() {
                    // Series of one request are much alike, and so tell how many there will be.
                    let guess = buffer.len() / (message.bytes().len() + 4) + 1;
                    let guess = guess.min(limits.max_series).min(1 << 16);
                    places.reserve(guess);
                    keys.reserve(guess);
                    collected.samples.reserve(guess);
                }
                let number = u32::try_from(places.len()).unwrap_or(u32::MAX);
                if let Some((place, key)) = series(message, number, keyer, limits, &mut collected)? {
                    bound("series", places.len() + 1, limits.max_series)?;
                    places.push(place);
                    keys.push(key);
                }
            }
            3 => match metadata(field.message()?)? {
                Some(metadata) => {
                    bound("metadata entries", found_metadata.len() + 1, limits.max_series)?;
                    found_metadata.push(DraftMetadata { key: 0, metadata });
                }
                None => bad_metadata += 1,
            },
            _ => {}
        }
    }
    collected.finish()?;
    let Collected { samples, histograms, exemplars, bad, .. } = collected;
    let labels = SeriesLabels::new(buffer.clone(), places, Protocol::RemoteWrite);
    Ok(Draft {
        labels,
        keys,
        samples,
        histograms,
        exemplars,
        metadata: found_metadata,
        bad_series: Vec::new(),
        bad_samples: bad,
        bad_metadata,
    })
}

/// Reads a series and gives the place and key of its labels; none if it holds nothing.
#[inline]
fn series(
    mut message: Message<'_>,
    number: u32,
    keyer: &Keyer<'_>,
    limits: &IngestLimits,
    collected: &mut Collected<'_>,
) -> Result<Option<(Place, u128)>, IngestError> {
    let whole = message;
    let mut labels: Option<(usize, usize)> = None;
    let mut in_one_run = true;
    let mut empty = true;
    while let Some(field) = message.next()? {
        match field.number {
            1 => {
                field.message()?;
                message.skip_run(LABEL_TAG);
                let end = message.offset();
                labels = match labels {
                    None => Some((field.offset, end)),
                    Some((start, before)) => {
                        in_one_run &= before == field.offset;
                        Some((start, end))
                    }
                };
            }
            2 => {
                collected.sample(number, sample(field.message()?)?)?;
                empty = false;
            }
            3 => {
                let (timestamp, exemplar) = exemplar(field.message()?, limits)?;
                collected.exemplar(number, timestamp, exemplar)?;
                empty = false;
            }
            4 => {
                collected.histogram(number, histogram(field.message()?)?)?;
                empty = false;
            }
            _ => {}
        }
    }
    if empty {
        return Ok(None);
    }
    let base = whole.offset();
    Ok(Some(match labels {
        Some((start, end)) if in_one_run => {
            let bytes = &whole.bytes()[start - base..end - base];
            (Place::new(start, end), keyer.key(bytes))
        }
        Some(_) => (Place::new(base, base + whole.bytes().len()), 0),
        None => (Place::new(base, base), 0),
    }))
}

fn exemplar(
    message: Message<'_>,
    limits: &IngestLimits,
) -> Result<(Timestamp, Result<Exemplar, Reason>), IngestError> {
    let (value, timestamp) = exemplar_point(message)?;
    let mut pairs = Vec::new();
    let labels =
        match raw_pairs(message, &mut |name, value| validate::take_pair(&mut pairs, name, value, limits)) {
            Ok(result) => result.and_then(|()| validate::labels(&mut pairs, Order::Any)),
            Err(error) => return Err(error.into()),
        };
    Ok((timestamp, labels.map(|labels| Exemplar { labels, value, timestamp })))
}

/// Reads metadata; none if it is no use.
fn metadata(mut message: Message<'_>) -> Result<Option<Metadata>, IngestError> {
    let (mut metric, mut help, mut unit) = ("".as_bytes(), "".as_bytes(), "".as_bytes());
    let mut kind = MetricType::Unknown;
    while let Some(field) = message.next()? {
        match field.number {
            1 => kind = MetricType::from_wire(field.uint32()?.cast_signed()),
            2 => metric = field.message()?.bytes(),
            4 => help = field.message()?.bytes(),
            5 => unit = field.message()?.bytes(),
            _ => {}
        }
    }
    let text = |bytes| str::from_utf8(bytes).ok().map(str::to_owned);
    Ok(match (text(metric), text(help), text(unit)) {
        (Some(metric), Some(help), Some(unit)) if !metric.is_empty() => {
            Some(Metadata { metric, kind, help, unit })
        }
        _ => None,
    })
}
