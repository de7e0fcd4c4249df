//! Finds what is the same at every step.
//!
//! A selector pinned with `@` and a literal are; what is built of them is too, unless a function in
//! it looks at the step's own time.

use std::collections::HashMap;

use crate::promql::parse::{Expr, VectorSelector};

/// For every expression of a tree, by its address, whether it is the same at every step.
#[derive(Debug, Default)]
pub struct Invariance(HashMap<*const Expr, bool>);

/// Functions whose result depends on the time of the step, whatever they are given.
const LOOKS_AT_THE_STEP: &[&str] = &[
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "time",
    "timestamp",
    "start_timestamp",
];

impl Invariance {
    /// Looks at a tree.
    pub fn of(expr: &Expr) -> Self {
        let mut found = Self::default();
        found.visit(expr);
        found
    }

    /// Whether `expr`, which must be of the tree looked at, is the same at every step.
    pub fn holds(&self, expr: &Expr) -> bool {
        self.0.get(&std::ptr::from_ref(expr)).copied().unwrap_or(false)
    }

    /// Walks down a chain of operators in a loop: `a + a + …` is as deep as it is long.
    fn visit(&mut self, expr: &Expr) -> bool {
        let mut chain = Vec::new();
        let mut first = expr;
        while let Expr::Binary(binary) = first {
            chain.push((first, binary));
            first = &binary.lhs;
        }
        let mut same = self.visit_leaf_or_call(first);
        self.0.insert(std::ptr::from_ref(first), same);
        for (node, binary) in chain.into_iter().rev() {
            same &= self.visit(&binary.rhs);
            self.0.insert(std::ptr::from_ref(node), same);
        }
        same
    }

    fn visit_leaf_or_call(&mut self, expr: &Expr) -> bool {
        match expr {
            Expr::Number(_) | Expr::String(_) => true,
            Expr::Vector(selector) => selector.at.is_some(),
            Expr::Matrix(matrix) => matrix.selector.at.is_some(),
            Expr::Subquery(subquery) => {
                self.visit(&subquery.expr);
                subquery.at.is_some()
            }
            Expr::Call(call) => {
                let mut same = true;
                // What describes the series that `info` is given is looked at when they are.
                let looked_at = if call.function.name == "info" { 1 } else { call.args.len() };
                for arg in call.args.iter().take(looked_at) {
                    same &= self.visit(arg);
                }
                let pinned = || call.args.first().and_then(selector_within).is_some_and(|s| s.at.is_some());
                let of_sample = matches!(call.function.name, "timestamp" | "start_timestamp");
                same && (!LOOKS_AT_THE_STEP.contains(&call.function.name) || of_sample && pinned())
            }
            Expr::Aggregate(aggregate) => {
                let mut same = self.visit(&aggregate.expr);
                if let Some(param) = &aggregate.param {
                    same &= self.visit(param);
                }
                same
            }
            Expr::Unary(unary) => self.visit(&unary.expr),
            Expr::Paren(paren) => self.visit(&paren.expr),
            Expr::Binary(_) => self.visit(expr),
        }
    }
}

/// The selector that `expr` is, parentheses aside.
pub fn selector_within(expr: &Expr) -> Option<&VectorSelector> {
    match bare(expr) {
        Expr::Vector(selector) => Some(selector),
        _ => None,
    }
}

/// The expression without the parentheses around it.
pub fn bare(mut expr: &Expr) -> &Expr {
    while let Expr::Paren(paren) = expr {
        expr = &paren.expr;
    }
    expr
}
