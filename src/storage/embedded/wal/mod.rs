//! The write-ahead log: what was acknowledged since the last flush.
//!
//! Writers encode [records](record) into a buffer and [`push`](Wal::push) it; one thread, the
//! [writer](writer::Writer), takes all buffers that wait, writes them with one write and one
//! `fdatasync`, and wakes everyone. So the disk is asked once however many write at the same time, and no
//! thread that serves connections ever waits for it.
//!
//! ```text
//! append ──▶ ┐
//! append ──▶ ├─▶ queue ──▶ writer: write, fdatasync ──▶ 00…1a.seg
//! rotate ──▶ ┘   (bounded)   │
//!    ◀── Ticket ◀────────────┘
//! ```
//!
//! * **Order.** What is pushed first is written first. A series counts as told only when its record has been
//!   pushed, and whoever meets one that is not tells it, so no sample precedes it.
//! * **Refusal.** When a write fails for good ([`Refusal`]), [`admit`](Wal::admit) refuses before anything
//!   has changed; what had been pushed by then is kept and written first when the disk works again,
//!   so that the log always has everything the head has.
//! * **Epochs.** [`rotate`](Wal::rotate) ends a segment and the meaning of the numbers of series in it. Segments up to the one
//!   it names can be [released](Wal::release) when what they hold is durable elsewhere.

pub(crate) mod frame;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod segment;
mod writer;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{ballast::Ballast, config::WalSync, counters::EmbeddedCounters, disk::Disk};
use crate::{
    clock::Clock,
    storage::{Result, StorageError},
};

/// How many records `segment` holds that read back, and whether it holds anything else; what recovery would say
/// of these bytes.
pub fn survey(segment: &[u8]) -> Survey {
    let mut survey = Survey::default();
    let Some(header) = frame::SegmentHeader::decode(segment) else {
        return survey;
    };
    for found in frame::Scan::new(segment, header.salt, frame::SEGMENT_START, None) {
        match found {
            frame::Found::Frame { kind, payload, .. } if record::decode(kind, payload).is_some() => {
                survey.records += 1;
            }
            frame::Found::Frame { .. } | frame::Found::Hole { .. } => survey.damaged += 1,
        }
    }
    survey
}

/// Whether `payload` is a record of the kind with this number.
pub fn is_record(kind: u8, payload: &[u8]) -> bool {
    record::Kind::from_byte(kind).is_some_and(|kind| record::decode(kind, payload).is_some())
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Records that read back.
    pub records: u64,
    /// Stretches that do not.
    pub damaged: u64,
}

/// The log, as those who write to it see it.
#[derive(Debug)]
pub(crate) struct Wal {
    shared: Arc<Shared>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// How a log is set up.
#[derive(Debug)]
pub(crate) struct WalConfig {
    pub(crate) dir: PathBuf,
    pub(crate) sync: WalSync,
    pub(crate) segment_bytes: u64,
    pub(crate) queue_bytes: usize,
    /// The next segment's number, and its epoch.
    pub(crate) next: u64,
    pub(crate) epoch: u64,
    /// Where the segment before ends.
    pub(crate) previous_end: u64,
}

/// What the log stands on.
#[derive(Clone, Debug)]
pub(crate) struct WalGround {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ballast: Arc<Ballast>,
    pub(crate) counters: Arc<EmbeddedCounters>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Bytes pushed and not yet written.
    waiting: AtomicU64,
    limit: u64,
    /// Bytes written since the last rotation.
    grown: AtomicU64,
    refusal: Mutex<Option<Refusal>>,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    stop: bool,
    /// Whether the writer has gone.
    gone: bool,
}

#[derive(Debug)]
enum Item {
    Frames { frames: Vec<u8>, reply: Option<oneshot::Sender<Result<(), Refusal>>> },
    Rotate { reply: oneshot::Sender<Result<u64, Refusal>> },
}

/// Why the log does not take writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no space.
    DiskFull(String),
    /// The disk does not work.
    Broken(String),
    /// The store is closed.
    Closed,
}

impl From<Refusal> for StorageError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::DiskFull(detail) => Self::DiskFull { detail },
            Refusal::Broken(detail) => Self::Unavailable { detail, retry_after: None },
            Refusal::Closed => {
                Self::Unavailable { detail: "the store is closed".to_owned(), retry_after: None }
            }
        }
    }
}

/// Resolves when what was pushed is durable.
#[derive(Debug)]
pub(crate) struct Ticket<T = ()>(oneshot::Receiver<Result<T, Refusal>>);

impl<T> Ticket<T> {
    /// Waits without blocking a thread.
    pub(crate) async fn wait(self) -> Result<T> {
        Ok(self.0.await.unwrap_or(Err(Refusal::Closed))?)
    }

    /// Waits and blocks; not for threads that run tasks.
    pub(crate) fn block(self) -> Result<T> {
        Ok(self.0.blocking_recv().unwrap_or(Err(Refusal::Closed))?)
    }
}

impl Wal {
    /// Starts the writer. No file is touched before the first push.
    pub(crate) fn start(config: WalConfig, ground: WalGround) -> Result<Self> {
        let shared = Arc::new(Shared {
            dir: config.dir.clone(),
            disk: Arc::clone(&ground.disk),
            queue: Mutex::default(),
            wake: Condvar::new(),
            waiting: AtomicU64::new(0),
            limit: config.queue_bytes as u64,
            grown: AtomicU64::new(0),
            refusal: Mutex::new(None),
        });
        let writer = writer::Writer::new(Arc::clone(&shared), config, ground);
        let thread = std::thread::Builder::new()
            .name("wal".to_owned())
            .spawn(move || writer.run())
            .map_err(|e| StorageError::io("starting the thread of the log", e))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Whether about `bytes` more can be taken now. To be asked before anything changes.
    pub(crate) fn admit(&self, bytes: usize) -> Result<()> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal.into());
        }
        let waiting = self.shared.waiting.load(Relaxed);
        // One write of any size is taken when nothing else waits.
        if waiting > 0 && waiting.saturating_add(bytes as u64) > self.shared.limit {
            return Err(StorageError::Overloaded {
                detail: format!("{waiting} bytes wait to be written to the log"),
                retry_after: Duration::from_secs(1),
            });
        }
        Ok(())
    }

    /// Why writes are refused, if they are.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.shared.refusal.lock().clone()
    }

    /// Hands frames to the writer. The ticket also stands for all that was pushed before.
    pub(crate) fn push(&self, frames: Vec<u8>) -> Ticket {
        let (reply, ticket) = oneshot::channel();
        self.offer(frames, Some(reply));
        Ticket(ticket)
    }

    /// Hands over frames that a later [`push`](Self::push) will be waited for.
    pub(crate) fn push_quietly(&self, frames: Vec<u8>) {
        self.offer(frames, None);
    }

    fn offer(&self, frames: Vec<u8>, reply: Option<oneshot::Sender<Result<(), Refusal>>>) {
        let mut queue = self.shared.queue.lock();
        if queue.gone {
            if let Some(reply) = reply {
                let _ = reply.send(Err(Refusal::Closed));
            }
            return;
        }
        self.shared.waiting.fetch_add(frames.len() as u64, Relaxed);
        queue.items.push_back(Item::Frames { frames, reply });
        drop(queue);
        self.shared.wake.notify_one();
    }

    /// Begins a new epoch behind all that was pushed. The ticket gives the last segment of the old one.
    pub(crate) fn rotate(&self) -> Ticket<u64> {
        let (reply, ticket) = oneshot::channel();
        let mut queue = self.shared.queue.lock();
        if queue.gone {
            let _ = reply.send(Err(Refusal::Closed));
        } else {
            queue.items.push_back(Item::Rotate { reply });
        }
        drop(queue);
        self.shared.wake.notify_one();
        Ticket(ticket)
    }

    /// Removes the segments up to and with `seq`.
    pub(crate) fn release(&self, seq: u64) -> Result<()> {
        release(self.shared.disk.as_ref(), &self.shared.dir, seq)
    }

    /// Bytes written since the last rotation.
    pub(crate) fn grown(&self) -> u64 {
        self.shared.grown.load(Relaxed)
    }

    /// Counts what the log held before it was started.
    pub(crate) fn count_replayed(&self, bytes: u64) {
        self.shared.grown.fetch_add(bytes, Relaxed);
    }

    /// Writes what waits, makes it durable and stops the writer.
    pub(crate) fn stop(&self) {
        self.shared.queue.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The file of segment `seq`.
pub(crate) fn segment_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("{seq:016x}.seg"))
}

/// The numbers of the segments in a directory, rising.
pub(crate) fn segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>> {
    let entries = disk.list(dir).map_err(|e| StorageError::io(format!("listing {}", dir.display()), e))?;
    let numbers = entries.iter().filter_map(|e| {
        let digits = e.name.strip_suffix(".seg").filter(|d| d.len() == 16)?;
        u64::from_str_radix(digits, 16).ok()
    });
    let mut numbers: Vec<u64> = numbers.collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes the log durable that a process has left which ended before it could.
///
/// What it wrote is read back all the same, and whoever sends that again is told that it is kept.
pub(crate) fn settle(disk: &dyn Disk, dir: &Path) -> Result<()> {
    // A segment with a successor is durable.
    let Some(last) = segments(disk, dir)?.pop() else { return Ok(()) };
    let path = segment_path(dir, last);
    disk.open_write(&path)
        .and_then(|mut file| file.sync_all())
        .and_then(|()| disk.sync_dir(dir))
        .map_err(|e| StorageError::io(format!("syncing {}", path.display()), e))
}

/// Removes the segments up to and with `seq`, durably.
///
/// One after the other, the oldest first: what is left when the power goes must have no gap, for what came later would be
/// missing on top of what came before.
pub(crate) fn release(disk: &dyn Disk, dir: &Path, seq: u64) -> Result<()> {
    for number in segments(disk, dir)?.into_iter().filter(|n| *n <= seq) {
        let path = segment_path(dir, number);
        disk.remove_file(&path).map_err(|e| StorageError::io(format!("removing {}", path.display()), e))?;
        disk.sync_dir(dir).map_err(|e| StorageError::io(format!("syncing {}", dir.display()), e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
