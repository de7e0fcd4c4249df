//! The card: what a person needs who has just started the server for the first time.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::config::{AuthMode, Backend, Config, Storage, value::format_duration};

/// Where samples are kept, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Store {
    /// A directory or servers.
    pub(super) place: String,
    /// Whether that is only now made.
    is_new: bool,
}

impl Store {
    /// Looks before the store is opened.
    pub(super) fn of(config: &Storage) -> Self {
        match config.backend {
            Backend::Embedded => {
                let dir = &config.embedded.data_dir;
                Self { place: dir.display().to_string(), is_new: !dir.exists() }
            }
            Backend::ClickHouse => {
                let clickhouse = &config.clickhouse;
                let place = format!("{}/{}", clickhouse.addresses.join(","), clickhouse.database);
                Self { place, is_new: false }
            }
        }
    }
}

/// Prints the card on standard error, where the log goes, too.
pub(super) fn print(config: &Config, store: &Store, address: SocketAddr, configured: bool) {
    // Nobody reads it; the server runs all the same.
    let _ = io::stderr().write_all(render(config, store, address, configured).as_bytes());
}

fn render(config: &Config, store: &Store, address: SocketAddr, configured: bool) -> String {
    let scheme = if config.server.tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", reachable(address));
    let metric = if config.self_scrape.enabled { "up" } else { "vector(1)" };
    let (credentials, shown) = match config.auth.mode {
        AuthMode::None => ("", ""),
        AuthMode::Token => {
            (", authorization: {credentials_file: FILE}", "-H \"Authorization: Bearer $TOKEN\" ")
        }
    };
    let retention = config.storage.retention.map_or_else(|| "forever".to_owned(), format_duration);
    let mut card = format!(
        "\nLuminate {version}   store: {backend}  {place}{new}   retention: {retention}\n\n  \
         Page        {url}/\n  \
         Prometheus  remote_write: [{{url: {url}/api/v1/write{credentials}}}]\n  \
         Query       {url}/api/v1/query\n  \
         Grafana     data source of type Prometheus, URL {url}\n  \
         Try         curl {shown}'{url}/api/v1/query?query={metric}'\n  \
         {indent}luminate query '{metric}'{server}{token}\n\n",
        version = env!("CARGO_PKG_VERSION"),
        backend = config.storage.backend.name(),
        place = store.place,
        new = if store.is_new { " (new)" } else { "" },
        indent = "            ",
        token = if shown.is_empty() { "" } else { " --token.file FILE" },
        server = if url == DEFAULT { String::new() } else { format!(" --server {url}") },
    );
    if !configured {
        card.push_str("No configuration file; defaults in use. `luminate config print` shows them.\n");
    }
    card.push_str(match (config.auth.mode, address.ip().is_loopback()) {
        (AuthMode::Token, _) => {
            "Everybody is asked who they are: `luminate key create` and `luminate token create` make credentials.\n"
        }
        (AuthMode::None, true) => "Listening on loopback only, and nobody is asked who they are.\n",
        (AuthMode::None, false) => {
            "Listening on the network, and nobody is asked who they are: anybody can read and delete.\n"
        }
    });
    card.push('\n');
    card
}

/// Where the commands look for a server.
const DEFAULT: &str = "http://127.0.0.1:8080";

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
    use crate::config::{ConfigFile, Sources};

    fn card(address: &str) -> String {
        let (config, _) = Config::check(&Sources::none()).unwrap();
        let store = Store { place: "./luminate-data".to_owned(), is_new: true };
        render(&config, &store, address.parse().unwrap(), false)
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
    fn a_card_of_a_server_that_asks_for_credentials_says_so() {
        let yaml = "auth: {mode: token, api_keys: {file: keys.yaml}}";
        let file = ConfigFile::parse("luminate.yaml", yaml).unwrap();
        let (config, _) = Config::check(&Sources { file, ..Sources::none() }).unwrap();
        let card = render(&config, &Store::of(&config.storage), "0.0.0.0:8080".parse().unwrap(), true);
        for line in [
            "authorization: {credentials_file: FILE}}]",
            "Bearer $TOKEN",
            "query 'up' --token.file FILE",
            "luminate key create",
        ] {
            assert!(card.contains(line), "{line}\nis not in\n{card}");
        }
        assert!(!card.contains("nobody is asked"), "{card}");
    }

    #[test]
    fn a_card_over_clickhouse_names_the_servers() {
        let yaml =
            "storage: {backend: clickhouse, clickhouse: {addresses: [a, \"https://b\"], password: hunter2}}";
        let file = ConfigFile::parse("luminate.yaml", yaml).unwrap();
        let (config, _) = Config::check(&Sources { file, ..Sources::none() }).unwrap();
        let card = render(&config, &Store::of(&config.storage), "127.0.0.1:8080".parse().unwrap(), true);
        assert!(
            card.contains("store: clickhouse  http://a:8123,https://b:8443/luminate   retention: 30d"),
            "{card}"
        );
        assert!(!card.contains("hunter2") && card.contains("query=vector(1)"), "{card}");
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
