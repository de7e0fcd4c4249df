//! `luminate export`: what a server holds, as lines of JSON, in pieces that can be taken up again.
//!
//! The server is asked for a plan once, and for piece after piece. Into a file each piece is written, made
//! durable and noted; into a pipe the importing end notes it ([`moving`](super::moving) says how).

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;

use super::{
    CommandError,
    client::ServerFlags,
    moving::{
        Begin, DONE, End, Marker, Piece,
        connection::{Connection, Patience, Trouble, next, words},
        progress::Progress,
        state::{Plan, State},
    },
    time::{as_seconds, parse_instant, parse_span},
};
use crate::{
    clock::{Clock, SystemClock},
    config::value::parse_duration,
    model::Timestamp,
};

/// Every series, since every one has a name.
const ALL: &str = "{__name__!=\"\"}";

/// What to export, and where to.
#[derive(Clone, Debug, Args)]
pub struct ExportFlags {
    /// A selector of the series; may be repeated [default: all series].
    #[arg(long = "match", value_name = "SELECTOR")]
    selectors: Vec<String>,
    /// The earliest samples: now, -1h, Unix seconds or RFC 3339 [default: since ever].
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    start: Option<String>,
    /// The latest samples [default: all there are].
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    end: Option<String>,
    /// Where to write; - is standard output.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Only what every reader of VictoriaMetrics' lines understands: floats, without the bits of NaN.
    #[arg(long)]
    plain: bool,
    /// About how much time a piece covers.
    #[arg(long, value_name = "DURATION", default_value = "1d")]
    slice: String,
    /// Cut each slice of time into so many parts of the series.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    parts: u16,
    /// Remember what is done in this file, and go on from there if it exists. In a pipe, give
    /// `luminate import` the same.
    #[arg(long, value_name = "STATE", conflicts_with = "plain")]
    resume: Option<PathBuf>,
    /// How long to try again when the server cannot be reached or is busy.
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    patience: String,
    /// Say nothing unless it fails.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    server: ServerFlags,
}

/// Exports.
pub fn run(flags: &ExportFlags) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CommandError::Failed(format!("cannot start the runtime: {e}")))?;
    runtime.block_on(export(flags, SystemClock::start()))
}

async fn export(flags: &ExportFlags, clock: Arc<dyn Clock>) -> Result<(), CommandError> {
    let patience = parse_duration(&flags.patience).map_err(CommandError::Usage)?;
    let mut exporter = Exporter {
        server: Connection::new(&flags.server)?,
        patience: Patience::new(Arc::clone(&clock), patience),
        plain: flags.plain,
    };
    let range = range(flags, clock.now()).map_err(CommandError::Usage)?;
    let mut plan = wanted(flags);
    let length = parse_span(&flags.slice).map_err(CommandError::Usage)?.millis();

    let mut state = match &flags.resume {
        Some(path) => State::load(path)?.unwrap_or_default(),
        None => State::default(),
    };
    if let Some(known) = &state.plan {
        if !known.same_data(&plan) {
            let path = flags.resume.as_deref().unwrap_or(Path::new("")).display();
            return Err(CommandError::Usage(format!("{path}: is the state of another export")));
        }
        plan = known.clone();
    } else {
        plan.pieces = exporter.pieces(&plan.selectors, range, length, flags).await?;
        state.plan = Some(plan.clone());
        if let Some(path) = &flags.resume {
            state.store(path)?;
        }
    }

    let mut output = Output::open(&flags.output, flags.resume.is_some().then_some(state.offset))?;
    let mut progress = Progress::start(clock, flags.quiet, state.done.len(), Some(plan.pieces.len()));
    let mut total = End::default();
    for piece in &plan.pieces {
        if state.has(piece) {
            continue;
        }
        let end = exporter.piece(piece, &plan.selectors, &mut output, &mut progress).await?;
        for warning in &end.warnings {
            progress.say(&format!("warning: {}: {warning}", piece.describe()));
        }
        progress.pieces += 1;
        progress.samples += end.samples;
        total.add(&end);
        if let (Some(path), Some(offset)) = (&flags.resume, output.settle()?) {
            state.offset = offset;
            state.add(piece.clone(), end);
            state.store(path)?;
        }
        progress.tick();
    }
    if !flags.plain {
        output.write(DONE)?;
    }
    output.settle()?;
    let what = if flags.plain { format!("{} pieces", progress.pieces) } else { total.describe() };
    progress.finish("exported", &what);
    Ok(())
}

/// The ends of the range, in milliseconds, where there are any.
fn range(flags: &ExportFlags, now: Timestamp) -> Result<[Option<i64>; 2], String> {
    let instant = |text: &Option<String>| {
        text.as_deref().map(|text| parse_instant(text, now).map(Timestamp::millis)).transpose()
    };
    let (start, end) = (instant(&flags.start)?, instant(&flags.end)?);
    if start.unwrap_or(i64::MIN) > end.unwrap_or(i64::MAX) {
        return Err("the range ends before it starts".to_owned());
    }
    Ok([start, end])
}

/// What the flags ask for, without its pieces.
fn wanted(flags: &ExportFlags) -> Plan {
    let mut selectors = flags.selectors.clone();
    if selectors.is_empty() {
        selectors.push(ALL.to_owned());
    }
    Plan {
        server: flags.server.server.clone(),
        tenant: flags.server.tenant.clone(),
        selectors,
        start: flags.start.clone(),
        end: flags.end.clone(),
        pieces: Vec::new(),
    }
}

/// Asks a server for pieces.
#[derive(Debug)]
struct Exporter {
    server: Connection,
    patience: Patience,
    plain: bool,
}

impl Exporter {
    /// The pieces of a plan.
    async fn pieces(
        &mut self,
        selectors: &[String],
        [start, end]: [Option<i64>; 2],
        length: i64,
        flags: &ExportFlags,
    ) -> Result<Vec<Piece>, CommandError> {
        let mut form: Vec<_> = selectors.iter().map(|s| ("match[]", s.clone())).collect();
        form.extend(start.map(|at| ("start", as_seconds(Timestamp(at)))));
        form.extend(end.map(|at| ("end", as_seconds(Timestamp(at)))));
        form.push(("slice", as_seconds(Timestamp(length))));
        let slices = loop {
            match slices(&self.server, &form).await {
                Ok(slices) => break slices,
                Err(trouble) => self.wait(trouble, None, flags.quiet).await?,
            }
        };
        self.patience.restore();
        let parts = flags.parts;
        let shards = |[start, end]: [i64; 2]| {
            (1..=parts).map(move |part| Piece { start, end, shard: format!("{part}/{parts}") })
        };
        Ok(slices.into_iter().flat_map(shards).collect())
    }

    /// Writes a piece, from its beginning as often as it breaks off.
    async fn piece(
        &mut self,
        piece: &Piece,
        selectors: &[String],
        output: &mut Output,
        progress: &mut Progress,
    ) -> Result<End, CommandError> {
        let mut form = piece.parameters(selectors);
        if !self.plain {
            form.push(("exact", "1".to_owned()));
        }
        loop {
            output.begin_again()?;
            if !self.plain {
                output.write(&Begin { piece: piece.clone(), selectors: selectors.to_vec() }.line())?;
            }
            match self.once(&form, output, progress).await {
                Ok(Ok(end)) => {
                    self.patience.restore();
                    return Ok(end);
                }
                Ok(Err(error)) => return Err(error),
                Err(trouble) => self.wait(trouble, Some(progress), false).await?,
            }
        }
    }

    /// Writes a piece; the inner error is of the output, and final.
    async fn once(
        &self,
        form: &[(&'static str, String)],
        output: &mut Output,
        progress: &mut Progress,
    ) -> Result<Result<End, CommandError>, Trouble> {
        let mut body = self.server.ask("/api/v1/export", form).await?.into_body();
        let mut last = LastLine::default();
        while let Some(bytes) = next(&mut body).await? {
            last.see(&bytes);
            if let Err(error) = output.write(&bytes) {
                return Ok(Err(error));
            }
            progress.bytes += bytes.len() as u64;
            progress.tick();
        }
        if self.plain {
            return Ok(Ok(End::default()));
        }
        match last.end() {
            Some(end) => Ok(Ok(end)),
            None => Err(Trouble::passing("the export ends without its last line")),
        }
    }

    async fn wait(
        &mut self,
        trouble: Trouble,
        progress: Option<&mut Progress>,
        quiet: bool,
    ) -> Result<(), CommandError> {
        let (wait, why) = self.patience.bear(self.server.server(), trouble)?;
        let text = format!("{}: {why}; trying again in {}s", self.server.server(), wait.as_secs_f64());
        match progress {
            Some(progress) => progress.say(&text),
            None if quiet => {}
            None => writeln!(io::stderr(), "{text}")?,
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

async fn slices(server: &Connection, form: &[(&str, String)]) -> Result<Vec<[i64; 2]>, Trouble> {
    let mut body = server.ask("/api/v1/export/plan", form).await?.into_body();
    let mut text = Vec::new();
    while let Some(bytes) = next(&mut body).await? {
        text.extend_from_slice(&bytes);
    }
    let slices = serde_json::from_slice::<serde_json::Value>(&text)
        .ok()
        .and_then(|json| serde_json::from_value(json.get("data")?.get("slices")?.clone()).ok());
    slices.ok_or_else(|| {
        let words = words(&String::from_utf8_lossy(&text));
        Trouble::Lasting(CommandError::Failed(format!("{} gives no plan: {words}", server.server())))
    })
}

/// The last line of what was seen, if it is short enough to be an end.
#[derive(Debug, Default)]
struct LastLine {
    line: Vec<u8>,
    whole: bool,
}

impl LastLine {
    fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.whole {
                self.line.clear();
                self.whole = false;
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (line, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
            // Only an end begins so, and no other line is needed.
            if self.line.is_empty() || self.line.starts_with(&b"{\"end\""[..self.line.len().min(6)]) {
                self.line.extend_from_slice(line);
            }
            self.whole = end.is_some();
            bytes = rest;
        }
    }

    fn end(&self) -> Option<End> {
        match Marker::parse(self.line.trim_ascii()).filter(|_| self.whole)? {
            Marker::End(end) => Some(end),
            Marker::Begin(_) | Marker::Done => None,
        }
    }
}

/// Where the lines go.
#[derive(Debug)]
enum Output {
    /// What is written can be taken back; up to `settled` it stays.
    File { file: File, path: PathBuf, settled: u64 },
    /// What is written is gone.
    Stream,
}

impl Output {
    /// Opens a file, keeping what was written up to `offset`, or standard output.
    fn open(path: &Path, offset: Option<u64>) -> Result<Self, CommandError> {
        if path == Path::new("-") {
            return Ok(Self::Stream);
        }
        let failed = |error| failed(path, &error);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let settled = offset.unwrap_or(0);
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(CommandError::Usage(format!("{}: is not a regular file, use -o -", path.display())));
        }
        if metadata.len() < settled {
            let message =
                format!("{}: is shorter than the state says, so it cannot be resumed", path.display());
            return Err(CommandError::Usage(message));
        }
        file.set_len(settled).map_err(failed)?;
        file.seek(SeekFrom::Start(settled)).map_err(failed)?;
        Ok(Self::File { file, path: path.to_owned(), settled })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CommandError> {
        match self {
            Self::File { file, path, .. } => file.write_all(bytes).map_err(|error| failed(path, &error)),
            Self::Stream => Ok(io::stdout().write_all(bytes)?),
        }
    }

    /// Takes back what is not settled, where that can be.
    fn begin_again(&mut self) -> Result<(), CommandError> {
        match self {
            Self::File { file, path, settled } => {
                let cut = file.set_len(*settled).and_then(|()| file.seek(SeekFrom::Start(*settled)));
                cut.map(|_| ()).map_err(|error| failed(path, &error))
            }
            Self::Stream => Ok(()),
        }
    }

    /// Makes all that was written durable; of a file gives its length.
    fn settle(&mut self) -> Result<Option<u64>, CommandError> {
        match self {
            Self::File { file, path, settled } => {
                let settle = file.sync_data().and_then(|()| file.stream_position());
                *settled = settle.map_err(|error| failed(path, &error))?;
                Ok(Some(*settled))
            }
            Self::Stream => {
                io::stdout().flush()?;
                Ok(None)
            }
        }
    }
}

fn failed(path: &Path, error: &io::Error) -> CommandError {
    CommandError::Failed(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_found_however_it_comes() {
        let text = b"{\"metric\":{}}\n{\"end\":{\"samples\":1,\"histograms\":0,\"exemplars\":0,\"checksum\":\"0\"}}\n";
        for size in 1..text.len() {
            let mut last = LastLine::default();
            text.chunks(size).for_each(|bytes| last.see(bytes));
            assert_eq!(last.end().unwrap().samples, 1, "{size}");
        }
        let mut cut = LastLine::default();
        cut.see(&text[..text.len() - 1]);
        assert_eq!(cut.end(), None);
        cut.see(b"\n{\"metric\":{}}\n");
        assert_eq!(cut.end(), None);
    }

    #[test]
    fn a_file_keeps_what_is_settled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let mut output = Output::open(&path, None).unwrap();
        output.write(b"one").unwrap();
        assert_eq!(output.settle().unwrap(), Some(3));
        output.write(b"half").unwrap();
        output.begin_again().unwrap();
        output.write(b"two").unwrap();
        drop(output);
        assert_eq!(std::fs::read(&path).unwrap(), b"onetwo");
        let resumed = Output::open(&path, Some(3)).unwrap();
        drop(resumed);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(Output::open(&path, Some(4)).unwrap_err().exit_code(), 2);
        assert_eq!(Output::open(dir.path(), None).unwrap_err().exit_code(), 1);
    }
}
