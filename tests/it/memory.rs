//! The memory store keeps the storage contract.

use std::sync::Arc;

use async_trait::async_trait;
use luminate::{
    clock::HandClock,
    model::Millis,
    storage::{
        Storage,
        conformance::{self, Backend, NOW, Settles, Upheaval},
        memory::MemoryStore,
    },
};

#[derive(Debug)]
struct Memory;

#[async_trait]
impl Backend for Memory {
    async fn open(&self) -> Arc<dyn Storage> {
        MemoryStore::new(HandClock::at(NOW), Some(Millis(30 * Millis::DAY.0)))
    }

    fn upheavals(&self) -> &[Upheaval] {
        &[Upheaval::None, Upheaval::Flush]
    }

    async fn upheave(&self, store: Arc<dyn Storage>, upheaval: Upheaval) -> Arc<dyn Storage> {
        assert_eq!(upheaval, Upheaval::Flush, "a store in memory lives through nothing else");
        store.flush().await.unwrap();
        store
    }

    fn settles(&self) -> Settles {
        Settles::Last
    }
}

#[tokio::test]
async fn conformance() {
    conformance::check(&Memory).await;
}
