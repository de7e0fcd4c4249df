//! The listener and what it puts up with.

use std::{net::SocketAddr, time::Duration};

use super::{
    ByteSize,
    parse::{boolean, count, duration, host, list, one_of, origin, positive, sized, text},
    reader::Reader,
    tls::{ServerTls, server_tls},
    value::parse_listen,
};

/// The listener and what it puts up with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The address to be operated by: figures, health, orders; without one, that is `listen`, too.
    pub admin_listen: Option<SocketAddr>,
    /// Whether figures and health are there for whoever reaches `admin_listen`.
    pub admin_open: bool,
    /// TLS, for both.
    pub tls: Option<ServerTls>,
    /// Whether trusted proxies say by the PROXY protocol for whom they call.
    pub proxy_protocol: ProxyProtocol,
    /// Origins whose pages may read our answers.
    pub cors_origins: Vec<String>,
    /// Names we answer to, beside loopback.
    pub allowed_hosts: Vec<String>,
    /// Bounds on connections and requests.
    pub limits: ServerLimits,
    /// How the server goes down.
    pub shutdown: Shutdown,
}

/// Bounds on connections and requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections open at a time.
    pub max_connections: usize,
    /// Connections of one client open at a time; 0 is without bound.
    pub max_connections_per_client: usize,
    /// The longest body, as sent.
    pub max_body_bytes: ByteSize,
    /// The longest body of a write, decompressed.
    pub max_decompressed_bytes: ByteSize,
    /// The longest request head.
    pub max_header_bytes: ByteSize,
    /// How long the head may take to arrive.
    pub header_timeout: Duration,
    /// How long the body may take to arrive.
    pub body_timeout: Duration,
    /// How long a request may take in all, streams aside.
    pub request_timeout: Duration,
    /// How long a connection may lie idle.
    pub idle_timeout: Duration,
    /// Bytes of bodies being read, and of writes being worked on, at a time.
    pub max_in_flight_bytes: ByteSize,
}

/// Whether trusted proxies say by the PROXY protocol for whom they call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// They do not.
    Off,
    /// They have to, by either version.
    V1V2,
}

/// How the server goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long requests may take to finish, and the store to close.
    pub grace: Duration,
    /// How long to go on serving, not ready, before the listener closes.
    pub delay: Duration,
}

pub(super) fn server(keys: &mut Reader<'_>) -> Server {
    let size = |bytes| sized(ByteSize(1), ByteSize(bytes));
    Server {
        listen: keys.get("server.listen", "127.0.0.1:8080", |v| parse_listen(text(v)?)),
        admin_listen: keys.get("server.admin_listen", "\"\"", |v| match text(v)? {
            "" => Ok(None),
            address => parse_listen(address).map(Some),
        }),
        admin_open: keys.get("server.admin_open", "false", boolean),
        tls: server_tls(keys),
        proxy_protocol: keys.get(
            "server.proxy_protocol",
            "\"off\"",
            one_of(&[("off", ProxyProtocol::Off), ("v1v2", ProxyProtocol::V1V2)]),
        ),
        cors_origins: keys.get("server.cors_origins", "[]", |v| list(v)?.into_iter().map(origin).collect()),
        allowed_hosts: keys.get("server.allowed_hosts", "[]", |v| list(v)?.into_iter().map(host).collect()),
        limits: ServerLimits {
            max_connections: keys.get("server.limits.max_connections", "4096", count(1, 1_000_000)),
            max_connections_per_client: keys.get(
                "server.limits.max_connections_per_client",
                "0",
                count(0, 1_000_000),
            ),
            max_body_bytes: keys.get("server.limits.max_body_bytes", "32MiB", size(1 << 30)),
            max_decompressed_bytes: keys.get("server.limits.max_decompressed_bytes", "32MiB", size(1 << 30)),
            max_header_bytes: keys.get(
                "server.limits.max_header_bytes",
                "64KiB",
                // hyper's own buffer holds no less.
                sized(ByteSize(8 << 10), ByteSize(16 << 20)),
            ),
            header_timeout: keys.get("server.limits.header_timeout", "10s", positive),
            body_timeout: keys.get("server.limits.body_timeout", "30s", positive),
            request_timeout: keys.get("server.limits.request_timeout", "10m", positive),
            idle_timeout: keys.get("server.limits.idle_timeout", "2m", positive),
            max_in_flight_bytes: keys.get("server.limits.max_in_flight_bytes", "256MiB", size(1 << 40)),
        },
        shutdown: Shutdown {
            grace: keys.get("server.shutdown.grace", "30s", positive),
            delay: keys.get("server.shutdown.delay", "0s", duration),
        },
    }
}
