//! Keys and revocations that the configuration has or names files of.

use std::{collections::HashSet, sync::Arc};

use super::{
    JwtConfig,
    jwks::{self, Policy},
    key::{Key, without_newline},
    watched::{Polled, Watched},
};
use crate::model::Timestamp;

/// No secret or PEM file is larger.
const MAX_KEY_BYTES: u64 = 64 << 10;
/// No JWK set is larger.
pub(super) const MAX_JWKS_BYTES: u64 = 1 << 20;
/// No list of revoked tokens is larger.
const MAX_REVOKED_BYTES: u64 = 64 << 20;

/// Names of tokens that were taken back.
pub(super) type Revoked = Arc<HashSet<String>>;

/// What there is on this machine.
#[derive(Debug)]
pub(super) struct Local {
    /// Does not change.
    inline: Vec<Key>,
    /// In the order of the configuration.
    files: Vec<Watched<Vec<Key>>>,
    revoked: Option<Watched<Revoked>>,
}

impl Local {
    /// Reads everything; anything that cannot be used is an error, as whoever starts a server can mend it.
    pub(super) fn open(config: &JwtConfig, now: Timestamp) -> Result<Self, String> {
        let mut local = Self { inline: Vec::new(), files: Vec::new(), revoked: None };
        let issuer = config.issuer.clone();
        if let Some(secret) = &config.secret {
            let key = Key::of_secret(without_newline(secret.0.as_bytes()), None, &config.secret_algorithms)
                .map_err(|wrong| format!("auth.jwt.secret {wrong}"))?;
            local.inline.push(key.from_source("auth.jwt.secret", issuer.as_deref()));
        }
        if let Some(path) = &config.secret_file {
            let (algorithms, issuer) = (config.secret_algorithms.clone(), issuer.clone());
            let load = move |content: &[u8]| {
                let key = Key::of_secret(without_newline(content), None, &algorithms)?;
                Ok(vec![key.from_source("auth.jwt.secret_file", issuer.as_deref())])
            };
            let setting = "auth.jwt.secret_file";
            local.files.push(Watched::open(path, setting, MAX_KEY_BYTES, now, Box::new(load))?);
        }
        for (i, file) in config.keys.iter().enumerate() {
            let setting = format!("auth.jwt.keys[{i}]");
            let (file, source, issuer) = (file.clone(), setting.clone(), issuer.clone());
            let path = file.path.clone();
            let load = move |content: &[u8]| {
                let secret = file.algorithms.iter().all(|algorithm| super::is_hmac(*algorithm));
                let key = if secret {
                    Key::of_secret(without_newline(content), file.kid.clone(), &file.algorithms)?
                } else {
                    Key::of_pem(content, file.kid.clone(), &file.algorithms)?
                };
                Ok(vec![key.from_source(source.clone(), issuer.as_deref())])
            };
            local.files.push(Watched::open(&path, setting, MAX_KEY_BYTES, now, Box::new(load))?);
        }
        if let Some(path) = &config.jwks_file {
            let (algorithms, issuer) = (config.jwks_algorithms.clone(), issuer);
            let load = move |content: &[u8]| {
                let set = jwks::read(content, Policy { algorithms: &algorithms, secrets: true })?;
                // Unlike what others publish, this is ours to put right.
                if !set.left_out.is_empty() {
                    return Err(format!("cannot be used: {}", set.left_out.join("; ")));
                }
                let of_file = |key: Key| key.from_source("auth.jwt.jwks_file", issuer.as_deref());
                Ok(set.keys.into_iter().map(of_file).collect())
            };
            let setting = "auth.jwt.jwks_file";
            local.files.push(Watched::open(path, setting, MAX_JWKS_BYTES, now, Box::new(load))?);
        }
        if let Some(path) = &config.revoked_file {
            let setting = "auth.jwt.revoked_file";
            local.revoked = Some(Watched::open(path, setting, MAX_REVOKED_BYTES, now, Box::new(revoked))?);
        }
        Ok(local)
    }

    /// Looks at all files again; what each gave that changed or is wrong.
    pub(super) fn poll(&mut self, now: Timestamp) -> Vec<Polled> {
        let files = self.files.iter_mut().map(|file| file.poll(now));
        let revoked = self.revoked.iter_mut().map(|file| file.poll(now));
        files.chain(revoked).filter(|polled| *polled != Polled::Same).collect()
    }

    /// What is wrong with files as they are now.
    pub(super) fn complaints(&self) -> Vec<&str> {
        let files = self.files.iter().filter_map(Watched::complaint);
        files.chain(self.revoked.iter().filter_map(Watched::complaint)).collect()
    }

    /// All keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.inline.iter().chain(self.files.iter().flat_map(Watched::value))
    }

    /// Tokens that were taken back.
    pub(super) fn revoked(&self) -> Revoked {
        self.revoked.as_ref().map(|file| Arc::clone(file.value())).unwrap_or_default()
    }
}

/// A name on each line; empty lines and those after a `#` say nothing.
fn revoked(content: &[u8]) -> Result<Revoked, String> {
    let text = std::str::from_utf8(content).map_err(|_| "is not UTF-8")?;
    let names = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(Arc::new(names.map(str::to_owned).collect()))
}
