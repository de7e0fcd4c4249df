//! What patterns found in parts, kept.
//!
//! A dashboard asks the same selectors every few seconds, and a part never changes: which of its series match a
//! pattern is found once. What lists and single values find is not kept, since looking them up costs no more.

use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use roaring::RoaringBitmap;

/// About the memory an entry takes besides its texts and its set.
const ENTRY_BYTES: usize = 200;

/// Sets of series by part, tenant, label and pattern, those asked for last, within a bound of bytes.
#[derive(Debug)]
pub(super) struct Matched {
    kept: Mutex<Kept>,
    most_bytes: usize,
}

#[derive(Debug)]
struct Kept {
    sets: LruCache<Key, Arc<RoaringBitmap>>,
    bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The part, as the page cache knows it.
    pub(super) owner: u64,
    /// Where the tenant's names lie in it.
    pub(super) names: u64,
    pub(super) name: Box<str>,
    pub(super) pattern: Box<str>,
}

impl Matched {
    pub(super) fn new(most_bytes: usize) -> Self {
        Self { kept: Mutex::new(Kept { sets: LruCache::unbounded(), bytes: 0 }), most_bytes }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<RoaringBitmap>> {
        self.kept.lock().sets.get(key).map(Arc::clone)
    }

    pub(super) fn put(&self, key: Key, set: &Arc<RoaringBitmap>) {
        let bytes = size(&key, set);
        // One that would push out all others is not worth it.
        if bytes > self.most_bytes / 4 {
            return;
        }
        let kept = &mut *self.kept.lock();
        kept.bytes += bytes;
        if let Some((key, old)) = kept.sets.push(key, Arc::clone(set)) {
            kept.bytes -= size(&key, &old);
        }
        while kept.bytes > self.most_bytes {
            let Some((key, set)) = kept.sets.pop_lru() else { break };
            kept.bytes -= size(&key, &set);
        }
    }

    /// Drops what was found in a part that is no longer read.
    pub(super) fn forget(&self, owner: u64) {
        let kept = &mut *self.kept.lock();
        let of_owner: Vec<Key> =
            kept.sets.iter().map(|(key, _)| key).filter(|k| k.owner == owner).cloned().collect();
        for key in of_owner {
            if let Some(set) = kept.sets.pop(&key) {
                kept.bytes -= size(&key, &set);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.kept.lock().bytes
    }
}

fn size(key: &Key, set: &RoaringBitmap) -> usize {
    ENTRY_BYTES + key.name.len() + key.pattern.len() + set.serialized_size()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(owner: u64, pattern: &str) -> Key {
        Key { owner, names: 7, name: "pod".into(), pattern: pattern.into() }
    }

    #[test]
    fn sets_stay_within_the_bound_and_those_asked_for_stay_longest() {
        let matched = Matched::new(4000);
        let set = Arc::new(RoaringBitmap::from_iter([1, 5, 900]));
        for i in 0..100 {
            matched.put(key(1, &format!("a.*{i}")), &set);
            matched.put(key(1, "a.*0"), &set);
            assert_eq!(matched.get(&key(1, "a.*0")).as_deref(), Some(&*set));
            assert!(matched.bytes() <= 4000);
        }
        assert_eq!(matched.get(&key(1, "a.*1")), None);
        assert_eq!(matched.get(&key(2, "a.*0")), None, "another part");
        let large = Arc::new((0..4000).map(|n| n * 3).collect::<RoaringBitmap>());
        matched.put(key(2, "large"), &large);
        assert_eq!(matched.get(&key(2, "large")), None);
        matched.put(key(2, "b.*"), &set);
        matched.forget(1);
        assert_eq!(matched.get(&key(1, "a.*0")), None);
        assert!(matched.get(&key(2, "b.*")).is_some());
        matched.forget(2);
        assert_eq!(matched.bytes(), 0);
    }
}
