//! The command line: what can be asked of the binary, and how it says that it failed.
//!
//! `luminate` alone is `luminate serve`. Every other command is a client of a running server ([`query`],
//! [`health`], [`export`], [`import`]), of a part ([`config`], [`token`]), or works on files ([`mend`]). Data goes to
//! standard output, talk to standard error.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | it failed: the server said no, is not there, or stopped with an error |
//! | 2 | the command line or the configuration is wrong |
//! | 3 | a data directory could not be read, so that nobody knows whether it reads back ([`mend`]) |

pub mod admin;
pub mod backup;
pub mod client;
pub mod config;
pub mod export;
pub mod health;
pub mod import;
pub mod key;
pub mod mend;
pub mod moving;
pub mod query;
pub mod schema;
pub mod serve;
pub mod table;
pub mod time;
pub mod tls;
pub mod token;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::ConfigErrors;

/// A multi-tenant metrics database: Prometheus writes to it, PromQL reads from it.
#[derive(Debug, Parser)]
#[command(name = "luminate", version, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Without a command, the server starts.
    #[command(flatten)]
    serve: serve::ServeFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (also without a command).
    Serve(serve::ServeFlags),
    /// Ask a running server for the answer to an expression.
    Query(query::QueryFlags),
    /// Write what a running server holds as lines of JSON.
    Export(export::ExportFlags),
    /// Send lines of JSON to a running server.
    Import(import::ImportFlags),
    /// Check files without using them.
    #[command(subcommand)]
    Check(Check),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Back the store up, try a backup out, restore it.
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Read all of a data directory and tell what does not read back.
    Verify(mend::VerifyFlags),
    /// Mend a data directory: what does not read back goes to quarantine, the rest serves.
    Repair(mend::RepairFlags),
    /// Make API keys, list them, take them back.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Look after the tables in ClickHouse.
    #[command(subcommand)]
    Schema(schema::SchemaCommand),
    /// Sign tokens, and explain them.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Tell whether a running server is ready, by the exit code.
    Healthcheck(health::HealthFlags),
    /// Do nothing for a while, for a container's hook before it stops.
    Sleep {
        /// How long: seconds, or a duration like 500ms.
        #[arg(value_name = "SECONDS|DURATION", value_parser = health::parse_nap)]
        time: std::time::Duration,
    },
    /// Operate a running server.
    #[command(subcommand)]
    Admin(admin::Admin),
    /// Print the version.
    Version,
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
enum Check {
    /// Check a configuration file, together with the environment; tells everything that is wrong.
    Config {
        /// The file; without one, only the environment is checked.
        file: Option<std::path::PathBuf>,
        /// The same, as `serve` takes it.
        #[arg(long = "config.file", value_name = "FILE", conflicts_with = "file")]
        config_file: Option<std::path::PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the configuration in effect.
    Print(config::PrintFlags),
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It failed.
    #[error("{0}")]
    Failed(String),
    /// It could not read what it had to look at.
    #[error("{0}")]
    Unread(String),
    /// It was asked for in a wrong way.
    #[error("{0}")]
    Usage(String),
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// What it would say cannot be written.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

impl CommandError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Output(_) => 1,
            Self::Usage(_) | Self::Config(_) => 2,
            Self::Unread(_) => 3,
        }
    }
}

/// Does what the process' arguments ask for.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // Help and version are errors to clap, too; it knows where each goes.
        Err(answer) => {
            let code = if answer.use_stderr() { 2 } else { 0 };
            // Nobody reads it; that changes nothing.
            let _ = answer.print();
            return ExitCode::from(code);
        }
    };
    match dispatch(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the answer has had enough, as `head` does.
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // There is nobody left to tell.
            let _ = writeln!(io::stderr(), "luminate: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch(arguments: Arguments) -> Result<(), CommandError> {
    match arguments.command.unwrap_or(Command::Serve(arguments.serve)) {
        Command::Serve(flags) => serve::run(&flags),
        Command::Query(flags) => query::run(&flags),
        Command::Export(flags) => export::run(&flags),
        Command::Import(flags) => import::run(&flags),
        Command::Check(Check::Config { file, config_file }) => config::check(file.or(config_file).as_deref()),
        Command::Config(ConfigCommand::Print(flags)) => config::print(&flags),
        Command::Backup(command) => backup::run(&command),
        Command::Verify(flags) => mend::verify(&flags),
        Command::Repair(flags) => mend::repair(&flags),
        Command::Key(command) => key::run(&command),
        Command::Schema(command) => schema::run(&command),
        Command::Token(command) => token::run(&command),
        Command::Healthcheck(flags) => health::check(&flags),
        Command::Sleep { time } => {
            health::sleep(time);
            Ok(())
        }
        Command::Admin(command) => admin::run(&command),
        Command::Version => Ok(writeln!(io::stdout(), "luminate {}", env!("CARGO_PKG_VERSION"))?),
        Command::Completions { shell } => completions(shell),
    }
}

fn completions(shell: Shell) -> Result<(), CommandError> {
    // Into memory first: clap_complete panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "luminate", &mut script);
    Ok(io::stdout().write_all(&script)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_flags_of_serve_need_no_command() {
        let bare = Arguments::try_parse_from(["luminate", "--listen", "127.0.0.1:1"]).unwrap();
        assert!(bare.command.is_none());
        assert_eq!(bare.serve.values()[0].value, "127.0.0.1:1");
        let named = Arguments::try_parse_from(["luminate", "serve", "--retention=1d"]).unwrap();
        assert!(matches!(named.command, Some(Command::Serve(_))));
    }
}
