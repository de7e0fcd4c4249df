//! ClickHouse as the configuration has it.

use super::secret;
use crate::{
    config::{Pushdown, Storage},
    storage::clickhouse::config::{
        self as clickhouse, BatchConfig, ClickHouseConfig, ServerLimits, TlsConfig,
    },
};

/// Sets a store up as configured, and reads the password if it is in a file; `seed` is unlike that of any
/// other process.
pub(super) fn config(storage: &Storage, seed: u64) -> anyhow::Result<ClickHouseConfig> {
    let config = &storage.clickhouse;
    let password =
        secret::read(&config.username, config.password.as_ref(), "storage.clickhouse.password_file")?;
    Ok(ClickHouseConfig {
        addresses: config.addresses.clone(),
        database: config.database.clone(),
        cluster: config.cluster.clone(),
        username: config.username.clone(),
        password,
        tls: TlsConfig {
            ca_file: config.tls.ca_file.clone(),
            cert_file: config.tls.cert_file.clone(),
            key_file: config.tls.key_file.clone(),
        },
        connect_timeout: config.connect_timeout,
        query_timeout: config.query_timeout,
        insert_timeout: config.insert_timeout,
        insert_quorum: config.insert_quorum.clone(),
        max_idle_connections: config.max_idle_connections,
        compression: config.compression,
        pushdown: match config.pushdown {
            Pushdown::Off => clickhouse::Pushdown::Off,
            Pushdown::Auto => clickhouse::Pushdown::Auto,
            Pushdown::Exact => clickhouse::Pushdown::Exact,
            Pushdown::Force => clickhouse::Pushdown::Force,
        },
        batch: BatchConfig {
            rows: config.batch.rows,
            bytes: config.batch.bytes.as_usize(),
            linger: config.batch.linger,
            in_flight: config.batch.in_flight,
            queue_bytes: config.batch.queue_bytes.as_usize(),
        },
        server_limits: ServerLimits { memory_bytes: config.server_memory.0, threads: config.server_threads },
        lookup_memory: config.lookup_memory.as_usize(),
        retention: storage.retention,
        tenant_retention: storage.tenant_retention.clone(),
        rollups: config.rollups,
        seed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigFile, Password, Sources};

    fn storage(yaml: &str) -> Storage {
        let file = ConfigFile::parse("luminate.yaml", yaml).unwrap();
        Config::check(&Sources { file, ..Sources::none() }).unwrap().0.storage
    }

    #[test]
    fn the_defaults_are_those_of_the_store() {
        let storage = storage("storage: {backend: clickhouse, clickhouse: {addresses: [localhost]}}");
        assert_eq!(config(&storage, 0).unwrap(), ClickHouseConfig::new("http://localhost:8123"));
    }

    #[test]
    fn a_password_may_be_in_a_file() {
        let mut storage = storage("storage: {backend: clickhouse, clickhouse: {addresses: [localhost]}}");
        storage.clickhouse.password = Some(Password::File("/nowhere".into()));
        let error = format!("{:#}", config(&storage, 0).unwrap_err());
        assert!(error.contains("/nowhere (storage.clickhouse.password_file): No such file"), "{error}");
    }

    #[test]
    fn a_password_is_not_in_what_is_logged_of_a_configuration() {
        let storage =
            storage("storage: {backend: clickhouse, clickhouse: {addresses: [a], password: hunter2}}");
        assert!(!format!("{storage:?} {:?}", config(&storage, 0).unwrap()).contains("hunter2"));
    }
}
