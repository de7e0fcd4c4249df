//! Answers, row by row as they come in.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use clickhouse::query::BytesCursor;

use super::{
    counters::add,
    endpoint::{Flight, Shared},
    failure::{Class, Failure},
};
use crate::storage::clickhouse::rowbinary::{Incomplete, Reader};

/// The rows of an answer in RowBinary. Dropping it ends the statement on the server.
pub struct Rows {
    cursor: BytesCursor,
    buffer: BytesMut,
    /// Bytes the buffer has to have before it pays to read again.
    wanted: usize,
    received: u64,
    tail: Tail,
    state: State,
    flight: Flight,
    pace: Pace,
    shared: Arc<Shared>,
}

/// How far an answer has come.
#[derive(Clone, Debug)]
enum State {
    Coming,
    Ended,
    Failed(Failure),
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// When it has to be over, by the clock's `elapsed`.
    pub(super) deadline: Duration,
    /// How long may pass from one piece to the next.
    pub(super) between: Duration,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("received", &self.received).field("state", &self.state).finish()
    }
}

impl Rows {
    /// An answer whose first piece is here; none if it is empty.
    pub(super) fn new(
        cursor: BytesCursor,
        first: Option<Bytes>,
        flight: Flight,
        pace: Pace,
        shared: Arc<Shared>,
    ) -> Result<Self, Failure> {
        let mut rows = Self {
            cursor,
            buffer: BytesMut::new(),
            wanted: 1,
            received: 0,
            tail: Tail::default(),
            state: State::Coming,
            flight,
            pace,
            shared,
        };
        rows.take(first)?;
        Ok(rows)
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
            if !self.buffer.is_empty() && self.buffer.len() >= self.wanted {
                let mut reader = Reader::new(&self.buffer);
                if let Ok(row) = read(&mut reader) {
                    let taken = reader.taken();
                    self.buffer.advance(taken);
                    self.wanted = 1;
                    return Ok(Some(row));
                }
                // A long row that comes in small pieces is not read anew for each of them.
                self.wanted = self.buffer.len() + (self.buffer.len() / 4).max(1);
            }
            match &self.state {
                State::Coming => self.more().await?,
                State::Failed(failure) => return Err(failure.clone()),
                State::Ended if self.buffer.is_empty() => return Ok(None),
                State::Ended if self.wanted <= self.buffer.len() => {}
                State::Ended => {
                    let left = self.buffer.len();
                    return Err(self.fail(cut_short(left)));
                }
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

    /// Waits for more of the answer.
    async fn more(&mut self) -> Result<(), Failure> {
        let left = self.pace.deadline.saturating_sub(self.shared.clock.elapsed());
        let limit = left.min(self.pace.between);
        match tokio::time::timeout(limit, self.cursor.next()).await {
            Ok(Ok(piece)) => self.take(piece),
            Ok(Err(error)) => {
                let failure = Failure::of(error);
                // The crate sees an exception only if it came in one piece.
                let failure =
                    if failure.code.is_none() { self.tail.said().unwrap_or(failure) } else { failure };
                Err(self.fail(failure))
            }
            Err(_) => Err(self.fail(Failure::timed_out("the answer did not go on", limit))),
        }
    }

    /// Takes a piece of the answer, or its end.
    fn take(&mut self, piece: Option<Bytes>) -> Result<(), Failure> {
        match piece {
            Some(bytes) => {
                self.received += bytes.len() as u64;
                add(&self.shared.counters.received_bytes, bytes.len() as u64);
                self.buffer.extend_from_slice(&bytes);
                self.tail.push(bytes);
                Ok(())
            }
            None => {
                if let Some(failure) = self.tail.said_at_the_end() {
                    return Err(self.fail(failure));
                }
                self.state = State::Ended;
                // What is left is a row, or never will be.
                self.wanted = self.wanted.min(self.buffer.len().max(1));
                self.flight.landed();
                Ok(())
            }
        }
    }

    fn fail(&mut self, failure: Failure) -> Failure {
        let failure = self.flight.failed(failure);
        self.buffer.clear();
        self.state = State::Failed(failure.clone());
        failure
    }
}

fn cut_short(left: usize) -> Failure {
    Failure::new(Class::Unreachable, format!("the answer ends in the middle of a row, {left} bytes into it"))
}

/// The last bytes of an answer, where a server says what went wrong when rows are already on their way:
///
/// ```text
/// rows \r\n__exception__\r\n tag \r\n Code: 241. DB::Exception: … \n length tag \r\n__exception__\r\n
/// rows Code: 241. DB::Exception: … (version 24.8 (official build))\n        until 25.10
/// ```
#[derive(Debug, Default)]
struct Tail {
    pieces: VecDeque<Bytes>,
    bytes: usize,
}

const MARK: &[u8] = b"__exception__\r\n";

impl Tail {
    /// A message has 16 KiB at most.
    const KEPT: usize = 17 << 10;

    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        self.pieces.push_back(piece);
        while let Some(first) = self.pieces.front()
            && self.bytes - first.len() >= Self::KEPT
        {
            self.bytes -= first.len();
            self.pieces.pop_front();
        }
    }

    fn text(&self) -> Vec<u8> {
        let all: Vec<u8> = self.pieces.iter().flatten().copied().collect();
        all[all.len().saturating_sub(Self::KEPT)..].to_vec()
    }

    /// What was said behind the mark, even if it is not all there.
    fn said(&self) -> Option<Failure> {
        let text = self.text();
        let mark = find_last(&text, MARK)?;
        said(&text[mark..]).or_else(|| said(&text))
    }

    /// What was said at the end of a whole answer.
    fn said_at_the_end(&self) -> Option<Failure> {
        let last = self.pieces.back()?;
        if last.last() != Some(&b'\n') {
            return None;
        }
        let text = self.text();
        (text.ends_with(MARK) || text.ends_with(b"))\n")).then(|| said(&text))?
    }
}

fn said(text: &[u8]) -> Option<Failure> {
    let message = &text[find_last(text, b"Code: ")?..];
    let message = String::from_utf8_lossy(message);
    let line = message.lines().next()?;
    line.contains("DB::").then(|| Failure::said(line.to_owned()))
}

fn find_last(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).rposition(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(pieces: &[&str]) -> Tail {
        let mut tail = Tail::default();
        pieces.iter().for_each(|piece| tail.push(Bytes::copy_from_slice(piece.as_bytes())));
        tail
    }

    #[test]
    fn an_exception_is_found_however_it_is_cut() {
        let text = "rows\r\n__exception__\r\nabcdefgh\r\nCode: 241. DB::Exception: no (X) (version 26)\n47 \
                    abcdefgh\r\n__exception__\r\n";
        for cut in 1..text.len() {
            let (a, b) = text.split_at(cut);
            assert_eq!(tail(&[a, b]).said_at_the_end().unwrap().code, Some(241), "{cut}");
        }
        let old = "rowsCode: 159. DB::Exception: Timeout (version 24.8 (official build))\n";
        for cut in 1..old.len() {
            let (a, b) = old.split_at(cut);
            let failure = tail(&[a, b]).said_at_the_end().unwrap();
            assert_eq!((failure.code, failure.class), (Some(159), Class::Exhausted));
        }
    }

    #[test]
    fn an_exception_that_is_not_all_there_is_found_too() {
        let tail = tail(&["rows\r\n__exception__\r\nabc\r\nCode: 241. DB::Exce"]);
        assert_eq!(tail.said().unwrap().code, Some(241));
        assert!(tail.said_at_the_end().is_none());
    }

    #[test]
    fn rows_are_no_exceptions() {
        for rows in ["", "\n", "))\n", "Code: 241. ))\n", "__exception__\r\n", "Code: 241. DB::Exception: x"]
        {
            assert!(tail(&[rows]).said_at_the_end().is_none(), "{rows}");
        }
    }

    #[test]
    fn only_the_end_is_kept() {
        let mut tail = Tail::default();
        (0..1000).for_each(|_| tail.push(Bytes::from(vec![b'x'; 10_000])));
        assert_eq!(tail.pieces.len(), 2);
        assert_eq!(tail.text().len(), Tail::KEPT);
    }
}
