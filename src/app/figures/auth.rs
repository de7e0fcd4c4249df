//! What telling callers apart counts.

use std::sync::{Arc, atomic::Ordering};

use super::{counter, read};
use crate::{
    gateway::auth::{
        failures::Failures,
        guard::Guard,
        keys::{ApiKeys, FileKeyStore},
    },
    telemetry::{Figure, Source, as_value},
};

/// Gives how many callers were turned away, by reason, and what holds those back who guess.
pub(in crate::app) fn callers(failures: Arc<Failures>, guard: Arc<Guard>) -> Source {
    Box::new(move || {
        let help = "Requests whose sender was not let in";
        let by_reason = failures.by_reason().into_iter().map(|(reason, count)| {
            Figure::counter("luminate_auth_failures", help, as_value(count)).with("reason", reason)
        });
        let mut figures: Vec<Figure> = by_reason.collect();
        figures.push(Figure::gauge(
            "luminate_auth_suspects",
            "Addresses whose bad credentials are remembered",
            size(guard.addresses()),
        ));
        figures
    })
}

/// Gives the figures of verifying keys.
pub(in crate::app) fn keys(keys: Arc<ApiKeys>) -> Source {
    Box::new(move || {
        let c = keys.counters();
        let (good, bad) = keys.remembered();
        let help = "Keys that were recognised without looking them up";
        let hits = |verdict: &str, count| {
            Figure::counter("luminate_auth_key_cache_hits", help, read(count)).with("verdict", verdict)
        };
        let help = "Keys that are remembered";
        let entries = |verdict: &str, count| {
            Figure::gauge("luminate_auth_key_cache_entries", help, size(count)).with("verdict", verdict)
        };
        vec![
            hits("good", &c.hits),
            hits("bad", &c.bad_hits),
            entries("good", good),
            entries("bad", bad),
            counter("luminate_auth_key_lookups", "Keys that were looked up in the store", &c.lookups),
            counter("luminate_auth_key_comparisons", "Secrets of keys that were compared", &c.compared),
            counter(
                "luminate_auth_key_store_failures",
                "Keys that the store could not be asked for",
                &c.store_failures,
            ),
            counter(
                "luminate_auth_key_stale",
                "Keys let in because they were good a while ago and the store cannot be asked",
                &c.stale,
            ),
        ]
    })
}

/// Gives the figures of a file of keys.
pub(in crate::app) fn key_file(file: Arc<FileKeyStore>) -> Source {
    Box::new(move || {
        let state = file.state();
        let is_good = !state.is_broken.load(Ordering::Relaxed);
        vec![
            Figure::gauge("luminate_auth_keys", "Keys in the file, in use or not", size(file.len())),
            Figure::gauge(
                "luminate_auth_key_file_valid",
                "Whether the file of keys could be read when it last changed",
                if is_good { 1.0 } else { 0.0 },
            ),
            counter(
                "luminate_auth_key_file_reloads",
                "Times the file of keys had changed and was read",
                &state.reloads,
            ),
            counter(
                "luminate_auth_key_file_failures",
                "Times the file of keys had changed and could not be read",
                &state.failures,
            ),
        ]
    })
}

fn size(count: usize) -> f64 {
    as_value(u64::try_from(count).unwrap_or(u64::MAX))
}
