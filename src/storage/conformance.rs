//! The storage contract as tests, which every backend runs.
//!
//! A backend hands in how its store is opened and what may happen to it between writing and reading
//! ([`Upheaval`]); [`check`] runs every case under every upheaval, each case in a tenant of its own.
//! A case writes, lets the upheaval happen, and reads back, so that the same sentence is proven for
//! data in memory, in its final place, and after a restart or a crash.
//!
//! The declared difference between backends, whose sample stays when two with other bits meet at the same
//! series and time, is asked of the backend too ([`Backend::settles`]).

mod counts;
mod views;

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    AppendPolicy, Appended, BatchExemplar, BatchHistogram, BatchSample, Changed, DocumentKind, Granted,
    HistogramSample, LabelsRequest, OnConflict, RejectReason, Runs, SampleKind, SelectRequest, Selected,
    SeriesRoom, SeriesSamples, Storage, StorageError, WriteBatch,
};
use crate::model::{
    Exemplar, Histogram, Labels, Limit, MatchOp, Matcher, Metadata, MetricType, Millis, OverLimit,
    STALE_NAN_BITS, TenantId, TimeRange, Timestamp,
    histogram::{CUSTOM_BUCKETS_SCHEMA, Counts, ResetHint, Span},
    stale_nan,
};

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

use counts::{
    a_limit_gives_the_first, a_narrowed_view_shows_less_and_never_more,
    an_estimate_has_all_series_and_no_fewer_samples, values_are_shown_until_enough_was_seen,
};
use views::{
    a_filtered_delete_hides_what_is_shown, filters_show_what_one_of_them_matches, several_tenants_are_one,
    several_tenants_have_their_bounds_together,
};

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        impl Subject<'_> {
            async fn run_all(&mut self) {
                $(
                    self.tenant = TenantId::new(stringify!($case)).expect("a case's name is a tenant's");
                    tracing::info!(case = stringify!($case), upheaval = ?self.upheaval, "conformance");
                    $case(self).await;
                )*
            }
        }
    };
}

cases![
    floats_come_back_to_the_bit,
    series_come_sorted_however_they_were_written,
    samples_come_sorted_however_they_were_written,
    a_range_includes_both_ends,
    every_kind_of_matcher_selects,
    a_duplicate_is_a_success_and_stored_once,
    a_conflict_is_settled,
    a_conflict_is_rejected_if_asked,
    out_of_order_is_bounded_if_asked,
    what_is_too_old_is_rejected_and_the_rest_is_kept,
    histograms_come_back_to_the_bit,
    a_series_has_one_sample_at_a_time,
    start_timestamps_come_back,
    exemplars_are_found,
    metadata_is_found_and_replaced,
    label_names_and_values_are_those_of_matching_series,
    tenants_do_not_see_each_other,
    what_is_deleted_is_hidden_even_if_written_again,
    cleaned_tombstones_let_new_samples_in,
    what_changes_is_told,
    too_many_series_is_an_error,
    cardinality_counts_series,
    filters_show_what_one_of_them_matches,
    a_filtered_delete_hides_what_is_shown,
    several_tenants_are_one,
    several_tenants_have_their_bounds_together,
    a_narrowed_view_shows_less_and_never_more,
    an_estimate_has_all_series_and_no_fewer_samples,
    values_are_shown_until_enough_was_seen,
    a_limit_gives_the_first,
    many_series_over_many_days_come_back,
    a_document_is_kept_and_replaced_and_removed,
    documents_are_put_at_once_and_one_is_left,
    active_series_are_bounded_and_those_that_are_there_keep_flowing,
    series_that_begin_are_bounded,
    writers_at_the_same_time_do_not_begin_too_many,
];

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

async fn floats_come_back_to_the_bit(s: &mut Subject<'_>) {
    let odd = [
        0.0,
        -0.0,
        1.0,
        0.1,
        -1e300,
        5e-324,
        f64::MAX,
        f64::MIN_POSITIVE,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        stale_nan(),
        f64::from_bits(0x7ff8_dead_beef_0001),
        f64::from_bits(0xfff0_0000_0000_0001),
        123_456_789.123_456_79,
        9_007_199_254_740_993.0,
    ];
    let series = labels(&[("__name__", "odd"), ("job", "x")]);
    let samples: Vec<(i64, f64)> = (0..).zip(odd).map(|(i, v)| (ago(1000) + i * 15_000 + i % 3, v)).collect();
    s.write(&series, &samples).await;
    s.settle().await;
    let all = s.everything().await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].0, series);
    assert_eq!(pairs(&all[0].1), bits(&samples));
    assert_eq!(all[0].1.values[11].to_bits(), STALE_NAN_BITS);
}

async fn series_come_sorted_however_they_were_written(s: &mut Subject<'_>) {
    let mut all = Vec::new();
    for i in [5, 3, 9, 1, 7] {
        let series = labels(&[("__name__", &format!("m{}", i % 3)), ("i", &i.to_string())]);
        s.write(&series, &[(ago(60), f64::from(i))]).await;
        all.push(series);
    }
    all.sort();
    s.settle().await;
    let found: Vec<Labels> = s.everything().await.into_iter().map(|(l, _)| l).collect();
    assert_eq!(found, all);
}

async fn samples_come_sorted_however_they_were_written(s: &mut Subject<'_>) {
    let series = labels(&[("__name__", "late")]);
    s.write(&series, &[(ago(10), 10.0), (ago(30), 30.0)]).await;
    s.write(&series, &[(ago(20), 20.0)]).await;
    s.settle().await;
    s.write(&series, &[(ago(25), 25.0), (ago(5), 5.0), (ago(3 * 86_400), 3.0)]).await;
    s.settle().await;
    let all = s.everything().await;
    let expect = [
        (ago(3 * 86_400), 3.0),
        (ago(30), 30.0),
        (ago(25), 25.0),
        (ago(20), 20.0),
        (ago(10), 10.0),
        (ago(5), 5.0),
    ];
    assert_eq!(pairs(&all[0].1), bits(&expect));
}

async fn a_range_includes_both_ends(s: &mut Subject<'_>) {
    let series = labels(&[("__name__", "r")]);
    let samples: Vec<(i64, f64)> = (0..100).map(|i| (ago(1000) + i * 1000, 1.0)).collect();
    s.write(&series, &samples).await;
    s.settle().await;
    let found = s.select(&[], range(samples[10].0, samples[20].0)).await;
    assert_eq!(pairs(&found[0].1), bits(&samples[10..=20]));
    let found = s.select(&[], range(samples[10].0 + 1, samples[20].0 - 1)).await;
    assert_eq!(pairs(&found[0].1), bits(&samples[11..20]));
    assert_eq!(s.select(&[], range(0, samples[0].0 - 1)).await, vec![]);
}

async fn every_kind_of_matcher_selects(s: &mut Subject<'_>) {
    let all: Vec<Labels> = [
        vec![("__name__", "http"), ("code", "200"), ("job", "api")],
        vec![("__name__", "http"), ("code", "404"), ("job", "api")],
        vec![("__name__", "http"), ("code", "500"), ("job", "web")],
        vec![("__name__", "http"), ("job", "web")],
        vec![("__name__", "up"), ("job", "api")],
    ]
    .iter()
    .map(|pairs| labels(pairs))
    .collect();
    for series in &all {
        s.write(series, &[(ago(60), 1.0)]).await;
    }
    s.settle().await;
    use MatchOp::{Equal, Matches, NotEqual, NotMatches};
    /// Matchers, and which of the series they find.
    type Case = (&'static [(MatchOp, &'static str, &'static str)], &'static [usize]);
    let cases: &[Case] = &[
        (&[(Equal, "__name__", "http")], &[0, 1, 2, 3]),
        (&[(Equal, "__name__", "http"), (Equal, "code", "200")], &[0]),
        (&[(Equal, "code", "")], &[3, 4]),
        (&[(NotEqual, "code", "")], &[0, 1, 2]),
        (&[(NotEqual, "code", "200")], &[1, 2, 3, 4]),
        (&[(Matches, "code", "4..|5..")], &[1, 2]),
        (&[(Matches, "code", "200|404")], &[0, 1]),
        (&[(Matches, "code", "2.*")], &[0]),
        (&[(Matches, "code", ".*")], &[0, 1, 2, 3, 4]),
        (&[(Matches, "code", ".+")], &[0, 1, 2]),
        (&[(Matches, "code", "|500")], &[2, 3, 4]),
        (&[(NotMatches, "code", "2.*")], &[1, 2, 3, 4]),
        (&[(NotMatches, "code", ".+")], &[3, 4]),
        (&[(NotMatches, "code", "200|")], &[1, 2]),
        (&[(Equal, "job", "api"), (NotMatches, "__name__", "h.*")], &[4]),
        (&[(Equal, "job", "nobody")], &[]),
        (&[(Equal, "nothing", "x")], &[]),
        (&[(NotEqual, "nothing", "x")], &[0, 1, 2, 3, 4]),
    ];
    for (matchers, expect) in cases {
        let matchers: Vec<Matcher> =
            matchers.iter().map(|(op, name, value)| matcher(*op, name, value)).collect();
        let mut expect: Vec<Labels> = expect.iter().map(|i| all[*i].clone()).collect();
        expect.sort();
        let found: Vec<Labels> =
            s.select(&matchers, TimeRange::ALL).await.into_iter().map(|(l, _)| l).collect();
        assert_eq!(found, expect, "{matchers:?}");
        let request = LabelsRequest { matchers: vec![matchers.clone()], range: TimeRange::ALL, limit: 0 };
        let found = s.store.series(&s.tenant, request).await.expect("series are answered");
        assert_eq!(found, expect, "series {matchers:?}");
    }
}

async fn a_duplicate_is_a_success_and_stored_once(s: &mut Subject<'_>) {
    let series = labels(&[("__name__", "twice")]);
    let samples = [(ago(60), 1.5), (ago(45), f64::NAN), (ago(30), stale_nan())];
    s.write(&series, &samples).await;
    s.write(&series, &samples).await;
    s.settle().await;
    s.write(&series, &samples).await;
    s.settle().await;
    let all = s.everything().await;
    assert_eq!(pairs(&all[0].1), bits(&samples));
}

async fn a_conflict_is_settled(s: &mut Subject<'_>) {
    let series = labels(&[("__name__", "conflict")]);
    s.write(&series, &[(ago(60), 2.0), (ago(45), 1.0), (ago(30), 7.0)]).await;
    s.settle().await;
    s.write(&series, &[(ago(60), 1.0), (ago(45), 2.0), (ago(30), stale_nan())]).await;
    s.settle().await;
    let expect = match s.backend.settles() {
        Settles::Last => [(ago(60), 1.0), (ago(45), 2.0), (ago(30), stale_nan())],
        Settles::Greatest => [(ago(60), 2.0), (ago(45), 2.0), (ago(30), 7.0)],
    };
    let all = s.everything().await;
    assert_eq!(pairs(&all[0].1), bits(&expect));
}

async fn a_conflict_is_rejected_if_asked(s: &mut Subject<'_>) {
    if s.backend.settles() == Settles::Greatest {
        // Such a backend refuses the policy when it is configured.
        return;
    }
    let series = labels(&[("__name__", "first")]);
    s.write(&series, &[(ago(60), 2.0)]).await;
    s.settle().await;
    let mut batch = floats(&series, &[(ago(60), 3.0), (ago(60), 2.0), (ago(50), 4.0)]);
    batch.policy = AppendPolicy { on_conflict: OnConflict::Reject, out_of_order_window: None };
    let appended = s.append(batch).await;
    assert_eq!(appended.samples, 2);
    assert_eq!(appended.rejected.len(), 1);
    assert_eq!(appended.rejected[0].reason, RejectReason::Conflict);
    s.settle().await;
    let all = s.everything().await;
    assert_eq!(pairs(&all[0].1), bits(&[(ago(60), 2.0), (ago(50), 4.0)]));
}

async fn out_of_order_is_bounded_if_asked(s: &mut Subject<'_>) {
    let series = labels(&[("__name__", "window")]);
    s.write(&series, &[(ago(60), 1.0)]).await;
    let mut batch = floats(&series, &[(ago(120), 2.0), (ago(121), 3.0), (ago(60), 1.0)]);
    batch.policy = AppendPolicy { out_of_order_window: Some(Millis(60_000)), ..AppendPolicy::default() };
    let appended = s.append(batch).await;
    assert_eq!(appended.samples, 2);
    assert_eq!(appended.rejected.len(), 1);
    assert_eq!(appended.rejected[0].reason, RejectReason::OutOfOrder);
    assert_eq!(appended.rejected[0].timestamp, Timestamp(ago(121)));
    s.settle().await;
    let all = s.everything().await;
    assert_eq!(pairs(&all[0].1), bits(&[(ago(120), 2.0), (ago(60), 1.0)]));
}

async fn what_is_too_old_is_rejected_and_the_rest_is_kept(s: &mut Subject<'_>) {
    let series = labels(&[("__name__", "old")]);
    let day = 86_400;
    let appended =
        s.append(floats(&series, &[(ago(40 * day), 1.0), (ago(9 * day), 2.0), (i64::MIN, 3.0)])).await;
    assert_eq!(appended.samples, 1);
    assert_eq!(appended.rejected.len(), 2);
    for rejected in &appended.rejected {
        assert_eq!((rejected.kind, rejected.reason), (SampleKind::Float, RejectReason::TooOld));
    }
    s.settle().await;
    let all = s.everything().await;
    assert_eq!(pairs(&all[0].1), bits(&[(ago(9 * day), 2.0)]));
}

fn histogram_examples() -> Vec<Histogram> {
    let span = |offset, length| Span { offset, length };
    let integer = Histogram {
        schema: 3,
        zero_threshold: 1e-128,
        sum: 18.4,
        reset_hint: ResetHint::Unknown,
        positive_spans: vec![span(0, 2), span(1, 2)],
        negative_spans: vec![span(-3, 1)],
        counts: Counts::Integer { count: 21, zero_count: 2, positive: vec![1, 1, -1, 7], negative: vec![3] },
        custom_values: vec![],
    };
    let float = Histogram {
        schema: -4,
        reset_hint: ResetHint::Gauge,
        sum: f64::NAN,
        negative_spans: vec![],
        positive_spans: vec![span(i32::MAX, 1)],
        counts: Counts::Float { count: 0.5, zero_count: -0.0, positive: vec![0.5], negative: vec![] },
        ..integer.clone()
    };
    let custom = Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        zero_threshold: 0.0,
        sum: -3.0,
        reset_hint: ResetHint::Yes,
        positive_spans: vec![span(0, 3)],
        negative_spans: vec![],
        counts: Counts::Integer { count: 6, zero_count: 0, positive: vec![1, 1, 1], negative: vec![] },
        custom_values: vec![0.1, 0.5],
    };
    let stale = Histogram {
        schema: 0,
        zero_threshold: 0.0,
        sum: stale_nan(),
        reset_hint: ResetHint::No,
        positive_spans: vec![],
        negative_spans: vec![],
        counts: Counts::Integer { count: 0, zero_count: 0, positive: vec![], negative: vec![] },
        custom_values: vec![],
    };
    vec![integer, float, custom, stale]
}

fn histograms(labels: &Labels, samples: &[(i64, Histogram)]) -> WriteBatch {
    let mut batch = WriteBatch::over(vec![labels.clone()]);
    let sample = |(at, histogram): &(i64, Histogram)| BatchHistogram {
        series: 0,
        timestamp: Timestamp(*at),
        histogram: Arc::new(histogram.clone()),
        start: at - 500,
    };
    batch.histograms = samples.iter().map(sample).collect();
    batch
}

fn assert_same_histograms(found: &[HistogramSample], expect: &[(i64, Histogram)]) {
    assert_eq!(found.len(), expect.len());
    for (found, (at, histogram)) in found.iter().zip(expect) {
        assert_eq!((found.timestamp, found.start), (*at, at - 500));
        assert!(found.histogram.same_bits(histogram), "{:?} is not {histogram:?}", found.histogram);
    }
}

async fn histograms_come_back_to_the_bit(s: &mut Subject<'_>) {
    let series = labels(&[("__name__", "native")]);
    let samples: Vec<(i64, Histogram)> =
        (0..).zip(histogram_examples()).map(|(i, h)| (ago(600) + i * 15_000, h)).collect();
    let (early, late) = samples.split_at(2);
    assert_eq!(s.append(histograms(&series, late)).await.histograms, 2);
    s.settle().await;
    assert_eq!(s.append(histograms(&series, early)).await.histograms, 2);
    assert_eq!(s.append(histograms(&series, early)).await.histograms, 2);
    s.settle().await;
    let all = s.everything().await;
    assert_eq!(all.len(), 1);
    assert_same_histograms(&all[0].1.histograms, &samples);
}

async fn a_series_has_one_sample_at_a_time(s: &mut Subject<'_>) {
    if s.backend.settles() == Settles::Greatest {
        return;
    }
    let series = labels(&[("__name__", "mixed")]);
    let example = histogram_examples().remove(0);
    s.write(&series, &[(ago(60), 1.0), (ago(45), 2.0)]).await;
    s.append(histograms(&series, &[(ago(60), example.clone()), (ago(30), example.clone())])).await;
    s.settle().await;
    s.write(&series, &[(ago(30), 3.0)]).await;
    s.settle().await;
    let all = s.everything().await;
    assert_eq!(pairs(&all[0].1), bits(&[(ago(45), 2.0), (ago(30), 3.0)]));
    assert_same_histograms(&all[0].1.histograms, &[(ago(60), example)]);
}

async fn start_timestamps_come_back(s: &mut Subject<'_>) {
    let series = labels(&[("__name__", "started_total")]);
    let mut batch = floats(&series, &[(ago(60), 1.0), (ago(45), 2.0), (ago(30), 3.0), (ago(15), 4.0)]);
    batch.samples[1].start = ago(90);
    batch.samples[2].start = ago(90);
    batch.samples[3].start = ago(31);
    assert_eq!(s.append(batch).await.samples, 4);
    s.settle().await;
    let all = s.everything().await;
    let starts: Vec<i64> = (0..4).map(|i| all[0].1.start(i)).collect();
    assert_eq!(starts, [0, ago(90), ago(90), ago(31)]);
}

async fn exemplars_are_found(s: &mut Subject<'_>) {
    let series = labels(&[("__name__", "traced_total"), ("job", "a")]);
    let mut batch = floats(&series, &[(ago(60), 1.0)]);
    let exemplar = |at: i64, trace: &str| Exemplar {
        labels: labels(&[("trace_id", trace)]),
        value: 0.25,
        timestamp: Timestamp(at),
    };
    let all = [exemplar(ago(62), "a"), exemplar(ago(61), "b"), exemplar(ago(50), "c")];
    batch.exemplars = all.iter().cloned().map(|exemplar| BatchExemplar { series: 0, exemplar }).collect();
    assert_eq!(s.append(batch.clone()).await.exemplars, 3);
    assert_eq!(s.append(batch).await.exemplars, 3);
    s.settle().await;
    let find = async |matchers: Vec<Matcher>, range| {
        s.store.exemplars(&s.tenant, vec![matchers], range).await.expect("exemplars are answered")
    };
    let found = find(vec![Matcher::equal("job", "a")], TimeRange::ALL).await;
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].series, &found[0].exemplars[..]), (&series, &all[..]));
    let found = find(vec![Matcher::equal("job", "a")], range(ago(61), ago(51))).await;
    assert_eq!(found[0].exemplars, all[1..2]);
    assert_eq!(find(vec![Matcher::equal("job", "b")], TimeRange::ALL).await, vec![]);
}

async fn metadata_is_found_and_replaced(s: &mut Subject<'_>) {
    let metadata = |metric: &str, kind, help: &str| Metadata {
        metric: metric.to_owned(),
        kind,
        help: help.to_owned(),
        unit: "seconds".to_owned(),
    };
    let mut batch = WriteBatch::over(vec![]);
    batch.metadata =
        vec![metadata("b_total", MetricType::Counter, "old"), metadata("a", MetricType::Gauge, "ü")];
    assert_eq!(s.append(batch.clone()).await.metadata, 2);
    s.settle().await;
    batch.metadata = vec![metadata("b_total", MetricType::Counter, "new")];
    s.append(batch).await;
    s.settle().await;
    let all = s.store.metadata(&s.tenant, None).await.expect("metadata is answered");
    assert_eq!(all, [metadata("a", MetricType::Gauge, "ü"), metadata("b_total", MetricType::Counter, "new")]);
    let one = s.store.metadata(&s.tenant, Some("a")).await.expect("metadata is answered");
    assert_eq!(one.len(), 1);
    assert_eq!(s.store.metadata(&s.tenant, Some("c")).await.expect("metadata is answered"), vec![]);
}

async fn label_names_and_values_are_those_of_matching_series(s: &mut Subject<'_>) {
    s.write(&labels(&[("__name__", "a"), ("x", "2"), ("温度", "é")]), &[(ago(60), 1.0)]).await;
    s.write(&labels(&[("__name__", "a"), ("x", "10")]), &[(ago(60), 1.0)]).await;
    s.settle().await;
    s.write(&labels(&[("__name__", "b"), ("y", "1")]), &[(ago(60), 1.0)]).await;
    assert_eq!(s.label_names(&[]).await, ["__name__", "x", "y", "温度"]);
    assert_eq!(s.label_names(&[Matcher::equal("__name__", "b")]).await, ["__name__", "y"]);
    assert_eq!(s.label_values("x", &[]).await, ["10", "2"]);
    assert_eq!(s.label_values("温度", &[]).await, ["é"]);
    assert_eq!(s.label_values("x", &[Matcher::equal("温度", "é")]).await, ["2"]);
    assert_eq!(s.label_values("nothing", &[]).await, Vec::<String>::new());
    let request = LabelsRequest { matchers: vec![], range: TimeRange::ALL, limit: 2 };
    let limited = s.store.label_names(&s.tenant, request).await.expect("label names are answered");
    assert_eq!(limited, ["__name__", "x"]);
    let sets = vec![vec![Matcher::equal("y", "1")], vec![Matcher::equal("x", "2")]];
    let request = LabelsRequest { matchers: sets, range: TimeRange::ALL, limit: 0 };
    let union = s.store.series(&s.tenant, request).await.expect("series are answered");
    assert_eq!(union.len(), 2);
}

async fn tenants_do_not_see_each_other(s: &mut Subject<'_>) {
    let other = TenantId::new("somebody-else").expect("a valid name");
    let series = labels(&[("__name__", "shared"), ("secret", "mine")]);
    s.write(&series, &[(ago(60), 1.0)]).await;
    let mut batch = floats(&labels(&[("__name__", "shared"), ("secret", "theirs")]), &[(ago(60), 2.0)]);
    batch.metadata = vec![Metadata {
        metric: "shared".to_owned(),
        kind: MetricType::Gauge,
        help: "theirs".to_owned(),
        unit: String::new(),
    }];
    s.store.append(&other, batch).await.expect("the store takes a batch");
    s.settle().await;
    assert_eq!(s.everything().await.into_iter().map(|(l, _)| l).collect::<Vec<_>>(), [series]);
    assert_eq!(s.label_values("secret", &[]).await, ["mine"]);
    assert_eq!(s.store.metadata(&s.tenant, None).await.expect("metadata is answered"), vec![]);
    let nobody = TenantId::new("nobody").expect("a valid name");
    let found = read_all(s.store.as_ref(), &nobody, SelectRequest::new(vec![], TimeRange::ALL)).await;
    assert_eq!(found, vec![]);
    s.store.delete(&other, vec![], TimeRange::ALL).await.expect("a delete is taken");
    assert_eq!(s.everything().await.len(), 1);
}

async fn what_is_deleted_is_hidden_even_if_written_again(s: &mut Subject<'_>) {
    let (gone, kept) = (labels(&[("__name__", "d"), ("i", "1")]), labels(&[("__name__", "d"), ("i", "2")]));
    let samples: Vec<(i64, f64)> = (0..10).map(|i| (ago(100) + i * 1000, 1.0)).collect();
    s.write(&gone, &samples).await;
    s.write(&kept, &samples).await;
    s.settle().await;
    let hide = range(samples[2].0, samples[5].0);
    s.store.delete(&s.tenant, vec![vec![Matcher::equal("i", "1")]], hide).await.expect("a delete is taken");
    s.settle().await;
    s.write(&gone, &[samples[3]]).await;
    let all = s.everything().await;
    let rest: Vec<(i64, f64)> =
        samples.iter().copied().filter(|(at, _)| !hide.contains(Timestamp(*at))).collect();
    assert_eq!(pairs(&all[0].1), bits(&rest));
    assert_eq!(pairs(&all[1].1), bits(&samples));
    s.store
        .delete(&s.tenant, vec![vec![Matcher::equal("i", "1")]], TimeRange::ALL)
        .await
        .expect("a delete is taken");
    s.settle().await;
    assert_eq!(s.label_values("i", &[]).await, ["2"]);
    assert_eq!(s.everything().await.len(), 1);
}

async fn what_changes_is_told(s: &mut Subject<'_>) {
    let series = labels(&[("__name__", "changing")]);
    let changes =
        async |tenant: &TenantId| s.store.changes(tenant, TimeRange::ALL).await.expect("changes are told");
    let other = TenantId::new("changes_nothing").expect("a tenant");
    let (Some(mut before), Some(others)) = (changes(&s.tenant).await, changes(&other).await) else {
        // Nobody can tell, and nothing is made of it.
        return;
    };
    // What has grown old may go at any time, with or without us.
    let aged = |change: &Changed| change.range.start() == Timestamp::MIN && change.range != TimeRange::ALL;
    let at = ago(3_600);
    for turn in 0..4 {
        match turn {
            0 => s.write(&series, &[(at, 1.0)]).await,
            1 => s.write(&series, &[(at + 1_000, 2.0)]).await,
            2 => {
                let hide = range(at, at + 500);
                s.store.delete(&s.tenant, vec![vec![]], hide).await.expect("a delete is taken");
            }
            _ => s.store.clean_tombstones(&s.tenant).await.expect("tombstones are cleaned"),
        }
        let after = changes(&s.tenant).await.expect("who can tell once can tell again");
        let later = |at: i64| {
            let is_later = |c: &&Changed| c.at > before.now && !aged(c) && c.range.contains(Timestamp(at));
            after.changed.iter().any(|change| is_later(&change))
        };
        assert!(later(at), "turn {turn}");
        assert!(turn == 3 || !later(at + 600_000), "turn {turn}");
        before = after;
    }
    let since = changes(&other).await.expect("who can tell once can tell again");
    assert!(
        since.changed.iter().all(|change| aged(change) || change.at <= others.now),
        "it is another tenant's"
    );
    let elsewhere = s.store.changes(&s.tenant, range(at + 600_000, at + 700_000)).await;
    let elsewhere = elsewhere.expect("changes are told").expect("who can tell once can tell again");
    assert!(elsewhere.changed.iter().all(|change| aged(change) || change.range == TimeRange::ALL));
}

async fn cleaned_tombstones_let_new_samples_in(s: &mut Subject<'_>) {
    let series = labels(&[("__name__", "clean")]);
    s.write(&series, &[(ago(60), 1.0), (ago(45), 2.0)]).await;
    s.settle().await;
    s.store.delete(&s.tenant, vec![], range(ago(60), ago(50))).await.expect("a delete is taken");
    s.store.clean_tombstones(&s.tenant).await.expect("tombstones are cleaned");
    s.settle().await;
    assert_eq!(pairs(&s.everything().await[0].1), bits(&[(ago(45), 2.0)]));
    s.write(&series, &[(ago(60), 3.0)]).await;
    s.settle().await;
    assert_eq!(pairs(&s.everything().await[0].1), bits(&[(ago(60), 3.0), (ago(45), 2.0)]));
}

async fn too_many_series_is_an_error(s: &mut Subject<'_>) {
    for i in 0..3 {
        s.write(&labels(&[("__name__", "many"), ("i", &i.to_string())]), &[(ago(60), 1.0)]).await;
    }
    s.settle().await;
    let mut request = SelectRequest::new(vec![], TimeRange::ALL);
    request.max_series = Some(3);
    assert_eq!(read_all(s.store.as_ref(), &s.tenant, request.clone()).await.len(), 3);
    request.max_label_bytes = Some(1 << 20);
    assert_eq!(read_all(s.store.as_ref(), &s.tenant, request.clone()).await.len(), 3);
    request.max_label_bytes = Some(10);
    let error = s.store.select(&s.tenant, request.clone()).await.expect_err("ten bytes are not enough");
    assert!(matches!(error, StorageError::TooManyLabelBytes { limit: 10 }), "{error}");
    request.max_label_bytes = None;
    request.max_series = Some(2);
    let error = s.store.select(&s.tenant, request).await.expect_err("three are more than two");
    assert_eq!(error.to_string(), "the query selects more than 2 series");
}

async fn cardinality_counts_series(s: &mut Subject<'_>) {
    for i in 0..4 {
        let series =
            labels(&[("__name__", if i == 0 { "a" } else { "b" }), ("i", &i.to_string()), ("job", "x")]);
        s.write(&series, &[(ago(60), 1.0)]).await;
    }
    let cardinality = s.store.cardinality(&s.tenant, vec![], 2).await.expect("cardinality is answered");
    assert_eq!(cardinality.series, 4);
    assert_eq!(cardinality.series_by_metric, [("b".to_owned(), 3), ("a".to_owned(), 1)]);
    assert_eq!(cardinality.values_by_label, [("i".to_owned(), 4), ("__name__".to_owned(), 2)]);
    assert_eq!(cardinality.series_by_pair, [("job=x".to_owned(), 4), ("__name__=b".to_owned(), 3)]);
}

async fn many_series_over_many_days_come_back(s: &mut Subject<'_>) {
    let all: Vec<Labels> = (0..300)
        .map(|i| labels(&[("__name__", "bulk"), ("i", &format!("{i:03}")), ("odd", ["", "y"][i % 2])]))
        .collect();
    let value = |series: usize, i: i64| (i * i % 1009) as f64 / 8.0 + series as f64;
    let time = |i: i64| ago(4 * 86_400) + i * 601_003;
    for day in 0..4_i64 {
        let mut batch = WriteBatch::over(all.clone());
        for i in day * 143..(day + 1) * 143 {
            for series in 0..all.len() {
                let ordinal = u32::try_from(series).expect("300 fit");
                let (timestamp, value) = (Timestamp(time(i)), value(series, i));
                batch.samples.push(BatchSample { series: ordinal, timestamp, value, start: 0 });
            }
        }
        let appended = s.append(batch).await;
        assert_eq!((appended.samples, appended.rejected.len()), (143 * 300, 0));
        if day == 1 {
            s.settle().await;
        }
    }
    s.settle().await;
    let found = s.everything().await;
    assert_eq!(found.len(), all.len());
    for (series, (labels, samples)) in found.iter().enumerate() {
        assert_eq!(labels, &all[series]);
        let expect: Vec<(i64, f64)> = (0..4 * 143).map(|i| (time(i), value(series, i))).collect();
        assert_eq!(pairs(samples), bits(&expect), "{labels}");
    }
    let some = s
        .select(&[Matcher::equal("odd", "y"), Matcher::equal("i", "007")], range(time(100), time(400)))
        .await;
    assert_eq!(some.len(), 1);
    assert_eq!(some[0].1.len(), 301);
}

impl Subject<'_> {
    /// A tenant named after the running case.
    fn tenant_named(&self, name: &str) -> TenantId {
        TenantId::new(&format!("{}-{name}", self.tenant)).expect("a case's name is a tenant's")
    }

    async fn put_document(&self, tenant: &TenantId, text: Option<&str>) {
        let put = self.store.put_document(tenant, DocumentKind::Limits, text.map(str::to_owned));
        put.await.expect("a document is kept");
    }

    /// The documents of this case's tenants, those of other cases left out.
    async fn documents(&self) -> Vec<(TenantId, String)> {
        let mut all = self.store.documents(DocumentKind::Limits).await.expect("documents are answered");
        assert!(all.is_sorted_by(|a, b| a.0 < b.0), "documents come by tenant");
        all.retain(|(tenant, _)| tenant.as_str().starts_with(self.tenant.as_str()));
        all
    }
}

async fn a_document_is_kept_and_replaced_and_removed(s: &mut Subject<'_>) {
    let (a, b) = (s.tenant_named("a"), s.tenant_named("b.(*)!'"));
    let pair = |tenant: &TenantId, text: &str| (tenant.clone(), text.to_owned());
    assert_eq!(s.documents().await, []);
    s.put_document(&a, None).await;
    let odd = "{\"é\": \"' \\\\ \\n\t\0\n\"}";
    s.put_document(&b, Some(odd)).await;
    s.put_document(&a, Some("1")).await;
    s.settle().await;
    assert_eq!(s.documents().await, [pair(&a, "1"), pair(&b, odd)]);
    // Back to what it was before: no memory of having been written takes it for a repetition.
    for text in ["2", "1", "2"] {
        s.put_document(&a, Some(text)).await;
    }
    s.put_document(&b, None).await;
    s.settle().await;
    assert_eq!(s.documents().await, [pair(&a, "2")]);
    s.put_document(&b, Some("")).await;
    let long = "x".repeat(1 << 20);
    s.put_document(&a, Some(&long)).await;
    s.settle().await;
    assert_eq!(s.documents().await, [pair(&a, &long), pair(&b, "")]);
    s.put_document(&a, None).await;
    s.put_document(&b, None).await;
    s.settle().await;
    assert_eq!(s.documents().await, []);
}

async fn documents_are_put_at_once_and_one_is_left(s: &mut Subject<'_>) {
    let (contested, texts) = (s.tenant_named("contested"), ["1", "2", "3", "4", "5", "6", "7", "8"]);
    let own: Vec<TenantId> = texts.iter().map(|text| s.tenant_named(text)).collect();
    let puts = own.iter().zip(texts).map(|(own, text)| async {
        s.put_document(own, Some(text)).await;
        s.put_document(&contested, Some(text)).await;
    });
    futures_util::future::join_all(puts).await;
    s.settle().await;
    let mut left = s.documents().await;
    let at = left.iter().position(|(tenant, _)| *tenant == contested).expect("one of them was kept");
    let (_, text) = left.remove(at);
    assert!(texts.contains(&text.as_str()), "{text}");
    let all: Vec<(TenantId, String)> = own.into_iter().zip(texts.map(str::to_owned)).collect();
    assert_eq!(left, all);
    s.settle().await;
    assert!(s.documents().await.contains(&(contested, text)), "it stays the one");
}

/// Bounds on the series of a case.
#[derive(Debug)]
pub(crate) struct Bounds {
    max_active: Option<u64>,
    left: parking_lot::Mutex<u64>,
}

impl Bounds {
    /// So many active ones, of which so many may begin.
    pub(crate) fn new(max_active: Option<u64>, may_begin: u64) -> Arc<Self> {
        Arc::new(Self { max_active, left: parking_lot::Mutex::new(may_begin) })
    }
}

#[async_trait]
impl SeriesRoom for Bounds {
    fn max_active(&self) -> Option<u64> {
        self.max_active
    }

    async fn begin(&self, wanted: u64) -> Granted {
        let mut left = self.left.lock();
        let series = wanted.min(*left);
        *left -= series;
        let over = OverLimit {
            limit: Limit::NewSeries,
            allowed: 1,
            asked: wanted,
            retry_after: Some(Duration::from_secs(1)),
            for_good: false,
        };
        Granted { series, over: (series < wanted).then_some(over) }
    }
}

fn numbered(number: usize) -> Labels {
    labels(&[("__name__", "bounded"), ("number", &number.to_string())])
}

/// A sample of each of some series, with bounds.
pub(crate) fn bounded(numbers: Range<usize>, at: i64, bounds: &Arc<Bounds>) -> WriteBatch {
    let series: Vec<Labels> = numbers.map(numbered).collect();
    let samples = (0..series.len()).map(|series| BatchSample {
        series: u32::try_from(series).expect("a case has few series"),
        timestamp: Timestamp(at),
        value: 1.0,
        start: 0,
    });
    let samples = samples.collect();
    WriteBatch { samples, room: Some(Arc::clone(bounds) as _), ..WriteBatch::over(series) }
}

/// The numbers of the refused series, each refused for this limit.
fn refused_for(limit: Limit, appended: &Appended) -> Vec<u32> {
    let reason = RejectReason::OverLimit(limit);
    assert!(appended.rejected.iter().all(|rejected| rejected.reason == reason), "{:?}", appended.rejected);
    let mut refused: Vec<u32> = appended.rejected.iter().map(|rejected| rejected.series).collect();
    refused.sort_unstable();
    refused
}

async fn active_series_are_bounded_and_those_that_are_there_keep_flowing(on: &mut Subject<'_>) {
    let bounds = Bounds::new(Some(10), u64::MAX);
    let minute = NOW.0 - 600_000;
    let first = on.append(bounded(0..6, minute, &bounds)).await;
    assert_eq!((first.samples, &first.rejected[..], &first.over[..]), (6, &[][..], &[][..]));
    on.settle().await;

    let mut batch = bounded(0..14, minute + 1_000, &bounds);
    batch.exemplars = (0..14).map(|series| exemplar_of(series, minute + 1_000)).collect();
    let second = on.append(batch).await;
    let refused = refused_for(Limit::ActiveSeries, &second);
    let (samples, exemplars) = (second.samples, second.exemplars);
    assert_eq!((samples, exemplars, refused.len()), (10, 10, 8), "four series, and their exemplars");
    assert!(refused.iter().all(|series| *series >= 6), "what was there flows: {refused:?}");
    let [over] = &second.over[..] else { panic!("{:?}", second.over) };
    assert_eq!((over.limit, over.allowed, over.asked, over.for_good), (Limit::ActiveSeries, 10, 14, false));
    assert!(over.retry_after.is_some());
    on.settle().await;

    let taken: Vec<usize> =
        (0..14_u32).filter(|number| !refused.contains(number)).map(|number| number as usize).collect();
    let third = on.append(bounded(0..14, minute + 2_000, &bounds)).await;
    assert_eq!(third.samples, 10);
    assert_eq!(refused_for(Limit::ActiveSeries, &third).len(), 4);
    let there = on.everything().await;
    let mut expected: Vec<Labels> = taken.into_iter().map(numbered).collect();
    expected.sort();
    assert_eq!(there.iter().map(|(labels, _)| labels.clone()).collect::<Vec<_>>(), expected);
    assert!(there.iter().all(|(_, samples)| samples.timestamps.contains(&(minute + 2_000))));

    // Others have room of their own, and without bounds there is no end.
    let other = TenantId::new("not_bounded_by_others").expect("a name");
    let free = on.store.append(&other, bounded(0..10, minute, &Bounds::new(Some(10), 10))).await;
    assert_eq!(free.expect("the store takes a batch").samples, 10);
    let batch = WriteBatch { room: None, ..bounded(0..20, minute + 3_000, &bounds) };
    assert_eq!(on.append(batch).await.samples, 20);
    let last = on.append(bounded(0..21, minute + 4_000, &bounds)).await;
    assert_eq!((last.samples, refused_for(Limit::ActiveSeries, &last)), (20, vec![20]));
}

async fn series_that_begin_are_bounded(on: &mut Subject<'_>) {
    let minute = NOW.0 - 600_000;
    let first = on.append(bounded(0..4, minute, &Bounds::new(None, 4))).await;
    assert_eq!((first.samples, first.over.len()), (4, 0));
    on.settle().await;
    // What is there costs nothing.
    let second = on.append(bounded(0..9, minute + 1_000, &Bounds::new(Some(100), 2))).await;
    let refused = refused_for(Limit::NewSeries, &second);
    assert_eq!((second.samples, refused.len(), second.over.len()), (6, 3, 1));
    assert!(refused.iter().all(|series| *series >= 4), "{refused:?}");
    assert_eq!(second.over[0].limit, Limit::NewSeries);
    on.settle().await;
    let third = on.append(bounded(0..9, minute + 2_000, &Bounds::new(None, 3))).await;
    assert_eq!((third.samples, third.over.len()), (9, 0));
}

async fn writers_at_the_same_time_do_not_begin_too_many(on: &mut Subject<'_>) {
    let bounds = Bounds::new(Some(25), u64::MAX);
    let minute = NOW.0 - 600_000;
    let writes = (0..8).map(|writer| {
        let batch = bounded(writer * 10..writer * 10 + 10, minute, &bounds);
        on.store.append(&on.tenant, batch)
    });
    let all = futures_util::future::try_join_all(writes).await.expect("the store takes batches");
    let (taken, refused): (Vec<u64>, Vec<u64>) =
        all.iter().map(|appended| (appended.samples, appended.rejected.len() as u64)).unzip();
    assert_eq!((taken.iter().sum::<u64>(), refused.iter().sum::<u64>()), (25, 55), "{taken:?}");
    on.settle().await;
    assert_eq!(on.everything().await.len(), 25);
}

fn exemplar_of(series: u32, at: i64) -> BatchExemplar {
    let exemplar = Exemplar { labels: labels(&[("trace_id", "x")]), value: 1.0, timestamp: Timestamp(at) };
    BatchExemplar { series, exemplar }
}
