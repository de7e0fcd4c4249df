-- The tables of version 3.

-- Which minutes of a tenant's samples changed of late, and when by this server's clock, in milliseconds: so that
-- answers that were kept are known to be still true, or not. A minute has a number, since 1970. Only where there is one
-- server: what another one has seen by then is not known here. Nothing is taken for the same as before when it is sent
-- again, so that a repeated insert is a change, too.
{single_only}CREATE TABLE IF NOT EXISTS {db}.changes
(
    tenant       LowCardinality(String) CODEC(ZSTD(1)),
    first_minute Int64 CODEC(Delta(8), ZSTD(1)),
    last_minute  Int64 CODEC(Delta(8), ZSTD(1)),
    at           UInt64 DEFAULT toUInt64(bitShiftRight(generateSnowflakeID(), 22)) CODEC(Delta(8), ZSTD(1))
)
ENGINE = {engine:changes(at)}
PARTITION BY intDiv(at, 86400000)
ORDER BY (tenant, first_minute, last_minute)
TTL toDateTime(intDiv(at, 1000), 'UTC') + toIntervalDay(2)
SETTINGS ttl_only_drop_parts = 1, {dedup} = 0;

{single_only}CREATE MATERIALIZED VIEW IF NOT EXISTS {db}.changes_of_samples_mv TO {db}.changes AS
SELECT DISTINCT tenant, intDiv(ts, 60000) - (ts % 60000 < 0) AS first_minute, first_minute AS last_minute
FROM {db}.samples;

{single_only}CREATE MATERIALIZED VIEW IF NOT EXISTS {db}.changes_of_histograms_mv TO {db}.changes AS
SELECT DISTINCT tenant, intDiv(ts, 60000) - (ts % 60000 < 0) AS first_minute, first_minute AS last_minute
FROM {db}.histograms;

-- What is hidden, and what is hidden no more; that it was removed in between is no change.
{single_only}CREATE MATERIALIZED VIEW IF NOT EXISTS {db}.changes_of_tombstones_mv TO {db}.changes AS
SELECT tenant, intDiv(min_ts, 60000) - (min_ts % 60000 < 0) AS first_minute,
       intDiv(max_ts, 60000) - (max_ts % 60000 < 0) AS last_minute
FROM {db}.tombstones
WHERE state != 'applied';
