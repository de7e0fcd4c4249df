//! Integration tests, one binary: the parts together, over HTTP, across crashes, against their peers.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "tests"
)]

mod admin;
mod attacks;
mod attacks_http;
mod attacks_server;
mod certificates;
mod cli;
mod clickhouse;
mod computation;
mod config;
mod credentials;
mod deploy;
mod differential;
mod golden;
mod http;
mod keys;
mod kill;
mod layers;
mod leak;
mod limits;
mod memory;
mod moving;
mod nginx;
mod overrides;
mod prometheus;
mod promql_scripts;
mod redis;
mod roles;
mod script;
mod server;
mod taker;
mod tls;
mod token;
mod token_cli;
