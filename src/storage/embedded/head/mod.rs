//! What was written since the last flush, in memory.
//!
//! A head is 256 stripes, each a table of [`Series`] behind a lock; a series' id says which stripe it is
//! in. A batch is [appended](append) stripe by stripe, so that each lock is taken once. Every series has a
//! number, counted up in the head: it stands for the series in the log, and in each tenant's
//! [index](index::Index).
//!
//! ```text
//! SeriesId ─▶ stripe ─▶ table ─▶ Series { number, labels, stream, blocks, late }
//! matchers ─▶ index of the tenant ─▶ numbers ─▶ places (stripe, slot) ─▶ Series
//! labels ─▶ lists of the stripe ─▶ pairs of the index        stream ─▶ pieces of the stripe
//! ```
//!
//! What there is one of for each series is a few hundred bytes, and what it holds of others' memory lies with that of
//! all series of its stripe: there is no piece of memory of its own for each. Whoever looks at a series sees a
//! [`Seen`], which puts together what it is.
//!
//! A flush does not empty a head: it is frozen, written out and dropped, and a new one takes the writes.
//!
//! The series of the head that takes writes are the active ones, and each tenant's are counted. Those of a frozen
//! head count as well, until it is dropped: those whose last sample, there or before, lies shortly before its end stay
//! known to the new head, the others are active no more. So a series ends with the first flush after it has been
//! silent for a quarter of an hour, and begins when it has a sample again.
//! Locks are taken in this order: a stripe, then the places, then the tenants, then an index.

pub(crate) mod append;
pub(crate) mod index;
mod order;
pub(crate) mod pieces;
pub(crate) mod seen;
pub(crate) mod series;
pub(crate) mod stream;

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use hashbrown::{HashMap, HashTable};
use parking_lot::{Mutex, MutexGuard, RwLock};
use roaring::RoaringBitmap;

use self::{
    index::{Found, Index, PairNumbers},
    pieces::{List, Lists, Pieces},
    seen::Seen,
    series::{NewValue, Past, Series, Taken},
};
use crate::{
    model::{Labels, Matcher, SeriesId, TenantId, TimeRange, Timestamp},
    storage::{AppendPolicy, SeriesSamples},
};

const STRIPES: usize = 256;
/// Fewer series than this are looked at one by one; of more, all stripes are gone through.
const FEW_SERIES: u64 = 4096;
/// Series are kept in pages of this many, so that a growing stripe never copies them.
const PAGE: usize = 64;

/// Everything in memory that takes writes.
#[derive(Debug)]
pub(crate) struct Head {
    stripes: Box<[Mutex<Stripe>]>,
    /// Where the series with each number is.
    places: RwLock<Vec<Place>>,
    tenants: RwLock<Tenants>,
    stats: Stats,
}

#[derive(Debug, Default)]
struct Tenants {
    by_id: HashMap<TenantId, Arc<HeadTenant>, foldhash::fast::RandomState>,
    by_ordinal: Vec<Arc<HeadTenant>>,
}

/// One tenant's part of a head.
#[derive(Debug)]
pub(crate) struct HeadTenant {
    ordinal: u32,
    index: RwLock<Index>,
    /// Series here, and those of the head before that may yet come here.
    active: AtomicU64,
}

#[derive(Debug, Default)]
struct Stripe {
    table: HashTable<u32>,
    pages: Vec<Vec<Series>>,
    /// What the streams are in.
    pieces: Pieces,
    /// The series' labels.
    lists: Lists,
}

/// Where a series is: the stripe in the high byte, the slot below, and one more, so that nowhere takes no room.
///
/// Places in order keep those of a stripe together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(NonZeroU32);

impl Place {
    const SLOTS: u32 = 1 << 24;

    fn new(stripe: usize, slot: u32) -> Self {
        assert!(slot < Self::SLOTS - 1, "a stripe has fewer series than that");
        Self(NonZeroU32::MIN.saturating_add(u32::from(narrow_stripe(stripe)) * Self::SLOTS + slot))
    }

    const fn order(self) -> u32 {
        self.0.get() - 1
    }

    const fn stripe(self) -> usize {
        (self.order() / Self::SLOTS) as usize
    }

    const fn slot(self) -> u32 {
        self.order() % Self::SLOTS
    }
}

#[derive(Debug)]
struct Stats {
    samples: AtomicU64,
    bytes: AtomicU64,
    /// Those of them that were here before any sample: a flush does not free them.
    kept: AtomicU64,
    oldest: AtomicI64,
    newest: AtomicI64,
    /// Where the samples of the heads before ended.
    carried: AtomicI64,
}

impl Head {
    /// A head with nothing in it.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            places: RwLock::default(),
            tenants: RwLock::default(),
            stats: Stats {
                samples: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
                kept: AtomicU64::new(0),
                oldest: AtomicI64::new(i64::MAX),
                newest: AtomicI64::new(i64::MIN),
                carried: AtomicI64::new(i64::MIN),
            },
        })
    }

    /// A head to take over from this one: its tenants' active series are as many, wherever they are.
    pub(crate) fn successor(&self) -> Arc<Self> {
        let head = Self::new();
        for (id, tenant) in &self.tenants.read().by_id {
            let active = tenant.active.load(Relaxed);
            if active > 0 {
                head.tenant_or_new(id).active.store(active, Relaxed);
            }
        }
        head
    }

    /// Counts the series that are here as the active ones; nobody writes in the meantime.
    pub(crate) fn count_active(&self) {
        for tenant in self.tenants.read().by_id.values() {
            tenant.active.store(tenant.index.read().all().len(), Relaxed);
        }
    }

    /// How many samples there are, late ones that replace others counted too.
    pub(crate) fn samples(&self) -> u64 {
        self.stats.samples.load(Relaxed)
    }

    /// How many series there are.
    pub(crate) fn series_count(&self) -> usize {
        self.places.read().len()
    }

    /// About how much memory this takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.stats.bytes.load(Relaxed)
    }

    /// How much memory it takes more than its series did when it was new.
    pub(crate) fn grown(&self) -> u64 {
        self.bytes().saturating_sub(self.stats.kept.load(Relaxed))
    }

    /// The times between which the samples lie.
    pub(crate) fn range(&self) -> Option<TimeRange> {
        let oldest = Timestamp(self.stats.oldest.load(Relaxed));
        let newest = Timestamp(self.stats.newest.load(Relaxed));
        if self.samples() == 0 { None } else { TimeRange::new(oldest, newest) }
    }

    /// Where the samples of the heads before ended; the earliest time if there were none.
    pub(crate) fn carried(&self) -> Timestamp {
        Timestamp(self.stats.carried.load(Relaxed))
    }

    /// Notes where the samples before ended.
    pub(crate) fn carry(&self, end: Timestamp) {
        self.stats.carried.fetch_max(end.0, Relaxed);
    }

    /// The tenants with series, sorted.
    pub(crate) fn tenants(&self) -> Vec<TenantId> {
        let mut all: Vec<TenantId> = self.tenants.read().by_id.keys().cloned().collect();
        all.sort();
        all
    }

    pub(crate) fn tenant(&self, id: &TenantId) -> Option<Arc<HeadTenant>> {
        self.tenants.read().by_id.get(id).map(Arc::clone)
    }

    pub(crate) fn tenant_or_new(&self, id: &TenantId) -> Arc<HeadTenant> {
        if let Some(tenant) = self.tenant(id) {
            return tenant;
        }
        let Tenants { by_id, by_ordinal } = &mut *self.tenants.write();
        let tenant = by_id.entry(id.clone()).or_insert_with(|| {
            let ordinal = u32::try_from(by_ordinal.len()).expect("fewer tenants than bytes of memory");
            let new = HeadTenant { ordinal, index: RwLock::default(), active: AtomicU64::new(0) };
            by_ordinal.push(Arc::new(new));
            Arc::clone(&by_ordinal[by_ordinal.len() - 1])
        });
        Arc::clone(tenant)
    }

    /// How many series of a tenant are active: here, or in the head before while that is being written out.
    pub(crate) fn active_series(&self, tenant: &TenantId) -> u64 {
        self.tenant(tenant).map_or(0, |tenant| tenant.active.load(Relaxed))
    }

    /// The numbers of a tenant's series that all matchers let pass.
    pub(crate) fn find(&self, tenant: &TenantId, matchers: &[Matcher]) -> RoaringBitmap {
        let Some(tenant) = self.tenant(tenant) else { return RoaringBitmap::new() };
        let Found { mut series, left } = tenant.index.read().find(matchers);
        if !left.is_empty() {
            // Only now: who makes a series holds its stripe and waits for the index.
            let passes = |series: &Seen<'_>| {
                let labels = series.labels();
                left.iter().all(|m| m.matches(labels.get(m.name()).unwrap_or_default()))
            };
            series = series.into_iter().filter(|number| self.look(*number, passes) == Some(true)).collect();
        }
        series
    }

    /// Shows each label and value of a tenant's series, or of some of them, and how many have it.
    pub(crate) fn each_pair(
        &self,
        tenant: &TenantId,
        among: Option<&RoaringBitmap>,
        each: impl FnMut(&str, &str, u64),
    ) {
        if let Some(tenant) = self.tenant(tenant) {
            tenant.index.read().each_pair(among, each);
        }
    }

    /// Adds the label names that some of a tenant's series have.
    pub(crate) fn names_among(
        &self,
        tenant: &TenantId,
        among: &RoaringBitmap,
        into: &mut std::collections::BTreeSet<String>,
    ) {
        if let Some(tenant) = self.tenant(tenant) {
            tenant.index.read().names_among(among, into);
        }
    }

    /// Shows the values that a label has on some of a tenant's series, quickly: no series begins meanwhile.
    pub(crate) fn each_value_among(
        &self,
        tenant: &TenantId,
        name: &str,
        among: &RoaringBitmap,
        each: impl FnMut(&str),
    ) {
        if let Some(tenant) = self.tenant(tenant) {
            tenant.index.read().each_value_among(name, among, each);
        }
    }

    /// Those of the series whose samples lie between times that overlap a range.
    pub(crate) fn with_samples(&self, among: &RoaringBitmap, range: TimeRange) -> RoaringBitmap {
        if among.len() < FEW_SERIES {
            let overlaps = |s: &Seen<'_>| s.range().is_some_and(|r| r.overlaps(range));
            return among.iter().filter(|number| self.look(*number, overlaps) == Some(true)).collect();
        }
        let mut numbers = Vec::new();
        for stripe in &self.stripes {
            let stripe = stripe.lock();
            let series = self.seen(&stripe).filter(|s| among.contains(s.number));
            numbers.extend(series.filter(|s| s.range().is_some_and(|r| r.overlaps(range))).map(|s| s.number));
        }
        numbers.sort_unstable();
        numbers.into_iter().collect()
    }

    /// Whether there are samples in a range, of anybody.
    pub(crate) fn has_samples(&self, range: TimeRange) -> bool {
        let has = |s: &Seen<'_>| {
            s.range().is_some_and(|r| r.overlaps(range)) && {
                let there = s.estimate(range);
                there.floats + there.histograms > 0
            }
        };
        self.range().is_some_and(|r| r.overlaps(range))
            && self.stripes.iter().any(|stripe| self.seen(&stripe.lock()).any(|s| has(&s)))
    }

    /// How many chunks some of a tenant's series have, and the times between which their samples lie.
    pub(crate) fn extent(&self, tenant: &TenantId, among: &RoaringBitmap) -> (u64, Option<TimeRange>) {
        let (mut chunks, mut range) = (0, None::<TimeRange>);
        let Some(tenant) = self.tenant(tenant) else { return (chunks, range) };
        for stripe in &self.stripes {
            let stripe = stripe.lock();
            for series in
                self.seen(&stripe).filter(|s| s.tenant == tenant.ordinal && among.contains(s.number))
            {
                chunks += series.chunks() as u64;
                range = [range, series.range()].into_iter().flatten().reduce(TimeRange::union);
            }
        }
        (chunks, range)
    }

    /// The numbers of all of a tenant's series.
    pub(crate) fn all(&self, tenant: &TenantId) -> RoaringBitmap {
        self.tenant(tenant).map_or_else(RoaringBitmap::new, |t| t.index.read().all().clone())
    }

    /// Adds the label names a tenant's series have.
    pub(crate) fn names_into(&self, tenant: &TenantId, into: &mut std::collections::BTreeSet<String>) {
        if let Some(tenant) = self.tenant(tenant) {
            tenant.index.read().names_into(into);
        }
    }

    /// Shows the values a label has on a tenant's series, quickly: no series begins meanwhile.
    pub(crate) fn each_value(&self, tenant: &TenantId, name: &str, each: impl FnMut(&str)) {
        if let Some(tenant) = self.tenant(tenant) {
            tenant.index.read().each_value(name, each);
        }
    }

    /// How many values a label has on a tenant's series.
    pub(crate) fn value_count(&self, tenant: &TenantId, name: &str) -> usize {
        self.tenant(tenant).map_or(0, |tenant| tenant.index.read().value_count(name))
    }

    /// Looks at the series with a number.
    pub(crate) fn look<T>(&self, number: u32, look: impl FnOnce(&Seen<'_>) -> T) -> Option<T> {
        let place = *self.places.read().get(usize::try_from(number).ok()?)?;
        let stripe = self.stripes[place.stripe()].lock();
        stripe.get(place.slot()).map(|series| look(&Seen { head: self, stripe: &stripe, series }))
    }

    /// Looks at the series with an id.
    pub(crate) fn look_up<T>(
        &self,
        tenant: &TenantId,
        id: SeriesId,
        look: impl FnOnce(&Seen<'_>) -> T,
    ) -> Option<T> {
        let tenant = self.tenant(tenant)?;
        let hash = hash(id, tenant.ordinal);
        let stripe = self.stripes[stripe_of(hash)].lock();
        let slot = stripe.find(hash, id, tenant.ordinal)?;
        stripe.get(slot).map(|series| look(&Seen { head: self, stripe: &stripe, series }))
    }

    /// The series of a stripe.
    fn seen<'s>(&'s self, stripe: &'s Stripe) -> impl Iterator<Item = Seen<'s>> {
        stripe.pages.iter().flatten().map(move |series| Seen { head: self, stripe, series })
    }

    /// Adds the samples of a series in a range to `into`, which is empty.
    pub(crate) fn read(&self, number: u32, range: TimeRange, into: &mut SeriesSamples) {
        self.look(number, |series| series.read(range, into));
    }

    /// Makes a series known, if it is not, without a record in the log: it gets one with its next sample. It was active
    /// at `carried`, and `enter` tells the index of it.
    fn adopt_in(
        &self,
        tenant: &HeadTenant,
        id: SeriesId,
        carried: i64,
        enter: impl FnOnce(&mut Index, u32) -> PairNumbers,
    ) -> bool {
        let at = stripe_of(hash(id, tenant.ordinal));
        let mut stripe = self.stripes[at].lock();
        let (place, Some(number)) = self.settle(&mut stripe, at, tenant, id, carried) else { return false };
        let (pairs, bytes) = tenant.enter_index(|index| enter(index, number));
        stripe.label(place.slot(), &pairs);
        self.stats.bytes.fetch_add(bytes, Relaxed);
        self.stats.kept.fetch_add(bytes, Relaxed);
        true
    }

    /// Makes those of a tenant's series in another head, which takes no writes, known that were active at the time that
    /// `active` says.
    pub(crate) fn adopt_all(
        &self,
        from: &Self,
        tenant: &TenantId,
        active: impl Fn(&Seen<'_>) -> Option<i64>,
    ) {
        let (Some(theirs), ours) = (from.tenant(tenant), self.tenant_or_new(tenant)) else { return };
        // What each of its pairs is called here; most are asked for many times.
        let mut known = vec![None; theirs.index.read().pair_count()];
        for stripe in &from.stripes {
            // One at a time: whoever asks waits no longer than that.
            let mut some: Vec<(SeriesId, i64, PairNumbers)> = Vec::new();
            let locked = stripe.lock();
            for series in from.seen(&locked).filter(|s| s.tenant == theirs.ordinal) {
                if let Some(last) = active(&series) {
                    some.push((series.id, last, series.pairs().into()));
                }
            }
            drop(locked);
            let index = theirs.index.read();
            for (id, last, pairs) in some {
                self.adopt_in(&ours, id, last, |own, number| {
                    let call = |pair: &u32| {
                        *known[*pair as usize].get_or_insert_with(|| own.number_of_or_new(index.text(*pair)))
                    };
                    let pairs = pairs.iter().map(call).collect();
                    own.insert_pairs(number, &pairs);
                    pairs
                });
            }
        }
    }

    /// Makes a series of the log known: where it is, and if it is new its number, which the
    /// [index](Self::tell_index) has to be told before anybody asks.
    pub(crate) fn place(&self, tenant: &HeadTenant, id: SeriesId) -> (Place, Option<u32>) {
        let at = stripe_of(hash(id, tenant.ordinal));
        let mut stripe = self.stripes[at].lock();
        self.settle(&mut stripe, at, tenant, id, i64::MIN)
    }

    /// Tells a tenant's index of series that were [placed](Self::place).
    pub(crate) fn tell_index(&self, tenant: &HeadTenant, series: &[(u32, Place, Labels)]) {
        // Who makes a series holds its stripe and waits for the index: the stripes come after.
        let entered: Vec<(PairNumbers, u64)> = series
            .iter()
            .map(|(number, _, labels)| tenant.enter_index(|index| index.insert(*number, labels)))
            .collect();
        let bytes = entered.iter().map(|(_, bytes)| bytes).sum();
        for ((_, place, _), (pairs, _)) in series.iter().zip(entered) {
            self.stripes[place.stripe()].lock().label(place.slot(), &pairs);
        }
        self.stats.bytes.fetch_add(bytes, Relaxed);
        self.stats.kept.fetch_add(bytes, Relaxed);
    }

    /// Where a series is; if it was not there, without its labels, and with its number.
    fn settle(
        &self,
        stripe: &mut Stripe,
        at: usize,
        tenant: &HeadTenant,
        id: SeriesId,
        carried: i64,
    ) -> (Place, Option<u32>) {
        if let Some(slot) = stripe.find(hash(id, tenant.ordinal), id, tenant.ordinal) {
            return (Place::new(at, slot), None);
        }
        let (slot, number) = self.create(stripe, at, tenant, id, carried);
        self.stats.kept.fetch_add(SERIES_BYTES, Relaxed);
        (Place::new(at, slot), Some(number))
    }

    /// Makes a series known that was active before the store was opened, and counts it.
    pub(crate) fn recall(&self, tenant: &TenantId, labels: &Labels, last: i64) {
        let tenant = self.tenant_or_new(tenant);
        if self.adopt_in(&tenant, labels.id(), last, |index, number| index.insert(number, labels)) {
            tenant.active.fetch_add(1, Relaxed);
        }
    }

    /// The stripe that a series is in, if it is here.
    pub(crate) fn stripe_of(&self, tenant: &HeadTenant, id: SeriesId) -> usize {
        stripe_of(hash(id, tenant.ordinal))
    }

    /// Puts samples from the log back: of each where, when, what, and since when. Those of a stripe come together.
    pub(crate) fn restore<'v>(
        &self,
        samples: impl IntoIterator<Item = (Place, i64, NewValue<'v>, i64)>,
        tally: &mut Tally,
    ) {
        let mut locked: Option<(usize, MutexGuard<'_, Stripe>)> = None;
        for (place, at, value, start) in samples {
            let held = locked.take().filter(|(stripe, _)| *stripe == place.stripe());
            let (_, stripe) =
                locked.insert(held.unwrap_or_else(|| (place.stripe(), self.stripes[place.stripe()].lock())));
            if let Some((series, pieces)) = stripe.get_mut(place.slot())
                && let Ok(taken) =
                    series.append(at, value, start, AppendPolicy::default(), Past::NOTHING, pieces)
            {
                tally.count(taken, at, value);
            }
        }
    }

    /// Adds to the head's sums what was counted apart.
    pub(crate) fn add(&self, tally: &Tally) {
        self.stats.samples.fetch_add(tally.samples, Relaxed);
        self.stats.bytes.fetch_add(tally.bytes, Relaxed);
        self.stats.oldest.fetch_min(tally.oldest, Relaxed);
        self.stats.newest.fetch_max(tally.newest, Relaxed);
    }

    /// Creates a series in a stripe: its slot and its number. The index and its labels are up to the caller.
    fn create(
        &self,
        stripe: &mut Stripe,
        at: usize,
        tenant: &HeadTenant,
        id: SeriesId,
        carried: i64,
    ) -> (u32, u32) {
        let slot = stripe.next_slot();
        let number = {
            let mut places = self.places.write();
            let number = u32::try_from(places.len()).expect("fewer series than bytes of memory");
            places.push(Place::new(at, slot));
            number
        };
        self.stats.bytes.fetch_add(SERIES_BYTES, Relaxed);
        let mut series = Series::new(id, tenant.ordinal, number, List::NONE);
        series.carried = carried;
        stripe.insert(hash(id, tenant.ordinal), series);
        (slot, number)
    }
}

impl HeadTenant {
    /// Makes the index know a series: the numbers of its pairs, and about how much memory that took.
    fn enter_index(&self, enter: impl FnOnce(&mut Index) -> PairNumbers) -> (PairNumbers, u64) {
        let index = &mut *self.index.write();
        let before = index.pair_bytes();
        let pairs = enter(index);
        let bytes = index.pair_bytes() - before + pairs.len() as u64 * LABEL_BYTES;
        (pairs, bytes)
    }

    /// Counts one more active series, if there are fewer than `most`.
    fn enter(&self, most: Option<u64>) -> bool {
        let more = |active: u64| most.is_none_or(|most| active < most).then_some(active + 1);
        self.active.fetch_update(Relaxed, Relaxed, more).is_ok()
    }
}

/// Sums over samples on their way into a head, so that not each one touches what all threads share.
#[derive(Debug)]
pub(crate) struct Tally {
    samples: u64,
    bytes: u64,
    oldest: i64,
    newest: i64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { samples: 0, bytes: 0, oldest: i64::MAX, newest: i64::MIN }
    }
}

impl Tally {
    fn count(&mut self, taken: Taken, at: i64, value: NewValue<'_>) {
        self.bytes += match (taken, value) {
            (Taken::Duplicate, _) => return,
            (_, NewValue::Histogram(bytes)) => bytes.len() as u64 + 80,
            (Taken::InOrder, NewValue::Float(_)) => 5,
            (Taken::OutOfOrder, NewValue::Float(_)) => 60,
        };
        self.samples += 1;
        self.oldest = self.oldest.min(at);
        self.newest = self.newest.max(at);
    }
}

impl Stripe {
    fn find(&self, hash: u64, id: SeriesId, tenant: u32) -> Option<u32> {
        let same = |slot: &u32| self.get(*slot).is_some_and(|s| s.id == id && s.tenant == tenant);
        self.table.find(hash, same).copied()
    }

    fn get(&self, slot: u32) -> Option<&Series> {
        let slot = slot as usize;
        self.pages.get(slot / PAGE)?.get(slot % PAGE)
    }

    /// A series, and the pieces that its stream is in.
    fn get_mut(&mut self, slot: u32) -> Option<(&mut Series, &mut Pieces)> {
        let slot = slot as usize;
        Some((self.pages.get_mut(slot / PAGE)?.get_mut(slot % PAGE)?, &mut self.pieces))
    }

    /// Gives a series its labels.
    fn label(&mut self, slot: u32, pairs: &[u32]) {
        let labels = self.lists.push(pairs);
        if let Some((series, _)) = self.get_mut(slot) {
            series.labels = labels;
        }
    }

    fn next_slot(&self) -> u32 {
        let full = self.pages.len().saturating_sub(1) * PAGE;
        let slot = full + self.pages.last().map_or(0, Vec::len);
        u32::try_from(slot).expect("fewer series than bytes of memory")
    }

    fn insert(&mut self, hash_of_new: u64, series: Series) {
        let slot = self.next_slot();
        if self.pages.last().is_none_or(|page| page.len() == PAGE) {
            // The first page grows as it must, so that many small heads stay small.
            self.pages.push(if self.pages.is_empty() { Vec::new() } else { Vec::with_capacity(PAGE) });
        }
        self.pages.last_mut().expect("a page was just made sure of").push(series);
        let pages = &self.pages;
        self.table.insert_unique(hash_of_new, slot, |slot| {
            let slot = *slot as usize;
            let series = &pages[slot / PAGE][slot % PAGE];
            hash(series.id, series.tenant)
        });
    }
}

/// About the memory a series takes without its labels and samples: itself, its places in tables, and a first piece of
/// stream.
const SERIES_BYTES: u64 = 150;
/// About the memory a label of a series takes: its number with the series, and the series' with it.
const LABEL_BYTES: u64 = 10;

fn hash(id: SeriesId, tenant: u32) -> u64 {
    id.hash64() ^ u64::from(tenant).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The stripe of a hash, from bits that the table in it does not use first.
fn stripe_of(hash: u64) -> usize {
    usize::from(hash.to_le_bytes()[5])
}

fn narrow_stripe(stripe: usize) -> u8 {
    u8::try_from(stripe).expect("there are 256 stripes")
}
