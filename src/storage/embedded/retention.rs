//! How long samples are kept: by tenant, and by what their series are.
//!
//! ```text
//! rules of the tenant, and of all ─ the first that matches ─▶ keep
//!                                 └ none ─▶ the tenant's own ─▶ the default
//! ```
//!
//! What is older is refused, is hidden from queries, and is removed:
//!
//! * A moment, the *horizon*, says as of when: it moves with [`Engine::enforce_retention`], every hour, so that
//!   who keeps answers is told of what has gone from them. It never goes back.
//! * A part of which every tenant's samples are too old is removed as a file.
//! * One that has series which are kept for less is written again without them (`tidy`), once all that it has of them is
//!   too old and that is worth it; or when it is merged anyway.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use hashbrown::HashMap;
use roaring::RoaringBitmap;

use super::{
    config::{EmbeddedConfig, KeepRule},
    engine::Engine,
    part::{Part, TenantMeta},
};
use crate::{
    model::{Labels, Matcher, Millis, TenantId, TimeRange, Timestamp},
    storage::{Result, StorageError},
};

/// How long samples are kept.
#[derive(Debug)]
pub(crate) struct Retention {
    default: Option<Millis>,
    tenants: HashMap<TenantId, Option<Millis>>,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    tenant: Option<TenantId>,
    matchers: Vec<Matcher>,
    keep: Option<Millis>,
}

/// What is kept of a tenant's samples, as of a moment.
#[derive(Debug)]
pub(crate) struct Kept<'a> {
    /// What is older is kept of no series.
    pub(crate) oldest: Timestamp,
    /// What is from here on is kept of every series.
    pub(crate) all_since: Timestamp,
    /// Since when samples are kept that no rule is about.
    own: Timestamp,
    rules: Vec<(&'a [Matcher], Timestamp)>,
}

impl Retention {
    pub(crate) fn new(config: &EmbeddedConfig) -> Self {
        let rule = |rule: &KeepRule| Rule {
            tenant: rule.tenant.clone(),
            matchers: rule.matchers.clone(),
            keep: rule.keep.map(millis),
        };
        Self {
            default: config.retention.map(millis),
            tenants: config.tenant_retention.iter().map(|(t, keep)| (t.clone(), keep.map(millis))).collect(),
            rules: config.retention_rules.iter().map(rule).collect(),
        }
    }

    /// What is kept of a tenant's samples at `now`.
    pub(crate) fn at(&self, tenant: &TenantId, now: Timestamp) -> Kept<'_> {
        let since = |keep: Option<Millis>| keep.map_or(Timestamp::MIN, |keep| now.minus(keep));
        let own = since(*self.tenants.get(tenant).unwrap_or(&self.default));
        let about = |rule: &&Rule| rule.tenant.as_ref().is_none_or(|t| t == tenant);
        let rules: Vec<_> =
            self.rules.iter().filter(about).map(|rule| (&rule.matchers[..], since(rule.keep))).collect();
        let each = || rules.iter().map(|(_, since)| *since).chain([own]);
        Kept { oldest: each().min().unwrap_or(own), all_since: each().max().unwrap_or(own), own, rules }
    }

    /// Whether nothing is ever too old.
    fn keeps_everything(&self) -> bool {
        let each = self.tenants.values().chain(self.rules.iter().map(|rule| &rule.keep));
        each.chain([&self.default]).all(Option::is_none)
    }

    /// Shows what goes as the horizon moves: whose, all if it says nobody's, and of which times.
    fn moves(&self, from: Timestamp, to: Timestamp, mut show: impl FnMut(Option<&TenantId>, TimeRange)) {
        let mut show = |tenant: Option<&TenantId>, keep: Option<Millis>| {
            if let Some(keep) = keep
                && let Some(range) = TimeRange::new(from.minus(keep), to.minus(keep))
            {
                show(tenant, range);
            }
        };
        show(None, self.default);
        self.tenants.iter().for_each(|(tenant, keep)| show(Some(tenant), *keep));
        self.rules.iter().for_each(|rule| show(rule.tenant.as_ref(), rule.keep));
    }
}

impl Kept<'_> {
    /// Since when the samples of a series are kept.
    pub(crate) fn since(&self, labels: &Labels) -> Timestamp {
        let matches = |matchers: &[Matcher]| {
            matchers.iter().all(|m| m.matches(labels.get(m.name()).unwrap_or_default()))
        };
        self.rules.iter().find(|(matchers, _)| matches(matchers)).map_or(self.own, |(_, since)| *since)
    }

    /// Whether a sample is too old; `labels` are asked for only if that depends on them.
    pub(crate) fn refuses<L: std::borrow::Borrow<Labels>>(
        &self,
        at: Timestamp,
        labels: impl FnOnce() -> L,
    ) -> bool {
        at < self.all_since && (at < self.oldest || at < self.since(labels().borrow()))
    }

    /// What is left of a range, of the series that is kept longest.
    pub(crate) fn of_any(&self, range: TimeRange) -> Option<TimeRange> {
        range.intersection(TimeRange::new(self.oldest, Timestamp::MAX)?)
    }

    /// What is left of a range for a series.
    pub(crate) fn of(&self, labels: &Labels, range: TimeRange) -> Option<TimeRange> {
        if self.all_since <= range.start() {
            return Some(range);
        }
        range.intersection(TimeRange::new(self.since(labels), Timestamp::MAX)?)
    }

    /// How many samples a part has of series of which all that it has is too old.
    ///
    /// An error of `step`, which comes before each of these series, ends it.
    pub(crate) fn outlived(
        &self,
        part: &Part,
        of: &TenantMeta,
        mut step: impl FnMut() -> Result<()>,
    ) -> Result<u64> {
        let Some(range) = of.range.filter(|range| range.end() < self.all_since) else { return Ok(0) };
        let mut rest = RoaringBitmap::new();
        rest.insert_range(of.first..of.first.saturating_add(of.series));
        let mut outlived = RoaringBitmap::new();
        for (matchers, since) in &self.rules {
            let found = part.find(&of.tenant, matchers)? & &rest;
            rest -= &found;
            if range.end() < *since {
                outlived |= found;
            }
        }
        if range.end() < self.own {
            outlived |= rest;
        }
        let mut counted = HashMap::new();
        let mut samples = 0;
        for ordinal in outlived {
            step()?;
            let of_series = part.estimate(ordinal, TimeRange::ALL, &mut counted)?;
            samples += of_series.floats + of_series.histograms;
        }
        Ok(samples)
    }
}

impl Engine {
    /// As of when samples are too old for queries and parts.
    pub(crate) fn horizon(&self) -> Timestamp {
        Timestamp(self.horizon.load(Relaxed))
    }

    /// What is kept of a tenant's samples, for queries.
    pub(crate) fn kept(&self, tenant: &TenantId) -> Kept<'_> {
        self.retention.at(tenant, self.horizon())
    }

    /// Removes what is older than the retention: hides it, and removes the parts that have nothing else.
    pub(crate) fn enforce_retention(&self) -> Result<()> {
        if self.retention.keeps_everything() {
            return Ok(());
        }
        let upkeep = &mut *self.upkeep.lock();
        let now = self.clock.now();
        let before = Timestamp(self.horizon.fetch_max(now.0, Relaxed));
        if before < now {
            self.retention.moves(before, now, |tenant, range| {
                let range = self.downsampling.changed_with(range);
                match tenant {
                    None => self.changes.changed_for_all(range),
                    Some(tenant) => self.changes.changed(tenant, range),
                }
            });
        }
        self.exemplars.remove(None, |tenant, labels, e| self.kept(tenant).refuses(e.timestamp, || labels));
        let outlived = |of: &TenantMeta| of.range.is_none_or(|r| r.end() < self.kept(&of.tenant).oldest);
        let view = self.view.load();
        let (gone, kept): (Vec<_>, Vec<_>) = view
            .parts
            .iter()
            .map(std::sync::Arc::clone)
            .partition(|sealed| sealed.part.meta().tenants.iter().all(outlived));
        if gone.is_empty() {
            return Ok(());
        }
        upkeep.books.settle(&self.disk, &kept, None, upkeep.covers);
        self.view.store(std::sync::Arc::new(view.with_parts(kept)));
        tracing::info!(parts = gone.len(), horizon = %now, "removed what is older than the retention");
        upkeep.waste.extend(gone.iter().map(|part| part.path().to_owned()));
        self.sweep(upkeep)
    }

    /// How many of a part's samples are of series that are kept for less, and all too old.
    pub(crate) fn outlived(&self, part: &Part, mut step: impl FnMut() -> Result<()>) -> Result<u64> {
        let mut of = |of: &TenantMeta| self.kept(&of.tenant).outlived(part, of, &mut step);
        part.meta().tenants.iter().try_fold(0_u64, |sum, tenant| Ok::<_, StorageError>(sum + of(tenant)?))
    }
}

fn millis(keep: Duration) -> Millis {
    Millis(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn days(n: i64) -> Timestamp {
        Timestamp(n * Millis::DAY.0)
    }

    fn labels(name: &str) -> Labels {
        Labels::from_pairs([("__name__", name)]).unwrap()
    }

    fn retention() -> Retention {
        let rule = |tenant: Option<&str>, name: &str, keep: Option<u32>| KeepRule {
            tenant: tenant.map(|t| TenantId::new(t).unwrap()),
            matchers: vec![Matcher::equal("__name__", name)],
            keep: keep.map(|days| DAY * days),
        };
        Retention::new(&EmbeddedConfig {
            retention: Some(DAY * 30),
            tenant_retention: vec![(TenantId::new("short").unwrap(), Some(DAY * 7))],
            retention_rules: vec![
                rule(Some("short"), "audit", None),
                rule(None, "debug", Some(2)),
                rule(None, "audit", Some(365)),
                rule(None, "debug", None),
            ],
            ..EmbeddedConfig::new("unused")
        })
    }

    #[test]
    fn the_first_rule_that_matches_holds_then_the_tenants_own_then_the_default() {
        let retention = retention();
        let now = days(1000);
        let (a, short) = (TenantId::new("a").unwrap(), TenantId::new("short").unwrap());
        for (tenant, name, since) in [
            (&a, "m", days(970)),
            (&a, "debug", days(998)),
            (&a, "audit", days(635)),
            (&short, "m", days(993)),
            (&short, "debug", days(998)),
            (&short, "audit", Timestamp::MIN),
        ] {
            let kept = retention.at(tenant, now);
            assert_eq!(kept.since(&labels(name)), since, "{tenant} {name}");
            assert!(!kept.refuses(since, || labels(name)), "{tenant} {name}");
            if since > Timestamp::MIN {
                assert!(kept.refuses(since.minus(Millis(1)), || labels(name)), "{tenant} {name}");
            }
        }
        let kept = retention.at(&a, now);
        assert_eq!((kept.oldest, kept.all_since), (Timestamp::MIN, days(998)));
    }

    #[test]
    fn who_keeps_answers_is_told_of_what_goes() {
        let mut gone = Vec::new();
        retention().moves(days(1000), days(1001), |tenant, range| {
            gone.push((tenant.map(ToString::to_string), range.start(), range.end()));
        });
        let short = Some("short".to_owned());
        let expect = [
            (None, days(970), days(971)),
            (short, days(993), days(994)),
            (None, days(998), days(999)),
            (None, days(635), days(636)),
        ];
        assert_eq!(gone, expect);
    }
}
