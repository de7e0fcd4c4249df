//! Starts tasks, so that every one of them has a name in the logs; [`shares`] out what they have room in, and lowers the
//! [`priority`] of threads.

pub mod priority;
pub mod shares;

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument;

/// Runs `future` in the background under a name.
#[expect(clippy::disallowed_methods, reason = "this is the one place that starts tasks")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.instrument(tracing::debug_span!("task", name)))
}
