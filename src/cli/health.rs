//! `luminate healthcheck`, `luminate sleep` and `luminate admin`: short words with a running server, and what
//! images without a shell lack.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::Args;

use super::{
    CommandError,
    client::{Answer, ServerFlags},
    serve::environment,
    tls::TlsFlags,
};
use crate::config::{Config, ConfigFile, Sources, value::parse_duration};

/// A flush writes everything held in memory.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(600);

/// Which server to ask about its health.
#[derive(Clone, Debug, Args)]
pub struct HealthFlags {
    /// The server's URL [default: where the configuration says it listens, server.admin_listen first].
    #[arg(long, alias = "url", value_name = "URL", env = "LUMINATE_URL")]
    server: Option<String>,
    /// The server's configuration file; the environment counts, too.
    #[arg(long = "config.file", value_name = "FILE", env = "LUMINATE_CONFIG_FILE")]
    config_file: Option<PathBuf>,
    /// Ask only whether the process answers, ready or not.
    #[arg(long)]
    live: bool,
    /// How long it may take to answer.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    tls: TlsFlags,
}

/// Asks whether the server is ready; containers run this, so it says nothing if all is well.
pub fn check(flags: &HealthFlags) -> Result<(), CommandError> {
    let server = flags.server()?;
    let path = if flags.live { "/health/live" } else { "/health/ready" };
    expect_success(&server, &server.get(path, flags.timeout)?)
}

impl HealthFlags {
    fn server(&self) -> Result<ServerFlags, CommandError> {
        let at = |server: String, tls| ServerFlags { server, tenant: None, token_file: None, tls };
        match &self.server {
            Some(server) => Ok(at(server.clone(), self.tls.clone())),
            None => {
                let file =
                    self.config_file.as_deref().map_or_else(|| Ok(ConfigFile::none()), ConfigFile::read)?;
                let (config, _) =
                    Config::check(&Sources { file, environment: environment(), flags: Vec::new() })?;
                let mut tls = self.tls.clone();
                // It is the process beside us, whose certificate is for another name; nothing is told to it.
                tls.insecure |= tls.ca.is_none();
                Ok(at(own_url(&config), tls))
            }
        }
    }
}

/// Where a server with this configuration is asked from its own machine.
fn own_url(config: &Config) -> String {
    let address = config.server.admin_listen.unwrap_or(config.server.listen);
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let scheme = if config.server.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}", SocketAddr::new(ip, address.port()))
}

/// Has the server flush, and waits until it has.
pub fn flush(flags: &ServerFlags) -> Result<(), CommandError> {
    expect_success(flags, &flags.post("/api/v1/admin/tsdb/flush", &[], FLUSH_TIMEOUT)?)
}

fn expect_success(flags: &ServerFlags, answer: &Answer) -> Result<(), CommandError> {
    if answer.status.is_success() {
        return Ok(());
    }
    let message = format!("{}: {}: {}", flags.server, answer.status, answer.body.trim());
    Err(CommandError::Failed(message))
}

/// How long to sleep: seconds, or a duration with its unit.
pub fn parse_nap(text: &str) -> Result<Duration, String> {
    let seconds = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if seconds { parse_duration(&format!("{text}s")) } else { parse_duration(text) }
}

/// Waits; a container's hook before it stops runs this where there is no `sleep`.
pub fn sleep(nap: Duration) {
    std::thread::sleep(nap);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(yaml: &str) -> String {
        let file = ConfigFile::parse("luminate.yaml", yaml).unwrap();
        own_url(&Config::check(&Sources { file, ..Sources::none() }).unwrap().0)
    }

    #[test]
    fn a_server_is_asked_where_its_configuration_says_it_listens() {
        assert_eq!(url(""), "http://127.0.0.1:8080");
        assert_eq!(url("server: {admin_listen: \"localhost:9\"}"), "http://127.0.0.1:9");
        let open = "auth: {force_unauthenticated: true}\nserver: {listen: \"[::]:7\"}";
        assert_eq!(url(open), "http://[::1]:7");
        let open = "auth: {force_unauthenticated: true}\nserver: {admin_listen: \":7\"}";
        assert_eq!(url(open), "http://127.0.0.1:7");
        assert_eq!(url("server: {tls: {cert_file: a, key_file: b}}"), "https://127.0.0.1:8080");
    }

    #[test]
    fn a_nap_is_in_seconds_or_has_a_unit() {
        assert_eq!(parse_nap("3"), Ok(Duration::from_secs(3)));
        assert_eq!(parse_nap("0"), Ok(Duration::ZERO));
        assert_eq!(parse_nap("1m500ms"), Ok(Duration::from_millis(60_500)));
        for wrong in ["", "-1", "1.5", "forever", "99999999999999999999"] {
            assert!(parse_nap(wrong).is_err(), "{wrong:?}");
        }
    }
}
