//! How the tables lie on one server, and on the servers of a cluster.
//!
//! Whoever reads or writes rows names `samples`, `series`, … and need not know: on a single server that is
//! the table itself, on a cluster one that stands for `samples_local` on every shard, and [`SETTINGS`] make
//! that as durable and as exact. Only what changes a table, or asks about its parts, goes where they are.

/// What every statement on data carries, whether the tables are those of a cluster or not.
///
/// Rows are at their shards when an insert returns; groups and joins by series stay within a shard, which
/// has all of a series.
pub(super) const SETTINGS: [(&str, &str); 3] = [
    ("distributed_foreground_insert", "1"),
    ("optimize_distributed_group_by_sharding_key", "1"),
    ("distributed_product_mode", "local"),
];

/// The time after which the key of the samples goes back to the first metric.
pub(super) const BUCKET_MS: i64 = 7_200_000;

/// The bucket a time lies in, as `intDiv(ts, 7200000)` has it: those on both sides of 1970 are the same one.
pub(super) fn bucket(ts: i64) -> i64 {
    ts / BUCKET_MS
}

/// Where the rows themselves are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tables {
    database: String,
    cluster: Option<String>,
}

impl Tables {
    pub(super) fn new(database: &str, cluster: Option<&str>) -> Self {
        Self { database: database.to_owned(), cluster: cluster.map(str::to_owned) }
    }

    /// What holds the rows of `table`, on every server that has some, for statements that change it.
    pub(super) fn rows_of(&self, table: &str) -> String {
        let database = quoted_name(&self.database);
        match self.cluster {
            Some(_) => format!("{database}.{table}_local{}", self.on_cluster()),
            None => format!("{database}.{table}"),
        }
    }

    /// What follows a table's name where every server has to do the same; it begins with a space.
    pub(super) fn on_cluster(&self) -> String {
        self.cluster.as_deref().map_or_else(String::new, |name| format!(" ON CLUSTER {}", quoted_text(name)))
    }

    /// A table of `system`, of one replica of each shard: their parts together are all there is, once.
    pub(super) fn of_shards(&self, table: &str) -> String {
        match &self.cluster {
            Some(name) => format!("cluster({}, system.{table})", quoted_text(name)),
            None => format!("system.{table}"),
        }
    }

    /// A table of `system`, of every server.
    pub(super) fn of_servers(&self, table: &str) -> String {
        match &self.cluster {
            Some(name) => format!("clusterAllReplicas({}, system.{table})", quoted_text(name)),
            None => format!("system.{table}"),
        }
    }
}

/// A name of the configuration as a name of a statement.
pub(super) fn quoted_name(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// A name of the configuration as a string of a statement.
pub(super) fn quoted_text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_keeps_its_rows_in_other_tables() {
        let (single, cluster) = (Tables::new("d", None), Tables::new("d", Some("main")));
        assert_eq!(single.rows_of("samples"), "`d`.samples");
        assert_eq!(cluster.rows_of("samples"), "`d`.samples_local ON CLUSTER 'main'");
        assert_eq!((single.on_cluster(), cluster.on_cluster()), (String::new(), " ON CLUSTER 'main'".into()));
        assert_eq!(single.of_shards("parts"), "system.parts");
        assert_eq!(cluster.of_shards("parts"), "cluster('main', system.parts)");
        assert_eq!(cluster.of_servers("replicas"), "clusterAllReplicas('main', system.replicas)");
    }

    #[test]
    fn a_name_stays_within_its_quotes() {
        assert_eq!(quoted_name(r"a`b\"), r"`a\`b\\`");
        assert_eq!(quoted_text(r"a'b\"), r"'a\'b\\'");
    }
}
