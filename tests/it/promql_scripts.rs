//! The scripts in `tests/promql`: that they are well-formed, and that every store gives what they say.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use luminate::{
    clock::HandClock,
    model::{
        Histogram, Millis, TenantId, Timestamp,
        histogram::{Counts, ResetHint},
        stale_nan,
    },
    promql::{
        Answer, Engine, EngineOptions, Features, QueryOptions,
        functions::signature::TABLE,
        histogram::FloatHistogram,
        parse::{self, Expr, ParserFeatures},
    },
    storage::{
        BatchHistogram, BatchSample, Storage, View, WriteBatch,
        clickhouse::{ClickHouseConfig, ClickHouseStore, config::Pushdown},
        embedded::{EmbeddedConfig, EmbeddedStore, disk::SystemDisk},
        memory::MemoryStore,
    },
};
use tokio::runtime::{Handle, Runtime};

use crate::{
    clickhouse::front::Front,
    script::{self, Action, Command, Sample, Series, Target, Text},
    taker::Taker,
};

/// All scripts, by name; those that `LUMINATE_TEST_SCRIPTS` names, with commas between, if it is set.
pub(crate) fn scripts() -> Vec<(String, Vec<Command>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/promql");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|e| e.expect("an entry").path())
        .collect();
    let only = std::env::var("LUMINATE_TEST_SCRIPTS").unwrap_or_default();
    let is_asked_for = |path: &Path| {
        only.is_empty() || only.split(',').any(|name| path.file_stem().is_some_and(|stem| stem == name))
    };
    paths.retain(|path| path.extension().is_some_and(|e| e == "test") && is_asked_for(path));
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a script is text");
        let script = script::parse(&text).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        (name, script)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn every_query_of_the_scripts_parses_unless_it_has_to_fail() {
    let mut evals = 0;
    for (name, script) in scripts() {
        for Command { line, action } in script {
            let Action::Eval(eval) = action else { continue };
            evals += 1;
            let error = parse::parse(&eval.query, &ParserFeatures::default()).err().map(|e| e.to_string());
            match (error, &eval.expect.fail) {
                (None, _) | (Some(_), Some(Text::Any | Text::Matches(_))) => {}
                (Some(error), Some(Text::Contains(part))) => {
                    assert!(error.contains(part), "{name}:{line}: {}: {error}", eval.query);
                }
                (Some(error), None) => panic!("{name}:{line}: {}: {error}", eval.query),
            }
        }
    }
    assert!(evals >= 1_500, "only {evals} evaluations");
}

#[test]
fn the_scripts_call_every_function() {
    fn note(expr: &Expr, called: &mut BTreeSet<&'static str>) {
        if let Expr::Call(call) = expr {
            called.insert(call.function.name);
        }
        if let Expr::Aggregate(aggregate) = expr {
            called.insert(aggregate.op.as_str());
        }
        expr.children().for_each(|child| note(child, called));
    }
    let mut called = BTreeSet::new();
    for (_, script) in scripts() {
        for Command { action, .. } in script {
            if let Action::Eval(eval) = action
                && let Ok(expr) = parse::parse(&eval.query, &ParserFeatures::default())
            {
                note(&expr, &mut called);
            }
        }
    }
    let functions = TABLE.iter().map(|f| f.name);
    let aggregations = [
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
        "limitk",
        "limit_ratio",
    ];
    let missing: Vec<_> = functions.chain(aggregations).filter(|name| !called.contains(name)).collect();
    assert!(missing.is_empty(), "no script calls {missing:?}");
}

/// A store under the engine, and a tenant that nobody used before.
struct Database {
    runtime: Handle,
    store: Arc<dyn Storage>,
    engine: Engine,
    features: Features,
    tenants: u32,
    /// Whether what was loaded is flushed before it is asked for.
    flush: bool,
}

impl Database {
    fn over(runtime: &Runtime, store: Arc<dyn Storage>, flush: bool) -> Self {
        let runtime = runtime.handle().clone();
        let clock = HandClock::at(Timestamp(0));
        let engine = Engine::new(Arc::clone(&store), EngineOptions::default(), clock).unwrap();
        Self { runtime, store, engine, features: Features::default(), tenants: 0, flush }
    }

    fn tenant(&self) -> TenantId {
        TenantId::new(&format!("script-{}", self.tenants)).unwrap()
    }

    fn options(&self) -> QueryOptions {
        QueryOptions { features: Some(self.features), ..QueryOptions::default() }
    }
}

impl Target for Database {
    fn clear(&mut self) {
        self.tenants += 1;
    }

    fn set_features(&mut self, features: Features) {
        self.features = features;
    }

    fn write(&mut self, series: &[Series]) -> Result<(), String> {
        let mut batch = WriteBatch::over(series.iter().map(|s| s.labels.clone()).collect());
        for (number, series) in (0..).zip(series) {
            let mut of_histograms = false;
            for (at, sample) in &series.samples {
                let (timestamp, start) = (Timestamp(*at), series.start);
                let mut histogram = |histogram: Arc<Histogram>| {
                    batch.histograms.push(BatchHistogram { series: number, timestamp, histogram, start });
                };
                let value = match sample {
                    Sample::Histogram(h) => {
                        of_histograms = true;
                        histogram(Arc::clone(h));
                        continue;
                    }
                    Sample::Stale if of_histograms => {
                        histogram(Arc::new(stale_histogram()));
                        continue;
                    }
                    Sample::Stale => stale_nan(),
                    Sample::Float(value) => {
                        of_histograms = false;
                        *value
                    }
                };
                batch.samples.push(BatchSample { series: number, timestamp, value, start });
            }
        }
        let appended =
            self.runtime.block_on(self.store.append(&self.tenant(), batch)).map_err(|e| e.to_string())?;
        if !appended.rejected.is_empty() {
            return Err(format!("rejected: {:?}", appended.rejected));
        }
        if self.flush {
            self.runtime.block_on(self.store.flush()).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn instant(&mut self, query: &str, at: i64) -> Result<Answer, String> {
        let (tenant, options) = (View::of(self.tenant()), self.options());
        let answer = self.engine.instant(&tenant, query, Timestamp(at), &options);
        self.runtime.block_on(answer).map_err(|e| e.to_string())
    }

    fn range(&mut self, query: &str, start: i64, end: i64, step: i64) -> Result<Answer, String> {
        let (tenant, options) = (View::of(self.tenant()), self.options());
        let answer =
            self.engine.range(&tenant, query, Timestamp(start), Timestamp(end), Millis(step), &options);
        self.runtime.block_on(answer).map_err(|e| e.to_string())
    }

    fn is_histogram(&self, wanted: &Histogram, got: &FloatHistogram) -> bool {
        let wanted = FloatHistogram::from_histogram(wanted);
        // A script that says nothing of the hint asks for none.
        wanted.equals(got) && (wanted.reset_hint == ResetHint::Unknown || wanted.reset_hint == got.reset_hint)
    }
}

fn stale_histogram() -> Histogram {
    Histogram {
        schema: 0,
        zero_threshold: 0.0,
        sum: stale_nan(),
        reset_hint: ResetHint::Unknown,
        positive_spans: Vec::new(),
        negative_spans: Vec::new(),
        counts: Counts::Integer { count: 0, zero_count: 0, positive: Vec::new(), negative: Vec::new() },
        custom_values: Vec::new(),
    }
}

fn play(scripts: &[(String, Vec<Command>)], database: &mut Database) {
    let (mut passed, mut failures) = (0, Vec::new());
    for (name, script) in scripts {
        let report = script::run(name, script, database);
        passed += report.passed;
        failures.extend(report.failures);
    }
    assert!(
        failures.is_empty(),
        "{} of {} failed:\n{}",
        failures.len(),
        passed + failures.len(),
        failures.join("\n")
    );
}

#[test]
fn the_scripts_pass_in_memory() {
    let store = MemoryStore::new(HandClock::at(Timestamp(0)), None);
    play(&scripts(), &mut Database::over(&Runtime::new().unwrap(), store, false));
}

#[test]
fn the_scripts_pass_on_a_store_that_takes_what_it_is_offered() {
    for most in [1, 2] {
        let store = Taker::over(MemoryStore::new(HandClock::at(Timestamp(0)), None), most);
        let runtime = Runtime::new().unwrap();
        let database = Arc::clone(&store) as Arc<dyn Storage>;
        play(&scripts(), &mut Database::over(&runtime, database, false));
        assert!(store.taken() > 200, "only {} operations were taken", store.taken());
    }
}

#[test]
fn the_scripts_pass_on_the_embedded_engine() {
    for flush in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let inside = runtime.enter();
        let config = EmbeddedConfig { retention: None, ballast_bytes: 0, ..EmbeddedConfig::new(dir.path()) };
        let store = EmbeddedStore::open(config, Arc::new(SystemDisk), HandClock::at(Timestamp(0))).unwrap();
        drop(inside);
        let store = store as Arc<dyn Storage>;
        play(&scripts(), &mut Database::over(&runtime, Arc::clone(&store), flush));
        runtime.block_on(store.close()).unwrap();
    }
}

#[test]
fn the_scripts_pass_on_clickhouse() {
    let Some(front) = Front::start() else { return };
    let runtime = Runtime::new().unwrap();
    let inside = runtime.enter();
    let config = ClickHouseConfig {
        database: front.database.clone(),
        retention: None,
        // The few samples of a script would never pay.
        pushdown: Pushdown::Exact,
        ..ClickHouseConfig::new(&front.url)
    };
    let store = ClickHouseStore::open(config, HandClock::at(Timestamp(0))).unwrap();
    drop(inside);
    runtime.block_on(store.apply_schema()).unwrap();
    let store = store as Arc<dyn Storage>;
    // Asking takes long here, so what is only about computing is left to the other stores, unless it is asked for.
    let mut scripts = scripts();
    if std::env::var_os("LUMINATE_TEST_SCRIPTS").is_none() {
        scripts.retain(|(_, script)| !script.iter().any(|command| command.action == Action::Computation));
    }
    play(&scripts, &mut Database::over(&runtime, Arc::clone(&store), false));
    runtime.block_on(store.close()).unwrap();
}
