//! Where samples are evenly apart and on a line, what is estimated is what it was: every window shows it.

use super::*;
use crate::promql::{exec::rows::Steps, functions::range::Windows, parse::Span};

const APART: i64 = 15_000;
/// Samples of a window: the first and the last of them are kept.
const TOGETHER: usize = 20;

/// A series as it was, and what is kept of it.
struct Both {
    raw: (Vec<i64>, Vec<f64>),
    kept: (Vec<i64>, Vec<f64>),
    gaps: Vec<Gap>,
}

fn both(value: impl Fn(i64) -> f64) -> Both {
    let raw: Vec<(i64, f64)> = (0..200).map(|i| (i * APART, value(i))).collect();
    let (mut kept, mut gaps) = (Vec::new(), Vec::new());
    for group in raw.chunks(TOGETHER) {
        let (first, last) = (group[0], group[group.len() - 1]);
        let way = |pair: &[(i64, f64)]| Gap::step(pair[0].1, pair[1].1);
        let gap = group.windows(2).map(way).reduce(Gap::then).unwrap();
        let sum = group[1..group.len() - 1].iter().map(|(_, value)| value).sum();
        kept.extend([first, last]);
        gaps.extend([Gap::default(), Gap { sum, ..gap }]);
    }
    Both { raw: raw.into_iter().unzip(), kept: kept.into_iter().unzip(), gaps }
}

/// Windows that end anywhere.
const ANYWHERE: Steps = Steps { start: 0, step: 7_001, count: 430 };

/// One value per step, and whether it is said to be estimated.
fn values(
    samples: &(Vec<i64>, Vec<f64>),
    gaps: Option<&[Gap]>,
    function: RangeFunction,
    (steps, range_ms): (Steps, i64),
    edges: Edges,
) -> (Vec<f64>, bool) {
    let windows = Windows::Moving { offset_ms: 0 };
    let input = RangeInput {
        timestamps: &samples.0,
        values: &samples.1,
        starts: &[],
        histograms: &[],
        histogram_starts: &[],
        steps,
        windows,
        range_ms,
        edges,
        frame: &Frame::of(&samples.0, steps, windows, range_ms, edges),
        params: &[],
        metric_name: "m",
        type_label: None,
        span: Span::default(),
        param_span: Span::default(),
    };
    let (mut row, mut notes) = (Row::absent(steps.count), Annotations::default());
    match gaps {
        None => evaluate_kept(function, &input, &mut row, &mut notes).unwrap(),
        Some(before) => {
            let gaps = Gaps { before, late: false };
            evaluate(function, &input, gaps, &mut || Ok(()), &mut row, &mut notes).unwrap();
        }
    }
    (row.floats, notes.render("m").1.iter().any(|info| info.contains("downsampled")))
}

/// What is given of all samples and of what is kept, and whether that is said to be estimated.
fn evaluated(
    both: &Both,
    function: RangeFunction,
    range_ms: i64,
    edges: Edges,
) -> (Vec<f64>, Vec<f64>, bool) {
    let (raw, _) = values(&both.raw, None, function, (ANYWHERE, range_ms), edges);
    let (kept, told) = values(&both.kept, Some(&both.gaps), function, (ANYWHERE, range_ms), edges);
    (raw, kept, told)
}

#[test]
fn windows_that_cut_gaps_are_estimated_well() {
    use RangeFunction as F;
    let line = both(|i| 10.0 * i as f64);
    for range in [20_000, 45_000, 100_000, 300_000, 777_777] {
        for function in [
            F::Rate,
            F::Increase,
            F::Delta,
            F::Irate,
            F::Idelta,
            F::CountOverTime,
            F::PresentOverTime,
            F::Changes,
            F::Resets,
        ] {
            let (raw, kept, told) = evaluated(&line, function, range, Edges::Plain);
            for (step, (raw, kept)) in raw.iter().zip(&kept).enumerate() {
                let same = raw.to_bits() == kept.to_bits() || (raw - kept).abs() <= 1e-9 * raw.abs();
                assert!(same, "{function:?} of {range} ms at step {step}: {raw} {kept}");
            }
            assert_eq!(told, function != F::PresentOverTime, "{function:?}");
        }
    }
}

#[test]
fn no_peak_is_missed_and_none_is_made_up() {
    use RangeFunction as F;
    let saw = both(|i| ((i * 7) % 31) as f64);
    for range in [20_000, 100_000, 777_777] {
        for (function, sign) in [(F::MaxOverTime, 1.0), (F::MinOverTime, -1.0)] {
            let (raw, kept, _) = evaluated(&saw, function, range, Edges::Plain);
            for (raw, kept) in raw.iter().zip(&kept).filter(|(raw, _)| !raw.is_nan()) {
                assert!(sign * kept >= sign * raw && (0.0..31.0).contains(kept), "{function:?} {raw} {kept}");
            }
        }
    }
}

#[test]
fn whatever_is_asked_there_is_something_where_there_were_samples() {
    use RangeFunction as F;
    let saw = both(|i| ((i * 7) % 31) as f64);
    for function in [
        F::Deriv,
        F::StddevOverTime,
        F::MadOverTime,
        F::FirstOverTime,
        F::LastOverTime,
        F::TsOfMaxOverTime,
        F::TsOfMinOverTime,
        F::TsOfFirstOverTime,
        F::SumOverTime,
        F::AvgOverTime,
    ] {
        let (raw, kept, told) = evaluated(&saw, function, 40_000, Edges::Plain);
        let missing = raw.iter().zip(&kept).position(|(raw, kept)| !raw.is_nan() && kept.is_nan());
        assert_eq!(missing, None, "{function:?}");
        assert!(told, "{function:?}");
    }
}

#[test]
fn a_counter_that_fell_in_a_gap_has_grown_as_much() {
    let falls = both(|i| if i < 50 { i as f64 } else { (i - 50) as f64 });
    // From the first sample of a group to the last of another: nothing is cut.
    let (first, last) = (TOGETHER as i64 * APART, (4 * TOGETHER as i64 - 1) * APART);
    let window = (Steps { start: last, step: 1, count: 1 }, last - first + 1);
    let value = |samples, gaps, function| values(samples, gaps, function, window, Edges::Plain).0[0];
    for function in
        [RangeFunction::Increase, RangeFunction::Rate, RangeFunction::Resets, RangeFunction::Delta]
    {
        let (raw, kept) =
            (value(&falls.raw, None, function), value(&falls.kept, Some(&falls.gaps), function));
        assert_eq!(raw.to_bits(), kept.to_bits(), "{function:?}");
    }
}

#[test]
fn windows_that_look_beyond_their_edges_and_cut_gaps_are_estimated_well() {
    use RangeFunction as F;
    const LOOKBACK: i64 = 300_000;
    let line = both(|i| 10.0 * i as f64);
    for range in [20_000, 100_000, 777_777] {
        for function in [F::Rate, F::Increase, F::Delta] {
            let (raw, kept, told) = evaluated(&line, function, range, Edges::Smoothed(LOOKBACK));
            for (step, (raw, kept)) in raw.iter().zip(&kept).enumerate() {
                let same = raw.to_bits() == kept.to_bits() || (raw - kept).abs() <= 1e-9 * raw.abs().max(1.0);
                assert!(same, "{function:?} of {range} ms at step {step}: {raw} {kept}");
            }
            assert!(told);
        }
        for function in [F::Increase, F::Delta] {
            // The sample before an edge is not known, only that the one after it is 10 more.
            let (raw, kept, told) = evaluated(&line, function, range, Edges::Anchored(LOOKBACK));
            for (step, (raw, kept)) in raw.iter().zip(&kept).enumerate() {
                let near = (raw.is_nan() && kept.is_nan()) || (raw - kept).abs() <= 10.0 + 1e-9;
                assert!(near, "{function:?} of {range} ms at step {step}: {raw} {kept}");
            }
            assert!(told);
        }
    }
}

#[test]
fn of_a_gap_that_an_edge_cuts_the_share_counts_that_lies_in_the_window() {
    use RangeFunction as F;
    // Samples 40 to 59 are a gap and its ends, of 40 and 9; in it 49 were lost, in one reset and 19 changes.
    let falls = both(|i| if i < 50 { i as f64 } else { (i - 50) as f64 });
    let half = 19 * APART / 2;
    for (edges, from, until, function, expected) in [
        // On a line from 40 to 9, half of it is at 24.5; half of what was lost comes to that.
        (Edges::Anchored(300_000), 40 * APART, 40 * APART + half, F::Increase, 9.0),
        (Edges::Anchored(300_000), 40 * APART, 40 * APART + half, F::Resets, 0.5),
        (Edges::Anchored(300_000), 40 * APART, 40 * APART + half, F::Changes, 9.5),
        (Edges::Anchored(300_000), 40 * APART, 40 * APART + half, F::Delta, -15.5),
        (Edges::Smoothed(300_000), 40 * APART + half, 59 * APART, F::Increase, 9.0),
        (Edges::Smoothed(300_000), 40 * APART + half, 59 * APART, F::Delta, -15.5),
        // Both edges in the same gap.
        (Edges::Smoothed(300_000), 40 * APART + half / 2, 40 * APART + half, F::Increase, 4.5),
        // From a quarter of the gap before, where 20 to 39 are on a line, up to half of this one.
        (Edges::Smoothed(300_000), 20 * APART + half / 2, 40 * APART + half, F::Increase, 24.25),
    ] {
        let window = (Steps { start: until, step: 1, count: 1 }, until - from);
        let (found, told) = values(&falls.kept, Some(&falls.gaps), function, window, edges);
        assert!((found[0] - expected).abs() < 1e-9, "{function:?} {edges:?}: {} {expected}", found[0]);
        assert!(told, "{function:?} {edges:?}");
    }
}
