//! What a server stands on.

use std::fs;

use serde_json::json;

use super::{Ended, Liar, run};
use crate::{
    clickhouse::{front::Front, schema},
    redis::setting::RedisServer,
    server::free_port,
};

/// Tries what a configuration names; the steps as `dependency step`, those that failed in capitals.
fn check(what: &[&str], yaml: &str) -> (Ended, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("luminate.yaml");
    fs::write(&file, yaml).unwrap();
    let arguments = [&["admin", "check", "--timeout", "3s"], what].concat();
    let ended = run(&arguments, &[("LUMINATE_CONFIG_FILE", file.to_str().unwrap())]);
    let steps = ended.out.lines().filter(|line| !line.starts_with(' ')).map(|line| {
        let words: Vec<&str> = line.split_whitespace().take(3).collect();
        let step = format!("{} {}", words[1], words[2]);
        if words[0] == "ok" { step } else { step.to_uppercase() }
    });
    let steps = steps.collect();
    (ended, steps)
}

fn clickhouse(url: &str, more: &str) -> String {
    format!("storage: {{backend: clickhouse, clickhouse: {{addresses: ['{url}'], {more}}}}}")
}

#[test]
fn what_is_not_used_is_not_tried() {
    let (ended, steps) = check(&[], "");
    assert_eq!((ended.code, steps), (0, vec!["dns resolve".to_owned()]), "{}", ended.out);
    for (what, why) in
        [("clickhouse", "storage.backend"), ("redis", "redis.rate_limit"), ("jwks", "jwks_url")]
    {
        let (ended, _) = check(&[what], "");
        assert!(ended.code == 2 && ended.err.contains(why), "{ended:?}");
    }
    let (ended, _) = check(&["postgres"], "");
    assert_eq!(ended.code, 2);
    let (ended, _) = check(&[], "storag: {}");
    assert!(ended.code == 2 && ended.err.contains("storag"), "{ended:?}");
    let (ended, _) = check(&["clickhouse"], &clickhouse("ch", "password: your-clickhouse-password"));
    assert!(ended.code == 2 && ended.err.contains("is a placeholder"), "{ended:?}");
}

#[test]
fn a_clickhouse_that_cannot_be_reached_is_told_at_its_step() {
    let (ended, steps) = check(&["dns", "clickhouse"], &clickhouse("nowhere.invalid", ""));
    assert_eq!((ended.code, steps), (1, vec!["DNS RESOLVE".to_owned(), "CLICKHOUSE RESOLVE".to_owned()]));
    assert!(ended.out.contains("name.namespace"), "{}", ended.out);
    assert_eq!(ended.err, "luminate: cannot use dns, clickhouse\n");

    let (ended, steps) = check(&["clickhouse"], &clickhouse(&format!("127.0.0.1:{}", free_port()), ""));
    assert_eq!((ended.code, steps.last().unwrap().as_str()), (1, "CLICKHOUSE CONNECT"));
    assert!(ended.out.contains("nothing listens there"), "{}", ended.out);

    let native = "HTTP/1.0 400 Bad Request\r\n\r\nPort 9000 is for clickhouse-client program.\r\n";
    for (answer, why) in [
        (native, "Port 9000"),
        ("\u{7f}garbage", "does not speak HTTP"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nOk", "broke off"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nHello\n", "200 OK: Hello"),
        ("", "no answer within 3s"),
    ] {
        let liar = Liar::saying(answer);
        let (ended, steps) = check(&["clickhouse"], &clickhouse(&liar.url(), ""));
        assert_eq!((ended.code, steps.last().unwrap().as_str()), (1, "CLICKHOUSE PING"), "{answer}");
        assert!(ended.out.contains(why), "{answer}: {}", ended.out);
    }
    let plain = Liar::saying("HTTP/1.0 400 Bad Request\r\n\r\n");
    let (ended, steps) =
        check(&["clickhouse"], &clickhouse(&format!("https://127.0.0.1:{}", plain.port), ""));
    assert_eq!((ended.code, steps.last().unwrap().as_str()), (1, "CLICKHOUSE TLS"), "{}", ended.out);
}

#[test]
fn a_clickhouse_is_tried_down_to_its_schema() {
    let Some(mut front) = Front::start_own() else { return };
    front.kill();
    front.start_again(&["--user", "luminate", "--password", "right"]);
    let with = |password: &str| {
        let more = format!("database: {}, username: luminate, password: {password}", front.database);
        check(&["clickhouse"], &clickhouse(&front.url, &more))
    };
    let (ended, steps) = with("wrong-hunter2");
    assert_eq!((ended.code, steps.last().unwrap().as_str()), (1, "CLICKHOUSE AUTHENTICATE"), "{}", ended.out);
    assert!(ended.out.contains("password_file"), "{}", ended.out);
    assert!(!format!("{ended:?}").contains("hunter2"), "{ended:?}");

    let (ended, steps) = with("right");
    assert_eq!((ended.code, steps.last().unwrap().as_str()), (1, "CLICKHOUSE SCHEMA"), "{}", ended.out);
    assert!(ended.out.contains("luminate schema apply"), "{}", ended.out);

    front.kill();
    front.start_again(&[]);
    schema::apply(&front);
    let more = format!("database: {}", front.database);
    let (ended, steps) = check(&[], &clickhouse(&front.url, &more));
    assert_eq!(ended.code, 0, "{}", ended.out);
    let all =
        ["resolve", "connect", "ping", "authenticate", "schema"].map(|step| format!("clickhouse {step}"));
    assert_eq!(steps[1..], all);
}

fn redis(url: &str, more: &str) -> String {
    let used = "rate_limit: {enabled: true}, key_store: {enabled: true}";
    format!("auth: {{mode: token}}\nredis: {{{used}, url: '{url}', {more}}}")
}

#[test]
fn a_redis_is_tried_down_to_its_commands() {
    let Some(server) = RedisServer::start(&["--maxmemory-policy", "allkeys-lru"]) else { return };
    let (ended, steps) = check(&[], &redis(&server.url(), ""));
    assert_eq!(ended.code, 0, "{}", ended.out);
    let all = ["resolve", "connect", "authenticate", "ping", "rate", "key", "eviction"];
    assert_eq!(steps[1..], all.map(|step| format!("redis {step}")));
    assert!(ended.out.contains("noeviction"), "keys may be evicted: {}", ended.out);

    // What limits need, and what keys need, may be forbidden.
    let rules = "on >hunter2 ~luminate:* +ping +set +select +hmget +scard";
    let _: String = server.ask(&format!("ACL SETUSER gateway {rules}"));
    let (ended, steps) = check(&["redis"], &redis(&server.url(), "username: gateway, password: hunter2"));
    assert_eq!(ended.code, 1, "{}", ended.out);
    assert!(steps.contains(&"REDIS RATE".to_owned()) && steps.contains(&"redis key".to_owned()), "{steps:?}");
    assert!(ended.out.contains("ACL"), "{}", ended.out);

    for (more, why) in [
        ("username: gateway, password: sesame", "redis.password_file"),
        ("password: sesame", "redis.password_file"),
        ("cluster: true", "redis.cluster"),
    ] {
        let (ended, steps) = check(&["redis"], &redis(&server.url(), more));
        assert_eq!((ended.code, steps.last().unwrap().as_str()), (1, "REDIS AUTHENTICATE"), "{}", ended.out);
        assert!(ended.out.contains(why), "{more}: {}", ended.out);
        assert!(!format!("{ended:?}").contains("sesame"), "{ended:?}");
    }
}

#[test]
fn a_redis_that_wants_a_password_says_so() {
    let Some(server) = RedisServer::start(&["--requirepass", "sesame"]) else { return };
    let (ended, steps) = check(&["redis"], &redis(&server.url(), ""));
    assert_eq!((ended.code, steps.last().unwrap().as_str()), (1, "REDIS AUTHENTICATE"), "{}", ended.out);
    assert!(ended.out.contains("redis.password_file"), "{}", ended.out);
    let (ended, _) = check(&["redis"], &redis(&server.url(), "password: sesame"));
    assert_eq!(ended.code, 0, "{}", ended.out);
}

#[test]
fn what_is_no_redis_is_told() {
    for (answer, last) in
        [("HTTP/1.1 400 Bad Request\r\n\r\n", "REDIS AUTHENTICATE"), ("", "REDIS AUTHENTICATE")]
    {
        let liar = Liar::saying(answer);
        let (ended, steps) = check(&["redis"], &redis(&format!("redis://127.0.0.1:{}", liar.port), ""));
        assert_eq!((ended.code, steps.last().unwrap().as_str()), (1, last), "{answer}: {}", ended.out);
    }
    let (ended, steps) = check(&["redis"], &redis(&format!("redis://127.0.0.1:{}", free_port()), ""));
    assert_eq!((ended.code, steps.last().unwrap().as_str()), (1, "REDIS CONNECT"), "{}", ended.out);
}

fn jwks(url: &str) -> String {
    format!("auth: {{mode: token, jwt: {{jwks_url: '{url}'}}}}")
}

#[test]
fn keys_are_fetched_and_read() {
    let key = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "a", "use": "sig",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]})
    .to_string();
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{key}", key.len());
    let liar = Liar::saying(answer.leak());
    let (ended, steps) = check(&["jwks"], &jwks(&liar.url()));
    assert_eq!(ended.code, 0, "{}", ended.out);
    assert_eq!(steps, ["jwks resolve", "jwks connect", "jwks fetch"]);
    assert!(ended.out.contains("1 keys from"), "{}", ended.out);

    for (answer, why) in [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404"),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n",
            "redirects are not followed",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "http://127.0.0.1"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n{\"keys\"", "breaks off"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"keys\":[]}", "key"),
        ("", "no answer within 3s"),
    ] {
        let liar = Liar::saying(answer);
        let (ended, steps) = check(&["jwks"], &jwks(&liar.url()));
        assert_eq!(
            (ended.code, steps.last().unwrap().as_str()),
            (1, "JWKS FETCH"),
            "{answer}: {}",
            ended.out
        );
        assert!(ended.out.contains(why), "{answer}: {}", ended.out);
    }
}
