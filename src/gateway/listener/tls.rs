//! TLS for the connections we accept.
//!
//! Certificates are read again when their files change. Those that will do replace those in force, for the next
//! handshake; those that will not leave everything as it was, and are told of. Files are replaced one after
//! another, so that a key without its certificate is no more than a moment's failure.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    gateway::{
        peer::{PeerCertificate, UnreadableCertificate},
        routes::Door,
    },
    model::Timestamp,
};

/// What we offer to speak, what we like best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where certificates are, and what is asked of peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate, and those that lead to it from one that peers know.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whose word we take for peers, and whether they need it.
    pub clients: Option<(PathBuf, ClientCertificates)>,
    /// Whether to speak TLS 1.2, too.
    pub tls12: bool,
}

/// Whether peers show certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They may.
    Optional,
    /// They have to; not where the server is operated, so that probes get in.
    Required,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {reason}", path.display())]
    Wrong {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// TLS, with the certificates that are in force.
pub struct Tls {
    files: TlsFiles,
    current: ArcSwap<Current>,
    /// The files when they were last read, for better or worse.
    read: Mutex<Vec<Stamp>>,
    failures: AtomicU64,
    reloads: AtomicU64,
}

/// What is in force.
struct Current {
    /// Where everybody calls.
    public: Arc<ServerConfig>,
    /// Where the server is operated.
    admin: Arc<ServerConfig>,
    expires: Timestamp,
}

/// What tells a file from the one that was there before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp(Option<(u64, u64, i64, i64)>);

impl Stamp {
    fn of(path: &Path) -> Self {
        let meta = fs::metadata(path);
        Self(meta.ok().map(|meta| (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let stamps = files.stamps();
        let current = ArcSwap::from_pointee(files.load()?);
        let (failures, reloads) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { files, current, read: Mutex::new(stamps), failures, reloads })
    }

    /// Reads the files again, if they are not those that were read last; true if they are now in force.
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        if *self.read.lock() == self.files.stamps() { Ok(false) } else { self.reload().map(|()| true) }
    }

    /// Reads the files again. After an error what was in force still is.
    pub fn reload(&self) -> Result<(), TlsError> {
        // First, so that what changes while they are read is seen the next time.
        *self.read.lock() = self.files.stamps();
        match self.files.load() {
            Ok(current) => {
                self.current.store(Arc::new(current));
                self.reloads.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// When our certificate ends, or the first of those that lead to it.
    pub fn expires(&self) -> Timestamp {
        self.current.load().expires
    }

    /// How often files were read anew and came into force.
    pub fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }

    /// How often they did not.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Takes a connection up.
    pub(super) fn acceptor(&self, door: Door) -> TlsAcceptor {
        let current = self.current.load();
        TlsAcceptor::from(Arc::clone(match door {
            Door::Public | Door::Both => &current.public,
            Door::Admin => &current.admin,
        }))
    }
}

impl TlsFiles {
    fn stamps(&self) -> Vec<Stamp> {
        let clients = self.clients.iter().map(|(path, _)| path);
        [&self.certificate, &self.key].into_iter().chain(clients).map(|path| Stamp::of(path)).collect()
    }

    fn load(&self) -> Result<Current, TlsError> {
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?)
            .map_err(|_| wrong(&self.key, "there is no private key in it"))?;
        let mut expires = Timestamp(i64::MAX);
        for certificate in &chain {
            let read = PeerCertificate::read(certificate)
                .map_err(|error: UnreadableCertificate| wrong(&self.certificate, error))?;
            expires = expires.min(read.not_after);
        }
        let roots = self.clients.as_ref().map(|(path, _)| trusted(path)).transpose()?;
        let server = |required: bool| self.server(chain.clone(), key.clone_key(), roots.clone(), required);
        let required = matches!(self.clients, Some((_, ClientCertificates::Required)));
        Ok(Current { public: server(required)?, admin: server(false)?, expires })
    }

    fn server(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: Option<Arc<RootCertStore>>,
        required: bool,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let versions: &[&SupportedProtocolVersion] = if self.tls12 { &[&TLS13, &TLS12] } else { &[&TLS13] };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .expect("the provider has suites for both versions");
        let builder = match (roots, &self.clients) {
            (Some(roots), Some((path, _))) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
                let verifier: Arc<dyn ClientCertVerifier> =
                    verifier.build().map_err(|error| wrong(path, error))?;
                builder.with_client_cert_verifier(verifier)
            }
            (_, None) | (None, _) => builder.with_no_client_auth(),
        };
        let mut server = builder.with_single_cert(chain, key).map_err(|error| wrong(&self.key, error))?;
        server.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(server))
    }
}

fn trusted(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| wrong(path, error))?;
    }
    Ok(Arc::new(roots))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if all.is_empty() => Err(wrong(path, "there is no certificate in it")),
        Ok(all) => Ok(all),
        Err(error) => Err(wrong(path, error)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

fn wrong(path: &Path, reason: impl fmt::Display) -> TlsError {
    TlsError::Wrong { path: path.to_owned(), reason: reason.to_string() }
}
