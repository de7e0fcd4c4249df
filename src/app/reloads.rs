//! Reads again what changes while we run, by itself and when somebody asks by a signal.

use std::sync::Arc;

use tokio::{signal::unix::Signal, task::JoinHandle};

use crate::{
    clock::Clock,
    config::Backend,
    gateway::{
        State,
        reload::{Part, Reload, Reloads},
    },
    task,
};

/// All that is read again: what limits are read from, and files that were read just now.
pub(super) fn reloads(
    limits: Vec<Part>,
    files: Vec<Arc<dyn Reload>>,
    clock: &Arc<dyn Clock>,
) -> Arc<Reloads> {
    let now = clock.now();
    let files = files.into_iter().map(|file| (file, Some(now)));
    Arc::new(Reloads::new(limits.into_iter().chain(files).collect(), Arc::clone(clock)))
}

/// Ends with its owner.
#[derive(Debug)]
pub(super) struct KeptCurrent(JoinHandle<()>);

impl Drop for KeptCurrent {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads again what changes, from now on.
pub(super) async fn keep_current(state: &State, backend: Backend, mut hangups: Signal) -> KeptCurrent {
    let reloads = Arc::clone(&state.reloads);
    match backend {
        // It answers at once, so that no request goes by other limits than were set.
        Backend::Embedded => reloads.read_first().await,
        // It may not answer for long, and until it does there is nothing to limit.
        Backend::ClickHouse => {}
    }
    KeptCurrent(task::spawn("reload", async move {
        let looking = Arc::clone(&reloads).run();
        let asked = async {
            while hangups.recv().await.is_some() {
                tracing::info!(event = "reload", "asked by SIGHUP");
                // What could not be read was logged.
                let _ = reloads.reload().await;
            }
        };
        tokio::join!(looking, asked);
    }))
}
