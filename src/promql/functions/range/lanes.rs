//! Sums of short windows, several side by side.
//!
//! An addition waits for the one before it, but not for those of other windows. Each sum is what a loop over its
//! window gives, bit by bit.

use super::window::Window;
use crate::promql::functions::neumaier::Neumaier;

/// The windows that are summed together.
#[derive(Debug)]
pub(super) struct Lanes {
    /// The windows that wait: their step, and their samples.
    waiting: Vec<(usize, usize, usize)>,
}

/// Windows that are summed side by side.
const LANES: usize = 8;

/// What a window's samples add up to, in their order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) sum: Neumaier,
    /// Whether the sum was infinite after any of the samples.
    pub(super) overflowed: bool,
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self { waiting: Vec::with_capacity(LANES) }
    }

    /// Takes a window in; `each` is handed step and sum of those that are done.
    pub(super) fn push(
        &mut self,
        values: &[f64],
        step: usize,
        window: &Window<'_>,
        each: impl FnMut(usize, &[f64], Sum),
    ) {
        self.waiting.push((step, window.first, window.first + window.values.len()));
        if self.waiting.len() == LANES {
            self.finish(values, each);
        }
    }

    /// Sums what still waits.
    pub(super) fn finish(&mut self, values: &[f64], mut each: impl FnMut(usize, &[f64], Sum)) {
        let mut windows: [&[f64]; LANES] = [&[]; LANES];
        for (window, (_, low, high)) in windows.iter_mut().zip(&self.waiting) {
            *window = &values[*low..*high];
        }
        let mut sums = [Sum::default(); LANES];
        if self.waiting.len() == LANES {
            side_by_side(&windows, &mut sums);
        }
        let together = if self.waiting.len() == LANES { shortest(&windows) } else { 0 };
        for (((step, ..), window), sum) in self.waiting.iter().zip(&windows).zip(&mut sums) {
            for value in &window[together..] {
                sum.sum.add(*value);
                sum.overflowed |= sum.sum.sum.is_infinite();
            }
            each(*step, window, *sum);
        }
        self.waiting.clear();
    }
}

fn shortest(windows: &[&[f64]; LANES]) -> usize {
    windows.iter().map(|window| window.len()).min().unwrap_or(0)
}

/// Adds up as many samples of each window as the shortest has; what [`Neumaier::add`] does, without branches.
fn side_by_side(windows: &[&[f64]; LANES], sums: &mut [Sum; LANES]) {
    let together = shortest(windows);
    let windows = windows.map(|window| &window[..together]);
    let (mut sum, mut owed, mut infinite) = ([0.0_f64; LANES], [0.0_f64; LANES], [0.0_f64; LANES]);
    #[expect(clippy::needless_range_loop, reason = "sample by sample, in all windows")]
    for i in 0..together {
        for lane in 0..LANES {
            let value = windows[lane][i];
            let total = sum[lane] + value;
            let sum_is_greater = sum[lane].abs() >= value.abs();
            let greater = if sum_is_greater { sum[lane] } else { value };
            let smaller = if sum_is_greater { value } else { sum[lane] };
            let more = owed[lane] + ((greater - total) + smaller);
            let is_infinite = total.abs() == f64::INFINITY;
            owed[lane] = if is_infinite { 0.0 } else { more };
            infinite[lane] = if is_infinite { 1.0 } else { infinite[lane] };
            sum[lane] = total;
        }
    }
    for (lane, into) in sums.iter_mut().enumerate() {
        let total = Neumaier { sum: sum[lane], compensation: owed[lane] };
        *into = Sum { sum: total, overflowed: infinite[lane] != 0.0 };
    }
}
