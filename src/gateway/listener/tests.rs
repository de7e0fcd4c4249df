//! Connections as peers see them: slow, many, silent, cut.

use axum::body::Bytes;
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
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), ListenerConfig::plain(Door::Both, limits))
        .await
        .unwrap();
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
