//! Any expression over any samples is answered or refused; by three threads as by one, to the bit; a step of a range
//! as the instant alone; and what an expression prints as, as the expression.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use luminate::{
    clock::HandClock,
    model::{Millis, TenantId, Timestamp},
    promql::{
        Answer, Engine, EngineOptions, Features, QueryError, QueryOptions,
        parse::{ParserFeatures, parse},
    },
    storage::{Storage, View, WriteBatch, memory::MemoryStore},
};
use luminate_fuzz::{below, compare, data, expression, one_of};
use tokio::runtime::{Builder, Runtime};

/// Runs after which everything begins anew, so that the samples of old ones do not pile up.
const RUNS: u32 = 256;

/// Queries that would hold more are not asked.
const MAX_SAMPLES: u64 = 2_000_000;

/// A store, and engines of one and of three threads over it.
struct Bench {
    runtime: Runtime,
    store: std::sync::Arc<MemoryStore>,
    one: Engine,
    three: Engine,
    runs: u32,
}

impl Bench {
    fn new() -> Self {
        let clock = HandClock::at(Timestamp(0));
        let store = MemoryStore::new(clock.clone(), None);
        let engine = |threads| {
            let options = EngineOptions { threads, max_samples: MAX_SAMPLES, ..EngineOptions::default() };
            Engine::new(store.clone(), options, clock.clone()).expect("threads start")
        };
        let (one, three) = (engine(1), engine(3));
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime starts");
        Self { runtime, store, one, three, runs: 0 }
    }

    /// A view of a tenant that has just this.
    fn load(&mut self, batch: WriteBatch) -> View {
        if self.runs == RUNS {
            *self = Self::new();
        }
        self.runs += 1;
        let tenant = TenantId::new(&format!("run-{}", self.runs)).expect("it is a name");
        self.runtime.block_on(self.store.append(&tenant, batch)).expect("memory takes all");
        View::of(tenant)
    }
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new(Bench::new());
}

/// What is asked, where.
struct Question<'a> {
    bench: &'a Bench,
    view: &'a View,
    options: QueryOptions,
}

impl Question<'_> {
    fn instant(&self, engine: &Engine, text: &str, at: i64) -> Result<Answer, QueryError> {
        self.bench.runtime.block_on(engine.instant(self.view, text, Timestamp(at), &self.options))
    }

    fn range(
        &self,
        engine: &Engine,
        text: &str,
        start: i64,
        end: i64,
        step: i64,
    ) -> Result<Answer, QueryError> {
        let (start, end, step) = (Timestamp(start), Timestamp(end), Millis(step));
        self.bench.runtime.block_on(engine.range(self.view, text, start, end, step, &self.options))
    }
}

fn is_too_much<T>(answer: &Result<T, QueryError>) -> bool {
    matches!(answer, Err(QueryError::TooManySamples))
}

/// Both answers, or both refusals in the same words.
fn assert_same(text: &str, what: &str, a: &Result<Answer, QueryError>, b: &Result<Answer, QueryError>) {
    let same = match (a, b) {
        (Ok(a), Ok(b)) => compare::answer(a, b),
        (Err(a), Err(b)) => a.to_string() == b.to_string(),
        _ => false,
    };
    assert!(same || is_too_much(a) || is_too_much(b), "{what}: {text}\n{a:#?}\n{b:#?}");
}

fuzz_target!(|input: &[u8]| {
    let mut bytes = Unstructured::new(input);
    let features = Features {
        delayed_name_removal: below(&mut bytes, 2) == 1,
        use_start_timestamps: below(&mut bytes, 2) == 1,
        type_and_unit_labels: below(&mut bytes, 4) == 3,
        ..Features::default()
    };
    let start = i64::from(below(&mut bytes, 400_000)) - 30_000;
    let step = *one_of(&mut bytes, &[15_000, 60_000, 1_000, 7_003, 1, 300_000]);
    let count = i64::from(below(&mut bytes, 12));
    let depth = 1 + below(&mut bytes, 4);
    let text = expression::Writer { bytes: &mut bytes, depth }.expression();
    let Ok(expr) = parse(&text, &ParserFeatures::default()) else { return };
    let batch = data::batch(&mut bytes);

    BENCH.with_borrow_mut(|bench| {
        let view = bench.load(batch);
        let options = QueryOptions { features: Some(features), ..QueryOptions::default() };
        let ask = Question { bench, view: &view, options };
        let end = start + count * step;
        let range = ask.range(&bench.one, &text, start, end, step);
        assert_same(&text, "threads, range", &range, &ask.range(&bench.three, &text, start, end, step));
        if is_too_much(&range) {
            return;
        }

        for i in 0..=count {
            let at = start + i * step;
            let instant = ask.instant(&bench.one, &text, at);
            if i == 0 || i == count {
                assert_same(&text, "threads, instant", &instant, &ask.instant(&bench.three, &text, at));
            }
            if is_too_much(&instant) || expression::depends_on_grid(&text) {
                continue;
            }
            // A range may be refused for what no instant has: series that are the same, at other times.
            let Ok(range) = &range else { continue };
            let instant =
                instant.unwrap_or_else(|error| panic!("a step is refused: {text} at {at}: {error}"));
            let (whole, alone) = (compare::at(&range.value, at), compare::at(&instant.value, at));
            assert!(
                compare::same_at(&whole, &alone),
                "a step differs: {text} at {at}\n{whole:#?}\n{alone:#?}"
            );
        }

        let printed = expr.to_string();
        let (a, b) = (ask.instant(&bench.one, &text, end), ask.instant(&bench.one, &printed, end));
        match (a, b) {
            (Ok(a), Ok(b)) => {
                assert!(compare::value(&a.value, &b.value), "{text} prints as {printed}\n{a:#?}\n{b:#?}");
            }
            (Err(_), Err(_)) => {}
            (a, b) => panic!("{text} prints as {printed}\n{a:#?}\n{b:#?}"),
        }
    });
});
