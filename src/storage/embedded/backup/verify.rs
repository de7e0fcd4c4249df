//! Reads a backup back: every byte under its checksum, every part opened, the ledger and the documents read.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{
    super::{
        catalog::ledger::{self, LEDGER},
        disk::Disk,
        documents::{self, DOCUMENTS},
        part::Part,
    },
    BackupError, Progress, Result, Told,
    manifest::{BackedFile, BackupName, Manifest, OBJECTS},
    pieces::Pieces,
    remote::Remote,
    target::Target,
};

/// What was found of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What it is made of.
    pub manifest: Manifest,
    /// What of it is not as it should be.
    pub findings: Vec<Finding>,
}

/// A file of a backup that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where it belongs in a data directory.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

/// Checks a backup, the newest unless one is named. Whatever is wrong with one of its files is a finding.
pub fn verify(target: &Arc<dyn Target>, name: Option<&BackupName>, told: &mut Told<'_>) -> Result<Verified> {
    let manifest = Manifest::find(target.as_ref(), name)?;
    let there = target.list(OBJECTS)?;
    let there: BTreeMap<String, u64> = there.into_iter().map(|held| (held.name, held.bytes)).collect();
    let remote: Arc<dyn Disk> = Arc::new(Remote::new(target, &manifest));
    let mut progress =
        Progress { of_files: manifest.files.len() as u64, of_bytes: manifest.bytes, ..Progress::default() };
    told(progress);
    let mut findings = Vec::new();
    for file in &manifest.files {
        let size = there.get(&file.object()).copied();
        if let Some(why) = wrong(target.as_ref(), &remote, file, size)? {
            findings.push(Finding { path: file.path.clone(), why });
        }
        progress.files += 1;
        progress.bytes += file.bytes;
        told(progress);
    }
    Ok(Verified { manifest, findings })
}

/// What is wrong with a file, if something is. That the place cannot be read is an error, and says nothing of the file.
fn wrong(
    target: &dyn Target,
    remote: &Arc<dyn Disk>,
    file: &BackedFile,
    size: Option<u64>,
) -> Result<Option<String>> {
    match size {
        None => return Ok(Some(format!("its object {} is missing", file.object()))),
        Some(size) if size != file.bytes => {
            return Ok(Some(format!("its object has {size} bytes instead of {}", file.bytes)));
        }
        Some(_) => {}
    }
    match Pieces::of_backed(target, file).sha256_of_all() {
        Ok(sha256) if sha256 == file.sha256 => {}
        Ok(_) => return Ok(Some("its bytes are not those that were written".to_owned())),
        Err(error @ (BackupError::Missing { .. } | BackupError::Damaged { .. })) => {
            return Ok(Some(error.to_string()));
        }
        Err(error) => return Err(error),
    }
    let path = Path::new(&file.path);
    let damage = match &*file.path {
        LEDGER => match ledger::read(remote, path) {
            Ok(Some(read)) => read.damage.first().map(ToString::to_string),
            Ok(None) => Some("it is not there".to_owned()),
            Err(error) => Some(error.to_string()),
        },
        DOCUMENTS => match documents::read(remote.as_ref(), path) {
            Ok((_, damage)) => damage.first().cloned(),
            Err(error) => Some(error.to_string()),
        },
        _ => Part::open(remote, path).err().map(|error| error.to_string()),
    };
    let known = file.part.as_ref().is_some_and(|part| part.damaged);
    let known = known.then(|| "it was damaged already in the store that it was copied from".to_owned());
    Ok(damage.or(known))
}
