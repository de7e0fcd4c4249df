//! ClickHouse as the configuration has it.

use std::{fs, io::Read, path::Path};

use anyhow::{Context, bail};

use crate::{
    config::{Password, Pushdown, Storage},
    model::Secret,
    storage::clickhouse::config::{
        self as clickhouse, BatchConfig, ClickHouseConfig, ServerLimits, TlsConfig,
    },
};

/// More than this is not a password.
const MAX_PASSWORD_BYTES: u64 = 4096;

/// Sets a store up as configured, and reads the password if it is in a file; `seed` is unlike that of any
/// other process.
pub(super) fn config(storage: &Storage, seed: u64) -> anyhow::Result<ClickHouseConfig> {
    let config = &storage.clickhouse;
    let password = match &config.password {
        None => None,
        Some(Password::Inline(secret)) => Some(secret.clone()),
        Some(Password::File(path)) => Some(read_password(path).with_context(|| {
            format!("cannot read the password from {} (storage.clickhouse.password_file)", path.display())
        })?),
    };
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

/// Reads a password; a newline at its end is the editor's.
fn read_password(path: &Path) -> anyhow::Result<Secret> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_PASSWORD_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_PASSWORD_BYTES {
        bail!("it is larger than {MAX_PASSWORD_BYTES} bytes");
    }
    // The bytes are not in the message: they may be most of the password.
    let text = String::from_utf8(bytes).ok().context("it is not UTF-8")?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        bail!("it is empty");
    }
    Ok(Secret(password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigFile, Sources};

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
    fn a_password_is_read_from_its_file_without_the_last_newline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let mut storage = storage("storage: {backend: clickhouse, clickhouse: {addresses: [localhost]}}");
        storage.clickhouse.password = Some(Password::File(path.clone()));
        for (written, password) in
            [("hunter2\n", "hunter2"), (" a b", " a b"), ("a\n\n", "a\n"), ("a\r\n", "a")]
        {
            fs::write(&path, written).unwrap();
            assert_eq!(
                config(&storage, 0).unwrap().password,
                Some(Secret(password.to_owned())),
                "{written:?}"
            );
        }
        for (written, wrong) in
            [(vec![], "empty"), (vec![b'\n'], "empty"), (vec![0xff], "UTF-8"), (vec![b'a'; 5000], "larger")]
        {
            fs::write(&path, written).unwrap();
            let error = format!("{:#}", config(&storage, 0).unwrap_err());
            assert!(error.contains(wrong) && error.contains("password_file"), "{error}");
        }
        fs::remove_file(&path).unwrap();
        let error = format!("{:#}", config(&storage, 0).unwrap_err());
        assert!(error.contains("password (storage.clickhouse.password_file): No such file"), "{error}");
    }

    #[test]
    fn a_password_is_not_in_what_is_logged_of_a_configuration() {
        let storage =
            storage("storage: {backend: clickhouse, clickhouse: {addresses: [a], password: hunter2}}");
        assert!(!format!("{storage:?} {:?}", config(&storage, 0).unwrap()).contains("hunter2"));
    }
}
