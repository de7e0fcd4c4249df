//! The memory that rows may take until they are written.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{
    model::TenantId,
    storage::{Result, StorageError},
};

/// When those may come again for whom there was no room: a queue that moves is empty by then.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The room there is, and who has taken how much of it.
#[derive(Debug)]
pub(super) struct Rooms {
    limit: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    tenants: HashMap<TenantId, usize>,
}

/// Room that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Room {
    rooms: Arc<Rooms>,
    tenant: TenantId,
    bytes: usize,
}

impl Rooms {
    /// Room for `limit` bytes.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, taken: Mutex::default() })
    }

    /// Takes room. A tenant has no more than half of it, so that others always find some.
    ///
    /// A request that is larger than that is let in when the tenant, or the store, has nothing else waiting.
    pub(super) fn take(self: &Arc<Self>, tenant: &TenantId, bytes: usize) -> Result<Room> {
        let mut taken = self.taken.lock();
        let own = taken.tenants.get(tenant).copied().unwrap_or(0);
        let beyond = |used: usize, limit: usize| used > 0 && used.saturating_add(bytes) > limit;
        let whose = if beyond(taken.all, self.limit) {
            "too much is"
        } else if beyond(own, self.limit / 2) {
            "too much of this tenant is"
        } else {
            taken.all += bytes;
            *taken.tenants.entry(tenant.clone()).or_default() += bytes;
            return Ok(Room { rooms: Arc::clone(self), tenant: tenant.clone(), bytes });
        };
        Err(StorageError::Overloaded {
            detail: format!("{whose} waiting to be written to ClickHouse"),
            retry_after: RETRY_AFTER,
        })
    }

    /// Bytes taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.lock().all
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut taken = self.rooms.taken.lock();
        taken.all -= self.bytes;
        if let Some(own) = taken.tenants.get_mut(&self.tenant) {
            *own -= self.bytes;
            if *own == 0 {
                taken.tenants.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    #[test]
    fn a_tenant_has_half_and_others_find_room() {
        let rooms = Rooms::new(100);
        let first = rooms.take(&tenant("a"), 40).unwrap();
        assert!(matches!(rooms.take(&tenant("a"), 11), Err(StorageError::Overloaded { .. })));
        let second = rooms.take(&tenant("b"), 50).unwrap();
        assert!(rooms.take(&tenant("c"), 11).is_err());
        drop(first);
        assert_eq!(rooms.taken(), 50);
        let third = rooms.take(&tenant("c"), 50).unwrap();
        drop((second, third));
        assert_eq!(rooms.taken(), 0);
        assert!(rooms.taken.lock().tenants.is_empty());
    }

    #[test]
    fn what_is_larger_than_all_room_is_let_in_alone() {
        let rooms = Rooms::new(100);
        let room = rooms.take(&tenant("a"), 1_000).unwrap();
        assert!(rooms.take(&tenant("b"), 1).is_err());
        drop(room);
        let _small = rooms.take(&tenant("b"), 1).unwrap();
        assert!(rooms.take(&tenant("a"), 1_000).is_err());
    }
}
