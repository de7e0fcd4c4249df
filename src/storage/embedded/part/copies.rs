//! The same bytes once.
//!
//! A histogram's `_count` is its last bucket, and what is scraped twice has two series with the same values. The writer knows a
//! body again by its hash, and the index names the one that is there. The hash is one that nobody can make two bodies for,
//! because tenants share a part, and none may choose what another reads.

use aws_lc_rs::digest::{SHA256, digest};
use hashbrown::HashMap;

/// A shorter body costs less than to name one.
const MIN_BODY: usize = 20;

/// Bodies remembered, as many as just fill a table; forgetting only costs space, and memory must not grow with the part.
const MAX_KNOWN: usize = (1 << 18) / 8 * 7;

/// Where bodies lie.
#[derive(Debug, Default)]
pub(super) struct Copies {
    known: HashMap<[u8; 16], (u32, u32), foldhash::fast::RandomState>,
}

/// What a body is known by; none if it is too short to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// Takes the fingerprint of a body.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        if body.len() < MIN_BODY {
            return None;
        }
        digest(&SHA256, body).as_ref().first_chunk().copied().map(Self)
    }
}

impl Copies {
    /// The page and offset of a body with the same bytes.
    pub(super) fn find(&self, fingerprint: Option<Fingerprint>) -> Option<(u32, u32)> {
        self.known.get(&fingerprint?.0).copied()
    }

    /// Remembers where a body lies.
    pub(super) fn remember(&mut self, fingerprint: Option<Fingerprint>, at: (u32, u32)) {
        let Some(Fingerprint(fingerprint)) = fingerprint else { return };
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(fingerprint, at);
    }
}
