//! Redis as the configuration has it.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail};

use super::secret;
use crate::{
    clock::{Clock, SystemClock},
    config::{self, RedisServers, RedisUrl},
    gateway::{
        auth::keys::{KeyStore, RedisKeyStore},
        limit::shared::SharedBuckets,
        redis::{RedisAnswers, RedisConfig, RedisLink, RedisTlsConfig, breaker::BreakerLimits},
    },
    model::secret::weakness_of_password,
};

/// How long a request may wait for a key, at least.
const KEY_PATIENCE: Duration = Duration::from_millis(250);

/// The link to Redis, if it is used for anything. It need not be there: the link keeps trying. `seed` is unlike that
/// of any other process.
pub(super) fn link(
    config: &config::Redis,
    seed: u64,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Option<Arc<RedisLink>>> {
    if !config.is_used() {
        return Ok(None);
    }
    let config = self::config(config, seed)?;
    if config.tls.is_some() {
        // The library takes the process's default; that there is one already is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
    Ok(Some(RedisLink::start(&config, clock)?))
}

/// Buckets in Redis, if rates are to be counted there.
pub(super) fn buckets(
    config: &config::Redis,
    link: Option<&Arc<RedisLink>>,
    clock: Arc<dyn Clock>,
) -> Option<Arc<SharedBuckets>> {
    let link = link.filter(|_| config.rate_limit)?;
    let (patience, replicas) = (config.timeout, config.expected_replicas);
    Some(Arc::new(SharedBuckets::new(Arc::clone(link), clock, patience, replicas)))
}

/// Where answers are kept for all gateways, if they are to be.
pub(super) fn answers(config: &config::Redis, link: Option<&Arc<RedisLink>>) -> Option<Arc<RedisAnswers>> {
    Some(RedisAnswers::new(Arc::clone(link?), config.timeout, config.cache?))
}

/// Keys in Redis, if they are to be there.
pub(super) fn key_store(config: &config::Redis, link: Option<&Arc<RedisLink>>) -> Option<Arc<dyn KeyStore>> {
    let link = link.filter(|_| config.key_store.enabled)?;
    // Without an answer nobody is let in, so that it is worth more waiting than a limit.
    let patience = config.timeout.max(KEY_PATIENCE);
    Some(Arc::new(RedisKeyStore::new(Arc::clone(link), patience)))
}

/// Keys in Redis for the command line, which waits until it is connected.
pub(super) async fn connected_key_store(config: &config::Redis) -> anyhow::Result<Arc<dyn KeyStore>> {
    let link = link(config, 0, SystemClock::start())?.context("keys are not in Redis")?;
    link.tried().await.map_err(|why| anyhow!("cannot use Redis: {why}"))?;
    Ok(Arc::new(RedisKeyStore::new(link, config.timeout.max(config.connect_timeout))))
}

/// A link as configured; reads the secrets and certificates that are in files.
pub(super) fn config(config: &config::Redis, seed: u64) -> anyhow::Result<RedisConfig> {
    let servers = match &config.url {
        Some(RedisUrl::Inline(servers)) => servers.clone(),
        Some(RedisUrl::File(path)) => {
            let text = secret::read_file(path, "redis.url_file")?;
            let urls: Vec<String> = text.0.split([',', '\n']).map(|url| url.trim().to_owned()).collect();
            let servers = RedisServers::parse(&urls)
                .map_err(|why| anyhow!("{} (redis.url_file): {why}", path.display()))?;
            if let Some(why) =
                servers.password.as_ref().and_then(|password| weakness_of_password("", password))
            {
                bail!("the password in {} (redis.url_file) {why}", path.display());
            }
            servers
        }
        None => bail!("redis.url names no server"),
    };
    let password = secret::read("", config.password.as_ref(), "redis.password_file")?;
    let login = config.login(&servers, password.as_ref()).map_err(|(key, why)| anyhow!("{key}: {why}"))?;
    let tls = servers.tls.then(|| tls(&config.tls)).transpose()?;
    Ok(RedisConfig {
        addresses: servers.addresses,
        cluster: config.cluster,
        tls,
        username: login.username,
        password: login.password,
        db: login.db,
        prefix: config.prefix.clone(),
        connect_timeout: config.connect_timeout,
        breaker: BreakerLimits {
            failures: config.breaker.failures,
            min_open: config.breaker.min_open,
            max_open: config.breaker.max_open,
        },
        seed,
    })
}

fn tls(config: &config::RedisTls) -> anyhow::Result<RedisTlsConfig> {
    let read = |path: &Path, key: &str| {
        fs::read(path).with_context(|| format!("cannot read {} ({key})", path.display()))
    };
    let ca = config.ca_file.as_deref().map(|path| read(path, "redis.tls.ca_file")).transpose()?;
    let identity = match (&config.cert_file, &config.key_file) {
        (Some(certificate), Some(key)) => {
            Some((read(certificate, "redis.tls.cert_file")?, read(key, "redis.tls.key_file")?))
        }
        (Some(_), None) | (None, Some(_)) | (None, None) => None,
    };
    Ok(RedisTlsConfig { ca, identity })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigFile, Sources};

    fn redis(yaml: &str) -> config::Redis {
        let yaml = format!("redis: {{rate_limit: {{enabled: true}}, {yaml}}}");
        let file = ConfigFile::parse("luminate.yaml", &yaml).unwrap();
        Config::check(&Sources { file, ..Sources::none() }).unwrap().0.redis
    }

    #[test]
    fn a_url_may_be_in_a_file_and_its_password_is_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("url");
        let redis = redis(&format!("db: 2, url_file: {}", path.display()));
        fs::write(&path, "redis://me:hunter2@a:1/2\n").unwrap();
        let read = config(&redis, 0).unwrap();
        assert_eq!((read.addresses, read.db), (vec![("a".to_owned(), 1)], 2));
        assert_eq!(read.username.as_deref(), Some("me"));
        for (url, wrong) in [
            ("redis://me:hunter2@a:1/3", "redis.db: is not the database"),
            ("redis://:hunter2@a,redis://:hunter2@b", "redis.url: names several"),
            ("me:hunter2@a", "(redis.url_file): takes a URL"),
            ("", "(redis.url_file): it is empty"),
            ("redis://:changeme@a:1/2", "(redis.url_file) is a placeholder"),
        ] {
            fs::write(&path, url).unwrap();
            let error = format!("{:#}", config(&redis, 0).unwrap_err());
            assert!(error.contains(wrong) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_in_what_is_logged() {
        let redis = redis("url: 'rediss://me:hunter2@a', tls: {}");
        assert!(!format!("{redis:?}{:?}", config(&redis, 0).unwrap()).contains("hunter2"));
    }

    #[test]
    fn certificates_that_are_not_there_are_told() {
        let redis = redis("url: 'rediss://a', tls: {ca_file: /nowhere}");
        let error = format!("{:#}", config(&redis, 0).unwrap_err());
        assert!(error.contains("cannot read /nowhere (redis.tls.ca_file)"), "{error}");
    }
}
