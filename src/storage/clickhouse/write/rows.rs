//! Rows in RowBinary, table by table.

use crate::{
    model::{Exemplar, Histogram, Labels, Metadata, Millis, SeriesId},
    storage::clickhouse::{histogram, rowbinary::Write, tables::bucket},
};

/// A table that takes what is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Table {
    Samples,
    Histograms,
    Exemplars,
    Series,
    Metadata,
}

impl Table {
    /// The table and its columns, in the order the rows have them.
    pub(super) fn into(self) -> &'static str {
        match self {
            Self::Samples => "samples (tenant, mid, sid, ts, value, start_ts, ret)",
            Self::Histograms => {
                "histograms (tenant, mid, sid, ts, start_ts, ret, kind, reset_hint, schema, zero_threshold, \
                 zero_count, count, sum, pos_spans, pos_counts, neg_spans, neg_counts, custom_values)"
            }
            Self::Exemplars => "exemplars (tenant, mid, sid, ts, value, labels, ret)",
            Self::Series => "series (tenant, day, metric, mid, sid, labels, ret)",
            Self::Metadata => "metadata (tenant, family, type, unit, help)",
        }
    }
}

/// At about how many bytes rows can be cut apart again.
const JOINT_EVERY: usize = 64 << 10;

/// Encoded rows, and where they can be cut apart.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) rows: usize,
    pub(super) joints: Vec<usize>,
}

impl Body {
    /// Says that a row ends here.
    #[inline]
    pub(super) fn end_row(&mut self) {
        self.rows += 1;
        if self.bytes.len() - self.joints.last().copied().unwrap_or(0) >= JOINT_EVERY {
            self.joints.push(self.bytes.len());
        }
    }

    /// Adds rows to these.
    pub(super) fn append(&mut self, other: &Self) {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.joints.extend(other.joints.iter().map(|joint| from + joint));
        self.rows += other.rows;
        let end = self.bytes.len();
        if end - self.joints.last().copied().unwrap_or(0) >= JOINT_EVERY {
            self.joints.push(end);
        }
    }
}

/// A sample, small enough to be sorted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) id: SeriesId,
    pub(super) ts: i64,
    pub(super) value: f64,
    pub(super) start: i64,
}

impl Sample {
    /// What the server sorts by.
    #[inline]
    pub(super) fn key(&self) -> (i64, SeriesId, i64, u64) {
        (bucket(self.ts), self.id, self.ts, self.value.to_bits())
    }

    /// Bytes of a row, the tenant's name aside.
    pub(super) const ROW: usize = 42;

    /// Writes a row of `samples`.
    #[inline]
    pub(super) fn put(&self, rows: &mut Vec<u8>, tenant: &[u8], ret: u16) {
        // One small copy instead of six.
        let mut row = [0; Self::ROW];
        row[..8].copy_from_slice(&mid(self.id).to_le_bytes());
        row[8..16].copy_from_slice(&self.id.hash64().to_le_bytes());
        row[16..24].copy_from_slice(&self.ts.to_le_bytes());
        row[24..32].copy_from_slice(&self.value.to_le_bytes());
        row[32..40].copy_from_slice(&self.start.to_le_bytes());
        row[40..].copy_from_slice(&ret.to_le_bytes());
        rows.raw(tenant);
        rows.raw(&row);
    }
}

/// The hash of the metric's name, the upper half of a series' id.
pub(super) fn mid(id: SeriesId) -> u64 {
    (id.0 >> 64) as u64
}

/// The day a time lies in, within what ClickHouse's Date can hold.
pub(super) fn day(ts: i64) -> u16 {
    u16::try_from(ts.div_euclid(Millis::DAY.0).clamp(0, i64::from(u16::MAX))).unwrap_or(u16::MAX)
}

/// A tenant's name as every row begins with it.
pub(super) fn tenant_bytes(tenant: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.string(tenant);
    bytes
}

/// Writes a row of `histograms`.
pub(super) fn put_histogram(
    rows: &mut Vec<u8>,
    tenant: &[u8],
    id: SeriesId,
    (ts, start): (i64, i64),
    value: &Histogram,
    ret: u16,
) {
    rows.raw(tenant);
    rows.u64(mid(id));
    rows.u64(id.hash64());
    rows.i64(ts);
    rows.i64(start);
    rows.u16(ret);
    histogram::put(rows, value);
}

/// Writes a row of `exemplars`.
pub(super) fn put_exemplar(rows: &mut Vec<u8>, tenant: &[u8], id: SeriesId, exemplar: &Exemplar, ret: u16) {
    rows.raw(tenant);
    rows.u64(mid(id));
    rows.u64(id.hash64());
    rows.i64(exemplar.timestamp.0);
    rows.f64(exemplar.value);
    put_labels(rows, &exemplar.labels);
    rows.u16(ret);
}

/// Writes a row of `series`.
pub(super) fn put_series(
    rows: &mut Vec<u8>,
    tenant: &[u8],
    day: u16,
    id: SeriesId,
    labels: &Labels,
    ret: u16,
) {
    rows.raw(tenant);
    rows.u16(day);
    rows.string(labels.metric_name().unwrap_or_default());
    rows.u64(mid(id));
    rows.u64(id.hash64());
    put_labels(rows, labels);
    rows.u16(ret);
}

/// Writes a row of `metadata`.
pub(super) fn put_metadata(rows: &mut Vec<u8>, tenant: &[u8], metadata: &Metadata) {
    rows.raw(tenant);
    rows.string(&metadata.metric);
    rows.string(metadata.kind.as_str());
    rows.string(&metadata.unit);
    rows.string(&metadata.help);
}

fn put_labels(rows: &mut Vec<u8>, labels: &Labels) {
    rows.length(labels.len());
    for (name, value) in labels {
        rows.string(name);
        rows.string(value);
    }
}
