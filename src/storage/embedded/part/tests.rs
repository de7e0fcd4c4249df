use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    super::{
        disk::{Disk, SystemDisk},
        faults::FaultyDisk,
    },
    *,
};
use crate::{
    model::{
        Histogram, Labels, MatchOp, Matcher,
        histogram::{Counts, ResetHint, Span},
        is_stale, stale_nan,
    },
    storage::{HistogramSample, SeriesSamples, StorageError},
};

pub(super) type Model = BTreeMap<(TenantId, Labels), SeriesSamples>;

const FACTS: PartFacts = PartFacts { id: PartId(7), covers_wal: 42, replaces: Vec::new() };

pub(super) fn system() -> Arc<dyn Disk> {
    Arc::new(SystemDisk)
}

pub(super) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub(super) fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

pub(super) fn counter(from: i64, count: i64, step: f64) -> SeriesSamples {
    let mut samples = SeriesSamples::default();
    let mut value = 0.0;
    for i in 0..count {
        value += step;
        samples.push(from + i * 15_000, value, 0);
    }
    samples
}

fn histogram(count: u64) -> Histogram {
    Histogram {
        schema: 0,
        zero_threshold: 0.001,
        sum: 1.5,
        reset_hint: ResetHint::Unknown,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        negative_spans: Vec::new(),
        counts: Counts::Integer { count, zero_count: 0, positive: vec![1, 2], negative: Vec::new() },
        custom_values: Vec::new(),
    }
}

pub(super) fn write(dir: &TempDir, model: &Model) -> (PathBuf, PartMeta) {
    let path = FACTS.id.path(dir.path(), Timestamp(0));
    let mut writer = PartWriter::create(&system(), &path).unwrap();
    for ((tenant, labels), samples) in model {
        writer.add(tenant, labels, samples).unwrap();
    }
    let meta = writer.finish(FACTS).unwrap();
    (path, meta)
}

pub(super) fn same(a: &SeriesSamples, b: &SeriesSamples) -> bool {
    let bits = |s: &SeriesSamples| s.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    a.timestamps == b.timestamps
        && bits(a) == bits(b)
        && (0..a.timestamps.len()).all(|i| a.start(i) == b.start(i))
        && a.histograms == b.histograms
}

/// All that a part holds is what the model holds, found by every way there is.
pub(super) fn check(part: &Part, model: &Model) {
    let series: Vec<PartSeries> = series(part).map(Result::unwrap).collect();
    let keys: Vec<_> = series.iter().map(|s| (s.tenant.clone(), s.labels.clone())).collect();
    assert_eq!(keys, model.keys().cloned().collect::<Vec<_>>());
    for (series, samples) in series.iter().zip(model.values()) {
        let mut back = SeriesSamples::default();
        part.read(series.ordinal, TimeRange::ALL, &mut back).unwrap();
        assert!(same(&back, samples), "{series:?}");
        let mut times = SeriesSamples::default();
        part.read_times(series.ordinal, TimeRange::ALL, &mut times).unwrap();
        let stale = |of: &SeriesSamples| of.values.iter().map(|value| is_stale(*value)).collect::<Vec<_>>();
        assert_eq!((&times.timestamps, stale(&times)), (&samples.timestamps, stale(samples)), "{series:?}");
        assert_eq!(times.histograms, samples.histograms);
        assert_eq!(part.labels(series.ordinal).unwrap(), series.labels);
    }
    assert_eq!(part.examine(|_, _, _| Ok(())).unwrap(), []);
}

/// All series of a part, in order.
fn series(part: &Part) -> impl Iterator<Item = Result<PartSeries, StorageError>> + '_ {
    (0..part.meta().series).map(|ordinal| Ok(part.series(ordinal)?.expect("it is within the count")))
}

/// The values that a label has on all series of a tenant.
fn values(part: &Part, tenant_name: &str, name: &str) -> Vec<String> {
    let mut values = Vec::new();
    let each = |value: &str| {
        values.push(value.to_owned());
        ControlFlow::Continue(())
    };
    part.each_label_value(&tenant(tenant_name), name, None, each).unwrap();
    values
}

fn sample_model() -> Model {
    let mut model = Model::new();
    for tenant_name in ["anonymous", "team-a", "team-b"] {
        for metric in ["http_requests_total", "up"] {
            for pod in ["a", "b", "c"] {
                let key = labels(&[("__name__", metric), ("pod", pod), ("job", "api")]);
                model.insert((tenant(tenant_name), key), counter(1_000, 300, f64::from(pod.as_bytes()[0])));
            }
        }
    }
    let mut mixed = counter(500, 1500, 0.25);
    mixed.push(90_000_000, stale_nan(), 77);
    for i in 0..200 {
        let histogram = Arc::new(histogram(3 + i / 10));
        let timestamp = 700 + i64::try_from(i).unwrap() * 1000;
        mixed.histograms.push(HistogramSample { timestamp, start: 5, histogram });
    }
    model.insert(
        (tenant("team-b"), labels(&[("__name__", "mixed"), ("ünï", "cödé \u{0} \u{10ffff}\n")])),
        mixed,
    );
    model.insert((tenant("team-b"), Labels::empty()), counter(0, 1, 1.0));
    model
}

#[test]
fn what_was_written_comes_back_with_several_tenants() {
    let dir = TempDir::new().unwrap();
    let model = sample_model();
    let (path, meta) = write(&dir, &model);
    let part = Part::open(&system(), &path).unwrap();
    assert_eq!(part.meta(), &meta);
    assert_eq!((meta.id, meta.covers_wal, meta.series), (PartId(7), 42, 20));
    assert_eq!(meta.samples, 18 * 300 + 1501 + 1);
    assert_eq!(meta.histograms, 200);
    assert_eq!(meta.range, TimeRange::new(Timestamp(0), Timestamp(90_000_000)));
    assert_eq!(meta.tenant(&tenant("team-a")).unwrap().series, 6);
    assert_eq!(meta.bytes, fs::metadata(&path).unwrap().len());
    check(&part, &model);
    assert!(!dir.path().join("19700101/0000000000000007.part.tmp").exists());
}

#[test]
fn a_range_is_cut_out_exactly() {
    let dir = TempDir::new().unwrap();
    let model = sample_model();
    let (path, _) = write(&dir, &model);
    let part = Part::open(&system(), &path).unwrap();
    for (series, samples) in series(&part).zip(model.values()) {
        let ordinal = series.unwrap().ordinal;
        assert_eq!(
            part.series_range(ordinal).unwrap().start().0,
            samples
                .timestamps
                .iter()
                .copied()
                .chain(samples.histograms.iter().map(|h| h.timestamp))
                .min()
                .unwrap()
        );
        for (start, end) in [(0, 0), (1_000, 1_000), (16_001, 95_000), (3_000_000, i64::MAX), (i64::MIN, -1)]
        {
            let range = TimeRange::new(Timestamp(start), Timestamp(end)).unwrap();
            let mut expect = SeriesSamples::default();
            expect.push(-5, 1.0, 0);
            for i in 0..samples.timestamps.len() {
                if range.contains(Timestamp(samples.timestamps[i])) {
                    expect.push(samples.timestamps[i], samples.values[i], samples.start(i));
                }
            }
            expect.histograms = samples
                .histograms
                .iter()
                .filter(|h| range.contains(Timestamp(h.timestamp)))
                .cloned()
                .collect();
            let mut back = SeriesSamples::default();
            back.push(-5, 1.0, 0);
            part.read(ordinal, range, &mut back).unwrap();
            assert!(same(&back, &expect), "{range:?}");
        }
    }
}

#[test]
fn matchers_find_what_they_match() {
    let dir = TempDir::new().unwrap();
    let model = sample_model();
    let (path, _) = write(&dir, &model);
    let part = Part::open(&system(), &path).unwrap();
    let values = [
        "", "a", "b", "api", "up", "none", "a|b", "a|b|", "u.*", "http_.+", ".*", ".+", "[ab]", "[^a]*",
        ".*q.*", "(?i)UP", "c.*",
    ];
    let mut matchers = Vec::new();
    for name in ["__name__", "pod", "job", "ünï", "absent"] {
        for op in [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Matches, MatchOp::NotMatches] {
            matchers.extend(values.iter().map(|value| Matcher::new(op, name, value).unwrap()));
        }
    }
    let pairs =
        matchers.iter().enumerate().map(|(i, m)| vec![m.clone(), matchers[i * 7 % matchers.len()].clone()]);
    for set in matchers.iter().map(|m| vec![m.clone()]).chain(pairs).chain([Vec::new()]) {
        for tenant in ["anonymous", "team-b", "nobody"].map(tenant) {
            let found = part.find(&tenant, &set).unwrap();
            let found: Vec<Labels> = found.iter().map(|ordinal| part.labels(ordinal).unwrap()).collect();
            let passes = |labels: &Labels| set.iter().all(|m| m.matches(labels.get(m.name()).unwrap_or("")));
            let expect: Vec<Labels> = model
                .keys()
                .filter(|key| key.0 == tenant && passes(&key.1))
                .map(|key| key.1.clone())
                .collect();
            assert_eq!(found, expect, "{set:?} of {tenant}");
        }
    }
}

#[test]
fn many_values_are_scanned_by_their_index() {
    let dir = TempDir::new().unwrap();
    let mut model = Model::new();
    for i in 0..500 {
        let pod = format!("pod-{i:03}");
        model.insert((tenant("t"), labels(&[("__name__", "up"), ("pod", &pod)])), counter(i, 1, 1.0));
        model.insert((tenant("t"), labels(&[("__name__", "down"), ("pod", &pod)])), counter(i, 1, 1.0));
    }
    let (path, _) = write(&dir, &model);
    let part = Part::open(&system(), &path).unwrap();
    let found = |op, value| {
        let name = Matcher::equal("__name__", "up");
        part.find(&tenant("t"), &[Matcher::new(op, "pod", value).unwrap(), name]).unwrap().len()
    };
    assert_eq!(found(MatchOp::Matches, "pod-1.*"), 100);
    assert_eq!(found(MatchOp::Matches, ".*7"), 50);
    assert_eq!(found(MatchOp::NotMatches, ".*7"), 450);
    assert_eq!(found(MatchOp::Matches, "(.*7)?"), 50);
    assert_eq!(found(MatchOp::NotMatches, "pod-001|pod-002"), 498);
    assert_eq!(values(&part, "t", "pod").len(), 500);
    let one = part.find(&tenant("t"), &[Matcher::equal("pod", "pod-009")]).unwrap();
    assert_eq!(part.label_values_of(&tenant("t"), "pod", &one).unwrap(), ["pod-009"]);
    assert_eq!(part.label_values_of(&tenant("t"), "__name__", &one).unwrap(), ["down", "up"]);
}

#[test]
fn label_names_and_values_are_the_tenants_own() {
    let dir = TempDir::new().unwrap();
    let (path, _) = write(&dir, &sample_model());
    let part = Part::open(&system(), &path).unwrap();
    assert_eq!(part.label_names(&tenant("team-a")).unwrap(), ["__name__", "job", "pod"]);
    assert_eq!(part.label_names(&tenant("team-b")).unwrap(), ["__name__", "job", "pod", "ünï"]);
    assert_eq!(values(&part, "team-a", "__name__"), ["http_requests_total", "up"]);
    assert_eq!(values(&part, "team-a", "absent"), [""; 0]);
    assert_eq!(values(&part, "nobody", "__name__"), [""; 0]);
    let mixed = part.find(&tenant("team-b"), &[Matcher::equal("__name__", "mixed")]).unwrap();
    assert_eq!(part.label_names_of(&tenant("team-b"), &mixed).unwrap(), ["__name__", "ünï"]);
}

#[test]
fn an_empty_part_is_a_part() {
    let dir = TempDir::new().unwrap();
    let (path, meta) = write(&dir, &Model::new());
    assert_eq!((meta.series, meta.range), (0, None));
    let part = Part::open(&system(), &path).unwrap();
    check(&part, &Model::new());
    assert!(part.labels(0).is_err());
    assert!(part.read(0, TimeRange::ALL, &mut SeriesSamples::default()).is_err());
    assert!(part.find(&tenant("t"), &[]).unwrap().is_empty());
}

#[test]
fn more_series_than_sixteen_bits_are_told_apart() {
    let dir = TempDir::new().unwrap();
    let path = FACTS.id.path(dir.path(), Timestamp(0));
    let mut writer = PartWriter::create(&system(), &path).unwrap();
    let count = 70_000_u32;
    for i in 0..count {
        let labels = labels(&[
            ("__name__", "m"),
            ("id", &format!("{i:06}")),
            ("odd", if i % 2 == 1 { "y" } else { "n" }),
        ]);
        writer.add(&tenant("t"), &labels, &counter(0, 2, f64::from(i))).unwrap();
    }
    assert_eq!(writer.finish(FACTS).unwrap().series, count);
    let part = Part::open(&system(), &path).unwrap();
    let odd = part.find(&tenant("t"), &[Matcher::equal("odd", "y")]).unwrap();
    assert_eq!(odd.len(), u64::from(count / 2));
    let last = part.find(&tenant("t"), &[Matcher::equal("id", "069999")]).unwrap();
    assert_eq!(last.iter().collect::<Vec<_>>(), [69_999]);
    let mut samples = SeriesSamples::default();
    part.read(69_999, TimeRange::ALL, &mut samples).unwrap();
    assert_eq!(samples.values, [69_999.0, 139_998.0]);
}

#[test]
fn what_comes_out_of_order_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.part");
    let mut writer = PartWriter::create(&system(), &path).unwrap();
    let (a, b) = (labels(&[("a", "1")]), labels(&[("b", "1")]));
    writer.add(&tenant("t"), &b, &counter(0, 1, 1.0)).unwrap();
    assert!(writer.add(&tenant("t"), &b, &counter(0, 1, 1.0)).is_err());
    assert!(writer.add(&tenant("t"), &a, &counter(0, 1, 1.0)).is_err());
    assert!(writer.add(&tenant("s"), &b, &counter(0, 1, 1.0)).is_err());
    let mut backwards = counter(0, 2, 1.0);
    backwards.timestamps.reverse();
    assert!(writer.add(&tenant("u"), &b, &backwards).is_err());
    let ragged = SeriesSamples { values: Vec::new(), ..counter(0, 2, 1.0) };
    assert!(writer.add(&tenant("u"), &b, &ragged).is_err());
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "an unfinished part leaves nothing behind");
}

/// Whatever byte is wrong, opening or reading says so, or the answer is right all the same.
#[test]
fn every_flipped_byte_is_noticed_and_costs_only_its_neighbours() {
    let dir = TempDir::new().unwrap();
    let mut model = Model::new();
    for i in 0..40 {
        let key = labels(&[("__name__", "m"), ("pod", &format!("p{i}"))]);
        model.insert((tenant("t"), key), counter(i * 7, 20, 1.5));
    }
    let (path, _) = write(&dir, &model);
    let good = fs::read(&path).unwrap();
    let mut opened = 0;
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&path, &bad).unwrap();
        match Part::open(&system(), &path) {
            Ok(part) => {
                opened += 1;
                let damage = part.examine(|_, _, _| Ok(())).unwrap();
                assert!(!damage.is_empty(), "byte {at} is flipped and nobody sees it");
                for (series, samples) in series(&part).zip(model.values()) {
                    let mut back = SeriesSamples::default();
                    match part.read(series.unwrap().ordinal, TimeRange::ALL, &mut back) {
                        Ok(()) => assert!(same(&back, samples)),
                        Err(StorageError::Corrupt { .. }) => assert!(back.is_empty()),
                        Err(e) => panic!("{e}"),
                    }
                }
            }
            Err(StorageError::Corrupt { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    }
    assert!(opened > good.len() / 10, "a flip in a page does not keep the part from opening");
}

#[test]
fn a_damaged_page_costs_only_its_own_series() {
    let dir = TempDir::new().unwrap();
    let mut model = Model::new();
    let mut random = 1_u64;
    for i in 0..200 {
        let mut samples = counter(0, 240, 1.0);
        for value in &mut samples.values {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *value = f64::from_bits(0x3ff0_0000_0000_0000 | random >> 12);
        }
        model.insert((tenant("t"), labels(&[("__name__", "m"), ("pod", &format!("{i:03}"))])), samples);
    }
    let (path, meta) = write(&dir, &model);
    let mut bytes = fs::read(&path).unwrap();
    assert!(meta.bytes > 200_000);
    // In the second page; the times lie on the last, since they are all the same.
    bytes[100_000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let part = Part::open(&system(), &path).unwrap();
    let readable = (0..200)
        .filter(|ordinal| part.read(*ordinal, TimeRange::ALL, &mut SeriesSamples::default()).is_ok())
        .count();
    assert!((120..200).contains(&readable), "{readable}");
}

#[test]
fn every_truncation_is_noticed() {
    let dir = TempDir::new().unwrap();
    let (path, _) = write(&dir, &sample_model());
    let good = fs::read(&path).unwrap();
    for length in (0..good.len()).step_by(37).chain(good.len() - 100..good.len()) {
        fs::write(&path, &good[..length]).unwrap();
        assert!(matches!(Part::open(&system(), &path), Err(StorageError::Corrupt { .. })), "{length}");
    }
    let longer = [good.as_slice(), b"x"].concat();
    fs::write(&path, longer).unwrap();
    assert!(matches!(Part::open(&system(), &path), Err(StorageError::Corrupt { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(Part::open(&system(), &path), Err(StorageError::Io { .. })));
}

#[test]
fn a_scrape_with_jitter_takes_less_than_eight_tenths_of_a_byte_a_sample() {
    let dir = TempDir::new().unwrap();
    let path = FACTS.id.path(dir.path(), Timestamp(0));
    let mut writer = PartWriter::create(&system(), &path).unwrap();
    let mut random = 1_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let scrapes: Vec<Vec<i64>> = (0..20)
        .map(|target| {
            (0..240)
                .map(|i| 1_700_000_000_000 + target * 700 + i * 15_000 + i64::try_from(next(7)).unwrap())
                .collect()
        })
        .collect();
    for metric in 0..100 {
        for (target, timestamps) in scrapes.iter().enumerate() {
            let labels = labels(&[
                ("__name__", &format!("http_requests_{metric:03}_total")),
                ("instance", &format!("10.0.0.{target:02}:9090")),
                ("job", "api"),
                ("cluster", "eu-1"),
            ]);
            let mut value = next(1_000_000);
            let values = timestamps.iter().map(|_| {
                value += 100 + next(32);
                value as f64
            });
            let samples = SeriesSamples {
                values: values.collect(),
                timestamps: timestamps.clone(),
                ..Default::default()
            };
            writer.add(&tenant("t"), &labels, &samples).unwrap();
        }
    }
    let meta = writer.finish(FACTS).unwrap();
    let per_sample = meta.bytes as f64 / meta.samples as f64;
    assert!(per_sample < 0.8, "{per_sample} bytes a sample");
}

#[test]
fn a_part_has_a_path_by_its_day_and_id() {
    let path = |at| PartId(0xabc).path(Path::new("parts"), Timestamp(at));
    assert_eq!(path(1_763_712_000_000), Path::new("parts/20251121/0000000000000abc.part"));
    assert_eq!(path(-1), Path::new("parts/19691231/0000000000000abc.part"));
    assert_ne!(path(i64::MAX), path(i64::MIN));
    assert_eq!(PartId::from_file_name("0000000000000abc.part"), Some(PartId(0xabc)));
    for name in
        ["0000000000000abc.part.tmp", "abc.part", "0000000000000ABC.part", "+000000000000abc.part", ""]
    {
        assert_eq!(PartId::from_file_name(name), None, "{name}");
    }
}

fn any_samples() -> impl Strategy<Value = SeriesSamples> {
    let floats = prop::collection::btree_map(
        -100_000_i64..100_000,
        (any::<u64>(), prop_oneof![Just(0), any::<i64>()]),
        0..60,
    );
    let histograms = prop::collection::btree_map(-100_000_i64..100_000, 0_u64..5, 0..5);
    (floats, histograms).prop_map(|(floats, histograms)| {
        let mut samples = SeriesSamples::default();
        for (timestamp, (bits, start)) in floats {
            samples.push(timestamp, f64::from_bits(bits), start);
        }
        samples.histograms = histograms
            .into_iter()
            .map(|(timestamp, count)| HistogramSample {
                timestamp,
                start: 0,
                histogram: Arc::new(histogram(count)),
            })
            .collect();
        samples
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_part_agrees_with_a_map(
        model in prop::collection::btree_map(
            ("[ab]", prop::collection::btree_map("[a-c]", "\\PC{1,3}", 0..3)),
            any_samples(),
            0..40,
        ),
        start in -100_000_i64..100_000,
        length in 0_i64..100_000,
    ) {
        let model: Model = model
            .into_iter()
            .filter(|(_, samples)| !samples.is_empty())
            .map(|((t, pairs), samples)| ((tenant(&t), Labels::from_pairs(pairs).unwrap()), samples))
            .collect();
        let dir = TempDir::new().unwrap();
        let (path, _) = write(&dir, &model);
        let part = Part::open(&system(), &path).unwrap();
        check(&part, &model);
        let range = TimeRange::new(Timestamp(start), Timestamp(start + length)).unwrap();
        for (series, samples) in series(&part).zip(model.values()) {
            let mut back = SeriesSamples::default();
            part.read(series.unwrap().ordinal, range, &mut back).unwrap();
            let inside = samples.timestamps.iter().filter(|t| range.contains(Timestamp(**t))).count();
            prop_assert_eq!(back.timestamps.len(), inside);
            prop_assert!(back.timestamps.iter().all(|t| range.contains(Timestamp(*t))));
        }
    }
}

#[test]
fn a_full_disk_leaves_a_whole_part_or_none() {
    let dir = TempDir::new().unwrap();
    let model = sample_model();
    let path = FACTS.id.path(dir.path(), Timestamp(0));
    let write = |room: u64| -> Result<PartMeta, StorageError> {
        let full = FaultyDisk::over(system());
        full.room.store(room + 1, Ordering::SeqCst);
        let disk: Arc<dyn Disk> = full;
        let mut writer = PartWriter::create(&disk, &path)?;
        for ((tenant, labels), samples) in &model {
            writer.add(tenant, labels, samples)?;
        }
        writer.finish(FACTS)
    };
    let mut room = 0;
    while let Err(e) = write(room) {
        assert!(matches!(e, StorageError::DiskFull { .. }), "{e}");
        let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 0, "after {room} calls something is left behind");
        room += 1;
    }
    assert!(room > 10);
    check(&Part::open(&system(), &path).unwrap(), &model);
}
