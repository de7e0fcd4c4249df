//! Builds what knows tenants' limits, and keeps it current: the table, the overrides file, what the API set.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use tokio::{signal::unix::Signal, task::JoinHandle};

use crate::{
    clock::Clock,
    config::{Backend, Config},
    gateway::{
        State,
        audit::Audit,
        limit::{
            file::{self, OverridesFile},
            table::{LimitTable, Rules},
            user::UserOverrides,
        },
        reload::{Reload, Reloads},
    },
    model::{Limit, TenantLimits},
    storage::Storage,
    task,
};

/// What knows tenants' limits.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) table: Arc<LimitTable>,
    pub(super) users: Arc<UserOverrides>,
    pub(super) reloads: Arc<Reloads>,
}

impl Limits {
    /// Reads the overrides file, which has to be right; what the API set is not asked for yet. `others` were read,
    /// too, and are to be read again like these.
    pub(super) fn build(
        config: &Config,
        storage: &Arc<dyn Storage>,
        others: Vec<Arc<dyn Reload>>,
        audit: Arc<Audit>,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let table = Arc::new(LimitTable::new(rules(config)));
        let users = Arc::new(UserOverrides::new(Arc::clone(storage), Arc::clone(&table)));
        let mut parts: Vec<(Arc<dyn Reload>, _)> = vec![(Arc::clone(&users) as Arc<dyn Reload>, None)];
        if let Some(path) = &config.limits.overrides_file {
            let file = OverridesFile::open(path, config.limits.reload_interval, Arc::clone(&table));
            let file = file.map_err(anyhow::Error::msg).context("cannot use limits.overrides_file")?;
            parts.push((Arc::new(file), Some(clock.now())));
        }
        parts.extend(others.into_iter().map(|other| (other, Some(clock.now()))));
        Ok(Self { table, users, reloads: Arc::new(Reloads::new(parts, audit, Arc::clone(clock))) })
    }
}

fn rules(config: &Config) -> Rules {
    let mut queries = TenantLimits::unlimited();
    queries.set(Limit::QueryPoints, Some(config.query.max_points));
    queries.set(Limit::QuerySamples, Some(config.query.max_samples));
    queries.set(Limit::QueryTimeout, Some(super::millis(config.query.timeout)));
    Rules {
        defaults: config.limits.defaults.clone(),
        hard: config.limits.hard.clone(),
        queries,
        settles_itself: config.storage.backend == Backend::ClickHouse,
    }
}

/// Checks the overrides file of a configuration, if it has one.
pub fn check_overrides(config: &Config) -> Result<(), String> {
    let check = |path: &Path| file::check(path, LimitTable::new(rules(config)));
    config.limits.overrides_file.as_deref().map_or(Ok(()), check)
}

/// Ends with its owner.
#[derive(Debug)]
pub(super) struct KeptCurrent(JoinHandle<()>);

impl Drop for KeptCurrent {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads again what changes while we run, by itself and when somebody asks by a signal.
pub(super) async fn keep_current(state: &State, backend: Backend, mut hangups: Signal) -> KeptCurrent {
    let reloads = Arc::clone(&state.reloads);
    match backend {
        // It answers at once, so that no request goes by other limits than were set.
        Backend::Embedded => {
            reloads.begin().await;
        }
        // It may not answer for long, and until it does there is nothing to limit.
        Backend::ClickHouse => {}
    }
    KeptCurrent(task::spawn("reload", async move {
        let looking = Arc::clone(&reloads).run();
        let asked = async {
            while hangups.recv().await.is_some() {
                tracing::info!(event = "reload", "asked by SIGHUP");
                // What could not be read was logged.
                let _ = reloads.reload().await;
            }
        };
        tokio::join!(looking, asked);
    }))
}
