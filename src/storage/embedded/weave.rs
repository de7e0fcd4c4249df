//! The series of several parts in order, each once, with the samples of all.
//!
//! Parts are read through handles of their own, whose few pages are read ahead and forgotten: a merge passes over
//! everything once, and must not push out of memory what queries use. Each input keeps some series decoded, as many as lie
//! together in its index; so memory is bounded by the number of inputs, whatever the parts hold.

use std::{collections::VecDeque, sync::Arc};

use super::{
    disk::Disk,
    merge::overlay,
    part::{PageCache, Part, PartSeries},
    view::Sealed,
};
use crate::{
    model::TimeRange,
    storage::{Result, SeriesSamples},
};

/// What an input keeps of its pages: a page for each shard of the cache.
const PAGES: usize = 1 << 20;

/// So many series are read ahead: those that the index has in a group.
const AHEAD: usize = 16;

/// With so many samples no more series are read ahead.
const AHEAD_SAMPLES: usize = 1 << 16;

/// A histogram counts for as many samples as it takes memory.
const HISTOGRAM_SAMPLES: usize = 64;

/// A sample takes so many bytes when it is decoded.
const SAMPLE: u64 = 24;

/// What the writer remembers, to find the same bytes and the same times again.
const REMEMBERED: u64 = 32 << 20;

/// About the memory that is held to make one part of these.
///
/// Each is read by a window. What is written keeps its index until the end, which takes twice what it takes in a file; neighbours
/// mostly have the same series.
pub(crate) fn bytes_to_merge(parts: &[Arc<Sealed>]) -> u64 {
    let window = |sealed: &Arc<Sealed>| {
        let meta = sealed.part.meta();
        let samples = meta.histograms.saturating_mul(HISTOGRAM_SAMPLES as u64).saturating_add(meta.samples);
        meta.bytes.min(PAGES as u64) + SAMPLE * samples.min(2 * AHEAD_SAMPLES as u64)
    };
    let files: u64 = parts.iter().map(|sealed| sealed.part.meta().bytes).sum();
    let index = parts.iter().map(|sealed| sealed.part.index_bytes()).max().unwrap_or(0);
    parts.iter().map(window).sum::<u64>() + 2 * index + files.min(REMEMBERED)
}

/// Walks over the series of several parts, in order, with their samples as one.
#[derive(Debug)]
pub(crate) struct Weave<'a> {
    /// From the oldest to the newest.
    inputs: Vec<Input<'a>>,
    gaps_gone: u64,
}

#[derive(Debug)]
struct Input<'a> {
    sealed: &'a Sealed,
    part: Part,
    /// The number of the next series to be read.
    next: u32,
    ahead: VecDeque<(PartSeries, SeriesSamples)>,
}

impl<'a> Weave<'a> {
    /// Begins to walk over parts, given from the oldest to the newest.
    pub(crate) fn over(disk: &Arc<dyn Disk>, parts: &'a [Arc<Sealed>]) -> Result<Self> {
        let mut inputs = Vec::with_capacity(parts.len());
        for sealed in parts {
            let part = sealed.noting(Part::open_with_cache(disk, sealed.path(), &PageCache::new(PAGES)))?;
            let mut input = Input { sealed, part, next: 0, ahead: VecDeque::with_capacity(AHEAD) };
            input.read_ahead()?;
            inputs.push(input);
        }
        Ok(Self { inputs, gaps_gone: 0 })
    }

    /// The next series, and what newer parts leave of the samples of older ones.
    pub(crate) fn next(&mut self) -> Result<Option<(PartSeries, SeriesSamples)>> {
        let order = |s: &PartSeries, t: &PartSeries| (&s.tenant, &s.labels).cmp(&(&t.tenant, &t.labels));
        let heads = self.inputs.iter().filter_map(|input| input.ahead.front().map(|(series, _)| series));
        let Some(least) = heads.min_by(|a, b| order(a, b)).cloned() else { return Ok(None) };
        let mut all = SeriesSamples::default();
        for input in &mut self.inputs {
            if input.ahead.front().is_some_and(|(series, _)| order(series, &least).is_eq())
                && let Some((_, mut samples)) = input.ahead.pop_front()
            {
                self.gaps_gone += overlay(&mut all, &mut samples);
                if input.ahead.is_empty() {
                    input.read_ahead()?;
                }
            }
        }
        Ok(Some((least, all)))
    }

    /// How many gaps have gone so far because a sample at an end of them became another.
    pub(crate) fn gaps_gone(&self) -> u64 {
        self.gaps_gone
    }
}

impl Input<'_> {
    fn read_ahead(&mut self) -> Result<()> {
        let mut held = 0;
        while self.ahead.len() < AHEAD && held < AHEAD_SAMPLES {
            let Some(series) = self.sealed.noting(self.part.series(self.next))? else { break };
            let mut samples = SeriesSamples::default();
            self.sealed.noting(self.part.read(self.next, TimeRange::ALL, &mut samples))?;
            held += samples.timestamps.len() + samples.histograms.len() * HISTOGRAM_SAMPLES;
            self.next += 1;
            self.ahead.push_back((series, samples));
        }
        Ok(())
    }
}
