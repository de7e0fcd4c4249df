//! Lines of JSON that come as a stream, for as long as they come.
//!
//! An import may be larger than memory. Lines are gathered until there are enough of them for a batch, which
//! is decoded off the I/O threads and written like any other; only then is more taken. Each batch is
//! durable when the next is begun, so whoever is cut off sends everything again and nothing is there
//! twice.
//!
//! Bad lines and refused samples are counted and the first of them shown; the others are kept. An exact export ends
//! with counts and a checksum: they are compared with what came.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{
    BUDGET_UNIT, Ingest, IngestError, IngestLimits, Outcome, Pace, Room, Sender,
    counters::add,
    decode::json_lines,
    known::KnownSeries,
    resolve::{self, Resolved},
};
use crate::{
    model::{Checksum, Digest, Timestamp},
    storage::StorageError,
};

/// How many imports there may be at one time; each holds no more than a line and a batch.
pub(super) const MAX_IMPORTS: usize = 16;

/// Lines are worked on when there are so many bytes of them.
const BATCH_BYTES: usize = 1 << 20;

/// An import that is under way.
#[derive(Debug)]
pub struct Import {
    ingest: Arc<Ingest>,
    sender: Sender,
    /// Lines that were not worked on, and the start of one.
    buffer: Vec<u8>,
    /// Where in the buffer the last whole line ends.
    whole: usize,
    /// Whether the rest of a line that is too long is being passed over.
    passing: bool,
    imported: Imported,
    received: Received,
    _place: Room,
}

/// What became of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Lines that came, empty ones too.
    pub lines: u64,
    /// What was written, and what was refused.
    pub outcome: Outcome,
    /// Lines that cannot be read.
    pub bad_lines: u64,
    /// The first of them: their numbers, counted from one, and what is wrong.
    pub bad_examples: Vec<(u64, String)>,
    /// What was in the lines that could be read.
    pub received: Digest,
}

/// What the lines so far held.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    /// Labels that each series gets.
    pub(crate) extra_labels: Arc<[(String, String)]>,
    pub(crate) lines: u64,
    pub(crate) digest: Digest,
    /// The digest of what came before the export that is being read.
    before: Digest,
    bad_lines: u64,
    bad_examples: Vec<(u64, String)>,
}

impl Ingest {
    /// Begins an import; each series gets `extra_labels`, whatever it had of the same names.
    pub fn import(
        self: &Arc<Self>,
        sender: &Sender,
        extra_labels: Vec<(String, String)>,
    ) -> Result<Import, IngestError> {
        add(&self.counters.requests, 1);
        let free = self.imports.available_permits();
        let place = self.import_shares.take(&sender.tenant, 1, free).and_then(|share| {
            let permit = Arc::clone(&self.imports).try_acquire_owned().ok()?;
            Some(Room { _permit: permit, _share: share })
        });
        let place = place.ok_or_else(|| {
            add(&self.counters.overloaded, 1);
            IngestError::Overloaded { retry_after: self.limits.retry_after }
        })?;
        Ok(Import {
            ingest: Arc::clone(self),
            sender: sender.clone(),
            buffer: Vec::new(),
            whole: 0,
            passing: false,
            imported: Imported::default(),
            received: Received { extra_labels: extra_labels.into(), ..Received::default() },
            _place: place,
        })
    }
}

impl Import {
    /// Takes the next bytes; comes back when there is room for more.
    pub async fn push(&mut self, mut bytes: &[u8]) -> Result<(), IngestError> {
        add(&self.ingest.counters.decompressed_bytes, bytes.len() as u64);
        if self.passing {
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(()) };
            bytes = &bytes[end + 1..];
            self.passing = false;
        }
        if let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') {
            self.whole = self.buffer.len() + end + 1;
        }
        self.buffer.extend_from_slice(bytes);
        if self.whole > 0 && self.buffer.len() >= BATCH_BYTES {
            self.work(self.whole).await?;
        }
        let limits = &self.ingest.limits;
        if self.whole == 0 && self.buffer.len() > limits.max_line_bytes {
            self.received.lines += 1;
            self.received.long_line(limits);
            self.buffer.clear();
            self.passing = true;
        }
        Ok(())
    }

    /// Writes what is left, and tells what became of it all.
    pub async fn finish(&mut self) -> Result<Imported, IngestError> {
        self.work(self.buffer.len()).await?;
        Ok(self.so_far())
    }

    /// Writes the whole lines of what is left, when the rest of the last will not come.
    pub async fn cut_off(&mut self) -> Result<(), IngestError> {
        self.work(self.whole).await
    }

    /// What became of it up to now.
    pub fn so_far(&self) -> Imported {
        let Received { lines, digest, bad_lines, bad_examples, .. } = self.received.clone();
        Imported { lines, bad_lines, bad_examples, received: digest, ..self.imported.clone() }
    }

    /// Decodes and writes the first `end` bytes of the buffer.
    async fn work(&mut self, end: usize) -> Result<(), IngestError> {
        let rest = self.buffer.split_off(end);
        let mut text = std::mem::replace(&mut self.buffer, rest);
        self.whole = 0;
        let bad_before = self.received.bad_lines;
        while !text.is_empty() {
            let limits = Arc::new(self.sender.within(&self.ingest.limits));
            // Samples take several times as much as their text.
            let permit = self.room(4 * text.len()).await?;
            let reading = Reading {
                sender: self.sender.clone(),
                text,
                known: Arc::clone(&self.ingest.known),
                limits: Arc::clone(&limits),
                latest: limits
                    .creation_grace
                    .map_or(Timestamp::MAX, |grace| self.ingest.clock.now().plus(grace)),
                received: std::mem::take(&mut self.received),
            };
            // The permit goes along: dropping this future does not stop the work.
            let work = move || (reading.run(), permit);
            let ((resolved, received, left), _permit) =
                tokio::task::spawn_blocking(work).await.map_err(|error| StorageError::Unavailable {
                    detail: format!("decoding was interrupted: {error}"),
                    retry_after: None,
                })?;
            self.received = received;
            let pace = Pace::WhenThereIsRoom;
            let written = self.ingest.append(&self.sender, resolved?, &limits, pace).await;
            let outcome = self.ingest.count(written)?;
            self.imported.outcome.add(outcome, limits.max_examples);
            text = left;
        }
        add(&self.ingest.counters.bad_lines, self.received.bad_lines - bad_before);
        Ok(())
    }

    /// Waits for room to work in; a batch that is more than the whole budget runs alone.
    async fn room(&self, bytes: usize) -> Result<Room, IngestError> {
        let units = u32::try_from(bytes / BUDGET_UNIT + 1).unwrap_or(u32::MAX).min(self.ingest.budget_units);
        let budget: Arc<Semaphore> = Arc::clone(&self.ingest.budget);
        let permit = budget.acquire_many_owned(units).await.map_err(|_| StorageError::Unavailable {
            detail: "the budget of the ingest path is closed".to_owned(),
            retry_after: None,
        })?;
        // Who waited has it; there are few imports, and each works on one batch.
        let share = self.ingest.budget_shares.count(&self.sender.tenant, units as usize);
        Ok(Room { _permit: permit, _share: share })
    }
}

impl Received {
    /// Counts a line that cannot be read; it is the last that came.
    pub(crate) fn bad_line(&mut self, max_examples: usize, why: String) {
        self.bad_lines += 1;
        if self.bad_examples.len() < max_examples {
            self.bad_examples.push((self.lines, why));
        }
    }

    /// Counts a line that is longer than one may be; it is the last that came.
    pub(crate) fn long_line(&mut self, limits: &IngestLimits) {
        self.bad_line(limits.max_examples, format!("it is longer than {} bytes", limits.max_line_bytes));
    }

    /// Another export begins, or the same one again.
    pub(crate) fn begin(&mut self) {
        self.before = self.digest;
    }

    /// Compares what came with what an export says of itself.
    pub(crate) fn end(
        &mut self,
        samples: u64,
        histograms: u64,
        exemplars: u64,
        checksum: Option<Checksum>,
    ) -> Result<(), String> {
        let came = self.digest.since(&self.before);
        self.before = self.digest;
        // With other labels these are other series.
        let same = !self.extra_labels.is_empty()
            || (came.samples, came.histograms, came.exemplars) == (samples, histograms, exemplars)
                && checksum.is_none_or(|checksum| checksum == came.checksum());
        if same {
            return Ok(());
        }
        let said = checksum.map(|sum| format!(" with checksum {sum}")).unwrap_or_default();
        Err(format!(
            "the export says that it has {samples} samples, {histograms} histograms and {exemplars} exemplars{said}, \
             but {}, {} and {} with checksum {} came",
            came.samples,
            came.histograms,
            came.exemplars,
            came.checksum()
        ))
    }
}

/// Everything that is needed to read lines, wherever they are read.
struct Reading {
    sender: Sender,
    text: Vec<u8>,
    known: Arc<KnownSeries>,
    limits: Arc<IngestLimits>,
    latest: Timestamp,
    received: Received,
}

impl Reading {
    /// Reads as many lines as fit into a request; gives the text that is left.
    fn run(self) -> (Result<Resolved, IngestError>, Received, Vec<u8>) {
        let Self { sender, mut text, known, limits, latest, mut received } = self;
        let keyer = known.keyer(&sender.tenant, sender.rules(), 1);
        match json_lines::decode(&text, &keyer, &limits, latest, &mut received) {
            Ok((draft, read)) => {
                text.drain(..read);
                (Ok(resolve::resolve(draft, &sender, &known, &limits)), received, text)
            }
            Err(error) => (Err(error), received, Vec::new()),
        }
    }
}
