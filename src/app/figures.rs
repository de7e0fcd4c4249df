//! What the parts count of themselves, under the names that are shown outside.

pub(super) mod auth;
pub(super) mod clickhouse;
pub(super) mod limits;
pub(super) mod redis;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    gateway::health::Readiness,
    ingest::Ingest,
    promql::memory::Memory,
    query::{
        QueryService,
        cache::{RangeCache, second::SecondCounters},
        journal::Outcome,
    },
    storage::{
        Health, Storage,
        embedded::EmbeddedStore,
        latency::{self, Latencies},
    },
    telemetry::{Figure, Source, as_value},
};

fn read(counter: &AtomicU64) -> f64 {
    as_value(counter.load(Ordering::Relaxed))
}

fn read_micros(counter: &AtomicU64) -> f64 {
    read(counter) / 1e6
}

fn read_millis(counter: &AtomicU64) -> f64 {
    read(counter) / 1e3
}

fn counter(name: &'static str, help: &'static str, count: &AtomicU64) -> Figure {
    Figure::counter(name, help, read(count))
}

fn gauge(name: &'static str, help: &'static str, count: &AtomicU64) -> Figure {
    Figure::gauge(name, help, read(count))
}

fn latencies(name: &'static str, help: &'static str, latencies: &Latencies) -> Figure {
    Figure::histogram(name, help, &latency::BOUNDS, &latencies.counts(), latencies.sum().as_secs_f64())
}

/// Gives the figures of the write path.
pub(super) fn ingest(ingest: Arc<Ingest>) -> Source {
    Box::new(move || {
        let c = ingest.counters();
        let known = u64::try_from(ingest.known_series()).unwrap_or(u64::MAX);
        vec![
            counter("luminate_ingest_requests", "Write requests that came", &c.requests),
            counter(
                "luminate_ingest_failed_requests",
                "Write requests that ended in an error",
                &c.failed_requests,
            ),
            counter("luminate_ingest_received_bytes", "Bytes of writes as they came", &c.compressed_bytes),
            counter(
                "luminate_ingest_decompressed_bytes",
                "Bytes of writes, decompressed",
                &c.decompressed_bytes,
            ),
            counter("luminate_ingest_samples", "Float samples written", &c.samples),
            counter("luminate_ingest_histograms", "Native histograms written", &c.histograms),
            counter("luminate_ingest_exemplars", "Exemplars written", &c.exemplars),
            counter("luminate_ingest_metadata", "Metadata entries written", &c.metadata),
            counter(
                "luminate_ingest_rejected_samples",
                "Samples, histograms and exemplars refused",
                &c.rejected,
            ),
            counter(
                "luminate_ingest_dropped_metadata",
                "Metadata entries that were no use",
                &c.dropped_metadata,
            ),
            counter("luminate_ingest_bad_lines", "Lines of imports that cannot be read", &c.bad_lines),
            counter(
                "luminate_ingest_recognised_series",
                "Series of writes that were recognised by their bytes",
                &c.known_series,
            ),
            counter(
                "luminate_ingest_parsed_series",
                "Series of writes whose labels had to be read",
                &c.new_series,
            ),
            counter(
                "luminate_ingest_overloaded_requests",
                "Write requests refused while too many bytes were being worked on",
                &c.overloaded,
            ),
            Figure::gauge("luminate_ingest_known_series", "Series that would be recognised", as_value(known)),
        ]
    })
}

/// Gives the figures of the query service.
pub(super) fn query(query: Arc<QueryService>, memory: Arc<Memory>) -> Source {
    Box::new(move || {
        let count = |n: usize| as_value(u64::try_from(n).unwrap_or(u64::MAX));
        let c = &query.journal().counters;
        let mut figures = vec![
            Figure::gauge("luminate_query_running", "Queries being evaluated", count(query.running())),
            Figure::gauge("luminate_query_waiting", "Queries that wait for a place", count(query.waiting())),
            Figure::gauge(
                "luminate_query_memory_bytes",
                "About the bytes that queries hold",
                as_value(memory.held()),
            ),
            Figure::gauge(
                "luminate_query_memory_limit_bytes",
                "Bytes that queries may hold",
                as_value(memory.most()),
            ),
            latencies(
                "luminate_query_duration_seconds",
                "How long queries took, waiting included",
                &c.durations,
            ),
            latencies("luminate_query_wait_seconds", "How long queries waited for a place", &c.waits),
            counter("luminate_query_samples_read", "Samples that queries read", &c.samples_read),
            counter("luminate_query_series", "Series that queries selected", &c.series),
            counter("luminate_query_slow", "Queries that took longer than is normal", &c.slow),
        ];
        figures.extend(Outcome::ALL.map(|outcome| {
            let ended = counter("luminate_query_ended", "Queries by what became of them", c.ended(outcome));
            ended.with("outcome", outcome.as_str())
        }));
        figures.extend(query.cache().map(cache).into_iter().flatten());
        figures
    })
}

/// Gives the figures of the answers that are kept.
fn cache(cache: &RangeCache) -> Vec<Figure> {
    let c = cache.counters();
    let (bytes, entries) = cache.size();
    let count = |n: usize| as_value(u64::try_from(n).unwrap_or(u64::MAX));
    let looked = |outcome, counted| {
        let help = "Range queries by how much of their answers was kept";
        counter("luminate_query_cache_lookups", help, counted).with("outcome", outcome)
    };
    let steps = |source, counted| {
        let help = "Steps of range queries by where they came from";
        counter("luminate_query_cache_steps", help, counted).with("source", source)
    };
    let mut figures = vec![
        Figure::gauge("luminate_query_cache_bytes", "About the bytes that kept answers take", count(bytes)),
        Figure::gauge("luminate_query_cache_entries", "Answers that are kept", count(entries)),
        looked("hit", &c.hits),
        looked("partial", &c.partial),
        looked("miss", &c.misses),
        looked("passed", &c.passed),
        steps("kept", &c.kept_steps),
        steps("evaluated", &c.evaluated_steps),
        counter(
            "luminate_query_cache_unfit",
            "Range queries evaluated as a whole because their pieces did not fit together",
            &c.unfit,
        ),
        counter("luminate_query_cache_evictions", "Answers that went to make room", &c.evictions),
    ];
    figures.extend(cache.second().map(|second| shared_cache(second.counters())).into_iter().flatten());
    figures
}

/// Gives the figures of the answers that are kept for all gateways.
fn shared_cache(c: &SecondCounters) -> Vec<Figure> {
    let looked = |outcome, counted| {
        let help = "Looks for an answer that another gateway has kept, by what became of them";
        counter("luminate_query_cache_shared_lookups", help, counted).with("outcome", outcome)
    };
    let sent = |outcome, counted| {
        let help = "Answers sent to be kept for all gateways";
        counter("luminate_query_cache_shared_writes", help, counted).with("outcome", outcome)
    };
    vec![
        looked("hit", &c.found),
        looked("miss", &c.missing),
        looked("garbled", &c.garbled),
        looked("away", &c.away),
        sent("sent", &c.sent),
        sent("not_sent", &c.not_sent),
    ]
}

/// Gives the figures of our own engine.
pub(super) fn embedded(store: Arc<EmbeddedStore>) -> Source {
    Box::new(move || {
        let c = &*store.counters();
        vec![
            counter("luminate_wal_bytes", "Bytes written to the log", &c.wal_bytes),
            counter("luminate_wal_records", "Records written to the log", &c.wal_records),
            counter(
                "luminate_wal_writes",
                "Writes to the log, each of which carries what was waiting",
                &c.wal_writes,
            ),
            counter("luminate_wal_fsyncs", "Times the log was made durable", &c.wal_fsyncs),
            Figure::counter(
                "luminate_wal_fsync_seconds",
                "Time spent making the log durable",
                read_micros(&c.wal_fsync_micros),
            ),
            latencies(
                "luminate_wal_fsync_latency_seconds",
                "How long making the log durable took, each time",
                &c.wal_fsync_latency,
            ),
            counter("luminate_wal_failures", "Writes and syncs of the log that failed", &c.wal_failures),
            counter("luminate_wal_segments", "Segments the log has begun", &c.wal_segments),
            gauge("luminate_head_series", "Series in memory", &c.head_series),
            gauge("luminate_head_samples", "Samples in memory", &c.head_samples),
            gauge("luminate_head_bytes", "About the bytes the series in memory take", &c.head_bytes),
            counter(
                "luminate_storage_appended_samples",
                "Samples appended, without those that were there already",
                &c.samples_appended,
            ),
            counter(
                "luminate_storage_duplicate_samples",
                "Samples that were there already",
                &c.samples_duplicate,
            ),
            counter(
                "luminate_storage_out_of_order_samples",
                "Samples that came out of time order",
                &c.samples_out_of_order,
            ),
            counter("luminate_storage_rejected_samples", "Samples the store refused", &c.samples_rejected),
            counter(
                "luminate_storage_memory_refusals",
                "Writes refused, or the series that they would have begun, because memory was short",
                &c.memory_refused,
            ),
            counter(
                "luminate_storage_rejected_metadata",
                "Metadata entries refused, a tenant having too much of it",
                &c.metadata_rejected,
            ),
            counter("luminate_storage_created_series", "Series created", &c.series_created),
            counter("luminate_flush_runs", "Flushes done", &c.flushes),
            counter("luminate_flush_failures", "Flushes that failed", &c.flush_failures),
            Figure::counter("luminate_flush_seconds", "Time spent flushing", read_micros(&c.flush_micros)),
            counter("luminate_flush_written_bytes", "Bytes of parts that flushes wrote", &c.flush_bytes),
            counter("luminate_compaction_runs", "Merges of parts done", &c.merges),
            counter(
                "luminate_compaction_written_bytes",
                "Bytes of parts that merges and rewrites wrote",
                &c.merge_bytes,
            ),
            counter(
                "luminate_compaction_cleaned_parts",
                "Parts rewritten for what was hidden in them, without being asked",
                &c.parts_cleaned,
            ),
            counter(
                "luminate_compaction_downsampled_parts",
                "Parts rewritten because samples in them were old enough to be downsampled",
                &c.parts_downsampled,
            ),
            counter(
                "luminate_compaction_downsampled_samples",
                "Samples that downsampling has put together: so many fewer are there",
                &c.samples_downsampled,
            ),
            counter(
                "luminate_compaction_ended_deletes",
                "Deletes that hide nothing any more, and so ended by themselves",
                &c.tombstones_ended,
            ),
            counter("luminate_compaction_failures", "Merges of parts that failed", &c.merge_failures),
            gauge("luminate_storage_parts", "Sealed parts that serve", &c.parts),
            gauge(
                "luminate_storage_quarantined_files",
                "Files set aside because they do not read back",
                &c.quarantined,
            ),
            gauge(
                "luminate_recovery_lost_samples",
                "Samples of the log that could not be replayed at the start",
                &c.replay_lost,
            ),
            gauge(
                "luminate_recovery_unclean",
                "Whether the process that had the store before ended without closing it",
                &c.unclean_start,
            ),
            gauge("luminate_recovery_samples", "Samples replayed at the start", &c.replay_samples),
            Figure::gauge(
                "luminate_storage_last_backup_timestamp_seconds",
                "When the last backup at a URL was made of this store; 0 if none was",
                store
                    .last_backup()
                    .and_then(|last| u64::try_from(last.made_ms).ok())
                    .map_or(0.0, |made_ms| as_value(made_ms) / 1e3),
            ),
            Figure::gauge(
                "luminate_recovery_seconds",
                "Time the store took to open",
                read_micros(&c.open_micros),
            ),
        ]
    })
}

/// Gives whether the store can do its work, and whether we want requests.
pub(super) fn health(storage: Arc<dyn Storage>, readiness: Arc<Readiness>) -> Source {
    Box::new(move || {
        let health = storage.health();
        let ready = f64::from(u8::from(readiness.check(&health).is_ok()));
        let (writes, reads) = match health {
            Health::Ready => (1.0, 1.0),
            Health::ReadOnly { .. } => (0.0, 1.0),
            Health::Starting { .. } | Health::Unavailable { .. } => (0.0, 0.0),
        };
        vec![
            Figure::gauge(
                "luminate_gateway_ready",
                "Whether requests are wanted, as health checks say",
                ready,
            ),
            Figure::gauge("luminate_storage_takes_writes", "Whether the store takes writes", writes),
            Figure::gauge("luminate_storage_answers_reads", "Whether the store answers reads", reads),
        ]
    })
}

/// Gives the bytes on the data directory's disk: ours by kind, and those that are free.
pub(super) fn disk(data_dir: PathBuf) -> Source {
    Box::new(move || {
        let help = "Bytes that the data directory takes on disk";
        let mut figures: Vec<Figure> = entries(&data_dir)
            .map(|path| {
                let kind = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
                let bytes = as_value(bytes_below(&path));
                Figure::gauge("luminate_disk_used_bytes", help, bytes).with("kind", kind)
            })
            .collect();
        if let Ok(volume) = rustix::fs::statvfs(&data_dir) {
            let bytes = |blocks: u64| as_value(blocks.saturating_mul(volume.f_frsize));
            let free = "Bytes that are free on the data directory's disk";
            figures.push(Figure::gauge("luminate_disk_free_bytes", free, bytes(volume.f_bavail)));
            let size = "The size of the data directory's disk";
            figures.push(Figure::gauge("luminate_disk_size_bytes", size, bytes(volume.f_blocks)));
        }
        figures
    })
}

/// What is in a directory, by name; what vanishes meanwhile is not there.
fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths.into_iter()
}

fn bytes_below(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => entries(path).map(|inner| bytes_below(&inner)).sum(),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::FigureValue;

    #[test]
    fn the_disk_is_told_by_kind() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("parts/20260101")).unwrap();
        fs::write(dir.path().join("parts/20260101/a.part"), [0; 100]).unwrap();
        fs::write(dir.path().join("BALLAST"), [0; 7]).unwrap();
        let figures = disk(dir.path().to_owned())();
        let used: Vec<_> = figures.iter().filter(|f| f.name == "luminate_disk_used_bytes").collect();
        assert_eq!(used[0].labels, [("kind", "ballast".to_owned())]);
        assert_eq!(used[0].value, FigureValue::Gauge(7.0));
        assert_eq!(used[1].labels, [("kind", "parts".to_owned())]);
        assert_eq!(used[1].value, FigureValue::Gauge(100.0));
        assert!(figures.iter().any(|f| f.name == "luminate_disk_free_bytes"));
    }

    #[test]
    fn a_directory_that_is_not_there_takes_nothing() {
        assert!(disk(PathBuf::from("/nowhere"))().is_empty());
    }
}
