//! A crowd of writers, and readers, that know exactly what was acknowledged.
//!
//! Each writer has series of its own and counts on them: sample `n` of a series has the value `n` and comes
//! a second after sample `n - 1`. As a Prometheus, it sends a batch again until it is acknowledged, and only
//! then the next. So the samples up to the last acknowledged are there, each once, and what a question about
//! them must answer is known to the digit. Whatever goes on meanwhile, an answer is that or an error.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    patience::{PATIENCE, wait_for},
    server::{api_as, now_ms, remote_write},
};

const WRITERS: usize = 4;
const SERIES: usize = 5;
/// Samples of each series in a batch.
const BATCH: i64 = 10;
const STEP_MS: i64 = 1000;
/// Covers all that is written.
const RANGE: &str = "80h";

/// What the writers and readers have seen.
#[derive(Debug)]
pub struct Witness {
    base: i64,
    /// What the requests show, where servers ask for it.
    token: Option<String>,
    /// Of each writer: how many samples of each of its series are acknowledged.
    acknowledged: [AtomicI64; WRITERS],
    writes: Mutex<Outcomes>,
    reads: Mutex<Outcomes>,
}

/// How often what came of a request: its status, or 0 where the connection broke.
#[derive(Debug, Default)]
pub struct Outcomes {
    pub by_status: BTreeMap<u16, usize>,
    /// What must not be, in words.
    pub wrong: Vec<String>,
}

/// An answer: its status, whether it says when to try again, and its text.
type Answer = (u16, bool, String);

impl Witness {
    pub fn new() -> Self {
        Self {
            base: now_ms() / 1000 * 1000 - 72 * 3_600_000,
            token: None,
            acknowledged: Default::default(),
            writes: Mutex::default(),
            reads: Mutex::default(),
        }
    }

    /// One whose requests show a token.
    pub fn with_token(token: String) -> Self {
        Self { token: Some(token), ..Self::new() }
    }

    /// Writes to the gateways in turn, and reads from them, while `story` goes on, and until all that
    /// was begun is acknowledged.
    pub fn watch(&self, gateways: &[String], story: impl FnOnce()) {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.load(Ordering::SeqCst) {
                        self.write_batch(writer, gateways);
                    }
                });
            }
            scope.spawn(|| {
                for turn in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    self.read(turn % WRITERS, &gateways[turn % gateways.len()]);
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            // The others shall end even if the story does not end well.
            let _stop = StopWhenDropped(&stop);
            story();
        });
        for (what, outcomes) in [("writes", &self.writes), ("reads", &self.reads)] {
            let outcomes = outcomes.lock().unwrap();
            println!("{what} by status: {:?}", outcomes.by_status);
            assert!(outcomes.wrong.is_empty(), "{what}: {:#?}", outcomes.wrong);
        }
    }

    /// All samples that are acknowledged.
    pub fn samples(&self) -> i64 {
        let of = |writer: &AtomicI64| writer.load(Ordering::SeqCst) * SERIES as i64;
        self.acknowledged.iter().map(of).sum()
    }

    /// How many writes did not end well.
    pub fn failed_writes(&self) -> usize {
        failed(&self.writes.lock().unwrap())
    }

    /// How many reads did not end well.
    pub fn failed_reads(&self) -> usize {
        failed(&self.reads.lock().unwrap())
    }

    /// Waits until every writer is some batches further and a reader had an answer; gives how long the
    /// last of them took for the first.
    pub fn wait_progress(&self) -> Duration {
        let acks = || self.acknowledged.each_ref().map(|a| a.load(Ordering::SeqCst));
        let answers = || self.reads.lock().unwrap().by_status.get(&200).copied().unwrap_or(0);
        let (begun, acks_before, answers_before) = (Instant::now(), acks(), answers());
        let moved = |by: i64| acks().iter().zip(&acks_before).all(|(now, before)| *now >= before + by);
        wait_for("writers and readers to get on", || moved(BATCH) && answers() > answers_before);
        let first = begun.elapsed();
        wait_for("writers to get on", || moved(5 * BATCH));
        first
    }

    /// Sends the writer's next batch until it is acknowledged.
    fn write_batch(&self, writer: usize, gateways: &[String]) {
        let from = self.acknowledged[writer].load(Ordering::SeqCst);
        let body = self.batch(writer, from);
        let begun = Instant::now();
        for turn in writer.. {
            let outcome = self.write(&gateways[turn % gateways.len()], &body);
            if self.note_write(outcome) {
                break;
            }
            if begun.elapsed() > PATIENCE {
                let wrong = format!("writer {writer} waits {PATIENCE:?} for its acknowledgement");
                return self.writes.lock().unwrap().wrong.push(wrong);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.acknowledged[writer].store(from + BATCH, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(20));
    }

    /// Sends each of the next batches to all gateways at once; all acknowledge it.
    pub fn write_to_each(&self, gateways: &[String], batches: usize) {
        for batch in 0..batches {
            let writer = batch % WRITERS;
            let from = self.acknowledged[writer].load(Ordering::SeqCst);
            let body = &self.batch(writer, from);
            std::thread::scope(|scope| {
                for gateway in gateways {
                    scope.spawn(move || {
                        assert!(self.note_write(self.write(gateway, body)), "{gateway} takes it")
                    });
                }
            });
            self.acknowledged[writer].store(from + BATCH, Ordering::SeqCst);
        }
    }

    fn write(&self, gateway: &str, body: &[u8]) -> Result<Answer, ureq::Error> {
        write_as(self.token.as_deref(), gateway, body)
    }

    /// Notes what came of a write; whether it is acknowledged.
    fn note_write(&self, outcome: Result<Answer, ureq::Error>) -> bool {
        let mut seen = self.writes.lock().unwrap();
        *seen.by_status.entry(outcome.as_ref().map_or(0, |(status, ..)| *status)).or_default() += 1;
        match outcome {
            Ok((200..=299, ..)) => return true,
            // A sender would drop the samples.
            Ok((status, _, text)) if status < 500 && status != 429 => {
                seen.wrong.push(format!("{status} for the server's trouble: {text}"));
            }
            Ok((503 | 429, false, text)) => seen.wrong.push(format!("no Retry-After: {text}")),
            Ok(_) | Err(_) => {}
        }
        false
    }

    /// A batch of the writer's series, from sample `from` on.
    fn batch(&self, writer: usize, from: i64) -> Vec<u8> {
        let samples = || (from..from + BATCH).map(|n| (self.base + n * STEP_MS, n as f64)).collect();
        let labels = |series: usize| {
            [("__name__", "fault".to_owned()), ("s", series.to_string()), ("w", writer.to_string())]
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec()
        };
        remote_write(&(0..SERIES).map(|s| (labels(s), samples())).collect::<Vec<_>>())
    }

    /// Asks for what is acknowledged now: the answer is exactly that, or an error.
    fn read(&self, writer: usize, gateway: &str) {
        let count = self.acknowledged[writer].load(Ordering::SeqCst);
        if count == 0 {
            return;
        }
        let query = format!(r#"count_over_time(fault{{w="{writer}"}}[{RANGE}])"#);
        let time = seconds(self.base + (count - 1) * STEP_MS);
        let params = [("query", query.as_str()), ("time", &time), ("nocache", "1")];
        let outcome = get_as(self.token.as_deref(), gateway, "/api/v1/query", &params);
        let mut seen = self.reads.lock().unwrap();
        *seen.by_status.entry(outcome.as_ref().map_or(0, |(status, ..)| *status)).or_default() += 1;
        match outcome {
            Ok((200, _, text)) => {
                let answer: Value = serde_json::from_str(&text).unwrap();
                let counts: Vec<_> = result(&answer["data"]).map(|s| s["value"][1].clone()).collect();
                let right = counts.len() == SERIES && counts.iter().all(|c| *c == count.to_string().as_str());
                if !right {
                    seen.wrong.push(format!("writer {writer} has {count} samples, not {counts:?}"));
                }
            }
            // More than one query may take of a server, which its caller can change.
            Ok((422, _, text)) if text.contains("the query takes") => {}
            Ok((status, _, text)) if status < 500 => {
                seen.wrong.push(format!("{status} for the server's trouble: {text}"));
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// Asks the gateway in many ways for all that was acknowledged: it is there, each sample once.
    pub fn check(&self, gateway: &str) {
        for (writer, acknowledged) in self.acknowledged.iter().enumerate() {
            let count = acknowledged.load(Ordering::SeqCst);
            let of_writer = format!(r#"fault{{w="{writer}"}}[{RANGE}]"#);
            for (function, expected) in [("count", count), ("sum", count * (count - 1) / 2)] {
                let answer = self.ask(gateway, &format!("{function}_over_time({of_writer})"));
                let values: Vec<f64> =
                    result(&answer).map(|s| s["value"][1].as_str().unwrap().parse().unwrap()).collect();
                assert_eq!(values, [expected as f64; SERIES], "{function}_over_time({of_writer})");
            }
            let raw = self.ask(gateway, &of_writer);
            assert_eq!(result(&raw).count(), SERIES, "{of_writer}");
            for series in result(&raw) {
                let samples = series["values"].as_array().unwrap();
                assert_eq!(samples.len(), usize::try_from(count).unwrap(), "{of_writer}");
                for (n, sample) in (0..).zip(samples) {
                    let at = (self.base + n * STEP_MS) as f64 / 1000.0;
                    let same = sample[0].as_f64() == Some(at) && sample[1] == n.to_string().as_str();
                    assert!(same, "sample {n} of {of_writer} is {sample}");
                }
            }
        }
        let all = self.in_minutes(gateway, "sum(count_over_time(fault[1m]))");
        assert_eq!(all as i64, self.samples(), "all samples, minute by minute");
        let range = [("start", seconds(self.base)), ("end", seconds(self.end()))];
        let mut params = vec![("match[]", "fault")];
        params.extend(range.iter().map(|(name, value)| (*name, value.as_str())));
        let series = api_as(self.token.as_deref(), gateway, "/api/v1/series", &params);
        assert_eq!(series.as_array().unwrap().len(), WRITERS * SERIES, "{series}");
    }

    /// The sum of a range query over everything, whose windows of a minute do not overlap.
    fn in_minutes(&self, gateway: &str, query: &str) -> f64 {
        let (start, end) = (seconds(self.base + 59_999), seconds(self.end()));
        let params = [("query", query), ("start", &start), ("end", &end), ("step", "60"), ("nocache", "1")];
        let answer = api_as(self.token.as_deref(), gateway, "/api/v1/query_range", &params);
        let points = result(&answer).flat_map(|s| s["values"].as_array().unwrap());
        points.map(|point| point[1].as_str().unwrap().parse::<f64>().unwrap()).sum()
    }

    fn ask(&self, gateway: &str, query: &str) -> Value {
        let time = seconds(self.end());
        let params = [("query", query), ("time", &time), ("nocache", "1")];
        api_as(self.token.as_deref(), gateway, "/api/v1/query", &params)
    }

    /// After all samples.
    fn end(&self) -> i64 {
        let longest = self.acknowledged.iter().map(|a| a.load(Ordering::SeqCst)).max().unwrap();
        self.base + longest * STEP_MS + 120_000
    }
}

fn failed(outcomes: &Outcomes) -> usize {
    outcomes.by_status.iter().filter(|(status, _)| **status / 100 != 2).map(|(_, times)| times).sum()
}

fn result(answer: &Value) -> impl Iterator<Item = &Value> {
    answer["result"].as_array().unwrap().iter()
}

/// Tells the crowd to stop, whatever happens.
struct StopWhenDropped<'a>(&'a AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Sends a remote-write body once.
pub fn write(gateway: &str, body: &[u8]) -> Result<Answer, ureq::Error> {
    write_as(None, gateway, body)
}

fn write_as(token: Option<&str>, gateway: &str, body: &[u8]) -> Result<Answer, ureq::Error> {
    let mut request = agent()
        .post(format!("{gateway}/api/v1/write"))
        .header("Content-Type", "application/x-protobuf")
        .header("Content-Encoding", "snappy")
        .header("X-Prometheus-Remote-Write-Version", "0.1.0");
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    read_answer(request.send(body)?)
}

/// Asks for `path` once.
pub fn get(gateway: &str, path: &str, params: &[(&str, &str)]) -> Result<Answer, ureq::Error> {
    get_as(None, gateway, path, params)
}

/// The same for whoever has a token.
pub fn get_as(
    token: Option<&str>,
    gateway: &str,
    path: &str,
    params: &[(&str, &str)],
) -> Result<Answer, ureq::Error> {
    let mut request = agent().get(format!("{gateway}{path}")).query_pairs(params.iter().copied());
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    read_answer(request.call()?)
}

fn read_answer(mut answer: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let (status, later) = (answer.status().as_u16(), answer.headers().contains_key("Retry-After"));
    Ok((status, later, answer.body_mut().with_config().limit(1 << 30).read_to_string()?))
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.timeout_global(Some(Duration::from_secs(60))).build().into()
}

fn seconds(millis: i64) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}
