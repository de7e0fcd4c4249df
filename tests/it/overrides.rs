//! Which limits hold, as whoever operates a server sees it: the overrides file, the API, restarts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use serde_json::{Value, json};

use crate::{
    patience::wait_for,
    server::{Options, Server, luminate},
};

fn overrides_file(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("overrides.yaml");
    // Renamed into place, as a careful person does it.
    fs::write(folder.join("new.yaml"), text).unwrap();
    fs::rename(folder.join("new.yaml"), &path).unwrap();
    path
}

fn options(file: &Path, interval: &str) -> Options {
    let options = Options::default()
        .env("LUMINATE_LIMITS__OVERRIDES_FILE", file.to_str().unwrap())
        .env("LUMINATE_LIMITS__RELOAD_INTERVAL", interval)
        .env("LUMINATE_LIMITS__HARD__SAMPLES_PER_SECOND", "1000");
    Options { quiet: true, ..options }
}

fn limit(server: &Server, tenant: &str, limit: &str) -> Value {
    let limits = server.api("/api/v1/user_limits", &[("tenant", tenant)]);
    limits["limits"][limit].clone()
}

fn samples(server: &Server, tenant: &str) -> Value {
    limit(server, tenant, "samples_per_second")
}

fn call(server: &Server, method: &str, path: &str, body: &str) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request = ureq::http::Request::builder().method(method).uri(server.url(path));
    let mut answer = agent.run(request.body(body.to_owned()).unwrap()).unwrap();
    (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
}

fn metric(server: &Server, name: &str) -> f64 {
    let (_, text) = server.get("/metrics");
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}\n{text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

const SUCCESSFUL: &str = "luminate_config_last_reload_successful{part=\"limits.overrides_file\"}";

#[test]
fn the_overrides_file_is_read_again_when_it_changes_and_when_somebody_asks() {
    let folder = tempfile::tempdir().unwrap();
    let file = overrides_file(folder.path(), "overrides: {a: {samples_per_second: 1}}");
    // Long enough for what is asked for to be told from what happens by itself.
    let server = Server::start(&folder.path().join("data"), &options(&file, "1h"));
    assert_eq!(samples(&server, "a"), json!({"value": 1, "source": "override", "left": 1}));
    assert_eq!(samples(&server, "b")["source"], "hard");
    assert_eq!(metric(&server, SUCCESSFUL), 1.0);
    assert_eq!(metric(&server, "luminate_limits_tenants{source=\"file\"}"), 1.0);

    overrides_file(folder.path(), "overrides: {a: {samples_per_second: 2}}");
    assert_eq!(call(&server, "POST", "/-/reload", ""), (200, String::new()));
    assert_eq!(samples(&server, "a")["value"], 2);

    overrides_file(folder.path(), "overrides: {a: {samples_per_second: 3}, '*': {queries_burst: 4}}");
    server.hang_up();
    wait_for("SIGHUP is heard", || samples(&server, "a")["value"] == 3);
    assert_eq!(limit(&server, "b", "queries_burst"), json!({"value": 4, "source": "override"}));

    overrides_file(
        folder.path(),
        "overrides: {a: {samples_per_second: 4}, b: {samples: 1, queries_burst: x}}",
    );
    let (status, told) = call(&server, "POST", "/-/reload", "");
    assert_eq!(status, 500);
    for part in ["overrides.yaml", "overrides.b.samples: unknown limit", "overrides.b.queries_burst"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    assert_eq!(samples(&server, "a")["value"], 3, "what was before holds on");
    assert_eq!(metric(&server, SUCCESSFUL), 0.0);
    let last = metric(
        &server,
        "luminate_config_last_reload_success_timestamp_seconds{part=\"limits.overrides_file\"}",
    );
    assert!(last > 1.7e9, "{last}");

    fs::remove_file(&file).unwrap();
    assert_eq!(call(&server, "POST", "/-/reload", "").0, 500);
    assert_eq!(samples(&server, "a")["value"], 3);
    overrides_file(folder.path(), "overrides: {a: {samples_per_second: 4000}}");
    assert_eq!(call(&server, "POST", "/-/reload", "").0, 200);
    assert_eq!(samples(&server, "a"), json!({"value": 1000, "source": "hard", "left": 1000}));
    assert_eq!(metric(&server, SUCCESSFUL), 1.0);
}

#[test]
fn a_change_of_the_file_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = overrides_file(folder.path(), "overrides: {}");
    let server = Server::start(&folder.path().join("data"), &options(&file, "1s"));
    assert_eq!(samples(&server, "a")["source"], "hard");
    overrides_file(folder.path(), "overrides: {a: {samples_per_second: 2}}");
    wait_for("the change is found", || samples(&server, "a")["value"] == 2);
    fs::write(&file, "overrides: {a: {samp").unwrap();
    wait_for("the mistake is found", || metric(&server, SUCCESSFUL) == 0.0);
    assert_eq!(samples(&server, "a")["value"], 2);
    overrides_file(folder.path(), "overrides: {a: {samples_per_second: 3}}");
    wait_for("it is over", || metric(&server, SUCCESSFUL) == 1.0);
    assert_eq!(samples(&server, "a")["value"], 3);
}

#[test]
fn what_the_api_gave_outlives_the_process_however_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let file = overrides_file(folder.path(), "overrides: {a: {samples_per_second: 1, queries_burst: 1}}");
    let data = folder.path().join("data");
    let options = options(&file, "10s");
    let path = "/api/v1/user-overrides?tenant=a";
    let mut server = Server::start(&data, &options);
    let given = |server: &Server| server.api("/api/v1/user-overrides", &[("tenant", "a")])["limits"].clone();
    for (i, rate) in [5, 6, 7].into_iter().enumerate() {
        let body = format!("{{\"samples_per_second\": {rate}}}");
        let (status, told) = call(&server, "POST", path, &body);
        assert_eq!(status, 200, "{told}");
        if i == 0 {
            server.terminate();
        } else {
            server.kill();
            server.wait();
        }
        server = Server::start(&data, &options);
        assert_eq!(given(&server), json!({"samples_per_second": rate}));
        assert_eq!(samples(&server, "a"), json!({"value": rate, "source": "user", "left": rate}));
        assert_eq!(limit(&server, "a", "queries_burst"), json!({"value": 1, "source": "override"}));
    }
    let (status, told) = call(&server, "POST", path, r#"{"samples_per_second": 1001, "queries_burst": 2}"#);
    assert_eq!(status, 400);
    assert!(told.contains("samples_per_second: 1001 is more than anybody may have, which is 1000"), "{told}");
    assert_eq!(call(&server, "DELETE", path, "").0, 204);
    server.kill();
    server.wait();
    let server = Server::start(&data, &options);
    assert_eq!(given(&server), json!({}));
    assert_eq!(samples(&server, "a")["source"], "override");
}

#[test]
fn limits_given_at_once_leave_one_of_them_here_and_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &Options::default());
    let given = |server: &Server| server.api("/api/v1/user-overrides", &[("tenant", "a")])["limits"].clone();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for i in 0..10 {
                    let rate = 1 + thread * 10 + i;
                    let body = format!("{{\"samples_per_second\": {rate}, \"samples_burst\": {rate}}}");
                    let (status, told) = call(server, "POST", "/api/v1/user-overrides?tenant=a", &body);
                    assert_eq!(status, 200, "{told}");
                }
            });
        }
    });
    let last = given(&server);
    assert_eq!(last["samples_per_second"], last["samples_burst"]);
    server.kill();
    server.wait();
    assert_eq!(given(&Server::start(folder.path(), &Options::default())), last);
}

#[test]
fn a_file_that_is_wrong_keeps_the_server_from_starting_and_a_check_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str], file: &Path| {
        let Output { status, stderr, .. } = luminate()
            .args(arguments)
            .env("LUMINATE_LIMITS__OVERRIDES_FILE", file)
            .env("LUMINATE_SERVER__LISTEN", "127.0.0.1:0")
            .env("LUMINATE_STORAGE__EMBEDDED__DATA_DIR", folder.path().join("data"))
            .stdout(Stdio::null())
            .output()
            .unwrap();
        (status.code(), String::from_utf8(stderr).unwrap())
    };
    let missing = folder.path().join("missing.yaml");
    let wrong = overrides_file(folder.path(), "overrides: {a: {samples: 1}, b: {max_query_range: 30}}");
    for (file, parts) in [
        (&missing, &["missing.yaml: No such file"][..]),
        (&wrong, &["overrides.a.samples: unknown limit", "overrides.b.max_query_range: \"30\" has no unit"]),
    ] {
        for (arguments, expected) in [(&["serve"][..], 1), (&["check", "config"], 2)] {
            let (code, told) = run(arguments, file);
            assert_eq!(code, Some(expected), "{told}");
            for part in parts {
                assert!(told.contains(part), "{part} is not in {told}");
            }
        }
    }
    let right = overrides_file(folder.path(), "overrides: {a: {samples_per_second: 1}}");
    assert_eq!(run(&["check", "config"], &right).0, Some(0));
}
