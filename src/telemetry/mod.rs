//! What we tell about ourselves: metrics and logs.
//!
//! Things are counted where they happen, in plain atomics that know nothing of metrics. They are read
//! when somebody asks: a [`Source`] gives a part's [`Figure`]s as they stand at that moment, and
//! [`Telemetry::render`] writes those of all parts as OpenMetrics text, or Prometheus' older one. Nothing on the path of a
//! request pays for metrics beyond an atomic addition.
//!
//! Names are `luminate_<part>_<what>_<unit>`, counters end in `_total`; no metric carries a tenant.
//!
//! * `requests`: what the gateway saw, under the names that dashboards and alerts rely on.
//! * [`process`]: what the operating system knows of us; `cgroup`: what it lets us have.
//! * [`logs`]: log lines.

mod cgroup;
pub mod logs;
pub mod process;
pub mod requests;

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder},
    metrics::MetricType,
    registry::Registry,
};

pub use crate::gateway::MetricsFormat;

/// Bytes of memory that this process may take, if that is known.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a whole number of bytes")]
pub fn memory_limit() -> Option<u64> {
    cgroup::bounds().memory_bytes.map(|bytes| bytes as u64)
}

/// Something a part keeps count of, as it stands now.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The metric's name; that of a counter without its `_total`.
    pub name: &'static str,
    /// What it says, in a sentence without a full stop.
    pub help: &'static str,
    /// What tells it from others of the same name, which follow each other.
    pub labels: Vec<(&'static str, String)>,
    /// How it stands.
    pub value: FigureValue,
}

/// How a figure stands.
#[derive(Clone, Debug, PartialEq)]
pub enum FigureValue {
    /// A number that only grows.
    Counter(f64),
    /// A number that goes up and down.
    Gauge(f64),
    /// How often something took how much.
    Histogram {
        /// Upper bound and count of each bucket, lowest first, not summed up; the last is above all
        /// bounds and has [`f64::MAX`] as its own.
        buckets: Vec<(f64, u64)>,
        /// All together.
        sum: f64,
    },
}

impl Figure {
    /// A figure that only grows.
    pub fn counter(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { name, help, labels: Vec::new(), value: FigureValue::Counter(value) }
    }

    /// A figure that goes up and down.
    pub fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { name, help, labels: Vec::new(), value: FigureValue::Gauge(value) }
    }

    /// How often something took how long: what is in each bucket, by upper bounds in seconds and above the last, and
    /// all of it together.
    pub fn histogram(
        name: &'static str,
        help: &'static str,
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
    ) -> Self {
        let bounds = bounds.iter().copied().chain([f64::MAX]);
        let buckets = bounds.zip(counts.iter().copied()).collect();
        Self { name, help, labels: Vec::new(), value: FigureValue::Histogram { buckets, sum } }
    }

    /// The figure with one more label.
    #[must_use]
    pub fn with(mut self, label: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((label, value.into()));
        self
    }
}

/// A count as a metric's value: exact up to 2⁵³, which no count of ours reaches.
#[expect(clippy::cast_precision_loss, reason = "a metric's value is a float")]
pub fn as_value(count: u64) -> f64 {
    count as f64
}

/// Gives the figures of a part as they stand.
pub type Source = Box<dyn Fn() -> Vec<Figure> + Send + Sync>;

/// Renders the metrics of all parts.
pub struct Telemetry {
    registry: Registry,
}

impl Telemetry {
    /// Renders what `sources` give, in their order.
    pub fn new(sources: Vec<Source>) -> Arc<Self> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Sources(sources)));
        Arc::new(Self { registry })
    }

    /// All metrics in a format.
    pub fn render_as(&self, format: MetricsFormat) -> String {
        let text = self.render();
        match format {
            MetricsFormat::OpenMetrics => text,
            MetricsFormat::Prometheus => as_prometheus(&text),
        }
    }

    /// All metrics as OpenMetrics text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("a string takes whatever is written to it");
        text
    }
}

/// OpenMetrics text as Prometheus' older format has it, in which a counter is called what its samples are called.
fn as_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 4096);
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        let described = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '));
        let typed = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '));
        match (described, typed) {
            (Some((name, help)), _) => {
                let is_counter = lines.peek().is_some_and(|next| next.ends_with(" counter"));
                let suffix = if is_counter { "_total" } else { "" };
                text.push_str(&format!("# HELP {name}{suffix} {help}\n"));
            }
            (None, Some((name, "counter"))) => text.push_str(&format!("# TYPE {name}_total counter\n")),
            (None, _) if line == "# EOF" => {}
            (None, _) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

/// Asks the parts for their figures at each rendering.
struct Sources(Vec<Source>);

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sources").field(&self.0.len()).finish()
    }
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for source in &self.0 {
            let figures = source();
            for family in figures.chunk_by(|a, b| a.name == b.name) {
                let Figure { name, help, value, .. } = &family[0];
                let metric_type = match value {
                    FigureValue::Counter(_) => MetricType::Counter,
                    FigureValue::Gauge(_) => MetricType::Gauge,
                    FigureValue::Histogram { .. } => MetricType::Histogram,
                };
                let mut metric = encoder.encode_descriptor(name, help, None, metric_type)?;
                for figure in family {
                    if figure.labels.is_empty() {
                        encode_value(&figure.value, &mut metric)?;
                    } else {
                        let labels = escaped(&figure.labels);
                        encode_value(&figure.value, &mut metric.encode_family(&labels)?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Labels with their values as the text wants them; the encoder writes values as they are.
fn escaped(labels: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
    let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    labels.iter().map(|(name, value)| (*name, escape(value))).collect()
}

fn encode_value(value: &FigureValue, metric: &mut MetricEncoder<'_>) -> fmt::Result {
    match value {
        FigureValue::Counter(value) => metric.encode_counter::<[(&str, &str); 0], _, f64>(value, None),
        FigureValue::Gauge(value) => metric.encode_gauge(value),
        FigureValue::Histogram { buckets, sum } => {
            let count = buckets.iter().map(|(_, count)| count).sum();
            metric.encode_histogram::<[(&str, &str); 0]>(*sum, count, buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_text_calls_counters_what_their_samples_are_called() {
        let telemetry = Telemetry::new(vec![Box::new(|| {
            vec![
                Figure::counter("luminate_wal_bytes", "Bytes written", 5.0).with("a", "b"),
                Figure::counter("luminate_wal_bytes", "Bytes written", 6.0).with("a", "c"),
                Figure::gauge("luminate_head_bytes", "Bytes in memory", 7.0),
                Figure::histogram("luminate_x_seconds", "Time", &[1.0], &[2, 1], 9.5),
            ]
        })]);
        assert_eq!(
            telemetry.render_as(MetricsFormat::Prometheus),
            "# HELP luminate_wal_bytes_total Bytes written\n\
             # TYPE luminate_wal_bytes_total counter\n\
             luminate_wal_bytes_total{a=\"b\"} 5.0\n\
             luminate_wal_bytes_total{a=\"c\"} 6.0\n\
             # HELP luminate_head_bytes Bytes in memory\n\
             # TYPE luminate_head_bytes gauge\n\
             luminate_head_bytes 7.0\n\
             # HELP luminate_x_seconds Time\n\
             # TYPE luminate_x_seconds histogram\n\
             luminate_x_seconds_sum 9.5\n\
             luminate_x_seconds_count 3\n\
             luminate_x_seconds_bucket{le=\"1.0\"} 2\n\
             luminate_x_seconds_bucket{le=\"+Inf\"} 3\n"
        );
    }

    #[test]
    fn figures_render_as_open_metrics() {
        let telemetry = Telemetry::new(vec![Box::new(|| {
            let took = FigureValue::Histogram { buckets: vec![(0.1, 2), (1.0, 1), (f64::MAX, 4)], sum: 9.5 };
            vec![
                Figure::counter("luminate_wal_bytes", "Bytes written to the log", 5.0),
                Figure::gauge("luminate_disk_bytes", "Bytes on disk", 7.0).with("kind", "wal"),
                Figure::gauge("luminate_disk_bytes", "Bytes on disk", 9.0).with("kind", "a\"b\\c\nd"),
                Figure { name: "luminate_x_seconds", help: "Time", labels: Vec::new(), value: took },
            ]
        })]);
        assert_eq!(
            telemetry.render(),
            "# HELP luminate_wal_bytes Bytes written to the log\n\
             # TYPE luminate_wal_bytes counter\n\
             luminate_wal_bytes_total 5.0\n\
             # HELP luminate_disk_bytes Bytes on disk\n\
             # TYPE luminate_disk_bytes gauge\n\
             luminate_disk_bytes{kind=\"wal\"} 7.0\n\
             luminate_disk_bytes{kind=\"a\\\"b\\\\c\\nd\"} 9.0\n\
             # HELP luminate_x_seconds Time\n\
             # TYPE luminate_x_seconds histogram\n\
             luminate_x_seconds_sum 9.5\n\
             luminate_x_seconds_count 7\n\
             luminate_x_seconds_bucket{le=\"0.1\"} 2\n\
             luminate_x_seconds_bucket{le=\"1.0\"} 3\n\
             luminate_x_seconds_bucket{le=\"+Inf\"} 7\n\
             # EOF\n"
        );
    }
}
