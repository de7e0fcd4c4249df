//! What is kept, and what goes when there is no room.
//!
//! Room is bounded in bytes. When there is none left, the tenant that has the most gives up what it has not used for
//! longest: who asks for little keeps it, whatever others do.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use foldhash::fast::RandomState;

use super::extent::Extent;
use crate::{model::TenantId, storage::View};

/// An entry of more than this part of all the room is not kept.
pub const LARGEST_PART: usize = 4;

/// The longest rest.
const MOST_REST: u8 = 31;

/// What answers have to have in common to be made of each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The digest of who asks; whether it is the same [`View`] is looked at, too.
    pub view: u128,
    /// The query as we would write it.
    pub canonical: String,
    /// What else decides about a step.
    pub settings: String,
    /// The distance between steps, in milliseconds.
    pub step: i64,
    /// The first step at or after the epoch.
    pub phase: i64,
}

/// What is kept under a key.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who asked.
    pub view: View,
    /// The text that was asked with: what the extents have to say refers to places in it.
    pub text: Arc<str>,
    /// Apart from each other.
    pub extents: Vec<Arc<Extent>>,
    /// How often in a row it is not to be tried again to add to them, because it did not fit.
    pub rest: Rest,
}

/// How long something that did not work is not tried again: each time twice as long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    left: u8,
    last: u8,
}

impl Rest {
    /// Whether it is not to be tried.
    pub fn holds(self) -> bool {
        self.left > 0
    }

    /// After it was not tried.
    pub fn shorter(self) -> Self {
        Self { left: self.left.saturating_sub(1), ..self }
    }

    /// After it did not work.
    pub fn longer(self) -> Self {
        let next = (2 * self.last + 1).min(MOST_REST);
        Self { left: next, last: next }
    }
}

impl Entry {
    fn size(&self, key: &Key) -> usize {
        let extents: usize = self.extents.iter().map(|extent| extent.size()).sum();
        // The key is there twice.
        let key = 2 * (size_of::<Key>() + key.canonical.len() + key.settings.len());
        key + size_of::<Self>() + self.text.len() + extents
    }
}

/// Keeps entries within so many bytes.
#[derive(Debug)]
pub struct Shelf {
    most: usize,
    bytes: usize,
    entries: HashMap<Key, Slot, RandomState>,
    tenants: HashMap<TenantId, Share, RandomState>,
    /// Counts uses.
    turn: u64,
}

#[derive(Debug)]
struct Slot {
    entry: Arc<Entry>,
    bytes: usize,
    used: u64,
}

/// What one tenant has.
#[derive(Debug, Default)]
struct Share {
    bytes: usize,
    /// By when they were used last.
    used: BTreeMap<u64, Key>,
}

impl Shelf {
    /// Room for so many bytes.
    pub fn new(most: usize) -> Self {
        Self { most, bytes: 0, entries: HashMap::default(), tenants: HashMap::default(), turn: 0 }
    }

    /// What is kept for this view, which counts as a use.
    pub fn get(&mut self, key: &Key, view: &View) -> Option<Arc<Entry>> {
        let slot = self.entries.get_mut(key).filter(|slot| slot.entry.view == *view)?;
        self.turn += 1;
        if let Some(share) = self.tenants.get_mut(&view.tenants()[0])
            && let Some(key) = share.used.remove(&slot.used)
        {
            share.used.insert(self.turn, key);
        }
        slot.used = self.turn;
        Some(Arc::clone(&slot.entry))
    }

    /// Keeps an entry in place of what was there, and says how many others had to go.
    pub fn put(&mut self, key: Key, entry: Entry) -> usize {
        let tenant = entry.view.tenants()[0].clone();
        let bytes = entry.size(&key);
        self.remove(&key);
        if bytes > self.most / LARGEST_PART {
            return 0;
        }
        self.turn += 1;
        let share = self.tenants.entry(tenant).or_default();
        share.bytes += bytes;
        share.used.insert(self.turn, key.clone());
        self.bytes += bytes;
        self.entries.insert(key, Slot { entry: Arc::new(entry), bytes, used: self.turn });
        let mut gone = 0;
        while self.bytes > self.most {
            let Some(oldest) = self.next_to_go() else { break };
            self.remove(&oldest);
            gone += 1;
        }
        gone
    }

    /// Bytes that are taken.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many entries there are.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    fn next_to_go(&self) -> Option<Key> {
        let (_, share) = self.tenants.iter().max_by_key(|(_, share)| share.bytes)?;
        share.used.values().next().cloned()
    }

    fn remove(&mut self, key: &Key) {
        let Some(slot) = self.entries.remove(key) else { return };
        self.bytes -= slot.bytes;
        let tenant = &slot.entry.view.tenants()[0];
        if let Some(share) = self.tenants.get_mut(tenant) {
            share.bytes -= slot.bytes;
            share.used.remove(&slot.used);
            if share.used.is_empty() {
                self.tenants.remove(tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { view: 1, canonical: name.to_owned(), settings: String::new(), step: 1, phase: 0 }
    }

    fn entry(tenant: &str) -> Entry {
        let view = View::of(TenantId::new(tenant).unwrap());
        Entry { view, text: "x".repeat(1_000).into(), extents: vec![], rest: Rest::default() }
    }

    fn view(tenant: &str) -> View {
        View::of(TenantId::new(tenant).unwrap())
    }

    #[test]
    fn who_has_the_most_gives_up_what_it_used_longest_ago() {
        let mut shelf = Shelf::new(10_000);
        assert_eq!(shelf.put(key("small"), entry("b")), 0);
        let mut gone = 0;
        for i in 0..100 {
            gone += shelf.put(key(&format!("{i}")), entry("a"));
            assert!(shelf.get(&key("0"), &view("a")).is_some(), "it is used all the time");
            assert!(shelf.bytes() <= 10_000);
        }
        assert!(shelf.get(&key("small"), &view("b")).is_some(), "somebody else has less");
        assert!(shelf.get(&key("99"), &view("a")).is_some());
        assert!(shelf.get(&key("50"), &view("a")).is_none());
        assert_eq!(gone + shelf.entries(), 101);
    }

    #[test]
    fn what_is_replaced_or_forgotten_takes_no_room() {
        let mut shelf = Shelf::new(10_000);
        for _ in 0..100 {
            assert_eq!(shelf.put(key("a"), entry("a")), 0);
        }
        assert_eq!((shelf.entries(), shelf.tenants.len()), (1, 1));
        let one = shelf.bytes();
        assert!(one > 1_000 && one < 2_000, "{one}");
        shelf.remove(&key("a"));
        assert_eq!((shelf.bytes(), shelf.entries(), shelf.tenants.len()), (0, 0, 0));
    }

    #[test]
    fn what_is_too_large_is_not_kept_and_drives_nobody_out() {
        let mut shelf = Shelf::new(8_000);
        shelf.put(key("a"), entry("a"));
        let large = Entry { text: "x".repeat(5_000).into(), ..entry("a") };
        assert_eq!(shelf.put(key("b"), large), 0);
        assert!(shelf.get(&key("a"), &view("a")).is_some());
        assert!(shelf.get(&key("b"), &view("a")).is_none());
    }

    #[test]
    fn rests_double_while_it_does_not_work() {
        let mut rest = Rest::default();
        let mut tried = 0;
        for _ in 0..100 {
            rest = if rest.holds() {
                rest.shorter()
            } else {
                tried += 1;
                rest.longer()
            };
        }
        assert_eq!(tried, 7);
        assert!(!Rest::default().holds());
    }

    #[test]
    fn a_key_alone_opens_nothing_of_another_view() {
        let mut shelf = Shelf::new(5_000);
        shelf.put(key("a"), entry("a"));
        assert!(shelf.get(&key("a"), &view("b")).is_none());
    }
}
