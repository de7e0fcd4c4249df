//! `luminate backup`: backups that ClickHouse makes, and restores, at our word.
//!
//! Where they go the servers' own configuration allows; who may write there is known to them and not to us.

use std::io::{self, Write};

use clap::{Args, Subcommand};

use super::{CommandError, schema::ClickHouseFlags, serve::draw, table, time::as_date};
use crate::{
    app::backup::{BackupName, Backups, Operation, Place},
    clock::{Clock, SystemClock},
};

/// What to do with backups.
#[derive(Clone, Debug, Subcommand)]
pub enum BackupCommand {
    /// Make a backup of the database; the servers write it, and go on even if this command is stopped.
    Create {
        /// Its name [default: DATABASE-TIME].
        #[arg(value_parser = name)]
        name: Option<BackupName>,
        /// Keep only what another backup at the same place does not have.
        #[arg(long, value_name = "NAME", value_parser = name)]
        base: Option<BackupName>,
        #[command(flatten)]
        place: PlaceFlag,
        #[command(flatten)]
        servers: ClickHouseFlags,
    },
    /// Try a backup out: restore it into a database of its own, check every table, drop it.
    Verify {
        /// Which.
        #[arg(value_parser = name)]
        name: BackupName,
        #[command(flatten)]
        place: PlaceFlag,
        #[command(flatten)]
        servers: ClickHouseFlags,
    },
    /// Restore a backup into a database without tables.
    Restore {
        /// Which.
        #[arg(value_parser = name)]
        name: BackupName,
        /// The database to restore into [default: the one that was backed up].
        #[arg(long, value_name = "DATABASE", value_parser = database)]
        into: Option<String>,
        /// Set a database that has tables aside under another name. Stop the servers that use it before.
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        place: PlaceFlag,
        #[command(flatten)]
        servers: ClickHouseFlags,
    },
    /// List the backups and restores that the server remembers since its start.
    List(ClickHouseFlags),
}

/// Where backups are.
#[derive(Clone, Debug, Args)]
pub struct PlaceFlag {
    /// Where backups are: disk:NAME, file, or s3:COLLECTION, a named collection of the servers.
    #[arg(long = "at", value_name = "PLACE", default_value = "disk:backups", value_parser = place)]
    place: Place,
}

fn name(text: &str) -> Result<BackupName, String> {
    BackupName::new(text)
        .ok_or_else(|| "a name has letters, digits and ._-/, no empty part and no step up".to_owned())
}

fn place(text: &str) -> Result<Place, String> {
    Place::parse(text).ok_or_else(|| {
        "write disk:NAME, file or s3:COLLECTION; credentials belong in a named collection of the servers"
            .to_owned()
    })
}

fn database(text: &str) -> Result<String, String> {
    let sound = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let fits = !text.is_empty() && text.len() <= 64 && text.chars().all(sound);
    if fits { Ok(text.to_owned()) } else { Err("a database's name has letters, digits and _".to_owned()) }
}

/// Does what is asked.
pub fn run(command: &BackupCommand) -> Result<(), CommandError> {
    let mut out = io::stdout();
    match command {
        BackupCommand::Create { name, base, place, servers } => {
            let clock = SystemClock::start();
            let (name, operation) = ask(servers, async |backups| {
                let name = match name {
                    Some(name) => name.clone(),
                    None => default_name(backups.database(), clock.now().millis())?,
                };
                let made = backups.create(&name, &place.place, base.as_ref(), tell()).await?;
                Ok((name, made))
            })?;
            writeln!(out, "{name}: {} files, {} bytes", operation.files, operation.bytes)?;
        }
        BackupCommand::Verify { name, place, servers } => {
            let checked = ask(servers, async |backups| backups.verify(name, &place.place, tell()).await)?;
            let mut rows = vec![["TABLE".to_owned(), "ROWS".to_owned(), "SOUND".to_owned()]];
            rows.extend(checked.iter().map(|table| {
                let sound = if table.sound { "yes" } else { "no" };
                [table.name.clone(), table.rows.to_string(), sound.to_owned()]
            }));
            write!(out, "{}", table::columns(&rows))?;
            if checked.is_empty() {
                return Err(CommandError::Failed(format!("{name} has no tables")));
            }
            if checked.iter().any(|table| !table.sound) {
                return Err(CommandError::Failed(format!("{name} is damaged")));
            }
        }
        BackupCommand::Restore { name, into, replace, place, servers } => {
            let (into, aside) = ask(servers, async |backups| {
                let into = into.clone().unwrap_or_else(|| backups.database().to_owned());
                let aside = backups.restore(name, &place.place, &into, *replace, tell()).await?;
                Ok((into, aside))
            })?;
            writeln!(out, "restored {name} into {into}")?;
            if let Some(aside) = aside {
                writeln!(out, "what was there is now the database {aside}; drop it when it is not needed")?;
                writeln!(
                    out,
                    "restart every Luminate that runs on {into}: what it remembers is of the other"
                )?;
            }
        }
        BackupCommand::List(servers) => {
            let operations = ask(servers, async |backups| backups.list().await)?;
            let mut rows = vec![["BACKUP", "STATUS", "BEGAN", "FILES", "BYTES"].map(str::to_owned)];
            rows.extend(operations.into_iter().map(|operation| {
                let Operation { name, status, began, files, bytes, .. } = operation;
                [name, status.to_lowercase(), as_date(began), files.to_string(), bytes.to_string()]
            }));
            write!(out, "{}", table::columns(&rows))?;
        }
    }
    Ok(())
}

fn default_name(database: &str, now_ms: i64) -> anyhow::Result<BackupName> {
    let date = as_date(crate::model::Timestamp(now_ms));
    let digits: String = date.chars().take(19).filter(|c| c.is_ascii_digit() || *c == 'T').collect();
    let text = format!("{database}-{digits}");
    BackupName::new(&text).ok_or_else(|| anyhow::anyhow!("{text:?} cannot be a backup's name, give it one"))
}

/// Tells on standard error how far a server is, when that has changed.
fn tell() -> impl FnMut(&Operation) {
    let mut last = None;
    move |operation| {
        let now = (operation.status.clone(), operation.files, operation.bytes);
        if last.as_ref() != Some(&now) {
            let (status, files, bytes) = &now;
            let status = status.to_lowercase().replace('_', " ");
            // Nobody has to read it.
            let _ = writeln!(io::stderr(), "{status}: {files} files, {bytes} bytes ({})", operation.id);
            last = Some(now);
        }
    }
}

/// Asks the servers something.
fn ask<T>(
    flags: &ClickHouseFlags,
    question: impl AsyncFnOnce(&Backups) -> anyhow::Result<T>,
) -> Result<T, CommandError> {
    let config = flags.config(flags.names_servers())?;
    let failed = |error: anyhow::Error| CommandError::Failed(format!("{error:#}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CommandError::Failed(format!("cannot start the runtime: {e}")))?;
    runtime.block_on(async {
        let backups = Backups::new(&config.storage, draw(), SystemClock::start()).map_err(failed)?;
        question(&backups).await.map_err(failed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_without_a_name_is_called_by_its_time() {
        assert_eq!(
            default_name("luminate", 1_767_225_600_250).unwrap().to_string(),
            "luminate-20260101T000000"
        );
        assert!(default_name("a b", 0).is_err());
    }

    #[test]
    fn a_place_with_credentials_is_refused_without_showing_them_as_ours() {
        assert!(place("s3:https://key:secret@host").unwrap_err().contains("named collection"));
        assert!(database("a`b").is_err() && database("a_b1").is_ok());
    }
}
