//! Writes a part: series in order in, one durable file out.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use hashbrown::HashMap;

use super::{
    super::{
        chunk::{
            self, ValueStats,
            bytes::{put_varint, put_zigzag},
        },
        disk::Disk,
    },
    PartFacts, PartMeta, TEMPORARY_SUFFIX, TenantMeta,
    checks::ChecksWriter,
    copies::{Copies, Fingerprint},
    families::{Families, Footing},
    footer::{Footer, HEADER, NamesAt, SECTIONS, Section, SectionAt, Trailer},
    groups::GroupWriter,
    names::{MAX_SERIES, NamesWriter},
    pages::{PageTable, PageWriter, Tail, too_large},
    reader::{
        CHUNK_BASE, CHUNK_COPY, CHUNK_GAPS, CHUNK_HISTOGRAMS, CHUNK_OFFSET, CHUNK_STATS, LABELS_PER_GROUP,
        SERIES_PER_GROUP, TIMES_PER_GROUP,
    },
};
use crate::{
    model::{Labels, TenantId, TimeRange, Timestamp},
    storage::{Between, HistogramSample, Result, SeriesSamples, StorageError, embedded::merge::ends_of},
};

/// Float samples per chunk; more are cut evenly. Larger ones are hardly smaller, and dearer to look into.
const MAX_CHUNK_FLOATS: usize = 1024;

/// Histogram samples per chunk.
const MAX_CHUNK_HISTOGRAMS: usize = 120;

/// Spans, bounds and buckets after which a chunk of histograms is cut.
const MAX_CHUNK_BUCKETS: usize = 1 << 15;

/// Bytes of time columns remembered to find the same one again.
const MAX_KNOWN_TIMES: usize = 16 << 20;

/// Labels compress well and are few, so they get a level above the fastest.
const LABELS_ZSTD_LEVEL: i32 = 3;

/// Writes a part: series in order in, one durable file out.
///
/// Dropped before [`finish`](Self::finish), it takes its unfinished file away.
#[derive(Debug)]
pub struct PartWriter {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    temporary: PathBuf,
    finished: bool,
    tail: Tail,
    pages: PageTable,
    bodies: PageWriter,
    columns: PageWriter,
    times: TimesWriter,
    series: GroupWriter,
    at_body: BodyEnd,
    families: Families,
    copies: Copies,
    labels: LabelsWriter,
    names: NamesWriter,
    tenants: Vec<TenantMeta>,
    tenant_names: Vec<NamesAt>,
    widest_gap: u64,
    last: Option<Labels>,
}

/// What the index says of a chunk.
#[derive(Clone, Copy, Debug)]
struct Known {
    histograms: bool,
    gaps: bool,
    /// How many series before its own the one is that it stands on; 0 if it stands by itself.
    base: u32,
    stats: Option<ValueStats>,
}

/// Where the body before ended that is no copy, and the time column the chunk before had.
#[derive(Clone, Copy, Debug, Default)]
struct BodyEnd {
    page: u32,
    offset: u32,
    times: u32,
}

impl PartWriter {
    /// Starts a part that will lie at `path`, making its directory.
    pub fn create(disk: &Arc<dyn Disk>, path: &Path) -> Result<Self> {
        let context = |e| StorageError::io(format!("creating part {}", path.display()), e);
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(TEMPORARY_SUFFIX);
        let temporary = PathBuf::from(temporary);
        if let Some(directory) = path.parent() {
            disk.create_dir_all(directory).map_err(context)?;
        }
        let tail = Tail::new(disk.create(&temporary).map_err(context)?);
        let mut writer = Self {
            disk: Arc::clone(disk),
            path: path.to_owned(),
            temporary,
            finished: false,
            tail,
            pages: PageTable::new(),
            bodies: PageWriter::default(),
            columns: PageWriter::default(),
            times: TimesWriter::new(),
            series: GroupWriter::new(SERIES_PER_GROUP),
            at_body: BodyEnd::default(),
            families: Families::default(),
            copies: Copies::default(),
            labels: LabelsWriter::new(),
            names: NamesWriter::default(),
            tenants: Vec::new(),
            tenant_names: Vec::new(),
            widest_gap: 0,
            last: None,
        };
        writer.tail.append(&HEADER).map_err(context)?;
        Ok(writer)
    }

    /// Adds a series; tenants and, within a tenant, labels must come in order. One without samples is left out.
    ///
    /// After an error the part cannot be finished in a meaningful way and should be dropped.
    pub fn add(&mut self, tenant: &TenantId, labels: &Labels, samples: &SeriesSamples) -> Result<()> {
        if samples.is_empty() {
            return Ok(());
        }
        self.check(tenant, labels, samples)?;
        self.write_series(tenant, labels, samples).map_err(|e| self.failed(e))
    }

    /// Makes the part durable under its name.
    pub fn finish(mut self, facts: PartFacts) -> Result<PartMeta> {
        self.write_end(facts).map_err(|e| self.failed(e))
    }

    fn failed(&self, source: io::Error) -> StorageError {
        StorageError::io(format!("writing part {}", self.path.display()), source)
    }

    /// Refuses what would make a part that cannot be read: this is our own mistake, not the sender's.
    fn check(&self, tenant: &TenantId, labels: &Labels, samples: &SeriesSamples) -> Result<()> {
        let refuse = |why: &str| {
            let why = format!("series {labels} of tenant {tenant} {why}");
            Err(self.failed(io::Error::new(io::ErrorKind::InvalidInput, why)))
        };
        let ascending = |pair: &[i64]| pair[0] < pair[1];
        if samples.values.len() != samples.timestamps.len()
            || !(samples.starts.is_empty() || samples.starts.len() == samples.timestamps.len())
        {
            return refuse("has columns of different lengths");
        }
        if !samples.timestamps.windows(2).all(ascending)
            || !samples.histograms.windows(2).all(|pair| pair[0].timestamp < pair[1].timestamp)
        {
            return refuse("has samples out of order");
        }
        let is_between =
            |between: &Between| between.gap.count > 0 && ends_of(&samples.timestamps, between).is_some();
        if !samples.gaps.iter().all(is_between)
            || !samples.gaps.windows(2).all(|pair| pair[0].to <= pair[1].from)
        {
            return refuse("has gaps that lie between no samples, or in each other");
        }
        if let (Some(last_tenant), Some(last)) = (self.tenants.last(), &self.last)
            && (&last_tenant.tenant, last) >= (tenant, labels)
        {
            return refuse("comes out of order");
        }
        if self.series.entries() >= MAX_SERIES {
            return refuse("is one too many");
        }
        Ok(())
    }

    fn write_series(
        &mut self,
        tenant: &TenantId,
        labels: &Labels,
        samples: &SeriesSamples,
    ) -> io::Result<()> {
        let ordinal = self.series.entries();
        if self.tenants.last().is_none_or(|last| last.tenant != *tenant) {
            self.finish_tenant()?;
            self.families.clear();
            self.tenants.push(TenantMeta {
                tenant: tenant.clone(),
                first: ordinal,
                series: 0,
                samples: 0,
                histograms: 0,
                range: None,
            });
        }
        if self.series.start_entry() {
            self.at_body = BodyEnd::default();
        }
        let float_cuts = float_cuts(samples);
        let histogram_cuts = histogram_cuts(&samples.histograms);
        let gaps_of: Vec<&[Between]> = float_cuts.iter().map(|cut| gaps_in(samples, cut)).collect();
        let gap_chunks = gaps_of.iter().filter(|gaps| !gaps.is_empty()).count();
        let chunks = float_cuts.len() + gap_chunks + histogram_cuts.len();
        put_varint(self.series.bytes(), chunks as u64);
        let place = self.families.place(labels);
        let mut footings = Vec::new();
        let mut body = Vec::new();
        for (cut, gaps) in float_cuts.into_iter().zip(gaps_of) {
            let values = &samples.values[cut.clone()];
            let starts = samples.starts.get(cut.clone()).unwrap_or_default();
            let timestamps = &samples.timestamps[cut];
            let times = self.write_times(timestamps)?;
            body.clear();
            chunk::encode_float_body(values, starts, &mut body);
            let mut print = Fingerprint::of(&body);
            let mut base = 0;
            // What is there already is shorter than any difference.
            if place.is_some() && self.copies.find(print).is_some() {
                footings.push(Footing::alone(times, values.len(), &body));
            } else if let Some(place) = &place {
                let stood = place.stand(ordinal, times, values, starts, &mut body);
                footings.extend(stood.footing);
                if stood.distance > 0 {
                    base = stood.distance;
                    print = Fingerprint::of(&body);
                }
            }
            self.write_chunk(
                times,
                &body,
                print,
                Known { histograms: false, gaps: false, base, stats: ValueStats::of(values) },
            )?;
            if !gaps.is_empty() {
                body.clear();
                chunk::encode_gaps(timestamps, values, gaps, &mut body);
                let known = Known { histograms: false, gaps: true, base: 0, stats: None };
                self.write_chunk(times, &body, Fingerprint::of(&body), known)?;
                let widest = gaps.iter().map(|between| between.to.abs_diff(between.from)).max();
                self.widest_gap = self.widest_gap.max(widest.unwrap_or(0));
            }
        }
        for cut in histogram_cuts {
            let histograms = &samples.histograms[cut];
            let timestamps: Vec<i64> = histograms.iter().map(|sample| sample.timestamp).collect();
            let times = self.write_times(&timestamps)?;
            body.clear();
            chunk::encode_histogram_body(histograms, &mut body);
            let print = Fingerprint::of(&body);
            self.write_chunk(
                times,
                &body,
                print,
                Known { histograms: true, gaps: false, base: 0, stats: None },
            )?;
        }
        if let Some(place) = place {
            self.families.remember(place, ordinal, footings);
        }
        self.labels.add(labels)?;
        self.names.add(labels, ordinal);
        let meta = self.tenants.last_mut().expect("the tenant was just put there");
        meta.series += 1;
        meta.samples += samples.timestamps.len() as u64;
        meta.histograms += samples.histograms.len() as u64;
        let first = samples.timestamps.iter().copied().chain(samples.histograms.first().map(|s| s.timestamp));
        let last = samples.timestamps.last().copied().into_iter();
        let last = last.chain(samples.histograms.last().map(|s| s.timestamp));
        if let (Some(first), Some(last)) = (first.min(), last.max()) {
            meta.range = union(meta.range, TimeRange::new(Timestamp(first), Timestamp(last)));
        }
        self.last = Some(labels.clone());
        Ok(())
    }

    fn write_times(&mut self, timestamps: &[i64]) -> io::Result<u32> {
        self.times.add(timestamps, &mut self.columns, &mut self.pages, &mut self.tail)
    }

    fn write_chunk(
        &mut self,
        times: u32,
        body: &[u8],
        print: Option<Fingerprint>,
        known: Known,
    ) -> io::Result<()> {
        let copied = self.copies.find(print);
        let (page, offset) = match copied {
            Some(at) => at,
            None => {
                let at = self.bodies.append(body, &mut self.pages, &mut self.tail)?;
                self.copies.remember(print, at);
                at
            }
        };
        let length = u32::try_from(body.len()).map_err(|_| too_large("a chunk"))?;
        let expected = if page == self.at_body.page { self.at_body.offset } else { 0 };
        let mut flags = 0;
        for (flag, holds) in [
            (CHUNK_HISTOGRAMS, known.histograms),
            (CHUNK_GAPS, known.gaps),
            (CHUNK_STATS, known.stats.is_some()),
            (CHUNK_OFFSET, copied.is_some() || offset != expected),
            (CHUNK_COPY, copied.is_some()),
            (CHUNK_BASE, known.base > 0),
        ] {
            if holds {
                flags |= flag;
            }
        }
        let out = self.series.bytes();
        out.push(flags);
        put_zigzag(out, i64::from(page) - i64::from(self.at_body.page));
        if flags & CHUNK_OFFSET != 0 {
            put_varint(out, u64::from(offset));
        }
        put_varint(out, u64::from(length));
        put_zigzag(out, i64::from(times) - i64::from(self.at_body.times));
        if known.base > 0 {
            put_varint(out, u64::from(known.base));
        }
        if let Some(stats) = known.stats {
            stats.encode(out);
        }
        self.at_body.times = times;
        if copied.is_none() {
            let end = offset.checked_add(length).ok_or_else(|| too_large("a page"))?;
            self.at_body = BodyEnd { page, offset: end, times };
        }
        Ok(())
    }

    fn finish_tenant(&mut self) -> io::Result<()> {
        if !self.tenants.is_empty() {
            let names = self.names.finish_tenant().map_err(io::Error::other)?;
            self.tenant_names.push(names);
        }
        Ok(())
    }

    fn write_end(&mut self, facts: PartFacts) -> io::Result<PartMeta> {
        self.finish_tenant()?;
        self.bodies.flush(&mut self.pages, &mut self.tail)?;
        self.columns.flush(&mut self.pages, &mut self.tail)?;
        let index = self.tail.length;
        let mut pages = Vec::with_capacity(self.pages.len() * 12);
        for page in &self.pages {
            pages.extend_from_slice(&page.offset.to_le_bytes());
            pages.extend_from_slice(&page.length.to_le_bytes());
        }
        let series = std::mem::replace(&mut self.series, GroupWriter::new(1));
        let (series_count, times) =
            (series.entries(), std::mem::replace(&mut self.times, TimesWriter::new()));
        let labels = std::mem::replace(&mut self.labels, LabelsWriter::new()).finish()?;
        let written = [
            vec![pages],
            times.groups.finish(),
            series.finish(),
            labels,
            vec![std::mem::take(&mut self.names.section)],
            vec![std::mem::take(&mut self.names.postings)],
        ];
        let mut sections = [SectionAt::default(); SECTIONS];
        let mut checks = ChecksWriter::default();
        for (section, pieces) in sections.iter_mut().zip(written) {
            let offset = self.tail.length;
            let mut crc = 0;
            for piece in pieces {
                crc = crc32c::crc32c_append(crc, &piece);
                checks.add(&piece);
                self.tail.append(&piece)?;
            }
            *section = SectionAt { offset, length: self.tail.length - offset, crc };
        }
        let checks = checks.finish();
        sections[Section::Checks as usize] =
            SectionAt { offset: self.tail.length, length: checks.len() as u64, crc: crc32c::crc32c(&checks) };
        self.tail.append(&checks)?;
        let tenants = std::mem::take(&mut self.tenants);
        let mut meta = PartMeta {
            id: facts.id,
            covers_wal: facts.covers_wal,
            replaces: facts.replaces,
            series: series_count,
            samples: tenants.iter().map(|tenant| tenant.samples).sum(),
            histograms: tenants.iter().map(|tenant| tenant.histograms).sum(),
            range: tenants.iter().fold(None, |range, tenant| union(range, tenant.range)),
            downsampled: facts.downsampled,
            widest_gap: self.widest_gap,
            bytes: 0,
            tenants,
        };
        let names = std::mem::take(&mut self.tenant_names);
        let footer = Footer { meta: meta.clone(), sections, names }.encode();
        let trailer = Trailer {
            index,
            footer: self.tail.length,
            footer_length: u32::try_from(footer.len()).map_err(|_| too_large("the footer"))?,
            footer_crc: crc32c::crc32c(&footer),
            total_crc: crc32c::crc32c_append(self.tail.crc, &footer),
        };
        self.tail.append(&footer)?;
        self.tail.append(&trailer.encode())?;
        self.tail.sync()?;
        self.disk.rename(&self.temporary, &self.path)?;
        self.finished = true;
        if let Some(directory) = self.path.parent() {
            self.disk.sync_dir(directory)?;
            // The day's directory may be new itself.
            if let Some(above) = directory.parent() {
                self.disk.sync_dir(above)?;
            }
        }
        meta.bytes = self.tail.length;
        Ok(meta)
    }
}

impl Drop for PartWriter {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed now is removed at the next start.
            let _ = self.disk.remove_file(&self.temporary);
        }
    }
}

fn union(a: Option<TimeRange>, b: Option<TimeRange>) -> Option<TimeRange> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.union(b)),
        (range, None) | (None, range) => range,
    }
}

/// Cuts `length` samples into as few pieces of at most `most` as possible, all about as long.
fn even_cuts(length: usize, most: usize) -> Vec<std::ops::Range<usize>> {
    let pieces = length.div_ceil(most);
    (0..pieces).map(|i| length * i / pieces..length * (i + 1) / pieces).collect()
}

/// Cuts floats evenly, but not within a gap: who reads one reads both samples at its ends.
fn float_cuts(samples: &SeriesSamples) -> Vec<std::ops::Range<usize>> {
    let mut cuts = even_cuts(samples.timestamps.len(), MAX_CHUNK_FLOATS);
    if !samples.gaps.is_empty() {
        for next in 1..cuts.len() {
            let mut at = cuts[next].start.max(cuts[next - 1].start);
            let begins_in = |at: usize| {
                let time = *samples.timestamps.get(at)?;
                let gap = samples.gaps.get(samples.gaps.partition_point(|between| between.to < time))?;
                (gap.from < time).then(|| samples.timestamps.partition_point(|t| *t <= gap.to))
            };
            while let Some(after) = begins_in(at) {
                at = after;
            }
            cuts[next - 1].end = at;
            cuts[next].start = at;
        }
        cuts.retain(|cut| !cut.is_empty());
    }
    cuts
}

/// The gaps between the samples of a cut.
fn gaps_in<'s>(samples: &'s SeriesSamples, cut: &std::ops::Range<usize>) -> &'s [Between] {
    let gaps = &samples.gaps[..];
    match samples.timestamps.get(cut.clone()).unwrap_or_default() {
        [first, .., last] => {
            let before = gaps.partition_point(|between| between.from < *first);
            &gaps[before..gaps.partition_point(|between| between.to <= *last)]
        }
        [_] | [] => &[],
    }
}

fn histogram_cuts(samples: &[HistogramSample]) -> Vec<std::ops::Range<usize>> {
    let mut cuts = Vec::new();
    let (mut start, mut buckets) = (0, 0_usize);
    for (i, sample) in samples.iter().enumerate() {
        let size = size_of_histogram(sample);
        if i > start && (i - start >= MAX_CHUNK_HISTOGRAMS || buckets + size > MAX_CHUNK_BUCKETS) {
            cuts.push(start..i);
            (start, buckets) = (i, 0);
        }
        buckets += size;
    }
    if start < samples.len() {
        cuts.push(start..samples.len());
    }
    cuts
}

fn size_of_histogram(sample: &HistogramSample) -> usize {
    use crate::model::histogram::Counts;
    let histogram = &sample.histogram;
    let buckets = match &histogram.counts {
        Counts::Integer { positive, negative, .. } => positive.len() + negative.len(),
        Counts::Float { positive, negative, .. } => positive.len() + negative.len(),
    };
    buckets + histogram.positive_spans.len() + histogram.negative_spans.len() + histogram.custom_values.len()
}

/// Writes time columns, the same one only once.
#[derive(Debug)]
struct TimesWriter {
    groups: GroupWriter,
    known: HashMap<Box<[u8]>, u32, foldhash::fast::RandomState>,
    known_bytes: usize,
    last_page: u32,
    last_start: i64,
}

impl TimesWriter {
    fn new() -> Self {
        Self {
            groups: GroupWriter::new(TIMES_PER_GROUP),
            known: HashMap::default(),
            known_bytes: 0,
            last_page: 0,
            last_start: 0,
        }
    }

    /// The number of the column with these times.
    fn add(
        &mut self,
        timestamps: &[i64],
        columns: &mut PageWriter,
        pages: &mut PageTable,
        tail: &mut Tail,
    ) -> io::Result<u32> {
        // The column alone does not tell how many times it gives.
        let count = timestamps.len() as u64;
        let mut key = count.to_le_bytes().to_vec();
        chunk::encode_times(timestamps, &mut key);
        if let Some(number) = self.known.get(key.as_slice()) {
            return Ok(*number);
        }
        let column = &key[8..];
        let (page, offset) = columns.append(column, pages, tail)?;
        let number = self.groups.entries();
        if number == u32::MAX {
            return Err(too_large("time columns"));
        }
        if self.groups.start_entry() {
            (self.last_page, self.last_start) = (0, 0);
        }
        let start = timestamps.first().copied().unwrap_or(0);
        let end = timestamps.last().copied().unwrap_or(0);
        let out = self.groups.bytes();
        put_zigzag(out, i64::from(page) - i64::from(self.last_page));
        put_varint(out, u64::from(offset));
        put_varint(out, column.len() as u64);
        put_varint(out, count);
        put_zigzag(out, start.wrapping_sub(self.last_start));
        put_varint(out, end.wrapping_sub(start).cast_unsigned());
        (self.last_page, self.last_start) = (page, start);
        // Forgetting only costs space, and memory must not grow with the part.
        if self.known_bytes > MAX_KNOWN_TIMES {
            self.known.clear();
            self.known_bytes = 0;
        }
        self.known_bytes += key.len();
        self.known.insert(key.into_boxed_slice(), number);
        Ok(number)
    }
}

/// Writes labels, a group at a time.
#[derive(Debug)]
struct LabelsWriter {
    groups: GroupWriter,
    group: Vec<u8>,
    in_group: u32,
}

impl LabelsWriter {
    fn new() -> Self {
        Self { groups: GroupWriter::new(1), group: Vec::new(), in_group: 0 }
    }

    fn add(&mut self, labels: &Labels) -> io::Result<()> {
        chunk::bytes::put_text(&mut self.group, labels.as_canonical());
        self.in_group += 1;
        if self.in_group == LABELS_PER_GROUP { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.in_group > 0 {
            self.groups.start_entry();
            put_varint(self.groups.bytes(), self.group.len() as u64);
            let packed = zstd::bulk::compress(&self.group, LABELS_ZSTD_LEVEL)?;
            self.groups.bytes().extend_from_slice(&packed);
            self.group.clear();
            self.in_group = 0;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<Vec<Vec<u8>>> {
        self.flush()?;
        Ok(self.groups.finish())
    }
}
