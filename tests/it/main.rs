//! Integration tests, one binary: the parts together, over HTTP, across crashes, against their peers.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, reason = "tests")]

mod memory;
