//! Builds what tells callers apart, and what keeps what they did.

use std::sync::Arc;

use anyhow::Context;

use crate::{
    clock::Clock,
    config::{self, Config},
    gateway::{audit::Audit, auth::Auth},
};

/// What tells callers apart.
pub(super) fn auth(_config: &Config) -> Auth {
    Auth::open()
}

/// What keeps what was denied and changed.
pub(super) fn audit(config: &config::Audit, clock: Arc<dyn Clock>) -> anyhow::Result<Audit> {
    match &config.file {
        None => Ok(Audit::to_log(clock)),
        Some(path) => Audit::to_file(path, config.max_bytes.0, clock)
            .with_context(|| format!("cannot open the audit log {}", path.display())),
    }
}
