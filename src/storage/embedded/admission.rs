//! Series that may or may not begin.
//!
//! A batch with bounds is appended in two steps: first what belongs to series that the head has, then, when it
//! is known how many may begin, the rest. Bounded series are counted in the head; what was active before
//! the store was opened has to be in it, so that it is not taken for new. The log brings back what was written
//! since the last flush, and what was written shortly before is [recalled](Engine::recall) from the parts, once for
//! each tenant, when a series of it is first met that the head does not have.

use std::sync::{Arc, OnceLock};

use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;

use super::{
    engine::Engine,
    flush::ACTIVE,
    view::{Sealed, View},
};
use crate::{
    model::{Labels, SeriesId, TenantId, TimeRange, Timestamp},
    storage::{Result, WriteBatch},
};

/// Series that become known in one go; a flush waits no longer than that takes.
const AT_ONCE: usize = 4096;

/// Whose active series of before the start are known.
#[derive(Debug, Default)]
pub(crate) struct Recalled(Mutex<HashMap<TenantId, Arc<OnceLock<()>>>>);

impl Engine {
    /// Makes the series known that were active when the parts end. Whoever asks meanwhile waits.
    pub(crate) fn recall(&self, tenant: &TenantId) {
        let once = Arc::clone(self.recalled.0.lock().entry(tenant.clone()).or_default());
        once.get_or_init(|| {
            let view = self.view.load_full();
            let Some((end, active)) = active_in_parts(&view, tenant, self.clock.now()) else { return };
            for some in active.chunks(AT_ONCE) {
                let gate = self.gate.read();
                let view = self.view.load();
                let frozen = view.heads.len().checked_sub(2).map(|i| &view.heads[i]);
                let moves = |(labels, _): &&(Labels, i64)| {
                    frozen.is_none_or(|head| head.look_up(tenant, labels.id(), |_| ()).is_none())
                };
                some.iter().filter(moves).for_each(|(labels, last)| gate.recall(tenant, labels, *last));
                gate.carry(end);
            }
        });
    }

    /// How many series of a batch are not known.
    pub(crate) fn unknown_series(&self, tenant: &TenantId, batch: &WriteBatch) -> u64 {
        let view = self.view.load();
        let named = batch.samples.iter().map(|s| s.series).chain(batch.histograms.iter().map(|h| h.series));
        let ids: HashSet<SeriesId> = named.map(|series| batch.series[series as usize]).collect();
        let known = |id: SeriesId| view.heads.iter().any(|head| head.look_up(tenant, id, |_| ()).is_some());
        ids.into_iter().filter(|id| !known(*id)).count() as u64
    }
}

/// When the parts end, but not after now; and a tenant's series with samples shortly before, each with its last.
fn active_in_parts(
    view: &View,
    tenant: &TenantId,
    now: Timestamp,
) -> Option<(Timestamp, Vec<(Labels, i64)>)> {
    let ends = view.parts.iter().filter_map(|part| part.range()).map(|range| range.end());
    let end = ends.max()?.min(now);
    let range = TimeRange::new(end.minus(ACTIVE), Timestamp::MAX)?;
    let mut active: HashMap<Labels, i64> = HashMap::new();
    for part in view.parts.iter().filter(|part| part.touches(tenant, range)) {
        // What does not read back is as good as not there; what it is the log has been told.
        for (labels, last) in part.noting(series_with_samples(part, tenant, range)).unwrap_or_default() {
            let known = active.entry(labels).or_insert(last);
            *known = last.max(*known);
        }
    }
    Some((end, active.into_iter().collect()))
}

fn series_with_samples(part: &Sealed, tenant: &TenantId, range: TimeRange) -> Result<Vec<(Labels, i64)>> {
    let mut found = Vec::new();
    for ordinal in part.part.find(tenant, &[])? {
        let of_series = part.part.series_range(ordinal)?;
        if of_series.overlaps(range) {
            found.push((part.part.labels(ordinal)?, of_series.end().0));
        }
    }
    Ok(found)
}

/// Takes what is put off out of a batch, with the exemplars of its series.
pub(crate) fn put_off(batch: &mut WriteBatch, places: &(Vec<u32>, Vec<u32>)) -> Option<WriteBatch> {
    let (samples, histograms) = places;
    if samples.is_empty() && histograms.is_empty() {
        return None;
    }
    let samples: Vec<_> = samples.iter().map(|i| batch.samples[*i as usize]).collect();
    let histograms: Vec<_> = histograms.iter().map(|i| batch.histograms[*i as usize].clone()).collect();
    let series: HashSet<u32> =
        samples.iter().map(|s| s.series).chain(histograms.iter().map(|h| h.series)).collect();
    let exemplars = batch.exemplars.extract_if(.., |e| series.contains(&e.series)).collect();
    Some(WriteBatch {
        series: batch.series.clone(),
        labels: Arc::clone(&batch.labels),
        samples,
        histograms,
        exemplars,
        metadata: Vec::new(),
        policy: batch.policy,
        room: None,
    })
}
