//! The same commands for an embedded store: its backups are in a directory or a bucket, and we copy them.

use std::{
    fmt,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;

use super::super::{
    CommandError, client::ServerFlags, schema::ClickHouseFlags, serve::draw, table, time::as_date,
    tls::TlsFlags,
};
use crate::{
    app::archive::{Address, Archive, BackupName, Finding, Made, Progress, S3},
    clock::{Clock, SystemClock},
    config::{Backend, FlagValue},
    model::Timestamp,
};

/// How long a server may take to flush and make a snapshot.
const SNAPSHOT: Duration = Duration::from_secs(600);

/// How a bucket is reached. What is not said here the environment says, as to other programs: AWS_ACCESS_KEY_ID,
/// AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL and so on.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Buckets, beside AWS_ACCESS_KEY_ID and its like in the environment")]
pub struct S3Flags {
    /// Where the bucket is, if not at AWS.
    #[arg(long = "s3.endpoint", value_name = "URL")]
    endpoint: Option<String>,
    /// Its region [default: us-east-1].
    #[arg(long = "s3.region", value_name = "NAME")]
    region: Option<String>,
    /// The file that holds the id of the access key.
    #[arg(long = "s3.access-key-file", value_name = "FILE", requires = "secret_key_file")]
    access_key_file: Option<PathBuf>,
    /// The file that holds the secret of that key.
    #[arg(long = "s3.secret-key-file", value_name = "FILE", requires = "access_key_file")]
    secret_key_file: Option<PathBuf>,
    /// The file that holds the token of the session that the key is for, if it is for one.
    #[arg(long = "s3.session-token-file", value_name = "FILE", requires = "access_key_file")]
    session_token_file: Option<PathBuf>,
    /// Certificates to trust for it, instead of the system's.
    #[arg(long = "s3.ca", value_name = "FILE")]
    s3_ca: Option<PathBuf>,
}

/// Which store, and how its server is asked if one is running.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "The embedded store")]
pub struct StoreFlags {
    /// The directory of the store [default: the one that is configured].
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<String>,
    /// Read and copy everything, also what an earlier backup has.
    #[arg(long)]
    full: bool,
    /// The server that has the directory, if one is running; it is asked for a snapshot.
    #[command(flatten)]
    server: ServerFlags,
}

/// A place of backups, and what commands say of it.
pub(super) struct Commands {
    archive: Archive,
    address: Address,
}

impl Commands {
    /// Uses a place.
    pub(super) fn open(address: &Address, flags: &S3Flags) -> Result<Self, CommandError> {
        let endpoint = flags.endpoint.clone();
        let known = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
        let url = endpoint.clone().or_else(|| known.iter().find_map(|name| std::env::var(name).ok()));
        let tls = TlsFlags { ca: flags.s3_ca.clone(), ..TlsFlags::default() };
        let connector = match address {
            // It is never used, and needs no certificates.
            Address::Directory(_) => tls.connector("http://")?,
            Address::Bucket { .. } => tls.connector(&url.unwrap_or_else(|| "https://".to_owned()))?,
        };
        let s3 = S3 {
            endpoint,
            region: flags.region.clone(),
            access_key_file: flags.access_key_file.clone(),
            secret_key_file: flags.secret_key_file.clone(),
            session_token_file: flags.session_token_file.clone(),
        };
        let clock: Arc<dyn Clock> = SystemClock::start();
        let archive = Archive::open(address, &s3, connector, clock, draw()).map_err(failed)?;
        Ok(Self { archive, address: address.clone() })
    }

    pub(super) fn create(
        &self,
        name: Option<BackupName>,
        store: &StoreFlags,
        servers: &ClickHouseFlags,
    ) -> Result<(), CommandError> {
        let flag = store.data_dir.clone().map(|value| FlagValue {
            path: "storage.embedded.data_dir",
            flag: "--data-dir",
            value,
        });
        let named = flag.is_some();
        let config = servers.config_with(false, flag)?;
        if !named && config.storage.backend != Backend::Embedded {
            return Err(CommandError::Usage(
                "what is configured is a ClickHouse, whose servers make its backups: give their place (--at \
                 disk:NAME, file or s3:COLLECTION), or the directory of an embedded store (--data-dir)"
                    .to_owned(),
            ));
        }
        let ask = || snapshot(&store.server).map_err(|error| anyhow::anyhow!("{error}"));
        let dir = &config.storage.embedded.data_dir;
        let made = self.archive.create(dir, name, store.full, ask, &mut tell("backing up"));
        let Made { manifest, copied_files } = made.map_err(failed)?;
        writeln!(
            io::stdout(),
            "{}: {} samples in {} files, {} bytes; {copied_files} files and {} bytes of them are new at {}",
            manifest.name,
            manifest.samples,
            manifest.files.len(),
            manifest.bytes,
            manifest.copied_bytes,
            self.address
        )?;
        let damaged = |file: &&_| {
            let file: &crate::app::archive::BackedFile = file;
            file.part.as_ref().is_some_and(|part| part.damaged)
        };
        let damaged: Vec<&str> = manifest.files.iter().filter(damaged).map(|file| &*file.path).collect();
        if damaged.is_empty() {
            return Ok(());
        }
        Err(CommandError::Failed(format!(
            "the backup is made, but in {} these are damaged and were copied as they are: {}",
            dir.display(),
            damaged.join(", ")
        )))
    }

    pub(super) fn verify(&self, name: Option<&BackupName>, drill: Option<&Path>) -> Result<(), CommandError> {
        let found = self.archive.verify(name, &mut tell("reading")).map_err(failed)?;
        let manifest = &found.manifest;
        if !found.findings.is_empty() {
            return Err(self.damaged(&manifest.name, "is damaged", &found.findings));
        }
        let mut out = io::stdout();
        writeln!(
            out,
            "{}: {} files, {} bytes, {} samples: all as they were written",
            manifest.name,
            manifest.files.len(),
            manifest.bytes,
            manifest.samples
        )?;
        let Some(scratch) = drill else { return Ok(()) };
        let name = manifest.name.parse().map_err(CommandError::Failed)?;
        let drilled = self.archive.drill(Some(name), scratch, &mut tell("restoring")).map_err(failed)?;
        if drilled.is_sound() {
            writeln!(out, "restored, opened, and {} samples are in it; removed again", drilled.samples)?;
            return Ok(());
        }
        Err(CommandError::Failed(format!(
            "{} was restored and opened, and has {} of {} samples: {}",
            manifest.name,
            drilled.samples,
            manifest.samples,
            if drilled.damage.is_empty() {
                "nothing is damaged".to_owned()
            } else {
                drilled.damage.join("; ")
            }
        )))
    }

    pub(super) fn restore(
        &self,
        name: Option<BackupName>,
        into: &Path,
        skip_damaged: bool,
    ) -> Result<(), CommandError> {
        let told = &mut tell("restoring");
        let restored = self.archive.restore(name, into, skip_damaged, told).map_err(failed)?;
        let manifest = &restored.manifest;
        writeln!(
            io::stdout(),
            "restored {} into {}: {} files, {} bytes; start a server on it with --data-dir",
            manifest.name,
            into.display(),
            manifest.files.len() - restored.left_out.len(),
            manifest.bytes
        )?;
        if restored.left_out.is_empty() {
            return Ok(());
        }
        Err(self.damaged(&manifest.name, "is restored without what is damaged", &restored.left_out))
    }

    pub(super) fn list(&self) -> Result<(), CommandError> {
        let listed = self.archive.list().map_err(failed)?;
        let mut rows = vec![["BACKUP", "MADE", "SAMPLES", "FILES", "BYTES", "NEW"].map(str::to_owned)];
        let mut unreadable = Vec::new();
        for one in listed {
            match one.manifest {
                Ok(manifest) => rows.push([
                    manifest.name,
                    as_date(Timestamp(manifest.made_ms)),
                    manifest.samples.to_string(),
                    manifest.files.len().to_string(),
                    manifest.bytes.to_string(),
                    manifest.copied_bytes.to_string(),
                ]),
                Err(error) => unreadable.push(error.to_string()),
            }
        }
        write!(io::stdout(), "{}", table::columns(&rows))?;
        if unreadable.is_empty() { Ok(()) } else { Err(CommandError::Failed(unreadable.join("; "))) }
    }

    pub(super) fn prune(&self, keep: usize) -> Result<(), CommandError> {
        let pruned = self.archive.prune(keep).map_err(failed)?;
        let mut out = io::stdout();
        for name in &pruned.backups {
            writeln!(out, "removed {name}")?;
        }
        let (objects, bytes, left) = (pruned.objects, pruned.bytes, pruned.left);
        writeln!(
            out,
            "{left} backups are left; {objects} files with {bytes} bytes that none of them needs are gone"
        )?;
        Ok(())
    }

    fn damaged(&self, name: &str, what: &str, findings: &[Finding]) -> CommandError {
        let mut text = format!("{name} at {} {what}", self.address);
        for Finding { path, why } in findings {
            text.push_str(&format!("\n  {path}: {why}"));
        }
        CommandError::Failed(text)
    }
}

fn failed(error: impl fmt::Display) -> CommandError {
    CommandError::Failed(format!("{error:#}"))
}

/// Asks a server for a snapshot: its name.
fn snapshot(server: &ServerFlags) -> Result<String, CommandError> {
    let answer = server.post("/api/v1/admin/tsdb/snapshot", &[], SNAPSHOT);
    let answer = answer.map_err(|error| {
        CommandError::Failed(format!(
            "the store is in use, and its server cannot be asked for a snapshot: {error}"
        ))
    })?;
    let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
    if let (true, Some(name)) = (answer.status.is_success(), json["data"]["name"].as_str()) {
        return Ok(name.to_owned());
    }
    let why = json["error"].as_str().unwrap_or(answer.body.trim());
    Err(CommandError::Failed(format!(
        "{} made no snapshot: {}: {why}",
        server.server,
        answer.status.as_u16()
    )))
}

/// Tells on standard error how far a command is, a tenth at a time.
fn tell(doing: &'static str) -> impl FnMut(Progress) {
    let mut last = None;
    move |progress: Progress| {
        let tenth = progress.bytes.saturating_mul(10).checked_div(progress.of_bytes).unwrap_or(10);
        if last != Some(tenth) {
            let Progress { files, of_files, bytes, of_bytes } = progress;
            // Nobody has to read it.
            let _ =
                writeln!(io::stderr(), "{doing}: {files} of {of_files} files, {bytes} of {of_bytes} bytes");
            last = Some(tenth);
        }
    }
}
