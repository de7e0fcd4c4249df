//! The memory that all queries share, so that many of them together do not take what the process does not have.
//!
//! A query takes of it in steps, each a quarter of what it has and at least [`STEP`], and gives steps back when it lets
//! go of samples. Tenants share it ([`Shares`]): where there are several, none holds more than it leaves for the others.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;

use super::{QueryError, ticket::Ticket};
use crate::{
    model::{ByteSize, TenantId},
    task::shares::{Held, Shares},
};

/// The least that is taken at a time.
const STEP: u64 = 1 << 20;

/// The memory that all queries share.
#[derive(Debug)]
pub struct Memory {
    most: u64,
    held: AtomicU64,
    by_tenant: Shares<TenantId>,
}

/// What one query holds of it, until it is dropped.
#[derive(Debug)]
pub struct Share {
    memory: Arc<Memory>,
    tenant: TenantId,
    ticket: Arc<Ticket>,
    /// What was taken, so that a look at whether something fits takes no lock.
    taken: AtomicU64,
    steps: Mutex<Vec<Held<TenantId>>>,
}

/// Bytes of it, given back when dropped.
#[derive(Debug)]
pub struct Reserved {
    memory: Arc<Memory>,
    held: Option<Held<TenantId>>,
}

impl Memory {
    /// So many bytes.
    pub fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { most, held: AtomicU64::new(0), by_tenant: Shares::new() })
    }

    /// Bytes that queries hold.
    pub fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// Bytes that they may hold.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// The share of a query, which holds nothing yet.
    pub fn share(self: &Arc<Self>, tenant: &TenantId, ticket: &Arc<Ticket>) -> Share {
        Share {
            memory: Arc::clone(self),
            tenant: tenant.clone(),
            ticket: Arc::clone(ticket),
            taken: AtomicU64::new(0),
            steps: Mutex::default(),
        }
    }

    /// Bytes for an answer, until they are dropped.
    pub fn reserve(self: &Arc<Self>, tenant: &TenantId, bytes: u64) -> Result<Reserved, QueryError> {
        let held = self.take(tenant, bytes).ok_or_else(|| self.full(bytes))?;
        Ok(Reserved { memory: Arc::clone(self), held: Some(held) })
    }

    fn full(&self, bytes: u64) -> QueryError {
        // Of two tenants each can have half at most.
        QueryError::Memory { most: ByteSize(self.most), for_good: bytes > self.most / 2 }
    }

    fn take(&self, tenant: &TenantId, bytes: u64) -> Option<Held<TenantId>> {
        let room = |held: u64| held.checked_add(bytes).filter(|held| *held <= self.most);
        let held = self.held.fetch_update(Relaxed, Relaxed, room).ok()?;
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let step = self.by_tenant.take(tenant, size(bytes), size(self.most - held));
        if step.is_none() {
            self.held.fetch_sub(bytes, Relaxed);
        }
        step
    }

    fn give_back(&self, step: Held<TenantId>) -> u64 {
        let bytes = u64::try_from(step.amount()).unwrap_or(u64::MAX);
        drop(step);
        self.held.fetch_sub(bytes, Relaxed);
        bytes
    }
}

impl Share {
    /// Makes room for `bytes` in all.
    #[inline]
    pub fn fit(&self, bytes: u64) -> Result<(), QueryError> {
        if bytes <= self.taken.load(Relaxed) { Ok(()) } else { self.grow(bytes) }
    }

    /// Gives back what is not needed for `bytes`; what is little is kept.
    #[inline]
    pub fn shrink(&self, bytes: u64) {
        if self.taken.load(Relaxed).saturating_sub(bytes) > 8 * STEP {
            self.give_back(bytes);
        }
    }

    /// Fails if somebody stopped the query.
    #[inline]
    pub fn check(&self) -> Result<(), QueryError> {
        self.ticket.check("expression evaluation")
    }

    fn grow(&self, bytes: u64) -> Result<(), QueryError> {
        let mut steps = self.steps.lock();
        let taken = self.taken.load(Relaxed);
        let Some(missing) = bytes.checked_sub(taken).filter(|missing| *missing > 0) else { return Ok(()) };
        // If there is no room to be generous, what is needed may yet fit.
        let step = self.memory.take(&self.tenant, missing.max(taken / 4).max(STEP));
        let step = step
            .or_else(|| self.memory.take(&self.tenant, missing))
            .ok_or_else(|| self.memory.full(bytes))?;
        let grown = u64::try_from(step.amount()).unwrap_or(u64::MAX);
        steps.push(step);
        self.taken.fetch_add(grown, Relaxed);
        self.ticket.grew(grown);
        Ok(())
    }

    fn give_back(&self, bytes: u64) {
        let mut steps = self.steps.lock();
        while let Some(last) = steps.last() {
            let last = u64::try_from(last.amount()).unwrap_or(u64::MAX);
            if self.taken.load(Relaxed).saturating_sub(last) < bytes {
                return;
            }
            if let Some(step) = steps.pop() {
                let given = self.memory.give_back(step);
                self.taken.fetch_sub(given, Relaxed);
                self.ticket.shrank(given);
            }
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.memory.give_back(held);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn share(memory: &Arc<Memory>, name: &str) -> Share {
        memory.share(&tenant(name), &Arc::default())
    }

    #[test]
    fn what_is_let_go_is_there_for_others() {
        let memory = Memory::new(100 * STEP);
        let (a, b) = (share(&memory, "a"), share(&memory, "a"));
        a.fit(90 * STEP).unwrap();
        assert!(memory.held() >= 90 * STEP && a.ticket.bytes() == memory.held());
        let refused = b.fit(20 * STEP).unwrap_err();
        assert!(matches!(refused, QueryError::Memory { for_good: false, .. }), "{refused}");
        assert_eq!(refused.to_string(), "over the limit query.max_memory of 100MiB, which all queries share");
        a.shrink(0);
        assert_eq!((memory.held(), a.ticket.bytes()), (0, 0));
        b.fit(20 * STEP).unwrap();
        drop((a, b));
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn more_than_there_is_will_never_fit() {
        let memory = Memory::new(10 * STEP);
        let refused = share(&memory, "a").fit(11 * STEP).unwrap_err();
        assert!(matches!(refused, QueryError::Memory { for_good: true, .. }));
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn a_tenant_leaves_as_much_as_it_has() {
        let memory = Memory::new(100 * STEP);
        let (a, b) = (share(&memory, "a"), share(&memory, "b"));
        b.fit(STEP).unwrap();
        let mut most = 0;
        while a.fit((most + 1) * STEP).is_ok() {
            most += 1;
        }
        assert!((40..=50).contains(&most), "{most}");
        b.fit(20 * STEP).unwrap();
    }
}
