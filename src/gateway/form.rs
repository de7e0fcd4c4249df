//! Parameters: from the URL and from a form in the body, merged, and read into the types below.
//!
//! A parameter in the body goes before one of the same name in the URL; one that may be repeated
//! (`match[]`) has both. Times are float seconds or RFC 3339, durations float seconds or Prometheus'
//! `1h30m`. What does not read is a 400 that names the parameter.

use std::{num::IntErrorKind, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::{HeaderMap, Method, header, request::Parts},
};
use jiff::civil::DateTime;

use super::{
    State,
    body::{self, BodyLimits},
    error::ApiError,
};
use crate::model::{Millis, Timestamp};

/// What Prometheus' clients write for "since ever".
const MIN_TIME: &str = "-292273086-05-16T16:47:06Z";
/// What Prometheus' clients write for "for ever".
const MAX_TIME: &str = "292277025-08-18T07:12:54.999999999Z";

/// A request's parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// Those of the body, then those of the URL, each in the order they came.
    pairs: Vec<(String, String)>,
}

impl Form {
    /// Reads the parts of a request that carry parameters.
    pub fn parse(url_query: &str, body: &[u8]) -> Result<Self, ApiError> {
        let mut pairs = Vec::new();
        parse_pairs(body, &mut pairs)?;
        parse_pairs(url_query.as_bytes(), &mut pairs)?;
        Ok(Self { pairs })
    }

    /// The first value of a parameter; one that is empty counts as not given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// All values of a parameter that may be repeated.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.pairs.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect()
    }

    /// A time that must be there.
    pub fn required_time(&self, name: &str) -> Result<Timestamp, ApiError> {
        parse_time(self.get(name).unwrap_or_default()).map_err(|why| ApiError::parameter(name, why))
    }

    /// A time that may be there. In Prometheus' words, what is no time is said with the name once more.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let parsed = self.get(name).map(parse_time).transpose();
        parsed.map_err(|why| ApiError::parameter(name, format!("Invalid time value for '{name}': {why}")))
    }

    /// A duration that must be there.
    pub fn required_duration(&self, name: &str) -> Result<Millis, ApiError> {
        parse_duration(self.get(name).unwrap_or_default()).map_err(|why| ApiError::parameter(name, why))
    }

    /// A duration that may be there.
    pub fn duration(&self, name: &str) -> Result<Option<Millis>, ApiError> {
        let parsed = self.get(name).map(parse_duration).transpose();
        parsed.map_err(|why| ApiError::parameter(name, why))
    }

    /// How long the request may take; less than nothing is nothing.
    pub fn timeout(&self) -> Result<Option<Duration>, ApiError> {
        let given = self.duration("timeout")?;
        Ok(given.map(|span| Duration::from_millis(u64::try_from(span.millis()).unwrap_or(0))))
    }

    /// How many answers are wanted at most; 0 is all.
    pub fn limit(&self) -> Result<usize, ApiError> {
        let Some(text) = self.get("limit") else { return Ok(0) };
        let limit = text.parse::<i64>().map_err(|error| {
            let why = match error.kind() {
                IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            // In the words of what Prometheus reads it with.
            ApiError::parameter("limit", format!("strconv.Atoi: parsing {text:?}: {why}"))
        })?;
        usize::try_from(limit).map_err(|_| ApiError::parameter("limit", "limit must be non-negative"))
    }

    /// A yes or no, as Go reads it; the text if it is neither.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, &str> {
        match self.get(name) {
            None => Ok(None),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(other),
        }
    }

    /// A count in one of the older parameters, which have a text of their own for what is not one.
    pub fn count(&self, name: &'static str) -> Result<Option<i64>, ApiError> {
        let parsed = self.get(name).map(str::parse).transpose();
        parsed.map_err(|_| ApiError::bad_data(format!("{name} must be a number")))
    }
}

impl Form {
    /// Reads the parameters of a request.
    pub async fn take(parts: &Parts, body: Body, limits: BodyLimits) -> Result<Self, ApiError> {
        if !matches!(parts.method, Method::POST | Method::PUT | Method::PATCH) {
            return Self::of_url(parts);
        }
        let body = body::read(body, &parts.extensions, limits).await?;
        if is_form(&parts.headers, &body.bytes) {
            Self::parse(parts.uri.query().unwrap_or_default(), &body.bytes)
        } else {
            Self::of_url(parts)
        }
    }

    /// Reads the parameters of a request whose body is something else.
    pub fn of_url(parts: &Parts) -> Result<Self, ApiError> {
        Self::parse(parts.uri.query().unwrap_or_default(), b"")
    }
}

impl FromRequest<Arc<State>> for Form {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<State>) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        // It may have been read before.
        if let Some(form) = parts.extensions.remove::<Self>() {
            return Ok(form);
        }
        Self::take(&parts, body, state.config.form_body).await
    }
}

/// Whether a body holds parameters: it says so, or it says nothing or something else but looks so.
fn is_form(headers: &HeaderMap, body: &[u8]) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return true;
    }
    // Values may be written as they are: whoever leaves out the type often leaves out the escapes.
    body.contains(&b'=') && body[0].is_ascii_alphabetic() && !body.iter().any(u8::is_ascii_control)
}

fn parse_pairs(text: &[u8], pairs: &mut Vec<(String, String)>) -> Result<(), ApiError> {
    for pair in text.split(|b| *b == b'&').filter(|pair| !pair.is_empty()) {
        let split = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
        let (name, value) = (&pair[..split], pair.get(split + 1..).unwrap_or_default());
        pairs.push((unescape(name)?, unescape(value)?));
    }
    Ok(())
}

/// Undoes the encoding of a form: `+` is a space, `%41` is `A`, and the whole is UTF-8.
fn unescape(text: &[u8]) -> Result<String, ApiError> {
    let broken = |why: String| ApiError::bad_data(format!("error parsing form values: {why}"));
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = match first {
            b'%' => {
                let [high, low, after @ ..] = after else {
                    return Err(broken(bad_escape(rest)));
                };
                let (Some(high), Some(low)) = (hex_digit(*high), hex_digit(*low)) else {
                    return Err(broken(bad_escape(&rest[..3])));
                };
                plain.push(high << 4 | low);
                after
            }
            b'+' => {
                plain.push(b' ');
                after
            }
            other => {
                plain.push(*other);
                after
            }
        };
    }
    String::from_utf8(plain).map_err(|_| broken("a parameter is not valid UTF-8".to_owned()))
}

fn bad_escape(escape: &[u8]) -> String {
    format!("invalid URL escape {:?}", String::from_utf8_lossy(escape))
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Reads a time: float seconds since the epoch, or RFC 3339.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    let known = parse_seconds(text).or_else(|| match text {
        MIN_TIME => Some(i64::MIN),
        MAX_TIME => Some(i64::MAX),
        _ => parse_rfc3339(text),
    });
    known.map(Timestamp).ok_or_else(|| format!("cannot parse {text:?} to a valid timestamp"))
}

/// Reads a duration: float seconds, or Prometheus' `1h30m`.
pub fn parse_duration(text: &str) -> Result<Millis, String> {
    if let Some(seconds) = parse_float(text) {
        let millis = to_millis(seconds)
            .filter(|millis| (i64::MIN / 1_000_000..=i64::MAX / 1_000_000).contains(millis))
            .ok_or_else(|| format!("cannot parse {text:?} to a valid duration. It overflows int64"))?;
        return Ok(Millis(millis));
    }
    parse_units(text).map(Millis).ok_or_else(|| format!("cannot parse {text:?} to a valid duration"))
}

/// Float seconds as milliseconds, nearest; the ends of time hold.
fn parse_seconds(text: &str) -> Option<i64> {
    parse_float(text).filter(|seconds| seconds.is_finite()).map(|seconds| {
        let limit = if seconds < 0.0 { i64::MIN } else { i64::MAX };
        to_millis(seconds).unwrap_or(limit)
    })
}

fn parse_float(text: &str) -> Option<f64> {
    let is_number_like = text.bytes().any(|b| b.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let named = ["nan", "inf", "infinity"]
        .iter()
        .any(|name| text.trim_start_matches(['+', '-']).eq_ignore_ascii_case(name));
    (is_number_like || named).then(|| text.parse().ok()).flatten()
}

#[expect(clippy::cast_possible_truncation, reason = "what is outside of i64 is sorted out before")]
fn to_millis(seconds: f64) -> Option<i64> {
    /// Two to the sixty-third: the first float that is too large.
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    // Taken apart so that today's seconds do not eat up the digits of the milliseconds.
    let (whole, part) = (seconds.trunc(), seconds.fract());
    let millis = whole * 1000.0 + (part * 1000.0).round();
    (-BOUND..BOUND).contains(&millis).then_some(millis as i64)
}

/// `1970-01-01T00:00:04.5Z`, `2026-01-01T00:00:00+02:00`
fn parse_rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let shaped = bytes.len() >= 20
        && bytes[10] == b'T'
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes.iter().all(|b| b.is_ascii_digit() || b"-+:.TZ".contains(b))
        && (text.ends_with('Z') || matches!(bytes[bytes.len() - 6], b'+' | b'-'));
    if !shaped {
        return None;
    }
    let zone_at = if text.ends_with('Z') { text.len() - 1 } else { text.len() - 6 };
    let (civil, zone) = (text.get(..zone_at)?, text.get(zone_at..)?);
    let since_epoch =
        civil.parse::<DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond();
    Some(since_epoch - zone_offset(zone)?)
}

/// Milliseconds that `+02:00` is ahead of UTC.
fn zone_offset(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, clock) = zone.split_at_checked(1)?;
    let (hours, minutes) = clock.split_once(':')?;
    let two_digits = |text: &str, below: i64| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<i64>().ok().filter(|value| digits && *value < below)
    };
    let ahead = two_digits(hours, 24)? * Millis::HOUR.0 + two_digits(minutes, 60)? * Millis::MINUTE.0;
    Some(if sign == "-" { -ahead } else { ahead })
}

/// `1y2w3d4h5m6s7ms`: units in this order, each at most once; `0` needs none.
fn parse_units(text: &str) -> Option<i64> {
    const UNITS: [(&str, i64); 7] = [
        ("y", 365 * Millis::DAY.0),
        ("w", 7 * Millis::DAY.0),
        ("d", Millis::DAY.0),
        ("h", Millis::HOUR.0),
        ("m", Millis::MINUTE.0),
        ("s", Millis::SECOND.0),
        ("ms", 1),
    ];
    if text.is_empty() {
        return None;
    }
    let (mut rest, mut total, mut units) = (text, 0_i64, UNITS.iter());
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let (_, size) = units.find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(*size)?)?;
        rest = after;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(url: &str, body: &str) -> Form {
        Form::parse(url, body.as_bytes()).unwrap()
    }

    fn told<T: std::fmt::Debug>(result: Result<T, ApiError>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.status(), 400);
        error.message().to_owned()
    }

    #[test]
    fn the_body_goes_before_the_url_and_repeats_add_up() {
        let form = form("query=url&match[]=a&time=1", "query=body&match%5B%5D=b&match[]=c");
        assert_eq!(form.get("query"), Some("body"));
        assert_eq!(form.get("time"), Some("1"));
        assert_eq!(form.all("match[]"), ["b", "c", "a"]);
        assert_eq!(form.get("none"), None);
    }

    #[test]
    fn escapes_are_undone() {
        let form = form("a=1+%2B+1&%C3%A9=%e2%82%AC&empty=&flag&&b=x%3dy=z", "");
        assert_eq!(form.get("a"), Some("1 + 1"));
        assert_eq!(form.get("é"), Some("€"));
        assert_eq!(form.get("b"), Some("x=y=z"));
        assert_eq!(form.get("empty"), None);
        assert_eq!(form.all("flag"), [""]);
    }

    #[test]
    fn broken_escapes_are_bad_data() {
        for (url, told_so) in [
            ("a=%zz", r#"error parsing form values: invalid URL escape "%zz""#),
            ("a=%", r#"error parsing form values: invalid URL escape "%""#),
            ("%4=a", r#"error parsing form values: invalid URL escape "%4""#),
            ("a=%ff", "error parsing form values: a parameter is not valid UTF-8"),
        ] {
            assert_eq!(told(Form::parse(url, b"")), told_so);
            assert_eq!(told(Form::parse("", url.as_bytes())), told_so);
        }
    }

    #[test]
    fn a_body_is_a_form_if_it_says_so_or_looks_so() {
        let with = |content_type: Option<&'static str>, body: &str| {
            let mut headers = HeaderMap::new();
            if let Some(value) = content_type {
                headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(value));
            }
            is_form(&headers, body.as_bytes())
        };
        assert!(with(Some("application/x-www-form-urlencoded; charset=utf-8"), "a b"));
        assert!(with(None, "query=up"));
        assert!(with(None, "query=up offset 5m"));
        assert!(with(Some(""), "query=up{zone=\"é\"}"));
        assert!(with(Some("application/json"), "query=up"));
        assert!(!with(Some("application/json"), r#"{"query":"a=b"}"#));
        assert!(!with(None, ""));
        assert!(!with(None, "\u{1}a=b"));
    }

    #[test]
    fn times_are_float_seconds_or_rfc_3339() {
        for (text, millis) in [
            ("0", 0),
            ("4", 4_000),
            ("-1.5", -1_500),
            ("1795229823.7663798", 1_795_229_823_766),
            ("1831226223.8147562", 1_831_226_223_815),
            ("1e9", 1_000_000_000_000),
            (".5", 500),
            ("1970-01-01T00:00:04Z", 4_000),
            ("1970-01-01T00:00:04.567890123Z", 4_567),
            ("1970-01-01T02:00:00+02:00", 0),
            ("1969-12-31T22:30:00.001-01:30", 1),
            ("0001-01-01T00:00:00Z", -62_135_596_800_000),
            (MIN_TIME, i64::MIN),
            (MAX_TIME, i64::MAX),
            ("9223372036854775807", i64::MAX),
            ("-1e300", i64::MIN),
        ] {
            assert_eq!(parse_time(text), Ok(Timestamp(millis)), "{text}");
        }
        for text in [
            "",
            "x",
            "NaN",
            "Inf",
            "-inf",
            "1970-01-01",
            "1970-01-01 00:00:00Z",
            "1970-13-01T00:00:00Z",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00+2:00",
            "1970-01-01T00:00:00+24:00",
            "5m",
            "1_000",
            "1970-01-01T00:00:00é+é0",
            "1970-01-01T00:00:00[UTC]Z",
        ] {
            assert_eq!(parse_time(text), Err(format!("cannot parse {text:?} to a valid timestamp")));
        }
    }

    #[test]
    fn durations_are_float_seconds_or_units() {
        for (text, millis) in [
            ("15", 15_000),
            ("0.5", 500),
            ("-1", -1_000),
            ("1m", 60_000),
            ("1h30m", 5_400_000),
            ("1y2w3d4h5m6s7ms", 31_536_000_000 + 1_209_600_000 + 259_200_000 + 14_400_000 + 306_007),
            ("100ms", 100),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Millis(millis)), "{text}");
        }
        for text in
            ["", "x", "1", "5x", "m", "1m1h", "1m2m", "1.5m", "-1m", "1 m", "999999999999999999y", "é"]
        {
            if text != "1" {
                assert_eq!(parse_duration(text), Err(format!("cannot parse {text:?} to a valid duration")));
            }
        }
        for text in ["1e300", "NaN", "-Inf", "9223372037"] {
            let overflow = format!("cannot parse {text:?} to a valid duration. It overflows int64");
            assert_eq!(parse_duration(text), Err(overflow));
        }
    }

    #[test]
    fn parameters_name_themselves_when_they_do_not_read() {
        let form = form("time=x&step=y&limit=-1&start=1&limit_per_metric=z", "");
        assert_eq!(
            told(form.required_time("time")),
            r#"invalid parameter "time": cannot parse "x" to a valid timestamp"#
        );
        assert_eq!(
            told(form.required_time("end")),
            r#"invalid parameter "end": cannot parse "" to a valid timestamp"#
        );
        assert_eq!(
            told(form.required_duration("step")),
            r#"invalid parameter "step": cannot parse "y" to a valid duration"#
        );
        assert_eq!(told(form.limit()), r#"invalid parameter "limit": limit must be non-negative"#);
        assert_eq!(told(form.count("limit_per_metric")), "limit_per_metric must be a number");
        assert_eq!(form.time("start").unwrap(), Some(Timestamp(1_000)));
        assert_eq!(form.time("end").unwrap(), None);
    }

    #[test]
    fn a_limit_is_a_count() {
        assert_eq!(form("", "").limit().unwrap(), 0);
        assert_eq!(form("limit=40000", "").limit().unwrap(), 40_000);
        assert_eq!(form("limit=-0", "").limit().unwrap(), 0);
        for (bad, why) in [
            ("x", "invalid syntax"),
            ("1.5", "invalid syntax"),
            ("-x", "invalid syntax"),
            ("-", "invalid syntax"),
            ("99999999999999999999999", "value out of range"),
            ("-99999999999999999999999", "value out of range"),
        ] {
            let message = told(form(&format!("limit={bad}"), "").limit());
            assert_eq!(message, format!("invalid parameter \"limit\": strconv.Atoi: parsing {bad:?}: {why}"));
        }
    }

    #[test]
    fn a_timeout_below_zero_is_none_at_all() {
        assert_eq!(form("timeout=-1", "").timeout().unwrap(), Some(Duration::ZERO));
        assert_eq!(form("timeout=1m", "").timeout().unwrap(), Some(Duration::from_secs(60)));
    }
}
