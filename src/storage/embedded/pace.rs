//! How work that can wait gives way to work that cannot.
//!
//! Merges run on a thread of their own. One that is paced rests as long as it has worked, every few milliseconds: it
//! takes half a processor and half the disk at most, and a query or a write never waits for more than a slice of it.

use std::time::Duration;

use crate::clock::Clock;

/// It works for so long at a time.
const SLICE: Duration = Duration::from_millis(5);

/// It never rests longer than this, so that it can be told to end.
const LONGEST_REST: Duration = Duration::from_millis(50);

/// How soon something has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Haste {
    /// Somebody waits for it.
    Now,
    /// Nobody does.
    Paced,
}

/// Takes breaks.
#[derive(Debug)]
pub(crate) struct Pace<'a> {
    clock: &'a dyn Clock,
    haste: Haste,
    /// When work began after the last rest.
    since: Duration,
}

impl<'a> Pace<'a> {
    /// Begins to work.
    pub(crate) fn new(clock: &'a dyn Clock, haste: Haste) -> Self {
        Self { clock, haste, since: clock.elapsed() }
    }

    /// To be called often: rests when it is time.
    pub(crate) fn step(&mut self) {
        match self.haste {
            Haste::Now => {}
            Haste::Paced => {
                let worked = self.clock.elapsed().saturating_sub(self.since);
                if worked >= SLICE {
                    std::thread::sleep(worked.min(LONGEST_REST));
                    self.since = self.clock.elapsed();
                }
            }
        }
    }
}
