use std::{path::PathBuf, sync::atomic::Ordering::SeqCst};

use super::{
    record::{Kind, LoggedSample, Record, put_samples, put_series},
    replay::{Replayed, replay},
    *,
};
use crate::{
    clock::SystemClock,
    model::{Labels, TenantId},
    storage::embedded::{disk::SystemDisk, faults::FaultyDisk},
};

struct Log {
    dir: tempfile::TempDir,
    disk: Arc<FaultyDisk>,
}

impl Log {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("wal")).unwrap();
        Self { dir, disk: FaultyDisk::over(Arc::new(SystemDisk)) }
    }

    fn wal_dir(&self) -> PathBuf {
        self.dir.path().join("wal")
    }

    fn start(&self, sync: WalSync, segment_bytes: u64) -> Wal {
        let replayed = self.replay(|_, _| {});
        let config = WalConfig {
            dir: self.wal_dir(),
            sync,
            segment_bytes,
            queue_bytes: 1 << 20,
            next: replayed.last.unwrap_or(0) + 1,
            epoch: replayed.epoch + 1,
            previous_end: replayed.end,
        };
        let disk: Arc<dyn Disk> = Arc::<FaultyDisk>::clone(&self.disk);
        let ballast = Arc::new(Ballast::new(Arc::clone(&disk), self.dir.path(), 4096));
        ballast.restore(0);
        let ground = WalGround { disk, clock: SystemClock::start(), ballast, counters: Arc::default() };
        Wal::start(config, ground).unwrap()
    }

    fn replay(&self, each: impl FnMut(u64, Record<'_>)) -> Replayed {
        replay(self.disk.as_ref(), &self.wal_dir(), &self.dir.path().join("quarantine"), each).unwrap()
    }

    fn values(&self) -> (Vec<i64>, Replayed) {
        let mut values = Vec::new();
        let replayed = self.replay(|_, record| match record {
            Record::Samples(samples) => values.extend(samples.iter().map(|s| s.timestamp)),
            Record::Series { .. } => {}
            other => panic!("{other:?}"),
        });
        (values, replayed)
    }
}

fn sample(at: i64) -> Vec<u8> {
    let mut frames = Vec::new();
    let sample = LoggedSample { number: 3, timestamp: at, value: 0.5, start: 0 };
    put_samples(&mut frames, [sample].into_iter());
    frames
}

#[test]
fn what_is_pushed_is_replayed_in_order_over_many_segments() {
    let log = Log::new();
    for sync in [WalSync::Commit, WalSync::Interval(Duration::from_millis(5)), WalSync::Os] {
        let wal = log.start(sync, 1024);
        let before = log.values().0.len() as i64;
        for at in before..before + 200 {
            wal.push(sample(at)).block().unwrap();
        }
        wal.stop();
        let (values, replayed) = log.values();
        assert_eq!(values, (0..before + 200).collect::<Vec<_>>());
        assert_eq!(replayed.damage, Vec::<String>::new());
    }
    assert!(segments(log.disk.as_ref(), &log.wal_dir()).unwrap().len() > 3);
}

#[test]
fn writers_at_the_same_time_share_a_sync() {
    let log = Log::new();
    let wal = Arc::new(log.start(WalSync::Commit, 1 << 20));
    let threads: Vec<_> = (0..16)
        .map(|t| {
            let wal = Arc::clone(&wal);
            std::thread::spawn(move || (0..50).for_each(|i| wal.push(sample(t * 50 + i)).block().unwrap()))
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    wal.stop();
    let (mut values, _) = log.values();
    values.sort_unstable();
    assert_eq!(values, (0..800).collect::<Vec<_>>());
}

#[test]
fn a_log_cut_at_every_byte_of_its_end_replays_the_rest_and_goes_on() {
    let log = Log::new();
    let wal = log.start(WalSync::Commit, 1 << 16);
    for at in 0..5 {
        wal.push(sample(at)).block().unwrap();
    }
    wal.stop();
    let path = segment_path(&log.wal_dir(), 1);
    let whole = std::fs::read(&path).unwrap();
    let frame = sample(0).len();
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let kept = cut.saturating_sub(frame::SEGMENT_START) / frame;
        let wal = log.start(WalSync::Commit, 1 << 16);
        wal.push(sample(99)).block().unwrap();
        wal.stop();
        let (values, replayed) = log.values();
        let expect: Vec<i64> = (0..kept as i64).chain([99]).collect();
        assert_eq!(values, expect, "{cut}");
        assert_eq!(replayed.damage, Vec::<String>::new(), "{cut}");
        std::fs::remove_file(segment_path(&log.wal_dir(), 2)).unwrap();
    }
}

#[test]
fn a_flipped_byte_costs_one_record_and_is_set_aside() {
    let log = Log::new();
    let wal = log.start(WalSync::Commit, 1 << 16);
    for at in 0..20 {
        wal.push(sample(at)).block().unwrap();
    }
    wal.stop();
    let path = segment_path(&log.wal_dir(), 1);
    let whole = std::fs::read(&path).unwrap();
    for i in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[i] ^= 0x40;
        std::fs::write(&path, &damaged).unwrap();
        let (values, replayed) = log.values();
        assert!(values.len() >= 19, "{i}: {values:?}");
        let in_last = i >= whole.len() - sample(0).len();
        // A damaged last record cannot be told from a torn one.
        assert!(in_last || i < frame::SEGMENT_START || replayed.damage.len() == 1, "{i}");
        std::fs::write(&path, &whole).unwrap();
    }
    assert!(log.dir.path().join("quarantine/0000000000000001.seg").exists());
}

#[test]
fn a_failed_sync_moves_to_a_new_segment_and_loses_nothing() {
    let log = Log::new();
    let wal = log.start(WalSync::Commit, 1 << 16);
    for at in 0..10 {
        if at == 5 {
            log.disk.fail_syncs.store(1, SeqCst);
        }
        wal.push(sample(at)).block().unwrap();
    }
    wal.stop();
    let (values, replayed) = log.values();
    assert_eq!(values, (0..10).collect::<Vec<_>>());
    assert_eq!(replayed.damage, Vec::<String>::new());
    assert_eq!(segments(log.disk.as_ref(), &log.wal_dir()).unwrap(), [1, 2]);
}

#[test]
fn a_full_disk_refuses_and_recovers_and_keeps_the_order() {
    let log = Log::new();
    let wal = log.start(WalSync::Commit, 2048);
    assert!(log.dir.path().join("BALLAST").exists());
    let tenant = TenantId::anonymous();
    let labels = Labels::from_pairs([("a", "b")]).unwrap();
    log.disk.full.store(true, SeqCst);
    let mut refused = None;
    for at in 0..200 {
        if let Err(error) = wal.push(sample(at)).block() {
            refused = Some((at, error));
            break;
        }
    }
    let (at, error) = refused.unwrap_or((-1, StorageError::Unsupported("taken".to_owned())));
    assert!(matches!(error, StorageError::DiskFull { .. }), "{error:?}");
    assert!(matches!(wal.admit(1), Err(StorageError::DiskFull { .. })));
    assert!(!log.dir.path().join("BALLAST").exists());
    // A writer that had been admitted before pushes its series now.
    let mut frames = Vec::new();
    put_series(&mut frames, &tenant, &[(3, labels)]);
    wal.push_quietly(frames);
    log.disk.full.store(false, SeqCst);
    let since = std::time::Duration::from_millis(20);
    while wal.admit(1).is_err() {
        std::thread::sleep(since);
    }
    wal.push(sample(1000)).block().unwrap();
    wal.stop();
    let mut kinds = Vec::new();
    let mut values = Vec::new();
    log.replay(|_, record| match record {
        Record::Samples(samples) => {
            kinds.push(Kind::Samples);
            values.extend(samples.iter().map(|s| s.timestamp));
        }
        Record::Series { .. } => kinds.push(Kind::Series),
        other => panic!("{other:?}"),
    });
    assert_eq!(values, (0..=at).chain([1000]).collect::<Vec<_>>());
    assert_eq!(kinds[kinds.len() - 2..], [Kind::Series, Kind::Samples]);
    assert!(log.dir.path().join("BALLAST").exists());
}

#[test]
fn too_much_waiting_is_an_overload() {
    let log = Log::new();
    let wal = log.start(WalSync::Commit, 1 << 20);
    assert!(wal.admit(usize::MAX).is_ok(), "one write of any size is taken when nothing waits");
    log.disk.hold.store(true, SeqCst);
    let first = wal.push(sample(1));
    let second = wal.push(vec![]);
    assert!(matches!(wal.admit(2 << 20), Err(StorageError::Overloaded { .. })));
    log.disk.hold.store(false, SeqCst);
    first.block().unwrap();
    second.block().unwrap();
}

#[test]
fn a_rotation_names_the_last_segment_and_its_segments_can_be_released() {
    let log = Log::new();
    let wal = log.start(WalSync::Commit, 1 << 20);
    assert_eq!(wal.rotate().block().unwrap(), 0);
    wal.push(sample(1)).block().unwrap();
    assert_eq!(wal.rotate().block().unwrap(), 1);
    wal.push(sample(2)).block().unwrap();
    wal.release(1).unwrap();
    wal.stop();
    let mut epochs = Vec::new();
    log.replay(|epoch, _| epochs.push(epoch));
    assert_eq!(epochs.len(), 1);
    assert_eq!(log.values().0, [2]);
    assert!(matches!(wal.push(sample(3)).block(), Err(StorageError::Unavailable { .. })));
}
