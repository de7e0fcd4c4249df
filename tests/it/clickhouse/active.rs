//! Bounds on series, over several gateways.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use luminate::{
    clock::HandClock,
    model::{Labels, Limit, TenantId},
    storage::{
        Appended, BatchSample, Granted, RejectReason, SeriesRoom, Storage, WriteBatch,
        clickhouse::{ClickHouseConfig, ClickHouseStore},
        conformance::NOW,
    },
};
use tokio::runtime::Runtime;

use super::front::Front;

/// So many may be active.
#[derive(Debug)]
struct Most(u64);

#[async_trait]
impl SeriesRoom for Most {
    fn max_active(&self) -> Option<u64> {
        Some(self.0)
    }

    async fn begin(&self, wanted: u64) -> Granted {
        Granted::all(wanted)
    }
}

/// A gateway's store, by a clock of its own.
async fn pod(front: &Front) -> (Arc<ClickHouseStore>, Arc<HandClock>) {
    let clock = HandClock::at(NOW);
    let config = ClickHouseConfig { database: front.database.clone(), ..ClickHouseConfig::new(&front.url) };
    let store = ClickHouseStore::open(config, Arc::<HandClock>::clone(&clock)).unwrap();
    store.apply_schema().await.unwrap();
    (store, clock)
}

/// Writes a sample of each of some series; gives how many were refused.
async fn put(store: &ClickHouseStore, numbers: std::ops::Range<usize>, most: u64) -> usize {
    let series = numbers.map(|i| Labels::from_pairs([("__name__", "m"), ("i", &i.to_string())]).unwrap());
    let series: Vec<Labels> = series.collect();
    let sample = |series| BatchSample { series, timestamp: NOW, value: 1.0, start: 0 };
    let samples = (0..u32::try_from(series.len()).unwrap()).map(sample).collect();
    let batch = WriteBatch { samples, room: Some(Arc::new(Most(most))), ..WriteBatch::over(series) };
    let Appended { rejected, over, .. } = store.append(&TenantId::anonymous(), batch).await.unwrap();
    let reason = RejectReason::OverLimit(Limit::ActiveSeries);
    assert!(rejected.iter().all(|rejected| rejected.reason == reason), "{rejected:?}");
    assert_eq!(over.len(), usize::from(!rejected.is_empty()));
    rejected.len()
}

#[test]
fn gateways_hear_of_each_other_s_series_and_refuse_none_that_is_there() {
    let Some(front) = Front::start_own() else { return };
    Runtime::new().unwrap().block_on(async {
        let tenant = TenantId::anonymous();
        let ((one, clock_of_one), (other, clock_of_other)) = (pod(&front).await, pod(&front).await);
        // The servers' clock is months ahead of ours, and they would drop what is old by it.
        for table in ["samples", "series", "label_values"] {
            front.sql(&format!("ALTER TABLE {}.{table} REMOVE TTL", front.database));
        }
        assert_eq!(one.active_series(&tenant), None, "nobody has asked");
        assert_eq!(put(&one, 0..6, 10).await, 0);
        assert_eq!(one.active_series(&tenant), Some(6));
        // The other asks for the first time, and knows at once.
        assert_eq!(put(&other, 6..12, 10).await, 2);
        assert_eq!(other.active_series(&tenant), Some(10));
        // One has not heard of that yet, and lets four more begin.
        assert_eq!(put(&one, 20..24, 10).await, 0);
        for clock in [&clock_of_one, &clock_of_other] {
            clock.advance(Duration::from_secs(21));
        }
        assert_eq!(put(&one, 30..31, 10).await, 1);
        assert_eq!((one.active_series(&tenant), put(&other, 31..32, 10).await), (Some(14), 1));
        assert_eq!(other.active_series(&tenant), Some(14));
        // What is there flows through either, and through one that has just been started.
        let (third, _) = pod(&front).await;
        for store in [&one, &other, &third] {
            assert_eq!(put(store, 0..10, 10).await, 0);
            assert_eq!(put(store, 20..25, 10).await, 1);
            assert_eq!(store.active_series(&tenant), Some(14));
        }
        // Another tenant has room of its own, and history makes nothing active.
        let series = vec![Labels::from_pairs([("__name__", "m")]).unwrap()];
        for (name, at) in [("b", NOW), ("anonymous", NOW.minus(luminate::model::Millis(9 * 86_400_000)))] {
            let sample = BatchSample { series: 0, timestamp: at, value: 1.0, start: 0 };
            let room = Some(Arc::new(Most(1)) as Arc<dyn SeriesRoom>);
            let batch = WriteBatch { samples: vec![sample], room, ..WriteBatch::over(series.clone()) };
            let appended = one.append(&TenantId::new(name).unwrap(), batch).await.unwrap();
            assert_eq!(appended.samples, 1, "{name}");
        }
    });
}
