//! Keeps our own metrics as everybody else's.
//!
//! Every interval the exposition is rendered in process, read back as text like any scraper would,
//! labelled `job="luminate"` and `instance="<listen address>"`, and appended for one tenant. Around it go the
//! series a scrape leaves behind: `up`, `scrape_duration_seconds` and `scrape_samples_scraped`. What its comments
//! say of the metrics is kept as metadata. A series that
//! was there last time and is not now gets a stale marker; so do all of them when the process stops.
//!
//! The first scrape is taken at once, so that the reflex query `up` has an answer a moment after
//! the start. What goes wrong is logged and tried again at the next interval.

pub mod exposition;

use std::{collections::HashSet, fmt, future::Future, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use self::exposition::Exposition;
use crate::{
    clock::Clock,
    model::{Labels, METRIC_NAME, Metadata, TenantId, Timestamp, stale_nan},
    storage::{BatchSample, Storage, StorageError, WriteBatch},
};

/// Gives the exposition as it stands.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// Scrapes this process into its own store.
pub struct SelfScrape {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    render: Render,
    tenant: TenantId,
    instance: String,
    /// The series of the last scrape that was written.
    last: HashSet<Labels>,
    /// What the store was told of our metrics.
    told: Vec<Metadata>,
}

impl SelfScrape {
    /// Prepares to scrape what `render` gives, for `tenant`, as `instance`.
    pub fn new(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        render: Render,
        tenant: TenantId,
        instance: String,
    ) -> Self {
        Self { storage, clock, render, tenant, instance, last: HashSet::new(), told: Vec::new() }
    }

    /// Scrapes at once and then every `period`, until `stop`.
    pub async fn run(mut self, period: Duration, stop: impl Future<Output = ()>) {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        tokio::pin!(stop);
        ticks.tick().await;
        self.scrape_or_log().await;
        loop {
            tokio::select! {
                _ = ticks.tick() => self.scrape_or_log().await,
                () = &mut stop => break,
            }
        }
        if let Err(error) = self.append(Vec::new(), Vec::new()).await {
            tracing::warn!(event = "self_scrape_failed", %error, "could not mark our own metrics as stale");
        }
    }

    async fn scrape_or_log(&mut self) {
        if let Err(error) = self.scrape().await {
            tracing::warn!(event = "self_scrape_failed", %error);
        }
    }

    async fn scrape(&mut self) -> Result<(), StorageError> {
        let began = self.clock.elapsed();
        let text = (self.render)();
        let parsed = exposition::parse(&text, &[("job", "luminate"), ("instance", &self.instance)]);
        let took = self.clock.elapsed().saturating_sub(began);
        let (Exposition { mut samples, metadata }, up) = match parsed {
            Ok(exposition) => (exposition, 1.0),
            Err(error) => {
                tracing::warn!(event = "self_scrape_failed", %error);
                (Exposition::default(), 0.0)
            }
        };
        let scraped = u32::try_from(samples.len()).map_or(f64::INFINITY, f64::from);
        samples.push((self.series("up"), up));
        samples.push((self.series("scrape_duration_seconds"), took.as_secs_f64()));
        samples.push((self.series("scrape_samples_scraped"), scraped));
        self.append(samples, metadata).await
    }

    /// Appends samples of now, stale markers for what was there before and is not among them, and metadata that
    /// the store has not been told.
    async fn append(
        &mut self,
        samples: Vec<(Labels, f64)>,
        metadata: Vec<Metadata>,
    ) -> Result<(), StorageError> {
        let at = self.clock.now();
        let present: HashSet<Labels> = samples.iter().map(|(labels, _)| labels.clone()).collect();
        let gone = self.last.difference(&present).map(|labels| (labels.clone(), stale_nan()));
        let mut batch = batch(samples.into_iter().chain(gone), at);
        batch.metadata = metadata.iter().filter(|family| !self.told.contains(family)).cloned().collect();
        self.storage.append(&self.tenant, batch).await?;
        self.last = present;
        self.told = metadata;
        Ok(())
    }

    fn series(&self, name: &str) -> Labels {
        let pairs = [(METRIC_NAME, name), ("job", "luminate"), ("instance", &self.instance)];
        Labels::from_pairs(pairs).expect("three different names")
    }
}

impl fmt::Debug for SelfScrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelfScrape").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

fn batch(samples: impl Iterator<Item = (Labels, f64)>, at: Timestamp) -> WriteBatch {
    let (labels, values): (Vec<Labels>, Vec<f64>) = samples.unzip();
    let mut batch = WriteBatch::over(labels);
    batch.samples = (0..)
        .zip(values)
        .map(|(series, value)| BatchSample { series, timestamp: at, value, start: 0 })
        .collect();
    batch
}

#[cfg(test)]
mod tests;
