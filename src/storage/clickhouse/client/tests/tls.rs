//! TLS, with certificates in `tls/` that hold for a hundred years and for nothing else.

use std::path::PathBuf;

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use super::*;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/storage/clickhouse/client/tests/tls").join(name)
}

/// A server with our certificate, which wants to see one of the client or does not.
fn server(wants_certificate: bool) -> Server {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = if wants_certificate {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let chain = vec![CertificateDer::from_pem_file(file("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let config = builder.with_single_cert(chain, key).unwrap();
    Server::start_at(0, Some(Arc::new(config)), |_, _| Answer::Whole(numbers([7])))
}

fn secure(server: &Server, host: &str, ca: &str, ours: Option<&str>) -> Servers {
    let address = format!("https://{host}:{}", server.port);
    client_with(&[address], SystemClock::start(), |config| {
        config.tls.ca_file = Some(file(ca));
        config.tls.cert_file = ours.map(|name| file(&format!("{name}.pem")));
        config.tls.key_file = ours.map(|name| file(&format!("{name}.key")));
    })
}

#[tokio::test]
async fn a_server_is_trusted_by_its_certificate() {
    let server = server(false);
    for host in ["localhost", "127.0.0.1"] {
        assert_eq!(ask(&secure(&server, host, "ca.pem", None)).await.unwrap(), [7]);
    }
    let failure = ask(&secure(&server, "localhost", "other.pem", None)).await.unwrap_err();
    assert_eq!(failure.class, Class::Unreachable);
    assert!(failure.message.contains("certificate"), "{failure}");
}

#[tokio::test]
async fn a_server_may_want_our_certificate() {
    let server = server(true);
    assert_eq!(ask(&secure(&server, "localhost", "ca.pem", Some("client"))).await.unwrap(), [7]);
    assert!(ask(&secure(&server, "localhost", "ca.pem", None)).await.is_err());
}

#[tokio::test]
async fn plain_and_secure_addresses_may_be_mixed() {
    let (secure, plain) = (server(false), Server::start(|_, _| Answer::Whole(numbers([7]))));
    let addresses = [format!("https://localhost:{}", secure.port), plain.url()];
    let servers =
        client_with(&addresses, SystemClock::start(), |config| config.tls.ca_file = Some(file("ca.pem")));
    for _ in 0..4 {
        assert_eq!(ask(&servers).await.unwrap(), [7]);
    }
    assert_eq!((secure.seen().len(), plain.seen().len()), (2, 2));
}

#[tokio::test]
async fn a_handshake_that_does_not_come_about_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let servers = client_with(&[address], SystemClock::start(), |config| {
        config.tls.ca_file = Some(file("ca.pem"));
        config.connect_timeout = Duration::from_millis(100);
    });
    let failure = ask(&servers).await.unwrap_err();
    assert!(failure.message.contains("no connection within 0.1 s"), "{failure}");
    drop(listener);
}

#[test]
fn files_that_are_of_no_use_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let missing = dir.path().join("missing.pem");
    let with = |adjust: fn(&mut ClickHouseConfig, PathBuf), path: &PathBuf| {
        let mut config = ClickHouseConfig::new("https://localhost:1");
        config.tls.ca_file = Some(file("ca.pem"));
        adjust(&mut config, path.clone());
        Servers::new(&config, SystemClock::start()).unwrap_err().to_string()
    };
    for path in [&empty, &missing] {
        let error = with(|config, path| config.tls.ca_file = Some(path), path);
        assert!(error.contains(&path.display().to_string()), "{error}");
        let error = with(
            |config, path| {
                config.tls.cert_file = Some(file("client.pem"));
                config.tls.key_file = Some(path);
            },
            path,
        );
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
    let error = with(|config, path| config.tls.cert_file = Some(path), &empty);
    assert!(error.contains("needs its key"), "{error}");
}
