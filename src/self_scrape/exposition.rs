//! Reads OpenMetrics text line by line.
//!
//! Sample lines matter here, and what `# TYPE`, `# HELP` and `# UNIT` say of their families. Timestamps and
//! exemplars, which our own exposition does not have, are passed over. A line that does not parse ends the
//! reading with its number.

use crate::model::{Labels, METRIC_NAME, Metadata, MetricType};

/// What a text says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition {
    /// Its samples.
    pub samples: Vec<(Labels, f64)>,
    /// What it tells of its families, in their order.
    pub metadata: Vec<Metadata>,
}

/// A line that is not OpenMetrics.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the exposition: {detail}")]
pub struct ExpositionError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub detail: String,
}

/// Reads `text`; each of its samples gets the labels `target` on top, which win over its own.
pub fn parse(text: &str, target: &[(&str, &str)]) -> Result<Exposition, ExpositionError> {
    let mut exposition = Exposition::default();
    for (i, line) in text.lines().enumerate() {
        if let Some(comment) = line.strip_prefix("# ") {
            note(comment, &mut exposition.metadata);
        } else if !line.is_empty() && !line.starts_with('#') {
            let sample = parse_line(line, target);
            exposition.samples.push(sample.map_err(|detail| ExpositionError { line: i + 1, detail })?);
        }
    }
    Ok(exposition)
}

/// Takes in what a comment says of a family, which may have been spoken of just before.
fn note(comment: &str, families: &mut Vec<Metadata>) {
    let mut words = comment.splitn(3, ' ');
    let (Some(what @ ("TYPE" | "HELP" | "UNIT")), Some(metric), Some(says)) =
        (words.next(), words.next(), words.next())
    else {
        return;
    };
    if families.last().is_none_or(|family| family.metric != metric) {
        families.push(Metadata {
            metric: metric.to_owned(),
            kind: MetricType::Unknown,
            help: String::new(),
            unit: String::new(),
        });
    }
    let family = families.last_mut().expect("there is one now");
    match what {
        "TYPE" => {
            let kind = MetricType::ALL.into_iter().find(|kind| kind.as_str() == says);
            family.kind = kind.unwrap_or_default();
        }
        "HELP" => family.help = says.to_owned(),
        _ => family.unit = says.to_owned(),
    }
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
        let read = parse(text, &[("job", "me")])?;
        Ok(read.samples.into_iter().map(|(labels, value)| (labels.to_string(), value)).collect())
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
        let samples = parse("a{x=\"q\\\"u\\\\o\\nt}e, =\\\"\"} 1\n", &[]).unwrap().samples;
        assert_eq!(samples[0].0.get("x"), Some("q\"u\\o\nt}e, =\""));
    }

    #[test]
    fn comments_tell_of_families() {
        let text = "# HELP a How many: a b\n# TYPE a counter\n# UNIT a bytes\na_total 1\n# TYPE b odd\n# b\n#\n# EOF\n";
        let family = |metric: &str, kind, help: &str, unit: &str| Metadata {
            metric: metric.to_owned(),
            kind,
            help: help.to_owned(),
            unit: unit.to_owned(),
        };
        assert_eq!(
            parse(text, &[]).unwrap().metadata,
            [
                family("a", MetricType::Counter, "How many: a b", "bytes"),
                family("b", MetricType::Unknown, "", ""),
            ]
        );
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
