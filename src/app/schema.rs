//! The schema of a ClickHouse, for the command line.

use std::sync::Arc;

use anyhow::Context;

use super::clickhouse;
use crate::{
    clock::Clock,
    config::Storage,
    model::Timestamp,
    storage::clickhouse::{
        client::Class,
        migrate::{self, MigrateError, Migration, Migrator, OURS, State, Target},
    },
};

/// The servers, and the schema in them.
#[derive(Debug)]
pub struct Schema {
    migrator: Migrator,
    addresses: String,
    username: String,
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Every step that is known or was applied, in order.
    pub steps: Vec<Step>,
    /// Why this binary cannot use it; none if it can.
    pub problem: Option<String>,
    /// What is odd, but does no harm.
    pub warnings: Vec<String>,
}

/// A step of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number.
    pub version: u32,
    /// What it is about.
    pub name: String,
    /// When it was applied, if it was.
    pub applied: Option<Timestamp>,
}

/// Every statement there is, for a configured database and cluster; no server is asked.
pub fn script(storage: &Storage) -> String {
    let config = &storage.clickhouse;
    migrate::script(&Target { database: config.database.clone(), cluster: config.cluster.clone() })
}

impl Schema {
    /// Gets ready to speak to the configured servers.
    pub fn new(storage: &Storage, seed: u64, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let config = clickhouse::config(storage, seed)?;
        let (addresses, username) = (config.addresses.join(", "), config.username.clone());
        let migrator =
            Migrator::new(&config, clock).context("cannot set up the connections to ClickHouse")?;
        Ok(Self { migrator, addresses, username })
    }

    /// Applies what is missing, and tells of each step before it is taken; gives how many there were.
    pub async fn apply(&self, mut about_to: impl FnMut(u32, &str)) -> anyhow::Result<usize> {
        let told = |step: &Migration| about_to(step.version, step.name);
        match self.migrator.apply(told).await {
            Ok(applied) => Ok(applied.len()),
            Err(error) => Err(self.explained(error)),
        }
    }

    /// What [`apply`](Self::apply) would run, step by step under its title.
    pub async fn plan(&self) -> anyhow::Result<Vec<(String, Vec<String>)>> {
        self.migrator.plan().await.map_err(|error| self.explained(error))
    }

    /// What is there.
    pub async fn status(&self) -> anyhow::Result<Status> {
        let state = self.migrator.state().await.map_err(|failure| self.explained(failure.into()))?;
        Ok(status(&state, self.migrator.target()))
    }

    /// The error for a person who knows the servers by their addresses.
    fn explained(&self, error: MigrateError) -> anyhow::Error {
        let Self { addresses, username, .. } = self;
        match error {
            MigrateError::Layout(problem) => anyhow::anyhow!(problem),
            MigrateError::Failed(failure) => match failure.class {
                Class::Unreachable => anyhow::anyhow!("cannot reach ClickHouse at {addresses}: {failure}"),
                Class::Denied => {
                    anyhow::anyhow!(
                        "ClickHouse at {addresses} does not let user {username:?} do this: {failure}"
                    )
                }
                Class::Overloaded | Class::ReadOnly | Class::Exhausted | Class::Schema | Class::Broken => {
                    anyhow::anyhow!("ClickHouse at {addresses} refused: {failure}")
                }
            },
        }
    }
}

fn status(state: &State, target: &Target) -> Status {
    let mut steps: Vec<Step> = state
        .applied
        .iter()
        .map(|applied| Step {
            version: applied.version,
            name: applied.name.clone(),
            applied: Some(Timestamp(applied.applied_ms)),
        })
        .collect();
    let pending = OURS.pending(state);
    let step = |pending: &&Migration| Step {
        version: pending.version,
        name: pending.name.to_owned(),
        applied: None,
    };
    steps.extend(pending.iter().map(step));
    steps.sort_by_key(|step| step.version);
    let changed = OURS.changed(state).into_iter().map(|applied| {
        format!(
            "version {} ({}) was applied from another text than this binary's",
            applied.version, applied.name
        )
    });
    Status { steps, problem: OURS.problem(state, target), warnings: changed.collect() }
}
