//! Everything a selection holds, as a stream: for moving data, not for answering questions.
//!
//! A tenant can be larger than memory, so nothing here holds more than a batch of it:
//!
//! ```text
//! range ─▶ slices of time ─▶ select ─┬ any series:    read a batch of series at a time ─┐
//!                                    └ in time order: batches as the store sends them ──┴▶ channel
//! ```
//!
//! The channel is short: who does not read holds up the reading and nothing else. Who goes away
//! closes the channel, which ends the work at the next batch. Exports have places of their own, so
//! that they never stand in the line of queries.
//!
//! Without a plan a slice is a day. The time that has samples is found by asking for the existence of
//! series in ever smaller ranges, which every store can answer; the outermost slices reach to the ends of
//! the range, so that the plan decides how much is read at a time and never what is read.

use std::{
    collections::{BTreeMap, HashSet, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use foldhash::fast::FixedState;
use tokio::sync::mpsc;

use super::{QueryFailure, QueryService, Reader, admission::Place, selectors::require_selectors};
use crate::{
    model::{Labels, Metadata, Millis, SeriesId, TimeRange, Timestamp},
    storage::{
        LabelsRequest, MatcherSets, ReadSeries, Run, Runs, SelectRequest, Selected, SeriesExemplars,
        SeriesSamples, StorageError,
    },
    task,
};

/// How many exports run at one time; one more is told to come back.
pub(super) const MAX_EXPORTS: usize = 8;

/// When one who finds no place for an export is to come again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Samples in a batch; the last series may bring more.
const BATCH: usize = 16 * 1024;

/// Batches that wait for the reader.
const AHEAD: usize = 2;

/// The most slices of a plan; slices are made longer to stay below.
const MAX_SLICES: i128 = 4096;

/// What is to be exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportQuery {
    /// Selectors, of which one must match; at least one is needed.
    pub selectors: Vec<String>,
    /// Since when; none is since ever.
    pub start: Option<Timestamp>,
    /// Until when; none is for ever.
    pub end: Option<Timestamp>,
    /// Which part of the series; none is all of them.
    pub shard: Option<Shard>,
    /// Whether exemplars and metadata are wanted, too.
    pub everything: bool,
}

/// One of `of` parts that series are divided into by their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u64,
    of: u64,
}

/// A part of an export.
#[derive(Clone, Debug, PartialEq)]
pub enum Exported {
    /// Samples of some series; a series may come again with other samples.
    Samples(Vec<(Labels, SeriesSamples)>),
    /// Exemplars of some series.
    Exemplars(Vec<SeriesExemplars>),
    /// What is known of the metrics that were exported.
    Metadata(Vec<Metadata>),
    /// What the reader should know: not all of it may be there.
    Warning(String),
}

/// The parts of an export as they are read. Dropping it ends the export.
pub type Export = mpsc::Receiver<Result<Exported, QueryFailure>>;

impl Shard {
    /// Reads `1/4`: the first of four.
    pub fn parse(text: &str) -> Option<Self> {
        let (index, of) = text.split_once('/')?;
        let (index, of): (u64, u64) = (index.parse().ok()?, of.parse().ok()?);
        (1 <= index && index <= of).then(|| Self { index: index - 1, of })
    }

    fn holds(self, series: SeriesId) -> bool {
        series.hash64() % self.of == self.index
    }
}

impl QueryService {
    /// Starts an export; what is wrong with the request is known at once, what fails later comes in the
    /// stream and ends it.
    pub async fn export(
        self: &Arc<Self>,
        reader: &Reader,
        query: ExportQuery,
    ) -> Result<Export, QueryFailure> {
        let (sets, range) = self.export_selection(&query)?;
        let place = self
            .exports
            .enter(&reader.view.tenants()[0])
            .await
            .map_err(|_| QueryFailure::Exporting { limit: MAX_EXPORTS, retry_after: RETRY_AFTER })?;
        let (parts, export) = mpsc::channel(AHEAD);
        let job = Job {
            service: Arc::clone(self),
            reader: reader.clone(),
            sets,
            shard: query.shard,
            everything: query.everything,
            parts,
            _place: place,
        };
        task::spawn("export", job.run(range));
        Ok(export)
    }

    /// The slices of time, each about `length` long, that hold all that `query` selects; none if nothing
    /// is selected.
    pub async fn export_plan(
        &self,
        reader: &Reader,
        query: &ExportQuery,
        length: Millis,
    ) -> Result<Vec<TimeRange>, QueryFailure> {
        let (sets, range) = self.export_selection(query)?;
        self.slices(reader, &sets, range, length).await
    }

    fn export_selection(&self, query: &ExportQuery) -> Result<(MatcherSets, TimeRange), QueryFailure> {
        let sets = require_selectors(&query.selectors, self.limits.max_query_bytes)?;
        let (start, end) = (query.start.unwrap_or(Timestamp::MIN), query.end.unwrap_or(Timestamp::MAX));
        let range = TimeRange::new(start, end)
            .ok_or_else(|| QueryFailure::parameter("end", "end timestamp must not be before start time"))?;
        Ok((sets, range))
    }

    async fn slices(
        &self,
        reader: &Reader,
        sets: &MatcherSets,
        range: TimeRange,
        length: Millis,
    ) -> Result<Vec<TimeRange>, QueryFailure> {
        if i128::from(range.end().0) - i128::from(range.start().0) < i128::from(length.0) {
            return Ok(vec![range]);
        }
        let Some(extent) = self.extent(reader, sets, range, length).await? else { return Ok(Vec::new()) };
        Ok(cut(range, extent, length))
    }

    /// Where in `range` there are samples, rounded out to multiples of `length`; none if there are none.
    async fn extent(
        &self,
        reader: &Reader,
        sets: &MatcherSets,
        range: TimeRange,
        length: Millis,
    ) -> Result<Option<TimeRange>, QueryFailure> {
        let exists = async |start: Timestamp, end: Timestamp| -> Result<bool, QueryFailure> {
            let Some(range) = TimeRange::new(start, end) else { return Ok(false) };
            let request = LabelsRequest { matchers: sets.clone(), range, limit: 1 };
            Ok(!self.within_timeout(reader, reader.view.series(&*self.storage, request)).await?.is_empty())
        };
        if !exists(range.start(), range.end()).await? {
            return Ok(None);
        }
        let blocks = Blocks { range, length: i128::from(length.0.max(1)) };
        let (mut low, mut high) = (blocks.of(range.start()), blocks.of(range.end()));
        // What the store holds of all tenants is a good guess of where to look. What is found is the same
        // without it: nobody is to see in it what others have.
        if let Some(guess) = self.storage.status().await?.range.and_then(|held| held.intersection(range)) {
            if !exists(range.start(), guess.start().minus(Millis(1))).await? {
                low = blocks.of(guess.start());
            }
            if !exists(guess.end().plus(Millis(1)), range.end()).await? {
                high = blocks.of(guess.end());
            }
        }
        // The first block up to whose end there are samples.
        let mut last = high;
        while low < last {
            let middle = low + (last - low) / 2;
            if exists(range.start(), blocks.end(middle)).await? {
                last = middle;
            } else {
                low = middle + 1;
            }
        }
        let first = low;
        // The last block from whose start on there are samples.
        while low < high {
            let middle = high - (high - low) / 2;
            if exists(blocks.start(middle), range.end()).await? {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Ok(TimeRange::new(blocks.start(first), blocks.end(low)))
    }
}

/// A range in blocks of one length that begin at its multiples.
#[derive(Clone, Copy, Debug)]
struct Blocks {
    range: TimeRange,
    length: i128,
}

impl Blocks {
    fn of(self, at: Timestamp) -> i128 {
        i128::from(at.0).div_euclid(self.length)
    }

    fn start(self, block: i128) -> Timestamp {
        let start = i64::try_from(block * self.length).map_or(Timestamp::MIN, Timestamp);
        start.max(self.range.start())
    }

    fn end(self, block: i128) -> Timestamp {
        let end = i64::try_from((block + 1) * self.length - 1).map_or(Timestamp::MAX, Timestamp);
        end.min(self.range.end())
    }
}

/// Cuts `range` at multiples of `length` within `extent`.
fn cut(range: TimeRange, extent: TimeRange, length: Millis) -> Vec<TimeRange> {
    let (first, last) = (i128::from(extent.start().0), i128::from(extent.end().0));
    let length = i128::from(length.0.max(1));
    // A whole number of lengths, so that the cuts stay multiples of it.
    let length = length * ((last - first) / length / MAX_SLICES + 1);
    let mut slices = Vec::new();
    let mut start = range.start();
    let mut next = (first.div_euclid(length) + 1) * length;
    while next <= last {
        let Ok(boundary) = i64::try_from(next) else { break };
        slices.extend(TimeRange::new(start, Timestamp(boundary - 1)));
        start = Timestamp(boundary);
        next += length;
    }
    slices.extend(TimeRange::new(start, range.end()));
    slices
}

/// An export that runs.
#[derive(Debug)]
struct Job {
    service: Arc<QueryService>,
    reader: Reader,
    sets: MatcherSets,
    shard: Option<Shard>,
    everything: bool,
    parts: mpsc::Sender<Result<Exported, QueryFailure>>,
    _place: Place,
}

/// Nobody reads any more.
struct Gone;

/// Why an export ends early.
enum End {
    Gone,
    Failed(QueryFailure),
}

impl From<Gone> for End {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

impl<E: Into<QueryFailure>> From<E> for End {
    fn from(failure: E) -> Self {
        Self::Failed(failure.into())
    }
}

impl Job {
    async fn run(self, range: TimeRange) {
        let parts = self.parts.clone();
        let ended = tokio::select! {
            ended = self.export(range) => ended,
            () = parts.closed() => Err(End::Gone),
        };
        if let Err(End::Failed(failure)) = ended {
            // Had the reader left by now, that would be the end, too.
            let _ = parts.send(Err(failure)).await;
        }
    }

    async fn export(self, range: TimeRange) -> Result<(), End> {
        let slices = self.service.slices(&self.reader, &self.sets, range, Millis::DAY).await?;
        let mut names = HashSet::with_hasher(FixedState::default());
        let mut warned = HashSet::new();
        for slice in slices {
            for place in 0..self.sets.len() {
                for warning in self.samples(place, slice, &mut names).await? {
                    if warned.insert(warning.clone()) {
                        self.send(Exported::Warning(warning)).await?;
                    }
                }
            }
            if self.everything {
                self.exemplars(slice).await?;
            }
        }
        if self.everything {
            self.metadata(&names).await?;
        }
        Ok(())
    }

    /// Sends the samples of one set's series that no earlier set has; gives the store's warnings.
    async fn samples(
        &self,
        place: usize,
        range: TimeRange,
        names: &mut HashSet<String, FixedState>,
    ) -> Result<Vec<String>, End> {
        let request = self.reader.bounded(SelectRequest::new(self.sets[place].clone(), range));
        let select = self.reader.view.select(&*self.service.storage, request);
        let selected = self.service.within_timeout(&self.reader, select).await;
        let Selected { series, runs, mut warnings, taken: _ } =
            selected.map_err(|failure| self.reader.named(failure))?;
        let wanted: Vec<bool> = series.iter().map(|labels| self.wants(place, labels)).collect();
        for (labels, _) in series.iter().zip(&wanted).filter(|(_, wanted)| **wanted) {
            if let Some(name) = labels.metric_name().filter(|name| !names.contains(*name)) {
                names.insert(name.to_owned());
            }
        }
        match runs {
            // An export offers no operation to take.
            Runs::Rows(_) => {}
            Runs::SeriesMajor(reader) => {
                let ordinals = (0..series.len()).filter(|ordinal| wanted[*ordinal]).collect();
                self.read(Arc::new(series), ordinals, &reader).await?;
                warnings.extend(reader.warnings());
            }
            Runs::TimeMajor(mut runs) => {
                let mut gathered = Gathered::default();
                while let Some(batch) = runs.recv().await {
                    for run in batch? {
                        if wanted.get(run.ordinal as usize).is_some_and(|wanted| *wanted) {
                            gathered.add(run);
                        }
                    }
                    if gathered.count >= BATCH {
                        self.send_samples(gathered.take(&series)).await?;
                    }
                }
                self.send_samples(gathered.take(&series)).await?;
            }
        }
        Ok(warnings)
    }

    /// Reads series after series, off the I/O threads, and sends them in batches.
    async fn read(
        &self,
        series: Arc<Vec<Labels>>,
        ordinals: Vec<usize>,
        reader: &Arc<dyn ReadSeries>,
    ) -> Result<(), End> {
        let ordinals = Arc::new(ordinals);
        let mut next = 0;
        while next < ordinals.len() {
            let (series, ordinals, reader) = (Arc::clone(&series), Arc::clone(&ordinals), Arc::clone(reader));
            let work = move || -> Result<_, StorageError> {
                let (mut batch, mut count) = (Vec::new(), 0);
                while count < BATCH && next < ordinals.len() {
                    let mut samples = SeriesSamples::default();
                    reader.read(ordinals[next], &mut samples)?;
                    count += samples.len();
                    batch.push((series[ordinals[next]].clone(), samples));
                    next += 1;
                }
                Ok((batch, next))
            };
            let (batch, reached) =
                tokio::task::spawn_blocking(work).await.map_err(|error| StorageError::Unavailable {
                    detail: format!("reading was interrupted: {error}"),
                    retry_after: None,
                })??;
            next = reached;
            self.send_samples(batch).await?;
        }
        Ok(())
    }

    async fn exemplars(&self, range: TimeRange) -> Result<(), End> {
        let found = self.reader.view.exemplars(&*self.service.storage, self.sets.clone(), range);
        let mut exemplars = self.service.within_timeout(&self.reader, found).await?;
        exemplars.retain(|of| self.in_shard(&of.series) && !of.exemplars.is_empty());
        if !exemplars.is_empty() {
            self.send(Exported::Exemplars(exemplars)).await?;
        }
        Ok(())
    }

    async fn metadata(&self, names: &HashSet<String, FixedState>) -> Result<(), End> {
        let found = self.reader.view.metadata(&*self.service.storage, None);
        let mut metadata = self.service.within_timeout(&self.reader, found).await?;
        metadata.retain(|entry| {
            let metric = &entry.metric;
            names.contains(metric) || PARTS.iter().any(|part| names.contains(&format!("{metric}{part}")))
        });
        if !metadata.is_empty() {
            self.send(Exported::Metadata(metadata)).await?;
        }
        Ok(())
    }

    fn wants(&self, place: usize, labels: &Labels) -> bool {
        let matches = |set: &Vec<crate::model::Matcher>| {
            set.iter().all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or_default()))
        };
        self.in_shard(labels) && !self.sets[..place].iter().any(matches)
    }

    fn in_shard(&self, labels: &Labels) -> bool {
        self.shard.is_none_or(|shard| shard.holds(labels.id()))
    }

    async fn send_samples(&self, mut batch: Vec<(Labels, SeriesSamples)>) -> Result<(), Gone> {
        batch.retain(|(_, samples)| !samples.is_empty());
        if batch.is_empty() { Ok(()) } else { self.send(Exported::Samples(batch)).await }
    }

    async fn send(&self, part: Exported) -> Result<(), Gone> {
        self.parts.send(Ok(part)).await.map_err(|_| Gone)
    }
}

/// Runs that came in time order, put together by series, so that a series does not come in crumbs.
#[derive(Debug, Default)]
struct Gathered {
    series: BTreeMap<u32, SeriesSamples>,
    count: usize,
}

impl Gathered {
    fn add(&mut self, run: Run) {
        self.count += run.samples.len();
        match self.series.entry(run.ordinal) {
            Entry::Vacant(place) => {
                place.insert(run.samples);
            }
            Entry::Occupied(mut place) => {
                place.get_mut().append(run.samples);
            }
        }
    }

    fn take(&mut self, series: &[Labels]) -> Vec<(Labels, SeriesSamples)> {
        let Self { series: samples, .. } = std::mem::take(self);
        samples.into_iter().map(|(ordinal, samples)| (series[ordinal as usize].clone(), samples)).collect()
    }
}

/// What a family's name is followed by in the names of its series.
const PARTS: [&str; 8] = ["_bucket", "_count", "_sum", "_total", "_created", "_gsum", "_gcount", "_info"];

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: i64, end: i64) -> TimeRange {
        TimeRange::new(Timestamp(start), Timestamp(end)).unwrap()
    }

    #[test]
    fn slices_hold_the_whole_range_and_are_cut_where_there_are_samples() {
        let slices = cut(TimeRange::ALL, range(25, 41), Millis(10));
        assert_eq!(slices, [range(i64::MIN, 29), range(30, 39), range(40, i64::MAX)]);
        assert_eq!(cut(range(0, 100), range(30, 30), Millis(10)), [range(0, 100)]);
        assert_eq!(cut(range(-5, 4), range(-5, 4), Millis(5)), [range(-5, -1), range(0, 4)]);
    }

    #[test]
    fn there_are_not_too_many_slices() {
        let slices = cut(TimeRange::ALL, TimeRange::ALL, Millis(1));
        assert!(slices.len() as i128 <= MAX_SLICES + 1, "{}", slices.len());
        assert_eq!((slices[0].start(), slices.last().unwrap().end()), (Timestamp::MIN, Timestamp::MAX));
        assert!(slices.windows(2).all(|pair| pair[0].end().0 + 1 == pair[1].start().0));
    }

    #[test]
    fn a_shard_is_a_part_of_the_series_and_all_of_them_are_all() {
        for wrong in ["", "1", "0/2", "3/2", "1/0", "a/b", "1/2/3", "-1/2"] {
            assert_eq!(Shard::parse(wrong), None, "{wrong:?}");
        }
        for id in 0..50_u128 {
            let shards = ["1/3", "2/3", "3/3"].map(|text| Shard::parse(text).unwrap());
            assert_eq!(shards.iter().filter(|shard| shard.holds(SeriesId(id))).count(), 1);
        }
    }
}
