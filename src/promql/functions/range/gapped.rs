//! Functions over samples of which some were put together ([`Gap`]).
//!
//! ```text
//! kept      ●───────●  ●───────●  ●───────●
//! window       (                    ]
//!              └ cut ┘ └─ whole ┘ └c┘
//! ```
//!
//! * A gap that lies in the window with both samples beside it counts as what it stands for: counts, extremes, changes and
//!   resets are what they are of all samples, sums and growth but for the order of rounding. So is all that a window
//!   gives whose edges are multiples of the resolution: there no gap is cut.
//! * Of a gap that an edge of the window cuts, what is within is taken as if its samples were evenly apart and on a line: a
//!   share of its count, sum, growth, changes and resets; but the extremes of all of it, so that no peak is missed. Such a
//!   result is an estimate, and the answer says so.
//! * `first_over_time` and `last_over_time` and the times of both give real samples: the ones that are kept, and the one
//!   before a gap for all of a window within it.
//! * Windows with edges that are `anchored` or `smoothed` are [`edged`]: what was between two of the samples that are kept
//!   counts in full there, too, such as resets.
//! * What cannot be said of gaps, such as a quantile, is computed of the samples that are kept, in windows that
//!   reach to both sides of a gap they cut. The answer says that, too.

mod edged;
mod window;

use super::{
    Edges, Frame, RangeFunction, RangeInput, Remarks, evaluate as evaluate_kept,
    pick::seconds,
    rate::{self, Stretch},
};
use crate::{
    promql::{
        QueryError,
        annotations::{self, Annotations},
        exec::rows::Row,
        functions::neumaier::Neumaier,
    },
    storage::{
        Gap,
        gap::{greatest, least},
    },
};
use edged::Edged;
use window::{Point, View, float};

/// Samples in windows that are looked at between two looks at whether anybody still waits.
const SLICE: usize = 1 << 20;

/// What was put together before each float sample of a series.
#[derive(Clone, Copy, Debug)]
pub struct Gaps<'a> {
    /// One for each sample.
    pub before: &'a [Gap],
    /// Whether samples were written into one of them later.
    pub late: bool,
}

/// Evaluates over all steps into `out`, as [`evaluate`](super::evaluate) does. There are no histograms. `check` fails if
/// nobody waits any more.
pub fn evaluate(
    function: RangeFunction,
    input: &RangeInput<'_>,
    gaps: Gaps<'_>,
    check: &mut dyn FnMut() -> Result<(), QueryError>,
    out: &mut Row,
    notes: &mut Annotations,
) -> Result<(), QueryError> {
    let Gaps { before: gaps, late } = gaps;
    debug_assert_eq!(input.timestamps.len(), gaps.len(), "a gap before each sample");
    let answer = Answer::of(function).filter(|answer| input.edges == Edges::Plain || answer.looks_beyond());
    let Some(answer) = answer else {
        check()?;
        let mut frame = Frame::of(input.timestamps, input.steps, input.windows, input.range_ms, input.edges);
        frame.round_out(|at| gaps.get(at).is_some_and(|gap| gap.count > 0));
        notes.info(annotations::downsampled_kept(input.metric_name), input.span);
        return evaluate_kept(function, &RangeInput { frame: &frame, ..*input }, out, notes);
    };
    let (mut remarks, mut estimated, mut seen) = (Remarks::default(), late, 0);
    for (step, bounds) in input.frame.bounds().iter().enumerate() {
        seen += bounds.1 - bounds.0;
        if seen > SLICE {
            check()?;
            seen = 0;
        }
        let value = if input.edges == Edges::Plain {
            let view = View::of(input, gaps, step, *bounds);
            if view.count() == 0 { None } else { answer.of_window(input, &view) }
        } else {
            Edged::of(input, gaps, step).and_then(|edged| answer.of_edged(&edged))
        };
        if let Some((value, is_estimate)) = value {
            out.floats[step] = value;
            estimated |= is_estimate;
            remarks.float_from_counter |= answer.is_about_counters();
        }
    }
    remarks.write(input, notes);
    if estimated {
        notes.info(annotations::downsampled_estimate(input.metric_name), input.span);
    }
    Ok(())
}

/// What gaps can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Growth(rate::Kind),
    /// Of the last two samples: true is per second, and of a counter.
    Latest(bool),
    Changes,
    Resets,
    Count,
    Present,
    Sum,
    Avg,
    Min,
    Max,
    TimeOfMin,
    TimeOfMax,
    First,
    Last,
    TimeOfFirst,
    TimeOfLast,
}

impl Answer {
    fn of(function: RangeFunction) -> Option<Self> {
        use RangeFunction as F;
        Some(match function {
            F::Rate => Self::Growth(rate::Kind::Rate),
            F::Increase => Self::Growth(rate::Kind::Increase),
            F::Delta => Self::Growth(rate::Kind::Delta),
            F::Irate => Self::Latest(true),
            F::Idelta => Self::Latest(false),
            F::Changes => Self::Changes,
            F::Resets => Self::Resets,
            F::CountOverTime => Self::Count,
            F::PresentOverTime => Self::Present,
            F::SumOverTime => Self::Sum,
            F::AvgOverTime => Self::Avg,
            F::MinOverTime => Self::Min,
            F::MaxOverTime => Self::Max,
            F::TsOfMinOverTime => Self::TimeOfMin,
            F::TsOfMaxOverTime => Self::TimeOfMax,
            F::FirstOverTime => Self::First,
            F::LastOverTime => Self::Last,
            F::TsOfFirstOverTime => Self::TimeOfFirst,
            F::TsOfLastOverTime => Self::TimeOfLast,
            F::Deriv
            | F::PredictLinear
            | F::DoubleExponentialSmoothing
            | F::StddevOverTime
            | F::StdvarOverTime
            | F::MadOverTime
            | F::QuantileOverTime => return None,
        })
    }

    fn is_about_counters(self) -> bool {
        matches!(self, Self::Growth(rate::Kind::Rate | rate::Kind::Increase))
    }

    /// Whether there are windows of it that look beyond their edges.
    fn looks_beyond(self) -> bool {
        matches!(self, Self::Growth(_) | Self::Changes | Self::Resets)
    }

    /// The value for such a window, and whether it is an estimate.
    fn of_edged(self, edged: &Edged<'_>) -> Option<(f64, bool)> {
        match self {
            Self::Growth(kind) => edged.growth(kind),
            Self::Changes => Some(edged.changes()),
            Self::Resets => Some(edged.resets()),
            Self::Latest(_)
            | Self::Count
            | Self::Present
            | Self::Sum
            | Self::Avg
            | Self::Min
            | Self::Max
            | Self::TimeOfMin
            | Self::TimeOfMax
            | Self::First
            | Self::Last
            | Self::TimeOfFirst
            | Self::TimeOfLast => None,
        }
    }

    /// The value for a window that is not empty, if it has one, and whether it is an estimate.
    fn of_window(self, input: &RangeInput<'_>, view: &View<'_>) -> Option<(f64, bool)> {
        let cut = view.is_cut();
        Some(match self {
            Self::Growth(kind) => (growth(kind, input, view)?, cut),
            Self::Latest(per_second) => latest(per_second, input, view)?,
            Self::Changes => (events(view, |way| way.changes, |_| false), cut),
            Self::Resets => (events(view, |way| way.resets, |i| started_again(input, i)), cut),
            Self::Count => (float(view.count()), cut),
            Self::Present => (1.0, false),
            Self::Sum => (total(view), cut),
            Self::Avg => (mean(view), cut),
            Self::Min => (extreme(view, |gap| gap.min, least), cut),
            Self::Max => (extreme(view, |gap| gap.max, greatest), cut),
            Self::TimeOfMin => time_of_extreme(view, |gap| gap.min, |new, old| new < old),
            Self::TimeOfMax => time_of_extreme(view, |gap| gap.max, |new, old| new > old),
            Self::First => (view.values[view.oldest()], !view.begins_with_kept()),
            Self::Last => (view.values[view.newest()], !view.ends_with_kept()),
            Self::TimeOfFirst => (seconds(view.times[view.oldest()]), !view.begins_with_kept()),
            Self::TimeOfLast => (seconds(view.times[view.newest()]), !view.ends_with_kept()),
        })
    }
}

fn started_again(input: &RangeInput<'_>, i: usize) -> bool {
    !input.starts.is_empty() && rate::started_again(input.timestamps, input.starts, i)
}

/// How much the series grew, stretched to the edges of the window.
fn growth(kind: rate::Kind, input: &RangeInput<'_>, view: &View<'_>) -> Option<f64> {
    let (first, last) = (view.first(), view.last());
    // Of a first sample that is not kept nobody knows when its counter started; nor did that change within a gap.
    let start = input.starts.get(view.low).filter(|start| {
        let known = kind.is_counter() && view.begins_with_kept() && view.low < view.high;
        known && **start != 0 && view.after < **start && **start < first.time
    });
    if view.count() < 2 && start.is_none() {
        return None;
    }
    let mut grown = 0.0;
    if !kind.is_counter() {
        grown = last.value - first.value;
    } else if view.low < view.high {
        let (first, last) = (view.values[view.low], view.values[view.high - 1]);
        grown = if start.is_some() { last } else { last - first };
    }
    if kind.is_counter() {
        for (i, way) in view.ways() {
            if way.lost != 0.0 {
                grown += way.lost;
            } else if way.count == 0 && started_again(input, i) {
                grown += view.values[i - 1];
            }
        }
        for (cut, share) in view.shares() {
            grown += cut.gap.growth(cut.from.value, cut.to.value) * share;
        }
    }
    let zero = (kind.is_counter() && start.is_none() && grown > 0.0 && first.value >= 0.0)
        .then(|| first.value / grown);
    let stretch =
        Stretch::between([first.time, last.time], view.count(), start.copied(), view.after, view.until);
    Some(grown * stretch.factor(kind, input.range_ms, zero))
}

/// The difference of the last two samples; where one of them is not kept, that of two neighbours in the gap on average.
fn latest(per_second: bool, input: &RangeInput<'_>, view: &View<'_>) -> Option<(f64, bool)> {
    if view.count() < 2 {
        return None;
    }
    if let Some(cut) = view.latest_gap() {
        let ways = float(cut.gap.count + 1);
        let apart = seconds(cut.to.time - cut.from.time);
        let grown = cut.gap.growth(cut.from.value, cut.to.value);
        let value = if per_second { grown / apart } else { (cut.to.value - cut.from.value) / ways };
        return Some((value, true));
    }
    let i = view.high - 1;
    let (before, last) = (view.values[i - 1], view.values[i]);
    let reset = per_second && (last < before || started_again(input, i));
    let grown = if reset { last } else { last - before };
    let apart = seconds(view.times[i] - view.times[i - 1]);
    Some((if per_second { grown / apart } else { grown }, false))
}

/// How often something happened between neighbours; `else_at` says it of those that the way says nothing of.
fn events(view: &View<'_>, count: impl Fn(&Gap) -> u64, else_at: impl Fn(usize) -> bool) -> f64 {
    let mut sum = 0;
    for (i, way) in view.ways() {
        let of_way = count(&way);
        sum += if of_way == 0 && way.count == 0 { u64::from(else_at(i)) } else { of_way };
    }
    let cut: f64 = view.shares().map(|(cut, share)| float(count(&cut.gap)) * share).sum();
    float(sum) + cut
}

/// What there is to be added up, in order of time.
fn parts<'a>(view: &'a View<'_>) -> impl Iterator<Item = f64> + 'a {
    let begin = view.begin.iter().chain(&view.within).map(window::Cut::sum);
    let kept = (view.low..view.high).flat_map(move |i| {
        let gap = view.gaps[i];
        let before = (i > view.low && gap.count > 0).then_some(gap.sum);
        before.into_iter().chain([view.values[i]])
    });
    begin.chain(kept).chain(view.end.iter().map(window::Cut::sum))
}

fn sum_of(parts: impl Iterator<Item = f64>) -> Neumaier {
    let mut sum = Neumaier::default();
    parts.for_each(|part| sum.add(part));
    sum
}

fn total(view: &View<'_>) -> f64 {
    let sum = sum_of(parts(view));
    if sum.sum.is_infinite() { sum.sum } else { sum.corrected() }
}

fn mean(view: &View<'_>) -> f64 {
    let count = float(view.count());
    let sum = sum_of(parts(view));
    if sum.sum.is_infinite() {
        // The sum may be beyond floats where the mean is not.
        return sum_of(parts(view).map(|part| part / count)).corrected();
    }
    sum.sum / count + sum.compensation / count
}

/// The extreme of a window, and of all of the gaps that it cuts.
fn extreme(view: &View<'_>, of_gap: impl Fn(&Gap) -> f64, choose: impl Fn(f64, f64) -> f64) -> f64 {
    let mut found = f64::NAN;
    for i in view.low..view.high {
        if i > view.low && view.gaps[i].count > 0 {
            found = choose(found, of_gap(&view.gaps[i]));
        }
        found = choose(found, view.values[i]);
    }
    view.cuts().fold(found, |found, cut| choose(found, of_gap(&cut.gap)))
}

/// When the extreme was, of equal ones the last; if it lies in a gap, that is the end of the gap.
fn time_of_extreme(
    view: &View<'_>,
    of_gap: impl Fn(&Gap) -> f64,
    beats: impl Fn(f64, f64) -> bool,
) -> (f64, bool) {
    let mut found: Option<(f64, i64, bool)> = None;
    let mut see = |value: f64, time: i64, is_estimate: bool| {
        if found.is_none_or(|(best, ..)| best.is_nan() || !(value.is_nan() || beats(best, value))) {
            found = Some((value, time, is_estimate));
        }
    };
    let in_gap = |gap: &Gap, ends: [f64; 2]| {
        let value = of_gap(gap);
        (!value.is_nan() && ends.iter().all(|end| end.is_nan() || beats(value, *end))).then_some(value)
    };
    for i in view.low..view.high {
        if i > view.low
            && view.gaps[i].count > 0
            && let Some(value) = in_gap(&view.gaps[i], [view.values[i - 1], view.values[i]])
        {
            see(value, view.times[i], true);
        }
        see(view.values[i], view.times[i], false);
    }
    for cut in view.cuts() {
        match in_gap(&cut.gap, [cut.from.value, cut.to.value]) {
            Some(value) => see(value, cut.to.time.min(view.until), true),
            None if view.low == view.high => {
                let Point { time, value } = cut.from;
                see(value, time, true);
            }
            None => {}
        }
    }
    let (_, time, is_estimate) = found.unwrap_or((f64::NAN, view.until, true));
    (seconds(time), is_estimate)
}

#[cfg(test)]
mod tests;
