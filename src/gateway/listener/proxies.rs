//! Proxies that we believe, and what they say of the client.
//!
//! What anybody else says of it is nothing to us: an address in a header is as easily written as any other text.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The header in which each proxy appends whom it was called by.
const FORWARDED_FOR: &str = "X-Forwarded-For";

/// The networks of trusted proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Those in any of these networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether an address is that of a trusted proxy.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Who sent a request that came from a trusted proxy at `proxy`: the right-most of those it names that is
    /// not itself one. What is left of that anybody could have written.
    pub(super) fn client(&self, proxy: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = proxy;
        let values = headers.get_all(FORWARDED_FOR).iter().collect::<Vec<_>>();
        for value in values.into_iter().rev() {
            let Ok(text) = value.to_str() else { return client };
            for hop in text.rsplit(',') {
                let Some(address) = address_of(hop.trim()) else { return client };
                client = address;
                if !self.contain(address) {
                    return client;
                }
            }
        }
        client
    }
}

/// `10.0.0.1`, `10.0.0.1:80`, `::1`, `[::1]`, `[::1]:80`.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn client(headers: &[&str]) -> String {
        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(FORWARDED_FOR, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        proxies.client("10.0.0.1".parse().unwrap(), &map).to_string()
    }

    #[test]
    fn the_client_is_the_rightmost_that_is_no_proxy() {
        assert_eq!(client(&[]), "10.0.0.1");
        assert_eq!(client(&["192.0.2.1"]), "192.0.2.1");
        assert_eq!(client(&["6.6.6.6, 192.0.2.1"]), "192.0.2.1");
        assert_eq!(client(&["6.6.6.6, 192.0.2.1, 10.0.0.2,10.0.0.3"]), "192.0.2.1");
        assert_eq!(client(&["6.6.6.6", "192.0.2.1", "10.0.0.2"]), "192.0.2.1");
        assert_eq!(client(&["10.0.0.9, 10.0.0.2"]), "10.0.0.9");
        assert_eq!(client(&["192.0.2.1:4711"]), "192.0.2.1");
        assert_eq!(client(&["[2001:db8::1]:4711, fd00::1"]), "2001:db8::1");
        assert_eq!(client(&["[2001:db8::1], ::ffff:10.1.1.1"]), "2001:db8::1");
    }

    #[test]
    fn what_is_no_address_ends_what_can_be_believed() {
        for odd in ["", "unknown", "192.0.2.1 ", "localhost", "1.2.3.4.5", "\u{e9}", "192.0.2.1;"] {
            let named = client(&[&format!("6.6.6.6, {odd}, 10.0.0.2")]);
            let expect = if odd.trim() == "192.0.2.1" { "192.0.2.1" } else { "10.0.0.2" };
            let expect = if odd == "\u{e9}" { "10.0.0.1" } else { expect };
            assert_eq!(named, expect, "{odd:?}");
        }
    }

    #[test]
    fn an_ipv4_address_inside_ipv6_is_in_its_network() {
        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        assert!(proxies.contain("::ffff:10.2.3.4".parse().unwrap()));
        assert!(!proxies.contain("::ffff:11.2.3.4".parse().unwrap()));
        assert!(!TrustedProxies::default().contain("127.0.0.1".parse().unwrap()));
    }
}
