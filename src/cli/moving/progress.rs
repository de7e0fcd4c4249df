//! Tells on standard error how far a long command has come.
//!
//! On a terminal it is one line that changes, elsewhere a line now and then.

use std::{
    io::{self, IsTerminal, Write},
    sync::Arc,
    time::Duration,
};

use crate::clock::Clock;

/// How often a line on a terminal changes.
const ON_TERMINAL: Duration = Duration::from_millis(250);
/// How often a line is written elsewhere.
const ELSEWHERE: Duration = Duration::from_secs(10);

/// How far a command has come.
#[derive(Debug)]
pub struct Progress {
    clock: Arc<dyn Clock>,
    quiet: bool,
    terminal: bool,
    began: Duration,
    told: Duration,
    /// The pieces done when this run began, which took none of its time.
    before: usize,
    /// Pieces that are done.
    pub pieces: usize,
    /// All pieces, if that is known.
    pub all: Option<usize>,
    /// Samples of pieces that are done, or of all that was sent.
    pub samples: u64,
    /// Bytes of lines.
    pub bytes: u64,
}

impl Progress {
    /// Begins to tell.
    pub fn start(clock: Arc<dyn Clock>, quiet: bool, before: usize, all: Option<usize>) -> Self {
        let began = clock.elapsed();
        let terminal = io::stderr().is_terminal();
        Self { clock, quiet, terminal, began, told: began, before, pieces: before, all, samples: 0, bytes: 0 }
    }

    /// Tells how far it is, if it is time to.
    pub fn tick(&mut self) {
        let now = self.clock.elapsed();
        let every = if self.terminal { ON_TERMINAL } else { ELSEWHERE };
        if self.quiet || now.saturating_sub(self.told) < every {
            return;
        }
        self.told = now;
        let line = self.line();
        // Nobody has to read it.
        let _ = if self.terminal {
            write!(io::stderr(), "\r\u{1b}[K{line}")
        } else {
            writeln!(io::stderr(), "{line}")
        };
    }

    /// Writes a line of its own.
    pub fn say(&mut self, text: &str) {
        let clear = if self.terminal && !self.quiet { "\r\u{1b}[K" } else { "" };
        // Nobody has to read it.
        let _ = writeln!(io::stderr(), "{clear}{text}");
    }

    /// The last line: what was done, and how fast.
    pub fn finish(&mut self, verb: &str, what: &str) {
        if self.quiet {
            return;
        }
        let (took, rate) = self.speed();
        let rate = if self.samples > 0 { format!(", {rate} samples/s") } else { String::new() };
        self.say(&format!("{verb} {what} ({}) in {}{rate}", size(self.bytes), span(took)));
    }

    fn line(&self) -> String {
        let (took, rate) = self.speed();
        let mut line = match self.all {
            Some(all) => format!("{}/{all} pieces, ", self.pieces),
            None => String::new(),
        };
        line.push_str(&format!("{} samples, {}, {rate} samples/s", self.samples, size(self.bytes)));
        let done = self.pieces - self.before;
        if let Some(all) = self.all.filter(|all| done > 0 && *all > self.pieces) {
            let left = u32::try_from(all - self.pieces).unwrap_or(u32::MAX);
            let each = took / u32::try_from(done).unwrap_or(u32::MAX);
            line.push_str(&format!(", about {} left", span(each.saturating_mul(left))));
        }
        line
    }

    fn speed(&self) -> (Duration, u64) {
        let took = self.clock.elapsed().saturating_sub(self.began);
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        (took, self.samples.saturating_mul(1000) / millis)
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{}.{} GiB", bytes >> 30, (bytes >> 20 & 1023) * 10 / 1024),
    }
}

fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{}.{}s", seconds, time.subsec_millis() / 100),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::HandClock, model::Timestamp};

    #[test]
    fn the_line_tells_how_far_and_how_long() {
        let clock = HandClock::at(Timestamp(0));
        let mut progress = Progress::start(Arc::<HandClock>::clone(&clock), true, 10, Some(20));
        clock.advance(Duration::from_secs(90));
        (progress.pieces, progress.samples, progress.bytes) = (15, 9_000, 3 << 20);
        assert_eq!(progress.line(), "15/20 pieces, 9000 samples, 3 MiB, 100 samples/s, about 1m30s left");
        progress.all = None;
        assert_eq!(progress.line(), "9000 samples, 3 MiB, 100 samples/s");
    }

    #[test]
    fn sizes_and_spans_are_short() {
        assert_eq!([size(5), size(2048), size(5 << 29)], ["5 B", "2 KiB", "2.5 GiB"]);
        let spans = [1_500, 42_000, 61_000, 7_260_000].map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(spans, ["1.5s", "42s", "1m1s", "2h1m"]);
    }
}
