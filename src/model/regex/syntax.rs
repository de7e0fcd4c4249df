//! The tree a pattern is parsed into, and its translation for the matching engine.

use regex_syntax::hir::{Capture, Class, ClassUnicode, ClassUnicodeRange, Dot, Hir, Look, Repetition};

/// A pattern as a tree. Groups that do not capture leave no trace in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// Matches nothing at all, anywhere.
    Empty,
    /// One character, as it is.
    Char(char),
    /// One character of a set.
    Class(ClassUnicode),
    /// One character; without `newline` any but `\n`.
    Any {
        /// Whether `\n` is one.
        newline: bool,
    },
    /// A place between characters.
    Place(Place),
    /// The same again and again; without `max` without end.
    Repeat { min: u32, max: Option<u32>, greedy: bool, what: Box<Node> },
    /// A capturing group; the first has number 1.
    Group { number: u32, what: Box<Node> },
    /// One after the other; at least two.
    Concat(Vec<Node>),
    /// One of several; at least two.
    Alternate(Vec<Node>),
}

/// The places a pattern can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `\A`, and `^` outside of `(?m)`.
    TextStart,
    /// `\z`, and `$` outside of `(?m)`.
    TextEnd,
    /// `(?m)^`
    LineStart,
    /// `(?m)$`
    LineEnd,
    /// `\b`, where a word is ASCII
    WordBoundary,
    /// `\B`
    NoWordBoundary,
}

impl Node {
    /// The same in the form the matching engine is built from.
    ///
    /// Recurses as deep as the tree is high, which the parser bounds.
    pub(super) fn to_hir(&self) -> Hir {
        match self {
            Self::Empty => Hir::empty(),
            Self::Char(c) => Hir::literal(c.encode_utf8(&mut [0; 4]).as_bytes()),
            Self::Class(class) => Hir::class(Class::Unicode(class.clone())),
            Self::Any { newline: true } => Hir::dot(Dot::AnyChar),
            Self::Any { newline: false } => Hir::dot(Dot::AnyCharExceptLF),
            Self::Place(place) => Hir::look(match place {
                Place::TextStart => Look::Start,
                Place::TextEnd => Look::End,
                Place::LineStart => Look::StartLF,
                Place::LineEnd => Look::EndLF,
                Place::WordBoundary => Look::WordAscii,
                Place::NoWordBoundary => Look::WordAsciiNegate,
            }),
            Self::Repeat { min, max, greedy, what } => Hir::repetition(Repetition {
                min: *min,
                max: *max,
                greedy: *greedy,
                sub: Box::new(what.to_hir()),
            }),
            // Names stay with us: the engine refuses a name given twice, RE2 does not.
            Self::Group { number, what } => {
                Hir::capture(Capture { index: *number, name: None, sub: Box::new(what.to_hir()) })
            }
            Self::Concat(parts) => Hir::concat(concat_to_hir(parts)),
            Self::Alternate(branches) => Hir::alternation(branches.iter().map(Self::to_hir).collect()),
        }
    }
}

/// Translates the parts of a sequence, neighbouring characters as one literal.
fn concat_to_hir(parts: &[Node]) -> Vec<Hir> {
    let mut hirs = Vec::new();
    let mut literal = String::new();
    for part in parts {
        if let Node::Char(c) = part {
            literal.push(*c);
            continue;
        }
        if !literal.is_empty() {
            hirs.push(Hir::literal(std::mem::take(&mut literal).into_bytes()));
        }
        hirs.push(part.to_hir());
    }
    if !literal.is_empty() {
        hirs.push(Hir::literal(literal.into_bytes()));
    }
    hirs
}

/// The characters of code points `low..=high`; surrogates are none.
pub(super) fn range(low: u32, high: u32) -> Option<ClassUnicodeRange> {
    let low = char::from_u32(low).or_else(|| (low <= 0xdfff).then_some('\u{e000}'))?;
    let high = char::from_u32(high).or_else(|| (high <= 0xdfff).then_some('\u{d7ff}'))?;
    (low <= high).then(|| ClassUnicodeRange::new(low, high))
}
