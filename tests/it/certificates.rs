//! Certificates that a test makes for itself, and a client that shows them.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};

use crate::server::Options;

/// Someone whose word is taken for others.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub pem: String,
}

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate of a server on this machine.
    pub fn server(&self) -> Pair {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// A certificate of a client: its common name and its organization.
    pub fn client(&self, name: &str, organization: &str) -> Pair {
        self.sign(Self::of_client(name, organization))
    }

    /// The same, of long ago.
    pub fn expired_client(&self, name: &str, organization: &str) -> Pair {
        let mut params = Self::of_client(name, organization);
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.sign(params)
    }

    fn of_client(name: &str, organization: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params
    }

    fn sign(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { cert, key: key.serialize_pem() }
    }
}

impl Pair {
    /// Writes `NAME.pem` and `NAME.key`.
    pub fn write(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (cert, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        fs::write(&cert, &self.cert).unwrap();
        fs::write(&key, &self.key).unwrap();
        (cert, key)
    }
}

/// A server's options for TLS with the files `server.pem` and `server.key` in `dir`, and `ca.pem` for clients unless
/// `client_auth` is off.
pub fn with_tls(options: Options, dir: &Path, client_auth: &str) -> Options {
    let file = |name: &str| dir.join(name).display().to_string();
    let options = options
        .env("LUMINATE_SERVER__TLS__CERT_FILE", &file("server.pem"))
        .env("LUMINATE_SERVER__TLS__KEY_FILE", &file("server.key"))
        .env("LUMINATE_SERVER__TLS__CLIENT_AUTH", client_auth);
    if client_auth == "off" {
        return options;
    }
    options.env("LUMINATE_SERVER__TLS__CLIENT_CA_FILE", &file("ca.pem"))
}

/// A client that trusts an authority and may show a certificate.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
}

impl Client {
    pub fn new(trusted: &Authority, shown: Option<&Pair>) -> Self {
        Self::speaking(&[&TLS13, &TLS12], trusted, shown)
    }

    /// The same for these versions of TLS.
    pub fn speaking(
        versions: &[&'static SupportedProtocolVersion],
        trusted: &Authority,
        shown: Option<&Pair>,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusted.pem.as_bytes()).unwrap()).unwrap();
        let builder =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_protocol_versions(versions)
                .unwrap()
                .with_root_certificates(roots);
        let config = match shown {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        Self { config: Arc::new(config) }
    }

    pub fn connect(&self, port: u16) -> Result<StreamOwned<ClientConnection, TcpStream>, String> {
        let name = "localhost".try_into().unwrap();
        let connection =
            ClientConnection::new(Arc::clone(&self.config), name).map_err(|error| error.to_string())?;
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Ok(StreamOwned::new(connection, stream))
    }

    /// Status and body of an answer.
    pub fn get(&self, port: u16, path: &str) -> Result<(u16, String), String> {
        self.send(port, "GET", path, &[], b"")
    }

    pub fn send(
        &self,
        port: u16,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(u16, String), String> {
        let mut stream = self.connect(port)?;
        let mut request = format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let asked = stream.write_all(&[request.as_bytes(), body].concat());
        let mut answer = Vec::new();
        // A server that just hangs up has answered all the same.
        let read = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            return Err(format!("no answer: {asked:?} {read:?}"));
        };
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or_else(|| head.to_owned())?, body.to_owned()))
    }
}
