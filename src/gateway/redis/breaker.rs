//! Keeps calls away from a Redis that does not answer.
//!
//! ```text
//!             connected                    5 failures in a row
//! Connecting ───────────▶ Closed ────────────────────────────────▶ Open
//!   ▲   │ failed             │ connection lost                      │
//!   │   └────────────────────┼──────────────────────────▶ Open      │
//!   ├────────────────────────┘                                      │
//!   └──────────────────────── the wait is over ─────────────────────┘
//! ```
//!
//! The first wait is the shortest, and each is twice as long as the one before, until Redis has been there for
//! a while. A wait is shortened at random by up to half, so that gateways do not come together. A value: it is given
//! the time and does nothing.

use std::time::Duration;

/// How long a connection has to last for the next wait to be the shortest again.
const STEADY: Duration = Duration::from_secs(10);

/// Whether Redis is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It is.
    Closed,
    /// It is left alone for a while.
    Open,
    /// It is not, and a connection is being made.
    Connecting,
}

impl LinkState {
    /// A word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::Connecting => "half-open",
        }
    }
}

/// When Redis is left alone, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Failures in a row after which it is.
    pub failures: u32,
    /// How long at first.
    pub min_open: Duration,
    /// How long at most.
    pub max_open: Duration,
}

/// Whether Redis is asked, and when again.
#[derive(Debug)]
pub struct Breaker {
    limits: BreakerLimits,
    state: LinkState,
    in_a_row: u32,
    /// Waits since Redis was last there for a while.
    waits: u32,
    /// Since when it is closed, or until when it is open.
    at: Duration,
}

impl Breaker {
    /// The breaker of a Redis that was never asked.
    pub fn new(limits: BreakerLimits) -> Self {
        Self { limits, state: LinkState::Connecting, in_a_row: 0, waits: 0, at: Duration::ZERO }
    }

    /// Whether Redis is asked.
    pub fn state(&self) -> LinkState {
        self.state
    }

    /// A connection was made.
    pub fn connected(&mut self, now: Duration) {
        (self.state, self.in_a_row, self.at) = (LinkState::Closed, 0, now);
    }

    /// None could be made; `chance` is a random number.
    pub fn not_connected(&mut self, now: Duration, chance: u64) {
        self.open(now, chance);
    }

    /// A call was answered.
    pub fn answered(&mut self) {
        self.in_a_row = 0;
    }

    /// A call was not answered; tells whether that opened the breaker.
    pub fn failed(&mut self, now: Duration, chance: u64) -> bool {
        if self.state != LinkState::Closed {
            return false;
        }
        self.in_a_row += 1;
        let opens = self.in_a_row >= self.limits.failures;
        if opens {
            self.end_closed(now);
            self.open(now, chance);
        }
        opens
    }

    /// The connection is gone: a new one is made at once, unless the one before was hardly there either. Tells
    /// whether it was in use until now.
    pub fn lost(&mut self, now: Duration, chance: u64) -> bool {
        let was_closed = self.state == LinkState::Closed;
        if was_closed {
            self.end_closed(now);
            if self.waits == 0 {
                self.state = LinkState::Connecting;
            } else {
                self.open(now, chance);
            }
        }
        was_closed
    }

    /// How long to wait for the next attempt; when that is over, makes it.
    pub fn wait(&mut self, now: Duration) -> Duration {
        let left = match self.state {
            LinkState::Open => self.at.saturating_sub(now),
            LinkState::Closed | LinkState::Connecting => Duration::ZERO,
        };
        if left.is_zero() {
            self.state = LinkState::Connecting;
        }
        left
    }

    fn end_closed(&mut self, now: Duration) {
        if now.saturating_sub(self.at) >= STEADY {
            self.waits = 0;
        }
    }

    fn open(&mut self, now: Duration, chance: u64) {
        let longest = self.limits.max_open.max(self.limits.min_open);
        let wait = self.limits.min_open.saturating_mul(1 << self.waits.min(20)).min(longest);
        let half = wait / 2;
        let width = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
        self.at = now + wait.saturating_sub(Duration::from_micros(chance % width));
        self.state = LinkState::Open;
        self.waits = self.waits.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BreakerLimits =
        BreakerLimits { failures: 5, min_open: Duration::from_secs(1), max_open: Duration::from_secs(30) };

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn closed(now: Duration) -> Breaker {
        let mut breaker = Breaker::new(LIMITS);
        breaker.connected(now);
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_once() {
        let mut breaker = closed(at(0));
        for _ in 0..4 {
            assert!(!breaker.failed(at(1), 0));
        }
        breaker.answered();
        for _ in 0..4 {
            assert!(!breaker.failed(at(1), 0), "an answer ends the row");
        }
        assert!(breaker.failed(at(1), 0));
        assert_eq!(breaker.state(), LinkState::Open);
        assert!(!breaker.failed(at(1), 0), "it is open already");
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_never_longer() {
        let mut breaker = Breaker::new(LIMITS);
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..40 {
            assert_eq!(breaker.wait(now), Duration::ZERO);
            assert_eq!(breaker.state(), LinkState::Connecting);
            breaker.not_connected(now, 0);
            waits.push(breaker.wait(now).as_secs());
            now += breaker.wait(now);
        }
        assert_eq!(waits[..7], [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(waits.last(), Some(&30));
        breaker.not_connected(now, u64::MAX);
        assert!((at(15)..=at(30)).contains(&breaker.wait(now)), "chance takes half of it at most");
    }

    #[test]
    fn a_lost_connection_is_remade_at_once_unless_it_keeps_being_lost() {
        let mut breaker = closed(at(0));
        assert!(breaker.lost(at(1), 0));
        assert_eq!(breaker.state(), LinkState::Connecting);
        assert!(!breaker.lost(at(1), 0), "it is known already");
        breaker.not_connected(at(1), 0);
        breaker.connected(at(2));
        assert!(breaker.lost(at(3), 0));
        assert_eq!((breaker.state(), breaker.wait(at(3))), (LinkState::Open, at(2)));
        breaker.connected(at(5));
        assert!(breaker.lost(at(15), 0));
        assert_eq!(breaker.state(), LinkState::Connecting, "it was there for ten seconds");
    }

    #[test]
    fn who_answers_the_door_and_nothing_else_is_left_alone_for_longer_each_time() {
        let mut breaker = closed(at(0));
        let mut waits = Vec::new();
        for _ in 0..3 {
            for _ in 0..5 {
                breaker.failed(at(100), 0);
            }
            waits.push(breaker.wait(at(100)).as_secs());
            breaker.connected(at(100));
        }
        assert_eq!(waits, [1, 2, 4]);
    }
}
