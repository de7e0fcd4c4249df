//! Remote read: what is asked, and what is answered, all at once or as a stream of chunks.
//!
//! The messages are drawn in `schema/proto/remote_read.proto`. Bounds come before work: the size that a body declares
//! before it is decompressed, and the number of fields, which take more memory than bytes, before they are read.

use bytes::Bytes;
use prost::Message as _;

use super::chunk::{self, Chunk, Damaged, Encoding};
use crate::{
    ingest::{DecodeError, HistogramMessage, decode::wire::Message},
    model::{Labels, MatchOp, Matcher, regex::RegexError},
    storage::{HistogramSample, SeriesSamples},
};

/// What a whole answer calls itself.
pub const CONTENT_TYPE: &str = "application/x-protobuf";

/// What kind of thing a stream is.
pub const STREAM: &str = "application/x-streamed-protobuf";

/// What it calls itself.
pub const STREAM_CONTENT_TYPE: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

/// The most bytes of a request, compressed or not.
pub const MAX_REQUEST_BYTES: usize = 32 * 1024 * 1024;

/// The most fields of a request: queries, their matchers, and what is in their hints.
const MAX_FIELDS: usize = 10_000;

/// About the most bytes of a frame: a chunk that is larger on its own still goes out.
const MAX_FRAME_BYTES: usize = 1024 * 1024;

/// A request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadRequest {
    /// What is asked.
    #[prost(message, repeated, tag = "1")]
    pub queries: Vec<Query>,
    /// How it may be answered, what is liked best first.
    #[prost(int32, repeated, tag = "2")]
    pub accepted_response_types: Vec<i32>,
}

/// A question.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Query {
    /// Since when, in milliseconds.
    #[prost(int64, tag = "1")]
    pub start_timestamp_ms: i64,
    /// Until when, this included.
    #[prost(int64, tag = "2")]
    pub end_timestamp_ms: i64,
    /// All must match.
    #[prost(message, repeated, tag = "3")]
    pub matchers: Vec<LabelMatcher>,
    /// What the samples are for.
    #[prost(message, optional, tag = "4")]
    pub hints: Option<ReadHints>,
}

/// A condition on a label.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LabelMatcher {
    /// 0 is `=`, 1 `!=`, 2 `=~`, 3 `!~`.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// The label.
    #[prost(string, tag = "2")]
    pub name: String,
    /// What it is compared with.
    #[prost(string, tag = "3")]
    pub value: String,
}

/// What the samples are for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadHints {
    /// The step of the query.
    #[prost(int64, tag = "1")]
    pub step_ms: i64,
    /// The function or aggregation around the selector.
    #[prost(string, tag = "2")]
    pub func: String,
    /// What of the range is needed.
    #[prost(int64, tag = "3")]
    pub start_ms: i64,
    /// Until when.
    #[prost(int64, tag = "4")]
    pub end_ms: i64,
    /// The labels of the aggregation.
    #[prost(string, repeated, tag = "5")]
    pub grouping: Vec<String>,
    /// Whether these are kept, or dropped.
    #[prost(bool, tag = "6")]
    pub by: bool,
    /// The range of the selector.
    #[prost(int64, tag = "7")]
    pub range_ms: i64,
}

/// An answer that is whole.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadResponse {
    /// In the order of the queries.
    #[prost(message, repeated, tag = "1")]
    pub results: Vec<QueryResult>,
}

/// The answer to a question.
#[derive(Clone, PartialEq, prost::Message)]
pub struct QueryResult {
    /// Sorted by labels.
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
}

/// A series and its samples.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TimeSeries {
    /// Sorted by name.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// Its floats, in order of time.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    /// Its histograms, in order of time.
    #[prost(message, repeated, tag = "4")]
    pub histograms: Vec<HistogramMessage>,
}

/// A label.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Label {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A float.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Sample {
    /// What.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// When, in milliseconds.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

/// A frame of a stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChunkedReadResponse {
    /// One series or a part of it.
    #[prost(message, repeated, tag = "1")]
    pub chunked_series: Vec<ChunkedSeries>,
    /// Which query it answers, from 0.
    #[prost(int64, tag = "2")]
    pub query_index: i64,
}

/// A series and chunks of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChunkedSeries {
    /// Sorted by name.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// In order of time.
    #[prost(message, repeated, tag = "2")]
    pub chunks: Vec<ChunkMessage>,
}

/// A chunk.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChunkMessage {
    /// The time of its first sample.
    #[prost(int64, tag = "1")]
    pub min_time_ms: i64,
    /// The time of its last.
    #[prost(int64, tag = "2")]
    pub max_time_ms: i64,
    /// The number of an [`Encoding`].
    #[prost(int32, tag = "3")]
    pub encoding: i32,
    /// Its bytes.
    #[prost(bytes = "bytes", tag = "4")]
    pub data: Bytes,
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseType {
    /// A [`ReadResponse`].
    Samples,
    /// Frames of [`ChunkedReadResponse`].
    Chunks,
}

/// A request that is not answered.
#[derive(Debug, thiserror::Error)]
pub enum ReadRequestError {
    /// It is too large to look at.
    #[error("the request has more than {limit} {what}")]
    TooLarge {
        /// Too many of these.
        what: &'static str,
        /// So many may be.
        limit: usize,
    },
    /// The bytes are not a request.
    #[error(transparent)]
    Bytes(#[from] DecodeError),
    /// The message is none.
    #[error("protobuf: {0}")]
    Message(#[from] prost::DecodeError),
    /// There is no such condition.
    #[error("invalid matcher type")]
    MatcherType,
    /// A condition cannot be looked for.
    #[error(transparent)]
    Regex(#[from] RegexError),
    /// None of what is accepted is known here.
    #[error(
        "server does not support any of the requested response types: {0:?}; supported: SAMPLES, STREAMED_XOR_CHUNKS"
    )]
    ResponseType(Vec<i32>),
}

impl ReadRequest {
    /// Reads a body.
    pub fn read(body: &[u8]) -> Result<Self, ReadRequestError> {
        let snappy = |error: snap::Error| DecodeError::Snappy(error.to_string());
        let declared = match body {
            [] => return Err(DecodeError::Snappy("the body is empty".to_owned()).into()),
            body => snap::raw::decompress_len(body).map_err(snappy)?,
        };
        if declared > MAX_REQUEST_BYTES {
            return Err(ReadRequestError::TooLarge { what: "bytes", limit: MAX_REQUEST_BYTES });
        }
        // Snappy's densest element makes 64 bytes of 3.
        if declared / 32 > body.len() {
            return Err(DecodeError::Lying { compressed: body.len(), declared }.into());
        }
        let plain = snap::raw::Decoder::new().decompress_vec(body).map_err(snappy)?;
        let mut left = MAX_FIELDS;
        count_fields(Message::new(&plain, 0), &[1, 4], &mut left)?;
        Ok(Self::decode(&plain[..])?)
    }

    /// How it is to be answered: as it likes best of what we know.
    pub fn response_type(&self) -> Result<ResponseType, ReadRequestError> {
        if self.accepted_response_types.is_empty() {
            return Ok(ResponseType::Samples);
        }
        let known = self.accepted_response_types.iter().find_map(|number| match number {
            0 => Some(ResponseType::Samples),
            1 => Some(ResponseType::Chunks),
            _ => None,
        });
        known.ok_or_else(|| ReadRequestError::ResponseType(self.accepted_response_types.clone()))
    }
}

/// Counts the fields of a message, and those of its messages, of which the first number in `inner` is looked into, and
/// so on; also the numbers of a packed field.
fn count_fields(mut message: Message<'_>, inner: &[u32], left: &mut usize) -> Result<(), ReadRequestError> {
    let too_many = || ReadRequestError::TooLarge { what: "fields", limit: MAX_FIELDS };
    while let Some(field) = message.next()? {
        *left = left.checked_sub(1).ok_or_else(too_many)?;
        match (inner.split_first(), field.message()) {
            (Some((number, deeper)), Ok(message)) if field.number == *number => {
                count_fields(message, deeper, left)?;
            }
            (Some((1, _)), Ok(packed)) if field.number == 2 => {
                *left = left.checked_sub(packed.bytes().len()).ok_or_else(too_many)?;
            }
            _ => {}
        }
    }
    Ok(())
}

impl Query {
    /// Its conditions.
    pub fn matchers(&self) -> Result<Vec<Matcher>, ReadRequestError> {
        let matcher = |LabelMatcher { kind, name, value }: &LabelMatcher| {
            let op = match kind {
                0 => MatchOp::Equal,
                1 => MatchOp::NotEqual,
                2 => MatchOp::Matches,
                3 => MatchOp::NotMatches,
                _ => return Err(ReadRequestError::MatcherType),
            };
            Ok(Matcher::new(op, name, value)?)
        };
        self.matchers.iter().map(matcher).collect()
    }
}

/// A whole answer that is written as its samples come.
#[derive(Debug, Default)]
pub struct ResponseWriter {
    /// Of each query the fields of its result.
    results: Vec<Vec<u8>>,
}

impl ResponseWriter {
    /// An answer to so many queries.
    pub fn new(queries: usize) -> Self {
        Self { results: vec![Vec::new(); queries] }
    }

    /// Adds a series to the answer to a query.
    pub fn add(&mut self, query: usize, labels: &Labels, samples: &SeriesSamples) {
        let Some(result) = self.results.get_mut(query) else { return };
        let floats = samples.timestamps.iter().zip(&samples.values);
        let histograms = samples.histograms.iter();
        let series = TimeSeries {
            labels: label_messages(labels),
            samples: floats
                .map(|(timestamp, value)| Sample { value: *value, timestamp: *timestamp })
                .collect(),
            histograms: histograms
                .map(|HistogramSample { timestamp, start, histogram }| {
                    HistogramMessage::new(histogram, *timestamp, *start)
                })
                .collect(),
        };
        prost::encoding::message::encode(1, &series, result);
    }

    /// The answer, compressed.
    pub fn finish(self) -> Result<Vec<u8>, snap::Error> {
        let mut plain = Vec::with_capacity(self.results.iter().map(|result| result.len() + 11).sum());
        for result in self.results {
            prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut plain);
            prost::encoding::encode_varint(result.len() as u64, &mut plain);
            plain.extend_from_slice(&result);
        }
        snap::raw::Encoder::new().compress_vec(&plain)
    }
}

impl ReadResponse {
    /// Reads a whole answer, as those do who ask us.
    pub fn read(body: &[u8]) -> Result<Self, ReadRequestError> {
        let plain = snap::raw::Decoder::new().decompress_vec(body);
        let plain = plain.map_err(|error| DecodeError::Snappy(error.to_string()))?;
        Ok(Self::decode(&plain[..])?)
    }
}

/// Writes the frames of a series.
pub fn write_frames(query: usize, labels: &Labels, samples: &SeriesSamples, into: &mut Vec<u8>) {
    let labels = label_messages(labels);
    let of_labels: usize = labels.iter().map(|label| label.encoded_len() + 8).sum();
    let mut chunks = Vec::new();
    let mut size = of_labels;
    let query_index = i64::try_from(query).unwrap_or(i64::MAX);
    let mut frame = |chunks: Vec<ChunkMessage>| {
        let series = ChunkedSeries { labels: labels.clone(), chunks };
        write_frame(&ChunkedReadResponse { chunked_series: vec![series], query_index }, into);
    };
    for Chunk { encoding, min_time, max_time, bytes } in chunk::encode(samples) {
        let message = ChunkMessage {
            min_time_ms: min_time,
            max_time_ms: max_time,
            encoding: encoding as i32,
            data: bytes.into(),
        };
        let more = message.encoded_len() + 8;
        if size + more > MAX_FRAME_BYTES && !chunks.is_empty() {
            frame(std::mem::take(&mut chunks));
            size = of_labels;
        }
        size += more;
        chunks.push(message);
    }
    if !chunks.is_empty() {
        frame(chunks);
    }
}

fn write_frame(message: &ChunkedReadResponse, into: &mut Vec<u8>) {
    let bytes = message.encode_to_vec();
    prost::encoding::encode_varint(bytes.len() as u64, into);
    into.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
    into.extend_from_slice(&bytes);
}

fn label_messages(labels: &Labels) -> Vec<Label> {
    labels.iter().map(|(name, value)| Label { name: name.to_owned(), value: value.to_owned() }).collect()
}

/// Bytes that are no stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// They end within a frame, or a frame is not what it says.
    #[error("the frame at byte {offset} is damaged")]
    Frame {
        /// Where.
        offset: usize,
    },
    /// A message is none.
    #[error("protobuf: {0}")]
    Message(#[from] prost::DecodeError),
    /// There is no such chunk.
    #[error("the encoding {0} of a chunk is not known")]
    Encoding(i32),
    /// A chunk is none.
    #[error(transparent)]
    Chunk(#[from] Damaged),
}

/// Reads the frames of a stream, as those do who ask us.
pub fn read_frames(stream: &[u8]) -> Result<Vec<ChunkedReadResponse>, StreamError> {
    let mut frames = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let damaged = || StreamError::Frame { offset: stream.len() - rest.len() };
        let mut after = rest;
        let length = prost::encoding::decode_varint(&mut after).map_err(|_| damaged())?;
        let length = usize::try_from(length).map_err(|_| damaged())?;
        let (checksum, after) = after.split_first_chunk::<4>().ok_or_else(damaged)?;
        let (message, after) = after.split_at_checked(length).ok_or_else(damaged)?;
        if crc32c::crc32c(message) != u32::from_be_bytes(*checksum) {
            return Err(damaged());
        }
        frames.push(ChunkedReadResponse::decode(message)?);
        rest = after;
    }
    Ok(frames)
}

impl ChunkedSeries {
    /// The samples of its chunks.
    pub fn samples(&self) -> Result<SeriesSamples, StreamError> {
        let mut samples = SeriesSamples::default();
        for chunk in &self.chunks {
            let encoding =
                Encoding::of_number(chunk.encoding).ok_or(StreamError::Encoding(chunk.encoding))?;
            chunk::decode(encoding, &chunk.data, &mut samples)?;
        }
        Ok(samples)
    }
}
