//! The storage contract, kept over ClickHouse.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use luminate::{
    clock::HandClock,
    storage::{
        Storage,
        clickhouse::{ClickHouseConfig, ClickHouseStore},
        conformance::{self, Backend, NOW, Settles, Upheaval},
    },
};
use parking_lot::Mutex;
use tokio::runtime::Runtime;

use super::front::Front;

/// Stores over one ClickHouse, each upheaval in a database of its own.
#[derive(Debug)]
struct OverFront {
    front: Mutex<Front>,
    databases: AtomicU32,
}

impl OverFront {
    fn config(&self) -> ClickHouseConfig {
        let front = self.front.lock();
        let database = format!("{}_{}", front.database, self.databases.load(Ordering::Relaxed));
        ClickHouseConfig { database, ..ClickHouseConfig::new(&front.url) }
    }

    async fn store(&self) -> Arc<dyn Storage> {
        let store = ClickHouseStore::open(self.config(), HandClock::at(NOW)).expect("a store opens");
        store.apply_schema().await.expect("the schema is applied");
        store
    }
}

#[async_trait]
impl Backend for OverFront {
    async fn open(&self) -> Arc<dyn Storage> {
        self.databases.fetch_add(1, Ordering::Relaxed);
        let database = self.config().database;
        self.front.lock().sql(&format!("CREATE DATABASE {database}"));
        let store = self.store().await;
        // The suite's clock stands still, the servers' does not: they must not drop what has grown old since.
        for table in ["samples", "histograms", "exemplars", "series", "label_values"] {
            self.front.lock().sql(&format!("ALTER TABLE {database}.{table} REMOVE TTL"));
        }
        store
    }

    fn upheavals(&self) -> &[Upheaval] {
        if self.front.lock().is_ours() {
            &[Upheaval::None, Upheaval::Flush, Upheaval::Restart, Upheaval::Kill]
        } else {
            &[Upheaval::None, Upheaval::Flush, Upheaval::Restart]
        }
    }

    async fn upheave(&self, store: Arc<dyn Storage>, upheaval: Upheaval) -> Arc<dyn Storage> {
        match upheaval {
            Upheaval::None => return store,
            Upheaval::Flush => {
                store.flush().await.expect("a store flushes");
                return store;
            }
            Upheaval::Restart => store.close().await.expect("a store closes"),
            // Nothing of ours is told: the servers die, and our process with them.
            Upheaval::Kill => {
                let mut front = self.front.lock();
                front.kill();
                front.start_again(&[]);
            }
        }
        drop(store);
        self.store().await
    }

    fn settles(&self) -> Settles {
        Settles::Greatest
    }
}

#[test]
fn it_keeps_the_contract() {
    let Some(front) = Front::start_own() else { return };
    let backend = OverFront { front: Mutex::new(front), databases: AtomicU32::new(0) };
    Runtime::new().unwrap().block_on(conformance::check(&backend));
}
