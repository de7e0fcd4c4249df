//! Looks what is there, and applies what is missing.

use std::sync::Arc;

use super::{Applied, Layout, Migration, OURS, State, Target, foundation};
use crate::{
    clock::Clock,
    storage::{
        Result, StorageError,
        clickhouse::{
            client::{Failure, Servers, Statement},
            config::ClickHouseConfig,
            tables::quoted_name,
        },
    },
};

/// TABLE_ALREADY_EXISTS, DATABASE_ALREADY_EXISTS, REPLICA_ALREADY_EXISTS: somebody else was quicker, between
/// a server's look whether it is there and its making it.
const MADE_MEANWHILE: [u32; 3] = [57, 82, 253];

/// Why the schema was not looked at, or not applied.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// What is there is not what the configuration says.
    #[error("{0}")]
    Layout(String),
    /// A server did not do it.
    #[error("{0}")]
    Failed(Failure),
}

impl From<Failure> for MigrateError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<MigrateError> for StorageError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Layout(detail) => Self::Remote { detail },
            MigrateError::Failed(failure) => failure.into(),
        }
    }
}

/// Looks after the schema. It speaks to the servers apart from what reads and writes data, because the
/// database that does need not be there yet.
#[derive(Debug)]
pub struct Migrator {
    servers: Servers,
    target: Target,
}

impl Migrator {
    /// Gets ready; no server is asked anything yet.
    pub fn new(config: &ClickHouseConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        // Every server has this database.
        let anywhere = ClickHouseConfig { database: "system".to_owned(), ..config.clone() };
        Ok(Self { servers: Servers::for_looks(&anywhere, clock)?, target: Target::of(config) })
    }

    /// For what it is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The servers, in no database of ours.
    pub(in crate::storage::clickhouse) fn servers(&self) -> &Servers {
        &self.servers
    }

    /// What is there.
    pub async fn state(&self) -> Result<State, Failure> {
        let tables = Statement::new(
            "SELECT name, engine FROM system.tables \
             WHERE database = {database:String} AND name IN ('schema_migrations', 'samples')",
        )
        .param("database", self.target.database.as_str());
        let tables = self.servers.rows(&tables).await?;
        let tables = tables.all(|row| Ok((row.string()?, row.string()?))).await?;
        let engine_of =
            |table| tables.iter().find(|(name, _)| name == table).map(|(_, engine)| engine.as_str());
        let layout = engine_of("samples").map(|engine| match engine {
            "Distributed" => Layout::Cluster,
            _ => Layout::Single,
        });
        let applied = match engine_of("schema_migrations") {
            Some(_) => self.applied().await?,
            None => Vec::new(),
        };
        Ok(State { applied, layout })
    }

    /// Applies what is missing, and tells of each step before it is taken; gives those that were.
    pub async fn apply(
        &self,
        mut about_to: impl FnMut(&Migration),
    ) -> Result<Vec<&'static Migration>, MigrateError> {
        let state = self.state().await?;
        if let Some(problem) = state.layout_problem(&self.target) {
            return Err(MigrateError::Layout(problem));
        }
        let pending = OURS.pending(&state);
        if pending.is_empty() {
            return Ok(pending);
        }
        for statement in self.foundation(&state).await? {
            self.run(statement).await?;
        }
        for migration in &pending {
            about_to(migration);
            for statement in migration.statements(&self.target) {
                self.run(statement).await?;
            }
            self.run(migration.record(&self.target)).await?;
        }
        Ok(pending)
    }

    /// What [`apply`](Self::apply) would run, step by step under its title.
    pub async fn plan(&self) -> Result<Vec<(String, Vec<String>)>, MigrateError> {
        let state = self.state().await?;
        if let Some(problem) = state.layout_problem(&self.target) {
            return Err(MigrateError::Layout(problem));
        }
        let pending = OURS.pending(&state);
        if pending.is_empty() {
            return Ok(Vec::new());
        }
        let mut plan = vec![("the database".to_owned(), self.foundation(&state).await?)];
        plan.extend(pending.iter().map(|migration| {
            let mut statements = migration.statements(&self.target);
            statements.push(migration.record(&self.target));
            (format!("version {}: {}", migration.version, migration.name), statements)
        }));
        Ok(plan)
    }

    /// What is still to be made of the foundation. Who has only our database to himself may not make one, so
    /// it is left out if it is there.
    async fn foundation(&self, state: &State) -> Result<Vec<String>, Failure> {
        if !state.applied.is_empty() {
            return Ok(Vec::new());
        }
        let exists = Statement::new("SELECT count() FROM system.databases WHERE name = {database:String}")
            .param("database", self.target.database.as_str());
        let exists =
            self.servers.rows(&exists).await?.all(|row| row.u64()).await?.iter().any(|count| *count > 0);
        // Of a cluster one server may have it and another not.
        let skipped = usize::from(exists && self.target.cluster.is_none());
        Ok(foundation(&self.target).split_off(skipped))
    }

    async fn applied(&self) -> Result<Vec<Applied>, Failure> {
        let statement = Statement::new(format!(
            "SELECT version, name, checksum, min_compatible, toUnixTimestamp64Milli(applied) \
             FROM {}.schema_migrations ORDER BY version, applied LIMIT 1 BY version",
            quoted_name(&self.target.database)
        ));
        let rows = self.servers.rows(&statement).await?;
        rows.all(|row| {
            Ok(Applied {
                version: row.u32()?,
                name: row.string()?,
                checksum: row.string()?,
                min_compatible: row.u32()?,
                applied_ms: row.i64()?,
            })
        })
        .await
    }

    async fn run(&self, statement: String) -> Result<(), Failure> {
        match self.servers.run(&Statement::new(statement)).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.code.is_some_and(|code| MADE_MEANWHILE.contains(&code)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}
