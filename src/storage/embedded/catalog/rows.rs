//! The rows of the catalog and of the ledger, and their bytes.
//!
//! A [`Row`] knows its table, its key and its value; the key sorts the way the table is read. The bytes
//! are drawn in `schema/disk/catalog.md`.

use super::super::{
    chunk::{
        Damaged,
        bytes::{Reader, put_length, put_text, put_varint},
    },
    part::{PartId, PartMeta},
};
use crate::{
    model::{Exemplar, Labels, MatchOp, Matcher, Metadata, MetricType, TenantId, TimeRange, Timestamp},
    storage::MatcherSets,
};

/// The tables, by the byte that starts their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Deletions that are not done for good yet.
    Tombstones,
    /// The catalog's own generation.
    Generation,
    /// What is known of metrics.
    Metadata,
    /// Numbers by name.
    Cursors,
    /// The parts.
    Parts,
    /// The tenants.
    Tenants,
    /// Exemplars; in the ledger only.
    Exemplars,
}

impl Table {
    /// The byte that starts the table's keys.
    pub fn prefix(self) -> u8 {
        match self {
            Self::Tombstones => b'D',
            Self::Generation => b'G',
            Self::Metadata => b'M',
            Self::Cursors => b'N',
            Self::Parts => b'P',
            Self::Tenants => b'T',
            Self::Exemplars => b'X',
        }
    }
}

/// Something that has a place in a table.
pub trait Row: Sized {
    /// Where it belongs.
    const TABLE: Table;

    /// Its key, without the table's byte.
    fn key(&self) -> Vec<u8>;

    /// The rest of it.
    fn value(&self) -> Vec<u8>;

    /// Puts it together again.
    fn decode(key: &[u8], value: &[u8]) -> Result<Self, Damaged>;

    /// The whole key.
    fn full_key(&self) -> Vec<u8> {
        let mut key = vec![Self::TABLE.prefix()];
        key.extend(self.key());
        key
    }
}

/// A part, as far as it must be known before it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRow {
    /// The UTC day whose samples it holds, counted from the epoch.
    pub day: i64,
    /// Which part.
    pub id: PartId,
    /// The log position its samples cover.
    pub covers_wal: u64,
    /// Its first and last sample's time.
    pub range: Option<TimeRange>,
    /// Series of all tenants.
    pub series: u32,
    /// Float samples.
    pub samples: u64,
    /// Histogram samples.
    pub histograms: u64,
    /// The file's size.
    pub bytes: u64,
}

impl PartRow {
    /// The row of a part that lies in a day's directory.
    pub fn of(day: i64, meta: &PartMeta) -> Self {
        Self {
            day,
            id: meta.id,
            covers_wal: meta.covers_wal,
            range: meta.range,
            series: meta.series,
            samples: meta.samples,
            histograms: meta.histograms,
            bytes: meta.bytes,
        }
    }
}

impl Row for PartRow {
    const TABLE: Table = Table::Parts;

    fn key(&self) -> Vec<u8> {
        let day = self.day.cast_unsigned() ^ 1 << 63;
        [day.to_be_bytes(), self.id.0.to_be_bytes()].concat()
    }

    fn value(&self) -> Vec<u8> {
        let mut out = self.covers_wal.to_le_bytes().to_vec();
        match self.range {
            None => out.push(0),
            Some(range) => {
                out.push(1);
                put_range(&mut out, range);
            }
        }
        put_varint(&mut out, u64::from(self.series));
        for number in [self.samples, self.histograms, self.bytes] {
            put_varint(&mut out, number);
        }
        out
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Self, Damaged> {
        let halves: (&[u8; 8], &[u8]) = key.split_first_chunk().ok_or(Damaged("part's key is too short"))?;
        let day = (u64::from_be_bytes(*halves.0) ^ 1 << 63).cast_signed();
        let id = halves.1.try_into().map_err(|_| Damaged("part's key is of the wrong length"))?;
        let id = PartId(u64::from_be_bytes(id));
        let mut reader = Reader::new(value);
        let covers_wal = reader.u64()?;
        let range = match reader.u8()? {
            0 => None,
            1 => Some(take_range(&mut reader)?),
            _ => return Err(Damaged("range is neither there nor not")),
        };
        let series = reader.varint_u32()?;
        let (samples, histograms, bytes) = (reader.varint()?, reader.varint()?, reader.varint()?);
        ended(&reader)?;
        Ok(Self { day, id, covers_wal, range, series, samples, histograms, bytes })
    }
}

/// A tenant that has written something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRow {
    /// Its name.
    pub tenant: TenantId,
    /// When it first wrote.
    pub created: Timestamp,
}

impl Row for TenantRow {
    const TABLE: Table = Table::Tenants;

    fn key(&self) -> Vec<u8> {
        self.tenant.as_str().as_bytes().to_vec()
    }

    fn value(&self) -> Vec<u8> {
        self.created.0.to_le_bytes().to_vec()
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::new(value);
        let created = Timestamp(reader.i64()?);
        ended(&reader)?;
        Ok(Self { tenant: tenant(key)?, created })
    }
}

/// What is known of one of a tenant's metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataRow {
    /// Whose metric.
    pub tenant: TenantId,
    /// What is known of it.
    pub metadata: Metadata,
}

impl Row for MetadataRow {
    const TABLE: Table = Table::Metadata;

    fn key(&self) -> Vec<u8> {
        tenant_key(&self.tenant, self.metadata.metric.as_bytes())
    }

    fn value(&self) -> Vec<u8> {
        let mut out = vec![self.metadata.kind as u8];
        put_text(&mut out, &self.metadata.help);
        put_text(&mut out, &self.metadata.unit);
        out
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Self, Damaged> {
        let (tenant, metric) = split_tenant(key)?;
        let mut reader = Reader::new(value);
        let kind = MetricType::from_wire(i32::from(reader.u8()?));
        let (help, unit) = (reader.text()?.to_owned(), reader.text()?.to_owned());
        ended(&reader)?;
        let metric = text(metric)?.to_owned();
        Ok(Self { tenant, metadata: Metadata { metric, kind, help, unit } })
    }
}

/// A deletion: what matches one of the sets is hidden in the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Whose samples.
    pub tenant: TenantId,
    /// Tells a tenant's deletions apart, in the order they came.
    pub sequence: u64,
    /// Which series; no set at all is every series.
    pub matchers: MatcherSets,
    /// When.
    pub range: TimeRange,
}

impl Row for Tombstone {
    const TABLE: Table = Table::Tombstones;

    fn key(&self) -> Vec<u8> {
        tenant_key(&self.tenant, &self.sequence.to_be_bytes())
    }

    fn value(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_range(&mut out, self.range);
        put_length(&mut out, self.matchers.len());
        for set in &self.matchers {
            put_length(&mut out, set.len());
            for matcher in set {
                out.push(match matcher.op() {
                    MatchOp::Equal => 0,
                    MatchOp::NotEqual => 1,
                    MatchOp::Matches => 2,
                    MatchOp::NotMatches => 3,
                });
                put_text(&mut out, matcher.name());
                put_text(&mut out, matcher.value());
            }
        }
        out
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Self, Damaged> {
        let (tenant, sequence) = split_tenant(key)?;
        let sequence = sequence.try_into().map_err(|_| Damaged("tombstone's key is of the wrong length"))?;
        let sequence = u64::from_be_bytes(sequence);
        let mut reader = Reader::new(value);
        let range = take_range(&mut reader)?;
        let mut matchers = MatcherSets::new();
        for _ in 0..reader.count(1)? {
            let mut set = Vec::new();
            for _ in 0..reader.count(3)? {
                let op = match reader.u8()? {
                    0 => MatchOp::Equal,
                    1 => MatchOp::NotEqual,
                    2 => MatchOp::Matches,
                    3 => MatchOp::NotMatches,
                    _ => return Err(Damaged("matcher is of an unknown kind")),
                };
                let matcher = Matcher::new(op, reader.text()?, reader.text()?);
                set.push(matcher.map_err(|_| Damaged("matcher's pattern does not compile"))?);
            }
            matchers.push(set);
        }
        ended(&reader)?;
        Ok(Self { tenant, sequence, matchers, range })
    }
}

/// A number that must outlive the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// What it counts.
    pub name: String,
    /// How far it is.
    pub value: u64,
}

impl Row for Cursor {
    const TABLE: Table = Table::Cursors;

    fn key(&self) -> Vec<u8> {
        self.name.as_bytes().to_vec()
    }

    fn value(&self) -> Vec<u8> {
        self.value.to_le_bytes().to_vec()
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::new(value);
        let value = reader.u64()?;
        ended(&reader)?;
        Ok(Self { name: text(key)?.to_owned(), value })
    }
}

/// The exemplars of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct ExemplarRow {
    /// Whose series.
    pub tenant: TenantId,
    /// Which.
    pub series: Labels,
    /// In order of time.
    pub exemplars: Vec<Exemplar>,
}

impl Row for ExemplarRow {
    const TABLE: Table = Table::Exemplars;

    fn key(&self) -> Vec<u8> {
        tenant_key(&self.tenant, self.series.as_canonical().as_bytes())
    }

    fn value(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_length(&mut out, self.exemplars.len());
        for exemplar in &self.exemplars {
            out.extend_from_slice(&exemplar.timestamp.0.to_le_bytes());
            out.extend_from_slice(&exemplar.value.to_bits().to_le_bytes());
            put_text(&mut out, exemplar.labels.as_canonical());
        }
        out
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Self, Damaged> {
        let labels = |text: &str| {
            Labels::from_canonical(text).map_err(|_| Damaged("labels are not in canonical form"))
        };
        let (tenant, series) = split_tenant(key)?;
        let mut reader = Reader::new(value);
        let mut exemplars = Vec::new();
        for _ in 0..reader.count(17)? {
            let (timestamp, value) = (Timestamp(reader.i64()?), reader.f64()?);
            exemplars.push(Exemplar { labels: labels(reader.text()?)?, value, timestamp });
        }
        ended(&reader)?;
        Ok(Self { tenant, series: labels(text(series)?)?, exemplars })
    }
}

fn text(bytes: &[u8]) -> Result<&str, Damaged> {
    std::str::from_utf8(bytes).map_err(|_| Damaged("text is not UTF-8"))
}

fn tenant(bytes: &[u8]) -> Result<TenantId, Damaged> {
    TenantId::new(text(bytes)?).map_err(|_| Damaged("tenant's name is not one"))
}

/// A tenant's name has no zero byte, so the first one ends it.
fn tenant_key(tenant: &TenantId, rest: &[u8]) -> Vec<u8> {
    [tenant.as_str().as_bytes(), &[0], rest].concat()
}

fn split_tenant(key: &[u8]) -> Result<(TenantId, &[u8]), Damaged> {
    let end = key.iter().position(|byte| *byte == 0).ok_or(Damaged("key names no tenant"))?;
    Ok((tenant(&key[..end])?, &key[end + 1..]))
}

fn put_range(out: &mut Vec<u8>, range: TimeRange) {
    out.extend_from_slice(&range.start().0.to_le_bytes());
    out.extend_from_slice(&range.end().0.to_le_bytes());
}

fn take_range(reader: &mut Reader<'_>) -> Result<TimeRange, Damaged> {
    let (start, end) = (Timestamp(reader.i64()?), Timestamp(reader.i64()?));
    TimeRange::new(start, end).ok_or(Damaged("range ends before it starts"))
}

fn ended(reader: &Reader<'_>) -> Result<(), Damaged> {
    if reader.remaining() == 0 { Ok(()) } else { Err(Damaged("row is longer than its fields")) }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn check<R: Row + PartialEq + Debug>(row: &R) {
        let (key, value) = (row.key(), row.value());
        assert_eq!(R::decode(&key, &value).as_ref(), Ok(row));
        for end in 0..value.len() {
            assert!(R::decode(&key, &value[..end]).is_err(), "{end} of {row:?}");
        }
        for at in 0..value.len() {
            let mut flipped = value.clone();
            flipped[at] ^= 0x81;
            let _ = R::decode(&key, &flipped);
        }
        for at in 0..key.len() {
            let mut flipped = key.clone();
            flipped[at] ^= 0x81;
            let _ = R::decode(&flipped, &value);
            let _ = R::decode(&key[..at], &value);
        }
    }

    #[test]
    fn rows_come_back() {
        let tenant = TenantId::new("team-a").unwrap();
        check(&PartRow {
            day: -3,
            id: PartId(9),
            covers_wal: 1 << 40,
            range: Some(TimeRange::ALL),
            series: 3,
            samples: 1000,
            histograms: 0,
            bytes: 12_345,
        });
        check(&TenantRow { tenant: tenant.clone(), created: Timestamp(-1) });
        let metadata = Metadata {
            metric: "温度\u{0}".into(),
            kind: MetricType::StateSet,
            help: "how warm".into(),
            unit: "celsius".into(),
        };
        check(&MetadataRow { tenant: tenant.clone(), metadata });
        let matchers = vec![
            vec![Matcher::equal("a", "b"), Matcher::new(MatchOp::NotMatches, "c", "d.*|e").unwrap()],
            vec![],
            vec![Matcher::new(MatchOp::NotEqual, "", "").unwrap()],
        ];
        check(&Tombstone { tenant: tenant.clone(), sequence: 7, matchers, range: TimeRange::ALL });
        check(&Cursor { name: "retention".into(), value: u64::MAX });
        let series = Labels::from_pairs([("__name__", "up")]).unwrap();
        let labels = Labels::from_pairs([("trace_id", "abc")]).unwrap();
        let exemplars = vec![Exemplar { labels, value: 0.5, timestamp: Timestamp(12) }];
        check(&ExemplarRow { tenant, series, exemplars });
    }

    #[test]
    fn parts_sort_by_day_then_id() {
        let row = |day, id| PartRow {
            day,
            id: PartId(id),
            covers_wal: 0,
            range: None,
            series: 0,
            samples: 0,
            histograms: 0,
            bytes: 0,
        };
        let mut keys: Vec<Vec<u8>> =
            [row(1, 1), row(-1, 300), row(1, 256), row(0, 0)].iter().map(Row::full_key).collect();
        keys.sort();
        let days: Vec<(i64, u64)> = keys
            .iter()
            .map(|key| PartRow::decode(&key[1..], &row(0, 0).value()).unwrap())
            .map(|row| (row.day, row.id.0))
            .collect();
        assert_eq!(days, [(-1, 300), (0, 0), (1, 1), (1, 256)]);
    }
}
