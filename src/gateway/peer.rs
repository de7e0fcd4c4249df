//! Who is at the other end of a connection.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The other end of the connection that a request came by, put into its extensions by the listener.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where the connection is from.
    pub address: SocketAddr,
    /// Where the request is from: as a trusted proxy says, or the same.
    pub client: IpAddr,
}

impl Default for Peer {
    /// For requests that came by no connection.
    fn default() -> Self {
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self { address: SocketAddr::new(nowhere, 0), client: nowhere }
    }
}
