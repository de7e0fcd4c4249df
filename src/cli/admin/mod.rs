//! `luminate admin`: operating a server, and finding out what is wrong where there is no shell.
//!
//! * [`check`]: what a server stands on, a step at a time.
//! * [`smoke`]: samples go in and come back, once.
//! * [`canary`]: the same for ever, with metrics about it.
//! * [`capacity`]: how much of what a load takes; no server is asked.
//! * `flush`: everything in memory becomes durable in its final place.

pub mod canary;
pub mod capacity;
pub mod check;
pub mod samples;
pub mod smoke;

use clap::Subcommand;

use super::{CommandError, client::ServerFlags, health};

/// What an operator asks for.
#[derive(Clone, Debug, Subcommand)]
pub enum Admin {
    /// Make everything the server holds in memory durable in its final place.
    Flush(ServerFlags),
    /// Reckon pods, cores, memory and disk for a load, from measured figures; no server is asked.
    Capacity(capacity::CapacityFlags),
    /// Try what a server stands on, as configured: names, ClickHouse, Redis, the keys of tokens.
    Check(check::CheckFlags),
    /// Write a few samples to a running server and read them back, step by step.
    Smoke(smoke::SmokeFlags),
    /// Write known samples for ever, verify that all of them stay, and tell by metrics.
    Canary(canary::CanaryFlags),
}

/// Does what is asked.
pub fn run(command: &Admin) -> Result<(), CommandError> {
    match command {
        Admin::Flush(flags) => health::flush(flags),
        Admin::Capacity(flags) => capacity::run(flags),
        Admin::Check(flags) => check::run(flags),
        Admin::Smoke(flags) => smoke::run(flags),
        Admin::Canary(flags) => canary::run(flags),
    }
}
