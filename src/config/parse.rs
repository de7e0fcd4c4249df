//! What values of keys are made of.

use std::{borrow::Cow, path::PathBuf, time::Duration};

use serde_yaml::Value;

use super::{ByteSize, value::parse_duration};
use crate::model::{Millis, TenantId};

pub(super) fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("takes text, not {}", kind(value)))
}

/// A quantity as it stands; a bare number is read as its digits, so that `0` can be told from `30`.
pub(super) fn quantity(value: &Value) -> Result<Cow<'_, str>, String> {
    match value {
        Value::Number(number) => Ok(Cow::Owned(number.to_string())),
        Value::Null
        | Value::Bool(_)
        | Value::String(_)
        | Value::Sequence(_)
        | Value::Mapping(_)
        | Value::Tagged(_) => text(value).map(Cow::Borrowed),
    }
}

pub(super) fn duration(value: &Value) -> Result<Duration, String> {
    parse_duration(&quantity(value)?)
}

pub(super) fn positive(value: &Value) -> Result<Duration, String> {
    at_least(Duration::from_millis(1))(value)
}

pub(super) fn at_least(least: Duration) -> impl Fn(&Value) -> Result<Duration, String> {
    move |value| match duration(value)? {
        short if short < least && least > Duration::from_millis(1) => {
            Err(format!("must be at least {}", super::value::format_duration(least)))
        }
        zero if zero.is_zero() => Err("must be more than 0".to_owned()),
        long => Ok(long),
    }
}

pub(super) fn millis(duration: Duration) -> Millis {
    Millis(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

pub(super) fn sized(least: ByteSize, most: ByteSize) -> impl Fn(&Value) -> Result<ByteSize, String> {
    move |value| {
        let size = ByteSize::parse(&quantity(value)?)?;
        if least <= size && size <= most {
            Ok(size)
        } else {
            Err(format!("{size} is not from {least} to {most}"))
        }
    }
}

pub(super) fn number(least: u64, most: u64) -> impl Fn(&Value) -> Result<u64, String> {
    move |value| {
        let number = match value {
            Value::Number(number) => number.as_u64(),
            Value::String(digits) => digits.parse().ok(),
            Value::Null | Value::Bool(_) | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
        };
        match number {
            Some(number) if least <= number && number <= most => Ok(number),
            Some(_) | None if most == u64::MAX => Err(format!("takes a whole number from {least}")),
            Some(_) | None => Err(format!("takes a whole number from {least} to {most}")),
        }
    }
}

pub(super) fn count(least: u32, most: u32) -> impl Fn(&Value) -> Result<usize, String> {
    let number = number(u64::from(least), u64::from(most));
    move |value| number(value).map(|n| usize::try_from(n).unwrap_or(usize::MAX))
}

pub(super) fn boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(yes) => Ok(*yes),
        Value::String(word) if word == "true" => Ok(true),
        Value::String(word) if word == "false" => Ok(false),
        Value::Null
        | Value::Number(_)
        | Value::String(_)
        | Value::Sequence(_)
        | Value::Mapping(_)
        | Value::Tagged(_) => Err("takes true or false".to_owned()),
    }
}

pub(super) fn one_of<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let word = text(value)?;
        words.iter().find(|(name, _)| *name == word).map(|(_, meaning)| *meaning).ok_or_else(|| {
            let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
            format!("{word:?} is not one of {}", names.join(", "))
        })
    }
}

/// A list of texts; from a flag or a variable, one text with commas.
pub(super) fn list(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Sequence(items) => items.iter().map(|item| text(item).map(str::to_owned)).collect(),
        Value::String(items) => {
            Ok(items.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Mapping(_) | Value::Tagged(_) => {
            Err(format!("takes a list, not {}", kind(value)))
        }
    }
}

/// `scheme://host` with an optional port, or `*`.
pub(super) fn origin(text: String) -> Result<String, String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', ' ']) => Ok(text),
        Some(_) | None if text == "*" => Ok(text),
        Some(_) | None => {
            Err(format!("{text:?} is not an origin, write for example https://grafana.example.com"))
        }
    }
}

/// A host name without scheme, port or path.
pub(super) fn host(text: String) -> Result<String, String> {
    let bracketed = text.starts_with('[') && text.ends_with(']');
    if text.is_empty() || text.contains(['/', ' ', '@']) || (text.contains(':') && !bracketed) {
        return Err(format!("{text:?} is not a host name, write for example metrics.example.com"));
    }
    Ok(text.to_ascii_lowercase())
}

/// The name of a file, or nothing.
pub(super) fn file(value: &Value) -> Result<Option<PathBuf>, String> {
    Ok(Some(text(value)?).filter(|path| !path.is_empty()).map(PathBuf::from))
}

pub(super) fn tenant(value: &Value) -> Result<TenantId, String> {
    TenantId::new(text(value)?).map_err(|e| e.to_string())
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a section",
        Value::Tagged(_) => "a tagged value",
    }
}
