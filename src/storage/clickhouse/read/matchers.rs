//! Matchers as conditions on the series table.
//!
//! A condition may let more series through than its matchers, never fewer: every matcher is asked again
//! here, of every series that comes back. So a pattern that the servers refuse, and a value too long to be
//! sent, are simply left out.

use crate::{
    model::{METRIC_NAME, MatchOp, Matcher},
    storage::clickhouse::client::{Param, Statement},
};

/// Bytes of values that may be sent in one condition; a server takes 128 KiB for one of them.
const MAX_BYTES: usize = 64 << 10;
/// Matchers that are sent at most; the statement's text is bounded too.
const MAX_MATCHERS: usize = 64;
/// The labels as the skip index has them.
const PAIRS: &str = "arrayMap((k, v) -> concat(k, '=', v), mapKeys(labels), mapValues(labels))";

/// A condition on the series table, and the values in it.
#[derive(Clone, Debug)]
pub(in crate::storage::clickhouse) struct Condition {
    sql: String,
    params: Vec<(String, Param)>,
    /// Whether it lets exactly those series through that the matchers do.
    pub(in crate::storage::clickhouse) complete: bool,
    /// Whether it has a pattern that a server may refuse.
    pub(in crate::storage::clickhouse) patterns: bool,
    /// Whether the matchers ask for nothing but metrics' names.
    pub(super) only_names: bool,
}

/// Whether patterns that are no lists of texts are sent to the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patterns {
    Sent,
    Kept,
}

impl Condition {
    /// The series that any of the sets matches; no sets are all series.
    pub(super) fn of(sets: &[Vec<Matcher>], patterns: Patterns) -> Self {
        let mut condition = Self {
            sql: String::new(),
            params: Vec::new(),
            complete: true,
            patterns: false,
            only_names: true,
        };
        for matcher in sets.iter().flatten().filter(|matcher| !is_always_true(matcher)) {
            condition.only_names &= matcher.name() == METRIC_NAME;
        }
        let (mut bytes, mut matchers) = (0, 0);
        let mut any = Vec::with_capacity(sets.len());
        for set in sets {
            let mut all = Vec::with_capacity(set.len());
            for matcher in set.iter().filter(|matcher| !is_always_true(matcher)) {
                matchers += 1;
                bytes += 2 * (matcher.name().len() + matcher.value().len());
                let sql = (matchers <= MAX_MATCHERS && bytes <= MAX_BYTES)
                    .then(|| condition.matcher(matcher, patterns))
                    .flatten();
                match sql {
                    Some(sql) => all.push(sql),
                    None => condition.complete = false,
                }
            }
            if all.is_empty() {
                // One set lets everything through, so all of them do.
                condition.params.clear();
                condition.patterns = false;
                condition.complete &= set.iter().all(is_always_true);
                "1".clone_into(&mut condition.sql);
                return condition;
            }
            any.push(format!("({})", all.join(" AND ")));
        }
        condition.sql = if any.is_empty() { "1".to_owned() } else { format!("({})", any.join(" OR ")) };
        condition
    }

    /// The text, to stand in a `WHERE` of the series table.
    pub(in crate::storage::clickhouse) fn sql(&self) -> &str {
        &self.sql
    }

    /// Gives a statement that has the text its values.
    pub(in crate::storage::clickhouse) fn bind(&self, statement: Statement) -> Statement {
        self.params.iter().fold(statement, |statement, (name, value)| statement.param(name, value.clone()))
    }

    /// One matcher as a condition; none if it cannot be said.
    fn matcher(&mut self, matcher: &Matcher, patterns: Patterns) -> Option<String> {
        if let Some(texts) = matcher.regex().and_then(|regex| regex.set_matches()) {
            // Each goes with the name, and all of them as one value.
            let bytes: usize = texts.iter().map(|text| matcher.name().len() + text.len() + 4).sum();
            if bytes > MAX_BYTES {
                return None;
            }
        }
        let column = if matcher.name() == METRIC_NAME {
            "metric".to_owned()
        } else {
            format!("labels[{}]", self.text(matcher.name()))
        };
        let sql = match (matcher.op(), matcher.regex()) {
            (MatchOp::Equal, _) => {
                let mut sql = format!("{column} = {}", self.text(matcher.value()));
                if column != "metric" && !matcher.value().is_empty() {
                    let pair = self.text(&format!("{}={}", matcher.name(), matcher.value()));
                    sql = format!("{sql} AND has({PAIRS}, {pair})");
                }
                sql
            }
            (MatchOp::NotEqual, _) => format!("{column} != {}", self.text(matcher.value())),
            (op, Some(regex)) => {
                let not = if op == MatchOp::NotMatches { "NOT " } else { "" };
                if let Some(texts) = regex.set_matches() {
                    let mut sql = format!("{column} {not}IN {}", self.texts(texts.to_vec()));
                    if not.is_empty() && column != "metric" && texts.iter().all(|text| !text.is_empty()) {
                        let pair = |text| format!("{}={text}", matcher.name());
                        let pairs = self.texts(texts.iter().map(pair).collect());
                        sql = format!("{sql} AND hasAny({PAIRS}, {pairs})");
                    }
                    sql
                } else if regex.is_match_all() {
                    // Only `!~` comes here, and nothing passes it.
                    "0".to_owned()
                } else if regex.is_match_non_empty() {
                    format!("{column} {} ''", if not.is_empty() { "!=" } else { "=" })
                } else if patterns == Patterns::Sent {
                    self.patterns = true;
                    let pattern = self.text(&format!("^(?s:{})$", regex.as_str()));
                    format!("{not}match({column}, {pattern})")
                } else {
                    return None;
                }
            }
            (MatchOp::Matches | MatchOp::NotMatches, None) => return None,
        };
        Some(sql)
    }

    fn text(&mut self, text: &str) -> String {
        self.value(Param::from(text), "String")
    }

    fn texts(&mut self, texts: Vec<String>) -> String {
        self.value(Param::from(texts), "Array(String)")
    }

    /// Takes a value, and gives what stands for it.
    fn value(&mut self, value: Param, kind: &str) -> String {
        let name = format!("m{}", self.params.len());
        let place = format!("{{{name}:{kind}}}");
        self.params.push((name, value));
        place
    }
}

/// Whether every value passes, as with `=~".*"`.
fn is_always_true(matcher: &Matcher) -> bool {
    matcher.op() == MatchOp::Matches && matcher.regex().is_some_and(|regex| regex.is_match_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(op: MatchOp, name: &str, value: &str) -> Matcher {
        Matcher::new(op, name, value).unwrap()
    }

    #[test]
    fn no_value_is_in_the_text() {
        use MatchOp::{Equal, Matches, NotEqual, NotMatches};
        let all = [Equal, NotEqual, Matches, NotMatches]
            .into_iter()
            .flat_map(|op| ["evil' OR 1 --", "evil|x", "evil.*'"].map(|value| matcher(op, "n'evil", value)))
            .chain([matcher(Equal, METRIC_NAME, "evil"), matcher(Matches, METRIC_NAME, "evil.+")])
            .collect();
        let condition = Condition::of(&[all], Patterns::Sent);
        assert!(!condition.sql.contains("evil"), "{}", condition.sql);
        assert!(condition.complete && condition.patterns && !condition.only_names);
    }

    #[test]
    fn what_cannot_be_said_lets_more_through() {
        let long = "x".repeat(MAX_BYTES);
        let condition = Condition::of(&[vec![Matcher::equal("a", &long)]], Patterns::Sent);
        assert_eq!((condition.sql(), condition.complete, condition.only_names), ("1", false, false));
        let texts = vec![matcher(MatchOp::Matches, &"n".repeat(MAX_BYTES / 4), "a|b|c|d|e")];
        let condition = Condition::of(&[texts], Patterns::Sent);
        assert_eq!((condition.sql(), condition.complete), ("1", false));
        let pattern = vec![vec![matcher(MatchOp::Matches, "a", "x.+y"), Matcher::equal("b", "1")]];
        let kept = Condition::of(&pattern, Patterns::Kept);
        assert!(
            !kept.complete && !kept.patterns && !kept.only_names && !kept.sql.contains("match("),
            "{}",
            kept.sql
        );
        // One set without a condition makes the others pointless.
        let sets = [vec![Matcher::equal("b", "1")], vec![matcher(MatchOp::Matches, "a", ".*")]];
        let everything = Condition::of(&sets, Patterns::Sent);
        assert_eq!((everything.sql(), everything.complete, everything.params.len()), ("1", true, 0));
    }

    #[test]
    fn many_matchers_stay_within_a_statement() {
        let many = (0..1000).map(|i| Matcher::equal(&format!("l{i}"), "v")).collect();
        let condition = Condition::of(&[many], Patterns::Sent);
        assert!(condition.sql.len() < 32 << 10 && !condition.complete);
    }
}
