//! Known samples, once.

use std::fs;

use super::{Liar, run};
use crate::{
    server::{Options, Server},
    token,
};

#[test]
fn a_server_that_is_well_passes_and_keeps_nothing_but_the_samples() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &Options::default());
    let url = server.url("");
    for _ in 0..2 {
        let ended = run(&["admin", "smoke", "--server", &url], &[]);
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{}", ended.out);
        let steps: Vec<&str> =
            ended.out.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
        assert_eq!(steps, ["ready", "write", "query", "query_range", "aggregate", "labels"]);
        assert!(ended.out.lines().all(|line| line.starts_with("ok ")), "{}", ended.out);
    }
    let names = server.api("/api/v1/label/__name__/values", &[]);
    assert_eq!(names, serde_json::json!(["luminate_smoke"]));
    let runs = server.api("/api/v1/label/run/values", &[]);
    assert_eq!(runs.as_array().unwrap().len(), 2, "{runs}");
}

#[test]
fn the_first_step_that_fails_is_the_last_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let server = token::start(&dir.path().join("data"));
    let url = server.url("");
    let file = dir.path().join("token");
    let smoke = |scope: Option<&str>, more: &[&str]| {
        let mut arguments = vec!["admin", "smoke", "--server", &url];
        if let Some(scope) = scope {
            fs::write(&file, token::token("acme", scope)).unwrap();
            arguments.extend(["--token.file", file.to_str().unwrap()]);
        }
        run(&[&arguments, more].concat(), &[])
    };
    let ended = smoke(None, &[]);
    assert_eq!(ended.code, 1);
    assert!(ended.out.contains("FAILED  write") && ended.out.contains("401"), "{}", ended.out);
    assert!(ended.out.trim_end().ends_with("--token.file"), "{}", ended.out);
    assert_eq!(ended.err, format!("luminate: {url}: write failed\n"));

    assert_eq!(smoke(Some("write read"), &[]).code, 0);
    for (scope, more, failed) in
        [("read", &[][..], "write"), ("write", &[], "query"), ("write read", &["--tenant", "other"], "write")]
    {
        let ended = smoke(Some(scope), more);
        assert_eq!(ended.code, 1, "{scope}");
        assert!(ended.out.contains(&format!("FAILED  {failed} ")), "{scope}: {}", ended.out);
        assert!(ended.out.contains("403") && ended.out.contains("scopes write and read"), "{}", ended.out);
    }
    assert!(server.terminate().success());
}

#[test]
fn what_is_no_luminate_fails() {
    const HTML: &str = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\nConnection: close\r\n\r\n<html></html>";
    for (answer, failed, why) in [
        (HTML, "query", "not one of Luminate's: <html>"),
        ("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n", "ready", "502"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf", "ready", "broke off"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "ready", "invalid HTTP"),
        ("", "ready", "no answer within 300ms"),
    ] {
        let liar = Liar::saying(answer);
        let ended = run(&["admin", "smoke", "--server", &liar.url(), "--timeout", "300ms"], &[]);
        assert_eq!(ended.code, 1, "{answer}");
        assert!(ended.out.contains(&format!("FAILED  {failed} ")), "{answer}: {}", ended.out);
        assert!(ended.out.contains(why), "{answer}: {}", ended.out);
    }
    let ended = run(&["admin", "smoke", "--server", "http://127.0.0.1:1"], &[]);
    assert!(ended.code == 1 && ended.out.contains("is the server there"), "{ended:?}");
    for wrong in [&["--server", "ftp://x"][..], &["--timeout", "soon"], &["--token.file", "/nowhere"]] {
        assert_eq!(run(&[&["admin", "smoke"], wrong].concat(), &[]).code, 2, "{wrong:?}");
    }
}
