//! The allocator, and a thread that gives the memory it holds back to the system.
//!
//! mimalloc keeps what was freed for a second, and then lets whichever thread asks for memory next give it back: where a
//! query of one tenant has freed gigabytes, another tenant's would pay for them with tens of milliseconds; and of what is
//! given back, each page must be cleared when it is used again. So a thread of low priority does that, and not that often.
//! Others still do if it does not get to it for a minute.

use std::{
    ffi::c_long,
    io,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

pub use mimalloc::MiMalloc as Allocator;

use crate::task::priority;

/// How often memory is given back.
const EVERY: Duration = Duration::from_secs(5);

/// How long mimalloc keeps it if the thread does not come to it, in milliseconds.
const KEPT_MILLIS: c_long = 60_000;

/// The number of that option, which the bindings have no name for, and what it is unless it is set.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
const PURGE_DELAY_DEFAULT: c_long = 1_000;

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct GivingBack {
    _ends: mpsc::Sender<()>,
}

impl GivingBack {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let (ends, ended) = mpsc::channel::<()>();
        thread::Builder::new().name("memory".to_owned()).spawn(move || {
            if let Err(error) = priority::lower() {
                tracing::debug!(%error, "the priority of a thread cannot be lowered");
            }
            while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                #[expect(
                    unsafe_code,
                    reason = "it takes no pointers, may be called by any thread, and locks itself"
                )]
                unsafe {
                    libmimalloc_sys::mi_collect(true);
                }
            }
        })?;
        keep_longer();
        Ok(Self { _ends: ends })
    }
}

/// Has mimalloc keep memory until the thread comes, unless the environment says how long.
fn keep_longer() {
    #[expect(
        unsafe_code,
        reason = "both take numbers and nothing else, and do nothing if there is no such option"
    )]
    unsafe {
        if libmimalloc_sys::mi_option_get(PURGE_DELAY) == PURGE_DELAY_DEFAULT {
            libmimalloc_sys::mi_option_set(PURGE_DELAY, KEPT_MILLIS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        let now = || {
            #[expect(unsafe_code, reason = "it takes a number, and does nothing if there is no such option")]
            unsafe {
                libmimalloc_sys::mi_option_get(PURGE_DELAY)
            }
        };
        assert_eq!(now(), PURGE_DELAY_DEFAULT);
        keep_longer();
        assert_eq!(now(), KEPT_MILLIS);
    }
}
