//! `luminate admin check`: whether what a server stands on can be used as it is configured.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, ValueEnum};

use crate::{
    app::dependencies::{self, Dependency, Step},
    cli::{CommandError, serve::environment},
    clock::SystemClock,
    config::{Config, ConfigFile, Sources, value::parse_duration},
};

/// What to try, as which configuration has it.
#[derive(Clone, Debug, Args)]
pub struct CheckFlags {
    /// What to try [default: all that the configuration uses].
    #[arg(value_enum)]
    what: Vec<What>,
    /// The server's configuration file; the environment counts, too.
    #[arg(long = "config.file", value_name = "FILE", env = "LUMINATE_CONFIG_FILE")]
    config_file: Option<PathBuf>,
    /// How long each step may take.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,
}

/// What can be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Where samples are kept: reach it, sign in, find the schema.
    Clickhouse,
    /// What gateways share: reach it, sign in, run what we need.
    Redis,
    /// Who publishes keys of tokens: reach it, fetch and read the keys.
    Jwks,
    /// The names of all these.
    Dns,
}

impl What {
    fn dependency(self) -> Dependency {
        match self {
            Self::Clickhouse => Dependency::ClickHouse,
            Self::Redis => Dependency::Redis,
            Self::Jwks => Dependency::Jwks,
            Self::Dns => Dependency::Dns,
        }
    }
}

/// Tries, and tells of each step.
pub fn run(flags: &CheckFlags) -> Result<(), CommandError> {
    if flags.timeout.is_zero() {
        return Err(CommandError::Usage("--timeout is no time at all".to_owned()));
    }
    let file = flags.config_file.as_deref().map_or_else(|| Ok(ConfigFile::none()), ConfigFile::read)?;
    let sources = Sources { file, environment: environment(), flags: Vec::new() };
    let (config, _) = Config::check(&sources)?;
    let asked: Vec<Dependency> = flags.what.iter().map(|what| what.dependency()).collect();
    for dependency in &asked {
        if let Some(why) = dependency.unused(&config) {
            return Err(CommandError::Usage(format!("{} is not used: {why}", dependency.name())));
        }
    }
    let used = || Dependency::ALL.into_iter().filter(|dependency| dependency.unused(&config).is_none());
    let wanted = if asked.is_empty() { used().collect() } else { asked };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CommandError::Failed(format!("cannot start the runtime: {e}")))?;
    let mut bad = Vec::new();
    for dependency in wanted {
        let mut told = Ok(());
        let mut tell = |step: &Step| {
            if told.is_ok() {
                told = print(dependency, step);
            }
        };
        let clock = SystemClock::start();
        let checked = dependencies::check(dependency, &config, flags.timeout, clock, &mut tell);
        if !runtime.block_on(checked) {
            bad.push(dependency.name());
        }
        told?;
    }
    // A name that is still being looked up holds a thread.
    runtime.shutdown_background();
    if bad.is_empty() { Ok(()) } else { Err(CommandError::Failed(format!("cannot use {}", bad.join(", ")))) }
}

fn print(dependency: Dependency, step: &Step) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let (how, words) = match &step.outcome {
        Ok(words) => ("ok", words),
        Err(words) => ("FAILED", words),
    };
    writeln!(out, "{how:<7} {:<10} {:<12} {words}", dependency.name(), step.name)?;
    if let Some(hint) = step.hint {
        writeln!(out, "{:<7} {:<10} {:<12} {hint}", "", "", "")?;
    }
    Ok(())
}
