//! Aggregations and operators.

use super::{Grammar, LABELS, Place};
use crate::differential::{
    data::{Family, Kind},
    expr::{
        Expr,
        Precision::{Close, Equal, Exact},
        Type,
    },
};

pub(super) const ARITHMETIC: &[&str] = &["+", "-", "*", "/", "%", "^", "atan2"];

pub(super) const COMPARISON: &[&str] = &["==", "!=", "<", "<=", ">", ">="];

const SETS: &[&str] = &["and", "or", "unless"];

impl Grammar<'_> {
    /// `by`, `without` or neither.
    pub(super) fn grouping(&mut self) -> String {
        let mut labels: Vec<&str> = (0..self.random.below(3)).map(|_| self.random.pick(LABELS)).collect();
        if self.random.one_in(15) {
            labels.push("__name__");
        }
        match self.random.below(6) {
            0 | 1 => String::new(),
            2 => format!("without ({})", labels.join(", ")),
            _ => format!("by ({})", labels.join(", ")),
        }
    }

    pub(super) fn aggregation(&mut self, place: Place) -> Expr {
        let by = self.grouping();
        let expr = Expr::new(Type::Vector, place.phase);
        let (name, part, precision) = match self.random.below(12) {
            0..=3 => {
                let part = self.vector(place.below());
                let precision = if part.precision == Exact { Exact } else { Close };
                ("sum", part, precision)
            }
            4 | 5 => ("avg", self.vector(place.below()), Close),
            6 => {
                let part = self.vector(place.below());
                let precision = part.precision;
                (self.random.pick(&["min", "max"]), part, precision)
            }
            7 => {
                let name = self.random.pick(&["count", "group"]);
                (name, self.vector(place.below()), Exact)
            }
            8 | 9 => (self.random.pick(&["stddev", "stdvar"]), self.plain(place), Close),
            10 => {
                let (q, part) = (self.fraction(), self.vector(place.below()));
                return expr
                    .text(format!("quantile {by} ("))
                    .part(q)
                    .text(", ")
                    .part(part)
                    .text(")")
                    .precise(Close)
                    .special();
            }
            _ => {
                let part = self.precise(place, Equal);
                let label = self.random.pick(&["value", "job", "zone"]);
                return expr
                    .text(format!("count_values {by} (\"{label}\", "))
                    .part(part)
                    .text(")")
                    .precise(Exact);
            }
        };
        if self.random.one_in(2) {
            expr.text(format!("{name} {by} (")).part(part).text(")").precise(precision)
        } else {
            expr.text(format!("{name} (")).part(part).text(format!(") {by}")).precise(precision)
        }
    }

    /// `topk` or `bottomk` of values that are all different.
    pub(super) fn top(&mut self, place: Place, grouped: bool) -> Expr {
        let name = self.random.pick(&["topk", "bottomk"]);
        let by = if grouped { self.grouping() } else { String::new() };
        let k = self.random.pick(&["1", "2", "3", "1.9", "0", "-1", "100"]);
        let distinct = |f: &Family| matches!(f.kind, Kind::Gauge | Kind::Counter);
        let part = self.selector(place, distinct);
        Expr::new(Type::Vector, place.phase).text(format!("{name} {by} ({k}, ")).part(part).text(")")
    }

    pub(super) fn with_scalar(&mut self, place: Place) -> Expr {
        if self.random.one_in(3) {
            let (vector, scalar) = (self.precise(place, Equal), self.equal_scalar(place));
            return self.compared(place, vector, scalar);
        }
        let op = self.random.pick(&["+", "-", "*", "/", "%", "^", "atan2"]);
        let (vector, scalar) = if matches!(op, "%" | "^") {
            (self.precise(place, Equal), self.equal_scalar(place))
        } else {
            (self.vector(place.below()), self.scalar(place.below()))
        };
        self.arithmetic(place, op, "", vector, scalar)
    }

    pub(super) fn compared(&mut self, place: Place, left: Expr, right: Expr) -> Expr {
        let op = self.random.pick(COMPARISON);
        let bool = if self.random.one_in(3) { "bool " } else { "" };
        let (left, right) = if self.random.one_in(4) { (right, left) } else { (left, right) };
        Expr::new(Type::Vector, place.phase)
            .text("(")
            .part(left)
            .text(format!(" {op} {bool}"))
            .part(right)
            .text(")")
    }

    /// 2.42 keeps the name over `atan2`, so there it is taken away.
    pub(super) fn arithmetic(
        &mut self,
        place: Place,
        op: &str,
        matching: &str,
        left: Expr,
        right: Expr,
    ) -> Expr {
        let (left, right) =
            if left.of != right.of && self.random.one_in(3) { (right, left) } else { (left, right) };
        let expr = Expr::new(Type::Vector, place.phase);
        let expr = if op == "atan2" { expr.either("(", "label_replace((") } else { expr.text("(") };
        let expr = expr.part(left).text(format!(" {op} {matching} ")).part(right);
        let expr =
            if op == "atan2" { expr.either(")", r#"), "__name__", "", "", "")"#) } else { expr.text(")") };
        match op {
            "+" | "-" => expr,
            "*" => expr.at_most(Equal),
            "/" | "%" => expr.at_most(Equal).special(),
            _ => expr.precise(Close).special(),
        }
    }

    /// An operation between vectors that have partners, mostly.
    pub(super) fn with_vector(&mut self, place: Place) -> Expr {
        let comparing = self.random.one_in(3);
        let op = self.random.pick(ARITHMETIC);
        let needs_equal = comparing || matches!(op, "%" | "^");
        let one = |me: &mut Self| {
            if needs_equal { me.precise(place, Equal) } else { me.vector(place.below()) }
        };
        let (left, matching, right) = match self.random.below(8) {
            0 | 1 => {
                let left = one(self);
                let right = if self.random.one_in(2) { left.clone() } else { one(self) };
                (left, String::new(), right)
            }
            2 | 3 => {
                let (left, right) = (one(self), one(self));
                let label = self.random.pick(&["job", "job, instance"]);
                let sum = |part| {
                    Expr::new(Type::Vector, place.phase)
                        .text(format!("max by ({label}) ("))
                        .part(part)
                        .text(")")
                };
                let matching = self.random.pick(&["", "on (job)", "on (job, instance)", "ignoring (zone)"]);
                (sum(left), matching.to_owned(), sum(right))
            }
            4 => {
                let left = one(self);
                let right = self.selector(place, |f| f.name == "build_info");
                (left, "on (job, instance) group_left (version)".to_owned(), right)
            }
            5 => {
                let left = self.selector(place, |f| f.name == "build_info");
                let right = one(self);
                let include = self.random.pick(&["()", "(version)", "(nothing, version)"]);
                (left, format!("on (job, instance) group_right {include}"), right)
            }
            6 => {
                let left = one(self);
                let right = Expr::new(Type::Vector, place.phase)
                    .text("max without (code, zone, le, text) (")
                    .part(left.clone())
                    .text(")");
                (left, "ignoring (code, zone, le, text) group_left ()".to_owned(), right)
            }
            _ => {
                let (left, right) = (one(self), one(self));
                let label = self.random.pick(LABELS);
                let matching = match self.random.below(5) {
                    0 => format!("on ({label})"),
                    1 => format!("ignoring ({label})"),
                    2 => format!("on (job) group_left ({label})"),
                    3 => format!("ignoring ({label}) group_right ()"),
                    _ => "on ()".to_owned(),
                };
                let clash = matching.contains("(job) group_left (job)");
                (left, if clash { String::new() } else { matching }, right)
            }
        };
        if !comparing {
            return self.arithmetic(place, op, &matching, left, right);
        }
        let op = self.random.pick(COMPARISON);
        let bool = self.random.one_in(3);
        let mut expr = Expr::new(Type::Vector, place.phase)
            .text("(")
            .part(left)
            .text(format!(" {op} {}{matching} ", if bool { "bool " } else { "" }))
            .part(right)
            .text(")");
        expr.filters |= !bool;
        expr
    }

    pub(super) fn set(&mut self, place: Place) -> Expr {
        let op = self.random.pick(SETS);
        let matching = match self.random.below(4) {
            0 => format!("on ({})", self.random.pick(LABELS)),
            1 => format!("ignoring ({})", self.random.pick(LABELS)),
            _ => String::new(),
        };
        let (left, right) = (self.vector(place.below()), self.vector(place.below()));
        Expr::new(Type::Vector, place.phase)
            .text("(")
            .part(left)
            .text(format!(" {op} {matching} "))
            .part(right)
            .text(")")
    }
}
