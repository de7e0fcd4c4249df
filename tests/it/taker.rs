//! A store that takes what it is offered, over one that does not.
//!
//! It computes with our own functions, so that what is tested is the other side: what is offered, and
//! what becomes of the rows.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use luminate::{
    model::{Labels, Metadata, TenantId, TimeRange, is_stale},
    promql::{
        annotations::Annotations,
        exec::{
            aggregate::fold::Fold,
            rows::{Row, Steps, is_absent},
        },
        functions::range::{self, Edges, Frame, RangeFunction, RangeInput, Windows},
        parse::{AggregateOp, Span},
        plan::Aggregation,
    },
    storage::{
        Appended, Cardinality, Changes, Check, Combine, DocumentKind, Estimate, Grid, GridRow, Health,
        LabelsRequest, MatcherSets, Operation, Replay, Result, Runs, SelectRequest, Selected,
        SeriesExemplars, SeriesSamples, Sift, Storage, StorageStatus, WriteBatch, conformance::read_all,
        offer::ABSENT,
    },
};
use tokio::sync::mpsc;

/// A store that takes up to `most` operations of an offer.
#[derive(Debug)]
pub(crate) struct Taker {
    inner: Arc<dyn Storage>,
    most: usize,
    taken: AtomicUsize,
}

impl Taker {
    pub(crate) fn over(inner: Arc<dyn Storage>, most: usize) -> Arc<Self> {
        Arc::new(Self { inner, most, taken: AtomicUsize::new(0) })
    }

    /// How many operations were taken so far.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// The rows of one operation on samples.
pub(crate) fn row_of(operation: &Operation, samples: &SeriesSamples, grid: &Grid) -> Vec<f64> {
    let steps = Steps { start: grid.start.0, step: grid.step.0, count: grid.count() };
    match operation {
        Operation::Newest { lookback } => (0..steps.count)
            .map(|step| {
                let at = steps.at(step);
                let newest = samples.timestamps.partition_point(|t| *t <= at).checked_sub(1);
                newest
                    .filter(|i| samples.timestamps[*i] > at - lookback.0)
                    .map_or(ABSENT, |i| samples.values[i])
            })
            .collect(),
        Operation::Window { function, range } => {
            let living = |i: &usize| !is_stale(samples.values[*i]);
            let kept: Vec<usize> = (0..samples.timestamps.len()).filter(living).collect();
            let timestamps: Vec<i64> = kept.iter().map(|i| samples.timestamps[*i]).collect();
            let values: Vec<f64> = kept.iter().map(|i| samples.values[*i]).collect();
            let windows = Windows::Moving { offset_ms: 0 };
            let input = RangeInput {
                frame: &Frame::of(&timestamps, steps, windows, range.0, Edges::Plain),
                timestamps: &timestamps,
                values: &values,
                starts: &[],
                histograms: &[],
                histogram_starts: &[],
                steps,
                windows,
                range_ms: range.0,
                edges: Edges::Plain,
                params: &[],
                metric_name: "",
                type_label: None,
                span: Span::default(),
                param_span: Span::default(),
            };
            let function = RangeFunction::by_name(function.as_str()).expect("the same name");
            let mut row = Row::absent(steps.count);
            range::evaluate(function, &input, &mut row, &mut Annotations::default()).unwrap();
            row.floats
        }
        Operation::Aggregate { .. } => panic!("an aggregation comes second"),
    }
}

fn op_of(combine: Combine) -> AggregateOp {
    match combine {
        Combine::Sum => AggregateOp::Sum,
        Combine::Avg => AggregateOp::Avg,
        Combine::Min => AggregateOp::Min,
        Combine::Max => AggregateOp::Max,
        Combine::Count => AggregateOp::Count,
        Combine::Group => AggregateOp::Group,
    }
}

/// Groups of rows by labels, sorted.
fn grouped(rows: Vec<(Labels, Vec<f64>)>, combine: Combine, by: &[String]) -> Vec<(Labels, Vec<f64>)> {
    let aggregation = Aggregation {
        op: op_of(combine),
        input: 0,
        param: None,
        label: None,
        grouping: by.to_vec(),
        without: false,
        whole: Span::default(),
        span: Span::default(),
        param_span: Span::default(),
    };
    let mut notes = Annotations::default();
    let mut groups: std::collections::BTreeMap<Labels, Fold> = std::collections::BTreeMap::new();
    for (labels, floats) in rows {
        let key = labels.only(|name| by.iter().any(|label| label == name));
        let fold = groups.entry(key).or_insert_with(|| Fold::new(aggregation.op, floats.len()));
        fold.add(&Row { floats, histograms: Vec::new() }, &aggregation, &mut notes);
    }
    groups.into_iter().map(|(key, fold)| (key, fold.finish(&aggregation, &mut notes).floats)).collect()
}

#[async_trait]
impl Storage for Taker {
    async fn select(&self, tenant: &TenantId, request: SelectRequest) -> Result<Selected> {
        let offer = request.offer.clone();
        let plain = SelectRequest { offer: luminate::storage::Offer::default(), ..request };
        let (Some(first), Some(grid)) = (offer.operations.first(), plain.grid) else {
            return self.inner.select(tenant, plain).await;
        };
        let samples = read_all(&*self.inner, tenant, plain.clone()).await;
        if samples.iter().any(|(_, samples)| !samples.histograms.is_empty()) {
            return self.inner.select(tenant, plain).await;
        }
        let described = |labels: &Labels| labels.get("__type__").or(labels.get("__unit__")).is_some();
        let whole = !samples.iter().any(|(labels, _)| described(labels));
        let mut rows: Vec<(Labels, Vec<f64>)> =
            samples.iter().map(|(labels, samples)| (labels.clone(), row_of(first, samples, &grid))).collect();
        let mut taken = 1;
        if self.most > 1
            && whole
            && let Some(Operation::Aggregate { combine, by }) = offer.operations.get(1)
        {
            rows = grouped(rows, *combine, by);
            taken = 2;
        }
        self.taken.fetch_add(taken, Ordering::Relaxed);
        let places: usize = rows.iter().map(|(_, row)| row.len()).sum();
        assert!(places as u64 <= offer.max_places, "more was offered than may be taken");
        let (series, rows): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let rows = rows.into_iter().zip(0..).filter(|(row, _)| row.iter().any(|value| !is_absent(*value)));
        let rows: Vec<GridRow> = rows.map(|(values, ordinal)| GridRow { ordinal, values }).collect();
        let (send, receive) = mpsc::channel(1);
        send.send(Ok(rows)).await.expect("there is room for one");
        Ok(Selected { series, runs: Runs::Rows(receive), taken, warnings: Vec::new() })
    }

    async fn append(&self, tenant: &TenantId, batch: WriteBatch) -> Result<Appended> {
        self.inner.append(tenant, batch).await
    }

    fn active_series(&self, tenant: &TenantId) -> Option<u64> {
        self.inner.active_series(tenant)
    }

    async fn series(&self, tenant: &TenantId, request: LabelsRequest) -> Result<Vec<Labels>> {
        self.inner.series(tenant, request).await
    }

    async fn label_names(&self, tenant: &TenantId, request: LabelsRequest) -> Result<Vec<String>> {
        self.inner.label_names(tenant, request).await
    }

    async fn label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        request: LabelsRequest,
    ) -> Result<Vec<String>> {
        self.inner.label_values(tenant, name, request).await
    }

    async fn sift_label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        request: LabelsRequest,
        sift: Arc<dyn Sift>,
    ) -> Result<()> {
        self.inner.sift_label_values(tenant, name, request, sift).await
    }

    async fn estimate(&self, tenant: &TenantId, request: SelectRequest) -> Result<Estimate> {
        self.inner.estimate(tenant, request).await
    }

    async fn metadata(&self, tenant: &TenantId, metric: Option<&str>) -> Result<Vec<Metadata>> {
        self.inner.metadata(tenant, metric).await
    }

    async fn exemplars(
        &self,
        tenant: &TenantId,
        matchers: MatcherSets,
        range: TimeRange,
    ) -> Result<Vec<SeriesExemplars>> {
        self.inner.exemplars(tenant, matchers, range).await
    }

    async fn delete(&self, tenant: &TenantId, matchers: MatcherSets, range: TimeRange) -> Result<()> {
        self.inner.delete(tenant, matchers, range).await
    }

    async fn clean_tombstones(&self, tenant: &TenantId) -> Result<()> {
        self.inner.clean_tombstones(tenant).await
    }

    async fn cardinality(
        &self,
        tenant: &TenantId,
        matchers: MatcherSets,
        limit: usize,
    ) -> Result<Cardinality> {
        self.inner.cardinality(tenant, matchers, limit).await
    }

    async fn put_document(&self, tenant: &TenantId, kind: DocumentKind, text: Option<String>) -> Result<()> {
        self.inner.put_document(tenant, kind, text).await
    }

    async fn documents(&self, kind: DocumentKind) -> Result<Vec<(TenantId, String)>> {
        self.inner.documents(kind).await
    }

    async fn changes(&self, tenant: &TenantId, range: TimeRange) -> Result<Option<Changes>> {
        self.inner.changes(tenant, range).await
    }

    async fn flush(&self) -> Result<()> {
        self.inner.flush().await
    }

    async fn snapshot(&self, skip_head: bool) -> Result<String> {
        self.inner.snapshot(skip_head).await
    }

    async fn enforce_retention(&self) -> Result<()> {
        self.inner.enforce_retention().await
    }

    async fn status(&self) -> Result<StorageStatus> {
        self.inner.status().await
    }

    fn health(&self) -> Health {
        self.inner.health()
    }

    fn checks(&self) -> Vec<Check> {
        self.inner.checks()
    }

    fn replay(&self) -> Option<Replay> {
        self.inner.replay()
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
