//! The schema, applied.

use luminate::{
    clock::SystemClock,
    storage::clickhouse::{ClickHouseConfig, ClickHouseStore},
};
use tokio::runtime::Runtime;

use super::front::Front;

#[test]
fn the_schema_can_be_applied_twice() {
    let Some(front) = Front::start() else { return };
    let runtime = Runtime::new().unwrap();
    let _inside = runtime.enter();
    let config = ClickHouseConfig { database: front.database.clone(), ..ClickHouseConfig::new(&front.url) };
    let store = ClickHouseStore::open(config, SystemClock::start()).unwrap();
    runtime.block_on(store.apply_schema()).unwrap();
    runtime.block_on(store.apply_schema()).unwrap();
    let tables = front.sql(&format!("SHOW TABLES FROM {}", front.database));
    assert!(tables.lines().any(|table| table == "samples"), "{tables}");
}
