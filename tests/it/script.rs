//! Scripts of PromQL tests: samples to load, queries, and what they have to answer.
//!
//! ```text
//! # Every minute from t=0: a list of values; `_` is none, `1+2x3` is `1 3 5 7`, `stale` ends a series.
//! # A line may end in `since 30s`, which is when the series started to count.
//! load 1m
//!   up{job="api", zone="a"} 1 1 0 _ 1
//!
//! eval instant at 3m up{zone="a"}
//!   up{job="api", zone="a"} 0
//!
//! eval range from 0 to 4m step 2m sum(up)
//!   {} 1 0 1
//!
//! eval instant at 0 sum(1)
//!   expect fail msg: expected type instant vector
//! ```
//!
//! A command starts at the beginning of a line, what belongs to it is indented. `clear` forgets all
//! samples. `features promql-delayed-name-removal -promql-binop-fill-modifiers` switches features on and,
//! behind a dash, off for the evaluations below it; what it does not name has its default again. Before its results, an evaluation may say `expect ordered`, `expect fail`, `expect warn`,
//! `expect info` (with `msg:` and a part of the text, or `regex:`), `expect no_warn`,
//! `expect no_info`, and `expect string "…"`. Series without values in the answer are not listed.
//!
//! [`parse`] reads a script; [`run`] plays it against a [`Target`], which is all it knows of a
//! database. An instant query is also run as a range query of three steps, the middle one of which has to
//! give the same.

mod compare;
mod read;

use std::sync::Arc;

use luminate::{
    model::{Histogram, Labels},
    promql::{Answer, Features, MatrixSeries, Point, Value, VectorElement, histogram::FloatHistogram},
};
pub(crate) use read::parse;

/// A database under test.
pub(crate) trait Target {
    /// Forgets all samples, say by starting a new tenant.
    fn clear(&mut self);

    /// Answers what follows with these features.
    fn set_features(&mut self, features: Features);

    /// Stores samples; those of a series are in order of time.
    fn write(&mut self, series: &[Series]) -> Result<(), String>;

    /// Answers a query at an instant, in milliseconds.
    fn instant(&mut self, query: &str, at: i64) -> Result<Answer, String>;

    /// Answers a query over a range, in milliseconds.
    fn range(&mut self, query: &str, start: i64, end: i64, step: i64) -> Result<Answer, String>;

    /// Whether a histogram of an answer is the one that a script wants.
    fn is_histogram(&self, wanted: &Histogram, got: &FloatHistogram) -> bool;
}

/// Samples to be stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) labels: Labels,
    /// Times in milliseconds.
    pub(crate) samples: Vec<(i64, Sample)>,
    /// When counting started, in milliseconds; 0 is not known.
    pub(crate) start: i64,
}

/// A sample to be stored, or wanted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sample {
    Float(f64),
    Histogram(Arc<Histogram>),
    Stale,
}

/// A command of a script, and its line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Command {
    pub(crate) line: usize,
    pub(crate) action: Action,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Clear,
    /// The script is about what is computed of samples, not about how they are stored or found.
    Computation,
    Features(Features),
    Load(Vec<Series>),
    Eval(Eval),
}

/// A query and what it has to answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Eval {
    pub(crate) query: String,
    pub(crate) when: When,
    pub(crate) expect: Expect,
    pub(crate) wanted: Vec<Wanted>,
}

/// For which times a query is evaluated, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Instant(i64),
    Range { start: i64, end: i64, step: i64 },
}

/// What an evaluation has to do besides giving its values.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Expect {
    pub(crate) ordered: bool,
    pub(crate) fail: Option<Text>,
    pub(crate) warn: Vec<Text>,
    pub(crate) info: Vec<Text>,
    pub(crate) no_warn: bool,
    pub(crate) no_info: bool,
    pub(crate) string: Option<String>,
    /// The steps at which an instant query gives a matrix's samples.
    pub(crate) matrix: Option<(i64, i64)>,
}

/// What a text has to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Any,
    Contains(String),
    Matches(String),
}

/// A series wanted in an answer; without labels at all, a scalar.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) labels: Option<Labels>,
    pub(crate) values: Vec<Option<Sample>>,
}

/// What became of a script.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) passed: usize,
    /// Each with its line, query and reason.
    pub(crate) failures: Vec<String>,
}

/// Plays a script.
pub(crate) fn run(name: &str, script: &[Command], target: &mut dyn Target) -> Report {
    let mut report = Report::default();
    target.clear();
    target.set_features(Features::default());
    for Command { line, action } in script {
        let (what, result) = match action {
            Action::Clear => {
                target.clear();
                continue;
            }
            Action::Computation => continue,
            Action::Features(features) => {
                target.set_features(*features);
                continue;
            }
            Action::Load(series) => match target.write(series) {
                Ok(()) => continue,
                Err(e) => ("load", Err(e)),
            },
            Action::Eval(eval) => (eval.query.as_str(), evaluate(eval, target)),
        };
        match result {
            Ok(()) => report.passed += 1,
            Err(why) => report.failures.push(format!("{name}:{line}: {what}\n    {why}")),
        }
    }
    report
}

fn evaluate(eval: &Eval, target: &mut dyn Target) -> Result<(), String> {
    match eval.when {
        When::Range { start, end, step } => {
            let answer = target.range(&eval.query, start, end, step);
            compare::check(eval, answer, target)
        }
        When::Instant(at) => {
            let answer = target.instant(&eval.query, at);
            let again = answer.is_ok() && has_a_middle_step(eval);
            compare::check(eval, answer, target)?;
            if again {
                const STEP: i64 = 60_000;
                let answer = target.range(&eval.query, at - STEP, at + STEP, STEP);
                let answer = answer.map_err(|e| format!("as a range query: {e}"))?;
                let is_scalar = matches!(eval.wanted.as_slice(), [Wanted { labels: None, .. }]);
                let middle = at_step(answer.value, at, is_scalar);
                compare::check_values(eval, &middle, target).map_err(|e| format!("as a range query: {e}"))?;
            }
            Ok(())
        }
    }
}

/// Whether an instant query gives the same as a step of a range query.
fn has_a_middle_step(eval: &Eval) -> bool {
    // These depend on the query's range, or on where it starts.
    const DEPENDS: [&str; 6] = ["start()", "end()", "step()", "range()", "info(", "limit_ratio("];
    let whole_values = eval.expect.string.is_none() && eval.expect.matrix.is_none() && !eval.expect.ordered;
    whole_values && DEPENDS.iter().all(|word| !eval.query.contains(word))
}

/// The vector that a matrix holds at a time, or the scalar, which a range query gives as a series.
fn at_step(value: Value, at: i64, is_scalar: bool) -> Value {
    let Value::Matrix(series) = value else { return value };
    let element = |MatrixSeries { labels, floats, histograms }: MatrixSeries| {
        let float = floats.into_iter().find(|(t, _)| *t == at).map(|(_, v)| Point::Float(v));
        let histogram = || histograms.into_iter().find(|(t, _)| *t == at).map(|(_, h)| Point::Histogram(h));
        Some(VectorElement { labels, timestamp: at, value: float.or_else(histogram)? })
    };
    let elements: Vec<VectorElement> = series.into_iter().filter_map(element).collect();
    match elements.as_slice() {
        [VectorElement { labels, value: Point::Float(value), .. }] if is_scalar && labels.is_empty() => {
            Value::Scalar { timestamp: at, value: *value }
        }
        _ => Value::Vector(elements),
    }
}

#[cfg(test)]
mod tests {
    use luminate::promql::QueryStats;

    use super::*;

    /// Answers everything with the same.
    struct Always(Result<Answer, String>);

    impl Target for Always {
        fn clear(&mut self) {}

        fn set_features(&mut self, _: Features) {}

        fn write(&mut self, _: &[Series]) -> Result<(), String> {
            Ok(())
        }

        fn instant(&mut self, _: &str, _: i64) -> Result<Answer, String> {
            self.0.clone()
        }

        fn range(&mut self, _: &str, start: i64, _: i64, step: i64) -> Result<Answer, String> {
            let elements = match &self.0 {
                Ok(Answer { value: Value::Vector(elements), .. }) => elements.clone(),
                Ok(Answer { value: Value::Scalar { value, .. }, .. }) => {
                    vec![VectorElement { labels: Labels::empty(), timestamp: 0, value: Point::Float(*value) }]
                }
                other => return other.clone(),
            };
            let series = elements.iter().map(|e| MatrixSeries {
                labels: e.labels.clone(),
                floats: match e.value {
                    Point::Float(v) => (0..3).map(|i| (start + i * step, v)).collect(),
                    Point::Histogram(_) => Vec::new(),
                },
                histograms: Vec::new(),
            });
            Ok(answer(Value::Matrix(series.collect())))
        }

        fn is_histogram(&self, _: &Histogram, _: &FloatHistogram) -> bool {
            false
        }
    }

    fn answer(value: Value) -> Answer {
        Answer {
            value,
            warnings: vec!["PromQL warning: beware (1:1)".to_owned()],
            infos: Vec::new(),
            stats: QueryStats::default(),
        }
    }

    fn vector(elements: &[(&str, f64)]) -> Always {
        let elements = elements.iter().map(|(zone, value)| VectorElement {
            labels: Labels::from_pairs([("zone", zone)]).unwrap(),
            timestamp: 0,
            value: Point::Float(*value),
        });
        Always(Ok(answer(Value::Vector(elements.collect()))))
    }

    /// The first failure of an evaluation with these lines.
    fn failure(target: &mut Always, lines: &str) -> Option<String> {
        let script = parse(&format!("eval instant at 0 foo\n{lines}")).unwrap();
        run("x.test", &script, target).failures.pop()
    }

    #[test]
    fn values_are_compared_with_a_tolerance() {
        let mut target = vector(&[("a", 1.0), ("b", f64::NAN)]);
        assert_eq!(failure(&mut target, "  {zone=\"b\"} NaN\n  {zone=\"a\"} 1.0000001"), None);
        let off = failure(&mut target, "  {zone=\"b\"} NaN\n  {zone=\"a\"} 1.001").unwrap();
        assert!(off.starts_with("x.test:1: foo\n    {zone=\"a\"}: got 1, wanted 1.001"), "{off}");
        assert!(failure(&mut target, "  {zone=\"a\"} 1").unwrap().contains("2 elements, wanted 1"));
        assert!(
            failure(&mut target, "  {zone=\"a\"} 1\n  {zone=\"c\"} 1").unwrap().contains("no {zone=\"c\"}")
        );
    }

    #[test]
    fn order_counts_where_it_is_expected() {
        let mut target = vector(&[("a", 1.0), ("b", 2.0)]);
        assert_eq!(failure(&mut target, "  expect ordered\n  {zone=\"a\"} 1\n  {zone=\"b\"} 2"), None);
        assert_eq!(failure(&mut target, "  {zone=\"b\"} 2\n  {zone=\"a\"} 1"), None);
        assert!(failure(&mut target, "  expect ordered\n  {zone=\"b\"} 2\n  {zone=\"a\"} 1").is_some());
    }

    #[test]
    fn warnings_and_failures_are_compared() {
        let mut target = vector(&[]);
        assert_eq!(failure(&mut target, "  expect warn msg: PromQL warning: beware\n  expect no_info"), None);
        assert_eq!(failure(&mut target, "  expect warn regex: be.are"), None);
        assert!(failure(&mut target, "  expect warn msg: other").is_some());
        assert!(failure(&mut target, "  expect no_warn").is_some());
        assert!(failure(&mut target, "  expect info").is_some());
        assert!(failure(&mut target, "  expect fail").unwrap().contains("did not fail"));
        let mut fails = Always(Err("it broke".to_owned()));
        assert_eq!(failure(&mut fails, "  expect fail msg: broke"), None);
        assert_eq!(failure(&mut fails, "  expect fail regex: ^it b.*e$"), None);
        assert!(failure(&mut fails, "  expect fail msg: fell").is_some());
        assert!(failure(&mut fails, "  {} 1").unwrap().contains("it broke"));
    }

    #[test]
    fn scalars_and_strings_are_compared() {
        let mut scalar = Always(Ok(answer(Value::Scalar { timestamp: 0, value: 2.0 })));
        assert_eq!(failure(&mut scalar, "  2"), None);
        assert!(failure(&mut scalar, "  3").is_some());
        let mut string = Always(Ok(answer(Value::String { timestamp: 0, value: "hi".to_owned() })));
        assert_eq!(failure(&mut string, "  expect string \"hi\""), None);
        assert!(failure(&mut string, "  expect string \"ho\"").is_some());
        assert!(failure(&mut string, "  2").is_some());
    }

    #[test]
    fn a_range_query_is_compared_step_by_step() {
        let labels = Labels::from_pairs([("zone", "a")]).unwrap();
        let series = MatrixSeries { labels, floats: vec![(0, 1.0), (120_000, 3.0)], histograms: Vec::new() };
        let mut target = Always(Ok(answer(Value::Matrix(vec![series]))));
        let mut failure = |values: &str| {
            let text = format!("eval range from 0 to 2m step 1m foo\n  {{zone=\"a\"}} {values}");
            run("x.test", &parse(&text).unwrap(), &mut target).failures.pop()
        };
        assert_eq!(failure("1 _ 3"), None);
        assert!(failure("1 2 3").unwrap().contains("nothing at 60000"));
        assert!(failure("1 _ 4").is_some());
        assert!(failure("1 _").unwrap().contains("2 samples, wanted 1"));
    }
}
