mod stamps;
pub(crate) mod store;

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    decode::encode::{Encoder, Series, compress, label, write_request, write_request2},
    *,
};
use crate::{
    clock::HandClock,
    model::{Limit, Metadata, MetricType, TenantId, TenantLimits},
};

use store::RecordingStore;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn ingest(limits: IngestLimits) -> (Arc<RecordingStore>, Ingest) {
    let store = Arc::new(RecordingStore::default());
    let ingest = Ingest::new(Arc::clone(&store) as _, HandClock::at(NOW), limits, (1, 2));
    (store, ingest)
}

fn up(job: &str) -> Series {
    Series::new(&[("__name__", "up"), ("job", job)])
}

fn stored(store: &RecordingStore) -> Vec<String> {
    let samples = store.samples.lock();
    let one = |(tenant, labels, timestamp, bits): &(TenantId, crate::model::Labels, i64, u64)| {
        format!("{tenant} {labels} {timestamp} {}", f64::from_bits(*bits))
    };
    samples.iter().map(one).collect()
}

#[tokio::test]
async fn known_series_are_recognised_and_tenants_kept_apart() {
    let (store, ingest) = ingest(IngestLimits::default());
    let (a, b) = (Sender::of(TenantId::new("a").unwrap()), Sender::of(TenantId::new("b").unwrap()));
    let one = compress(&write_request(&[up("x").sample(1, 1.0), up("y").sample(1, 2.0)], &[]));
    let two = compress(&write_request2(&[up("y").sample(2, 3.0)]));
    for _ in 0..2 {
        assert_eq!(ingest.remote_write_v1(&a, one.clone()).await.unwrap().samples, 2);
    }
    ingest.remote_write_v1(&b, one).await.unwrap();
    ingest.remote_write_v2(&a, two.clone()).await.unwrap();
    ingest.remote_write_v2(&a, two).await.unwrap();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(count(&ingest.counters().new_series), 5);
    assert_eq!(count(&ingest.counters().known_series), 3);
    assert_eq!(count(&ingest.counters().samples), 8);
    assert_eq!(ingest.known_series(), 5);
    assert_eq!(
        stored(&store)[..3],
        [
            r#"a {__name__="up", job="x"} 1 1"#,
            r#"a {__name__="up", job="y"} 1 2"#,
            r#"a {__name__="up", job="x"} 1 1"#
        ]
    );
    assert_eq!(stored(&store)[6..], [r#"a {__name__="up", job="y"} 2 3"#; 2]);
}

#[tokio::test]
async fn good_samples_are_kept_when_others_are_bad() {
    let (store, ingest) = ingest(IngestLimits::default());
    *store.oldest.lock() = Some(0);
    let tenant = Sender::of(TenantId::anonymous());
    let ahead = NOW.0 + 10 * 60_000 + 1;
    let series = [
        Series::new(&[("job", "nameless")]).sample(1, 1.0).sample(2, 1.0),
        up("a").sample(1, 1.0).sample(ahead, 2.0).sample(-5, 3.0),
        Series::new(&[("__name__", "up"), ("job", "a"), ("job", "b")]).sample(1, 1.0),
        up("b").sample(ahead - 1, 4.0),
    ];
    for version in [Version::One, Version::Two] {
        store.samples.lock().clear();
        let outcome = match version {
            Version::One => ingest.remote_write_v1(&tenant, compress(&write_request(&series, &[]))).await,
            Version::Two => ingest.remote_write_v2(&tenant, compress(&write_request2(&series))).await,
        }
        .unwrap();
        assert_eq!(
            stored(&store),
            [
                r#"anonymous {__name__="up", job="a"} 1 1"#.to_owned(),
                format!(r#"anonymous {{__name__="up", job="b"}} {} 4"#, ahead - 1)
            ]
        );
        assert_eq!(outcome.samples, 2);
        assert_eq!(
            outcome.rejected.to_string(),
            format!(
                "5 rejected: 1 too_far_in_future, 2 missing_metric_name, 1 duplicate_label_name, \
                 1 sample_too_old\n\
                 {{__name__=\"up\", job=\"a\"}} at {ahead}: the timestamp is too far in the future\n\
                 {{job=\"nameless\"}}: the series has no metric name\n\
                 {{__name__=\"up\", job=\"a\", job=\"b\"}}: two labels have the same name\n\
                 {{__name__=\"up\", job=\"a\"}} at -5: the sample is older than the retention"
            )
        );
    }
}

#[tokio::test]
async fn the_protocols_differ_on_unsorted_labels() {
    let (store, ingest) = ingest(IngestLimits::default());
    let tenant = Sender::of(TenantId::anonymous());
    let series = [Series::new(&[("job", "a"), ("__name__", "up")]).sample(1, 1.0)];
    let outcome = ingest.remote_write_v1(&tenant, compress(&write_request(&series, &[]))).await.unwrap();
    assert!(outcome.rejected.is_empty());
    assert_eq!(stored(&store), [r#"anonymous {__name__="up", job="a"} 1 1"#]);
    let outcome = ingest.remote_write_v2(&tenant, compress(&write_request2(&series))).await.unwrap();
    assert_eq!(outcome.rejected.by_reason, [("labels_not_sorted", 1)]);
}

#[tokio::test]
async fn metadata_is_remembered_once_it_is_written() {
    let (store, ingest) = ingest(IngestLimits::default());
    let tenant = Sender::of(TenantId::anonymous());
    let metadata = Metadata {
        metric: "up".to_owned(),
        kind: MetricType::Gauge,
        help: "Is it?".to_owned(),
        unit: String::new(),
    };
    let series = Series { metadata: Some(metadata.clone()), ..up("a").sample(1, 1.0) };
    let body = compress(&write_request2(&[series]));
    *store.fail.lock() = Some(StorageError::Unavailable { detail: "closing".to_owned(), retry_after: None });
    assert!(matches!(ingest.remote_write_v2(&tenant, body.clone()).await, Err(IngestError::Storage(_))));
    assert_eq!(ingest.remote_write_v2(&tenant, body.clone()).await.unwrap().metadata, 1);
    assert_eq!(ingest.remote_write_v2(&tenant, body).await.unwrap().metadata, 0);
    assert_eq!(*store.metadata.lock(), std::slice::from_ref(&metadata));
    let body = compress(&write_request(&[], &[metadata]));
    assert_eq!(ingest.remote_write_v1(&tenant, body).await.unwrap().metadata, 1);
}

#[tokio::test]
async fn new_limits_check_every_series_again() {
    let (_, ingest) = ingest(IngestLimits::default());
    let tenant = Sender::of(TenantId::anonymous());
    let body = compress(&write_request(&[up("abc").sample(1, 1.0)], &[]));
    assert!(ingest.remote_write_v1(&tenant, body.clone()).await.unwrap().rejected.is_empty());
    let limits = TenantLimits::default().with(Limit::LabelValueBytes, 2);
    let stricter = Sender { limits: Arc::new(limits), ..tenant };
    let outcome = ingest.remote_write_v1(&stricter, body).await.unwrap();
    assert_eq!(outcome.rejected.by_reason, [("label_value_too_long", 1)]);
}

#[tokio::test]
async fn more_than_the_budget_is_turned_away_and_comes_again() {
    let limits = IngestLimits { max_in_flight_bytes: 4096, ..IngestLimits::default() };
    let (store, ingest) = ingest(limits);
    let tenant = Sender::of(TenantId::anonymous());
    let body = compress(&write_request(&vec![up("a").sample(1, 1.0); 100], &[]));
    let closed = store.gate.lock().await;
    let first = ingest.remote_write_v1(&tenant, body.clone());
    tokio::pin!(first);
    tokio::select! {
        biased;
        done = &mut first => panic!("the store is closed, yet: {done:?}"),
        () = tokio::task::yield_now() => {}
    }
    let second = ingest.remote_write_v1(&tenant, body.clone()).await;
    assert!(matches!(second, Err(IngestError::Overloaded { .. })), "{second:?}");
    drop(closed);
    assert_eq!(first.await.unwrap().samples, 100);
    assert_eq!(ingest.remote_write_v1(&tenant, body).await.unwrap().samples, 100);
}

#[tokio::test]
async fn a_large_request_is_read_elsewhere_with_the_same_result() {
    let (store, ingest) = ingest(IngestLimits::default());
    let series: Vec<_> = (0..20_000).map(|i| up(&i.to_string()).sample(i, 1.0)).collect();
    let plain = write_request(&series, &[]);
    assert!(plain.len() > INLINE_BYTES);
    let outcome = ingest.remote_write_v1(&Sender::of(TenantId::anonymous()), compress(&plain)).await.unwrap();
    assert_eq!(outcome.samples, 20_000);
    assert_eq!(stored(&store)[19_999], r#"anonymous {__name__="up", job="19999"} 19999 1"#);
}

#[tokio::test]
async fn requests_that_do_not_decode_are_errors() {
    let (store, ingest) = ingest(IngestLimits::default());
    let tenant = Sender::of(TenantId::anonymous());
    let garbage = Bytes::from_static(b"\x05hello");
    assert!(matches!(ingest.remote_write_v1(&tenant, garbage).await, Err(IngestError::Decode(_))));
    let cut = compress(&write_request(&[up("a").sample(1, 1.0)], &[])[..10]);
    assert!(matches!(ingest.remote_write_v1(&tenant, cut).await, Err(IngestError::Decode(_))));
    let huge = compress(&vec![0; 33 << 20]);
    assert!(matches!(ingest.remote_write_v2(&tenant, huge).await, Err(IngestError::TooLarge { .. })));
    // Not even the compressed nothing: the sender must not take it for written.
    assert!(matches!(ingest.remote_write_v1(&tenant, Bytes::new()).await, Err(IngestError::Decode(_))));
    for _ in 0..2 {
        assert_eq!(ingest.remote_write_v1(&tenant, compress(&[])).await.unwrap(), Outcome::default());
    }
    assert!(stored(&store).is_empty());
    assert_eq!(ingest.counters().failed_requests.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn labels_that_are_not_text_are_shown_as_well_as_can_be() {
    let (_, ingest) = ingest(IngestLimits::default());
    let mut request = Encoder::default();
    request.message(1, |m| {
        label(m, "__name__", "up");
        m.message(1, |m| {
            m.bytes(1, b"a\"\n").bytes(2, b"\xff\xfe");
        });
        m.message(2, |m| {
            m.int64(2, 1);
        });
    });
    let outcome =
        ingest.remote_write_v1(&Sender::of(TenantId::anonymous()), compress(&request.0)).await.unwrap();
    assert_eq!(
        outcome.rejected.to_string(),
        "1 rejected: 1 label_invalid_utf8\n{__name__=\"up\", a\\\"\\n=\"\u{fffd}\u{fffd}\"}: a label is not UTF-8"
    );
}
