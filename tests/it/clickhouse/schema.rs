//! The schema, applied by hand and by a store, once and again and at once.

use std::{
    fs,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use luminate::{
    clock::{Clock, SystemClock},
    storage::clickhouse::{ClickHouseConfig, ClickHouseStore},
};
use tokio::runtime::Runtime;

use super::front::Front;
use crate::server::{free_port, luminate};

/// `luminate schema …` over a front.
fn schema(front: &Front, arguments: &[&str]) -> Command {
    let mut command = luminate();
    command.arg("schema").args(arguments).args(["--address", &front.url, "--database", &front.database]);
    command
}

fn run(mut command: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn tables(front: &Front) -> String {
    front.sql(&format!(
        "SELECT name, create_table_query FROM system.tables WHERE database = '{}' ORDER BY name",
        front.database
    ))
}

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
fn a_store_can_apply_the_schema_twice() {
    let Some(front) = Front::start() else { return };
    apply(&front);
    let first = tables(&front);
    assert!(first.lines().any(|table| table.starts_with("samples\t")), "{first}");
    apply(&front);
    assert_eq!(tables(&front), first);
}

#[test]
fn the_schema_is_missing_then_planned_then_applied_then_left_alone() {
    let Some(front) = Front::start() else { return };
    front.sql(&format!("DROP DATABASE {}", front.database));
    let (code, out, err) = run(schema(&front, &["status"]));
    assert_eq!(
        (code, out.as_str()),
        (
            1,
            "VERSION  NAME       APPLIED\n1        tables     no\n2        documents  no\n3        changes    no\n"
        )
    );
    assert!(err.contains("run `luminate schema apply`"), "{err}");

    let (code, plan, err) = run(schema(&front, &["apply", "--dry-run"]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(plan.contains("CREATE DATABASE") && plan.contains(".samples"), "{plan}");
    assert_eq!(tables(&front), "", "a dry run makes nothing");

    let (code, out, err) = run(schema(&front, &["apply"]));
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (
            0,
            "applying version 1 (tables)\napplying version 2 (documents)\napplying version 3 (changes)\ndone\n",
            ""
        )
    );
    let (code, out, err) = run(schema(&front, &["status"]));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("1        tables     20"), "{out}");

    let made = tables(&front);
    assert_eq!(run(schema(&front, &["apply"])), (0, "nothing to do\n".to_owned(), String::new()));
    assert_eq!(
        run(schema(&front, &["apply", "--dry-run"])),
        (0, "-- nothing to do\n".to_owned(), String::new())
    );
    assert_eq!(tables(&front), made);
}

#[test]
fn what_is_printed_does_the_same_by_hand() {
    let Some(front) = Front::start() else { return };
    let (code, script, _) = run(schema(&front, &["print"]));
    assert_eq!(code, 0);
    for statement in script.split(";\n\n") {
        let code: Vec<&str> = statement.lines().filter(|line| !line.starts_with("--")).collect();
        if code.iter().any(|line| !line.trim().is_empty()) {
            front.sql(&code.join("\n"));
        }
    }
    assert_eq!(run(schema(&front, &["status"])).0, 0);
    assert_eq!(run(schema(&front, &["apply"])).1, "nothing to do\n");
}

#[test]
fn an_interrupted_application_goes_on() {
    let Some(front) = Front::start() else { return };
    if !front.is_ours() {
        return;
    }
    let exemplars = format!("EXISTS%20.{}.%5C.exemplars", front.database);
    front.fault_everywhere(&format!("fail=241&match={exemplars}"));
    let (code, _, err) = run(schema(&front, &["apply"]));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("Code: 241"), "{err}");
    let half = tables(&front);
    assert!(half.contains("samples\t") && !half.contains("tombstones\t"), "{half}");
    assert_eq!(run(schema(&front, &["status"])).0, 1, "half a version is none");
    let (code, out, err) = run(schema(&front, &["apply"]));
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (
            0,
            "applying version 1 (tables)\napplying version 2 (documents)\napplying version 3 (changes)\ndone\n",
            ""
        )
    );
    assert!(tables(&front).contains("tombstones\t"));
}

#[test]
fn several_may_apply_at_once() {
    let Some(front) = Front::start() else { return };
    let running: Vec<_> = (0..4)
        .map(|_| schema(&front, &["apply"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for one in running {
        let Output { status, stderr, .. } = one.wait_with_output().unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    }
    let (code, out, _) = run(schema(&front, &["status"]));
    assert_eq!((code, out.lines().count()), (0, 4), "{out}");
}

#[test]
fn a_schema_of_another_time_is_told_from_ours() {
    let Some(front) = Front::start() else { return };
    assert_eq!(run(schema(&front, &["apply"])).0, 0);
    let insert = |values: &str| {
        front.sql(&format!(
            "INSERT INTO {}.schema_migrations (version, name, checksum, min_compatible) VALUES {values}",
            front.database
        ))
    };
    insert("(900, 'later', 'x', 1)");
    let (code, out, err) = run(schema(&front, &["status"]));
    assert_eq!((code, err.as_str()), (0, ""), "an older binary gets along with it");
    assert!(out.contains("900      later      20"), "{out}");
    assert_eq!(run(schema(&front, &["apply"])).1, "nothing to do\n");
    insert("(901, 'much later', 'x', 900)");
    let (code, _, err) = run(schema(&front, &["status"]));
    assert_eq!(code, 1);
    assert!(err.contains("can be used from version 900 on") && err.contains("run a later Luminate"), "{err}");
    front.sql(&format!("TRUNCATE TABLE {}.schema_migrations", front.database));
    insert("(1, 'tables', 'x', 1), (2, 'documents', 'x', 1), (3, 'changes', 'x', 1)");
    let (code, out, _) = run(schema(&front, &["status"]));
    assert_eq!(code, 0);
    assert!(out.contains("warning: version 1 (tables) was applied from another text"), "{out}");
}

#[test]
fn tables_of_a_single_server_are_not_taken_for_a_clusters() {
    let Some(front) = Front::start() else { return };
    assert_eq!(run(schema(&front, &["apply"])).0, 0);
    for command in ["status", "apply"] {
        let (code, _, err) = run(schema(&front, &[command, "--cluster", "main"]));
        assert_eq!(code, 1);
        assert!(err.contains("not of the cluster main"), "{err}");
    }
}

#[test]
fn the_engine_reads_the_statements_for_a_cluster() {
    let Some(front) = Front::start() else { return };
    let (_, plan, err) = run(schema(&front, &["apply", "--dry-run", "--cluster", "main"]));
    assert_eq!(err, "");
    let statements: Vec<&str> = plan.split(";\n\n").filter(|s| s.contains("CREATE")).collect();
    assert!(statements.len() > 20, "{plan}");
    for statement in statements {
        let code: Vec<&str> = statement.lines().filter(|line| !line.starts_with("--")).collect();
        let text = code.join("\n").replace('\\', "\\\\").replace('\'', "\\'");
        let read = front.sql(&format!("SELECT formatQuery('{text}')"));
        assert!(read.contains("ON CLUSTER main"), "{read}");
    }
}

#[test]
fn a_wrong_password_is_told_and_the_right_one_works() {
    let Some(mut front) = Front::start_own() else { return };
    front.kill();
    front.start_again(&["--user", "lumi", "--password", "hunter2"]);
    let with = |password: &str, command: &str| {
        let mut command = schema(&front, &[command, "--username", "lumi"]);
        command.env("LUMINATE_STORAGE__CLICKHOUSE__PASSWORD", password);
        run(command)
    };
    let (code, out, err) = with("hunter1", "apply");
    assert_eq!((code, out.as_str()), (1, ""));
    let expected = format!("ClickHouse at {} does not let user \"lumi\" do this: Code: 516", front.url);
    assert!(err.contains(&expected) && !err.contains("hunter"), "{err}");
    let (code, out, err) = with("hunter2", "apply");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(with("hunter2", "status").0, 0);
}

#[test]
fn servers_that_are_not_there_are_told_by_name() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    for command in [&["status"][..], &["apply"], &["apply", "--dry-run"]] {
        let (code, out, err) = run({
            let mut line = luminate();
            line.arg("schema").args(command).args(["--address", &nobody]);
            line
        });
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.contains(&format!("cannot reach ClickHouse at {nobody}")), "{err}");
    }
}

#[test]
fn the_servers_are_found_as_serve_finds_them() {
    let Some(front) = Front::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (file, password) = (dir.path().join("luminate.yaml"), dir.path().join("password"));
    let yaml = format!(
        "storage: {{backend: clickhouse, clickhouse: {{addresses: [\"{}\"], password_file: \"{}\"}}}}",
        front.url,
        password.display()
    );
    fs::write(&file, yaml).unwrap();
    let status = || {
        let mut command = luminate();
        command.args(["schema", "status"]).env("LUMINATE_CONFIG_FILE", &file);
        command.env("LUMINATE_STORAGE__CLICKHOUSE__DATABASE", &front.database);
        run(command)
    };
    let (code, _, err) = status();
    assert_eq!(code, 1);
    assert!(err.contains("password_file") && err.contains("No such file"), "{err}");
    fs::write(&password, "hunter2\n").unwrap();
    assert!(status().2.contains("the schema is missing"), "{err}");
    let (code, _, err) = run({
        let mut command = luminate();
        command.args(["schema", "status"]);
        command
    });
    assert_eq!(code, 2);
    assert!(err.contains("storage.clickhouse.addresses: names no server"), "{err}");
}
