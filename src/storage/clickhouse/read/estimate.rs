//! How much a selection would read: series as they are found, and the rows of their samples, which are counted by
//! their keys alone.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    Reads,
    units::{self, Unit},
};
use crate::{
    model::{Histogram, TenantId},
    storage::{Estimate, Result, SelectRequest, clickhouse::client::Statement, selection::label_bytes},
};

/// Statements of an estimate that run at a time.
const AT_A_TIME: usize = 4;

impl Reads {
    pub(in crate::storage::clickhouse) async fn estimate(
        &self,
        tenant: &TenantId,
        request: SelectRequest,
    ) -> Result<Estimate> {
        let Some(range) = self.kept(tenant, request.range) else { return Ok(Estimate::default()) };
        let found = self.find(tenant, &request.sets(), range, (None, None)).await?;
        let mut sum = Estimate {
            series: found.series.len() as u64,
            label_bytes: found.series.iter().map(|series| label_bytes(&series.labels)).sum(),
            ..Estimate::default()
        };
        let counts = units::units(&found, found.range, None).into_iter().map(|unit| self.count(tenant, unit));
        let counts: Vec<Estimate> = stream::iter(counts).buffered(AT_A_TIME).try_collect().await?;
        counts.iter().for_each(|of_unit| sum.add(of_unit));
        Ok(sum)
    }

    /// Counts the rows of a unit.
    async fn count(&self, tenant: &TenantId, unit: Unit) -> Result<Estimate> {
        let statement = |columns: &str, table: &str| {
            let sql = format!("SELECT {columns} FROM {table} WHERE {}", unit.filter());
            unit.bind(Statement::new(sql), tenant)
        };
        let floats = statement("count()", "samples");
        let histograms = statement(
            "count(), toUInt64(sum(length(pos_spans) + length(neg_spans) + length(pos_counts) \
             + length(neg_counts) + length(custom_values)))",
            "histograms",
        );
        let floats = async { self.servers.rows(&floats).await?.all(|row| row.u64()).await };
        let histograms =
            async { self.servers.rows(&histograms).await?.all(|row| Ok((row.u64()?, row.u64()?))).await };
        let (floats, histograms) = tokio::try_join!(floats, histograms)?;
        let (histograms, numbers) = histograms.first().copied().unwrap_or((0, 0));
        let fixed = histograms.saturating_mul(size_of::<Histogram>() as u64);
        Ok(Estimate {
            floats: floats.first().copied().unwrap_or(0),
            histograms,
            histogram_bytes: fixed.saturating_add(numbers.saturating_mul(8)),
            ..Estimate::default()
        })
    }
}
