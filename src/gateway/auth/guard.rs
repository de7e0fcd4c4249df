//! Slows down who tries credentials out.
//!
//! Every credential that is refused costs its sender's address one failure; the same one again costs nothing more, for
//! who repeats a credential that has ended is misconfigured and guesses nothing. Failures are forgotten at a steady rate,
//! so that an address has at most so many in a minute; one that has them all is told to come back, before its next
//! credential is looked at. Who shows a credential that is known to be good is never asked for it: the caller looks
//! there first.
//!
//! ```text
//! failures ▲        ┌── told to come back
//!   most  ─┼──────╱╲╱╲────────
//!          │    ╱        ╲         one is forgotten every minute / most
//!          └──────────────────▶ time
//! ```
//!
//! Of IPv6 a whole /64 is one address, for that is what one host gets. The table is bounded: addresses that have been
//! quiet the longest are forgotten first, so that who has more addresses than it holds gets away. That is bearable,
//! because 256 bits are not guessed: this keeps the noise down, and the work.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use lru::LruCache;
use parking_lot::Mutex;

use super::keys::Sha256;
use crate::clock::Clock;

/// Addresses that are remembered.
const MOST_ADDRESSES: NonZeroUsize = NonZeroUsize::new(1 << 16).expect("it is not 0");

/// Credentials that are remembered as counted.
const MOST_COUNTED: NonZeroUsize = NonZeroUsize::new(1 << 12).expect("it is not 0");

const MINUTE: Duration = Duration::from_secs(60);

/// Counts failures by address.
#[derive(Debug)]
pub struct Guard {
    clock: Arc<dyn Clock>,
    /// How long it takes to forget one failure; none forgets at once.
    forget: Option<Duration>,
    addresses: Mutex<LruCache<IpAddr, Failures>>,
    /// What was refused of an address lately, and when it was counted.
    counted: Mutex<LruCache<(IpAddr, Sha256), Duration>>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    /// When all of them will be forgotten.
    until: Duration,
    /// When somebody was last told of them.
    told: Option<Duration>,
}

impl Guard {
    /// Allows an address so many failures in a minute; 0 is without bound.
    pub fn new(failures_per_minute: u32, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            forget: MINUTE.checked_div(failures_per_minute),
            addresses: Mutex::new(LruCache::sparse(MOST_ADDRESSES)),
            counted: Mutex::new(LruCache::sparse(MOST_COUNTED)),
        }
    }

    /// Whether an address may show another credential, or when it may.
    pub fn check(&self, client: IpAddr) -> Result<(), Duration> {
        let Some(forget) = self.forget else { return Ok(()) };
        let now = self.clock.elapsed();
        let mut addresses = self.addresses.lock();
        // Looking keeps the entry: who goes on trying is not forgotten.
        let wait = addresses.get(&host(client)).map_or(Duration::ZERO, |failures| {
            // There is room for one more as soon as one less than all of them are left.
            (failures.until + forget).saturating_sub(now + MINUTE)
        });
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    /// Notes that an address showed a credential that will not do.
    pub fn refused(&self, client: IpAddr, credential: &str) {
        let (now, shown) = (self.clock.elapsed(), (host(client), Sha256::of(credential)));
        let is_repeated = {
            let mut counted = self.counted.lock();
            let before = counted.get(&shown).is_some_and(|at| now < *at + MINUTE);
            if !before {
                counted.put(shown, now);
            }
            before
        };
        if !is_repeated {
            self.failed(client);
        }
    }

    /// Notes that an address showed something that will not do.
    pub fn failed(&self, client: IpAddr) {
        let Some(forget) = self.forget else { return };
        let now = self.clock.elapsed();
        let host = host(client);
        let mut addresses = self.addresses.lock();
        let mut failures = addresses.get(&host).copied().unwrap_or(Failures { until: now, told: None });
        // Those that came while others were still being looked at do not add to the wait for ever.
        failures.until = (failures.until.max(now) + forget).min(now + MINUTE);
        let is_full = failures.until + forget > now + MINUTE;
        let tell = is_full && failures.told.is_none_or(|told| told + MINUTE <= now);
        if tell {
            failures.told = Some(now);
        }
        addresses.put(host, failures);
        drop(addresses);
        if tell {
            tracing::warn!(event = "auth_failures", client = %host, "shows one bad credential after the other");
        }
    }

    /// Addresses that are remembered.
    pub fn addresses(&self) -> usize {
        self.addresses.lock().len()
    }
}

/// The address by which a host is known.
fn host(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::HandClock, model::Timestamp};

    fn guard(failures_per_minute: u32) -> (Guard, Arc<HandClock>) {
        let clock = HandClock::at(Timestamp(0));
        (Guard::new(failures_per_minute, Arc::clone(&clock) as Arc<dyn Clock>), clock)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_fails_too_often_is_told_when_to_come_back() {
        let (guard, clock) = guard(6);
        let client = address("192.0.2.1");
        for _ in 0..6 {
            assert_eq!(guard.check(client), Ok(()));
            guard.failed(client);
        }
        assert_eq!(guard.check(client), Err(Duration::from_secs(10)));
        clock.advance(Duration::from_secs(4));
        assert_eq!(guard.check(client), Err(Duration::from_secs(6)));
        assert_eq!(guard.check(address("192.0.2.2")), Ok(()));
        clock.advance(Duration::from_secs(6));
        assert_eq!(guard.check(client), Ok(()));
        guard.failed(client);
        assert_eq!(guard.check(client), Err(Duration::from_secs(10)));
        clock.advance(Duration::from_secs(60));
        for _ in 0..6 {
            assert_eq!(guard.check(client), Ok(()));
            guard.failed(client);
        }
        assert!(guard.check(client).is_err());
    }

    #[test]
    fn failures_that_were_under_way_add_no_more_than_a_minute() {
        let (guard, clock) = guard(60);
        let client = address("192.0.2.1");
        for _ in 0..10_000 {
            guard.failed(client);
        }
        assert_eq!(guard.check(client), Err(Duration::from_secs(1)));
        clock.advance(Duration::from_secs(60));
        assert_eq!(guard.check(client), Ok(()));
    }

    #[test]
    fn a_host_is_its_network_and_the_same_in_both_notations() {
        let (guard, _) = guard(1);
        guard.failed(address("2001:db8::1"));
        assert!(guard.check(address("2001:db8::ffff:2")).is_err());
        assert!(guard.check(address("2001:db8:0:1::1")).is_ok());
        guard.failed(address("::ffff:192.0.2.1"));
        assert!(guard.check(address("192.0.2.1")).is_err());
        assert!(guard.check(address("192.0.2.2")).is_ok());
    }

    #[test]
    fn nothing_is_counted_when_it_is_off() {
        let (guard, _) = guard(0);
        for _ in 0..1000 {
            guard.failed(address("192.0.2.1"));
        }
        assert_eq!((guard.check(address("192.0.2.1")), guard.addresses()), (Ok(()), 0));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_who_goes_on() {
        let (guard, _) = guard(1);
        let stubborn = address("198.51.100.1");
        guard.failed(stubborn);
        for n in 0..2 * u32::try_from(MOST_ADDRESSES.get()).unwrap() {
            guard.failed(IpAddr::V4(n.into()));
            if n % 1000 == 0 {
                assert!(guard.check(stubborn).is_err());
            }
        }
        assert_eq!(guard.addresses(), MOST_ADDRESSES.get());
        assert!(guard.check(stubborn).is_err());
    }

    #[test]
    fn the_same_credential_again_is_no_other_guess() {
        let (guard, clock) = guard(2);
        let sender = address("192.0.2.9");
        for _ in 0..100 {
            guard.refused(sender, "ended");
        }
        assert_eq!(guard.check(sender), Ok(()));
        guard.refused(sender, "guessed");
        assert!(guard.check(sender).is_err());
        // After a minute it counts again, so that it is noticed.
        clock.advance(MINUTE);
        guard.refused(sender, "ended");
        guard.refused(sender, "ended too");
        assert!(guard.check(sender).is_err());
    }
}
