//! Keeps web pages out while there is no other door.
//!
//! Without authentication whoever can reach the port may write and delete, and a browser reaches ports
//! that its user does not mean to open: any page can send a form to `http://127.0.0.1:8080`, and a page
//! whose name is made to point at 127.0.0.1 may even read the answer. Both give themselves away, the
//! first by its `Origin` or `Sec-Fetch-Site`, the second by its own name in `Host`. So with
//! `auth.mode: none` a request is refused
//!
//! * whose `Host` is neither loopback, nor an IP address we may be reached by, nor a configured name;
//! * whose `Origin` is another than the host it is sent to, and not allowed by `server.cors_origins`;
//! * which says it comes from another site, unless it is a person following a link to a page.
//!
//! The last two hold where clients' certificates are credentials, too: a browser shows that of its user for any page.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, Method, Uri, header, uri::Authority};

/// What may be called from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostGuard {
    /// Names besides loopback under which we may be called; `*` is any.
    pub allowed_hosts: Vec<String>,
    /// Whether any IP address will do as a host: we listen on more than loopback, and no page's name is
    /// an address that it does not have.
    pub any_address: bool,
    /// Origins whose pages may call us (`https://grafana.example`); `*` is any.
    pub cors_origins: Vec<String>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Called by a name that is not ours.
    #[error(
        "host {host:?} is not allowed; without authentication only loopback names and those in \
         server.allowed_hosts are served"
    )]
    Host {
        /// The name.
        host: String,
    },
    /// Called by a page that is not ours.
    #[error("requests from origin {origin:?} are not allowed; see server.cors_origins")]
    Origin {
        /// Where the page is from.
        origin: String,
    },
    /// Called by a page from another site.
    #[error("cross-site requests are not allowed; see server.cors_origins")]
    CrossSite,
}

impl HostGuard {
    /// Whether a request may go on.
    pub fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = self.check_host(uri, headers)?;
        let origin = headers.get(header::ORIGIN);
        if let Some(origin) = origin {
            self.check_origin(origin, host.as_ref())?;
        } else if is_cross_site(headers) && !is_followed_link(method, headers) {
            return Err(Refusal::CrossSite);
        }
        Ok(())
    }

    /// A request without any host is from a program: browsers always send one.
    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<Option<Authority>, Refusal> {
        let mut named = headers.get_all(header::HOST).iter();
        let (first, another) = (named.next(), named.next());
        let refused = |host: &[u8]| Refusal::Host { host: String::from_utf8_lossy(host).into_owned() };
        if let Some(another) = another {
            return Err(refused(another.as_bytes()));
        }
        let in_header = match first {
            Some(value) if !value.is_empty() => {
                Some(Authority::try_from(value.as_bytes()).map_err(|_| refused(value.as_bytes()))?)
            }
            Some(_) | None => None,
        };
        // HTTP/2 has it in the address; where both are there, both must do.
        for authority in in_header.iter().chain(uri.authority()) {
            if !self.is_our_name(authority.host()) {
                return Err(refused(authority.host().as_bytes()));
            }
        }
        Ok(in_header.or_else(|| uri.authority().cloned()))
    }

    fn is_our_name(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return self.any_address || address.to_canonical().is_loopback() || self.is_listed(host);
        }
        host.eq_ignore_ascii_case("localhost")
            || host.to_ascii_lowercase().ends_with(".localhost")
            || self.is_listed(host)
    }

    fn is_listed(&self, host: &str) -> bool {
        self.allowed_hosts.iter().any(|name| name == "*" || name.eq_ignore_ascii_case(host))
    }

    fn check_origin(&self, origin: &HeaderValue, host: Option<&Authority>) -> Result<(), Refusal> {
        let text = String::from_utf8_lossy(origin.as_bytes());
        if self.allows_origin(&text) {
            return Ok(());
        }
        let of_page = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        match (of_page, host) {
            (Some(of_page), Some(host)) if of_page.eq_ignore_ascii_case(host.as_str()) => Ok(()),
            (Some(_) | None, Some(_) | None) => Err(Refusal::Origin { origin: text.into_owned() }),
        }
    }

    /// Whether the configuration lets pages of this origin call us.
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.cors_origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    }
}

fn is_cross_site(headers: &HeaderMap) -> bool {
    header_is(headers, "sec-fetch-site", "cross-site")
}

/// A person clicked a link: the browser shows the answer as a page of its own, and no script sees it.
fn is_followed_link(method: &Method, headers: &HeaderMap) -> bool {
    (method == Method::GET || method == Method::HEAD)
        && header_is(headers, "sec-fetch-mode", "navigate")
        && header_is(headers, "sec-fetch-dest", "document")
}

fn header_is(headers: &HeaderMap, name: &str, value: &str) -> bool {
    headers.get(name).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &HostGuard, headers: &[(&'static str, &str)]) -> Result<(), String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        guard.check(&Method::GET, &Uri::from_static("/"), &map).map_err(|refusal| refusal.to_string())
    }

    fn passes(guard: &HostGuard, headers: &[(&'static str, &str)]) -> bool {
        check(guard, headers).is_ok()
    }

    #[test]
    fn loopback_is_always_ours() {
        let guard = HostGuard::default();
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "app.localhost:1",
            "127.0.0.1:8080",
            "127.1.2.3",
            "[::1]:8080",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ] {
            assert_eq!(check(&guard, &[("host", host)]), Ok(()), "{host}");
        }
        assert_eq!(check(&guard, &[]), Ok(()));
    }

    #[test]
    fn other_names_are_refused_unless_configured() {
        let guard = HostGuard { allowed_hosts: vec!["metrics.example".to_owned()], ..HostGuard::default() };
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1:8080",
            "0.0.0.0",
            "evil.example:8080",
            "notlocalhost",
            "[::2]",
            "a b",
            "\u{80}",
        ] {
            assert!(!passes(&guard, &[("host", host)]), "{host}");
        }
        assert!(passes(&guard, &[("host", "Metrics.Example:8080")]));
        assert!(!passes(&guard, &[("host", "localhost"), ("host", "evil.example")]));
        assert_eq!(
            check(&guard, &[("host", "evil.example")]).unwrap_err(),
            "host \"evil.example\" is not allowed; without authentication only loopback names and those in \
             server.allowed_hosts are served"
        );
    }

    #[test]
    fn addresses_will_do_where_we_listen_on_more_than_loopback() {
        let guard = HostGuard { any_address: true, ..HostGuard::default() };
        assert!(passes(&guard, &[("host", "10.0.0.1:8080")]));
        assert!(!passes(&guard, &[("host", "evil.example")]));
        let open = HostGuard { allowed_hosts: vec!["*".to_owned()], ..HostGuard::default() };
        assert!(passes(&open, &[("host", "any.example")]));
    }

    #[test]
    fn pages_of_other_origins_are_refused_unless_configured() {
        let guard =
            HostGuard { cors_origins: vec!["https://grafana.example".to_owned()], ..HostGuard::default() };
        let from = |origin| [("host", "localhost:8080"), ("origin", origin)];
        assert!(passes(&guard, &from("http://localhost:8080")));
        assert!(passes(&guard, &from("https://grafana.example")));
        for origin in
            ["null", "http://evil.example", "http://localhost:3000", "http://localhost", "", "file://"]
        {
            assert!(!passes(&guard, &from(origin)), "{origin}");
        }
    }

    #[test]
    fn cross_site_requests_are_refused_and_followed_links_are_not() {
        let guard = HostGuard::default();
        let (host, cross) = (("host", "localhost"), ("sec-fetch-site", "cross-site"));
        let (navigate, document) = (("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"));
        assert!(!passes(&guard, &[host, cross]));
        assert!(!passes(&guard, &[host, cross, navigate, ("sec-fetch-dest", "iframe")]));
        assert!(!passes(&guard, &[host, cross, ("sec-fetch-mode", "no-cors"), document]));
        assert!(passes(&guard, &[host, cross, navigate, document]));
        assert!(passes(&guard, &[host, ("sec-fetch-site", "same-origin")]));
        assert!(passes(&guard, &[host, ("sec-fetch-site", "none")]));
    }

    #[test]
    fn http_2_has_the_host_in_its_address() {
        let guard = HostGuard::default();
        let check = |uri: &'static str| guard.check(&Method::GET, &Uri::from_static(uri), &HeaderMap::new());
        assert!(check("http://localhost:8080/").is_ok());
        assert!(check("http://evil.example/").is_err());
    }
}
