//! Every key there is, its default and its check.
//!
//! What is written has another type than what was checked: a [`ConfigFile`] is a tree somebody typed,
//! a [`Config`] can be built from. Between them stands [`Config::check`], which looks up each key in the
//! flags, the environment, the file and the defaults, in that order (`reader`), reads quantities with
//! their units ([`value`]), and reports everything that is wrong at once.
//!
//! A key is here only if it does something. Keys of later releases are refused by name, so that nobody
//! believes in a limit that is not enforced. `deployments/luminate.yaml` explains every key; a
//! test holds it against the defaults.

mod address;
mod auth;
mod check;
mod jwt;
mod keys;
mod limits;
mod memory;
mod observe;
mod parse;
mod query;
mod reader;
mod redis;
mod remote;
mod server;
mod storage;
mod tls;
pub mod value;

use std::{fmt, path::Path};

use serde_yaml::{Mapping, Value};

use crate::model::FeatureSwitches;

pub use auth::{Auth, AuthMode};
pub use jwt::{Jwt, JwtKey};
pub use keys::Keys;
pub use limits::Limits;
pub use memory::Memory;
pub use observe::{Audit, Health, Log, LogFormat, SelfScrape};
pub use query::Query;
pub use reader::{ConfigError, ConfigErrors, FlagValue, Origin, Setting};
pub use redis::{Redis, RedisBreaker, RedisKeyStore, RedisLogin, RedisServers, RedisTls, RedisUrl};
pub use remote::{Batch, ClickHouse, ClickHouseTls, Password, Pushdown};
pub use server::{ProxyProtocol, Server, ServerLimits, Shutdown};
pub use storage::{Backend, Downsampling, Embedded, RetentionRule, Storage, WalSync};
pub use tls::{ClientAuth, ClientCertificates, ServerTls, SubjectPart, TlsVersion};
pub use value::ByteSize;

/// A configuration that was checked: the parts can be built from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The listener and what it puts up with.
    pub server: Server,
    /// What health checks say.
    pub health: Health,
    /// Who may come in.
    pub auth: Auth,
    /// What a tenant may send.
    pub limits: Limits,
    /// A Redis that several gateways share.
    pub redis: Redis,
    /// How much memory the process plans with.
    pub memory: Memory,
    /// Where samples are kept, and for how long.
    pub storage: Storage,
    /// How queries are answered.
    pub query: Query,
    /// Features that are switched on by name.
    pub features: FeatureSwitches,
    /// Whether our own metrics are kept, too.
    pub self_scrape: SelfScrape,
    /// Where the audit log goes.
    pub audit: Audit,
    /// What is logged, and how.
    pub log: Log,
}

/// A configuration file as it was written; nothing but its YAML was looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigFile {
    name: String,
    tree: Value,
}

impl ConfigFile {
    /// More than this is not a configuration file.
    const MAX_BYTES: u64 = 1 << 20;

    /// No file.
    pub fn none() -> Self {
        Self { name: String::new(), tree: Value::Null }
    }

    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigErrors> {
        let name = path.display().to_string();
        let size = std::fs::metadata(path).map_err(|e| about_file(&name, &e))?.len();
        if size > Self::MAX_BYTES {
            return Err(about_file(&name, &"is larger than 1MiB"));
        }
        let text = std::fs::read_to_string(path).map_err(|e| about_file(&name, &e))?;
        Self::parse(&name, &text)
    }

    /// Reads `text`, to be called `name` in messages.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigErrors> {
        let tree: Value = serde_yaml::from_str(text).map_err(|e| about_file(name, &e))?;
        match tree {
            Value::Null | Value::Mapping(_) => Ok(Self { name: name.to_owned(), tree }),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Sequence(_) | Value::Tagged(_) => {
                Err(about_file(name, &"must be a mapping of keys to values"))
            }
        }
    }
}

fn about_file(name: &str, message: &dyn fmt::Display) -> ConfigErrors {
    let origin = Origin::File(name.to_owned());
    ConfigErrors(vec![ConfigError { path: String::new(), origin, message: message.to_string() }])
}

/// All that was written, wherever.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The file.
    pub file: ConfigFile,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// The flags.
    pub flags: Vec<FlagValue>,
}

impl Sources {
    /// Nothing was written.
    pub fn none() -> Self {
        Self { file: ConfigFile::none(), environment: Vec::new(), flags: Vec::new() }
    }
}

/// The keys in effect, in the order of the file we ship.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings(Vec<Setting>);

impl Settings {
    /// Each key with its value and where that comes from.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter()
    }

    /// The settings as a configuration file that says the same.
    pub fn to_yaml(&self) -> String {
        let mut root = Mapping::new();
        for setting in &self.0 {
            let (sections, name) = setting.path.rsplit_once('.').unwrap_or(("", setting.path));
            let mut section = &mut root;
            for part in sections.split('.').filter(|part| !part.is_empty()) {
                let inner = section.entry(part.into()).or_insert_with(|| Value::Mapping(Mapping::new()));
                section = inner.as_mapping_mut().expect("no key is a section and a value at once");
            }
            section.insert(name.into(), setting.value.clone());
        }
        serde_yaml::to_string(&root).expect("text, numbers, booleans and lists are YAML")
    }
}

#[cfg(test)]
mod tests;
