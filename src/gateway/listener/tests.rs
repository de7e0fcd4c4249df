//! Connections as peers see them: slow, many, silent, cut.

use std::future::ready;

use axum::{
    body::Bytes,
    extract::Request,
    response::Response,
    routing::{get, post},
};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    task::JoinHandle,
};

use super::*;
use crate::gateway::{late::Late, peer::Peer};

fn limits() -> ListenerLimits {
    ListenerLimits {
        header_timeout: Duration::from_millis(150),
        idle_timeout: Duration::from_millis(400),
        linger: Duration::from_millis(20),
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
        .route(
            "/late",
            get(
                async |request: Request| {
                    if request.extensions().get::<Late>().is_some() { "late" } else { "in time" }
                },
            ),
        )
}

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Drained>,
}

async fn start(limits: ListenerLimits) -> Server {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), ListenerConfig::plain(Door::Both, limits))
        .await
        .unwrap();
    let address = listener.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async move {
        let _ = stopped.await;
    };
    let ended = task::spawn("listener under test", serve(listener, router(), shutdown, ready(())));
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
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut buffer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_flag_that_changes_it() {
    let server = start(limits()).await;
    let error =
        Listener::bind(server.address, ListenerConfig::plain(Door::Both, limits())).await.unwrap_err();
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
    let server = start(ListenerLimits { idle_timeout: Duration::from_secs(60), ..limits() }).await;
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
    assert!(read_some(&mut stream).await.starts_with("HTTP/1.1 431"), "431 Request Header Fields Too Large");
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

/// Whether who comes now comes too late.
async fn is_late(address: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).await.unwrap();
    ask(&mut stream, "/late").await;
    read_some(&mut stream).await.ends_with("\r\nlate")
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
async fn who_is_connected_when_a_shutdown_begins_is_answered_still() {
    let long = Duration::from_secs(60);
    let server = start(ListenerLimits { linger: long, idle_timeout: long, ..limits() }).await;
    let mut idle = connect(&server).await;
    ask(&mut idle, "/quick").await;
    assert!(read_some(&mut idle).await.ends_with("quick"));
    let mut silent = connect(&server).await;
    // To the system it is connected, whether we have heard of it or not.
    let waiting = std::net::TcpStream::connect(server.address).unwrap();
    server.stop.send(()).unwrap();
    assert!(!is_late(server.address).await, "who was not told is served, too");
    waiting.set_nonblocking(true).unwrap();
    let mut waiting = TcpStream::from_std(waiting).unwrap();
    for stream in [&mut idle, &mut silent, &mut waiting] {
        ask(stream, "/late").await;
        assert!(read_some(stream).await.ends_with("in time"));
    }
    drop((idle, silent, waiting));
    // Nobody is left, so that nobody is waited for.
    let ended = tokio::time::timeout(Duration::from_secs(30), server.ended).await;
    assert_eq!(ended.unwrap().unwrap(), Drained { cut: 0 });
}

/// A request that is begun and lacks `lf`.
async fn begin_echo(server: &Server) -> TcpStream {
    let mut busy = connect(server).await;
    busy.write_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nha").await.unwrap();
    // It is begun once others are answered after it.
    assert!(!is_late(server.address).await);
    busy
}

#[tokio::test]
async fn who_comes_while_a_request_takes_long_comes_too_late() {
    let server = start(ListenerLimits { grace: Duration::from_secs(60), ..limits() }).await;
    let mut busy = begin_echo(&server).await;
    server.stop.send(()).unwrap();
    while !is_late(server.address).await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    busy.write_all(b"lf").await.unwrap();
    assert!(read_to_end(&mut busy).await.ends_with("half"));
    assert_eq!(server.ended.await.unwrap(), Drained { cut: 0 });
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn what_does_not_finish_within_the_grace_is_cut() {
    let server = start(ListenerLimits { grace: Duration::from_millis(20), ..limits() }).await;
    let mut busy = begin_echo(&server).await;
    server.stop.send(()).unwrap();
    assert_eq!(server.ended.await.unwrap(), Drained { cut: 1 });
    assert_eq!(read_to_end(&mut busy).await, "");
}

/// Asks for what [`endless`] answers, and for nothing more.
const ASKS_TO_CLOSE: &[u8] = b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// An answer of 64 MiB, which no socket takes at once.
fn endless() -> Router {
    Router::new().route("/big", get(async || vec![0_u8; 64 << 20])).route(
        "/who",
        get(async |request: Request| {
            let peer = request.extensions().get::<Peer>().cloned().unwrap();
            format!("{} {} {}", peer.address.ip(), peer.client, peer.trusted_proxy)
        }),
    )
}

async fn start_with(router: Router, config: ListenerConfig) -> Server {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), config).await.unwrap();
    let address = listener.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async move {
        let _ = stopped.await;
    };
    Server {
        address,
        stop,
        ended: task::spawn("listener under test", serve(listener, router, shutdown, ready(()))),
    }
}

/// Reads until the end and gives how much there was.
async fn drink(stream: &mut (impl AsyncReadExt + Unpin), pause: Duration) -> usize {
    let mut all = 0;
    let mut buffer = vec![0; 16 << 10];
    loop {
        match tokio::time::timeout(Duration::from_secs(60), stream.read(&mut buffer)).await.unwrap() {
            Ok(0) | Err(_) => return all,
            Ok(read) => all += read,
        }
        tokio::time::sleep(pause).await;
    }
}

#[tokio::test]
async fn a_peer_that_reads_nothing_is_dropped() {
    let grace = Duration::from_secs(600);
    let limits = ListenerLimits { write_timeout: Duration::from_millis(100), grace, ..limits() };
    let server = start_with(endless(), ListenerConfig::plain(Door::Both, limits)).await;
    let mut stream = connect(&server).await;
    ask(&mut stream, "/big").await;
    read_some(&mut stream).await;
    // The end waits for all connections for longer than the test does.
    server.stop.send(()).unwrap();
    assert_eq!(server.ended.await.unwrap(), Drained { cut: 0 });
    assert!(drink(&mut stream, Duration::ZERO).await < 64 << 20);
}

#[tokio::test]
async fn a_peer_that_reads_too_slowly_is_dropped() {
    let limits = ListenerLimits { request_timeout: Duration::from_millis(300), ..limits() };
    let server = start_with(endless(), ListenerConfig::plain(Door::Both, limits)).await;
    let mut stream = connect(&server).await;
    stream.write_all(ASKS_TO_CLOSE).await.unwrap();
    // With sixteen KiB at a time, a moment each, 64 MiB take longer than that.
    assert!(drink(&mut stream, Duration::from_millis(1)).await < 64 << 20);
}

#[tokio::test]
async fn an_answer_that_may_take_its_time_goes_on_as_long_as_it_flows() {
    // Its end, which lies in the socket, has to be read in that time by a machine that is busy.
    let limits = ListenerLimits { request_timeout: Duration::from_secs(2), ..limits() };
    let mark = async |mut response: Response| {
        response.extensions_mut().insert(Unhurried);
        response
    };
    let streams = endless().layer(axum::middleware::map_response(mark));
    let server = start_with(streams, ListenerConfig::plain(Door::Both, limits)).await;
    let mut stream = connect(&server).await;
    stream.write_all(ASKS_TO_CLOSE).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    assert!(drink(&mut stream, Duration::ZERO).await >= 64 << 20);
}

/// A connection of HTTP/2, whose streams take no more than `window` bytes before they are asked to.
async fn http2(
    server: &Server,
    window: u32,
) -> (http2::SendRequest<Empty<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let stream = connect(server).await;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    (sender, task::spawn("client", connection))
}

fn to(path: &str) -> hyper::Request<Empty<Bytes>> {
    hyper::Request::get(format!("http://localhost{path}")).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn a_stream_whose_window_stays_shut_ends_its_connection() {
    let limits = ListenerLimits { write_timeout: Duration::from_millis(100), ..limits() };
    let server = start_with(endless(), ListenerConfig::plain(Door::Both, limits)).await;
    for window in [0, 1, 100_000] {
        let (mut sender, connection) = http2(&server, window).await;
        let answer = sender.send_request(to("/big")).await.unwrap();
        // The client lives, answers pings, and takes nothing.
        let ended = tokio::time::timeout(Duration::from_secs(60), connection).await;
        assert!(ended.is_ok(), "window {window}");
        drop(answer);
    }
}

#[tokio::test]
async fn an_answer_of_http_2_is_whole_whatever_the_window() {
    let server = start_with(endless(), ListenerConfig::plain(Door::Both, limits())).await;
    let (mut sender, _connection) = http2(&server, 1 << 20).await;
    let answer = sender.send_request(to("/big")).await.unwrap();
    assert_eq!(answer.headers()["content-length"], "67108864");
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), 64 << 20);
}

#[tokio::test]
async fn a_peer_that_gives_up_most_of_what_it_asks_is_dropped() {
    let limits = ListenerLimits { max_given_up: 20, ..limits() };
    let server = start_with(router(), ListenerConfig::plain(Door::Both, limits)).await;
    let (mut sender, connection) = http2(&server, 1 << 20).await;
    let give_up = async {
        loop {
            // As long as the server has not seen it, it cannot be given up.
            if sender.ready().await.is_err() {
                break;
            }
            let asked = sender.send_request(to("/slow"));
            let _ = tokio::time::timeout(Duration::from_millis(20), asked).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), give_up).await.expect("the server hangs up");
    // The client is told, or finds the connection gone.
    let _ = tokio::time::timeout(Duration::from_secs(60), connection).await.unwrap();
}

#[tokio::test]
async fn on_shutdown_a_connection_of_http_2_is_told_to_go_and_finishes() {
    let server = start(limits()).await;
    let (mut sender, connection) = http2(&server, 1 << 20).await;
    let busy = sender.send_request(to("/slow"));
    let busy = task::spawn("busy", busy);
    let mut sender = sender.clone();
    assert_eq!(sender.send_request(to("/quick")).await.unwrap().status(), 200);
    server.stop.send(()).unwrap();
    assert_eq!(busy.await.unwrap().unwrap().status(), 200);
    assert_eq!(server.ended.await.unwrap(), Drained { cut: 0 });
    tokio::time::timeout(Duration::from_secs(60), connection).await.unwrap().unwrap().unwrap();
}

fn behind(networks: &[&str], proxy_protocol: bool) -> ListenerConfig {
    let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
    ListenerConfig {
        proxies: Arc::new(TrustedProxies::new(networks)),
        proxy_protocol,
        ..ListenerConfig::plain(Door::Both, limits())
    }
}

async fn who(server: &Server, first: &str, headers: &str) -> String {
    let mut stream = connect(server).await;
    let request = format!("{first}GET /who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_client_is_who_a_trusted_proxy_says_and_nobody_else() {
    let forged = "X-Forwarded-For: 10.9.9.9\r\nForwarded: for=10.9.9.9\r\nX-Real-IP: 10.9.9.9\r\n";
    let open = start_with(endless(), behind(&["10.0.0.0/8"], false)).await;
    assert_eq!(who(&open, "", forged).await, "127.0.0.1 127.0.0.1 false");
    let proxied = start_with(endless(), behind(&["127.0.0.1/32"], false)).await;
    assert_eq!(who(&proxied, "", "").await, "127.0.0.1 127.0.0.1 true");
    assert_eq!(
        who(&proxied, "", "X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\n").await,
        "127.0.0.1 192.0.2.1 true"
    );
    let two = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.1, 127.0.0.1\r\n";
    assert_eq!(who(&proxied, "", two).await, "127.0.0.1 192.0.2.1 true");
}

#[tokio::test]
async fn a_connection_is_from_where_its_first_bytes_say_if_a_trusted_proxy_sent_them() {
    let line = |source: &str| format!("PROXY TCP4 {source} 198.51.100.1 1 2\r\n");
    let forwarded = "X-Forwarded-For: 192.0.2.7\r\n";
    let server = start_with(endless(), behind(&["127.0.0.1/32", "10.0.0.0/8"], true)).await;
    // The proxy that is trusted for connections is not for what its clients write into requests.
    assert_eq!(who(&server, &line("192.0.2.1"), forwarded).await, "192.0.2.1 192.0.2.1 false");
    assert_eq!(who(&server, &line("10.0.0.1"), forwarded).await, "10.0.0.1 192.0.2.7 true");
    // Whoever will not say who they are is not trusted, whichever way they came.
    assert_eq!(who(&server, "PROXY UNKNOWN\r\n", forwarded).await, "127.0.0.1 127.0.0.1 false");
    assert_eq!(who(&server, "", forwarded).await, "");
    let open = start_with(endless(), behind(&["10.0.0.0/8"], true)).await;
    assert_eq!(who(&open, "", forwarded).await, "127.0.0.1 127.0.0.1 false");
    assert_eq!(who(&open, &line("10.0.0.1"), "").await, "");
}

#[tokio::test]
async fn connections_of_one_client_have_a_bound_that_proxies_have_not() {
    let limits = ListenerLimits { max_connections_per_client: 1, ..limits() };
    let capped = ListenerConfig { limits: limits.clone(), ..behind(&["10.0.0.0/8"], false) };
    let server = start_with(router(), capped).await;
    let mut first = connect(&server).await;
    ask(&mut first, "/quick").await;
    assert!(read_some(&mut first).await.ends_with("quick"));
    assert_eq!(read_to_end(&mut connect(&server).await).await, "");
    let server = start_with(router(), ListenerConfig { limits, ..behind(&["127.0.0.0/8"], false) }).await;
    let mut several = [connect(&server).await, connect(&server).await];
    for stream in &mut several {
        ask(stream, "/quick").await;
        assert!(read_some(stream).await.ends_with("quick"));
    }
}
