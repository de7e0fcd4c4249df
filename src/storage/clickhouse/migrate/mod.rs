//! The schema: which version is there, which we can use, and the way between.
//!
//! `schema/clickhouse` has a numbered text for each step. Each can be applied again, whole or from anywhere,
//! so that an interrupted one is simply applied anew, and two that are applied at once do no harm. What was
//! applied is written into `schema_migrations`, with the oldest version that still gets along with it:
//!
//! ```text
//!          the schema has    1     1 2     1 2 3 (from 2 on)
//! we know 1, need 1         fits   fits     too new for us
//! we know 2, need 1         fits   fits     fits
//! we know 3, need 2        apply!  fits     fits
//! ```
//!
//! So a rolling update applies first and replaces processes then, and a rollback is the other way round.

mod apply;
mod script;

use std::fmt::Write;

use xxhash_rust::xxh3::xxh3_64;

pub use apply::{MigrateError, Migrator};
pub use script::Target;

use super::tables::{quoted_name, quoted_text};

/// One step of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its number; they are applied in this order.
    pub version: u32,
    /// What it is about.
    pub name: &'static str,
    /// The oldest version whose processes get along with the schema once this is applied.
    pub min_compatible: u32,
    text: &'static str,
}

/// The steps a process knows, and those it cannot do without.
#[derive(Clone, Copy, Debug)]
pub struct Migrations {
    /// In order, numbered from 1.
    pub all: &'static [Migration],
    /// The process works with a schema of this version and later ones.
    pub needed: u32,
}

/// What this binary knows and needs.
pub const OURS: Migrations = Migrations {
    all: &[
        Migration {
            version: 1,
            name: "tables",
            min_compatible: 1,
            text: include_str!("../../../../schema/clickhouse/001_tables.sql"),
        },
        Migration {
            version: 2,
            name: "documents",
            min_compatible: 1,
            text: include_str!("../../../../schema/clickhouse/002_documents.sql"),
        },
        Migration {
            version: 3,
            name: "changes",
            min_compatible: 1,
            text: include_str!("../../../../schema/clickhouse/003_changes.sql"),
        },
    ],
    needed: 3,
};

/// A step that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its number.
    pub version: u32,
    /// What it is about.
    pub name: String,
    /// Of its text as it was applied.
    pub checksum: String,
    /// The oldest version whose processes get along with it.
    pub min_compatible: u32,
    /// When, in milliseconds since 1970.
    pub applied_ms: i64,
}

/// How the tables lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// On one server.
    Single,
    /// On the servers of a cluster.
    Cluster,
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The steps that were applied, in order; none if there is no schema.
    pub applied: Vec<Applied>,
    /// How its tables lie, if there are any.
    pub layout: Option<Layout>,
}

impl Migration {
    /// Tells this text from another; comments and blank lines do not count.
    pub fn checksum(&self) -> String {
        format!("{:016x}", xxh3_64(script::split(self.text).join(";\n").as_bytes()))
    }

    /// What applies it.
    pub fn statements(&self, target: &Target) -> Vec<String> {
        target.statements(self.text)
    }

    /// What says that it is applied. The values are ours.
    fn record(&self, target: &Target) -> String {
        format!(
            "INSERT INTO {}.schema_migrations (version, name, checksum, min_compatible)\nSELECT {}, {}, {}, {}",
            quoted_name(&target.database),
            self.version,
            quoted_text(self.name),
            quoted_text(&self.checksum()),
            self.min_compatible
        )
    }
}

/// What makes the place for tables, and for what is known of them.
fn foundation(target: &Target) -> Vec<String> {
    target.statements(include_str!("../../../../schema/clickhouse/000_foundation.sql"))
}

/// What makes each view anew after its database was renamed: a view goes on naming the tables by the name their
/// database had, and so takes nothing any more.
pub(super) fn renewed_views(target: &Target) -> Vec<String> {
    const MAKE: &str = "CREATE MATERIALIZED VIEW IF NOT EXISTS ";
    let views = OURS.all.iter().flat_map(|migration| migration.statements(target));
    let renewed = views.filter_map(|statement| {
        let name = statement.strip_prefix(MAKE)?.split_whitespace().next()?;
        Some([format!("DROP VIEW IF EXISTS {name} SYNC"), statement])
    });
    renewed.flatten().collect()
}

/// Every statement there is for a target, to be read or to be applied by hand.
pub fn script(target: &Target) -> String {
    let mut text = String::new();
    let mut section = |title: &str, statements: Vec<String>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "-- {title}");
        for statement in statements {
            let _ = writeln!(text, "{statement};\n");
        }
    };
    section("The database, and what was applied to it.", foundation(target));
    for migration in OURS.all {
        let mut statements = migration.statements(target);
        statements.push(migration.record(target));
        section(&format!("Version {}: {}.", migration.version, migration.name), statements);
    }
    text
}

impl Migrations {
    /// The last version known.
    pub fn last(&self) -> u32 {
        self.all.last().map_or(0, |migration| migration.version)
    }

    /// The steps that are not applied.
    pub fn pending(&self, state: &State) -> Vec<&'static Migration> {
        self.all.iter().filter(|ours| state.applied.iter().all(|a| a.version != ours.version)).collect()
    }

    /// Why a process that knows these steps cannot use what is there, and what to do; none if it can.
    pub fn problem(&self, state: &State, target: &Target) -> Option<String> {
        if state.applied.is_empty() {
            return Some(format!(
                "the schema is missing in database {}: run `luminate schema apply`",
                target.database
            ));
        }
        if let Some(problem) = state.layout_problem(target) {
            return Some(problem);
        }
        if let Some(oldest) = self.pending(state).first().filter(|pending| pending.version <= self.needed) {
            return Some(format!(
                "the schema is older than this Luminate needs, it lacks version {} ({}): run `luminate schema \
                 apply` of this Luminate",
                oldest.version, oldest.name
            ));
        }
        let compatible = state.applied.iter().map(|applied| applied.min_compatible).max().unwrap_or(0);
        (compatible > self.last()).then(|| {
            format!(
                "the schema is at version {} and can be used from version {compatible} on, but this Luminate \
                 knows version {}: run a later Luminate",
                state.version(),
                self.last()
            )
        })
    }

    /// Steps whose text was another one when they were applied.
    pub fn changed<'a>(&self, state: &'a State) -> Vec<&'a Applied> {
        let is_other = |applied: &&Applied| {
            self.all.iter().any(|ours| ours.version == applied.version && ours.checksum() != applied.checksum)
        };
        state.applied.iter().filter(is_other).collect()
    }
}

impl State {
    /// The last version applied; 0 if there is no schema.
    pub fn version(&self) -> u32 {
        self.applied.last().map_or(0, |applied| applied.version)
    }

    /// Why the tables cannot be used as the configuration says.
    fn layout_problem(&self, target: &Target) -> Option<String> {
        let database = &target.database;
        match (self.layout?, &target.cluster) {
            (Layout::Single, None) | (Layout::Cluster, Some(_)) => None,
            (Layout::Single, Some(cluster)) => Some(format!(
                "the tables in database {database} are those of a single server and not of the cluster {cluster}: \
                 take another database, or leave storage.clickhouse.cluster empty"
            )),
            (Layout::Cluster, None) => Some(format!(
                "the tables in database {database} are those of a cluster: name it in \
                 storage.clickhouse.cluster"
            )),
        }
    }
}

#[cfg(test)]
mod tests;
