//! Durations in brackets and behind `offset`, with arithmetic.

use super::{
    ast::{BinaryOp, DurationExpr, DurationOp, Span},
    lex::{Keyword, Kind},
    parser::{Parsed, Parser, across},
};

/// A part of a duration's tree, and how high it is.
struct Part {
    duration: DurationExpr,
    height: u32,
}

/// Binds tighter than every operator but `^`: what a sign stands before.
const SIGNED: u8 = 3;

/// The operation a token stands for, and how tightly it binds.
fn operation(kind: Kind) -> Option<(DurationOp, u8)> {
    match kind {
        Kind::Binary(BinaryOp::Add) => Some((DurationOp::Add, 1)),
        Kind::Binary(BinaryOp::Sub) => Some((DurationOp::Sub, 1)),
        Kind::Binary(BinaryOp::Mul) => Some((DurationOp::Mul, 2)),
        Kind::Binary(BinaryOp::Div) => Some((DurationOp::Div, 2)),
        Kind::Binary(BinaryOp::Mod) => Some((DurationOp::Mod, 2)),
        Kind::Binary(BinaryOp::Pow) => Some((DurationOp::Pow, 3)),
        _ => None,
    }
}

impl Parser<'_> {
    /// A duration in brackets. One that does not depend on the query is checked to be more than nothing.
    pub(super) fn positive_duration(&mut self) -> Parsed<DurationExpr> {
        let duration = self.duration(0)?.duration;
        match duration {
            DurationExpr::Literal { seconds, span, .. } if seconds <= 0.0 => {
                self.fail(span, "duration must be greater than 0")
            }
            duration => Ok(duration),
        }
    }

    /// A duration behind `offset`: one operand. What follows it belongs to the expression around.
    pub(super) fn offset_duration(&mut self) -> Parsed<DurationExpr> {
        let sign = self.peek_token()?;
        let Some((op @ (DurationOp::Add | DurationOp::Sub), _)) = operation(sign.kind) else {
            return Ok(self.duration_operand()?.duration);
        };
        self.advance()?;
        let operand = self.duration_operand()?;
        Ok(self.sign(op, sign.span, operand)?.duration)
    }

    fn duration(&mut self, least: u8) -> Parsed<Part> {
        self.nested(|p| {
            let mut left = p.signed_duration()?;
            while let Some((op, binds)) = operation(p.peek()?) {
                if binds < least {
                    break;
                }
                let op_span = p.advance()?.span;
                let right = p.duration(if op == DurationOp::Pow { binds } else { binds + 1 })?;
                left = p.combine(op, op_span, left, right)?;
            }
            Ok(left)
        })
    }

    fn combine(&self, op: DurationOp, op_span: Span, left: Part, right: Part) -> Parsed<Part> {
        let by_nothing = matches!(right.duration, DurationExpr::Literal { seconds, .. } if seconds == 0.0);
        match op {
            DurationOp::Div if by_nothing => return self.fail(op_span, "division by zero"),
            DurationOp::Mod if by_nothing => return self.fail(op_span, "modulo by zero"),
            DurationOp::Add
            | DurationOp::Sub
            | DurationOp::Mul
            | DurationOp::Div
            | DurationOp::Mod
            | DurationOp::Pow => {}
        }
        let span = across(left.duration.span(), right.duration.span());
        let height = self.height_over(left.height.max(right.height), op_span)?;
        let duration = DurationExpr::Binary(op, Box::new(left.duration), Box::new(right.duration), span);
        Ok(Part { duration, height })
    }

    fn signed_duration(&mut self) -> Parsed<Part> {
        let sign = self.peek_token()?;
        match operation(sign.kind) {
            Some((op @ (DurationOp::Add | DurationOp::Sub), _)) => {
                self.advance()?;
                let operand = self.duration(SIGNED)?;
                self.sign(op, sign.span, operand)
            }
            _ => self.duration_operand(),
        }
    }

    fn sign(&self, op: DurationOp, sign: Span, operand: Part) -> Parsed<Part> {
        let span = across(sign, operand.duration.span());
        if let DurationExpr::Literal { seconds, duration, .. } = operand.duration {
            let seconds = if op == DurationOp::Sub { -seconds } else { seconds };
            return Ok(Part { duration: DurationExpr::Literal { seconds, duration, span }, height: 1 });
        }
        if op == DurationOp::Add {
            return Ok(operand);
        }
        let height = self.height_over(operand.height, span)?;
        Ok(Part { duration: DurationExpr::Unary(op, Box::new(operand.duration), span), height })
    }

    /// A literal, a call, or something in parentheses.
    fn duration_operand(&mut self) -> Parsed<Part> {
        let token = self.peek_token()?;
        match token.kind {
            Kind::Number | Kind::Duration => {
                let literal = self.number_literal()?;
                // Go counts nanoseconds in 63 bits.
                let most = 9_223_372_036.854_775;
                if literal.value.is_nan() || literal.value > most {
                    return self.fail(literal.span, "duration out of range");
                }
                let duration = DurationExpr::Literal {
                    seconds: literal.value,
                    duration: literal.duration,
                    span: literal.span,
                };
                Ok(Part { duration, height: 1 })
            }
            Kind::Keyword(keyword @ (Keyword::Step | Keyword::Range)) => {
                self.advance()?;
                self.expect(Kind::LeftParen)?;
                let span = across(token.span, self.expect(Kind::RightParen)?.span);
                let duration = if keyword == Keyword::Step {
                    DurationExpr::Step(span)
                } else {
                    DurationExpr::Range(span)
                };
                Ok(Part { duration, height: 1 })
            }
            Kind::Keyword(keyword @ (Keyword::MinOf | Keyword::MaxOf)) => {
                self.extreme(keyword == Keyword::MinOf)
            }
            // Behind `offset` these words are lexed as any other.
            Kind::Identifier if token.text(self.text).eq_ignore_ascii_case("min_of") => self.extreme(true),
            Kind::Identifier if token.text(self.text).eq_ignore_ascii_case("max_of") => self.extreme(false),
            Kind::LeftParen => {
                self.advance()?;
                let inside = self.duration(0)?;
                let span = across(token.span, self.expect(Kind::RightParen)?.span);
                if let DurationExpr::Literal { .. } | DurationExpr::Paren(..) = inside.duration {
                    // Nothing is gained by parentheses around these.
                    return Ok(inside);
                }
                let height = self.height_over(inside.height, span)?;
                Ok(Part { duration: DurationExpr::Paren(Box::new(inside.duration), span), height })
            }
            _ => self.unexpected(),
        }
    }

    /// `min_of(a, b)` or `max_of(a, b)`.
    fn extreme(&mut self, least: bool) -> Parsed<Part> {
        let start = self.advance()?.span;
        self.expect(Kind::LeftParen)?;
        let a = self.duration(0)?;
        self.expect(Kind::Comma)?;
        let b = self.duration(0)?;
        let span = across(start, self.expect(Kind::RightParen)?.span);
        let height = self.height_over(a.height.max(b.height), span)?;
        let (a, b) = (Box::new(a.duration), Box::new(b.duration));
        let duration = if least { DurationExpr::MinOf(a, b, span) } else { DurationExpr::MaxOf(a, b, span) };
        Ok(Part { duration, height })
    }
}
