//! Limits, keys and answers that several gateways share, over a real Redis: exact, and harmless when it is not there.
//!
//! Without `redis-server` in the `PATH` these tests say so loudly and skip.

mod answers;
mod buckets;
mod cluster;
mod faults;
mod keys;
mod processes;
pub mod setting;
mod sign_in;
