//! The tree a query is parsed into; every node knows where in the text it stood.

use std::sync::Arc;

use crate::{model::Matcher, promql::functions::Signature};

/// A stretch of the query text, in bytes; `end` is the first byte after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// First byte after.
    pub end: u32,
}

/// What an expression evaluates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// A number per step.
    Scalar,
    /// A text.
    String,
    /// Samples of many series at one instant.
    InstantVector,
    /// Samples of many series over a range.
    RangeVector,
}

impl ValueType {
    /// The words that error texts use.
    pub fn documented(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::InstantVector => "instant vector",
            Self::RangeVector => "range vector",
        }
    }
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// `1.5`, `0x1F`, `5m`
    Number(NumberLiteral),
    /// `"text"`
    String(StringLiteral),
    /// `up{job="api"} offset 5m @ end()`
    Vector(VectorSelector),
    /// `up[5m]`
    Matrix(MatrixSelector),
    /// `rate(up[5m])[1h:1m]`
    Subquery(Subquery),
    /// `rate(...)`
    Call(Call),
    /// `sum by (job) (...)`
    Aggregate(Aggregate),
    /// `a + b`
    Binary(Binary),
    /// `-a`
    Unary(Unary),
    /// `(a)`
    Paren(Paren),
}

/// A number in the text.
#[derive(Clone, Debug)]
pub struct NumberLiteral {
    /// The value; of a duration, in seconds.
    pub value: f64,
    /// Whether it was written as a duration, and is printed so.
    pub duration: bool,
    /// Where it stood.
    pub span: Span,
}

/// Bits decide: a NaN equals itself here.
impl PartialEq for NumberLiteral {
    fn eq(&self, other: &Self) -> bool {
        self.value.to_bits() == other.value.to_bits()
            && self.duration == other.duration
            && self.span == other.span
    }
}

/// A text in the text, without its quotes.
#[derive(Clone, Debug, PartialEq)]
pub struct StringLiteral {
    /// The value.
    pub value: String,
    /// Where it stood.
    pub span: Span,
}

/// Which series, and from when.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSelector {
    /// The metric name where it stands before the braces, or bare in quotes within them.
    pub name: Option<String>,
    /// All conditions, that on the name included.
    pub matchers: Arc<[Matcher]>,
    /// `offset D`, none if absent.
    pub offset: Option<DurationExpr>,
    /// `@ T`, none if absent.
    pub at: Option<At>,
    /// `anchored` or `smoothed`.
    pub extended: Option<Extended>,
    /// Where it stood, modifiers included.
    pub span: Span,
}

/// What `@` pins an expression to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// An instant, in milliseconds.
    Time(i64),
    /// `@ start()`
    Start,
    /// `@ end()`
    End,
}

/// How a range selector treats the edges of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extended {
    /// Takes the last sample before the window as its edge.
    Anchored,
    /// Interpolates at both edges.
    Smoothed,
}

/// A range of samples per step.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSelector {
    /// Which series.
    pub selector: VectorSelector,
    /// How far back.
    pub range: DurationExpr,
    /// Where it stood, modifiers included.
    pub span: Span,
}

/// An expression evaluated over a range of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Subquery {
    /// What is evaluated.
    pub expr: Box<Expr>,
    /// How far back.
    pub range: DurationExpr,
    /// How often; none is the server's evaluation interval.
    pub step: Option<DurationExpr>,
    /// `offset D`, none if absent.
    pub offset: Option<DurationExpr>,
    /// `@ T`, none if absent.
    pub at: Option<At>,
    /// Where it stood, modifiers included.
    pub span: Span,
}

/// A duration, which may depend on the query's range and step.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationExpr {
    /// A literal; `seconds` as written (a number or a duration), to be rounded to milliseconds.
    Literal {
        /// The length in seconds.
        seconds: f64,
        /// Whether it was written as a duration (`5m`) rather than a number (`300`).
        duration: bool,
        /// Where it stood.
        span: Span,
    },
    /// `step()`
    Step(Span),
    /// `range()`
    Range(Span),
    /// `min_of(a, b)`
    MinOf(Box<DurationExpr>, Box<DurationExpr>, Span),
    /// `max_of(a, b)`
    MaxOf(Box<DurationExpr>, Box<DurationExpr>, Span),
    /// `-a`, `+a`
    Unary(DurationOp, Box<DurationExpr>, Span),
    /// `a * b`
    Binary(DurationOp, Box<DurationExpr>, Box<DurationExpr>, Span),
    /// `(a)`
    Paren(Box<DurationExpr>, Span),
}

/// Arithmetic on durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
}

/// A function applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Which function.
    pub function: &'static Signature,
    /// To what.
    pub args: Vec<Expr>,
    /// Where it stood.
    pub span: Span,
}

/// An aggregation over series.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Which.
    pub op: AggregateOp,
    /// Of what.
    pub expr: Box<Expr>,
    /// The `k` of topk, the `q` of quantile, the label of count_values.
    pub param: Option<Box<Expr>>,
    /// The labels of `by` or `without`.
    pub grouping: Vec<String>,
    /// Whether it said `without`.
    pub without: bool,
    /// Where it stood.
    pub span: Span,
}

/// The aggregations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateOp {
    /// `sum`
    Sum,
    /// `avg`
    Avg,
    /// `count`
    Count,
    /// `min`
    Min,
    /// `max`
    Max,
    /// `group`
    Group,
    /// `stddev`
    Stddev,
    /// `stdvar`
    Stdvar,
    /// `topk`
    Topk,
    /// `bottomk`
    Bottomk,
    /// `count_values`
    CountValues,
    /// `quantile`
    Quantile,
    /// `limitk`
    Limitk,
    /// `limit_ratio`
    LimitRatio,
}

/// Two expressions and an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// Which operator.
    pub op: BinaryOp,
    /// Left.
    pub lhs: Box<Expr>,
    /// Right.
    pub rhs: Box<Expr>,
    /// `bool`: compare to 0 or 1 instead of filtering.
    pub return_bool: bool,
    /// How vectors find their partners; none if a side is a scalar.
    pub matching: Option<VectorMatching>,
    /// Where it stood.
    pub span: Span,
    /// Where the operator itself stood; messages about it point here.
    pub op_span: Span,
}

/// The binary operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
    /// `atan2`
    Atan2,
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `</`: keeps a native histogram's buckets below a value
    TrimUpper,
    /// `>/`: keeps a native histogram's buckets above a value
    TrimLower,
    /// `and`
    And,
    /// `or`
    Or,
    /// `unless`
    Unless,
}

impl DurationExpr {
    /// Where the duration stood.
    pub fn span(&self) -> Span {
        match self {
            Self::Literal { span, .. }
            | Self::Step(span)
            | Self::Range(span)
            | Self::MinOf(_, _, span)
            | Self::MaxOf(_, _, span)
            | Self::Unary(_, _, span)
            | Self::Binary(_, _, _, span)
            | Self::Paren(_, span) => *span,
        }
    }
}

impl DurationOp {
    /// The operator as written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
        }
    }
}

impl BinaryOp {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Add,
        Self::Sub,
        Self::Mul,
        Self::Div,
        Self::Mod,
        Self::Pow,
        Self::Atan2,
        Self::Eq,
        Self::Ne,
        Self::Lt,
        Self::Le,
        Self::Gt,
        Self::Ge,
        Self::TrimUpper,
        Self::TrimLower,
        Self::And,
        Self::Or,
        Self::Unless,
    ];

    /// The operator as written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
        }
    }

    /// Whether it compares.
    pub fn is_comparison(self) -> bool {
        matches!(self, Self::Eq | Self::Ne | Self::Lt | Self::Le | Self::Gt | Self::Ge)
    }

    /// Whether it takes observations out of histograms.
    pub fn is_trim(self) -> bool {
        matches!(self, Self::TrimUpper | Self::TrimLower)
    }

    /// Whether it works on sets of series.
    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }
}

impl AggregateOp {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Sum,
        Self::Avg,
        Self::Count,
        Self::Min,
        Self::Max,
        Self::Group,
        Self::Stddev,
        Self::Stdvar,
        Self::Topk,
        Self::Bottomk,
        Self::CountValues,
        Self::Quantile,
        Self::Limitk,
        Self::LimitRatio,
    ];

    /// Whether it makes one value of each group, whose series have no part in what else there is.
    pub fn folds(self) -> bool {
        match self {
            Self::Sum
            | Self::Avg
            | Self::Count
            | Self::Min
            | Self::Max
            | Self::Group
            | Self::Stddev
            | Self::Stdvar
            | Self::Quantile => true,
            Self::Topk | Self::Bottomk | Self::Limitk | Self::LimitRatio | Self::CountValues => false,
        }
    }

    /// Whether it is behind Prometheus' `promql-experimental-functions`.
    pub fn is_experimental(self) -> bool {
        matches!(self, Self::Limitk | Self::LimitRatio)
    }

    /// Whether a parameter comes before what is aggregated.
    pub fn takes_param(self) -> bool {
        match self {
            Self::Topk
            | Self::Bottomk
            | Self::CountValues
            | Self::Quantile
            | Self::Limitk
            | Self::LimitRatio => true,
            Self::Sum
            | Self::Avg
            | Self::Count
            | Self::Min
            | Self::Max
            | Self::Group
            | Self::Stddev
            | Self::Stdvar => false,
        }
    }

    /// The aggregation as written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Group => "group",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Topk => "topk",
            Self::Bottomk => "bottomk",
            Self::CountValues => "count_values",
            Self::Quantile => "quantile",
            Self::Limitk => "limitk",
            Self::LimitRatio => "limit_ratio",
        }
    }
}

/// How the elements of two vectors find each other.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorMatching {
    /// How many may meet how many.
    pub card: Cardinality,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// Whether it said `on`.
    pub on: bool,
    /// Labels copied from the "one" side.
    pub include: Vec<String>,
    /// What stands in for a missing left element.
    pub fill_left: Option<f64>,
    /// What stands in for a missing right element.
    pub fill_right: Option<f64>,
}

/// How many elements of one side may meet one of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cardinality {
    /// One each.
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
    /// Set operators.
    ManyToMany,
}

/// A sign before an expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Unary {
    /// Whether it is a minus.
    pub negative: bool,
    /// What it stands before.
    pub expr: Box<Expr>,
    /// Where it stood.
    pub span: Span,
}

/// An expression in parentheses.
#[derive(Clone, Debug, PartialEq)]
pub struct Paren {
    /// What is inside.
    pub expr: Box<Expr>,
    /// Where it stood, parentheses included.
    pub span: Span,
}

impl Expr {
    /// Where the expression stood.
    pub fn span(&self) -> Span {
        match self {
            Self::Number(e) => e.span,
            Self::String(e) => e.span,
            Self::Vector(e) => e.span,
            Self::Matrix(e) => e.span,
            Self::Subquery(e) => e.span,
            Self::Call(e) => e.span,
            Self::Aggregate(e) => e.span,
            Self::Binary(e) => e.span,
            Self::Unary(e) => e.span,
            Self::Paren(e) => e.span,
        }
    }

    /// What the expression evaluates to.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::Number(_) => ValueType::Scalar,
            Self::String(_) => ValueType::String,
            Self::Vector(_) | Self::Aggregate(_) => ValueType::InstantVector,
            Self::Matrix(_) | Self::Subquery(_) => ValueType::RangeVector,
            Self::Call(call) => call.function.returns,
            Self::Binary(binary) => {
                let scalar = |e: &Self| e.value_type() == ValueType::Scalar;
                if scalar(&binary.lhs) && scalar(&binary.rhs) {
                    ValueType::Scalar
                } else {
                    ValueType::InstantVector
                }
            }
            Self::Unary(unary) => unary.expr.value_type(),
            Self::Paren(paren) => paren.expr.value_type(),
        }
    }

    /// The expressions directly below this one, in the order in which they are written.
    ///
    /// A range selector has none: what it ranges over is part of it.
    pub fn children(&self) -> impl DoubleEndedIterator<Item = &Self> {
        let (first, second, rest): (Option<&Self>, Option<&Self>, &[Self]) = match self {
            Self::Number(_) | Self::String(_) | Self::Vector(_) | Self::Matrix(_) => (None, None, &[]),
            Self::Subquery(e) => (Some(&e.expr), None, &[]),
            Self::Call(e) => (None, None, &e.args),
            Self::Aggregate(e) => (e.param.as_deref(), Some(&e.expr), &[]),
            Self::Binary(e) => (Some(&e.lhs), Some(&e.rhs), &[]),
            Self::Unary(e) => (Some(&e.expr), None, &[]),
            Self::Paren(e) => (Some(&e.expr), None, &[]),
        };
        first.into_iter().chain(second).chain(rest)
    }
}
