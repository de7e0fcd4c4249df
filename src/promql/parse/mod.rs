//! PromQL text to tree, and back.

pub mod ast;

pub use ast::*;
