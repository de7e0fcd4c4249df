//! How metrics are written, and who wants them how.

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text, which everything reads.
    Prometheus,
}

impl MetricsFormat {
    /// What whoever sends these `Accept` fields wants: scrapers that name OpenMetrics at all like it best.
    pub fn accepted<'a>(fields: impl IntoIterator<Item = &'a str>) -> Self {
        let takes_open_metrics = fields.into_iter().flat_map(|field| field.split(',')).any(|range| {
            let (media_type, parameters) = range.split_once(';').unwrap_or((range, ""));
            let refused = parameters.split(';').any(|p| matches!(p.trim(), "q=0" | "q=0.0"));
            media_type.trim().eq_ignore_ascii_case("application/openmetrics-text") && !refused
        });
        if takes_open_metrics { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// What an answer in it calls itself.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_name_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for accept in [prometheus, "text/plain, application/openmetrics-text"] {
            assert_eq!(MetricsFormat::accepted([accept]), MetricsFormat::OpenMetrics, "{accept}");
        }
        for accept in ["application/openmetrics-text;q=0, */*", "*/*", "text/plain", ""] {
            assert_eq!(MetricsFormat::accepted([accept]), MetricsFormat::Prometheus, "{accept}");
        }
        assert_eq!(MetricsFormat::accepted([]), MetricsFormat::Prometheus);
    }
}
