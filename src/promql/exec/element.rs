//! Operators on values: two floats in a tight loop, anything with a histogram one by one.

use std::sync::Arc;

use super::rows::{ABSENT, Row, is_absent};
use crate::{
    model::METRIC_NAME,
    promql::{
        Point,
        annotations::{self, Annotations},
        histogram::{
            FloatHistogram,
            arithmetic::{Joined, Mismatch},
        },
        parse::{BinaryOp, Span},
    },
};

/// An operator as it stands in the query.
#[derive(Clone, Copy, Debug)]
pub struct Operator {
    /// Which.
    pub op: BinaryOp,
    /// Compare to 0 or 1 instead of filtering.
    pub return_bool: bool,
    /// Where the whole expression stands; remarks point there.
    pub span: Span,
}

/// How a row takes part in an operation that overwrites it.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// It stands left of the operator.
    pub is_left: bool,
    /// A comparison that holds keeps its value, not the other's.
    pub is_kept: bool,
}

impl Operator {
    /// Whether its result is something else than the metric measured.
    pub fn changes_meaning(&self) -> bool {
        !self.op.is_comparison() && !self.op.is_trim() && !self.op.is_set()
    }

    /// Overwrites `row` with the result of it and `other`; a place absent in either becomes absent.
    pub fn apply(&self, row: &mut Row, side: Side, other: &Row, notes: &mut Annotations) {
        if self.op.is_trim()
            && row.floats.iter().zip(&other.floats).any(|(a, b)| !is_absent(*a) && !is_absent(*b))
        {
            let float = Point::Float(0.0);
            self.incompatible(&float, &float, notes);
        }
        if row.histograms.is_empty() && other.histograms.is_empty() {
            self.floats(&mut row.floats, side, &other.floats);
            return;
        }
        let before = row.clone();
        self.floats(&mut row.floats, side, &other.floats);
        row.histograms.clear();
        let mut steps: Vec<u32> =
            before.histograms.iter().chain(&other.histograms).map(|(step, _)| *step).collect();
        steps.sort_unstable();
        steps.dedup();
        for step in steps {
            let Ok(at) = usize::try_from(step) else { continue };
            let (Some(ours), Some(theirs)) = (point(&before, at), point(other, at)) else { continue };
            let (left, right) = if side.is_left { (&ours, &theirs) } else { (&theirs, &ours) };
            let kept = if side.is_kept { &ours } else { &theirs };
            match self.points(left, right, kept, notes) {
                Some(Point::Float(value)) => row.floats[at] = value,
                Some(Point::Histogram(histogram)) => row.histograms.push((step, histogram)),
                None => {}
            }
        }
    }

    /// The same for floats alone.
    pub fn floats(&self, row: &mut [f64], side: Side, other: &[f64]) {
        match self.op {
            BinaryOp::Add => compute(row, side, other, |a, b| a + b),
            BinaryOp::Sub => compute(row, side, other, |a, b| a - b),
            BinaryOp::Mul => compute(row, side, other, |a, b| a * b),
            BinaryOp::Div => compute(row, side, other, |a, b| a / b),
            BinaryOp::Mod => compute(row, side, other, |a, b| a % b),
            BinaryOp::Pow => compute(row, side, other, f64::powf),
            BinaryOp::Atan2 => compute(row, side, other, f64::atan2),
            BinaryOp::Eq => self.compare(row, side, other, |a, b| a == b),
            BinaryOp::Ne => self.compare(row, side, other, |a, b| a != b),
            BinaryOp::Lt => self.compare(row, side, other, |a, b| a < b),
            BinaryOp::Le => self.compare(row, side, other, |a, b| a <= b),
            BinaryOp::Gt => self.compare(row, side, other, |a, b| a > b),
            BinaryOp::Ge => self.compare(row, side, other, |a, b| a >= b),
            // There is nothing to trim in a float, and sets are not made value by value.
            BinaryOp::TrimUpper | BinaryOp::TrimLower | BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => {
                row.fill(ABSENT);
            }
        }
    }

    fn compare(&self, row: &mut [f64], side: Side, other: &[f64], holds: impl Fn(f64, f64) -> bool) {
        let return_bool = self.return_bool;
        for (ours, theirs) in row.iter_mut().zip(other) {
            if is_absent(*ours) {
                continue;
            }
            if is_absent(*theirs) {
                *ours = ABSENT;
                continue;
            }
            let yes = if side.is_left { holds(*ours, *theirs) } else { holds(*theirs, *ours) };
            *ours = match (return_bool, yes) {
                (true, yes) => f64::from(u8::from(yes)),
                (false, false) => ABSENT,
                (false, true) if side.is_kept => *ours,
                (false, true) => *theirs,
            };
        }
    }

    fn points(&self, left: &Point, right: &Point, kept: &Point, notes: &mut Annotations) -> Option<Point> {
        if self.op.is_comparison() {
            let yes = match (left, right, self.op) {
                (Point::Histogram(l), Point::Histogram(r), BinaryOp::Eq) => l.equals(r),
                (Point::Histogram(l), Point::Histogram(r), BinaryOp::Ne) => !l.equals(r),
                _ => return self.incompatible(left, right, notes),
            };
            return match (self.return_bool, yes) {
                (true, yes) => Some(Point::Float(f64::from(u8::from(yes)))),
                (false, true) => Some(kept.clone()),
                (false, false) => None,
            };
        }
        let histogram = match (left, right, self.op) {
            (Point::Histogram(l), Point::Histogram(r), BinaryOp::Add) => {
                self.join(l, notes, "addition", |sum| sum.add(r))?
            }
            (Point::Histogram(l), Point::Histogram(r), BinaryOp::Sub) => {
                let mut difference = self.join(l, notes, "subtraction", |sum| sum.sub(r))?;
                difference.reset_hint = crate::model::histogram::ResetHint::Gauge;
                difference
            }
            (Point::Histogram(h), Point::Float(f), BinaryOp::Mul)
            | (Point::Float(f), Point::Histogram(h), BinaryOp::Mul) => {
                let mut product = FloatHistogram::clone(h);
                product.mul(*f);
                product
            }
            (Point::Histogram(h), Point::Float(f), BinaryOp::Div) => {
                let mut quotient = FloatHistogram::clone(h);
                quotient.div(*f);
                quotient
            }
            (Point::Histogram(h), Point::Float(limit), BinaryOp::TrimUpper) => h.without_above(*limit),
            (Point::Histogram(h), Point::Float(limit), BinaryOp::TrimLower) => h.without_below(*limit),
            _ => return self.incompatible(left, right, notes),
        };
        Some(Point::Histogram(Arc::new(histogram)))
    }

    fn join(
        &self,
        left: &FloatHistogram,
        notes: &mut Annotations,
        operation: &str,
        join: impl FnOnce(&mut FloatHistogram) -> Result<Joined, Mismatch>,
    ) -> Option<FloatHistogram> {
        let mut result = left.clone();
        match join(&mut result) {
            Ok(joined) => {
                if joined.reset_collision {
                    notes.warn(annotations::counter_reset_collision(operation), self.span);
                }
                if joined.bounds_reconciled {
                    notes.info(annotations::mismatched_custom_buckets(operation), self.span);
                }
                result.compact();
                Some(result)
            }
            Err(Mismatch::Schemas) => {
                notes.warn(annotations::incompatible_bucket_layout(self.op.as_str()), self.span);
                None
            }
        }
    }

    fn incompatible(&self, left: &Point, right: &Point, notes: &mut Annotations) -> Option<Point> {
        let kind = |point: &Point| match point {
            Point::Float(_) => "float",
            Point::Histogram(_) => "histogram",
        };
        let text = annotations::incompatible_types_in_operation(self.op.as_str(), kind(left), kind(right));
        notes.info(text, self.span);
        None
    }
}

fn compute(row: &mut [f64], side: Side, other: &[f64], result: impl Fn(f64, f64) -> f64) {
    for (ours, theirs) in row.iter_mut().zip(other) {
        let absent = is_absent(*ours) || is_absent(*theirs);
        let value = if side.is_left { result(*ours, *theirs) } else { result(*theirs, *ours) };
        *ours = if absent { ABSENT } else { value };
    }
}

fn point(row: &Row, step: usize) -> Option<Point> {
    if let Some(histogram) = row.histogram(step) {
        return Some(Point::Histogram(Arc::clone(histogram)));
    }
    let value = *row.floats.get(step)?;
    (!is_absent(value)).then_some(Point::Float(value))
}

/// Whether a label has no part in matching unless it is asked for.
pub fn is_name(label: &str) -> bool {
    label == METRIC_NAME
}
