//! How a part is known again without being read: what its trailer says of its bytes.

use std::{fmt, path::Path};

use super::{
    super::disk::Disk,
    footer::{TRAILER, Trailer},
};
use crate::storage::{Result, StorageError};

/// The checksums in a part's trailer. Two parts of one size and one name with the same are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The CRC32C of the bytes before the trailer.
    pub total_crc: u32,
    /// The CRC32C of the footer.
    pub footer_crc: u32,
    /// How many bytes lie before the trailer.
    pub covers: u64,
}

impl Seal {
    /// Reads the end of a part's file.
    pub fn read(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let io = |e| StorageError::io(format!("reading the end of {}", path.display()), e);
        let corrupt = |offset, detail: &str| StorageError::Corrupt {
            path: path.to_owned(),
            offset,
            detail: detail.to_owned(),
        };
        let file = disk.open(path).map_err(io)?;
        let length = file.len().map_err(io)?;
        let covers =
            length.checked_sub(TRAILER as u64).ok_or_else(|| corrupt(0, "file is too short to be a part"))?;
        let mut trailer = [0; TRAILER];
        file.read_exact_at(&mut trailer, covers).map_err(io)?;
        let trailer = Trailer::decode(&trailer).map_err(|e| corrupt(covers, e.0))?;
        Ok(Self { total_crc: trailer.total_crc, footer_crc: trailer.footer_crc, covers })
    }
}

impl fmt::Display for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}{:08x}", self.total_crc, self.footer_crc)
    }
}
