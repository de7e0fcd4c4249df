//! What connections may take.

use std::time::Duration;

/// Bounds on connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Connections open at one time.
    pub max_connections: usize,
    /// Connections of one client open at one time; 0 is without bound. Trusted proxies are not counted.
    pub max_connections_per_client: usize,
    /// The largest head of a request, in bytes.
    pub max_header_bytes: usize,
    /// The most headers of a request.
    pub max_headers: usize,
    /// How long a request's head may take once it has begun; and what comes before the first: the word of a
    /// proxy, and the handshake of TLS.
    pub header_timeout: Duration,
    /// How long a connection may be silent between requests.
    pub idle_timeout: Duration,
    /// How long a peer may take to read on.
    pub write_timeout: Duration,
    /// How long a request may take from its head to the last byte of its answer, streams aside.
    pub request_timeout: Duration,
    /// Requests at one time on one HTTP/2 connection.
    pub max_streams: u32,
    /// Requests that an HTTP/2 peer may give up before we have looked at them; more end the connection.
    pub max_unseen_resets: usize,
    /// Requests that an HTTP/2 peer may break the rules with; more end the connection.
    pub max_faulty_resets: usize,
    /// Requests that a peer may give up in all, before it counts whether they are most of those it sent.
    pub max_given_up: u64,
    /// How often an HTTP/2 peer is asked whether it is still there.
    pub ping_interval: Duration,
    /// How long it may take to say so.
    pub ping_timeout: Duration,
    /// How long idle connections are kept once the shutdown has begun, for requests that are on their way.
    pub linger: Duration,
    /// How long requests may take to finish after that.
    pub grace: Duration,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_connections_per_client: 0,
            max_header_bytes: 64 * 1024,
            max_headers: 100,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            write_timeout: Duration::from_secs(60),
            request_timeout: Duration::from_secs(600),
            max_streams: 256,
            max_unseen_resets: 20,
            max_faulty_resets: 64,
            max_given_up: 512,
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(20),
            linger: Duration::from_millis(500),
            grace: Duration::from_secs(30),
        }
    }
}

impl ListenerLimits {
    /// How often to look whether an answer has been on its way for too long.
    pub(super) fn look_every(&self) -> Duration {
        (self.write_timeout.min(self.request_timeout) / 4).max(Duration::from_millis(5))
    }
}
