//! Which series of the head have which labels, for one tenant.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use roaring::RoaringBitmap;
use smallvec::SmallVec;

use crate::model::{Labels, MatchOp, Matcher, regex::Regex};

type Map<V> = HashMap<Box<str>, V, foldhash::fast::RandomState>;

/// A tenant's labels, each with the numbers of the series that have it.
#[derive(Debug, Default)]
pub(crate) struct Index {
    names: Map<Map<Postings>>,
    all: RoaringBitmap,
}

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
    /// Makes a series known.
    pub(crate) fn insert(&mut self, number: u32, labels: &Labels) {
        for (name, value) in labels {
            let values = match self.names.get_mut(name) {
                Some(values) => values,
                None => self.names.entry(name.into()).or_default(),
            };
            match values.get_mut(value) {
                Some(postings) => postings.insert(number),
                None => {
                    values.insert(value.into(), Postings::Few(SmallVec::from_slice(&[number])));
                }
            }
        }
        self.all.insert(number);
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
        self.names.get(name)?.get(value)
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
        let values = self.names.get(matcher.name()).into_iter().flatten();
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
            for (value, postings) in values {
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
        self.names.get(name).into_iter().flatten().map(|(value, _)| &**value).for_each(each);
    }

    /// Adds the names that some of the series have.
    pub(crate) fn names_among(&self, among: &RoaringBitmap, into: &mut BTreeSet<String>) {
        let with = |values: &Map<Postings>| values.values().any(|postings| postings.touches(among));
        into.extend(self.names.iter().filter(|(_, values)| with(values)).map(|(name, _)| name.to_string()));
    }

    /// Shows the values that a name has on some of the series.
    pub(crate) fn each_value_among(&self, name: &str, among: &RoaringBitmap, mut each: impl FnMut(&str)) {
        let values = self.names.get(name).into_iter().flatten();
        values.filter(|(_, postings)| postings.touches(among)).for_each(|(value, _)| each(value));
    }

    /// How many values a name has.
    pub(crate) fn value_count(&self, name: &str) -> usize {
        self.names.get(name).map_or(0, |values| values.len())
    }

    /// Every series.
    pub(crate) const fn all(&self) -> &RoaringBitmap {
        &self.all
    }
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
        (0..).zip(all).for_each(|(number, labels)| index.insert(number, labels));
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
}
