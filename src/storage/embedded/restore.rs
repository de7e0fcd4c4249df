//! Puts what the log has back into memory, on several processors.
//!
//! ```text
//!                                    ┌─▶ worker 0: places, samples ─┐ new series
//! segments ─▶ dealer: read, decode ──┼─▶ worker 1: places, samples ─┼────────────▶ indexer
//!                                    └─▶ …                         ─┘
//! ```
//!
//! The dealer is the thread that reads the log. It deals by the stripe of the head that a series lies in, whatever
//! number the series has: all that the log says of a series goes to one worker, in the order in which it was said,
//! so that the samples that win are those that won before. Queues are short: what is on its way takes a few
//! megabytes, however long the log is.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use super::{
    exemplars::Exemplars,
    head::{Head, HeadTenant, Place, Tally, series::NewValue},
    register::{Register, hidden},
    wal::record::{LoggedHistogram, LoggedSample, Record},
};
use crate::{
    model::{Labels, SeriesId, TenantId},
    storage::Result,
};

/// More workers than this would wait for the dealer.
const MOST_WORKERS: usize = 8;
/// Samples are dealt so many at a time.
const AT_ONCE: usize = 8192;
/// So much may wait for each worker.
const WAITING: usize = 4;
/// A number may be so far ahead of all before it: those between were written by others at the same time, or are lost.
const MOST_SKIPPED: usize = 1 << 24;
/// Stands for the worker of a number that no series has.
const NOBODY: u8 = u8::MAX;

/// What a worker is told.
enum Work {
    /// Numbers mean other series from now on.
    Epoch,
    Series(Arc<HeadTenant>, Vec<(u32, SeriesId, Labels)>),
    Samples(Vec<LoggedSample>),
    Histograms(Vec<OwnHistogram>),
}

struct OwnHistogram {
    number: u32,
    timestamp: i64,
    start: i64,
    bytes: Box<[u8]>,
}

/// Series that are in the head, and not in its index yet.
type Placed = (Arc<HeadTenant>, Vec<(u32, Place, Labels)>);

/// How much was in the log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Restored {
    /// Samples of known series.
    pub(super) samples: u64,
    /// Samples of series that do not read back.
    pub(super) lost: u64,
}

/// Puts back all records that `read` hands on with their epoch.
///
/// `is_tail` says that the first epoch was flushed, and its first segments, in which its series begin, may have gone
/// already: samples of series that are not known are in parts.
pub(super) fn restore<T>(
    head: &Head,
    register: &Register,
    exemplars: &Exemplars,
    is_tail: bool,
    read: impl FnOnce(&mut dyn FnMut(u64, Record<'_>)) -> Result<T>,
) -> Result<(T, Restored)> {
    let count = thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS);
    thread::scope(|scope| {
        let (to_index, placed) = sync_channel::<Placed>(WAITING * count);
        let indexer =
            scope.spawn(move || placed.iter().for_each(|(tenant, new)| head.tell_index(&tenant, &new)));
        let (queues, workers): (Vec<_>, Vec<_>) = (0..count)
            .map(|_| {
                let (queue, work) = sync_channel(WAITING);
                let worker =
                    Worker { head, to_index: to_index.clone(), places: Vec::new(), tally: Tally::default() };
                (queue, scope.spawn(move || worker.run(&work)))
            })
            .unzip();
        drop(to_index);
        let pending = queues.iter().map(|_| Vec::new()).collect();
        let mut dealer = Dealer {
            head,
            register,
            exemplars,
            queues,
            pending,
            epoch: 0,
            first_epoch: None,
            is_tail,
            owners: Vec::new(),
            restored: Restored::default(),
        };
        let read = read(&mut |epoch, record| dealer.record(epoch, record));
        let restored = dealer.finish();
        for worker in workers {
            head.add(&joined(worker));
        }
        joined(indexer);
        Ok((read?, restored))
    })
}

/// What a thread gave; if it panicked, so does this one.
fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Decides who does what.
struct Dealer<'a> {
    head: &'a Head,
    register: &'a Register,
    exemplars: &'a Exemplars,
    queues: Vec<SyncSender<Work>>,
    /// Samples that were not sent to their workers yet.
    pending: Vec<Vec<LoggedSample>>,
    epoch: u64,
    /// The epoch that the log begins with.
    first_epoch: Option<u64>,
    /// Whether what is read is of that one, and that was flushed.
    is_tail: bool,
    /// Whose the series are that this epoch's numbers stand for.
    owners: Vec<u8>,
    restored: Restored,
}

impl Dealer<'_> {
    fn record(&mut self, epoch: u64, record: Record<'_>) {
        let first = *self.first_epoch.get_or_insert(epoch);
        if epoch != self.epoch {
            self.is_tail &= epoch == first;
            self.owners.clear();
            self.epoch = epoch;
            (0..self.queues.len()).for_each(|worker| self.send(worker, Work::Epoch));
        }
        match record {
            Record::Series { tenant, series } => self.series(&tenant, series),
            Record::Samples(samples) => {
                for sample in samples {
                    if let Some(worker) = self.owner(sample.number) {
                        self.pending[worker].push(sample);
                        if self.pending[worker].len() == AT_ONCE {
                            self.send_pending(worker);
                        }
                    }
                }
            }
            Record::Histograms(histograms) => self.histograms(&histograms),
            Record::Exemplars { tenant, exemplars } => {
                for (series, exemplar) in exemplars {
                    self.exemplars.insert(&tenant, &series, exemplar);
                }
            }
            Record::Metadata { tenant, metadata } => {
                self.register.describe(&tenant, metadata);
            }
            Record::Tombstone { tenant, tombstone } => self.register.restore(&tenant, tombstone),
            Record::Cleaned { tenant, up_to } => {
                // The ledger may be of before, and have what they hid.
                let mut cleaned = self.register.tombstones(&tenant);
                cleaned.retain(|tombstone| tombstone.id <= up_to);
                self.exemplars.remove(Some(&tenant), |_, labels, e| {
                    hidden(&cleaned, labels).iter().any(|range| range.contains(e.timestamp))
                });
                self.register.cleaned(&tenant, up_to);
            }
        }
    }

    /// The worker that has the series with a number; what belongs to none is counted.
    fn owner(&mut self, number: u32) -> Option<usize> {
        let owner = self.owners.get(number as usize).copied().filter(|owner| *owner != NOBODY);
        match owner {
            Some(_) => self.restored.samples += 1,
            // It is in a part.
            None if self.is_tail => {}
            None => self.restored.lost += 1,
        }
        owner.map(usize::from)
    }

    fn series(&mut self, tenant: &TenantId, series: Vec<(u32, Labels)>) {
        let tenant = self.head.tenant_or_new(tenant);
        let mut dealt: Vec<Vec<(u32, SeriesId, Labels)>> = self.queues.iter().map(|_| Vec::new()).collect();
        for (number, labels) in series {
            let place = number as usize;
            // Numbers are counted up, so one far off is not one of ours.
            if place < self.owners.len() + MOST_SKIPPED {
                let id = labels.id();
                let worker = self.head.stripe_of(&tenant, id) % self.queues.len();
                if self.owners.len() <= place {
                    self.owners.resize(place + 1, NOBODY);
                }
                self.owners[place] = u8::try_from(worker).unwrap_or(NOBODY);
                dealt[worker].push((number, id, labels));
            }
        }
        for (worker, series) in dealt.into_iter().enumerate().filter(|(_, series)| !series.is_empty()) {
            self.send(worker, Work::Series(Arc::clone(&tenant), series));
        }
    }

    fn histograms(&mut self, histograms: &[LoggedHistogram<'_>]) {
        let mut dealt: Vec<Vec<OwnHistogram>> = self.queues.iter().map(|_| Vec::new()).collect();
        for h in histograms {
            if let Some(worker) = self.owner(h.number) {
                let (number, timestamp, start) = (h.number, h.timestamp, h.start);
                dealt[worker].push(OwnHistogram { number, timestamp, start, bytes: h.bytes.into() });
            }
        }
        for (worker, histograms) in dealt.into_iter().enumerate().filter(|(_, some)| !some.is_empty()) {
            self.send(worker, Work::Histograms(histograms));
        }
    }

    /// Sends work behind what was dealt before.
    fn send(&mut self, worker: usize, work: Work) {
        self.send_pending(worker);
        self.put(worker, work);
    }

    fn send_pending(&mut self, worker: usize) {
        if !self.pending[worker].is_empty() {
            let samples = std::mem::replace(&mut self.pending[worker], Vec::with_capacity(AT_ONCE));
            self.put(worker, Work::Samples(samples));
        }
    }

    fn put(&self, worker: usize, work: Work) {
        // Who is gone has panicked, and whoever waits for its end panics too.
        let _ = self.queues[worker].send(work);
    }

    fn finish(mut self) -> Restored {
        (0..self.queues.len()).for_each(|worker| self.send_pending(worker));
        self.restored
    }
}

/// Has some of the head's stripes to itself.
struct Worker<'a> {
    head: &'a Head,
    to_index: SyncSender<Placed>,
    /// Where its series are that this epoch's numbers stand for.
    places: Vec<Option<Place>>,
    tally: Tally,
}

impl Worker<'_> {
    fn run(mut self, work: &Receiver<Work>) -> Tally {
        let mut keys = Vec::new();
        for work in work {
            match work {
                Work::Epoch => self.places.clear(),
                Work::Series(tenant, series) => self.series(tenant, series),
                Work::Samples(samples) => self.samples(&samples, &mut keys),
                Work::Histograms(histograms) => {
                    let places = &self.places;
                    let found = histograms.iter().filter_map(|h| {
                        let value = NewValue::Histogram(&h.bytes);
                        Some((place_of(places, h.number)?, h.timestamp, value, h.start))
                    });
                    self.head.restore(found, &mut self.tally);
                }
            }
        }
        self.tally
    }

    fn series(&mut self, tenant: Arc<HeadTenant>, series: Vec<(u32, SeriesId, Labels)>) {
        let mut new = Vec::new();
        for (number, id, labels) in series {
            let (place, is_new) = self.head.place(&tenant, id);
            let number = number as usize;
            if self.places.len() <= number {
                self.places.resize(number + 1, None);
            }
            self.places[number] = Some(place);
            new.extend(is_new.map(|number| (number, place, labels)));
        }
        if !new.is_empty() {
            let _ = self.to_index.send((tenant, new));
        }
    }

    /// Puts samples back stripe by stripe, those of a series in their order.
    fn samples(&mut self, samples: &[LoggedSample], keys: &mut Vec<(Place, u32)>) {
        keys.clear();
        keys.extend((0..).zip(samples).filter_map(|(i, s)| Some((place_of(&self.places, s.number)?, i))));
        keys.sort_unstable();
        let sorted = keys.iter().map(|(place, i)| {
            let s = &samples[*i as usize];
            (*place, s.timestamp, NewValue::Float(s.value.to_bits()), s.start)
        });
        self.head.restore(sorted, &mut self.tally);
    }
}

fn place_of(places: &[Option<Place>], number: u32) -> Option<Place> {
    places.get(number as usize).copied().flatten()
}
