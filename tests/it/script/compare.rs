//! Whether an answer is the one that was wanted.

use std::sync::Arc;

use luminate::{
    model::{Labels, is_stale},
    promql::{Answer, MatrixSeries, Point, Value, VectorElement},
};
use regex_automata::meta::Regex;

use super::{Eval, Sample, Target, Text, Wanted, When};

/// How far floats may be apart, relative to the sum of their amounts.
const TOLERANCE: f64 = 1e-6;

/// Checks an answer, or a failure, against an evaluation.
pub(super) fn check(eval: &Eval, answer: Result<Answer, String>, target: &dyn Target) -> Result<(), String> {
    let expect = &eval.expect;
    let answer = match (answer, &expect.fail) {
        (Ok(answer), None) => answer,
        (Ok(answer), Some(_)) => return Err(format!("did not fail but gave {:?}", answer.value)),
        (Err(error), None) => return Err(format!("failed: {error}")),
        (Err(error), Some(text)) => {
            return fits(text, &error)?.then_some(()).ok_or(format!("failed: {error}"));
        }
    };
    annotations("warning", &expect.warn, expect.no_warn, &answer.warnings)?;
    annotations("info", &expect.info, expect.no_info, &answer.infos)?;
    check_values(eval, &answer.value, target)
}

fn annotations(kind: &str, wanted: &[Text], none: bool, got: &[String]) -> Result<(), String> {
    if none && !got.is_empty() {
        return Err(format!("unexpected {kind} {got:?}"));
    }
    for text in wanted {
        let mut found = false;
        for one in got {
            found |= fits(text, one)?;
        }
        if !found {
            return Err(format!("no {kind} {text:?} in {got:?}"));
        }
    }
    Ok(())
}

fn fits(text: &Text, got: &str) -> Result<bool, String> {
    match text {
        Text::Any => Ok(true),
        Text::Contains(part) => Ok(got.contains(part.as_str())),
        Text::Matches(pattern) => {
            Regex::new(pattern).map(|r| r.is_match(got)).map_err(|e| format!("{pattern}: {e}"))
        }
    }
}

/// Checks the values of an answer.
pub(super) fn check_values(eval: &Eval, value: &Value, target: &dyn Target) -> Result<(), String> {
    match (value, &eval.expect.string) {
        (Value::String { value, .. }, Some(wanted)) if value == wanted => Ok(()),
        (other, Some(wanted)) => Err(format!("got {other:?}, wanted {wanted:?}")),
        (Value::String { value, .. }, None) => Err(format!("got the string {value:?}")),
        (Value::Scalar { value, .. }, None) => scalar(&eval.wanted, *value),
        (Value::Vector(elements), None) => vector(eval, elements, target),
        (Value::Matrix(series), None) => matrix(eval, series, target),
    }
}

fn scalar(wanted: &[Wanted], value: f64) -> Result<(), String> {
    match wanted {
        [Wanted { labels: None, values }] => match values.as_slice() {
            [Some(Sample::Float(wanted))] if close(*wanted, value) => Ok(()),
            _ => Err(format!("got {value}, wanted {values:?}")),
        },
        _ => Err(format!("got the scalar {value}")),
    }
}

fn vector(eval: &Eval, got: &[VectorElement], target: &dyn Target) -> Result<(), String> {
    let wanted = &eval.wanted;
    if got.len() != wanted.len() {
        let all: Vec<_> = got.iter().map(|e| format!("{} {}", e.labels, shown(&e.value))).collect();
        return Err(format!("{} elements, wanted {}: {all:?}", got.len(), wanted.len()));
    }
    if eval.expect.ordered {
        let first_off = got.iter().zip(wanted).find(|(g, w)| Some(&g.labels) != w.labels.as_ref());
        if let Some((got, wanted)) = first_off {
            return Err(format!("{} comes where {} should", got.labels, name_of(wanted)));
        }
    }
    for want in wanted {
        let found = got.iter().find(|e| Some(&e.labels) == want.labels.as_ref());
        let Some(found) = found else {
            let all: Vec<_> = got.iter().map(|e| e.labels.to_string()).collect();
            return Err(format!("no {} in {all:?}", name_of(want)));
        };
        match want.values.as_slice() {
            [Some(value)] if is_value(value, &found.value, target) => {}
            [Some(value)] => return Err(differs(&found.labels, &found.value, value)),
            other => return Err(format!("a vector's element has one value, not {other:?}")),
        }
    }
    Ok(())
}

fn matrix(eval: &Eval, got: &[MatrixSeries], target: &dyn Target) -> Result<(), String> {
    let (start, step) = match (eval.when, eval.expect.matrix) {
        (_, Some(grid)) => grid,
        (When::Range { start, step, .. }, None) => (start, step),
        (When::Instant(_), None) => return Err("got a matrix".to_owned()),
    };
    if matches!(eval.when, When::Range { .. }) && !got.is_sorted_by(|a, b| a.labels < b.labels) {
        return Err("series are not sorted by labels".to_owned());
    }
    let wanted: Vec<&Wanted> = eval.wanted.iter().filter(|w| w.values.iter().any(Option::is_some)).collect();
    if got.len() != wanted.len() {
        let all: Vec<_> = got.iter().map(|s| format!("{} {:?}", s.labels, s.floats)).collect();
        return Err(format!("{} series, wanted {}: {all:?}", got.len(), wanted.len()));
    }
    for want in wanted {
        let found = got.iter().find(|s| Some(&s.labels) == want.labels.as_ref().or(Some(&Labels::empty())));
        let Some(found) = found else {
            let all: Vec<_> = got.iter().map(|s| s.labels.to_string()).collect();
            return Err(format!("no {} in {all:?}", name_of(want)));
        };
        let mut times = start..;
        let mut count = 0;
        for value in &want.values {
            let at = times.start;
            times.start += step;
            let Some(value) = value else { continue };
            count += 1;
            let float = found.floats.iter().find(|(t, _)| *t == at).map(|(_, v)| Point::Float(*v));
            let histogram =
                found.histograms.iter().find(|(t, _)| *t == at).map(|(_, h)| Point::Histogram(Arc::clone(h)));
            let Some(point) = float.or(histogram) else {
                return Err(format!("{}: nothing at {at}, only {:?}", found.labels, found.floats));
            };
            if !is_value(value, &point, target) {
                return Err(format!("at {at}, {}", differs(&found.labels, &point, value)));
            }
        }
        let samples = found.floats.len() + found.histograms.len();
        if samples != count {
            return Err(format!("{}: {samples} samples, wanted {count}: {:?}", found.labels, found.floats));
        }
    }
    Ok(())
}

fn is_value(wanted: &Sample, got: &Point, target: &dyn Target) -> bool {
    match (wanted, got) {
        (Sample::Float(wanted), Point::Float(got)) => close(*wanted, *got),
        (Sample::Histogram(wanted), Point::Histogram(got)) => target.is_histogram(wanted, got),
        (Sample::Stale, Point::Float(got)) => is_stale(*got),
        (Sample::Float(_), Point::Histogram(_)) | (Sample::Histogram(_) | Sample::Stale, _) => false,
    }
}

/// Whether two floats are the same but for rounding.
fn close(a: f64, b: f64) -> bool {
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if a == b || (a.is_nan() && b.is_nan()) {
        return true;
    }
    let (apart, size) = ((a - b).abs(), a.abs() + b.abs());
    if a == 0.0 || b == 0.0 || size < f64::MIN_POSITIVE {
        return apart < TOLERANCE * f64::MIN_POSITIVE;
    }
    apart / size.min(f64::MAX) < TOLERANCE
}

fn name_of(wanted: &Wanted) -> String {
    wanted.labels.as_ref().map_or("a scalar".to_owned(), Labels::to_string)
}

fn shown(value: &Point) -> String {
    match value {
        Point::Float(value) => value.to_string(),
        Point::Histogram(value) => format!("{value:?}"),
    }
}

fn differs(labels: &Labels, got: &Point, wanted: &Sample) -> String {
    let wanted = match wanted {
        Sample::Float(value) => value.to_string(),
        Sample::Histogram(value) => format!("{value:?}"),
        Sample::Stale => "a stale marker".to_owned(),
    };
    format!("{labels}: got {}, wanted {wanted}", shown(got))
}
