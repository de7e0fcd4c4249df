//! Old samples in fewer: what is downsampled, when, and how.
//!
//! ```text
//! day ─ over for `after`, and one part has its times ─▶ rewritten: of each window the first and last sample, and a gap
//!                                                       that says what lay between them
//! ```
//!
//! * Rules say how fine a series is kept from an age on. Those that are about the same tenant and select the same are the
//!   steps of one rule; of the rules that match a series the first holds.
//! * It is done a day at a time, by rewrites that are looked for every hour, with merges between them, and by the merges of a
//!   day ([`Due`]): once no other part, no head and no log has samples between those of what is rewritten. What comes late
//!   waits until the day is one part again. A part of several days, as a flush of many old days at once writes them, stays
//!   as it is, and the log says so.
//! * A part says by a mark in its footer which steps have been taken. Where the rules ask for others it is written again.
//! * [`thin()`] keeps real samples, so that whoever knows nothing of gaps sees fewer samples and none that is made up; and
//!   whatever a gap cannot say is kept as it is: stale markers and both samples beside them, holes that are longer than
//!   queries look back, changes of the start timestamp, sums that are beyond floats, and series with histograms.
//! * Deletes come first: what they hide is taken out before, and no gap reaches across it. So a delete takes from a gap only
//!   if it comes later, and then all of it, for what was put together cannot be taken apart.
//! * What is written later into a gap stays a sample of its own, in the same part or another, and the gap stays as it is:
//!   who reads counts both. Where as many samples come as were put together they are taken for the same, and the gap goes
//!   ([`settle_gaps`](super::merge::settle_gaps)); the day is then put together anew. All of a gap's time is looked at for
//!   that, wherever the range of a query ends: a part says how wide its gaps are.
//! * A sample at an end of a gap that is written again with other bits takes the gap with it
//!   ([`overlay`](super::merge::overlay)): what the gap says of the way between its ends is not so any more.

mod thin;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use xxhash_rust::xxh3::xxh3_64;

use super::{
    config::{DownsampleRule, texts_of},
    counters::add,
    engine::{Engine, Upkeep},
    pace::Haste,
    part::PartMeta,
    rewrite::Rewrites,
    view::Sealed,
};
use crate::{
    model::{Labels, Matcher, Millis, TenantId, TimeRange, Timestamp},
    storage::{Result, Touched},
};

pub(crate) use thin::thin;

/// What is downsampled, and when.
#[derive(Debug)]
pub(crate) struct Downsampling {
    rules: Vec<Rule>,
    gaps: Gaps,
}

/// Where gaps are, at most: whatever is written or deleted in one changes what is said of all of it.
#[derive(Debug)]
struct Gaps {
    /// None is later.
    until: AtomicI64,
    /// None is wider.
    widest: AtomicU64,
}

/// The steps of some series.
#[derive(Debug)]
struct Rule {
    tenant: Option<TenantId>,
    matchers: Vec<Matcher>,
    /// From the youngest to the oldest.
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    after: Millis,
    resolution: Millis,
}

/// What is to be done with the samples of a day.
#[derive(Debug)]
pub(crate) struct Due<'a> {
    rules: Vec<(&'a Rule, Option<Millis>)>,
}

impl Downsampling {
    pub(crate) fn new(rules: &[DownsampleRule]) -> Self {
        let mut groups: Vec<Vec<&DownsampleRule>> = Vec::new();
        for rule in rules {
            match groups.iter_mut().find(|group| group[0].is_of_the_same(rule)) {
                Some(group) => group.push(rule),
                None => groups.push(vec![rule]),
            }
        }
        let step =
            |rule: &&DownsampleRule| Step { after: millis(rule.after), resolution: millis(rule.resolution) };
        let of_group = |group: &Vec<&DownsampleRule>| {
            let mut steps: Vec<Step> = group.iter().map(step).collect();
            steps.sort_by_key(|step| step.after);
            Rule { tenant: group[0].tenant.clone(), matchers: group[0].matchers.clone(), steps }
        };
        let gaps = Gaps { until: AtomicI64::new(i64::MIN), widest: AtomicU64::new(0) };
        Self { rules: groups.iter().map(of_group).collect(), gaps }
    }

    /// Takes note of a part's gaps, before it serves.
    pub(crate) fn note(&self, part: &PartMeta) {
        if let Some(range) = part.range.filter(|_| part.widest_gap > 0) {
            self.gaps.widest.fetch_max(part.widest_gap, SeqCst);
            self.gaps.until.fetch_max(range.end().0, SeqCst);
        }
    }

    /// Of what more is said when something in a range changes: of the gaps that it lies in.
    pub(crate) fn changed_with(&self, range: TimeRange) -> TimeRange {
        let (until, widest) = (self.gaps.until.load(SeqCst), self.gaps.widest.load(SeqCst));
        if until < range.start().0 { range } else { range.widened(widest) }
    }

    /// The same of samples that were written; none if they lie in no gap.
    pub(crate) fn written_into(&self, touched: &Touched) -> Option<TimeRange> {
        let range = touched.until(Timestamp(self.gaps.until.load(SeqCst)))?;
        Some(self.changed_with(range))
    }

    /// What is to be done at `now` with a day's samples; none if that is nothing.
    pub(crate) fn of_day(&self, day: i64, now: Timestamp) -> Option<Due<'_>> {
        let end = Timestamp(day.saturating_add(1).saturating_mul(Millis::DAY.0));
        let of = |rule: &Rule| {
            let reached = rule.steps.iter().rev().find(|step| end <= now.minus(step.after));
            reached.map(|step| step.resolution)
        };
        let rules: Vec<_> = self.rules.iter().map(|rule| (rule, of(rule))).collect();
        rules.iter().any(|(_, resolution)| resolution.is_some()).then_some(Due { rules })
    }
}

impl Due<'_> {
    /// How fine a series is to be kept; none is as it is.
    pub(crate) fn resolution(&self, tenant: &TenantId, labels: &Labels) -> Option<Millis> {
        let matches = |rule: &Rule| {
            let mut matchers = rule.matchers.iter();
            rule.tenant.as_ref().is_none_or(|of| of == tenant)
                && matchers.all(|m| m.matches(labels.get(m.name()).unwrap_or_default()))
        };
        self.rules.iter().find(|(rule, _)| matches(rule)).and_then(|(_, resolution)| *resolution)
    }

    /// By what a part is known of which just this was done; never 0.
    pub(crate) fn mark(&self) -> u64 {
        let mut text = String::new();
        for (rule, resolution) in &self.rules {
            let tenant = rule.tenant.as_ref().map_or("", TenantId::as_str);
            let resolution = resolution.map_or(0, |resolution| resolution.0);
            text.push_str(&format!("{tenant}\n{:?}\n{resolution}\n", texts_of(&rule.matchers)));
        }
        xxh3_64(text.as_bytes()).max(1)
    }
}

impl Engine {
    /// What is to be done with the samples of parts that are rewritten together; none where they are of several days, or
    /// something else has samples among theirs: they could be the same ones, which would count twice.
    pub(crate) fn due(&self, inputs: &[Arc<Sealed>]) -> Option<Due<'_>> {
        self.due_now(&self.upkeep.lock(), inputs)
    }

    /// The same while nobody else changes the parts.
    pub(crate) fn due_now(&self, upkeep: &Upkeep, inputs: &[Arc<Sealed>]) -> Option<Due<'_>> {
        let range = inputs.iter().filter_map(|part| part.range()).reduce(TimeRange::union)?;
        let day = range.start().day();
        if range.end().day() != day {
            return None;
        }
        let due = self.downsampling.of_day(day, self.clock.now())?;
        let logged = upkeep.frozen.is_some() || upkeep.spent.is_some();
        let is_input = |part: &Arc<Sealed>| inputs.iter().any(|input| Arc::ptr_eq(part, input));
        let view = self.view.load();
        let mut others = view.parts.iter().filter(|part| !is_input(part));
        let alone = !logged
            && !others.any(|part| part.range().is_some_and(|other| other.overlaps(range)))
            && !view.heads.iter().any(|head| head.has_samples(range));
        alone.then_some(due)
    }

    /// Whether a part is to be rewritten because its samples have come of age.
    fn is_due(&self, sealed: &Arc<Sealed>) -> bool {
        let day = sealed.range().map(|range| range.start().day());
        let due = day.and_then(|day| self.downsampling.of_day(day, self.clock.now()));
        let due = due.filter(|due| due.mark() != sealed.part.meta().downsampled);
        due.is_some() && self.due(&self.with_equals(std::slice::from_ref(sealed))).is_some()
    }

    /// Downsamples one part of those that are to be, the oldest days first; whether there was one.
    pub(crate) fn downsample_next(&self, haste: Haste) -> Result<bool> {
        let rewrites = &mut *self.rewrites.lock();
        self.is_open()?;
        if self.downsampling.rules.is_empty() {
            return Ok(false);
        }
        let view = self.view.load_full();
        let mut parts: Vec<&Arc<Sealed>> = view.parts.iter().filter(|part| part.damage().is_none()).collect();
        parts.sort_by_key(|part| part.range().map(TimeRange::start));
        self.tell_of_long_parts(rewrites, &parts);
        let room = |part: &Arc<Sealed>| self.has_room(std::slice::from_ref(part));
        let Some(next) = parts.into_iter().find(|part| self.is_due(part) && room(part)) else {
            return Ok(false);
        };
        if self.rewrite(rewrites, std::slice::from_ref(next), haste)? {
            add(&self.counters.parts_downsampled, 1);
        }
        Ok(true)
    }

    /// Tells once of parts that stay as they are because they are of several days.
    fn tell_of_long_parts(&self, rewrites: &mut Rewrites, parts: &[&Arc<Sealed>]) {
        let is_old = |day: i64| self.downsampling.of_day(day, self.clock.now()).is_some();
        let is_long =
            |range: TimeRange| range.start().day() < range.end().day() && is_old(range.start().day());
        let long = parts.iter().filter(|part| part.range().is_some_and(is_long)).count();
        if long > 0 && !rewrites.told_of_long_parts {
            rewrites.told_of_long_parts = true;
            tracing::info!(
                parts = long,
                "parts of several days are not downsampled, nor is what lies among them"
            );
        }
    }
}

fn millis(duration: Duration) -> Millis {
    Millis(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn rule(tenant: Option<&str>, name: Option<&str>, days: u32, minutes: u64) -> DownsampleRule {
        DownsampleRule {
            tenant: tenant.map(|t| TenantId::new(t).unwrap()),
            matchers: name.map(|name| Matcher::equal("__name__", name)).into_iter().collect(),
            after: DAY * days,
            resolution: Duration::from_secs(60 * minutes),
        }
    }

    fn minutes(of: &Downsampling, tenant: &str, name: &str, days_ago: i64) -> Option<i64> {
        let now = Timestamp(1000 * Millis::DAY.0);
        let labels = Labels::from_pairs([("__name__", name)]).unwrap();
        let due = of.of_day(999 - days_ago, now)?;
        due.resolution(&TenantId::new(tenant).unwrap(), &labels).map(|r| r.0 / 60_000)
    }

    #[test]
    fn the_first_rule_that_matches_holds_with_all_its_steps() {
        let all = Downsampling::new(&[
            rule(None, Some("fine"), 300, 1),
            rule(Some("b"), None, 10, 30),
            rule(None, None, 180, 60),
            rule(None, None, 30, 5),
        ]);
        for (tenant, name, ago, expect) in [
            ("a", "m", 29, None),
            ("a", "m", 30, Some(5)),
            ("a", "m", 179, Some(5)),
            ("a", "m", 180, Some(60)),
            ("a", "fine", 200, None),
            ("a", "fine", 300, Some(1)),
            ("b", "m", 10, Some(30)),
            ("b", "m", 400, Some(30)),
            ("b", "fine", 100, None),
        ] {
            assert_eq!(minutes(&all, tenant, name, ago), expect, "{tenant} {name} {ago}");
        }
    }

    #[test]
    fn a_mark_tells_what_was_done_and_not_when() {
        let now = Timestamp(1000 * Millis::DAY.0);
        let mark = |rules: &[DownsampleRule], ago: i64| {
            Downsampling::new(rules).of_day(999 - ago, now).map(|due| due.mark())
        };
        let steps = [rule(None, None, 30, 5), rule(None, None, 180, 60)];
        assert_eq!(mark(&steps, 29), None);
        assert_eq!(mark(&steps, 31), mark(&steps, 179));
        assert_eq!(mark(&steps, 31), mark(&steps[..1], 400));
        assert_ne!(mark(&steps, 31), mark(&steps, 180));
        assert_ne!(mark(&[rule(None, Some("m"), 30, 5)], 31), mark(&steps, 31));
    }
}
