//! What can be said of a pattern without running it.
//!
//! Most patterns in queries are lists (`a|b|c`) or have gaps between fixed parts (`prod-.*`,
//! `.*error.*`). Those need no automaton, and the index can look a list up instead of trying every
//! value. A shortcut says exactly what the pattern says; where it could not, there is none.

use regex_syntax::hir::ClassUnicode;

use super::syntax::{Node, Place};

/// How many texts a pattern may unfold to and still be a list; a list as such may be longer.
const MAX_UNFOLDED: usize = 256;
/// How many bytes those texts may take together.
const MAX_UNFOLDED_BYTES: usize = 1 << 16;

/// A pattern that needs no automaton.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shortcut {
    /// Exactly these texts match; sorted, each once.
    Set(Vec<String>),
    /// Fixed parts with gaps between them.
    Gaps(Gaps),
}

/// `start`, then each of `inner` somewhere in this order, then `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gaps {
    start: String,
    /// How many characters the gap before has at least, and the part.
    inner: Vec<(usize, String)>,
    /// How many characters the gap before the end has at least.
    last_gap: usize,
    end: String,
}

/// Finds the shortcut for a pattern that is a list of plain texts, without parsing it.
pub(super) fn plain_list(pattern: &str) -> Option<Shortcut> {
    let plain = !pattern.bytes().any(|b| b"\\.+*?()[]{}^$".contains(&b));
    plain.then(|| set(pattern.split('|').map(str::to_owned).collect()))
}

/// Finds the shortcut for a parsed pattern.
pub(super) fn find(node: &Node) -> Option<Shortcut> {
    if let Node::Alternate(branches) = inside(node) {
        let mut texts = Vec::new();
        for branch in branches {
            texts.append(&mut unfold_parts(without_ends(branch))?);
            if texts.len() > branches.len() + MAX_UNFOLDED {
                return None;
            }
        }
        return Some(set(texts));
    }
    let parts = without_ends(node);
    match unfold_parts(parts) {
        Some(texts) => Some(set(texts)),
        None => gaps(parts).map(Shortcut::Gaps),
    }
}

/// The longest text that everything the pattern matches starts with.
pub(super) fn prefix(node: &Node) -> String {
    let mut text = String::new();
    grow_prefix(node, &mut text);
    text
}

impl Shortcut {
    /// Whether the whole of `text` matches.
    pub(super) fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Set(texts) => texts.binary_search_by(|one| one.as_str().cmp(text)).is_ok(),
            Self::Gaps(gaps) => gaps.is_match(text),
        }
    }

    /// The longest text that everything that matches starts with.
    pub(super) fn prefix(&self) -> String {
        match self {
            // In a sorted list all share what the first and the last share.
            Self::Set(texts) => match (texts.first(), texts.last()) {
                (Some(first), Some(last)) => shared(first, last).to_owned(),
                _ => String::new(),
            },
            Self::Gaps(gaps) => gaps.start.clone(),
        }
    }
}

impl Gaps {
    /// How long the gap is, if there is nothing but one.
    pub(super) fn only_gap(&self) -> Option<usize> {
        let empty = self.start.is_empty() && self.inner.is_empty() && self.end.is_empty();
        empty.then_some(self.last_gap)
    }

    /// Takes each part at the first place it can be: that leaves most room for the next.
    fn is_match(&self, text: &str) -> bool {
        let Some(mut rest) = text.strip_prefix(self.start.as_str()) else { return false };
        for (gap, part) in &self.inner {
            let Some(after) = skip(rest, *gap) else { return false };
            let Some(at) = after.find(part.as_str()) else { return false };
            rest = &after[at + part.len()..];
        }
        rest.strip_suffix(self.end.as_str()).is_some_and(|gap| skip(gap, self.last_gap).is_some())
    }
}

/// `text` without its first `count` characters, if it has as many.
fn skip(text: &str, count: usize) -> Option<&str> {
    match count {
        0 => Some(text),
        // The start of the character after them, or the end.
        _ => text.char_indices().nth(count - 1).map(|(at, c)| &text[at + c.len_utf8()..]),
    }
}

fn set(mut texts: Vec<String>) -> Shortcut {
    texts.sort_unstable();
    texts.dedup();
    Shortcut::Set(texts)
}

/// The content of the groups around everything.
fn inside(mut node: &Node) -> &Node {
    while let Node::Group { what, .. } = node {
        node = what;
    }
    node
}

/// The sequence that the whole pattern or a branch of it is, without the `^` and `$` it has anyway.
fn without_ends(node: &Node) -> &[Node] {
    let mut parts = match inside(node) {
        Node::Concat(parts) => parts.as_slice(),
        other => std::slice::from_ref(other),
    };
    while let [Node::Place(Place::TextStart), rest @ ..] = parts {
        parts = rest;
    }
    while let [rest @ .., Node::Place(Place::TextEnd)] = parts {
        parts = rest;
    }
    parts
}

/// All texts that match, if they are few.
fn unfold(node: &Node) -> Option<Vec<String>> {
    match node {
        Node::Empty => Some(vec![String::new()]),
        Node::Char(c) => Some(vec![c.to_string()]),
        Node::Class(class) => Some(class_chars(class)?.map(String::from).collect()),
        Node::Group { what, .. } => unfold(what),
        Node::Repeat { min: 0, max: Some(1), what, .. } => {
            let mut texts = unfold(what)?;
            texts.push(String::new());
            within(texts.len(), size(&texts)).then_some(texts)
        }
        Node::Concat(parts) => unfold_parts(parts),
        Node::Alternate(branches) => {
            let mut texts = Vec::new();
            for branch in branches {
                texts.append(&mut unfold(branch)?);
                if !within(texts.len(), size(&texts)) {
                    return None;
                }
            }
            Some(texts)
        }
        Node::Any { .. } | Node::Place(_) | Node::Repeat { .. } => None,
    }
}

fn unfold_parts(parts: &[Node]) -> Option<Vec<String>> {
    let mut texts = vec![String::new()];
    let mut bytes = 0;
    for part in parts {
        if let Node::Char(c) = part {
            bytes += texts.len() * c.len_utf8();
            if !within(texts.len(), bytes) {
                return None;
            }
            texts.iter_mut().for_each(|text| text.push(*c));
            continue;
        }
        let next = unfold(part)?;
        bytes = bytes * next.len() + size(&next) * texts.len();
        if !within(texts.len() * next.len(), bytes) {
            return None;
        }
        texts = texts.iter().flat_map(|a| next.iter().map(move |b| format!("{a}{b}"))).collect();
    }
    Some(texts)
}

fn size(texts: &[String]) -> usize {
    texts.iter().map(String::len).sum()
}

fn within(count: usize, bytes: usize) -> bool {
    count <= MAX_UNFOLDED && bytes <= MAX_UNFOLDED_BYTES
}

/// The characters of a class, if they are few.
fn class_chars(class: &ClassUnicode) -> Option<impl Iterator<Item = char>> {
    let count: usize = class.iter().map(|range| range.len()).sum();
    (count <= MAX_UNFOLDED).then(|| class.iter().flat_map(|range| range.start()..=range.end()))
}

/// Splits a sequence into fixed parts and gaps.
fn gaps(parts: &[Node]) -> Option<Gaps> {
    let mut fixed = vec![String::new()];
    let mut between: Vec<usize> = Vec::new();
    // Whether the last thing read was a gap.
    let mut in_gap = false;
    let mut flat = Vec::new();
    flatten(parts, &mut flat);
    for part in flat {
        match part {
            Node::Char(c) => {
                in_gap = false;
                fixed.last_mut()?.push(*c);
            }
            Node::Repeat { min: min @ (0 | 1), max: None, what, .. }
                if matches!(inside(what), Node::Any { newline: true }) =>
            {
                if in_gap {
                    *between.last_mut()? += usize::from(*min == 1);
                } else {
                    between.push(usize::from(*min == 1));
                    fixed.push(String::new());
                    in_gap = true;
                }
            }
            _ => return None,
        }
    }
    let last_gap = between.pop()?;
    let end = fixed.pop()?;
    let mut fixed = fixed.into_iter();
    let start = fixed.next()?;
    Some(Gaps { start, inner: between.into_iter().zip(fixed).collect(), last_gap, end })
}

/// The parts of a sequence, those of sequences and groups in it included.
fn flatten<'n>(parts: &'n [Node], flat: &mut Vec<&'n Node>) {
    for part in parts {
        match inside(part) {
            Node::Concat(parts) => flatten(parts, flat),
            Node::Empty => {}
            part => flat.push(part),
        }
    }
}

/// Adds to `text` what a match of `node` must start with; true if that is all of the match.
fn grow_prefix(node: &Node, text: &mut String) -> bool {
    match node {
        Node::Empty | Node::Place(Place::TextStart) => true,
        Node::Char(c) => {
            text.push(*c);
            true
        }
        Node::Group { what, .. } => grow_prefix(what, text),
        Node::Concat(parts) => parts.iter().all(|part| grow_prefix(part, text)),
        Node::Alternate(branches) => {
            let mut prefixes = branches.iter().map(prefix);
            let first = prefixes.next().unwrap_or_default();
            let common = prefixes.fold(first, |common, next| shared(&common, &next).to_owned());
            text.push_str(&common);
            false
        }
        Node::Repeat { min, what, .. } => {
            if *min > 0 {
                grow_prefix(what, text);
            }
            false
        }
        Node::Class(_) | Node::Any { .. } | Node::Place(_) => false,
    }
}

/// What two texts start with alike.
fn shared<'a>(a: &'a str, b: &str) -> &'a str {
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    &a[..same]
}
