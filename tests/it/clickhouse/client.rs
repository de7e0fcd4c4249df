//! The client against the engine.

use bytes::Bytes;
use luminate::{
    clock::SystemClock,
    storage::{
        Fault, StorageError,
        clickhouse::{
            ClickHouseConfig, ClickHouseStore,
            client::{Class, Insert, Servers, Statement},
            rowbinary::Write,
        },
    },
};
use tokio::runtime::Runtime;

use super::front::Front;
use crate::patience::wait_for;

fn config(front: &Front) -> ClickHouseConfig {
    ClickHouseConfig { database: front.database.clone(), ..ClickHouseConfig::new(&front.url) }
}

fn servers(front: &Front) -> Servers {
    Servers::new(&config(front), SystemClock::start()).unwrap()
}

fn numbers(count: u64) -> Bytes {
    let mut rows = Vec::new();
    (0..count).for_each(|n| rows.u64(n));
    rows.into()
}

fn table(front: &Front, name: &str) {
    front.sql(&format!(
        "CREATE TABLE {}.{name} (n UInt64) ENGINE = MergeTree ORDER BY n \
         SETTINGS non_replicated_deduplication_window = 100",
        front.database
    ));
}

fn count(front: &Front, what: &str) -> String {
    front.sql(&format!("SELECT {what}")).trim().to_owned()
}

#[test]
fn an_insert_is_one_block_and_is_taken_once() {
    let Some(front) = Front::start() else { return };
    table(&front, "numbers");
    let servers = servers(&front);
    // More rows than a server puts into one block by itself.
    let insert = Insert { into: "numbers (n)", rows: numbers(2_500_000), token: "a".to_owned() };
    let runtime = Runtime::new().unwrap();
    for _ in 0..2 {
        runtime.block_on(servers.insert(&insert)).unwrap();
    }
    let database = &front.database;
    assert_eq!(count(&front, &format!("count() FROM {database}.numbers")), "2500000");
    let parts = format!(
        "count() FROM system.parts WHERE database = '{database}' AND table = 'numbers' AND active AND level = 0"
    );
    assert_eq!(count(&front, &parts), "1");
}

#[test]
fn an_insert_whose_answer_is_lost_is_sent_again_and_taken_once() {
    let Some(front) = Front::start() else { return };
    if !front.is_ours() {
        return;
    }
    table(&front, "numbers");
    let (servers, runtime) = (servers(&front), Runtime::new().unwrap());
    for (token, fault) in
        [("a", "drop=after"), ("b", "fail=319:after"), ("c", "drop=before"), ("d", "fail=252")]
    {
        front.fault(&format!("{fault}&match=INSERT&times=1"));
        let insert = Insert { into: "numbers (n)", rows: numbers(10), token: token.to_owned() };
        runtime.block_on(servers.insert(&insert)).unwrap();
    }
    assert_eq!(count(&front, &format!("count() FROM {}.numbers", front.database)), "40");
}

#[test]
fn a_view_takes_an_insert_that_is_sent_again_once() {
    let Some(front) = Front::start() else { return };
    let runtime = Runtime::new().unwrap();
    {
        let _inside = runtime.enter();
        let store = ClickHouseStore::open(config(&front), SystemClock::start()).unwrap();
        runtime.block_on(store.apply_schema()).unwrap();
    }
    let mut rows = Vec::new();
    rows.string("acme");
    rows.u16(20_000);
    rows.string("up");
    rows.u64(1);
    rows.u64(2);
    rows.length(1);
    rows.string("__name__");
    rows.string("up");
    let into = "series (tenant, day, metric, mid, sid, labels)";
    let insert = Insert { into, rows: rows.into(), token: "a".to_owned() };
    let servers = servers(&front);
    for _ in 0..3 {
        runtime.block_on(servers.insert(&insert)).unwrap();
    }
    let database = &front.database;
    for table in ["series", "label_values"] {
        assert_eq!(count(&front, &format!("count() FROM {database}.{table}")), "1", "{table}");
    }
}

#[test]
fn a_read_that_is_dropped_ends_on_the_server() {
    let Some(front) = Front::start() else { return };
    let (servers, runtime) = (servers(&front), Runtime::new().unwrap());
    let statement =
        Statement::new("SELECT sleepEachRow(0.5) + {mark:UInt64} AS dropped_read FROM numbers(10000)")
            .param("mark", 4_711_u64)
            .setting("max_block_size", 1)
            .setting("function_sleep_max_microseconds_per_block", 0);
    let running = || {
        let what = "count() FROM system.processes WHERE query LIKE '%dropped_read%' \
                    AND query NOT LIKE '%system.processes%'";
        count(&front, what)
    };
    let until = |expected: &str| {
        wait_for(&format!("{expected} reads to be running"), || running() == expected);
    };
    let reading = runtime.spawn(async move { servers.rows(&statement).await });
    until("1");
    reading.abort();
    until("0");
}

#[test]
fn what_goes_wrong_is_told_apart() {
    let Some(front) = Front::start() else { return };
    let (servers, runtime) = (servers(&front), Runtime::new().unwrap());
    let failure = |statement: Statement| {
        runtime.block_on(async {
            match servers.rows(&statement).await {
                Ok(rows) => rows.all(|row| row.u8()).await.unwrap_err(),
                Err(failure) => failure,
            }
        })
    };
    let missing = failure(Statement::new("SELECT secret FROM no_such_table"));
    assert_eq!((missing.class, missing.code), (Class::Schema, Some(60)));
    let wide = "SELECT groupArray(number) FROM numbers(100000000)";
    let memory = failure(Statement::new(wide).setting("max_memory_usage", 10_000_000));
    assert_eq!((memory.class, memory.code), (Class::Exhausted, Some(241)));
    let error = StorageError::from(memory);
    assert_eq!(error.fault(), Fault::Caller);
    assert!(error.to_string().contains("max_memory_usage = 10000000"), "{error}");
    let rows = failure(Statement::new("SELECT number FROM numbers(1000)").setting("max_rows_to_read", 10));
    assert_eq!((rows.class, rows.code), (Class::Exhausted, Some(158)));
    let setting = failure(Statement::new("SELECT 1").setting("no_such_setting", 1));
    assert_eq!((setting.class, setting.code), (Class::Schema, Some(115)));
    assert!(setting.message.contains("readonly = 2"), "{setting}");
    assert_eq!(failure(Statement::new("SELECT 1 +")).class, Class::Broken);
}

#[test]
fn rows_come_through_a_connection_that_breaks_before_them() {
    let Some(front) = Front::start() else { return };
    if !front.is_ours() {
        return;
    }
    let (servers, runtime) = (servers(&front), Runtime::new().unwrap());
    let ask = || {
        runtime.block_on(async {
            servers
                .rows(&Statement::new("SELECT number FROM numbers(5000)"))
                .await?
                .all(|row| row.u64())
                .await
        })
    };
    front.fault("drop=before&match=numbers&times=1");
    assert_eq!(ask().unwrap().len(), 5000);
    front.fault("drop=mid&match=numbers&times=1");
    assert_eq!(ask().unwrap_err().class, Class::Unreachable);
    front.fault("fail_mid=241&match=numbers&times=1");
    assert_eq!(ask().unwrap_err().class, Class::Exhausted);
    assert_eq!(ask().unwrap(), (0..5000).collect::<Vec<_>>());
}
