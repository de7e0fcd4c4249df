//! Tenants are moved between servers by the commands; what arrives is what left, to the bit.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use luminate::{
    clock::HandClock,
    model::Timestamp,
    storage::clickhouse::{ClickHouseConfig, ClickHouseStore},
};
use serde_json::Value;

use crate::{
    clickhouse::front::Front,
    patience::wait_for,
    server::{Options, Server, api, free_port, have, luminate, now_ms, text},
};

/// Every series.
const ALL: &str = "match[]=%7B__name__%21%3D%22%22%7D";

fn post(url: &str, body: &str) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent.post(url).send(body).unwrap();
    (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
}

/// Lines of some days with everything that is hard to carry.
fn lines(days: i64, series: usize) -> String {
    let mut lines = String::new();
    let base = (now_ms() / 86_400_000 - days) * 86_400_000;
    for number in 0..series {
        for day in 0..days {
            let at = |i: i64| base + day * 86_400_000 + i * 900_000 + i64::try_from(number).unwrap();
            let join = |of: &dyn Fn(i64) -> String| (0..90).map(of).collect::<Vec<_>>().join(",");
            let value = |i: i64| match i % 9 {
                7 => "null".to_owned(),
                8 => "\"Infinity\"".to_owned(),
                _ => format!("{}", (i * 7 + day) as f64 * 0.1),
            };
            let bits = (0..90)
                .filter(|i| i % 18 == 7)
                .map(|i| format!("[{i},\"7ff0000000000002\"]"))
                .collect::<Vec<_>>()
                .join(",");
            lines += &format!(
                "{{\"metric\":{{\"__name__\":\"moved\",\"n\":\"{number}\",\"é\":\"\\n\"}},\"values\":[{}],\
                 \"timestamps\":[{}],\"bits\":[{bits}],\"starts\":[{}]}}\n",
                join(&value),
                join(&|i| at(i).to_string()),
                join(&|i| if i % 2 == 0 { "0".to_owned() } else { at(0).to_string() }),
            );
            lines += &format!(
                "{{\"metric\":{{\"__name__\":\"sizes\",\"n\":\"{number}\"}},\"histograms\":[{{\"timestamp\":{},\
                 \"start\":{},\"schema\":3,\"zero_threshold\":1e-128,\"sum\":5.5,\"reset_hint\":\"no\",\
                 \"positive_spans\":[[0,2]],\"negative_spans\":[],\
                 \"integer\":{{\"count\":5,\"zero_count\":0,\"positive\":[2,1],\"negative\":[]}}}}]}}\n",
                at(1),
                at(0),
            );
        }
    }
    lines + "{\"metadata\":{\"metric\":\"moved\",\"type\":\"counter\",\"help\":\"h\",\"unit\":\"\"}}\n"
}

/// What a server says that it holds, without metadata, which no checksum is of.
fn end(server: &Server) -> Value {
    let (status, line) = server.get(&format!("/api/v1/export?summary=1&{ALL}"));
    assert_eq!(status, 200, "{line}");
    let mut end: Value = serde_json::from_str(&line).unwrap();
    end["end"].as_object_mut().unwrap().remove("metadata");
    end
}

fn filled(dir: &Path, days: i64, series: usize) -> (Server, Value) {
    let server = Server::start(dir, &Options::default());
    let (status, told) = post(&server.url("/api/v1/import"), &lines(days, series));
    assert_eq!((status, told.as_str()), (204, ""));
    let end = end(&server);
    assert_eq!(end["end"]["samples"], days * 90 * i64::try_from(series).unwrap());
    (server, end)
}

/// How many pieces a state says are done.
fn done(state: &Path) -> usize {
    let state: Option<Value> =
        fs::read_to_string(state).ok().and_then(|text| serde_json::from_str(&text).ok());
    state.map_or(0, |state| state["done"].as_array().map_or(0, Vec::len))
}

fn export(server: &Server, more: &[&str]) -> Command {
    let mut command = luminate();
    command.args(["export", "--quiet", "--server", &server.url("")]).args(more);
    command
}

fn import(server: &Server, more: &[&str]) -> Command {
    let mut command = luminate();
    command.args(["import", "--quiet", "--server", &server.url("")]).args(more);
    command
}

/// The exit code, and what was said.
fn outcome(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// An export and an import with a pipe between them.
struct Pipe(Child, Child);

impl Pipe {
    fn start(mut export: Command, mut import: Command) -> Self {
        let mut from = export.stdout(Stdio::piped()).spawn().unwrap();
        let to = import.stdin(from.stdout.take().unwrap()).spawn().unwrap();
        Self(from, to)
    }

    fn finish(mut self) {
        let (to, from) = (self.1.wait().unwrap(), self.0.wait().unwrap());
        assert!(from.success() && to.success(), "export: {from}, import: {to}");
    }

    fn kill(mut self) {
        for child in [&mut self.0, &mut self.1] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

#[test]
fn a_move_that_is_killed_goes_on_and_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (source, held) = filled(&dir.path().join("source"), 4, 6);
    let target = Server::start(&dir.path().join("target"), &Options::default());
    let state = dir.path().join("state.json");
    let resume = ["--resume", state.to_str().unwrap()];
    let pipe = || {
        let wanted = [&resume[..], &["--slice", "6h", "--parts", "2"]].concat();
        Pipe::start(export(&source, &wanted), import(&target, &[&resume[..], &["--verify"]].concat()))
    };
    for kill_at in [2, 9, 17] {
        let pipe = pipe();
        wait_for("pieces to be done", || done(&state) >= kill_at);
        pipe.kill();
        assert!(done(&state) >= kill_at, "the state survives the kill");
    }
    pipe().finish();
    assert_eq!(end(&target), held);
    // There is nothing left to do, and doing everything again changes nothing.
    pipe().finish();
    fs::remove_file(&state).unwrap();
    pipe().finish();
    assert_eq!(end(&target), held);
}

#[test]
fn a_server_that_goes_away_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (source, held) = filled(&dir.path().join("source"), 3, 4);
    let target_dir = dir.path().join("target");
    let options = Options { port: Some(free_port()), ..Options::default() };
    let target = Server::start(&target_dir, &options);
    let state = dir.path().join("state.json");
    let resume = ["--resume", state.to_str().unwrap()];
    let pipe =
        Pipe::start(export(&source, &[&resume[..], &["--slice", "1h"]].concat()), import(&target, &resume));
    wait_for("pieces to be done", || done(&state) >= 3);
    target.kill();
    drop(target);
    let target = Server::start(&target_dir, &options);
    pipe.finish();
    assert_eq!(end(&target), held);
}

#[test]
fn an_export_to_a_file_goes_on_where_it_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (source, held) = filled(&dir.path().join("source"), 4, 4);
    let (file, state) = (dir.path().join("all.jsonl"), dir.path().join("export.json"));
    let wanted =
        ["-o", file.to_str().unwrap(), "--resume", state.to_str().unwrap(), "--slice", "2h", "--parts", "2"];
    for kill_at in [2, 20] {
        let mut child = export(&source, &wanted).spawn().unwrap();
        wait_for("pieces to be done", || done(&state) >= kill_at);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // What a kill leaves behind the last piece is cut off.
    let mut torn = fs::OpenOptions::new().append(true).open(&file).unwrap();
    std::io::Write::write_all(&mut torn, b"{\"begin\":{\"sta").unwrap();
    assert!(export(&source, &wanted).status().unwrap().success());
    let other = export(&source, &[&wanted[..], &["--match", "moved"]].concat()).output().unwrap();
    assert_eq!(other.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&other.stderr).contains("is the state of another export"));

    let target = Server::start(&dir.path().join("target"), &Options::default());
    let progress = dir.path().join("import.json");
    let wanted = [file.to_str().unwrap(), "--resume", progress.to_str().unwrap()];
    let mut child = import(&target, &wanted).spawn().unwrap();
    wait_for("pieces to be done", || done(&progress) >= 2);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(import(&target, &[&wanted[..], &["--verify"]].concat()).status().unwrap().success());
    assert_eq!(end(&target), held);

    // A server takes the file as it is, too.
    let third = Server::start(&dir.path().join("third"), &Options::default());
    assert_eq!(post(&third.url("/api/v1/import"), &fs::read_to_string(&file).unwrap()), (204, String::new()));
    assert_eq!(end(&third), held);
}

#[test]
fn what_does_not_arrive_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (source, _) = filled(&dir.path().join("source"), 1, 2);
    let exported = export(&source, &[]).output().unwrap();
    assert!(exported.status.success());
    let text = String::from_utf8(exported.stdout).unwrap();
    let target = Server::start(&dir.path().join("target"), &Options::default());
    let with = |name: &str, text: &str| {
        let file = dir.path().join(name);
        fs::write(&file, text).unwrap();
        let output = import(&target, &[file.to_str().unwrap()]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let without_a_line: String =
        text.lines().enumerate().filter(|(i, _)| *i != 1).map(|(_, l)| format!("{l}\n")).collect();
    let (code, told) = with("lost.jsonl", &without_a_line);
    assert!(code == Some(1) && told.contains("1 piece is not what was exported"), "{told}");
    let cut: String = text.lines().take(2).map(|l| format!("{l}\n")).collect();
    let (code, told) = with("cut.jsonl", &cut);
    assert!(code == Some(1) && told.contains("the export broke off before its end"), "{told}");
    let without_the_last: String =
        text.lines().filter(|line| !line.contains("done")).map(|l| format!("{l}\n")).collect();
    let (code, told) = with("early.jsonl", &without_the_last);
    assert!(code == Some(1) && told.contains("the export broke off before its end"), "{told}");
    let (code, told) = with("bad.jsonl", "nonsense\n");
    assert!(
        code == Some(1)
            && told.contains("line 1: an object is expected")
            && told.contains("1 line cannot be read"),
        "{told}"
    );
    assert_eq!(with("empty.jsonl", ""), (Some(0), String::new()));
    let (code, _) = with("whole.jsonl", &text);
    assert_eq!(code, Some(0));

    let missing = import(&target, &["/nowhere/file"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    let mut lonely = luminate();
    let lonely =
        lonely.args(["export", "--server", "http://127.0.0.1:1", "--patience", "1s"]).output().unwrap();
    assert_eq!(lonely.status.code(), Some(1));
    let told = String::from_utf8(lonely.stderr).unwrap();
    assert!(told.contains("trying again in 0.5s") && told.contains("given up after 2 tries"), "{told}");
}

#[test]
fn what_did_not_arrive_is_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let (source, held) = filled(&dir.path().join("source"), 2, 2);
    let exported = export(&source, &[]).output().unwrap();
    let text = String::from_utf8(exported.stdout).unwrap();
    let target = Server::start(&dir.path().join("target"), &Options::default());
    let (file, state) = (dir.path().join("moved.jsonl"), dir.path().join("state.json"));
    let resumed = || import(&target, &[file.to_str().unwrap(), "--resume", state.to_str().unwrap()]);
    // The first piece misses a line, the second is whole: going on must not pass the first over.
    let damaged: Vec<_> = text.lines().enumerate().filter(|(i, _)| *i != 1).map(|(_, line)| line).collect();
    fs::write(&file, damaged.join("\n") + "\n").unwrap();
    for _ in 0..2 {
        let output = resumed().output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(1) && told.contains("1 piece is not what was exported"),
            "{told}"
        );
    }
    fs::write(&file, &text).unwrap();
    assert!(resumed().status().unwrap().success());
    assert_eq!(end(&target), held);
    let elsewhere = import(&source, &[file.to_str().unwrap(), "--resume", state.to_str().unwrap()]);
    let (code, told) = outcome(elsewhere);
    assert!(code == Some(2) && told.contains("is the state of an import to another server"), "{told}");
}

#[test]
fn what_was_refused_is_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let (source, held) = filled(&dir.path().join("source"), 2, 1);
    let exported = export(&source, &[]).output().unwrap();
    let (file, state) = (dir.path().join("moved.jsonl"), dir.path().join("state.json"));
    fs::write(&file, exported.stdout).unwrap();
    let port = Some(free_port());
    let run = |options: &Options| {
        let target = Server::start(&dir.path().join("target"), options);
        (
            outcome(import(&target, &[file.to_str().unwrap(), "--resume", state.to_str().unwrap()])),
            end(&target),
        )
    };
    // A limit that is too low, found out and raised.
    let low = Options { port, ..Options::default() }.env("LUMINATE_STORAGE__RETENTION__DEFAULT", "12h");
    let ((code, told), _) = run(&low);
    assert!(code == Some(1) && told.contains("samples were refused"), "{told}");
    let ((code, told), came) = run(&Options { port, ..Options::default() });
    assert_eq!((code, told.as_str()), (Some(0), ""));
    assert_eq!(came, held);
}

#[test]
fn only_what_was_compared_counts_as_verified() {
    let dir = tempfile::tempdir().unwrap();
    let (source, _) = filled(&dir.path().join("source"), 1, 1);
    let target = Server::start(&dir.path().join("target"), &Options::default());
    let plain = dir.path().join("plain.jsonl");
    assert!(export(&source, &["--plain", "-o", plain.to_str().unwrap()]).status().unwrap().success());
    assert_eq!(outcome(import(&target, &[plain.to_str().unwrap()])).0, Some(0));
    let (code, told) = outcome(import(&target, &[plain.to_str().unwrap(), "--verify"]));
    assert!(code == Some(1) && told.contains("cannot be verified"), "{told}");
    // An export that failed at once leaves an empty pipe behind.
    let mut nothing = import(&target, &[]);
    nothing.stdin(Stdio::null());
    let (code, told) = outcome(nothing);
    assert!(code == Some(1) && told.contains("the export broke off before its end"), "{told}");
}

#[test]
fn a_range_relative_to_now_is_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let (source, _) = filled(&dir.path().join("source"), 2, 1);
    let (file, state) = (dir.path().join("all.jsonl"), dir.path().join("state.json"));
    let wanted = [
        "--start",
        "-36h",
        "--end",
        "now",
        "-o",
        file.to_str().unwrap(),
        "--resume",
        state.to_str().unwrap(),
    ];
    assert_eq!(outcome(export(&source, &wanted)), (Some(0), String::new()));
    let first = fs::read(&file).unwrap();
    assert_eq!(outcome(export(&source, &wanted)), (Some(0), String::new()));
    assert_eq!(fs::read(&file).unwrap(), first);
}

#[test]
fn a_tenant_goes_to_clickhouse_and_back() {
    let Some(front) = Front::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (source, held) = filled(&dir.path().join("source"), 2, 4);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let config = ClickHouseConfig { database: front.database.clone(), ..ClickHouseConfig::new(&front.url) };
    let store = ClickHouseStore::open(config, HandClock::at(Timestamp(now_ms()))).unwrap();
    runtime.block_on(store.apply_schema()).unwrap();
    let options = Options::default()
        .env("LUMINATE_STORAGE__BACKEND", "clickhouse")
        .env("LUMINATE_STORAGE__CLICKHOUSE__ADDRESSES", &front.url)
        .env("LUMINATE_STORAGE__CLICKHOUSE__DATABASE", &front.database);
    let between = Server::start(&dir.path().join("between"), &options);
    let back = Server::start(&dir.path().join("back"), &Options::default());
    let verify: &[&str] = &["--verify"];
    Pipe::start(export(&source, &["--slice", "12h"]), import(&between, verify)).finish();
    assert_eq!(end(&between), held);
    Pipe::start(export(&between, &[]), import(&back, verify)).finish();
    assert_eq!(end(&back), held);
}

/// Debian's VictoriaMetrics.
struct Victoria {
    child: Child,
    base: String,
}

impl Victoria {
    fn start(dir: &Path) -> Self {
        let port = free_port();
        let child = Command::new("victoria-metrics")
            .arg(format!("-storageDataPath={}", dir.display()))
            .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
            .args(["-retentionPeriod=1y", "-loggerLevel=ERROR", "-search.latencyOffset=0s"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let victoria = Self { child, base: format!("http://127.0.0.1:{port}") };
        wait_for("VictoriaMetrics to be ready", || text(&victoria.base, "/health").is_some());
        victoria
    }

    fn export(&self) -> Vec<String> {
        let (_, text) = post(&format!("{}/api/v1/export?{ALL}", self.base), "");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

impl Drop for Victoria {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn victoriametrics_reads_what_we_write_and_we_read_what_it_writes() {
    if !have("victoria-metrics") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = now_ms() / 1000 * 1000 - 3_600_000;
    let (b, c) = (at + 15_000, at + 30_000);
    // What this version exports: infinities stand bare, NaN is left out.
    let first = Victoria::start(&dir.path().join("first"));
    let samples = format!(
        "vm_a{{l=\"x\"}} 1.5 {at}\nvm_a{{l=\"x\"}} +Inf {b}\nvm_b -Inf {at}\nvm_b NaN {b}\nvm_b 3 {c}\n"
    );
    assert_eq!(post(&format!("{}/api/v1/import/prometheus", first.base), &samples).0, 204);
    wait_for("VictoriaMetrics to show what it has", || first.export().len() == 2);
    let theirs = first.export();
    assert!(theirs[0].contains("+Inf"), "{theirs:?}");

    let ours = Server::start(&dir.path().join("ours"), &Options::default());
    assert_eq!(post(&ours.url("/api/v1/import"), &theirs.join("\n")), (204, String::new()));
    let found =
        api(&ours.url(""), "/api/v1/query", &[("query", "vm_a[2h]"), ("time", &format!("{}", c / 1000))]);
    assert_eq!(found["result"][0]["values"][1][1], "+Inf", "{found}");

    let bare = ours.get(&format!("/api/v1/export?bare=1&{ALL}")).1;
    let second = Victoria::start(&dir.path().join("second"));
    assert_eq!(post(&format!("{}/api/v1/import", second.base), &bare).0, 204);
    wait_for("VictoriaMetrics to show what it has", || second.export().len() == 2);
    assert_eq!(second.export(), theirs);
}
