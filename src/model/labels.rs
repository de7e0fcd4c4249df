//! A series' labels, in one canonical form.
//!
//! A [`Labels`] is one shared string: for each label, sorted by name, the length of the name, the
//! name, the length of the value, the value.
//!
//! ```text
//! ┌─────┬──────────┬─────┬────┬─────┬─────┬─────┬─────┐
//! │ len │ __name__ │ len │ up │ len │ job │ len │ api │
//! └─────┴──────────┴─────┴────┴─────┴─────┴─────┴─────┘
//! ```
//!
//! A length is written in six-bit digits, least significant first, and every digit but the last has
//! `0x40` set. All digits are ASCII, so the whole is valid UTF-8, can be sliced without checks and
//! compared, hashed and stored as it is. The same bytes give the same [`SeriesId`] in every
//! process and on both backends.

use std::{cmp::Ordering, fmt, sync::Arc};

use xxhash_rust::xxh3::xxh3_64;

/// The label that carries the metric's name.
pub const METRIC_NAME: &str = "__name__";

/// Which series: 64 bits of the metric name's hash, then 64 bits of the canonical labels' hash.
///
/// Sorting by it keeps a metric's series together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesId(pub u128);

impl SeriesId {
    /// The low half, which alone is enough to spread series over stripes and tables.
    #[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
    pub const fn hash64(self) -> u64 {
        self.0 as u64
    }
}

/// A set of labels: sorted by name, names unique, no empty names, no empty values.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<str>);

/// Why labels could not be made canonical.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// Two labels have the same name.
    #[error("duplicate label name {0:?}")]
    Duplicate(String),
    /// A label has no name.
    #[error("empty label name")]
    EmptyName,
    /// Stored bytes are not the canonical form.
    #[error("labels are not in canonical form")]
    NotCanonical,
}

impl Labels {
    /// No labels at all.
    pub fn empty() -> Self {
        Self(Arc::from(""))
    }

    /// Makes labels of pairs in any order; pairs with an empty value are left out.
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Self, LabelsError>
    where
        N: AsRef<str>,
        V: AsRef<str>,
    {
        let mut pairs: Vec<(N, V)> = pairs.into_iter().filter(|(_, v)| !v.as_ref().is_empty()).collect();
        pairs.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
        if let Some(twice) = pairs.windows(2).find(|w| w[0].0.as_ref() == w[1].0.as_ref()) {
            return Err(LabelsError::Duplicate(twice[0].0.as_ref().to_owned()));
        }
        if pairs.first().is_some_and(|(name, _)| name.as_ref().is_empty()) {
            return Err(LabelsError::EmptyName);
        }
        Ok(Self::encode(pairs.iter().map(|(n, v)| (n.as_ref(), v.as_ref()))))
    }

    /// Reads labels back from their canonical form.
    pub fn from_canonical(text: &str) -> Result<Self, LabelsError> {
        let mut rest = text;
        let mut previous: Option<&str> = None;
        while !rest.is_empty() {
            let (name, after) = take(rest).ok_or(LabelsError::NotCanonical)?;
            let (value, after) = take(after).ok_or(LabelsError::NotCanonical)?;
            if name.is_empty() || value.is_empty() || previous.is_some_and(|p| p >= name) {
                return Err(LabelsError::NotCanonical);
            }
            previous = Some(name);
            rest = after;
        }
        Ok(Self(Arc::from(text)))
    }

    /// Encodes pairs that are already sorted, unique and non-empty.
    fn encode<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Self {
        let size = pairs.clone().map(|(n, v)| n.len() + v.len() + 4).sum();
        let mut text = String::with_capacity(size);
        for (name, value) in pairs {
            put(&mut text, name);
            put(&mut text, value);
        }
        Self(Arc::from(text))
    }

    /// The canonical form.
    pub fn as_canonical(&self) -> &str {
        &self.0
    }

    /// The id that every process gives this series.
    pub fn id(&self) -> SeriesId {
        let name = xxh3_64(self.metric_name().unwrap_or_default().as_bytes());
        SeriesId(u128::from(name) << 64 | u128::from(xxh3_64(self.0.as_bytes())))
    }

    /// The labels in order of their names.
    pub fn iter(&self) -> Iter<'_> {
        Iter(&self.0)
    }

    /// The value of label `name`, if it is there.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().take_while(|(n, _)| *n <= name).find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The metric's name, if it has one.
    pub fn metric_name(&self) -> Option<&str> {
        self.get(METRIC_NAME)
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are no labels.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These labels without those that `drop` names.
    #[must_use]
    pub fn without(&self, drop: impl Fn(&str) -> bool) -> Self {
        if self.iter().any(|(n, _)| drop(n)) {
            Self::encode(self.iter().filter(|(n, _)| !drop(n)))
        } else {
            self.clone()
        }
    }

    /// Only those of these labels that `keep` names.
    #[must_use]
    pub fn only(&self, keep: impl Fn(&str) -> bool) -> Self {
        self.without(|n| !keep(n))
    }

    /// Adds the canonical form of only those of these labels that `keep` names to `into`.
    pub fn write_only(&self, keep: impl Fn(&str) -> bool, into: &mut String) {
        let mut rest = self.iter();
        loop {
            let before = rest.0;
            let Some((name, _)) = rest.next() else { break };
            if keep(name) {
                into.push_str(&before[..before.len() - rest.0.len()]);
            }
        }
    }

    /// Each label's part of the canonical form, in order.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = &str> {
        let mut rest = self.iter();
        std::iter::from_fn(move || {
            let before = rest.0;
            rest.next()?;
            Some(&before[..before.len() - rest.0.len()])
        })
    }

    /// Puts such parts together, which are in order and of different names.
    pub(crate) fn of_pairs<'p>(pairs: impl Iterator<Item = &'p str> + Clone) -> Self {
        let mut text = String::with_capacity(pairs.clone().map(str::len).sum());
        pairs.for_each(|pair| text.push_str(pair));
        Self(Arc::from(text))
    }

    /// Starts changing these labels.
    pub fn edit(&self) -> LabelsBuilder {
        LabelsBuilder { pairs: self.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect() }
    }
}

/// Label by label, first by name, then by value, bytewise; a prefix comes first. Prometheus' order.
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// `{__name__="up", job="api"}`, as Prometheus prints labels in its messages.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            if is_plain_label_name(name) {
                write!(f, "{comma}{name}={}", Quoted(value))?;
            } else {
                write!(f, "{comma}{}={}", Quoted(name), Quoted(value))?;
            }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether `name` needs no quotes as a label's name: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub fn is_plain_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b == b'_' || b.is_ascii_alphabetic())
        && bytes.all(|b| b == b'_' || b.is_ascii_alphanumeric())
}

/// Whether `name` needs no quotes as a metric's name: `[a-zA-Z_:][a-zA-Z0-9_:]*`.
pub fn is_plain_metric_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b == b'_' || b == b':' || b.is_ascii_alphabetic())
        && bytes.all(|b| b == b'_' || b == b':' || b.is_ascii_alphanumeric())
}

/// The part of the canonical form that a label has.
pub(crate) fn pair(name: &str, value: &str) -> String {
    let mut text = String::with_capacity(name.len() + value.len() + 4);
    put(&mut text, name);
    put(&mut text, value);
    text
}

/// The name and the value of which a part of the canonical form is made.
pub(crate) fn split_pair(pair: &str) -> (&str, &str) {
    let split = take(pair).and_then(|(name, rest)| Some((name, take(rest)?.0)));
    split.expect("it was taken from a canonical form")
}

/// Prints a string in double quotes with Go's escapes (`strconv.Quote`).
#[derive(Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\x07' => f.write_str("\\a")?,
                '\x08' => f.write_str("\\b")?,
                '\x0c' => f.write_str("\\f")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\x0b' => f.write_str("\\v")?,
                c if u32::from(c) < 0x20 || c == '\x7f' => write!(f, "\\x{:02x}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

/// Walks over labels, in order of their names.
#[derive(Clone, Debug)]
pub struct Iter<'a>(&'a str);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = take(self.0)?;
        let (value, rest) = take(rest)?;
        self.0 = rest;
        Some((name, value))
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Labels being changed.
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    /// Sorted by name, unique, values may be empty until the end.
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// Starts from nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a label; an empty value takes it away.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        match self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
            Ok(i) => value.clone_into(&mut self.pairs[i].1),
            Err(i) => self.pairs.insert(i, (name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Takes a label away.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.pairs.retain(|(n, _)| n != name);
        self
    }

    /// The value set for `name`, empty if there is none.
    pub fn get(&self, name: &str) -> &str {
        let found = self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name));
        found.map_or("", |i| self.pairs[i].1.as_str())
    }

    /// The labels as they now are.
    pub fn build(&self) -> Labels {
        let present = self.pairs.iter().filter(|(n, v)| !n.is_empty() && !v.is_empty());
        Labels::encode(present.map(|(n, v)| (n.as_str(), v.as_str())))
    }
}

fn put(text: &mut String, part: &str) {
    let mut rest = part.len();
    loop {
        let digit = u8::try_from(rest & 0x3f).expect("six bits fit a byte");
        rest >>= 6;
        if rest == 0 {
            text.push(char::from(digit));
            break;
        }
        text.push(char::from(digit | 0x40));
    }
    text.push_str(part);
}

fn take(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let (mut length, mut shift, mut at) = (0_usize, 0_u32, 0_usize);
    loop {
        let digit = *bytes.get(at)?;
        at += 1;
        if digit > 0x7f || shift > 30 {
            return None;
        }
        length |= usize::from(digit & 0x3f) << shift;
        if digit & 0x40 == 0 {
            break;
        }
        shift += 6;
    }
    let end = at.checked_add(length)?;
    Some((text.get(at..end)?, text.get(end..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_unique_and_without_empty_values() {
        let labels = Labels::from_pairs([("b", "2"), ("__name__", "up"), ("c", ""), ("a", "1")]).unwrap();
        assert_eq!(labels.to_string(), r#"{__name__="up", a="1", b="2"}"#);
        assert_eq!(labels.get("b"), Some("2"));
        assert_eq!(labels.get("c"), None);
        assert_eq!(Labels::from_pairs([("a", "1"), ("a", "2")]), Err(LabelsError::Duplicate("a".to_owned())));
        assert_eq!(Labels::from_pairs([("", "1")]), Err(LabelsError::EmptyName));
    }

    #[test]
    fn long_and_multibyte_labels_come_back() {
        let long = "é".repeat(5000);
        let labels = Labels::from_pairs([("long", long.as_str()), ("温度", "x")]).unwrap();
        assert_eq!(labels.get("long"), Some(long.as_str()));
        assert_eq!(Labels::from_canonical(labels.as_canonical()), Ok(labels.clone()));
        assert_eq!(labels.without(|n| n == "long").to_string(), r#"{"温度"="x"}"#);
    }

    #[test]
    fn a_part_of_the_labels_is_written_as_it_stands() {
        let labels = Labels::from_pairs([("a", "1"), ("b", "2"), ("c", "3")]).unwrap();
        for kept in ["", "a", "b", "ac", "abc"] {
            let mut text = String::new();
            labels.write_only(|name| kept.contains(name), &mut text);
            assert_eq!(text, labels.only(|name| kept.contains(name)).as_canonical());
        }
    }

    #[test]
    fn labels_are_put_together_of_their_pairs() {
        let long = "x".repeat(5000);
        let labels = Labels::from_pairs([("b", "é"), ("__name__", "up"), ("long", &long)]).unwrap();
        let pairs: Vec<&str> = labels.pairs().collect();
        assert_eq!(Labels::of_pairs(pairs.iter().copied()), labels);
        assert!(pairs.iter().map(|p| split_pair(p)).eq(labels.iter()));
        assert!(labels.iter().map(|(n, v)| pair(n, v)).eq(pairs));
        assert_eq!(Labels::of_pairs(std::iter::empty()), Labels::empty());
    }

    #[test]
    fn what_is_not_canonical_is_refused() {
        for text in
            ["\u{1}", "\u{1}a", "\u{1}a\u{0}", "\u{0}\u{1}a", "\u{1}b\u{1}1\u{1}a\u{1}1", "\u{41}\u{41}", "é"]
        {
            assert_eq!(Labels::from_canonical(text), Err(LabelsError::NotCanonical), "{text:?}");
        }
    }

    #[test]
    fn order_is_by_name_then_value() {
        let parse =
            |pairs: &[(&'static str, &'static str)]| Labels::from_pairs(pairs.iter().copied()).unwrap();
        assert!(parse(&[("a", "1")]) < parse(&[("a", "1"), ("b", "1")]));
        assert!(parse(&[("a", "10")]) < parse(&[("a", "2")]));
        assert!(parse(&[("a", "2")]) < parse(&[("b", "1")]));
    }
}
