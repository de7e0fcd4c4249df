//! Quantities as a person writes them: `1h30m`, `512MiB`.
//!
//! A number without a unit is refused: who reads `timeout: 30` cannot know of what. The one exception
//! is `0`, which is none of every unit.

use std::{fmt, time::Duration};

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Units of size, largest first, so that printing takes the first that divides.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Units of time with their milliseconds, largest first; a duration names them in this order.
const TIME_UNITS: &[(&str, u64)] = &[
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl ByteSize {
    /// Reads `512MiB`, `1GB`, `100B` or `0`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (digits, unit) = split_number(text);
        let number: u64 =
            digits.parse().map_err(|_| format!("{text:?} is not a size, write for example 512MiB"))?;
        let factor = if unit.is_empty() && number == 0 {
            1
        } else if unit.is_empty() {
            return Err(format!("{text:?} has no unit, write for example {text}MiB"));
        } else {
            SIZE_UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .map(|(_, factor)| *factor)
                .ok_or_else(|| format!("{unit:?} is not a unit of size, use B, KiB, MiB, GiB or TiB"))?
        };
        number.checked_mul(factor).map(Self).ok_or_else(|| format!("{text:?} is too large"))
    }

    /// The size as a length in memory; what does not fit is as good as without bound.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, factor) = SIZE_UNITS
            .iter()
            .filter(|_| self.0 != 0)
            .find(|(_, factor)| self.0.is_multiple_of(*factor))
            .unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

/// Reads a duration as Prometheus writes it: `30d`, `1h30m`, `500ms`, `0`; every unit once, largest first.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let malformed = || format!("{text:?} is not a duration, write for example 30d, 1h30m or 500ms");
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("{text:?} has no unit, write for example {text}s"));
    }
    let mut units = TIME_UNITS.iter();
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (digits, after) = split_number(rest);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let number: u64 = digits.parse().map_err(|_| malformed())?;
        // Units already passed cannot come again, which rules out both repetition and disorder.
        let (_, millis) = units.find(|(name, _)| *name == unit).ok_or_else(malformed)?;
        total = number
            .checked_mul(*millis)
            .and_then(|millis| total.checked_add(millis))
            .filter(|total| i64::try_from(*total).is_ok())
            .ok_or_else(|| format!("{text:?} is too long"))?;
        rest = after;
    }
    if text.is_empty() { Err(malformed()) } else { Ok(Duration::from_millis(total)) }
}

/// Writes a duration the way [`parse_duration`] reads it.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0".to_owned();
    }
    let mut text = String::new();
    for (name, millis) in TIME_UNITS {
        // Years and weeks only when nothing else is left: 30d reads better than 4w2d.
        let exact_only = matches!(*name, "y" | "w");
        if rest >= *millis && (!exact_only || rest.is_multiple_of(*millis)) {
            text.push_str(&format!("{}{name}", rest / millis));
            rest %= millis;
        }
    }
    text
}

/// Splits leading digits from what follows.
fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_unit() {
        assert_eq!(ByteSize::parse("512MiB"), Ok(ByteSize(512 << 20)));
        assert_eq!(ByteSize::parse("1GB"), Ok(ByteSize(1_000_000_000)));
        assert_eq!(ByteSize::parse("0"), Ok(ByteSize(0)));
        assert!(ByteSize::parse("512").unwrap_err().contains("has no unit"));
        assert!(ByteSize::parse("512Mi").unwrap_err().contains("not a unit"));
        assert!(ByteSize::parse("-1B").unwrap_err().contains("not a size"));
        assert!(ByteSize::parse("").unwrap_err().contains("not a size"));
        assert!(ByteSize::parse("99999999TiB").unwrap_err().contains("too large"));
        assert!(ByteSize::parse("99999999999999999999B").unwrap_err().contains("not a size"));
    }

    #[test]
    fn a_size_prints_as_it_is_read() {
        for text in ["512MiB", "1GiB", "1000B", "3KiB", "1B", "5TiB"] {
            let size = ByteSize::parse(text).unwrap();
            assert_eq!(ByteSize::parse(&size.to_string()), Ok(size));
        }
        assert_eq!(ByteSize(32 << 20).to_string(), "32MiB");
        assert_eq!(ByteSize(0).to_string(), "0B");
    }

    #[test]
    fn a_duration_names_its_units_largest_first() {
        let millis = |text| parse_duration(text).map(|d| d.as_millis());
        assert_eq!(millis("30d"), Ok(30 * 86_400_000));
        assert_eq!(millis("1h30m"), Ok(5_400_000));
        assert_eq!(millis("500ms"), Ok(500));
        assert_eq!(millis("1y1w1d1h1m1s1ms"), Ok(32_230_861_001));
        assert_eq!(millis("0"), Ok(0));
        assert_eq!(millis("0s"), Ok(0));
        for wrong in ["", "h", "1", "-1s", "1.5h", "1m1h", "1s1s", "1 h", "1x", "5 m", "1h30"] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
        assert!(parse_duration("99999999999y").unwrap_err().contains("too long"));
        assert!(parse_duration("30").unwrap_err().contains("has no unit"));
    }

    #[test]
    fn a_duration_prints_as_it_is_read() {
        for text in ["30d", "1h30m", "500ms", "1y", "2w", "1m5s", "0"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
    }
}
