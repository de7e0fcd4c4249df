//! Shows the answer of the query API as a table of text.
//!
//! A vector is a line per series, a matrix a block per series with a line per sample. Columns are as
//! wide as their widest cell; control characters in labels are escaped, so that no label can
//! write to the terminal on its own.

use serde_json::Value;

use super::time::{as_date, seconds};
use crate::model::Timestamp;

/// The table of an answer's `data`, or none if it has an unknown shape.
pub fn render(data: &Value) -> Option<String> {
    let result = data.get("result")?;
    match data.get("resultType")?.as_str()? {
        "vector" => vector(result.as_array()?),
        "matrix" => matrix(result.as_array()?),
        "scalar" | "string" => {
            let (at, value) = sample(result)?;
            Some(format!("{value}  at {at}\n"))
        }
        _ => None,
    }
}

fn vector(series: &[Value]) -> Option<String> {
    if series.is_empty() {
        return Some("no series\n".to_owned());
    }
    let mut rows = vec![["SERIES".to_owned(), "VALUE".to_owned(), "TIME".to_owned()]];
    for one in series {
        let (at, value) = sample(one.get("value").or_else(|| one.get("histogram"))?)?;
        rows.push([name(one.get("metric")?)?, value, at]);
    }
    Some(columns(&rows))
}

fn matrix(series: &[Value]) -> Option<String> {
    if series.is_empty() {
        return Some("no series\n".to_owned());
    }
    let mut text = String::new();
    for one in series {
        text.push_str(&name(one.get("metric")?)?);
        text.push('\n');
        let mut rows = Vec::new();
        for list in ["values", "histograms"] {
            for point in one.get(list).and_then(Value::as_array).into_iter().flatten() {
                let (at, value) = sample(point)?;
                rows.push([format!("  {at}"), value]);
            }
        }
        text.push_str(&columns(&rows));
    }
    Some(text)
}

/// Time and value of `[time, value]`; of a histogram its count and sum.
fn sample(point: &Value) -> Option<(String, String)> {
    let (at, value) = (point.get(0)?, point.get(1)?);
    let at = as_date(Timestamp(seconds(&at.as_number()?.to_string())?));
    let value = match value {
        Value::String(value) => escaped(value),
        Value::Object(histogram) => {
            let part = |name: &str| histogram.get(name).and_then(Value::as_str).unwrap_or("?");
            format!("histogram count={} sum={}", part("count"), part("sum"))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => return None,
    };
    Some((at, value))
}

/// `name{label="value"}`, as it would be typed.
fn name(metric: &Value) -> Option<String> {
    let labels = metric.as_object()?;
    let mut text = labels.get("__name__").and_then(Value::as_str).map(escaped).unwrap_or_default();
    let others: Vec<String> = labels
        .iter()
        .filter(|(label, _)| *label != "__name__")
        .map(|(label, value)| Some(format!("{}={:?}", escaped(label), value.as_str()?)))
        .collect::<Option<_>>()?;
    if !others.is_empty() || text.is_empty() {
        text.push_str(&format!("{{{}}}", others.join(", ")));
    }
    Some(text)
}

fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// Rows of cells as lines, each column as wide as its widest cell.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_vector_is_a_line_per_series() {
        let data = json!({"resultType": "vector", "result": [
            {"metric": {"__name__": "up", "job": "api"}, "value": [1767225600.5, "1"]},
            {"metric": {}, "value": [1767225600, "+Inf"]},
        ]});
        assert_eq!(
            render(&data).unwrap(),
            "SERIES         VALUE  TIME\n\
             up{job=\"api\"}  1      2026-01-01T00:00:00.5Z\n\
             {}             +Inf   2026-01-01T00:00:00Z\n"
        );
    }

    #[test]
    fn a_matrix_is_a_block_per_series() {
        let data = json!({"resultType": "matrix", "result": [
            {"metric": {"__name__": "up"}, "values": [[0, "1"], [15, "0"]],
             "histograms": [[30, {"count": "2", "sum": "3"}]]},
        ]});
        assert_eq!(
            render(&data).unwrap(),
            "up\n  1970-01-01T00:00:00Z  1\n  1970-01-01T00:00:15Z  0\n  \
             1970-01-01T00:00:30Z  histogram count=2 sum=3\n"
        );
    }

    #[test]
    fn a_scalar_is_its_value() {
        let data = json!({"resultType": "scalar", "result": [0, "7"]});
        assert_eq!(render(&data).unwrap(), "7  at 1970-01-01T00:00:00Z\n");
    }

    #[test]
    fn nothing_found_is_said() {
        assert_eq!(render(&json!({"resultType": "vector", "result": []})).unwrap(), "no series\n");
    }

    #[test]
    fn a_label_cannot_write_to_the_terminal() {
        let data = json!({"resultType": "vector", "result": [
            {"metric": {"a": "\u{1b}[31m\n"}, "value": [0, "\u{7}"]},
        ]});
        let text = render(&data).unwrap();
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text}");
    }

    #[test]
    fn another_shape_is_none() {
        for data in [
            json!(null),
            json!({"resultType": "vector"}),
            json!({"resultType": "tensor", "result": []}),
            json!({"resultType": "vector", "result": [{}]}),
            json!({"resultType": "scalar", "result": ["x", "1"]}),
        ] {
            assert_eq!(render(&data), None);
        }
    }
}
