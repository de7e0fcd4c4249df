//! What we know of a Redis that several gateways share.

use std::sync::Arc;

use super::{counter, read_micros};
use crate::{
    gateway::redis::{LinkState, RedisLink},
    telemetry::{Figure, Source},
};

/// Gives the figures of the link to Redis.
pub(in crate::app) fn link(link: Arc<RedisLink>) -> Source {
    Box::new(move || {
        let c = link.counters();
        let away = match link.state() {
            LinkState::Closed => 0.0,
            LinkState::Open | LinkState::Connecting => 1.0,
        };
        vec![
            Figure::gauge(
                "luminate_redis_fallback_active",
                "Whether this gateway does without Redis, each taking its share of a limit",
                away,
            ),
            counter("luminate_redis_calls", "Calls of Redis", &c.calls),
            counter("luminate_redis_failed_calls", "Calls of Redis that failed or were late", &c.errors),
            counter("luminate_redis_late_calls", "Calls of Redis that were not answered in time", &c.late),
            counter(
                "luminate_redis_skipped_calls",
                "Calls not made, Redis being away or too many waiting",
                &c.skipped,
            ),
            Figure::counter(
                "luminate_redis_call_seconds",
                "Time calls of Redis took",
                read_micros(&c.micros),
            ),
            counter("luminate_redis_connections", "Connections made to Redis", &c.connections),
            counter("luminate_redis_lost", "Times Redis went away", &c.lost),
        ]
    })
}
