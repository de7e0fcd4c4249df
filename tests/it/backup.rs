//! Backups of the embedded store by the command: the drill, and what goes wrong.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    patience::wait_for,
    server::{Options, Server, free_port, luminate, now_ms, remote_write},
};

/// Where backups go, and how they are reached.
struct Place {
    url: String,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Place {
    fn directory(path: &Path) -> Self {
        Self { url: format!("file://{}", path.display()), flags: Vec::new(), environment: Vec::new() }
    }

    /// Exit code, standard output and standard error of a command on its backups.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = luminate();
        for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("AWS_")) {
            command.env_remove(key);
        }
        let output = command
            .arg("backup")
            .args(arguments)
            .args(["--at", &self.url])
            .args(&self.flags)
            .envs(self.environment.iter().cloned())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn done(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
        out
    }
}

/// An S3-compatible store on a free port; killed when dropped.
struct Store {
    child: Child,
    port: u16,
}

impl Store {
    /// Starts one with a bucket, or says loudly that there is none.
    fn start() -> Option<Self> {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
        let program = cache.join("luminate-tests/moto/bin/moto_server");
        if !program.exists() {
            assert!(
                std::env::var_os("LUMINATE_TEST_REQUIRE_ALL").is_none(),
                "{} is not there; tests/setup installs it",
                program.display()
            );
            eprintln!("\n=== SKIPPED: {} is not there; tests/setup installs it ===\n", program.display());
            return None;
        }
        let port = free_port();
        let child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let store = Self { child, port };
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        wait_for("the S3-compatible store to answer", || {
            agent.put(store.url("/backups")).send_empty().is_ok_and(|answer| answer.status() == 200)
        });
        Some(store)
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn place(&self, keys: &Path) -> Place {
        fs::write(keys.join("id"), "AKIDEXAMPLE\n").unwrap();
        fs::write(keys.join("secret"), "s3cret-of-the-test\n").unwrap();
        let file = |name: &str| keys.join(name).display().to_string();
        let flags = [
            ["--s3.endpoint".to_owned(), self.url("")],
            ["--s3.access-key-file".to_owned(), file("id")],
            ["--s3.secret-key-file".to_owned(), file("secret")],
        ];
        Place { url: "s3://backups/luminate/edge".to_owned(), flags: flags.concat(), environment: Vec::new() }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes some series of two tenants, an hour each.
fn write(server: &Server, from_ms: i64) {
    for tenant in ["team-a", "team-b"] {
        let series: Vec<_> = (0..20)
            .map(|i| {
                let labels =
                    vec![("__name__".to_owned(), "drill".to_owned()), ("i".to_owned(), i.to_string())];
                let samples = (0..60).map(|k| (from_ms + k * 60_000, (i * k) as f64 / 3.0)).collect();
                (labels, samples)
            })
            .collect();
        let (status, body) = server.try_write(&remote_write(&series), Some(tenant)).unwrap();
        assert_eq!(status, 204, "{body}");
    }
}

/// Everything that the API gives of both tenants.
fn everything(server: &Server, until_ms: i64) -> Value {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let of = |tenant: &str| {
        let time = format!("{}", until_ms / 1000);
        let mut answer = agent
            .get(server.url("/api/v1/query"))
            .query("query", "{__name__=\"drill\"}[1d]")
            .query("time", &time)
            .header("X-Scope-OrgID", tenant)
            .call()
            .unwrap();
        let body = answer.body_mut().read_to_string().unwrap();
        let mut answer: Value = serde_json::from_str(&body).unwrap();
        let result = answer["data"]["result"].as_array_mut().unwrap_or_else(|| panic!("{body}"));
        result.sort_by_key(|series| series["metric"]["i"].as_str().unwrap().to_owned());
        assert_eq!(result.len(), 20, "{body}");
        json!(result)
    };
    json!([of("team-a"), of("team-b")])
}

/// Data, a backup, more data, an increment; the store is destroyed, restored, and compared.
fn drill(place: &Place) {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    let dir = data.display().to_string();
    let start = now_ms() / 60_000 * 60_000 - 6 * 3_600_000;
    let server = Server::start(&data, &Options::default());
    let url = server.url("");
    write(&server, start);
    let hot = ["create", "first", "--data-dir", &dir, "--server", &url];
    let out = place.done(&hot);
    assert!(out.starts_with("first: 2400 samples in "), "{out}");
    let first = everything(&server, now_ms());
    write(&server, start + 2 * 3_600_000);
    let out = place.done(&["create", "second", "--data-dir", &dir, "--server", &url]);
    assert!(out.starts_with("second: 4800 samples in "), "{out}");
    let second = everything(&server, now_ms());
    assert_ne!(first, second);
    let (code, _, err) = place.run(&hot);
    assert!(code == 1 && err.contains("there is a backup first"), "{err}");
    server.kill();
    drop(server);
    // What was killed is backed up with its log, by nobody's hand but this command's.
    let out = place.done(&["create", "third", "--data-dir", &dir]);
    assert!(out.starts_with("third: 4800 samples in "), "{out}");
    fs::remove_dir_all(&data).unwrap();

    let listed = place.done(&["list"]);
    let names: Vec<&str> = listed.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["first", "second", "third"], "{listed}");
    let scratch = root.path().join("scratch").display().to_string();
    for name in names {
        let out = place.done(&["verify", name, "--drill", &scratch]);
        assert!(out.contains("all as they were written") && out.contains("samples are in it"), "{out}");
        let into = root.path().join(name);
        place.done(&["restore", name, "--into", into.to_str().unwrap()]);
        let server = Server::start(&into, &Options::default());
        let expect = if name == "first" { &first } else { &second };
        assert_eq!(&everything(&server, now_ms()), expect, "{name}");
        let status = server.api("/api/v1/status/storage", &[]);
        assert_eq!(status["quarantined"], json!([]), "{status}");
        assert!(server.terminate().success());
    }
    let out = place.done(&["prune", "--keep", "1"]);
    assert!(out.starts_with("removed first\nremoved second\n1 backups are left"), "{out}");
    let out = place.done(&["verify"]);
    assert!(out.starts_with("third: "), "{out}");
}

#[test]
fn a_store_comes_back_from_a_directory() {
    let kept = tempfile::tempdir().unwrap();
    drill(&Place::directory(&kept.path().join("kept")));
}

#[test]
fn a_store_comes_back_from_a_bucket() {
    let Some(store) = Store::start() else { return };
    let keys = tempfile::tempdir().unwrap();
    let mut place = store.place(keys.path());
    drill(&place);
    // The environment says the same, as it does to every other program.
    place.flags.clear();
    for (key, value) in [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "s3cret-of-the-test".to_owned()),
        ("AWS_ENDPOINT_URL", store.url("")),
    ] {
        place.environment.push((key.to_owned(), value));
    }
    assert!(place.done(&["list"]).contains("third"));
    place.url = "s3://nowhere".to_owned();
    let (code, _, err) = place.run(&["list"]);
    assert!(code == 1 && err.contains("there is no such bucket"), "{err}");
}

/// Answers every request as a bucket does that does not know the keys.
fn denying() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut seen = Vec::new();
            let mut buffer = [0; 4096];
            while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => seen.extend_from_slice(&buffer[..read]),
                }
            }
            // What else is sent is taken, or the answer is lost with the connection.
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let body = "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>no</Message></Error>";
            let _ = write!(
                stream,
                "HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    port
}

#[test]
fn what_cannot_be_done_is_told_by_text_and_exit_code() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name).display().to_string();
    let kept = Place::directory(&root.path().join("kept"));
    let fails = |place: &Place, arguments: &[&str], code: i32, told: &str| {
        let (exit, out, err) = place.run(arguments);
        assert!(exit == code && err.contains(told), "{arguments:?}: {exit}: {out}{err}");
        assert!(!err.contains("s3cret") && !out.contains("s3cret"), "{err}");
    };
    fails(&kept, &["verify"], 1, "there is no backup at file://");
    fails(&kept, &["create", "--data-dir", &path("nothing")], 1, "there is no store in");
    fails(&kept, &["create", "a/b", "--data-dir", &path("data")], 2, "a name has letters, digits");
    fails(&kept, &["create", "--base", "x", "--data-dir", &path("data")], 2, "--base is for ClickHouse");
    fails(&kept, &["restore", "x"], 2, "--into");
    fails(&kept, &["restore", "x", "--replace", "--into", &path("y")], 2, "--replace is for ClickHouse");
    fails(&kept, &["prune", "--keep", "0"], 2, "0 is not in");

    let data = root.path().join("data");
    let server = Server::start(&data, &Options::default());
    write(&server, now_ms() - 3_600_000);
    // Nobody is at that port.
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let hot = ["create", "one", "--data-dir", &path("data"), "--server"];
    fails(&kept, &[&hot[..], &[&nobody]].concat(), 1, "the store is in use, and its server cannot be asked");
    // A server of another directory.
    let other = Server::start(&root.path().join("other"), &Options::default());
    fails(&kept, &[&hot[..], &[&other.url("")]].concat(), 1, "the directory of that server?");
    kept.done(&[&hot[..], &[&server.url("")]].concat());
    assert_eq!(fs::read_dir(data.join("snapshots")).unwrap().count(), 0);
    fails(&kept, &["restore", "one", "--into", &path("data")], 1, "is not empty");
    fails(&kept, &["restore", "two", "--into", &path("back")], 1, "there is no backup two");
    assert!(!root.path().join("back").exists());

    // Somebody's file, and somebody's manifest.
    let manifest = root.path().join("kept/backups/one.json");
    let good = fs::read(&manifest).unwrap();
    fs::write(&manifest, String::from_utf8_lossy(&good).replace("parts/", "../../")).unwrap();
    fails(&kept, &["restore", "one", "--into", &path("back")], 1, "its checksum is wrong");
    fails(&kept, &["list"], 1, "the backup one");
    fs::write(&manifest, &good).unwrap();

    let mut bucket = Place {
        url: "s3://b/p".to_owned(),
        flags: vec!["--s3.endpoint".to_owned(), format!("http://127.0.0.1:{}", denying())],
        environment: vec![
            ("AWS_ACCESS_KEY_ID".to_owned(), "AKIDEXAMPLE".to_owned()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), "s3cret".to_owned()),
        ],
    };
    fails(&bucket, &["list"], 1, "the keys are wrong or may not do this (SignatureDoesNotMatch)");
    fails(&bucket, &[&hot[..], &[&server.url("")]].concat(), 1, "the keys are wrong or may not do this");
    bucket.flags.extend(["--s3.access-key-file".to_owned(), path("none")]);
    fails(&bucket, &["list"], 2, "--s3.secret-key-file");
    bucket.flags.extend(["--s3.secret-key-file".to_owned(), path("none")]);
    fails(&bucket, &["list"], 1, "cannot read the secret from");
    bucket.url = "s3://AKID:hidden@b/p".to_owned();
    fails(&bucket, &["list"], 2, "no keys");
    assert!(server.terminate().success());
}
