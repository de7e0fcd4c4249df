//! A fleet that scrapes itself: realistic series, encoded as remote write 1.0 requests.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// Samples per request, as a Prometheus sends them.
const BATCH: usize = 2000;

/// Milliseconds between two scrapes.
pub const SCRAPE_MS: i64 = 15_000;

/// What is asked of it at one instant.
pub const INSTANT_QUERIES: &[&str] = &["up", "count(up)", "sum by (job) (rate(http_requests_total[5m]))"];

/// What is asked of it over a range.
pub const QUERIES: &[&str] = &[
    r#"node_load1{instance="10.0.1.7:9100"}"#,
    "sum(rate(http_requests_total[5m]))",
    "sum by (code) (rate(http_requests_total[5m]))",
    "histogram_quantile(0.99, sum by (le, job) (rate(http_request_duration_seconds_bucket[5m])))",
    "topk(5, rate(node_network_receive_bytes_total[5m]))",
    "avg by (cluster) (avg_over_time(temperature_celsius[10m]))",
    r#"100 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[5m])) * 100"#,
    r#"sum by (job) (rate(http_requests_total{code=~"5.."}[5m])) / sum by (job) (rate(http_requests_total[5m]))"#,
    r#"max_over_time(node_memory_MemAvailable_bytes{cluster="cluster-1"}[30m])"#,
    "quantile_over_time(0.95, node_load1[15m])",
    r#"count({__name__=~"node_.*"})"#,
];

/// xorshift64*, so that every run writes the same data.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What the fleet is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A bit of everything.
    Mix,
    /// Classic histograms only.
    Histograms,
    /// Each scrape a tenth of the targets come back as another pod.
    Churn,
}

/// How a series' value moves.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A counter of whole things, up to so many a scrape.
    Counter(u64),
    /// A bucket of a histogram, which has what the one before it has, too.
    Bucket,
    /// Seconds with two decimals, rising.
    CpuSeconds,
    /// A percentage with two decimals.
    Gauge,
    /// Bytes in whole pages.
    Bytes,
    /// The same forever.
    Constant,
    /// Full precision, wandering.
    Walk,
}

/// Metric name, how it moves, the label that tells its series apart, and that label's values.
const CATALOGUE: &[(&str, Kind, &str, &[&str])] = &[
    ("http_requests_total", Kind::Counter(40), "code", &["200", "201", "301", "404", "500", "503"]),
    (
        "http_request_duration_seconds_bucket",
        Kind::Bucket,
        "le",
        &["0.005", "0.01", "0.05", "0.1", "0.5", "1", "5", "+Inf"],
    ),
    ("node_cpu_seconds_total", Kind::CpuSeconds, "mode", &["idle", "user", "system", "iowait", "steal"]),
    ("node_network_receive_bytes_total", Kind::Counter(90_000), "device", &["eth0", "eth1", "lo"]),
    ("node_memory_MemAvailable_bytes", Kind::Bytes, "", &[""]),
    ("node_load1", Kind::Gauge, "", &[""]),
    ("node_filesystem_size_bytes", Kind::Constant, "mountpoint", &["/", "/boot", "/var", "/home"]),
    ("process_open_fds", Kind::Counter(2), "", &[""]),
    ("temperature_celsius", Kind::Walk, "sensor", &["cpu", "disk"]),
    ("go_goroutines", Kind::Gauge, "", &[""]),
    ("up", Kind::Constant, "", &[""]),
];

#[derive(Debug)]
struct Series {
    /// Its labels as fields of a `TimeSeries` message.
    labels: Vec<u8>,
    kind: Kind,
    value: f64,
    target: usize,
    /// Its place in the catalogue, and that of its own label's value.
    place: (usize, usize),
}

impl Series {
    /// Its next value; `below` is what the bucket before it has grown by.
    fn step(&mut self, random: &mut Random, below: &mut f64) -> f64 {
        match self.kind {
            Kind::Counter(rate) => self.value += random.below(rate) as f64,
            Kind::Bucket => {
                if self.place.1 == 0 {
                    *below = 0.0;
                }
                if random.below(3) == 0 {
                    *below += random.below(6) as f64;
                }
                self.value += *below;
            }
            Kind::CpuSeconds => self.value = ((self.value + random.unit() * 15.0) * 100.0).round() / 100.0,
            Kind::Gauge => self.value = (random.unit() * 10_000.0).round() / 100.0,
            Kind::Bytes => self.value = ((1 << 20) + random.below(1 << 12)) as f64 * 4096.0,
            Kind::Constant => {}
            Kind::Walk => self.value += random.unit() - 0.5,
        }
        self.value
    }
}

/// Requests ready to be sent, and what they hold.
#[derive(Debug)]
pub struct Load {
    pub requests: Vec<Vec<u8>>,
    pub samples: usize,
    /// Requests of one scrape.
    pub of_a_scrape: usize,
}

/// `series` series of everything over `scrapes` scrapes from `start_ms` on.
pub fn generate(series: usize, scrapes: usize, start_ms: i64) -> Load {
    shaped(Shape::Mix, series, scrapes, start_ms)
}

/// `series` series at a time over `scrapes` scrapes from `start_ms` on.
///
/// A target has its own time within each interval, from which it strays by a few milliseconds now and then.
pub fn shaped(shape: Shape, series: usize, scrapes: usize, start_ms: i64) -> Load {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut all = fleet(shape, series, &mut random);
    let mut requests = Vec::new();
    let mut encoder = snap::raw::Encoder::new();
    for scrape in 0..scrapes {
        let at = start_ms + scrape as i64 * SCRAPE_MS;
        if shape == Shape::Churn && scrape > 0 {
            for series in all.iter_mut().filter(|series| series.target % 10 == scrape % 10) {
                series.labels = labels_of(series.target, scrape, series.place);
            }
        }
        let mut below = 0.0;
        for batch in all.chunks_mut(BATCH) {
            let mut request = Vec::new();
            for series in batch {
                let of_scrape = (series.target as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let chance =
                    Random(of_scrape ^ (scrape as u64 + 1).wrapping_mul(0xd1b5_4a32_d192_ed03)).next();
                let jitter = if chance.is_multiple_of(10) { (chance >> 32) % 3 } else { 0 };
                let at = at + (series.target as i64 * 7_919) % SCRAPE_MS + jitter as i64;
                let mut sample = vec![1 << 3 | 1];
                sample.extend(series.step(&mut random, &mut below).to_le_bytes());
                sample.push(2 << 3);
                varint(&mut sample, at.cast_unsigned());
                request.push(1 << 3 | 2);
                varint(&mut request, (series.labels.len() + 2 + sample.len()) as u64);
                request.extend_from_slice(&series.labels);
                bytes_field(&mut request, 2, &sample);
            }
            requests.push(encoder.compress_vec(&request).expect("snappy takes any input"));
        }
    }
    Load { requests, samples: series * scrapes, of_a_scrape: series.div_ceil(BATCH) }
}

impl Load {
    /// Cut after the first scrape, in which all series begin.
    pub fn first_scrape(mut self) -> (Self, Self) {
        let rest = self.requests.split_off(self.of_a_scrape.min(self.requests.len()));
        let scrapes = (self.requests.len() + rest.len()) / self.of_a_scrape.max(1);
        let series = self.samples / scrapes.max(1);
        let rest = Self { requests: rest, samples: self.samples - series, ..self };
        (Self { samples: series, requests: self.requests, of_a_scrape: self.of_a_scrape }, rest)
    }
}

fn fleet(shape: Shape, wanted: usize, random: &mut Random) -> Vec<Series> {
    let mut all = Vec::with_capacity(wanted);
    for target in 0.. {
        for (number, (_, kind, label, values)) in CATALOGUE.iter().enumerate() {
            if shape == Shape::Histograms && *label != "le" {
                continue;
            }
            for value in 0..values.len() {
                if all.len() == wanted {
                    return all;
                }
                let place = (number, value);
                let begins = match kind {
                    Kind::Bucket => 1_000 * (value as u64 + 1),
                    _ => random.below(100_000),
                };
                let labels = labels_of(target, 0, place);
                all.push(Series { labels, kind: *kind, value: begins as f64, target, place });
            }
        }
    }
    all
}

/// The labels of a target's series, in the pod that it has since a scrape, as fields of a `TimeSeries` message.
fn labels_of(target: usize, since: usize, (number, value): (usize, usize)) -> Vec<u8> {
    let (metric, _, label, values) = CATALOGUE[number];
    let instance = format!("10.{}.{}.{}:9100", target / 62_500, target / 250 % 250, target % 250);
    let pod = (target + since * 65_537) * 7_919 % 1_048_576;
    let mut pairs = vec![
        ("__name__", metric.to_owned()),
        ("cluster", format!("cluster-{}", target % 4)),
        ("instance", instance),
        ("job", ["api", "node", "web"][target % 3].to_owned()),
        ("namespace", format!("team-{}", target % 20)),
        ("pod", format!("service-{}-{pod:05x}", target % 50)),
    ];
    if !label.is_empty() {
        pairs.push((label, values[value].to_owned()));
    }
    pairs.sort();
    let mut labels = Vec::new();
    for (name, value) in &pairs {
        let mut message = Vec::new();
        bytes_field(&mut message, 1, name.as_bytes());
        bytes_field(&mut message, 2, value.as_bytes());
        bytes_field(&mut labels, 1, &message);
    }
    labels
}

fn bytes_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// How sending went.
#[derive(Debug)]
pub struct Sent {
    pub elapsed: Duration,
    pub refused: usize,
    pub latencies: Vec<Duration>,
}

/// Sends everything over `connections` connections, each request as soon as the one before is answered.
pub fn send(load: &Load, port: u16, connections: usize) -> Sent {
    send_paced(load, port, connections, Duration::ZERO)
}

/// The same, but the requests begin `pace` after one another at the earliest.
pub fn send_paced(load: &Load, port: u16, connections: usize, pace: Duration) -> Sent {
    let (next, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let begun = Instant::now();
    let latencies = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..connections)
            .map(|_| {
                scope.spawn(|| {
                    let mut latencies = Vec::new();
                    let mut stream =
                        BufReader::new(TcpStream::connect(("127.0.0.1", port)).expect("the target listens"));
                    stream.get_ref().set_nodelay(true).expect("a socket takes TCP_NODELAY");
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(body) = load.requests.get(number) else { break };
                        let due = begun + pace * u32::try_from(number).expect("there are not so many");
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        let at = Instant::now();
                        if post(&mut stream, body) / 100 != 2 {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        latencies.push(at.elapsed());
                    }
                    latencies
                })
            })
            .collect();
        workers.into_iter().flat_map(|w| w.join().expect("a sender does not panic")).collect()
    });
    Sent { elapsed: begun.elapsed(), refused: refused.into_inner(), latencies }
}

fn post(stream: &mut BufReader<TcpStream>, body: &[u8]) -> u16 {
    let head = format!(
        "POST /api/v1/write HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\
         X-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.get_mut().write_all(head.as_bytes()).expect("the target reads");
    stream.get_mut().write_all(body).expect("the target reads");
    answer(stream).0
}

/// A connection that is kept from one question to the next.
#[derive(Debug)]
pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn to(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the target listens");
        stream.set_nodelay(true).expect("a socket takes TCP_NODELAY");
        stream.set_read_timeout(Some(Duration::from_secs(300))).expect("a socket takes a timeout");
        Self(BufReader::with_capacity(1 << 16, stream))
    }

    /// Asks for `path`: the status, the body, and how long it took.
    pub fn get(&mut self, path: &str) -> (u16, Vec<u8>, Duration) {
        let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        let at = Instant::now();
        self.0.get_mut().write_all(head.as_bytes()).expect("the target reads");
        let (status, body) = answer(&mut self.0);
        (status, body, at.elapsed())
    }
}

/// Asks for `path` on a new connection: the status and the body.
pub fn get(port: u16, method: &str, path: &str) -> std::io::Result<(u16, Vec<u8>)> {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port))?);
    stream.get_ref().set_read_timeout(Some(Duration::from_secs(120)))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.get_mut().write_all(head.as_bytes())?;
    Ok(answer(&mut stream))
}

/// Reads an answer: its status and its body, whole or in chunks.
fn answer(stream: &mut BufReader<TcpStream>) -> (u16, Vec<u8>) {
    let (mut status, mut length, mut chunked) = (0, 0, false);
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).unwrap_or(0) == 0 {
            return (status, Vec::new());
        }
        let text = line.trim_end().to_ascii_lowercase();
        if text.is_empty() {
            break;
        } else if let Some(rest) = text.strip_prefix("http/1.1 ") {
            status = rest.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
        } else if let Some(rest) = text.strip_prefix("content-length:") {
            length = rest.trim().parse().unwrap_or(0);
        } else if text.starts_with("transfer-encoding:") {
            chunked = true;
        }
    }
    let mut body = vec![0; length];
    if chunked {
        loop {
            line.clear();
            let _ = stream.read_line(&mut line);
            let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            let mut chunk = vec![0; size + 2];
            if stream.read_exact(&mut chunk).is_err() || size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else if stream.read_exact(&mut body).is_err() {
        status = 0;
    }
    (status, body)
}
