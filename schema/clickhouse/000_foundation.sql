-- Where everything is, and what was applied to it: made before the first migration, and never migrated.

CREATE DATABASE IF NOT EXISTS {db}{on_cluster};

-- A version may have several rows, from processes that applied it at once. `min_compatible` is the oldest
-- version whose processes get along with the schema once this one is applied.
CREATE TABLE IF NOT EXISTS {db}.schema_migrations{on_cluster}
(
    version        UInt32,
    name           String,
    checksum       String,
    min_compatible UInt32,
    applied        DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = {everywhere:schema_migrations}
ORDER BY (version, applied);
