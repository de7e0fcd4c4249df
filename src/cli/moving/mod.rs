//! What `luminate export` and `luminate import` share: pieces, the file that remembers which of them are
//! done, a connection that does not give up at once, and a line that tells how far it is.
//!
//! An export is cut into pieces: slices of time, and where wanted parts of the series. In the stream each
//! piece has a line before it that says which it is, and the server's own last line behind it, with counts and
//! a checksum:
//!
//! ```text
//! {"begin":{"start":…,"end":…,"shard":"1/1","match":["{__name__!=\"\"}"]}}
//! {"metric":{…},"values":[…],"timestamps":[…]}
//! {"end":{"samples":…,"checksum":"…",…}}
//! …
//! {"done":{}}
//! ```
//!
//! A piece that breaks off begins again: with another such line in a pipe, by cutting off what was
//! written of it in a file. What is imported twice is there once, so that no piece can be
//! doubled; a piece counts as done when its end has come and what lies before it is durable at the
//! receiver, so that none can be lost.

pub mod connection;
pub mod progress;
pub mod state;

use serde::{Deserialize, Serialize};

use crate::model::{Checksum, Timestamp};

/// A part of an export that is made, and made again, as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The first instant, in milliseconds.
    pub start: i64,
    /// The last instant.
    pub end: i64,
    /// Which part of the series.
    pub shard: String,
}

/// The line before a piece.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Which piece.
    #[serde(flatten)]
    pub piece: Piece,
    /// What selects its series.
    #[serde(rename = "match")]
    pub selectors: Vec<String>,
}

/// What an exact export says of itself in its last line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Float samples.
    pub samples: u64,
    /// Histograms.
    pub histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
    /// Metadata entries.
    #[serde(default)]
    pub metadata: u64,
    /// The sum of the samples' hashes.
    pub checksum: String,
    /// What may be missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A line that is about the lines around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marker {
    /// A piece begins.
    Begin(Begin),
    /// What was exported is whole.
    End(End),
    /// There are no more pieces.
    Done,
}

/// The line behind the last piece.
pub const DONE: &[u8] = b"{\"done\":{}}\n";

impl Marker {
    /// Reads a line, if it is one of these.
    pub fn parse(line: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Line {
            Begin(Begin),
            End(End),
            Done {},
        }
        if ![&b"{\"begin\""[..], b"{\"end\"", b"{\"done\""].iter().any(|start| line.starts_with(start)) {
            return None;
        }
        Some(match serde_json::from_slice(line).ok()? {
            Line::Begin(begin) => Self::Begin(begin),
            Line::End(end) => Self::End(end),
            Line::Done {} => Self::Done,
        })
    }
}

impl Begin {
    /// The line, with its end.
    pub fn line(&self) -> Vec<u8> {
        let mut line = serde_json::json!({ "begin": self }).to_string().into_bytes();
        line.push(b'\n');
        line
    }
}

impl Piece {
    /// The parameters that ask the export endpoint for this piece.
    pub fn parameters(&self, selectors: &[String]) -> Vec<(&'static str, String)> {
        let mut parameters: Vec<_> = selectors.iter().map(|s| ("match[]", s.clone())).collect();
        if self.start != i64::MIN {
            parameters.push(("start", super::time::as_seconds(Timestamp(self.start))));
        }
        if self.end != i64::MAX {
            parameters.push(("end", super::time::as_seconds(Timestamp(self.end))));
        }
        if self.shard != "1/1" {
            parameters.push(("shard", self.shard.clone()));
        }
        parameters
    }

    /// The piece, for a person.
    pub fn describe(&self) -> String {
        let at = |millis: i64| match millis {
            i64::MIN => "ever".to_owned(),
            i64::MAX => "the end".to_owned(),
            millis => super::time::as_date(Timestamp(millis)),
        };
        let shard = if self.shard == "1/1" { String::new() } else { format!(", part {}", self.shard) };
        format!("{} to {}{shard}", at(self.start), at(self.end))
    }
}

impl End {
    /// Its checksum, if it is one.
    pub fn checksum(&self) -> Option<Checksum> {
        Checksum::parse(&self.checksum)
    }

    /// Whether both speak of the same samples; metadata may differ.
    pub fn same(&self, other: &Self) -> bool {
        (self.samples, self.histograms, self.exemplars) == (other.samples, other.histograms, other.exemplars)
            && self.checksum() == other.checksum()
    }

    /// Adds the counts of another.
    pub fn add(&mut self, other: &Self) {
        self.samples += other.samples;
        self.histograms += other.histograms;
        self.exemplars += other.exemplars;
        self.metadata += other.metadata;
        let sum = self.checksum().unwrap_or_default().plus(other.checksum().unwrap_or_default());
        self.checksum = sum.to_string();
    }

    /// The counts, for a person.
    pub fn describe(&self) -> String {
        let mut text = format!("{} samples", self.samples);
        for (count, what) in [(self.histograms, "histograms"), (self.exemplars, "exemplars")] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_read_as_they_are_written() {
        let begin = Begin {
            piece: Piece { start: i64::MIN, end: 9, shard: "1/2".to_owned() },
            selectors: vec!["{a=\"b\"}".to_owned()],
        };
        assert_eq!(Marker::parse(begin.line().trim_ascii()), Some(Marker::Begin(begin)));
        let end = br#"{"end":{"samples":1,"histograms":2,"exemplars":3,"metadata":4,"checksum":"0f","warnings":["w"]}}"#;
        let Some(Marker::End(end)) = Marker::parse(end) else { panic!("it is an end") };
        assert_eq!((end.samples, end.metadata, end.warnings.len()), (1, 4, 1));
        assert_eq!(Marker::parse(DONE.trim_ascii()), Some(Marker::Done));
        for other in
            ["", "{}", "{\"metric\":{}}", "{\"end\":5}", "{\"end\":{}}", "{\"begin\"", " {\"end\":{}}"]
        {
            assert_eq!(Marker::parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn the_ends_of_time_are_no_parameters() {
        let piece = |start, end, shard: &str| Piece { start, end, shard: shard.to_owned() };
        assert_eq!(piece(i64::MIN, i64::MAX, "1/1").parameters(&[]), []);
        assert_eq!(piece(i64::MIN, i64::MAX, "1/1").describe(), "ever to the end");
        assert_eq!(
            piece(1500, 2000, "2/3").parameters(&["up".to_owned()]),
            [
                ("match[]", "up".to_owned()),
                ("start", "1.500".to_owned()),
                ("end", "2.000".to_owned()),
                ("shard", "2/3".to_owned())
            ]
        );
        assert_eq!(piece(0, 0, "2/3").describe(), "1970-01-01T00:00:00Z to 1970-01-01T00:00:00Z, part 2/3");
    }

    #[test]
    fn ends_add_up() {
        let one = End { samples: 1, checksum: Checksum(5).to_string(), ..End::default() };
        let mut sum = End::default();
        sum.add(&one);
        sum.add(&one);
        assert_eq!((sum.samples, sum.checksum()), (2, Some(Checksum(10))));
        assert!(!sum.same(&one) && one.same(&one.clone()));
        assert_eq!(sum.describe(), "2 samples");
    }
}
