//! Builds what knows tenants' limits: the table, the overrides file, what the API set.

use std::{path::Path, sync::Arc};

use anyhow::Context;

use crate::{
    clock::Clock,
    config::{Backend, Config},
    gateway::{
        limit::{
            file::{self, OverridesFile},
            table::{LimitTable, Rules},
            user::UserOverrides,
        },
        reload::Part,
    },
    model::{Limit, TenantLimits},
    storage::Storage,
};

/// What knows tenants' limits.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) table: Arc<LimitTable>,
    pub(super) users: Arc<UserOverrides>,
    /// What it is read from.
    pub(super) sources: Vec<Part>,
}

impl Limits {
    /// Reads the overrides file, which has to be right; what the API set is not asked for yet.
    pub(super) fn build(
        config: &Config,
        storage: &Arc<dyn Storage>,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let table = Arc::new(LimitTable::new(rules(config)));
        let users = Arc::new(UserOverrides::new(Arc::clone(storage), Arc::clone(&table)));
        let mut sources: Vec<Part> = vec![(Arc::clone(&users) as _, None)];
        if let Some(path) = &config.limits.overrides_file {
            let file = OverridesFile::open(path, config.limits.reload_interval, Arc::clone(&table));
            let file = file.map_err(anyhow::Error::msg).context("cannot use limits.overrides_file")?;
            sources.push((Arc::new(file), Some(clock.now())));
        }
        Ok(Self { table, users, sources })
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
