//! Clients that keep their connections to gateways, as those within a cluster do: kube-proxy sends a new
//! connection to one of the endpoints, and one that is open stays where it is, whatever the endpoints are.
//!
//! A gateway that stops says with an answer that it is the connection's last (`Connection: close`). A connection that
//! ends without a word may have swallowed a request, and who sent it cannot know; only one on which nothing was asked
//! for a while may, and a client looks before it asks on one.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{
        Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    patience::wait_for,
    server::{Series, api_as, now_ms, remote_write},
};

const CLIENTS: usize = 8;
/// Between a request of a client and its next.
const PAUSE: Duration = Duration::from_millis(20);

/// The clients, and what they have seen.
#[derive(Debug)]
pub struct Kept {
    token: String,
    /// Where samples begin.
    base: i64,
    endpoints: RwLock<Vec<u16>>,
    /// Of each client: how many samples are acknowledged.
    acknowledged: [AtomicU64; CLIENTS],
    requests: AtomicU64,
    /// Connections that were ended with an answer, and those that were while nothing was asked.
    ended: AtomicU64,
    ended_idle: AtomicU64,
    /// What must not be, in words.
    wrong: Mutex<Vec<String>>,
}

impl Kept {
    pub fn new(token: String, endpoints: Vec<u16>) -> Self {
        Self {
            token,
            base: now_ms() - 3_600_000,
            endpoints: RwLock::new(endpoints),
            acknowledged: Default::default(),
            requests: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            ended_idle: AtomicU64::new(0),
            wrong: Mutex::default(),
        }
    }

    /// Sends new connections there.
    pub fn turn_to(&self, ports: &[u16]) {
        *self.endpoints.write().unwrap() = ports.to_vec();
    }

    /// Lets clients work while the story goes on; all their requests are answered, and no connection ends but
    /// with an answer.
    pub fn watch(&self, story: impl FnOnce()) {
        let stop = AtomicBool::new(false);
        let progress = || self.acknowledged.iter().map(|n| n.load(Ordering::SeqCst)).min().unwrap();
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let stop = &stop;
                scope.spawn(move || {
                    for turn in client.. {
                        if stop.load(Ordering::SeqCst) {
                            return;
                        }
                        if let Err(what) = self.talk(client, turn, stop) {
                            self.wrong.lock().unwrap().push(format!("client {client}: {what}"));
                        }
                    }
                });
            }
            // The clients shall end even if the story does not end well.
            let _stop = StopWhenDropped(&stop);
            wait_for("every client to write", || progress() > 0);
            story();
            let before = progress();
            wait_for("every client to get on", || progress() > before);
        });
        let ended = self.ended.load(Ordering::SeqCst);
        println!(
            "{} requests; connections ended: {ended} with an answer, {} while nothing was asked",
            self.requests.load(Ordering::SeqCst),
            self.ended_idle.load(Ordering::SeqCst)
        );
        assert!(ended > 0, "nobody was told to go");
        let wrong = self.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{} times: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    }

    /// All that was acknowledged is there.
    pub fn check(&self, gateway: &str) {
        let at = format!("{}", (now_ms() + 60_000) / 1000);
        for (client, acknowledged) in self.acknowledged.iter().enumerate() {
            let query = format!(r#"count_over_time(kept{{client="{client}"}}[3h])"#);
            let params = [("query", query.as_str()), ("time", &at), ("nocache", "1")];
            let answer = api_as(Some(&self.token), gateway, "/api/v1/query", &params);
            let count = acknowledged.load(Ordering::SeqCst).to_string();
            assert_eq!(answer["result"][0]["value"][1], count.as_str(), "{query}");
        }
    }

    /// Opens a connection and writes and asks on it until the gateway ends it with an answer.
    fn talk(&self, client: usize, turn: usize, stop: &AtomicBool) -> Result<(), String> {
        let port = {
            let endpoints = self.endpoints.read().unwrap();
            endpoints[turn % endpoints.len()]
        };
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|e| format!("connecting: {e}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut stream = BufReader::new(stream);
        while !stop.load(Ordering::SeqCst) {
            if is_ended(stream.get_ref()) {
                self.ended_idle.fetch_add(1, Ordering::SeqCst);
                break;
            }
            let n = self.acknowledged[client].load(Ordering::SeqCst);
            let mut last = self.ask(&mut stream, &self.write(client, n))?;
            self.acknowledged[client].store(n + 1, Ordering::SeqCst);
            if !last {
                last = self.ask(&mut stream, &self.query(client))?;
            }
            if last {
                self.ended.fetch_add(1, Ordering::SeqCst);
                break;
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Sends a request and takes its answer; tells whether it is the connection's last.
    fn ask(&self, stream: &mut BufReader<TcpStream>, request: &[u8]) -> Result<bool, String> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        stream.get_mut().write_all(request).map_err(|e| format!("sending: {e}"))?;
        let (mut status, mut length, mut last) = (None, 0, false);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).map_err(|e| format!("receiving: {e}"))? == 0 {
                return Err("the connection ended under a request".to_owned());
            }
            let line = line.trim_end().to_ascii_lowercase();
            match line.split_once(": ") {
                _ if line.is_empty() => break,
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(("connection", value)) => last = value == "close",
                Some(("transfer-encoding", _)) => return Err("an answer without a length".to_owned()),
                Some(_) => {}
                None => status = line.split(' ').nth(1).map(str::to_owned),
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).map_err(|e| format!("receiving: {e}"))?;
        match status.as_deref() {
            Some("200" | "204") => Ok(last),
            other => Err(format!("{other:?}: {}", String::from_utf8_lossy(&body))),
        }
    }

    /// A write of one sample.
    fn write(&self, client: usize, n: u64) -> Vec<u8> {
        let labels = [("__name__", "kept".to_owned()), ("client", client.to_string())];
        let labels = labels.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let series: Series = (labels, vec![(self.base + i64::try_from(n).unwrap(), n as f64)]);
        let body = remote_write(&[series]);
        let head = format!(
            "POST /api/v1/write HTTP/1.1\r\nHost: luminate\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\
             X-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: {}\r\n\r\n",
            self.token,
            body.len()
        );
        [head.into_bytes(), body].concat()
    }

    fn query(&self, client: usize) -> Vec<u8> {
        let path = format!("/api/v1/query?query=kept%7Bclient%3D%22{client}%22%7D&nocache=1");
        let token = &self.token;
        format!("GET {path} HTTP/1.1\r\nHost: luminate\r\nAuthorization: Bearer {token}\r\n\r\n").into_bytes()
    }
}

/// Whether the other side has closed the connection, as far as we can know.
fn is_ended(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let ended = matches!(stream.peek(&mut [0]), Ok(0));
    stream.set_nonblocking(false).unwrap();
    ended
}

/// Tells the clients to stop, whatever happens.
struct StopWhenDropped<'a>(&'a AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
