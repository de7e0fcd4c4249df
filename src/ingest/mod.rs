//! A request in, a durable batch out.
//!
//! One write, step by step:
//!
//! 1. The size the body declares is checked, and bytes are taken from the budget of those being
//!    worked on; where there are none left the sender is told to come again ([`Ingest`]).
//! 2. The body is decompressed and walked over in place (`decode`): samples are copied out, labels
//!    stay where they are, as a place and a key. A large body is read off the I/O threads.
//! 3. The keys are looked up (`known`). Only what is new is read, checked (`validate`) and made
//!    into labels; what is wrong falls out alone, with a reason (`outcome`).
//! 4. The batch goes to the store. What the store refuses is added to what was refused before.
//!
//! Good samples are kept when others are bad, whatever the protocol's version.
//!
//! Unsorted labels: a 1.0 receiver has always sorted them, and so does this one. 2.0 says that senders
//! must, and a series whose labels are not sorted is refused.

mod counters;
pub(crate) mod decode;
pub(crate) mod import;
pub(crate) mod known;
pub(crate) mod labels;
mod outcome;
mod resolve;
mod sender;
mod validate;

#[cfg(test)]
pub(crate) mod tests;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    clock::Clock,
    model::{Millis, OverLimit, SeriesId, TenantId, Timestamp},
    storage::{AppendPolicy, Storage, StorageError},
    task::shares::{Held, Shares},
};

use counters::add;
use known::KnownSeries;
use resolve::Resolved;

pub use counters::IngestCounters;
pub use decode::{DecodeError, HistogramMessage};
pub use import::{Import, Imported};
pub use known::Seed;
pub use outcome::{Example, Outcome, Reason, Rejections};
pub use sender::{NoQuota, Sender, WriteQuota};
pub use validate::BadHistogram;

/// What one request may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestLimits {
    /// The largest a request may be decompressed; below 4 GiB.
    pub max_decompressed_bytes: usize,
    /// How many bytes of requests may be worked on at the same time; read once, at the start.
    pub max_in_flight_bytes: usize,
    /// The most series in a request.
    pub max_series: usize,
    /// The most samples, histograms and exemplars in a request, together.
    pub max_samples: usize,
    /// The most symbols in a 2.0 request.
    pub max_symbols: usize,
    /// The most labels a series may have.
    pub max_labels: usize,
    /// The longest a label's name may be.
    pub max_label_name_bytes: usize,
    /// The longest a label's value may be.
    pub max_label_value_bytes: usize,
    /// How far in the future a sample may be; none is without bound.
    pub creation_grace: Option<Millis>,
    /// How many series are recognised by their bytes; read once, at the start.
    pub known_series: usize,
    /// The longest line of an import.
    pub max_line_bytes: usize,
    /// How many refused samples an answer shows.
    pub max_examples: usize,
    /// When one who finds no room is to come again.
    pub retry_after: Duration,
    /// How the store is to settle what does not fit.
    pub policy: AppendPolicy,
}

impl Default for IngestLimits {
    fn default() -> Self {
        Self {
            max_decompressed_bytes: 32 << 20,
            max_in_flight_bytes: 256 << 20,
            max_series: 1_000_000,
            max_samples: 2_000_000,
            max_symbols: 2_000_000,
            max_labels: 64,
            max_label_name_bytes: 1024,
            max_label_value_bytes: 4096,
            creation_grace: Some(Millis(10 * Millis::MINUTE.0)),
            known_series: 1 << 21,
            max_line_bytes: 10 << 20,
            max_examples: 10,
            retry_after: Duration::from_secs(1),
            policy: AppendPolicy::default(),
        }
    }
}

impl IngestLimits {
    /// Limits that any labels keep.
    pub(crate) fn without_label_limits() -> Self {
        Self {
            max_labels: usize::MAX,
            max_label_name_bytes: usize::MAX,
            max_label_value_bytes: usize::MAX,
            ..Self::default()
        }
    }

    fn within_format(mut self) -> Self {
        // Places in a request are 32 bits.
        self.max_decompressed_bytes = self.max_decompressed_bytes.min(u32::MAX as usize - 1);
        self
    }
}

/// Why nothing of a request is known to be written.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// More than a request may have.
    #[error("the request has more than {limit} {what}")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How much it may have.
        limit: usize,
    },
    /// Not what it says it is.
    #[error("the request does not decode: {0}")]
    Decode(#[from] DecodeError),
    /// The store failed; some of it may be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// More than the tenant may write; nothing of it is written.
    #[error(transparent)]
    OverLimit(#[from] OverLimit),
    /// Too much is being worked on.
    #[error("too many bytes are being ingested")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
}

/// A declared size up to which a request is read right where it arrives.
const INLINE_BYTES: usize = 512 << 10;
/// Budget is counted in units of so many bytes.
const BUDGET_UNIT: usize = 1024;

/// Room to work in, given back when dropped.
#[derive(Debug)]
struct Room {
    _permit: OwnedSemaphorePermit,
    _share: Held<TenantId>,
}

/// What one does who is out of samples for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// Gives up, and the sender comes again.
    Now,
    /// Waits, and so does the sender.
    WhenThereIsRoom,
}

/// The versions of remote write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Takes writes.
#[derive(Debug)]
pub struct Ingest {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    limits: IngestLimits,
    known: Arc<KnownSeries>,
    budget: Arc<Semaphore>,
    budget_units: u32,
    budget_shares: Shares<TenantId>,
    imports: Arc<Semaphore>,
    import_shares: Shares<TenantId>,
    counters: IngestCounters,
}

impl Ingest {
    /// Makes the write path of a store. `seed` is random, and no sender may know it.
    pub fn new(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>, limits: IngestLimits, seed: Seed) -> Self {
        let limits = limits.within_format();
        let units = (limits.max_in_flight_bytes / BUDGET_UNIT).clamp(1, Semaphore::MAX_PERMITS);
        let budget_units = u32::try_from(units).unwrap_or(u32::MAX);
        Self {
            storage,
            clock,
            known: Arc::new(KnownSeries::new(limits.known_series, seed)),
            budget: Arc::new(Semaphore::new(budget_units as usize)),
            budget_units,
            budget_shares: Shares::new(),
            import_shares: Shares::new(),
            imports: Arc::new(Semaphore::new(import::MAX_IMPORTS)),
            limits,
            counters: IngestCounters::default(),
        }
    }

    /// Takes a remote write 1.0 request.
    pub async fn remote_write_v1(&self, sender: &Sender, body: Bytes) -> Result<Outcome, IngestError> {
        self.count(self.write(Version::One, sender, body).await)
    }

    /// Takes a remote write 2.0 request.
    pub async fn remote_write_v2(&self, sender: &Sender, body: Bytes) -> Result<Outcome, IngestError> {
        self.count(self.write(Version::Two, sender, body).await)
    }

    /// What has been counted since the start.
    pub fn counters(&self) -> &IngestCounters {
        &self.counters
    }

    /// How many entries the table of known series has.
    pub fn known_series(&self) -> usize {
        self.known.len()
    }

    async fn write(&self, version: Version, sender: &Sender, body: Bytes) -> Result<Outcome, IngestError> {
        add(&self.counters.requests, 1);
        add(&self.counters.compressed_bytes, body.len() as u64);
        let limits = Arc::new(sender.within(&self.limits));
        let declared = decode::declared_size(&body, &limits)?;
        add(&self.counters.decompressed_bytes, declared as u64);
        // The samples of a request take about as much again as its bytes.
        let permit = self.admit(&sender.tenant, body.len() + 2 * declared, &limits)?;

        let latest = match limits.creation_grace {
            Some(grace) => self.clock.now().plus(grace),
            None => Timestamp::MAX,
        };
        let reading = Reading {
            version,
            sender: sender.clone(),
            body,
            known: Arc::clone(&self.known),
            limits: Arc::clone(&limits),
            latest,
        };
        let (resolved, _permit) = if declared <= INLINE_BYTES {
            (reading.run()?, permit)
        } else {
            // The permit goes along: dropping this future does not stop the work.
            let work = move || reading.run().map(|resolved| (resolved, permit));
            tokio::task::spawn_blocking(work).await.map_err(|error| StorageError::Unavailable {
                detail: format!("decoding was interrupted: {error}"),
                retry_after: None,
            })??
        };
        self.append(sender, resolved, &limits, Pace::Now).await
    }

    /// Takes room to work in, of which no tenant has more than it leaves for others.
    fn admit(&self, tenant: &TenantId, bytes: usize, limits: &IngestLimits) -> Result<Room, IngestError> {
        // A request that is more than the whole budget runs alone.
        let units = u32::try_from(bytes / BUDGET_UNIT + 1).unwrap_or(u32::MAX).min(self.budget_units);
        let free = self.budget.available_permits();
        let room = self.budget_shares.take(tenant, units as usize, free).and_then(|share| {
            let permit = Arc::clone(&self.budget).try_acquire_many_owned(units).ok()?;
            Some(Room { _permit: permit, _share: share })
        });
        room.ok_or_else(|| {
            add(&self.counters.overloaded, 1);
            IngestError::Overloaded { retry_after: limits.retry_after }
        })
    }

    async fn append(
        &self,
        sender: &Sender,
        resolved: Resolved,
        limits: &IngestLimits,
        pace: Pace,
    ) -> Result<Outcome, IngestError> {
        let Resolved { mut batch, labels, mut rejected, metadata_keys, counts } = resolved;
        add(&self.counters.known_series, counts.known);
        add(&self.counters.new_series, counts.new);
        add(&self.counters.dropped_metadata, counts.bad_metadata);
        let nothing = batch.samples.is_empty()
            && batch.histograms.is_empty()
            && batch.exemplars.is_empty()
            && batch.metadata.is_empty();
        if nothing {
            return Ok(Outcome { rejected, ..Outcome::default() });
        }
        let cost = (batch.samples.len() + batch.histograms.len() + batch.exemplars.len()) as u64;
        let Sender { tenant, limits: allowed, quota, .. } = sender;
        match pace {
            Pace::Now => quota.take_samples(tenant, allowed, cost).await?,
            Pace::WhenThereIsRoom => quota.wait_for_samples(tenant, allowed, cost).await?,
        }
        batch.room = sender.room();
        let appended = self.storage.append(&sender.tenant, batch).await?;
        resolve::add_refused(&mut rejected, &appended.rejected, &labels, limits);
        for mut over in appended.over {
            over.for_good = sender.limits.refuses_for_good(over.limit);
            rejected.over_limit(over);
        }
        for key in metadata_keys {
            self.known.remember(key, SeriesId(0));
        }
        Ok(Outcome {
            samples: appended.samples,
            histograms: appended.histograms,
            exemplars: appended.exemplars,
            metadata: appended.metadata,
            rejected,
        })
    }

    fn count(&self, result: Result<Outcome, IngestError>) -> Result<Outcome, IngestError> {
        match &result {
            Ok(outcome) => {
                add(&self.counters.samples, outcome.samples);
                add(&self.counters.histograms, outcome.histograms);
                add(&self.counters.exemplars, outcome.exemplars);
                add(&self.counters.metadata, outcome.metadata);
                add(&self.counters.rejected, outcome.rejected.total);
            }
            Err(_) => add(&self.counters.failed_requests, 1),
        }
        result
    }
}

/// Everything that is needed to read a request, wherever it is read.
struct Reading {
    version: Version,
    sender: Sender,
    body: Bytes,
    known: Arc<KnownSeries>,
    limits: Arc<IngestLimits>,
    latest: Timestamp,
}

impl Reading {
    fn run(self) -> Result<Resolved, IngestError> {
        let Self { version, sender, body, known, limits, latest } = self;
        let (tenant, rules) = (&sender.tenant, sender.rules());
        let buffer = decode::decompress(&body)?;
        drop(body);
        let draft = match version {
            Version::One => {
                let keyer = known.keyer(tenant, rules, 1);
                decode::remote_write::decode(buffer, &keyer, &limits, latest)?
            }
            Version::Two => {
                let keyer = known.keyer(tenant, rules, 2);
                decode::remote_write2::decode(buffer, &keyer, &known, &limits, latest)?
            }
        };
        Ok(resolve::resolve(draft, &sender, &known, &limits))
    }
}
