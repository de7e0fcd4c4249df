//! `luminate query`: an expression to a running server, its answer as a table or as JSON.

use std::{
    io::{self, Write},
    time::Duration,
};

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{
    CommandError,
    client::{Answer, ServerFlags},
    table,
    time::{as_seconds, parse_instant, parse_span},
};
use crate::{
    clock::{Clock, SystemClock},
    model::{Millis, Timestamp},
};

/// Longer than any server lets a query run by default.
const TIMEOUT: Duration = Duration::from_secs(300);

/// The header that switches features.
const FEATURES: &str = "luminate-features";

/// Steps of a range whose step nobody chose.
const STEPS: i64 = 60;

/// What to ask, and how to show the answer.
#[derive(Clone, Debug, Args)]
pub struct QueryFlags {
    /// The expression, in PromQL.
    expression: String,
    /// When to evaluate it: now, -1h, Unix seconds or RFC 3339 [default: now].
    #[arg(long, value_name = "TIME", conflicts_with_all = ["start", "end", "since", "step"], allow_hyphen_values = true)]
    at: Option<String>,
    /// The start of a range.
    #[arg(long, value_name = "TIME", conflicts_with = "since", allow_hyphen_values = true)]
    start: Option<String>,
    /// The end of a range [default: now].
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    end: Option<String>,
    /// A range that began this long before its end.
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// The distance between a range's points [default: a sixtieth of the range].
    #[arg(long, value_name = "DURATION")]
    step: Option<String>,
    /// Features that are switched for this query: names with commas between them, one with a minus before it is switched
    /// off.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', allow_hyphen_values = true)]
    features: Vec<String>,
    /// How to show the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    server: ServerFlags,
}

/// How to show an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For a person.
    Table,
    /// As the server sent it.
    Json,
}

/// A request of the query API.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    path: &'static str,
    form: Vec<(&'static str, String)>,
}

/// Asks, and prints the answer.
pub fn run(flags: &QueryFlags) -> Result<(), CommandError> {
    let question = question(flags, SystemClock::start().now()).map_err(CommandError::Usage)?;
    let features = flags.features.join(",");
    let headers: &[(&'static str, &str)] = if features.is_empty() { &[] } else { &[(FEATURES, &features)] };
    let answer = flags.server.post_with(question.path, headers, &question.form, TIMEOUT)?;
    let envelope = success(&flags.server, &answer)?;
    for kind in ["warnings", "infos"] {
        for text in envelope.get(kind).and_then(Value::as_array).into_iter().flatten() {
            writeln!(io::stderr(), "{}: {}", kind.trim_end_matches('s'), text.as_str().unwrap_or_default())?;
        }
    }
    let text = match flags.output {
        Output::Json => format!("{}\n", answer.body.trim_end()),
        Output::Table => envelope.get("data").and_then(table::render).ok_or_else(|| {
            CommandError::Failed(format!("{} gives an answer of no known shape", flags.server.server))
        })?,
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn question(flags: &QueryFlags, now: Timestamp) -> Result<Question, String> {
    let query = ("query", flags.expression.clone());
    let is_range = [&flags.start, &flags.end, &flags.since, &flags.step].iter().any(|flag| flag.is_some());
    if !is_range {
        let at = flags.at.as_deref().map_or(Ok(now), |at| parse_instant(at, now))?;
        return Ok(Question { path: "/api/v1/query", form: vec![query, ("time", as_seconds(at))] });
    }
    let end = flags.end.as_deref().map_or(Ok(now), |end| parse_instant(end, now))?;
    let start = match (&flags.start, &flags.since) {
        (Some(start), _) => parse_instant(start, now)?,
        (None, Some(since)) => end.minus(parse_span(since)?),
        (None, None) => return Err("a range needs --since or --start".to_owned()),
    };
    if start > end {
        return Err("the range ends before it starts".to_owned());
    }
    let step = flags.step.as_deref().map_or_else(|| Ok(even_step(start, end)), parse_span)?;
    let form = vec![
        query,
        ("start", as_seconds(start)),
        ("end", as_seconds(end)),
        ("step", as_seconds(Timestamp(step.millis()))),
    ];
    Ok(Question { path: "/api/v1/query_range", form })
}

/// A step of whole seconds that cuts a range in about [`STEPS`].
fn even_step(start: Timestamp, end: Timestamp) -> Millis {
    let step = end.millis().saturating_sub(start.millis()) / STEPS;
    Millis((step / 1000).max(1).saturating_mul(1000))
}

/// The body of a successful answer; any other as an error with the server's own words.
fn success(server: &ServerFlags, answer: &Answer) -> Result<Value, CommandError> {
    let body: Option<Value> = serde_json::from_str(&answer.body).ok();
    let word = |name: &str| body.as_ref().and_then(|b| b.get(name)).and_then(Value::as_str);
    match (word("status"), word("errorType"), word("error")) {
        (Some("success"), _, _) if answer.status.is_success() => Ok(body.unwrap_or_default()),
        (_, Some(kind), Some(error)) => Err(CommandError::Failed(format!("{kind}: {error}"))),
        (_, _, _) => {
            let start: String = answer.body.trim().chars().take(200).collect();
            let message =
                format!("{} answers {} and not as Prometheus would: {start}", server.server, answer.status);
            Err(CommandError::Failed(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use hyper::StatusCode;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        query: QueryFlags,
    }

    fn ask(arguments: &[&str]) -> Result<String, String> {
        let line = ["query", "up"].iter().chain(arguments);
        let flags = Line::try_parse_from(line).map_err(|e| e.to_string())?.query;
        let question = question(&flags, Timestamp(10_000_000))?;
        let form: Vec<String> = question.form[1..].iter().map(|(n, v)| format!("{n}={v}")).collect();
        Ok(format!("{} {}", question.path, form.join(" ")))
    }

    #[test]
    fn without_a_range_it_is_an_instant() {
        assert_eq!(ask(&[]).unwrap(), "/api/v1/query time=10000.000");
        assert_eq!(ask(&["--at", "-1m"]).unwrap(), "/api/v1/query time=9940.000");
        assert_eq!(ask(&["--at=17.5"]).unwrap(), "/api/v1/query time=17.500");
    }

    #[test]
    fn a_range_chooses_its_step() {
        assert_eq!(
            ask(&["--since", "1h"]).unwrap(),
            "/api/v1/query_range start=6400.000 end=10000.000 step=60.000"
        );
        assert_eq!(
            ask(&["--start", "-10s", "--end", "now"]).unwrap(),
            "/api/v1/query_range start=9990.000 end=10000.000 step=1.000"
        );
        assert_eq!(
            ask(&["--start", "0", "--end", "60", "--step", "15s"]).unwrap(),
            "/api/v1/query_range start=0.000 end=60.000 step=15.000"
        );
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        assert!(ask(&["--step", "1m"]).unwrap_err().contains("--since or --start"));
        assert!(ask(&["--start", "10", "--end", "5"]).unwrap_err().contains("ends before"));
        assert!(ask(&["--at", "now", "--since", "1h"]).unwrap_err().contains("cannot be used with"));
        assert!(ask(&["--since", "60"]).unwrap_err().contains("has no unit"));
        assert!(ask(&["--at", "noon"]).unwrap_err().contains("is not a time"));
    }

    #[test]
    fn an_error_is_told_in_the_servers_words() {
        let server = ServerFlags {
            server: "http://h".to_owned(),
            tenant: None,
            token_file: None,
            tls: crate::cli::tls::TlsFlags::default(),
        };
        let answer = |status, body: &str| Answer { status, body: body.to_owned() };
        let bad = answer(
            StatusCode::BAD_REQUEST,
            r#"{"status":"error","errorType":"bad_data","error":"1:1: parse error: no"}"#,
        );
        assert_eq!(success(&server, &bad).unwrap_err().to_string(), "bad_data: 1:1: parse error: no");
        let foreign = answer(StatusCode::NOT_FOUND, "<html>");
        assert_eq!(
            success(&server, &foreign).unwrap_err().to_string(),
            "http://h answers 404 Not Found and not as Prometheus would: <html>"
        );
        assert!(success(&server, &answer(StatusCode::OK, r#"{"status":"success","data":{}}"#)).is_ok());
    }
}
