//! Debian's Prometheus and Luminate are given the same data and asked the same questions, all of them
//! generated: `LUMINATE_TEST_QUERIES` of them (2,000), from `LUMINATE_TEST_SEED` (1).
//!
//! The answers must be the same: status and class of error, type, labels, times, the order where there is
//! one, and values to a relative [`answer::RELATIVE`], NaN being NaN. Debian has 2.42, Luminate is as 3.14. What
//! differs for that, and what is done about it, each time as narrowly as can be:
//!
//! 1. *Windows are left-open.* In 2.42 a window has a sample that lies on its left edge. Four questions of five
//!    are asked over grids on which no sample or subquery's point lies on an edge; `[5m]` is `[5m]` for both. One
//!    of five is asked over a grid on which they do; there 2.42 is asked for `[4m59s999ms]`, and functions
//!    that reckon with the length of the window (`rate`, `increase`, `delta`) are left out. For the
//!    same reason 2.42 looks back for a millisecond less than five minutes.
//! 2. *`.` matches a line's end.* 2.42 is asked with `(?s:…)` around each pattern.
//! 3. *`atan2` drops the name.* 2.42 is asked to drop it with `label_replace`.
//! 4. *`holt_winters` has another name*, `double_exponential_smoothing`.
//! 5. *Where a counter begins.* 2.42 looks at where it would have been zero before it looks whether the
//!    series begins in the window. Counters here begin far from zero, and `rate` and `increase` of what is no
//!    counter are asked only of series without gaps.
//! 6. *Sums are compensated*, also beyond the largest number, and `avg` divides a sum. Values are such that sums are
//!    exact in any order, and `stddev_over_time` and `stdvar_over_time` are asked of finite ones.
//! 7. *`stddev` of what begins with NaN or Inf is NaN.* It is asked of finite values.
//! 8. *`histogram_quantile` keeps histograms of different names apart.* It is asked of one name.
//! 9. *`predict_linear` of what is pinned with `@`* has one window for all steps; in 2.42 it moves along. And
//!    *`timestamp` of what has both `@` and `offset`* is of the right moment. They are not asked for.
//! 10. *Partners are counted before a comparison filters them* ([`explained`]).
//! 11. *Negation joins series* that have the same labels and no time in common ([`explained`]).
//! 12. *Range vectors that are the answer* are sorted by labels. In 2.42 they have no order.
//!
//! What 2.42 cannot parse (`limitk`, UTF-8 names, arithmetic in durations and so on), has no data for
//! (native histograms) or refuses (`histogram_fraction` of classic histograms, `topk` with a `k` far below one) has
//! its cases in `tests/promql`; so do the texts of errors and annotations, which
//! changed.

mod answer;
mod data;
mod expr;
mod grammar;
mod random;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use answer::{Answer, Client, difference};
use data::Family;
use grammar::{Grammar, Grid, Question};

use crate::{
    prometheus::Prometheus,
    server::{Options, Server, have, remote_write},
};

/// How many smaller questions are tried for each that finds a difference, and for how many of those.
const SHRINKING: (usize, usize) = (150, 12);

/// How many ask at a time.
const THREADS: usize = 3;

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

/// Both servers, as one asks them.
struct Both {
    ours: Client,
    theirs: Client,
}

/// What became of a question.
enum Outcome {
    Same { samples: usize, status: u16 },
    Explained(&'static str),
    Different(String),
}

impl Both {
    fn ask(&self, question: &Question) -> (Answer, Answer) {
        let ours = self.ours.ask(&question.expr.ours(), question.grid);
        let theirs = self.theirs.ask(&question.expr.theirs(), question.grid);
        (ours, theirs)
    }

    fn outcome(&self, question: &Question) -> Outcome {
        let (ours, theirs) = self.ask(question);
        match difference(question, &ours, &theirs) {
            None => Outcome::Same { samples: ours.samples(), status: ours.status },
            Some(found) => match explained(question, &ours, &theirs) {
                Some(why) => Outcome::Explained(why),
                None => Outcome::Different(found),
            },
        }
    }

    /// The smallest question within reach that still finds a difference.
    fn shrink(&self, question: &Question, found: String) -> (Question, String) {
        let (mut question, mut found) = (question.clone(), found);
        let mut tries = SHRINKING.0;
        'smaller: loop {
            let instants = match question.grid {
                Grid::Range { start, end, step } => {
                    let count = usize::try_from((end - start) / step).unwrap();
                    let mut all = vec![];
                    if count > 0 {
                        let half = start + i64::try_from(count / 2).unwrap() * step;
                        all.push(Grid::Range { start: half + step, end, step });
                        all.push(Grid::Range { start, end: half, step });
                    }
                    all
                }
                Grid::Instant(_) => vec![],
            };
            let smaller = question.expr.smaller().into_iter();
            let all = smaller
                .map(|expr| Question { expr, ..question.clone() })
                .chain(instants.into_iter().map(|grid| Question { grid, ..question.clone() }));
            for candidate in all {
                tries -= 1;
                if tries == 0 {
                    return (question, found);
                }
                if let Outcome::Different(text) = self.outcome(&candidate) {
                    (question, found) = (candidate, text);
                    continue 'smaller;
                }
            }
            return (question, found);
        }
    }
}

/// Why answers may differ, if that is how they do.
fn explained(question: &Question, ours: &Answer, theirs: &Answer) -> Option<&'static str> {
    if question.expr.filters
        && theirs.status == 200
        && ours.status == 422
        && ours.error().starts_with("multiple matches for labels")
    {
        return Some("partners are counted before a comparison filters them");
    }
    if question.expr.negates
        && ours.status == 200
        && theirs.status == 422
        && theirs.error().contains("vector cannot contain metrics with the same labelset")
    {
        return Some("negation joins series");
    }
    None
}

#[test]
fn generated_questions_are_answered_as_prometheus_answers_them() {
    if !have("prometheus") {
        return;
    }
    let (seed, wanted) = (from_env("LUMINATE_TEST_SEED", 1), from_env("LUMINATE_TEST_QUERIES", 2000));
    let dir = tempfile::tempdir().unwrap();
    // The data are of a fixed day, so that a seed gives the same questions tomorrow.
    let options = Options::default()
        .env("LUMINATE_STORAGE__RETENTION__DEFAULT", "0")
        .env("LUMINATE_STORAGE__EMBEDDED__WAL__SYNC", "os");
    let luminate = Server::start(&dir.path().join("data"), &options);
    let prometheus = Prometheus::with_arguments(
        dir.path(),
        0,
        &[
            "--web.enable-remote-write-receiver",
            "--query.lookback-delta=299999ms",
            "--storage.tsdb.retention.time=100y",
        ],
        |_| "global: {}\n".to_owned(),
    );
    let families = data::generate(seed);
    for slice in data::slices(&families) {
        let body = remote_write(&slice);
        for base in [luminate.url(""), prometheus.base.clone()] {
            write(&base, &body);
        }
    }
    let samples: usize = families.iter().flat_map(|f| &f.series).map(|(_, values)| values.len()).sum();

    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let ask = || {
        let both = Both { ours: Client::new(&luminate.url("")), theirs: Client::new(&prometheus.base) };
        let mut outcomes = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= wanted {
                return outcomes;
            }
            let question = Grammar::new(&families, seed, index).question();
            let outcome = both.outcome(&question);
            outcomes.push((index, question, outcome));
        }
    };
    let mut outcomes: Vec<(u64, Question, Outcome)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    outcomes.sort_by_key(|(index, ..)| *index);

    let mut tally: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = |what: &str| *tally.entry(what.to_owned()).or_default() += 1;
    let mut different = Vec::new();
    for (index, question, outcome) in &outcomes {
        if question.aligned {
            count("on edges");
        }
        match outcome {
            Outcome::Same { status: 200, samples: 0 } => count("nothing"),
            Outcome::Same { status: 200, .. } => count("something"),
            Outcome::Same { .. } => count("an error"),
            Outcome::Explained(why) => count(why),
            Outcome::Different(found) => different.push((index, question, found)),
        }
    }
    eprintln!("seed {seed}: {samples} samples; {wanted} questions in {:?}: {tally:?}", begun.elapsed());

    let both = Both { ours: Client::new(&luminate.url("")), theirs: Client::new(&prometheus.base) };
    for (n, (index, question, found)) in different.iter().enumerate() {
        eprintln!("\n--- question {index} of seed {seed}\n{}", shown(question));
        if n < SHRINKING.1 {
            let (question, found) = both.shrink(question, (*found).clone());
            eprintln!("smallest: {}\n{found}", shown(&question));
            let (ours, theirs) = both.ask(&question);
            eprintln!("ours:   {}\ntheirs: {}", cut(&ours.json.to_string()), cut(&theirs.json.to_string()));
            eprint!("{}", excerpt(&families, &question));
        } else {
            eprintln!("{found}");
        }
    }
    assert!(different.is_empty(), "{} of {wanted} answers differ with seed {seed}", different.len());
    assert_eq!(outcomes.len() as u64, wanted);
    // Questions that have no answer, or whose answer was to differ, compare nothing.
    let of = |what: &str| tally.get(what).copied().unwrap_or_default();
    let compared = of("something");
    assert!(compared * 2 > outcomes.len(), "only {compared} answers hold anything");
    let all: String = outcomes.iter().map(|(_, q, _)| q.expr.theirs() + "\n").collect();
    let missing: Vec<_> = ALL.iter().filter(|name| !all.contains(&format!("{name}("))).collect();
    let spaced: Vec<_> = missing.into_iter().filter(|name| !all.contains(&format!("{name} "))).collect();
    assert!(wanted < 2000 || spaced.is_empty(), "never asked for {spaced:?}");
}

fn write(base: &str, body: &[u8]) {
    let answer = ureq::post(format!("{base}/api/v1/write"))
        .header("Content-Type", "application/x-protobuf")
        .header("Content-Encoding", "snappy")
        .header("X-Prometheus-Remote-Write-Version", "0.1.0")
        .send(body);
    assert_eq!(answer.unwrap().status(), 204);
}

fn shown(question: &Question) -> String {
    let (ours, theirs) = (question.expr.ours(), question.expr.theirs());
    let theirs = if ours == theirs { String::new() } else { format!("\n  theirs: {theirs}") };
    format!("{ours}{theirs}\n  over {:?}", question.grid)
}

fn cut(text: &str) -> String {
    const MOST: usize = 1500;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST).chain("…".chars()).collect()
}

/// The last samples before the question of the first series of what it names.
fn excerpt(families: &[Family], question: &Question) -> String {
    let (Grid::Instant(at) | Grid::Range { start: at, .. }) = question.grid;
    let text = question.expr.ours();
    let mut out = String::new();
    for family in families.iter().filter(|family| text.contains(family.name)) {
        for (labels, values) in family.series.iter().take(3) {
            let labels: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
            let until = values.partition_point(|(t, _)| *t <= at);
            let last: Vec<String> =
                values[until.saturating_sub(6)..until].iter().map(|(t, v)| format!("{v}@{t}")).collect();
            out.push_str(&format!("data: {{{}}} {}\n", labels.join(","), last.join(" ")));
        }
    }
    out
}

/// All that 2.42 has names for.
const ALL: &[&str] = &[
    "abs",
    "absent",
    "absent_over_time",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "avg_over_time",
    "ceil",
    "changes",
    "clamp",
    "clamp_max",
    "clamp_min",
    "cos",
    "cosh",
    "count_over_time",
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "deg",
    "delta",
    "deriv",
    "exp",
    "floor",
    "histogram_count",
    "histogram_quantile",
    "histogram_sum",
    "holt_winters",
    "hour",
    "idelta",
    "increase",
    "irate",
    "label_replace",
    "label_join",
    "last_over_time",
    "ln",
    "log10",
    "log2",
    "max_over_time",
    "min_over_time",
    "minute",
    "month",
    "pi",
    "predict_linear",
    "present_over_time",
    "quantile_over_time",
    "rad",
    "rate",
    "resets",
    "round",
    "scalar",
    "sgn",
    "sin",
    "sinh",
    "sort",
    "sort_desc",
    "sqrt",
    "stddev_over_time",
    "stdvar_over_time",
    "sum_over_time",
    "tan",
    "tanh",
    "time",
    "timestamp",
    "vector",
    "year",
    "sum",
    "avg",
    "count",
    "min",
    "max",
    "group",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "count_values",
    "quantile",
    "and",
    "or",
    "unless",
    "atan2",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "offset",
    "@",
    "bool",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];
