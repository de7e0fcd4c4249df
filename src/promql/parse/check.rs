//! Whether the parts of a tree fit together: types, argument counts, matching.
//!
//! Children are looked at in the order in which Prometheus looks at them, as only the first mistake
//! is reported.
//!
//! Each kind of node has a function that recurses and holds next to nothing; what is said about the node is out of line
//! (`inline(never)`), so that the highest tree takes a fraction of a thread's stack even in a build without optimisation.

use std::fmt::{self, Display, Formatter};

use super::{
    ast::{
        Aggregate, AggregateOp, Binary, Call, Cardinality, Expr, Span, Subquery, Unary, ValueType,
        VectorSelector,
    },
    literal::quoted_text,
    matchers_all_match_empty,
    parser::{Parsed, error_at},
};
use crate::model::labels::METRIC_NAME;

/// Checks a whole tree, and settles how its operators match.
pub(super) fn check(expr: &mut Expr, text: &str) -> Parsed<()> {
    Check { text }.expr(expr).map(drop)
}

struct Check<'a> {
    text: &'a str,
}

impl Check<'_> {
    #[inline(never)]
    fn fail<T>(&self, span: Span, message: impl Into<String>) -> Parsed<T> {
        Err(error_at(self.text, span, message))
    }

    fn expr(&self, expr: &mut Expr) -> Parsed<ValueType> {
        match expr {
            Expr::Number(_) => Ok(ValueType::Scalar),
            Expr::String(_) => Ok(ValueType::String),
            Expr::Vector(selector) => self.selector(selector, ValueType::InstantVector),
            Expr::Matrix(matrix) => self.selector(&matrix.selector, ValueType::RangeVector),
            Expr::Subquery(subquery) => self.subquery(subquery),
            Expr::Call(call) => self.call(call),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Unary(unary) => self.unary(unary),
            Expr::Paren(paren) => self.expr(&mut paren.expr),
        }
    }

    fn subquery(&self, subquery: &mut Subquery) -> Parsed<ValueType> {
        let inner = self.expr(&mut subquery.expr)?;
        self.ranged(subquery, inner)
    }

    #[inline(never)]
    fn ranged(&self, subquery: &Subquery, inner: ValueType) -> Parsed<ValueType> {
        if inner == ValueType::InstantVector {
            return Ok(ValueType::RangeVector);
        }
        let what = "subquery is only allowed on instant vector";
        self.fail(subquery.span, format!("{what}, got {} instead", internal_name(inner)))
    }

    fn unary(&self, unary: &mut Unary) -> Parsed<ValueType> {
        let inner = self.expr(&mut unary.expr)?;
        self.signed(unary, inner)
    }

    #[inline(never)]
    fn signed(&self, unary: &Unary, inner: ValueType) -> Parsed<ValueType> {
        if matches!(inner, ValueType::Scalar | ValueType::InstantVector) {
            return Ok(inner);
        }
        let what = "unary expression only allowed on expressions of type scalar or instant vector";
        self.fail(unary.span, format!("{what}, got {}", quoted_text(inner.documented())))
    }

    fn expect(&self, expr: &mut Expr, wanted: ValueType, place: &dyn Display) -> Parsed<()> {
        let got = self.expr(expr)?;
        if got == wanted { Ok(()) } else { self.unlike(expr, wanted, got, place) }
    }

    #[inline(never)]
    fn unlike(&self, expr: &Expr, wanted: ValueType, got: ValueType, place: &dyn Display) -> Parsed<()> {
        let (wanted, got) = (wanted.documented(), got.documented());
        self.fail(expr.span(), format!("expected type {wanted} in {place}, got {got}"))
    }

    /// Whether a selector's name stands before its braces.
    fn named_outside(&self, selector: &VectorSelector) -> bool {
        selector.name.is_some() && !self.text[selector.span.start as usize..].starts_with('{')
    }

    #[inline(never)]
    fn selector(&self, selector: &VectorSelector, kind: ValueType) -> Parsed<ValueType> {
        let span = selector.span;
        if self.named_outside(selector) {
            // The name's own matcher is the last.
            let others = selector.matchers.split_last().map_or(&[][..], |(_, others)| others);
            if let Some(other) = others.iter().find(|m| m.name() == METRIC_NAME) {
                let name = quoted_text(selector.name.as_deref().unwrap_or_default());
                let other = quoted_text(other.value());
                return self.fail(span, format!("metric name must not be set twice: {name} or {other}"));
            }
            return Ok(kind);
        }
        if matchers_all_match_empty(&selector.matchers) {
            return self.fail(span, "vector selector must contain at least one non-empty matcher");
        }
        Ok(kind)
    }

    fn call(&self, call: &mut Call) -> Parsed<ValueType> {
        self.argument_count(call)?;
        let function = call.function;
        for (i, arg) in call.args.iter_mut().enumerate() {
            if i == 1 && function.name == "info" {
                // Its matchers may all match the empty value.
                continue;
            }
            if let Some(wanted) = function.args.get(i).or(function.args.last()) {
                self.expect(arg, *wanted, &Place(function.name))?;
            }
        }
        Ok(function.returns)
    }

    /// Looks at a call but for its arguments.
    #[inline(never)]
    fn argument_count(&self, call: &mut Call) -> Parsed<()> {
        let function = call.function;
        let (name, given) = (quoted_text(function.name), call.args.len());
        let (least, most) = function.arity();
        if function.variadic == 0 && given != least {
            return self
                .fail(call.span, format!("expected {least} argument(s) in call to {name}, got {given}"));
        }
        if given < least {
            let bound = format!("expected at least {least} argument(s) in call to {name}, got {given}");
            return self.fail(call.span, bound);
        }
        if let Some(most) = most.filter(|most| given > *most) {
            return self.fail(
                call.span,
                format!("expected at most {most} argument(s) in call to {name}, got {given}"),
            );
        }
        if function.name == "info" && given > 1 {
            self.info_labels(call)?;
        }
        Ok(())
    }

    /// The second argument of `info` has to be matchers, without a name.
    fn info_labels(&self, call: &mut Call) -> Parsed<()> {
        let arg = &mut call.args[1];
        let got = arg.value_type();
        if got != ValueType::InstantVector {
            let (wanted, got) = (ValueType::InstantVector.documented(), got.documented());
            return self
                .fail(call.span, format!("expected type {wanted} in call to function \"info\", got {got}"));
        }
        match arg {
            Expr::Vector(selector) if self.named_outside(selector) => {
                self.fail(selector.span, "expected label selectors only, got vector selector instead")
            }
            Expr::Vector(selector) => {
                // A name within the braces is a matcher like others; printed before them it would be refused.
                selector.name = None;
                Ok(())
            }
            other => self.fail(other.span(), "expected label selectors only"),
        }
    }

    fn aggregate(&self, aggregate: &mut Aggregate) -> Parsed<ValueType> {
        self.expect(&mut aggregate.expr, ValueType::InstantVector, &"aggregation expression")?;
        if let Some(param) = &mut aggregate.param {
            let wanted =
                if aggregate.op == AggregateOp::CountValues { ValueType::String } else { ValueType::Scalar };
            self.expect(param, wanted, &"aggregation parameter")?;
        }
        Ok(ValueType::InstantVector)
    }

    fn binary(&self, binary: &mut Binary) -> Parsed<ValueType> {
        let left = self.expr(&mut binary.lhs)?;
        let right = self.expr(&mut binary.rhs)?;
        self.sides(binary, left, right)
    }

    #[inline(never)]
    fn sides(&self, binary: &mut Binary, left: ValueType, right: ValueType) -> Parsed<ValueType> {
        let (op, span, op_span) = (binary.op, binary.span, binary.op_span);
        let is_scalar = |kind| kind == ValueType::Scalar;
        if binary.return_bool && !op.is_comparison() {
            return self.fail(op_span, "bool modifier can only be used on comparison operators");
        }
        if op.is_comparison() && !binary.return_bool && is_scalar(left) && is_scalar(right) {
            return self.fail(op_span, "comparisons between scalars must use BOOL modifier");
        }
        if let Some(matching) = &mut binary.matching {
            if op.is_set() && matching.card == Cardinality::OneToOne {
                matching.card = Cardinality::ManyToMany;
            }
            let twice = matching.labels.iter().find(|label| matching.on && matching.include.contains(label));
            if let Some(label) = twice {
                let label = quoted_text(label);
                return self
                    .fail(op_span, format!("label {label} must not occur in ON and GROUP clause at once"));
            }
        }
        for (kind, side) in [(left, &binary.lhs), (right, &binary.rhs)] {
            if !matches!(kind, ValueType::Scalar | ValueType::InstantVector) {
                let what = "binary expression must contain only scalar and instant vector types";
                return self.fail(side.span(), what);
            }
        }
        let vectors = !is_scalar(left) && !is_scalar(right);
        if let Some(matching) = &binary.matching {
            let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
            if !vectors && !matching.labels.is_empty() {
                return self.fail(span, "vector matching only allowed between instant vectors");
            }
            if !vectors && fills {
                return self.fail(span, "filling in missing series only allowed between instant vectors");
            }
            if vectors && op.is_set() && matching.card != Cardinality::ManyToMany {
                let op = quoted_text(op.as_str());
                return self.fail(span, format!("no grouping allowed for {op} operation"));
            }
            if vectors && op.is_set() && fills {
                return self.fail(span, "filling in missing series not allowed for set operators");
            }
        }
        if !vectors {
            binary.matching = None;
            if op.is_set() {
                let op = quoted_text(op.as_str());
                return self.fail(span, format!("set operator {op} not allowed in binary scalar expression"));
            }
        }
        Ok(if is_scalar(left) && is_scalar(right) { ValueType::Scalar } else { ValueType::InstantVector })
    }
}

/// The arguments of a function.
struct Place(&'static str);

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "call to function {}", quoted_text(self.0))
    }
}

/// The words that one old message uses for types.
fn internal_name(kind: ValueType) -> &'static str {
    match kind {
        ValueType::Scalar => "scalar",
        ValueType::String => "string",
        ValueType::InstantVector => "vector",
        ValueType::RangeVector => "matrix",
    }
}
