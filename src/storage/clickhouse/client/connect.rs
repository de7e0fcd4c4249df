//! Connections to the servers: plain or by TLS, as each address says.

use std::{path::Path, sync::Arc, time::Duration};

use hyper::Uri;
use hyper_rustls::{ConfigBuilderExt, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tower::Service;

use crate::storage::{
    Result, StorageError,
    clickhouse::config::{ClickHouseConfig, TlsConfig},
};

/// How long a peer may be silent on a connection before it is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What makes connections to all servers.
pub(super) fn connector(
    config: &ClickHouseConfig,
) -> Result<impl Connect + Clone + Send + Sync + std::fmt::Debug + 'static> {
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(config.connect_timeout));
    tcp.set_keepalive(Some(KEEP_ALIVE));
    tcp.set_keepalive_interval(Some(KEEP_ALIVE));
    tcp.set_keepalive_retries(Some(2));
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let any_tls = config.addresses.iter().any(|address| address.starts_with("https:"));
    let tls = if any_tls { tls(&config.tls)? } else { no_tls() };
    let both = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
    Ok(Timed { connector: both.wrap_connector(tcp), limit: config.connect_timeout })
}

/// Checks an address, and gives the part of it that goes into logs.
pub(super) fn check(address: &str) -> Result<String> {
    let refuse = |reason: &str| StorageError::Remote {
        detail: format!("{address:?} is not an address of a ClickHouse server: {reason}"),
    };
    let uri: Uri = address.parse().map_err(|_| refuse("expected http://host:port or https://host:port"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(refuse("it has to start with http:// or https://"));
    }
    let authority = uri.authority().ok_or_else(|| refuse("it names no host"))?;
    if authority.as_str().contains('@') {
        // Not shown: there may be a password in it.
        return Err(StorageError::Remote {
            detail: "an address of a ClickHouse server holds a user; give it as username and password"
                .to_owned(),
        });
    }
    if uri.query().is_some() {
        return Err(refuse("settings cannot be given in it"));
    }
    Ok(authority.to_string())
}

/// A connector whose connections, the TLS handshake included, come about in time or not at all.
#[derive(Clone, Debug)]
struct Timed<C> {
    connector: C,
    limit: Duration,
}

impl<C> Service<Uri> for Timed<C>
where
    C: Service<Uri>,
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        self.connector.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.connector.call(to);
        let limit = self.limit;
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => connected.map_err(Into::into),
                Err(_) => Err(format!("no connection within {} s", limit.as_secs_f64()).into()),
            }
        })
    }
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the suites that the default versions need")
}

/// Trusts nobody; it is never used.
fn no_tls() -> ClientConfig {
    builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth()
}

fn tls(config: &TlsConfig) -> Result<ClientConfig> {
    let builder = match &config.ca_file {
        Some(file) => builder().with_root_certificates(trusted(file)?),
        None => builder()
            .with_native_roots()
            .map_err(|e| StorageError::io("cannot read the system's certificates", e))?,
    };
    match (&config.cert_file, &config.key_file) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificates), Some(key)) => {
            let key_of = PrivateKeyDer::from_pem_file(key).map_err(|e| unreadable(key, e))?;
            builder
                .with_client_auth_cert(certificates_of(certificates)?, key_of)
                .map_err(|e| unreadable(certificates, e))
        }
        (Some(_), None) | (None, Some(_)) => Err(StorageError::Remote {
            detail: "a certificate for ClickHouse needs its key, and a key its certificate".to_owned(),
        }),
    }
}

fn trusted(file: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_of(file)? {
        roots.add(certificate).map_err(|e| unreadable(file, e))?;
    }
    Ok(roots)
}

fn certificates_of(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all = all.map_err(|e| unreadable(file, e))?;
    if all.is_empty() {
        return Err(unreadable(file, "there is no certificate in it"));
    }
    Ok(all)
}

fn unreadable(file: &Path, reason: impl std::fmt::Display) -> StorageError {
    StorageError::Remote { detail: format!("{} cannot be used for TLS: {reason}", file.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        assert_eq!(check("http://ch-1:8123").unwrap(), "ch-1:8123");
        assert_eq!(check("https://[::1]:8443/proxy").unwrap(), "[::1]:8443");
        for address in
            ["", "ch-1:8123", "tcp://ch-1:9000", "http://", "/x", "http://h/?readonly=1", "http://h h"]
        {
            assert!(check(address).is_err(), "{address}");
        }
        let error = check("http://luminate:sesame@ch-1:8123").unwrap_err().to_string();
        assert!(!error.contains("sesame"), "{error}");
    }
}
