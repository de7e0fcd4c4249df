//! What travels over HTTP, where it differs from what we hold.

pub mod chunk;
pub mod escaped_name;
pub mod exposition;
pub mod json;
pub mod json_lines;
pub mod remote_read;
pub mod search;
mod tokens;
pub mod tree;
