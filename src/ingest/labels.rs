//! A request's labels, read from its bytes when somebody asks.
//!
//! A [`Place`] is where a series' labels lie in the decompressed request: in 1.0 the label messages, in
//! 2.0 the packed numbers of its symbols. Most series are known by their key and are never read; of
//! those that are not, [`SeriesLabels`] keeps what was made of them, because the store will ask too.
//!
//! Stamps come last: what came is checked as it came, and then has the sender's labels in the place of
//! its own. So nothing that stands in a request, or is said of an import, gets around them.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use super::{
    IngestLimits,
    decode::wire::{DecodeError, Message, low32},
    outcome::Reason,
    validate::{self, Order},
};
use crate::{model::Labels, storage::BatchLabels};

/// A stretch of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    start: u32,
    end: u32,
    /// Whether it is the whole message of the series, and the labels are among its fields.
    whole: bool,
}

impl Place {
    /// Nothing but labels.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start: offset(start), end: offset(end), whole: false }
    }

    /// The whole message that has the labels.
    pub(crate) fn whole(start: usize, end: usize) -> Self {
        Self { start: offset(start), end: offset(end), whole: true }
    }

    fn message(self, buffer: &[u8]) -> Message<'_> {
        let start = self.start as usize;
        Message::new(&buffer[start..self.end as usize], start)
    }
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("the limits keep a request below 4 GiB")
}

/// The strings of a 2.0 request.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    places: Vec<Place>,
    /// The number of `__name__`.
    metric_name: Option<u32>,
}

impl Symbols {
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(crate) fn push(&mut self, place: Place, is_metric_name: bool) {
        if is_metric_name && self.metric_name.is_none() {
            self.metric_name = Some(offset(self.places.len()));
        }
        self.places.push(place);
    }

    /// The number of the symbol `__name__`.
    pub(crate) fn metric_name(&self) -> Option<u32> {
        self.metric_name
    }

    /// A symbol's bytes.
    pub(crate) fn text<'b>(&self, buffer: &'b [u8], symbol: u32) -> Option<&'b [u8]> {
        self.places.get(symbol as usize).map(|place| place.message(buffer).bytes())
    }

    /// All symbols' bytes.
    pub(crate) fn iter<'b>(&self, buffer: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
        self.places.iter().map(|place| place.message(buffer).bytes())
    }

    /// Gives `each` the names and values of the labels at a place.
    pub(crate) fn pairs<'b>(
        &self,
        buffer: &'b [u8],
        place: Place,
        each: &mut EachPair<'_, 'b>,
    ) -> Result<Result<(), Reason>, DecodeError> {
        let mut name: Option<&[u8]> = None;
        let mut result = Ok(());
        each_ref(buffer, place, |symbol| {
            if result.is_err() {
                return;
            }
            result = match (self.text(buffer, symbol), name.take()) {
                (None, _) => Err(Reason::BadRefs),
                (Some(text), None) => {
                    name = Some(text);
                    Ok(())
                }
                (Some(value), Some(name)) => each(name, value),
            };
        })?;
        Ok(result.and(if name.is_some() { Err(Reason::BadRefs) } else { Ok(()) }))
    }
}

/// Takes the name and the value of a label.
pub(crate) type EachPair<'f, 'b> = dyn FnMut(&'b [u8], &'b [u8]) -> Result<(), Reason> + 'f;

/// Gives `each` the numbers of the symbols at a place.
#[inline]
pub(crate) fn each_ref(buffer: &[u8], place: Place, mut each: impl FnMut(u32)) -> Result<(), DecodeError> {
    let mut message = place.message(buffer);
    if place.whole {
        while let Some(field) = message.next()? {
            if field.number == 1 {
                field.each_varint(|symbol| each(low32(symbol)))?;
            }
        }
    } else {
        while !message.bytes().is_empty() {
            each(low32(message.varint()?));
        }
    }
    Ok(())
}

/// Gives `each` the names and values of the labels in field 1 of a 1.0 message.
pub(crate) fn raw_pairs<'b>(
    mut message: Message<'b>,
    each: &mut EachPair<'_, 'b>,
) -> Result<Result<(), Reason>, DecodeError> {
    while let Some(field) = message.next()? {
        if field.number != 1 {
            continue;
        }
        let mut label = field.message()?;
        let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
        while let Some(field) = label.next()? {
            match field.number {
                1 => name = field.message()?.bytes(),
                2 => value = field.message()?.bytes(),
                _ => {}
            }
        }
        if let Err(reason) = each(name, value) {
            return Ok(Err(reason));
        }
    }
    Ok(Ok(()))
}

/// How a request writes labels.
#[derive(Debug)]
pub(crate) enum Protocol {
    RemoteWrite,
    RemoteWrite2(Symbols),
}

/// The labels of a request's series.
pub(crate) struct SeriesLabels {
    buffer: Bytes,
    places: Vec<Place>,
    protocol: Protocol,
    /// Labels that each series gets, whatever it had of the same names.
    stamps: Arc<[(String, String)]>,
    /// Labels that have been read already, in order of their series.
    fresh: Vec<(u32, Labels)>,
}

/// How long the text of an example may be.
const MAX_EXAMPLE_BYTES: usize = 300;

impl SeriesLabels {
    pub(crate) fn new(buffer: Bytes, places: Vec<Place>, protocol: Protocol) -> Self {
        Self { buffer, places, protocol, stamps: Arc::new([]), fresh: Vec::new() }
    }

    /// The same with stamps.
    #[must_use]
    pub(crate) fn stamped(self, stamps: &Arc<[(String, String)]>) -> Self {
        Self { stamps: Arc::clone(stamps), ..self }
    }

    /// Reads and checks the labels of a series, and stamps them.
    pub(crate) fn read(&self, series: usize, limits: &IngestLimits) -> Result<Labels, Reason> {
        let mut pairs = Vec::with_capacity(16);
        let taken =
            self.pairs(series, &mut |name, value| validate::take_pair(&mut pairs, name, value, limits));
        // 1.0 receivers have always sorted; 2.0 says that senders must.
        let order = match self.protocol {
            Protocol::RemoteWrite => Order::Any,
            Protocol::RemoteWrite2(_) => Order::Sorted,
        };
        taken.map_err(|_| Reason::BadLabels)??;
        let labels = validate::series_labels(&mut pairs, order)?;
        if self.stamps.is_empty() {
            return Ok(labels);
        }
        let mut stamped = labels.edit();
        for (name, value) in self.stamps.iter() {
            stamped.set(name, value);
        }
        Ok(stamped.build())
    }

    /// The labels for a person: what can be read of them, shortened.
    pub(crate) fn describe(&self, series: usize) -> String {
        let mut text = String::from("{");
        let described = self.pairs(series, &mut |name, value| {
            if text.len() > 1 {
                text.push_str(", ");
            }
            for (part, end) in [(name, "=\""), (value, "\"")] {
                let shown = &part[..part.len().min(MAX_EXAMPLE_BYTES - text.len().min(MAX_EXAMPLE_BYTES))];
                text.push_str(&String::from_utf8_lossy(shown).escape_debug().to_string());
                if shown.len() < part.len() {
                    text.push('…');
                }
                text.push_str(end);
            }
            // Any reason will do to stop.
            if text.len() < MAX_EXAMPLE_BYTES { Ok(()) } else { Err(Reason::TooManyLabels) }
        });
        match described {
            Ok(Ok(())) => text.push('}'),
            Ok(Err(_)) | Err(_) => text.push_str(", …}"),
        }
        text
    }

    /// Keeps labels that have been read; in order of their series.
    pub(crate) fn keep(&mut self, series: u32, labels: Labels) {
        self.fresh.push((series, labels));
    }

    /// Leaves out the series that `new_number` has no number for.
    pub(crate) fn renumber(&mut self, new_number: &[Option<u32>]) {
        let mut kept = new_number.iter().map(Option::is_some);
        self.places.retain(|_| kept.next().unwrap_or(false));
        self.fresh.retain_mut(|(series, _)| match new_number[*series as usize] {
            Some(number) => {
                *series = number;
                true
            }
            None => false,
        });
    }

    fn pairs<'b>(
        &'b self,
        series: usize,
        each: &mut EachPair<'_, 'b>,
    ) -> Result<Result<(), Reason>, DecodeError> {
        let place = self.places[series];
        match &self.protocol {
            Protocol::RemoteWrite => raw_pairs(place.message(&self.buffer), each),
            Protocol::RemoteWrite2(symbols) => symbols.pairs(&self.buffer, place, each),
        }
    }
}

impl BatchLabels for SeriesLabels {
    fn labels(&self, series: usize) -> Labels {
        let fresh = self.fresh.binary_search_by(|(number, _)| (*number as usize).cmp(&series));
        if let Ok(i) = fresh {
            return self.fresh[i].1.clone();
        }
        // These bytes have been accepted before, so they are read without limits; had they a key by
        // chance alone, the answer would be no labels.
        self.read(series, &IngestLimits::without_label_limits()).unwrap_or_else(|_| Labels::empty())
    }
}

impl fmt::Debug for SeriesLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeriesLabels")
            .field("bytes", &self.buffer.len())
            .field("series", &self.places.len())
            .finish_non_exhaustive()
    }
}
