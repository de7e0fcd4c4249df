//! Any answer is written as JSON that another reader understands, every number to the bit; any parameters are read or
//! refused, and those that were written are read.
#![no_main]

use std::{fmt::Write, sync::Arc};

use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use luminate::{
    gateway::{
        form::{Form, parse_duration, parse_time},
        wire::json::{self, StatsDetail},
    },
    model::Labels,
    promql::{Answer, MatrixSeries, Point, QueryStats, Value, VectorElement, histogram::FloatHistogram},
    query::Listed,
};
use luminate_fuzz::{below, data, one_of};
use serde_json::Value as Json;

const TEXTS: &[&str] =
    &["a", "", "\"\\/", "<&>\u{2028}\u{2029}", "\u{0}\n\r\t\u{1b}\u{7f}", "é\u{1f980}", "__name__", "=&%+;"];

fn text(bytes: &mut Unstructured<'_>) -> String {
    match below(bytes, 3) {
        0 => (*one_of(bytes, TEXTS)).to_owned(),
        _ => bytes.arbitrary().unwrap_or_default(),
    }
}

fn texts(bytes: &mut Unstructured<'_>) -> Vec<String> {
    (0..below(bytes, 4)).map(|_| text(bytes)).collect()
}

fn labels(bytes: &mut Unstructured<'_>) -> Labels {
    let pairs: Vec<(String, String)> = (0..below(bytes, 4)).map(|_| (text(bytes), text(bytes))).collect();
    Labels::from_pairs(pairs).unwrap_or_else(|_| Labels::empty())
}

fn float(bytes: &mut Unstructured<'_>) -> f64 {
    match below(bytes, 4) {
        0 => f64::from(below(bytes, 1000)) / 8.0,
        1 => *one_of(
            bytes,
            &[
                1e21,
                1e-6,
                9.99e20,
                1e-7,
                -0.0,
                f64::NAN,
                f64::INFINITY,
                f64::MAX,
                5e-324,
                -1e21,
                123_456_789e3,
            ],
        ),
        _ => f64::from_bits(bytes.arbitrary().unwrap_or(0)),
    }
}

fn time(bytes: &mut Unstructured<'_>) -> i64 {
    match below(bytes, 3) {
        0 => i64::from(below(bytes, 2_000_000)),
        1 => *one_of(bytes, &[0, -1, -1500, i64::MIN, i64::MAX, 1_700_000_000_001]),
        _ => bytes.arbitrary().unwrap_or(0),
    }
}

fn histogram(bytes: &mut Unstructured<'_>) -> Arc<FloatHistogram> {
    Arc::new(FloatHistogram::from_histogram(&data::histogram(bytes)))
}

fn answer(bytes: &mut Unstructured<'_>) -> Answer {
    let value = match below(bytes, 4) {
        0 => Value::Vector(
            (0..below(bytes, 4))
                .map(|_| {
                    let value = match below(bytes, 2) {
                        0 => Point::Float(float(bytes)),
                        _ => Point::Histogram(histogram(bytes)),
                    };
                    VectorElement { labels: labels(bytes), timestamp: time(bytes), value }
                })
                .collect(),
        ),
        1 => Value::Matrix(
            (0..below(bytes, 4))
                .map(|_| MatrixSeries {
                    labels: labels(bytes),
                    floats: (0..below(bytes, 5)).map(|_| (time(bytes), float(bytes))).collect(),
                    histograms: (0..below(bytes, 3)).map(|_| (time(bytes), histogram(bytes))).collect(),
                })
                .collect(),
        ),
        2 => Value::Scalar { timestamp: time(bytes), value: float(bytes) },
        _ => Value::String { timestamp: time(bytes), value: text(bytes) },
    };
    let stats = QueryStats {
        total_queryable_samples: bytes.arbitrary().unwrap_or(0),
        total_queryable_samples_per_step: (0..below(bytes, 3)).map(|_| (time(bytes), 7)).collect(),
        evaluate_seconds: f64::from(below(bytes, 1000)) / 1e6,
        ..QueryStats::default()
    };
    Answer { value, warnings: texts(bytes), infos: texts(bytes), stats }
}

fn parsed(written: &[u8]) -> Json {
    serde_json::from_slice(written).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(written)))
}

fn assert_texts(read: &Json, written: &[String]) {
    let read: Vec<&str> =
        read.as_array().into_iter().flatten().map(|text| text.as_str().expect("a text")).collect();
    assert_eq!(read, written);
}

fn assert_labels(read: &Json, written: &Labels) {
    let read = read.as_object().expect("an object");
    assert_eq!(read.len(), written.len());
    for (name, value) in written.iter() {
        assert_eq!(read[name], value, "{name:?}");
    }
}

/// Seconds; whole ones exactly, others as well as the reader reads them.
fn assert_time(read: &Json, written: i64) {
    if let Some(seconds) = read.as_i64() {
        assert_eq!(seconds.checked_mul(1000), Some(written));
    } else {
        assert_float_time(read, written);
    }
}

/// Seconds as a float, which whole ones may be too many for.
fn assert_float_time(read: &Json, written: i64) {
    let (seconds, wanted) = (read.as_f64().expect("a number"), written as f64 / 1000.0);
    assert!((seconds - wanted).abs() <= wanted.abs() * 1e-12, "{seconds} is not {wanted}");
}

fn assert_float(read: &Json, written: f64) {
    let number: f64 = read.as_str().and_then(|text| text.parse().ok()).expect("a number in quotes");
    assert!(
        number.to_bits() == written.to_bits() || number.is_nan() && written.is_nan(),
        "{read} is not {written:?}"
    );
}

fn assert_histogram(read: &Json, written: &FloatHistogram) {
    assert_float(&read["count"], written.count);
    assert_float(&read["sum"], written.sum);
    let wanted: Vec<_> = written.all_buckets().filter(|bucket| bucket.count != 0.0).collect();
    let buckets = read.get("buckets").map_or(&[][..], |buckets| buckets.as_array().expect("a list"));
    assert_eq!(buckets.len(), wanted.len());
    for (read, wanted) in buckets.iter().zip(wanted) {
        assert_eq!(read[0], wanted.boundary_rule());
        assert_float(&read[1], wanted.lower);
        assert_float(&read[2], wanted.upper);
        assert_float(&read[3], wanted.count);
    }
}

fn assert_answer(answer: &Answer, detail: StatsDetail) {
    let read = parsed(&json::answer(answer, detail));
    assert_eq!(read["status"], "success");
    assert_texts(&read["warnings"], &answer.warnings);
    assert_texts(&read["infos"], &answer.infos);
    assert_eq!(read["data"].get("stats").is_some(), detail != StatsDetail::None);
    let result = &read["data"]["result"];
    match &answer.value {
        Value::Scalar { timestamp, value } => {
            assert_float_time(&result[0], *timestamp);
            assert_float(&result[1], *value);
        }
        Value::String { timestamp, value } => {
            assert_float_time(&result[0], *timestamp);
            assert_eq!(result[1], **value);
        }
        Value::Vector(elements) => {
            assert_eq!(result.as_array().map(Vec::len), Some(elements.len()));
            for (i, element) in elements.iter().enumerate() {
                assert_labels(&result[i]["metric"], &element.labels);
                let point = match &element.value {
                    Point::Float(value) => {
                        assert_float(&result[i]["value"][1], *value);
                        &result[i]["value"]
                    }
                    Point::Histogram(histogram) => {
                        assert_histogram(&result[i]["histogram"][1], histogram);
                        &result[i]["histogram"]
                    }
                };
                assert_time(&point[0], element.timestamp);
            }
        }
        Value::Matrix(series) => {
            assert_eq!(result.as_array().map(Vec::len), Some(series.len()));
            for (i, series) in series.iter().enumerate() {
                assert_labels(&result[i]["metric"], &series.labels);
                let floats =
                    result[i].get("values").map_or(0, |values| values.as_array().map_or(0, Vec::len));
                assert_eq!(floats, series.floats.len());
                for (k, (at, value)) in series.floats.iter().enumerate() {
                    assert_time(&result[i]["values"][k][0], *at);
                    assert_float(&result[i]["values"][k][1], *value);
                }
                for (k, (at, value)) in series.histograms.iter().enumerate() {
                    assert_time(&result[i]["histograms"][k][0], *at);
                    assert_histogram(&result[i]["histograms"][k][1], value);
                }
            }
        }
    }
}

/// A form as browsers write it.
fn encoded(pairs: &[(String, String)]) -> String {
    let mut form = String::new();
    for (name, value) in pairs {
        for (text, end) in [(name, '='), (value, '&')] {
            for byte in text.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => form.push(char::from(byte)),
                    b' ' => form.push('+'),
                    _ => write!(form, "%{byte:02X}").expect("a text grows"),
                }
            }
            form.push(end);
        }
    }
    form
}

fuzz_target!(|input: &[u8]| {
    let mut bytes = Unstructured::new(input);
    let detail = *one_of(&mut bytes, &[StatsDetail::None, StatsDetail::Totals, StatsDetail::PerStep]);
    assert_answer(&answer(&mut bytes), detail);

    let list = texts(&mut bytes);
    let read = parsed(&json::names(&Listed { items: list.clone(), warnings: list.clone() }));
    assert_texts(&read["data"], &list);
    assert_texts(&read["warnings"], &list);
    let series = labels(&mut bytes);
    let read = parsed(&json::series(&Listed { items: vec![series.clone()], warnings: Vec::new() }));
    assert_labels(&read["data"][0], &series);
    let message = text(&mut bytes);
    assert_eq!(parsed(&json::failure("bad_data", &message))["error"], *message);

    let pairs: Vec<(String, String)> =
        (0..below(&mut bytes, 4)).map(|_| (text(&mut bytes), text(&mut bytes))).collect();
    let form = encoded(&pairs);
    for read in [Form::parse(&form, b""), Form::parse("", form.as_bytes())] {
        let read = read.unwrap_or_else(|_| panic!("{form}"));
        for (name, _) in &pairs {
            let wanted: Vec<&String> =
                pairs.iter().filter(|(n, _)| n == name).map(|(_, value)| value).collect();
            assert_eq!(read.all(name).iter().collect::<Vec<_>>(), wanted, "{name:?} in {form}");
        }
    }
    let rest = bytes.take_rest();
    let url = String::from_utf8_lossy(rest);
    if let Ok(form) = Form::parse(&url, rest) {
        // Whatever they make of it.
        let _ = (
            form.time("a"),
            form.required_time("b"),
            form.duration("c"),
            form.timeout(),
            form.limit(),
            form.count("d"),
        );
    }
    if let Ok(duration) = parse_duration(&url) {
        let _ = parse_duration(&format!("{}ms", duration.millis())).map(|again| assert_eq!(again, duration));
    }
    if let Ok(time) = parse_time(&url) {
        assert!(
            parse_time(&format!("{}.{:03}", time.0 / 1000, (time.0 % 1000).abs())).is_ok()
                || time.0.abs() > 1 << 52
        );
    }
});
