//! Lines of JSON, as VictoriaMetrics exports them and as we do (`gateway/wire/json_lines` shows them).
//!
//! A line is taken whole or not at all: one that does not read is counted and shown, and the others go
//! on. The labels of a line are written down again in the way of remote write 1.0, so that from here on
//! an import is what any other write is.

use std::borrow::Cow;

use super::{
    DecodedSample, Draft, DraftMetadata,
    histogram::DecodedHistogram,
    json::{BadJson, Json, parse_bits},
    parts::Collected,
};
use crate::{
    ingest::{
        IngestError, IngestLimits,
        import::Received,
        known::Keyer,
        labels::{Place, Protocol, SeriesLabels},
        outcome::Reason,
        validate::{self, Order},
    },
    model::{
        Checksum, Exemplar, Histogram, Labels, Metadata, MetricType, Timestamp,
        histogram::{Counts, ResetHint, Span},
    },
};

/// A label's name and value, as they stand in a line or without their escapes.
type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

type Pairs<'a> = Vec<Pair<'a>>;

/// What is wrong with a line that would fill a request alone.
const TOO_MANY: &str = "the line has more samples than a request may have";

/// What a line holds.
#[derive(Debug, Default)]
struct Line<'a> {
    metric: Option<Pairs<'a>>,
    values: Vec<f64>,
    timestamps: Vec<i64>,
    bits: Vec<(usize, f64)>,
    starts: Vec<i64>,
    histograms: Vec<DecodedHistogram>,
    exemplars: Vec<RawExemplar<'a>>,
    metadata: Option<Metadata>,
    begin: bool,
    end: Option<End>,
}

#[derive(Debug)]
struct RawExemplar<'a> {
    labels: Pairs<'a>,
    value: f64,
    timestamp: i64,
}

/// What an exact export says of itself in its last line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct End {
    samples: u64,
    histograms: u64,
    exemplars: u64,
    checksum: Option<Checksum>,
}

/// Reads lines into `received` and a draft, until the text ends or a request would be too large; gives the
/// draft and how much of the text was read.
pub(crate) fn decode(
    text: &[u8],
    keyer: &Keyer<'_>,
    limits: &IngestLimits,
    latest: Timestamp,
    received: &mut Received,
) -> Result<(Draft, usize), IngestError> {
    let mut reading = Reading {
        keyer,
        limits,
        collected: Collected::new(limits, latest),
        labels: Vec::new(),
        places: Vec::new(),
        keys: Vec::new(),
        metadata: Vec::new(),
    };
    let enough = limits.max_samples / 2;
    let mut read = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if read > 0 && (reading.collected.len() >= enough || reading.places.len() >= limits.max_series / 2) {
            break;
        }
        read += line.len();
        received.lines += 1;
        let content = line.strip_suffix(b"\n").unwrap_or(line);
        if content.len() > limits.max_line_bytes {
            received.long_line(limits);
            continue;
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if let Err(why) = reading.line(line, received)? {
            received.bad_line(limits.max_examples, why);
        }
    }
    let Reading { collected, labels, places, keys, metadata, .. } = reading;
    let Collected { samples, histograms, exemplars, bad, .. } = collected;
    let draft = Draft {
        keys,
        samples,
        histograms,
        exemplars,
        metadata,
        bad_series: Vec::new(),
        bad_samples: bad,
        bad_metadata: 0,
        labels: SeriesLabels::new(labels.into(), places, Protocol::RemoteWrite),
    };
    Ok((draft, read))
}

/// What is needed to read lines.
struct Reading<'l> {
    keyer: &'l Keyer<'l>,
    limits: &'l IngestLimits,
    collected: Collected<'l>,
    /// All series' labels, in the way of remote write 1.0.
    labels: Vec<u8>,
    places: Vec<Place>,
    keys: Vec<u128>,
    metadata: Vec<DraftMetadata>,
}

impl Reading<'_> {
    /// Takes a line, or says why not. An error is the end of the request.
    fn line(&mut self, line: &[u8], received: &mut Received) -> Result<Result<(), String>, IngestError> {
        let Ok(text) = std::str::from_utf8(line) else { return Ok(Err("it is not UTF-8".to_owned())) };
        let line = match parse(text) {
            Ok(line) => line,
            Err(bad) => return Ok(Err(bad.to_string())),
        };
        if let Some(end) = line.end {
            return Ok(received.end(end.samples, end.histograms, end.exemplars, end.checksum));
        }
        if line.begin {
            received.begin();
            return Ok(Ok(()));
        }
        if let Some(metadata) = line.metadata {
            self.metadata.push(DraftMetadata { key: 0, metadata });
            return Ok(Ok(()));
        }
        match check(&line, self.limits) {
            Ok(()) => self.series(line, received).map(Ok),
            Err(why) => Ok(Err(why.to_owned())),
        }
    }

    fn series(&mut self, line: Line<'_>, received: &mut Received) -> Result<(), IngestError> {
        let Line { metric, mut values, timestamps, bits, starts, histograms, exemplars, .. } = line;
        for (place, value) in bits {
            values[place] = value;
        }
        let mut pairs = metric.unwrap_or_default();
        for (name, value) in received.extra_labels.iter() {
            pairs.retain(|(other, _)| other != name);
            pairs.push((Cow::Borrowed(name), Cow::Borrowed(value)));
        }
        pairs.sort_unstable();
        let from = self.labels.len();
        pairs.iter().for_each(|(name, value)| push_label(&mut self.labels, name, value));
        let series = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.places.push(Place::new(from, self.labels.len()));
        self.keys.push(self.keyer.key(&self.labels[from..]));

        let labels = checked(&pairs, self.limits).ok().map(|labels| labels.id());
        for (i, (timestamp, value)) in timestamps.iter().zip(values).enumerate() {
            let start = starts.get(i).copied().unwrap_or(0);
            if let Some(id) = labels {
                received.digest.sample(id, *timestamp, value, start);
            }
            self.collected.sample(series, DecodedSample::new(value, *timestamp, start))?;
        }
        for histogram in histograms {
            if let Some(id) = labels {
                received.digest.histogram(id, histogram.timestamp.0, &histogram.histogram, histogram.start);
            }
            self.collected.histogram(series, histogram)?;
        }
        for RawExemplar { labels: pairs, value, timestamp } in exemplars {
            let timestamp = Timestamp(timestamp);
            let exemplar = checked(&pairs, self.limits).map(|labels| Exemplar { labels, value, timestamp });
            if let (Some(id), Ok(exemplar)) = (labels, &exemplar) {
                received.digest.exemplar(id, exemplar);
            }
            self.collected.exemplar(series, timestamp, exemplar)?;
        }
        Ok(())
    }
}

/// Checks what a line's lists say of each other.
fn check(line: &Line<'_>, limits: &IngestLimits) -> Result<(), &'static str> {
    if line.metric.is_none() {
        return Err("it has no \"metric\"");
    }
    if line.values.len() != line.timestamps.len() {
        return Err("it does not have as many values as timestamps");
    }
    let count = line.values.len() + line.histograms.len() + line.exemplars.len();
    if count == 0 {
        return Err("it has no samples");
    }
    if count > limits.max_samples / 2 {
        return Err(TOO_MANY);
    }
    if !line.starts.is_empty() && line.starts.len() != line.timestamps.len() {
        return Err("it does not have as many starts as timestamps");
    }
    if line.bits.iter().any(|(place, _)| *place >= line.values.len()) {
        return Err("its bits are of values it does not have");
    }
    Ok(())
}

fn checked(pairs: &[Pair<'_>], limits: &IngestLimits) -> Result<Labels, Reason> {
    let mut taken = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        validate::take_pair(&mut taken, name.as_bytes(), value.as_bytes(), limits)?;
    }
    validate::labels(&mut taken, Order::Any)
}

/// Writes a `Label` message as field 1.
fn push_label(out: &mut Vec<u8>, name: &str, value: &str) {
    let part = |text: &str| 1 + varint_len(text.len()) + text.len();
    out.push(0x0a);
    push_varint(out, part(name) + part(value));
    for (tag, text) in [(0x0a, name), (0x12, value)] {
        out.push(tag);
        push_varint(out, text.len());
        out.extend_from_slice(text.as_bytes());
    }
}

fn push_varint(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn varint_len(number: usize) -> usize {
    (number | 1).ilog2() as usize / 7 + 1
}

fn parse(text: &str) -> Result<Line<'_>, BadJson> {
    let mut line = Line::default();
    let mut json = Json::new(text);
    json.object(|key, json| {
        match &*key {
            "metric" => line.metric = Some(pairs(json)?),
            "values" => json.list(|item| {
                line.values.push(item.float()?);
                Ok(())
            })?,
            "timestamps" => integers(json, &mut line.timestamps)?,
            "starts" => integers(json, &mut line.starts)?,
            "bits" => json.list(|item| {
                line.bits.push(bits(item)?);
                Ok(())
            })?,
            "histograms" => json.list(|item| {
                line.histograms.push(histogram(item)?);
                Ok(())
            })?,
            "exemplars" => json.list(|item| {
                line.exemplars.push(exemplar(item)?);
                Ok(())
            })?,
            "metadata" => line.metadata = Some(metadata(json)?),
            // Where an export by the command begins a piece, and where all of it ends.
            "begin" | "done" => {
                json.skip()?;
                line.begin = true;
            }
            "end" => line.end = Some(end(json)?),
            _ => json.skip()?,
        }
        Ok(())
    })?;
    json.end()?;
    Ok(line)
}

fn pairs<'a>(json: &mut Json<'a>) -> Result<Pairs<'a>, BadJson> {
    let mut pairs = Vec::with_capacity(8);
    json.object(|name, json| {
        pairs.push((name, json.string()?));
        Ok(())
    })?;
    Ok(pairs)
}

fn integers(json: &mut Json<'_>, into: &mut Vec<i64>) -> Result<(), BadJson> {
    json.list(|item| {
        into.push(item.integer()?);
        Ok(())
    })
}

/// `[3,"7ff0000000000002"]`
fn bits(json: &mut Json<'_>) -> Result<(usize, f64), BadJson> {
    let (mut place, mut value) = (None, None);
    json.list(|item| {
        match (place, value) {
            (None, _) => place = Some(item.integer()?),
            (Some(_), None) => {
                let here = *item;
                let bits = parse_bits(&item.string()?);
                value = Some(bits.ok_or_else(|| here.bad("the sixteen digits of a float are expected"))?);
            }
            (Some(_), Some(_)) => return Err(item.bad("a place and its bits are expected")),
        }
        Ok(())
    })?;
    place.zip(value).ok_or_else(|| json.bad("a place and its bits are expected"))
}

fn exemplar<'a>(json: &mut Json<'a>) -> Result<RawExemplar<'a>, BadJson> {
    let (mut labels, mut value, mut timestamp) = (Vec::new(), None, None);
    json.object(|key, json| {
        match &*key {
            "labels" => labels = pairs(json)?,
            "value" => value = Some(json.float()?),
            "timestamp" => timestamp = Some(json.integer()?),
            _ => json.skip()?,
        }
        Ok(())
    })?;
    match (value, timestamp) {
        (Some(value), Some(timestamp)) => Ok(RawExemplar { labels, value, timestamp }),
        _ => Err(json.bad("the exemplar has no value or no timestamp")),
    }
}

fn metadata(json: &mut Json<'_>) -> Result<Metadata, BadJson> {
    let (mut metric, mut kind, mut help, mut unit) =
        (String::new(), MetricType::Unknown, String::new(), String::new());
    json.object(|key, json| {
        match &*key {
            "metric" => metric = json.string()?.into_owned(),
            "type" => {
                let name = json.string()?;
                kind = MetricType::ALL.into_iter().find(|kind| kind.as_str() == name).unwrap_or_default();
            }
            "help" => help = json.string()?.into_owned(),
            "unit" => unit = json.string()?.into_owned(),
            _ => json.skip()?,
        }
        Ok(())
    })?;
    if metric.is_empty() {
        return Err(json.bad("the metadata is of no metric"));
    }
    Ok(Metadata { metric, kind, help, unit })
}

fn end(json: &mut Json<'_>) -> Result<End, BadJson> {
    let mut end = End::default();
    json.object(|key, json| {
        match &*key {
            "samples" => end.samples = json.integer()?,
            "histograms" => end.histograms = json.integer()?,
            "exemplars" => end.exemplars = json.integer()?,
            "checksum" => end.checksum = Checksum::parse(&json.string()?),
            _ => json.skip()?,
        }
        Ok(())
    })?;
    Ok(end)
}

fn histogram(json: &mut Json<'_>) -> Result<DecodedHistogram, BadJson> {
    let (mut timestamp, mut start, mut counts) = (None, 0, None);
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
    json.object(|key, json| {
        match &*key {
            "timestamp" => timestamp = Some(json.integer()?),
            "start" => start = json.integer()?,
            "schema" => histogram.schema = json.integer()?,
            "zero_threshold" => histogram.zero_threshold = json.float()?,
            "sum" => histogram.sum = json.float()?,
            "reset_hint" => {
                let here = *json;
                histogram.reset_hint = match &*json.string()? {
                    "unknown" => ResetHint::Unknown,
                    "yes" => ResetHint::Yes,
                    "no" => ResetHint::No,
                    "gauge" => ResetHint::Gauge,
                    _ => return Err(here.bad("a reset hint is expected")),
                };
            }
            "positive_spans" => histogram.positive_spans = spans(json)?,
            "negative_spans" => histogram.negative_spans = spans(json)?,
            "integer" => counts = Some(integer_counts(json)?),
            "float" => counts = Some(float_counts(json)?),
            "custom_values" => floats(json, &mut histogram.custom_values)?,
            _ => json.skip()?,
        }
        Ok(())
    })?;
    let (Some(timestamp), Some(counts)) = (timestamp, counts) else {
        return Err(json.bad("the histogram has no timestamp or no counts"));
    };
    histogram.counts = counts;
    Ok(DecodedHistogram { histogram, timestamp: Timestamp(timestamp), start })
}

fn integer_counts(json: &mut Json<'_>) -> Result<Counts, BadJson> {
    let (mut count, mut zero_count, mut positive, mut negative) = (0, 0, Vec::new(), Vec::new());
    json.object(|key, json| {
        match &*key {
            "count" => count = json.integer()?,
            "zero_count" => zero_count = json.integer()?,
            "positive" => integers(json, &mut positive)?,
            "negative" => integers(json, &mut negative)?,
            _ => json.skip()?,
        }
        Ok(())
    })?;
    Ok(Counts::Integer { count, zero_count, positive, negative })
}

fn float_counts(json: &mut Json<'_>) -> Result<Counts, BadJson> {
    let (mut count, mut zero_count, mut positive, mut negative) = (0.0, 0.0, Vec::new(), Vec::new());
    json.object(|key, json| {
        match &*key {
            "count" => count = json.float()?,
            "zero_count" => zero_count = json.float()?,
            "positive" => floats(json, &mut positive)?,
            "negative" => floats(json, &mut negative)?,
            _ => json.skip()?,
        }
        Ok(())
    })?;
    Ok(Counts::Float { count, zero_count, positive, negative })
}

fn floats(json: &mut Json<'_>, into: &mut Vec<f64>) -> Result<(), BadJson> {
    json.list(|item| {
        into.push(item.float()?);
        Ok(())
    })
}

/// `[[0,2],[3,1]]`: offset and length of each.
fn spans(json: &mut Json<'_>) -> Result<Vec<Span>, BadJson> {
    let mut spans = Vec::new();
    json.list(|item| {
        let (mut offset, mut length) = (None, None);
        item.list(|number| {
            match (offset, length) {
                (None, _) => offset = Some(number.integer()?),
                (Some(_), None) => length = Some(number.integer()?),
                (Some(_), Some(_)) => return Err(number.bad("an offset and a length are expected")),
            }
            Ok(())
        })?;
        let (Some(offset), Some(length)) = (offset, length) else {
            return Err(item.bad("an offset and a length are expected"));
        };
        spans.push(Span { offset, length });
        Ok(())
    })?;
    Ok(spans)
}
