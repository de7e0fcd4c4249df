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
//! * **How it ends.** Who is connected when a shutdown begins is answered still: a proxy may be about to send a
//!   request on any of its idle connections, and cannot tell whether one that breaks was taken. So for `linger`
//!   requests and connections come as before, and each answer of HTTP/1 says that it is the connection's last; then idle
//!   connections are closed, every other finishes the request it is in, and those that do not within `grace` are cut.
//!   Where that takes longer the port stays open, for questions about our health alone ([`Late`]): an orchestrator that
//!   finds nobody there would take a process that is about to end well for one that is stuck. Who waits in the kernel's
//!   queue when the port closes is answered, too.
//!
//! [`Late`]: super::late::Late

mod connection;
mod count;
mod guarded;
mod limits;
mod places;
mod proxies;
mod proxy_protocol;
mod requests;
pub mod tls;

use std::{convert::Infallible, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

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
/// How long those may take who came last, at most.
const LATE_GRACE: Duration = Duration::from_secs(1);
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

/// Serves `router` until `shutdown` is done and for a moment more, then whoever is connected until the requests at
/// hand are done, and `others` is.
///
/// Who comes while those take their time is told how we are, and refused all else.
pub async fn serve(
    listener: Listener,
    router: Router,
    shutdown: impl Future<Output = ()>,
    others: impl Future<Output = ()>,
) -> Drained {
    let Listener { socket, config, count, .. } = listener;
    let limits = Arc::new(config.limits.clone());
    let places = Places::new(limits.max_connections, limits.max_connections_per_client);
    let (linger, grace) = (limits.linger, limits.grace);
    let late_grace = LATE_GRACE.min(grace / 4);
    let shared = Arc::new(Shared { config, limits, places, router, count });

    let connections = Connections::new(Arc::clone(&shared), false);
    tokio::select! {
        biased;
        () = shutdown => {}
        never = connections.take(&socket) => match never {},
    }
    // A proxy that was not told takes us for one of many still, and a write that it has sent it may not send again.
    tokio::select! {
        biased;
        () = wait_for_last_requests(&connections.graceful, linger) => {}
        never = connections.take(&socket) => match never {},
    }
    // Whoever comes now waits in the kernel's queue, for those who came last to be heard.
    wait_for_last_requests(&connections.graceful, linger / 4).await;

    let late = Connections::new(Arc::clone(&shared), true);
    let drained = {
        let finish = async { tokio::join!(connections.finish(grace), others).0 };
        let answer_for_our_health = async {
            tokio::time::sleep(linger / 4).await;
            late.take(&socket).await
        };
        tokio::select! {
            biased;
            drained = finish => drained,
            never = answer_for_our_health => match never {},
        }
    };
    let last = Connections::new(shared, false);
    accept_waiting(socket, &last.shared.places).into_iter().for_each(|accepted| last.begin(accepted));
    let (_, last) = tokio::join!(late.finish(late_grace), async {
        wait_for_last_requests(&last.graceful, linger / 4).await;
        last.finish(late_grace).await
    });
    Drained { cut: drained.cut + last.cut }
}

/// Connections that end together.
#[derive(Debug)]
struct Connections {
    shared: Arc<Shared>,
    /// Whether they came when no more were wanted.
    late: bool,
    graceful: GracefulShutdown,
    turn_phase: watch::Sender<Phase>,
}

impl Connections {
    fn new(shared: Arc<Shared>, late: bool) -> Self {
        let turn_phase = watch::Sender::new(Phase::Serving);
        Self { shared, late, graceful: GracefulShutdown::new(), turn_phase }
    }

    /// Takes what comes, for as long as it is asked to.
    async fn take(&self, socket: &TcpListener) -> Infallible {
        loop {
            self.begin(accept(socket, &self.shared.places).await);
        }
    }

    fn begin(&self, (stream, address, place): Accepted) {
        let (shared, watcher) = (Arc::clone(&self.shared), self.graceful.watcher());
        let open = Open::one_more(&shared.count);
        let phase = self.turn_phase.subscribe();
        let connection = connection::serve(stream, address, shared, watcher, phase, place, self.late);
        task::spawn("connection", async move {
            connection.await;
            drop(open);
        });
    }

    /// Lets them finish the requests they are in, and cuts what takes longer than `grace`.
    async fn finish(self, grace: Duration) -> Drained {
        self.turn_phase.send_replace(Phase::Draining);
        let open = self.graceful.count();
        let mut drained = std::pin::pin!(self.graceful.shutdown());
        if tokio::time::timeout(grace, &mut drained).await.is_ok() {
            return Drained { cut: 0 };
        }
        let left = self.turn_phase.receiver_count();
        tracing::warn!(event = "connections_cut", open, left, grace_ms = millis(grace));
        self.turn_phase.send_replace(Phase::Cutting);
        drained.await;
        Drained { cut: left }
    }
}

/// A connection, where it is from, and its place.
type Accepted = (TcpStream, SocketAddr, Place);

async fn accept(socket: &TcpListener, places: &Places) -> Accepted {
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

/// Closes the port, and takes those connections that wait for us in the kernel's queue: to them it looks as if we
/// had taken them already.
fn accept_waiting(socket: TcpListener, places: &Places) -> Vec<Accepted> {
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
