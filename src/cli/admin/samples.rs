//! Samples that are known beforehand: written to a server by remote write, and read back by queries.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, StatusCode, header};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use prost::Message as _;
use serde_json::Value;

use crate::{
    cli::{
        CommandError,
        client::{ServerFlags, encode_form, innermost, percent},
        moving::connection::words,
        time::{as_seconds, seconds},
    },
    model::Timestamp,
};

/// More than any answer about our own few samples.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A series of ours, and samples of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// The metric's name.
    pub name: &'static str,
    /// Its other labels.
    pub labels: Vec<(&'static str, String)>,
    /// Its samples, in order of time.
    pub samples: Vec<(Timestamp, f64)>,
}

impl Known {
    /// What selects this series.
    pub fn selector(&self) -> String {
        let matchers: Vec<String> =
            self.labels.iter().map(|(name, value)| format!("{name}={}", quoted(value))).collect();
        format!("{}{{{}}}", self.name, matchers.join(","))
    }
}

/// A text as PromQL has it.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The samples of a range, by what tells a series from the others, and then by time.
pub type Found = BTreeMap<String, Vec<(Timestamp, f64)>>;

/// Why a server did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It could not be asked, or did not answer in time.
    #[error("{0}")]
    Silent(String),
    /// It said no.
    #[error("{status}: {words}")]
    Said {
        /// Its status.
        status: StatusCode,
        /// Its words.
        words: String,
    },
    /// It said what nobody understands.
    #[error("the answer is not one of Luminate's: {0}")]
    Strange(String),
}

/// A server that keeps samples.
#[derive(Debug)]
pub struct Keeper {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    server: ServerFlags,
    timeout: Duration,
}

impl Keeper {
    /// Gets ready to speak to a server, which may take no longer than `timeout` for an answer.
    pub fn new(server: &ServerFlags, timeout: Duration) -> Result<Self, CommandError> {
        // What is wrong with the flags is said before anything is asked.
        server.request(Method::GET, "/", &[], Bytes::new())?;
        let connector = server.tls.connector(&server.server)?;
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, server: server.clone(), timeout })
    }

    /// The server's URL.
    pub fn server(&self) -> &str {
        &self.server.server
    }

    /// The text at `path`.
    pub async fn get(&self, path: &str) -> Result<String, Refusal> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// Writes samples; they are kept once this returns.
    pub async fn write(&self, series: &[Known]) -> Result<(), Refusal> {
        let headers = [
            (header::CONTENT_TYPE, "application/x-protobuf"),
            (header::CONTENT_ENCODING, "snappy"),
            (header::HeaderName::from_static("x-prometheus-remote-write-version"), "0.1.0"),
        ];
        self.send(Method::POST, "/api/v1/write", &headers, encode(series)?).await.map(drop)
    }

    /// The newest sample of each series at an instant, with the value of `label` for its name.
    pub async fn instant(&self, query: &str, at: Timestamp, label: &str) -> Result<Found, Refusal> {
        let form = [("query", query.to_owned()), ("time", as_seconds(at))];
        found(&self.ask("/api/v1/query", &form).await?, label)
    }

    /// The values at each step of a range.
    pub async fn range(
        &self,
        query: &str,
        (start, end): (Timestamp, Timestamp),
        step: Duration,
        label: &str,
    ) -> Result<Found, Refusal> {
        let form = [
            ("query", query.to_owned()),
            ("start", as_seconds(start)),
            ("end", as_seconds(end)),
            ("step", step.as_secs_f64().to_string()),
        ];
        found(&self.ask("/api/v1/query_range", &form).await?, label)
    }

    /// The values that `label` has on the series that `selector` finds.
    pub async fn label_values(
        &self,
        label: &str,
        selector: &str,
        (start, end): (Timestamp, Timestamp),
    ) -> Result<Vec<String>, Refusal> {
        let path = format!(
            "/api/v1/label/{label}/values?match%5B%5D={}&start={}&end={}",
            percent(selector),
            as_seconds(start),
            as_seconds(end)
        );
        let data = data(&self.get(&path).await?)?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        data.as_array()
            .and_then(|values| values.iter().map(text).collect())
            .ok_or_else(|| Refusal::Strange(data.to_string()))
    }

    async fn ask(&self, path: &str, form: &[(&str, String)]) -> Result<Value, Refusal> {
        let headers = [(header::CONTENT_TYPE, "application/x-www-form-urlencoded")];
        data(&self.send(Method::POST, path, &headers, Bytes::from(encode_form(form))).await?)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(header::HeaderName, &str)],
        body: Bytes,
    ) -> Result<String, Refusal> {
        let request =
            self.server.request(method, path, headers, body).map_err(|e| Refusal::Silent(e.to_string()))?;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|e| Refusal::Silent(innermost(&e)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body =
                body.map_err(|e| Refusal::Silent(format!("the answer broke off: {}", innermost(&*e))))?;
            Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(Ok((status, body))) if status.is_success() => Ok(body),
            Ok(Ok((status, body))) => Err(Refusal::Said { status, words: words(&body) }),
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => Err(Refusal::Silent(format!("no answer within {:?}", self.timeout))),
        }
    }
}

/// `data` of an answer of the API.
fn data(body: &str) -> Result<Value, Refusal> {
    let mut json: Value = serde_json::from_str(body).map_err(|_| Refusal::Strange(words(body)))?;
    match json.get_mut("data") {
        Some(data) => Ok(data.take()),
        None => Err(Refusal::Strange(words(body))),
    }
}

/// The samples in `data` of a query.
fn found(data: &Value, label: &str) -> Result<Found, Refusal> {
    read(data, label).ok_or_else(|| Refusal::Strange(words(&data.to_string())))
}

fn read(data: &Value, label: &str) -> Option<Found> {
    let mut found = Found::new();
    for series in data.get("result")?.as_array()? {
        let name = series.get("metric")?.get(label).and_then(Value::as_str).unwrap_or_default();
        let samples = match (series.get("values"), series.get("value")) {
            (Some(values), _) => values.as_array()?.iter().map(sample).collect::<Option<_>>()?,
            (None, Some(value)) => vec![sample(value)?],
            (None, None) => return None,
        };
        found.insert(name.to_owned(), samples);
    }
    Some(found)
}

fn sample(pair: &Value) -> Option<(Timestamp, f64)> {
    // As text: a float of seconds might not have the millisecond.
    let at = seconds(&pair.get(0)?.to_string())?;
    Some((Timestamp(at), pair.get(1)?.as_str()?.parse().ok()?))
}

/// The messages of remote write 1.0, as far as we send them.
#[derive(Clone, PartialEq, prost::Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    series: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

fn encode(series: &[Known]) -> Result<Bytes, Refusal> {
    let series = series.iter().map(|known| {
        let name = ("__name__", known.name.to_owned());
        let mut labels: Vec<Label> = std::iter::once(&name)
            .chain(&known.labels)
            .map(|(name, value)| Label { name: (*name).to_owned(), value: value.clone() })
            .collect();
        labels.sort_by(|a, b| a.name.cmp(&b.name));
        let sample = |&(at, value): &(Timestamp, f64)| Sample { value, timestamp: at.millis() };
        TimeSeries { labels, samples: known.samples.iter().map(sample).collect() }
    });
    let request = WriteRequest { series: series.collect() }.encode_to_vec();
    let compressed = snap::raw::Encoder::new().compress_vec(&request);
    compressed.map(Bytes::from).map_err(|e| Refusal::Silent(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_to_the_millisecond_and_the_bit() {
        let data = |text: &str| super::data(text).and_then(|data| found(&data, "s"));
        let matrix = r#"{"status":"success","data":{"resultType":"matrix","result":[
            {"metric":{"s":"a"},"values":[[1767225600,"1"],[1767225600.001,"0.1"]]},
            {"metric":{},"values":[[0,"NaN"]]}]}}"#;
        let read = data(matrix).unwrap();
        assert_eq!(read["a"], [(Timestamp(1_767_225_600_000), 1.0), (Timestamp(1_767_225_600_001), 0.1)]);
        assert!(read[""][0].1.is_nan());
        let vector = r#"{"data":{"result":[{"metric":{"s":"b"},"value":[1.5,"-2"]}]}}"#;
        assert_eq!(data(vector).unwrap()["b"], [(Timestamp(1500), -2.0)]);
        assert_eq!(data(r#"{"data":{"result":[]}}"#), Ok(Found::new()));
    }

    #[test]
    fn an_answer_of_another_shape_is_strange() {
        for text in [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"data":1}"#,
            r#"{"data":{"result":{}}}"#,
            r#"{"data":{"result":[{}]}}"#,
            r#"{"data":{"result":[{"metric":{},"value":[]}]}}"#,
            r#"{"data":{"result":[{"metric":{},"value":["x","1"]}]}}"#,
            r#"{"data":{"result":[{"metric":{},"value":[1,1]}]}}"#,
            r#"{"data":{"result":[{"metric":{},"values":[[1,"x"]]}]}}"#,
        ] {
            let read = data(text).and_then(|data| found(&data, "s"));
            assert!(matches!(read, Err(Refusal::Strange(_))), "{text}: {read:?}");
        }
    }

    #[test]
    fn a_selector_holds_any_text() {
        let known = Known { name: "m", labels: vec![("a", "x\"\\\n".to_owned())], samples: Vec::new() };
        assert_eq!(known.selector(), r#"m{a="x\"\\\n"}"#);
    }
}
