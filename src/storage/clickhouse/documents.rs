//! Small texts of tenants: rows of a table that every server has, of which the latest counts.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use super::{
    client::{Insert, Servers, Statement},
    rowbinary::Write,
};
use crate::{
    clock::Clock,
    model::TenantId,
    storage::{DocumentKind, Result},
};

/// The table of documents.
#[derive(Debug)]
pub(super) struct Documents {
    servers: Arc<Servers>,
    clock: Arc<dyn Clock>,
    /// Tells our writes from those of other processes.
    seed: u64,
}

impl Documents {
    pub(super) fn new(servers: Arc<Servers>, clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self { servers, clock, seed }
    }

    pub(super) async fn put(
        &self,
        tenant: &TenantId,
        kind: DocumentKind,
        text: Option<String>,
    ) -> Result<()> {
        let mut rows = Vec::new();
        rows.string(tenant.as_str());
        rows.string(kind.as_str());
        rows.string(text.as_deref().unwrap_or_default());
        rows.u8(u8::from(text.is_none()));
        let token = self.token(&rows);
        let into = "documents (tenant, kind, body, removed)";
        Ok(self.servers.insert(&Insert { into, rows: Bytes::from(rows), token }).await?)
    }

    /// A name that this insert alone has: who writes the same text twice, with another between, means it.
    fn token(&self, rows: &[u8]) -> String {
        static PUTS: AtomicU64 = AtomicU64::new(0);
        let number = PUTS.fetch_add(1, Ordering::Relaxed);
        let who = format!("{} {} {} {number}", self.seed, std::process::id(), self.clock.now());
        format!("documents:{:032x}", xxh3_128(&[who.as_bytes(), rows].concat()))
    }

    pub(super) async fn all(&self, kind: DocumentKind) -> Result<Vec<(TenantId, String)>> {
        let sql = "SELECT tenant, body FROM documents FINAL WHERE kind = {kind:String} AND removed = 0 \
                   ORDER BY tenant";
        let statement = Statement::new(sql.to_owned()).param("kind", kind.as_str());
        let rows = self.servers.rows(&statement).await?;
        let rows = rows.all(|row| Ok((row.string()?, row.string()?))).await?;
        let named = |(name, text): (String, String)| match TenantId::new(&name) {
            Ok(tenant) => Some((tenant, text)),
            Err(error) => {
                tracing::warn!(%error, "a document is of nobody and left out");
                None
            }
        };
        Ok(rows.into_iter().filter_map(named).collect())
    }
}
