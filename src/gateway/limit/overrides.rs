//! Limits that say something else than those below them, as they are written: in a token's claims, in an overrides
//! file, by the API.
//!
//! ```yaml
//! samples_per_second: 50000
//! bytes_per_second: 10MiB       # or a number of bytes
//! max_query_range: 30d          # a time always has a unit
//! max_active_series: unlimited  # or null; 0 is none at all
//! answer_400: [max_active_series]
//! on_conflict: reject
//! features: [promql-delayed-name-removal, -use-start-timestamps]
//! ```

use std::fmt;

use serde_json::{Map, Value};

use crate::model::{FeatureSwitches, Limit, OnConflict, TenantLimits, limits::Unit};

/// What a sender is told to drop, by the names of limits; beside them in every mapping.
const ANSWER_400: &str = "answer_400";
/// What happens to other bits at a time that has a sample already.
const ON_CONFLICT: &str = "on_conflict";
/// Features of queries that are switched otherwise than for others.
const FEATURES: &str = "features";

/// Limits that say something else than those of the tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LimitOverrides {
    /// Numbers; none is without bound. In the order of [`Limit::ALL`], none twice.
    pub values: Vec<(Limit, Option<u64>)>,
    /// All that is refused for good; none leaves that as it was.
    pub for_good: Option<Vec<Limit>>,
    /// Other bits at a time that has a sample already.
    pub on_conflict: Option<OnConflict>,
    /// Features of queries, on top of those that are switched below.
    pub features: FeatureSwitches,
}

/// One thing that is wrong with overrides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverrideError {
    /// The name it is written under, shortened if it is long; empty if it is about all of them.
    pub name: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for OverrideError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, message } = self;
        if name.is_empty() { f.write_str(message) } else { write!(f, "{name}: {message}") }
    }
}

/// All that is wrong with overrides, as far as anybody would read; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct OverrideErrors(pub Vec<OverrideError>);

impl fmt::Display for OverrideErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl LimitOverrides {
    /// More mistakes than this are not told.
    const MOST_ERRORS: usize = 20;

    /// Whether they say nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads a mapping of limits' names to their values, or tells all that is wrong with it.
    pub fn read(written: &Value) -> Result<Self, OverrideErrors> {
        match Self::read_known(written) {
            (read, None) => Ok(read),
            (_, Some(errors)) => Err(errors),
        }
    }

    /// Reads what can be read, and tells what is wrong with the rest: what another version wrote may hold limits that
    /// this one does not have.
    pub fn read_known(written: &Value) -> (Self, Option<OverrideErrors>) {
        let mut read = Self::default();
        let mut errors = Vec::new();
        let nothing = Map::new();
        let entries = match written {
            Value::Object(entries) => entries,
            Value::Null => &nothing,
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                let message = format!("takes limits by their names, not {}", kind(written));
                return (read, Some(OverrideErrors(vec![OverrideError { name: String::new(), message }])));
            }
        };
        for (name, value) in entries {
            if errors.len() == Self::MOST_ERRORS {
                let message = "and more is wrong".to_owned();
                errors.push(OverrideError { name: String::new(), message });
                break;
            }
            if let Err(message) = read.read_one(name, value) {
                errors.push(OverrideError { name: shortened(name), message });
            }
        }
        read.values.sort_unstable();
        (read, (!errors.is_empty()).then_some(OverrideErrors(errors)))
    }

    fn read_one(&mut self, name: &str, value: &Value) -> Result<(), String> {
        match name {
            ANSWER_400 => self.for_good = Some(limits_named(value)?),
            ON_CONFLICT => self.on_conflict = Some(on_conflict(value)?),
            FEATURES => self.features = features(value)?,
            _ => {
                let limit = Limit::of_name(name).ok_or_else(|| unknown(name))?;
                self.values.push((limit, value_of(limit, value)?));
            }
        }
        Ok(())
    }

    /// Writes them as [`read`](Self::read) reads them.
    pub fn to_json(&self) -> Value {
        let mut entries = Map::new();
        for (limit, value) in &self.values {
            entries.insert(limit.name().to_owned(), value_json(*limit, *value));
        }
        if let Some(limits) = &self.for_good {
            entries.insert(ANSWER_400.to_owned(), limits.iter().map(|limit| limit.name()).collect());
        }
        if let Some(on_conflict) = self.on_conflict {
            entries.insert(ON_CONFLICT.to_owned(), on_conflict.as_str().into());
        }
        if !self.features.is_empty() {
            entries.insert(FEATURES.to_owned(), self.features.names().collect());
        }
        Value::Object(entries)
    }

    /// Puts these in the place of others.
    pub fn apply(&self, limits: &mut TenantLimits) {
        for (limit, value) in &self.values {
            limits.set(*limit, *value);
        }
        if let Some(for_good) = &self.for_good {
            for limit in Limit::ALL {
                limits.refuse_for_good(limit, for_good.contains(&limit));
            }
        }
        limits.on_conflict = self.on_conflict.unwrap_or(limits.on_conflict);
        limits.features = self.features.over(limits.features);
    }
}

/// A limit's value in JSON: bytes as a number, for their limits' names say so, a time with its unit.
pub fn value_json(limit: Limit, value: Option<u64>) -> Value {
    match (value, limit.unit()) {
        (Some(number), Unit::Count | Unit::PerSecond | Unit::Bytes | Unit::BytesPerSecond) => number.into(),
        (None, _) | (Some(_), Unit::Millis) => limit.show(value).into(),
    }
}

fn value_of(limit: Limit, value: &Value) -> Result<Option<u64>, String> {
    match (value, limit.unit()) {
        (Value::Null, _) => limit.check(None).map(|()| None),
        (Value::String(text), _) => limit.parse(text).map_err(|why| shortened(&why)),
        // A time in a number could be of seconds or of milliseconds: `parse` says so.
        (Value::Number(number), Unit::Millis) => limit.parse(&number.to_string()),
        (Value::Number(number), Unit::Count | Unit::PerSecond | Unit::Bytes | Unit::BytesPerSecond) => {
            let whole = whole(number).ok_or_else(|| format!("{number} is not a whole number"))?;
            limit.check(Some(whole)).map(|()| Some(whole))
        }
        (Value::Bool(_) | Value::Array(_) | Value::Object(_), _) => {
            Err(format!("takes a number or text, not {}", kind(value)))
        }
    }
}

/// A whole number, if it is one: some who write JSON write `1e+06`.
fn whole(number: &serde_json::Number) -> Option<u64> {
    number.as_u64().or_else(|| {
        let float = number.as_f64().filter(|float| float.fract() == 0.0 && *float >= 0.0)?;
        format!("{float}").parse().ok()
    })
}

fn limits_named(value: &Value) -> Result<Vec<Limit>, String> {
    let Value::Array(names) = value else {
        return Err(format!("takes a list of limits' names, not {}", kind(value)));
    };
    let mut limits = names
        .iter()
        .map(|name| {
            let name = name.as_str().ok_or_else(|| format!("takes limits' names, not {}", kind(name)))?;
            Limit::of_name(name).ok_or_else(|| format!("{}: {}", shortened(name), unknown(name)))
        })
        .collect::<Result<Vec<Limit>, String>>()?;
    limits.sort_unstable();
    limits.dedup();
    Ok(limits)
}

fn on_conflict(value: &Value) -> Result<OnConflict, String> {
    let names = OnConflict::ALL.map(OnConflict::as_str).join(" or ");
    let name = value.as_str().ok_or_else(|| format!("takes {names}, not {}", kind(value)))?;
    OnConflict::of_name(name).ok_or_else(|| format!("{:?} is not {names}", shortened(name)))
}

fn features(value: &Value) -> Result<FeatureSwitches, String> {
    let Value::Array(names) = value else {
        return Err(format!("takes a list of features' names, not {}", kind(value)));
    };
    let name = |name: &'_ Value| name.as_str().map(str::to_owned);
    let names: Option<Vec<String>> = names.iter().map(name).collect();
    let names = names.ok_or_else(|| "takes features' names".to_owned())?;
    FeatureSwitches::read(names.iter().map(String::as_str))
}

fn unknown(name: &str) -> String {
    if name == "retention" {
        return "not a limit; storage.retention of the configuration has it".to_owned();
    }
    let names = Limit::ALL.iter().map(|limit| limit.name()).chain([ANSWER_400, ON_CONFLICT, FEATURES]);
    let closest = (name.len() <= LONGEST)
        .then(|| names.map(|known| (strsim::damerau_levenshtein(known, name), known)).min())
        .flatten();
    match closest {
        Some((distance, known)) if distance <= 4.min(name.chars().count() / 2) => {
            format!("unknown limit, did you mean {known}?")
        }
        Some(_) | None => "unknown limit".to_owned(),
    }
}

/// Longer texts are not repeated in a message.
const LONGEST: usize = 128;

/// A text as it is, or as much of it as a person would look at.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(written: &Value) -> String {
        LimitOverrides::read(written).unwrap_err().to_string()
    }

    #[test]
    fn what_is_read_is_written_back() {
        let written = json!({
            "samples_per_second": 50000,
            "bytes_per_second": "10MiB",
            "max_query_bytes": 1024,
            "max_query_range": "30d",
            "out_of_order_window": "5m",
            "max_active_series": null,
            "max_concurrent_queries": "unlimited",
            "queries_per_second": "7",
            "samples_burst": 1e6,
            "answer_400": ["samples_per_second", "max_active_series"],
            "on_conflict": "reject",
        });
        let read = LimitOverrides::read(&written).unwrap();
        assert_eq!(
            read.to_json(),
            json!({
                "samples_per_second": 50000,
                "bytes_per_second": 10 << 20,
                "max_query_bytes": 1024,
                "max_query_range": "30d",
                "out_of_order_window": "5m",
                "max_active_series": "unlimited",
                "max_concurrent_queries": "unlimited",
                "queries_per_second": 7,
                "samples_burst": 1_000_000,
                "answer_400": ["samples_per_second", "max_active_series"],
                "on_conflict": "reject",
            })
        );
        assert_eq!(LimitOverrides::read(&read.to_json()), Ok(read.clone()));

        let mut limits = TenantLimits::default().with(Limit::ActiveSeries, 9);
        limits.refuse_for_good(Limit::Bytes, true);
        read.apply(&mut limits);
        assert_eq!(limits.get(Limit::Samples), Some(50_000));
        assert_eq!(limits.get(Limit::ActiveSeries), None);
        assert_eq!(limits.get(Limit::QueryRange), Some(30 * 86_400_000));
        assert!(limits.refuses_for_good(Limit::ActiveSeries) && !limits.refuses_for_good(Limit::Bytes));
        assert_eq!(limits.on_conflict, OnConflict::Reject);
    }

    #[test]
    fn nothing_written_changes_nothing() {
        for nothing in [json!({}), json!(null)] {
            let read = LimitOverrides::read(&nothing).unwrap();
            assert!(read.is_empty());
            let mut limits = TenantLimits::default();
            read.apply(&mut limits);
            assert_eq!(limits, TenantLimits::default());
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let wrong = json!({
            "samples_per_secnd": 1,
            "bytes_per_second": "10 MB",
            "max_query_range": 30,
            "max_label_names": null,
            "max_active_series": -1,
            "queries_per_second": 1.5,
            "max_query_series": [1],
            "answer_400": ["max_series"],
            "on_conflict": "first",
            "zzz": 1,
        });
        let refused = refused(&wrong);
        for part in [
            "samples_per_secnd: unknown limit, did you mean samples_per_second?",
            "bytes_per_second: \" MB\" is not a unit of size",
            "max_query_range: \"30\" has no unit, write for example 30s, or unlimited",
            "max_label_names: cannot be unlimited",
            "max_active_series: -1 is not a whole number",
            "queries_per_second: 1.5 is not a whole number",
            "max_query_series: takes a number or text, not a list",
            "answer_400: max_series: unknown limit",
            "on_conflict: \"first\" is not last or reject",
            "zzz: unknown limit",
        ] {
            assert!(refused.contains(part), "{part}\nis not in\n{refused}");
        }
        assert!(!refused.contains("zzz: unknown limit, did"), "{refused}");
    }

    #[test]
    fn what_is_no_mapping_is_refused() {
        for (wrong, what) in [(json!([1]), "a list"), (json!("x"), "text"), (json!(1), "a number")] {
            assert_eq!(refused(&wrong), format!("takes limits by their names, not {what}"));
        }
    }

    #[test]
    fn what_is_huge_makes_no_huge_message() {
        let name = "é".repeat(100_000);
        assert!(refused(&json!({ &*name: 1 })).len() < 1000);
        assert!(refused(&json!({ "samples_per_second": name })).len() < 1000);
        assert!(refused(&json!({ "answer_400": [name] })).len() < 1000);
        assert!(refused(&json!({ "on_conflict": name })).len() < 1000);
        let many: Map<String, Value> = (0..10_000).map(|i| (format!("limit{i}"), json!(1))).collect();
        assert!(refused(&Value::Object(many)).ends_with("; and more is wrong"));
        for number in [json!(u64::MAX), json!(1e300), json!(-0.5), json!(i64::MIN)] {
            assert!(LimitOverrides::read(&json!({ "samples_per_second": number })).is_err());
        }
    }
}
