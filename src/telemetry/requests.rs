//! Requests as the gateway counted them, under the names of the deployment guide.

use std::sync::Arc;

use super::{Figure, Source, as_value};
use crate::gateway::request::{Endpoint, LATENCY_BOUNDS, RequestCounters};

/// Gives the figures of the gateway.
pub fn source(counters: Arc<RequestCounters>) -> Source {
    Box::new(move || figures(&counters))
}

fn figures(counters: &RequestCounters) -> Vec<Figure> {
    let ended = counters.ended();
    let mut writes = vec![answered_writes(204, count(&ended, Endpoint::Write, 204))];
    let mut queries = Vec::new();
    let mut others = Vec::new();
    for endpoint in [Endpoint::Query, Endpoint::QueryRange] {
        // Here before the first request, as the write above, so that `rate` sees that one.
        queries.push(answered_queries(endpoint, 200, count(&ended, endpoint, 200)));
    }
    for &(endpoint, status, n) in &ended {
        match (endpoint, status) {
            (Endpoint::Write, 204) | (Endpoint::Query | Endpoint::QueryRange, 200) => {}
            (Endpoint::Write, _) => writes.push(answered_writes(status, n)),
            (Endpoint::Query | Endpoint::QueryRange | Endpoint::Catalog, _) => {
                queries.push(answered_queries(endpoint, status, n));
            }
            (
                Endpoint::Export
                | Endpoint::Import
                | Endpoint::Status
                | Endpoint::Admin
                | Endpoint::Health
                | Endpoint::Metrics
                | Endpoint::Other,
                _,
            ) => others.push(
                Figure::counter("luminate_http_requests", "Other requests answered", as_value(n))
                    .with("endpoint", endpoint.as_str())
                    .with("status", status.to_string()),
            ),
        }
    }
    let in_flight = Endpoint::ALL.map(|endpoint| {
        let n = as_value(counters.in_flight(endpoint));
        Figure::gauge("luminate_http_in_flight_requests", "Requests being answered", n)
            .with("endpoint", endpoint.as_str())
    });
    let latencies = [Endpoint::Query, Endpoint::QueryRange, Endpoint::Catalog].map(|endpoint| {
        let help = "Time from a query's arrival to its answer";
        latency(counters, "luminate_query_latency_seconds", help, endpoint)
            .with("endpoint", endpoint.as_str())
    });
    let write_latency = latency(
        counters,
        "luminate_write_latency_seconds",
        "Time from a write's arrival to its acknowledgement",
        Endpoint::Write,
    );
    let mut figures = writes;
    figures.extend(queries);
    figures.extend(others);
    figures.extend(in_flight);
    figures.extend(latencies);
    figures.push(write_latency);
    figures
}

fn count(ended: &[(Endpoint, u16, u64)], endpoint: Endpoint, status: u16) -> u64 {
    ended.iter().find(|(e, s, _)| (*e, *s) == (endpoint, status)).map_or(0, |(_, _, n)| *n)
}

fn answered_writes(status: u16, n: u64) -> Figure {
    Figure::counter("luminate_write_requests", "Write requests answered", as_value(n))
        .with("status", status.to_string())
}

fn answered_queries(endpoint: Endpoint, status: u16, n: u64) -> Figure {
    Figure::counter("luminate_query_requests", "Query requests answered", as_value(n))
        .with("endpoint", endpoint.as_str())
        .with("status", status.to_string())
}

fn latency(counters: &RequestCounters, name: &'static str, help: &'static str, endpoint: Endpoint) -> Figure {
    let latency = counters.latency(endpoint);
    Figure::histogram(name, help, &LATENCY_BOUNDS, &latency.counts, latency.sum_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Telemetry;

    #[test]
    fn the_names_of_the_guide_are_there_before_the_first_request() {
        let text = Telemetry::new(vec![source(Arc::default())]).render();
        for line in [
            "luminate_write_requests_total{status=\"204\"} 0.0",
            "luminate_query_requests_total{endpoint=\"query\",status=\"200\"} 0.0",
            "luminate_query_latency_seconds_bucket{le=\"+Inf\",endpoint=\"query_range\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
        }
        for name in ["luminate_write_requests", "luminate_query_requests", "luminate_query_latency_seconds"] {
            assert_eq!(text.matches(&format!("# TYPE {name} ")).count(), 1, "{name}");
        }
    }
}
