//! A disk for tests that knows what is durable, and forgets the rest when the power goes.
//!
//! A file has its bytes as written and as last synced; a directory its names as they are and as last
//! synced. [`MemoryDisk::lose_power`] goes back to what was synced. It is as unkind as a disk may be: nothing gets
//! durable by itself. What lies in the `except` directory is on the real disk, for sled.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::disk::{Disk, Entry, Mapped, ReadFile, SystemDisk, WriteFile};

#[derive(Debug)]
pub(crate) struct MemoryDisk {
    root: PathBuf,
    except: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<PathBuf, Arc<Inode>>,
    durable_names: BTreeMap<PathBuf, Arc<Inode>>,
    dirs: BTreeSet<PathBuf>,
    durable_dirs: BTreeSet<PathBuf>,
}

#[derive(Debug, Default)]
struct Inode {
    bytes: Mutex<(Vec<u8>, Vec<u8>)>,
}

impl MemoryDisk {
    pub(crate) fn new(root: &Path, except: &str) -> Arc<Self> {
        Arc::new(Self { root: root.to_owned(), except: root.join(except), state: Mutex::default() })
    }

    /// Forgets everything that was not synced.
    pub(crate) fn lose_power(&self) {
        let state = &mut *self.state.lock();
        state.dirs = state
            .durable_dirs
            .iter()
            .filter(|dir| {
                let above = dir.ancestors().take_while(|d| *d != self.root);
                above.into_iter().all(|d| state.durable_dirs.contains(d))
            })
            .cloned()
            .collect();
        let dirs = &state.dirs;
        let root = &self.root;
        state.durable_names.retain(|path, _| path.parent().is_some_and(|d| d == root || dirs.contains(d)));
        state.names = state
            .durable_names
            .iter()
            .map(|(path, inode)| {
                let durable = inode.bytes.lock().1.clone();
                (path.clone(), Arc::new(Inode { bytes: Mutex::new((durable.clone(), durable)) }))
            })
            .collect();
        state.durable_names = state.names.clone();
    }

    fn real(&self, path: &Path) -> bool {
        path.starts_with(&self.except)
    }

    fn inode(&self, path: &Path) -> io::Result<Arc<Inode>> {
        self.state.lock().names.get(path).map(Arc::clone).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[derive(Debug)]
struct Handle(Arc<Inode>);

impl Disk for MemoryDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        if self.real(path) {
            return SystemDisk.create(path);
        }
        let inode = Arc::<Inode>::default();
        self.state.lock().names.insert(path.to_owned(), Arc::clone(&inode));
        Ok(Box::new(Handle(inode)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        if self.real(path) { SystemDisk.open_write(path) } else { Ok(Box::new(Handle(self.inode(path)?))) }
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        if self.real(path) { SystemDisk.open(path) } else { Ok(Arc::new(Handle(self.inode(path)?))) }
    }

    fn map(&self, path: &Path, offset: u64, length: usize) -> io::Result<Mapped> {
        let mut bytes = vec![0; length];
        self.open(path)?.read_exact_at(&mut bytes, offset)?;
        Ok(Mapped::Bytes(bytes.into()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let state = &mut *self.state.lock();
        if let Some(inode) = state.names.remove(from) {
            state.names.insert(to.to_owned(), inode);
            return Ok(());
        }
        if !state.dirs.remove(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.dirs.insert(to.to_owned());
        let moved = |path: &Path| path.strip_prefix(from).ok().map(|below| to.join(below));
        // What is durable below stays so, and is found again once the new name is.
        let durable = state.durable_names.iter().filter_map(|(p, i)| Some((moved(p)?, Arc::clone(i))));
        let durable: Vec<_> = durable.collect();
        state.durable_names.extend(durable);
        let durable: Vec<PathBuf> =
            state.durable_dirs.iter().filter(|p| *p != from).filter_map(|p| moved(p)).collect();
        state.durable_dirs.extend(durable);
        let rename = |p: PathBuf| moved(&p).unwrap_or(p);
        state.dirs = std::mem::take(&mut state.dirs).into_iter().map(rename).collect();
        state.names = std::mem::take(&mut state.names).into_iter().map(|(p, i)| (rename(p), i)).collect();
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.inode(from)?;
        let state = &mut *self.state.lock();
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        if self.real(path) {
            return SystemDisk.remove_file(path);
        }
        self.state.lock().names.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        if self.real(path) {
            return SystemDisk.remove_dir_all(path);
        }
        let state = &mut *self.state.lock();
        state.names.retain(|p, _| !p.starts_with(path));
        state.dirs.retain(|p| !p.starts_with(path));
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if self.real(path) {
            return SystemDisk.create_dir_all(path);
        }
        let below = path.ancestors().take_while(|d| *d != self.root).map(Path::to_owned);
        self.state.lock().dirs.extend(below);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let state = &mut *self.state.lock();
        let here = |p: &Path| p.parent() == Some(path);
        state.durable_names.retain(|p, _| !here(p));
        let names = state.names.iter().filter(|(p, _)| here(p)).map(|(p, i)| (p.clone(), Arc::clone(i)));
        state.durable_names.extend(names);
        state.durable_dirs.retain(|p| !here(p));
        let dirs = state.dirs.iter().filter(|p| here(p)).cloned();
        state.durable_dirs.extend(dirs);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        if self.real(path) {
            return SystemDisk.list(path);
        }
        let state = self.state.lock();
        let name = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let here = |p: &&PathBuf| p.parent() == Some(path);
        let dirs = state.dirs.iter().filter(here).map(|p| Entry { name: name(p), is_dir: true, size: 0 });
        let files = state.names.iter().filter(|(p, _)| here(p)).map(|(p, inode)| Entry {
            name: name(p),
            is_dir: false,
            size: inode.bytes.lock().0.len() as u64,
        });
        let mut all: Vec<Entry> = dirs.chain(files).collect();
        all.sort();
        Ok(all)
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(1 << 40)
    }
}

fn index(n: u64) -> io::Result<usize> {
    usize::try_from(n).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl WriteFile for Handle {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let live = &mut self.0.bytes.lock().0;
        let from = index(offset)?;
        if live.len() < from + bytes.len() {
            live.resize(from + bytes.len(), 0);
        }
        live[from..from + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn preallocate(&mut self, length: u64) -> io::Result<()> {
        let live = &mut self.0.bytes.lock().0;
        let length = index(length)?.max(live.len());
        live.resize(length, 0);
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.bytes.lock().0.resize(index(length)?, 0);
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let (live, durable) = &mut *self.0.bytes.lock();
        durable.clone_from(live);
        Ok(())
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.bytes.lock().0.len() as u64)
    }
}

impl ReadFile for Handle {
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let live = &self.0.bytes.lock().0;
        let from = index(offset)?;
        let there = live.get(from..from + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(there);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.bytes.lock().0.len() as u64)
    }
}
