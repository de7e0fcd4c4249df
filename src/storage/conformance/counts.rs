//! What is told of samples and of names without giving all of them out.

use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

use parking_lot::Mutex;

use super::{
    Subject, ago, floats,
    histograms::{histogram_examples, histograms},
    labels, matcher, range, read_selected,
};
use crate::{
    model::{Labels, MatchOp, Matcher, TenantId, TimeRange},
    storage::{LabelsRequest, SelectRequest, Sift, View, selection::label_bytes},
};

/// Series of two metrics over three days: some of floats, one of histograms, one that is there twice.
async fn write_some(s: &mut Subject<'_>) -> Vec<Labels> {
    let mut all = Vec::new();
    for day in [2, 1, 0] {
        for i in 0..4_i64 {
            let name = if i % 2 == 0 { "even" } else { "odd" };
            let series =
                labels(&[("__name__", name), ("i", &i.to_string()), ("day", &(day % 2).to_string())]);
            let from = ago(day * 86_400 + 20_000);
            let samples: Vec<(i64, f64)> = (0..600).map(|k| (from + k * 15_000 + i, 1.0)).collect();
            s.write(&series, &samples).await;
            all.push(series);
        }
    }
    s.settle().await;
    let again = all[0].clone();
    let from = ago(2 * 86_400 + 20_000);
    s.write(&again, &(0..10).map(|k| (from + k * 15_000, 1.0)).collect::<Vec<_>>()).await;
    let native = labels(&[("__name__", "native")]);
    let samples: Vec<_> = (0..).zip(histogram_examples()).map(|(k, h)| (ago(100) + k * 1000, h)).collect();
    s.append(histograms(&native, &samples)).await;
    s.settle().await;
    all.push(native);
    all.sort();
    all.dedup();
    all
}

fn ranges() -> [TimeRange; 3] {
    [TimeRange::ALL, range(ago(86_400 + 18_000), ago(86_400 + 17_000)), range(ago(200), ago(0))]
}

fn selections() -> [Vec<Matcher>; 3] {
    [
        vec![],
        vec![matcher(MatchOp::Matches, "i", "[12]"), Matcher::equal("day", "0")],
        vec![Matcher::equal("__name__", "nobody")],
    ]
}

pub(super) async fn an_estimate_has_all_series_and_no_fewer_samples(s: &mut Subject<'_>) {
    write_some(s).await;
    let view = View::of(s.tenant.clone());
    let narrowed = view.narrowed(&[vec![Matcher::equal("day", "1")]]).expect("one is not too many");
    for view in [view, narrowed] {
        for matchers in selections() {
            for range in ranges() {
                // Of a narrowed view one range says enough.
                if !view.is_whole() && range != TimeRange::ALL {
                    continue;
                }
                let request = || SelectRequest::new(matchers.clone(), range);
                let estimate = view.estimate(s.store.as_ref(), request()).await.expect("an estimate");
                let selected = view.select(s.store.as_ref(), request()).await.expect("a selection");
                let what = format!("{matchers:?} {range:?} {view:?}: {estimate:?}");
                assert_eq!(estimate.series, selected.series.len() as u64, "{what}");
                assert_eq!(
                    estimate.label_bytes,
                    selected.series.iter().map(label_bytes).sum::<u64>(),
                    "{what}"
                );
                let (mut of_floats, mut of_histograms) = (0, 0);
                for (_, samples) in read_selected(selected).await {
                    of_floats += samples.timestamps.len() as u64;
                    of_histograms += samples.histograms.len() as u64;
                }
                // What was written again may lie in a second place.
                assert!(
                    of_floats <= estimate.floats && estimate.floats <= 2 * of_floats,
                    "{what}: {of_floats}"
                );
                let twice = 2 * of_histograms;
                assert!((of_histograms..=twice).contains(&estimate.histograms), "{what}: {of_histograms}");
                assert_eq!(estimate.histogram_bytes > 0, estimate.histograms > 0, "{what}");
            }
        }
    }
}

/// Keeps what it sees, and how often it was asked, until it has seen so many.
#[derive(Debug)]
struct Seen {
    most: usize,
    all: Mutex<(BTreeSet<String>, usize)>,
}

impl Seen {
    fn up_to(most: usize) -> Arc<Self> {
        Arc::new(Self { most, all: Mutex::default() })
    }
}

impl Sift for Seen {
    fn see(&self, text: &str) -> ControlFlow<()> {
        let (all, asked) = &mut *self.all.lock();
        all.insert(text.to_owned());
        *asked += 1;
        if all.len() >= self.most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

pub(super) async fn values_are_shown_until_enough_was_seen(s: &mut Subject<'_>) {
    write_some(s).await;
    let view = View::of(s.tenant.clone());
    for matchers in selections() {
        for range in &ranges()[..2] {
            let range = *range;
            for name in ["__name__", "i"] {
                let request = || LabelsRequest { matchers: vec![matchers.clone()], range, limit: 0 };
                let values = view.label_values(s.store.as_ref(), name, request()).await.expect("values");
                let seen = Seen::up_to(usize::MAX);
                let sift = Arc::clone(&seen) as Arc<dyn Sift>;
                view.sift_label_values(s.store.as_ref(), name, request(), sift).await.expect("shown");
                let shown: Vec<String> = seen.all.lock().0.iter().cloned().collect();
                assert_eq!(shown, values, "{name} {matchers:?} {range:?}");
                let seen = Seen::up_to(1);
                let sift = Arc::clone(&seen) as Arc<dyn Sift>;
                view.sift_label_values(s.store.as_ref(), name, request(), sift).await.expect("shown");
                assert!(seen.all.lock().1 <= 1, "one was enough: {name} {matchers:?} {range:?}");
            }
        }
    }
    // What is deleted is not shown either.
    s.store.delete(&s.tenant, vec![vec![Matcher::equal("i", "1")]], TimeRange::ALL).await.expect("deleted");
    s.settle().await;
    let seen = Seen::up_to(usize::MAX);
    let request = LabelsRequest { matchers: vec![], range: TimeRange::ALL, limit: 0 };
    let sift = Arc::clone(&seen) as Arc<dyn Sift>;
    view.sift_label_values(s.store.as_ref(), "i", request, sift).await.expect("shown");
    assert_eq!(seen.all.lock().0.iter().collect::<Vec<_>>(), ["0", "2", "3"]);
}

pub(super) async fn a_limit_gives_the_first(s: &mut Subject<'_>) {
    let all = write_some(s).await;
    let store = s.store.as_ref();
    for sets in [
        vec![],
        vec![vec![]],
        vec![vec![matcher(MatchOp::NotEqual, "i", "")], vec![Matcher::equal("i", "2")]],
    ] {
        let request = |limit| LabelsRequest { matchers: sets.clone(), range: TimeRange::ALL, limit };
        let series = store.series(&s.tenant, request(0)).await.expect("series");
        let names = store.label_names(&s.tenant, request(0)).await.expect("names");
        let values = store.label_values(&s.tenant, "i", request(0)).await.expect("values");
        if sets.is_empty() {
            assert_eq!(series, all);
        }
        for limit in [1, series.len().max(2) - 1, all.len() + 1] {
            let first = store.series(&s.tenant, request(limit)).await.expect("series");
            assert_eq!(first, series[..limit.min(series.len())], "{limit} {sets:?}");
            let first = store.label_names(&s.tenant, request(limit)).await.expect("names");
            assert_eq!(first, names[..limit.min(names.len())], "{limit} {sets:?}");
            let first = store.label_values(&s.tenant, "i", request(limit)).await.expect("values");
            assert_eq!(first, values[..limit.min(values.len())], "{limit} {sets:?}");
        }
    }
}

pub(super) async fn a_narrowed_view_shows_less_and_never_more(s: &mut Subject<'_>) {
    let (mine, other) = (s.tenant.clone(), TenantId::new("narrowed-other").expect("a name"));
    for (tenant, team) in [(&mine, "a"), (&mine, "b"), (&other, "a"), (&other, "c")] {
        let series = labels(&[("__name__", "m"), ("team", team)]);
        s.store.append(tenant, floats(&series, &[(ago(60), 1.0)])).await.expect("the store takes a batch");
    }
    s.settle().await;
    let both = |filters: &[Vec<Matcher>]| View::new(vec![mine.clone(), other.clone()], filters.to_vec());
    let team = |name: &str| vec![Matcher::equal("team", name)];
    let (mine_name, other_name) = (mine.as_str(), other.as_str());
    let of = |tenant: &str, name: &str| {
        vec![Matcher::equal("__tenant_id__", tenant), Matcher::equal("team", name)]
    };
    type Case<'a> = (Vec<Vec<Matcher>>, Vec<Vec<Matcher>>, &'a [(&'a str, &'a str)]);
    let cases: [Case<'_>; 8] = [
        (vec![], vec![], &[(mine_name, "a"), (mine_name, "b"), (other_name, "a"), (other_name, "c")]),
        (vec![], vec![team("a")], &[(mine_name, "a"), (other_name, "a")]),
        (vec![team("b")], vec![team("a")], &[]),
        (vec![team("b"), team("c")], vec![team("a"), team("c")], &[(other_name, "c")]),
        // A filter of the caller is not undone by one that lets everything pass.
        (vec![team("b")], vec![vec![matcher(MatchOp::Matches, "team", ".*")]], &[(mine_name, "b")]),
        (vec![], vec![of(mine_name, "a"), of(other_name, "c")], &[(mine_name, "a"), (other_name, "c")]),
        (vec![team("a")], vec![vec![Matcher::equal("__tenant_id__", other_name)]], &[(other_name, "a")]),
        (vec![], vec![vec![Matcher::equal("__tenant_id__", "elsewhere")]], &[]),
    ];
    for (filters, asked, expect) in cases {
        let view = both(&filters).expect("there are tenants").narrowed(&asked).expect("few matchers");
        let request = LabelsRequest { matchers: vec![], range: TimeRange::ALL, limit: 0 };
        let found = view.series(s.store.as_ref(), request).await.expect("series");
        let mut found: Vec<(&str, &str)> = found
            .iter()
            .map(|l| (l.get("__tenant_id__").unwrap_or_default(), l.get("team").unwrap_or_default()))
            .collect();
        found.sort_unstable();
        let mut expect = expect.to_vec();
        expect.sort_unstable();
        assert_eq!(found, expect, "{filters:?} {asked:?}");
        let estimate = view.estimate(s.store.as_ref(), SelectRequest::new(vec![], TimeRange::ALL)).await;
        let estimate = estimate.expect("an estimate");
        assert_eq!((estimate.series, estimate.floats), (expect.len() as u64, expect.len() as u64));
        let selected = view.select(s.store.as_ref(), SelectRequest::new(vec![], TimeRange::ALL)).await;
        let series = selected.expect("a selection").series;
        assert_eq!(series.len(), expect.len());
        assert!(estimate.label_bytes >= series.iter().map(label_bytes).sum::<u64>());
    }
}
