//! The schema: which version is there, which we need, and the way between.

use super::client::{Servers, Statement};
use crate::storage::{Result, StorageError};

/// Each migration, in order.
const MIGRATIONS: &[(u32, &str, &str)] =
    &[(1, "tables", include_str!("../../../schema/clickhouse/001_tables.sql"))];

/// Applies what is missing.
pub(super) async fn apply(servers: &Servers) -> Result<()> {
    for (_, _, text) in MIGRATIONS {
        for statement in statements(text) {
            servers.run(&Statement::new(statement)).await.map_err(StorageError::from)?;
        }
    }
    Ok(())
}

/// The statements of a migration, for a single node.
fn statements(text: &str) -> Vec<String> {
    let code: String = text.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
    let single = code.replace("{on_cluster}", "").replace("{dedup}", "non_replicated_deduplication_window");
    single.split(';').map(str::trim).filter(|s| !s.is_empty()).map(engine).collect()
}

/// Puts the engine's name where `{engine:table(arguments)}` stands.
fn engine(statement: &str) -> String {
    let Some((before, rest)) = statement.split_once("{engine:") else { return statement.to_owned() };
    let Some((table, after)) = rest.split_once('}') else { return statement.to_owned() };
    let arguments = table.split_once('(').map(|(_, rest)| format!("({rest}")).unwrap_or_default();
    format!("{before}ReplacingMergeTree{arguments}{after}")
}
