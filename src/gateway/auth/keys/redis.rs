//! Keys in a Redis that several gateways share.
//!
//! ```text
//! luminate:key:<id>   hash  record: JSON, as in record.rs    revoked: milliseconds since the epoch
//! luminate:keys       set   all ids
//! ```
//!
//! A record is written once and never again: `HSETNX` keeps the first, and so it does with the moment of the
//! revocation, which stands beside it. The id goes into the set before, so that no record is left out of it; an id
//! without a record is none.
//!
//! What `Ok` was said to is as durable as Redis makes it (`appendonly yes`). Redis tells us of no change, so that a
//! revoked key is out when what is remembered of it is looked up again.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use redis::{Cmd, FromRedisValue, cmd};

use super::{
    key::KeyId,
    record::KeyRecord,
    store::{KeyStore, KeyStoreError},
};
use crate::{
    gateway::redis::{RedisFailure, RedisLink},
    model::Timestamp,
};

/// Keys in Redis.
#[derive(Debug)]
pub struct RedisKeyStore {
    link: Arc<RedisLink>,
    /// How long one command may take.
    patience: Duration,
}

impl From<RedisFailure> for KeyStoreError {
    fn from(failure: RedisFailure) -> Self {
        match failure {
            RedisFailure::Garbled => Self::Broken(failure.to_string()),
            RedisFailure::Away
            | RedisFailure::Busy
            | RedisFailure::Late(_)
            | RedisFailure::NoScript
            | RedisFailure::Failed(_) => Self::Unavailable(failure.to_string()),
        }
    }
}

impl RedisKeyStore {
    /// Keys behind `link`; no command takes longer than `patience`.
    pub fn new(link: Arc<RedisLink>, patience: Duration) -> Self {
        Self { link, patience }
    }

    fn key(&self, id: &KeyId) -> String {
        format!("{}:key:{id}", self.link.prefix())
    }

    fn all(&self) -> String {
        format!("{}:keys", self.link.prefix())
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, KeyStoreError> {
        let answer = self.link.call(command, self.patience).await?;
        redis::from_redis_value(answer).map_err(|_| RedisFailure::Garbled.into())
    }
}

#[async_trait]
impl KeyStore for RedisKeyStore {
    async fn find(&self, id: &KeyId) -> Result<Option<KeyRecord>, KeyStoreError> {
        let asked = cmd("HMGET").arg(self.key(id)).arg("record").arg("revoked").clone();
        let (text, revoked): (Option<String>, Option<i64>) = self.ask(&asked).await?;
        let Some(text) = text else { return Ok(None) };
        // What is wrong with it is not told: there may be a secret where none should be.
        let broken = || KeyStoreError::Broken(format!("the record of key {id} is not one"));
        let mut record: KeyRecord = serde_json::from_str(&text).map_err(|_| broken())?;
        if record.id != *id {
            return Err(broken());
        }
        record.revoked = record.revoked.or(revoked.map(Timestamp));
        Ok(Some(record))
    }

    async fn list(&self) -> Result<Vec<KeyRecord>, KeyStoreError> {
        let ids: Vec<String> = self.ask(cmd("SMEMBERS").arg(self.all())).await?;
        let mut records = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(id) = KeyId::new(&id) else {
                return Err(KeyStoreError::Broken("what stands among the ids is none".to_owned()));
            };
            records.extend(self.find(&id).await?);
        }
        records.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(records)
    }

    async fn put(&self, record: KeyRecord) -> Result<(), KeyStoreError> {
        let broken = |why: &dyn std::fmt::Display| KeyStoreError::Broken(why.to_string());
        record.principal().map_err(|why| broken(&why))?;
        let text = serde_json::to_string(&record).map_err(|why| broken(&why))?;
        let _: u64 = self.ask(cmd("SADD").arg(self.all()).arg(record.id.as_str())).await?;
        let kept: u64 = self.ask(cmd("HSETNX").arg(self.key(&record.id)).arg("record").arg(text)).await?;
        if kept == 0 { Err(KeyStoreError::Exists(record.id)) } else { Ok(()) }
    }

    async fn revoke(&self, id: &KeyId, now: Timestamp) -> Result<bool, KeyStoreError> {
        let Some(record) = self.find(id).await? else { return Ok(false) };
        if record.revoked.is_none() {
            let _: u64 = self.ask(cmd("HSETNX").arg(self.key(id)).arg("revoked").arg(now.0)).await?;
        }
        Ok(true)
    }

    fn generation(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        process::{Child, Command, Stdio},
    };

    use super::*;
    use crate::{
        clock::SystemClock,
        gateway::{
            auth::keys::conformance::{hold_to_contract, key},
            redis::{LinkState, RedisConfig, breaker::BreakerLimits},
        },
    };

    /// A `redis-server`; killed when dropped.
    struct Server {
        child: Child,
        port: u16,
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[expect(clippy::print_stderr, reason = "tests are skipped loudly")]
    /// One on a free port; none, told loudly, if there is no such program here.
    fn server() -> Option<Server> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let started = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""])
            .stdout(Stdio::null())
            .spawn();
        match started {
            Ok(child) => Some(Server { child, port }),
            Err(error) => {
                assert!(
                    std::env::var_os("LUMINATE_TEST_REQUIRE_ALL").is_none_or(|v| v != "1"),
                    "redis-server: {error}, and LUMINATE_TEST_REQUIRE_ALL=1 forbids skipping"
                );
                eprintln!("\n=== SKIPPED: redis-server: {error} ===\n");
                None
            }
        }
    }

    async fn store(server: &Server) -> RedisKeyStore {
        let short = Duration::from_millis(20);
        let config = RedisConfig {
            addresses: vec![("127.0.0.1".to_owned(), server.port)],
            cluster: false,
            tls: None,
            username: None,
            password: None,
            db: 0,
            prefix: "test".to_owned(),
            connect_timeout: Duration::from_secs(10),
            breaker: BreakerLimits { failures: 5, min_open: short, max_open: short },
            seed: 0,
        };
        let link = RedisLink::start(&config, SystemClock::start()).unwrap();
        for _ in 0..3000 {
            if link.state() == LinkState::Closed {
                break;
            }
            tokio::time::sleep(short).await;
        }
        assert_eq!(link.state(), LinkState::Closed);
        RedisKeyStore::new(link, Duration::from_secs(10))
    }

    #[tokio::test]
    async fn it_keeps_what_a_key_store_promises() {
        let Some(server) = server() else { return };
        hold_to_contract(&store(&server).await).await;
    }

    #[tokio::test]
    async fn what_is_no_record_lets_nobody_in_and_is_not_told() {
        let Some(server) = server() else { return };
        let store = store(&server).await;
        let (key, record) = key();
        let (_, other) = super::super::conformance::key();
        let put = |text: String| cmd("HSET").arg(store.key(&key.id)).arg("record").arg(text).clone();
        for text in ["", "{}", "hunter2", &serde_json::to_string(&other).unwrap()] {
            let _: u64 = store.ask(&put(text.to_owned())).await.unwrap();
            let error = store.find(&key.id).await.unwrap_err();
            assert!(matches!(error, KeyStoreError::Broken(_)), "{text}: {error}");
            assert!(!error.to_string().contains("hunter2"));
        }
        let _: u64 = store.ask(&put(serde_json::to_string(&record).unwrap())).await.unwrap();
        assert_eq!(store.find(&key.id).await, Ok(Some(record)));
        let _: u64 = store.ask(cmd("SADD").arg("test:keys").arg("../..")).await.unwrap();
        assert!(matches!(store.list().await, Err(KeyStoreError::Broken(_))));
    }

    #[tokio::test]
    async fn a_redis_that_is_away_says_so() {
        let Some(server) = server() else { return };
        let store = store(&server).await;
        let (_, record) = key();
        store.put(record.clone()).await.unwrap();
        drop(server);
        let error = store.find(&record.id).await.unwrap_err();
        assert!(matches!(error, KeyStoreError::Unavailable(_)), "{error}");
        assert!(matches!(store.list().await, Err(KeyStoreError::Unavailable(_))));
        assert!(matches!(store.revoke(&record.id, Timestamp(1)).await, Err(KeyStoreError::Unavailable(_))));
    }
}
