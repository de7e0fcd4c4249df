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
    /// After so many more changes to the disk, nothing changes any more, as if the power had gone; 0 is never.
    pub(crate) power: AtomicU64,
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
        self.inner.open(path)
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
        self.inner.hard_link(from, to)
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
