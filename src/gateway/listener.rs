//! Connections: who may hold one, for how long, and how they end.
//!
//! hyper speaks HTTP/1 and HTTP/2 on every connection; the bounds around it are ours:
//!
//! * **How many.** Above `max_connections` nothing is accepted, and callers wait in the kernel's queue.
//! * **How slow.** [`Guarded`] watches the socket. Between requests a connection may be silent for
//!   `idle_timeout`; once a request has begun, its head must be there within `header_timeout`; and a
//!   peer that stops reading its answer is dropped after `write_timeout`. (How long a body may take
//!   is the business of whoever reads it.)
//! * **How big.** Heads above `max_header_bytes` are answered 431 by hyper.
//! * **How it ends.** On shutdown the port closes at once, every connection finishes the request it
//!   is in, and those that do not within `grace` are cut.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, body::Body, http::Request};
use futures_util::task::AtomicWaker;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Sleep,
};
use tower::ServiceExt;

use crate::task;

/// How long to wait before accepting again after the system refused (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds on connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Connections open at one time.
    pub max_connections: usize,
    /// The largest head of a request, in bytes.
    pub max_header_bytes: usize,
    /// The most headers of a request.
    pub max_headers: usize,
    /// How long a request's head may take once it has begun.
    pub header_timeout: Duration,
    /// How long a connection may be silent between requests.
    pub idle_timeout: Duration,
    /// How long a peer may take to read on.
    pub write_timeout: Duration,
    /// Requests at one time on one HTTP/2 connection.
    pub max_streams: u32,
    /// How long requests may take to finish after the shutdown has begun.
    pub grace: Duration,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_header_bytes: 64 * 1024,
            max_headers: 100,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            write_timeout: Duration::from_secs(60),
            max_streams: 256,
            grace: Duration::from_secs(30),
        }
    }
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else has the port.
    #[error(
        "cannot listen on {address}: port {} is taken; stop what is using it or choose another with --listen",
        address.port()
    )]
    PortTaken {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The system refused otherwise.
    #[error("cannot listen on {address} (--listen): {source}")]
    Refused {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A port that is ours, not yet served.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    limits: ListenerLimits,
}

/// How a listener ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut because their requests did not finish in time.
    pub cut: usize,
}

impl Listener {
    /// Takes the port.
    pub async fn bind(address: SocketAddr, limits: ListenerLimits) -> Result<Self, ListenError> {
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::PortTaken { address },
            _ => ListenError::Refused { address, source },
        };
        let socket = TcpListener::bind(address).await.map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        Ok(Self { socket, address, limits })
    }

    /// Where it listens; with port 0 asked for, the port the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// Serves `router` until `shutdown` is done, and then until the requests at hand are.
pub async fn serve(listener: Listener, router: Router, shutdown: impl Future<Output = ()>) -> Drained {
    let Listener { socket, limits, .. } = listener;
    let limits = Arc::new(limits);
    let places = Arc::new(Semaphore::new(limits.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let graceful = GracefulShutdown::new();
    let (cut_all, cut) = watch::channel(false);

    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let (stream, place) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&socket, &places) => accepted,
        };
        let connection = serve_connection(
            stream,
            router.clone(),
            Arc::clone(&limits),
            graceful.watcher(),
            cut.clone(),
            place,
        );
        task::spawn("connection", connection);
    }

    drop(socket);
    drop(cut);
    let open = graceful.count();
    let mut drained = std::pin::pin!(graceful.shutdown());
    if tokio::time::timeout(limits.grace, &mut drained).await.is_ok() {
        return Drained { cut: 0 };
    }
    let left = cut_all.receiver_count();
    tracing::warn!(event = "connections_cut", open, left, grace_ms = millis(limits.grace));
    cut_all.send_replace(true);
    drained.await;
    Drained { cut: left }
}

async fn accept(socket: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let place =
        Arc::clone(places).acquire_owned().await.expect("the semaphore of a listener is never closed");
    loop {
        match socket.accept().await {
            Ok((stream, _)) => return (stream, place),
            // These concern the one connection that did not come about.
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                tracing::warn!(event = "accept_failed", %error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    limits: Arc<ListenerLimits>,
    watcher: Watcher,
    mut cut: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    // Answers are written whole; waiting for more to fill a packet only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(event = "nodelay_failed", %error);
    }
    let requests = Arc::new(Requests::default());
    let io = Guarded {
        stream,
        requests: Arc::clone(&requests),
        seen: 0,
        protocol: None,
        reading: Reading::Busy,
        write_deadline: None,
        limits: Arc::clone(&limits),
    };

    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let at_hand = AtHand::begin(&requests);
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            let response = answer.await.unwrap_or_else(|never: Infallible| match never {});
            Ok::<_, Infallible>(response.map(|body| Answering { body, _at_hand: at_hand }))
        }
    });

    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // `Guarded` tells silence between requests from a head that trickles in; hyper does not.
        .header_read_timeout(None)
        .max_headers(limits.max_headers)
        .max_buf_size(limits.max_header_bytes.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.max_streams);

    let connection = watcher.watch(builder.serve_connection(TokioIo::new(io), service).into_owned());
    let outcome = tokio::select! {
        outcome = connection => outcome,
        _ = cut.wait_for(|cut| *cut) => return,
    };
    if let Err(error) = outcome {
        // Peers hang up, time out and talk nonsense all day; none of it is ours to fix.
        tracing::debug!(event = "connection_ended", error);
    }
}

/// The requests of one connection: how many there were, and how many are not answered in full.
#[derive(Debug, Default)]
struct Requests {
    begun: AtomicU64,
    at_hand: AtomicUsize,
    /// Who reads the socket. It read on before the last answer was out, and has to look at the clock
    /// again once it is.
    reader: AtomicWaker,
}

/// A request from its head until the last byte of its answer.
#[derive(Debug)]
struct AtHand(Arc<Requests>);

impl AtHand {
    fn begin(requests: &Arc<Requests>) -> Self {
        requests.begun.fetch_add(1, Ordering::Relaxed);
        requests.at_hand.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(requests))
    }
}

impl Drop for AtHand {
    fn drop(&mut self) {
        if self.0.at_hand.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.reader.wake();
        }
    }
}

/// An answer's body; the request is at hand until it is dropped.
struct Answering {
    body: Body,
    _at_hand: AtHand,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that gives up on peers that keep it waiting.
#[derive(Debug)]
struct Guarded {
    stream: TcpStream,
    requests: Arc<Requests>,
    /// Requests begun when `reading` was last looked at.
    seen: u64,
    /// Known from the first bytes on.
    protocol: Option<Protocol>,
    reading: Reading,
    /// Set while the peer does not take what is written.
    write_deadline: Option<Pin<Box<Sleep>>>,
    limits: Arc<ListenerLimits>,
}

/// What is being waited for when reading.
#[derive(Debug)]
enum Reading {
    /// A request is at hand; its body has its own deadline.
    Busy,
    /// The first byte of the next request.
    Idle(Pin<Box<Sleep>>),
    /// The rest of a request's head.
    Head(Pin<Box<Sleep>>),
}

impl Guarded {
    /// Brings `reading` up to date with the requests, and fails if its deadline is over.
    fn check_deadline(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.requests.reader.register(cx.waker());
        let begun = self.requests.begun.load(Ordering::Relaxed);
        if self.requests.at_hand.load(Ordering::Acquire) > 0 {
            (self.reading, self.seen) = (Reading::Busy, begun);
            return Ok(());
        }
        if begun != self.seen || matches!(self.reading, Reading::Busy) {
            let idle = Box::pin(tokio::time::sleep(self.limits.idle_timeout));
            (self.reading, self.seen) = (Reading::Idle(idle), begun);
        }
        let (deadline, what) = match &mut self.reading {
            Reading::Busy => return Ok(()),
            Reading::Idle(deadline) => (deadline, "no request within the idle timeout"),
            Reading::Head(deadline) => (deadline, "request head not complete within the header timeout"),
        };
        match deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::TimedOut, what)),
            Poll::Pending => Ok(()),
        }
    }

    fn note_bytes_read(&mut self, bytes: &[u8]) {
        let protocol = *self.protocol.get_or_insert_with(|| Protocol::of(bytes));
        match (protocol, &self.reading) {
            (Protocol::Http1, Reading::Idle(_)) => {
                self.reading = Reading::Head(Box::pin(tokio::time::sleep(self.limits.header_timeout)));
            }
            // Here bytes do not mean that a request begins: there are pings and windows.
            (Protocol::Http2, _) | (Protocol::Http1, Reading::Busy | Reading::Head(_)) => {}
        }
    }
}

/// What the peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    /// Tells by the first bytes: HTTP/2 begins with `PRI * HTTP/2.0`, and no method begins so.
    fn of(bytes: &[u8]) -> Self {
        if bytes.starts_with(b"PRI") { Self::Http2 } else { Self::Http1 }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_deadline(cx)?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if let Some(bytes @ [_, ..]) = buffer.filled().get(before..) {
            self.note_bytes_read(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl Guarded {
    /// Lets the peer keep a write waiting only so long.
    fn watch_write<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_deadline = None;
            return written;
        }
        let timeout = self.limits.write_timeout;
        let deadline = self.write_deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        match deadline.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read its answer")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch_write(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::oneshot,
        task::JoinHandle,
    };

    use super::*;

    fn limits() -> ListenerLimits {
        ListenerLimits {
            header_timeout: Duration::from_millis(150),
            idle_timeout: Duration::from_millis(400),
            grace: Duration::from_secs(5),
            ..ListenerLimits::default()
        }
    }

    fn router() -> Router {
        Router::new()
            .route("/quick", get(async || "quick"))
            .route(
                "/slow",
                get(async || {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    "slow"
                }),
            )
            .route("/echo", post(async |body: Bytes| body))
    }

    struct Server {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        ended: JoinHandle<Drained>,
    }

    async fn start(limits: ListenerLimits) -> Server {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), limits).await.unwrap();
        let address = listener.local_addr();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move {
            let _ = stopped.await;
        };
        let ended = task::spawn("listener under test", serve(listener, router(), shutdown));
        Server { address, stop, ended }
    }

    async fn connect(server: &Server) -> TcpStream {
        TcpStream::connect(server.address).await.unwrap()
    }

    async fn read_to_end(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        // A reset is an end like any other here.
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut text)).await.unwrap();
        String::from_utf8(text).unwrap()
    }

    async fn ask(stream: &mut TcpStream, path: &str) {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    }

    async fn read_some(stream: &mut TcpStream) -> String {
        let mut buffer = [0; 4096];
        let read =
            tokio::time::timeout(Duration::from_secs(5), stream.read(&mut buffer)).await.unwrap().unwrap();
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_the_flag_that_changes_it() {
        let server = start(limits()).await;
        let error = Listener::bind(server.address, limits()).await.unwrap_err();
        let port = server.address.port();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot listen on 127.0.0.1:{port}: port {port} is taken; \
                 stop what is using it or choose another with --listen"
            )
        );
    }

    #[tokio::test]
    async fn a_connection_carries_many_requests_and_may_be_silent_between_them() {
        let server = start(limits()).await;
        let mut stream = connect(&server).await;
        for _ in 0..3 {
            ask(&mut stream, "/quick").await;
            assert!(read_some(&mut stream).await.ends_with("quick"));
            // Longer than a head may take, shorter than a silence may.
            tokio::time::sleep(Duration::from_millis(220)).await;
        }
    }

    #[tokio::test]
    async fn a_silent_connection_is_closed() {
        let server = start(limits()).await;
        let mut fresh = connect(&server).await;
        let mut used = connect(&server).await;
        ask(&mut used, "/quick").await;
        assert!(read_some(&mut used).await.ends_with("quick"));
        assert_eq!(read_to_end(&mut fresh).await, "");
        assert_eq!(read_to_end(&mut used).await, "");
    }

    #[tokio::test]
    async fn a_head_that_trickles_in_is_given_up() {
        let server = start(limits()).await;
        let mut stream = connect(&server).await;
        stream.write_all(b"GET /quick HTTP/1.1\r\n").await.unwrap();
        let trickle = async {
            loop {
                tokio::time::sleep(Duration::from_millis(30)).await;
                if stream.write_all(b"X-A: b\r\n").await.is_err() {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(2), trickle).await.expect("the server hangs up");
    }

    #[tokio::test]
    async fn an_answer_may_take_longer_than_a_head() {
        let server = start(limits()).await;
        let mut stream = connect(&server).await;
        ask(&mut stream, "/slow").await;
        assert!(read_some(&mut stream).await.ends_with("slow"));
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_answered() {
        let server = start(ListenerLimits { max_header_bytes: 8192, ..limits() }).await;
        let mut stream = connect(&server).await;
        let head = format!("GET /quick HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "a".repeat(20_000));
        let _ = stream.write_all(head.as_bytes()).await;
        assert!(
            read_some(&mut stream).await.starts_with("HTTP/1.1 431"),
            "431 Request Header Fields Too Large"
        );
    }

    #[tokio::test]
    async fn above_the_limit_a_connection_waits_until_another_ends() {
        let server = start(ListenerLimits { max_connections: 1, ..limits() }).await;
        let first = connect(&server).await;
        let mut second = connect(&server).await;
        ask(&mut second, "/quick").await;
        let early = tokio::time::timeout(Duration::from_millis(100), read_some(&mut second)).await;
        assert!(early.is_err(), "{early:?}");
        drop(first);
        assert!(read_some(&mut second).await.ends_with("quick"));
    }

    #[tokio::test]
    async fn a_shutdown_lets_requests_finish_and_takes_no_new_ones() {
        let server = start(limits()).await;
        let mut busy = connect(&server).await;
        let mut idle = connect(&server).await;
        ask(&mut idle, "/quick").await;
        assert!(read_some(&mut idle).await.ends_with("quick"));
        ask(&mut busy, "/slow").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.stop.send(()).unwrap();

        assert_eq!(read_to_end(&mut idle).await, "");
        assert!(read_to_end(&mut busy).await.ends_with("slow"));
        assert_eq!(server.ended.await.unwrap(), Drained { cut: 0 });
        assert!(TcpStream::connect(server.address).await.is_err());
    }

    #[tokio::test]
    async fn what_does_not_finish_within_the_grace_is_cut() {
        let server = start(ListenerLimits { grace: Duration::from_millis(20), ..limits() }).await;
        let mut busy = connect(&server).await;
        ask(&mut busy, "/slow").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.stop.send(()).unwrap();
        assert_eq!(server.ended.await.unwrap(), Drained { cut: 1 });
        assert_eq!(read_to_end(&mut busy).await, "");
    }
}
