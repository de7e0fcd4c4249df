//! The sets of characters that have a name: `\d`, `[:alpha:]`, `\p{Greek}`.
//!
//! The short and the POSIX ones are ASCII. With `(?i)` a set is folded first and negated then, so
//! `(?i)\W` leaves out the Kelvin sign, which folds to `k`.

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

use super::{
    RegexError,
    parse::{INVALID_RANGE, error},
};

const DIGIT: &[(char, char)] = &[('0', '9')];
/// Without the vertical tab, which POSIX counts and Perl did not.
const PERL_SPACE: &[(char, char)] = &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')];
const WORD: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];

/// Reads `\d`, `\s`, `\w` or their opposites.
pub(super) fn perl_class(at: &str, fold: bool) -> Option<(ClassUnicode, &str)> {
    let (ranges, negated) = match at.get(..2)? {
        "\\d" => (DIGIT, false),
        "\\D" => (DIGIT, true),
        "\\s" => (PERL_SPACE, false),
        "\\S" => (PERL_SPACE, true),
        "\\w" => (WORD, false),
        "\\W" => (WORD, true),
        _ => return None,
    };
    Some((set(ranges, negated, fold), &at[2..]))
}

/// Reads `[:alpha:]` or `[:^alpha:]`, as it stands inside of brackets.
pub(super) fn posix_class(at: &str, fold: bool) -> Result<Option<(ClassUnicode, &str)>, RegexError> {
    let Some(inner) = at.strip_prefix("[:") else { return Ok(None) };
    let Some(end) = inner.find(":]") else { return Ok(None) };
    let name = &inner[..end];
    let (name, negated) = name.strip_prefix('^').map_or((name, false), |name| (name, true));
    let ranges: &[(char, char)] = match name {
        "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => &[('A', 'Z'), ('a', 'z')],
        "ascii" => &[('\0', '\x7f')],
        "blank" => &[('\t', '\t'), (' ', ' ')],
        "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
        "digit" => DIGIT,
        "graph" => &[('!', '~')],
        "lower" => &[('a', 'z')],
        "print" => &[(' ', '~')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => &[('\t', '\r'), (' ', ' ')],
        "upper" => &[('A', 'Z')],
        "word" => WORD,
        "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => return Err(error(INVALID_RANGE, &at[..end + 4])),
    };
    Ok(Some((set(ranges, negated, fold), &inner[end + 2..])))
}

/// Reads `\pL`, `\p{Greek}`, `\P{^Greek}` and their like.
pub(super) fn unicode_class(at: &str, fold: bool) -> Result<Option<(ClassUnicode, &str)>, RegexError> {
    let mut negated = match at.get(..2) {
        Some("\\p") => false,
        Some("\\P") => true,
        _ => return Ok(None),
    };
    let end = match at[2..].chars().next() {
        None => 2,
        Some('{') => at.find('}').ok_or_else(|| error(INVALID_RANGE, at))? + 1,
        Some(c) => 2 + c.len_utf8(),
    };
    let whole = &at[..end];
    let braced = whole[2..].strip_prefix('{').and_then(|name| name.strip_suffix('}'));
    let mut name = braced.unwrap_or(&whole[2..]);
    if let Some(inner) = name.strip_prefix('^') {
        negated = !negated;
        name = inner;
    }
    let mut class = named_set(name).ok_or_else(|| error(INVALID_RANGE, whole))?;
    if fold {
        class.case_fold_simple();
    }
    if negated {
        class.negate();
    }
    Ok(Some((class, &at[end..])))
}

/// The characters of a general category or of a script.
///
/// The tables know much more (`Alphabetic`, `Age=5.0`), which RE2 does not.
fn named_set(name: &str) -> Option<ClassUnicode> {
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b' ')) {
        return None;
    }
    let plain: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    match plain.as_str() {
        // The tables would take `is` off.
        "" => return None,
        name if name.starts_with("is") => return None,
        // There are no surrogates in text.
        "cs" | "surrogate" => return Some(ClassUnicode::empty()),
        _ => {}
    }
    ["gc", "sc"].iter().find_map(|property| {
        let hir = regex_syntax::parse(&format!("\\p{{{property}={plain}}}")).ok()?;
        match hir.into_kind() {
            HirKind::Class(Class::Unicode(class)) => Some(class),
            // A set of one character.
            HirKind::Literal(literal) => {
                let c = std::str::from_utf8(&literal.0).ok()?.chars().next()?;
                Some(ClassUnicode::new([ClassUnicodeRange::new(c, c)]))
            }
            _ => None,
        }
    })
}

fn set(ranges: &[(char, char)], negated: bool, fold: bool) -> ClassUnicode {
    let mut class = ClassUnicode::new(ranges.iter().map(|(low, high)| ClassUnicodeRange::new(*low, *high)));
    if fold {
        class.case_fold_simple();
    }
    if negated {
        class.negate();
    }
    class
}
