//! How the tables lie on one server, and on the servers of a cluster.
//!
//! Whoever reads or writes rows names `samples`, `series`, … and need not know: on a single server that is
//! the table itself, on a cluster one that stands for `samples_local` on every shard, and [`SETTINGS`] make
//! that as durable and as exact. Only what changes a table, or asks about its parts, goes where they are.

/// What every statement on data carries, whether the tables are those of a cluster or not.
///
/// Rows are at their shards when an insert returns; groups and joins by series stay within a shard, which
/// has all of a series.
pub const SETTINGS: [(&str, &str); 3] = [
    ("distributed_foreground_insert", "1"),
    ("optimize_distributed_group_by_sharding_key", "1"),
    ("distributed_product_mode", "local"),
];

/// Where the rows themselves are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tables {
    cluster: Option<String>,
}

impl Tables {
    pub(super) fn new(cluster: Option<&str>) -> Self {
        Self { cluster: cluster.map(str::to_owned) }
    }

    /// The table on each server that holds the rows of `table`, to change it with
    /// [`on_cluster`](Self::on_cluster) behind it.
    pub(super) fn local(&self, table: &str) -> String {
        match self.cluster {
            Some(_) => format!("{table}_local"),
            None => table.to_owned(),
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
        let (single, cluster) = (Tables::new(None), Tables::new(Some("main")));
        assert_eq!(
            (single.local("samples"), cluster.local("samples")),
            ("samples".into(), "samples_local".into())
        );
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
