//! `luminate admin canary`: a sender and a reader in one, that knows what it should be told.
//!
//! Every interval it writes one sample each of three series whose values follow from the time alone, and asks for
//! all of them back to a horizon:
//!
//! | `series` | value at `t` |
//! |---|---|
//! | `sine` | a sine wave, ten minutes long, to six digits |
//! | `time` | `t` in seconds, so that its rate is 1 |
//! | `previous` | when the sample before this one was |
//!
//! A value that does not follow from its time is wrong. A sample is missing if it was acknowledged or seen once and is
//! not there now, and so it is if the next one names it as `previous`: that is how a canary
//! that was restarted knows what there should be. What it cannot know after a restart is whether the very newest
//! samples have gone.
//!
//! What is not as it should be is asked for again until `--timeout`: of several copies of the data one may come after
//! the others. Then each wrong or missing value is counted, once. A round fails by its first stage that fails: `write`, `visible` (what was
//! acknowledged is not seen in time), `query` (all samples, as they were stored), `query_range` (the newest, step by
//! step).

mod ledger;
mod metrics;

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::{
    ledger::{LABEL, Ledger, METRIC, Verdict},
    metrics::{Counts, Stage},
};
use super::samples::{Found, Keeper, Known, Refusal};
use crate::{
    cli::{CommandError, client::ServerFlags},
    clock::{Clock, SystemClock},
    config::value::{parse_duration, parse_listen},
    model::Timestamp,
};

/// More samples than this of each series are no quick question.
const MOST_SAMPLES: u128 = 10_000;
/// How many of the newest are asked for step by step.
const STEPS: i64 = 100;
/// Time between two looks for what was written, at least.
const PAUSE: Duration = Duration::from_millis(20);
/// How many looks there are at what is not as it should be, at most.
const LOOKS: u32 = 20;

/// Which server, how often, and where to tell.
#[derive(Clone, Debug, Args)]
pub struct CanaryFlags {
    #[command(flatten)]
    server: ServerFlags,
    /// Time from one sample to the next.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parse_duration)]
    interval: Duration,
    /// How far back everything is verified in each round.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    horizon: Duration,
    /// How long a request may take, and a sample to be seen once it is acknowledged.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,
    /// Tells this canary's series from another's of the same tenant.
    #[arg(long, value_name = "NAME", default_value = "canary")]
    name: String,
    /// Where to serve /metrics.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9096", value_parser = parse_listen)]
    listen: SocketAddr,
}

/// Sings until it is told to stop.
pub fn run(flags: &CanaryFlags) -> Result<(), CommandError> {
    let usage = |why: &str| Err(CommandError::Usage(why.to_owned()));
    if flags.interval < Duration::from_millis(100) {
        return usage("--interval is at least 100ms");
    }
    if flags.horizon < flags.interval {
        return usage("--horizon is shorter than --interval");
    }
    if flags.horizon.as_millis() / flags.interval.as_millis() > MOST_SAMPLES {
        return usage("--horizon holds more than 10000 times --interval");
    }
    if flags.timeout.is_zero() {
        return usage("--timeout is no time at all");
    }
    if flags.name.is_empty() {
        return usage("--name is empty");
    }
    let clock = SystemClock::start();
    let keeper = Keeper::new(&flags.server, flags.timeout)?;
    let counts = Arc::new(Counts::default());
    let failed = |what: &str, e: io::Error| CommandError::Failed(format!("{what}: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| failed("cannot start the runtime", e))?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| failed("signals", e))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| failed("signals", e))?;
        let listener = metrics::bind(flags.listen).await?;
        let at = listener.local_addr().map_err(|e| failed("cannot listen", e))?;
        writeln!(
            io::stderr(),
            "luminate: canary {:?} of {}, metrics at http://{at}/metrics",
            flags.name,
            keeper.server()
        )?;
        let canary = Canary { keeper, clock, flags: flags.clone(), counts: Arc::clone(&counts) };
        tokio::select! {
            ended = canary.sing() => ended,
            ended = metrics::serve(listener, counts) => Err(failed("cannot take connections", ended)),
            // What is under way is not waited for: the next canary takes it as it finds it.
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}

/// What writes, asks and compares.
#[derive(Debug)]
struct Canary {
    keeper: Keeper,
    clock: Arc<dyn Clock>,
    flags: CanaryFlags,
    counts: Arc<Counts>,
}

impl Canary {
    /// Round after round.
    async fn sing(&self) -> Result<(), CommandError> {
        let interval = millis(self.flags.interval);
        let mut ledger = Ledger::new(millis(self.flags.horizon));
        let mut known = false;
        let mut well = None;
        loop {
            let now = self.clock.now().millis();
            let at = Timestamp(now - now.rem_euclid(interval));
            let outcome = self.round(&mut ledger, &mut known, at).await;
            self.counts.round_ended(outcome.as_ref().err().map(|(stage, _)| *stage), self.clock.now());
            match &outcome {
                Ok(()) if well != Some(true) => {
                    writeln!(io::stderr(), "luminate: {}: all is well", at.rfc3339())?;
                }
                Ok(()) => {}
                Err((stage, why)) => {
                    writeln!(io::stderr(), "luminate: {}: {} failed: {why}", at.rfc3339(), stage.name())?;
                }
            }
            well = Some(outcome.is_ok());
            let now = self.clock.now().millis();
            let wait = interval - now.rem_euclid(interval);
            tokio::time::sleep(Duration::from_millis(wait.unsigned_abs())).await;
        }
    }

    /// Writes the samples of `at`, and verifies all there are.
    async fn round(
        &self,
        ledger: &mut Ledger,
        known: &mut bool,
        at: Timestamp,
    ) -> Result<(), (Stage, String)> {
        if !*known {
            // What an earlier canary left has to be known before it can be named as what came before.
            let found = self.stored(at).await.map_err(|e| (Stage::Query, e.to_string()))?;
            ledger.learn(&found);
            *known = true;
        }
        let written = self.write(ledger, at).await;
        let silent = matches!(&written, Err((_, Refusal::Silent(_))));
        let written = written.map_err(|(stage, e)| (stage, e.to_string()));
        if silent {
            // Nobody is there to ask.
            return written;
        }
        let judge = |ledger: &mut Ledger, found: &Found| ledger.judge_stored(found, at);
        let stored = match self.settled(ledger, || self.stored(at), judge).await {
            Ok(verdict) => self.judged(Stage::Query, verdict),
            Err(refusal) => Err((Stage::Query, refusal.to_string())),
        };
        let steps = match self.settled(ledger, || self.steps(at), Ledger::judge_steps).await {
            Ok(verdict) => self.judged(Stage::QueryRange, verdict),
            Err(refusal) => Err((Stage::QueryRange, refusal.to_string())),
        };
        written.and(stored).and(steps)
    }

    /// Writes, and waits until it is seen.
    async fn write(&self, ledger: &mut Ledger, at: Timestamp) -> Result<(), (Stage, Refusal)> {
        if ledger.has(at) {
            // Of a canary that has just ended, or of ours before the clock was put back.
            return Ok(());
        }
        let samples = ledger.samples(&self.flags.name, at);
        self.keeper.write(&samples).await.map_err(|e| (Stage::Write, e))?;
        ledger.keep(at);
        let acknowledged = self.clock.elapsed();
        loop {
            let found =
                self.keeper.instant(&self.selector(), at, LABEL).await.map_err(|e| (Stage::Visible, e))?;
            let took = self.clock.elapsed().saturating_sub(acknowledged);
            if ledger::shows(&found, &samples) {
                self.counts.seen_after(took);
                return Ok(());
            }
            if took + PAUSE > self.flags.timeout {
                let why = format!("what was acknowledged is not seen after {took:?}");
                return Err((Stage::Visible, Refusal::Strange(why)));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn settled<F>(
        &self,
        ledger: &mut Ledger,
        ask: impl Fn() -> F,
        judge: impl Fn(&mut Ledger, &Found) -> Verdict,
    ) -> Result<Verdict, Refusal>
    where
        F: Future<Output = Result<Found, Refusal>>,
    {
        settled(&*self.clock, self.flags.timeout, ledger, ask, judge).await
    }

    /// All samples back to the horizon, as they are stored.
    async fn stored(&self, at: Timestamp) -> Result<Found, Refusal> {
        let query = format!("{}[{}ms]", self.selector(), millis(self.flags.horizon));
        self.keeper.instant(&query, at, LABEL).await
    }

    /// The newest samples as a range, which a dashboard asks for.
    async fn steps(&self, at: Timestamp) -> Result<Found, Refusal> {
        let (interval, horizon) = (millis(self.flags.interval), millis(self.flags.horizon));
        let back = (STEPS * interval).min(horizon / interval * interval);
        let range = (Timestamp(at.millis() - back), at);
        self.keeper.range(&self.selector(), range, self.flags.interval, LABEL).await
    }

    fn selector(&self) -> String {
        Known { name: METRIC, labels: vec![("canary", self.flags.name.clone())], samples: Vec::new() }
            .selector()
    }

    fn judged(&self, stage: Stage, verdict: Verdict) -> Result<(), (Stage, String)> {
        self.counts.judged(&verdict);
        match verdict.words() {
            None => Ok(()),
            Some(words) => Err((stage, words)),
        }
    }
}

/// Asks until all is as it should be, and no longer than `patience`; gives what the last answer is worth.
async fn settled<F>(
    clock: &dyn Clock,
    patience: Duration,
    ledger: &mut Ledger,
    ask: impl Fn() -> F,
    judge: impl Fn(&mut Ledger, &Found) -> Verdict,
) -> Result<Verdict, Refusal>
where
    F: Future<Output = Result<Found, Refusal>>,
{
    let (began, pause) = (clock.elapsed(), PAUSE.max(patience / LOOKS));
    loop {
        let found = ask().await?;
        let mut judged = ledger.clone();
        let verdict = judge(&mut judged, &found);
        let spent = clock.elapsed().saturating_sub(began);
        if verdict.words().is_none() || spent + pause > patience {
            *ledger = judged;
            return Ok(verdict);
        }
        tokio::time::sleep(pause).await;
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::clock::HandClock;

    /// The verdict on an answer that lacks the newest sample for the first so many times that it is asked for, and how
    /// often it was.
    async fn lagging(lags: usize, patience: Duration) -> (Verdict, usize) {
        let mut ledger = Ledger::new(3_600_000);
        let mut whole = Found::new();
        let instants = [Timestamp(15_000), Timestamp(30_000)];
        for at in instants {
            for known in ledger.samples("x", at) {
                whole.entry(known.labels[1].1.clone()).or_default().extend(known.samples);
            }
            ledger.keep(at);
        }
        let asked = Cell::new(0);
        let ask = async || {
            let mut found = whole.clone();
            asked.set(asked.get() + 1);
            if asked.get() <= lags {
                found.values_mut().for_each(|samples| samples.truncate(1));
            }
            Ok(found)
        };
        let judge = |ledger: &mut Ledger, found: &Found| ledger.judge_stored(found, instants[1]);
        let verdict = settled(&*HandClock::at(instants[1]), patience, &mut ledger, ask, judge).await.unwrap();
        (verdict, asked.get())
    }

    #[tokio::test]
    async fn a_copy_that_comes_after_the_others_is_waited_for() {
        let (verdict, asked) = lagging(2, Duration::from_secs(1)).await;
        assert_eq!((verdict.words(), verdict.checked, asked), (None, 6, 3));
        let (verdict, asked) = lagging(1, Duration::from_millis(1)).await;
        assert_eq!((verdict.missing.len(), asked), (3, 1));
    }
}
