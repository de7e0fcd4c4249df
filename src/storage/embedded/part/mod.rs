//! Sealed samples: immutable, self-describing files, one or more per UTC day.
//!
//! A [`PartWriter`] is given series in order and writes one file; a [`Part`] opens it and finds series by
//! their labels and samples by series. The format is drawn in `schema/disk/part.md`.
//!
//! ```text
//! pages of samples │ pages, times, series, labels, names, postings, checks │ footer │ trailer
//! └─ read by need ─┘ └────── mapped, each checked when it is first used ────┘ └ checked at open ┘
//! ```
//!
//! * Series are sorted by tenant and labels and numbered in that order, so that neighbours compress, a
//!   metric is one run of numbers, and an answer in number order is an answer in label order.
//! * A time column is stored once per part however many series share it, and so are values that are the same.
//! * A bucket of a histogram is what it counts more than another one (`families`), which is read with it (`bases`).
//! * Samples that were downsampled have a second chunk, which says what lay between them.
//! * Every byte is under a checksum. A damaged page costs the series that lie on it or stand on what does, a damaged piece of
//!   the index (`checks`) those that it tells of, nothing else.
//! * The footer says what the part covers and replaces: the catalog can be rebuilt from it.
//!
//! What is written is `<path>.tmp` until it is durable, so a file with a part's name is a whole part.

mod bases;
mod bits;
mod checks;
mod copies;
mod families;
mod find;
mod footer;
mod groups;
mod inverse;
mod matched;
mod names;
mod pages;
mod reader;
mod seal;
mod writer;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::model::{Millis, TenantId, TimeRange, Timestamp};

pub(crate) use bits::{Mended, mended};
#[cfg(test)]
pub(super) use footer::Section;
pub use pages::PageCache;
pub use reader::{Damage, Part, PartSeries};
pub use seal::Seal;
pub use writer::PartWriter;

/// Which part. A later flush or merge has a greater id, and its samples win over those of lesser ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartId(pub u64);

/// How the name of a part's file ends.
pub const PART_SUFFIX: &str = ".part";

/// How the name of a file ends that is being written. What has it at the start is waste.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

impl PartId {
    /// The name of the part's file.
    pub fn file_name(self) -> String {
        format!("{:016x}{PART_SUFFIX}", self.0)
    }

    /// The part whose file has this name.
    pub fn from_file_name(name: &str) -> Option<Self> {
        let digits = name.strip_suffix(PART_SUFFIX).filter(|digits| digits.len() == 16)?;
        u64::from_str_radix(digits, 16).ok().map(Self).filter(|id| id.file_name() == name)
    }

    /// Where the part lies whose samples are of the day that `at` is in.
    pub fn path(self, parts: &Path, at: Timestamp) -> PathBuf {
        parts.join(day_directory(at)).join(self.file_name())
    }
}

impl fmt::Display for PartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The name of the directory of a UTC day: `yyyymmdd`, and `day<number>` beyond the calendar.
pub fn day_directory(at: Timestamp) -> String {
    let midnight = at.day().checked_mul(Millis::DAY.0);
    match midnight.and_then(|midnight| jiff::Timestamp::from_millisecond(midnight).ok()) {
        Some(midnight) => {
            let date = midnight.to_zoned(jiff::tz::TimeZone::UTC).date();
            if date.year() >= 0 {
                return format!("{:04}{:02}{:02}", date.year(), date.month(), date.day());
            }
            format!("day{}", at.day())
        }
        None => format!("day{}", at.day()),
    }
}

/// What a part holds and what it stands for; kept in its footer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartMeta {
    /// Which part it is.
    pub id: PartId,
    /// The log position up to which everything in this part's range is in parts.
    pub covers_wal: u64,
    /// The parts that this one was merged from and stands for.
    pub replaces: Vec<PartId>,
    /// Series of all tenants.
    pub series: u32,
    /// Float samples.
    pub samples: u64,
    /// Histogram samples.
    pub histograms: u64,
    /// Its first and last sample's time; none if it is empty.
    pub range: Option<TimeRange>,
    /// Which steps of downsampling its samples have been through, by a mark; 0 is none.
    pub downsampled: u64,
    /// How many milliseconds the samples are apart at most that a gap lies between; 0 if there are no gaps.
    pub widest_gap: u64,
    /// The file's size.
    pub bytes: u64,
    /// The tenants in it, sorted.
    pub tenants: Vec<TenantMeta>,
}

impl PartMeta {
    /// What the part holds of a tenant.
    pub fn tenant(&self, tenant: &TenantId) -> Option<&TenantMeta> {
        let found = self.tenants.binary_search_by(|meta| meta.tenant.cmp(tenant)).ok()?;
        self.tenants.get(found)
    }
}

/// What a part holds of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantMeta {
    /// Whose it is.
    pub tenant: TenantId,
    /// The ordinal of the tenant's first series.
    pub first: u32,
    /// The tenant's series, whose ordinals follow the first.
    pub series: u32,
    /// Float samples.
    pub samples: u64,
    /// Histogram samples.
    pub histograms: u64,
    /// The first and last sample's time.
    pub range: Option<TimeRange>,
}

/// What a part's writer knows of it besides its samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartFacts {
    /// Which part it is.
    pub id: PartId,
    /// The log position up to which everything in this part's range is in parts.
    pub covers_wal: u64,
    /// The parts that this one was merged from and stands for.
    pub replaces: Vec<PartId>,
    /// Which steps of downsampling its samples have been through, by a mark; 0 is none.
    pub downsampled: u64,
}

#[cfg(test)]
mod bucket_tests;
#[cfg(test)]
mod index_tests;
#[cfg(test)]
mod open_tests;
#[cfg(test)]
mod tests;
