//! Where series come from: which metrics and labels have most of them.
//!
//! A store that has an index gives each pair of a label and a value once, with how many series have it
//! ([`PairCounts::add`]), and never looks at a series. Only what comes out on top is copied.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use hashbrown::HashMap;

use super::Cardinality;
use crate::model::{Labels, METRIC_NAME};

/// Counts of pairs on their way to a [`Cardinality`].
#[derive(Debug)]
pub(crate) struct PairCounts {
    limit: usize,
    pairs: u64,
    metrics: Top,
    /// Values and bytes of each label.
    labels: BTreeMap<String, (u64, u64)>,
    by_pair: Top,
}

impl PairCounts {
    /// For lists of so many entries.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, pairs: 0, metrics: Top::new(limit), labels: BTreeMap::new(), by_pair: Top::new(limit) }
    }

    /// Adds a pair, which comes once.
    pub(crate) fn add(&mut self, name: &str, value: &str, series: u64) {
        self.pairs += 1;
        let bytes = value.len() as u64;
        match self.labels.get_mut(name) {
            Some(label) => *label = (label.0 + 1, label.1 + bytes),
            None => {
                self.labels.insert(name.to_owned(), (1, bytes));
            }
        }
        if name == METRIC_NAME {
            self.metrics.offer(series, || value.to_owned());
        }
        self.by_pair.offer(series, || format!("{name}={value}"));
    }

    /// What was counted, of so many series.
    pub(crate) fn done(self, series: u64) -> Cardinality {
        let (mut values, mut bytes) = (Top::new(self.limit), Top::new(self.limit));
        for (name, label) in &self.labels {
            values.offer(label.0, || name.clone());
            bytes.offer(label.1, || name.clone());
        }
        Cardinality {
            series,
            pairs: self.pairs,
            series_by_metric: self.metrics.done(),
            values_by_label: values.done(),
            bytes_by_label: bytes.done(),
            series_by_pair: self.by_pair.done(),
            ..Cardinality::default()
        }
    }
}

/// Counts where the given series come from, for backends that can list them.
pub(crate) fn cardinality_of<'a>(all: impl Iterator<Item = &'a Labels>, limit: usize) -> Cardinality {
    let mut pairs: HashMap<(&str, &str), u64> = HashMap::new();
    let mut series = 0;
    for labels in all {
        series += 1;
        for pair in labels {
            *pairs.entry(pair).or_default() += 1;
        }
    }
    let mut counts = PairCounts::new(limit);
    pairs.into_iter().for_each(|((name, value), count)| counts.add(name, value, count));
    counts.done(series)
}

/// The `limit` entries with the highest counts, ties by name.
pub(crate) fn most(counts: impl Iterator<Item = (String, u64)>, limit: usize) -> Vec<(String, u64)> {
    let mut top = Top::new(limit);
    counts.for_each(|(name, count)| top.offer(count, || name));
    top.done()
}

/// The entries with the highest counts, ties by name.
#[derive(Debug)]
struct Top {
    most: usize,
    /// The one to go first is at its top.
    entries: BinaryHeap<Reverse<(u64, Reverse<String>)>>,
}

impl Top {
    fn new(most: usize) -> Self {
        Self { most, entries: BinaryHeap::new() }
    }

    /// Takes an entry if it is among the highest so far; its name is only asked for if it may be.
    fn offer(&mut self, count: u64, name: impl FnOnce() -> String) {
        if self.most == 0 || (self.entries.len() >= self.most && self.lowest().is_some_and(|low| count < low))
        {
            return;
        }
        self.entries.push(Reverse((count, Reverse(name()))));
        if self.entries.len() > self.most {
            self.entries.pop();
        }
    }

    fn lowest(&self) -> Option<u64> {
        self.entries.peek().map(|Reverse((count, _))| *count)
    }

    fn done(self) -> Vec<(String, u64)> {
        self.entries
            .into_sorted_vec()
            .into_iter()
            .map(|Reverse((count, Reverse(name)))| (name, count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_counts_come_first_and_ties_by_name() {
        let mut top = Top::new(3);
        for (name, count) in [("b", 2), ("a", 2), ("c", 5), ("d", 2), ("e", 1), ("aa", 2)] {
            top.offer(count, || name.to_owned());
        }
        let expect = [("c", 5), ("a", 2), ("aa", 2)].map(|(name, count)| (name.to_owned(), count));
        assert_eq!(top.done(), expect);
        let mut none = Top::new(0);
        none.offer(1, || unreachable!("nobody wants it"));
        assert_eq!(none.done(), []);
    }

    #[test]
    fn series_are_counted_by_what_they_have() {
        let labels = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied()).unwrap();
        let all = [
            labels(&[("__name__", "up"), ("job", "api"), ("pod", "one")]),
            labels(&[("__name__", "up"), ("job", "api"), ("pod", "two")]),
            labels(&[("__name__", "load"), ("job", "api")]),
            labels(&[]),
        ];
        let of = |pairs: &[(&str, u64)]| pairs.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect::<Vec<_>>();
        let counted = cardinality_of(all.iter(), 2);
        assert_eq!((counted.series, counted.pairs), (4, 5));
        assert_eq!(counted.series_by_metric, of(&[("up", 2), ("load", 1)]));
        assert_eq!(counted.values_by_label, of(&[("__name__", 2), ("pod", 2)]));
        assert_eq!(counted.bytes_by_label, of(&[("__name__", 6), ("pod", 6)]));
        assert_eq!(counted.series_by_pair, of(&[("job=api", 3), ("__name__=up", 2)]));
    }
}
