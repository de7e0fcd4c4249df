//! Time comes in through here: nothing below `main` asks the operating system for it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use crate::model::Timestamp;

/// What time it is.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The wall clock, for samples and retention.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment, which never goes back: for durations and deadlines.
    fn elapsed(&self) -> Duration;

    /// The time that a processor has spent on this thread: for what something costs. That of one thread tells nothing of
    /// another's.
    fn computed(&self) -> Duration;
}

/// The operating system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    since: Instant,
}

impl SystemClock {
    /// Starts counting.
    #[expect(clippy::disallowed_methods, reason = "this is where the clock comes in")]
    pub fn start() -> Arc<Self> {
        Arc::new(Self { since: Instant::now() })
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is where the clock comes in")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    fn computed(&self) -> Duration {
        let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(spent).unwrap_or_default()
    }
}

/// A clock that stands still until it is turned.
#[derive(Debug)]
pub struct HandClock {
    millis: AtomicI64,
    start: i64,
}

impl HandClock {
    /// A clock that shows `at`.
    pub fn at(at: Timestamp) -> Arc<Self> {
        Arc::new(Self { millis: AtomicI64::new(at.0), start: at.0 })
    }

    /// Turns the clock forward.
    pub fn advance(&self, by: Duration) {
        self.millis.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.millis.load(Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        let millis = self.millis.load(Ordering::SeqCst).saturating_sub(self.start);
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    /// Whoever works while the clock is turned works all the time.
    fn computed(&self) -> Duration {
        self.elapsed()
    }
}
