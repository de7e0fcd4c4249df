//! `luminate token`: signs tokens, and explains them.
//!
//! Neither asks a server. The key is in a file that is named, or the one of the configuration that a server would
//! use. A secret is never printed.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::{Args, Subcommand};
use jsonwebtoken::Algorithm;

use super::{
    CommandError,
    serve::{draw, environment},
};
use crate::{
    app::token::{self, KeySource, NewToken, Verdict},
    clock::{Clock, SystemClock},
    config::{Config, ConfigFile, FlagValue, Sources, value::parse_duration},
};

/// More than this is no token, with whatever is around it.
const MAX_INPUT_BYTES: u64 = 64 << 10;

/// What to do with tokens.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// Sign a token and print it.
    Create(Box<CreateFlags>),
    /// Tell what a token says, whether it is good, and what it lets its bearer do; by the exit code, too.
    Inspect(InspectFlags),
}

/// Which key it is about.
#[derive(Clone, Debug, Default, Args)]
pub struct KeyFlags {
    /// The file with the secret.
    #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
    secret_file: Option<PathBuf>,
    /// The PEM file with the key: the private one to sign, the public one to check.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The configuration file that has or names the key [default: only the environment].
    #[arg(long = "config.file", value_name = "FILE", env = "LUMINATE_CONFIG_FILE")]
    config_file: Option<PathBuf>,
}

/// What the new token says.
#[derive(Clone, Debug, Args)]
pub struct CreateFlags {
    #[command(flatten)]
    key: KeyFlags,
    /// The algorithm [default: HS256, RS256, ES256, ES384 or EdDSA, as the key is].
    #[arg(long, value_name = "NAME")]
    alg: Option<String>,
    /// What the server calls the key.
    #[arg(long, value_name = "NAME")]
    kid: Option<String>,
    /// A tenant, or a pattern like team-*; the first one is for requests that name none.
    #[arg(long, value_name = "TENANT", required = true)]
    tenant: Vec<String>,
    /// write, read, delete, rules or admin; several with commas between.
    #[arg(long, value_name = "SCOPE", required = true, value_delimiter = ',')]
    scope: Vec<String>,
    /// How long it is good.
    #[arg(long, value_name = "DURATION", default_value = "30d")]
    expires: String,
    /// A label that each series it writes gets.
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// A selector; what it reads has to match one of them.
    #[arg(long, value_name = "SELECTOR")]
    filter: Vec<String>,
    /// A limit of its own, within those of the server.
    #[arg(long, value_name = "NAME=VALUE")]
    limit: Vec<String>,
    /// Whom it is for [default: the first of auth.jwt.audience].
    #[arg(long, value_name = "NAME")]
    audience: Vec<String>,
    /// Who issues it [default: auth.jwt.issuer].
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Who its bearer is, for logs.
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
    /// Its name (jti), by which it can be taken back [default: drawn].
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
}

/// Which token to explain.
#[derive(Clone, Debug, Args)]
pub struct InspectFlags {
    #[command(flatten)]
    key: KeyFlags,
    /// The token; - reads it from standard input, where no other process can see it.
    #[arg(default_value = "-")]
    token: String,
}

impl KeyFlags {
    fn source(&self) -> Result<KeySource, CommandError> {
        match (&self.secret_file, &self.key_file) {
            (Some(path), _) => return Ok(KeySource::SecretFile(path.clone())),
            (None, Some(path)) => return Ok(KeySource::KeyFile(path.clone())),
            (None, None) => {}
        }
        let file = self.config_file.as_deref().map_or_else(|| Ok(ConfigFile::none()), ConfigFile::read)?;
        // Whether a server would ask for tokens does not matter here.
        let flags = vec![FlagValue { path: "auth.mode", flag: "token", value: "token".to_owned() }];
        let (config, _) = Config::check(&Sources { file, environment: environment(), flags })?;
        Ok(KeySource::Config(Box::new(config.auth.jwt)))
    }
}

/// Does what was asked for.
pub fn run(command: &TokenCommand) -> Result<(), CommandError> {
    match command {
        TokenCommand::Create(flags) => create(flags),
        TokenCommand::Inspect(flags) => inspect(flags),
    }
}

fn create(flags: &CreateFlags) -> Result<(), CommandError> {
    let token = new_token(flags).map_err(CommandError::Usage)?;
    let now = SystemClock::start().now();
    let signed = token::create(&flags.key.source()?, &token, now).map_err(failed)?;
    Ok(writeln!(io::stdout(), "{signed}")?)
}

fn new_token(flags: &CreateFlags) -> Result<NewToken, String> {
    let algorithm = |name: &String| {
        name.parse::<Algorithm>().map_err(|_| format!("--alg: {name:?} is no algorithm of ours"))
    };
    let expires = parse_duration(&flags.expires).map_err(|wrong| format!("--expires: {wrong}"))?;
    if expires < Duration::from_secs(1) {
        return Err("--expires: a token is good for a second at least".to_owned());
    }
    Ok(NewToken {
        algorithm: flags.alg.as_ref().map(algorithm).transpose()?,
        kid: flags.kid.clone(),
        tenants: flags.tenant.clone(),
        scopes: flags.scope.clone(),
        expires,
        labels: pairs("--label", &flags.label)?,
        filters: flags.filter.clone(),
        limits: pairs("--limit", &flags.limit)?,
        audience: flags.audience.clone(),
        issuer: flags.issuer.clone(),
        subject: flags.subject.clone(),
        id: flags.id.clone().unwrap_or_else(|| format!("{:016x}{:016x}", draw(), draw())),
    })
}

fn pairs(flag: &str, texts: &[String]) -> Result<BTreeMap<String, String>, String> {
    let mut pairs = BTreeMap::new();
    for text in texts {
        let (name, value) =
            text.split_once('=').ok_or_else(|| format!("{flag}: {text:?} is not name=value"))?;
        if pairs.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(format!("{flag}: {name} is there twice"));
        }
    }
    Ok(pairs)
}

fn inspect(flags: &InspectFlags) -> Result<(), CommandError> {
    let token = if flags.token == "-" { read_input()? } else { flags.token.clone() };
    let token = token.trim();
    let token = token.strip_prefix("Bearer ").unwrap_or(token).trim();
    let source = flags.key.source()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CommandError::Failed(format!("cannot start the runtime: {e}")))?;
    let clock: Arc<dyn Clock> = SystemClock::start();
    let inspected = runtime.block_on(token::inspect(&source, token, clock)).map_err(failed)?;
    let pretty = |value: &serde_json::Value| serde_json::to_string_pretty(value).unwrap_or_default();
    let mut out = io::stdout().lock();
    writeln!(out, "header {}", pretty(&inspected.header))?;
    writeln!(out, "claims {}", pretty(&inspected.claims))?;
    let verdict = match &inspected.verdict {
        Verdict::Good { key, until } => {
            let until = jiff::Timestamp::from_millisecond(until.millis())
                .map(|at| at.to_string())
                .unwrap_or_default();
            writeln!(out, "good, by the key of {key}, until {until}")?;
            Ok(())
        }
        Verdict::Bad(why) => {
            writeln!(out, "not good: {why}")?;
            Err(CommandError::Failed("the token is not good".to_owned()))
        }
        Verdict::NoKeys => {
            writeln!(out, "not checked: there is no key to hold it against")?;
            Ok(())
        }
    };
    match &inspected.bearer {
        Ok(lines) => {
            for (what, value) in lines {
                writeln!(out, "  {what:<8}{value}")?;
            }
        }
        Err(why) => writeln!(out, "  nobody is let in by what it says: {why}")?,
    }
    verdict
}

fn read_input() -> Result<String, CommandError> {
    let mut text = String::new();
    let read = io::stdin().take(MAX_INPUT_BYTES).read_to_string(&mut text);
    read.map_err(|e| CommandError::Failed(format!("cannot read the token: {e}")))?;
    Ok(text)
}

fn failed(error: anyhow::Error) -> CommandError {
    CommandError::Failed(format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: TokenCommand,
    }

    fn flags(more: &[&str]) -> CreateFlags {
        let line = [&["token", "create", "--tenant", "a", "--scope", "read,write"], more].concat();
        match Line::try_parse_from(line).unwrap().command {
            TokenCommand::Create(flags) => *flags,
            TokenCommand::Inspect(_) => unreachable!("it is create"),
        }
    }

    #[test]
    fn a_line_says_what_a_token_is_to_say() {
        let token = new_token(&flags(&["--expires", "1h", "--label", "a=b=c", "--limit", "queries_burst=5"]))
            .unwrap();
        assert_eq!(token.expires, Duration::from_secs(3600));
        assert_eq!(token.scopes, ["read", "write"]);
        assert_eq!(token.labels["a"], "b=c");
        assert_eq!(token.limits["queries_burst"], "5");
        assert_eq!(token.id.len(), 32);
        for (more, wrong) in [
            (&["--expires", "30"][..], "--expires: \"30\" has no unit"),
            (&["--expires", "0"], "a second at least"),
            (&["--label", "a"], "--label: \"a\" is not name=value"),
            (&["--label", "a=1", "--label", "a=2"], "a is there twice"),
            (&["--alg", "none"], "no algorithm of ours"),
        ] {
            assert!(new_token(&flags(more)).unwrap_err().contains(wrong), "{more:?}");
        }
    }
}
