//! A disk for tests that knows what is durable, and loses any of the rest when the power goes.
//!
//! It holds a [`Tree`] and notes every [`Step`] that changes it, so that the disk as it was between any two steps can be
//! put together again later ([`MemoryDisk::history`]). What lies in the `except` directory is on the real disk, for
//! sled; whenever the file that says which generation of it counts is about to be written, sled is at rest, and
//! the directory is copied aside if that was asked for.

pub(crate) mod tree;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use self::tree::{Cut, Node, Place, ROOT, Stays, Step, Tree};
use super::{
    catalog::SUPERBLOCK,
    disk::{Disk, Entry, Mapped, ReadFile, SystemDisk, WriteFile},
};

#[derive(Debug)]
pub(crate) struct MemoryDisk {
    root: PathBuf,
    except: PathBuf,
    copies: Option<PathBuf>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    tree: Tree,
    history: History,
}

/// What happened to a disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The disk at the start.
    pub(crate) before: Tree,
    pub(crate) steps: Vec<Step>,
    /// Copies of the excepted directory, or that it was removed, and after how many steps.
    pub(crate) copies: Vec<(usize, Option<PathBuf>)>,
}

impl State {
    fn take(&mut self, step: Step) {
        self.tree.take(&step);
        self.history.steps.push(step);
    }
}

impl MemoryDisk {
    /// An empty disk.
    pub(crate) fn new(root: &Path, except: &str) -> Arc<Self> {
        Self::holding(Tree::default(), root, except, None)
    }

    /// A disk that holds this, all of it durable. Copies of what is excepted go to a directory, if there is one.
    pub(crate) fn holding(tree: Tree, root: &Path, except: &str, copies: Option<&Path>) -> Arc<Self> {
        let history = History { before: tree.clone(), ..History::default() };
        Arc::new(Self {
            root: root.to_owned(),
            except: root.join(except),
            copies: copies.map(Path::to_owned),
            state: Arc::new(Mutex::new(State { tree, history })),
        })
    }

    /// Forgets everything that was not synced.
    pub(crate) fn lose_power(&self) {
        let state = &mut *self.state.lock();
        state.tree = state.tree.cut(&mut Cut::new(Stays::Nothing, 0));
        state.history = History { before: state.tree.clone(), ..History::default() };
    }

    /// How many steps were taken.
    pub(crate) fn steps(&self) -> usize {
        self.state.lock().history.steps.len()
    }

    /// What happened so far.
    pub(crate) fn history(&self) -> History {
        self.state.lock().history.clone()
    }

    /// The disk as it is now.
    pub(crate) fn tree(&self) -> Tree {
        self.state.lock().tree.clone()
    }

    fn real(&self, path: &Path) -> bool {
        path.starts_with(&self.except)
    }

    fn copy_aside(&self) {
        let Some(copies) = &self.copies else { return };
        let state = &mut *self.state.lock();
        let to = copies.join(state.history.copies.len().to_string());
        super::tests::copy_dir(&self.except, &to);
        state.history.copies.push((state.history.steps.len(), Some(to)));
    }

    /// The steps down to a path, if it is on this disk.
    fn names<'a>(&self, path: &'a Path) -> io::Result<impl Iterator<Item = String> + 'a> {
        let below = path.strip_prefix(&self.root).map_err(|_| io::ErrorKind::NotFound)?;
        Ok(below.iter().map(|name| name.to_string_lossy().into_owned()))
    }

    fn find(&self, tree: &Tree, path: &Path) -> io::Result<Node> {
        let mut node = ROOT;
        for name in self.names(path)? {
            node = tree.named(&Place { dir: node, name }).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    fn place(&self, tree: &Tree, path: &Path) -> io::Result<Place> {
        let dir = self.find(tree, path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
        Ok(Place { dir, name })
    }

    fn handle(&self, tree: &Tree, path: &Path) -> io::Result<Handle> {
        let file = self.find(tree, path)?;
        tree.bytes(file).ok_or(io::ErrorKind::IsADirectory)?;
        Ok(Handle { state: Arc::clone(&self.state), file })
    }
}

#[derive(Debug)]
struct Handle {
    state: Arc<Mutex<State>>,
    file: Node,
}

impl Disk for MemoryDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        if self.real(path) {
            return SystemDisk.create(path);
        }
        let state = &mut *self.state.lock();
        let place = self.place(&state.tree, path)?;
        match state.tree.named(&place) {
            // As a file that is opened to be emptied.
            Some(file) => state.take(Step::Resize { file, length: 0 }),
            None => state.take(Step::MakeFile(place)),
        }
        Ok(Box::new(self.handle(&state.tree, path)?))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        if self.real(path) {
            return SystemDisk.open_write(path);
        }
        if path == self.root.join(SUPERBLOCK) {
            self.copy_aside();
        }
        Ok(Box::new(self.handle(&self.state.lock().tree, path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        if self.real(path) {
            return SystemDisk.open(path);
        }
        Ok(Arc::new(self.handle(&self.state.lock().tree, path)?))
    }

    fn map(&self, path: &Path, offset: u64, length: usize) -> io::Result<Mapped> {
        let mut bytes = vec![0; length];
        self.open(path)?.read_exact_at(&mut bytes, offset)?;
        Ok(Mapped::Bytes(bytes.into()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let state = &mut *self.state.lock();
        let (from, to) = (self.place(&state.tree, from)?, self.place(&state.tree, to)?);
        let node = state.tree.named(&from).ok_or(io::ErrorKind::NotFound)?;
        let over = state.tree.named(&to);
        if over.is_some_and(|over| over != node && state.tree.names(over).is_some()) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        state.take(Step::Move { from, to });
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let state = &mut *self.state.lock();
        let (node, place) = (self.find(&state.tree, from)?, self.place(&state.tree, to)?);
        if state.tree.named(&place).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.take(Step::Link(node, place));
        Ok(())
    }

    fn is_one_file(&self, path: &Path, other: &Path) -> io::Result<bool> {
        let tree = &self.state.lock().tree;
        Ok(self.find(tree, path)? == self.find(tree, other)?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        if self.real(path) {
            return SystemDisk.remove_file(path);
        }
        let state = &mut *self.state.lock();
        let place = self.place(&state.tree, path)?;
        let node = state.tree.named(&place).ok_or(io::ErrorKind::NotFound)?;
        state.tree.bytes(node).ok_or(io::ErrorKind::IsADirectory)?;
        state.take(Step::Remove(place));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let state = &mut *self.state.lock();
        if self.real(path) {
            state.history.copies.push((state.history.steps.len(), None));
            return SystemDisk.remove_dir_all(path);
        }
        let place = self.place(&state.tree, path)?;
        let dir = state.tree.named(&place).ok_or(io::ErrorKind::NotFound)?;
        remove_below(state, dir);
        state.take(Step::Remove(place));
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if self.real(path) {
            return SystemDisk.create_dir_all(path);
        }
        let state = &mut *self.state.lock();
        let mut dir = ROOT;
        for name in self.names(path)? {
            let place = Place { dir, name };
            if state.tree.named(&place).is_none() {
                state.take(Step::MakeDir(place.clone()));
            }
            dir = state.tree.named(&place).expect("it was made");
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if !path.starts_with(&self.root) {
            // What is above this disk is as durable as it.
            return Ok(());
        }
        let state = &mut *self.state.lock();
        let dir = self.find(&state.tree, path)?;
        state.take(Step::SyncDir(dir));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        if self.real(path) {
            return SystemDisk.list(path);
        }
        let tree = &self.state.lock().tree;
        let Ok(dir) = self.find(tree, path) else { return Ok(Vec::new()) };
        let names = tree.names(dir).ok_or(io::ErrorKind::NotADirectory)?;
        let entry = |(name, node): (&String, &Node)| {
            let bytes = tree.bytes(*node);
            let size = bytes.map_or(0, |bytes| bytes.len() as u64);
            Entry { name: name.clone(), is_dir: bytes.is_none(), size }
        };
        Ok(names.iter().map(entry).collect())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(1 << 40)
    }
}

fn remove_below(state: &mut State, dir: Node) {
    let names = state.tree.names(dir).cloned().unwrap_or_default();
    for (name, node) in names {
        remove_below(state, node);
        state.take(Step::Remove(Place { dir, name }));
    }
}

fn index(n: u64) -> io::Result<usize> {
    usize::try_from(n).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl Handle {
    fn length(&self) -> usize {
        self.state.lock().tree.bytes(self.file).map_or(0, <[u8]>::len)
    }

    fn take(&self, step: Step) {
        self.state.lock().take(step);
    }
}

impl WriteFile for Handle {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.take(Step::Write { file: self.file, at: index(offset)?, bytes: bytes.into() });
        Ok(())
    }

    fn preallocate(&mut self, length: u64) -> io::Result<()> {
        let length = index(length)?;
        if self.length() < length {
            self.take(Step::Resize { file: self.file, length });
        }
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.take(Step::Resize { file: self.file, length: index(length)? });
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.take(Step::Sync(self.file));
        Ok(())
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.length() as u64)
    }
}

impl ReadFile for Handle {
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.state.lock();
        let bytes = state.tree.bytes(self.file).ok_or(io::ErrorKind::IsADirectory)?;
        let from = index(offset)?;
        let end = from.checked_add(into.len()).ok_or(io::ErrorKind::InvalidInput)?;
        into.copy_from_slice(bytes.get(from..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.length() as u64)
    }
}
