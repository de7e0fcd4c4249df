//! What a store is, and the stores.
//!
//! [`Storage`] is the seam of the house: everything above it names a tenant and speaks in model
//! types, everything below it decides where bytes go. Its promise is written twice, as the contract
//! on the trait and as tests in [`conformance`], which every backend runs.
//!
//! * [`memory`]: the simplest store that keeps the promise, all but surviving its process; tests use it.
//! * [`embedded`]: our own engine, for one node.
//! * [`clickhouse`]: a ClickHouse that many of us share.

pub mod batch;
mod cardinality;
pub mod changes;
pub mod clickhouse;
pub mod conformance;
pub mod embedded;
pub mod error;
pub mod estimate;
pub mod gap;
pub mod latency;
pub mod memory;
pub mod offer;
pub mod room;
pub mod selection;
pub mod view;

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::model::{Labels, Metadata, TenantId, TimeRange};

pub use batch::{
    AppendPolicy, Appended, BatchExemplar, BatchHistogram, BatchLabels, BatchSample, OnConflict,
    RejectReason, Rejected, SampleKind, WriteBatch,
};
pub(crate) use cardinality::{PairCounts, cardinality_of, most};
pub use changes::{AsOf, ChangeLog, Changed, Changes, Touched};
pub use error::{Fault, StorageError};
pub use estimate::Estimate;
pub use gap::{Between, Gap};
pub use offer::{Combine, GridRow, Offer, Operation, WindowFunction};
pub use room::{Granted, SeriesRoom};
pub use selection::{
    Grid, HistogramSample, IsOver, LabelsRequest, MatcherSets, ReadSeries, Run, Runs, SelectRequest,
    Selected, SeriesExemplars, SeriesSamples, Sift,
};
pub use view::View;

/// What a call to a store returns.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;

/// Keeps samples, and finds them again.
///
/// # Contract
///
/// * **Durable.** When [`append`](Self::append) returns `Ok`, what it reports written survives a crash.
/// * **Repeatable.** After an error any part may have been kept; sending the batch again is right.
/// * **Whole.** What one batch holds and the store does not reject is written; what is rejected is
///   named, and never takes good samples with it.
/// * **Exact.** Floats, histograms and start timestamps come back to the bit.
/// * **Idempotent.** The same bits at the same series and time are a success and stored once. Other
///   bits are settled by the batch's [`OnConflict`].
/// * **Single.** A series has one sample at a time: a float and a histogram there are in conflict too.
/// * **Sorted.** Series come in label order and their samples in time order, however they arrived.
/// * **Honest.** What the store did of an [`Offer`] ([`Selected::taken`]) changes the cost, never the answer.
/// * **Roomy.** Where a batch comes with a [`SeriesRoom`], series that take samples already go on taking them, and
///   no more begin than it lets.
/// * **Walled.** No call for one tenant can see what another has stored.
#[async_trait]
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// Appends a batch: how much of each kind was written, and which samples were refused and why.
    async fn append(&self, tenant: &TenantId, batch: WriteBatch) -> Result<Appended>;

    /// All matching series' labels first, in label order, then their samples.
    ///
    /// A series that has no sample in the range may be left out or come with no samples.
    async fn select(&self, tenant: &TenantId, request: SelectRequest) -> Result<Selected>;

    /// The store, if it selects on the thread that asks; none if it has to be waited for.
    fn here(&self) -> Option<&dyn SelectHere> {
        None
    }

    /// The labels of the series that match any of the request's sets and have samples in its range, sorted.
    async fn series(&self, tenant: &TenantId, request: LabelsRequest) -> Result<Vec<Labels>>;

    /// The label names those series have, sorted.
    async fn label_names(&self, tenant: &TenantId, request: LabelsRequest) -> Result<Vec<String>>;

    /// The values label `name` has on those series, sorted.
    async fn label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        request: LabelsRequest,
    ) -> Result<Vec<String>>;

    /// Shows every value that label `name` has on those series, until enough was seen; in no order, and one maybe
    /// several times. For values that are too many to be held; the request's limit plays no part.
    async fn sift_label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        request: LabelsRequest,
        sift: Arc<dyn Sift>,
    ) -> Result<()>;

    /// How much [`select`](Self::select) would give: as many series, and no fewer samples. No sample is read for it,
    /// and the request's bounds and offer play no part.
    async fn estimate(&self, tenant: &TenantId, request: SelectRequest) -> Result<Estimate>;

    /// Metric metadata, sorted by metric; of one metric or of all.
    async fn metadata(&self, tenant: &TenantId, metric: Option<&str>) -> Result<Vec<Metadata>>;

    /// The exemplars of the matching series in the range, series in label order, exemplars in time order.
    async fn exemplars(
        &self,
        tenant: &TenantId,
        matchers: MatcherSets,
        range: TimeRange,
    ) -> Result<Vec<SeriesExemplars>>;

    /// Hides the matching series' samples in the range, and whatever is written there again, until
    /// [`clean_tombstones`](Self::clean_tombstones), or until the store has by itself removed for good all that is
    /// hidden.
    async fn delete(&self, tenant: &TenantId, matchers: MatcherSets, range: TimeRange) -> Result<()>;

    /// Removes for good what was deleted; samples written to those ranges afterwards are seen again.
    async fn clean_tombstones(&self, tenant: &TenantId) -> Result<()>;

    /// How many series that match the tenant has in the part of the store that takes writes, and where they
    /// come from.
    async fn cardinality(
        &self,
        tenant: &TenantId,
        matchers: MatcherSets,
        limit: usize,
    ) -> Result<Cardinality>;

    /// How many series of the tenant are active: what [`SeriesRoom::max_active`] bounds. Cheap, answered from
    /// memory; none if the store does not know.
    fn active_series(&self, tenant: &TenantId) -> Option<u64>;

    /// Keeps a small text of a tenant in place of the one of its kind before; none removes that. It is durable when
    /// this returns. Who asks elsewhere, of a store that several processes share, may still be told the one before.
    async fn put_document(&self, tenant: &TenantId, kind: DocumentKind, text: Option<String>) -> Result<()>;

    /// All tenants' texts of a kind, by tenant.
    async fn documents(&self, kind: DocumentKind) -> Result<Vec<(TenantId, String)>>;

    /// What has changed of the tenant's samples in a range since the store was opened; none if the store cannot tell
    /// exactly.
    ///
    /// A change is among them from when it is acknowledged, and counts as later than every [`Changes::now`] that was
    /// told before it could be seen whole.
    async fn changes(&self, tenant: &TenantId, range: TimeRange) -> Result<Option<Changes>>;

    /// Makes everything held in memory durable in its final place, compacted.
    async fn flush(&self) -> Result<()>;

    /// Makes a copy of everything that was written before, that can be opened as a store of its own, and gives its
    /// name; with `skip_head`, of what the last flush has made durable in its final place. Whatever happens, there is
    /// the whole copy or none. A store that is copied in another way says so by [`StorageError::Unsupported`].
    async fn snapshot(&self, skip_head: bool) -> Result<String>;

    /// Removes what is older than the retention.
    async fn enforce_retention(&self) -> Result<()>;

    /// What the store holds and what it costs.
    async fn status(&self) -> Result<StorageStatus>;

    /// Whether the store can do its work now; cheap, answered from memory.
    fn health(&self) -> Health;

    /// What stands behind its health, for whoever looks after the store; answered from memory, too.
    fn checks(&self) -> Vec<Check>;

    /// What was read back of the store's log when it was opened; none if it has none.
    fn replay(&self) -> Option<Replay>;

    /// Stops background work and leaves everything durable. Calls after it fail.
    async fn close(&self) -> Result<()>;
}

/// A [`Storage`] that selects without waiting for anything but its own disk.
pub trait SelectHere {
    /// [`Storage::select`] on the thread that asks; [`StorageError::Stopped`] soon after `is_over` says so.
    fn select_here(
        &self,
        tenant: &TenantId,
        request: &SelectRequest,
        is_over: IsOver<'_>,
    ) -> Result<Selected>;
}

/// What a tenant's small text is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentKind {
    /// The limits that somebody gave it.
    Limits,
}

impl DocumentKind {
    /// The name it has where it is kept.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Limits => "limits",
        }
    }
}

/// Where a tenant's series come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cardinality {
    /// Series that take writes now.
    pub series: u64,
    /// Different `name=value` pairs they have.
    pub pairs: u64,
    /// Chunks they hold.
    pub chunks: u64,
    /// Their earliest and latest sample.
    pub range: Option<TimeRange>,
    /// Metrics with the most series, most first.
    pub series_by_metric: Vec<(String, u64)>,
    /// Label names with the most values, most first.
    pub values_by_label: Vec<(String, u64)>,
    /// Bytes that the values of a label take, most first.
    pub bytes_by_label: Vec<(String, u64)>,
    /// `name=value` pairs with the most series, most first.
    pub series_by_pair: Vec<(String, u64)>,
}

/// What a store holds and what it costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageStatus {
    /// The backend's name.
    pub backend: &'static str,
    /// Series that take writes now, of all tenants.
    pub active_series: u64,
    /// Samples appended since the start.
    pub samples_appended: u64,
    /// Bytes on disk by kind of file (`wal`, `parts`, `catalog`, `ballast`, …).
    pub disk_bytes: Vec<(&'static str, u64)>,
    /// Samples in sealed parts.
    pub part_samples: u64,
    /// Sealed parts.
    pub parts: u64,
    /// Earliest and latest sample held.
    pub range: Option<TimeRange>,
    /// Files set aside because they do not read back.
    pub quarantined: Vec<String>,
}

/// What was read back of a log. A store is there only when all of it was, so there is no such thing as half a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// The first segment that was read.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// Places that did not read back.
    pub damaged: u64,
}

/// Whether a store can do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Reads and writes work.
    Ready,
    /// Still opening; `progress` is for a person.
    Starting {
        /// What it is doing.
        progress: String,
    },
    /// Reads work, writes are refused until the cause is gone.
    ReadOnly {
        /// The cause.
        reason: String,
    },
    /// Nothing works.
    Unavailable {
        /// The cause.
        reason: String,
    },
}

/// Something that was looked at, and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What it is.
    pub name: String,
    /// How it is.
    pub state: CheckState,
    /// More about it, for a person.
    pub detail: String,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckState {
    /// As it should be.
    Ok,
    /// The store works, but somebody should look.
    Degraded,
    /// What depends on it does not work.
    Failed,
}
