//! Speaks HTTP to a running server.

use std::{fs, io::Read, path::PathBuf, time::Duration};

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

/// More than this is no token.
const MAX_TOKEN_BYTES: u64 = 64 << 10;

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
    /// The file with a token or an API key to show.
    #[arg(long = "token.file", value_name = "FILE", env = "LUMINATE_TOKEN_FILE")]
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
        self.send(Method::GET, path, &[], &[], timeout)
    }

    /// Sends a form to `path`, and waits no longer than `timeout`.
    pub fn post(
        &self,
        path: &str,
        form: &[(&str, String)],
        timeout: Duration,
    ) -> Result<Answer, CommandError> {
        self.send(Method::POST, path, &[], form, timeout)
    }

    /// Sends a form to `path` with more headers, their names in lower case.
    pub(super) fn post_with(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
        form: &[(&str, String)],
        timeout: Duration,
    ) -> Result<Answer, CommandError> {
        self.send(Method::POST, path, headers, form, timeout)
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        more: &[(&'static str, &str)],
        form: &[(&str, String)],
        timeout: Duration,
    ) -> Result<Answer, CommandError> {
        let mut headers = vec![(header::CONTENT_TYPE, "application/x-www-form-urlencoded")];
        headers.extend(more.iter().map(|(name, value)| (header::HeaderName::from_static(name), *value)));
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
        if let Some(shown) = self.authorization()? {
            request = request.header(header::AUTHORIZATION, shown);
        }
        request
            .body(Full::new(body))
            .map_err(|_| CommandError::Usage(format!("{:?} cannot be sent", self.tenant)))
    }

    /// What the file of the token says, as a header. What is wrong with it is told without what is in it.
    fn authorization(&self) -> Result<Option<HeaderValue>, CommandError> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let wrong = |why: &dyn std::fmt::Display| CommandError::Usage(format!("{}: {why}", path.display()));
        let mut token = String::new();
        let file = fs::File::open(path).map_err(|e| wrong(&e))?;
        file.take(MAX_TOKEN_BYTES).read_to_string(&mut token).map_err(|e| wrong(&e))?;
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong(&"there is no token in it"));
        }
        let mut shown = HeaderValue::try_from(format!("Bearer {token}")).map_err(|e| wrong(&e))?;
        shown.set_sensitive(true);
        Ok(Some(shown))
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
        let tls = TlsFlags::default();
        ServerFlags { server: server.to_owned(), tenant: None, token_file: None, tls }
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
    #[test]
    fn a_token_is_shown_from_its_file_and_never_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let shown = |content: &str| {
            fs::write(&path, content).unwrap();
            let flags = ServerFlags { token_file: Some(path.clone()), ..flags("http://h") };
            let request = flags.request(Method::GET, "/", &[], Bytes::new()).map_err(|e| e.to_string())?;
            let told = format!("{request:?}");
            assert!(!told.contains("s3cret"), "{told}");
            Ok::<_, String>(request.headers()[header::AUTHORIZATION].to_str().unwrap().to_owned())
        };
        assert_eq!(shown("s3cret\n"), Ok("Bearer s3cret".to_owned()));
        for wrong in ["", "\n", "s3cret s3cret", "s3cret\ns3cret", "s3cr\u{e9}t"] {
            let error = shown(wrong).unwrap_err();
            assert!(error.contains("there is no token in it") && !error.contains("s3cr"), "{error}");
        }
        let missing = ServerFlags { token_file: Some(folder.path().join("none")), ..flags("http://h") };
        assert!(missing.request(Method::GET, "/", &[], Bytes::new()).is_err());
    }
}
