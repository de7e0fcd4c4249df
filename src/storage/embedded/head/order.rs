//! A tenant's series in label order, as parts have them.
//!
//! Labels are not compared, and not all of them put together at once: pairs are ranked, and the lists of a series'
//! ranks sort as its labels do. Series are sorted by their first label, which mostly is the metric's name, and those that
//! share it by the rest, so that no more than their lists are copied.

use super::{Head, index::PairNumbers};
use crate::model::TenantId;

impl Head {
    /// Shows the numbers of a tenant's series in the order of their labels.
    pub(crate) fn each_in_order<E>(
        &self,
        tenant: &TenantId,
        mut each: impl FnMut(u32) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(tenant) = self.tenant(tenant) else { return Ok(()) };
        let ranks = tenant.index.read().ranks();
        // Those without labels come first.
        let first = |pairs: &[u32]| pairs.first().map_or(0, |pair| ranks[*pair as usize]);
        let mut all: Vec<(u32, u32)> = Vec::new();
        for stripe in &self.stripes {
            let stripe = stripe.lock();
            let series = self.seen(&stripe).filter(|s| s.tenant == tenant.ordinal);
            all.extend(series.map(|s| (first(s.pairs()), s.number)));
        }
        all.sort_unstable();
        for same in all.chunk_by(|a, b| a.0 == b.0) {
            let rest = |number: u32| -> PairNumbers {
                let rest = |pairs: &[u32]| pairs.iter().skip(1).map(|pair| ranks[*pair as usize]).collect();
                self.look(number, |s| rest(s.pairs())).unwrap_or_default()
            };
            let mut lists: Vec<(PairNumbers, u32)> = same.iter().map(|(_, n)| (rest(*n), *n)).collect();
            lists.sort_unstable();
            lists.into_iter().try_for_each(|(_, number)| each(number))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Labels;

    #[test]
    fn series_come_in_label_order_tenant_by_tenant() {
        let value = |i: u32| if i.is_multiple_of(4) { String::new() } else { (i * 31 % 57).to_string() };
        let head = Head::new();
        let tenants = ["a", "b"].map(|name| TenantId::new(name).unwrap());
        for (at, tenant) in (0..).zip(&tenants) {
            let mut all: Vec<Labels> = (0..500)
                .map(|i| {
                    let i = i * 2 + at;
                    let pairs =
                        [("m", value(i / 64)), ("M", value(i / 9)), ("mm", value(i)), ("x", value(i / 3))];
                    Labels::from_pairs(pairs).unwrap()
                })
                .collect();
            all.iter().for_each(|labels| head.recall(tenant, labels, 0));
            all.sort();
            all.dedup();
            let mut found = Vec::new();
            let each = |number| {
                found.extend(head.look(number, |s| s.labels()));
                Ok::<_, ()>(())
            };
            head.each_in_order(tenant, each).unwrap();
            assert_eq!(found, all);
        }
    }
}
