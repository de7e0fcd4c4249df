//! The listeners: where everybody calls, and, if there is one, where the server is operated.

use std::{future::ready, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use async_trait::async_trait;
use tokio::{sync::watch, task::JoinHandle};

use super::raised;
use crate::{
    config::{ClientAuth, Config, ProxyProtocol, ServerTls, SubjectPart, TlsVersion},
    gateway::{
        self, ConnectionCount, Door, Listener, ListenerConfig, ListenerLimits, State,
        auth::{
            Scope,
            certificate::{CertificateRules, SubjectName},
        },
        listener::{
            TrustedProxies,
            tls::{ClientCertificates, Tls, TlsFiles},
        },
        reload::Reload,
        router,
    },
    task,
    telemetry::{Figure, Source, as_value},
};

/// Connections to be operated by; there is room for them however many others there are.
const ADMIN_CONNECTIONS: usize = 128;

/// How long idle connections are kept on our way out, at most.
const LINGER: Duration = Duration::from_millis(500);

/// How often the files of certificates are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The ports, taken and not yet served.
#[derive(Debug)]
pub(super) struct Listeners {
    public: Listener,
    admin: Option<Listener>,
    tls: Option<Arc<Tls>>,
}

impl Listeners {
    /// Reads certificates and takes the ports.
    pub(super) async fn bind(config: &Config, most_connections: usize) -> anyhow::Result<Self> {
        let server = &config.server;
        let files = server.tls.as_ref().map(tls_files);
        let tls = files.map(Tls::load).transpose().context("cannot set up TLS")?.map(Arc::new);
        let proxies = Arc::new(TrustedProxies::new(config.auth.trusted_proxies.clone()));
        let limits = limits(config, most_connections);
        let public = ListenerConfig {
            door: server.admin_listen.map_or(Door::Both, |_| Door::Public),
            limits: limits.clone(),
            proxies: Arc::clone(&proxies),
            proxy_protocol: server.proxy_protocol == ProxyProtocol::V1V2,
            tls: tls.clone(),
        };
        let public = Listener::bind(server.listen, public).await?;
        let admin = match server.admin_listen {
            None => None,
            Some(address) => {
                let limits = ListenerLimits {
                    max_connections: limits.max_connections.min(ADMIN_CONNECTIONS),
                    ..limits
                };
                let (door, proxy_protocol, tls) = (Door::Admin, false, tls.clone());
                let admin = ListenerConfig { door, limits, proxies, proxy_protocol, tls };
                Some(Listener::bind(address, admin).await?)
            }
        };
        Ok(Self { public, admin, tls })
    }

    /// Where everybody calls.
    pub(super) fn public(&self) -> SocketAddr {
        self.public.local_addr()
    }

    /// Where the server is operated, if elsewhere.
    pub(super) fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Listener::local_addr)
    }

    /// Gives the figures of connections, and of TLS.
    pub(super) fn figures(&self) -> Vec<Source> {
        let public = ("public", self.public.count());
        let admin = self.admin.as_ref().map(|admin| ("admin", admin.count()));
        let counts = [public].into_iter().chain(admin).collect();
        [connections(counts)].into_iter().chain(self.tls.clone().map(figures)).collect()
    }

    /// Certificates, as something that is read again while we run.
    pub(super) fn reload(&self) -> Option<Arc<dyn Reload>> {
        self.tls.clone().map(|tls| Arc::new(Certificates(tls)) as Arc<dyn Reload>)
    }

    /// Serves until `draining` is raised, and then until the requests at hand are done; tells how many
    /// connections had to be cut.
    pub(super) fn serve(self, state: &Arc<State>, draining: watch::Receiver<bool>) -> JoinHandle<usize> {
        let Self { public, admin, tls: _ } = self;
        let door = if admin.is_some() { Door::Public } else { Door::Both };
        let (public_is_done, public_done) = watch::channel(false);
        let router = |door| router(Arc::clone(state), door);
        let public = gateway::serve(public, router(door), raised(draining.clone()), ready(()));
        // Who operates us can look on until the last request is answered.
        let admin = admin.map(|listener| {
            gateway::serve(listener, router(Door::Admin), raised(draining), raised(public_done))
        });
        task::spawn("gateway", async move {
            let public = async {
                let drained = public.await;
                public_is_done.send_replace(true);
                drained.cut
            };
            let admin = async {
                match admin {
                    Some(admin) => admin.await.cut,
                    None => 0,
                }
            };
            let (public, admin) = tokio::join!(public, admin);
            public + admin
        })
    }
}

fn limits(config: &Config, most_connections: usize) -> ListenerLimits {
    let limits = config.server.limits;
    let grace = config.server.shutdown.grace;
    let linger = LINGER.min(grace / 6);
    ListenerLimits {
        max_connections: limits.max_connections.min(most_connections),
        max_connections_per_client: limits.max_connections_per_client,
        max_header_bytes: limits.max_header_bytes.as_usize(),
        header_timeout: limits.header_timeout,
        idle_timeout: limits.idle_timeout,
        request_timeout: limits.request_timeout,
        linger,
        // The rest of the grace is for closing the store.
        grace: grace.saturating_sub((grace / 3).min(Duration::from_secs(10))).saturating_sub(linger),
        ..ListenerLimits::default()
    }
}

fn tls_files(config: &ServerTls) -> TlsFiles {
    let certificates = match config.client_auth {
        ClientAuth::Off => None,
        ClientAuth::Optional => Some(ClientCertificates::Optional),
        ClientAuth::Required => Some(ClientCertificates::Required),
    };
    TlsFiles {
        certificate: config.cert_file.clone(),
        key: config.key_file.clone(),
        clients: config.client_ca_file.clone().zip(certificates),
        tls12: config.min_version == TlsVersion::Tls12,
    }
}

/// Who holders of certificates are, if those are credentials.
pub(super) fn certificate_rules(config: &Config) -> Option<CertificateRules> {
    let certificates = &config.auth.client_certificates;
    certificates.enabled.then(|| CertificateRules {
        tenant_from: match certificates.tenant_from {
            SubjectPart::CommonName => SubjectName::CommonName,
            SubjectPart::Organization => SubjectName::Organization,
            SubjectPart::OrganizationalUnit => SubjectName::OrganizationalUnit,
        },
        scopes: certificates.scopes.iter().filter_map(|name| Scope::of_name(name)).collect(),
    })
}

/// Certificates, as something that is read again while we run.
#[derive(Debug)]
struct Certificates(Arc<Tls>);

#[async_trait]
impl Reload for Certificates {
    fn name(&self) -> &'static str {
        "tls"
    }

    fn every(&self) -> Duration {
        LOOK_EVERY
    }

    async fn reload(self: Arc<Self>) -> Result<(), String> {
        let read = tokio::task::spawn_blocking(move || self.0.reload()).await;
        read.map_err(|stopped| stopped.to_string())?.map_err(|error| error.to_string())
    }

    async fn look(self: Arc<Self>) -> Option<Result<(), String>> {
        let looked = tokio::task::spawn_blocking(move || self.0.reload_if_changed()).await;
        match looked {
            Ok(Ok(false)) => None,
            Ok(Ok(true)) => Some(Ok(())),
            Ok(Err(error)) => Some(Err(error.to_string())),
            Err(stopped) => Some(Err(stopped.to_string())),
        }
    }
}

fn connections(listeners: Vec<(&'static str, Arc<ConnectionCount>)>) -> Source {
    let size = |count: usize| as_value(u64::try_from(count).unwrap_or(u64::MAX));
    Box::new(move || {
        let of_each = |figure: &dyn Fn(&ConnectionCount) -> Figure| -> Vec<Figure> {
            listeners.iter().map(|(name, count)| figure(count).with("listener", *name)).collect()
        };
        let figures = [
            of_each(&|count| {
                Figure::gauge(
                    "luminate_listener_connections",
                    "Connections that are open",
                    size(count.open()),
                )
            }),
            of_each(&|count| {
                let help = "Connections that may be open; more wait in the system's queue";
                Figure::gauge("luminate_listener_max_connections", help, size(count.most()))
            }),
            of_each(&|count| {
                let help = "Connections that came";
                Figure::counter("luminate_listener_accepted_connections", help, as_value(count.accepted()))
            }),
            of_each(&|count| {
                let help = "Connections closed at once because their client has too many";
                Figure::counter("luminate_listener_refused_connections", help, as_value(count.refused()))
            }),
        ];
        figures.concat()
    })
}

fn figures(tls: Arc<Tls>) -> Source {
    #[expect(clippy::cast_precision_loss, reason = "a metric's value is a float")]
    let seconds = |millis: i64| millis as f64 / 1000.0;
    Box::new(move || {
        vec![
            Figure::counter(
                "luminate_tls_reloads",
                "Times that certificates were read anew and came into force",
                as_value(tls.reloads()),
            ),
            Figure::counter(
                "luminate_tls_reload_failures",
                "Times that certificates could not be read anew, and the old ones stayed",
                as_value(tls.failures()),
            ),
            Figure::gauge(
                "luminate_tls_certificate_expiry_timestamp_seconds",
                "When the certificate in force ends",
                seconds(tls.expires().millis()),
            ),
        ]
    })
}
