//! What is taken over of series with gaps.

use super::*;
use crate::{model::stale_nan, storage::Between};

/// Samples each a second after the other, and gaps of ten between some of them.
fn series(values: &[f64], gaps: &[(i64, i64)]) -> SeriesSamples {
    let mut samples = SeriesSamples::default();
    (0..).zip(values).for_each(|(i, value)| samples.push(i * 1000, *value, 0));
    let gap = Gap { count: 10, sum: 100.0, ..Gap::step(5.0, 15.0) };
    let between = |(from, to): &(i64, i64)| Between { from: from * 1000, to: to * 1000, gap };
    samples.gaps = gaps.iter().map(between).collect();
    samples
}

/// The samples in seconds and, of the gaps before them, how many lay there.
fn loaded(from: &SeriesSamples) -> (Vec<i64>, Vec<u64>, bool) {
    let mut samples = Samples::default();
    samples.load(from, false);
    assert!(samples.gaps.is_empty() || samples.gaps.len() == samples.timestamps.len());
    let seconds = samples.timestamps.iter().map(|at| at / 1000).collect();
    (seconds, samples.gaps.iter().map(|gap| gap.count).collect(), samples.late)
}

#[test]
fn a_gap_goes_with_the_sample_after_it() {
    let samples = series(&[1.0, 2.0, 3.0, 4.0], &[(0, 1), (2, 3)]);
    assert_eq!(loaded(&samples), (vec![0, 1, 2, 3], vec![0, 10, 0, 10], false));
}

#[test]
fn a_gap_goes_with_an_end_that_became_stale() {
    let stale = stale_nan();
    // What is first has no gap, whatever was there before.
    assert_eq!(loaded(&series(&[stale, 2.0, 3.0], &[(0, 1)])), (vec![1, 2], vec![], false));
    assert_eq!(
        loaded(&series(&[1.0, stale, 3.0, 4.0], &[(0, 1), (2, 3)])),
        (vec![0, 2, 3], vec![0, 0, 10], false)
    );
    assert_eq!(
        loaded(&series(&[1.0, 2.0, stale, 4.0], &[(0, 1), (2, 3)])),
        (vec![0, 1, 3], vec![0, 10, 0], false)
    );
}

#[test]
fn what_was_written_into_a_gap_is_part_of_it() {
    let samples = series(&[1.0, 20.0, stale_nan(), -3.0, 4.0, 5.0], &[(0, 4)]);
    let mut taken = Samples::default();
    taken.load(&samples, false);
    assert_eq!((&taken.timestamps[..], taken.late), (&[0, 4000, 5000][..], true));
    let gap = taken.gaps[1];
    assert_eq!((gap.count, gap.sum, gap.min, gap.max), (12, 117.0, -3.0, 20.0));
    assert_eq!(taken.gaps[2].count, 0);
    taken.load(&series(&[1.0, 2.0], &[]), false);
    assert_eq!((taken.gaps.len(), taken.late), (0, false));
}
