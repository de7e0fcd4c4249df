//! `info`: adds to series the labels of the info metrics that describe the same target.
//!
//! A target is named by `instance` and `job`. Which info series are needed shows only when the base
//! series are there, so they are asked of the store then ([`LateSelects`]). At each step the newest
//! sample among the info series of one metric and target decides which labels are added; a base series
//! becomes as many series as its labels change over the steps.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::{HashMap, HashMapExt};

use super::{
    context::{Context, Findings, weight},
    data::{LateSelects, SelectedSeries},
    matching::presence,
    names::{Names, merge_same},
    rows::{Row, SeriesRow, Steps, is_absent},
    select::{self, Instant},
};
use crate::{
    model::{Labels, METRIC_NAME, MatchOp, Matcher},
    promql::{
        QueryError,
        plan::{Counted, Info, Take},
    },
    storage::SeriesSamples,
};

/// The labels that name a target.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// So many values of a label are asked for one by one; of more, all are fetched and the wanted ones kept.
const MOST_VALUES: usize = 1000;

/// Adds the labels of info series to the rows of `base`.
pub fn info(
    context: &Context,
    late: &LateSelects,
    info: &Info,
    base: Vec<SeriesRow>,
    steps: &Steps,
    findings: &mut Findings,
) -> Result<Vec<SeriesRow>, QueryError> {
    let is_info = |row: &SeriesRow| {
        let name = row.labels.metric_name().unwrap_or_default();
        !info.untouched.is_empty() && info.untouched.iter().all(|matcher| matcher.matches(name))
    };
    let targets = Targets::of(base.iter().filter(|row| !is_info(row)));
    let sources = if targets.0.is_empty() {
        Sources::default()
    } else {
        let mut request = info.request.clone();
        request.matchers.extend(targets.matchers());
        let series = context.turn.away(|| late.ask(request), || context.is_over())?;
        let any = presence(context, &base, steps)?;
        Sources::read(context, info, &series, &targets, steps, &any, findings)?
    };
    let mut described = Vec::with_capacity(base.len());
    let mut held = sources.held;
    for row in base {
        context.check()?;
        if is_info(&row) {
            described.push(row);
            continue;
        }
        // A series whose labels change at every step becomes as many.
        let more = sources.describe(info, row, steps)?;
        let weight = more.iter().map(|row| weight(&row.row)).sum();
        context.budget.hold(weight)?;
        held += weight;
        described.extend(more);
    }
    context.budget.release(held);
    merge_same(&context.budget, described)
}

/// The values of the identifying labels that were seen.
struct Targets(BTreeMap<&'static str, BTreeSet<String>>);

impl Targets {
    fn of<'a>(rows: impl Iterator<Item = &'a SeriesRow>) -> Self {
        let mut values: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
        for row in rows {
            for name in IDENTIFYING {
                let Some(value) = row.labels.get(name) else { continue };
                let seen = values.entry(name).or_default();
                if !seen.contains(value) {
                    seen.insert(value.to_owned());
                }
            }
        }
        Self(values)
    }

    fn matchers(&self) -> Vec<Matcher> {
        let of_label = |(name, values): (&&'static str, &BTreeSet<String>)| {
            if values.len() > MOST_VALUES {
                return None;
            }
            let alternatives: Vec<String> = values.iter().map(|value| quoted(value)).collect();
            Matcher::new(MatchOp::Matches, name, &alternatives.join("|")).ok()
        };
        self.0.iter().filter_map(of_label).collect()
    }

    fn include(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(name, values)| labels.get(name).is_some_and(|value| values.contains(value)))
    }
}

/// A text as a regular expression that matches nothing else.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}

/// The info series by target and metric.
#[derive(Debug, Default)]
struct Sources {
    /// Of each target, per info metric, which series describes it at each step.
    targets: HashMap<Labels, BTreeMap<String, Vec<Option<usize>>>>,
    labels: Vec<Labels>,
    /// What it weighs.
    held: u64,
}

fn target_of(labels: &Labels) -> Labels {
    labels.only(|name| IDENTIFYING.contains(&name))
}

impl Sources {
    /// Reads the info series; `any` says at which steps there is anything to describe.
    fn read(
        context: &Context,
        info: &Info,
        series: &SelectedSeries,
        wanted: &Targets,
        steps: &Steps,
        any: &[bool],
        findings: &mut Findings,
    ) -> Result<Self, QueryError> {
        let mut sources = Self { labels: series.labels.clone(), ..Self::default() };
        // When the deciding sample was taken, in milliseconds.
        let mut newest: HashMap<(Labels, &str), Vec<i64>> = HashMap::new();
        let instant = |take| Instant {
            reference: info.reference,
            lookback: info.lookback,
            take,
            counted: Counted::Nowhere,
            names: Names::AsMeant,
        };
        let mut scratch = SeriesSamples::default();
        for (ordinal, labels) in series.labels.iter().enumerate().filter(|(_, labels)| wanted.include(labels))
        {
            context.check()?;
            let samples = series.samples(ordinal, &mut scratch)?;
            let read = u64::try_from(samples.len()).unwrap_or(u64::MAX);
            findings.count(samples, info.reference, &context.settings);
            let loaded = series.weight(read);
            context.budget.hold(loaded)?;
            let values = select::row(samples, &instant(Take::Value), steps, &mut []);
            let times = select::row(samples, &instant(Take::Timestamp), steps, &mut []);
            context.budget.release(loaded);
            let (Some(values), Some(times)) = (values, times) else { continue };
            let at_steps = |(step, _): &(u32, _)| usize::try_from(*step).is_ok_and(|step| any[step]);
            if values.histograms.iter().any(at_steps) {
                return Err(QueryError::Execution("info sample should be float".to_owned()));
            }
            let (target, name) = (target_of(labels), labels.metric_name().unwrap_or_default());
            let of_target = sources.targets.entry(target.clone()).or_default();
            if !of_target.contains_key(name) {
                let held = u64::try_from(steps.count).unwrap_or(u64::MAX);
                context.budget.hold(held)?;
                sources.held += held;
            }
            let deciding = of_target.entry(name.to_owned()).or_insert_with(|| vec![None; steps.count]);
            let newest = newest.entry((target, name)).or_insert_with(|| vec![i64::MIN; steps.count]);
            for step in (0..steps.count).filter(|step| any[*step] && !is_absent(times.floats[*step])) {
                #[expect(clippy::cast_possible_truncation, reason = "it was made of milliseconds")]
                let time = (times.floats[step] * 1000.0).round() as i64;
                match deciding[step] {
                    Some(other) if newest[step] == time => {
                        return Err(QueryError::Execution(format!(
                            "found duplicate series for info metric: existing {} @ {time}, new {labels} @ {time}",
                            sources.labels[other]
                        )));
                    }
                    Some(_) if time < newest[step] => {}
                    Some(_) | None => (deciding[step], newest[step]) = (Some(ordinal), time),
                }
            }
        }
        Ok(sources)
    }

    /// The parts of `base`, one for each set of labels that it gets.
    fn describe(&self, info: &Info, base: SeriesRow, steps: &Steps) -> Result<Vec<SeriesRow>, QueryError> {
        let none = BTreeMap::new();
        let deciding = self.targets.get(&target_of(&base.labels)).unwrap_or(&none);
        // Without a description a series stays only if the labels asked for may be missing.
        let may_be_missing = info.labels.iter().all(Matcher::matches_empty);
        let mut described: Vec<SeriesRow> = Vec::new();
        let mut parts: HashMap<Vec<usize>, usize> = HashMap::new();
        for step in (0..steps.count).filter(|step| base.row.has(*step)) {
            let by: Vec<usize> = deciding.values().filter_map(|series| series[step]).collect();
            if by.is_empty() && !may_be_missing {
                continue;
            }
            let part = match parts.get(&by) {
                Some(part) => *part,
                None => {
                    let labels = self.labels_with(info, &base.labels, &by)?;
                    described.push(SeriesRow {
                        labels,
                        drop_name: base.drop_name,
                        row: Row::absent(steps.count),
                    });
                    parts.insert(by, described.len() - 1);
                    described.len() - 1
                }
            };
            let row = &mut described[part].row;
            row.floats[step] = base.row.floats[step];
            if let (Some(histogram), Ok(step)) = (base.row.histogram(step), u32::try_from(step)) {
                row.histograms.push((step, std::sync::Arc::clone(histogram)));
            }
        }
        Ok(described)
    }

    /// A series' labels and those that the info series `by` add.
    fn labels_with(&self, info: &Info, base: &Labels, by: &[usize]) -> Result<Labels, QueryError> {
        let wanted = |name: &str| {
            name != METRIC_NAME
                && (info.labels.is_empty() || info.labels.iter().any(|matcher| matcher.name() == name))
        };
        let mut added: BTreeMap<&str, &str> = BTreeMap::new();
        for series in by {
            for (name, value) in self.labels[*series].iter().filter(|(name, _)| wanted(name)) {
                match added.get(name) {
                    Some(other) if *other != value => {
                        return Err(QueryError::Execution(format!("conflicting label: {name}")));
                    }
                    Some(_) => {}
                    None if base.get(name).is_some() => {}
                    None => {
                        added.insert(name, value);
                    }
                }
            }
        }
        let mut labels = base.edit();
        for (name, value) in added {
            labels.set(name, value);
        }
        Ok(labels.build())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_text_matches_itself_only() {
        for text in ["a.b:9090", r"(a|b)\d+[x]{2}^$*?", ""] {
            let matcher = Matcher::new(MatchOp::Matches, "x", &quoted(text)).unwrap();
            assert!(matcher.matches(text), "{text}");
            assert!(!matcher.matches("axb:9090"), "{text}");
        }
    }
}
