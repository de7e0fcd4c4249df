//! Sorting that can be stopped.

use std::cmp::Ordering;

use super::context::Budget;
use crate::promql::QueryError;

/// So many are sorted, or put together, in a few milliseconds.
const RUN: usize = 16 * 1024;

/// Sorts as [`slice::sort_by`] does: what is equal keeps its order. Fails soon after nobody waits any more.
pub fn sort_by<T>(
    budget: &Budget,
    mut all: Vec<T>,
    compare: impl Fn(&T, &T) -> Ordering,
) -> Result<Vec<T>, QueryError> {
    if all.len() <= RUN {
        all.sort_by(compare);
        return Ok(all);
    }
    let mut runs = Vec::with_capacity(all.len().div_ceil(RUN));
    let mut rest = all.into_iter();
    while rest.len() > 0 {
        budget.check()?;
        let mut run: Vec<T> = rest.by_ref().take(RUN).collect();
        run.sort_by(&compare);
        runs.push(run);
    }
    while runs.len() > 1 {
        let mut merged = Vec::with_capacity(runs.len().div_ceil(2));
        let mut pairs = runs.into_iter();
        while let Some(left) = pairs.next() {
            merged.push(match pairs.next() {
                Some(right) => merge(budget, left, right, &compare)?,
                None => left,
            });
        }
        runs = merged;
    }
    Ok(runs.pop().unwrap_or_default())
}

fn merge<T>(
    budget: &Budget,
    mut left: Vec<T>,
    right: Vec<T>,
    compare: impl Fn(&T, &T) -> Ordering,
) -> Result<Vec<T>, QueryError> {
    // What comes from the store is in order already.
    if left.last().zip(right.first()).is_none_or(|(last, first)| compare(last, first).is_le()) {
        left.extend(right);
        return Ok(left);
    }
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        if merged.len().is_multiple_of(RUN) {
            budget.check()?;
        }
        merged.extend(if compare(b, a).is_lt() { right.next() } else { left.next() });
    }
    merged.extend(left);
    merged.extend(right);
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicBool};

    use super::*;

    #[test]
    fn many_come_in_the_order_that_the_standard_library_gives() {
        let budget = Budget::new(0);
        for len in [0, 1, RUN, RUN + 1, 5 * RUN + 7] {
            let scattered = (0..len).map(|i| (i.wrapping_mul(2_654_435_761) % 1000, i));
            for all in [scattered.collect::<Vec<_>>(), (0..len).map(|i| (i / 3, i)).collect()] {
                let mut expected = all.clone();
                expected.sort_by_key(|pair| pair.0);
                assert!(sort_by(&budget, all, |a, b| a.0.cmp(&b.0)).unwrap() == expected, "{len}");
            }
        }
    }

    #[test]
    fn it_ends_when_nobody_waits() {
        let over = Arc::new(AtomicBool::new(true));
        let budget = Budget::new(0).until(&over, &Arc::default());
        assert!(sort_by(&budget, vec![0; RUN + 1], Ord::cmp).is_err());
    }
}
