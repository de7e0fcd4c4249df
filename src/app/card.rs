//! The card: what a person needs who has just started the server for the first time.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::config::{Config, value::format_duration};

/// Prints the card on standard error, where the log goes, too.
pub(super) fn print(config: &Config, address: SocketAddr, data_dir_is_new: bool, configured: bool) {
    // Nobody reads it; the server runs all the same.
    let _ = io::stderr().write_all(render(config, address, data_dir_is_new, configured).as_bytes());
}

fn render(config: &Config, address: SocketAddr, data_dir_is_new: bool, configured: bool) -> String {
    let url = format!("http://{}", reachable(address));
    let metric = if config.self_scrape.enabled { "up" } else { "vector(1)" };
    let retention = config.storage.retention.map_or_else(|| "forever".to_owned(), format_duration);
    let mut card = format!(
        "\nLuminate {version}   store: embedded  {data_dir}{new}   retention: {retention}\n\n  \
         Page        {url}/\n  \
         Prometheus  remote_write: [{{url: {url}/api/v1/write}}]\n  \
         Query       {url}/api/v1/query\n  \
         Grafana     data source of type Prometheus, URL {url}\n  \
         Try         curl '{url}/api/v1/query?query={metric}'\n  \
         {indent}luminate query '{metric}'{server}\n\n",
        version = env!("CARGO_PKG_VERSION"),
        data_dir = config.storage.embedded.data_dir.display(),
        new = if data_dir_is_new { " (new)" } else { "" },
        indent = "            ",
        server = if reachable(address) == DEFAULT { String::new() } else { format!(" --server {url}") },
    );
    if !configured {
        card.push_str("No configuration file; defaults in use. `luminate config print` shows them.\n");
    }
    if address.ip().is_loopback() {
        card.push_str("Listening on loopback only, and nobody is asked who they are.\n");
    } else {
        card.push_str(
            "Listening on the network, and nobody is asked who they are: anybody can read and delete.\n",
        );
    }
    card.push('\n');
    card
}

/// Where the commands look for a server.
const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// An address to call: "all addresses" is none.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn card(address: &str) -> String {
        let (config, _) = Config::check(&Sources::none()).unwrap();
        render(&config, address.parse().unwrap(), true, false)
    }

    #[test]
    fn the_card_of_a_first_run() {
        let card = card("127.0.0.1:8080");
        for line in [
            "./luminate-data (new)   retention: 30d",
            "  Prometheus  remote_write: [{url: http://127.0.0.1:8080/api/v1/write}]",
            "  Try         curl 'http://127.0.0.1:8080/api/v1/query?query=up'",
            "              luminate query 'up'\n",
            "No configuration file",
        ] {
            assert!(card.contains(line), "{line}\nis not in\n{card}");
        }
    }

    #[test]
    fn an_address_that_is_all_of_them_is_called_by_loopback() {
        let card = card("0.0.0.0:9");
        assert!(
            card.contains("http://127.0.0.1:9/api/v1/write") && card.contains("--server http://127.0.0.1:9")
        );
        assert!(card.contains("on the network"), "{card}");
    }
}
