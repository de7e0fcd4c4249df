//! Backups: ClickHouse's own, which we ask for, wait for, and try out.
//!
//! A backup is of the whole database and is written by the servers to a place that their configuration allows;
//! no data comes through us. An increment is over another backup at the same place and needs it to be
//! restored.
//!
//! ```text
//! create   BACKUP … ASYNC ─▶ system.backups until it is done
//! verify   RESTORE into a database of its own ─▶ CHECK TABLE, rows counted ─▶ dropped
//! restore  RESTORE into where it belongs, if there is nothing
//! replace  RESTORE into a database of its own ─▶ what is there renamed, and it ─▶ views made anew
//! ```
//!
//! What is restored never meets what is there: the database it belongs in must not exist, have no
//! tables, or be set aside under another name. Names of backups are parameters; credentials are nowhere here, they are in a
//! named collection of the servers.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    client::{Class, Failure, Servers, Statement},
    config::ClickHouseConfig,
    migrate::{Target, renewed_views},
    rowbinary::{Incomplete, Reader},
    tables::{Tables, quoted_name},
};
use crate::{clock::Clock, model::Timestamp, storage::Result};

/// How often a server is asked how far it is.
const POLL: Duration = Duration::from_millis(300);
/// How long a server may be out of reach while it works.
const OUT_OF_REACH: Duration = Duration::from_secs(120);
/// What follows a database's name while a backup is tried out.
const VERIFYING: &str = "_luminate_verifying";
/// What follows a database's name until all of it is restored.
const RESTORING: &str = "_luminate_restoring";

/// Where backups are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A disk of the servers' configuration that `backups.allowed_disk` names.
    Disk(String),
    /// The directory `backups.allowed_path`.
    File,
    /// What a named collection of the servers says: a bucket, and who may use it.
    S3(String),
}

/// The name of a backup: letters, digits and `._-/`, no step up, at most 200 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupName(String);

/// How far a server is with a backup, or what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    /// Its number at the server.
    pub id: String,
    /// Where it is, in ClickHouse's words.
    pub name: String,
    /// In ClickHouse's words: `CREATING_BACKUP`, `RESTORED`, …
    pub status: String,
    /// Why it failed.
    pub error: String,
    /// When it began.
    pub began: Timestamp,
    /// Files it has.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// A table that was restored to try a backup out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedTable {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// Whether the server found its parts as they should be.
    pub sound: bool,
}

/// Why a backup was not made, tried out or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It was asked for in a way that cannot be.
    #[error("{0}")]
    Refused(String),
    /// The server tried and could not.
    #[error("{what} failed: {why}")]
    Broken {
        /// What was tried.
        what: String,
        /// In the server's words.
        why: String,
    },
    /// A statement failed.
    #[error("{0}")]
    Failed(Failure),
}

impl From<Failure> for BackupError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Asks the servers for backups.
#[derive(Debug)]
pub struct Backups {
    servers: Servers,
    database: String,
    tables: Tables,
    clustered: bool,
    clock: Arc<dyn Clock>,
}

impl Place {
    /// Reads `disk:NAME`, `file` or `s3:COLLECTION`.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |name: &str| {
            let sound = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            (!name.is_empty() && name.chars().all(sound)).then(|| name.to_owned())
        };
        match text.split_once(':') {
            None if text == "file" => Some(Self::File),
            Some(("disk", name)) => plain(name).map(Self::Disk),
            Some(("s3", name)) => plain(name).map(Self::S3),
            None | Some(_) => None,
        }
    }

    /// The place and the parameter `name` as ClickHouse writes a backup's address.
    fn sql(&self, name: &str) -> String {
        match self {
            Self::Disk(_) => format!("Disk({{disk:String}}, {{{name}:String}})"),
            Self::File => format!("File({{{name}:String}})"),
            Self::S3(collection) => format!("S3({}, {{{name}:String}})", quoted_name(collection)),
        }
    }

    fn bound(&self, statement: Statement) -> Statement {
        match self {
            Self::Disk(disk) => statement.param("disk", disk.as_str()),
            Self::File | Self::S3(_) => statement,
        }
    }
}

impl BackupName {
    /// Checks a name.
    pub fn new(name: &str) -> Option<Self> {
        let sound = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        let parts = || name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        (name.len() <= 200 && name.chars().all(sound) && parts()).then(|| Self(name.to_owned()))
    }
}

impl fmt::Display for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Backups {
    /// Gets ready; no server is asked anything yet.
    pub fn new(config: &ClickHouseConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        // Only the server that was asked knows how far it is, and every server has this database.
        let one = ClickHouseConfig {
            database: "system".to_owned(),
            addresses: config.addresses.first().cloned().into_iter().collect(),
            ..config.clone()
        };
        Ok(Self {
            servers: Servers::new(&one, Arc::clone(&clock))?,
            database: config.database.clone(),
            tables: Tables::new(&config.database, config.cluster.as_deref()),
            clustered: config.cluster.is_some(),
            clock,
        })
    }

    /// The database that is backed up, and restored to if nothing else is said.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Makes a backup, over `base` only what is new since; tells how far it is until it is done.
    pub async fn create(
        &self,
        name: &BackupName,
        place: &Place,
        base: Option<&BackupName>,
        told: impl FnMut(&Operation),
    ) -> Result<Operation, BackupError> {
        if self.contents(&self.database).await?.is_empty() {
            return Err(BackupError::Refused(format!("the database {} has no tables", self.database)));
        }
        let increment = base.map(|_| format!(" SETTINGS base_backup = {}", place.sql("base")));
        let sql = format!(
            "BACKUP DATABASE {}{} TO {}{} ASYNC",
            quoted_name(&self.database),
            self.tables.on_cluster(),
            place.sql("name"),
            increment.unwrap_or_default()
        );
        let mut statement = place.bound(Statement::new(sql)).param("name", name.0.as_str());
        if let Some(base) = base {
            statement = statement.param("base", base.0.as_str());
        }
        self.run("the backup", &statement, "BACKUP_CREATED", told).await
    }

    /// Restores a backup into a database of its own, has it checked, and drops it again.
    pub async fn verify(
        &self,
        name: &BackupName,
        place: &Place,
        told: impl FnMut(&Operation),
    ) -> Result<Vec<CheckedTable>, BackupError> {
        let scratch = format!("{}{VERIFYING}", self.database);
        self.drop(&scratch).await?;
        let checked = match self.restore_as(name, place, &scratch, told).await {
            Ok(_) => self.check(&scratch).await,
            Err(error) => Err(error),
        };
        // What went wrong first is said first.
        let dropped = self.drop(&scratch).await;
        let checked = checked?;
        dropped?;
        Ok(checked)
    }

    /// Restores a backup into `into`, which must have no tables unless `replace`: then what is there is set
    /// aside, and the name it has got is given. Whoever wrote to it must begin anew: it remembers which
    /// series it has registered there.
    pub async fn restore(
        &self,
        name: &BackupName,
        place: &Place,
        into: &str,
        replace: bool,
        told: impl FnMut(&Operation),
    ) -> Result<Option<String>, BackupError> {
        let there = self.contents(into).await?;
        if there.is_empty() {
            self.restore_as(name, place, into, told).await?;
            return Ok(None);
        }
        let rows: u64 = there.iter().map(|(_, rows)| rows).sum();
        if !replace {
            return Err(BackupError::Refused(format!(
                "the database {into} has {} tables with {rows} rows: restore into another one (--into), or have this \
                 one set aside under another name (--replace)",
                there.len()
            )));
        }
        if self.clustered {
            return Err(BackupError::Refused(
                "replicated tables cannot be renamed to another database: restore into another one (--into) and let \
                 storage.clickhouse.database name that"
                    .to_owned(),
            ));
        }
        let scratch = format!("{into}{RESTORING}");
        self.drop(&scratch).await?;
        self.restore_as(name, place, &scratch, told).await?;
        let aside = format!("{into}_before_{}", self.clock.now());
        self.rename(into, &aside).await?;
        if let Err(error) = self.rename(&scratch, into).await {
            // Nothing may stay without the database it had.
            self.rename(&aside, into).await?;
            return Err(error);
        }
        for database in [into, &aside] {
            self.renew_views(database).await?;
        }
        Ok(Some(aside))
    }

    /// The backups and restores that the server remembers, in order of time.
    pub async fn list(&self) -> Result<Vec<Operation>, BackupError> {
        let statement = Statement::new(format!("{OPERATIONS} ORDER BY start_time, id"));
        let rows = self.servers.rows(&statement).await?;
        Ok(rows.all(operation).await?)
    }

    async fn restore_as(
        &self,
        name: &BackupName,
        place: &Place,
        into: &str,
        told: impl FnMut(&Operation),
    ) -> Result<Operation, BackupError> {
        let sql = format!(
            "RESTORE DATABASE {} AS {}{} FROM {} ASYNC",
            quoted_name(&self.database),
            quoted_name(into),
            self.tables.on_cluster(),
            place.sql("name")
        );
        let statement = place.bound(Statement::new(sql)).param("name", name.0.as_str());
        self.run("the restore", &statement, "RESTORED", told).await
    }

    /// Starts what works in the background, and waits for its end.
    async fn run(
        &self,
        what: &str,
        statement: &Statement,
        done: &str,
        mut told: impl FnMut(&Operation),
    ) -> Result<Operation, BackupError> {
        let started = |row: &mut Reader<'_>| {
            let id = row.string()?;
            row.take(1)?;
            Ok(id)
        };
        let ids = self.servers.rows(statement).await?.all(started).await?;
        let broken = |why: &str| BackupError::Broken { what: what.to_owned(), why: why.to_owned() };
        let id = ids.into_iter().next().ok_or_else(|| broken("the server gave it no number"))?;
        let mut seen = self.clock.elapsed();
        loop {
            match self.operation(&id).await {
                Ok(None) => return Err(broken("the server has forgotten it; was it restarted?")),
                Ok(Some(operation)) if operation.status == done => return Ok(operation),
                Ok(Some(operation))
                    if operation.status.ends_with("ING_BACKUP") || operation.status == "RESTORING" =>
                {
                    seen = self.clock.elapsed();
                    told(&operation);
                }
                Ok(Some(operation)) => return Err(broken(&first_line(&operation.error))),
                Err(failure) if failure.class == Class::Unreachable => {
                    if self.clock.elapsed().saturating_sub(seen) > OUT_OF_REACH {
                        return Err(failure.into());
                    }
                }
                Err(failure) => return Err(failure.into()),
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn operation(&self, id: &str) -> Result<Option<Operation>, Failure> {
        let statement = Statement::new(format!("{OPERATIONS} WHERE id = {{id:String}}")).param("id", id);
        Ok(self.servers.rows(&statement).await?.all(operation).await?.pop())
    }

    /// A database's tables and their rows.
    async fn contents(&self, database: &str) -> Result<Vec<(String, u64)>, BackupError> {
        let statement = Statement::new(
            "SELECT name, toUInt64(ifNull(total_rows, 0)) FROM system.tables \
             WHERE database = {database:String} ORDER BY name",
        )
        .param("database", database);
        let rows = self.servers.rows(&statement).await?;
        Ok(rows.all(|row| Ok((row.string()?, row.u64()?))).await?)
    }

    /// Has every table of a database checked that has parts.
    async fn check(&self, database: &str) -> Result<Vec<CheckedTable>, BackupError> {
        let parts = Statement::new(
            "SELECT name, toUInt64(ifNull(total_rows, 0)) FROM system.tables \
             WHERE database = {database:String} AND engine LIKE '%MergeTree' ORDER BY name",
        )
        .param("database", database);
        let tables = self.servers.rows(&parts).await?.all(|row| Ok((row.string()?, row.u64()?))).await?;
        let mut checked = Vec::with_capacity(tables.len());
        for (name, rows) in tables {
            let statement = Statement::new("CHECK TABLE {database:Identifier}.{table:Identifier}")
                .param("database", database)
                .param("table", name.as_str())
                .setting("check_query_single_value_result", "1");
            let verdicts = self.servers.rows(&statement).await?.all(|row| Ok(row.take(1)?[0])).await?;
            checked.push(CheckedTable { name, rows, sound: verdicts.iter().all(|verdict| *verdict == 1) });
        }
        Ok(checked)
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), BackupError> {
        let statement = Statement::new("RENAME DATABASE {from:Identifier} TO {to:Identifier}")
            .param("from", from)
            .param("to", to);
        Ok(self.servers.run(&statement).await?)
    }

    /// Has a renamed database's views take again what is written to it.
    async fn renew_views(&self, database: &str) -> Result<(), BackupError> {
        for statement in renewed_views(&Target { database: database.to_owned(), cluster: None }) {
            self.servers.run(&Statement::new(statement)).await?;
        }
        Ok(())
    }

    /// Drops a database of ours that something was tried out in.
    async fn drop(&self, scratch: &str) -> Result<(), BackupError> {
        let sql =
            format!("DROP DATABASE IF EXISTS {}{} SYNC", quoted_name(scratch), self.tables.on_cluster());
        Ok(self.servers.run(&Statement::new(sql)).await?)
    }
}

const OPERATIONS: &str = "SELECT id, name, toString(status), error, \
     toUnixTimestamp64Milli(toDateTime64(start_time, 3)), toUInt64(num_files), toUInt64(total_size) \
     FROM system.backups";

fn operation(row: &mut Reader<'_>) -> Result<Operation, Incomplete> {
    Ok(Operation {
        id: row.string()?,
        name: row.string()?,
        status: row.string()?,
        error: row.string()?,
        began: Timestamp(row.i64()?),
        files: row.u64()?,
        bytes: row.u64()?,
    })
}

/// What a person wants to know of ClickHouse's error: what lies behind is its stack.
fn first_line(error: &str) -> String {
    let end = error.find(", Stack trace").unwrap_or(error.len());
    error[..end].lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_one_of_three_and_has_no_credentials() {
        assert_eq!(Place::parse("disk:backups"), Some(Place::Disk("backups".to_owned())));
        assert_eq!(Place::parse("file"), Some(Place::File));
        assert_eq!(Place::parse("s3:offsite"), Some(Place::S3("offsite".to_owned())));
        for wrong in
            ["", "disk:", "disk:a b", "file:/etc", "s3:https://key:secret@host/bucket", "s3:a,b", "tape:x"]
        {
            assert_eq!(Place::parse(wrong), None, "{wrong:?}");
        }
        assert_eq!(Place::S3("offsite".to_owned()).sql("name"), "S3(`offsite`, {name:String})");
        assert_eq!(Place::Disk("d".to_owned()).sql("base"), "Disk({disk:String}, {base:String})");
    }

    #[test]
    fn a_name_stays_where_backups_are() {
        for name in ["monday", "2026/11/21.zip", "a-b_c.1"] {
            assert_eq!(BackupName::new(name).unwrap().to_string(), name);
        }
        let long = "x".repeat(201);
        for wrong in ["", "/etc", "a/../b", "..", "a//b", "a b", "a'b", "é", &long] {
            assert_eq!(BackupName::new(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn of_an_error_only_what_is_for_a_person_is_shown() {
        let error = "Code: 598. DB::Exception: Backup already exists. (X), Stack trace (when copying this message):\n0. a";
        assert_eq!(first_line(error), "Code: 598. DB::Exception: Backup already exists. (X)");
        assert_eq!(first_line(""), "");
    }
}
