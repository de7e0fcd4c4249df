//! Looking up labels: in the head, in a part and in the whole store the same as asking each series.

use std::{collections::BTreeSet, ops::ControlFlow};

use proptest::prelude::*;
use roaring::RoaringBitmap;

use super::*;
use crate::{
    model::{MatchOp, Matcher},
    storage::{
        LabelsRequest, SeriesSamples,
        embedded::{
            head::Head,
            part::{Part, PartFacts, PartId, PartWriter},
        },
    },
};

fn matcher() -> impl Strategy<Value = Matcher> {
    let op =
        prop::sample::select(vec![MatchOp::Equal, MatchOp::NotEqual, MatchOp::Matches, MatchOp::NotMatches]);
    let value = prop_oneof![
        "[abé]{0,2}",
        "[ab]{0,2}\\.[*+]",
        "\\.[*+][abé]{1,2}",
        "[abé]{0,1}(\\|[abé]{0,2}){1,3}",
        Just("[ab].*é|b.*".to_owned()),
        Just("(?i)É+.?".to_owned()),
        Just("[0-9]+7".to_owned()),
        Just("1.*|.*3".to_owned()),
        Just("[^1-3]+".to_owned()),
    ];
    ("[abz]", op, value).prop_map(|(name, op, value)| Matcher::new(op, &name, &value).unwrap())
}

fn some_labels() -> impl Strategy<Value = Labels> {
    let value = prop_oneof![4 => "[abé]{0,3}", 1 => "[a-z]{200,300}", 2 => "[0-9]{1,3}"];
    prop::collection::btree_map("[abc]", value, 0..4).prop_map(|pairs| Labels::from_pairs(pairs).unwrap())
}

/// Different labels in their order; with `many`, some label has many values.
fn all_labels(some: Vec<Labels>, many: bool) -> Vec<Labels> {
    let more = (0..if many { 400 } else { 0 })
        .map(|i| Labels::from_pairs([("a", i.to_string()), ("b", (i % 40).to_string())]).unwrap());
    some.into_iter().chain(more).collect::<BTreeSet<_>>().into_iter().collect()
}

fn scanned(all: &[Labels], set: &[Matcher]) -> Vec<u32> {
    let passes = |l: &Labels| set.iter().all(|m| m.matches(l.get(m.name()).unwrap_or_default()));
    (0..).zip(all).filter(|(_, labels)| passes(labels)).map(|(number, _)| number).collect()
}

fn values_of(all: &[Labels], name: &str) -> Vec<String> {
    all.iter().filter_map(|l| l.get(name)).collect::<BTreeSet<_>>().into_iter().map(str::to_owned).collect()
}

fn names_of(all: &[Labels]) -> Vec<String> {
    all.iter()
        .flatten()
        .map(|(name, _)| name)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .map(str::to_owned)
        .collect()
}

fn part_of(dir: &Path, all: &[Labels]) -> Part {
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    let id = PartId(1);
    let path = id.path(dir, Timestamp(0));
    let mut writer = PartWriter::create(&disk, &path).unwrap();
    let mut samples = SeriesSamples::default();
    samples.push(5, 1.0, 0);
    // What another tenant has is never found.
    let before = TenantId::new("a").unwrap();
    writer.add(&before, &labels(&[("a", "b")]), &samples).unwrap();
    all.iter().for_each(|labels| writer.add(&tenant(), labels, &samples).unwrap());
    writer.finish(PartFacts { id, covers_wal: 1, replaces: Vec::new() }).unwrap();
    Part::open(&disk, &path).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_head_finds_what_asking_each_series_finds(
        some in prop::collection::vec(some_labels(), 0..60),
        many in prop::bool::ANY,
        sets in prop::collection::vec(prop::collection::vec(matcher(), 0..4), 4),
    ) {
        let all = all_labels(some, many);
        let head = Head::new();
        all.iter().for_each(|labels| head.adopt(&tenant(), labels, labels.id(), 0));
        head.adopt(&TenantId::new("other").unwrap(), &labels(&[("a", "b")]), labels(&[("a", "b")]).id(), 0);
        for set in &sets {
            let found = head.find(&tenant(), set);
            let numbers: Vec<u32> = found.iter().collect();
            prop_assert_eq!(numbers, scanned(&all, set), "{:?}", set);
            let mut pairs = 0;
            head.each_pair(&tenant(), Some(&found), |name, value, count| {
                let with = |n: &u32| all[*n as usize].get(name) == Some(value);
                assert_eq!(count, found.iter().filter(with).count() as u64, "{name}={value}");
                pairs += count;
            });
            prop_assert_eq!(pairs, found.iter().map(|n| all[n as usize].len() as u64).sum::<u64>());
            let these: Vec<Labels> = found.iter().map(|n| all[n as usize].clone()).collect();
            let (mut names, mut values) = (BTreeSet::new(), BTreeSet::new());
            head.names_among(&tenant(), &found, &mut names);
            head.each_value_among(&tenant(), "a", &found, |value| assert!(values.insert(value.to_owned())));
            prop_assert_eq!(names.into_iter().collect::<Vec<_>>(), names_of(&these));
            prop_assert_eq!(values.into_iter().collect::<Vec<_>>(), values_of(&these, "a"));
        }
    }

    #[test]
    fn a_part_finds_what_asking_each_series_finds_also_the_second_time(
        some in prop::collection::vec(some_labels(), 1..60),
        many in prop::bool::ANY,
        sets in prop::collection::vec(prop::collection::vec(matcher(), 0..4), 4),
    ) {
        let all = all_labels(some, many);
        let dir = tempfile::tempdir().unwrap();
        let part = part_of(dir.path(), &all);
        let first = u32::from(tenant() > TenantId::new("a").unwrap());
        for set in sets.iter().chain(&sets) {
            let found: RoaringBitmap = part.find(&tenant(), set).unwrap();
            let ordinals: Vec<u32> = found.iter().map(|n| n - first).collect();
            prop_assert_eq!(&ordinals, &scanned(&all, set), "{:?}", set);
            let these: Vec<Labels> = ordinals.iter().map(|n| all[*n as usize].clone()).collect();
            prop_assert_eq!(part.label_names_of(&tenant(), &found).unwrap(), names_of(&these));
            for name in ["a", "b", "c", "z"] {
                prop_assert_eq!(part.label_values_of(&tenant(), name, &found).unwrap(), values_of(&these, name));
            }
        }
        prop_assert_eq!(part.label_names(&tenant()).unwrap(), names_of(&all));
        let mut values = Vec::new();
        let each = |value: &str| {
            values.push(value.to_owned());
            ControlFlow::Continue(())
        };
        part.each_label_value(&tenant(), "a", None, each).unwrap();
        prop_assert_eq!(values, values_of(&all, "a"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_lists_and_counts_what_is_in_parts_and_head_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let of = |i: u32| {
        let (pod, zone) = (format!("pod-{i:03}"), format!("zone-{}", i % 3));
        labels(&[
            ("__name__", if i.is_multiple_of(2) { "up" } else { "load" }),
            ("pod", &pod),
            ("zone", &zone),
        ])
    };
    let all: Vec<Labels> = (0..300).map(of).collect();
    let write_all = |some: std::ops::Range<usize>, second: i64| {
        let some = all[some].to_vec();
        let samples: Vec<(u32, i64, f64)> =
            (0..some.len()).map(|i| (u32::try_from(i).unwrap(), at(second), 1.0)).collect();
        batch(&some, &samples)
    };
    store.append(&tenant(), write_all(0..200, 0)).await.unwrap();
    store.flush().await.unwrap();
    store.append(&tenant(), write_all(100..300, 10)).await.unwrap();
    let matchers = ["pod-0.*", ".*7", "pod-(1|2)[0-9]5|pod-00[^1-3]", "pod-299"];
    for pattern in matchers {
        let set =
            vec![Matcher::new(MatchOp::Matches, "pod", pattern).unwrap(), Matcher::equal("__name__", "up")];
        let these: Vec<Labels> = scanned(&all, &set).iter().map(|n| all[*n as usize].clone()).collect();
        let request = || LabelsRequest { matchers: vec![set.clone()], range: TimeRange::ALL, limit: 0 };
        for name in ["__name__", "pod", "zone"] {
            assert_eq!(
                store.label_values(&tenant(), name, request()).await.unwrap(),
                values_of(&these, name)
            );
        }
        assert_eq!(store.label_names(&tenant(), request()).await.unwrap(), names_of(&these));
        let mut sorted = these.clone();
        sorted.sort();
        assert_eq!(store.series(&tenant(), request()).await.unwrap(), sorted);
        let counted = store.cardinality(&tenant(), vec![set], 1000).await.unwrap();
        let expect = crate::storage::cardinality_of(these.iter(), 1000);
        assert_eq!((counted.series, counted.pairs), (expect.series, expect.pairs));
        assert_eq!(counted.series_by_pair, expect.series_by_pair);
    }
    let counted = store.cardinality(&tenant(), vec![], 10).await.unwrap();
    assert_eq!((counted.series, store.active_series(&tenant())), (300, Some(300)));
    assert_eq!(counted.values_by_label[0], ("pod".to_owned(), 300));
    assert_eq!(counted.series_by_metric, [("load".to_owned(), 150), ("up".to_owned(), 150)]);
}
