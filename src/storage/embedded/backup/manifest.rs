//! What a backup is made of: which files, where they belong, and how each is known again.
//!
//! A manifest is JSON. Its last member is the SHA-256 of all the bytes before it, so that a manifest that was cut off or
//! changed is no manifest.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{
    super::{catalog::ledger::LEDGER, documents::DOCUMENTS, part::PartId},
    BackupError, Result, hex,
    store_id::StoreId,
    target::Target,
};

/// The format that this version writes and reads.
pub const FORMAT: u32 = 2;

pub(super) const BACKUPS: &str = "backups";
pub(super) const OBJECTS: &str = "objects";
pub(super) const CLAIMS: &str = "claims";
/// All that a place of backups has.
pub(super) const FOLDERS: [&str; 3] = [BACKUPS, OBJECTS, CLAIMS];

const SUFFIX: &str = ".json";
/// What stands before the checksum.
const MARK: &[u8] = b",\n  \"sha256\": \"";

/// The name of a backup: letters, digits and `._-`, beginning with a letter or digit, at most 100 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackupName(String);

impl FromStr for BackupName {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if begins && text.len() <= 100 && text.chars().all(plain) {
            return Ok(Self(text.to_owned()));
        }
        Err("a name has letters, digits and ._-, and begins with a letter or digit".to_owned())
    }
}

impl fmt::Display for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl BackupName {
    /// The object that the manifest of this name is in.
    pub(super) fn object(&self) -> String {
        format!("{BACKUPS}/{}{SUFFIX}", self.0)
    }

    fn of_object(object: &str) -> Option<Self> {
        object.strip_prefix(BACKUPS)?.strip_prefix('/')?.strip_suffix(SUFFIX)?.parse().ok()
    }
}

/// A backup, told by what it is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format of this manifest.
    pub format: u32,
    /// The version of the program that made it.
    pub luminate: String,
    /// What it is called.
    pub name: String,
    /// The store that it is of.
    pub store: StoreId,
    /// When it was made, in milliseconds since the epoch: all acknowledged before is in it.
    pub made_ms: i64,
    /// Samples in its parts.
    pub samples: u64,
    /// The first of them, in milliseconds since the epoch.
    pub first_ms: Option<i64>,
    /// The last of them.
    pub last_ms: Option<i64>,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Bytes that had to be copied for it.
    pub copied_bytes: u64,
    /// Its files.
    pub files: Vec<BackedFile>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedFile {
    /// Where it belongs in a data directory.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its bytes, which its object is called by.
    pub sha256: String,
    /// What is known of it if it is a part.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub part: Option<BackedPart>,
}

/// A part of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedPart {
    /// What its trailer says of its bytes: how it is known again without being read.
    pub seal: String,
    /// Its samples.
    pub samples: u64,
    /// The first of them, in milliseconds since the epoch.
    pub first_ms: Option<i64>,
    /// The last of them.
    pub last_ms: Option<i64>,
    /// It was damaged already where it was copied from.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub damaged: bool,
}

impl BackedFile {
    /// The object that its bytes are in.
    pub fn object(&self) -> String {
        object(&self.sha256)
    }

    /// Whether it is one that belongs in a data directory.
    fn is_sound(&self) -> bool {
        let digest = self.sha256.len() == 64
            && self.sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let mut names = self.path.split('/');
        let place = match (names.next(), names.next(), names.next(), names.next(), &self.part) {
            (Some(LEDGER | DOCUMENTS), None, None, None, None) => true,
            (Some("parts"), Some(day), Some(file), None, Some(_)) => {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
                !day.is_empty() && day.bytes().all(plain) && PartId::from_file_name(file).is_some()
            }
            _ => false,
        };
        digest && place
    }
}

/// The object that bytes with this checksum are in.
pub(super) fn object(sha256: &str) -> String {
    format!("{OBJECTS}/{}/{sha256}", sha256.get(..2).unwrap_or_default())
}

impl Manifest {
    /// As it is written.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|e| BackupError::Refused(format!("the manifest cannot be written: {e}")))?;
        // The closing brace comes after the checksum.
        text.truncate(text.len() - b"\n}".len());
        let sha256 = hex(digest(&SHA256, &text).as_ref());
        text.extend_from_slice(MARK);
        text.extend_from_slice(sha256.as_bytes());
        text.extend_from_slice(b"\"\n}\n");
        Ok(text)
    }

    /// Reads one, or says what is wrong with it.
    fn decode(text: &[u8]) -> std::result::Result<Self, String> {
        #[derive(Deserialize)]
        struct Versions {
            format: u32,
            luminate: String,
        }
        let at = text.windows(MARK.len()).rposition(|window| window == MARK);
        let at = at.ok_or("it ends early")?;
        let told = text[at + MARK.len()..].strip_suffix(b"\"\n}\n").ok_or("it ends early")?;
        if hex(digest(&SHA256, &text[..at]).as_ref()).as_bytes() != told {
            return Err("its checksum is wrong".to_owned());
        }
        let wrong = |e: serde_json::Error| format!("it is no manifest: {e}");
        let versions: Versions = serde_json::from_slice(text).map_err(wrong)?;
        if versions.format != FORMAT {
            return Err(format!(
                "luminate {} made it in format {}, and this version knows format {FORMAT} only: use that one",
                versions.luminate, versions.format
            ));
        }
        let manifest: Self = serde_json::from_slice(text).map_err(wrong)?;
        match manifest.files.iter().find(|file| !file.is_sound()) {
            Some(file) => Err(format!("it names {:?}, which belongs in no store", file.path)),
            None => Ok(manifest),
        }
    }

    /// Reads the manifest of a backup.
    pub(super) fn read(target: &dyn Target, name: &BackupName) -> Result<Self> {
        let text = match target.get(&name.object()) {
            Err(BackupError::Missing { place, .. }) => {
                return Err(BackupError::Refused(format!("there is no backup {name} at {place}")));
            }
            got => got?,
        };
        let damaged = |why| BackupError::Damaged {
            place: target.place().to_owned(),
            name: format!("the backup {name}"),
            why,
        };
        let manifest = Self::decode(&text).map_err(damaged)?;
        if manifest.name != name.0 {
            return Err(damaged(format!("it is the manifest of {:?}", manifest.name)));
        }
        Ok(manifest)
    }

    /// The manifest of a backup, of the newest that can be read unless one is named.
    pub(super) fn find(target: &dyn Target, name: Option<&BackupName>) -> Result<Self> {
        if let Some(name) = name {
            return Self::read(target, name);
        }
        let mut failed = None;
        let mut newest: Option<Self> = None;
        for name in names(target)? {
            match Self::read(target, &name) {
                Ok(found) if newest.as_ref().is_none_or(|newest| newest.order() < found.order()) => {
                    newest = Some(found);
                }
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        }
        let nothing = || BackupError::Refused(format!("there is no backup at {}", target.place()));
        newest.ok_or_else(|| failed.unwrap_or_else(nothing))
    }

    /// Newer ones are greater.
    pub(super) fn order(&self) -> (i64, &str) {
        (self.made_ms, &self.name)
    }
}

/// The names of all backups.
pub(super) fn names(target: &dyn Target) -> Result<Vec<BackupName>> {
    all_names(target).map(|(names, _)| names)
}

/// The names of all backups, and those of whatever else lies among their manifests.
pub(super) fn all_names(target: &dyn Target) -> Result<(Vec<BackupName>, Vec<String>)> {
    let (mut names, mut others) = (Vec::new(), Vec::new());
    for held in target.list(BACKUPS)? {
        match BackupName::of_object(&held.name) {
            Some(name) => names.push(name),
            None => others.push(held.name),
        }
    }
    Ok((names, others))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let part = BackedPart {
            seal: "00".to_owned(),
            samples: 1,
            first_ms: Some(1),
            last_ms: Some(2),
            damaged: false,
        };
        let file =
            |path: &str, part| BackedFile { path: path.to_owned(), bytes: 3, sha256: "0a".repeat(32), part };
        Manifest {
            format: FORMAT,
            luminate: "0.1.0".to_owned(),
            name: "a".to_owned(),
            store: "0123456789abcdef".parse().unwrap(),
            made_ms: 5,
            samples: 1,
            first_ms: Some(1),
            last_ms: Some(2),
            bytes: 6,
            copied_bytes: 3,
            files: vec![file(LEDGER, None), file("parts/20260101/0000000000000001.part", Some(part))],
        }
    }

    #[test]
    fn a_manifest_is_json_that_knows_its_own_bytes() {
        let text = manifest().encode().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(json["sha256"].as_str().unwrap().len(), 64);
        assert_eq!(Manifest::decode(&text).unwrap(), manifest());
        for at in 0..text.len() {
            let mut bad = text.clone();
            bad[at] ^= 1;
            assert!(Manifest::decode(&bad).is_err(), "byte {at}");
            assert!(Manifest::decode(&text[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_manifest_of_another_format_says_who_made_it() {
        for format in [FORMAT - 1, FORMAT + 1] {
            let other = Manifest { format, luminate: "9.0.0".to_owned(), ..manifest() };
            let error = Manifest::decode(&other.encode().unwrap()).unwrap_err();
            assert!(error.contains(&format!("luminate 9.0.0 made it in format {format}")), "{error}");
        }
    }

    #[test]
    fn a_manifest_names_nothing_outside_a_store() {
        for path in [
            "/etc/passwd",
            "../LEDGER",
            "parts/../../x/0000000000000001.part",
            "parts/./0000000000000001.part",
            "parts/20260101/x.part",
            "parts/20260101/0000000000000001.part/x",
            "parts//0000000000000001.part",
            "LOCK",
            "",
        ] {
            let mut bad = manifest();
            bad.files[1].path = path.to_owned();
            let error = Manifest::decode(&bad.encode().unwrap()).unwrap_err();
            assert!(error.contains("belongs in no store"), "{path}: {error}");
        }
        let mut bad = manifest();
        bad.files[0].sha256 = "../x".to_owned();
        assert!(Manifest::decode(&bad.encode().unwrap()).is_err());
    }

    #[test]
    fn a_name_is_one_of_a_file() {
        for bad in ["", ".a", "-a", "a/b", "a b", "..", "é"] {
            assert!(bad.parse::<BackupName>().is_err(), "{bad:?}");
        }
        let name: BackupName = "nightly-2026.01".parse().unwrap();
        assert_eq!(BackupName::of_object(&name.object()), Some(name));
    }
}
