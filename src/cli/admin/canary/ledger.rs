//! What there should be, and what is wrong with what there is.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    cli::admin::samples::{Found, Known},
    model::Timestamp,
};

/// The metric that is written.
pub(super) const METRIC: &str = "luminate_canary";
/// What tells its series apart.
pub(super) const LABEL: &str = "series";

const SINE: &str = "sine";
const TIME: &str = "time";
const PREVIOUS: &str = "previous";
const SERIES: [&str; 3] = [PREVIOUS, SINE, TIME];

/// How long a wave of the sine is.
const WAVE_SECONDS: f64 = 600.0;
/// How much of what is wrong is told.
const SHOWN: usize = 3;

/// The samples that have to be there.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    horizon: i64,
    /// When each was, and the one before it if that is known.
    kept: BTreeMap<Timestamp, Option<Timestamp>>,
    /// What was counted as wrong or missing already.
    told: BTreeSet<(Timestamp, &'static str)>,
}

/// What came of a comparison.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// Values that were compared.
    pub(super) checked: u64,
    /// Values that do not follow from their time.
    pub(super) wrong: Vec<String>,
    /// Values that are not there.
    pub(super) missing: Vec<String>,
}

impl Verdict {
    /// What is the matter, in words; none if nothing is.
    pub(super) fn words(&self) -> Option<String> {
        let Self { checked, wrong, missing } = self;
        if wrong.is_empty() && missing.is_empty() {
            return None;
        }
        let first: Vec<&str> = wrong.iter().chain(missing).take(SHOWN).map(String::as_str).collect();
        let more = (wrong.len() + missing.len()).saturating_sub(SHOWN);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        let (wrong, missing) = (wrong.len(), missing.len());
        Some(format!("of {checked} values {wrong} wrong, {missing} missing: {}{more}", first.join("; ")))
    }
}

impl Ledger {
    /// Nothing has to be there yet; what is older than `horizon` milliseconds never does.
    pub(super) fn new(horizon: i64) -> Self {
        Self { horizon, kept: BTreeMap::new(), told: BTreeSet::new() }
    }

    /// Whether the samples of `at` have to be there.
    pub(super) fn has(&self, at: Timestamp) -> bool {
        self.kept.contains_key(&at)
    }

    /// The samples to write at an instant.
    pub(super) fn samples(&self, canary: &str, at: Timestamp) -> Vec<Known> {
        let sample = |series: &'static str, value| Known {
            name: METRIC,
            labels: vec![("canary", canary.to_owned()), (LABEL, series.to_owned())],
            samples: vec![(at, value)],
        };
        vec![
            sample(PREVIOUS, as_seconds(self.before(at).unwrap_or(at))),
            sample(SINE, sine(at)),
            sample(TIME, as_seconds(at)),
        ]
    }

    /// The samples of `at` were acknowledged.
    pub(super) fn keep(&mut self, at: Timestamp) {
        let before = self.before(at).unwrap_or(at);
        self.kept.insert(at, Some(before));
    }

    /// Takes in what somebody wrote before us.
    pub(super) fn learn(&mut self, found: &Found) {
        for (series, samples) in found {
            for &(at, value) in samples {
                let known = self.kept.entry(at).or_default();
                let named =
                    if series == PREVIOUS { as_instant(value).filter(|named| *named <= at) } else { None };
                if let (None, Some(named)) = (&known, named) {
                    *known = Some(named);
                    self.kept.entry(named).or_default();
                }
            }
        }
    }

    /// Compares with all samples there are at `at`, back to the horizon.
    pub(super) fn judge_stored(&mut self, found: &Found, at: Timestamp) -> Verdict {
        self.learn(found);
        let end = Timestamp(at.millis().saturating_sub(self.horizon));
        // The instant at the open end of a range is not in it.
        self.kept = self.kept.split_off(&Timestamp(end.millis().saturating_add(1)));
        self.told.retain(|(at, _)| *at > end);
        let mut verdict = self.judge_values(found);
        for series in SERIES {
            let there: BTreeSet<Timestamp> =
                found.get(series).into_iter().flatten().map(|(at, _)| *at).collect();
            // Where the clock was put back, there are newer ones that were not asked for.
            for (&at, _) in self.kept.range(..=at).filter(|(at, _)| !there.contains(at)) {
                if self.told.insert((at, series)) {
                    verdict.missing.push(format!("{series} at {}", at.rfc3339()));
                }
            }
        }
        verdict
    }

    /// Compares with the values at the steps of a range; a step at which nothing was written shows what was there
    /// before, and is not compared.
    pub(super) fn judge_steps(&mut self, found: &Found) -> Verdict {
        let kept = found.iter().map(|(series, samples)| {
            (series.clone(), samples.iter().filter(|(at, _)| self.has(*at)).copied().collect())
        });
        let kept = kept.collect();
        self.judge_values(&kept)
    }

    fn judge_values(&mut self, found: &Found) -> Verdict {
        let mut verdict = Verdict::default();
        for series in SERIES {
            for &(at, value) in found.get(series).into_iter().flatten() {
                verdict.checked += 1;
                let right = match series {
                    SINE => sine(at),
                    TIME => as_seconds(at),
                    // Of one that is not known, nothing can be said but that it is a time that was.
                    _ => self.kept.get(&at).copied().flatten().map_or(f64::NAN, as_seconds),
                };
                if value.to_bits() != right.to_bits() && self.told.insert((at, series)) {
                    verdict.wrong.push(format!("{series} at {} is {value}", at.rfc3339()));
                }
            }
        }
        verdict
    }

    /// The newest sample before an instant.
    fn before(&self, at: Timestamp) -> Option<Timestamp> {
        self.kept.range(..at).next_back().map(|(before, _)| *before)
    }
}

/// Whether an answer has each of these samples.
pub(super) fn shows(found: &Found, samples: &[Known]) -> bool {
    samples.iter().all(|known| {
        let series = known.labels.iter().find(|(name, _)| *name == LABEL);
        let there = series.and_then(|(_, series)| found.get(series)?.last());
        there.zip(known.samples.last()).is_some_and(|(there, written)| there == written)
    })
}

/// Rounded, so that no machine's sine differs from another's.
fn sine(at: Timestamp) -> f64 {
    let wave = (as_seconds(at) % WAVE_SECONDS) / WAVE_SECONDS * std::f64::consts::TAU;
    (wave.sin() * 1e6).round() / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of our time fit")]
fn as_seconds(at: Timestamp) -> f64 {
    at.millis() as f64 / 1000.0
}

/// The instant that a value names; none if it cannot be one.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn as_instant(seconds: f64) -> Option<Timestamp> {
    let millis = (seconds * 1000.0).round();
    (0.0..1e15).contains(&millis).then_some(Timestamp(millis as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: i64 = 15_000;

    /// What a server has that got the samples of these instants, one canary after another.
    fn stored(instants: &[i64]) -> (Ledger, Found) {
        let mut ledger = Ledger::new(100 * STEP);
        let mut found = Found::new();
        for at in instants.iter().map(|nth| Timestamp(nth * STEP)) {
            for known in ledger.samples("x", at) {
                found.entry(known.labels[1].1.clone()).or_default().extend(known.samples);
            }
            ledger.keep(at);
        }
        (ledger, found)
    }

    fn now() -> Timestamp {
        Timestamp(100 * STEP)
    }

    #[test]
    fn what_is_all_there_and_right_is_well_however_old() {
        let (mut ledger, found) = stored(&[1, 2, 3, 7, 8]);
        let verdict = ledger.judge_stored(&found, now());
        assert_eq!((verdict.checked, verdict.words()), (15, None));
        assert_eq!(ledger.judge_steps(&found).words(), None);
        let mut restarted = Ledger::new(100 * STEP);
        assert_eq!(restarted.judge_stored(&found, now()).words(), None);
        // What is older than the horizon may go.
        let verdict = ledger.judge_stored(&Found::new(), Timestamp(108 * STEP));
        assert_eq!(verdict, Verdict::default());
    }

    #[test]
    fn a_sample_that_has_gone_is_missed_once_even_after_a_restart() {
        let (mut ledger, mut found) = stored(&[1, 2, 3, 7, 8]);
        for samples in found.values_mut() {
            samples.remove(2);
        }
        let mut restarted = Ledger::new(100 * STEP);
        for ledger in [&mut ledger, &mut restarted] {
            let verdict = ledger.judge_stored(&found, now());
            assert_eq!(
                (verdict.checked, verdict.missing.len(), verdict.wrong.len()),
                (12, 3, 0),
                "{verdict:?}"
            );
            assert!(verdict.words().unwrap().contains("previous at 1970-01-01T00:00:45"), "{verdict:?}");
            assert_eq!(ledger.judge_stored(&found, now()).words(), None);
        }
        let gone = stored(&[1, 2, 3]).0.judge_stored(&Found::new(), now());
        assert_eq!(gone.missing.len(), 9);
        assert!(gone.words().unwrap().ends_with(", and 6 more"), "{gone:?}");
    }

    #[test]
    fn a_clock_that_was_put_back_hides_nothing_and_misses_nothing() {
        let (mut ledger, mut found) = stored(&[1, 2, 3, 7, 8]);
        found.values_mut().for_each(|samples| samples.truncate(3));
        assert_eq!(ledger.judge_stored(&found, Timestamp(5 * STEP)).words(), None);
        assert_eq!(ledger.judge_stored(&found, Timestamp(7 * STEP)).missing.len(), 3);
    }

    #[test]
    fn a_series_of_which_one_sample_has_gone_misses_it() {
        let (_, mut found) = stored(&[1, 2]);
        found.get_mut(SINE).unwrap().remove(0);
        let verdict = Ledger::new(100 * STEP).judge_stored(&found, now());
        assert_eq!(verdict.missing, ["sine at 1970-01-01T00:00:15.000Z"]);
    }

    #[test]
    fn a_value_that_does_not_follow_from_its_time_is_wrong() {
        for (series, value) in
            [(SINE, 0.5), (TIME, 31.0), (TIME, f64::NAN), (PREVIOUS, 1e300), (PREVIOUS, 16.0)]
        {
            let (mut ledger, mut found) = stored(&[1, 2]);
            found.get_mut(series).unwrap()[1].1 = value;
            let verdict = ledger.judge_stored(&found, now());
            assert_eq!((verdict.wrong.len(), verdict.missing.len()), (1, 0), "{series} {value}: {verdict:?}");
            let mut restarted = Ledger::new(100 * STEP);
            assert!(restarted.judge_stored(&found, now()).words().is_some(), "{series} {value}");
        }
    }

    #[test]
    fn at_a_step_without_a_sample_nothing_is_compared() {
        let (mut ledger, mut found) = stored(&[1, 3]);
        for samples in found.values_mut() {
            let older = samples[0].1;
            samples.insert(1, (Timestamp(2 * STEP), older));
        }
        assert_eq!(ledger.judge_steps(&found).words(), None);
        found.get_mut(TIME).unwrap()[2].1 = 15.0;
        assert_eq!(ledger.judge_steps(&found).wrong, ["time at 1970-01-01T00:00:45.000Z is 15"]);
    }

    #[test]
    fn what_was_written_is_seen_only_with_its_time_and_value() {
        let (ledger, found) = stored(&[1]);
        let (again, next) = (Ledger::new(1), ledger.samples("x", Timestamp(2 * STEP)));
        assert!(shows(&found, &again.samples("x", Timestamp(STEP))));
        assert!(!shows(&found, &next));
        assert!(!shows(&Found::new(), &next));
    }
}
