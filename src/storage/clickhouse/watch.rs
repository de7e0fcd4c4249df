//! Keeps an eye on the servers, so that whoever asks how we are is answered from memory.
//!
//! ```text
//! Starting ──── a schema we can use ────▶ Ready ◀───┐
//!    ▲ │                                    │        │ it answers, with a schema we can use
//!    └─┘ no answer, or another schema       ▼        │
//!                                          Lost ─────┘
//! ```
//!
//! It looks every second until all is well and every two seconds then, so that servers that come back are
//! used again within five. Nothing waits for it: reads and writes try the servers whatever it last saw.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    census::{Census, PartLimits, Table},
    client::{Class, Failure},
    migrate::{Migrator, OURS},
};
use crate::{
    storage::{Check, CheckState, Health},
    task,
};

/// Time between two looks at servers that are well, and at others.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(1));
/// How long a look may take: enough to give up a server that hangs and to ask another.
const PATIENCE: Duration = Duration::from_secs(5);
/// Looks that have to fail one after another before servers that were well count as lost.
const ENOUGH: u32 = 2;
/// One look in so many is at the tables, too.
const THOROUGH: u32 = 5;

/// How near the tables are to being written to no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullestPartition {
    /// The parts of the partition that has most of them.
    pub parts: u64,
    /// From so many on, inserts are made to wait.
    pub delay: u64,
    /// From so many on, inserts are refused.
    pub refuse: u64,
    /// Tables that cannot be written to on some server.
    pub read_only_tables: u64,
}

/// What was last seen of the servers.
#[derive(Debug)]
pub(super) struct Watch {
    seen: Arc<Mutex<Seen>>,
    stop: watch::Sender<bool>,
}

/// What a look saw, and those before it.
#[derive(Debug)]
struct Seen {
    standing: Standing,
    /// Looks that failed since one did not.
    failures: u32,
    server_version: String,
    schema_version: u32,
    /// Steps of the schema that were applied from another text.
    changed: Vec<String>,
    /// The tables, or why they are not known.
    tables: Result<Tables, String>,
}

/// How things stand.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// They were never well.
    Starting(String),
    /// They are well.
    Ready,
    /// They were well.
    Lost(String),
    /// Nobody looks any more.
    Closed,
}

/// The tables and what may become of them.
#[derive(Debug)]
struct Tables {
    all: Vec<Table>,
    limits: PartLimits,
    read_only: u64,
}

/// What a look found.
#[derive(Debug)]
struct Look {
    version: u32,
    changed: Vec<String>,
    problem: Option<String>,
}

/// Why a look found nothing.
#[derive(Debug)]
struct Missed {
    /// For whoever asks.
    reason: String,
    /// For the log.
    said: String,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            standing: Standing::Starting("ClickHouse has not answered yet".to_owned()),
            failures: 0,
            server_version: String::new(),
            schema_version: 0,
            changed: Vec::new(),
            tables: Ok(Tables::default()),
        }
    }
}

impl Default for Tables {
    fn default() -> Self {
        Self { all: Vec::new(), limits: PartLimits { delay: 0, refuse: 0 }, read_only: 0 }
    }
}

impl Watch {
    /// Begins to look, on the runtime this is called in, until it is stopped or dropped.
    pub(super) fn start(migrator: Arc<Migrator>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (stop, stopped) = watch::channel(false);
        // It ends when the watch does.
        drop(task::spawn("clickhouse_watch", look_again_and_again(migrator, Arc::clone(&seen), stopped)));
        Self { seen, stop }
    }

    /// Ends it.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
        self.seen.lock().standing = Standing::Closed;
    }

    /// Whether the store can do its work.
    pub(super) fn health(&self) -> Health {
        self.seen.lock().health()
    }

    /// The most parts that a partition of ours has, and from how many on inserts wait and are refused; none is not
    /// known.
    pub(super) fn parts(&self) -> Option<FullestPartition> {
        let seen = self.seen.lock();
        let tables = seen.tables.as_ref().ok()?;
        let PartLimits { delay, refuse } = tables.limits;
        let parts = tables.fullest()?.most_parts;
        Some(FullestPartition { parts, delay, refuse, read_only_tables: tables.read_only })
    }

    /// What there is to know of the servers and the schema.
    pub(super) fn checks(&self) -> Vec<Check> {
        self.seen.lock().checks()
    }
}

async fn look_again_and_again(
    migrator: Arc<Migrator>,
    seen: Arc<Mutex<Seen>>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut looks = 0_u32;
    loop {
        let looking = async {
            let found = look(&migrator).await;
            let answered = found.is_ok();
            let well = seen.lock().take(found);
            if answered && looks.is_multiple_of(THOROUGH) {
                look_at_tables(&migrator, &seen).await;
            }
            looks = if answered { looks.wrapping_add(1) } else { 0 };
            tokio::time::sleep(if well { PAUSES.0 } else { PAUSES.1 }).await;
        };
        tokio::select! {
            () = looking => {}
            // An error is that the store was dropped.
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}

async fn look(migrator: &Migrator) -> Result<Look, Missed> {
    let state = match tokio::time::timeout(PATIENCE, migrator.state()).await {
        Ok(Ok(state)) => state,
        Ok(Err(failure)) => return Err(Missed { reason: reason(&failure), said: failure.to_string() }),
        Err(_) => return Err(Missed { reason: silent(), said: String::new() }),
    };
    let changed =
        OURS.changed(&state).into_iter().map(|applied| format!("{} ({})", applied.version, applied.name));
    Ok(Look {
        version: state.version(),
        changed: changed.collect(),
        problem: OURS.problem(&state, migrator.target()),
    })
}

/// What cannot be found out is no trouble to anybody but who asks.
async fn look_at_tables(migrator: &Migrator, seen: &Mutex<Seen>) {
    let census = Census { servers: migrator.servers(), target: migrator.target() };
    let looking = async {
        let (version, all) = (census.version().await?, census.tables().await?);
        let (limits, read_only) = (census.part_limits().await?, census.read_only_tables().await?);
        Ok::<_, Failure>((version, Tables { all, limits, read_only }))
    };
    let found = match tokio::time::timeout(PATIENCE, looking).await {
        Ok(found) => found.map_err(|failure| reason(&failure)),
        Err(_) => Err(silent()),
    };
    let mut seen = seen.lock();
    seen.tables = found.map(|(version, tables)| {
        seen.server_version = version;
        tables
    });
}

fn silent() -> String {
    format!("ClickHouse does not answer within {} s", PATIENCE.as_secs())
}

/// Why a server did not do what it was asked; no more of it than a line.
fn reason(failure: &Failure) -> String {
    let what = match failure.class {
        Class::Unreachable => "ClickHouse is out of reach",
        Class::Overloaded => "ClickHouse has too much to do",
        Class::Denied => "ClickHouse does not let us in",
        Class::ReadOnly | Class::Exhausted | Class::Schema | Class::Broken => "ClickHouse refuses",
    };
    match failure.code {
        // What it says may be long, and is in the log.
        Some(code) => format!("{what} (code {code})"),
        None => what.to_owned(),
    }
}

impl Seen {
    /// Takes in what a look found; whether all is well.
    fn take(&mut self, found: Result<Look, Missed>) -> bool {
        let (problem, said) = match found {
            Ok(look) => {
                self.failures = 0;
                self.schema_version = look.version;
                if !look.changed.is_empty() && look.changed != self.changed {
                    let versions = look.changed.join(", ");
                    tracing::warn!(event = "schema_differs", versions, "applied from another text than ours");
                }
                self.changed = look.changed;
                (look.problem, String::new())
            }
            Err(missed) => {
                self.failures += 1;
                if self.failures < ENOUGH && self.standing == Standing::Ready {
                    return true;
                }
                (Some(missed.reason), missed.said)
            }
        };
        let now = match (problem, &self.standing) {
            (_, Standing::Closed) => Standing::Closed,
            (None, _) => Standing::Ready,
            (Some(problem), Standing::Starting(_)) => Standing::Starting(problem),
            (Some(problem), Standing::Ready | Standing::Lost(_)) => Standing::Lost(problem),
        };
        if now != self.standing {
            match &now {
                Standing::Ready => tracing::info!(event = "store_ready", schema = self.schema_version),
                Standing::Starting(reason) => tracing::warn!(event = "store_waits", reason, said),
                Standing::Lost(reason) => tracing::error!(event = "store_lost", reason, said),
                Standing::Closed => {}
            }
            self.standing = now;
        }
        self.standing == Standing::Ready
    }

    fn health(&self) -> Health {
        match &self.standing {
            Standing::Starting(progress) => Health::Starting { progress: progress.clone() },
            Standing::Lost(reason) => Health::Unavailable { reason: reason.clone() },
            Standing::Closed => Health::Unavailable { reason: "the store is closed".to_owned() },
            Standing::Ready => match self.tables.as_ref().ok().and_then(Tables::refusal) {
                Some(reason) => Health::ReadOnly { reason },
                None => Health::Ready,
            },
        }
    }

    fn checks(&self) -> Vec<Check> {
        let check = |name: &str, state, detail| Check { name: name.to_owned(), state, detail };
        let (state, detail) = match &self.standing {
            Standing::Ready if self.failures > 0 => (CheckState::Degraded, "the last look failed".to_owned()),
            Standing::Ready => (CheckState::Ok, self.server_version.clone()),
            Standing::Starting(reason) | Standing::Lost(reason) => (CheckState::Failed, reason.clone()),
            Standing::Closed => (CheckState::Failed, "closed".to_owned()),
        };
        let mut checks = vec![check("clickhouse", state, detail)];
        let schema = format!("version {} of {}", self.schema_version, OURS.last());
        checks.push(match (self.schema_version, self.changed.is_empty()) {
            (0, _) => check("schema", CheckState::Failed, "not seen".to_owned()),
            (_, true) => check("schema", CheckState::Ok, schema),
            (_, false) => {
                let versions = self.changed.join(", ");
                check("schema", CheckState::Degraded, format!("{schema}; another text than ours: {versions}"))
            }
        });
        match &self.tables {
            Ok(tables) => {
                let (state, detail) = tables.parts();
                checks.push(check("parts", state, detail));
                if tables.read_only > 0 {
                    let detail = format!("{} tables cannot be written to on their server", tables.read_only);
                    checks.push(check("replicas", CheckState::Degraded, detail));
                }
            }
            Err(reason) => checks.push(check("parts", CheckState::Degraded, format!("not known: {reason}"))),
        }
        checks
    }
}

impl Tables {
    /// The table that has most parts in a partition.
    fn fullest(&self) -> Option<&Table> {
        self.all.iter().max_by_key(|table| table.most_parts)
    }

    /// Why inserts are refused, if they are.
    fn refusal(&self) -> Option<String> {
        let fullest = self.fullest().filter(|table| (1..=table.most_parts).contains(&self.limits.refuse))?;
        Some(format!(
            "{} has {} parts in a partition, and ClickHouse refuses inserts from {} on",
            fullest.name, fullest.most_parts, self.limits.refuse
        ))
    }

    /// How near the tables are to too many parts.
    fn parts(&self) -> (CheckState, String) {
        let Some(fullest) = self.fullest() else { return (CheckState::Ok, "none".to_owned()) };
        let PartLimits { delay, refuse } = self.limits;
        let most = fullest.most_parts;
        let state = match () {
            () if (1..=most).contains(&refuse) => CheckState::Failed,
            () if (1..=most).contains(&delay) => CheckState::Degraded,
            () => CheckState::Ok,
        };
        let detail = format!(
            "at most {most} in a partition ({}); inserts wait from {delay} on and are refused from {refuse} on",
            fullest.name
        );
        (state, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Result<Look, Missed> {
        Ok(Look { version: 1, changed: Vec::new(), problem: None })
    }

    fn without_schema() -> Result<Look, Missed> {
        Ok(Look { version: 0, changed: Vec::new(), problem: Some("the schema is missing".to_owned()) })
    }

    fn silence() -> Result<Look, Missed> {
        Err(Missed { reason: "out of reach".to_owned(), said: "connection refused".to_owned() })
    }

    #[test]
    fn we_start_until_servers_answer_with_a_schema() {
        let mut seen = Seen::default();
        let starting = |progress: &str| Health::Starting { progress: progress.to_owned() };
        assert_eq!(seen.health(), starting("ClickHouse has not answered yet"));
        assert!(!seen.take(silence()));
        assert_eq!(seen.health(), starting("out of reach"));
        assert!(!seen.take(without_schema()));
        assert_eq!(seen.health(), starting("the schema is missing"));
        assert!(seen.take(well()));
        assert_eq!(seen.health(), Health::Ready);
    }

    #[test]
    fn servers_are_lost_after_a_second_silence_and_back_at_once() {
        let mut seen = Seen::default();
        seen.take(well());
        seen.take(silence());
        assert_eq!(seen.health(), Health::Ready);
        assert_eq!(seen.checks()[0].state, CheckState::Degraded);
        seen.take(silence());
        assert_eq!(seen.health(), Health::Unavailable { reason: "out of reach".to_owned() });
        seen.take(silence());
        seen.take(well());
        assert_eq!(seen.health(), Health::Ready);
        seen.take(silence());
        assert_eq!(seen.health(), Health::Ready, "silences count anew");
        seen.take(without_schema());
        assert_eq!(seen.health(), Health::Unavailable { reason: "the schema is missing".to_owned() });
    }

    #[test]
    fn a_closed_store_stays_closed() {
        let mut seen = Seen { standing: Standing::Closed, ..Seen::default() };
        assert!(!seen.take(well()));
        assert!(matches!(seen.health(), Health::Unavailable { .. }));
    }

    #[test]
    fn too_many_parts_are_told_before_and_after_they_are_refused() {
        let tables = |most_parts| Tables {
            all: vec![
                Table { name: "series".to_owned(), most_parts: 2, ..Table::default() },
                Table { name: "samples".to_owned(), most_parts, ..Table::default() },
            ],
            limits: PartLimits { delay: 1000, refuse: 3000 },
            read_only: 0,
        };
        let mut seen = Seen::default();
        seen.take(well());
        for (most, state, ready) in [
            (999, CheckState::Ok, true),
            (1000, CheckState::Degraded, true),
            (2999, CheckState::Degraded, true),
            (3000, CheckState::Failed, false),
        ] {
            seen.tables = Ok(tables(most));
            let parts = seen.checks().into_iter().find(|check| check.name == "parts").unwrap();
            assert_eq!(parts.state, state, "{most}");
            assert!(parts.detail.contains(&format!("at most {most} in a partition (samples)")), "{parts:?}");
            assert_eq!(seen.health() == Health::Ready, ready, "{most}");
        }
        seen.tables = Err("ClickHouse refuses (code 497)".to_owned());
        assert_eq!(seen.health(), Health::Ready, "what is not known is no refusal");
        assert!(seen.checks().iter().any(|check| check.detail.contains("code 497")));
    }

    #[test]
    fn another_text_is_told() {
        let mut seen = Seen::default();
        seen.take(Ok(Look { changed: vec!["1 (tables)".to_owned()], version: 1, problem: None }));
        assert_eq!(seen.health(), Health::Ready);
        let schema = &seen.checks()[1];
        assert_eq!(schema.state, CheckState::Degraded);
        assert!(schema.detail.contains("1 (tables)"), "{schema:?}");
    }
}
