//! Reads RE2's syntax, as Go's `regexp` does with its Perl flags and `s` set.
//!
//! The parser walks the pattern once and keeps a stack of open groups ([`Open`]), so a pattern cannot
//! nest it into a stack overflow. Each finished piece ([`Piece`]) carries its height, how often its
//! content is repeated at most, and what it will cost to compile; a piece over a bound ends the parse.
//! That makes a bad pattern an error before anything is built from it:
//!
//! * height: the tree is at most [`MAX_HEIGHT`] high;
//! * repeats: nested counted repeats multiply to at most [`MAX_REPEAT`];
//! * cost: characters and ranges, times the repeats around them, are at most [`MAX_COST`].

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

use super::{
    RegexError,
    class::{perl_class, posix_class, unicode_class},
    syntax::{Node, Place, range},
};

/// How high a tree may be.
const MAX_HEIGHT: u32 = 1000;
/// How often something may be repeated by counts, nested counts multiplied.
const MAX_REPEAT: u32 = 1000;
/// How many characters and ranges a pattern may unfold to.
const MAX_COST: u64 = 1 << 18;

/// A parsed pattern.
#[derive(Debug)]
pub(super) struct Parsed {
    /// The tree.
    pub(super) node: Node,
    /// The names of groups 1, 2, …; empty for a group without.
    pub(super) groups: Vec<String>,
}

/// Parses a pattern.
pub(super) fn parse(pattern: &str) -> Result<Parsed, RegexError> {
    Parser::new(pattern).run()
}

/// What went wrong, and where: Go's code and the part of the pattern it quotes.
pub(super) fn error(what: &str, part: &str) -> RegexError {
    RegexError(format!("error parsing regexp: {what}: `{part}`"))
}

pub(super) const INVALID_RANGE: &str = "invalid character class range";
const INVALID_ESCAPE: &str = "invalid escape sequence";
const INVALID_REPEAT: &str = "invalid repeat count";
const MISSING_ARGUMENT: &str = "missing argument to repetition operator";

/// The switches `(?imsU)` sets.
#[derive(Clone, Copy, Debug)]
struct Flags {
    fold_case: bool,
    multi_line: bool,
    dot_newline: bool,
    lazy: bool,
}

/// A finished part of the tree.
#[derive(Debug)]
struct Piece {
    node: Node,
    height: u32,
    /// The product of the counted repeats in it, along the branch where it is greatest.
    repeats: u32,
    cost: u64,
}

impl Piece {
    fn leaf(node: Node) -> Self {
        let ranges = if let Node::Class(class) = &node { class.ranges().len() } else { 0 };
        let cost = 1 + ranges as u64;
        Self { node, height: 1, repeats: 1, cost }
    }
}

/// A group whose closing parenthesis has not come yet; the outermost is the pattern itself.
#[derive(Debug)]
struct Open {
    /// The group's number, if it captures.
    number: Option<u32>,
    /// The flags to go back to after it.
    outer: Flags,
    /// What the pieces before it cost.
    cost_before: u64,
    /// Finished branches.
    branches: Vec<Piece>,
    /// The branch being read.
    parts: Vec<Piece>,
}

struct Parser<'p> {
    pattern: &'p str,
    rest: &'p str,
    flags: Flags,
    open: Vec<Open>,
    groups: Vec<String>,
    /// The cost of all pieces so far.
    cost: u64,
}

impl<'p> Parser<'p> {
    fn new(pattern: &'p str) -> Self {
        let flags = Flags { fold_case: false, multi_line: false, dot_newline: true, lazy: false };
        let root =
            Open { number: None, outer: flags, cost_before: 0, branches: Vec::new(), parts: Vec::new() };
        Self { pattern, rest: pattern, flags, open: vec![root], groups: Vec::new(), cost: 0 }
    }

    fn run(mut self) -> Result<Parsed, RegexError> {
        // Where the repetition began that was read last, if nothing came after it.
        let mut repetition: Option<&'p str> = None;
        while let Some(c) = self.rest.chars().next() {
            let at = self.rest;
            let before = repetition.take();
            match c {
                '(' if at.starts_with("(?") => self.perl_group()?,
                '(' => {
                    self.rest = &at[1..];
                    self.open_group(Some(String::new()));
                }
                '|' => {
                    self.rest = &at[1..];
                    self.end_branch()?;
                }
                ')' => {
                    self.rest = &at[1..];
                    self.close_group()?;
                }
                '^' | '$' | '.' => {
                    self.rest = &at[1..];
                    let node = match (c, self.flags.multi_line) {
                        ('^', false) => Node::Place(Place::TextStart),
                        ('^', true) => Node::Place(Place::LineStart),
                        ('$', false) => Node::Place(Place::TextEnd),
                        ('$', true) => Node::Place(Place::LineEnd),
                        _ => Node::Any { newline: self.flags.dot_newline },
                    };
                    self.push(Piece::leaf(node))?;
                }
                '[' => {
                    let class = self.class()?;
                    self.push(Piece::leaf(Node::Class(class)))?;
                }
                '*' | '+' | '?' => {
                    self.rest = &at[1..];
                    let (min, max) = match c {
                        '*' => (0, None),
                        '+' => (1, None),
                        _ => (0, Some(1)),
                    };
                    self.repeat(min, max, at, before)?;
                    repetition = Some(at);
                }
                '{' => match counts(at) {
                    Some((counted, after)) => {
                        self.rest = after;
                        let (min, max) = counted.ok_or_else(|| error(INVALID_REPEAT, quoted(at, after)))?;
                        self.repeat(min, max, at, before)?;
                        repetition = Some(at);
                    }
                    None => {
                        self.rest = &at[1..];
                        self.char('{')?;
                    }
                },
                '\\' => self.escape()?,
                c => {
                    self.rest = &at[c.len_utf8()..];
                    self.char(c)?;
                }
            }
        }
        let root = self.finish_group()?;
        if !self.open.is_empty() {
            return Err(error("missing closing )", self.pattern));
        }
        Ok(Parsed { node: root.node, groups: self.groups })
    }

    fn here(&mut self) -> &mut Open {
        self.open.last_mut().expect("the outermost group stays open until the end of the pattern")
    }

    /// Adds a piece to the branch being read.
    fn push(&mut self, piece: Piece) -> Result<(), RegexError> {
        self.cost = self.cost.saturating_add(piece.cost);
        self.check(&piece)?;
        self.here().parts.push(piece);
        Ok(())
    }

    fn check(&self, piece: &Piece) -> Result<(), RegexError> {
        if piece.height > MAX_HEIGHT {
            return Err(error("expression nests too deeply", self.pattern));
        }
        if piece.cost > MAX_COST || self.cost > MAX_COST {
            return Err(error("expression too large", self.pattern));
        }
        Ok(())
    }

    fn char(&mut self, c: char) -> Result<(), RegexError> {
        let node = if self.flags.fold_case {
            let mut class = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
            class.case_fold_simple();
            match class.ranges() {
                [only] if only.start() == only.end() => Node::Char(c),
                _ => Node::Class(class),
            }
        } else {
            Node::Char(c)
        };
        self.push(Piece::leaf(node))
    }

    /// Adds the character with a code point; a surrogate is one that no text has.
    fn code_point(&mut self, code: u32) -> Result<(), RegexError> {
        match char::from_u32(code) {
            Some(c) => self.char(c),
            None => self.push(Piece::leaf(Node::Class(ClassUnicode::empty()))),
        }
    }

    /// Repeats the piece read last. `at` is where the operator starts, `before` where one directly
    /// before it did.
    fn repeat(
        &mut self,
        min: u32,
        max: Option<u32>,
        at: &'p str,
        before: Option<&'p str>,
    ) -> Result<(), RegexError> {
        let mut greedy = !self.flags.lazy;
        if let Some(after) = self.rest.strip_prefix('?') {
            self.rest = after;
            greedy = !greedy;
        }
        if let Some(before) = before {
            return Err(error("invalid nested repetition operator", quoted(before, self.rest)));
        }
        let operator = quoted(at, self.rest);
        let Some(piece) = self.here().parts.pop() else {
            return Err(error(MISSING_ARGUMENT, operator));
        };
        let repeats = match max {
            Some(0) => 1,
            Some(max) => piece.repeats.saturating_mul(max),
            None => piece.repeats.saturating_mul(min.max(1)),
        };
        if repeats > MAX_REPEAT {
            return Err(error(INVALID_REPEAT, operator));
        }
        self.cost = self.cost.saturating_sub(piece.cost);
        let copies = u64::from(max.unwrap_or(min).max(1));
        self.push(Piece {
            node: Node::Repeat { min, max, greedy, what: Box::new(piece.node) },
            height: piece.height + 1,
            repeats,
            cost: piece.cost.saturating_mul(copies).saturating_add(1),
        })
    }

    /// Opens a group: capturing if it has a name, be it empty.
    fn open_group(&mut self, name: Option<String>) {
        let number = name.map(|name| {
            self.groups.push(name);
            // A pattern of four gigabytes does not come this far.
            u32::try_from(self.groups.len()).unwrap_or(u32::MAX)
        });
        self.open.push(Open {
            number,
            outer: self.flags,
            cost_before: self.cost,
            branches: Vec::new(),
            parts: Vec::new(),
        });
    }

    fn end_branch(&mut self) -> Result<(), RegexError> {
        let parts = std::mem::take(&mut self.here().parts);
        let branch = join(parts, Node::Concat);
        self.cost = self.cost.saturating_add(1);
        self.check(&branch)?;
        self.here().branches.push(branch);
        Ok(())
    }

    /// Ends the innermost group and gives what stands in it.
    fn finish_group(&mut self) -> Result<Piece, RegexError> {
        self.end_branch()?;
        let open = self.open.pop().expect("the outermost group stays open until the end of the pattern");
        let inner = join(open.branches, Node::Alternate);
        self.check(&inner)?;
        self.flags = open.outer;
        self.cost = open.cost_before;
        Ok(match open.number {
            None => inner,
            Some(number) => Piece {
                node: Node::Group { number, what: Box::new(inner.node) },
                height: inner.height + 1,
                repeats: inner.repeats,
                cost: inner.cost + 2,
            },
        })
    }

    fn close_group(&mut self) -> Result<(), RegexError> {
        if self.open.len() == 1 {
            return Err(error("unexpected )", self.pattern));
        }
        let piece = self.finish_group()?;
        self.push(piece)
    }

    /// Reads what starts with `(?`: a named group, flags, or flags and a group.
    fn perl_group(&mut self) -> Result<(), RegexError> {
        let at = self.rest;
        let name_from = if at.len() > 4 && at.starts_with("(?P<") {
            Some(4)
        } else if at.len() > 3 && at.starts_with("(?<") {
            Some(3)
        } else {
            None
        };
        if let Some(from) = name_from {
            const INVALID_NAME: &str = "invalid named capture";
            let end = at.find('>').ok_or_else(|| error(INVALID_NAME, at))?;
            let name = &at[from..end];
            if name.is_empty() || !name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) {
                return Err(error(INVALID_NAME, &at[..=end]));
            }
            self.rest = &at[end + 1..];
            self.open_group(Some(name.to_owned()));
            return Ok(());
        }

        let mut flags = self.flags;
        let mut on = true;
        // A `-` needs a flag after it.
        let mut dangling = false;
        let mut end = at.len();
        for (i, c) in at.char_indices().skip(2) {
            end = i + c.len_utf8();
            match c {
                'i' => flags.fold_case = on,
                'm' => flags.multi_line = on,
                's' => flags.dot_newline = on,
                'U' => flags.lazy = on,
                '-' if on => {
                    on = false;
                    dangling = true;
                    continue;
                }
                ':' | ')' if !dangling => {
                    if c == ':' {
                        self.open_group(None);
                    }
                    self.flags = flags;
                    self.rest = &at[end..];
                    return Ok(());
                }
                _ => break,
            }
            dangling = false;
        }
        Err(error("invalid or unsupported Perl syntax", &at[..end]))
    }

    /// Reads what starts with a backslash, outside of `[…]`.
    fn escape(&mut self) -> Result<(), RegexError> {
        let at = self.rest;
        let place = match at.as_bytes().get(1) {
            Some(b'A') => Some(Place::TextStart),
            Some(b'z') => Some(Place::TextEnd),
            Some(b'b') => Some(Place::WordBoundary),
            Some(b'B') => Some(Place::NoWordBoundary),
            Some(b'C') => return Err(error(INVALID_ESCAPE, &at[..2])),
            Some(b'Q') => {
                let (literal, after) = at[2..].split_once("\\E").unwrap_or((&at[2..], ""));
                self.rest = after;
                return literal.chars().try_for_each(|c| self.char(c));
            }
            _ => None,
        };
        if let Some(place) = place {
            self.rest = &at[2..];
            return self.push(Piece::leaf(Node::Place(place)));
        }
        if let Some((class, after)) = class_escape(at, self.flags.fold_case)? {
            self.rest = after;
            return self.push(Piece::leaf(Node::Class(class)));
        }
        let (code, after) = char_escape(at)?;
        self.rest = after;
        self.code_point(code)
    }

    /// Reads `[…]`.
    fn class(&mut self) -> Result<ClassUnicode, RegexError> {
        let at = self.rest;
        let fold = self.flags.fold_case;
        let mut rest = &at[1..];
        let negated = rest.strip_prefix('^');
        rest = negated.unwrap_or(rest);

        let mut class = ClassUnicode::empty();
        // Folded once at the end: what is folded already does not change.
        let mut plain: Vec<ClassUnicodeRange> = Vec::new();
        let mut cost = 0;
        let mut first = true;
        while first || !rest.starts_with(']') {
            first = false;
            let named = match posix_class(rest, fold)? {
                Some(named) => Some(named),
                None => class_escape(rest, fold)?,
            };
            if let Some((named, after)) = named {
                cost += named.ranges().len() as u64;
                if self.cost + cost > MAX_COST {
                    return Err(error("expression too large", self.pattern));
                }
                class.union(&named);
                rest = after;
                continue;
            }
            let start = rest;
            let (low, after) = class_char(rest, at)?;
            rest = after;
            let mut high = low;
            if rest.len() >= 2 && rest.starts_with('-') && !rest.starts_with("-]") {
                (high, rest) = class_char(&rest[1..], at)?;
                if high < low {
                    return Err(error(INVALID_RANGE, quoted(start, rest)));
                }
            }
            plain.extend(range(low, high));
        }
        let mut plain = ClassUnicode::new(plain);
        if fold {
            plain.case_fold_simple();
        }
        class.union(&plain);
        if negated.is_some() {
            class.negate();
        }
        self.rest = &rest[1..];
        Ok(class)
    }
}

/// Makes one piece of several; none is the empty match and one is itself.
fn join(mut pieces: Vec<Piece>, node: impl FnOnce(Vec<Node>) -> Node) -> Piece {
    if pieces.len() <= 1 {
        return pieces.pop().unwrap_or_else(|| Piece::leaf(Node::Empty));
    }
    Piece {
        height: 1 + pieces.iter().map(|p| p.height).max().unwrap_or(0),
        repeats: pieces.iter().map(|p| p.repeats).max().unwrap_or(1),
        cost: pieces.iter().fold(0, |sum, p| sum.saturating_add(p.cost)),
        node: node(pieces.into_iter().map(|p| p.node).collect()),
    }
}

/// The part of the pattern between two places in it.
fn quoted<'p>(from: &'p str, to: &str) -> &'p str {
    &from[..from.len() - to.len()]
}

/// The bounds of a counted repeat, no upper one being none.
type Bounds = (u32, Option<u32>);

/// Reads `{2}`, `{2,}` or `{2,3}`. Of any other form: none, and the brace is a character.
/// Of the form but out of bounds: no bounds.
fn counts(at: &str) -> Option<(Option<Bounds>, &str)> {
    let (min, rest) = number(&at[1..])?;
    let (max, rest) = match rest.strip_prefix(',') {
        None => (Some(min), rest),
        Some(rest) if rest.starts_with('}') => (None, rest),
        Some(rest) => {
            let (max, rest) = number(rest)?;
            (Some(max), rest)
        }
    };
    let rest = rest.strip_prefix('}')?;
    let within = min <= MAX_REPEAT && max.is_none_or(|max| min <= max && max <= MAX_REPEAT);
    Some((within.then_some((min, max)), rest))
}

/// Reads a decimal number without leading zeros; a huge one is the greatest.
fn number(at: &str) -> Option<(u32, &str)> {
    let end = at.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(at.len());
    let (digits, rest) = at.split_at(end);
    if digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    Some((digits.parse().unwrap_or(u32::MAX), rest))
}

/// Reads `\d`, `\pL` and their like; none if something else stands there.
fn class_escape(at: &str, fold: bool) -> Result<Option<(ClassUnicode, &str)>, RegexError> {
    Ok(match unicode_class(at, fold)? {
        Some(found) => Some(found),
        None => perl_class(at, fold),
    })
}

/// Reads one character of a class; `whole` starts at its bracket.
fn class_char<'p>(at: &'p str, whole: &str) -> Result<(u32, &'p str), RegexError> {
    match at.chars().next() {
        None => Err(error("missing closing ]", whole)),
        Some('\\') => char_escape(at),
        Some(c) => Ok((u32::from(c), &at[c.len_utf8()..])),
    }
}

/// Reads an escape that stands for one character.
fn char_escape(at: &str) -> Result<(u32, &str), RegexError> {
    let Some(c) = at[1..].chars().next() else {
        return Err(error("trailing backslash at end of expression", ""));
    };
    let after = &at[1 + c.len_utf8()..];
    let invalid = |after: &str| error(INVALID_ESCAPE, quoted(at, after));
    let code = match c {
        '1'..='7' if !after.starts_with(|c| matches!(c, '0'..='7')) => return Err(invalid(after)),
        '0'..='7' => {
            let more = after.bytes().take(2).take_while(|b| matches!(b, b'0'..=b'7')).count();
            let digits = &at[1..2 + more];
            let code = digits.bytes().fold(0, |code, digit| code * 8 + u32::from(digit - b'0'));
            return Ok((code, &after[more..]));
        }
        'x' => return hex_escape(at, after),
        'a' => 0x07,
        'f' => 0x0c,
        'n' => 0x0a,
        'r' => 0x0d,
        't' => 0x09,
        'v' => 0x0b,
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => u32::from(c),
        _ => return Err(invalid(after)),
    };
    Ok((code, after))
}

/// Reads the digits of `\x41` or `\x{1F600}`; `at` starts at the backslash.
fn hex_escape<'p>(at: &'p str, digits: &'p str) -> Result<(u32, &'p str), RegexError> {
    let invalid = |after: &str| error(INVALID_ESCAPE, quoted(at, after));
    let mut chars = digits.chars();
    if !digits.starts_with('{') {
        let pair = [chars.next(), chars.next()];
        return match pair.map(|c| c.and_then(|c| c.to_digit(16))) {
            [Some(high), Some(low)] => Ok((high * 16 + low, chars.as_str())),
            _ => Err(invalid(chars.as_str())),
        };
    }
    chars.next();
    let mut code: Option<u32> = None;
    loop {
        let digit = match (chars.next(), code) {
            (Some('}'), Some(code)) => return Ok((code, chars.as_str())),
            (c, _) => c.and_then(|c| c.to_digit(16)).ok_or_else(|| invalid(chars.as_str()))?,
        };
        let longer = code.unwrap_or(0) * 16 + digit;
        if longer > u32::from(char::MAX) {
            return Err(invalid(chars.as_str()));
        }
        code = Some(longer);
    }
}
