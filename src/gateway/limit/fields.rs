//! What answers say of rates: `RateLimit` and `RateLimit-Policy` as draft-ietf-httpapi-ratelimit-headers has them since
//! its 8th version, and `RateLimit-Limit`, `-Remaining` and `-Reset` of the versions before, which most clients know.
//!
//! ```text
//! RateLimit-Policy: "samples_per_second";q=5000;w=5;qu="samples"     5000 in 5 s: what is had at once, and when that is full again
//! RateLimit: "samples_per_second";r=120;t=3                          120 are left; in 3 s it is full again, or enough for what was refused
//! ```

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::Remaining;
use crate::model::{Limit, OverLimit};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Says how a rate stands; `until` is when to come again, if that is not when the bucket is full.
pub fn of_rate(headers: &mut HeaderMap, remaining: &Remaining, until: Option<Duration>) {
    let Remaining { limit, rate, burst, level } = *remaining;
    // A window is whole seconds: a burst of less is told as the rate.
    let (quota, window) = if burst < rate { (rate, 1) } else { (burst, burst.div_ceil(rate.max(1)).max(1)) };
    let unit = match limit {
        Limit::Samples => ";qu=\"samples\"",
        Limit::Bytes => ";qu=\"content-bytes\"",
        Limit::NewSeries => ";qu=\"series\"",
        _ => "",
    };
    let name = limit.name();
    put(headers, POLICY, &format!("\"{name}\";q={quota};w={window}{unit}"));
    put(headers, LIMIT, &quota.to_string());
    let Some(level) = level else { return };
    let left = level.left;
    let reset = seconds(until.unwrap_or(level.full_in));
    put(headers, STATE, &format!("\"{name}\";r={left};t={reset}"));
    put(headers, REMAINING, &left.to_string());
    put(headers, RESET, &reset.to_string());
}

/// Says that all places of a tenant are taken.
pub fn of_places(headers: &mut HeaderMap, over: &OverLimit) {
    let (name, allowed) = (over.limit.name(), over.allowed);
    put(headers, POLICY, &format!("\"{name}\";q={allowed};qu=\"concurrent-requests\""));
    put(headers, LIMIT, &allowed.to_string());
    let reset = over.retry_after.map(seconds);
    let until = reset.map(|reset| format!(";t={reset}")).unwrap_or_default();
    put(headers, STATE, &format!("\"{name}\";r=0{until}"));
    put(headers, REMAINING, "0");
    if let Some(reset) = reset {
        put(headers, RESET, &reset.to_string());
    }
}

/// Whole seconds, rounded up: coming back too early would only be refused again.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Names of limits, digits and punctuation: all of it is legal.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::buckets::Level, *};

    fn said(remaining: &Remaining, until: Option<Duration>) -> String {
        let mut headers = HeaderMap::new();
        of_rate(&mut headers, remaining, until);
        shown(&headers)
    }

    fn shown(headers: &HeaderMap) -> String {
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines.join(" | ")
    }

    #[test]
    fn a_rate_is_told_in_both_manners() {
        let level =
            Some(Level { left: 120, enough_in: Some(Duration::ZERO), full_in: Duration::from_millis(2100) });
        let samples = Remaining { limit: Limit::Samples, rate: 1000, burst: 5000, level };
        assert_eq!(
            said(&samples, None),
            "ratelimit-limit: 5000 | ratelimit-policy: \"samples_per_second\";q=5000;w=5;qu=\"samples\" | \
             ratelimit-remaining: 120 | ratelimit-reset: 3 | ratelimit: \"samples_per_second\";r=120;t=3"
        );
        assert!(said(&samples, Some(Duration::from_millis(999))).contains("ratelimit-reset: 1"));
        let queries = Remaining { limit: Limit::Queries, rate: 10, burst: 3, level: None };
        assert_eq!(
            said(&queries, None),
            "ratelimit-limit: 10 | ratelimit-policy: \"queries_per_second\";q=10;w=1"
        );
        let nothing = Remaining { limit: Limit::Queries, rate: 0, burst: 0, level: None };
        assert_eq!(
            said(&nothing, None),
            "ratelimit-limit: 0 | ratelimit-policy: \"queries_per_second\";q=0;w=1"
        );
    }

    #[test]
    fn places_have_no_window() {
        let mut headers = HeaderMap::new();
        let over = OverLimit {
            limit: Limit::ConcurrentQueries,
            allowed: 4,
            asked: 5,
            retry_after: Some(Duration::from_secs(1)),
            for_good: false,
        };
        of_places(&mut headers, &over);
        assert_eq!(
            shown(&headers),
            "ratelimit-limit: 4 | ratelimit-policy: \"max_concurrent_queries\";q=4;qu=\"concurrent-requests\" | \
             ratelimit-remaining: 0 | ratelimit-reset: 1 | ratelimit: \"max_concurrent_queries\";r=0;t=1"
        );
    }
}
