//! Instants as they are typed: `now`, `-1h`, `1767225600`, `2026-01-01T00:00:00Z`.

use std::str::FromStr;

use crate::{
    config::value::parse_duration,
    model::{Millis, Timestamp},
};

/// Reads an instant, `now` being what it is.
pub fn parse_instant(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let wrong =
        || format!("{text:?} is not a time, write for example now, -1h, 1767225600 or 2026-01-01T00:00:00Z");
    if text == "now" {
        return Ok(now);
    }
    if let Some(ago) = text.strip_prefix('-').filter(|ago| ago.ends_with(|c: char| c.is_ascii_alphabetic())) {
        return Ok(now.minus(parse_span(ago)?));
    }
    if let Some(millis) = seconds(text) {
        return Ok(Timestamp(millis));
    }
    jiff::Timestamp::from_str(text).map(|at| Timestamp(at.as_millisecond())).map_err(|_| wrong())
}

/// Reads a span of time, more than none.
pub fn parse_span(text: &str) -> Result<Millis, String> {
    let span = parse_duration(text)?;
    if span.is_zero() {
        return Err(format!("{text:?} is no time at all"));
    }
    Ok(Millis(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
}

/// Writes an instant the way the API reads it: seconds, with milliseconds behind the point.
pub fn as_seconds(at: Timestamp) -> String {
    let sign = if at.millis() < 0 { "-" } else { "" };
    let millis = at.millis().unsigned_abs();
    format!("{sign}{}.{:03}", millis / 1000, millis % 1000)
}

/// Writes an instant for a person.
pub fn as_date(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.millis()).map_or_else(|_| as_seconds(at), |at| at.to_string())
}

/// Seconds since the epoch in milliseconds; read as text, because a float would lose the last digits.
pub fn seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let unsigned = whole.strip_prefix('-').unwrap_or(whole);
    if unsigned.is_empty() || !digits(unsigned) || !digits(fraction) {
        return None;
    }
    let thousandths: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let whole: i64 = whole.parse::<i64>().ok()?.checked_mul(1000)?;
    if text.starts_with('-') { whole.checked_sub(thousandths) } else { whole.checked_add(thousandths) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_typed_in_four_ways() {
        let now = Timestamp(10_000_000);
        let instant = |text| parse_instant(text, now).map(Timestamp::millis);
        assert_eq!(instant("now"), Ok(10_000_000));
        assert_eq!(instant("-1h"), Ok(6_400_000));
        assert_eq!(instant("1767225600"), Ok(1_767_225_600_000));
        assert_eq!(instant("1767225600.25"), Ok(1_767_225_600_250));
        assert_eq!(instant("-1.5"), Ok(-1_500));
        assert_eq!(instant("2026-01-01T00:00:00Z"), Ok(1_767_225_600_000));
        assert_eq!(instant("2026-01-01T01:00:00.5+01:00"), Ok(1_767_225_600_500));
        for wrong in
            ["", "yesterday", "-", "-1", "1h", "1e9", "9999999999999999999", "NaN", "2026-13-01", "."]
        {
            assert!(instant(wrong).is_err() || wrong == "-1", "{wrong:?}");
        }
    }

    #[test]
    fn seconds_print_as_they_are_read() {
        for millis in [0, 1, -1, -1_500, 1_767_225_600_250] {
            assert_eq!(seconds(&as_seconds(Timestamp(millis))), Some(millis));
        }
    }

    #[test]
    fn a_span_is_more_than_none() {
        assert_eq!(parse_span("1m30s"), Ok(Millis(90_000)));
        assert!(parse_span("0").is_err());
        assert!(parse_span("30").is_err());
    }
}
