//! What a canary counts, and the small listener that tells it.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

use super::ledger::Verdict;
use crate::{
    cli::CommandError,
    model::Timestamp,
    telemetry::{Figure, MetricsFormat, Telemetry, as_value},
};

/// Upper bounds of the time until what was acknowledged is seen.
const BOUNDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Connections at a time; more wait.
const CONNECTIONS: usize = 16;
/// A connection is for one question, and has this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a round fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The samples were not taken.
    Write,
    /// What was acknowledged was not seen.
    Visible,
    /// The samples as they are stored.
    Query,
    /// The values at the steps of a range.
    QueryRange,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Write, Self::Visible, Self::Query, Self::QueryRange];

    /// Its name, as the label has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Visible => "visible",
            Self::Query => "query",
            Self::QueryRange => "query_range",
        }
    }
}

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    rounds: u64,
    failed: [u64; Stage::ALL.len()],
    last_success: Option<Timestamp>,
    checked: u64,
    wrong: u64,
    missing: u64,
    /// How often it took up to each bound, and longer.
    seen: [u64; BOUNDS.len() + 1],
    seen_seconds: f64,
}

impl Counts {
    /// A round is over, at `now`.
    pub(super) fn round_ended(&self, failed: Option<Stage>, now: Timestamp) {
        let mut numbers = self.0.lock();
        numbers.rounds += 1;
        match failed.and_then(|failed| Stage::ALL.iter().position(|stage| *stage == failed)) {
            Some(at) => numbers.failed[at] += 1,
            None => numbers.last_success = Some(now),
        }
    }

    /// Values were compared.
    pub(super) fn judged(&self, verdict: &Verdict) {
        let mut numbers = self.0.lock();
        numbers.checked += verdict.checked;
        numbers.wrong += verdict.wrong.len() as u64;
        numbers.missing += verdict.missing.len() as u64;
    }

    /// What was acknowledged was seen.
    pub(super) fn seen_after(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        let mut numbers = self.0.lock();
        numbers.seen[bucket] += 1;
        numbers.seen_seconds += seconds;
    }

    fn figures(&self) -> Vec<Figure> {
        let numbers = self.0.lock();
        let counter = |name, help, n| Figure::counter(name, help, as_value(n));
        let mut figures =
            vec![counter("luminate_canary_rounds", "Rounds of writing and verifying", numbers.rounds)];
        figures.extend(Stage::ALL.iter().zip(numbers.failed).map(|(stage, failed)| {
            counter(
                "luminate_canary_failed_rounds",
                "Rounds that failed, by their first stage that did",
                failed,
            )
            .with("stage", stage.name())
        }));
        #[expect(clippy::cast_precision_loss, reason = "a metric's value is a float")]
        let last_success = numbers.last_success.map_or(0.0, |at| at.millis() as f64 / 1000.0);
        let visible = Figure::histogram(
            "luminate_canary_visible_seconds",
            "Time from a sample's acknowledgement until a query shows it",
            &BOUNDS,
            &numbers.seen,
            numbers.seen_seconds,
        );
        figures.extend([
            Figure::gauge(
                "luminate_canary_last_success_timestamp_seconds",
                "When a round last ended well; 0 if none has",
                last_success,
            ),
            counter("luminate_canary_checked_values", "Values that were compared", numbers.checked),
            counter(
                "luminate_canary_wrong_values",
                "Values that were not what was written, each counted once",
                numbers.wrong,
            ),
            counter(
                "luminate_canary_missing_values",
                "Values that were acknowledged or seen before and have gone, each counted once",
                numbers.missing,
            ),
            visible,
        ]);
        figures
    }
}

/// Takes the port.
pub(super) async fn bind(at: SocketAddr) -> Result<TcpListener, CommandError> {
    TcpListener::bind(at).await.map_err(|e| CommandError::Failed(format!("cannot listen on {at}: {e}")))
}

/// Answers whoever asks; gives the error that ends it.
pub(super) async fn serve(listener: TcpListener, counts: Arc<Counts>) -> io::Error {
    let read = Arc::clone(&counts);
    let telemetry = Telemetry::new(vec![Box::new(move || read.figures())]);
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            taken = listener.accept(), if open.len() < CONNECTIONS => match taken {
                Ok((stream, _)) => open.push(answer(stream, Arc::clone(&telemetry))),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return error,
            },
            Some(()) = open.next() => {}
        }
    }
}

async fn answer(stream: TcpStream, telemetry: Arc<Telemetry>) {
    let service = service_fn(|request| {
        let answer = answer_to(&request, &telemetry);
        async { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever breaks off does not want the answer.
    let _ = tokio::time::timeout(PATIENCE, connection).await;
}

fn answer_to(request: &Request<Incoming>, telemetry: &Telemetry) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            let accepted = request.headers().get_all(header::ACCEPT).iter();
            let format = MetricsFormat::accepted(accepted.filter_map(|value| value.to_str().ok()));
            (StatusCode::OK, format.content_type(), telemetry.render_as(format))
        }
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "text/plain", "there is only /metrics\n".to_owned()),
    };
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_stages_are_there_before_anything_has_failed() {
        let counts = Arc::new(Counts::default());
        let read = Arc::clone(&counts);
        let telemetry = Telemetry::new(vec![Box::new(move || read.figures())]);
        let text = telemetry.render();
        for stage in ["write", "visible", "query", "query_range"] {
            assert!(
                text.contains(&format!("luminate_canary_failed_rounds_total{{stage=\"{stage}\"}} 0.0")),
                "{text}"
            );
        }
        assert!(text.contains("luminate_canary_last_success_timestamp_seconds 0.0"), "{text}");
        counts.round_ended(None, Timestamp(1500));
        counts.round_ended(Some(Stage::Query), Timestamp(2500));
        counts.seen_after(Duration::from_millis(30));
        let verdict = Verdict { checked: 9, wrong: vec![String::new()], missing: vec![String::new(); 2] };
        counts.judged(&verdict);
        let text = telemetry.render();
        for line in [
            "luminate_canary_rounds_total 2.0",
            "luminate_canary_failed_rounds_total{stage=\"query\"} 1.0",
            "luminate_canary_last_success_timestamp_seconds 1.5",
            "luminate_canary_checked_values_total 9.0",
            "luminate_canary_wrong_values_total 1.0",
            "luminate_canary_missing_values_total 2.0",
            "luminate_canary_visible_seconds_bucket{le=\"0.05\"} 1",
            "luminate_canary_visible_seconds_count 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
        }
    }
}
