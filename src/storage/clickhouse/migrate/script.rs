//! From a migration's text to statements for a single server or a cluster.
//!
//! The text is ours, and so is what is put into it: the database and the cluster, which the configuration
//! allows only plain names. `001_tables.sql` explains each `{placeholder}`.

use std::fmt::Write;

use crate::storage::clickhouse::{
    config::ClickHouseConfig,
    tables::{Tables, quoted_name, quoted_text},
};

/// For what the statements are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The database.
    pub database: String,
    /// The cluster, if it is one.
    pub cluster: Option<String>,
}

impl Target {
    /// What a configuration is for.
    pub fn of(config: &ClickHouseConfig) -> Self {
        Self { database: config.database.clone(), cluster: config.cluster.clone() }
    }

    /// Where the rows are.
    pub(in crate::storage::clickhouse) fn tables(&self) -> Tables {
        Tables::new(&self.database, self.cluster.as_deref())
    }

    /// The statements of a text, for this target.
    pub(super) fn statements(&self, text: &str) -> Vec<String> {
        split(text).iter().filter_map(|statement| self.filled(statement)).collect()
    }

    /// The statement with its placeholders filled; none if it is for clusters only and this is none, or the other way.
    fn filled(&self, statement: &str) -> Option<String> {
        let only = [("{cluster_only}", true), ("{single_only}", false)];
        let only = only.iter().find_map(|(mark, cluster)| Some((statement.strip_prefix(mark)?, *cluster)));
        let statement = match only {
            Some((_, cluster)) if cluster != self.cluster.is_some() => return None,
            Some((rest, _)) => rest.trim_start(),
            None => statement,
        };
        let mut filled = String::with_capacity(statement.len() * 2);
        let mut rest = statement;
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            match after.split_once('}') {
                Some((name, after)) => {
                    self.fill(name, &mut filled);
                    rest = after;
                }
                None => {
                    filled.push('{');
                    rest = after;
                }
            }
        }
        filled.push_str(rest);
        Some(filled)
    }

    fn fill(&self, placeholder: &str, into: &mut String) {
        let cluster = self.cluster.as_deref();
        let (kind, table) = placeholder.split_once(':').unwrap_or((placeholder, ""));
        match kind {
            "db" => into.push_str(&quoted_name(&self.database)),
            "db_text" => into.push_str(&quoted_text(&self.database)),
            "on_cluster" => into.push_str(&self.tables().on_cluster()),
            "cluster" => into.push_str(&quoted_text(cluster.unwrap_or_default())),
            "local" => into.push_str(if cluster.is_some() { "_local" } else { "" }),
            "dedup" if cluster.is_some() => into.push_str("replicated_deduplication_window"),
            "dedup" => into.push_str("non_replicated_deduplication_window"),
            "engine" => engine(table, cluster.map(|_| ("{shard}", "{replica}")), into),
            // One table on all servers: as if they were one shard with the cluster's name.
            "everywhere" => engine(table, cluster.map(|name| (name, "{shard}-{replica}")), into),
            // A macro of the servers.
            _ => {
                into.push('{');
                into.push_str(placeholder);
                into.push('}');
            }
        }
    }
}

/// Writes the engine of `table(arguments)`, replicated within a shard under a replica's name, or not.
fn engine(table: &str, replicated: Option<(&str, &str)>, into: &mut String) {
    let (name, arguments) = table.split_once('(').unwrap_or((table, ""));
    let arguments = arguments.strip_suffix(')').unwrap_or(arguments);
    let separator = if arguments.is_empty() { "" } else { ", " };
    // Writing to a string does not fail.
    let _ = match replicated {
        None if arguments.is_empty() => write!(into, "ReplacingMergeTree"),
        None => write!(into, "ReplacingMergeTree({arguments})"),
        Some((shard, replica)) => write!(
            into,
            "ReplicatedReplacingMergeTree(\
             '/clickhouse/tables/{shard}/{{database}}/{name}', '{replica}'{separator}{arguments})"
        ),
    };
}

/// Cuts a text at each `;` that ends a statement: one in a string, a quoted name or a comment does not.
/// Comments are left out, and so are statements with nothing in them.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut statement = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            ';' => {
                statements.push(std::mem::take(&mut statement));
                1
            }
            '\'' | '"' | '`' => {
                let quoted = quoted_length(rest, first);
                statement.push_str(&rest[..quoted]);
                quoted
            }
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => {
                // It parts words, like a space.
                statement.push(' ');
                rest.find("*/").map_or(rest.len(), |end| end + 2)
            }
            other => {
                statement.push(other);
                other.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    statements.push(statement);
    statements.iter().map(|statement| tidy(statement)).filter(|statement| !statement.is_empty()).collect()
}

/// The bytes of the quoted text at the front of `text`, quotes included; all of it if it does not end.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == '\\' {
            characters.next();
        } else if character == quote {
            // A doubled quote is one of the text.
            match characters.peek() {
                Some((_, next)) if *next == quote => _ = characters.next(),
                Some(_) | None => return at + quote.len_utf8(),
            }
        }
    }
    text.len()
}

/// Leaves out what comments left behind: blank lines, and blanks at the ends of lines.
fn tidy(statement: &str) -> String {
    let lines: Vec<&str> = statement.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn single() -> Target {
        Target { database: "luminate".to_owned(), cluster: None }
    }

    fn cluster() -> Target {
        Target { cluster: Some("main".to_owned()), ..single() }
    }

    #[test]
    fn a_statement_ends_where_it_ends() {
        for (text, statements) in [
            ("A; B;", &["A", "B"][..]),
            ("A", &["A"]),
            ("", &[]),
            (";; ;\n", &[]),
            ("A 'x;y' B; C", &["A 'x;y' B", "C"]),
            (r"A 'x\';y' B; C", &[r"A 'x\';y' B", "C"]),
            (r"A 'x\\'; B", &[r"A 'x\\'", "B"]),
            ("A 'x'';y'; B", &["A 'x'';y'", "B"]),
            ("A `x;y`; B \"a;b\"", &["A `x;y`", "B \"a;b\""]),
            ("A -- no; comment 'either\nB; C", &["A\nB", "C"]),
            ("A/* x;\n'y */B; C", &["A B", "C"]),
            ("A '-- no comment;'; B '/*'; C '*/'", &["A '-- no comment;'", "B '/*'", "C '*/'"]),
            ("A 'never ends; B", &["A 'never ends; B"]),
            ("A /* never ends; B", &["A"]),
            ("A 'ü;ß'; ü", &["A 'ü;ß'", "ü"]),
            ("a - b / c; -- end", &["a - b / c"]),
        ] {
            assert_eq!(split(text), statements, "{text}");
        }
    }

    #[test]
    fn a_single_server_has_plain_tables() {
        let text = "CREATE TABLE {db}.t{local}{on_cluster} ENGINE = {engine:t(v)} SETTINGS {dedup} = 1; \
                    {cluster_only}CREATE TABLE {db}.t; X {everywhere:u}; {single_only}Y";
        assert_eq!(
            single().statements(text),
            [
                "CREATE TABLE `luminate`.t ENGINE = ReplacingMergeTree(v) \
                 SETTINGS non_replicated_deduplication_window = 1",
                "X ReplacingMergeTree",
                "Y"
            ]
        );
    }

    #[test]
    fn a_cluster_has_replicated_tables_and_tables_over_them() {
        let text = "CREATE TABLE {db}.t{local}{on_cluster} ENGINE = {engine:t(v)} SETTINGS {dedup} = 1; \
                    {cluster_only} CREATE TABLE {db}.t ENGINE = Distributed({cluster}, {db_text}, 't_local'); \
                    X {everywhere:u}; {single_only}Y";
        assert_eq!(
            cluster().statements(text),
            [
                "CREATE TABLE `luminate`.t_local ON CLUSTER 'main' ENGINE = ReplicatedReplacingMergeTree(\
                 '/clickhouse/tables/{shard}/{database}/t', '{replica}', v) \
                 SETTINGS replicated_deduplication_window = 1",
                "CREATE TABLE `luminate`.t ENGINE = Distributed('main', 'luminate', 't_local')",
                "X ReplicatedReplacingMergeTree('/clickhouse/tables/main/{database}/u', '{shard}-{replica}')"
            ]
        );
    }

    #[test]
    fn a_brace_that_is_no_placeholder_stays() {
        assert_eq!(single().statements("A {shard} {"), ["A {shard} {"]);
        assert_eq!(single().statements("A {nothing:x(y)}"), ["A {nothing:x(y)}"]);
    }
}
