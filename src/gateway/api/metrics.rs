//! `/metrics`: our own metrics, for whoever scrapes us.

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

use super::Shared;
use crate::gateway::MetricsFormat;

/// Writes them: as OpenMetrics for those who name it, and for others as text that everything reads.
pub async fn render(State(state): Shared, headers: HeaderMap) -> Response {
    let format = match accepts_open_metrics(&headers) {
        true => MetricsFormat::OpenMetrics,
        false => MetricsFormat::Prometheus,
    };
    let head = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept")];
    (head, (state.render_metrics.0)(format)).into_response()
}

/// Scrapers that name it at all like it best.
fn accepts_open_metrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let (media_type, parameters) = range.split_once(';').unwrap_or((range, ""));
        let refused = parameters.split(';').any(|p| matches!(p.trim(), "q=0" | "q=0.0"));
        media_type.trim().eq_ignore_ascii_case("application/openmetrics-text") && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_name_it() {
        for (accept, open) in [
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                true,
            ),
            ("text/plain, application/openmetrics-text", true),
            ("application/openmetrics-text;q=0, */*", false),
            ("*/*", false),
            ("text/plain", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(accepts_open_metrics(&headers), open, "{accept}");
        }
        assert!(!accepts_open_metrics(&HeaderMap::new()));
    }
}
