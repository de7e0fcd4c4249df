-- The tables of version 2.

-- Small texts of tenants by kind, such as the limits that somebody gave them: the latest counts, and one that
-- was removed is none. When is what the servers say, whose clock all writers share.
CREATE TABLE IF NOT EXISTS {db}.documents{on_cluster}
(
    tenant  String,
    kind    LowCardinality(String),
    body    String CODEC(ZSTD(1)),
    removed UInt8,
    updated DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = {everywhere:documents(updated)}
ORDER BY (kind, tenant)
SETTINGS {dedup} = 1000;
