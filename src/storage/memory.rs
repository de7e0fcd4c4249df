//! The simplest store that keeps the promise, all but surviving its process.
//!
//! Everything is in ordered maps behind one lock; tombstones are checked on every read. The
//! conformance suite runs on it to say what is right, and PromQL scripts run on it in process.
//! It answers selections in time order ([`Runs::TimeMajor`]), so that the engine's reading of such
//! stores is exercised wherever this one stands in.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{
    AppendPolicy, Appended, BatchExemplar, Cardinality, ChangeLog, Changes, Check, DocumentKind, Estimate,
    Health, LabelsRequest, MatcherSets, OnConflict, RejectReason, Rejected, Replay, Result, Run, Runs,
    SampleKind, SelectRequest, Selected, SeriesExemplars, SeriesSamples, Sift, Storage, StorageError,
    StorageStatus, Touched, WriteBatch,
    room::Allowance,
    selection::{Meter, label_bytes},
};
use crate::{
    clock::Clock,
    model::{
        Exemplar, Histogram, Labels, Matcher, Metadata, Millis, SeriesId, TenantId, TimeRange, Timestamp,
    },
};

/// Samples of one run of the answer to a selection.
const RUN_SAMPLES: usize = 512;

/// A store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    retention: Option<Millis>,
    tenants: Mutex<HashMap<TenantId, Tenant>>,
    documents: Mutex<BTreeMap<(DocumentKind, TenantId), String>>,
    changes: ChangeLog,
}

#[derive(Debug, Default)]
struct Tenant {
    series: BTreeMap<Labels, BTreeMap<i64, Sample>>,
    exemplars: BTreeMap<Labels, Vec<Exemplar>>,
    metadata: BTreeMap<String, Metadata>,
    tombstones: Vec<(MatcherSets, TimeRange)>,
    appended: u64,
}

/// The one sample that a series has at a time.
#[derive(Clone, Debug)]
struct Sample {
    value: Value,
    start: i64,
}

#[derive(Clone, Debug)]
enum Value {
    Float(f64),
    Histogram(Arc<Histogram>),
}

impl Value {
    fn same_bits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Histogram(a), Self::Histogram(b)) => a.same_bits(b),
            (Self::Float(_), Self::Histogram(_)) | (Self::Histogram(_), Self::Float(_)) => false,
        }
    }
}

impl MemoryStore {
    /// An empty store that refuses samples older than `retention`; none keeps everything.
    pub fn new(clock: Arc<dyn Clock>, retention: Option<Millis>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            retention,
            tenants: Mutex::default(),
            documents: Mutex::default(),
            changes: ChangeLog::default(),
        })
    }

    fn oldest(&self) -> Timestamp {
        self.retention.map_or(Timestamp::MIN, |keep| self.clock.now().minus(keep))
    }

    /// Asks for the series that a batch would begin, if they are bounded.
    async fn allowance(&self, tenant: &TenantId, batch: &WriteBatch) -> Option<Allowance> {
        let room = batch.room.as_ref()?;
        let oldest = self.oldest();
        let (active, wanted) = {
            let mut tenants = self.tenants.lock();
            let tenant = tenants.entry(tenant.clone()).or_default();
            (tenant.series.len() as u64, tenant.new_series(batch, oldest).len() as u64)
        };
        if wanted == 0 { None } else { Some(Allowance::ask(room.as_ref(), active, wanted).await) }
    }

    fn read<T: Default>(&self, tenant: &TenantId, read: impl FnOnce(&Tenant) -> T) -> T {
        self.tenants.lock().get(tenant).map(read).unwrap_or_default()
    }
}

impl Tenant {
    /// The series that a batch has samples for, and that are not here.
    fn new_series(&self, batch: &WriteBatch, oldest: Timestamp) -> BTreeMap<SeriesId, Labels> {
        let floats = batch.samples.iter().map(|s| (s.series, s.timestamp));
        let histograms = batch.histograms.iter().map(|h| (h.series, h.timestamp));
        let mut new = BTreeMap::new();
        for (series, _) in floats.chain(histograms).filter(|(_, at)| *at >= oldest) {
            let series = series as usize;
            let labels = batch.labels.labels(series);
            if !self.series.contains_key(&labels) {
                new.insert(batch.series[series], labels);
            }
        }
        new
    }

    /// Begins the series of a batch that may begin; gives the others.
    fn begin(
        &mut self,
        batch: &WriteBatch,
        oldest: Timestamp,
        allowance: Option<&mut Allowance>,
    ) -> HashMap<SeriesId, RejectReason> {
        let mut refused = HashMap::new();
        let Some(allowance) = allowance else { return refused };
        for (id, labels) in self.new_series(batch, oldest) {
            let active = self.series.len() as u64;
            match allowance.next(|most| most.is_none_or(|most| active < most)) {
                Ok(()) => drop(self.series.insert(labels, BTreeMap::new())),
                Err(reason) => drop(refused.insert(id, reason)),
            }
        }
        refused
    }

    fn append(
        &mut self,
        labels: Labels,
        at: Timestamp,
        sample: Sample,
        oldest: Timestamp,
        policy: AppendPolicy,
    ) -> Result<(), RejectReason> {
        if at < oldest {
            return Err(RejectReason::TooOld);
        }
        let samples = self.series.entry(labels).or_default();
        let newest = samples.last_key_value().map(|(t, _)| Timestamp(*t));
        let too_late =
            policy.out_of_order_window.zip(newest).is_some_and(|(window, newest)| at < newest.minus(window));
        match samples.get(&at.0) {
            Some(there) if there.value.same_bits(&sample.value) => return Ok(()),
            Some(_) if policy.on_conflict == OnConflict::Reject => return Err(RejectReason::Conflict),
            _ if too_late => return Err(RejectReason::OutOfOrder),
            _ => {}
        }
        samples.insert(at.0, sample);
        self.appended += 1;
        Ok(())
    }

    fn append_exemplar(
        &mut self,
        labels: Labels,
        exemplar: Exemplar,
        oldest: Timestamp,
    ) -> Result<(), RejectReason> {
        if exemplar.timestamp < oldest {
            return Err(RejectReason::TooOld);
        }
        let all = self.exemplars.entry(labels).or_default();
        if !all.iter().any(|e| same_exemplar(e, &exemplar)) {
            let place = all.partition_point(|e| e.timestamp <= exemplar.timestamp);
            all.insert(place, exemplar);
        }
        Ok(())
    }

    /// Whether a delete hides what `labels` has at `at`.
    fn hidden(&self, labels: &Labels, at: i64) -> bool {
        self.tombstones.iter().any(|(sets, range)| range.contains(Timestamp(at)) && matches_any(sets, labels))
    }

    fn visible<'a>(
        &'a self,
        labels: &'a Labels,
        range: TimeRange,
    ) -> impl Iterator<Item = (i64, &'a Sample)> {
        let samples =
            self.series.get(labels).into_iter().flat_map(move |s| s.range(range.start().0..=range.end().0));
        samples.map(|(at, s)| (*at, s)).filter(|(at, _)| !self.hidden(labels, *at))
    }

    fn matching<'a>(&'a self, request: &'a LabelsRequest) -> impl Iterator<Item = &'a Labels> {
        let matching = self.series.keys().filter(|labels| matches_any(&request.matchers, labels));
        matching.filter(|labels| self.visible(labels, request.range).next().is_some())
    }
}

fn matches_all(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|m| m.matches(labels.get(m.name()).unwrap_or_default()))
}

fn matches_any(sets: &[Vec<Matcher>], labels: &Labels) -> bool {
    sets.is_empty() || sets.iter().any(|set| matches_all(set, labels))
}

fn same_exemplar(a: &Exemplar, b: &Exemplar) -> bool {
    a.timestamp == b.timestamp && a.value.to_bits() == b.value.to_bits() && a.labels == b.labels
}

fn limited<T>(limit: usize, all: impl Iterator<Item = T>) -> Vec<T> {
    all.take(if limit == 0 { usize::MAX } else { limit }).collect()
}

#[async_trait]
impl Storage for MemoryStore {
    async fn append(&self, tenant: &TenantId, batch: WriteBatch) -> Result<Appended> {
        let mut allowance = self.allowance(tenant, &batch).await;
        let oldest = self.oldest();
        let touched = Touched::by(&batch);
        let mut tenants = self.tenants.lock();
        let of = tenant;
        let tenant = tenants.entry(tenant.clone()).or_default();
        let mut appended = Appended::default();
        let refused = tenant.begin(&batch, oldest, allowance.as_mut());
        let labels = |series: u32| batch.labels.labels(usize::try_from(series).expect("an index fits"));
        let mut reject = Vec::new();
        for s in &batch.samples {
            if let Some(reason) = refused.get(&batch.series[s.series as usize]) {
                reject.push((s.series, SampleKind::Float, s.timestamp, *reason));
                continue;
            }
            let sample = Sample { value: Value::Float(s.value), start: s.start };
            match tenant.append(labels(s.series), s.timestamp, sample, oldest, batch.policy) {
                Ok(()) => appended.samples += 1,
                Err(reason) => reject.push((s.series, SampleKind::Float, s.timestamp, reason)),
            }
        }
        for h in &batch.histograms {
            if let Some(reason) = refused.get(&batch.series[h.series as usize]) {
                reject.push((h.series, SampleKind::Histogram, h.timestamp, *reason));
                continue;
            }
            let sample = Sample { value: Value::Histogram(Arc::clone(&h.histogram)), start: h.start };
            match tenant.append(labels(h.series), h.timestamp, sample, oldest, batch.policy) {
                Ok(()) => appended.histograms += 1,
                Err(reason) => reject.push((h.series, SampleKind::Histogram, h.timestamp, reason)),
            }
        }
        for BatchExemplar { series, exemplar } in &batch.exemplars {
            if let Some(reason) = refused.get(&batch.series[*series as usize]) {
                reject.push((*series, SampleKind::Exemplar, exemplar.timestamp, *reason));
                continue;
            }
            match tenant.append_exemplar(labels(*series), exemplar.clone(), oldest) {
                Ok(()) => appended.exemplars += 1,
                Err(reason) => reject.push((*series, SampleKind::Exemplar, exemplar.timestamp, reason)),
            }
        }
        for metadata in batch.metadata {
            appended.metadata += 1;
            tenant.metadata.insert(metadata.metric.clone(), metadata);
        }
        appended.rejected = reject
            .into_iter()
            .map(|(series, kind, timestamp, reason)| Rejected { series, kind, timestamp, reason })
            .collect();
        let active = tenant.series.len() as u64;
        appended.over = allowance.map_or_else(Vec::new, |allowance| allowance.over(active));
        self.changes.wrote(of, &touched);
        Ok(appended)
    }

    async fn select(&self, tenant: &TenantId, request: SelectRequest) -> Result<Selected> {
        let (series, samples) = self.read(tenant, |tenant| {
            let mut series = Vec::new();
            let mut samples = Vec::new();
            let sets = request.sets();
            for labels in tenant.series.keys().filter(|l| matches_any(&sets, l)) {
                let all: Vec<(i64, Sample)> =
                    tenant.visible(labels, request.range).map(|(at, s)| (at, s.clone())).collect();
                if !all.is_empty() {
                    series.push(labels.clone());
                    samples.push(all);
                }
            }
            (series, samples)
        });
        Meter::of(&request).count_all(&series)?;
        let (send, runs) = mpsc::channel(4);
        crate::task::spawn("memory-select", async move {
            let longest = samples.iter().map(Vec::len).max().unwrap_or(0);
            for from in (0..longest).step_by(RUN_SAMPLES) {
                let slices = samples.iter().map(|s| s.iter().skip(from).take(RUN_SAMPLES));
                let runs = (0_u32..).zip(slices).map(|(ordinal, slice)| run(ordinal, slice)).collect();
                if send.send(Ok(runs)).await.is_err() {
                    // The query no longer wants it.
                    return;
                }
            }
        });
        Ok(Selected { series, runs: Runs::TimeMajor(runs), taken: 0, warnings: Vec::new() })
    }

    async fn series(&self, tenant: &TenantId, request: LabelsRequest) -> Result<Vec<Labels>> {
        Ok(self.read(tenant, |tenant| limited(request.limit, tenant.matching(&request).cloned())))
    }

    async fn label_names(&self, tenant: &TenantId, request: LabelsRequest) -> Result<Vec<String>> {
        Ok(self.read(tenant, |tenant| {
            let names: BTreeSet<String> =
                tenant.matching(&request).flat_map(|l| l.iter().map(|(name, _)| name.to_owned())).collect();
            limited(request.limit, names.into_iter())
        }))
    }

    async fn label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        request: LabelsRequest,
    ) -> Result<Vec<String>> {
        Ok(self.read(tenant, |tenant| {
            let values: BTreeSet<String> =
                tenant.matching(&request).filter_map(|l| l.get(name).map(str::to_owned)).collect();
            limited(request.limit, values.into_iter())
        }))
    }

    async fn sift_label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        request: LabelsRequest,
        sift: Arc<dyn Sift>,
    ) -> Result<()> {
        self.read(tenant, |tenant| {
            // It has seen enough, or all there is.
            let _ = tenant.matching(&request).filter_map(|l| l.get(name)).try_for_each(|text| sift.see(text));
        });
        Ok(())
    }

    async fn estimate(&self, tenant: &TenantId, request: SelectRequest) -> Result<Estimate> {
        Ok(self.read(tenant, |tenant| {
            let mut sum = Estimate::default();
            let sets = request.sets();
            for labels in tenant.series.keys().filter(|l| matches_any(&sets, l)) {
                let mut of_series =
                    Estimate { series: 1, label_bytes: label_bytes(labels), ..Estimate::default() };
                for (_, sample) in tenant.visible(labels, request.range) {
                    match &sample.value {
                        Value::Float(_) => of_series.floats += 1,
                        Value::Histogram(histogram) => {
                            of_series.histograms += 1;
                            of_series.histogram_bytes += histogram.memory_bytes() as u64;
                        }
                    }
                }
                if of_series.samples() > 0 {
                    sum.add(&of_series);
                }
            }
            sum
        }))
    }

    async fn metadata(&self, tenant: &TenantId, metric: Option<&str>) -> Result<Vec<Metadata>> {
        Ok(self.read(tenant, |tenant| {
            let wanted = tenant.metadata.values().filter(|m| metric.is_none_or(|name| m.metric == name));
            wanted.cloned().collect()
        }))
    }

    async fn exemplars(
        &self,
        tenant: &TenantId,
        matchers: MatcherSets,
        range: TimeRange,
    ) -> Result<Vec<SeriesExemplars>> {
        Ok(self.read(tenant, |tenant| {
            let matching = tenant.exemplars.iter().filter(|(labels, _)| matches_any(&matchers, labels));
            let found = matching.map(|(labels, all)| SeriesExemplars {
                series: labels.clone(),
                exemplars: all
                    .iter()
                    .filter(|e| range.contains(e.timestamp) && !tenant.hidden(labels, e.timestamp.0))
                    .cloned()
                    .collect(),
            });
            found.filter(|s| !s.exemplars.is_empty()).collect()
        }))
    }

    async fn delete(&self, tenant: &TenantId, matchers: MatcherSets, range: TimeRange) -> Result<()> {
        self.tenants.lock().entry(tenant.clone()).or_default().tombstones.push((matchers, range));
        self.changes.changed(tenant, range);
        Ok(())
    }

    async fn clean_tombstones(&self, tenant: &TenantId) -> Result<()> {
        if let Some(tenant) = self.tenants.lock().get_mut(tenant) {
            for (sets, range) in std::mem::take(&mut tenant.tombstones) {
                for (labels, samples) in &mut tenant.series {
                    if matches_any(&sets, labels) {
                        samples.retain(|at, _| !range.contains(Timestamp(*at)));
                    }
                }
                for (labels, exemplars) in &mut tenant.exemplars {
                    if matches_any(&sets, labels) {
                        exemplars.retain(|e| !range.contains(e.timestamp));
                    }
                }
            }
            tenant.series.retain(|_, samples| !samples.is_empty());
        }
        self.changes.changed(tenant, TimeRange::ALL);
        Ok(())
    }

    async fn cardinality(&self, tenant: &TenantId, sets: MatcherSets, limit: usize) -> Result<Cardinality> {
        Ok(self.read(tenant, |tenant| {
            super::cardinality_of(tenant.series.keys().filter(|l| matches_any(&sets, l)), limit)
        }))
    }

    fn active_series(&self, tenant: &TenantId) -> Option<u64> {
        Some(self.read(tenant, |tenant| tenant.series.len() as u64))
    }

    async fn put_document(&self, tenant: &TenantId, kind: DocumentKind, text: Option<String>) -> Result<()> {
        let mut documents = self.documents.lock();
        match text {
            Some(text) => documents.insert((kind, tenant.clone()), text),
            None => documents.remove(&(kind, tenant.clone())),
        };
        Ok(())
    }

    async fn documents(&self, kind: DocumentKind) -> Result<Vec<(TenantId, String)>> {
        let documents = self.documents.lock();
        let of_kind = documents.iter().filter(|((k, _), _)| *k == kind);
        Ok(of_kind.map(|((_, tenant), text)| (tenant.clone(), text.clone())).collect())
    }

    async fn changes(&self, tenant: &TenantId, range: TimeRange) -> Result<Option<Changes>> {
        Ok(Some(self.changes.of(tenant, range)))
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    async fn snapshot(&self, _: bool) -> Result<String> {
        Err(StorageError::Unsupported("what is in memory alone has no snapshots".to_owned()))
    }

    async fn enforce_retention(&self) -> Result<()> {
        let oldest = self.oldest();
        for tenant in self.tenants.lock().values_mut() {
            for samples in tenant.series.values_mut() {
                samples.retain(|at, _| Timestamp(*at) >= oldest);
            }
            tenant.series.retain(|_, samples| !samples.is_empty());
        }
        if let Some(gone) = TimeRange::new(Timestamp::MIN, oldest) {
            self.changes.changed_for_all(gone);
        }
        Ok(())
    }

    async fn status(&self) -> Result<StorageStatus> {
        let tenants = self.tenants.lock();
        let series = tenants.values().map(|t| t.series.len() as u64).sum();
        let appended = tenants.values().map(|t| t.appended).sum();
        Ok(StorageStatus {
            backend: "memory",
            active_series: series,
            samples_appended: appended,
            ..StorageStatus::default()
        })
    }

    fn health(&self) -> Health {
        Health::Ready
    }

    fn checks(&self) -> Vec<Check> {
        Vec::new()
    }

    fn replay(&self) -> Option<Replay> {
        None
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

fn run<'a>(ordinal: u32, samples: impl Iterator<Item = &'a (i64, Sample)>) -> Run {
    let mut columns = SeriesSamples::default();
    for (timestamp, sample) in samples {
        match &sample.value {
            Value::Float(value) => columns.push(*timestamp, *value, sample.start),
            Value::Histogram(histogram) => columns.histograms.push(super::HistogramSample {
                timestamp: *timestamp,
                start: sample.start,
                histogram: Arc::clone(histogram),
            }),
        }
    }
    Run { ordinal, samples: columns }
}
