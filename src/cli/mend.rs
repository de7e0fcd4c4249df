//! `luminate verify` and `luminate repair`: whether a data directory reads back, and mending it.
//!
//! Both work on the directory itself, while no server has it. The exit code is 0 where everything reads back, 1
//! where something does not, and 3 where something could not be read: then nobody knows, and nothing is mended.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use clap::Args;
use serde_json::{Value, json};

use super::{CommandError, serve::environment, table};
use crate::{
    app::mend::{self, Access, Finding, Lost, Report, Unread},
    clock::{Clock, SystemClock},
    config::{Config, ConfigFile, FlagValue, Sources},
};

/// Which directory, and how to answer.
#[derive(Clone, Debug, Args)]
pub struct DirectoryFlags {
    /// The directory that holds everything [default: ./luminate-data, or what the configuration says].
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// The configuration file.
    #[arg(long = "config.file", value_name = "FILE", env = "LUMINATE_CONFIG_FILE")]
    config_file: Option<PathBuf>,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// How to verify.
#[derive(Clone, Debug, Args)]
pub struct VerifyFlags {
    #[command(flatten)]
    directory: DirectoryFlags,
    /// Read beside a running server: what it is writing at the moment is left out.
    #[arg(long)]
    live: bool,
}

/// How to repair.
#[derive(Clone, Debug, Args)]
pub struct RepairFlags {
    #[command(flatten)]
    directory: DirectoryFlags,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

impl DirectoryFlags {
    fn path(&self) -> Result<PathBuf, CommandError> {
        if let Some(path) = &self.data_dir {
            return Ok(path.clone());
        }
        let file = self.config_file.as_deref().map_or_else(|| Ok(ConfigFile::none()), ConfigFile::read)?;
        let flags: Vec<FlagValue> = Vec::new();
        let (config, _) = Config::check(&Sources { file, environment: environment(), flags })?;
        Ok(config.storage.embedded.data_dir)
    }
}

/// Reads everything and tells what does not read back.
pub fn verify(flags: &VerifyFlags) -> Result<(), CommandError> {
    let access = if flags.live { Access::Live } else { Access::Alone };
    let report = mend::look(&flags.directory.path()?, access).map_err(failed)?;
    let mut out = io::stdout().lock();
    if flags.directory.json {
        writeln!(out, "{:#}", as_json(&report))?;
    } else {
        write!(out, "{}", shown(&report))?;
    }
    outcome(&report)
}

/// Mends what does not read back, and tells what was lost.
pub fn repair(flags: &RepairFlags) -> Result<(), CommandError> {
    let clock: Arc<dyn Clock> = SystemClock::start();
    let repair = mend::mend(&flags.directory.path()?, &clock, flags.dry_run).map_err(failed)?;
    let mut out = io::stdout().lock();
    if flags.directory.json {
        let answer = json!({
            "before": as_json(&repair.before),
            "steps": repair.steps,
            "after": repair.after.as_ref().map(as_json),
        });
        writeln!(out, "{answer:#}")?;
    } else {
        write!(out, "{}", shown(&repair.before))?;
        for step in &repair.steps {
            writeln!(out, "{}: {step}", if flags.dry_run { "would do" } else { "done" })?;
        }
        match &repair.after {
            Some(after) if after.findings.is_empty() => writeln!(out, "everything reads back now")?,
            Some(after) => write!(out, "left:\n{}", shown(after))?,
            None if !repair.before.unread.is_empty() => {
                writeln!(out, "nothing was changed: what could not be read may be whole")?;
            }
            None if repair.steps.is_empty() => writeln!(out, "nothing to repair")?,
            None => writeln!(out, "nothing was changed")?,
        }
    }
    outcome(repair.after.as_ref().unwrap_or(&repair.before))
}

fn failed(error: anyhow::Error) -> CommandError {
    CommandError::Failed(format!("{error:#}"))
}

fn outcome(report: &Report) -> Result<(), CommandError> {
    match &report.unread[..] {
        [] => {}
        [Unread { file, why }] => {
            return Err(CommandError::Unread(format!("{file} could not be read: {why}")));
        }
        [Unread { file, why }, others @ ..] => {
            let more = others.len();
            return Err(CommandError::Unread(format!("{file} and {more} more could not be read: {why}")));
        }
    }
    match report.findings.len() {
        0 => Ok(()),
        1 => Err(CommandError::Failed("something does not read back".to_owned())),
        several => Err(CommandError::Failed(format!("{several} things do not read back"))),
    }
}

fn shown(report: &Report) -> String {
    let mut text = String::new();
    if !report.findings.is_empty() {
        let mut rows = vec![["FILE".to_owned(), "AT".to_owned(), "WHAT".to_owned(), "LOST".to_owned()]];
        rows.extend(report.findings.iter().map(|finding| {
            let at = finding.offset.map_or_else(|| "-".to_owned(), |at| at.to_string());
            [finding.file.clone(), at, finding.what.clone(), lost(&finding.lost)]
        }));
        text.push_str(&table::columns(&rows));
        for finding in &report.findings {
            text.push_str(&named(finding));
        }
    }
    for Unread { file, why } in &report.unread {
        text.push_str(&format!("{file} could not be read: {why}\n"));
    }
    for note in &report.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    let Report { files, bytes, parts, samples, .. } = report;
    text.push_str(&format!(
        "{files} files ({parts} parts), {bytes} bytes and the {samples} samples in them were read\n"
    ));
    text
}

/// The series that are known to have lost something.
fn named(finding: &Finding) -> String {
    let Lost { series, examples, .. } = &finding.lost;
    let mut text = String::new();
    for example in examples {
        text.push_str(&format!("lost in {}: {example}\n", finding.file));
    }
    let more = series.saturating_sub(examples.len() as u64);
    if more > 0 && !examples.is_empty() {
        text.push_str(&format!("lost in {}: and {more} series more\n", finding.file));
    }
    text
}

fn lost(lost: &Lost) -> String {
    if lost.is_nothing() {
        return "nothing".to_owned();
    }
    let mut text = match (lost.unknown, lost.samples) {
        (true, 0) => "nobody can say how much".to_owned(),
        (true, samples) => format!("at least {samples} samples"),
        (false, samples) => format!("{samples} samples"),
    };
    if lost.series > 0 {
        text.push_str(&format!(" of {} series", lost.series));
    }
    if let Some(range) = lost.range {
        text.push_str(&format!(", {} to {}", range.start().rfc3339(), range.end().rfc3339()));
    }
    text
}

fn as_json(report: &Report) -> Value {
    let finding = |finding: &Finding| {
        let lost = &finding.lost;
        json!({
            "file": finding.file,
            "offset": finding.offset,
            "what": finding.what,
            "lost": {
                "unknown": lost.unknown,
                "series": lost.series,
                "samples": lost.samples,
                "start_ms": lost.range.map(|range| range.start().millis()),
                "end_ms": lost.range.map(|range| range.end().millis()),
                "examples": lost.examples,
            },
        })
    };
    let unread = |Unread { file, why }: &Unread| json!({ "file": file, "why": why });
    json!({
        "files": report.files,
        "bytes": report.bytes,
        "parts": report.parts,
        "samples": report.samples,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "unread": report.unread.iter().map(unread).collect::<Vec<_>>(),
        "notes": report.notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TimeRange, Timestamp};

    #[test]
    fn a_report_says_where_what_and_which() {
        let finding = Finding {
            file: "parts/20260401/0000000000000001.part".to_owned(),
            offset: Some(16),
            what: "page's checksum is wrong".to_owned(),
            lost: Lost {
                unknown: false,
                series: 2,
                samples: 40,
                range: TimeRange::new(Timestamp(0), Timestamp(60_000)),
                examples: vec!["anonymous: {__name__=\"up\"}".to_owned()],
            },
        };
        let report = Report {
            files: 3,
            bytes: 400,
            parts: 1,
            samples: 7,
            findings: vec![finding],
            ..Report::default()
        };
        assert_eq!(
            shown(&report),
            "FILE                                  AT  WHAT                      LOST\n\
             parts/20260401/0000000000000001.part  16  page's checksum is wrong  40 samples of 2 series, \
             1970-01-01T00:00:00.000Z to 1970-01-01T00:01:00.000Z\n\
             lost in parts/20260401/0000000000000001.part: anonymous: {__name__=\"up\"}\n\
             lost in parts/20260401/0000000000000001.part: and 1 series more\n\
             3 files (1 parts), 400 bytes and the 7 samples in them were read\n"
        );
        assert_eq!(as_json(&report)["findings"][0]["lost"]["end_ms"], 60_000);
        assert_eq!(outcome(&report).unwrap_err().to_string(), "something does not read back");
        outcome(&Report::default()).unwrap();
    }

    #[test]
    fn what_could_not_be_read_is_told_apart_from_damage() {
        let unread = |file: &str| Unread { file: file.to_owned(), why: "too many open files".to_owned() };
        let mut report = Report { unread: vec![unread("LEDGER")], ..Report::default() };
        assert!(shown(&report).starts_with("LEDGER could not be read: too many open files\n"));
        assert_eq!(as_json(&report)["unread"][0]["file"], "LEDGER");
        let error = outcome(&report).unwrap_err();
        assert_eq!(
            (error.exit_code(), error.to_string()),
            (3, "LEDGER could not be read: too many open files".into())
        );
        report.unread.push(unread("DOCUMENTS"));
        let error = outcome(&report).unwrap_err().to_string();
        assert_eq!(error, "LEDGER and 1 more could not be read: too many open files");
    }
}
