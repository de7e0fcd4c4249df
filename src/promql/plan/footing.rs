//! What the steps of a range query stand on: whether each can be evaluated without the others, and what it then sees.
//!
//! Most queries give at a step what they give there in any other range: the samples around it decide, and nothing else.
//! Such a query has a [`Footing`]; its answer may be made of pieces, some of them kept from before, and is the same to
//! the bit. No footing has what looks at the query's range as a whole:
//!
//! * `start()`, `end()`, `range()`, and `@` with the first two;
//! * what is an error if two series come to have the same labels at different steps: a function that drops names of
//!   several metrics, `label_replace`, `label_join`;
//! * `info`, which looks for the series that describe all it has found.
//!
//! What adds up groups, whose order is that in which series come, needs the same series in all pieces ([`Joins`]).

use crate::{
    model::{METRIC_NAME, TimeRange, Timestamp},
    promql::{
        QueryError,
        functions::{instant::InstantFunction, range::RangeFunction},
        parse::{
            Aggregate, AggregateOp, At, Binary, Call, DurationExpr, Expr, Extended, Subquery, ValueType,
            VectorSelector,
        },
        plan::{
            PlanOptions,
            duration::{self, QueryTimes},
            invariant::bare,
            names_one_metric,
        },
    },
};

/// What the steps of a range query stand on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footing {
    /// How far before a step samples decide, in milliseconds.
    pub before: i64,
    /// How far after a step.
    pub after: i64,
    /// Where samples decide about all steps.
    pub pinned: Vec<TimeRange>,
    /// What pieces must have in common.
    pub joins: Joins,
    /// How far apart steps may be so that what two pieces read has no gap between.
    pub narrowest: i64,
}

/// Which pieces give together what the whole would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joins {
    /// All.
    Always,
    /// Those that were made of the same series: in which order values are added up depends on them.
    OfSameSeries,
}

/// Looks at a query with that step; none if its steps depend on each other.
pub fn footing(expr: &Expr, text: &str, step: i64, options: &PlanOptions) -> Option<Footing> {
    let mut walk = Walk {
        // What depends on the range has no footing anyway.
        times: QueryTimes { text, step, range: 0 },
        lookback: options.lookback.millis(),
        found: Footing { before: 0, after: 0, pinned: Vec::new(), joins: Joins::Always, narrowest: i64::MAX },
        todo: vec![(expr, Seen { from: 0, to: 0, pinned: false })],
    };
    while let Some((expr, seen)) = walk.todo.pop() {
        walk.look(expr, seen)?;
    }
    Some(walk.found)
}

/// The instants that an expression is evaluated at: from a step, or at a fixed time.
#[derive(Clone, Copy, Debug)]
struct Seen {
    from: i64,
    to: i64,
    pinned: bool,
}

/// What is still to be looked at, instead of a stack that a long query could overflow.
struct Walk<'a> {
    times: QueryTimes<'a>,
    lookback: i64,
    found: Footing,
    todo: Vec<(&'a Expr, Seen)>,
}

impl<'a> Walk<'a> {
    /// Looks at one node; none if it depends on the range.
    fn look(&mut self, expr: &'a Expr, seen: Seen) -> Option<()> {
        match expr {
            Expr::Number(_) | Expr::String(_) => {}
            Expr::Vector(selector) => self.selector(selector, 0, seen)?,
            Expr::Matrix(matrix) => {
                let range = self.duration(&matrix.range, duration::positive)?;
                self.selector(&matrix.selector, range, seen)?;
            }
            Expr::Subquery(subquery) => self.subquery(subquery, seen)?,
            Expr::Call(call) => self.call(call, seen)?,
            Expr::Aggregate(aggregate) => {
                let free = matches!(aggregate.op, AggregateOp::Count | AggregateOp::Group);
                if !free {
                    self.adds_up(&aggregate.expr);
                }
                self.todo.push((&aggregate.expr, seen));
                self.todo.extend(aggregate.param.iter().map(|param| (&**param, seen)));
            }
            Expr::Binary(binary) => self.todo.extend([(&*binary.lhs, seen), (&*binary.rhs, seen)]),
            Expr::Unary(unary) => self.todo.push((&unary.expr, seen)),
            Expr::Paren(paren) => self.todo.push((&paren.expr, seen)),
        }
        Some(())
    }

    fn call(&mut self, call: &'a Call, seen: Seen) -> Option<()> {
        let name = call.function.name;
        if ["start", "end", "range", "info", "label_replace", "label_join"].contains(&name) {
            return None;
        }
        if RangeFunction::by_name(name).is_some_and(|function| !function.keeps_name()) {
            let ranges = call.args.iter().map(bare);
            let mut ranges = ranges.filter(|arg| matches!(arg, Expr::Matrix(_) | Expr::Subquery(_)));
            if !ranges.all(distinct) {
                return None;
            }
        }
        if ["histogram_quantile", "histogram_quantiles", "histogram_fraction"].contains(&name) {
            let mut vectors = call.args.iter().filter(|arg| arg.value_type() == ValueType::InstantVector);
            if !vectors.all(distinct) {
                return None;
            }
        }
        self.todo.extend(call.args.iter().map(|arg| (arg, seen)));
        Some(())
    }

    /// Something is made of all values of `input` in their order.
    fn adds_up(&mut self, input: &Expr) {
        if !in_order_of_labels(input) {
            self.found.joins = Joins::OfSameSeries;
        }
    }

    fn selector(&mut self, selector: &VectorSelector, range: i64, seen: Seen) -> Option<()> {
        let seen = self.moved(selector.at, selector.offset.as_ref(), seen)?;
        let (mut before, mut after) = if range > 0 { (range, 0) } else { (self.lookback, 0) };
        match (selector.extended, range > 0) {
            (None, _) => {}
            (Some(Extended::Smoothed), false) => after = self.lookback,
            (Some(Extended::Anchored), _) => before = before.saturating_add(self.lookback),
            (Some(Extended::Smoothed), true) => {
                before = before.saturating_add(self.lookback);
                after = self.lookback;
            }
        }
        let (from, to) = (seen.from.saturating_sub(before), seen.to.saturating_add(after));
        if seen.pinned {
            self.found.pinned.push(TimeRange::new(Timestamp(from), Timestamp(to))?);
        } else {
            self.found.before = self.found.before.max(from.saturating_neg());
            self.found.after = self.found.after.max(to);
            self.found.narrowest = self.found.narrowest.min(to.saturating_sub(from));
        }
        Some(())
    }

    fn subquery(&mut self, subquery: &'a Subquery, seen: Seen) -> Option<()> {
        let range = self.duration(&subquery.range, duration::positive)?;
        if let Some(step) = &subquery.step {
            // That it can be worked out is enough: its steps are where they are whatever the range.
            self.duration(step, duration::positive)?;
        }
        let seen = self.moved(subquery.at, subquery.offset.as_ref(), seen)?;
        self.todo.push((&subquery.expr, Seen { from: seen.from.saturating_sub(range), ..seen }));
        Some(())
    }

    fn moved(&self, at: Option<At>, offset: Option<&DurationExpr>, seen: Seen) -> Option<Seen> {
        let offset = match offset {
            Some(offset) => self.duration(offset, duration::signed)?,
            None => 0,
        };
        let seen = match at {
            None => seen,
            Some(At::Time(time)) => Seen { from: time, to: time, pinned: true },
            Some(At::Start | At::End) => return None,
        };
        Some(Seen { from: seen.from.saturating_sub(offset), to: seen.to.saturating_sub(offset), ..seen })
    }

    /// A duration that does not depend on the range; what is wrong with one, the evaluation says better.
    fn duration(
        &self,
        expr: &DurationExpr,
        resolve: impl Fn(&DurationExpr, &QueryTimes<'_>) -> Result<i64, QueryError>,
    ) -> Option<i64> {
        if looks_at_the_range(expr) { None } else { resolve(expr, &self.times).ok() }
    }
}

fn looks_at_the_range(expr: &DurationExpr) -> bool {
    let mut todo = vec![expr];
    while let Some(expr) = todo.pop() {
        match expr {
            DurationExpr::Range(_) => return true,
            DurationExpr::Literal { .. } | DurationExpr::Step(_) => {}
            DurationExpr::MinOf(a, b, _)
            | DurationExpr::MaxOf(a, b, _)
            | DurationExpr::Binary(_, a, b, _) => {
                todo.extend([&**a, &**b]);
            }
            DurationExpr::Unary(_, a, _) | DurationExpr::Paren(a, _) => todo.push(a),
        }
    }
    false
}

/// Whether rows of `expr` can be told apart without their names, so that none become the same when those go.
fn distinct(expr: &Expr) -> bool {
    let mut expr = bare(expr);
    loop {
        expr = bare(match expr {
            Expr::Number(_) | Expr::String(_) => return true,
            Expr::Vector(selector) => return names_one_metric(&selector.matchers),
            Expr::Matrix(matrix) => return names_one_metric(&matrix.selector.matchers),
            Expr::Subquery(subquery) => &subquery.expr,
            Expr::Unary(unary) => &unary.expr,
            Expr::Paren(paren) => &paren.expr,
            Expr::Aggregate(aggregate) => match groups(aggregate) {
                Some(distinct) => return distinct,
                None => &aggregate.expr,
            },
            Expr::Binary(binary) => match side(binary) {
                Some(vector) => vector,
                None => return false,
            },
            Expr::Call(call) => {
                let mut vectors = call.args.iter().filter(|arg| {
                    matches!(arg.value_type(), ValueType::InstantVector | ValueType::RangeVector)
                });
                match (vectors.next(), vectors.next()) {
                    (None, _) => return true,
                    (Some(vector), None) => vector,
                    (Some(_), Some(_)) => return false,
                }
            }
        });
    }
}

/// Whether groups can be told apart without names; none if an aggregation keeps its series' own labels.
fn groups(aggregate: &Aggregate) -> Option<bool> {
    match aggregate.op {
        AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio => None,
        // Its label may be the name.
        AggregateOp::CountValues => Some(false),
        AggregateOp::Sum
        | AggregateOp::Avg
        | AggregateOp::Count
        | AggregateOp::Min
        | AggregateOp::Max
        | AggregateOp::Group
        | AggregateOp::Stddev
        | AggregateOp::Stdvar
        | AggregateOp::Quantile => {
            let named = |label: &String| [METRIC_NAME, "__type__", "__unit__"].contains(&label.as_str());
            Some(aggregate.without || !aggregate.grouping.iter().any(named))
        }
    }
}

/// The vector of an operator whose other side is a scalar.
fn side(binary: &Binary) -> Option<&Expr> {
    match (binary.lhs.value_type(), binary.rhs.value_type()) {
        (ValueType::Scalar, _) => Some(&binary.rhs),
        (_, ValueType::Scalar) => Some(&binary.lhs),
        _ => None,
    }
}

/// Whether rows of `expr` come in the order of the series that they are made of, whatever the range.
///
/// What is made of them one after another is then the same: a series without a value at a step is passed over.
fn in_order_of_labels(expr: &Expr) -> bool {
    if !distinct(expr) {
        return false;
    }
    let mut expr = bare(expr);
    loop {
        expr = bare(match expr {
            Expr::Number(_) | Expr::String(_) | Expr::Vector(_) | Expr::Matrix(_) => return true,
            Expr::Subquery(subquery) => &subquery.expr,
            Expr::Unary(unary) => &unary.expr,
            Expr::Paren(paren) => &paren.expr,
            Expr::Aggregate(_) => return false,
            Expr::Binary(binary) => match side(binary) {
                Some(vector) => vector,
                None => return false,
            },
            Expr::Call(call) => {
                let name = call.function.name;
                let per_series = RangeFunction::by_name(name).is_some()
                    || InstantFunction::by_name(name).is_some()
                    || ["timestamp", "start_timestamp"].contains(&name);
                let vector = call.args.iter().find(|arg| {
                    matches!(arg.value_type(), ValueType::InstantVector | ValueType::RangeVector)
                });
                match vector {
                    None => return true,
                    Some(vector) if per_series => vector,
                    Some(_) => return false,
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Millis,
        promql::parse::{ParserFeatures, parse},
    };

    /// What is found of a query, in seconds; `-` if it has no footing.
    fn found(text: &str) -> String {
        let features = ParserFeatures {
            experimental_functions: true,
            extended_range_selectors: true,
            fill_modifiers: true,
        };
        let options = PlanOptions {
            lookback: Millis(300_000),
            default_subquery_step: Millis::MINUTE,
            start_timestamps: false,
        };
        let expr = parse(text, &features).unwrap();
        let Some(found) = footing(&expr, text, 15_000, &options) else { return "-".to_owned() };
        let pinned = found.pinned.iter().map(|p| format!(" {}..{}", p.start().0 / 1000, p.end().0 / 1000));
        let joins = match found.joins {
            Joins::Always => "",
            Joins::OfSameSeries => " same",
        };
        format!("{}+{}{}{joins}", found.before / 1000, found.after / 1000, pinned.collect::<String>())
    }

    #[test]
    fn a_step_sees_what_its_selectors_reach() {
        for (text, expect) in [
            ("1", "0+0"),
            ("up", "300+0"),
            ("up offset 1h", "3900+0"),
            ("up offset -1h", "0+3600"),
            ("rate(up[1m])", "60+0"),
            ("rate(up[step()+1m])", "75+0"),
            ("rate(up[1m]) + up offset 10m", "900+0"),
            ("max_over_time(rate(up[1m])[1h:] offset 1m)", "3720+0"),
            ("up smoothed", "300+300"),
            ("rate(up[1m] smoothed)", "360+300"),
            ("increase(up[1m] anchored)", "360+0"),
            ("up @ 1000", "0+0 700..1000"),
            ("up + rate(up[1m] @ 5000 offset 1m)", "300+0 4880..4940"),
            ("sum_over_time(up[10m:1m] @ 5000)", "0+0 4100..5000"),
        ] {
            assert_eq!(found(text), expect, "{text}");
        }
    }

    #[test]
    fn what_looks_at_the_whole_range_has_no_footing() {
        for text in [
            "up @ start()",
            "up @ end()",
            "start()",
            "vector(range())",
            "rate(up[range()])",
            "up offset range()",
            "sum_over_time(up[5m:range()])",
            "info(up)",
            "label_replace(up, \"a\", \"b\", \"\", \"\")",
            "label_join(up, \"a\", \"b\", \"c\")",
            "rate({__name__=~\"a|b\"}[1m])",
            "rate({job=\"a\"}[1m])",
            "sum_over_time((a or b)[5m:])",
            "histogram_quantile(0.9, {le=~\".+\"})",
        ] {
            assert_eq!(found(text), "-", "{text}");
        }
    }

    #[test]
    fn what_adds_up_groups_wants_the_same_series() {
        for (text, same) in [
            ("sum(rate(a[1m]))", false),
            ("avg by (job) (a * 2)", false),
            ("count(sum by (job) (a))", false),
            ("topk(3, a)", false),
            ("sum(sum by (job) (a))", true),
            ("sum(topk(3, a))", true),
            ("sum(a + on(i) b)", true),
            ("max({job=\"a\"})", true),
            ("histogram_quantile(0.9, rate(a_bucket[1m]))", false),
            ("histogram_quantile(0.9, sum by (le) (rate(a_bucket[1m])))", false),
            ("sum by (job) (a) / sum by (job) (b)", false),
        ] {
            assert_eq!(found(text).ends_with(" same"), same, "{text}");
        }
    }
}
