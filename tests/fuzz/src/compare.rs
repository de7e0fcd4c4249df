//! Whether two answers are the same to the bit; one NaN is as good as another.

use std::collections::BTreeMap;

use luminate::{
    model::Labels,
    promql::{Answer, MatrixSeries, Point, Value, VectorElement, histogram::FloatHistogram},
};

fn float(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

fn floats(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| float(*a, *b))
}

fn histogram(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    a.schema == b.schema
        && a.reset_hint == b.reset_hint
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && [
            (a.zero_threshold, b.zero_threshold),
            (a.zero_count, b.zero_count),
            (a.count, b.count),
            (a.sum, b.sum),
        ]
        .into_iter()
        .all(|(a, b)| float(a, b))
        && floats(&a.positive_buckets, &b.positive_buckets)
        && floats(&a.negative_buckets, &b.negative_buckets)
        && floats(&a.custom_values, &b.custom_values)
}

/// Whether two points are the same.
pub fn point(a: &Point, b: &Point) -> bool {
    match (a, b) {
        (Point::Float(a), Point::Float(b)) => float(*a, *b),
        (Point::Histogram(a), Point::Histogram(b)) => histogram(a, b),
        _ => false,
    }
}

fn element(a: &VectorElement, b: &VectorElement) -> bool {
    a.labels == b.labels && a.timestamp == b.timestamp && point(&a.value, &b.value)
}

fn series(a: &MatrixSeries, b: &MatrixSeries) -> bool {
    a.labels == b.labels
        && a.floats.len() == b.floats.len()
        && a.floats.iter().zip(&b.floats).all(|(a, b)| a.0 == b.0 && float(a.1, b.1))
        && a.histograms.len() == b.histograms.len()
        && a.histograms.iter().zip(&b.histograms).all(|(a, b)| a.0 == b.0 && histogram(&a.1, &b.1))
}

/// Whether two results are the same, in the same order.
pub fn value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Scalar { timestamp: at, value: a }, Value::Scalar { timestamp: bt, value: b }) => {
            at == bt && float(*a, *b)
        }
        (Value::Vector(a), Value::Vector(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| element(a, b))
        }
        (Value::Matrix(a), Value::Matrix(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| series(a, b))
        }
        (a, b) => a == b,
    }
}

/// Whether two answers are the same, in all but how much memory they took.
pub fn answer(a: &Answer, b: &Answer) -> bool {
    value(&a.value, &b.value)
        && a.warnings == b.warnings
        && a.infos == b.infos
        && a.stats.total_queryable_samples == b.stats.total_queryable_samples
        && a.stats.samples_read == b.stats.samples_read
}

/// What a result has at an instant.
pub fn at(value: &Value, instant: i64) -> BTreeMap<Labels, Point> {
    let mut all = BTreeMap::new();
    let mut put = |labels: &Labels, point: Point| {
        let before = all.insert(labels.clone(), point);
        assert!(before.is_none(), "{labels:?} is there twice at {instant}");
    };
    match value {
        Value::Scalar { value, .. } => put(&Labels::empty(), Point::Float(*value)),
        Value::String { .. } => {}
        Value::Vector(elements) => {
            for element in elements {
                assert_eq!(element.timestamp, instant);
                put(&element.labels, element.value.clone());
            }
        }
        Value::Matrix(all) => {
            for series in all {
                for (_, value) in series.floats.iter().filter(|(at, _)| *at == instant) {
                    put(&series.labels, Point::Float(*value));
                }
                for (_, value) in series.histograms.iter().filter(|(at, _)| *at == instant) {
                    put(&series.labels, Point::Histogram(value.clone()));
                }
            }
        }
    }
    all
}

/// Whether two results have the same at an instant.
pub fn same_at(a: &BTreeMap<Labels, Point>, b: &BTreeMap<Labels, Point>) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((a, x), (b, y))| a == b && point(x, y))
}
