//! HTTP: the one layer that knows of it.
//!
//! [`listener`] carries connections, [`routes`] lists every route and what it asks of its caller, and
//! [`router`](mod@router) has, in the order a request meets it, the stack before them. A handler ([`api`]) parses, asks
//! a lower layer, and answers; rules live below it. What travels is written in [`wire`], what goes wrong becomes a
//! status in [`error`].
//!
//! * [`peer`]: who is at the other end of a connection.
//! * [`request`]: each request has an id, one log line and its place in the counters; [`audit`] keeps what was denied
//!   and changed.
//! * [`host_guard`] and [`cors`]: what web pages may do.
//! * [`access`]: who may do what, by [`auth`] and [`tenant`]; it alone makes the
//!   [`Sender`](crate::ingest::Sender) or [`Reader`](crate::query::Reader) that handlers of tenants' data take.
//! * [`narrow`](mod@narrow): what a request itself wants to see less of.
//! * [`deadline`]: how long a request may take.
//! * [`limit`]: how much a tenant may use; [`redis`](mod@redis): what several gateways share.
//! * [`reload`]: what is read again while we run; [`health`]: whether requests are wanted.
//! * [`portions`]: large answers leave others their time.
//! * [`running`]: what is told of the process itself.
//! * [`metrics_format`]: how our own metrics are written.
//! * [`late`]: what still comes while we are on our way out.
//! * [`form`] and [`body`]: parameters and bodies, with bounds; [`in_flight`]: the bounds on all together.
//!
//! Nothing here reads the clock or a backend: both come in with the [`State`].

pub mod access;
pub mod api;
pub mod audit;
pub mod auth;
pub mod body;
pub mod cors;
pub mod deadline;
pub mod error;
pub mod form;
pub mod health;
pub mod host_guard;
pub mod in_flight;
pub mod late;
pub mod limit;
pub mod listener;
pub mod metrics_format;
pub mod narrow;
pub mod peer;
pub mod portions;
pub mod redis;
pub mod reload;
pub mod request;
pub mod router;
pub mod routes;
pub mod running;
pub mod tenant;
pub mod unread;
pub mod wire;

use std::{fmt, sync::Arc, time::Duration};

use audit::Audit;
use auth::Auth;
use body::BodyLimits;
use health::Readiness;
use host_guard::HostGuard;
use limit::{Limiter, user::UserOverrides};
use redis::RedisLink;
use reload::Reloads;
use request::RequestCounters;
use running::Running;

use crate::{clock::Clock, ingest::Ingest, model::TenantId, query::QueryService, storage::Storage};

pub use listener::{ConnectionCount, Drained, ListenError, Listener, ListenerConfig, ListenerLimits, serve};
pub use metrics_format::MetricsFormat;
pub use router::router;
pub use routes::{Door, ROUTES};

/// How the gateway behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// What is refused while there is no authentication; none checks nothing.
    pub host_guard: Option<HostGuard>,
    /// Origins whose pages may read answers; `*` is any. Empty switches it off.
    pub cors_origins: Vec<String>,
    /// Bounds on the body of a write.
    pub write_body: BodyLimits,
    /// Bounds on a form of parameters.
    pub form_body: BodyLimits,
    /// How long a request may take, streams and orders aside.
    pub request_timeout: Duration,
    /// API requests at one time; one more is told to come back.
    pub max_in_flight: usize,
    /// Bytes of bodies that are being read or worked on at one time; a body that does not fit is told to
    /// come back.
    pub max_body_bytes_in_flight: usize,
    /// Whether whoever reaches the listener of [`Door::Admin`] may see figures and health without credentials.
    pub open_to_scrapers: bool,
    /// Tenants for whom nobody may act.
    pub disabled_tenants: Vec<TenantId>,
    /// Makes the ids of this process's requests unlike those of others.
    pub request_id_seed: u64,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        let timeout = Duration::from_secs(60);
        Self {
            host_guard: Some(HostGuard::default()),
            cors_origins: Vec::new(),
            write_body: BodyLimits { max_bytes: 32 * 1024 * 1024, timeout },
            form_body: BodyLimits { max_bytes: 10 * 1024 * 1024, timeout },
            request_timeout: Duration::from_secs(600),
            max_in_flight: 2048,
            max_body_bytes_in_flight: 256 * 1024 * 1024,
            open_to_scrapers: false,
            disabled_tenants: Vec::new(),
            request_id_seed: 0,
        }
    }
}

/// Writes our own metrics.
#[derive(Clone)]
pub struct MetricsRenderer(pub Arc<dyn Fn(MetricsFormat) -> String + Send + Sync>);

impl fmt::Debug for MetricsRenderer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetricsRenderer")
    }
}

/// What handlers work with.
#[derive(Debug)]
pub struct State {
    /// Takes writes.
    pub ingest: Arc<Ingest>,
    /// Answers queries.
    pub query: Arc<QueryService>,
    /// For what is about the store itself.
    pub storage: Arc<dyn Storage>,
    /// Times requests.
    pub clock: Arc<dyn Clock>,
    /// Writes `/metrics`.
    pub render_metrics: MetricsRenderer,
    /// How the gateway behaves.
    pub config: GatewayConfig,
    /// What whoever operates the process is told of it.
    pub running: Running,
    /// Keeps what was denied and changed.
    pub audit: Arc<Audit>,
    /// Tells who is calling.
    pub auth: Arc<Auth>,
    /// Enforces tenants' limits.
    pub limiter: Arc<Limiter>,
    /// Gives tenants limits of their own.
    pub user_overrides: Arc<UserOverrides>,
    /// What is read again while we run.
    pub reloads: Arc<Reloads>,
    /// A Redis that several gateways share, for health checks.
    pub redis: Option<Arc<RedisLink>>,
    /// Whether requests are wanted.
    pub readiness: Arc<Readiness>,
    /// What was asked and how it went.
    pub counters: Arc<RequestCounters>,
}

#[cfg(test)]
mod tests;
