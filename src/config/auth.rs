//! Who may come in.

use serde_yaml::Value;

use super::{
    parse::{boolean, list, one_of},
    reader::Reader,
};

/// Who may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// How callers are told apart.
    pub mode: AuthMode,
    /// Listen on a network without authentication all the same.
    pub force_unauthenticated: bool,
    /// What a trusted proxy may do that shows no credentials and names a tenant: names of scopes.
    pub proxy_scopes: Vec<String>,
}

/// How callers are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// They are not: whoever reaches the listener may do everything.
    None,
    /// By tokens, keys and certificates; who shows none is turned away.
    Token,
}

pub(super) fn auth(keys: &mut Reader<'_>) -> Auth {
    Auth {
        mode: keys.get("auth.mode", "none", one_of(&[("none", AuthMode::None), ("token", AuthMode::Token)])),
        force_unauthenticated: keys.get("auth.force_unauthenticated", "false", boolean),
        proxy_scopes: keys.get("auth.proxy_scopes", "[]", scopes),
    }
}

/// Names of scopes.
pub(super) fn scopes(value: &Value) -> Result<Vec<String>, String> {
    const SCOPES: [&str; 5] = ["write", "read", "delete", "rules", "admin"];
    let scopes = list(value)?;
    match scopes.iter().find(|scope| !SCOPES.contains(&scope.as_str())) {
        Some(other) => Err(format!("{other:?} is not one of {}", SCOPES.join(", "))),
        None => Ok(scopes),
    }
}
