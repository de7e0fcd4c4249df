//! Tells which backups there are, and removes old ones with what only they had.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    BackupError, Result,
    claim::{Claim, Work},
    manifest::{BackupName, Manifest, OBJECTS, all_names, names},
    target::Target,
};
use crate::clock::Clock;

/// A backup that is there.
#[derive(Debug)]
pub struct Listed {
    /// What it is called.
    pub name: BackupName,
    /// What it is made of, or why that cannot be read.
    pub manifest: Result<Manifest>,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Backups that were removed, oldest first.
    pub backups: Vec<String>,
    /// Objects that no backup needs any more.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Backups that are left.
    pub left: u64,
}

/// All backups, oldest first; those that cannot be read at the end.
pub fn list(target: &dyn Target) -> Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for name in names(target)? {
        let manifest = match Manifest::read(target, &name) {
            // It was removed meanwhile.
            Err(BackupError::Refused(_)) => continue,
            Err(error @ BackupError::Place { .. }) => return Err(error),
            read => read,
        };
        listed.push(Listed { name, manifest });
    }
    let order = |one: &Listed| one.manifest.as_ref().map_or((true, 0), |manifest| (false, manifest.made_ms));
    listed.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.name.cmp(&b.name)));
    Ok(listed)
}

/// Removes all backups but the `keep` newest, and what no backup needs.
pub fn prune(target: &dyn Target, clock: &Arc<dyn Clock>, keep: usize, seed: u64) -> Result<Pruned> {
    let mut claim = Claim::stake(target, clock, Work::Prune, seed)?;
    let pruned = prune_claimed(target, &mut claim, keep);
    claim.give_up();
    pruned
}

fn prune_claimed(target: &dyn Target, claim: &mut Claim<'_>, keep: usize) -> Result<Pruned> {
    if claim.is_met(Work::Create, true)? {
        return Err(BackupError::Refused(format!(
            "a backup is being made at {}, or was cut off within the hour; nothing is removed until it is done",
            target.place()
        )));
    }
    let mut manifests = Vec::new();
    if let Some(other) = all_names(target)?.1.first() {
        return Err(BackupError::Refused(format!(
            "nothing is removed, for nobody can tell what {other} is and what it needs: it has no name of a backup; remove it \
             if it is none"
        )));
    }
    for listed in list(target)? {
        // What it needs is not known.
        manifests.push(listed.manifest.map_err(|error| {
            BackupError::Refused(format!(
                "nothing is removed, for what {} needs cannot be told: {error}",
                listed.name.object()
            ))
        })?);
    }
    let old = manifests.len().saturating_sub(keep);
    let kept = manifests.split_off(old);
    let needed: BTreeSet<String> =
        kept.iter().flat_map(|manifest| manifest.files.iter().map(|file| file.object())).collect();
    let mut pruned = Pruned { left: kept.len() as u64, ..Pruned::default() };
    for manifest in manifests {
        claim.renew()?;
        let name: BackupName = manifest.name.parse().map_err(BackupError::Refused)?;
        target.remove(&name.object())?;
        pruned.backups.push(manifest.name);
    }
    for held in target.list(OBJECTS)?.into_iter().filter(|held| !needed.contains(&held.name)) {
        claim.renew()?;
        target.remove(&held.name)?;
        pruned.objects += 1;
        pruned.bytes += held.bytes;
    }
    target.sweep()?;
    Ok(pruned)
}
