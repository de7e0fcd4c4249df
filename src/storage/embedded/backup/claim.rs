//! Who is working on a place of backups, so that nothing is removed that somebody counts on.
//!
//! Whoever makes a backup and whoever removes some write a claim first and look for the other's claims then: of any two, at
//! least one sees the other. A claim is renewed while its owner works; one that was not for an hour is of a process that
//! died. Its owner looks whether it is still there before anything counts on it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BackupError, Result, manifest::CLAIMS, target::Target};
use crate::clock::Clock;

/// A claim that was not renewed for so long is of a process that died.
const DEAD_MS: i64 = 3_600_000;
/// How often a claim is renewed.
const RENEW_MS: i64 = 300_000;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Work {
    /// A backup is made.
    Create,
    /// Backups are removed.
    Prune,
}

#[derive(Debug, Serialize, Deserialize)]
struct Text {
    work: Work,
    renewed_ms: i64,
}

/// Says that somebody works, until it is given up.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    target: &'a dyn Target,
    clock: Arc<dyn Clock>,
    work: Work,
    name: String,
    renewed_ms: i64,
}

impl<'a> Claim<'a> {
    /// Says so; `seed` is unlike that of other processes.
    pub(super) fn stake(
        target: &'a dyn Target,
        clock: &Arc<dyn Clock>,
        work: Work,
        seed: u64,
    ) -> Result<Self> {
        let kind = match work {
            Work::Create => "create",
            Work::Prune => "prune",
        };
        let name = format!("{CLAIMS}/{kind}-{seed:016x}.json");
        let mut claim = Self { target, clock: Arc::clone(clock), work, name, renewed_ms: clock.now().0 };
        claim.write()?;
        Ok(claim)
    }

    fn write(&mut self) -> Result<()> {
        let text = Text { work: self.work, renewed_ms: self.renewed_ms };
        let text = serde_json::to_vec(&text)
            .map_err(|e| BackupError::Refused(format!("the claim cannot be written: {e}")))?;
        let mut bytes = Some(text.into());
        self.target.put(&self.name, 0, &mut || Ok(bytes.take()))
    }

    /// Says so again if it is time.
    pub(super) fn renew(&mut self) -> Result<()> {
        let now = self.clock.now().0;
        // Also when the clock was set back.
        if now.saturating_sub(self.renewed_ms).saturating_abs() < RENEW_MS {
            return Ok(());
        }
        // Once it was taken for dead, it stays so.
        self.check()?;
        self.renewed_ms = now;
        self.write()
    }

    /// An error if somebody took us for dead, and may have removed what we count on.
    pub(super) fn check(&self) -> Result<()> {
        match self.target.get(&self.name) {
            Ok(_) => Ok(()),
            Err(BackupError::Missing { place, .. }) => Err(BackupError::Refused(format!(
                "this took so long without a sign of life that somebody who removed backups at {place} has counted it \
                 out; begin again"
            ))),
            Err(error) => Err(error),
        }
    }

    /// Whether somebody else does such work. The claims of those who died are removed if `bury`.
    pub(super) fn is_met(&self, work: Work, bury: bool) -> Result<bool> {
        let mut met = false;
        for held in self.target.list(CLAIMS)?.into_iter().filter(|held| held.name != self.name) {
            let text = match self.target.get(&held.name) {
                // It was given up meanwhile.
                Err(BackupError::Missing { .. }) => continue,
                got => got?,
            };
            let text: Text = serde_json::from_slice(&text).map_err(|e| BackupError::Damaged {
                place: self.target.place().to_owned(),
                name: held.name.clone(),
                why: format!("{e}; remove it if nobody is working there"),
            })?;
            if self.clock.now().0.saturating_sub(text.renewed_ms) > DEAD_MS {
                if bury {
                    self.target.remove(&held.name)?;
                }
            } else {
                met |= text.work == work;
            }
        }
        Ok(met)
    }

    /// Says that it is done.
    pub(super) fn give_up(self) {
        if let Err(error) = self.target.remove(&self.name) {
            tracing::warn!(%error, "the claim stays at the backups, and nothing is removed there for an hour");
        }
    }
}
