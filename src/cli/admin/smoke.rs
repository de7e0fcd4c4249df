//! `luminate admin smoke`: does a server that was just set up do its work?
//!
//! Samples that are known beforehand go in by remote write and come back by each way to ask for them, as the tenant
//! and with the credential that were given. Each step is a line; the first that fails is the last.
//! What stays behind is a few samples of `luminate_smoke`, with a label for the run.

use std::{
    future::Future,
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use hyper::StatusCode;

use super::samples::{Found, Keeper, Known, Refusal};
use crate::{
    cli::{CommandError, client::ServerFlags, serve::draw},
    clock::{Clock, SystemClock},
    config::value::parse_duration,
    model::Timestamp,
};

/// The metric that is written.
const METRIC: &str = "luminate_smoke";
/// What tells its series apart.
const LABEL: &str = "series";
/// The distance of its samples.
const STEP: Duration = Duration::from_secs(5);
/// How many samples each series gets.
const SAMPLES: i64 = 4;
/// Time between two looks for what was written.
const PAUSE: Duration = Duration::from_millis(200);

/// Which server, and how long it may take.
#[derive(Clone, Debug, Args)]
pub struct SmokeFlags {
    #[command(flatten)]
    server: ServerFlags,
    /// How long each step may take.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,
}

/// Takes the steps, and tells of each.
pub fn run(flags: &SmokeFlags) -> Result<(), CommandError> {
    let keeper = Keeper::new(&flags.server, flags.timeout)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CommandError::Failed(format!("cannot start the runtime: {e}")))?;
    runtime.block_on(Smoke::new(keeper, flags, SystemClock::start()).run())
}

/// One run.
#[derive(Debug)]
struct Smoke {
    keeper: Keeper,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    run: String,
    series: Vec<Known>,
    /// The instants of the first and the last sample.
    range: (Timestamp, Timestamp),
}

impl Smoke {
    fn new(keeper: Keeper, flags: &SmokeFlags, clock: Arc<dyn Clock>) -> Self {
        let run = format!("{:016x}", draw());
        let step = i64::try_from(STEP.as_millis()).unwrap_or(i64::MAX);
        let end = clock.now().millis() / 1000 * 1000;
        let start = end - (SAMPLES - 1) * step;
        let known = |name: &str, value: fn(f64) -> f64| Known {
            name: METRIC,
            labels: vec![("run", run.clone()), (LABEL, name.to_owned())],
            samples: (0..SAMPLES)
                .zip([0.0, 1.0, 2.0, 3.0])
                .map(|(i, nth)| (Timestamp(start + i * step), value(nth)))
                .collect(),
        };
        // Small, large and negative, and one that no rounding survives.
        let series = vec![
            known("fraction", |nth| 0.1 + nth / 3.0),
            known("negative", |nth| -nth - 1.0),
            known("rising", |nth| 1e15 + nth),
        ];
        Self { keeper, clock, timeout: flags.timeout, run, series, range: (Timestamp(start), Timestamp(end)) }
    }

    async fn run(&self) -> Result<(), CommandError> {
        let (all, end) = (format!("{METRIC}{{run=\"{}\"}}", self.run), self.range.1);
        self.step("ready", async {
            let words = self.keeper.get("/health/ready").await?;
            Ok(words.lines().next().unwrap_or_default().to_owned())
        })
        .await?;
        self.step("write", async {
            self.keeper.write(&self.series).await?;
            let samples: usize = self.series.iter().map(|series| series.samples.len()).sum();
            Ok(format!("{samples} samples of {} series, {METRIC}{{run=\"{}\"}}", self.series.len(), self.run))
        })
        .await?;
        let newest = self.found(|samples| samples.last().copied().into_iter().collect());
        self.step("query", async {
            self.until(&newest, || self.keeper.instant(&all, end, LABEL)).await?;
            Ok("the newest sample of each".to_owned())
        })
        .await?;
        let whole = self.found(<[_]>::to_vec);
        self.step("query_range", async {
            self.until(&whole, || self.keeper.range(&all, self.range, STEP, LABEL)).await?;
            Ok("all samples, to the bit".to_owned())
        })
        .await?;
        let counted = format!("count({all})");
        let count = Found::from([(String::new(), vec![(end, 3.0)])]);
        self.step("aggregate", async {
            self.until(&count, || self.keeper.instant(&counted, end, LABEL)).await?;
            Ok("a count over them".to_owned())
        })
        .await?;
        let names: Vec<String> = newest.keys().cloned().collect();
        self.step("labels", async {
            self.until(&names, || self.keeper.label_values(LABEL, &all, self.range)).await?;
            Ok("the values of a label".to_owned())
        })
        .await
    }

    /// What is to be found of each series.
    fn found(&self, of: impl Fn(&[(Timestamp, f64)]) -> Vec<(Timestamp, f64)>) -> Found {
        let name = |known: &Known| known.labels.iter().find(|(name, _)| *name == LABEL).cloned();
        self.series.iter().filter_map(|known| Some((name(known)?.1, of(&known.samples)))).collect()
    }

    /// Asks until the answer is the one we want: what was written may take a moment to be seen everywhere.
    async fn until<T, F>(&self, wanted: &T, mut ask: impl FnMut() -> F) -> Result<(), Refusal>
    where
        T: PartialEq + std::fmt::Debug,
        F: Future<Output = Result<T, Refusal>>,
    {
        let began = self.clock.elapsed();
        loop {
            let answer = ask().await?;
            if answer == *wanted {
                return Ok(());
            }
            if self.clock.elapsed().saturating_sub(began) + PAUSE > self.timeout {
                return Err(Refusal::Strange(format!("{answer:?} instead of {wanted:?}")));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn step(
        &self,
        name: &str,
        taken: impl Future<Output = Result<String, Refusal>>,
    ) -> Result<(), CommandError> {
        let began = self.clock.elapsed();
        match taken.await {
            Ok(what) => {
                let took = self.clock.elapsed().saturating_sub(began).as_millis();
                Ok(writeln!(io::stdout(), "ok      {name:<12} {what} ({took} ms)")?)
            }
            Err(refusal) => {
                writeln!(io::stdout(), "FAILED  {name:<12} {refusal}")?;
                if let Some(hint) = hint(&refusal) {
                    writeln!(io::stdout(), "        {:<12} {hint}", "")?;
                }
                Err(CommandError::Failed(format!("{}: {name} failed", self.keeper.server())))
            }
        }
    }
}

/// What is usually the matter.
fn hint(refusal: &Refusal) -> Option<&'static str> {
    match refusal {
        Refusal::Silent(_) => Some("is the server there, and is --server its URL?"),
        Refusal::Said { status, .. } => match *status {
            StatusCode::UNAUTHORIZED => Some("a token or an API key is needed: --token.file"),
            StatusCode::FORBIDDEN => {
                Some("the credential needs the scopes write and read, and the tenant (--tenant)")
            }
            StatusCode::NOT_FOUND => Some("is --server the public listener's URL, without a path?"),
            StatusCode::TOO_MANY_REQUESTS => Some("the tenant is at its limit: try again, or raise it"),
            StatusCode::SERVICE_UNAVAILABLE => Some("see /health/deep on the admin listener"),
            _ => None,
        },
        Refusal::Strange(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usually_the_matter_is_told() {
        let said = |status| hint(&Refusal::Said { status, words: String::new() });
        assert!(said(StatusCode::UNAUTHORIZED).unwrap().contains("--token.file"));
        assert!(said(StatusCode::FORBIDDEN).unwrap().contains("scopes"));
        assert_eq!(said(StatusCode::IM_A_TEAPOT), None);
    }
}
