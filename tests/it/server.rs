//! The real binary on a free port and a directory of its own, and what clients say to it.

use std::{
    io::Read,
    net::TcpListener,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::patience::wait_for;

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running `luminate serve`; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub port: u16,
}

/// How a test's server differs from the defaults.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// More environment.
    pub env: Vec<(String, String)>,
    /// How many files the server may have open, which it cannot raise.
    pub open_files: Option<u32>,
    /// Where it listens, if not at any free port.
    pub port: Option<u16>,
    /// Whether it logs only errors, as where trouble is the point.
    pub quiet: bool,
}

impl Options {
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }
}

/// The binary, with no settings of the caller's environment.
pub fn luminate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luminate"));
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("LUMINATE_")) {
        command.env_remove(key);
    }
    command
}

/// The same under a limit of open files.
fn limited(open_files: u32) -> Command {
    let plain = luminate();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &open_files.to_string()]);
    command.arg(plain.get_program());
    for (key, _) in plain.get_envs() {
        command.env_remove(key);
    }
    command
}

impl Server {
    /// Starts a server without self-scrape and waits until it is ready.
    pub fn start(data_dir: &Path, options: &Options) -> Self {
        let server = Self::spawn(data_dir, options);
        server.wait_ready();
        server
    }

    /// Starts a server and does not wait.
    pub fn spawn(data_dir: &Path, options: &Options) -> Self {
        let port = options.port.unwrap_or_else(free_port);
        let mut command = match options.open_files {
            Some(limit) => limited(limit),
            None => luminate(),
        };
        let child = command
            .arg("serve")
            .args([
                "--listen",
                &format!("127.0.0.1:{port}"),
                "--log.level",
                if options.quiet { "error" } else { "warn" },
            ])
            .arg("--data-dir")
            .arg(data_dir)
            .env("LUMINATE_SELF_SCRAPE__ENABLED", "false")
            .envs(options.env.iter().cloned())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self { child, port }
    }

    pub fn wait_ready(&self) {
        wait_for("the server to be ready", || {
            self.try_get("/-/ready").is_ok_and(|(status, _)| status == 200)
        });
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn try_get(&self, path: &str) -> Result<(u16, String), ureq::Error> {
        let mut answer = agent().get(self.url(path)).call()?;
        let mut body = String::new();
        let status = answer.status().as_u16();
        answer.body_mut().as_reader().read_to_string(&mut body).map_err(ureq::Error::Io)?;
        Ok((status, body))
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        self.try_get(path).unwrap()
    }

    /// Sends a remote-write 1.0 body, already compressed.
    pub fn try_write(&self, body: &[u8], tenant: Option<&str>) -> Result<(u16, String), ureq::Error> {
        self.try_write_over(&agent(), body, tenant)
    }

    /// The same over the connections that an agent has already.
    pub fn try_write_over(
        &self,
        agent: &ureq::Agent,
        body: &[u8],
        tenant: Option<&str>,
    ) -> Result<(u16, String), ureq::Error> {
        let mut request = agent
            .post(self.url("/api/v1/write"))
            .header("Content-Type", "application/x-protobuf")
            .header("Content-Encoding", "snappy")
            .header("X-Prometheus-Remote-Write-Version", "0.1.0");
        if let Some(tenant) = tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        let mut answer = request.send(body)?;
        let status = answer.status().as_u16();
        Ok((status, answer.body_mut().read_to_string()?))
    }

    pub fn try_post(&self, path: &str) -> Result<(u16, String), ureq::Error> {
        let mut answer = agent().post(self.url(path)).send_empty()?;
        let status = answer.status().as_u16();
        Ok((status, answer.body_mut().read_to_string()?))
    }

    /// `data` of a successful answer of the query API.
    pub fn api(&self, path: &str, params: &[(&str, &str)]) -> Value {
        api(&self.url(""), path, params)
    }

    /// The most memory the process had at a time.
    pub fn peak_rss_mb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Kills the process without warning.
    pub fn kill(&self) {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::KILL).unwrap();
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    /// Asks the process to read again what it reads while it runs.
    pub fn hang_up(&self) {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::HUP).unwrap();
    }

    /// Asks the process to stop, and does not wait.
    pub fn ask_to_stop(&self) {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM).unwrap();
    }

    /// Asks the process to stop, and gives its exit status.
    pub fn terminate(self) -> ExitStatus {
        self.ask_to_stop();
        self.wait()
    }

    /// Waits until the process ends, and gives its exit status.
    pub fn wait(mut self) -> ExitStatus {
        self.wait_for_end()
    }

    /// The same for a server that is to be replaced.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                return ExitStatus::from_raw(9);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks, and takes every status for an answer.
pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into()
}

/// `data` of a successful answer of the query API of any server.
pub fn api(base: &str, path: &str, params: &[(&str, &str)]) -> Value {
    api_as(None, base, path, params)
}

/// The same for whoever has a token.
pub fn api_as(token: Option<&str>, base: &str, path: &str, params: &[(&str, &str)]) -> Value {
    let mut request = agent().get(format!("{base}{path}")).query_pairs(params.iter().copied());
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let mut answer = request.call().unwrap();
    let body = answer.body_mut().with_config().limit(1 << 30).read_to_string().unwrap();
    let json: Value =
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path} {params:?}: {e}: {body}"));
    assert_eq!(json["status"], "success", "{path} {params:?}: {body}");
    json["data"].clone()
}

/// The body of `path` of any server, if it answers 200.
pub fn text(base: &str, path: &str) -> Option<String> {
    let mut answer = agent().get(format!("{base}{path}")).call().ok()?;
    (answer.status() == 200).then(|| answer.body_mut().read_to_string().ok()).flatten()
}

/// A series to write: its labels, and its samples in time order.
pub type Series = (Vec<(String, String)>, Vec<(i64, f64)>);

/// Encodes remote write 1.0.
pub fn remote_write(series: &[Series]) -> Vec<u8> {
    let mut request = Vec::new();
    for (labels, samples) in series {
        let mut message = Vec::new();
        for (name, value) in labels {
            let mut label = Vec::new();
            field(&mut label, 1, name.as_bytes());
            field(&mut label, 2, value.as_bytes());
            field(&mut message, 1, &label);
        }
        for (timestamp, value) in samples {
            let mut sample = vec![1 << 3 | 1];
            sample.extend(value.to_le_bytes());
            sample.push(2 << 3);
            varint(&mut sample, timestamp.cast_unsigned());
            field(&mut message, 2, &sample);
        }
        field(&mut request, 1, &message);
    }
    snap::raw::Encoder::new().compress_vec(&request).unwrap()
}

pub fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Milliseconds since the epoch, now.
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Whether the tests may use `program`; if not, says so loudly, and fails where skipping is not allowed.
pub fn have(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    if !found {
        assert!(
            std::env::var_os("LUMINATE_TEST_REQUIRE_ALL").is_none_or(|v| v != "1"),
            "{program} is not installed, and LUMINATE_TEST_REQUIRE_ALL=1 forbids skipping"
        );
        eprintln!("\n=== SKIPPED: {program} is not installed ===\n");
    }
    found
}
