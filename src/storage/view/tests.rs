//! What a view shows, and how what several tenants answer becomes one answer.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::*;
use crate::{
    clock::HandClock,
    model::{Millis, Timestamp},
    storage::{
        BatchSample, Grid, GridRow, ReadSeries, Run, Runs, SeriesSamples, WriteBatch, memory::MemoryStore,
    },
};

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn equal(name: &str, value: &str) -> Matcher {
    Matcher::equal(name, value)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

#[test]
fn a_view_is_the_same_however_it_was_said() {
    let of = |tenants: &[&str], filters: &[&[Matcher]]| {
        let tenants = tenants.iter().map(|name| tenant(name)).collect();
        View::new(tenants, filters.iter().map(|set| set.to_vec()).collect())
    };
    let (x, y) = (equal("x", "1"), equal("y", "2"));
    let one = of(&["a", "b"], &[&[x.clone(), y.clone()], std::slice::from_ref(&y)]).unwrap();
    let other = of(
        &["b", "a", "b"],
        &[std::slice::from_ref(&y), &[y.clone(), x.clone(), x.clone()], std::slice::from_ref(&y)],
    )
    .unwrap();
    assert_eq!(one, other);
    assert_eq!(one.digest(), other.digest());
    assert_eq!(of(&[], &[]), None);
    assert_eq!(View::of(tenant("a")), of(&["a"], &[]).unwrap());
}

#[test]
fn views_that_show_something_else_have_other_digests() {
    let views: Vec<View> = [
        (vec!["a"], vec![]),
        (vec!["b"], vec![]),
        (vec!["ab"], vec![]),
        (vec!["a", "b"], vec![]),
        (vec!["a"], vec![vec![]]),
        (vec!["a"], vec![vec![equal("x", "1")]]),
        (vec!["a"], vec![vec![equal("x", "12")]]),
        (vec!["a"], vec![vec![equal("x1", "2")]]),
        (vec!["a"], vec![vec![equal("x", "1"), equal("y", "2")]]),
        (vec!["a"], vec![vec![equal("x", "1")], vec![equal("y", "2")]]),
        (vec!["a"], vec![vec![Matcher::new(MatchOp::NotEqual, "x", "1").unwrap()]]),
        (vec!["a"], vec![vec![Matcher::new(MatchOp::Matches, "x", "1").unwrap()]]),
        (vec!["a"], vec![vec![Matcher::new(MatchOp::NotMatches, "x", "1").unwrap()]]),
    ]
    .into_iter()
    .map(|(tenants, filters)| View::new(tenants.into_iter().map(tenant).collect(), filters).unwrap())
    .collect();
    for (i, view) in views.iter().enumerate() {
        assert!(views[..i].iter().all(|other| other.digest() != view.digest()), "{view:?}");
    }
}

#[test]
fn a_narrowed_view_is_another_and_one_that_is_too_much_is_refused() {
    let view = View::new(vec![tenant("a")], vec![vec![equal("x", "1")]]).unwrap();
    assert_eq!(view.narrowed(&[]).unwrap(), view);
    assert!(!view.is_whole() && View::of(tenant("a")).is_whole());
    let narrowed = view.narrowed(&[vec![equal("y", "2")]]).unwrap();
    assert_ne!(narrowed.digest(), view.digest());
    // However it came about.
    let both = View::new(vec![tenant("a")], vec![vec![equal("x", "1"), equal("y", "2")]]).unwrap();
    assert_eq!(narrowed.digest(), both.digest());
    assert_eq!(narrowed.granted(), view.granted(), "it is who asks that was granted it");
    let of_two = View::new(vec![tenant("a"), tenant("b")], vec![]).unwrap();
    let one = |name: &str| of_two.narrowed(&[vec![equal("__tenant_id__", name)]]).unwrap();
    assert_ne!(one("a").digest(), one("b").digest());
    assert!(!one("a").is_whole());
    let many: MatcherSets = (0..11_000).map(|i| vec![equal("y", &i.to_string())]).collect();
    assert!(view.narrowed(&many).is_err());
}

#[tokio::test]
async fn selectors_and_filters_that_are_too_many_together_are_refused() {
    let store = MemoryStore::new(HandClock::at(Timestamp(0)), None);
    let filters = (0..100).map(|i| vec![equal("team", &i.to_string())]).collect();
    let view = View::new(vec![tenant("a")], filters).unwrap();
    let sets =
        |count: usize| -> MatcherSets { (0..count).map(|i| vec![equal("x", &i.to_string())]).collect() };
    let request = |count| LabelsRequest { matchers: sets(count), range: TimeRange::ALL, limit: 0 };
    assert!(view.series(&*store, request(20)).await.unwrap().is_empty());
    let refused = view.series(&*store, request(30)).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "30 selectors, each with the 100 filters of the caller, are too many matchers: 12000 of at most 10000"
    );
    assert!(view.label_names(&*store, request(30)).await.is_err());
    assert!(view.label_values(&*store, "x", request(30)).await.is_err());
    assert!(view.exemplars(&*store, sets(30), TimeRange::ALL).await.is_err());
    assert!(view.delete(&*store, sets(30), TimeRange::ALL).await.is_err());
    let many = SelectRequest::new(sets(100).concat(), TimeRange::ALL);
    assert!(view.select(&*store, many).await.is_err());
    // Without filters the selectors are as many as they may be elsewhere.
    assert!(View::of(tenant("a")).series(&*store, request(30)).await.is_ok());
}

#[tokio::test]
async fn metadata_is_of_the_metrics_that_show_and_of_no_others_like_them() {
    use crate::model::MetricType::{Counter, Gauge, Histogram, Unknown};
    let store = MemoryStore::new(HandClock::at(Timestamp(0)), None);
    let team = |name: &'static str| labels(&[("__name__", name), ("team", "a")]);
    let shown = ["requests_total", "latency_bucket", "up_total", "plain"].map(team);
    let hidden = ["up", "other_total"].map(|name| labels(&[("__name__", name), ("team", "b")]));
    let mut batch = WriteBatch::over(shown.into_iter().chain(hidden).collect());
    let sample = |series| BatchSample { series, timestamp: Timestamp(0), value: 1.0, start: 0 };
    batch.samples = (0..6).map(sample).collect();
    let about = [
        ("requests", Counter),
        ("latency", Histogram),
        // A gauge: `up_total` is another metric.
        ("up", Gauge),
        ("other", Counter),
        ("plain", Unknown),
        ("nobody", Counter),
    ];
    batch.metadata = about
        .map(|(metric, kind)| Metadata {
            metric: metric.to_owned(),
            kind,
            help: "help".to_owned(),
            unit: String::new(),
        })
        .to_vec();
    store.append(&tenant("a"), batch).await.unwrap();
    let view = View::new(vec![tenant("a")], vec![vec![equal("team", "a")]]).unwrap();
    let names = |all: Vec<Metadata>| all.into_iter().map(|entry| entry.metric).collect::<Vec<_>>();
    assert_eq!(names(view.metadata(&*store, None).await.unwrap()), ["latency", "plain", "requests"]);
    for (metric, _) in about {
        let there = ["latency", "plain", "requests"].contains(&metric);
        assert_eq!(view.metadata(&*store, Some(metric)).await.unwrap().len(), usize::from(there), "{metric}");
    }
}

/// Series `n` has the one sample `(n, n)`.
#[derive(Debug)]
struct Numbered;

impl ReadSeries for Numbered {
    fn read(&self, ordinal: usize, into: &mut SeriesSamples) -> Result<()> {
        let number = i64::try_from(ordinal).unwrap();
        into.push(number, f64::from(u32::try_from(ordinal).unwrap()), 0);
        Ok(())
    }

    fn warnings(&self) -> Vec<String> {
        vec!["read oddly".to_owned()]
    }
}

fn selected(series: &[&[(&str, &str)]], runs: Runs, taken: usize) -> Selected {
    let series = series.iter().map(|pairs| labels(pairs)).collect();
    Selected { series, runs, taken, warnings: vec!["odd".to_owned()] }
}

fn sent<T>(batches: Vec<Result<Vec<T>>>) -> mpsc::Receiver<Result<Vec<T>>> {
    let (send, receive) = mpsc::channel(batches.len().max(1));
    batches.into_iter().for_each(|batch| send.try_send(batch).ok().unwrap());
    receive
}

fn run(ordinal: u32, value: f64) -> Run {
    let mut samples = SeriesSamples::default();
    samples.push(1, value, 0);
    Run { ordinal, samples }
}

/// Sorts the other way round once the tenant's label is there.
const TWO: &[&[(&str, &str)]] = &[&[("__name__", "m")], &[("__name__", "m"), ("__a__", "x")]];

#[tokio::test]
async fn stores_that_answer_in_different_orders_are_put_together() {
    let (a, b) = (tenant("a"), tenant("b"));
    let in_time = Runs::TimeMajor(sent(vec![Ok(vec![run(0, 10.0), run(1, 11.0)]), Ok(vec![run(0, 12.0)])]));
    let all = [
        (&a, selected(&[&[("__name__", "n"), ("z", "1")], &[("__name__", "o")]], in_time, 0)),
        (
            &b,
            selected(&[&[("__name__", "m")], &[("__name__", "p")]], Runs::SeriesMajor(Arc::new(Numbered)), 0),
        ),
    ];
    let joined = runs::joined(all.into_iter()).unwrap();
    assert_eq!(joined.warnings, ["tenant a: odd", "tenant b: odd"]);
    let shown: Vec<String> = joined.series.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            r#"{__name__="m", __tenant_id__="b"}"#,
            r#"{__name__="n", __tenant_id__="a", z="1"}"#,
            r#"{__name__="o", __tenant_id__="a"}"#,
            r#"{__name__="p", __tenant_id__="b"}"#,
        ]
    );
    let Runs::TimeMajor(mut runs) = joined.runs else { panic!("one of them can only be read in time order") };
    let mut values = vec![Vec::new(); 4];
    while let Some(batch) = runs.recv().await {
        for run in batch.unwrap() {
            values[run.ordinal as usize].extend(run.samples.values);
        }
    }
    assert_eq!(values, [vec![0.0], vec![10.0, 12.0], vec![11.0], vec![1.0]]);
}

#[tokio::test]
async fn series_that_sort_elsewhere_keep_their_samples_and_rows() {
    let a = tenant("a");
    let direct = selected(TWO, Runs::SeriesMajor(Arc::new(Numbered)), 0);
    let joined = runs::joined([(&a, direct)].into_iter()).unwrap();
    assert_eq!(joined.series[0].get("__a__"), Some("x"));
    let Runs::SeriesMajor(reader) = joined.runs else { panic!("it can be read at any place") };
    let mut samples = SeriesSamples::default();
    reader.read(0, &mut samples).unwrap();
    assert_eq!(samples.values, [1.0]);
    assert!(reader.read(2, &mut samples).is_err());

    let rows = Runs::Rows(sent(vec![Ok(vec![
        GridRow { ordinal: 0, values: vec![7.0] },
        GridRow { ordinal: 1, values: vec![8.0] },
    ])]));
    let joined = runs::joined([(&a, selected(TWO, rows, 1))].into_iter()).unwrap();
    assert_eq!(joined.taken, 1);
    let Runs::Rows(mut rows) = joined.runs else { panic!("rows stay rows") };
    let mut rows = rows.recv().await.unwrap().unwrap();
    rows.sort_by_key(|row| row.ordinal);
    assert_eq!(rows[0].values, [8.0]);
    assert_eq!(rows[1].values, [7.0]);
}

#[tokio::test]
async fn what_fails_for_one_tenant_fails_for_all_and_says_so() {
    let (a, b) = (tenant("a"), tenant("b"));
    let broken = || StorageError::Unavailable { detail: "gone".to_owned(), retry_after: None };
    let cases = [
        sent(vec![Ok(vec![run(0, 1.0)]), Err(broken())]),
        // A run of a series that there is not.
        sent(vec![Ok(vec![run(9, 1.0)])]),
    ];
    for (case, error) in cases.into_iter().zip(["store is unavailable: gone", "there is no series number 9"])
    {
        let all = [
            (&a, selected(TWO, Runs::TimeMajor(case), 0)),
            (&b, selected(TWO, Runs::SeriesMajor(Arc::new(Numbered)), 0)),
        ];
        let Runs::TimeMajor(mut runs) = runs::joined(all.into_iter()).unwrap().runs else {
            panic!("in time order")
        };
        let mut failed = Vec::new();
        while let Some(batch) = runs.recv().await {
            failed.extend(batch.err().map(|error| error.to_string()));
        }
        assert_eq!(failed, [error]);
    }
    let uneven = [
        (&a, selected(TWO, Runs::Rows(sent(vec![])), 1)),
        (&b, selected(TWO, Runs::SeriesMajor(Arc::new(Numbered)), 0)),
    ];
    assert!(runs::joined(uneven.into_iter()).is_err());
}

#[tokio::test]
async fn nobody_who_is_ruled_out_is_asked() {
    let store = MemoryStore::new(HandClock::at(Timestamp(0)), None);
    let view = View::new(vec![tenant("a"), tenant("b")], vec![]).unwrap();
    let mut request = SelectRequest::new(vec![equal(TENANT_LABEL, "c")], TimeRange::ALL);
    request.grid = Some(Grid { start: Timestamp(0), end: Timestamp(1), step: Millis(1) });
    let selected = view.select(&*store, request).await.unwrap();
    assert!(selected.series.is_empty());
    assert!(matches!(selected.runs, Runs::SeriesMajor(_)));
}
