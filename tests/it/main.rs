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
mod backup;
mod certificates;
mod cli;
mod clickhouse;
mod computation;
mod config;
mod credentials;
mod death;
mod deploy;
mod differential;
mod federation;
mod golden;
mod grafana;
mod http;
mod keys;
mod kill;
mod layers;
mod leak;
mod limits;
mod memory;
mod moving;
mod nginx;
mod openapi;
mod overrides;
mod patience;
mod prometheus;
mod promql_scripts;
mod promtool;
mod redis;
mod remote_read;
mod roles;
mod running;
mod script;
mod server;
mod taker;
mod tls;
mod token;
mod token_cli;
mod torture;
mod vmalert;
