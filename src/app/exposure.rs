//! What a start warns of: what others could see that is not meant for them.
//!
//! It warns and does not refuse: whether others can reach the file, or listen on the wire, is known by who runs
//! the machine. In a pod TLS ends at the Ingress, and a certificate of our own is of no use.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::config::{AuthMode, Backend, Config, Password, RedisUrl};

/// Logs a warning of each.
pub(super) fn warn(config: &Config) {
    for (key, path) in secret_files(config) {
        if let Some(mode) = open_mode(path) {
            tracing::warn!(
                event = "secret_readable_by_all",
                key,
                path = %path.display(),
                mode = format!("{mode:04o}"),
                "0440 with the group of the process is enough",
            );
        }
    }
    if tells_credentials(config) {
        tracing::warn!(
            event = "no_tls",
            listen = %config.server.listen,
            "tokens and samples can be read on the network; set server.tls, or have TLS end at a proxy before us, \
             and name it in auth.trusted_proxies",
        );
    }
}

/// Files that hold secrets, under the keys that name them, as far as they are used.
fn secret_files(config: &Config) -> Vec<(&'static str, &PathBuf)> {
    let mut files = Vec::new();
    if let Some(tls) = &config.server.tls {
        files.push(("server.tls.key_file", &tls.key_file));
    }
    if config.auth.mode == AuthMode::Token {
        files.extend(config.auth.jwt.secret_file.iter().map(|path| ("auth.jwt.secret_file", path)));
    }
    if config.storage.backend == Backend::ClickHouse {
        let clickhouse = &config.storage.clickhouse;
        files.extend(
            in_file(clickhouse.password.as_ref()).map(|path| ("storage.clickhouse.password_file", path)),
        );
        files.extend(clickhouse.tls.key_file.iter().map(|path| ("storage.clickhouse.tls.key_file", path)));
    }
    if config.redis.is_used() {
        files.extend(in_file(config.redis.password.as_ref()).map(|path| ("redis.password_file", path)));
        if let Some(RedisUrl::File(path)) = &config.redis.url {
            files.push(("redis.url_file", path));
        }
        files.extend(config.redis.tls.key_file.iter().map(|path| ("redis.tls.key_file", path)));
    }
    files
}

fn in_file(password: Option<&Password>) -> Option<&PathBuf> {
    match password {
        Some(Password::File(path)) => Some(path),
        Some(Password::Inline(_)) | None => None,
    }
}

/// The mode of a file that everybody on the machine may read or write.
fn open_mode(path: &Path) -> Option<u32> {
    // One that cannot be looked at cannot be read either, which is told by who tries.
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o006 != 0).then_some(mode)
}

/// Whether credentials come in readable to whoever is between, as far as we can know.
fn tells_credentials(config: &Config) -> bool {
    let server = &config.server;
    config.auth.mode == AuthMode::Token
        && server.tls.is_none()
        && !server.listen.ip().is_loopback()
        && config.auth.trusted_proxies.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, Sources};

    fn config(yaml: &str) -> Config {
        let file = ConfigFile::parse("luminate.yaml", yaml).unwrap();
        Config::check(&Sources { file, ..Sources::none() }).unwrap().0
    }

    #[test]
    fn files_of_secrets_that_are_used_are_looked_at() {
        let keys = |yaml: &str| {
            let config = config(yaml);
            secret_files(&config).into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert!(keys("").is_empty());
        let all = "
            server: {tls: {cert_file: a, key_file: b}}
            auth: {mode: token, jwt: {secret_file: c}}
            storage: {backend: clickhouse, clickhouse: {addresses: ['https://a'], password_file: d,
              tls: {cert_file: e, key_file: f}}}
            redis: {rate_limit: {enabled: true}, url_file: g, password_file: h, tls: {cert_file: i, key_file: j}}";
        assert_eq!(
            keys(all),
            [
                "server.tls.key_file",
                "auth.jwt.secret_file",
                "storage.clickhouse.password_file",
                "storage.clickhouse.tls.key_file",
                "redis.password_file",
                "redis.url_file",
                "redis.tls.key_file",
            ]
        );
        assert!(keys("storage: {clickhouse: {password_file: d}}").is_empty(), "the backend is embedded");
    }

    #[test]
    fn a_file_is_open_if_everybody_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        assert_eq!(open_mode(&path), None);
        fs::write(&path, "x").unwrap();
        for (mode, open) in [(0o644, true), (0o604, true), (0o602, true), (0o440, false), (0o600, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(open_mode(&path), open.then_some(mode), "{mode:o}");
        }
    }

    #[test]
    fn credentials_are_told_on_a_network_without_tls() {
        for (yaml, told) in [
            ("server: {listen: ':1'}\nauth: {mode: token}", true),
            ("auth: {mode: token}", false),
            ("server: {listen: ':1'}\nauth: {force_unauthenticated: true}", false),
            ("server: {listen: ':1'}\nauth: {mode: token, trusted_proxies: [10.0.0.0/8]}", false),
            ("server: {listen: ':1', tls: {cert_file: a, key_file: b}}\nauth: {mode: token}", false),
        ] {
            assert_eq!(tells_credentials(&config(yaml)), told, "{yaml}");
        }
    }
}
