//! Several tenants as one.
//!
//! Each tenant is asked on its own, some at a time, and what they answer is put together in order. Every series
//! gets the label [`TENANT_LABEL`]; matchers on it choose among the tenants and are not asked of any store. A
//! series that was stored with a label of that name shows it as `original___tenant_id__`, and one that was stored
//! with that name in turn with one more `original_` before it: so no two series become one, and a
//! matcher on the longer name means the stored one.
//!
//! Deletes are no part of this, and neither are writes.

use std::{borrow::Cow, collections::BTreeMap, future::Future, sync::Arc};

use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, Buffered},
};

use super::{filtered::Filtered, runs};
use crate::{
    model::{Labels, Matcher, Metadata, TenantId, TimeRange},
    storage::{
        Cardinality, Estimate, LabelsRequest, MatcherSets, Offer, Operation, Result, SelectRequest, Selected,
        SeriesExemplars, Sift, Storage, most, selection::Meter,
    },
};

/// The label that tells whose a series is where there are several tenants.
pub const TENANT_LABEL: &str = "__tenant_id__";

/// Stands before the name of a stored label that would be taken for [`TENANT_LABEL`].
const ORIGINAL: &str = "original_";

/// How many tenants are asked at a time.
const AT_A_TIME: usize = 8;

/// How many entries of each list of a [`Cardinality`] a tenant is asked for, at least: what is not among a
/// tenant's first ones may be among those of all together.
const LEAST_ENTRIES: usize = 1_000;

/// What of each tenant one of its filters matches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Federation<'v> {
    /// Sorted.
    pub(super) tenants: &'v [TenantId],
    /// Theirs, in the same order.
    pub(super) filters: &'v [MatcherSets],
}

impl<'v> Federation<'v> {
    pub(super) async fn select(self, storage: &dyn Storage, request: SelectRequest) -> Result<Selected> {
        let mut meter = Meter::of(&request);
        let mut asked: Vec<(&TenantId, SelectRequest)> = (self.tenants.iter())
            .filter_map(|tenant| {
                let matchers = for_tenant(&request.matchers, tenant)?;
                let offer = Offer::default();
                Some((tenant, SelectRequest { matchers, offer, ..request.clone() }))
            })
            .collect();
        if let [(_, only)] = &mut asked[..] {
            // Rows of series have the same places as their samples; groups would have lost whose they are.
            only.offer = without_groups(request.offer);
        }
        let tenants: Vec<&TenantId> = asked.iter().map(|(tenant, _)| *tenant).collect();
        let mut answers = self.ask(asked, |tenant, request| tenant.select(storage, request));
        let mut all = Vec::with_capacity(tenants.len());
        while let Some(selected) = answers.try_next().await? {
            // The bounds are for all of them together.
            meter.count_all(&selected.series)?;
            all.push(selected);
        }
        drop(answers);
        runs::joined(tenants.into_iter().zip(all))
    }

    pub(super) async fn series(self, storage: &dyn Storage, request: LabelsRequest) -> Result<Vec<Labels>> {
        let limit = request.limit;
        let asked = self.labels_requests(&request);
        let tenants: Vec<&TenantId> = asked.iter().map(|(tenant, _)| *tenant).collect();
        let answers: Vec<_> =
            self.ask(asked, |tenant, request| tenant.series(storage, request)).try_collect().await?;
        let of_all = tenants.into_iter().zip(answers);
        let mut series: Vec<Labels> = of_all
            .flat_map(|(tenant, all)| all.into_iter().map(move |one| with_tenant(&one, tenant)))
            .collect();
        series.sort_unstable();
        Ok(first(series, limit))
    }

    pub(super) async fn label_names(
        self,
        storage: &dyn Storage,
        request: LabelsRequest,
    ) -> Result<Vec<String>> {
        let asked = self.labels_requests(&request);
        let answers: Vec<_> =
            self.ask(asked, |tenant, request| tenant.label_names(storage, request)).try_collect().await?;
        let mut names: Vec<String> =
            answers.into_iter().flatten().map(|name| shown_name(&name).into_owned()).collect();
        if !names.is_empty() {
            names.push(TENANT_LABEL.to_owned());
        }
        Ok(first(sorted(names), request.limit))
    }

    pub(super) async fn label_values(
        self,
        storage: &dyn Storage,
        name: &str,
        request: LabelsRequest,
    ) -> Result<Vec<String>> {
        let limit = request.limit;
        let Some(name) = stored_name(name) else {
            return Ok(first(self.with_series(storage, request).await?, limit));
        };
        let asked = self.labels_requests(&request);
        let answers: Vec<_> = self
            .ask(asked, |tenant, request| tenant.label_values(storage, &name, request))
            .try_collect()
            .await?;
        Ok(first(sorted(answers.into_iter().flatten().collect()), limit))
    }

    pub(super) async fn sift_label_values(
        self,
        storage: &dyn Storage,
        name: &str,
        request: LabelsRequest,
        sift: Arc<dyn Sift>,
    ) -> Result<()> {
        let Some(name) = stored_name(name) else {
            let tenants = self.with_series(storage, request).await?;
            // It has seen enough, or all there is.
            let _ = tenants.iter().try_for_each(|tenant| sift.see(tenant));
            return Ok(());
        };
        let asked = self.labels_requests(&request);
        let sift = &sift;
        self.ask(asked, |tenant, request| tenant.sift_label_values(storage, &name, request, Arc::clone(sift)))
            .try_collect()
            .await
    }

    pub(super) async fn estimate(self, storage: &dyn Storage, request: SelectRequest) -> Result<Estimate> {
        let of_tenant = |tenant| {
            let matchers = for_tenant(&request.matchers, tenant)?;
            Some((tenant, SelectRequest { matchers, ..request.clone() }))
        };
        let asked: Vec<(&TenantId, SelectRequest)> = self.tenants.iter().filter_map(of_tenant).collect();
        let tenants: Vec<&TenantId> = asked.iter().map(|(tenant, _)| *tenant).collect();
        let answers: Vec<Estimate> =
            self.ask(asked, |tenant, request| tenant.estimate(storage, request)).try_collect().await?;
        let mut sum = Estimate::default();
        for (tenant, mut of_one) in tenants.into_iter().zip(answers) {
            // What tells whose a series is, stands in its labels, too; two lengths are before it.
            let shown = (TENANT_LABEL.len() + tenant.as_str().len()) as u64 + 10;
            of_one.label_bytes = of_one.label_bytes.saturating_add(of_one.series.saturating_mul(shown));
            sum.add(&of_one);
        }
        Ok(sum)
    }

    /// The names of the tenants that have one of the series.
    async fn with_series(self, storage: &dyn Storage, mut request: LabelsRequest) -> Result<Vec<String>> {
        request.limit = 1;
        let asked = self.labels_requests(&request);
        let tenants: Vec<&TenantId> = asked.iter().map(|(tenant, _)| *tenant).collect();
        let answers: Vec<_> =
            self.ask(asked, |tenant, request| tenant.series(storage, request)).try_collect().await?;
        let with_series = tenants.into_iter().zip(answers).filter(|(_, series)| !series.is_empty());
        Ok(with_series.map(|(tenant, _)| tenant.to_string()).collect())
    }

    pub(super) async fn metadata(self, storage: &dyn Storage, metric: Option<&str>) -> Result<Vec<Metadata>> {
        let answers = self.ask_all(|tenant| tenant.metadata(storage, metric)).await?;
        let mut metadata: Vec<Metadata> = answers.into_iter().flatten().collect();
        let key = |entry: &Metadata| {
            (entry.metric.clone(), entry.kind.as_str(), entry.help.clone(), entry.unit.clone())
        };
        metadata.sort_by_cached_key(key);
        metadata.dedup();
        Ok(metadata)
    }

    pub(super) async fn exemplars(
        self,
        storage: &dyn Storage,
        matchers: MatcherSets,
        range: TimeRange,
    ) -> Result<Vec<SeriesExemplars>> {
        let asked = self.chosen(&matchers);
        let tenants: Vec<&TenantId> = asked.iter().map(|(tenant, _)| *tenant).collect();
        let answers: Vec<_> =
            self.ask(asked, |tenant, sets| tenant.exemplars(storage, sets, range)).try_collect().await?;
        let mut all = Vec::new();
        for (tenant, exemplars) in tenants.into_iter().zip(answers) {
            all.extend(exemplars.into_iter().map(|SeriesExemplars { series, exemplars }| SeriesExemplars {
                series: with_tenant(&series, tenant),
                exemplars,
            }));
        }
        all.sort_unstable_by(|a, b| a.series.cmp(&b.series));
        Ok(all)
    }

    /// Counts are added up: a value that several tenants have counts for each. The lists are made of the
    /// tenants' first entries.
    pub(super) async fn cardinality(self, storage: &dyn Storage, limit: usize) -> Result<Cardinality> {
        let entries = limit.max(LEAST_ENTRIES);
        let answers = self.ask_all(|tenant| tenant.cardinality(storage, entries)).await?;
        let mut sum = Cardinality::default();
        let (mut metrics, mut values, mut bytes, mut pairs) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (tenant, of_one) in self.tenants.iter().zip(answers) {
            if of_one.series == 0 {
                continue;
            }
            sum.series += of_one.series;
            // Each tenant's pairs, and the one that tells it from the others.
            sum.pairs += of_one.pairs + 1;
            sum.chunks += of_one.chunks;
            sum.range = match (sum.range, of_one.range) {
                (Some(a), Some(b)) => Some(a.union(b)),
                (a, b) => a.or(b),
            };
            add(&mut metrics, of_one.series_by_metric);
            add(&mut values, shown_names(of_one.values_by_label));
            add(&mut bytes, shown_names(of_one.bytes_by_label));
            add(&mut pairs, of_one.series_by_pair.into_iter().map(|(pair, count)| (shown_pair(pair), count)));
            add(&mut values, [(TENANT_LABEL.to_owned(), 1)]);
            add(&mut bytes, [(TENANT_LABEL.to_owned(), tenant.as_str().len() as u64)]);
            add(&mut pairs, [(format!("{TENANT_LABEL}={tenant}"), of_one.series)]);
        }
        sum.series_by_metric = most(metrics.into_iter(), limit);
        sum.values_by_label = most(values.into_iter(), limit);
        sum.bytes_by_label = most(bytes.into_iter(), limit);
        sum.series_by_pair = most(pairs.into_iter(), limit);
        Ok(sum)
    }

    /// What each tenant that may have an answer is to be asked.
    fn labels_requests(self, request: &LabelsRequest) -> Vec<(&'v TenantId, LabelsRequest)> {
        // Names that move to a later place make room for as many.
        let limit = if request.limit == 0 { 0 } else { request.limit.saturating_add(2) };
        let chosen = self.chosen(&request.matchers).into_iter();
        chosen
            .map(|(tenant, matchers)| (tenant, LabelsRequest { matchers, range: request.range, limit }))
            .collect()
    }

    /// The tenants that the sets do not rule out, and what is left of the sets for them.
    fn chosen(self, sets: &[Vec<Matcher>]) -> Vec<(&'v TenantId, MatcherSets)> {
        let left =
            |tenant| -> MatcherSets { sets.iter().filter_map(|set| for_tenant(set, tenant)).collect() };
        let all = self.tenants.iter().map(|tenant| (tenant, left(tenant)));
        all.filter(|(_, left)| sets.is_empty() || !left.is_empty()).collect()
    }

    /// The answers of tenants, in their order.
    fn ask<Q, T, F: Future<Output = Result<T>>>(
        self,
        asked: Vec<(&'v TenantId, Q)>,
        ask: impl Fn(Filtered<'v>, Q) -> F,
    ) -> Buffered<stream::Iter<std::vec::IntoIter<F>>> {
        let asked = asked.into_iter();
        let filtered = |tenant| {
            let place = self.tenants.binary_search(tenant).expect("only those of the view are asked");
            Filtered { tenant, filters: &self.filters[place] }
        };
        let answers: Vec<F> = asked.map(|(tenant, question)| ask(filtered(tenant), question)).collect();
        stream::iter(answers).buffered(AT_A_TIME)
    }

    async fn ask_all<T, F: Future<Output = Result<T>>>(
        self,
        ask: impl Fn(Filtered<'v>) -> F,
    ) -> Result<Vec<T>> {
        self.ask(self.tenants.iter().map(|tenant| (tenant, ())).collect(), |tenant, ()| ask(tenant))
            .try_collect()
            .await
    }
}

/// What is left of matchers for a tenant: none if they mean other tenants.
pub(super) fn for_tenant(set: &[Matcher], tenant: &TenantId) -> Option<Vec<Matcher>> {
    let mut left = Vec::with_capacity(set.len());
    for matcher in set {
        match stored_name(matcher.name()) {
            None if matcher.matches(tenant.as_str()) => {}
            None => return None,
            Some(name) if name == matcher.name() => left.push(matcher.clone()),
            Some(name) => left.push(matcher.renamed(&name)),
        }
    }
    Some(left)
}

/// A series' labels as they are shown.
pub(super) fn with_tenant(labels: &Labels, tenant: &TenantId) -> Labels {
    let own = labels.iter().map(|(name, value)| (shown_name(name), value));
    let all = own.chain([(Cow::Borrowed(TENANT_LABEL), tenant.as_str())]);
    Labels::from_pairs(all).expect("names that were different still are")
}

/// How a stored label is called where there are several tenants.
fn shown_name(name: &str) -> Cow<'_, str> {
    let mut rest = name;
    while let Some(shorter) = rest.strip_prefix(ORIGINAL) {
        rest = shorter;
    }
    if rest == TENANT_LABEL { Cow::Owned(format!("{ORIGINAL}{name}")) } else { Cow::Borrowed(name) }
}

/// How a label that is shown is called where it is stored; none if it is not.
fn stored_name(name: &str) -> Option<Cow<'_, str>> {
    if name == TENANT_LABEL {
        return None;
    }
    match name.strip_prefix(ORIGINAL) {
        Some(stored) if shown_name(stored) == name => Some(Cow::Borrowed(stored)),
        Some(_) | None => Some(Cow::Borrowed(name)),
    }
}

fn shown_names(counts: Vec<(String, u64)>) -> impl Iterator<Item = (String, u64)> {
    counts.into_iter().map(|(name, count)| (shown_name(&name).into_owned(), count))
}

/// `name=value`, of which the name alone is looked at.
fn shown_pair(pair: String) -> String {
    match pair.split_once('=') {
        Some((name, value)) if shown_name(name) != name => format!("{}={value}", shown_name(name)),
        Some(_) | None => pair,
    }
}

fn without_groups(mut offer: Offer) -> Offer {
    let groups = |operation: &Operation| matches!(operation, Operation::Aggregate { .. });
    let kept = offer.operations.iter().position(groups).unwrap_or(offer.operations.len());
    offer.operations.truncate(kept);
    offer
}

fn add(sums: &mut BTreeMap<String, u64>, counts: impl IntoIterator<Item = (String, u64)>) {
    for (name, count) in counts {
        *sums.entry(name).or_default() += count;
    }
}

fn sorted(mut all: Vec<String>) -> Vec<String> {
    all.sort_unstable();
    all.dedup();
    all
}

fn first<T>(mut all: Vec<T>, limit: usize) -> Vec<T> {
    if limit > 0 {
        all.truncate(limit);
    }
    all
}
