//! API keys from the command line to the server: made, shown, taken back.

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Output, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    server::{self, free_port, luminate},
    token,
};

fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = luminate().args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Makes a key; gives it and its id.
pub fn create(file: &Path, more: &[&str]) -> (String, String) {
    let arguments = [&["key", "create", "--file", file.to_str().unwrap()], more].concat();
    let (code, out, err) = run(&arguments);
    assert_eq!(code, 0, "{err}");
    let key = out.trim_end().to_owned();
    let id = key.split('_').nth(1).unwrap().to_owned();
    assert!(err.contains(&format!("made key {id}")) && !err.contains(&key), "{err}");
    (key, id)
}

/// A server that takes keys, with its log in a file.
struct Server {
    child: Child,
    url: String,
    log: PathBuf,
}

impl Server {
    fn start(dir: &Path, keys: &Path) -> Self {
        let (port, log) = (free_port(), dir.join("log"));
        let child = luminate()
            .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--log.level", "debug"])
            .args(["--log.format", "json", "--data-dir", dir.join("data").to_str().unwrap()])
            .env("LUMINATE_SELF_SCRAPE__ENABLED", "false")
            .env("LUMINATE_AUTH__MODE", "token")
            .env("LUMINATE_AUTH__HEADER", "X-Api-Key")
            .env("LUMINATE_AUTH__API_KEYS__FILE", keys)
            .env("LUMINATE_AUTH__API_KEYS__RELOAD_INTERVAL", "1s")
            .env("LUMINATE_AUTH__MAX_FAILURES_PER_MINUTE", "20")
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let server = Self { child, url: format!("http://127.0.0.1:{port}"), log };
        server.wait_for("it is ready", || server.ask("/-/ready", &[]) == 200);
        server
    }

    /// The status of an answer; 0 if there is none.
    fn ask(&self, path: &str, headers: &[(&str, &str)]) -> u16 {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut request = agent.get(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.call().map_or(0, |answer| answer.status().as_u16())
    }

    fn query(&self, headers: &[(&str, &str)]) -> u16 {
        self.ask("/api/v1/query?query=up", headers)
    }

    fn query_with(&self, key: &str) -> u16 {
        self.query(&[("Authorization", &format!("Bearer {key}"))])
    }

    fn wait_for(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            assert!(Instant::now() < deadline, "after a minute it is not so that {what}\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_key_is_made_taken_and_taken_back_and_never_seen_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys.yaml");
    let (reader, id) = create(&file, &["--tenant", "a", "--scope", "read", "--name", "grafana"]);
    let (writer, _) =
        create(&file, &["--tenant", "a", "--tenant", "b-*", "--scope", "write", "--expires", "90d"]);
    let server = Server::start(dir.path(), &file);

    assert_eq!(server.query(&[]), 401);
    assert_eq!(server.query_with(&reader), 200);
    assert_eq!(server.query_with(&writer), 403);
    let basic = format!("basic {}", BASE64_STANDARD.encode(format!("grafana:{reader}")));
    assert_eq!(server.query(&[("Authorization", &basic)]), 200);
    assert_eq!(server.query(&[("X-Api-Key", &reader)]), 200);
    assert_eq!(server.query(&[("X-Api-Key", &reader), ("Authorization", &format!("Bearer {writer}"))]), 401);
    let bearer = format!("Bearer {reader}");
    assert_eq!(server.query(&[("Authorization", &bearer), ("X-Scope-OrgID", "b")]), 403);
    let wrong = format!("{}{}", &reader[..reader.len() - 1], if reader.ends_with('x') { 'y' } else { 'x' });
    assert_eq!(server.query_with(&wrong), 401);

    // Our own commands show what is in a file, so that no other process sees it.
    let shown = dir.path().join("reader");
    fs::write(&shown, format!("{reader}\n")).unwrap();
    let query = ["query", "up", "--server", &server.url];
    let (code, _, err) = run(&[&query[..], &["--token.file", shown.to_str().unwrap()]].concat());
    assert_eq!(code, 0, "{err}");
    assert_eq!(run(&query).0, 1);

    // A bad file changes nothing; what is revoked in a good one is out once it was read.
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, "keys: [").unwrap();
    server.wait_for("the bad file is told of", || {
        fs::read_to_string(&server.log).unwrap().contains("reload_failed")
    });
    assert_eq!(server.query_with(&reader), 200);
    fs::write(&file, good).unwrap();
    let (code, out, err) = run(&["key", "revoke", &id, "--file", file.to_str().unwrap()]);
    assert_eq!((code, out), (0, format!("revoked {id}\n")), "{err}");
    server.wait_for("the key is out", || server.query_with(&reader) == 401);
    assert_eq!(server.query_with(&writer), 403);

    // Who guesses is told to wait, and who shows a good key from the same address is not.
    let guesses = Cell::new(1000);
    server.wait_for("guessing is held back", || {
        guesses.set(guesses.get() + 1);
        server.query_with(&format!("{}{}", &reader[..reader.len() - 4], guesses.get())) == 429
    });
    assert_eq!(server.query_with(&writer), 403);

    let (code, list, _) = run(&["key", "list", "--file", file.to_str().unwrap()]);
    assert_eq!(code, 0);
    assert!(list.contains("revoked") && list.contains("a,b-*") && list.contains("grafana"), "{list}");
    let kept = fs::read_to_string(&file).unwrap();
    let log = fs::read_to_string(&server.log).unwrap();
    assert!(log.contains("revoked_key") && log.contains("wrong_secret"), "{log}");
    for (text, place) in [(&list, "list"), (&kept, "file"), (&log, "log")] {
        for key in [&reader, &writer, &wrong] {
            let secret = key.split('_').nth(2).unwrap();
            assert!(!text.contains(&secret[..12]), "a secret is in the {place}:\n{text}");
        }
        assert!(!text.contains(&basic[8..40]), "a secret is in the {place}:\n{text}");
    }
}

#[test]
fn what_is_asked_for_wrongly_makes_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.yaml");
    let file = path.to_str().unwrap();
    let create = |more: &[&str]| run(&[&["key", "create", "--file", file], more].concat());
    for (more, code, said) in [
        (&["--scope", "read"][..], 1, "no tenant is given"),
        (&["--tenant", "a", "--scope", "raed"], 1, "\"raed\" is not a scope"),
        (&["--tenant", "a/b", "--scope", "read"], 1, "tenant \"a/b\""),
        (&["--tenant", "a", "--scope", "read", "--filter", "{}"], 1, "filter \"{}\""),
        (&["--tenant", "a", "--scope", "read", "--label", "__name__=x"], 1, "label \"__name__\""),
        (&["--tenant", "a", "--scope", "read", "--limit", "sampels_per_second=1"], 1, "sampels_per_second"),
        (&["--tenant", "a", "--scope", "read", "--limit", "samples_per_second"], 2, "takes NAME=VALUE"),
        (&["--tenant", "a", "--scope", "read", "--expires", "2020-01-01T00:00:00Z"], 2, "is over"),
        (&["--tenant", "a", "--scope", "read", "--expires", "soon"], 2, "neither a time"),
        (&["--tenant", "a"], 2, "--scope"),
    ] {
        let (got, out, err) = create(more);
        assert_eq!((got, out.as_str()), (code, ""), "{more:?}: {err}");
        assert!(err.contains(said), "{more:?}: {err}");
    }
    let (_, list, _) = run(&["key", "list", "--file", file]);
    assert_eq!(list.lines().count(), 1, "{list}");
    let (code, _, err) = run(&["key", "revoke", "aaaaaaaaaaaa", "--file", file]);
    assert_eq!(code, 1);
    assert!(err.contains("there is no key aaaaaaaaaaaa"), "{err}");
    let (code, _, err) = run(&["key", "revoke", "s3cret", "--file", file]);
    assert_eq!(code, 1);
    assert!(!err.contains("s3cret"), "{err}");
    let (code, _, err) = run(&["key", "list"]);
    assert_eq!(code, 2);
    assert!(err.contains("--file"), "{err}");
}

#[test]
fn a_configuration_with_a_bad_file_of_keys_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let (keys, config) = (dir.path().join("keys.yaml"), dir.path().join("luminate.yaml"));
    fs::write(&config, format!("auth: {{mode: token, api_keys: {{file: {}}}}}", keys.display())).unwrap();
    let check = || run(&["check", "config", config.to_str().unwrap()]);
    let (code, _, err) = check();
    assert!(code != 0 && err.contains("keys.yaml"), "{err}");
    fs::write(&keys, "keys: [{id: x}]").unwrap();
    let (code, _, err) = check();
    assert!(code != 0 && err.contains("an id has 12 letters and digits"), "{err}");
    fs::remove_file(&keys).unwrap();
    create(&keys, &["--tenant", "a", "--scope", "read"]);
    let (code, out, err) = check();
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
}

/// Whoever makes keys may be killed at any moment: the file is whole, and has every key that was shown.
#[test]
fn a_maker_of_keys_that_is_killed_leaves_a_whole_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.yaml");
    let file = path.to_str().unwrap();
    create(&path, &["--tenant", "first", "--scope", "read"]);
    let mut shown = Vec::new();
    for round in 0..30 {
        let mut maker = luminate()
            .args(["key", "create", "--file", file, "--tenant", "a", "--scope", "read"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(round));
        maker.kill().unwrap();
        let output = maker.wait_with_output().unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        shown.extend(out.strip_suffix('\n').map(|key| key.split('_').nth(1).unwrap().to_owned()));
        let (code, list, err) = run(&["key", "list", "--file", file]);
        assert_eq!(code, 0, "round {round}: {err}");
        for id in &shown {
            assert!(list.contains(id), "round {round}: {id} is not in\n{list}");
        }
        assert!(list.contains("first"), "{list}");
    }
}

/// A name that two parts use would be two values of one series.
#[test]
fn no_figure_is_told_twice() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys.yaml");
    create(&file, &["--tenant", "a", "--scope", "read"]);
    let options = token::options().env("LUMINATE_AUTH__API_KEYS__FILE", file.to_str().unwrap());
    let server = server::Server::start(&dir.path().join("data"), &options);
    let mut answer = ureq::get(server.url("/metrics"))
        .header("Authorization", format!("Bearer {}", token::token("a", "admin")))
        .call()
        .unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    let mut seen = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with("# HELP") && *line != "# EOF") {
        let (name, _) = line.rsplit_once(' ').unwrap();
        assert!(seen.insert(name), "{name} is there twice:\n{text}");
    }
    assert!(seen.contains("luminate_auth_keys") && seen.contains("luminate_auth_token_keys"), "{text}");
}
