//! Integration tests, one binary.

mod promql_scripts;
mod script;
