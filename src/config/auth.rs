//! Who may come in.

use super::{
    parse::{boolean, text},
    reader::Reader,
};

/// Who may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth {
    /// How callers are told apart.
    pub mode: AuthMode,
    /// Listen on a network without authentication all the same.
    pub force_unauthenticated: bool,
}

/// How callers are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// They are not: whoever reaches the listener may do everything.
    None,
}

pub(super) fn auth(keys: &mut Reader<'_>) -> Auth {
    Auth {
        mode: keys.get("auth.mode", "none", |v| match text(v)? {
            "none" => Ok(AuthMode::None),
            "token" => Err("token is not in this release, only none".to_owned()),
            other => Err(format!("{other:?} is not a mode, only none")),
        }),
        force_unauthenticated: keys.get("auth.force_unauthenticated", "false", boolean),
    }
}
