//! What runs at a time, for each tenant that has a limit on it.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::model::{Limit, TenantId};

type Running = Mutex<HashMap<(TenantId, Limit), u64, RandomState>>;

/// How many places of each tenant are taken.
#[derive(Debug, Default)]
pub struct Places(Arc<Running>);

/// A place; given up when dropped.
#[derive(Debug)]
pub struct Place {
    running: Arc<Running>,
    key: (TenantId, Limit),
}

impl Places {
    /// Takes a place if fewer than `allowed` are taken, or tells how many are.
    pub fn take(&self, tenant: &TenantId, limit: Limit, allowed: u64) -> Result<Place, u64> {
        let key = (tenant.clone(), limit);
        let mut running = self.0.lock();
        let count = running.get(&key).copied().unwrap_or(0);
        if count >= allowed {
            return Err(count);
        }
        running.insert(key.clone(), count + 1);
        Ok(Place { running: Arc::clone(&self.0), key })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        match running.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            // Nobody is remembered who has nothing running.
            Some(_) | None => {
                running.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_for_each_tenant_and_limit_and_given_back() {
        let places = Places::default();
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let first = places.take(&a, Limit::ConcurrentWrites, 2).unwrap();
        let second = places.take(&a, Limit::ConcurrentWrites, 2).unwrap();
        assert_eq!(places.take(&a, Limit::ConcurrentWrites, 2).unwrap_err(), 2);
        assert_eq!(places.take(&a, Limit::ConcurrentWrites, 1).unwrap_err(), 2);
        places.take(&b, Limit::ConcurrentWrites, 1).unwrap();
        places.take(&a, Limit::ConcurrentQueries, 1).unwrap();
        drop(first);
        let third = places.take(&a, Limit::ConcurrentWrites, 2).unwrap();
        drop((second, third));
        assert!(places.0.lock().is_empty());
        assert_eq!(places.take(&a, Limit::ConcurrentWrites, 0).unwrap_err(), 0);
    }
}
