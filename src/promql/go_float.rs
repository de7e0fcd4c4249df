//! Floats as Go's `strconv` and `fmt` write and read them, because answers and messages are compared as text.
//!
//! | form | used for | `1e6` | `1e30` | `1e-7` |
//! |---|---|---|---|---|
//! | [`format_f`] | scalars, `count_values` | `1000000` | `1000…0` | `0.0000001` |
//! | [`format_json_value`] | sample values | `1000000` | `1e+30` | `1e-07` |
//! | [`format_g`] | messages, histograms | `1e+06` | `1e+30` | `1e-07` |
//!
//! All are the shortest digits that read back to the same float; they differ in where the exponent starts.
//! Where two such are equally near, Go takes the even one and Rust the larger; [`even_if_tied`] makes up for it.

/// Writes without an exponent, however long (`strconv`'s `'f'`).
pub fn format_f(value: f64) -> String {
    special(value).map_or_else(|| plain(value), str::to_owned)
}

/// Writes as the JSON of a sample does: an exponent below 1e-6 and from 1e21 on.
pub fn format_json_value(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && size.is_finite() && !(1e-6..1e21).contains(&size) {
        exponent_form(&scientific(value))
    } else {
        format_f(value)
    }
}

/// Writes as `%g` and `%v` do: an exponent below 1e-4 and from 1e6 on, all digits either way.
///
/// So 123456 is `123456`, and 1234567 is `1.234567e+06`.
pub fn format_g(value: f64) -> String {
    if let Some(text) = special(value) {
        return text.to_owned();
    }
    general(&scientific(value), 6, value)
}

/// Writes as `%.Ng` does: at most `digits` significant digits, without trailing zeros.
pub fn format_g_digits(value: f64, digits: usize) -> String {
    if let Some(text) = special(value) {
        return text.to_owned();
    }
    let digits = digits.max(1);
    let scientific = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let mantissa =
        if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    let short = format!("{mantissa}e{exponent}");
    let rounded = short.parse().unwrap_or(value);
    general(&short, i32::try_from(digits).unwrap_or(i32::MAX), rounded)
}

/// Writes as OpenMetrics label values are written: like `%g`, with `.0` behind whole numbers.
pub fn format_open_metrics(value: f64) -> String {
    let text = format_g(value);
    if value.is_finite() && !text.contains(['e', '.']) { format!("{text}.0") } else { text }
}

/// Reads what Go's `strconv.ParseFloat` reads, values out of range excepted.
pub fn parse_go_float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let negative = text.starts_with('-');
    if unsigned.eq_ignore_ascii_case("inf") || unsigned.eq_ignore_ascii_case("infinity") {
        return Some(if negative { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    if text.eq_ignore_ascii_case("nan") {
        return Some(f64::NAN);
    }
    let unsigned = without_underscores(unsigned)?;
    let hex = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X"));
    let size = match hex {
        Some(digits) => parse_hex(digits)?,
        None if unsigned.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b)) => {
            // Rust would take a second sign here; Go does not.
            if unsigned.starts_with(['+', '-']) {
                return None;
            }
            unsigned.parse::<f64>().ok()?
        }
        None => return None,
    };
    size.is_finite().then_some(if negative { -size } else { size })
}

fn special(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value == f64::INFINITY {
        Some("+Inf")
    } else if value == f64::NEG_INFINITY {
        Some("-Inf")
    } else {
        None
    }
}

/// Picks between the exponent form and the plain form of `value`, which in Rust's exponent form is `scientific`.
fn general(scientific: &str, precision: i32, value: f64) -> String {
    let exponent = scientific.split_once('e').and_then(|(_, e)| e.parse::<i32>().ok()).unwrap_or(0);
    if exponent < -4 || exponent >= precision { exponent_form(scientific) } else { plain(value) }
}

/// Rust's form without an exponent.
fn plain(value: f64) -> String {
    even_if_tied(value, value.to_string())
}

/// Rust's form with an exponent.
fn scientific(value: f64) -> String {
    even_if_tied(value, format!("{value:e}"))
}

/// Digits that no float has a tie below: with fewer, the next digit could not be lost.
const DIGITS_WITHOUT_TIES: usize = 15;

/// Bits behind the point that no float has a tie beyond: each is a digit more than the shortest has.
const BITS_WITH_TIES: i64 = 26;

/// The even one of the two shortest texts, if the value lies in the middle between them: 1772322653.25390625 is
/// 1772322653.2539062.
fn even_if_tied(value: f64, mut text: String) -> String {
    let end = text.find('e').unwrap_or(text.len());
    let Some(last) = text[..end].rfind(|c| ('1'..='9').contains(&c)) else { return text };
    let odd = text.as_bytes()[last] % 2 == 1;
    if !odd || last < DIGITS_WITHOUT_TIES || bits_behind_the_point(value) > BITS_WITH_TIES {
        return text;
    }
    let digits = text[..=last].bytes().filter(u8::is_ascii_digit).skip_while(|b| *b == b'0').count();
    // No float has more digits than these.
    let exact = format!("{value:.770e}");
    let mut exact = exact.bytes().take_while(|b| *b != b'e').filter(u8::is_ascii_digit);
    let below = exact.nth(digits.saturating_sub(1));
    let tied = exact.next() == Some(b'5') && exact.all(|b| b == b'0');
    if let (true, Some(below)) = (tied, below) {
        let even = if below % 2 == 0 { below } else { below + 1 };
        text.replace_range(last..=last, char::from(even).encode_utf8(&mut [0; 4]));
    }
    text
}

/// How many binary digits behind the point a float has.
fn bits_behind_the_point(value: f64) -> i64 {
    const FRACTION_BITS: u32 = 52;
    let bits = value.to_bits();
    let exponent = i64::try_from(bits >> FRACTION_BITS & 0x7ff).unwrap_or_default();
    let mantissa = bits & ((1 << FRACTION_BITS) - 1) | 1 << FRACTION_BITS;
    1075 - exponent - i64::from(mantissa.trailing_zeros())
}

/// Rust's `1.5e-7` as Go's `1.5e-07`.
fn exponent_form(scientific: &str) -> String {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// Takes out underscores that stand between digits (or after `0x`); others make the number malformed.
fn without_underscores(text: &str) -> Option<String> {
    if !text.contains('_') {
        return Some(text.to_owned());
    }
    let bytes = text.as_bytes();
    let digit = |i: Option<usize>| {
        i.and_then(|i| bytes.get(i))
            .is_some_and(|b| b.is_ascii_hexdigit() || (i == Some(1) && b"xX".contains(b)))
    };
    let placed = |i: usize| digit(i.checked_sub(1)) && digit(i.checked_add(1));
    let all_placed = bytes.iter().enumerate().all(|(i, b)| *b != b'_' || placed(i));
    all_placed.then(|| text.replace('_', ""))
}

/// Reads `1.8p-3`, what follows `0x`; the exponent is not optional.
fn parse_hex(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    if exponent.trim_start_matches(['+', '-']).is_empty()
        || !exponent.strip_prefix(['+', '-']).unwrap_or(exponent).bytes().all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let exponent =
        exponent.parse::<i64>().unwrap_or(if exponent.starts_with('-') { -1 << 20 } else { 1 << 20 });
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (mut bits, mut scale) = (0_u64, 0_i64);
    for (place, c) in whole.chars().map(|c| (false, c)).chain(fraction.chars().map(|c| (true, c))) {
        let digit = u64::from(c.to_digit(16)?);
        if bits >> 58 == 0 {
            bits = bits << 4 | digit;
            scale -= if place { 4 } else { 0 };
        } else {
            // What no longer fits only decides how to round.
            bits |= u64::from(digit != 0);
            scale += if place { 0 } else { 4 };
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "rounding to a float is what reading a float is")]
    let mantissa = bits as f64;
    Some(scale_by_power_of_two(mantissa, scale.saturating_add(exponent)))
}

/// `value * 2^exponent` without an intermediate overflow or underflow.
pub(crate) fn scale_by_power_of_two(value: f64, exponent: i64) -> f64 {
    let (mut value, mut rest) = (value, exponent.clamp(-5000, 5000));
    while rest != 0 && value != 0.0 && value.is_finite() {
        let part = rest.clamp(-1000, 1000);
        value *= 2_f64.powi(i32::try_from(part).unwrap_or(0));
        rest -= part;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        // (value, 'f', JSON, 'g')
        let table: &[(f64, &str, &str, &str)] = &[
            (0.0, "0", "0", "0"),
            (-0.0, "-0", "-0", "-0"),
            (1.0, "1", "1", "1"),
            (0.1, "0.1", "0.1", "0.1"),
            (-2.5, "-2.5", "-2.5", "-2.5"),
            (100_000.0, "100000", "100000", "100000"),
            (1_000_000.0, "1000000", "1000000", "1e+06"),
            (123_456_789.0, "123456789", "123456789", "1.23456789e+08"),
            (123_456.789, "123456.789", "123456.789", "123456.789"),
            (0.0001, "0.0001", "0.0001", "0.0001"),
            (0.00001, "0.00001", "0.00001", "1e-05"),
            (0.000001, "0.000001", "0.000001", "1e-06"),
            (0.0000001, "0.0000001", "1e-07", "1e-07"),
            (1e20, "100000000000000000000", "100000000000000000000", "1e+20"),
            (1e21, "1000000000000000000000", "1e+21", "1e+21"),
            (-1e30, "-1000000000000000000000000000000", "-1e+30", "-1e+30"),
            (1.5e-300, &format!("0.{}15", "0".repeat(299)), "1.5e-300", "1.5e-300"),
            (f64::NAN, "NaN", "NaN", "NaN"),
            (f64::INFINITY, "+Inf", "+Inf", "+Inf"),
            (f64::NEG_INFINITY, "-Inf", "-Inf", "-Inf"),
            (5e-324, &format!("0.{}5", "0".repeat(323)), "5e-324", "5e-324"),
        ];
        for (value, f, json, g) in table {
            assert_eq!(format_f(*value), *f);
            assert_eq!(format_json_value(*value), *json);
            assert_eq!(format_g(*value), *g);
        }
    }

    #[test]
    fn of_two_equally_near_texts_the_even_one_is_taken() {
        let tied = 1_772_322_653.0 + 65.0 / 256.0;
        for (value, text) in [
            (tied, "1772322653.2539062"),
            (-tied, "-1772322653.2539062"),
            (tied + 2.0 / 256.0, "1772322653.2617188"),
            // Not in the middle.
            (0.1 + 0.2, "0.30000000000000004"),
            (1772322653.3, "1772322653.3"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(format_json_value(value), text);
            assert_eq!(parse_go_float(text), Some(value));
        }
        assert_eq!(format_g(tied), "1.7723226532539062e+09");
        // In steps of 2^-8 every second value of this size has 18 digits of which the last is a 5.
        for n in 0..2000 {
            let value = 1772322653.0 + f64::from(2 * n + 1) / 256.0;
            let (text, exact) = (format_f(value), format!("{value:.8}"));
            let kept = exact.strip_suffix('5').expect("an odd number of 256ths ends in a 5");
            let even = text.ends_with(['2', '8', '4', '6']);
            assert!(even && text[..text.len() - 1] == kept[..kept.len() - 1], "{text} of {exact}");
        }
    }

    #[test]
    fn a_precision_counts_significant_digits() {
        for (value, text) in [
            (0.123, "0.12"),
            (12.0, "12"),
            (5.0, "5"),
            (100.0, "1e+02"),
            (99.9, "1e+02"),
            (0.00001234, "1.2e-05"),
            (0.0001, "0.0001"),
            (0.0, "0"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(format_g_digits(value, 2), text);
        }
    }

    #[test]
    fn open_metrics_floats_have_a_point() {
        for (value, text) in [(0.0, "0.0"), (1.0, "1.0"), (0.25, "0.25"), (1e6, "1e+06"), (f64::NAN, "NaN")] {
            assert_eq!(format_open_metrics(value), text);
        }
    }

    #[test]
    fn what_go_reads_is_read() {
        for (text, value) in [
            ("1", 1.0),
            (".2", 0.2),
            ("5.", 5.0),
            ("1e0", 1.0),
            ("+1.5E-3", 0.0015),
            ("-0.1", -0.1),
            ("Inf", f64::INFINITY),
            ("+inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("0x1p-2", 0.25),
            ("-0X1.8p1", -3.0),
            ("0x_1p0", 1.0),
            ("1_000", 1000.0),
            ("0x1fffffffffffffffffp-4", 36893488147419103231.9375),
        ] {
            assert_eq!(parse_go_float(text), Some(value), "{text}");
        }
        assert!(parse_go_float("nan").is_some_and(f64::is_nan));
        for text in [
            "", "+", "-nan", "1e", "1e400", "0x1", "0xp1", "0x1p", "0x1p+-1", "1__0", "_1", "1_", "++1",
            "+-1", " 1", "1d", "infin", "é", ".",
        ] {
            assert_eq!(parse_go_float(text), None, "{text}");
        }
    }

    #[test]
    fn the_json_form_reads_back_to_the_bit() {
        for bits in (0..64).flat_map(|i| [1_u64 << i, u64::MAX >> i, 0x3ff0_0000_0000_0000 ^ (1 << i)]) {
            let value = f64::from_bits(bits);
            if value.is_finite() {
                for text in [format_f(value), format_json_value(value), format_g(value)] {
                    assert_eq!(parse_go_float(&text).map(f64::to_bits), Some(bits), "{text}");
                }
            }
        }
    }
}
