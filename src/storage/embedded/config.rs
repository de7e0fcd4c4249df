//! How an embedded store is set up.

use std::{path::PathBuf, time::Duration};

use crate::model::{Matcher, TenantId};

/// How an embedded store is set up.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Samples older than this are refused and removed; none keeps them for ever.
    pub retention: Option<Duration>,
    /// Tenants whose samples are kept for another time.
    pub tenant_retention: Vec<(TenantId, Option<Duration>)>,
    /// Series that are kept for a time of their own; of the rules that are about one, the first holds.
    pub retention_rules: Vec<KeepRule>,
    /// Series that are kept in fewer samples when they are old; of the rules that are about one, the first holds, and
    /// those with it that are about the same.
    pub downsampling: Vec<DownsampleRule>,
    /// When the log is made durable.
    pub wal_sync: WalSync,
    /// The log is written in files of this size.
    pub segment_bytes: u64,
    /// The head is flushed when the log has grown by so much.
    pub flush_wal_bytes: u64,
    /// The head is flushed after this time.
    pub flush_interval: Duration,
    /// What heads, pages of parts and others in this process may have of memory together.
    pub memory_bytes: u64,
    /// The head is flushed when it takes about so much memory; at twice that, writes are refused.
    pub head_bytes: u64,
    /// Bytes that may wait to be written to the log; more is refused.
    pub queue_bytes: usize,
    /// Space held back for working on a full disk.
    pub ballast_bytes: u64,
    /// Exemplars kept for each tenant; beyond, the oldest go.
    pub exemplars_per_tenant: usize,
    /// Memory for each tenant's metadata; beyond, what is new is refused.
    pub metadata_bytes_per_tenant: usize,
    /// Memory for pages of parts that were read.
    pub page_cache_bytes: usize,
    /// So many neighbouring parts of about a size are merged into one while their day lasts.
    pub merge_at: usize,
}

impl EmbeddedConfig {
    /// This in a process that plans with so much memory: in a small one, heads and pages are kept small, too.
    #[must_use]
    pub fn within(self, memory_bytes: u64) -> Self {
        let pages = usize::try_from(memory_bytes / 8).unwrap_or(usize::MAX);
        Self {
            memory_bytes,
            head_bytes: self.head_bytes.min(memory_bytes / 4),
            page_cache_bytes: self.page_cache_bytes.min(pages),
            ..self
        }
    }

    /// The defaults, in a directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            retention: Some(Duration::from_secs(30 * 86_400)),
            tenant_retention: Vec::new(),
            retention_rules: Vec::new(),
            downsampling: Vec::new(),
            wal_sync: WalSync::Commit,
            segment_bytes: 64 << 20,
            flush_wal_bytes: 128 << 20,
            flush_interval: Duration::from_secs(2 * 3600),
            memory_bytes: u64::MAX,
            head_bytes: 512 << 20,
            queue_bytes: 64 << 20,
            ballast_bytes: 64 << 20,
            exemplars_per_tenant: 100_000,
            metadata_bytes_per_tenant: 32 << 20,
            page_cache_bytes: 64 << 20,
            merge_at: 8,
        }
    }
}

/// How long some series are kept.
#[derive(Clone, Debug)]
pub struct KeepRule {
    /// Whose they are; none is everybody's.
    pub tenant: Option<TenantId>,
    /// All of these they pass.
    pub matchers: Vec<Matcher>,
    /// So long they are kept; none is for ever.
    pub keep: Option<Duration>,
}

/// How fine some series are kept when they are old.
#[derive(Clone, Debug)]
pub struct DownsampleRule {
    /// Whose they are; none is everybody's.
    pub tenant: Option<TenantId>,
    /// All of these they pass.
    pub matchers: Vec<Matcher>,
    /// A day is downsampled so long after its end.
    pub after: Duration,
    /// The windows of which samples are put together. It divides a day.
    pub resolution: Duration,
}

impl DownsampleRule {
    /// Whether it is another step of the same series: of the same tenant, and with the same matchers in any order.
    pub(crate) fn is_of_the_same(&self, other: &Self) -> bool {
        self.tenant == other.tenant && texts_of(&self.matchers) == texts_of(&other.matchers)
    }

    /// Says what keeps rules about the same series from being steps, the older the coarser.
    pub fn check_steps(rules: &[Self]) -> Result<(), String> {
        for (i, one) in rules.iter().enumerate() {
            for other in rules[i + 1..].iter().filter(|other| one.is_of_the_same(other)) {
                let (sooner, later) = if one.after < other.after { (one, other) } else { (other, one) };
                if sooner.after == later.after || later.resolution <= sooner.resolution {
                    let rule = "the longer after, the coarser the resolution has to be";
                    return Err(format!("has two rules about the same series that do not fit: {rule}"));
                }
                if !later.resolution.as_millis().is_multiple_of(sooner.resolution.as_millis().max(1)) {
                    let rule = "a coarser resolution has to be a multiple of the finer one";
                    return Err(format!("has two rules about the same series that do not fit: {rule}"));
                }
            }
        }
        Ok(())
    }
}

/// Matchers as texts that are the same for the same ones, however they were written.
pub(crate) fn texts_of(matchers: &[Matcher]) -> Vec<String> {
    let mut texts: Vec<String> = matchers.iter().map(ToString::to_string).collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

/// When the log is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalSync {
    /// Before a write is answered.
    Commit,
    /// Every so often: a power cut may cost what was answered since, the end of the process nothing.
    Interval(Duration),
    /// When the operating system likes.
    Os,
}
