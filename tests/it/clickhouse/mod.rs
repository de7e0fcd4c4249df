//! The ClickHouse backend against the engine.

mod active;
mod backup;
pub(crate) mod cache;
mod client;
mod conformance;
mod deletes;
pub(crate) mod faults;
pub(crate) mod front;
mod gateways;
mod life;
pub(crate) mod proxy;
mod pushdown;
mod pushdown_limits;
mod read;
mod retention;
mod rollup;
pub(crate) mod schema;
pub(crate) mod witness;
mod write;

/// Now in milliseconds, or an hour ago in the last hour of a day: then stores write rows of the next day ahead, and
/// tables have more of them than a test has written.
pub(crate) fn before_the_last_hour() -> i64 {
    use luminate::clock::{Clock, SystemClock};

    const HOUR: i64 = 3_600_000;
    let now = SystemClock::start().now().0;
    if now.rem_euclid(24 * HOUR) < 23 * HOUR { now } else { now - HOUR }
}
