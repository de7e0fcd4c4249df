//! Carries requests to a bucket by the connections that the rest of this program makes, with their TLS.

use std::{error::Error, io, time::Duration};

use async_trait::async_trait;
use http_body_util::{BodyExt, Limited};
use hyper::header::{self, HeaderValue};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector as Connects, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
        HttpResponse, HttpService,
    },
};

/// How long a request and its answer may take: at 8 MiB and some in flight, a slow line has to carry half a megabit
/// a second.
const PATIENCE: Duration = Duration::from_secs(300);

/// No answer that is asked for is larger: objects are read in pieces.
const LARGEST_ANSWER: usize = 64 << 20;

/// Makes connections, plain or by TLS.
pub(super) type Connector = HttpsConnector<HttpConnector>;

/// Sends what the library of object stores asks for.
#[derive(Debug)]
pub(super) struct Http(pub(super) Connector);

#[derive(Debug)]
struct Exchange(Client<Connector, HttpRequestBody>);

impl Connects for Http {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Exchange(Client::builder(TokioExecutor::new()).build(self.0.clone()))))
    }
}

#[async_trait]
impl HttpService for Exchange {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let agent = HeaderValue::from_static(concat!("luminate/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        let exchange = async {
            let answer = self.0.request(request).await.map_err(|error| {
                let kind =
                    if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
                HttpError::new(kind, innermost(&error))
            })?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, LARGEST_ANSWER).collect().await;
            let body =
                body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, innermost(error.as_ref())))?;
            Ok(HttpResponse::from_parts(parts, body.to_bytes().into()))
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(exchanged) => exchanged,
            Err(_) => Err(HttpError::new(HttpErrorKind::Timeout, io::Error::from(io::ErrorKind::TimedOut))),
        }
    }
}

/// What went wrong at the bottom; what lies over it says only that something did.
fn innermost(error: &(dyn Error + 'static)) -> io::Error {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    io::Error::other(error.to_string())
}
