//! Which series of the head have which labels, for one tenant.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use roaring::RoaringBitmap;
use smallvec::SmallVec;

use crate::model::{Labels, MatchOp, Matcher};

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

impl Postings {
    fn insert(&mut self, number: u32) {
        match self {
            Self::Few(few) if few.len() < 16 => few.push(number),
            Self::Few(few) => {
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

    /// The numbers of the series that all matchers let pass.
    pub(crate) fn find(&self, matchers: &[Matcher]) -> RoaringBitmap {
        // What narrows most costs least, and comes first.
        let (equal, other): (Vec<&Matcher>, Vec<&Matcher>) =
            matchers.iter().partition(|m| m.op() == MatchOp::Equal && !m.value().is_empty());
        let mut found: Option<RoaringBitmap> = None;
        for matcher in equal {
            let Some(postings) = self.names.get(matcher.name()).and_then(|v| v.get(matcher.value())) else {
                return RoaringBitmap::new();
            };
            match &mut found {
                Some(found) => postings.narrow(found),
                None => postings.add_to(found.insert(RoaringBitmap::new())),
            }
        }
        let mut found = found.unwrap_or_else(|| self.all.clone());
        for matcher in other {
            if found.is_empty() {
                break;
            }
            self.apply(matcher, &mut found);
        }
        found
    }

    fn apply(&self, matcher: &Matcher, found: &mut RoaringBitmap) {
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

    /// Adds the names there are.
    pub(crate) fn names_into(&self, into: &mut BTreeSet<String>) {
        into.extend(self.names.keys().map(|name| name.to_string()));
    }

    /// Shows the values a name has.
    pub(crate) fn each_value(&self, name: &str, each: impl FnMut(&str)) {
        self.names.get(name).into_iter().flatten().map(|(value, _)| &**value).for_each(each);
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

    #[test]
    fn matchers_find_what_matching_each_series_finds() {
        let mut index = Index::default();
        let all: Vec<Labels> = (0..200_u32)
            .map(|i| {
                let (a, b) = ((i % 7).to_string(), (i % 3).to_string());
                let pairs = [("a", a.as_str()), ("b", if i % 3 == 0 { "" } else { b.as_str() })];
                let unique = i.to_string();
                Labels::from_pairs(pairs.into_iter().chain([("i", unique.as_str())])).unwrap()
            })
            .collect();
        for (number, labels) in (0..).zip(&all) {
            index.insert(number, labels);
        }
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
        ];
        for set in sets {
            let expect: Vec<u32> = (0..)
                .zip(&all)
                .filter(|(_, l)| set.iter().all(|m| m.matches(l.get(m.name()).unwrap_or_default())))
                .map(|(n, _)| n)
                .collect();
            assert_eq!(index.find(&set).iter().collect::<Vec<_>>(), expect, "{set:?}");
        }
    }
}
