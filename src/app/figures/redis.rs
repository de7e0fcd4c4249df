//! What we know of a Redis that several gateways share.

use std::sync::Arc;

use super::{counter, read_micros};
use crate::{
    gateway::redis::{LinkState, RedisLink},
    telemetry::{Figure, Source, as_value},
};

/// Gives the figures of the link to Redis.
pub(in crate::app) fn link(link: Arc<RedisLink>) -> Source {
    Box::new(move || {
        let c = link.counters();
        let (away, left_alone) = match link.state() {
            LinkState::Closed => (0.0, 0.0),
            LinkState::Connecting => (1.0, 0.0),
            LinkState::Open => (1.0, 1.0),
        };
        let mut figures = vec![
            Figure::gauge(
                "luminate_redis_breaker_open",
                "Whether Redis is left alone for a while, having failed too often",
                left_alone,
            ),
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
        ];
        if let Some(memory) = link.memory() {
            let used = "Memory that Redis uses";
            figures.push(Figure::gauge("luminate_redis_memory_used_bytes", used, as_value(memory.used)));
            let limit = "Memory that Redis may use (maxmemory); not there where it may use all";
            let limit = |most| Figure::gauge("luminate_redis_memory_limit_bytes", limit, as_value(most));
            figures.extend(memory.most.map(limit));
        }
        figures
    })
}
