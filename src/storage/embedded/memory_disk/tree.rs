//! Files and directories that know what of them is durable, and what may be left when the power goes.
//!
//! Bytes and size of a file are durable once it was synced, a name once its directory was. Until then
//! [`Tree::cut`] keeps or loses them as a [`Cut`] says: every sector of every write by itself, the size
//! apart from the bytes, each change of names apart from those before and after it. A rename within a directory is
//! whole or not at all; one between directories may, after the one was synced, still be missing in the other.

use std::{collections::BTreeMap, sync::Arc};

/// A file's or a directory's number. Numbers are given in order, so the same steps give the same ones.
pub(crate) type Node = usize;

/// The directory that all is in.
pub(crate) const ROOT: Node = 0;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) dir: Node,
    pub(crate) name: String,
}

/// A change of the disk, or one that makes changes durable.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    MakeFile(Place),
    MakeDir(Place),
    Link(Node, Place),
    Move { from: Place, to: Place },
    Remove(Place),
    SyncDir(Node),
    Write { file: Node, at: usize, bytes: Arc<[u8]> },
    Resize { file: Node, length: usize },
    Sync(Node),
}

/// All files and directories. Copies share what none of them has changed since.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    nodes: Vec<Arc<Content>>,
    /// Changes of names that are not durable, from the oldest on; each holds as a whole until it is in part.
    pending: Vec<Vec<(Place, Option<Node>)>>,
}

#[derive(Clone, Debug)]
enum Content {
    File(File),
    Dir(Dir),
}

#[derive(Clone, Debug, Default)]
struct File {
    now: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    /// What happened since.
    unsynced: Vec<Touch>,
}

#[derive(Clone, Debug)]
enum Touch {
    Write { at: usize, bytes: Arc<[u8]> },
    Resize(usize),
}

type Names = BTreeMap<String, Node>;

#[derive(Clone, Debug, Default)]
struct Dir {
    now: Names,
    durable: Names,
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: vec![Arc::new(Content::Dir(Dir::default()))], pending: Vec::new() }
    }
}

impl Tree {
    /// Takes a step, which must make sense.
    pub(crate) fn take(&mut self, step: &Step) {
        match step {
            Step::MakeFile(place) => {
                self.nodes.push(Arc::new(Content::File(File::default())));
                self.rename(vec![(place.clone(), Some(self.nodes.len() - 1))]);
            }
            Step::MakeDir(place) => {
                self.nodes.push(Arc::new(Content::Dir(Dir::default())));
                self.rename(vec![(place.clone(), Some(self.nodes.len() - 1))]);
            }
            Step::Link(node, place) => self.rename(vec![(place.clone(), Some(*node))]),
            Step::Move { from, to } => {
                let node = self.named(from);
                self.rename(vec![(from.clone(), None), (to.clone(), node)]);
            }
            Step::Remove(place) => self.rename(vec![(place.clone(), None)]),
            Step::SyncDir(dir) => self.sync_dir(*dir),
            Step::Write { file, at, bytes } => {
                let file = self.file_mut(*file);
                put(Arc::make_mut(&mut file.now), *at, bytes);
                file.unsynced.push(Touch::Write { at: *at, bytes: Arc::clone(bytes) });
            }
            Step::Resize { file, length } => {
                let file = self.file_mut(*file);
                Arc::make_mut(&mut file.now).resize(*length, 0);
                file.unsynced.push(Touch::Resize(*length));
            }
            Step::Sync(file) => {
                let file = self.file_mut(*file);
                if !file.unsynced.is_empty() {
                    file.durable = Arc::clone(&file.now);
                    file.unsynced.clear();
                }
            }
        }
    }

    /// What has this name now.
    pub(crate) fn named(&self, place: &Place) -> Option<Node> {
        self.names(place.dir)?.get(&place.name).copied()
    }

    /// The names in a directory, if it is one.
    pub(crate) fn names(&self, dir: Node) -> Option<&Names> {
        match &**self.nodes.get(dir)? {
            Content::Dir(dir) => Some(&dir.now),
            Content::File(_) => None,
        }
    }

    /// The bytes of a file, if it is one.
    pub(crate) fn bytes(&self, file: Node) -> Option<&[u8]> {
        match &**self.nodes.get(file)? {
            Content::File(file) => Some(&file.now),
            Content::Dir(_) => None,
        }
    }

    /// A tree of its own of what is in a directory.
    pub(crate) fn below(&self, dir: Node) -> Self {
        let mut tree = self.clone();
        tree.nodes.swap(ROOT, dir);
        tree
    }

    /// What a disk may hold after the power has gone now.
    pub(crate) fn cut(&self, how: &mut Cut) -> Self {
        let mut left = self.clone();
        for change in left.pending.drain(..).collect::<Vec<_>>() {
            if how.keeps_name() {
                change
                    .into_iter()
                    .for_each(|(place, node)| set(&mut left.dir_mut(place.dir).durable, place, node));
            }
        }
        for content in left.nodes.iter_mut().filter(|content| content.has_changed()) {
            match Arc::make_mut(content) {
                Content::Dir(dir) => dir.now = dir.durable.clone(),
                Content::File(file) => {
                    file.now = Arc::new(file.torn(how));
                    file.durable = Arc::clone(&file.now);
                    file.unsynced.clear();
                }
            }
        }
        left
    }

    fn rename(&mut self, change: Vec<(Place, Option<Node>)>) {
        for (place, node) in &change {
            set(&mut self.dir_mut(place.dir).now, place.clone(), *node);
        }
        self.pending.push(change);
    }

    fn sync_dir(&mut self, dir: Node) {
        for mut change in std::mem::take(&mut self.pending) {
            let here: Vec<_> = change.extract_if(.., |(place, _)| place.dir == dir).collect();
            here.into_iter().for_each(|(place, node)| set(&mut self.dir_mut(dir).durable, place, node));
            if !change.is_empty() {
                self.pending.push(change);
            }
        }
    }

    fn file_mut(&mut self, node: Node) -> &mut File {
        match Arc::make_mut(&mut self.nodes[node]) {
            Content::File(file) => file,
            Content::Dir(_) => panic!("node {node} is a directory"),
        }
    }

    fn dir_mut(&mut self, node: Node) -> &mut Dir {
        match Arc::make_mut(&mut self.nodes[node]) {
            Content::Dir(dir) => dir,
            Content::File(_) => panic!("node {node} is a file"),
        }
    }
}

impl Content {
    /// Whether there is anything that is not durable.
    fn has_changed(&self) -> bool {
        match self {
            Self::File(file) => !file.unsynced.is_empty(),
            Self::Dir(dir) => dir.now != dir.durable,
        }
    }
}

impl File {
    fn torn(&self, how: &mut Cut) -> Vec<u8> {
        let mut bytes = Vec::clone(&self.durable);
        let mut length = bytes.len();
        for touch in &self.unsynced {
            match touch {
                Touch::Write { at, bytes: written } => {
                    let end = at + written.len();
                    let mut from = *at;
                    while from < end {
                        let to = ((from / how.sector + 1) * how.sector).min(end);
                        if how.keeps_bytes() {
                            put(&mut bytes, from, &written[from - at..to - at]);
                        }
                        from = to;
                    }
                    if end > length && how.keeps_size() {
                        length = end;
                    }
                }
                Touch::Resize(to) => {
                    if how.keeps_size() {
                        bytes.truncate(*to);
                        length = *to;
                    }
                }
            }
        }
        bytes.resize(length, 0);
        bytes
    }
}

fn put(into: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if into.len() < end {
        into.resize(end, 0);
    }
    into[at..end].copy_from_slice(bytes);
}

fn set(names: &mut Names, place: Place, node: Option<Node>) {
    match node {
        Some(node) => names.insert(place.name, node),
        None => names.remove(&place.name),
    };
}

/// What stays of that which is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stays {
    /// Nothing: the disk is as unkind as it may be.
    Nothing,
    /// Names and sizes, and zeros for bytes.
    Names,
    /// Bytes and sizes of what has a durable name.
    Bytes,
    /// Any of it.
    Some,
    /// All: the process was killed.
    Everything,
}

/// One end of the power.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    stays: Stays,
    random: Random,
    /// Of eight.
    odds: u32,
    sector: usize,
}

impl Cut {
    pub(crate) fn new(stays: Stays, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let odds = [1, 4, 7][random.below(3) as usize];
        let sector = [512, 4096][random.below(2) as usize];
        Self { stays, random, odds, sector }
    }

    fn chance(&mut self) -> bool {
        self.random.below(8) < self.odds
    }

    fn keeps_name(&mut self) -> bool {
        match self.stays {
            Stays::Nothing | Stays::Bytes => false,
            Stays::Names | Stays::Everything => true,
            Stays::Some => self.chance(),
        }
    }

    fn keeps_size(&mut self) -> bool {
        match self.stays {
            Stays::Nothing => false,
            Stays::Names | Stays::Bytes | Stays::Everything => true,
            Stays::Some => self.chance(),
        }
    }

    fn keeps_bytes(&mut self) -> bool {
        match self.stays {
            Stays::Nothing | Stays::Names => false,
            Stays::Bytes | Stays::Everything => true,
            Stays::Some => self.chance(),
        }
    }
}

/// Numbers that look random, the same for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        u32::try_from(self.next() % u64::from(n)).expect("less than 32 bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &str) -> Place {
        Place { dir: ROOT, name: name.to_owned() }
    }

    fn write(file: Node, at: usize, byte: u8, length: usize) -> Step {
        Step::Write { file, at, bytes: vec![byte; length].into() }
    }

    fn tree(steps: &[Step]) -> Tree {
        let mut tree = Tree::default();
        steps.iter().for_each(|step| tree.take(step));
        tree
    }

    /// What a cut may leave of the file of this name.
    fn outcomes(tree: &Tree, name: &str) -> Vec<Option<Vec<u8>>> {
        let mut all: Vec<_> = (0..2000)
            .map(|seed| tree.cut(&mut Cut::new(Stays::Some, seed)))
            .map(|left| left.named(&at(name)).map(|node| left.bytes(node).unwrap().to_vec()))
            .collect();
        all.sort();
        all.dedup();
        all
    }

    #[test]
    fn what_was_synced_stays_whatever_is_lost() {
        let tree = tree(&[Step::MakeFile(at("a")), write(1, 0, 7, 9), Step::Sync(1), Step::SyncDir(ROOT)]);
        assert_eq!(outcomes(&tree, "a"), [Some(vec![7; 9])]);
    }

    #[test]
    fn a_name_without_its_bytes_and_any_part_of_them_may_be_left() {
        let tree = tree(&[Step::MakeFile(at("a")), write(1, 0, 7, 1024)]);
        let left = outcomes(&tree, "a");
        let halves = |a, b| Some([vec![a; 512], vec![b; 512]].concat());
        for expect in [None, Some(vec![]), halves(0, 0), halves(7, 0), halves(0, 7), halves(7, 7)] {
            assert!(left.contains(&expect));
        }
        assert_eq!(left.len(), 6);
    }

    #[test]
    fn a_rename_is_whole_or_missing_and_may_come_without_what_was_before_it() {
        let made = [Step::MakeFile(at("old")), Step::SyncDir(ROOT), Step::MakeFile(at("new"))];
        let moved = Step::Move { from: at("new"), to: at("old") };
        let tree = tree(&[&made[..], &[moved, Step::Remove(at("x"))]].concat());
        let names = |seed| {
            let left = tree.cut(&mut Cut::new(Stays::Some, seed));
            (left.named(&at("old")), left.named(&at("new")))
        };
        let mut left: Vec<_> = (0..100).map(names).collect();
        left.sort();
        left.dedup();
        assert_eq!(left, [(Some(1), None), (Some(1), Some(2)), (Some(2), None)]);
    }

    #[test]
    fn the_directories_of_a_rename_are_synced_apart() {
        let below = |dir, name: &str| Place { dir, name: name.to_owned() };
        let mut tree = tree(&[
            Step::MakeDir(at("a")),
            Step::MakeDir(at("b")),
            Step::MakeFile(below(1, "f")),
            Step::SyncDir(ROOT),
            Step::SyncDir(1),
            Step::Move { from: below(1, "f"), to: below(2, "f") },
            Step::SyncDir(2),
        ]);
        let nothing = |tree: &Tree| {
            let left = tree.cut(&mut Cut::new(Stays::Nothing, 1));
            (left.named(&below(1, "f")), left.named(&below(2, "f")))
        };
        assert_eq!(nothing(&tree), (Some(3), Some(3)));
        tree.take(&Step::SyncDir(1));
        assert_eq!(nothing(&tree), (None, Some(3)));
    }

    #[test]
    fn a_file_that_was_cut_and_grew_again_has_zeros_there() {
        let steps = [Step::MakeFile(at("a")), write(1, 0, 7, 6), Step::Sync(1), Step::SyncDir(ROOT)];
        let resized = [Step::Resize { file: 1, length: 2 }, Step::Resize { file: 1, length: 4 }];
        let left = outcomes(&tree(&[&steps[..], &resized].concat()), "a");
        let some = |bytes: &[u8]| Some(bytes.to_vec());
        assert_eq!(left, [some(&[7, 7]), some(&[7, 7, 0, 0]), some(&[7; 4]), some(&[7; 6])]);
    }
}
