//! Which sample stays when two meet, and which are not taken.

use super::{Settles, Subject, ago, bits, floats, labels, pairs};
use crate::{
    model::{Millis, Timestamp, stale_nan},
    storage::{AppendPolicy, OnConflict, RejectReason, SampleKind},
};

pub(super) async fn a_duplicate_is_a_success_and_stored_once(s: &mut Subject<'_>) {
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

pub(super) async fn a_conflict_is_settled(s: &mut Subject<'_>) {
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

pub(super) async fn a_conflict_is_rejected_if_asked(s: &mut Subject<'_>) {
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

pub(super) async fn out_of_order_is_bounded_if_asked(s: &mut Subject<'_>) {
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

pub(super) async fn what_is_too_old_is_rejected_and_the_rest_is_kept(s: &mut Subject<'_>) {
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
