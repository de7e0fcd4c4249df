//! Durations in brackets and after `offset`, worked out to milliseconds.
//!
//! A literal is rounded to the nearest millisecond; what is computed is cut off to whole ones, as in
//! Prometheus.

use crate::promql::{
    QueryError,
    parse::{DurationExpr, DurationOp, Span},
};

/// What `step()` and `range()` stand for, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct QueryTimes<'a> {
    /// The query's text, for the positions in errors.
    pub text: &'a str,
    /// The query's step; 0 in an instant query.
    pub step: i64,
    /// From the query's start to its end.
    pub range: i64,
}

/// A range or a step: above zero.
pub fn positive(expr: &DurationExpr, times: &QueryTimes<'_>) -> Result<i64, QueryError> {
    let (millis, seconds) = resolve(expr, times)?;
    if seconds > 0.0 { Ok(millis) } else { Err(times.error(span(expr), "duration must be greater than 0")) }
}

/// An offset: any sign.
pub fn signed(expr: &DurationExpr, times: &QueryTimes<'_>) -> Result<i64, QueryError> {
    resolve(expr, times).map(|(millis, _)| millis)
}

fn resolve(expr: &DurationExpr, times: &QueryTimes<'_>) -> Result<(i64, f64), QueryError> {
    /// 2^63 nanoseconds: what Go's `time.Duration` can hold.
    const LONGEST_SECONDS: f64 = 9_223_372_036.854_775;
    let seconds = evaluate(expr, times)?;
    if seconds.is_nan() || seconds.abs() > LONGEST_SECONDS {
        return Err(times.error(span(expr), "duration is out of range"));
    }
    let millis = seconds * 1000.0;
    let millis = if is_literal(expr) { millis.round() } else { millis.trunc() };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "within 2^63 nanoseconds, so within an i64 of milliseconds"
    )]
    Ok((millis as i64, seconds))
}

fn is_literal(expr: &DurationExpr) -> bool {
    match expr {
        DurationExpr::Literal { .. } => true,
        DurationExpr::Unary(DurationOp::Add | DurationOp::Sub, inner, _) => is_literal(inner),
        DurationExpr::Paren(inner, _) => is_literal(inner),
        DurationExpr::Unary(..)
        | DurationExpr::Step(_)
        | DurationExpr::Range(_)
        | DurationExpr::MinOf(..)
        | DurationExpr::MaxOf(..)
        | DurationExpr::Binary(..) => false,
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a query's range fit a float's 53 bits")]
fn evaluate(expr: &DurationExpr, times: &QueryTimes<'_>) -> Result<f64, QueryError> {
    Ok(match expr {
        DurationExpr::Literal { seconds, .. } => *seconds,
        DurationExpr::Step(_) => times.step as f64 / 1000.0,
        DurationExpr::Range(_) => times.range as f64 / 1000.0,
        DurationExpr::MinOf(a, b, _) => {
            let (a, b) = (evaluate(a, times)?, evaluate(b, times)?);
            if b < a { b } else { a }
        }
        DurationExpr::MaxOf(a, b, _) => {
            let (a, b) = (evaluate(a, times)?, evaluate(b, times)?);
            if b > a { b } else { a }
        }
        DurationExpr::Unary(op, inner, _) => {
            let value = evaluate(inner, times)?;
            if *op == DurationOp::Sub { -value } else { value }
        }
        DurationExpr::Paren(inner, _) => evaluate(inner, times)?,
        DurationExpr::Binary(op, a, b, _) => {
            let (left, right) = (evaluate(a, times)?, evaluate(b, times)?);
            match op {
                DurationOp::Add => left + right,
                DurationOp::Sub => left - right,
                DurationOp::Mul => left * right,
                DurationOp::Div if right == 0.0 => return Err(times.error(span(b), "division by zero")),
                DurationOp::Div => left / right,
                DurationOp::Mod if right == 0.0 => return Err(times.error(span(b), "modulo by zero")),
                DurationOp::Mod => left % right,
                DurationOp::Pow => left.powf(right),
            }
        }
    })
}

fn span(expr: &DurationExpr) -> Span {
    match expr {
        DurationExpr::Literal { span, .. }
        | DurationExpr::Step(span)
        | DurationExpr::Range(span)
        | DurationExpr::MinOf(_, _, span)
        | DurationExpr::MaxOf(_, _, span)
        | DurationExpr::Unary(_, _, span)
        | DurationExpr::Binary(_, _, _, span)
        | DurationExpr::Paren(_, span) => *span,
    }
}

impl QueryTimes<'_> {
    /// `LINE:COLUMN: message`, as Prometheus words what it finds after parsing.
    fn error(&self, span: Span, message: &str) -> QueryError {
        let at = usize::try_from(span.start).unwrap_or(usize::MAX).min(self.text.len());
        let before = &self.text.as_bytes()[..at];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
        QueryError::BadData(format!("{line}:{column}: {message}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(seconds: f64) -> Box<DurationExpr> {
        Box::new(DurationExpr::Literal { seconds, duration: false, span: Span { start: 4, end: 5 } })
    }

    const TIMES: QueryTimes<'_> = QueryTimes { text: "x[\n5/0]", step: 15_000, range: 60_000 };

    #[test]
    fn a_literal_is_rounded_and_a_computation_is_cut_off() {
        assert_eq!(positive(&literal(1.0006), &TIMES).unwrap(), 1001);
        let sum = DurationExpr::Binary(DurationOp::Add, literal(1.0), literal(0.0009), Span::default());
        assert_eq!(positive(&sum, &TIMES).unwrap(), 1000);
    }

    #[test]
    fn step_and_range_are_those_of_the_query() {
        let step = DurationExpr::Step(Span::default());
        let range = DurationExpr::Range(Span::default());
        assert_eq!(positive(&step, &TIMES).unwrap(), 15_000);
        let least = DurationExpr::MaxOf(Box::new(step), Box::new(range), Span::default());
        assert_eq!(positive(&least, &TIMES).unwrap(), 60_000);
    }

    #[test]
    fn what_makes_no_sense_is_an_error_with_its_place() {
        let zero = DurationExpr::Binary(DurationOp::Div, literal(5.0), literal(0.0), Span::default());
        assert_eq!(positive(&zero, &TIMES).unwrap_err().to_string(), "2:2: division by zero");
        let negative = DurationExpr::Unary(DurationOp::Sub, literal(5.0), Span { start: 3, end: 5 });
        assert_eq!(signed(&negative, &TIMES).unwrap(), -5000);
        assert_eq!(
            positive(&negative, &TIMES).unwrap_err().to_string(),
            "2:1: duration must be greater than 0"
        );
        let huge = DurationExpr::Binary(DurationOp::Pow, literal(1e9), literal(99.0), Span::default());
        assert!(signed(&huge, &TIMES).unwrap_err().to_string().ends_with("duration is out of range"));
    }
}
