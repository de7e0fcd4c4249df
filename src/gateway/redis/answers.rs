//! Answers that are kept for all gateways, in Redis.
//!
//! `<prefix>:answer:<name>` is a string that ends by itself. Nothing depends on it being there.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use redis::{Value, cmd};

use super::RedisLink;
use crate::query::cache::second::{Away, SharedShelf};

/// How long it may take to send one: nobody waits for it.
const SEND_PATIENCE: Duration = Duration::from_secs(1);

/// Keeps answers in Redis.
#[derive(Debug)]
pub struct RedisAnswers {
    link: Arc<RedisLink>,
    /// How long an answer may wait for it.
    patience: Duration,
    /// How long they are kept.
    ttl: Duration,
}

impl RedisAnswers {
    /// Behind a link.
    pub fn new(link: Arc<RedisLink>, patience: Duration, ttl: Duration) -> Arc<Self> {
        Arc::new(Self { link, patience, ttl })
    }

    fn key(&self, name: u128) -> String {
        format!("{}:answer:{name:032x}", self.link.prefix())
    }
}

#[async_trait]
impl SharedShelf for RedisAnswers {
    async fn get(&self, name: u128) -> Result<Option<Vec<u8>>, Away> {
        match self.link.call(cmd("GET").arg(self.key(name)), self.patience).await {
            Ok(Value::BulkString(bytes)) => Ok(Some(bytes)),
            Ok(Value::Nil) => Ok(None),
            Ok(_) | Err(_) => Err(Away),
        }
    }

    async fn put(&self, name: u128, bytes: Vec<u8>) -> Result<(), Away> {
        let ttl = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
        let mut set = cmd("SET");
        set.arg(self.key(name)).arg(bytes).arg("PX").arg(ttl);
        self.link.call(&set, SEND_PATIENCE).await.map(|_| ()).map_err(|_| Away)
    }
}
