//! `luminate schema`: the tables in ClickHouse, before a server uses them.
//!
//! The servers are found as `serve` finds them: in the file, the environment and flags.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::{Args, Subcommand};

use super::{
    CommandError,
    serve::{draw, environment},
    table,
    time::as_date,
};
use crate::{
    app::schema::{self, Schema, Status},
    clock::SystemClock,
    config::{Config, ConfigFile, FlagValue, Sources},
};

/// What to do with the schema.
#[derive(Clone, Debug, Subcommand)]
pub enum SchemaCommand {
    /// Make what is missing of the database and its tables; nothing is changed where it is there.
    Apply {
        /// Print the statements instead of running them.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        servers: ClickHouseFlags,
    },
    /// Tell which versions are applied, and by the exit code whether this binary can use them.
    Status(ClickHouseFlags),
    /// Print every statement, to be read or to be run by hand; no server is asked.
    Print(ClickHouseFlags),
}

/// Where ClickHouse is.
#[derive(Clone, Debug, Default, Args)]
pub struct ClickHouseFlags {
    /// The configuration file.
    #[arg(long = "config.file", value_name = "FILE", env = "LUMINATE_CONFIG_FILE")]
    config_file: Option<PathBuf>,
    /// The servers' HTTP addresses, with commas between.
    #[arg(long, value_name = "ADDRESSES")]
    address: Vec<String>,
    /// The database that holds the tables [default: luminate].
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// The cluster, if the tables are to be replicated or sharded.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Who may make them [default: default].
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// The file that holds the password.
    #[arg(long, value_name = "FILE")]
    password_file: Option<String>,
}

impl ClickHouseFlags {
    /// Whether servers are named here.
    pub(super) fn names_servers(&self) -> bool {
        !self.address.is_empty()
    }

    /// The configuration with these flags; `asked` tells whether servers are.
    pub(super) fn config(&self, asked: bool) -> Result<Config, CommandError> {
        self.config_with(asked, None)
    }

    /// The same, with one more flag.
    pub(super) fn config_with(&self, asked: bool, more: Option<FlagValue>) -> Result<Config, CommandError> {
        let file = self.config_file.as_deref().map_or_else(|| Ok(ConfigFile::none()), ConfigFile::read)?;
        let address = (!self.address.is_empty()).then(|| self.address.join(","));
        let given = [
            // Whoever names servers means them, whatever the file says.
            ("storage.backend", "luminate schema", asked.then(|| "clickhouse".to_owned())),
            ("storage.clickhouse.addresses", "--address", address),
            ("storage.clickhouse.database", "--database", self.database.clone()),
            ("storage.clickhouse.cluster", "--cluster", self.cluster.clone()),
            ("storage.clickhouse.username", "--username", self.username.clone()),
            ("storage.clickhouse.password_file", "--password-file", self.password_file.clone()),
        ];
        let value =
            |(path, flag, value): (_, _, Option<String>)| Some(FlagValue { path, flag, value: value? });
        let flags = given.into_iter().filter_map(value).chain(more).collect();
        Ok(Config::check(&Sources { file, environment: environment(), flags })?.0)
    }
}

/// Does what is asked.
pub fn run(command: &SchemaCommand) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    match command {
        SchemaCommand::Apply { dry_run: true, servers } => {
            let plan = ask(servers, async |schema| schema.plan().await)?;
            if plan.is_empty() {
                writeln!(out, "-- nothing to do")?;
            }
            for (title, statements) in plan {
                writeln!(out, "-- {title}")?;
                for statement in statements {
                    writeln!(out, "{statement};\n")?;
                }
            }
        }
        SchemaCommand::Apply { dry_run: false, servers } => {
            let told = |version: u32, name: &str| {
                // What was applied counts, not who hears of it.
                let _ = writeln!(io::stdout(), "applying version {version} ({name})");
            };
            drop(out);
            let applied = ask(servers, async |schema| schema.apply(told).await)?;
            let mut out = io::stdout().lock();
            match applied {
                0 => writeln!(out, "nothing to do")?,
                _ => writeln!(out, "done")?,
            }
        }
        SchemaCommand::Status(servers) => {
            let status = ask(servers, async |schema| schema.status().await)?;
            write!(out, "{}", shown(&status))?;
            for warning in &status.warnings {
                writeln!(out, "warning: {warning}")?;
            }
            if let Some(problem) = status.problem {
                return Err(CommandError::Failed(problem));
            }
        }
        SchemaCommand::Print(flags) => {
            write!(out, "{}", schema::script(&flags.config(false)?.storage))?;
        }
    }
    Ok(())
}

/// Asks the servers something.
fn ask<T>(
    flags: &ClickHouseFlags,
    question: impl AsyncFnOnce(&Schema) -> anyhow::Result<T>,
) -> Result<T, CommandError> {
    let config = flags.config(true)?;
    let failed = |error: anyhow::Error| CommandError::Failed(format!("{error:#}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CommandError::Failed(format!("cannot start the runtime: {e}")))?;
    runtime.block_on(async {
        let schema = Schema::new(&config.storage, draw(), SystemClock::start()).map_err(failed)?;
        question(&schema).await.map_err(failed)
    })
}

fn shown(status: &Status) -> String {
    let mut rows = vec![["VERSION".to_owned(), "NAME".to_owned(), "APPLIED".to_owned()]];
    rows.extend(status.steps.iter().map(|step| {
        let applied = step.applied.map_or_else(|| "no".to_owned(), as_date);
        [step.version.to_string(), step.name.clone(), applied]
    }));
    table::columns(&rows)
}
