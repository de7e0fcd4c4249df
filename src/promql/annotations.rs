//! What a query wants its reader to know besides the result.
//!
//! A text is kept once, with the place of its first occurrence, however many series it concerns; only
//! [`Annotations::render`] puts the prefix in front and the place behind it. Most texts are made by
//! the functions below, so that each is worded in one place. One kind carries numbers that add up over
//! its occurrences: [`ForcedMonotonicity`].

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::labels::Quoted,
    promql::{
        functions::calendar::Civil,
        go_float::{format_g, format_g_digits},
        parse::Span,
    },
};

/// The most warnings (and the most infos) an answer shows; of the rest it says how many there are.
const SHOWN: usize = 10;

/// Warnings and infos of one evaluation, each text once, with the place of its first occurrence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Annotations {
    warnings: BTreeMap<String, Span>,
    infos: BTreeMap<String, Span>,
    /// By the text without its numbers.
    monotonicity: BTreeMap<String, (Span, ForcedMonotonicity)>,
    /// Warnings that do not come from the query and have no place in it.
    remarks: BTreeSet<String>,
}

/// What had to be corrected to make the buckets of classic histograms monotonic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ForcedMonotonicity {
    /// Upper bound of the lowest bucket that was corrected.
    pub min_bucket: f64,
    /// Upper bound of the highest bucket that was corrected.
    pub max_bucket: f64,
    /// The largest correction.
    pub max_difference: f64,
    /// How many histograms were corrected.
    pub samples: u64,
    /// Time of the first of them, in milliseconds.
    pub first: i64,
    /// Time of the last.
    pub last: i64,
}

impl ForcedMonotonicity {
    /// What two groups of corrections come to together.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            min_bucket: self.min_bucket.min(other.min_bucket),
            max_bucket: self.max_bucket.max(other.max_bucket),
            max_difference: self.max_difference.max(other.max_difference),
            samples: self.samples.saturating_add(other.samples),
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }
}

impl Annotations {
    /// Adds a warning; `text` comes without the `PromQL warning: ` in front.
    pub fn warn(&mut self, text: impl Into<String>, span: Span) {
        self.warnings.entry(text.into()).or_insert(span);
    }

    /// Adds an info; `text` comes without the `PromQL info: ` in front.
    pub fn info(&mut self, text: impl Into<String>, span: Span) {
        self.infos.entry(text.into()).or_insert(span);
    }

    /// Adds a warning that is shown as it is, without prefix and place (the store's, for example).
    pub fn remark(&mut self, text: impl Into<String>) {
        self.remarks.insert(text.into());
    }

    /// Adds the info that buckets had to be corrected; the numbers of equal texts are joined.
    pub fn forced_monotonicity(&mut self, metric_name: &str, span: Span, what: ForcedMonotonicity) {
        let text = with_metric_name(
            "input to histogram_quantile needed to be fixed for monotonicity (see \
             https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)",
            metric_name,
        );
        self.add_monotonicity(text, span, what);
    }

    fn add_monotonicity(&mut self, text: String, span: Span, what: ForcedMonotonicity) {
        self.monotonicity.entry(text).and_modify(|(_, sum)| *sum = sum.union(what)).or_insert((span, what));
    }

    /// Takes over what another evaluation found.
    pub fn merge(&mut self, other: Self) {
        for (text, span) in other.warnings {
            self.warnings.entry(text).or_insert(span);
        }
        for (text, span) in other.infos {
            self.infos.entry(text).or_insert(span);
        }
        for (text, (span, what)) in other.monotonicity {
            self.add_monotonicity(text, span, what);
        }
        self.remarks.extend(other.remarks);
    }

    /// Whether something is said in both, but of another place: which is the first, only the whole evaluation knows.
    pub fn disagrees(&self, other: &Self) -> bool {
        let differ = |a: &BTreeMap<String, Span>, b: &BTreeMap<String, Span>| {
            a.iter().any(|(text, span)| b.get(text).is_some_and(|other| other != span))
        };
        let moved = |(text, (span, _)): (&String, &(Span, ForcedMonotonicity))| {
            other.monotonicity.get(text).is_some_and(|(there, _)| there != span)
        };
        differ(&self.warnings, &other.warnings)
            || differ(&self.infos, &other.infos)
            || self.monotonicity.iter().any(moved)
    }

    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        let texts = self.warnings.keys().chain(self.infos.keys()).chain(self.monotonicity.keys());
        texts.chain(&self.remarks).map(|text| text.len() + 128).sum()
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.warnings.is_empty()
            && self.infos.is_empty()
            && self.monotonicity.is_empty()
            && self.remarks.is_empty()
    }

    /// The texts as the API shows them, warnings and infos: with prefix and `(LINE:COL)`, sorted, at
    /// most ten of each and a line that says how many are left out.
    pub fn render(&self, query_text: &str) -> (Vec<String>, Vec<String>) {
        let warning =
            |(text, span): (&String, &Span)| format!("PromQL warning: {text} ({})", place(query_text, *span));
        let mut warnings: Vec<String> = self.remarks.iter().cloned().collect();
        warnings.extend(self.warnings.iter().map(warning));

        let monotonicity = self.monotonicity.iter().map(|(text, (span, what))| {
            let text = format!(
                "{text}, from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
                format_g(what.min_bucket),
                format_g(what.max_bucket),
                format_g_digits(what.max_difference, 2),
                what.samples,
                rfc3339(what.first),
                rfc3339(what.last),
            );
            (text, *span)
        });
        let mut infos: Vec<(String, Span)> =
            self.infos.iter().map(|(text, span)| (text.clone(), *span)).chain(monotonicity).collect();
        infos.sort_by(|a, b| a.0.cmp(&b.0));
        let infos = infos
            .into_iter()
            .map(|(text, span)| format!("PromQL info: {text} ({})", place(query_text, span)))
            .collect();
        (shorten(warnings, "warning"), shorten(infos, "info"))
    }
}

fn shorten(mut texts: Vec<String>, kind: &str) -> Vec<String> {
    if texts.len() > SHOWN {
        let more = texts.len() - SHOWN;
        texts.truncate(SHOWN);
        texts.push(format!("{more} more {kind} annotations omitted"));
    }
    texts
}

/// `LINE:COL` of a span's start, both from 1, columns in bytes.
fn place(text: &str, span: Span) -> String {
    let start = usize::try_from(span.start).unwrap_or(usize::MAX).min(text.len());
    let before = &text.as_bytes()[..start];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    format!("{line}:{}", start - line_start + 1)
}

/// `2006-01-02T15:04:05Z`
fn rfc3339(millis: i64) -> String {
    let Civil { year, month, day, hour, minute, second, .. } =
        Civil::from_unix_seconds(millis.div_euclid(1000));
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Appends ` for metric name "x"` if the name is known.
pub fn with_metric_name(text: &str, metric_name: &str) -> String {
    if metric_name.is_empty() {
        text.to_owned()
    } else {
        format!("{text} for metric name {}", Quoted(metric_name))
    }
}

/// Warns of a quantile outside 0..=1.
pub fn invalid_quantile(q: f64) -> String {
    format!("quantile value should be between 0 and 1, got {}", format_g(q))
}

/// Warns of a ratio outside -1..=1, and says what is taken instead.
pub fn invalid_ratio(ratio: f64, taken: f64) -> String {
    format!("ratio value should be between -1 and 1, got {}, capping to {}", format_g(ratio), format_g(taken))
}

/// Warns of a classic bucket whose bound cannot be read.
pub fn bad_bucket_label(metric_name: &str, label: &str) -> String {
    let text = format!("bucket label \"le\" is missing or has a malformed value of {}", Quoted(label));
    with_metric_name(&text, metric_name)
}

/// Warns of floats beside histograms in one series' range.
pub fn mixed_floats_histograms(metric_name: &str) -> String {
    format!("encountered a mix of histograms and floats for metric name {}", Quoted(metric_name))
}

/// Warns of floats beside histograms in one group of an aggregation.
pub fn mixed_floats_histograms_in_aggregation() -> String {
    "encountered a mix of histograms and floats for aggregation".to_owned()
}

/// Warns of classic and native histograms under the same labels.
pub fn mixed_classic_native(metric_name: &str) -> String {
    with_metric_name("vector contains a mix of classic and native histograms", metric_name)
}

/// Warns of exponential and custom buckets in one computation.
pub fn mixed_exponential_custom(metric_name: &str) -> String {
    format!(
        "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {}",
        Quoted(metric_name)
    )
}

/// Warns of a counter function over gauge histograms.
pub fn histogram_not_counter(metric_name: &str) -> String {
    format!("this native histogram metric is not a counter: {}", Quoted(metric_name))
}

/// Warns of a gauge function over counter histograms.
pub fn histogram_not_gauge(metric_name: &str) -> String {
    format!("this native histogram metric is not a gauge: {}", Quoted(metric_name))
}

/// Warns that histograms with contradicting reset hints were joined by `operation` (`addition`, …).
pub fn counter_reset_collision(operation: &str) -> String {
    format!("conflicting counter resets during histogram {operation}")
}

/// Warns of histograms that an operator cannot join.
pub fn incompatible_bucket_layout(operator: &str) -> String {
    format!("incompatible bucket layout encountered for binary operator {operator}")
}

/// Warns that sorting has no effect.
pub fn sort_in_range_query() -> String {
    "sort is ineffective for range queries since results are always ordered by labels".to_owned()
}

/// Warns of samples that claim to have started before the previous one ended.
pub fn start_time_overlap(metric_name: &str) -> String {
    format!(
        "sample has start time that overlaps with previous sample timestamp for metric {}",
        Quoted(metric_name)
    )
}

/// Informs that a name does not look like a counter's.
pub fn possible_non_counter(metric_name: &str) -> String {
    format!(
        "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
        Quoted(metric_name)
    )
}

/// Informs that a type label does not say counter.
pub fn possible_non_counter_type(metric_name: &str, type_label: &str) -> String {
    format!(
        "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", got {}: {}",
        Quoted(type_label),
        Quoted(metric_name)
    )
}

/// Informs that an operator has no meaning for these kinds of sample (`float`, `histogram`).
pub fn incompatible_types_in_operation(operator: &str, left: &str, right: &str) -> String {
    format!(
        "incompatible sample types encountered for binary operator {}: {left} {operator} {right}",
        Quoted(operator)
    )
}

/// Informs that an aggregation passed over histograms.
pub fn histogram_ignored_in_aggregation(aggregation: &str) -> String {
    format!("ignored histogram in {aggregation} aggregation")
}

/// Informs that a function passed over histograms between floats.
pub fn histograms_ignored_in_mixed_range(metric_name: &str) -> String {
    format!(
        "ignored histograms in a range containing both floats and histograms for metric name {}",
        Quoted(metric_name)
    )
}

/// Informs that samples were downsampled, and what of them lies in a window can only be estimated.
pub fn downsampled_estimate(metric_name: &str) -> String {
    let text = "samples were downsampled, results are estimates where a window or step lies between those that are kept";
    with_metric_name(text, metric_name)
}

/// Informs that samples were downsampled, and the function sees only those that are kept.
pub fn downsampled_kept(metric_name: &str) -> String {
    with_metric_name("samples were downsampled, results are computed from those that are kept", metric_name)
}

/// Informs that NaN observations make a quantile NaN.
pub fn quantile_nan_result(metric_name: &str) -> String {
    with_metric_name("input to histogram_quantile has NaN observations, result is NaN", metric_name)
}

/// Informs that NaN observations make a quantile larger.
pub fn quantile_nan_skew(metric_name: &str) -> String {
    with_metric_name("input to histogram_quantile has NaN observations, result is skewed higher", metric_name)
}

/// Informs that NaN observations are in no fraction.
pub fn fraction_nan(metric_name: &str) -> String {
    with_metric_name(
        "input to histogram_fraction has NaN observations, which are excluded from all fractions",
        metric_name,
    )
}

/// Informs that custom buckets with different bounds were brought to common ones during `operation`.
pub fn mismatched_custom_buckets(operation: &str) -> String {
    format!("mismatched custom buckets were reconciled during {operation}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: u32) -> Span {
        Span { start, end: start + 1 }
    }

    #[test]
    fn a_text_is_shown_once_with_the_place_of_its_first_occurrence() {
        let mut notes = Annotations::default();
        notes.warn("b", at(9));
        notes.warn("b", at(1));
        let mut other = Annotations::default();
        other.warn("b", at(0));
        other.warn("a", at(0));
        other.info("c", at(4));
        notes.merge(other);
        let (warnings, infos) = notes.render("sum(\n  rate(x))");
        assert_eq!(warnings, ["PromQL warning: a (1:1)", "PromQL warning: b (2:5)"]);
        assert_eq!(infos, ["PromQL info: c (1:5)"]);
    }

    #[test]
    fn a_place_outside_the_text_is_its_end() {
        let mut notes = Annotations::default();
        notes.info("x", at(1000));
        assert_eq!(notes.render("up").1, ["PromQL info: x (1:3)"]);
    }

    #[test]
    fn more_than_ten_texts_are_counted() {
        let mut notes = Annotations::default();
        for i in 0..13 {
            notes.warn(format!("{i:02}"), at(0));
            notes.info(format!("{i:02}"), at(0));
        }
        let (warnings, infos) = notes.render("x");
        assert_eq!(warnings.len(), 11);
        assert_eq!(warnings[10], "3 more warning annotations omitted");
        assert_eq!(infos[10], "3 more info annotations omitted");
    }

    #[test]
    fn corrections_of_buckets_add_up() {
        let what = |bound: f64, difference, at| ForcedMonotonicity {
            min_bucket: bound,
            max_bucket: bound,
            max_difference: difference,
            samples: 1,
            first: at,
            last: at,
        };
        let mut notes = Annotations::default();
        notes.forced_monotonicity("x", at(0), what(10.0, 0.5, 1_000));
        let mut other = Annotations::default();
        other.forced_monotonicity("x", at(5), what(1_000_000.0, 2.345, 86_400_000));
        other.forced_monotonicity("", at(5), what(1.0, 1.0, 0));
        notes.merge(other);
        let infos = notes.render("q").1;
        assert_eq!(infos.len(), 2);
        assert_eq!(
            infos[0],
            "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see \
             https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) for metric \
             name \"x\", from buckets 10 to 1e+06, with a max diff of 2.3, over 2 samples from \
             1970-01-01T00:00:01Z to 1970-01-02T00:00:00Z (1:1)"
        );
    }

    #[test]
    fn remarks_stand_first_and_as_they_are() {
        let mut notes = Annotations::default();
        notes.warn("w", at(0));
        notes.remark("a damaged block was left out");
        assert_eq!(notes.render("x").0, ["a damaged block was left out", "PromQL warning: w (1:1)"]);
    }
}
