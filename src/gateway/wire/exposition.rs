//! Newest samples as a target exposes them: Prometheus' text, its protobuf, or OpenMetrics.
//!
//! Nothing is known here of what kind a metric is, so all are `untyped`, and native histograms, which only protobuf can
//! say, are left out of the others. A series without the label `instance` gets an empty one, so that whoever scrapes us
//! does not take us for the instance.
//!
//! The text is what all get who take it. OpenMetrics is for those who take nothing else: its times are seconds, which
//! Prometheus reads as a float and cuts to milliseconds, and so it would keep other times than ours.
//!
//! Where names are not plain, `escaping` in `Accept` says how they are written: `allow-utf-8` is as they are, in
//! quotes; `underscores`, `dots` and `values` make plain names of them, and the first does if nothing is said.

use std::fmt::Write as _;

use prost::Message as _;

use crate::{
    model::{
        Histogram, METRIC_NAME,
        histogram::{CUSTOM_BUCKETS_SCHEMA, Counts, ResetHint, Span},
        labels::is_plain_metric_name,
    },
    promql::go_float::{format_g, format_open_metrics},
    query::{Newest, NewestValue},
};

/// The label of which scraping makes its target if it is missing.
const INSTANCE: &str = "instance";

/// How samples are exposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposition {
    format: Format,
    escaping: Escaping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    OpenMetrics,
    Protobuf,
}

/// What becomes of names that are not plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escaping {
    None,
    Underscores,
    Dots,
    Values,
}

impl Exposition {
    /// What whoever sends these `Accept` fields likes best.
    pub fn accepted<'a>(fields: impl IntoIterator<Item = &'a str>) -> Self {
        let ranges = fields.into_iter().flat_map(|field| field.split(','));
        let mut ranges: Vec<Accepted<'_>> =
            ranges.map(Accepted::read).filter(|range| range.weight > 0.0).collect();
        ranges.sort_by(|a, b| b.weight.total_cmp(&a.weight));
        let mut escaping = Escaping::Underscores;
        let mut open_metrics = None;
        let mut takes_text = ranges.is_empty();
        for range in &ranges {
            escaping = range.parameter("escaping").and_then(Escaping::named).unwrap_or(escaping);
            let version = range.parameter("version").unwrap_or_default();
            match range.media_type.to_ascii_lowercase().as_str() {
                "application/vnd.google.protobuf"
                    if range.parameter("proto") == Some("io.prometheus.client.MetricFamily")
                        && range.parameter("encoding") == Some("delimited") =>
                {
                    return Self { format: Format::Protobuf, escaping };
                }
                "text/plain" if matches!(version, "" | "0.0.4") => {
                    return Self { format: Format::Text, escaping };
                }
                "application/openmetrics-text" => open_metrics = open_metrics.or(Some(escaping)),
                "text/plain" | "text/*" | "*/*" => takes_text = true,
                _ => {}
            }
        }
        match open_metrics {
            Some(escaping) if !takes_text => Self { format: Format::OpenMetrics, escaping },
            _ => Self { format: Format::Text, escaping },
        }
    }

    /// What an answer calls itself.
    pub fn content_type(self) -> String {
        let format = match self.format {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        };
        let escaping = match self.escaping {
            Escaping::None => "allow-utf-8",
            Escaping::Underscores => "underscores",
            Escaping::Dots => "dots",
            Escaping::Values => "values",
        };
        format!("{format}; escaping={escaping}")
    }
}

/// One of the things that somebody accepts.
struct Accepted<'a> {
    media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    weight: f64,
}

impl<'a> Accepted<'a> {
    fn read(range: &'a str) -> Self {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let parameters: Vec<_> = parts
            .filter_map(|part| part.split_once('='))
            .map(|(name, value)| (name.trim(), value.trim().trim_matches('"')))
            .collect();
        let weight = parameters.iter().find(|(name, _)| *name == "q").and_then(|(_, q)| q.parse().ok());
        let weight = if media_type.is_empty() { 0.0 } else { weight.unwrap_or(1.0) };
        Self { media_type, parameters, weight }
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }
}

impl Escaping {
    fn named(name: &str) -> Option<Self> {
        match name {
            "allow-utf-8" => Some(Self::None),
            "underscores" => Some(Self::Underscores),
            "dots" => Some(Self::Dots),
            "values" => Some(Self::Values),
            _ => None,
        }
    }

    /// A name as it is written.
    fn apply(self, name: &str) -> String {
        let mut escaped = String::with_capacity(name.len());
        if self == Self::None || is_plain_metric_name(name) {
            escaped.push_str(name);
            return escaped;
        }
        if self == Self::Values {
            escaped.push_str("U__");
        }
        for (i, c) in name.char_indices() {
            let plain = c.is_ascii_alphabetic() || c == '_' || c == ':' || c.is_ascii_digit() && i > 0;
            match (self, c) {
                (Self::Dots, '.') => escaped.push_str("_dot_"),
                (Self::Dots | Self::Values, '_') => escaped.push_str("__"),
                _ if plain => escaped.push(c),
                (Self::Dots, _) => escaped.push_str("__"),
                // Writing to a string does not fail.
                (Self::Values, _) => drop(write!(escaped, "_{:x}_", u32::from(c))),
                (Self::Underscores | Self::None, _) => escaped.push('_'),
            }
        }
        escaped
    }
}

/// Writes samples, those of a metric together.
pub fn write(newest: &[Newest], exposition: Exposition) -> Vec<u8> {
    match exposition.format {
        Format::Text => text(newest, exposition.escaping, false).into_bytes(),
        Format::OpenMetrics => text(newest, exposition.escaping, true).into_bytes(),
        Format::Protobuf => protobuf(newest, exposition.escaping),
    }
}

fn text(newest: &[Newest], escaping: Escaping, open_metrics: bool) -> String {
    let mut text = String::new();
    let mut family = None;
    for Newest { labels, timestamp, value } in newest {
        let (Some(metric), NewestValue::Float(value)) = (labels.metric_name(), value) else { continue };
        let name = escaping.apply(metric);
        let plain = is_plain_metric_name(&name);
        if family != Some(metric) {
            family = Some(metric);
            text.push_str("# TYPE ");
            name_in(&mut text, &name);
            text.push_str(if open_metrics { " unknown\n" } else { " untyped\n" });
        }
        if plain {
            text.push_str(&name);
        }
        text.push('{');
        if !plain {
            quoted(&mut text, &name);
        }
        let mut first = plain;
        for (label, value) in exposed(labels) {
            if !std::mem::take(&mut first) {
                text.push(',');
            }
            name_in(&mut text, &escaping.apply(label));
            text.push('=');
            quoted(&mut text, value);
        }
        text.push_str("} ");
        if open_metrics {
            text.push_str(&format_open_metrics(*value));
            text.push(' ');
            text.push_str(&seconds(*timestamp));
        } else {
            text.push_str(&format_g(*value));
            text.push(' ');
            text.push_str(&timestamp.to_string());
        }
        text.push('\n');
    }
    if open_metrics {
        text.push_str("# EOF\n");
    }
    text
}

/// The labels of a series but its name, and an instance if it has none.
fn exposed(labels: &crate::model::Labels) -> impl Iterator<Item = (&str, &str)> {
    let instance = labels.get(INSTANCE).is_none().then_some((INSTANCE, ""));
    labels.iter().filter(|(name, _)| *name != METRIC_NAME).chain(instance)
}

fn name_in(text: &mut String, name: &str) {
    if is_plain_metric_name(name) {
        text.push_str(name);
    } else {
        quoted(text, name);
    }
}

fn quoted(text: &mut String, value: &str) {
    text.push('"');
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' => text.push_str("\\\""),
            c => text.push(c),
        }
    }
    text.push('"');
}

/// Milliseconds as seconds, to the last of them.
fn seconds(millis: i64) -> String {
    let sign = if millis < 0 { "-" } else { "" };
    let millis = millis.unsigned_abs();
    match millis % 1000 {
        0 => format!("{sign}{}", millis / 1000),
        part => format!("{sign}{}.{part:03}", millis / 1000),
    }
}

fn protobuf(newest: &[Newest], escaping: Escaping) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut family: Option<(&str, MetricFamily)> = None;
    let ship = |family: Option<(&str, MetricFamily)>, bytes: &mut Vec<u8>| {
        if let Some((_, family)) = family {
            // A vector takes as much as it is given.
            let _ = family.encode_length_delimited(bytes);
        }
    };
    for Newest { labels, timestamp, value } in newest {
        let Some(metric_name) = labels.metric_name() else { continue };
        let pairs = exposed(labels).map(|(name, value)| LabelPair {
            name: Some(escaping.apply(name)),
            value: Some(value.to_owned()),
        });
        let mut metric =
            Metric { label: pairs.collect(), timestamp_ms: Some(*timestamp), ..Metric::default() };
        let kind = match value {
            NewestValue::Float(value) => {
                metric.untyped = Some(Untyped { value: Some(*value) });
                MetricKind::Untyped
            }
            // The message has no place for the bounds of custom buckets.
            NewestValue::Histogram(histogram) if histogram.schema == CUSTOM_BUCKETS_SCHEMA => continue,
            NewestValue::Histogram(histogram) => {
                metric.histogram = Some(HistogramFamily::new(histogram));
                match histogram.reset_hint {
                    ResetHint::Gauge => MetricKind::GaugeHistogram,
                    ResetHint::Unknown | ResetHint::Yes | ResetHint::No => MetricKind::Histogram,
                }
            }
        };
        match &mut family {
            Some((name, family)) if *name == metric_name && family.kind == Some(kind as i32) => {
                family.metric.push(metric);
            }
            _ => {
                let begun = MetricFamily {
                    name: Some(escaping.apply(metric_name)),
                    kind: Some(kind as i32),
                    metric: vec![metric],
                };
                ship(family.replace((metric_name, begun)), &mut bytes);
            }
        }
    }
    ship(family, &mut bytes);
    bytes
}

/// `io.prometheus.client.MetricFamily`, as far as it is used here; likewise those below.
#[derive(Clone, PartialEq, prost::Message)]
struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
}

#[derive(Clone, Copy)]
enum MetricKind {
    Untyped = 3,
    Histogram = 4,
    GaugeHistogram = 5,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "5")]
    untyped: Option<Untyped>,
    #[prost(int64, optional, tag = "6")]
    timestamp_ms: Option<i64>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<HistogramFamily>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LabelPair {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Untyped {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HistogramFamily {
    #[prost(uint64, optional, tag = "1")]
    sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sample_sum: Option<f64>,
    #[prost(double, optional, tag = "4")]
    sample_count_float: Option<f64>,
    #[prost(sint32, optional, tag = "5")]
    schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    zero_count: Option<u64>,
    #[prost(double, optional, tag = "8")]
    zero_count_float: Option<f64>,
    #[prost(message, repeated, tag = "9")]
    negative_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, packed = "false", tag = "10")]
    negative_delta: Vec<i64>,
    #[prost(double, repeated, packed = "false", tag = "11")]
    negative_count: Vec<f64>,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    positive_delta: Vec<i64>,
    #[prost(double, repeated, packed = "false", tag = "14")]
    positive_count: Vec<f64>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct BucketSpan {
    #[prost(sint32, optional, tag = "1")]
    offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    length: Option<u32>,
}

impl HistogramFamily {
    fn new(histogram: &Histogram) -> Self {
        let spans = |spans: &[Span]| {
            let span = |span: &Span| BucketSpan { offset: Some(span.offset), length: Some(span.length) };
            spans.iter().map(span).collect()
        };
        let mut family = Self {
            sample_sum: Some(histogram.sum),
            schema: Some(histogram.schema),
            zero_threshold: Some(histogram.zero_threshold),
            positive_span: spans(&histogram.positive_spans),
            negative_span: spans(&histogram.negative_spans),
            ..Self::default()
        };
        match &histogram.counts {
            Counts::Integer { count, zero_count, positive, negative } => {
                (family.sample_count, family.zero_count) = (Some(*count), Some(*zero_count));
                family.positive_delta.clone_from(positive);
                family.negative_delta.clone_from(negative);
            }
            Counts::Float { count, zero_count, positive, negative } => {
                (family.sample_count_float, family.zero_count_float) = (Some(*count), Some(*zero_count));
                family.positive_count.clone_from(positive);
                family.negative_count.clone_from(negative);
            }
        }
        // What has no bucket is told from a classic histogram by an empty span.
        if family.positive_span.is_empty()
            && family.negative_span.is_empty()
            && histogram.zero_threshold == 0.0
        {
            family.positive_span.push(BucketSpan { offset: Some(0), length: Some(0) });
        }
        family
    }
}
