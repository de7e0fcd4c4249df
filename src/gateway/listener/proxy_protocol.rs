//! The PROXY protocol: what a proxy says of a connection before the connection's own first byte.
//!
//! ```text
//! v1   "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"                    up to 107 bytes
//! v2   ┌───────────────┬────────────────┬──────────────────┬─────────┬──────────────────────────────┐
//!      │ signature 12  │ version, cmd 1 │ family, socket 1 │ len 2   │ source, destination, more    │
//!      └───────────────┴────────────────┴──────────────────┴─────────┴──────────────────────────────┘
//! ```
//!
//! Only trusted proxies are listened to, and they have to speak: the protocol must not be guessed. Not one byte
//! more than the header is read, because what follows is TLS or HTTP.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The longest header of the first version.
const MAX_V1: usize = 107;

/// More than addresses and what proxies are known to add.
const MAX_V2: usize = 2048;

/// Reads what a proxy says: from where the connection is, or none if it will not say.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == SIGNATURE {
        return read_v2(stream).await;
    }
    if !start.starts_with(b"PROXY ") {
        return Err(malformed("a trusted proxy sent no PROXY header"));
    }
    let mut line = start.to_vec();
    // A byte at a time: the next is not ours once the line has ended.
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_V1 {
            return Err(malformed("the PROXY line does not end"));
        }
        line.push(stream.read_u8().await?);
    }
    source_v1(&line).ok_or_else(|| malformed("the PROXY line is malformed"))
}

fn source_v1(line: &[u8]) -> Option<Option<SocketAddr>> {
    let line = std::str::from_utf8(line).ok()?.strip_prefix("PROXY ")?.strip_suffix("\r\n")?;
    let parts: Vec<&str> = line.split(' ').collect();
    let (family, source, destination, from, to) = match parts[..] {
        ["UNKNOWN", ..] => return Some(None),
        [family @ ("TCP4" | "TCP6"), source, destination, from, to] => {
            (family, source, destination, from, to)
        }
        _ => return None,
    };
    let of_family = |text: &str| {
        let address: IpAddr = text.parse().ok()?;
        (address.is_ipv4() == (family == "TCP4")).then_some(address)
    };
    let (source, _, from, _) =
        (of_family(source)?, of_family(destination)?, from.parse().ok()?, to.parse::<u16>().ok()?);
    Some(Some(SocketAddr::new(source, from)))
}

async fn read_v2(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let version_and_command = stream.read_u8().await?;
    let family_and_socket = stream.read_u8().await?;
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_V2 {
        return Err(malformed("the PROXY header is too long"));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    match (version_and_command, family_and_socket >> 4) {
        // The proxy calls on its own behalf; or will not say.
        (0x20, _) | (0x21, 0) => Ok(None),
        (0x21, 1) => source_v2::<4>(&rest, 8),
        (0x21, 2) => source_v2::<16>(&rest, 32),
        (0x21, 3) => Ok(None),
        (0x21, _) => Err(malformed("the PROXY header has an unknown family of addresses")),
        (_, _) => Err(malformed("the PROXY header has an unknown version or command")),
    }
}

/// Two addresses come first, and then two ports.
fn source_v2<const N: usize>(rest: &[u8], ports_at: usize) -> io::Result<Option<SocketAddr>>
where
    IpAddr: From<[u8; N]>,
{
    let address = rest.first_chunk::<N>();
    let port = rest.get(ports_at..ports_at + 4).and_then(|ports| ports.first_chunk::<2>());
    match (address, port) {
        (Some(address), Some(port)) => {
            Ok(Some(SocketAddr::new(IpAddr::from(*address), u16::from_be_bytes(*port))))
        }
        (_, None) | (None, _) => Err(malformed("the PROXY header is too short for its addresses")),
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of bytes: the source, and what is left for the next reader.
    async fn read(bytes: &[u8]) -> Result<(String, Vec<u8>), String> {
        let mut rest = bytes;
        let source = super::read(&mut rest).await.map_err(|error| error.to_string())?;
        Ok((source.map_or("none".to_owned(), |source| source.to_string()), rest.to_vec()))
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest, b"GET"].concat()
    }

    #[tokio::test]
    async fn the_first_version_is_a_line() {
        for (line, source) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", "192.0.2.1:56324"),
            ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", "[2001:db8::1]:1"),
            ("PROXY UNKNOWN\r\n", "none"),
            ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", "none"),
        ] {
            let read = read(format!("{line}GET").as_bytes()).await;
            assert_eq!(read, Ok((source.to_owned(), b"GET".to_vec())), "{line}");
        }
    }

    #[tokio::test]
    async fn the_second_version_is_binary() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 1, 187];
        assert_eq!(
            read(&v2(0x21, 0x11, &v4)).await.unwrap(),
            ("192.0.2.1:56324".to_owned(), b"GET".to_vec())
        );
        let more = [&v4[..], &[4, 0, 1, 0]].concat();
        assert_eq!(read(&v2(0x21, 0x11, &more)).await.unwrap().1, b"GET");
        let mut v6 = [0; 36];
        v6[15] = 9;
        v6[33] = 80;
        assert_eq!(read(&v2(0x21, 0x21, &v6)).await.unwrap().0, "[::9]:80");
        for (command, family, rest) in
            [(0x20, 0, &[][..]), (0x20, 0x11, &v4), (0x21, 0, &[1, 2]), (0x21, 0x31, &[0; 216])]
        {
            assert_eq!(read(&v2(command, family, rest)).await.unwrap(), ("none".to_owned(), b"GET".to_vec()));
        }
    }

    #[tokio::test]
    async fn what_is_malformed_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(200));
        for line in [
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 9\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 99999 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 x\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 ::1 1 2\r\n",
            "PROXY  TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n\n",
            "PROXY TCP4 192.0.2.1",
            "proxy UNKNOWN\r\n",
            "PROXY \u{e9}\r\nxxxxxx",
            "",
            &long,
        ] {
            assert!(read(line.as_bytes()).await.is_err(), "{line:?}");
        }
        let short = [1, 2, 3];
        for bytes in [
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x41, &[0; 12]),
            v2(0x21, 0x11, &short),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x20, 0, &[0; MAX_V2 + 1]),
            [&SIGNATURE[..], &[0x21, 0x11, 0, 12]].concat(),
        ] {
            assert!(read(&bytes).await.is_err(), "{bytes:?}");
        }
    }
}
