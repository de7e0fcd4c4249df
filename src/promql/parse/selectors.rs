//! Which series and when: names, matchers, label lists, and what may stand behind a selector.
//!
//! What the recursion of the parser passes by is kept out of line, so that its own
//! frames on the stack stay small.

use std::sync::Arc;

use super::{
    MAX_PATTERN_BYTES,
    ast::{At, BinaryOp, DurationExpr, Expr, Extended, MatrixSelector, Span, Subquery, VectorSelector},
    lex::{Keyword, Kind, Token},
    literal::{quoted_text, unquote},
    parser::{Context, Node, Parsed, Parser, across},
};
use crate::model::{MatchOp, Matcher, labels::METRIC_NAME};

const MATCHING: &str = "label matching";
const GROUPING: &str = "grouping opts";

/// The modifiers that a selector and a subquery share.
struct Modified<'a> {
    offset: &'a mut Option<DurationExpr>,
    at: &'a mut Option<At>,
}

/// What `offset` and `@` apply to; none if they cannot apply to `expr`.
fn modified(expr: &mut Expr) -> Option<Modified<'_>> {
    match expr {
        Expr::Vector(e) => Some(Modified { offset: &mut e.offset, at: &mut e.at }),
        Expr::Matrix(e) => Some(Modified { offset: &mut e.selector.offset, at: &mut e.selector.at }),
        Expr::Subquery(e) => Some(Modified { offset: &mut e.offset, at: &mut e.at }),
        Expr::Number(_)
        | Expr::String(_)
        | Expr::Call(_)
        | Expr::Aggregate(_)
        | Expr::Binary(_)
        | Expr::Unary(_)
        | Expr::Paren(_) => None,
    }
}

/// Makes the span of a selector or subquery reach to where its last modifier ends.
fn extend_to(expr: &mut Expr, end: u32) {
    match expr {
        Expr::Vector(e) => e.span.end = end,
        Expr::Matrix(e) => e.span.end = end,
        Expr::Subquery(e) => e.span.end = end,
        Expr::Number(_)
        | Expr::String(_)
        | Expr::Call(_)
        | Expr::Aggregate(_)
        | Expr::Binary(_)
        | Expr::Unary(_)
        | Expr::Paren(_) => {}
    }
}

impl Parser<'_> {
    /// A selector; the next token is known to start one.
    #[inline(never)]
    pub(super) fn selector(&mut self) -> Parsed<VectorSelector> {
        if self.peek()? == Kind::LeftBrace {
            let (matchers, quoted, span) = self.matchers()?;
            // With several conditions on the name, none of them is *the* name.
            let alone = matchers.iter().filter(|m| m.name() == METRIC_NAME).count() == 1;
            let name = quoted.filter(|name| alone && !name.is_empty());
            return Ok(selector(name, matchers, span));
        }
        let name = self.advance()?;
        self.selector_named(name)
    }

    /// A selector whose name is taken already.
    #[inline(never)]
    pub(super) fn selector_named(&mut self, token: Token) -> Parsed<VectorSelector> {
        let name = token.text(self.text);
        let (mut matchers, mut span) = (Vec::new(), token.span);
        if self.peek()? == Kind::LeftBrace {
            let (inside, _, braces) = self.matchers()?;
            matchers = inside;
            span = across(span, braces);
        }
        matchers.push(Matcher::equal(METRIC_NAME, name));
        Ok(selector(Some(name.to_owned()), matchers, span))
    }

    /// Matchers in braces, the metric name that stood bare in quotes among them, and the braces' span.
    fn matchers(&mut self) -> Parsed<(Vec<Matcher>, Option<String>, Span)> {
        let open = self.advance()?;
        let (mut matchers, mut name) = (Vec::new(), None);
        loop {
            if let Some(close) = self.take(Kind::RightBrace)? {
                return Ok((matchers, name, across(open.span, close.span)));
            }
            matchers.push(self.matcher(&mut name)?);
            let next = self.peek()?;
            if next != Kind::RightBrace && self.take(Kind::Comma)?.is_none() {
                return self.unexpected_in(Context(MATCHING, "\",\" or \"}\""));
            }
        }
    }

    fn matcher(&mut self, bare_name: &mut Option<String>) -> Parsed<Matcher> {
        let token = self.peek_token()?;
        let label = match token.kind {
            Kind::Identifier => token.text(self.text).to_owned(),
            Kind::String => unquote(token.text(self.text)),
            _ => return self.unexpected_in(Context(MATCHING, "identifier or \"}\"")),
        };
        self.advance()?;
        let op = match self.peek()? {
            Kind::Assign => MatchOp::Equal,
            Kind::Binary(BinaryOp::Ne) => MatchOp::NotEqual,
            Kind::Matches => MatchOp::Matches,
            Kind::NotMatches => MatchOp::NotMatches,
            _ if token.kind == Kind::String => return self.bare_name(token, label, bare_name),
            _ => return self.unexpected_in(Context(MATCHING, "label matching operator")),
        };
        self.advance()?;
        if self.peek()? != Kind::String {
            return self.unexpected_in(Context(MATCHING, "string"));
        }
        let value = self.advance()?;
        let span = across(token.span, value.span);
        let matcher = Matcher::new(op, &label, &unquote(value.text(self.text)));
        let matcher = matcher.or_else(|e| self.fail(span, e.to_string()))?;
        self.pattern_bytes += matcher.compiled_bytes();
        if self.pattern_bytes > MAX_PATTERN_BYTES {
            let most = MAX_PATTERN_BYTES >> 20;
            return self.fail(span, format!("regular expressions take more than {most} MiB when compiled"));
        }
        Ok(matcher)
    }

    /// A metric name in quotes, among the matchers.
    fn bare_name(&self, token: Token, name: String, known: &mut Option<String>) -> Parsed<Matcher> {
        if let Some(known) = known {
            let (known, name) = (quoted_text(known), quoted_text(&name));
            return self.fail(token.span, format!("metric name must not be set twice: {known} or {name}"));
        }
        let matcher = Matcher::equal(METRIC_NAME, &name);
        *known = Some(name);
        Ok(matcher)
    }

    /// Label names in parentheses: of `by`, `without`, `on`, `ignoring`, `group_left`, `group_right`.
    pub(super) fn grouping(&mut self) -> Parsed<Vec<String>> {
        if self.take(Kind::LeftParen)?.is_none() {
            return self.unexpected_in(Context(GROUPING, "\"(\""));
        }
        let mut labels = Vec::new();
        while self.take(Kind::RightParen)?.is_none() {
            labels.push(self.grouping_label()?);
            let next = self.peek()?;
            if next != Kind::RightParen && self.take(Kind::Comma)?.is_none() {
                return self.unexpected_in(Context(GROUPING, "\",\" or \")\""));
            }
        }
        Ok(labels)
    }

    fn grouping_label(&mut self) -> Parsed<String> {
        let token = self.peek_token()?;
        if token.kind == Kind::String {
            self.advance()?;
            let label = unquote(token.text(self.text));
            if label.is_empty() {
                return self.fail(token.span, "invalid label name for grouping: \"\"");
            }
            return Ok(label);
        }
        let word = matches!(
            token.kind,
            Kind::Identifier
                | Kind::MetricIdentifier
                | Kind::Aggregate(_)
                | Kind::Binary(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::Atan2)
                | Kind::Keyword(
                    Keyword::Anchored
                        | Keyword::Bool
                        | Keyword::By
                        | Keyword::End
                        | Keyword::GroupLeft
                        | Keyword::GroupRight
                        | Keyword::Ignoring
                        | Keyword::Offset
                        | Keyword::On
                        | Keyword::Range
                        | Keyword::Smoothed
                        | Keyword::Start
                        | Keyword::Step
                )
        );
        if !word {
            return self.unexpected_in(Context(GROUPING, "label"));
        }
        self.advance()?;
        Ok(token.text(self.text).to_owned())
    }

    /// `[5m]` or `[1h:1m]` behind an expression.
    #[inline(never)]
    pub(super) fn range(&mut self, node: Node) -> Parsed<Node> {
        let open = self.advance()?;
        let what = "number, duration, step(), or range()";
        let range = self.within(Context("subquery or range selector", what), Self::positive_duration)?;
        match self.peek()? {
            Kind::RightBracket => {
                let brackets = across(open.span, self.advance()?.span);
                self.matrix(node, range, brackets)
            }
            Kind::Colon => {
                self.advance()?;
                self.subquery(node, range)
            }
            _ => self.unexpected_in(Context("subquery or range", "\":\" or \"]\"")),
        }
    }

    fn matrix(&self, node: Node, range: DurationExpr, brackets: Span) -> Parsed<Node> {
        let Expr::Vector(selector) = *node.expr else {
            return self.fail(brackets, "ranges only allowed for vector selectors");
        };
        if selector.offset.is_some() {
            return self.fail(brackets, "no offset modifiers allowed before range");
        }
        if selector.at.is_some() {
            return self.fail(brackets, "no @ modifiers allowed before range");
        }
        let span = across(selector.span, brackets);
        Ok(Node::new(Expr::Matrix(MatrixSelector { selector, range, span }), node.height))
    }

    fn subquery(&mut self, node: Node, range: DurationExpr) -> Parsed<Node> {
        let step = if self.peek()? == Kind::RightBracket {
            None
        } else {
            let what = "number, duration, step(), range(), or \"]\"";
            Some(self.within(Context("subquery selector", what), Self::positive_duration)?)
        };
        let Some(close) = self.take(Kind::RightBracket)? else {
            return self.unexpected_in(Context("subquery selector", "\"]\""));
        };
        let span = across(node.expr.span(), close.span);
        let height = self.height_over(node.height, span)?;
        let expr = node.expr;
        let subquery = Subquery { expr, range, step, offset: None, at: None, span };
        Ok(Node::new(Expr::Subquery(subquery), height))
    }

    /// `offset D` behind an expression.
    #[inline(never)]
    pub(super) fn offset(&mut self, mut node: Node) -> Parsed<Node> {
        self.advance()?;
        let what = "number, duration, step(), or range()";
        let offset = self.within(Context("offset", what), Self::offset_duration)?;
        let span = node.expr.span();
        let Some(modified) = modified(&mut node.expr) else {
            let needs =
                "must be preceded by an instant vector selector or range vector selector or a subquery";
            return self.fail(span, format!("offset modifier {needs}"));
        };
        // An offset of nothing is none.
        let is_nothing =
            |d: &DurationExpr| matches!(d, DurationExpr::Literal { seconds, .. } if *seconds == 0.0);
        if modified.offset.as_ref().is_some_and(|d| !is_nothing(d)) {
            return self.fail(span, "offset may not be set multiple times");
        }
        *modified.offset = Some(offset);
        extend_to(&mut node.expr, self.span_from(0).end);
        Ok(node)
    }

    /// `@ T` behind an expression.
    #[inline(never)]
    pub(super) fn at(&mut self, mut node: Node) -> Parsed<Node> {
        self.advance()?;
        let span = node.expr.span();
        let at = self.within(Context("@", "timestamp"), |p| p.pinned_to(span))?;
        let Some(modified) = modified(&mut node.expr) else {
            let needs =
                "must be preceded by an instant vector selector or range vector selector or a subquery";
            return self.fail(span, format!("@ modifier {needs}"));
        };
        if modified.at.is_some() {
            return self.fail(span, "@ <timestamp> may not be set multiple times");
        }
        *modified.at = Some(at);
        extend_to(&mut node.expr, self.span_from(0).end);
        Ok(node)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounded, and a time beyond the ends of time is its end"
    )]
    #[expect(clippy::cast_precision_loss, reason = "the bounds are powers of two, or next to one")]
    fn pinned_to(&mut self, span: Span) -> Parsed<At> {
        let at = match self.peek()? {
            Kind::Keyword(Keyword::Start) => At::Start,
            Kind::Keyword(Keyword::End) => At::End,
            _ => {
                let seconds = self.signed_number()?;
                if seconds.is_nan() || seconds <= i64::MIN as f64 || seconds >= i64::MAX as f64 {
                    let shown = match seconds {
                        s if s.is_nan() => "NaN".to_owned(),
                        f64::INFINITY => "+Inf".to_owned(),
                        f64::NEG_INFINITY => "-Inf".to_owned(),
                        s => format!("{s:.6}"),
                    };
                    return self.fail(span, format!("timestamp out of bounds for @ modifier: {shown}"));
                }
                return Ok(At::Time((seconds * 1000.0).round() as i64));
            }
        };
        self.advance()?;
        self.expect(Kind::LeftParen)?;
        self.expect(Kind::RightParen)?;
        Ok(at)
    }

    /// `anchored` or `smoothed` behind an expression.
    #[inline(never)]
    pub(super) fn extended(&mut self, mut node: Node) -> Parsed<Node> {
        let token = self.advance()?;
        let span = node.expr.span();
        let (extended, word) = match token.kind {
            Kind::Keyword(Keyword::Anchored) => (Extended::Anchored, "anchored"),
            _ => (Extended::Smoothed, "smoothed"),
        };
        if !self.features.extended_range_selectors {
            return self.fail(span, format!("{word} modifier is experimental and not enabled"));
        }
        let selector = match &mut *node.expr {
            Expr::Vector(selector) => selector,
            Expr::Matrix(matrix) => &mut matrix.selector,
            Expr::Subquery(_) => {
                return self.fail(span, format!("{word} modifier is not supported for subqueries"));
            }
            Expr::Number(_)
            | Expr::String(_)
            | Expr::Call(_)
            | Expr::Aggregate(_)
            | Expr::Binary(_)
            | Expr::Unary(_)
            | Expr::Paren(_) => return self.fail(span, format!("{word} modifier not implemented")),
        };
        if selector.extended.is_some_and(|e| e != extended) {
            return self.fail(span, "anchored and smoothed modifiers cannot be used together");
        }
        selector.extended = Some(extended);
        extend_to(&mut node.expr, token.span.end);
        Ok(node)
    }
}

fn selector(name: Option<String>, matchers: Vec<Matcher>, span: Span) -> VectorSelector {
    VectorSelector { name, matchers: Arc::from(matchers), offset: None, at: None, extended: None, span }
}
