//! How long what is written will stay.

use std::{collections::HashMap, time::Duration};

use crate::{
    model::{Millis, TenantId, Timestamp},
    storage::clickhouse::ClickHouseConfig,
};

/// The classes of retention, in days. Few, because every insert makes a part for each class and day.
const CLASSES: [u16; 5] = [1, 7, 30, 90, 400];

/// The class of what is kept for ever.
pub(super) const FOREVER: u16 = u16::MAX;

/// How many days exemplars are kept at most.
const EXEMPLAR_DAYS: u16 = 7;

/// The retention of every tenant.
#[derive(Debug)]
pub(super) struct Retention {
    default: Option<Duration>,
    tenants: HashMap<TenantId, Option<Duration>>,
}

/// What the retention means for what is written now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keep {
    /// Samples older than this are refused.
    pub(super) oldest: Timestamp,
    /// The class of samples and series.
    pub(super) class: u16,
    /// Exemplars older than this are refused.
    pub(super) oldest_exemplar: Timestamp,
    /// The class of exemplars.
    pub(super) exemplar_class: u16,
}

impl Retention {
    pub(super) fn new(config: &ClickHouseConfig) -> Self {
        Self { default: config.retention, tenants: config.tenant_retention.iter().cloned().collect() }
    }

    /// What a tenant's retention means at `now`.
    pub(super) fn keep(&self, tenant: &TenantId, now: Timestamp) -> Keep {
        let retention = *self.tenants.get(tenant).unwrap_or(&self.default);
        let millis = |keep: Duration| Millis(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
        let exemplars = Duration::from_secs(u64::from(EXEMPLAR_DAYS) * 86_400);
        Keep {
            oldest: retention.map_or(Timestamp::MIN, |keep| now.minus(millis(keep))),
            class: class(retention),
            oldest_exemplar: now.minus(millis(retention.map_or(exemplars, |keep| keep.min(exemplars)))),
            exemplar_class: class(retention).min(EXEMPLAR_DAYS),
        }
    }
}

/// The smallest class that does not lose anything too early.
fn class(retention: Option<Duration>) -> u16 {
    let Some(retention) = retention else { return FOREVER };
    let enough = |days: &u16| Duration::from_secs(u64::from(*days) * 86_400) >= retention;
    CLASSES.into_iter().find(enough).unwrap_or(FOREVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_class_is_never_shorter_than_the_retention() {
        for (days, expect) in
            [(1, 1), (2, 7), (7, 7), (8, 30), (30, 30), (31, 90), (400, 400), (401, FOREVER)]
        {
            assert_eq!(class(Some(DAY * days)), expect, "{days} days");
        }
        assert_eq!(class(Some(Duration::from_secs(1))), 1);
        assert_eq!(class(None), FOREVER);
    }

    #[test]
    fn a_tenant_has_its_own_retention_or_the_common_one() {
        let tenant = |name| TenantId::new(name).unwrap();
        let config = ClickHouseConfig {
            retention: Some(DAY * 30),
            tenant_retention: vec![(tenant("short"), Some(DAY)), (tenant("long"), None)],
            ..ClickHouseConfig::new("http://nowhere")
        };
        let retention = Retention::new(&config);
        let now = Timestamp(100 * 86_400_000);
        let keep = |name| retention.keep(&tenant(name), now);
        assert_eq!((keep("a").oldest, keep("a").class), (Timestamp(70 * 86_400_000), 30));
        assert_eq!((keep("a").oldest_exemplar, keep("a").exemplar_class), (Timestamp(93 * 86_400_000), 7));
        assert_eq!((keep("short").oldest, keep("short").class), (Timestamp(99 * 86_400_000), 1));
        assert_eq!(
            (keep("short").oldest_exemplar, keep("short").exemplar_class),
            (Timestamp(99 * 86_400_000), 1)
        );
        assert_eq!((keep("long").oldest, keep("long").class), (Timestamp::MIN, FOREVER));
        assert_eq!(
            (keep("long").oldest_exemplar, keep("long").exemplar_class),
            (Timestamp(93 * 86_400_000), 7)
        );
    }
}
