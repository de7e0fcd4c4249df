//! Keeps of each window of a series the first sample and the last, and a gap between them.

use super::super::{
    chunk::{digits, undigits},
    merge::ends_of,
};
use crate::{
    model::{Millis, TimeRange, is_stale},
    storage::{Between, Gap, SeriesSamples},
};

/// Neighbours that are farther apart stay both: this long a query looks back for a sample, if nobody says otherwise.
const HOLE: i64 = 5 * 60_000;

/// A gap takes more room than fewer samples.
const LEAST: u64 = 3;

/// Sums of decimals with more digits behind the point are those of floats.
const DIGITS: usize = 9;

/// Keeps of each window `(k·resolution, (k + 1)·resolution]` the first and the last sample of what goes on without
/// interruption; how many samples were put together.
///
/// `hidden` is what was taken out of them: nothing is put together across it, so that it touches no gap and nothing more
/// goes when the samples are read.
pub(crate) fn thin(samples: &mut SeriesSamples, resolution: Millis, hidden: &[TimeRange]) -> u64 {
    // What a histogram between two floats means for either nobody can say in numbers.
    if !samples.histograms.is_empty() || samples.timestamps.len() < 3 || resolution.0 <= 0 {
        return 0;
    }
    let ways = ways(samples, hidden);
    let before = std::mem::take(samples);
    let (mut gone, mut new, mut dropped) = (vec![false; before.gaps.len()], Vec::new(), 0);
    let mut from = 0;
    while from < before.timestamps.len() {
        let mut to = from;
        while to + 1 < before.timestamps.len() && goes_on(&before, ways[to + 1], to, resolution) {
            to += 1;
        }
        let mut keep = |i: usize| samples.push(before.timestamps[i], before.values[i], before.start(i));
        keep(from);
        match joined(&before, &ways, from, to) {
            Some(gap) => {
                keep(to);
                new.push(Between { from: before.timestamps[from], to: before.timestamps[to], gap });
                dropped += (to - from - 1) as u64;
                let joined = ways[from + 1..=to].iter().filter_map(|way| way.gap());
                joined.for_each(|number| gone[number] = true);
            }
            None => (from + 1..=to).for_each(keep),
        }
        from = to + 1;
    }
    let mut gone = gone.into_iter();
    samples.gaps = before.gaps;
    samples.gaps.retain(|_| gone.next() == Some(false));
    samples.gaps.append(&mut new);
    samples.gaps.sort_by_key(|between| between.from);
    dropped
}

/// What is known of the way from one sample to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Nothing lay there.
    Step,
    /// The gap of this number.
    Gap(usize),
    /// It is part of a gap in which samples came later, or something there was taken out.
    Broken,
}

impl Way {
    fn gap(self) -> Option<usize> {
        match self {
            Self::Gap(number) => Some(number),
            Self::Step | Self::Broken => None,
        }
    }
}

/// The ways to each of the samples from the one before; that to the first is one like others.
fn ways(samples: &SeriesSamples, hidden: &[TimeRange]) -> Vec<Way> {
    let mut ways = vec![Way::Step; samples.timestamps.len()];
    for (number, between) in samples.gaps.iter().enumerate() {
        match ends_of(&samples.timestamps, between) {
            Some((from, to)) if to == from + 1 => ways[to] = Way::Gap(number),
            Some((from, to)) => ways[from + 1..=to].fill(Way::Broken),
            None => {}
        }
    }
    for range in hidden {
        let after = samples.timestamps.partition_point(|at| *at < range.start().0);
        if let Some(way) = ways.get_mut(after) {
            *way = Way::Broken;
        }
    }
    ways
}

/// Whether the sample after number `i`, to which there is this way, may be put together with it.
fn goes_on(samples: &SeriesSamples, way: Way, i: usize, resolution: Millis) -> bool {
    let (from, to) = (samples.timestamps[i], samples.timestamps[i + 1]);
    // The end of a window is in it.
    let window = |at: i64| at.saturating_sub(1).div_euclid(resolution.0);
    let near = match way {
        Way::Step => to - from <= HOLE,
        Way::Gap(_) => true,
        Way::Broken => false,
    };
    near && window(from) == window(to)
        && !is_stale(samples.values[i])
        && !is_stale(samples.values[i + 1])
        && samples.start(i) == samples.start(i + 1)
}

/// What lies between two samples as one gap; none if it is to stay as it is.
fn joined(samples: &SeriesSamples, ways: &[Way], from: usize, to: usize) -> Option<Gap> {
    if to < from + 2 {
        return None;
    }
    let gap = |i: usize| ways[i].gap().map(|number| samples.gaps[number].gap);
    let way = |i: usize| gap(i).unwrap_or_else(|| Gap::step(samples.values[i - 1], samples.values[i]));
    let joined = (from + 2..=to).fold(way(from + 1), |before, i| before.then(way(i)));
    if joined.count < LEAST {
        return None;
    }
    let between = samples.values[from + 1..to].iter().copied();
    let gaps = (from + 1..=to).filter_map(gap).map(|gap| gap.sum);
    let parts: Vec<f64> = between.chain(gaps).collect();
    let sum = sum_of(&parts);
    // An infinite sum of finite values says nothing of what it is with those beside it.
    if sum.is_infinite() && parts.iter().all(|part| part.is_finite()) {
        return None;
    }
    Some(Gap { sum, ..joined })
}

/// The sum of values: of short decimals exactly what they add up to, of others with what is rounded off carried along.
fn sum_of(values: &[f64]) -> f64 {
    if let Some(sum) = decimal_sum(values) {
        return sum;
    }
    let (mut sum, mut owed) = (0.0_f64, 0.0_f64);
    for value in values {
        let total = sum + value;
        owed += if sum.abs() >= value.abs() { (sum - total) + value } else { (value - total) + sum };
        sum = total;
    }
    if sum.is_finite() { sum + owed } else { sum }
}

fn decimal_sum(values: &[f64]) -> Option<f64> {
    let mut exponent = 0;
    for value in values {
        while digits(*value, exponent).is_none() {
            exponent += 1;
            if exponent > DIGITS {
                return None;
            }
        }
    }
    let mut sum = 0_i64;
    for value in values {
        sum = sum.checked_add(digits(*value, exponent)?)?;
    }
    // Beyond that not every whole number is a float.
    (sum.unsigned_abs() <= 1 << 53).then(|| undigits(sum, exponent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Timestamp, stale_nan},
        storage::embedded::merge::{hide, overlay},
    };
    use proptest::prelude::*;

    const MINUTE: i64 = 60_000;
    const FIVE: Millis = Millis(5 * MINUTE);

    fn series(of: &[(i64, f64)]) -> SeriesSamples {
        let mut samples = SeriesSamples::default();
        of.iter().for_each(|(at, value)| samples.push(*at, *value, 0));
        samples
    }

    fn kept(samples: &SeriesSamples) -> Vec<i64> {
        samples.timestamps.clone()
    }

    #[test]
    fn the_first_and_last_of_each_window_stay() {
        let all: Vec<(i64, f64)> = (0..41).map(|i| (i * 15_000, i as f64)).collect();
        let mut samples = series(&all);
        assert_eq!(thin(&mut samples, FIVE, &[]), 36);
        // The end of a window is in it.
        assert_eq!(kept(&samples), [0, 15_000, 300_000, 315_000, 600_000]);
        let gap = samples.gaps[0].gap;
        let sum: i32 = (2..20).sum();
        let expect =
            Gap { count: 18, sum: f64::from(sum), min: 1.0, max: 20.0, lost: 0.0, resets: 0, changes: 19 };
        assert_eq!(gap, expect);
        let ends: Vec<(i64, i64)> = samples.gaps.iter().map(|between| (between.from, between.to)).collect();
        assert_eq!(ends, [(15_000, 300_000), (315_000, 600_000)]);
    }

    #[test]
    fn what_a_gap_cannot_say_stays() {
        let few: Vec<(i64, f64)> = (1..=4).map(|i| (i * MINUTE, 1.0)).collect();
        assert_eq!(thin(&mut series(&few), FIVE, &[]), 0, "too few");
        let hour = Millis(60 * MINUTE);
        let mut with_hole: Vec<(i64, f64)> = (1..=50).map(|i| (i * MINUTE, 1.0)).collect();
        with_hole.drain(20..25);
        let mut samples = series(&with_hole);
        thin(&mut samples, hour, &[]);
        assert_eq!(kept(&samples), [1, 20, 26, 50].map(|m| m * MINUTE));
        let mut ended: Vec<(i64, f64)> = (1..=50).map(|i| (i * MINUTE, 1.0)).collect();
        ended[29].1 = stale_nan();
        let mut samples = series(&ended);
        thin(&mut samples, hour, &[]);
        assert_eq!(kept(&samples), [1, 29, 30, 31, 50].map(|m| m * MINUTE));
        assert!(is_stale(samples.values[2]));
        let mut began_again = SeriesSamples::default();
        (1..=50).for_each(|i| began_again.push(i * MINUTE, 1.0, if i < 20 { 1 } else { 2 }));
        thin(&mut began_again, hour, &[]);
        assert_eq!(kept(&began_again), [1, 19, 20, 50].map(|m| m * MINUTE));
        let huge: Vec<(i64, f64)> = (1..=50).map(|i| (i * MINUTE, f64::MAX)).collect();
        assert_eq!(thin(&mut series(&huge), hour, &[]), 0, "a sum beyond floats");
    }

    #[test]
    fn nothing_is_put_together_across_what_was_taken_out() {
        let all: Vec<(i64, f64)> =
            (1..=60).map(|i| (i * MINUTE, f64::from(i32::try_from(i).unwrap()))).collect();
        let hour = Millis(60 * MINUTE);
        let range = |from: i64, to: i64| TimeRange::new(Timestamp(from), Timestamp(to)).unwrap();
        // Some samples, and a moment between two.
        let hidden = [range(20 * MINUTE, 22 * MINUTE), range(40 * MINUTE + 1, 40 * MINUTE + 2)];
        let mut samples = series(&all);
        hide(&mut samples, &hidden);
        assert_eq!(thin(&mut samples, hour, &hidden), 51);
        assert_eq!(kept(&samples), [1, 19, 23, 40, 41, 60].map(|m| m * MINUTE));
        let before = samples.clone();
        hide(&mut samples, &hidden);
        assert_eq!(samples, before, "nothing more goes");
    }

    #[test]
    fn a_gap_with_later_samples_in_it_stays_as_it_is() {
        let all: Vec<(i64, f64)> = (1..=60).map(|i| (i * MINUTE, 1.0)).collect();
        let mut samples = series(&all);
        thin(&mut samples, FIVE, &[]);
        assert_eq!(samples.gaps.len(), 12);
        let mut late = series(&[(7 * MINUTE + 1, 5.0)]);
        overlay(&mut samples, &mut late);
        thin(&mut samples, Millis(60 * MINUTE), &[]);
        assert_eq!(kept(&samples), [60_000, 360_000, 420_001, 600_000, 3_600_000]);
        let ends: Vec<(i64, i64)> = samples.gaps.iter().map(|b| (b.from / MINUTE, b.to / MINUTE)).collect();
        assert_eq!(ends, [(1, 6), (6, 10), (10, 60)]);
    }

    #[test]
    fn decimals_add_up_to_decimals() {
        assert_eq!(sum_of(&[0.1; 10]).to_bits(), 1.0_f64.to_bits());
        assert_eq!(sum_of(&[1e100, 1.0, -1e100]), 1.0);
        assert!(sum_of(&[1.0, f64::NAN]).is_nan());
        assert_eq!(sum_of(&[1.0, f64::INFINITY]), f64::INFINITY);
    }

    /// Everything a gap says, by a loop over all samples.
    fn folded(raw: &[(i64, f64)], from: i64, to: i64) -> Gap {
        let way: Vec<f64> = raw.iter().filter(|(at, _)| from <= *at && *at <= to).map(|(_, v)| *v).collect();
        let between = &way[1..way.len() - 1];
        let pairs = || way.windows(2).map(|pair| (pair[0], pair[1]));
        Gap {
            count: between.len() as u64,
            sum: between.iter().sum(),
            min: way.iter().copied().reduce(f64::min).unwrap(),
            max: way.iter().copied().reduce(f64::max).unwrap(),
            lost: pairs().filter(|(a, b)| b < a).map(|(a, _)| a).sum(),
            resets: pairs().filter(|(a, b)| b < a).count() as u64,
            changes: pairs().filter(|(a, b)| a != b && !(a.is_nan() && b.is_nan())).count() as u64,
        }
    }

    fn near(a: f64, b: f64) -> bool {
        (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
    }

    proptest! {
        #[test]
        fn a_gap_is_the_fold_over_what_it_stands_for(
            steps in prop::collection::vec((1_i64..100, prop_oneof![
                8 => (-50_i64..50).prop_map(|n| n as f64 / 4.0),
                1 => Just(f64::NAN),
                1 => Just(stale_nan()),
                1 => any::<f64>().prop_filter("tame", |v| v.abs() < 1e100),
            ]), 0..400),
            coarse in prop_oneof![Just(5_i64), Just(20), Just(60)],
            twice in any::<bool>(),
        ) {
            let mut at = 0;
            let raw: Vec<(i64, f64)> = steps.iter().map(|(step, value)| {
                at += step * 1000;
                (at, *value)
            }).collect();
            let mut samples = series(&raw);
            let mut dropped = 0;
            if twice {
                dropped += thin(&mut samples, FIVE, &[]);
            }
            dropped += thin(&mut samples, Millis(coarse * MINUTE), &[]);
            let in_gaps: u64 = samples.gaps.iter().map(|between| between.gap.count).sum();
            prop_assert_eq!(in_gaps, dropped);
            prop_assert_eq!(samples.timestamps.len() as u64 + dropped, raw.len() as u64);
            for Between { from, to, gap } in &samples.gaps {
                prop_assert_eq!(ends_of(&samples.timestamps, &samples.gaps[0]).map(|(a, b)| b - a), Some(1));
                let expect = folded(&raw, *from, *to);
                prop_assert_eq!((gap.count, gap.resets, gap.changes), (expect.count, expect.resets, expect.changes));
                prop_assert!(near(gap.min, expect.min) && near(gap.max, expect.max), "{gap:?} {expect:?}");
                prop_assert!(near(gap.sum, expect.sum) && near(gap.lost, expect.lost), "{gap:?} {expect:?}");
            }
            for (at, value) in samples.timestamps.iter().zip(&samples.values) {
                prop_assert!(raw.iter().any(|(t, v)| t == at && v.to_bits() == value.to_bits()));
            }
            // Nothing is gained by doing it again.
            let again = samples.clone();
            prop_assert_eq!(thin(&mut samples, Millis(coarse * MINUTE), &[]), 0);
            prop_assert_eq!(samples.timestamps, again.timestamps);
        }
    }
}
