//! Windows of many samples, which are put together of parts.

use super::*;

const FUNCTIONS: [&str; 8] = [
    "sum_over_time",
    "avg_over_time",
    "stddev_over_time",
    "quantile_over_time",
    "mad_over_time",
    "deriv",
    "predict_linear",
    "stdvar_over_time",
];

/// Samples some seconds apart, mostly tame.
fn many(wild: bool) -> impl Strategy<Value = Vec<(i64, f64)>> {
    let value = prop_oneof![
        60 => (0..1_000_000_u32).prop_map(|v| f64::from(v) / 100.0),
        10 => Just(7.5),
        5 => Just(-0.0),
        1 => prop_oneof![Just(NAN), Just(INF), Just(-INF), Just(1e300), Just(f64::MAX)]
            .prop_map(move |v| if wild { v } else { 3.0 }),
    ];
    prop::collection::vec((1..20_000_i64, value), 100..700).prop_map(|gaps| {
        let times = gaps.iter().scan(0, |t, (gap, _)| {
            *t += gap;
            Some(*t)
        });
        times.zip(gaps.iter().map(|(_, v)| *v)).collect()
    })
}

fn series(samples: &[(i64, f64)]) -> Series {
    Series {
        timestamps: samples.iter().map(|(t, _)| *t).collect(),
        values: samples.iter().map(|(_, v)| *v).collect(),
        ..Series::default()
    }
}

/// The median.
fn median(mut values: Vec<f64>) -> f64 {
    quantile(0.5, &mut values)
}

/// What a loop in no hurry gives.
fn expected(function: &str, q: f64, window: &[(i64, f64)], end: i64) -> f64 {
    let n = window.len() as f64;
    let sum = |of: &dyn Fn(f64, f64) -> f64| {
        let mut sum = Neumaier::default();
        window.iter().for_each(|(t, v)| sum.add(of((*t - window[0].0) as f64 / 1000.0, *v)));
        sum.corrected()
    };
    let mean = sum(&|_, v| v) / n;
    let variance = sum(&|_, v| (v - mean) * (v - mean)) / n;
    let mean_time = sum(&|x, _| x) / n;
    let slope = sum(&|x, v| (x - mean_time) * (v - mean)) / sum(&|x, _| (x - mean_time) * (x - mean_time));
    match function {
        "sum_over_time" => n * mean,
        "avg_over_time" => mean,
        "stddev_over_time" => variance.sqrt(),
        "stdvar_over_time" => variance,
        "deriv" => slope,
        "predict_linear" => mean + slope * ((end - window[0].0) as f64 / 1000.0 + q - mean_time),
        "mad_over_time" => {
            let middle = median(window.iter().map(|(_, v)| *v).collect());
            median(window.iter().map(|(_, v)| (v - middle).abs()).collect())
        }
        _ => {
            let mut sorted: Vec<f64> = window.iter().map(|(_, v)| *v).collect();
            quantile(q, &mut sorted)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_window_s_value_does_not_depend_on_the_others(
        samples in many(true),
        start in 0..3_000_000_i64,
        step in 1..60_000_i64,
        range in 300_000..4_000_000_i64,
        q in 0.0..1.0_f64,
    ) {
        let series = series(&samples);
        let params = [q; 40];
        let steps = Steps { start, step, count: 40 };
        let input =
            RangeInput { steps, range_ms: range, params: &[&params], ..series.input(0, 1) };
        for function in FUNCTIONS {
            let (all, _) = run(function, &input);
            for i in 0..steps.count {
                let alone = Steps { start: steps.at(i), step: 0, count: 1 };
                let (one, _) = run(function, &RangeInput { steps: alone, ..input });
                let bits = |v: f64| if v.is_nan() && !is_absent(v) { 1 } else { v.to_bits() };
                prop_assert_eq!(bits(all.floats[i]), bits(one.floats[0]), "{} at {}", function, i);
            }
        }
    }

    #[test]
    fn parts_give_what_a_loop_gives(
        samples in many(false),
        start in 0..3_000_000_i64,
        step in 1..60_000_i64,
        range in 300_000..4_000_000_i64,
        q in 0.0..1.0_f64,
    ) {
        let series = series(&samples);
        let params = [q; 40];
        let steps = Steps { start, step, count: 40 };
        let input =
            RangeInput { steps, range_ms: range, params: &[&params], ..series.input(0, 1) };
        for function in FUNCTIONS {
            let (row, _) = run(function, &input);
            for i in 0..steps.count {
                let (end, after) = (steps.at(i), steps.at(i) - range);
                let window: Vec<(i64, f64)> =
                    samples.iter().copied().filter(|(t, _)| after < *t && *t <= end).collect();
                if window.len() < 10 {
                    continue;
                }
                let expected = expected(function, q, &window, end);
                let got = row.floats[i];
                let off = (got - expected).abs();
                prop_assert!(off <= 1e-9 * expected.abs() + 1e-7, "{function} at {i}: {got}, not {expected}");
            }
        }
    }
}

#[test]
fn a_constant_has_no_spread_and_no_slope() {
    let samples: Vec<(i64, f64)> = (0..500).map(|i| (i * 15_000, 0.1)).collect();
    let series = series(&samples);
    let steps = Steps { start: 3_000_000, step: 60_000, count: 20 };
    let input = RangeInput { steps, range_ms: 2_000_000, ..series.input(0, 1) };
    for (function, expected) in
        [("stddev_over_time", 0.0), ("deriv", 0.0), ("avg_over_time", 0.1), ("mad_over_time", 0.0)]
    {
        assert_eq!(run(function, &input).0.floats, vec![expected; 20], "{function}");
    }
}

#[test]
fn negative_zeros_have_the_mean_that_a_loop_gives() {
    for count in [3, 300] {
        let samples: Vec<(i64, f64)> = (0..count).map(|i| (i * 1000, -0.0)).collect();
        let series = series(&samples);
        // The last product of the loop is 0 / n, and −0 + 0 is 0.
        let (row, _) = run("avg_over_time", &series.input(count, count + 1));
        assert_eq!(row.floats[0].to_bits(), 0.0_f64.to_bits(), "{count}");
    }
}

#[test]
fn infinities_far_from_the_median_are_infinitely_far_away() {
    let mut samples: Vec<(i64, f64)> = (0..300).map(|i| (i * 1000, (i * 37 % 101) as f64)).collect();
    (samples[10].1, samples[20].1, samples[30].1) = (INF, -INF, INF);
    let series = series(&samples);
    let steps = Steps { start: 299_000, step: 1, count: 40 };
    let input = RangeInput { steps, range_ms: 300_000, ..series.input(0, 1) };
    let values: Vec<f64> = samples.iter().map(|(_, v)| *v).collect();
    let middle = median(values.clone());
    let expected = median(values.iter().map(|v| (v - middle).abs()).collect());
    assert_eq!(run("mad_over_time", &input).0.floats, vec![expected; 40]);
}

#[test]
fn a_sum_that_overflows_on_its_way_stays_infinite() {
    let mut samples: Vec<(i64, f64)> = (0..300).map(|i| (i * 1000, 1.0)).collect();
    samples[100].1 = f64::MAX;
    samples[101].1 = f64::MAX;
    samples[102].1 = -f64::MAX;
    let series = series(&samples);
    for (end, expected) in [(250_000, INF), (299_000, 100.0)] {
        let steps = Steps { start: end, step: 0, count: 1 };
        let range_ms = if end == 250_000 { 200_000 } else { 100_000 };
        let input = RangeInput { steps, range_ms, ..series.input(0, 1) };
        assert_eq!(run("sum_over_time", &input).0.floats, [expected]);
    }
}
