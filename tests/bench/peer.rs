//! The two databases that are measured side by side, and how they are run.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::load;

/// A database under measurement.
#[derive(Debug)]
pub struct Target {
    pub name: &'static str,
    pub program: PathBuf,
    args: fn(dir: &Path, port: u16) -> Vec<String>,
    ready: &'static str,
    flush: (&'static str, &'static str),
    /// What of its directory is not data.
    pub not_data: &'static [&'static str],
}

/// This crate's server, or another build of it that `LUMINATE_BENCH_PROGRAM` names, as it is by default.
pub fn luminate() -> Target {
    Target {
        name: "Luminate",
        program: std::env::var_os("LUMINATE_BENCH_PROGRAM")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_luminate").into())
            .into(),
        args: |dir, port| {
            let listen = format!("127.0.0.1:{port}");
            ["serve", "--listen", &listen, "--data-dir", &dir.display().to_string(), "--log.level", "warn"]
                .map(str::to_owned)
                .to_vec()
        },
        ready: "/-/ready",
        flush: ("POST", "/api/v1/admin/tsdb/flush"),
        not_data: &["wal", "BALLAST"],
    }
}

/// Debian's VictoriaMetrics; it may not be installed.
pub fn victoria() -> Target {
    Target {
        name: "VictoriaMetrics",
        program: PathBuf::from("/usr/bin/victoria-metrics"),
        args: |dir, port| {
            vec![
                format!("-storageDataPath={}", dir.display()),
                format!("-httpListenAddr=127.0.0.1:{port}"),
                "-retentionPeriod=100y".to_owned(),
                "-loggerLevel=ERROR".to_owned(),
            ]
        },
        ready: "/health",
        flush: ("GET", "/internal/force_flush"),
        not_data: &[],
    }
}

impl Target {
    /// Starts it; gives its port and how long it took to be ready.
    pub fn run(&self, dir: &Path) -> (Child, u16, Duration) {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let begun = Instant::now();
        let child = Command::new(&self.program)
            .args((self.args)(dir, port))
            .env("LUMINATE_SELF_SCRAPE__ENABLED", "false")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while !load::get(port, "GET", self.ready).is_ok_and(|(status, _)| status == 200) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} is not ready after a minute", self.name);
            std::thread::sleep(Duration::from_millis(2));
        }
        (child, port, begun.elapsed())
    }

    /// Has it write to its disk what it holds in memory.
    pub fn flush(&self, port: u16) {
        let (status, _) = load::get(port, self.flush.0, self.flush.1).unwrap();
        assert_eq!(status / 100, 2, "{} flushes", self.name);
    }
}
