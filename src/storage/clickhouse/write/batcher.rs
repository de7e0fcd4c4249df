//! Rows of many requests become few inserts: one of these for each table.
//!
//! ```text
//! append ─ pieces ─▶ lots (class of retention, days) ─ ready? ─▶ insert ─▶ parts of slips settled
//! ```
//!
//! A lot that has rested goes at once, so one request alone waits for nothing. After an insert the lot
//! rests for the linger, so that rows come together, but not longer than that pays: it goes early when it
//! has many rows, or when no more come. Time is counted in ticks, parts of the linger, that only run while
//! something rests. Of a table no more than a few inserts are under way at a time; what does not go then
//! waits, up to the room that [`Rooms`](super::room::Rooms) gives.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};

use super::{
    counters::{add, sub},
    lot::Lot,
    room::Room,
    rows::{Body, Sample, Table},
    send::Sender,
    slip::Part,
};
use crate::storage::clickhouse::config::BatchConfig;

/// Ticks that a lot rests after an insert.
const REST: u64 = 16;

/// Ticks without another row after which no more are expected.
const QUIET: u64 = 2;

/// A tick is no shorter, lest the timer be all we do.
const SHORTEST_TICK: Duration = Duration::from_millis(1);

/// How much of a full insert is enough not to rest for more.
const ENOUGH: usize = 8;

/// The rows of one request for one lot.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) lot: Lot,
    /// The tenant's name as rows begin with it.
    pub(super) tenant: Arc<[u8]>,
    pub(super) rows: Rows,
    /// The share in what the request waits for.
    pub(super) part: Part,
    /// The room the rows take.
    pub(super) room: Arc<Room>,
}

/// Rows that wait.
#[derive(Debug)]
pub(super) enum Rows {
    /// Samples, in order.
    Samples(Vec<Sample>),
    /// Rows of other tables.
    Encoded(Body),
}

impl Piece {
    fn rows(&self) -> usize {
        match &self.rows {
            Rows::Samples(samples) => samples.len(),
            Rows::Encoded(body) => body.rows,
        }
    }

    fn bytes(&self) -> usize {
        match &self.rows {
            Rows::Samples(samples) => samples.len() * (Sample::ROW + self.tenant.len()),
            Rows::Encoded(body) => body.bytes.len(),
        }
    }
}

/// Collects the rows of a table.
#[derive(Debug)]
pub(super) struct Batcher {
    table: Table,
    config: BatchConfig,
    sender: Arc<Sender>,
    state: Mutex<State>,
    /// Something may be ready.
    wake: Arc<Notify>,
    /// An insert has ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    lots: BTreeMap<Lot, Queue>,
    running: usize,
    tick: u64,
    /// Of the next piece.
    number: u64,
    /// Pieces that wait or are being written.
    unsettled: BTreeSet<u64>,
    /// Whether nothing rests any more.
    hurry: bool,
}

/// What waits of a lot.
#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<(u64, Piece)>,
    rows: usize,
    bytes: usize,
    /// When something last came.
    came: u64,
    /// When something last went.
    went: Option<u64>,
}

/// Pieces that go together.
#[derive(Debug)]
struct Job {
    lot: Lot,
    pieces: Vec<Piece>,
    running: Running,
}

/// An insert under way, and the pieces it settles.
#[derive(Debug)]
struct Running {
    batcher: Arc<Batcher>,
    numbers: Vec<u64>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.batcher.state.lock();
        state.running -= 1;
        for number in &self.numbers {
            state.unsettled.remove(number);
        }
        drop(state);
        self.batcher.ended.notify_waiters();
        self.batcher.wake.notify_one();
    }
}

impl Batcher {
    /// Starts collecting.
    pub(super) fn start(table: Table, config: BatchConfig, sender: Arc<Sender>) -> Arc<Self> {
        let wake = Arc::new(Notify::new());
        let state = Mutex::default();
        let batcher =
            Arc::new(Self { table, config, sender, state, wake: Arc::clone(&wake), ended: Notify::new() });
        crate::task::spawn("clickhouse-batch", drive(Arc::downgrade(&batcher), wake, tick_of(&config)));
        batcher
    }

    /// Takes rows, which are on their way when this returns; their parts tell what becomes of them.
    pub(super) fn put(&self, piece: Piece) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let (tick, number) = (state.tick, state.number);
        state.number += 1;
        state.unsettled.insert(number);
        let queue = state.lots.entry(piece.lot).or_default();
        add(&self.sender.counters.queue_rows, piece.rows());
        queue.rows += piece.rows();
        queue.bytes += piece.bytes();
        queue.came = tick;
        queue.pieces.push_back((number, piece));
        // Somebody has to begin the ticks; after that only what is ready matters.
        if queue.pieces.len() == 1 || queue.is_enough(&self.config) {
            self.wake.notify_one();
        }
    }

    /// Waits until all that is here now has been settled.
    pub(super) async fn flush(&self) {
        let until = self.state.lock().number;
        self.state.lock().hurry = true;
        self.wake.notify_one();
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.state.lock().unsettled.first().is_none_or(|first| *first >= until) {
                break;
            }
            ended.await;
        }
        self.state.lock().hurry = false;
    }

    /// Starts all inserts that are ready; whether ticks are needed for more.
    fn start_ready(self: &Arc<Self>) -> bool {
        let mut state = self.state.lock();
        while state.running < self.config.in_flight.max(1) {
            let (tick, hurry) = (state.tick, state.hurry);
            let ready = |queue: &Queue| hurry || queue.is_ready(tick, &self.config);
            let oldest = state.lots.iter().filter(|(_, queue)| ready(queue));
            let oldest = oldest.filter_map(|(lot, queue)| Some((queue.pieces.front()?.0, *lot))).min();
            let Some((_, lot)) = oldest else { break };
            let pieces = state.lots.get_mut(&lot).map(|queue| queue.take(tick, &self.config));
            let (numbers, pieces) = pieces.unwrap_or_default().into_iter().unzip();
            state.running += 1;
            let running = Running { batcher: Arc::clone(self), numbers };
            let job = Job { lot, pieces, running };
            crate::task::spawn("clickhouse-insert", job.run());
        }
        let tick = state.tick;
        state.lots.retain(|_, queue| !queue.pieces.is_empty() || queue.rests(tick));
        let waits = state.running < self.config.in_flight.max(1);
        waits && !state.lots.is_empty()
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

fn tick_of(config: &BatchConfig) -> Duration {
    let parts = u32::try_from(REST).unwrap_or(u32::MAX);
    (config.linger / parts).max(SHORTEST_TICK)
}

/// Starts inserts when they are ready, until the batcher is gone.
async fn drive(batcher: Weak<Batcher>, wake: Arc<Notify>, tick: Duration) {
    let mut ticks = interval(tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let Some(ticking) = batcher.upgrade().map(|batcher| batcher.start_ready()) else { return };
        tokio::select! {
            () = wake.notified() => {}
            _ = ticks.tick(), if ticking => {
                if let Some(batcher) = batcher.upgrade() {
                    batcher.state.lock().tick += 1;
                }
            }
        }
    }
}

impl Queue {
    fn is_enough(&self, config: &BatchConfig) -> bool {
        self.rows >= config.rows / ENOUGH || self.bytes >= config.bytes / ENOUGH
    }

    fn rests(&self, tick: u64) -> bool {
        self.went.is_some_and(|went| tick - went < REST)
    }

    fn is_ready(&self, tick: u64, config: &BatchConfig) -> bool {
        let rests = self.rests(tick) && !config.linger.is_zero();
        !self.pieces.is_empty() && (!rests || self.is_enough(config) || tick - self.came >= QUIET)
    }

    /// Takes what fits an insert.
    fn take(&mut self, tick: u64, config: &BatchConfig) -> Vec<(u64, Piece)> {
        let (mut taken, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while let Some((_, piece)) = self.pieces.front() {
            let (more_rows, more_bytes) = (piece.rows(), piece.bytes());
            let full = rows + more_rows > config.rows || bytes + more_bytes > config.bytes;
            if full && !taken.is_empty() {
                break;
            }
            rows += more_rows;
            bytes += more_bytes;
            taken.extend(self.pieces.pop_front());
        }
        self.rows -= rows;
        self.bytes -= bytes;
        self.went = Some(tick);
        taken
    }
}

impl Job {
    /// Writes the rows and tells those who wait.
    async fn run(self) {
        let Self { lot, pieces, running } = self;
        let batcher = Arc::clone(&running.batcher);
        let sender = &batcher.sender;
        sub(&sender.counters.queue_rows, pieces.iter().map(Piece::rows).sum());
        // What nobody waits for was not promised to anybody.
        let (gone, pieces): (Vec<_>, Vec<_>) =
            pieces.into_iter().partition(|piece| piece.part.is_abandoned());
        drop(gone);
        let (mut slips, mut rooms, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for piece in pieces {
            slips.push(piece.part);
            rooms.push(piece.room);
            rows.push((piece.tenant, piece.rows));
        }
        let outcome = match build(lot, rows).await {
            body if body.rows == 0 => Ok(()),
            body => sender.send(batcher.table, body).await,
        };
        for slip in slips {
            slip.settle(&outcome);
        }
        drop((rooms, running));
    }
}

/// Samples that are sorted where they are; more are sorted off the I/O threads.
const SORTED_HERE: usize = 20_000;

/// Makes one body of the rows of several requests.
async fn build(lot: Lot, rows: Vec<(Arc<[u8]>, Rows)>) -> Body {
    let count = |(_, rows): &(_, Rows)| match rows {
        Rows::Samples(samples) => samples.len(),
        Rows::Encoded(_) => 0,
    };
    if rows.iter().map(count).sum::<usize>() <= SORTED_HERE {
        return join(lot, rows);
    }
    tokio::task::spawn_blocking(move || join(lot, rows)).await.unwrap_or_default()
}

/// Puts rows together in the order that the tables have them.
fn join(lot: Lot, mut rows: Vec<(Arc<[u8]>, Rows)>) -> Body {
    let mut body = Body::default();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    for of_tenant in rows.chunk_by(|a, b| a.0 == b.0) {
        let tenant = &of_tenant[0].0;
        let mut samples: Vec<Sample> = Vec::new();
        for (_, rows) in of_tenant {
            match rows {
                Rows::Samples(more) => samples.extend_from_slice(more),
                Rows::Encoded(more) => body.append(more),
            }
        }
        // Each request's are sorted already, which this sort makes use of.
        samples.sort_by_key(Sample::key);
        body.bytes.reserve(samples.len() * (Sample::ROW + tenant.len()));
        for sample in samples {
            sample.put(&mut body.bytes, tenant, lot.ret);
            body.end_row();
        }
    }
    body
}
