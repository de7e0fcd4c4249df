//! A server that is spoken to for long: what passes is waited for and tried again.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{HeaderMap, Method, Response, StatusCode, body::Incoming, header};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::{
    cli::{
        CommandError,
        client::{ServerFlags, encode_form, innermost},
    },
    clock::Clock,
};

/// Longer than a server takes to begin an answer, or to write a request's lines.
const TIMEOUT: Duration = Duration::from_secs(300);
/// How long an answer may pause.
const PAUSE: Duration = Duration::from_secs(120);
/// The longest wait between two tries, unless the server asks for more.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How much of a server's words is shown.
const SHOWN: usize = 2_000;

/// A connection to one server.
#[derive(Debug)]
pub struct Connection {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    server: ServerFlags,
}

/// Why a try failed.
#[derive(Debug)]
pub enum Trouble {
    /// Likely over in a moment.
    Passing {
        /// What happened.
        why: String,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// Trying again will not help.
    Lasting(CommandError),
}

/// An answer that is all there.
#[derive(Debug)]
pub struct Whole {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as text.
    pub body: String,
}

impl Connection {
    /// Gets ready to speak to a server.
    pub fn new(server: &ServerFlags) -> Result<Self, CommandError> {
        server.uri("/")?;
        let connector = server.tls.connector(&server.server)?;
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), server: server.clone() })
    }

    /// The server's URL.
    pub fn server(&self) -> &str {
        &self.server.server
    }

    /// Sends a form and gives the answer's head once it is a success.
    pub async fn ask(&self, path: &str, form: &[(&str, String)]) -> Result<Response<Incoming>, Trouble> {
        let headers = [(header::CONTENT_TYPE, "application/x-www-form-urlencoded")];
        let answer = self.send(Method::POST, path, &headers, Bytes::from(encode_form(form))).await?;
        if answer.status().is_success() { Ok(answer) } else { Err(self.refused(whole(answer).await?)) }
    }

    /// Sends lines and gives the answer, if it is one: the lines were taken, in part or whole.
    pub async fn give(&self, path: &str, lines: Bytes) -> Result<Whole, Trouble> {
        let headers = [(header::CONTENT_TYPE, "application/stream+json"), (header::CONTENT_ENCODING, "zstd")];
        let answer = whole(self.send(Method::POST, path, &headers, lines).await?).await?;
        if answer.status.is_success() || answer.status == StatusCode::BAD_REQUEST {
            Ok(answer)
        } else {
            Err(self.refused(answer))
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(header::HeaderName, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>, Trouble> {
        let request = self.server.request(method, path, headers, body).map_err(Trouble::Lasting)?;
        match tokio::time::timeout(TIMEOUT, self.client.request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Trouble::passing(innermost(&error))),
            Err(_) => Err(Trouble::passing(format!("no answer within {}s", TIMEOUT.as_secs()))),
        }
    }

    fn refused(&self, answer: Whole) -> Trouble {
        let retry_after = answer
            .headers
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let words = words(&answer.body);
        let why = format!("{}: {words}", answer.status);
        let passing = answer.status.is_server_error() && answer.status != StatusCode::NOT_IMPLEMENTED
            || answer.status == StatusCode::TOO_MANY_REQUESTS
            || answer.status == StatusCode::REQUEST_TIMEOUT;
        if passing {
            Trouble::Passing { why, retry_after }
        } else {
            Trouble::Lasting(CommandError::Failed(format!("{}: {why}", self.server())))
        }
    }
}

impl Trouble {
    /// Something that may be over in a moment.
    pub fn passing(why: impl Into<String>) -> Self {
        Self::Passing { why: why.into(), retry_after: None }
    }
}

/// The next piece of an answer; none at its end.
pub async fn next(body: &mut Incoming) -> Result<Option<Bytes>, Trouble> {
    loop {
        match tokio::time::timeout(PAUSE, body.frame()).await {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Ok(Some(Err(error))) => {
                return Err(Trouble::passing(format!("the answer broke off: {}", innermost(&error))));
            }
            Err(_) => return Err(Trouble::passing("the answer stopped coming")),
        }
    }
}

async fn whole(answer: Response<Incoming>) -> Result<Whole, Trouble> {
    let (parts, body) = answer.into_parts();
    let collected = tokio::time::timeout(PAUSE, Limited::new(body, 16 << 20).collect()).await;
    let collected = collected
        .map_err(|_| Trouble::passing("the answer stopped coming"))?
        .map_err(|error| Trouble::passing(format!("the answer broke off: {}", innermost(&*error))))?;
    let body = String::from_utf8_lossy(&collected.to_bytes()).into_owned();
    Ok(Whole { status: parts.status, headers: parts.headers, body })
}

/// What a server says is wrong: the `error` of an answer of the API, or the body as it is.
pub fn words(body: &str) -> String {
    let json: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let error = json.as_ref().and_then(|json| json.get("error")).and_then(serde_json::Value::as_str);
    error.unwrap_or(body.trim()).chars().take(SHOWN).collect()
}

/// How long failures are borne.
#[derive(Debug)]
pub struct Patience {
    clock: Arc<dyn Clock>,
    limit: Duration,
    /// Since when nothing has worked; none while it does.
    failing: Option<Duration>,
    tries: u32,
}

impl Patience {
    /// Bears failures in a row for `limit`.
    pub fn new(clock: Arc<dyn Clock>, limit: Duration) -> Self {
        Self { clock, limit, failing: None, tries: 0 }
    }

    /// It works.
    pub fn restore(&mut self) {
        (self.failing, self.tries) = (None, 0);
    }

    /// How long to wait before the next try; an error if there is to be none.
    pub fn bear(&mut self, server: &str, trouble: Trouble) -> Result<(Duration, String), CommandError> {
        let (why, retry_after) = match trouble {
            Trouble::Passing { why, retry_after } => (why, retry_after),
            Trouble::Lasting(error) => return Err(error),
        };
        let now = self.clock.elapsed();
        let failing = now.saturating_sub(*self.failing.get_or_insert(now));
        let doubled = Duration::from_millis(500).saturating_mul(1 << self.tries.min(10)).min(LONGEST_WAIT);
        let wait = retry_after.unwrap_or_default().max(doubled);
        self.tries += 1;
        if failing + wait > self.limit {
            return Err(CommandError::Failed(format!(
                "{server}: {why}; given up after {} tries",
                self.tries
            )));
        }
        Ok((wait, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::HandClock, model::Timestamp};

    #[test]
    fn what_passes_is_waited_for_and_not_for_ever() {
        let clock = HandClock::at(Timestamp(0));
        let mut patience = Patience::new(Arc::<HandClock>::clone(&clock), Duration::from_secs(10));
        let mut bear = |retry_after| {
            let trouble = Trouble::Passing {
                why: "503".to_owned(),
                retry_after: Option::map(retry_after, Duration::from_secs),
            };
            let waited = patience.bear("http://h", trouble).map(|(wait, _)| wait.as_millis());
            if let Ok(wait) = waited {
                clock.advance(Duration::from_millis(u64::try_from(wait).unwrap()));
            }
            waited.map_err(|error| error.to_string())
        };
        assert_eq!(bear(None), Ok(500));
        assert_eq!(bear(None), Ok(1_000));
        assert_eq!(bear(Some(5)), Ok(5_000));
        assert_eq!(bear(None), Err("http://h: 503; given up after 4 tries".to_owned()));
        patience.restore();
        assert!(patience.bear("http://h", Trouble::passing("x")).is_ok());
        let lasting = Trouble::Lasting(CommandError::Failed("no".to_owned()));
        assert_eq!(patience.bear("http://h", lasting).unwrap_err().to_string(), "no");
    }

    #[test]
    fn a_servers_words_are_taken_out_of_its_json() {
        assert_eq!(words(r#"{"status":"error","error":"no"}"#), "no");
        assert_eq!(words(" plain \n"), "plain");
        assert_eq!(words(&"x".repeat(5_000)).len(), SHOWN);
    }
}
