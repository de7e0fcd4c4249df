//! Keys that an issuer publishes: a JWK set at a URL, or where OpenID Connect discovery says there is one.
//!
//! A URL is asked for as it stands in the configuration, or in the issuer's own document. It is not to lead anywhere else: no
//! redirect is followed, no proxy of the environment used, and what answers must be neither long nor late. Clouds give their machines'
//! credentials to whoever asks at a link-local address, so that a name which stands for one is
//! taken for one that does not exist.

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{
            HttpConnector,
            dns::{GaiResolver, Name},
        },
    },
    rt::TokioExecutor,
};
use jsonwebtoken::Algorithm;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tower::Service;

use super::{
    json,
    jwks::{self, Policy},
    key::Key,
    local::MAX_JWKS_BYTES,
    refusal::shown,
};

/// How long one answer may take, from the name's look-up to its last byte.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Where keys are published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At this URL.
    JwkSet(Uri),
    /// Where this issuer says.
    Issuer(String),
}

/// Keys that somebody publishes.
#[derive(Debug)]
pub(super) struct Remote {
    place: Place,
    algorithms: Vec<Algorithm>,
    /// Who has to have issued what these keys sign.
    issuer: Option<String>,
    client: Client<HttpsConnector<HttpConnector<Outside>>, Empty<Bytes>>,
}

impl Remote {
    pub(super) fn new(
        place: Place,
        algorithms: Vec<Algorithm>,
        issuer: Option<String>,
        ca_file: Option<&Path>,
    ) -> Result<Self, String> {
        let url = match &place {
            Place::JwkSet(url) => url.clone(),
            Place::Issuer(issuer) => discovery_of(issuer)?,
        };
        let mut tcp = HttpConnector::new_with_resolver(Outside(GaiResolver::new()));
        tcp.set_connect_timeout(Some(CONNECT_LIMIT));
        tcp.enforce_http(false);
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls(ca_file, &url)?).https_or_http().enable_http1();
        let client = Client::builder(TokioExecutor::new())
            // It is asked too seldom for a connection to be worth keeping.
            .pool_max_idle_per_host(0)
            .build(https.wrap_connector(tcp));
        Ok(Self { place, algorithms, issuer, client })
    }

    /// Where it is, for people.
    pub(super) fn name(&self) -> String {
        match &self.place {
            Place::JwkSet(url) => url.to_string(),
            Place::Issuer(issuer) => issuer.clone(),
        }
    }

    /// Fetches the keys; and what is wrong with those that were left out.
    pub(super) async fn fetch(&self) -> Result<(Vec<Key>, Vec<String>), String> {
        let url = match &self.place {
            Place::JwkSet(url) => url.clone(),
            Place::Issuer(issuer) => self.discover(issuer).await?,
        };
        let bytes = self.get(&url).await.map_err(|wrong| format!("{url} {wrong}"))?;
        let policy = Policy { algorithms: &self.algorithms, secrets: false };
        let set = jwks::read(&bytes, policy).map_err(|wrong| format!("{url} {wrong}"))?;
        let source = url.to_string();
        let of_here = |key: Key| key.from_source(source.clone(), self.issuer.as_deref());
        Ok((set.keys.into_iter().map(of_here).collect(), set.left_out))
    }

    /// Where the issuer has its keys.
    async fn discover(&self, issuer: &str) -> Result<Uri, String> {
        let url = discovery_of(issuer)?;
        let bytes = self.get(&url).await.map_err(|wrong| format!("{url} {wrong}"))?;
        let document = json::object(&bytes).map_err(|wrong| format!("{url} {wrong}"))?;
        let text = |name: &str| document.get(name).and_then(|value| value.as_str());
        match text("issuer") {
            // To the letter: who answers for another issuer does not answer for this one.
            Some(said) if said == issuer => {}
            Some(said) => return Err(format!("{url} is about the issuer {}, not {issuer}", shown(said))),
            None => return Err(format!("{url} does not say which issuer it is about")),
        }
        let keys =
            text("jwks_uri").ok_or_else(|| format!("{url} does not say where the keys are (jwks_uri)"))?;
        check_url(keys).map_err(|wrong| format!("{url} has its keys at {}, which {wrong}", shown(keys)))
    }

    async fn get(&self, url: &Uri) -> Result<Bytes, String> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(url)
            .header(header::USER_AGENT, concat!("luminate/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "application/json")
            .body(Empty::new())
            .map_err(|_| "cannot be asked for".to_owned())?;
        let exchange = async {
            let answer = self
                .client
                .request(request)
                .await
                .map_err(|e| format!("cannot be reached: {}", innermost(&e)))?;
            let status = answer.status();
            if status.is_redirection() {
                return Err(format!("answers {status}, and redirects are not followed"));
            }
            if status != StatusCode::OK {
                return Err(format!("answers {status}"));
            }
            let most = usize::try_from(MAX_JWKS_BYTES).expect("a MiB fits");
            let body = Limited::new(answer.into_body(), most).collect().await;
            Ok(body.map_err(|e| format!("breaks off: {}", innermost(&*e)))?.to_bytes())
        };
        tokio::time::timeout(TIME_LIMIT, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("does not answer within {} s", TIME_LIMIT.as_secs())))
    }
}

/// The document in which an issuer says where its keys are.
fn discovery_of(issuer: &str) -> Result<Uri, String> {
    check_url(&format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')))
}

/// Checks a URL that keys are fetched from: https, or http to this machine; nobody's credentials in it, and no address of a cloud's
/// inside.
pub fn check_url(url: &str) -> Result<Uri, String> {
    let uri: Uri = url.parse().map_err(|_| "is no URL".to_owned())?;
    let authority = uri.authority().ok_or("names no host")?;
    if authority.as_str().contains('@') {
        return Err("holds a user".to_owned());
    }
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    if address.is_some_and(|address| !is_outside(address)) {
        return Err("is an address that keys are not fetched from".to_owned());
    }
    let here =
        address.map_or_else(|| host.eq_ignore_ascii_case("localhost"), |ip| ip.to_canonical().is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if here => Ok(uri),
        Some("http") => Err("is not encrypted; write https://".to_owned()),
        Some(_) | None => Err("does not start with https://".to_owned()),
    }
}

/// Whether it may be an issuer's address: not one that means something else on every network.
fn is_outside(address: IpAddr) -> bool {
    /// Where clouds have their machines' credentials, beside the link-local 169.254.169.254.
    const METADATA: [IpAddr; 3] = [
        IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
        IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    ];
    let address = address.to_canonical();
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(link_local || address.is_unspecified() || address.is_multicast() || METADATA.contains(&address))
}

/// Looks names up, and does not find those of addresses that are not outside.
#[derive(Clone, Debug)]
struct Outside(GaiResolver);

impl Service<Name> for Outside {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        // The one name that is spoken to without encryption, too.
        let here = name.as_str().eq_ignore_ascii_case("localhost");
        let found = self.0.call(name);
        Box::pin(async move {
            let good =
                |a: &SocketAddr| if here { a.ip().to_canonical().is_loopback() } else { is_outside(a.ip()) };
            let addresses: Vec<SocketAddr> = found.await?.filter(good).collect();
            if addresses.is_empty() {
                return Err(io::Error::other("it has no address that keys are fetched from"));
            }
            Ok(addresses.into_iter())
        })
    }
}

fn tls(ca_file: Option<&Path>, url: &Uri) -> Result<ClientConfig, String> {
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("aws-lc has the suites that the default versions need");
    let Some(file) = ca_file else {
        return match builder.clone().with_native_roots() {
            Ok(native) => Ok(native.with_no_client_auth()),
            Err(_) if url.scheme_str() == Some("http") => {
                Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
            }
            Err(error) => {
                Err(format!("cannot read the system's certificates: {error}; set auth.jwt.ca_file"))
            }
        };
    };
    let about = |wrong: String| format!("auth.jwt.ca_file: {} {wrong}", file.display());
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    for certificate in certificates.map_err(|e| about(format!("cannot be used: {e}")))? {
        roots.add(certificate).map_err(|e| about(format!("cannot be used: {e}")))?;
    }
    if roots.is_empty() {
        return Err(about("holds no certificate".to_owned()));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// What went wrong at the bottom; what lies over it says only that something did.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fetched_encrypted_or_from_here_and_never_from_a_clouds_inside() {
        for url in [
            "https://id.example.com/jwks.json",
            "https://10.0.0.7:8443/keys?tenant=a",
            "https://[2001:db8::1]/keys",
            "http://127.0.0.1:8000/keys",
            "http://127.8.0.1/keys",
            "http://[::1]:9/keys",
            "http://localhost/keys",
        ] {
            assert!(check_url(url).is_ok(), "{url}");
        }
        for (url, wrong) in [
            ("http://id.example.com/keys", "not encrypted"),
            ("http://10.0.0.7/keys", "not encrypted"),
            ("http://localhost.example.com/keys", "not encrypted"),
            ("https://169.254.169.254/latest/meta-data", "not fetched from"),
            ("http://169.254.169.254/latest/meta-data", "not fetched from"),
            ("https://[::ffff:169.254.169.254]/", "not fetched from"),
            ("https://[fe80::1]/", "not fetched from"),
            ("https://[fd00:ec2::254]/", "not fetched from"),
            ("https://100.100.100.200/", "not fetched from"),
            ("https://0.0.0.0/", "not fetched from"),
            ("https://[::]/", "not fetched from"),
            ("https://user:sesame@id.example.com/", "holds a user"),
            ("file:///etc/passwd", "is no URL"),
            ("/etc/passwd", "names no host"),
            ("ftp://id.example.com/", "does not start with https"),
            ("https://", "is no URL"),
            ("https://a b/", "is no URL"),
        ] {
            assert!(check_url(url).unwrap_err().contains(wrong), "{url}: {:?}", check_url(url));
        }
    }

    #[tokio::test]
    async fn a_name_of_a_link_local_address_does_not_exist() {
        let mut resolver = Outside(GaiResolver::new());
        // The operating system reads a number as an address.
        let number: Name = "2852039166".parse().unwrap();
        assert!(resolver.call(number).await.is_err());
        let here: Vec<SocketAddr> = resolver.call("localhost".parse().unwrap()).await.unwrap().collect();
        assert!(here.iter().all(|address| address.ip().is_loopback()));
    }

    #[test]
    fn an_issuers_document_is_where_openid_connect_has_it() {
        for issuer in ["https://id.example.com/realms/a", "https://id.example.com/realms/a/"] {
            let url = discovery_of(issuer).unwrap();
            assert_eq!(url, "https://id.example.com/realms/a/.well-known/openid-configuration");
        }
    }
}
