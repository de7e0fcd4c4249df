//! What parses and how it prints, what does not and why, and that nothing makes the parser panic.

mod accepts;
mod rejects;
mod survives;

use super::*;

fn read(text: &str) -> Expr {
    parse(text, &ParserFeatures::default()).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// The text of `span`.
fn at(text: &str, span: Span) -> &str {
    &text[span.start as usize..span.end as usize]
}
