//! What the description of the API says against what a server answers: schemathesis makes requests of the description,
//! and holds each answer against it.
//!
//! Without schemathesis, which `tests/setup` installs, this says so loudly and skips. `LUMINATE_TEST_EXAMPLES` is how
//! many requests of each kind are made.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::server::{Options, Server};

/// When the newest samples are, in milliseconds; the examples of the description ask for this time.
const AT: i64 = 1_700_000_000_000;
/// Between two of them.
const STEP: i64 = 15_000;

/// The program, if it is installed.
fn schemathesis() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let program = cache.join("luminate-tests/schemathesis/bin/schemathesis");
    if program.exists() {
        return Some(program);
    }
    assert!(
        std::env::var_os("LUMINATE_TEST_REQUIRE_ALL").is_none_or(|v| v != "1"),
        "{} is not there, and LUMINATE_TEST_REQUIRE_ALL=1 forbids skipping",
        program.display()
    );
    eprintln!("=== skipped: {} is not there, tests/setup installs it ===", program.display());
    None
}

/// Something of each kind that answers tell of: floats, histograms, exemplars, metadata, names with dots.
fn data() -> String {
    let times: Vec<i64> = (0..100).map(|i| AT - (99 - i) * STEP).collect();
    let mut lines = Vec::new();
    for (job, instance) in [("api", "0"), ("api", "1"), ("db", "0")] {
        let metric =
            json!({"__name__": "requests_total", "job": job, "instance": instance, "http.status": "200"});
        let values: Vec<usize> = (0..times.len()).map(|i| i * 5).collect();
        lines.push(json!({"metric": metric, "values": values, "timestamps": times}));
        let exemplar = json!({"labels": {"trace_id": "t"}, "value": 1.0, "timestamp": AT - STEP});
        lines.push(json!({"metric": metric, "exemplars": [exemplar]}));
    }
    let histogram = json!({
        "timestamp": AT, "schema": 0, "sum": 3.0, "zero_threshold": 0.001, "positive_spans": [[0, 2]],
        "integer": {"count": 3, "zero_count": 0, "positive": [1, 1], "negative": []},
    });
    lines.push(json!({"metric": {"__name__": "latency_seconds"}, "histograms": [histogram]}));
    let metadata = json!({"metric": "requests_total", "type": "counter", "help": "Requests.", "unit": ""});
    lines.push(json!({"metadata": metadata}));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_server_answers_as_the_description_says() {
    let Some(program) = schemathesis() else { return };
    let folder = tempfile::tempdir().unwrap();
    let options =
        Options { quiet: true, ..Options::default() }.env("LUMINATE_STORAGE__RETENTION__DEFAULT", "0");
    let server = Server::start(&folder.path().join("data"), &options);
    let agent = ureq::Agent::new_with_defaults();
    let imported = agent.post(server.url("/api/v1/import")).send(data()).unwrap();
    assert_eq!(imported.status(), 204);

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let examples = std::env::var("LUMINATE_TEST_EXAMPLES").unwrap_or_else(|_| "10".to_owned());
    // What it keeps for another time, it leaves where it runs.
    let output = Command::new(program)
        .current_dir(folder.path())
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", root.join("tests/openapi"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg("--no-color")
        .arg("--config-file")
        .arg(root.join("tests/openapi/schemathesis.toml"))
        .arg("run")
        .arg(root.join("schema/openapi.yaml"))
        .args(["--url", &server.url(""), "--max-examples", &examples])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    // All of the description was tried, and the server is as well as before.
    let text = fs::read_to_string(root.join("schema/openapi.yaml")).unwrap();
    let operations = text.matches("operationId: ").count();
    assert!(told.contains(&format!("{operations} selected / {operations} total")), "{told}");
    assert_eq!(server.get("/-/ready").0, 200);
}
