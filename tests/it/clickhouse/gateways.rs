//! Two gateways behind nginx, of which one is always being killed: who writes loses nothing, and who reads
//! and tries a second time notices nothing.
//!
//! Debian's Prometheus scrapes itself and the gateways and writes through nginx. Every few hundred
//! milliseconds one of the gateways is killed, without warning and with one in turn, and started again on its
//! port. In the end every sample that Prometheus has is in Luminate, and each once.
//! `LUMINATE_TEST_GATEWAYS` is for how many seconds this goes on.

use std::{
    collections::BTreeMap,
    path::Path,
    slice::from_ref,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    faults::{NO_DIRECTORY, gateway_options},
    front::Front,
    schema,
    witness::get,
};
use crate::{
    nginx::{self, Nginx},
    patience::wait_for,
    prometheus::Prometheus,
    server::{Server, api, free_port, have, now_ms},
};

/// For how long gateways are killed.
fn duration() -> Duration {
    let seconds = std::env::var("LUMINATE_TEST_GATEWAYS").ok().and_then(|n| n.parse().ok());
    Duration::from_secs(seconds.unwrap_or(45))
}

/// Asks until there is an answer, twice at most; gives how often, or what came instead.
fn ask_twice(base: &str) -> Result<usize, String> {
    let query = "count(up) + count(count_over_time(up[1m]))";
    let ask = || match get(base, "/api/v1/query", &[("query", query), ("nocache", "1")]) {
        Ok((200, _, text)) if text.contains(r#""status":"success""#) => Ok(()),
        Ok((status, _, text)) => Err(format!("{status}: {text}")),
        Err(error) => Err(error.to_string()),
    };
    let Err(first) = ask() else { return Ok(1) };
    ask().map(|()| 2).map_err(|second| format!("{first}; then {second}"))
}

#[test]
fn killing_gateways_loses_no_sample_and_fails_no_query() {
    if !nginx::have() || !have("prometheus") {
        return;
    }
    let Some(front) = Front::start() else { return };
    schema::apply(&front);
    let ports = [free_port(), free_port()];
    let start = |gateway: usize| {
        let options = gateway_options(from_ref(&front.url), &front.database, &[]).port(ports[gateway]);
        let server = Server::spawn(Path::new(NO_DIRECTORY), &options);
        server.wait_ready();
        server
    };
    let mut gateways = [start(0), start(1)];
    let nginx = Nginx::start(&ports);
    let dir = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::with_config(dir.path(), 0, |own| {
        let targets = ports.map(|port| format!("'127.0.0.1:{port}'")).join(", ");
        format!(
            "global:\n  scrape_interval: 500ms\n  scrape_timeout: 400ms\n  external_labels: {{from: prometheus}}\n\
             scrape_configs:\n\
             - job_name: gateways\n  static_configs: [{{targets: [{targets}]}}]\n\
             - job_name: prometheus\n  static_configs: [{{targets: ['127.0.0.1:{own}']}}]\n\
             remote_write:\n- url: {}/api/v1/write\n  queue_config: {{max_backoff: 200ms, batch_send_deadline: 500ms}}\n",
            nginx.base
        )
    });
    wait_for("the first samples", || has_samples(&nginx.base));
    // It writes what it scrapes from some moment after its start on.
    let from = now_ms();

    let (stop, asked, asked_again) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    let mut kills = 0;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    asked.fetch_add(1, Ordering::SeqCst);
                    match ask_twice(&nginx.base) {
                        Ok(times) => asked_again.fetch_add(times as u64 - 1, Ordering::SeqCst),
                        Err(what) => {
                            failed.lock().unwrap().push(what);
                            1
                        }
                    };
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        let begun = Instant::now();
        while begun.elapsed() < duration() {
            let victim = kills % 2;
            if kills / 2 % 2 == 0 {
                gateways[victim].kill();
            } else {
                gateways[victim].ask_to_stop();
            }
            gateways[victim].wait_for_end();
            gateways[victim] = start(victim);
            std::thread::sleep(Duration::from_millis(200));
            kills += 1;
        }
        stop.store(true, Ordering::SeqCst);
    });
    let to = now_ms();
    wait_for("Prometheus to have written all that it scraped", || {
        prometheus.counter("prometheus_remote_storage_queue_highest_sent_timestamp_seconds") * 1000.0
            > to as f64
    });
    for what in ["failed", "dropped"] {
        let samples = prometheus.counter(&format!("prometheus_remote_storage_samples_{what}_total"));
        assert_eq!(samples, 0.0, "{what}");
    }
    println!(
        "{kills} kills, {} samples written again; {} questions, {} of them asked again",
        prometheus.counter("prometheus_remote_storage_samples_retried_total"),
        asked.load(Ordering::SeqCst),
        asked_again.load(Ordering::SeqCst),
    );
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "{} questions had no answer: {:#?}",
        failed.len(),
        &failed[..failed.len().min(3)]
    );
    let compared = compare(&prometheus.base, &nginx.base, from, to);
    println!("{compared} samples of Prometheus are in Luminate, each once");
}

fn has_samples(base: &str) -> bool {
    let found = get(base, "/api/v1/query", &[("query", "count(up) == 3"), ("nocache", "1")]);
    found.is_ok_and(|(_, _, text)| text.contains(r#""value""#))
}

/// A series of an answer under its labels, without the one that only what is written has.
fn of_labels(series: &Value) -> (String, Value) {
    let mut labels = series["metric"].clone();
    labels.as_object_mut().unwrap().remove("from");
    (labels.to_string(), series.clone())
}

/// Compares the samples themselves, and their counts; gives how many there are.
fn compare(prometheus: &str, luminate: &str, from: i64, to: i64) -> usize {
    let back = format!("{}ms", to - from);
    let ask = |base: &str, query: &str| {
        let time = format!("{}.{:03}", to / 1000, to % 1000);
        let answer = api(base, "/api/v1/query", &[("query", query), ("time", &time), ("nocache", "1")]);
        answer["result"].as_array().unwrap().iter().map(of_labels).collect::<BTreeMap<_, _>>()
    };
    // The left edge is in Prometheus 2.42's window and not in ours.
    let raw = format!(r#"{{__name__=~".+"}}[{back}]"#);
    let inside = |(labels, series): (String, Value)| {
        let samples: Vec<Value> = series["values"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|s| (s[0].as_f64().unwrap() * 1000.0).round() as i64 > from)
            .cloned()
            .collect();
        (!samples.is_empty()).then_some((labels, samples))
    };
    let theirs: BTreeMap<_, _> = ask(prometheus, &raw).into_iter().filter_map(inside).collect();
    let ours: BTreeMap<_, _> = ask(luminate, &raw).into_iter().filter_map(inside).collect();
    let missing: Vec<_> = theirs.keys().filter(|labels| !ours.contains_key(*labels)).collect();
    assert!(
        missing.is_empty(),
        "{} series are missing: {:?}",
        missing.len(),
        &missing[..missing.len().min(3)]
    );
    let mut by_metric: BTreeMap<String, usize> = BTreeMap::new();
    for (labels, samples) in &theirs {
        assert_eq!(ours[labels].len(), samples.len(), "{labels}");
        let parsed: Value = serde_json::from_str(labels).unwrap();
        *by_metric.entry(parsed["__name__"].as_str().unwrap().to_owned()).or_default() += samples.len();
        for (their, our) in samples.iter().zip(&ours[labels]) {
            let value = |s: &Value| s[1].as_str().unwrap().parse::<f64>().unwrap();
            let same = their[0].as_f64() == our[0].as_f64()
                && (value(their) == value(our) || value(their).is_nan() && value(our).is_nan());
            assert!(same, "{labels}: {our} is not {their}");
        }
    }
    for (metric, samples) in by_metric {
        let query = format!(r#"sum(count_over_time({{__name__="{metric}"}}[{back}]))"#);
        let counted = ask(luminate, &query).into_values().next().unwrap();
        assert_eq!(counted["value"][1], samples.to_string().as_str(), "{query}");
    }
    theirs.values().map(Vec::len).sum()
}
