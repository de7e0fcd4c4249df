//! Keeps statements away from a server that does not answer.
//!
//! ```text
//!          5 failures in a row, or more than half of the last 10 s
//! Closed ──────────────────────────────────────────────────────────▶ Open
//!    ▲                                                   every 2 s │   ▲
//!    └──────── answered ──────────── Probing ◀──────────────────────┘   │
//!                                       └────────── not answered ───────┘
//! ```
//!
//! Only silence counts: a server that says no has answered. A value: it is given the time and does nothing.

use std::time::Duration;

/// Failures in a row that open it.
const IN_A_ROW: u32 = 5;
/// Statements of the window from which on their share of failures counts.
const ENOUGH: u32 = 20;
/// Seconds in the window.
const WINDOW: usize = 10;
/// How often an open one is probed.
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// Whether statements are sent to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// They are.
    Closed,
    /// None is until a probe is answered.
    Open,
    /// None is, and a probe is under way.
    Probing,
}

/// The breaker of one server.
#[derive(Debug)]
pub(super) struct Breaker {
    state: BreakerState,
    in_a_row: u32,
    window: [Second; WINDOW],
    probe_at: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    second: u64,
    answered: u32,
    failed: u32,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self {
            state: BreakerState::Closed,
            in_a_row: 0,
            window: [Second::default(); WINDOW],
            probe_at: Duration::ZERO,
        }
    }

    pub(super) fn state(&self) -> BreakerState {
        self.state
    }

    /// A statement was answered.
    pub(super) fn answered(&mut self, now: Duration) {
        self.in_a_row = 0;
        self.second(now).answered += 1;
    }

    /// A statement was not answered; tells whether that opened the breaker.
    pub(super) fn failed(&mut self, now: Duration) -> bool {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.second(now).failed += 1;
        let (answered, failed) = self.recently(now);
        let mostly_fails = answered + failed >= ENOUGH && failed > answered;
        (self.in_a_row >= IN_A_ROW || mostly_fails) && self.open(now)
    }

    /// Opens it; tells whether it was closed.
    pub(super) fn open(&mut self, now: Duration) -> bool {
        let was_closed = self.state == BreakerState::Closed;
        if was_closed {
            self.state = BreakerState::Open;
            self.probe_at = now + PROBE_EVERY;
        }
        was_closed
    }

    /// Whether it is time for a probe, which the caller then makes and reports.
    pub(super) fn begin_probe(&mut self, now: Duration) -> bool {
        let due = self.state == BreakerState::Open && now >= self.probe_at;
        if due {
            self.state = BreakerState::Probing;
        }
        due
    }

    /// How a probe ended.
    pub(super) fn probed(&mut self, answered: bool, now: Duration) {
        if answered {
            *self = Self::new();
        } else {
            self.state = BreakerState::Open;
            self.probe_at = now + PROBE_EVERY;
        }
    }

    fn second(&mut self, now: Duration) -> &mut Second {
        let second = now.as_secs();
        let slot = usize::try_from(second % WINDOW as u64).unwrap_or(0);
        let slot = &mut self.window[slot];
        if slot.second != second {
            *slot = Second { second, ..Second::default() };
        }
        slot
    }

    fn recently(&self, now: Duration) -> (u32, u32) {
        let now = now.as_secs();
        let recent = self.window.iter().filter(|slot| slot.second + (WINDOW as u64) > now);
        recent.fold((0, 0), |(answered, failed), slot| (answered + slot.answered, failed + slot.failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn failures_in_a_row_open_it_once() {
        let mut breaker = Breaker::new();
        for _ in 0..4 {
            assert!(!breaker.failed(at(0)));
        }
        breaker.answered(at(0));
        for _ in 0..4 {
            assert!(!breaker.failed(at(100)), "an answer ends the row");
        }
        assert!(breaker.failed(at(100)));
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(!breaker.failed(at(100)), "it is open already");
    }

    #[test]
    fn a_share_of_failures_opens_it_when_there_are_enough() {
        let mut breaker = Breaker::new();
        for n in 0..9 {
            breaker.answered(at(n));
            assert!(!breaker.failed(at(n)));
        }
        breaker.answered(at(9));
        assert!(!breaker.failed(at(9)), "half is not more than half");
        assert!(breaker.failed(at(9)));
    }

    #[test]
    fn what_is_long_ago_does_not_count() {
        let mut breaker = Breaker::new();
        for _ in 0..40 {
            breaker.answered(at(0));
            breaker.answered(at(0));
            breaker.failed(at(0));
        }
        for _ in 0..10 {
            breaker.answered(at(20));
            assert!(!breaker.failed(at(20)));
        }
        assert!(breaker.failed(at(20)), "the answers of 20 s ago do not save it");
    }

    #[test]
    fn it_is_probed_every_two_seconds_by_one_at_a_time_until_answered() {
        let mut breaker = Breaker::new();
        assert!(breaker.open(at(10)) && !breaker.open(at(10)));
        assert!(!breaker.begin_probe(at(11)));
        assert!(breaker.begin_probe(at(12)));
        assert!(!breaker.begin_probe(at(100)), "one is under way");
        breaker.probed(false, at(13));
        assert!(!breaker.begin_probe(at(14)));
        assert!(breaker.begin_probe(at(15)));
        breaker.probed(true, at(15));
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert!(!breaker.failed(at(15)), "it starts afresh");
    }
}
