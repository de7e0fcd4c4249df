//! What a query sees: the heads and the parts at one moment.
//!
//! A view never changes; a flush or a merge puts another in its place. So a query that holds one sees
//! neither a gap nor anything twice, and the files it reads stay until it lets go of them.

use std::{path::Path, sync::Arc};

use parking_lot::Mutex;

use super::{
    head::{
        Head,
        series::{Before, NewValue},
    },
    part::Part,
    wal::record::put_histogram,
};
use crate::{
    model::{Labels, Matcher, TenantId, TimeRange, Timestamp},
    storage::{Result, SeriesSamples, StorageError},
};

/// The heads and the parts, each from the oldest to the newest.
#[derive(Debug)]
pub(crate) struct View {
    /// At most one that is being flushed, then the one that takes writes.
    pub(crate) heads: Vec<Arc<Head>>,
    pub(crate) parts: Vec<Arc<Sealed>>,
}

/// A part, and what is known of its damage.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) part: Part,
    damage: Mutex<Option<String>>,
}

impl View {
    /// The head that takes writes.
    pub(crate) fn active(&self) -> &Arc<Head> {
        self.heads.last().expect("a view has an active head")
    }

    /// This view with other parts, in their order.
    pub(crate) fn with_parts(&self, mut parts: Vec<Arc<Sealed>>) -> Self {
        parts.sort_by_key(|p| p.age());
        Self { heads: self.heads.clone(), parts }
    }
}

impl Sealed {
    pub(crate) fn new(part: Part) -> Arc<Self> {
        Arc::new(Self { part, damage: Mutex::new(None) })
    }

    /// Sorts parts so that the samples of later ones win.
    pub(crate) fn age(&self) -> (u64, u64) {
        let meta = self.part.meta();
        (meta.covers_wal, meta.id.0)
    }

    pub(crate) fn range(&self) -> Option<TimeRange> {
        self.part.meta().range
    }

    /// Whether the part has samples of a tenant in a range.
    pub(crate) fn touches(&self, tenant: &TenantId, range: TimeRange) -> bool {
        self.part.meta().tenant(tenant).and_then(|t| t.range).is_some_and(|r| r.overlaps(range))
    }

    pub(crate) fn samples(&self) -> u64 {
        let meta = self.part.meta();
        meta.samples.saturating_add(meta.histograms)
    }

    /// What is known to be damaged, for a person.
    pub(crate) fn damage(&self) -> Option<String> {
        self.damage.lock().clone()
    }

    /// Passes an outcome on, and takes note if it says that the part is damaged.
    pub(crate) fn noting<T>(&self, outcome: Result<T>) -> Result<T> {
        if let Err(error @ StorageError::Corrupt { .. }) = &outcome {
            let mut damage = self.damage.lock();
            if damage.is_none() {
                tracing::error!(%error, "a part is damaged, the rest of it is served");
                *damage = Some(error.to_string());
            }
        }
        outcome
    }

    /// The number of the series with these labels.
    pub(crate) fn number_of(&self, tenant: &TenantId, labels: &Labels) -> Result<Option<u32>> {
        let matchers: Vec<Matcher> = labels.iter().map(|(n, v)| Matcher::equal(n, v)).collect();
        for ordinal in self.noting(self.part.find(tenant, &matchers))? {
            if self.noting(self.part.labels(ordinal))? == *labels {
                return Ok(Some(ordinal));
            }
        }
        Ok(None)
    }

    pub(crate) fn path(&self) -> &Path {
        self.part.path()
    }
}

/// What a tenant has outside the head that takes writes.
#[derive(Debug)]
pub(crate) struct Elsewhere<'a> {
    pub(crate) view: &'a View,
    pub(crate) tenant: &'a TenantId,
}

impl Elsewhere<'_> {
    fn frozen(&self) -> impl Iterator<Item = &Arc<Head>> {
        let frozen = self.view.heads.len().saturating_sub(1);
        self.view.heads[..frozen].iter().rev()
    }

    fn part_at(&self, sealed: &Sealed, labels: &Labels, at: i64) -> Result<SeriesSamples> {
        let mut samples = SeriesSamples::default();
        let range = TimeRange::new(Timestamp(at), Timestamp(at)).unwrap_or(TimeRange::ALL);
        if sealed.touches(self.tenant, range)
            && let Some(ordinal) = sealed.number_of(self.tenant, labels)?
        {
            sealed.noting(sealed.part.read(ordinal, range, &mut samples))?;
        }
        Ok(samples)
    }
}

impl Before for Elsewhere<'_> {
    fn newest(&self, labels: &Labels) -> Option<i64> {
        let frozen = self.frozen().filter_map(|h| h.look_up(self.tenant, labels.id(), |s| s.newest())?);
        let sealed = self.view.parts.iter().filter_map(|sealed| {
            // What does not read back is as good as not there.
            let ordinal = sealed.number_of(self.tenant, labels).ok()??;
            Some(sealed.noting(sealed.part.series_range(ordinal)).ok()?.end().0)
        });
        frozen.chain(sealed).max()
    }

    fn same_at(&self, labels: &Labels, at: i64, value: NewValue<'_>) -> Option<bool> {
        let range = TimeRange::new(Timestamp(at), Timestamp(at))?;
        for head in self.frozen() {
            let mut samples = SeriesSamples::default();
            head.look_up(self.tenant, labels.id(), |s| s.read(range, &mut samples));
            if let Some(same) = same(&samples, value) {
                return Some(same);
            }
        }
        self.view.parts.iter().rev().find_map(|sealed| same(&self.part_at(sealed, labels, at).ok()?, value))
    }
}

fn same(samples: &SeriesSamples, value: NewValue<'_>) -> Option<bool> {
    if let Some(float) = samples.values.first() {
        return Some(value == NewValue::Float(float.to_bits()));
    }
    let mut bytes = Vec::new();
    put_histogram(&mut bytes, &samples.histograms.first()?.histogram);
    Some(value == NewValue::Histogram(&bytes))
}
