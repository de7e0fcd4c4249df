//! Bodies come in here: whole, no larger than allowed, and not slower.

use std::time::Duration;

use axum::{body::Body, http::Extensions};
use bytes::{Bytes, BytesMut};
use hyper::body::Body as HttpBody;

use super::{
    error::ApiError,
    in_flight::{BodyRoom, Share},
};

/// Bounds on a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// The most bytes, as they come over the wire.
    pub max_bytes: usize,
    /// How long they may take.
    pub timeout: Duration,
}

/// A body that has been read, and its share of the room there is for bodies.
#[derive(Debug)]
pub struct Held {
    /// The whole body.
    pub bytes: Bytes,
    /// Given back when dropped.
    _share: Share,
}

/// Reads a body to its end; `extensions` are those of its request, where the room for bodies is.
pub async fn read(body: Body, extensions: &Extensions, limits: BodyLimits) -> Result<Held, ApiError> {
    let max_bytes = u64::try_from(limits.max_bytes).unwrap_or(u64::MAX);
    if body.size_hint().lower() > max_bytes {
        return Err(ApiError::body_too_large(limits.max_bytes));
    }
    let room = extensions.get::<BodyRoom>();
    match tokio::time::timeout(limits.timeout, collect(body, room, limits.max_bytes)).await {
        Ok(read) => read,
        Err(_) => Err(ApiError::body_too_slow(limits.timeout)),
    }
}

async fn collect(mut body: Body, room: Option<&BodyRoom>, max_bytes: usize) -> Result<Held, ApiError> {
    // Most bodies come in one or two frames: the first is kept as it is, and copied only if there are more.
    let mut first = Bytes::new();
    let mut whole: Option<BytesMut> = None;
    let mut share = Share::default();
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(max_bytes).min(max_bytes);
    while let Some(frame) = next_frame(&mut body).await {
        let frame =
            frame.map_err(|error| ApiError::bad_data(format!("the request body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let so_far = whole.as_ref().map_or(first.len(), BytesMut::len);
        if data.len() > max_bytes - so_far {
            return Err(ApiError::body_too_large(max_bytes));
        }
        if let Some(room) = room {
            room.extend(&mut share, data.len())?;
        }
        match &mut whole {
            Some(whole) => whole.extend_from_slice(&data),
            None if first.is_empty() => first = data,
            None => {
                let mut both = BytesMut::with_capacity(announced.max(first.len() + data.len()));
                both.extend_from_slice(&first);
                both.extend_from_slice(&data);
                whole = Some(both);
            }
        }
    }
    Ok(Held { bytes: whole.map_or(first, BytesMut::freeze), _share: share })
}

async fn next_frame(body: &mut Body) -> Option<Result<hyper::body::Frame<Bytes>, axum::Error>> {
    std::future::poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_frame(cx)).await
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    const LIMITS: BodyLimits = BodyLimits { max_bytes: 8, timeout: Duration::from_millis(50) };

    async fn read(body: Body) -> Result<Held, ApiError> {
        super::read(body, &Extensions::new(), LIMITS).await
    }

    fn frames(frames: &'static [&'static str]) -> Body {
        Body::from_stream(stream::iter(
            frames.iter().map(|f| Ok::<_, std::io::Error>(Bytes::from_static(f.as_bytes()))),
        ))
    }

    #[tokio::test]
    async fn a_body_is_put_together_from_its_frames() {
        for (body, whole) in
            [(Body::empty(), ""), (Body::from("abc"), "abc"), (frames(&["abc", "", "de", "fgh"]), "abcdefgh")]
        {
            assert_eq!(read(body).await.unwrap().bytes, whole);
        }
    }

    #[tokio::test]
    async fn a_body_above_the_limit_is_refused_announced_or_not() {
        for body in [Body::from("123456789"), frames(&["12345", "6789"]), frames(&["123456789"])] {
            assert_eq!(read(body).await.unwrap_err().status(), 413);
        }
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(read(never).await.unwrap_err().status(), 408);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_bad_data() {
        let broken = Body::from_stream(stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]));
        assert_eq!(read(broken).await.unwrap_err().status(), 400);
    }

    #[tokio::test]
    async fn bodies_share_the_room_there_is_and_give_it_back() {
        let mut extensions = Extensions::new();
        extensions.insert(BodyRoom::new(10));
        let read = async |body: &'static str| super::read(Body::from(body), &extensions, LIMITS).await;
        let first = read("12345678").await.unwrap();
        let refused = read("123").await.unwrap_err();
        assert_eq!(refused.status(), 503);
        let _fits = read("12").await.unwrap();
        drop(first);
        read("12345678").await.unwrap();
    }
}
