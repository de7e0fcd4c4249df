//! The storage contract as tests, which every backend runs.
//!
//! A backend hands in how its store is opened and what may happen to it between writing and reading
//! ([`Upheaval`]); [`check`] runs every case under every upheaval, each case in a tenant of its own.
//! A case writes, lets the upheaval happen, and reads back, so that the same sentence is proven for
//! data in memory, in its final place, and after a restart or a crash.
//!
//! The declared difference between backends, whose sample stays when two with other bits meet at the same
//! series and time, is asked of the backend too ([`Backend::settles`]).

pub(crate) mod bounds;
mod conflicts;
mod counts;
mod deletes;
mod documents;
mod histograms;
mod lookups;
mod samples;
mod views;

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{
    Appended, BatchSample, LabelsRequest, Runs, SelectRequest, Selected, SeriesSamples, Storage, WriteBatch,
};
use crate::model::{Labels, MatchOp, Matcher, TenantId, TimeRange, Timestamp};

/// What can happen to a store between a write and a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upheaval {
    /// Nothing.
    None,
    /// A flush.
    Flush,
    /// A clean close, and the store is opened again.
    Restart,
    /// The process dies without warning, and the store is opened again.
    Kill,
}

/// How samples in conflict are settled by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settles {
    /// The one written last stays.
    Last,
    /// The greatest value stays; stale and other NaN lose.
    Greatest,
}

/// A kind of store that the suite can open.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync {
    /// Opens an empty store whose retention reaches back beyond [`NOW`] − 10 days and not to [`NOW`] − 40 days,
    /// by a clock that shows [`NOW`].
    async fn open(&self) -> Arc<dyn Storage>;

    /// The upheavals that this backend's stores can live through.
    fn upheavals(&self) -> &[Upheaval];

    /// Lets an upheaval happen and gives the store back.
    async fn upheave(&self, store: Arc<dyn Storage>, upheaval: Upheaval) -> Arc<dyn Storage>;

    /// Who wins a conflict.
    fn settles(&self) -> Settles;
}

/// The time that a backend's clock shows to the suite: 2026-01-10 00:00:00 UTC.
pub const NOW: Timestamp = Timestamp(1_768_003_200_000);

/// One store under test, and the tenant of the running case.
#[derive(Debug)]
struct Subject<'a> {
    backend: &'a dyn Backend,
    store: Arc<dyn Storage>,
    upheaval: Upheaval,
    tenant: TenantId,
}

/// Runs every case under every upheaval; panics at the first that fails, saying which.
pub async fn check(backend: &dyn Backend) {
    for upheaval in backend.upheavals() {
        let store = backend.open().await;
        let mut subject = Subject { backend, store, upheaval: *upheaval, tenant: TenantId::anonymous() };
        subject.run_all().await;
        subject.store.close().await.expect("a store that passed closes");
    }
}

macro_rules! cases {
    ($($file:ident: $($case:ident),+;)+) => {
        impl Subject<'_> {
            async fn run_all(&mut self) {
                $($(
                    self.tenant = TenantId::new(stringify!($case)).expect("a case's name is a tenant's");
                    tracing::info!(case = stringify!($case), upheaval = ?self.upheaval, "conformance");
                    $file::$case(self).await;
                )+)+
            }
        }
    };
}

cases! {
    samples:
        floats_come_back_to_the_bit,
        series_come_sorted_however_they_were_written,
        samples_come_sorted_however_they_were_written,
        a_range_includes_both_ends,
        every_kind_of_matcher_selects,
        start_timestamps_come_back,
        many_series_over_many_days_come_back;
    conflicts:
        a_duplicate_is_a_success_and_stored_once,
        a_conflict_is_settled,
        a_conflict_is_rejected_if_asked,
        out_of_order_is_bounded_if_asked,
        what_is_too_old_is_rejected_and_the_rest_is_kept;
    histograms:
        histograms_come_back_to_the_bit,
        a_series_has_one_sample_at_a_time;
    lookups:
        exemplars_are_found,
        metadata_is_found_and_replaced,
        label_names_and_values_are_those_of_matching_series,
        tenants_do_not_see_each_other,
        too_many_series_is_an_error,
        cardinality_counts_series;
    deletes:
        what_is_deleted_is_hidden_even_if_written_again,
        cleaned_tombstones_let_new_samples_in,
        what_changes_is_told;
    views:
        filters_show_what_one_of_them_matches,
        a_filtered_delete_hides_what_is_shown,
        several_tenants_are_one,
        several_tenants_have_their_bounds_together;
    counts:
        a_narrowed_view_shows_less_and_never_more,
        an_estimate_has_all_series_and_no_fewer_samples,
        values_are_shown_until_enough_was_seen,
        a_limit_gives_the_first;
    documents:
        a_document_is_kept_and_replaced_and_removed,
        documents_are_put_at_once_and_one_is_left;
    bounds:
        active_series_are_bounded_and_those_that_are_there_keep_flowing,
        series_that_begin_are_bounded,
        writers_at_the_same_time_do_not_begin_too_many;
}

impl Subject<'_> {
    async fn settle(&mut self) {
        if self.upheaval != Upheaval::None {
            self.store = self.backend.upheave(Arc::clone(&self.store), self.upheaval).await;
        }
    }

    async fn append(&self, batch: WriteBatch) -> Appended {
        self.store.append(&self.tenant, batch).await.expect("the store takes a batch")
    }

    /// Writes float samples of one series, all of which must be taken.
    async fn write(&self, labels: &Labels, samples: &[(i64, f64)]) {
        let appended = self.append(floats(labels, samples)).await;
        assert_eq!((appended.samples, &appended.rejected[..]), (samples.len() as u64, &[][..]), "{labels}");
    }

    async fn select(&self, matchers: &[Matcher], range: TimeRange) -> Vec<(Labels, SeriesSamples)> {
        read_all(self.store.as_ref(), &self.tenant, SelectRequest::new(matchers.to_vec(), range)).await
    }

    async fn everything(&self) -> Vec<(Labels, SeriesSamples)> {
        self.select(&[], TimeRange::ALL).await
    }

    async fn label_names(&self, matchers: &[Matcher]) -> Vec<String> {
        let request = LabelsRequest { matchers: vec![matchers.to_vec()], range: TimeRange::ALL, limit: 0 };
        self.store.label_names(&self.tenant, request).await.expect("label names are answered")
    }

    async fn label_values(&self, name: &str, matchers: &[Matcher]) -> Vec<String> {
        let request = LabelsRequest { matchers: vec![matchers.to_vec()], range: TimeRange::ALL, limit: 0 };
        self.store.label_values(&self.tenant, name, request).await.expect("label values are answered")
    }
}

/// Reads a selection to its end, in whichever order the store gives it; series without samples are left out.
pub async fn read_all(
    store: &dyn Storage,
    tenant: &TenantId,
    request: SelectRequest,
) -> Vec<(Labels, SeriesSamples)> {
    read_selected(store.select(tenant, request).await.expect("a selection is answered")).await
}

async fn read_selected(selected: Selected) -> Vec<(Labels, SeriesSamples)> {
    let mut all: Vec<(Labels, SeriesSamples)> =
        selected.series.into_iter().map(|labels| (labels, SeriesSamples::default())).collect();
    match selected.runs {
        Runs::SeriesMajor(reader) => {
            for (ordinal, (_, samples)) in all.iter_mut().enumerate() {
                reader.read(ordinal, samples).expect("a series reads back");
            }
        }
        Runs::TimeMajor(mut runs) => {
            while let Some(batch) = runs.recv().await {
                for run in batch.expect("a run reads back") {
                    let into = &mut all[usize::try_from(run.ordinal).expect("an ordinal fits")].1;
                    for i in 0..run.samples.timestamps.len() {
                        into.push(run.samples.timestamps[i], run.samples.values[i], run.samples.start(i));
                    }
                    into.histograms.extend(run.samples.histograms);
                }
            }
        }
        Runs::Rows(_) => panic!("rows without an offer"),
    }
    for (labels, samples) in &all {
        assert!(samples.timestamps.is_sorted_by(|a, b| a < b), "{labels}: float times rise");
        assert!(
            samples.histograms.is_sorted_by(|a, b| a.timestamp < b.timestamp),
            "{labels}: histogram times rise"
        );
        assert_eq!(samples.timestamps.len(), samples.values.len(), "{labels}: a value for each time");
    }
    assert!(all.is_sorted_by(|a, b| a.0 < b.0), "series come in label order");
    all.retain(|(_, samples)| !samples.is_empty());
    all
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).expect("a case's labels are valid")
}

fn floats(labels: &Labels, samples: &[(i64, f64)]) -> WriteBatch {
    let mut batch = WriteBatch::over(vec![labels.clone()]);
    batch.samples = samples
        .iter()
        .map(|(at, value)| BatchSample { series: 0, timestamp: Timestamp(*at), value: *value, start: 0 })
        .collect();
    batch
}

fn pairs(samples: &SeriesSamples) -> Vec<(i64, u64)> {
    samples.timestamps.iter().zip(&samples.values).map(|(at, value)| (*at, value.to_bits())).collect()
}

fn bits(samples: &[(i64, f64)]) -> Vec<(i64, u64)> {
    samples.iter().map(|(at, value)| (*at, value.to_bits())).collect()
}

fn range(start: i64, end: i64) -> TimeRange {
    TimeRange::new(Timestamp(start), Timestamp(end)).expect("a case's range is not empty")
}

fn matcher(op: MatchOp, name: &str, value: &str) -> Matcher {
    Matcher::new(op, name, value).expect("a case's pattern compiles")
}

/// A time within the retention, `seconds` before [`NOW`].
fn ago(seconds: i64) -> i64 {
    NOW.0 - seconds * 1000
}
