//! The configuration as the binary sees it: from a file, the environment and flags.

use std::{fs, path::Path, process::Output};

use crate::server::luminate;

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        luminate().args(arguments).envs(environment.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn shipped() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deployments/luminate.yaml").display().to_string()
}

#[test]
fn the_file_we_ship_is_valid() {
    let (code, out, err) = run(&["check", "config", &shipped()], &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.ends_with("is valid\n"), "{out}");
}

#[test]
fn every_mistake_in_a_file_is_told_and_the_code_is_2() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("luminate.yaml");
    fs::write(&file, "server: {listn: x}\nquery: {timeout: 30}\nstorage: {backend: clickhouse}\n").unwrap();
    let (code, out, err) = run(&["check", "config", file.to_str().unwrap()], &[]);
    assert_eq!((code, out.as_str()), (2, ""));
    let by_flag = run(&["check", "config", "--config.file", file.to_str().unwrap()], &[]);
    assert_eq!(by_flag, (code, out, err.clone()));
    for part in [
        "server.listn: unknown key, did you mean server.listen?",
        "query.timeout: \"30\" has no unit",
        "storage.clickhouse.addresses: names no server",
    ] {
        assert!(err.contains(part), "{part}\nis not in\n{err}");
    }
}

#[test]
fn the_server_does_not_start_over_a_mistake() {
    let (code, _, err) = run(&["--listen", "0.0.0.0:0"], &[]);
    assert_eq!(code, 2);
    assert!(err.contains("auth.force_unauthenticated: true"), "{err}");
    let (code, _, err) = run(&["serve", "--config.file", "/nowhere.yaml"], &[]);
    assert_eq!(code, 2);
    assert!(err.contains("/nowhere.yaml"), "{err}");
    let (code, _, err) = run(&["serve"], &[("LUMINATE_SERVER__LISTEN", "x")]);
    assert_eq!(code, 2);
    assert!(err.contains("LUMINATE_SERVER__LISTEN"), "{err}");
}

#[test]
fn what_is_in_effect_can_be_printed_and_used_again() {
    let environment = [("LUMINATE_STORAGE__RETENTION__DEFAULT", "7d")];
    let (code, printed, _) = run(&["config", "print", "--listen", "127.0.0.1:9"], &environment);
    assert_eq!(code, 0);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("printed.yaml");
    fs::write(&file, &printed).unwrap();
    let (code, again, _) = run(&["config", "print", "--config.file", file.to_str().unwrap()], &[]);
    assert_eq!((code, again), (0, printed.clone()));
    assert!(printed.contains("listen: 127.0.0.1:9") && printed.contains("default: 7d"), "{printed}");
    let (_, origins, _) = run(&["config", "print", "--origin"], &environment);
    assert!(
        origins.contains("storage.retention.default: \"7d\"  # LUMINATE_STORAGE__RETENTION__DEFAULT\n"),
        "{origins}"
    );
}
