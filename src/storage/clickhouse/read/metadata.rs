//! What writers said about metrics: for each the latest.

use super::Reads;
use crate::{
    model::{Metadata, MetricType, TenantId},
    storage::{Result, clickhouse::client::Statement},
};

impl Reads {
    pub(in crate::storage::clickhouse) async fn metadata(
        &self,
        tenant: &TenantId,
        metric: Option<&str>,
    ) -> Result<Vec<Metadata>> {
        let which = if metric.is_some() { " AND family = {family:String}" } else { "" };
        let sql = format!(
            "SELECT family, argMax((type, unit, help), (updated, type, unit, help)) AS latest FROM metadata \
             WHERE tenant = {{tenant:String}}{which} GROUP BY family ORDER BY family"
        );
        let mut statement = Statement::new(sql).param("tenant", tenant.as_str());
        if let Some(metric) = metric {
            statement = statement.param("family", metric);
        }
        let rows = self.servers.rows(&statement).await?;
        let row = rows.all(|row| {
            let (metric, kind) = (row.string()?, row.string()?);
            let kind = MetricType::ALL.into_iter().find(|known| known.as_str() == kind).unwrap_or_default();
            Ok(Metadata { metric, kind, unit: row.string()?, help: row.string()? })
        });
        Ok(row.await?)
    }
}
