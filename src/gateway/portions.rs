//! Large answers go out in portions, and other connections are served between them.
//!
//! A body in one piece would be compressed, and copied into a socket whose reader keeps up, without a pause: for tens of
//! milliseconds nobody else would be served by that thread of the runtime, which may be the one that listens for all.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// How much goes out at a time: copied in a tenth of a millisecond, compressed in one or two.
const PORTION: usize = 128 << 10;

/// Has larger answers go out in portions.
pub async fn portion_out(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    match usize::try_from(response.body().size_hint().lower()) {
        Ok(small) if small <= PORTION => response,
        _ => response.map(|body| Body::new(Portions { body, piece: Bytes::new(), pause: false })),
    }
}

/// A body whose pieces are cut, with a pause after each.
#[derive(Debug)]
struct Portions {
    body: Body,
    /// What has not gone out of the last piece.
    piece: Bytes,
    pause: bool,
}

impl HttpBody for Portions {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if std::mem::take(&mut self.pause) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.piece.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(piece))) => self.piece = piece,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let size = self.piece.len().min(PORTION);
        self.pause = true;
        Poll::Ready(Some(Ok(Frame::data(self.piece.split_to(size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.piece.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (left, body) = (self.piece.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(left));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(left));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// The sizes of what goes out, 0 for a pause; and all of it.
    async fn sent(body: Body) -> (Vec<usize>, Vec<u8>) {
        let mut portions = Portions { body, piece: Bytes::new(), pause: false };
        let (mut sizes, mut all) = (Vec::new(), Vec::new());
        loop {
            let left = portions.size_hint();
            let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut portions).poll_frame(cx))).await;
            match polled {
                Poll::Pending => sizes.push(0),
                Poll::Ready(None) => break,
                Poll::Ready(Some(frame)) => {
                    let data = frame.unwrap().into_data().unwrap();
                    if let Some(exact) = left.exact() {
                        let rest = portions.size_hint().exact().unwrap();
                        assert_eq!(exact - rest, data.len() as u64);
                    }
                    sizes.push(data.len());
                    all.extend(data);
                }
            }
        }
        assert!(portions.is_end_stream());
        (sizes, all)
    }

    #[tokio::test]
    async fn a_large_piece_goes_out_in_portions_with_pauses() {
        let large: Vec<u8> = (0..2 * PORTION + 7).map(|at| (at % 251) as u8).collect();
        let (sizes, all) = sent(Body::from(large.clone())).await;
        assert!(all == large);
        assert_eq!(sizes, [PORTION, 0, PORTION, 0, 7, 0]);
    }

    #[tokio::test]
    async fn pieces_stay_in_their_order_and_a_failure_is_passed_on() {
        let pieces: [Result<_, std::io::Error>; 3] =
            [Ok(vec![1; PORTION + 1]), Ok(vec![2]), Err(std::io::Error::other("broke off"))];
        let stream = futures_util::stream::iter(pieces);
        let mut portions = Portions { body: Body::from_stream(stream), piece: Bytes::new(), pause: false };
        let mut seen = Vec::new();
        let failed = loop {
            match poll_fn(|cx| Pin::new(&mut portions).poll_frame(cx)).await {
                Some(Ok(frame)) => seen.push(frame.into_data().unwrap()),
                Some(Err(error)) => break error.to_string(),
                None => panic!("no failure"),
            }
        };
        assert_eq!(
            seen.iter().map(|piece| (piece[0], piece.len())).collect::<Vec<_>>(),
            [(1, PORTION), (1, 1), (2, 1)]
        );
        assert_eq!(failed, "broke off");
    }
}
