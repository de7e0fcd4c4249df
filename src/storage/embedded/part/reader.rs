//! Opens a part and reads the samples of its series.

mod examine;

use std::{
    cell::RefCell,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use hashbrown::HashMap;
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::{
    super::{
        chunk::{self, Damaged, ValueStats, bytes::Reader},
        disk::{Disk, Mapped, ReadFile},
        head::series::unpacked_histograms,
    },
    PartId, PartMeta,
    checks::{self, WRONG},
    footer::{Footer, HEADER, SECTIONS, Section, TRAILER, Trailer, UNKNOWN_FORMAT},
    groups::Groups,
    names::Postings,
    pages::{PAGE_HEADER, PageAt, PageCache, page_crc},
};
use crate::{
    model::{Labels, TenantId, TimeRange, Timestamp},
    storage::{Estimate, Result, SeriesSamples, StorageError},
};

pub use examine::Damage;

/// Entries per group of the index sections.
pub(super) const TIMES_PER_GROUP: u32 = 16;
pub(super) const SERIES_PER_GROUP: u32 = 16;
pub(super) const LABELS_PER_GROUP: u32 = 128;

/// The chunk holds histograms.
pub(super) const CHUNK_HISTOGRAMS: u8 = 0x1;
/// Statistics of its values follow.
pub(super) const CHUNK_STATS: u8 = 0x2;
/// Its offset follows, because it does not start where the one before ended.
pub(super) const CHUNK_OFFSET: u8 = 0x4;
/// It stands on a chunk of another series, and how many series before its own that is follows.
pub(super) const CHUNK_BASE: u8 = 0x8;
/// Its body is one that is there for another chunk; where the one after it starts does not depend on it.
pub(super) const CHUNK_COPY: u8 = 0x10;
/// It says what was put together between the samples of the chunk of floats before it, whose times it has.
pub(super) const CHUNK_GAPS: u8 = 0x20;

/// What a group of labels may unpack to.
const MAX_LABELS_GROUP: usize = 1 << 30;

/// What a part keeps of its pages when it is opened without a shared cache.
const OWN_CACHE: usize = 4 << 20;

/// An open part.
///
/// Reading is safe from many threads. What does not read back is [`StorageError::Corrupt`] with the
/// file and the place, and does not keep other series from being read.
pub struct Part {
    path: PathBuf,
    file: Arc<dyn ReadFile>,
    index: Mapped,
    /// Where the index starts in the file.
    index_at: u64,
    footer: Footer,
    /// What of each section does not read back, by its place in it, once somebody needed to know.
    bad: [OnceLock<Vec<Range<usize>>>; SECTIONS],
    /// Where pages lie of which the index does not say so, once somebody looked for them.
    found: OnceLock<HashMap<u32, PageAt>>,
    total_crc: u32,
    pub(super) cache: Arc<PageCache>,
    pub(super) owner: u64,
    /// Another than that of all other parts this process has opened.
    pub(super) serial: u64,
    /// The group of labels read last: series are mostly asked for in order.
    labels_group: Mutex<Option<Arc<LabelsGroup>>>,
}

/// Some neighbouring series' labels, unpacked.
struct LabelsGroup {
    number: u32,
    bytes: Vec<u8>,
    /// Where each series' canonical labels lie.
    labels: Vec<Range<usize>>,
}

/// A series of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartSeries {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its number in the part.
    pub ordinal: u32,
    /// Its labels.
    pub labels: Labels,
}

/// What a thread has read last of the index: series are mostly asked for in order, their entries are packed in
/// groups, and those of one scrape share their times.
#[derive(Debug, Default)]
struct Recent {
    /// The part's serial number and the number of the group in it.
    group: Option<(u64, u32)>,
    /// Where the entries of each of its series end.
    ends: Vec<usize>,
    entries: Vec<ChunkEntry>,
    /// Why there are no more.
    damaged: Option<Damaged>,
    /// The part's serial number and the number of the time column in it.
    column: Option<(u64, u32)>,
    entry: TimesEntry,
    times: Vec<i64>,
}

thread_local! {
    static RECENT: RefCell<Recent> = RefCell::default();
    /// Unpacks labels; making one takes as long as using it.
    static UNPACKER: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

static NEXT_SERIAL: AtomicU64 = AtomicU64::new(0);

/// A time column longer than this is not kept.
const KEPT_TIMES: usize = 1 << 14;

/// Chunks of a series in a part; there is seldom more than one.
pub(super) type Chunks = SmallVec<[ChunkEntry; 2]>;

/// Where a chunk lies and what is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkEntry {
    pub(super) histograms: bool,
    /// It holds no samples but what lay between those of the chunk before it.
    pub(super) gaps: bool,
    pub(super) page: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) times: u32,
    /// How many series before its own the one is that it stands on; 0 if it stands by itself.
    pub(super) base: u32,
    stats: Option<ValueStats>,
}

/// Where a time column lies and what is known of it.
#[derive(Clone, Copy, Debug, Default)]
struct TimesEntry {
    page: u32,
    offset: u32,
    length: u32,
    count: usize,
    start: i64,
    end: i64,
}

impl TimesEntry {
    fn overlaps(&self, range: TimeRange) -> bool {
        self.start <= range.end().0 && range.start().0 <= self.end
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("path", &self.path)
            .field("meta", &self.footer.meta)
            .finish_non_exhaustive()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.cache.forget(self.owner);
    }
}

/// What of a series is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// Every chunk.
    All,
    /// No values where they cannot be stale markers.
    Times,
    /// Every chunk whose times the index still tells.
    Dated,
}

impl Part {
    /// Opens a part with a small page cache of its own, and checks its index.
    pub fn open(disk: &Arc<dyn Disk>, path: &Path) -> Result<Self> {
        let part = Self::open_for_facts(disk, path)?;
        part.check_index()?;
        Ok(part)
    }

    /// The same without looking at the index, for whoever wants to know what its footer says.
    pub fn open_for_facts(disk: &Arc<dyn Disk>, path: &Path) -> Result<Self> {
        Self::open_with_cache(disk, path, &PageCache::new(OWN_CACHE))
    }

    /// Reads the whole index, if that was not done before. Fails where a checksum is wrong.
    pub fn check_index(&self) -> Result<()> {
        Section::ALL.into_iter().try_for_each(|section| self.section(section).map(drop))
    }

    /// Opens a part: reads its end and maps its index, of which each section is checked when it is first used. Costs
    /// nothing per sample and nothing per series.
    pub fn open_with_cache(disk: &Arc<dyn Disk>, path: &Path, cache: &Arc<PageCache>) -> Result<Self> {
        let io = |e| StorageError::io(format!("opening part {}", path.display()), e);
        let corrupt = |offset: u64, detail: &str| StorageError::Corrupt {
            path: path.to_owned(),
            offset,
            detail: detail.to_owned(),
        };
        let file = disk.open(path).map_err(io)?;
        let length = file.len().map_err(io)?;
        let end = length
            .checked_sub(TRAILER as u64)
            .filter(|end| *end >= HEADER.len() as u64)
            .ok_or_else(|| corrupt(0, "file is too short to be a part"))?;
        let mut trailer = [0; TRAILER];
        file.read_exact_at(&mut trailer, end).map_err(io)?;
        let trailer = Trailer::decode(&trailer).map_err(|e| match e {
            // Nothing is wrong with it.
            UNKNOWN_FORMAT => StorageError::Unsupported(format!("{}: {e}", path.display())),
            damaged => corrupt(end, damaged.0),
        })?;
        let mut header = [0; HEADER.len()];
        file.read_exact_at(&mut header, 0).map_err(io)?;
        if header != HEADER {
            return Err(corrupt(0, "file does not start like a part"));
        }
        let footer_length = u64::from(trailer.footer_length);
        if trailer.index < HEADER.len() as u64
            || trailer.index > trailer.footer
            || trailer.footer.checked_add(footer_length) != Some(end)
        {
            return Err(corrupt(end, "trailer does not fit the file"));
        }
        let too_long = || corrupt(end, "index is larger than memory");
        let mapped = usize::try_from(end - trailer.index).map_err(|_| too_long())?;
        let index = disk.map(path, trailer.index, mapped).map_err(io)?;
        let footer_at = usize::try_from(trailer.footer - trailer.index).map_err(|_| too_long())?;
        let footer_bytes = &index[footer_at..];
        if crc32c::crc32c(footer_bytes) != trailer.footer_crc {
            return Err(corrupt(trailer.footer, "footer's checksum is wrong"));
        }
        let footer = Footer::decode(footer_bytes, length).map_err(|e| corrupt(trailer.footer, e.0))?;
        let mut at = trailer.index;
        for section in &footer.sections {
            if section.offset != at
                || section.offset.checked_add(section.length).is_none_or(|e| e > trailer.footer)
            {
                return Err(corrupt(trailer.footer, "section lies outside the index"));
            }
            at = section.offset + section.length;
        }
        if at != trailer.footer {
            return Err(corrupt(trailer.footer, "sections do not fill the index"));
        }
        let owner = cache.register();
        Ok(Self {
            path: path.to_owned(),
            file,
            index,
            index_at: trailer.index,
            footer,
            bad: Default::default(),
            found: OnceLock::new(),
            total_crc: trailer.total_crc,
            cache: Arc::clone(cache),
            owner,
            serial: NEXT_SERIAL.fetch_add(1, Ordering::Relaxed),
            labels_group: Mutex::new(None),
        })
    }

    /// What the part holds and what it stands for.
    pub fn meta(&self) -> &PartMeta {
        &self.footer.meta
    }

    /// Which part it is.
    pub fn id(&self) -> PartId {
        self.footer.meta.id
    }

    /// The bytes of its index.
    pub(crate) fn index_bytes(&self) -> u64 {
        self.footer.meta.bytes.saturating_sub(self.index_at)
    }

    /// The part's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The labels of series number `ordinal`.
    pub fn labels(&self, ordinal: u32) -> Result<Labels> {
        let wrong = |e: Damaged| self.index_corrupt(Section::Labels, e);
        let group = self.labels_group(ordinal / LABELS_PER_GROUP)?;
        let at = group.labels.get((ordinal % LABELS_PER_GROUP) as usize);
        let at = at.ok_or_else(|| wrong(Damaged("series lies outside its group")))?;
        let text = std::str::from_utf8(&group.bytes[at.clone()]);
        let text = text.map_err(|_| wrong(Damaged("labels are not UTF-8")))?;
        Labels::from_canonical(text).map_err(|_| wrong(Damaged("labels are not in canonical form")))
    }

    /// Series number `ordinal`; none beyond the last.
    pub(crate) fn series(&self, ordinal: u32) -> Result<Option<PartSeries>> {
        let tenants = &self.footer.meta.tenants;
        let of = tenants.partition_point(|tenant| tenant.first.saturating_add(tenant.series) <= ordinal);
        let Some(of) = tenants.get(of) else { return Ok(None) };
        Ok(Some(PartSeries { tenant: of.tenant.clone(), ordinal, labels: self.labels(ordinal)? }))
    }

    /// When series number `ordinal` has its first and its last sample.
    pub fn series_range(&self, ordinal: u32) -> Result<TimeRange> {
        let mut range: Option<TimeRange> = None;
        for chunk in self.chunks(ordinal)? {
            let times = self.times(chunk.times)?;
            let of_chunk = TimeRange::new(Timestamp(times.start), Timestamp(times.end));
            let of_chunk = of_chunk.ok_or_else(|| {
                self.index_corrupt(Section::Times, Damaged("time column ends before it starts"))
            })?;
            range = Some(range.map_or(of_chunk, |range| range.union(of_chunk)));
        }
        range.ok_or_else(|| self.index_corrupt(Section::Series, Damaged("series has no chunks")))
    }

    /// How many samples series number `ordinal` has in `range`: where the range cuts through a column of times, they are
    /// counted, and `counted` keeps the count, for many series share a column.
    pub(crate) fn estimate(
        &self,
        ordinal: u32,
        range: TimeRange,
        counted: &mut HashMap<u32, u64>,
    ) -> Result<Estimate> {
        let mut found = Estimate::default();
        for chunk in self.chunks(ordinal)?.into_iter().filter(|chunk| !chunk.gaps) {
            let times = self.times(chunk.times)?;
            if !times.overlaps(range) {
                continue;
            }
            let count = if range.start().0 <= times.start && times.end <= range.end().0 {
                times.count as u64
            } else if let Some(count) = counted.get(&chunk.times) {
                *count
            } else {
                let page = self.page(times.page)?;
                let mut timestamps = Vec::with_capacity(times.count);
                let column = piece(&page, times.offset, times.length);
                column
                    .and_then(|column| chunk::decode_times(column, times.count, &mut timestamps))
                    .map_err(|e| self.page_corrupt(times.page, times.offset, e))?;
                let count = within(&timestamps, range).len() as u64;
                counted.insert(chunk.times, count);
                count
            };
            if chunk.histograms {
                found.histograms += count;
                found.histogram_bytes += unpacked_histograms(count, chunk.length as usize);
            } else {
                found.floats += count;
            }
        }
        Ok(found)
    }

    /// How many samples of series number `ordinal` go when a range is hidden; a gap that it touches counts as one.
    pub(crate) fn hidden(
        &self,
        ordinal: u32,
        range: TimeRange,
        counted: &mut HashMap<u32, u64>,
    ) -> Result<u64> {
        let samples = self.estimate(ordinal, range, counted)?;
        let mut gaps = 0;
        if self.meta().widest_gap > 0 {
            for chunk in self.chunks(ordinal)?.iter().filter(|chunk| chunk.gaps) {
                let times = self.times(chunk.times)?;
                if !times.overlaps(range) {
                    continue;
                }
                let mut timestamps = Vec::new();
                self.decode_times(chunk.times, times, &mut timestamps)?;
                let page = self.page(chunk.page)?;
                let ends = piece(&page, chunk.offset, chunk.length)
                    .and_then(|body| chunk::decode_gap_ends(body, timestamps.len()))
                    .map_err(|e| self.page_corrupt(chunk.page, chunk.offset, e))?;
                let touched = |(from, to): &&(usize, usize)| {
                    timestamps[*from] <= range.end().0 && range.start().0 <= timestamps[*to]
                };
                gaps += ends.iter().filter(touched).count() as u64;
            }
        }
        Ok(samples.floats + samples.histograms + gaps)
    }

    /// Adds the samples of series number `ordinal` in `range` to `into`, in order of time, and the gaps of which both ends
    /// are among them.
    ///
    /// After an error `into` is as before.
    pub fn read(&self, ordinal: u32, range: TimeRange, into: &mut SeriesSamples) -> Result<()> {
        self.read_or_nothing(ordinal, range, Extent::All, into)
    }

    /// The same, with 0 for each value of a chunk that has no stale marker and no gaps: it is not decoded.
    pub(crate) fn read_times(&self, ordinal: u32, range: TimeRange, into: &mut SeriesSamples) -> Result<()> {
        self.read_or_nothing(ordinal, range, Extent::Times, into)
    }

    /// The same as [`read`](Self::read) without chunks of which the index does not say any more when they are.
    pub(super) fn read_dated(&self, ordinal: u32, range: TimeRange, into: &mut SeriesSamples) -> Result<()> {
        self.read_or_nothing(ordinal, range, Extent::Dated, into)
    }

    fn read_or_nothing(
        &self,
        ordinal: u32,
        range: TimeRange,
        extent: Extent,
        into: &mut SeriesSamples,
    ) -> Result<()> {
        let (floats, starts, histograms) = (into.timestamps.len(), into.starts.len(), into.histograms.len());
        let gaps = into.gaps.len();
        let read = self.read_chunks(ordinal, range, extent, into);
        if read.is_err() {
            into.timestamps.truncate(floats);
            into.values.truncate(floats);
            into.starts.truncate(starts);
            into.gaps.truncate(gaps);
            into.histograms.truncate(histograms);
        }
        read
    }

    fn read_chunks(
        &self,
        ordinal: u32,
        range: TimeRange,
        extent: Extent,
        into: &mut SeriesSamples,
    ) -> Result<()> {
        let chunks = self.chunks(ordinal)?;
        for (place, chunk) in chunks.iter().enumerate() {
            // What lies in gaps is read with the samples at their ends.
            if chunk.gaps {
                continue;
            }
            let gaps = chunks.get(place + 1).filter(|next| next.gaps);
            let times = match self.times(chunk.times) {
                Err(StorageError::Corrupt { .. }) if extent == Extent::Dated => continue,
                times => times?,
            };
            if !times.overlaps(range) {
                continue;
            }
            let no_stale = gaps.is_none() && chunk.stats.is_some_and(|stats| stats.stale == 0);
            if extent == Extent::Times && no_stale {
                let before = into.timestamps.len();
                self.decode_times(chunk.times, times, &mut into.timestamps)?;
                let inside = within(&into.timestamps[before..], range);
                keep(&mut into.timestamps, before, &inside);
                into.values.resize(into.timestamps.len(), 0.0);
                if !into.starts.is_empty() {
                    into.starts.resize(into.timestamps.len(), 0);
                }
                continue;
            }
            let wrong = |e| self.page_corrupt(chunk.page, chunk.offset, e);
            let body_page = self.page(chunk.page)?;
            let body = piece(&body_page, chunk.offset, chunk.length).map_err(wrong)?;
            if chunk.histograms {
                let mut timestamps = Vec::new();
                self.decode_times(chunk.times, times, &mut timestamps)?;
                let before = into.histograms.len();
                chunk::decode_histogram_body(body, &timestamps, into).map_err(wrong)?;
                let inside = within(&timestamps, range);
                into.histograms.truncate(before + inside.end);
                into.histograms.drain(before..before + inside.start);
            } else {
                let before = into.timestamps.len();
                self.decode_times(chunk.times, times, &mut into.timestamps)?;
                if chunk.base > 0 {
                    self.read_on_base(ordinal, chunk, body, before, into)?;
                } else {
                    chunk::decode_float_body(body, before, into).map_err(wrong)?;
                }
                if let Some(gaps) = gaps {
                    self.read_gaps(gaps, before, range, into)?;
                }
                let inside = within(&into.timestamps[before..], range);
                keep(&mut into.timestamps, before, &inside);
                keep(&mut into.values, before, &inside);
                if !into.starts.is_empty() {
                    keep(&mut into.starts, before, &inside);
                }
            }
        }
        // What was trimmed away may have been all that had starts.
        if into.starts.iter().all(|start| *start == 0) {
            into.starts.clear();
        }
        Ok(())
    }

    /// Adds the gaps between the float samples from number `before` on that lie in `range` with both ends.
    fn read_gaps(
        &self,
        chunk: &ChunkEntry,
        before: usize,
        range: TimeRange,
        into: &mut SeriesSamples,
    ) -> Result<()> {
        let page = self.page(chunk.page)?;
        let mut gaps = Vec::new();
        piece(&page, chunk.offset, chunk.length)
            .and_then(|body| {
                let SeriesSamples { timestamps, values, .. } = into;
                chunk::decode_gaps(body, &timestamps[before..], &values[before..], &mut gaps)
            })
            .map_err(|e| self.page_corrupt(chunk.page, chunk.offset, e))?;
        let inside = gaps.into_iter().filter(|gap| range.start().0 <= gap.from && gap.to <= range.end().0);
        into.gaps.extend(inside);
        Ok(())
    }

    /// The bytes of an index section, if its checksum is right.
    pub(super) fn section(&self, section: Section) -> Result<&[u8]> {
        if self.bad(section).is_empty() {
            Ok(self.bytes_of(section))
        } else {
            Err(self.index_corrupt(section, WRONG))
        }
    }

    /// What of an index section does not read back, by its place in it.
    fn bad(&self, section: Section) -> &[Range<usize>] {
        self.bad[section as usize].get_or_init(|| {
            let bytes = self.bytes_of(section);
            if crc32c::crc32c(bytes) == self.footer.sections[section as usize].crc {
                return Vec::new();
            }
            let checks = (section != Section::Checks).then(|| self.section(Section::Checks).ok()).flatten();
            let before_checks = self.place_of(Section::Checks).start;
            checks::bad_pieces(&self.index[..before_checks], checks, &self.place_of(section))
        })
    }

    /// Where a section lies in the index.
    fn place_of(&self, section: Section) -> Range<usize> {
        let at = self.footer.sections[section as usize];
        let start = usize::try_from(at.offset - self.index_at).expect("the index was mapped");
        start..start + usize::try_from(at.length).expect("the index was mapped")
    }

    /// The bytes of an index section, right or wrong.
    fn bytes_of(&self, section: Section) -> &[u8] {
        &self.index[self.place_of(section)]
    }

    /// A section of groups, around what of it does not read back.
    fn groups(&self, section: Section) -> Groups<'_> {
        let series = self.footer.meta.series;
        let count = match section {
            Section::Series => Some(series.div_ceil(SERIES_PER_GROUP)),
            Section::Labels => Some(series.div_ceil(LABELS_PER_GROUP)),
            Section::Pages | Section::Times | Section::Names | Section::Postings | Section::Checks => None,
        };
        Groups { bytes: self.bytes_of(section), bad: self.bad(section), count }
    }

    /// Where a section of the index lies in the file.
    #[cfg(test)]
    pub(in super::super) fn place(&self, section: Section) -> Range<usize> {
        let at = self.footer.sections[section as usize];
        usize::try_from(at.offset).unwrap()..usize::try_from(at.offset + at.length).unwrap()
    }

    /// The footer.
    pub(super) fn footer(&self) -> &Footer {
        &self.footer
    }

    /// The set that postings stand for.
    pub(super) fn bitmap(&self, postings: &Postings) -> Result<RoaringBitmap> {
        match postings {
            Postings::One(ordinal) => Ok(RoaringBitmap::from_iter([*ordinal])),
            Postings::Run(run) => {
                let mut bitmap = RoaringBitmap::new();
                bitmap.insert_range(run.clone());
                Ok(bitmap)
            }
            Postings::Bitmap(offset) => {
                let wrong = |_| self.index_corrupt(Section::Postings, Damaged("postings do not read back"));
                let section = self.section(Section::Postings)?;
                let at = usize::try_from(*offset).unwrap_or(usize::MAX).min(section.len());
                RoaringBitmap::deserialize_from(&section[at..]).map_err(wrong)
            }
        }
    }

    /// Says that something in an index section is wrong.
    pub(super) fn index_corrupt(&self, section: Section, damaged: Damaged) -> StorageError {
        self.corrupt(self.footer.sections[section as usize].offset, damaged.0)
    }

    pub(super) fn page_corrupt(&self, page: u32, offset: u32, damaged: Damaged) -> StorageError {
        let at = self.page_at(page);
        let at = at.map_or(0, |at| at.offset.saturating_add(PAGE_HEADER as u64 + u64::from(offset)));
        self.corrupt(at, damaged.0)
    }

    fn corrupt(&self, offset: u64, detail: &str) -> StorageError {
        StorageError::Corrupt { path: self.path.clone(), offset, detail: detail.to_owned() }
    }

    fn io(&self, source: std::io::Error) -> StorageError {
        StorageError::io(format!("reading part {}", self.path.display()), source)
    }

    /// A page that the device does not give back, or that is no longer there, is as good as damaged; another error passes.
    fn unread(&self, at: u64, error: std::io::Error) -> StorageError {
        const EIO: i32 = 5;
        let gone = error.kind() == std::io::ErrorKind::UnexpectedEof || error.raw_os_error() == Some(EIO);
        if gone { self.corrupt(at, &format!("it cannot be read: {error}")) } else { self.io(error) }
    }

    fn labels_group(&self, number: u32) -> Result<Arc<LabelsGroup>> {
        if let Some(group) = &*self.labels_group.lock()
            && group.number == number
        {
            return Ok(Arc::clone(group));
        }
        let unpacked = unpack_labels(self.groups(Section::Labels), number)
            .map_err(|e| self.index_corrupt(Section::Labels, e))?;
        let unpacked = Arc::new(unpacked);
        *self.labels_group.lock() = Some(Arc::clone(&unpacked));
        Ok(unpacked)
    }

    pub(super) fn chunks(&self, ordinal: u32) -> Result<Chunks> {
        let groups = self.groups(Section::Series);
        let group = (self.serial, ordinal / SERIES_PER_GROUP);
        let place = (ordinal % SERIES_PER_GROUP) as usize;
        RECENT.with_borrow_mut(|recent| {
            if recent.group != Some(group) {
                recent.group = Some(group);
                // What is damaged ends the list, and does not keep those before it from being read.
                recent.damaged = chunk_entries(groups, group.1, &mut recent.entries, &mut recent.ends).err();
            }
            let Some(end) = recent.ends.get(place) else {
                let damaged = recent.damaged.unwrap_or(Damaged("series lies outside its group"));
                return Err(self.index_corrupt(Section::Series, damaged));
            };
            let start = place.checked_sub(1).map_or(0, |before| recent.ends[before]);
            Ok(Chunks::from_slice(&recent.entries[start..*end]))
        })
    }

    fn times(&self, number: u32) -> Result<TimesEntry> {
        let known = RECENT
            .with_borrow(|recent| (recent.column == Some((self.serial, number))).then_some(recent.entry));
        if let Some(entry) = known {
            return Ok(entry);
        }
        let entry = times_entry(self.groups(Section::Times), number)
            .map_err(|e| self.index_corrupt(Section::Times, e))?;
        RECENT.with_borrow_mut(|recent| {
            recent.column = Some((self.serial, number));
            recent.entry = entry;
            recent.times.clear();
        });
        Ok(entry)
    }

    /// Adds the times of a column to `into`.
    fn decode_times(&self, number: u32, at: TimesEntry, into: &mut Vec<i64>) -> Result<()> {
        let wrong = |e| self.page_corrupt(at.page, at.offset, e);
        let column = Some((self.serial, number));
        let known = RECENT.with_borrow(|recent| {
            let known = recent.column == column && recent.times.len() == at.count;
            if known {
                into.extend_from_slice(&recent.times);
            }
            known
        });
        if known {
            return Ok(());
        }
        let page = self.page(at.page)?;
        let before = into.len();
        let bytes = piece(&page, at.offset, at.length).map_err(wrong)?;
        chunk::decode_times(bytes, at.count, into).map_err(wrong)?;
        if at.count <= KEPT_TIMES {
            RECENT.with_borrow_mut(|recent| {
                (recent.column, recent.entry) = (column, at);
                recent.times.clear();
                recent.times.extend_from_slice(&into[before..]);
            });
        }
        Ok(())
    }

    fn page_count(&self) -> u32 {
        let section = self.footer.sections[Section::Pages as usize];
        u32::try_from(section.length / 12).unwrap_or(u32::MAX)
    }

    pub(super) fn page_at(&self, page: u32) -> Result<PageAt> {
        let (bytes, bad) = (self.bytes_of(Section::Pages), self.bad(Section::Pages));
        let start = (page as usize).saturating_mul(12).min(bytes.len());
        let entry = start..(start + 12).min(bytes.len());
        if checks::touches(bad, &entry) {
            let found = self.found.get().and_then(|found| found.get(&page));
            return found.copied().ok_or_else(|| self.index_corrupt(Section::Pages, WRONG));
        }
        let mut reader = Reader::new(&bytes[entry]);
        let wrong = |e| self.index_corrupt(Section::Pages, e);
        Ok(PageAt { offset: reader.u64().map_err(wrong)?, length: reader.u32().map_err(wrong)? })
    }

    pub(super) fn page(&self, page: u32) -> Result<Arc<[u8]>> {
        if let Some(page) = self.cache.get((self.owner, page)) {
            return Ok(page);
        }
        let loaded = self.load_page(page)?;
        self.cache.put((self.owner, page), &loaded);
        Ok(loaded)
    }

    /// Reads bytes of the file.
    pub(super) fn read_raw(&self, into: &mut [u8], at: u64) -> Result<()> {
        self.file.read_exact_at(into, at).map_err(|e| self.io(e))
    }

    /// Reads a page and checks it.
    fn load_page(&self, page: u32) -> Result<Arc<[u8]>> {
        let PageAt { offset: at, length } = self.page_at(page)?;
        let whole = PAGE_HEADER + length as usize;
        if at.checked_add(whole as u64).is_none_or(|end| end > self.index_at) {
            return Err(self.index_corrupt(Section::Pages, Damaged("page lies outside the file")));
        }
        let mut bytes = vec![0; whole];
        self.file.read_exact_at(&mut bytes, at).map_err(|e| self.unread(at, e))?;
        let (header, payload) = bytes.split_at(PAGE_HEADER);
        if header[..4] != length.to_le_bytes()
            || header[4..] != page_crc(length.to_le_bytes(), payload, page).to_le_bytes()
        {
            return Err(self.corrupt(at, "page's checksum is wrong"));
        }
        Ok(Arc::from(bytes))
    }
}

/// A piece of a page's payload.
pub(super) fn piece(page: &[u8], offset: u32, length: u32) -> Result<&[u8], Damaged> {
    let start = PAGE_HEADER + offset as usize;
    page.get(start..start.saturating_add(length as usize)).ok_or(Damaged("chunk lies outside its page"))
}

/// Which of the sorted times lie in a range.
fn within(timestamps: &[i64], range: TimeRange) -> Range<usize> {
    let start = timestamps.partition_point(|t| *t < range.start().0);
    let end = timestamps.partition_point(|t| *t <= range.end().0);
    start..end.max(start)
}

/// Keeps, of what lies behind `before`, only `inside`.
fn keep<T>(column: &mut Vec<T>, before: usize, inside: &Range<usize>) {
    column.truncate(before + inside.end);
    column.drain(before..before + inside.start);
}

fn unpack_labels(groups: Groups<'_>, number: u32) -> Result<LabelsGroup, Damaged> {
    let mut reader = Reader::new(groups.group(number)?);
    let length = reader.varint_usize()?;
    if length > MAX_LABELS_GROUP {
        return Err(Damaged("labels unpack to too much memory"));
    }
    let bytes = unpack(reader.rest(), length).map_err(|_| Damaged("labels do not unpack"))?;
    if bytes.len() != length {
        return Err(Damaged("labels unpack to another length"));
    }
    let mut labels = Vec::new();
    let mut reader = Reader::new(&bytes);
    while reader.remaining() > 0 {
        let size = reader.varint_usize()?;
        let start = length - reader.remaining();
        reader.take(size)?;
        labels.push(start..start + size);
    }
    Ok(LabelsGroup { number, bytes, labels })
}

fn unpack(packed: &[u8], length: usize) -> std::io::Result<Vec<u8>> {
    UNPACKER.with_borrow_mut(|unpacker| match unpacker {
        Some(unpacker) => unpacker.decompress(packed, length),
        None => unpacker.insert(zstd::bulk::Decompressor::new()?).decompress(packed, length),
    })
}

fn add_signed(to: u32, difference: i64) -> Result<u32, Damaged> {
    let sum = i64::from(to).checked_add(difference).and_then(|sum| u32::try_from(sum).ok());
    sum.ok_or(Damaged("difference leaves its range"))
}

/// Reads the entries of all series of a group, up to what is damaged.
fn chunk_entries(
    groups: Groups<'_>,
    number: u32,
    entries: &mut Vec<ChunkEntry>,
    ends: &mut Vec<usize>,
) -> Result<(), Damaged> {
    entries.clear();
    ends.clear();
    let mut reader = Reader::new(groups.group(number)?);
    let (mut page, mut end, mut times) = (0_u32, 0_u32, 0_u32);
    while ends.len() < SERIES_PER_GROUP as usize && reader.remaining() > 0 {
        let first = entries.len();
        for _ in 0..reader.count(4)? {
            let flags = reader.u8()?;
            let known = CHUNK_HISTOGRAMS | CHUNK_STATS | CHUNK_OFFSET | CHUNK_BASE | CHUNK_COPY | CHUNK_GAPS;
            if flags & !known != 0 {
                return Err(Damaged("chunk has an unknown flag"));
            }
            let turned = reader.zigzag()?;
            let on = add_signed(page, turned)?;
            let expected = if turned == 0 { end } else { 0 };
            let offset = if flags & CHUNK_OFFSET == 0 { expected } else { reader.varint_u32()? };
            let length = reader.varint_u32()?;
            times = add_signed(times, reader.zigzag()?)?;
            let base = if flags & CHUNK_BASE == 0 { 0 } else { reader.varint_u32()? };
            let stats = if flags & CHUNK_STATS == 0 { None } else { Some(ValueStats::decode(&mut reader)?) };
            let after = offset.checked_add(length).ok_or(Damaged("chunk has no end"))?;
            if flags & CHUNK_COPY == 0 {
                (page, end) = (on, after);
            }
            let (histograms, gaps) = (flags & CHUNK_HISTOGRAMS != 0, flags & CHUNK_GAPS != 0);
            if gaps {
                let of_before = entries.last().filter(|last| entries.len() > first && !last.gaps);
                if histograms || !of_before.is_some_and(|last| !last.histograms && last.times == times) {
                    return Err(Damaged("gaps follow no chunk of floats with their times"));
                }
            }
            entries.push(ChunkEntry { histograms, gaps, page: on, offset, length, times, base, stats });
        }
        ends.push(entries.len());
    }
    Ok(())
}

fn times_entry(groups: Groups<'_>, number: u32) -> Result<TimesEntry, Damaged> {
    let mut reader = Reader::new(groups.group(number / TIMES_PER_GROUP)?);
    let mut entry = TimesEntry { page: 0, offset: 0, length: 0, count: 0, start: 0, end: 0 };
    for _ in 0..=number % TIMES_PER_GROUP {
        let page = add_signed(entry.page, reader.zigzag()?)?;
        let (offset, length) = (reader.varint_u32()?, reader.varint_u32()?);
        let count = reader.varint_usize()?;
        let start = entry.start.wrapping_add(reader.zigzag()?);
        let end = start.wrapping_add(reader.varint()?.cast_signed());
        entry = TimesEntry { page, offset, length, count, start, end };
    }
    if entry.count > chunk::MAX_SAMPLES {
        return Err(Damaged("time column has too many times"));
    }
    Ok(entry)
}
