//! Being told to stop: SIGTERM from whoever runs us, SIGINT from whoever sits before us; and to read things again: SIGHUP.

use std::{io, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal so soon after another is its echo: `timeout` and other supervisors send theirs to the process and
/// then to its group.
const ECHO: Duration = Duration::from_secs(1);

/// Hears from now on that what is read while we run should be read again.
pub(super) fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// Hears signals from the moment it is made.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal. Dropping the wait loses none.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for a signal that somebody sent because the last one did not do.
    pub(super) async fn insisted(&mut self) {
        let echoes = tokio::time::sleep(ECHO);
        tokio::pin!(echoes);
        loop {
            tokio::select! {
                biased;
                () = self.next() => {}
                () = &mut echoes => break,
            }
        }
        self.next().await;
    }
}
