//! Tokens to tree: operators by precedence, calls and aggregations.
//!
//! Tokens are read when they are asked for and not before: a mistake that is clear from the tokens so
//! far is reported even if the next character is no token at all.
//!
//! Recursion is bounded by `MAX_NESTING`; what does not recurse is kept out of line (`inline(never)`),
//! so that so many levels fit half of a thread's stack even in a build without optimisation.

use super::{
    MAX_HEIGHT, MAX_NESTING, ParserFeatures,
    ast::{
        Aggregate, AggregateOp, Binary, BinaryOp, Call, Cardinality, Expr, NumberLiteral, Paren, Span,
        StringLiteral, Unary, VectorMatching, VectorSelector,
    },
    lex::{Keyword, Kind, Lexer, Token},
    literal::{duration_seconds, number, quoted_text, unquote},
};
use crate::promql::{ParseError, functions};

pub(super) type Parsed<T> = Result<T, ParseError>;

/// A part of the tree, and how high it is.
#[derive(Debug)]
pub(super) struct Node {
    /// Boxed, as most nodes end below another and all of them are handed up many levels.
    pub(super) expr: Box<Expr>,
    pub(super) height: u32,
}

impl Node {
    pub(super) fn new(expr: Expr, height: u32) -> Self {
        Self { expr: Box::new(expr), height }
    }

    pub(super) fn leaf(expr: Expr) -> Self {
        Self::new(expr, 1)
    }
}

/// What an unexpected token is said to be in, and what is said to have been expected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context(pub(super) &'static str, pub(super) &'static str);

/// The walk over a query's tokens.
#[derive(Debug)]
pub(super) struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) features: ParserFeatures,
    lexer: Lexer<'a>,
    /// The next token, once somebody has asked for it.
    peeked: Option<Token>,
    /// First byte behind the last token taken.
    end: u32,
    /// The constructs being read that have words of their own for what they did not expect.
    contexts: Vec<Context>,
    nesting: u32,
    /// Bytes that the patterns read so far take.
    pub(super) pattern_bytes: usize,
}

/// Binds tighter than every binary operator but `^`: what a sign stands before.
const SIGNED: u8 = 6;

/// How tightly an operator binds.
fn precedence(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Or => 1,
        BinaryOp::And | BinaryOp::Unless => 2,
        BinaryOp::Eq
        | BinaryOp::Ne
        | BinaryOp::Lt
        | BinaryOp::Le
        | BinaryOp::Gt
        | BinaryOp::Ge
        | BinaryOp::TrimUpper
        | BinaryOp::TrimLower => 3,
        BinaryOp::Add | BinaryOp::Sub => 4,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => 5,
        BinaryOp::Pow => 6,
    }
}

/// From the start of the one to the end of the other.
pub(super) fn across(from: Span, to: Span) -> Span {
    Span { start: from.start, end: to.end }
}

/// An error at a place of `text`, with the place's line and column worked out.
pub(super) fn error_at(text: &str, span: Span, message: impl Into<String>) -> ParseError {
    let place = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let before = &text.as_bytes()[..text.len().min(span.start as usize)];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    // Of an empty text no place can be named.
    let (line, column) = if text.is_empty() { (0, 0) } else { (place(line), place(column)) };
    ParseError { message: message.into(), span, line, column }
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str, features: ParserFeatures) -> Parsed<Self> {
        if u32::try_from(text.len()).is_err() {
            return Err(error_at("?", Span::default(), "query is longer than 4 GiB"));
        }
        let lexer = Lexer::new(text);
        Ok(Self {
            text,
            features,
            lexer,
            peeked: None,
            end: 0,
            contexts: Vec::new(),
            nesting: 0,
            pattern_bytes: 0,
        })
    }

    /// A whole query.
    pub(super) fn query(&mut self) -> Parsed<Expr> {
        if self.peek()? == Kind::EndOfInput {
            return self.fail(Span::default(), "no expression found in input");
        }
        let node = self.expression(0)?;
        self.expect(Kind::EndOfInput)?;
        Ok(*node.expr)
    }

    /// A text that is one selector, without range or modifiers.
    pub(super) fn lone_selector(&mut self) -> Parsed<VectorSelector> {
        let starts = is_metric_name(self.peek()?) || self.peek()? == Kind::LeftBrace;
        if !starts {
            return self.unexpected();
        }
        let selector = self.selector()?;
        self.expect(Kind::EndOfInput)?;
        Ok(selector)
    }

    // Tokens.

    #[inline(never)]
    pub(super) fn peek_token(&mut self) -> Parsed<Token> {
        if let Some(token) = self.peeked {
            return Ok(token);
        }
        let end = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        let token = self.lexer.next().map_err(|e| {
            let start = u32::try_from(e.at).unwrap_or(u32::MAX);
            error_at(self.text, Span { start, end }, e.message)
        })?;
        self.peeked = Some(token);
        Ok(token)
    }

    pub(super) fn peek(&mut self) -> Parsed<Kind> {
        Ok(self.peek_token()?.kind)
    }

    pub(super) fn advance(&mut self) -> Parsed<Token> {
        let token = self.peek_token()?;
        self.peeked = None;
        self.end = token.span.end;
        Ok(token)
    }

    /// Takes the next token if it is a `kind`.
    pub(super) fn take(&mut self, kind: Kind) -> Parsed<Option<Token>> {
        if self.peek()? == kind { Ok(Some(self.advance()?)) } else { Ok(None) }
    }

    /// Takes the next token, which has to be a `kind`.
    #[inline(never)]
    pub(super) fn expect(&mut self, kind: Kind) -> Parsed<Token> {
        match self.take(kind)? {
            Some(token) => Ok(token),
            None => self.unexpected(),
        }
    }

    /// From `start` to the end of the last token taken.
    pub(super) fn span_from(&self, start: u32) -> Span {
        Span { start, end: self.end }
    }

    // Mistakes.

    #[inline(never)]
    pub(super) fn fail<T>(&self, span: Span, message: impl Into<String>) -> Parsed<T> {
        Err(error_at(self.text, span, message))
    }

    /// Fails because of the next token, in the words of the innermost construct that has some.
    pub(super) fn unexpected<T>(&mut self) -> Parsed<T> {
        let context = self.contexts.last().copied().unwrap_or(Context("", ""));
        self.unexpected_in(context)
    }

    /// Fails because of the next token.
    #[inline(never)]
    pub(super) fn unexpected_in<T>(&mut self, Context(construct, expected): Context) -> Parsed<T> {
        let token = self.peek_token()?;
        let mut message = format!("unexpected {}", token.description(self.text));
        if !construct.is_empty() {
            message.push_str(" in ");
            message.push_str(construct);
        }
        if !expected.is_empty() {
            message.push_str(", expected ");
            message.push_str(expected);
        }
        self.fail(token.span, message)
    }

    /// Reads a construct that has words of its own for what it did not expect.
    pub(super) fn within<T>(
        &mut self,
        context: Context,
        read: impl FnOnce(&mut Self) -> Parsed<T>,
    ) -> Parsed<T> {
        self.contexts.push(context);
        // After a failure nobody asks for contexts any more.
        let read = read(self)?;
        self.contexts.pop();
        Ok(read)
    }

    /// Reads something that may hold itself.
    pub(super) fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting == MAX_NESTING {
            let span = self.peek_token()?.span;
            return self.fail(span, format!("expression is nested more than {MAX_NESTING} levels deep"));
        }
        self.nesting += 1;
        let read = read(self)?;
        self.nesting -= 1;
        Ok(read)
    }

    /// The height of a node over children of height `below`.
    #[inline(never)]
    pub(super) fn height_over(&self, below: u32, span: Span) -> Parsed<u32> {
        if below < MAX_HEIGHT {
            return Ok(below + 1);
        }
        self.fail(span, format!("expression has more than {MAX_HEIGHT} operations in a row"))
    }

    // Expressions.

    /// An expression whose operators all bind at least as tightly as `least`.
    pub(super) fn expression(&mut self, least: u8) -> Parsed<Node> {
        self.nested(|p| {
            let mut left = p.signed()?;
            while let Kind::Binary(op) = p.peek()? {
                let binds = precedence(op);
                if binds < least {
                    break;
                }
                let (op_span, return_bool, matching) = p.operator()?;
                let right = p.expression(if op == BinaryOp::Pow { binds } else { binds + 1 })?;
                left = p.finish_binary(op, op_span, return_bool, matching, left, right)?;
            }
            Ok(left)
        })
    }

    /// A binary operator and its modifiers: its place, whether it said `bool`, and how its sides match.
    #[inline(never)]
    fn operator(&mut self) -> Parsed<(Span, bool, Box<VectorMatching>)> {
        let op_span = self.advance()?.span;
        let return_bool = self.take(Kind::Keyword(Keyword::Bool))?.is_some();
        Ok((op_span, return_bool, Box::new(self.matching()?)))
    }

    /// The operation, once both sides are read.
    #[inline(never)]
    #[expect(clippy::boxed_local, reason = "a caller in the recursion would hold it unboxed")]
    fn finish_binary(
        &self,
        op: BinaryOp,
        op_span: Span,
        return_bool: bool,
        matching: Box<VectorMatching>,
        left: Node,
        right: Node,
    ) -> Parsed<Node> {
        let span = across(left.expr.span(), right.expr.span());
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        if fills && !self.features.fill_modifiers {
            return self.fail(span, "binop fill modifiers are experimental and not enabled");
        }
        let height = self.height_over(left.height.max(right.height), op_span)?;
        let expr = Expr::Binary(Binary {
            op,
            lhs: left.expr,
            rhs: right.expr,
            return_bool,
            matching: Some(*matching),
            span,
            op_span,
        });
        Ok(Node::new(expr, height))
    }

    /// How the sides of an operator match: `on`, `ignoring`, `group_left`, `fill` and so on.
    #[inline(never)]
    fn matching(&mut self) -> Parsed<VectorMatching> {
        let mut matching = VectorMatching {
            card: Cardinality::OneToOne,
            labels: Vec::new(),
            on: false,
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        };
        matching.on = match self.peek()? {
            Kind::Keyword(Keyword::On) => true,
            Kind::Keyword(Keyword::Ignoring) => false,
            _ => {
                self.fills(&mut matching)?;
                return Ok(matching);
            }
        };
        self.advance()?;
        matching.labels = self.grouping()?;
        matching.card = match self.peek()? {
            Kind::Keyword(Keyword::GroupLeft) => Cardinality::ManyToOne,
            Kind::Keyword(Keyword::GroupRight) => Cardinality::OneToMany,
            _ => Cardinality::OneToOne,
        };
        if matching.card != Cardinality::OneToOne {
            self.advance()?;
            let next = self.peek()?;
            let goes_on = starts_expression(next)
                || matches!(next, Kind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight));
            // A parenthesis is always taken for the labels', never for the right side's.
            if next == Kind::LeftParen || !goes_on {
                matching.include = self.grouping()?;
            }
        }
        self.fills(&mut matching)?;
        Ok(matching)
    }

    /// `fill (1)`, or `fill_left (1)` and `fill_right (2)` in any order.
    fn fills(&mut self, matching: &mut VectorMatching) -> Parsed<()> {
        loop {
            let kind = self.peek()?;
            let free = (matching.fill_left.is_none(), matching.fill_right.is_none());
            match (kind, free) {
                (Kind::Keyword(Keyword::Fill), (true, true)) => {
                    let value = self.fill_value()?;
                    (matching.fill_left, matching.fill_right) = (Some(value), Some(value));
                }
                (Kind::Keyword(Keyword::FillLeft), (true, _)) => {
                    matching.fill_left = Some(self.fill_value()?)
                }
                (Kind::Keyword(Keyword::FillRight), (_, true)) => {
                    matching.fill_right = Some(self.fill_value()?)
                }
                _ => return Ok(()),
            }
        }
    }

    fn fill_value(&mut self) -> Parsed<f64> {
        self.advance()?;
        self.expect(Kind::LeftParen)?;
        let value = self.signed_number()?;
        self.expect(Kind::RightParen)?;
        Ok(value)
    }

    /// A number or a duration in seconds, with or without a sign.
    pub(super) fn signed_number(&mut self) -> Parsed<f64> {
        let negative = match self.peek()? {
            Kind::Binary(op @ (BinaryOp::Add | BinaryOp::Sub)) => {
                self.advance()?;
                op == BinaryOp::Sub
            }
            _ => false,
        };
        if !matches!(self.peek()?, Kind::Number | Kind::Duration) {
            return self.unexpected();
        }
        let literal = self.number_literal()?;
        Ok(if negative { -literal.value } else { literal.value })
    }

    /// A number or a duration. The next token is known to be one.
    #[inline(never)]
    pub(super) fn number_literal(&mut self) -> Parsed<NumberLiteral> {
        let token = self.advance()?;
        let text = token.text(self.text);
        let duration = token.kind == Kind::Duration;
        let value = if duration { duration_seconds(text) } else { number(text) };
        match value {
            Ok(value) => Ok(NumberLiteral { value, duration, span: token.span }),
            Err(message) => self.fail(token.span, message),
        }
    }

    /// An operand with the signs before it.
    fn signed(&mut self) -> Parsed<Node> {
        let Kind::Binary(op @ (BinaryOp::Add | BinaryOp::Sub)) = self.peek()? else {
            return self.operand();
        };
        let start = self.advance()?.span.start;
        let negative = op == BinaryOp::Sub;
        let operand = self.expression(SIGNED)?;
        self.finish_signed(start, negative, operand)
    }

    /// The signed operand, once it is read: a number takes the sign in.
    #[inline(never)]
    fn finish_signed(&self, start: u32, negative: bool, operand: Node) -> Parsed<Node> {
        let span = Span { start, end: operand.expr.span().end };
        if let Expr::Number(literal) = *operand.expr {
            let value = if negative { -literal.value } else { literal.value };
            return Ok(Node::leaf(Expr::Number(NumberLiteral { value, span, ..literal })));
        }
        let height = self.height_over(operand.height, span)?;
        Ok(Node::new(Expr::Unary(Unary { negative, expr: operand.expr, span }), height))
    }

    /// An operand with all that may stand behind it: ranges, `offset`, `@`, `anchored`, `smoothed`.
    fn operand(&mut self) -> Parsed<Node> {
        let mut node = self.primary()?;
        loop {
            node = match self.peek()? {
                Kind::LeftBracket => self.range(node)?,
                Kind::Keyword(Keyword::Offset) => self.offset(node)?,
                Kind::At => self.at(node)?,
                Kind::Keyword(Keyword::Anchored | Keyword::Smoothed) => self.extended(node)?,
                _ => return Ok(node),
            };
        }
    }

    fn primary(&mut self) -> Parsed<Node> {
        let token = self.peek_token()?;
        match token.kind {
            Kind::Number | Kind::Duration => Ok(Node::leaf(Expr::Number(self.number_literal()?))),
            Kind::String => {
                self.advance()?;
                let value = unquote(token.text(self.text));
                Ok(Node::leaf(Expr::String(StringLiteral { value, span: token.span })))
            }
            Kind::LeftParen => self.paren(),
            Kind::Aggregate(op) => {
                self.advance()?;
                match self.peek()? {
                    Kind::LeftParen | Kind::Keyword(Keyword::By | Keyword::Without) => {
                        self.aggregate(op, token)
                    }
                    _ => Ok(Node::leaf(Expr::Vector(self.selector_named(token)?))),
                }
            }
            Kind::Identifier
            | Kind::Keyword(Keyword::Start | Keyword::End | Keyword::Step | Keyword::Range) => {
                self.advance()?;
                match self.peek()? {
                    Kind::LeftParen => self.call(token),
                    _ => Ok(Node::leaf(Expr::Vector(self.selector_named(token)?))),
                }
            }
            kind if kind == Kind::LeftBrace || is_metric_name(kind) => {
                Ok(Node::leaf(Expr::Vector(self.selector()?)))
            }
            _ => self.unexpected(),
        }
    }

    fn paren(&mut self) -> Parsed<Node> {
        let open = self.advance()?;
        let inside = self.expression(0)?;
        let close = self.expect(Kind::RightParen)?;
        let span = across(open.span, close.span);
        let height = self.height_over(inside.height, span)?;
        Ok(Node::new(Expr::Paren(Paren { expr: inside.expr, span }), height))
    }

    fn call(&mut self, name: Token) -> Parsed<Node> {
        let arguments = self.arguments()?;
        self.finish_call(name, arguments)
    }

    /// The call, once its arguments are read.
    #[inline(never)]
    fn finish_call(&self, name: Token, (args, height): (Vec<Expr>, u32)) -> Parsed<Node> {
        let span = self.span_from(name.span.start);
        let written = name.text(self.text);
        let found = match name.kind {
            // Words with a meaning are words in any case.
            Kind::Keyword(_) => functions::lookup(&written.to_ascii_lowercase()),
            _ => functions::lookup(written),
        };
        let Some(function) = found else {
            return self.fail(name.span, format!("unknown function with name {}", quoted_text(written)));
        };
        if function.experimental && !self.features.experimental_functions {
            return self.fail(name.span, format!("function {} is not enabled", quoted_text(written)));
        }
        let height = self.height_over(height, span)?;
        Ok(Node::new(Expr::Call(Call { function, args, span }), height))
    }

    /// Arguments in parentheses, and the greatest of their heights.
    fn arguments(&mut self) -> Parsed<(Vec<Expr>, u32)> {
        self.expect(Kind::LeftParen)?;
        let (mut args, mut height) = (Vec::new(), 0);
        if self.take(Kind::RightParen)?.is_some() {
            return Ok((args, height));
        }
        loop {
            let arg = self.expression(0)?;
            height = height.max(arg.height);
            args.push(*arg.expr);
            let Some(comma) = self.take(Kind::Comma)? else { break };
            if !starts_expression(self.peek()?) {
                return self.fail(comma.span, "trailing commas not allowed in function call args");
            }
        }
        self.expect(Kind::RightParen)?;
        Ok((args, height))
    }

    fn aggregate(&mut self, op: AggregateOp, name: Token) -> Parsed<Node> {
        self.contexts.push(Context("aggregation", ""));
        let mut grouping = self.aggregate_grouping()?;
        let arguments = self.arguments()?;
        self.contexts.pop();
        if grouping.is_none() {
            grouping = self.aggregate_grouping()?;
        }
        self.finish_aggregate(op, name, grouping, arguments)
    }

    /// The aggregation, once all of it is read.
    #[inline(never)]
    fn finish_aggregate(
        &self,
        op: AggregateOp,
        name: Token,
        grouping: Option<(bool, Vec<String>)>,
        (args, height): (Vec<Expr>, u32),
    ) -> Parsed<Node> {
        let span = self.span_from(name.span.start);
        let (without, grouping) = grouping.unwrap_or_default();
        let given = args.len();
        if given == 0 {
            return self.fail(span, "no arguments for aggregate expression provided");
        }
        let experimental = matches!(op, AggregateOp::Limitk | AggregateOp::LimitRatio);
        if experimental && !self.features.experimental_functions {
            let flag = "--enable-feature=promql-experimental-functions";
            return self
                .fail(span, format!("{}() is experimental and must be enabled with {flag}", op.as_str()));
        }
        let mut args = args.into_iter();
        let (param, expr) = match (op.takes_param(), given) {
            (true, 2) => (args.next().map(Box::new), args.next()),
            (false, 1) => (None, args.next()),
            (takes_param, _) => {
                let desired = 1 + u8::from(takes_param);
                let what = "wrong number of arguments for aggregate expression provided";
                return self.fail(span, format!("{what}, expected {desired}, got {given}"));
            }
        };
        let expr = Box::new(expr.expect("the arguments were counted"));
        let height = self.height_over(height, span)?;
        Ok(Node::new(Expr::Aggregate(Aggregate { op, expr, param, grouping, without, span }), height))
    }

    /// `by (…)` or `without (…)`, if one stands here: whether it was `without`, and the labels.
    #[inline(never)]
    fn aggregate_grouping(&mut self) -> Parsed<Option<(bool, Vec<String>)>> {
        let without = match self.peek()? {
            Kind::Keyword(Keyword::By) => false,
            Kind::Keyword(Keyword::Without) => true,
            _ => return Ok(None),
        };
        self.advance()?;
        Ok(Some((without, self.grouping()?)))
    }
}

/// Whether a token may be a metric's name.
pub(super) fn is_metric_name(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Identifier
            | Kind::MetricIdentifier
            | Kind::Aggregate(_)
            | Kind::Binary(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
            | Kind::Keyword(
                Keyword::By
                    | Keyword::Without
                    | Keyword::Offset
                    | Keyword::Start
                    | Keyword::End
                    | Keyword::Step
                    | Keyword::Range
                    | Keyword::Anchored
                    | Keyword::Smoothed
            )
    )
}

/// Whether an expression may start with a token.
fn starts_expression(kind: Kind) -> bool {
    let literal =
        matches!(kind, Kind::Number | Kind::Duration | Kind::String | Kind::LeftParen | Kind::LeftBrace);
    literal || is_metric_name(kind) || matches!(kind, Kind::Binary(BinaryOp::Add | BinaryOp::Sub))
}
