//! Answers, row by row as they come in.

use bytes::{Buf, BytesMut};
use clickhouse::query::BytesCursor;

use super::failure::{Class, Failure};
use crate::storage::clickhouse::rowbinary::{Incomplete, Reader};

/// The rows of an answer in RowBinary. Dropping it ends the statement on the server.
pub struct Rows {
    cursor: BytesCursor,
    buffer: BytesMut,
    received: u64,
    ended: bool,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("received", &self.received).field("ended", &self.ended).finish()
    }
}

impl Rows {
    pub(super) fn new(cursor: BytesCursor) -> Self {
        Self { cursor, buffer: BytesMut::new(), received: 0, ended: false }
    }

    /// Bytes received so far, decompressed.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The next row, read by `read`, which is called again from the row's start if it was not all there.
    pub async fn next<T>(
        &mut self,
        mut read: impl FnMut(&mut Reader<'_>) -> Result<T, Incomplete>,
    ) -> Result<Option<T>, Failure> {
        loop {
            if !self.buffer.is_empty() {
                let mut reader = Reader::new(&self.buffer);
                if let Ok(row) = read(&mut reader) {
                    let taken = reader.taken();
                    self.buffer.advance(taken);
                    return Ok(Some(row));
                }
            }
            if self.ended {
                return if self.buffer.is_empty() { Ok(None) } else { Err(cut_short(self.buffer.len())) };
            }
            match self.cursor.next().await.map_err(Failure::of)? {
                Some(bytes) => {
                    self.received += bytes.len() as u64;
                    self.buffer.extend_from_slice(&bytes);
                }
                None => self.ended = true,
            }
        }
    }

    /// All rows that are left.
    pub async fn all<T>(
        mut self,
        mut read: impl FnMut(&mut Reader<'_>) -> Result<T, Incomplete>,
    ) -> Result<Vec<T>, Failure> {
        let mut rows = Vec::new();
        while let Some(row) = self.next(&mut read).await? {
            rows.push(row);
        }
        Ok(rows)
    }
}

fn cut_short(left: usize) -> Failure {
    Failure {
        class: Class::Unreachable,
        code: None,
        message: format!("the answer ends in the middle of a row, {left} bytes into it"),
    }
}
