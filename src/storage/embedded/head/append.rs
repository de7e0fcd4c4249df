//! A batch into the head, and into the form the log keeps.
//!
//! Samples are sorted by stripe first, so that a batch takes each lock once. Series that the log of this epoch does not
//! know are told to it together, before the samples, and count as told only then: another batch that meets one
//! in the meantime tells it too, under the same number. Samples that are there already are logged all the same: that they are in the head does not
//! say that the write which brought them was durable.

use std::sync::atomic::Ordering::Relaxed;

use hashbrown::HashMap;

use super::{
    Head, HeadTenant, Place, STRIPES, Stripe, Tally, hash,
    seen::Seen,
    series::{Before, NewValue, Past, Taken},
    stripe_of,
};
use crate::{
    model::{Labels, SeriesId, TenantId, Timestamp},
    storage::{
        Appended, RejectReason, Rejected, Result, SampleKind, StorageError, WriteBatch,
        embedded::{
            retention::Kept,
            wal::record::{
                LoggedHistogram, LoggedSample, put_histogram, put_histograms, put_samples, put_series,
            },
        },
        room::Allowance,
    },
};

/// What a batch meets.
pub(crate) struct Surroundings<'a> {
    /// What is older than this keeps is refused.
    pub(crate) kept: &'a Kept<'a>,
    /// The head before this one, whose labels are shared.
    pub(crate) previous: Option<&'a Head>,
    /// What the store has outside this head.
    pub(crate) before: &'a dyn Before,
    /// Takes frames that make series known.
    pub(crate) log: &'a dyn Fn(Vec<u8>),
}

/// What to do about series that are not known.
#[derive(Debug)]
pub(crate) enum Begin<'a> {
    /// They begin.
    All,
    /// Their samples are put off.
    None,
    /// They begin as far as this allows.
    Some(&'a mut Allowance),
}

/// What became of a batch's samples.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// The answer, without exemplars and metadata.
    pub(crate) appended: Appended,
    /// What the log has to keep.
    pub(crate) frames: Vec<u8>,
    pub(crate) stored: u64,
    pub(crate) duplicate: u64,
    pub(crate) out_of_order: u64,
    pub(crate) created: u64,
    /// Samples and histograms that are put off, by their places in the batch.
    pub(crate) put_off: (Vec<u32>, Vec<u32>),
    /// The series refused, by their places in the batch.
    pub(crate) refused: HashMap<u32, RejectReason>,
}

const UNKNOWN: u32 = u32::MAX;

/// Why a sample is not taken.
#[derive(Debug)]
enum No {
    /// Refused.
    Rejected(RejectReason),
    /// Its series may or may not begin.
    PutOff,
}

impl From<RejectReason> for No {
    fn from(reason: RejectReason) -> Self {
        Self::Rejected(reason)
    }
}

/// A batch on its way through the head.
struct Pass<'a> {
    head: &'a Head,
    tenant: &'a HeadTenant,
    tenant_id: &'a TenantId,
    batch: &'a WriteBatch,
    around: &'a Surroundings<'a>,
    begin: Begin<'a>,
    /// Slot and number of each series, once they are known.
    known: Vec<(u32, u32)>,
    /// Which float samples were refused; empty if none was.
    refused: Vec<bool>,
    /// Series that the log does not know, with their numbers, and where they are.
    fresh: Vec<(u32, Labels)>,
    fresh_at: Vec<Place>,
    /// Which of the batch's series are among them; empty if none is.
    is_fresh: Vec<bool>,
    written: Written,
    tally: Tally,
}

impl Head {
    /// Appends the samples of a batch.
    pub(crate) fn append(
        &self,
        tenant_id: &TenantId,
        batch: &WriteBatch,
        around: &Surroundings<'_>,
        begin: Begin<'_>,
    ) -> Result<Written> {
        let indices = batch.samples.iter().map(|s| s.series).chain(batch.histograms.iter().map(|h| h.series));
        let indices = indices.chain(batch.exemplars.iter().map(|e| e.series));
        if let Some(most) = indices.max()
            && most as usize >= batch.series.len()
        {
            return Err(StorageError::Unsupported(format!(
                "a batch of {} series names series number {most}",
                batch.series.len()
            )));
        }
        if batch.samples.is_empty() && batch.histograms.is_empty() {
            return Ok(Written::default());
        }
        let tenant = self.tenant_or_new(tenant_id);
        let mut pass = Pass {
            head: self,
            tenant: &tenant,
            tenant_id,
            batch,
            around,
            begin,
            known: vec![(UNKNOWN, UNKNOWN); batch.series.len()],
            refused: Vec::new(),
            fresh: Vec::new(),
            fresh_at: Vec::new(),
            is_fresh: Vec::new(),
            written: Written::default(),
            tally: Tally::default(),
        };
        pass.floats();
        pass.histograms();
        pass.tell();
        Ok(pass.finish())
    }
}

impl Pass<'_> {
    fn floats(&mut self) {
        let (order, ends) = self.by_stripe();
        let mut from = 0;
        for (stripe, end) in ends.into_iter().enumerate() {
            if from < end {
                self.stripe(stripe, &order[from..end]);
            }
            from = end;
        }
        let numbers = &self.known;
        if self.refused.is_empty() {
            put_samples(&mut self.written.frames, self.batch.samples.iter().map(|s| logged(numbers, s)));
        } else {
            let refused = &self.refused;
            let taken: Vec<LoggedSample> = self
                .batch
                .samples
                .iter()
                .zip(refused)
                .filter(|(_, no)| !**no)
                .map(|(s, _)| logged(numbers, s))
                .collect();
            put_samples(&mut self.written.frames, taken.into_iter());
        }
    }

    /// The samples in the order of their stripes, and where each stripe's end there.
    fn by_stripe(&self) -> (Vec<u32>, [usize; STRIPES]) {
        let stripes: Vec<u8> = self
            .batch
            .series
            .iter()
            .map(|id| super::narrow_stripe(stripe_of(hash(*id, self.tenant.ordinal))))
            .collect();
        let mut ends = [0; STRIPES];
        for sample in &self.batch.samples {
            ends[usize::from(stripes[sample.series as usize])] += 1;
        }
        let mut total = 0;
        for end in &mut ends {
            total += *end;
            *end = total - *end;
        }
        let mut order = vec![0; self.batch.samples.len()];
        for (i, sample) in (0_u32..).zip(&self.batch.samples) {
            let place = &mut ends[usize::from(stripes[sample.series as usize])];
            order[*place] = i;
            *place += 1;
        }
        (order, ends)
    }

    fn stripe(&mut self, at: usize, samples: &[u32]) {
        let head = self.head;
        let mut stripe = head.stripes[at].lock();
        for i in samples {
            let sample = &self.batch.samples[*i as usize];
            let value = NewValue::Float(sample.value.to_bits());
            match self.sample(&mut stripe, at, sample.series, sample.timestamp, value, sample.start) {
                Ok(()) => self.written.appended.samples += 1,
                Err(no) => {
                    self.refused.resize(self.batch.samples.len(), false);
                    self.refused[*i as usize] = true;
                    match no {
                        No::PutOff => self.written.put_off.0.push(*i),
                        No::Rejected(reason) => {
                            self.reject(sample.series, SampleKind::Float, sample.timestamp, reason);
                        }
                    }
                }
            }
        }
    }

    fn histograms(&mut self) {
        let mut arena = Vec::new();
        let mut taken = Vec::new();
        for (i, h) in (0_u32..).zip(&self.batch.histograms) {
            let from = arena.len();
            put_histogram(&mut arena, &h.histogram);
            let at = stripe_of(hash(self.batch.series[h.series as usize], self.tenant.ordinal));
            let result = {
                let head = self.head;
                let mut stripe = head.stripes[at].lock();
                let value = NewValue::Histogram(&arena[from..]);
                self.sample(&mut stripe, at, h.series, h.timestamp, value, h.start)
            };
            match result {
                Ok(()) => {
                    self.written.appended.histograms += 1;
                    let number = self.known[h.series as usize].1;
                    taken.push((number, h.timestamp.0, h.start, from..arena.len()));
                }
                Err(No::PutOff) => self.written.put_off.1.push(i),
                Err(No::Rejected(reason)) => {
                    self.reject(h.series, SampleKind::Histogram, h.timestamp, reason);
                }
            }
        }
        let logged: Vec<LoggedHistogram<'_>> = taken
            .into_iter()
            .map(|(number, timestamp, start, at)| LoggedHistogram {
                number,
                timestamp,
                start,
                bytes: &arena[at],
            })
            .collect();
        put_histograms(&mut self.written.frames, &logged);
    }

    fn sample(
        &mut self,
        stripe: &mut Stripe,
        at: usize,
        series: u32,
        timestamp: Timestamp,
        value: NewValue<'_>,
        start: i64,
    ) -> Result<(), No> {
        if self.around.kept.refuses(timestamp, || self.batch.labels.labels(series as usize)) {
            return Err(RejectReason::TooOld.into());
        }
        let slot = self.locate(stripe, at, series)?;
        let (entry, pieces) = stripe.get_mut(slot).expect("a slot that was found or made");
        let labels = || self.batch.labels.labels(series as usize);
        let past = Past { before: self.around.before, labels: &labels };
        let taken = entry.append(timestamp.0, value, start, self.batch.policy, past, pieces)?;
        if !entry.logged {
            let (number, list) = (entry.number, entry.labels);
            self.is_fresh.resize(self.batch.series.len(), false);
            if !std::mem::replace(&mut self.is_fresh[series as usize], true) {
                let labels = self.tenant.index.read().labels(stripe.lists.get(list));
                self.fresh.push((number, labels));
                self.fresh_at.push(Place::new(at, slot));
            }
        }
        match taken {
            Taken::Duplicate => self.written.duplicate += 1,
            Taken::InOrder => self.written.stored += 1,
            Taken::OutOfOrder => {
                self.written.stored += 1;
                self.written.out_of_order += 1;
            }
        }
        self.tally.count(taken, timestamp.0, value);
        Ok(())
    }

    fn locate(&mut self, stripe: &mut Stripe, at: usize, series: u32) -> Result<u32, No> {
        let known = self.known[series as usize];
        if known.0 != UNKNOWN {
            return Ok(known.0);
        }
        let id = self.batch.series[series as usize];
        let hash = hash(id, self.tenant.ordinal);
        let (slot, number) = match stripe.find(hash, id, self.tenant.ordinal) {
            Some(slot) => (slot, stripe.get(slot).map_or(UNKNOWN, |s| s.number)),
            None => self.begin(stripe, at, series, id)?,
        };
        self.known[series as usize] = (slot, number);
        Ok(slot)
    }

    /// Makes a series that is not in this head, if it may begin or has only moved.
    fn begin(&mut self, stripe: &mut Stripe, at: usize, series: u32, id: SeriesId) -> Result<(u32, u32), No> {
        // The series of the head before are counted already.
        let look = |series: &Seen<'_>| (series.labels(), series.last_active());
        let (labels, carried) = match self.around.previous.and_then(|p| p.look_up(self.tenant_id, id, look)) {
            Some(shared) => shared,
            None => {
                self.may_begin(series)?;
                (self.batch.labels.labels(series as usize), i64::MIN)
            }
        };
        let (slot, number) = self.head.create(stripe, at, self.tenant, id, carried);
        let (pairs, bytes) = self.tenant.enter_index(|index| index.insert(number, &labels));
        self.head.stats.bytes.fetch_add(bytes, Relaxed);
        stripe.label(slot, &pairs);
        self.written.created += 1;
        Ok((slot, number))
    }

    /// Counts a series that begins, unless it may not.
    fn may_begin(&mut self, series: u32) -> Result<(), No> {
        let tenant = self.tenant;
        match &mut self.begin {
            Begin::All => {
                tenant.enter(None);
                Ok(())
            }
            Begin::None => Err(No::PutOff),
            Begin::Some(allowance) => {
                if let Some(reason) = self.written.refused.get(&series) {
                    return Err(No::Rejected(*reason));
                }
                allowance.next(|most| tenant.enter(most)).map_err(|reason| {
                    self.written.refused.insert(series, reason);
                    No::Rejected(reason)
                })
            }
        }
    }

    /// Tells the log the series that it does not know.
    fn tell(&mut self) {
        if self.fresh.is_empty() {
            return;
        }
        let mut frames = Vec::new();
        put_series(&mut frames, self.tenant_id, &self.fresh);
        (self.around.log)(frames);
        for of_stripe in self.fresh_at.chunk_by(|a, b| a.stripe() == b.stripe()) {
            let mut stripe = self.head.stripes[of_stripe[0].stripe()].lock();
            for place in of_stripe {
                if let Some((series, _)) = stripe.get_mut(place.slot()) {
                    series.logged = true;
                }
            }
        }
    }

    fn reject(&mut self, series: u32, kind: SampleKind, timestamp: Timestamp, reason: RejectReason) {
        self.written.appended.rejected.push(Rejected { series, kind, timestamp, reason });
    }

    fn finish(mut self) -> Written {
        self.head.add(&self.tally);
        self.written.appended.rejected.sort_by_key(|r| (r.series, r.timestamp));
        self.written
    }
}

fn logged(known: &[(u32, u32)], sample: &crate::storage::BatchSample) -> LoggedSample {
    LoggedSample {
        number: known[sample.series as usize].1,
        timestamp: sample.timestamp.0,
        value: sample.value,
        start: sample.start,
    }
}
