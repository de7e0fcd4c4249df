//! What is done to a server by those who may talk to it: text that would be lines of its logs, secrets in places where
//! they are not looked for, bombs, selectors without number. Attacks on HTTP itself are in `attacks_http`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

use luminate::gateway::ROUTES;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::{
    keys,
    patience::wait_for,
    server::{Options, Server, free_port, luminate},
    token::{self, claims, sign, with},
};

/// A server whose log is in a file; it keeps an audit log.
struct Logging {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Logging {
    fn start(format: &str, options: &Options) -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let path = |name: &str| dir.path().join(name);
        let child = luminate()
            .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--log.level", "debug"])
            .args(["--log.format", format, "--data-dir", path("data").to_str().unwrap()])
            .env("LUMINATE_SELF_SCRAPE__ENABLED", "false")
            .env("LUMINATE_AUDIT__FILE", path("audit.log"))
            .envs(options.env.iter().cloned())
            .stdout(Stdio::null())
            .stderr(fs::File::create(path("log")).unwrap())
            .spawn()
            .unwrap();
        let server = Self { child, port, dir };
        wait_for("the server to be ready", || {
            server.ask("GET", "/-/ready", &[]).is_some_and(|(s, _)| s == 200)
        });
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        String::from_utf8(fs::read(self.path(name)).unwrap()).unwrap()
    }

    /// Status and body; none if there is no answer.
    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Option<(u16, String)> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, value.as_bytes());
        }
        let answer = if method == "GET" {
            agent.run(request.body(()).unwrap())
        } else {
            agent.run(request.body(&b""[..]).unwrap())
        };
        let mut answer = answer.ok()?;
        Some((answer.status().as_u16(), answer.body_mut().read_to_string().ok()?))
    }

    fn status(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
        self.ask(method, path, headers).unwrap().0
    }

    fn hang_up(&self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bearer(claims: &Value) -> String {
    format!("Bearer {}", sign(claims))
}

#[test]
fn what_is_denied_or_ordered_is_kept_and_text_of_callers_makes_no_lines() {
    for format in ["json", "console"] {
        let server = Logging::start(format, &token::options());
        let forged = "x\r\n{\"event\":\"forged\"}\u{1b}[31m\u{85}";
        let hostile = bearer(&with(claims("a", "read"), json!({"sub": forged})));
        let operator = bearer(&with(claims("a", "admin"), json!({"sub": "operator"})));
        let ended = bearer(&with(claims("a", "read"), json!({"exp": 1_000_000_000})));
        let from = ("X-Forwarded-For", "6.6.6.6");
        let (shown, other) = (("Authorization", &*hostile), ("X-Scope-OrgID", "b"));
        let id = ("X-Request-Id", "order-7");
        let asked = [
            (401, "GET", "/api/v1/query?query=up", &[from][..]),
            (404, "GET", "/api/v1/query%0d%0a%7B%22event%22:%22forged%22%7D%1b[31m", &[from]),
            (401, "GET", "/api/v1/label/x%0d%0a%7B%22event%22:%22forged%22%7D%1b[31m/values", &[from]),
            (401, "POST", "/api/v1/query", &[("Authorization", &*ended)]),
            (403, "GET", "/api/v1/query?query=up", &[shown, other, from]),
            (403, "POST", "/api/v1/admin/tsdb/flush", &[shown]),
            (204, "POST", "/api/v1/admin/tsdb/flush", &[("Authorization", &*operator), id]),
            // These are nobody's business but the caller's.
            (200, "GET", "/api/v1/query?query=up", &[shown]),
            (400, "GET", "/api/v1/query?query=%0d%0a%7B%22event%22:%22forged%22%7D%1b[31m", &[shown]),
            (
                400,
                "GET",
                "/api/v1/query?query=up",
                &[shown, ("X-Scope-OrgID", "a\u{e9}{\"event\":\"forged\"}")],
            ),
        ];
        for (expected, method, path, headers) in asked {
            assert_eq!(server.status(method, path, headers), expected, "{method} {path}");
        }
        let (log, audit) = (server.text("log"), server.text("audit.log"));
        for text in [&log, &audit] {
            assert!(!text.contains(['\u{1b}', '\r', '\u{85}']), "{text}");
            assert!(!text.lines().any(|line| line.starts_with("{\"event\"")), "{text}");
        }
        if format == "json" {
            for line in log.lines() {
                let line: Value =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                assert_ne!(line["event"], "forged");
            }
        }
        let kept: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let entries: Vec<(u64, &str, &str)> = kept
            .iter()
            .map(|entry| {
                assert_eq!(entry["client"], "127.0.0.1", "{entry}");
                assert!(entry["request_id"].is_string() && entry["timestamp"].is_string(), "{entry}");
                let text = |name: &str| entry[name].as_str().unwrap_or_default();
                (entry["status"].as_u64().unwrap(), text("result"), text("who"))
            })
            .collect();
        let hostile = "x{\"event\":\"forged\"}[31m";
        assert_eq!(
            entries,
            [
                (401, "denied", ""),
                (401, "denied", ""),
                (401, "denied", ""),
                (403, "denied", hostile),
                (403, "denied", hostile),
                (204, "done", "operator"),
            ],
            "{audit}"
        );
        assert_eq!(kept[5]["request_id"], "order-7");
        assert_eq!(kept[5]["known"], "token");
    }
}

#[test]
fn secrets_are_in_nothing_that_is_written_or_answered() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys.yaml");
    let (key, id) = keys::create(&file, &["--tenant", "a", "--scope", "read,admin"]);
    let options = token::options()
        .env("LUMINATE_AUTH__API_KEYS__FILE", file.to_str().unwrap())
        .env("LUMINATE_AUTH__HEADER", "X-Api-Key");
    let server = Logging::start("json", &options);
    let token = token::token("a", "read");
    let wrong_key = format!("{}{}", &key[..key.len() - 1], if key.ends_with('x') { 'y' } else { 'x' });
    let wrong_token = format!("{}AAAA", &token[..token.len() - 4]);
    let mut answers = String::new();
    for shown in [&key, &token, &wrong_key, &wrong_token] {
        let wrongly = [
            ("Authorization", format!("Bearer {shown}")),
            ("Authorization", shown.clone()),
            ("Authorization", format!("Bearer {shown} {shown}")),
            ("Authorization", format!("Digest {shown}")),
            ("Authorization", format!("Basic {shown}")),
            ("X-Api-Key", shown.clone()),
            ("X-Api-Key", format!("Token {shown}")),
            ("Cookie", format!("token={shown}")),
        ];
        for (name, value) in &wrongly {
            for path in ["/api/v1/query?query=up", "/api/v1/status/storage", "/nowhere"] {
                let path = format!("{path}{}authKey={shown}", if path.contains('?') { '&' } else { '?' });
                answers += &server.ask("GET", &path, &[(name, value)]).unwrap().1;
            }
        }
    }
    let operator = format!("Bearer {key}");
    for path in ["/metrics", "/health/deep", "/api/v1/status/storage", "/api/v1/user_limits"] {
        let (status, body) = server.ask("GET", path, &[("Authorization", &operator)]).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        answers += &body;
    }
    let (log, audit) = (server.text("log"), server.text("audit.log"));
    assert!(log.contains(&id) && audit.contains(&id), "the id may be told, and is");
    let command = fs::read_to_string(format!("/proc/{}/cmdline", server.child.id())).unwrap();
    let kept = fs::read_to_string(&file).unwrap();
    for (place, text) in [
        ("log", &log),
        ("audit log", &audit),
        ("answers", &answers),
        ("command line", &command),
        ("file", &kept),
    ] {
        assert!(!text.contains(token::SECRET), "the secret that signs is in the {place}");
        for shown in [&key, &token, &wrong_key, &wrong_token] {
            let secret = shown.rsplit(if shown.contains('.') { '.' } else { '_' }).next().unwrap();
            assert!(!text.contains(&secret[..12]), "{shown} is in the {place}: {text}");
        }
    }
}

#[test]
fn what_a_server_keeps_is_for_its_owner_only() {
    let server = Logging::start("json", &Options::default());
    let mode = |name: &str| fs::metadata(server.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("data"), mode("data/wal"), mode("audit.log")), (0o700, 0o700, 0o600));
}

#[test]
fn what_is_read_while_we_run_is_read_again_at_once_when_somebody_asks() {
    let dir = tempfile::tempdir().unwrap();
    let (file, revoked) = (dir.path().join("keys.yaml"), dir.path().join("revoked"));
    let (key, _) = keys::create(&file, &["--tenant", "a", "--scope", "read"]);
    fs::write(&revoked, "").unwrap();
    let options = token::options()
        .env("LUMINATE_AUTH__API_KEYS__FILE", file.to_str().unwrap())
        // It is not looked at by itself in the time this takes.
        .env("LUMINATE_AUTH__API_KEYS__RELOAD_INTERVAL", "1h")
        .env("LUMINATE_AUTH__JWT__REVOKED_FILE", revoked.to_str().unwrap());
    let server = Logging::start("json", &options);
    let operator = bearer(&claims("a", "admin"));
    let named = bearer(&with(claims("a", "read"), json!({"jti": "taken-back"})));
    let may = |shown: &str| server.status("GET", "/api/v1/query?query=up", &[("Authorization", shown)]);
    let reload = || server.status("POST", "/-/reload", &[("Authorization", &operator)]);
    let key = format!("Bearer {key}");
    assert_eq!((may(&key), may(&named)), (200, 200));

    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, "keys: [").unwrap();
    assert_eq!(reload(), 500);
    assert_eq!((may(&key), may(&named)), (200, 200), "what was there before holds");
    fs::write(&file, "keys: []").unwrap();
    fs::write(&revoked, "taken-back\n").unwrap();
    assert_eq!(reload(), 200);
    assert_eq!((may(&key), may(&named)), (401, 401));
    fs::write(&file, good).unwrap();
    fs::write(&revoked, "").unwrap();
    server.hang_up();
    wait_for("a signal to have them read again", || (may(&key), may(&named)) == (200, 200));
    let audit = server.text("audit.log");
    for part in
        ["reload api_keys\",\"result\":\"failed\"", "reload api_keys\",\"result\":\"done\"", "reload tokens"]
    {
        assert!(audit.contains(part), "{part}: {audit}");
    }
}

#[test]
fn a_bomb_goes_off_on_no_route() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { quiet: true, ..Options::default() };
    let server = Server::start(dir.path(), &options);
    // More than a body may be once it is decompressed.
    let zeros = vec![0; 64 << 20];
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let gzip = runtime.block_on(async {
        let mut packed = Vec::new();
        let mut encoder = async_compression::tokio::bufread::GzipEncoder::new(&zeros[..]);
        encoder.read_to_end(&mut packed).await.unwrap();
        packed
    });
    let bombs = [
        ("snappy", snap::raw::Encoder::new().compress_vec(&zeros).unwrap()),
        // It only says that it is four gigabytes.
        ("snappy", [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0; 64]].concat()),
        ("gzip", gzip),
        ("zstd", zstd::bulk::compress(&zeros, 1).unwrap()),
    ];
    drop(zeros);
    let before = server.peak_rss_mb();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into();
    for route in ROUTES {
        for (encoding, bomb) in &bombs {
            for kind in ["application/x-protobuf", "application/x-www-form-urlencoded"] {
                let path = route.path.replace("{name}", "job");
                let sent = agent
                    .post(server.url(&path))
                    .header("Content-Type", kind)
                    .header("Content-Encoding", *encoding)
                    .send(&bomb[..]);
                // It may hang up on what it does not read.
                let Ok(answer) = sent else { continue };
                let status = answer.status().as_u16();
                let written =
                    ["/write", "/push", "/receive", "/import"].iter().any(|end| path.ends_with(end));
                assert!(status < 500 && !(written && status < 400), "{path}, {encoding}: {status}");
            }
        }
    }
    assert_eq!(server.get("/-/healthy").0, 200);
    let grown = server.peak_rss_mb() - before;
    assert!(grown < 160, "{grown} MB more than before");
}

#[test]
fn selectors_without_number_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &Options::default());
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    for (count, expected) in [(1_000, 200), (1_001, 400), (900_000, 400)] {
        for path in ["/api/v1/series", "/api/v1/labels", "/api/v1/export"] {
            let answer = agent
                .post(server.url(path))
                .header("Content-Type", "application/x-www-form-urlencoded")
                .send("match[]=a&".repeat(count).as_bytes());
            let mut answer = answer.unwrap();
            let (status, body) = (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap());
            assert_eq!(status, expected, "{path}: {body}");
            assert!(status == 200 || body.contains("at most 1000 are looked for"), "{body}");
        }
    }
}
