//! The messages both versions of remote write have: samples, and the collecting of what a request holds.

use super::{
    BadSample, bound,
    histogram::DecodedHistogram,
    wire::{DecodeError, Message},
};
use crate::{
    ingest::{IngestError, IngestLimits, outcome::Reason, validate},
    model::{Exemplar, Timestamp},
    storage::{BatchExemplar, BatchHistogram, BatchSample, SampleKind},
};

/// One float sample as it stands in the request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DecodedSample {
    value: f64,
    timestamp: i64,
    start: i64,
}

impl DecodedSample {
    pub(super) fn new(value: f64, timestamp: i64, start: i64) -> Self {
        Self { value, timestamp, start }
    }
}

/// Reads what an exemplar's message says besides its labels, which the versions write differently.
pub(super) fn exemplar_point(mut message: Message<'_>) -> Result<(f64, Timestamp), DecodeError> {
    let (mut value, mut timestamp) = (0.0, Timestamp(0));
    while let Some(field) = message.next()? {
        match field.number {
            2 => value = field.double()?,
            3 => timestamp = Timestamp(field.int64()?),
            _ => {}
        }
    }
    Ok((value, timestamp))
}

/// Reads a sample.
#[inline]
pub(super) fn sample(mut message: Message<'_>) -> Result<DecodedSample, DecodeError> {
    let mut sample = DecodedSample::default();
    while let Some(field) = message.next()? {
        match field.number {
            1 => sample.value = field.double()?,
            2 => sample.timestamp = field.int64()?,
            3 => sample.start = field.int64()?,
            _ => {}
        }
    }
    Ok(sample)
}

/// Everything of a request that belongs to a series and a time.
#[derive(Debug)]
pub(super) struct Collected<'l> {
    limits: &'l IngestLimits,
    /// What is later than this is refused.
    latest: Timestamp,
    pub(super) samples: Vec<BatchSample>,
    pub(super) histograms: Vec<BatchHistogram>,
    pub(super) exemplars: Vec<BatchExemplar>,
    pub(super) bad: Vec<BadSample>,
}

/// How far the lists of [`Collected`] had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    samples: usize,
    histograms: usize,
    bad_samples: usize,
}

impl<'l> Collected<'l> {
    pub(super) fn new(limits: &'l IngestLimits, latest: Timestamp) -> Self {
        Self {
            limits,
            latest,
            samples: Vec::new(),
            histograms: Vec::new(),
            exemplars: Vec::new(),
            bad: Vec::new(),
        }
    }

    #[inline]
    pub(super) fn sample(&mut self, series: u32, sample: DecodedSample) -> Result<(), IngestError> {
        let timestamp = Timestamp(sample.timestamp);
        if timestamp > self.latest {
            return self.refuse(series, SampleKind::Float, timestamp, Reason::InFuture);
        }
        if self.samples.len() == self.samples.capacity() {
            self.bound()?;
        }
        self.samples.push(BatchSample { series, timestamp, value: sample.value, start: sample.start });
        Ok(())
    }

    pub(super) fn histogram(&mut self, series: u32, decoded: DecodedHistogram) -> Result<(), IngestError> {
        let DecodedHistogram { histogram, timestamp, start } = decoded;
        if timestamp > self.latest {
            return self.refuse(series, SampleKind::Histogram, timestamp, Reason::InFuture);
        }
        match validate::histogram(histogram) {
            Ok(histogram) => {
                self.bound()?;
                let histogram = histogram.into();
                self.histograms.push(BatchHistogram { series, timestamp, histogram, start });
                Ok(())
            }
            Err(reason) => {
                self.refuse(series, SampleKind::Histogram, timestamp, Reason::BadHistogram(reason))
            }
        }
    }

    pub(super) fn exemplar(
        &mut self,
        series: u32,
        timestamp: Timestamp,
        exemplar: Result<Exemplar, Reason>,
    ) -> Result<(), IngestError> {
        let exemplar = if timestamp > self.latest { Err(Reason::InFuture) } else { exemplar };
        match exemplar {
            Ok(exemplar) => {
                self.bound()?;
                self.exemplars.push(BatchExemplar { series, exemplar });
                Ok(())
            }
            Err(reason) => self.refuse(series, SampleKind::Exemplar, timestamp, reason),
        }
    }

    /// How many samples there are of all kinds, good and bad.
    pub(super) fn len(&self) -> usize {
        self.samples.len() + self.histograms.len() + self.exemplars.len() + self.bad.len()
    }

    /// Where the lists end now.
    pub(super) fn mark(&self) -> Mark {
        Mark { samples: self.samples.len(), histograms: self.histograms.len(), bad_samples: self.bad.len() }
    }

    /// Whether float samples and histograms came since `mark`, good or bad.
    pub(super) fn since(&self, mark: Mark) -> (bool, bool) {
        let bad = |kind| self.bad[mark.bad_samples..].iter().any(|bad| bad.kind == kind);
        (
            self.samples.len() > mark.samples || bad(SampleKind::Float),
            self.histograms.len() > mark.histograms || bad(SampleKind::Histogram),
        )
    }

    /// Gives what came since `mark` without a start the start of its series.
    pub(super) fn start_at(&mut self, mark: Mark, start: i64) {
        self.samples[mark.samples..].iter_mut().filter(|s| s.start == 0).for_each(|s| s.start = start);
        self.histograms[mark.histograms..].iter_mut().filter(|h| h.start == 0).for_each(|h| h.start = start);
    }

    fn refuse(
        &mut self,
        series: u32,
        kind: SampleKind,
        timestamp: Timestamp,
        reason: Reason,
    ) -> Result<(), IngestError> {
        self.bound()?;
        self.bad.push(BadSample { series, kind, timestamp, reason });
        Ok(())
    }

    /// Called before a list grows, so that the last list to grow overshoots by less than itself.
    fn bound(&self) -> Result<(), IngestError> {
        bound("samples", self.len() + 1, self.limits.max_samples)
    }

    /// Checks the count at the end of the request.
    pub(super) fn finish(&self) -> Result<(), IngestError> {
        bound("samples", self.len(), self.limits.max_samples)
    }
}
