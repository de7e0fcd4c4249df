use super::*;
use crate::{
    clock::{Clock, HandClock},
    model::TenantId,
    promql::{Engine, EngineOptions, memory::Memory},
    query::{QueryLimits, journal::By},
    storage::{BatchSample, Storage, WriteBatch, memory::MemoryStore},
};

/// Series with a thousand samples each.
const SERIES: u32 = 100;

/// A service over [`SERIES`], and so many bytes of memory.
async fn service(bytes: u64, limits: QueryLimits) -> (Arc<QueryService>, Arc<Memory>) {
    let clock: Arc<dyn Clock> = HandClock::at(Timestamp(1_000));
    let store: Arc<dyn Storage> = MemoryStore::new(Arc::clone(&clock), None);
    let labels = |i: u32| Labels::from_pairs([("__name__", "up"), ("i", &i.to_string())]).unwrap();
    let mut batch = WriteBatch::over((0..SERIES).map(labels).collect());
    let sample = |series, at| BatchSample { series, timestamp: Timestamp(at), value: 1.0, start: 0 };
    batch.samples = (0..SERIES).flat_map(|series| (1..=1_000).map(move |at| sample(series, at))).collect();
    store.append(&TenantId::anonymous(), batch).await.unwrap();
    let engine = Engine::new(Arc::clone(&store), EngineOptions::default(), Arc::clone(&clock)).unwrap();
    let memory = Memory::new(bytes);
    let service = QueryService::new(Arc::new(engine), store, clock, limits);
    (Arc::new(service.with_memory(Arc::clone(&memory))), memory)
}

fn reader() -> Reader {
    Reader::of(TenantId::anonymous())
}

fn all() -> Vec<ReadQuery> {
    let range = TimeRange::new(Timestamp(1), Timestamp(1_000));
    vec![ReadQuery { matchers: vec![Matcher::equal("__name__", "up")], range }]
}

/// Samples up to the end, and why it came early.
async fn to_the_end(mut read: RemoteRead) -> (usize, Option<String>) {
    let mut samples = 0;
    loop {
        match read.recv().await {
            Some(Ok(part)) => samples += part.series.iter().map(|(_, samples)| samples.len()).sum::<usize>(),
            Some(Err(failure)) => return (samples, Some(failure.to_string())),
            None => return (samples, None),
        }
    }
}

#[tokio::test]
async fn what_is_held_is_of_the_memory_that_queries_share() {
    const MIB: u64 = 1 << 20;
    let refused =
        |most: &str| Some(format!("over the limit query.max_memory of {most}, which all queries share"));
    for (bytes, samples, chunks) in [
        (64 * MIB, (100_000, None), (100_000, None)),
        // It is enough for samples, and not for an answer of them.
        (4 * MIB, (0, refused("4MiB")), (100_000, None)),
        (MIB, (0, refused("1MiB")), (0, refused("1MiB"))),
    ] {
        let (service, memory) = service(bytes, QueryLimits::default()).await;
        let (reader, origin) = (reader(), Origin::default());
        let whole = service.remote_read(&reader, all(), &origin).await.unwrap();
        assert_eq!(to_the_end(whole).await, samples, "{bytes}");
        let stream = service.remote_read_stream(&reader, all(), &origin).await.unwrap();
        assert_eq!(to_the_end(stream).await, chunks, "{bytes}");
        assert_eq!(memory.held(), 0);
    }
}

#[tokio::test]
async fn it_is_listed_while_it_is_read_and_can_be_ended() {
    let (service, memory) = service(u64::MAX, QueryLimits::default()).await;
    let reader = reader();
    let origin = Origin { who: "me".to_owned(), ..Origin::default() };
    let mut read = service.remote_read_stream(&reader, all(), &origin).await.unwrap();
    assert!(read.recv().await.unwrap().is_ok());
    let listed = service.active().list(Some(&reader.view));
    let [query] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((query.text.as_str(), query.origin.who.as_str()), (r#"remote read of {__name__="up"}"#, "me"));
    assert_eq!((query.asked.start, query.asked.end), (Timestamp(1), Timestamp(1_000)));
    assert!(query.is_running() && memory.held() > 0);
    assert_eq!((query.ticket().samples_read(), query.ticket().series()), (100_000, 100));
    service.active().find(Some(&reader.view), query.id).unwrap().cancel();
    // What waits to be taken still comes.
    let (samples, why) = to_the_end(read).await;
    assert!(samples < 100_000);
    assert_eq!(why.as_deref(), Some("query was canceled in remote read"));
    assert_eq!((service.active().list(None).len(), memory.held()), (0, 0));
    let told = service.journal().expensive(&reader.view, By::Count, 10);
    assert_eq!((told.len(), told[0].count), (1, 1));
}

#[tokio::test]
async fn who_waits_too_long_for_a_place_is_told_and_listed_no_more() {
    let limits = QueryLimits { timeout: std::time::Duration::from_millis(20), ..QueryLimits::default() };
    let (service, _) = service(u64::MAX, limits).await;
    let (reader, origin) = (reader(), Origin::default());
    let mut held = Vec::new();
    for _ in 0..MAX_READS {
        held.push(service.remote_reads.enter(&TenantId::anonymous()).await.unwrap());
    }
    let refused = service.remote_read(&reader, all(), &origin).await.unwrap_err();
    assert_eq!(refused.to_string(), "query timed out in query queue");
    assert!(service.active().list(None).is_empty());
}

#[tokio::test]
async fn what_is_federated_is_of_the_same_memory_and_written_down() {
    let federate = async |bytes: u64| {
        let (service, memory) = service(bytes, QueryLimits::default()).await;
        let selectors = ["up".to_owned(), "{}".to_owned()];
        let found = service.federate(&reader(), &selectors, &Origin::default()).await;
        let found = found.map(|found| {
            assert!(memory.held() > 0);
            found.newest.len()
        });
        assert_eq!((service.active().list(None).len(), memory.held()), (0, 0));
        let told = service.journal().expensive(&reader().view, By::Count, 10);
        assert_eq!(told[0].text, "federation of up and {}");
        found.map_err(|failure| failure.to_string())
    };
    // A series of two selectors comes once.
    assert_eq!(federate(1 << 20).await, Ok(100));
    assert!(federate(1 << 10).await.unwrap_err().contains("query.max_memory of 1KiB"));
}
