//! From a request to rows, and from rows to an answer.
//!
//! [`series`] finds what is meant: matchers become conditions ([`matchers`]), are asked again here of what
//! comes back, and what was deleted is taken out; [`room`] bounds what is kept of it. [`samples`] reads the samples of what was found, in the
//! statements that [`units`] cuts the work into; [`blocks`] and [`groups`] decode them, and [`settle`] says
//! which of several samples at one time counts. [`estimate`] only counts.

pub(super) mod blocks;
mod cardinality;
pub(super) mod counters;
mod estimate;
mod exemplars;
pub(super) mod groups;
mod labels;
pub(super) mod matchers;
mod metadata;
mod room;
mod samples;
pub(super) mod series;
pub(super) mod settle;
pub(super) mod units;

use std::sync::Arc;

use self::counters::ReadCounters;
pub(super) use self::{samples::SampleReader, series::Found};
use super::{
    client::Servers, config::ClickHouseConfig, deletes::Deletes, pushdown::Pushdown, rollup::Rollups,
};
use crate::clock::Clock;

/// The way out.
#[derive(Debug)]
pub(super) struct Reads {
    servers: Arc<Servers>,
    config: Arc<ClickHouseConfig>,
    clock: Arc<dyn Clock>,
    deletes: Arc<Deletes>,
    counters: Arc<ReadCounters>,
    pushdown: Arc<Pushdown>,
    rollups: Arc<Rollups>,
}

impl Reads {
    pub(super) fn new(
        servers: Arc<Servers>,
        config: Arc<ClickHouseConfig>,
        clock: Arc<dyn Clock>,
        deletes: Arc<Deletes>,
        counters: Arc<ReadCounters>,
        pushdown: Arc<Pushdown>,
        rollups: Arc<Rollups>,
    ) -> Self {
        Self { servers, config, clock, deletes, counters, pushdown, rollups }
    }
}
