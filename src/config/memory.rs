//! How much memory the process plans with.

use super::{ByteSize, parse::sized, reader::Reader};

/// How much memory the process plans with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// About the bytes that samples in memory, pages of parts and queries may have together; none is a part of what
    /// the process may have.
    pub limit: Option<ByteSize>,
}

pub(super) fn memory(keys: &mut Reader<'_>) -> Memory {
    Memory {
        limit: keys.get("memory.limit", "auto", |v| match v.as_str() {
            Some("auto") => Ok(None),
            _ => sized(ByteSize(32 << 20), ByteSize(u64::MAX >> 1))(v).map(Some),
        }),
    }
}
