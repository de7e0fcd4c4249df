//! Reads all of a part, goes on behind what does not read back, and says what lay there.
//!
//! What the index does not say any more is looked for elsewhere (`inverse`). A series is read in stretches of time that no chunk of it crosses, so that a page that is damaged costs the chunks on it
//! and not the series. What is read is held against everything that the index says of it: its count, its first and
//! last time, the statistics of its values, and whether the names of labels lead to it.

use std::collections::BTreeMap;

use super::{super::inverse::LabelsByNames, Part, Section, TRAILER, ValueStats};
use crate::{
    model::{Labels, Matcher, TenantId, TimeRange, Timestamp},
    storage::{Result, SeriesSamples, StorageError},
};

/// A place in a part that does not read back, and what lay there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Where in the file.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
    /// So many series have lost something.
    pub series: u64,
    /// So many samples are lost, as far as is known.
    pub samples: u64,
    /// Between which times.
    pub range: Option<TimeRange>,
    /// Some of the series.
    pub examples: Vec<String>,
}

/// So many series are named of those that have lost something.
const EXAMPLES: usize = 5;
/// Of so many series of a tenant it is tried whether they are found by their labels.
const TRIED: u32 = 1000;
/// Bytes read at a time for the checksum of all.
const PIECE: usize = 1 << 20;

/// A stretch of time of a series, whose chunks are read together.
#[derive(Debug)]
struct Stretch {
    range: TimeRange,
    samples: u64,
    /// What the index says of a stretch that is one chunk of floats.
    stats: Option<Option<ValueStats>>,
    /// Where the body of its first chunk lies: the page, and the place on it.
    body: (u32, u32),
}

/// What was found, by where it is.
#[derive(Debug, Default)]
struct Places {
    at: BTreeMap<u64, Damage>,
    /// The series that was added last, and where.
    last: Option<(u64, u32)>,
}

/// What is lost of a series.
#[derive(Clone, Copy)]
struct Loss<'a> {
    ordinal: u32,
    tenant: &'a TenantId,
    labels: Option<&'a Labels>,
    samples: u64,
    range: Option<TimeRange>,
}

impl Places {
    /// Adds something that is wrong, or passes on an error that says nothing about the file.
    fn add(&mut self, error: StorageError, loss: Option<Loss<'_>>) -> Result<()> {
        let (offset, what) = match error {
            StorageError::Corrupt { offset, detail, .. } => (offset, detail),
            other => return Err(other),
        };
        let place = self.at.entry(offset).or_insert_with(|| Damage { offset, what, ..Damage::default() });
        if let Some(loss) = loss {
            if self.last != Some((offset, loss.ordinal)) {
                self.last = Some((offset, loss.ordinal));
                place.series += 1;
                if place.examples.len() < EXAMPLES {
                    let name =
                        loss.labels.map_or_else(|| format!("number {}", loss.ordinal), Labels::to_string);
                    place.examples.push(format!("{}: {name}", loss.tenant));
                }
            }
            place.samples += loss.samples;
            place.range = match (place.range, loss.range) {
                (Some(a), Some(b)) => Some(a.union(b)),
                (a, b) => a.or(b),
            };
        }
        Ok(())
    }
}

impl Part {
    /// Reads everything, shows each series with what of it reads back, in order, and says what does not.
    ///
    /// An error is the one that `each` ended with, or one that says nothing about the file.
    pub fn examine(
        &self,
        mut each: impl FnMut(&TenantId, &Labels, &SeriesSamples) -> Result<()>,
    ) -> Result<Vec<Damage>> {
        let mut places = Places::default();
        let whole = self.checks_as_a_whole()?;
        if !whole {
            for section in Section::ALL {
                self.section(section).map(drop).or_else(|error| places.add(error, None))?;
            }
            if !self.bad(Section::Pages).is_empty() && self.found.get().is_none() {
                // Two who look find the same.
                let _ = self.found.set(self.look_for_pages(self.page_count())?);
            }
            for page in 0..self.page_count() {
                if let Err(error) = self.load_page(page) {
                    places.add(error, None)?;
                }
            }
        }
        let (mut floats, mut histograms) = (0_u64, 0_u64);
        for tenant in &self.footer.meta.tenants {
            let mut last: Option<Labels> = None;
            let mut by_names: Option<Result<LabelsByNames>> = None;
            for ordinal in tenant.first..tenant.first.saturating_add(tenant.series) {
                let all = Loss { ordinal, tenant: &tenant.tenant, labels: None, samples: 0, range: None };
                let labels = self.labels(ordinal).or_else(|error| {
                    let by_names = by_names.get_or_insert_with(|| self.labels_by_names(&tenant.tenant));
                    by_names.as_ref().ok().and_then(|known| known.of(ordinal)).ok_or(error)
                });
                let labels = match labels {
                    Ok(labels) => labels,
                    Err(error) => {
                        places.add(error, Some(all))?;
                        continue;
                    }
                };
                let all = Loss { labels: Some(&labels), ..all };
                if last.as_ref().is_some_and(|last| *last >= labels) {
                    let wrong = self.wrong(Section::Labels, "series are not in order");
                    places.add(wrong, Some(all))?;
                    continue;
                }
                let mut samples = SeriesSamples::default();
                self.read_stretches(&mut samples, &mut places, all)?;
                floats += samples.timestamps.len() as u64;
                histograms += samples.histograms.len() as u64;
                each(&tenant.tenant, &labels, &samples)?;
                last = Some(labels);
            }
            if let Err(error) = self.try_names(&tenant.tenant, tenant.first, tenant.series) {
                places.add(error, None)?;
            }
        }
        let meta = &self.footer.meta;
        if places.at.is_empty() && (floats, histograms) != (meta.samples, meta.histograms) {
            places.add(self.wrong(Section::Series, "counts differ from the footer's"), None)?;
        }
        if places.at.is_empty() && !whole {
            places.add(self.corrupt(0, "file's checksum is wrong"), None)?;
        }
        Ok(places.at.into_values().collect())
    }

    /// Reads what of a series reads back.
    fn read_stretches(&self, into: &mut SeriesSamples, places: &mut Places, all: Loss<'_>) -> Result<()> {
        let (stretches, without_times) = match self.stretches(all.ordinal) {
            Ok((stretches, None)) if stretches.is_empty() => {
                Err(self.wrong(Section::Series, "series has no chunks"))
            }
            other => other,
        }
        .or_else(|error| places.add(error, Some(all)).map(|()| (Vec::new(), None)))?;
        if let Some(error) = without_times {
            places.add(error, Some(all))?;
        }
        for stretch in stretches {
            let loss =
                Loss { samples: stretch.samples, range: Some(stretch.range), labels: all.labels, ..all };
            let (floats, starts, histograms) =
                (into.timestamps.len(), into.starts.len(), into.histograms.len());
            let gaps = into.gaps.len();
            let read = self.read_dated(all.ordinal, stretch.range, into);
            let read = read.and_then(|()| self.hold_against(&stretch, into, floats, histograms));
            if let Err(error) = read {
                into.timestamps.truncate(floats);
                into.values.truncate(floats);
                into.starts.truncate(starts);
                into.gaps.truncate(gaps);
                into.histograms.truncate(histograms);
                places.add(error, Some(loss))?;
            }
        }
        Ok(())
    }

    /// Adds what reads back of a series in `range`, and leaves out the chunks that do not.
    pub(in super::super::super) fn read_around(
        &self,
        ordinal: u32,
        range: TimeRange,
        into: &mut SeriesSamples,
    ) -> Result<()> {
        let stretches = match self.stretches(ordinal) {
            Ok((stretches, None | Some(StorageError::Corrupt { .. }))) => stretches,
            Err(StorageError::Corrupt { .. }) => return Ok(()),
            Err(other) | Ok((_, Some(other))) => return Err(other),
        };
        for stretch in stretches {
            let Some(range) = stretch.range.intersection(range) else { continue };
            match self.read_dated(ordinal, range, into) {
                Ok(()) | Err(StorageError::Corrupt { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    /// Whether what was read of a stretch is what the index says it is.
    fn hold_against(
        &self,
        stretch: &Stretch,
        read: &SeriesSamples,
        floats: usize,
        histograms: usize,
    ) -> Result<()> {
        let (page, offset) = stretch.body;
        let wrong = |what| Err(self.page_corrupt(page, offset, super::Damaged(what)));
        let (times, more) = (&read.timestamps[floats..], &read.histograms[histograms..]);
        if (times.len() + more.len()) as u64 != stretch.samples {
            return wrong("a chunk has another count than its times");
        }
        let risen = times.windows(2).all(|pair| pair[0] < pair[1])
            && more.windows(2).all(|pair| pair[0].timestamp < pair[1].timestamp);
        // What lies before it may have been left out, but not come later.
        let follows =
            |before: Option<i64>, now: Option<i64>| before.is_none_or(|b| now.is_none_or(|n| b < n));
        let before = floats.checked_sub(1).map(|last| read.timestamps[last]);
        let more_before = histograms.checked_sub(1).map(|last| read.histograms[last].timestamp);
        if !risen
            || !follows(before, times.first().copied())
            || !follows(more_before, more.first().map(|h| h.timestamp))
        {
            return wrong("samples are not in order");
        }
        let ends = |first: Option<i64>, last: Option<i64>| first.into_iter().chain(last);
        let at = ends(times.first().copied(), times.last().copied())
            .chain(ends(more.first().map(|h| h.timestamp), more.last().map(|h| h.timestamp)));
        let (least, most) = at.fold((i64::MAX, i64::MIN), |(a, b), t| (a.min(t), b.max(t)));
        if (least, most) != (stretch.range.start().0, stretch.range.end().0) {
            return wrong("a time column has other ends than the index says");
        }
        let encoded = |stats: Option<ValueStats>| {
            stats.map(|stats| {
                let mut bytes = Vec::new();
                stats.encode(&mut bytes);
                bytes
            })
        };
        match stretch.stats {
            Some(stats) if encoded(stats) != encoded(ValueStats::of(&read.values[floats..])) => {
                wrong("the statistics of a chunk are not those of its values")
            }
            _ => Ok(()),
        }
    }

    /// The stretches of time that a series' chunks lie in; and an error, if there are chunks of which that is not known.
    fn stretches(&self, ordinal: u32) -> Result<(Vec<Stretch>, Option<StorageError>)> {
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut without_times = None;
        for chunk in self.chunks(ordinal)?.into_iter().filter(|chunk| !chunk.gaps) {
            let times = match self.times(chunk.times) {
                Ok(times) => times,
                Err(error) => {
                    without_times = Some(error);
                    continue;
                }
            };
            let range = TimeRange::new(Timestamp(times.start), Timestamp(times.end));
            let range =
                range.ok_or_else(|| self.wrong(Section::Times, "time column ends before it starts"))?;
            let stats = (!chunk.histograms).then_some(chunk.stats);
            let body = (chunk.page, chunk.offset);
            stretches.push(Stretch { range, samples: times.count as u64, stats, body });
        }
        stretches.sort_by_key(|stretch| stretch.range.start());
        let mut apart: Vec<Stretch> = Vec::with_capacity(stretches.len());
        for next in stretches {
            match apart.last_mut() {
                // Floats and histograms of the same time.
                Some(last) if last.range.overlaps(next.range) => {
                    last.range = last.range.union(next.range);
                    last.samples += next.samples;
                    last.stats = None;
                }
                Some(_) | None => apart.push(next),
            }
        }
        Ok((apart, without_times))
    }

    /// Looks whether names and values of labels read back, and lead to the series that have them.
    fn try_names(&self, tenant: &TenantId, first: u32, series: u32) -> Result<()> {
        let all = self.find(tenant, &[])?;
        for name in self.label_names(tenant)? {
            self.label_values_of(tenant, &name, &all)?;
        }
        for number in 0..series.min(TRIED) {
            let apart = u64::from(number) * u64::from(series) / u64::from(series.min(TRIED));
            let ordinal = first + u32::try_from(apart).unwrap_or(0);
            // What does not read back was told.
            let Ok(labels) = self.labels(ordinal) else { continue };
            let matchers: Vec<Matcher> = labels.iter().map(|(n, v)| Matcher::equal(n, v)).collect();
            if !self.find(tenant, &matchers)?.contains(ordinal) {
                return Err(self.wrong(Section::Names, "labels do not lead to the series that has them"));
            }
        }
        Ok(())
    }

    /// Whether a page begins here: damage at this place is a page whose checksum is wrong.
    pub(in super::super) fn begins_a_page(&self, offset: u64) -> bool {
        (0..self.page_count()).any(|page| self.page_at(page).is_ok_and(|at| at.offset == offset))
    }

    /// Whether a section begins here that is known to be damaged: that says nothing about the others.
    pub(in super::super) fn begins_a_bad_section(&self, offset: u64) -> bool {
        let begins = |section: &Section| self.footer.sections[*section as usize].offset == offset;
        Section::ALL.iter().any(|section| begins(section) && !self.bad(*section).is_empty())
    }

    /// Where the footer begins.
    pub(in super::super) fn footer_at(&self) -> u64 {
        self.index_at + self.place_of(Section::Checks).end as u64
    }

    /// Where the index begins.
    pub(in crate::storage::embedded) fn index_at(&self) -> u64 {
        self.index_at
    }

    /// Whether the file's checksum is right.
    fn checks_as_a_whole(&self) -> Result<bool> {
        let end = self.footer.meta.bytes.saturating_sub(TRAILER as u64);
        let (mut at, mut crc, mut buffer) = (0_u64, 0_u32, vec![0_u8; PIECE]);
        while at < end {
            let length = usize::try_from(end - at).map_or(PIECE, |left| left.min(PIECE));
            match self.file.read_exact_at(&mut buffer[..length], at) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(e) => return Err(self.io(e)),
            }
            crc = crc32c::crc32c_append(crc, &buffer[..length]);
            at += length as u64;
        }
        Ok(crc == self.total_crc)
    }

    fn wrong(&self, section: Section, what: &'static str) -> StorageError {
        self.index_corrupt(section, super::Damaged(what))
    }
}
