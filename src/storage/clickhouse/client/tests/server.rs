//! A server that does what a test tells it to, on threads of its own.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What a server does with a request.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// Answers 200, all at once.
    Whole(Vec<u8>),
    /// Answers 200 in these pieces, under this exception tag.
    Pieces(Vec<Vec<u8>>, Option<&'static str>),
    /// Says no with a number of ClickHouse's.
    Fail(u32),
    /// Says no as a proxy does.
    Status(&'static str, &'static str),
    /// Closes the connection without an answer.
    Drop,
    /// Closes it after some of the answer.
    Cut(Vec<u8>),
    /// Sends some of the answer, if there is any, and no more until the client goes away.
    Hang(Vec<u8>),
}

/// What came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) target: String,
    pub(super) headers: String,
    pub(super) body: Vec<u8>,
    pub(super) chunks: usize,
}

impl Request {
    /// A parameter in the address.
    pub(super) fn setting(&self, name: &str) -> Option<String> {
        let query = self.target.split_once('?')?.1;
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        let mut bytes = Vec::new();
        let mut rest = value.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            bytes.push(match first {
                b'+' => b' ',
                b'%' => {
                    let (code, after) = rest.split_at(2);
                    rest = after;
                    u8::from_str_radix(std::str::from_utf8(code).unwrap(), 16).unwrap()
                }
                other => other,
            });
        }
        Some(String::from_utf8(bytes).unwrap())
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn is_probe(&self) -> bool {
        self.setting("log_comment").as_deref() == Some("luminate probe")
    }

    pub(super) fn is_kill(&self) -> bool {
        self.setting("log_comment").as_deref() == Some("luminate kill")
    }
}

type Script = dyn Fn(&Request, usize) -> Answer + Send + Sync;

/// A running server.
pub(super) struct Server {
    pub(super) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    script: Box<Script>,
    tls: Option<Arc<ServerConfig>>,
    seen: Mutex<Vec<Request>>,
    left: AtomicUsize,
    stopped: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl Server {
    /// Starts one; `script` is given each request and how many came before it.
    pub(super) fn start(script: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_at(0, None, script)
    }

    pub(super) fn start_at(
        port: u16,
        tls: Option<Arc<ServerConfig>>,
        script: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            tls,
            seen: Mutex::default(),
            left: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            streams: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Self { port, shared }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The requests so far, but for probes and kills.
    pub(super) fn seen(&self) -> Vec<Request> {
        let seen = self.shared.seen.lock();
        seen.iter().filter(|request| !request.is_probe() && !request.is_kill()).cloned().collect()
    }

    /// The statements that were to be ended.
    pub(super) fn kills(&self) -> Vec<Request> {
        self.shared.seen.lock().iter().filter(|request| request.is_kill()).cloned().collect()
    }

    /// Clients that went away while an answer hung.
    pub(super) fn left(&self) -> usize {
        self.shared.left.load(SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, SeqCst);
        for stream in self.shared.streams.lock().iter() {
            // Fails if the client was faster.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.stopped.load(SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                let closing = stream.try_clone().unwrap();
                shared.streams.lock().push(stream.try_clone().unwrap());
                let shared = Arc::clone(shared);
                thread::spawn(move || {
                    let done = match &shared.tls {
                        None => serve(stream, &shared),
                        Some(config) => ServerConnection::new(Arc::clone(config))
                            .map_err(io::Error::other)
                            .and_then(|tls| serve(StreamOwned::new(tls, stream), &shared)),
                    };
                    // A client may go away whenever it likes.
                    drop(done);
                    // Closing one of several handles would leave the connection open.
                    let _ = closing.shutdown(Shutdown::Both);
                });
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(2)),
            Err(_) => return,
        }
    }
}

fn serve(mut stream: impl Read + Write, shared: &Shared) -> io::Result<()> {
    while let Some(request) = read_request(&mut stream)? {
        let before = {
            let mut seen = shared.seen.lock();
            let ours = seen.iter().filter(|request| !request.is_probe() && !request.is_kill()).count();
            seen.push(request.clone());
            ours
        };
        match (shared.script)(&request, before) {
            Answer::Whole(body) => {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
                stream.write_all(&body)?;
            }
            Answer::Pieces(pieces, tag) => {
                begin(&mut stream, tag)?;
                pieces.iter().try_for_each(|piece| chunk(&mut stream, piece))?;
                stream.write_all(b"0\r\n\r\n")?;
            }
            Answer::Fail(code) => {
                let body = format!("Code: {code}. DB::Exception: injected (INJECTED) (version 26.9)\n");
                let length = body.len();
                write!(
                    stream,
                    "HTTP/1.1 500 Internal Server Error\r\nX-ClickHouse-Exception-Code: {code}\r\n\
                     Content-Length: {length}\r\n\r\n{body}"
                )?;
            }
            Answer::Status(status, body) => {
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
            }
            Answer::Drop => return Ok(()),
            Answer::Cut(body) => {
                begin(&mut stream, None)?;
                chunk(&mut stream, &body)?;
                return stream.flush();
            }
            Answer::Hang(body) => {
                if !body.is_empty() {
                    begin(&mut stream, None)?;
                    chunk(&mut stream, &body)?;
                    stream.flush()?;
                }
                // Nothing more comes from the client but its end.
                let end = stream.read(&mut [0]);
                if !shared.stopped.load(SeqCst) {
                    shared.left.fetch_add(1, SeqCst);
                }
                return end.map(drop);
            }
        }
        stream.flush()?;
    }
    Ok(())
}

fn begin(stream: &mut impl Write, tag: Option<&str>) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n")?;
    if let Some(tag) = tag {
        write!(stream, "X-ClickHouse-Exception-Tag: {tag}\r\n")?;
    }
    stream.write_all(b"\r\n")
}

fn chunk(stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    write!(stream, "{:x}\r\n", bytes.len())?;
    stream.write_all(bytes)?;
    stream.write_all(b"\r\n")?;
    stream.flush()
}

/// The next request; none if the client has closed the connection.
fn read_request(stream: &mut impl Read) -> io::Result<Option<Request>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).map_err(io::Error::other)?;
    let (line, headers) = head.split_once("\r\n").unwrap();
    let target = line.split(' ').nth(1).unwrap().to_owned();
    let headers = headers.to_lowercase();
    let (mut body, mut chunks) = (Vec::new(), 0);
    if headers.contains("transfer-encoding: chunked") {
        loop {
            let mut size = String::new();
            while !size.ends_with("\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                size.push(byte[0].into());
            }
            let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
            let mut piece = vec![0; size + 2];
            stream.read_exact(&mut piece)?;
            if size == 0 {
                break;
            }
            chunks += 1;
            body.extend_from_slice(&piece[..size]);
        }
    } else if let Some(length) = headers.split("content-length: ").nth(1) {
        body = vec![0; length.lines().next().unwrap().parse().map_err(io::Error::other)?];
        stream.read_exact(&mut body)?;
    }
    Ok(Some(Request { target, headers, body, chunks }))
}
