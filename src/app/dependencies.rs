//! Tries what a configuration stands on, a step at a time, for whoever has no shell beside the server.
//!
//! A server tells that ClickHouse is out of reach; this tells at which step: the name, the port, TLS, the
//! password, the schema. It goes the way that the server goes, with the same files, and beside that only
//! resolves names and opens connections by itself. Nothing it tells holds a secret.

use std::{
    fmt::Display,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, Uri, header};
use hyper_rustls::ConfigBuilderExt;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{clickhouse, jwt, redis};
use crate::{
    clock::Clock,
    config::{Backend, Config, RedisUrl},
    gateway::{auth::jwt::JwtVerifier, redis::RedisLink},
    storage::clickhouse::{
        client::{Class, Failure, Servers, Statement},
        config::ClickHouseConfig,
        migrate::{Migrator, OURS},
    },
    task,
};

/// How much of what others say is told.
const SHOWN: usize = 300;
/// More than this is not the answer to a ping.
const MAX_PONG_BYTES: usize = 64 << 10;

/// What a server may stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependency {
    /// The ClickHouse that keeps the samples.
    ClickHouse,
    /// The Redis that gateways share.
    Redis,
    /// Whoever publishes the keys that tokens are held against.
    Jwks,
    /// Whoever knows the addresses of their names.
    Dns,
}

impl Dependency {
    /// All of them, in the order in which they are worth a look.
    pub const ALL: [Self; 4] = [Self::Dns, Self::ClickHouse, Self::Redis, Self::Jwks];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClickHouse => "clickhouse",
            Self::Redis => "redis",
            Self::Jwks => "jwks",
            Self::Dns => "dns",
        }
    }

    /// Why it is not used as things are configured; none if it is.
    pub fn unused(self, config: &Config) -> Option<&'static str> {
        let (used, why) = match self {
            Self::ClickHouse => {
                (config.storage.backend == Backend::ClickHouse, "storage.backend is embedded")
            }
            Self::Redis => (
                config.redis.is_used(),
                "redis.rate_limit.enabled, redis.key_store.enabled and redis.cache.enabled are false",
            ),
            Self::Jwks => {
                let jwt = &config.auth.jwt;
                let remote = jwt.jwks_url.is_some() || jwt.oidc_issuer.is_some();
                (remote, "auth.jwt has neither jwks_url nor oidc_issuer")
            }
            Self::Dns => (true, ""),
        };
        (!used).then_some(why)
    }
}

/// A step that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was tried, in a word.
    pub name: &'static str,
    /// What came of it, or what went wrong.
    pub outcome: Result<String, String>,
    /// What is usually the matter.
    pub hint: Option<&'static str>,
}

/// Tries one dependency; tells of each step as it is taken, and whether all of them went well.
///
/// No step takes longer than `patience`, and one that needs another is not taken without it.
pub async fn check(
    dependency: Dependency,
    config: &Config,
    patience: Duration,
    clock: Arc<dyn Clock>,
    tell: &mut dyn FnMut(&Step),
) -> bool {
    let mut walk = Walk { patience, clock, tell, well: true };
    match dependency {
        Dependency::ClickHouse => walk.clickhouse(config).await,
        Dependency::Redis => walk.redis(config).await,
        Dependency::Jwks => walk.jwks(config).await,
        Dependency::Dns => walk.dns(config).await,
    }
    walk.well
}

/// A stream of bytes, plain or encrypted.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where something is, and how it is spoken to.
struct Place<'a> {
    host: &'a str,
    port: u16,
    tls: Option<TlsFiles<'a>>,
}

/// What TLS is set up from.
#[derive(Clone, Copy)]
struct TlsFiles<'a> {
    ca: Option<&'a PathBuf>,
    cert: Option<&'a PathBuf>,
    key: Option<&'a PathBuf>,
}

/// Why a step failed.
struct Wrong {
    why: String,
    hint: Option<&'static str>,
}

impl Wrong {
    fn new(why: impl Display, hint: Option<&'static str>) -> Self {
        Self { why: line(&why), hint }
    }
}

/// The steps on the way.
struct Walk<'a> {
    patience: Duration,
    clock: Arc<dyn Clock>,
    tell: &'a mut dyn FnMut(&Step),
    well: bool,
}

impl Walk<'_> {
    async fn clickhouse(&mut self, config: &Config) {
        let made = self.done("configure", || {
            clickhouse::config(&config.storage, 0).map_err(|e| Wrong::new(format!("{e:#}"), None))
        });
        let Some(made) = made else { return };
        let tls = &config.storage.clickhouse.tls;
        for address in &made.addresses {
            let Some((host, port)) = self.done("address", || authority(address)) else { continue };
            let files = TlsFiles {
                ca: tls.ca_file.as_ref(),
                cert: tls.cert_file.as_ref(),
                key: tls.key_file.as_ref(),
            };
            let tls = address.starts_with("https://").then_some(files);
            let Some(stream) = self.reach(&Place { host: &host, port, tls }).await else { continue };
            let patience = self.patience;
            let pong = self.step("ping", async { ping(stream, &host, patience).await }).await;
            if pong.is_none() {
                continue;
            }
            let one = ClickHouseConfig { addresses: vec![address.clone()], ..made.clone() };
            self.clickhouse_inside(&one).await;
        }
    }

    /// As whom we are let in, and what is there.
    async fn clickhouse_inside(&mut self, config: &ClickHouseConfig) {
        let clock = Arc::clone(&self.clock);
        let let_in = async {
            // Every server has this database.
            let anywhere = ClickHouseConfig { database: "system".to_owned(), ..config.clone() };
            let servers = Servers::new(&anywhere, clock).map_err(|e| Wrong::new(e, None))?;
            let rows = servers.rows(&Statement::new("SELECT version()")).await.map_err(refused)?;
            let version = rows.all(|row| row.string()).await.map_err(refused)?.pop().unwrap_or_default();
            Ok((format!("user {}, ClickHouse {}", config.username, line(&version)), ()))
        };
        if self.step("authenticate", let_in).await.is_none() {
            return;
        }
        let clock = Arc::clone(&self.clock);
        self.step("schema", async {
            let migrator = Migrator::new(config, clock).map_err(|e| Wrong::new(e, None))?;
            let state = migrator.state().await.map_err(refused)?;
            match OURS.problem(&state, migrator.target()) {
                Some(problem) => Err(Wrong::new(problem, None)),
                None => Ok((format!("version {} in database {}", state.version(), config.database), ())),
            }
        })
        .await;
    }

    async fn redis(&mut self, config: &Config) {
        let made = self.done("configure", || {
            redis::config(&config.redis, 0).map_err(|e| Wrong::new(format!("{e:#}"), None))
        });
        let Some(made) = made else { return };
        let tls = &config.redis.tls;
        let files =
            TlsFiles { ca: tls.ca_file.as_ref(), cert: tls.cert_file.as_ref(), key: tls.key_file.as_ref() };
        let mut reached = false;
        for (host, port) in &made.addresses {
            let place = Place { host, port: *port, tls: made.tls.as_ref().map(|_| files) };
            reached |= self.reach(&place).await.is_some();
        }
        if !reached {
            return;
        }
        let clock = Arc::clone(&self.clock);
        let signed_in = self.step("authenticate", async {
            let link =
                redis::link(&config.redis, 0, clock).map_err(|e| Wrong::new(format!("{e:#}"), None))?;
            let link = link.ok_or_else(|| Wrong::new("it is not used", None))?;
            link.tried().await.map_err(redis_refused)?;
            let user = made.username.as_deref().unwrap_or("default");
            Ok((format!("user {user}, database {}, a key can be set", made.db), link))
        });
        let Some(link) = signed_in.await else { return };
        self.redis_commands(config, &link).await;
    }

    /// Whether Redis does for us what we will ask of it.
    async fn redis_commands(&mut self, config: &Config, link: &RedisLink) {
        let (patience, prefix) = (self.patience, link.prefix());
        let key = format!("{prefix}:probe");
        self.step("ping", async {
            link.call(&::redis::cmd("PING"), patience).await.map_err(redis_refused)?;
            Ok(("PONG".to_owned(), ()))
        })
        .await;
        if config.redis.rate_limit {
            self.step("rate limits", async {
                let mut script = ::redis::cmd("EVAL");
                script.arg("return redis.call('HMGET', KEYS[1] .. ':none', 'a', redis.call('TIME')[1])");
                link.call(script.arg(1).arg(&key), patience).await.map_err(redis_refused)?;
                Ok(("scripts run".to_owned(), ()))
            })
            .await;
        }
        if config.redis.key_store.enabled {
            self.step("key store", async {
                let mut count = ::redis::cmd("SCARD");
                let answer = link.call(count.arg(format!("{prefix}:keys")), patience).await;
                let keys: u64 = ::redis::from_redis_value(answer.map_err(redis_refused)?)
                    .map_err(|e| Wrong::new(e, None))?;
                Ok((format!("{keys} keys"), ()))
            })
            .await;
            let mut policy = ::redis::cmd("CONFIG");
            policy.arg("GET").arg("maxmemory-policy");
            // Who may not ask for it is not told; nothing of ours needs it.
            if let Ok(answer) = link.call(&policy, patience).await
                && let Ok(pair) = ::redis::from_redis_value::<Vec<String>>(answer)
                && let Some(policy) = pair.get(1)
            {
                let hint = policy.starts_with("allkeys").then_some(
                    "keys may be evicted, and their holders turned away; set maxmemory-policy noeviction",
                );
                self.told(Step { name: "eviction", outcome: Ok(line(policy)), hint });
            }
        }
    }

    async fn jwks(&mut self, config: &Config) {
        let jwt = &config.auth.jwt;
        let files = TlsFiles { ca: jwt.ca_file.as_ref(), cert: None, key: None };
        for url in jwt.jwks_url.iter().chain(&jwt.oidc_issuer) {
            let Some((host, port)) = self.done("address", || authority(url)) else { return };
            let tls = url.starts_with("https://").then_some(files);
            if self.reach(&Place { host: &host, port, tls }).await.is_none() {
                return;
            }
        }
        let clock = Arc::clone(&self.clock);
        let opened = self.done("configure", || {
            JwtVerifier::open(&jwt::config(jwt), clock).map_err(|e| Wrong::new(e, None))
        });
        let Some(verifier) = opened else { return };
        let patience = self.patience;
        let fetched = match tokio::time::timeout(patience, verifier.fetch_once()).await {
            Ok(fetched) => fetched,
            Err(_) => {
                self.told(failed("fetch", Wrong::new(late(patience), None)));
                return;
            }
        };
        for (place, outcome) in fetched {
            let outcome = outcome.map_err(|why| line(&why)).and_then(|(keys, left_out)| {
                let left = match left_out.as_slice() {
                    [] => String::new(),
                    some => format!("; left out: {}", line(&some.join("; "))),
                };
                match keys {
                    0 => Err(format!("{place} has no key that can be used{left}")),
                    keys => Ok(format!("{keys} keys from {place}{left}")),
                }
            });
            let hint = outcome.is_err().then_some("tokens signed by this issuer are refused until it works");
            self.told(Step { name: "fetch", outcome, hint });
        }
    }

    async fn dns(&mut self, config: &Config) {
        let mut hosts = Vec::new();
        if Dependency::ClickHouse.unused(config).is_none() {
            hosts.extend(config.storage.clickhouse.addresses.iter().filter_map(|at| authority(at).ok()));
        }
        if Dependency::Redis.unused(config).is_none() {
            match &config.redis.url {
                Some(RedisUrl::Inline(servers)) => hosts.extend(servers.addresses.iter().cloned()),
                // What is in it is a secret, and told by the steps of Redis.
                Some(RedisUrl::File(_)) | None => {}
            }
        }
        let jwt = &config.auth.jwt;
        hosts.extend(jwt.jwks_url.iter().chain(&jwt.oidc_issuer).filter_map(|url| authority(url).ok()));
        if hosts.is_empty() {
            let outcome = Ok("the configuration names no other host".to_owned());
            self.told(Step { name: "resolve", outcome, hint: None });
        }
        for (host, port) in hosts {
            self.resolve(&host, port).await;
        }
    }

    async fn resolve(&mut self, host: &str, port: u16) -> Option<Vec<SocketAddr>> {
        self.step("resolve", async {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let found: Vec<SocketAddr> = tokio::net::lookup_host((bare, port))
                .await
                .map_err(|e| {
                    let hint =
                        "is the name right? in Kubernetes, a Service of another namespace is name.namespace";
                    Wrong::new(format!("{host}: {e}"), Some(hint))
                })?
                .collect();
            if found.is_empty() {
                return Err(Wrong::new(format!("{host} has no address"), None));
            }
            let ips: Vec<String> = found.iter().map(|at| at.ip().to_string()).collect();
            Ok((format!("{host} is {}", ips.join(", ")), found))
        })
        .await
    }

    /// Resolves, connects, and shakes hands where that is wanted.
    async fn reach(&mut self, place: &Place<'_>) -> Option<Box<dyn Stream>> {
        let addresses = self.resolve(place.host, place.port).await?;
        let stream = self.step("connect", connect(&addresses)).await?;
        let Some(files) = place.tls else { return Some(Box::new(stream)) };
        let stream = self.step("tls", async {
            let config = tls(files)?;
            let name = place.host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(name).map_err(|e| Wrong::new(e, None))?;
            let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
            let stream = connected.map_err(|e| Wrong { hint: hint_of_tls(&e.to_string()), why: line(&e) })?;
            let version = stream.get_ref().1.protocol_version().and_then(|version| version.as_str());
            Ok((format!("{}, and the certificate is trusted", version.unwrap_or("TLS")), stream))
        });
        Some(Box::new(stream.await?))
    }

    /// Takes a step that may wait for others.
    async fn step<T>(
        &mut self,
        name: &'static str,
        taken: impl Future<Output = Result<(String, T), Wrong>>,
    ) -> Option<T> {
        let outcome = match tokio::time::timeout(self.patience, taken).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let hint = "is a firewall or a NetworkPolicy in between?";
                Err(Wrong::new(late(self.patience), (name == "connect").then_some(hint)))
            }
        };
        match outcome {
            Ok((what, value)) => {
                self.told(Step { name, outcome: Ok(what), hint: None });
                Some(value)
            }
            Err(wrong) => {
                self.told(failed(name, wrong));
                None
            }
        }
    }

    /// Takes a step that is worth telling of only if it fails.
    fn done<T>(&mut self, name: &'static str, taken: impl FnOnce() -> Result<T, Wrong>) -> Option<T> {
        match taken() {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.told(failed(name, wrong));
                None
            }
        }
    }

    fn told(&mut self, step: Step) {
        self.well &= step.outcome.is_ok();
        (self.tell)(&step);
    }
}

fn failed(name: &'static str, wrong: Wrong) -> Step {
    Step { name, outcome: Err(wrong.why), hint: wrong.hint }
}

fn late(patience: Duration) -> String {
    format!("no answer within {patience:?}")
}

/// One line of what somebody else said, which may be long.
fn line(text: &impl Display) -> String {
    let text = text.to_string();
    let words: Vec<&str> = text.split_whitespace().collect();
    let joined = words.join(" ");
    match joined.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &joined[..end]),
        None => joined,
    }
}

/// Host and port of a URL.
fn authority(url: &str) -> Result<(String, u16), Wrong> {
    let wrong = || Wrong::new(format!("{url:?} is not a URL"), None);
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let authority = uri.authority().ok_or_else(wrong)?;
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    Ok((authority.host().to_owned(), authority.port_u16().unwrap_or(default)))
}

/// Connects to the first address that lets us.
async fn connect(addresses: &[SocketAddr]) -> Result<(String, TcpStream), Wrong> {
    let mut last = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok((address.to_string(), stream)),
            Err(error) => last = Some((address, error)),
        }
    }
    Err(match last {
        Some((address, error)) => {
            let hint = match error.kind() {
                io::ErrorKind::ConnectionRefused => {
                    Some("nothing listens there: is the port right, and does it run?")
                }
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
                    Some("is a firewall or a NetworkPolicy in between?")
                }
                _ => None,
            };
            Wrong::new(format!("{address}: {error}"), hint)
        }
        None => Wrong::new("there is no address", None),
    })
}

/// Asks ClickHouse's HTTP interface whether it is one.
async fn ping(stream: Box<dyn Stream>, host: &str, patience: Duration) -> Result<(String, ()), Wrong> {
    const OTHER: &str = "ClickHouse's HTTP interface is at 8123, or 8443 with TLS; 9000 is another protocol";
    let broken = |e: &dyn Display| Wrong::new(format!("what answers does not speak HTTP: {e}"), Some(OTHER));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
    // It ends with the sender, or when nothing more comes of it.
    drop(task::spawn("ping", async move {
        let _ = tokio::time::timeout(patience, connection).await;
    }));
    let request = Request::get("/ping")
        .header(header::HOST, host)
        .body(Empty::<Bytes>::new())
        .map_err(|e| Wrong::new(e, None))?;
    let answer = sender.send_request(request).await.map_err(|e| broken(&e))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_PONG_BYTES).collect().await;
    let body = body.map_err(|e| Wrong::new(format!("the answer broke off: {e}"), Some(OTHER)))?.to_bytes();
    let text = String::from_utf8_lossy(&body);
    if status.is_success() && text.trim() == "Ok." {
        Ok(("Ok.".to_owned(), ()))
    } else {
        Err(Wrong::new(format!("{status}: {text}"), Some(OTHER)))
    }
}

/// What is usually the matter with TLS.
fn hint_of_tls(error: &str) -> Option<&'static str> {
    if error.contains("UnknownIssuer") {
        Some("nobody we trust vouches for it: set tls.ca_file")
    } else if error.contains("NotValidForName") || error.contains("not valid for name") {
        Some("the certificate is for another name than the address has")
    } else if error.contains("Expired") || error.contains("expired") {
        Some("the certificate, or this machine's clock, is out of date")
    } else if error.contains("InvalidContentType") || error.contains("eof") {
        Some("does it speak TLS at that port?")
    } else if error.contains("CertificateRequired") {
        Some("it wants a certificate of ours: tls.cert_file and tls.key_file")
    } else {
        None
    }
}

/// What ClickHouse says, and what is usually meant.
fn refused(failure: Failure) -> Wrong {
    let hint = match (failure.class, failure.code) {
        // UNKNOWN_USER, WRONG_PASSWORD, REQUIRED_PASSWORD, AUTHENTICATION_FAILED.
        (_, Some(192..=194 | 516)) => Some("see storage.clickhouse.username and password_file"),
        (Class::Unreachable, None) => Some("is it ClickHouse that answers, or a proxy before it?"),
        _ => None,
    };
    Wrong::new(failure, hint)
}

/// What Redis says, and what is usually meant.
fn redis_refused(why: impl Display) -> Wrong {
    let text = why.to_string();
    // The library has the server's words in a spelling of its own.
    let lower = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let hint = if has(&["wrongpass", "invalid password", "password authentication failed"]) {
        Some("see redis.username and redis.password_file")
    } else if has(&["noauth", "authentication required"]) {
        Some("it wants a password: redis.password_file")
    } else if has(&["noperm"]) {
        Some("the user needs these commands, and the keys under redis.prefix (ACL)")
    } else if has(&["moved", "clusterdown", "cluster support disabled"]) {
        Some("is it a cluster, and does redis.cluster say so?")
    } else if has(&["readonly"]) {
        Some("this is a replica; name the primary")
    } else {
        None
    };
    Wrong::new(text, hint)
}

/// Certificates as the configuration names them.
fn tls(files: TlsFiles<'_>) -> Result<ClientConfig, Wrong> {
    let about = |file: &Path, why: &dyn Display| Wrong::new(format!("{}: {why}", file.display()), None);
    let certificates = |file: &Path| {
        CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| about(file, &e))
    };
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| Wrong::new(e, None))?;
    let builder = match files.ca {
        None => builder.with_native_roots().map_err(|e| {
            Wrong::new(format!("cannot read the system's certificates: {e}"), Some("set tls.ca_file"))
        })?,
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|e| about(file, &e))?;
            }
            if roots.is_empty() {
                return Err(about(file, &"there is no certificate in it"));
            }
            builder.with_root_certificates(roots)
        }
    };
    match (files.cert, files.key) {
        (Some(cert), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key).map_err(|e| about(key, &e))?;
            builder.with_client_auth_cert(certificates(cert)?, private).map_err(|e| about(cert, &e))
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_is_one_short_line() {
        assert_eq!(line(&"a\n  b\tc \n"), "a b c");
        assert_eq!(line(&"é".repeat(SHOWN)).chars().count(), SHOWN);
        assert_eq!(line(&"é".repeat(SHOWN + 1)).chars().count(), SHOWN + 1);
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        let of = |url: &str| authority(url).map_err(|wrong| wrong.why);
        assert_eq!(of("http://a:8123"), Ok(("a".to_owned(), 8123)));
        assert_eq!(of("https://id.example.com/realms/a"), Ok(("id.example.com".to_owned(), 443)));
        assert_eq!(of("http://[::1]/"), Ok(("[::1]".to_owned(), 80)));
        assert!(of("a b").is_err() && of("/x").is_err());
    }

    #[test]
    fn what_is_usually_meant_is_told() {
        let redis = |text: &str| redis_refused(text).hint.unwrap_or_default();
        assert!(redis("WRONGPASS invalid username-password pair").contains("password_file"));
        assert!(redis("NOPERM this user has no permissions").contains("ACL"));
        assert!(redis("NoPerm: this user has no permissions").contains("ACL"));
        assert!(redis("NOAUTH Authentication required.").contains("wants a password"));
        assert_eq!(redis("something else"), "");
        assert!(hint_of_tls("invalid peer certificate: UnknownIssuer").unwrap().contains("ca_file"));
        assert!(hint_of_tls("received corrupt message of type InvalidContentType").is_some());
        let denied = Failure::new(Class::Denied, "no").with_code(Some(516));
        assert!(refused(denied).hint.unwrap().contains("username"));
    }
}
