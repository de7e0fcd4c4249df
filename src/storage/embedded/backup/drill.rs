//! Tries a backup out: restored, opened as a store, counted, removed.

use std::{path::Path, sync::Arc};

use super::{
    super::{config::EmbeddedConfig, disk::Disk, engine::Engine},
    BackupError, Manifest, Result, Told,
    manifest::BackupName,
    restore::{RestoreOptions, restore},
    target::Target,
};
use crate::clock::Clock;

/// What a drill found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drilled {
    /// What the backup is made of.
    pub manifest: Manifest,
    /// Samples in the parts of the store that was restored.
    pub samples: u64,
    /// What the store found damaged when it was opened.
    pub damage: Vec<String>,
}

impl Drilled {
    /// Whether the store that was restored has all that the backup should have.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty() && self.samples == self.manifest.samples
    }
}

/// Restores a backup, the newest unless one is named, into a directory of its own within `scratch`, opens the store, and
/// removes it whatever came of it.
pub fn drill(
    target: &dyn Target,
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    name: Option<BackupName>,
    scratch: &Path,
    seed: u64,
    told: &mut Told<'_>,
) -> Result<Drilled> {
    let into = scratch.join(format!("drill-{seed:016x}"));
    let options = RestoreOptions { name, into: into.clone(), skip_damaged: false };
    let tried = restore(target, disk, &options, told).and_then(|restored| {
        // Nothing is too old, and no space is held back.
        let config = EmbeddedConfig { retention: None, ballast_bytes: 0, ..EmbeddedConfig::new(&into) };
        let engine = Engine::open_at(config, Arc::clone(disk), Arc::clone(clock))?;
        let status = engine.status();
        engine.close()?;
        let status = status?;
        Ok(Drilled { manifest: restored.manifest, samples: status.part_samples, damage: status.quarantined })
    });
    match disk.remove_dir_all(&into) {
        Err(error) if tried.is_ok() && error.kind() != std::io::ErrorKind::NotFound => {
            Err(BackupError::Local { doing: format!("removing {}", into.display()), source: error })
        }
        _ => tried,
    }
}
