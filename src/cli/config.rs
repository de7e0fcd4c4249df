//! `luminate check config` and `luminate config print`.

use std::{
    io::{self, Write},
    path::Path,
};

use clap::Args;

use super::{
    CommandError,
    serve::{ServeFlags, environment},
};
use crate::{
    app::{jwt, keys, limits::check_overrides, retention},
    clock::SystemClock,
    config::{Config, ConfigFile, Sources},
};

/// What to print of the configuration.
#[derive(Clone, Debug, Args)]
pub struct PrintFlags {
    /// One key a line, with where its value comes from.
    #[arg(long)]
    origin: bool,
    #[command(flatten)]
    serve: ServeFlags,
}

/// Checks a file together with the environment.
pub fn check(file: Option<&Path>) -> Result<(), CommandError> {
    let written = file.map_or_else(|| Ok(ConfigFile::none()), ConfigFile::read)?;
    let (config, _) =
        Config::check(&Sources { file: written, environment: environment(), flags: Vec::new() })?;
    check_overrides(&config).map_err(CommandError::Usage)?;
    retention::check(&config.storage).map_err(|e| CommandError::Usage(format!("{e:#}")))?;
    jwt::check(&config.auth.jwt, SystemClock::start()).map_err(|e| CommandError::Usage(format!("{e:#}")))?;
    if let Some(warning) = keys::check(&config).map_err(|e| CommandError::Usage(format!("{e:#}")))? {
        // It is told, not asked.
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
    let name = file.map_or_else(|| "the environment".to_owned(), |file| file.display().to_string());
    Ok(writeln!(io::stdout(), "{name} is valid")?)
}

/// Prints the configuration in effect, as a file that says the same.
pub fn print(flags: &PrintFlags) -> Result<(), CommandError> {
    let (_, settings) = flags.serve.config()?;
    let mut out = io::stdout().lock();
    if flags.origin {
        for setting in settings.iter() {
            let value = serde_json::to_string(&setting.value).unwrap_or_default();
            writeln!(out, "{}: {value}  # {}", setting.path, setting.origin)?;
        }
    } else {
        out.write_all(settings.to_yaml().as_bytes())?;
    }
    Ok(())
}
