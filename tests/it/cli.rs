//! The commands, as they are typed, against a server.

use std::{io::Read, process::Stdio, time::Duration};

use crate::{
    patience::{wait_for, wait_for_end},
    server::{Options, Server, luminate, now_ms, remote_write},
};

/// Exit code, standard output and standard error of a command, which has a minute.
fn run(server: Option<&Server>, arguments: &[&str]) -> (i32, String, String) {
    let mut command = luminate();
    if let Some(server) = server {
        command.env("LUMINATE_URL", server.url(""));
    }
    let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read_out = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_| text).unwrap()
    });
    let read_err = std::thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).map(|_| text).unwrap()
    });
    let status = wait_for_end(&format!("luminate {arguments:?}"), &mut child);
    (status.code().unwrap(), read_out.join().unwrap(), read_err.join().unwrap())
}

fn server_with_up() -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &Options::default());
    let labels = vec![("__name__".to_owned(), "up".to_owned()), ("job".to_owned(), "api".to_owned())];
    let body = remote_write(&[(labels, vec![(now_ms() - 1000, 1.0)])]);
    assert_eq!(server.try_write(&body, None).unwrap().0, 204);
    (dir, server)
}

#[test]
fn a_query_shows_a_table_or_json() {
    let (_dir, server) = server_with_up();
    let (code, out, err) = run(Some(&server), &["query", "up"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("SERIES") && out.contains("up{job=\"api\"}  1 "), "{out}");
    let (code, out, _) = run(Some(&server), &["query", "up", "-o", "json"]);
    assert_eq!(code, 0);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["data"]["result"][0]["value"][1], "1");
    let (code, out, _) = run(Some(&server), &["query", "up", "--since", "1m", "--step", "1s"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("up{job=\"api\"}\n  20"), "{out}");
    let (_, out, _) = run(Some(&server), &["query", "up", "--tenant", "other"]);
    assert_eq!(out, "no series\n");
}

#[test]
fn an_expression_that_does_not_parse_is_the_servers_word_and_code_1() {
    let (_dir, server) = server_with_up();
    let (code, out, err) = run(Some(&server), &["query", "up{"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.starts_with("luminate: bad_data: ") && err.contains("parse error"), "{err}");
}

#[test]
fn health_and_flush_answer_by_their_code() {
    let (_dir, server) = server_with_up();
    assert_eq!(run(Some(&server), &["healthcheck"]), (0, String::new(), String::new()));
    assert_eq!(run(Some(&server), &["admin", "flush"]), (0, String::new(), String::new()));
    assert!(server.terminate().success());
    let (code, _, err) = run(None, &["healthcheck", "--server", "http://127.0.0.1:1"]);
    assert_eq!(code, 1);
    assert!(err.starts_with("luminate: http://127.0.0.1:1: "), "{err}");
}

#[test]
fn what_is_not_a_command_is_code_2() {
    assert_eq!(run(None, &["frobnicate"]).0, 2);
    assert_eq!(run(None, &["query"]).0, 2);
    assert_eq!(run(None, &["query", "up", "--at", "noon"]).0, 2);
    assert_eq!(run(None, &["query", "up", "--server", "ftp://x"]).0, 2);
    assert_eq!(run(None, &["sleep", "forever"]).0, 2);
}

#[test]
fn a_nap_takes_as_long_as_it_says() {
    let began = std::time::Instant::now();
    assert_eq!(run(None, &["sleep", "300ms"]), (0, String::new(), String::new()));
    assert!(began.elapsed() >= std::time::Duration::from_millis(300));
}

#[test]
fn what_needs_no_server_answers_alone() {
    let (code, out, _) = run(None, &["version"]);
    assert_eq!((code, out), (0, format!("luminate {}\n", env!("CARGO_PKG_VERSION"))));
    let (code, out, _) = run(None, &["completions", "bash"]);
    assert!(code == 0 && out.contains("_luminate"), "{out}");
    let (code, out, _) = run(None, &["--help"]);
    assert!(code == 0 && out.contains("healthcheck") && out.contains("--config.file"), "{out}");
}

#[test]
fn a_server_scrapes_itself_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default().env("LUMINATE_SELF_SCRAPE__ENABLED", "true");
    let server = Server::start(dir.path(), &options);
    wait_for("the server to be up by its own account", || {
        let up = server.api("/api/v1/query", &[("query", "up{job=\"luminate\"}")]);
        up["result"][0]["value"][1] == "1"
    });
    let (status, metrics) = server.get("/metrics");
    assert_eq!(status, 200);
    for name in [
        "luminate_write_requests_total",
        "luminate_query_requests_total",
        "luminate_query_latency_seconds_bucket",
        "luminate_rate_limit_exceeded_total",
    ] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
    // Gauges are of the moment they are read.
    for empty in ["luminate_head_series 0.0", "luminate_head_samples 0.0", "luminate_head_bytes 0.0"] {
        assert!(!metrics.contains(empty), "{metrics}");
    }
}

#[test]
fn a_signal_that_comes_twice_at_once_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let delayed = Options::default().env("LUMINATE_SERVER__SHUTDOWN__DELAY", "700ms");
    let server = Server::start(dir.path(), &delayed);
    server.ask_to_stop();
    std::thread::sleep(Duration::from_millis(100));
    assert!(server.terminate().success());
}

#[test]
fn a_second_signal_in_earnest_cuts_the_waiting_short() {
    let dir = tempfile::tempdir().unwrap();
    let delayed = Options::default().env("LUMINATE_SERVER__SHUTDOWN__DELAY", "5m");
    let server = Server::start(dir.path(), &delayed);
    server.ask_to_stop();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(server.terminate().code(), Some(1));
}

#[test]
fn two_servers_cannot_share_a_port_or_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &Options::default());
    let address = server.url("").trim_start_matches("http://").to_owned();
    let other = tempfile::tempdir().unwrap();
    let (code, _, err) = run(
        None,
        &["--listen", &address, "--data-dir", other.path().to_str().unwrap(), "--log.level", "error"],
    );
    assert_eq!(code, 1);
    assert!(err.contains("--listen"), "{err}");
    let (code, _, err) = run(
        None,
        &["--listen", "127.0.0.1:0", "--data-dir", dir.path().to_str().unwrap(), "--log.level", "error"],
    );
    assert_eq!(code, 1);
    assert!(err.contains("pid") || err.contains("process"), "{err}");
}
