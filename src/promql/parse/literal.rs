//! What numbers, durations and strings in the text are worth, and how messages quote text.

use std::borrow::Cow;

use crate::model::labels::Quoted;

/// The value of a number as written: decimal, hexadecimal (`0x1F`), octal (`0755`), `Inf`, `NaN`,
/// with underscores between digits. Fails with the words of Go's `strconv`.
pub(super) fn number(text: &str) -> Result<f64, String> {
    if let Some(whole) = whole_number(text) {
        return Ok(whole);
    }
    let fail = |why: &str| {
        Err(format!("error parsing number: strconv.ParseFloat: parsing {}: {why}", quoted_text(text)))
    };
    match text.to_ascii_lowercase().as_str() {
        "inf" => return Ok(f64::INFINITY),
        "nan" => return Ok(f64::NAN),
        _ => {}
    }
    let plain: Cow<'_, str> = if !text.contains('_') {
        Cow::Borrowed(text)
    } else if underscores_divide_digits(text) {
        Cow::Owned(text.replace('_', ""))
    } else {
        return fail("invalid syntax");
    };
    // What Rust accepts beyond Go's decimal floats are only words, which were not lexed as numbers.
    match plain.parse::<f64>() {
        Ok(value) if value.is_infinite() => fail("value out of range"),
        Ok(value) => Ok(value),
        Err(_) => fail("invalid syntax"),
    }
}

/// The value if the text is a whole number of 63 bits, its base told by its prefix.
#[expect(clippy::cast_precision_loss, reason = "a literal is the float nearest to it")]
fn whole_number(text: &str) -> Option<f64> {
    if text.contains('_') && !underscores_divide_digits(text) {
        return None;
    }
    let plain: Cow<'_, str> =
        if text.contains('_') { Cow::Owned(text.replace('_', "")) } else { Cow::Borrowed(text) };
    let hex = plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X"));
    let octal = plain.strip_prefix('0');
    let value = match (hex, octal) {
        (Some(hex), _) => i64::from_str_radix(hex, 16).ok()?,
        (None, Some("")) => 0,
        (None, Some(octal)) => i64::from_str_radix(octal, 8).ok()?,
        (None, None) => plain.parse::<i64>().ok()?,
    };
    Some(value as f64)
}

/// Whether each underscore stands between digits, or between a base's prefix and a digit.
fn underscores_divide_digits(text: &str) -> bool {
    let hex = text.starts_with("0x") || text.starts_with("0X");
    let is_digit = |b: u8| b.is_ascii_digit() || (hex && b.is_ascii_hexdigit());
    let bytes = text.as_bytes();
    bytes.iter().enumerate().filter(|(_, b)| **b == b'_').all(|(i, _)| {
        let before = i.checked_sub(1).is_some_and(|i| is_digit(bytes[i]) || (hex && i == 1));
        let after = bytes.get(i + 1).is_some_and(|b| is_digit(*b));
        before && after
    })
}

/// The seconds of a duration as written: `1h30m`, each unit once and from the biggest to the smallest.
#[expect(clippy::cast_precision_loss, reason = "what is lost is far below a millisecond")]
pub(super) fn duration_seconds(text: &str) -> Result<f64, String> {
    const UNITS: [(&str, u64); 7] = [
        ("y", 365 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    // Go counts nanoseconds in 63 bits.
    const MOST: u64 = i64::MAX.unsigned_abs() / 1_000_000;
    let malformed = || format!("not a valid duration string: {}", quoted_text(text));
    let too_long = || "duration out of range".to_owned();
    let (mut millis, mut next_unit, mut rest) = (0_u64, 0, text);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (count, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(|b| !b.is_ascii_digit()).count();
        let (name, after) = after.split_at(letters);
        if count.is_empty() || name.is_empty() {
            return Err(malformed());
        }
        let count: u64 = count.parse().map_err(|_| too_long())?;
        let Some(unit) = UNITS.iter().position(|(unit, _)| *unit == name) else {
            return Err(format!("unknown unit {} in duration {}", quoted_text(name), quoted_text(text)));
        };
        if unit < next_unit {
            return Err(malformed());
        }
        next_unit = unit + 1;
        let part = count.checked_mul(UNITS[unit].1).ok_or_else(too_long)?;
        millis = millis.checked_add(part).filter(|all| *all <= MOST).ok_or_else(too_long)?;
        rest = after;
    }
    Ok((millis / 1000) as f64 + (millis % 1000) as f64 / 1000.0)
}

/// The value of a string literal the lexer let through, quotes included in `literal`.
///
/// `\xHH` and octal escapes are bytes; where bytes are not UTF-8, U+FFFD stands in for them.
pub(super) fn unquote(literal: &str) -> String {
    let inside = &literal[1..literal.len() - 1];
    if literal.starts_with('`') {
        return inside.to_owned();
    }
    let mut bytes = Vec::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = escaped(&rest[at + 1..], &mut bytes);
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// Reads one escape sequence, without its backslash, and says what comes after it.
fn escaped<'a>(text: &'a str, bytes: &mut Vec<u8>) -> &'a str {
    let Some(c) = text.chars().next() else { return text };
    let (digits, rest, base) = match c {
        'x' => (2, &text[1..], 16),
        'u' => (4, &text[1..], 16),
        'U' => (8, &text[1..], 16),
        '0'..='7' => (3, text, 8),
        _ => {
            let byte = match c {
                'a' => 0x07,
                'b' => 0x08,
                'f' => 0x0c,
                'n' => b'\n',
                'r' => b'\r',
                't' => b'\t',
                'v' => 0x0b,
                '\\' | '"' | '\'' => u8::try_from(c).expect("these are ASCII"),
                _ => return text,
            };
            bytes.push(byte);
            return &text[1..];
        }
    };
    let Some((number, after)) = rest.split_at_checked(digits) else { return "" };
    let value = u32::from_str_radix(number, base).unwrap_or(u32::from(char::REPLACEMENT_CHARACTER));
    match (c, u8::try_from(value)) {
        ('x' | '0'..='7', Ok(byte)) => bytes.push(byte),
        _ => {
            let c = char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER);
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    after
}

/// The text in double quotes, escaped as Go does.
pub(super) fn quoted_text(text: &str) -> String {
    Quoted(text).to_string()
}

/// The first ten characters in quotes, with dots if there were more.
pub(super) fn quoted_start(text: &str) -> String {
    if text.len() <= 10 {
        return quoted_text(text);
    }
    let end = text.char_indices().nth(10).map_or(text.len(), |(at, _)| at);
    format!("{}...", quoted_text(&text[..end]))
}

/// A character in single quotes, escaped as Go does; the end of the text is shown as U+FFFD.
pub(super) fn quoted_char(c: Option<char>) -> String {
    let c = c.unwrap_or(char::REPLACEMENT_CHARACTER);
    match c {
        '\'' => r"'\''".to_owned(),
        '\\' => r"'\\'".to_owned(),
        '"' => "'\"'".to_owned(),
        '\x07' => r"'\a'".to_owned(),
        '\x08' => r"'\b'".to_owned(),
        '\x0c' => r"'\f'".to_owned(),
        '\n' => r"'\n'".to_owned(),
        '\r' => r"'\r'".to_owned(),
        '\t' => r"'\t'".to_owned(),
        '\x0b' => r"'\v'".to_owned(),
        c if u32::from(c) < 0x20 || c == '\x7f' => format!("'\\x{:02x}'", u32::from(c)),
        // What Rust would escape cannot be printed.
        c if c.escape_debug().len() > 2 && u32::from(c) > 0xffff => format!("'\\U{:08x}'", u32::from(c)),
        c if c.escape_debug().len() > 2 => format!("'\\u{:04x}'", u32::from(c)),
        c => format!("'{c}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        let cases = [
            ("0", 0.0),
            ("1", 1.0),
            ("5.", 5.0),
            (".5", 0.5),
            ("1e-3", 0.001),
            ("0x1F", 31.0),
            ("0X_1f", 31.0),
            ("0755", 493.0),
            ("08", 8.0),
            ("0_755", 493.0),
            ("1_000_000", 1e6),
            ("1_0.2_5", 10.25),
            ("9223372036854775807", 9_223_372_036_854_775_807.0),
            ("18446744073709551616", 18_446_744_073_709_551_616.0),
            ("iNf", f64::INFINITY),
        ];
        for (text, value) in cases {
            assert_eq!(number(text), Ok(value), "{text}");
        }
        assert!(number("NaN").unwrap().is_nan());
        for text in ["1e", "0x", "1_", "1__0", "0xg", "1._5"] {
            assert!(number(text).unwrap_err().ends_with("invalid syntax"), "{text}");
        }
        assert!(number("1e999").unwrap_err().ends_with("value out of range"));
    }

    #[test]
    fn durations_go_from_the_biggest_unit_to_the_smallest() {
        assert_eq!(duration_seconds("1h30m"), Ok(5400.0));
        assert_eq!(
            duration_seconds("1y2w3d4h5m6s7ms"),
            Ok(31_536_000.0 + 1_209_600.0 + 259_200.0 + 14_706.007)
        );
        assert_eq!(duration_seconds("1001ms"), Ok(1.001));
        assert_eq!(duration_seconds("1m1h"), Err("not a valid duration string: \"1m1h\"".to_owned()));
        assert_eq!(duration_seconds("1m1m"), Err("not a valid duration string: \"1m1m\"".to_owned()));
        assert_eq!(duration_seconds("1.5m").unwrap_err(), "unknown unit \".\" in duration \"1.5m\"");
        assert_eq!(duration_seconds("5hs").unwrap_err(), "unknown unit \"hs\" in duration \"5hs\"");
        assert_eq!(duration_seconds("293y").unwrap_err(), "duration out of range");
        assert_eq!(duration_seconds("99999999999999999999s").unwrap_err(), "duration out of range");
    }

    #[test]
    fn escapes_are_bytes_or_characters() {
        assert_eq!(unquote(r#""a\n\t\\\"b""#), "a\n\t\\\"b");
        assert_eq!(unquote(r"'\'\x41\101\u00e4\U0001F600'"), "'AAä😀");
        assert_eq!(unquote(r#""\xc3\xa4""#), "ä");
        assert_eq!(unquote(r#""\xff""#), "\u{fffd}");
        assert_eq!(unquote(r"`a\d`"), r"a\d");
    }
}
