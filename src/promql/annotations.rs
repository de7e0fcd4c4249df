//! What a query wants its reader to know besides the result.

use std::collections::BTreeMap;

use crate::promql::parse::Span;

/// Warnings and infos of one evaluation, each text once, with the place of its first occurrence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Annotations {
    warnings: BTreeMap<String, Span>,
    infos: BTreeMap<String, Span>,
}

impl Annotations {
    /// Adds a warning; `text` comes without the `PromQL warning: ` in front.
    pub fn warn(&mut self, text: impl Into<String>, span: Span) {
        self.warnings.entry(text.into()).or_insert(span);
    }

    /// Adds an info; `text` comes without the `PromQL info: ` in front.
    pub fn info(&mut self, text: impl Into<String>, span: Span) {
        self.infos.entry(text.into()).or_insert(span);
    }

    /// Takes over what another evaluation found.
    pub fn merge(&mut self, other: Self) {
        for (text, span) in other.warnings {
            self.warnings.entry(text).or_insert(span);
        }
        for (text, span) in other.infos {
            self.infos.entry(text).or_insert(span);
        }
    }
}
