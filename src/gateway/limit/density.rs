//! How many samples the bodies of a tenant have, so that one who is out of samples is refused before a body is read.
//!
//! Only refusals teach: a request that was refused for its samples had so many of them in so many bytes. The next is
//! believed to have at least half as many for its size. Believed too much, a request is told to come when there would be
//! as much; believed too little, it is read and refused then.

use std::num::NonZeroUsize;

use foldhash::fast::RandomState;
use lru::LruCache;
use parking_lot::Mutex;

use crate::model::TenantId;

/// For how many tenants it is remembered.
const TENANTS: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not zero");

/// How many samples bodies have.
#[derive(Debug)]
pub struct Densities(Mutex<LruCache<TenantId, Density, RandomState>>);

#[derive(Clone, Copy, Debug)]
struct Density {
    samples: u64,
    bytes: u64,
}

impl Default for Densities {
    fn default() -> Self {
        Self(Mutex::new(LruCache::with_hasher(TENANTS, RandomState::default())))
    }
}

impl Densities {
    /// Remembers that a body of so many bytes had so many samples.
    pub fn learn(&self, tenant: &TenantId, bytes: u64, samples: u64) {
        if bytes > 0 {
            self.0.lock().put(tenant.clone(), Density { samples, bytes });
        }
    }

    /// How many samples a body of so many bytes has at least, if it is like the one before; one if nothing is known.
    pub fn at_least(&self, tenant: &TenantId, bytes: u64) -> u64 {
        let Some(Density { samples, bytes: of }) = self.0.lock().get(tenant).copied() else { return 1 };
        let half = u128::from(samples) * u128::from(bytes) / u128::from(of) / 2;
        u64::try_from(half).unwrap_or(u64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_taken_for_half_of_the_one_before() {
        let densities = Densities::default();
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        assert_eq!(densities.at_least(&a, 1000), 1);
        densities.learn(&a, 100, 60);
        assert_eq!((densities.at_least(&a, 1000), densities.at_least(&b, 1000)), (300, 1));
        assert_eq!((densities.at_least(&a, 1), densities.at_least(&a, 0)), (1, 1));
        densities.learn(&a, 1, u64::MAX);
        assert_eq!(densities.at_least(&a, u64::MAX), u64::MAX);
        densities.learn(&a, 0, 5);
        assert_eq!(densities.at_least(&a, 4), u64::MAX);
    }
}
