//! Buckets of classic histograms, which stand on each other in a part.

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    tests::{Model, check, counter, labels, same, system, tenant, write},
    *,
};
use crate::{
    model::stale_nan,
    storage::{SeriesSamples, StorageError},
};

const BOUNDS: [&str; 14] =
    ["+Inf", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "10", "100", "2.5", "25", "5"];

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What befalls a family.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    /// One scrape of so many is followed by a reset.
    resets: u64,
    /// One sample of so many is missing.
    gaps: u64,
    /// One scrape of so many leaves stale markers.
    stale: u64,
    /// One value of so many is any float.
    odd: u64,
    /// One bucket of so many is missing.
    missing: u64,
    /// One series of so many has start timestamps.
    starts: u64,
}

fn family(dice: &mut Dice, scrapes: u64, fate: Fate) -> Vec<(&'static str, SeriesSamples)> {
    let once_in = |dice: &mut Dice, sides: u64| sides > 0 && dice.below(sides) == 0;
    let mut sorted = BOUNDS;
    sorted.sort_by(|a, b| a.parse::<f64>().unwrap().total_cmp(&b.parse::<f64>().unwrap()));
    let mut buckets: Vec<_> = sorted.map(|bound| (bound, SeriesSamples::default(), 0_u64)).into();
    buckets.retain(|_| !once_in(dice, fate.missing));
    let with_starts: Vec<bool> = buckets.iter().map(|_| once_in(dice, fate.starts)).collect();
    for scrape in 0..scrapes {
        let at = 1_700_000_000_000 + i64::try_from(scrape * 15_000 + dice.below(3)).unwrap();
        let (stale, reset) = (once_in(dice, fate.stale), once_in(dice, fate.resets));
        let mut below = 0;
        for ((_, samples, total), starts) in buckets.iter_mut().zip(&with_starts) {
            if dice.below(3) == 0 {
                below += dice.below(6);
            }
            *total = if reset { below } else { *total + below };
            if once_in(dice, fate.gaps) {
                continue;
            }
            let value = if stale {
                stale_nan()
            } else if once_in(dice, fate.odd) {
                f64::from_bits(dice.below(u64::MAX) << 31 ^ dice.below(u64::MAX))
            } else {
                *total as f64
            };
            samples.push(at, value, if *starts { at - 1000 } else { 0 });
        }
    }
    buckets.into_iter().map(|(bound, samples, _)| (bound, samples)).collect()
}

/// Families whose buckets are called by `label`, with a label before and one behind it.
fn families(label: &str, seed: u64, scrapes: u64, fate: Fate) -> Model {
    let mut dice = Dice(seed);
    let mut model = Model::new();
    for job in ["a", "b"] {
        for pod in ["x", "y", "z"] {
            for (bound, samples) in family(&mut dice, scrapes, fate) {
                let key = labels(&[("__name__", "d_bucket"), ("job", job), (label, bound), ("pod", pod)]);
                model.insert((tenant("t"), key), samples);
            }
        }
    }
    model.retain(|_, samples| !samples.is_empty());
    model
}

/// What is read last to first, and in part, is what the model has.
fn check_alone(part: &Part, model: &Model) {
    let keys: Vec<(u32, &SeriesSamples)> = (0..).zip(model.values()).collect();
    for (ordinal, samples) in keys.into_iter().rev() {
        let middle = samples.timestamps[samples.timestamps.len() / 2];
        let range = TimeRange::new(Timestamp(middle), Timestamp(i64::MAX)).unwrap();
        let mut back = SeriesSamples::default();
        part.read(ordinal, range, &mut back).unwrap();
        let from = samples.timestamps.partition_point(|at| *at < middle);
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(back.timestamps, samples.timestamps[from..]);
        assert_eq!(bits(&back.values), bits(&samples.values[from..]));
    }
}

fn size(model: &Model) -> u64 {
    write(&TempDir::new().unwrap(), model).1.bytes
}

#[test]
fn buckets_take_less_than_what_they_count_together() {
    let (buckets, others) =
        (families("le", 1, 960, Fate::default()), families("la", 1, 960, Fate::default()));
    let dir = TempDir::new().unwrap();
    let (path, meta) = write(&dir, &buckets);
    let (small, large) = (meta.bytes, size(&others));
    assert!(small * 100 < large * 68, "{small} of {large} bytes");
    let part = Part::open(&system(), &path).unwrap();
    check_alone(&part, &buckets);
    check(&Part::open(&system(), &path).unwrap(), &buckets);
}

#[test]
fn the_same_values_are_there_once() {
    let one = families("le", 7, 480, Fate::default());
    let mut both = one.clone();
    for ((tenant, labels), samples) in &one {
        let name = if labels.get("le") == Some("+Inf") { "d_count" } else { "e_bucket" };
        let mut copy = labels.edit();
        copy.set("__name__", name);
        both.insert((tenant.clone(), copy.build()), samples.clone());
    }
    let (alone, together) = (size(&one), size(&both));
    // The index knows of them all the same.
    assert!(together * 100 < alone * 125, "{together} and {alone} bytes");
    let dir = TempDir::new().unwrap();
    let (path, _) = write(&dir, &both);
    check_alone(&Part::open(&system(), &path).unwrap(), &both);
    check(&Part::open(&system(), &path).unwrap(), &both);
}

#[test]
fn a_flipped_byte_costs_only_what_stands_on_it() {
    let dir = TempDir::new().unwrap();
    let fate = Fate { stale: 20, ..Fate::default() };
    let mut model = families("le", 3, 24, fate);
    model.insert((tenant("u"), labels(&[("__name__", "up")])), counter(0, 10, 1.0));
    let (path, _) = write(&dir, &model);
    let good = fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(3) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&path, &bad).unwrap();
        let part = match Part::open(&system(), &path) {
            Ok(part) => part,
            Err(StorageError::Corrupt { .. }) => continue,
            Err(e) => panic!("{e}"),
        };
        for (ordinal, samples) in (0_u32..).zip(model.values()).collect::<Vec<_>>().into_iter().rev() {
            let mut back = SeriesSamples::default();
            match part.read(ordinal, TimeRange::ALL, &mut back) {
                Ok(()) => assert!(same(&back, samples), "byte {at} changes series {ordinal}"),
                Err(StorageError::Corrupt { .. }) => assert!(back.is_empty()),
                Err(e) => panic!("{e}"),
            }
        }
    }
}

#[test]
fn buckets_of_several_chunks_come_back() {
    let fate = Fate { resets: 400, gaps: 3000, ..Fate::default() };
    let model = families("le", 11, 2500, fate);
    let dir = TempDir::new().unwrap();
    let (path, _) = write(&dir, &model);
    check_alone(&Part::open(&system(), &path).unwrap(), &model);
    check(&Part::open(&system(), &path).unwrap(), &model);
}

#[test]
fn bounds_that_are_none_and_twice_are_no_matter() {
    let mut model = Model::new();
    for (i, bound) in ["", "1", "1.0", "1e0", "NaN", "fast", "-Inf", "inf", "-5", "0x1"].iter().enumerate() {
        let key = labels(&[("__name__", "m"), ("le", bound), ("x", "y")]);
        model.insert((tenant("t"), key), counter(0, 200, i as f64));
    }
    let dir = TempDir::new().unwrap();
    let (path, _) = write(&dir, &model);
    check_alone(&Part::open(&system(), &path).unwrap(), &model);
    check(&Part::open(&system(), &path).unwrap(), &model);
}

/// However many ways there are to write a bound, no chunk stands on more others than a reader follows.
#[test]
fn a_bound_in_many_spellings_comes_back() {
    let mut model = Model::new();
    for spelling in 0..256_u32 {
        let letters = "infinity".chars().enumerate();
        let bound: String = letters
            .map(|(i, letter)| if spelling >> i & 1 == 1 { letter.to_ascii_uppercase() } else { letter })
            .collect();
        let mut samples = counter(0, 200, 1.0);
        for (i, value) in samples.values.iter_mut().enumerate() {
            *value += ((i * i * 7919 % 1009) as f64 + f64::from(spelling)) * f64::from(spelling);
        }
        model.insert((tenant("t"), labels(&[("__name__", "m"), ("le", &bound)])), samples);
    }
    let dir = TempDir::new().unwrap();
    let (path, _) = write(&dir, &model);
    check_alone(&Part::open(&system(), &path).unwrap(), &model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_family_comes_back(
        seed in any::<u64>(),
        scrapes in 1_u64..400,
        resets in prop_oneof![Just(0), 1_u64..100],
        gaps in prop_oneof![Just(0), 1_u64..2000],
        stale in prop_oneof![Just(0), 1_u64..100],
        odd in prop_oneof![Just(0), 1_u64..2000],
        missing in prop_oneof![Just(0), 2_u64..10],
        starts in prop_oneof![Just(0), 1_u64..10],
    ) {
        let model = families("le", seed, scrapes, Fate { resets, gaps, stale, odd, missing, starts });
        let dir = TempDir::new().unwrap();
        let (path, _) = write(&dir, &model);
        check_alone(&Part::open(&system(), &path).unwrap(), &model);
        check(&Part::open(&system(), &path).unwrap(), &model);
    }
}
