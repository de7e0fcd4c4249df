//! `luminate serve`: flags, configuration, logs, and then the server until it is told to stop.

use std::{
    ffi::OsString,
    hash::{BuildHasher, RandomState},
    path::PathBuf,
    sync::Arc,
};

use clap::Args;

use super::CommandError;
use crate::{
    app::{self, Greeting, Seeds},
    clock::{Clock, SystemClock},
    config::{Config, ConfigErrors, ConfigFile, FlagValue, LogFormat, Settings, Sources},
    telemetry::logs,
};

/// What of the configuration can be set on the command line.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeFlags {
    /// The configuration file.
    #[arg(long = "config.file", value_name = "FILE", env = "LUMINATE_CONFIG_FILE")]
    config_file: Option<PathBuf>,
    /// The address to listen on [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The address to be operated by, if it is another [default: none].
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// How long to go on serving, not ready, after being told to stop [default: 0s].
    #[arg(long, value_name = "DURATION")]
    shutdown_delay: Option<String>,
    /// The directory that holds everything [default: ./luminate-data].
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<String>,
    /// How long samples are kept; 0 is forever [default: 30d].
    #[arg(long, value_name = "DURATION")]
    retention: Option<String>,
    /// How callers are told apart: none, or token [default: none].
    #[arg(long = "auth.mode", value_name = "MODE")]
    auth_mode: Option<String>,
    /// Features to switch on, by Prometheus' names, with commas between.
    #[arg(long, value_name = "NAMES")]
    enable_feature: Vec<String>,
    /// error, warn, info, debug or trace [default: info].
    #[arg(long = "log.level", value_name = "LEVEL")]
    log_level: Option<String>,
    /// json, console or auto [default: auto].
    #[arg(long = "log.format", value_name = "FORMAT")]
    log_format: Option<String>,
}

impl ServeFlags {
    /// The flags that were given, as values of keys.
    pub fn values(&self) -> Vec<FlagValue> {
        let given = [
            ("server.listen", "--listen", self.listen.clone()),
            ("server.admin_listen", "--admin-listen", self.admin_listen.clone()),
            ("server.shutdown.delay", "--shutdown-delay", self.shutdown_delay.clone()),
            ("storage.embedded.data_dir", "--data-dir", self.data_dir.clone()),
            ("storage.retention.default", "--retention", self.retention.clone()),
            ("auth.mode", "--auth.mode", self.auth_mode.clone()),
            (
                "features",
                "--enable-feature",
                (!self.enable_feature.is_empty()).then(|| self.enable_feature.join(",")),
            ),
            ("log.level", "--log.level", self.log_level.clone()),
            ("log.format", "--log.format", self.log_format.clone()),
        ];
        let value =
            |(path, flag, value): (_, _, Option<String>)| Some(FlagValue { path, flag, value: value? });
        given.into_iter().filter_map(value).collect()
    }

    /// Checks what these flags, the environment and the file say.
    pub fn config(&self) -> Result<(Config, Settings), ConfigErrors> {
        let file = self.config_file.as_deref().map_or_else(|| Ok(ConfigFile::none()), ConfigFile::read)?;
        Config::check(&Sources { file, environment: environment(), flags: self.values() })
    }
}

/// The environment, as far as it can be ours: our keys and their values are UTF-8.
pub(super) fn environment() -> Vec<(String, String)> {
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).collect()
}

/// Runs the server until it is told to stop.
pub fn run(flags: &ServeFlags) -> Result<(), CommandError> {
    let (config, settings) = flags.config()?;
    let clock: Arc<dyn Clock> = SystemClock::start();
    let format = match config.log.format {
        LogFormat::Auto => logs::Format::of_terminal(),
        LogFormat::Json => logs::Format::Json,
        LogFormat::Console => logs::Format::Console,
    };
    logs::install(&config.log.level, format, Arc::clone(&clock));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("luminate")
        .thread_stack_size(app::STACK_BYTES)
        .build()
        .map_err(|e| CommandError::Failed(format!("cannot start the runtime: {e}")))?;
    let greeting = match format {
        logs::Format::Console => Greeting::Card { configured: flags.config_file.is_some() },
        logs::Format::Json => Greeting::None,
    };
    let outcome = runtime.block_on(app::run(config, &settings, clock, seeds(), greeting));
    // What still blocks a thread has had its grace.
    runtime.shutdown_background();
    outcome.map_err(|e| CommandError::Failed(format!("{e:#}")))
}

/// Draws a number that has to be unpredictable. The standard library keys its maps from the system's
/// randomness, which is the one source of it that needs no dependency.
pub(super) fn draw() -> u64 {
    RandomState::new().hash_one(0_u8)
}

fn seeds() -> Seeds {
    Seeds { ingest: (draw(), draw()), storage: draw(), request_ids: draw() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_may_be_named_in_several_flags() {
        let flags = ServeFlags {
            enable_feature: vec![
                "promql-delayed-name-removal,use-start-timestamps".to_owned(),
                "x".to_owned(),
            ],
            ..ServeFlags::default()
        };
        assert_eq!(flags.values()[0].value, "promql-delayed-name-removal,use-start-timestamps,x");
        assert!(flags.config().unwrap_err().to_string().contains("unknown feature \"x\""));
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error() {
        let flags = ServeFlags { config_file: Some("/nowhere".into()), ..ServeFlags::default() };
        assert!(flags.config().unwrap_err().to_string().starts_with("/nowhere: "));
    }
}
