//! Finds again what the index does not say any more, from what else there is.
//!
//! * A page tells its own number, by its checksum: pages that are not known lie between those that are.
//! * Names and postings say of every value which series have it, and so of every series which values it has.

use hashbrown::HashMap;

use super::{
    footer::{HEADER, Section},
    names::{self, Postings},
    pages::{PAGE_HEADER, PageAt, numbered},
    reader::Part,
};
use crate::{
    model::{Labels, TenantId},
    storage::Result,
};

/// The labels of a tenant's series, by its names and postings.
#[derive(Debug)]
pub(super) struct LabelsByNames {
    names: Vec<String>,
    /// Each with the number of its name.
    values: Vec<(u32, String)>,
    /// A series, and the number of a value it has; sorted.
    has: Vec<(u32, u32)>,
}

impl LabelsByNames {
    /// The labels of a series; none if nothing leads to it.
    pub(super) fn of(&self, ordinal: u32) -> Option<Labels> {
        let first = self.has.partition_point(|(series, _)| *series < ordinal);
        let its = self.has[first..].iter().take_while(|(series, _)| *series == ordinal);
        let mut pairs = Vec::new();
        for (_, value) in its {
            let (name, value) = self.values.get(*value as usize)?;
            pairs.push((self.names.get(*name as usize)?, value));
        }
        if pairs.is_empty() { None } else { Labels::from_pairs(pairs).ok() }
    }
}

impl Part {
    /// The labels of all of a tenant's series, if names and postings read back.
    pub(super) fn labels_by_names(&self, tenant: &TenantId) -> Result<LabelsByNames> {
        let section = self.section(Section::Names)?;
        self.section(Section::Postings)?;
        let wrong = |e| self.index_corrupt(Section::Names, e);
        let mut all = LabelsByNames { names: Vec::new(), values: Vec::new(), has: Vec::new() };
        let footer = self.footer();
        let of = footer.meta.tenants.iter().zip(&footer.names).find(|(meta, _)| meta.tenant == *tenant);
        let Some((_, at)) = of else { return Ok(all) };
        for entry in names::entries(section, *at).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            let name = u32::try_from(all.names.len()).unwrap_or(u32::MAX);
            all.names.push(entry.name.to_owned());
            self.each_posting(&entry, |value, postings| {
                let number = u32::try_from(all.values.len()).unwrap_or(u32::MAX);
                all.values.push((name, value.to_owned()));
                match postings {
                    Postings::One(one) => all.has.push((one, number)),
                    Postings::Run(run) => all.has.extend(run.map(|series| (series, number))),
                    bitmap @ Postings::Bitmap(_) => {
                        all.has.extend(self.bitmap(&bitmap)?.iter().map(|series| (series, number)));
                    }
                }
                Ok(())
            })?;
        }
        all.has.sort_unstable();
        Ok(all)
    }

    /// Looks for pages that the index does not tell of: between those of which it does.
    pub(super) fn look_for_pages(&self, count: u32) -> Result<HashMap<u32, PageAt>> {
        let (mut taken, mut lost) = (Vec::new(), Vec::new());
        for page in 0..count {
            match self.page_at(page) {
                Ok(PageAt { offset, length }) => {
                    taken.push((offset, offset.saturating_add(PAGE_HEADER as u64 + u64::from(length))));
                }
                Err(_) => lost.push(page),
            }
        }
        taken.sort_unstable();
        let (mut found, mut next, mut at) = (HashMap::new(), 0, HEADER.len() as u64);
        for (start, end) in taken.into_iter().chain([(self.index_at(), self.index_at())]) {
            // Where one is damaged, its length may be right all the same.
            while let Some((length, crc, without_number)) = self.page_between(at, start)? {
                let is =
                    |i: &usize| numbered(without_number, lost[*i]) == crc && !found.contains_key(&lost[*i]);
                // They lie in order.
                if let Some(i) = (next..lost.len()).chain(0..next).find(is) {
                    found.insert(lost[i], PageAt { offset: at, length });
                    next = i + 1;
                }
                at += PAGE_HEADER as u64 + u64::from(length);
            }
            at = at.max(end);
        }
        Ok(found)
    }

    /// What lies here up to there, if it can be a page: its length, its checksum, and what that is without its number.
    fn page_between(&self, at: u64, end: u64) -> Result<Option<(u32, u32, u32)>> {
        let room = end.checked_sub(at).and_then(|room| room.checked_sub(PAGE_HEADER as u64));
        let Some(room) = room else { return Ok(None) };
        let mut header = [0; PAGE_HEADER];
        self.read_raw(&mut header, at)?;
        let [a, b, c, d, crc @ ..] = header;
        let length = u32::from_le_bytes([a, b, c, d]);
        if u64::from(length) > room {
            return Ok(None);
        }
        let mut payload = vec![0; length as usize];
        self.read_raw(&mut payload, at + PAGE_HEADER as u64)?;
        let without_number = crc32c::crc32c_append(crc32c::crc32c(&header[..4]), &payload);
        Ok(Some((length, u32::from_le_bytes(crc), without_number)))
    }
}
