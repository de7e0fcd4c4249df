//! Tree to text, broken into lines where one line would be too long.
//!
//! A node that fits a line stays on it. One that does not puts each of its parts on lines of their
//! own, two spaces further in; selectors are never broken.

use std::fmt::{self, Write};

use super::{
    ast::Expr,
    print::{AggregateHead, Operator, SubquerySuffix},
};

/// Most bytes of a node that stays on one line.
const LINE: usize = 100;

/// The query with lines and indents, as Prometheus' `format_query` gives it.
pub fn pretty(expr: &Expr) -> String {
    let mut text = String::new();
    write_pretty(&mut text, expr, 0).expect("a string takes everything");
    text
}

fn write_pretty(text: &mut String, expr: &Expr, level: usize) -> fmt::Result {
    indent(text, level);
    write_inline(text, expr, level)
}

/// Writes a node whose line is indented already.
fn write_inline(text: &mut String, expr: &Expr, level: usize) -> fmt::Result {
    if fits(expr) {
        return write!(text, "{expr}");
    }
    match expr {
        Expr::Number(_) | Expr::String(_) | Expr::Vector(_) | Expr::Matrix(_) => write!(text, "{expr}"),
        Expr::Subquery(e) => {
            write_inline(text, &e.expr, level)?;
            write!(text, "{}", SubquerySuffix(e))
        }
        Expr::Call(e) => {
            text.push_str(e.function.name);
            write_parts(text, &e.args.iter().collect::<Vec<_>>(), level)
        }
        Expr::Aggregate(e) => {
            write!(text, "{}", AggregateHead(e))?;
            write_parts(text, &expr.children().collect::<Vec<_>>(), level)
        }
        Expr::Binary(e) => {
            // The sides stand further in than the operator between them.
            text.push_str("  ");
            write_inline(text, &e.lhs, level + 1)?;
            text.push('\n');
            indent(text, level);
            writeln!(text, "{}", Operator(e))?;
            write_pretty(text, &e.rhs, level + 1)
        }
        Expr::Unary(e) => {
            text.push(if e.negative { '-' } else { '+' });
            let start = text.len();
            write_inline(text, &e.expr, level)?;
            // The sign stands right before what it applies to.
            let gap = text[start..].len() - text[start..].trim_start().len();
            text.replace_range(start..start + gap, "");
            Ok(())
        }
        Expr::Paren(e) => write_parts(text, &[&e.expr], level),
    }
}

/// Parts in parentheses, each on its own line.
fn write_parts(text: &mut String, parts: &[&Expr], level: usize) -> fmt::Result {
    text.push('(');
    for (i, part) in parts.iter().enumerate() {
        text.push_str(if i == 0 { "\n" } else { ",\n" });
        write_pretty(text, part, level + 1)?;
    }
    text.push('\n');
    indent(text, level);
    text.push(')');
    Ok(())
}

fn indent(text: &mut String, level: usize) {
    for _ in 0..level {
        text.push_str("  ");
    }
}

/// Whether a node is short enough for a line, found out without printing all of a long one.
fn fits(expr: &Expr) -> bool {
    struct Room(usize);
    impl Write for Room {
        fn write_str(&mut self, s: &str) -> fmt::Result {
            self.0 = self.0.checked_sub(s.len()).ok_or(fmt::Error)?;
            Ok(())
        }
    }
    write!(Room(LINE), "{expr}").is_ok()
}
