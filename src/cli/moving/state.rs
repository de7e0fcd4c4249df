//! The file that remembers how far an export or an import has come.
//!
//! It is replaced as a whole and durably, so that a kill leaves the old one or the new one. In a pipe both
//! ends name the same file: the export writes the plan before its first line and reads what is done, the
//! import adds a piece when it is durable at the receiver.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{End, Piece};
use crate::cli::{CommandError, client::ServerFlags};

/// The version of the file's format.
const VERSION: u32 = 1;

/// How far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// What is exported, and in which pieces; none for an import of a file without pieces.
    pub plan: Option<Plan>,
    /// Where it is imported; none until something is.
    #[serde(default)]
    pub target: Option<Target>,
    /// The pieces that are done.
    pub done: Vec<Done>,
    /// Up to where the file is written, or has been read.
    pub offset: u64,
}

/// What is exported, and in which pieces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// From where.
    pub server: String,
    /// Of which tenant.
    pub tenant: Option<String>,
    /// What selects the series.
    pub selectors: Vec<String>,
    /// Since when, as it was asked for: what is relative to now is settled in the pieces.
    pub start: Option<String>,
    /// Until when.
    pub end: Option<String>,
    /// In order.
    pub pieces: Vec<Piece>,
}

/// Where an import goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// To which server.
    pub server: String,
    /// For which tenant.
    pub tenant: Option<String>,
}

/// A piece that is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Which.
    pub piece: Piece,
    /// What it held.
    pub end: End,
}

impl Default for State {
    fn default() -> Self {
        Self { version: VERSION, plan: None, target: None, done: Vec::new(), offset: 0 }
    }
}

impl State {
    /// Reads a state; none if there is no file yet.
    pub fn load(path: &Path) -> Result<Option<Self>, CommandError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(path, &error)),
        };
        let wrong = |why: &dyn std::fmt::Display| {
            CommandError::Usage(format!("{}: not a state that can be resumed: {why}", path.display()))
        };
        let state: Self = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
        if state.version != VERSION {
            return Err(wrong(&format!("its version is {}, and {VERSION} is read", state.version)));
        }
        Ok(Some(state))
    }

    /// Replaces the file; it is durable when this returns.
    pub fn store(&self, path: &Path) -> Result<(), CommandError> {
        let write = || -> io::Result<()> {
            let mut name = path.as_os_str().to_owned();
            name.push(".new");
            let new = PathBuf::from(name);
            let mut file = File::create(&new)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
        };
        write().map_err(|error| failed(path, &error))
    }

    /// Whether a piece is done.
    pub fn has(&self, piece: &Piece) -> bool {
        self.done.iter().any(|done| done.piece == *piece)
    }

    /// Notes that a piece is done.
    pub fn add(&mut self, piece: Piece, end: End) {
        self.done.retain(|done| done.piece != piece);
        self.done.push(Done { piece, end });
    }
}

impl Target {
    /// Where the flags say.
    pub fn of(flags: &ServerFlags) -> Self {
        Self { server: flags.server.clone(), tenant: flags.tenant.clone() }
    }
}

impl Plan {
    /// Whether another plan is about the same data; the pieces may be cut elsewhere.
    pub fn same_data(&self, other: &Self) -> bool {
        Self { pieces: Vec::new(), ..self.clone() } == Self { pieces: Vec::new(), ..other.clone() }
    }
}

fn failed(path: &Path, error: &io::Error) -> CommandError {
    CommandError::Failed(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_stored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        assert_eq!(State::load(&path).unwrap(), None);
        let mut state = State::default();
        let piece = Piece { start: 1, end: 2, shard: "1/1".to_owned() };
        state.add(piece.clone(), End::default());
        state.add(piece.clone(), End { samples: 3, ..End::default() });
        state.offset = 7;
        state.store(&path).unwrap();
        assert_eq!(State::load(&path).unwrap(), Some(state.clone()));
        assert!(state.has(&piece) && state.done.len() == 1);
    }

    #[test]
    fn what_is_no_state_is_not_resumed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        for text in ["", "{}", "nonsense", r#"{"version":9,"plan":null,"done":[],"offset":0}"#] {
            fs::write(&path, text).unwrap();
            let error = State::load(&path).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{text}");
            assert!(error.to_string().contains("not a state that can be resumed"), "{error}");
        }
        let nowhere = State::default().store(Path::new("/nowhere/state")).unwrap_err();
        assert!(nowhere.to_string().starts_with("/nowhere/state: "), "{nowhere}");
    }
}
