//! How a connection to Redis comes about: to one server or to a cluster, plain or by TLS, signed in.

use std::{fmt, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, TlsCertificates, Value,
    aio::MultiplexedConnection,
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
};

use super::breaker::BreakerLimits;
use crate::model::Secret;

/// Where Redis is, and how we use it.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// Host and port: of one server, or of some nodes of a cluster.
    pub addresses: Vec<(String, u16)>,
    /// Whether it is a cluster.
    pub cluster: bool,
    /// How it is spoken to by TLS, if it is.
    pub tls: Option<RedisTlsConfig>,
    /// Who we are to it; none is its default user.
    pub username: Option<String>,
    /// Our password.
    pub password: Option<Secret>,
    /// The database.
    pub db: u32,
    /// What the names of our keys begin with.
    pub prefix: String,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// When it is left alone.
    pub breaker: BreakerLimits,
    /// Unlike that of any other process.
    pub seed: u64,
}

/// How Redis is spoken to by TLS: PEM, as read from files.
#[derive(Clone, Default)]
pub struct RedisTlsConfig {
    /// Whom to trust instead of the system's certificates.
    pub ca: Option<Vec<u8>>,
    /// Our certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for RedisTlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ca, identity } = self;
        f.debug_struct("RedisTlsConfig")
            .field("ca", &ca.is_some())
            .field("identity", &identity.is_some())
            .finish()
    }
}

/// Redis cannot be used as configured.
#[derive(Debug, thiserror::Error)]
#[error("redis cannot be used as configured")]
pub struct RedisConfigError(#[source] RedisError);

/// Makes connections.
#[derive(Debug)]
pub struct Connector {
    target: Target,
    connect_timeout: Duration,
    /// Written to see whether Redis takes what we send.
    probe: Cmd,
}

enum Target {
    Server(Box<Client>),
    Cluster(Box<ClusterClient>),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(client) => write!(f, "{}", client.get_connection_info().addr()),
            Self::Cluster(_) => f.write_str("cluster"),
        }
    }
}

impl Connector {
    /// Checks a configuration; does not connect.
    pub fn new(config: &RedisConfig) -> Result<Self, RedisConfigError> {
        let certificates = config.tls.as_ref().map(|tls| TlsCertificates {
            client_tls: tls
                .identity
                .clone()
                .map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key }),
            root_cert: tls.ca.clone(),
        });
        let nodes = config.addresses.iter().map(|address| connection_info(config, address));
        let nodes = nodes.collect::<Result<Vec<_>, _>>().map_err(RedisConfigError)?;
        let target = if config.cluster {
            let mut builder = ClusterClientBuilder::new(nodes)
                .connection_timeout(config.connect_timeout)
                // A call that is given up by its caller must not hold its place for longer than this.
                .overall_response_timeout(Some(Duration::from_secs(1)))
                .retries(2);
            if let Some(certificates) = certificates {
                builder = builder.certs(certificates);
            }
            Target::Cluster(Box::new(builder.build().map_err(RedisConfigError)?))
        } else {
            let no_server =
                || RedisError::from((redis::ErrorKind::InvalidClientConfig, "no server is named"));
            let node = nodes.into_iter().next().ok_or_else(no_server).map_err(RedisConfigError)?;
            let client = match certificates {
                Some(certificates) => Client::build_with_tls(node, certificates),
                None => Client::open(node),
            };
            Target::Server(Box::new(client.map_err(RedisConfigError)?))
        };
        let mut probe = redis::cmd("SET");
        probe.arg(format!("{}:probe", config.prefix)).arg(1).arg("PX").arg(60_000);
        Ok(Self { target, connect_timeout: config.connect_timeout, probe })
    }

    /// Makes a connection on which Redis takes what we write.
    pub(super) async fn connect(&self) -> Result<Connection, RedisError> {
        let connecting = async {
            let connection = match &self.target {
                Target::Server(client) => {
                    let config = AsyncConnectionConfig::new()
                        .set_connection_timeout(Some(self.connect_timeout))
                        // Each call has its own.
                        .set_response_timeout(None);
                    Connection::Server(client.get_multiplexed_async_connection_with_config(&config).await?)
                }
                Target::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
            };
            connection.run(&self.probe).await?;
            Ok(connection)
        };
        match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }
}

fn connection_info(config: &RedisConfig, (host, port): &(String, u16)) -> Result<ConnectionInfo, RedisError> {
    let address = match config.tls {
        Some(_) => {
            ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
        }
        None => ConnectionAddr::Tcp(host.clone(), *port),
    };
    let mut login = RedisConnectionInfo::default().set_db(i64::from(config.db)).set_skip_set_lib_name();
    if let Some(username) = &config.username {
        login = login.set_username(username);
    }
    if let Some(password) = &config.password {
        login = login.set_password(&password.0);
    }
    Ok(address.into_connection_info()?.set_redis_settings(login))
}

/// A connection that any number of calls share.
#[derive(Clone)]
pub(super) enum Connection {
    /// To one server.
    Server(MultiplexedConnection),
    /// To the nodes of a cluster.
    Cluster(ClusterConnection),
}

impl Connection {
    /// Sends a command, and gives what comes back.
    pub(super) async fn run(&self, command: &Cmd) -> Result<Value, RedisError> {
        match self {
            Self::Server(connection) => command.query_async(&mut connection.clone()).await,
            Self::Cluster(connection) => command.query_async(&mut connection.clone()).await,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server(_) => "Server",
            Self::Cluster(_) => "Cluster",
        })
    }
}
