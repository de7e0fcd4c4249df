//! What stands at the end of a part: the footer, and the trailer that finds it.

use super::{
    super::chunk::{
        Damaged,
        bytes::{Reader, put_length, put_text, put_varint},
    },
    PartId, PartMeta, TenantMeta,
};
use crate::model::{TenantId, TimeRange, Timestamp};

/// The first bytes of a part: magic, format, zero.
pub(super) const HEADER: [u8; 16] = *b"LUMIPART\x03\0\0\0\0\0\0\0";

/// The length of the trailer.
pub(super) const TRAILER: usize = 48;

/// The last bytes of a part.
pub(super) const MAGIC: &[u8; 8] = b"LUMIPEND";
const FORMAT: u32 = 3;

/// What is said of a part that is whole, and of a version that is not ours.
pub(super) const UNKNOWN_FORMAT: Damaged = Damaged("part is of a format this version does not know");

/// The index sections, in the order they lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Section {
    Pages = 0,
    Times = 1,
    Series = 2,
    Labels = 3,
    Names = 4,
    Postings = 5,
    /// Checksums of the pieces of those before it.
    Checks = 6,
}

/// How many sections there are.
pub(super) const SECTIONS: usize = Section::ALL.len();

impl Section {
    /// In their order.
    pub(super) const ALL: [Self; 7] =
        [Self::Pages, Self::Times, Self::Series, Self::Labels, Self::Names, Self::Postings, Self::Checks];
}

/// Where a section lies in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SectionAt {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) crc: u32,
}

/// Where the label names of a tenant lie in the names section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NamesAt {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) count: u32,
}

/// All that the footer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) meta: PartMeta,
    pub(super) sections: [SectionAt; SECTIONS],
    /// One for each tenant of `meta`.
    pub(super) names: Vec<NamesAt>,
}

impl Footer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let meta = &self.meta;
        out.extend_from_slice(&meta.id.0.to_le_bytes());
        out.extend_from_slice(&meta.covers_wal.to_le_bytes());
        put_length(&mut out, meta.replaces.len());
        for id in &meta.replaces {
            out.extend_from_slice(&id.0.to_le_bytes());
        }
        out.extend_from_slice(&meta.downsampled.to_le_bytes());
        put_varint(&mut out, meta.widest_gap);
        put_varint(&mut out, u64::from(meta.series));
        put_varint(&mut out, meta.samples);
        put_varint(&mut out, meta.histograms);
        put_range(&mut out, meta.range);
        for section in &self.sections {
            put_varint(&mut out, section.offset);
            put_varint(&mut out, section.length);
            out.extend_from_slice(&section.crc.to_le_bytes());
        }
        put_length(&mut out, meta.tenants.len());
        for (tenant, names) in meta.tenants.iter().zip(&self.names) {
            put_text(&mut out, tenant.tenant.as_str());
            put_varint(&mut out, u64::from(tenant.first));
            put_varint(&mut out, u64::from(tenant.series));
            put_varint(&mut out, tenant.samples);
            put_varint(&mut out, tenant.histograms);
            put_range(&mut out, tenant.range);
            put_varint(&mut out, names.offset);
            put_varint(&mut out, names.length);
            put_varint(&mut out, u64::from(names.count));
        }
        out
    }

    pub(super) fn decode(bytes: &[u8], file_length: u64) -> Result<Self, Damaged> {
        let mut reader = Reader::new(bytes);
        let id = PartId(reader.u64()?);
        let covers_wal = reader.u64()?;
        let mut replaces = Vec::new();
        for _ in 0..reader.count(8)? {
            replaces.push(PartId(reader.u64()?));
        }
        let (downsampled, widest_gap) = (reader.u64()?, reader.varint()?);
        let series = reader.varint_u32()?;
        let (samples, histograms) = (reader.varint()?, reader.varint()?);
        let range = take_range(&mut reader)?;
        let mut sections = [SectionAt::default(); SECTIONS];
        for section in &mut sections {
            *section = SectionAt { offset: reader.varint()?, length: reader.varint()?, crc: reader.u32()? };
        }
        let (mut tenants, mut names) = (Vec::<TenantMeta>::new(), Vec::new());
        let mut next = 0_u32;
        for _ in 0..reader.count(9)? {
            let tenant = TenantId::new(reader.text()?).map_err(|_| Damaged("tenant's name is not one"))?;
            if tenants.last().is_some_and(|last| last.tenant >= tenant) {
                return Err(Damaged("tenants are not in order"));
            }
            let meta = TenantMeta {
                tenant,
                first: reader.varint_u32()?,
                series: reader.varint_u32()?,
                samples: reader.varint()?,
                histograms: reader.varint()?,
                range: take_range(&mut reader)?,
            };
            if meta.first != next {
                return Err(Damaged("tenant's series do not follow the tenant's before"));
            }
            next = next.checked_add(meta.series).ok_or(Damaged("more series than a part can have"))?;
            tenants.push(meta);
            names.push(NamesAt {
                offset: reader.varint()?,
                length: reader.varint()?,
                count: reader.varint_u32()?,
            });
        }
        if next != series || reader.remaining() != 0 {
            return Err(Damaged("footer does not add up"));
        }
        let bytes = file_length;
        let meta = PartMeta {
            id,
            covers_wal,
            replaces,
            series,
            samples,
            histograms,
            range,
            downsampled,
            widest_gap,
            bytes,
            tenants,
        };
        Ok(Self { meta, sections, names })
    }
}

fn put_range(out: &mut Vec<u8>, range: Option<TimeRange>) {
    match range {
        None => out.push(0),
        Some(range) => {
            out.push(1);
            out.extend_from_slice(&range.start().0.to_le_bytes());
            out.extend_from_slice(&range.end().0.to_le_bytes());
        }
    }
}

fn take_range(reader: &mut Reader<'_>) -> Result<Option<TimeRange>, Damaged> {
    match reader.u8()? {
        0 => Ok(None),
        1 => {
            let (start, end) = (Timestamp(reader.i64()?), Timestamp(reader.i64()?));
            TimeRange::new(start, end).map(Some).ok_or(Damaged("range ends before it starts"))
        }
        _ => Err(Damaged("range is neither there nor not")),
    }
}

/// The fixed end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    /// Where the pages end and the index starts.
    pub(super) index: u64,
    pub(super) footer: u64,
    pub(super) footer_length: u32,
    pub(super) footer_crc: u32,
    /// Of all bytes before the trailer.
    pub(super) total_crc: u32,
}

impl Trailer {
    pub(super) fn encode(&self) -> [u8; TRAILER] {
        let mut out = [0; TRAILER];
        out[..8].copy_from_slice(&self.index.to_le_bytes());
        out[8..16].copy_from_slice(&self.footer.to_le_bytes());
        out[16..20].copy_from_slice(&self.footer_length.to_le_bytes());
        out[20..24].copy_from_slice(&self.footer_crc.to_le_bytes());
        out[24..28].copy_from_slice(&self.total_crc.to_le_bytes());
        out[28..32].copy_from_slice(&FORMAT.to_le_bytes());
        let crc = crc32c::crc32c(&out[..36]);
        out[36..40].copy_from_slice(&crc.to_le_bytes());
        out[40..].copy_from_slice(MAGIC);
        out
    }

    pub(super) fn decode(bytes: &[u8; TRAILER]) -> Result<Self, Damaged> {
        if &bytes[40..] != MAGIC {
            return Err(Damaged("file does not end like a part"));
        }
        let mut reader = Reader::new(bytes);
        let trailer = Self {
            index: reader.u64()?,
            footer: reader.u64()?,
            footer_length: reader.u32()?,
            footer_crc: reader.u32()?,
            total_crc: reader.u32()?,
        };
        let format = reader.u32()?;
        let zero = reader.u32()?;
        if reader.u32()? != crc32c::crc32c(&bytes[..36]) {
            return Err(Damaged("trailer's checksum is wrong"));
        }
        if format != FORMAT || zero != 0 {
            return Err(UNKNOWN_FORMAT);
        }
        Ok(trailer)
    }
}
