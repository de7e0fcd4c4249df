//! PromQL text to tree, and back.
//!
//! ```text
//! text ── lex ──▶ tokens ── parser ──▶ tree ── check ──▶ tree with types that fit
//!                                       ▲                  │
//!                                       └───── print ◀─────┘
//! ```
//!
//! [`parse`] walks over the text once. A lexer (`lex`) hands out tokens, a Pratt parser (`parser`, with
//! `selectors` and `durations` for what is special there) builds [`Expr`] nodes that know their place
//! in the text, and `check` looks at types, as Prometheus does, only when the syntax is right. The first mistake ends the walk. Its message has Prometheus' words, which name the innermost
//! construct that the mistake is in: the parser keeps a stack of these.
//!
//! `print` writes a tree on one line; reading that back gives the same tree but for positions.
//! [`pretty`] breaks long lines.
//!
//! Invariant: a tree is never higher than [`MAX_HEIGHT`] nodes, so everything that walks over one may
//! recurse. That includes chains: `a + a + …` is as high as it is long.

pub mod ast;
mod check;
mod durations;
mod lex;
mod literal;
mod parser;
pub mod pretty;
mod print;
mod selectors;
#[cfg(test)]
mod tests;

pub use ast::*;

use crate::{
    model::Matcher,
    promql::{ParseError, parse::parser::Parser},
};

/// Most nodes on a way from the root of a tree to a leaf.
pub const MAX_HEIGHT: u32 = 1_000;

/// Most parentheses, calls, signs and the like that may stand within each other.
pub const MAX_NESTING: u32 = 500;

/// Most bytes that the patterns of one query take when they are compiled. Each has a bound of its own, but a text has room
/// for thousands.
pub const MAX_PATTERN_BYTES: usize = 32 << 20;

/// The stack of a thread that parses or evaluates queries: twice what the deepest tree takes without optimisation.
pub const STACK_BYTES: usize = 8 << 20;

/// Syntax that may be switched off. All of it only adds to the language, so all is on by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParserFeatures {
    /// Functions marked experimental, `limitk` and `limit_ratio`.
    pub experimental_functions: bool,
    /// `anchored` and `smoothed`.
    pub extended_range_selectors: bool,
    /// `fill`, `fill_left` and `fill_right`.
    pub fill_modifiers: bool,
}

impl Default for ParserFeatures {
    fn default() -> Self {
        Self { experimental_functions: true, extended_range_selectors: true, fill_modifiers: true }
    }
}

/// Reads a query.
pub fn parse(text: &str, features: &ParserFeatures) -> Result<Expr, ParseError> {
    let mut parser = Parser::new(text, *features)?;
    let mut expr = parser.query()?;
    check::check(&mut expr, text)?;
    Ok(expr)
}

/// Reads a selector without range or modifiers, as the `match[]` parameters of the API have it.
///
/// Whether it selects anything in particular, [`matchers_all_match_empty`] tells.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    let mut parser = Parser::new(text, ParserFeatures::default())?;
    let selector = parser.lone_selector()?;
    Ok(selector.matchers.to_vec())
}

/// Whether every matcher also matches a missing label, so that nothing narrows the selection.
pub fn matchers_all_match_empty(matchers: &[Matcher]) -> bool {
    matchers.iter().all(Matcher::matches_empty)
}
