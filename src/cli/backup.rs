//! `luminate backup`: backups of the store, restores, and what is said of them.
//!
//! Of ClickHouse the servers make them at our word; where they go the servers' own configuration allows, and who may write
//! there is known to them and not to us. Of an embedded store we copy them to a directory or a bucket ([`archive`]): then
//! the place is a URL.

mod archive;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};

use super::{CommandError, schema::ClickHouseFlags, serve::draw, table, time::as_date};
use crate::{
    app::{
        archive::{Address, BackupName as FileName},
        backup::{BackupName, Backups, Operation, Place},
    },
    clock::{Clock, SystemClock},
};

use archive::{Commands, S3Flags, StoreFlags};

/// What to do with backups.
#[derive(Clone, Debug, Subcommand)]
pub enum BackupCommand {
    /// Make a backup. Of an embedded store, only what an earlier one has not is copied; its server may be running. Those of
    /// ClickHouse its servers write, and go on even if this command is stopped.
    Create {
        /// Its name [default: made of the time].
        #[arg(value_parser = name)]
        name: Option<BackupName>,
        /// ClickHouse: keep only what another backup at the same place does not have.
        #[arg(long, value_name = "NAME", value_parser = name)]
        base: Option<BackupName>,
        #[command(flatten)]
        place: PlaceFlag,
        #[command(flatten)]
        store: Box<StoreFlags>,
        #[command(flatten)]
        s3: S3Flags,
        #[command(flatten)]
        servers: ClickHouseFlags,
    },
    /// Try a backup out: read all of it back. One of ClickHouse is restored into a database of its own, every table
    /// is checked, and it is dropped.
    Verify {
        /// Which [default at a URL: the newest].
        #[arg(value_parser = name)]
        name: Option<BackupName>,
        /// Then restore it into a directory in this one, too, open the store, and remove it again.
        #[arg(long, value_name = "DIRECTORY")]
        drill: Option<PathBuf>,
        #[command(flatten)]
        place: PlaceFlag,
        #[command(flatten)]
        s3: S3Flags,
        #[command(flatten)]
        servers: ClickHouseFlags,
    },
    /// Restore a backup into an empty directory, or into a database without tables.
    Restore {
        /// Which [default at a URL: the newest].
        #[arg(value_parser = name)]
        name: Option<BackupName>,
        /// The directory, or the database [default: the one that was backed up].
        #[arg(long, value_name = "DIRECTORY|DATABASE")]
        into: Option<String>,
        /// ClickHouse: set a database that has tables aside under another name. Stop the servers that use it before.
        #[arg(long)]
        replace: bool,
        /// At a URL: leave out what is damaged or missing, and restore the rest.
        #[arg(long)]
        skip_damaged: bool,
        #[command(flatten)]
        place: PlaceFlag,
        #[command(flatten)]
        s3: S3Flags,
        #[command(flatten)]
        servers: ClickHouseFlags,
    },
    /// List the backups at a URL, or those and the restores that a ClickHouse remembers since its start.
    List {
        /// Where they are: file:///DIRECTORY or s3://BUCKET/PREFIX; without it, ClickHouse is asked.
        #[arg(long = "at", value_name = "URL")]
        at: Option<Address>,
        #[command(flatten)]
        s3: S3Flags,
        #[command(flatten)]
        servers: ClickHouseFlags,
    },
    /// Remove old backups at a URL, and what only they have. Nothing happens while one is made.
    Prune {
        /// How many of the newest to keep.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        keep: u32,
        /// Where they are: file:///DIRECTORY or s3://BUCKET/PREFIX.
        #[arg(long = "at", value_name = "URL")]
        at: Address,
        #[command(flatten)]
        s3: S3Flags,
    },
}

/// Where backups are.
#[derive(Clone, Debug, Args)]
pub struct PlaceFlag {
    /// Where backups are. Of an embedded store: file:///DIRECTORY or s3://BUCKET/PREFIX. Of ClickHouse: disk:NAME, file, or
    /// s3:COLLECTION, a named collection of the servers.
    #[arg(long = "at", value_name = "PLACE", default_value = "disk:backups", value_parser = place)]
    place: Where,
}

/// A place of the servers, or one of ours.
#[derive(Clone, Debug)]
enum Where {
    ClickHouse(Place),
    Url(Address),
}

fn name(text: &str) -> Result<BackupName, String> {
    BackupName::new(text)
        .ok_or_else(|| "a name has letters, digits and ._-/, no empty part and no step up".to_owned())
}

fn place(text: &str) -> Result<Where, String> {
    if text.contains("://") && !text.starts_with("s3:http") {
        return text.parse().map(Where::Url);
    }
    Place::parse(text).map(Where::ClickHouse).ok_or_else(|| {
        "write file:///DIRECTORY or s3://BUCKET/PREFIX for an embedded store, and disk:NAME, file or s3:COLLECTION \
         for ClickHouse; credentials belong in a named collection of the servers, in the environment or in files"
            .to_owned()
    })
}

/// The name of a backup that is a file.
fn file_name(name: Option<&BackupName>) -> Result<Option<FileName>, CommandError> {
    name.map(|name| name.to_string().parse().map_err(CommandError::Usage)).transpose()
}

/// Refuses a flag that means nothing at this place.
fn only(given: bool, flag: &str, of: &str) -> Result<(), CommandError> {
    if given { Err(CommandError::Usage(format!("{flag} is for {of}"))) } else { Ok(()) }
}

fn named(name: Option<&BackupName>) -> Result<&BackupName, CommandError> {
    name.ok_or_else(|| CommandError::Usage("which backup? name one of ClickHouse's".to_owned()))
}

fn database(text: &str) -> Result<String, CommandError> {
    let sound = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let fits = !text.is_empty() && text.len() <= 64 && text.chars().all(sound);
    let wrong =
        || CommandError::Usage(format!("--into {text:?}: a database's name has letters, digits and _"));
    if fits { Ok(text.to_owned()) } else { Err(wrong()) }
}

/// Does what is asked.
pub fn run(command: &BackupCommand) -> Result<(), CommandError> {
    match command {
        BackupCommand::Create { name, base, place, store, s3, servers } => match &place.place {
            Where::Url(address) => {
                only(base.is_some(), "--base", "ClickHouse; at a URL every backup has only what is new")?;
                Commands::open(address, s3)?.create(file_name(name.as_ref())?, store, servers)
            }
            Where::ClickHouse(place) => create(name.as_ref(), base.as_ref(), place, servers),
        },
        BackupCommand::Verify { name, drill, place, s3, servers } => match &place.place {
            Where::Url(address) => {
                let name = file_name(name.as_ref())?;
                Commands::open(address, s3)?.verify(name.as_ref(), drill.as_deref())
            }
            Where::ClickHouse(place) => {
                only(drill.is_some(), "--drill", "backups at a URL; this is the drill of ClickHouse's")?;
                verify(named(name.as_ref())?, place, servers)
            }
        },
        BackupCommand::Restore { name, into, replace, skip_damaged, place, s3, servers } => {
            match &place.place {
                Where::Url(address) => {
                    only(
                        *replace,
                        "--replace",
                        "ClickHouse; at a URL a backup is restored into an empty directory",
                    )?;
                    let into = into.as_deref().ok_or_else(|| {
                        CommandError::Usage("where to? --into names an empty directory".to_owned())
                    })?;
                    let name = file_name(name.as_ref())?;
                    Commands::open(address, s3)?.restore(name, Path::new(into), *skip_damaged)
                }
                Where::ClickHouse(place) => {
                    only(*skip_damaged, "--skip-damaged", "backups at a URL")?;
                    let into = into.as_deref().map(database).transpose()?;
                    restore(named(name.as_ref())?, into, *replace, place, servers)
                }
            }
        }
        BackupCommand::List { at: Some(address), s3, .. } => Commands::open(address, s3)?.list(),
        BackupCommand::List { at: None, servers, .. } => list(servers),
        BackupCommand::Prune { keep, at, s3 } => {
            Commands::open(at, s3)?.prune(usize::try_from(*keep).unwrap_or(usize::MAX))
        }
    }
}

fn create(
    name: Option<&BackupName>,
    base: Option<&BackupName>,
    place: &Place,
    servers: &ClickHouseFlags,
) -> Result<(), CommandError> {
    let clock = SystemClock::start();
    let (name, operation) = ask(servers, async |backups| {
        let name = match name {
            Some(name) => name.clone(),
            None => default_name(backups.database(), clock.now().millis())?,
        };
        let made = backups.create(&name, place, base, tell()).await?;
        Ok((name, made))
    })?;
    Ok(writeln!(io::stdout(), "{name}: {} files, {} bytes", operation.files, operation.bytes)?)
}

fn verify(name: &BackupName, place: &Place, servers: &ClickHouseFlags) -> Result<(), CommandError> {
    let checked = ask(servers, async |backups| backups.verify(name, place, tell()).await)?;
    let mut rows = vec![["TABLE".to_owned(), "ROWS".to_owned(), "SOUND".to_owned()]];
    rows.extend(checked.iter().map(|table| {
        let sound = if table.sound { "yes" } else { "no" };
        [table.name.clone(), table.rows.to_string(), sound.to_owned()]
    }));
    write!(io::stdout(), "{}", table::columns(&rows))?;
    if checked.is_empty() {
        return Err(CommandError::Failed(format!("{name} has no tables")));
    }
    if checked.iter().any(|table| !table.sound) {
        return Err(CommandError::Failed(format!("{name} is damaged")));
    }
    Ok(())
}

fn restore(
    name: &BackupName,
    into: Option<String>,
    replace: bool,
    place: &Place,
    servers: &ClickHouseFlags,
) -> Result<(), CommandError> {
    let mut out = io::stdout();
    let (into, aside) = ask(servers, async |backups| {
        let into = into.unwrap_or_else(|| backups.database().to_owned());
        let aside = backups.restore(name, place, &into, replace, tell()).await?;
        Ok((into, aside))
    })?;
    writeln!(out, "restored {name} into {into}")?;
    if let Some(aside) = aside {
        writeln!(out, "what was there is now the database {aside}; drop it when it is not needed")?;
        writeln!(out, "restart every Luminate that runs on {into}: what it remembers is of the other")?;
    }
    Ok(())
}

fn list(servers: &ClickHouseFlags) -> Result<(), CommandError> {
    let operations = ask(servers, async |backups| backups.list().await)?;
    let mut rows = vec![["BACKUP", "STATUS", "BEGAN", "FILES", "BYTES"].map(str::to_owned)];
    rows.extend(operations.into_iter().map(|operation| {
        let Operation { name, status, began, files, bytes, .. } = operation;
        [name, status.to_lowercase(), as_date(began), files.to_string(), bytes.to_string()]
    }));
    Ok(write!(io::stdout(), "{}", table::columns(&rows))?)
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
        let error = place("s3://key:secret@host/prefix").unwrap_err();
        assert!(error.contains("environment") && !error.contains("secret"), "{error}");
        assert!(database("a`b").is_err() && database("a_b1").is_ok());
    }
}
