//! A Redis that several gateways share, for limits and keys that hold for all of them together.
//!
//! The variables that charts and compose files commonly set (`REDIS_URL`, `REDIS_PASSWORD`, …) are understood
//! under their bare names and with `LUMINATE_` before them. `LUMINATE_REDIS__URL` wins over
//! `LUMINATE_REDIS_URL`, which must not say something else; both win over the bare `REDIS_URL`, which may
//! be there for somebody else and is not looked at unless Redis is switched on.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use redis::{ConnectionAddr, IntoConnectionInfo};
use serde_yaml::Value;

use super::{
    Password,
    parse::{at_least, boolean, count, duration, file, list, number, text},
    reader::Reader,
    value::format_duration,
};
use crate::model::{
    Secret,
    secret::{is_placeholder, weakness_of_password},
};

/// A Redis that several gateways share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// Whether rates are counted there.
    pub rate_limit: bool,
    /// Whether API keys are kept there.
    pub key_store: RedisKeyStore,
    /// How long answers to range queries are kept there for all gateways; none if they are not.
    pub cache: Option<Duration>,
    /// Where it is; none only if it is not used.
    pub url: Option<RedisUrl>,
    /// Who we are to it; none is its default user.
    pub username: Option<String>,
    /// Where the password is, if not in the URL.
    pub password: Option<Password>,
    /// The database.
    pub db: u32,
    /// Whether it is a cluster.
    pub cluster: bool,
    /// How its certificate is checked, and what we show it.
    pub tls: RedisTls,
    /// How long a request to us may wait for it.
    pub timeout: Duration,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// What the names of our keys begin with.
    pub prefix: String,
    /// How many gateways there are: each takes its share of a rate while Redis is away.
    pub expected_replicas: u32,
    /// When it is left alone, and for how long.
    pub breaker: RedisBreaker,
}

/// API keys in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisKeyStore {
    /// Whether they are there.
    pub enabled: bool,
    /// How long a key that was looked up is taken as it was.
    pub cache_ttl: Duration,
    /// Keys that are remembered.
    pub cache_size: NonZeroUsize,
}

/// Where Redis is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisUrl {
    /// Here.
    Inline(RedisServers),
    /// In the URL or URLs in this file.
    File(PathBuf),
}

/// What one or more URLs say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisServers {
    /// Host and port of each.
    pub addresses: Vec<(String, u16)>,
    /// Whether they are spoken to by TLS.
    pub tls: bool,
    /// A user.
    pub username: Option<String>,
    /// Their password.
    pub password: Option<Secret>,
    /// A database.
    pub db: Option<u32>,
}

/// How Redis' certificate is checked, and what we show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Our certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

/// When Redis is left alone, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisBreaker {
    /// Failures in a row after which it is.
    pub failures: u32,
    /// How long at first.
    pub min_open: Duration,
    /// How long at most.
    pub max_open: Duration,
}

/// Somebody who signs in to Redis, and to which database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisLogin {
    /// The user; none is the default one.
    pub username: Option<String>,
    /// Their password.
    pub password: Option<Secret>,
    /// The database.
    pub db: u32,
}

/// Keys that do not go together: which, and why.
type Clash = (&'static str, &'static str);

impl Redis {
    /// Whether Redis is used for anything.
    pub fn is_used(&self) -> bool {
        self.rate_limit || self.key_store.enabled || self.cache.is_some()
    }

    /// Who signs in where, by what the URLs say and what the keys say; `password` is what is in the place that
    /// [`Redis::password`] tells.
    pub fn login(&self, servers: &RedisServers, password: Option<&Secret>) -> Result<RedisLogin, Clash> {
        if servers.addresses.len() > 1 && !self.cluster {
            return Err((
                "redis.url",
                "names several servers; set redis.cluster: true if they are a cluster",
            ));
        }
        if servers.username.is_some() && self.username.is_some() {
            return Err((
                "redis.username",
                "is set, and redis.url names a user too; only one of them can be it",
            ));
        }
        if servers.password.is_some() && password.is_some() {
            let clash = "holds a password, and redis.password or redis.password_file is set too; \
                         only one of them can be the password";
            return Err(("redis.url", clash));
        }
        if self.db != 0 && servers.db.is_some_and(|db| db != self.db) {
            return Err(("redis.db", "is not the database that redis.url names"));
        }
        let db = servers.db.unwrap_or(self.db);
        if self.cluster && db != 0 {
            return Err(("redis.db", "must be 0: a cluster has no other database"));
        }
        let tls = [&self.tls.ca_file, &self.tls.cert_file, &self.tls.key_file];
        if !servers.tls && tls.into_iter().any(Option::is_some) {
            return Err(("redis.tls", "names files, but redis.url does not begin with rediss://"));
        }
        Ok(RedisLogin {
            username: servers.username.clone().or_else(|| self.username.clone()),
            password: servers.password.clone().or_else(|| password.cloned()),
            db,
        })
    }
}

/// Reads the section.
pub(super) fn redis(keys: &mut Reader<'_>) -> Redis {
    let rate_limit = keys.get("redis.rate_limit.enabled", "false", boolean);
    let key_store = keys.get("redis.key_store.enabled", "false", boolean);
    let cache = keys.get("redis.cache.enabled", "false", boolean);
    if !rate_limit && !key_store && !cache {
        keys.ignore_bare_names();
    }
    let short = |least: u64| {
        let least = Duration::from_millis(least);
        move |value: &Value| match at_least(least)(value)? {
            long if long > Duration::from_secs(60) => Err("must be at most 1m".to_owned()),
            fine => Ok(fine),
        }
    };
    let cache_ttl = keys.get("redis.key_store.cache_ttl", "5m", cache_ttl);
    let cache_size = keys.get("redis.key_store.cache_size", "1000", count(1, 1_000_000));
    let kept = keys.get("redis.cache.ttl", "1h", |value| match at_least(Duration::from_secs(1))(value)? {
        long if long > Duration::from_secs(86_400) => Err("must be at most 1d".to_owned()),
        fine => Ok(fine),
    });
    Redis {
        rate_limit,
        cache: cache.then_some(kept),
        key_store: RedisKeyStore {
            enabled: key_store,
            cache_ttl,
            cache_size: NonZeroUsize::new(cache_size).expect("it was checked to be at least 1"),
        },
        url: url(keys),
        username: keys.get("redis.username", "\"\"", |v| {
            Ok(Some(text(v)?).filter(|name| !name.is_empty()).map(str::to_owned))
        }),
        password: keys.get_password("redis.password", "redis.password_file"),
        db: keys.get("redis.db", "0", number(0, 65_535)).try_into().unwrap_or(u32::MAX),
        cluster: keys.get("redis.cluster", "false", boolean),
        tls: RedisTls {
            ca_file: keys.get("redis.tls.ca_file", "\"\"", file),
            cert_file: keys.get("redis.tls.cert_file", "\"\"", file),
            key_file: keys.get("redis.tls.key_file", "\"\"", file),
        },
        timeout: keys.get("redis.timeout", "25ms", short(1)),
        connect_timeout: keys.get("redis.connect_timeout", "1s", short(1)),
        prefix: keys.get("redis.prefix", "luminate", |v| prefix(text(v)?)),
        expected_replicas: keys
            .get("redis.expected_replicas", "3", number(1, 10_000))
            .try_into()
            .unwrap_or(u32::MAX),
        breaker: RedisBreaker {
            failures: keys.get("redis.breaker.failures", "5", number(1, 1000)).try_into().unwrap_or(u32::MAX),
            min_open: keys.get("redis.breaker.min_open", "1s", short(10)),
            max_open: keys.get("redis.breaker.max_open", "30s", short(10)),
        },
    }
}

/// Refuses what does not go together.
pub(super) fn refuse_lame_redis(config: &Redis, keys: &mut Reader<'_>) {
    if config.is_used() && config.url.is_none() && !keys.is_refused("redis.url") {
        let message = "names no server; write for example redis://redis:6379";
        keys.refuse("redis.url", message);
    }
    if let Some(RedisUrl::Inline(servers)) = &config.url {
        // Whatever the password is, only whether there is one matters here.
        let password = config.password.as_ref().map(|_| Secret(String::new()));
        if let Err((key, message)) = config.login(servers, password.as_ref()) {
            keys.refuse(key, message);
        }
    }
    if config.is_used() {
        refuse_placeholders(config, keys);
    }
    match (&config.tls.cert_file, &config.tls.key_file) {
        (Some(_), None) => keys.refuse("redis.tls.cert_file", "needs tls.key_file beside it"),
        (None, Some(_)) => keys.refuse("redis.tls.key_file", "needs tls.cert_file beside it"),
        (Some(_), Some(_)) | (None, None) => {}
    }
    if config.breaker.max_open < config.breaker.min_open {
        let least = format_duration(config.breaker.min_open);
        keys.refuse("redis.breaker.max_open", format!("is less than redis.breaker.min_open, {least}"));
    }
}

/// What a guide leaves to be filled in, and has not been.
fn refuse_placeholders(config: &Redis, keys: &mut Reader<'_>) {
    if let Some(RedisUrl::Inline(servers)) = &config.url {
        let placeholder = |host: &str| is_placeholder(host.split('.').next().unwrap_or_default());
        if let Some((host, _)) = servers.addresses.iter().find(|(host, _)| placeholder(host)) {
            keys.refuse("redis.url", format!("{host:?} is a placeholder; write where your Redis is"));
        }
        if let Some(why) = servers.password.as_ref().and_then(|password| weakness_of_password("", password)) {
            keys.refuse("redis.url", format!("has a password that {why}"));
        }
    }
    if let Some(Password::Inline(password)) = &config.password
        && let Some(message) = weakness_of_password("", password)
    {
        keys.refuse("redis.password", message);
    }
}

fn url(keys: &mut Reader<'_>) -> Option<RedisUrl> {
    let inline = keys.get("redis.url", "[]", |v| {
        let urls = list(v)?;
        if urls.is_empty() {
            Ok(None)
        } else {
            RedisServers::parse(&urls).map(|servers| Some((servers, urls)))
        }
    });
    let elsewhere = keys.get("redis.url_file", "\"\"", file);
    if let Some((_, urls)) = &inline {
        keys.put("redis.url", Value::Sequence(urls.iter().map(|url| Value::String(redacted(url))).collect()));
    }
    match (inline, elsewhere) {
        (Some(_), Some(_)) => {
            let message = "is set, and redis.url too; only one of them can be the URL";
            keys.refuse("redis.url_file", message);
            None
        }
        (Some((servers, _)), None) => Some(RedisUrl::Inline(servers)),
        (None, path) => path.map(RedisUrl::File),
    }
}

/// Where a URL's user and password end, if it has any: scheme, what stands before the `@`, and the rest.
fn parts(url: &str) -> (&str, Option<&str>, &str) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    match rest.rsplit_once('@') {
        Some((login, rest)) => (scheme, Some(login), rest),
        None => (scheme, None, rest),
    }
}

/// A URL as it may be seen.
fn redacted(url: &str) -> String {
    match parts(url) {
        (scheme, Some(login), rest) if login.contains(':') => {
            let user = login.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:{}@{rest}", super::reader::SHOWN)
        }
        (_, Some(_) | None, _) => url.to_owned(),
    }
}

impl RedisServers {
    /// Reads one URL, or those of several nodes of one cluster. What is wrong is told without the password.
    pub fn parse(urls: &[String]) -> Result<Self, String> {
        let mut all: Option<Self> = None;
        for url in urls {
            let one = Self::parse_one(url.trim())?;
            let Some(all) = &mut all else {
                all = Some(one);
                continue;
            };
            if all.tls != one.tls {
                return Err("mixes redis:// and rediss://".to_owned());
            }
            if (&one.username, &one.password, one.db) != (&all.username, &all.password, all.db) {
                return Err("names different users, passwords or databases".to_owned());
            }
            if let Some(twice) = one.addresses.iter().find(|address| all.addresses.contains(address)) {
                return Err(format!("names {}:{} twice", twice.0, twice.1));
            }
            all.addresses.extend(one.addresses);
        }
        all.ok_or_else(|| "names no server".to_owned())
    }

    fn parse_one(url: &str) -> Result<Self, String> {
        let malformed = || "is not a URL, write for example redis://redis:6379".to_owned();
        let (scheme, login, rest) = parts(url);
        let tls = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return Err("takes a URL that begins with redis:// or, for TLS, rediss://".to_owned()),
        };
        if url.contains(['#', '?']) {
            return Err("takes no options in a URL".to_owned());
        }
        if login.is_some_and(|login| login.contains(super::reader::SHOWN)) {
            let shown = super::reader::SHOWN;
            return Err(format!("{shown} is what stands for a secret that is not shown"));
        }
        if rest.is_empty() || rest.starts_with([':', '/']) {
            return Err(malformed());
        }
        let info = url.into_connection_info().map_err(|_| malformed())?;
        let address = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                (host.clone(), *port)
            }
            // Sockets, and whatever the library learns next.
            _ => return Err(malformed()),
        };
        if address.1 == 0 {
            return Err(malformed());
        }
        let has_db = rest.split_once('/').is_some_and(|(_, path)| !path.is_empty());
        let db = u32::try_from(info.redis_settings().db()).map_err(|_| malformed())?;
        Ok(Self {
            addresses: vec![address],
            tls,
            username: info.redis_settings().username().map(str::to_owned),
            password: info.redis_settings().password().map(|password| Secret(password.to_owned())),
            db: has_db.then_some(db),
        })
    }
}

fn cache_ttl(value: &Value) -> Result<Duration, String> {
    match duration(value)? {
        // Longer, and a key that was revoked would be good for too long.
        long if long > Duration::from_secs(3600) => Err("must be at most 1h".to_owned()),
        fine => Ok(fine),
    }
}

/// What keys begin with; a brace would move them to another slot of a cluster.
fn prefix(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    if text.is_empty() || text.len() > 64 || !text.chars().all(plain) {
        return Err(format!("{text:?} is not 1 to 64 letters, digits, '_', '-', '.' and ':'"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigErrors, ConfigFile, Sources};

    #[track_caller]
    fn check(yaml: &str, environment: &[(&str, &str)]) -> Result<(Redis, String), String> {
        let sources = Sources {
            file: ConfigFile::parse("luminate.yaml", yaml).unwrap(),
            environment: environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            flags: Vec::new(),
        };
        Config::check(&sources)
            .map(|(config, settings)| (config.redis, settings.to_yaml()))
            .map_err(|errors: ConfigErrors| errors.to_string())
    }

    fn servers(redis: &Redis) -> &RedisServers {
        match &redis.url {
            Some(RedisUrl::Inline(servers)) => servers,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_seven_variables_are_known_bare_and_with_our_name() {
        for prefix in ["", "LUMINATE_"] {
            let variables = [
                ("REDIS_URL", "redis://a:1"),
                ("REDIS_PASSWORD", "hunter2"),
                ("REDIS_DB", "3"),
                ("REDIS_RATELIMIT_ENABLED", "true"),
                ("REDIS_KEYSTORE_ENABLED", "true"),
                ("REDIS_KEYSTORE_CACHE_TTL", "1m"),
                ("REDIS_KEYSTORE_CACHE_SIZE", "10"),
            ]
            .map(|(name, value)| (format!("{prefix}{name}"), value));
            let variables: Vec<(&str, &str)> = variables.iter().map(|(n, v)| (n.as_str(), *v)).collect();
            let (redis, printed) =
                check("auth: {mode: token}\nredis: {db: 7, url: 'redis://file:2'}", &variables).unwrap();
            assert!(redis.rate_limit && redis.key_store.enabled);
            assert_eq!(servers(&redis).addresses, [("a".to_owned(), 1)]);
            assert_eq!(redis.password, Some(Password::Inline(Secret("hunter2".to_owned()))));
            assert_eq!((redis.db, redis.key_store.cache_size.get()), (3, 10));
            assert_eq!(redis.key_store.cache_ttl, Duration::from_secs(60));
            assert!(!printed.contains("hunter2"), "{printed}");
        }
        let (redis, _) = check("", &[]).unwrap();
        assert!(!redis.is_used() && redis.url.is_none());
        assert_eq!(
            (redis.key_store.cache_ttl, redis.key_store.cache_size.get()),
            (Duration::from_secs(300), 1000)
        );
    }

    #[test]
    fn our_own_name_wins_and_must_not_differ_from_itself() {
        let on = ("REDIS_RATELIMIT_ENABLED", "true");
        let bare = ("REDIS_URL", "redis://bare");
        let ours = ("LUMINATE_REDIS_URL", "redis://ours");
        let (redis, _) = check("", &[on, bare, ours]).unwrap();
        assert_eq!(servers(&redis).addresses, [("ours".to_owned(), 6379)]);
        let wrong = check("", &[on, bare, ours, ("LUMINATE_REDIS__URL", "redis://key")]).unwrap_err();
        assert_eq!(
            wrong,
            "redis.url: LUMINATE_REDIS__URL says something else; set one of them (LUMINATE_REDIS_URL)"
        );
        let same = check("", &[on, ours, ("LUMINATE_REDIS__URL", "redis://ours")]);
        assert_eq!(servers(&same.unwrap().0).addresses[0].0, "ours");
    }

    #[test]
    fn variables_of_others_do_no_harm_where_redis_is_not_used() {
        let (redis, _) = check("", &[("REDIS_URL", "unix:///x"), ("REDIS_DB", "none")]).unwrap();
        assert_eq!((redis.url, redis.db), (None, 0));
        assert!(check("", &[("LUMINATE_REDIS_DB", "none")]).is_err());
        assert!(
            check("", &[("REDIS_RATELIMIT_ENABLED", "yes")]).unwrap_err().contains("takes true or false")
        );
    }

    #[test]
    fn a_secret_may_be_in_a_file() {
        let on = ("REDIS_RATELIMIT_ENABLED", "true");
        let files = [on, ("REDIS_URL_FILE", "/u"), ("REDIS_PASSWORD_FILE", "/p")];
        let (redis, _) = check("", &files).unwrap();
        assert_eq!(redis.url, Some(RedisUrl::File("/u".into())));
        assert_eq!(redis.password, Some(Password::File("/p".into())));
        let both = [on, ("REDIS_URL", "redis://a"), ("REDIS_URL_FILE", "/u"), ("REDIS_PASSWORD", "hunter2")];
        let wrong = check("redis: {password_file: /p}", &both).unwrap_err();
        assert!(wrong.contains("redis.url_file: is set, and redis.url too"), "{wrong}");
        assert!(wrong.contains("redis.password_file: is set, and redis.password too"), "{wrong}");
        assert!(!wrong.contains("hunter2"), "{wrong}");
    }

    #[test]
    fn a_url_says_who_signs_in_and_where() {
        let parse = |url: &str| RedisServers::parse(&[url.to_owned()]);
        let read = parse("rediss://us%40er:hunt%2Fer2@[::1]:7/4").unwrap();
        assert!(read.tls);
        assert_eq!(read.addresses[0].1, 7);
        assert_eq!(read.username.as_deref(), Some("us@er"));
        assert_eq!(read.password, Some(Secret("hunt/er2".to_owned())));
        assert_eq!(read.db, Some(4));
        let plain = parse("redis://:pw@redis").unwrap();
        assert_eq!((plain.username, plain.db), (None, None));
        for wrong in [
            "",
            "redis",
            "redis:6379",
            "http://a",
            "redis://",
            "redis://:6379",
            "redis://a:0",
            "redis://a:99999",
            "redis://a/x",
            "redis://a/-1",
            "rediss://a#insecure",
            "redis://a?protocol=resp3",
            "unix:///tmp/x",
            "redis://u:hunter2@",
            "redis://u:hunter2@:1",
            "redis://u:<secret>@a",
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_not_printed() {
        let yaml = "redis: {rate_limit: {enabled: true}, url: 'redis://me:hunter2@a:1/2'}";
        let (redis, printed) = check(yaml, &[]).unwrap();
        assert!(printed.contains("- redis://me:<secret>@a:1/2"), "{printed}");
        assert!(!format!("{redis:?}{printed}").contains("hunter2"));
        assert!(check(&printed, &[]).unwrap_err().contains("<secret> is what stands for a secret"));
        let typo = check("redis: {url: 'redsi://me:hunter2@a:1/2'}", &[]).unwrap_err();
        assert!(typo.contains("redis://") && !typo.contains("hunter2"), "{typo}");
    }

    #[test]
    fn keys_are_in_one_place_and_asked_for() {
        let redis = "redis: {url: 'redis://a', key_store: {enabled: true}}";
        assert!(check(redis, &[]).unwrap_err().starts_with("auth.mode: is none, so that nobody is asked"));
        assert!(check(&format!("auth: {{mode: token}}\n{redis}"), &[]).is_ok());
        let both =
            check(&format!("auth: {{mode: token, api_keys: {{file: /k}}}}\n{redis}"), &[]).unwrap_err();
        assert!(both.starts_with("auth.api_keys.file: is set, and keys are in Redis"), "{both}");
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (redis, wrong) in [
            ("rate_limit: {enabled: true}", "redis.url: names no server"),
            ("url: ['redis://a', 'redis://b']", "redis.url: names several servers"),
            ("cluster: true, url: ['redis://a', 'redis://a']", "redis.url: names a:6379 twice"),
            ("cluster: true, url: ['redis://a', 'rediss://b']", "redis.url: mixes redis:// and rediss://"),
            ("cluster: true, url: ['redis://a', 'redis://x@b']", "redis.url: names different users"),
            ("cluster: true, url: 'redis://a/1'", "redis.db: must be 0"),
            ("db: 1, url: 'redis://a/2'", "redis.db: is not the database"),
            ("username: x, url: 'redis://y@a'", "redis.username: is set"),
            ("password: x, url: 'redis://:y@a'", "redis.url: holds a password"),
            ("password_file: x, url: 'redis://:y@a'", "redis.url: holds a password"),
            ("tls: {ca_file: x}, url: 'redis://a'", "redis.tls: names files"),
            ("tls: {cert_file: x}, url: 'rediss://a'", "redis.tls.cert_file: needs tls.key_file"),
            ("tls: {key_file: x}, url: 'rediss://a'", "redis.tls.key_file: needs tls.cert_file"),
            ("breaker: {min_open: 2s, max_open: 1s}", "redis.breaker.max_open: is less than"),
            ("timeout: 0", "redis.timeout: must be more than 0"),
            ("breaker: {max_open: 61s}", "redis.breaker.max_open: must be at most 1m"),
            ("expected_replicas: 0", "redis.expected_replicas: takes a whole number from 1"),
            ("prefix: 'a{b}'", "redis.prefix"),
            ("prefix: ''", "redis.prefix"),
            ("key_store: {cache_ttl: 2h}", "redis.key_store.cache_ttl: must be at most 1h"),
            ("key_store: {cache_size: 0}", "redis.key_store.cache_size"),
        ] {
            let error = check(&format!("redis: {{{redis}}}"), &[]).unwrap_err();
            assert!(error.starts_with(wrong), "{redis}: {error}");
        }
        assert!(check("redis: {cluster: true, url: ['redis://a', 'redis://b:7000']}", &[]).is_ok());
    }
}
