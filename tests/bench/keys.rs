//! Whether the time it takes to refuse a key tells anything of the secret, and how long it takes to know a good one.
//!
//! Two classes of wrong guesses are timed in random order, and Welch's t of their times is printed: beyond 4.5 they
//! can be told apart. One class is nearly right (the hash differs in its last byte; the secret in its last letters), the
//! other wrong from the beginning. The slowest twentieth of each class is left out: it is what else the machine did.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measuring program"
)]

use std::{
    hint::black_box,
    num::NonZeroUsize,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use luminate::{
    clock::{Clock, SystemClock},
    gateway::auth::keys::{ApiKeys, CacheRules, FileKeyStore, Key, KeyRecord, KeyStore, Sha256},
};

const SAMPLES: usize = 100_000;
/// Comparisons timed together: one is shorter than the clock's tick.
const TOGETHER: u32 = 64;
const BOUND: f64 = 4.5;

fn main() -> ExitCode {
    let comparing = compare_hashes();
    let verifying = verify_guesses();
    println!("comparing hashes, wrong at the end or at the beginning: t = {comparing:.2}");
    println!("verifying keys, wrong at the end or at the beginning:   t = {verifying:.2}");
    println!("knowing a good key that is remembered: {:?}", know());
    if comparing.abs() < BOUND && verifying.abs() < BOUND { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn compare_hashes() -> f64 {
    let right = Sha256::of("right");
    let (mut near, mut far) = (right, right);
    near.0[31] ^= 1;
    far.0[0] ^= 1;
    t_of(|is_near| {
        let guess = if is_near { near } else { far };
        let began = Instant::now();
        for _ in 0..TOGETHER {
            black_box(black_box(&guess).is(black_box(&right)));
        }
        began.elapsed()
    })
}

/// Guesses are made the same way in both classes, each of two secrets being nearly right for its own key and wrong for
/// the other: what differs is only what they are held against.
fn verify_guesses() -> f64 {
    let (keys, runtime, [one, other]) = keys();
    let mut guess = 0_u64;
    t_of(|is_near| {
        // No guess comes twice: it would be remembered.
        guess += 1;
        let (asked, not_asked) = if guess.is_multiple_of(2) { (&one, &other) } else { (&other, &one) };
        let secret = if is_near { &asked.secret.0 } else { &not_asked.secret.0 };
        let wrong = format!("lum_{}_{}{guess:08}", asked.id, &secret[..secret.len() - 8]);
        let began = Instant::now();
        let refused = runtime.block_on(keys.verify(&wrong)).is_err();
        let took = began.elapsed();
        assert!(refused);
        took
    })
}

fn know() -> Duration {
    let (keys, runtime, [key, _]) = keys();
    let key = key.reveal().0;
    runtime.block_on(async {
        keys.verify(&key).await.unwrap();
        let began = Instant::now();
        for _ in 0..SAMPLES {
            black_box(keys.verify(&key).await.unwrap());
        }
        began.elapsed() / u32::try_from(SAMPLES).unwrap()
    })
}

/// A file with two keys.
fn keys() -> (ApiKeys, tokio::runtime::Runtime, [Key; 2]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = FileKeyStore::open_or_new(&dir.path().join("keys.yaml")).unwrap();
    let both = [Key::draw().unwrap(), Key::draw().unwrap()];
    let record = |key: &Key| KeyRecord {
        id: key.id.clone(),
        sha256: Sha256::of(&key.secret.0),
        name: String::new(),
        tenant: Some("a".to_owned()),
        tenants: Vec::new(),
        scopes: vec!["read".to_owned()],
        labels: Default::default(),
        filters: Vec::new(),
        limits: Default::default(),
        created: None,
        expires: None,
        disabled: false,
        revoked: None,
    };
    for key in &both {
        runtime.block_on(store.put(record(key))).unwrap();
    }
    let minute = Duration::from_secs(60);
    let rules = CacheRules { size: NonZeroUsize::new(1000).unwrap(), ttl: minute, stale_ttl: minute };
    let clock: Arc<dyn Clock> = SystemClock::start();
    (ApiKeys::new(store, rules, clock), runtime, both)
}

/// Welch's t of the times of two classes.
fn t_of(mut time: impl FnMut(bool) -> Duration) -> f64 {
    let mut classes = [Vec::new(), Vec::new()];
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    for sample in 0..2 * SAMPLES + 2000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let class = usize::from(random & 1 == 1);
        let took = time(class == 1).as_secs_f64() * 1e9;
        // The first ones warm caches up.
        if sample >= 2000 {
            classes[class].push(took);
        }
    }
    let [a, b] = classes.map(mean_and_spread);
    (a.0 - b.0) / (a.1 + b.1).sqrt()
}

/// The mean, and the variance of it.
fn mean_and_spread(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    times.truncate(times.len() / 20 * 19);
    let count = f64::from(u32::try_from(times.len()).unwrap());
    let mean = times.iter().sum::<f64>() / count;
    let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, variance / count)
}
