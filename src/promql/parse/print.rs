//! Tree to text, on one line, as Prometheus writes it.
//!
//! Invariant: reading what was printed gives a tree that prints the same.
//!
//! Matchers come sorted; the metric name stands before the braces if it can, else in quotes as the
//! first thing within them. A duration is shown in units where that is exact.

use std::fmt::{self, Display, Formatter, Write};

use super::ast::{
    Aggregate, At, Binary, Call, Cardinality, DurationExpr, Expr, Extended, MatrixSelector, NumberLiteral,
    Subquery, VectorMatching, VectorSelector,
};
use crate::model::{
    MatchOp, Matcher,
    labels::{METRIC_NAME, Quoted, is_plain_metric_name},
};

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(e) => e.fmt(f),
            Self::String(e) => Quoted(&e.value).fmt(f),
            Self::Vector(e) => e.fmt(f),
            Self::Matrix(e) => e.fmt(f),
            Self::Subquery(e) => write!(f, "{}{}", e.expr, SubquerySuffix(e)),
            Self::Call(e) => e.fmt(f),
            Self::Aggregate(e) => e.fmt(f),
            Self::Binary(e) => write!(f, "{} {} {}", e.lhs, Operator(e), e.rhs),
            Self::Unary(e) => write!(f, "{}{}", if e.negative { '-' } else { '+' }, e.expr),
            Self::Paren(e) => write!(f, "({})", e.expr),
        }
    }
}

impl Display for NumberLiteral {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.duration { write_length(f, self.value) } else { write_number(f, self.value) }
    }
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.function.name)?;
        for (i, arg) in self.args.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            arg.fmt(f)?;
        }
        f.write_char(')')
    }
}

impl Display for Aggregate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        AggregateHead(self).fmt(f)?;
        f.write_char('(')?;
        if let Some(param) = &self.param {
            write!(f, "{param}, ")?;
        }
        write!(f, "{})", self.expr)
    }
}

impl Display for VectorSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_series(f, self)?;
        write_modifiers(f, self.extended, self.at, self.offset.as_ref())
    }
}

impl Display for MatrixSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let selector = &self.selector;
        write_series(f, selector)?;
        write!(f, "[{}]", Length(&self.range))?;
        write_modifiers(f, selector.extended, selector.at, selector.offset.as_ref())
    }
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal { seconds, duration: true, .. } => write_length(f, *seconds),
            Self::Literal { seconds, duration: false, .. } => write_number(f, *seconds),
            Self::Step(_) => f.write_str("step()"),
            Self::Range(_) => f.write_str("range()"),
            Self::MinOf(a, b, _) => write!(f, "min_of({a}, {b})"),
            Self::MaxOf(a, b, _) => write!(f, "max_of({a}, {b})"),
            Self::Unary(op, a, _) => write!(f, "{}{a}", op.as_str()),
            Self::Binary(op, a, b, _) => write!(f, "{a} {} {b}", op.as_str()),
            Self::Paren(a, _) => write!(f, "({a})"),
        }
    }
}

/// An aggregation up to its arguments: `sum by (job) `.
pub(super) struct AggregateHead<'a>(pub(super) &'a Aggregate);

impl Display for AggregateHead<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let aggregate = self.0;
        f.write_str(aggregate.op.as_str())?;
        match (aggregate.without, aggregate.grouping.as_slice()) {
            (false, []) => Ok(()),
            (without, labels) => {
                write!(f, " {} ({}) ", if without { "without" } else { "by" }, LabelNames(labels))
            }
        }
    }
}

/// A binary operator with its modifiers: `+ on (job) group_left ()`.
pub(super) struct Operator<'a>(pub(super) &'a Binary);

impl Display for Operator<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.op.as_str())?;
        f.write_str(if self.0.return_bool { " bool" } else { "" })?;
        self.0.matching.as_ref().map_or(Ok(()), |matching| write_matching(f, matching))
    }
}

/// What stands behind the expression of a subquery: `[1h:1m] offset 5m`.
pub(super) struct SubquerySuffix<'a>(pub(super) &'a Subquery);

impl Display for SubquerySuffix<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let subquery = self.0;
        write!(f, "[{}:", Length(&subquery.range))?;
        if let Some(step) = &subquery.step {
            Length(step).fmt(f)?;
        }
        f.write_char(']')?;
        write_modifiers(f, None, subquery.at, subquery.offset.as_ref())
    }
}

fn write_matching(f: &mut Formatter<'_>, matching: &VectorMatching) -> fmt::Result {
    let group = match matching.card {
        Cardinality::ManyToOne => Some("group_left"),
        Cardinality::OneToMany => Some("group_right"),
        Cardinality::OneToOne | Cardinality::ManyToMany => None,
    };
    if matching.on || !matching.labels.is_empty() || group.is_some() {
        let word = if matching.on { "on" } else { "ignoring" };
        write!(f, " {word} ({})", LabelNames(&matching.labels))?;
    }
    if let Some(group) = group {
        write!(f, " {group} ({})", LabelNames(&matching.include))?;
    }
    let fill = |f: &mut Formatter<'_>, word: &str, value: f64| {
        write!(f, " {word} (")?;
        write_number(f, value)?;
        f.write_char(')')
    };
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left.to_bits() == right.to_bits() => fill(f, "fill", left),
        (left, right) => {
            left.map_or(Ok(()), |value| fill(f, "fill_left", value))?;
            right.map_or(Ok(()), |value| fill(f, "fill_right", value))
        }
    }
}

/// Label names with commas between, in quotes where they need them.
struct LabelNames<'a>(&'a [String]);

impl Display for LabelNames<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            // These words would be read as something else.
            let reserved = ["without", "inf", "nan"].iter().any(|word| name.eq_ignore_ascii_case(word));
            if is_plain_metric_name(name) && !reserved { f.write_str(name) } else { Quoted(name).fmt(f) }?;
        }
        Ok(())
    }
}

/// The name and the matchers.
fn write_series(f: &mut Formatter<'_>, selector: &VectorSelector) -> fmt::Result {
    let is_name = |m: &Matcher| {
        m.name() == METRIC_NAME && m.op() == MatchOp::Equal && Some(m.value()) == selector.name.as_deref()
    };
    let name = selector.name.as_deref().unwrap_or_default();
    let bare = is_plain_metric_name(name) && !is_reserved(name);
    let mut inside: Vec<String> =
        selector.matchers.iter().filter(|m| name.is_empty() || !is_name(m)).map(Matcher::to_string).collect();
    inside.sort();
    if bare {
        f.write_str(name)?;
    } else if !name.is_empty() {
        inside.insert(0, Quoted(name).to_string());
    }
    if bare && inside.is_empty() { Ok(()) } else { write!(f, "{{{}}}", inside.join(",")) }
}

/// Whether a word outside braces is never a metric's name.
fn is_reserved(name: &str) -> bool {
    const WORDS: [&str; 8] = ["atan2", "bool", "group_left", "group_right", "ignoring", "on", "inf", "nan"];
    WORDS.iter().any(|word| name.eq_ignore_ascii_case(word))
}

fn write_modifiers(
    f: &mut Formatter<'_>,
    extended: Option<Extended>,
    at: Option<At>,
    offset: Option<&DurationExpr>,
) -> fmt::Result {
    f.write_str(match extended {
        Some(Extended::Anchored) => " anchored",
        Some(Extended::Smoothed) => " smoothed",
        None => "",
    })?;
    match at {
        Some(At::Time(millis)) => write!(f, " @ {}", Seconds(millis))?,
        Some(At::Start) => f.write_str(" @ start()")?,
        Some(At::End) => f.write_str(" @ end()")?,
        None => {}
    }
    match offset {
        // An offset of nothing is none.
        Some(DurationExpr::Literal { seconds, .. }) if *seconds == 0.0 => Ok(()),
        Some(offset) => write!(f, " offset {}", Length(offset)),
        None => Ok(()),
    }
}

/// Milliseconds as seconds with three decimals.
struct Seconds(i64);

impl Display for Seconds {
    #[expect(clippy::cast_precision_loss, reason = "exact for some hundred thousand years")]
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0 as f64 / 1000.0)
    }
}

/// A duration that stands alone, in brackets or behind `offset`: a number is shown as a duration too.
struct Length<'a>(&'a DurationExpr);

impl Display for Length<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            DurationExpr::Literal { seconds, .. } => write_length(f, *seconds),
            other => other.fmt(f),
        }
    }
}

fn write_number(f: &mut Formatter<'_>, value: f64) -> fmt::Result {
    if value.is_infinite() {
        return f.write_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    }
    value.fmt(f)
}

/// Seconds in units, or as a number if they are no whole number of milliseconds.
///
/// Years and weeks are used only where nothing remains: `90d` says more than `12w6d`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be a whole positive number that fits"
)]
fn write_length(f: &mut Formatter<'_>, seconds: f64) -> fmt::Result {
    const UNITS: [(&str, u64, bool); 7] = [
        ("y", 365 * 86_400_000, true),
        ("w", 7 * 86_400_000, true),
        ("d", 86_400_000, false),
        ("h", 3_600_000, false),
        ("m", 60_000, false),
        ("s", 1_000, false),
        ("ms", 1, false),
    ];
    let millis = (seconds.abs() * 1000.0).round();
    if !(millis <= 9e15 && millis / 1000.0 == seconds.abs()) {
        return write_number(f, seconds);
    }
    let mut rest = millis as u64;
    if rest == 0 {
        return f.write_str("0s");
    }
    if seconds < 0.0 {
        f.write_char('-')?;
    }
    for (name, unit, only_exact) in UNITS {
        if rest >= unit && (!only_exact || rest.is_multiple_of(unit)) {
            write!(f, "{}{name}", rest / unit)?;
            rest %= unit;
        }
    }
    Ok(())
}
