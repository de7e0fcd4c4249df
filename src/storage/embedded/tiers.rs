//! Which parts are merged, and when: few parts to look into, and each sample written few times.
//!
//! ```text
//! flush ──▶ ▯▯▯▯▯▯▯▯ ──▶ ▯ … ▯ ──────────────▶ █
//!           8 of about    runs of those, up      the day, once it is over
//!           a size        to six hours
//! ```
//!
//! * **While a day lasts**, [`merge_at`](super::EmbeddedConfig::merge_at) neighbours of about the same size become one, as
//!   long as that one spans no more than [`LONGEST_RUN`]. So a part of a size is not written again for the sake of a small one.
//! * **When it is over**, and [`GRACE`] has passed for what is still in memory, all of the day become one part.
//! * **What comes later still** is merged with the day's part when it is a quarter of it, or when the day has rested for
//!   [`REST`]; until then it is merged among itself.
//!
//! Neighbours are parts next to each other in age, of those that have something of the day: whose sample wins at a
//! time stays as it is. A sample is written by its flush, with its day, and between them once for each factor of eight in
//! the flushes of six hours: three times where a flush comes every ten minutes or less often, five at one a minute.
//!
//! Everything here is a function of what the parts are and of the time; `rewrite` does what it says.

use crate::model::{Millis, TimeRange, Timestamp};

/// While its day lasts a merged part spans no more than this.
const LONGEST_RUN: Millis = Millis(6 * 3_600_000);

/// So long after the end of a day all its samples are in parts, unless they come late.
const GRACE: Millis = Millis(2 * 3_600_000);

/// After so long a day that is over is made one part again, however little has come late.
pub(crate) const REST: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// A part never gets more samples than this by being merged.
const MOST_SAMPLES: u64 = 4_000_000_000;

/// No more parts than this are merged at once: each takes memory while it is read.
const MOST_INPUTS: usize = 64;

/// With so many times the parts that make a run, the span of what is merged does not matter.
const CROWD: usize = 4;

/// What is known of a part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// The times of its samples; none if it is empty.
    pub(crate) range: Option<TimeRange>,
    pub(crate) samples: u64,
    /// It is left alone.
    pub(crate) damaged: bool,
}

/// Parts to be merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The day that they are of.
    pub(crate) day: i64,
    /// Their places in the list, rising.
    pub(crate) places: Vec<usize>,
}

/// What is to be merged next of parts that are listed from the oldest to the newest; the earliest day comes first.
pub(crate) fn choose(
    pieces: &[Piece],
    merge_at: usize,
    now: Timestamp,
    rested: impl Fn(i64) -> bool,
) -> Option<Run> {
    let merge_at = merge_at.max(2);
    let mut days: Vec<i64> = pieces.iter().filter_map(|piece| piece.day()).collect();
    days.sort_unstable();
    days.dedup();
    days.into_iter().find_map(|day| {
        let over = day < now.minus(GRACE).day();
        stretches(pieces, day).into_iter().find_map(|stretch| {
            let whole = || whole_day(pieces, &stretch, || rested(day));
            let run = || {
                let crowded = over || stretch.len() >= CROWD * merge_at;
                let longest = if crowded { None } else { Some(LONGEST_RUN) };
                run_of_a_size(pieces, &stretch, merge_at, longest)
            };
            let places = if over { whole().or_else(run) } else { run() };
            places.map(|places| Run { day, places })
        })
    })
}

impl Piece {
    /// The day that all its samples are of, if there is one.
    fn day(&self) -> Option<i64> {
        let range = self.range?;
        (range.start().day() == range.end().day()).then(|| range.start().day())
    }

    fn span(range: TimeRange) -> i64 {
        range.end().0.saturating_sub(range.start().0)
    }
}

/// The parts of a day that may be merged, neighbours together.
fn stretches(pieces: &[Piece], day: i64) -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> = vec![Vec::new()];
    let touches = |r: TimeRange| r.start().day() <= day && day <= r.end().day();
    for (place, piece) in pieces.iter().enumerate().filter(|(_, piece)| piece.range.is_some_and(touches)) {
        let is_of_day = piece.day() == Some(day);
        match all.last_mut() {
            Some(last) if is_of_day && !piece.damaged && piece.samples <= MOST_SAMPLES => last.push(place),
            // What is not merged itself keeps its place in the order.
            Some(_) | None => all.push(Vec::new()),
        }
    }
    all.retain(|stretch| stretch.len() > 1);
    all
}

/// All of a day, or as much of it as makes a part.
fn whole_day(pieces: &[Piece], stretch: &[usize], rested: impl Fn() -> bool) -> Option<Vec<usize>> {
    let mut group: Vec<usize> = Vec::new();
    let mut groups = Vec::new();
    let mut total = 0_u64;
    for place in stretch {
        let samples = pieces[*place].samples;
        if group.len() >= MOST_INPUTS || total.saturating_add(samples) > MOST_SAMPLES {
            groups.push(std::mem::take(&mut group));
            total = 0;
        }
        total = total.saturating_add(samples);
        group.push(*place);
    }
    groups.push(group);
    groups.into_iter().filter(|group| group.len() > 1).find(|group| {
        let samples = || group.iter().map(|place| pieces[*place].samples);
        let largest = samples().max().unwrap_or(0);
        let others = samples().sum::<u64>().saturating_sub(largest);
        others >= largest / 4 || rested()
    })
}

/// As many neighbours as possible, and at least `merge_at`, of which none is much larger than those behind it.
fn run_of_a_size(
    pieces: &[Piece],
    stretch: &[usize],
    merge_at: usize,
    longest: Option<Millis>,
) -> Option<Vec<usize>> {
    for end in (merge_at..=stretch.len()).rev() {
        let mut run: Vec<usize> = Vec::new();
        let (mut total, mut range) = (0_u64, None::<TimeRange>);
        for place in stretch[..end].iter().rev() {
            let piece = pieces[*place];
            let both = range.map_or(piece.range, |range| piece.range.map(|r| r.union(range)));
            let too_long = longest.is_some_and(|most| both.map_or(0, Piece::span) > most.0);
            let mean = total / u64::try_from(run.len().max(1)).unwrap_or(1);
            let too_large = !run.is_empty() && piece.samples / 2 > mean;
            let sum = total.saturating_add(piece.samples);
            if too_long || too_large || run.len() >= MOST_INPUTS || sum > MOST_SAMPLES {
                break;
            }
            (total, range) = (sum, both);
            run.push(*place);
        }
        if run.len() >= merge_at {
            run.reverse();
            return Some(run);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const DAY: i64 = Millis::DAY.0;

    fn piece(from: i64, to: i64, samples: u64) -> Piece {
        Piece { range: TimeRange::new(Timestamp(from), Timestamp(to)), samples, damaged: false }
    }

    fn merged(pieces: &mut Vec<Piece>, run: &Run) -> u64 {
        let all: Vec<Piece> = run.places.iter().map(|place| pieces[*place]).collect();
        let range = all.iter().filter_map(|p| p.range).reduce(TimeRange::union);
        let samples = all.iter().map(|p| p.samples).sum();
        let last = *run.places.last().unwrap();
        pieces[last] = Piece { range, samples, damaged: false };
        let mut gone: Vec<usize> = run.places[..run.places.len() - 1].to_vec();
        gone.reverse();
        gone.into_iter().for_each(|place| {
            pieces.remove(place);
        });
        samples
    }

    /// Flushes every `every` minutes for three days and an hour: how often each sample was written, and the most parts
    /// that there were at once.
    fn simulate(every: i64) -> (f64, usize) {
        let (mut pieces, mut written, mut flushed, mut most) = (Vec::new(), 0_u64, 0_u64, 0);
        let mut now = 0;
        let end = 3 * DAY + 3 * 60 * MINUTE;
        while now < end {
            let from = now;
            now += every * MINUTE;
            for day in Timestamp(from).day()..=Timestamp(now - 1).day() {
                let (from, to) = (from.max(day * DAY), (now - 1).min(day * DAY + DAY - 1));
                let samples = u64::try_from(to - from + 1).unwrap();
                pieces.push(piece(from, to, samples));
                written += samples;
                flushed += samples;
            }
            while let Some(run) = choose(&pieces, 8, Timestamp(now), |_| true) {
                written += merged(&mut pieces, &run);
            }
            most = most.max(pieces.len());
        }
        assert!(pieces.iter().filter(|p| p.day().is_some_and(|day| day < 3)).count() == 3, "{pieces:?}");
        #[expect(clippy::cast_precision_loss, reason = "a ratio for a person")]
        (written as f64 / flushed as f64, most)
    }

    #[test]
    fn each_sample_is_written_few_times_and_parts_are_few() {
        for (every, times, parts) in
            [(120, 2.0, 16), (30, 3.0, 16), (10, 3.0, 32), (6, 3.8, 40), (1, 4.8, 40)]
        {
            let (written, most) = simulate(every);
            assert!(written <= times && most <= parts, "every {every} min: {written} times, {most} parts");
        }
    }

    #[test]
    fn what_comes_late_waits_until_it_is_worth_it() {
        let now = Timestamp(5 * DAY);
        let day = piece(0, DAY - 1, 1_000_000);
        let late = |n: usize| -> Vec<Piece> { std::iter::repeat_n(piece(7, 9, 100), n).collect() };
        let with = |late: Vec<Piece>, rested: bool| {
            choose(&[vec![day], late].concat(), 8, now, |_| rested).map(|run| run.places)
        };
        assert_eq!(with(late(7), false), None);
        assert_eq!(with(late(8), false), Some((1..=8).collect()), "among itself");
        assert_eq!(with(late(1), true), Some(vec![0, 1]), "the day has rested");
        assert_eq!(with(vec![piece(7, 9, 250_000)], false), Some(vec![0, 1]), "a quarter of it");
    }

    #[test]
    fn order_is_kept_around_what_cannot_be_merged() {
        let now = Timestamp(5 * DAY);
        let small = piece(0, 9, 100);
        let several_days = piece(0, 2 * DAY, 100);
        let damaged = Piece { damaged: true, ..small };
        for between in [several_days, damaged] {
            assert_eq!(choose(&[small, between, small], 2, now, |_| true), None);
            let run = choose(&[small, between, small, small], 2, now, |_| true).unwrap();
            assert_eq!(run, Run { day: 0, places: vec![2, 3] });
        }
        let elsewhere = piece(DAY, DAY + 9, 100);
        let run = choose(&[small, elsewhere, small], 2, now, |_| true).unwrap();
        assert_eq!(run, Run { day: 0, places: vec![0, 2] }, "what has nothing of the day is not between");
    }

    #[test]
    fn a_crowd_of_wide_parts_is_merged_while_the_day_lasts() {
        let wide = piece(0, 20 * 60 * MINUTE, 100);
        let now = Timestamp(20 * 60 * MINUTE);
        assert_eq!(choose(&[wide; 31], 8, now, |_| true), None);
        assert_eq!(choose(&[wide; 32], 8, now, |_| true).unwrap().places.len(), 32);
    }

    #[test]
    fn small_ones_among_others_do_not_stop_a_run() {
        let pieces: Vec<Piece> = (0..16).map(|i| piece(i, i, if i % 2 == 0 { 1000 } else { 1 })).collect();
        let run = choose(&pieces, 8, Timestamp(100), |_| false).unwrap();
        assert_eq!(run.places.len(), 15, "the newest is small and waits");
    }

    #[test]
    fn bounds_hold() {
        let now = Timestamp(5 * DAY);
        let huge = piece(0, 9, MOST_SAMPLES / 2 + 1);
        assert_eq!(choose(&[huge, huge], 2, now, |_| true), None);
        let many = vec![piece(0, 9, 1); 200];
        assert_eq!(choose(&many, 8, now, |_| true).unwrap().places.len(), MOST_INPUTS);
    }
}
