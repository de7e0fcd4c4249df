//! Limits on the wire: what becomes of connections whose requests are refused, and of rates under a flood.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::server::{Options, Server, now_ms, remote_write};

fn server(dir: &std::path::Path, limits: &[(&str, &str)]) -> Server {
    let options = limits.iter().fold(Options::default(), |options, (limit, value)| {
        options.env(&format!("LUMINATE_LIMITS__DEFAULTS__{}", limit.to_uppercase()), value)
    });
    Server::start(dir, &options)
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

fn head(length: &str) -> String {
    format!(
        "POST /api/v1/write HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n\
         Content-Encoding: snappy\r\n{length}\r\n\r\n"
    )
}

/// Reads one answer and leaves the connection as it is; gives the status and the head.
fn answer(stream: &mut TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head)
}

fn one_sample(n: i64) -> Vec<u8> {
    let labels = vec![("__name__".to_owned(), "up".to_owned())];
    remote_write(&[(labels, vec![(now_ms() + n, 1.0)])])
}

#[test]
fn a_refused_small_body_leaves_the_connection_as_good_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &[("write_requests_per_second", "1"), ("write_requests_burst", "2")]);
    let mut stream = connect(&server);
    let body = one_sample(0);
    let mut statuses = Vec::new();
    // At once, so that the body is there with the head however busy the machine is.
    let request = [head(&format!("Content-Length: {}", body.len())).as_bytes(), &body].concat();
    for _ in 0..20 {
        stream.write_all(&request).unwrap();
        let (status, head) = answer(&mut stream);
        assert_eq!(head.contains("retry-after: 1\r\n"), status == 429, "{head}");
        assert!(!head.contains("connection: close"), "{head}");
        statuses.push(status);
    }
    assert_eq!(statuses[..2], [204, 204]);
    assert!(statuses.contains(&429), "{statuses:?}");
    // Who waits as told is let in, on the same connection.
    std::thread::sleep(Duration::from_secs(1));
    stream.write_all(&request).unwrap();
    assert_eq!(answer(&mut stream).0, 204);
    let (_, metrics) = server.get("/metrics");
    let line = metrics.lines().find(|line| {
        line.starts_with("luminate_rate_limit_exceeded_total{limit=\"write_requests_per_second\"}")
    });
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(line.is_some_and(|line| line.ends_with(&format!(" {refused}.0"))), "{line:?} {refused}");
}

#[test]
fn a_refused_large_body_does_not_cost_its_sender_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &[("write_requests_per_second", "0")]);
    // All of it is sent before the answer is looked at: a reset would lose it.
    for length in ["Content-Length: 3000000", "Transfer-Encoding: chunked"] {
        for _ in 0..5 {
            let mut stream = connect(&server);
            stream.write_all(head(length).as_bytes()).unwrap();
            let mut sent = 0;
            while sent < 3_000_000 {
                if length.starts_with("T") {
                    stream.write_all(b"2710\r\n").unwrap();
                }
                stream.write_all(&[b'x'; 10_000]).unwrap();
                if length.starts_with("T") {
                    stream.write_all(b"\r\n").unwrap();
                }
                sent += 10_000;
            }
            let (status, head) = answer(&mut stream);
            assert_eq!(status, 400, "{head}");
            assert!(head.contains("connection: close"), "{head}");
            let mut rest = Vec::new();
            // The end, or a reset after it: nothing more comes.
            let _ = stream.read_to_end(&mut rest);
            assert!(rest.is_empty());
        }
    }
}

#[test]
fn who_announces_much_and_sends_nothing_is_answered_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &[("write_requests_per_second", "0")]);
    let mut stream = connect(&server);
    stream.write_all(head("Content-Length: 30000000").as_bytes()).unwrap();
    let began = Instant::now();
    let (status, head) = answer(&mut stream);
    assert_eq!(status, 400, "{head}");
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn what_is_let_through_in_a_flood_is_the_rate_and_who_obeys_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &[("samples_per_second", "20"), ("samples_burst", "200")]);
    let label = |n: usize| vec![("__name__".to_owned(), "up".to_owned()), ("n".to_owned(), n.to_string())];
    let batch = |turn: i64| {
        let series: Vec<_> = (0..20).map(|n| (label(n), vec![(now_ms() - 60_000 + turn, 1.0)])).collect();
        remote_write(&series)
    };
    let began = Instant::now();
    let (mut admitted, mut refused) = (0_u32, 0_u32);
    // However slow the machine is, ten writes come faster than ten seconds' samples.
    while refused < 20 {
        match server.try_write(&batch(i64::from(admitted)), None).unwrap().0 {
            204 => admitted += 20,
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    let allowed = 200.0 + 20.0 * began.elapsed().as_secs_f64();
    assert!((200.0..=allowed).contains(&f64::from(admitted)), "{admitted} of {allowed}");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(server.try_write(&batch(5000), None).unwrap().0, 204);
    let told = server.api("/api/v1/status/rejections", &[]);
    assert_eq!(told[0]["reason"], "samples_per_second");
    assert_eq!(told[0]["count"], refused);
}
