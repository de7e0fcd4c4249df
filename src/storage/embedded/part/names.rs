//! Which series have which label: for each name an FST from values to postings.
//!
//! Postings are a `u64`: mostly a single ordinal or a run of them, which a metric's name gives because of
//! the series' order, and else where a roaring bitmap lies.

use std::{collections::BTreeMap, ops::RangeInclusive};

use hashbrown::HashMap;
use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::{
    super::chunk::{
        Damaged,
        bytes::{Reader, put_length, put_text, put_varint},
    },
    footer::NamesAt,
};
use crate::model::Labels;

/// Ordinals must fit 31 bits, so that a run fits a `u64` with its tag.
pub(super) const MAX_SERIES: u32 = 1 << 31;

/// A set of ordinals, or where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Postings {
    /// A bitmap at this offset of the postings section.
    Bitmap(u64),
    /// One series.
    One(u32),
    /// Series in a row.
    Run(RangeInclusive<u32>),
}

impl Postings {
    fn encode(&self) -> u64 {
        match self {
            Self::Bitmap(offset) => *offset,
            Self::One(ordinal) => 1 << 62 | u64::from(*ordinal),
            Self::Run(run) => 2 << 62 | u64::from(*run.start()) << 31 | u64::from(run.end() - run.start()),
        }
    }

    pub(super) fn decode(code: u64) -> Result<Self, Damaged> {
        let low31 = |bits: u64| u32::try_from(bits & u64::from(MAX_SERIES - 1)).expect("31 bits");
        match code >> 62 {
            0 => Ok(Self::Bitmap(code)),
            1 => Ok(Self::One(low31(code))),
            2 => {
                let first = low31(code >> 31);
                let last = first.checked_add(low31(code)).ok_or(Damaged("run of postings has no end"))?;
                Ok(Self::Run(first..=last))
            }
            _ => Err(Damaged("postings are of an unknown kind")),
        }
    }
}

/// A label name of one tenant.
#[derive(Clone, Debug)]
pub(super) struct NameEntry<'a> {
    pub(super) name: &'a str,
    /// From values to postings.
    pub(super) values: &'a [u8],
    /// The series that have the label, whatever its value.
    pub(super) present: Postings,
}

/// Reads a tenant's names, sorted.
pub(super) fn entries(
    section: &[u8],
    at: NamesAt,
) -> Result<impl Iterator<Item = Result<NameEntry<'_>, Damaged>>, Damaged> {
    let mut reader = Reader::new(slice(section, at.offset, at.length)?);
    Ok((0..at.count).map(move |_| {
        let name = reader.text()?;
        let (offset, length) = (reader.varint()?, reader.varint()?);
        let present = Postings::decode(reader.varint()?)?;
        Ok(NameEntry { name, values: slice(section, offset, length)?, present })
    }))
}

/// A piece of a section, if it lies within.
pub(super) fn slice(section: &[u8], offset: u64, length: u64) -> Result<&[u8], Damaged> {
    let bounds = offset
        .checked_add(length)
        .and_then(|end| Some(usize::try_from(offset).ok()?..usize::try_from(end).ok()?));
    bounds.and_then(|bounds| section.get(bounds)).ok_or(Damaged("piece lies outside its section"))
}

/// Ordinals as they come, rising.
#[derive(Debug)]
enum Ordinals {
    Few(SmallVec<[u32; 4]>),
    Many(RoaringBitmap),
}

/// More ordinals than this are a bitmap, in which each takes a quarter to a half of the room.
const FEW: usize = 64;

impl Ordinals {
    fn push(&mut self, ordinal: u32) {
        match self {
            Self::Few(few) if few.len() < FEW => few.push(ordinal),
            Self::Few(few) => {
                let mut many = bitmap(few);
                many.insert(ordinal);
                *self = Self::Many(many);
            }
            Self::Many(many) => many.try_push(ordinal).expect("ordinals rise"),
        }
    }
}

fn bitmap(rising: &[u32]) -> RoaringBitmap {
    RoaringBitmap::from_sorted_iter(rising.iter().copied()).expect("ordinals rise")
}

type Values = HashMap<Box<str>, Ordinals, foldhash::fast::RandomState>;

/// Collects the labels of one tenant's series after the other's.
#[derive(Debug, Default)]
pub(super) struct NamesWriter {
    /// Of the present tenant.
    names: BTreeMap<Box<str>, Values>,
    /// The names section so far.
    pub(super) section: Vec<u8>,
    /// The postings section so far.
    pub(super) postings: Vec<u8>,
}

impl NamesWriter {
    /// Notes the labels of the next series.
    pub(super) fn add(&mut self, labels: &Labels, ordinal: u32) {
        for (name, value) in labels {
            if !self.names.contains_key(name) {
                self.names.insert(Box::from(name), Values::default());
            }
            let values = self.names.get_mut(name).expect("it was put in if it was missing");
            if let Some(ordinals) = values.get_mut(value) {
                ordinals.push(ordinal);
            } else {
                values.insert(Box::from(value), Ordinals::Few(SmallVec::from_slice(&[ordinal])));
            }
        }
    }

    /// Writes what was collected of the present tenant: where its names lie.
    pub(super) fn finish_tenant(&mut self) -> Result<NamesAt, fst::Error> {
        let mut run = Vec::new();
        let count = self.names.len();
        for (name, values) in std::mem::take(&mut self.names) {
            let mut values: Vec<(Box<str>, Ordinals)> = values.into_iter().collect();
            values.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            let mut map = fst::MapBuilder::memory();
            let (mut present, mut ones) = (RoaringBitmap::new(), Vec::new());
            for (value, ordinals) in values {
                let several = match ordinals {
                    // Where each series has a value of its own, sets of one would take most of the time.
                    Ordinals::Few(few) if few.len() == 1 => Err(few[0]),
                    Ordinals::Few(few) => Ok(bitmap(&few)),
                    Ordinals::Many(many) => Ok(many),
                };
                let postings = match several {
                    Ok(several) => {
                        present |= &several;
                        self.put_postings(several)
                    }
                    Err(one) => {
                        ones.push(one);
                        Postings::One(one)
                    }
                };
                map.insert(value.as_bytes(), postings.encode())?;
            }
            ones.sort_unstable();
            present.extend(ones);
            let present = self.put_postings(present).encode();
            let map = map.into_inner()?;
            put_text(&mut run, &name);
            put_length(&mut run, self.section.len());
            put_length(&mut run, map.len());
            put_varint(&mut run, present);
            self.section.extend_from_slice(&map);
        }
        let at = NamesAt {
            offset: self.section.len() as u64,
            length: run.len() as u64,
            count: u32::try_from(count)
                .map_err(|_| fst::Error::Io(super::pages::too_large("label names")))?,
        };
        self.section.extend_from_slice(&run);
        Ok(at)
    }

    fn put_postings(&mut self, mut bitmap: RoaringBitmap) -> Postings {
        let (Some(first), Some(last)) = (bitmap.min(), bitmap.max()) else {
            unreachable!("a value is only there because a series has it");
        };
        if first == last {
            return Postings::One(first);
        }
        if u64::from(last - first) + 1 == bitmap.len() {
            return Postings::Run(first..=last);
        }
        bitmap.optimize();
        let offset = self.postings.len() as u64;
        bitmap.serialize_into(&mut self.postings).expect("memory takes all that is written");
        Postings::Bitmap(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postings_come_back() {
        let last = MAX_SERIES - 1;
        for postings in [
            Postings::Bitmap(0),
            Postings::Bitmap(1 << 40),
            Postings::One(0),
            Postings::One(last),
            Postings::Run(0..=last),
            Postings::Run(last - 1..=last),
        ] {
            assert_eq!(Postings::decode(postings.encode()), Ok(postings));
        }
        assert!(Postings::decode(u64::MAX).is_err());
    }
}
