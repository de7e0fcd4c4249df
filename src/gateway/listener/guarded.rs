//! A connection that gives up on peers that keep it waiting.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::{
    ListenerLimits,
    requests::{Finding, Requests},
};

/// The bytes of a connection, below HTTP and above TLS.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    requests: Arc<Requests>,
    /// Requests begun when `reading` was last looked at.
    seen: u64,
    /// Known from the first bytes on.
    protocol: Option<Protocol>,
    reading: Reading,
    /// When what `reading` waits for has to be there; while requests are at hand, when to look at them next.
    timer: Pin<Box<Sleep>>,
    /// Set while the peer does not take what is written.
    write_deadline: Option<Pin<Box<Sleep>>>,
    /// Since when there has been something to write that the peer has not taken, be it the end of an answer that is
    /// no longer at hand.
    behind_since: Option<Instant>,
    limits: Arc<ListenerLimits>,
}

/// What is being waited for when reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// A request is at hand; its body has its own deadline.
    Busy,
    /// The first byte of the next request.
    Idle,
    /// The rest of a request's head.
    Head,
}

/// What the peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    /// Tells by the first bytes: HTTP/2 begins with `PRI * HTTP/2.0`, and no method begins so.
    fn of(bytes: &[u8]) -> Self {
        if bytes.starts_with(b"PRI") { Self::Http2 } else { Self::Http1 }
    }
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S, requests: Arc<Requests>, limits: Arc<ListenerLimits>) -> Self {
        let timer = Box::pin(tokio::time::sleep(limits.idle_timeout));
        let (reading, protocol) = (Reading::Idle, None);
        let (write_deadline, behind_since) = (None, None);
        Self { stream, requests, seen: 0, protocol, reading, timer, write_deadline, behind_since, limits }
    }

    fn wait_for(&mut self, reading: Reading) {
        let limits = &self.limits;
        let span = match reading {
            Reading::Busy => limits.look_every(),
            Reading::Idle => limits.idle_timeout,
            Reading::Head => limits.header_timeout,
        };
        self.reading = reading;
        self.timer.as_mut().reset(Instant::now() + span);
    }

    /// Brings `reading` up to date with the requests, and fails if its deadline is over.
    fn check_deadline(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.requests.register(cx.waker());
        if self.requests.are_given_up(&self.limits) {
            return Err(io::Error::other("the peer gives up most of its requests"));
        }
        let begun = self.requests.begun();
        if self.requests.any_at_hand() {
            self.seen = begun;
            if self.reading != Reading::Busy {
                self.wait_for(Reading::Busy);
            }
            return self.look_at_answers(cx);
        }
        if begun != self.seen || self.reading == Reading::Busy {
            self.seen = begun;
            self.wait_for(Reading::Idle);
            // However long the answer was, its end has as long as an answer.
            self.behind_since = self.behind_since.map(|_| Instant::now());
        }
        if self.behind_since.is_some_and(|since| since.elapsed() > self.limits.request_timeout) {
            return Err(timed_out("answer not read within the request timeout"));
        }
        // Nobody is idle who is still reading an answer.
        while self.behind_since.is_some()
            && self.reading == Reading::Idle
            && self.timer.as_mut().poll(cx).is_ready()
        {
            self.wait_for(Reading::Idle);
        }
        match (self.timer.as_mut().poll(cx), self.reading) {
            (Poll::Ready(()), Reading::Idle) => Err(timed_out("no request within the idle timeout")),
            (Poll::Ready(()), Reading::Head) => {
                Err(timed_out("request head not complete within the header timeout"))
            }
            (Poll::Ready(()), Reading::Busy) | (Poll::Pending, _) => Ok(()),
        }
    }

    fn look_at_answers(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            self.look()?;
            self.wait_for(Reading::Busy);
        }
        Ok(())
    }

    fn look(&self) -> io::Result<()> {
        match self.requests.look(&self.limits) {
            Finding::Fine => Ok(()),
            Finding::Stalled => Err(timed_out("the peer does not read its answer")),
            Finding::TooSlow => Err(timed_out("answer not read within the request timeout")),
        }
    }

    fn note_bytes_read(&mut self, bytes: &[u8]) {
        let protocol = *self.protocol.get_or_insert_with(|| Protocol::of(bytes));
        match (protocol, self.reading) {
            (Protocol::Http1, Reading::Idle) => self.wait_for(Reading::Head),
            // Here bytes do not mean that a request begins: there are pings and windows.
            (Protocol::Http2, _) | (Protocol::Http1, Reading::Busy | Reading::Head) => {}
        }
    }

    /// Lets the peer keep a write waiting only so long.
    fn watch_write<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_deadline = None;
            return written;
        }
        self.behind_since.get_or_insert_with(Instant::now);
        // A peer that takes a byte now and then is slow, too; while it does not, nobody may be reading.
        if self.reading == Reading::Busy {
            self.look_at_answers(cx)?;
        }
        let timeout = self.limits.write_timeout;
        let deadline = self.write_deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        match deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(timed_out("the peer does not read its answer"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_deadline(cx)?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if let Some(bytes @ [_, ..]) = buffer.filled().get(before..) {
            self.note_bytes_read(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() && self.behind_since.take().is_some() && self.reading == Reading::Idle {
            self.wait_for(Reading::Idle);
        }
        self.watch_write(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch_write(cx, closed)
    }
}
