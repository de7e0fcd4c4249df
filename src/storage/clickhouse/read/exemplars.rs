//! The exemplars of matching series.

use std::collections::HashMap;

use super::{
    Reads,
    series::{Found, SCOPE, days, read_labels},
};
use crate::{
    model::{Exemplar, TenantId, TimeRange, Timestamp},
    storage::{MatcherSets, Result, SeriesExemplars, clickhouse::client::Statement},
};

/// Series that the statement names one by one.
const MAX_NAMED: usize = 2_000;

/// What an exemplar takes besides the bytes of its labels.
const EXEMPLAR_BYTES: usize = 64;

impl Reads {
    pub(in crate::storage::clickhouse) async fn exemplars(
        &self,
        tenant: &TenantId,
        matchers: MatcherSets,
        range: TimeRange,
    ) -> Result<Vec<SeriesExemplars>> {
        let Some(range) = self.kept(tenant, range) else { return Ok(Vec::new()) };
        let found = self.find(tenant, &matchers, range, (None, None)).await?;
        if found.series.is_empty() {
            return Ok(Vec::new());
        }
        let places: HashMap<(u64, u64), u32> =
            (0..).zip(&found.series).map(|(place, series)| ((series.mid, series.sid), place)).collect();
        let mut exemplars = vec![Vec::new(); found.series.len()];
        let mut room = self.room();
        let mut rows = self.servers.rows(&statement(tenant, &found)).await?;
        while let Some((id, exemplar)) = rows
            .next(|row| {
                let (id, timestamp) = ((row.u64()?, row.u64()?), Timestamp(row.i64()?));
                let value = row.f64()?;
                Ok((id, Exemplar { labels: read_labels(row)?, value, timestamp }))
            })
            .await?
        {
            let Some(place) = places.get(&id) else { continue };
            let ranges = found.hidden.get(place);
            let hidden =
                ranges.is_some_and(|ranges| ranges.iter().any(|range| range.contains(exemplar.timestamp)));
            if let Some(all) = usize::try_from(*place).ok().and_then(|place| exemplars.get_mut(place))
                && !hidden
            {
                if room.take(exemplar.labels.as_canonical().len() + EXEMPLAR_BYTES).is_break() {
                    break;
                }
                all.push(exemplar);
            }
        }
        room.check()?;
        let settled = found.series.into_iter().zip(exemplars).filter(|(_, all)| !all.is_empty());
        Ok(settled
            .map(|(series, all)| SeriesExemplars { series: series.labels, exemplars: settled_once(all) })
            .collect())
    }
}

fn statement(tenant: &TenantId, found: &Found) -> Statement {
    let named = found.series.len() <= MAX_NAMED;
    let which = if named {
        "mid IN {mids:Array(UInt64)} AND sid IN {sids:Array(UInt64)}".to_owned()
    } else {
        format!("(mid, sid) IN (SELECT mid, sid FROM series WHERE {SCOPE} AND {})", found.condition.sql())
    };
    let sql = format!(
        "SELECT mid, sid, ts, value, labels FROM exemplars \
         WHERE tenant = {{tenant:String}} AND ts BETWEEN {{from:Int64}} AND {{to:Int64}} AND {which}"
    );
    let statement = Statement::new(sql)
        .param("tenant", tenant.as_str())
        .param("from", found.range.start().0)
        .param("to", found.range.end().0);
    if named {
        let mut mids: Vec<u64> = found.series.iter().map(|series| series.mid).collect();
        mids.sort_unstable();
        mids.dedup();
        let sids: Vec<u64> = found.series.iter().map(|series| series.sid).collect();
        statement.param("mids", mids).param("sids", sids)
    } else {
        let (from, to) = days(found.range);
        found.condition.bind(statement.param("day_from", u64::from(from)).param("day_to", u64::from(to)))
    }
}

/// In time order, the same one once.
fn settled_once(mut all: Vec<Exemplar>) -> Vec<Exemplar> {
    let key = |e: &Exemplar| (e.timestamp, e.value.to_bits());
    all.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.labels.cmp(&b.labels)));
    all.dedup_by(|a, b| key(a) == key(b) && a.labels == b.labels);
    all
}
