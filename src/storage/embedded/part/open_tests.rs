//! Opening parts to serve: a start takes as long with a year of samples as with an hour.

use std::fs;

use tempfile::TempDir;

use super::{
    footer::{HEADER, Section},
    tests::{Model, check, counter, labels, system, tenant, write},
    *,
};
use crate::{
    model::Matcher,
    storage::{Result, SeriesSamples, StorageError},
};

#[test]
fn a_section_is_checked_when_it_is_first_used_and_costs_what_needs_it() {
    let dir = TempDir::new().unwrap();
    let mut model = Model::new();
    for i in 0..300 {
        let key = labels(&[("__name__", "m"), ("pod", &format!("p{i}"))]);
        model.insert((tenant("t"), key), counter(i, 20, 1.5));
    }
    let (path, _) = write(&dir, &model);
    let good = fs::read(&path).unwrap();
    let cache = PageCache::new(1 << 20);
    let open = || Part::open_with_cache(&system(), &path, &cache).unwrap();
    let at = |section: Section| {
        let at = open().footer().sections[section as usize];
        usize::try_from(at.offset).unwrap()..usize::try_from(at.offset + at.length).unwrap()
    };
    let footer = at(Section::Postings).end;
    let mut bad = good.clone();
    bad[HEADER.len()..footer].iter_mut().for_each(|byte| *byte ^= 0x55);
    fs::write(&path, &bad).unwrap();
    assert_eq!(open().meta().series, 300, "what is opened to serve is not read");
    fs::write(&path, &good).unwrap();
    let corrupt = |outcome: Result<()>| matches!(outcome, Err(StorageError::Corrupt { .. }));
    let pod = [Matcher::equal("pod", "p7")];
    for section in Section::ALL {
        let mut bad = good.clone();
        let range = at(section);
        if range.is_empty() {
            continue;
        }
        // All of it, so that whoever looks into it notices.
        bad[range].iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(&path, &bad).unwrap();
        assert!(matches!(Part::open(&system(), &path), Err(StorageError::Corrupt { .. })), "{section:?}");
        let part = open();
        let read = |ordinal| {
            let mut samples = SeriesSamples::default();
            let read = part.read(ordinal, TimeRange::ALL, &mut samples);
            assert!(read.is_err() == samples.is_empty());
            read
        };
        for _ in 0..2 {
            let read = corrupt(read(5));
            let found = corrupt(part.find(&tenant("t"), &pod).map(|_| ()));
            let labelled = corrupt(part.labels(5).map(|_| ()));
            let expect = match section {
                Section::Pages | Section::Times | Section::Series => (true, false, false),
                Section::Labels => (false, false, true),
                Section::Names => (false, true, false),
                // Each pod has one series.
                Section::Postings | Section::Checks => (false, false, false),
            };
            assert_eq!((read, found, labelled), expect, "{section:?}");
        }
        fs::write(&path, &good).unwrap();
    }
    check(&open(), &model);
}
