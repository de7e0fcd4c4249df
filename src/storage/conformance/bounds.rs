//! Bounds on the series that a tenant may have and begin.

use std::{ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{NOW, Subject, labels};
use crate::{
    model::{Exemplar, Labels, Limit, OverLimit, TenantId, Timestamp},
    storage::{Appended, BatchExemplar, BatchSample, Granted, RejectReason, SeriesRoom, WriteBatch},
};

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

pub(super) async fn active_series_are_bounded_and_those_that_are_there_keep_flowing(on: &mut Subject<'_>) {
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

pub(super) async fn series_that_begin_are_bounded(on: &mut Subject<'_>) {
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

pub(super) async fn writers_at_the_same_time_do_not_begin_too_many(on: &mut Subject<'_>) {
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
