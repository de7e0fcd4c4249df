//! Keys in Redis: made and revoked on the command line, asked for by a server, and never an open door.

use std::process::Output;

use super::setting::{RedisServer, until};
use crate::server::{Options, Server, luminate};

fn key(redis: &RedisServer, arguments: &[&str]) -> (bool, String, String) {
    let Output { status, stdout, stderr } = luminate()
        .args([&["key"], arguments, &["--redis"]].concat())
        .env("REDIS_URL", redis.url())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.success(), text(stdout), text(stderr))
}

/// Asks as the holder of a key.
fn asks(server: &Server, key: &str) -> u16 {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let asked = agent
        .get(server.url("/api/v1/query?query=1"))
        .header("Authorization", format!("Bearer {key}"))
        .call()
        .unwrap();
    asked.status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_made_revoked_and_asked_for() {
    let Some(mut redis) = RedisServer::start(&[]) else { return };
    let create = ["create", "--tenant", "a", "--scope", "read"];
    let made = || {
        let (ok, key_text, error) = key(&redis, &create);
        assert!(ok, "{error}");
        key_text.trim().to_owned()
    };
    let (first, second, third) = (made(), made(), made());
    let id = |key: &str| key.split('_').nth(1).unwrap().to_owned();
    let (_, listed, _) = key(&redis, &["list"]);
    assert!(listed.contains(&id(&first)) && listed.contains(&id(&second)), "{listed}");
    let kept: Vec<String> = redis.ask(&format!("HVALS luminate:key:{}", id(&first)));
    assert!(!kept.concat().contains(first.rsplit('_').next().unwrap()), "the secret is not kept");

    let dir = tempfile::tempdir().unwrap();
    let options = Options { quiet: true, ..Options::default() }
        .env("LUMINATE_AUTH__MODE", "token")
        .env("REDIS_URL", &redis.url())
        .env("REDIS_KEYSTORE_ENABLED", "true")
        // Each request asks Redis, so that a revoked key is out at once.
        .env("REDIS_KEYSTORE_CACHE_TTL", "0")
        .env("LUMINATE_REDIS__TIMEOUT", "10s")
        .env("LUMINATE_REDIS__BREAKER__MIN_OPEN", "50ms")
        .env("LUMINATE_REDIS__BREAKER__MAX_OPEN", "1s");
    let server = Server::start(dir.path(), &options);
    until("Redis is connected", async || asks(&server, &first) == 200).await;
    assert_eq!(asks(&server, &second), 200);
    let forged = format!("lum_{}_{}", id(&first), second.rsplit('_').next().unwrap());
    assert_eq!(asks(&server, &forged), 401);
    let (ok, _, error) = key(&redis, &["revoke", &id(&second)]);
    assert!(ok, "{error}");
    assert_eq!(asks(&server, &second), 401);

    redis.kill();
    assert_eq!(asks(&server, &first), 200, "it was good a moment ago");
    assert_eq!(asks(&server, &third), 503, "nobody knows");
    assert_eq!(asks(&server, &second), 401, "it was bad a moment ago");
    let (ok, _, error) = key(&redis, &create);
    assert!(!ok && error.contains("cannot use Redis"), "{error}");

    // It comes back with nothing: what it says now counts.
    redis.restart();
    until("Redis is connected", async || asks(&server, &third) == 401).await;
    assert!(server.terminate().success());
}

#[test]
fn there_has_to_be_a_redis_to_keep_keys_in() {
    let run = |variables: &[(&str, &str)]| {
        let output = luminate().args(["key", "list", "--redis"]).envs(variables.iter().copied()).output();
        String::from_utf8(output.unwrap().stderr).unwrap()
    };
    assert!(run(&[]).contains("redis.url: names no server"));
    let secret = run(&[("REDIS_URL", "redis://:hunter2@127.0.0.1:1/x")]);
    assert!(secret.contains("redis.url") && !secret.contains("hunter2"), "{secret}");
}
