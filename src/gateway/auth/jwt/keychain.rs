//! The keys as they stand, and what keeps them fresh.
//!
//! ```text
//!  configuration ─┐
//!  files ── poll ─┼─▶ ring, revoked ─▶ snapshot of a generation ─▶ tokens
//!  issuers ─ refresh┘        ▲
//!                            └ an unknown kid, at most once in `refresh_floor`
//! ```
//!
//! Whatever was last read or fetched holds until something else can be: an issuer that is down, or a file that was half
//! written, locks nobody out. Only an issuer whose keys were never fetched leaves tokens undecided.
//!
//! One refresh runs at a time. It runs in a task of its own, so that a caller who goes away does not end it; the others wait for it,
//! if they are not too many.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::{
    JwtConfig,
    key::Key,
    local::{Local, Revoked},
    refusal::JwtCounters,
    remote::{Place, Remote, check_url},
    ring::Ring,
    watched::Polled,
};
use crate::{clock::Clock, task};

/// No more callers wait for a refresh at a time: who has no token at all can make them wait, too.
const MAX_WAITING: usize = 64;

/// What tokens are held against at one time.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) ring: Ring,
    pub(super) revoked: Revoked,
    /// Another one each time anything changes.
    pub(super) generation: u64,
    /// Whether there are issuers whose keys were never fetched.
    pub(super) incomplete: bool,
}

/// What a caller with a key that is not known can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missed {
    /// Look again: keys were fetched.
    Refreshed,
    /// Nothing: they were fetched a moment ago, or are published nowhere.
    TooSoon,
    /// Come back: fetching takes longer than anybody waits.
    Busy,
}

/// Keys from everywhere.
pub(super) struct Keychain {
    clock: Arc<dyn Clock>,
    counters: Arc<JwtCounters>,
    floor: Duration,
    wait: Duration,
    remotes: Vec<Remote>,
    sources: Mutex<Sources>,
    snapshot: ArcSwap<Snapshot>,
    flight: Mutex<Flight>,
    /// Refreshes that ended.
    ended: watch::Sender<u64>,
    waiting: Semaphore,
    /// Refreshes in a row that did not get all keys.
    failures: AtomicU64,
}

struct Sources {
    local: Local,
    /// What each issuer last published.
    fetched: Vec<Option<Vec<Key>>>,
}

#[derive(Default)]
struct Flight {
    running: bool,
    /// When an unknown key last made it start.
    last_miss: Option<Duration>,
}

impl fmt::Debug for Keychain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keychain")
            .field("remotes", &self.remotes)
            .field("snapshot", &self.snapshot)
            .finish_non_exhaustive()
    }
}

impl Keychain {
    /// Reads what is here, and gets ready to fetch the rest.
    pub(super) fn open(
        config: &JwtConfig,
        clock: Arc<dyn Clock>,
        counters: Arc<JwtCounters>,
    ) -> Result<Arc<Self>, String> {
        let local = Local::open(config, clock.now())?;
        let mut remotes = Vec::new();
        let (algorithms, ca_file) = (&config.jwks_algorithms, config.ca_file.as_deref());
        if let Some(url) = &config.jwks_url {
            let url = check_url(url).map_err(|wrong| format!("auth.jwt.jwks_url {wrong}"))?;
            let issuer = config.issuer.clone();
            remotes.push(Remote::new(Place::JwkSet(url), algorithms.clone(), issuer, ca_file)?);
        }
        if let Some(issuer) = &config.oidc_issuer {
            let place = Place::Issuer(issuer.clone());
            let remote = Remote::new(place, algorithms.clone(), Some(issuer.clone()), ca_file);
            remotes.push(remote.map_err(|wrong| format!("auth.jwt.oidc_issuer {wrong}"))?);
        }
        let fetched = vec![None; remotes.len()];
        let keychain = Arc::new(Self {
            clock,
            counters,
            floor: config.refresh_floor,
            wait: config.wait,
            remotes,
            sources: Mutex::new(Sources { local, fetched }),
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            flight: Mutex::new(Flight::default()),
            ended: watch::Sender::new(0),
            waiting: Semaphore::new(MAX_WAITING),
            failures: AtomicU64::new(0),
        });
        keychain.rebuild(&keychain.sources.lock());
        Ok(keychain)
    }

    /// What tokens are held against now.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The generation of the snapshot.
    pub(super) fn generation(&self) -> u64 {
        self.snapshot.load().generation
    }

    /// Whether any keys are published elsewhere.
    pub(super) fn has_remotes(&self) -> bool {
        !self.remotes.is_empty()
    }

    /// Fetches all keys that are published, and keeps none.
    pub(super) async fn fetch_once(&self) -> Vec<(String, Result<(usize, Vec<String>), String>)> {
        let mut all = Vec::new();
        for remote in &self.remotes {
            let fetched = remote.fetch().await.map(|(keys, left_out)| (keys.len(), left_out));
            all.push((remote.name(), fetched));
        }
        all
    }

    /// Refreshes in a row that did not get all keys.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Looks at all files again: whether anything is new about them, and whether all can be used.
    pub(super) fn poll_files(&self) -> (bool, Result<(), String>) {
        let mut sources = self.sources.lock();
        let news = sources.local.poll(self.clock.now());
        for polled in &news {
            let counter = match polled {
                Polled::Same => continue,
                Polled::Changed => &self.counters.file_reloads,
                Polled::Wrong(_) => &self.counters.failed_file_reloads,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.rebuild(&sources);
        let complaints = sources.local.complaints();
        let standing = if complaints.is_empty() { Ok(()) } else { Err(complaints.join("; ")) };
        (!news.is_empty(), standing)
    }

    /// Fetches all published keys, or waits for the refresh that runs.
    pub(super) async fn refresh(self: &Arc<Self>) {
        let mut ended = self.ended.subscribe();
        if self.take_off(None) {
            self.spawn();
        }
        // It fails if nobody is left to end it, and the sender is ours.
        let _ = ended.changed().await;
    }

    /// Fetches keys because a token names one that is not known; not more often than the floor allows.
    pub(super) async fn refresh_for_miss(self: &Arc<Self>) -> Missed {
        if !self.has_remotes() {
            return Missed::TooSoon;
        }
        let Ok(_place) = self.waiting.try_acquire() else { return Missed::Busy };
        let mut ended = self.ended.subscribe();
        if self.take_off(Some(self.floor)) {
            self.spawn();
        } else if !self.flight.lock().running {
            return if ended.has_changed().unwrap_or(false) { Missed::Refreshed } else { Missed::TooSoon };
        }
        match tokio::time::timeout(self.wait, ended.changed()).await {
            Ok(_) => Missed::Refreshed,
            Err(_) => Missed::Busy,
        }
    }

    /// Claims the one refresh that may run; with a floor, only so long after the last that had one.
    fn take_off(&self, floor: Option<Duration>) -> bool {
        let mut flight = self.flight.lock();
        if flight.running {
            return false;
        }
        if let Some(floor) = floor {
            let now = self.clock.elapsed();
            if flight.last_miss.is_some_and(|last| now.saturating_sub(last) < floor) {
                return false;
            }
            flight.last_miss = Some(now);
        }
        flight.running = true;
        true
    }

    fn spawn(self: &Arc<Self>) {
        let landing = Landing(Arc::clone(self));
        task::spawn("token_keys_refresh", async move { landing.0.fetch_all().await });
    }

    async fn fetch_all(&self) {
        let mut failed = false;
        for (i, remote) in self.remotes.iter().enumerate() {
            match remote.fetch().await {
                Ok((keys, left_out)) => {
                    self.counters.refreshes.fetch_add(1, Ordering::Relaxed);
                    self.counters.fetched_at_ms.store(self.clock.now().0, Ordering::Relaxed);
                    let mut sources = self.sources.lock();
                    if !left_out.is_empty() && sources.fetched[i].as_ref() != Some(&keys) {
                        let left_out = left_out.join("; ");
                        tracing::warn!(event = "token_keys_left_out", issuer = %remote.name(), %left_out);
                    }
                    sources.fetched[i] = Some(keys);
                    self.rebuild(&sources);
                }
                Err(wrong) => {
                    failed = true;
                    self.counters.failed_refreshes.fetch_add(1, Ordering::Relaxed);
                    let kept = self.sources.lock().fetched[i].as_ref().map_or(0, Vec::len);
                    tracing::warn!(event = "token_keys_not_fetched", issuer = %remote.name(), %wrong, kept);
                }
            }
        }
        if failed {
            self.failures.fetch_add(1, Ordering::Relaxed);
        } else {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Puts together what there is; the same again leaves everything as it was.
    fn rebuild(&self, sources: &Sources) {
        let fetched = sources.fetched.iter().flatten().flatten();
        let ring = Ring::new(sources.local.keys().chain(fetched).cloned());
        let revoked = sources.local.revoked();
        let incomplete = sources.fetched.iter().any(Option::is_none);
        let old = self.snapshot.load();
        let same = old.generation > 0
            && old.ring == ring
            && Arc::ptr_eq(&old.revoked, &revoked)
            && old.incomplete == incomplete;
        if !same {
            self.counters.keys.store(u64::try_from(ring.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
            let generation = old.generation + 1;
            self.snapshot.store(Arc::new(Snapshot { ring, revoked, generation, incomplete }));
        }
    }
}

/// Ends a refresh, however it ends.
struct Landing(Arc<Keychain>);

impl Drop for Landing {
    fn drop(&mut self) {
        self.0.flight.lock().running = false;
        self.0.ended.send_modify(|ended| *ended += 1);
    }
}
