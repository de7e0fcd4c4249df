//! Values as a person writes them: quantities with their units, and `127.0.0.1:8080`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub use crate::model::quantity::{ByteSize, format_duration, parse_duration};

/// Reads `ADDRESS:PORT`, `localhost:PORT` or, for all addresses, `:PORT`.
pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let malformed = || format!("{text:?} is not an address, write for example 127.0.0.1:8080");
    let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
    let port: u16 = port.parse().map_err(|_| malformed())?;
    match host {
        "localhost" => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        "" => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_the_host() {
        assert_eq!(parse_listen("localhost:1"), Ok("127.0.0.1:1".parse().unwrap()));
        assert_eq!(parse_listen(":9090"), Ok("0.0.0.0:9090".parse().unwrap()));
        assert_eq!(parse_listen("[::1]:9090"), Ok("[::1]:9090".parse().unwrap()));
        for wrong in ["", "8080", "127.0.0.1", "host:80", "127.0.0.1:99999", "::1:80x"] {
            assert!(parse_listen(wrong).is_err(), "{wrong:?}");
        }
    }
}
