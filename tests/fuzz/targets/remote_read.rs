//! Any body is answered or refused; what is answered by samples is answered by chunks, too, and both read back.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use luminate::{
    clock::{Clock, HandClock},
    gateway::wire::remote_read::{
        ReadRequest, ReadRequestError, ReadResponse, ResponseWriter, read_frames, write_frames,
    },
    model::{
        Histogram, Labels, TenantId, TimeRange, Timestamp,
        histogram::{Counts, ResetHint, Span},
        stale_nan,
    },
    promql::{Engine, EngineOptions},
    query::{Origin, QueryLimits, QueryService, ReadPart, ReadQuery, Reader},
    storage::{BatchHistogram, BatchSample, Storage, WriteBatch, memory::MemoryStore},
};
use tokio::runtime::{Builder, Runtime};

/// Queries of a request that are answered.
const QUERIES: usize = 8;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime starts"));

static SERVICE: LazyLock<Arc<QueryService>> = LazyLock::new(|| {
    let clock: Arc<dyn Clock> = HandClock::at(Timestamp(10_000));
    let store: Arc<dyn Storage> = MemoryStore::new(Arc::clone(&clock), None);
    RUNTIME.block_on(store.append(&TenantId::anonymous(), batch())).expect("memory takes samples");
    let engine = Engine::new(Arc::clone(&store), EngineOptions::default(), Arc::clone(&clock));
    let engine = Arc::new(engine.expect("an engine starts"));
    Arc::new(QueryService::new(engine, store, clock, QueryLimits::default()))
});

/// Floats and histograms from the year 1970 on, and at the ends of time.
fn batch() -> WriteBatch {
    let labels =
        |name: &str, job: &str| Labels::from_pairs([("__name__", name), ("job", job)]).expect("labels");
    let mut batch = WriteBatch::over(vec![labels("up", "a"), labels("up", "b"), labels("native", "a")]);
    for i in 0..300_u32 {
        let (timestamp, value) =
            (Timestamp(i64::from(i) * 10), if i == 77 { stale_nan() } else { f64::from(i).sqrt() });
        batch.samples.push(BatchSample { series: i % 2, timestamp, value, start: 0 });
        let buckets = vec![i64::from(i % 9), 1];
        let histogram = Histogram {
            schema: 1,
            zero_threshold: 0.0,
            sum: value,
            reset_hint: if i % 31 == 0 { ResetHint::Yes } else { ResetHint::Unknown },
            positive_spans: vec![Span { offset: i32::from(i > 150), length: 2 }],
            negative_spans: vec![],
            counts: Counts::Integer {
                count: u64::from(i),
                zero_count: 0,
                positive: buckets,
                negative: vec![],
            },
            custom_values: vec![],
        };
        batch.histograms.push(BatchHistogram {
            series: 2,
            timestamp,
            histogram: Arc::new(histogram),
            start: 0,
        });
    }
    for timestamp in [i64::MIN, i64::MAX] {
        batch.samples.push(BatchSample { series: 0, timestamp: Timestamp(timestamp), value: 1.0, start: 0 });
    }
    batch
}

fuzz_target!(|input: (bool, &[u8])| {
    let (compress, bytes) = input;
    // What somebody else sends as a stream.
    for series in read_frames(bytes).into_iter().flatten().flat_map(|frame| frame.chunked_series) {
        let _ = series.samples();
    }
    let body = if compress {
        &snap::raw::Encoder::new().compress_vec(bytes).expect("snappy takes any input")
    } else {
        bytes
    };
    let Ok(request) = ReadRequest::read(body) else { return };
    let _ = request.response_type();
    let query = |query: &luminate::gateway::wire::remote_read::Query| {
        let (start, end) = (Timestamp(query.start_timestamp_ms), Timestamp(query.end_timestamp_ms));
        Ok(ReadQuery { matchers: query.matchers()?, range: TimeRange::new(start, end) })
    };
    let queries = request.queries.iter().take(QUERIES).map(query);
    let Ok(queries) = queries.collect::<Result<Vec<_>, ReadRequestError>>() else { return };
    let (mut whole, mut frames) = (ResponseWriter::new(queries.len()), Vec::new());
    // It is made on the runtime, and so not from within.
    let service = &*SERVICE;
    let count = RUNTIME.block_on(async {
        let reader = Reader::of(TenantId::anonymous());
        let mut read = service.remote_read(&reader, queries, &Origin::default()).await.expect("there is a place");
        let mut count = 0;
        while let Some(part) = read.recv().await {
            let ReadPart { query, series } = part.expect("memory is read");
            for (labels, samples) in &series {
                count += samples.len();
                whole.add(query, labels, samples);
                write_frames(query, labels, samples, &mut frames);
            }
        }
        count
    });
    let whole =
        ReadResponse::read(&whole.finish().expect("it compresses")).expect("what was written reads back");
    let series = whole.results.iter().flat_map(|result| &result.timeseries);
    assert_eq!(count, series.map(|series| series.samples.len() + series.histograms.len()).sum::<usize>());
    let frames = read_frames(&frames).expect("frames read back");
    let series = frames.iter().flat_map(|frame| &frame.chunked_series);
    assert_eq!(count, series.map(|series| series.samples().expect("chunks read back").len()).sum::<usize>());
});
