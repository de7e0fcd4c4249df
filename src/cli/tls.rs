//! Connections to a server, plain or by TLS: whom to trust, and what to show.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use super::CommandError;

/// How the server of an `https://` URL is known, and how we are to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct TlsFlags {
    /// Certificates to trust for https, instead of the system's.
    #[arg(long = "tls.ca", value_name = "FILE", env = "LUMINATE_TLS_CA")]
    pub ca: Option<PathBuf>,
    /// A certificate to show, with its chain.
    #[arg(long = "tls.cert", value_name = "FILE", env = "LUMINATE_TLS_CERT", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The key of that certificate.
    #[arg(long = "tls.key", value_name = "FILE", env = "LUMINATE_TLS_KEY", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Take whoever answers for the server.
    #[arg(long = "tls.insecure", conflicts_with = "ca")]
    pub insecure: bool,
}

impl TlsFlags {
    /// What makes connections to `server`, a URL.
    pub fn connector(&self, server: &str) -> Result<HttpsConnector<HttpConnector>, CommandError> {
        let tls = if server.starts_with("https://") { self.config()? } else { no_tls() };
        Ok(HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build())
    }

    fn config(&self) -> Result<ClientConfig, CommandError> {
        let builder = match (&self.ca, self.insecure) {
            (_, true) => {
                builder().dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider())))
            }
            (Some(file), false) => builder().with_root_certificates(trusted(file)?),
            (None, false) => builder()
                .with_native_roots()
                .map_err(|e| CommandError::Failed(format!("cannot read the system's certificates: {e}")))?,
        };
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else {
            return Ok(builder.with_no_client_auth());
        };
        let private = PrivateKeyDer::from_pem_file(key).map_err(|e| unusable(key, e))?;
        builder.with_client_auth_cert(certificates(cert)?, private).map_err(|e| unusable(cert, e))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has the suites that the default versions need")
}

/// Trusts nobody; it is never used.
fn no_tls() -> ClientConfig {
    builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth()
}

fn trusted(file: &Path) -> Result<RootCertStore, CommandError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|e| unusable(file, e))?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CommandError> {
    let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match all {
        Ok(all) if all.is_empty() => Err(unusable(file, "there is no certificate in it")),
        Ok(all) => Ok(all),
        Err(error) => Err(unusable(file, error)),
    }
}

fn unusable(file: &Path, why: impl std::fmt::Display) -> CommandError {
    CommandError::Usage(format!("{}: {why}", file.display()))
}

/// Takes any certificate, if whoever shows it has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
