//! Looks a key up where it may be written, and keeps everything that is wrong.
//!
//! ```text
//! flags ──► environment ──► file ──► default
//!           LUMINATE_A__B   a: {b: …}
//! ```
//!
//! Some keys have a second variable, which other programs know, too: see [`ALIASES`].
//!
//! Each key is asked for once, by its path, with its default and the function that checks it. What was
//! asked for is therefore the list of keys there are, and [`Reader::finish`] holds it against what was
//! written: the rest is unknown, and gets the closest known key as a suggestion. A key that does
//! not check is noted and replaced by its default, so that one run finds every mistake.

use std::{collections::BTreeMap, fmt};

use serde_yaml::Value;

use super::{Password, parse::file};
use crate::model::Secret;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: the default holds.
    Default,
    /// In the file of this name.
    File(String),
    /// In this environment variable.
    Environment(String),
    /// As this flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(name) => f.write_str(name),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key, or empty if it is about a whole file.
    pub path: String,
    /// Where it is written.
    pub origin: Origin,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.path.is_empty()) {
            (origin, true) => write!(f, "{origin}: {}", self.message),
            (Origin::Default, false) => write!(f, "{}: {}", self.path, self.message),
            (origin, false) => write!(f, "{}: {} ({origin})", self.path, self.message),
        }
    }
}

/// Everything that is wrong with the configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{error}")?;
        }
        Ok(())
    }
}

/// A key in effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The key.
    pub path: &'static str,
    /// Its value, as it is or could be written.
    pub value: Value,
    /// Where it comes from.
    pub origin: Origin,
}

/// A flag that sets a key.
#[derive(Clone, Debug)]
pub struct FlagValue {
    /// The key it sets.
    pub path: &'static str,
    /// The flag as the user typed it.
    pub flag: &'static str,
    /// What was given.
    pub value: String,
}

/// Looks keys up and collects what is wrong.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    file_name: &'a str,
    file: &'a Value,
    /// Variables of ours that name a key: upper-case name to value.
    environment: BTreeMap<&'a str, &'a str>,
    flags: &'a [FlagValue],
    settings: Vec<Setting>,
    errors: Vec<ConfigError>,
}

/// What is told in the place of a secret.
pub(super) const SHOWN: &str = "<secret>";

/// What a variable that sets a key starts with.
const PREFIX: &str = "LUMINATE_";

/// Variables that set a key under a name of their own, bare or after [`PREFIX`].
const ALIASES: &[(&str, &str)] = &[
    ("REDIS_URL", "redis.url"),
    ("REDIS_URL_FILE", "redis.url_file"),
    ("REDIS_PASSWORD", "redis.password"),
    ("REDIS_PASSWORD_FILE", "redis.password_file"),
    ("REDIS_DB", "redis.db"),
    ("REDIS_RATELIMIT_ENABLED", "redis.rate_limit.enabled"),
    ("REDIS_KEYSTORE_ENABLED", "redis.key_store.enabled"),
    ("REDIS_KEYSTORE_CACHE_TTL", "redis.key_store.cache_ttl"),
    ("REDIS_KEYSTORE_CACHE_SIZE", "redis.key_store.cache_size"),
];

impl<'a> Reader<'a> {
    pub(super) fn new(
        file_name: &'a str,
        file: &'a Value,
        environment: &'a [(String, String)],
        flags: &'a [FlagValue],
    ) -> Self {
        let environment = environment
            .iter()
            .filter(|(name, _)| name.starts_with(PREFIX) || ALIASES.iter().any(|(bare, _)| bare == name))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        Self { file_name, file, environment, flags, settings: Vec::new(), errors: Vec::new() }
    }

    /// The value of key `path`, checked by `parse`; the default if it is not written or does not check.
    ///
    /// `default` is YAML and passes the same check.
    pub(super) fn get<T>(
        &mut self,
        path: &'static str,
        default: &str,
        parse: impl Fn(&Value) -> Result<T, String>,
    ) -> T {
        let default: Value =
            serde_yaml::from_str(default).expect("a default is legal YAML; tests read them all");
        if let Some((value, origin)) = self.written(path) {
            match parse(&value) {
                Ok(checked) => {
                    self.settings.push(Setting { path, value, origin });
                    return checked;
                }
                Err(message) => self.errors.push(ConfigError { path: path.to_owned(), origin, message }),
            }
        }
        let checked = parse(&default).expect("a default passes its own check; tests read them all");
        self.settings.push(Setting { path, value: default, origin: Origin::Default });
        checked
    }

    /// The value of key `path`, which nobody gets to see: what is in effect is told as [`SHOWN`].
    pub(super) fn get_secret(&mut self, path: &'static str) -> Option<Secret> {
        let secret = self.get(path, "\"\"", |value| match value.as_str() {
            Some(SHOWN) => Err(format!("{SHOWN} is what stands for a secret that is not shown")),
            Some(text) => Ok((!text.is_empty()).then(|| Secret(text.to_owned()))),
            None => Err("takes text; write it in quotes".to_owned()),
        });
        if secret.is_some() {
            self.put(path, Value::String(SHOWN.to_owned()));
        }
        secret
    }

    /// A secret that is written, or the file it is written in; not both.
    pub(super) fn get_password(&mut self, path: &'static str, file_path: &'static str) -> Option<Password> {
        let inline = self.get_secret(path);
        let elsewhere = self.get(file_path, "\"\"", file);
        match (inline, elsewhere) {
            (Some(_), Some(_)) => {
                let message = format!("is set, and {path} too; only one of them can be the password");
                self.refuse(file_path, message);
                None
            }
            (Some(secret), None) => Some(Password::Inline(secret)),
            (None, path) => path.map(Password::File),
        }
    }

    /// Looks no more at variables that do not begin with our name: they may be there for others.
    pub(super) fn ignore_bare_names(&mut self) {
        self.environment.retain(|name, _| name.starts_with(PREFIX));
    }

    /// Whether key `path`, which was asked for, is written anywhere.
    pub(super) fn is_written(&self, path: &str) -> bool {
        self.settings.iter().any(|s| s.path == path && s.origin != Origin::Default)
    }

    /// Whether key `path` is wrong already.
    pub(super) fn is_refused(&self, path: &str) -> bool {
        self.errors.iter().any(|error| error.path == path)
    }

    /// Tells another value of key `path` than the one that was read.
    pub(super) fn put(&mut self, path: &str, value: Value) {
        if let Some(setting) = self.settings.iter_mut().find(|s| s.path == path) {
            setting.value = value;
        }
    }

    /// Notes that key `path`, which checked by itself, does not go with the others.
    pub(super) fn refuse(&mut self, path: &str, message: impl Into<String>) {
        let written = self.settings.iter().find(|s| s.path == path);
        let origin = written.map_or(Origin::Default, |s| s.origin.clone());
        self.errors.push(ConfigError { path: path.to_owned(), origin, message: message.into() });
    }

    /// The keys in effect, or all that is wrong. `absent` explains keys that are known but not offered.
    pub(super) fn finish(
        mut self,
        absent: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<Setting>, ConfigErrors> {
        self.refuse_unknown_in(self.file, &mut String::new(), &absent);
        self.refuse_unknown_variables(&absent);
        self.refuse_two_names();
        if self.errors.is_empty() { Ok(self.settings) } else { Err(ConfigErrors(self.errors)) }
    }

    /// The value written for a key with the highest precedence. An empty one in the file counts as none.
    fn written(&self, path: &str) -> Option<(Value, Origin)> {
        if let Some(flag) = self.flags.iter().rev().find(|f| f.path == path) {
            return Some((Value::String(flag.value.clone()), Origin::Flag(flag.flag)));
        }
        let variable = variable_of(path);
        if let Some(text) = self.environment.get(variable.as_str()) {
            return Some((Value::String((*text).to_owned()), Origin::Environment(variable)));
        }
        for (bare, _) in ALIASES.iter().filter(|(_, of)| *of == path) {
            for variable in [format!("{PREFIX}{bare}"), (*bare).to_owned()] {
                if let Some(text) = self.environment.get(variable.as_str()) {
                    return Some((Value::String((*text).to_owned()), Origin::Environment(variable)));
                }
            }
        }
        let mut value = self.file;
        for name in path.split('.') {
            value = value.as_mapping()?.get(name)?;
        }
        (!value.is_null()).then(|| (value.clone(), Origin::File(self.file_name.to_owned())))
    }

    fn refuse_unknown_in(
        &mut self,
        value: &Value,
        path: &mut String,
        absent: &impl Fn(&str) -> Option<String>,
    ) {
        let here = Origin::File(self.file_name.to_owned());
        let Some(section) = value.as_mapping() else {
            if !value.is_null() {
                let message = "is a section and takes keys, not a value".to_owned();
                self.errors.push(ConfigError { path: path.clone(), origin: here, message });
            }
            return;
        };
        for (name, value) in section {
            let Some(name) = name.as_str() else {
                let message = "has a key that is not text".to_owned();
                self.errors.push(ConfigError { path: path.clone(), origin: here.clone(), message });
                continue;
            };
            let length = path.len();
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
            if self.is_section(path) {
                self.refuse_unknown_in(value, path, absent);
            } else if !self.settings.iter().any(|s| s.path == path) {
                let message = absent(path).unwrap_or_else(|| self.unknown(path));
                self.errors.push(ConfigError { path: path.clone(), origin: here.clone(), message });
            }
            path.truncate(length);
        }
    }

    /// Refuses variables with `__`, which cannot be anything but a misspelt key of ours. Others may come
    /// from the surroundings: Kubernetes sets `LUMINATE_SERVICE_HOST` beside a service of that name.
    fn refuse_unknown_variables(&mut self, absent: &impl Fn(&str) -> Option<String>) {
        let known: Vec<String> = self.settings.iter().map(|s| variable_of(s.path)).collect();
        let unknown: Vec<String> = self
            .environment
            .keys()
            .filter(|name| name.strip_prefix(PREFIX).is_some_and(|rest| rest.contains("__")))
            .filter(|name| !known.iter().any(|k| k == *name))
            .map(|name| (*name).to_owned())
            .collect();
        for variable in unknown {
            let path = variable[PREFIX.len()..].to_lowercase().replace("__", ".");
            let message = absent(&path).unwrap_or_else(|| self.unknown(&path));
            self.errors.push(ConfigError { path, origin: Origin::Environment(variable), message });
        }
    }

    /// Refuses two variables of ours that say different things of one key.
    fn refuse_two_names(&mut self) {
        for (bare, path) in ALIASES {
            let (variable, alias) = (variable_of(path), format!("{PREFIX}{bare}"));
            let values = (self.environment.get(variable.as_str()), self.environment.get(alias.as_str()));
            if let (Some(one), Some(other)) = values
                && one != other
            {
                let message = format!("{variable} says something else; set one of them");
                let origin = Origin::Environment(alias);
                self.errors.push(ConfigError { path: (*path).to_owned(), origin, message });
            }
        }
    }

    fn is_section(&self, path: &str) -> bool {
        self.settings.iter().any(|s| s.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
    }

    fn unknown(&self, path: &str) -> String {
        match self.closest(path) {
            Some(known) => format!("unknown key, did you mean {known}?"),
            None => "unknown key".to_owned(),
        }
    }

    /// The known key or section most like `path`: a misspelt sibling, or the same name in another place.
    fn closest(&self, path: &str) -> Option<String> {
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
        let mut known: Vec<&str> = Vec::new();
        for setting in &self.settings {
            known.push(setting.path);
            known.extend(setting.path.match_indices('.').map(|(at, _)| &setting.path[..at]));
        }
        known.sort_unstable();
        known.dedup();
        let sibling = known
            .iter()
            .filter_map(|k| {
                let (p, n) = k.rsplit_once('.').unwrap_or(("", k));
                (p == parent).then(|| (strsim::damerau_levenshtein(n, name), *k))
            })
            .min()
            .filter(|(distance, _)| *distance <= 3.min(name.chars().count() / 2));
        let elsewhere = || known.iter().copied().find(|k| k.rsplit('.').next() == Some(name));
        let alike = || {
            known
                .iter()
                .map(|k| (strsim::jaro_winkler(k, path), *k))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(likeness, _)| *likeness > 0.9)
                .map(|(_, k)| k)
        };
        sibling.map(|(_, k)| k).or_else(elsewhere).or_else(alike).map(str::to_owned)
    }
}

/// The environment variable that sets key `path`.
fn variable_of(path: &str) -> String {
    format!("{PREFIX}{}", path.to_uppercase().replace('.', "__"))
}
