//! A ClickHouse to test with: the engine behind our HTTP front, or the server in `LUMINATE_TEST_CLICKHOUSE`.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::server::free_port;

/// A running ClickHouse, and a database in it that nobody else uses.
#[derive(Debug)]
pub struct Front {
    pub url: String,
    pub database: String,
    engine: Engine,
}

/// Whose the engine is.
#[derive(Debug)]
enum Engine {
    /// Somebody's server, in which we are guests.
    Theirs,
    /// The front that the tests of this binary share.
    Shared,
    /// A front for one test, which may kill it.
    Own(Process),
}

/// A front with a directory of its own.
#[derive(Debug)]
struct Process {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Process {
    fn start() -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        Self { child: spawn(&dir.path().join("data"), port, &[]), port, dir }
    }

    fn kill(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a front, and returns when it listens.
///
/// It ends with us, however we end: its standard input does.
fn spawn(data: &Path, port: u16, more: &[&str]) -> Child {
    let mut child = Command::new(python())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clickhouse/front.py"))
        .arg("--path")
        .arg(data)
        .args(["--port", &port.to_string(), "--until-stdin-ends"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("front:"), "the front says {line:?}");
    child
}

/// The port of the front that all share.
fn shared() -> u16 {
    static SHARED: OnceLock<(u16, Child)> = OnceLock::new();
    let start = || {
        let (dir, port) = (tempfile::tempdir().unwrap().keep(), free_port());
        (port, spawn(&dir, port, &["--ephemeral"]))
    };
    SHARED.get_or_init(start).0
}

/// Whether the engine is installed; if not, says so loudly, and fails where skipping is not allowed.
fn have_engine() -> bool {
    let python = python();
    if !python.exists() {
        assert!(
            std::env::var_os("LUMINATE_TEST_REQUIRE_ALL").is_none_or(|v| v != "1"),
            "{} is not there, and LUMINATE_TEST_REQUIRE_ALL=1 forbids skipping",
            python.display()
        );
        eprintln!("\n=== SKIPPED: no ClickHouse engine; `make setup` installs it ===\n");
    }
    python.exists()
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
    /// An empty database in the engine that all tests share; none if there is no engine.
    pub fn start() -> Option<Self> {
        if let Ok(url) = std::env::var("LUMINATE_TEST_CLICKHOUSE") {
            return Some(Self::with(url, Engine::Theirs));
        }
        have_engine().then(|| Self::with(format!("http://127.0.0.1:{}", shared()), Engine::Shared))
    }

    /// The same in an engine of the test's own, for those that kill it or need it quiet.
    pub fn start_own() -> Option<Self> {
        have_engine().then(|| {
            let process = Process::start();
            Self::with(format!("http://127.0.0.1:{}", process.port), Engine::Own(process))
        })
    }

    fn with(url: String, engine: Engine) -> Self {
        static DATABASES: AtomicU32 = AtomicU32::new(0);
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let database = format!("luminate_test_{}_{number}", std::process::id());
        let front = Self { url, database, engine };
        front.sql(&format!("CREATE DATABASE {}", front.database));
        front
    }

    /// Whether it is our front, whose faults can be injected, and not somebody's server.
    pub fn is_ours(&self) -> bool {
        !matches!(self.engine, Engine::Theirs)
    }

    /// Kills an engine of the test's own without warning.
    pub fn kill(&mut self) {
        self.own().kill();
    }

    /// Starts it again after a kill, where it was and with what it had; `more` are flags of the front.
    pub fn start_again(&mut self, more: &[&str]) {
        let process = self.own();
        process.child = spawn(&process.dir.path().join("data"), process.port, more);
    }

    /// The process of an engine of the test's own.
    #[allow(dead_code, reason = "the bench binds it to a core")]
    pub fn pid(&mut self) -> u32 {
        self.own().child.id()
    }

    fn own(&mut self) -> &mut Process {
        match &mut self.engine {
            Engine::Own(process) => process,
            Engine::Theirs | Engine::Shared => panic!("this engine is not for one test alone"),
        }
    }

    /// Runs a statement and gives its answer as tab-separated text.
    pub fn sql(&self, statement: &str) -> String {
        let mut answer = agent().post(&self.url).query("database", "default").send(statement).unwrap();
        let text = answer.body_mut().with_config().limit(1 << 30).read_to_string().unwrap();
        assert_eq!(answer.status(), 200, "{statement}: {text}");
        text
    }

    /// Lets the next statements on this database fail: `drop=mid&match=INSERT&times=2`, see the head of `front.py`.
    pub fn fault(&self, what: &str) {
        agent()
            .post(format!("{}/__front/fault?database={}&{what}", self.url, self.database))
            .send_empty()
            .unwrap();
    }

    /// The same whatever the database; the test says by what it matches that it means its own statements.
    pub fn fault_everywhere(&self, what: &str) {
        agent().post(format!("{}/__front/fault?{what}", self.url)).send_empty().unwrap();
    }

    /// Takes the faults back.
    pub fn heal(&self) {
        agent().post(format!("{}/__front/clear?database={}", self.url, self.database)).send_empty().unwrap();
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if !matches!(self.engine, Engine::Own(_)) && !std::thread::panicking() {
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
