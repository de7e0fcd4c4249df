//! What tenants' limits refused and slowed down.

use std::sync::Arc;

use super::{counter, read_millis};
use crate::{
    gateway::{
        limit::{Limiter, table::LimitTable},
        reload::Reloads,
    },
    model::Limit,
    storage::Storage,
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

/// Gives how many tenants are near the most series they may have.
pub(crate) fn crowd(limiter: Arc<Limiter>, storage: Arc<dyn Storage>) -> Source {
    Box::new(move || {
        let crowded = limiter.crowd().crowded(|tenant| storage.active_series(tenant));
        let help = "Tenants that have so much of the active series they may have";
        let tenants = |used: &str, count| {
            Figure::gauge("luminate_limits_crowded_tenants", help, as_value(count)).with("used", used)
        };
        vec![tenants("80%", crowded.near), tenants("100%", crowded.full)]
    })
}

/// Gives how what is read again while we run stands.
pub(crate) fn reloads(reloads: Arc<Reloads>, table: Arc<LimitTable>) -> Source {
    Box::new(move || {
        let standings = reloads.standings();
        let successful = "Whether a part of the configuration could be read the last time it changed";
        let mut figures: Vec<Figure> = standings
            .iter()
            .map(|(part, standing)| {
                let value = f64::from(u8::from(standing.successful));
                Figure::gauge("luminate_config_last_reload_successful", successful, value).with("part", *part)
            })
            .collect();
        let at = "When a part of the configuration was read the last time it could be";
        figures.extend(standings.iter().filter_map(|(part, standing)| {
            let seconds = u64::try_from(standing.at?.millis()).ok()? / 1000;
            let name = "luminate_config_last_reload_success_timestamp_seconds";
            Some(Figure::gauge(name, at, as_value(seconds)).with("part", *part))
        }));
        let tenants = "Tenants with limits of their own";
        let (by_file, by_api) = table.counts();
        for (source, count) in [("file", by_file), ("api", by_api)] {
            let count = as_value(u64::try_from(count).unwrap_or(u64::MAX));
            figures.push(Figure::gauge("luminate_limits_tenants", tenants, count).with("source", source));
        }
        figures
    })
}
