//! Which limits hold for whom.
//!
//! ```text
//! defaults ◀─ the file's "*" ◀─ the file's tenant ◀─ what the API set ◀─ the token's │ at most the hard ones
//! ```
//!
//! What is further right says only what it names; the rest is as it was. A request finds its tenant's limits ready
//! made, in a snapshot that is swapped whole when something was written down anew; those of a token with limits of its
//! own are made for it, which costs less than remembering them would.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::overrides::{LimitOverrides, OverrideError, OverrideErrors};
use crate::model::{Limit, OnConflict, TenantId, TenantLimits};

/// What the server says of limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Of tenants without limits of their own.
    pub defaults: TenantLimits,
    /// What nobody has more than.
    pub hard: TenantLimits,
    /// What every query is held to besides, whoever asks.
    pub queries: TenantLimits,
    /// The store settles conflicts its own way, and nobody may ask for another.
    pub settles_itself: bool,
}

impl Rules {
    /// These limits for everybody, and nothing else.
    pub fn of(defaults: TenantLimits) -> Self {
        let unlimited = TenantLimits::unlimited;
        Self { defaults, hard: unlimited(), queries: unlimited(), settles_itself: false }
    }

    /// Whether somebody may be given limits, or all that is against it.
    pub fn check(&self, overrides: &LimitOverrides) -> Result<(), OverrideErrors> {
        let mut errors: Vec<OverrideError> = overrides
            .values
            .iter()
            .filter_map(|(limit, value)| {
                let most = strictest(self.hard.get(*limit), self.queries.get(*limit))?;
                // A burst that is not said is a second's worth.
                let exceeds = value.map_or(limit.rate().is_none(), |value| value > most);
                exceeds.then(|| {
                    let (asked, most) = (limit.show(*value), limit.show(Some(most)));
                    let message = format!("{asked} is more than anybody may have, which is {most}");
                    OverrideError { name: limit.name().to_owned(), message }
                })
            })
            .collect();
        if let Err(error) = self.check_conflicts(overrides) {
            errors.push(error);
        }
        if errors.is_empty() { Ok(()) } else { Err(OverrideErrors(errors)) }
    }

    /// Where nobody may have more than so much in a second, nobody has more than that at once either, or than everybody
    /// has.
    fn bound_bursts(&mut self) {
        for rate in Limit::ALL {
            let Some((burst, most)) = rate.burst().zip(self.hard.get(rate)) else { continue };
            if self.hard.get(burst).is_none() {
                self.hard.set(burst, Some(most.max(self.defaults.get(burst).unwrap_or(0))));
            }
        }
    }

    /// Whether somebody may have conflicts settled so.
    pub(super) fn check_conflicts(&self, overrides: &LimitOverrides) -> Result<(), OverrideError> {
        match overrides.on_conflict {
            Some(OnConflict::Reject) if self.settles_itself => Err(OverrideError {
                name: "on_conflict".to_owned(),
                message: "the store settles conflicts by the values, whichever came first; leave it at last"
                    .to_owned(),
            }),
            Some(OnConflict::Last | OnConflict::Reject) | None => Ok(()),
        }
    }

    /// Holds limits to what anybody may have.
    fn hold(&self, limits: &mut TenantLimits) {
        limits.cap(&self.hard);
        if self.settles_itself {
            limits.on_conflict = OnConflict::Last;
        }
    }
}

fn strictest(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// What an overrides file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantOverrides {
    /// For everybody.
    pub everybody: LimitOverrides,
    /// For some.
    pub tenants: HashMap<TenantId, LimitOverrides>,
}

/// What was written down for tenants, and when it all began.
#[derive(Debug, Default)]
struct Written {
    file: TenantOverrides,
    users: HashMap<TenantId, LimitOverrides>,
}

/// What was written down, and what follows from it.
#[derive(Debug)]
struct Snapshot {
    /// Of tenants for whom nothing was written.
    common: Arc<TenantLimits>,
    tenants: HashMap<TenantId, Arc<TenantLimits>>,
}

impl Snapshot {
    fn of(rules: &Rules, written: &Written) -> Self {
        let mut common = rules.defaults.clone();
        written.file.everybody.apply(&mut common);
        let limits_of = |tenant: &TenantId| {
            let mut limits = common.clone();
            for overrides in [written.file.tenants.get(tenant), written.users.get(tenant)] {
                overrides.unwrap_or(&LimitOverrides::default()).apply(&mut limits);
            }
            rules.hold(&mut limits);
            (tenant.clone(), Arc::new(limits))
        };
        let tenants = written.file.tenants.keys().chain(written.users.keys()).map(limits_of).collect();
        rules.hold(&mut common);
        Self { common: Arc::new(common), tenants }
    }

    fn get(&self, tenant: &TenantId) -> &Arc<TenantLimits> {
        self.tenants.get(tenant).unwrap_or(&self.common)
    }
}

/// The limits of all tenants.
#[derive(Debug)]
pub struct LimitTable {
    rules: Rules,
    /// Held while the snapshot is made, so that it is of all that was written.
    written: Mutex<Written>,
    snapshot: ArcSwap<Snapshot>,
}

impl LimitTable {
    /// The same limits for everybody.
    pub fn of(defaults: TenantLimits) -> Self {
        Self::new(Rules::of(defaults))
    }

    /// Limits within these rules; nothing is written down yet.
    pub fn new(mut rules: Rules) -> Self {
        rules.bound_bursts();
        let written = Written::default();
        let snapshot = ArcSwap::from_pointee(Snapshot::of(&rules, &written));
        Self { rules, written: Mutex::new(written), snapshot }
    }

    /// What the server says of limits.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The limits of a request for a tenant by a caller with limits of their own.
    pub fn limits_of(&self, tenant: &TenantId, own: &LimitOverrides) -> Arc<TenantLimits> {
        let snapshot = self.snapshot.load();
        let limits = snapshot.get(tenant);
        if own.is_empty() {
            return Arc::clone(limits);
        }
        let mut limits = TenantLimits::clone(limits);
        own.apply(&mut limits);
        self.rules.hold(&mut limits);
        Arc::new(limits)
    }

    /// Puts what the overrides file says in the place of what it said before.
    pub fn put_file(&self, file: TenantOverrides) {
        self.change(|written| written.file = file);
    }

    /// Puts what was set by the API in the place of what was set before.
    pub fn put_users(&self, users: HashMap<TenantId, LimitOverrides>) {
        self.change(|written| written.users = users);
    }

    /// Sets a tenant's limits, or takes them back.
    pub fn put_user(&self, tenant: &TenantId, overrides: Option<LimitOverrides>) {
        self.change(|written| {
            match overrides {
                Some(overrides) => written.users.insert(tenant.clone(), overrides),
                None => written.users.remove(tenant),
            };
        });
    }

    fn change(&self, change: impl FnOnce(&mut Written)) {
        let mut written = self.written.lock();
        change(&mut written);
        self.snapshot.store(Arc::new(Snapshot::of(&self.rules, &written)));
    }

    /// What was set for a tenant by the API.
    pub fn user(&self, tenant: &TenantId) -> Option<LimitOverrides> {
        self.written.lock().users.get(tenant).cloned()
    }

    /// How many tenants have limits of their own by the file, and by the API.
    pub fn counts(&self) -> (usize, usize) {
        let written = self.written.lock();
        (written.file.tenants.len(), written.users.len())
    }

    /// The same limits as [`limits_of`](Self::limits_of), with where each comes from.
    pub fn explain(&self, tenant: &TenantId, own: &LimitOverrides) -> Explained {
        let written = self.written.lock();
        let mut explained = Explained::of(&self.rules.defaults);
        explained.put(&written.file.everybody, LimitOrigin::File);
        let nothing = LimitOverrides::default();
        explained.put(written.file.tenants.get(tenant).unwrap_or(&nothing), LimitOrigin::File);
        explained.put(written.users.get(tenant).unwrap_or(&nothing), LimitOrigin::User);
        explained.put(own, LimitOrigin::Token);
        explained.cap(&self.rules.hard, LimitOrigin::Hard);
        explained.cap(&self.rules.queries, LimitOrigin::Server);
        if self.rules.settles_itself && explained.on_conflict.0 != OnConflict::Last {
            explained.on_conflict = (OnConflict::Last, LimitOrigin::Server);
        }
        explained
    }
}

/// Where a limit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitOrigin {
    /// `limits.defaults`.
    Default,
    /// The overrides file.
    File,
    /// The API.
    User,
    /// The caller's token or key.
    Token,
    /// `limits.hard`, which is stricter than those before.
    Hard,
    /// How the server is set up: `query:`, or its kind of store.
    Server,
}

impl LimitOrigin {
    /// Its name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "override",
            Self::User => "user",
            Self::Token => "token",
            Self::Hard => "hard",
            Self::Server => "server",
        }
    }
}

/// Limits, and where each comes from.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The limits, held to what every query is held to as well.
    pub limits: TenantLimits,
    /// Where each comes from, in the order of [`Limit::ALL`].
    pub origins: [LimitOrigin; Limit::ALL.len()],
    /// How conflicts are settled, and who says so.
    pub on_conflict: (OnConflict, LimitOrigin),
}

impl Explained {
    fn of(defaults: &TenantLimits) -> Self {
        let origin = LimitOrigin::Default;
        Self {
            limits: defaults.clone(),
            origins: [origin; Limit::ALL.len()],
            on_conflict: (defaults.on_conflict, origin),
        }
    }

    fn put(&mut self, overrides: &LimitOverrides, origin: LimitOrigin) {
        overrides.apply(&mut self.limits);
        for (limit, _) in &overrides.values {
            self.origins[*limit as usize] = origin;
        }
        if let Some(on_conflict) = overrides.on_conflict {
            self.on_conflict = (on_conflict, origin);
        }
    }

    fn cap(&mut self, caps: &TenantLimits, origin: LimitOrigin) {
        let before = self.limits.clone();
        self.limits.cap(caps);
        for limit in Limit::ALL {
            if self.limits.get(limit) != before.get(limit) {
                self.origins[limit as usize] = origin;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn overrides(written: serde_json::Value) -> LimitOverrides {
        LimitOverrides::read(&written).unwrap()
    }

    fn table() -> LimitTable {
        let defaults = TenantLimits::default().with(Limit::Samples, 10).with(Limit::Queries, 10);
        let table = LimitTable::new(Rules {
            hard: TenantLimits::unlimited().with(Limit::Samples, 1000).with(Limit::LabelNames, 50),
            queries: TenantLimits::unlimited().with(Limit::QueryPoints, 11_000),
            settles_itself: true,
            ..Rules::of(defaults)
        });
        table.put_file(TenantOverrides {
            everybody: overrides(json!({"queries_per_second": 20, "bytes_per_second": 7})),
            tenants: HashMap::from([(tenant("a"), overrides(json!({"samples_per_second": 20})))]),
        });
        table.put_users(HashMap::from([
            (tenant("a"), overrides(json!({"bytes_per_second": "unlimited"}))),
            (tenant("b"), overrides(json!({"samples_per_second": 30}))),
        ]));
        table
    }

    #[test]
    fn who_is_nearer_to_the_request_has_the_last_word_within_the_hard_limits() {
        let table = table();
        let own = overrides(json!({"samples_per_second": "unlimited", "max_query_points": 50_000}));
        let of = |name: &str, own: &LimitOverrides, limit| table.limits_of(&tenant(name), own).get(limit);
        let none = LimitOverrides::default();
        for (name, samples, queries, bytes) in [
            ("a", Some(20), Some(20), None),
            ("b", Some(30), Some(20), Some(7)),
            ("c", Some(10), Some(20), Some(7)),
        ] {
            assert_eq!(of(name, &none, Limit::Samples), samples, "{name}");
            assert_eq!(of(name, &none, Limit::Queries), queries, "{name}");
            assert_eq!(of(name, &none, Limit::Bytes), bytes, "{name}");
            assert_eq!(of(name, &none, Limit::LabelNames), Some(50), "{name}");
            assert_eq!(of(name, &own, Limit::Samples), Some(1000), "{name}");
            assert_eq!(of(name, &own, Limit::Bytes), bytes, "{name}");
        }
        table.put_user(&tenant("b"), None);
        table.put_user(&tenant("c"), Some(overrides(json!({"bytes_per_second": 1}))));
        table.put_file(TenantOverrides::default());
        assert_eq!(of("a", &none, Limit::Samples), Some(10));
        assert_eq!(of("b", &none, Limit::Samples), Some(10));
        assert_eq!(of("c", &none, Limit::Bytes), Some(1));
        assert_eq!(table.counts(), (0, 2));
    }

    #[test]
    fn a_rate_that_nobody_has_more_of_is_not_had_in_one_burst() {
        let defaults = TenantLimits::default().with(Limit::Bytes, 10).with(Limit::BytesBurst, 5000);
        let hard = TenantLimits::unlimited().with(Limit::Samples, 1000).with(Limit::Bytes, 1000);
        let table = LimitTable::new(Rules { hard, ..Rules::of(defaults) });
        let bursts = |own| {
            let limits = table.limits_of(&tenant("a"), &overrides(own));
            (limits.get(Limit::SamplesBurst), limits.get(Limit::BytesBurst))
        };
        assert_eq!(bursts(json!({})), (None, Some(5000)));
        assert_eq!(bursts(json!({"samples_per_second": 7})), (None, Some(5000)));
        let most = json!({"samples_burst": 1_000_000, "bytes_burst": "1GiB"});
        assert_eq!(bursts(most.clone()), (Some(1000), Some(5000)));
        assert_eq!(
            table.rules().check(&overrides(most)).unwrap_err().to_string(),
            "samples_burst: 1000000 is more than anybody may have, which is 1000; \
             bytes_burst: 1GiB is more than anybody may have, which is 5KB"
        );
        assert_eq!(table.rules().check(&overrides(json!({"samples_burst": "unlimited"}))), Ok(()));
    }

    #[test]
    fn nobody_is_told_of_a_limit_that_does_not_hold() {
        let table = table();
        for own in [json!({}), json!({"samples_per_second": 5000, "on_conflict": "reject"})] {
            let own = overrides(own);
            for name in ["a", "b", "c"] {
                let explained = table.explain(&tenant(name), &own);
                let mut held = TenantLimits::clone(&table.limits_of(&tenant(name), &own));
                assert_eq!(held.on_conflict, explained.on_conflict.0);
                held.cap(&table.rules().queries);
                held.on_conflict = explained.limits.on_conflict;
                assert_eq!(explained.limits, held, "{name}");
            }
        }
        let explained = table.explain(
            &tenant("a"),
            &overrides(json!({"samples_burst": 3, "samples_per_second": 5000, "on_conflict": "reject"})),
        );
        for (limit, origin) in [
            (Limit::Samples, "hard"),
            (Limit::SamplesBurst, "token"),
            (Limit::Bytes, "user"),
            (Limit::Queries, "override"),
            (Limit::LabelNames, "hard"),
            (Limit::LabelNameBytes, "default"),
            (Limit::QueryPoints, "server"),
        ] {
            assert_eq!(explained.origins[limit as usize].as_str(), origin, "{}", limit.name());
        }
        assert_eq!(explained.on_conflict, (OnConflict::Last, LimitOrigin::Server));
        assert_eq!(table.explain(&tenant("a"), &LimitOverrides::default()).origins[0], LimitOrigin::Default);
    }

    #[test]
    fn what_is_above_the_hard_limits_is_named() {
        let table = table();
        let refused = table.rules().check(&overrides(json!({
            "samples_per_second": 1001,
            "max_query_points": "unlimited",
            "bytes_per_second": "unlimited",
            "max_label_names": 50,
            "on_conflict": "reject",
        })));
        assert_eq!(
            refused.unwrap_err().to_string(),
            "samples_per_second: 1001 is more than anybody may have, which is 1000; \
             max_query_points: unlimited is more than anybody may have, which is 11000; \
             on_conflict: the store settles conflicts by the values, whichever came first; leave it at last"
        );
        assert_eq!(table.rules().check(&overrides(json!({"samples_per_second": 1000}))), Ok(()));
    }

    #[test]
    fn limits_may_change_while_they_are_asked_for() {
        let table = table();
        let (a, none) = (tenant("a"), LimitOverrides::default());
        std::thread::scope(|scope| {
            for writer in 0..2_u64 {
                let (table, a) = (&table, &a);
                scope.spawn(move || {
                    for i in 0..200 {
                        let both = 1 + (writer * 200 + i) % 900;
                        let both = overrides(json!({"samples_per_second": both, "queries_per_second": both}));
                        table.put_user(a, Some(both));
                    }
                });
            }
            for _ in 0..1000 {
                let limits = table.limits_of(&a, &none);
                if limits.get(Limit::Queries) != Some(20) {
                    assert_eq!(limits.get(Limit::Samples), limits.get(Limit::Queries), "one snapshot");
                }
            }
        });
    }
}
