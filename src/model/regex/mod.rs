//! Regular expressions in the RE2 dialect, anchored at both ends.
//!
//! Matchers and `label_replace` mean what Go's `regexp` means by `^(?s:PATTERN)$`. The pattern is read
//! by our own parser (`parse`), because the dialects differ in ways users meet: `\d`, `\w` and `\b`
//! are ASCII here, `{` may stand for itself, `[a&&b]` is a set of characters. What runs is one of:
//!
//! ```text
//! pattern ──▶ parse ──▶ tree ──▶ shortcut: a list of texts, or fixed parts with gaps
//!                         └────▶ automaton: everything else, and groups for label_replace
//! ```
//!
//! Time to match is linear in the text: there is no backtracking to blow up. What would be too big to
//! compile is refused with Go's words for it; our bounds are tighter than Go's (`\pL{1000}` is too
//! large), so that a pattern costs some megabytes at most.

mod class;
mod parse;
mod shortcut;
mod syntax;
mod template;
#[cfg(test)]
mod tests;
mod walk;

use std::{fmt, sync::OnceLock};

use regex_automata::{Anchored, Input, meta};
use regex_syntax::hir::{Hir, Look};

use shortcut::Shortcut;
use syntax::Node;
pub use walk::{Step, Walker};

/// How many bytes the compiled form of a pattern may take before it runs.
const MAX_COMPILED_BYTES: usize = 8 << 20;
/// How many bytes its cache of states may take for each thread that matches at the same time.
const MAX_CACHE_BYTES: usize = 1 << 20;
/// What an automaton at work is taken to need besides.
const WORKSPACE_BYTES: usize = 32 << 10;

/// A pattern as matchers and `label_replace` use it: `^(?s:PATTERN)$`.
pub struct Regex {
    pattern: String,
    shortcut: Option<Shortcut>,
    prefix: String,
    /// The names of groups 1, 2, …; empty for a group without.
    groups: Vec<String>,
    /// What the automaton is made of, kept while it is not made.
    node: Option<Node>,
    /// Made at once where there is no shortcut, else when groups are asked for.
    automaton: OnceLock<Option<meta::Regex>>,
}

/// Why a pattern does not compile; the text is Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RegexError(pub String);

impl Regex {
    /// Compiles a pattern.
    pub fn new(pattern: &str) -> Result<Self, RegexError> {
        let mut regex = Self {
            pattern: pattern.to_owned(),
            shortcut: shortcut::plain_list(pattern),
            prefix: String::new(),
            groups: Vec::new(),
            node: None,
            automaton: OnceLock::new(),
        };
        if let Some(list) = &regex.shortcut {
            regex.prefix = list.prefix();
            return Ok(regex);
        }
        let parsed = parse::parse(pattern)?;
        regex.groups = parsed.groups;
        regex.shortcut = shortcut::find(&parsed.node);
        match &regex.shortcut {
            Some(shortcut) => {
                regex.prefix = shortcut.prefix();
                regex.node = (!regex.groups.is_empty()).then_some(parsed.node);
            }
            None => {
                regex.prefix = shortcut::prefix(&parsed.node);
                let automaton = compile(&parsed.node, Some(MAX_COMPILED_BYTES))
                    .ok_or_else(|| parse::error("expression too large", pattern))?;
                regex.automaton = OnceLock::from(Some(automaton));
            }
        }
        Ok(regex)
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    /// About the bytes that the compiled form takes; 0 if there is none because there need not be.
    pub fn compiled_bytes(&self) -> usize {
        let automaton = self.automaton.get().and_then(Option::as_ref);
        automaton.map_or(0, |automaton| automaton.memory_usage() + WORKSPACE_BYTES)
    }

    /// Whether the whole of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        match &self.shortcut {
            Some(shortcut) => shortcut.is_match(text),
            None => {
                text.starts_with(&self.prefix)
                    && self
                        .automaton()
                        .is_some_and(|automaton| automaton.is_match(anchored(text).earliest(true)))
            }
        }
    }

    /// The texts that match, sorted, if the pattern is no more than a list of them.
    ///
    /// An index looks these up instead of trying every value. The empty text may be among them.
    pub fn set_matches(&self) -> Option<&[String]> {
        match &self.shortcut {
            Some(Shortcut::Set(texts)) => Some(texts),
            Some(Shortcut::Gaps(_)) | None => None,
        }
    }

    /// A text that everything that matches starts with; may be empty.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The pattern as an automaton for walking over sorted texts, made anew; none if asking [each](Self::is_match) that
    /// has the [prefix](Self::prefix) is as good.
    pub fn walker(&self) -> Option<Walker> {
        // Behind fixed parts anything may follow, so there are no branches to leave out but by the prefix.
        if self.shortcut.is_some() { None } else { Walker::new(&self.pattern) }
    }

    /// Whether every text matches, as with `.*`.
    pub fn is_match_all(&self) -> bool {
        self.only_gap() == Some(0)
    }

    /// Whether every text but the empty one matches, as with `.+`.
    pub fn is_match_non_empty(&self) -> bool {
        self.only_gap() == Some(1)
    }

    /// Fills the groups of a match into `template` (`$1`, `${name}`, `$$`); none if `text` does not match.
    pub fn expand(&self, text: &str, template: &str) -> Option<String> {
        if !self.is_match(text) {
            return None;
        }
        if self.groups.is_empty() {
            return Some(template::fill(template, |number| (number == 0).then_some(text), |_| None));
        }
        let automaton = self.automaton()?;
        let mut found = automaton.create_captures();
        automaton.captures(anchored(text), &mut found);
        let group = |number: usize| found.get_group(number).map(|span| &text[span.range()]);
        let named = |name: &str| {
            let mut same_name = self.groups.iter().enumerate().filter(|(_, n)| *n == name);
            // A name may be there twice; the first of them that took part counts.
            same_name.find_map(|(i, _)| group(i + 1))
        };
        Some(template::fill(template, group, named))
    }

    fn only_gap(&self) -> Option<usize> {
        match &self.shortcut {
            Some(Shortcut::Gaps(gaps)) => gaps.only_gap(),
            Some(Shortcut::Set(_)) | None => None,
        }
    }

    fn automaton(&self) -> Option<&meta::Regex> {
        // A pattern that has a shortcut is small, so nothing bounds it here.
        self.automaton.get_or_init(|| self.node.as_ref().and_then(|node| compile(node, None))).as_ref()
    }
}

/// A tree with both ends.
fn whole(node: &Node) -> Hir {
    Hir::concat(vec![Hir::look(Look::Start), node.to_hir(), Hir::look(Look::End)])
}

/// Makes the automaton of a tree; none if it would be too big.
fn compile(node: &Node, max_bytes: Option<usize>) -> Option<meta::Regex> {
    let config =
        meta::Config::new().nfa_size_limit(max_bytes).hybrid_cache_capacity(MAX_CACHE_BYTES).utf8_empty(true);
    meta::Builder::new().configure(config).build_from_hir(&whole(node)).ok()
}

fn anchored(text: &str) -> Input<'_> {
    Input::new(text).anchored(Anchored::Yes)
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pattern)
    }
}
