//! What the steps of a range query stand on: whether each can be evaluated without the others, and what it then sees.
//!
//! Most queries give at a step what they give there in any other range: the samples around it decide, and nothing else.
//! Such a query has a [`Footing`]; its answer may be made of pieces, some of them kept from before, and is the same to
//! the bit. No footing has what looks at the query's range as a whole:
//!
//! * `start()`, `end()`, `range()`, and `@` with the first two;
//! * what is an error if two series come to have the same labels at different steps: a function that drops names of
//!   several metrics, `label_replace`, `label_join`;
//! * `info`, which looks for the series that describe all it has found;
//! * an aggregation whose parameter moves, of which the most extreme one of all steps is told;
//! * a subquery of less than a step, whose expression is evaluated between the steps, too, and may fail there.
//!
//! What adds up groups, whose order is that in which series come, needs the same order in all pieces ([`Joins`]).

use crate::{
    model::{METRIC_NAME, TimeRange, Timestamp},
    promql::{
        QueryError,
        functions::{instant::InstantFunction, range::RangeFunction},
        parse::{
            Aggregate, AggregateOp, At, Binary, Call, Cardinality, DurationExpr, Expr, Extended, Subquery,
            ValueType, VectorSelector,
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
    /// How long the shortest stretch is that a step reads at a time, and the longest.
    pub stretches: (i64, i64),
}

impl Footing {
    /// Whether pieces of that width read hardly more than the whole would, and no less is held for the whole.
    pub fn is_worth_splitting(&self, step: i64, width: i64) -> bool {
        let (shortest, longest) = self.stretches;
        // What is pinned is read again for each piece, and so is a stretch.
        self.joins == Joins::Always && self.pinned.is_empty() && step <= shortest && longest <= width
    }
}

/// Which pieces give together what the whole would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joins {
    /// All.
    Always,
    /// Those in which rows have come to be aggregated in the same order: what they are added up to depends on it.
    InSameOrder,
}

/// What decides about the order of an expression's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// The labels of the series that they are made of, whatever the range.
    Labels,
    /// Which rows there are, of those that they are made of.
    Rows,
    /// What they come to at each step.
    Values,
}

/// Looks at a query with that step; none if its steps depend on each other.
pub fn footing(expr: &Expr, text: &str, step: i64, options: &PlanOptions) -> Option<Footing> {
    let mut walk = Walk {
        // What depends on the range has no footing anyway.
        times: QueryTimes { text, step, range: 0 },
        lookback: options.lookback.millis(),
        default_step: options.default_subquery_step.millis(),
        found: Footing {
            before: 0,
            after: 0,
            pinned: Vec::new(),
            joins: Joins::Always,
            stretches: (i64::MAX, 0),
        },
        by_values: false,
        todo: vec![(expr, Seen { from: 0, to: 0, step, pinned: false })],
    };
    while let Some((expr, seen)) = walk.todo.pop() {
        walk.look(expr, seen)?;
    }
    // Of rows whose order depends on values nobody knows it but who has all of them.
    let has_order = walk.found.joins == Joins::Always || !walk.by_values;
    has_order.then_some(walk.found)
}

/// The instants that an expression is evaluated at: from a step, or at a fixed time.
#[derive(Clone, Copy, Debug)]
struct Seen {
    from: i64,
    to: i64,
    /// How far they are apart; 0 where there is one.
    step: i64,
    pinned: bool,
}

/// What is still to be looked at, instead of a stack that a long query could overflow.
struct Walk<'a> {
    times: QueryTimes<'a>,
    lookback: i64,
    default_step: i64,
    found: Footing,
    /// Whether there is an aggregation of rows whose order depends on values.
    by_values: bool,
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
                if !aggregate.param.as_deref().is_none_or(stays) {
                    return None;
                }
                self.aggregates(aggregate);
                self.todo.push((&aggregate.expr, seen));
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

    /// Something is made of all rows in their order.
    fn aggregates(&mut self, aggregate: &Aggregate) {
        let order = order(&aggregate.expr);
        self.by_values |= order == Order::Values;
        // These come to the same in any order; only their groups' own order is that of the rows.
        let any_order = matches!(aggregate.op, AggregateOp::Count | AggregateOp::Group);
        if order != Order::Labels && !any_order {
            self.found.joins = Joins::InSameOrder;
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
            let (shortest, longest) = self.found.stretches;
            let stretch = to.saturating_sub(from);
            self.found.stretches = (shortest.min(stretch), longest.max(stretch));
        }
        Some(())
    }

    fn subquery(&mut self, subquery: &'a Subquery, seen: Seen) -> Option<()> {
        let range = self.duration(&subquery.range, duration::positive)?;
        // Its steps are where they are whatever the range.
        let step = match &subquery.step {
            Some(step) => self.duration(step, duration::positive)?,
            None => self.default_step,
        };
        let seen = self.moved(subquery.at, subquery.offset.as_ref(), seen)?;
        if range < seen.step {
            return None;
        }
        self.todo.push((&subquery.expr, Seen { from: seen.from.saturating_sub(range), step, ..seen }));
        Some(())
    }

    fn moved(&self, at: Option<At>, offset: Option<&DurationExpr>, seen: Seen) -> Option<Seen> {
        let offset = match offset {
            Some(offset) => self.duration(offset, duration::signed)?,
            None => 0,
        };
        let seen = match at {
            None => seen,
            Some(At::Time(time)) => Seen { from: time, to: time, step: 0, pinned: true },
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

/// Whether a parameter is the same at every step.
fn stays(param: &Expr) -> bool {
    let mut todo = vec![param];
    while let Some(expr) = todo.pop() {
        match expr {
            Expr::Number(_) | Expr::String(_) => {}
            Expr::Unary(unary) => todo.push(&unary.expr),
            Expr::Paren(paren) => todo.push(&paren.expr),
            Expr::Binary(binary) => todo.extend([&*binary.lhs, &*binary.rhs]),
            Expr::Vector(_) | Expr::Matrix(_) | Expr::Subquery(_) | Expr::Call(_) | Expr::Aggregate(_) => {
                return false;
            }
        }
    }
    true
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
    // Its label may be the name.
    if aggregate.op == AggregateOp::CountValues {
        return Some(false);
    }
    let named = |label: &String| [METRIC_NAME, "__type__", "__unit__"].contains(&label.as_str());
    aggregate.op.folds().then(|| aggregate.without || !aggregate.grouping.iter().any(named))
}

/// The side of an operator whose rows are those of the result: the vector that meets a scalar, or the one whose rows
/// keep all of their labels but the name.
fn side(binary: &Binary) -> Option<&Expr> {
    let matching = match (binary.lhs.value_type(), binary.rhs.value_type()) {
        (ValueType::Scalar, _) => return Some(&binary.rhs),
        (_, ValueType::Scalar) => return Some(&binary.lhs),
        _ => binary.matching.as_ref()?,
    };
    let filled = matching.fill_left.is_some() || matching.fill_right.is_some();
    if binary.op.is_set() || filled || !matching.include.is_empty() {
        return None;
    }
    match matching.card {
        Cardinality::OneToOne => (!matching.on && matching.labels.is_empty()).then_some(&*binary.lhs),
        Cardinality::ManyToOne => Some(&binary.lhs),
        Cardinality::OneToMany => Some(&binary.rhs),
        Cardinality::ManyToMany => None,
    }
}

/// What decides about the order of rows.
///
/// What is made one after another of rows in the order of their labels is the same whatever the range: a series without
/// a value at a step is passed over.
fn order(expr: &Expr) -> Order {
    let mut expr = bare(expr);
    // Series of several metrics become one by what takes their names, wherever the first of them was.
    if !matches!(expr, Expr::Vector(_)) && !distinct(expr) {
        return Order::Values;
    }
    loop {
        expr = bare(match expr {
            Expr::Number(_) | Expr::String(_) | Expr::Vector(_) | Expr::Matrix(_) => return Order::Labels,
            Expr::Subquery(subquery) => &subquery.expr,
            Expr::Unary(unary) => &unary.expr,
            Expr::Paren(paren) => &paren.expr,
            Expr::Aggregate(aggregate) => match aggregate.op {
                // They come as they are picked, or as values are found.
                AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::CountValues => {
                    return Order::Values;
                }
                AggregateOp::LimitRatio
                | AggregateOp::Sum
                | AggregateOp::Avg
                | AggregateOp::Count
                | AggregateOp::Min
                | AggregateOp::Max
                | AggregateOp::Group
                | AggregateOp::Stddev
                | AggregateOp::Stdvar
                | AggregateOp::Quantile => return Order::Rows,
            },
            Expr::Binary(binary) => match side(binary) {
                Some(vector) => vector,
                None => return Order::Values,
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
                    None => return Order::Labels,
                    Some(vector) if per_series => vector,
                    Some(_) => return Order::Values,
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
            Joins::InSameOrder => " same",
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
            ("sum_over_time(up[15s:5s])", "315+0"),
            ("quantile(1 - 0.1, up)", "300+0"),
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
            // What is told of parameters is told of the extremes of all.
            "quantile(scalar(b), a)",
            "topk(time() / 1000, a)",
            // Evaluated between the steps, too.
            "sum_over_time(up[14s:5s])",
            "max_over_time(sum_over_time(a[1m:10s])[10m:2m])",
            // Which comes first depends on what was there at other steps.
            "sum(topk(3, a))",
            "topk(1, count_values(\"v\", a))",
            "sum(count by (j) (a or b))",
            "sum(a + on(i) b)",
            "sum(a * on(i) group_left (x) b)",
            "sum(abs({job=\"a\"}))",
            "sum(histogram_quantile(0.9, rate(a_bucket[1m])))",
        ] {
            assert_eq!(found(text), "-", "{text}");
        }
    }

    #[test]
    fn what_adds_up_groups_wants_the_same_order() {
        for (text, same) in [
            ("sum(rate(a[1m]))", false),
            ("avg by (job) (a * 2)", false),
            ("count(sum by (job) (a))", false),
            ("topk(3, a)", false),
            ("sum(sum by (job) (a))", true),
            ("topk(3, sum by (job) (a))", true),
            ("max(sum by (job) (a) * 2 > 5)", true),
            ("max({job=\"a\"})", false),
            ("sum by (j) (max by (i, j) ({job=\"a\"}))", true),
            ("sum(rate(a[1m]) / rate(b[1m]))", false),
            ("sum(a * on(i) group_left () b)", false),
            ("histogram_quantile(0.9, rate(a_bucket[1m]))", false),
            ("histogram_quantile(0.9, sum by (le) (rate(a_bucket[1m])))", false),
            ("sum by (job) (a) / sum by (job) (b)", false),
        ] {
            assert_eq!(found(text).ends_with(" same"), same, "{text}");
        }
    }
}
