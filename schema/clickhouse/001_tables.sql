-- The tables of version 1.
--
-- One text for a single server and for a cluster. {db} is our database. On a cluster {on_cluster} has every
-- server do it, {engine:table(arguments)} is replicated within a shard and {everywhere:table(arguments)} over
-- all of them, {dedup} names the deduplication window's setting there, {local} sets the rows of one server
-- apart as `table_local`, and a statement that begins with {cluster_only} makes the `table` of all of them.
-- So what reads and writes names the same tables on both. `luminate schema print` shows what comes of it.
--
-- `sid` and `mid` are the two halves of a series' id: xxh3 of its labels and of its metric's name. Time is
-- in milliseconds. `ret` is the class of retention in days; 65535 is forever.

-- Samples. Two different values at one time stay both until they are read: the greatest counts, so the
-- value's bits are part of the order (and cost nothing there), but not of the primary index.
CREATE TABLE IF NOT EXISTS {db}.samples{local}{on_cluster}
(
    tenant   LowCardinality(String) CODEC(ZSTD(1)),
    mid      UInt64 CODEC(Delta(8), ZSTD(1)),
    sid      UInt64 CODEC(Delta(8), ZSTD(1)),
    ts       Int64 CODEC(Delta(8), ZSTD(1)),
    value    Float64 CODEC(Delta(8), ZSTD(1)),
    start_ts Int64 DEFAULT 0 CODEC(Delta(8), ZSTD(1)),
    ret      UInt16 DEFAULT 65535 CODEC(ZSTD(1))
)
ENGINE = {engine:samples}
PARTITION BY (ret, toYYYYMMDD(toDateTime(intDiv(ts, 1000), 'UTC')))
PRIMARY KEY (tenant, intDiv(ts, 7200000), mid, sid, ts)
ORDER BY (tenant, intDiv(ts, 7200000), mid, sid, ts, reinterpretAsUInt64(value), start_ts)
TTL toDate(least(greatest(intDiv(ts, 86400000), 0) + ret, 65535)) + toIntervalDay(1)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, {dedup} = 10000;

-- Series: one row for each day on which they have samples. `labels` holds all of them, the name too.
-- `written` tells what was said again after a clean-up began from what it may remove.
CREATE TABLE IF NOT EXISTS {db}.series{local}{on_cluster}
(
    tenant LowCardinality(String) CODEC(ZSTD(1)),
    day    Date CODEC(ZSTD(1)),
    metric LowCardinality(String) CODEC(ZSTD(1)),
    mid    UInt64 CODEC(ZSTD(1)),
    sid    UInt64 CODEC(ZSTD(1)),
    labels Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ret    UInt16 DEFAULT 65535 CODEC(ZSTD(1)),
    written DateTime('UTC') DEFAULT now() CODEC(Delta(4), ZSTD(1)),
    INDEX kv arrayMap((k, v) -> concat(k, '=', v), mapKeys(labels), mapValues(labels)) TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = {engine:series(written)}
PARTITION BY (ret, day)
ORDER BY (tenant, metric, sid)
TTL toDate(least(toUInt32(day) + ret, 65535)) + toIntervalDay(1)
SETTINGS index_granularity = 1024, ttl_only_drop_parts = 1, {dedup} = 10000;

CREATE TABLE IF NOT EXISTS {db}.label_values{local}{on_cluster}
(
    tenant LowCardinality(String) CODEC(ZSTD(1)),
    day    Date CODEC(ZSTD(1)),
    name   LowCardinality(String) CODEC(ZSTD(1)),
    value  String CODEC(ZSTD(1)),
    metric LowCardinality(String) CODEC(ZSTD(1)),
    ret    UInt16 DEFAULT 65535 CODEC(ZSTD(1)),
    written DateTime('UTC') DEFAULT now() CODEC(Delta(4), ZSTD(1))
)
ENGINE = {engine:label_values(written)}
PARTITION BY (ret, day)
ORDER BY (tenant, name, value, metric)
TTL toDate(least(toUInt32(day) + ret, 65535)) + toIntervalDay(1)
SETTINGS ttl_only_drop_parts = 1, {dedup} = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS {db}.label_values_mv{on_cluster} TO {db}.label_values{local} AS
SELECT DISTINCT tenant, day, k AS name, v AS value, metric, ret
FROM {db}.series{local} ARRAY JOIN mapKeys(labels) AS k, mapValues(labels) AS v;

-- Metadata, as often as it is said. When is what the servers say, whose clock all writers share.
CREATE TABLE IF NOT EXISTS {db}.metadata{local}{on_cluster}
(
    tenant  LowCardinality(String),
    family  String,
    type    LowCardinality(String),
    unit    LowCardinality(String),
    help    String CODEC(ZSTD(3)),
    updated DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = {engine:metadata(updated)}
ORDER BY (tenant, family, type, unit, help)
TTL toDateTime(updated) + toIntervalDay(30)
SETTINGS {dedup} = 1000;

CREATE TABLE IF NOT EXISTS {db}.exemplars{local}{on_cluster}
(
    tenant LowCardinality(String) CODEC(ZSTD(1)),
    mid    UInt64 CODEC(Delta(8), ZSTD(1)),
    sid    UInt64 CODEC(Delta(8), ZSTD(1)),
    ts     Int64 CODEC(Delta(8), ZSTD(1)),
    value  Float64 CODEC(ZSTD(1)),
    labels Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ret    UInt16 DEFAULT 7 CODEC(ZSTD(1))
)
ENGINE = {engine:exemplars}
PARTITION BY (ret, toYYYYMMDD(toDateTime(intDiv(ts, 1000), 'UTC')))
PRIMARY KEY (tenant, mid, sid, ts)
ORDER BY (tenant, mid, sid, ts, sipHash64(mapKeys(labels), mapValues(labels)), reinterpretAsUInt64(value))
TTL toDate(least(greatest(intDiv(ts, 86400000), 0) + ret, 65535)) + toIntervalDay(1)
SETTINGS ttl_only_drop_parts = 1, {dedup} = 1000;

-- Native histograms; bucket counts are absolute. With kind 'int' the counts are the bits of whole numbers
-- (`reinterpretAsUInt64(count)`, `arrayMap(c -> reinterpretAsInt64(c), pos_counts)`), since not all of those fit a float.
CREATE TABLE IF NOT EXISTS {db}.histograms{local}{on_cluster}
(
    tenant         LowCardinality(String) CODEC(ZSTD(1)),
    mid            UInt64 CODEC(Delta(8), ZSTD(1)),
    sid            UInt64 CODEC(Delta(8), ZSTD(1)),
    ts             Int64 CODEC(Delta(8), ZSTD(1)),
    kind           Enum8('int' = 0, 'float' = 1) CODEC(ZSTD(1)),
    reset_hint     UInt8 CODEC(ZSTD(1)),
    schema         Int32 CODEC(ZSTD(1)),
    zero_threshold Float64 CODEC(ZSTD(1)),
    zero_count     Float64 CODEC(Delta(8), ZSTD(1)),
    count          Float64 CODEC(Delta(8), ZSTD(1)),
    sum            Float64 CODEC(Delta(8), ZSTD(1)),
    pos_spans      Array(Tuple(Int32, UInt32)) CODEC(ZSTD(1)),
    pos_counts     Array(Float64) CODEC(ZSTD(1)),
    neg_spans      Array(Tuple(Int32, UInt32)) CODEC(ZSTD(1)),
    neg_counts     Array(Float64) CODEC(ZSTD(1)),
    custom_values  Array(Float64) CODEC(ZSTD(1)),
    start_ts       Int64 CODEC(Delta(8), ZSTD(1)),
    ret            UInt16 DEFAULT 65535 CODEC(ZSTD(1))
)
ENGINE = {engine:histograms}
PARTITION BY (ret, toYYYYMMDD(toDateTime(intDiv(ts, 1000), 'UTC')))
PRIMARY KEY (tenant, intDiv(ts, 7200000), mid, sid, ts)
ORDER BY (tenant, intDiv(ts, 7200000), mid, sid, ts, reinterpretAsUInt64(count), reinterpretAsUInt64(sum),
          sipHash64(kind, reset_hint, schema, zero_threshold, zero_count, pos_spans, pos_counts, neg_spans, neg_counts, custom_values))
TTL toDate(least(greatest(intDiv(ts, 86400000), 0) + ret, 65535)) + toIntervalDay(1)
SETTINGS index_granularity = 1024, ttl_only_drop_parts = 1, {dedup} = 10000;

-- What was deleted. `active` hides the samples and is waiting to be applied; `applied` hides them still,
-- and those written before it are gone; `cleaned` hides nothing.
CREATE TABLE IF NOT EXISTS {db}.tombstones{on_cluster}
(
    tenant   LowCardinality(String),
    id       UUID,
    matchers Array(Tuple(name String, op Enum8('=' = 0, '!=' = 1, '=~' = 2, '!~' = 3), value String)),
    min_ts   Int64,
    max_ts   Int64,
    created  DateTime64(3, 'UTC') DEFAULT now64(3),
    state    Enum8('active' = 0, 'applied' = 1, 'cleaned' = 2),
    version  UInt64
)
ENGINE = {everywhere:tombstones(version)}
ORDER BY (tenant, id)
SETTINGS {dedup} = 1000;

-- Samples rolled up by windows `(ts - 5m, ts]`, of floats that are no stale markers. `before_resets` adds up the
-- values before each reset, so that what a counter grew by over any windows is last - first + before_resets. No
-- samples (`cnt` 0) replace those that were deleted. Which of two rows counts is by when the servers wrote them.
CREATE TABLE IF NOT EXISTS {db}.rollup_5m{local}{on_cluster}
(
    tenant        LowCardinality(String) CODEC(ZSTD(1)),
    mid           UInt64 CODEC(Delta(8), ZSTD(1)),
    sid           UInt64 CODEC(Delta(8), ZSTD(1)),
    ts            Int64 CODEC(Delta(8), ZSTD(1)),
    cnt           UInt32 CODEC(T64, ZSTD(1)),
    sum           Float64 CODEC(Delta(8), ZSTD(1)),
    min           Float64 CODEC(Delta(8), ZSTD(1)),
    max           Float64 CODEC(Delta(8), ZSTD(1)),
    first         Float64 CODEC(Delta(8), ZSTD(1)),
    last          Float64 CODEC(Delta(8), ZSTD(1)),
    first_ts      Int64 CODEC(Delta(8), ZSTD(1)),
    last_ts       Int64 CODEC(Delta(8), ZSTD(1)),
    resets        UInt32 CODEC(ZSTD(1)),
    before_resets Float64 CODEC(ZSTD(1)),
    version       UInt64 CODEC(Delta(8), ZSTD(1)),
    ret           UInt16 DEFAULT 65535 CODEC(ZSTD(1))
)
ENGINE = {engine:rollup_5m(version)}
PARTITION BY (ret, toYYYYMM(toDateTime(intDiv(ts, 1000), 'UTC')))
ORDER BY (tenant, intDiv(ts, 86400000), mid, sid, ts)
TTL toDate(least(greatest(intDiv(ts, 86400000), 0) + ret, 65535)) + toIntervalDay(1)
SETTINGS ttl_only_drop_parts = 1, {dedup} = 1000;

CREATE TABLE IF NOT EXISTS {db}.rollup_1h{local}{on_cluster} AS {db}.rollup_5m{local}
ENGINE = {engine:rollup_1h(version)}
PARTITION BY (ret, toYYYYMM(toDateTime(intDiv(ts, 1000), 'UTC')))
ORDER BY (tenant, intDiv(ts, 86400000), mid, sid, ts)
TTL toDate(least(greatest(intDiv(ts, 86400000), 0) + ret, 65535)) + toIntervalDay(1)
SETTINGS ttl_only_drop_parts = 1, {dedup} = 1000;

-- Up to which time all tenants' windows are rolled up, by resolution; `claim` is which of us is at it, since when.
CREATE TABLE IF NOT EXISTS {db}.rollup_progress{on_cluster}
(
    resolution LowCardinality(String),
    until      Int64,
    owner      UInt64,
    version    UInt64
)
ENGINE = {everywhere:rollup_progress(version)}
ORDER BY resolution
SETTINGS {dedup} = 1000;

-- Where samples came late or went, `(from_ts, to_ts]`: rolled up again, and until that is `done`, not read.
CREATE TABLE IF NOT EXISTS {db}.rollup_late{on_cluster}
(
    tenant  LowCardinality(String),
    mark    UInt64,
    from_ts Int64,
    to_ts   Int64,
    done    UInt8,
    at      DateTime DEFAULT now()
)
ENGINE = {everywhere:rollup_late(done)}
ORDER BY (tenant, mark)
TTL at + toIntervalDay(7) DELETE WHERE done = 1
SETTINGS {dedup} = 1000;

-- On a cluster a series lives on one shard, with its samples: the same expression places all of it, so that
-- a shard can join and group by itself. Label values are made by the view, where their series are.
{cluster_only}CREATE TABLE IF NOT EXISTS {db}.samples{on_cluster} AS {db}.samples_local
ENGINE = Distributed({cluster}, {db_text}, 'samples_local', sipHash64(tenant, sid));
{cluster_only}CREATE TABLE IF NOT EXISTS {db}.series{on_cluster} AS {db}.series_local
ENGINE = Distributed({cluster}, {db_text}, 'series_local', sipHash64(tenant, sid));
{cluster_only}CREATE TABLE IF NOT EXISTS {db}.label_values{on_cluster} AS {db}.label_values_local
ENGINE = Distributed({cluster}, {db_text}, 'label_values_local');
{cluster_only}CREATE TABLE IF NOT EXISTS {db}.metadata{on_cluster} AS {db}.metadata_local
ENGINE = Distributed({cluster}, {db_text}, 'metadata_local', sipHash64(tenant, family));
{cluster_only}CREATE TABLE IF NOT EXISTS {db}.exemplars{on_cluster} AS {db}.exemplars_local
ENGINE = Distributed({cluster}, {db_text}, 'exemplars_local', sipHash64(tenant, sid));
{cluster_only}CREATE TABLE IF NOT EXISTS {db}.histograms{on_cluster} AS {db}.histograms_local
ENGINE = Distributed({cluster}, {db_text}, 'histograms_local', sipHash64(tenant, sid));
{cluster_only}CREATE TABLE IF NOT EXISTS {db}.rollup_5m{on_cluster} AS {db}.rollup_5m_local
ENGINE = Distributed({cluster}, {db_text}, 'rollup_5m_local', sipHash64(tenant, sid));
{cluster_only}CREATE TABLE IF NOT EXISTS {db}.rollup_1h{on_cluster} AS {db}.rollup_1h_local
ENGINE = Distributed({cluster}, {db_text}, 'rollup_1h_local', sipHash64(tenant, sid));
