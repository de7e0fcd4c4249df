//! `/api/v1/export`: samples out as lines of JSON, and `/api/v1/export/plan`: how to do it piece by piece.
//!
//! | parameter | meaning |
//! |---|---|
//! | `match[]` | selectors, at least one |
//! | `start`, `end` | the range, both ends included; without them all of time |
//! | `max_rows_per_line` | the most samples in a line |
//! | `exact=1` | also what other readers do not know, and a last line that tells the export is whole |
//! | `bare=1` | infinities as `+Inf` and no NaN, as VictoriaMetrics up to 1.79 wants it |
//! | `shard=1/4` | the first of four parts of the series |
//! | `summary=1` | of an exact export only its last line |
//! | `slice` | of a plan: about how long its slices are, a day if not given |
//!
//! `reduce_mem_usage` is taken for VictoriaMetrics' clients' sake; an export never holds much.
//!
//! What fails before the first line is an error with its status. What fails later breaks the answer
//! off, and an exact export has no last line then.

use axum::{
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

use super::{Shared, respond};
use crate::{
    gateway::{
        error::{ApiError, with_sources},
        form::Form,
        wire::{
            json,
            json_lines::{self, Writer},
        },
    },
    model::Millis,
    query::{Export, ExportQuery, Reader, Shard},
};

/// Sends everything that is selected.
pub async fn export(State(state): Shared, reader: Reader, form: Form) -> Result<Response, ApiError> {
    let (exact, summary) = (flag(&form, "exact")?, flag(&form, "summary")?);
    let bare = flag(&form, "bare")?;
    flag(&form, "reduce_mem_usage")?;
    let lines = match (exact || summary, bare) {
        (true, true) => return Err(ApiError::parameter("bare", "an exact export cannot be bare")),
        (true, false) => json_lines::Form::Exact,
        (false, true) => json_lines::Form::Bare,
        (false, false) => json_lines::Form::Plain,
    };
    let max_rows = match form.count("max_rows_per_line")? {
        Some(rows) => usize::try_from(rows)
            .map_err(|_| ApiError::parameter("max_rows_per_line", "it must not be negative"))?,
        None => 0,
    };
    let max_rows = if max_rows == 0 { usize::MAX } else { max_rows };
    let mut query = export_query(&form)?;
    query.everything = exact || summary;
    let export = state.query.export(&reader, query).await?;
    let mut lines = Lines { export: Some(export), writer: Writer::new(lines, max_rows), summary };
    // The first piece comes before the status, so that what fails at once fails properly.
    let first = lines.next().await?;
    let rest = stream::unfold((first, lines), async |(ahead, mut lines)| {
        let piece = match ahead {
            Some(piece) => Ok(Some(piece)),
            None => lines.next().await,
        };
        match piece {
            Ok(piece) => piece.map(|piece| (Ok(piece), (None, lines))),
            Err(error) => {
                lines.export = None;
                Some((Err(std::io::Error::other(error.message().to_owned())), (None, lines)))
            }
        }
    });
    // What compresses it asks once more after its end.
    let rest = rest.fuse();
    Ok(([(header::CONTENT_TYPE, json_lines::CONTENT_TYPE)], Body::from_stream(rest)).into_response())
}

/// Answers the slices of time in which to export a selection piece by piece.
pub async fn plan(State(state): Shared, reader: Reader, form: Form) -> Result<Response, ApiError> {
    let length = form.duration("slice")?.unwrap_or(Millis::DAY);
    if length.millis() <= 0 {
        return Err(ApiError::parameter("slice", "it must be above zero"));
    }
    let slices = state.query.export_plan(&reader, &export_query(&form)?, length).await?;
    let slices: Vec<_> = slices.iter().map(|slice| [slice.start().millis(), slice.end().millis()]).collect();
    Ok(respond(json::document(&serde_json::json!({ "slices": slices }))))
}

/// The lines of an export, a piece at a time.
#[derive(Debug)]
struct Lines {
    export: Option<Export>,
    writer: Writer,
    summary: bool,
}

impl Lines {
    /// The next lines; none after the last.
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let Some(export) = &mut self.export else { return Ok(None) };
            let mut lines = Vec::new();
            match export.recv().await {
                Some(part) => {
                    let part = part.inspect_err(|failure| {
                        tracing::warn!(event = "export_failed", cause = with_sources(failure));
                    })?;
                    self.writer.write(&mut lines, part);
                    if self.summary {
                        lines.clear();
                    }
                }
                None => {
                    self.export = None;
                    self.writer.end(&mut lines);
                }
            }
            if !lines.is_empty() {
                return Ok(Some(lines.into()));
            }
        }
    }
}

fn export_query(form: &Form) -> Result<ExportQuery, ApiError> {
    let shard = form.get("shard").map(|text| {
        Shard::parse(text).ok_or_else(|| {
            ApiError::parameter("shard", format!("{text:?} is not a shard, write for example 1/4"))
        })
    });
    Ok(ExportQuery {
        selectors: form.all("match[]"),
        start: form.time("start")?,
        end: form.time("end")?,
        shard: shard.transpose()?,
        everything: false,
    })
}

fn flag(form: &Form, name: &str) -> Result<bool, ApiError> {
    match form.get(name) {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(other) => Err(ApiError::parameter(name, format!("{other:?} is neither 0 nor 1"))),
    }
}
