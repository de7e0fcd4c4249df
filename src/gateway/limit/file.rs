//! The overrides file: which tenants have limits of their own, written by whoever operates the server.
//!
//! ```yaml
//! overrides:
//!   "*": {max_query_range: 90d}              # everybody
//!   team-a: {samples_per_second: 50000}      # and this goes before it
//! ```
//!
//! The file is taken as a whole or not at all: one with a mistake in it changes nothing. One that is found changed is
//! taken when it has been the same for a moment, so that one that is being written is not taken for less than it
//! will be; a file that is empty or has no `overrides` is such a one, too. A tenant's name is matched exactly: `*` is the
//! one pattern, and a tenant of that name has what everybody has.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value as Json;
use serde_yaml::Value as Yaml;
use xxhash_rust::xxh3::xxh3_128;

use super::{
    overrides::{LimitOverrides, OverrideError, shortened},
    table::{LimitTable, TenantOverrides},
};
use crate::{gateway::reload::Reload, model::TenantId};

/// More than this is not an overrides file.
const MAX_BYTES: u64 = 16 << 20;
/// More mistakes than this are not told.
const MOST_ERRORS: usize = 50;
/// How long a file has to be the same before it is taken.
const SETTLES: Duration = Duration::from_secs(1);

/// The one key of the file.
const OVERRIDES: &str = "overrides";
/// The name that is everybody's.
const EVERYBODY: &str = "*";

/// A file, and the table that it is read into.
#[derive(Debug)]
pub struct OverridesFile {
    path: PathBuf,
    every: Duration,
    table: Arc<LimitTable>,
    seen: Mutex<Seen>,
}

/// What was found there, by a hash of its bytes or the reason why there are none.
#[derive(Debug, Default)]
struct Seen {
    /// What holds.
    taken: Option<u128>,
    /// What changed and may not be whole yet.
    unsettled: Option<u128>,
    /// What was refused and told.
    refused: Option<u128>,
}

impl OverridesFile {
    /// Reads the file, which has to be there and right, into the table; to be looked at again so often.
    pub fn open(path: &Path, every: Duration, table: Arc<LimitTable>) -> Result<Self, String> {
        let file = Self { path: path.to_owned(), every, table, seen: Mutex::default() };
        file.read_again()?;
        Ok(file)
    }

    /// Reads what is there now.
    fn read_again(&self) -> Result<(), String> {
        let mut seen = self.seen.lock();
        let found = self.bytes();
        let outcome = found.as_ref().map_err(String::clone).and_then(|bytes| self.take(bytes));
        seen.note(hash(&found), outcome.is_ok());
        outcome
    }

    /// Takes what is there now if it changed and is whole; none if there is nothing to tell.
    fn look_again(&self) -> Option<Result<(), String>> {
        let mut seen = self.seen.lock();
        let found = self.bytes();
        let now = hash(&found);
        let unsettled = seen.unsettled.take();
        if seen.taken == Some(now) {
            // What was refused is gone, and what holds is back.
            return seen.refused.take().map(|_| Ok(()));
        }
        if seen.refused == Some(now) {
            return None;
        }
        if unsettled != Some(now) {
            seen.unsettled = Some(now);
            return None;
        }
        let outcome = found.and_then(|bytes| self.take(&bytes));
        seen.note(now, outcome.is_ok());
        Some(outcome)
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        let about = |error: std::io::Error| format!("{}: {error}", self.path.display());
        let mut bytes = Vec::new();
        let file = File::open(&self.path).map_err(about)?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(about)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(format!("{}: is larger than 16MiB", self.path.display()));
        }
        Ok(bytes)
    }

    fn take(&self, bytes: &[u8]) -> Result<(), String> {
        let about = |errors: Vec<String>| format!("{}: {}", self.path.display(), errors.join("; "));
        let overrides = read(bytes).map_err(about)?;
        let (mut wrong, mut above) = (Vec::new(), Vec::new());
        for (name, limits) in named(&overrides) {
            if let Err(error) = self.table.rules().check_conflicts(limits) {
                wrong.push(format!("{OVERRIDES}.{name}.{error}"));
            } else if let Err(errors) = self.table.rules().check(limits) {
                above.extend(errors.0.into_iter().map(|error| format!("{OVERRIDES}.{name}.{error}")));
            }
        }
        if !wrong.is_empty() {
            return Err(about(bounded(wrong)));
        }
        if !above.is_empty() {
            let (path, above) = (self.path.display(), bounded(above).join("; "));
            tracing::warn!(event = "limits", %path, above, "some overrides are held to limits.hard");
        }
        self.table.put_file(overrides);
        Ok(())
    }
}

impl Seen {
    fn note(&mut self, found: u128, taken: bool) {
        self.unsettled = None;
        if taken {
            (self.taken, self.refused) = (Some(found), None);
        } else {
            self.refused = Some(found);
        }
    }
}

/// Tells contents apart, and reasons why there are none.
fn hash(found: &Result<Vec<u8>, String>) -> u128 {
    match found {
        Ok(bytes) => xxh3_128(bytes),
        Err(error) => !xxh3_128(error.as_bytes()),
    }
}

#[async_trait]
impl Reload for OverridesFile {
    fn name(&self) -> &'static str {
        "limits.overrides_file"
    }

    fn every(&self) -> Duration {
        if self.seen.lock().unsettled.is_some() { SETTLES } else { self.every }
    }

    async fn reload(self: Arc<Self>) -> Result<(), String> {
        let read = tokio::task::spawn_blocking(move || self.read_again());
        read.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    async fn look(self: Arc<Self>) -> Option<Result<(), String>> {
        let look = tokio::task::spawn_blocking(move || self.look_again());
        look.await.unwrap_or_else(|error| Some(Err(error.to_string())))
    }
}

fn named(overrides: &TenantOverrides) -> impl Iterator<Item = (&str, &LimitOverrides)> {
    let tenants = overrides.tenants.iter().map(|(tenant, limits)| (tenant.as_str(), limits));
    std::iter::once((EVERYBODY, &overrides.everybody)).chain(tenants)
}

fn bounded(mut errors: Vec<String>) -> Vec<String> {
    if errors.len() > MOST_ERRORS {
        errors.truncate(MOST_ERRORS);
        errors.push("and more is wrong".to_owned());
    }
    errors
}

/// Reads the file's text, or tells all that is wrong with it.
pub fn read(text: &[u8]) -> Result<TenantOverrides, Vec<String>> {
    let one = |message: String| vec![message];
    let tree: Yaml = serde_yaml::from_slice(text).map_err(|error| one(shortened(&error.to_string())))?;
    let missing = || one(format!("has no {OVERRIDES}; for none at all, write `{OVERRIDES}: {{}}`"));
    let Yaml::Mapping(sections) = tree else { return Err(missing()) };
    let mut errors = Vec::new();
    for name in sections.keys().filter(|name| name.as_str() != Some(OVERRIDES)) {
        let name = name.as_str().map_or_else(|| "a key that is not text".to_owned(), shortened);
        errors.push(format!("{name}: unknown, there is only {OVERRIDES}"));
    }
    let mut overrides = TenantOverrides::default();
    match sections.get(OVERRIDES) {
        Some(Yaml::Mapping(tenants)) => {
            overrides.tenants.reserve(tenants.len());
            for (name, limits) in tenants {
                read_tenant(name, limits, &mut overrides, &mut errors);
                if errors.len() > MOST_ERRORS {
                    break;
                }
            }
        }
        Some(_) => errors.push(format!("{OVERRIDES}: takes tenants by their names")),
        None => errors.extend(missing()),
    }
    if errors.is_empty() { Ok(overrides) } else { Err(bounded(errors)) }
}

fn read_tenant(name: &Yaml, limits: &Yaml, into: &mut TenantOverrides, errors: &mut Vec<String>) {
    let Some(name) = name.as_str() else {
        errors.push(format!("{OVERRIDES}: a tenant's name is not text; write it in quotes"));
        return;
    };
    let place = format!("{OVERRIDES}.{}", shortened(name));
    let read = json(limits).and_then(|limits| {
        LimitOverrides::read(&limits).map_err(|errors| {
            let with_place = |error: OverrideError| match error.name.is_empty() {
                true => format!("{place}: {error}"),
                false => format!("{place}.{error}"),
            };
            errors.0.into_iter().map(with_place).collect()
        })
    });
    let read = read.map_err(|wrong: Vec<String>| errors.extend(wrong));
    let tenant = (name != EVERYBODY).then(|| TenantId::new(name)).transpose();
    match (tenant, read) {
        (Err(why), _) => errors.push(format!("{place}: {why}")),
        (Ok(_), Err(())) => {}
        (Ok(None), Ok(limits)) => into.everybody = limits,
        (Ok(Some(tenant)), Ok(limits)) => {
            into.tenants.insert(tenant, limits);
        }
    }
}

/// The same value as JSON, as far as it can be one.
fn json(yaml: &Yaml) -> Result<Json, Vec<String>> {
    let wrong = |message: &str| vec![format!("{OVERRIDES}: {message}")];
    Ok(match yaml {
        Yaml::Null => Json::Null,
        Yaml::Bool(yes) => Json::Bool(*yes),
        Yaml::String(text) => Json::String(text.clone()),
        Yaml::Number(number) => {
            let whole = number.as_u64().map(Json::from).or_else(|| number.as_i64().map(Json::from));
            let float = || number.as_f64().and_then(serde_json::Number::from_f64).map(Json::Number);
            // What is infinite or no number becomes text, which is refused where a number is wanted.
            whole.or_else(float).unwrap_or_else(|| Json::String(number.to_string()))
        }
        Yaml::Sequence(items) => Json::Array(items.iter().map(json).collect::<Result<_, _>>()?),
        Yaml::Mapping(entries) => {
            let entry = |(name, value): (&Yaml, &Yaml)| {
                let name = name.as_str().ok_or_else(|| wrong("a limit's name is not text"))?;
                Ok((name.to_owned(), json(value)?))
            };
            Json::Object(entries.iter().map(entry).collect::<Result<_, Vec<String>>>()?)
        }
        Yaml::Tagged(_) => return Err(wrong("there are no tags here")),
    })
}

/// Reads a file as it would be read at the start; for whoever checks one without using it.
pub fn check(path: &Path, table: LimitTable) -> Result<(), String> {
    OverridesFile::open(path, SETTLES, Arc::new(table)).map(|_| ())
}

#[cfg(test)]
mod tests;
