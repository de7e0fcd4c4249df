//! Where servers are: `http://host:8123`, and the ways people write that.

/// Ports of ClickHouse that speak its own protocol, and the HTTP port beside each.
const NATIVE: [(u16, u16); 2] = [(9000, 8123), (9440, 8443)];

/// Reads the addresses of servers; no server twice.
pub(super) fn servers(items: &[String]) -> Result<Vec<String>, String> {
    let mut all: Vec<String> = Vec::new();
    for item in items {
        let address = server(item.trim())?;
        if all.contains(&address) {
            return Err(format!("names {address} twice"));
        }
        all.push(address);
    }
    Ok(all)
}

/// Reads `host`, `host:port`, `http://host:port` or `https://host:port` and writes it out in full.
fn server(text: &str) -> Result<String, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let scheme = scheme.to_ascii_lowercase();
    if rest.contains('@') {
        // The text is not repeated: it holds a password.
        return Err("takes no user or password in an address; \
                    set storage.clickhouse.username and password_file"
            .to_owned());
    }
    let default_port = match scheme.as_str() {
        "http" => 8123,
        "https" => 8443,
        _ => {
            return Err(format!("{text:?} is not http:// or https://; ClickHouse's HTTP interface is used"));
        }
    };
    let malformed = || format!("{text:?} is not an address, write for example http://clickhouse:8123");
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err(format!("{text:?} has more than a host and a port"));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (address, port) = bracketed.split_once(']').ok_or_else(malformed)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| malformed())?;
            let port =
                if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(malformed)?) };
            (format!("[{address}]"), port)
        }
        None => {
            let (host, port) = authority.split_once(':').map_or((authority, None), |(h, p)| (h, Some(p)));
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            if host.is_empty() || !host.chars().all(plain) {
                return Err(malformed());
            }
            (host.to_owned(), port)
        }
    };
    let port: u16 = match port {
        None => default_port,
        Some(digits) => digits.parse().ok().filter(|port| *port != 0).ok_or_else(malformed)?,
    };
    if let Some((_, http)) = NATIVE.into_iter().find(|(native, _)| *native == port) {
        let scheme = if http == 8443 { "https" } else { "http" };
        return Err(format!(
            "{text:?} is the port of ClickHouse's native protocol; \
             its HTTP ports are 8123 and 8443 (TLS), write {scheme}://{host}:{http}"
        ));
    }
    Ok(format!("{scheme}://{}:{port}", host.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_out_in_full() {
        for (written, meant) in [
            ("clickhouse", "http://clickhouse:8123"),
            ("ClickHouse:8124", "http://clickhouse:8124"),
            ("http://a.b-c_d:80/", "http://a.b-c_d:80"),
            ("https://a", "https://a:8443"),
            ("HTTPS://10.0.0.1:443", "https://10.0.0.1:443"),
            ("[::1]", "http://[::1]:8123"),
            ("https://[fe80::1]:9", "https://[fe80::1]:9"),
        ] {
            assert_eq!(server(written).as_deref(), Ok(meant), "{written}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            ":8123",
            "a b",
            "http://",
            "a:",
            "a:0",
            "a:99999",
            "a:b",
            "[::1",
            "[x]",
            "[::1]8123",
            "::1",
            "http://a/path",
            "http://a?x",
            "ü",
            "a:8123:9",
        ] {
            assert!(server(text).is_err(), "{text}");
        }
        for text in ["tcp://a:8123", "clickhouse://a", "ftp://a"] {
            assert!(server(text).unwrap_err().contains("HTTP interface"), "{text}");
        }
    }

    #[test]
    fn the_native_port_is_told_with_the_one_to_use() {
        for text in ["your-clickhouse-host:9000", "http://your-clickhouse-host:9000"] {
            let error = server(text).unwrap_err();
            assert!(error.contains("HTTP ports are 8123 and 8443"), "{error}");
            assert!(error.ends_with("write http://your-clickhouse-host:8123"), "{error}");
        }
        assert!(server("https://a:9440").unwrap_err().ends_with("write https://a:8443"));
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        for text in ["http://user:hunter2@a:8123", "user:hunter2@a", "http://a/hunter2@b"] {
            let error = server(text).unwrap_err();
            assert!(error.contains("password_file") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_server_is_named_once() {
        let twice = ["http://a:8123".to_owned(), " A".to_owned()];
        assert_eq!(servers(&twice), Err("names http://a:8123 twice".to_owned()));
    }
}
