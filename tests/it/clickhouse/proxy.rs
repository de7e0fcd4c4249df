//! What can happen to a connection between us and a server: a proxy that does it on purpose.
//!
//! A [`Mode`] is how the way is now: open, slow, silent or closed. A [`Fault`] is one accident that waits
//! for a request that holds a text, and cuts its connection so far into the request or into its answer.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
};

/// How the way to the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bytes go through.
    Pass,
    /// Each request waits so long before it is sent on.
    Delay(Duration),
    /// Nothing goes through and nothing is cut; when that ends, what was said goes on.
    Silent,
    /// Nobody listens, and what was connected is cut.
    Refuse,
}

/// An accident that waits for its request.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// What the request holds in its first bytes, such as `INSERT`.
    pub holding: &'static str,
    /// Where its connection is cut.
    pub cut: Cut,
    /// How often.
    pub times: usize,
}

/// Where a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// When so many bytes of the request have been sent on.
    Request(u64),
    /// When so many bytes of the answer have come back: the request is carried out.
    Answer(u64),
}

/// A proxy to one server, on a port of its own; gone when dropped.
#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Turned to cut the connections on which nobody waits for an answer.
    idle_cuts: watch::Sender<u64>,
    faults: Mutex<Vec<Fault>>,
    cuts: AtomicU64,
}

impl Proxy {
    /// Starts one to `http://127.0.0.1:port`.
    pub fn start(upstream: &str) -> Self {
        let upstream = upstream.trim_start_matches("http://").parse().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            mode: watch::Sender::new(Mode::Pass),
            idle_cuts: watch::Sender::new(0),
            faults: Mutex::default(),
            cuts: AtomicU64::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let (tell_port, port) = std::sync::mpsc::channel();
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                    tell_port.send(listener.local_addr().unwrap().port()).unwrap();
                    tokio::select! {
                        () = listen(listener, shared) => {}
                        _ = stopped => {}
                    }
                });
            }
        });
        Self { port: port.recv().unwrap(), shared, stop: Some(stop), thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Changes how the way is, and returns when nobody can connect who should not.
    pub fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
        let listens = mode != Mode::Refuse;
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() != listens {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets an accident happen to the next requests that it fits.
    pub fn fault(&self, fault: Fault) {
        self.shared.faults.lock().unwrap().push(fault);
    }

    /// Closes, as a server does that is tired of waiting, the connections whose last answer has begun or is over.
    pub fn cut_idle(&self) {
        self.shared.idle_cuts.send_modify(|turn| *turn += 1);
    }

    /// Accidents that happened.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Nobody receives it if the thread is gone already.
        let _ = self.stop.take().unwrap().send(());
        let _ = self.thread.take().unwrap().join();
    }
}

/// Accepts, except while the way is closed.
async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    let mut mode = shared.mode.subscribe();
    loop {
        let now = *mode.borrow_and_update();
        match &listener {
            Some(_) if now == Mode::Refuse => listener = None,
            Some(open) => tokio::select! {
                accepted = open.accept() => {
                    let Ok((client, _)) = accepted else { continue };
                    // An error is the end of a connection, which its two ends see themselves.
                    tokio::spawn(carry(client, Arc::clone(&shared)));
                }
                changed = mode.changed() => changed.unwrap(),
            },
            None if now == Mode::Refuse => mode.changed().await.unwrap(),
            None => match TcpListener::bind(address).await {
                Ok(again) => listener = Some(again),
                // A connection from this very port may still be closing.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            },
        }
    }
}

/// What is going on in one connection.
#[derive(Debug, Default)]
struct Exchange {
    /// Whether a request was sent on that has no answer yet.
    waiting: bool,
    /// The accident of this request, if one waits for it.
    cut: Option<Cut>,
    /// Bytes of the request sent on, and of its answer.
    sent: u64,
    answered: u64,
}

/// Carries one connection's bytes until an end, an accident or a closed way.
async fn carry(mut client: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let mut mode = shared.mode.subscribe();
    let mut idle_cuts = shared.idle_cuts.subscribe();
    idle_cuts.mark_unchanged();
    if open(&mut mode).await.is_err() {
        return reset(client);
    }
    let mut server = TcpStream::connect(shared.upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut request, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut exchange = Exchange::default();
    loop {
        let cut = tokio::select! {
            read = client.read(&mut request) => {
                let bytes = &request[..read?];
                if bytes.is_empty() {
                    return Ok(());
                }
                if !exchange.waiting || exchange.answered > 0 {
                    exchange = Exchange { waiting: true, cut: take_fault(&shared, bytes), ..Exchange::default() };
                    let now = *mode.borrow();
                    if let Mode::Delay(delay) = now {
                        tokio::time::sleep(delay).await;
                    }
                }
                if open(&mut mode).await.is_err() {
                    return reset(client);
                }
                let limit = if let Some(Cut::Request(limit)) = exchange.cut { Some(limit) } else { None };
                let part = within(bytes, exchange.sent, limit);
                server.write_all(part).await?;
                exchange.sent += part.len() as u64;
                part.len() < bytes.len() || limit == Some(exchange.sent)
            }
            read = server.read(&mut answer) => {
                let bytes = &answer[..read?];
                if bytes.is_empty() {
                    return Ok(());
                }
                if open(&mut mode).await.is_err() {
                    return reset(client);
                }
                let limit = if let Some(Cut::Answer(limit)) = exchange.cut { Some(limit) } else { None };
                let part = within(bytes, exchange.answered, limit);
                client.write_all(part).await?;
                exchange.answered += part.len() as u64;
                part.len() < bytes.len() || limit == Some(exchange.answered)
            }
            changed = mode.changed() => {
                if changed.is_err() || *mode.borrow_and_update() == Mode::Refuse {
                    return reset(client);
                }
                false
            }
            _ = idle_cuts.changed() => {
                if !exchange.waiting || exchange.answered > 0 {
                    return Ok(());
                }
                false
            }
        };
        if cut {
            shared.cuts.fetch_add(1, Ordering::SeqCst);
            return reset(client);
        }
    }
}

/// Waits until the way is no longer silent; an error if it is closed.
async fn open(mode: &mut watch::Receiver<Mode>) -> Result<(), ()> {
    match *mode.wait_for(|mode| *mode != Mode::Silent).await.map_err(drop)? {
        Mode::Refuse => Err(()),
        Mode::Pass | Mode::Delay(_) | Mode::Silent => Ok(()),
    }
}

/// How much of `bytes` may go on when `before` bytes went.
fn within(bytes: &[u8], before: u64, limit: Option<u64>) -> &[u8] {
    let room = limit.map_or(u64::MAX, |limit| limit - before);
    &bytes[..bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX))]
}

/// The accident that waits for a request that begins with these bytes.
fn take_fault(shared: &Shared, bytes: &[u8]) -> Option<Cut> {
    let mut faults = shared.faults.lock().unwrap();
    let holds = |fault: &Fault| bytes.windows(fault.holding.len()).any(|w| w == fault.holding.as_bytes());
    let at = faults.iter().position(holds)?;
    let cut = faults[at].cut;
    faults[at].times -= 1;
    if faults[at].times == 0 {
        faults.remove(at);
    }
    Some(cut)
}

/// Ends a connection so that its client sees a reset.
fn reset(client: TcpStream) -> io::Result<()> {
    client.set_zero_linger()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::{TcpListener, TcpStream},
        sync::mpsc,
    };

    use super::*;

    /// A server that answers each line with the line, and tells us of it.
    fn echo() -> (String, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (heard, hear) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let heard = heard.clone();
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(stream);
                    let mut line = String::new();
                    while lines.read_line(&mut line).is_ok_and(|n| n > 0) {
                        // Fail once the test is over.
                        let _ = lines.get_mut().write_all(line.as_bytes());
                        let _ = heard.send(std::mem::take(&mut line));
                    }
                });
            }
        });
        (url, hear)
    }

    fn say(stream: &mut TcpStream, line: &str) -> io::Result<String> {
        stream.write_all(line.as_bytes())?;
        let mut answer = vec![0; line.len()];
        stream.read_exact(&mut answer)?;
        Ok(String::from_utf8(answer).unwrap())
    }

    #[test]
    fn a_connection_is_cut_where_it_was_asked() {
        let (url, hear) = echo();
        let proxy = Proxy::start(&url);
        let connect = || TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        let mut stream = connect();
        assert_eq!(say(&mut stream, "one\n").unwrap(), "one\n");
        assert_eq!(hear.recv().unwrap(), "one\n");

        proxy.fault(Fault { holding: "two", cut: Cut::Request(3), times: 1 });
        assert_eq!(say(&mut stream, "still one\n").unwrap(), "still one\n");
        assert_eq!(hear.recv().unwrap(), "still one\n");
        say(&mut stream, "two hundred\n").unwrap_err();
        assert_eq!(hear.recv().unwrap(), "two", "its first bytes, and then the end");

        proxy.fault(Fault { holding: "three", cut: Cut::Answer(0), times: 2 });
        say(&mut connect(), "three\n").unwrap_err();
        assert_eq!(hear.recv().unwrap(), "three\n", "it was carried out");
        say(&mut connect(), "three\n").unwrap_err();
        assert_eq!(hear.recv().unwrap(), "three\n");
        assert_eq!(say(&mut connect(), "three\n").unwrap(), "three\n");
        assert_eq!(proxy.cuts(), 3);
    }

    #[test]
    fn the_way_closes_and_opens() {
        let (url, hear) = echo();
        let proxy = Proxy::start(&url);
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        assert_eq!(say(&mut stream, "one\n").unwrap(), "one\n");
        hear.recv().unwrap();

        proxy.set(Mode::Silent);
        stream.write_all(b"two\n").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        stream.read_exact(&mut [0; 4]).unwrap_err();
        hear.try_recv().unwrap_err();
        proxy.set(Mode::Pass);
        assert_eq!(hear.recv().unwrap(), "two\n", "what was said goes on");

        proxy.set(Mode::Refuse);
        TcpStream::connect(("127.0.0.1", proxy.port)).unwrap_err();
        proxy.set(Mode::Pass);
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        assert_eq!(say(&mut stream, "three\n").unwrap(), "three\n");

        proxy.cut_idle();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "the end, in good manners");
    }
}
