//! From a batch to inserts.

mod retention;
mod rows;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::future::try_join_all;
use xxhash_rust::xxh3::xxh3_128;

use self::{
    retention::{Keep, Retention},
    rows::{Sample, Table},
};
use super::{
    client::{Insert, Servers},
    config::ClickHouseConfig,
};
use crate::{
    clock::Clock,
    model::{SeriesId, TenantId, Timestamp},
    storage::{Appended, OnConflict, RejectReason, Rejected, Result, SampleKind, StorageError, WriteBatch},
};

/// The way in.
#[derive(Debug)]
pub(super) struct Writes {
    servers: Arc<Servers>,
    retention: Retention,
    clock: Arc<dyn Clock>,
}

/// A batch, taken apart by table.
#[derive(Debug, Default)]
struct Parts {
    samples: Vec<Sample>,
    histograms: Vec<u8>,
    exemplars: Vec<u8>,
    metadata: Vec<u8>,
    /// On which days which of the batch's series have something.
    days: BTreeSet<(u16, SeriesId, u32)>,
}

impl Writes {
    pub(super) fn new(servers: Arc<Servers>, config: Arc<ClickHouseConfig>, clock: Arc<dyn Clock>) -> Self {
        Self { servers, retention: Retention::new(&config), clock }
    }

    pub(super) async fn append(&self, tenant: &TenantId, batch: WriteBatch) -> Result<Appended> {
        if batch.policy.on_conflict == OnConflict::Reject {
            return Err(StorageError::Unsupported(
                "ClickHouse keeps the greatest of values in conflict; on_conflict cannot be reject"
                    .to_owned(),
            ));
        }
        let keep = self.retention.keep(tenant, self.clock.now());
        let name = rows::tenant_bytes(tenant.as_str());
        let (parts, appended) = take_apart(&batch, &name, keep);
        let mut samples = Vec::new();
        parts.samples.iter().for_each(|sample| sample.put(&mut samples, &name, keep.class));
        let mut series = Vec::new();
        for (day, id, ordinal) in &parts.days {
            let labels = batch.labels.labels(usize::try_from(*ordinal).expect("an index fits"));
            rows::put_series(&mut series, &name, *day, *id, &labels, keep.class);
        }
        let inserts = [
            (Table::Samples, samples),
            (Table::Histograms, parts.histograms),
            (Table::Exemplars, parts.exemplars),
            (Table::Series, series),
            (Table::Metadata, parts.metadata),
        ];
        let inserts = inserts.into_iter().filter(|(_, rows)| !rows.is_empty()).map(async |(table, rows)| {
            let token = token(&rows, self.clock.now());
            self.servers.insert(&Insert { into: table.into(), rows: Bytes::from(rows), token }).await
        });
        try_join_all(inserts).await?;
        Ok(appended)
    }

    pub(super) async fn flush(&self) -> Result<()> {
        Ok(())
    }

    pub(super) async fn close(&self) -> Result<()> {
        Ok(())
    }
}

/// Sorts what the retention keeps by table, and says what it refuses.
fn take_apart(batch: &WriteBatch, tenant: &[u8], keep: Keep) -> (Parts, Appended) {
    let mut parts = Parts::default();
    let mut appended = Appended::default();
    let id = |series: u32| batch.series[usize::try_from(series).expect("an index fits")];
    let reject = |appended: &mut Appended, series, kind, timestamp| {
        appended.rejected.push(Rejected { series, kind, timestamp, reason: RejectReason::TooOld });
    };
    for sample in &batch.samples {
        if sample.timestamp < keep.oldest {
            reject(&mut appended, sample.series, SampleKind::Float, sample.timestamp);
            continue;
        }
        let (id, ts) = (id(sample.series), sample.timestamp.0);
        parts.days.insert((rows::day(ts), id, sample.series));
        parts.samples.push(Sample { id, ts, value: sample.value, start: sample.start });
        appended.samples += 1;
    }
    for histogram in &batch.histograms {
        if histogram.timestamp < keep.oldest {
            reject(&mut appended, histogram.series, SampleKind::Histogram, histogram.timestamp);
            continue;
        }
        let (id, ts) = (id(histogram.series), histogram.timestamp.0);
        parts.days.insert((rows::day(ts), id, histogram.series));
        let times = (ts, histogram.start);
        rows::put_histogram(&mut parts.histograms, tenant, id, times, &histogram.histogram, keep.class);
        appended.histograms += 1;
    }
    for exemplar in &batch.exemplars {
        let timestamp = exemplar.exemplar.timestamp;
        if timestamp < keep.oldest_exemplar {
            reject(&mut appended, exemplar.series, SampleKind::Exemplar, timestamp);
            continue;
        }
        let id = id(exemplar.series);
        parts.days.insert((rows::day(timestamp.0), id, exemplar.series));
        rows::put_exemplar(&mut parts.exemplars, tenant, id, &exemplar.exemplar, keep.exemplar_class);
        appended.exemplars += 1;
    }
    for metadata in &batch.metadata {
        rows::put_metadata(&mut parts.metadata, tenant, metadata);
        appended.metadata += 1;
    }
    (parts, appended)
}

/// A name for an insert that no other has, on any pod, unless it has the same rows at the same time.
///
/// The rows are in it, and because the same rows may have to be written twice (deleted in between), so is
/// who writes them when and how often it has done so.
fn token(rows: &[u8], now: Timestamp) -> String {
    static INSERTS: AtomicU64 = AtomicU64::new(0);
    let mut who = [0; 36];
    who[..16].copy_from_slice(&xxh3_128(rows).to_le_bytes());
    who[16..24].copy_from_slice(&now.0.to_le_bytes());
    who[24..32].copy_from_slice(&INSERTS.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    who[32..].copy_from_slice(&std::process::id().to_le_bytes());
    format!("{:032x}", xxh3_128(&who))
}
