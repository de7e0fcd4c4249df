//! A disk for tests that fails when told to.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use super::disk::{Disk, Entry, Mapped, ReadFile, WriteFile};

/// Passes everything on, but for the failures that are switched on.
#[derive(Debug)]
pub(crate) struct FaultyDisk {
    inner: Arc<dyn Disk>,
    switches: Arc<Switches>,
}

/// What fails.
#[derive(Debug, Default)]
pub(crate) struct Switches {
    /// There is no space: nothing is created or reserved, nothing grows.
    pub(crate) full: AtomicBool,
    /// After so many more calls that may need space there is none, not even to rename or sync; 0 is never.
    pub(crate) room: AtomicU64,
    /// So many of the next syncs fail.
    pub(crate) fail_syncs: AtomicU64,
    /// Every write and sync fails.
    pub(crate) broken: AtomicBool,
    /// Writes and syncs wait.
    pub(crate) hold: AtomicBool,
    /// Whether somebody has waited for that.
    pub(crate) has_waited: AtomicBool,
    /// After so many more changes to the disk, nothing changes any more, as if the power had gone; 0 is never.
    pub(crate) power: AtomicU64,
    /// No file gets a second name.
    pub(crate) fail_links: AtomicBool,
    /// Of the next times that something is opened or read, this one fails in passing; 0 is none.
    pub(crate) fail_read: AtomicU64,
}

impl std::ops::Deref for FaultyDisk {
    type Target = Switches;

    fn deref(&self) -> &Switches {
        &self.switches
    }
}

impl FaultyDisk {
    pub(crate) fn over(inner: Arc<dyn Disk>) -> Arc<Self> {
        Arc::new(Self { inner, switches: Arc::default() })
    }
}

impl Switches {
    fn change(&self) -> io::Result<()> {
        while self.hold.load(SeqCst) {
            self.has_waited.store(true, SeqCst);
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.broken.load(SeqCst) {
            return Err(io::Error::other("broken on request"));
        }
        match self.power.load(SeqCst) {
            0 => Ok(()),
            1 => Err(io::Error::other("the power is gone")),
            n => {
                self.power.store(n - 1, SeqCst);
                Ok(())
            }
        }
    }

    fn take_room(&self) -> io::Result<()> {
        match self.room.load(SeqCst) {
            0 => Ok(()),
            1 => Err(io::ErrorKind::StorageFull.into()),
            n => {
                self.room.store(n - 1, SeqCst);
                Ok(())
            }
        }
    }

    fn grow(&self) -> io::Result<()> {
        self.change()?;
        self.take_room()?;
        if self.full.load(SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn read(&self, errno: i32) -> io::Result<()> {
        match self.fail_read.load(SeqCst) {
            0 => Ok(()),
            left => {
                self.fail_read.store(left - 1, SeqCst);
                if left == 1 { Err(io::Error::from_raw_os_error(errno)) } else { Ok(()) }
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.change()?;
        self.take_room()?;
        let left = self.fail_syncs.load(SeqCst);
        if left > 0 {
            self.fail_syncs.store(left - 1, SeqCst);
            return Err(io::Error::other("sync failed on request"));
        }
        Ok(())
    }
}

/// What a process is told that has too many files open.
const EMFILE: i32 = 24;
/// What is said of a device that does not answer.
const EIO: i32 = 5;

#[derive(Debug)]
struct FaultyRead {
    inner: Arc<dyn ReadFile>,
    switches: Arc<Switches>,
}

impl ReadFile for FaultyRead {
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.switches.read(EIO)?;
        self.inner.read_exact_at(into, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}

#[derive(Debug)]
struct FaultyFile {
    inner: Box<dyn WriteFile>,
    switches: Arc<Switches>,
    reserved: u64,
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.switches.grow()?;
        let inner = self.inner.create(path)?;
        Ok(Box::new(FaultyFile { inner, switches: Arc::clone(&self.switches), reserved: 0 }))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.switches.change()?;
        let inner = self.inner.open_write(path)?;
        let reserved = inner.len()?;
        Ok(Box::new(FaultyFile { inner, switches: Arc::clone(&self.switches), reserved }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        self.switches.read(EMFILE)?;
        let inner = self.inner.open(path)?;
        Ok(Arc::new(FaultyRead { inner, switches: Arc::clone(&self.switches) }))
    }

    fn map(&self, path: &Path, offset: u64, length: usize) -> io::Result<Mapped> {
        self.inner.map(path, offset, length)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.switches.change()?;
        self.switches.take_room()?;
        self.inner.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.switches.change()?;
        if self.switches.fail_links.load(SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.hard_link(from, to)
    }

    fn is_one_file(&self, path: &Path, other: &Path) -> io::Result<bool> {
        self.inner.is_one_file(path, other)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.switches.change()?;
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.switches.change()?;
        self.inner.remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.switches.change()?;
        self.inner.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.switches.change()?;
        self.inner.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.inner.list(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        if self.switches.full.load(SeqCst) { Ok(0) } else { self.inner.free_bytes(path) }
    }
}

impl WriteFile for FaultyFile {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if offset + bytes.len() as u64 > self.reserved {
            self.switches.grow()?
        } else {
            self.switches.change()?
        }
        self.inner.write_all_at(bytes, offset)
    }

    fn preallocate(&mut self, length: u64) -> io::Result<()> {
        self.switches.grow()?;
        self.reserved = self.reserved.max(length);
        self.inner.preallocate(length)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.switches.change()?;
        self.inner.truncate(length)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.switches.sync()?;
        self.inner.sync_data()
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.switches.sync()?;
        self.inner.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}
