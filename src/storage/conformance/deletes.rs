//! What is deleted is hidden, what is cleaned is gone, and what changes is told.

use super::{Subject, ago, bits, labels, pairs, range};
use crate::{
    model::{Matcher, TenantId, TimeRange, Timestamp},
    storage::Changed,
};

pub(super) async fn what_is_deleted_is_hidden_even_if_written_again(s: &mut Subject<'_>) {
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

pub(super) async fn what_changes_is_told(s: &mut Subject<'_>) {
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

pub(super) async fn cleaned_tombstones_let_new_samples_in(s: &mut Subject<'_>) {
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
