//! The `luminate` binary.

fn main() {}
