//! `luminate healthcheck` and `luminate admin`: short words with a running server.

use std::time::Duration;

use super::{
    CommandError,
    client::{Answer, ServerFlags},
};

/// A server that is well answers sooner.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// A flush writes everything held in memory.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(600);

/// Asks whether the server is ready; containers run this, so it says nothing if all is well.
pub fn check(flags: &ServerFlags) -> Result<(), CommandError> {
    expect_success(flags, &flags.get("/health/ready", HEALTH_TIMEOUT)?)
}

/// Has the server flush, and waits until it has.
pub fn flush(flags: &ServerFlags) -> Result<(), CommandError> {
    expect_success(flags, &flags.post("/api/v1/admin/tsdb/flush", &[], FLUSH_TIMEOUT)?)
}

fn expect_success(flags: &ServerFlags, answer: &Answer) -> Result<(), CommandError> {
    if answer.status.is_success() {
        return Ok(());
    }
    let message = format!("{}: {}: {}", flags.server, answer.status, answer.body.trim());
    Err(CommandError::Failed(message))
}
