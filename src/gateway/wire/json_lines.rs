//! Samples as lines of JSON: one object a line, in the shape VictoriaMetrics exports.
//!
//! ```text
//! {"metric":{"__name__":"up","job":"api"},"values":[1,null],"timestamps":[1767225600000,1767225615000]}
//! ```
//!
//! Times are milliseconds. JSON has no NaN and no infinity: any NaN is `null`, the infinities are
//! `"Infinity"` and `"-Infinity"`. That loses which NaN it was (a stale marker is one), start
//! timestamps, histograms, exemplars and metadata. The exact form keeps them, in fields and lines that
//! other readers do not know:
//!
//! ```text
//! {"metric":{…},"values":[1,null],"timestamps":[…],"bits":[[1,"7ff0000000000002"]],"starts":[0,1767225600000]}
//! {"metric":{…},"histograms":[{"timestamp":…,"schema":3,"sum":5.5,…,"integer":{"count":2,…}}]}
//! {"metric":{…},"exemplars":[{"labels":{"trace_id":"a"},"value":0.5,"timestamp":…}]}
//! {"metadata":{"metric":"up","type":"gauge","help":"…","unit":""}}
//! {"end":{"samples":2,"histograms":0,"exemplars":0,"metadata":1,"checksum":"…","warnings":[]}}
//! ```
//!
//! In histograms and exemplars a NaN is its bits, `"0x7ff8000000000001"`. The last line tells that
//! nothing is missing.

use super::tokens::{push_comma, push_integer, push_labels, push_list, push_text, write_to};
use crate::{
    model::{
        Digest, Exemplar, Histogram, Labels, Metadata, SeriesId,
        histogram::{Counts, ResetHint, Span},
    },
    query::Exported,
    storage::{HistogramSample, SeriesSamples},
};

/// The media type of lines of JSON.
pub const CONTENT_TYPE: &str = "application/stream+json; charset=utf-8";

/// An exact line is shorter than the longest that an import takes, whatever it holds.
const MOST_ROWS: usize = 50_000;
/// The same for histograms, which are large.
const MOST_HISTOGRAMS: usize = 256;
/// The same for exemplars.
const MOST_EXEMPLARS: usize = 1_000;

/// How a line says what JSON cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Valid JSON that other readers understand.
    Plain,
    /// Nothing is lost; the fields and lines it needs are ours.
    Exact,
    /// Infinities stand bare (`+Inf`) and NaN is left out, as VictoriaMetrics wrote and read up to 1.79.
    Bare,
}

/// Writes the lines of one export.
#[derive(Debug)]
pub struct Writer {
    form: Form,
    max_rows: usize,
    digest: Digest,
    metadata: u64,
    warnings: Vec<String>,
}

impl Writer {
    /// Lines of at most `max_rows` samples each.
    pub fn new(form: Form, max_rows: usize) -> Self {
        let most = if form == Form::Exact { MOST_ROWS } else { usize::MAX };
        let max_rows = max_rows.clamp(1, most);
        Self { form, max_rows, digest: Digest::default(), metadata: 0, warnings: Vec::new() }
    }

    /// Writes a part of an export.
    pub fn write(&mut self, out: &mut Vec<u8>, part: Exported) {
        match part {
            Exported::Samples(series) => {
                series.iter().for_each(|(labels, samples)| self.samples(out, labels, samples));
            }
            Exported::Exemplars(_) | Exported::Metadata(_) if !self.is_exact() => {}
            Exported::Exemplars(series) => {
                for of_series in &series {
                    let id = of_series.series.id();
                    for exemplars in of_series.exemplars.chunks(MOST_EXEMPLARS) {
                        exemplars.iter().for_each(|exemplar| self.digest.exemplar(id, exemplar));
                        begin_line(out, &of_series.series);
                        out.extend_from_slice(br#","exemplars":"#);
                        push_list(out, exemplars, push_exemplar);
                        out.extend_from_slice(b"}\n");
                    }
                }
            }
            Exported::Metadata(entries) => {
                self.metadata += entries.len() as u64;
                entries.iter().for_each(|entry| push_metadata(out, entry));
            }
            Exported::Warning(warning) => self.warnings.push(warning),
        }
    }

    /// Writes the last line of an exact export.
    pub fn end(&self, out: &mut Vec<u8>) {
        if !self.is_exact() {
            return;
        }
        let Digest { samples, histograms, exemplars, .. } = self.digest;
        let (metadata, checksum) = (self.metadata, self.digest.checksum());
        write_to(
            out,
            format_args!(
                r#"{{"end":{{"samples":{samples},"histograms":{histograms},"exemplars":{exemplars},"metadata":{metadata},"checksum":"{checksum}","warnings":"#
            ),
        );
        push_list(out, &self.warnings, |out, warning| push_text(out, warning));
        out.extend_from_slice(b"}}\n");
    }

    fn is_exact(&self) -> bool {
        self.form == Form::Exact
    }

    fn samples(&mut self, out: &mut Vec<u8>, labels: &Labels, samples: &SeriesSamples) {
        let id = labels.id();
        if self.form == Form::Bare {
            return bare(out, labels, samples, self.max_rows);
        }
        let mut from = 0;
        while from < samples.timestamps.len() {
            let to = samples.timestamps.len().min(from.saturating_add(self.max_rows));
            self.floats(out, labels, id, samples, from, to);
            from = to;
        }
        if self.is_exact() {
            for histograms in samples.histograms.chunks(self.max_rows.min(MOST_HISTOGRAMS)) {
                for sample in histograms {
                    self.digest.histogram(id, sample.timestamp, &sample.histogram, sample.start);
                }
                begin_line(out, labels);
                out.extend_from_slice(br#","histograms":"#);
                push_list(out, histograms, push_histogram);
                out.extend_from_slice(b"}\n");
            }
        }
    }

    fn floats(
        &mut self,
        out: &mut Vec<u8>,
        labels: &Labels,
        id: SeriesId,
        samples: &SeriesSamples,
        from: usize,
        to: usize,
    ) {
        let (timestamps, values) = (&samples.timestamps[from..to], &samples.values[from..to]);
        begin_line(out, labels);
        out.extend_from_slice(br#","values":"#);
        push_list(out, values, |out, value| push_float(out, *value));
        out.extend_from_slice(br#","timestamps":"#);
        push_list(out, timestamps, |out, timestamp| push_signed(out, *timestamp));
        if self.is_exact() {
            for (i, (timestamp, value)) in timestamps.iter().zip(values).enumerate() {
                self.digest.sample(id, *timestamp, *value, samples.start(from + i));
            }
            let nans: Vec<_> = values.iter().enumerate().filter(|(_, value)| value.is_nan()).collect();
            if !nans.is_empty() {
                out.extend_from_slice(br#","bits":"#);
                push_list(out, &nans, |out, (i, value)| {
                    write_to(out, format_args!(r#"[{i},"{:016x}"]"#, value.to_bits()));
                });
            }
            let starts = || (from..to).map(|i| samples.start(i));
            if starts().any(|start| start != 0) {
                out.extend_from_slice(br#","starts":["#);
                for (i, start) in starts().enumerate() {
                    push_comma(out, i);
                    push_signed(out, start);
                }
                out.push(b']');
            }
        }
        out.extend_from_slice(b"}\n");
    }
}

/// Writes float samples in [`Form::Bare`].
fn bare(out: &mut Vec<u8>, labels: &Labels, samples: &SeriesSamples, max_rows: usize) {
    let numbers: Vec<(i64, f64)> = samples
        .timestamps
        .iter()
        .zip(&samples.values)
        .filter(|(_, value)| !value.is_nan())
        .map(|(timestamp, value)| (*timestamp, *value))
        .collect();
    for rows in numbers.chunks(max_rows) {
        begin_line(out, labels);
        out.extend_from_slice(br#","values":"#);
        push_list(out, rows, |out, (_, value)| match *value {
            f64::INFINITY => out.extend_from_slice(b"+Inf"),
            f64::NEG_INFINITY => out.extend_from_slice(b"-Inf"),
            value => push_float(out, value),
        });
        out.extend_from_slice(br#","timestamps":"#);
        push_list(out, rows, |out, (timestamp, _)| push_signed(out, *timestamp));
        out.extend_from_slice(b"}\n");
    }
}

fn begin_line(out: &mut Vec<u8>, labels: &Labels) {
    out.extend_from_slice(br#"{"metric":"#);
    push_labels(out, labels);
}

fn push_signed(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    push_integer(out, number.unsigned_abs());
}

/// The shortest text that reads as the same float, or what stands for one in JSON.
fn push_float(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"null");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { br#""Infinity""# } else { br#""-Infinity""# });
    } else {
        let from = out.len();
        write_to(out, format_args!("{value:?}"));
        if out[from..].ends_with(b".0") {
            out.truncate(out.len() - 2);
        }
    }
}

/// The same, where a NaN is its bits.
fn push_exact_float(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        write_to(out, format_args!(r#""0x{:016x}""#, value.to_bits()));
    } else {
        push_float(out, value);
    }
}

fn push_floats(out: &mut Vec<u8>, values: &[f64]) {
    push_list(out, values, |out, value| push_exact_float(out, *value));
}

fn push_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    out.extend_from_slice(br#"{"labels":"#);
    push_labels(out, &exemplar.labels);
    out.extend_from_slice(br#","value":"#);
    push_exact_float(out, exemplar.value);
    write_to(out, format_args!(r#","timestamp":{}}}"#, exemplar.timestamp.millis()));
}

fn push_metadata(out: &mut Vec<u8>, entry: &Metadata) {
    out.extend_from_slice(br#"{"metadata":{"metric":"#);
    push_text(out, &entry.metric);
    write_to(out, format_args!(r#","type":"{}","help":"#, entry.kind));
    push_text(out, &entry.help);
    out.extend_from_slice(br#","unit":"#);
    push_text(out, &entry.unit);
    out.extend_from_slice(b"}}\n");
}

fn push_histogram(out: &mut Vec<u8>, sample: &HistogramSample) {
    let Histogram {
        schema,
        zero_threshold,
        sum,
        reset_hint,
        positive_spans,
        negative_spans,
        counts,
        custom_values,
    } = &*sample.histogram;
    write_to(out, format_args!(r#"{{"timestamp":{}"#, sample.timestamp));
    if sample.start != 0 {
        write_to(out, format_args!(r#","start":{}"#, sample.start));
    }
    write_to(out, format_args!(r#","schema":{schema},"zero_threshold":"#));
    push_exact_float(out, *zero_threshold);
    out.extend_from_slice(br#","sum":"#);
    push_exact_float(out, *sum);
    let hint = match reset_hint {
        ResetHint::Unknown => "unknown",
        ResetHint::Yes => "yes",
        ResetHint::No => "no",
        ResetHint::Gauge => "gauge",
    };
    write_to(out, format_args!(r#","reset_hint":"{hint}""#));
    for (name, spans) in [("positive_spans", positive_spans), ("negative_spans", negative_spans)] {
        write_to(out, format_args!(r#","{name}":"#));
        push_list(out, spans, |out, Span { offset, length }| {
            write_to(out, format_args!("[{offset},{length}]"));
        });
    }
    match counts {
        Counts::Integer { count, zero_count, positive, negative } => {
            write_to(
                out,
                format_args!(r#","integer":{{"count":{count},"zero_count":{zero_count},"positive":"#),
            );
            push_list(out, positive, |out, delta| push_signed(out, *delta));
            out.extend_from_slice(br#","negative":"#);
            push_list(out, negative, |out, delta| push_signed(out, *delta));
        }
        Counts::Float { count, zero_count, positive, negative } => {
            out.extend_from_slice(br#","float":{"count":"#);
            push_exact_float(out, *count);
            out.extend_from_slice(br#","zero_count":"#);
            push_exact_float(out, *zero_count);
            out.extend_from_slice(br#","positive":"#);
            push_floats(out, positive);
            out.extend_from_slice(br#","negative":"#);
            push_floats(out, negative);
        }
    }
    out.push(b'}');
    if !custom_values.is_empty() {
        out.extend_from_slice(br#","custom_values":"#);
        push_floats(out, custom_values);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float(value: f64) -> String {
        let mut out = Vec::new();
        push_float(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_float_is_the_shortest_text_that_reads_as_it() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (1e308, "1e308"),
            (5e-324, "5e-324"),
            (-12345.5, "-12345.5"),
            (1e16, "1e16"),
            (f64::INFINITY, "\"Infinity\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
            (f64::NAN, "null"),
        ] {
            assert_eq!(float(value), text);
            if let Ok(read) = text.parse::<f64>() {
                assert_eq!(read.to_bits(), value.to_bits());
            }
        }
    }

    #[test]
    fn the_plain_form_is_what_victoriametrics_exports() {
        let labels = Labels::from_pairs([("__name__", "a"), ("l", "\"\u{e9}\n")]).unwrap();
        let mut samples = SeriesSamples::default();
        samples.push(1000, 1.5, 7);
        samples.push(2000, crate::model::stale_nan(), 7);
        samples.push(-3, f64::INFINITY, 0);
        let (mut writer, mut out) = (Writer::new(Form::Plain, 2), Vec::new());
        writer.write(&mut out, Exported::Samples(vec![(labels, samples)]));
        writer.end(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"{"metric":{"__name__":"a","l":"\"é\n"},"values":[1.5,null],"timestamps":[1000,2000]}"#,
                "\n",
                r#"{"metric":{"__name__":"a","l":"\"é\n"},"values":["Infinity"],"timestamps":[-3]}"#,
                "\n"
            )
        );
    }
}
