//! `luminate token`: what it signs is taken, and what it explains is true.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use serde_json::{Value, json};

use crate::{
    server::{free_port, luminate},
    token::{SECRET, claims, sign, start, with},
};

fn run(arguments: &[&str], environment: &[(&str, &str)], input: &str) -> (i32, String, String) {
    let mut child = luminate()
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that fails before it reads has hung up.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(stdout), text(stderr));
    assert!(!out.contains(SECRET) && !err.contains(SECRET), "{out}{err}");
    (status.code().unwrap(), out, err)
}

fn file(dir: &Path, name: &str, content: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, content).unwrap();
    path
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
}

#[test]
fn a_token_of_the_command_line_lets_its_bearer_in_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&dir.path().join("data"));
    let environment =
        [("LUMINATE_AUTH__JWT__SECRET", SECRET), ("LUMINATE_AUTH__JWT__AUDIENCE", crate::token::AUDIENCE)];
    let (code, token, err) = run(
        &["token", "create", "--tenant", "team-a", "--scope", "read", "--subject", "me"],
        &environment,
        "",
    );
    assert_eq!((code, err.as_str()), (0, ""));
    let ask = |token: &str, path: &str| {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let answer = agent.get(server.url(path)).header("Authorization", format!("Bearer {token}")).call();
        answer.unwrap().status().as_u16()
    };
    assert_eq!(ask(token.trim(), "/api/v1/query?query=up"), 200);
    assert_eq!(ask(&sign(&claims("team-a", "write")), "/api/v1/query?query=up"), 403);
    let expired = sign(&with(claims("team-a", "read"), json!({"exp": 1_000_000_000})));
    assert_eq!(ask(&expired, "/api/v1/query?query=up"), 401);
    assert_eq!(ask(&token.trim()[1..], "/api/v1/query?query=up"), 401);
    let (code, told, _) = run(&["token", "inspect"], &environment, &format!("Bearer {token}"));
    assert_eq!(code, 0, "{told}");
    says(&told, &["good, by the key of auth.jwt.secret", "name    me", "may     read", "tenant  team-a"]);
    let (code, told, err) = run(&["token", "inspect", &expired], &environment, "");
    assert_eq!(code, 1, "{told}");
    says(&told, &["not good: it was good until 1000000000", "tenant  team-a"]);
    says(&err, &["the token is not good"]);
}

#[test]
fn a_token_is_signed_with_a_key_of_any_kind() {
    let dir = tempfile::tempdir().unwrap();
    let kinds: [(&'static rcgen::SignatureAlgorithm, &str); 4] = [
        (&rcgen::PKCS_RSA_SHA256, "RS256"),
        (&rcgen::PKCS_ECDSA_P256_SHA256, "ES256"),
        (&rcgen::PKCS_ECDSA_P384_SHA384, "ES384"),
        (&rcgen::PKCS_ED25519, "EdDSA"),
    ];
    for (kind, algorithm) in kinds {
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        let private = file(dir.path(), "private.pem", &pair.serialize_pem());
        let public = file(dir.path(), "public.pem", &pair.public_key_pem());
        let (private, public) = (private.to_str().unwrap(), public.to_str().unwrap());
        let create = [
            "token",
            "create",
            "--key-file",
            private,
            "--kid",
            "k1",
            "--tenant",
            "team-*",
            "--scope",
            "read,write",
        ];
        let (code, token, err) = run(&create, &[], "");
        assert_eq!(code, 0, "{err}");
        let (code, told, err) = run(&["token", "inspect", "--key-file", public, token.trim()], &[], "");
        assert_eq!(code, 0, "{told}{err}");
        says(
            &told,
            &[&format!("\"alg\": \"{algorithm}\""), "\"kid\": \"k1\"", "good, by", "tenants team-*, if"],
        );
        // The private key does not check, nor does the public one sign.
        assert_eq!(run(&["token", "inspect", "--key-file", private, token.trim()], &[], "").0, 1);
        let with_public = ["token", "create", "--key-file", public, "--tenant", "a", "--scope", "read"];
        let (code, _, err) = run(&with_public, &[], "");
        assert_eq!(code, 1);
        says(&err, &["holds no private key"]);
    }
}

#[test]
fn a_token_says_all_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let secret = file(dir.path(), "secret", &format!("{SECRET}\n"));
    let secret = secret.to_str().unwrap();
    let create = ["token", "create", "--secret-file", secret, "--scope", "read", "--tenant", "a"];
    let more = [
        "--tenant",
        "b-*",
        "--alg",
        "HS512",
        "--expires",
        "1h",
        "--label",
        "site=berlin",
        "--filter",
        "{env=\"prod\"}",
        "--limit",
        "samples_per_second=500",
        "--limit",
        "max_query_range=1d",
        "--audience",
        "x",
        "--audience",
        "y",
        "--issuer",
        "me",
        "--id",
        "token-7",
    ];
    let (code, token, err) = run(&[&create[..], &more].concat(), &[], "");
    assert_eq!((code, err.as_str()), (0, ""));
    let (code, told, _) = run(&["token", "inspect", "--secret-file", secret], &[], &token);
    assert_eq!(code, 0, "{told}");
    says(
        &told,
        &[
            "\"alg\": \"HS512\"",
            "\"jti\": \"token-7\"",
            "\"iss\": \"me\"",
            "tenant  a\n",
            "tenants b-*",
            "label   site=\"berlin\" on writes",
            "filter  {env=\"prod\"}",
            "limit   samples_per_second=500",
            "limit   max_query_range=\"1d\"",
        ],
    );
    let claims: Value =
        serde_json::from_str(told.split("claims ").nth(1).unwrap().split("\ngood").next().unwrap()).unwrap();
    assert_eq!(claims["aud"], json!(["x", "y"]));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
}

#[test]
fn a_token_that_would_not_be_taken_is_not_signed() {
    let dir = tempfile::tempdir().unwrap();
    let secret = file(dir.path(), "secret", SECRET);
    let weak = file(dir.path(), "weak", "changeme-changeme-changeme-changeme");
    let secret = secret.to_str().unwrap();
    let with = |more: &[&str]| {
        let create = ["token", "create", "--secret-file", secret];
        run(&[&create[..], more].concat(), &[], "")
    };
    for (more, code, wrong) in [
        (&["--tenant", "a"][..], 2, "--scope"),
        (&["--scope", "read"], 2, "--tenant"),
        (&["--tenant", "a/b", "--scope", "read"], 1, "unsupported character"),
        (&["--tenant", "a", "--scope", "raed"], 1, "\"raed\" is not a scope"),
        (&["--tenant", "a", "--scope", "read", "--filter", "{}"], 1, "such a token is not taken"),
        (&["--tenant", "a", "--scope", "read", "--limit", "samples=5"], 1, "unknown limit"),
        (&["--tenant", "a", "--scope", "read", "--label", "__name__=x"], 1, "such a token is not taken"),
        (&["--tenant", "a", "--scope", "read", "--expires", "0"], 2, "--expires"),
        (&["--tenant", "a", "--scope", "read", "--expires", "9000y"], 1, "nothing is good for so long"),
        (&["--tenant", "a", "--scope", "read", "--alg", "RS256"], 1, "the key does not go with RS256"),
        (&["--tenant", "a", "--scope", "read", "--subject", &"x".repeat(9000)], 1, "more than the 8192"),
    ] {
        let (status, out, err) = with(more);
        assert_eq!((status, out.as_str()), (code, ""), "{more:?}: {err}");
        says(&err, &[wrong]);
    }
    let create = ["token", "create", "--tenant", "a", "--scope", "read"];
    let (code, _, err) = run(&[&create[..], &["--secret-file", weak.to_str().unwrap()]].concat(), &[], "");
    assert_eq!(code, 1);
    says(&err, &["is a placeholder"]);
    assert!(!err.contains("changeme"), "{err}");
    let (code, _, err) = run(&create, &[], "");
    assert_eq!(code, 1);
    says(&err, &["there is no key to sign with"]);
}

#[test]
fn what_is_no_token_is_said_to_be_none_and_what_cannot_be_checked_is_not_called_good() {
    for text in ["", "hello", "a.b.c", "e30.e30.e30", "\u{1b}[31m"] {
        let (code, out, err) = run(&["token", "inspect"], &[], text);
        assert_eq!((code, out.as_str()), (1, ""), "{text:?}");
        says(&err, &["it is no token: "]);
    }
    let (code, told, _) = run(&["token", "inspect"], &[], &sign(&claims("team-a", "read")));
    assert_eq!(code, 0, "{told}");
    says(&told, &["not checked: there is no key", "tenant  team-a"]);
    assert!(!told.contains("\ngood"), "{told}");
}

#[test]
fn a_server_does_not_start_with_a_key_that_will_not_do() {
    let dir = tempfile::tempdir().unwrap();
    let weak = file(dir.path(), "weak", "your-strong-secret-here\n");
    let data = dir.path().join("data");
    let listen = format!("127.0.0.1:{}", free_port());
    for command in
        [&["check", "config"][..], &["serve", "--listen", &listen, "--data-dir", data.to_str().unwrap()]]
    {
        let environment =
            [("LUMINATE_AUTH__MODE", "token"), ("LUMINATE_AUTH__JWT__SECRET_FILE", weak.to_str().unwrap())];
        let (code, _, err) = run(command, &environment, "");
        assert_ne!(code, 0);
        says(&err, &["auth.jwt.secret_file: ", "has 23 bytes; it takes at least 32"]);
        let environment =
            [("LUMINATE_AUTH__MODE", "token"), ("LUMINATE_AUTH__JWT__SECRET", "hunter2-hunter2")];
        let (code, _, err) = run(command, &environment, "");
        assert_eq!(code, 2);
        says(&err, &["auth.jwt.secret: has 15 bytes"]);
        assert!(!err.contains("hunter2"), "{err}");
    }
}
