//! What is found beside samples: exemplars, metadata, names and counts of labels, and only of one tenant.

use super::{Subject, ago, floats, labels, range, read_all};
use crate::{
    model::{Exemplar, Matcher, Metadata, MetricType, TenantId, TimeRange, Timestamp},
    storage::{BatchExemplar, LabelsRequest, SelectRequest, StorageError, WriteBatch},
};

pub(super) async fn exemplars_are_found(s: &mut Subject<'_>) {
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

pub(super) async fn metadata_is_found_and_replaced(s: &mut Subject<'_>) {
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

pub(super) async fn label_names_and_values_are_those_of_matching_series(s: &mut Subject<'_>) {
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

pub(super) async fn tenants_do_not_see_each_other(s: &mut Subject<'_>) {
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

pub(super) async fn too_many_series_is_an_error(s: &mut Subject<'_>) {
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

pub(super) async fn cardinality_counts_series(s: &mut Subject<'_>) {
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
