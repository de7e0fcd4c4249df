//! What is done to HTTP servers on purpose: too slow, too much, ambiguous, by the wrong door. On raw sockets
//! against the real binary, which has to say no or hang up, and to serve everybody else.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use crate::{
    patience::wait_for,
    server::{Options, Server, free_port},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server that is less patient than usual.
fn start(more: &[(&str, &str)]) -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default()
        .env("LUMINATE_SERVER__LIMITS__HEADER_TIMEOUT", "300ms")
        .env("LUMINATE_SERVER__LIMITS__BODY_TIMEOUT", "300ms");
    for (key, value) in more {
        options = options.env(key, value);
    }
    options.quiet = true;
    (Server::start(dir.path(), &options), dir)
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// All that comes until the server hangs up; it has to.
#[track_caller]
fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return bytes,
            Ok(read) => bytes.extend(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return bytes,
            Err(error) => panic!("the server did not hang up: {error}; it said {bytes:?}"),
        }
    }
}

#[track_caller]
fn ask(port: u16, request: &[u8]) -> String {
    let mut stream = connect(port);
    // It may hang up before all is written.
    let _ = stream.write_all(request);
    String::from_utf8_lossy(&until_closed(&mut stream)).into_owned()
}

fn status(port: u16, request: &str) -> u16 {
    let answer = ask(port, request.as_bytes());
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
}

fn get(port: u16, path: &str) -> u16 {
    status(port, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

/// Sends a byte now and then until the server hangs up.
#[track_caller]
fn trickle(stream: &mut TcpStream, byte: u8) -> Vec<u8> {
    let mut writer = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while writer.write_all(&[byte]).is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let said = until_closed(stream);
        let _ = stream.shutdown(Shutdown::Both);
        said
    })
}

#[test]
fn a_head_that_trickles_in_is_given_up() {
    let (server, _dir) = start(&[]);
    let mut stream = connect(server.port);
    stream.write_all(b"GET / HTTP/1.1\r\nX-Slow: ").unwrap();
    assert_eq!(trickle(&mut stream, b'a'), b"");
}

#[test]
fn a_body_that_trickles_in_is_given_up() {
    let (server, _dir) = start(&[]);
    let mut stream = connect(server.port);
    let head = "POST /api/v1/write HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n\
                Content-Encoding: snappy\r\nContent-Length: 100000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let said = String::from_utf8(trickle(&mut stream, 0)).unwrap();
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
}

#[test]
fn a_proxy_header_that_trickles_in_is_given_up() {
    let (server, _dir) = start_behind_proxy();
    let mut stream = connect(server.port);
    stream.write_all(b"PROXY TCP4 1").unwrap();
    assert_eq!(trickle(&mut stream, b'1'), b"");
}

#[test]
fn a_handshake_that_does_not_come_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let authority = crate::certificates::Authority::new("of the test");
    authority.server().write(dir.path(), "server");
    let options = crate::certificates::with_tls(Options::default(), dir.path(), "off")
        .env("LUMINATE_SERVER__LIMITS__HEADER_TIMEOUT", "300ms");
    let server = Server::spawn(&dir.path().join("data"), &options);
    let client = crate::certificates::Client::new(&authority, None);
    while !client.get(server.port, "/-/ready").is_ok_and(|(status, _)| status == 200) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut stream = connect(server.port);
    stream.write_all(&[22, 3, 1, 0x40, 0]).unwrap();
    trickle(&mut stream, 0);
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn a_request_whose_length_is_ambiguous_hides_no_other() {
    let (server, _dir) = start(&[]);
    let post = "POST /api/v1/labels HTTP/1.1\r\nHost: localhost\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n";
    let refused = [
        "Content-Length: 0\r\nContent-Length: 44\r\n",
        "Content-Length: 0, 44\r\n",
        "Content-Length: +0\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x0\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Content-Length : 0\r\n",
        " Content-Length: 0\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "X-Folded: a\r\n b\r\nContent-Length: 0\r\n",
        "X-Return: a\rContent-Length: 44\r\nContent-Length: 0\r\n",
        "X-Nul: a\0b\r\nContent-Length: 0\r\n",
        "X Space: a\r\nContent-Length: 0\r\n",
        ": nameless\r\nContent-Length: 0\r\n",
    ];
    for headers in refused {
        let answer = ask(server.port, format!("{post}{headers}\r\n{SMUGGLED}").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{headers:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{headers:?}: {answer}");
    }
    // Both lengths, in chunks: chunks win, and what follows is nobody's.
    for headers in [
        "Content-Length: 49\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 49\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
    ] {
        let answer = ask(server.port, format!("{post}{headers}\r\n0\r\n\r\n{SMUGGLED}").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 "), "{headers:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{headers:?}: {answer}");
        assert!(!answer.contains("smuggled"), "{headers:?}: {answer}");
    }
    let old = "POST /api/v1/labels HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let answer = ask(server.port, format!("{old}{SMUGGLED}").as_bytes());
    assert!(!answer.contains("smuggled") && answer.matches("HTTP/1.").count() == 1, "{answer}");
    assert_eq!(get(server.port, "/-/healthy"), 200);
}

#[test]
fn chunks_that_are_malformed_hide_no_request() {
    let (server, _dir) = start(&[]);
    let post = "POST /api/v1/labels HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n\r\n";
    for chunks in [
        "FFFFFFFFFFFFFFFFF\r\n",
        "-1\r\n\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\na\n0\n\n",
        "g\r\n",
        "1;x\ny\r\na\r\n0\r\n\r\n",
        " 0\r\n\r\n",
    ] {
        let answer = ask(server.port, format!("{post}{chunks}{SMUGGLED}").as_bytes());
        assert!(!answer.contains("smuggled"), "{chunks:?}: {answer}");
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{chunks:?}: {answer}");
    }
    assert_eq!(get(server.port, "/-/healthy"), 200);
}

#[test]
fn a_line_that_is_no_request_is_refused() {
    let (server, _dir) = start(&[]);
    for line in [
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 x",
        "GET / HTTP/9.9",
        "GET / http/1.1",
        "GET /\0 HTTP/1.1",
        "GET /a b HTTP/1.1",
        "G\u{e9}T / HTTP/1.1",
        "/ HTTP/1.1",
        "GET",
        "\u{16}\u{3}\u{1}",
    ] {
        let answer = ask(server.port, format!("{line}\r\nHost: localhost\r\n\r\n").as_bytes());
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{line:?}: {answer}");
    }
    assert_eq!(get(server.port, "/-/healthy"), 200);
}

#[test]
fn heads_that_are_too_large_are_refused() {
    let (server, _dir) = start(&[]);
    let long = "a".repeat(200_000);
    let many: String = (0..1000).map(|i| format!("X-{i}: a\r\n")).collect();
    for (request, expected) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {long}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"), 431),
        (format!("{long} / HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400),
    ] {
        let answer = ask(server.port, request.as_bytes());
        // It hangs up on what was still on its way, which can take the answer with it.
        let refused = answer.is_empty()
            || [expected, 431].iter().any(|status| answer.starts_with(&format!("HTTP/1.1 {status} ")));
        assert!(refused, "{expected}: {}", &answer[..answer.len().min(200)]);
    }
    assert_eq!(get(server.port, "/-/healthy"), 200);
}

#[test]
fn a_path_is_taken_as_it_is_written() {
    let (server, _dir) = start(&[]);
    for path in [
        "//metrics",
        "/./metrics",
        "/x/../metrics",
        "/%2e/metrics",
        "/x/%2e%2e/metrics",
        "/metrics/",
        "/metrics;x=1",
        "/metrics%2f",
        "/metrics%00",
        "/%6detrics",
        "/%256detrics",
        "/METRICS",
        "\\metrics",
        "/api/v1//status/storage",
        "/api/v1/./status/storage",
        "/api/v1/label/../status/storage",
        "/api/v1/status%2fstorage",
        "/api/v1/status/storage/",
        "/prometheus/prometheus/api/v1/labels",
        "/prometheus//api/v1/labels",
    ] {
        assert!(matches!(get(server.port, path), 404 | 400), "{path}");
    }
    assert_eq!(get(server.port, "/metrics"), 200);
    // A name in a path is a name, whatever is in it.
    assert_eq!(get(server.port, "/api/v1/label/..%2f..%2fmetrics/values"), 200);
}

#[test]
fn a_method_cannot_be_overridden() {
    let (server, _dir) = start(&[]);
    for header in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method"] {
        let order = |method: &str| {
            let path = "/api/v1/admin/tsdb/flush";
            let head =
                format!("{method} {path}?_method=POST HTTP/1.1\r\nHost: localhost\r\n{header}: POST\r\n");
            status(server.port, &format!("{head}Connection: close\r\n\r\n"))
        };
        assert_eq!(order("GET"), 405, "{header}");
        assert_eq!(order("HEAD"), 405, "{header}");
        assert_eq!(order("TRACE"), 405, "{header}");
    }
}

#[test]
fn what_operates_the_server_is_not_on_the_data_port() {
    let admin = free_port();
    let (server, _dir) = start(&[("LUMINATE_SERVER__ADMIN_LISTEN", &format!("127.0.0.1:{admin}"))]);
    for path in ["/metrics", "/health/deep", "/api/v1/status/storage", "/prometheus/api/v1/status/storage"] {
        assert_eq!(get(admin, path), 200, "{path}");
        assert_eq!(get(server.port, path), 404, "{path}");
        let request = |target: &str, more: &str| {
            format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{more}Connection: close\r\n\r\n")
        };
        let absolute = format!("http://localhost:{admin}{path}");
        assert_eq!(status(server.port, &request(&absolute, "")), 404, "{absolute}");
        for header in ["X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix", "X-Forwarded-Uri"] {
            let with_header = request("/nothing", &format!("{header}: {path}\r\n"));
            assert_eq!(status(server.port, &with_header), 404, "{header}");
        }
        let other_host =
            format!("GET {path} HTTP/1.1\r\nHost: localhost:{admin}\r\nConnection: close\r\n\r\n");
        assert_eq!(status(server.port, &other_host), 404);
    }
    for path in ["/api/v1/admin/tsdb/flush", "/prometheus/api/v1/admin/tsdb/flush"] {
        let post = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(status(server.port, &post), 404, "{path}");
        assert!(status(admin, &post) < 300, "{path}");
    }
    // Data is not on the other, and both can be asked about their health.
    assert_eq!(get(admin, "/api/v1/query?query=1"), 404);
    assert_eq!((get(admin, "/-/ready"), get(server.port, "/-/ready")), (200, 200));
}

#[test]
fn one_client_cannot_take_all_connections() {
    let (server, _dir) = start(&[
        ("LUMINATE_SERVER__LIMITS__MAX_CONNECTIONS_PER_CLIENT", "5"),
        ("LUMINATE_SERVER__LIMITS__HEADER_TIMEOUT", "60s"),
    ]);
    // The connection that saw the server ready may not have ended yet: whatever is there counts.
    let mut all: Vec<TcpStream> = (0..40).map(|_| connect(server.port)).collect();
    let mut closed = 0;
    for stream in &mut all {
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        closed += usize::from(matches!(stream.read(&mut [0]), Ok(0) | Err(_)) && is_closed(stream));
    }
    assert!((35..=36).contains(&closed), "{closed}");
    drop(all);
    // Their places come back.
    wait_for("places to come back", || server.try_get("/-/healthy").is_ok_and(|(status, _)| status == 200));
}

fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

fn start_behind_proxy() -> (Server, tempfile::TempDir) {
    let admin = format!("127.0.0.1:{}", free_port());
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default()
        .env("LUMINATE_SERVER__LIMITS__HEADER_TIMEOUT", "300ms")
        .env("LUMINATE_SERVER__ADMIN_LISTEN", &admin)
        .env("LUMINATE_SERVER__PROXY_PROTOCOL", "v1v2")
        .env("LUMINATE_AUTH__TRUSTED_PROXIES", "127.0.0.0/8");
    options.quiet = true;
    let server = Server::spawn(dir.path(), &options);
    let port: u16 = admin.rsplit(':').next().unwrap().parse().unwrap();
    // The other listener takes no such header.
    wait_for("the server to be ready", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok() && get(port, "/-/ready") == 200
    });
    (server, dir)
}

#[test]
fn a_proxy_header_is_read_from_trusted_proxies_only_and_they_have_to_send_it() {
    let request = "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let header = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
    let (behind, _dir) = start_behind_proxy();
    assert_eq!(status(behind.port, &format!("{header}{request}")), 200);
    assert_eq!(ask(behind.port, request.as_bytes()), "");
    assert_eq!(ask(behind.port, format!("PROXY TCP4 x\r\n{request}").as_bytes()), "");
    let (open, _dir) = start(&[]);
    assert_eq!(status(open.port, &format!("{header}{request}")), 400);
}

/// Frames of HTTP/2.
mod frames {
    pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const CONTINUATION: u8 = 9;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;

    pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// The head of a request, by the static table and literals that are not indexed.
    pub fn head(method: u8, path: &str) -> Vec<u8> {
        let mut block = vec![method, 0x86, 0x01, 9];
        block.extend(b"localhost");
        block.extend([0x04, u8::try_from(path.len()).unwrap()]);
        block.extend(path.as_bytes());
        block
    }

    pub const GET: u8 = 0x82;
    pub const POST: u8 = 0x83;
}

/// Opens HTTP/2 and sends `flood` over and over, until the server hangs up; it has to.
#[track_caller]
fn flood(server: &Server, first: &[u8], mut next: impl FnMut(u32) -> Vec<u8>) {
    let mut stream = connect(server.port);
    stream.write_all(frames::PREFACE).unwrap();
    stream.write_all(&frames::frame(frames::SETTINGS, 0, 0, &[])).unwrap();
    stream.write_all(first).unwrap();
    let mut reader = stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || until_closed(&mut reader));
    for i in 0..2_000_000 {
        if reading.is_finished() || stream.write_all(&next(i)).is_err() {
            break;
        }
    }
    reading.join().unwrap();
    assert_eq!(get(server.port, "/-/healthy"), 200);
}

#[test]
fn streams_that_are_opened_and_reset_end_the_connection() {
    use frames::{END_HEADERS, END_STREAM, GET, HEADERS, RST_STREAM, frame, head};
    let (server, _dir) = start(&[]);
    flood(&server, b"", |i| {
        (0..50)
            .flat_map(|j| {
                let stream = (i * 50 + j) * 2 + 1;
                let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head(GET, "/api/v1/labels"));
                [open, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
            })
            .collect()
    });
}

#[test]
fn a_head_that_never_ends_ends_the_connection() {
    use frames::{CONTINUATION, GET, HEADERS, frame, head};
    let (server, _dir) = start(&[]);
    let mut literal = vec![0x00, 3];
    literal.extend(b"x-a");
    literal.push(100);
    literal.extend([b'a'; 100]);
    let block = literal.repeat(20);
    flood(&server, &frame(HEADERS, 0, 1, &head(GET, "/")), |_| frame(CONTINUATION, 0, 1, &block));
    // The same with nothing in it.
    flood(&server, &frame(HEADERS, 0, 1, &head(GET, "/")), |_| frame(CONTINUATION, 0, 1, &[]));
}

#[test]
fn data_with_nothing_in_it_ends_the_connection() {
    use frames::{DATA, END_HEADERS, HEADERS, POST, frame, head};
    let (server, _dir) = start(&[("LUMINATE_SERVER__LIMITS__BODY_TIMEOUT", "60s")]);
    let open = frame(HEADERS, END_HEADERS, 1, &head(POST, "/api/v1/labels"));
    flood(&server, &open, |_| frame(DATA, 0, 1, &[]));
}

#[test]
fn a_peer_of_http_2_that_breaks_the_rules_is_dropped() {
    use frames::{DATA, END_HEADERS, END_STREAM, GET, HEADERS, PING, frame, head};
    let (server, _dir) = start(&[]);
    // Data of no stream; a head on an even stream; a ping of the wrong size; a frame larger than agreed.
    flood(&server, &frame(DATA, 0, 1, b"x"), |_| Vec::new());
    flood(&server, &frame(HEADERS, END_HEADERS | END_STREAM, 2, &head(GET, "/")), |_| Vec::new());
    flood(&server, &frame(PING, 0, 0, &[0; 7]), |_| Vec::new());
    flood(&server, &frame(HEADERS, END_HEADERS, 1, &vec![0; 20_000]), |_| Vec::new());
}
