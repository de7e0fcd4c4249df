//! What the store over ClickHouse counts, under the names that are shown outside.

use std::sync::Arc;

use super::{counter, gauge, latencies, read_micros};
use crate::{
    storage::clickhouse::{
        ClickHouseStore,
        client::{BreakerState, EndpointState},
        pushdown::probe::Exactness,
    },
    telemetry::{Figure, Source, as_value},
};

/// Gives the figures of the client, and what kinds of failures it had.
pub(in crate::app) fn client(store: Arc<ClickHouseStore>) -> Source {
    Box::new(move || {
        let c = store.client_counters();
        let failed = |class: &str, count| {
            let help = "Attempts that failed, by what was to be done about it";
            counter("luminate_clickhouse_failures", help, count).with("class", class)
        };
        vec![
            counter("luminate_clickhouse_statements", "Statements sent, each attempt of one", &c.requests),
            counter("luminate_clickhouse_retries", "Attempts after the first", &c.retries),
            counter("luminate_clickhouse_asked_inserts", "Inserts asked of the client", &c.inserts),
            counter(
                "luminate_clickhouse_acknowledged_bytes",
                "Bytes of rows that were inserted, before compression",
                &c.inserted_bytes,
            ),
            counter(
                "luminate_clickhouse_received_bytes",
                "Bytes of rows received, decompressed",
                &c.received_bytes,
            ),
            counter(
                "luminate_clickhouse_breaker_opens",
                "Times a server was given up until it answers a probe",
                &c.breaker_opens,
            ),
            counter(
                "luminate_clickhouse_refused_statements",
                "Statements refused because no server was known to answer",
                &c.refused,
            ),
            counter("luminate_clickhouse_probes", "Probes sent", &c.probes),
            counter("luminate_clickhouse_failed_probes", "Probes that were not answered", &c.probe_failures),
            counter(
                "luminate_clickhouse_killed_statements",
                "Statements ended on the server because nobody waited for them any more",
                &c.kills,
            ),
            counter(
                "luminate_clickhouse_too_many_parts",
                "Inserts that a server refused because a partition has too many parts",
                &c.failed_too_many_parts,
            ),
            failed("unreachable", &c.failed_unreachable),
            failed("overloaded", &c.failed_overloaded),
            failed("read_only", &c.failed_read_only),
            failed("exhausted", &c.failed_exhausted),
            failed("schema", &c.failed_schema),
            failed("denied", &c.failed_denied),
            failed("broken", &c.failed_broken),
        ]
    })
}

/// Gives how each server stands, and how near the tables are to being written to no more.
pub(in crate::app) fn servers(store: Arc<ClickHouseStore>) -> Source {
    Box::new(move || {
        let servers = store.servers();
        let size = |count: usize| as_value(u64::try_from(count).unwrap_or(u64::MAX));
        let is_open = |server: &EndpointState| server.breaker != BreakerState::Closed;
        let open = servers.iter().map(|server| {
            let help = "Whether a server is given up until it answers a probe";
            let value = f64::from(u8::from(is_open(server)));
            Figure::gauge("luminate_clickhouse_breaker_open", help, value)
                .with("server", server.address.clone())
        });
        let in_flight = servers.iter().map(|server| {
            let help = "Statements under way on a server";
            Figure::gauge("luminate_clickhouse_in_flight_statements", help, size(server.in_flight))
                .with("server", server.address.clone())
        });
        let mut figures: Vec<Figure> = open.chain(in_flight).collect();
        let reachable = servers.iter().filter(|server| !is_open(server)).count();
        figures.push(Figure::gauge(
            "luminate_clickhouse_reachable_servers",
            "Servers that statements are sent to",
            size(reachable),
        ));
        let Some(fullest) = store.parts() else { return figures };
        let gauges = [
            (
                "luminate_clickhouse_partition_parts",
                "Parts of the partition of ours that has most of them",
                fullest.parts,
            ),
            (
                "luminate_clickhouse_partition_parts_delay",
                "From how many parts in a partition on inserts are made to wait",
                fullest.delay,
            ),
            (
                "luminate_clickhouse_partition_parts_limit",
                "From how many parts in a partition on inserts are refused",
                fullest.refuse,
            ),
            (
                "luminate_clickhouse_read_only_tables",
                "Tables of ours that some server cannot write to now",
                fullest.read_only_tables,
            ),
        ];
        figures.extend(gauges.map(|(name, help, value)| Figure::gauge(name, help, as_value(value))));
        figures
    })
}

/// Gives the figures of the way in.
pub(in crate::app) fn writes(store: Arc<ClickHouseStore>) -> Source {
    Box::new(move || {
        let c = &*store.write_counters();
        vec![
            gauge(
                "luminate_clickhouse_queue_bytes",
                "Bytes of rows that wait or are being written",
                &c.queue_bytes,
            ),
            Figure::gauge(
                "luminate_clickhouse_queue_limit_bytes",
                "Bytes of rows that may wait or be written before senders are told to come back",
                as_value(u64::try_from(store.queue_limit_bytes()).unwrap_or(u64::MAX)),
            ),
            gauge("luminate_clickhouse_queue_rows", "Rows that wait to be written", &c.queue_rows),
            gauge(
                "luminate_clickhouse_waiting_requests",
                "Requests that wait for their rows to be written",
                &c.waiters,
            ),
            counter(
                "luminate_clickhouse_refused_requests",
                "Requests refused because too much is waiting",
                &c.overloads,
            ),
            counter("luminate_clickhouse_inserts", "Inserts sent, successful or not", &c.inserts),
            counter("luminate_clickhouse_failed_inserts", "Inserts that failed for good", &c.insert_failures),
            counter(
                "luminate_clickhouse_split_inserts",
                "Inserts sent again in two halves, the server not having the memory for the whole",
                &c.insert_splits,
            ),
            counter("luminate_clickhouse_inserted_rows", "Rows sent", &c.insert_rows),
            counter(
                "luminate_clickhouse_inserted_bytes",
                "Bytes of rows sent, before compression",
                &c.insert_bytes,
            ),
            Figure::counter(
                "luminate_clickhouse_insert_seconds",
                "Time inserts took",
                read_micros(&c.insert_micros),
            ),
            latencies(
                "luminate_clickhouse_insert_latency_seconds",
                "How long inserts took, with what was tried again",
                &c.insert_latency,
            ),
            gauge("luminate_clickhouse_inserts_in_flight", "Inserts being sent", &c.inserts_in_flight),
            counter("luminate_clickhouse_written_samples", "Samples written", &c.samples_written),
            counter(
                "luminate_clickhouse_rejected_samples",
                "Samples, histograms and exemplars refused",
                &c.samples_rejected,
            ),
            counter(
                "luminate_clickhouse_registered_series",
                "Series made known, once for each day",
                &c.series_registered,
            ),
            gauge(
                "luminate_clickhouse_known_series",
                "Series and days that are known to be there",
                &c.registry_entries,
            ),
            counter(
                "luminate_clickhouse_forgotten_series",
                "Series and days forgotten to make room",
                &c.registry_evictions,
            ),
            counter(
                "luminate_clickhouse_awaited_series",
                "Series that waited for another request to make them known",
                &c.registry_waits,
            ),
        ]
    })
}

/// Gives the figures of reading and deleting.
pub(in crate::app) fn reads(store: Arc<ClickHouseStore>) -> Source {
    Box::new(move || {
        let c = store.read_counters();
        vec![
            counter("luminate_clickhouse_selects", "Selections of samples answered", &c.selects),
            counter(
                "luminate_clickhouse_cancelled_selects",
                "Selections given up before all was read",
                &c.selects_cancelled,
            ),
            counter(
                "luminate_clickhouse_series_statements",
                "Statements that look for series or labels",
                &c.series_statements,
            ),
            counter("luminate_clickhouse_read_series", "Series that came back from them", &c.series_read),
            counter(
                "luminate_clickhouse_refused_patterns",
                "Patterns the servers refused, which were matched here alone",
                &c.patterns_refused,
            ),
            counter(
                "luminate_clickhouse_sample_statements",
                "Statements that read samples or histograms",
                &c.sample_statements,
            ),
            counter(
                "luminate_clickhouse_read_samples",
                "Float samples that came back from them, unwanted ones included",
                &c.samples_read,
            ),
            counter(
                "luminate_clickhouse_read_histograms",
                "Histograms that came back from them",
                &c.histograms_read,
            ),
            counter(
                "luminate_clickhouse_read_bytes",
                "Bytes of samples and histograms received, decompressed",
                &c.sample_bytes_read,
            ),
            counter(
                "luminate_clickhouse_heeded_tombstones",
                "Tombstones that look-ups had to heed",
                &c.tombstones_heeded,
            ),
            counter("luminate_clickhouse_written_tombstones", "Tombstones written", &c.tombstones_written),
            counter(
                "luminate_clickhouse_applied_tombstones",
                "Tombstones whose rows were removed",
                &c.tombstones_applied,
            ),
            counter(
                "luminate_clickhouse_cleaned_tombstones",
                "Tombstones that were cleaned",
                &c.tombstones_cleaned,
            ),
            counter(
                "luminate_clickhouse_delete_statements",
                "Statements that removed rows",
                &c.delete_statements,
            ),
        ]
    })
}

/// Gives the figures of what the servers compute for us.
pub(in crate::app) fn pushdown(store: Arc<ClickHouseStore>) -> Source {
    Box::new(move || {
        let c = &**store.pushdown_counters();
        let functions = store.pushdown_proven();
        let proven = |exactness, name: &str| {
            let count = functions.as_ref().map_or(0, |proven| proven.names(exactness).len());
            let help = "Functions the servers have shown to compute, by how near they come to ours";
            Figure::gauge("luminate_clickhouse_proven_functions", help, as_value(count as u64))
                .with("exactness", name)
        };
        vec![
            counter(
                "luminate_clickhouse_taken_offers",
                "Offers of which the servers took something",
                &c.taken,
            ),
            counter("luminate_clickhouse_declined_offers", "Offers of which they took nothing", &c.declined),
            counter(
                "luminate_clickhouse_pushdown_fallbacks",
                "Statements that failed before their first row, so that samples were read instead",
                &c.fallbacks,
            ),
            counter("luminate_clickhouse_computed_rows", "Rows the servers computed", &c.rows),
            counter("luminate_clickhouse_computed_places", "Places in those rows", &c.places),
            proven(Exactness::Bits, "bits"),
            proven(Exactness::Close, "close"),
        ]
    })
}

/// Gives the figures of windows that are rolled up.
pub(in crate::app) fn rollups(store: Arc<ClickHouseStore>) -> Source {
    Box::new(move || {
        let c = store.rollup_counters();
        vec![
            counter("luminate_clickhouse_rolled_windows", "Windows of tenants rolled up", &c.windows),
            counter(
                "luminate_clickhouse_rerolled_windows",
                "Windows of tenants rolled up again, because samples came late or went",
                &c.windows_again,
            ),
            counter(
                "luminate_clickhouse_rollup_passes",
                "Passes over closed windows that came to their end",
                &c.passes,
            ),
            counter("luminate_clickhouse_failed_rollup_passes", "Passes that did not", &c.passes_failed),
            gauge(
                "luminate_clickhouse_rollup_lag_seconds",
                "Time since the end of the last window that is rolled up",
                &c.lag_seconds,
            ),
            counter(
                "luminate_clickhouse_rollup_marks",
                "Marks made where samples came late or went",
                &c.marks,
            ),
            counter("luminate_clickhouse_cleared_rollup_marks", "Marks worked off", &c.marks_done),
            counter("luminate_clickhouse_rollup_selects", "Selections answered from windows", &c.reads),
            counter("luminate_clickhouse_read_windows", "Windows read for them", &c.rows_read),
        ]
    })
}
