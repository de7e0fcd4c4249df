//! Reads OpenMetrics text line by line.
//!
//! Only sample lines matter here; comments are passed over, and so are timestamps and exemplars, which
//! our own exposition does not have. A line that does not parse ends the reading with its number.

use crate::model::{Labels, METRIC_NAME};

/// A line that is not OpenMetrics.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the exposition: {detail}")]
pub struct ExpositionError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub detail: String,
}

/// The samples of `text`; each gets the labels `target` on top, which win over its own.
pub fn parse(text: &str, target: &[(&str, &str)]) -> Result<Vec<(Labels, f64)>, ExpositionError> {
    let mut samples = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let sample = parse_line(line, target);
        samples.push(sample.map_err(|detail| ExpositionError { line: i + 1, detail })?);
    }
    Ok(samples)
}

fn parse_line(line: &str, target: &[(&str, &str)]) -> Result<(Labels, f64), String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() {
        return Err("no metric name".to_owned());
    }
    let mut pairs = vec![(METRIC_NAME.to_owned(), name.to_owned())];
    let rest = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest, &mut pairs)?,
        None => rest,
    };
    let value = rest.split_ascii_whitespace().next().ok_or("no value")?;
    let value = parse_value(value).ok_or_else(|| format!("{value:?} is not a number"))?;
    pairs.retain(|(name, _)| !target.iter().any(|(t, _)| t == name));
    pairs.extend(target.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
    let labels = Labels::from_pairs(pairs).map_err(|e| e.to_string())?;
    Ok((labels, value))
}

/// Reads `name="value",…}` and gives what follows.
fn parse_labels<'a>(text: &'a str, pairs: &mut Vec<(String, String)>) -> Result<&'a str, String> {
    let mut rest = text;
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        let (name, after) = rest.split_once("=\"").ok_or("labels do not end")?;
        let (value, after) = unescape(after).ok_or("a label's value does not end")?;
        pairs.push((name.to_owned(), value));
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

/// Reads up to the closing quote.
fn unescape(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            plain => value.push(plain),
        }
    }
    None
}

fn parse_value(text: &str) -> Option<f64> {
    match text {
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, f64)>, ExpositionError> {
        let samples = parse(text, &[("job", "me")])?;
        Ok(samples.into_iter().map(|(labels, value)| (labels.to_string(), value)).collect())
    }

    #[test]
    fn a_sample_is_a_name_labels_and_a_value() {
        let text = "# HELP a b\n# TYPE a counter\na_total 5\nb{x=\"1\",y=\"2\"} 1e3 # {t=\"x\"} 1\nc{} +Inf\n# EOF\n";
        assert_eq!(
            read(text).unwrap(),
            [
                ("{__name__=\"a_total\", job=\"me\"}".to_owned(), 5.0),
                ("{__name__=\"b\", job=\"me\", x=\"1\", y=\"2\"}".to_owned(), 1000.0),
                ("{__name__=\"c\", job=\"me\"}".to_owned(), f64::INFINITY),
            ]
        );
    }

    #[test]
    fn a_value_may_hold_quotes_braces_and_line_ends() {
        let samples = parse("a{x=\"q\\\"u\\\\o\\nt}e, =\\\"\"} 1\n", &[]).unwrap();
        assert_eq!(samples[0].0.get("x"), Some("q\"u\\o\nt}e, =\""));
    }

    #[test]
    fn the_target_has_the_last_word() {
        assert_eq!(read("a{job=\"other\"} 1").unwrap()[0].0, "{__name__=\"a\", job=\"me\"}");
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        for line in [
            "a",
            "a{",
            "a{x=\"1\"",
            "a{x=\"1} 2",
            "a x",
            "{x=\"1\"} 2",
            "a{} ",
            "a{x=\"1\",x=\"2\"} 1",
            "a{x=\"\\",
        ] {
            let error = read(&format!("ok 1\n{line}")).unwrap_err();
            assert_eq!(error.line, 2, "{line}");
        }
    }
}
