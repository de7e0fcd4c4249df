//! Single turned bits, found by the checksums that they spoil, and set right.
//!
//! A checksum says more than right or wrong. What a turned bit does to a CRC depends on nothing but how far from the end it
//! lies, and for no two places in less than 256 MiB is it the same. So the difference between the checksum that is
//! written and that of what is there names the bit, if it is one. Two bits never look like one, more damage does seldom,
//! and where [`mended`] then still finds something that does not decode, it takes the bit back.
//!
//! ```text
//! trailer ─▶ footer ─▶ checks, index ─▶ data pages      each has its checksum in the one before, or beside it
//! ```

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    super::{
        chunk::bytes::Reader,
        disk::{Disk, Entry, Mapped, ReadFile, WriteFile},
    },
    Damage, Part,
    checks::{self, PIECE},
    footer::{Footer, HEADER, MAGIC, Section, TRAILER, Trailer},
    pages::PAGE_HEADER,
};
use crate::{
    model::{Labels, TenantId},
    storage::{Result, SeriesSamples, StorageError},
};

/// CRC-32C, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What each byte does to a checksum that was zero.
const TABLE: [u32; 256] = table();

/// The byte whose entry in the table has this upper byte; each is the upper byte of one.
const BY_UPPER: [u8; 256] = by_upper();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0_u32;
    while byte < 256 {
        let (mut crc, mut bit) = (byte, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
}

const fn by_upper() -> [u8; 256] {
    let mut places = [0; 256];
    let mut byte = 0_u8;
    loop {
        places[(TABLE[byte as usize] >> 24) as usize] = byte;
        if byte == u8::MAX {
            return places;
        }
        byte += 1;
    }
}

/// In so many bytes no two bits do the same to the checksum.
const MOST: usize = (1 << 28) - 8;

/// Where the one bit is that, turned, changes the checksum of `length` bytes by `difference`: its byte, and a mask.
fn turned_bit(length: usize, difference: u32) -> Option<(usize, u8)> {
    if length > MOST {
        return None;
    }
    let mut left = difference;
    for behind in 0..length {
        let byte = BY_UPPER[(left >> 24) as usize];
        if TABLE[byte as usize] == left && byte.is_power_of_two() {
            return Some((length - 1 - behind, byte));
        }
        // The checksum as it was before the last byte.
        left = (left ^ TABLE[byte as usize]) << 8 | u32::from(byte);
    }
    None
}

/// A bit that is turned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TurnedBit {
    /// The byte's place in the file.
    pub(crate) offset: u64,
    mask: u8,
    /// The stretch of the file whose checksum names it.
    stretch: std::ops::Range<u64>,
}

/// The first error of reading. It says nothing about what lies there: the next who reads may get it.
#[derive(Debug, Default)]
struct Unread(Mutex<Option<io::Error>>);

impl Unread {
    /// Passes an outcome on, and takes note of an error; that a file ends early is no such one.
    fn noting(&self, outcome: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &outcome
            && error.kind() != io::ErrorKind::UnexpectedEof
        {
            self.0.lock().get_or_insert_with(|| match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(error.kind(), error.to_string()),
            });
        }
        outcome
    }

    /// Fails if there was an error, whatever was made of it.
    fn check(&self, path: &Path) -> Result<()> {
        let failed = |error| Err(StorageError::io(format!("reading part {}", path.display()), error));
        self.0.lock().take().map_or(Ok(()), failed)
    }
}

/// A file system with some bits of one file set right. Nothing of that file is mapped, so that a sector that the device
/// does not read is an error and not the end of the process.
#[derive(Debug)]
struct SetRight {
    inner: Arc<dyn Disk>,
    path: PathBuf,
    bits: Arc<Vec<TurnedBit>>,
    unread: Arc<Unread>,
}

#[derive(Debug)]
struct SetRightFile {
    inner: Arc<dyn ReadFile>,
    bits: Arc<Vec<TurnedBit>>,
    unread: Arc<Unread>,
}

impl ReadFile for SetRightFile {
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.unread.noting(self.inner.read_exact_at(into, offset))?;
        for bit in self.bits.iter() {
            let place = bit.offset.checked_sub(offset).and_then(|at| usize::try_from(at).ok());
            if let Some(byte) = place.and_then(|at| into.get_mut(at)) {
                *byte ^= bit.mask;
            }
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}

impl Disk for SetRight {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.inner.create(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.inner.open_write(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        let inner = self.inner.open(path)?;
        if path != self.path {
            return Ok(inner);
        }
        Ok(Arc::new(SetRightFile { inner, bits: Arc::clone(&self.bits), unread: Arc::clone(&self.unread) }))
    }

    fn map(&self, path: &Path, offset: u64, length: usize) -> io::Result<Mapped> {
        let file = self.open(path)?;
        if offset.checked_add(length as u64).is_none_or(|end| file.len().is_ok_and(|len| end > len)) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(Mapped::Bytes(bytes.into()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.hard_link(from, to)
    }

    fn is_one_file(&self, path: &Path, other: &Path) -> io::Result<bool> {
        self.inner.is_one_file(path, other)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.inner.list(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.free_bytes(path)
    }
}

/// A part with all turned bits that its checksums name set right in what is read of it.
#[derive(Debug)]
pub(crate) struct Mended {
    /// The part.
    pub(crate) part: Part,
    /// The bits, which in the file are still turned.
    pub(crate) bits: Vec<TurnedBit>,
    /// What does not read back all the same.
    pub(crate) damage: Vec<Damage>,
    /// How many samples do.
    pub(crate) samples: u64,
    unread: Arc<Unread>,
}

impl Mended {
    /// Shows each series with what of it reads back, in order. After an error of reading it is not known what does.
    pub(crate) fn examine(
        &self,
        each: impl FnMut(&TenantId, &Labels, &SeriesSamples) -> Result<()>,
    ) -> Result<()> {
        let examined = self.part.examine(each);
        self.unread.check(self.part.path())?;
        examined.map(|_| ())
    }
}

/// Opens a part and reads all of it, as if no single bit were turned.
///
/// Damaged is what was read and is wrong. What was not read, whatever the reason, is an error.
pub(crate) fn mended(disk: &Arc<dyn Disk>, path: &Path) -> Result<Mended> {
    let unread = Arc::new(Unread::default());
    let with = |bits: &[TurnedBit]| -> Arc<dyn Disk> {
        let (bits, unread) = (Arc::new(bits.to_vec()), Arc::clone(&unread));
        Arc::new(SetRight { inner: Arc::clone(disk), path: path.to_owned(), bits, unread })
    };
    let open = |bits: &[TurnedBit]| {
        let opened = Part::open_for_facts(&with(bits), path).and_then(|part| {
            let mut count = 0_u64;
            let damage = part.examine(|_, _, samples| {
                count += (samples.timestamps.len() + samples.histograms.len()) as u64;
                Ok(())
            })?;
            Ok((part, damage, count))
        });
        unread.check(path)?;
        opened
    };
    match open(&[]) {
        Ok((part, damage, samples)) if damage.is_empty() => {
            return Ok(Mended { part, bits: Vec::new(), damage, samples, unread });
        }
        Ok(_) | Err(StorageError::Corrupt { .. }) => {}
        Err(other) => return Err(other),
    }
    let found = turned_bits(&with(&[]), path);
    unread.check(path)?;
    let mut bits = found?;
    loop {
        let (part, damage, samples) = open(&bits)?;
        // Where more than a bit is wrong, the bit was not it; what the index says is about all chunks. Without a footer
        // there is nothing.
        let known = |offset| part.begins_a_page(offset) || part.begins_a_bad_section(offset);
        let about_chunks = damage.iter().any(|damage| !known(damage.offset));
        let doubtful = |bit: &TurnedBit| match bit.stretch.start {
            0 => false,
            at if at >= part.footer_at() => false,
            at if at >= part.index_at() => about_chunks,
            _ => damage.iter().any(|damage| bit.stretch.contains(&damage.offset)),
        };
        let before = bits.len();
        bits.retain(|bit| !doubtful(bit));
        if bits.len() == before {
            return Ok(Mended { part, bits, damage, samples, unread });
        }
    }
}

/// The bits of a part that its checksums say are turned, one in each thing that has a checksum.
fn turned_bits(disk: &Arc<dyn Disk>, path: &Path) -> Result<Vec<TurnedBit>> {
    let io = |e| StorageError::io(format!("reading part {}", path.display()), e);
    let file = disk.open(path).map_err(io)?;
    let length = file.len().map_err(io)?;
    let mut bits = Vec::new();
    let Some(end) = length.checked_sub(TRAILER as u64).filter(|end| *end >= HEADER.len() as u64) else {
        return Ok(bits);
    };
    // What cannot be read has no bits that could be set right.
    let read = |at: u64, length: u64| {
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        file.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    };
    let Some(header) = read(0, HEADER.len() as u64) else { return Ok(bits) };
    known(&mut bits, &header, &HEADER, 0);
    let Some(mut trailer) = read(end, TRAILER as u64) else { return Ok(bits) };
    let magic_at = TRAILER - MAGIC.len();
    known(&mut bits, &trailer[magic_at..], MAGIC, end + magic_at as u64);
    trailer[magic_at..].copy_from_slice(MAGIC);
    let checked = trailer[36..40].try_into().map_or(0, u32::from_le_bytes);
    note(&mut bits, &mut trailer, 0..36, (end, Some(36)), checked);
    let sound = <[u8; TRAILER]>::try_from(&trailer[..]).ok();
    let Some(trailer) = sound.and_then(|bytes| Trailer::decode(&bytes).ok()) else { return Ok(bits) };
    let fits = trailer.footer.checked_add(u64::from(trailer.footer_length)) == Some(end);
    if !fits || trailer.index > trailer.footer {
        return Ok(bits);
    }
    let Some(mut footer) = read(trailer.footer, u64::from(trailer.footer_length)) else { return Ok(bits) };
    let all = 0..footer.len();
    note(&mut bits, &mut footer, all, (trailer.footer, None), trailer.footer_crc);
    let Ok(footer) = Footer::decode(&footer, length) else { return Ok(bits) };
    let (pages, checks) =
        (footer.sections[Section::Pages as usize], footer.sections[Section::Checks as usize]);
    let mut next = trailer.index;
    for at in &footer.sections {
        if at.offset != next || at.length > trailer.footer - next {
            return Ok(bits);
        }
        next += at.length;
    }
    let Some(mut sums) = read(checks.offset, checks.length) else { return Ok(bits) };
    let all = 0..sums.len();
    note(&mut bits, &mut sums, all, (checks.offset, None), checks.crc);
    let Some(mut index) = read(trailer.index, checks.offset - trailer.index) else { return Ok(bits) };
    let length = index.len();
    let sums = (crc32c::crc32c(&sums) == checks.crc).then(|| checks::sums(&sums, length)).flatten();
    if let Some(sums) = sums {
        for ((at, piece), sum) in (trailer.index..).step_by(PIECE).zip(index.chunks_mut(PIECE)).zip(sums) {
            let all = 0..piece.len();
            note(&mut bits, piece, all, (at, None), sum);
        }
    } else {
        for at in &footer.sections[..Section::Checks as usize] {
            let start = usize::try_from(at.offset - trailer.index).unwrap_or(length);
            let end = start + usize::try_from(at.length).unwrap_or(length - start);
            let section = &mut index[start..end];
            let all = 0..section.len();
            note(&mut bits, section, all, (at.offset, None), at.crc);
        }
    }
    let pages = &index[..usize::try_from(pages.length).unwrap_or(0)];
    for (number, entry) in (0_u32..).zip(pages.chunks_exact(12)) {
        let mut reader = Reader::new(entry);
        let (Ok(at), Ok(payload)) = (reader.u64(), reader.u32()) else { continue };
        let whole = PAGE_HEADER as u64 + u64::from(payload);
        if at.checked_add(whole).is_none_or(|page_end| page_end > trailer.index) {
            continue;
        }
        let Some(page) = read(at, whole) else { continue };
        // Without its checksum, which stands between the two things that it is of.
        let sealed = [&page[..4], &page[PAGE_HEADER..], &number.to_le_bytes()].concat();
        let checked = page[4..PAGE_HEADER].try_into().map_or(0, u32::from_le_bytes);
        let difference = crc32c::crc32c(&sealed) ^ checked;
        let found = match difference {
            0 => None,
            one if one.is_power_of_two() => {
                let byte = one.trailing_zeros() / 8;
                u8::try_from(one >> (byte * 8)).ok().map(|mask| (4 + byte as usize, mask))
            }
            _ => turned_bit(sealed.len(), difference)
                .map(|(place, mask)| if place < 4 { (place, mask) } else { (place + 4, mask) })
                .filter(|(place, _)| *place < page.len()),
        };
        bits.extend(found.map(|(place, mask)| TurnedBit {
            offset: at + place as u64,
            mask,
            stretch: at..at + whole,
        }));
    }
    Ok(bits)
}

/// Sets right what differs from bytes that are the same in every part.
fn known(bits: &mut Vec<TurnedBit>, is: &[u8], should: &[u8], at: u64) {
    let stretch = at..at + should.len() as u64;
    for (offset, (is, should)) in (at..).zip(is.iter().zip(should)) {
        if is != should {
            bits.push(TurnedBit { offset, mask: is ^ should, stretch: stretch.clone() });
        }
    }
}

/// Sets the bit right that spoils the checksum of `checked` bytes of what lies at `at` in the file. The checksum itself
/// stands `at.1` behind that, if it can be the one that is spoiled.
fn note(
    bits: &mut Vec<TurnedBit>,
    bytes: &mut [u8],
    checked: std::ops::Range<usize>,
    (at, crc_at): (u64, Option<usize>),
    crc: u32,
) {
    let difference = crc32c::crc32c(&bytes[checked.clone()]) ^ crc;
    let found = match (difference, crc_at) {
        (0, _) => None,
        (one, Some(crc_at)) if one.is_power_of_two() => {
            let byte = one.trailing_zeros() / 8;
            u8::try_from(one >> (byte * 8)).ok().map(|mask| (crc_at + byte as usize, mask))
        }
        _ => turned_bit(checked.len(), difference).map(|(place, mask)| (checked.start + place, mask)),
    };
    if let Some((place, mask)) = found {
        bytes[place] ^= mask;
        bits.push(TurnedBit { offset: at + place as u64, mask, stretch: at..at + bytes.len() as u64 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turned_bit_is_found_wherever_it_is() {
        let good: Vec<u8> = (0..3000_u32).map(|i| ((i * i) >> 3).to_le_bytes()[0]).collect();
        let crc = crc32c::crc32c(&good);
        for place in 0..good.len() {
            let mask = 1 << (place % 8);
            let mut bad = good.clone();
            bad[place] ^= mask;
            assert_eq!(turned_bit(bad.len(), crc32c::crc32c(&bad) ^ crc), Some((place, mask)));
        }
    }

    #[test]
    fn two_turned_bits_are_not_taken_for_one() {
        let good = vec![7_u8; 500];
        let crc = crc32c::crc32c(&good);
        for first in 0..500 {
            for second in [first + 1, first + 77, first + 300] {
                let mut bad = good.clone();
                bad[first] ^= 4;
                bad[second % 500] ^= 0x40;
                assert_eq!(turned_bit(bad.len(), crc32c::crc32c(&bad) ^ crc), None, "{first} {second}");
            }
        }
    }
}
