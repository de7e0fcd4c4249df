//! Whether series may begin, where a tenant bounds that.
//!
//! Active on a day are the series that have a row for it. How many those are is asked of ClickHouse for all bounded
//! tenants at once, and again after a while; what this pod begins in between is counted on top, so that pods
//! together begin too many for no longer than that. Only yesterday, today and tomorrow count: history makes no
//! series active.
//!
//! A series that the registry knows on one of these days goes on. What it does not know may still be there, written
//! by another pod or by this one before it was started: before one is refused it is looked for, and what is not found is
//! remembered for a while, so that those who send it again and again cost nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::{registry::Registry, rows};
use crate::{
    clock::Clock,
    model::{Limit, OverLimit, SeriesId, TenantId},
    storage::{
        RejectReason, SeriesRoom, WriteBatch,
        clickhouse::{
            client::{Failure, Servers, Statement},
            rowbinary::Reader,
        },
        room::Allowance,
    },
};

/// How old a count may be.
const POLL: Duration = Duration::from_secs(20);

/// How long a series that was not found is taken not to be there.
const ABSENT: Duration = Duration::from_secs(20);

/// How long the count of a tenant is asked for that writes nothing new any more.
const IDLE: Duration = Duration::from_secs(3_600);

/// Series, or tenants, asked for in one statement: a parameter's text is bounded.
const ASKED_AT_ONCE: usize = 500;

/// Series remembered not to be there; beyond that all are looked for again.
const CAPACITY: usize = 200_000;

/// Counts the active series of the tenants that bound them.
#[derive(Debug)]
pub(super) struct Actives {
    servers: Option<Arc<Servers>>,
    clock: Arc<dyn Clock>,
    tenants: Mutex<HashMap<TenantId, Bounded>>,
    /// Held by the one who asks for counts.
    polling: tokio::sync::Mutex<()>,
    /// Series that are not there, and since when that is known.
    absent: Mutex<HashMap<(TenantId, SeriesId), Duration, RandomState>>,
}

/// A tenant with bounds.
#[derive(Debug)]
struct Bounded {
    /// When something of it was new last.
    asked: Duration,
    /// When its counts were asked for last.
    polled: Option<Duration>,
    days: BTreeMap<u16, Count>,
}

/// The series of a tenant on a day.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Those that ClickHouse had.
    there: u64,
    /// Those that were written here after it was asked.
    written: u64,
    /// Those that are being written here.
    pending: u64,
}

impl Count {
    fn active(self) -> u64 {
        self.there.saturating_add(self.written).saturating_add(self.pending)
    }
}

/// A series of a batch that the registry does not know, and the latest day it has something on.
#[derive(Clone, Copy, Debug)]
struct Unknown {
    id: SeriesId,
    day: u16,
    /// A place in the batch where its labels are.
    ordinal: u32,
}

/// What of a batch may begin.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// The series that may not.
    pub(super) refused: HashMap<SeriesId, RejectReason>,
    /// The limits that are in their way.
    pub(super) over: Vec<OverLimit>,
    /// Holds the others' places.
    pub(super) places: Option<Places>,
}

/// Places of series that are being written. Dropped, they are free again.
#[derive(Debug)]
pub(super) struct Places {
    actives: Arc<Actives>,
    tenant: TenantId,
    days: BTreeMap<u16, u64>,
}

impl Actives {
    pub(super) fn new(servers: Option<Arc<Servers>>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            servers,
            clock,
            tenants: Mutex::default(),
            polling: tokio::sync::Mutex::default(),
            absent: Mutex::default(),
        })
    }

    /// How many series of a tenant are active today, if that is counted.
    pub(super) fn count(&self, tenant: &TenantId) -> Option<u64> {
        let today = self.today();
        let tenants = self.tenants.lock();
        let bounded = tenants.get(tenant).filter(|bounded| bounded.polled.is_some())?;
        Some(bounded.days.get(&today).map_or(0, |count| count.active()))
    }

    /// Tells which series of a batch may not begin. `things` are the series and times of what it has.
    pub(super) async fn judge(
        self: &Arc<Self>,
        tenant: &TenantId,
        room: &dyn SeriesRoom,
        batch: &WriteBatch,
        things: impl Iterator<Item = (u32, i64)>,
        registry: &Registry,
    ) -> Result<Judgement, Failure> {
        let unknown = self.unknown(tenant, batch, things, registry);
        if unknown.is_empty() {
            return Ok(Judgement::default());
        }
        self.poll(tenant).await?;
        let mut places = Places { actives: Arc::clone(self), tenant: tenant.clone(), days: BTreeMap::new() };
        let most = room.max_active();
        if !unknown.iter().all(|series| places.enter(series.day, most)) {
            // Each of them may be there already.
            places.leave_all();
            let new = self.not_there(tenant, batch, unknown).await?;
            return Ok(self.admit(room, new, places).await);
        }
        let granted = room.begin(unknown.len() as u64).await;
        if granted.series >= unknown.len() as u64 {
            return Ok(Judgement { places: Some(places), ..Judgement::default() });
        }
        let new = self.not_there(tenant, batch, unknown).await?;
        let few = usize::try_from(granted.series).unwrap_or(usize::MAX).min(new.len());
        let mut refused = HashMap::new();
        for series in &new[few..] {
            places.leave(series.day);
            refused.insert(series.id, RejectReason::OverLimit(Limit::NewSeries));
        }
        let over = granted.over.filter(|_| !refused.is_empty()).into_iter().collect();
        Ok(Judgement { refused, over, places: Some(places) })
    }

    /// Lets as many new series begin as may.
    async fn admit(&self, room: &dyn SeriesRoom, new: Vec<Unknown>, mut places: Places) -> Judgement {
        let active = |series: &Unknown| self.active_on(&places.tenant, series.day);
        let active = new.iter().map(active).min().unwrap_or(0);
        let mut allowance = Allowance::ask(room, active, new.len() as u64).await;
        let mut refused = HashMap::new();
        for series in &new {
            if let Err(reason) = allowance.next(|most| places.enter(series.day, most)) {
                refused.insert(series.id, reason);
            }
        }
        let active = new.iter().map(|series| self.active_on(&places.tenant, series.day)).max().unwrap_or(0);
        Judgement { refused, over: allowance.over(active), places: Some(places) }
    }

    fn today(&self) -> u16 {
        rows::day(self.clock.now().0)
    }

    fn active_on(&self, tenant: &TenantId, day: u16) -> u64 {
        let tenants = self.tenants.lock();
        tenants.get(tenant).and_then(|bounded| bounded.days.get(&day)).map_or(0, |count| count.active())
    }

    /// The series of a batch that have something these days, and that the registry does not know, each once.
    fn unknown(
        &self,
        tenant: &TenantId,
        batch: &WriteBatch,
        things: impl Iterator<Item = (u32, i64)>,
        registry: &Registry,
    ) -> Vec<Unknown> {
        let today = self.today();
        let window = today.saturating_sub(1)..=today.saturating_add(1);
        let mut latest: Vec<Option<u16>> = vec![None; batch.series.len()];
        for (series, at) in things {
            let day = rows::day(at);
            if window.contains(&day) {
                let latest = &mut latest[usize::try_from(series).expect("an index fits")];
                *latest = (*latest).max(Some(day));
            }
        }
        let known = registry.known_to(tenant, today);
        let mut seen = HashSet::new();
        (0..)
            .zip(&batch.series)
            .zip(latest)
            .filter_map(|((ordinal, id), day)| Some(Unknown { id: *id, day: day?, ordinal }))
            .filter(|series| !known.has(series.id) && seen.insert(series.id))
            .collect()
    }

    /// Makes sure that the counts of a tenant are not too old.
    async fn poll(&self, tenant: &TenantId) -> Result<(), Failure> {
        if self.is_fresh(tenant) {
            return Ok(());
        }
        let _polling = self.polling.lock().await;
        if self.is_fresh(tenant) {
            return Ok(());
        }
        let (now, today) = (self.clock.elapsed(), self.today());
        let days = today.saturating_sub(1)..=today.saturating_add(1);
        let before: HashMap<TenantId, BTreeMap<u16, Count>> = {
            let mut tenants = self.tenants.lock();
            tenants.retain(|_, bounded| now.saturating_sub(bounded.asked) < IDLE || bounded.is_writing());
            tenants.iter().map(|(tenant, bounded)| (tenant.clone(), bounded.days.clone())).collect()
        };
        let names: Vec<String> = before.keys().map(|tenant| tenant.as_str().to_owned()).collect();
        let mut there: HashMap<(String, u16), u64> = HashMap::new();
        for names in names.chunks(ASKED_AT_ONCE) {
            there.extend(self.ask_counts(names, *days.start(), *days.end()).await?);
        }
        let mut tenants = self.tenants.lock();
        for (tenant, counted) in before {
            let Some(bounded) = tenants.get_mut(&tenant) else { continue };
            bounded.polled = Some(now);
            bounded.days.retain(|day, count| days.contains(day) || count.pending > 0);
            for day in days.clone() {
                let count = bounded.days.entry(day).or_default();
                count.there = there.get(&(tenant.as_str().to_owned(), day)).copied().unwrap_or(0);
                // What had been written when it was asked is in the answer.
                let written = counted.get(&day).map_or(0, |before| before.written);
                count.written = count.written.saturating_sub(written);
            }
        }
        Ok(())
    }

    /// Whether a tenant's counts are not too old; from now on they are asked for.
    fn is_fresh(&self, tenant: &TenantId) -> bool {
        let now = self.clock.elapsed();
        let mut tenants = self.tenants.lock();
        let new = || Bounded { asked: now, polled: None, days: BTreeMap::new() };
        let bounded = tenants.entry(tenant.clone()).or_insert_with(new);
        bounded.asked = now;
        bounded.polled.is_some_and(|polled| now.saturating_sub(polled) < POLL)
    }

    async fn ask_counts(
        &self,
        tenants: &[String],
        from: u16,
        until: u16,
    ) -> Result<Vec<((String, u16), u64)>, Failure> {
        let Some(servers) = &self.servers else { return Ok(Vec::new()) };
        let statement = Statement::new(
            "SELECT tenant, day, uniq(mid, sid) FROM series WHERE tenant IN {tenants:Array(String)} \
             AND day >= toDate({from:Int64}) AND day <= toDate({until:Int64}) GROUP BY tenant, day",
        )
        .param("tenants", tenants.to_vec())
        .param("from", i64::from(from))
        .param("until", i64::from(until));
        let rows = servers.rows(&statement).await?;
        rows.all(|row| Ok(((row.string()?, row.u16()?), row.u64()?))).await
    }

    /// Those of some series that have no row these days.
    async fn not_there(
        &self,
        tenant: &TenantId,
        batch: &WriteBatch,
        series: Vec<Unknown>,
    ) -> Result<Vec<Unknown>, Failure> {
        let now = self.clock.elapsed();
        let ask: Vec<Unknown> = {
            let absent = self.absent.lock();
            let is_absent = |series: &&Unknown| {
                let since = absent.get(&(tenant.clone(), series.id));
                since.is_some_and(|since| now.saturating_sub(*since) < ABSENT)
            };
            series.iter().filter(|series| !is_absent(series)).copied().collect()
        };
        let mut there = HashSet::new();
        for some in ask.chunks(ASKED_AT_ONCE) {
            there.extend(self.ask_series(tenant, batch, some).await?);
        }
        let mut absent = self.absent.lock();
        if absent.len() + ask.len() > CAPACITY {
            absent.clear();
        }
        for series in ask.iter().filter(|series| !there.contains(&series.id)) {
            absent.insert((tenant.clone(), series.id), now);
        }
        drop(absent);
        Ok(series.into_iter().filter(|series| !there.contains(&series.id)).collect())
    }

    async fn ask_series(
        &self,
        tenant: &TenantId,
        batch: &WriteBatch,
        series: &[Unknown],
    ) -> Result<Vec<SeriesId>, Failure> {
        let Some(servers) = &self.servers else { return Ok(Vec::new()) };
        let name = |series: &Unknown| {
            let labels = batch.labels.labels(usize::try_from(series.ordinal).expect("an index fits"));
            labels.metric_name().unwrap_or_default().to_owned()
        };
        let metrics: BTreeSet<String> = series.iter().map(name).collect();
        let days = series.iter().map(|series| series.day);
        let (first, last) = (days.clone().min().unwrap_or(0), days.max().unwrap_or(0));
        let statement = Statement::new(
            "SELECT DISTINCT mid, sid FROM series WHERE tenant = {tenant:String} \
             AND day >= toDate({from:Int64}) AND day <= toDate({until:Int64}) \
             AND metric IN {metrics:Array(String)} AND mid IN {mids:Array(UInt64)} AND sid IN {sids:Array(UInt64)}",
        )
        .param("tenant", tenant.as_str())
        .param("from", i64::from(first.saturating_sub(1)))
        .param("until", i64::from(last.saturating_add(1)))
        .param("metrics", metrics.into_iter().collect::<Vec<_>>())
        .param("mids", series.iter().map(|series| rows::mid(series.id)).collect::<Vec<_>>())
        .param("sids", series.iter().map(|series| series.id.hash64()).collect::<Vec<_>>());
        let rows = servers.rows(&statement).await?;
        let id = |row: &mut Reader<'_>| {
            let (mid, sid) = (row.u64()?, row.u64()?);
            Ok(SeriesId(u128::from(mid) << 64 | u128::from(sid)))
        };
        rows.all(id).await
    }
}

impl Bounded {
    fn is_writing(&self) -> bool {
        self.days.values().any(|count| count.pending > 0)
    }
}

impl Places {
    /// Takes a place on a day, if fewer than `most` are taken.
    fn enter(&mut self, day: u16, most: Option<u64>) -> bool {
        let mut tenants = self.actives.tenants.lock();
        let Some(bounded) = tenants.get_mut(&self.tenant) else { return false };
        let count = bounded.days.entry(day).or_default();
        if most.is_some_and(|most| count.active() >= most) {
            return false;
        }
        count.pending += 1;
        *self.days.entry(day).or_default() += 1;
        true
    }

    /// Gives a place on a day back.
    fn leave(&mut self, day: u16) {
        if let Some(taken) = self.days.get_mut(&day).filter(|taken| **taken > 0) {
            *taken -= 1;
            self.actives.end(&self.tenant, day, 1, false);
        }
    }

    fn leave_all(&mut self) {
        for (day, taken) in std::mem::take(&mut self.days) {
            self.actives.end(&self.tenant, day, taken, false);
        }
    }

    /// The series are written.
    pub(super) fn settle(mut self) {
        for (day, taken) in std::mem::take(&mut self.days) {
            self.actives.end(&self.tenant, day, taken, true);
        }
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.leave_all();
    }
}

impl Actives {
    /// Some series are not being written any more.
    fn end(&self, tenant: &TenantId, day: u16, series: u64, written: bool) {
        let mut tenants = self.tenants.lock();
        let Some(count) = tenants.get_mut(tenant).and_then(|bounded| bounded.days.get_mut(&day)) else {
            return;
        };
        count.pending = count.pending.saturating_sub(series);
        count.written += if written { series } else { 0 };
    }
}
