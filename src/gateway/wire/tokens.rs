//! JSON's lists, texts and numbers, written to the letter as Go writes them:
//!
//! * A time is seconds with three digits of milliseconds, which are left out when they are zero.
//! * A sample is a string in the shortest form that reads back, with an exponent below 1e-6 and from
//!   1e21 on; a scalar is written without one, and its time as a plain float.
//! * Labels and values of metrics are written as they are; messages, lists of names and texts have
//!   `<`, `>` and `&` escaped, as Go does for the sake of HTML.

use std::io::Write;

use crate::{model::Labels, promql::go_float::format_json_value};

pub(super) fn push_list<T>(out: &mut Vec<u8>, items: &[T], push: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        push_comma(out, i);
        push(out, item);
    }
    out.push(b']');
}

pub(super) fn push_comma(out: &mut Vec<u8>, i: usize) {
    if i > 0 {
        out.push(b',');
    }
}

/// A metric's labels; nothing is escaped but what JSON asks for.
pub(super) fn push_labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (i, (name, value)) in labels.iter().enumerate() {
        push_comma(out, i);
        push_escaped(out, name, needs_escape);
        out.push(b':');
        push_escaped(out, value, needs_escape);
    }
    out.push(b'}');
}

/// A text; besides what JSON asks for, what HTML would take for a tag or an entity is escaped.
pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    if !text.contains(['\u{2028}', '\u{2029}']) {
        return push_escaped(out, text, needs_escape_in_html);
    }
    // JavaScript takes these two for the end of a line.
    out.push(b'"');
    for line in text.split_inclusive(['\u{2028}', '\u{2029}']) {
        let (plain, end) = match line.char_indices().next_back() {
            Some((at, end @ ('\u{2028}' | '\u{2029}'))) => (&line[..at], Some(end)),
            Some(_) | None => (line, None),
        };
        push_inside(out, plain, needs_escape_in_html);
        if let Some(end) = end {
            write_to(out, format_args!("\\u{:04x}", u32::from(end)));
        }
    }
    out.push(b'"');
}

const fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

const fn needs_escape_in_html(byte: u8) -> bool {
    needs_escape(byte) || matches!(byte, b'<' | b'>' | b'&')
}

fn push_escaped(out: &mut Vec<u8>, text: &str, needs_escape: fn(u8) -> bool) {
    out.push(b'"');
    push_inside(out, text, needs_escape);
    out.push(b'"');
}

fn push_inside(out: &mut Vec<u8>, text: &str, needs_escape: fn(u8) -> bool) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| needs_escape(*byte)) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => write_to(out, format_args!("\\u{other:04x}")),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// `1435781430`, `1435781451.781`, `-0.500`
pub(super) fn push_time(out: &mut Vec<u8>, timestamp: i64) {
    if timestamp < 0 {
        out.push(b'-');
    }
    let millis = timestamp.unsigned_abs();
    push_integer(out, millis / 1000);
    let part = millis % 1000;
    if part != 0 {
        write_to(out, format_args!(".{part:03}"));
    }
}

/// `1435781430`, `1435781451.78`
pub(super) fn push_float_time(out: &mut Vec<u8>, timestamp: i64) {
    #[expect(clippy::cast_precision_loss, reason = "Prometheus writes these times as floats, too")]
    let seconds = timestamp as f64 / 1000.0;
    push_plain_float(out, seconds);
}

/// A sample's value, in quotes.
pub(super) fn push_value(out: &mut Vec<u8>, value: f64) {
    out.push(b'"');
    let size = value.abs();
    if let Some(whole) = whole(value) {
        if value < 0.0 {
            out.push(b'-');
        }
        push_integer(out, whole);
    } else if (1e-6..1e21).contains(&size) {
        write_to(out, format_args!("{value}"));
    } else {
        out.extend_from_slice(format_json_value(value).as_bytes());
    }
    out.push(b'"');
}

/// A float without an exponent, however long.
pub(super) fn push_plain_float(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else {
        write_to(out, format_args!("{value}"));
    }
}

/// The magnitude of a value that is a whole number, as most counters are; not of `-0`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "only whole numbers below 2^53 are converted, which is exact"
)]
fn whole(value: f64) -> Option<u64> {
    /// Below this every whole number is a float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let size = value.abs();
    let is_whole = size < EXACT && size.trunc() == size && !(value == 0.0 && value.is_sign_negative());
    is_whole.then_some(size as u64)
}

pub(super) fn push_integer(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(value % 10).expect("a digit fits a byte");
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

pub(super) fn write_to(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory does not fail");
}
