//! An issuer of keys on this machine, which can be asked, changed and broken.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

#[derive(Debug, Default)]
struct State {
    answers: Mutex<BTreeMap<String, Answer>>,
    asked: AtomicU64,
    held: Mutex<bool>,
    released: Condvar,
}

#[derive(Clone, Debug)]
struct Answer {
    head: String,
    body: Vec<u8>,
}

/// A server of documents; what is not there is 404.
#[derive(Debug)]
pub(super) struct Issuer {
    scheme: &'static str,
    address: SocketAddr,
    state: Arc<State>,
}

impl Issuer {
    pub(super) fn start() -> Self {
        Self::serve("http", |stream, state| {
            answer(&stream, state)?;
            stream.shutdown(Shutdown::Write)?;
            (&stream).read_to_end(&mut Vec::new()).map(drop)
        })
    }

    /// The same behind TLS, with this certificate and its key.
    pub(super) fn start_tls(certificate: &rcgen::Certificate, key: &rcgen::KeyPair) -> Self {
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .unwrap();
        let config = Arc::new(config);
        Self::serve("https", move |stream, state| {
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            answer(&mut stream, state)?;
            stream.conn.send_close_notify();
            stream.flush()
        })
    }

    fn serve(
        scheme: &'static str,
        speak: impl Fn(TcpStream, &State) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let serving = Arc::clone(&state);
        let speak = Arc::new(speak);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, state, speak) = (stream.unwrap(), Arc::clone(&serving), Arc::clone(&speak));
                // Who hangs up early is no failure of the test.
                std::thread::spawn(move || speak(stream, &state).ok());
            }
        });
        Self { scheme, address, state }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// How often anything was asked for.
    pub(super) fn asked(&self) -> u64 {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// Publishes these keys at `/jwks`.
    pub(super) fn publish(&self, keys: &[Value]) {
        self.put("/jwks", "200 OK", &json!({"keys": keys}).to_string());
    }

    pub(super) fn put(&self, path: &str, status: &str, body: &str) {
        self.put_with(path, status, "", body.as_bytes());
    }

    pub(super) fn put_with(&self, path: &str, status: &str, headers: &str, body: &[u8]) {
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
        self.state.answers.lock().unwrap().insert(path.to_owned(), Answer { head, body: body.to_owned() });
    }

    /// Answers nobody until it is released.
    pub(super) fn hold(&self) {
        *self.state.held.lock().unwrap() = true;
    }

    pub(super) fn release(&self) {
        *self.state.held.lock().unwrap() = false;
        self.state.released.notify_all();
    }
}

fn answer(mut stream: impl Read + Write, state: &State) -> std::io::Result<()> {
    let mut lines = BufReader::new(&mut stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    drop(lines);
    state.asked.fetch_add(1, Ordering::SeqCst);
    drop(state.released.wait_while(state.held.lock().unwrap(), |held| *held).unwrap());
    let path = first.split(' ').nth(1).unwrap_or_default();
    let answer = state.answers.lock().unwrap().get(path).cloned();
    match answer {
        Some(answer) => {
            stream.write_all(answer.head.as_bytes())?;
            stream.write_all(&answer.body)?;
        }
        None => {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")?
        }
    }
    stream.flush()
}
