//! A series of the head as one sees it who looks at it.

use std::ops::Deref;

use super::{Head, HeadTenant, Stripe, series::Series};
use crate::{
    model::{Labels, TimeRange},
    storage::{Estimate, SeriesSamples},
};

/// A series, with what its stripe has of it. The stripe is locked as long as it is seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(super) head: &'a Head,
    pub(super) stripe: &'a Stripe,
    pub(super) series: &'a Series,
}

impl Deref for Seen<'_> {
    type Target = Series;

    fn deref(&self) -> &Series {
        self.series
    }
}

impl<'a> Seen<'a> {
    /// Its labels, put together.
    pub(crate) fn labels(&self) -> Labels {
        let tenants = self.head.tenants.read();
        let tenant: &HeadTenant = &tenants.by_ordinal[self.series.tenant as usize];
        tenant.index.read().labels(self.pairs())
    }

    /// The numbers of its labels in the tenant's index.
    pub(super) fn pairs(&self) -> &'a [u32] {
        self.stripe.lists.get(self.series.labels)
    }

    /// The times between which the samples in the head lie.
    pub(crate) fn range(&self) -> Option<TimeRange> {
        self.series.range(&self.stripe.pieces)
    }

    /// Adds the samples of a range to `into`, which is empty.
    pub(crate) fn read(&self, range: TimeRange, into: &mut SeriesSamples) {
        self.series.read(range, &self.stripe.pieces, into);
    }

    /// How many samples of a range there are; one that replaces another counts as well.
    pub(crate) fn estimate(&self, range: TimeRange) -> Estimate {
        self.series.estimate(range, &self.stripe.pieces)
    }
}
