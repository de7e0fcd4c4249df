//! What people and scripts read, word for word: the help of each command, the configuration in effect, and
//! the card of a first run.
//!
//! The words are in `tests/golden`. `make golden` writes them anew; the difference is then read like code.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
};

use crate::server::{free_port, luminate};

/// Compares `text` with the golden file `name`, or makes it that.
pub fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("LUMINATE_TEST_GOLDEN").is_some_and(|v| v == "rewrite") {
        fs::write(&path, text).unwrap();
        return;
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == text,
        "tests/golden/{name} says\n{golden}\nbut it is now\n{text}\n`make golden` accepts that"
    );
}

fn print(arguments: &[&str]) -> String {
    let output = luminate().args(arguments).output().unwrap();
    assert!(output.status.success(), "luminate {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_help_of_each_command() {
    let commands: &[&[&str]] = &[
        &[],
        &["serve"],
        &["query"],
        &["export"],
        &["import"],
        &["check", "config"],
        &["config", "print"],
        &["schema"],
        &["schema", "apply"],
        &["schema", "status"],
        &["schema", "print"],
        &["backup"],
        &["backup", "create"],
        &["backup", "verify"],
        &["backup", "restore"],
        &["backup", "list"],
        &["backup", "prune"],
        &["verify"],
        &["repair"],
        &["key"],
        &["key", "create"],
        &["key", "list"],
        &["key", "revoke"],
        &["token"],
        &["token", "create"],
        &["token", "inspect"],
        &["healthcheck"],
        &["sleep"],
        &["admin"],
        &["admin", "capacity"],
        &["admin", "check"],
        &["admin", "flush"],
        &["admin", "smoke"],
        &["admin", "canary"],
        &["completions"],
    ];
    let help = commands.iter().map(|command| {
        let arguments = [*command, &["--help"]].concat();
        format!("$ luminate {}\n{}\n", arguments.join(" "), print(&arguments))
    });
    check("help.txt", &help.collect::<String>());
}

#[test]
fn the_configuration_that_nobody_changed() {
    check("config.yaml", &print(&["config", "print"]));
}

#[test]
fn the_schema_of_a_cluster() {
    check("schema_cluster.sql", &print(&["schema", "print", "--cluster", "main"]));
}

#[test]
fn the_card_of_a_first_run() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let mut server = luminate()
        .args(["--listen", &address, "--log.format", "console", "--log.level", "error"])
        .current_dir(dir.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The card ends with whom the server listens to, and an empty line.
    let mut card = String::new();
    for line in BufReader::new(server.stderr.take().unwrap()).lines() {
        card += &line.unwrap();
        card.push('\n');
        if card.contains("Listening on") {
            break;
        }
    }
    server.kill().unwrap();
    server.wait().unwrap();
    let card = card.replace(&address, "ADDRESS").replace(env!("CARGO_PKG_VERSION"), "VERSION");
    check("card.txt", &card);
}
