//! TLS and certificates of clients, on the real binary.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use rustls::version::{TLS12, TLS13};
use tempfile::TempDir;

use crate::{
    certificates::{Authority, Client, with_tls},
    patience::wait_for,
    server::{Options, Server, free_port, luminate, now_ms, remote_write},
};

/// A server with a certificate of `authority`, which takes the word of the same for clients.
struct Secure {
    server: Server,
    admin: u16,
    authority: Authority,
    dir: TempDir,
}

fn start(client_auth: &str, more: &[(&str, &str)]) -> Secure {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("of the test");
    authority.server().write(dir.path(), "server");
    fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    let admin = free_port();
    let mut options = with_tls(Options::default(), dir.path(), client_auth)
        .env("LUMINATE_SERVER__ADMIN_LISTEN", &format!("127.0.0.1:{admin}"));
    for (key, value) in more {
        options = options.env(key, value);
    }
    options.quiet = true;
    let server = Server::spawn(&dir.path().join("data"), &options);
    let client = Client::new(&authority, None);
    wait_for("the server to be ready", || {
        client.get(admin, "/-/ready").is_ok_and(|(status, _)| status == 200)
    });
    Secure { server, admin, authority, dir }
}

fn metric(secure: &Secure, name: &str) -> f64 {
    let (_, text) = Client::new(&secure.authority, None).get(secure.admin, "/metrics").unwrap();
    let line =
        text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn both_versions_of_tls_are_spoken_and_what_is_older_is_refused() {
    let secure = start("off", &[]);
    let port = secure.server.port;
    for version in [&TLS12, &TLS13] {
        let client = Client::speaking(&[version], &secure.authority, None);
        assert_eq!(client.get(port, "/-/healthy").unwrap().0, 200);
    }
    // The same words with a version that will do get a handshake.
    assert_eq!(hello(port, [3, 3]).first(), Some(&22));
    for version in [[3, 0], [3, 1], [3, 2]] {
        let answer = hello(port, version);
        // An alert: fatal, protocol version.
        assert_eq!(answer.get(5..7), Some(&[2, 70][..]), "{answer:?}");
    }
    let other = Client::new(&Authority::new("of nobody"), None);
    assert!(other.get(port, "/-/healthy").is_err());
}

#[test]
fn the_older_version_can_be_refused() {
    let secure = start("off", &[("LUMINATE_SERVER__TLS__MIN_VERSION", "1.3")]);
    let port = secure.server.port;
    assert!(Client::speaking(&[&TLS12], &secure.authority, None).get(port, "/-/healthy").is_err());
    assert_eq!(Client::speaking(&[&TLS13], &secure.authority, None).get(port, "/-/healthy").unwrap().0, 200);
}

/// What is answered to the first message of a client that speaks nothing newer than `version`.
fn hello(port: u16, version: [u8; 2]) -> Vec<u8> {
    let mut body = version.to_vec();
    body.extend([7; 32]);
    body.push(0);
    // Two suites, no compression; signature algorithms, groups, point formats.
    body.extend([0, 4, 0xc0, 0x2b, 0xc0, 0x09, 1, 0]);
    body.extend([0, 28]);
    body.extend([0, 13, 0, 8, 0, 6, 4, 3, 8, 4, 4, 1]);
    body.extend([0, 10, 0, 6, 0, 4, 0, 29, 0, 23]);
    body.extend([0, 11, 0, 2, 1, 0]);
    let mut message = vec![1, 0, 0, u8::try_from(body.len()).unwrap()];
    message.extend(body);
    let mut record = vec![22, 3, 1, 0, u8::try_from(message.len()).unwrap()];
    record.extend(message);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(&record).unwrap();
    let mut answer = vec![0; 7];
    let read = stream.read(&mut answer).unwrap();
    answer.truncate(read);
    answer
}

#[test]
fn plain_http_gets_nothing_from_a_port_with_tls() {
    let secure = start("off", &[]);
    let mut stream = TcpStream::connect(("127.0.0.1", secure.server.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
}

#[test]
fn a_client_without_a_good_certificate_is_refused_where_one_is_required() {
    let secure = start("required", &[]);
    let port = secure.server.port;
    let get = |client: Client| client.get(port, "/-/healthy").map(|(status, _)| status);
    let stranger = Authority::new("of the test");
    let cases = [
        ("none", None),
        ("wrong authority", Some(stranger.client("agent", "team-a"))),
        ("expired", Some(secure.authority.expired_client("agent", "team-a"))),
        ("of a server", Some(secure.authority.server())),
    ];
    for (case, shown) in &cases {
        let status = get(Client::new(&secure.authority, shown.as_ref()));
        assert!(status.is_err(), "{case}: {status:?}");
    }
    let shown = secure.authority.client("agent", "team-a");
    assert_eq!(get(Client::new(&secure.authority, Some(&shown))), Ok(200));
    // Probes have no certificate.
    assert_eq!(Client::new(&secure.authority, None).get(secure.admin, "/-/ready").unwrap().0, 200);
}

#[test]
fn a_certificate_may_be_shown_where_it_is_optional_but_not_a_bad_one() {
    let secure = start("optional", &[]);
    let get = |client: Client| client.get(secure.server.port, "/-/healthy").map(|(status, _)| status);
    assert_eq!(get(Client::new(&secure.authority, None)), Ok(200));
    let shown = secure.authority.client("agent", "team-a");
    assert_eq!(get(Client::new(&secure.authority, Some(&shown))), Ok(200));
    let stranger = Authority::new("of somebody").client("agent", "team-a");
    assert!(get(Client::new(&secure.authority, Some(&stranger))).is_err());
}

#[test]
fn new_certificates_are_taken_up_when_their_files_change() {
    let secure = start("off", &[]);
    let before = metric(&secure, "luminate_tls_certificate_expiry_timestamp_seconds");
    assert!(before > 0.0);
    let newer = Authority::new("the next one");
    replace(&newer, secure.dir.path());
    let client = Client::new(&newer, None);
    let port = secure.server.port;
    wait_for("the files to be read again", || {
        client.get(port, "/-/healthy").is_ok_and(|(status, _)| status == 200)
    });
    assert!(Client::new(&secure.authority, None).get(port, "/-/healthy").is_err());
}

#[test]
fn a_signal_has_certificates_read_again_at_once() {
    let secure = start("off", &[]);
    secure.server.hang_up();
    wait_for("the files to be read again", || metric(&secure, "luminate_tls_reloads_total") > 0.0);
}

#[test]
fn a_certificate_that_will_not_do_leaves_the_old_one_in_force() {
    let secure = start("off", &[]);
    let port = secure.server.port;
    let client = Client::new(&secure.authority, None);
    let pem = secure.dir.path().join("server.pem");
    let good = fs::read(&pem).unwrap();
    let stranger = Authority::new("of nobody").server();
    let mut failures = 0.0;
    // Nothing in it, something else in it, one that is not of this key, half of it.
    for broken in
        [b"".to_vec(), b"hello".to_vec(), stranger.cert.into_bytes(), good[..good.len() / 2].to_vec()]
    {
        fs::write(&pem, &broken).unwrap();
        wait_for("the files to be refused", || {
            metric(&secure, "luminate_tls_reload_failures_total") > failures
        });
        failures = metric(&secure, "luminate_tls_reload_failures_total");
        assert_eq!(client.get(port, "/-/healthy").unwrap().0, 200);
    }
    fs::remove_file(&pem).unwrap();
    wait_for("the files to be refused", || metric(&secure, "luminate_tls_reload_failures_total") > failures);
    assert_eq!(client.get(port, "/-/healthy").unwrap().0, 200);
    // And then it is there again.
    fs::write(&pem, &good).unwrap();
    wait_for("the files to be taken up", || metric(&secure, "luminate_tls_reloads_total") > 0.0);
}

/// Puts another authority's certificate in the place of the one there, each file at once.
fn replace(authority: &Authority, dir: &Path) {
    let next = dir.join("next");
    fs::create_dir(&next).unwrap();
    let (cert, key) = authority.server().write(&next, "server");
    fs::rename(key, dir.join("server.key")).unwrap();
    fs::rename(cert, dir.join("server.pem")).unwrap();
}

#[test]
fn a_server_whose_certificate_will_not_do_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("of the test");
    authority.server().write(dir.path(), "server");
    authority.server().write(dir.path(), "other");
    let path = |name: &str| dir.path().join(name).display().to_string();
    for (cert, key, ca, told) in [
        ("missing.pem", "server.key", "server.pem", "missing.pem"),
        ("server.pem", "other.key", "server.pem", "other.key"),
        ("server.pem", "server.pem", "server.pem", "there is no private key in it"),
        ("server.key", "server.key", "server.pem", "there is no certificate in it"),
        ("server.pem", "server.key", "server.key", "there is no certificate in it"),
    ] {
        let output = luminate()
            .args(["serve", "--listen", &format!("127.0.0.1:{}", free_port()), "--data-dir", &path("data")])
            .env("LUMINATE_SERVER__TLS__CERT_FILE", path(cert))
            .env("LUMINATE_SERVER__TLS__KEY_FILE", path(key))
            .env("LUMINATE_SERVER__TLS__CLIENT_AUTH", "optional")
            .env("LUMINATE_SERVER__TLS__CLIENT_CA_FILE", path(ca))
            .output()
            .unwrap();
        let told_us = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told_us}");
        assert!(told_us.contains("cannot set up TLS") && told_us.contains(told), "{told_us}");
    }
}

#[test]
fn our_own_commands_speak_tls() {
    let secure = start("required", &[]);
    let shown = secure.authority.client("agent", "team-a").write(secure.dir.path(), "agent");
    let file = |name: &str| secure.dir.path().join(name).display().to_string();
    let url = format!("https://localhost:{}", secure.server.port);
    let run = |arguments: &[&str]| luminate().args(arguments).output().unwrap();
    let (cert, key, ca) = (shown.0.display().to_string(), shown.1.display().to_string(), file("ca.pem"));
    let known = ["--server", &url, "--tls.ca", &ca, "--tls.cert", &cert, "--tls.key", &key];
    let output = run(&[&["query", "1+1"], &known[..]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(run(&[&["healthcheck"], &known[..]].concat()).status.success());
    // Without our certificate, and without trust in theirs.
    assert_eq!(run(&["healthcheck", "--server", &url, "--tls.ca", &ca]).status.code(), Some(1));
    assert_eq!(run(&["healthcheck", "--server", &url]).status.code(), Some(1));
    // The admin listener is where the configuration says.
    let by_config = luminate()
        .arg("healthcheck")
        .env("LUMINATE_SERVER__ADMIN_LISTEN", format!("127.0.0.1:{}", secure.admin))
        .env("LUMINATE_SERVER__TLS__CERT_FILE", file("server.pem"))
        .env("LUMINATE_SERVER__TLS__KEY_FILE", file("server.key"))
        .output()
        .unwrap();
    assert!(by_config.status.success(), "{}", String::from_utf8_lossy(&by_config.stderr));
}

#[test]
fn a_certificate_lets_its_holder_in_for_the_tenant_it_names_and_nobody_else() {
    let secure = start(
        "optional",
        &[
            ("LUMINATE_AUTH__MODE", "token"),
            ("LUMINATE_AUTH__CLIENT_CERTIFICATES__ENABLED", "true"),
            ("LUMINATE_AUTH__CLIENT_CERTIFICATES__SCOPES", "write,read"),
        ],
    );
    let port = secure.server.port;
    let client = |organization: &str| {
        let shown = secure.authority.client("agent", organization);
        Client::new(&secure.authority, Some(&shown))
    };
    let body = remote_write(&[(vec![("__name__".to_owned(), "up".to_owned())], vec![(now_ms(), 1.0)])]);
    let write = |client: &Client, tenant: &[(&str, &str)]| {
        let headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
        client.send(port, "POST", "/api/v1/write", &[&headers[..], tenant].concat(), &body).unwrap().0
    };
    let count = |client: &Client| {
        let (status, answer) = client.get(port, "/api/v1/query?query=count(up)").unwrap();
        assert_eq!(status, 200, "{answer}");
        answer.matches("\"value\"").count()
    };
    let (ours, theirs) = (client("team-a"), client("team-b"));
    assert!(write(&ours, &[]) < 300);
    assert!(write(&ours, &[("X-Scope-OrgID", "team-a")]) < 300);
    assert_eq!(write(&ours, &[("X-Scope-OrgID", "team-b")]), 403);
    assert_eq!((count(&ours), count(&theirs)), (1, 0));
    // A page in the browser of somebody who has a certificate.
    let forged = |header| ours.send(port, "POST", "/api/v1/labels", &[header], b"").unwrap().0;
    assert_eq!(forged(("Origin", "https://evil.example")), 403);
    assert_eq!(forged(("Sec-Fetch-Site", "cross-site")), 403);
    assert_eq!(forged(("Origin", "https://localhost")), 200);
    // Nobody in particular, and what a certificate is not good for.
    assert_eq!(write(&Client::new(&secure.authority, None), &[]), 401);
    assert_eq!(write(&client("../team-a"), &[]), 401);
    let flush = ours.send(secure.admin, "POST", "/api/v1/admin/tsdb/flush", &[], b"").unwrap();
    assert_eq!(flush.0, 403);
    // On loopback, figures are for whoever reaches the address; orders are not.
    let anybody = Client::new(&secure.authority, None);
    assert_eq!(anybody.get(secure.admin, "/metrics").unwrap().0, 200);
    assert_eq!(anybody.get(secure.admin, "/health/deep").unwrap().0, 200);
    assert_eq!(anybody.get(secure.admin, "/api/v1/status/storage").unwrap().0, 401);
    assert_eq!(anybody.send(secure.admin, "POST", "/api/v1/admin/tsdb/flush", &[], b"").unwrap().0, 401);
}
