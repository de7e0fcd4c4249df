//! The schema, applied.

use std::sync::Arc;

use luminate::{
    clock::{Clock, SystemClock},
    storage::clickhouse::{ClickHouseConfig, ClickHouseStore},
};
use tokio::runtime::Runtime;

use super::front::Front;

/// A store in the test's own process; to be called inside a runtime.
pub fn open(front: &Front, clock: Arc<dyn Clock>) -> Arc<ClickHouseStore> {
    let config = ClickHouseConfig { database: front.database.clone(), ..ClickHouseConfig::new(&front.url) };
    ClickHouseStore::open(config, clock).unwrap()
}

/// Brings the schema to what this version needs.
pub fn apply(front: &Front) {
    let runtime = Runtime::new().unwrap();
    let _inside = runtime.enter();
    runtime.block_on(open(front, SystemClock::start()).apply_schema()).unwrap();
}

#[test]
fn the_schema_can_be_applied_twice() {
    let Some(front) = Front::start() else { return };
    apply(&front);
    apply(&front);
    let tables = front.sql(&format!("SHOW TABLES FROM {}", front.database));
    assert!(tables.lines().any(|table| table == "samples"), "{tables}");
}
