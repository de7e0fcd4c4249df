//! Whether series may begin.
//!
//! Who writes may have bounds on how many series take samples at a time, and on how many begin in a second. A
//! store that meets series of a batch which are new to it writes the samples of all others first, then
//! [asks](SeriesRoom::begin) once for all of the new ones, and makes as many as it was granted. The samples of the rest
//! are rejected and named ([`RejectReason::OverLimit`]): series that are there keep flowing.

use std::fmt;

use async_trait::async_trait;

use super::RejectReason;
use crate::model::{Limit, OverLimit};

/// Bounds on the series that a sender may begin.
#[async_trait]
pub trait SeriesRoom: fmt::Debug + Send + Sync + 'static {
    /// The most series that may be active at a time; none is without bound.
    fn max_active(&self) -> Option<u64>;

    /// Takes `wanted` series, or as many of them as there are, from what may begin now.
    async fn begin(&self, wanted: u64) -> Granted;
}

/// How many series may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// So many of those that were asked for.
    pub series: u64,
    /// Why not more.
    pub over: Option<OverLimit>,
}

impl Granted {
    /// All that were asked for.
    pub fn all(wanted: u64) -> Self {
        Self { series: wanted, over: None }
    }
}

/// What was granted for a batch, and what became of it.
#[derive(Debug)]
pub(crate) struct Allowance {
    max_active: Option<u64>,
    /// Series that may still begin.
    left: u64,
    /// Why no more than were granted may.
    over_rate: Option<OverLimit>,
    refused_for_active: u64,
    refused_for_rate: u64,
}

impl Allowance {
    /// Asks for `wanted` series where `active` are active; no more are asked for than there is room for.
    pub(crate) async fn ask(room: &dyn SeriesRoom, active: u64, wanted: u64) -> Self {
        let max_active = room.max_active();
        let free = max_active.map_or(u64::MAX, |most| most.saturating_sub(active));
        let asked = wanted.min(free);
        let granted = if asked == 0 { Granted::all(0) } else { room.begin(asked).await };
        Self {
            max_active,
            left: granted.series.min(asked),
            over_rate: granted.over.filter(|_| granted.series < asked),
            refused_for_active: 0,
            refused_for_rate: 0,
        }
    }

    /// Lets one more series begin, or says why not. `enter` counts it among the active ones, if these are fewer
    /// than the most it is given.
    pub(crate) fn next(&mut self, enter: impl FnOnce(Option<u64>) -> bool) -> Result<(), RejectReason> {
        if self.left == 0 && self.over_rate.is_some() {
            self.refused_for_rate += 1;
            return Err(RejectReason::OverLimit(Limit::NewSeries));
        }
        if self.left == 0 || !enter(self.max_active) {
            self.refused_for_active += 1;
            return Err(RejectReason::OverLimit(Limit::ActiveSeries));
        }
        self.left -= 1;
        Ok(())
    }

    /// Whether a series was refused because too many are active.
    pub(crate) fn is_crowded(&self) -> bool {
        self.refused_for_active > 0
    }

    /// The limits that were in the way, where so many series are active now.
    pub(crate) fn over(&self, active: u64) -> Vec<OverLimit> {
        let mut over = Vec::new();
        if self.refused_for_active > 0 {
            let allowed = self.max_active.unwrap_or(u64::MAX);
            over.push(OverLimit {
                limit: Limit::ActiveSeries,
                allowed,
                asked: active.saturating_add(self.refused_for_active),
                // Where none may be there is nothing to wait for.
                retry_after: (allowed > 0).then_some(super::batch::ACTIVE_RETRY),
                for_good: false,
            });
        }
        if let Some(rate) = self.over_rate.as_ref().filter(|_| self.refused_for_rate > 0) {
            over.push(rate.clone());
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// So many may be active, and so many begin.
    #[derive(Debug)]
    struct Bounds(Option<u64>, u64);

    #[async_trait]
    impl SeriesRoom for Bounds {
        fn max_active(&self) -> Option<u64> {
            self.0
        }

        async fn begin(&self, wanted: u64) -> Granted {
            let over = OverLimit {
                limit: Limit::NewSeries,
                allowed: self.1,
                asked: wanted,
                retry_after: Some(Duration::from_secs(1)),
                for_good: false,
            };
            Granted { series: wanted.min(self.1), over: (wanted > self.1).then_some(over) }
        }
    }

    /// Lets so many begin where some are active; gives the reasons of the refused.
    async fn begin(bounds: Bounds, mut active: u64, wanted: u64) -> (u64, Vec<Limit>, Vec<OverLimit>) {
        let mut allowance = Allowance::ask(&bounds, active, wanted).await;
        let mut refused = Vec::new();
        for _ in 0..wanted {
            let enter = |most: Option<u64>| {
                let fits = most.is_none_or(|most| active < most);
                active += u64::from(fits);
                fits
            };
            match allowance.next(enter) {
                Ok(()) => {}
                Err(RejectReason::OverLimit(limit)) => refused.push(limit),
                Err(other) => panic!("{other:?}"),
            }
        }
        (active, refused, allowance.over(active))
    }

    #[tokio::test]
    async fn the_stricter_bound_is_the_one_that_is_named() {
        let (active, refused, over) = begin(Bounds(Some(10), 100), 8, 5).await;
        assert_eq!((active, refused), (10, vec![Limit::ActiveSeries; 3]));
        assert_eq!((over[0].allowed, over[0].asked, over.len()), (10, 13, 1));

        let (active, refused, over) = begin(Bounds(Some(100), 2), 8, 5).await;
        assert_eq!((active, refused), (10, vec![Limit::NewSeries; 3]));
        assert_eq!((over[0].limit, over.len()), (Limit::NewSeries, 1));

        let (_, refused, over) = begin(Bounds(Some(0), 100), 0, 1).await;
        assert_eq!((refused, over[0].retry_after), (vec![Limit::ActiveSeries], None));

        let (active, refused, over) = begin(Bounds(None, 100), 8, 5).await;
        assert_eq!((active, refused.len(), over.len()), (13, 0, 0));
    }

    #[tokio::test]
    async fn where_there_is_no_room_nothing_is_taken_from_the_rate() {
        let allowance = Allowance::ask(&Bounds(Some(10), 0), 12, 5).await;
        assert_eq!((allowance.left, allowance.over_rate), (0, None));
    }
}
