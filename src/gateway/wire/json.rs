//! Answers as Prometheus writes them, byte for byte.
//!
//! An answer is `{"status":"success","data":…}`, a failure
//! `{"status":"error","errorType":…,"error":…}`; warnings and infos follow if there are any. Matrices
//! are the bulk of what is ever written here, so everything is appended to one buffer by hand (`tokens`).

use super::tokens::{
    push_comma, push_float_time, push_labels, push_list, push_plain_float, push_text, push_time, push_value,
    write_to,
};
use crate::{
    model::{Labels, Metadata},
    promql::{Answer, MatrixSeries, Point, QueryStats, Value, VectorElement, histogram::FloatHistogram},
    query::Listed,
    storage::SeriesExemplars,
};

/// What the answers below are.
pub const CONTENT_TYPE: &str = "application/json";

/// How much of a query's cost is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsDetail {
    /// Nothing.
    None,
    /// Totals.
    Totals,
    /// Totals, and samples per step.
    PerStep,
}

/// Writes a failure.
pub fn failure(kind: &str, message: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + message.len());
    out.extend_from_slice(br#"{"status":"error","errorType":"#);
    push_text(&mut out, kind);
    out.extend_from_slice(br#","error":"#);
    push_text(&mut out, message);
    out.push(b'}');
    out
}

/// Writes a query's answer.
pub fn answer(answer: &Answer, stats: StatsDetail) -> Vec<u8> {
    answer_unless(answer, stats, &|| false).unwrap_or_default()
}

/// Writes a query's answer, unless that is over before it is done.
pub fn answer_unless(answer: &Answer, stats: StatsDetail, is_over: &dyn Fn() -> bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(size_hint(&answer.value));
    out.extend_from_slice(br#"{"status":"success","data":{"resultType":"#);
    match &answer.value {
        Value::Scalar { timestamp, value } => {
            out.extend_from_slice(br#""scalar","result":["#);
            push_float_time(&mut out, *timestamp);
            out.extend_from_slice(b",\"");
            push_plain_float(&mut out, *value);
            out.extend_from_slice(b"\"]");
        }
        Value::String { timestamp, value } => {
            out.extend_from_slice(br#""string","result":["#);
            push_float_time(&mut out, *timestamp);
            out.push(b',');
            push_text(&mut out, value);
            out.push(b']');
        }
        Value::Vector(elements) => {
            out.extend_from_slice(br#""vector","result":"#);
            push_list(&mut out, elements, push_element);
        }
        Value::Matrix(series) => {
            out.extend_from_slice(br#""matrix","result":"#);
            push_list(&mut out, series, |out, series| {
                if !is_over() {
                    push_series(out, series);
                }
            });
        }
    }
    if is_over() {
        return None;
    }
    match stats {
        StatsDetail::None => {}
        StatsDetail::Totals => push_stats(&mut out, &answer.stats, false),
        StatsDetail::PerStep => push_stats(&mut out, &answer.stats, true),
    }
    out.push(b'}');
    Some(finish(out, &answer.warnings, &answer.infos))
}

/// Writes a list of names or values.
pub fn names(listed: &Listed<String>) -> Vec<u8> {
    let mut out = begin(listed.items.iter().map(|name| name.len() + 3).sum());
    push_list(&mut out, &listed.items, |out, name| push_text(out, name));
    finish(out, &listed.warnings, &[])
}

/// Writes a list of series.
pub fn series(listed: &Listed<Labels>) -> Vec<u8> {
    let mut out = begin(listed.items.iter().map(|labels| labels.as_canonical().len() * 2).sum());
    push_list(&mut out, &listed.items, push_labels);
    finish(out, &listed.warnings, &[])
}

/// Writes what is known of metrics; entries of one metric stand together.
pub fn metadata(entries: &[Metadata]) -> Vec<u8> {
    let mut out = begin(entries.len() * 128);
    out.push(b'{');
    for (i, of_metric) in entries.chunk_by(|a, b| a.metric == b.metric).enumerate() {
        push_comma(&mut out, i);
        push_text(&mut out, &of_metric[0].metric);
        out.push(b':');
        push_list(&mut out, of_metric, |out, entry| {
            out.extend_from_slice(br#"{"type":"#);
            push_text(out, entry.kind.as_str());
            out.extend_from_slice(br#","help":"#);
            push_text(out, &entry.help);
            out.extend_from_slice(br#","unit":"#);
            push_text(out, &entry.unit);
            out.push(b'}');
        });
    }
    out.push(b'}');
    finish(out, &[], &[])
}

/// Writes exemplars by series.
pub fn exemplars(found: &[SeriesExemplars]) -> Vec<u8> {
    let mut out = begin(found.iter().map(|of_series| 64 + of_series.exemplars.len() * 128).sum());
    push_list(&mut out, found, |out, of_series| {
        out.extend_from_slice(br#"{"seriesLabels":"#);
        push_labels(out, &of_series.series);
        out.extend_from_slice(br#","exemplars":"#);
        push_list(out, &of_series.exemplars, |out, exemplar| {
            out.extend_from_slice(br#"{"labels":"#);
            push_labels(out, &exemplar.labels);
            out.extend_from_slice(br#","value":"#);
            push_value(out, exemplar.value);
            out.extend_from_slice(br#","timestamp":"#);
            push_time(out, exemplar.timestamp.millis());
            out.push(b'}');
        });
        out.push(b'}');
    });
    finish(out, &[], &[])
}

/// Writes a small answer of any shape.
pub fn document(data: &serde_json::Value) -> Vec<u8> {
    let mut out = begin(256);
    write_to(&mut out, format_args!("{data}"));
    finish(out, &[], &[])
}

fn begin(size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(size + 64);
    out.extend_from_slice(br#"{"status":"success","data":"#);
    out
}

fn finish(mut out: Vec<u8>, warnings: &[String], infos: &[String]) -> Vec<u8> {
    for (name, texts) in [(&br#","warnings":"#[..], warnings), (br#","infos":"#, infos)] {
        if !texts.is_empty() {
            out.extend_from_slice(name);
            push_list(&mut out, texts, |out, text| push_text(out, text));
        }
    }
    out.push(b'}');
    out
}

/// About how many bytes a result takes, so that a large one does not move while it grows.
fn size_hint(value: &Value) -> usize {
    let labels = |labels: &Labels| labels.as_canonical().len() * 2 + 48;
    128 + match value {
        Value::Scalar { .. } => 0,
        Value::String { value, .. } => value.len(),
        Value::Vector(elements) => elements.iter().map(|e| labels(&e.labels) + 40).sum(),
        Value::Matrix(series) => {
            series.iter().map(|s| labels(&s.labels) + s.floats.len() * 28 + s.histograms.len() * 256).sum()
        }
    }
}

fn push_element(out: &mut Vec<u8>, element: &VectorElement) {
    out.extend_from_slice(br#"{"metric":"#);
    push_labels(out, &element.labels);
    match &element.value {
        Point::Float(value) => {
            out.extend_from_slice(br#","value":"#);
            push_sample(out, element.timestamp, *value);
        }
        Point::Histogram(histogram) => {
            out.extend_from_slice(br#","histogram":"#);
            push_histogram_sample(out, element.timestamp, histogram);
        }
    }
    out.push(b'}');
}

fn push_series(out: &mut Vec<u8>, series: &MatrixSeries) {
    out.extend_from_slice(br#"{"metric":"#);
    push_labels(out, &series.labels);
    if !series.floats.is_empty() {
        out.extend_from_slice(br#","values":"#);
        push_list(out, &series.floats, |out, (timestamp, value)| push_sample(out, *timestamp, *value));
    }
    if !series.histograms.is_empty() {
        out.extend_from_slice(br#","histograms":"#);
        push_list(out, &series.histograms, |out, (timestamp, histogram)| {
            push_histogram_sample(out, *timestamp, histogram);
        });
    }
    out.push(b'}');
}

fn push_sample(out: &mut Vec<u8>, timestamp: i64, value: f64) {
    out.push(b'[');
    push_time(out, timestamp);
    out.push(b',');
    push_value(out, value);
    out.push(b']');
}

fn push_histogram_sample(out: &mut Vec<u8>, timestamp: i64, histogram: &FloatHistogram) {
    out.push(b'[');
    push_time(out, timestamp);
    out.extend_from_slice(br#",{"count":"#);
    push_value(out, histogram.count);
    out.extend_from_slice(br#","sum":"#);
    push_value(out, histogram.sum);
    let mut buckets = histogram.all_buckets().filter(|bucket| bucket.count != 0.0).enumerate().peekable();
    if buckets.peek().is_some() {
        out.extend_from_slice(br#","buckets":["#);
        for (i, bucket) in buckets {
            push_comma(out, i);
            out.push(b'[');
            out.push(b'0' + bucket.boundary_rule());
            for bound_or_count in [bucket.lower, bucket.upper, bucket.count] {
                out.push(b',');
                push_value(out, bound_or_count);
            }
            out.push(b']');
        }
        out.push(b']');
    }
    out.extend_from_slice(b"}]");
}

fn push_stats(out: &mut Vec<u8>, stats: &QueryStats, per_step: bool) {
    let evaluation = stats.select_seconds + stats.evaluate_seconds;
    let execution = stats.queue_seconds + stats.prepare_seconds + evaluation;
    write_to(
        out,
        format_args!(
            concat!(
                r#","stats":{{"timings":{{"evalTotalTime":{},"resultSortTime":0,"queryPreparationTime":{},"#,
                r#""innerEvalTime":{},"execQueueTime":{},"execTotalTime":{}}},"#,
                r#""samples":{{"totalQueryableSamples":{}"#
            ),
            stats.prepare_seconds + evaluation,
            stats.prepare_seconds,
            evaluation,
            stats.queue_seconds,
            execution,
            stats.total_queryable_samples,
        ),
    );
    let steps = |out: &mut Vec<u8>, name: &str, counts: &[(i64, u64)]| {
        write_to(out, format_args!(",\"{name}\":"));
        push_list(out, counts, |out, (timestamp, samples)| {
            out.push(b'[');
            push_float_time(out, *timestamp);
            write_to(out, format_args!(",{samples}]"));
        });
    };
    if per_step {
        steps(out, "totalQueryableSamplesPerStep", &stats.total_queryable_samples_per_step);
    }
    write_to(out, format_args!(",\"samplesRead\":{}", stats.samples_read));
    // What comes from a cache was not read step by step.
    if per_step && !stats.samples_read_per_step.is_empty() {
        steps(out, "samplesReadPerStep", &stats.samples_read_per_step);
    }
    write_to(out, format_args!(",\"peakSamples\":{}}}}}", stats.peak_samples));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{model::MetricType, promql::histogram::FloatHistogram};

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    fn written(value: Value) -> String {
        let answer = Answer { value, warnings: Vec::new(), infos: Vec::new(), stats: QueryStats::default() };
        String::from_utf8(super::answer(&answer, StatsDetail::None)).unwrap()
    }

    fn value(value: f64) -> String {
        let mut out = Vec::new();
        push_value(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_empty_result_is_an_empty_list() {
        assert_eq!(
            written(Value::Vector(vec![])),
            r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#
        );
        assert_eq!(
            written(Value::Matrix(vec![])),
            r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#
        );
    }

    #[test]
    fn a_vector_has_a_value_per_series() {
        let element = |pairs: &[(&str, &str)], timestamp, value| VectorElement {
            labels: labels(pairs),
            timestamp,
            value: Point::Float(value),
        };
        assert_eq!(
            written(Value::Vector(vec![
                element(&[("__name__", "up"), ("job", "a<b>&\"\\\n\u{1}é")], 1_435_781_451_781, 1.0),
                element(&[], 1_500, f64::NEG_INFINITY),
            ])),
            concat!(
                r#"{"status":"success","data":{"resultType":"vector","result":["#,
                r#"{"metric":{"__name__":"up","job":"a<b>&\"\\\n\u0001é"},"value":[1435781451.781,"1"]},"#,
                r#"{"metric":{},"value":[1.500,"-Inf"]}]}}"#
            )
        );
    }

    #[test]
    fn a_matrix_has_values_and_histograms_apart() {
        let series = MatrixSeries {
            labels: labels(&[("a", "b")]),
            floats: vec![(0, 1.5), (1_000, f64::NAN)],
            histograms: vec![(
                2_000,
                Arc::new(FloatHistogram {
                    count: 3.0,
                    sum: 1e-7,
                    zero_count: 3.0,
                    zero_threshold: 0.001,
                    ..FloatHistogram::default()
                }),
            )],
        };
        let none = MatrixSeries {
            labels: Labels::empty(),
            floats: vec![],
            histograms: vec![(0, Arc::new(FloatHistogram::default()))],
        };
        assert_eq!(
            written(Value::Matrix(vec![series, none])),
            concat!(
                r#"{"status":"success","data":{"resultType":"matrix","result":["#,
                r#"{"metric":{"a":"b"},"values":[[0,"1.5"],[1,"NaN"]],"#,
                r#""histograms":[[2,{"count":"3","sum":"1e-07","buckets":[[3,"-0.001","0.001","3"]]}]]},"#,
                r#"{"metric":{},"histograms":[[0,{"count":"0","sum":"0"}]]}]}}"#
            )
        );
    }

    #[test]
    fn scalars_and_strings_have_plain_floats() {
        assert_eq!(
            written(Value::Scalar { timestamp: 4_000, value: 1e30 }),
            r#"{"status":"success","data":{"resultType":"scalar","result":[4,"1000000000000000000000000000000"]}}"#
        );
        assert_eq!(
            written(Value::String { timestamp: 1_500, value: "a<b".to_owned() }),
            r#"{"status":"success","data":{"resultType":"string","result":[1.5,"a\u003cb"]}}"#
        );
    }

    #[test]
    fn values_are_the_shortest_that_read_back() {
        for (number, text) in [
            (0.0, r#""0""#),
            (-0.0, r#""-0""#),
            (-17.0, r#""-17""#),
            (0.1 + 0.2, r#""0.30000000000000004""#),
            (1e-6, r#""0.000001""#),
            (9.99e-7, r#""9.99e-07""#),
            (-1e-100, r#""-1e-100""#),
            (1e20, r#""100000000000000000000""#),
            (1e21, r#""1e+21""#),
            (1.5e300, r#""1.5e+300""#),
            (9_007_199_254_740_993.0, r#""9007199254740992""#),
            (5e-324, r#""5e-324""#),
            (f64::INFINITY, r#""+Inf""#),
            (f64::NAN, r#""NaN""#),
        ] {
            assert_eq!(value(number), text);
        }
    }

    #[test]
    fn times_reach_to_the_ends() {
        let time = |timestamp| {
            let mut out = Vec::new();
            push_time(&mut out, timestamp);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(time(-500), "-0.500");
        assert_eq!(time(-1_005), "-1.005");
        assert_eq!(time(i64::MIN), "-9223372036854775.808");
        assert_eq!(time(i64::MAX), "9223372036854775.807");
    }

    #[test]
    fn warnings_and_infos_follow_and_are_safe_in_html() {
        let answer = Answer {
            value: Value::Vector(vec![]),
            warnings: vec!["a < b & \"c\"".to_owned()],
            infos: vec!["x\u{2028}y".to_owned()],
            stats: QueryStats::default(),
        };
        let text = String::from_utf8(super::answer(&answer, StatsDetail::None)).unwrap();
        assert!(text.ends_with(r#","warnings":["a \u003c b \u0026 \"c\""],"infos":["x\u2028y"]}"#), "{text}");
    }

    #[test]
    fn stats_come_when_asked_for() {
        let stats = QueryStats {
            total_queryable_samples: 3,
            total_queryable_samples_per_step: vec![(0, 1), (1_500, 2)],
            samples_read: 4,
            samples_read_per_step: vec![(0, 1), (1_500, 3)],
            peak_samples: 5,
            prepare_seconds: 0.25,
            select_seconds: 0.5,
            evaluate_seconds: 1.0,
            queue_seconds: 2.0,
        };
        let answer = Answer { value: Value::Vector(vec![]), warnings: vec![], infos: vec![], stats };
        let text = |detail| String::from_utf8(super::answer(&answer, detail)).unwrap();
        let timings = concat!(
            r#"{"status":"success","data":{"resultType":"vector","result":[],"stats":{"timings":{"#,
            r#""evalTotalTime":1.75,"resultSortTime":0,"queryPreparationTime":0.25,"innerEvalTime":1.5,"#,
            r#""execQueueTime":2,"execTotalTime":3.75},"samples":{"totalQueryableSamples":3"#
        );
        assert_eq!(
            text(StatsDetail::Totals),
            format!(r#"{timings},"samplesRead":4,"peakSamples":5}}}}}}}}"#)
        );
        assert_eq!(
            text(StatsDetail::PerStep),
            format!(
                r#"{timings},"totalQueryableSamplesPerStep":[[0,1],[1.5,2]],"samplesRead":4,"samplesReadPerStep":[[0,1],[1.5,3]],"peakSamples":5}}}}}}}}"#
            )
        );
    }

    #[test]
    fn metadata_stands_by_metric() {
        let entry = |metric: &str, help: &str| Metadata {
            metric: metric.to_owned(),
            kind: MetricType::Counter,
            help: help.to_owned(),
            unit: String::new(),
        };
        let text =
            String::from_utf8(metadata(&[entry("a", "x"), entry("a", "<y>"), entry("b", "")])).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"status":"success","data":{"a":[{"type":"counter","help":"x","unit":""},"#,
                r#"{"type":"counter","help":"\u003cy\u003e","unit":""}],"#,
                r#""b":[{"type":"counter","help":"","unit":""}]}}"#
            )
        );
    }

    #[test]
    fn failures_name_their_type() {
        let text = String::from_utf8(failure("bad_data", "a<b")).unwrap();
        assert_eq!(text, r#"{"status":"error","errorType":"bad_data","error":"a\u003cb"}"#);
    }

    #[test]
    fn whatever_is_in_a_text_the_json_reads_back() {
        for text in
            ["", "\u{0}\u{1f}\u{7f}\"\\/", "<script>&</script>", "\u{2028}\u{2029}", "a\u{2028}", "温度"]
        {
            let mut out = Vec::new();
            push_text(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
