//! What is known of a metric besides its samples.

use std::fmt;

/// Type, unit and help text of a metric family.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// The metric family's name.
    pub metric: String,
    /// What kind of metric it is.
    pub kind: MetricType,
    /// Its help text; may be empty.
    pub help: String,
    /// Its unit; may be empty.
    pub unit: String,
}

/// The kinds of metric; the discriminants are remote write's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MetricType {
    /// Nothing is known.
    #[default]
    Unknown = 0,
    /// Only goes up, or starts again.
    Counter = 1,
    /// Goes up and down.
    Gauge = 2,
    /// Counts observations in buckets.
    Histogram = 3,
    /// A histogram whose buckets go up and down.
    GaugeHistogram = 4,
    /// Quantiles computed by the client.
    Summary = 5,
    /// A constant 1 whose labels are the message.
    Info = 6,
    /// One of several states.
    StateSet = 7,
}

impl MetricType {
    /// All of them, in the order of remote write's numbers.
    pub const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Counter,
        Self::Gauge,
        Self::Histogram,
        Self::GaugeHistogram,
        Self::Summary,
        Self::Info,
        Self::StateSet,
    ];

    /// The kind with remote write's number `n`; what is not known there is unknown here.
    pub fn from_wire(n: i32) -> Self {
        usize::try_from(n).ok().and_then(|n| Self::ALL.get(n)).copied().unwrap_or_default()
    }

    /// The name the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }
}

impl fmt::Display for MetricType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
