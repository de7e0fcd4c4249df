//! What a load takes.

use serde_json::Value;

use super::run;

#[test]
fn a_plan_says_what_it_is_made_of() {
    let ended = run(&["admin", "capacity", "--series", "1000000"], &[]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    for told in
        ["samples per second", "66667", "pods", "estimate: ", "measured: ", "2026-11-21", "Intel Xeon"]
    {
        assert!(ended.out.contains(told), "{told}: {}", ended.out);
    }
    let plan = |backend: &str| -> Value {
        let arguments = ["admin", "capacity", "--series", "5000", "--backend", backend, "-o", "json"];
        let ended = run(&arguments, &[]);
        assert_eq!((ended.code, ended.err.as_str()), (0, ""));
        serde_json::from_str(&ended.out).unwrap()
    };
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
