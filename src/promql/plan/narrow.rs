//! Selectors narrowed by what they are matched with.
//!
//! Of `a{job="x"} / b` only those `b` matter that have `job="x"`, too: two elements meet if their labels are the
//! same, so what is asked of a label on one side holds on the other. The matcher goes over to the other selector,
//! and what would have met nothing is never read.
//!
//! It goes only where nothing but speed can come of it:
//!
//! * The label takes part in the matching, and on both sides reaches the operator as the selector has it.
//! * Elements without a partner leave no trace: not with `or` and `fill`, nor on the left of `unless`.
//! * No error is lost. That two elements of the "one" side meet is an error even if nothing meets them, so that
//!   side must be one where they cannot; and nothing below may fail for series that are then left out.
//! * No remark is lost. What says something about a series, `rate` for one about a gauge or about histograms among
//!   floats, says it of all of them, so what it reads stays as it is.

use std::sync::Arc;

use crate::{
    model::{METRIC_NAME, Matcher},
    promql::{
        functions::{instant::InstantFunction, range::RangeFunction, vector::is_metadata_label},
        parse::{
            Aggregate, AggregateOp, Binary, BinaryOp, Cardinality, Expr, VectorMatching, VectorSelector,
        },
    },
};

use super::names_one_metric;

/// Narrows all selectors of an expression.
pub fn narrow(expr: &mut Expr) {
    let mut todo = vec![expr];
    while let Some(expr) = todo.pop() {
        match expr {
            Expr::Binary(binary) => {
                narrow_sides(binary);
                todo.extend([&mut *binary.lhs, &mut *binary.rhs]);
            }
            Expr::Call(call) => todo.extend(&mut call.args),
            Expr::Aggregate(aggregate) => {
                todo.extend(aggregate.param.as_deref_mut());
                todo.push(&mut aggregate.expr);
            }
            Expr::Subquery(subquery) => todo.push(&mut subquery.expr),
            Expr::Unary(unary) => todo.push(&mut unary.expr),
            Expr::Paren(paren) => todo.push(&mut paren.expr),
            Expr::Number(_) | Expr::String(_) | Expr::Vector(_) | Expr::Matrix(_) => {}
        }
    }
}

fn narrow_sides(binary: &mut Binary) {
    let Some(matching) = &binary.matching else { return };
    if matching.fill_left.is_some() || matching.fill_right.is_some() {
        return;
    }
    let (Some(left), Some(right)) = (Side::of(&binary.lhs), Side::of(&binary.rhs)) else { return };
    let (to_left, to_right) = match binary.op {
        BinaryOp::Or => return,
        BinaryOp::And => (true, true),
        BinaryOp::Unless => (false, true),
        _ => {
            let one = if matching.card == Cardinality::OneToMany { &left } else { &right };
            if !one.meets_once(matching) {
                return;
            }
            (true, true)
        }
    };
    let for_left = if to_left { right.matchers_for(&left, matching) } else { Vec::new() };
    let for_right = if to_right { left.matchers_for(&right, matching) } else { Vec::new() };
    drop((left, right));
    add(&mut binary.lhs, for_left);
    add(&mut binary.rhs, for_right);
}

/// A selector, and the aggregations between it and an operator.
struct Side<'a> {
    selector: &'a VectorSelector,
    /// The outermost first.
    aggregations: Vec<&'a Aggregate>,
    /// Whether nothing on the way ever fails or remarks on a series.
    silent: bool,
}

impl<'a> Side<'a> {
    /// What a side of an operator consists of, if it is of one selector and keeps its labels.
    fn of(expr: &'a Expr) -> Option<Self> {
        let (mut expr, mut aggregations, mut silent) = (expr, Vec::new(), true);
        loop {
            if let Expr::Aggregate(aggregate) = expr {
                aggregations.push(aggregate);
            }
            silent &= is_silent(expr);
            expr = match below(expr)? {
                Below::Expr(below) => below,
                Below::Selector(selector) => {
                    silent &= selector.extended.is_none();
                    return Some(Self { selector, aggregations, silent });
                }
            };
        }
    }

    /// Whether no two of its elements can have the same labels as far as they are matched by.
    fn meets_once(&self, matching: &VectorMatching) -> bool {
        let listed = |label: &String| matching.labels.contains(label);
        match self.aggregations.first() {
            Some(by) if matching.on => !by.without && by.grouping.iter().all(listed),
            Some(by) => {
                matching.labels.is_empty() && !by.grouping.iter().any(|label| is_metadata_label(label))
            }
            // Without its name a series of one metric is still the only one.
            None => !matching.on && matching.labels.is_empty() && names_one_metric(&self.selector.matchers),
        }
    }

    /// Whether a label is matched by, and comes from the selector as it is.
    fn keeps(&self, label: &str, matching: &VectorMatching) -> bool {
        let listed = |labels: &[String]| labels.iter().any(|other| other == label);
        !is_metadata_label(label)
            && listed(&matching.labels) == matching.on
            && self.aggregations.iter().all(|by| listed(&by.grouping) != by.without)
    }

    /// What is asked here, and may as well be asked of the other side.
    fn matchers_for(&self, other: &Self, matching: &VectorMatching) -> Vec<Matcher> {
        let known = &other.selector.matchers;
        // A selector of several metrics may fail for series that have the same labels but for their names.
        if !names_one_metric(known) || !other.silent {
            return Vec::new();
        }
        let goes = |matcher: &&Matcher| {
            let label = matcher.name();
            label != METRIC_NAME
                && self.keeps(label, matching)
                && other.keeps(label, matching)
                && !known.contains(matcher)
        };
        self.selector.matchers.iter().filter(goes).cloned().collect()
    }
}

/// What an expression is made of, if each of its elements has the labels of those it is made of.
enum Below<'a> {
    Expr(&'a Expr),
    Selector(&'a VectorSelector),
}

fn below(expr: &Expr) -> Option<Below<'_>> {
    Some(match expr {
        Expr::Vector(selector) => Below::Selector(selector),
        Expr::Paren(paren) => Below::Expr(&paren.expr),
        Expr::Unary(unary) => Below::Expr(&unary.expr),
        // Others pick some of their series, which may be others if there are fewer.
        Expr::Aggregate(aggregate) if aggregate.op.folds() => Below::Expr(&aggregate.expr),
        Expr::Call(call) => match RangeFunction::by_name(call.function.name) {
            Some(_) => Below::Selector(call.args.iter().find_map(matrix)?),
            None => {
                InstantFunction::by_name(call.function.name)?;
                Below::Expr(call.args.first()?)
            }
        },
        // With a number.
        Expr::Binary(binary) if binary.matching.is_none() => match (&*binary.lhs, &*binary.rhs) {
            (Expr::Number(_), vector) | (vector, Expr::Number(_)) => Below::Expr(vector),
            _ => return None,
        },
        Expr::Aggregate(_)
        | Expr::Binary(_)
        | Expr::Number(_)
        | Expr::String(_)
        | Expr::Matrix(_)
        | Expr::Subquery(_) => {
            return None;
        }
    })
}

/// Whether an expression, which has something below, neither fails for any of its series nor remarks on them,
/// whatever they hold: floats, histograms, or now one and now the other.
fn is_silent(expr: &Expr) -> bool {
    match expr {
        Expr::Aggregate(aggregate) => matches!(aggregate.op, AggregateOp::Count | AggregateOp::Group),
        Expr::Call(call) => RangeFunction::by_name(call.function.name).is_none_or(|function| {
            matches!(
                function,
                RangeFunction::Changes
                    | RangeFunction::Resets
                    | RangeFunction::CountOverTime
                    | RangeFunction::PresentOverTime
                    | RangeFunction::FirstOverTime
                    | RangeFunction::LastOverTime
                    | RangeFunction::TsOfFirstOverTime
                    | RangeFunction::TsOfLastOverTime
            )
        }),
        // Other operators have no sense for a histogram and a number, and say so.
        Expr::Binary(binary) => match binary.op {
            BinaryOp::Mul => true,
            BinaryOp::Div => matches!(*binary.rhs, Expr::Number(_)),
            _ => false,
        },
        Expr::Vector(_)
        | Expr::Matrix(_)
        | Expr::Paren(_)
        | Expr::Unary(_)
        | Expr::Number(_)
        | Expr::String(_)
        | Expr::Subquery(_) => true,
    }
}

fn matrix(expr: &Expr) -> Option<&VectorSelector> {
    match expr {
        Expr::Matrix(matrix) => Some(&matrix.selector),
        Expr::Paren(paren) => matrix(&paren.expr),
        _ => None,
    }
}

/// Adds matchers to the one selector of a side.
fn add(side: &mut Expr, more: Vec<Matcher>) {
    if more.is_empty() {
        return;
    }
    let mut expr = side;
    let selector = loop {
        expr = match expr {
            Expr::Vector(selector) => break selector,
            Expr::Matrix(matrix) => break &mut matrix.selector,
            Expr::Paren(paren) => &mut paren.expr,
            Expr::Unary(unary) => &mut unary.expr,
            Expr::Aggregate(aggregate) => &mut aggregate.expr,
            Expr::Call(call) => {
                let of_range = RangeFunction::by_name(call.function.name).is_some();
                let wanted = |arg: &&mut Expr| !of_range || matrix(arg).is_some();
                match call.args.iter_mut().find(wanted) {
                    Some(arg) => arg,
                    None => return,
                }
            }
            Expr::Binary(binary) => match *binary.lhs {
                Expr::Number(_) => &mut binary.rhs,
                _ => &mut binary.lhs,
            },
            Expr::Number(_) | Expr::String(_) | Expr::Subquery(_) => return,
        };
    };
    selector.matchers = selector.matchers.iter().cloned().chain(more).collect::<Arc<[Matcher]>>();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::parse::{ParserFeatures, parse};

    #[track_caller]
    fn check(text: &str, narrowed: &str) {
        let mut expr = parse(text, &ParserFeatures::default()).unwrap();
        narrow(&mut expr);
        assert_eq!(expr.to_string(), parse(narrowed, &ParserFeatures::default()).unwrap().to_string());
    }

    #[test]
    fn what_is_asked_of_one_side_is_asked_of_the_other() {
        check(r#"a{x="1"} / b"#, r#"a{x="1"} / b{x="1"}"#);
        check(r#"a{x="1"} / b{y!="2"}"#, r#"a{x="1",y!="2"} / b{y!="2",x="1"}"#);
        check(r#"rate(a{x="1"}[5m]) > -b * 2"#, r#"rate(a{x="1"}[5m]) > -b{x="1"} * 2"#);
        check(
            r#"sum by (x) (a{x=~"1.*",y="2"}) / on (x) count by (x) (changes(b[5m]))"#,
            r#"sum by (x) (a{x=~"1.*",y="2"}) / on (x) count by (x) (changes(b{x=~"1.*"}[5m]))"#,
        );
        check(
            r#"a{x="1"} * on (x) group_left count by (x) (abs(b) / 2)"#,
            r#"a{x="1"} * on (x) group_left count by (x) (abs(b{x="1"}) / 2)"#,
        );
        check(
            r#"a * on (x) group_left sum by (x) (b{x="1"})"#,
            r#"a{x="1"} * on (x) group_left sum by (x) (b{x="1"})"#,
        );
        check(r#"a and on (x) b{x="1"}"#, r#"a{x="1"} and on (x) b{x="1"}"#);
        check(r#"a{x="1"} unless b{y="1"}"#, r#"a{x="1"} unless b{y="1",x="1"}"#);
    }

    #[test]
    fn nothing_is_narrowed_where_it_could_be_told() {
        for text in [
            // Elements without a partner count.
            r#"a{x="1"} or b"#,
            r#"a unless b{x="1"}"#,
            r#"a{x="1"} + fill(0) b"#,
            // The label is not matched by, or not the selector's.
            r#"a{x="1"} / ignoring (x) b"#,
            r#"a{x="1"} and on (y) b"#,
            r#"sum by (y) (a{x="1"}) / sum by (y) (b)"#,
            r#"a{x="1"} / label_replace(b, "x", "1", "", "")"#,
            // Two of them that meet are an error, whoever else is there.
            r#"a{x="1"} / on (x) b"#,
            r#"a{x="1"} / {__name__=~"b|c"}"#,
            // Others would be picked.
            r#"a{x="1"} / topk(1, b)"#,
            // What is left out may be remarked on.
            r#"a{x="1"} / rate(b[5m])"#,
            r#"a{x="1"} / max_over_time(b[5m])"#,
            r#"a{x="1"} / on (x) sum by (x) (b)"#,
            r#"a{x="1"} and b > 0"#,
            r#"a{x="1"} and b * 2 + 1"#,
            r#"a{x="1"} and 1 / b"#,
            r#"a{x="1"} and double_exponential_smoothing(b[5m], 0.5, 0.5)"#,
            // Not one selector.
            r#"a{x="1"} / (b + c)"#,
            r#"a{x="1"} / 2"#,
        ] {
            check(text, text);
        }
    }
}
