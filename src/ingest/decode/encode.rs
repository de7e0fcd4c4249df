//! Writes remote write requests, for tests.

use crate::model::{
    Histogram, Metadata,
    histogram::{Counts, Span},
};

/// Writes protobuf.
#[derive(Clone, Debug, Default)]
pub(crate) struct Encoder(pub(crate) Vec<u8>);

impl Encoder {
    pub(crate) fn number(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(low_byte(value) | 0x80);
            value >>= 7;
        }
        self.0.push(low_byte(value));
        self
    }

    pub(crate) fn varint(&mut self, field: u32, value: u64) -> &mut Self {
        self.number(u64::from(field) << 3).number(value)
    }

    pub(crate) fn int64(&mut self, field: u32, value: i64) -> &mut Self {
        self.varint(field, value.cast_unsigned())
    }

    pub(crate) fn sint(&mut self, field: u32, value: i64) -> &mut Self {
        self.varint(field, zigzag(value))
    }

    pub(crate) fn double(&mut self, field: u32, value: f64) -> &mut Self {
        self.number(u64::from(field) << 3 | 1);
        self.0.extend_from_slice(&value.to_bits().to_le_bytes());
        self
    }

    pub(crate) fn bytes(&mut self, field: u32, value: &[u8]) -> &mut Self {
        self.number(u64::from(field) << 3 | 2).number(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub(crate) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0)
    }

    pub(crate) fn packed(&mut self, field: u32, values: impl IntoIterator<Item = u64>) -> &mut Self {
        self.message(field, |inner| {
            for value in values {
                inner.number(value);
            }
        })
    }

    fn doubles(&mut self, field: u32, values: &[f64]) -> &mut Self {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_bits().to_le_bytes()).collect();
        self.bytes(field, &bytes)
    }
}

fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Labels as a test writes them down.
pub(crate) type Pairs = Vec<(String, String)>;

/// A series as a test writes it down.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    pub(crate) labels: Pairs,
    /// Time, value, start.
    pub(crate) samples: Vec<(i64, f64, i64)>,
    /// Time, histogram, start.
    pub(crate) histograms: Vec<(i64, Histogram, i64)>,
    /// Labels, value, time.
    pub(crate) exemplars: Vec<(Pairs, f64, i64)>,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) created: i64,
}

impl Series {
    pub(crate) fn new(labels: &[(&str, &str)]) -> Self {
        Self { labels: owned(labels), ..Self::default() }
    }

    pub(crate) fn sample(mut self, timestamp: i64, value: f64) -> Self {
        self.samples.push((timestamp, value, 0));
        self
    }

    pub(crate) fn histogram(mut self, timestamp: i64, histogram: Histogram) -> Self {
        self.histograms.push((timestamp, histogram, 0));
        self
    }

    pub(crate) fn exemplar(mut self, labels: &[(&str, &str)], value: f64, timestamp: i64) -> Self {
        self.exemplars.push((owned(labels), value, timestamp));
        self
    }
}

pub(crate) fn owned(labels: &[(&str, &str)]) -> Pairs {
    labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

/// Writes a 1.0 request.
pub(crate) fn write_request(series: &[Series], metadata: &[Metadata]) -> Vec<u8> {
    let mut request = Encoder::default();
    for one in series {
        request.message(1, |message| {
            for (name, value) in &one.labels {
                label(message, name, value);
            }
            for (timestamp, value, _) in &one.samples {
                message.message(2, |m| {
                    m.double(1, *value).int64(2, *timestamp);
                });
            }
            for (labels, value, timestamp) in &one.exemplars {
                message.message(3, |m| {
                    labels.iter().for_each(|(name, value)| label(m, name, value));
                    m.double(2, *value).int64(3, *timestamp);
                });
            }
            for (timestamp, histogram, _) in &one.histograms {
                message.message(4, |m| write_histogram(m, histogram, *timestamp, 0));
            }
        });
    }
    for entry in metadata {
        request.message(3, |m| {
            m.varint(1, entry.kind as u64);
            m.bytes(2, entry.metric.as_bytes());
            m.bytes(4, entry.help.as_bytes()).bytes(5, entry.unit.as_bytes());
        });
    }
    request.0
}

pub(crate) fn label(message: &mut Encoder, name: &str, value: &str) {
    message.message(1, |m| {
        m.bytes(1, name.as_bytes()).bytes(2, value.as_bytes());
    });
}

/// Writes a 2.0 request.
pub(crate) fn write_request2(series: &[Series]) -> Vec<u8> {
    let mut symbols: Vec<String> = vec![String::new()];
    let mut symbol = |text: &str| {
        let at = symbols.iter().position(|s| s == text).unwrap_or_else(|| {
            symbols.push(text.to_owned());
            symbols.len() - 1
        });
        at as u64
    };
    let mut body = Encoder::default();
    for one in series {
        let refs: Vec<u64> = one.labels.iter().flat_map(|(n, v)| [symbol(n), symbol(v)]).collect();
        body.message(5, |message| {
            message.packed(1, refs);
            for (timestamp, value, start) in &one.samples {
                message.message(2, |m| {
                    m.double(1, *value).int64(2, *timestamp);
                    if *start != 0 {
                        m.int64(3, *start);
                    }
                });
            }
            for (timestamp, histogram, start) in &one.histograms {
                message.message(3, |m| write_histogram(m, histogram, *timestamp, *start));
            }
            for (labels, value, timestamp) in &one.exemplars {
                let refs: Vec<u64> = labels.iter().flat_map(|(n, v)| [symbol(n), symbol(v)]).collect();
                message.message(4, |m| {
                    m.packed(1, refs).double(2, *value).int64(3, *timestamp);
                });
            }
            if let Some(metadata) = &one.metadata {
                let (help, unit) = (symbol(&metadata.help), symbol(&metadata.unit));
                message.message(5, |m| {
                    m.varint(1, metadata.kind as u64).varint(3, help).varint(4, unit);
                });
            }
            if one.created != 0 {
                message.int64(6, one.created);
            }
        });
    }
    let mut request = Encoder::default();
    for symbol in &symbols {
        request.bytes(4, symbol.as_bytes());
    }
    request.0.extend_from_slice(&body.0);
    request.0
}

/// Writes the histogram message, which both versions share.
pub(crate) fn write_histogram(m: &mut Encoder, histogram: &Histogram, timestamp: i64, start: i64) {
    let spans = |m: &mut Encoder, field, spans: &[Span]| {
        for span in spans {
            m.message(field, |m| {
                m.sint(1, i64::from(span.offset)).varint(2, u64::from(span.length));
            });
        }
    };
    match &histogram.counts {
        Counts::Integer { count, zero_count, positive, negative } => {
            m.varint(1, *count).varint(6, *zero_count);
            m.packed(9, negative.iter().map(|n| zigzag(*n)));
            m.packed(12, positive.iter().map(|n| zigzag(*n)));
        }
        Counts::Float { count, zero_count, positive, negative } => {
            m.double(2, *count).double(7, *zero_count).doubles(10, negative).doubles(13, positive);
        }
    }
    m.double(3, histogram.sum).sint(4, i64::from(histogram.schema)).double(5, histogram.zero_threshold);
    spans(m, 8, &histogram.negative_spans);
    spans(m, 11, &histogram.positive_spans);
    m.varint(14, histogram.reset_hint as u64).int64(15, timestamp).doubles(16, &histogram.custom_values);
    if start != 0 {
        m.int64(17, start);
    }
}

/// Compresses a request as senders do.
pub(crate) fn compress(plain: &[u8]) -> bytes::Bytes {
    snap::raw::Encoder::new().compress_vec(plain).unwrap().into()
}
