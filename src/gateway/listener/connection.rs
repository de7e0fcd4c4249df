//! One connection from its first byte: what a proxy says of it, TLS, and then HTTP until it ends.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Method, Request, Response, Version, header},
};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::Watcher},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
};
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;

use super::{
    ConnectionCount, ListenerConfig, ListenerLimits, Phase,
    guarded::Guarded,
    places::{ClientPlace, Place, Places},
    proxy_protocol,
    requests::{Answering, AtHand, Manner, Requests, Unhurried},
};
use crate::gateway::{
    late::Late,
    peer::{Peer, PeerCertificate},
};

/// The smallest buffer that hyper takes.
const LEAST_BUFFER: usize = 8192;

/// What all connections of a listener share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: ListenerConfig,
    pub(super) limits: Arc<ListenerLimits>,
    pub(super) places: Places,
    pub(super) router: Router,
    pub(super) count: Arc<ConnectionCount>,
}

/// Serves a connection until it ends, by itself or with the listener.
pub(super) async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    shared: Arc<Shared>,
    watcher: Watcher,
    mut phase: watch::Receiver<Phase>,
    _place: Place,
    late: bool,
) {
    // Answers are written whole; waiting for more to fill a packet only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(event = "nodelay_failed", %error);
    }
    let opening = tokio::time::timeout(shared.limits.header_timeout, open(stream, address, &shared));
    let opened = tokio::select! {
        opened = opening => opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        // There is no request in it yet.
        _ = phase.wait_for(|phase| *phase != Phase::Serving) => return,
    };
    let (stream, peer, _client_place) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            tracing::debug!(event = "connection_refused", %address, %error);
            return;
        }
    };
    let connection = speak(stream, peer, &shared, watcher, late);
    let outcome = tokio::select! {
        outcome = connection => outcome,
        _ = phase.wait_for(|phase| *phase == Phase::Cutting) => return,
    };
    if let Err(error) = outcome {
        // Peers hang up, time out and talk nonsense all day; none of it is ours to fix.
        tracing::debug!(event = "connection_ended", error);
    }
}

/// Finds out who is there, and takes up TLS.
async fn open(
    mut stream: TcpStream,
    address: SocketAddr,
    shared: &Shared,
) -> io::Result<(Stream, Peer, Option<ClientPlace>)> {
    let config = &shared.config;
    let mut peer = Peer::at(address, config.door);
    peer.trusted_proxy = config.proxies.contain(address.ip());
    if peer.trusted_proxy && config.proxy_protocol {
        // One that will not say for whom it calls is taken for nobody special: not for itself either.
        let source = proxy_protocol::read(&mut stream).await?;
        peer = Peer::at(source.unwrap_or(address), config.door);
        peer.trusted_proxy = source.is_some_and(|source| config.proxies.contain(source.ip()));
    }
    let place = if peer.trusted_proxy || config.proxies.contain(peer.client) {
        None
    } else {
        let place = shared.places.take_for(peer.client);
        Some(place.ok_or_else(|| {
            shared.count.refuse();
            io::Error::other("too many connections of one client")
        })?)
    };
    let Some(tls) = &config.tls else {
        return Ok((Stream::Plain(stream), peer, place));
    };
    let stream = tls.acceptor(config.door).accept(stream).await?;
    if let Some([shown, ..]) = stream.get_ref().1.peer_certificates() {
        peer.certificate = Some(Arc::new(PeerCertificate::read(shown).map_err(io::Error::other)?));
    }
    Ok((Stream::Tls(Box::new(stream)), peer, place))
}

/// Speaks HTTP/1 or HTTP/2.
fn speak(
    stream: Stream,
    peer: Peer,
    shared: &Arc<Shared>,
    watcher: Watcher,
    late: bool,
) -> impl Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>> + use<> {
    let limits = &shared.limits;
    let requests = Requests::new();
    let stream = Guarded::new(stream, Arc::clone(&requests), Arc::clone(limits));
    let service = {
        let shared = Arc::clone(shared);
        hyper::service::service_fn(move |mut request: Request<Incoming>| {
            let at_hand = AtHand::begin(&requests);
            if late {
                request.extensions_mut().insert(Late);
            }
            answer(request, peer.clone(), Arc::clone(&shared), at_hand)
        })
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // `Guarded` tells silence between requests from a head that trickles in; hyper does not.
        .header_read_timeout(None)
        .max_headers(limits.max_headers)
        .max_buf_size(limits.max_header_bytes.max(LEAST_BUFFER));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.max_streams)
        .max_pending_accept_reset_streams(limits.max_unseen_resets)
        .max_local_error_reset_streams(limits.max_faulty_resets)
        .keep_alive_interval(limits.ping_interval)
        .keep_alive_timeout(limits.ping_timeout);
    watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned())
}

async fn answer(
    request: Request<Incoming>,
    mut peer: Peer,
    shared: Arc<Shared>,
    at_hand: AtHand,
) -> Result<Response<Answering>, Infallible> {
    if peer.trusted_proxy {
        peer.client = shared.config.proxies.client(peer.client, request.headers());
    }
    let bodiless = request.method() == Method::HEAD;
    // Where a body ends that comes in chunks, a proxy before us may see otherwise, if a length was told, too: hyper
    // has forgotten that. What follows on the connection is then not taken for a request.
    let last =
        request.version() != Version::HTTP_2 && request.headers().contains_key(header::TRANSFER_ENCODING);
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(peer);
    let mut response =
        shared.router.clone().oneshot(request).await.unwrap_or_else(|never: Infallible| match never {});
    if last {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let unhurried = response.extensions().get::<Unhurried>().is_some();
    let within = (!unhurried).then_some(shared.limits.request_timeout);
    Ok(response.map(|body| at_hand.answer(body, Manner { within, bodiless })))
}

/// A connection's bytes.
#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
