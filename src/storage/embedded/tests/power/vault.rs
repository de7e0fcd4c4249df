//! Backups on the disk that loses its power, and what must be left of them.
//!
//! They are made in a directory of that disk and restored into others of it. sled is not in them, and locks are files of the
//! real disk, which knows nothing of the directories here: so the ones that are locked are made there first.

use std::{path::Path, sync::Arc};

use super::{
    super::*,
    PowerCut, Tally,
    book::{Copied, Moment, Restored},
    life::Life,
};
use crate::storage::embedded::{
    backup::{
        BackupError, CreateOptions, Directory, Progress, RestoreOptions, Target, create, list, prune,
        restore, verify,
    },
    catalog::CATALOG,
    memory_disk::{
        MemoryDisk,
        tree::{Place, ROOT},
    },
};

/// Where backups are kept, and where they are restored into to be looked at.
const KEPT: &str = "kept";
const AGAIN: &str = "again";
/// The file that says that a directory is not restored yet.
const RESTORING: &str = "RESTORING";
/// What was copied long ago is looked at once in so many steps.
const SELDOM: usize = 32;
/// What was just copied is looked at after so many steps.
const JUST: usize = 8;

fn quiet() -> impl FnMut(Progress) {
    |_| {}
}

fn target(disk: &Arc<MemoryDisk>, dir: &Path, seed: u64) -> Arc<dyn Target> {
    let disk = Arc::<MemoryDisk>::clone(disk) as Arc<dyn Disk>;
    Arc::new(Directory::new(disk, dir.join(KEPT), seed))
}

/// Restores a backup into a directory, which may have some of it.
fn put_back(disk: &Arc<MemoryDisk>, target: &dyn Target, name: &str, into: &Path) -> Result<(), BackupError> {
    std::fs::create_dir_all(into).unwrap();
    let disk = Arc::<MemoryDisk>::clone(disk) as Arc<dyn Disk>;
    let name = Some(name.parse().unwrap());
    let options = RestoreOptions { name, into: into.to_owned(), skip_damaged: false };
    restore(target, &disk, &options, &mut quiet()).map(|_| ())
}

/// Whether a copy that was acknowledged after so many steps is to be looked at now.
fn is_due(step: usize, acked: usize) -> bool {
    step < acked + JUST || step.is_multiple_of(SELDOM)
}

impl Life<'_> {
    /// Makes a backup, which takes from the one before what that has.
    pub(super) fn back_up(&mut self) {
        self.pass_a_second();
        let begun = self.disk.steps();
        let seed = u64::from(self.number());
        let name = format!("b{seed}");
        let options = CreateOptions {
            name: Some(name.parse().unwrap()),
            data_dir: self.dir.to_owned(),
            full: false,
            seed,
        };
        let mut taken = None;
        let ask = &mut || {
            let snapshot = self.runtime.block_on(self.store().snapshot(false))?;
            std::fs::create_dir_all(self.dir.join("snapshots").join(&snapshot)).unwrap();
            taken = Some((snapshot.clone(), self.disk.steps()));
            Ok(snapshot)
        };
        let disk = Arc::<MemoryDisk>::clone(&self.disk) as Arc<dyn Disk>;
        let clock = Arc::<HandClock>::clone(&self.clock) as Arc<dyn Clock>;
        let target = target(&self.disk, self.dir, seed);
        create(target.as_ref(), &disk, &clock, &options, ask, &mut quiet()).unwrap();
        let acked = self.disk.steps();
        let (snapshot, from) = taken.expect("it was asked for one");
        self.book.snapshots.push(Copied { name: snapshot, begun, acked: from, may_go: Some(from) });
        self.book.backups.push(Copied { name, begun, acked, may_go: None });
    }

    /// Removes all backups but the newest.
    pub(super) fn prune(&mut self) {
        let begun = self.disk.steps();
        let seed = u64::from(self.number());
        let clock = Arc::<HandClock>::clone(&self.clock) as Arc<dyn Clock>;
        prune(target(&self.disk, self.dir, seed).as_ref(), &clock, 1, seed).unwrap();
        if let Some((_newest, others)) = self.book.backups.split_last_mut() {
            others.iter_mut().for_each(|backup| backup.may_go = backup.may_go.or(Some(begun)));
        }
    }

    /// Restores the newest backup, if there is one, into a directory of its own.
    pub(super) fn restore(&mut self) {
        let Some(of) = self.book.backups.last().cloned() else { return };
        let begun = self.disk.steps();
        let dir = format!("restored-{}", self.number());
        let target = target(&self.disk, self.dir, 0);
        put_back(&self.disk, target.as_ref(), &of.name, &self.dir.join(&dir)).unwrap();
        self.book.restored.push(Restored { dir, of, begun, acked: self.disk.steps() });
    }
}

impl super::Past<'_> {
    /// Every snapshot that was acknowledged is there, and everyone that has its name is whole.
    pub(super) fn compare_snapshots(&self, disk: &Arc<MemoryDisk>, cut: PowerCut, tally: &Tally) {
        let tree = disk.tree();
        let all = tree.named(&Place { dir: ROOT, name: "snapshots".to_owned() });
        let named = all.and_then(|all| tree.names(all)).cloned().unwrap_or_default();
        for snapshot in self.book.snapshots.iter().filter(|snapshot| snapshot.begun <= cut.step) {
            let name = &snapshot.name;
            // One of a backup may go in the middle of being looked at.
            let due =
                is_due(cut.step, snapshot.acked) || snapshot.may_go.is_some() && cut.step.is_multiple_of(2);
            match named.get(name) {
                Some(node) if due => {
                    let what = format!("snapshot {name}");
                    self.compare_below(&what, tree.below(*node), cut, snapshot.moment(), tally);
                }
                None if snapshot.stays(cut.step) => {
                    tally.lost.lock().push(format!("{cut:?}: snapshot {name} is gone"));
                }
                Some(_) | None => {}
            }
        }
    }

    /// Every backup that was acknowledged is there and not removed; everyone that is listed is whole, and can be restored.
    /// What was being restored says that it is not, or is.
    pub(super) fn compare_backups(&self, disk: &Arc<MemoryDisk>, dir: &Path, cut: PowerCut, tally: &Tally) {
        let begun: Vec<&Copied> = self.book.backups.iter().filter(|b| b.begun <= cut.step).collect();
        if begun.is_empty() {
            return;
        }
        let fault = |what: String| tally.lost.lock().push(format!("{cut:?}: {what}"));
        let target = target(disk, dir, 0);
        let listed = match list(target.as_ref()) {
            Ok(listed) => listed,
            Err(error) => return fault(format!("backups cannot be listed: {error}")),
        };
        for backup in begun {
            let name = &backup.name;
            let is_listed = listed.iter().any(|one| one.name.to_string() == *name);
            if !is_listed && backup.stays(cut.step) {
                fault(format!("backup {name} is gone"));
            }
            let goes = backup.may_go.is_some_and(|from| from <= cut.step);
            if is_listed && (goes || is_due(cut.step, backup.acked)) {
                match verify(&target, Some(&name.parse().unwrap()), &mut quiet()) {
                    Ok(verified) if verified.findings.is_empty() => {}
                    other => fault(format!("backup {name} is damaged: {other:?}")),
                }
                let again = format!("{AGAIN}-{name}");
                self.compare_restored(disk, dir, &again, backup, cut, tally);
            }
        }
        for restored in self.book.restored.iter().filter(|restored| restored.begun <= cut.step) {
            if is_due(cut.step, restored.acked) {
                let is_whole = self.compare_restored(disk, dir, &restored.dir, &restored.of, cut, tally);
                if !is_whole && restored.acked <= cut.step {
                    fault(format!("what was restored into {} is not all there", restored.dir));
                }
            }
        }
    }

    /// Goes on restoring a backup, unless that is done, and looks at it: whether it was done.
    fn compare_restored(
        &self,
        disk: &Arc<MemoryDisk>,
        dir: &Path,
        name: &str,
        of: &Copied,
        cut: PowerCut,
        tally: &Tally,
    ) -> bool {
        let into = dir.join(name);
        let entries = disk.list(&into).unwrap();
        let is_whole = entries.iter().any(|entry| !entry.name.ends_with(".tmp"))
            && !entries.iter().any(|entry| entry.name == RESTORING);
        if !is_whole && let Err(error) = put_back(disk, target(disk, dir, 0).as_ref(), &of.name, &into) {
            let fault = format!("{cut:?}: backup {} is not restored into {name}: {error}", of.name);
            tally.lost.lock().push(fault);
            return is_whole;
        }
        let tree = disk.tree();
        let node = tree.named(&Place { dir: ROOT, name: name.to_owned() }).expect("it was restored there");
        self.compare_below(name, tree.below(node), cut, of.moment(), tally);
        is_whole
    }

    /// Opens a directory that can be opened as a store of its own, and compares what that shows.
    fn compare_below(
        &self,
        what: &str,
        tree: crate::storage::embedded::memory_disk::tree::Tree,
        cut: PowerCut,
        moment: Moment,
        tally: &Tally,
    ) {
        let dir = super::directory();
        let disk = MemoryDisk::holding(tree, dir.path(), CATALOG, None);
        let told = self.open_and_compare(what, &disk, dir.path(), cut, moment, tally);
        if let Some(told) = told.filter(|told| !told.is_empty()) {
            tally.lost.lock().push(format!("{cut:?}: {what} is damaged: {told:?}"));
        }
    }
}
