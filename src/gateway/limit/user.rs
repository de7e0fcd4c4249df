//! Limits that somebody gave a tenant by the API.
//!
//! They are documents of the store, so that they outlive the process and reach all that share it: who sets them has
//! them at once, the others within [`EVERY`].

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{overrides::LimitOverrides, table::LimitTable};
use crate::{
    gateway::{error::with_sources, reload::Reload},
    model::TenantId,
    storage::{DocumentKind, Result, Storage},
};

/// How often the store is asked what others have set.
pub const EVERY: Duration = Duration::from_secs(10);
/// The same, while it has not answered yet.
const AT_FIRST: Duration = Duration::from_secs(1);

/// What the store holds, as it was read the last time.
type Texts = HashMap<TenantId, String>;

/// Limits that somebody gave tenants.
#[derive(Debug)]
pub struct UserOverrides {
    storage: Arc<dyn Storage>,
    table: Arc<LimitTable>,
    /// Held while the store is asked or told, so that the table gets it all in that order. None is not asked yet.
    known: tokio::sync::Mutex<Option<Texts>>,
    /// What the last look could not do, told once.
    trouble: Mutex<Option<String>>,
    asked: AtomicBool,
}

impl UserOverrides {
    /// What a store holds, to be put into a table; it is not asked yet.
    pub fn new(storage: Arc<dyn Storage>, table: Arc<LimitTable>) -> Self {
        Self {
            storage,
            table,
            known: tokio::sync::Mutex::new(None),
            trouble: Mutex::new(None),
            asked: AtomicBool::new(false),
        }
    }

    /// Gives a tenant limits in the place of those it had, or takes them back; durable when it returns.
    pub async fn set(&self, tenant: &TenantId, overrides: Option<LimitOverrides>) -> Result<()> {
        let text = overrides.as_ref().map(|overrides| overrides.to_json().to_string());
        let mut known = self.known.lock().await;
        self.storage.put_document(tenant, DocumentKind::Limits, text.clone()).await?;
        self.table.put_user(tenant, overrides);
        if let Some(known) = &mut *known {
            match text {
                Some(text) => known.insert(tenant.clone(), text),
                None => known.remove(tenant),
            };
        }
        Ok(())
    }

    /// Asks the store what there is: whether it is other than before.
    pub async fn refresh(&self) -> Result<bool> {
        let mut known = self.known.lock().await;
        let texts: Texts = self.storage.documents(DocumentKind::Limits).await?.into_iter().collect();
        self.asked.store(true, Relaxed);
        if known.as_ref() == Some(&texts) {
            return Ok(false);
        }
        let before = known.take().unwrap_or_default();
        let read = |(tenant, text): (&TenantId, &String)| {
            let is_new = before.get(tenant) != Some(text);
            (tenant.clone(), read(tenant, text, is_new))
        };
        self.table.put_users(texts.iter().map(read).collect());
        *known = Some(texts);
        Ok(true)
    }
}

/// Reads what can be read of a document; another version may have written more.
fn read(tenant: &TenantId, text: &str, is_new: bool) -> LimitOverrides {
    let (overrides, wrong) = match serde_json::from_str(text) {
        Ok(written) => {
            let (overrides, errors) = LimitOverrides::read_known(&written);
            (overrides, errors.map(|errors| errors.to_string()))
        }
        Err(error) => (LimitOverrides::default(), Some(error.to_string())),
    };
    if let Some(wrong) = wrong.filter(|_| is_new) {
        tracing::error!(event = "limits", %tenant, wrong, "a part of a tenant's limits is not understood");
    }
    overrides
}

#[async_trait]
impl Reload for UserOverrides {
    fn name(&self) -> &'static str {
        "user_overrides"
    }

    fn every(&self) -> Duration {
        if self.asked.load(Relaxed) { EVERY } else { AT_FIRST }
    }

    async fn reload(self: Arc<Self>) -> Result<(), String> {
        let outcome = self.refresh().await.map(|_| ()).map_err(|error| with_sources(&error));
        *self.trouble.lock() = outcome.clone().err();
        outcome.map_err(|error| format!("user overrides: {error}"))
    }

    async fn look(self: Arc<Self>) -> Option<Result<(), String>> {
        let (changed, trouble) = match self.refresh().await {
            Ok(changed) => (changed, None),
            Err(error) => (false, Some(with_sources(&error))),
        };
        let before = std::mem::replace(&mut *self.trouble.lock(), trouble.clone());
        match trouble {
            // It is told once, not each time.
            Some(error) => before.is_none().then_some(Err(error)),
            None => (changed || before.is_some()).then_some(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        clock::HandClock,
        model::{Limit, TenantLimits, Timestamp},
        storage::{
            embedded::{EmbeddedConfig, EmbeddedStore, disk::SystemDisk},
            memory::MemoryStore,
        },
    };

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn overrides(samples: u64) -> LimitOverrides {
        LimitOverrides::read(&json!({ "samples_per_second": samples })).unwrap()
    }

    struct Pod {
        users: Arc<UserOverrides>,
        table: Arc<LimitTable>,
    }

    impl Pod {
        fn over(storage: &Arc<MemoryStore>) -> Self {
            let table = Arc::new(LimitTable::of(TenantLimits::default()));
            let storage = Arc::clone(storage) as Arc<dyn Storage>;
            Self { users: Arc::new(UserOverrides::new(storage, Arc::clone(&table))), table }
        }

        fn samples(&self, name: &str) -> Option<u64> {
            self.table.limits_of(&tenant(name), &LimitOverrides::default()).get(Limit::Samples)
        }

        async fn look(&self) -> Option<Result<(), String>> {
            Arc::clone(&self.users).look().await
        }
    }

    fn store() -> Arc<MemoryStore> {
        MemoryStore::new(HandClock::at(Timestamp(0)), None)
    }

    #[tokio::test]
    async fn what_is_set_holds_at_once_here_and_at_the_next_look_elsewhere() {
        let store = store();
        let (one, other) = (Pod::over(&store), Pod::over(&store));
        assert_eq!(other.users.every(), AT_FIRST);
        assert_eq!(other.look().await, Some(Ok(())), "it was read for the first time");
        assert_eq!(other.look().await, None, "nothing changed");
        assert_eq!(other.users.every(), EVERY);
        one.users.set(&tenant("a"), Some(overrides(5))).await.unwrap();
        assert_eq!((one.samples("a"), other.samples("a")), (Some(5), None));
        assert_eq!(other.look().await, Some(Ok(())));
        assert_eq!((other.samples("a"), other.samples("b")), (Some(5), None));
        other.users.set(&tenant("a"), None).await.unwrap();
        one.look().await;
        assert_eq!((one.samples("a"), other.samples("a")), (None, None));
        one.users.set(&tenant("a"), Some(overrides(6))).await.unwrap();
        let restarted = Pod::over(&store);
        restarted.users.refresh().await.unwrap();
        assert_eq!(restarted.samples("a"), Some(6));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_sets_at_once_the_table_and_the_store_agree() {
        let store = store();
        let pod = Pod::over(&store);
        let sets = (0..100_u64).map(|i| {
            let users = Arc::clone(&pod.users);
            crate::task::spawn("test", async move {
                if i % 10 == 9 {
                    users.refresh().await.unwrap();
                }
                let limits = (i % 7 != 6).then(|| overrides(i));
                users.set(&tenant("a"), limits).await.unwrap();
            })
        });
        for set in sets.collect::<Vec<_>>() {
            set.await.unwrap();
        }
        let here = pod.samples("a");
        assert_eq!(pod.look().await, None, "the store has what the table has");
        assert_eq!(pod.samples("a"), here);
        let other = Pod::over(&store);
        other.users.refresh().await.unwrap();
        assert_eq!(other.samples("a"), here);
    }

    #[tokio::test]
    async fn what_another_version_wrote_holds_as_far_as_it_is_understood() {
        let store = store();
        let kind = DocumentKind::Limits;
        let text = json!({"samples_per_second": 5, "of_a_later_version": 1}).to_string();
        store.put_document(&tenant("a"), kind, Some(text)).await.unwrap();
        store.put_document(&tenant("b"), kind, Some("{".to_owned())).await.unwrap();
        let pod = Pod::over(&store);
        pod.users.refresh().await.unwrap();
        assert_eq!((pod.samples("a"), pod.samples("b")), (Some(5), None));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_that_does_not_answer_is_told_of_once_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(
            EmbeddedConfig::new(dir.path()),
            Arc::new(SystemDisk),
            HandClock::at(Timestamp(0)),
        )
        .unwrap();
        let table = Arc::new(LimitTable::of(TenantLimits::default()));
        let users = UserOverrides::new(Arc::clone(&store) as Arc<dyn Storage>, Arc::clone(&table));
        let users = Arc::new(users);
        users.set(&tenant("a"), Some(overrides(3))).await.unwrap();
        store.close().await.unwrap();
        assert!(users.set(&tenant("a"), Some(overrides(9))).await.is_err());
        assert!(Arc::clone(&users).look().await.unwrap().is_err());
        assert_eq!(Arc::clone(&users).look().await, None);
        assert!(Arc::clone(&users).reload().await.is_err());
        let limits = table.limits_of(&tenant("a"), &LimitOverrides::default());
        assert_eq!(limits.get(Limit::Samples), Some(3));
    }
}
