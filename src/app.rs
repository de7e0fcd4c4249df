//! Builds the parts from the configuration, runs them, and takes them down in order.
//!
//! ```text
//! up:    signals ─ port ─ store ─ ingest, engine, query ─ gateway ─ ready ─ self-scrape
//! down:  signal ─ not ready ─ delay ─ no new connections ─ requests end ─ self-scrape ends ─ store closes
//! ```
//!
//! The port is taken before the store is opened: who starts a second server by mistake learns it
//! at once, and clients wait in the port's queue instead of being turned away. A signal is heard at
//! any moment; while the store opens it simply ends the process, because opening can be interrupted
//! anywhere. A second signal ends the draining.
//!
//! This is the one place that names a backend; everybody else holds an `Arc<dyn Storage>`.

pub mod allocator;
pub mod archive;
mod auth;
pub mod backup;
mod card;
mod clickhouse;
pub mod dependencies;
mod exposure;
mod figures;
pub mod jwt;
pub mod keys;
pub mod limits;
mod listeners;
pub mod mend;
mod open_files;
mod redis;
pub mod retention;
pub mod schema;
mod secret;
mod signals;
pub mod token;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    clock::Clock,
    config::{AuthMode, Backend, Config, Settings, Storage as StorageConfig, WalSync},
    gateway::{
        GatewayConfig, MetricsRenderer, State,
        body::BodyLimits,
        health::{Readiness, Stage},
        host_guard::HostGuard,
        limit::{
            Limiter,
            buckets::Buckets,
            local::{self, LocalBuckets},
        },
        reload::Reload,
        request::RequestCounters,
        running::Running,
    },
    ingest::{Ingest, IngestLimits},
    model::quantity::format_duration,
    promql::{Engine, EngineOptions, Features},
    query::{
        QueryLimits, QueryService,
        cache::{CacheConfig, RangeCache},
    },
    self_scrape::SelfScrape,
    storage::{
        Storage,
        clickhouse::ClickHouseStore,
        embedded::{self, EmbeddedConfig, EmbeddedStore, disk::SystemDisk},
    },
    task,
    telemetry::{self, Telemetry},
};

use allocator::GivingBack;
use limits::Limits;
use listeners::Listeners;
use signals::Signals;

/// The stack that the runtime's threads need, which parse queries.
pub use crate::promql::parse::STACK_BYTES;

/// Unpredictable numbers for the whole process; drawn by whoever starts it.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    /// Keys the hashes of what senders send.
    pub ingest: (u64, u64),
    /// Makes what the store sends to servers unlike that of other processes.
    pub storage: u64,
    /// Makes the ids of requests unlike those of other processes.
    pub request_ids: u64,
}

/// What the person who starts the server should see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// A card on standard error; `configured` tells whether a file was named.
    Card {
        /// A file was named.
        configured: bool,
    },
    /// Log lines are all.
    None,
}

/// Runs a server until it is told to stop. Everything acknowledged is durable when this returns.
pub async fn run(
    config: Config,
    settings: &Settings,
    clock: Arc<dyn Clock>,
    seeds: Seeds,
    greeting: Greeting,
) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let hangups = signals::hangups().context("cannot listen for signals")?;
    exposure::warn(&config);
    let listeners = Listeners::bind(&config, open_files::raise_limit()).await?;
    let (address, admin_address) = (listeners.public(), listeners.admin());
    let store = card::Store::of(&config.storage);
    let _giving_back = GivingBack::start().context("cannot start the thread that gives memory back")?;

    let opened = tokio::select! {
        opened = open_store(&config.storage, memory(&config), seeds.storage, Arc::clone(&clock)) => opened?,
        () = signals.next() => {
            tracing::info!(event = "stopped", "told to stop while opening the store");
            return Ok(());
        }
    };
    let opened =
        Opened { figures: opened.figures.into_iter().chain(listeners.figures()).collect(), ..opened };
    let storage = Arc::clone(&opened.storage);
    let parts = match Parts::build(
        &config,
        running(&config, settings, &*clock),
        opened,
        Arc::clone(&clock),
        seeds,
        address,
        listeners.reload(),
    ) {
        Ok(parts) => parts,
        Err(error) => {
            // The next start is not to take for a crash that the configuration would not do.
            if let Err(unclosed) = close(&*storage, config.server.shutdown.grace).await {
                tracing::warn!(event = "close_failed", error = format!("{unclosed:#}"));
            }
            return Err(error);
        }
    };

    let kept_current = limits::keep_current(&parts.state, config.storage.backend, hangups).await;
    parts.readiness.enter(Stage::Serving);
    tracing::info!(
        event = "started",
        version = env!("CARGO_PKG_VERSION"),
        listen = %address,
        admin_listen = admin_address.map(tracing::field::display),
        backend = config.storage.backend.name(),
        store = %store.place,
    );
    match greeting {
        Greeting::Card { configured } => card::print(&config, &store, address, configured),
        Greeting::None => {}
    }

    let (stop_scraping, scraping) = parts.scrape_self(&config, address);
    let (drain, draining) = watch::channel(false);
    let mut serving = listeners.serve(&parts.state, draining);

    signals.next().await;
    let began = clock.elapsed();
    parts.readiness.enter(Stage::Draining);
    tracing::info!(event = "stopping", delay_ms = millis(config.server.shutdown.delay));
    let drained = async {
        tokio::time::sleep(config.server.shutdown.delay).await;
        drain.send_replace(true);
        let cut = (&mut serving).await.unwrap_or_default();
        stop_scraping.send_replace(true);
        if let Some(scraping) = scraping {
            // It ends within a moment; had it panicked, that was logged.
            let _ = scraping.await;
        }
        drop(kept_current);
        // The delay comes on top: it is time in which everything still works.
        let spent = clock.elapsed().saturating_sub(began).saturating_sub(config.server.shutdown.delay);
        close(&*parts.state.storage, config.server.shutdown.grace.saturating_sub(spent)).await?;
        tracing::info!(event = "stopped", connections_cut = cut);
        anyhow::Ok(())
    };
    tokio::select! {
        outcome = drained => outcome,
        () = signals.insisted() => bail!("told to stop a second time, so requests were cut short"),
    }
}

/// A store, and what gives its figures.
struct Opened {
    storage: Arc<dyn Storage>,
    /// The store, if it shares memory with queries.
    sharing: Option<Arc<EmbeddedStore>>,
    figures: Vec<telemetry::Source>,
}

async fn open_store(
    config: &StorageConfig,
    memory: u64,
    seed: u64,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Opened> {
    match config.backend {
        Backend::Embedded => {
            let embedded = EmbeddedConfig {
                retention: config.retention,
                tenant_retention: config.tenant_retention.clone(),
                retention_rules: retention::rules(config)?,
                wal_sync: match config.embedded.wal_sync {
                    WalSync::Commit => embedded::WalSync::Commit,
                    WalSync::Interval => embedded::WalSync::Interval(config.embedded.wal_sync_interval),
                    WalSync::Os => embedded::WalSync::Os,
                },
                ballast_bytes: config.embedded.ballast.0,
                ..EmbeddedConfig::new(&config.embedded.data_dir)
            };
            let embedded = embedded.within(memory);
            let runtime = tokio::runtime::Handle::current();
            let open = move || {
                // The store starts its background work on the runtime it is opened in.
                let _entered = runtime.enter();
                EmbeddedStore::open(embedded, Arc::new(SystemDisk), clock)
            };
            let store = tokio::task::spawn_blocking(open)
                .await
                .context("opening the store panicked")?
                .with_context(|| cannot_open(&config.embedded.data_dir))?;
            let disk = figures::disk(config.embedded.data_dir.clone());
            let figures = vec![figures::embedded(Arc::clone(&store)), disk];
            Ok(Opened { figures, sharing: Some(Arc::clone(&store)), storage: store })
        }
        Backend::ClickHouse => {
            let store = ClickHouseStore::open(clickhouse::config(config, seed)?, clock)
                .context("cannot set up the connections to ClickHouse")?;
            let figures = vec![
                figures::clickhouse::client(Arc::clone(&store)),
                figures::clickhouse::servers(Arc::clone(&store)),
                figures::clickhouse::writes(Arc::clone(&store)),
                figures::clickhouse::reads(Arc::clone(&store)),
                figures::clickhouse::pushdown(Arc::clone(&store)),
                figures::clickhouse::rollups(Arc::clone(&store)),
            ];
            Ok(Opened { figures, sharing: None, storage: store })
        }
    }
}

fn cannot_open(data_dir: &Path) -> String {
    format!("cannot open the data directory {}", data_dir.display())
}

/// The parts, connected.
struct Parts {
    state: Arc<State>,
    readiness: Arc<Readiness>,
    telemetry: Arc<Telemetry>,
}

impl Parts {
    fn build(
        config: &Config,
        running: Running,
        opened: Opened,
        clock: Arc<dyn Clock>,
        seeds: Seeds,
        address: SocketAddr,
        certificates: Option<Arc<dyn Reload>>,
    ) -> anyhow::Result<Self> {
        let Opened { storage, sharing, figures: store_figures } = opened;
        let ingest = Arc::new(Ingest::new(
            Arc::clone(&storage),
            Arc::clone(&clock),
            ingest_limits(config),
            seeds.ingest,
        ));
        let engine = Engine::new(Arc::clone(&storage), engine_options(config), Arc::clone(&clock))
            .context("cannot start the threads that evaluate queries")?;
        let query_memory = engine.memory();
        if let Some(store) = sharing {
            let queries = Arc::clone(&query_memory);
            store.share_memory(Arc::new(move || queries.held()));
        }
        let engine = Arc::new(engine);
        let redis = redis::link(&config.redis, seeds.request_ids, Arc::clone(&clock))?;
        let mut cache =
            RangeCache::new(Arc::<Engine>::clone(&engine), Arc::clone(&storage), cache_config(config));
        if let Some(answers) = redis::answers(&config.redis, redis.as_ref()) {
            cache = cache.with_second(answers);
        }
        let service =
            QueryService::new(engine, Arc::clone(&storage), Arc::clone(&clock), query_limits(config));
        let query = Arc::new(service.with_cache(cache).with_memory(Arc::clone(&query_memory)));
        let counters = Arc::new(RequestCounters::default());
        let readiness = Arc::new(Readiness::new(config.health.ready_requires_storage));
        let buckets: Arc<dyn Buckets> =
            match redis::buckets(&config.redis, redis.as_ref(), Arc::clone(&clock)) {
                Some(shared) => shared,
                None => Arc::new(LocalBuckets::new(Arc::clone(&clock), local::TENANTS)),
            };
        let callers = auth::callers(config, &clock, seeds.request_ids, redis.as_ref())?;
        let audit = Arc::new(auth::audit(&config.audit, Arc::clone(&clock))?);
        let others = callers.reloads.into_iter().chain(certificates).collect();
        let limits = Limits::build(config, &storage, others, Arc::clone(&audit), &clock)?;
        let limiter = Arc::new(Limiter::new(Arc::clone(&limits.table), buckets));
        let mut sources = vec![
            telemetry::requests::source(Arc::clone(&counters)),
            figures::ingest(Arc::clone(&ingest)),
            figures::query(Arc::clone(&query), query_memory),
            figures::limits::limits(Arc::clone(&limiter)),
            figures::limits::reloads(Arc::clone(&limits.reloads), Arc::clone(&limits.table)),
        ];
        sources.extend(callers.figures);
        sources.extend(store_figures);
        sources.push(figures::health(Arc::clone(&storage), Arc::clone(&readiness)));
        sources.push(figures::limits::crowd(Arc::clone(&limiter), Arc::clone(&storage)));
        sources.extend(redis.clone().map(figures::redis::link));
        sources.push(telemetry::process::source(Arc::clone(&clock)));
        let telemetry = Telemetry::new(sources);
        let rendered = Arc::clone(&telemetry);
        let state = Arc::new(State {
            ingest,
            query,
            storage,
            clock: Arc::clone(&clock),
            render_metrics: MetricsRenderer(Arc::new(move |format| rendered.render_as(format))),
            config: gateway_config(config, address, seeds.request_ids),
            running,
            audit,
            auth: Arc::new(callers.auth),
            limiter,
            user_overrides: limits.users,
            reloads: limits.reloads,
            redis,
            readiness: Arc::clone(&readiness),
            counters,
        });
        Ok(Self { state, readiness, telemetry })
    }

    /// Starts keeping our own metrics, if that is wanted; gives what ends it.
    fn scrape_self(
        &self,
        config: &Config,
        address: SocketAddr,
    ) -> (watch::Sender<bool>, Option<JoinHandle<()>>) {
        let (stop, stopped) = watch::channel(false);
        if !config.self_scrape.enabled {
            return (stop, None);
        }
        let telemetry = Arc::clone(&self.telemetry);
        let scrape = SelfScrape::new(
            Arc::clone(&self.state.storage),
            Arc::clone(&self.state.clock),
            Arc::new(move || telemetry.render()),
            config.self_scrape.tenant.clone(),
            address.to_string(),
        );
        let running = task::spawn("self_scrape", scrape.run(config.self_scrape.interval, raised(stopped)));
        (stop, Some(running))
    }
}

/// Closes the store within `grace`. What was acknowledged is durable before; closing saves the next
/// start some work, so that being late is no failure.
async fn close(storage: &dyn Storage, grace: Duration) -> anyhow::Result<()> {
    match tokio::time::timeout(grace.max(Duration::from_secs(1)), storage.close()).await {
        Ok(closed) => closed.context("cannot close the store"),
        Err(_) => {
            tracing::warn!(event = "close_timed_out", grace_ms = millis(grace));
            Ok(())
        }
    }
}

/// Waits until the flag is raised, or nobody is left to raise it.
async fn raised(mut flag: watch::Receiver<bool>) {
    // An error is that nobody is left.
    let _ = flag.wait_for(|raised| *raised).await;
}

/// What whoever operates the process is told of it.
fn running(config: &Config, settings: &Settings, clock: &dyn Clock) -> Running {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Running {
        config: settings.to_yaml(),
        started: clock.now(),
        directory: std::env::current_dir().map(|path| path.display().to_string()).unwrap_or_default(),
        host: host.trim_end().to_owned(),
        retention: config.storage.retention.map(format_duration).unwrap_or_default(),
        memory_limit: telemetry::memory_limit(),
    }
}

fn gateway_config(config: &Config, address: SocketAddr, request_id_seed: u64) -> GatewayConfig {
    let limits = config.server.limits;
    let defaults = GatewayConfig::default();
    let admin_ip = config.server.admin_listen.map(|address| address.ip());
    let host_guard = match config.auth.mode {
        AuthMode::None => Some(HostGuard {
            allowed_hosts: config.server.allowed_hosts.clone(),
            any_address: !(address.ip().is_loopback() && admin_ip.is_none_or(|ip| ip.is_loopback())),
            cors_origins: config.server.cors_origins.clone(),
        }),
        // A browser shows its user's certificate for any page; by which name we are called, TLS has checked.
        AuthMode::Token if config.auth.client_certificates.enabled => Some(HostGuard {
            allowed_hosts: vec!["*".to_owned()],
            any_address: true,
            cors_origins: config.server.cors_origins.clone(),
        }),
        // Of what else we take browsers send nothing by themselves.
        AuthMode::Token => None,
    };
    let in_flight = limits.max_in_flight_bytes.as_usize();
    // What would never fit among those in flight is too large, and not to be sent again.
    let body =
        |max_bytes: usize| BodyLimits { max_bytes: max_bytes.min(in_flight), timeout: limits.body_timeout };
    GatewayConfig {
        host_guard,
        cors_origins: config.server.cors_origins.clone(),
        write_body: body(limits.max_body_bytes.as_usize()),
        form_body: body(defaults.form_body.max_bytes),
        max_body_bytes_in_flight: in_flight,
        request_timeout: limits.request_timeout,
        open_to_scrapers: config.server.admin_open || admin_ip.is_some_and(|ip| ip.is_loopback()),
        disabled_tenants: config.auth.disabled_tenants.clone(),
        request_id_seed,
        ..defaults
    }
}

fn ingest_limits(config: &Config) -> IngestLimits {
    let server = config.server.limits;
    IngestLimits {
        max_decompressed_bytes: server.max_decompressed_bytes.as_usize(),
        max_in_flight_bytes: server.max_in_flight_bytes.as_usize(),
        ..IngestLimits::default()
    }
}

fn query_limits(config: &Config) -> QueryLimits {
    QueryLimits {
        timeout: config.query.timeout,
        max_concurrency: config.query.max_concurrency,
        max_steps: i64::try_from(config.query.max_points).unwrap_or(i64::MAX),
        slow_query: config.query.slow_query,
        features: Features::default().with(config.features),
        max_samples: config.query.max_samples,
        lookback: config.query.lookback_delta,
        ..QueryLimits::default()
    }
}

/// The memory that the process plans with: what the configuration says, or six tenths of what it may have.
fn memory(config: &Config) -> u64 {
    let auto = || telemetry::process::memory_bound().map_or(u64::MAX, |bytes| bytes / 10 * 6);
    config.memory.limit.map_or_else(auto, |limit| limit.0)
}

/// What of it queries may have, if the configuration does not say.
fn query_memory(config: &Config) -> u64 {
    match memory(config) {
        u64::MAX => u64::MAX,
        bytes => bytes / 2,
    }
}

fn cache_config(config: &Config) -> CacheConfig {
    CacheConfig {
        max_bytes: config.query.cache_bytes.as_usize(),
        split: config.query.split.unwrap_or(crate::model::Millis(0)),
    }
}

fn engine_options(config: &Config) -> EngineOptions {
    EngineOptions {
        lookback: config.query.lookback_delta,
        timeout: config.query.timeout,
        max_samples: config.query.max_samples,
        default_subquery_step: config.query.default_evaluation_interval,
        features: Features::default().with(config.features),
        max_memory: config.query.max_memory.map_or_else(|| query_memory(config), |memory| memory.0),
        ..EngineOptions::default()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
