//! Answers of range queries, kept for the next time the same is asked of about the same range.
//!
//! ```text
//! kept      ├──────────────── as of change 12 ────────────────┤
//! changed                     ▒ 14 (a late sample)        ▒▒▒▒ 17 (now)
//! asked            ├──────────────────────────────────────────────────┤
//! evaluated                   ├──┤                        ├───────────┤
//! ```
//!
//! A dashboard asks the same again every few seconds, its range moved by as much. [`RangeCache`] evaluates what is not
//! there or no longer true, lays it beside what is ([`extent`]), and keeps the whole ([`shelf`]).
//!
//! **The answer is the one that would be given without it, to the bit**, and so are its warnings:
//!
//! * Only what each step decides for itself is cut ([`Footing`](crate::promql::plan::footing::Footing)). Pieces in which
//!   values are added up in an order that depends on other steps are laid side by side only if it was the same in all.
//! * What has changed since is asked of the store ([`Storage::changes`]) **before** anything is evaluated, and the number
//!   it names goes with what is kept. A step is true as long as nothing later touches the samples it sees. A store that
//!   cannot tell has no cache.
//! * What is said about an extent is about all of its steps, so one that has something to say is used whole or not at
//!   all, and only for the same text: warnings name places in it.
//! * Whatever goes wrong in a piece, the query is evaluated as a whole, and that is the answer.
//!
//! Long ranges are evaluated in pieces between fixed bounds (`query.split`), one after another, so that less is held at a
//! time; where nothing can be kept they are not.

mod cut;
pub mod extent;
pub mod packed;
pub mod second;
pub mod shelf;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::{
    model::{Millis, Timestamp},
    promql::{
        Answer, Engine, Piece, QueryError, QueryOptions, QueryStats, Study, Value, plan::footing::Joins,
    },
    storage::{AsOf, Changes, Storage, View},
};
use cut::Query;
use extent::{Extent, Grid, Slice, count};
use second::{Second, SharedShelf};
use shelf::{Entry, Key, LARGEST_PART, Rest, Shelf};

/// From this many values on, an answer is laid out off the I/O threads.
const LARGE: u64 = 20_000;

/// An answer of which one part in so many was evaluated is sent to the second cache.
const WORTH_SENDING: usize = 8;

/// Extents kept under one key.
const MOST_EXTENTS: usize = 16;

/// Evaluates parts of range queries.
///
/// Dropping a call stops the work behind it.
#[async_trait]
pub trait EvaluatePieces: fmt::Debug + Send + Sync + 'static {
    /// What is known of a query before it is evaluated; none if it cannot be cut.
    fn study(&self, text: &str, step: Millis, options: &QueryOptions) -> Option<Study>;

    /// Evaluates the steps `start`, `start + step`, … up to `end`.
    async fn piece(
        &self,
        view: &View,
        text: &str,
        start: Timestamp,
        end: Timestamp,
        step: Millis,
        options: &QueryOptions,
    ) -> Result<Piece, QueryError>;

    /// Counts memory that a query takes until it is over.
    fn hold(&self, view: &View, options: &QueryOptions, bytes: u64) -> Result<(), QueryError>;

    /// Counts the memory of an answer, which stays until it is written.
    fn hold_answer(&self, view: &View, options: &QueryOptions, value: &Value) -> Result<(), QueryError>;
}

#[async_trait]
impl EvaluatePieces for Engine {
    fn study(&self, text: &str, step: Millis, options: &QueryOptions) -> Option<Study> {
        Self::study(self, text, step, options)
    }

    async fn piece(
        &self,
        view: &View,
        text: &str,
        start: Timestamp,
        end: Timestamp,
        step: Millis,
        options: &QueryOptions,
    ) -> Result<Piece, QueryError> {
        Self::piece(self, view, text, start, end, step, options).await
    }

    fn hold(&self, view: &View, options: &QueryOptions, bytes: u64) -> Result<(), QueryError> {
        Self::hold(self, view, options, bytes)
    }

    fn hold_answer(&self, view: &View, options: &QueryOptions, value: &Value) -> Result<(), QueryError> {
        Self::hold_answer(self, view, options, value)
    }
}

/// How much is kept, and how ranges are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Bytes that may be kept; 0 keeps nothing.
    pub max_bytes: usize,
    /// Ranges are cut at multiples of this; 0 or less cuts none.
    pub split: Millis,
}

/// What the cache counts of itself.
#[derive(Debug, Default)]
pub struct CacheCounters {
    /// Queries answered with nothing but what was kept.
    pub hits: AtomicU64,
    /// Queries of which a part was kept.
    pub partial: AtomicU64,
    /// Queries of which nothing was kept.
    pub misses: AtomicU64,
    /// Queries that cannot be kept or may not be.
    pub passed: AtomicU64,
    /// Queries evaluated as a whole after all, because their pieces do not fit together.
    pub unfit: AtomicU64,
    /// Steps that were kept.
    pub kept_steps: AtomicU64,
    /// Steps that were evaluated.
    pub evaluated_steps: AtomicU64,
    /// Entries that went to make room.
    pub evictions: AtomicU64,
}

/// A range query on its way through the cache.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Who asks.
    pub view: &'a View,
    /// The PromQL.
    pub text: &'a str,
    /// The first step.
    pub start: Timestamp,
    /// What no step lies after.
    pub end: Timestamp,
    /// The distance between steps.
    pub step: Millis,
    /// What the request sets.
    pub options: &'a QueryOptions,
}

/// Keeps answers of range queries.
#[derive(Debug)]
pub struct RangeCache {
    engine: Arc<dyn EvaluatePieces>,
    storage: Arc<dyn Storage>,
    config: CacheConfig,
    shelf: Mutex<Shelf>,
    second: Option<Second>,
    counters: CacheCounters,
}

impl RangeCache {
    /// An empty cache before an engine and the store it reads.
    pub fn new(engine: Arc<dyn EvaluatePieces>, storage: Arc<dyn Storage>, config: CacheConfig) -> Self {
        let shelf = Mutex::new(Shelf::new(config.max_bytes));
        Self { engine, storage, config, shelf, second: None, counters: CacheCounters::default() }
    }

    /// Keeps answers outside of the process, too, for all that share the shelf.
    #[must_use]
    pub fn with_second(mut self, shelf: Arc<dyn SharedShelf>) -> Self {
        self.second = Some(Second::new(shelf));
        self
    }

    /// What is kept outside of the process, if anything is.
    pub fn second(&self) -> Option<&Second> {
        self.second.as_ref()
    }

    /// What it counts of itself.
    pub fn counters(&self) -> &CacheCounters {
        &self.counters
    }

    /// Bytes kept, and entries.
    pub fn size(&self) -> (usize, usize) {
        let shelf = self.shelf.lock();
        (shelf.bytes(), shelf.entries())
    }

    /// Answers a query, if it can be made of pieces; none asks for it to be evaluated as ever.
    ///
    /// With `fresh` nothing that was kept is used, and nothing is kept.
    pub async fn answer(&self, ask: &Ask<'_>, fresh: bool) -> Option<Result<Answer, QueryError>> {
        let Some(query) = self.query(ask) else {
            self.counters.passed.fetch_add(1, Relaxed);
            return None;
        };
        let keeps = !fresh && self.config.max_bytes > 0;
        let found = if keeps { self.changes(&query).await } else { None };
        let Some((entry, changes)) = found else {
            self.counters.passed.fetch_add(1, Relaxed);
            return None;
        };
        let mut usable = entry.as_ref().map_or_else(Vec::new, |entry| query.usable(entry, &changes));
        let mut kept: usize = usable.iter().map(|slice| count(&slice.steps)).sum();
        if kept < count(&query.steps) && entry.as_ref().is_some_and(|entry| entry.rest.holds()) {
            (usable, kept) = (Vec::new(), 0);
        }
        let counter = match kept {
            0 => &self.counters.misses,
            all if all == count(&query.steps) => &self.counters.hits,
            _ => &self.counters.partial,
        };
        counter.fetch_add(1, Relaxed);
        // What is nearly all there already is not worth sending anew each time.
        let send = changes.shared
            && (count(&query.steps) - kept).saturating_mul(WORTH_SENDING) >= count(&query.steps);
        Some(self.evaluate(&query, &usable, entry.as_deref(), &changes, send).await)
    }

    /// Looks whether a query can be made of pieces, and where it belongs.
    fn query<'a>(&self, ask: &Ask<'a>) -> Option<Query<'a>> {
        let options = ask.options;
        let (start, end, step) = (ask.start.0, ask.end.0, ask.step.0);
        if options.per_step_stats || options.limit.is_some() || step <= 0 || end < start {
            return None;
        }
        let (grid, first) = Grid::of(start, step);
        let steps = first..first.checked_add((end - start) / step + 1)?;
        // What is too much in any case is refused by the engine, in its words.
        let range = end.checked_sub(start)?;
        if options.max_range.is_some_and(|most| range > most.0) {
            return None;
        }
        let study = self.engine.study(ask.text, ask.step, options)?;
        let Study { canonical, settings, footing, max_samples } = study;
        if count(&steps) as u64 > max_samples {
            return None;
        }
        let key = Key { view: ask.view.digest(), canonical, settings, step, phase: grid.phase };
        Some(Query { ask: *ask, key, footing, max_samples, grid, steps })
    }

    /// What is kept of a query, and what has changed of the samples that it and the query see; none if nobody can tell.
    ///
    /// Asked before anything is evaluated, so that whatever comes in between counts as later.
    async fn changes(&self, query: &Query<'_>) -> Option<(Option<Arc<Entry>>, Changes)> {
        let mut entry = self.shelf.lock().get(&query.key, query.ask.view);
        if let Some(second) = &self.second
            && !entry.iter().flat_map(|entry| &entry.extents).any(|extent| query.meets(extent))
            && let Some(extent) = second.find(&query.key).await.filter(|extent| query.meets(extent))
        {
            entry = Some(Arc::new(query.joined_by(entry.as_deref(), extent)));
        }
        let mut seen = query.seen_from(&query.steps)?;
        for extent in entry.iter().flat_map(|entry| &entry.extents).filter(|extent| query.meets(extent)) {
            seen = seen.union(query.seen_from(&extent.steps)?);
        }
        match query.ask.view.changes(&*self.storage, seen).await {
            Ok(changes) => Some((entry, changes?)),
            // The evaluation says better what is wrong.
            Err(_) => None,
        }
    }

    /// Evaluates what is missing, and keeps it.
    async fn evaluate(
        &self,
        query: &Query<'_>,
        usable: &[Slice],
        entry: Option<&Entry>,
        changes: &Changes,
        send: bool,
    ) -> Result<Answer, QueryError> {
        let now = changes.as_of();
        let mut rest = entry.map_or_else(Rest::default, |entry| entry.rest);
        rest = if rest.holds() {
            rest.shorter()
        } else if usable.is_empty() {
            rest
        } else {
            Rest::default()
        };
        let split = if query.footing.joins == Joins::Always { self.config.split } else { Millis(0) };
        let made = match self.made_of_pieces(query, usable, split, now).await {
            Some(made) => made,
            None => {
                self.counters.unfit.fetch_add(1, Relaxed);
                rest = entry.map_or_else(Rest::default, |entry| entry.rest).longer();
                self.made_of_pieces(query, &[], Millis(0), now)
                    .await
                    .unwrap_or_else(|| Err(unexpected("pieces do not fit")))
            }
        };
        let made = made?;
        let to_keep = made.may_be_kept();
        let large = made.points() >= LARGE;
        let room = if to_keep { self.config.max_bytes / LARGEST_PART } else { 0 };
        let (grid, text) = (query.grid, query.ask.text.to_owned());
        let lay = move || made.answer(grid, &text, now, room);
        let laid = if large {
            tokio::task::spawn_blocking(lay).await.map_err(|failed| unexpected(&failed.to_string()))?
        } else {
            lay()
        };
        let (answer, extent) = laid.ok_or_else(|| unexpected("no step was evaluated"))?;
        self.engine.hold_answer(query.ask.view, query.ask.options, &answer.value)?;
        if let Some(extent) = extent.and_then(|extent| query.lasting(extent, changes)) {
            let kept = self.keep(query, entry, changes, extent, rest);
            if let Some(second) = self.second.as_ref().filter(|_| send) {
                second.send(query.key.clone(), kept);
            }
        }
        Ok(answer)
    }

    /// Makes an answer of what is kept and of pieces for the rest; none if they do not give what the whole would.
    async fn made_of_pieces(
        &self,
        query: &Query<'_>,
        usable: &[Slice],
        split: Millis,
        now: AsOf,
    ) -> Option<Result<Made, QueryError>> {
        let ask = &query.ask;
        let pieces = query.pieces(usable, split);
        let alone = usable.is_empty() && pieces.len() == 1;
        // What lies between pieces counts as evaluated if there were too many gaps.
        let covered =
            |slice: &&Slice| !pieces.iter().any(|p| p.start < slice.steps.end && slice.steps.start < p.end);
        let mut slices: Vec<Slice> = usable.iter().filter(covered).cloned().collect();
        self.counters.kept_steps.fetch_add(slices.iter().map(|s| count(&s.steps) as u64).sum(), Relaxed);
        let mut points: u64 = slices.iter().map(|slice| slice.extent.points()).sum();
        let mut stats = QueryStats::default();
        for steps in pieces {
            let (first, last) = (query.grid.at(steps.start), query.grid.at(steps.end - 1));
            let piece = self.engine.piece(
                ask.view,
                ask.text,
                Timestamp(first),
                Timestamp(last),
                ask.step,
                ask.options,
            );
            let piece = match piece.await {
                Ok(piece) => piece,
                Err(error) if alone || is_over(&error) => return Some(Err(error)),
                Err(_) => return None,
            };
            self.counters.evaluated_steps.fetch_add(count(&steps) as u64, Relaxed);
            // What is wrong with the store is told of the whole.
            if !alone && !may_be_kept(&piece) {
                return None;
            }
            if alone {
                return Some(Ok(Made::Whole { steps, piece }));
            }
            add(&mut stats, &piece.stats);
            let extent = Arc::new(Extent::of(&piece, query.grid, steps, now));
            let bytes = u64::try_from(extent.size()).unwrap_or(u64::MAX);
            if let Err(error) = self.engine.hold(ask.view, ask.options, bytes) {
                return Some(Err(error));
            }
            points = points.saturating_add(extent.points());
            // The whole would hold all of it at the end.
            if points > query.max_samples {
                return None;
            }
            slices.push(Slice::whole(extent));
        }
        slices.sort_by_key(|slice| slice.steps.start);
        if !query.fit(&slices) {
            return None;
        }
        Some(Ok(Made::Slices { slices, points, stats }))
    }

    /// Keeps an answer, and what else of its entry is still true; gives what there is now of about its steps.
    fn keep(
        &self,
        query: &Query<'_>,
        entry: Option<&Entry>,
        changes: &Changes,
        extent: Extent,
        rest: Rest,
    ) -> Arc<Extent> {
        let mut extents = vec![];
        let mut made = Slice::whole(Arc::new(extent));
        // What an extent has to say names places in the text it was asked with.
        let same_text = entry.is_some_and(|entry| *entry.text == *query.ask.text);
        for old in entry.iter().flat_map(|entry| &entry.extents) {
            if !query.meets(old) && (old.notes.is_empty() || same_text) {
                extents.push(Arc::clone(old));
            } else if query.meets(old) && query.footing.joins == Joins::Always {
                made = query.with_ends_of(made, old, changes);
            }
        }
        let kept = made.extent;
        extents.push(Arc::clone(&kept));
        if extents.len() > MOST_EXTENTS {
            extents.remove(0);
        }
        let entry = Entry { view: query.ask.view.clone(), text: query.ask.text.into(), extents, rest };
        let gone = self.shelf.lock().put(query.key.clone(), entry);
        self.counters.evictions.fetch_add(gone as u64, Relaxed);
        kept
    }
}

/// What an answer is made of.
#[derive(Debug)]
enum Made {
    /// All steps were evaluated in one go.
    Whole { steps: Range<i64>, piece: Piece },
    /// It is put together.
    Slices {
        /// In order, each next to the one before.
        slices: Vec<Slice>,
        /// Values in what they are slices of.
        points: u64,
        stats: QueryStats,
    },
}

impl Made {
    fn may_be_kept(&self) -> bool {
        match self {
            Self::Whole { piece, .. } => may_be_kept(piece),
            // Nothing else gets there.
            Self::Slices { .. } => true,
        }
    }

    /// About how many values have to be moved.
    fn points(&self) -> u64 {
        match self {
            Self::Whole { piece, .. } => {
                let points = piece.series.iter().map(|series| series.floats.len() + series.histograms.len());
                u64::try_from(points.sum::<usize>()).unwrap_or(u64::MAX)
            }
            Self::Slices { points, .. } => *points,
        }
    }

    /// The answer, and what is to be kept of it if that has room in so many bytes.
    fn answer(self, grid: Grid, text: &str, now: AsOf, room: usize) -> Option<(Answer, Option<Extent>)> {
        match self {
            Self::Whole { steps, piece } => {
                let least = piece.series.iter().map(|series| series.labels.as_canonical().len() + 64);
                let fits = least.sum::<usize>() < room;
                let extent = fits.then(|| Extent::of(&piece, grid, steps, now)).filter(|e| e.size() < room);
                Some((whole(piece, text), extent))
            }
            Self::Slices { slices, stats, .. } => {
                let extent = Extent::laid(slices, now)?;
                let answer = extent.answer(grid, text, stats);
                Some((answer, (room > 0).then_some(extent)))
            }
        }
    }
}

/// The answer that one piece is.
fn whole(piece: Piece, text: &str) -> Answer {
    let (mut warnings, infos) = piece.notes.render(text);
    for remark in piece.remarks {
        if !warnings.contains(&remark) {
            warnings.push(remark);
        }
    }
    Answer { value: Value::Matrix(piece.series), warnings, infos, stats: piece.stats }
}

/// Whether it can be laid beside others: the store left nothing out, and no name was dropped that may make two the same.
fn may_be_kept(piece: &Piece) -> bool {
    piece.remarks.is_empty() && !piece.made_of.described
}

/// Whether there is no time, no memory or nobody left for an evaluation of the whole.
fn is_over(error: &QueryError) -> bool {
    matches!(error, QueryError::Timeout(_) | QueryError::Canceled(_) | QueryError::Memory { .. })
}

fn unexpected(what: &str) -> QueryError {
    QueryError::Execution(format!("unexpected error: {what}"))
}

fn add(sum: &mut QueryStats, more: &QueryStats) {
    sum.samples_read += more.samples_read;
    sum.peak_samples = sum.peak_samples.max(more.peak_samples);
    sum.prepare_seconds += more.prepare_seconds;
    sum.select_seconds += more.select_seconds;
    sum.evaluate_seconds += more.evaluate_seconds;
    sum.queue_seconds += more.queue_seconds;
}
