//! The bodies of those who are turned away.
//!
//! Their answer is there before their body is. A connection on which a body is left unread cannot be used again, and if
//! it is closed while more comes in, the kernel resets it and the answer may be lost on the way. So the rest of a
//! small body is read and forgotten, and the connection goes on; for a large one the connection is told to close, and
//! some more is read and forgotten meanwhile, so that the sender comes to reading the answer.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, Version, header},
    response::Response,
};
use hyper::body::Body as HttpBody;
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

impl Default for Unread {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LINGERING)))
    }
}

impl Unread {
    /// Deals with the body of a request that has its answer already.
    pub async fn forget(&self, body: Body, version: Version, answer: &mut Response) {
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
