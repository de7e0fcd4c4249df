//! Answers: series and samples of a view, merged.
//!
//! Each head and part gives the series that match, in label order; the lists are sorted into one, and a series
//! remembers in which of the sources it is, from the oldest to the newest. Samples are read when they are
//! asked for: oldest first, newer ones laid over them, and what is deleted taken out.

use std::{collections::BTreeSet, sync::Arc};

use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::{
    head::Head,
    merge::{overlay, retain},
    register::{hidden, matches_any},
    view::{Sealed, View},
    wal::record::Tombstone,
};
use crate::{
    model::{Labels, Matcher, TenantId, TimeRange, Timestamp},
    storage::{
        LabelsRequest, MatcherSets, ReadSeries, Result, Runs, SelectRequest, Selected, SeriesSamples,
        StorageError, selection::Meter,
    },
};

/// What a call sees of a tenant.
#[derive(Debug)]
pub(crate) struct Sight<'a> {
    pub(crate) view: &'a Arc<View>,
    pub(crate) tenant: &'a TenantId,
    pub(crate) tombstones: &'a [Tombstone],
    /// Whether something is known not to be readable.
    pub(crate) damaged: bool,
}

/// What a reader is told of damage; where it is, is for the log and the operator.
const DAMAGED: &str = "a part of the data is damaged and was left out";

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
    /// When each series is hidden; empty if nothing is.
    hidden: Vec<Vec<TimeRange>>,
}

impl Sight<'_> {
    /// The series that pass, and a reader of their samples.
    pub(crate) fn select(mut self, request: &SelectRequest, range: Option<TimeRange>) -> Result<Selected> {
        let (sources, found) = match range {
            Some(range) => self.gather(&request.sets(), range, &Meter::of(request))?,
            None => (Vec::new(), Vec::new()),
        };
        let range = range.unwrap_or(request.range);
        let (series, places) = grouped(found);
        Meter::of(request).count_all(&series)?;
        let hidden = if self.tombstones.is_empty() {
            Vec::new()
        } else {
            series.iter().map(|labels| hidden(self.tombstones, labels)).collect()
        };
        let runs = Runs::SeriesMajor(Arc::new(Selection { sources, places, range, hidden }));
        let warnings = if self.damaged { vec![DAMAGED.to_owned()] } else { Vec::new() };
        Ok(Selected { series, runs, taken: 0, warnings })
    }

    /// The series that pass and have visible samples in the range.
    pub(crate) fn series(&mut self, sets: &MatcherSets, range: TimeRange) -> Result<Vec<Labels>> {
        let every = [Vec::new()];
        let (sources, found) =
            self.gather(if sets.is_empty() { &every } else { sets }, range, &Meter::unbounded())?;
        let (mut series, places) = grouped(found);
        if !self.tombstones.is_empty() {
            let hidden: Vec<Vec<TimeRange>> = series.iter().map(|l| hidden(self.tombstones, l)).collect();
            let selection = Selection { sources, places, range, hidden };
            let mut samples = SeriesSamples::default();
            let mut visible = Vec::with_capacity(series.len());
            for ordinal in 0..series.len() {
                samples.clear();
                // Only where something is hidden do samples have to be looked at.
                let seen = selection.hidden[ordinal].is_empty() || {
                    selection.read(ordinal, &mut samples)?;
                    !samples.is_empty()
                };
                visible.push(seen);
            }
            let mut visible = visible.into_iter();
            series.retain(|_| visible.next().unwrap_or(true));
        }
        Ok(series)
    }

    /// The names of the labels of those series.
    pub(crate) fn label_names(
        &mut self,
        request: &LabelsRequest,
        range: TimeRange,
    ) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        if self.tombstones.is_empty() {
            for sealed in self.sealed(range) {
                let found = match unrestricted(&request.matchers) {
                    true => sealed.part.label_names(self.tenant),
                    false => find_any(&sealed, self.tenant, &request.matchers)
                        .and_then(|found| sealed.part.label_names_of(self.tenant, &found)),
                };
                names.extend(self.unless_damaged(&sealed, found)?.unwrap_or_default());
            }
            if unrestricted(&request.matchers) {
                self.heads(range).iter().for_each(|head| head.names_into(self.tenant, &mut names));
                return Ok(names);
            }
            for labels in self.head_series(&request.matchers, range) {
                add_names(&mut names, &labels);
            }
        } else {
            for labels in self.series(&request.matchers, range)? {
                add_names(&mut names, &labels);
            }
        }
        Ok(names)
    }

    /// The values of a label of those series.
    pub(crate) fn label_values(
        &mut self,
        name: &str,
        request: &LabelsRequest,
        range: TimeRange,
    ) -> Result<BTreeSet<String>> {
        let mut values = BTreeSet::new();
        if self.tombstones.is_empty() {
            for sealed in self.sealed(range) {
                let found = match unrestricted(&request.matchers) {
                    true => sealed.part.label_values(self.tenant, name),
                    false => find_any(&sealed, self.tenant, &request.matchers)
                        .and_then(|found| sealed.part.label_values_of(self.tenant, name, &found)),
                };
                values.extend(self.unless_damaged(&sealed, found)?.unwrap_or_default());
            }
            if unrestricted(&request.matchers) {
                self.heads(range).iter().for_each(|head| head.values_into(self.tenant, name, &mut values));
                return Ok(values);
            }
            for labels in self.head_series(&request.matchers, range) {
                values.extend(labels.get(name).map(str::to_owned));
            }
        } else {
            for labels in self.series(&request.matchers, range)? {
                values.extend(labels.get(name).map(str::to_owned));
            }
        }
        Ok(values)
    }

    fn sealed(&self, range: TimeRange) -> Vec<Arc<Sealed>> {
        self.view.parts.iter().filter(|p| p.touches(self.tenant, range)).map(Arc::clone).collect()
    }

    fn heads(&self, range: TimeRange) -> Vec<Arc<Head>> {
        let overlapping = |head: &&Arc<Head>| head.range().is_some_and(|r| r.overlaps(range));
        self.view.heads.iter().filter(overlapping).map(Arc::clone).collect()
    }

    fn head_series(&self, sets: &MatcherSets, range: TimeRange) -> Vec<Labels> {
        let mut found = Vec::new();
        for head in self.heads(range) {
            for number in find_in_head(&head, self.tenant, sets) {
                let labels =
                    head.look(number, |s| s.range().filter(|r| r.overlaps(range)).map(|_| s.labels.clone()));
                found.extend(labels.flatten());
            }
        }
        found
    }

    /// Every series that passes one of the sets, in each source that has samples of it in the range. A source that
    /// goes beyond the bounds alone is an error at once; all of them together may have a series several times.
    fn gather(
        &mut self,
        sets: &[Vec<Matcher>],
        range: TimeRange,
        meter: &Meter,
    ) -> Result<(Vec<Source>, Vec<Found>)> {
        let (mut sources, mut all) = (Vec::new(), Vec::new());
        for sealed in self.sealed(range) {
            let source = u32::try_from(sources.len()).expect("fewer parts than that are open");
            let found = series_of(&sealed, self.tenant, sets, range, meter.clone());
            if let Some(found) = self.unless_damaged(&sealed, found)? {
                all.extend(found.into_iter().map(|(labels, ordinal)| (labels, (source, ordinal))));
                sources.push(Source::Sealed(sealed));
            }
        }
        for head in self.heads(range) {
            let source = u32::try_from(sources.len()).expect("fewer parts than that are open");
            let (mut found, mut meter) = (Vec::new(), meter.clone());
            for number in find_in_head(&head, self.tenant, sets) {
                let labels =
                    head.look(number, |s| s.range().filter(|r| r.overlaps(range)).map(|_| s.labels.clone()));
                if let Some(labels) = labels.flatten() {
                    meter.count(&labels)?;
                    found.push((labels, (source, number)));
                }
            }
            found.sort_by(|a, b| a.0.cmp(&b.0));
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

fn add_names(names: &mut BTreeSet<String>, labels: &Labels) {
    for (name, _) in labels {
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
    }
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
    mut meter: Meter,
) -> Result<Vec<(Labels, u32)>> {
    let whole = sealed.range().is_some_and(|r| r.intersection(range) == Some(r));
    let ordinals = find_any(sealed, tenant, sets)?;
    let mut found = Vec::new();
    for ordinal in ordinals {
        if whole || sealed.part.series_range(ordinal)?.overlaps(range) {
            let labels = sealed.part.labels(ordinal)?;
            meter.count(&labels)?;
            found.push((labels, ordinal));
        }
    }
    Ok(found)
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
    fn read_source(&self, at: At, into: &mut SeriesSamples) -> Result<()> {
        match &self.sources[at.0 as usize] {
            Source::Head(head) => {
                head.read(at.1, self.range, into);
                Ok(())
            }
            Source::Sealed(sealed) => {
                let known = sealed.damage().is_some();
                match sealed.noting(sealed.part.read(at.1, self.range, into)) {
                    // Those who asked since it is known have been warned.
                    Err(StorageError::Corrupt { .. }) if known => Ok(()),
                    outcome => outcome,
                }
            }
        }
    }
}

impl ReadSeries for Selection {
    fn read(&self, ordinal: usize, into: &mut SeriesSamples) -> Result<()> {
        let Some(places) = self.places.get(ordinal) else {
            return Err(StorageError::Unsupported(format!("there is no series number {ordinal}")));
        };
        let hidden = self.hidden.get(ordinal).map_or(&[][..], Vec::as_slice);
        if let [at] = places[..]
            && hidden.is_empty()
        {
            return self.read_source(at, into);
        }
        let (mut all, mut one) = (SeriesSamples::default(), SeriesSamples::default());
        for at in places {
            one.clear();
            self.read_source(*at, &mut one)?;
            overlay(&mut all, &mut one);
        }
        if !hidden.is_empty() {
            retain(&mut all, |at| !hidden.iter().any(|r| r.contains(Timestamp(at))));
        }
        if into.is_empty() {
            std::mem::swap(into, &mut all);
        } else {
            for i in 0..all.timestamps.len() {
                into.push(all.timestamps[i], all.values[i], all.start(i));
            }
            into.histograms.append(&mut all.histograms);
        }
        Ok(())
    }
}

/// Whether a series' exemplar passes.
pub(crate) fn wanted(sets: &MatcherSets, labels: &Labels) -> bool {
    matches_any(sets, labels)
}
