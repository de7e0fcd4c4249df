//! Which labels the series of the head have, and which series have which label, for one tenant.
//!
//! Series have most of their labels in common. So each pair of a name and a value is kept once, in its canonical form,
//! and has a number; a series' labels are the list of their pairs' numbers.
//!
//! ```text
//! "job=api" ─▶ table ─▶ 17 ─▶ pairs[17] { text, the series that have it }
//! "job"     ─▶ names ─▶ the numbers of all its pairs
//! ```

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, Hasher},
};

use hashbrown::{HashMap, HashTable};
use roaring::RoaringBitmap;
use smallvec::SmallVec;

use crate::model::{
    Labels, MatchOp, Matcher,
    labels::{pair, split_pair},
    regex::Regex,
};

/// The numbers of pairs, of one series or of another.
pub(crate) type PairNumbers = SmallVec<[u32; 16]>;

/// A tenant's labels, each with the numbers of the series that have it.
#[derive(Debug, Default)]
pub(crate) struct Index {
    hasher: foldhash::fast::RandomState,
    /// Pairs by the hash of their text.
    table: HashTable<Entry>,
    /// Pairs by their numbers, in pages, so that a growing index never copies them.
    pairs: Vec<Vec<Pair>>,
    /// The pairs of each name.
    names: HashMap<Box<str>, Vec<u32>, foldhash::fast::RandomState>,
    all: RoaringBitmap,
    /// About the memory that pairs take.
    pair_bytes: u64,
}

/// With a part of the hash, so that a growing table does not look at the texts.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u32,
    number: u32,
}

#[derive(Debug)]
struct Pair {
    text: Box<str>,
    postings: Postings,
}

/// Pairs on a page.
const PAGE: usize = 256;

/// Numbers of series; most label values of a churning metric have one or two.
#[derive(Debug)]
enum Postings {
    Few(SmallVec<[u32; 4]>),
    Many(Box<RoaringBitmap>),
}

/// With so few series left, their labels are looked at, if that is instead of more than [`MANY_VALUES`].
const FEW: u64 = 32;
const MANY_VALUES: usize = 256;

/// What the index found.
#[derive(Debug, Default)]
pub(crate) struct Found<'m> {
    /// The numbers of the series.
    pub(crate) series: RoaringBitmap,
    /// Matchers that these series have to be asked for: to ask them costs less.
    pub(crate) left: Vec<&'m Matcher>,
}

/// The values a matcher names one by one, to let them pass or not.
fn texts(matcher: &Matcher) -> Option<SmallVec<[&str; 8]>> {
    match matcher.regex() {
        None => Some(SmallVec::from_slice(&[matcher.value()])),
        Some(regex) => Some(regex.set_matches()?.iter().map(String::as_str).collect()),
    }
}

impl Postings {
    fn insert(&mut self, number: u32) {
        match self {
            Self::Few(few) if few.len() < 16 => few.push(number),
            Self::Few(few) => {
                // Writers at the same time get their numbers in any order.
                let mut many: RoaringBitmap = few.iter().copied().collect();
                many.insert(number);
                *self = Self::Many(Box::new(many));
            }
            Self::Many(many) => {
                many.insert(number);
            }
        }
    }

    fn add_to(&self, into: &mut RoaringBitmap) {
        match self {
            Self::Few(few) => into.extend(few.iter().copied()),
            Self::Many(many) => *into |= &**many,
        }
    }

    fn remove_from(&self, from: &mut RoaringBitmap) {
        match self {
            Self::Few(few) => few.iter().for_each(|n| {
                from.remove(*n);
            }),
            Self::Many(many) => *from -= &**many,
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Few(few) => few.len() as u64,
            Self::Many(many) => many.len(),
        }
    }

    fn count_in(&self, among: &RoaringBitmap) -> u64 {
        match self {
            Self::Few(few) => few.iter().filter(|n| among.contains(**n)).count() as u64,
            Self::Many(many) => many.intersection_len(among),
        }
    }

    fn touches(&self, among: &RoaringBitmap) -> bool {
        match self {
            Self::Few(few) => few.iter().any(|n| among.contains(*n)),
            Self::Many(many) => !many.is_disjoint(among),
        }
    }

    fn narrow(&self, to: &mut RoaringBitmap) {
        match self {
            Self::Few(few) => *to &= few.iter().copied().collect::<RoaringBitmap>(),
            Self::Many(many) => *to &= &**many,
        }
    }
}

impl Index {
    /// Makes a series known: the numbers of its pairs.
    pub(crate) fn insert(&mut self, number: u32, labels: &Labels) -> PairNumbers {
        let pairs = labels.pairs().map(|text| self.number_of_or_new(text)).collect();
        self.insert_pairs(number, &pairs);
        pairs
    }

    /// Makes a series known that has these pairs.
    pub(crate) fn insert_pairs(&mut self, number: u32, pairs: &PairNumbers) {
        for pair in pairs {
            self.pair_mut(*pair).postings.insert(number);
        }
        self.all.insert(number);
    }

    /// The number of a pair, which is made if it is not there.
    pub(crate) fn number_of_or_new(&mut self, text: &str) -> u32 {
        let hash = self.hash(text);
        if let Some(number) = self.number(hash, text) {
            return number;
        }
        if self.pairs.last().is_none_or(|page| page.len() == PAGE) {
            // The first page grows as it must, so that many small heads stay small.
            self.pairs.push(if self.pairs.is_empty() { Vec::new() } else { Vec::with_capacity(PAGE) });
        }
        let number = u32::try_from(self.pair_count()).expect("fewer pairs than bytes of memory");
        let page = self.pairs.last_mut().expect("a page was just made sure of");
        page.push(Pair { text: text.into(), postings: Postings::Few(SmallVec::new()) });
        self.pair_bytes += 80 + text.len() as u64;
        self.table.insert_unique(spread(hash), Entry { hash, number }, |entry| spread(entry.hash));
        let (name, _) = split_pair(text);
        match self.names.get_mut(name) {
            Some(pairs) => pairs.push(number),
            None => {
                self.names.insert(name.into(), vec![number]);
            }
        }
        number
    }

    /// The labels that have these pairs.
    pub(crate) fn labels(&self, pairs: &[u32]) -> Labels {
        Labels::of_pairs(pairs.iter().map(|number| self.text(*number)))
    }

    /// A pair's canonical form.
    pub(crate) fn text(&self, number: u32) -> &str {
        &self.pair(number).text
    }

    /// About the memory that pairs take, without the series that have them.
    pub(crate) const fn pair_bytes(&self) -> u64 {
        self.pair_bytes
    }

    /// How many pairs there are.
    pub(crate) fn pair_count(&self) -> usize {
        self.pairs.len().saturating_sub(1) * PAGE + self.pairs.last().map_or(0, Vec::len)
    }

    /// The place of each pair among all of them, by name and then by value, from 1 on: lists of them sort as labels do.
    pub(crate) fn ranks(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..).take(self.pair_count()).collect();
        order.sort_unstable_by(|a, b| split_pair(self.text(*a)).cmp(&split_pair(self.text(*b))));
        let mut ranks = vec![0; order.len()];
        for (rank, number) in (1..).zip(order) {
            ranks[number as usize] = rank;
        }
        ranks
    }

    #[expect(clippy::cast_possible_truncation, reason = "a part of the hash is what is kept")]
    fn hash(&self, text: &str) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(text.as_bytes());
        hasher.finish() as u32
    }

    fn number(&self, hash: u32, text: &str) -> Option<u32> {
        let same = |entry: &Entry| entry.hash == hash && self.text(entry.number) == text;
        self.table.find(spread(hash), same).map(|entry| entry.number)
    }

    fn pair(&self, number: u32) -> &Pair {
        &self.pairs[number as usize / PAGE][number as usize % PAGE]
    }

    fn pair_mut(&mut self, number: u32) -> &mut Pair {
        &mut self.pairs[number as usize / PAGE][number as usize % PAGE]
    }

    /// The values of a name, and the series that have them.
    fn values(&self, name: &str) -> impl Iterator<Item = (&str, &Postings)> {
        self.names.get(name).into_iter().flatten().map(|number| self.value(*number))
    }

    fn value(&self, number: u32) -> (&str, &Postings) {
        let pair = self.pair(number);
        (split_pair(&pair.text).1, &pair.postings)
    }

    /// The series that the matchers let pass, as far as the index is the place to tell.
    pub(crate) fn find<'m>(&self, matchers: &'m [Matcher]) -> Found<'m> {
        let mut order: Vec<&Matcher> = matchers.iter().collect();
        // What narrows most costs least, and comes first.
        order.sort_by_key(|m| (m.op() != MatchOp::Equal || m.value().is_empty(), texts(m).is_none()));
        let mut found: Option<RoaringBitmap> = None;
        let mut left = Vec::new();
        for matcher in order {
            if matcher.op() == MatchOp::Equal && !matcher.value().is_empty() {
                match (&mut found, self.postings(matcher.name(), matcher.value())) {
                    (_, None) => return Found::default(),
                    (Some(found), Some(postings)) => postings.narrow(found),
                    (None, Some(postings)) => postings.add_to(found.insert(RoaringBitmap::new())),
                }
                continue;
            }
            let found = found.get_or_insert_with(|| self.all.clone());
            if found.len() <= FEW
                && texts(matcher).is_none()
                && self.value_count(matcher.name()) > MANY_VALUES
            {
                left.push(matcher);
            } else {
                self.apply(matcher, found);
            }
        }
        Found { series: found.unwrap_or_else(|| self.all.clone()), left }
    }

    fn postings(&self, name: &str, value: &str) -> Option<&Postings> {
        let text = pair(name, value);
        self.number(self.hash(&text), &text).map(|number| &self.pair(number).postings)
    }

    fn apply(&self, matcher: &Matcher, found: &mut RoaringBitmap) {
        let negated = matches!(matcher.op(), MatchOp::NotEqual | MatchOp::NotMatches);
        if matcher.regex().is_some_and(Regex::is_match_all) {
            if negated {
                found.clear();
            }
            return;
        }
        if let Some(texts) = texts(matcher).filter(|texts| !texts.contains(&"")) {
            let listed = texts.into_iter().filter_map(|text| self.postings(matcher.name(), text));
            if negated {
                listed.for_each(|postings| postings.remove_from(found));
            } else {
                let mut with = RoaringBitmap::new();
                listed.for_each(|postings| postings.add_to(&mut with));
                *found &= with;
            }
            return;
        }
        let values = self.values(matcher.name());
        if matcher.matches_empty() {
            for (_, postings) in values.filter(|(value, _)| !matcher.matches(value)) {
                postings.remove_from(found);
            }
        } else {
            let mut with = RoaringBitmap::new();
            for (_, postings) in values.filter(|(value, _)| matcher.matches(value)) {
                postings.add_to(&mut with);
            }
            *found &= with;
        }
    }

    /// Shows each pair of a name and a value, and how many series have it, of all or of some of them.
    pub(crate) fn each_pair(&self, among: Option<&RoaringBitmap>, mut each: impl FnMut(&str, &str, u64)) {
        for (name, values) in &self.names {
            for number in values {
                let (value, postings) = self.value(*number);
                let count = match among {
                    None => postings.len(),
                    Some(among) => postings.count_in(among),
                };
                if count > 0 {
                    each(name, value, count);
                }
            }
        }
    }

    /// Adds the names there are.
    pub(crate) fn names_into(&self, into: &mut BTreeSet<String>) {
        into.extend(self.names.keys().map(|name| name.to_string()));
    }

    /// Shows the values a name has.
    pub(crate) fn each_value(&self, name: &str, each: impl FnMut(&str)) {
        self.values(name).map(|(value, _)| value).for_each(each);
    }

    /// Adds the names that some of the series have.
    pub(crate) fn names_among(&self, among: &RoaringBitmap, into: &mut BTreeSet<String>) {
        let with = |values: &[u32]| values.iter().any(|number| self.pair(*number).postings.touches(among));
        into.extend(self.names.iter().filter(|(_, values)| with(values)).map(|(name, _)| name.to_string()));
    }

    /// Shows the values that a name has on some of the series.
    pub(crate) fn each_value_among(&self, name: &str, among: &RoaringBitmap, mut each: impl FnMut(&str)) {
        let values = self.values(name).filter(|(_, postings)| postings.touches(among));
        values.for_each(|(value, _)| each(value));
    }

    /// How many values a name has.
    pub(crate) fn value_count(&self, name: &str) -> usize {
        self.names.get(name).map_or(0, Vec::len)
    }

    /// Every series.
    pub(crate) const fn all(&self) -> &RoaringBitmap {
        &self.all
    }
}

/// A hash for the table of its part that is kept: the table uses the top bits, too.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(index: &Index, all: &[Labels], set: &[Matcher]) -> Vec<u32> {
        let Found { series, left } = index.find(set);
        let passes = |number: &u32| {
            let labels = &all[*number as usize];
            left.iter().all(|m| m.matches(labels.get(m.name()).unwrap_or_default()))
        };
        series.iter().filter(passes).collect()
    }

    fn scanned(all: &[Labels], set: &[Matcher]) -> Vec<u32> {
        let passes = |l: &Labels| set.iter().all(|m| m.matches(l.get(m.name()).unwrap_or_default()));
        (0..).zip(all).filter(|(_, labels)| passes(labels)).map(|(number, _)| number).collect()
    }

    fn index_of(all: &[Labels]) -> Index {
        let mut index = Index::default();
        for (number, labels) in (0..).zip(all) {
            let pairs = index.insert(number, labels);
            assert_eq!(index.labels(&pairs), *labels);
        }
        index
    }

    #[test]
    fn matchers_find_what_matching_each_series_finds() {
        let all: Vec<Labels> = (0..200_u32)
            .map(|i| {
                let (a, b) = ((i % 7).to_string(), (i % 3).to_string());
                let pairs = [("a", a.as_str()), ("b", if i % 3 == 0 { "" } else { b.as_str() })];
                let unique = i.to_string();
                Labels::from_pairs(pairs.into_iter().chain([("i", unique.as_str())])).unwrap()
            })
            .collect();
        let index = index_of(&all);
        let matcher = |op, name, value| Matcher::new(op, name, value).unwrap();
        let sets = [
            vec![],
            vec![Matcher::equal("a", "3")],
            vec![Matcher::equal("a", "3"), Matcher::equal("b", "")],
            vec![matcher(MatchOp::NotEqual, "b", "1"), Matcher::equal("a", "1")],
            vec![matcher(MatchOp::NotEqual, "b", "")],
            vec![Matcher::equal("none", "x")],
            vec![matcher(MatchOp::NotEqual, "none", "x"), Matcher::equal("i", "5")],
            vec![matcher(MatchOp::Matches, "a", "1|2"), matcher(MatchOp::NotMatches, "b", "1.*")],
            vec![matcher(MatchOp::NotMatches, "a", ".*")],
            vec![matcher(MatchOp::NotMatches, "b", "|1")],
        ];
        for set in sets {
            assert_eq!(found(&index, &all, &set), scanned(&all, &set), "{set:?}");
        }
    }

    #[test]
    fn ranks_sort_as_labels_do() {
        let value = |i: u32| if i.is_multiple_of(5) { String::new() } else { (i * 7919 % 97).to_string() };
        let mut all: Vec<Labels> = (0..300)
            .map(|i| {
                let pairs = [("b", value(i)), ("A", value(i / 2)), ("ab", value(i / 3)), ("a", value(i / 7))];
                Labels::from_pairs(pairs).unwrap()
            })
            .collect();
        let mut index = Index::default();
        let lists: Vec<PairNumbers> = (0..).zip(&all).map(|(number, l)| index.insert(number, l)).collect();
        let ranks = index.ranks();
        let mut sorted: Vec<(Vec<u32>, Labels)> = lists
            .iter()
            .zip(&all)
            .map(|(list, l)| (list.iter().map(|n| ranks[*n as usize]).collect(), l.clone()))
            .collect();
        sorted.sort();
        all.sort();
        assert!(sorted.into_iter().map(|(_, labels)| labels).eq(all));
    }
}
