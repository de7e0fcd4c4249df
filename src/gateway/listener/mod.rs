//! Connections: who may hold one, for how long, and how they end.
//!
//! ```text
//! a place (places) ─▶ a proxy's word (proxy_protocol, proxies) ─▶ TLS (tls) ─▶ HTTP (connection)
//! ```
//!
//! hyper speaks HTTP/1 and HTTP/2 on every connection; the bounds around it are ours:
//!
//! * **How many.** Above `max_connections` nothing is accepted, and callers wait in the kernel's queue; above
//!   `max_connections_per_client` a connection is closed at once.
//! * **How slow.** [`guarded`] watches the bytes. Between requests a connection may be silent for
//!   `idle_timeout`; once a request has begun, its head must be there within `header_timeout`; a
//!   peer that stops reading its answer is dropped after `write_timeout`, and one that reads it too slowly after
//!   `request_timeout`. (How long a body may take is the business of whoever reads it.)
//! * **How big.** Heads above `max_header_bytes` are answered 431 by hyper.
//! * **How much for nothing.** Who gives up most of what it asks is dropped.
//! * **How it ends.** On shutdown the port closes at once. Who is connected by then is answered still: a proxy may be
//!   about to send a request on any of its idle connections, and cannot tell whether one that breaks was taken. So
//!   for `linger` requests come as before, and each answer of HTTP/1 says that it is the connection's last; then idle
//!   connections are closed, every other finishes the request it is in, and those that do not within `grace` are cut.

mod connection;
mod count;
mod guarded;
mod limits;
mod places;
mod proxies;
mod proxy_protocol;
mod requests;
pub mod tls;

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::routes::Door;
use crate::task;

use connection::Shared;
use count::Open;
use places::{Place, Places};
use tls::Tls;

pub use count::ConnectionCount;
pub use limits::ListenerLimits;
pub use proxies::TrustedProxies;
pub use requests::Unhurried;

/// How long to wait before accepting again after the system refused (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often to look whether anybody is left.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How a listener treats its connections.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// What is behind it.
    pub door: Door,
    /// Bounds on its connections.
    pub limits: ListenerLimits,
    /// Whose word about clients is taken.
    pub proxies: Arc<TrustedProxies>,
    /// Whether they give it by the PROXY protocol, and have to.
    pub proxy_protocol: bool,
    /// TLS, or none.
    pub tls: Option<Arc<Tls>>,
}

impl ListenerConfig {
    /// Plain HTTP, from whoever calls.
    pub fn plain(door: Door, limits: ListenerLimits) -> Self {
        Self { door, limits, proxies: Arc::default(), proxy_protocol: false, tls: None }
    }

    /// What to change if the address will not do.
    fn asked_for_by(&self) -> &'static str {
        match self.door {
            Door::Public | Door::Both => "--listen",
            Door::Admin => "server.admin_listen",
        }
    }
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else has the port.
    #[error(
        "cannot listen on {address}: port {} is taken; stop what is using it or choose another with {by}",
        address.port()
    )]
    PortTaken {
        /// What was asked for.
        address: SocketAddr,
        /// How.
        by: &'static str,
    },
    /// The system refused otherwise.
    #[error("cannot listen on {address} ({by}): {source}")]
    Refused {
        /// What was asked for.
        address: SocketAddr,
        /// How.
        by: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A port that is ours, not yet served.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    config: ListenerConfig,
    count: Arc<ConnectionCount>,
}

/// How a listener ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut because their requests did not finish in time.
    pub cut: usize,
}

/// How far a listener is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Connections come.
    Serving,
    /// Requests at hand are finished.
    Draining,
    /// Whatever is left ends.
    Cutting,
}

impl Listener {
    /// Takes the port.
    pub async fn bind(address: SocketAddr, config: ListenerConfig) -> Result<Self, ListenError> {
        let by = config.asked_for_by();
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::PortTaken { address, by },
            _ => ListenError::Refused { address, by, source },
        };
        let socket = TcpListener::bind(address).await.map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        let count = Arc::new(ConnectionCount::of(config.limits.max_connections));
        Ok(Self { socket, address, config, count })
    }

    /// Its connections, counted.
    pub fn count(&self) -> Arc<ConnectionCount> {
        Arc::clone(&self.count)
    }

    /// Where it listens; with port 0 asked for, the port the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// Serves `router` until `shutdown` is done, and then until the requests at hand are.
pub async fn serve(listener: Listener, router: Router, shutdown: impl Future<Output = ()>) -> Drained {
    let Listener { socket, config, count, .. } = listener;
    let limits = Arc::new(config.limits.clone());
    let places = Places::new(limits.max_connections, limits.max_connections_per_client);
    let (linger, grace) = (limits.linger, limits.grace);
    let shared = Arc::new(Shared { config, limits, places, router, count: Arc::clone(&count) });
    let graceful = GracefulShutdown::new();
    let (turn_phase, phase) = watch::channel(Phase::Serving);
    let begin = |(stream, address, place): (TcpStream, SocketAddr, Place)| {
        let (shared, watcher, phase) = (Arc::clone(&shared), graceful.watcher(), phase.clone());
        let open = Open::one_more(&count);
        task::spawn("connection", async move {
            connection::serve(stream, address, shared, watcher, phase, place).await;
            drop(open);
        });
    };

    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&socket, &shared.places) => begin(accepted),
        }
    }
    accept_waiting(socket, &shared.places).into_iter().for_each(begin);
    wait_for_last_requests(&graceful, linger).await;

    drop(phase);
    turn_phase.send_replace(Phase::Draining);
    let open = graceful.count();
    let mut drained = std::pin::pin!(graceful.shutdown());
    if tokio::time::timeout(grace, &mut drained).await.is_ok() {
        return Drained { cut: 0 };
    }
    let left = turn_phase.receiver_count();
    tracing::warn!(event = "connections_cut", open, left, grace_ms = millis(grace));
    turn_phase.send_replace(Phase::Cutting);
    drained.await;
    Drained { cut: left }
}

async fn accept(socket: &TcpListener, places: &Places) -> (TcpStream, SocketAddr, Place) {
    let place = places.take().await;
    loop {
        match socket.accept().await {
            Ok((stream, address)) => return (stream, address, place),
            // These concern the one connection that did not come about.
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                tracing::warn!(event = "accept_failed", %error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Closes the port, and takes those connections that wait for us in the kernel's queue: to them it looks as if
/// we had taken them already.
fn accept_waiting(socket: TcpListener, places: &Places) -> Vec<(TcpStream, SocketAddr, Place)> {
    let mut waiting = Vec::new();
    // As the system has it: the runtime may not have heard yet that somebody is there.
    let Ok(socket) = socket.into_std() else { return waiting };
    while let Some(place) = places.try_take() {
        match socket.accept() {
            Ok((stream, address)) => {
                let taken = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                waiting.extend(taken.ok().map(|stream| (stream, address, place)));
            }
            Err(error) if is_of_the_peer(&error) => {}
            Err(_) => break,
        }
    }
    waiting
}

/// Waits until nobody is connected any more, or for `linger`.
async fn wait_for_last_requests(connections: &GracefulShutdown, linger: Duration) {
    let gone = async {
        while connections.count() > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    // Those who are left have nothing to ask, or ask for long.
    let _ = tokio::time::timeout(linger, gone).await;
}

fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
