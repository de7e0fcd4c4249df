//! Inserts: whole or not at all, and once however often they are sent.
//!
//! A server writes what it has when a body ends early, block by block, and takes what carries the same token
//! for what it has already, whatever is in it. So an insert is one compressed frame, which without its end is
//! nothing, and one block, which is sent when all of it is there. An attempt whose outcome is not known is
//! repeated, on the next server if there is one, with the same bytes and the same token.
//!
//! Tokens are shared by the replicas of a table. Servers that do not replicate to each other know only
//! their own: what one has and did not acknowledge is written by the other as well, and read once.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use clickhouse::{Compression, insert_formatted::CompressedData};
use parking_lot::Mutex;

use super::{
    Servers,
    counters::add,
    endpoint::{Endpoint, Kind},
    failure::{Class, Failure},
};

/// From how many bytes on compression is not done where other requests wait.
const LARGE: usize = 256 << 10;
/// MEMORY_LIMIT_EXCEEDED: nothing is wrong with the rows, there are too many of them at once.
pub const MEMORY_LIMIT: u32 = 241;
/// A server's own bound on the rows of a block.
const BLOCK_ROWS: usize = 1_048_449;

/// Rows for one table, encoded once, so that they can be sent again as they are.
#[derive(Clone, Debug)]
pub struct Insert {
    /// Into what: `samples (tenant, mid, …)`.
    pub into: &'static str,
    /// The rows, in RowBinary.
    pub rows: Bytes,
    /// The server takes what carries the same token once.
    pub token: String,
}

impl Servers {
    /// Inserts rows within the time that is configured; `Ok` means that they are durable.
    ///
    /// After an error they may be there or not: inserting them again with the same token is right.
    pub async fn insert(&self, insert: &Insert) -> Result<(), Failure> {
        self.insert_within(insert, self.insert_timeout).await
    }

    /// Inserts rows within `limit`, retries included.
    pub async fn insert_within(&self, insert: &Insert, limit: Duration) -> Result<(), Failure> {
        add(&self.shared.counters.inserts, 1);
        if insert.rows.is_empty() {
            return Ok(());
        }
        let last = Mutex::new(None);
        // A clock that stands still does not keep it from ending.
        let bound = limit.saturating_add(Duration::from_secs(1));
        let done = tokio::time::timeout(bound, self.insert_until_done(insert, limit, &last)).await;
        let done = done.unwrap_or_else(|_| {
            let last = last.into_inner();
            Err(last.unwrap_or_else(|| Failure::timed_out("the rows were not taken", limit)))
        });
        match done {
            Ok(()) => {
                add(&self.shared.counters.inserted_bytes, insert.rows.len() as u64);
                Ok(())
            }
            Err(failure) => Err(self.with_retry_after(failure)),
        }
    }

    async fn insert_until_done(
        &self,
        insert: &Insert,
        limit: Duration,
        last: &Mutex<Option<Failure>>,
    ) -> Result<(), Failure> {
        let deadline = self.shared.clock.elapsed().saturating_add(limit);
        let left = || deadline.saturating_sub(self.shared.clock.elapsed());
        let mut tried = Vec::new();
        loop {
            let Some((place, endpoint)) = self.pick(&tried) else {
                return Err(last.lock().take().unwrap_or_else(|| self.refuse()));
            };
            // A server that hangs must not take the time that another needs.
            let allowed = if self.reachable() > 1 { left() / 2 } else { left() };
            let failure = match insert_once(endpoint, insert, allowed).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure.of_insert(),
            };
            let delay = self.shared.dice.about(delay(failure.class, tried.len()));
            // What the server has not the memory for is not to be sent again as it is.
            if !failure.class.may_pass() || failure.code == Some(MEMORY_LIMIT) || delay >= left() {
                return Err(failure);
            }
            *last.lock() = Some(failure);
            tried.push(place);
            tokio::time::sleep(delay).await;
            add(&self.shared.counters.retries, 1);
        }
    }
}

/// How long to wait after a failed attempt: longer each time, and longer if there is too much to do.
fn delay(class: Class, attempts: usize) -> Duration {
    let (first, most) = match class {
        Class::Overloaded => (Duration::from_secs(1), Duration::from_secs(8)),
        Class::Unreachable
        | Class::ReadOnly
        | Class::Exhausted
        | Class::Schema
        | Class::Denied
        | Class::Broken => (Duration::from_millis(100), Duration::from_secs(2)),
    };
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(16);
    (first * (1 << doublings)).min(most)
}

async fn insert_once(endpoint: &Arc<Endpoint>, insert: &Insert, allowed: Duration) -> Result<(), Failure> {
    let rows = compressed(&insert.rows).await?;
    let mut flight = endpoint.take_off(Kind::Change, Vec::new());
    // No row takes less than a byte, so this many are one block.
    let block = insert.rows.len().max(BLOCK_ROWS).to_string();
    let sql = format!("INSERT INTO {} FORMAT RowBinary", insert.into);
    let table = insert.into.split([' ', '(']).next().unwrap_or_default();
    let mut sending = endpoint
        .writes
        .insert_formatted_with(sql)
        .with_setting("query_id", &flight.query_id)
        .with_setting("log_comment", format!("luminate insert into {table}"))
        .with_setting("insert_deduplicate", "1")
        .with_setting("insert_deduplication_token", &insert.token)
        .with_setting("deduplicate_blocks_in_dependent_materialized_views", "1")
        .with_setting("async_insert", "0")
        .with_setting("max_insert_block_size", &block)
        .with_setting("min_insert_block_size_rows", &block)
        .with_setting("min_insert_block_size_bytes", "0")
        .with_setting("max_execution_time", allowed.as_secs().max(1).to_string())
        .with_timeouts(Some(allowed), Some(allowed));
    let sent = async {
        sending.send_compressed(rows).await?;
        sending.end().await
    };
    match endpoint.unless_hung(sent).await {
        Ok(Ok(())) => {
            flight.landed();
            Ok(())
        }
        Ok(Err(error)) => Err(flight.failed(Failure::of(error))),
        // Whether the rows were taken is not known, and they are sent elsewhere under the same token.
        Err(hung) => Err(flight.failed(hung)),
    }
}

/// The rows as one frame.
async fn compressed(rows: &Bytes) -> Result<CompressedData, Failure> {
    let frame = |rows: &Bytes| CompressedData::new(rows, Compression::Lz4).map_err(Failure::of);
    if rows.len() < LARGE {
        return frame(rows);
    }
    let rows = rows.clone();
    tokio::task::spawn_blocking(move || frame(&rows))
        .await
        .unwrap_or_else(|error| Err(Failure::new(Class::Broken, format!("compressing: {error}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_bound() {
        let millis = |class| (0..7).map(|n| delay(class, n).as_millis()).collect::<Vec<_>>();
        assert_eq!(millis(Class::Unreachable), [100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(millis(Class::Overloaded), [1000, 2000, 4000, 8000, 8000, 8000, 8000]);
        assert_eq!(delay(Class::Unreachable, usize::MAX), Duration::from_secs(2));
    }
}
