//! What telling callers apart and holding them to their limits costs, and whether the limits hold, on this machine.
//!
//! Three tables:
//!
//! * the processor time of a write request, with nobody asked and no limits, and with a token and every rate limited;
//! * the rate that is let through of each limit when five times as much is sent for ten seconds, and whether one who
//!   waits as told succeeds;
//! * the time of a tenant's requests, alone, and while another sends fifty times what it may.
//!
//! Takes about three minutes. `LUMINATE_BENCH_REQUESTS` and `LUMINATE_BENCH_SECONDS` change the load.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    dead_code,
    unreachable_pub,
    reason = "a measuring program, which uses some of the tests' parts"
)]

#[path = "../it/patience.rs"]
mod patience;
mod process;
#[path = "../it/server.rs"]
mod server;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use process::{cpu_seconds, stop};
use server::{Series, free_port, now_ms, remote_write};

const SECRET: &str = "a secret of a bench that is long enough to be one";

fn main() {
    // `cargo bench` and `cargo test --benches` pass flags that are not for us.
    let setting =
        |name: &str, default: usize| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let requests = setting("LUMINATE_BENCH_REQUESTS", 10_000);
    let time = Duration::from_secs(setting("LUMINATE_BENCH_SECONDS", 10) as u64);
    println!("{} cores, shared with whoever sends\n", std::thread::available_parallelism().unwrap());
    overhead(requests);
    rates(time);
    fairness(time);
}

/// A server with its environment, and what its callers show.
struct Gateway {
    child: Child,
    port: u16,
    bearer: Option<String>,
    _dir: tempfile::TempDir,
}

impl Gateway {
    /// Starts a server that asks for tokens or does not, with these limits for every tenant.
    fn start(with_tokens: bool, limits: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command: Command = server::luminate();
        command
            .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--log.level", "error", "--data-dir"])
            .arg(dir.path())
            .env("LUMINATE_SELF_SCRAPE__ENABLED", "false")
            // A burst is at least what one request may have, and here it is a second's worth.
            .env("LUMINATE_SERVER__LIMITS__MAX_BODY_BYTES", "256KiB")
            // What the disk does is no part of this.
            .env("LUMINATE_STORAGE__EMBEDDED__WAL__SYNC", "os")
            .stdout(Stdio::null());
        for (limit, value) in limits {
            command.env(format!("LUMINATE_LIMITS__DEFAULTS__{}", limit.to_uppercase()), value);
        }
        if with_tokens {
            command.env("LUMINATE_AUTH__MODE", "token").env("LUMINATE_AUTH__JWT__SECRET", SECRET);
            command.env("LUMINATE_AUTH__JWT__AUDIENCE", "bench");
        }
        let child = command.spawn().unwrap();
        let gateway = Self { child, port, bearer: with_tokens.then(token), _dir: dir };
        let began = Instant::now();
        while !gateway.is_ready() {
            assert!(began.elapsed() < Duration::from_secs(60), "the server is not ready after a minute");
            std::thread::sleep(Duration::from_millis(5));
        }
        gateway
    }

    fn is_ready(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok()
            && self.connect("").try_ask("GET", "/-/ready", b"").is_some_and(|answer| answer.status == 200)
    }

    fn connect(&self, tenant: &str) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server listens");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut headers = String::new();
        if let Some(bearer) = &self.bearer {
            headers.push_str(&format!("Authorization: Bearer {bearer}\r\n"));
        }
        if !tenant.is_empty() {
            headers.push_str(&format!("X-Scope-OrgID: {tenant}\r\n"));
        }
        Connection { stream: BufReader::new(stream), port: self.port, headers }
    }

    fn stop(mut self) {
        stop(&mut self.child);
    }
}

/// A token for whatever tenant is named.
fn token() -> String {
    let claims = serde_json::json!({
        "sub": "bench", "tenant": ["bench", "*"], "scope": "write read", "aud": "bench",
        "exp": now_ms() / 1000 + 3600,
    });
    encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// A connection, opened again when the server closes it.
struct Connection {
    stream: BufReader<TcpStream>,
    port: u16,
    headers: String,
}

#[derive(Debug, Default)]
struct Answer {
    status: u16,
    retry_after: Option<u64>,
    written: u64,
    closes: bool,
}

impl Connection {
    fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Answer {
        if let Some(answer) = self.try_ask(method, path, body) {
            if answer.closes {
                self.reconnect();
            }
            return answer;
        }
        self.reconnect();
        self.try_ask(method, path, body).expect("the server answers on a new connection")
    }

    fn reconnect(&mut self) {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server listens");
        stream.set_nodelay(true).unwrap();
        self.stream = BufReader::new(stream);
    }

    fn write(&mut self, body: &[u8]) -> Answer {
        self.ask("POST", "/api/v1/write", body)
    }

    fn try_ask(&mut self, method: &str, path: &str, body: &[u8]) -> Option<Answer> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n\
             Content-Encoding: snappy\r\n{}Content-Length: {}\r\n\r\n",
            self.headers,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request).ok()?;
        let (mut answer, mut length, mut chunked) = (Answer::default(), 0, false);
        let mut line = String::new();
        loop {
            line.clear();
            if self.stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let text = line.trim_end().to_ascii_lowercase();
            match text.split_once(": ") {
                None if text.is_empty() => break,
                None => answer.status = text.split(' ').nth(1)?.parse().ok()?,
                Some(("content-length", value)) => length = value.parse().ok()?,
                Some(("retry-after", value)) => answer.retry_after = value.parse().ok(),
                Some(("connection", value)) => answer.closes = value == "close",
                Some(("transfer-encoding", _)) => chunked = true,
                Some(("x-prometheus-remote-write-samples-written", value)) => {
                    answer.written = value.parse().ok()?;
                }
                Some(_) => {}
            }
        }
        if chunked {
            loop {
                line.clear();
                self.stream.read_line(&mut line).ok()?;
                let size = usize::from_str_radix(line.trim(), 16).ok()?;
                std::io::copy(&mut self.stream.by_ref().take(size as u64 + 2), &mut std::io::sink()).ok()?;
                if size == 0 {
                    return Some(answer);
                }
            }
        }
        std::io::copy(&mut self.stream.by_ref().take(length), &mut std::io::sink()).ok()?;
        Some(answer)
    }
}

/// A request of so many series with a sample each; `first` tells the series apart, and no time comes twice.
fn request(first: u64, series: u64) -> Vec<u8> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let at = now_ms() - 3_600_000 + NEXT.fetch_add(1, Ordering::Relaxed) as i64;
    let series: Vec<Series> = (first..first + series)
        .map(|n| {
            let labels =
                [("__name__", "bench".to_owned()), ("job", "gateway".to_owned()), ("n", n.to_string())];
            (labels.map(|(name, value)| (name.to_owned(), value)).to_vec(), vec![(at, n as f64)])
        })
        .collect();
    remote_write(&series)
}

/// Processor time of a request, by turns, so that what else the machine does falls on both.
fn overhead(requests: usize) {
    let unbounded = [
        ("write_requests_per_second", "1000000000"),
        ("samples_per_second", "1000000000"),
        ("bytes_per_second", "1000GiB"),
        ("queries_per_second", "1000000000"),
        ("max_concurrent_writes", "1000000"),
    ];
    let plain = Gateway::start(false, &[]);
    let guarded = Gateway::start(true, &unbounded);
    let bodies: Vec<_> = (0..requests).map(|_| request(0, 20)).collect();
    let turn = |gateway: &Gateway| {
        let mut connection = gateway.connect("bench");
        let before = cpu_seconds(&gateway.child);
        for body in &bodies {
            assert_eq!(connection.write(body).status, 204);
        }
        (cpu_seconds(&gateway.child) - before) * 1e6 / requests as f64
    };
    // The first turn makes the series and warms caches.
    turn(&plain);
    turn(&guarded);
    let turns: Vec<(f64, f64)> = (0..5).map(|_| (turn(&plain), turn(&guarded))).collect();
    let middle = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let before = middle(turns.iter().map(|(plain, _)| *plain).collect());
    let after = middle(turns.iter().map(|(_, guarded)| *guarded).collect());
    let more = middle(turns.iter().map(|(plain, guarded)| guarded - plain).collect());
    println!("| processor time of a write request (20 samples) | µs |\n|---|---:|");
    println!("| nobody is asked, no limits | {before:.1} |");
    println!("| a token, every rate limited | {after:.1} |");
    println!("| more (at most 20) | {more:.1} |\n");
    plain.stop();
    guarded.stop();
}

/// A rate to be flooded.
struct Flood {
    limit: &'static str,
    value: &'static str,
    rate: u64,
    /// What a request costs of it, and what was let through of one that was answered so.
    cost: fn(&[u8]) -> u64,
    admitted: fn(&[u8], &Answer) -> u64,
    body: fn(u64) -> Vec<u8>,
    path: &'static str,
}

const FLOODS: [Flood; 5] = [
    Flood {
        limit: "write_requests_per_second",
        value: "200",
        rate: 200,
        cost: |_| 1,
        admitted: |_, answer| u64::from(answer.status == 204),
        body: |_| request(0, 5),
        path: "",
    },
    Flood {
        limit: "samples_per_second",
        value: "20000",
        rate: 20_000,
        cost: |_| 100,
        admitted: |_, answer| answer.written,
        body: |_| request(0, 100),
        path: "",
    },
    Flood {
        limit: "bytes_per_second",
        value: "500000B",
        rate: 500_000,
        cost: |body| body.len() as u64,
        admitted: |body, answer| if answer.status == 204 { body.len() as u64 } else { 0 },
        body: |_| request(0, 100),
        path: "",
    },
    Flood {
        limit: "new_series_per_second",
        value: "2000",
        rate: 2000,
        cost: |_| 20,
        admitted: |_, answer| answer.written,
        body: |turn| request(1_000_000 + turn * 20, 20),
        path: "",
    },
    Flood {
        limit: "queries_per_second",
        value: "200",
        rate: 200,
        cost: |_| 1,
        admitted: |_, answer| u64::from(answer.status == 200),
        body: |_| Vec::new(),
        path: "/api/v1/query?query=vector(1)",
    },
];

impl Flood {
    fn send(&self, connection: &mut Connection, body: &[u8]) -> Answer {
        match self.path {
            "" => connection.write(body),
            path => connection.ask("GET", path, b""),
        }
    }
}

/// What is let through of five times as much, and whether who waits as told succeeds.
fn rates(time: Duration) {
    println!(
        "| limit, five times as much sent for {} s | allowed/s | sent | let through/s | off | who obeys |",
        time.as_secs()
    );
    println!("|---|---:|---:|---:|---:|---|");
    for flood in &FLOODS {
        let gateway = Gateway::start(false, &[(flood.limit, flood.value)]);
        let (rate, offered) = overload(&gateway, flood, time);
        let offered = offered / flood.rate as f64;
        let off = (rate / flood.rate as f64 - 1.0) * 100.0;
        println!(
            "| {} | {} | {offered:.1} × | {rate:.1} | {off:+.2} % | {} |",
            flood.limit,
            flood.rate,
            obey(&gateway, flood)
        );
        gateway.stop();
    }
    println!();
}

/// Sends five times as much as is allowed; gives what was let through a second after the burst was drained, and what was
/// really sent.
fn overload(gateway: &Gateway, flood: &Flood, time: Duration) -> (f64, f64) {
    const SENDERS: u64 = 4;
    let size = (flood.cost)(&(flood.body)(0));
    let pace = Duration::from_secs_f64(size as f64 * SENDERS as f64 / (5.0 * flood.rate as f64));
    let (admitted, offered, refused) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let (counting, over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (admitted, offered, refused) = (&admitted, &offered, &refused);
            let (counting, over) = (&counting, &over);
            scope.spawn(move || {
                let mut connection = gateway.connect("a");
                let began = Instant::now();
                let (mut turn, mut sent) = (sender, 0_u32);
                while !over.load(Ordering::Relaxed) {
                    let body = (flood.body)(turn);
                    let answer = flood.send(&mut connection, &body);
                    refused.fetch_or(answer.status == 429, Ordering::Relaxed);
                    if counting.load(Ordering::Relaxed) {
                        offered.fetch_add((flood.cost)(&body), Ordering::Relaxed);
                        admitted.fetch_add((flood.admitted)(&body, &answer), Ordering::Relaxed);
                    }
                    turn += SENDERS;
                    sent += 1;
                    std::thread::sleep((began + pace * sent).saturating_duration_since(Instant::now()));
                }
            });
        }
        // The burst is drained when the first is refused.
        let deadline = Instant::now() + Duration::from_secs(30);
        while !refused.load(Ordering::Relaxed) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(500));
        counting.store(true, Ordering::Relaxed);
        let began = Instant::now();
        std::thread::sleep(time);
        counting.store(false, Ordering::Relaxed);
        let took = began.elapsed();
        over.store(true, Ordering::Relaxed);
        let per_second = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64 / took.as_secs_f64();
        (per_second(&admitted), per_second(&offered))
    })
}

/// Sends until it is refused, waits as told, and sends the same again.
fn obey(gateway: &Gateway, flood: &Flood) -> String {
    let mut connection = gateway.connect("obedient");
    let (mut obeyed, mut succeeded, mut turn) = (0, 0, 10_000_000);
    while obeyed < 2 {
        turn += 1;
        let body = (flood.body)(turn);
        let answer = flood.send(&mut connection, &body);
        let Some(seconds) = answer.retry_after else { continue };
        std::thread::sleep(Duration::from_secs(seconds));
        obeyed += 1;
        let answer = flood.send(&mut connection, &body);
        succeeded += u32::from(answer.status / 100 == 2);
    }
    format!("{succeeded} of {obeyed} succeed")
}

/// How long a tenant's requests take, alone and beside one that sends fifty times its limit.
fn fairness(time: Duration) {
    let gateway = Gateway::start(false, &[("samples_per_second", "20000"), ("queries_per_second", "100")]);
    // Both have series.
    for tenant in ["a", "b"] {
        gateway.connect(tenant).write(&request(0, 2000));
    }
    let measure = || {
        let mut connection = gateway.connect("b");
        let (mut writes, mut queries) = (Vec::new(), Vec::new());
        let began = Instant::now();
        while began.elapsed() < time {
            let body = request(0, 100);
            let at = Instant::now();
            assert_eq!(connection.write(&body).status, 204);
            writes.push(at.elapsed());
            std::thread::sleep(Duration::from_millis(5));
            let at = Instant::now();
            assert_eq!(connection.ask("GET", "/api/v1/query?query=sum(bench)", b"").status, 200);
            queries.push(at.elapsed());
            std::thread::sleep(Duration::from_millis(15));
        }
        [writes, queries].map(|mut times| {
            times.sort();
            times[times.len() * 99 / 100].as_secs_f64() * 1e3
        })
    };
    let alone = measure();
    let over = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    let began = Instant::now();
    let beside = std::thread::scope(|scope| {
        for _ in 0..4 {
            let (gateway, over, sent) = (&gateway, &over, &sent);
            scope.spawn(move || {
                let mut connection = gateway.connect("a");
                let body = request(0, 2000);
                // Four senders of a quarter of a million samples a second.
                let pace = Duration::from_secs(1) / 125;
                let (began, mut turn) = (Instant::now(), 0_u32);
                while !over.load(Ordering::Relaxed) {
                    connection.write(&body);
                    turn += 1;
                    if turn.is_multiple_of(5) {
                        connection.ask("GET", "/api/v1/query?query=sum(bench)", b"");
                    }
                    sent.fetch_add(2000, Ordering::Relaxed);
                    std::thread::sleep((began + pace * turn).saturating_duration_since(Instant::now()));
                }
            });
        }
        let beside = measure();
        over.store(true, Ordering::Relaxed);
        beside
    });
    let times = sent.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64() / 20_000.0;
    println!(
        "| a tenant's p99, ms | alone | beside one that sends {times:.0} times its limit | ratio (at most 1.2) |"
    );
    println!("|---|---:|---:|---:|");
    for (what, (alone, beside)) in ["writes", "queries"].iter().zip(alone.into_iter().zip(beside)) {
        println!("| {what} | {alone:.2} | {beside:.2} | {:.2} |", beside / alone);
    }
    gateway.stop();
}
