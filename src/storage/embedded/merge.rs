//! Samples of one series from several places, as one.

use crate::{
    model::{TimeRange, Timestamp},
    storage::{Gap, SeriesSamples},
};

/// Lays newer samples over older ones: at the same time the newer stays, whatever its kind.
pub(crate) fn overlay(older: &mut SeriesSamples, newer: &mut SeriesSamples) {
    if newer.is_empty() {
        return;
    }
    if older.is_empty() {
        std::mem::swap(older, newer);
        return;
    }
    if !newer.histograms.is_empty() {
        let hidden = |at| newer.histograms.binary_search_by_key(&at, |h| h.timestamp).is_ok();
        retain_floats(older, |at| !hidden(at));
    }
    if !newer.timestamps.is_empty() {
        older.histograms.retain(|h| newer.timestamps.binary_search(&h.timestamp).is_err());
    }
    overlay_floats(older, newer);
    overlay_histograms(older, newer);
}

fn overlay_floats(older: &mut SeriesSamples, newer: &SeriesSamples) {
    let Some(first) = newer.timestamps.first() else { return };
    if older.timestamps.last().is_none_or(|last| last < first) {
        for (i, (at, value)) in newer.timestamps.iter().zip(&newer.values).enumerate() {
            older.push_with(*at, *value, newer.start(i), newer.gap(i));
        }
        return;
    }
    let histograms = std::mem::take(&mut older.histograms);
    let mut before = std::mem::take(older);
    if !before.gaps.is_empty() {
        give_up_gaps(&mut before, &newer.timestamps);
    }
    let (mut i, mut j) = (0, 0);
    loop {
        match (before.timestamps.get(i), newer.timestamps.get(j)) {
            (Some(a), b) if b.is_none_or(|b| a < b) => {
                older.push_with(*a, before.values[i], before.start(i), before.gap(i));
                i += 1;
            }
            (a, Some(b)) => {
                let same = a == Some(b);
                let gap = if same && newer.gap(j).count == 0 { before.gap(i) } else { newer.gap(j) };
                older.push_with(*b, newer.values[j], newer.start(j), gap);
                i += usize::from(same);
                j += 1;
            }
            (_, None) => break,
        }
    }
    older.histograms = histograms;
}

/// Takes out the gaps for which there are samples again: at least as many as were put together.
fn give_up_gaps(older: &mut SeriesSamples, newer: &[i64]) {
    for i in 1..older.gaps.len() {
        let count = older.gaps[i].count;
        if count > 0 {
            let (from, to) = (older.timestamps[i - 1], older.timestamps[i]);
            let inside = newer.partition_point(|at| *at < to) - newer.partition_point(|at| *at <= from);
            if inside as u64 >= count {
                older.gaps[i] = Gap::default();
            }
        }
    }
}

fn overlay_histograms(older: &mut SeriesSamples, newer: &mut SeriesSamples) {
    let Some(first) = newer.histograms.first() else { return };
    if older.histograms.last().is_none_or(|last| last.timestamp < first.timestamp) {
        older.histograms.append(&mut newer.histograms);
        return;
    }
    // A stable sort keeps the older of two at the same time first.
    older.histograms.append(&mut newer.histograms);
    older.histograms.sort_by_key(|h| h.timestamp);
    older.histograms.reverse();
    older.histograms.dedup_by_key(|h| h.timestamp);
    older.histograms.reverse();
}

/// Keeps the float samples at the times that `keep` says.
pub(crate) fn retain_floats(samples: &mut SeriesSamples, keep: impl Fn(i64) -> bool) {
    let mut to = 0;
    for from in 0..samples.timestamps.len() {
        if keep(samples.timestamps[from]) {
            samples.timestamps[to] = samples.timestamps[from];
            samples.values[to] = samples.values[from];
            if !samples.starts.is_empty() {
                samples.starts[to] = samples.starts[from];
            }
            if !samples.gaps.is_empty() {
                samples.gaps[to] = samples.gaps[from];
            }
            to += 1;
        }
    }
    samples.timestamps.truncate(to);
    samples.values.truncate(to);
    samples.starts.truncate(to);
    samples.gaps.truncate(to);
}

/// Takes out what lies in any of the ranges; a gap that one of them touches, ends included, goes as a whole.
pub(crate) fn hide(samples: &mut SeriesSamples, hidden: &[TimeRange]) {
    for i in 1..samples.gaps.len() {
        let way = TimeRange::new(Timestamp(samples.timestamps[i - 1]), Timestamp(samples.timestamps[i]));
        if way.is_some_and(|way| hidden.iter().any(|range| range.overlaps(way))) {
            samples.gaps[i] = Gap::default();
        }
    }
    retain(samples, |at| !hidden.iter().any(|range| range.contains(Timestamp(at))));
    forget_no_gaps(samples);
}

/// Leaves nothing of gaps where there are none.
pub(crate) fn forget_no_gaps(samples: &mut SeriesSamples) {
    if samples.gaps.iter().all(|gap| gap.count == 0) {
        samples.gaps.clear();
    }
}

/// Keeps the samples of both kinds at the times that `keep` says.
fn retain(samples: &mut SeriesSamples, keep: impl Fn(i64) -> bool) {
    retain_floats(samples, &keep);
    samples.histograms.retain(|h| keep(h.timestamp));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_newer_of_two_stays() {
        let mut state = 1_u64;
        let mut random = move |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        for _ in 0..500 {
            let (mut merged, mut model) = (SeriesSamples::default(), BTreeMap::new());
            for _ in 0..3 {
                let mut layer = BTreeMap::new();
                for _ in 0..random(20) {
                    layer.insert(random(30).cast_signed(), (random(5) as f64, random(3).cast_signed()));
                }
                let mut samples = SeriesSamples::default();
                for (at, (value, start)) in &layer {
                    samples.push(*at, *value, *start);
                }
                overlay(&mut merged, &mut samples);
                model.extend(layer);
            }
            let found: Vec<(i64, f64, i64)> = (0..merged.len())
                .map(|i| (merged.timestamps[i], merged.values[i], merged.start(i)))
                .collect();
            assert_eq!(found, model.into_iter().map(|(t, (v, s))| (t, v, s)).collect::<Vec<_>>());
        }
    }
}
