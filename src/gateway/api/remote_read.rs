//! `/api/v1/read`: samples of whole series, for a Prometheus or another that computes itself.
//!
//! An answer of samples is held until it is whole, and what is wrong is known before it begins. A stream of chunks is
//! written as it is read; what fails later breaks it off, which a reader notices, for frames have lengths.

use axum::{
    body::Body,
    extract::{Request, State},
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

use super::{Shared, asker::Asker};
use crate::{
    gateway::{
        body::{self, BodyLimits},
        error::{ApiError, ErrorKind, with_sources},
        wire::remote_read::{
            self, MAX_REQUEST_BYTES, ReadRequest, ReadRequestError, ResponseType, ResponseWriter,
        },
    },
    model::{TimeRange, Timestamp},
    query::{ReadPart, ReadQuery, Reader, RemoteRead},
};

/// Answers a remote read.
pub async fn read(
    State(state): Shared,
    reader: Reader,
    asker: Asker,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let limits = state.config.write_body;
    let limits = BodyLimits { max_bytes: limits.max_bytes.min(MAX_REQUEST_BYTES), ..limits };
    let body = body::read(body, &parts.extensions, limits).await?;
    let request = ReadRequest::read(&body.bytes)?;
    drop(body);
    let response_type = request.response_type()?;
    let queries = queries(&request, state.query.limits().max_query_bytes)?;
    match response_type {
        ResponseType::Samples => {
            let count = queries.len();
            let read = state.query.remote_read(&reader, queries, &asker.origin).await?;
            let answer = samples(count, read).await?;
            let headers =
                [(header::CONTENT_TYPE, remote_read::CONTENT_TYPE), (header::CONTENT_ENCODING, "snappy")];
            Ok((headers, answer).into_response())
        }
        ResponseType::Chunks => {
            let read = state.query.remote_read_stream(&reader, queries, &asker.origin).await?;
            let body = frames(read).await?;
            Ok(([(header::CONTENT_TYPE, remote_read::STREAM_CONTENT_TYPE)], body).into_response())
        }
    }
}

fn queries(request: &ReadRequest, max_bytes: usize) -> Result<Vec<ReadQuery>, ApiError> {
    // Of all queries together, as of a query's text: a regex takes much more when it is compiled.
    let matchers = request.queries.iter().flat_map(|query| &query.matchers);
    let bytes: usize = matchers.map(|matcher| matcher.name.len() + matcher.value.len()).sum();
    if bytes > max_bytes {
        let why = format!("the matchers are {bytes} bytes long, the limit is {max_bytes}");
        return Err(ApiError::bad_data(why));
    }
    let query = |query: &remote_read::Query| {
        let (start, end) = (Timestamp(query.start_timestamp_ms), Timestamp(query.end_timestamp_ms));
        Ok(ReadQuery { matchers: query.matchers()?, range: TimeRange::new(start, end) })
    };
    request.queries.iter().map(query).collect()
}

async fn samples(queries: usize, mut read: RemoteRead) -> Result<Bytes, ApiError> {
    let mut answer = ResponseWriter::new(queries);
    while let Some(part) = read.recv().await {
        let ReadPart { query, series } = part?;
        answer = off_the_io_threads(move || {
            series.iter().for_each(|(labels, samples)| answer.add(query, labels, samples));
            answer
        })
        .await?;
    }
    let compressed = off_the_io_threads(move || answer.finish()).await?;
    compressed.map(Bytes::from).map_err(|error| ApiError::internal(format!("compressing an answer: {error}")))
}

/// The frames of what is read; what fails before the first of them fails properly.
async fn frames(mut read: RemoteRead) -> Result<Body, ApiError> {
    let first = next_frames(&mut read).await?;
    let rest = stream::unfold((first, Some(read)), async |(ahead, read)| {
        if let Some(frames) = ahead {
            return Some((Ok(frames), (None, read)));
        }
        let mut read = read?;
        match next_frames(&mut read).await {
            Ok(frames) => frames.map(|frames| (Ok(frames), (None, Some(read)))),
            Err(error) => Some((Err(std::io::Error::other(error.message().to_owned())), (None, None))),
        }
    });
    // Who asks once more after the end is told the same.
    Ok(Body::from_stream(rest.fuse()))
}

/// The frames of the next part; none after the last.
async fn next_frames(read: &mut RemoteRead) -> Result<Option<Bytes>, ApiError> {
    let Some(part) = read.recv().await else { return Ok(None) };
    let ReadPart { query, series } = part.inspect_err(|failure| {
        tracing::warn!(event = "remote_read_failed", cause = with_sources(failure));
    })?;
    let frames = off_the_io_threads(move || {
        let mut frames = Vec::new();
        for (labels, samples) in &series {
            remote_read::write_frames(query, labels, samples, &mut frames);
        }
        frames
    });
    Ok(Some(frames.await?.into()))
}

async fn off_the_io_threads<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::internal(format!("writing the answer: {error}")))
}

impl From<ReadRequestError> for ApiError {
    fn from(error: ReadRequestError) -> Self {
        match error {
            ReadRequestError::TooLarge { .. } => Self::new(ErrorKind::TooLarge, error.to_string()),
            ReadRequestError::Bytes(_)
            | ReadRequestError::Message(_)
            | ReadRequestError::MatcherType
            | ReadRequestError::Regex(_)
            | ReadRequestError::ResponseType(_) => Self::bad_data(error.to_string()),
        }
    }
}
