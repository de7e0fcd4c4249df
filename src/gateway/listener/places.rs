//! How many connections there may be: in all, and of one client.
//!
//! A place in all is taken before a connection is accepted, so that callers wait in the kernel's queue. Whose
//! connection it is shows only afterwards; one too many of a client is closed at once.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The network that one IPv6 client has to itself.
const CLIENT_PREFIX: u32 = 64;

/// The places of a listener.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    of_clients: Arc<OfClients>,
}

/// A place among all; given back when dropped.
pub(super) type Place = OwnedSemaphorePermit;

#[derive(Debug)]
struct OfClients {
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A place among those of a client; given back when dropped.
#[derive(Debug)]
pub(super) struct ClientPlace {
    client: IpAddr,
    of: Arc<OfClients>,
}

impl Places {
    /// So many in all, and so many of each client; 0 is without bound.
    pub(super) fn new(all: usize, of_client: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all.clamp(1, Semaphore::MAX_PERMITS))),
            of_clients: Arc::new(OfClients { most: of_client, open: Mutex::default() }),
        }
    }

    /// Waits for a place.
    pub(super) async fn take(&self) -> Place {
        let all = Arc::clone(&self.all);
        all.acquire_owned().await.expect("the semaphore of a listener is never closed")
    }

    /// A place, if there is one now.
    pub(super) fn try_take(&self) -> Option<Place> {
        Arc::clone(&self.all).try_acquire_owned().ok()
    }

    /// A place of a client, or none if it has too many.
    pub(super) fn take_for(&self, client: IpAddr) -> Option<ClientPlace> {
        let client = network_of(client);
        let most = self.of_clients.most;
        if most > 0 {
            let mut open = self.of_clients.open.lock();
            let count = open.entry(client).or_default();
            if *count >= most {
                return None;
            }
            *count += 1;
        }
        Some(ClientPlace { client, of: Arc::clone(&self.of_clients) })
    }
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        if self.of.most == 0 {
            return;
        }
        let mut open = self.of.open.lock();
        if let Some(count) = open.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.client);
            }
        }
    }
}

/// The address, or for IPv6 the network in which a client has as many addresses as it likes.
fn network_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !(u128::MAX >> CLIENT_PREFIX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_has_so_many_places_and_gets_them_back() {
        let places = Places::new(10, 2);
        let first = places.take_for(ip("10.0.0.1")).unwrap();
        let _second = places.take_for(ip("::ffff:10.0.0.1")).unwrap();
        assert!(places.take_for(ip("10.0.0.1")).is_none());
        assert!(places.take_for(ip("10.0.0.2")).is_some());
        drop(first);
        assert!(places.take_for(ip("10.0.0.1")).is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let places = Places::new(10, 1);
        let _one = places.take_for(ip("2001:db8::1")).unwrap();
        assert!(places.take_for(ip("2001:db8::ffff:1:2:3")).is_none());
        assert!(places.take_for(ip("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn nobody_is_counted_where_there_is_no_bound() {
        let places = Places::new(10, 0);
        let all: Vec<_> = (0..100).map(|_| places.take_for(ip("10.0.0.1")).unwrap()).collect();
        assert!(places.of_clients.open.lock().is_empty());
        drop(all);
    }
}
