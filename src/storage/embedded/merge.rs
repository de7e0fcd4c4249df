//! Samples of one series from several places, as one.

use crate::{
    model::{TimeRange, Timestamp},
    storage::{Between, SeriesSamples},
};

/// Lays newer samples over older ones: at the same time the newer stays, whatever its kind; how many gaps went because a
/// sample at an end of them became another.
pub(crate) fn overlay(older: &mut SeriesSamples, newer: &mut SeriesSamples) -> u64 {
    if newer.is_empty() {
        return 0;
    }
    if older.is_empty() {
        std::mem::swap(older, newer);
        return 0;
    }
    let gone = leave_changed_ends(older, newer);
    if !newer.histograms.is_empty() {
        let hidden = |at| newer.histograms.binary_search_by_key(&at, |h| h.timestamp).is_ok();
        retain_floats(older, |at| !hidden(at));
    }
    if !newer.timestamps.is_empty() {
        older.histograms.retain(|h| newer.timestamps.binary_search(&h.timestamp).is_err());
    }
    overlay_floats(older, newer);
    overlay_gaps(&mut older.gaps, &mut newer.gaps);
    overlay_histograms(older, newer);
    gone
}

/// Takes out the older gaps of which a sample at an end gets other bits, or a histogram in its place: what they say of the
/// way from the one end to the other is not so any more. How many that are.
fn leave_changed_ends(older: &mut SeriesSamples, newer: &SeriesSamples) -> u64 {
    let SeriesSamples { timestamps, values, gaps, .. } = older;
    let before = gaps.len();
    let changed = |at: i64| {
        let bits = |times: &[i64], values: &[f64]| times.binary_search(&at).ok().map(|i| values[i].to_bits());
        let new = bits(&newer.timestamps, &newer.values);
        new.is_some() && new != bits(timestamps, values)
            || newer.histograms.binary_search_by_key(&at, |h| h.timestamp).is_ok()
    };
    gaps.retain(|between| !changed(between.from) && !changed(between.to));
    (before - gaps.len()) as u64
}

fn overlay_floats(older: &mut SeriesSamples, newer: &SeriesSamples) {
    let Some(first) = newer.timestamps.first() else { return };
    if older.timestamps.last().is_none_or(|last| last < first) {
        for (i, (at, value)) in newer.timestamps.iter().zip(&newer.values).enumerate() {
            older.push(*at, *value, newer.start(i));
        }
        return;
    }
    let histograms = std::mem::take(&mut older.histograms);
    let gaps = std::mem::take(&mut older.gaps);
    let before = std::mem::take(older);
    let (mut i, mut j) = (0, 0);
    loop {
        match (before.timestamps.get(i), newer.timestamps.get(j)) {
            (Some(a), b) if b.is_none_or(|b| a < b) => {
                older.push(*a, before.values[i], before.start(i));
                i += 1;
            }
            (a, Some(b)) => {
                older.push(*b, newer.values[j], newer.start(j));
                i += usize::from(a == Some(b));
                j += 1;
            }
            (_, None) => break,
        }
    }
    (older.histograms, older.gaps) = (histograms, gaps);
}

/// Lays newer gaps over older ones: of two that overlap the newer stays.
fn overlay_gaps(older: &mut Vec<Between>, newer: &mut Vec<Between>) {
    if newer.is_empty() {
        return;
    }
    let overlaps = |a: &Between, b: &Between| a.from < b.to && b.from < a.to;
    older.retain(|old| {
        let next = newer.partition_point(|new| new.to <= old.from);
        !newer.get(next).is_some_and(|new| overlaps(old, new))
    });
    older.append(newer);
    older.sort_by_key(|between| between.from);
}

/// Takes out the gaps for which there are samples again, at least as many as were put together, and those of which a
/// sample at an end is gone.
///
/// All samples of the time of a gap have to be there: what counts twice is known by its number alone.
pub(crate) fn settle_gaps(samples: &mut SeriesSamples) {
    let SeriesSamples { timestamps, gaps, .. } = samples;
    if gaps.is_empty() {
        return;
    }
    gaps.retain(|between| match ends_of(timestamps, between) {
        Some((from, to)) => ((to - from - 1) as u64) < between.gap.count,
        None => false,
    });
}

/// The numbers of the samples at the ends of a gap.
pub(crate) fn ends_of(timestamps: &[i64], between: &Between) -> Option<(usize, usize)> {
    let from = timestamps.binary_search(&between.from).ok()?;
    let to = timestamps.binary_search(&between.to).ok()?;
    (from < to).then_some((from, to))
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
            to += 1;
        }
    }
    samples.timestamps.truncate(to);
    samples.values.truncate(to);
    samples.starts.truncate(to);
}

/// Takes out what lies in any of the ranges; a gap that one of them touches, ends included, goes as a whole.
pub(crate) fn hide(samples: &mut SeriesSamples, hidden: &[TimeRange]) {
    samples.gaps.retain(|between| !hidden.iter().any(|range| between.touches(*range)));
    retain(samples, |at| !hidden.iter().any(|range| range.contains(Timestamp(at))));
}

/// Keeps the samples of a range, and those on both sides of a gap that an end of it lies in.
pub(crate) fn trim(samples: &mut SeriesSamples, range: TimeRange) {
    let start = Between::of(&samples.gaps, range.start().0).map_or(range.start().0, |between| between.from);
    let end = Between::of(&samples.gaps, range.end().0).map_or(range.end().0, |between| between.to);
    samples.gaps.retain(|between| start <= between.from && between.to <= end);
    retain(samples, |at| start <= at && at <= end);
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
