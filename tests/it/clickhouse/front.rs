//! A ClickHouse to test with: the engine behind our HTTP front, or the server in `LUMINATE_TEST_CLICKHOUSE`.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::server::free_port;

/// A running ClickHouse, and a database in it that nobody else uses.
#[derive(Debug)]
pub struct Front {
    pub url: String,
    pub database: String,
    process: Option<Process>,
}

/// Ours to stop.
#[derive(Debug)]
struct Process {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Process {
    /// Starts the front, and gives where it is.
    fn start() -> Option<(String, Self)> {
        let python = python();
        if !python.exists() {
            assert!(
                std::env::var_os("LUMINATE_TEST_REQUIRE_ALL").is_none_or(|v| v != "1"),
                "{} is not there, and LUMINATE_TEST_REQUIRE_ALL=1 forbids skipping",
                python.display()
            );
            eprintln!("\n=== SKIPPED: no ClickHouse engine; `make setup` installs it ===\n");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let child = run(&dir, port);
        Some((format!("http://127.0.0.1:{port}"), Self { child, port, dir }))
    }
}

/// Runs the front until it listens.
fn run(dir: &tempfile::TempDir, port: u16) -> Child {
    let mut child = Command::new(python())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clickhouse/front.py"))
        .arg("--path")
        .arg(dir.path().join("data"))
        .args(["--port", &port.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("front:"), "the front says {line:?}");
    child
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where `tests/setup` puts the Python that has the engine.
fn python() -> PathBuf {
    std::env::var_os("LUMINATE_TEST_CLICKHOUSE_PYTHON").map_or_else(
        || {
            let home = || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache");
            let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
            cache.join("luminate-tests/chdb/bin/python")
        },
        PathBuf::from,
    )
}

impl Front {
    /// Starts one with an empty database; none if the engine is not installed, which is said loudly.
    pub fn start() -> Option<Self> {
        static DATABASES: AtomicU32 = AtomicU32::new(0);
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let database = format!("luminate_test_{}_{number}", std::process::id());
        let (url, process) = match std::env::var("LUMINATE_TEST_CLICKHOUSE") {
            Ok(url) => (url, None),
            Err(_) => Process::start().map(|(url, process)| (url, Some(process)))?,
        };
        let front = Self { url, database, process };
        front.sql(&format!("CREATE DATABASE {}", front.database));
        Some(front)
    }

    /// Whether it is our front, whose faults can be injected, and not somebody's server.
    pub fn is_ours(&self) -> bool {
        self.process.is_some()
    }

    /// Kills it without warning and runs it again on the same data, at the same address; it has to be ours.
    pub fn kill_and_restart(&mut self) {
        let process = self.process.as_mut().expect("only our own is killed");
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        process.child = run(&process.dir, process.port);
    }

    /// Runs a statement and gives its answer as tab-separated text.
    pub fn sql(&self, statement: &str) -> String {
        let mut answer = agent().post(&self.url).query("database", "default").send(statement).unwrap();
        let text = answer.body_mut().with_config().limit(1 << 30).read_to_string().unwrap();
        assert_eq!(answer.status(), 200, "{statement}: {text}");
        text
    }

    /// Lets the next statements fail: `drop=mid&match=INSERT&times=2`, see the head of `front.py`.
    pub fn fault(&self, what: &str) {
        agent().post(format!("{}/__front/fault?{what}", self.url)).send_empty().unwrap();
    }

    /// Takes the faults back.
    pub fn heal(&self) {
        agent().post(format!("{}/__front/clear", self.url)).send_empty().unwrap();
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if self.process.is_none() {
            self.sql(&format!("DROP DATABASE {}", self.database));
        }
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(std::time::Duration::from_secs(60)))
        .build()
        .into()
}
