//! What a batch has for each table.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    batcher::Rows,
    lot::{Bodies, Calendar, Days, Lot},
    newest::Verdicts,
    registry::Claim,
    retention::{FOREVER, Keep},
    rows::{self, Body, Sample, Table},
};
use crate::{
    model::{Metadata, SeriesId, TenantId, Timestamp},
    storage::{Appended, RejectReason, Rejected, SampleKind, WriteBatch, clickhouse::config::BatchConfig},
};

/// Rows by table and lot.
#[derive(Debug)]
pub(super) struct Parts {
    /// The tenant's name as rows begin with it.
    pub(super) tenant: Arc<[u8]>,
    pub(super) rows: Vec<(Table, Lot, Rows)>,
    calendar: Calendar,
}

/// Sorts what is kept of a batch by table, claims the series that have something, and says what is refused.
#[expect(clippy::too_many_arguments, reason = "it is where all of these meet")]
pub(super) fn take_apart(
    tenant: &TenantId,
    batch: &WriteBatch,
    keep: Keep,
    verdicts: &Verdicts,
    claim: &mut Claim,
    is_known: impl Fn(&Metadata) -> bool,
    now: Timestamp,
    limits: &BatchConfig,
) -> (Parts, Appended) {
    let name: Arc<[u8]> = rows::tenant_bytes(tenant.as_str()).into();
    let calendar = Calendar::at(now);
    let lot = |ts: Timestamp, ret| Lot { ret, days: calendar.days(ts.0) };
    let mut parts = Parts { tenant: Arc::clone(&name), rows: Vec::new(), calendar };
    let mut taker = Taker {
        batch,
        claim,
        refused: &verdicts.refused,
        last_day: vec![None; batch.series.len()],
        appended: Appended::default(),
    };

    let mut now_samples = Vec::with_capacity(batch.samples.len());
    let mut other_samples: BTreeMap<Lot, Vec<Sample>> = BTreeMap::new();
    for (i, sample) in batch.samples.iter().enumerate() {
        let at = sample.timestamp;
        let verdict = if at < keep.oldest { Err(RejectReason::TooOld) } else { verdicts.of_sample(i) };
        let Some(id) = taker.take(sample.series, SampleKind::Float, at, verdict) else { continue };
        let row = Sample { id, ts: at.0, value: sample.value, start: sample.start };
        match lot(at, keep.class) {
            Lot { days: Days::Now, .. } => now_samples.push(row),
            other => other_samples.entry(other).or_default().push(row),
        }
    }
    let mut histograms = Bodies::new(limits.bytes);
    for (i, sample) in batch.histograms.iter().enumerate() {
        let at = sample.timestamp;
        let verdict = if at < keep.oldest { Err(RejectReason::TooOld) } else { verdicts.of_histogram(i) };
        let Some(id) = taker.take(sample.series, SampleKind::Histogram, at, verdict) else { continue };
        histograms.put(lot(at, keep.class), |row| {
            rows::put_histogram(row, &name, id, (at.0, sample.start), &sample.histogram, keep.class);
        });
    }
    let mut exemplars = Bodies::new(limits.bytes);
    for sample in &batch.exemplars {
        let at = sample.exemplar.timestamp;
        let verdict = if at < keep.oldest_exemplar { Err(RejectReason::TooOld) } else { Ok(()) };
        let Some(id) = taker.take(sample.series, SampleKind::Exemplar, at, verdict) else { continue };
        exemplars.put(lot(at, keep.exemplar_class), |row| {
            rows::put_exemplar(row, &name, id, &sample.exemplar, keep.exemplar_class);
        });
    }
    let mut metadata = Bodies::new(limits.bytes);
    for entry in latest(&batch.metadata).filter(|entry| !is_known(entry)) {
        let lot = Lot { ret: FOREVER, days: Days::Now };
        metadata.put(lot, |row| rows::put_metadata(row, &name, entry));
    }

    let mut appended = taker.appended;
    appended.metadata = batch.metadata.len() as u64;
    other_samples.insert(Lot { ret: keep.class, days: Days::Now }, now_samples);
    for (lot, mut samples) in other_samples {
        samples.sort_unstable_by_key(Sample::key);
        let most = limits.rows.min(limits.bytes / (Sample::ROW + name.len())).max(1);
        parts.rows.extend(chunks(samples, most).map(|rows| (Table::Samples, lot, Rows::Samples(rows))));
    }
    parts.add(Table::Histograms, histograms);
    parts.add(Table::Exemplars, exemplars);
    parts.add(Table::Metadata, metadata);
    (parts, appended)
}

/// The series and times of what is kept of a batch.
pub(super) fn things(
    batch: &WriteBatch,
    keep: Keep,
    verdicts: &Verdicts,
) -> impl Iterator<Item = (u32, i64)> {
    let samples = batch.samples.iter().enumerate();
    let samples =
        samples.filter(|(i, _)| verdicts.of_sample(*i).is_ok()).map(|(_, s)| (s.series, s.timestamp));
    let histograms = batch.histograms.iter().enumerate();
    let histograms =
        histograms.filter(|(i, _)| verdicts.of_histogram(*i).is_ok()).map(|(_, h)| (h.series, h.timestamp));
    let exemplars = batch.exemplars.iter().map(|e| (e.series, e.exemplar.timestamp));
    let exemplars = exemplars.filter(move |(_, at)| *at >= keep.oldest_exemplar);
    let samples = samples.chain(histograms).filter(move |(_, at)| *at >= keep.oldest);
    samples.chain(exemplars).map(|(series, at)| (series, at.0))
}

/// Takes or refuses what a batch has of its series.
struct Taker<'a> {
    batch: &'a WriteBatch,
    claim: &'a mut Claim,
    /// Series that may not begin.
    refused: &'a HashMap<SeriesId, RejectReason>,
    /// The day that was last asked for, for each of the batch's series.
    last_day: Vec<Option<u16>>,
    appended: Appended,
}

impl Taker<'_> {
    /// Whose it is, if it is taken.
    #[inline]
    fn take(
        &mut self,
        series: u32,
        kind: SampleKind,
        timestamp: Timestamp,
        verdict: Result<(), RejectReason>,
    ) -> Option<SeriesId> {
        let ordinal = usize::try_from(series).expect("an index fits");
        let id = self.batch.series[ordinal];
        let verdict = match verdict {
            Ok(()) if !self.refused.is_empty() => self.refused.get(&id).map_or(Ok(()), |reason| Err(*reason)),
            verdict => verdict,
        };
        if let Err(reason) = verdict {
            self.appended.rejected.push(Rejected { series, kind, timestamp, reason });
            return None;
        }
        match kind {
            SampleKind::Float => self.appended.samples += 1,
            SampleKind::Histogram => self.appended.histograms += 1,
            SampleKind::Exemplar => self.appended.exemplars += 1,
        }
        let day = rows::day(timestamp.0);
        if self.last_day[ordinal] != Some(day) {
            self.last_day[ordinal] = Some(day);
            self.claim.need(day, id, series);
        }
        Some(id)
    }
}

/// What is said last of each family.
fn latest(all: &[Metadata]) -> impl Iterator<Item = &Metadata> {
    let latest: BTreeMap<&str, &Metadata> = all.iter().map(|entry| (entry.metric.as_str(), entry)).collect();
    latest.into_values()
}

/// Cuts samples into pieces of at most so many.
fn chunks(samples: Vec<Sample>, most: usize) -> impl Iterator<Item = Vec<Sample>> {
    let mut rest = samples;
    std::iter::from_fn(move || {
        let after = rest.split_off(rest.len().min(most));
        let piece = std::mem::replace(&mut rest, after);
        (!piece.is_empty()).then_some(piece)
    })
}

impl Parts {
    /// The rows of some of a batch's series.
    pub(super) fn series(
        &self,
        batch: &WriteBatch,
        wanted: &[(u16, SeriesId, u32)],
        keep: Keep,
        limits: &BatchConfig,
    ) -> Self {
        let mut bodies = Bodies::new(limits.bytes);
        for (day, id, ordinal) in wanted {
            let labels = batch.labels.labels(usize::try_from(*ordinal).expect("an index fits"));
            let days = self.calendar.days(i64::from(*day) * 86_400_000);
            bodies.put(Lot { ret: keep.class, days }, |row| {
                rows::put_series(row, &self.tenant, *day, *id, &labels, keep.class);
            });
        }
        let mut parts = Self { tenant: Arc::clone(&self.tenant), rows: Vec::new(), calendar: self.calendar };
        parts.add(Table::Series, bodies);
        parts
    }

    /// About the memory that the rows take until they are written: as they are here, and as they are sent.
    pub(super) fn bytes(&self) -> usize {
        let bytes = |(_, _, rows): &(_, _, Rows)| match rows {
            Rows::Samples(samples) => samples.len() * (size_of::<Sample>() + Sample::ROW + self.tenant.len()),
            Rows::Encoded(Body { bytes, .. }) => 2 * bytes.len(),
        };
        self.rows.iter().map(bytes).sum()
    }

    fn add(&mut self, table: Table, bodies: Bodies) {
        self.rows.extend(bodies.into_bodies().map(|(lot, body)| (table, lot, Rows::Encoded(body))));
    }
}
