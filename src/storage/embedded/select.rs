//! Answers: series and samples of a view, merged.
//!
//! Each head and part gives the series that match, in label order; the lists are sorted into one, and a series
//! remembers in which of the sources it is, from the oldest to the newest. Samples are read when they are
//! asked for: oldest first, newer ones laid over them, and what is deleted taken out.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use hashbrown::{HashMap, HashSet};
use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::{
    head::Head,
    merge::{hide, overlay, settle_gaps, trim},
    register::{hidden, matches_any},
    retention::Kept,
    tidy::hidden_or_too_old,
    view::{Sealed, View},
    wal::record::Tombstone,
};
use crate::{
    model::{Labels, Matcher, TenantId, TimeRange},
    storage::{
        Estimate, LabelsRequest, MatcherSets, ReadSeries, Result, Runs, SelectRequest, Selected,
        SeriesSamples, Sift, StorageError,
        selection::{IsOver, Meter, label_bytes},
    },
};

/// What a call sees of a tenant.
#[derive(Debug)]
pub(crate) struct Sight<'a> {
    pub(crate) view: &'a Arc<View>,
    pub(crate) tenant: &'a TenantId,
    pub(crate) tombstones: &'a [Tombstone],
    /// What is not too old.
    pub(crate) kept: &'a Kept<'a>,
    /// Whether something is known not to be readable.
    pub(crate) damaged: bool,
}

/// What a reader is told of damage; where it is, is for the log and the operator.
const DAMAGED: &str = "a part of the data is damaged and was left out";

/// So many values of a label are copied before they are looked at.
const FEW_VALUES: usize = 20_000;

#[derive(Clone, Debug)]
enum Source {
    Sealed(Arc<Sealed>),
    Head(Arc<Head>),
}

/// A series in a source: the source's place in the list, and the series' number in it.
type At = (u32, u32);

/// A series' labels and one place where it is.
type Found = (Labels, At);

#[derive(Debug)]
struct Selection {
    sources: Vec<Source>,
    /// Where each series is, from the oldest source to the newest.
    places: Vec<SmallVec<[At; 2]>>,
    range: TimeRange,
    /// What of that is wanted, and the gaps with it; none is all of it, without gaps.
    with_gaps: Option<TimeRange>,
    /// Whether values are wanted.
    values: bool,
    /// When each series is hidden; empty if nothing is.
    hidden: Vec<Vec<TimeRange>>,
    /// Whether something was met that does not read back.
    damaged: AtomicBool,
}

impl Sight<'_> {
    /// The series that pass, and a reader of their samples.
    pub(crate) fn select(
        mut self,
        request: &SelectRequest,
        range: Option<TimeRange>,
        is_over: IsOver<'_>,
    ) -> Result<Selected> {
        let meter = Meter::of(request).unless(is_over);
        let Some(wanted) = range else {
            let runs = Runs::SeriesMajor(Arc::new(Selection::of_nothing(request.range)));
            return Ok(Selected { series: Vec::new(), runs, taken: 0, warnings: self.warnings() });
        };
        let gap = if request.gaps { self.widest_gap(wanted) } else { 0 };
        // What of a gap is still to be said depends on everything that lies in it, wherever the range ends.
        let range = wanted.widened(gap);
        let (sources, found) = self.gather(&request.sets(), range, &meter, usize::MAX)?;
        let (mut series, mut places) = grouped(found);
        if gap > 0 {
            retain_both(&mut series, &mut places, |at| is_of(&sources[at.0 as usize], at.1, wanted));
        }
        meter.clone().count_all(&series)?;
        let hidden = if self.shows_all(range) {
            Vec::new()
        } else {
            let hidden = |labels| hidden_or_too_old(self.tombstones, self.kept, range, labels);
            series.iter().map(hidden).collect()
        };
        let damaged = AtomicBool::new(false);
        let with_gaps = (gap > 0).then_some(wanted);
        // Whether a gap stands is told by the values at its ends.
        let values = request.values || request.start_timestamps || gap > 0;
        let selection = Selection { sources, places, range, with_gaps, values, hidden, damaged };
        let runs = Runs::SeriesMajor(Arc::new(selection));
        Ok(Selected { series, runs, taken: 0, warnings: self.warnings() })
    }

    fn warnings(&self) -> Vec<String> {
        if self.damaged { vec![DAMAGED.to_owned()] } else { Vec::new() }
    }

    /// How wide the gaps are at most that may touch a range.
    fn widest_gap(&self, range: TimeRange) -> u64 {
        let with_gaps = self.view.parts.iter().filter(|sealed| sealed.part.meta().widest_gap > 0);
        let of_range = with_gaps.filter(|sealed| sealed.touches(self.tenant, range));
        of_range.map(|sealed| sealed.part.meta().widest_gap).max().unwrap_or(0)
    }

    /// The first series that pass and have visible samples in the range, as many as `limit`; 0 is all.
    pub(crate) fn series(
        &mut self,
        sets: &MatcherSets,
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<Labels>> {
        let every = [Vec::new()];
        let sets = if sets.is_empty() { &every[..] } else { sets };
        let most = if limit == 0 { usize::MAX } else { limit };
        // Where something is hidden nobody knows how many have to be looked at.
        let each_most = if self.tombstones.is_empty() { most } else { usize::MAX };
        let wanted = range;
        let gap = if self.tombstones.is_empty() { 0 } else { self.widest_gap(wanted) };
        // Where samples are looked at, a gap that the range is within is one more.
        let range = wanted.widened(gap);
        let (sources, found) = self.gather(sets, range, &Meter::unbounded(), each_most)?;
        let (mut series, mut places) = grouped(found);
        if gap > 0 {
            retain_both(&mut series, &mut places, |at| is_of(&sources[at.0 as usize], at.1, wanted));
        }
        if !self.tombstones.is_empty() {
            let hidden: Vec<Vec<TimeRange>> = series
                .iter()
                .map(|labels| match hidden(self.tombstones, labels) {
                    none if none.is_empty() => none,
                    _ => hidden_or_too_old(self.tombstones, self.kept, range, labels),
                })
                .collect();
            let selection = Selection {
                sources,
                places,
                range,
                with_gaps: (gap > 0).then_some(wanted),
                values: gap > 0,
                hidden,
                damaged: AtomicBool::new(self.damaged),
            };
            let mut samples = SeriesSamples::default();
            let mut visible = Vec::with_capacity(series.len());
            let mut seen = 0;
            for ordinal in 0..series.len() {
                samples.clear();
                // Only where something is hidden do samples have to be looked at.
                let is_seen = seen < most
                    && (selection.hidden[ordinal].is_empty() || {
                        selection.read(ordinal, &mut samples)?;
                        !samples.is_empty()
                    });
                seen += usize::from(is_seen);
                visible.push(is_seen);
            }
            let mut visible = visible.into_iter();
            series.retain(|_| visible.next().unwrap_or(true));
        }
        series.truncate(most);
        Ok(series)
    }

    /// The names of the labels of those series, the first as many as the request's limit.
    pub(crate) fn label_names(&mut self, request: &LabelsRequest, range: TimeRange) -> Result<Vec<String>> {
        let mut names = FirstTexts::of(request.limit);
        if self.shows_all(range) {
            for sealed in self.sealed(range) {
                let found = match unrestricted(&request.matchers) {
                    true => sealed.part.label_names(self.tenant),
                    false => find_any(&sealed, self.tenant, &request.matchers)
                        .and_then(|found| sealed.part.label_names_of(self.tenant, &found)),
                };
                names.extend(self.unless_damaged(&sealed, found)?.iter().flatten().map(String::as_str));
            }
            if unrestricted(&request.matchers) {
                let mut all = BTreeSet::new();
                self.heads(range).iter().for_each(|head| head.names_into(self.tenant, &mut all));
                names.extend(all.iter().map(String::as_str));
            } else {
                let mut all = BTreeSet::new();
                for (head, found) in self.found_in_heads(&request.matchers, range) {
                    head.names_among(self.tenant, &found, &mut all);
                }
                names.extend(all.iter().map(String::as_str));
            }
        } else {
            for labels in self.series(&request.matchers, range, 0)? {
                names.extend(labels.iter().map(|(name, _)| name));
            }
        }
        Ok(names.done())
    }

    /// The values of a label of those series, the first as many as the request's limit.
    pub(crate) fn label_values(
        &mut self,
        name: &str,
        request: &LabelsRequest,
        range: TimeRange,
    ) -> Result<Vec<String>> {
        let mut values = FirstTexts::of(request.limit);
        if self.shows_all(range) {
            for sealed in self.sealed(range) {
                // They come in order: who has enough of them needs none of the others.
                let shown =
                    each_in_part(&sealed, self.tenant, name, &request.matchers, |value| values.offer(value));
                self.unless_damaged(&sealed, shown)?;
            }
            if unrestricted(&request.matchers) {
                for head in self.heads(range) {
                    head.each_value(self.tenant, name, |value| values.extend([value]));
                }
            } else {
                for (head, found) in self.found_in_heads(&request.matchers, range) {
                    head.each_value_among(self.tenant, name, &found, |value| values.extend([value]));
                }
            }
        } else {
            for labels in self.series(&request.matchers, range, 0)? {
                values.extend(labels.get(name));
            }
        }
        Ok(values.done())
    }

    /// Shows the values of a label of those series.
    pub(crate) fn sift_label_values(
        &mut self,
        name: &str,
        sets: &MatcherSets,
        range: TimeRange,
        sift: &dyn Sift,
    ) -> Result<()> {
        if !self.shows_all(range) {
            let series = self.series(sets, range, 0)?;
            let _ = series.iter().filter_map(|labels| labels.get(name)).try_for_each(|text| sift.see(text));
            return Ok(());
        }
        let mut enough = ControlFlow::Continue(());
        for sealed in self.sealed(range) {
            let shown = each_in_part(&sealed, self.tenant, name, sets, |value| {
                enough = sift.see(value);
                enough
            });
            self.unless_damaged(&sealed, shown)?;
            if enough.is_break() {
                return Ok(());
            }
        }
        let heads = self.heads(range);
        let values = heads.iter().map(|head| head.value_count(self.tenant, name)).max().unwrap_or(0);
        if unrestricted(sets) && values <= FEW_VALUES {
            let mut all = BTreeSet::new();
            heads.iter().for_each(|head| {
                head.each_value(self.tenant, name, |value| {
                    all.insert(value.to_owned());
                });
            });
            let _ = all.iter().try_for_each(|text| sift.see(text));
            return Ok(());
        }
        // Nobody can begin a series while the values of a label are walked over: of many, each series is asked.
        self.each_in_heads(sets, range, |labels| labels.get(name).map_or(enough, |text| sift.see(text)));
        Ok(())
    }

    /// How much there is to read.
    pub(crate) fn estimate(&mut self, sets: &[Vec<Matcher>], range: TimeRange) -> Result<Estimate> {
        let (parts, heads) = (self.sealed(range), self.heads(range));
        let several = parts.len() + heads.len() > 1;
        let mut seen = HashSet::new();
        let mut sum = Estimate::default();
        let mut count = |labels: &Labels, of_place: Estimate| {
            sum.add(&of_place);
            if !several || seen.insert(labels.id()) {
                sum.series += 1;
                sum.label_bytes += label_bytes(labels);
            }
        };
        for sealed in parts {
            let counted = estimate_of(&sealed, self.tenant, sets, range, &mut count);
            self.unless_damaged(&sealed, counted)?;
        }
        for head in heads {
            for number in find_in_head(&head, self.tenant, sets) {
                let found = head.look(number, |s| {
                    s.range().filter(|r| r.overlaps(range)).map(|_| (s.labels(), s.estimate(range)))
                });
                if let Some((labels, of_head)) = found.flatten() {
                    count(&labels, of_head);
                }
            }
        }
        Ok(sum)
    }

    /// Whether whatever has samples in a range shows them all.
    fn shows_all(&self, range: TimeRange) -> bool {
        self.tombstones.is_empty() && self.kept.all_since <= range.start()
    }

    fn sealed(&self, range: TimeRange) -> Vec<Arc<Sealed>> {
        self.view.parts.iter().filter(|p| p.touches(self.tenant, range)).map(Arc::clone).collect()
    }

    fn heads(&self, range: TimeRange) -> Vec<Arc<Head>> {
        let overlapping = |head: &&Arc<Head>| head.range().is_some_and(|r| r.overlaps(range));
        self.view.heads.iter().filter(overlapping).map(Arc::clone).collect()
    }

    /// The heads with samples in a range, each with the series that pass and have some.
    fn found_in_heads(&self, sets: &MatcherSets, range: TimeRange) -> Vec<(Arc<Head>, RoaringBitmap)> {
        let with_samples = |head: Arc<Head>| {
            let found = head.with_samples(&find_in_head(&head, self.tenant, sets), range);
            (head, found)
        };
        self.heads(range).into_iter().map(with_samples).collect()
    }

    /// Shows the labels of the heads' series that pass, until that is enough.
    fn each_in_heads(
        &self,
        sets: &MatcherSets,
        range: TimeRange,
        mut each: impl FnMut(&Labels) -> ControlFlow<()>,
    ) {
        for head in self.heads(range) {
            for number in find_in_head(&head, self.tenant, sets) {
                let labels =
                    head.look(number, |s| s.range().filter(|r| r.overlaps(range)).map(|_| s.labels()));
                if labels.flatten().map(|labels| each(&labels)).is_some_and(|enough| enough.is_break()) {
                    return;
                }
            }
        }
    }

    /// Every series that passes one of the sets, in each source that has samples of it in the range. A source that
    /// goes beyond the bounds alone is an error at once; all of them together may have a series several times. No
    /// source gives more than its first `most`.
    fn gather(
        &mut self,
        sets: &[Vec<Matcher>],
        range: TimeRange,
        meter: &Meter<'_>,
        most: usize,
    ) -> Result<(Vec<Source>, Vec<Found>)> {
        let (mut sources, mut all) = (Vec::new(), Vec::new());
        for sealed in self.sealed(range) {
            let source = u32::try_from(sources.len()).expect("fewer parts than that are open");
            let found = series_of(&sealed, self.tenant, sets, range, self.kept, meter.clone(), most);
            if let Some(found) = self.unless_damaged(&sealed, found)? {
                all.extend(found.into_iter().map(|(labels, ordinal)| (labels, (source, ordinal))));
                sources.push(Source::Sealed(sealed));
            }
        }
        for head in self.heads(range) {
            let source = u32::try_from(sources.len()).expect("fewer parts than that are open");
            let (mut found, mut meter) = (Vec::new(), meter.clone());
            for number in find_in_head(&head, self.tenant, sets) {
                let labels = head.look(number, |s| {
                    let has = s.range().filter(|has| has.overlaps(range))?;
                    let labels = s.labels();
                    self.kept.of(&labels, range).filter(|left| has.overlaps(*left)).map(|_| labels)
                });
                if let Some(labels) = labels.flatten() {
                    meter.count(&labels)?;
                    found.push((labels, (source, number)));
                }
                if found.len() / 2 > most.max(1024) {
                    found.sort_unstable_by(|a: &Found, b| a.0.cmp(&b.0));
                    found.truncate(most);
                }
            }
            found.sort_by(|a, b| a.0.cmp(&b.0));
            found.truncate(most);
            all.append(&mut found);
            sources.push(Source::Head(head));
        }
        Ok((sources, all))
    }

    /// None, and a warning, if a part's index is damaged: it is left out.
    fn unless_damaged<T>(&mut self, sealed: &Sealed, outcome: Result<T>) -> Result<Option<T>> {
        let outcome = sealed.noting(outcome);
        self.damaged |= sealed.damage().is_some();
        match outcome {
            Ok(found) => Ok(Some(found)),
            Err(StorageError::Corrupt { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }
}

/// Whether the sets let every series pass.
fn unrestricted(sets: &MatcherSets) -> bool {
    sets.is_empty() || sets.iter().any(Vec::is_empty)
}

fn find_any(sealed: &Sealed, tenant: &TenantId, sets: &[Vec<Matcher>]) -> Result<RoaringBitmap> {
    let mut found = RoaringBitmap::new();
    for set in sets {
        found |= sealed.part.find(tenant, set)?;
    }
    Ok(found)
}

/// The numbers of a head's series that pass one of the sets.
pub(crate) fn find_in_head(head: &Head, tenant: &TenantId, sets: &[Vec<Matcher>]) -> RoaringBitmap {
    if sets.is_empty() {
        return head.all(tenant);
    }
    sets.iter().fold(RoaringBitmap::new(), |found, set| found | head.find(tenant, set))
}

fn series_of(
    sealed: &Sealed,
    tenant: &TenantId,
    sets: &[Vec<Matcher>],
    range: TimeRange,
    kept: &Kept<'_>,
    mut meter: Meter<'_>,
    most: usize,
) -> Result<Vec<(Labels, u32)>> {
    let whole = sealed.range().is_some_and(|r| r.intersection(range) == Some(r));
    let ordinals = find_any(sealed, tenant, sets)?;
    let mut found = Vec::new();
    for ordinal in ordinals {
        if whole || has_some(sealed, ordinal, range)? {
            let Some(labels) = unless_unknown(sealed, sealed.part.labels(ordinal))? else { continue };
            if kept.all_since > range.start() {
                let left = kept.of(&labels, range).map(|left| has_some(sealed, ordinal, left));
                if !left.transpose()?.unwrap_or(false) {
                    continue;
                }
            }
            meter.count(&labels)?;
            found.push((labels, ordinal));
            // Ordinals are in label order.
            if found.len() >= most {
                break;
            }
        }
    }
    Ok(found)
}

/// Counts what a part has of each series that passes.
fn estimate_of(
    sealed: &Sealed,
    tenant: &TenantId,
    sets: &[Vec<Matcher>],
    range: TimeRange,
    mut count: impl FnMut(&Labels, Estimate),
) -> Result<()> {
    let whole = sealed.range().is_some_and(|r| r.intersection(range) == Some(r));
    let mut counted = HashMap::new();
    for ordinal in find_any(sealed, tenant, sets)? {
        if whole || has_some(sealed, ordinal, range)? {
            let of_series = sealed.part.estimate(ordinal, range, &mut counted);
            let Some(of_series) = unless_unknown(sealed, of_series)? else { continue };
            let Some(labels) = unless_unknown(sealed, sealed.part.labels(ordinal))? else { continue };
            count(&labels, of_series);
        }
    }
    Ok(())
}

/// What the index says of a series; none, and the part is known to be damaged, if that does not read back.
fn unless_unknown<T>(sealed: &Sealed, said: Result<T>) -> Result<Option<T>> {
    match sealed.noting(said) {
        Ok(said) => Ok(Some(said)),
        Err(StorageError::Corrupt { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

/// Whether a series may have samples in a range.
fn has_some(sealed: &Sealed, ordinal: u32, range: TimeRange) -> Result<bool> {
    let has = unless_unknown(sealed, sealed.part.series_range(ordinal))?;
    Ok(has.is_none_or(|has| has.overlaps(range)))
}

/// Shows the values of a label of a part's series that pass, in order, until that is enough.
fn each_in_part(
    sealed: &Sealed,
    tenant: &TenantId,
    name: &str,
    sets: &MatcherSets,
    each: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<()> {
    let found = if unrestricted(sets) { None } else { Some(find_any(sealed, tenant, sets)?) };
    sealed.part.each_label_value(tenant, name, found.as_ref(), each)
}

/// The first of many texts in order, each once.
struct FirstTexts {
    all: BTreeSet<String>,
    most: usize,
}

impl FirstTexts {
    /// As many as `limit`; 0 is all.
    fn of(limit: usize) -> Self {
        Self { all: BTreeSet::new(), most: if limit == 0 { usize::MAX } else { limit } }
    }

    /// Takes a text if it is one of the first. A break says that none after it will be.
    fn offer(&mut self, text: &str) -> ControlFlow<()> {
        let full = self.all.len() >= self.most;
        if full && self.all.last().is_some_and(|last| last.as_str() <= text) {
            return ControlFlow::Break(());
        }
        if !self.all.contains(text) {
            if full {
                self.all.pop_last();
            }
            self.all.insert(text.to_owned());
        }
        ControlFlow::Continue(())
    }

    /// Takes those of the texts, in no order, that are among the first.
    fn extend<'t>(&mut self, texts: impl IntoIterator<Item = &'t str>) {
        for text in texts {
            // Another may come before it.
            let _ = self.offer(text);
        }
    }

    fn done(self) -> Vec<String> {
        self.all.into_iter().collect()
    }
}

/// Whether a source has samples of a series in a range, or on both sides of it; what does not read back may have.
fn is_of(source: &Source, number: u32, range: TimeRange) -> bool {
    match source {
        Source::Head(head) => head.look(number, |s| s.range()).flatten().is_some_and(|r| r.overlaps(range)),
        Source::Sealed(sealed) => sealed.part.series_range(number).map_or(true, |r| r.overlaps(range)),
    }
}

/// Keeps the series of which one of the places is among those wanted.
fn retain_both(series: &mut Vec<Labels>, places: &mut Vec<SmallVec<[At; 2]>>, wanted: impl Fn(At) -> bool) {
    let keep: Vec<bool> = places.iter().map(|all| all.iter().any(|at| wanted(*at))).collect();
    let mut of_series = keep.iter();
    series.retain(|_| of_series.next() == Some(&true));
    let mut of_places = keep.iter();
    places.retain(|_| of_places.next() == Some(&true));
}

/// Brings the places of each series together, in label order.
fn grouped(mut found: Vec<Found>) -> (Vec<Labels>, Vec<SmallVec<[At; 2]>>) {
    let from_one_source = found.windows(2).all(|pair| pair[0].1.0 == pair[1].1.0);
    if from_one_source {
        return found.into_iter().map(|(labels, at)| (labels, SmallVec::from_slice(&[at]))).unzip();
    }
    // The lists of the sources are sorted already, which this sort makes use of; it keeps their order.
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let mut series: Vec<Labels> = Vec::with_capacity(found.len());
    let mut places: Vec<SmallVec<[At; 2]>> = Vec::with_capacity(found.len());
    for (labels, at) in found {
        match places.last_mut().filter(|_| series.last() == Some(&labels)) {
            Some(places) => places.push(at),
            None => {
                series.push(labels);
                places.push(SmallVec::from_slice(&[at]));
            }
        }
    }
    (series, places)
}

impl Selection {
    /// One without series.
    fn of_nothing(range: TimeRange) -> Self {
        let (sources, places, hidden) = (Vec::new(), Vec::new(), Vec::new());
        let damaged = AtomicBool::new(false);
        Self { sources, places, range, with_gaps: None, values: true, hidden, damaged }
    }

    fn read_source(&self, at: At, into: &mut SeriesSamples) -> Result<()> {
        match &self.sources[at.0 as usize] {
            Source::Head(head) => {
                head.read(at.1, self.range, into);
                Ok(())
            }
            Source::Sealed(sealed) => {
                let read = match self.values {
                    true => sealed.part.read(at.1, self.range, into),
                    false => sealed.part.read_times(at.1, self.range, into),
                };
                match sealed.noting(read) {
                    Err(StorageError::Corrupt { .. }) => {
                        self.damaged.store(true, Relaxed);
                        sealed.part.read_around(at.1, self.range, into)
                    }
                    outcome => outcome,
                }
            }
        }
    }
}

impl ReadSeries for Selection {
    fn warnings(&self) -> Vec<String> {
        if self.damaged.load(Relaxed) { vec![DAMAGED.to_owned()] } else { Vec::new() }
    }

    fn read(&self, ordinal: usize, into: &mut SeriesSamples) -> Result<()> {
        let Some(places) = self.places.get(ordinal) else {
            return Err(StorageError::Unsupported(format!("there is no series number {ordinal}")));
        };
        let hidden = self.hidden.get(ordinal).map_or(&[][..], Vec::as_slice);
        if let [at] = places[..]
            && hidden.is_empty()
            && self.with_gaps.is_none()
        {
            self.read_source(at, into)?;
            into.gaps.clear();
            return Ok(());
        }
        let (mut all, mut one) = (SeriesSamples::default(), SeriesSamples::default());
        for at in places {
            one.clear();
            self.read_source(*at, &mut one)?;
            overlay(&mut all, &mut one);
        }
        settle_gaps(&mut all);
        if !hidden.is_empty() {
            hide(&mut all, hidden);
        }
        match self.with_gaps {
            Some(wanted) => trim(&mut all, wanted),
            None => all.gaps.clear(),
        }
        if into.is_empty() {
            std::mem::swap(into, &mut all);
        } else {
            for i in 0..all.timestamps.len() {
                into.push(all.timestamps[i], all.values[i], all.start(i));
            }
            into.gaps.append(&mut all.gaps);
            into.histograms.append(&mut all.histograms);
        }
        Ok(())
    }
}

/// Whether a series' exemplar passes.
pub(crate) fn wanted(sets: &MatcherSets, labels: &Labels) -> bool {
    matches_any(sets, labels)
}
