//! The requests of one connection, from head to the last byte of the answer.
//!
//! An answer is watched from outside: while its peer takes nothing, nobody asks it for more, so that it could
//! not notice. [`Guarded`](super::guarded) looks at all of them now and then.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use futures_util::task::AtomicWaker;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::ListenerLimits;

/// What of an answer is given to hyper at a time, which holds it until the peer takes it: the rest stays here, where
/// it is watched.
const PIECE: usize = 64 << 10;

/// In the extensions of an answer that may take as long as it keeps flowing.
#[derive(Clone, Copy, Debug)]
pub struct Unhurried;

/// The requests of one connection: how many there were, and those not answered in full.
#[derive(Debug)]
pub(super) struct Requests {
    begun: AtomicU64,
    at_hand: AtomicUsize,
    /// Those that the peer gave up.
    given_up: AtomicU64,
    answers: Mutex<Vec<Arc<Watched>>>,
    /// Times are counted from here.
    opened: Instant,
    /// Who reads the socket. It read on before the last answer was out, and has to look at the clock
    /// again once it is.
    reader: AtomicWaker,
}

/// What is known of an answer on its way.
#[derive(Debug, Default)]
struct Watched {
    /// Since when the peer keeps it waiting, in milliseconds, plus one; 0 while it waits for us.
    waits_since: AtomicU64,
    /// Until when it has to be out, in milliseconds; 0 is no bound.
    out_by: AtomicU64,
}

/// What a look at the answers found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing is wrong.
    Fine,
    /// The peer takes nothing of an answer.
    Stalled,
    /// The peer takes an answer too slowly.
    TooSlow,
}

impl Requests {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: AtomicU64::new(0),
            at_hand: AtomicUsize::new(0),
            given_up: AtomicU64::new(0),
            answers: Mutex::default(),
            opened: Instant::now(),
            reader: AtomicWaker::new(),
        })
    }

    /// How many have begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether there is any that is not answered in full.
    pub(super) fn any_at_hand(&self) -> bool {
        self.at_hand.load(Ordering::Acquire) > 0
    }

    /// Whom to wake once there is none at hand.
    pub(super) fn register(&self, reader: &std::task::Waker) {
        self.reader.register(reader);
    }

    /// Whether the peer keeps us busy with what it does not want in the end.
    pub(super) fn are_given_up(&self, limits: &ListenerLimits) -> bool {
        let given_up = self.given_up.load(Ordering::Relaxed);
        given_up > limits.max_given_up && given_up > self.begun() / 2
    }

    /// Looks whether the peer keeps answers waiting.
    pub(super) fn look(&self, limits: &ListenerLimits) -> Finding {
        let now = self.millis();
        let patience = millis(limits.write_timeout);
        for answer in self.answers.lock().iter() {
            let since = answer.waits_since.load(Ordering::Relaxed);
            if since > 0 && now.saturating_sub(since) > patience {
                return Finding::Stalled;
            }
            let by = answer.out_by.load(Ordering::Relaxed);
            if by > 0 && now > by {
                return Finding::TooSlow;
            }
        }
        Finding::Fine
    }

    fn millis(&self) -> u64 {
        millis(self.opened.elapsed())
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// How an answer is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// How long it may take in all, its making included.
    pub(super) within: Option<Duration>,
    /// Whether only its head is wanted.
    pub(super) bodiless: bool,
}

/// A request from its head until the last byte of its answer.
#[derive(Debug)]
pub(super) struct AtHand {
    requests: Arc<Requests>,
    began: u64,
    watched: Option<Arc<Watched>>,
    done: AtomicBool,
}

impl AtHand {
    pub(super) fn begin(requests: &Arc<Requests>) -> Self {
        requests.begun.fetch_add(1, Ordering::Relaxed);
        requests.at_hand.fetch_add(1, Ordering::Relaxed);
        let began = requests.millis();
        Self { requests: Arc::clone(requests), began, watched: None, done: AtomicBool::new(false) }
    }

    /// The answer is there.
    pub(super) fn answer(mut self, body: Body, manner: Manner) -> Answering {
        let Manner { within, bodiless } = manner;
        let watched = Arc::new(Watched {
            waits_since: AtomicU64::new(self.requests.millis() + 1),
            out_by: AtomicU64::new(
                within.map_or(0, |within| self.began.saturating_add(millis(within)).max(1)),
            ),
        });
        self.requests.answers.lock().push(Arc::clone(&watched));
        self.done.store(bodiless || body.is_end_stream(), Ordering::Relaxed);
        self.watched = Some(watched);
        Answering { body, at_hand: self, rest: None }
    }
}

impl Drop for AtHand {
    fn drop(&mut self) {
        if !self.done.load(Ordering::Relaxed) {
            self.requests.given_up.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(watched) = &self.watched {
            self.requests.answers.lock().retain(|other| !Arc::ptr_eq(other, watched));
        }
        if self.requests.at_hand.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.requests.reader.wake();
        }
    }
}

/// An answer's body; the request is at hand until it is dropped.
#[derive(Debug)]
pub(super) struct Answering {
    body: Body,
    at_hand: AtHand,
    /// What of the last frame is yet to be given out.
    rest: Option<Bytes>,
}

impl Answering {
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(mut rest) = self.rest.take() {
            if rest.len() > PIECE {
                self.rest = Some(rest.split_off(PIECE));
            }
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        Pin::new(&mut self.body).poll_frame(cx).map_ok(|frame| match frame.into_data() {
            Ok(mut data) => {
                if data.len() > PIECE {
                    self.rest = Some(data.split_off(PIECE));
                }
                Frame::data(data)
            }
            Err(trailers) => trailers,
        })
    }
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = self.next(cx);
        let waits_since = match &frame {
            Poll::Ready(Some(_)) => self.at_hand.requests.millis() + 1,
            Poll::Ready(None) | Poll::Pending => 0,
        };
        if let Some(watched) = &self.at_hand.watched {
            watched.waits_since.store(waits_since, Ordering::Relaxed);
        }
        if matches!(frame, Poll::Ready(None)) || self.is_end_stream() {
            self.at_hand.done.store(true, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.as_ref().map_or(0, |rest| u64::try_from(rest.len()).unwrap_or(u64::MAX));
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}
