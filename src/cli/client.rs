//! Speaks HTTP to a running server.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode, Uri,
    header::{self, HeaderValue},
};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use super::{CommandError, tls::TlsFlags};

/// More than this is not an answer a terminal is for.
const MAX_ANSWER_BYTES: usize = 1 << 30;

/// More than this is not a credential.
const MAX_TOKEN_BYTES: u64 = 16 << 10;

/// The credential itself, for those who have no file; no flag takes it, because every process sees flags.
const TOKEN_VARIABLE: &str = "LUMINATE_TOKEN";

/// Which server to ask, and as whom.
#[derive(Clone, Debug, Args)]
pub struct ServerFlags {
    /// The server's URL.
    #[arg(
        long,
        alias = "url",
        value_name = "URL",
        env = "LUMINATE_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub server: String,
    /// The tenant to act for [default: anonymous].
    #[arg(long, value_name = "TENANT", env = "LUMINATE_TENANT")]
    pub tenant: Option<String>,
    /// A file with the token or API key to show [default: what the variable LUMINATE_TOKEN says].
    #[arg(long, value_name = "FILE", env = "LUMINATE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// TLS, for an `https://` URL.
    #[command(flatten)]
    pub tls: TlsFlags,
}

/// A server's answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body, as text.
    pub body: String,
}

impl ServerFlags {
    /// Asks for `path`, within `timeout`.
    pub fn get(&self, path: &str, timeout: Duration) -> Result<Answer, CommandError> {
        self.send(Method::GET, path, &[], timeout)
    }

    /// Sends a form to `path`, and waits no longer than `timeout`.
    pub fn post(
        &self,
        path: &str,
        form: &[(&str, String)],
        timeout: Duration,
    ) -> Result<Answer, CommandError> {
        self.send(Method::POST, path, form, timeout)
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        form: &[(&str, String)],
        timeout: Duration,
    ) -> Result<Answer, CommandError> {
        let headers = [(header::CONTENT_TYPE, "application/x-www-form-urlencoded")];
        let request = self.request(method, path, &headers, Bytes::from(encode_form(form)))?;
        let connector = self.tls.connector(&self.server)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| CommandError::Failed(format!("cannot start the runtime: {e}")))?;
        runtime.block_on(async {
            match tokio::time::timeout(timeout, exchange(connector, request)).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => Err(CommandError::Failed(format!("{}: {error}", self.server))),
                Err(_) => Err(CommandError::Failed(format!(
                    "{} does not answer within {}s",
                    self.server,
                    timeout.as_secs()
                ))),
            }
        })
    }

    /// What says who we are; read each time, so that a file may be replaced while much is moved.
    fn authorization(&self) -> Result<Option<HeaderValue>, CommandError> {
        let (token, place) = match &self.token_file {
            Some(file) => (token_in(file)?, file.display().to_string()),
            None => match std::env::var(TOKEN_VARIABLE) {
                Ok(token) if !token.is_empty() => (token, TOKEN_VARIABLE.to_owned()),
                Ok(_) | Err(_) => return Ok(None),
            },
        };
        // What is wrong with it is not told with it.
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))
            .map_err(|_| CommandError::Usage(format!("{place}: there is more than a token or key in it")))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// A request to `path`, as the tenant to act for.
    pub(super) fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(header::HeaderName, &str)],
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, CommandError> {
        let mut request = Request::builder()
            .method(method)
            .uri(self.uri(path)?)
            .header(header::USER_AGENT, concat!("luminate/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        if let Some(authorization) = self.authorization()? {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        request
            .body(Full::new(body))
            .map_err(|_| CommandError::Usage(format!("{:?} cannot be sent", self.tenant)))
    }

    pub(super) fn uri(&self, path: &str) -> Result<Uri, CommandError> {
        let server = self.server.trim_end_matches('/');
        let wrong = || {
            CommandError::Usage(format!("{server:?} is not a URL, write for example http://127.0.0.1:8080"))
        };
        if !server.starts_with("http://") && !server.starts_with("https://") {
            return Err(wrong());
        }
        let uri: Uri = format!("{server}{path}").parse().map_err(|_| wrong())?;
        if uri.host().is_none_or(str::is_empty) { Err(wrong()) } else { Ok(uri) }
    }
}

fn token_in(file: &Path) -> Result<String, CommandError> {
    let wrong = |why: &dyn std::fmt::Display| CommandError::Usage(format!("{}: {why}", file.display()));
    let mut token = String::new();
    let opened = fs::File::open(file).map_err(|error| wrong(&error))?;
    opened.take(MAX_TOKEN_BYTES + 1).read_to_string(&mut token).map_err(|error| wrong(&error))?;
    match token.len() as u64 {
        _ if token.trim().is_empty() => Err(wrong(&"there is nothing in it")),
        bytes if bytes > MAX_TOKEN_BYTES => Err(wrong(&"there is more than a token or key in it")),
        _ => Ok(token),
    }
}

async fn exchange(
    connector: HttpsConnector<HttpConnector>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, String> {
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let answer = client.request(request).await.map_err(|e| innermost(&e))?;
    let status = answer.status();
    let body =
        Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(|e| innermost(&*e))?;
    Ok(Answer { status, body: String::from_utf8_lossy(&body.to_bytes()).into_owned() })
}

/// What went wrong at the bottom; what lies over it says only that something did.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

pub(super) fn encode_form(form: &[(&str, String)]) -> String {
    let pairs: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", percent(value))).collect();
    pairs.join("&")
}

pub(super) fn percent(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(server: &str) -> ServerFlags {
        ServerFlags { server: server.to_owned(), tenant: None, token_file: None, tls: TlsFlags::default() }
    }

    fn uri(server: &str) -> Result<String, String> {
        flags(server).uri("/x").map(|uri| uri.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_server_is_named_by_its_url() {
        assert_eq!(uri("http://127.0.0.1:8080/").unwrap(), "http://127.0.0.1:8080/x");
        assert_eq!(uri("http://h/prometheus").unwrap(), "http://h/prometheus/x");
        assert_eq!(uri("https://h:9").unwrap(), "https://h:9/x");
        for wrong in ["", "h:80", "ftp://h", "http://", "http://a b"] {
            assert!(uri(wrong).unwrap_err().contains("is not a URL"), "{wrong:?}");
        }
    }

    #[test]
    fn a_token_is_read_from_its_file_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let flags = ServerFlags { token_file: Some(path.clone()), ..flags("http://h") };
        let request = || flags.request(Method::GET, "/", &[], Bytes::new());
        fs::write(&path, "hunter2\n").unwrap();
        let sent = request().unwrap();
        assert_eq!(sent.headers()["authorization"], "Bearer hunter2");
        assert!(!format!("{sent:?}{flags:?}").contains("hunter2"));
        for (text, wrong) in [
            ("", "nothing in it"),
            (" \n", "nothing in it"),
            ("hunter2\nhunter3", "more than a token"),
            (&"x".repeat(20_000), "more than a token"),
        ] {
            fs::write(&path, text).unwrap();
            let error = request().unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(wrong) && !error.to_string().contains("hunter"), "{error}");
        }
        fs::remove_file(&path).unwrap();
        assert!(request().unwrap_err().to_string().contains("No such file"));
    }

    #[test]
    fn a_form_holds_any_text() {
        assert_eq!(
            encode_form(&[("q", "a+b{c=\"é\"}".to_owned()), ("t", "1".to_owned())]),
            "q=a%2Bb%7Bc%3D%22%C3%A9%22%7D&t=1"
        );
    }

    #[test]
    fn a_server_that_is_not_there_is_a_failure_with_its_name() {
        let error = flags("http://127.0.0.1:1").get("/", Duration::from_secs(5)).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().starts_with("http://127.0.0.1:1: "), "{error}");
    }
}
