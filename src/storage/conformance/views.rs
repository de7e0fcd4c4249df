//! What a view shows: what its filters match, and several tenants as one.

use super::{Subject, Upheaval, ago, bits, floats, labels, matcher, pairs, read_selected};
use crate::{
    model::{Exemplar, Labels, MatchOp, Matcher, Metadata, MetricType, TenantId, TimeRange, Timestamp},
    storage::{BatchExemplar, LabelsRequest, SelectRequest, View},
};

/// Three teams' series of the same names, and what is said of them.
async fn write_teams(s: &mut Subject<'_>) -> Vec<Labels> {
    let mut all = Vec::new();
    for (team, value) in [("a", 1.0), ("b", 2.0), ("", 3.0)] {
        for name in ["shared", &format!("only_{team}_total")] {
            let series = labels(&[("__name__", name), ("job", "x"), ("team", team)]);
            let mut batch = floats(&series, &[(ago(60), value), (ago(45), value)]);
            batch.exemplars = vec![BatchExemplar {
                series: 0,
                exemplar: Exemplar {
                    labels: labels(&[("trace", team)]),
                    value,
                    timestamp: Timestamp(ago(60)),
                },
            }];
            batch.metadata = vec![Metadata {
                metric: name.trim_end_matches("_total").to_owned(),
                kind: MetricType::Counter,
                help: format!("of {team}"),
                unit: String::new(),
            }];
            s.append(batch).await;
            all.push(series);
        }
    }
    all.sort();
    all
}

/// Sets of matchers, and which labels they are to find.
type Selection = (Vec<Vec<Matcher>>, fn(&Labels) -> bool);

fn filtered(tenant: &TenantId, filters: &[&[Matcher]]) -> View {
    let filters = filters.iter().map(|set| set.to_vec()).collect();
    View::new(vec![tenant.clone()], filters).expect("there is a tenant")
}

pub(super) async fn filters_show_what_one_of_them_matches(s: &mut Subject<'_>) {
    let all = write_teams(s).await;
    s.settle().await;
    let of = |team: &'static str| vec![Matcher::equal("team", team)];
    let (a, b, nobody) = (of("a"), of("b"), of(""));
    let not_b = vec![matcher(MatchOp::NotEqual, "team", "b"), Matcher::equal("job", "x")];
    let pattern =
        vec![matcher(MatchOp::Matches, "team", "[ab]{1}"), matcher(MatchOp::NotMatches, "team", "b+")];
    let cases: [(&[&[Matcher]], &[&str]); 7] = [
        (&[], &["", "a", "b"]),
        (&[&a], &["a"]),
        (&[&a, &b], &["a", "b"]),
        (&[&nobody], &[""]),
        (&[&not_b, &not_b], &["", "a"]),
        (&[&pattern], &["a"]),
        (&[&of("c")], &[]),
    ];
    for (filters, teams) in cases {
        let view = filtered(&s.tenant, filters);
        let store = s.store.as_ref();
        let shown = |labels: &&Labels| teams.contains(&labels.get("team").unwrap_or_default());
        let expect: Vec<Labels> = all.iter().filter(shown).cloned().collect();
        // By what they have and what they have not, by several selectors, and by none.
        let selections: [Selection; 5] = [
            (vec![], |_| true),
            (vec![vec![]], |_| true),
            (vec![vec![Matcher::equal("team", "b")]], |l| l.get("team") == Some("b")),
            (vec![vec![Matcher::equal("team", "")]], |l| l.get("team").is_none()),
            (
                vec![
                    vec![Matcher::equal("team", "a")],
                    vec![matcher(MatchOp::Matches, "__name__", "shared|x")],
                ],
                |l| l.get("team") == Some("a") || l.metric_name() == Some("shared"),
            ),
        ];
        for (sets, selects) in selections {
            let expect: Vec<Labels> = expect.iter().filter(|l| selects(l)).cloned().collect();
            let request = || LabelsRequest { matchers: sets.clone(), range: TimeRange::ALL, limit: 0 };
            assert_eq!(view.series(store, request()).await.expect("series"), expect, "{filters:?} {sets:?}");
            let mut names: Vec<&str> = expect.iter().flat_map(|l| l.iter().map(|(name, _)| name)).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(
                view.label_names(store, request()).await.expect("names"),
                names,
                "{filters:?} {sets:?}"
            );
            for name in ["team", "__name__", "job", "nothing"] {
                let mut values: Vec<&str> = expect.iter().filter_map(|l| l.get(name)).collect();
                values.sort_unstable();
                values.dedup();
                let found = view.label_values(store, name, request()).await.expect("values");
                assert_eq!(found, values, "{name} {filters:?} {sets:?}");
            }
            let exemplars = view.exemplars(store, sets.clone(), TimeRange::ALL).await.expect("exemplars");
            assert_eq!(exemplars.into_iter().map(|e| e.series).collect::<Vec<_>>(), expect, "{filters:?}");
            if let [set] = &sets[..] {
                let request = SelectRequest::new(set.clone(), TimeRange::ALL);
                let found = read_selected(view.select(store, request).await.expect("a selection")).await;
                assert!(found.iter().all(|(_, samples)| samples.len() == 2));
                let found: Vec<Labels> = found.into_iter().map(|(labels, _)| labels).collect();
                assert_eq!(found, expect, "select {filters:?} {set:?}");
            }
        }
        let metadata = |metric| view.metadata(store, metric);
        let mut described: Vec<&str> =
            expect.iter().filter_map(|l| l.metric_name()).map(|m| m.trim_end_matches("_total")).collect();
        described.sort_unstable();
        described.dedup();
        let found = metadata(None).await.expect("metadata");
        assert_eq!(found.iter().map(|m| &m.metric[..]).collect::<Vec<_>>(), described, "{filters:?}");
        for metric in ["shared", "only_a", "only_b"] {
            let found = metadata(Some(metric)).await.expect("metadata");
            assert_eq!(found.len(), usize::from(described.contains(&metric)), "{metric} {filters:?}");
        }
        if s.upheaval == Upheaval::None {
            let counted = view.cardinality(store, 100).await.expect("cardinality");
            assert_eq!(counted.series, expect.len() as u64, "{filters:?}");
            let told = format!("{counted:?}");
            for team in ["a", "b"].iter().filter(|team| !teams.contains(team)) {
                assert!(
                    !told.contains(&format!("team={team}")) && !told.contains(&format!("only_{team}")),
                    "{told}"
                );
            }
        }
    }
}

pub(super) async fn a_filtered_delete_hides_what_is_shown(s: &mut Subject<'_>) {
    let all = write_teams(s).await;
    s.settle().await;
    let view = filtered(&s.tenant, &[&[Matcher::equal("team", "a")], &[Matcher::equal("team", "c")]]);
    let shared = vec![vec![Matcher::equal("__name__", "shared")], vec![Matcher::equal("team", "b")]];
    view.delete(s.store.as_ref(), shared, TimeRange::ALL).await.expect("a delete is taken");
    s.settle().await;
    let gone = labels(&[("__name__", "shared"), ("job", "x"), ("team", "a")]);
    let expect: Vec<Labels> = all.into_iter().filter(|labels| *labels != gone).collect();
    assert_eq!(s.everything().await.into_iter().map(|(l, _)| l).collect::<Vec<_>>(), expect);
}

/// Series in two tenants of the case, and the two as one.
async fn write_two(s: &mut Subject<'_>) -> (View, [TenantId; 2]) {
    let tenants = ["one", "two"]
        .map(|which| TenantId::new(&format!("{}-{which}", s.tenant)).expect("a case's name is a tenant's"));
    for (tenant, value) in tenants.iter().zip([1.0, 2.0]) {
        for pairs in [
            vec![("__name__", "m"), ("job", "x")],
            // Sorts elsewhere once the tenant's label is there.
            vec![("__name__", "m"), ("__r__", "y")],
            vec![("__name__", "m"), ("__tenant_id__", "forged")],
            vec![("__name__", "m"), ("__tenant_id__", "forged"), ("original___tenant_id__", "deeper")],
            vec![("__name__", if value == 1.0 { "mine" } else { "theirs" })],
        ] {
            let mut batch = floats(&labels(&pairs), &[(ago(60), value), (ago(45), value + 0.5)]);
            batch.exemplars = vec![BatchExemplar {
                series: 0,
                exemplar: Exemplar { labels: Labels::empty(), value, timestamp: Timestamp(ago(60)) },
            }];
            batch.metadata = vec![Metadata {
                metric: "m".to_owned(),
                kind: MetricType::Gauge,
                help: tenant.to_string(),
                unit: String::new(),
            }];
            s.store.append(tenant, batch).await.expect("the store takes a batch");
        }
    }
    (View::new(tenants.to_vec(), vec![]).expect("there are tenants"), tenants)
}

pub(super) async fn several_tenants_are_one(s: &mut Subject<'_>) {
    let (view, [one, two]) = write_two(s).await;
    s.settle().await;
    let store = s.store.as_ref();
    let of = |tenant: &TenantId, name| {
        let t = tenant.as_str();
        vec![
            labels(&[("__name__", "m"), ("__r__", "y"), ("__tenant_id__", t)]),
            labels(&[("__name__", "m"), ("__tenant_id__", t), ("job", "x")]),
            labels(&[("__name__", "m"), ("__tenant_id__", t), ("original___tenant_id__", "forged")]),
            labels(&[
                ("__name__", "m"),
                ("__tenant_id__", t),
                ("original___tenant_id__", "forged"),
                ("original_original___tenant_id__", "deeper"),
            ]),
            labels(&[("__name__", name), ("__tenant_id__", t)]),
        ]
    };
    let mut all = of(&one, "mine");
    all.append(&mut of(&two, "theirs"));
    all.sort();
    use MatchOp::{Equal, Matches, NotEqual, NotMatches};
    type Case<'a> = (&'a [(MatchOp, &'a str, &'a str)], &'a dyn Fn(&Labels) -> bool);
    let cases: [Case<'_>; 14] = [
        (&[], &|_| true),
        (&[(Equal, "__name__", "m"), (Equal, "__tenant_id__", one.as_str())], &|l| {
            l.metric_name() == Some("m") && l.get("__tenant_id__") == Some(one.as_str())
        }),
        (&[(Equal, "__tenant_id__", two.as_str())], &|l| l.get("__tenant_id__") == Some(two.as_str())),
        (&[(NotEqual, "__tenant_id__", two.as_str())], &|l| l.get("__tenant_id__") == Some(one.as_str())),
        (&[(Matches, "__tenant_id__", ".*-one|elsewhere")], &|l| {
            l.get("__tenant_id__") == Some(one.as_str())
        }),
        (&[(NotMatches, "__tenant_id__", ".*-one")], &|l| l.get("__tenant_id__") == Some(two.as_str())),
        (&[(Equal, "__tenant_id__", "")], &|_| false),
        (&[(NotEqual, "__tenant_id__", "")], &|_| true),
        (&[(Matches, "__tenant_id__", "")], &|_| false),
        (&[(NotMatches, "__tenant_id__", ".+")], &|_| false),
        (&[(Matches, "__tenant_id__", ".*-one"), (NotMatches, "__tenant_id__", ".*-one")], &|_| false),
        (&[(Equal, "__tenant_id__", "forged")], &|_| false),
        (&[(Equal, "original___tenant_id__", "forged")], &|l| l.get("original___tenant_id__").is_some()),
        (&[(NotEqual, "original_original___tenant_id__", "")], &|l| {
            l.get("original_original___tenant_id__").is_some()
        }),
    ];
    for (matchers, expect) in cases {
        let matchers: Vec<Matcher> =
            matchers.iter().map(|(op, name, value)| matcher(*op, name, value)).collect();
        let expect: Vec<Labels> = all.iter().filter(|l| expect(l)).cloned().collect();
        let request = || LabelsRequest { matchers: vec![matchers.clone()], range: TimeRange::ALL, limit: 0 };
        assert_eq!(view.series(store, request()).await.expect("series"), expect, "{matchers:?}");
        let select = SelectRequest::new(matchers.clone(), TimeRange::ALL);
        let found = read_selected(view.select(store, select).await.expect("a selection")).await;
        for (labels, samples) in &found {
            let value = if labels.get("__tenant_id__") == Some(one.as_str()) { 1.0 } else { 2.0 };
            assert_eq!(pairs(samples), bits(&[(ago(60), value), (ago(45), value + 0.5)]), "{labels}");
        }
        assert_eq!(found.into_iter().map(|(l, _)| l).collect::<Vec<_>>(), expect, "select {matchers:?}");
        let exemplars =
            view.exemplars(store, vec![matchers.clone()], TimeRange::ALL).await.expect("exemplars");
        assert_eq!(exemplars.into_iter().map(|e| e.series).collect::<Vec<_>>(), expect, "{matchers:?}");
        let mut names: Vec<&str> = expect.iter().flat_map(|l| l.iter().map(|(name, _)| name)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(view.label_names(store, request()).await.expect("names"), names, "{matchers:?}");
        for name in ["__name__", "__tenant_id__", "original___tenant_id__", "original_original___tenant_id__"]
        {
            let mut values: Vec<&str> = expect.iter().filter_map(|l| l.get(name)).collect();
            values.sort_unstable();
            values.dedup();
            let found = view.label_values(store, name, request()).await.expect("values");
            assert_eq!(found, values, "{name} {matchers:?}");
        }
    }
    // Sets that mean one tenant each, and one that means none.
    let sets = [("job", "x", one.as_str()), ("__name__", "theirs", two.as_str()), ("job", "x", "elsewhere")];
    let sets: Vec<Vec<Matcher>> = sets
        .map(|(name, value, tenant)| {
            vec![Matcher::equal(name, value), Matcher::equal("__tenant_id__", tenant)]
        })
        .to_vec();
    let request = || LabelsRequest { matchers: sets.clone(), range: TimeRange::ALL, limit: 0 };
    let expect: Vec<Labels> = all
        .iter()
        .filter(|l| match l.get("__tenant_id__") {
            Some(tenant) if tenant == one.as_str() => l.get("job") == Some("x"),
            _ => l.metric_name() == Some("theirs"),
        })
        .cloned()
        .collect();
    assert_eq!(view.series(store, request()).await.expect("series"), expect);
    let tenants = view.label_values(store, "__tenant_id__", request()).await.expect("values");
    assert_eq!(tenants, [one.as_str(), two.as_str()]);
    let metadata = view.metadata(store, Some("m")).await.expect("metadata");
    assert_eq!(metadata.iter().map(|m| &m.help[..]).collect::<Vec<_>>(), [one.as_str(), two.as_str()]);
    // Of one tenant the label is one like any other.
    let alone = View::of(one.clone());
    let forged = vec![vec![Matcher::equal("__tenant_id__", "forged")]];
    let request = LabelsRequest { matchers: forged.clone(), range: TimeRange::ALL, limit: 0 };
    assert_eq!(alone.series(store, request).await.expect("series").len(), 2);
    let refused = view.delete(store, forged, TimeRange::ALL).await.expect_err("two tenants");
    assert_eq!(refused.to_string(), "samples of several tenants cannot be deleted at once");
    if s.upheaval == Upheaval::None {
        let counted = view.cardinality(store, 3).await.expect("cardinality");
        assert_eq!(counted.series, 10);
        assert_eq!(counted.series_by_metric[0], ("m".to_owned(), 8));
        assert_eq!(
            counted.series_by_pair[..3],
            [
                ("__name__=m".to_owned(), 8),
                (format!("__tenant_id__={one}"), 5),
                (format!("__tenant_id__={two}"), 5),
            ]
        );
    }
    let filtered = View::new(view.tenants().to_vec(), vec![vec![Matcher::equal("job", "x")]]);
    let request = SelectRequest::new(vec![], TimeRange::ALL);
    let found = filtered.expect("there are tenants").select(store, request).await.expect("a selection");
    assert_eq!(read_selected(found).await.len(), 2);
}

pub(super) async fn several_tenants_have_their_bounds_together(s: &mut Subject<'_>) {
    let (view, _) = write_two(s).await;
    s.settle().await;
    let store = s.store.as_ref();
    let mut request = SelectRequest::new(vec![], TimeRange::ALL);
    request.max_series = Some(10);
    assert_eq!(view.select(store, request.clone()).await.expect("ten are ten").series.len(), 10);
    request.max_series = Some(9);
    let error = view.select(store, request).await.expect_err("ten are more than nine");
    assert_eq!(error.to_string(), "the query selects more than 9 series");
    for limit in 1..12 {
        let request = || LabelsRequest { matchers: vec![], range: TimeRange::ALL, limit };
        assert_eq!(view.series(store, request()).await.expect("series").len(), limit.min(10));
        assert_eq!(view.label_names(store, request()).await.expect("names").len(), limit.min(6));
        assert_eq!(
            view.label_values(store, "__name__", request()).await.expect("values").len(),
            limit.min(3)
        );
        assert_eq!(
            view.label_values(store, "__tenant_id__", request()).await.expect("values").len(),
            limit.min(2)
        );
    }
}
