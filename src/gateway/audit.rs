//! The audit log: who was turned away, and who changed something.
//!
//! A stream of its own, one JSON object a line, appended to a file or written among the log lines:
//!
//! ```text
//! {"timestamp":"2026-01-01T00:00:00.123Z","service":"luminate","event":"audit","action":"POST /api/v1/admin/tsdb/delete_series",
//!  "result":"done","status":204,"who":"key Xk3…","known":"key","tenant":"team-a","client":"10.0.0.7","request_id":"…","detail":"up{job=\"x\"}"}
//! ```
//!
//! `result` is `done`, `denied` (who they are, or what they may, did not suffice) or `failed`. A secret never
//! comes here: what is written of a caller is the name that its [`Principal`](super::auth::Principal) has.
//!
//! The file is only ever appended to. When it has `max_bytes` it is renamed to `….1` (that to `….2`, and so on up to
//! [`KEPT`]) and a new one is begun.

use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use serde::Serialize;

use crate::{clock::Clock, model::Timestamp};

/// How many old files are kept.
const KEPT: u32 = 5;

/// The longest text of a field.
const MAX_TEXT: usize = 1024;

/// What became of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was not allowed.
    Denied,
    /// It was allowed, and went wrong.
    Failed,
}

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Entry<'e> {
    /// What: a method and path, or the name of what the server did by itself.
    pub action: &'e str,
    /// What became of it.
    pub result: Outcome,
    /// The status it was answered with; 0 if it was no request.
    #[serde(skip_serializing_if = "is_zero")]
    pub status: u16,
    /// Who, as their principal is called; empty if nobody is known.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub who: &'e str,
    /// By what they were known.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub known: &'e str,
    /// For whom.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub tenant: &'e str,
    /// From where.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub client: &'e str,
    /// The request.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub request_id: &'e str,
    /// More.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub detail: &'e str,
}

impl Default for Entry<'_> {
    fn default() -> Self {
        Self {
            action: "",
            result: Outcome::Done,
            status: 0,
            who: "",
            known: "",
            tenant: "",
            client: "",
            request_id: "",
            detail: "",
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(status: &u16) -> bool {
    *status == 0
}

/// Where entries go.
pub struct Audit {
    clock: Arc<dyn Clock>,
    file: Option<Mutex<File>>,
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("to_file", &self.file.is_some()).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    max_bytes: u64,
    file: fs::File,
    bytes: u64,
}

#[derive(Serialize)]
struct Line<'l> {
    timestamp: String,
    service: &'static str,
    event: &'static str,
    #[serde(flatten)]
    entry: &'l Entry<'l>,
}

impl Audit {
    /// Writes among the log lines.
    pub fn to_log(clock: Arc<dyn Clock>) -> Self {
        Self { clock, file: None }
    }

    /// Appends to a file, which only its owner can read.
    pub fn to_file(path: &Path, max_bytes: u64, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let file = File::open(path, max_bytes)?;
        Ok(Self { clock, file: Some(Mutex::new(file)) })
    }

    /// Writes an entry. If the file cannot be written to, it goes to the log.
    pub fn record(&self, entry: &Entry<'_>) {
        let entry = Entry { action: cut(entry.action), detail: cut(entry.detail), ..entry.clone() };
        if let Some(file) = &self.file {
            let written = line(self.clock.now(), &entry).and_then(|line| file.lock().append(&line));
            match written {
                Ok(()) => return,
                Err(error) => tracing::error!(event = "audit_file_failed", %error),
            }
        }
        tracing::info!(
            event = "audit",
            tenant = entry.tenant,
            request_id = entry.request_id,
            action = entry.action,
            result = ?entry.result,
            status = entry.status,
            who = entry.who,
            known = entry.known,
            client = entry.client,
            detail = entry.detail,
        );
    }
}

fn line(now: Timestamp, entry: &Entry<'_>) -> io::Result<Vec<u8>> {
    let line = Line { timestamp: now.rfc3339(), service: "luminate", event: "audit", entry };
    let mut bytes = serde_json::to_vec(&line).map_err(io::Error::other)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

impl File {
    fn open(path: &Path, max_bytes: u64) -> io::Result<Self> {
        let file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), max_bytes, file, bytes })
    }

    /// Writes a line in one call, so that lines of two processes never mix.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.max_bytes {
            self.turn_over()?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn turn_over(&mut self) -> io::Result<()> {
        let old = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..KEPT).rev() {
            match fs::rename(old(number), old(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(&self.path, old(1))?;
        *self = Self::open(&self.path, self.max_bytes)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::Value as Json;

    use super::*;
    use crate::clock::HandClock;

    fn lines(path: &Path) -> Vec<Json> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn an_entry_is_one_line_whatever_its_texts_hold() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let audit = Audit::to_file(&path, 1 << 20, HandClock::at(Timestamp(1_000))).unwrap();
        let hostile = "a\r\n{\"event\":\"audit\"}\x1b[31m\u{2028}";
        audit.record(&Entry {
            action: "POST /x",
            detail: hostile,
            status: 403,
            result: Outcome::Denied,
            ..Entry::default()
        });
        audit.record(&Entry { action: "POST /y", who: "me", detail: &"é".repeat(4096), ..Entry::default() });
        let lines = lines(&path);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["detail"], hostile);
        assert_eq!(lines[0]["result"], "denied");
        assert_eq!(lines[0]["timestamp"], "1970-01-01T00:00:01.000Z");
        assert_eq!(lines[0].get("who"), None);
        assert_eq!(lines[1]["who"], "me");
        assert!(lines[1]["detail"].as_str().unwrap().len() <= MAX_TEXT);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn it_is_appended_to_after_a_restart_and_turned_over_when_full() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        for round in 0..20 {
            let audit = Audit::to_file(&path, 300, HandClock::at(Timestamp(round))).unwrap();
            audit.record(&Entry { action: &format!("round {round}"), ..Entry::default() });
        }
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 1 + KEPT as usize, "{names:?}");
        assert_eq!(lines(&path).last().unwrap()["action"], "round 19");
        for name in names {
            assert!(fs::metadata(folder.path().join(name)).unwrap().len() <= 300);
        }
    }
}
