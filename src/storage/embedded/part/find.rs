//! Finds a part's series by their labels.
//!
//! A matcher becomes a set of ordinals: a value is looked up, a list of values is looked up one by one, a
//! pattern with a fixed beginning looks at the values that begin so, one without walks the tree of values and enters
//! the branches that can match, and only what is left (`.*end`) tries every value of that one label. A matcher that
//! the absent label passes too, or that is negated, is taken from the series that have the label. The cheapest go
//! first, and when they leave few series, dear patterns look at those series' labels instead of at all values. What
//! dear patterns found is [kept](super::matched).

use std::{
    collections::BTreeSet,
    ops::{ControlFlow, Range},
    sync::Arc,
};

use fst::{Automaton, IntoStreamer, Streamer};
use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::{
    super::chunk::Damaged,
    footer::{NamesAt, Section},
    matched::Key,
    names::{self, NameEntry, Postings},
    reader::Part,
};
use crate::{
    model::{
        MatchOp, Matcher, TenantId,
        regex::{Regex, Step, Walker},
    },
    storage::{Result, StorageError},
};

/// With so few series left, their labels are looked at.
const FEW: u64 = 32;
/// What is found among so many values is kept.
const MANY_VALUES: usize = 256;
/// Looking at a series' labels costs about as much as looking at so many values.
const VALUES_PER_SERIES: u64 = 64;

/// How much work a matcher is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cost {
    /// One value.
    Lookup,
    /// Several values.
    Lookups,
    /// A stretch of the values.
    Prefix,
    /// All values of the label.
    Scan,
}

impl Part {
    /// The ordinals of a tenant's series that pass all matchers; they are in label order.
    pub fn find(&self, tenant: &TenantId, matchers: &[Matcher]) -> Result<RoaringBitmap> {
        let Some((names, all)) = self.tenant(tenant) else { return Ok(RoaringBitmap::new()) };
        let (exact, mut others): (Vec<&Matcher>, Vec<&Matcher>) =
            matchers.iter().partition(|m| m.op() == MatchOp::Equal && !m.value().is_empty());
        others.sort_by_key(|matcher| cost(matcher));
        let mut found = self.with_all(names, all.clone(), &exact)?;
        if found.is_empty() || others.is_empty() {
            return Ok(found);
        }
        let all = set_of(all);
        for matcher in others {
            if found.is_empty() {
                break;
            }
            if cost(matcher) >= Cost::Prefix && found.len() <= FEW {
                found = self.pass(&found, matcher)?;
            } else {
                found &= self.matching(names, &all, matcher)?;
            }
        }
        Ok(found)
    }

    /// The series of some in a row that have all of these values. A value that is one run of series, as a metric's name
    /// is, only bounds what the others give.
    fn with_all(
        &self,
        names: NamesAt,
        mut bounds: Range<u32>,
        matchers: &[&Matcher],
    ) -> Result<RoaringBitmap> {
        let mut bitmaps = SmallVec::<[Postings; 4]>::new();
        for matcher in matchers {
            let Some(entry) = self.name(names, matcher.name())? else { return Ok(RoaringBitmap::new()) };
            let Some(code) = self.values(&entry)?.get(matcher.value()) else {
                return Ok(RoaringBitmap::new());
            };
            match self.checked(Postings::decode(code))? {
                Postings::One(one) => bounds = common(&bounds, &(one..one.saturating_add(1))),
                Postings::Run(run) => bounds = common(&bounds, &(*run.start()..run.end().saturating_add(1))),
                postings @ Postings::Bitmap(_) => bitmaps.push(postings),
            }
        }
        if bounds.is_empty() {
            return Ok(RoaringBitmap::new());
        }
        let mut found: Option<RoaringBitmap> = None;
        for postings in &bitmaps {
            let set = self.bitmap(postings)?;
            found = Some(match found {
                Some(found) => found & set,
                None => set,
            });
        }
        let Some(mut found) = found else { return Ok(set_of(bounds)) };
        found.remove_range(..bounds.start);
        found.remove_range(bounds.end..);
        Ok(found)
    }

    /// The names of all labels that a tenant's series have, sorted.
    pub fn label_names(&self, tenant: &TenantId) -> Result<Vec<String>> {
        let Some((names, _)) = self.tenant(tenant) else { return Ok(Vec::new()) };
        self.entries(names)?.map(|entry| Ok(self.checked(entry)?.name.to_owned())).collect()
    }

    /// The names of the labels that these series of a tenant have, sorted.
    pub fn label_names_of(&self, tenant: &TenantId, series: &RoaringBitmap) -> Result<Vec<String>> {
        let Some((names, _)) = self.tenant(tenant) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for entry in self.entries(names)? {
            let entry = self.checked(entry)?;
            if self.touches(&entry.present, series)? {
                found.push(entry.name.to_owned());
            }
        }
        Ok(found)
    }

    /// The values that label `name` has on these series of a tenant, sorted.
    pub fn label_values_of(
        &self,
        tenant: &TenantId,
        name: &str,
        series: &RoaringBitmap,
    ) -> Result<Vec<String>> {
        let mut values = Vec::new();
        self.each_label_value(tenant, name, Some(series), |value| {
            values.push(value.to_owned());
            ControlFlow::Continue(())
        })?;
        Ok(values)
    }

    /// Shows the values that label `name` has on a tenant's series, or on these of them, in order, until that is
    /// enough.
    pub fn each_label_value(
        &self,
        tenant: &TenantId,
        name: &str,
        series: Option<&RoaringBitmap>,
        mut each: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<()> {
        let Some((names, _)) = self.tenant(tenant) else { return Ok(()) };
        let Some(entry) = self.name(names, name)? else { return Ok(()) };
        let values = self.values(&entry)?;
        if let Some(series) = series
            && series.len().saturating_mul(VALUES_PER_SERIES) < values.len() as u64
        {
            let found = self.values_of_few(name, series)?;
            let _ = found.iter().try_for_each(|value| each(value));
            return Ok(());
        }
        let mut stream = values.stream();
        while let Some((value, code)) = stream.next() {
            let postings = self.checked(Postings::decode(code))?;
            let meant = match series {
                Some(series) => self.touches(&postings, series)?,
                None => true,
            };
            if meant && each(self.text(value)?).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Shows all values of a label, with the series that have them.
    pub(super) fn each_posting(
        &self,
        entry: &NameEntry<'_>,
        mut each: impl FnMut(&str, Postings) -> Result<()>,
    ) -> Result<()> {
        let values = self.values(entry)?;
        let mut stream = values.stream();
        while let Some((value, code)) = stream.next() {
            each(self.text(value)?, self.checked(Postings::decode(code))?)?;
        }
        Ok(())
    }

    /// The values that a label has on a few series, by their labels.
    fn values_of_few(&self, name: &str, series: &RoaringBitmap) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        for ordinal in series {
            let labels = self.labels(ordinal)?;
            if let Some(value) = labels.get(name).filter(|value| !found.contains(*value)) {
                found.insert(value.to_owned());
            }
        }
        Ok(found)
    }

    /// Where the tenant's names lie, and all its series.
    fn tenant(&self, tenant: &TenantId) -> Option<(NamesAt, Range<u32>)> {
        let footer = self.footer();
        let at = footer.meta.tenants.binary_search_by(|meta| meta.tenant.cmp(tenant)).ok()?;
        let (meta, names) = (&footer.meta.tenants[at], footer.names[at]);
        Some((names, meta.first..meta.first + meta.series))
    }

    fn entries(&self, at: NamesAt) -> Result<impl Iterator<Item = Result<NameEntry<'_>, Damaged>>> {
        names::entries(self.section(Section::Names)?, at).map_err(|e| self.names_corrupt(e))
    }

    fn names_corrupt(&self, damaged: Damaged) -> StorageError {
        self.index_corrupt(Section::Names, damaged)
    }

    fn checked<T>(&self, outcome: Result<T, Damaged>) -> Result<T> {
        outcome.map_err(|e| self.names_corrupt(e))
    }

    fn name(&self, at: NamesAt, name: &str) -> Result<Option<NameEntry<'_>>> {
        for entry in self.entries(at)? {
            let entry = self.checked(entry)?;
            if entry.name == name {
                return Ok(Some(entry));
            }
            if entry.name > name {
                break;
            }
        }
        Ok(None)
    }

    fn values<'a>(&self, entry: &NameEntry<'a>) -> Result<fst::Map<&'a [u8]>> {
        fst::Map::new(entry.values).map_err(|_| self.names_corrupt(Damaged("values do not read back")))
    }

    fn text<'v>(&self, value: &'v [u8]) -> Result<&'v str> {
        std::str::from_utf8(value).map_err(|_| self.names_corrupt(Damaged("label value is not UTF-8")))
    }

    fn touches(&self, postings: &Postings, series: &RoaringBitmap) -> Result<bool> {
        Ok(match postings {
            Postings::One(ordinal) => series.contains(*ordinal),
            Postings::Run(run) => series.range_cardinality(run.clone()) > 0,
            Postings::Bitmap(_) => !self.bitmap(postings)?.is_disjoint(series),
        })
    }

    /// Which of a few series pass, by their labels.
    fn pass(&self, series: &RoaringBitmap, matcher: &Matcher) -> Result<RoaringBitmap> {
        let mut passed = RoaringBitmap::new();
        for ordinal in series {
            if matcher.matches(self.labels(ordinal)?.get(matcher.name()).unwrap_or_default()) {
                passed.insert(ordinal);
            }
        }
        Ok(passed)
    }

    /// Which of a tenant's series pass.
    fn matching(&self, names: NamesAt, all: &RoaringBitmap, matcher: &Matcher) -> Result<RoaringBitmap> {
        let Some(entry) = self.name(names, matcher.name())? else {
            return Ok(if matcher.matches_empty() { all.clone() } else { RoaringBitmap::new() });
        };
        let lookup = |value: &str| -> Result<RoaringBitmap> {
            if value.is_empty() {
                return Ok(all - self.bitmap(&entry.present)?);
            }
            match self.values(&entry)?.get(value) {
                Some(code) => self.bitmap(&self.checked(Postings::decode(code))?),
                None => Ok(RoaringBitmap::new()),
            }
        };
        match (matcher.op(), matcher.regex()) {
            (MatchOp::Equal, _) => lookup(matcher.value()),
            (MatchOp::NotEqual, _) => Ok(all - lookup(matcher.value())?),
            (MatchOp::Matches, Some(regex)) => self.matching_regex(names, &entry, all, regex),
            (MatchOp::NotMatches, Some(regex)) => Ok(all - self.matching_regex(names, &entry, all, regex)?),
            (MatchOp::Matches | MatchOp::NotMatches, None) => {
                unreachable!("a pattern matcher is only made with its regex")
            }
        }
    }

    fn matching_regex(
        &self,
        at: NamesAt,
        entry: &NameEntry<'_>,
        all: &RoaringBitmap,
        regex: &Regex,
    ) -> Result<RoaringBitmap> {
        if regex.is_match_all() {
            return Ok(all.clone());
        }
        if regex.is_match_non_empty() {
            return self.bitmap(&entry.present);
        }
        let mut found = self.with_value(at, entry, regex)?;
        if regex.is_match("") {
            found |= all - self.bitmap(&entry.present)?;
        }
        Ok(found)
    }

    /// The series with a value that matches.
    fn with_value(&self, at: NamesAt, entry: &NameEntry<'_>, regex: &Regex) -> Result<RoaringBitmap> {
        let values = self.values(entry)?;
        if let Some(texts) = regex.set_matches() {
            let mut set = Union::default();
            for text in texts.iter().filter(|text| !text.is_empty()) {
                if let Some(code) = values.get(text) {
                    set.add(self, code)?;
                }
            }
            return Ok(set.finish());
        }
        let key = (values.len() >= MANY_VALUES).then(|| Key {
            owner: self.owner,
            names: at.offset,
            name: entry.name.into(),
            pattern: regex.as_str().into(),
        });
        if let Some(found) = key.as_ref().and_then(|key| self.cache.matched.get(key)) {
            return Ok((*found).clone());
        }
        let found = self.search(&values, regex)?;
        if let Some(key) = key {
            self.cache.matched.put(key, &Arc::new(found.clone()));
        }
        Ok(found)
    }

    /// The series with a value that matches, found among the values.
    fn search(&self, values: &fst::Map<&[u8]>, regex: &Regex) -> Result<RoaringBitmap> {
        let mut set = Union::default();
        // Making an automaton costs as much as trying some values.
        if values.len() >= MANY_VALUES
            && let Some(walker) = regex.walker()
        {
            let mut stream = values.search(Walk(&walker)).into_stream();
            while let Some((_, code)) = stream.next() {
                set.add(self, code)?;
            }
            return Ok(set.finish());
        }
        let prefix = regex.prefix().as_bytes();
        let mut stream = values.range().ge(prefix).into_stream();
        while let Some((value, code)) = stream.next() {
            if !value.starts_with(prefix) {
                break;
            }
            if regex.is_match(self.text(value)?) {
                set.add(self, code)?;
            }
        }
        Ok(set.finish())
    }
}

/// Series in a row.
fn set_of(row: Range<u32>) -> RoaringBitmap {
    let mut set = RoaringBitmap::new();
    set.insert_range(row);
    set
}

fn common(a: &Range<u32>, b: &Range<u32>) -> Range<u32> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// A pattern as the tree of values is walked by it.
struct Walk<'w>(&'w Walker);

impl Automaton for Walk<'_> {
    type State = Step;

    fn start(&self) -> Step {
        self.0.start()
    }

    fn is_match(&self, step: &Step) -> bool {
        self.0.is_match(*step)
    }

    fn can_match(&self, step: &Step) -> bool {
        self.0.can_match(*step)
    }

    fn accept(&self, step: &Step, byte: u8) -> Step {
        self.0.next(*step, byte)
    }
}

/// Gathers the series of many values, of which most have one series.
#[derive(Default)]
struct Union {
    bitmap: RoaringBitmap,
    ones: Vec<u32>,
}

impl Union {
    fn add(&mut self, part: &Part, code: u64) -> Result<()> {
        match part.checked(Postings::decode(code))? {
            Postings::One(ordinal) => self.ones.push(ordinal),
            Postings::Run(run) => {
                self.bitmap.insert_range(run);
            }
            postings @ Postings::Bitmap(_) => self.bitmap |= part.bitmap(&postings)?,
        }
        Ok(())
    }

    fn finish(mut self) -> RoaringBitmap {
        self.ones.sort_unstable();
        self.bitmap.extend(self.ones);
        self.bitmap
    }
}

fn cost(matcher: &Matcher) -> Cost {
    match matcher.regex() {
        None => Cost::Lookup,
        Some(regex) if regex.is_match_all() || regex.is_match_non_empty() => Cost::Lookup,
        Some(regex) if regex.set_matches().is_some() => Cost::Lookups,
        Some(regex) if !regex.prefix().is_empty() => Cost::Prefix,
        Some(_) => Cost::Scan,
    }
}
