//! `luminate import`: lines of JSON to a server, some megabytes at a time.
//!
//! A thread reads; what it has read is compressed and sent, and sent again where the answer does not come.
//! Each answer tells the checksum of what came, so that at the end of a piece the whole way has been checked,
//! from the exporting store to the importing one. `--verify` asks the server for the piece again and compares
//! what it has with what was exported.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use clap::Args;
use tokio::sync::mpsc;

use super::{
    CommandError,
    client::{ServerFlags, percent},
    moving::{
        Begin, End, Marker,
        connection::{Connection, Patience, Trouble, Whole, next, words},
        progress::Progress,
        state::{State, Target},
    },
};
use crate::{
    clock::{Clock, SystemClock},
    config::value::parse_duration,
    model::Checksum,
};

/// Lines are sent when there are so many bytes of them.
const CHUNK: usize = 4 << 20;
/// Chunks that are read ahead.
const AHEAD: usize = 2;
/// The longest line that is read; servers refuse it, and say so.
const MAX_LINE: u64 = 64 << 20;
/// How many of the server's complaints are shown.
const SHOWN: u64 = 10;

/// What to import, and where to.
#[derive(Clone, Debug, Args)]
pub struct ImportFlags {
    /// The lines; - is standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// Remember what is done in this file, and go on from there if it exists. In a pipe, give
    /// `luminate export` the same.
    #[arg(long, value_name = "STATE")]
    resume: Option<PathBuf>,
    /// Export each piece from the server again and compare it with what came.
    #[arg(long)]
    verify: bool,
    /// Give each series a label; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", conflicts_with = "verify")]
    extra_label: Vec<String>,
    /// How long to try again when the server cannot be reached or is busy.
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    patience: String,
    /// Say nothing unless it fails.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    server: ServerFlags,
}

/// Imports.
pub fn run(flags: &ImportFlags) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CommandError::Failed(format!("cannot start the runtime: {e}")))?;
    let outcome = runtime.block_on(import(flags, SystemClock::start()));
    // The thread that reads may wait for ever for a pipe.
    runtime.shutdown_background();
    outcome
}

/// What the reading thread finds.
#[derive(Debug)]
enum Found {
    /// Whole lines, and where in the file they end.
    Lines { text: Vec<u8>, end: u64 },
    /// A line about those around it.
    Marker { marker: Marker, end: u64 },
    /// It cannot be read any further.
    Failed(io::Error),
}

async fn import(flags: &ImportFlags, clock: Arc<dyn Clock>) -> Result<(), CommandError> {
    let patience = parse_duration(&flags.patience).map_err(CommandError::Usage)?;
    let labels: Vec<String> =
        flags.extra_label.iter().map(|label| format!("extra_label={}", percent(label))).collect();
    let state = match &flags.resume {
        Some(path) => {
            let state = State::load(path)?.unwrap_or_default();
            if state.target.as_ref().is_some_and(|target| *target != Target::of(&flags.server)) {
                return Err(CommandError::Usage(format!(
                    "{}: is the state of an import to another server or tenant",
                    path.display()
                )));
            }
            state
        }
        None => State::default(),
    };
    let from_file = flags.input != Path::new("-");
    let input = open(&flags.input, if from_file { state.offset } else { 0 })?;
    let (found, mut finds) = mpsc::channel(AHEAD);
    let offset = if from_file { state.offset } else { 0 };
    tokio::task::spawn_blocking(move || read(input, offset, &found));

    let mut importer = Importer {
        server: Connection::new(&flags.server)?,
        target: Target::of(&flags.server),
        path: format!("/api/v1/import?{}", labels.join("&")),
        relabelled: !labels.is_empty(),
        patience: Patience::new(Arc::clone(&clock), patience),
        progress: Progress::start(
            clock,
            flags.quiet,
            state.done.len(),
            state.plan.as_ref().map(|p| p.pieces.len()),
        ),
        verify: flags.verify,
        resume: flags.resume.clone(),
        from_file,
        piece: None,
        came: End::default(),
        refused: 0,
        total: End::default(),
        held: false,
        anything_seen: false,
        unverified: false,
        pieces_seen: false,
        done_seen: false,
        rejected: 0,
        bad_lines: 0,
        complaints: 0,
        differing: 0,
    };
    while let Some(found) = finds.recv().await {
        importer.anything_seen = true;
        match found {
            Found::Lines { text, end } => importer.lines(text, end).await?,
            Found::Marker { marker: Marker::Begin(begin), .. } => importer.begin(begin),
            Found::Marker { marker: Marker::End(said), end } => importer.end(said, end).await?,
            Found::Marker { marker: Marker::Done, .. } => importer.done_seen = true,
            Found::Failed(error) => {
                return Err(CommandError::Failed(format!("{}: {error}", flags.input.display())));
            }
        }
    }
    importer.finish()
}

fn open(path: &Path, offset: u64) -> Result<Box<dyn BufRead + Send>, CommandError> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let failed = |error: io::Error| CommandError::Failed(format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(failed)?;
    if offset > 0 {
        let length = file.metadata().map_err(failed)?.len();
        if length < offset {
            let message =
                format!("{}: is shorter than the state says, so it cannot be resumed", path.display());
            return Err(CommandError::Usage(message));
        }
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    }
    Ok(Box::new(BufReader::with_capacity(1 << 20, file)))
}

/// Reads lines until there are no more, or nobody wants them.
fn read(mut input: Box<dyn BufRead + Send>, mut offset: u64, found: &mpsc::Sender<Found>) {
    let mut text = Vec::with_capacity(CHUNK + CHUNK / 4);
    loop {
        let start = text.len();
        let read = match input.by_ref().take(MAX_LINE).read_until(b'\n', &mut text) {
            Ok(read) => read,
            Err(error) => {
                let _ = found.blocking_send(Found::Failed(error));
                return;
            }
        };
        let marker = Marker::parse(text[start..].trim_ascii());
        if marker.is_some() {
            text.truncate(start);
        }
        if (read == 0 || marker.is_some() || text.len() >= CHUNK) && !text.is_empty() {
            let end = if marker.is_some() { offset } else { offset + read as u64 };
            let text = std::mem::replace(&mut text, Vec::with_capacity(CHUNK + CHUNK / 4));
            if found.blocking_send(Found::Lines { text, end }).is_err() {
                return;
            }
        }
        offset += read as u64;
        if let Some(marker) = marker
            && found.blocking_send(Found::Marker { marker, end: offset }).is_err()
        {
            return;
        }
        if read == 0 {
            return;
        }
    }
}

/// What a server says of the lines it was sent.
#[derive(Debug)]
struct Answer {
    came: End,
    rejected: u64,
    bad_lines: u64,
    complaint: String,
}

impl Answer {
    /// Reads what an answer says of the lines, `sent` of them.
    fn read(server: &str, answer: &Whole, sent: u64) -> Result<Self, Trouble> {
        let text = |name: &str| {
            let name = format!("x-luminate-import-{name}");
            answer.headers.get(&name).and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        let count = |name: &str| text(name).parse::<u64>().ok();
        let complaint = words(&answer.body);
        let (Some(samples), Some(checksum)) = (count("samples"), Checksum::parse(text("checksum"))) else {
            let what =
                if answer.status.is_success() { "does not answer as a Luminate does" } else { "refuses" };
            let message = format!("{} {what}: {}: {complaint}", server, answer.status);
            return Err(Trouble::Lasting(CommandError::Failed(message)));
        };
        let (rejected, bad_lines) = (count("rejected").unwrap_or(0), count("bad-lines").unwrap_or(0));
        let came = count("lines").unwrap_or(0);
        if came != sent {
            return Err(Trouble::passing(format!("{came} of {sent} lines came: {complaint}")));
        }
        let came = End {
            samples,
            histograms: count("histograms").unwrap_or(0),
            exemplars: count("exemplars").unwrap_or(0),
            metadata: count("metadata").unwrap_or(0),
            checksum: checksum.to_string(),
            warnings: Vec::new(),
        };
        Ok(Self { came, rejected, bad_lines, complaint })
    }
}

/// Sends lines, and keeps the books.
#[derive(Debug)]
struct Importer {
    server: Connection,
    target: Target,
    path: String,
    /// Whether the series are others than those that were exported.
    relabelled: bool,
    patience: Patience,
    progress: Progress,
    verify: bool,
    resume: Option<PathBuf>,
    from_file: bool,
    /// The piece the next lines belong to.
    piece: Option<Begin>,
    /// What the server has received of it.
    came: End,
    /// Lines and samples of it that the server did not take.
    refused: u64,
    total: End,
    /// Whether a piece is not done, so that the place in the file stays before it.
    held: bool,
    anything_seen: bool,
    /// Whether lines came that belong to no piece, and so cannot be asked for again.
    unverified: bool,
    pieces_seen: bool,
    /// Whether the export said that there are no more pieces.
    done_seen: bool,
    rejected: u64,
    bad_lines: u64,
    complaints: u64,
    differing: u64,
}

impl Importer {
    fn begin(&mut self, begin: Begin) {
        self.pieces_seen = true;
        self.piece = Some(begin);
        // What came of a piece before it broke off is there, and will not be there twice.
        self.came = End::default();
        self.refused = 0;
    }

    /// Sends lines until the server has them.
    async fn lines(&mut self, text: Vec<u8>, end: u64) -> Result<(), CommandError> {
        let bytes = text.len() as u64;
        let compressed = zstd::bulk::compress(&text, 1)
            .map_err(|error| CommandError::Failed(format!("cannot compress: {error}")))?;
        let body = Bytes::from(compressed);
        let sent = text.split_inclusive(|byte| *byte == b'\n').count() as u64;
        let answer = loop {
            let given = self.server.give(&self.path, body.clone()).await;
            match given.and_then(|answer| Answer::read(self.server.server(), &answer, sent)) {
                Ok(answer) => break answer,
                Err(trouble) => self.wait(trouble).await?,
            }
        };
        self.patience.restore();
        self.take(answer);
        self.unverified |= self.verify && self.piece.is_none();
        self.progress.bytes += bytes;
        self.progress.tick();
        if self.from_file && !self.pieces_seen {
            self.note(|state| state.offset = end)?;
        }
        Ok(())
    }

    /// Books an answer.
    fn take(&mut self, answer: Answer) {
        let Answer { came, rejected, bad_lines, complaint } = answer;
        self.came.add(&came);
        self.total.add(&came);
        self.progress.samples += came.samples;
        self.rejected += rejected;
        self.bad_lines += bad_lines;
        if rejected + bad_lines > 0 {
            self.refused += rejected + bad_lines;
            self.complaints += 1;
            if self.complaints <= SHOWN {
                self.progress.say(&complaint);
            }
        }
    }

    /// A piece is all there: is it what was exported?
    async fn end(&mut self, said: End, offset: u64) -> Result<(), CommandError> {
        let came = std::mem::take(&mut self.came);
        let piece = self.piece.take();
        let name = piece.as_ref().map_or_else(|| "the export".to_owned(), |begin| begin.piece.describe());
        for warning in &said.warnings {
            self.progress.say(&format!("warning: {name}: {warning}"));
        }
        let checked = said.checksum().filter(|_| !self.relabelled);
        if checked.is_some_and(|checksum| came.checksum().unwrap_or_default() != checksum) {
            (self.differing, self.held) = (self.differing + 1, true);
            self.progress.say(&format!(
                "{name}: {} with checksum {} were exported, but {} with checksum {} came",
                said.describe(),
                said.checksum,
                came.describe(),
                came.checksum
            ));
            return Ok(());
        }
        if let Some(begin) = piece.as_ref().filter(|_| self.verify) {
            let there = self.there(begin).await?;
            if !there.same(&said) {
                (self.differing, self.held) = (self.differing + 1, true);
                self.progress.say(&format!(
                    "{name}: {} with checksum {} were exported, but {} now has {} with checksum {}",
                    said.describe(),
                    said.checksum,
                    self.server.server(),
                    there.describe(),
                    there.checksum
                ));
                return Ok(());
            }
        }
        if std::mem::take(&mut self.refused) > 0 {
            // Said already; taken up again it is sent again, should the server think otherwise by then.
            self.held = true;
            return Ok(());
        }
        self.progress.pieces += 1;
        self.progress.tick();
        let moves_on = self.from_file && !self.held;
        self.note(|state| {
            if moves_on {
                state.offset = offset;
            }
            if let Some(begin) = piece {
                state.add(begin.piece, said);
            }
        })
    }

    /// What the server has of a piece.
    async fn there(&mut self, begin: &Begin) -> Result<End, CommandError> {
        let mut form = begin.piece.parameters(&begin.selectors);
        form.push(("summary", "1".to_owned()));
        loop {
            match summary(&self.server, &form).await {
                Ok(end) => {
                    self.patience.restore();
                    return Ok(end);
                }
                Err(trouble) => self.wait(trouble).await?,
            }
        }
    }

    async fn wait(&mut self, trouble: Trouble) -> Result<(), CommandError> {
        let (wait, why) = self.patience.bear(self.server.server(), trouble)?;
        let text = format!("{}: {why}; trying again in {}s", self.server.server(), wait.as_secs_f64());
        self.progress.say(&text);
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Changes the state's file, which the other end of the pipe may have written.
    fn note(&self, change: impl FnOnce(&mut State)) -> Result<(), CommandError> {
        let Some(path) = &self.resume else { return Ok(()) };
        let mut state = State::load(path)?.unwrap_or_default();
        state.target = Some(self.target.clone());
        change(&mut state);
        state.store(path)
    }

    fn finish(mut self) -> Result<(), CommandError> {
        // Even an export without samples says that it is done, unless it is a plain one.
        let cut =
            !self.done_seen && (self.pieces_seen || self.verify || !self.anything_seen && !self.from_file);
        let total = self.total.describe();
        self.progress.finish("imported", &total);
        let mut wrong = Vec::new();
        if cut {
            wrong.push("the export broke off before its end".to_owned());
        }
        if self.unverified {
            let what = "lines came that are not from `luminate export`, so that they cannot be verified";
            wrong.push(what.to_owned());
        }
        for (count, what) in [
            (self.bad_lines, ["line cannot be read", "lines cannot be read"]),
            (self.rejected, ["sample was refused", "samples were refused"]),
            (self.differing, ["piece is not what was exported", "pieces are not what was exported"]),
        ] {
            if count > 0 {
                wrong.push(format!("{count} {}", what[usize::from(count > 1)]));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(CommandError::Failed(wrong.join("; "))) }
    }
}

async fn summary(server: &Connection, form: &[(&str, String)]) -> Result<End, Trouble> {
    let mut body = server.ask("/api/v1/export", form).await?.into_body();
    let mut text = Vec::new();
    while let Some(bytes) = next(&mut body).await? {
        text.extend_from_slice(&bytes);
    }
    match Marker::parse(text.trim_ascii()) {
        Some(Marker::End(end)) => Ok(end),
        Some(Marker::Begin(_) | Marker::Done) | None => {
            Err(Trouble::passing("the export ends without its last line"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let (found, mut finds) = mpsc::channel(100);
        read(Box::new(io::Cursor::new(text.as_bytes().to_vec())), 100, &found);
        drop(found);
        let mut all = Vec::new();
        while let Some(found) = finds.blocking_recv() {
            all.push(match found {
                Found::Lines { text, end } => {
                    format!("{end} {}", String::from_utf8(text).unwrap().escape_debug())
                }
                Found::Marker { marker: Marker::Begin(_), end } => format!("{end} begin"),
                Found::Marker { marker: Marker::End(_), end } => format!("{end} end"),
                Found::Marker { marker: Marker::Done, end } => format!("{end} done"),
                Found::Failed(error) => error.to_string(),
            });
        }
        all
    }

    #[test]
    fn lines_that_did_not_all_come_are_sent_again() {
        let answer = |status: u16, headers: &[(&str, &str)]| {
            let mut answer = Whole {
                status: status.try_into().unwrap(),
                headers: hyper::HeaderMap::new(),
                body: "why".to_owned(),
            };
            for (name, value) in headers {
                let name = hyper::header::HeaderName::try_from(format!("x-luminate-import-{name}")).unwrap();
                answer.headers.insert(name, value.parse().unwrap());
            }
            Answer::read("http://h", &answer, 3)
        };
        let of = |lines, bad| {
            [
                ("lines", lines),
                ("bad-lines", bad),
                ("samples", "2"),
                ("checksum", "00000000000000000000000000000005"),
            ]
        };
        assert_eq!(answer(204, &of("3", "0")).unwrap().came.samples, 2);
        assert_eq!(answer(400, &of("3", "1")).unwrap().bad_lines, 1);
        // Cut off on the way, whether the piece of a line at the end counts as a bad one or not.
        for cut in [of("2", "0"), of("2", "1")] {
            assert!(
                matches!(answer(400, &cut), Err(Trouble::Passing { why, .. }) if why == "2 of 3 lines came: why")
            );
        }
        for (status, what) in [(204, "does not answer as a Luminate does"), (400, "refuses")] {
            let Err(Trouble::Lasting(error)) = answer(status, &[]) else { panic!("it will not get better") };
            assert!(error.to_string().contains(what), "{error}");
        }
    }

    #[test]
    fn lines_and_markers_come_in_order() {
        let begin = String::from_utf8(
            Begin {
                piece: super::super::moving::Piece { start: 0, end: 1, shard: "1/1".to_owned() },
                selectors: vec![],
            }
            .line(),
        )
        .unwrap();
        let end = "{\"end\":{\"samples\":1,\"histograms\":0,\"exemplars\":0,\"checksum\":\"0\"}}\n";
        let (b, e) = (begin.len(), end.len());
        assert_eq!(
            found(&format!("{begin}one\ntwo\n{end}three")),
            [
                format!("{} begin", 100 + b),
                format!("{} one\\ntwo\\n", 108 + b),
                format!("{} end", 108 + b + e),
                format!("{} three", 113 + b + e),
            ]
        );
        assert_eq!(found(""), Vec::<String>::new());
        assert_eq!(found("x\n{\"end\":{}}\n").len(), 1);
    }
}
