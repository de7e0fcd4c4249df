//! What travels over HTTP, where it differs from what we hold.

pub mod escaped_name;
pub mod json;
pub mod json_lines;
pub mod search;
