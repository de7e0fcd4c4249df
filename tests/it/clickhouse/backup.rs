//! Backups by the command, against the engine: made, tried out, restored, refused.

use std::{fs, sync::Arc};

use luminate::{
    clock::{Clock, SystemClock},
    model::{Labels, TenantId, Timestamp},
    storage::{
        BatchSample, Storage, WriteBatch,
        clickhouse::{ClickHouseConfig, ClickHouseStore},
    },
};
use tokio::runtime::Runtime;

use super::front::Front;
use crate::server::luminate;

/// Exit code, standard output and standard error of a command on backups.
fn backup(arguments: &[&str]) -> (i32, String, String) {
    let output = luminate().arg("backup").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// An engine that may write backups to a disk and a directory.
fn front() -> Option<(Front, tempfile::TempDir)> {
    if std::env::var_os("LUMINATE_TEST_CLICKHOUSE").is_some() {
        eprintln!("\n=== SKIPPED: the backups of somebody's server are not ours ===\n");
        return None;
    }
    let mut front = Front::start_own()?;
    let dir = tempfile::tempdir().unwrap();
    let (config, path) = (dir.path().join("config.xml"), dir.path().display().to_string());
    let text = format!(
        "<clickhouse><logger><level>none</level></logger>\
         <backups><allowed_path>{path}/files/</allowed_path><allowed_disk>backups</allowed_disk></backups>\
         <storage_configuration><disks><backups><type>local</type><path>{path}/disk/</path></backups></disks>\
         </storage_configuration></clickhouse>"
    );
    fs::write(&config, text).unwrap();
    for directory in ["files", "disk"] {
        fs::create_dir(dir.path().join(directory)).unwrap();
    }
    front.kill();
    front.start_again(&["--config", config.to_str().unwrap()]);
    Some((front, dir))
}

fn append(runtime: &Runtime, store: &Arc<ClickHouseStore>, count: i64) {
    let clock = SystemClock::start();
    let mut batch = WriteBatch::over(vec![Labels::from_pairs([("__name__", "up")]).unwrap()]);
    batch.samples = (0..count)
        .map(|i| BatchSample {
            series: 0,
            timestamp: Timestamp(clock.now().0 - i * 1000 - count),
            value: 1.0,
            start: 0,
        })
        .collect();
    runtime.block_on(store.append(&TenantId::anonymous(), batch)).unwrap();
}

#[test]
fn a_backup_is_made_tried_out_and_restored() {
    let Some((front, dir)) = front() else { return };
    let runtime = Runtime::new().unwrap();
    let config = ClickHouseConfig { database: front.database.clone(), ..ClickHouseConfig::new(&front.url) };
    let store = {
        let _inside = runtime.enter();
        ClickHouseStore::open(config, SystemClock::start()).unwrap()
    };
    runtime.block_on(store.apply_schema()).unwrap();
    let servers = ["--address", &front.url, "--database", &front.database];
    let run = |arguments: &[&str]| backup(&[arguments, &servers].concat());
    let samples =
        |database: &str| front.sql(&format!("SELECT count() FROM {database}.samples")).trim().to_owned();

    append(&runtime, &store, 100);
    let (code, out, err) = run(&["create", "one"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("one: ") && out.contains(" files, "), "{out}");
    let (code, _, err) = run(&["create", "one"]);
    assert!(code == 1 && err.contains("already exists") && !err.contains("Stack trace"), "{err}");

    append(&runtime, &store, 50);
    let held = samples(&front.database);
    let (code, _, err) = run(&["create", "2026/two", "--base", "one"]);
    assert_eq!(code, 0, "{err}");
    let (code, out, err) = run(&["verify", "2026/two"]);
    assert_eq!(code, 0, "{err}");
    let of_samples = out.lines().find(|line| line.starts_with("samples ")).unwrap_or_else(|| panic!("{out}"));
    let columns: Vec<&str> = of_samples.split_whitespace().collect();
    assert_eq!(columns, ["samples", held.as_str(), "yes"], "{out}");
    let databases = front.sql("SHOW DATABASES");
    assert!(!databases.contains("_luminate_"), "{databases}");

    // Nothing that is there is written over.
    let (code, _, err) = run(&["restore", "one"]);
    assert!(code == 1 && err.contains("--into") && err.contains("--replace"), "{err}");
    assert_eq!(samples(&front.database), held);
    let other = format!("{}_other", front.database);
    let (code, out, err) = run(&["restore", "2026/two", "--into", &other]);
    assert_eq!((code, out), (0, format!("restored 2026/two into {other}\n")), "{err}");
    assert_eq!(samples(&other), held);
    let (code, out, err) = run(&["restore", "one", "--replace"]);
    assert!(code == 0 && out.contains("_before_"), "{out}{err}");
    assert_eq!(samples(&front.database), "100");
    let aside = out.split_whitespace().find(|word| word.contains("_before_")).unwrap().trim_end_matches(';');
    assert_eq!(samples(aside), held);

    // Where it is, everything goes on: what is written next has its label values, and there only.
    let values = |database: &str| {
        front
            .sql(&format!("SELECT count() FROM {database}.label_values WHERE value = 'later'"))
            .trim()
            .to_owned()
    };
    for database in [&other, &front.database] {
        front.sql(&format!(
            "INSERT INTO {database}.series (tenant, day, metric, mid, sid, labels) \
             VALUES ('t', today(), 'm', 1, 1, {{'a': 'later'}})"
        ));
        assert_eq!((values(database).as_str(), values(aside).as_str()), ("1", "0"), "{database}");
    }

    // To a directory, with a name made of the time; and what is not there, or not allowed.
    let (code, out, err) = run(&["create", "--at", "file"]);
    assert!(code == 0 && out.starts_with(&format!("{}-2", front.database)), "{out}{err}");
    assert_eq!(fs::read_dir(dir.path().join("files")).unwrap().count(), 1);
    let (code, _, err) = run(&["verify", "nowhere"]);
    assert!(code == 1 && err.contains("not found"), "{err}");
    let (code, _, err) = run(&["create", "x", "--at", "s3:offsite"]);
    assert!(code == 1 && err.contains("named collection"), "{err}");
    let (code, _, err) = run(&["create", "x", "--at", "disk:default"]);
    assert!(code == 1 && err.contains("is not allowed for backups"), "{err}");
    let (code, _, err) = backup(&["create", "x", "--address", &front.url, "--database", "nothing_here"]);
    assert!(code == 1 && err.contains("the database nothing_here has no tables"), "{err}");
}

#[test]
fn what_cannot_be_backed_up_is_told() {
    let (code, _, err) = backup(&["create"]);
    assert!(
        code == 1
            && err.contains("the store is the embedded one, whose backups are in a directory or a bucket"),
        "{err}"
    );
    for arguments in [
        &["create", "../x"][..],
        &["create", "x", "--at", "s3:https://key:secret@host/bucket"],
        &["restore", "x", "--into", "a`b"],
        &["restore"],
    ] {
        assert_eq!(backup(arguments).0, 2, "{arguments:?}");
    }
    let (code, _, err) = backup(&["list", "--address", "http://127.0.0.1:1"]);
    assert!(code == 1 && err.contains("cannot reach ClickHouse at http://127.0.0.1:1"), "{err}");
}
