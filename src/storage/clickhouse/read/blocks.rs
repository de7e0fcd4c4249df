//! Samples as they come over the wire: columns of rows in key order, in blocks.
//!
//! Of the forms a server can answer in, this one costs it least, and nobody has to sort: read in the
//! order of the key, rows of one series and bucket of time stand together, by time. In blocks of columns
//! (the `Native` format) they compress to what arrays would, and are copied here, not parsed. Grouping them on
//! the server takes longer, and its groups come in no promised order.
//!
//! ```text
//! ┌─────────┬──────┬───────────────────────┬───────────────────────┬───
//! │ columns │ rows │ name, type, rows of it │ name, type, rows of it │ …   and the next block
//! └─────────┴──────┴───────────────────────┴───────────────────────┴───
//! ```

use super::super::rowbinary::{Incomplete, Reader};

/// Columns of some rows: `mid`, `sid`, `ts`, `value` and, if asked for, `start_ts`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Block {
    pub(super) mids: Vec<u64>,
    pub(super) sids: Vec<u64>,
    pub(super) timestamps: Vec<i64>,
    pub(super) values: Vec<f64>,
    /// Empty if none of them is known.
    pub(super) starts: Vec<i64>,
}

/// A block, or what is wrong with it.
pub(super) type Decoded = Result<Block, String>;

/// Reads one block.
pub(super) fn read_block(reader: &mut Reader<'_>) -> Result<Decoded, Incomplete> {
    let (columns, rows) = (reader.length()?, reader.length()?);
    let mut block = Block::default();
    for _ in 0..columns {
        let (name, kind) = (reader.string()?, reader.string()?);
        let size = match kind.as_str() {
            "UInt64" | "Int64" | "Float64" => 8,
            _ => return Ok(Err(format!("column {name} has the type {kind}"))),
        };
        let Some(size) = rows.checked_mul(size) else {
            return Ok(Err(format!("a block of {rows} rows")));
        };
        let bytes = reader.take(size)?;
        match name.as_str() {
            "mid" => block.mids = numbers(bytes, u64::from_le_bytes),
            "sid" => block.sids = numbers(bytes, u64::from_le_bytes),
            "ts" => block.timestamps = numbers(bytes, i64::from_le_bytes),
            "value" => block.values = numbers(bytes, f64::from_le_bytes),
            "start_ts" if bytes.iter().any(|byte| *byte != 0) => {
                block.starts = numbers(bytes, i64::from_le_bytes);
            }
            "start_ts" => {}
            _ => return Ok(Err(format!("a column {name} that was not asked for"))),
        }
    }
    let whole = [block.mids.len(), block.sids.len(), block.timestamps.len(), block.values.len()];
    if whole != [rows; 4] {
        return Ok(Err(format!("columns of {whole:?} rows instead of {rows}")));
    }
    Ok(Ok(block))
}

pub(in crate::storage::clickhouse) fn numbers<T>(bytes: &[u8], number: impl Fn([u8; 8]) -> T) -> Vec<T> {
    bytes.as_chunks::<8>().0.iter().map(|bytes| number(*bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::clickhouse::rowbinary::Write;

    fn encoded(columns: &[(&str, &str, &[u64])], rows: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.length(columns.len());
        bytes.length(rows);
        for (name, kind, values) in columns {
            bytes.string(name);
            bytes.string(kind);
            values.iter().for_each(|value| bytes.u64(*value));
        }
        bytes
    }

    const WHOLE: [(&str, &str, &[u64]); 5] = [
        ("mid", "UInt64", &[1, 1]),
        ("sid", "UInt64", &[2, 3]),
        ("ts", "Int64", &[u64::MAX, 5]),
        ("value", "Float64", &[0x7ff0_0000_0000_0002, 0]),
        ("start_ts", "Int64", &[0, 9]),
    ];

    #[test]
    fn a_block_is_read_once_it_is_all_there() {
        let bytes = encoded(&WHOLE, 2);
        for end in 0..bytes.len() {
            assert_eq!(read_block(&mut Reader::new(&bytes[..end])), Err(Incomplete));
        }
        let block = read_block(&mut Reader::new(&bytes)).unwrap().unwrap();
        assert_eq!((block.mids, block.sids, block.timestamps), (vec![1, 1], vec![2, 3], vec![-1, 5]));
        assert_eq!((block.values[0].to_bits(), block.starts), (0x7ff0_0000_0000_0002, vec![0, 9]));
        // Unknown starts take no memory.
        let unknown = [WHOLE[0], WHOLE[1], WHOLE[2], WHOLE[3], ("start_ts", "Int64", &[0, 0])];
        let block = read_block(&mut Reader::new(&encoded(&unknown, 2))).unwrap().unwrap();
        assert_eq!(block.starts, Vec::<i64>::new());
    }

    #[test]
    fn a_block_that_is_not_as_asked_is_refused() {
        let lacks = encoded(&WHOLE[..3], 2);
        let other = encoded(&[("mid", "UInt32", &[1, 1])], 2);
        let stranger = encoded(&[("more", "UInt64", &[1, 1])], 2);
        for bytes in [lacks, other, stranger] {
            assert!(read_block(&mut Reader::new(&bytes)).unwrap().is_err());
        }
        let mut huge = Vec::new();
        huge.length(1);
        huge.length(usize::MAX);
        huge.string("mid");
        huge.string("UInt64");
        assert!(read_block(&mut Reader::new(&huge)).unwrap().is_err());
    }
}
