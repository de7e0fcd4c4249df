//! `luminate key`: API keys, before a server takes them.
//!
//! A key is printed once, when it is made, alone on standard output; the server keeps no more than its hash.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::{
    CommandError,
    serve::environment,
    table,
    time::{as_date, parse_instant, parse_span},
};
use crate::{
    app::keys::{KeyPlace, KeyRecord, Keys, NewKey},
    clock::{Clock, SystemClock},
    config::{Config, ConfigFile, FlagValue, Sources},
    model::Timestamp,
};

/// What to do with keys.
#[derive(Clone, Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key and print it; it cannot be printed again.
    Create(CreateFlags),
    /// Tell which keys there are, by their ids.
    List(PlaceFlags),
    /// Take a key out of use for ever.
    Revoke {
        /// The key's id: the 12 letters and digits after lum_.
        id: String,
        #[command(flatten)]
        place: PlaceFlags,
    },
}

/// Where keys are.
#[derive(Clone, Debug, Default, Args)]
pub struct PlaceFlags {
    /// The file of keys [default: auth.api_keys.file of the configuration].
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// In the Redis of the configuration, or of REDIS_URL.
    #[arg(long, conflicts_with = "file")]
    redis: bool,
    /// The configuration file.
    #[arg(long = "config.file", value_name = "FILE", env = "LUMINATE_CONFIG_FILE")]
    config_file: Option<PathBuf>,
}

impl PlaceFlags {
    fn place(&self) -> Result<KeyPlace, CommandError> {
        if let Some(file) = &self.file {
            return Ok(KeyPlace::File(file.clone()));
        }
        // As if the configuration said that keys are there.
        let in_redis =
            [("redis.key_store.enabled", "true"), ("auth.mode", "token"), ("auth.api_keys.file", "")];
        let flag = |(path, value): (&'static str, &str)| FlagValue {
            path,
            flag: "--redis",
            value: value.to_owned(),
        };
        let flags = in_redis.into_iter().filter(|_| self.redis).map(flag).collect();
        let file = self.config_file.as_deref().map_or_else(|| Ok(ConfigFile::none()), ConfigFile::read)?;
        let (config, _) = Config::check(&Sources { file, environment: environment(), flags })?;
        KeyPlace::of(&config).ok_or_else(|| {
            CommandError::Usage(
                "no file of keys is named, by --file or as auth.api_keys.file, nor is --redis given"
                    .to_owned(),
            )
        })
    }
}

/// What a new key is to be.
#[derive(Clone, Debug, Default, Args)]
pub struct CreateFlags {
    #[command(flatten)]
    place: PlaceFlags,
    /// The tenant it is for. Given again: others that requests may name in X-Scope-OrgID; `team-*` is all
    /// that begin so.
    #[arg(long, value_name = "TENANT")]
    tenant: Vec<String>,
    /// What it may: write, read, delete, rules, admin; with commas between.
    #[arg(long, value_name = "SCOPES", required = true, value_delimiter = ',')]
    scope: Vec<String>,
    /// What it is for.
    #[arg(long, value_name = "TEXT", default_value = "")]
    name: String,
    /// When it ends: after so long (90d), or at a time (2027-01-01T00:00:00Z) [default: never].
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// A label that all series written with it get.
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// A selector that all data read with it must match; of several, one.
    #[arg(long, value_name = "SELECTOR")]
    filter: Vec<String>,
    /// A limit of its own, below those of its tenant.
    #[arg(long, value_name = "NAME=VALUE")]
    limit: Vec<String>,
}

impl CreateFlags {
    fn key(&self, now: Timestamp) -> Result<NewKey, String> {
        let mut labels = BTreeMap::new();
        for label in &self.label {
            let (name, value) = assignment("--label", label)?;
            if labels.insert(name.clone(), value).is_some() {
                return Err(format!("--label {name} is given more than once"));
            }
        }
        let mut limits = Map::new();
        for limit in &self.limit {
            let (name, value) = assignment("--limit", limit)?;
            let value = value.parse::<u64>().map_or(Value::String(value), Value::from);
            if limits.insert(name.clone(), value).is_some() {
                return Err(format!("--limit {name} is given more than once"));
            }
        }
        let expires = self.expires.as_deref().filter(|when| *when != "never");
        Ok(NewKey {
            name: self.name.clone(),
            tenants: self.tenant.clone(),
            scopes: self.scope.clone(),
            labels,
            filters: self.filter.clone(),
            limits,
            expires: expires.map(|when| end(when, now)).transpose()?,
        })
    }
}

/// Reads `90d` from now on, or a time to come.
fn end(when: &str, now: Timestamp) -> Result<Timestamp, String> {
    let end = match parse_span(when) {
        Ok(span) => now.plus(span),
        Err(_) => parse_instant(when, now).map_err(|_| {
            format!("--expires: {when:?} is neither a time (2027-01-01T00:00:00Z) nor a span (90d)")
        })?,
    };
    if end <= now {
        return Err(format!("--expires: {when} is over"));
    }
    Ok(end)
}

fn assignment(flag: &str, text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("{flag} takes NAME=VALUE, not {text:?}"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Does what is asked.
pub fn run(command: &KeyCommand) -> Result<(), CommandError> {
    let now = SystemClock::start().now();
    match command {
        KeyCommand::Create(flags) => {
            let new = flags.key(now).map_err(CommandError::Usage)?;
            let (key, record) = with(&flags.place, async |keys| keys.create(new, now).await)?;
            writeln!(io::stdout(), "{}", key.0)?;
            // The key is made, whether anybody reads this or not.
            let _ = writeln!(io::stderr(), "made {}; this is the only time the key is shown", told(&record));
        }
        KeyCommand::List(place) => {
            let records = with(place, async |keys| keys.list().await)?;
            io::stdout().write_all(shown(&records, now).as_bytes())?;
        }
        KeyCommand::Revoke { id, place } => {
            let id = with(place, async |keys| keys.revoke(id, now).await)?;
            writeln!(io::stdout(), "revoked {id}")?;
        }
    }
    Ok(())
}

fn with<T>(
    place: &PlaceFlags,
    work: impl AsyncFnOnce(&Keys) -> anyhow::Result<T>,
) -> Result<T, CommandError> {
    let place = place.place()?;
    let failed = |error: anyhow::Error| CommandError::Failed(format!("{error:#}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CommandError::Failed(format!("cannot start the runtime: {e}")))?;
    runtime.block_on(async {
        let keys = Keys::open(&place).await.map_err(failed)?;
        work(&keys).await.map_err(failed)
    })
}

/// What a key is, in a few words.
fn told(record: &KeyRecord) -> String {
    let tenants = tenants(record);
    let whose = if tenants.is_empty() { String::new() } else { format!(" for {tenants}") };
    let end =
        record.expires.map_or_else(|| "that never ends".to_owned(), |at| format!("until {}", as_date(at)));
    format!("key {}{whose}, scopes {}, {end}", record.id, record.scopes.join(","))
}

fn tenants(record: &KeyRecord) -> String {
    record.tenant.iter().chain(&record.tenants).map(String::as_str).collect::<Vec<_>>().join(",")
}

fn shown(records: &[KeyRecord], now: Timestamp) -> String {
    let mut rows = vec![["ID", "TENANTS", "SCOPES", "EXPIRES", "STATE", "NAME"].map(str::to_owned)];
    rows.extend(records.iter().map(|record| {
        let state = record.is_in_use(now).err().map_or("in use", |why| why.as_str());
        let expires = record.expires.map_or_else(|| "never".to_owned(), as_date);
        let scopes = record.scopes.join(",");
        [record.id.to_string(), tenants(record), scopes, expires, state.to_owned(), record.name.clone()]
    }));
    table::columns(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_767_225_600_000);

    #[test]
    fn a_key_ends_after_a_while_or_at_a_time_to_come() {
        assert_eq!(end("90d", NOW), Ok(Timestamp(NOW.0 + 90 * 86_400_000)));
        assert_eq!(end("2027-01-01T00:00:00Z", NOW), Ok(Timestamp(1_798_761_600_000)));
        for wrong in ["", "0", "now", "-1d", "2025-01-01T00:00:00Z", "soon", "5"] {
            assert!(end(wrong, NOW).is_err(), "{wrong}");
        }
        let flags = CreateFlags { expires: Some("never".to_owned()), ..CreateFlags::default() };
        assert_eq!(flags.key(NOW).unwrap().expires, None);
    }

    #[test]
    fn labels_and_limits_are_assigned_once() {
        let text = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        let key = |label: &[&str], limit: &[&str]| {
            let flags = CreateFlags { label: text(label), limit: text(limit), ..CreateFlags::default() };
            flags.key(NOW)
        };
        let new = key(&["a=b=c"], &["samples_per_second=5", "max_query_range=30d"]).unwrap();
        assert_eq!(new.labels["a"], "b=c");
        assert_eq!(
            (&new.limits["samples_per_second"], &new.limits["max_query_range"]),
            (&5.into(), &"30d".into())
        );
        assert!(key(&["a"], &[]).is_err());
        assert!(key(&["a=b", "a=c"], &[]).is_err());
        assert!(key(&[], &["a=1", "a=2"]).is_err());
    }
}
