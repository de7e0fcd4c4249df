//! What whoever operates a server is told of the process, and that nobody else is.

use serde_json::Value;

use crate::{
    server::{Options, Series, Server, remote_write},
    token,
};

fn data(server: &Server, path: &str) -> Value {
    let (status, body) = server.get(path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str::<Value>(&body).unwrap()["data"].clone()
}

#[test]
fn a_process_tells_what_it_runs_with() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::default().env("LUMINATE_STORAGE__RETENTION__DEFAULT", "90d");
    let server = Server::start(folder.path(), &options);
    let told = data(&server, "/api/v1/status/runtimeinfo");
    assert_eq!(told["storageRetention"], "90d");
    assert_eq!((&told["reloadConfigSuccess"], &told["corruptionCount"]), (&true.into(), &0.into()));
    let text = |key: &str| told[key].as_str().unwrap().to_owned();
    assert_eq!(text("CWD"), std::env::current_dir().unwrap().display().to_string());
    assert!(!text("hostname").is_empty());
    assert!(text("startTime") <= text("serverTime") && text("startTime") <= text("lastConfigTime"), "{told}");
    assert!(told["GOMAXPROCS"].as_u64().unwrap() > 0 && told["GOMEMLIMIT"].as_u64().unwrap() > 0, "{told}");

    let yaml = data(&server, "/api/v1/status/config")["yaml"].as_str().unwrap().to_owned();
    let config: serde_yaml::Value = serde_yaml::from_str(&yaml).unwrap();
    assert_eq!(config["storage"]["retention"]["default"], "90d");
    assert_eq!(config["server"]["listen"], format!("127.0.0.1:{}", server.port));
}

#[test]
fn the_log_that_was_read_back_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &Options::default());
    let now = crate::server::now_ms();
    let series: Series = (vec![("__name__".to_owned(), "up".to_owned())], vec![(now, 1.0)]);
    let agent = ureq::Agent::new_with_defaults();
    agent.post(server.url("/api/v1/write")).send(&remote_write(&[series])[..]).unwrap();
    let before = data(&server, "/api/v1/status/walreplay");
    assert_eq!(before["current"], before["max"]);
    // It is killed, so that the log is all there is.
    drop(server);
    let server = Server::start(folder.path(), &Options::default());
    let after = data(&server, "/api/v1/status/walreplay");
    let number = |key: &str| after[key].as_u64().unwrap();
    assert!(0 < number("min") && number("min") <= number("max"), "{after}");
    assert_eq!(after["current"], after["max"]);
    assert!(after["max"].as_u64() > before["max"].as_u64(), "{before} {after}");
}

#[test]
fn the_configuration_is_for_operators_and_has_no_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let server = token::start(folder.path());
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let ask = |path: &str, scope: &str| {
        let bearer = format!("Bearer {}", token::token("a", scope));
        let mut answer = agent.get(server.url(path)).header("Authorization", bearer).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    };
    for path in ["config", "runtimeinfo", "walreplay"] {
        let path = format!("/api/v1/status/{path}");
        assert_eq!(server.get(&path).0, 401, "{path}");
        assert_eq!(ask(&path, "read write delete rules").0, 403, "{path}");
        let (status, body) = ask(&path, "admin");
        assert_eq!(status, 200, "{path}: {body}");
        assert!(!body.contains(token::SECRET), "{path}");
    }
    assert!(ask("/api/v1/status/config", "admin").1.contains("secret: <secret>"));
}
