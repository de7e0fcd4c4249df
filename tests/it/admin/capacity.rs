//! What a load takes.

use std::{fs, path::Path};

use serde_json::Value;

use super::run;

/// A plan for 5000 series, as a program reads it.
fn plan(backend: &str) -> Value {
    let arguments = ["admin", "capacity", "--series", "5000", "--backend", backend, "-o", "json"];
    let ended = run(&arguments, &[]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    serde_json::from_str(&ended.out).unwrap()
}

#[test]
fn a_plan_says_what_it_is_made_of() {
    let ended = run(&["admin", "capacity", "--series", "1000000"], &[]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    for told in
        ["samples per second", "66667", "pods", "estimate: ", "measured: ", "2026-11-21", "Intel Xeon"]
    {
        assert!(ended.out.contains(told), "{told}: {}", ended.out);
    }
    let (one, many) = (plan("embedded"), plan("clickhouse"));
    assert_eq!((&one["pods"], &many["pods"]), (&1.into(), &3.into()));
    assert!(one["clickhouseCores"].is_null() && many["clickhouseCores"].as_f64().unwrap() > 0.0);
    assert!(one["figures"].as_array().unwrap().iter().all(|figure| figure["source"].is_string()), "{one}");
}

#[test]
fn what_is_no_load_is_refused() {
    for wrong in [
        &[][..],
        &["--series", "0"],
        &["--series", "1", "--retention", "0"],
        &["--series", "1", "--interval", "often"],
        &["--series", "1", "--queries", "many"],
        &["--series", "1", "--backend", "paper"],
    ] {
        assert_eq!(run(&[&["admin", "capacity"], wrong].concat(), &[]).code, 2, "{wrong:?}");
    }
}

#[test]
fn the_figures_are_those_that_were_measured() {
    const BENCH: &str = "tests/bench/RESULTS.md";
    const DEPLOYED: &str = "deployments/docs/capacity.md";
    let papers = [BENCH, DEPLOYED].map(|path| {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        (path, text)
    });
    for (backend, name, value, path, told) in [
        ("embedded", "writing, up to 100000/s", 0.43, DEPLOYED, "| 250m, 100,000 series | 582,000 | 0.43 |"),
        ("embedded", "writing, above", 0.781, BENCH, "| CPU-s per million samples, flushed | 0.781 |"),
        ("embedded", "querying", 0.03, DEPLOYED, "(embedded 0.03)"),
        ("embedded", "memory, at rest", 37.0, BENCH, "| RSS without data (MB) | 37 |"),
        // Less what a server takes at rest.
        ("embedded", "memory, of a series", 0.68, BENCH, "| peak RSS, flushed (MB) | 715 |"),
        ("embedded", "memory, of queries", 134.0, BENCH, "| peak RSS while querying (MB) | 134.39 |"),
        ("embedded", "disk", 1.251, BENCH, "| bytes per sample on disk | 1.251 |"),
        ("clickhouse", "writing, up to 100000/s", 1.25, DEPLOYED, "| asked for 100,000/s | 100,000 | 1.25 |"),
        ("clickhouse", "writing, above", 0.68, DEPLOYED, "| asked for 250,000/s | 249,000 | 0.68 |"),
        ("clickhouse", "querying", 0.07, DEPLOYED, "**0.07 s for a million samples read**"),
        (
            "clickhouse",
            "memory, while writing",
            108.0,
            BENCH,
            "| 16 writers: gateway's peak RSS (MB) | 108 |",
        ),
        // 234 - 108 MB for 950000 series.
        (
            "clickhouse",
            "memory, of a series",
            0.133,
            BENCH,
            "asked for 100,000 samples/s: gateway's peak RSS (MB) | 234 |",
        ),
        ("clickhouse", "memory, of queries", 50.0, BENCH, "| gateway's peak RSS (MB) | 158 |"),
        ("clickhouse", "disk", 2.26, BENCH, "| of all tables, per sample | 2.260 |"),
        ("clickhouse", "ClickHouse, writing", 0.305, BENCH, "| 16 writers: samples/s (million) | 0.305 |"),
    ] {
        let figures = plan(backend)["figures"].clone();
        let figure = figures.as_array().unwrap().iter().find(|figure| figure["name"] == name);
        assert_eq!(figure.unwrap()["value"], value, "{backend}: {name}");
        let (_, text) = papers.iter().find(|(paper, _)| *paper == path).unwrap();
        assert!(text.contains(told), "{path} does not have {told:?} any more");
    }
}
