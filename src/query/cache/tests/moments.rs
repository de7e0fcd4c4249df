//! Single moments: what hits, what is evaluated again, and what comes at the wrong time.

use tokio::sync::Semaphore;

use super::*;
use crate::model::Matcher;
use crate::model::TimeRange;

const BIG: usize = 64 << 20;

async fn counter_of_an_hour(pair: &Pair, upto: i64) {
    let labels = labels(&[("__name__", "c_total"), ("i", "1")]);
    let samples: Vec<(i64, f64)> =
        (0..upto).map(|i| (T0 + i * 15_000, f64::from(u32::try_from(i).unwrap()) * 1.1)).collect();
    pair.floats(&labels, &samples).await;
}

#[tokio::test]
async fn a_range_that_moves_on_is_evaluated_at_its_new_end_only() {
    let pair = Pair::new(BIG, 0);
    counter_of_an_hour(&pair, 240).await;
    let ask = async |from: i64| {
        let start = T0 + from * 15_000;
        pair.ask("sum(rate(c_total[1m]))", start, start + 3_000_000, 15_000).await.unwrap()
    };
    let first = ask(0).await;
    let mut steps = read(&pair.counters().evaluated_steps);
    assert_eq!(steps, 201);
    for moved in 1..20 {
        let more = labels(&[("__name__", "c_total"), ("i", "1")]);
        pair.floats(&more, &[(T0 + (239 + moved) * 15_000, 1_000.0)]).await;
        let answer = ask(moved).await;
        let now = read(&pair.counters().evaluated_steps);
        // Nothing was written to the end of the range: it is the new step and no other.
        assert_eq!(now - steps, 1, "moved by {moved}");
        assert!(answer.stats.samples_read < 8, "{}", answer.stats.samples_read);
        steps = now;
    }
    assert!(first.stats.samples_read > 200);
    assert_eq!((read(&pair.counters().hits), read(&pair.counters().partial)), (0, 19));
    ask(19).await;
    assert_eq!(read(&pair.counters().hits), 1);
}

#[tokio::test]
async fn a_late_sample_costs_the_steps_that_see_its_minute() {
    let pair = Pair::new(BIG, 0);
    counter_of_an_hour(&pair, 240).await;
    let ask = async || pair.ask("rate(c_total[5m])", T0, T0 + 3_600_000, 15_000).await.unwrap();
    ask().await;
    let before = read(&pair.counters().evaluated_steps);
    let series = labels(&[("__name__", "c_total"), ("i", "late")]);
    pair.floats(&series, &[(T0 + 1_800_000, 7.0), (T0 + 1_801_000, 9.0)]).await;
    assert!(matches!(ask().await.value, Value::Matrix(series) if series.len() == 2));
    let again = read(&pair.counters().evaluated_steps) - before;
    // Five minutes of windows and the minute itself, four steps each.
    assert!((20..=26).contains(&again), "{again}");
    let matcher = Matcher::equal("i", "late");
    let range = TimeRange::new(Timestamp(T0 + 1_800_500), Timestamp(T0 + 1_801_500)).unwrap();
    pair.storage.delete(&tenant(), vec![vec![matcher]], range).await.unwrap();
    let before = read(&pair.counters().evaluated_steps);
    ask().await;
    assert!((18..=24).contains(&(read(&pair.counters().evaluated_steps) - before)));
    pair.storage.clean_tombstones(&tenant()).await.unwrap();
    ask().await;
}

#[tokio::test]
async fn what_depends_on_the_whole_range_is_not_kept() {
    let pair = Pair::new(BIG, MINUTE);
    counter_of_an_hour(&pair, 240).await;
    let texts = [
        "c_total - start()",
        "c_total @ end()",
        "rate(c_total[range()])",
        "sum_over_time(c_total[5m] @ start())",
        "label_replace(c_total, \"a\", \"b\", \"\", \"\")",
        "rate({__name__=~\"c_total|d_total\"}[1m])",
    ];
    for text in texts {
        for _ in 0..2 {
            pair.ask(text, T0, T0 + 600_000, 15_000).await.unwrap();
        }
        assert_eq!(pair.kept.cache().unwrap().size(), (0, 0), "{text}");
    }
    assert_eq!(read(&pair.counters().passed), 2 * texts.len() as u64);
}

#[tokio::test]
async fn a_pinned_selector_is_true_until_its_own_samples_change() {
    let pair = Pair::new(BIG, 0);
    counter_of_an_hour(&pair, 240).await;
    let text = "c_total + on(i) c_total @ 1700000307";
    let ask = async || pair.ask(text, T0 + 1_200_000, T0 + 2_400_000, 15_000).await.unwrap();
    ask().await;
    ask().await;
    assert_eq!(read(&pair.counters().hits), 1);
    let other = labels(&[("__name__", "c_total"), ("i", "2")]);
    pair.floats(&other, &[(T0 + 300_000, 5.0)]).await;
    ask().await;
    assert_eq!((read(&pair.counters().hits), read(&pair.counters().misses)), (1, 2));
}

#[tokio::test]
async fn texts_that_mean_the_same_share_and_those_with_something_to_say_do_not() {
    let pair = Pair::new(BIG, 0);
    counter_of_an_hour(&pair, 240).await;
    let ask = async |text: &str| pair.ask(text, T0, T0 + 600_000, 15_000).await.unwrap();
    ask("sum by(i)  (c_total)").await;
    ask("sum   by (i) (c_total{ })").await;
    assert_eq!(read(&pair.counters().hits), 1);
    // Not named like a counter; the place differs.
    let gauge = labels(&[("__name__", "g")]);
    pair.floats(&gauge, &[(T0, 1.0), (T0 + 15_000, 2.0)]).await;
    let first = ask("rate(g[1m])").await;
    let second = ask("rate(  g[1m])").await;
    assert_ne!(first.infos, second.infos);
    assert_eq!(read(&pair.counters().hits), 1);
    ask("rate(  g[1m])").await;
    assert_eq!(read(&pair.counters().hits), 2);
}

#[tokio::test]
async fn who_does_not_want_the_cache_does_not_use_it() {
    let pair = Pair::new(BIG, 0);
    counter_of_an_hour(&pair, 40).await;
    for _ in 0..3 {
        let mut query = query("c_total", T0, T0 + 600_000, 15_000);
        query.controls.no_cache = true;
        pair.kept.range(&Reader::of(tenant()), query).await.unwrap();
    }
    assert_eq!(pair.kept.cache().unwrap().size(), (0, 0));
    let off = Pair::new(0, 0);
    counter_of_an_hour(&off, 40).await;
    off.ask("c_total", T0, T0 + 600_000, 15_000).await.unwrap();
    assert_eq!(off.kept.cache().unwrap().size(), (0, 0));
}

#[tokio::test]
async fn a_long_range_is_evaluated_in_pieces_between_fixed_bounds() {
    let pair = Pair::new(BIG, 10 * MINUTE);
    counter_of_an_hour(&pair, 240).await;
    let text = "sum(rate(c_total[5m])) > 0 or vector(1)";
    let answer = pair.ask(text, T0, T0 + 3_600_000, 15_000).await.unwrap();
    let whole =
        pair.plain.range(&Reader::of(tenant()), query(text, T0, T0 + 3_600_000, 15_000)).await.unwrap();
    let whole = whole.answer;
    assert!(answer.stats.peak_samples < whole.stats.peak_samples);
    // The first piece that is cut off ends at a bound: another range finds the pieces between.
    pair.ask(text, T0 + 900_000, T0 + 2_700_000, 15_000).await.unwrap();
    assert_eq!(read(&pair.counters().hits), 1);
}

#[tokio::test]
async fn of_equals_the_one_that_the_whole_range_saw_first_is_picked() {
    let pair = Pair::new(BIG, 0);
    // The first series of group `b` comes before `a`, but has something to say in the beginning only.
    for (i, group) in [("1", "b"), ("2", "a"), ("3", "b")] {
        let labels = labels(&[("__name__", "g"), ("i", i), ("j", group)]);
        let value = |minute: i64| if i == "1" && minute > 2 { 0.0 } else { 7.0 };
        let samples: Vec<(i64, f64)> = (0..60).map(|m| (T0 + m * MINUTE, value(m))).collect();
        pair.floats(&labels, &samples).await;
    }
    for text in ["topk(1, max by (j) (g > 0))", "topk(1, count_values(\"v\", g{i!=\"3\"}))"] {
        for (from, to) in [(0, 20), (5, 25), (1, 30), (2, 30), (10, 20), (10, 40)] {
            pair.ask(text, T0 + from * MINUTE, T0 + to * MINUTE, MINUTE).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_told_of_all_steps_is_told_of_all_of_them() {
    let pair = Pair::new(BIG, 0);
    counter_of_an_hour(&pair, 240).await;
    for text in ["quantile(scalar(c_total) / 100, c_total)", "limit_ratio(scalar(c_total) / 100, c_total)"] {
        for moved in 0..3 {
            let start = T0 + 1_800_000 + moved * MINUTE;
            let answer = pair.ask(text, start, start + 600_000, MINUTE).await.unwrap();
            assert_eq!(answer.warnings.len(), 1, "{:?}", answer.warnings);
        }
    }
}

#[tokio::test]
async fn windows_longer_than_a_piece_are_not_read_for_each() {
    let pair = Pair::new(BIG, 10 * MINUTE);
    counter_of_an_hour(&pair, 240).await;
    let ask = async |text: &str| {
        let answer = pair.ask(text, T0 + 600_000, T0 + 3_600_000, 15_000).await.unwrap();
        answer.stats.samples_read
    };
    // Five minutes more for each of the pieces, and half an hour once.
    let (short, long) = (ask("sum(rate(c_total[5m]))").await, ask("sum(rate(c_total[40m]))").await);
    assert!(short > 240 && short < 480, "{short}");
    assert!(long <= 240, "{long}");
    let pinned = ask("c_total - on(i) max_over_time(c_total[30m] @ 1700001807)").await;
    assert!(pinned <= 480, "{pinned}");
}

#[tokio::test]
async fn what_is_put_together_counts_as_memory() {
    let storage = memory();
    let options = EngineOptions { threads: 2, max_memory: 6 << 20, ..EngineOptions::default() };
    let engine = Arc::new(Engine::new(Arc::clone(&storage), options, SystemClock::start()).unwrap());
    let config = CacheConfig { max_bytes: BIG, split: Millis(10 * MINUTE) };
    let cache = RangeCache::new(Arc::<Engine>::clone(&engine), Arc::clone(&storage), config);
    let pair = Pair { kept: Pair::new(0, 0).kept, plain: Pair::new(0, 0).plain, storage };
    counter_of_an_hour(&pair, 240).await;
    let view = View::of(tenant());
    let ask = async |text: &str| {
        let ticket = Arc::<crate::promql::ticket::Ticket>::default();
        let options = QueryOptions { ticket: Some(Arc::clone(&ticket)), ..QueryOptions::default() };
        let (start, end) = (Timestamp(T0), Timestamp(T0 + 3_600_000));
        let ask = Ask { view: &view, text, start, end, step: Millis(1_000), options: &options };
        let answer = cache.answer(&ask, false).await.unwrap();
        answer.map(|_| engine.memory().held())
    };
    let of_answer = 3_600 * 44;
    for _ in 0..2 {
        let held = ask("c_total").await.unwrap();
        assert!(held >= of_answer, "{held}");
        assert_eq!(engine.memory().held(), 0);
    }
    let others = TenantId::new("other").unwrap();
    let _all_but_a_little = engine.memory().reserve(&others, (6 << 20) - of_answer / 2).unwrap();
    let refused = ask("c_total").await.unwrap_err();
    assert!(matches!(refused, QueryError::Memory { for_good: false, .. }), "{refused}");
}

#[tokio::test]
async fn tenants_and_views_have_their_own() {
    let pair = Pair::new(BIG, 0);
    counter_of_an_hour(&pair, 40).await;
    let all = Reader::of(tenant());
    let some = View::new(vec![tenant()], vec![vec![Matcher::equal("i", "2")]]).unwrap();
    let some = Reader { view: some, ..Reader::of(tenant()) };
    let other = Reader::of(TenantId::new("other").unwrap());
    for _ in 0..2 {
        for (reader, count) in [(&all, 1), (&some, 0), (&other, 0)] {
            let answer = pair.kept.range(reader, query("c_total", T0, T0 + 300_000, 15_000)).await.unwrap();
            assert!(
                matches!(answer.answer.value, Value::Matrix(series) if series.len() == count),
                "{reader:?}"
            );
        }
    }
    assert_eq!(read(&pair.counters().hits), 3);
}

/// Waits before or after a piece until it is let go on.
#[derive(Debug)]
struct Held {
    engine: Arc<Engine>,
    arrived: Semaphore,
    go_on: Semaphore,
    before: bool,
}

impl Held {
    async fn wait(&self) {
        self.arrived.add_permits(1);
        self.go_on.acquire().await.unwrap().forget();
    }
}

#[async_trait]
impl EvaluatePieces for Held {
    fn study(&self, text: &str, step: Millis, options: &QueryOptions) -> Option<Study> {
        self.engine.study(text, step, options)
    }

    async fn piece(
        &self,
        view: &View,
        text: &str,
        start: Timestamp,
        end: Timestamp,
        step: Millis,
        options: &QueryOptions,
    ) -> Result<Piece, QueryError> {
        if self.before {
            self.wait().await;
        }
        let piece = self.engine.piece(view, text, start, end, step, options).await;
        if !self.before {
            self.wait().await;
        }
        piece
    }

    fn hold(&self, view: &View, options: &QueryOptions, bytes: u64) -> Result<(), QueryError> {
        self.engine.hold(view, options, bytes)
    }

    fn hold_answer(&self, view: &View, options: &QueryOptions, value: &Value) -> Result<(), QueryError> {
        self.engine.hold_answer(view, options, value)
    }
}

#[tokio::test]
async fn a_write_during_an_evaluation_is_never_missed() {
    for before in [true, false] {
        let storage = memory();
        let plain = engine(&storage);
        let held = Arc::new(Held {
            engine: Arc::clone(&plain),
            arrived: Semaphore::new(0),
            go_on: Semaphore::new(0),
            before,
        });
        let config = CacheConfig { max_bytes: BIG, split: Millis(0) };
        let cache = Arc::new(RangeCache::new(Arc::<Held>::clone(&held), Arc::clone(&storage), config));
        let pair = Pair { kept: Pair::new(0, 0).kept, plain: Pair::new(0, 0).plain, storage };
        counter_of_an_hour(&pair, 40).await;
        let ask = |cache: Arc<RangeCache>| async move {
            let (view, options) = (View::of(tenant()), QueryOptions::default());
            let ask = Ask {
                view: &view,
                text: "c_total",
                start: Timestamp(T0),
                end: Timestamp(T0 + 300_000),
                step: Millis(15_000),
                options: &options,
            };
            cache.answer(&ask, false).await.unwrap().unwrap()
        };
        let first = crate::task::spawn("cache-test", ask(Arc::clone(&cache)));
        held.arrived.acquire().await.unwrap().forget();
        // It is being evaluated, or has just been; now comes a write, and is acknowledged.
        let late = labels(&[("__name__", "c_total"), ("i", "late")]);
        pair.floats(&late, &[(T0 + 60_000, 1.0)]).await;
        held.go_on.add_permits(1);
        let seen = first.await.unwrap();
        let count = |answer: &Answer| match &answer.value {
            Value::Matrix(series) => series.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(count(&seen), if before { 2 } else { 1 });
        held.go_on.add_permits(1);
        assert_eq!(
            count(&ask(Arc::clone(&cache)).await),
            2,
            "the write was acknowledged before this was asked"
        );
        // The second evaluation began after the write, and is kept.
        assert_eq!(count(&ask(Arc::clone(&cache)).await), 2);
        assert_eq!(read(&cache.counters().hits), 1);
    }
}

#[tokio::test]
async fn a_series_that_ends_leaves_sums_over_groups_exact() {
    // More series than are evaluated in one go, some of which come and go.
    let pair = Pair::new(BIG, 10 * MINUTE);
    let mut dice = Dice(0x1234_5678_9abc_def1);
    let names: Vec<Labels> = (0..700)
        .map(|i| labels(&[("__name__", "w"), ("g", &format!("{}", (i * 7) % 13)), ("i", &format!("{i:03}"))]))
        .collect();
    let mut batch = WriteBatch::over(names);
    for series in 0..700_u32 {
        let (from, to) = match series % 3 {
            0 => (0, 60),
            1 => (dice.between(0, 40), 60),
            _ => (0, dice.between(20, 60)),
        };
        for minute in from..to {
            #[expect(clippy::cast_precision_loss, reason = "any number will do")]
            let value = dice.between(0, 1_000_000) as f64 / 7.0;
            let timestamp = Timestamp(T0 + minute * MINUTE);
            batch.samples.push(BatchSample { series, timestamp, value, start: 0 });
        }
    }
    pair.write(batch).await;
    for text in [
        "sum(w)",
        "avg by (g) (w)",
        "sum(sum by (g) (w))",
        "stddev(w)",
        "sum(topk(20, w))",
        "quantile(0.3, sum_over_time(w[10m]))",
        "sum(abs(w) * 2)",
        "sum(w + on(i) group_left() w)",
    ] {
        for (from, to) in [(5, 25), (6, 26), (6, 59), (1, 59), (10, 40), (30, 59), (31, 59)] {
            pair.ask(text, T0 + from * MINUTE, T0 + to * MINUTE, MINUTE).await.unwrap();
        }
    }
    assert!(read(&pair.counters().partial) > 8);
    // Not every piece fits: groups come in another order where series have gone.
    assert!(read(&pair.counters().unfit) > 0);
}
