//! Makes a backup: a snapshot, the files of it that are not there yet, the manifest.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    super::{
        catalog::ledger::LEDGER,
        disk::Disk,
        documents::DOCUMENTS,
        part::{Part, Seal},
    },
    BackupError, Progress, Result, Told,
    claim::{Claim, Work},
    manifest::{BackedFile, BackedPart, BackupName, FORMAT, Manifest, OBJECTS, object},
    pieces::Pieces,
    snapshot::{LastBackup, Taken},
    target::Target,
};
use crate::clock::Clock;

/// What a backup is made of, and how.
#[derive(Debug)]
pub struct CreateOptions {
    /// Its name, of the time it is made at unless one is given.
    pub name: Option<BackupName>,
    /// The directory of the store.
    pub data_dir: PathBuf,
    /// Read and copy everything, also what is there already.
    pub full: bool,
    /// A number unlike that of other processes.
    pub seed: u64,
}

/// A backup that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// What it is made of.
    pub manifest: Manifest,
    /// Files that were copied for it.
    pub copied_files: u64,
}

/// Makes a backup of a store. A running server is asked for a snapshot by `ask`, which gives its name.
pub fn create(
    target: &dyn Target,
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    options: &CreateOptions,
    ask: &mut dyn FnMut() -> Result<String>,
    told: &mut Told<'_>,
) -> Result<Made> {
    let claim = Claim::stake(target, clock, Work::Create, options.seed)?;
    let mut copy = Copy { target, disk, claim, told, progress: Progress::default(), copied: (0, 0) };
    let made = copy.run(clock, options, ask);
    copy.claim.give_up();
    made
}

struct Copy<'a, 'b> {
    target: &'a dyn Target,
    disk: &'a Arc<dyn Disk>,
    claim: Claim<'a>,
    told: &'a mut Told<'b>,
    progress: Progress,
    /// Files and bytes that had to be copied.
    copied: (u64, u64),
}

impl Copy<'_, '_> {
    fn run(
        &mut self,
        clock: &Arc<dyn Clock>,
        options: &CreateOptions,
        ask: &mut dyn FnMut() -> Result<String>,
    ) -> Result<Made> {
        if self.claim.is_met(Work::Prune, false)? {
            return Err(BackupError::Refused(format!(
                "old backups are being removed at {}; try again when that is done",
                self.target.place()
            )));
        }
        let there = self.target.list(OBJECTS)?;
        let there: BTreeMap<String, u64> = there.into_iter().map(|held| (held.name, held.bytes)).collect();
        let before = if options.full { BTreeMap::new() } else { self.known()? };
        let made_ms = clock.now().0;
        let name = match &options.name {
            Some(name) => name.clone(),
            None => by_time(made_ms)?,
        };
        let taken = Taken::take(self.disk, clock, &options.data_dir, ask)?;
        let files = self.files(&taken.dir)?;
        self.progress.of_files = files.len() as u64;
        self.progress.of_bytes = files.iter().map(|(_, bytes)| bytes).sum();
        (self.told)(self.progress);
        let mut held: BTreeSet<String> = BTreeSet::new();
        let mut backed = Vec::with_capacity(files.len());
        for (path, bytes) in files {
            let file = self.file(&taken.dir, path, bytes, &before)?;
            let object = file.object();
            let is_there = !options.full && there.get(&object) == Some(&file.bytes);
            if !is_there && held.insert(object) {
                self.copy(&taken.dir, &file)?;
            }
            self.progress.files += 1;
            self.progress.bytes += file.bytes;
            (self.told)(self.progress);
            backed.push(file);
        }
        let parts = || backed.iter().filter_map(|file| file.part.as_ref());
        let manifest = Manifest {
            format: FORMAT,
            luminate: env!("CARGO_PKG_VERSION").to_owned(),
            name: name.to_string(),
            made_ms,
            samples: parts().map(|part| part.samples).sum(),
            first_ms: parts().filter_map(|part| part.first_ms).min(),
            last_ms: parts().filter_map(|part| part.last_ms).max(),
            bytes: self.progress.of_bytes,
            copied_bytes: self.copied.1,
            files: backed,
        };
        self.claim.check()?;
        if !self.target.put_new(&name.object(), manifest.encode()?.into())? {
            return Err(BackupError::Refused(format!(
                "there is a backup {name} at {} already",
                self.target.place()
            )));
        }
        let last = LastBackup { name: name.to_string(), place: self.target.place().to_owned(), made_ms };
        last.write(self.disk, &options.data_dir);
        Ok(Made { manifest, copied_files: self.copied.0 })
    }

    /// The files that the newest backup has, by where they belong.
    fn known(&self) -> Result<BTreeMap<String, BackedFile>> {
        match Manifest::find(self.target, None) {
            Ok(newest) => Ok(newest.files.into_iter().map(|file| (file.path.clone(), file)).collect()),
            // There is none, or none that can be read: everything is looked at again.
            Err(BackupError::Refused(_) | BackupError::Damaged { .. }) => Ok(BTreeMap::new()),
            Err(error) => Err(error),
        }
    }

    /// The files of a snapshot and their sizes; parts of later days first, whose samples are wanted first.
    fn files(&self, snapshot: &Path) -> Result<Vec<(String, u64)>> {
        let list = |dir: PathBuf| {
            self.disk.list(&dir).map_err(BackupError::local(format!("listing {}", dir.display())))
        };
        let mut files = Vec::new();
        for entry in list(snapshot.to_owned())? {
            if !entry.is_dir && [LEDGER, DOCUMENTS].contains(&&*entry.name) {
                files.push((entry.name, entry.size));
            }
        }
        for day in list(snapshot.join("parts"))?.into_iter().rev() {
            for part in list(snapshot.join("parts").join(&day.name))? {
                files.push((format!("parts/{}/{}", day.name, part.name), part.size));
            }
        }
        Ok(files)
    }

    /// What a file is known by; a part that an earlier backup has is not read.
    fn file(
        &mut self,
        snapshot: &Path,
        path: String,
        bytes: u64,
        before: &BTreeMap<String, BackedFile>,
    ) -> Result<BackedFile> {
        let at = snapshot.join(&path);
        if !path.starts_with("parts/") {
            let (sha256, _) = self.checksums(&at, bytes, bytes)?;
            return Ok(BackedFile { path, bytes, sha256, part: None });
        }
        let seal = Seal::read(self.disk.as_ref(), &at)?;
        let known = before.get(&path).filter(|known| known.bytes == bytes);
        if let Some(known) = known
            && known.part.as_ref().is_some_and(|part| part.seal == seal.to_string())
        {
            return Ok(known.clone());
        }
        let meta = Part::open(self.disk, &at)?.meta().clone();
        let (sha256, crc) = self.checksums(&at, bytes, seal.covers)?;
        let damaged = crc != seal.total_crc;
        if damaged {
            tracing::error!(part = path, "a part is damaged on disk; it is copied as it is");
        }
        let part = BackedPart {
            seal: seal.to_string(),
            samples: meta.samples + meta.histograms,
            first_ms: meta.range.map(|range| range.start().0),
            last_ms: meta.range.map(|range| range.end().0),
            damaged,
        };
        Ok(BackedFile { path, bytes, sha256, part: Some(part) })
    }

    /// The SHA-256 of a file, and the CRC32C of its first `covered` bytes.
    fn checksums(&mut self, path: &Path, bytes: u64, covered: u64) -> Result<(String, u32)> {
        let mut pieces = Pieces::of_file(self.disk.as_ref(), path, bytes)?;
        let (mut crc, mut at) = (0, 0_u64);
        while let Some(piece) = pieces.next()? {
            self.claim.renew()?;
            let left = usize::try_from(covered.saturating_sub(at)).unwrap_or(usize::MAX);
            crc = crc32c::crc32c_append(crc, &piece[..piece.len().min(left)]);
            at += piece.len() as u64;
        }
        Ok((pieces.sha256(), crc))
    }

    /// Copies a file, if it still reads as it did.
    fn copy(&mut self, snapshot: &Path, file: &BackedFile) -> Result<()> {
        let path = snapshot.join(&file.path);
        let mut pieces = Pieces::of_file(self.disk.as_ref(), &path, file.bytes)?;
        let claim = &mut self.claim;
        self.target.put(&object(&file.sha256), file.bytes, &mut || {
            claim.renew()?;
            let piece = pieces.next()?;
            if piece.is_none() && pieces.sha256() != file.sha256 {
                return Err(BackupError::Damaged {
                    place: snapshot.display().to_string(),
                    name: file.path.clone(),
                    why: "it reads differently each time".to_owned(),
                });
            }
            Ok(piece)
        })?;
        self.copied.0 += 1;
        self.copied.1 += file.bytes;
        Ok(())
    }
}

/// A name for a backup that was given none.
fn by_time(now_ms: i64) -> Result<BackupName> {
    let time =
        jiff::Timestamp::from_millisecond(now_ms).map(|time| time.strftime("%Y%m%dT%H%M%S%.3fZ").to_string());
    let name = time.ok().and_then(|time| time.parse().ok());
    name.ok_or_else(|| BackupError::Refused("this time has no name, give the backup one".to_owned()))
}
