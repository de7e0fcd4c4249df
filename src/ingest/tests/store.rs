//! A store that writes down what it is given, and fails when told to.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::{
    model::{Labels, Metadata, SeriesId, TenantId, TimeRange},
    storage::{
        Appended, Cardinality, Changes, Check, DocumentKind, Estimate, Health, LabelsRequest, MatcherSets,
        RejectReason, Rejected, Replay, Result, SampleKind, SelectRequest, Selected, SeriesExemplars, Sift,
        Storage, StorageError, StorageStatus, WriteBatch,
    },
};

#[derive(Debug, Default)]
pub(crate) struct RecordingStore {
    /// What came: tenant, labels, time, bits.
    pub(crate) samples: Mutex<Vec<(TenantId, Labels, i64, u64)>>,
    pub(crate) histograms: Mutex<u64>,
    pub(crate) exemplars: Mutex<u64>,
    pub(crate) metadata: Mutex<Vec<Metadata>>,
    /// The next append ends with this.
    pub(crate) fail: Mutex<Option<StorageError>>,
    /// Samples earlier than this are too old.
    pub(crate) oldest: Mutex<Option<i64>>,
    /// Appends wait while this is taken.
    pub(crate) gate: tokio::sync::Mutex<()>,
}

#[async_trait]
impl Storage for RecordingStore {
    async fn append(&self, tenant: &TenantId, batch: WriteBatch) -> Result<Appended> {
        let _open = self.gate.lock().await;
        if let Some(error) = self.fail.lock().take() {
            return Err(error);
        }
        let mut appended = Appended {
            histograms: batch.histograms.len() as u64,
            exemplars: batch.exemplars.len() as u64,
            metadata: batch.metadata.len() as u64,
            ..Appended::default()
        };
        for (i, id) in batch.series.iter().enumerate() {
            let labels = batch.labels.labels(i);
            assert_eq!(labels.id(), *id, "{labels}");
            assert_ne!(*id, SeriesId(0));
        }
        for sample in &batch.samples {
            if self.oldest.lock().is_some_and(|oldest| sample.timestamp.0 < oldest) {
                appended.rejected.push(Rejected {
                    series: sample.series,
                    kind: SampleKind::Float,
                    timestamp: sample.timestamp,
                    reason: RejectReason::TooOld,
                });
                continue;
            }
            appended.samples += 1;
            let labels = batch.labels.labels(sample.series as usize);
            self.samples.lock().push((tenant.clone(), labels, sample.timestamp.0, sample.value.to_bits()));
        }
        *self.histograms.lock() += appended.histograms;
        *self.exemplars.lock() += appended.exemplars;
        self.metadata.lock().extend(batch.metadata);
        Ok(appended)
    }

    async fn select(&self, _: &TenantId, _: SelectRequest) -> Result<Selected> {
        Err(only_writes())
    }

    async fn series(&self, _: &TenantId, _: LabelsRequest) -> Result<Vec<Labels>> {
        Err(only_writes())
    }

    async fn label_names(&self, _: &TenantId, _: LabelsRequest) -> Result<Vec<String>> {
        Err(only_writes())
    }

    async fn label_values(&self, _: &TenantId, _: &str, _: LabelsRequest) -> Result<Vec<String>> {
        Err(only_writes())
    }

    async fn sift_label_values(
        &self,
        _: &TenantId,
        _: &str,
        _: LabelsRequest,
        _: Arc<dyn Sift>,
    ) -> Result<()> {
        Err(only_writes())
    }

    async fn estimate(&self, _: &TenantId, _: SelectRequest) -> Result<Estimate> {
        Err(only_writes())
    }

    async fn metadata(&self, _: &TenantId, _: Option<&str>) -> Result<Vec<Metadata>> {
        Err(only_writes())
    }

    async fn exemplars(&self, _: &TenantId, _: MatcherSets, _: TimeRange) -> Result<Vec<SeriesExemplars>> {
        Err(only_writes())
    }

    async fn delete(&self, _: &TenantId, _: MatcherSets, _: TimeRange) -> Result<()> {
        Err(only_writes())
    }

    async fn clean_tombstones(&self, _: &TenantId) -> Result<()> {
        Err(only_writes())
    }

    async fn cardinality(&self, _: &TenantId, _: MatcherSets, _: usize) -> Result<Cardinality> {
        Err(only_writes())
    }

    async fn put_document(&self, _: &TenantId, _: DocumentKind, _: Option<String>) -> Result<()> {
        Err(only_writes())
    }

    async fn documents(&self, _: DocumentKind) -> Result<Vec<(TenantId, String)>> {
        Err(only_writes())
    }

    fn active_series(&self, _: &TenantId) -> Option<u64> {
        None
    }

    async fn changes(&self, _: &TenantId, _: TimeRange) -> Result<Option<Changes>> {
        Err(only_writes())
    }

    async fn flush(&self) -> Result<()> {
        Err(only_writes())
    }

    async fn snapshot(&self, _: bool) -> Result<String> {
        Err(only_writes())
    }

    async fn enforce_retention(&self) -> Result<()> {
        Err(only_writes())
    }

    async fn status(&self) -> Result<StorageStatus> {
        Err(only_writes())
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

fn only_writes() -> StorageError {
    StorageError::Unsupported("this store only takes writes".to_owned())
}
