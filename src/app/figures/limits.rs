//! What tenants' limits refused and slowed down.

use std::sync::Arc;

use super::{counter, read_millis};
use crate::{
    gateway::limit::Limiter,
    model::Limit,
    telemetry::{Figure, Source, as_value},
};

/// Gives the figures of limits.
pub(crate) fn limits(limiter: Arc<Limiter>) -> Source {
    Box::new(move || {
        let c = limiter.counters();
        let help = "Requests, or where they were taken in part some of their series, over a tenant's limit";
        let mut figures: Vec<Figure> = Limit::ALL
            .into_iter()
            .map(|limit| {
                Figure::counter("luminate_rate_limit_exceeded", help, as_value(c.exceeded(limit)))
                    .with("limit", limit.name())
            })
            .collect();
        figures.extend([
            counter(
                "luminate_limits_unread_requests",
                "Requests that were refused before their bodies were read",
                &c.unread,
            ),
            counter("luminate_limits_waits", "Times that an import waited for what it costs", &c.waits),
            Figure::counter(
                "luminate_limits_waited_seconds",
                "How long imports waited for what they cost",
                read_millis(&c.waited_millis),
            ),
        ]);
        figures
    })
}
