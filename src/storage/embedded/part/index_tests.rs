//! Damage in the index: it costs what lies there and cannot be found elsewhere, and nothing else.

use std::{fs, ops::Range};

use tempfile::TempDir;

use super::{
    bits::mended,
    checks::PIECE,
    footer::Section,
    tests::{Model, labels, same, system, tenant, write},
    *,
};
use crate::{
    model::Labels,
    storage::{SeriesSamples, StorageError},
};

/// Series enough that each section has several pieces, with times of their own and values that do not compress.
fn furnished() -> Model {
    let mut model = Model::new();
    let mut state = 7_u64;
    for i in 0..1200_u32 {
        let mut samples = SeriesSamples::default();
        for k in 0..40 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let jitter = i64::try_from(state >> 58).unwrap();
            let noise = f64::from_bits(state >> 12 | 0x3ff0_0000_0000_0000);
            samples.push(i64::from(i) * 977 + k * 15_000 + jitter, noise, 0);
        }
        let pod = format!("{:016x}", u64::from(i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let zone = (i % 7).to_string();
        let key = labels(&[("__name__", "m"), ("pod", &pod), ("zone", &zone)]);
        model.insert((tenant(if i % 3 == 0 { "s" } else { "t" }), key), samples);
    }
    model
}

struct Written {
    dir: TempDir,
    model: Model,
    path: PathBuf,
    good: Vec<u8>,
}

impl Written {
    fn new() -> Self {
        let (dir, model) = (TempDir::new().unwrap(), furnished());
        let (path, _) = write(&dir, &model);
        let good = fs::read(&path).unwrap();
        Self { dir, model, path, good }
    }

    fn place(&self, section: Section) -> Range<usize> {
        fs::write(&self.path, &self.good).unwrap();
        Part::open(&system(), &self.path).unwrap().place(section)
    }

    /// What reads back of a part that is wrong in some places: how many series have lost something of those that tell so,
    /// how many are shown whole, and how many bits were set right. What is shown is right.
    fn with(&self, wrong: &[(Range<usize>, u8)]) -> (u64, usize, usize) {
        let path = self.dir.path().join("wrong.part");
        let mut bytes = self.good.clone();
        for (place, mask) in wrong {
            bytes[place.clone()].iter_mut().for_each(|byte| *byte ^= mask);
        }
        fs::write(&path, bytes).unwrap();
        let mended = mended(&system(), &path).unwrap();
        let mut whole = 0;
        mended
            .examine(|tenant, labels: &Labels, samples| {
                let expect = &self.model[&(tenant.clone(), labels.clone())];
                assert!(samples.is_empty() || same(samples, expect), "{labels}");
                whole += usize::from(!samples.is_empty());
                Ok(())
            })
            .unwrap();
        assert_eq!(mended.damage.is_empty(), whole == self.model.len() && !mended.bits.is_empty());
        (mended.damage.iter().map(|damage| damage.series).sum(), whole, mended.bits.len())
    }
}

#[test]
fn bits_in_several_pieces_of_the_index_are_all_set_right() {
    let written = Written::new();
    for section in Section::ALL {
        let place = written.place(section);
        let checks = section == Section::Checks;
        assert!(place.len() > 20 && (checks || section == Section::Pages || place.len() > PIECE));
        let mut wrong: Vec<(Range<usize>, u8)> =
            place.step_by(PIECE).enumerate().map(|(i, at)| (at..at + 1, 1 << (i % 8))).collect();
        if checks {
            // It has no other checksum than its own.
            wrong.truncate(1);
        }
        let count = wrong.len();
        assert_eq!(written.with(&wrong), (0, written.model.len(), count), "{section:?}");
    }
}

#[test]
fn what_the_index_does_not_say_is_found_elsewhere() {
    use Section::{Checks, Labels, Names, Pages, Postings, Series, Times};
    let written = Written::new();
    let all = written.model.len();
    let two_bits = |section| {
        let place = written.place(section);
        let at = place.start + place.len() / 2;
        vec![(at..at + 1, 1), (at + 3..at + 4, 4)]
    };
    let all_of = |section| vec![(written.place(section), 0x55)];
    for section in [Pages, Labels, Names, Postings, Checks] {
        assert_eq!(written.with(&two_bits(section)), (0, all, 0), "{section:?}");
        assert_eq!(written.with(&all_of(section)), (0, all, 0), "{section:?}");
        let both = [all_of(section), all_of(Checks)].concat();
        assert!(section == Checks || written.with(&both) == (0, all, 0), "{section:?}");
    }
    assert_eq!(written.with(&[all_of(Pages), two_bits(Labels), all_of(Checks)].concat()), (0, all, 0));
    assert_eq!(written.with(&[all_of(Names), all_of(Postings)].concat()), (0, all, 0));
    for section in [Times, Series] {
        let (lost, whole, _) = written.with(&two_bits(section));
        assert!(lost > 0 && whole > all / 2, "{section:?}: {lost} {whole}");
        assert_eq!(usize::try_from(lost).unwrap() + whole, all, "{section:?}");
        let (lost, whole, _) = written.with(&all_of(section));
        assert_eq!((usize::try_from(lost).unwrap(), whole), (all, 0), "{section:?}");
    }
    // Each says what the other does not, and here nobody does.
    let (lost, whole, _) = written.with(&[two_bits(Labels), two_bits(Names)].concat());
    assert!(lost > 0 && whole > all / 3, "{lost} {whole}");
    assert_eq!(usize::try_from(lost).unwrap() + whole, all);
}

#[test]
fn what_lies_beside_damage_of_the_index_serves() {
    let written = Written::new();
    for section in [Section::Pages, Section::Times, Section::Series, Section::Labels] {
        let place = written.place(section);
        let at = place.start + place.len() / 2;
        let mut bytes = written.good.clone();
        bytes[at] ^= 1;
        fs::write(&written.path, bytes).unwrap();
        let part = Part::open_with_cache(&system(), &written.path, &PageCache::new(1 << 20)).unwrap();
        let mut served = 0;
        for ((_, key), (ordinal, samples)) in written.model.keys().zip((0_u32..).zip(written.model.values()))
        {
            let mut back = SeriesSamples::default();
            match (part.labels(ordinal), part.read(ordinal, TimeRange::ALL, &mut back)) {
                (Ok(labels), Ok(())) => {
                    assert!(labels == *key && same(&back, samples), "{section:?} {ordinal}");
                    served += 1;
                }
                (Err(StorageError::Corrupt { .. }), _) | (_, Err(StorageError::Corrupt { .. })) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(served < written.model.len(), "{section:?}");
        assert!(section == Section::Pages || served > written.model.len() / 2, "{section:?}: {served}");
        assert!(matches!(Part::open(&system(), &written.path), Err(StorageError::Corrupt { .. })));
    }
}

#[test]
fn of_a_series_with_lost_times_the_chunks_whose_times_are_known_are_shown() {
    let mut model = Model::new();
    for i in 0..100_i64 {
        let mut samples = SeriesSamples::default();
        for k in 0..2500_i64 {
            samples.push(i * 977 + k * 15_000 + i * k % 13, f64::from(i32::try_from(k % 100).unwrap()), 0);
        }
        model.insert((tenant("t"), labels(&[("a", &format!("{i:03}"))])), samples);
    }
    let dir = TempDir::new().unwrap();
    let (path, _) = write(&dir, &model);
    let place = Part::open(&system(), &path).unwrap().place(Section::Times);
    assert!(place.len() > 3 * PIECE);
    let mut bytes = fs::read(&path).unwrap();
    let middle = place.start + place.len() / 2;
    bytes[middle] ^= 1;
    bytes[middle + 3] ^= 4;
    fs::write(&path, bytes).unwrap();
    let part = Part::open_with_cache(&system(), &path, &PageCache::new(1 << 20)).unwrap();
    let mut shown = Vec::new();
    for (ordinal, samples) in (0..).zip(model.values()) {
        let mut back = SeriesSamples::default();
        part.read_around(ordinal, TimeRange::ALL, &mut back).unwrap();
        let from = |at| samples.timestamps.binary_search(at).map(|at| samples.values[at]);
        assert!(back.timestamps.iter().zip(&back.values).all(|(at, value)| from(at) == Ok(*value)));
        shown.push(back.timestamps.len());
    }
    assert!(shown.contains(&2500) && shown.iter().any(|count| (1..2500).contains(count)), "{shown:?}");
    let examined = mended(&system(), &path).unwrap();
    let mut rescued = Vec::new();
    let note = |_: &TenantId, _: &Labels, samples: &SeriesSamples| {
        rescued.push(samples.timestamps.len());
        Ok(())
    };
    examined.examine(note).unwrap();
    assert_eq!(rescued, shown);
}
