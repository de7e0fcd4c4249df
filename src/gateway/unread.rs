//! Bodies that nobody read: of those who are turned away, mostly.
//!
//! Their answer is there before their body is. A connection on which a body is left unread cannot be used again, and if
//! it is closed while more comes in, the kernel resets it and the answer may be lost on the way. So the rest of a
//! small body is read and forgotten, and the connection goes on; for a large one the connection is told to close, and
//! some more is read and forgotten meanwhile, so that the sender comes to reading the answer.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State as Extract},
    http::{HeaderValue, Version, header},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::task;

/// Up to so many announced bytes are read for the connection's sake.
const SMALL: usize = 64 << 10;

/// How much is read of a large body, and for how long, at most.
const LINGER_BYTES: usize = 4 << 20;
const LINGER: Duration = Duration::from_secs(5);

/// How many connections may linger at a time.
const LINGERING: usize = 256;

/// Forgets bodies.
#[derive(Clone, Debug)]
pub struct Unread(Arc<Semaphore>);

/// A request's body, lent to whoever answers: what they leave of it is there afterwards.
#[derive(Debug)]
struct Lent(Arc<Mutex<Loan>>);

#[derive(Debug)]
struct Loan {
    body: Body,
    /// Whether its end was seen; a body without a length does not know by itself.
    ended: bool,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut loan = self.0.lock();
        let frame = ready!(Pin::new(&mut loan.body).poll_frame(cx));
        loan.ended |= !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().body.size_hint()
    }
}

/// Deals with what is left of a request's body when its answer is there, whoever gave it.
pub async fn forget_the_rest(Extract(unread): Extract<Unread>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() || request.version() == Version::HTTP_2 {
        return next.run(request).await;
    }
    let version = request.version();
    let mut kept = None;
    let request = request.map(|body| {
        let loan = Arc::new(Mutex::new(Loan { body, ended: false }));
        kept = Some(Arc::clone(&loan));
        Body::new(Lent(loan))
    });
    let mut answer = next.run(request).await;
    // Whoever still holds it reads on.
    if let Some(Loan { body, ended: false }) = kept.and_then(Arc::into_inner).map(Mutex::into_inner) {
        unread.forget(body, version, &mut answer).await;
    }
    answer
}

impl Default for Unread {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LINGERING)))
    }
}

impl Unread {
    /// Deals with the body of a request that has its answer already.
    async fn forget(&self, body: Body, version: Version, answer: &mut Response) {
        // An HTTP/2 stream ends without its connection.
        if body.is_end_stream() || version == Version::HTTP_2 {
            return;
        }
        let announced = body.size_hint().upper();
        // Nearly always all of it is here; one who dawdles is not worth the wait.
        if announced.is_some_and(|bytes| bytes <= SMALL as u64) {
            let read = tokio::time::timeout(Duration::from_millis(100), pass_over(body, SMALL)).await;
            if read.is_ok_and(|whole| whole) {
                return;
            }
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return;
        }
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        if let Ok(place) = Arc::clone(&self.0).try_acquire_owned() {
            task::spawn("unread", async move {
                let _place = place;
                // How far it came does not matter: what is left when the time is up goes with the connection.
                let _ = tokio::time::timeout(LINGER, pass_over(body, LINGER_BYTES)).await;
            });
        }
    }
}

/// Reads up to `most` bytes; tells whether that was all.
async fn pass_over(mut body: Body, most: usize) -> bool {
    let mut read = 0;
    while let Some(frame) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(frame) = frame else { return false };
        read += frame.data_ref().map_or(0, bytes::Bytes::len);
        if read > most {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use axum::{Router, middleware::from_fn_with_state, routing::post};
    use tower::ServiceExt;

    use super::*;

    /// A body of so many bytes, and how many of them were read.
    struct Counted(u64, Arc<AtomicU64>);

    impl HttpBody for Counted {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            let piece = self.0.min(1000);
            self.0 -= piece;
            self.1.fetch_add(piece, Ordering::Relaxed);
            let data = vec![0; usize::try_from(piece).unwrap()];
            Poll::Ready((piece > 0).then(|| Ok(Frame::data(data.into()))))
        }

        fn is_end_stream(&self) -> bool {
            self.0 == 0
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.0)
        }
    }

    /// How much of a body is read by one who reads it or not, and whether the connection is to close.
    async fn sent(path: &str, bytes: u64) -> (u64, bool) {
        let router: Router = Router::new()
            .route("/read", post(async |body: Bytes| body.len().to_string()))
            .route("/refuse", post(async || axum::http::StatusCode::UNAUTHORIZED))
            .layer(from_fn_with_state(Unread::default(), forget_the_rest));
        let read = Arc::new(AtomicU64::new(0));
        let body = Body::new(Counted(bytes, Arc::clone(&read)));
        let answer = router.oneshot(Request::post(path).body(body).unwrap()).await.unwrap();
        (read.load(Ordering::Relaxed), answer.headers().contains_key(header::CONNECTION))
    }

    #[tokio::test]
    async fn a_small_body_is_read_by_somebody_and_for_a_large_one_the_connection_ends() {
        assert_eq!(sent("/read", 5000).await, (5000, false));
        assert_eq!(sent("/refuse", 5000).await, (5000, false));
        assert_eq!(sent("/nowhere", 5000).await, (5000, false));
        assert_eq!(sent("/refuse", 0).await, (0, false));
        assert!(sent("/refuse", 10 << 20).await.1);
    }
}
