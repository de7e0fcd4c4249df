#!/usr/bin/env python3
"""Writes dashboards/*.json from the panels below: dashboards.py [--check]

What all panels share stands here once; what is shown stands in the lists. With --check nothing is written, and the
exit code tells whether the files are what would be.
"""

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "dashboards"

# What every selector has; a dashboard without it would mix installations.
HERE = 'job=~"$job",instance=~"$instance"'
RATE = "$__rate_interval"
BROKEN = 'status=~"5.."'
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

GOOD, WARN, BAD = "green", "orange", "red"


def at(metric, *matchers):
    """A metric of the chosen instances."""
    return f"{metric}{{{','.join([HERE, *matchers])}}}"


def rate(metric, *matchers):
    """What a counter grows by in a second."""
    return f"rate({at(metric, *matchers)}[{RATE}])"


def total(metric, *matchers, by=""):
    """The same, of all that are alike."""
    return f"sum by ({by}) ({rate(metric, *matchers)})" if by else f"sum({rate(metric, *matchers)})"


def quantile(q, metric, *matchers, by=()):
    """Of a histogram."""
    return f"histogram_quantile({q}, sum by ({', '.join(['le', *by])}) ({rate(metric + '_bucket', *matchers)}))"


def quantiles(metric, *matchers):
    """The three that tell most."""
    return [(quantile(q, metric, *matchers), f"p{q * 100:g}") for q in (0.5, 0.9, 0.99)]


def mean(metric_sum, metric_count, *matchers, by="instance"):
    """What each took, on average; nothing where there was none."""
    return f"{total(metric_sum, *matchers, by=by)} / {total(metric_count, *matchers, by=by)}"


def failed(metric):
    """The share of requests that were answered 5xx; none failed where no such status was ever seen."""
    everything = total(metric)
    broken = total(metric, BROKEN)
    return f"({broken} or 0 * {everything}) / {everything}"


def budget_left(metric):
    """How much of the errors that 99.9 % allow has not happened."""
    everything = f"sum(increase({at(metric)}[$__range]))"
    broken = f"sum(increase({at(metric, BROKEN)}[$__range]))"
    return f"1 - ({broken} or 0 * {everything}) / {everything} / 0.001"


def steps(*pairs):
    """Colours from values on; the first from the lowest."""
    first, *rest = pairs
    return {
        "mode": "absolute",
        "steps": [{"color": first, "value": None}, *({"color": color, "value": value} for value, color in rest)],
    }


def panel(
    kind, title, targets, unit="short", help="", colours=None, width=8, height=8, stack=False, lowest=0, mappings=()
):
    """A panel: targets are pairs of an expression and its legend; `help` says what to make of it."""
    options, custom = {}, {}
    if kind == "timeseries":
        options = {
            "legend": {
                "displayMode": "table",
                "placement": "bottom",
                "calcs": ["lastNotNull", "max"],
                "showLegend": True,
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
        custom = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 20 if stack else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if stack else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if colours else "off"},
        }
    elif kind == "stat":
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "background" if colours else "value",
            "graphMode": "area",
            "textMode": "auto",
        }
    elif kind == "heatmap":
        options = {
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
            "yAxis": {"unit": unit},
            "tooltip": {"mode": "single"},
            "legend": {"show": True},
        }
    elif kind == "bargauge":
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "displayMode": "lcd",
            "orientation": "horizontal",
        }
    defaults = {"unit": unit, "custom": custom, "thresholds": colours or steps(GOOD), "mappings": list(mappings)}
    if lowest is not None:
        defaults["min"] = lowest
    queries = [
        {
            "refId": chr(ord("A") + place),
            "datasource": DATASOURCE,
            "expr": expression,
            "legendFormat": legend,
            "range": True,
            "instant": False,
            "format": "heatmap" if kind == "heatmap" else "time_series",
        }
        for place, (expression, legend) in enumerate(targets)
    ]
    return {
        "type": kind,
        "title": title,
        "description": help,
        "datasource": DATASOURCE,
        "targets": queries,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "gridPos": {"w": width, "h": height},
    }


def lines(title, targets, unit="short", help="", **more):
    return panel("timeseries", title, targets, unit, help, **more)


def stat(title, expression, unit="short", help="", **more):
    return panel("stat", title, [(expression, "")], unit, help, width=more.pop("width", 4), height=4, **more)


def heat(title, metric, *matchers, help=""):
    return panel("heatmap", title, [(total(metric + "_bucket", *matchers, by="le"), "{{le}}")], "s", help, width=12)


def row(title):
    return {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"w": 24, "h": 1}}


YES_NO = [{"type": "value", "options": {"0": {"text": "no", "index": 0}, "1": {"text": "yes", "index": 1}}}]
BAD_IF_NO = steps(BAD, (1, GOOD))
BAD_IF_ANY = steps(GOOD, (1, BAD))
WARN_IF_ANY = steps(GOOD, (1, WARN))
ERRORS = steps(GOOD, (0.001, WARN), (0.01, BAD))
SHARE = steps(GOOD, (0.8, WARN), (0.9, BAD))

INSTANCE = "{{instance}}"

OVERVIEW = [
    row("Now"),
    stat("Instances", f"count({at('luminate_build_info')})"),
    stat("Ready", f"sum({at('luminate_gateway_ready')})", help="That want requests.", colours=BAD_IF_NO),
    stat("Samples a second", total("luminate_ingest_samples_total"), "cps"),
    stat("Queries a second", total("luminate_query_requests_total"), "reqps"),
    stat("Writes that fail", failed("luminate_write_requests_total"), "percentunit", "Answered 5xx.", colours=ERRORS),
    stat("Queries that fail", failed("luminate_query_requests_total"), "percentunit", "Answered 5xx.", colours=ERRORS),
    row("Writes"),
    lines(
        "Requests by status",
        [(total("luminate_write_requests_total", by="status"), "{{status}}")],
        "reqps",
        "204 is taken; 429 is over a limit; 503 is come again.",
        stack=True,
    ),
    lines("Samples taken", [(total("luminate_ingest_samples_total", by="instance"), INSTANCE)], "cps", stack=True),
    lines("Time to acknowledge", quantiles("luminate_write_latency_seconds"), "s", colours=steps(GOOD, (2.5, BAD))),
    row("Queries"),
    lines(
        "Requests by status", [(total("luminate_query_requests_total", by="status"), "{{status}}")], "reqps", stack=True
    ),
    lines(
        "Requests by endpoint",
        [(total("luminate_query_requests_total", by="endpoint"), "{{endpoint}}")],
        "reqps",
        stack=True,
    ),
    lines(
        "Time to answer",
        quantiles("luminate_query_latency_seconds", 'endpoint=~"query|query_range"'),
        "s",
        colours=steps(GOOD, (10, BAD)),
    ),
    row("Error budget: 99.9 % over 30 days"),
    lines(
        "Left of the budget in the time shown",
        [
            (budget_left("luminate_write_requests_total"), "writes"),
            (budget_left("luminate_query_requests_total"), "queries"),
        ],
        "percentunit",
        "1 is all of it; below 0 more has failed than may. Show 30 days to see the objective.",
        width=12,
        lowest=None,
    ),
    lines(
        "Share of requests that fail",
        [(failed("luminate_write_requests_total"), "writes"), (failed("luminate_query_requests_total"), "queries")],
        "percentunit",
        "At 1.44 % the budget of 30 days lasts two.",
        width=12,
        colours=steps(GOOD, (0.0144, BAD)),
    ),
    row("What it takes"),
    lines("Memory", [(at("luminate_process_resident_memory_bytes"), INSTANCE)], "bytes"),
    lines("Processors", [(total("luminate_process_cpu_seconds_total", by="instance"), INSTANCE)], "none"),
    lines(
        "Requests being answered",
        [(f"sum by (endpoint) ({at('luminate_http_in_flight_requests')})", "{{endpoint}}")],
        stack=True,
    ),
]

WRITES = [
    row("Requests"),
    lines("By status", [(total("luminate_write_requests_total", by="status"), "{{status}}")], "reqps", stack=True),
    lines(
        "Being answered",
        [(at("luminate_http_in_flight_requests", 'endpoint=~"write|import"'), "{{instance}} {{endpoint}}")],
    ),
    lines(
        "Failed",
        [(total("luminate_ingest_failed_requests_total", by="instance"), INSTANCE)],
        "reqps",
        "Ended in any error.",
    ),
    lines(
        "Time to acknowledge",
        quantiles("luminate_write_latency_seconds"),
        "s",
        width=12,
        colours=steps(GOOD, (2.5, BAD)),
    ),
    heat("Time to acknowledge, all of them", "luminate_write_latency_seconds"),
    row("What comes in"),
    lines("Samples", [(total("luminate_ingest_samples_total", by="instance"), INSTANCE)], "cps", stack=True),
    lines(
        "Native histograms, exemplars, metadata",
        [
            (total("luminate_ingest_histograms_total"), "histograms"),
            (total("luminate_ingest_exemplars_total"), "exemplars"),
            (total("luminate_ingest_metadata_total"), "metadata"),
        ],
        "cps",
    ),
    lines(
        "Bytes",
        [
            (total("luminate_ingest_received_bytes_total"), "received"),
            (total("luminate_ingest_decompressed_bytes_total"), "decompressed"),
        ],
        "Bps",
    ),
    lines(
        "Series of writes",
        [
            (total("luminate_ingest_recognised_series_total"), "recognised by their bytes"),
            (total("luminate_ingest_parsed_series_total"), "read anew"),
        ],
        "cps",
        "Many that are read anew are series that change, or senders that change their order.",
    ),
    lines("Series that would be recognised", [(at("luminate_ingest_known_series"), INSTANCE)]),
    lines(
        "Samples a request",
        [(mean("luminate_ingest_samples_total", "luminate_ingest_requests_total"), INSTANCE)],
        "none",
        "Few make every write dear: raise max_samples_per_send of the sender.",
    ),
    row("What does not"),
    lines(
        "Rejected samples",
        [(total("luminate_ingest_rejected_samples_total", by="instance"), INSTANCE)],
        "cps",
        "For good: too old, too far ahead, badly labelled, over a limit.",
    ),
    lines(
        "Sent away because of too much work",
        [(total("luminate_ingest_overloaded_requests_total", by="instance"), INSTANCE)],
        "reqps",
        "Senders come again.",
    ),
    lines(
        "Of no use",
        [
            (total("luminate_ingest_bad_lines_total"), "lines of imports"),
            (total("luminate_ingest_dropped_metadata_total"), "metadata"),
        ],
        "cps",
    ),
]

QUERIES = [
    row("Requests"),
    lines(
        "By endpoint", [(total("luminate_query_requests_total", by="endpoint"), "{{endpoint}}")], "reqps", stack=True
    ),
    lines(
        "By status",
        [(total("luminate_query_requests_total", by="status"), "{{status}}")],
        "reqps",
        "422 is over a limit of the query; 503 is too late, or no store.",
        stack=True,
    ),
    lines("That fail", [(failed("luminate_query_requests_total"), "5xx")], "percentunit", colours=ERRORS),
    row("Time"),
    lines(
        "Range queries",
        quantiles("luminate_query_latency_seconds", 'endpoint="query_range"'),
        "s",
        colours=steps(GOOD, (10, BAD)),
    ),
    lines(
        "Instant queries",
        quantiles("luminate_query_latency_seconds", 'endpoint="query"'),
        "s",
        colours=steps(GOOD, (10, BAD)),
    ),
    lines("Series, labels, metadata", quantiles("luminate_query_latency_seconds", 'endpoint="catalog"'), "s"),
    heat("Range queries, all of them", "luminate_query_latency_seconds", 'endpoint="query_range"'),
    heat("Instant queries, all of them", "luminate_query_latency_seconds", 'endpoint="query"'),
    row("Room"),
    lines("Being evaluated", [(at("luminate_query_running"), INSTANCE)], help="At most query.max_concurrency."),
    lines("Waiting for a place", [(at("luminate_query_waiting"), INSTANCE)], colours=steps(GOOD, (1, WARN))),
    lines(
        "Other requests",
        [(total("luminate_http_requests_total", by="endpoint, status"), "{{endpoint}} {{status}}")],
        "reqps",
    ),
]

TENANTS = [
    row("Limits"),
    lines(
        "Over a limit",
        [(total("luminate_rate_limit_exceeded_total", by="limit"), "{{limit}}")],
        "cps",
        "Requests, or series of those taken in part. Who it was is in the log, and at /api/v1/status/rejections for each tenant.",
        width=12,
    ),
    lines(
        "Near the series they may have",
        [(f"max by (used) ({at('luminate_limits_crowded_tenants')})", "{{used}} and more")],
        "none",
        "Tenants with a bound on max_active_series.",
        width=12,
        colours=WARN_IF_ANY,
    ),
    lines(
        "Refused before the body was read",
        [(total("luminate_limits_unread_requests_total", by="instance"), INSTANCE)],
        "reqps",
    ),
    lines(
        "Imports that waited",
        [(total("luminate_limits_waits_total"), "times"), (total("luminate_limits_waited_seconds_total"), "seconds")],
        "none",
    ),
    lines(
        "Tenants with limits of their own",
        [(f"max by (source) ({at('luminate_limits_tenants')})", "{{source}}")],
        "none",
    ),
    row("Who is let in"),
    lines("Not let in", [(total("luminate_auth_failures_total", by="reason"), "{{reason}}")], "reqps", stack=True),
    lines(
        "Tokens",
        [
            (total("luminate_auth_tokens_verified_total"), "verified"),
            (total("luminate_auth_tokens_recognised_total"), "recognised"),
            (total("luminate_auth_tokens_recognised_bad_total"), "recognised as bad"),
            (total("luminate_auth_tokens_undecided_total"), "undecided"),
        ],
        "reqps",
    ),
    lines("Tokens refused", [(total("luminate_auth_tokens_refused_total", by="reason"), "{{reason}}")], "reqps"),
    lines(
        "API keys",
        [
            (total("luminate_auth_key_cache_hits_total", by="verdict"), "remembered, {{verdict}}"),
            (total("luminate_auth_key_lookups_total"), "looked up"),
            (total("luminate_auth_key_store_failures_total"), "store failed"),
            (total("luminate_auth_key_stale_total"), "taken though the store is away"),
        ],
        "reqps",
    ),
    lines("Keys that tokens are held against", [(at("luminate_auth_token_keys"), INSTANCE)], "none"),
    lines(
        "Age of fetched keys",
        [(at("luminate_auth_token_keys_age_seconds"), INSTANCE)],
        "s",
        colours=steps(GOOD, (3600, BAD)),
    ),
    row("What is read again"),
    lines(
        "Read the last time it changed",
        [(at("luminate_config_last_reload_successful"), "{{instance}} {{part}}")],
        "none",
        "1 is yes; at 0 what held before holds on.",
        width=12,
    ),
    lines(
        "Addresses whose bad credentials are remembered", [(at("luminate_auth_suspects"), INSTANCE)], "none", width=12
    ),
]

STORAGE = [
    row("Now"),
    stat("Takes writes", f"min({at('luminate_storage_takes_writes')})", "none", colours=BAD_IF_NO, mappings=YES_NO),
    stat("Answers reads", f"min({at('luminate_storage_answers_reads')})", "none", colours=BAD_IF_NO, mappings=YES_NO),
    stat(
        "Files set aside",
        f"sum({at('luminate_storage_quarantined_files')})",
        "none",
        "Their checksums do not hold.",
        colours=BAD_IF_ANY,
    ),
    stat("Samples lost at the last start", f"sum({at('luminate_recovery_lost_samples')})", "none", colours=BAD_IF_ANY),
    stat(
        "Last stop was a crash", f"max({at('luminate_recovery_unclean')})", "none", colours=WARN_IF_ANY, mappings=YES_NO
    ),
    stat("Time to start", f"max({at('luminate_recovery_seconds')})", "s"),
    row("Disk"),
    lines("Used, by kind", [(f"sum by (kind) ({at('luminate_disk_used_bytes')})", "{{kind}}")], "bytes", stack=True),
    lines(
        "Free",
        [(at("luminate_disk_free_bytes"), "{{instance}} free"), (at("luminate_disk_size_bytes"), "{{instance}} size")],
        "bytes",
    ),
    lines(
        "Share that is used",
        [(f"1 - {at('luminate_disk_free_bytes')} / {at('luminate_disk_size_bytes')}", INSTANCE)],
        "percentunit",
        colours=steps(GOOD, (0.8, WARN), (0.95, BAD)),
    ),
    row("Samples"),
    lines(
        "Appended",
        [
            (total("luminate_storage_appended_samples_total"), "new"),
            (total("luminate_storage_duplicate_samples_total"), "there already"),
            (total("luminate_storage_out_of_order_samples_total"), "out of order"),
            (total("luminate_storage_rejected_samples_total"), "refused"),
        ],
        "cps",
    ),
    lines("Series in memory", [(at("luminate_head_series"), INSTANCE)]),
    lines("Series begun", [(total("luminate_storage_created_series_total", by="instance"), INSTANCE)], "cps"),
    lines("Samples in memory", [(at("luminate_head_samples"), INSTANCE)]),
    lines("Memory of series", [(at("luminate_head_bytes"), INSTANCE)], "bytes"),
    lines("Bytes a series", [(f"{at('luminate_head_bytes')} / {at('luminate_head_series')}", INSTANCE)], "bytes"),
    row("Log"),
    lines(
        "fsync",
        quantiles("luminate_wal_fsync_latency_seconds"),
        "s",
        "Every write waits for one.",
        colours=steps(GOOD, (0.5, BAD)),
    ),
    lines("Written", [(total("luminate_wal_bytes_total", by="instance"), INSTANCE)], "Bps"),
    lines(
        "Writes and fsyncs",
        [
            (total("luminate_wal_records_total"), "records"),
            (total("luminate_wal_writes_total"), "writes"),
            (total("luminate_wal_fsyncs_total"), "fsyncs"),
        ],
        "ops",
        "Records that wait together share a write and an fsync.",
    ),
    heat("fsync, all of them", "luminate_wal_fsync_latency_seconds"),
    lines(
        "Time at fsync",
        [(total("luminate_wal_fsync_seconds_total", by="instance"), INSTANCE)],
        "percentunit",
        "At 1 the disk is what writes wait for.",
        width=6,
    ),
    lines(
        "Failures",
        [(f"sum by (instance) (increase({at('luminate_wal_failures_total')}[{RATE}]))", INSTANCE)],
        "none",
        width=6,
        colours=BAD_IF_ANY,
    ),
    row("Parts"),
    lines("Parts that serve", [(at("luminate_storage_parts"), INSTANCE)]),
    lines(
        "Flushes and merges",
        [
            (f"sum(increase({at('luminate_flush_runs_total')}[1h]))", "flushes in an hour"),
            (f"sum(increase({at('luminate_compaction_runs_total')}[1h]))", "merges in an hour"),
        ],
        "none",
    ),
    lines(
        "Flushes and merges that failed",
        [
            (f"sum(increase({at('luminate_flush_failures_total')}[1h]))", "flushes in an hour"),
            (f"sum(increase({at('luminate_compaction_failures_total')}[1h]))", "merges in an hour"),
        ],
        "none",
        colours=BAD_IF_ANY,
    ),
]

CLICKHOUSE = [
    row("Servers"),
    stat(
        "Servers that answer",
        f"min({at('luminate_clickhouse_reachable_servers')})",
        "none",
        "As the gateway sees it that sees fewest.",
        colours=BAD_IF_NO,
    ),
    stat("Takes writes", f"min({at('luminate_storage_takes_writes')})", "none", colours=BAD_IF_NO, mappings=YES_NO),
    stat("Most parts in a partition", f"max({at('luminate_clickhouse_partition_parts')})", "none"),
    stat("Read-only tables", f"max({at('luminate_clickhouse_read_only_tables')})", "none", colours=WARN_IF_ANY),
    stat(
        "Queue",
        f"max({at('luminate_clickhouse_queue_bytes')} / {at('luminate_clickhouse_queue_limit_bytes')})",
        "percentunit",
        colours=SHARE,
    ),
    stat(
        "Inserts that fail",
        f"{total('luminate_clickhouse_failed_inserts_total')} / {total('luminate_clickhouse_inserts_total')}",
        "percentunit",
        colours=ERRORS,
    ),
    lines(
        "Given up",
        [(f"max by (server) ({at('luminate_clickhouse_breaker_open')})", "{{server}}")],
        "none",
        "1 until it answers a probe.",
    ),
    lines(
        "Statements under way", [(f"sum by (server) ({at('luminate_clickhouse_in_flight_statements')})", "{{server}}")]
    ),
    lines("Failures", [(total("luminate_clickhouse_failures_total", by="class"), "{{class}}")], "ops"),
    lines(
        "Statements",
        [
            (total("luminate_clickhouse_statements_total"), "sent"),
            (total("luminate_clickhouse_retries_total"), "sent again"),
            (total("luminate_clickhouse_refused_statements_total"), "refused, no server answering"),
            (total("luminate_clickhouse_killed_statements_total"), "ended for want of interest"),
        ],
        "ops",
    ),
    lines(
        "Breakers and probes",
        [
            (total("luminate_clickhouse_breaker_opens_total"), "given up"),
            (total("luminate_clickhouse_probes_total"), "probes"),
            (total("luminate_clickhouse_failed_probes_total"), "probes not answered"),
        ],
        "ops",
    ),
    lines(
        "Parts in the fullest partition",
        [
            (f"max({at('luminate_clickhouse_partition_parts')})", "parts"),
            (f"max({at('luminate_clickhouse_partition_parts_delay')})", "inserts wait from"),
            (f"max({at('luminate_clickhouse_partition_parts_limit')})", "inserts are refused from"),
        ],
        "none",
    ),
    row("Inserts"),
    lines(
        "Time",
        quantiles("luminate_clickhouse_insert_latency_seconds"),
        "s",
        "Every write waits for one.",
        colours=steps(GOOD, (2, BAD)),
    ),
    lines(
        "Inserts",
        [
            (total("luminate_clickhouse_inserts_total"), "sent"),
            (total("luminate_clickhouse_asked_inserts_total"), "asked of the client"),
            (total("luminate_clickhouse_failed_inserts_total"), "failed"),
            (total("luminate_clickhouse_split_inserts_total"), "sent again in halves"),
            (total("luminate_clickhouse_too_many_parts_total"), "refused, too many parts"),
        ],
        "ops",
    ),
    lines(
        "Rows an insert",
        [(mean("luminate_clickhouse_inserted_rows_total", "luminate_clickhouse_inserts_total"), INSTANCE)],
        "none",
        "Few rows make many parts.",
    ),
    lines("Rows", [(total("luminate_clickhouse_inserted_rows_total", by="instance"), INSTANCE)], "cps"),
    lines(
        "Bytes",
        [
            (total("luminate_clickhouse_inserted_bytes_total"), "sent, before compression"),
            (total("luminate_clickhouse_acknowledged_bytes_total"), "acknowledged"),
        ],
        "Bps",
    ),
    lines(
        "Queue",
        [
            (at("luminate_clickhouse_queue_bytes"), INSTANCE),
            (f"max({at('luminate_clickhouse_queue_limit_bytes')})", "senders are sent away from"),
        ],
        "bytes",
    ),
    lines(
        "Waiting",
        [
            (at("luminate_clickhouse_waiting_requests"), "{{instance}} requests"),
            (at("luminate_clickhouse_queue_rows"), "{{instance}} rows"),
            (at("luminate_clickhouse_inserts_in_flight"), "{{instance}} inserts being sent"),
        ],
    ),
    lines("Sent away", [(total("luminate_clickhouse_refused_requests_total", by="instance"), INSTANCE)], "reqps"),
    lines(
        "Series",
        [
            (total("luminate_clickhouse_registered_series_total"), "made known"),
            (total("luminate_clickhouse_forgotten_series_total"), "forgotten to make room"),
            (total("luminate_clickhouse_awaited_series_total"), "awaited"),
        ],
        "cps",
    ),
    lines("Series known to be there", [(at("luminate_clickhouse_known_series"), INSTANCE)], width=12),
    lines(
        "Samples",
        [
            (total("luminate_clickhouse_written_samples_total"), "written"),
            (total("luminate_clickhouse_rejected_samples_total"), "refused"),
        ],
        "cps",
        width=12,
    ),
    row("Reads"),
    lines(
        "Statements",
        [
            (total("luminate_clickhouse_series_statements_total"), "for series and labels"),
            (total("luminate_clickhouse_sample_statements_total"), "for samples"),
        ],
        "ops",
    ),
    lines(
        "Selections",
        [
            (total("luminate_clickhouse_selects_total"), "answered"),
            (total("luminate_clickhouse_cancelled_selects_total"), "given up"),
        ],
        "ops",
    ),
    lines(
        "Read",
        [
            (total("luminate_clickhouse_read_series_total"), "series"),
            (total("luminate_clickhouse_read_samples_total"), "samples"),
            (total("luminate_clickhouse_read_histograms_total"), "histograms"),
        ],
        "cps",
    ),
    lines(
        "Bytes received",
        [
            (total("luminate_clickhouse_received_bytes_total"), "all"),
            (total("luminate_clickhouse_read_bytes_total"), "samples"),
        ],
        "Bps",
    ),
    lines(
        "Work done by the servers",
        [
            (total("luminate_clickhouse_taken_offers_total"), "taken"),
            (total("luminate_clickhouse_declined_offers_total"), "declined"),
            (total("luminate_clickhouse_pushdown_fallbacks_total"), "failed, done here"),
        ],
        "ops",
    ),
    lines(
        "Functions the servers compute",
        [(f"max by (exactness) ({at('luminate_clickhouse_proven_functions')})", "{{exactness}}")],
        "none",
    ),
    row("In the background"),
    lines(
        "Behind with rolling up",
        [(at("luminate_clickhouse_rollup_lag_seconds"), INSTANCE)],
        "s",
        "0 where storage.clickhouse.rollups is off.",
    ),
    lines(
        "Windows",
        [
            (total("luminate_clickhouse_rolled_windows_total"), "rolled up"),
            (total("luminate_clickhouse_rerolled_windows_total"), "again"),
            (total("luminate_clickhouse_failed_rollup_passes_total"), "failed passes"),
            (total("luminate_clickhouse_rollup_selects_total"), "selections answered"),
        ],
        "ops",
    ),
    lines(
        "Tombstones",
        [
            (total("luminate_clickhouse_written_tombstones_total"), "written"),
            (total("luminate_clickhouse_applied_tombstones_total"), "applied"),
            (total("luminate_clickhouse_heeded_tombstones_total"), "heeded by look-ups"),
        ],
        "ops",
    ),
]

REDIS = [
    row("Now"),
    stat(
        "Gateways that do without", f"sum({at('luminate_redis_fallback_active')})", "none", colours=WARN_IF_ANY, width=6
    ),
    stat("Calls a second", total("luminate_redis_calls_total"), "ops", width=6),
    stat(
        "Calls that fail",
        f"{total('luminate_redis_failed_calls_total')} / {total('luminate_redis_calls_total')}",
        "percentunit",
        colours=ERRORS,
        width=6,
    ),
    stat(
        "Memory",
        f"max({at('luminate_redis_memory_used_bytes')}) / max({at('luminate_redis_memory_limit_bytes')})",
        "percentunit",
        "Of maxmemory.",
        colours=SHARE,
        width=6,
    ),
    row("Redis"),
    lines(
        "Does without",
        [
            (at("luminate_redis_fallback_active"), "{{instance}} without"),
            (at("luminate_redis_breaker_open"), "{{instance}} left alone"),
        ],
        "none",
        "1 is yes. Each gateway then holds tenants to its share of their limits.",
    ),
    lines(
        "Calls",
        [
            (total("luminate_redis_calls_total"), "made"),
            (total("luminate_redis_failed_calls_total"), "failed"),
            (total("luminate_redis_late_calls_total"), "late"),
            (total("luminate_redis_skipped_calls_total"), "not made"),
        ],
        "ops",
    ),
    lines("Time a call", [(mean("luminate_redis_call_seconds_total", "luminate_redis_calls_total"), INSTANCE)], "s"),
    lines(
        "Memory",
        [
            (f"max({at('luminate_redis_memory_used_bytes')})", "used"),
            (f"max({at('luminate_redis_memory_limit_bytes')})", "maxmemory"),
        ],
        "bytes",
    ),
    lines(
        "Connections",
        [
            (total("luminate_redis_connections_total", by="instance"), "{{instance}} made"),
            (total("luminate_redis_lost_total", by="instance"), "{{instance}} lost"),
        ],
        "ops",
    ),
    lines(
        "API keys looked up",
        [
            (total("luminate_auth_key_lookups_total"), "looked up"),
            (total("luminate_auth_key_store_failures_total"), "store failed"),
        ],
        "ops",
    ),
    row("Rates that are limited"),
    lines(
        "Over a rate",
        [(total("luminate_rate_limit_exceeded_total", 'limit=~".*_per_second|.*_burst"', by="limit"), "{{limit}}")],
        "cps",
        width=12,
    ),
    lines(
        "Answered 429",
        [
            (total("luminate_write_requests_total", 'status=~"204|429"', by="status"), "writes {{status}}"),
            (total("luminate_query_requests_total", 'status=~"200|429"', by="status"), "queries {{status}}"),
        ],
        "reqps",
        "Beside those that were taken.",
        width=12,
    ),
]

RESOURCES = [
    row("Process"),
    lines(
        "Memory",
        [
            (at("luminate_process_resident_memory_bytes"), "{{instance}} used"),
            (at("luminate_process_memory_limit_bytes"), "{{instance}} limit"),
        ],
        "bytes",
    ),
    lines(
        "Share of the memory",
        [(f"{at('luminate_process_resident_memory_bytes')} / {at('luminate_process_memory_limit_bytes')}", INSTANCE)],
        "percentunit",
        colours=SHARE,
    ),
    lines(
        "Processors",
        [
            (total("luminate_process_cpu_seconds_total", by="instance"), "{{instance}} used"),
            (at("luminate_process_cpu_limit_cores"), "{{instance}} limit"),
        ],
        "none",
    ),
    lines(
        "Share of the processors",
        [
            (
                f"{total('luminate_process_cpu_seconds_total', by='job, instance')} / on (job, instance) {at('luminate_process_cpu_limit_cores')}",
                INSTANCE,
            )
        ],
        "percentunit",
        colours=SHARE,
    ),
    lines(
        "Open files",
        [
            (at("luminate_process_open_fds"), "{{instance}} open"),
            (at("luminate_process_max_fds"), "{{instance}} limit"),
        ],
        "none",
    ),
    lines("Threads", [(at("luminate_process_threads"), INSTANCE)], "none"),
    row("Connections"),
    lines("Open", [(at("luminate_listener_connections"), "{{instance}} {{listener}}")], "none"),
    lines(
        "Share of those there may be",
        [
            (
                f"{at('luminate_listener_connections')} / {at('luminate_listener_max_connections')}",
                "{{instance}} {{listener}}",
            )
        ],
        "percentunit",
        colours=SHARE,
    ),
    lines(
        "Come and closed at once",
        [
            (total("luminate_listener_accepted_connections_total", by="listener"), "{{listener}} came"),
            (
                total("luminate_listener_refused_connections_total", by="listener"),
                "{{listener}} closed, too many of a client",
            ),
        ],
        "cps",
    ),
    lines(
        "Requests being answered",
        [(f"sum by (endpoint) ({at('luminate_http_in_flight_requests')})", "{{endpoint}}")],
        stack=True,
    ),
    row("Life"),
    lines("Up for", [(f"time() - {at('luminate_process_start_time_seconds')}", INSTANCE)], "s"),
    lines(
        "Starts in an hour",
        [(f"changes({at('luminate_process_start_time_seconds')}[1h])", INSTANCE)],
        "none",
        colours=steps(GOOD, (3, BAD)),
    ),
    lines("Versions", [(f"count by (version) ({at('luminate_build_info')})", "{{version}}")], "none", stack=True),
    lines(
        "Certificates end in",
        [(f"{at('luminate_tls_certificate_expiry_timestamp_seconds')} - time()", INSTANCE)],
        "s",
        colours=steps(BAD, (172800, WARN), (1209600, GOOD)),
        lowest=None,
    ),
    lines(
        "Certificates read anew",
        [
            (f"increase({at('luminate_tls_reloads_total')}[1h])", "{{instance}} read"),
            (f"increase({at('luminate_tls_reload_failures_total')}[1h])", "{{instance}} could not be read"),
        ],
        "none",
        "In an hour.",
    ),
    row("Canary: `luminate admin canary`, a job of its own"),
    lines(
        "Since it last read back what it wrote",
        [("time() - max by (job) (luminate_canary_last_success_timestamp_seconds)", "{{job}}")],
        "s",
        colours=steps(GOOD, (300, BAD)),
    ),
    lines(
        "Rounds that failed",
        [(f"sum by (stage) (increase(luminate_canary_failed_rounds_total[{RATE}]))", "{{stage}}")],
        "none",
        "By the first stage that did.",
        colours=WARN_IF_ANY,
    ),
    lines(
        "Until what is acknowledged is seen",
        [
            (
                f"histogram_quantile({q}, sum by (le) (rate(luminate_canary_visible_seconds_bucket[{RATE}])))",
                f"p{q * 100:g}",
            )
            for q in (0.5, 0.99)
        ],
        "s",
    ),
    lines(
        "Values compared, and not as they were",
        [
            (f"sum(rate(luminate_canary_checked_values_total[{RATE}]))", "compared"),
            (f"sum(rate(luminate_canary_wrong_values_total[{RATE}]))", "wrong"),
            (f"sum(rate(luminate_canary_missing_values_total[{RATE}]))", "missing"),
        ],
        "cps",
        width=12,
    ),
    lines(
        "Rounds",
        [("sum by (job) (rate(luminate_canary_rounds_total[" + RATE + "]))", "{{job}}")],
        "ops",
        width=12,
    ),
]

# What each is called, its file, the variable's metric that says who has something to show, and its panels.
DASHBOARDS = [
    ("overview", "Luminate / Overview", "luminate_build_info", OVERVIEW),
    ("writes", "Luminate / Writes", "luminate_build_info", WRITES),
    ("queries", "Luminate / Queries", "luminate_build_info", QUERIES),
    ("tenants", "Luminate / Tenants and limits", "luminate_build_info", TENANTS),
    ("storage", "Luminate / Embedded storage", "luminate_head_series", STORAGE),
    ("clickhouse", "Luminate / ClickHouse", "luminate_clickhouse_reachable_servers", CLICKHOUSE),
    ("redis", "Luminate / Redis and rate limits", "luminate_redis_fallback_active", REDIS),
    ("resources", "Luminate / Resources", "luminate_build_info", RESOURCES),
]


def laid_out(panels):
    """Panels from left to right, in rows of 24, numbered."""
    left = top = tallest = 0
    for number, placed in enumerate(panels, 1):
        place = placed["gridPos"]
        if left + place["w"] > 24:
            left, top, tallest = 0, top + tallest, 0
        yield {"id": number, **placed, "gridPos": {**place, "x": left, "y": top}}
        left, tallest = left + place["w"], max(tallest, place["h"])


def variable(name, query):
    """Jobs, or instances, of which any number are chosen."""
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"variable-{name}"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard(name, title, metric, panels):
    return {
        "uid": f"luminate-{name}",
        "title": title,
        "tags": ["luminate"],
        "schemaVersion": 41,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "browser",
        "time": {"from": "now-1h", "to": "now"},
        "links": [
            {
                "type": "dashboards",
                "title": "Luminate",
                "tags": ["luminate"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "external link",
                "url": "",
                "tooltip": "",
            }
        ],
        "annotations": {"list": []},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                    "refresh": 1,
                    "current": {},
                },
                variable("job", f"label_values({metric}, job)"),
                variable("instance", f'label_values({metric}{{job=~"$job"}}, instance)'),
            ]
        },
        "panels": list(laid_out(panels)),
    }


def main():
    texts = {
        FOLDER / f"{name}.json": json.dumps(dashboard(name, *rest), indent=1, ensure_ascii=False) + "\n"
        for name, *rest in DASHBOARDS
    }
    if sys.argv[1:] == ["--check"]:
        there = {path: path.read_text() for path in FOLDER.glob("*.json")}
        stale = sorted(path.name for path in texts.keys() | there.keys() if texts.get(path) != there.get(path))
        if stale:
            sys.exit(f"not what deployments/monitoring/dashboards.py writes: {', '.join(stale)}")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        FOLDER.mkdir(exist_ok=True)
        for path, text in texts.items():
            path.write_text(text)


if __name__ == "__main__":
    main()
