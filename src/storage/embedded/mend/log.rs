//! Whether the log reads back.
//!
//! It is looked at as a start looks at it, but nothing is kept aside and nothing is cut.

use std::{io, path::Path, sync::Arc};

use hashbrown::HashSet;

use super::{Finding, Lost, Report, relative};
use crate::{
    model::{TimeRange, Timestamp},
    storage::{
        Result, StorageError,
        embedded::{
            disk::Disk,
            wal::{
                frame::{Found, SegmentHeader},
                record::{Record, decode},
                segment::Segment,
                segment_path, segments,
            },
        },
    },
};

/// What is known of the numbers of series of an epoch, and the time that was met last.
#[derive(Default)]
struct Reading {
    epoch: u64,
    /// The epoch of which everything is in parts.
    tail: Option<u64>,
    known: HashSet<u32>,
    last: Option<i64>,
    /// Samples whose series is not known, and when they are from.
    homeless: Lost,
}

/// Looks at all segments; `covered` is the last one that is in parts.
pub(super) fn look(
    disk: &Arc<dyn Disk>,
    data_dir: &Path,
    covered: u64,
    live: bool,
    report: &mut Report,
) -> Result<()> {
    let dir = data_dir.join("wal");
    let mut all = Vec::new();
    for seq in segments(disk.as_ref(), &dir)? {
        match Segment::open(disk.as_ref(), &dir, seq) {
            Ok(mut segment) => {
                // One whose front cannot be read has no header, and that it cannot be read is told below.
                let _ = segment.read_header();
                all.push(segment);
            }
            // A flush has let it go.
            Err(e) if live && e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(StorageError::io(format!("opening log segment {seq:016x}"), e)),
        }
    }
    // The beginning of what was flushed, and with it the records of its series, may have gone already.
    let flushed = all.first().filter(|first| first.seq <= covered).and_then(|first| first.header);
    let mut reading = Reading { tail: flushed.map(|header| header.epoch), ..Reading::default() };
    for (i, segment) in all.iter().enumerate() {
        let next = all.get(i + 1);
        let file = relative(data_dir, &segment_path(&dir, segment.seq));
        report.files += 1;
        report.bytes += segment.length;
        missing(segment, next, covered, &file, report);
        let read = match segment.header {
            Some(header) => reading.walk(segment, header, next, &file, report),
            None => segment.had_something(next).map(|had| {
                if had {
                    let what = "it has no header that reads back".to_owned();
                    report.find(&file, Some(0), what, Lost::unknown());
                }
            }),
        };
        if let Err(error) = read {
            report.find(&file, None, format!("it cannot be read: {error}"), Lost::unknown());
        }
    }
    Ok(())
}

/// Tells of segments between two that are there.
fn missing(segment: &Segment, next: Option<&Segment>, covered: u64, file: &str, report: &mut Report) {
    let Some(next) = next.filter(|next| next.seq > segment.seq + 1 && next.seq - 1 > covered) else { return };
    // Each start goes on with a number of its own.
    let same = |a: &SegmentHeader, b: &SegmentHeader| a.epoch == b.epoch;
    if segment.header.as_ref().zip(next.header.as_ref()).is_some_and(|(a, b)| same(a, b)) {
        let what = format!("the segments between it and {:016x} are missing", next.seq);
        report.find(file, None, what, Lost::unknown());
    }
}

impl Reading {
    fn walk(
        &mut self,
        segment: &Segment,
        header: SegmentHeader,
        next: Option<&Segment>,
        file: &str,
        report: &mut Report,
    ) -> io::Result<()> {
        if header.epoch != self.epoch {
            (self.epoch, self.known) = (header.epoch, HashSet::new());
        }
        let before = report.findings.len();
        let walked = segment.walk(header, next, |found| match found {
            Found::Frame { at, kind, payload } => match decode(kind, payload) {
                Some(record) => {
                    // Between the last time before a hole and the first one behind it lies what was in it.
                    let waiting = self.last;
                    let met = self.record(record, report);
                    let span = waiting.zip(met).and_then(|(a, b)| between(a, b));
                    for finding in &mut report.findings[before..] {
                        if finding.lost.range.is_none() {
                            finding.lost.range = span;
                        }
                    }
                    self.last = met.or(self.last);
                }
                None => {
                    let what = "a record is not readable".to_owned();
                    report.find(file, Some(at as u64), what, Lost::unknown());
                }
            },
            Found::Hole { from, to } => {
                let what = format!("{} bytes of the log do not read back", to.saturating_sub(from));
                report.find(file, Some(from as u64), what, Lost::unknown());
            }
        });
        let homeless = std::mem::take(&mut self.homeless);
        if homeless.samples > 0 {
            let what = "samples belong to series whose record does not read back".to_owned();
            report.find(file, None, what, homeless);
        }
        walked.map(|_| ())
    }

    /// Counts a record in: the last time in it.
    fn record(&mut self, record: Record<'_>, report: &mut Report) -> Option<i64> {
        match record {
            Record::Series { series, .. } => {
                self.known.extend(series.iter().map(|(number, _)| *number));
                None
            }
            Record::Samples(samples) => {
                samples.iter().map(|s| self.sample(s.number, s.timestamp, report)).last()
            }
            Record::Histograms(histograms) => {
                histograms.iter().map(|h| self.sample(h.number, h.timestamp, report)).last()
            }
            Record::Exemplars { .. }
            | Record::Metadata { .. }
            | Record::Tombstone { .. }
            | Record::Cleaned { .. } => None,
        }
    }

    fn sample(&mut self, number: u32, at: i64, report: &mut Report) -> i64 {
        if self.known.contains(&number) {
            report.samples += 1;
        } else if self.tail != Some(self.epoch) {
            self.homeless.samples += 1;
            let now = between(at, at);
            self.homeless.range = self.homeless.range.map_or(now, |range| now.map(|now| range.union(now)));
        }
        at
    }
}

fn between(a: i64, b: i64) -> Option<TimeRange> {
    TimeRange::new(Timestamp(a.min(b)), Timestamp(a.max(b)))
}

impl Finding {
    /// Whether it is about the log.
    pub(super) fn is_of_log(&self) -> bool {
        self.file.starts_with("wal/")
    }
}
