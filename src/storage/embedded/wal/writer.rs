//! The thread that writes the log.
//!
//! It holds one open segment at most, and `unsafe_frames`: what it has written there that is not known to be
//! durable. After a failed write or sync the segment is left alone for ever (what a kernel does with pages
//! whose writing failed is anybody's guess) and those frames go to a new one. If that fails too the log
//! refuses writes and tries again every second.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Item, Refusal, Shared, WalConfig, WalGround,
    frame::{SEGMENT_START, SegmentHeader, fits, seal},
    segment_path,
};
use crate::storage::{
    Result,
    embedded::{
        config::WalSync,
        counters::{add, add_micros},
        disk::WriteFile,
    },
};

/// How long to wait before a refused log is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Frames are written together up to about this size.
const GROUP_BYTES: usize = 8 << 20;
/// Without a sync for each write, so much is kept to be written again if a later sync fails.
const UNSAFE_BYTES: usize = 16 << 20;

pub(super) struct Writer {
    shared: Arc<Shared>,
    config: WalConfig,
    ground: WalGround,
    segment: Option<Segment>,
    /// Frames that are written to the segment, or not even that, and not known to be durable.
    unsafe_frames: Vec<u8>,
    /// How many of them were written.
    written: usize,
    last_sync: Duration,
    refusing: bool,
}

struct Segment {
    seq: u64,
    salt: u64,
    file: Box<dyn WriteFile>,
    /// Where the next write goes.
    end: u64,
    /// Up to where it is durable.
    durable: u64,
}

type Reply = oneshot::Sender<Result<(), Refusal>>;

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, config: WalConfig, ground: WalGround) -> Self {
        let last_sync = ground.clock.elapsed();
        Self {
            shared,
            config,
            ground,
            segment: None,
            unsafe_frames: Vec::new(),
            written: 0,
            last_sync,
            refusing: false,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let (items, stop) = self.next_items();
            let mut group = Vec::new();
            let mut group_bytes = 0;
            for item in items {
                match item {
                    Item::Frames { frames, reply } => {
                        group_bytes += frames.len();
                        group.push((frames, reply));
                        if group_bytes >= GROUP_BYTES {
                            self.write_group(std::mem::take(&mut group));
                            group_bytes = 0;
                        }
                    }
                    Item::Rotate { reply } => {
                        self.write_group(std::mem::take(&mut group));
                        group_bytes = 0;
                        let _ = reply.send(Ok(self.rotate()));
                    }
                }
            }
            self.write_group(group);
            self.when_idle();
            if stop {
                self.finish();
                return;
            }
        }
    }

    /// Waits for work, for the time of a sync, or for the end.
    fn next_items(&self) -> (Vec<Item>, bool) {
        let mut queue = self.shared.queue.lock();
        if queue.items.is_empty() && !queue.stop {
            let timeout = match self.config.sync {
                _ if self.refusing => Some(RETRY),
                WalSync::Interval(every) if !self.unsafe_frames.is_empty() => Some(every),
                WalSync::Interval(_) | WalSync::Commit | WalSync::Os => None,
            };
            match timeout {
                None => self.shared.wake.wait(&mut queue),
                Some(timeout) => {
                    self.shared.wake.wait_for(&mut queue, timeout);
                }
            }
        }
        // What is pushed after the last look would wait for ever.
        queue.gone = queue.stop;
        (queue.items.drain(..).collect(), queue.stop)
    }

    fn when_idle(&mut self) {
        if self.refusing {
            self.try_again();
        } else if let WalSync::Interval(every) = self.config.sync
            && !self.unsafe_frames.is_empty()
            && self.ground.clock.elapsed().saturating_sub(self.last_sync) >= every
            && let Err(error) = self.sync()
        {
            let _ = self.rescue(&error);
        }
    }

    fn write_group(&mut self, group: Vec<(Vec<u8>, Option<Reply>)>) {
        if group.is_empty() {
            return;
        }
        let mut replies: Vec<Reply> = Vec::with_capacity(group.len());
        let mut bytes = 0;
        add(&self.ground.counters.wal_records, group.len() as u64);
        for (frames, reply) in group {
            bytes += frames.len() as u64;
            if fits(&frames) {
                self.unsafe_frames.extend_from_slice(&frames);
                replies.extend(reply);
            } else if let Some(reply) = reply {
                let _ = reply.send(Err(Refusal::Broken("a record is too large for the log".to_owned())));
            }
        }
        let result = if self.refusing { Err(self.refusal()) } else { self.commit() };
        self.shared.waiting.fetch_sub(bytes, Relaxed);
        for reply in replies {
            // A writer that went away does not wait.
            let _ = reply.send(result.clone());
        }
    }

    fn commit(&mut self) -> Result<(), Refusal> {
        match self.write().and_then(|()| self.sync_as_configured()) {
            Ok(()) => Ok(()),
            Err(error) => self.rescue(&error),
        }
    }

    /// Writes what is not written yet, in a new segment if the present one is full.
    fn write(&mut self) -> io::Result<()> {
        let length = (self.unsafe_frames.len() - self.written) as u64;
        if length == 0 {
            return Ok(());
        }
        if let Some(segment) = &self.segment
            && segment.end > SEGMENT_START as u64
            && segment.end + length > self.config.segment_bytes
        {
            // A segment with a successor is durable, whatever the policy.
            self.write_back_then_seal()?;
        }
        if self.segment.is_none() {
            self.begin_segment()?;
        }
        let segment = self.segment.as_mut().expect("a segment was begun");
        let frames = &mut self.unsafe_frames[self.written..];
        seal(frames, segment.salt);
        segment.file.write_all_at(frames, segment.end)?;
        segment.end += length;
        self.written = self.unsafe_frames.len();
        add(&self.ground.counters.wal_writes, 1);
        add(&self.ground.counters.wal_bytes, length);
        self.shared.grown.fetch_add(length, Relaxed);
        Ok(())
    }

    /// Makes the present segment durable and closes it; frames not written yet stay.
    fn write_back_then_seal(&mut self) -> io::Result<()> {
        let unwritten = self.unsafe_frames.split_off(self.written);
        let synced = self.sync();
        if synced.is_ok() {
            self.unsafe_frames.clear();
            self.written = 0;
            self.leave_segment();
        }
        self.unsafe_frames.extend_from_slice(&unwritten);
        synced
    }

    fn sync_as_configured(&mut self) -> io::Result<()> {
        match self.config.sync {
            WalSync::Commit => self.sync(),
            WalSync::Interval(every) => {
                let due = self.ground.clock.elapsed().saturating_sub(self.last_sync) >= every;
                if due || self.unsafe_frames.len() > UNSAFE_BYTES { self.sync() } else { Ok(()) }
            }
            WalSync::Os => {
                self.unsafe_frames.clear();
                self.written = 0;
                Ok(())
            }
        }
    }

    /// Makes everything written durable.
    fn sync(&mut self) -> io::Result<()> {
        let Some(segment) = &mut self.segment else { return Ok(()) };
        let before = self.ground.clock.elapsed();
        if segment.durable != segment.end {
            segment.file.sync_data()?;
            segment.durable = segment.end;
            add(&self.ground.counters.wal_fsyncs, 1);
            let took = self.ground.clock.elapsed().saturating_sub(before);
            self.ground.counters.wal_fsync_latency.record(took);
        }
        self.last_sync = self.ground.clock.elapsed();
        add_micros(&self.ground.counters.wal_fsync_micros, self.last_sync.saturating_sub(before));
        self.unsafe_frames.drain(..self.written);
        self.written = 0;
        Ok(())
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let seq = self.config.next;
        let now = self.ground.clock.now().0;
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&seq.to_le_bytes());
        seed[8..16].copy_from_slice(&now.to_le_bytes());
        seed[16..24].copy_from_slice(&self.config.epoch.to_le_bytes());
        seed[24..28].copy_from_slice(&std::process::id().to_le_bytes());
        let salt = xxh3_64(&seed);
        let path = segment_path(&self.config.dir, seq);
        // The number is spent even if this fails: a file that was begun is never begun again.
        self.config.next += 1;
        let header =
            SegmentHeader { seq, salt, epoch: self.config.epoch, previous_end: self.config.previous_end };
        let begun = self.ground.disk.create(&path).and_then(|mut file| {
            match file.preallocate(self.config.segment_bytes) {
                // Not every file system can reserve.
                Err(e) if e.kind() == io::ErrorKind::Unsupported => {}
                other => other?,
            }
            file.write_all_at(&header.encode(), 0)?;
            file.sync_all()?;
            self.ground.disk.sync_dir(&self.config.dir)?;
            Ok(file)
        });
        match begun {
            Ok(file) => {
                let start = SEGMENT_START as u64;
                self.segment = Some(Segment { seq, salt, file, end: start, durable: start });
                add(&self.ground.counters.wal_segments, 1);
                Ok(())
            }
            Err(error) => {
                // Nothing was acknowledged in it. If it stays, its successor says that it ends at its start.
                let _ = self.ground.disk.remove_file(&path);
                self.config.next -= 1;
                if self.ground.disk.open(&path).is_ok() {
                    self.config.next += 1;
                    self.config.previous_end = SEGMENT_START as u64;
                }
                Err(error)
            }
        }
    }

    /// Closes the present segment; what lies above its durable end does not count.
    fn leave_segment(&mut self) {
        if let Some(mut segment) = self.segment.take() {
            self.config.previous_end = match self.config.sync {
                WalSync::Os => segment.end,
                WalSync::Commit | WalSync::Interval(_) => segment.durable,
            };
            // Gives the reserved rest back; if that fails it is only space.
            let _ = segment.file.truncate(self.config.previous_end);
        }
    }

    /// Writes what is not durable to a new segment; if that fails too, refuses.
    fn rescue(&mut self, error: &io::Error) -> Result<(), Refusal> {
        add(&self.ground.counters.wal_failures, 1);
        tracing::error!(%error, "writing the log failed, going on in a new segment");
        match self.write_anew() {
            Ok(()) => Ok(()),
            Err(error) => {
                let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
                let detail = format!("writing the log in {}: {error}", self.config.dir.display());
                let refusal = if full { Refusal::DiskFull(detail) } else { Refusal::Broken(detail) };
                if full {
                    self.ground.ballast.release();
                }
                tracing::error!(%error, "the log takes no writes until the disk works again");
                self.refusing = true;
                *self.shared.refusal.lock() = Some(refusal.clone());
                Err(refusal)
            }
        }
    }

    fn write_anew(&mut self) -> io::Result<()> {
        self.leave_segment();
        self.written = 0;
        self.write()?;
        self.sync()
    }

    fn refusal(&self) -> Refusal {
        self.shared.refusal.lock().clone().unwrap_or(Refusal::Closed)
    }

    /// Looks whether the disk works again.
    fn try_again(&mut self) {
        let full = matches!(self.refusal(), Refusal::DiskFull(_));
        let need = self.config.segment_bytes + self.unsafe_frames.len() as u64;
        if full {
            let free = self.ground.disk.free_bytes(&self.config.dir).unwrap_or(u64::MAX);
            // Some room besides, so that it does not fill up again at once.
            if free < need.saturating_add(need / 2) {
                return;
            }
        }
        let works = self.write_anew().and_then(|()| match self.segment {
            Some(_) => Ok(()),
            // There was nothing to write, so a new segment is the trial.
            None => self.begin_segment(),
        });
        match works {
            Ok(()) => {
                tracing::info!("the log takes writes again");
                self.refusing = false;
                *self.shared.refusal.lock() = None;
                self.ground.ballast.restore(need.saturating_mul(2));
            }
            Err(error) => {
                add(&self.ground.counters.wal_failures, 1);
                tracing::warn!(%error, "the log still takes no writes");
            }
        }
    }

    /// Ends segment and epoch. What could not be written is in the head that is about to be flushed.
    fn rotate(&mut self) -> u64 {
        if let Err(error) = self.sync() {
            add(&self.ground.counters.wal_failures, 1);
            tracing::warn!(%error, "the last segment before a flush is not durable");
        }
        self.leave_segment();
        self.unsafe_frames.clear();
        self.unsafe_frames.shrink_to(1 << 20);
        self.written = 0;
        self.config.epoch += 1;
        self.shared.grown.store(0, Relaxed);
        self.config.next.saturating_sub(1)
    }

    fn finish(&mut self) {
        if !self.refusing
            && let Err(error) = self.sync()
        {
            let _ = self.rescue(&error);
        }
        if let Some(segment) = &self.segment {
            tracing::debug!(segment = segment.seq, end = segment.end, "log stopped");
        }
        self.leave_segment();
        *self.shared.refusal.lock() = Some(Refusal::Closed);
    }
}
