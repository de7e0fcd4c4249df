-- The database, and what was applied to it.
CREATE DATABASE IF NOT EXISTS `luminate` ON CLUSTER 'main';

CREATE TABLE IF NOT EXISTS `luminate`.schema_migrations ON CLUSTER 'main'
(
    version        UInt32,
    name           String,
    checksum       String,
    min_compatible UInt32,
    applied        DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/main/{database}/schema_migrations', '{shard}-{replica}')
ORDER BY (version, applied);

-- Version 1: tables.
CREATE TABLE IF NOT EXISTS `luminate`.samples_local ON CLUSTER 'main'
(
    tenant   LowCardinality(String) CODEC(ZSTD(1)),
    mid      UInt64 CODEC(Delta(8), ZSTD(1)),
    sid      UInt64 CODEC(Delta(8), ZSTD(1)),
    ts       Int64 CODEC(Delta(8), ZSTD(1)),
    value    Float64 CODEC(Delta(8), ZSTD(1)),
    start_ts Int64 DEFAULT 0 CODEC(Delta(8), ZSTD(1)),
    ret      UInt16 DEFAULT 65535 CODEC(ZSTD(1))
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/samples', '{replica}')
PARTITION BY (ret, toYYYYMMDD(toDateTime(intDiv(ts, 1000), 'UTC')))
PRIMARY KEY (tenant, intDiv(ts, 7200000), mid, sid, ts)
ORDER BY (tenant, intDiv(ts, 7200000), mid, sid, ts, reinterpretAsUInt64(value), start_ts)
TTL toDate(least(greatest(intDiv(ts, 86400000), 0) + ret, 65535)) + toIntervalDay(1)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS `luminate`.series_local ON CLUSTER 'main'
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
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/series', '{replica}', written)
PARTITION BY (ret, day)
ORDER BY (tenant, metric, sid)
TTL toDate(least(toUInt32(day) + ret, 65535)) + toIntervalDay(1)
SETTINGS index_granularity = 1024, ttl_only_drop_parts = 1, replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS `luminate`.label_values_local ON CLUSTER 'main'
(
    tenant LowCardinality(String) CODEC(ZSTD(1)),
    day    Date CODEC(ZSTD(1)),
    name   LowCardinality(String) CODEC(ZSTD(1)),
    value  String CODEC(ZSTD(1)),
    metric LowCardinality(String) CODEC(ZSTD(1)),
    ret    UInt16 DEFAULT 65535 CODEC(ZSTD(1)),
    written DateTime('UTC') DEFAULT now() CODEC(Delta(4), ZSTD(1))
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/label_values', '{replica}', written)
PARTITION BY (ret, day)
ORDER BY (tenant, name, value, metric)
TTL toDate(least(toUInt32(day) + ret, 65535)) + toIntervalDay(1)
SETTINGS ttl_only_drop_parts = 1, replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS `luminate`.label_values_mv ON CLUSTER 'main' TO `luminate`.label_values_local AS
SELECT DISTINCT tenant, day, k AS name, v AS value, metric, ret
FROM `luminate`.series_local ARRAY JOIN mapKeys(labels) AS k, mapValues(labels) AS v;

CREATE TABLE IF NOT EXISTS `luminate`.metadata_local ON CLUSTER 'main'
(
    tenant  LowCardinality(String),
    family  String,
    type    LowCardinality(String),
    unit    LowCardinality(String),
    help    String CODEC(ZSTD(3)),
    updated DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/metadata', '{replica}', updated)
ORDER BY (tenant, family, type, unit, help)
TTL toDateTime(updated) + toIntervalDay(30)
SETTINGS replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS `luminate`.exemplars_local ON CLUSTER 'main'
(
    tenant LowCardinality(String) CODEC(ZSTD(1)),
    mid    UInt64 CODEC(Delta(8), ZSTD(1)),
    sid    UInt64 CODEC(Delta(8), ZSTD(1)),
    ts     Int64 CODEC(Delta(8), ZSTD(1)),
    value  Float64 CODEC(ZSTD(1)),
    labels Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ret    UInt16 DEFAULT 7 CODEC(ZSTD(1))
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/exemplars', '{replica}')
PARTITION BY (ret, toYYYYMMDD(toDateTime(intDiv(ts, 1000), 'UTC')))
PRIMARY KEY (tenant, mid, sid, ts)
ORDER BY (tenant, mid, sid, ts, sipHash64(mapKeys(labels), mapValues(labels)), reinterpretAsUInt64(value))
TTL toDate(least(greatest(intDiv(ts, 86400000), 0) + ret, 65535)) + toIntervalDay(1)
SETTINGS ttl_only_drop_parts = 1, replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS `luminate`.histograms_local ON CLUSTER 'main'
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
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/histograms', '{replica}')
PARTITION BY (ret, toYYYYMMDD(toDateTime(intDiv(ts, 1000), 'UTC')))
PRIMARY KEY (tenant, intDiv(ts, 7200000), mid, sid, ts)
ORDER BY (tenant, intDiv(ts, 7200000), mid, sid, ts, reinterpretAsUInt64(count), reinterpretAsUInt64(sum),
          sipHash64(kind, reset_hint, schema, zero_threshold, zero_count, pos_spans, pos_counts, neg_spans, neg_counts, custom_values))
TTL toDate(least(greatest(intDiv(ts, 86400000), 0) + ret, 65535)) + toIntervalDay(1)
SETTINGS index_granularity = 1024, ttl_only_drop_parts = 1, replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS `luminate`.tombstones ON CLUSTER 'main'
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
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/main/{database}/tombstones', '{shard}-{replica}', version)
ORDER BY (tenant, id)
SETTINGS replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS `luminate`.rollup_5m_local ON CLUSTER 'main'
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
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/rollup_5m', '{replica}', version)
PARTITION BY (ret, toYYYYMM(toDateTime(intDiv(ts, 1000), 'UTC')))
ORDER BY (tenant, intDiv(ts, 86400000), mid, sid, ts)
TTL toDate(least(greatest(intDiv(ts, 86400000), 0) + ret, 65535)) + toIntervalDay(1)
SETTINGS ttl_only_drop_parts = 1, replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS `luminate`.rollup_1h_local ON CLUSTER 'main' AS `luminate`.rollup_5m_local
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/rollup_1h', '{replica}', version)
PARTITION BY (ret, toYYYYMM(toDateTime(intDiv(ts, 1000), 'UTC')))
ORDER BY (tenant, intDiv(ts, 86400000), mid, sid, ts)
TTL toDate(least(greatest(intDiv(ts, 86400000), 0) + ret, 65535)) + toIntervalDay(1)
SETTINGS ttl_only_drop_parts = 1, replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS `luminate`.rollup_progress ON CLUSTER 'main'
(
    resolution LowCardinality(String),
    until      Int64,
    owner      UInt64,
    version    UInt64
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/main/{database}/rollup_progress', '{shard}-{replica}', version)
ORDER BY resolution
SETTINGS replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS `luminate`.rollup_late ON CLUSTER 'main'
(
    tenant  LowCardinality(String),
    mark    UInt64,
    from_ts Int64,
    to_ts   Int64,
    done    UInt8,
    at      DateTime DEFAULT now()
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/main/{database}/rollup_late', '{shard}-{replica}', done)
ORDER BY (tenant, mark)
TTL at + toIntervalDay(7) DELETE WHERE done = 1
SETTINGS replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS `luminate`.samples ON CLUSTER 'main' AS `luminate`.samples_local
ENGINE = Distributed('main', 'luminate', 'samples_local', sipHash64(tenant, sid));

CREATE TABLE IF NOT EXISTS `luminate`.series ON CLUSTER 'main' AS `luminate`.series_local
ENGINE = Distributed('main', 'luminate', 'series_local', sipHash64(tenant, sid));

CREATE TABLE IF NOT EXISTS `luminate`.label_values ON CLUSTER 'main' AS `luminate`.label_values_local
ENGINE = Distributed('main', 'luminate', 'label_values_local');

CREATE TABLE IF NOT EXISTS `luminate`.metadata ON CLUSTER 'main' AS `luminate`.metadata_local
ENGINE = Distributed('main', 'luminate', 'metadata_local', sipHash64(tenant, family));

CREATE TABLE IF NOT EXISTS `luminate`.exemplars ON CLUSTER 'main' AS `luminate`.exemplars_local
ENGINE = Distributed('main', 'luminate', 'exemplars_local', sipHash64(tenant, sid));

CREATE TABLE IF NOT EXISTS `luminate`.histograms ON CLUSTER 'main' AS `luminate`.histograms_local
ENGINE = Distributed('main', 'luminate', 'histograms_local', sipHash64(tenant, sid));

CREATE TABLE IF NOT EXISTS `luminate`.rollup_5m ON CLUSTER 'main' AS `luminate`.rollup_5m_local
ENGINE = Distributed('main', 'luminate', 'rollup_5m_local', sipHash64(tenant, sid));

CREATE TABLE IF NOT EXISTS `luminate`.rollup_1h ON CLUSTER 'main' AS `luminate`.rollup_1h_local
ENGINE = Distributed('main', 'luminate', 'rollup_1h_local', sipHash64(tenant, sid));

INSERT INTO `luminate`.schema_migrations (version, name, checksum, min_compatible)
SELECT 1, 'tables', '1ec62bf5e6c7142a', 1;

-- Version 2: documents.
CREATE TABLE IF NOT EXISTS `luminate`.documents ON CLUSTER 'main'
(
    tenant  String,
    kind    LowCardinality(String),
    body    String CODEC(ZSTD(1)),
    removed UInt8,
    updated DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/main/{database}/documents', '{shard}-{replica}', updated)
ORDER BY (kind, tenant)
SETTINGS replicated_deduplication_window = 1000;

INSERT INTO `luminate`.schema_migrations (version, name, checksum, min_compatible)
SELECT 2, 'documents', 'da0ed14f934a8cc7', 1;

-- Version 3: changes.
INSERT INTO `luminate`.schema_migrations (version, name, checksum, min_compatible)
SELECT 3, 'changes', '6a92edbacd7d3402', 1;

